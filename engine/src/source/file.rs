//! Reading the content of one file or block device.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fd::OwnedFd;
use rustix::fs::{Advice, AtFlags, FileType, Mode, OFlags, SeekFrom, Stat};
use rustix::io::Errno;

use super::error::SourceError;
use super::meta::{Fingerprint, length};
use super::witness::Witness;

/// Shorter files are not asked for holes: the question costs more than the zeros.
const HOLES_FROM_BYTES: u64 = 64 << 10;
/// Bytes read at once when a file is read a second time.
const CONFIRM_BYTES: usize = 1 << 20;

/// Where a file was met: its name in a directory that is held open, and what it was.
///
/// Keeps the directory open as long as it lives, one for all places of that directory.
#[derive(Clone, Debug)]
pub struct Place {
    directory: Arc<OwnedFd>,
    name: Box<[u8]>,
    path: PathBuf,
    device: u64,
    inode: u64,
    kind: FileType,
    detect_holes: bool,
}

impl Place {
    pub(super) fn new(
        directory: Arc<OwnedFd>,
        name: &[u8],
        path: &Path,
        stat: &Stat,
        detect_holes: bool,
    ) -> Self {
        Self {
            directory,
            name: name.into(),
            path: path.to_path_buf(),
            device: stat.st_dev,
            inode: stat.st_ino,
            kind: FileType::from_raw_mode(stat.st_mode),
            detect_holes,
        }
    }

    /// The place of one regular file or block device, outside of a walk. Links above its last
    /// component are followed, the last is not.
    ///
    /// # Errors
    /// Fails if it cannot be looked at.
    pub fn at(path: &Path, detect_holes: bool) -> Result<Self, SourceError> {
        let failed = |error: Errno| SourceError::io("open", path, error);
        let name = path.file_name().ok_or_else(|| failed(Errno::ISDIR))?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(parent.unwrap_or(Path::new(".")), flags, Mode::empty())
            .map_err(failed)?;
        let stat =
            rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        Ok(Self::new(Arc::new(directory), name.as_bytes(), path, &stat, detect_holes))
    }

    /// The path, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// A run of bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Bytes to be read.
    Data {
        /// Where it starts.
        offset: u64,
        /// Its length in bytes, at least 1.
        bytes: u64,
    },
    /// A hole: reads as zeros, occupies nothing.
    Hole {
        /// Where it starts.
        offset: u64,
        /// Its length in bytes, at least 1.
        bytes: u64,
    },
}

/// Whether a file held still while it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stillness {
    /// What was read is the file's content at one moment.
    Unchanged,
    /// It was written to or its metadata changed; the fingerprint is the new one.
    Changed(Fingerprint),
    /// It is shorter than when it was opened; the fingerprint is the new one.
    Shrunk(Fingerprint),
    /// It is longer than when it was opened; what was appended was not read. The fingerprint is
    /// the new one. The part that was read may have changed as well.
    Grown(Fingerprint),
}

/// An open file, read up to the length it had when it was opened.
///
/// [`Self::next_segment`] and [`Self::read_into`] go through it in order; [`Self::read_at`] reads
/// anywhere and from several threads.
#[derive(Debug)]
pub struct FileReader {
    file: OwnedFd,
    path: PathBuf,
    opened: Fingerprint,
    device: bool,
    detect_holes: bool,
    /// Where the next segment starts.
    next: u64,
    /// What is left of the current segment: offset and end.
    current: (u64, u64),
    /// What was read so far, where [`Self::watch`] asked for it.
    witness: Option<Box<Witness>>,
}

impl FileReader {
    /// Opens the file and makes sure that it is the one that was met.
    ///
    /// # Errors
    /// Fails if it is gone, is another file by now, or may not be read.
    pub fn open(place: &Place) -> Result<Self, SourceError> {
        let path = &place.path;
        let failed = |error: Errno| match error {
            Errno::LOOP => SourceError::Replaced { path: path.clone() },
            error => SourceError::io("open", path, error),
        };
        // Non-blocking, in case a named pipe has taken the name.
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let name = OsStr::from_bytes(&place.name);
        let mut opened =
            rustix::fs::openat(&*place.directory, name, flags | OFlags::NOATIME, Mode::empty());
        // Only the owner may ask not to touch the access time.
        if opened.as_ref().is_err_and(|e| *e == Errno::PERM) {
            opened = rustix::fs::openat(&*place.directory, name, flags, Mode::empty());
        }
        let file = opened.map_err(failed)?;
        let stat = rustix::fs::fstat(&file).map_err(failed)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if (stat.st_dev, stat.st_ino, kind) != (place.device, place.inode, place.kind) {
            return Err(SourceError::Replaced { path: path.clone() });
        }
        let mut opened = Fingerprint::of(&stat);
        let device = kind == FileType::BlockDevice;
        if device {
            opened.bytes = rustix::fs::seek(&file, SeekFrom::End(0)).map_err(failed)?;
        }
        // Advice; where it is not taken nothing is lost.
        let _ = rustix::fs::fadvise(&file, 0, None, Advice::Sequential);
        let detect_holes = place.detect_holes && !device && length(&stat) >= HOLES_FROM_BYTES;
        let path = path.clone();
        Ok(Self {
            file,
            path,
            opened,
            device,
            detect_holes,
            next: 0,
            current: (0, 0),
            witness: None,
        })
    }

    /// Remembers what is read from now on, for [`Self::confirm`]. To be called before anything is
    /// read in order; costs a hash of the content.
    pub fn watch(&mut self) {
        self.witness = Some(Box::default());
    }

    /// Whether what is remembered can be confirmed.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.witness.is_some()
    }

    /// Reads the file once more, up to the length it had when it was opened, and says whether that
    /// is what was read before. If it is, then that was its content at the moment the first
    /// reading ended, unless a byte was changed and changed back in between.
    ///
    /// # Errors
    /// Fails if the file cannot be read.
    pub fn confirm(&mut self) -> Result<bool, SourceError> {
        let Some(before) = self.witness.replace(Box::default()) else { return Ok(false) };
        self.next = 0;
        let mut buffer = vec![0; CONFIRM_BYTES];
        while let Some(segment) = self.next_segment()? {
            while matches!(segment, Segment::Data { .. }) && self.read_into(&mut buffer)? > 0 {}
        }
        Ok(self.witness.as_ref().is_some_and(|now| now.agrees(&before)))
    }

    /// Length in bytes when it was opened; nothing beyond is read.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.opened.bytes
    }

    /// What it was when it was opened. Where this is not what the walk met, the metadata of the
    /// walk is outdated.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.opened
    }

    /// Whether it is a block device.
    #[must_use]
    pub fn is_device(&self) -> bool {
        self.device
    }

    /// The path, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next run of data or hole, `None` at the end. The runs join without gaps.
    ///
    /// # Errors
    /// Fails if the file system does.
    pub fn next_segment(&mut self) -> Result<Option<Segment>, SourceError> {
        let (offset, end) = (self.next, self.opened.bytes);
        if offset >= end {
            self.current = (end, end);
            return Ok(None);
        }
        let data = if self.detect_holes { self.seek_data(offset)? } else { offset };
        if data > offset {
            let until = data.min(end);
            self.next = until;
            self.current = (until, until);
            if let Some(witness) = &mut self.witness {
                witness.hole(until - offset);
            }
            return Ok(Some(Segment::Hole { offset, bytes: until - offset }));
        }
        let until = if self.detect_holes { self.seek_hole(offset)?.min(end) } else { end };
        self.next = until;
        self.current = (offset, until);
        Ok(Some(Segment::Data { offset, bytes: until - offset }))
    }

    /// Reads on in the current data segment until the buffer is full; the number of bytes read is
    /// smaller only at the segment's end, or where the file was cut short (see [`Self::finish`]).
    ///
    /// # Errors
    /// Fails if the file cannot be read.
    pub fn read_into(&mut self, buffer: &mut [u8]) -> Result<usize, SourceError> {
        let (offset, end) = self.current;
        let left = usize::try_from(end - offset).unwrap_or(usize::MAX);
        let room = buffer.len().min(left);
        let read = self.read_at(offset, buffer.get_mut(..room).unwrap_or_default())?;
        self.current.0 += read as u64;
        if let Some(witness) = &mut self.witness {
            witness.data(buffer.get(..read).unwrap_or_default());
        }
        Ok(read)
    }

    /// Reads at an offset until the buffer is full; the number of bytes read is smaller only at
    /// the end of the file.
    ///
    /// # Errors
    /// Fails if the file cannot be read.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, SourceError> {
        let mut done = 0;
        while let Some(room) = buffer.get_mut(done..).filter(|room| !room.is_empty()) {
            match rustix::io::pread(&self.file, room, offset.saturating_add(done as u64)) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(Errno::INTR) => {}
                Err(error) => return Err(SourceError::io("read", &self.path, error)),
            }
        }
        Ok(done)
    }

    /// Says whether the file held still since it was opened. A device is not asked: it has no
    /// times that tell.
    ///
    /// # Errors
    /// Fails if the file cannot be looked at.
    pub fn finish(&self) -> Result<Stillness, SourceError> {
        if self.device {
            return Ok(Stillness::Unchanged);
        }
        let stat = rustix::fs::fstat(&self.file)
            .map_err(|error| SourceError::io("look at", &self.path, error))?;
        let now = Fingerprint::of(&stat);
        Ok(match now.bytes.cmp(&self.opened.bytes) {
            std::cmp::Ordering::Less => Stillness::Shrunk(now),
            std::cmp::Ordering::Greater => Stillness::Grown(now),
            std::cmp::Ordering::Equal if now == self.opened => Stillness::Unchanged,
            std::cmp::Ordering::Equal => Stillness::Changed(now),
        })
    }

    fn seek_data(&mut self, offset: u64) -> Result<u64, SourceError> {
        match rustix::fs::seek(&self.file, SeekFrom::Data(offset)) {
            Ok(data) => Ok(data.max(offset)),
            // No data up to the end.
            Err(Errno::NXIO) => Ok(self.opened.bytes),
            Err(Errno::INVAL | Errno::OPNOTSUPP) => {
                self.detect_holes = false;
                Ok(offset)
            }
            Err(error) => Err(self.seek_failed(error)),
        }
    }

    fn seek_hole(&mut self, offset: u64) -> Result<u64, SourceError> {
        match rustix::fs::seek(&self.file, SeekFrom::Hole(offset)) {
            // An answer that leads nowhere must not become an endless loop.
            Ok(hole) if hole > offset => Ok(hole),
            // Cut short in between: what is missing is found by reading.
            Ok(_) | Err(Errno::NXIO) => Ok(self.opened.bytes),
            Err(error) => Err(self.seek_failed(error)),
        }
    }

    fn seek_failed(&self, error: Errno) -> SourceError {
        SourceError::io("find the holes of", &self.path, io::Error::from(error))
    }
}
