//! Values of options that need a parser of their own: shares, rates, times.

use std::num::NonZeroU64;

use cairn_engine::parity::PARITY_PER_MILLE_MAX;

use crate::ui::format::parse_bytes;

/// How much parity packs have, thousandths of their data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParityShare(pub u16);

/// Reads a share such as `8%` or `2.5%`, with at most one decimal.
pub(super) fn parse_parity(text: &str) -> Result<ParityShare, String> {
    let number = text.strip_suffix('%').unwrap_or(text);
    let (whole, tenths) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let share = (digits(whole) && digits(tenths) && tenths.len() == 1)
        .then(|| format!("{whole}{tenths}").parse::<u16>().ok())
        .flatten()
        .filter(|share| (1..=PARITY_PER_MILLE_MAX).contains(share));
    share.map(ParityShare).ok_or_else(|| "expected 0.1% to 50%, such as 8% or 2.5%".to_owned())
}

/// Reads a number of bytes in a second, at least one.
pub(super) fn parse_rate(text: &str) -> Result<NonZeroU64, String> {
    NonZeroU64::new(parse_bytes(text)?).ok_or_else(|| "nothing would ever move".to_owned())
}

/// Reads a share: more than 0, at most 100.
pub(super) fn parse_percent(text: &str) -> Result<f64, String> {
    let percent: f64 = text.parse().map_err(|_| format!("`{text}` is not a number"))?;
    let usable = percent > 0.0 && percent <= 100.0;
    usable.then_some(percent).ok_or_else(|| format!("{text} is not above 0 and at most 100"))
}

/// Reads a share: 0 to 100.
pub(super) fn parse_share(text: &str) -> Result<f64, String> {
    let percent: f64 = text.parse().map_err(|_| format!("`{text}` is not a number"))?;
    let usable = (0.0..=100.0).contains(&percent);
    usable.then_some(percent).ok_or_else(|| format!("{text} is not between 0 and 100"))
}

/// How long expired data may stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Within {
    /// As long as it likes.
    Never,
    /// So long, milliseconds.
    Milliseconds(u64),
}

const HOUR_MS: u64 = 60 * 60 * 1000;

/// Reads a number with one of these units, in milliseconds; `None` if it is none, or 0.
fn parse_ms(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    units.iter().find_map(|(unit, unit_ms)| {
        let number = text.strip_suffix(unit)?.parse::<u64>().ok()?;
        number.checked_mul(*unit_ms).filter(|_| number > 0)
    })
}

/// Reads a time such as `72h`, `7d` or `2w`, or `never`.
pub(crate) fn parse_within(text: &str) -> Result<Within, String> {
    if text == "never" {
        return Ok(Within::Never);
    }
    parse_ms(text, &[("h", HOUR_MS), ("d", 24 * HOUR_MS), ("w", 7 * 24 * HOUR_MS)])
        .map(Within::Milliseconds)
        .ok_or_else(|| "expected a time such as 72h, 7d, or never".to_owned())
}

/// How long a place may get nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GiveUp {
    /// As long as it likes.
    Never,
    /// So long, milliseconds.
    AfterMs(u64),
}

impl Default for GiveUp {
    fn default() -> Self {
        Self::AfterMs(HOUR_MS / 4)
    }
}

/// Reads a time such as `90s`, `15m` or `2h`, or `never`.
pub(crate) fn parse_give_up(text: &str) -> Result<GiveUp, String> {
    if text == "never" {
        return Ok(GiveUp::Never);
    }
    parse_ms(text, &[("s", 1000), ("m", 60 * 1000), ("h", HOUR_MS)])
        .map(GiveUp::AfterMs)
        .ok_or_else(|| "expected a time such as 90s, 15m, 2h, or never".to_owned())
}
