//! Numbers, times and names as text. Everything that came from a repository or a file system is
//! made harmless for a terminal here.

use std::fmt::Write as _;

use cairn_format::tree::Node;
use jiff::Timestamp;
use jiff::tz::TimeZone;

const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// A number of bytes for people: `812.0 GiB`. JSON always has the bytes themselves.
#[must_use]
pub fn bytes(amount: u64) -> String {
    let (mut scaled, mut unit) = (amount as f64, 0);
    // 1023.95 would be shown as 1024.0.
    while scaled >= 1023.95 && unit + 1 < UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    match (unit, UNITS.get(unit)) {
        (0, _) => format!("{amount} B"),
        (_, Some(name)) => format!("{scaled:.1} {name}"),
        (_, None) => format!("{amount} B"),
    }
}

/// Reads a size as people write it: `4096`, `64KiB`, `1.5 GiB`, `20M`. Every unit is a power of
/// 1024, with or without `i` and `B`.
///
/// # Errors
/// Says what is wrong with the text.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let split = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit = unit.trim().to_ascii_lowercase();
    let unit = unit.strip_suffix('b').unwrap_or(&unit);
    let unit = unit.strip_suffix('i').unwrap_or(unit);
    let power = ["", "k", "m", "g", "t", "p", "e"]
        .iter()
        .position(|name| *name == unit)
        .ok_or_else(|| format!("`{text}` has no known unit (B, KiB, MiB, GiB, TiB)"))?;
    let factor = 1u64 << (10 * power);
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor).ok_or_else(|| format!("`{text}` is too large"));
    }
    let fraction: f64 = number.parse().map_err(|_| format!("`{text}` is not a size"))?;
    let scaled = fraction * factor as f64;
    if scaled.is_finite() && scaled >= 0.0 && scaled < u64::MAX as f64 {
        Ok(scaled as u64)
    } else {
        Err(format!("`{text}` is too large"))
    }
}

/// A count with its digits in groups: `1,234,567`.
#[must_use]
pub fn count(amount: u64) -> String {
    let digits = amount.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count and its noun: `1 file`, `2 files`.
#[must_use]
pub fn plural(amount: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(amount), if amount == 1 { one } else { many })
}

/// A duration for people: `0.4s`, `38s`, `4m 38s`, `3h 04m`, `2d 03h`.
#[must_use]
pub fn duration(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    if milliseconds < 10_000 {
        format!("{:.1}s", milliseconds as f64 / 1000.0)
    } else if minutes == 0 {
        format!("{seconds}s")
    } else if hours == 0 {
        format!("{minutes}m {:02}s", seconds % 60)
    } else if days == 0 {
        format!("{hours}h {:02}m", minutes % 60)
    } else {
        format!("{days}d {:02}h", hours % 24)
    }
}

/// How many times larger `whole` is than `part`: `12.1x`; nothing when there is no part.
#[must_use]
pub fn ratio(whole: u64, part: u64) -> Option<String> {
    (part > 0).then(|| format!("{:.1}x", whole as f64 / part as f64))
}

/// A time for people: local, with the offset.
#[must_use]
pub fn local_time(milliseconds: i64) -> String {
    match Timestamp::from_millisecond(milliseconds) {
        Ok(time) => time.to_zoned(TimeZone::system()).strftime("%F %T %:z").to_string(),
        Err(_) => format!("{milliseconds} ms"),
    }
}

/// A time for programs: RFC 3339 in UTC with milliseconds. Times outside the calendar's range
/// (years -9999 to 9999) become its nearest end.
#[must_use]
pub fn rfc3339(milliseconds: i64) -> String {
    let time = Timestamp::from_millisecond(milliseconds).unwrap_or(if milliseconds < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    });
    format!("{time:.3}")
}

/// A modification time for programs: RFC 3339 in UTC with nanoseconds.
#[must_use]
pub fn rfc3339_nanoseconds(seconds: i64, nanoseconds: u32) -> String {
    let nanoseconds = i32::try_from(nanoseconds).unwrap_or(0);
    let time = Timestamp::new(seconds, nanoseconds).unwrap_or(if seconds < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    });
    format!("{time:.9}")
}

/// Kind and permissions as `ls -l` writes them: `drwxr-xr-x`.
#[must_use]
pub fn mode(node: &Node, mode: u32) -> String {
    let mut text = String::with_capacity(10);
    text.push(match node {
        Node::File(_) => '-',
        Node::Directory(_) => 'd',
        Node::Symlink(_) => 'l',
        Node::Fifo => 'p',
        Node::Socket => 's',
        Node::CharDevice { .. } => 'c',
        Node::BlockDevice { .. } => 'b',
    });
    // Owner, group, others: their bits, and the bit that changes what execution means.
    for (shift, special, with_x, without_x) in
        [(6, 0o4000, 's', 'S'), (3, 0o2000, 's', 'S'), (0, 0o1000, 't', 'T')]
    {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (true, true) => with_x,
            (true, false) => without_x,
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// A name from a file system or a repository for people: what a terminal would obey, and what is
/// not UTF-8, becomes `\xNN` or `\u{NNNN}`. For programs there is `--json`.
#[must_use]
pub fn name(bytes: &[u8]) -> String {
    let mut safe = String::with_capacity(bytes.len());
    for part in bytes.utf8_chunks() {
        push_escaped(&mut safe, part.valid(), false);
        for byte in part.invalid() {
            let _ = write!(safe, "\\x{byte:02x}");
        }
    }
    safe
}

/// Text that may contain names, for people: escaped like [`name`], except that lines stay lines.
#[must_use]
pub fn text(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    push_escaped(&mut safe, text, true);
    safe
}

fn push_escaped(safe: &mut String, text: &str, keep_lines: bool) {
    for character in text.chars() {
        match character {
            '\n' if keep_lines => safe.push('\n'),
            c if c.is_ascii_control() => {
                let _ = write!(safe, "\\x{:02x}", u32::from(c));
            }
            c if c.is_control() || reorders_text(c) => {
                let _ = write!(safe, "\\u{{{:x}}}", u32::from(c));
            }
            c => safe.push(c),
        }
    }
}

/// Characters that change the order in which a terminal shows others.
fn reorders_text(character: char) -> bool {
    matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_carry_a_binary_unit() {
        for (amount, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_048_575, "1.0 MiB"),
            (871_878_361_088, "812.0 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(amount), expected);
        }
    }

    #[test]
    fn sizes_are_read_either_way() {
        for (text, expected) in [
            ("0", 0),
            ("4096", 4096),
            ("64KiB", 65_536),
            ("64k", 65_536),
            ("1.5 GiB", 1_610_612_736),
            ("20MB", 20 << 20),
        ] {
            assert_eq!(parse_bytes(text), Ok(expected), "{text}");
        }
        for text in ["", "KiB", "1.2.3", "-1", "12 parsecs", "99999999E", "1e400"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn counts_are_grouped() {
        assert_eq!(count(7), "7");
        assert_eq!(count(1234), "1,234");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(plural(1, "file", "files"), "1 file");
        assert_eq!(plural(0, "file", "files"), "0 files");
    }

    #[test]
    fn durations_keep_two_units() {
        for (milliseconds, expected) in [
            (0, "0.0s"),
            (400, "0.4s"),
            (38_000, "38s"),
            (278_000, "4m 38s"),
            (11_040_000, "3h 04m"),
            (183_600_000, "2d 03h"),
        ] {
            assert_eq!(duration(milliseconds), expected);
        }
    }

    #[test]
    fn ratio_of_nothing_is_not_shown() {
        assert_eq!(ratio(10, 0), None);
        assert_eq!(ratio(121, 10).as_deref(), Some("12.1x"));
    }

    #[test]
    fn times_for_programs_are_utc_and_never_fail() {
        assert_eq!(rfc3339(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
        assert_eq!(rfc3339_nanoseconds(0, 1), "1970-01-01T00:00:00.000000001Z");
        assert!(rfc3339(i64::MAX).starts_with("9999-"));
        assert!(rfc3339(i64::MIN).starts_with("-009999-"));
    }

    #[test]
    fn modes_look_like_those_of_ls() {
        assert_eq!(mode(&Node::Fifo, 0o644), "prw-r--r--");
        assert_eq!(mode(&Node::Symlink(Vec::new()), 0o777), "lrwxrwxrwx");
        assert_eq!(mode(&Node::Socket, 0o6751), "srwsr-s--x");
        assert_eq!(mode(&Node::Fifo, 0o7640), "prwSr-S--T");
    }

    #[test]
    fn names_cannot_steer_a_terminal() {
        assert_eq!(name(b"plain \xc3\xa9"), "plain \u{e9}");
        assert_eq!(name(b"\x1b[2J\n"), "\\x1b[2J\\x0a");
        assert_eq!(name(b"\xff\xfe"), "\\xff\\xfe");
        assert_eq!(name("a\u{202e}b\u{9b}".as_bytes()), "a\\u{202e}b\\u{9b}");
        assert_eq!(text("one\ntwo\x07"), "one\ntwo\\x07");
    }
}
