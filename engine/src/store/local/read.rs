//! Reading objects of the local store, and comparing them with what is to be written.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bytes::Bytes;
use cairn_format::names::ObjectName;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};

use super::super::error::StoreError;
use super::{LocalStore, split};

/// How much of an object is held in memory while it is compared, bytes.
const COMPARE_BYTES: usize = 256 << 10;

impl LocalStore {
    /// Opens an object in its folder; `None` when it is absent. Anything but a plain file is
    /// refused, and opening never waits (as it would for the other end of a FIFO).
    pub(super) fn open_object(
        &self,
        folder: BorrowedFd<'_>,
        file: &str,
        name: &ObjectName,
    ) -> Result<Option<(OwnedFd, u64)>, StoreError> {
        let fail = |errno| StoreError::from_read("open", self.place(name), errno);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match retry_on_intr(|| rustix::fs::openat(folder, file, flags, Mode::empty())) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(fail(errno)),
        };
        let stat = rustix::fs::fstat(&file).map_err(fail)?;
        let found = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let bytes = u64::try_from(stat.st_size).unwrap_or_default();
                return Ok(Some((file, bytes)));
            }
            FileType::Directory => "a folder",
            FileType::Fifo | FileType::Socket => "a pipe or socket",
            _ => "a device or something else that is no file",
        };
        Err(StoreError::NotAnObject { place: self.place(name), found })
    }

    /// Opens an object by its name, and tells its size.
    pub(super) fn open_to_read(&self, name: &ObjectName) -> Result<(OwnedFd, u64), StoreError> {
        let path = name.to_string();
        let (folder, file) = split(&path);
        let folder = self
            .walk(folder)
            .map_err(|errno| StoreError::from_errno("open", self.place(name), errno))?;
        self.open_object(folder.as_fd(), file, name)?
            .ok_or_else(|| StoreError::NotFound { place: self.place(name) })
    }

    /// Reads `len` bytes that are known to be there.
    pub(super) fn read_exactly(
        &self,
        file: &OwnedFd,
        name: &ObjectName,
        offset: u64,
        len: u64,
    ) -> Result<Bytes, StoreError> {
        let fail = |errno| StoreError::from_read("read", self.place(name), errno);
        let wanted = usize::try_from(len).map_err(|_| fail(Errno::NOMEM))?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(wanted).map_err(|_| fail(Errno::NOMEM))?;
        while bytes.len() < wanted {
            let at = offset + bytes.len() as u64;
            match self.disk.read_at(file.as_fd(), &mut bytes, at) {
                // It was longer a moment ago: somebody is cutting it.
                Ok(0) => {
                    return Err(StoreError::Short {
                        place: self.place(name),
                        offset,
                        wanted: len,
                        available: bytes.len() as u64,
                    });
                }
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(fail(errno)),
            }
        }
        // The allocation may be larger than asked for, and so may what was read.
        bytes.truncate(wanted);
        Ok(bytes.into())
    }

    /// Whether a file holds exactly these bytes; one that cannot be read does not.
    pub(super) fn holds(
        &self,
        file: &OwnedFd,
        name: &ObjectName,
        data: &[u8],
    ) -> Result<bool, StoreError> {
        let mut piece = Vec::with_capacity(COMPARE_BYTES.min(data.len()).max(1));
        let mut rest = data;
        let mut offset = 0;
        loop {
            piece.clear();
            let read = retry_on_intr(|| self.disk.read_at(file.as_fd(), &mut piece, offset));
            let count = match read.map_err(|e| StoreError::from_read("read", self.place(name), e)) {
                Ok(0) => return Ok(rest.is_empty()),
                Ok(count) => count,
                Err(StoreError::Unreadable { .. }) => return Ok(false),
                Err(error) => return Err(error),
            };
            match (piece.get(..count), rest.split_at_checked(count)) {
                (Some(found), Some((expected, after))) if found == expected => rest = after,
                _ => return Ok(false),
            }
            offset += count as u64;
        }
    }
}
