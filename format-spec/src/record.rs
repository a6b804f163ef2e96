//! The records inside sealed bodies: config, snapshot, ack, lease and tomb
//! (SPEC §8).

use crate::codec::{Reader, Writer};
use crate::error::FormatError;
use crate::ids::{ChunkId, ObjectHash, PackId, RepositoryId, SessionId, SnapshotId, WriterId};
use crate::limits::{LABEL_BYTES_MAX, PACK_BYTES_MAX, PACK_BYTES_MIN, RECORD_BYTES_MAX};
use crate::names::PackKind;

/// A required field that was not met.
fn required<T>(value: Option<T>, what: &'static str) -> Result<T, FormatError> {
    value.ok_or(FormatError::Missing { what })
}

fn list<T>(
    reader: &mut Reader<'_>,
    what: &'static str,
    item_bytes_min: usize,
    mut item: impl FnMut(&mut Reader<'_>) -> Result<T, FormatError>,
) -> Result<Vec<T>, FormatError> {
    let count = reader.count(what, item_bytes_min)?;
    (0..count).map(|_| item(reader)).collect()
}

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

/// Reed-Solomon parity inside packs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parity {
    /// Data shards.
    pub data: u16,
    /// Recovery shards.
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
                17 => {
                    aligned_bytes =
                        Some(r.bounded("aligned chunk", crate::limits::CHUNK_BYTES_MAX)?)
                }
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
        let usable = config.pack_bytes >= PACK_BYTES_MIN
            && config.aligned_bytes >= 4096
            && config.domains.iter().any(|domain| domain.id == 0);
        if usable { Ok(config) } else { Err(FormatError::Value { what: "config" }) }
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
    let limit = crate::limits::CHUNK_BYTES_MAX;
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
        && settings.bytes_avg < settings.bytes_max;
    if usable { Ok(settings) } else { Err(FormatError::Value { what: "chunker of config" }) }
}

/// What a backup found, for people and for accounting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Regular files and streams.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Everything else.
    pub others: u64,
    /// Bytes in files, holes included.
    pub bytes_total: u64,
    /// Bytes read from the source.
    pub bytes_read: u64,
    /// Bytes in chunks that were not known before.
    pub bytes_new: u64,
    /// Bytes of sealed frames and trees put into the store.
    pub bytes_stored: u64,
    /// Entries that could not be read.
    pub unread: u64,
}

/// Where a snapshot's content came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceRecord {
    /// What kind of source.
    pub kind: SourceKind,
    /// Name of the stream, or the path.
    pub name: String,
    /// The command, for a command.
    pub argv: Vec<Vec<u8>>,
}

/// Kinds of sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// A file tree.
    Files,
    /// Standard input.
    Stdin,
    /// The output of a command that ended well.
    Command,
}

/// A snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// When the backup began, milliseconds since 1970.
    pub started_ms: i64,
    /// When it ended.
    pub finished_ms: i64,
    /// What retention groups by.
    pub job: String,
    /// Host name.
    pub host: String,
    /// User name.
    pub user: String,
    /// Paths asked for.
    pub paths: Vec<Vec<u8>>,
    /// Tags.
    pub tags: Vec<String>,
    /// Node of the root directory.
    pub root: ChunkId,
    /// Position among this writer's snapshots, from 1.
    pub sequence: u64,
    /// The session.
    pub session: SessionId,
    /// This writer's previous snapshot.
    pub previous: Option<SnapshotId>,
    /// Snapshots compared against.
    pub parents: Vec<SnapshotId>,
    /// What was found.
    pub statistics: Statistics,
    /// Program and version.
    pub program: String,
    /// Sources.
    pub sources: Vec<SourceRecord>,
    /// Exclude patterns.
    pub excludes: Vec<String>,
}

impl Snapshot {
    /// The record's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.field(1, |w| {
            w.zigzag(self.started_ms);
        });
        w.field(3, |w| {
            w.zigzag(self.finished_ms);
        });
        w.field(5, |w| {
            w.str(&self.job);
        });
        w.field(7, |w| {
            w.str(&self.host);
        });
        w.field(8, |w| {
            w.str(&self.user);
        });
        w.field(9, |w| {
            w.count(self.paths.len());
            for path in &self.paths {
                w.bytes(path);
            }
        });
        w.field(10, |w| {
            w.count(self.tags.len());
            for tag in &self.tags {
                w.str(tag);
            }
        });
        w.field(11, |w| {
            w.raw(self.root.as_bytes());
        });
        w.field(13, |w| {
            w.varint(self.sequence);
        });
        w.field(15, |w| {
            w.raw(self.session.as_bytes());
        });
        if let Some(previous) = self.previous {
            w.field(16, |w| {
                w.raw(previous.as_bytes());
            });
        }
        w.field(18, |w| {
            w.count(self.parents.len());
            for parent in &self.parents {
                w.raw(parent.as_bytes());
            }
        });
        w.field(20, |w| {
            let s = &self.statistics;
            for number in [
                s.files,
                s.directories,
                s.others,
                s.bytes_total,
                s.bytes_read,
                s.bytes_new,
                s.bytes_stored,
                s.unread,
            ] {
                w.varint(number);
            }
        });
        w.field(22, |w| {
            w.str(&self.program);
        });
        w.field(24, |w| {
            w.count(self.sources.len());
            for source in &self.sources {
                let kind = match source.kind {
                    SourceKind::Files => 0,
                    SourceKind::Stdin => 1,
                    SourceKind::Command => 2,
                };
                w.u8(kind).str(&source.name).count(source.argv.len());
                for argument in &source.argv {
                    w.bytes(argument);
                }
            }
        });
        w.field(26, |w| {
            w.count(self.excludes.len());
            for pattern in &self.excludes {
                w.str(pattern);
            }
        });
        w.into_bytes()
    }

    /// Reads a record.
    ///
    /// # Errors
    /// Any [`FormatError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let (mut started_ms, mut finished_ms, mut job, mut host) = (None, None, None, None);
        let (mut root, mut sequence, mut session, mut previous) = (None, None, None, None);
        let (mut user, mut program) = (String::new(), String::new());
        let (mut paths, mut tags, mut parents) = (Vec::new(), Vec::new(), Vec::new());
        let (mut sources, mut excludes) = (Vec::new(), Vec::new());
        let mut statistics = Statistics::default();
        Reader::new(bytes, "snapshot").fields(|tag, r| {
            match tag {
                1 => started_ms = Some(r.zigzag()?),
                3 => finished_ms = Some(r.zigzag()?),
                5 => job = Some(r.str("job", LABEL_BYTES_MAX)?),
                7 => host = Some(r.str("host", LABEL_BYTES_MAX)?),
                8 => user = r.str("user", LABEL_BYTES_MAX)?,
                9 => {
                    paths = list(r, "paths", 1, |r| {
                        r.bytes("path", RECORD_BYTES_MAX).map(<[u8]>::to_vec)
                    })?;
                }
                10 => tags = list(r, "tags", 1, |r| r.str("tag", LABEL_BYTES_MAX))?,
                11 => root = Some(ChunkId::from_bytes(r.array()?)),
                13 => sequence = Some(r.varint()?),
                15 => session = Some(SessionId::from_bytes(r.array()?)),
                16 => previous = Some(SnapshotId::from_bytes(r.array()?)),
                18 => {
                    parents = list(r, "parents", SnapshotId::LEN, |r| {
                        r.array().map(SnapshotId::from_bytes)
                    })?;
                }
                20 => statistics = decode_statistics(r)?,
                22 => program = r.str("program", LABEL_BYTES_MAX)?,
                24 => sources = list(r, "sources", 3, decode_source)?,
                26 => {
                    excludes =
                        list(r, "exclude patterns", 1, |r| r.str("pattern", RECORD_BYTES_MAX))?;
                }
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(Self {
            started_ms: required(started_ms, "start of snapshot")?,
            finished_ms: required(finished_ms, "end of snapshot")?,
            job: required(job, "job of snapshot")?,
            host: required(host, "host of snapshot")?,
            user,
            paths,
            tags,
            root: required(root, "root of snapshot")?,
            sequence: required(sequence, "sequence of snapshot")?,
            session: required(session, "session of snapshot")?,
            previous,
            parents,
            statistics,
            program,
            sources,
            excludes,
        })
    }
}

fn decode_statistics(r: &mut Reader<'_>) -> Result<Statistics, FormatError> {
    Ok(Statistics {
        files: r.varint()?,
        directories: r.varint()?,
        others: r.varint()?,
        bytes_total: r.varint()?,
        bytes_read: r.varint()?,
        bytes_new: r.varint()?,
        bytes_stored: r.varint()?,
        unread: r.varint()?,
    })
}

fn decode_source(r: &mut Reader<'_>) -> Result<SourceRecord, FormatError> {
    Ok(SourceRecord {
        kind: match r.u8()? {
            0 => SourceKind::Files,
            1 => SourceKind::Stdin,
            2 => SourceKind::Command,
            _ => return Err(FormatError::Value { what: "kind of source" }),
        },
        name: r.str("name of source", RECORD_BYTES_MAX)?,
        argv: list(r, "arguments of source", 1, |r| {
            r.bytes("argument of source", RECORD_BYTES_MAX).map(<[u8]>::to_vec)
        })?,
    })
}

/// Says that a snapshot's chunks were present after its record was visible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// When, milliseconds since 1970.
    pub time_ms: i64,
    /// BLAKE3 of the sorted, concatenated names of the tombs seen after the snapshot was visible.
    pub tombs_digest: [u8; 32],
    /// The session that checked.
    pub session: SessionId,
}

impl Ack {
    /// The record's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.field(1, |w| {
            w.raw(self.snapshot.as_bytes());
        });
        w.field(3, |w| {
            w.zigzag(self.time_ms);
        });
        w.field(5, |w| {
            w.raw(&self.tombs_digest);
        });
        w.field(7, |w| {
            w.raw(self.session.as_bytes());
        });
        w.into_bytes()
    }

    /// Reads a record.
    ///
    /// # Errors
    /// Any [`FormatError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let (mut snapshot, mut time_ms, mut tombs_digest, mut session) = (None, None, None, None);
        Reader::new(bytes, "acknowledgement").fields(|tag, r| {
            match tag {
                1 => snapshot = Some(SnapshotId::from_bytes(r.array()?)),
                3 => time_ms = Some(r.zigzag()?),
                5 => tombs_digest = Some(r.array()?),
                7 => session = Some(SessionId::from_bytes(r.array()?)),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(Self {
            snapshot: required(snapshot, "snapshot of acknowledgement")?,
            time_ms: required(time_ms, "time of acknowledgement")?,
            tombs_digest: required(tombs_digest, "tombs of acknowledgement")?,
            session: required(session, "session of acknowledgement")?,
        })
    }
}

/// A hint that a session is alive. Nothing may depend on it for safety.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The session.
    pub session: SessionId,
    /// Who holds it.
    pub writer: WriterId,
    /// Host name.
    pub host: String,
    /// Process id.
    pub pid: u32,
    /// What it is doing, e.g. `backup`.
    pub operation: String,
    /// When it began, milliseconds since 1970.
    pub started_ms: i64,
    /// When the lease was last renewed.
    pub renewed_ms: i64,
    /// How long it is meant to last from then, milliseconds.
    pub ttl_ms: u64,
}

impl Lease {
    /// The record's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.field(1, |w| {
            w.raw(self.session.as_bytes());
        });
        w.field(3, |w| {
            w.raw(self.writer.as_bytes());
        });
        w.field(5, |w| {
            w.str(&self.host);
        });
        w.field(7, |w| {
            w.varint(u64::from(self.pid));
        });
        w.field(9, |w| {
            w.str(&self.operation);
        });
        w.field(11, |w| {
            w.zigzag(self.started_ms);
        });
        w.field(13, |w| {
            w.zigzag(self.renewed_ms);
        });
        w.field(15, |w| {
            w.varint(self.ttl_ms);
        });
        w.into_bytes()
    }

    /// Reads a record.
    ///
    /// # Errors
    /// Any [`FormatError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let (mut session, mut writer, mut host, mut pid) = (None, None, None, None);
        let (mut operation, mut started_ms, mut renewed_ms, mut ttl_ms) = (None, None, None, None);
        Reader::new(bytes, "lease").fields(|tag, r| {
            match tag {
                1 => session = Some(SessionId::from_bytes(r.array()?)),
                3 => writer = Some(WriterId::from_bytes(r.array()?)),
                5 => host = Some(r.str("host", LABEL_BYTES_MAX)?),
                7 => pid = Some(r.bounded("process id", u32::MAX)?),
                9 => operation = Some(r.str("operation", LABEL_BYTES_MAX)?),
                11 => started_ms = Some(r.zigzag()?),
                13 => renewed_ms = Some(r.zigzag()?),
                15 => ttl_ms = Some(r.varint()?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(Self {
            session: required(session, "session of lease")?,
            writer: required(writer, "writer of lease")?,
            host: required(host, "host of lease")?,
            pid: required(pid, "process of lease")?,
            operation: required(operation, "operation of lease")?,
            started_ms: required(started_ms, "start of lease")?,
            renewed_ms: required(renewed_ms, "renewal of lease")?,
            ttl_ms: required(ttl_ms, "duration of lease")?,
        })
    }
}

/// Why packs were condemned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TombReason {
    /// Nothing refers to them.
    Unreferenced,
    /// Their live content was copied elsewhere.
    Repacked,
    /// Their content had to be erased.
    Erased,
    /// They are damaged.
    Damaged,
}

/// Condemns packs, for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tomb {
    /// When, milliseconds since 1970.
    pub time_ms: i64,
    /// The packs, ascending.
    pub packs: Vec<(PackKind, PackId)>,
    /// Why.
    pub reason: TombReason,
    /// Packs that hold what was still needed.
    pub replacements: Vec<PackId>,
    /// The session that condemned them.
    pub session: SessionId,
}

impl Tomb {
    /// The record's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.field(1, |w| {
            w.zigzag(self.time_ms);
        });
        w.field(3, |w| {
            w.count(self.packs.len());
            for (kind, id) in &self.packs {
                w.u8(kind.to_byte()).raw(id.as_bytes());
            }
        });
        w.field(5, |w| {
            w.u8(match self.reason {
                TombReason::Unreferenced => 1,
                TombReason::Repacked => 2,
                TombReason::Erased => 3,
                TombReason::Damaged => 4,
            });
        });
        w.field(6, |w| {
            w.count(self.replacements.len());
            for id in &self.replacements {
                w.raw(id.as_bytes());
            }
        });
        w.field(7, |w| {
            w.raw(self.session.as_bytes());
        });
        w.into_bytes()
    }

    /// Reads a record.
    ///
    /// # Errors
    /// Any [`FormatError`]; in particular when the packs do not ascend.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let (mut time_ms, mut packs, mut reason, mut session) = (None, None, None, None);
        let mut replacements = Vec::new();
        Reader::new(bytes, "tomb").fields(|tag, r| {
            match tag {
                1 => time_ms = Some(r.zigzag()?),
                3 => {
                    packs = Some(list(r, "condemned packs", 1 + PackId::LEN, |r| {
                        Ok((PackKind::from_byte(r.u8()?)?, PackId::from_bytes(r.array()?)))
                    })?);
                }
                5 => {
                    reason = Some(match r.u8()? {
                        1 => TombReason::Unreferenced,
                        2 => TombReason::Repacked,
                        3 => TombReason::Erased,
                        4 => TombReason::Damaged,
                        _ => return Err(FormatError::Value { what: "reason of tomb" }),
                    });
                }
                6 => {
                    replacements = list(r, "replacements", PackId::LEN, |r| {
                        r.array().map(PackId::from_bytes)
                    })?;
                }
                7 => session = Some(SessionId::from_bytes(r.array()?)),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        let packs = required(packs, "packs of tomb")?;
        if !packs.is_sorted_by(|a, b| a < b) {
            return Err(FormatError::Value { what: "order of condemned packs" });
        }
        Ok(Self {
            time_ms: required(time_ms, "time of tomb")?,
            packs,
            reason: required(reason, "reason of tomb")?,
            replacements,
            session: required(session, "session of tomb")?,
        })
    }
}
