//! The config record: settings of a repository (SPEC section 8.1).

use std::collections::BTreeSet;

use super::{list, required};
use crate::codec::{Reader, Writer};
use crate::envelope::{Cipher, DOMAIN_SYMMETRIC};
use crate::error::FormatError;
use crate::ids::{ObjectHash, RepositoryId, WriterId};
use crate::limits::{CHUNK_BYTES_MAX, LABEL_BYTES_MAX, PACK_BYTES_MAX, PACK_BYTES_MIN};
use crate::parity::are_coded;

/// Smallest aligned chunk, bytes.
pub const ALIGNED_BYTES_MIN: u32 = 4096;

/// Where a domain's secret comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DomainOrigin {
    /// Derived from the root.
    Derived,
    /// Random, kept outside the repository; destroying it shreds what was sealed to it.
    External,
}

/// A key that packs and snapshots are sealed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain {
    /// Number of the domain.
    pub id: u32,
    /// Epoch of this key of the domain.
    pub epoch: u32,
    /// X25519 public key.
    pub public_key: [u8; 32],
    /// Where the secret comes from.
    pub origin: DomainOrigin,
    /// For people.
    pub name: String,
}

/// How content is cut (SPEC §8.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkerSettings {
    /// 1: FastCDC 2020.
    pub algorithm: u8,
    /// Normalisation level, 0 to 3.
    pub normalisation: u8,
    /// Smallest chunk, bytes.
    pub bytes_min: u32,
    /// Average chunk aimed at, bytes.
    pub bytes_avg: u32,
    /// Largest chunk, bytes.
    pub bytes_max: u32,
}

/// Reed-Solomon parity inside packs: `recovery` shards for `data` shards of a large pack, as many in
/// proportion of a small one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parity {
    /// Data shards, at most.
    pub data: u16,
    /// Recovery shards for so many.
    pub recovery: u16,
}

/// Settings of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The repository.
    pub repository: RepositoryId,
    /// BLAKE3 of the whole `format` object.
    pub format_hash: [u8; 32],
    /// The highest valid generation counts.
    pub generation: u64,
    /// Cipher byte for new objects.
    pub cipher: u8,
    /// Ed25519 public key of the owner.
    pub owner_key: [u8; 32],
    /// Domains; new data goes to the last entry of domain 0.
    pub domains: Vec<Domain>,
    /// Length at which a pack is closed, bytes.
    pub pack_bytes: u32,
    /// Where content is cut.
    pub chunker: ChunkerSettings,
    /// Chunk of page files and devices, bytes.
    pub aligned_bytes: u32,
    /// Parity, if chosen.
    pub parity: Option<Parity>,
    /// The config object this one follows.
    pub previous: Option<ObjectHash>,
    /// Keys that no longer count, each from a time in milliseconds on.
    pub revoked: Vec<(WriterId, i64)>,
    /// The previous epoch's root, sealed under this one's.
    pub previous_root: Option<[u8; 72]>,
}

impl Config {
    /// The record's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.field(1, |w| {
            w.raw(self.repository.as_bytes());
        });
        w.field(3, |w| {
            w.raw(&self.format_hash);
        });
        w.field(5, |w| {
            w.varint(self.generation);
        });
        w.field(7, |w| {
            w.u8(self.cipher);
        });
        w.field(9, |w| {
            w.raw(&self.owner_key);
        });
        w.field(11, |w| {
            w.count(self.domains.len());
            for domain in &self.domains {
                let origin = match domain.origin {
                    DomainOrigin::Derived => 0,
                    DomainOrigin::External => 1,
                };
                w.u32(domain.id)
                    .u32(domain.epoch)
                    .raw(&domain.public_key)
                    .u8(origin)
                    .str(&domain.name);
            }
        });
        w.field(13, |w| {
            w.varint(u64::from(self.pack_bytes));
        });
        w.field(15, |w| {
            let chunker = &self.chunker;
            w.u8(chunker.algorithm).u8(chunker.normalisation);
            for bytes in [chunker.bytes_min, chunker.bytes_avg, chunker.bytes_max] {
                w.varint(u64::from(bytes));
            }
        });
        w.field(17, |w| {
            w.varint(u64::from(self.aligned_bytes));
        });
        if let Some(parity) = self.parity {
            w.field(19, |w| {
                w.u16(parity.data).u16(parity.recovery);
            });
        }
        if let Some(previous) = self.previous {
            w.field(21, |w| {
                w.raw(previous.as_bytes());
            });
        }
        if !self.revoked.is_empty() {
            w.field(22, |w| {
                w.count(self.revoked.len());
                for (writer, time_ms) in &self.revoked {
                    w.raw(writer.as_bytes()).zigzag(*time_ms);
                }
            });
        }
        if let Some(root) = &self.previous_root {
            w.field(23, |w| {
                w.raw(root);
            });
        }
        w.into_bytes()
    }

    /// Reads a record and checks that its settings can be used.
    ///
    /// # Errors
    /// Any [`FormatError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let (mut repository, mut format_hash, mut generation) = (None, None, None);
        let (mut cipher, mut owner_key, mut domains) = (None, None, None);
        let (mut pack_bytes, mut chunker, mut aligned_bytes) = (None, None, None);
        let (mut parity, mut previous, mut previous_root) = (None, None, None);
        let mut revoked = Vec::new();
        Reader::new(bytes, "config").fields(|tag, r| {
            match tag {
                1 => repository = Some(RepositoryId::from_bytes(r.array()?)),
                3 => format_hash = Some(r.array()?),
                5 => generation = Some(r.varint()?),
                7 => cipher = Some(r.u8()?),
                9 => owner_key = Some(r.array()?),
                11 => domains = Some(list(r, "domains", 42, decode_domain)?),
                13 => pack_bytes = Some(r.bounded("pack length", PACK_BYTES_MAX)?),
                15 => chunker = Some(decode_chunker(r)?),
                17 => aligned_bytes = Some(r.bounded("aligned chunk", CHUNK_BYTES_MAX)?),
                19 => parity = Some(Parity { data: r.u16()?, recovery: r.u16()? }),
                21 => previous = Some(ObjectHash::from_bytes(r.array()?)),
                22 => {
                    revoked = list(r, "revoked keys", 17, |r| {
                        Ok((WriterId::from_bytes(r.array()?), r.zigzag()?))
                    })?;
                }
                23 => previous_root = Some(r.array()?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        let config = Self {
            repository: required(repository, "repository id of config")?,
            format_hash: required(format_hash, "format hash of config")?,
            generation: required(generation, "generation of config")?,
            cipher: required(cipher, "cipher of config")?,
            owner_key: required(owner_key, "owner key of config")?,
            domains: required(domains, "domains of config")?,
            pack_bytes: required(pack_bytes, "pack length of config")?,
            chunker: required(chunker, "chunker of config")?,
            aligned_bytes: required(aligned_bytes, "aligned chunk of config")?,
            parity,
            previous,
            revoked,
            previous_root,
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), FormatError> {
        Cipher::try_from(self.cipher)?;
        let mut places = BTreeSet::new();
        for domain in &self.domains {
            let fresh = places.insert((domain.id, domain.epoch));
            if !fresh || domain.id == DOMAIN_SYMMETRIC || domain.epoch == 0 {
                return Err(FormatError::Value { what: "domain of config" });
            }
        }
        let coded = |parity: Parity| are_coded(parity.data, parity.recovery);
        let usable = self.pack_bytes >= PACK_BYTES_MIN
            && self.parity.is_none_or(coded)
            && self.aligned_bytes >= ALIGNED_BYTES_MIN
            && self.domains.iter().any(|domain| domain.id == 0);
        if usable { Ok(()) } else { Err(FormatError::Value { what: "config" }) }
    }
}

fn decode_domain(r: &mut Reader<'_>) -> Result<Domain, FormatError> {
    Ok(Domain {
        id: r.u32()?,
        epoch: r.u32()?,
        public_key: r.array()?,
        origin: match r.u8()? {
            0 => DomainOrigin::Derived,
            1 => DomainOrigin::External,
            _ => return Err(FormatError::Value { what: "origin of domain" }),
        },
        name: r.str("name of domain", LABEL_BYTES_MAX)?,
    })
}

fn decode_chunker(r: &mut Reader<'_>) -> Result<ChunkerSettings, FormatError> {
    let limit = CHUNK_BYTES_MAX;
    let settings = ChunkerSettings {
        algorithm: r.u8()?,
        normalisation: r.u8()?,
        bytes_min: r.bounded("smallest chunk", limit)?,
        bytes_avg: r.bounded("average chunk", limit)?,
        bytes_max: r.bounded("largest chunk", limit)?,
    };
    let usable = settings.algorithm == 1
        && settings.normalisation <= 3
        && settings.bytes_min >= 64
        && settings.bytes_avg >= 256
        && settings.bytes_max >= 1024
        && settings.bytes_min < settings.bytes_avg
        && settings.bytes_avg < settings.bytes_max
        // The cut function goes two bytes a step (SPEC section 8.8).
        && [settings.bytes_min, settings.bytes_avg, settings.bytes_max].iter().all(|b| b % 2 == 0);
    if usable { Ok(settings) } else { Err(FormatError::Value { what: "chunker of config" }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunk_sizes_must_be_even_and_ascend() {
        let read = |sizes: [u32; 3]| {
            let mut writer = Writer::new();
            writer.u8(1).u8(2);
            for bytes in sizes {
                writer.varint(u64::from(bytes));
            }
            decode_chunker(&mut Reader::new(writer.as_bytes(), "chunker")).is_ok()
        };
        assert!(read([64, 256, 1024]));
        assert!(read([16 << 10, 64 << 10, 256 << 10]));
        for sizes in [[65, 256, 1024], [64, 257, 1024], [64, 256, 1025], [256, 256, 1024]] {
            assert!(!read(sizes), "{sizes:?}");
        }
    }
}
