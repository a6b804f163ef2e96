//! Carries out what was found: copies what is live of packs that go, and condemns these.

use std::collections::{BTreeSet, HashSet};

use cairn_format::ids::PackId;
use cairn_format::names::{ObjectName, PackKind};
use cairn_format::record::TombReason;
use cairn_format::segment::PackSection;

use super::find::{Found, refuse_unlikely};
use super::{Collection, Condemned, GcReport};
use crate::collect::Weakness;
use crate::collect::choose::Candidate;
use crate::collect::confirm::Confirmer;
use crate::collect::copy::Copier;
use crate::collect::mark::Marked;
use crate::collect::survey::Survey;
use crate::collect::sweep::condemn;
use crate::context::{Counter, Remark};
use crate::error::Error;
use crate::index::catalog::Catalog;
use crate::index::local::PackNumber;
impl<'a> Collection<'a, '_> {
    /// Copies what is live of packs that go, and condemns them.
    pub(super) fn condemn(
        &self,
        found: &mut Found<'a>,
        report: &mut GcReport,
    ) -> Result<Condemned, Error> {
        let bytes = found.plan.bytes_copied;
        self.repository.monitor().stage("gc: copying", Some((Counter::BytesFetched, bytes)));
        let mut copier = Copier::new(self.repository, self.catalog, self.session)?;
        let mut retried = HashSet::new();
        let repacked = loop {
            self.confirm(found)?;
            if let Some(repacked) = self.copy(found, &mut copier, &mut retried, report)? {
                break repacked;
            }
            found.choose_again(self.repository, self.catalog, self.options)?;
        };
        let dead = found.chosen.dead.iter().map(|pack| (pack.record.kind, pack.record.id));
        let dead = dead.collect::<BTreeSet<_>>();
        let going = dead.iter().chain(&repacked).map(|(_, id)| *id).collect::<HashSet<_>>();
        let replacements = copier.finish(self.to_be_named(found, &going)?)?;
        (report.packs_written, report.bytes_written) = (copier.packs_written, copier.bytes_written);
        report.chunks_rebased = copier.chunks_rebased;
        let junk = junk(found, self.catalog)?;
        // More may have been chosen since it was asked.
        refuse_unlikely(found, &junk, self.options)?;
        let vault = self.repository.vault();
        condemn(vault, self.session, TombReason::Unreferenced, &dead, &[])?;
        condemn(vault, self.session, TombReason::Repacked, &repacked, &replacements)?;
        // Descriptions of what is lost go with the next segments.
        let lost = found.chosen.lost.iter().copied().collect::<BTreeSet<_>>();
        condemn(
            vault,
            self.session,
            TombReason::Damaged,
            &lost.union(&junk).copied().collect(),
            &[],
        )?;
        Ok([dead, repacked, junk, lost]
            .into_iter()
            .flatten()
            .map(|(kind, id)| (id, kind))
            .collect())
    }

    /// Sees to it that copies of chunks that go are not the only ones that can be read.
    fn confirm(&self, found: &mut Found<'a>) -> Result<(), Error> {
        if self.options.weakness == Some(Weakness::UnreadCopies) {
            return Ok(());
        }
        let mut confirmer = Confirmer::new(self.repository, self.catalog, self.session);
        loop {
            let chosen = found.chosen.dead.iter().chain(&found.chosen.repack);
            let going = chosen.map(|going| (going.number, going.record)).collect::<Vec<_>>();
            if !confirmer.confirm(&going, &mut found.marked)? {
                return Ok(());
            }
            found.choose_again(self.repository, self.catalog, self.options)?;
        }
    }

    /// Copies what is live of packs that go; `None` when one of them turned out to be damaged, and
    /// it has to be chosen anew.
    fn copy(
        &self,
        found: &mut Found<'_>,
        copier: &mut Copier<'_>,
        retried: &mut HashSet<PackNumber>,
        report: &mut GcReport,
    ) -> Result<Option<BTreeSet<(PackKind, PackId)>>, Error> {
        let mut repacked = BTreeSet::new();
        for candidate in &found.chosen.repack {
            self.lease.renew();
            match copier.copy_live(candidate.number, &candidate.record, &mut found.marked) {
                Ok(_) => {
                    repacked.insert((candidate.record.kind, candidate.record.id));
                }
                // It is not condemned, whatever became of it.
                Err(error) if error.has_vanished() => {}
                // The base was collected since the index was looked at: what needs it stands
                // elsewhere then, and that is found when it is chosen again.
                Err(Error::BaseMissing { .. }) if retried.insert(candidate.number) => {
                    self.catalog.sync(self.repository.vault())?;
                    return Ok(None);
                }
                Err(error) if error.is_damage() => {
                    report.damaged.push(self.damaged(candidate, &error));
                    self.catalog.note_verified(&[candidate.record.id], &[])?;
                    found.marked.distrust(candidate.number)?;
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Some(repacked))
    }

    /// Packs that no segment names and that stay: whoever needs them must find them. Sessions at
    /// work name their own, unless somebody needs them already.
    fn to_be_named(
        &self,
        found: &Found<'_>,
        going: &HashSet<PackId>,
    ) -> Result<Vec<PackSection>, Error> {
        let mut named = self.needed(&found.survey, &found.marked)?;
        let known = named.iter().map(|section| section.id).collect::<HashSet<_>>();
        let idle = |pack: &&PackSection| !found.survey.sessions.contains(&pack.session);
        let others = found.survey.adopted.iter().filter(idle);
        named.extend(others.filter(|pack| !known.contains(&pack.id)).cloned());
        named.retain(|pack| !going.contains(&pack.id));
        Ok(named)
    }

    /// Packs that no segment names, and that hold something marked.
    pub(super) fn needed(
        &self,
        seen: &Survey,
        marked: &Marked<'_>,
    ) -> Result<Vec<PackSection>, Error> {
        let mut needed = Vec::new();
        for section in &seen.adopted {
            let number = self.catalog.index().pack_number(&section.id)?;
            if number.is_some_and(|number| marked.live.any(number)) {
                needed.push(section.clone());
            }
        }
        Ok(needed)
    }

    fn damaged(&self, candidate: &Candidate, error: &Error) -> Remark {
        let remark =
            Remark::of(ObjectName::Pack(candidate.record.kind, candidate.record.id), error);
        self.repository.monitor().warn(remark.clone());
        remark
    }
}

/// Packs that no segment names and that cannot be read. They may be what a session at work is storing;
/// and what could not be read once may have been named meanwhile, and be needed.
pub(super) fn junk(
    found: &Found<'_>,
    catalog: &Catalog,
) -> Result<BTreeSet<(PackKind, PackId)>, Error> {
    let mut junk = BTreeSet::new();
    if !found.survey.sessions.is_empty() {
        return Ok(junk);
    }
    for (kind, id) in &found.survey.junk {
        let known = catalog.index().pack_number(id)?.is_some();
        if !known && !found.condemned.contains_key(id) {
            junk.insert((*kind, *id));
        }
    }
    Ok(junk)
}
