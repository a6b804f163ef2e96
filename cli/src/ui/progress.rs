//! Progress of an operation: a bar on a terminal, a line a minute in a log, an object a second
//! with `--json`. Calm: nothing jumps, and no time left is shown before it means something.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cairn_engine::context::{Counter, Monitor, Remark};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value};

use super::printer::{Printer, Verbosity};
use super::{format, json};

/// Time between two redraws of the bar.
const REDRAW: Duration = Duration::from_millis(250);
/// Time between two objects with `--json`.
const EVENT: Duration = Duration::from_secs(1);
/// Time between two lines in a log.
const LINE: Duration = Duration::from_secs(60);
/// Time in which an older pace loses most of its weight.
const PACE: Duration = Duration::from_secs(15);
/// Width of the bar, characters.
const BAR_CELLS: usize = 20;
/// No time left is shown before a stage has run that long.
const GUESS_AFTER: Duration = Duration::from_secs(10);

/// What is counted: name in JSON, and the phrase for people with whether it counts bytes.
const COUNTERS: [(Counter, &str, Phrase); 14] = [
    (Counter::BytesRead, "bytes_read", Phrase::Bytes("read")),
    (Counter::BytesUnchanged, "bytes_unchanged", Phrase::Bytes("unchanged")),
    (Counter::BytesNew, "bytes_new", Phrase::Bytes("new")),
    (Counter::BytesStored, "bytes_stored", Phrase::Bytes("stored")),
    (Counter::PacksStored, "packs_stored", Phrase::Hidden),
    (Counter::BytesRestored, "bytes_restored", Phrase::Bytes("restored")),
    (Counter::BytesVerified, "bytes_verified", Phrase::Bytes("verified")),
    (Counter::BytesFetched, "bytes_fetched", Phrase::Bytes("fetched")),
    (Counter::PacksVerified, "packs_verified", Phrase::Count("packs")),
    (Counter::Findings, "findings", Phrase::Count("findings")),
    (Counter::EntriesScanned, "entries_scanned", Phrase::Count("entries")),
    (Counter::EntriesRestored, "entries_restored", Phrase::Count("entries")),
    (Counter::FilesDone, "files_done", Phrase::Hidden),
    (Counter::FilesUnchanged, "files_unchanged", Phrase::Hidden),
];

/// The counters whose pace is shown, the first that has counted anything.
const PACED: [Counter; 4] =
    [Counter::BytesRead, Counter::BytesRestored, Counter::BytesVerified, Counter::BytesFetched];

#[derive(Clone, Copy)]
enum Phrase {
    Bytes(&'static str),
    Count(&'static str),
    Hidden,
}

fn index(counter: Counter) -> Option<usize> {
    COUNTERS.iter().position(|(known, ..)| *known == counter)
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts([u64; COUNTERS.len()]);

impl Counts {
    fn get(&self, counter: Counter) -> u64 {
        index(counter).and_then(|index| self.0.get(index)).copied().unwrap_or(0)
    }

    /// What counts towards a total: bytes of unchanged files need not be read.
    fn towards(&self, counter: Counter) -> u64 {
        match counter {
            Counter::BytesRead => {
                self.get(counter).saturating_add(self.get(Counter::BytesUnchanged))
            }
            other => self.get(other),
        }
    }
}

/// A pace in which recent seconds count most: amount and time fade alike, so that their ratio is
/// right from the first moment.
#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    amount: f64,
    seconds: f64,
    last: u64,
}

impl Pace {
    /// Begins at a count.
    fn from(count: u64) -> Self {
        Self { last: count, ..Self::default() }
    }

    fn update(&mut self, count: u64, since: Duration) {
        let fading = (-since.as_secs_f64() / PACE.as_secs_f64()).exp();
        self.amount = self.amount * fading + count.saturating_sub(self.last) as f64;
        self.seconds = self.seconds * fading + since.as_secs_f64();
        self.last = count;
    }

    /// Per second; nothing while nothing moves.
    fn per_second(&self) -> Option<f64> {
        let pace = self.amount / self.seconds;
        (pace.is_finite() && pace >= 1.0).then_some(pace)
    }

    fn time_for(&self, amount: u64) -> Option<Duration> {
        let seconds = amount as f64 / self.per_second()?;
        (seconds < 1e9).then(|| Duration::from_secs_f64(seconds))
    }
}

#[derive(Clone, Copy, Debug)]
struct Stage {
    name: &'static str,
    total: Option<(Counter, u64)>,
    began: Instant,
    /// Counts when the stage began: a stage may count what an earlier one counted.
    base: Counts,
}

/// Counts what an operation reports, and shows it.
pub struct Progress {
    printer: Arc<Printer>,
    shown: bool,
    began: Instant,
    counters: [AtomicU64; COUNTERS.len()],
    stage: Mutex<Stage>,
    cancelled: Arc<AtomicBool>,
    ended: (Mutex<bool>, Condvar),
}

impl Progress {
    /// Counts for one operation. `shown` tells whether it is shown on its way.
    #[must_use]
    pub fn new(printer: Arc<Printer>, shown: bool, cancelled: Arc<AtomicBool>) -> Arc<Self> {
        let began = Instant::now();
        let stage = Stage { name: "opening", total: None, began, base: Counts::default() };
        Arc::new(Self {
            shown,
            printer,
            began,
            counters: Default::default(),
            stage: Mutex::new(stage),
            cancelled,
            ended: (Mutex::new(false), Condvar::new()),
        })
    }

    /// Begins to show. It ends when the value returned is dropped.
    #[must_use]
    pub fn show(self: &Arc<Self>) -> Shown {
        let json = self.printer.is_json();
        let quiet = self.printer.verbosity() == Verbosity::Quiet;
        if !self.shown || (quiet && !json) {
            return Shown { progress: Arc::clone(self), thread: None };
        }
        let progress = Arc::clone(self);
        let run = move || match (json, progress.printer.is_moving()) {
            (true, _) => progress.every(EVENT, |view| drop(progress.printer.event(&view.event()))),
            (false, true) => progress.draw(),
            (false, false) => progress.every(LINE, |view| progress.printer.note(&view.line())),
        };
        // Without a thread there is no progress, and the operation goes on.
        let thread = std::thread::Builder::new().name("progress".into()).spawn(run).ok();
        Shown { progress: Arc::clone(self), thread }
    }

    fn draw(&self) {
        let bar = ProgressBar::new_spinner().with_style(style());
        self.printer.set_bar(Some(bar.clone()));
        self.every(REDRAW, |view| bar.set_message(view.bar()));
        self.printer.set_bar(None);
        bar.finish_and_clear();
    }

    /// Calls `show` once an interval until the operation has ended.
    fn every(&self, interval: Duration, mut show: impl FnMut(&View)) {
        let mut pace = Pace::default();
        let mut paced_stage = self.began;
        let mut last = Instant::now();
        while !self.wait_for_end(interval) {
            let stage = *lock(&self.stage);
            let counts = self.counts();
            let counter = stage.paced(&counts);
            if stage.began != paced_stage {
                pace = Pace::from(counter.map_or(0, |counter| stage.base.get(counter)));
                paced_stage = stage.began;
                last = last.max(stage.began);
            }
            pace.update(counter.map_or(0, |counter| counts.get(counter)), last.elapsed());
            last = Instant::now();
            show(&View {
                stage,
                counts,
                pace,
                stage_elapsed: stage.began.elapsed(),
                elapsed: self.began.elapsed(),
            });
        }
    }

    fn wait_for_end(&self, interval: Duration) -> bool {
        let (ended, condition) = &self.ended;
        let waited = condition.wait_timeout_while(lock(ended), interval, |ended| !*ended);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for (value, counter) in counts.0.iter_mut().zip(&self.counters) {
            *value = counter.load(Ordering::Relaxed);
        }
        counts
    }
}

impl Monitor for Progress {
    fn count(&self, counter: Counter, amount: u64) {
        if let Some(counter) = index(counter).and_then(|index| self.counters.get(index)) {
            counter.fetch_add(amount, Ordering::Relaxed);
        }
    }

    fn stage(&self, name: &'static str, total: Option<(Counter, u64)>) {
        let base = self.counts();
        *lock(&self.stage) = Stage { name, total, began: Instant::now(), base };
    }

    fn wants_total(&self) -> bool {
        self.shown && self.printer.is_moving() && self.printer.verbosity() != Verbosity::Quiet
    }

    fn total(&self, counter: Counter, total: u64) {
        lock(&self.stage).total = Some((counter, total));
    }

    fn warn(&self, remark: Remark) {
        self.printer.warning(&remark);
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

/// Shows progress until it is dropped.
pub struct Shown {
    progress: Arc<Progress>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Shown {
    fn drop(&mut self) {
        let (ended, condition) = &self.progress.ended;
        *lock(ended) = true;
        condition.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic while drawing is no reason to fail what was drawn.
            drop(thread.join());
        }
    }
}

impl Stage {
    fn paced(&self, counts: &Counts) -> Option<Counter> {
        match self.total {
            Some((counter, _)) => Some(counter),
            None => PACED.into_iter().find(|counter| counts.get(*counter) > 0),
        }
    }
}

/// What is shown of one moment.
struct View {
    stage: Stage,
    counts: Counts,
    pace: Pace,
    stage_elapsed: Duration,
    elapsed: Duration,
}

impl View {
    fn share(&self) -> Option<(u64, u64)> {
        let (counter, total) = self.stage.total?;
        let done = self.counts.towards(counter).saturating_sub(self.stage.base.towards(counter));
        (total > 0).then_some((done, total))
    }

    fn remaining(&self) -> Option<Duration> {
        let (done, total) = self.share()?;
        if self.stage_elapsed < GUESS_AFTER || done == 0 {
            return None;
        }
        self.pace.time_for(total.saturating_sub(done))
    }

    /// What is done, how much of it, how long it takes.
    fn headline(&self) -> String {
        let mut headline = self.stage.name.replace(": ", " ");
        if let Some((done, total)) = self.share() {
            let percent = (done as f64 / total as f64 * 100.0).min(100.0);
            headline.push_str(&format!(" {percent:.0}%"));
        }
        if let Some(remaining) = self.remaining() {
            // Tenths of the last seconds would only flicker.
            let shown = milliseconds(remaining).max(10_000);
            headline.push_str(&format!(", {} left", format::duration(shown)));
        }
        headline
    }

    fn line(&self) -> String {
        let mut parts = Vec::new();
        let paced = self.stage.paced(&self.counts);
        for (counter, _, phrase) in COUNTERS {
            let amount = self.counts.get(counter);
            let part = match phrase {
                _ if amount == 0 => continue,
                Phrase::Hidden => continue,
                Phrase::Count(what) => format!("{} {what}", format::count(amount)),
                Phrase::Bytes(what) => match self.pace.per_second() {
                    Some(pace) if paced == Some(counter) => {
                        let pace = format::bytes(pace as u64);
                        format!("{} {what} at {pace}/s", format::bytes(amount))
                    }
                    _ => format!("{} {what}", format::bytes(amount)),
                },
            };
            parts.push(part);
            if counter == Counter::BytesStored {
                let whole = self.counts.towards(Counter::BytesRead);
                parts.extend(format::ratio(whole, amount).map(|ratio| format!("ratio {ratio}")));
            }
        }
        if parts.is_empty() {
            parts.push(format::duration(milliseconds(self.elapsed)));
        }
        format!("{}: {}", self.headline(), parts.join(", "))
    }

    /// The line with a bar before it, where the total is known.
    fn bar(&self) -> String {
        let Some((done, total)) = self.share() else { return self.line() };
        let filled = (done as f64 / total as f64 * BAR_CELLS as f64).min(BAR_CELLS as f64);
        let filled = "=".repeat(filled as usize);
        format!("[{filled:<BAR_CELLS$}] {}", self.line())
    }

    fn event(&self) -> json::Progress {
        let counters: Map<String, Value> = COUNTERS
            .iter()
            .map(|(counter, name, _)| ((*name).to_owned(), self.counts.get(*counter).into()))
            .collect();
        let (done, total) = self.share().unzip();
        json::Progress {
            kind: "progress",
            stage: self.stage.name,
            elapsed_ms: milliseconds(self.elapsed),
            total,
            done,
            remaining_ms: self.remaining().map(milliseconds),
            counters,
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// One line, cut off at the terminal's edge.
fn style() -> ProgressStyle {
    ProgressStyle::with_template("{wide_msg}").unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(total: Option<(Counter, u64)>, counted: &[(Counter, u64)], seconds: u64) -> View {
        let mut counts = Counts::default();
        for (counter, amount) in counted {
            counts.0[index(*counter).unwrap()] = *amount;
        }
        let began = Instant::now();
        let stage = Stage { name: "verify: packs", total, began, base: Counts::default() };
        let pace = Pace { amount: 2097152.0, seconds: 2.0, last: 0 };
        let elapsed = Duration::from_secs(seconds);
        View { stage, counts, pace, stage_elapsed: elapsed, elapsed }
    }

    #[test]
    fn a_line_says_what_was_read_kept_and_stored() {
        let counted = [
            (Counter::EntriesScanned, 1234),
            (Counter::BytesRead, 3 << 20),
            (Counter::BytesUnchanged, 7 << 20),
            (Counter::BytesNew, 2 << 20),
            (Counter::BytesStored, 1 << 20),
        ];
        assert_eq!(
            view(None, &counted, 5).line(),
            "verify packs: 3.0 MiB read at 1.0 MiB/s, 7.0 MiB unchanged, 2.0 MiB new, \
             1.0 MiB stored, ratio 10.0x, 1,234 entries"
        );
        assert_eq!(view(None, &[], 5).line(), "verify packs: 5.0s");
    }

    #[test]
    fn time_left_waits_until_it_means_something() {
        let total = Some((Counter::BytesRead, 100 << 20));
        let counted = [(Counter::BytesRead, 10 << 20)];
        assert!(view(total, &counted, 9).remaining().is_none());
        assert_eq!(view(total, &counted, 11).remaining(), Some(Duration::from_secs(90)));
        assert_eq!(
            view(total, &counted, 11).bar(),
            "[==                  ] verify packs 10%, 1m 30s left: 10.0 MiB read at 1.0 MiB/s"
        );
        assert!(view(None, &counted, 11).remaining().is_none());
    }

    #[test]
    fn unchanged_bytes_count_towards_the_total() {
        let total = Some((Counter::BytesRead, 100));
        let counted = [(Counter::BytesRead, 10), (Counter::BytesUnchanged, 30)];
        assert_eq!(view(total, &counted, 1).share(), Some((40, 100)));
    }

    #[test]
    fn a_pace_is_right_at_once_and_then_follows_slowly() {
        let mut pace = Pace::from(500);
        assert!(pace.per_second().is_none());
        pace.update(1500, Duration::from_secs(1));
        assert_eq!(pace.per_second(), Some(1000.0));
        pace.update(1500, Duration::from_secs(1));
        assert!(pace.per_second().is_some_and(|pace| (400.0..500.0).contains(&pace)));
        pace.update(1500, Duration::from_secs(900));
        assert!(pace.per_second().is_none());
        assert!(Pace::default().time_for(10).is_none());
    }

    #[test]
    fn more_than_the_total_is_still_all() {
        let total = Some((Counter::BytesVerified, 100));
        let bar = view(total, &[(Counter::BytesVerified, 300)], 1).bar();
        assert!(bar.starts_with("[====================] verify packs 100%: "), "{bar}");
    }

    #[test]
    fn the_template_parses() {
        ProgressStyle::with_template("{wide_msg}").unwrap();
    }
}
