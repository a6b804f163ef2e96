//! The time as the server of a network file system tells it.

use std::os::fd::AsFd;

use cairn_format::names::ObjectName;
use rustix::fs::Stat;

use super::LocalStore;
use crate::store::error::{Place, StoreError};

/// File systems whose files are dated by another machine, as `statfs` numbers them: NFS, SMB (three
/// generations of it), 9P. Clients of others date files themselves, and of FUSE it cannot be told.
const SERVED: [u32; 5] = [0x6969, 0x517b, 0xff53_4d42, 0xfe53_4d42, 0x0102_1997];

impl LocalStore {
    /// The server's time, by the date of a file just written; `None` on disks of this machine, which
    /// are dated by its own clock.
    pub(super) fn server_ms(&self) -> Result<Option<i64>, StoreError> {
        let place = Place::temporary(&self.location);
        let fail = |errno| StoreError::from_errno("look at", place.clone(), errno);
        let found = rustix::fs::fstatfs(&self.root).map_err(fail)?;
        if !is_served(found.f_type as u64) {
            return Ok(None);
        }
        self.refuse_if_broken()?;
        let temp = self.write_temp(&place, b"what time is it\n")?;
        let stat = rustix::fs::fstat(temp.file()).map_err(fail)?;
        Ok(Some(milliseconds(&stat)))
    }

    /// When an object's file was written.
    pub(super) fn modified_ms(&self, name: &ObjectName) -> Result<Option<i64>, StoreError> {
        let fail = |errno| StoreError::from_errno("look at", self.place(name), errno);
        let (file, _) = self.open_to_read(name)?;
        let stat = rustix::fs::fstat(file.as_fd()).map_err(fail)?;
        Ok(Some(milliseconds(&stat)))
    }
}

/// Whether a file system of this type is served by another machine. The type is a C `long` on some
/// machines: only its low half counts.
fn is_served(kind: u64) -> bool {
    SERVED.iter().any(|served| u64::from(*served) == kind & 0xffff_ffff)
}

fn milliseconds(stat: &Stat) -> i64 {
    let nanoseconds = i64::try_from(stat.st_mtime_nsec).unwrap_or_default();
    stat.st_mtime.saturating_mul(1_000).saturating_add(nanoseconds / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store as _;

    #[test]
    fn disks_of_this_machine_prove_nothing() {
        for (kind, served) in [
            (0x6969, true),
            // CIFS, where the type is signed.
            (0xffff_ffff_ff53_4d42, true),
            // ext4, XFS, btrfs, tmpfs, FUSE.
            (0xef53, false),
            (0x5846_5342, false),
            (0x9123_683e, false),
            (0x0102_1994, false),
            (0x6573_5546, false),
        ] {
            assert_eq!(is_served(kind), served, "{kind:x}");
        }
        let folder = tempfile::tempdir().unwrap();
        let store = LocalStore::create(folder.path()).unwrap();
        assert_eq!(store.now_ms().unwrap(), None);
    }

    #[test]
    fn objects_tell_when_they_were_written() {
        let folder = tempfile::tempdir().unwrap();
        let store = LocalStore::create(folder.path()).unwrap();
        let data = b"some object";
        let name = ObjectName::Config(cairn_format::ids::ObjectHash::from_bytes(
            *blake3::hash(data).as_bytes(),
        ));
        assert!(matches!(store.taken_ms(&name), Err(StoreError::NotFound { .. })));
        let before_ms = jiff::Timestamp::now().as_millisecond();
        store.put(&name, data).unwrap();
        let taken_ms = store.taken_ms(&name).unwrap().unwrap();
        // A tick of the file system's clock, which may be behind.
        assert!((before_ms - 1_000..before_ms + 60_000).contains(&taken_ms), "{taken_ms}");
    }
}
