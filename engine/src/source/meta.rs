//! What is recorded of an entry besides its content, and how an unchanged file is recognised.

use std::io::Write as _;
use std::path::Path;

use cairn_format::limits::XATTR_BYTES_MAX;
use cairn_format::tree::{LinkGroup, Meta, Timestamp, Xattr};
use rustix::fd::{AsRawFd, BorrowedFd};
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use super::error::SourceError;
use super::owners::OwnerNames;

/// The kernel gives neither a list of names nor a value above 64 KiB.
const XATTR_ANSWER_BYTES: usize = 64 << 10;
/// Room offered for a list of names at first: the kernel allocates and clears as much for each
/// question, and most files have no attributes.
const XATTR_NAMES_FIRST_BYTES: usize = 1 << 10;
const _: () = assert!(XATTR_NAMES_FIRST_BYTES < XATTR_ANSWER_BYTES);

/// Where open files are reachable by path; the only way to read attributes of things that
/// cannot be opened, without following links.
pub(super) const PROC_FD: &str = "/proc/self/fd";

/// What says that a file is the same, unchanged file as at an earlier backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint {
    /// Device number; changes when a snapshot of the file system is mounted anew.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Length in bytes.
    pub bytes: u64,
    /// Modification time.
    pub mtime: FingerprintTime,
    /// Change time; the user cannot set it.
    pub ctime: FingerprintTime,
}

/// A point in time as the file system gave it: seconds and nanoseconds.
pub type FingerprintTime = (i64, u32);

impl Fingerprint {
    /// Length of the encoding, bytes.
    pub const ENCODED_BYTES: usize = 48;

    pub(super) fn of(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            bytes: length(stat),
            mtime: (stat.st_mtime, nanoseconds(stat.st_mtime_nsec)),
            ctime: (stat.st_ctime, nanoseconds(stat.st_ctime_nsec)),
        }
    }

    /// Whether a file with this fingerprint still has the content it had with `earlier`.
    ///
    /// The device is not compared: file system snapshots and reboots number devices anew, and
    /// equal inode, length and both times on another device are no accident.
    #[must_use]
    pub fn unchanged_since(&self, earlier: &Self) -> bool {
        Self { device: 0, ..*self } == Self { device: 0, ..*earlier }
    }

    /// Whether the file had been at rest for at least `margin_ms` at `now`.
    ///
    /// A file system's clock ticks coarsely (up to 2 s on some), so a file changed twice within
    /// one tick has one fingerprint for two contents. A fingerprint taken so soon after a change
    /// must not be trusted later.
    #[must_use]
    pub fn settled(&self, now: Timestamp, margin_ms: u32) -> bool {
        let ms = |seconds: i64, nanoseconds: u32| {
            seconds.saturating_mul(1000).saturating_add(i64::from(nanoseconds / 1_000_000))
        };
        let newest = self.mtime.max(self.ctime);
        ms(newest.0, newest.1).saturating_add(i64::from(margin_ms))
            <= ms(now.seconds, now.nanoseconds)
    }

    /// Fixed-length little-endian encoding, for caches on this machine.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::ENCODED_BYTES] {
        let mut encoded = [0; Self::ENCODED_BYTES];
        let fields: [&[u8]; 7] = [
            &self.device.to_le_bytes(),
            &self.inode.to_le_bytes(),
            &self.bytes.to_le_bytes(),
            &self.mtime.0.to_le_bytes(),
            &self.mtime.1.to_le_bytes(),
            &self.ctime.0.to_le_bytes(),
            &self.ctime.1.to_le_bytes(),
        ];
        for (place, byte) in encoded.iter_mut().zip(fields.into_iter().flatten()) {
            *place = *byte;
        }
        encoded
    }

    /// Reads the encoding back; `None` where the length is wrong.
    #[must_use]
    pub fn from_bytes(encoded: &[u8]) -> Option<Self> {
        let (device, rest) = encoded.split_first_chunk()?;
        let (inode, rest) = rest.split_first_chunk()?;
        let (bytes, rest) = rest.split_first_chunk()?;
        let (mtime_seconds, rest) = rest.split_first_chunk()?;
        let (mtime_nanoseconds, rest) = rest.split_first_chunk()?;
        let (ctime_seconds, rest) = rest.split_first_chunk()?;
        let (ctime_nanoseconds, rest) = rest.split_first_chunk()?;
        rest.is_empty().then(|| Self {
            device: u64::from_le_bytes(*device),
            inode: u64::from_le_bytes(*inode),
            bytes: u64::from_le_bytes(*bytes),
            mtime: (i64::from_le_bytes(*mtime_seconds), u32::from_le_bytes(*mtime_nanoseconds)),
            ctime: (i64::from_le_bytes(*ctime_seconds), u32::from_le_bytes(*ctime_nanoseconds)),
        })
    }
}

/// The length of a file; never negative on any real file system.
pub(super) fn length(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

fn nanoseconds(value: u64) -> u32 {
    u32::try_from(value).ok().filter(|ns| *ns < 1_000_000_000).unwrap_or(0)
}

/// Everything of [`Meta`] that one `stat` tells; extended attributes are read apart.
pub(super) fn meta_of(stat: &Stat, owners: &mut OwnerNames) -> Meta {
    let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    let linked = stat.st_nlink > 1 && !directory;
    Meta {
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        user: owners.user(stat.st_uid),
        group: owners.group(stat.st_gid),
        mtime: Timestamp { seconds: stat.st_mtime, nanoseconds: nanoseconds(stat.st_mtime_nsec) },
        link: linked.then_some(LinkGroup { device: stat.st_dev, inode: stat.st_ino }),
        xattrs: Vec::new(),
    }
}

/// Reads extended attributes; keeps its buffers between files.
pub(super) struct XattrReader {
    path: Vec<u8>,
    names: Vec<u8>,
    value: Vec<u8>,
}

impl XattrReader {
    /// `None` where `/proc` is not mounted, so that no attribute can be reached.
    pub(super) fn new() -> Option<Self> {
        let proc = rustix::fs::statfs(PROC_FD).ok()?;
        (proc.f_type == rustix::fs::PROC_SUPER_MAGIC).then(|| Self {
            path: Vec::new(),
            names: vec![0; XATTR_ANSWER_BYTES],
            value: vec![0; XATTR_ANSWER_BYTES],
        })
    }

    /// Reads the attributes of `name` in `directory`, or of the directory itself, sorted by name;
    /// what cannot be read or does not fit is left out and returned as failures.
    pub(super) fn read(
        &mut self,
        directory: BorrowedFd<'_>,
        name: Option<&[u8]>,
        shown: &Path,
    ) -> (Vec<Xattr>, Vec<SourceError>) {
        self.path.clear();
        // Writing to a Vec cannot fail.
        let _ = write!(self.path, "{PROC_FD}/{}", directory.as_raw_fd());
        if let Some(name) = name {
            self.path.push(b'/');
            self.path.extend_from_slice(name);
        }
        let path = self.path.as_slice();
        // The way to a handle is itself a link, and the only one that is followed.
        let list = |names: &mut [u8]| match name {
            None => rustix::fs::listxattr(path, names),
            Some(_) => rustix::fs::llistxattr(path, names),
        };
        let (first, _) = self.names.split_at_mut(XATTR_NAMES_FIRST_BYTES);
        let listed = match list(first) {
            Err(Errno::RANGE) => list(&mut self.names),
            listed => listed,
        };
        let listed = match listed {
            Ok(bytes) => self.names.get(..bytes).unwrap_or_default(),
            // No such attributes on this file system, or the file vanished, which opening tells.
            Err(Errno::OPNOTSUPP | Errno::NOENT | Errno::NOSYS) => return Default::default(),
            Err(error) => {
                let error = SourceError::io("list the extended attributes of", shown, error);
                return (Vec::new(), vec![error]);
            }
        };
        let mut names: Vec<&[u8]> = listed.split(|b| *b == 0).filter(|n| !n.is_empty()).collect();
        names.sort_unstable();
        let (mut xattrs, mut failures) = (Vec::new(), Vec::new());
        let mut budget = XattrBudget::default();
        for attribute in names {
            let value = self.value.as_mut_slice();
            let read = match name {
                None => rustix::fs::getxattr(path, attribute, value),
                Some(_) => rustix::fs::lgetxattr(path, attribute, value),
            };
            match read {
                Ok(bytes) => {
                    let value = self.value.get(..bytes).unwrap_or_default();
                    if !budget.take(attribute.len() + value.len()) {
                        failures.push(SourceError::XattrsTooLarge {
                            path: shown.to_path_buf(),
                            name: String::from_utf8_lossy(attribute).into_owned(),
                            bytes_max: XATTR_BYTES_MAX,
                        });
                        continue;
                    }
                    xattrs.push(Xattr { name: attribute.to_vec(), value: value.to_vec() });
                }
                // Removed since it was listed, or listed without being there.
                Err(Errno::NODATA | Errno::NOENT | Errno::OPNOTSUPP) => {}
                Err(error) => {
                    failures.push(SourceError::io("read an extended attribute of", shown, error))
                }
            }
        }
        (xattrs, failures)
    }
}

/// What an entry's attributes have used of [`XATTR_BYTES_MAX`].
#[derive(Default)]
struct XattrBudget {
    used: usize,
}

impl XattrBudget {
    /// Takes so many bytes if they are left.
    fn take(&mut self, bytes: usize) -> bool {
        let fits = bytes <= (XATTR_BYTES_MAX as usize).saturating_sub(self.used);
        if fits {
            self.used += bytes;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fingerprint() -> impl Strategy<Value = Fingerprint> {
        let time = || (any::<i64>(), 0..1_000_000_000_u32);
        (any::<u64>(), any::<u64>(), any::<u64>(), time(), time()).prop_map(
            |(device, inode, bytes, mtime, ctime)| Fingerprint {
                device,
                inode,
                bytes,
                mtime,
                ctime,
            },
        )
    }

    proptest! {
        #[test]
        fn fingerprints_survive_encoding(print in fingerprint()) {
            let encoded = print.to_bytes();
            prop_assert_eq!(Fingerprint::from_bytes(&encoded), Some(print));
            prop_assert_eq!(Fingerprint::from_bytes(&encoded[1..]), None);
            prop_assert_eq!(Fingerprint::from_bytes(&[&encoded[..], &[0]].concat()), None);
        }

        #[test]
        fn each_field_but_the_device_counts(print in fingerprint()) {
            let moved = Fingerprint { device: !print.device, ..print };
            prop_assert!(moved.unchanged_since(&print));
            let others = [
                Fingerprint { inode: !print.inode, ..print },
                Fingerprint { bytes: !print.bytes, ..print },
                Fingerprint { mtime: (!print.mtime.0, print.mtime.1), ..print },
                Fingerprint { mtime: (print.mtime.0, print.mtime.1 ^ 1), ..print },
                Fingerprint { ctime: (!print.ctime.0, print.ctime.1), ..print },
                Fingerprint { ctime: (print.ctime.0, print.ctime.1 ^ 1), ..print },
            ];
            for other in others {
                prop_assert!(!other.unchanged_since(&print));
            }
        }
    }

    #[test]
    fn attributes_beyond_the_limit_do_not_fit() {
        let max = XATTR_BYTES_MAX as usize;
        let mut budget = XattrBudget::default();
        assert!(!budget.take(max + 1));
        assert!(budget.take(max - 10));
        assert!(!budget.take(11) && budget.take(10) && !budget.take(1));
    }

    #[test]
    fn a_fresh_change_is_not_settled() {
        let print = Fingerprint {
            device: 0,
            inode: 0,
            bytes: 0,
            mtime: (50, 0),
            ctime: (100, 500_000_000),
        };
        let at = |seconds| Timestamp { seconds, nanoseconds: 0 };
        assert!(!print.settled(at(100), 2000));
        assert!(!print.settled(at(102), 2000));
        assert!(print.settled(at(103), 2000));
    }
}
