//! Arguments of `key`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum, ValueHint};

/// `key …`
#[derive(Debug, Subcommand)]
pub enum Key {
    /// List the key slots; needs no key
    List,
    /// Add a key
    Add(KeyAdd),
    /// Remove a key
    Remove(KeyRemove),
    /// Make an X25519 identity in a new file, and print its public half
    NewRecipient(KeyNewRecipient),
}

/// `key add`
#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("new").multiple(false))]
pub struct KeyAdd {
    /// What the key may do
    #[arg(long, value_name = "ROLE", default_value = "owner")]
    pub role: Role,
    /// Name of the key, for people
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub label: String,
    /// The new passphrase is in this file
    #[arg(long, value_name = "FILE", group = "new", value_hint = ValueHint::FilePath)]
    pub new_password_file: Option<PathBuf>,
    /// The new passphrase is the output of this command
    #[arg(long, value_name = "COMMAND", group = "new")]
    pub new_password_command: Option<OsString>,
    /// The new key is this file's content
    #[arg(long, value_name = "FILE", group = "new", value_hint = ValueHint::FilePath)]
    pub new_key_file: Option<PathBuf>,
    /// The new key is this command's output
    #[arg(long, value_name = "COMMAND", group = "new")]
    pub new_key_command: Option<OsString>,
    /// The new key is the identity with this public half
    #[arg(long, value_name = "PUBLIC", group = "new")]
    pub recipient: Option<String>,
    /// Say what would be added
    #[arg(long)]
    pub dry_run: bool,
}

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Everything, also managing keys.
    Owner,
    /// Backs up, and can read nothing.
    Writer,
    /// Lists, restores and verifies.
    Reader,
    /// A reader that also collects garbage.
    Maintainer,
}

/// `key remove`
#[derive(Args, Debug)]
pub struct KeyRemove {
    /// A unique prefix of the slot's id
    #[arg(value_name = "SLOT")]
    pub slot: String,
    /// Say what would be done
    #[arg(long)]
    pub dry_run: bool,
}

/// `key new-recipient`
#[derive(Args, Debug)]
pub struct KeyNewRecipient {
    /// File to make; it must not exist
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
}
