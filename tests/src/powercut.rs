//! A file system whose power can be cut: what no program made durable is lost, in part or wholly,
//! and torn. It lives in this process and is mounted through FUSE, so that any program can use it;
//! with it the real `cairn` is shown to make durable what it reports done.
//!
//! Mounting takes `/dev/fuse` and the right to mount. Where there is none, [`PowerCut::mount`] says
//! why.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use fuser::{BackgroundSession, Config, MountOption};
use parking_lot::Mutex;

use crate::seed::Seed;

mod disk;
mod mounted;

use disk::{Disk, Meta};
use mounted::Mounted;

/// A disk, mounted at a folder.
pub struct PowerCut {
    disk: Arc<Mutex<Disk>>,
    at: PathBuf,
    session: Option<BackgroundSession>,
}

impl PowerCut {
    /// An empty disk, mounted at a folder that is made.
    ///
    /// # Errors
    /// What keeps this process from mounting.
    pub fn mount(at: &Path) -> std::io::Result<Self> {
        std::fs::create_dir_all(at)?;
        let now = SystemTime::now();
        let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let xattrs = std::collections::BTreeMap::new();
        let meta = Meta { mode: 0o755, uid, gid, mtime: now, ctime: now, xattrs };
        let disk = Arc::new(Mutex::new(Disk::new(meta)));
        let mut mounted = Self { disk, at: at.to_owned(), session: None };
        mounted.start()?;
        Ok(mounted)
    }

    /// From now on the disk ignores every `fsync`, as disks that lie do: then a test has to fail.
    pub fn lie(&self) {
        self.disk.lock().lies = true;
    }

    /// How often something was made durable so far.
    #[must_use]
    pub fn fsyncs(&self) -> u64 {
        self.disk.lock().fsyncs
    }

    fn start(&mut self) -> std::io::Result<()> {
        let mut config = Config::default();
        config.mount_options =
            vec![MountOption::FSName("powercut".to_owned()), MountOption::DefaultPermissions];
        let disk = Mounted::new(Arc::clone(&self.disk));
        self.session = Some(fuser::spawn_mount(disk, &self.at, &config)?);
        Ok(())
    }

    /// Cuts the power, and starts again with what is left. No process may use the disk.
    ///
    /// # Panics
    /// When it cannot be unmounted or mounted.
    pub fn cut(&mut self, seed: &mut Seed) {
        if let Some(session) = self.session.take() {
            session.umount_and_join().expect("nobody uses it");
        }
        self.disk.lock().cut(seed);
        self.start().expect("it was mounted before");
    }
}

impl Drop for PowerCut {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            // A test that fails has said why.
            let _unmounted = session.umount_and_join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::disk::{Kind, ROOT};
    use super::*;

    const SEEDS: u64 = 200;

    fn meta() -> Meta {
        let now = SystemTime::UNIX_EPOCH;
        let xattrs = std::collections::BTreeMap::new();
        Meta { mode: 0o644, uid: 0, gid: 0, mtime: now, ctime: now, xattrs }
    }

    /// What a cut leaves of a file that is written under one name and renamed, made durable as
    /// asked: `None` when it is not there.
    fn left(seed: u64, file: bool, folder: bool) -> Option<Vec<u8>> {
        let mut disk = Disk::new(meta());
        let (temp, name) = (OsStr::new("temp"), OsStr::new("name"));
        let inode = disk.make(ROOT, temp, Kind::File, meta(), Vec::new()).unwrap();
        disk.get_mut(inode).unwrap().data = vec![7; 5_000];
        if file {
            disk.fsync(inode).unwrap();
        }
        disk.rename((ROOT, temp), (ROOT, name), true, SystemTime::UNIX_EPOCH).unwrap();
        if folder {
            disk.fsync(ROOT).unwrap();
        }
        disk.cut(&mut Seed::of(seed));
        let inode = disk.lookup(ROOT, name).ok()?;
        Some(disk.get(inode).unwrap().data.clone())
    }

    #[test]
    fn what_was_made_durable_is_there_after_a_cut() {
        for seed in 0..SEEDS {
            assert_eq!(left(seed, true, true), Some(vec![7; 5_000]));
        }
    }

    #[test]
    fn what_was_not_is_lost_now_and_then() {
        let lost =
            |file, folder| (0..SEEDS).filter(move |seed| left(*seed, file, folder).is_none());
        assert!(lost(true, false).count() > 0, "an entry is not durable");
        assert_eq!(lost(false, true).count(), 0);
        let torn = (0..SEEDS).filter_map(|seed| left(seed, false, true));
        let (mut whole, mut empty, mut between) = (0, 0, 0);
        for data in torn {
            match data.iter().filter(|byte| **byte == 7).count() {
                0 => empty += 1,
                5_000 => whole += 1,
                _ => between += 1,
            }
        }
        assert!(whole > 0 && empty > 0 && between > 0, "{whole} {empty} {between}");
    }

    #[test]
    fn a_disk_that_lies_loses_what_was_made_durable() {
        let mut lost = 0;
        for seed in 0..SEEDS {
            let mut disk = Disk::new(meta());
            disk.lies = true;
            disk.make(ROOT, OsStr::new("name"), Kind::File, meta(), Vec::new()).unwrap();
            disk.fsync(ROOT).unwrap();
            disk.cut(&mut Seed::of(seed));
            lost += u64::from(disk.lookup(ROOT, OsStr::new("name")).is_err());
        }
        assert!(lost > 0);
    }
}
