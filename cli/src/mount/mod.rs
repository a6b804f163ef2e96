//! The engine's view of snapshots as a file system of this machine, through the kernel's FUSE.
//!
//! One thread takes the kernel's requests and hands them to a fixed number of others, which answer
//! them out of the view. It ends when it is unmounted, or when the person asks for that: then it is
//! unmounted here, if need be while programs still use it.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use cairn_engine::ops::browse::{OpenFile, View};
use fuser::{Config, MountOption, Session, SessionACL, SessionUnmounter};

use self::directory::Opening;
use self::requests::Dispatch;

mod directory;
mod error;
mod place;
mod requests;

pub use error::MountError;
pub use place::check;

/// Requests that are answered at once.
const WORKERS: usize = 8;
/// Requests that wait; the kernel keeps those beyond.
const WAITING_MAX: usize = 64;
/// How often it is looked whether it has ended, or shall.
const LOOK: Duration = Duration::from_millis(50);
/// How long after unmounting the kernel is given to let go.
const LET_GO: Duration = Duration::from_secs(2);

/// Who may look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Whoever mounts it.
    Owner,
    /// Everybody, as far as modes and owners in the snapshots allow.
    Everybody,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Somebody unmounted it.
    Unmounted,
    /// The person asked for it; it was unmounted here.
    Asked,
    /// The same, while programs used it.
    AskedInUse,
}

/// What requests are answered from.
struct Scene<'r> {
    view: View<'r>,
    handles: Mutex<HashMap<u64, Handle>>,
    next: AtomicU64,
}

/// What a program has opened.
#[derive(Clone)]
enum Handle {
    File(Arc<OpenFile>),
    Directory(Arc<Mutex<Opening>>),
}

/// A request of the kernel, to be answered by whoever has time; nothing: there are no more.
type Job = Option<Box<dyn for<'s, 'r> FnOnce(&'s Scene<'r>) + Send>>;

impl Scene<'_> {
    fn open(&self, handle: Handle) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.handles).insert(number, handle);
        number
    }

    fn handle(&self, number: u64) -> Option<Handle> {
        lock(&self.handles).get(&number).cloned()
    }

    fn close(&self, number: u64) {
        lock(&self.handles).remove(&number);
    }

    fn work(&self, jobs: &Mutex<Receiver<Job>>) {
        loop {
            let job = lock(jobs).recv();
            match job {
                Ok(Some(job)) => job(self),
                Ok(None) | Err(_) => return,
            }
        }
    }
}

/// Shows the view at a directory until that ends; `mounted` is called when it is there.
///
/// # Errors
/// When it cannot be mounted, or `mounted` fails.
pub fn serve<'r, E: From<MountError> + Send>(
    view: View<'r>,
    directory: &Path,
    access: Access,
    asked: &AtomicBool,
    mounted: impl FnOnce(&View<'_>) -> Result<(), E>,
) -> Result<(Ended, View<'r>), E> {
    let (sender, jobs) = mpsc::sync_channel(WAITING_MAX);
    let scene = Scene { view, handles: Mutex::default(), next: AtomicU64::new(1) };
    let jobs = Mutex::new(jobs);
    let ended = thread::scope(|threads| {
        for _ in 0..WORKERS {
            threads.spawn(|| scene.work(&jobs));
        }
        let ended = run(&sender, directory, access, asked, || mounted(&scene.view));
        for _ in 0..WORKERS {
            // Those that are gone need not be told.
            let _gone = sender.send(None);
        }
        ended
    })?;
    Ok((ended, scene.view))
}

fn run<E: From<MountError>>(
    sender: &SyncSender<Job>,
    directory: &Path,
    access: Access,
    asked: &AtomicBool,
    mounted: impl FnOnce() -> Result<(), E>,
) -> Result<Ended, E> {
    let failed = |error| MountError::of(directory, access, error);
    let dispatch = Dispatch::new(sender.clone());
    let mut session = Session::new(dispatch, directory, &config(access)).map_err(failed)?;
    let mut unmounter = session.unmount_callable();
    let running = thread::Builder::new()
        .name("fuse".into())
        .spawn(move || session.run())
        .map_err(|error| MountError::of(directory, access, error))?;
    if let Err(error) = mounted() {
        unmount(&mut unmounter, directory, &running);
        return Err(error);
    }
    while !running.is_finished() {
        if asked.load(Ordering::Relaxed) {
            return Ok(unmount(&mut unmounter, directory, &running));
        }
        thread::sleep(LOOK);
    }
    Ok(Ended::Unmounted)
}

fn config(access: Access) -> Config {
    let root = rustix::process::geteuid().is_root();
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName("cairn".to_owned()),
        MountOption::RO,
        MountOption::NoSuid,
        MountOption::NoDev,
    ];
    // Whoever has the key may read everything; others what the modes allow them.
    if root || access == Access::Everybody {
        config.mount_options.push(MountOption::DefaultPermissions);
    }
    config.acl = match access {
        Access::Owner => SessionACL::Owner,
        Access::Everybody => SessionACL::All,
    };
    config
}

/// Takes it out of sight, also when programs use it: they get errors when this process ends.
fn unmount(
    unmounter: &mut SessionUnmounter,
    directory: &Path,
    running: &JoinHandle<io::Result<()>>,
) -> Ended {
    if unmounter.unmount().is_err() && !running.is_finished() {
        // In use. What could not be done now is left to `umount`, which the person knows of.
        let _left = place::detach(directory);
    }
    let began = Instant::now();
    while !running.is_finished() {
        if began.elapsed() > LET_GO {
            return Ended::AskedInUse;
        }
        thread::sleep(LOOK);
    }
    Ended::Asked
}

/// A panic of one worker must not end the others.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
