//! What this host remembers of the requests its commands sent to a place, for a month: what the
//! provider will bill. A cache: without it the count is lost, and nothing else.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use cairn_engine::repo::places;
use cairn_engine::store::traffic::{RequestKind, Traffic};
use serde::{Deserialize, Serialize};

/// Folder below the folder of caches.
const FOLDER: &str = "requests";
/// Length of a file from which on what is old is taken out of it, bytes; some ten thousand commands.
const FILE_BYTES_MAX: u64 = 4 << 20;
const HOUR_MS: i64 = 60 * 60 * 1_000;
/// How long a command's requests are remembered, milliseconds.
const REMEMBERED_MS: i64 = 30 * 24 * HOUR_MS;

/// The stretches of time that are summed up, by name, each up to now, in milliseconds.
pub const PERIODS: [(&str, i64); 3] =
    [("24 hours", 24 * HOUR_MS), ("7 days", 7 * 24 * HOUR_MS), ("30 days", REMEMBERED_MS)];

/// Requests of some commands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sum {
    /// Commands that sent any.
    pub commands: u64,
    /// Requests by the name of their kind, those that were sent again included.
    pub sent: BTreeMap<String, u64>,
    /// Those that failed.
    pub failed: u64,
    /// Bytes of the bodies sent.
    pub bytes_sent: u64,
    /// Bytes of the bodies received.
    pub bytes_received: u64,
}

impl Sum {
    /// Of one command.
    #[must_use]
    pub fn of(traffic: &Traffic) -> Self {
        let kinds = RequestKind::ALL.into_iter();
        let sent = kinds.map(|kind| (kind.name().to_owned(), traffic.of(kind).sent));
        let total = traffic.total();
        Self {
            commands: 1,
            sent: sent.filter(|(_, sent)| *sent > 0).collect(),
            failed: total.failed,
            bytes_sent: total.bytes_sent,
            bytes_received: total.bytes_received,
        }
    }

    /// Requests of this kind.
    #[must_use]
    pub fn of_kind(&self, kind: RequestKind) -> u64 {
        self.sent.get(kind.name()).copied().unwrap_or_default()
    }

    fn add(&mut self, other: &Self) {
        self.commands = self.commands.saturating_add(other.commands);
        for (kind, sent) in &other.sent {
            let sum = self.sent.entry(kind.clone()).or_default();
            *sum = sum.saturating_add(*sent);
        }
        self.failed = self.failed.saturating_add(other.failed);
        self.bytes_sent = self.bytes_sent.saturating_add(other.bytes_sent);
        self.bytes_received = self.bytes_received.saturating_add(other.bytes_received);
    }
}

/// One command's requests, as a line of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    /// When it ended, milliseconds since 1970.
    at_ms: i64,
    command: String,
    #[serde(flatten)]
    sum: Sum,
}

/// What was sent to one place.
#[derive(Clone, Debug)]
pub struct Ledger {
    file: PathBuf,
}

/// What a ledger holds: sums by period, and by command of the longest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remembered {
    /// One for each of [`PERIODS`].
    pub periods: Vec<(&'static str, Sum)>,
    /// By command, within the longest period.
    pub commands: BTreeMap<String, Sum>,
}

impl Ledger {
    /// Of a place, in a folder of caches.
    #[must_use]
    pub fn new(cache_dir: &Path, place: &str) -> Self {
        Self { file: cache_dir.join(FOLDER).join(places::file_name(place)) }
    }

    /// Adds a command's requests.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn add(&self, now_ms: i64, command: &str, sum: &Sum) -> io::Result<()> {
        if let Some(folder) = self.file.parent() {
            fs::create_dir_all(folder)?;
        }
        let entry = Entry { at_ms: now_ms, command: command.to_owned(), sum: sum.clone() };
        let mut line = serde_json::to_vec(&entry)?;
        line.push(b'\n');
        // One write to the end: two commands that end at once do not mix their lines.
        let mut file = File::options().append(true).create(true).open(&self.file)?;
        file.write_all(&line)?;
        if file.metadata()?.len() > FILE_BYTES_MAX { self.shorten(now_ms) } else { Ok(()) }
    }

    /// Takes out what is old, and the older half where nothing is. A command that ends meanwhile may
    /// go uncounted.
    fn shorten(&self, now_ms: i64) -> io::Result<()> {
        let mut entries = self.entries();
        let all = entries.len();
        entries.retain(|entry| is_within(entry, now_ms, REMEMBERED_MS));
        if entries.len() == all {
            entries.drain(..all / 2);
        }
        let mut text = Vec::new();
        for entry in &entries {
            serde_json::to_writer(&mut text, entry)?;
            text.push(b'\n');
        }
        places::replace_file(&self.file, &text)
    }

    /// What can be understood of the file.
    fn entries(&self) -> Vec<Entry> {
        let mut text = Vec::new();
        let read = File::open(&self.file)
            .and_then(|file| file.take(2 * FILE_BYTES_MAX).read_to_end(&mut text));
        if read.is_err() {
            return Vec::new();
        }
        text.split(|byte| *byte == b'\n')
            .filter_map(|line| serde_json::from_slice(line).ok())
            .collect()
    }

    /// The sums up to now.
    #[must_use]
    pub fn remembered(&self, now_ms: i64) -> Remembered {
        let entries = self.entries();
        let sum = |within_ms| {
            let mut sum = Sum::default();
            entries
                .iter()
                .filter(|entry| is_within(entry, now_ms, within_ms))
                .for_each(|entry| sum.add(&entry.sum));
            sum
        };
        let mut commands = BTreeMap::<String, Sum>::new();
        for entry in entries.iter().filter(|entry| is_within(entry, now_ms, REMEMBERED_MS)) {
            commands.entry(entry.command.clone()).or_default().add(&entry.sum);
        }
        Remembered {
            periods: PERIODS.into_iter().map(|(name, ms)| (name, sum(ms))).collect(),
            commands,
        }
    }
}

/// Whether it ended within so many milliseconds before now; what a clock that was ahead wrote is not.
fn is_within(entry: &Entry, now_ms: i64, within_ms: i64) -> bool {
    (0..=within_ms).contains(&now_ms.saturating_sub(entry.at_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: i64 = 2_000_000_000_000;

    fn sum(reads: u64) -> Sum {
        Sum {
            commands: 1,
            sent: BTreeMap::from([("read".to_owned(), reads)]),
            bytes_received: 10 * reads,
            ..Sum::default()
        }
    }

    #[test]
    fn requests_are_summed_by_period_and_by_command() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::new(folder.path(), "s3://bucket");
        for (days_ago, command, reads) in
            [(40, "gc", 1_000), (20, "gc", 100), (3, "backup", 10), (0, "backup", 1), (-1, "gc", 9)]
        {
            ledger.add(NOW_MS - days_ago * 24 * HOUR_MS, command, &sum(reads)).unwrap();
        }
        let remembered = ledger.remembered(NOW_MS);
        let reads = |sum: &Sum| (sum.commands, sum.of_kind(RequestKind::Read));
        let periods = remembered.periods.iter().map(|(_, sum)| reads(sum)).collect::<Vec<_>>();
        assert_eq!(periods, [(1, 1), (2, 11), (3, 111)]);
        let commands = remembered.commands.iter().map(|(name, sum)| (name.as_str(), reads(sum)));
        assert_eq!(commands.collect::<Vec<_>>(), [("backup", (2, 11)), ("gc", (1, 100))]);
        // Another place has its own.
        let other = Ledger::new(folder.path(), "s3://other").remembered(NOW_MS);
        assert_eq!(other.commands, BTreeMap::new());
    }

    #[test]
    fn a_torn_line_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::new(folder.path(), "s3://bucket");
        ledger.add(NOW_MS, "backup", &sum(1)).unwrap();
        let mut file = File::options().append(true).open(&ledger.file).unwrap();
        file.write_all(b"{\"at_ms\": 20000\n\xff\n").unwrap();
        ledger.add(NOW_MS, "backup", &sum(2)).unwrap();
        assert_eq!(ledger.remembered(NOW_MS).commands["backup"].of_kind(RequestKind::Read), 3);
    }

    #[test]
    fn the_file_does_not_grow_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::new(folder.path(), "s3://bucket");
        ledger.add(NOW_MS - 2 * REMEMBERED_MS, "old", &sum(1)).unwrap();
        let line = format!("{}\n", " ".repeat(1 << 16)).repeat(80);
        File::options()
            .append(true)
            .open(&ledger.file)
            .unwrap()
            .write_all(line.as_bytes())
            .unwrap();
        ledger.add(NOW_MS, "backup", &sum(2)).unwrap();
        assert!(fs::metadata(&ledger.file).unwrap().len() < 1 << 10);
        assert_eq!(ledger.entries().len(), 1);
        // Even if all of it is young.
        let young = fs::read(&ledger.file).unwrap();
        let count = 1 + FILE_BYTES_MAX as usize / young.len();
        fs::write(&ledger.file, young.repeat(count)).unwrap();
        ledger.add(NOW_MS, "backup", &sum(2)).unwrap();
        assert!(fs::metadata(&ledger.file).unwrap().len() < FILE_BYTES_MAX * 3 / 4);
    }
}
