//! Resolving paths beneath the target, and nowhere else.

use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cairn_format::limits::{NAME_BYTES_MAX, PATH_DEPTH_MAX};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::error::TargetError;

/// Longest path given to the kernel at once, bytes; its limit is 4095.
const PATH_BYTES_MAX: usize = 3 << 10;

/// How often a resolution is repeated that the kernel gave up because of a rename elsewhere.
const TRIES_MAX: usize = 64;

/// How a directory is opened that is only walked through.
const WALK: OFlags =
    OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// One path component that is safe to use: not empty, `.` or `..`, without `/` and NUL, at most
/// [`NAME_BYTES_MAX`] bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SafeName(Arc<CStr>);

impl SafeName {
    /// Checks a name.
    ///
    /// # Errors
    /// Fails if it is no safe name.
    pub fn new(name: &[u8]) -> Result<Self, TargetError> {
        let safe = !matches!(name, b"" | b"." | b"..")
            && !name.contains(&b'/')
            && name.len() <= NAME_BYTES_MAX as usize;
        let checked = CString::new(name).ok().filter(|_| safe);
        let unsafe_name =
            || TargetError::UnsafeName { name: String::from_utf8_lossy(name).into_owned() };
        checked.map(|name| Self(name.into())).ok_or_else(unsafe_name)
    }

    pub(super) fn as_c_str(&self) -> &CStr {
        &self.0
    }
}

/// A path relative to the target, of safe names; empty for the target itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct SafePath(Vec<SafeName>);

impl SafePath {
    /// The target itself.
    #[must_use]
    pub fn root() -> Self {
        Self::default()
    }

    /// The entry of that name in this directory.
    ///
    /// # Errors
    /// Fails if the name is not safe or the path gets deeper than [`PATH_DEPTH_MAX`].
    pub fn join(&self, name: &[u8]) -> Result<Self, TargetError> {
        let name = SafeName::new(name)?;
        if self.0.len() >= PATH_DEPTH_MAX as usize {
            let path = self.below(Path::new(""));
            return Err(TargetError::TooDeep { path, levels_max: PATH_DEPTH_MAX });
        }
        let mut names = Vec::with_capacity(self.0.len() + 1);
        names.extend_from_slice(&self.0);
        names.push(name);
        Ok(Self(names))
    }

    /// The names from the target downward.
    #[must_use]
    pub fn names(&self) -> &[SafeName] {
        &self.0
    }

    /// The path below another, for messages only.
    #[must_use]
    pub fn below(&self, base: &Path) -> PathBuf {
        let mut path = base.to_path_buf();
        path.extend(self.0.iter().map(|name| OsStr::from_bytes(name.as_c_str().to_bytes())));
        path
    }
}

/// The target directory, held open.
#[derive(Debug)]
pub struct Root {
    directory: OwnedFd,
    path: PathBuf,
    /// The kernel has openat2 (Linux 5.6), and no sandbox forbids it.
    kernel_resolves: AtomicBool,
}

/// An open directory beneath the target, and a name in it.
pub(super) struct Slot<'a> {
    directory: Option<OwnedFd>,
    root: BorrowedFd<'a>,
    /// The last component.
    pub(super) name: &'a CStr,
    /// The whole path, for messages.
    pub(super) path: PathBuf,
}

impl Slot<'_> {
    /// The directory that holds the name.
    pub(super) fn parent(&self) -> BorrowedFd<'_> {
        self.directory.as_ref().map_or(self.root, AsFd::as_fd)
    }

    /// The error for an operating system's answer about this entry.
    pub(super) fn failed(&self, action: &'static str, cause: Errno) -> TargetError {
        TargetError::io(action, &self.path, cause)
    }

    /// Opens the entry itself as a handle for looking at it and changing its metadata; a
    /// symbolic link is not followed.
    pub(super) fn handle(&self) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(self.parent(), self.name, flags, Mode::empty())
    }
}

impl Root {
    /// Opens an existing directory as target. Links in this path are followed: it comes from
    /// the person, not from the tree.
    ///
    /// # Errors
    /// Fails if it is not a directory or cannot be opened.
    pub fn open(path: &Path) -> Result<Self, TargetError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory =
            rustix::fs::open(path, flags, Mode::empty()).map_err(|error| match error {
                Errno::NOTDIR => TargetError::NotADirectory { path: path.to_path_buf() },
                error => TargetError::io("open the target", path, error),
            })?;
        Ok(Self { directory, path: path.to_path_buf(), kernel_resolves: AtomicBool::new(true) })
    }

    /// Where the target is, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The target's own directory.
    pub(super) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Resolves component by component from now on, as on kernels without openat2.
    #[cfg(test)]
    pub(super) fn resolve_by_component(&self) {
        self.kernel_resolves.store(false, Ordering::Relaxed);
    }

    /// Opens the directory that holds an entry. The target itself is in no directory beneath
    /// the target, so it has no slot.
    pub(super) fn slot<'a>(&'a self, path: &'a SafePath) -> Result<Slot<'a>, TargetError> {
        let shown = path.below(&self.path);
        let Some((name, above)) = path.0.split_last() else {
            return Err(TargetError::io("create", &shown, Errno::EXIST));
        };
        let mut directory: Option<OwnedFd> = None;
        for run in runs(above) {
            let from = directory.as_ref().map_or(self.directory.as_fd(), AsFd::as_fd);
            let opened = self.walk(from, run).map_err(|error| match error {
                // A link or a file where a directory was.
                Errno::LOOP | Errno::NOTDIR | Errno::XDEV => {
                    TargetError::Replaced { path: SafePath(above.to_vec()).below(&self.path) }
                }
                error => TargetError::io("open the directory of", &shown, error),
            })?;
            directory = Some(opened);
        }
        let root = self.directory.as_fd();
        Ok(Slot { directory, root, name: name.as_c_str(), path: shown })
    }

    /// Opens a directory some levels below another.
    fn walk(&self, from: BorrowedFd<'_>, names: &[SafeName]) -> Result<OwnedFd, Errno> {
        if self.kernel_resolves.load(Ordering::Relaxed) {
            match walk_in_kernel(from, names) {
                Err(Errno::NOSYS | Errno::PERM) => {
                    self.kernel_resolves.store(false, Ordering::Relaxed);
                }
                answer => return answer,
            }
        }
        let mut directory: Option<OwnedFd> = None;
        for name in names {
            let from = directory.as_ref().map_or(from, AsFd::as_fd);
            directory = Some(rustix::fs::openat(from, name.as_c_str(), WALK, Mode::empty())?);
        }
        directory.ok_or(Errno::INVAL)
    }
}

fn walk_in_kernel(from: BorrowedFd<'_>, names: &[SafeName]) -> Result<OwnedFd, Errno> {
    let mut path = Vec::new();
    for name in names {
        path.extend_from_slice(name.as_c_str().to_bytes());
        path.push(b'/');
    }
    path.pop();
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..TRIES_MAX {
        match rustix::fs::openat2(from, path.as_slice(), WALK, Mode::empty(), beneath) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            answer => return answer,
        }
    }
    Err(Errno::AGAIN)
}

/// Cuts a path into runs that the kernel takes at once.
fn runs(names: &[SafeName]) -> impl Iterator<Item = &[SafeName]> {
    let mut left = names;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fitting = left.iter().take_while(|name| {
            bytes += name.as_c_str().count_bytes() + 1;
            bytes <= PATH_BYTES_MAX
        });
        // One name always fits: it is far shorter than the limit.
        let (run, rest) = left.split_at(fitting.count());
        left = rest;
        (!run.is_empty()).then_some(run)
    })
}

const _: () = assert!((NAME_BYTES_MAX as usize) < PATH_BYTES_MAX);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn path(names: &[&str]) -> SafePath {
        names.iter().fold(SafePath::root(), |path, name| path.join(name.as_bytes()).unwrap())
    }

    #[test]
    fn hostile_names_are_refused() {
        let long = vec![b'x'; NAME_BYTES_MAX as usize + 1];
        let names: [&[u8]; 8] = [b"", b".", b"..", b"/", b"a/b", b"../etc", b"nul\0", &long];
        for name in names {
            assert!(
                matches!(SafePath::root().join(name), Err(TargetError::UnsafeName { .. })),
                "{name:?}"
            );
        }
        for name in [&b"..."[..], b" ", b"\xff\xfe", b"-rf", b"a\nb", &long[1..]] {
            SafePath::root().join(name).unwrap();
        }
    }

    #[test]
    fn depth_is_limited() {
        let mut deep = SafePath::root();
        for _ in 0..PATH_DEPTH_MAX {
            deep = deep.join(b"d").unwrap();
        }
        assert!(matches!(deep.join(b"d"), Err(TargetError::TooDeep { .. })));
    }

    #[test]
    fn links_on_the_way_are_refused_by_both_resolvers() {
        let base = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::fs::create_dir(base.path().join("real")).unwrap();
        symlink(outside.path(), base.path().join("absolute")).unwrap();
        symlink("real", base.path().join("inside")).unwrap();
        symlink("..", base.path().join("up")).unwrap();
        symlink("/proc/self/root", base.path().join("magic")).unwrap();
        std::fs::write(base.path().join("file"), b"").unwrap();
        let root = Root::open(base.path()).unwrap();
        for by_component in [false, true] {
            if by_component {
                root.resolve_by_component();
            }
            assert!(root.slot(&path(&["real", "x"])).is_ok());
            for link in ["absolute", "inside", "up", "magic", "file"] {
                assert!(
                    matches!(root.slot(&path(&[link, "x"])), Err(TargetError::Replaced { .. })),
                    "{link} by_component={by_component}"
                );
            }
            assert!(matches!(root.slot(&path(&["gone", "x"])), Err(TargetError::Io { .. })));
        }
    }

    #[test]
    fn paths_longer_than_the_kernel_takes_are_resolved() {
        let base = tempfile::tempdir().unwrap();
        let root = Root::open(base.path()).unwrap();
        let name = "n".repeat(200);
        let mut deep = SafePath::root();
        for _ in 0..60 {
            deep = deep.join(name.as_bytes()).unwrap();
            let slot = root.slot(&deep).unwrap();
            rustix::fs::mkdirat(slot.parent(), slot.name, Mode::RWXU).unwrap();
        }
        root.resolve_by_component();
        let deeper = deep.join(b"x").unwrap();
        assert!(root.slot(&deeper).unwrap().path.as_os_str().len() > 12_000);
    }
}
