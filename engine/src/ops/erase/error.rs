//! Why nothing is erased.

use crate::error::{Class, Explain};

/// Why an erasure is refused, before anything was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EraseError {
    /// Neither snapshots nor jobs nor paths were named.
    #[error("nothing was named that is to be erased")]
    NothingNamed,
    /// A path does not say where it begins.
    #[error("{pattern:?} is ambiguous: it does not begin at the root")]
    Relative {
        /// As given.
        pattern: String,
    },
    /// A path cannot be one of an entry.
    #[error("{pattern:?} cannot be erased: {problem}")]
    Pattern {
        /// As given.
        pattern: String,
        /// What is wrong.
        problem: String,
    },
    /// A pattern is also the name of an entry, and fits others.
    #[error("{pattern:?} is ambiguous: it is the name of an entry, and as a pattern fits others")]
    Ambiguous {
        /// As given.
        pattern: String,
    },
    /// Nothing that is there is meant.
    #[error("{pattern:?} is in none of the {snapshots} snapshots looked at")]
    NothingMatches {
        /// As given.
        pattern: String,
        /// How many were looked at.
        snapshots: u64,
    },
    /// No snapshot would be left.
    #[error("no snapshot would be left, and everything would be deleted")]
    NothingLeft,
    /// It cannot be told whether a snapshot holds what is to be erased.
    #[error("whether {object} holds what is to be erased cannot be told: {message}")]
    Unreadable {
        /// The snapshot.
        object: String,
        /// What is wrong with it.
        message: String,
    },
    /// What a new snapshot needs is not all there.
    #[error("{chunks} chunks that remain of what was erased from cannot be found")]
    Incomplete {
        /// How many, at least.
        chunks: u64,
    },
    /// However often it was looked, there was more.
    #[error(
        "{snapshots} snapshots still hold what is to be erased, or do not stand for those that did"
    )]
    Unfinished {
        /// How many.
        snapshots: usize,
    },
}

impl Explain for EraseError {
    fn code(&self) -> &'static str {
        match self {
            Self::NothingNamed => "erase.nothing_named",
            Self::Relative { .. } | Self::Ambiguous { .. } => "erase.ambiguous",
            Self::Pattern { .. } => "erase.pattern",
            Self::NothingMatches { .. } => "erase.nothing",
            Self::NothingLeft => "erase.nothing_left",
            Self::Unreadable { .. } => "erase.unreadable",
            Self::Incomplete { .. } => "erase.incomplete",
            Self::Unfinished { .. } => "erase.unfinished",
        }
    }

    fn class(&self) -> Class {
        match self {
            Self::NothingNamed | Self::Pattern { .. } => Class::Usage,
            Self::Relative { .. }
            | Self::Ambiguous { .. }
            | Self::NothingMatches { .. }
            | Self::NothingLeft => Class::Refused,
            Self::Unfinished { .. } => Class::Busy,
            Self::Unreadable { .. } | Self::Incomplete { .. } => Class::Damage,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NothingNamed => "name --snapshot, --job or --path",
            Self::Relative { pattern } => {
                let pattern = pattern.trim_start_matches("./");
                return Some(format!(
                    "write the whole path as `cairn ls` shows it (/{pattern}), or '**/{pattern}' \
                     for it wherever it is; nothing was changed"
                ));
            }
            Self::Pattern { .. } => {
                "name whole paths or patterns in gitignore syntax, such as '/srv/**/alice.*'"
            }
            Self::Ambiguous { .. } => {
                "put a backslash before each *, ? or [ that is part of the name, or erase with \
                 another pattern; nothing was changed"
            }
            Self::NothingMatches { .. } => {
                "`cairn find` shows where something is; nothing was changed"
            }
            Self::NothingLeft => {
                "if the repository shall be emptied, repeat it with `--max-delete 100`; nothing \
                 was changed"
            }
            Self::Unreadable { .. } => {
                "repair it, or erase or forget that snapshot as a whole; nothing was changed"
            }
            Self::Incomplete { .. } => {
                "the snapshots from before are all still there; run `cairn verify`"
            }
            Self::Unfinished { .. } => {
                "what was erased until then is gone from the snapshots; exclude it from the backups that \
                 bring it back, and repeat the erasure"
            }
        };
        Some(hint.to_owned())
    }
}
