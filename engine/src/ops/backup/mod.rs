//! Backs up file trees, streams and commands into one snapshot.
//!
//! Order of writes (SPEC §10): packs, segments, the snapshot; then tombs are listed again, and only
//! a snapshot that relies on nothing condemned is acknowledged and reported as done.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::mpsc;

use cairn_format::envelope::Kind;
use cairn_format::ids::{ChunkId, ObjectHash, SessionId, SnapshotId};
use cairn_format::limits::{LABEL_BYTES_MAX, NODE_BYTES_MAX, RECORD_BYTES_MAX};
use cairn_format::names::{ObjectName, PackKind};
use cairn_format::node::is_name;
use cairn_format::record::{Ack, Snapshot, SourceKind, SourceRecord, Statistics};

use self::assemble::{Assembled, Assembler, Message};
use self::cache::{FileCache, Recogniser};
use self::feed::{Cutters, Fed, FeedOptions, Feeder, Shared};
use super::snapshots::{self, SnapshotInfo};
use crate::chunk::{ContentCutter, Cutter};
use crate::context::Remark;
use crate::error::Error;
use crate::frame::COMPRESSION_LEVEL_DEFAULT;
use crate::index::catalog::Catalog;
use crate::index::segments;
use crate::pipeline::inflight::InFlight;
use crate::pipeline::ingest::{Batch, Ingest};
use crate::pipeline::upload::{UPLOAD_THREADS, Uploader};
use crate::repo::Repository;
use crate::seal::random;
use crate::source::filter::FileSourceOptions;
use crate::source::profile::Profile;
use crate::source::stream::{CommandSource, ReaderSource, Stderr, StreamSource};
use crate::source::walk::Walk;
use crate::tree::NodeSink;

mod assemble;
mod cache;
mod feed;

/// Bytes of tree nodes that are stored as one frame.
const NODE_BATCH_BYTES: usize = 256 << 10;

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
    /// Only say what would be done: which entries would be read.
    pub dry_run: bool,
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
            dry_run: false,
        }
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
    let prepared = prepare(options)?;
    if prepared.dry_run {
        return dry_run(repository, prepared, started_ms);
    }
    let catalog = repository.catalog()?;
    let session = SessionId::from_bytes(random::array(repository.context.random.as_ref())?);
    let written = write(repository, catalog, session, prepared)?;
    let record = describe(repository, catalog, session, started_ms, &written)?;
    let snapshot = publish(repository, catalog, session, record)?;
    cache::protect(catalog, session, snapshot.id)?;
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
        elapsed_ms: repository.context.clock.now_ms() - started_ms,
    })
}

/// Sources, checked.
struct Prepared {
    walk: Option<Walk>,
    streams: Vec<Box<dyn StreamSource>>,
    records: Vec<SourceRecord>,
    paths: Vec<Vec<u8>>,
    job: String,
    tags: Vec<String>,
    excludes: Vec<String>,
    profile: Option<Profile>,
    reread: bool,
    level: i32,
    dry_run: bool,
}

fn usage(message: &str, hint: &str) -> Error {
    Error::Usage { message: message.to_owned(), hint: Some(hint.to_owned()) }
}

fn prepare(options: BackupOptions) -> Result<Prepared, Error> {
    let label_max = LABEL_BYTES_MAX as usize;
    if options.job.is_empty() || options.job.len() > label_max {
        return Err(usage("the name of a job has 1 to 255 bytes", "choose another --job"));
    }
    if options.tags.iter().any(|tag| tag.is_empty() || tag.len() > label_max) {
        return Err(usage("a tag has 1 to 255 bytes", "choose another --tag"));
    }
    let mut prepared = Prepared {
        walk: None,
        streams: Vec::new(),
        records: Vec::new(),
        paths: Vec::new(),
        job: options.job,
        tags: options.tags,
        excludes: options.files.excludes.clone(),
        profile: options.profile,
        reread: options.reread,
        level: options.compression_level,
        dry_run: options.dry_run,
    };
    let mut files = options.files;
    let mut commands = Vec::new();
    for source in options.sources {
        match source {
            BackupSource::Path(path) => {
                let absolute = std::path::absolute(&path).unwrap_or(path);
                prepared.paths.push(absolute.as_os_str().as_bytes().to_vec());
                files.roots.push(absolute);
            }
            BackupSource::Stream { name, reader } => {
                prepared.add_stream(&name, SourceKind::Stdin, Vec::new())?;
                prepared.streams.push(Box::new(ReaderSource::new(name, reader)));
            }
            BackupSource::Command { name, argv } => {
                let words = argv.iter().map(|word| word.as_bytes().to_vec()).collect();
                prepared.add_stream(&name, SourceKind::Command, words)?;
                commands.push((name, argv));
            }
        }
    }
    if !prepared.records.is_empty() && !files.roots.is_empty() {
        let hint = "back them up as two jobs";
        return Err(usage("paths and streams cannot be in one snapshot", hint));
    }
    if prepared.paths.is_empty() {
        return Err(usage("there is nothing to back up", "name a path, --stdin or --command"));
    }
    if !files.roots.is_empty() {
        prepared.records.extend(prepared.paths.iter().map(|path| SourceRecord {
            kind: SourceKind::Files,
            name: String::from_utf8_lossy(path).into_owned(),
            argv: Vec::new(),
        }));
        prepared.walk = Some(Walk::new(files)?);
    }
    if !prepared.dry_run {
        for (name, argv) in commands {
            let source = CommandSource::spawn(&argv, Stderr::Inherit)?;
            prepared.streams.push(Box::new(Named { name, source }));
        }
    }
    // The tree wants names in order, whatever order they were given in.
    prepared.streams.sort_by(|one, two| one.name().cmp(two.name()));
    Ok(prepared)
}

impl Prepared {
    fn add_stream(
        &mut self,
        name: &str,
        kind: SourceKind,
        argv: Vec<Vec<u8>>,
    ) -> Result<(), Error> {
        if !is_name(name.as_bytes()) {
            let message = format!("{name:?} cannot be the name of a stream");
            return Err(usage(&message, "a name has no slash and is not . or .."));
        }
        if self.paths.iter().any(|path| path.get(1..) == Some(name.as_bytes())) {
            let message = format!("two streams have the name {name:?}");
            return Err(usage(&message, "give each a name of its own"));
        }
        self.paths.push([b"/", name.as_bytes()].concat());
        self.records.push(SourceRecord { kind, name: name.to_owned(), argv });
        Ok(())
    }
}

/// A command's output under the name it has in the snapshot.
struct Named {
    name: String,
    source: CommandSource,
}

impl StreamSource for Named {
    fn name(&self) -> &str {
        &self.name
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, crate::source::error::SourceError> {
        self.source.read(buffer)
    }

    fn finish(self: Box<Self>) -> Result<(), crate::source::error::SourceError> {
        Box::new(self.source).finish()
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
    parents: Vec<SnapshotId>,
    job: String,
    tags: Vec<String>,
    paths: Vec<Vec<u8>>,
    records: Vec<SourceRecord>,
    excludes: Vec<String>,
}

/// Puts packs and segments.
fn write(
    repository: &Repository,
    catalog: &Catalog,
    session: SessionId,
    mut prepared: Prepared,
) -> Result<Written, Error> {
    let vault = repository.vault();
    repository.monitor().stage("backup", None);
    let in_flight = InFlight::default();
    let uploader = Uploader::new(vault, catalog, &in_flight);
    let leftovers = catalog.leftover_sections(vault)?;
    let packs_resumed = leftovers.len() as u64;
    uploader.adopt(leftovers);
    let ingest = Ingest::new(vault, catalog, &uploader, &in_flight, session, prepared.level)?;
    let gear = *vault.keys.gear_table()?;
    let cutters = Cutters {
        content: Cutter::Content(Box::new(ContentCutter::new(vault.config.chunker, gear))),
        aligned: Cutter::Aligned(vault.config.aligned_bytes),
    };
    let names = snapshots::list_names(repository)?;
    let recogniser = Recogniser::new(catalog, vault.own_namespace()?, &names);
    let options = FeedOptions { profile: prepared.profile, reread: prepared.reread };
    let shared = Shared::new(&ingest, vault);
    let walk = prepared.walk.take();
    let streams = std::mem::take(&mut prepared.streams);

    let outcome = std::thread::scope(|threads| {
        for _ in 0..UPLOAD_THREADS {
            threads.spawn(|| uploader.run());
        }
        let (sender, receiver) = mpsc::channel::<Message>();
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
            let mut feeder = Feeder::new(&shared, scope, sender, recogniser, &cutters, options);
            if let Some(walk) = walk {
                feeder.files(walk)?;
            }
            for stream in streams {
                feeder.stream(stream)?;
            }
            feeder.finish()
        });
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
    if let Some(error) = uploader.take_failure().or_else(|| shared.take_failure()) {
        return Err(error);
    }
    let assembled = match (fed, assembled) {
        (Ok(fed), Ok(Ok(assembled))) => (fed, assembled),
        (Err(Error::Cancelled), Ok(Err(error)) | Err(error)) => return Err(error),
        (Err(error), _) | (_, Err(error) | Ok(Err(error))) => return Err(error),
    };
    flushed?;
    let bytes_stored = uploader.finish()?;
    let (fed, assembled) = assembled;
    let parents = latest_of(catalog, &prepared.job, &names)?;
    Ok(Written {
        assembled,
        fed,
        bytes_new: ingest.bytes_new(),
        bytes_stored,
        packs_resumed,
        parents,
        job: prepared.job,
        tags: prepared.tags,
        paths: prepared.paths,
        records: prepared.records,
        excludes: prepared.excludes,
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
        if self.batch.is_full() {
            self.flush()?;
        }
        Ok(id)
    }
}

/// Name under which the newest snapshot of a job by this host is remembered.
fn latest_name(job: &str) -> String {
    format!("latest/{}", blake3::hash(job.as_bytes()).to_hex())
}

const SEQUENCE_NAME: &str = "writer/sequence";
const PREVIOUS_NAME: &str = "writer/previous";

fn latest_of(
    catalog: &Catalog,
    job: &str,
    listed: &[ObjectName],
) -> Result<Vec<SnapshotId>, Error> {
    let noted = catalog.index().meta_get(&latest_name(job))?;
    Ok(noted
        .and_then(|bytes| SnapshotId::from_slice(&bytes).ok())
        .filter(|latest| {
            listed
                .iter()
                .any(|name| matches!(name, ObjectName::Snapshot { id, .. } if id == latest))
        })
        .into_iter()
        .collect())
}

fn remember_latest(catalog: &Catalog, snapshot: &SnapshotInfo) -> Result<(), Error> {
    let index = catalog.index();
    index.meta_put(&latest_name(&snapshot.record.job), snapshot.id.as_bytes())?;
    index.meta_put(PREVIOUS_NAME, snapshot.id.as_bytes())?;
    Ok(index.meta_put(SEQUENCE_NAME, &snapshot.record.sequence.to_le_bytes())?)
}

fn describe(
    repository: &Repository,
    catalog: &Catalog,
    session: SessionId,
    started_ms: i64,
    written: &Written,
) -> Result<Snapshot, Error> {
    let index = catalog.index();
    let sequence = index
        .meta_get(SEQUENCE_NAME)?
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u64::from_le_bytes);
    let previous = index.meta_get(PREVIOUS_NAME)?;
    let context = &repository.context;
    let (assembled, fed) = (&written.assembled, &written.fed);
    Ok(Snapshot {
        started_ms,
        finished_ms: context.clock.now_ms(),
        job: written.job.clone(),
        host: context.host.clone(),
        user: context.user.clone(),
        paths: written.paths.clone(),
        tags: written.tags.clone(),
        root: assembled.root,
        sequence: sequence.saturating_add(1),
        session,
        previous: previous.and_then(|bytes| SnapshotId::from_slice(&bytes).ok()),
        parents: written.parents.clone(),
        statistics: Statistics {
            files: assembled.files,
            directories: assembled.directories,
            others: assembled.others,
            bytes_total: assembled.bytes_total,
            bytes_read: fed.bytes_read,
            bytes_new: written.bytes_new,
            bytes_stored: written.bytes_stored,
            unread: fed.unread,
        },
        program: context.program.clone(),
        sources: written.records.clone(),
        excludes: written.excludes.clone(),
    })
}

/// Puts the snapshot, checks that nothing it relies on was condemned meanwhile, acknowledges it.
fn publish(
    repository: &Repository,
    catalog: &Catalog,
    session: SessionId,
    record: Snapshot,
) -> Result<SnapshotInfo, Error> {
    let vault = repository.vault();
    let object = vault.seal_signed(Kind::Snapshot, &record.encode())?;
    if object.len() > RECORD_BYTES_MAX as usize {
        let hint = "name fewer paths: a directory instead of its files";
        return Err(usage("the description of the snapshot is too long", hint));
    }
    let id = SnapshotId::from_bytes(*blake3::hash(&object).as_bytes());
    let name_time_ms = u64::try_from(record.started_ms).unwrap_or_default();
    vault.store.put(&ObjectName::Snapshot { time_ms: name_time_ms, id }, &object)?;
    let condemned = catalog.sync_tombs(vault)?;
    if condemned > 0 {
        return Err(Error::Condemned { packs: condemned });
    }
    let ack = Ack {
        snapshot: id,
        time_ms: vault.context.clock.now_ms(),
        tombs_digest: catalog.tombs_digest(),
        session,
    };
    let object = vault.seal_signed(Kind::Ack, &ack.encode())?;
    let hash = ObjectHash::from_bytes(*blake3::hash(&object).as_bytes());
    vault.store.put(&ObjectName::Ack { snapshot: id, hash }, &object)?;
    let signer = vault.keys.signer()?;
    Ok(SnapshotInfo {
        id,
        name_time_ms,
        record,
        writer: signer.writer_id(),
        writer_name: signer.certificate().name.clone(),
        namespace: vault.own_namespace()?,
        acknowledged: true,
    })
}
