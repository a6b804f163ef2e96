//! What a collection costs after one of many hourly snapshots was forgotten, beside one that marks
//! everything: `gc [--hours N] [--files N] [--changed N] [--chunk-bytes N] [--rounds N] [--work DIR]`.
//!
//! Makes a repository on a local disk of a set of files of which some change each hour in a few
//! places. Then, by turns, forgets a snapshot and collects, with and without what the collection
//! before remembers; each time the repository is opened anew, as the command does, and that counts.
//! A repository that is in the folder already is used as it is.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use cairn_benches::on_disk::{self, Failure, HOUR_MS, SetClock, memory_mib, say};
use cairn_engine::collect::mark::{Thoroughness, mark};
use cairn_engine::context::{Context, Counter, Monitor, Remark, Silent};
use cairn_engine::ops::backup::{self, BackupOptions, BackupSource};
use cairn_engine::ops::forget::{self, Choice, ForgetOptions};
use cairn_engine::ops::gc::{self, GcOptions};
use cairn_engine::ops::snapshots;
use cairn_engine::repo::Repository;
use parking_lot::Mutex;

const FILE_BYTES: u64 = 1 << 20;
/// Places in which a file changes, and bytes of each.
const CHANGES: usize = 8;
const CHANGE_BYTES: usize = 200;

struct Options {
    hours: u64,
    files: u64,
    changed: u64,
    chunk_bytes: u32,
    rounds: u64,
    work: PathBuf,
}

impl Options {
    fn from_arguments() -> Result<Self, Failure> {
        let work = PathBuf::from(".work/gc");
        let (chunk_bytes, rounds) = (4096, 3);
        let mut options = Self { hours: 720, files: 100, changed: 12, chunk_bytes, rounds, work };
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or_else(|| format!("{name}: a value is missing"))?;
            match name.as_str() {
                "--hours" => options.hours = value.parse()?,
                "--files" => options.files = value.parse()?,
                "--changed" => options.changed = value.parse()?,
                "--chunk-bytes" => options.chunk_bytes = value.parse()?,
                "--rounds" => options.rounds = value.parse()?,
                "--work" => options.work = value.into(),
                _ => return Err(format!("{name}: no such option").into()),
            }
        }
        Ok(options)
    }
}

/// Notes how long each stage took.
#[derive(Default)]
struct Stages {
    stages: Mutex<RefCell<Vec<(&'static str, Spent)>>>,
}

/// A point in time, by the wall clock and by the processor.
#[derive(Clone, Copy)]
struct Spent {
    wall: Instant,
    cpu: f64,
}

impl Spent {
    fn now() -> Self {
        Self { wall: Instant::now(), cpu: cpu_seconds().unwrap_or_default() }
    }

    fn until(&self, end: &Self) -> (f64, f64) {
        ((end.wall - self.wall).as_secs_f64(), end.cpu - self.cpu)
    }
}

impl Monitor for Stages {
    fn count(&self, _: Counter, _: u64) {}
    fn stage(&self, name: &'static str, _: Option<(Counter, u64)>) {
        self.stages.lock().borrow_mut().push((name, Spent::now()));
    }
    fn warn(&self, remark: Remark) {
        say(&format!("{}: {}: {}", remark.code, remark.subject, remark.message));
    }
}

/// User and system seconds of this process, threads that ended included.
fn cpu_seconds() -> Result<f64, Failure> {
    /// The kernel counts for user space in hundredths of a second, on every architecture we build for.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The name of the program stands in brackets, and may hold anything.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks = fields.skip(11).take(2).map(str::parse::<f64>).sum::<Result<f64, _>>()?;
    Ok(ticks / TICKS_PER_SECOND)
}

fn context(
    options: &Options,
    clock: &Arc<SetClock>,
    monitor: Arc<dyn Monitor>,
) -> Result<Context, Failure> {
    on_disk::context(&options.work, Arc::clone(clock) as _, monitor)
}

fn open(options: &Options, context: &Context) -> Result<Repository, Failure> {
    on_disk::open(&options.work, context)
}

/// Numbers that look random, and are the same every time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let seed = self.below(u64::MAX);
        let mut bytes = vec![0; count];
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes());
        hasher.finalize_xof().fill(&mut bytes);
        bytes
    }
}

fn make(options: &Options, clock: &Arc<SetClock>) -> Result<(), Failure> {
    let source = options.work.join("source");
    let mut numbers = Numbers(1);
    std::fs::create_dir_all(&source)?;
    let path = |number: u64| source.join(format!("{}/file-{number}", number % 10));
    for number in 0..options.files {
        let path = path(number);
        std::fs::create_dir_all(path.parent().unwrap_or(&source))?;
        std::fs::write(&path, numbers.bytes(usize::try_from(FILE_BYTES)?))?;
    }
    let context = context(options, clock, Arc::new(Silent))?;
    on_disk::make(&options.work, options.chunk_bytes, &context)?;
    let repository = open(options, &context)?;
    for hour in 0..options.hours {
        clock.advance_ms(HOUR_MS);
        for _ in 0..if hour == 0 { 0 } else { options.changed } {
            let mut file = File::options().write(true).open(path(numbers.below(options.files)))?;
            for _ in 0..CHANGES {
                file.seek(SeekFrom::Start(numbers.below(FILE_BYTES - CHANGE_BYTES as u64)))?;
                file.write_all(&numbers.bytes(CHANGE_BYTES))?;
            }
        }
        let sources = vec![BackupSource::Path(source.clone())];
        let report = backup::run(&repository, BackupOptions::new("bench", sources))?;
        if hour % 60 == 0 {
            say(&format!("hour {hour}: {:?}", report.statistics));
        }
    }
    Ok(())
}

/// Forgets the snapshot in the middle.
fn forget(options: &Options, clock: &Arc<SetClock>) -> Result<(), Failure> {
    let repository = open(options, &context(options, clock, Arc::new(Silent))?)?;
    let listed = snapshots::list(&repository)?;
    let middle = listed.get(listed.len() / 2).ok_or("there is no snapshot")?;
    let named = ForgetOptions::new(Choice::Named(vec![middle.id.to_hex()]));
    let plan = forget::plan(&repository, &named)?;
    forget::run(&repository, &plan)?;
    Ok(())
}

/// Collects as the command does, in a repository that is opened for it; wall and CPU seconds.
fn collect(
    options: &Options,
    clock: &Arc<SetClock>,
    full_mark: bool,
    max_dead_percent: f64,
) -> Result<(f64, f64), Failure> {
    clock.advance_ms(1000);
    let stages = Arc::new(Stages::default());
    let context = context(options, clock, stages.clone())?;
    std::fs::write("/proc/self/clear_refs", "5")?;
    stages.stage("opening", None);
    let repository = open(options, &context)?;
    let gc_options = GcOptions { max_dead_percent, full_mark, ..GcOptions::default() };
    let report = gc::run(&repository, &gc_options)?;
    let counts = repository.catalog()?.index().counts()?;
    stages.stage("closing", None);
    drop(repository);
    stages.stage("end", None);
    let stages = stages.stages.lock();
    let stages = stages.borrow();
    let mut line = String::new();
    for pair in stages.windows(2) {
        if let [(name, from), (_, to)] = pair {
            let (wall, cpu) = from.until(to);
            line += &format!(" {name} {wall:.3}/{cpu:.3};");
        }
    }
    let ends = stages.first().zip(stages.last());
    let (wall, cpu) = ends.map(|((_, from), (_, to))| from.until(to)).unwrap_or_default();
    say(&format!(
        "{} max dead {max_dead_percent}: {wall:.3} s, CPU {cpu:.3} s, peak {} MiB; {} packs, {} chunks;\n  \
         deleted {} packs, wrote {};{line}",
        if full_mark { "full mark  " } else { "incremental" },
        memory_mib("VmHWM:")?,
        counts.packs,
        counts.chunks,
        report.packs_deleted,
        report.packs_written,
    ));
    Ok((wall, cpu))
}

/// Marking alone, in each way.
fn marks(options: &Options, clock: &Arc<SetClock>) -> Result<(), Failure> {
    let context = context(options, clock, Arc::new(Silent))?;
    let repository = open(options, &context)?;
    let (snapshots, _) = snapshots::list_all(&repository)?;
    let catalog = repository.catalog()?;
    for how in [Thoroughness::Careful, Thoroughness::Anew, Thoroughness::Remembering] {
        std::fs::write("/proc/self/clear_refs", "5")?;
        let from = Spent::now();
        let marked = mark(&repository, catalog, &snapshots, &HashSet::new(), how)?;
        let (wall, cpu) = from.until(&Spent::now());
        say(&format!(
            "mark {how:?}: {wall:.3} s, CPU {cpu:.3} s, peak {} MiB, {} chunks live",
            memory_mib("VmHWM:")?,
            marked.live.count()
        ));
    }
    let index = catalog.index();
    let keys = index.memo_keys(&[])?;
    let mut bytes = HashMap::<u8, (u64, u64)>::new();
    for key in &keys {
        let value = index.get_memo(key)?.unwrap_or_default();
        let table = key.first().copied().unwrap_or_default();
        let sum = bytes.entry(table).or_default();
        *sum = (sum.0 + 1, sum.1 + (key.len() + value.len()) as u64);
    }
    for (table, (count, bytes)) in bytes {
        say(&format!("memos {}: {count}, {bytes} bytes", char::from(table)));
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn main() -> Result<(), Failure> {
    let options = Options::from_arguments()?;
    std::fs::create_dir_all(&options.work)?;
    let clock = Arc::new(SetClock::at_hour(0));
    if !on_disk::is_made(&options.work) {
        let from = Spent::now();
        make(&options, &clock)?;
        let (wall, cpu) = from.until(&Spent::now());
        say(&format!("made in {wall:.1} s, CPU {cpu:.1} s"));
    }
    clock.advance_ms(i64::try_from(options.hours)? * HOUR_MS);
    marks(&options, &clock)?;
    // Whatever is dead already goes, so that all rounds find the same.
    collect(&options, &clock, true, 0.0)?;
    for max_dead in [0.0, 10.0] {
        let (mut full, mut incremental) = ((Vec::new(), Vec::new()), (Vec::new(), Vec::new()));
        for round in 0..options.rounds {
            for full_mark in if round % 2 == 0 { [true, false] } else { [false, true] } {
                forget(&options, &clock)?;
                let (wall, cpu) = collect(&options, &clock, full_mark, max_dead)?;
                let kind = if full_mark { &mut full } else { &mut incremental };
                kind.0.push(wall);
                kind.1.push(cpu);
            }
        }
        let ratio = |a: &Vec<f64>, b: &Vec<f64>| 100.0 * median(a.clone()) / median(b.clone());
        say(&format!(
            "max dead {max_dead}: incremental takes {:.1} % of the wall time of a full mark, {:.1} % of its CPU time",
            ratio(&incremental.0, &full.0),
            ratio(&incremental.1, &full.1)
        ));
    }
    Ok(())
}
