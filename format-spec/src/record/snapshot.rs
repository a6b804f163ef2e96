//! The snapshot record (SPEC section 8.2).

use super::{list, required};
use crate::certificate::CERTIFICATE_BYTES_MAX;
use crate::codec::{Reader, Writer};
use crate::error::FormatError;
use crate::ids::{ChunkId, SessionId, SnapshotId};
use crate::limits::{LABEL_BYTES_MAX, RECORD_BYTES_MAX};

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

/// What a snapshot was before an erasure took something out of it and made it anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remade {
    /// Encoded certificate of whoever signed the first of them. Means nothing until it was verified.
    pub certificate: Vec<u8>,
    /// When it was made anew, milliseconds since 1970.
    pub time_ms: i64,
    /// The snapshots that it stands for, oldest first; never empty.
    pub former: Vec<SnapshotId>,
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
    /// What it was before; `None` of a snapshot as a backup made it.
    pub remade: Option<Remade>,
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
        if let Some(remade) = &self.remade {
            w.field(31, |w| {
                w.bytes(&remade.certificate).zigzag(remade.time_ms).count(remade.former.len());
                for id in &remade.former {
                    w.raw(id.as_bytes());
                }
            });
        }
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
        let (mut paths, mut tags, mut parents) = (None, Vec::new(), Vec::new());
        let (mut sources, mut excludes) = (Vec::new(), Vec::new());
        let (mut statistics, mut remade) = (Statistics::default(), None);
        Reader::new(bytes, "snapshot").fields(|tag, r| {
            match tag {
                1 => started_ms = Some(r.zigzag()?),
                3 => finished_ms = Some(r.zigzag()?),
                5 => job = Some(r.str("job", LABEL_BYTES_MAX)?),
                7 => host = Some(r.str("host", LABEL_BYTES_MAX)?),
                8 => user = r.str("user", LABEL_BYTES_MAX)?,
                9 => {
                    paths = Some(list(r, "paths", 1, |r| {
                        r.bytes("path", RECORD_BYTES_MAX).map(<[u8]>::to_vec)
                    })?);
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
                31 => remade = Some(decode_remade(r)?),
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
            paths: required(paths, "paths of snapshot")?,
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
            remade,
        })
    }
}

fn decode_remade(r: &mut Reader<'_>) -> Result<Remade, FormatError> {
    let remade = Remade {
        certificate: r.bytes("certificate of former snapshot", CERTIFICATE_BYTES_MAX)?.to_vec(),
        time_ms: r.zigzag()?,
        former: list(r, "former snapshots", SnapshotId::LEN, |r| {
            r.array().map(SnapshotId::from_bytes)
        })?,
    };
    if remade.former.is_empty() {
        return Err(FormatError::Value { what: "former snapshots" });
    }
    Ok(remade)
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
