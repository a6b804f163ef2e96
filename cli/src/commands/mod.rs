//! One file a command: options to the engine, its report to the printer.

use std::sync::{Arc, OnceLock};

use cairn_engine::store::Store;
use serde_json::Value;

use crate::arguments::{Command, Erasure, Global, Key, Lock, Repair, RepairCommand};
use crate::config::Config;
use crate::exit_code::ExitCode;
use crate::settings::{self, Environment};
use crate::signals::Interrupt;
use crate::ui::errors::{CliError, Failure};
use crate::ui::printer::Printer;

mod backup;
mod cache;
mod completions;
mod diff;
mod dump;
mod erase;
mod erasure;
mod find;
mod forget;
mod gc;
mod init;
mod key;
mod lock;
mod ls;
mod man;
mod mount;
mod repair;
mod repair_index;
mod replicate;
pub mod requests;
mod restore;
mod snapshots;
mod stats;
mod target;
mod verify;
mod version;

/// What every command is given.
pub struct App {
    /// Options that apply to every command.
    pub global: Global,
    /// The environment.
    pub environment: Environment,
    /// Where output goes.
    pub printer: Arc<Printer>,
    /// Whether the person asked to stop.
    pub interrupt: Interrupt,
    /// The store of the repository, once it is open: it counts its requests.
    pub store: OnceLock<Arc<dyn Store>>,
    /// The configuration file, once it was read.
    pub config: OnceLock<Config>,
    /// The one WebDAV host that is told what the environment holds for such hosts.
    pub webdav_host: OnceLock<String>,
}

impl App {
    /// Remembers the store, to tell what its requests were.
    pub fn opened(&self, store: &Arc<dyn Store>) {
        // A command opens one repository.
        let _first = self.store.set(Arc::clone(store));
    }

    /// What the configuration file says; it is read once.
    ///
    /// # Errors
    /// As [`settings::config`].
    pub fn config(&self) -> Result<&Config, CliError> {
        if let Some(config) = self.config.get() {
            return Ok(config);
        }
        let config = settings::config(&self.global, &self.environment)?;
        Ok(self.config.get_or_init(|| config))
    }
}

/// How a command ended that did what it could.
#[derive(Debug, Default)]
pub struct Finished {
    /// The exit code.
    pub exit: ExitCode,
    /// Why it is not 0: stable name, and fact.
    pub reason: Option<(&'static str, String)>,
    /// What the command reports with `--json`.
    pub report: Option<Value>,
}

impl Finished {
    /// All is well, and this is the report.
    #[must_use]
    pub fn with(report: Value) -> Self {
        Self { report: Some(report), ..Self::default() }
    }

    /// The same report with a reason to be careful; of several, the gravest stays.
    #[must_use]
    pub fn but(mut self, exit: ExitCode, code: &'static str, fact: String) -> Self {
        if self.exit.worst(exit) != self.exit {
            self.exit = exit;
            self.reason = Some((code, fact));
        }
        self
    }
}

/// Name of a command, as it stands in results.
#[must_use]
pub fn name(command: &Command) -> &'static str {
    match command {
        Command::Init(_) => "init",
        Command::Backup(_) => "backup",
        Command::Snapshots(_) => "snapshots",
        Command::Ls(_) => "ls",
        Command::Find(_) => "find",
        Command::Diff(_) => "diff",
        Command::Dump(_) => "dump",
        Command::Restore(_) => "restore",
        Command::Mount(_) => "mount",
        Command::Verify(_) => "verify",
        Command::Forget(_) => "forget",
        Command::Replicate(_) => "replicate",
        Command::Lock(Lock::Extend(_)) => "lock extend",
        Command::Lock(Lock::Status(_)) => "lock status",
        Command::Stats(_) => "stats",
        Command::Key(Key::List) => "key list",
        Command::Key(Key::Add(_)) => "key add",
        Command::Key(Key::Remove(_)) => "key remove",
        Command::Key(Key::NewRecipient(_)) => "key new-recipient",
        Command::Gc(_) => "gc",
        Command::Erase(_) => "erase",
        Command::Erasure(Erasure::Report(_)) => "erasure report",
        Command::Repair(Repair { command: Some(RepairCommand::Index(_)), .. }) => "repair index",
        Command::Repair(Repair { command: None, .. }) => "repair",
        Command::Cache(_) => "cache",
        Command::Completions(_) => "completions",
        Command::Man(_) => "man",
        Command::Version => "version",
    }
}

/// Runs a command.
///
/// # Errors
/// When it could not do what was asked.
pub fn run(app: &App, command: &Command) -> Result<Finished, Failure> {
    match command {
        Command::Init(arguments) => init::run(app, arguments),
        Command::Backup(arguments) => backup::run(app, arguments),
        Command::Snapshots(arguments) => snapshots::run(app, arguments),
        Command::Ls(arguments) => ls::run(app, arguments),
        Command::Find(arguments) => find::run(app, arguments),
        Command::Diff(arguments) => diff::run(app, arguments),
        Command::Dump(arguments) => dump::run(app, arguments),
        Command::Restore(arguments) => restore::run(app, arguments),
        Command::Mount(arguments) => mount::run(app, arguments),
        Command::Verify(arguments) => verify::run(app, arguments),
        Command::Forget(arguments) => forget::run(app, arguments),
        Command::Replicate(arguments) => replicate::run(app, arguments),
        Command::Lock(command) => lock::run(app, command),
        Command::Stats(arguments) => stats::run(app, arguments),
        Command::Key(command) => key::run(app, command),
        Command::Gc(arguments) => gc::run(app, arguments),
        Command::Erase(arguments) => erase::run(app, arguments),
        Command::Erasure(Erasure::Report(arguments)) => erasure::run(app, arguments),
        Command::Repair(arguments) => repair::run(app, arguments),
        Command::Cache(command) => cache::run(app, command),
        Command::Completions(arguments) => completions::run(app, arguments),
        Command::Man(arguments) => man::run(app, arguments),
        Command::Version => version::run(app),
    }
}

/// Refuses `--json` where standard output carries something else.
fn no_json(app: &App, command: &str) -> Result<(), Failure> {
    if !app.printer.is_json() {
        return Ok(());
    }
    let problem = format!("`{command}` writes its data to standard output, which --json excludes");
    Err(CliError::Usage { problem, hint: "leave out --json" }.into())
}
