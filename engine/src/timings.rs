//! Where the time of an operation goes: how long threads work at each stage, and how long they wait.
//!
//! A [`Timings`] is handed to an operation with its surroundings. Whoever works at a stage holds a
//! [`Span`] meanwhile; nothing else is timed anywhere. Where nobody asked for timings a span is
//! nothing, not even a look at the clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

/// What a thread works at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Reading the source, from open to close; bytes of content.
    Read,
    /// Finding where content is cut; bytes of content.
    Cut,
    /// Naming chunks; bytes of content.
    Hash,
    /// Looking chunks up in the local index.
    Index,
    /// Finding bases of new chunks; bytes of content.
    Search,
    /// Compressing; bytes of content.
    Compress,
    /// Of a backup: decoding and comparing what was compressed. Of a restore or verify: comparing
    /// chunks with their names. Bytes of content.
    Check,
    /// Sealing; bytes as they are stored.
    Seal,
    /// Putting packs into the store; bytes as they are stored.
    Upload,
    /// Reading from the store; bytes as they are stored.
    Fetch,
    /// Opening what is sealed; bytes as they are stored.
    Open,
    /// Decompressing; bytes of content.
    Decode,
    /// Making entries and writing their content; bytes of content.
    Write,
    /// Giving entries their metadata.
    Finish,
    /// Making durable.
    Sync,
}

/// Which part of the machine a stage needs most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Its processors.
    Processor,
    /// The disk that is backed up, or restored to.
    Disk,
    /// Where the repository is: a disk, or a network.
    Store,
}

impl Stage {
    /// All of them, in the order data takes.
    pub const ALL: [Self; 15] = [
        Self::Read,
        Self::Cut,
        Self::Hash,
        Self::Index,
        Self::Search,
        Self::Compress,
        Self::Check,
        Self::Seal,
        Self::Upload,
        Self::Fetch,
        Self::Open,
        Self::Decode,
        Self::Write,
        Self::Finish,
        Self::Sync,
    ];

    /// A word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Cut => "cut",
            Self::Hash => "hash",
            Self::Index => "index",
            Self::Search => "search",
            Self::Compress => "compress",
            Self::Check => "check",
            Self::Seal => "seal",
            Self::Upload => "upload",
            Self::Fetch => "fetch",
            Self::Open => "open",
            Self::Decode => "decode",
            Self::Write => "write",
            Self::Finish => "finish",
            Self::Sync => "sync",
        }
    }

    /// What it needs most.
    #[must_use]
    pub const fn resource(self) -> Resource {
        match self {
            Self::Read | Self::Write | Self::Finish | Self::Sync => Resource::Disk,
            Self::Upload | Self::Fetch => Resource::Store,
            Self::Cut
            | Self::Hash
            | Self::Index
            | Self::Search
            | Self::Compress
            | Self::Check
            | Self::Seal
            | Self::Open
            | Self::Decode => Resource::Processor,
        }
    }
}

/// Sums of one stage, over all threads.
#[derive(Default)]
struct Cell {
    busy_ns: AtomicU64,
    waiting_ns: AtomicU64,
    bytes: AtomicU64,
    spans: AtomicU64,
    occupied: Mutex<Occupied>,
}

/// How long at least one thread was at a stage.
#[derive(Default)]
struct Occupied {
    threads: usize,
    since: Option<Instant>,
    ns: u64,
}

struct Inner {
    began: Instant,
    cells: [Cell; Stage::ALL.len()],
}

/// Takes the times of one operation, or does nothing.
#[derive(Clone, Default)]
pub struct Timings(Option<Arc<Inner>>);

impl std::fmt::Debug for Timings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Timings").field("on", &self.0.is_some()).finish()
    }
}

/// A thread at a stage, until it is dropped.
#[must_use]
pub struct Span<'t> {
    running: Option<(&'t Cell, Instant)>,
    bytes: u64,
    waiting: bool,
}

/// What was measured of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageTime {
    /// The stage.
    pub stage: Stage,
    /// Time at work, summed over threads, nanoseconds. It goes by the clock: a thread that is
    /// interrupted, or waits for a device, counts as being at work.
    pub busy_ns: u64,
    /// Time waiting for others to bring or take something, summed over threads, nanoseconds.
    pub waiting_ns: u64,
    /// Time during which at least one thread was at work, nanoseconds.
    pub occupied_ns: u64,
    /// What went through; what these bytes are stands at [`Stage`].
    pub bytes: u64,
    /// How many times it was entered.
    pub spans: u64,
}

/// What kept an operation from being faster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// A resource was in use nearly all of the time.
    Resource(Resource),
    /// None was: stages waited for one another, or for a part that one thread does.
    Latency,
}

/// What was measured of an operation.
#[derive(Clone, Debug)]
pub struct Measured {
    /// From the beginning until now, nanoseconds.
    pub elapsed_ns: u64,
    /// Stages that were entered.
    pub stages: Vec<StageTime>,
    /// Share of the time of all processors that stages of computation took, 0 to 1.
    pub processor_share: f64,
    /// Share of the time in which something was read from or written to the disk.
    pub disk_share: f64,
    /// Share of the time in which something was put into or fetched from the store.
    pub store_share: f64,
    /// What was in use the most.
    pub limit: Limit,
}

/// A resource in use for less than this share of the time is not the limit.
const LIMIT_SHARE_MIN: f64 = 0.6;

fn ns(since: Instant, until: Instant) -> u64 {
    u64::try_from(until.saturating_duration_since(since).as_nanos()).unwrap_or(u64::MAX)
}

impl Timings {
    /// Measures, from now on.
    #[must_use]
    pub fn on() -> Self {
        let cells = std::array::from_fn(|_| Cell::default());
        Self(Some(Arc::new(Inner { began: Instant::now(), cells })))
    }

    /// This thread is at a stage with so many bytes until the span is dropped.
    pub fn span(&self, stage: Stage, bytes: u64) -> Span<'_> {
        self.begin(stage, bytes, false)
    }

    /// This thread waits for the stage before it, or after it.
    pub fn waiting(&self, stage: Stage) -> Span<'_> {
        self.begin(stage, 0, true)
    }

    fn begin(&self, stage: Stage, bytes: u64, waiting: bool) -> Span<'_> {
        let cell = self.0.as_ref().and_then(|inner| inner.cells.get(stage as usize));
        let running = cell.map(|cell| {
            let now = Instant::now();
            if !waiting && stage.resource() != Resource::Processor {
                let mut occupied = cell.occupied.lock();
                occupied.threads += 1;
                occupied.since.get_or_insert(now);
            }
            (cell, now)
        });
        Span { running, bytes, waiting }
    }

    /// What was measured until now; `None` when nothing is.
    #[must_use]
    pub fn measured(&self) -> Option<Measured> {
        let inner = self.0.as_ref()?;
        let elapsed_ns = ns(inner.began, Instant::now()).max(1);
        let stages = Stage::ALL.into_iter().zip(&inner.cells).map(|(stage, cell)| StageTime {
            stage,
            busy_ns: cell.busy_ns.load(Ordering::Relaxed),
            waiting_ns: cell.waiting_ns.load(Ordering::Relaxed),
            occupied_ns: cell.occupied.lock().ns,
            bytes: cell.bytes.load(Ordering::Relaxed),
            spans: cell.spans.load(Ordering::Relaxed),
        });
        let stages = stages.filter(|time| time.spans > 0 || time.waiting_ns > 0);
        Some(judge(elapsed_ns, stages.collect(), rayon::current_num_threads()))
    }
}

/// Works out shares and the limit.
fn judge(elapsed_ns: u64, stages: Vec<StageTime>, cores: usize) -> Measured {
    let elapsed = elapsed_ns as f64;
    let of = |resource| stages.iter().filter(move |time| time.stage.resource() == resource);
    let computing = of(Resource::Processor).map(|time| time.busy_ns).sum::<u64>() as f64;
    let processor_share = (computing / elapsed / cores.max(1) as f64).min(1.0);
    // Stages of one device overlap, so the longest stands for it; but nothing is written any more
    // while it is made durable.
    let occupied = |stage| {
        stages.iter().find(|time| time.stage == stage).map_or(0, |time| time.occupied_ns) as f64
    };
    let share = |occupied: f64| (occupied / elapsed).min(1.0);
    let written = occupied(Stage::Write) + occupied(Stage::Finish) + occupied(Stage::Sync);
    let disk_share = share(occupied(Stage::Read).max(written));
    let store_share = share(occupied(Stage::Upload).max(occupied(Stage::Fetch)));
    let shares = [
        (Resource::Processor, processor_share),
        (Resource::Disk, disk_share),
        (Resource::Store, store_share),
    ];
    let most = shares.into_iter().reduce(|a, b| if b.1 > a.1 { b } else { a });
    let limit = most.filter(|(_, share)| *share >= LIMIT_SHARE_MIN);
    let limit = limit.map_or(Limit::Latency, |(resource, _)| Limit::Resource(resource));
    Measured { elapsed_ns, stages, processor_share, disk_share, store_share, limit }
}

impl Span<'_> {
    /// Says how many bytes it was, where that is known afterwards only.
    pub fn bytes(&mut self, bytes: u64) {
        self.bytes = bytes;
    }
}

impl Drop for Span<'_> {
    fn drop(&mut self) {
        let Some((cell, since)) = self.running.take() else { return };
        let now = Instant::now();
        let took = ns(since, now);
        if self.waiting {
            cell.waiting_ns.fetch_add(took, Ordering::Relaxed);
            return;
        }
        cell.busy_ns.fetch_add(took, Ordering::Relaxed);
        cell.bytes.fetch_add(self.bytes, Ordering::Relaxed);
        cell.spans.fetch_add(1, Ordering::Relaxed);
        let mut occupied = cell.occupied.lock();
        if occupied.threads > 0 {
            occupied.threads -= 1;
            if occupied.threads == 0
                && let Some(since) = occupied.since.take()
            {
                occupied.ns += ns(since, now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(stage: Stage, busy_ns: u64, occupied_ns: u64) -> StageTime {
        StageTime { stage, busy_ns, waiting_ns: 0, occupied_ns, bytes: 0, spans: 1 }
    }

    #[test]
    fn nothing_is_measured_unless_asked() {
        let timings = Timings::default();
        drop(timings.span(Stage::Hash, 10));
        assert!(timings.measured().is_none());
    }

    #[test]
    fn spans_of_all_threads_add_up() {
        let timings = Timings::on();
        std::thread::scope(|threads| {
            for _ in 0..4 {
                threads.spawn(|| {
                    let mut span = timings.span(Stage::Write, 1);
                    span.bytes(100);
                    drop(timings.waiting(Stage::Write));
                });
            }
        });
        let measured = timings.measured().unwrap();
        let [write] = measured.stages.as_slice() else { panic!("{measured:?}") };
        assert_eq!((write.stage, write.bytes, write.spans), (Stage::Write, 400, 4));
        assert!(write.waiting_ns > 0 && write.busy_ns >= write.waiting_ns);
        assert!(write.occupied_ns <= write.busy_ns && write.occupied_ns <= measured.elapsed_ns);
    }

    #[test]
    fn the_limit_is_what_was_in_use_the_most() {
        let limit = |stages: &[StageTime]| judge(1_000, stages.to_vec(), 2).limit;
        let computing = [time(Stage::Compress, 1_500, 0), time(Stage::Hash, 300, 0)];
        assert_eq!(limit(&computing), Limit::Resource(Resource::Processor));
        let reading = [time(Stage::Compress, 900, 0), time(Stage::Read, 950, 950)];
        assert_eq!(limit(&reading), Limit::Resource(Resource::Disk));
        let writing = [time(Stage::Write, 900, 450), time(Stage::Sync, 500, 500)];
        assert_eq!(limit(&writing), Limit::Resource(Resource::Disk));
        let uploading = [time(Stage::Compress, 900, 0), time(Stage::Upload, 1_700, 990)];
        assert_eq!(limit(&uploading), Limit::Resource(Resource::Store));
        let nothing = [time(Stage::Compress, 600, 0), time(Stage::Read, 100, 100)];
        assert_eq!(limit(&nothing), Limit::Latency);
    }
}
