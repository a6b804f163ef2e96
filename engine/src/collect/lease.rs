//! Leases: hints that a session is at work, so that a collection beside it spares what it has
//! stored but not yet named in a snapshot. Nothing depends on them for safety: without one, or with
//! clocks that are wrong, a session merely finds its packs condemned and stores them again.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use cairn_format::codec::{Reader, Writer};
use cairn_format::envelope::Kind;
use cairn_format::ids::{ObjectHash, SessionId};
use cairn_format::limits::RECORD_BYTES_MAX;
use cairn_format::names::{Folder, OBJECT_NAME_BYTES_MAX, ObjectName};
use cairn_format::record::Lease;
use parking_lot::Mutex;

use super::sweep::delete;
use crate::context::Remark;
use crate::error::Error;
use crate::index::catalog::Catalog;
use crate::repo::Vault;
use crate::repo::vault::read_object;
use crate::seal::Opened;
use crate::seal::sign::{open_unsigned_body, unsigned_body};
use crate::store::{StoreError, together};

/// How long a session is taken to be at work after it last said so: longer than any pause that is
/// not the end of it, milliseconds.
pub const LEASE_TTL_MS: u64 = 24 * 60 * 60 * 1000;
/// A lease is renewed when it is older than this, milliseconds.
const RENEW_AFTER_MS: i64 = 60 * 60 * 1000;
/// Name under which it is kept which leases were seen to spare nothing.
const SEEN: &str = "leases/seen";
/// Leases of which that is remembered, at most; the rest has its turn when those are gone.
const SEEN_MAX: usize = 10_000;

/// The lease of a session that runs.
pub struct HeldLease<'a> {
    vault: &'a Vault,
    session: SessionId,
    operation: &'static str,
    started_ms: i64,
    /// The object in force, and when it was put.
    current: Mutex<Option<(ObjectName, i64)>>,
}

impl<'a> HeldLease<'a> {
    /// Takes a lease. One that cannot be put is warned about.
    #[must_use]
    pub fn take(vault: &'a Vault, session: SessionId, operation: &'static str) -> Self {
        let started_ms = vault.context.clock.now_ms();
        let lease = Self { vault, session, operation, started_ms, current: Mutex::new(None) };
        lease.renew();
        lease
    }

    /// Renews the lease if it is old. To be called now and then while the session is at work.
    pub fn renew(&self) {
        let now_ms = self.vault.context.clock.now_ms();
        let mut current = self.current.lock();
        let age = current.map(|(_, renewed_ms)| now_ms.saturating_sub(renewed_ms));
        if age.is_some_and(|age| (0..RENEW_AFTER_MS).contains(&age)) {
            return;
        }
        match self.put(now_ms) {
            Ok(name) => {
                if let Some((old, _)) = current.replace((name, now_ms)) {
                    self.delete(&old);
                }
            }
            Err(error) => {
                // Tried again when it is due again: a hint is not worth more.
                if let Some((_, renewed_ms)) = current.as_mut() {
                    *renewed_ms = now_ms;
                }
                self.vault.monitor().warn(Remark {
                    code: "lease.put",
                    subject: format!("leases/{}", self.session),
                    message: format!("collections are not told that this runs: {error}"),
                });
            }
        }
    }

    fn put(&self, now_ms: i64) -> Result<ObjectName, Error> {
        let vault = self.vault;
        let lease = Lease {
            session: self.session,
            writer: vault.keys.signer()?.writer_id(),
            host: vault.context.host.clone(),
            pid: std::process::id(),
            operation: self.operation.to_owned(),
            started_ms: self.started_ms,
            renewed_ms: now_ms,
            ttl_ms: LEASE_TTL_MS,
        };
        let object = vault.envelope(Kind::Lease)?.seal_body(&unsigned_body(&lease.encode()))?;
        let hash = ObjectHash::from_bytes(*blake3::hash(&object).as_bytes());
        let name = ObjectName::Lease { session: self.session, hash };
        vault.store.put(&name, &object)?;
        Ok(name)
    }

    /// A key that may not delete leaves it: it runs out by itself.
    fn delete(&self, name: &ObjectName) {
        let _left = self.vault.store.delete(name);
    }

    /// Leaves the lease to whoever ends it by deleting this object, if there is one.
    pub fn leave(self) -> Option<ObjectName> {
        self.current.lock().take().map(|(name, _)| name)
    }

    /// Ends the lease. Without this it runs out by itself, and until then what the session stored
    /// is spared: the next run uses it.
    pub fn end(self) {
        if let Some((name, _)) = self.current.lock().take() {
            self.delete(&name);
        }
    }
}

/// Whether a lease has not run out. One that is dated further ahead than it may hold is by a clock that
/// is wrong: it must not keep what is dead for years.
fn holds(lease: &Lease, now_ms: i64) -> bool {
    let ttl_ms = i64::try_from(lease.ttl_ms.min(LEASE_TTL_MS)).unwrap_or(i64::MAX);
    let runs_out_ms = lease.renewed_ms.saturating_add(ttl_ms);
    runs_out_ms > now_ms && lease.renewed_ms <= now_ms.saturating_add(ttl_ms)
}

/// What the leases say.
#[derive(Debug, Default)]
pub struct Leases {
    /// Sessions whose leases have not run out by this host's clock.
    pub at_work: HashSet<SessionId>,
    /// Leases that spare nothing: they have run out, or cannot be read.
    pub idle: BTreeSet<ObjectName>,
}

/// Reads the leases. Those that cannot be read spare nothing: nothing depends on them.
///
/// # Errors
/// When the store cannot be listed or read.
pub fn look(vault: &Vault) -> Result<Leases, Error> {
    let mut listed = BTreeMap::new();
    vault.store.list(Folder::Leases, &mut |name, bytes| {
        listed.insert(name, bytes);
        Ok(())
    })?;
    let listed = listed.into_iter().collect::<Vec<_>>();
    let now_ms = vault.context.clock.now_ms();
    let mut leases = Leases::default();
    let mut left = listed.as_slice();
    while !left.is_empty() {
        let sizes = left.iter().map(|(_, bytes)| *bytes);
        let (wave, rest) = left.split_at(together::wave(vault.store(), sizes));
        left = rest;
        let read = together::map(vault.store(), wave, |(name, _)| read(vault, name));
        for ((name, _), lease) in wave.iter().zip(read) {
            match lease {
                Ok(lease) if holds(&lease, now_ms) => {
                    leases.at_work.insert(lease.session);
                }
                Ok(_) => {
                    leases.idle.insert(*name);
                }
                Err(Error::Store(StoreError::NotFound { .. })) => {}
                Err(error) if error.is_damage() => {
                    leases.idle.insert(*name);
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(leases)
}

/// Sessions whose leases have not run out by this host's clock.
///
/// # Errors
/// As [`look`].
pub fn sessions_at_work(vault: &Vault) -> Result<HashSet<SessionId>, Error> {
    Ok(look(vault)?.at_work)
}

/// Deletes leases that spare nothing and that this host has seen so for as long as a lease holds:
/// otherwise each session that dies, or may not delete its own, leaves one for ever, and collections
/// read all of them. What is dated by another host's clock alone does not go, and whoever is alive after
/// all puts another lease within the hour. What cannot be deleted is tried again by the next
/// collection; nothing depends on it.
///
/// # Errors
/// Failures of the cache.
pub fn sweep(vault: &Vault, catalog: &Catalog, idle: &BTreeSet<ObjectName>) -> Result<(), Error> {
    let before = catalog.index().meta_get(SEEN)?;
    let before = before.and_then(|bytes| decode_seen(&bytes)).unwrap_or_default();
    let now_ms = vault.context.clock.now_ms();
    let since_ms = |name: &ObjectName| {
        let known_ms = before.get(name).copied().filter(|since_ms| *since_ms <= now_ms);
        known_ms.unwrap_or(now_ms)
    };
    let seen = idle.iter().map(|name| (*name, since_ms(name))).take(SEEN_MAX);
    let seen = seen.collect::<BTreeMap<_, _>>();
    let is_over = |since_ms: i64| now_ms.saturating_sub(since_ms).unsigned_abs() >= LEASE_TTL_MS;
    let over = seen.iter().filter(|(_, since_ms)| is_over(**since_ms));
    let over = over.map(|(name, _)| *name).collect::<Vec<_>>();
    let _left = delete(vault, &over);
    if seen != before {
        // Also what was deleted just now: it may not have been.
        catalog.index().meta_put(SEEN, &encode_seen(&seen))?;
    }
    Ok(())
}

/// Of each lease the bytes of its name as text, and since when it was seen to spare nothing: i64,
/// milliseconds since 1970.
fn encode_seen(seen: &BTreeMap<ObjectName, i64>) -> Vec<u8> {
    let mut out = Writer::new();
    for (name, since_ms) in seen {
        out.str(&name.to_string()).i64(*since_ms);
    }
    out.into_bytes()
}

fn decode_seen(bytes: &[u8]) -> Option<BTreeMap<ObjectName, i64>> {
    let mut fields = Reader::new(bytes, "memo");
    let mut seen = BTreeMap::new();
    while !fields.is_empty() {
        let name = fields.str("memo", OBJECT_NAME_BYTES_MAX).ok()?;
        seen.insert(ObjectName::parse(&name).ok()?, fields.i64().ok()?);
    }
    Some(seen)
}

fn read(vault: &Vault, name: &ObjectName) -> Result<Lease, Error> {
    let object = read_object(vault.store.as_ref(), name, RECORD_BYTES_MAX)?;
    let (header, content) = Opened::open_body(&object, &vault.keys).map_err(Error::sealed(name))?;
    if header.kind != Kind::Lease {
        return Err(Error::Hash { object: name.to_string() });
    }
    let record = open_unsigned_body(&content).map_err(Error::sealed(name))?;
    Lease::decode(record).map_err(Error::format(name))
}
