//! The only place that writes: data to standard output, everything else to standard error.

use std::io::{self, BufWriter, IsTerminal as _, Stdout, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use cairn_engine::context::Remark;
use indicatif::ProgressBar;
use serde::Serialize;

use super::errors::{CliError, Failure};
use super::{format, json};
use crate::arguments::Global;
use crate::exit_code::ExitCode;
use crate::settings::{self, Environment};

/// How much is said on standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Warnings and errors.
    Quiet,
    /// And progress, and what was done.
    Normal,
    /// And details.
    Verbose,
}

/// Writes for people or, with `--json`, for programs.
pub struct Printer {
    json: bool,
    verbosity: Verbosity,
    stderr_colored: bool,
    moving: bool,
    stdout: Mutex<BufWriter<Stdout>>,
    bar: Mutex<Option<ProgressBar>>,
}

const RED: &str = "\x1b[1;31m";
const YELLOW: &str = "\x1b[33m";
const CYAN: &str = "\x1b[36m";
const PLAIN: &str = "\x1b[0m";

impl Printer {
    /// A printer as options, environment and streams ask for.
    #[must_use]
    pub fn new(global: &Global, environment: &Environment) -> Self {
        let terminal = io::stderr().is_terminal();
        Self {
            json: global.json,
            verbosity: match (global.quiet, global.verbose) {
                (true, _) => Verbosity::Quiet,
                (false, false) => Verbosity::Normal,
                (false, true) => Verbosity::Verbose,
            },
            stderr_colored: settings::colored(global.color, environment, terminal),
            moving: terminal && !settings::is_dumb(environment),
            stdout: Mutex::new(BufWriter::new(io::stdout())),
            bar: Mutex::new(None),
        }
    }

    /// Whether output is for programs.
    #[must_use]
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// How much is said.
    #[must_use]
    pub fn verbosity(&self) -> Verbosity {
        self.verbosity
    }

    /// Whether standard error is a terminal that can redraw a line.
    #[must_use]
    pub fn is_moving(&self) -> bool {
        self.moving
    }

    /// A line of data for people; nothing with `--json`.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn line(&self, line: &str) -> Result<(), CliError> {
        if self.json {
            return Ok(());
        }
        self.write(|out| writeln!(out, "{line}"))
    }

    /// A line that tells what was done: data for people, but not with `--quiet`.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn summary(&self, line: &str) -> Result<(), CliError> {
        if self.verbosity == Verbosity::Quiet { Ok(()) } else { self.line(line) }
    }

    /// An object for programs; nothing without `--json`.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn event(&self, event: &impl Serialize) -> Result<(), CliError> {
        if !self.json {
            return Ok(());
        }
        let mut line = serde_json::to_vec(event).map_err(|error| CliError::Output(error.into()))?;
        line.push(b'\n');
        self.write(|out| out.write_all(&line))
    }

    /// Writes what has been gathered.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn flush(&self) -> Result<(), CliError> {
        self.write(Write::flush)
    }

    /// Standard output for raw bytes: the content of files.
    #[must_use]
    pub fn raw(&self) -> RawOutput<'_> {
        RawOutput { printer: self }
    }

    /// A remark on how things go, on standard error; not with `--quiet`.
    pub fn note(&self, line: &str) {
        if self.verbosity >= Verbosity::Normal {
            self.stderr(line);
        }
    }

    /// A line that was asked for by an option, on standard error, for people.
    pub fn asked(&self, line: &str) {
        if !self.json {
            self.stderr(line);
        }
    }

    /// A detail, on standard error; only with `--verbose`.
    pub fn detail(&self, line: &str) {
        if self.verbosity >= Verbosity::Verbose {
            self.stderr(line);
        }
    }

    /// A warning about one thing: a line on standard error, and an object with `--json`.
    pub fn warning(&self, remark: &Remark) {
        let mut line = format::text(&remark.message);
        if !remark.subject.is_empty() && !remark.message.contains(&remark.subject) {
            line = format!("{}: {line}", format::name(remark.subject.as_bytes()));
        }
        self.stderr(&format!("{} {line}", self.painted(YELLOW, "warning:")));
        // A reader that is gone is noticed when the result is written.
        let _ = self.event(&json::Warning::from(remark));
    }

    /// Why a command that went through does not end with 0, on standard error.
    pub fn reason(&self, fact: &str, exit: ExitCode) {
        let word = match exit {
            ExitCode::Unread => self.painted(YELLOW, "warning:"),
            _ => self.painted(RED, "error:"),
        };
        self.stderr(&format!("{word} {} (exit {})", format::text(fact), exit.number()));
    }

    /// Why the command failed, on standard error.
    pub fn failure(&self, failure: &Failure) {
        let lines = failure.lines();
        let lines = match lines.strip_prefix("error:") {
            Some(rest) => format!("{}{rest}", self.painted(RED, "error:")),
            None => lines,
        };
        self.stderr(&lines.replacen("  hint:", &self.painted(CYAN, "  hint:"), 1));
    }

    /// The bar that other lines on standard error must not run into.
    pub fn set_bar(&self, bar: Option<ProgressBar>) {
        *lock(&self.bar) = bar;
    }

    fn painted(&self, color: &str, word: &str) -> String {
        if self.stderr_colored { format!("{color}{word}{PLAIN}") } else { word.to_owned() }
    }

    fn stderr(&self, line: &str) {
        // Nobody can be told that standard error is gone.
        let write = || drop(writeln!(io::stderr().lock(), "{line}"));
        match &*lock(&self.bar) {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    fn write(
        &self,
        write: impl FnOnce(&mut BufWriter<Stdout>) -> io::Result<()>,
    ) -> Result<(), CliError> {
        write(&mut lock(&self.stdout)).map_err(CliError::output)
    }
}

/// Standard output for the content of files.
pub struct RawOutput<'a> {
    printer: &'a Printer,
}

impl Write for RawOutput<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        lock(&self.printer.stdout).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        lock(&self.printer.stdout).flush()
    }
}

/// A panic elsewhere must not silence the rest of the program.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
