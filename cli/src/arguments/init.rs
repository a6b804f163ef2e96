//! Arguments of `init`.

use clap::{Args, ValueEnum};

use super::values::{ParityShare, Within, parse_parity, parse_within};
use crate::ui::format::parse_bytes;

/// `init`
#[derive(Args, Debug)]
pub struct Init {
    /// Cipher of everything stored; by default AES-256-GCM where the processor has AES
    #[arg(long, value_name = "CIPHER")]
    pub cipher: Option<Cipher>,
    /// Name of the first key, for people
    #[arg(long, value_name = "TEXT", default_value = "owner")]
    pub label: String,
    /// Length at which a pack is closed
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    pub pack_size: Option<u64>,
    /// Add parity to each pack, so that damage of up to about this share of a pack heals without
    /// another copy: 0.1% to 50%. It costs as much room
    #[arg(long, value_name = "PERCENT", value_parser = parse_parity)]
    pub parity: Option<ParityShare>,
    /// How soon what expired must be gone: storage that locks objects for longer is refused. `72h`,
    /// `7d`, or `never`
    #[arg(long, value_name = "TIME", default_value = "72h", value_parser = parse_within)]
    pub erase_within: Within,
    /// Say what would be made
    #[arg(long)]
    pub dry_run: bool,
}

/// Ciphers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Cipher {
    /// Fastest where the processor has AES.
    #[value(name = "aes-256-gcm")]
    Aes256Gcm,
    /// Fast everywhere.
    #[value(name = "xchacha20-poly1305")]
    XChaCha20Poly1305,
}
