//! The command line of cairn: arguments, configuration, output and exit codes. Everything that
//! touches a repository is the engine's; [`commands`] hands over options and shows reports.

use std::ffi::OsString;
use std::sync::{Arc, OnceLock};

use clap::Parser as _;
use clap::error::ErrorKind;
use serde_json::Value;

use crate::arguments::{Arguments, Global};
use crate::commands::{App, Finished, requests};
use crate::exit_code::{ExitCode, SIGPIPE};
use crate::settings::Environment;
use crate::signals::Interrupt;
use crate::ui::errors::{CliError, Failure};
use crate::ui::json;
use crate::ui::printer::Printer;

pub mod arguments;
pub mod commands;
pub mod config;
pub mod exit_code;
pub mod help;
pub mod ledger;
pub mod mount;
pub mod places;
pub mod prices;
pub mod replicas;
pub mod secrets;
pub mod session;
pub mod settings;
pub mod signals;
pub mod tried;
pub mod ui;

/// Runs one command; returns what the process exits with.
pub fn run(arguments: impl Iterator<Item = OsString>, environment: Environment) -> u8 {
    let arguments: Vec<OsString> = arguments.collect();
    let parsed = match Arguments::try_parse_from(&arguments) {
        Ok(parsed) => parsed,
        Err(error) => return refuse(&arguments, &environment, &error).number(),
    };
    let printer = Arc::new(Printer::new(&parsed.global, &environment));
    let interrupt = Interrupt::default();
    let app = App {
        printer: Arc::clone(&printer),
        global: parsed.global,
        environment,
        interrupt: interrupt.clone(),
        store: OnceLock::new(),
        config: OnceLock::new(),
        webdav_host: OnceLock::new(),
    };
    let name = commands::name(&parsed.command);
    let result = commands::run(&app, &parsed.command);
    requests::remember(&app, name);
    conclude(&printer, name, result, requests::tell(&app), &interrupt).number()
}

/// Prints the result and decides the exit code.
fn conclude(
    printer: &Printer,
    command: &str,
    result: Result<Finished, Failure>,
    requests: Option<Value>,
    interrupt: &Interrupt,
) -> ExitCode {
    let (exit, printed) = match result {
        Ok(finished) => {
            let reason = finished.reason.as_ref().map(|(code, text)| (*code, text.as_str()));
            if let Some((_, text)) = reason {
                printer.reason(text, finished.exit);
            }
            let report = finished.report.as_ref();
            let outcome = json::Outcome::finished(command, finished.exit, reason, report);
            (finished.exit, printer.event(&outcome.with_requests(requests)))
        }
        Err(failure) if failure.code == CliError::CLOSED => {
            (failure.exit, Err(CliError::PipeClosed))
        }
        Err(mut failure) => {
            if let Some(signal) = interrupt.signal() {
                failure.exit = ExitCode::Signal(signal);
            }
            printer.failure(&failure);
            let outcome = json::Outcome::failed(command, &failure).with_requests(requests);
            (failure.exit, printer.event(&outcome))
        }
    };
    match printed.and_then(|()| printer.flush()) {
        Ok(()) => exit,
        Err(CliError::PipeClosed) => exit.worst(ExitCode::Signal(SIGPIPE)),
        Err(error) => {
            let failure = Failure::from(error);
            printer.failure(&failure);
            exit.worst(failure.exit)
        }
    }
}

/// Help, version, or what is wrong with the arguments.
fn refuse(arguments: &[OsString], environment: &Environment, error: &clap::Error) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // Standard output may be closed: `cairn --help | head`.
        let _ = error.print();
        return ExitCode::Done;
    }
    let before_command = arguments.iter().take_while(|argument| *argument != "--");
    if !before_command.into_iter().any(|argument| argument == "--json") {
        let _ = error.print();
        return ExitCode::Usage;
    }
    let printer = Printer::new(&Global { json: true, ..Global::default() }, environment);
    let text = error.render().to_string();
    let message = text.lines().next().unwrap_or_default();
    let failure = Failure {
        exit: ExitCode::Usage,
        code: "usage.arguments",
        message: message.strip_prefix("error: ").unwrap_or(message).to_owned(),
        hint: Some("see `cairn --help`".to_owned()),
    };
    conclude(&printer, "", Err(failure), None, &Interrupt::default())
}
