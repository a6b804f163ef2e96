//! Acknowledgements, leases and tombs (SPEC section 8.3 to section 8.5).

use super::{list, required};
use crate::codec::{Reader, Writer};
use crate::error::FormatError;
use crate::ids::{PackId, SessionId, SnapshotId, WriterId};
use crate::limits::LABEL_BYTES_MAX;
use crate::names::PackKind;

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
