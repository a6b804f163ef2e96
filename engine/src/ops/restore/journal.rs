//! Remembers in the target that a restore is under way, so that running it again continues it.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use super::RestoreOptions;
use crate::error::Error;
use crate::target::TargetError;
use crate::target::create::Overwrite;

/// Name of the journal in the target directory.
pub const JOURNAL_NAME: &str = ".cairn-restore-in-progress";

/// Longest journal that is read, bytes.
const JOURNAL_BYTES_MAX: u64 = 1 << 20;

/// A restore that has begun.
pub struct Journal {
    path: PathBuf,
}

/// What identifies the restore: the snapshot and the path in it.
fn subject(options: &RestoreOptions) -> String {
    let path = options.path.as_deref().unwrap_or_default();
    format!("{} {}", options.snapshot.id, cairn_format::hex::encode(path))
}

/// Changes with every start of the machine: what was written before may not have become durable.
fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

fn failed(action: &'static str, path: PathBuf) -> impl FnOnce(std::io::Error) -> Error {
    move |cause| Error::Target(TargetError::Io { action, path, cause })
}

/// How files that are there already are to be treated when the same restore was begun before;
/// `None` when it was not.
///
/// # Errors
/// When the journal cannot be read.
pub fn find(options: &RestoreOptions) -> Result<Option<Overwrite>, Error> {
    let path = options.target.join(JOURNAL_NAME);
    match fs::symlink_metadata(&path) {
        Ok(meta) if meta.is_file() && meta.len() <= JOURNAL_BYTES_MAX => {}
        Ok(_) => return Ok(None),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(failed("look at", path)(error)),
    }
    let text = fs::read_to_string(&path).map_err(failed("read", path))?;
    let mut lines = text.lines();
    if lines.next() != Some(subject(options).as_str()) {
        return Ok(None);
    }
    // Times are set after content, so within one boot a finished file shows; after a crash of the
    // machine content may be missing behind a right time, and every byte is compared.
    let same_boot = lines.next() == Some(boot().as_str()) && !boot().is_empty();
    let careful = options.delta || !same_boot;
    Ok(Some(if careful { Overwrite::Delta } else { Overwrite::IfDifferent }))
}

impl Journal {
    /// Notes that the restore begins, durably and before anything else is written: otherwise a crash
    /// of the machine could leave files without a word of whose they are, which nobody continues.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn begin(options: &RestoreOptions) -> Result<Self, Error> {
        let path = options.target.join(JOURNAL_NAME);
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(failed("replace", path)(error)),
        }
        let text = format!("{}\n{}\n", subject(options), boot());
        let mut file = fs::File::create_new(&path).map_err(failed("write", path.clone()))?;
        std::io::Write::write_all(&mut file, text.as_bytes())
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::File::open(&options.target)?.sync_all())
            .map_err(failed("write", path.clone()))?;
        Ok(Self { path })
    }

    /// Notes that it is done.
    ///
    /// # Errors
    /// When the journal cannot be removed.
    pub fn end(self) -> Result<(), Error> {
        fs::remove_file(&self.path).map_err(failed("remove", self.path))
    }
}
