//! What can go wrong while reading the source.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Class, Explain};

/// A failure to read what is to be backed up. Never says anything about the repository.
///
/// Paths are shown quoted with control characters escaped, because a file's name is any bytes
/// and must not reach a terminal raw.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// It was there when its directory was listed (or was named as a root) and is not any more.
    #[error("{path:?} is not there")]
    Missing {
        /// What was looked for.
        path: PathBuf,
    },
    /// The process may not read it.
    #[error("no permission to {action} {path:?}")]
    Denied {
        /// What was to be done, as a verb.
        action: &'static str,
        /// To what.
        path: PathBuf,
    },
    /// Any other failure of the operating system.
    #[error("cannot {action} {path:?}: {cause}")]
    Io {
        /// What was to be done, as a verb.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        cause: io::Error,
    },
    /// Another thing has taken the name between listing it and opening it.
    #[error("{path:?} was replaced by something else while it was being read")]
    Replaced {
        /// The name.
        path: PathBuf,
    },
    /// Deeper than [`cairn_format::limits::PATH_DEPTH_MAX`].
    #[error("{path:?} is nested deeper than {levels_max} directories")]
    TooDeep {
        /// The directory that was not entered.
        path: PathBuf,
        /// The limit.
        levels_max: u32,
    },
    /// A name longer than [`cairn_format::limits::NAME_BYTES_MAX`].
    #[error("the name of {path:?} is longer than {bytes_max} bytes")]
    NameTooLong {
        /// The entry left out.
        path: PathBuf,
        /// The limit.
        bytes_max: u32,
    },
    /// Symbolic links on the way to a root lead in a circle.
    #[error("{path:?} leads through more than {links_max} symbolic links")]
    TooManyLinks {
        /// The root as it was given.
        path: PathBuf,
        /// The limit.
        links_max: u32,
    },
    /// Extended attributes beyond [`cairn_format::limits::XATTR_BYTES_MAX`].
    #[error(
        "the extended attribute {name:?} of {path:?} is left out: all together exceed {bytes_max} bytes"
    )]
    XattrsTooLarge {
        /// The entry.
        path: PathBuf,
        /// The attribute left out.
        name: String,
        /// The limit.
        bytes_max: u32,
    },
    /// Extended attributes are reached through `/proc/self/fd`, and it is not mounted.
    #[error("extended attributes are left out: {path:?} is not a proc file system")]
    NoProc {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// An exclude pattern that means nothing.
    #[error("the exclude pattern {pattern:?} is malformed: {message}")]
    Pattern {
        /// The pattern as given.
        pattern: String,
        /// What is wrong with it.
        message: String,
    },
    /// An exclude file with a line that is not UTF-8.
    #[error("line {line} of the exclude file {path:?} is not UTF-8")]
    PatternEncoding {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// No root was given.
    #[error("no path to back up was given")]
    NoRoots,
    /// A command was given without any word.
    #[error("the command to back up is empty")]
    EmptyCommand,
    /// The command could not be started.
    #[error("cannot start the command {program:?}: {cause}")]
    CommandStart {
        /// Its first word.
        program: String,
        /// The operating system's answer.
        #[source]
        cause: io::Error,
    },
    /// The command ended, but not with exit status 0.
    #[error("the command {program:?} failed with {status}{}", tail(.stderr_tail))]
    CommandFailed {
        /// Its first word.
        program: String,
        /// How it ended, e.g. `exit status: 1`.
        status: String,
        /// The last of what it wrote to standard error, where that was captured.
        stderr_tail: String,
    },
    /// The command's output was not read to its end, so its success proves nothing.
    #[error("the output of the command {program:?} was not read to its end")]
    CommandUnread {
        /// Its first word.
        program: String,
    },
    /// A stream could not be read.
    #[error("cannot read from {name}: {cause}")]
    Stream {
        /// What the stream is, e.g. `standard input`.
        name: String,
        /// The operating system's answer.
        #[source]
        cause: io::Error,
    },
}

fn tail(stderr: &str) -> String {
    if stderr.is_empty() { String::new() } else { format!(": {}", stderr.escape_debug()) }
}

impl SourceError {
    /// The error for an operating system's answer about a path.
    pub(crate) fn io(action: &'static str, path: &Path, cause: impl Into<io::Error>) -> Self {
        let cause = cause.into();
        let path = path.to_path_buf();
        match cause.kind() {
            io::ErrorKind::NotFound => Self::Missing { path },
            io::ErrorKind::PermissionDenied => Self::Denied { action, path },
            _ => Self::Io { action, path, cause },
        }
    }
}

impl Explain for SourceError {
    fn code(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "source.missing",
            Self::Denied { .. } => "source.denied",
            Self::Io { .. } => "source.io",
            Self::Replaced { .. } => "source.replaced",
            Self::TooDeep { .. } => "source.too_deep",
            Self::NameTooLong { .. } => "source.name_too_long",
            Self::TooManyLinks { .. } => "source.too_many_links",
            Self::XattrsTooLarge { .. } => "source.xattrs_too_large",
            Self::NoProc { .. } => "source.no_proc",
            Self::Pattern { .. } => "source.pattern",
            Self::PatternEncoding { .. } => "source.pattern_encoding",
            Self::NoRoots => "source.no_roots",
            Self::EmptyCommand => "source.empty_command",
            Self::CommandStart { .. } => "source.command_start",
            Self::CommandFailed { .. } => "source.command_failed",
            Self::CommandUnread { .. } => "source.command_unread",
            Self::Stream { .. } => "source.stream",
        }
    }

    fn class(&self) -> Class {
        match self {
            Self::Pattern { .. }
            | Self::PatternEncoding { .. }
            | Self::NoRoots
            | Self::EmptyCommand => Class::Usage,
            Self::Missing { .. }
            | Self::Denied { .. }
            | Self::Io { .. }
            | Self::Replaced { .. }
            | Self::TooDeep { .. }
            | Self::NameTooLong { .. }
            | Self::TooManyLinks { .. }
            | Self::XattrsTooLarge { .. }
            | Self::NoProc { .. }
            | Self::CommandStart { .. }
            | Self::CommandFailed { .. }
            | Self::CommandUnread { .. }
            | Self::Stream { .. } => Class::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Denied { .. } => {
                Some("run as a user who may read it, or exclude it with --exclude".into())
            }
            Self::Missing { .. } => {
                Some("check the path; a file that vanished during the backup is harmless".into())
            }
            Self::Replaced { .. } => {
                Some("back up again, or back up a file system snapshot".into())
            }
            Self::NoProc { .. } => Some("mount /proc".into()),
            Self::Pattern { .. } => Some("patterns have the syntax of .gitignore".into()),
            Self::PatternEncoding { .. } => Some("write such names with `?` for each byte".into()),
            Self::CommandStart { .. } => {
                Some("the command is started without a shell; check that the program exists".into())
            }
            Self::Io { .. }
            | Self::TooDeep { .. }
            | Self::NameTooLong { .. }
            | Self::TooManyLinks { .. }
            | Self::XattrsTooLarge { .. }
            | Self::NoRoots
            | Self::EmptyCommand
            | Self::CommandFailed { .. }
            | Self::CommandUnread { .. }
            | Self::Stream { .. } => None,
        }
    }
}
