//! A share of an operation: several hosts take one each, and need not know of one another.

use std::fmt;
use std::str::FromStr;

/// Into how many shares an operation can be split, at most.
pub const SHARDS_MAX: u16 = 1000;

/// One of equal shares. What falls to it follows from names, which are hashes: each share gets about
/// as much as the others, and all of them together get everything, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    number: u16,
    of: u16,
}

impl Shard {
    /// Everything.
    pub const ALL: Self = Self { number: 1, of: 1 };

    /// Share `number`, from 1, of `of`; `None` if there is no such share.
    #[must_use]
    pub fn new(number: u16, of: u16) -> Option<Self> {
        ((1..=of).contains(&number) && of <= SHARDS_MAX).then_some(Self { number, of })
    }

    /// Whether this is everything.
    #[must_use]
    pub const fn is_all(self) -> bool {
        self.of == 1
    }

    /// Whether what has this name falls to this share.
    #[must_use]
    pub fn takes(self, hash: &[u8; 32]) -> bool {
        let first = hash.first_chunk().copied().map_or(0, u64::from_le_bytes);
        first % u64::from(self.of.max(1)) == u64::from(self.number) - 1
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shard = text.split_once('/').and_then(|(number, of)| {
            let read = |digits: &str| {
                let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
                plain.then(|| digits.parse::<u16>().ok()).flatten()
            };
            Self::new(read(number)?, read(of)?)
        });
        shard.ok_or_else(|| format!("expected a share such as 2/4, of {SHARDS_MAX} at most"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_falls_to_exactly_one_share() {
        for of in [1, 2, 3, 7, SHARDS_MAX] {
            let shards = (1..=of).filter_map(|number| Shard::new(number, of)).collect::<Vec<_>>();
            assert_eq!(shards.len(), usize::from(of));
            for name in 0..200_u32 {
                let hash = blake3::hash(&name.to_le_bytes());
                let takers = shards.iter().filter(|shard| shard.takes(hash.as_bytes())).count();
                assert_eq!(takers, 1, "{name} of {of}");
            }
        }
        assert!(Shard::ALL.is_all() && Shard::ALL.takes(&[0xff; 32]));
    }

    #[test]
    fn a_share_is_written_as_number_and_count() {
        let shard: Shard = "2/4".parse().expect("a share");
        assert_eq!((Some(shard), shard.to_string().as_str()), (Shard::new(2, 4), "2/4"));
        for text in ["", "2", "0/4", "5/4", "1/0", "1/1001", "+1/2", "1/2/3", " 1/2", "-1/2"] {
            assert!(text.parse::<Shard>().is_err(), "{text:?}");
        }
    }
}
