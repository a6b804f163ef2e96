//! What is to go, before anything is changed, and what is refused.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use cairn_format::ids::{PackId, SessionId};
use cairn_format::names::PackKind;

use super::{Condemned, GcOptions, GcPlan};
use crate::collect::choose::{Candidate, Chosen, choose};
use crate::collect::due::Past;
use crate::collect::mark::{Marked, Thoroughness, mark};
use crate::collect::memo::Memos;
use crate::collect::survey::{Survey, survey};
use crate::error::Error;
use crate::index::catalog::Catalog;
use crate::repo::Repository;

/// Jobs that a refusal names, at most.
const JOBS_SHOWN_MAX: usize = 5;

/// What was found out before anything is changed.
pub(super) struct Found<'a> {
    pub(super) survey: Survey,
    pub(super) marked: Marked<'a>,
    /// How many packs were in doubt when it was marked.
    doubted: usize,
    pub(super) chosen: Chosen,
    /// Packs that tombs condemned already.
    pub(super) condemned: Condemned,
    /// Packs with lower numbers were there.
    pub(super) packs_below: u32,
    pub(super) plan: GcPlan,
}

/// Finds out what is to go, and the options in force: whether everything has to depends on who is at
/// work.
pub(super) fn find<'a>(
    repository: &'a Repository,
    catalog: &'a Catalog,
    session: SessionId,
    options: &GcOptions,
    past: Option<&Past>,
    now_ms: i64,
) -> Result<(Found<'a>, GcOptions), Error> {
    repository.monitor().stage("gc: looking", None);
    let survey = survey(repository, catalog, session, options.honour_leases)?;
    let options = options.when_due(past, &survey.sessions, now_ms);
    let mut packs_below = 0;
    catalog.index().for_each_pack(&mut |number, _, _| {
        packs_below = number.0.saturating_add(1);
        ControlFlow::Continue(())
    })?;
    repository.monitor().stage("gc: marking", None);
    let how = options.thoroughness();
    let mut marked = mark(repository, catalog, &survey.snapshots, &survey.doubtful, how)?;
    marked.follow_bases(options.keeps_bases(), &survey.sessions)?;
    let memos = Memos::new(repository.vault(), catalog);
    let chosen = choose(catalog, &survey, &marked, &memos, options.max_dead_percent)?;
    let condemned = catalog.condemned();
    let copied = |candidate: &Candidate| {
        u64::from(candidate.record.bytes).saturating_sub(candidate.bytes_dead)
    };
    let plan = GcPlan {
        snapshots: survey.snapshots.len() as u64,
        unacknowledged: survey.snapshots.iter().filter(|s| !s.acknowledged).count() as u64,
        packs_total: chosen.packs,
        bytes_total: chosen.bytes,
        packs_dead: chosen.dead.len() as u64,
        packs_repacked: chosen.repack.len() as u64,
        packs_condemned: survey.present.keys().filter(|id| condemned.contains_key(*id)).count()
            as u64,
        packs_spared: chosen.spared,
        bytes_freed: chosen.bytes_freed(),
        bytes_copied: chosen.repack.iter().map(copied).sum(),
        bytes_left: chosen.bytes_left,
        bytes_held: marked.bytes_held,
        erases: !options.keeps_bases(),
        dead_since_ms: past.map(|past| past.dead_since_ms.unwrap_or(past.last_ms)),
    };
    let doubted = marked.doubtful.len();
    Ok((Found { survey, marked, doubted, chosen, condemned, packs_below, plan }, options))
}

impl<'a> Found<'a> {
    /// Chooses once more after marks were added. What was found damaged since it was marked is
    /// needed from elsewhere from then on, where it stands elsewhere too: it is marked anew.
    pub(super) fn choose_again(
        &mut self,
        repository: &'a Repository,
        catalog: &'a Catalog,
        options: &GcOptions,
    ) -> Result<(), Error> {
        if self.marked.doubtful.len() > self.doubted {
            let (snapshots, doubtful) = (&self.survey.snapshots, &self.marked.doubtful);
            let how = Thoroughness::Remembering;
            self.marked = mark(repository, catalog, snapshots, doubtful, how)?;
            self.doubted = self.marked.doubtful.len();
        }
        self.marked.follow_bases(options.keeps_bases(), &self.survey.sessions)?;
        let memos = Memos::new(repository.vault(), catalog);
        let max_dead_percent = options.max_dead_percent;
        self.chosen = choose(catalog, &self.survey, &self.marked, &memos, max_dead_percent)?;
        Ok(())
    }
}

/// Refuses what is more likely a mistake, or a store that lists nothing, than what is meant. `junk` goes
/// besides what was chosen. To be asked before anything is condemned, and when more is chosen.
pub(super) fn refuse_unlikely(
    found: &Found<'_>,
    junk: &BTreeSet<(PackKind, PackId)>,
    options: &GcOptions,
) -> Result<(), Error> {
    let (survey, chosen) = (&found.survey, &found.chosen);
    let all = options.max_delete_percent >= 100.0;
    if survey.snapshots.is_empty() && chosen.packs > 0 && !all {
        return Err(Error::CollectRefused {
            message: "the store lists no snapshot, so everything would be deleted".to_owned(),
            hint: "check that this is the right place and that it is whole; `--max-delete 100` empties it".to_owned(),
        });
    }
    let bytes_of = |(_, id): &(PackKind, PackId)| survey.present.get(id).map_or(0, |(_, b)| *b);
    let junk_bytes = junk.iter().map(bytes_of).sum::<u64>();
    let bytes_freed = chosen.bytes_freed().saturating_add(junk_bytes);
    let bytes_total = chosen.bytes.saturating_add(junk_bytes);
    let share = bytes_freed as f64 * 100.0 / (bytes_total.max(1)) as f64;
    if share > options.max_delete_percent && !all {
        let jobs = survey.snapshots.iter().map(|one| one.record.job.as_str());
        let jobs = jobs.collect::<BTreeSet<_>>().into_iter().take(JOBS_SHOWN_MAX);
        return Err(Error::CollectRefused {
            message: format!(
                "{share:.0} % of all bytes in packs would be deleted, more than {:.0} %; what stays is \
                 what {} snapshots need, of {}",
                options.max_delete_percent,
                survey.snapshots.len(),
                jobs.collect::<Vec<_>>().join(", ")
            ),
            hint: "`cairn snapshots` shows what is kept; if that is right, raise `--max-delete`"
                .to_owned(),
        });
    }
    Ok(())
}
