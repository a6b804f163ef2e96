//! Backs up file trees, streams and commands into one snapshot.
//!
//! Order of writes (SPEC §10): packs, segments, the snapshot; then tombs are listed again, and only
//! a snapshot that relies on nothing condemned is acknowledged and reported as done.

use std::ffi::OsString;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use cairn_format::ids::{ChunkId, PackId, SessionId, SnapshotId};
use cairn_format::limits::NODE_BYTES_MAX;
use cairn_format::names::{ObjectName, PackKind};
use cairn_format::record::{SourceRecord, Statistics};

use self::assemble::{Assembled, Assembler, Message};
use self::cache::{FileCache, Recogniser};
use self::feed::{Cutters, Fed, FeedOptions, Feeder, Shared};
use self::former::Formers;
use self::prepare::{Prepared, prepare};
use self::publish::{Published, describe, latest_of, publish, remember_latest};
use super::snapshots::{self, SnapshotInfo};
use crate::chunk::{ContentCutter, Cutter};
use crate::collect::Weakness;
use crate::collect::lease::HeldLease;
use crate::context::Remark;
use crate::delta::{DeltaReport, Deltas, Hint, TREE};
use crate::error::Error;
use crate::frame::COMPRESSION_LEVEL_DEFAULT;
use crate::index::catalog::{Before, Catalog};
use crate::index::segments;
use crate::pipeline::failure::Failure;
use crate::pipeline::inflight::InFlight;
use crate::pipeline::ingest::{Batch, Beside, Ingest};
use crate::pipeline::upload::{PackTap, UPLOAD_THREADS, Uploader};
use crate::repo::Repository;
use crate::seal::random;
use crate::source::filter::FileSourceOptions;
use crate::source::profile::Profile;
use crate::tree::NodeSink;

mod assemble;
pub(super) mod cache;
mod feed;
mod former;
mod prepare;
pub(crate) mod prove;
mod publish;
pub(crate) mod relied;
mod total;

pub use relied::Relied;

/// Bytes of tree nodes that are stored as one frame.
const NODE_BATCH_BYTES: usize = 256 << 10;

/// How often sources are read anew because packs were collected while a backup ran.
const REPEATS_MAX: u64 = 2;

/// Something to back up.
pub enum BackupSource {
    /// A file, directory or device.
    Path(PathBuf),
    /// A stream that somebody else opened.
    Stream {
        /// Its name in the snapshot.
        name: String,
        /// The stream.
        reader: Box<dyn Read + Send>,
    },
    /// The output of a command; no shell is involved.
    Command {
        /// Name of the output in the snapshot.
        name: String,
        /// Program and arguments.
        argv: Vec<OsString>,
    },
}

/// What to back up and how.
pub struct BackupOptions {
    /// What retention groups by.
    pub job: String,
    /// Tags.
    pub tags: Vec<String>,
    /// Sources: paths, or streams and commands, not both.
    pub sources: Vec<BackupSource>,
    /// Excludes and the like; its roots are taken from the sources.
    pub files: FileSourceOptions,
    /// Cut every file this way instead of looking at it.
    pub profile: Option<Profile>,
    /// Read files even if they seem unchanged.
    pub reread: bool,
    /// zstd level.
    pub compression_level: i32,
    /// Store what changed against what it was, where that is at hand and pays.
    pub deltas: bool,
    /// Only say what would be done: which entries would be read.
    pub dry_run: bool,
    /// Is shown each pack once it is durable: [`crate::ops::replicate::back_up`].
    pub tap: Option<Arc<dyn PackTap>>,
    /// Test kit.
    #[doc(hidden)]
    pub weakness: Option<Weakness>,
}

impl BackupOptions {
    /// A backup of these sources with the usual settings.
    #[must_use]
    pub fn new(job: &str, sources: Vec<BackupSource>) -> Self {
        Self {
            job: job.to_owned(),
            tags: Vec::new(),
            sources,
            files: FileSourceOptions::default(),
            profile: None,
            reread: false,
            compression_level: COMPRESSION_LEVEL_DEFAULT,
            deltas: true,
            dry_run: false,
            tap: None,
            weakness: None,
        }
    }

    /// The same once more, where the sources can be read again: streams and commands cannot.
    fn again(&self) -> Option<Self> {
        let paths = self.sources.iter().map(|source| match source {
            BackupSource::Path(path) => Some(BackupSource::Path(path.clone())),
            BackupSource::Stream { .. } | BackupSource::Command { .. } => None,
        });
        Some(Self {
            job: self.job.clone(),
            tags: self.tags.clone(),
            sources: paths.collect::<Option<Vec<_>>>()?,
            files: self.files.clone(),
            profile: self.profile,
            tap: self.tap.clone(),
            ..*self
        })
    }
}

/// What a backup did.
#[derive(Debug)]
pub struct BackupReport {
    /// The snapshot; `None` for a dry run.
    pub snapshot: Option<SnapshotInfo>,
    /// Totals.
    pub statistics: Statistics,
    /// What could not be read, or changed while it was: the first thousand.
    pub unread: Vec<Remark>,
    /// How many such entries there are.
    pub unread_count: u64,
    /// Packs of an interrupted run that were found and are used.
    pub packs_resumed: u64,
    /// What was stored against what was there before.
    pub deltas: DeltaReport,
    /// Chunks stored anew because their packs were collected while the backup ran.
    pub chunks_repaired: u64,
    /// How often the sources were read anew for the same reason.
    pub repeats: u64,
    /// Milliseconds it took by the wall clock.
    pub elapsed_ms: i64,
}

/// Runs a backup.
///
/// # Errors
/// [`Error::Usage`] for nothing to back up; a stream or command that fails; failures of the store.
/// After an error there is no acknowledged snapshot, and what was stored is used by the next run.
pub fn run(repository: &Repository, options: BackupOptions) -> Result<BackupReport, Error> {
    repository.require_write("back up")?;
    let started_ms = repository.context.clock.now_ms();
    let again = options.again();
    let prepared = prepare(options)?;
    if prepared.dry_run {
        return dry_run(repository, prepared, started_ms);
    }
    // First, so that a disk that dead processes filled has room again.
    repository.vault().sweep();
    let catalog = repository.current_catalog()?;
    catalog.require_sound_tombs()?;
    let done = write_until_proven(repository, catalog, prepared, again.as_ref(), started_ms)?;
    let Done { session, written, snapshot, ack, chunks_repaired, repeats } = done;
    cache::protect(catalog, session, &ack)?;
    remember_latest(catalog, &snapshot)?;
    // After the acknowledgement: tidying must not delay it, nor undo it when it fails.
    match segments::merge(repository.vault()) {
        Ok(merged) => catalog.note_merge(&merged)?,
        Err(error) => repository.monitor().warn(Remark {
            code: "index.merge",
            subject: "index segments".to_owned(),
            message: format!("the snapshot is safe, but merging index segments failed: {error}"),
        }),
    }
    Ok(BackupReport {
        statistics: snapshot.record.statistics,
        snapshot: Some(snapshot),
        unread_count: written.fed.unread,
        unread: written.fed.remarks,
        packs_resumed: written.packs_resumed,
        deltas: written.deltas,
        chunks_repaired,
        repeats,
        elapsed_ms: repository.context.clock.now_ms() - started_ms,
    })
}

/// A backup whose snapshot is acknowledged.
struct Done {
    session: SessionId,
    written: Written,
    snapshot: SnapshotInfo,
    ack: ObjectName,
    chunks_repaired: u64,
    repeats: u64,
}

/// Writes and publishes, and does so `again` where what it relies on was collected meanwhile.
fn write_until_proven(
    repository: &Repository,
    catalog: &Catalog,
    mut prepared: Prepared,
    again: Option<&BackupOptions>,
    started_ms: i64,
) -> Result<Done, Error> {
    let mut repeats = 0;
    loop {
        let session = SessionId::from_bytes(random::array(repository.context.random.as_ref())?);
        let lease = HeldLease::take(repository.vault(), session, "backup");
        prepared.distrust = repeats > 0;
        let written = write(repository, catalog, session, prepared, &lease)?;
        let record = describe(repository, catalog, session, started_ms, &written)?;
        lease.renew();
        match publish(repository, catalog, session, record, &written)? {
            Published::Acknowledged { snapshot, ack, chunks_repaired } => {
                lease.end();
                return Ok(Done {
                    session,
                    written,
                    snapshot: *snapshot,
                    ack,
                    chunks_repaired,
                    repeats,
                });
            }
            Published::Open { name, packs } => {
                // Nobody relies on what was not acknowledged; a key that may not delete leaves it.
                let _left = repository.store().delete(&name);
                let next = again.filter(|_| repeats < REPEATS_MAX).and_then(BackupOptions::again);
                let Some(next) = next else { return Err(Error::Condemned { packs }) };
                repository.monitor().warn(Remark {
                    code: "backup.repeated",
                    subject: name.to_string(),
                    message:
                        "packs it relies on were collected while it ran: the sources are read again"
                            .to_owned(),
                });
                repeats += 1;
                prepared = prepare(next)?;
            }
        }
    }
}

fn dry_run(
    repository: &Repository,
    prepared: Prepared,
    started_ms: i64,
) -> Result<BackupReport, Error> {
    use crate::source::walk::{Event, LeafKind};
    let mut statistics = Statistics::default();
    let mut unread = Vec::new();
    for event in prepared.walk.into_iter().flatten() {
        repository.check_cancelled()?;
        match event {
            Event::Enter { .. } => statistics.directories += 1,
            Event::Leaf(leaf) => match leaf.kind {
                LeafKind::File { bytes, .. } => {
                    statistics.files += 1;
                    statistics.bytes_total += bytes;
                }
                _ => statistics.others += 1,
            },
            Event::Unreadable { path, error } => {
                let remark = Remark {
                    code: crate::error::Explain::code(&error),
                    subject: path.display().to_string(),
                    message: error.to_string(),
                };
                repository.monitor().warn(remark.clone());
                unread.push(remark);
            }
            Event::Leave | Event::Incomplete { .. } | Event::Followed { .. } => {}
        }
    }
    statistics.files += prepared.streams.len() as u64;
    statistics.unread = unread.len() as u64;
    Ok(BackupReport {
        snapshot: None,
        statistics,
        unread_count: unread.len() as u64,
        unread,
        packs_resumed: 0,
        deltas: DeltaReport::default(),
        chunks_repaired: 0,
        repeats: 0,
        elapsed_ms: repository.context.clock.now_ms() - started_ms,
    })
}

/// What the first steps left in the store.
struct Written {
    assembled: Assembled,
    fed: Fed,
    bytes_new: u64,
    bytes_stored: u64,
    packs_resumed: u64,
    deltas: DeltaReport,
    parents: Vec<SnapshotId>,
    job: String,
    tags: Vec<String>,
    paths: Vec<Vec<u8>>,
    records: Vec<SourceRecord>,
    excludes: Vec<String>,
    /// Packs that the session stored or took over.
    packs: Vec<PackId>,
    /// What it relies on besides.
    relied: Relied,
    /// How packs stood when it began.
    before: Before,
    weakness: Option<Weakness>,
}

/// Puts packs and segments.
fn write(
    repository: &Repository,
    catalog: &Catalog,
    session: SessionId,
    mut prepared: Prepared,
    lease: &HeldLease<'_>,
) -> Result<Written, Error> {
    let vault = repository.vault();
    repository.monitor().stage("backup", None);
    let before = catalog.standing()?;
    let relied = Relied::default();
    let in_flight = InFlight::default();
    let failure = Failure::default();
    let uploader = Uploader::new(vault, catalog, &in_flight, &failure, lease);
    let uploader = uploader.shown_to(prepared.tap.take());
    let leftovers = catalog.leftover_sections(vault)?;
    let packs_resumed = leftovers.len() as u64;
    uploader.adopt(leftovers);
    let names = snapshots::list_names(repository)?;
    let deltas = if prepared.deltas { Deltas::new(repository)? } else { None };
    let mut parents = latest_of(catalog, &prepared.job, &names)?;
    if parents.is_empty() && deltas.is_some() {
        // This host has lost its cache, or is another machine of that name.
        parents.extend(snapshots::newest_of_job(repository, &prepared.job, &names)?);
    }
    let formers = match &deltas {
        Some(_) => Formers::new(repository, &parents, &names),
        None => Formers::none(),
    };
    let beside =
        Beside { vault, catalog, uploader: &uploader, in_flight: &in_flight, relied: &relied };
    let ingest = Ingest::new(beside, session, prepared.level, deltas)?;
    let gear = *vault.keys.gear_table()?;
    let cutters = Cutters {
        content: Cutter::Content(Box::new(ContentCutter::new(vault.config.chunker, gear))),
        aligned: Cutter::Aligned(vault.config.aligned_bytes),
    };
    let namespace = vault.own_namespace()?;
    // The second time nothing is taken for stored because it was in a snapshot.
    let trusted = if prepared.distrust { &[] } else { names.as_slice() };
    let recogniser = Recogniser::new(catalog, namespace, trusted, &relied)?;
    let options = FeedOptions { profile: prepared.profile, reread: prepared.reread };
    let shared = Shared::new(&ingest, vault, &failure);
    let walk = prepared.walk.take();
    let files = prepared.files.take().filter(|_| vault.monitor().wants_total());
    let streams = std::mem::take(&mut prepared.streams);
    let over = AtomicBool::new(false);

    let outcome = std::thread::scope(|threads| {
        // In a pool of one thread, as in simulations, the order of calls follows from the input.
        for _ in 0..UPLOAD_THREADS.min(rayon::current_num_threads()) {
            threads.spawn(|| uploader.run());
        }
        if let Some(files) = files {
            threads.spawn(|| total::add_up(files, vault.monitor(), &over));
        }
        let (sender, receiver) = mpsc::channel::<Vec<Message>>();
        let assembler = threads.spawn(|| {
            let receiver = receiver;
            let mut nodes = Nodes { ingest: &ingest, vault, batch: Batch::default() };
            let mut cache = FileCache::new(catalog, session);
            let assembled = Assembler::new(&mut nodes, &mut cache, &shared.steps).run(&receiver);
            let outcome = assembled.and_then(|assembled| {
                nodes.flush()?;
                Ok(assembled)
            });
            if outcome.is_err() {
                // The feeder may wait for steps to be taken: nobody takes them any more.
                shared.steps.give(usize::MAX);
            }
            outcome
        });
        // Also when something panics: the uploading threads must end for the scope to end.
        let closing = CloseOnDrop(&uploader);
        let fed = rayon::in_place_scope(|scope| {
            let mut feeder =
                Feeder::new(&shared, scope, sender, recogniser, &cutters, &formers, options);
            if let Some(walk) = walk {
                feeder.files(walk)?;
            }
            for stream in streams {
                feeder.stream(stream)?;
            }
            feeder.finish()
        });
        over.store(true, Ordering::Relaxed);
        let assembled = assembler.join().map_err(|_| Error::Internal { part: "the tree builder" });
        let flushed = match (&fed, &assembled) {
            (Ok(_), Ok(Ok(_))) => ingest.flush(),
            _ => Ok(()),
        };
        drop(closing);
        (fed, assembled, flushed)
    });
    let (fed, assembled, flushed) = outcome;
    // The reason that came first is the one to tell; being cancelled is a consequence.
    let fed = fed.map_err(|error| failure.note(error)).ok();
    let assembled = assembled.flatten().map_err(|error| failure.note(error)).ok();
    let _ = flushed.map_err(|error| failure.note(error));
    if let Some(error) = failure.take() {
        return Err(error);
    }
    let (Some(fed), Some(assembled)) = (fed, assembled) else {
        return Err(Error::Internal { part: "the backup" });
    };
    let bytes_stored = uploader.finish()?;
    let (bytes_new, packs) = (ingest.bytes_new(), uploader.packs());
    Ok(Written {
        assembled,
        fed,
        bytes_new,
        bytes_stored,
        packs_resumed,
        deltas: ingest.finish_deltas()?,
        parents,
        job: prepared.job,
        tags: prepared.tags,
        paths: prepared.paths,
        records: prepared.records,
        excludes: prepared.excludes,
        packs,
        relied,
        before,
        weakness: prepared.weakness,
    })
}

struct CloseOnDrop<'a>(&'a Uploader<'a>);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Gathers tree nodes into batches.
struct Nodes<'a> {
    ingest: &'a Ingest<'a>,
    vault: &'a crate::repo::Vault,
    batch: Batch,
}

impl Nodes<'_> {
    fn flush(&mut self) -> Result<(), Error> {
        if !self.batch.chunks.is_empty() {
            self.ingest.store(PackKind::Tree, &self.batch)?;
            self.batch.data.clear();
            self.batch.chunks.clear();
            self.batch.hints.clear();
        }
        Ok(())
    }
}

impl NodeSink for Nodes<'_> {
    fn put_node(&mut self, node: Vec<u8>) -> Result<ChunkId, Error> {
        let id = self.vault.keys.tree_id(&node);
        let bytes = u32::try_from(node.len())
            .ok()
            .filter(|bytes| *bytes <= NODE_BYTES_MAX)
            .ok_or(Error::Internal { part: "the tree builder" })?;
        if self.batch.data.len() + node.len() > NODE_BATCH_BYTES {
            self.flush()?;
        }
        self.batch.data.extend_from_slice(&node);
        self.batch.chunks.push(bytes);
        // A node that changed is told by its likeness: its place is known only once it is complete.
        self.batch.hints.push(Hint { file: TREE, moves: true, ..Hint::default() });
        if self.batch.is_full() {
            self.flush()?;
        }
        Ok(id)
    }
}
