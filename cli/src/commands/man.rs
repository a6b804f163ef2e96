//! `cairn man`

use std::fs;

use clap::CommandFactory as _;
use serde_json::json;

use super::{App, Finished};
use crate::arguments::{Arguments, Man};
use crate::ui::errors::{CliError, Failure};

pub(super) fn run(app: &App, arguments: &Man) -> Result<Finished, Failure> {
    let folder = &arguments.folder;
    let failed = |source| CliError::File {
        action: "write the manual pages into",
        path: folder.clone(),
        source,
    };
    fs::create_dir_all(folder).map_err(failed)?;
    clap_mangen::generate_to(Arguments::command(), folder).map_err(failed)?;
    app.printer.note(&format!("manual pages written into {}", folder.display()));
    Ok(Finished::with(json!({ "folder": folder.to_string_lossy() })))
}
