//! How much memory it takes to mark what is needed among many millions of chunks, and to collect:
//! `marks [--millions N] [--work DIR]`.
//!
//! Makes a repository of streams that have nothing in common, cut into chunks of 256 bytes, a million
//! in each snapshot, on a local disk; then forgets one snapshot, and marks and collects in processes
//! of their own, whose peak of resident memory is what is told. A repository that is in the folder
//! already is used as it is. 100 million chunks take about 20 GB there.

use std::collections::HashSet;
use std::io::Read;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use cairn_benches::on_disk::{self, Failure, SetClock, memory_mib, say};
use cairn_engine::collect::mark::{Thoroughness, mark};
use cairn_engine::context::Silent;
use cairn_engine::ops::backup::{self, BackupOptions, BackupSource};
use cairn_engine::ops::forget::{self, Choice, ForgetOptions};
use cairn_engine::ops::gc::{self, GcOptions};
use cairn_engine::ops::snapshots;
use cairn_engine::repo::Repository;

const CHUNK_BYTES: u32 = 256;
/// Of each snapshot: about a million chunks.
const STREAM_BYTES: u64 = 290_000_000;
/// What is told to a process of its own.
const STEPS: [&str; 4] = ["careful", "remembering", "forget", "collect"];

struct Options {
    millions: u64,
    work: PathBuf,
    /// Which step this process takes; none: it makes the repository, and starts the others.
    step: Option<String>,
}

impl Options {
    fn from_arguments() -> Result<Self, Failure> {
        let mut options = Self { millions: 100, work: PathBuf::from(".work/marks"), step: None };
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or_else(|| format!("{name}: a value is missing"))?;
            match name.as_str() {
                "--millions" => options.millions = value.parse()?,
                "--work" => options.work = value.into(),
                "--step" => options.step = Some(value),
                _ => return Err(format!("{name}: no such option").into()),
            }
        }
        Ok(options)
    }
}

/// Four letters in an order that looks random: no two chunks are alike, and they compress to a quarter.
struct Letters {
    random: blake3::OutputReader,
    left: u64,
}

impl Letters {
    fn new(number: u64) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&number.to_le_bytes());
        Self { random: hasher.finalize_xof(), left: STREAM_BYTES }
    }
}

impl Read for Letters {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let mut random = [0_u8; 4096];
        let count = into.len().min(random.len() * 4).min(usize::try_from(self.left).unwrap_or(0));
        self.random.fill(&mut random);
        let letters = random.iter().flat_map(|byte| [0, 2, 4, 6].map(|by| byte >> by & 3));
        for (byte, letter) in into.iter_mut().take(count).zip(letters) {
            *byte = b'a' + letter;
        }
        self.left -= count as u64;
        Ok(count)
    }
}

fn open(options: &Options, hour: u64) -> Result<Repository, Failure> {
    let clock = Arc::new(SetClock::at_hour(i64::try_from(hour)?));
    let context = on_disk::context(&options.work, clock, Arc::new(Silent))?;
    if !on_disk::is_made(&options.work) {
        on_disk::make(&options.work, CHUNK_BYTES, &context)?;
    }
    on_disk::open(&options.work, &context)
}

fn make(options: &Options) -> Result<(), Failure> {
    let repository = open(options, 0)?;
    let made = snapshots::list_all(&repository)?.0.len() as u64;
    drop(repository);
    for number in made..options.millions {
        let from = Instant::now();
        let repository = open(options, number)?;
        let reader = Box::new(Letters::new(number));
        let sources = vec![BackupSource::Stream { name: format!("stream-{number}"), reader }];
        // No chunk resembles another: bases need not be looked for.
        let backup = BackupOptions { deltas: false, ..BackupOptions::new("bench", sources) };
        backup::run(&repository, backup)?;
        if (number + 1) % 10 == 0 {
            let chunks = repository.catalog()?.index().counts()?.chunks;
            let seconds = from.elapsed().as_secs_f64();
            say(&format!("{} backups, {chunks} chunks; the last took {seconds:.1} s", number + 1));
        }
    }
    Ok(())
}

fn take(options: &Options, step: &str) -> Result<(), Failure> {
    let repository = open(options, options.millions)?;
    let opened = memory_mib("VmRSS:")?;
    let from = Instant::now();
    let what = match step {
        "careful" | "remembering" => {
            let how = match step {
                "careful" => Thoroughness::Careful,
                _ => Thoroughness::Remembering,
            };
            let (listed, _) = snapshots::list_all(&repository)?;
            let catalog = repository.catalog()?;
            let mut marked = mark(&repository, catalog, &listed, &HashSet::new(), how)?;
            marked.follow_bases(false, &HashSet::new())?;
            format!("marked {}", marked.live.count())
        }
        "forget" => {
            let options = ForgetOptions::new(Choice::Named(vec!["latest~1".to_owned()]));
            let plan = forget::plan(&repository, &options)?;
            format!("forgotten: {}", forget::run(&repository, &plan)?.removed)
        }
        _ => {
            let options = GcOptions { max_dead_percent: 0.0, ..GcOptions::default() };
            let report = gc::run(&repository, &options)?;
            format!("deleted {} packs, wrote {}", report.packs_deleted, report.packs_written)
        }
    };
    let counts = repository.catalog()?.index().counts()?;
    say(&format!(
        "{step} of {} chunks in {} packs: {what}; {:.1} s, resident {opened} MiB when opened, {} at most",
        counts.chunks,
        counts.packs,
        from.elapsed().as_secs_f64(),
        memory_mib("VmHWM:")?,
    ));
    Ok(())
}

fn main() -> Result<(), Failure> {
    let options = Options::from_arguments()?;
    if let Some(step) = &options.step {
        return take(&options, step);
    }
    std::fs::create_dir_all(&options.work)?;
    make(&options)?;
    for step in STEPS {
        let mut child = Command::new(std::env::current_exe()?);
        child.arg("--work").arg(&options.work).args(["--step", step]);
        let status = child.args(["--millions", &options.millions.to_string()]).status()?;
        if !status.success() {
            return Err(format!("{step}: {status}").into());
        }
    }
    Ok(())
}
