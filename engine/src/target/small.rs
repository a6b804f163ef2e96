//! Files whose content comes in one piece are made, written and finished in one go, from any thread:
//! three passes would open each of them three times.

use cairn_format::tree::Meta;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::contain::SafePath;
use super::create::{Overwrite, Target};
use super::error::TargetError;
use crate::timings::Stage;

impl Target {
    /// Whether [`Self::create_whole`] is worth a try: nothing is expected where files are made.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.options.overwrite == Overwrite::Never && !self.options.zeros_to_holes
    }

    /// Makes a file with one name, writes all of its content, and gives it what was recorded of it.
    /// The directories above must have been made. Returns what could not be applied; `None` when it
    /// cannot be made: [`Self::create`] then says why, or makes it where something was.
    ///
    /// # Errors
    /// Fails if writing fails; the file is there then, incomplete.
    pub fn create_whole(
        &self,
        path: &SafePath,
        meta: &Meta,
        content: &[u8],
    ) -> Result<Option<Vec<TargetError>>, TargetError> {
        let writing = self.timings.span(Stage::Write, content.len() as u64);
        let Ok(slot) = self.root.slot(path) else { return Ok(None) };
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let private = Mode::RUSR | Mode::WUSR;
        let made = rustix::fs::openat(slot.parent(), slot.name, flags, private);
        let Ok(file) = made else { return Ok(None) };
        let mut done = 0;
        while let Some(rest) = content.get(done..).filter(|rest| !rest.is_empty()) {
            match rustix::io::write(&file, rest) {
                Ok(0) => return Err(slot.failed("write", Errno::IO)),
                Ok(written) => done += written,
                Err(Errno::INTR) => {}
                Err(error) => return Err(slot.failed("write", error)),
            }
        }
        drop(writing);
        Ok(Some(self.finish_open(file, path, meta)))
    }
}
