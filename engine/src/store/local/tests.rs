//! The local store on a disk that fills up, fails, dies, or holds what it should not.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, FileType, Mode};

use super::*;
use crate::error::{Class, Explain};
use crate::store::tests::pack;

/// Bytes of one object: several writes of [`FaultDisk`].
const DATA: [u8; 5000] = [7; 5000];
/// Most bytes [`FaultDisk`] writes at once.
const WRITE_BYTES_MAX: usize = 2000;

/// A disk that fails as told.
#[derive(Debug, Default)]
struct FaultDisk {
    /// Calls made, oldest first.
    log: Mutex<Vec<&'static str>>,
    /// These calls fail from their n-th on (from 0), that many times.
    failing: Vec<(&'static str, usize, usize, Errno)>,
    /// From this call on, counted over all kinds, nothing has an effect any more.
    dead_from: Option<usize>,
    /// A bad sector: where it begins in every file, and what reading there answers.
    bad_from: Option<(u64, Errno)>,
}

impl FaultDisk {
    fn failing(call: &'static str, from: usize, times: usize, errno: Errno) -> Self {
        Self { failing: vec![(call, from, times, errno)], ..Self::default() }
    }

    fn strike(&self, call: &'static str) -> rustix::io::Result<()> {
        let mut log = self.log.lock();
        let nth = log.iter().filter(|other| **other == call).count();
        let dead = self.dead_from.is_some_and(|from| log.len() >= from);
        log.push(call);
        if dead {
            return Err(Errno::IO);
        }
        let rule = self
            .failing
            .iter()
            .find(|(of, from, times, _)| *of == call && (*from..from + times).contains(&nth));
        rule.map_or(Ok(()), |(_, _, _, errno)| Err(*errno))
    }
}

impl Disk for std::sync::Arc<FaultDisk> {
    fn read_at(
        &self,
        file: BorrowedFd<'_>,
        bytes: &mut Vec<u8>,
        offset: u64,
    ) -> rustix::io::Result<usize> {
        let Some((bad_from, errno)) = self.bad_from else {
            return Kernel.read_at(file, bytes, offset);
        };
        // What comes before it is read, as kernels do.
        let before = usize::try_from(bad_from.saturating_sub(offset)).unwrap();
        let mut read = Vec::with_capacity(before.min(bytes.capacity() - bytes.len()));
        match Kernel.read_at(file, &mut read, offset)? {
            0 if offset >= bad_from => Err(errno),
            count => {
                bytes.extend_from_slice(&read);
                Ok(count)
            }
        }
    }
    fn create(&self, folder: BorrowedFd<'_>, name: &str) -> rustix::io::Result<OwnedFd> {
        self.strike("create")?;
        Kernel.create(folder, name)
    }
    fn write(&self, file: BorrowedFd<'_>, data: &[u8]) -> rustix::io::Result<usize> {
        self.strike("write")?;
        Kernel.write(file, &data[..data.len().min(WRITE_BYTES_MAX)])
    }
    fn finish(&self, file: BorrowedFd<'_>) -> rustix::io::Result<()> {
        self.strike("finish")?;
        Kernel.finish(file)
    }
    fn fsync(&self, file: BorrowedFd<'_>) -> rustix::io::Result<()> {
        self.strike("fsync")?;
        Kernel.fsync(file)
    }
    fn rename_new(
        &self,
        from: (BorrowedFd<'_>, &str),
        to: (BorrowedFd<'_>, &str),
    ) -> rustix::io::Result<()> {
        self.strike("rename_new")?;
        Kernel.rename_new(from, to)
    }
    fn link(
        &self,
        from: (BorrowedFd<'_>, &str),
        to: (BorrowedFd<'_>, &str),
    ) -> rustix::io::Result<()> {
        self.strike("link")?;
        Kernel.link(from, to)
    }
    fn rename(
        &self,
        from: (BorrowedFd<'_>, &str),
        to: (BorrowedFd<'_>, &str),
    ) -> rustix::io::Result<()> {
        self.strike("rename")?;
        // Time for others to look whether the name is free, unless a lock keeps them out.
        std::thread::sleep(std::time::Duration::from_millis(2));
        Kernel.rename(from, to)
    }
    fn unlink(&self, folder: BorrowedFd<'_>, name: &str) -> rustix::io::Result<()> {
        self.strike("unlink")?;
        Kernel.unlink(folder, name)
    }
    fn create_folder(&self, folder: BorrowedFd<'_>, name: &str) -> rustix::io::Result<()> {
        self.strike("create_folder")?;
        Kernel.create_folder(folder, name)
    }
}

fn on_disk(path: &Path, disk: FaultDisk) -> (LocalStore, std::sync::Arc<FaultDisk>) {
    let disk = std::sync::Arc::new(disk);
    (LocalStore::attach(path, Box::new(disk.clone())).unwrap(), disk)
}

fn unfinished(path: &Path) -> usize {
    std::fs::read_dir(path.join("tmp")).map_or(0, Iterator::count)
}

#[test]
fn killed_at_any_call_a_put_leaves_all_or_nothing() {
    let name = pack(&DATA);
    let mut finished = false;
    for dead_from in 0..64 {
        let folder = tempfile::tempdir().unwrap();
        let disk = FaultDisk { dead_from: Some(dead_from), ..FaultDisk::default() };
        let (store, disk) = on_disk(folder.path(), disk);
        let result = store.put(&name, &DATA);
        drop(store);
        finished = disk.log.lock().len() <= dead_from;
        assert_eq!(result.is_ok(), finished, "killed at call {dead_from}");

        let store = LocalStore::create(folder.path()).unwrap();
        match store.get(&name, u64::MAX) {
            Ok(data) => assert_eq!(data, &DATA[..], "killed at call {dead_from}"),
            Err(error) => assert!(matches!(error, StoreError::NotFound { .. }), "{error:?}"),
        }
        store.sweep_temp().unwrap();
        assert_eq!(unfinished(folder.path()), 0);
        store.put(&name, &DATA).unwrap();
        assert_eq!(store.get(&name, u64::MAX).unwrap(), &DATA[..]);
        if finished {
            break;
        }
    }
    assert!(finished, "a put has fewer calls than that");
}

#[test]
fn what_is_reported_written_was_made_durable_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let name = pack(&DATA);
    let (store, disk) = on_disk(folder.path(), FaultDisk::default());
    store.put(&name, &DATA).unwrap();
    let log = std::mem::take(&mut *disk.log.lock());
    // The root, packs and packs/data get a folder each; tmp is one more of the root's.
    let expected = "create_folder fsync create_folder fsync create_folder fsync \
                    create_folder fsync \
                    create write write write finish fsync rename_new fsync";
    assert_eq!(log.join(" "), expected.split_whitespace().collect::<Vec<_>>().join(" "));
    // What somebody else wrote is made durable before it is called there, with its folders.
    let (store, disk) = on_disk(folder.path(), FaultDisk::default());
    assert_eq!(store.put(&name, &DATA).unwrap(), Put::AlreadyThere);
    assert_eq!(*disk.log.lock(), ["fsync"; 5]);
    disk.log.lock().clear();
    store.delete(&name).unwrap();
    assert_eq!(*disk.log.lock(), ["unlink", "fsync"]);
}

#[test]
fn a_full_disk_is_named_and_leaves_nothing_behind() {
    for errno in [Errno::NOSPC, Errno::DQUOT, Errno::FBIG] {
        for (call, nth) in
            [("write", 0), ("write", 2), ("create", 0), ("create_folder", 1), ("rename_new", 0)]
        {
            let folder = tempfile::tempdir().unwrap();
            let (store, _) = on_disk(folder.path(), FaultDisk::failing(call, nth, 1, errno));
            let name = pack(&DATA);
            let error = store.put(&name, &DATA).unwrap_err();
            assert!(matches!(error, StoreError::Full { .. }), "{call}: {error:?}");
            assert!(error.to_string().contains(&name.to_string()), "{error}");
            assert_eq!(error.class(), Class::Failed);
            assert!(!error.is_transient() && error.hint().is_some());
            assert_eq!(unfinished(folder.path()), 0);
            assert!(matches!(store.size(&name), Err(StoreError::NotFound { .. })));
            // Once there is room again, the same store goes on.
            assert_eq!(store.put(&name, &DATA).unwrap(), Put::Written);
        }
    }
}

#[test]
fn after_a_failed_fsync_nothing_is_written_any_more() {
    let name = pack(&DATA);
    // Of the chain of folders, of tmp, of the file, of its folder.
    for nth in 0..6 {
        let folder = tempfile::tempdir().unwrap();
        let (store, disk) = on_disk(folder.path(), FaultDisk::failing("fsync", nth, 1, Errno::IO));
        let error = store.put(&name, &DATA).unwrap_err();
        assert!(matches!(error, StoreError::FsyncFailed { .. }), "{error:?}");
        assert!(!error.is_transient());
        assert_eq!(unfinished(folder.path()), 0);
        let calls = disk.log.lock().len();
        // The disk works again, and that proves nothing.
        for error in [
            store.put(&name, &DATA).unwrap_err(),
            store.put(&pack(b"x"), b"x").unwrap_err(),
            store.delete(&name).unwrap_err(),
        ] {
            assert!(matches!(error, StoreError::FsyncFailed { .. }), "{error:?}");
        }
        assert_eq!(disk.log.lock().len(), calls);
        assert!(matches!(store.get(&pack(b"x"), 1), Err(StoreError::NotFound { .. })));
    }
}

#[test]
fn what_the_medium_does_not_give_is_damage_and_is_replaced() {
    for errno in [Errno::IO, Errno::NODATA, Errno::UCLEAN, Errno::BADMSG] {
        let folder = tempfile::tempdir().unwrap();
        let name = pack(&DATA);
        LocalStore::create(folder.path()).unwrap().put(&name, &DATA).unwrap();
        let disk = FaultDisk { bad_from: Some((4096, errno)), ..FaultDisk::default() };
        let (store, disk) = on_disk(folder.path(), disk);
        let whole = store.get(&name, u64::MAX).map(drop);
        for error in [whole, store.get_range(&name, 4000, 200).map(drop)].map(Result::unwrap_err) {
            assert!(matches!(error, StoreError::Unreadable { .. }), "{errno}: {error:?}");
            assert_eq!((error.class(), error.code()), (Class::Damage, "store.unreadable"));
            assert!(!error.is_transient() && error.hint().is_some());
            assert!(error.to_string().contains(&name.to_string()), "{error}");
        }
        assert_eq!(store.get_range(&name, 0, 4096).unwrap(), &DATA[..4096]);
        // Written anew and moved over it, wherever that lies on the disk.
        assert_eq!(store.put(&name, &DATA).unwrap(), Put::Written);
        assert_eq!(disk.log.lock().iter().filter(|call| **call == "rename").count(), 1);
        assert!(matches!(store.put(&name, b"else"), Err(StoreError::WrongName { .. })));
        let (store, _) = on_disk(folder.path(), FaultDisk::default());
        assert_eq!(store.get(&name, u64::MAX).unwrap(), &DATA[..]);
        assert_eq!(unfinished(folder.path()), 0);
    }
}

#[test]
fn missing_rights_are_named() {
    let folder = tempfile::tempdir().unwrap();
    for errno in [Errno::ACCESS, Errno::PERM, Errno::ROFS] {
        let (store, _) = on_disk(folder.path(), FaultDisk::failing("create", 0, 1, errno));
        let error = store.put(&pack(&DATA), &DATA).unwrap_err();
        assert!(matches!(error, StoreError::Denied { .. }), "{error:?}");
        assert_eq!(error.class(), Class::Unreachable);
    }
}

/// The ways file systems lack what the store would like to use.
fn lacking() -> [Vec<(&'static str, usize, usize, Errno)>; 4] {
    let never = |call, errno| (call, 0, usize::MAX, errno);
    [
        vec![],
        vec![never("finish", Errno::PERM)],
        vec![never("rename_new", Errno::INVAL)],
        vec![never("rename_new", Errno::NOSYS), never("link", Errno::PERM)],
    ]
}

#[test]
fn nothing_is_replaced_on_file_systems_with_less() {
    for failing in lacking() {
        let folder = tempfile::tempdir().unwrap();
        let disk = FaultDisk { failing, ..FaultDisk::default() };
        let (store, _) = on_disk(folder.path(), disk);
        let written: Vec<_> = std::thread::scope(|scope| {
            let puts = [0u8, 1, 2, 3, 4, 5, 6, 7].map(|n| {
                let store = &store;
                scope.spawn(move || (n, store.put(&ObjectName::Format, &[n; 3])))
            });
            puts.into_iter().map(|put| put.join().unwrap()).collect()
        });
        let (won, lost): (Vec<_>, Vec<_>) =
            written.into_iter().partition(|(_, result)| result.is_ok());
        assert!(
            lost.iter().all(|(_, result)| matches!(result, Err(StoreError::Exists { .. }))),
            "{lost:?}"
        );
        assert_eq!(won.len(), 1, "{won:?}");
        assert_eq!(store.get(&ObjectName::Format, 3).unwrap(), &[won[0].0; 3][..]);
        let name = pack(&DATA);
        assert_eq!(store.put(&name, &DATA).unwrap(), Put::Written);
        assert_eq!(store.put(&name, &DATA).unwrap(), Put::AlreadyThere);
        assert_eq!(unfinished(folder.path()), 0);
    }
}

#[test]
fn symbolic_links_are_refused_and_nothing_behind_them_is_touched() {
    let name = pack(&DATA);
    let path = name.to_string();
    let shard = split(&path).0;
    for linked in ["packs", "packs/data", shard, path.as_str()] {
        let folder = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let store = LocalStore::create(folder.path()).unwrap();
        store.put(&name, &DATA).unwrap();
        // Everything is there, behind the link.
        let moved = elsewhere.path().join("moved");
        std::fs::rename(folder.path().join(linked), &moved).unwrap();
        symlink(&moved, folder.path().join(linked)).unwrap();
        let refused = |result: Result<(), StoreError>| {
            let error = result.unwrap_err();
            assert!(matches!(error, StoreError::NotAnObject { .. }), "{linked}: {error:?}");
            assert_eq!(error.class(), Class::Damage);
        };
        refused(store.get(&name, u64::MAX).map(drop));
        refused(store.get_range(&name, 0, 1).map(drop));
        refused(store.size(&name).map(drop));
        refused(store.put(&name, &DATA).map(drop));
        if linked == path {
            let listing = store.list(Folder::DataPacks, &mut |_, _| panic!("listed")).unwrap();
            assert_eq!(listing, Listing { objects: 0, foreign: 1 });
            store.delete(&name).unwrap();
        } else {
            refused(store.list(Folder::DataPacks, &mut |_, _| Ok(())).map(drop));
            refused(store.delete(&name));
        }
        let behind = walk_files(&moved);
        assert_eq!(behind, [DATA.to_vec()], "{linked}");
    }
}

fn walk_files(path: &Path) -> Vec<Vec<u8>> {
    if path.is_file() {
        return vec![std::fs::read(path).unwrap()];
    }
    std::fs::read_dir(path).unwrap().flat_map(|entry| walk_files(&entry.unwrap().path())).collect()
}

#[test]
fn what_is_no_file_is_refused_without_waiting_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = LocalStore::create(folder.path()).unwrap();
    let [pipe, directory] = [pack(b"pipe"), pack(b"directory")];
    for name in [&pipe, &directory] {
        let path = folder.path().join(name.to_string());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    }
    let path = folder.path().join(pipe.to_string());
    rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    std::fs::create_dir(folder.path().join(directory.to_string())).unwrap();
    for name in [&pipe, &directory] {
        for result in [store.size(name).map(drop), store.put(name, b"data").map(drop)] {
            let error = result.unwrap_err();
            assert!(matches!(error, StoreError::NotAnObject { .. }), "{error:?}");
        }
    }
    let listing = store.list(Folder::DataPacks, &mut |_, _| panic!("listed")).unwrap();
    assert_eq!(listing, Listing { objects: 0, foreign: 2 });
}

#[test]
fn foreign_names_are_counted_and_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let store = LocalStore::create(folder.path()).unwrap();
    let name = pack(&DATA);
    store.put(&name, &DATA).unwrap();
    let path = folder.path().join(name.to_string());
    let shard = path.parent().unwrap();
    std::fs::write(path.with_extension("bak"), "").unwrap();
    std::fs::write(shard.join("0".repeat(64)), "a name of another shard").unwrap();
    std::fs::write(shard.parent().unwrap().join("README"), "").unwrap();
    std::fs::create_dir(shard.parent().unwrap().join("ABC")).unwrap();
    let mut seen = Vec::new();
    let listing = store.list(Folder::DataPacks, &mut |name, bytes| {
        seen.push((name, bytes));
        Ok(())
    });
    assert_eq!(seen, [(name, 5000)]);
    let foreign = if path.to_string_lossy().contains("/00/") { 3 } else { 4 };
    assert_eq!(listing.unwrap(), Listing { objects: 1, foreign });
}

#[test]
fn only_the_owner_has_access() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("repository");
    let store = LocalStore::create(&root).unwrap();
    let name = pack(&DATA);
    store.put(&name, &DATA).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let object = root.join(name.to_string());
    assert_eq!(mode(&object), 0o400);
    for path in object.ancestors().skip(1).take_while(|path| path.starts_with(&root)) {
        assert_eq!(mode(path), 0o700, "{path:?}");
    }
    assert_eq!(mode(&root.join("tmp")), 0o700);
}

#[test]
fn a_sweep_removes_left_overs_and_nothing_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let store = LocalStore::create(folder.path()).unwrap();
    let other = LocalStore::create(folder.path()).unwrap();
    assert_eq!(store.sweep_temp().unwrap(), Sweep::default());
    let name = pack(&DATA);
    let mut live = store.write_temp(&store.place(&name), &DATA).unwrap();
    let tmp = folder.path().join("tmp");
    std::fs::write(tmp.join(format!("put-{}", "0".repeat(32))), "left over").unwrap();
    std::fs::write(tmp.join("put-notes"), "not ours").unwrap();
    symlink(folder.path(), tmp.join(format!("put-{}", "1".repeat(32)))).unwrap();
    for sweeper in [&store, &other] {
        sweeper.sweep_temp().unwrap();
    }
    assert_eq!(other.sweep_temp().unwrap(), Sweep { removed: 0, kept: 3 });
    // The writer finishes as if nothing had happened.
    let path = name.to_string();
    let target = store.make_folder(split(&path).0, &store.place(&name)).unwrap();
    assert!(store.move_new(&mut live, target.as_fd(), &name).unwrap());
    drop(live);
    assert_eq!(other.get(&name, u64::MAX).unwrap(), &DATA[..]);
    assert_eq!(other.sweep_temp().unwrap(), Sweep { removed: 0, kept: 2 });
}

#[test]
fn writers_and_sweepers_of_several_processes_do_not_disturb_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let done = AtomicBool::new(false);
    let open = || LocalStore::create(folder.path()).unwrap();
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3)
            .map(|_| {
                let store = open();
                scope.spawn(move || {
                    for n in 0..40u8 {
                        store.put(&pack(&[n; 100]), &[n; 100]).unwrap();
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            let store = open();
            while !done.load(Ordering::Relaxed) {
                store.sweep_temp().unwrap();
            }
        });
        let results: Vec<_> =
            writers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Relaxed);
        assert!(results.iter().all(Result::is_ok), "{results:?}");
    });
    let store = open();
    for n in 0..40u8 {
        assert_eq!(store.get(&pack(&[n; 100]), 100).unwrap(), &[n; 100][..]);
    }
    assert_eq!(unfinished(folder.path()), 0);
}

#[test]
fn a_place_without_a_repository_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    for path in [folder.path().to_owned(), folder.path().join("absent"), file.clone()] {
        let error = LocalStore::open(&path).unwrap_err();
        assert!(matches!(error, StoreError::NoRepository { .. }), "{error:?}");
        assert_eq!(error.class(), Class::NoRepository);
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
    assert!(!folder.path().join("absent").exists());
    for path in [file.clone(), file.join("below")] {
        let error = LocalStore::create(&path).unwrap_err();
        assert!(matches!(error, StoreError::BadLocation { .. }), "{error:?}");
    }
}

#[test]
fn a_folder_with_other_files_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("diary.txt"), "").unwrap();
    let error = LocalStore::create(folder.path()).unwrap_err();
    assert!(error.to_string().contains("diary.txt"), "{error}");
    assert_eq!(error.class(), Class::Refused);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    // A fresh volume and an interrupted `init` are fine, and so is a repository.
    std::fs::remove_file(folder.path().join("diary.txt")).unwrap();
    for name in ["lost+found", "keys", "tmp"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
    }
    let store = LocalStore::create(folder.path()).unwrap();
    store.put(&ObjectName::Format, b"format").unwrap();
    std::fs::write(folder.path().join("notes.txt"), "").unwrap();
    LocalStore::create(folder.path()).unwrap();
    LocalStore::open(folder.path()).unwrap();
}
