//! Checks what is to be backed up, and opens the sources, before anything is stored.

use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use cairn_format::limits::LABEL_BYTES_MAX;
use cairn_format::node::is_name;
use cairn_format::record::{SourceKind, SourceRecord};

use super::{BackupOptions, BackupSource};
use crate::collect::Weakness;
use crate::error::Error;
use crate::pipeline::upload::PackTap;
use crate::source::error::SourceError;
use crate::source::filter::FileSourceOptions;
use crate::source::profile::Profile;
use crate::source::stream::{CommandSource, ReaderSource, Stderr, StreamSource};
use crate::source::walk::Walk;

/// Sources, checked.
pub struct Prepared {
    pub walk: Option<Walk>,
    /// For a second walk that only adds up.
    pub files: Option<FileSourceOptions>,
    pub streams: Vec<Box<dyn StreamSource>>,
    pub records: Vec<SourceRecord>,
    pub paths: Vec<Vec<u8>>,
    pub job: String,
    pub tags: Vec<String>,
    pub excludes: Vec<String>,
    pub profile: Option<Profile>,
    pub reread: bool,
    pub level: i32,
    pub deltas: bool,
    pub dry_run: bool,
    /// Recognise no file by the snapshot it is in.
    pub distrust: bool,
    /// Is shown each pack once it is durable.
    pub tap: Option<Arc<dyn PackTap>>,
    /// Test kit.
    pub weakness: Option<Weakness>,
}

/// A request that cannot be carried out, with the next step.
pub fn usage(message: &str, hint: &str) -> Error {
    Error::Usage { message: message.to_owned(), hint: Some(hint.to_owned()) }
}

/// Checks the options and starts commands.
///
/// # Errors
/// [`Error::Usage`]; a command that cannot be started.
pub fn prepare(options: BackupOptions) -> Result<Prepared, Error> {
    let label_max = LABEL_BYTES_MAX as usize;
    if options.job.is_empty() || options.job.len() > label_max {
        return Err(usage("the name of a job has 1 to 255 bytes", "choose another --job"));
    }
    if options.tags.iter().any(|tag| tag.is_empty() || tag.len() > label_max) {
        return Err(usage("a tag has 1 to 255 bytes", "choose another --tag"));
    }
    let mut prepared = Prepared {
        walk: None,
        files: None,
        streams: Vec::new(),
        records: Vec::new(),
        paths: Vec::new(),
        job: options.job,
        tags: options.tags,
        excludes: options.files.excludes.clone(),
        profile: options.profile,
        reread: options.reread,
        level: options.compression_level,
        deltas: options.deltas,
        dry_run: options.dry_run,
        distrust: false,
        tap: options.tap,
        weakness: options.weakness,
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
        refuse_absent(&files.roots)?;
        prepared.records.extend(prepared.paths.iter().map(|path| SourceRecord {
            kind: SourceKind::Files,
            name: String::from_utf8_lossy(path).into_owned(),
            argv: Vec::new(),
        }));
        prepared.files = Some(files.clone());
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

/// Refuses a backup of nothing: a snapshot of paths of which none is there, as of a disk that is not
/// mounted, would pass for the newest backup. One that is missing beside others is only reported.
fn refuse_absent(roots: &[PathBuf]) -> Result<(), Error> {
    let absent = |root: &PathBuf| {
        let found = std::fs::symlink_metadata(root);
        found.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
    };
    match roots.first() {
        Some(first) if roots.iter().all(absent) => {
            Err(SourceError::Missing { path: first.clone() }.into())
        }
        _ => Ok(()),
    }
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

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, SourceError> {
        self.source.read(buffer)
    }

    fn finish(self: Box<Self>) -> Result<(), SourceError> {
        Box::new(self.source).finish()
    }
}
