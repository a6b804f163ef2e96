//! Arguments of what is generated from this definition: `completions` and `man`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

/// `completions`
#[derive(Args, Debug)]
pub struct Completions {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// `man`
#[derive(Args, Debug)]
pub struct Man {
    /// Folder for the pages; made if missing
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub folder: PathBuf,
}
