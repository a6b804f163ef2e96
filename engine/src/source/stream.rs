//! Sources that are streams of bytes: standard input, and the output of a command.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use super::error::SourceError;

/// As much of a command's standard error is kept for the message, bytes.
pub const STDERR_TAIL_BYTES: usize = 4 << 10;

/// What a pipe holds that is read from, bytes: what everybody may ask for. With the 64 KiB that pipes
/// have, reader and writer wake each other for every one of them.
const PIPE_BYTES: usize = 1 << 20;

/// How long a command is given to end after it was asked to, before it is killed.
const GRACE: Duration = Duration::from_secs(2);

/// How long to wait for the end of standard error after the command has ended; a process that
/// it left behind may hold it open for ever.
const STDERR_WAIT: Duration = Duration::from_secs(1);

/// How often an ending command is looked at.
const POLL: Duration = Duration::from_millis(10);

/// Has a pipe hold more than usual, if it is one. Only advice: a smaller one is read all the same.
pub fn widen(pipe: impl AsFd) {
    let _advice = rustix::pipe::fcntl_setpipe_size(pipe, PIPE_BYTES);
}

/// A stream to back up. What was read counts only once [`Self::finish`] succeeded.
pub trait StreamSource: Send {
    /// What it is, for messages.
    fn name(&self) -> &str;

    /// Reads some bytes, 0 at the end.
    ///
    /// # Errors
    /// Fails if the stream cannot be read.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, SourceError>;

    /// Says whether what was read is whole.
    ///
    /// # Errors
    /// Fails if the producer of the stream did.
    fn finish(self: Box<Self>) -> Result<(), SourceError>;
}

/// Any reader as a stream, such as standard input; it is whole when it ends.
pub struct ReaderSource<R> {
    name: String,
    reader: R,
}

impl<R: Read + Send> ReaderSource<R> {
    /// `name` is for messages, e.g. `standard input`.
    pub fn new(name: impl Into<String>, reader: R) -> Self {
        Self { name: name.into(), reader }
    }
}

impl<R: Read + Send> StreamSource for ReaderSource<R> {
    fn name(&self) -> &str {
        &self.name
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, SourceError> {
        read_some(&mut self.reader, &self.name, buffer)
    }

    fn finish(self: Box<Self>) -> Result<(), SourceError> {
        Ok(())
    }
}

fn read_some(reader: &mut impl Read, name: &str, buffer: &mut [u8]) -> Result<usize, SourceError> {
    loop {
        match reader.read(buffer) {
            Ok(read) => return Ok(read),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(SourceError::Stream { name: name.to_string(), cause }),
        }
    }
}

/// What becomes of a command's standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stderr {
    /// It goes where this process's goes.
    Inherit,
    /// Its last [`STDERR_TAIL_BYTES`] are kept for the message of a failure.
    Capture,
}

/// The standard output of a command, started without a shell in a process group of its own; the
/// whole group is ended if the source is dropped before the command has ended.
pub struct CommandSource {
    program: String,
    child: Child,
    /// The command has been waited for, so its number may already be another process's.
    reaped: bool,
    stdout: Option<ChildStdout>,
    ended: bool,
    stderr: Option<StderrTail>,
}

impl CommandSource {
    /// Starts a command, given as its words. It reads nothing from standard input.
    ///
    /// # Errors
    /// Fails if there is no word or the program cannot be started.
    pub fn spawn(words: &[OsString], stderr: Stderr) -> Result<Self, SourceError> {
        let (first, arguments) = words.split_first().ok_or(SourceError::EmptyCommand)?;
        let program = first.to_string_lossy().into_owned();
        let capture = match stderr {
            Stderr::Inherit => Stdio::inherit(),
            Stderr::Capture => Stdio::piped(),
        };
        let mut child = Command::new(first)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(capture)
            .process_group(0)
            .spawn()
            .map_err(|cause| SourceError::CommandStart { program: program.clone(), cause })?;
        let stdout = child.stdout.take();
        stdout.iter().for_each(widen);
        let stderr = child.stderr.take().map(StderrTail::follow);
        Ok(Self { program, child, reaped: false, stdout, ended: false, stderr })
    }

    fn wait(&mut self) -> Result<ExitStatus, SourceError> {
        let status = self.child.wait().map_err(|cause| SourceError::Stream {
            name: format!("the command {:?}", self.program),
            cause,
        })?;
        self.reaped = true;
        Ok(status)
    }

    /// Ends the command and everything it started in its group.
    fn stop(&mut self) {
        let group = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let (Some(group), false) = (group, self.reaped) else { return };
        // A group that is gone already is what is wanted.
        let _ = kill_process_group(group, Signal::TERM);
        let deadline = Instant::now() + GRACE;
        // The command stays unreaped until the group is killed, so that the group's number
        // cannot have become another's.
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        while matches!(waitid(WaitId::Pid(group), look), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(POLL);
        }
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.wait();
    }
}

impl StreamSource for CommandSource {
    fn name(&self) -> &str {
        &self.program
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, SourceError> {
        let Some(stdout) = self.stdout.as_mut() else { return Ok(0) };
        let read = read_some(stdout, &self.program, buffer)?;
        self.ended |= read == 0 && !buffer.is_empty();
        Ok(read)
    }

    fn finish(mut self: Box<Self>) -> Result<(), SourceError> {
        if !self.ended {
            return Err(SourceError::CommandUnread { program: self.program.clone() });
        }
        drop(self.stdout.take());
        let status = self.wait()?;
        let stderr_tail = self.stderr.take().map(StderrTail::end).unwrap_or_default();
        if status.success() {
            return Ok(());
        }
        let program = self.program.clone();
        Err(SourceError::CommandFailed { program, status: status.to_string(), stderr_tail })
    }
}

impl Drop for CommandSource {
    fn drop(&mut self) {
        drop(self.stdout.take());
        self.stop();
    }
}

/// Follows a command's standard error in a thread and keeps its end.
struct StderrTail {
    kept: Arc<Mutex<VecDeque<u8>>>,
    ended: Receiver<()>,
}

impl StderrTail {
    fn follow(mut stderr: impl Read + Send + 'static) -> Self {
        let kept = Arc::new(Mutex::new(VecDeque::with_capacity(STDERR_TAIL_BYTES)));
        let (end, ended) = channel();
        let shared = Arc::clone(&kept);
        std::thread::spawn(move || {
            let mut buffer = [0; 1024];
            while let Ok(read @ 1..) = read_some(&mut stderr, "standard error", &mut buffer) {
                let mut kept = shared.lock();
                kept.extend(buffer.get(..read).unwrap_or_default());
                let excess = kept.len().saturating_sub(STDERR_TAIL_BYTES);
                kept.drain(..excess);
            }
            // Nobody may be waiting any more.
            let _ = end.send(());
        });
        Self { kept, ended }
    }

    fn end(self) -> String {
        let _ = self.ended.recv_timeout(STDERR_WAIT);
        let mut kept = self.kept.lock();
        String::from_utf8_lossy(kept.make_contiguous()).trim().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, stderr: Stderr) -> Box<CommandSource> {
        let words = ["sh", "-c", script].map(OsString::from);
        Box::new(CommandSource::spawn(&words, stderr).unwrap())
    }

    fn drain(source: &mut dyn StreamSource) -> Vec<u8> {
        let (mut all, mut buffer) = (Vec::new(), [0; 777]);
        loop {
            match source.read(&mut buffer).unwrap() {
                0 => return all,
                read => all.extend_from_slice(&buffer[..read]),
            }
        }
    }

    #[test]
    fn pipes_are_widened_and_what_is_no_pipe_is_left_alone() {
        let (reader, _writer) = io::pipe().unwrap();
        widen(&reader);
        assert_eq!(rustix::pipe::fcntl_getpipe_size(&reader).unwrap(), PIPE_BYTES);
        widen(tempfile::tempfile().unwrap());
    }

    #[test]
    fn output_is_read_whole_and_success_counts() {
        let mut source =
            shell("i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done", Stderr::Inherit);
        let output = String::from_utf8(drain(&mut *source)).unwrap();
        assert_eq!(output.lines().count(), 2000);
        assert!(output.ends_with("line 1999\n"));
        source.finish().unwrap();
    }

    #[test]
    fn a_failing_command_fails_the_source_with_its_last_words() {
        let mut source = shell(
            "echo data; i=0; while [ $i -lt 1000 ]; do echo noise $i >&2; i=$((i+1)); done; \
             echo out of memory >&2; exit 7",
            Stderr::Capture,
        );
        assert_eq!(drain(&mut *source), b"data\n");
        match source.finish() {
            Err(SourceError::CommandFailed { program, status, stderr_tail }) => {
                assert_eq!((program.as_str(), status.as_str()), ("sh", "exit status: 7"));
                assert!(stderr_tail.ends_with("out of memory"), "{stderr_tail}");
                assert!(stderr_tail.len() <= STDERR_TAIL_BYTES);
                assert!(!stderr_tail.contains("noise 1\n"));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_killed_command_fails_the_source() {
        let mut source = shell("echo half; kill -KILL $$", Stderr::Inherit);
        assert_eq!(drain(&mut *source), b"half\n");
        assert!(matches!(source.finish(), Err(SourceError::CommandFailed { .. })));
    }

    #[test]
    fn success_without_reading_to_the_end_is_no_success() {
        let mut source = shell("echo everything", Stderr::Inherit);
        let mut buffer = [0; 4];
        assert_eq!(source.read(&mut buffer).unwrap(), 4);
        assert!(matches!(source.finish(), Err(SourceError::CommandUnread { .. })));
    }

    #[test]
    fn dropping_ends_the_whole_group() {
        // The inner shell refuses to end politely.
        let script = "sh -c 'trap : TERM; echo $$; while :; do sleep 1; done' & wait";
        let mut source = shell(script, Stderr::Inherit);
        let mut buffer = [0; 32];
        let read = source.read(&mut buffer).unwrap();
        let number: i32 = std::str::from_utf8(&buffer[..read]).unwrap().trim().parse().unwrap();
        drop(source);
        let sleeper = Pid::from_raw(number).unwrap();
        // The orphan is reaped by whoever adopted it; until then it is a zombie.
        let stopped = || {
            let alive = rustix::process::test_kill_process(sleeper).is_ok();
            let zombie = std::fs::read_to_string(format!("/proc/{number}/stat"))
                .is_ok_and(|stat| stat.contains(") Z "));
            !alive || zombie
        };
        while !stopped() {
            std::thread::sleep(POLL);
        }
    }

    #[test]
    fn a_background_process_holding_standard_error_does_not_block() {
        let mut source = shell("sleep 1000 >/dev/null & exit 3", Stderr::Capture);
        let group = Pid::from_raw(source.child.id() as i32).unwrap();
        assert_eq!(drain(&mut *source), b"");
        assert!(matches!(source.finish(), Err(SourceError::CommandFailed { .. })));
        kill_process_group(group, Signal::KILL).unwrap();
    }

    #[test]
    fn what_cannot_start_is_named() {
        match CommandSource::spawn(&["/nonexistent/dump".into()], Stderr::Inherit) {
            Err(SourceError::CommandStart { program, .. }) => {
                assert_eq!(program, "/nonexistent/dump");
            }
            other => panic!("{:?}", other.map(drop)),
        }
        assert!(matches!(
            CommandSource::spawn(&[], Stderr::Inherit),
            Err(SourceError::EmptyCommand)
        ));
    }

    #[test]
    fn a_failing_reader_is_named() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("gone"))
            }
        }
        let mut source = ReaderSource::new("standard input", Broken);
        match source.read(&mut [0; 8]) {
            Err(SourceError::Stream { name, .. }) => assert_eq!(name, "standard input"),
            other => panic!("{other:?}"),
        }
        let mut good = Box::new(ReaderSource::new("standard input", &b"abc"[..]));
        assert_eq!(drain(&mut *good), b"abc");
        good.finish().unwrap();
    }
}
