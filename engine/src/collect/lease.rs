//! Leases: hints that a session is at work, so that a collection beside it spares what it has
//! stored but not yet named in a snapshot. Nothing depends on them for safety: without one, or with
//! clocks that are wrong, a session merely finds its packs condemned and stores them again.

use std::collections::HashSet;

use cairn_format::envelope::Kind;
use cairn_format::ids::{ObjectHash, SessionId};
use cairn_format::limits::RECORD_BYTES_MAX;
use cairn_format::names::{Folder, ObjectName};
use cairn_format::record::Lease;
use parking_lot::Mutex;

use crate::context::Remark;
use crate::error::Error;
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

/// Sessions whose leases have not run out by this host's clock. Leases that cannot be read are
/// passed over: nothing depends on them.
///
/// # Errors
/// When the store cannot be listed or read.
pub fn sessions_at_work(vault: &Vault) -> Result<HashSet<SessionId>, Error> {
    let mut names = Vec::new();
    vault.store.list(Folder::Leases, &mut |name, _| {
        names.push(name);
        Ok(())
    })?;
    let now_ms = vault.context.clock.now_ms();
    let mut found = HashSet::new();
    for lease in together::map(vault.store(), &names, |name| read(vault, name)) {
        match lease {
            Ok(lease) => {
                if holds(&lease, now_ms) {
                    found.insert(lease.session);
                }
            }
            Err(Error::Store(StoreError::NotFound { .. })) => {}
            Err(error) if error.is_damage() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
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
