//! The look after the tombs: what became needed meanwhile is rescued; the rest is deleted, and seen to
//! be gone.

use std::collections::{BTreeSet, HashSet};
use std::ops::ControlFlow;

use cairn_format::ids::SnapshotId;
use cairn_format::names::ObjectName;
use cairn_format::receipt::AuditMethod;

use super::find::Found;
use super::{Collection, Condemned, GcReport};
use crate::collect::Weakness;
use crate::collect::audit::{self, Disposable};
use crate::collect::confirm::Confirmer;
use crate::collect::copy::Copier;
use crate::collect::mark::{Marked, Thoroughness, is_missing, mark};
use crate::collect::receipt::read_chain;
use crate::collect::survey::{Survey, list, list_snapshots, require_present};
use crate::collect::sweep::{delete, rewrite_segments};
use crate::context::Remark;
use crate::error::Error;
use crate::index::catalog::list_packs;
use crate::ops::snapshots::SnapshotInfo;

/// How often what is needed is looked for again when another collection changes it meanwhile.
const ROUNDS_MAX: usize = 8;

impl Collection<'_, '_> {
    /// Whether something that was condemned unread is named by a segment by now.
    fn condemned_what_is_named(&self, found: &Found<'_>, own: &Condemned) -> Result<bool, Error> {
        for (_, id) in found.survey.junk.iter().filter(|(_, id)| own.contains_key(id)) {
            if self.catalog.index().pack_number(id)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Looks again at everything, rescues what became live, and deletes.
    pub(super) fn sweep(
        &self,
        found: &Found<'_>,
        own: &Condemned,
        report: &mut GcReport,
    ) -> Result<(), Error> {
        let vault = self.repository.vault();
        self.repository.monitor().stage("gc: looking again", None);
        // Tombs first: only what was condemned before snapshots are listed may be deleted.
        self.catalog.sync_keeping(vault)?;
        self.catalog.require_sound_tombs()?;
        let condemned = self.catalog.condemned();
        if self.options.weakness != Some(Weakness::NoResweep) {
            self.rescue(found, own, report)?;
        }
        self.lease.renew();
        self.repository.monitor().stage("gc: deleting", None);
        let present = require_present(self.repository, self.catalog)?;
        let rewritten = rewrite_segments(self.repository, self.catalog, &condemned)?;
        report.segments_written = rewritten.written;
        report.segments_removed = rewritten.removed.len() as u64;
        let mut names = Vec::new();
        for (id, (kind, bytes)) in present.iter().filter(|(id, _)| condemned.contains_key(*id)) {
            names.push(ObjectName::Pack(*kind, *id));
            report.bytes_deleted += bytes;
        }
        report.packs_deleted = names.len() as u64;
        self.note_back(found, &names, report)?;
        delete(vault, &names)?;
        let segments = rewritten.removed.into_iter().map(ObjectName::Index);
        self.prove(names.into_iter().chain(segments).collect(), found, &condemned, report)
    }

    /// Lists snapshots, tombs and the index again, and copies chunks of which every copy is in a
    /// condemned pack.
    fn rescue(
        &self,
        found: &Found<'_>,
        own: &Condemned,
        report: &mut GcReport,
    ) -> Result<(), Error> {
        let mut known = self.catalog.condemned();
        known.retain(|id, _| own.contains_key(id) || found.condemned.contains_key(id));
        let mut last = Error::PlaceStale;
        for _ in 0..ROUNDS_MAX {
            let before = &found.survey.snapshots;
            let snapshots = list_snapshots(self.repository, self.catalog, before)?;
            if self.options.weakness == Some(Weakness::StaleTombs) {
                self.catalog.pretend_condemned(known.clone())?;
            }
            // With the same snapshots and no tombs but its own, nothing can have come to need what
            // was condemned.
            if found.plan.packs_condemned == 0
                && !self.condemned_what_is_named(found, own)?
                && identities(&snapshots) == identities(&found.survey.snapshots)
                && self.catalog.condemned() == known
            {
                return Ok(());
            }
            let mut seen = Survey { snapshots, ..Survey::default() };
            list(self.repository, self.catalog, &mut seen)?;
            let doubtful = &found.marked.doubtful;
            // What the first look has read is not read again.
            let how = Thoroughness::Remembering;
            let mut marked = mark(self.repository, self.catalog, &seen.snapshots, doubtful, how)?;
            marked.follow_bases(true, &HashSet::new())?;
            self.confirm_condemned(&mut marked)?;
            match self.copy_condemned(&seen, &mut marked, report) {
                Ok(()) => return Ok(()),
                // Another collection deleted it, or its base: it has copied what is needed before.
                Err(error) if is_missing(&error) => {
                    self.catalog.sync_keeping(self.repository.vault())?;
                    last = error;
                }
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// Sees to it that what goes with condemned packs can be read elsewhere, or is copied.
    fn confirm_condemned(&self, marked: &mut Marked<'_>) -> Result<(), Error> {
        if self.options.weakness == Some(Weakness::UnreadCopies) {
            return Ok(());
        }
        let condemned = self.catalog.condemned_here();
        let mut going = Vec::new();
        self.catalog.index().for_each_pack(&mut |number, record, _| {
            if condemned.contains(&number) {
                going.push((number, *record));
            }
            ControlFlow::Continue(())
        })?;
        let mut confirmer = Confirmer::new(self.repository, self.catalog, self.session);
        while confirmer.confirm(&going, marked)? {
            marked.follow_bases(true, &HashSet::new())?;
        }
        Ok(())
    }

    fn copy_condemned(
        &self,
        seen: &Survey,
        marked: &mut Marked<'_>,
        report: &mut GcReport,
    ) -> Result<(), Error> {
        for number in marked.live.packs() {
            // A pack that was deleted since it was marked: what was read from it is elsewhere, and
            // has to be found there before the other copies go.
            self.catalog.pack(number)?;
        }
        let condemned = self.catalog.condemned_here();
        let mut packs = Vec::new();
        self.catalog.index().for_each_pack(&mut |number, record, _| {
            if condemned.contains(&number) && marked.live.any(number) {
                packs.push((number, *record));
            }
            ControlFlow::Continue(())
        })?;
        // What is read from packs that no segment names yet: whoever stores them may not live to
        // name them.
        let unnamed = self.needed(seen, marked)?;
        if packs.is_empty() && unnamed.is_empty() {
            return Ok(());
        }
        let mut copier = Copier::new(self.repository, self.catalog, self.session)?;
        for (number, record) in packs {
            self.lease.renew();
            report.chunks_rescued += copier.copy_live(number, &record, marked)?;
        }
        copier.finish(unnamed)?;
        report.packs_written += copier.packs_written;
        report.bytes_written += copier.bytes_written;
        Ok(())
    }

    /// Says of packs that are about to be deleted once more that they were found again.
    fn note_back(
        &self,
        found: &Found<'_>,
        names: &[ObjectName],
        report: &mut GcReport,
    ) -> Result<(), Error> {
        let condemned_before = |name: &ObjectName| match name {
            ObjectName::Pack(_, id) => found.condemned.contains_key(id),
            _ => false,
        };
        if !names.iter().any(condemned_before) {
            return Ok(());
        }
        let vault = self.repository.vault();
        let mut chain = read_chain(vault, Some(self.catalog.index()))?;
        report.reappeared = audit::note_back(vault, &mut chain, names, AuditMethod::ByName)?;
        Ok(())
    }

    /// Of what older versions need not be kept, now that nothing needs what was condemned.
    fn disposable(&self, found: &Found<'_>, condemned: &Condemned) -> Result<Disposable, Error> {
        let snapshots = found.survey.snapshots.iter().map(|snapshot| snapshot.id).collect();
        let condemned = condemned.keys().copied().collect();
        let vault = self.repository.vault();
        Disposable::find(vault, self.catalog, condemned, snapshots, Some(self.session))
    }

    /// Looks twice whether what was deleted is gone, and writes receipts for what is.
    fn prove(
        &self,
        names: Vec<ObjectName>,
        found: &Found<'_>,
        condemned: &Condemned,
        report: &mut GcReport,
    ) -> Result<(), Error> {
        let vault = self.repository.vault();
        self.repository.monitor().stage("gc: proving", None);
        let mut chain = read_chain(vault, Some(self.catalog.index()))?;
        let present = list_packs(vault)?;
        self.catalog.forget_absent(vault, &present)?;
        // What an interrupted collection deleted and did not live to say.
        let unsaid = condemned
            .iter()
            .map(|(id, kind)| (id, ObjectName::Pack(*kind, *id)))
            .filter(|(id, name)| {
                let is_back = chain.seen.get(name).is_some_and(|seen| seen.is_back);
                !present.contains_key(*id) && (is_back || !chain.packs.contains(*id))
            })
            .map(|(_, name)| name);
        let all = names.into_iter().chain(unsaid).collect::<BTreeSet<_>>();
        let now_ms = vault.context.clock.now_ms();
        // A lock that has ended is not why they are kept.
        let disposable = self.disposable(found, condemned)?;
        report.versions_locked_until_ms = audit::purge(vault, &|name| Ok(disposable.has(name)))?
            .all_locked_until_ms()
            .filter(|until_ms| *until_ms > now_ms);
        let look = audit::look(vault, all)?;
        for name in &look.still {
            self.repository.monitor().warn(Remark {
                code: "gc.still_there",
                subject: name.to_string(),
                message: "it was deleted, and the store still has or lists it: no receipt names it until \
                          that ends, which the next collection looks for".to_owned(),
            });
        }
        let packs = look.still.iter().filter(|name| matches!(name, ObjectName::Pack(..))).count();
        report.packs_deleted = report.packs_deleted.saturating_sub(packs as u64);
        report.receipts = audit::write(vault, &mut chain, &look, "gc")?;
        (report.still_there, report.versions_kept) = (look.still, look.kept);
        let audited = audit::audit_again(vault, self.catalog, &mut chain, false)?;
        report.receipts.extend(audited.receipts);
        report.still_there.extend(audited.still_there);
        report.confirmed = audited.confirmed;
        report.reappeared.extend(audited.reappeared);
        Ok(())
    }
}

/// What tells one state of the snapshots from another.
fn identities(snapshots: &[SnapshotInfo]) -> HashSet<(SnapshotId, bool)> {
    snapshots.iter().map(|snapshot| (snapshot.id, snapshot.acknowledged)).collect()
}
