//! What writers that died left unfinished, where the place cannot tell it from what is being written:
//! it goes when this host saw it twice, long enough apart, and it has not grown. No clock but this
//! host's own is asked, and who is alive after all writes it again.

use std::collections::BTreeMap;

use cairn_format::codec::{Reader, Writer};

use crate::context::Remark;
use crate::error::Error;
use crate::index::catalog::Catalog;
use crate::repo::Vault;

/// Name under which it is kept what was seen.
const NAME: &str = "unfinished/seen";
/// Time between two looks after which whoever was writing is dead, milliseconds. To write a pack takes
/// seconds, or minutes.
pub const DEAD_AFTER_MS: i64 = 12 * 60 * 60 * 1_000;
/// What is remembered, at most; the rest has its turn when that is gone.
const REMEMBERED_MAX: usize = 10_000;
/// Bytes of a name, at most.
const NAME_BYTES_MAX: u32 = 255;

/// Something unfinished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// Its size, bytes.
    pub bytes: u64,
    /// Since when this host has seen it so, milliseconds since 1970.
    pub since_ms: i64,
}

/// By name, what is unfinished.
pub type UnfinishedByName = BTreeMap<String, Unfinished>;

/// What is unfinished now.
///
/// # Errors
/// Failures of the store and the cache.
pub fn look(vault: &Vault, catalog: &Catalog) -> Result<UnfinishedByName, Error> {
    let before = catalog.index().meta_get(NAME)?;
    let before = before.and_then(|bytes| decode(&bytes)).unwrap_or_default();
    let now_ms = vault.context.clock.now_ms();
    let mut found = UnfinishedByName::new();
    vault.store.unfinished(&mut |name, bytes| {
        let known = before.get(name).filter(|known| known.bytes == bytes);
        let known_ms = known.map(|known| known.since_ms).filter(|since_ms| *since_ms <= now_ms);
        let since_ms = known_ms.unwrap_or(now_ms);
        found.insert(name.to_owned(), Unfinished { bytes, since_ms });
    })?;
    Ok(found)
}

/// Removes what dead writers left, and remembers the rest. What cannot be removed is warned about: it
/// only takes room, and reports of erasure go on to name it.
///
/// # Errors
/// Failures of the cache.
pub fn sweep(vault: &Vault, catalog: &Catalog) -> Result<(), Error> {
    let found = match look(vault, catalog) {
        Ok(found) => found,
        Err(Error::Store(error)) => {
            vault.monitor().warn(Remark {
                code: "store.sweep",
                subject: vault.store.location(),
                message: format!("what is unfinished there cannot be listed: {error}"),
            });
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let now_ms = vault.context.clock.now_ms();
    let is_dead = |one: &Unfinished| now_ms.saturating_sub(one.since_ms) >= DEAD_AFTER_MS;
    vault.sweep_these(&|name| found.get(name).is_some_and(is_dead));
    // Also what was removed just now: it may not have been.
    Ok(catalog.index().meta_put(NAME, &encode(&found))?)
}

/// Of each its name, u64 bytes, i64 time.
fn encode(found: &UnfinishedByName) -> Vec<u8> {
    let mut out = Writer::new();
    for (name, one) in found.iter().take(REMEMBERED_MAX) {
        out.str(name).u64(one.bytes).i64(one.since_ms);
    }
    out.into_bytes()
}

fn decode(bytes: &[u8]) -> Option<UnfinishedByName> {
    let mut fields = Reader::new(bytes, "memo");
    let mut found = UnfinishedByName::new();
    while !fields.is_empty() {
        let name = fields.str("memo", NAME_BYTES_MAX).ok()?;
        let bytes = fields.u64().ok()?;
        found.insert(name, Unfinished { bytes, since_ms: fields.i64().ok()? });
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_is_remembered_and_nonsense_is_nothing() {
        let one = |bytes, since_ms| Unfinished { bytes, since_ms };
        let found = [("write-1".to_owned(), one(7, -5)), ("probe-2".to_owned(), one(u64::MAX, 9))];
        let found = UnfinishedByName::from(found);
        let bytes = encode(&found);
        assert_eq!(decode(&bytes), Some(found));
        for end in [1, 5, bytes.len() - 1] {
            assert_eq!(decode(&bytes[..end]), None, "{end}");
        }
    }
}
