//! What belongs to no repository yet, or never: objects that are being written under another name,
//! and what the service is tried with. Writers that die leave it behind.

use super::probe::PROBE;
use super::write::ASIDE;
use super::{ObjectStore, RequestKind, next};
use crate::store::error::{Place, StoreError};

/// Its folder; listings of objects pass it over.
pub(super) const FOLDER: &str = "tmp/";

/// Random hexadecimal digits at the end of its names.
const DIGITS: usize = 16;

/// Whether cairn gave it this name; folders may have what is others'.
fn is_ours(name: &str) -> bool {
    let random = name.strip_prefix(ASIDE).or_else(|| name.strip_prefix(PROBE));
    let is_digit = |byte: u8| byte.is_ascii_hexdigit();
    random.is_some_and(|random| random.len() == DIGITS && random.bytes().all(is_digit))
}

impl ObjectStore {
    /// As [`crate::store::Store::unfinished`].
    pub(super) fn each_unfinished(
        &self,
        each: &mut dyn FnMut(&str, u64),
    ) -> Result<(), StoreError> {
        let place = || Place::temporary(&self.location);
        let request = async {
            let mut lister = self.operator.lister(FOLDER).await?;
            let mut found = Vec::new();
            while let Some(entry) = next(&mut lister).await {
                let entry = entry?;
                let name = entry.path().strip_prefix(FOLDER).unwrap_or_default();
                if is_ours(name) {
                    found.push((name.to_owned(), entry.metadata().content_length()));
                }
            }
            Ok(found)
        };
        match self.wait(RequestKind::List, place, 0, request) {
            Err(StoreError::NotFound { .. }) => {}
            found => found?.iter().for_each(|(name, bytes)| each(name, *bytes)),
        }
        Ok(())
    }

    /// As [`crate::store::Store::sweep`].
    pub(super) fn remove_unfinished(
        &self,
        is_dead: &dyn Fn(&str) -> bool,
    ) -> Result<u64, StoreError> {
        let mut dead = Vec::new();
        self.each_unfinished(&mut |name, _| {
            if is_dead(name) {
                dead.push(name.to_owned());
            }
        })?;
        let place = || Place::temporary(&self.location);
        for name in &dead {
            let path = format!("{FOLDER}{name}");
            self.wait(RequestKind::Delete, place, 0, self.operator.delete(&path))?;
        }
        Ok(dead.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_cairn_named_is_taken_for_its_own() {
        for ours in ["write-0123456789abcdef", "probe-ffffffffffffffff"] {
            assert!(is_ours(ours), "{ours}");
        }
        let others = ["", "write-", "write-0123456789abcde", "write-0123456789abcdefg", "put-0"];
        for other in others {
            assert!(!is_ours(other), "{other}");
        }
    }
}
