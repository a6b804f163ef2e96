//! Snapshots that are shown at a directory.

use serde::Serialize;

use super::Path;

/// They are there from now on.
#[derive(Debug, Serialize)]
pub struct Mounted<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(flatten)]
    path: Path<'a>,
    snapshots: usize,
}

impl<'a> Mounted<'a> {
    /// So many snapshots at a directory.
    #[must_use]
    pub fn new(directory: &'a [u8], snapshots: usize) -> Self {
        Self { kind: "mounted", path: Path::from(directory), snapshots }
    }
}
