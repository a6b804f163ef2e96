//! Which copy of a repository a store holds: every copy has an id of its own (SPEC section 8.7), so
//! that what is remembered of one is never taken for what another holds.

use std::collections::BTreeSet;

use cairn_format::ids::{ObjectHash, ReplicaId, RepositoryId};
use cairn_format::limits::RECORD_BYTES_MAX;
use cairn_format::names::{Folder, ObjectName};
use cairn_format::receipt::Replica;

use super::vault::read_object;
use crate::context::Context;
use crate::error::Error;
use crate::seal::random;
use crate::store::Store;

/// The identities that a copy was given, the one that counts first: the oldest, so that everyone
/// who gave one at the same time ends with the same. Objects that cannot be read, or that are of
/// another repository, are passed over: anyone can put some.
///
/// # Errors
/// Failures of the store.
pub fn list(store: &dyn Store, repository: RepositoryId) -> Result<Vec<ReplicaId>, Error> {
    let mut names = BTreeSet::new();
    store.list(Folder::Replica, &mut |name, _| {
        names.insert(name);
        Ok(())
    })?;
    let mut found = Vec::new();
    for name in names {
        let object = match read_object(store, &name, RECORD_BYTES_MAX) {
            Ok(object) => object,
            Err(error) if error.is_damage() => continue,
            Err(error) => return Err(error),
        };
        match Replica::parse(&object) {
            Ok(replica) if replica.repository == repository => {
                found.push((replica.created_ms, replica.replica));
            }
            _ => {}
        }
    }
    found.sort_unstable();
    Ok(found.into_iter().map(|(_, replica)| replica).collect())
}

/// Gives a copy an identity.
///
/// # Errors
/// Failures of the store; no randomness.
pub fn give(
    store: &dyn Store,
    repository: RepositoryId,
    context: &Context,
) -> Result<ReplicaId, Error> {
    let replica = Replica {
        repository,
        replica: ReplicaId::from_bytes(random::array(context.random.as_ref())?),
        created_ms: context.clock.now_ms(),
        description: None,
    };
    let object = replica.encode();
    let hash = ObjectHash::from_bytes(*blake3::hash(&object).as_bytes());
    store.put(&ObjectName::Replica(hash), &object)?;
    Ok(replica.replica)
}

/// The identity of a copy; it is given one when it has none yet.
///
/// # Errors
/// Failures of the store; no randomness.
pub fn ensure(
    store: &dyn Store,
    repository: RepositoryId,
    context: &Context,
) -> Result<ReplicaId, Error> {
    match list(store, repository)?.into_iter().next() {
        Some(replica) => Ok(replica),
        None => give(store, repository, context),
    }
}
