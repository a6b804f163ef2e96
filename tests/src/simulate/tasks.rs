//! What actors do, and which of their failures are right.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

use cairn_engine::collect::Weakness;
use cairn_engine::error::Error;
use cairn_engine::ops::backup::{self, BackupOptions, BackupSource};
use cairn_engine::ops::erase::{self, EraseError, EraseOptions};
use cairn_engine::ops::forget::{self, Choice, ForgetOptions};
use cairn_engine::ops::gc::{self, GcOptions};
use cairn_engine::ops::heal;
use cairn_engine::ops::replicate::{self, Done, Target};
use cairn_engine::ops::snapshots;
use cairn_engine::ops::verify::{self, Level, VerifyOptions};
use cairn_engine::repo::Repository;
use cairn_engine::retention::{Policy, RetentionError, Rule, zone};
use cairn_engine::store::Store;
use cairn_format::ids::SnapshotId;

use crate::service::Profile;

use super::mutant::Mutant;
use super::plan::{ActorPlan, Task, Unwanted, blob, blob_name};
use super::{Known, Scene, Ways};

/// What an error means.
pub(super) enum Verdict {
    /// It is what must happen.
    Right,
    /// The service is the cause: it is tried again.
    Trouble,
    Wrong,
}

impl Scene {
    /// Whether calls of an actor may fail for what the services did, or for damage.
    fn in_trouble(&self, actor: usize) -> bool {
        self.is_harmed() || self.home.troubles(actor) || self.replica.troubles(actor)
    }

    /// Errors that are right; all others are violations.
    pub(super) fn excuse(&self, actor: usize, task: &Task, error: &Error) -> Verdict {
        match (task, error) {
            (Task::Backup { .. }, Error::Condemned { .. })
            | (Task::Replicate, Error::CopyCondemned { .. })
            // Collections that spare nobody took away again and again what it stored.
            | (Task::Erase { .. }, Error::Erase(EraseError::Incomplete { .. })) => {
                self.course.lock().turned_away += 1;
                Verdict::Right
            }
            // The forgetter took it for the oldest as soon as it was acknowledged.
            (Task::Backup { .. }, Error::Retention(RetentionError::Forgotten { .. }))
            // Nothing is left of it, or there never was.
            | (Task::Erase { .. }, Error::Erase(EraseError::NothingMatches { .. }))
            | (Task::Erase { .. } | Task::Forget, Error::NoSnapshot { .. })
            // It was erased from meanwhile, twice at once: whoever forgets is asked which is meant.
            | (Task::Forget, Error::AmbiguousSnapshot { .. })
            // Home has no snapshot at the moment.
            | (Task::Replicate, Error::ReplicateRefused { .. }) => Verdict::Right,
            // Of a backup that died anything may be missing, and nobody can tell what was in it.
            (Task::Erase { .. }, Error::Erase(EraseError::Unreadable { object, .. }))
                if !self.is_acknowledged(object) =>
            {
                Verdict::Right
            }
            // An erasure has removed the record, and not yet the acknowledgement that came late.
            (_, Error::LivenessUnknown { object, .. }) if self.is_given_up(object) => {
                Verdict::Trouble
            }
            _ if self.in_trouble(actor) => Verdict::Trouble,
            _ => Verdict::Wrong,
        }
    }

    fn is_given_up(&self, object: &str) -> bool {
        self.given_up.lock().iter().any(|id| object.contains(&id.to_hex()))
    }

    fn is_acknowledged(&self, object: &str) -> bool {
        self.home.acknowledged().iter().any(|id| object.contains(&id.to_hex()))
    }

    pub(super) fn perform(
        &self,
        repository: &mut Repository,
        task: &Task,
        actor: &ActorPlan,
        ways: &Ways,
    ) -> Result<(), Error> {
        match task {
            Task::Backup { tag, blobs, stream } => self.back_up(repository, tag, blobs, *stream),
            Task::Gc { max_dead, leases } => self.collect(repository, *max_dead, *leases),
            Task::Forget => {
                self.tamper_with_a_pack();
                self.forget_oldest(repository)
            }
            Task::Read { around } => {
                if *around && !self.is(Mutant::ReadsNotAround) {
                    Self::stand_in(repository, self.way(actor, &ways.replica))?;
                }
                self.read_all(repository, *around)
            }
            Task::Erase { what, collect } => self.erase(repository, *what, *collect),
            Task::Replicate => self.replicate(repository, self.way(actor, &ways.replica)),
            Task::Harm { at, harm, nth } => {
                ways.home.between("harm", || self.harm(*at, *harm, *nth));
                Ok(())
            }
            Task::Heal => self.heal(repository, self.way(actor, &ways.replica)),
        }
    }

    fn weakness(&self) -> Option<Weakness> {
        match self.trial.mutant {
            Some(Mutant::Protocol(weakness)) => Some(weakness),
            _ => None,
        }
    }

    fn collect(&self, repository: &Repository, max_dead: f64, leases: bool) -> Result<(), Error> {
        let options = GcOptions {
            max_dead_percent: max_dead,
            max_delete_percent: 100.0,
            honour_leases: leases,
            weakness: self.weakness(),
            ..GcOptions::default()
        };
        let report = gc::run(repository, &options)?;
        let mut course = self.course.lock();
        course.rescued += report.chunks_rescued;
        course.rebased += report.chunks_rebased;
        course.deleted += report.packs_deleted;
        drop(course);
        // What a listing goes on to show has no receipt yet.
        let shown = self.home.service.profile() == Profile::Lingering;
        let odd = !(report.still_there.is_empty() || shown) || !report.damaged.is_empty();
        let quiet = [&self.home, &self.replica].iter().all(|site| {
            let toll = site.service.toll();
            toll.of_actor.is_empty() && toll.late == 0
        });
        if odd && quiet && !self.is_harmed() {
            self.violation(format!("a collection reports {report:?}"));
        }
        Ok(())
    }

    pub(super) fn back_up(
        &self,
        repository: &Repository,
        tag: &str,
        blobs: &BTreeSet<u64>,
        stream: bool,
    ) -> Result<(), Error> {
        let files = blobs.iter().map(|number| (blob_name(*number), blob(*number)));
        let files = files.collect::<BTreeMap<_, _>>();
        // One folder and job for each writer, so that files are recognised the next time.
        let job = tag.rsplit_once('-').map_or(tag, |(writer, _)| writer);
        let sources = if stream {
            let streams = files.iter().map(|(name, content)| BackupSource::Stream {
                name: name.clone(),
                reader: Box::new(Cursor::new(content.clone())),
            });
            streams.collect()
        } else {
            let folder = self.folder.join(job);
            write_files(&folder, &files);
            vec![BackupSource::Path(folder)]
        };
        self.expected.lock().insert(tag.to_owned(), files);
        let mut options = BackupOptions::new(job, sources);
        options.tags = vec![tag.to_owned()];
        options.weakness = self.weakness();
        let report = backup::run(repository, options)?;
        if let Some(snapshot) = report.snapshot {
            self.know(&snapshot);
            self.acknowledged.lock().insert(snapshot.id);
            self.home.reported.lock().insert(snapshot.id, tag.to_owned());
        }
        let mut course = self.course.lock();
        course.repaired += report.chunks_repaired;
        course.repeats += report.repeats;
        course.deltas += report.deltas.chunks;
        Ok(())
    }

    fn erase(&self, repository: &Repository, what: Unwanted, collect: bool) -> Result<(), Error> {
        let mut options =
            EraseOptions { collect, max_delete_percent: 100.0, ..EraseOptions::default() };
        let before = self.home.snapshots();
        match what {
            Unwanted::Latest => options.snapshots = vec!["latest".to_owned()],
            Unwanted::Blob(number) => {
                let name = blob_name(number);
                options.paths = vec![format!("**/{name}").into_bytes()];
                self.erasing.lock().insert(name);
            }
        }
        if let (Unwanted::Blob(number), true) = (what, self.is(Mutant::ErasesNothing)) {
            self.erased.lock().push((blob_name(number), before));
            return Ok(());
        }
        let plan = erase::plan(repository, &options, None)?;
        if matches!(what, Unwanted::Latest) {
            for planned in &plan.snapshots {
                self.know(&planned.snapshot);
                self.give_up(planned.snapshot.id);
            }
        }
        let report = erase::run(repository, &options, plan)?;
        self.tamper_with_erased(&report);
        for erased in &report.snapshots {
            let tag = self.known.lock().get(&erased.id).map(|known| known.tag.clone());
            // What was never acknowledged does not count, whatever it becomes.
            if let (Some(becomes), Some(tag)) = (erased.becomes, tag)
                && self.acknowledged.lock().contains(&becomes)
            {
                self.home.reported.lock().insert(becomes, tag);
            }
        }
        let mut course = self.course.lock();
        course.erased += report.snapshots.len() as u64;
        drop(course);
        let complete = report.waiting.is_empty() && report.records_kept.is_empty();
        if let Unwanted::Blob(number) = what
            && complete
        {
            self.erased.lock().push((blob_name(number), before));
        }
        report.uncollected.map_or(Ok(()), Err)
    }

    /// The replica, with its rules.
    pub(super) fn target(&self, store: Arc<dyn Store>) -> Target {
        let mut target = Target::new("replica", store);
        target.max_delete_percent = 100.0;
        target.trust_clock = true;
        target.forget_missing = !self.home.unsaid.lock().is_empty();
        if self.is(Mutant::HastyReplication) {
            target.weakness = Some(Weakness::Precheck);
        }
        target.rules = self.plan.keep.map(|keep| {
            let zone = zone("UTC").expect("known everywhere");
            Policy::new(vec![Rule::Last(keep)], zone).expect("a rule")
        });
        target
    }

    pub(super) fn replicate(&self, home: &Repository, store: Arc<dyn Store>) -> Result<(), Error> {
        if self.is(Mutant::ForgetsOnReplica) && self.replica.is_there() {
            return self.forget_on_replica(store.as_ref()).map_err(Error::from);
        }
        let report = replicate::run(home, &[self.target(store)], false)?;
        for outcome in report.replicas {
            let done: Done = outcome.done?;
            if !done.damaged.is_empty() && self.strikes() == 0 && !self.is_harmed() {
                self.violation(format!("a replication reports {:?}", done.damaged));
            }
            self.course.lock().copied += done.copied.len() as u64;
            for id in done.copied {
                let tag = self.known.lock().get(&id).map(|known| known.tag.clone());
                self.replica.reported.lock().insert(id, tag.unwrap_or_default());
            }
        }
        Ok(())
    }

    fn heal(&self, home: &mut Repository, replica: Arc<dyn Store>) -> Result<(), Error> {
        if !Self::stand_in(home, replica)? {
            return Ok(());
        }
        verify::run(home, &VerifyOptions { level: Level::Full })?;
        if self.is(Mutant::HealsNothing) {
            return self.condemn_damaged(home);
        }
        if self.is(Mutant::HealsWrongly) {
            return self.put_wrong_bytes(home);
        }
        let report = heal::run(home, false)?;
        self.course.lock().healed += report.packs + report.chunks + report.snapshots.len() as u64;
        Ok(())
    }

    /// Forgets the oldest acknowledged snapshot, also the last of its job.
    fn forget_oldest(&self, repository: &Repository) -> Result<(), Error> {
        let (listed, _) = snapshots::list_all(repository)?;
        let acknowledged = listed.into_iter().filter(|snapshot| snapshot.acknowledged);
        let oldest = acknowledged.min_by_key(|snapshot| (snapshot.name_time_ms, snapshot.id));
        let Some(oldest) = oldest else { return Ok(()) };
        self.know(&oldest);
        self.give_up(oldest.id);
        let named = Choice::Named(vec![oldest.id.to_hex()]);
        let options = ForgetOptions { remove_last: true, ..ForgetOptions::new(named) };
        let plan = forget::plan(repository, &options)?;
        forget::run(repository, &plan)?;
        Ok(())
    }

    /// Takes note of what a snapshot is.
    pub(super) fn know(&self, snapshot: &snapshots::SnapshotInfo) {
        let tag = snapshot.record.tags.first().cloned().unwrap_or_default();
        let job = snapshot.record.job.clone();
        let first = snapshot.former().first().copied().unwrap_or(snapshot.id);
        self.known.lock().insert(snapshot.id, Known { tag, job, first });
    }

    /// A snapshot, and all that erasures made of it, need not be there any more.
    pub(super) fn give_up(&self, snapshot: SnapshotId) {
        let first = self.first(snapshot);
        self.given_up.lock().insert(first);
    }

    /// What a snapshot was before any erasure.
    pub(super) fn first(&self, snapshot: SnapshotId) -> SnapshotId {
        self.known.lock().get(&snapshot).map_or(snapshot, |known| known.first)
    }
}

fn write_files(folder: &Path, files: &BTreeMap<String, Vec<u8>>) {
    std::fs::create_dir_all(folder).expect("a folder");
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let entry = entry.expect("an entry");
        if !files.contains_key(&entry.file_name().to_string_lossy().into_owned()) {
            std::fs::remove_file(entry.path()).expect("a file is removed");
        }
    }
    for (name, content) in files {
        let path = folder.join(name);
        // What is there already has the same content: it stays as it is, and is recognised.
        if !path.exists() {
            std::fs::write(&path, content).expect("a file");
            crate::tree::age(&path);
        }
    }
    crate::tree::age(folder);
}
