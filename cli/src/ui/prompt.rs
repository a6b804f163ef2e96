//! Asking for a secret on the terminal.

use std::fs::File;
use std::io::{self, Read as _, Write as _};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

/// The terminal that the process belongs to, whatever its streams are.
const TERMINAL: &str = "/dev/tty";

/// Longest line that a terminal hands over, bytes.
const LINE_BYTES_MAX: usize = 4096;

/// Asks a question; returns the line that is typed, with its end, and never shows it. What was
/// typed before the question is dropped, because it was shown.
///
/// # Errors
/// When there is no terminal, or it is closed before the line ends.
pub fn ask_hidden(question: &str) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut terminal = File::options().read(true).write(true).open(TERMINAL)?;
    let hidden = Hidden::begin(terminal.try_clone()?)?;
    // Only now: whoever sees the question may answer at once.
    terminal.write_all(question.as_bytes())?;
    let mut line = Zeroizing::new(Vec::with_capacity(LINE_BYTES_MAX));
    let mut buffer = Zeroizing::new([0; LINE_BYTES_MAX]);
    while line.last() != Some(&b'\n') {
        let length = terminal.read(&mut *buffer)?;
        let read = buffer.get(..length).unwrap_or_default();
        if read.is_empty() || line.len() + length > LINE_BYTES_MAX {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        line.extend_from_slice(read);
    }
    drop(hidden);
    terminal.write_all(b"\n")?;
    Ok(line)
}

/// A terminal that shows nothing of what is typed, until this is dropped.
struct Hidden {
    terminal: File,
    before: Termios,
}

impl Hidden {
    fn begin(terminal: File) -> io::Result<Self> {
        let before = tcgetattr(&terminal)?;
        let mut during = before.clone();
        during.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&terminal, OptionalActions::Flush, &during)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // A terminal that is gone needs no repair.
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}
