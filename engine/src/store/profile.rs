//! What a place that keeps objects can do, found out by trying. Nothing is safe only because of
//! it: it is shown, and a place that cannot even do the least is refused.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::error::StoreError;

const HOUR_MS: u64 = 60 * 60 * 1_000;

/// Whether a place has a property.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Found {
    /// It has.
    Yes,
    /// It has not.
    No,
    /// It cannot be told, or not with these credentials.
    #[default]
    Unknown,
}

impl Found {
    /// Stable name, for reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::Unknown => "unknown",
        }
    }
}

impl From<bool> for Found {
    fn from(found: bool) -> Self {
        if found { Self::Yes } else { Self::No }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What was found out about a place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Profile {
    /// An object can be read once it is written.
    pub reads_after_write: Found,
    /// A listing has an object once it is written, and no more once it is deleted.
    pub lists_after_write: Found,
    /// A write on the condition that the name is free is refused when it is not.
    pub conditional_writes: Found,
    /// Replaced and deleted objects stay as older versions.
    pub versions: Found,
    /// Deleted objects can be brought back for a while.
    pub soft_delete: Found,
    /// Older versions may not be deleted: they are locked, or the credentials do not allow it.
    pub versions_locked: Found,
    /// For how long what is written is locked against deletion, milliseconds; 0 when it is not, as
    /// far as the place says.
    pub locked_ms: u64,
}

impl Profile {
    /// Refuses a place that keeps objects from being deleted for longer than it may take.
    ///
    /// # Errors
    /// [`StoreError::Locked`].
    pub fn check_lock(&self, location: &str, within_ms: u64) -> Result<(), StoreError> {
        if self.locked_ms <= within_ms {
            return Ok(());
        }
        let hours = |ms: u64| ms.div_ceil(HOUR_MS);
        Err(StoreError::Locked {
            location: location.to_owned(),
            locked_hours: hours(self.locked_ms),
            within_hours: within_ms / HOUR_MS,
        })
    }

    /// Every property: its stable name and what was found.
    #[must_use]
    pub const fn properties(&self) -> [(&'static str, Found); 6] {
        [
            ("reads_after_write", self.reads_after_write),
            ("lists_after_write", self.lists_after_write),
            ("conditional_writes", self.conditional_writes),
            ("versions", self.versions),
            ("soft_delete", self.soft_delete),
            ("versions_locked", self.versions_locked),
        ]
    }
}
