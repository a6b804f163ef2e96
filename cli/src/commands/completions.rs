//! `cairn completions`

use clap::CommandFactory as _;

use super::{App, Finished, no_json};
use crate::arguments::{Arguments, Completions};
use crate::ui::errors::{CliError, Failure};

pub(super) fn run(app: &App, arguments: &Completions) -> Result<Finished, Failure> {
    no_json(app, "completions")?;
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Arguments::command(), "cairn", &mut script);
    let script = String::from_utf8(script)
        .map_err(|error| CliError::Output(std::io::Error::other(error)))?;
    app.printer.line(script.trim_end())?;
    Ok(Finished::default())
}
