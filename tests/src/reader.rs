//! The independent reader: Python, written from the text of the format alone.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The root of the source tree.
///
/// # Panics
/// Never: this crate lies below it.
#[must_use]
pub fn source_root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}

fn python() -> PathBuf {
    let python = source_root().join(".venv/bin/python3");
    assert!(python.exists(), "{} is missing: run tests/setup/setup.sh first", python.display());
    python
}

/// Runs the reader on a repository in a folder. `credential` is one of its options with its value.
///
/// # Panics
/// When it is not installed or cannot be started.
#[must_use]
pub fn read(repository: &Path, credential: [&str; 2], arguments: &[&str]) -> Output {
    Command::new(python())
        .current_dir(source_root().join("format-spec/reader"))
        .args(["-B", "-m", "cairn_reader"])
        .arg(repository)
        .args(credential)
        .args(arguments)
        .output()
        .expect("python starts")
}

/// Restores a snapshot with the reader and fails unless everything was sound.
///
/// # Panics
/// With what the reader said.
#[track_caller]
pub fn restore(
    repository: &Path,
    credential: [&str; 2],
    snapshot: &str,
    target: &Path,
    from_packs: bool,
) {
    let target = target.to_str().expect("a temporary path is UTF-8");
    let mut arguments = vec!["restore", snapshot, target];
    arguments.extend(from_packs.then_some("--from-packs"));
    let output = read(repository, credential, &arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the reader ended with {}: {stderr}", output.status);
}
