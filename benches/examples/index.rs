//! How many known chunks a second the local index finds, and in how much memory, when it holds
//! tens of millions: `index [--chunks N] [--memory MIB] [--work DIR] [--results DIR]`.
//!
//! The index is loaded in one go, as a host does that sees the repository for the first time, and
//! then grows by small packs, as backups add them, so that all levels of RocksDB hold something.
//! Chunks are asked for in the batches of a worker. Writes `index.md` and `index.json`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cairn_engine::index::local::{
    self, LocalIndex, LocalOptions, NewFrame, NewPack, PackNumber, PackState,
};
use cairn_format::ids::{ChunkId, PackId, RepositoryId, SegmentId, SessionId, WriterId};
use cairn_format::names::PackKind;

const CHUNKS_DEFAULT: u64 = 50_000_000;
const CHUNKS_PER_FRAME: u64 = 32;
const FRAMES_PER_PACK: u64 = 32;
const CHUNKS_PER_PACK: u64 = CHUNKS_PER_FRAME * FRAMES_PER_PACK;
const CHUNK_BYTES: u32 = 64 << 10;
/// One chunk of a hundred comes by small packs after the load.
const GROWTH_DIVISOR: u64 = 100;
/// What a worker asks for at once: a batch of 2 MiB; and what a whole look-up of RocksDB takes.
const BATCHES: [usize; 2] = [32, 512];
const LOOKUPS: u64 = 1_000_000;
const DISK_BYTES_MAX: u64 = 10_000_000_000;

const KNOWN_PER_SECOND: (f64, f64) = (500_000.0, 2_000_000.0);
const MEMORY_MIB_MAX: u64 = 512;

type Failure = Box<dyn std::error::Error>;

/// What the command line asks for.
struct Options {
    chunks: u64,
    memory_mib: u64,
    work: PathBuf,
    results: PathBuf,
}

impl Options {
    fn from_arguments() -> Result<Self, Failure> {
        let mut options = Self {
            chunks: CHUNKS_DEFAULT,
            memory_mib: (LocalOptions::default().memory_bytes >> 20) as u64,
            work: PathBuf::from(".work/index"),
            results: PathBuf::from("benches/results"),
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or_else(|| format!("{name}: a value is missing"))?;
            match name.as_str() {
                "--chunks" => options.chunks = value.parse()?,
                "--memory" => options.memory_mib = value.parse()?,
                "--work" => options.work = value.into(),
                "--results" => options.results = value.into(),
                _ => return Err(format!("{name}: no such option").into()),
            }
        }
        if options.chunks < 100 * CHUNKS_PER_PACK {
            return Err(format!("--chunks: at least {}", 100 * CHUNKS_PER_PACK).into());
        }
        Ok(options)
    }
}

/// One way of asking, measured.
struct Row {
    what: &'static str,
    threads: usize,
    batch: usize,
    per_second: f64,
    per_cpu_second: f64,
    memory_mib: u64,
}

fn main() -> Result<(), Failure> {
    let options = Options::from_arguments()?;
    std::fs::create_dir_all(&options.work)?;
    let folder = tempfile::tempdir_in(&options.work)?;
    let report = measure(&options, folder.path())?;
    std::fs::create_dir_all(&options.results)?;
    std::fs::write(options.results.join("index.md"), report.markdown(&options)?)?;
    std::fs::write(options.results.join("index.json"), report.json(&options)?)?;
    Ok(())
}

/// All that was measured.
struct Report {
    load: Duration,
    load_memory_mib: u64,
    growth: Duration,
    growth_memory_mib: u64,
    disk_bytes: u64,
    rows: Vec<Row>,
}

fn measure(options: &Options, folder: &Path) -> Result<Report, Failure> {
    let memory_bytes = usize::try_from(options.memory_mib << 20)?;
    let repository = RepositoryId::from_bytes([7; 16]);
    let open = || local::open(folder, repository, LocalOptions { memory_bytes });
    let index = open()?.index;
    let packs = options.chunks / CHUNKS_PER_PACK;
    let (loaded, began) = (packs - packs / GROWTH_DIVISOR, Instant::now());
    forget_peak()?;
    let mut load = index.begin_load()?;
    for number in 0..loaded {
        load.add(&pack(number))?;
    }
    load.finish(&[SegmentId::from_bytes(hash("segment", 0))])?;
    let (load, load_memory_mib) = (began.elapsed(), peak_mib()?);

    let began = Instant::now();
    forget_peak()?;
    for number in loaded..packs {
        index.add_pack(&pack(number), PackState::Committed)?;
    }
    let (growth, growth_memory_mib) = (began.elapsed(), peak_mib()?);
    if index.counts()?.chunks != packs * CHUNKS_PER_PACK {
        return Err("the index holds another number of chunks than was added".into());
    }
    // As the next process finds it.
    drop(index);
    let index = open()?.index;
    let mut rows = Vec::new();
    for threads in [1, std::thread::available_parallelism()?.get()] {
        for batch in BATCHES {
            rows.push(look_up(index.as_ref(), Asked::Anywhere, threads, batch, packs)?);
        }
        rows.push(look_up(index.as_ref(), Asked::AsStored, threads, BATCHES[0], packs)?);
        rows.push(look_up(index.as_ref(), Asked::New, threads, BATCHES[0], packs)?);
        rows.push(walk(index.as_ref(), threads, packs)?);
    }
    let disk_bytes = bytes_below(folder)?;
    Ok(Report { load, load_memory_mib, growth, growth_memory_mib, disk_bytes, rows })
}

/// Which chunks are asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// Known ones, in no order.
    Anywhere,
    /// Known ones, in the order in which they were stored: what a backup asks for that reads again
    /// what an earlier one read.
    AsStored,
    /// Ones that the index does not hold.
    New,
}

impl Asked {
    const fn name(self) -> &'static str {
        match self {
            Self::Anywhere => "known, anywhere",
            Self::AsStored => "known, as stored",
            Self::New => "new",
        }
    }

    /// The number of the `nth` chunk asked for, of `chunks`.
    fn number(self, nth: u64, chunks: u64) -> u64 {
        match self {
            Self::Anywhere => scattered(nth, chunks),
            Self::AsStored => nth % chunks,
            Self::New => chunks + scattered(nth, chunks),
        }
    }
}

fn look_up(
    index: &dyn LocalIndex,
    asked: Asked,
    threads: usize,
    batch: usize,
    packs: u64,
) -> Result<Row, Failure> {
    let known = asked != Asked::New;
    let each = LOOKUPS / threads as u64;
    let chunks = packs * CHUNKS_PER_PACK;
    // Hashing the numbers into ids is not what is measured.
    let lists: Vec<Vec<ChunkId>> = (0..threads as u64)
        .map(|thread| (0..each).map(|n| chunk(asked.number(thread * each + n, chunks))).collect())
        .collect();
    timed(asked.name(), threads, batch, || {
        in_threads(&lists, &|ids| {
            let (mut found, mut places) = (0, Vec::new());
            for some in ids.chunks(batch) {
                index.lookup_many(some, &mut places).map_err(|error| error.to_string())?;
                found += places.iter().flatten().count();
            }
            if found == if known { ids.len() } else { 0 } {
                Ok(found.max(ids.len()) as u64)
            } else {
                Err(format!("{found} of {} chunks were found", ids.len()))
            }
        })
    })
}

/// All chunks of some packs: what collection and verify do.
fn walk(index: &dyn LocalIndex, threads: usize, packs: u64) -> Result<Row, Failure> {
    let each = (LOOKUPS / CHUNKS_PER_PACK / threads as u64).max(1);
    let lists: Vec<Vec<PackNumber>> = (0..threads as u64)
        .map(|thread| {
            (0..each).map(|n| PackNumber(scattered(thread * each + n, packs) as u32)).collect()
        })
        .collect();
    timed("by pack", threads, 1, || {
        in_threads(&lists, &|numbers| {
            let mut seen = 0;
            for number in numbers {
                index
                    .for_each_chunk_of_pack(*number, &mut |_, _| {
                        seen += 1;
                        std::ops::ControlFlow::Continue(())
                    })
                    .map_err(|error| error.to_string())?;
            }
            Ok(seen)
        })
    })
}

fn in_threads<T: Sync>(
    lists: &[Vec<T>],
    work: &(dyn Fn(&[T]) -> Result<u64, String> + Sync),
) -> Result<u64, String> {
    std::thread::scope(|scope| {
        let running: Vec<_> = lists.iter().map(|list| scope.spawn(move || work(list))).collect();
        running
            .into_iter()
            .map(|thread| thread.join().map_err(|_| "a thread panicked".to_owned())?)
            .sum()
    })
}

fn timed(
    what: &'static str,
    threads: usize,
    batch: usize,
    work: impl Fn() -> Result<u64, String>,
) -> Result<Row, Failure> {
    // Once without the clock: caches are as a backup under way has them.
    work()?;
    forget_peak()?;
    let (began, cpu) = (Instant::now(), cpu_seconds()?);
    let count = work()? as f64;
    let (seconds, cpu) = (began.elapsed().as_secs_f64(), cpu_seconds()? - cpu);
    Ok(Row {
        what,
        threads,
        batch,
        per_second: count / seconds,
        per_cpu_second: count / cpu.max(0.01),
        memory_mib: peak_mib()?,
    })
}

impl Report {
    fn markdown(&self, options: &Options) -> Result<String, Failure> {
        let mut text = String::new();
        writeln!(text, "# A local index of {} chunks\n", options.chunks)?;
        writeln!(
            text,
            "Chunks of 64 KiB: {:.1} TiB of data. 99 of 100 chunks were loaded at once, the others pack \
             by pack; then the index was closed and opened. {} MiB were given to it; peak memory is \
             the resident set of the whole process while it looked up, the lists of ids among it. \
             Its files were in the page cache as far as memory allowed. Of each way {LOOKUPS} \
             chunks were asked for twice, and the second time is told. Chunks that lie anywhere are \
             the worst that can be asked for; a backup asks in the order in which an earlier one \
             stored them, but for what changed. Whatever answers before the index (the parent's list \
             of chunks, chunks of the same run) is left out.\n",
            options.chunks as f64 * f64::from(CHUNK_BYTES) / (1_u64 << 40) as f64,
            options.memory_mib,
        )?;
        writeln!(text, "| | threads | batch | chunks/s | per CPU second | peak memory |")?;
        writeln!(text, "|---|--:|--:|--:|--:|--:|")?;
        for row in &self.rows {
            writeln!(
                text,
                "| {} | {} | {} | {:.0} | {:.0} | {} MiB |",
                row.what,
                row.threads,
                row.batch,
                row.per_second,
                row.per_cpu_second,
                row.memory_mib
            )?;
        }
        let (load, growth) = (self.load.as_secs_f64(), self.growth.as_secs_f64());
        writeln!(
            text,
            "\nLoading took {load:.1} s and at most {} MiB, adding packs {growth:.1} s and {} MiB. On \
             disk the index takes {:.2} GB ({}).\n",
            self.load_memory_mib,
            self.growth_memory_mib,
            self.disk_bytes as f64 / 1e9,
            if self.disk_bytes <= DISK_BYTES_MAX { "at most 10 GB: pass" } else { "**FAIL**" },
        )?;
        let (best, memory) = (self.best_known(), self.memory_mib());
        let word = match best {
            rate if rate >= KNOWN_PER_SECOND.1 => "aim",
            rate if rate >= KNOWN_PER_SECOND.0 => "pass",
            _ => "**FAIL**",
        };
        writeln!(text, "| measure | measured | must | aim | |")?;
        writeln!(text, "|---|--:|--:|--:|---|")?;
        writeln!(
            text,
            "| known chunks a second, all cores | {best:.0} | 500000 | 2000000 | {word} |"
        )?;
        let word = if memory <= MEMORY_MIB_MAX { "pass" } else { "**FAIL**" };
        writeln!(text, "| peak memory, load and look-ups | {memory} MiB | 512 MiB | - | {word} |")?;
        Ok(text)
    }

    fn json(&self, options: &Options) -> Result<String, Failure> {
        let mut text = String::new();
        writeln!(
            text,
            "{{\"chunks\":{},\"memory_mib\":{},\"load_seconds\":{:.2},\"load_memory_mib\":{},\
             \"growth_seconds\":{:.2},\"growth_memory_mib\":{},\"disk_bytes\":{},\"rows\":[",
            options.chunks,
            options.memory_mib,
            self.load.as_secs_f64(),
            self.load_memory_mib,
            self.growth.as_secs_f64(),
            self.growth_memory_mib,
            self.disk_bytes
        )?;
        for (number, row) in self.rows.iter().enumerate() {
            writeln!(
                text,
                " {{\"what\":\"{}\",\"threads\":{},\"batch\":{},\"per_second\":{:.0},\
                 \"per_cpu_second\":{:.0},\"memory_mib\":{}}}{}",
                row.what,
                row.threads,
                row.batch,
                row.per_second,
                row.per_cpu_second,
                row.memory_mib,
                if number + 1 == self.rows.len() { "" } else { "," }
            )?;
        }
        text.push_str("]}\n");
        Ok(text)
    }

    fn best_known(&self) -> f64 {
        let known = self.rows.iter().filter(|row| row.what == Asked::Anywhere.name());
        known.map(|row| row.per_second).fold(0.0, f64::max)
    }

    fn memory_mib(&self) -> u64 {
        let looked_up = self.rows.iter().map(|row| row.memory_mib).max().unwrap_or(0);
        looked_up.max(self.load_memory_mib).max(self.growth_memory_mib)
    }
}

fn pack(number: u64) -> NewPack {
    let frames = (0..FRAMES_PER_PACK).zip(0_u32..).map(|(frame, place)| {
        let first = (number * FRAMES_PER_PACK + frame) * CHUNKS_PER_FRAME;
        NewFrame {
            offset: place << 20,
            sealed_bytes: 1 << 20,
            plain_bytes: CHUNK_BYTES * CHUNKS_PER_FRAME as u32,
            codec: 1,
            chunks: (first..first + CHUNKS_PER_FRAME).map(|id| (chunk(id), CHUNK_BYTES)).collect(),
            bases: Vec::new(),
        }
    });
    NewPack {
        id: PackId::from_bytes(hash("pack", number)),
        kind: PackKind::Data,
        bytes: (FRAMES_PER_PACK as u32) << 20,
        writer: WriterId::from_bytes([1; 16]),
        session: SessionId::from_bytes([2; 16]),
        frames: frames.collect(),
    }
}

fn chunk(number: u64) -> ChunkId {
    ChunkId::from_bytes(hash("chunk", number))
}

/// The `number`th of many numbers below `limit`, all over it.
const fn scattered(number: u64, limit: u64) -> u64 {
    number.wrapping_mul(0x9E37_79B9_7F4A_7C15) % limit
}

fn hash(kind: &str, number: u64) -> [u8; 32] {
    *blake3::Hasher::new()
        .update(kind.as_bytes())
        .update(&number.to_le_bytes())
        .finalize()
        .as_bytes()
}

/// Makes the kernel forget the largest resident set of this process so far.
fn forget_peak() -> Result<(), Failure> {
    Ok(std::fs::write("/proc/self/clear_refs", "5")?)
}

fn peak_mib() -> Result<u64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()).ok_or("no VmHWM")?;
    Ok(kib.parse::<u64>()? >> 10)
}

/// User and system time of this process so far, in hundredths of a second as the kernel tells it.
fn cpu_seconds() -> Result<f64, Failure> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, rest) = stat.rsplit_once(')').ok_or("no command in /proc/self/stat")?;
    let mut ticks = 0;
    for field in rest.split_whitespace().skip(11).take(2) {
        ticks += field.parse::<u64>()?;
    }
    Ok(ticks as f64 / 100.0)
}

fn bytes_below(folder: &Path) -> Result<u64, Failure> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        bytes += if meta.is_dir() { bytes_below(&entry.path())? } else { meta.len() };
    }
    Ok(bytes)
}
