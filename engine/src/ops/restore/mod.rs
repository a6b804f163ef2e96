//! Restores a snapshot, or part of it, into a directory: entries are made in path order, content is
//! fetched in pack order and checked while it is written, metadata comes last, then everything is
//! made durable.

use std::path::PathBuf;

use cairn_format::tree::{Entry, Node};

use self::journal::Journal;
use self::writer::TreeWriter;
use super::snapshots::SnapshotInfo;
use crate::context::{Counter, Remark};
use crate::error::Error;
use crate::repo::Repository;
use crate::repo::chunks::ChunkReader;
use crate::target::create::{Overwrite, Owners, Target, TargetOptions, check_target};
use crate::tree::reader::{self, Visit, Visitor};

mod journal;
mod writer;

/// What to restore, where, and how.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    /// The snapshot.
    pub snapshot: SnapshotInfo,
    /// Only this path: of a directory the contents go into the target, anything else goes there
    /// under its own name. `None`: everything, with full paths below the target.
    pub path: Option<Vec<u8>>,
    /// The directory to restore into.
    pub target: PathBuf,
    /// Compare with what is there and write only what differs.
    pub delta: bool,
    /// Replace files that are there.
    pub overwrite: bool,
    /// Go on past damage: restore everything that is not touched by it.
    pub keep_going: bool,
    /// Make device nodes.
    pub devices: bool,
    /// Use numeric owners even where names were recorded.
    pub numeric_owner: bool,
}

impl RestoreOptions {
    /// Everything of a snapshot into an empty directory.
    #[must_use]
    pub fn new(snapshot: SnapshotInfo, target: PathBuf) -> Self {
        Self {
            snapshot,
            path: None,
            target,
            delta: false,
            overwrite: false,
            keep_going: false,
            devices: rustix::process::geteuid().is_root(),
            numeric_owner: false,
        }
    }
}

/// What a restore would do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RestorePlan {
    /// Regular files.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Other entries.
    pub others: u64,
    /// Bytes in files, holes included.
    pub bytes_total: u64,
}

/// What a restore did.
#[derive(Clone, Debug, Default)]
pub struct RestoreReport {
    /// Regular files.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Other entries.
    pub others: u64,
    /// Bytes in files, holes included.
    pub bytes_total: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// Bytes that were there already.
    pub bytes_kept: u64,
    /// Files that were there already, whole.
    pub files_kept: u64,
    /// An interrupted restore was continued.
    pub resumed: bool,
    /// Entries that could not be restored as they were, the first thousand.
    pub failures: Vec<Remark>,
    /// How many.
    pub failure_count: u64,
    /// Entries touched by damage in the repository, the first thousand.
    pub damaged: Vec<Remark>,
    /// How many.
    pub damage_count: u64,
    /// Milliseconds it took by the wall clock.
    pub elapsed_ms: i64,
}

/// Says what a restore would do, and whether its target is fit for it. Changes nothing.
///
/// # Errors
/// [`Error::NoPath`]; a target that is not empty; damage in the tree.
pub fn plan(repository: &Repository, options: &RestoreOptions) -> Result<RestorePlan, Error> {
    if journal::find(options)?.is_none() {
        check_target(&options.target, &target_options(options, None))?;
    }
    let mut tally = Tally(RestorePlan::default());
    visit(&repository.nodes(&options.snapshot)?, options, &mut tally)?;
    Ok(tally.0)
}

struct Tally(RestorePlan);

impl Visitor for Tally {
    fn entry(&mut self, _: &[u8], entry: &Entry) -> Result<Visit, Error> {
        match &entry.node {
            Node::File(content) => {
                self.0.files += 1;
                self.0.bytes_total += content.bytes;
            }
            Node::Directory(_) => self.0.directories += 1,
            _ => self.0.others += 1,
        }
        Ok(Visit::Descend)
    }
}

fn target_options(options: &RestoreOptions, resumed: Option<Overwrite>) -> TargetOptions {
    let defaults = TargetOptions::default();
    let overwrite = match resumed {
        Some(overwrite) => overwrite,
        None if options.delta || options.overwrite => Overwrite::Delta,
        None => Overwrite::Never,
    };
    TargetOptions {
        overwrite,
        devices: options.devices,
        owners: if defaults.owners == Owners::ByName && options.numeric_owner {
            Owners::ByNumber
        } else {
            defaults.owners
        },
        ..defaults
    }
}

/// Shows what is to be restored to a visitor, with paths relative to the target.
fn visit(
    nodes: &ChunkReader<'_>,
    options: &RestoreOptions,
    visitor: &mut dyn Visitor,
) -> Result<(), Error> {
    let snapshot = &options.snapshot;
    let path = options.path.as_deref().unwrap_or_default();
    if reader::components(path).next().is_none() {
        return reader::walk(nodes, &snapshot.record.root, &mut Vec::new(), visitor);
    }
    match reader::lookup_path(nodes, &snapshot.record.root, path)? {
        Some(Entry { node: Node::Directory(root), .. }) => {
            reader::walk(nodes, &root, &mut Vec::new(), visitor)
        }
        Some(entry) => {
            let below = [b"/", entry.name.as_slice()].concat();
            visitor.entry(&below, &entry).map(|_| ())
        }
        None => Err(Error::NoPath {
            snapshot: snapshot.id,
            path: String::from_utf8_lossy(path).into_owned(),
        }),
    }
}

/// Restores.
///
/// # Errors
/// [`Error::NoPath`]; a target that is not empty; the first damage unless asked to go on; a full or
/// failing medium. A restore that ended early is continued by running it again.
pub fn run(repository: &Repository, options: &RestoreOptions) -> Result<RestoreReport, Error> {
    let started_ms = repository.context.clock.now_ms();
    let resumed = journal::find(options)?;
    let target = Target::open(&options.target, target_options(options, resumed))?
        .timed(repository.context.timings.clone());
    let journal = Journal::begin(options)?;
    // Of a part of a snapshot nobody knows the size before it is walked.
    let total = options.snapshot.record.statistics.bytes_total;
    let total = options.path.is_none().then_some((Counter::BytesRestored, total));
    repository.monitor().stage("restore", total);
    let nodes = repository.nodes(&options.snapshot)?;
    let mut writer = TreeWriter::new(repository, &nodes, &target, options.keep_going);
    visit(&nodes, options, &mut writer)?;
    let mut report = writer.finish()?;
    repository.monitor().stage("making durable", None);
    target.sync()?;
    if report.damage_count == 0 {
        journal.end()?;
    }
    report.resumed = resumed.is_some();
    report.elapsed_ms = repository.context.clock.now_ms() - started_ms;
    Ok(report)
}
