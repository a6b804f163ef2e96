//! Failures as people read them: `error: fact`, then `  hint: next step`.

use std::fmt;
use std::io;
use std::path::PathBuf;

use cairn_engine::error::{Class, Error, Explain};

use super::format;
use crate::exit_code::ExitCode;

/// Why a command ended without doing what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// How the process exits.
    pub exit: ExitCode,
    /// Stable dotted name for scripts.
    pub code: &'static str,
    /// The fact, with the thing and the place.
    pub message: String,
    /// The next step.
    pub hint: Option<String>,
}

impl Failure {
    /// What an error of the engine, or of this program, means for the person.
    #[must_use]
    pub fn of(error: &dyn Explain) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            // Errors that show their cause themselves would otherwise say it twice.
            let text = inner.to_string();
            if !message.contains(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            cause = inner.source();
        }
        Self { exit: error.class().into(), code: error.code(), message, hint: error.hint() }
    }

    /// The lines for standard error, harmless for a terminal.
    #[must_use]
    pub fn lines(&self) -> String {
        let mut lines = format!("error: {}", format::text(&self.message));
        if let Some(hint) = &self.hint {
            lines.push_str("\n  hint: ");
            lines.push_str(&format::text(hint));
        }
        lines
    }
}

impl From<CliError> for Failure {
    fn from(error: CliError) -> Self {
        Self::of(&error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Output(error) => CliError::output(error).into(),
            error => Self::of(&error),
        }
    }
}

/// What the engine is told when its entries cannot be shown.
impl From<CliError> for Error {
    fn from(error: CliError) -> Self {
        Self::Output(match error {
            CliError::Output(error) => error,
            CliError::PipeClosed => io::ErrorKind::BrokenPipe.into(),
            other => io::Error::other(other.to_string()),
        })
    }
}

/// What can go wrong before the engine is asked, or while its answer is shown.
#[derive(Debug)]
pub enum CliError {
    /// Neither `--repo` nor its variable names a repository.
    RepositoryNotNamed,
    /// A value in the environment cannot be used.
    Environment {
        /// The variable.
        name: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A combination of options that clap cannot judge.
    Usage {
        /// What is wrong.
        problem: String,
        /// What to do instead.
        hint: &'static str,
    },
    /// The configuration file cannot be understood.
    Configuration {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// No folder for caches can be derived.
    CacheFolderUnknown,
    /// No secret was named, and there is no terminal to ask at.
    SecretMissing,
    /// Two secrets were named.
    SecretConflict {
        /// One of them.
        first: &'static str,
        /// The other.
        second: &'static str,
    },
    /// A secret that is empty or too long.
    SecretUnusable {
        /// Where it came from, never the secret.
        origin: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The two entries at a prompt differ.
    SecretsDiffer,
    /// A file could not be read or written.
    File {
        /// What was tried, e.g. `read the password file`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A command that should give a secret did not.
    SecretCommand {
        /// The option that named it, or what it is the command for.
        origin: String,
        /// What happened.
        problem: String,
    },
    /// The terminal could not be asked.
    Prompt(io::Error),
    /// Standard output could not be written.
    Output(io::Error),
    /// Nobody reads standard output any more.
    PipeClosed,
    /// The signal handlers could not be set.
    Signals(io::Error),
}

impl CliError {
    /// Code of [`Self::PipeClosed`]: the one failure that is not spoken of.
    pub const CLOSED: &'static str = "output.closed";

    /// Standard output failed.
    #[must_use]
    pub fn output(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::PipeClosed,
            _ => Self::Output(error),
        }
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RepositoryNotNamed => f.write_str("no repository is named"),
            Self::Environment { name, problem } => write!(f, "{name}: {problem}"),
            Self::Usage { problem, .. } => f.write_str(problem),
            Self::Configuration { path, problem } => write!(f, "{}: {problem}", path.display()),
            Self::CacheFolderUnknown => {
                f.write_str("no folder for caches is known: neither XDG_CACHE_HOME nor HOME is set")
            }
            Self::SecretMissing => {
                f.write_str("no key is named, and there is no terminal to ask for a passphrase")
            }
            Self::SecretConflict { first, second } => {
                write!(f, "{first} and {second} both name a key")
            }
            Self::SecretUnusable { origin, problem } => write!(f, "{origin} {problem}"),
            Self::SecretsDiffer => f.write_str("the two passphrases differ"),
            Self::File { action, path, .. } => write!(f, "cannot {action} {}", path.display()),
            Self::SecretCommand { origin, problem } => write!(f, "the {origin} {problem}"),
            Self::Prompt(_) => f.write_str("cannot ask for the passphrase"),
            Self::Output(_) => f.write_str("cannot write to standard output"),
            Self::PipeClosed => f.write_str("standard output was closed"),
            Self::Signals(_) => f.write_str("cannot handle signals"),
        }
    }
}

impl std::error::Error for CliError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File { source, .. }
            | Self::Prompt(source)
            | Self::Output(source)
            | Self::Signals(source) => Some(source),
            _ => None,
        }
    }
}

impl Explain for CliError {
    fn code(&self) -> &'static str {
        match self {
            Self::RepositoryNotNamed => "usage.repository",
            Self::Environment { .. } => "usage.environment",
            Self::Usage { .. } => "usage.arguments",
            Self::Configuration { .. } => "usage.configuration",
            Self::CacheFolderUnknown => "usage.cache_folder",
            Self::SecretMissing => "key.missing",
            Self::SecretConflict { .. } => "key.conflict",
            Self::SecretUnusable { .. } => "key.unusable",
            Self::SecretsDiffer => "key.differ",
            Self::File { .. } => "file.failed",
            Self::SecretCommand { .. } => "key.command",
            Self::Prompt(_) => "terminal.failed",
            Self::Output(_) => "output.failed",
            Self::PipeClosed => Self::CLOSED,
            Self::Signals(_) => "signals.failed",
        }
    }

    fn class(&self) -> Class {
        match self {
            Self::RepositoryNotNamed
            | Self::Environment { .. }
            | Self::Usage { .. }
            | Self::Configuration { .. }
            | Self::CacheFolderUnknown
            | Self::SecretMissing
            | Self::SecretConflict { .. }
            | Self::SecretUnusable { .. }
            | Self::SecretsDiffer
            | Self::File { .. }
            | Self::SecretCommand { .. } => Class::Usage,
            Self::Prompt(_) | Self::Output(_) | Self::PipeClosed | Self::Signals(_) => {
                Class::Failed
            }
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::RepositoryNotNamed => "name it with --repo or CAIRN_REPO",
            Self::Usage { hint, .. } => hint,
            Self::Configuration { .. } => "`cairn replicate --help` shows what may stand there",
            Self::CacheFolderUnknown => "name it with --cache-dir or CAIRN_CACHE_DIR",
            Self::SecretMissing => {
                "use CAIRN_PASSWORD, --password-file, --password-command, --key-file, \
                 --key-command or --identity-file"
            }
            Self::SecretConflict { .. } => "name exactly one key",
            Self::SecretsDiffer => "nothing was changed; try again",
            Self::SecretUnusable { .. }
            | Self::Environment { .. }
            | Self::File { .. }
            | Self::SecretCommand { .. }
            | Self::Prompt(_)
            | Self::Output(_)
            | Self::PipeClosed
            | Self::Signals(_) => return None,
        };
        Some(hint.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_thing_cause_and_next_step() {
        let error = CliError::File {
            action: "read the password file",
            path: PathBuf::from("/run/\x1bsecret"),
            source: io::Error::other("no such thing"),
        };
        let failure = Failure::from(error);
        assert_eq!(failure.exit, ExitCode::Usage);
        assert_eq!(
            failure.lines(),
            "error: cannot read the password file /run/\\x1bsecret: no such thing"
        );
        let failure = Failure::from(CliError::RepositoryNotNamed);
        assert_eq!(
            failure.lines(),
            "error: no repository is named\n  hint: name it with --repo or CAIRN_REPO"
        );
    }
}
