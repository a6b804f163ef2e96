//! `cairn version`

use cairn_format::format_object::FORMAT_VERSION;
use serde_json::json;

use super::{App, Finished};
use crate::ui::errors::Failure;
use crate::ui::json::VERSION;

pub(super) fn run(app: &App) -> Result<Finished, Failure> {
    let version = env!("CARGO_PKG_VERSION");
    app.printer.line(&format!("cairn {version} (repository format {FORMAT_VERSION})"))?;
    Ok(Finished::with(json!({
        "version": version,
        "format_version": FORMAT_VERSION,
        "json_version": VERSION,
    })))
}
