//! What trying out the storage at a place found, as this host remembers it: to show it, never to rely
//! on it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use cairn_engine::repo::places;
use cairn_engine::store::profile::Profile;
use serde::{Deserialize, Serialize};

/// Folder below the folder of caches.
const FOLDER: &str = "storage";
/// Longest file that is read, bytes.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// What was found, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tried {
    /// The place.
    pub location: String,
    /// Milliseconds since 1970.
    pub at_ms: i64,
    /// What it can do.
    pub profile: Profile,
}

fn file(cache_dir: &Path, place: &str) -> PathBuf {
    cache_dir.join(FOLDER).join(places::file_name(place))
}

impl Tried {
    /// What was found at a place; nothing if that is not known, or cannot be understood.
    #[must_use]
    pub fn recall(cache_dir: &Path, place: &str) -> Option<Self> {
        let file = file(cache_dir, place);
        if fs::metadata(&file).ok()?.len() > FILE_BYTES_MAX {
            return None;
        }
        let tried: Self = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
        (tried.location == place).then_some(tried)
    }

    /// Remembers it.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn remember(&self, cache_dir: &Path) -> io::Result<()> {
        places::replace_file(&file(cache_dir, &self.location), &serde_json::to_vec_pretty(self)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_engine::store::profile::Found;

    #[test]
    fn what_was_found_is_remembered_of_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let profile = Profile { versions: Found::Yes, locked_ms: 7, ..Profile::default() };
        let tried = Tried { location: "s3://a".to_owned(), at_ms: 1, profile };
        assert_eq!(Tried::recall(folder.path(), "s3://a"), None);
        tried.remember(folder.path()).unwrap();
        assert_eq!(Tried::recall(folder.path(), "s3://a"), Some(tried));
        assert_eq!(Tried::recall(folder.path(), "s3://b"), None);
        fs::write(file(folder.path(), "s3://a"), "{").unwrap();
        assert_eq!(Tried::recall(folder.path(), "s3://a"), None);
    }
}
