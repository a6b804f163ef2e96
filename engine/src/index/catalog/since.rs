//! What others did to the packs while a session was at work: what it began with, and whether what
//! took the place of condemned packs is really there.

use std::ops::ControlFlow;

use cairn_format::ids::PackId;
use cairn_format::names::ObjectName;
use rayon::prelude::*;

use super::{Catalog, list_packs};
use crate::error::Error;
use crate::index::local::{PackNumber, PackRecord};
use crate::repo::vault::Vault;
use crate::store::StoreError;

/// Packs that are asked for one by one; more are looked for in a list of all.
const ASKED_FOR_MAX: usize = 100;

/// How packs stood when a session began.
#[derive(Clone, Copy, Debug)]
pub struct Before {
    /// How many were condemned.
    condemned: usize,
    /// Packs that became known later have this number or a higher one.
    packs_end: PackNumber,
}

impl Catalog {
    /// How packs stand now.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn standing(&self) -> Result<Before, Error> {
        let packs_end = self.index.next_number()?;
        Ok(Before { condemned: self.condemned_count(), packs_end })
    }

    /// How many packs were condemned since.
    #[must_use]
    pub fn condemned_since(&self, before: &Before) -> usize {
        self.condemned_count().saturating_sub(before.condemned)
    }

    /// Looks whether the packs are there that others have named since, and forgets those that are not:
    /// a store may lose what a collection has copied, and whoever collects finds that out before it
    /// deletes the packs before, which another collection may delete already. True when all are there.
    ///
    /// # Errors
    /// Failures of the store and the cache.
    pub fn forget_lost_since(
        &self,
        vault: &Vault,
        before: &Before,
        own: &[PackId],
    ) -> Result<bool, Error> {
        let mut others = Vec::new();
        self.index.for_each_pack(&mut |number, record, _| {
            if number >= before.packs_end && !own.contains(&record.id) {
                others.push(*record);
            }
            ControlFlow::Continue(())
        })?;
        let lost = lost(vault, others)?;
        for pack in &lost {
            self.index.remove_pack(&pack.id)?;
        }
        Ok(lost.is_empty())
    }
}

fn lost(vault: &Vault, mut packs: Vec<PackRecord>) -> Result<Vec<PackRecord>, Error> {
    if packs.len() > ASKED_FOR_MAX {
        let present = list_packs(vault)?;
        packs.retain(|pack| !present.contains_key(&pack.id));
    }
    let absent = |pack: &PackRecord| match vault.store.size(&ObjectName::Pack(pack.kind, pack.id)) {
        Ok(_) => Ok(false),
        Err(StoreError::NotFound { .. }) => Ok(true),
        Err(error) => Err(Error::from(error)),
    };
    let lost = packs.into_par_iter().map(|pack| Ok(absent(&pack)?.then_some(pack)));
    lost.filter_map(Result::transpose).collect()
}
