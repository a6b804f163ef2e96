//! From the paths a person gives to the set of places to walk.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use super::error::SourceError;

/// As many symbolic links as the kernel follows in one path.
const LINKS_MAX: u32 = 40;

/// A place in the hierarchy: a root, or on the way to one, or both.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// It is a root: everything below is wanted.
    pub(super) root: bool,
    /// The names that are roots or lead to such. Below a root they still matter: a root is
    /// backed up where the root around it would leave it out.
    pub(super) below: BTreeMap<Vec<u8>, Wanted>,
}

impl Wanted {
    fn add(&mut self, path: &[Vec<u8>]) {
        let mut place = self;
        for name in path {
            place = place.below.entry(name.clone()).or_default();
        }
        place.root = true;
    }
}

/// The roots, resolved.
#[derive(Debug, Default)]
pub(super) struct Roots {
    pub(super) wanted: Wanted,
    /// Roots that lead through symbolic links, and where each really is.
    pub(super) followed: Vec<(PathBuf, PathBuf)>,
    /// Roots that are not there or cannot be reached.
    pub(super) unreadable: Vec<(PathBuf, SourceError)>,
}

impl Roots {
    /// Resolves every root; a root that fails is noted and the others go on.
    pub(super) fn resolve(roots: &[PathBuf]) -> Self {
        let mut resolved = Self::default();
        for root in roots {
            if let Err(error) = resolved.add(root) {
                resolved.unreadable.push((root.clone(), error));
            }
        }
        resolved
    }

    fn add(&mut self, root: &Path) -> Result<(), SourceError> {
        let absolute =
            std::path::absolute(root).map_err(|e| SourceError::io("make absolute", root, e))?;
        let mut left = components(absolute.as_os_str());
        left.reverse();
        let mut real: Vec<Vec<u8>> = Vec::new();
        let mut links = Vec::new();
        while let Some(name) = left.pop() {
            match name.as_slice() {
                b"." => continue,
                b".." => {
                    real.pop();
                    continue;
                }
                _ => real.push(name),
            }
            let here = join(&real);
            let stat = rustix::fs::lstat(&here).map_err(|e| SourceError::io("find", &here, e))?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
                continue;
            }
            let target = rustix::fs::readlink(&here, Vec::new())
                .map_err(|e| SourceError::io("read the link", &here, e))?;
            links.push(real.clone());
            if links.len() > LINKS_MAX as usize {
                let path = root.to_path_buf();
                return Err(SourceError::TooManyLinks { path, links_max: LINKS_MAX });
            }
            real.pop();
            let target = OsStr::from_bytes(target.to_bytes());
            if Path::new(target).is_absolute() {
                real.clear();
            }
            left.extend(components(target).into_iter().rev());
        }
        if !links.is_empty() {
            self.followed.push((absolute, join(&real)));
        }
        links.iter().for_each(|link| self.wanted.add(link));
        self.wanted.add(&real);
        Ok(())
    }
}

fn components(path: &OsStr) -> Vec<Vec<u8>> {
    path.as_bytes().split(|b| *b == b'/').filter(|n| !n.is_empty()).map(<[u8]>::to_vec).collect()
}

fn join(names: &[Vec<u8>]) -> PathBuf {
    let mut path = PathBuf::from("/");
    path.extend(names.iter().map(|name| OsStr::from_bytes(name)));
    path
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// The wanted paths, depth first.
    fn flat(wanted: &Wanted, prefix: &Path, found: &mut Vec<PathBuf>) {
        if wanted.root {
            found.push(prefix.to_path_buf());
        }
        for (name, below) in &wanted.below {
            flat(below, &prefix.join(OsStr::from_bytes(name)), found);
        }
    }

    fn resolved(roots: &[PathBuf]) -> (Roots, Vec<PathBuf>) {
        let roots = Roots::resolve(roots);
        let mut found = Vec::new();
        flat(&roots.wanted, Path::new("/"), &mut found);
        (roots, found)
    }

    fn scratch() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        (dir, real)
    }

    #[test]
    fn repeated_roots_merge_and_nested_ones_are_known() {
        let (_dir, base) = scratch();
        std::fs::create_dir_all(base.join("a/b/c")).unwrap();
        let roots = ["a/b/c", "a/b", "a/b/./c/..", "a/b/c"].map(|p| base.join(p));
        let (resolved, found) = resolved(&roots);
        assert_eq!(found, [base.join("a/b"), base.join("a/b/c")]);
        assert!(resolved.followed.is_empty() && resolved.unreadable.is_empty());
    }

    #[test]
    fn the_top_is_a_root_like_any_other() {
        let (_, found) = resolved(&[PathBuf::from("/"), PathBuf::from("/..")]);
        assert_eq!(found, [PathBuf::from("/")]);
    }

    #[test]
    fn links_are_kept_and_their_target_added() {
        let (_dir, base) = scratch();
        std::fs::create_dir_all(base.join("big/data")).unwrap();
        symlink("big/data", base.join("link")).unwrap();
        symlink(base.join("link/.."), base.join("other")).unwrap();
        let (links, found) = resolved(&[base.join("link")]);
        assert_eq!(found, [base.join("big/data"), base.join("link")]);
        assert_eq!(links.followed, [(base.join("link"), base.join("big/data"))]);

        let (_, found) = resolved(&[base.join("other/data")]);
        assert_eq!(found, ["big/data", "link", "other"].map(|p| base.join(p)));
    }

    #[test]
    fn missing_and_circular_roots_are_noted() {
        let (_dir, base) = scratch();
        symlink("loop", base.join("loop")).unwrap();
        std::fs::write(base.join("file"), b"x").unwrap();
        let roots = ["gone", "loop", "file"].map(|p| base.join(p));
        let (resolved, found) = resolved(&roots);
        assert!(found.contains(&base.join("file")));
        assert!(matches!(
            &resolved.unreadable[..],
            [(_, SourceError::Missing { .. }), (_, SourceError::TooManyLinks { .. })]
        ));
    }
}
