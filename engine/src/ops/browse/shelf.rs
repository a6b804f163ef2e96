//! Which snapshots are shown, and under which names. The list is brought up to date when it is looked
//! at, at most once in a while.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use cairn_format::ids::SnapshotId;
use cairn_format::node::is_name;
use jiff::Timestamp;
use parking_lot::{Mutex, RwLock};

use super::attributes::Kind;
use super::inodes::{Folder, Key, Place};
use super::{Listed, ViewOptions, What};
use crate::context::Remark;
use crate::error::Error;
use crate::ops::snapshots::{self, SnapshotInfo};
use crate::repo::Repository;

/// The list is read anew when it is looked at and older than this, milliseconds.
const FRESH_MS: i64 = 60_000;
/// Name of the link to the newest snapshot.
const LATEST: &str = "latest";
/// Names of the directories at the top.
const SNAPSHOTS: &str = "snapshots";
const JOBS: &str = "jobs";
/// Digits of an id in the name of a snapshot.
const ID_DIGITS: usize = 8;

/// A snapshot that is shown.
pub(super) struct Shown {
    pub(super) info: SnapshotInfo,
    /// Its name among the snapshots.
    pub(super) name: String,
    pub(super) key: Key,
}

/// The snapshots that are shown at one time.
pub(super) struct Shelves {
    /// Oldest first.
    all: Vec<Arc<Shown>>,
    /// Of each job, by the name of its directory.
    jobs: BTreeMap<Arc<str>, Vec<Arc<Shown>>>,
    /// Where links lead to.
    targets: HashMap<u64, String>,
}

/// The list, and how it is made.
pub(super) struct Shelf<'r> {
    repository: &'r Repository,
    options: ViewOptions,
    /// The one that the selector named.
    only: Option<SnapshotId>,
    current: RwLock<Arc<Shelves>>,
    /// Held while the list is read.
    read: Mutex<Read>,
}

/// What was read last, also of what is not shown: records are read once.
struct Read {
    at_ms: i64,
    all: Vec<SnapshotInfo>,
}

impl<'r> Shelf<'r> {
    pub(super) fn open(repository: &'r Repository, options: ViewOptions) -> Result<Self, Error> {
        let at_ms = repository.context.clock.now_ms();
        let all = snapshots::list(repository)?;
        let only = match &options.snapshot {
            Some(selector) => Some(snapshots::select_from(all.clone(), selector)?.id),
            None => None,
        };
        let shelf = Self {
            repository,
            options,
            only,
            current: RwLock::new(Arc::new(Shelves::new(Vec::new()))),
            read: Mutex::new(Read { at_ms, all: all.clone() }),
        };
        shelf.show(all);
        Ok(shelf)
    }

    /// Those that are shown.
    pub(super) fn current(&self) -> Arc<Shelves> {
        Arc::clone(&self.current.read())
    }

    /// Those that are there, as of less than a while ago. Nobody waits for somebody else who looks.
    pub(super) fn recent(&self) -> Arc<Shelves> {
        if let Some(mut read) = self.read.try_lock() {
            let now_ms = self.repository.context.clock.now_ms();
            // Also when the clock was set back.
            if !(0..FRESH_MS).contains(&now_ms.saturating_sub(read.at_ms)) {
                read.at_ms = now_ms;
                self.read_again(&mut read);
            }
        }
        self.current()
    }

    fn read_again(&self, read: &mut Read) {
        match snapshots::list_known(self.repository, &read.all) {
            Ok(listed) => {
                read.all.clone_from(&listed.found);
                self.show(listed.found);
            }
            Err(error) => {
                let subject = self.repository.store().location();
                let mut remark = Remark::of(subject, &error);
                remark.message = format!("snapshots are shown as they were: {}", remark.message);
                self.repository.monitor().warn(remark);
            }
        }
    }

    /// Shows those of all snapshots that are wanted.
    fn show(&self, mut all: Vec<SnapshotInfo>) {
        let options = &self.options;
        all.retain(|one| {
            self.only.is_none_or(|only| one.id == only)
                && options.job.as_ref().is_none_or(|job| one.record.job == *job)
                && options.tags.iter().all(|tag| one.record.tags.contains(tag))
        });
        let shelves = Arc::new(Shelves::new(all));
        *self.current.write() = shelves;
    }
}

impl Shelves {
    /// Snapshots, oldest first.
    fn new(all: Vec<SnapshotInfo>) -> Self {
        let mut times = HashMap::<String, usize>::new();
        for info in &all {
            *times.entry(usual_name(info)).or_default() += 1;
        }
        let mut shelves = Self { all: Vec::new(), jobs: BTreeMap::new(), targets: HashMap::new() };
        for info in all {
            let mut name = usual_name(&info);
            if times.get(&name).is_some_and(|count| *count > 1) {
                name = format!("{}-{}", time(&info), info.id.to_hex());
            }
            let key = Key::snapshot(info.id.as_bytes());
            let job = Arc::from(job_name(&info.record.job));
            let shown = Arc::new(Shown { info, name, key });
            shelves.jobs.entry(job).or_default().push(Arc::clone(&shown));
            shelves.all.push(shown);
        }
        // Times in names have whole seconds.
        shelves.all.sort_by(|a, b| a.name.cmp(&b.name));
        if let Some(newest) = shelves.newest(&shelves.all) {
            let target = format!("{SNAPSHOTS}/{}", newest.name);
            shelves.targets.insert(Key::ROOT.top(LATEST.as_bytes()).number, target);
        }
        for (job, shown) in &shelves.jobs {
            let above = job_key(job);
            for one in shown {
                let target = format!("../../{SNAPSHOTS}/{}", one.name);
                shelves.targets.insert(above.top(one.name.as_bytes()).number, target);
            }
            if let Some(newest) = shelves.newest(shown) {
                let key = above.top(LATEST.as_bytes());
                shelves.targets.insert(key.number, newest.name.clone());
            }
        }
        shelves
    }

    /// The one that `latest` means elsewhere.
    fn newest<'s>(&self, shown: &'s [Arc<Shown>]) -> Option<&'s Arc<Shown>> {
        shown
            .iter()
            .max_by_key(|one| (one.info.record.started_ms, one.info.name_time_ms, one.info.id))
    }

    pub(super) fn all(&self) -> &[Arc<Shown>] {
        &self.all
    }

    /// Where a link leads to.
    pub(super) fn target(&self, key: Key) -> Option<Vec<u8>> {
        self.targets.get(&key.number).map(|target| target.clone().into_bytes())
    }

    /// The time of the newest snapshot of a job, or of all; milliseconds since 1970.
    pub(super) fn time_ms(&self, job: Option<&str>) -> i64 {
        let shown = job.map_or(self.all.as_slice(), |job| {
            self.jobs.get(job).map(Vec::as_slice).unwrap_or_default()
        });
        self.newest(shown).map_or(0, |one| time_ms(&one.info))
    }

    /// The entries of a directory that is in no snapshot.
    pub(super) fn entries(&self, place: &Place) -> Vec<Listed> {
        let mut found = Vec::new();
        let mut add = |name: &str, kind, place| {
            let next = found.len() as u64 + 1;
            found.push(Listed { name: name.into(), kind, next, what: What::Top(place) });
        };
        let directory = Kind::Directory;
        match place {
            Place::Root => {
                add(JOBS, directory, Place::Jobs(Key::ROOT.top(JOBS.as_bytes())));
                if !self.all.is_empty() {
                    let key = Key::ROOT.top(LATEST.as_bytes());
                    add(LATEST, Kind::Symlink, Place::Link { key });
                }
                add(SNAPSHOTS, directory, Place::Snapshots(Key::ROOT.top(SNAPSHOTS.as_bytes())));
            }
            Place::Snapshots(_) => {
                for one in &self.all {
                    add(&one.name, directory, first_place(one));
                }
            }
            Place::Jobs(_) => {
                for job in self.jobs.keys() {
                    add(job, directory, Place::Job(job_key(job), Arc::clone(job)));
                }
            }
            Place::Job(above, job) => {
                for one in self.jobs.get(job).into_iter().flatten() {
                    let key = above.top(one.name.as_bytes());
                    add(&one.name, Kind::Symlink, Place::Link { key });
                }
                if self.jobs.contains_key(job) {
                    let key = above.top(LATEST.as_bytes());
                    add(LATEST, Kind::Symlink, Place::Link { key });
                }
            }
            Place::Link { .. } | Place::Tree { .. } => {}
        }
        found
    }
}

fn job_key(job: &str) -> Key {
    Key::ROOT.top(JOBS.as_bytes()).top(job.as_bytes())
}

/// The first directory of a snapshot.
fn first_place(shown: &Arc<Shown>) -> Place {
    Place::Tree {
        key: shown.key,
        above: None,
        name: shown.name.as_bytes().into(),
        folder: Some(Arc::new(Folder::first(shown))),
    }
}

/// The time a snapshot is known by, in UTC. No colons: programs that copy take what is before one for
/// a host.
fn time(info: &SnapshotInfo) -> String {
    let last = Timestamp::MAX.as_millisecond();
    let time = Timestamp::from_millisecond(time_ms(info).min(last)).unwrap_or_default();
    time.strftime("%Y-%m-%dT%H-%M-%SZ").to_string()
}

/// The time a snapshot is known by, milliseconds since 1970.
pub(super) fn time_ms(info: &SnapshotInfo) -> i64 {
    i64::try_from(info.name_time_ms).unwrap_or(i64::MAX)
}

fn usual_name(info: &SnapshotInfo) -> String {
    let id = info.id.to_hex();
    format!("{}-{}", time(info), id.get(..ID_DIGITS).unwrap_or(&id))
}

/// The name of a job's directory: the job's, but for what no name can hold.
fn job_name(job: &str) -> String {
    let name = job.replace('%', "%25").replace('/', "%2F").replace('\0', "%00");
    if is_name(name.as_bytes()) {
        return name;
    }
    if name.is_empty() { "%".to_owned() } else { name.replace('.', "%2E") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_have_names_that_differ_and_lead_nowhere() {
        let jobs = ["", ".", "..", "%", "a/b", "a%2Fb", "/", "\0", "latest", "plain", "..."];
        let names = jobs.map(job_name);
        assert!(names.iter().all(|name| is_name(name.as_bytes())), "{names:?}");
        let distinct = names.iter().collect::<std::collections::BTreeSet<_>>();
        assert_eq!(distinct.len(), jobs.len(), "{names:?}");
        assert_eq!(job_name("plain"), "plain");
    }
}
