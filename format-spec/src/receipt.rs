//! Objects that are not sealed, so that they can be read without a key: receipts, the proofs of
//! deletion, and the identity of a replica (SPEC section 8.6 and section 8.7).

use crate::certificate::CERTIFICATE_BYTES_MAX;
use crate::codec::{Reader, Writer};
use crate::envelope::{
    KIND_RECEIPT, KIND_REPLICA, MAGIC, OBJECT_VERSION, SIGNATURE_BYTES, read_magic,
};
use crate::error::FormatError;
use crate::ids::{ObjectHash, ReplicaId, RepositoryId};
use crate::limits::{NOTE_BYTES_MAX, RECORD_BYTES_MAX, TOMB_BYTES_MAX};
use crate::names::{OBJECT_NAME_BYTES_MAX, ObjectName};
use crate::record::{list, required};

/// Bytes of the shortest audit in a record: a time of one byte, method and result.
const AUDIT_BYTES_MIN: usize = 3;
/// Bytes of the shortest object name in a record: `format` and its length.
const NAME_BYTES_MIN: usize = 7;

/// How an audit looked for objects that were deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditMethod {
    /// Each was asked for by its name.
    ByName,
    /// The store was listed.
    ByListing,
    /// All versions in the store were listed.
    ByVersionListing,
}

/// What an audit found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditResult {
    /// All are gone.
    Gone,
    /// At least one is still there.
    StillThere,
    /// The store did not answer, or cannot tell.
    Unknown,
}

/// A look at the store after the deletion, for all names of the receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Audit {
    /// When, milliseconds since 1970.
    pub time_ms: i64,
    /// How.
    pub method: AuditMethod,
    /// What was found.
    pub result: AuditResult,
}

/// What a receipt says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiptRecord {
    /// Position in the chain of this replica's receipts, from 1.
    pub sequence: u64,
    /// BLAKE3 of the receipt before; `None` in the first.
    pub previous: Option<ObjectHash>,
    /// The copy of the repository that was deleted from.
    pub replica: ReplicaId,
    /// The objects deleted.
    pub deleted: Vec<ObjectName>,
    /// How their absence was seen.
    pub audits: Vec<Audit>,
    /// When, milliseconds since 1970.
    pub time_ms: i64,
    /// For people, at most [`NOTE_BYTES_MAX`] bytes.
    pub note: Option<String>,
}

impl ReceiptRecord {
    /// The record's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.field(1, |w| {
            w.varint(self.sequence);
        });
        w.field(3, |w| {
            w.raw(&self.previous.map_or([0; ObjectHash::LEN], |hash| *hash.as_bytes()));
        });
        w.field(5, |w| {
            w.raw(self.replica.as_bytes());
        });
        w.field(7, |w| {
            w.count(self.deleted.len());
            for name in &self.deleted {
                w.str(&name.to_string());
            }
        });
        w.field(9, |w| {
            w.count(self.audits.len());
            for audit in &self.audits {
                let method = match audit.method {
                    AuditMethod::ByName => 1,
                    AuditMethod::ByListing => 2,
                    AuditMethod::ByVersionListing => 3,
                };
                let result = match audit.result {
                    AuditResult::Gone => 1,
                    AuditResult::StillThere => 2,
                    AuditResult::Unknown => 3,
                };
                w.zigzag(audit.time_ms).u8(method).u8(result);
            }
        });
        w.field(11, |w| {
            w.zigzag(self.time_ms);
        });
        if let Some(note) = &self.note {
            w.field(12, |w| {
                w.str(note);
            });
        }
        w.into_bytes()
    }

    /// Reads a record.
    ///
    /// # Errors
    /// Any [`FormatError`]; in particular for a name that is not an object's.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let (mut sequence, mut previous, mut replica) = (None, None, None);
        let (mut deleted, mut audits, mut time_ms, mut note) = (None, None, None, None);
        Reader::new(bytes, "receipt").fields(|tag, r| {
            match tag {
                1 => sequence = Some(r.varint()?),
                3 => previous = Some(r.array()?),
                5 => replica = Some(ReplicaId::from_bytes(r.array()?)),
                7 => deleted = Some(list(r, "names of receipt", NAME_BYTES_MIN, decode_name)?),
                9 => audits = Some(list(r, "audits of receipt", AUDIT_BYTES_MIN, decode_audit)?),
                11 => time_ms = Some(r.zigzag()?),
                12 => note = Some(r.str("note of receipt", NOTE_BYTES_MAX)?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        let sequence = required(sequence, "sequence of receipt")?;
        let previous: [u8; ObjectHash::LEN] = required(previous, "predecessor of receipt")?;
        let is_first = previous == [0; ObjectHash::LEN];
        if sequence == 0 || is_first != (sequence == 1) {
            return Err(FormatError::Value { what: "sequence of receipt" });
        }
        Ok(Self {
            sequence,
            previous: (!is_first).then(|| ObjectHash::from_bytes(previous)),
            replica: required(replica, "replica of receipt")?,
            deleted: required(deleted, "names of receipt")?,
            audits: required(audits, "audits of receipt")?,
            time_ms: required(time_ms, "time of receipt")?,
            note,
        })
    }
}

fn decode_name(r: &mut Reader<'_>) -> Result<ObjectName, FormatError> {
    ObjectName::parse(&r.str("name in receipt", OBJECT_NAME_BYTES_MAX)?)
}

fn decode_audit(r: &mut Reader<'_>) -> Result<Audit, FormatError> {
    Ok(Audit {
        time_ms: r.zigzag()?,
        method: match r.u8()? {
            1 => AuditMethod::ByName,
            2 => AuditMethod::ByListing,
            3 => AuditMethod::ByVersionListing,
            _ => return Err(FormatError::Value { what: "method of audit" }),
        },
        result: match r.u8()? {
            1 => AuditResult::Gone,
            2 => AuditResult::StillThere,
            3 => AuditResult::Unknown,
            _ => return Err(FormatError::Value { what: "result of audit" }),
        },
    })
}

/// A receipt as it is stored. Means nothing until its signature was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The repository.
    pub repository: RepositoryId,
    /// Encoded certificate of the signer.
    pub certificate: Vec<u8>,
    /// What it says.
    pub record: ReceiptRecord,
    /// Signature of [`Self::signed_bytes`].
    pub signature: [u8; SIGNATURE_BYTES],
}

impl Receipt {
    /// What is signed: everything but the signature.
    #[must_use]
    pub fn signed_bytes(&self) -> Vec<u8> {
        let mut writer = plain_head(KIND_RECEIPT, self.repository);
        writer.bytes(&self.certificate).bytes(&self.record.encode());
        writer.into_bytes()
    }

    /// The stored form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.signed_bytes();
        bytes.extend_from_slice(&self.signature);
        bytes
    }

    /// Reads the stored form; returns it with the bytes that were signed.
    ///
    /// # Errors
    /// Any [`FormatError`].
    pub fn parse(bytes: &[u8]) -> Result<(Self, &[u8]), FormatError> {
        check_bytes("receipt", bytes, TOMB_BYTES_MAX)?;
        let mut reader = Reader::new(bytes, "receipt");
        let repository = read_plain_head(&mut reader, "receipt", KIND_RECEIPT)?;
        let certificate = reader.bytes("certificate", CERTIFICATE_BYTES_MAX)?.to_vec();
        let record = ReceiptRecord::decode(reader.bytes("record of receipt", TOMB_BYTES_MAX)?)?;
        let signed = bytes.len() - reader.remaining();
        let signature = reader.array()?;
        reader.finish()?;
        let signed = bytes.get(..signed).unwrap_or_default();
        Ok((Self { repository, certificate, record, signature }, signed))
    }
}

/// The identity of one copy of a repository. Nothing in it is authenticated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// The repository.
    pub repository: RepositoryId,
    /// The copy.
    pub replica: ReplicaId,
    /// When it was made, milliseconds since 1970.
    pub created_ms: i64,
    /// For people, at most [`NOTE_BYTES_MAX`] bytes.
    pub description: Option<String>,
}

impl Replica {
    /// The stored form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = plain_head(KIND_REPLICA, self.repository);
        w.field(1, |w| {
            w.raw(self.replica.as_bytes());
        });
        w.field(3, |w| {
            w.zigzag(self.created_ms);
        });
        if let Some(description) = &self.description {
            w.field(4, |w| {
                w.str(description);
            });
        }
        w.into_bytes()
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// Any [`FormatError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        check_bytes("replica record", bytes, RECORD_BYTES_MAX)?;
        let mut reader = Reader::new(bytes, "replica record");
        let repository = read_plain_head(&mut reader, "replica record", KIND_REPLICA)?;
        let (mut replica, mut created_ms, mut description) = (None, None, None);
        reader.fields(|tag, r| {
            match tag {
                1 => replica = Some(ReplicaId::from_bytes(r.array()?)),
                3 => created_ms = Some(r.zigzag()?),
                4 => description = Some(r.str("description of replica", NOTE_BYTES_MAX)?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(Self {
            repository,
            replica: required(replica, "id of replica")?,
            created_ms: required(created_ms, "time of replica")?,
            description,
        })
    }
}

fn plain_head(kind: u8, repository: RepositoryId) -> Writer {
    let mut writer = Writer::new();
    writer.raw(&MAGIC).u8(kind).u8(OBJECT_VERSION).raw(repository.as_bytes());
    writer
}

fn read_plain_head(
    reader: &mut Reader<'_>,
    what: &'static str,
    kind: u8,
) -> Result<RepositoryId, FormatError> {
    if read_magic(reader, what)? == kind {
        reader.array().map(RepositoryId::from_bytes)
    } else {
        Err(FormatError::Value { what: "kind of a plain object" })
    }
}

fn check_bytes(what: &'static str, bytes: &[u8], limit: u32) -> Result<(), FormatError> {
    if bytes.len() <= limit as usize {
        Ok(())
    } else {
        Err(FormatError::Limit { what, limit: u64::from(limit), found: bytes.len() as u64 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{PackId, SessionId};
    use crate::names::PackKind;

    fn receipt() -> Receipt {
        let lease = ObjectName::Lease {
            session: SessionId::from_bytes([5; 16]),
            hash: ObjectHash::from_bytes([6; 32]),
        };
        let pack = ObjectName::Pack(PackKind::Tree, PackId::from_bytes([0xab; 32]));
        let audit = |method, result| Audit { time_ms: -1, method, result };
        Receipt {
            repository: RepositoryId::from_bytes([1; 16]),
            certificate: vec![2; 10],
            record: ReceiptRecord {
                sequence: 2,
                previous: Some(ObjectHash::from_bytes([3; 32])),
                replica: ReplicaId::from_bytes([4; 16]),
                deleted: vec![pack, lease],
                audits: vec![
                    audit(AuditMethod::ByName, AuditResult::Gone),
                    audit(AuditMethod::ByListing, AuditResult::StillThere),
                    audit(AuditMethod::ByVersionListing, AuditResult::Unknown),
                ],
                time_ms: 1_700_000_000_000,
                note: Some("asked for by the customer".to_owned()),
            },
            signature: [9; 64],
        }
    }

    fn replica() -> Replica {
        Replica {
            repository: RepositoryId::from_bytes([1; 16]),
            replica: ReplicaId::from_bytes([2; 16]),
            created_ms: 7,
            description: Some("second data centre".to_owned()),
        }
    }

    #[test]
    fn receipts_round_trip() {
        let bytes = receipt().encode();
        let (read, signed) = Receipt::parse(&bytes).unwrap();
        assert_eq!(read, receipt());
        assert_eq!(signed, receipt().signed_bytes());
        assert_eq!(signed.len() + SIGNATURE_BYTES, bytes.len());
        let mut plain = receipt();
        plain.record.note = None;
        plain.record.deleted.clear();
        plain.record.audits.clear();
        (plain.record.sequence, plain.record.previous) = (1, None);
        assert_eq!(Receipt::parse(&plain.encode()).unwrap().0, plain);
    }

    #[test]
    fn replicas_round_trip_and_step_over_a_profile() {
        let bytes = replica().encode();
        assert_eq!(Replica::parse(&bytes), Ok(replica()));
        let profiled = [bytes.as_slice(), &[6, 3, 1, 1, 9]].concat();
        assert_eq!(Replica::parse(&profiled), Ok(replica()));
        let unnamed = Replica { description: None, ..replica() };
        assert_eq!(Replica::parse(&unnamed.encode()), Ok(unnamed));
    }

    #[test]
    fn plain_objects_cut_short_prolonged_or_of_another_kind_are_refused() {
        let (receipt, replica) = (receipt().encode(), replica().encode());
        for len in 0..receipt.len() {
            assert!(Receipt::parse(&receipt[..len]).is_err(), "length {len}");
        }
        assert!(Receipt::parse(&[receipt.as_slice(), &[0]].concat()).is_err());
        assert!(Receipt::parse(&vec![0; TOMB_BYTES_MAX as usize + 1]).is_err());
        assert!(Replica::parse(&receipt).is_err());
        assert!(Receipt::parse(&replica).is_err());
        let unnamed = Replica { description: None, ..self::replica() }.encode();
        for len in 0..unnamed.len() {
            assert!(Replica::parse(&unnamed[..len]).is_err(), "length {len}");
        }
    }

    #[test]
    fn only_the_first_receipt_has_no_predecessor() {
        let record = receipt().record;
        for (sequence, previous) in [(0, None), (1, record.previous), (2, None)] {
            let wrong = ReceiptRecord { sequence, previous, ..record.clone() };
            let refused = FormatError::Value { what: "sequence of receipt" };
            assert_eq!(ReceiptRecord::decode(&wrong.encode()), Err(refused));
        }
    }

    #[test]
    fn foreign_names_methods_and_results_are_refused() {
        let with = |tag: u64, value: &[u8]| {
            let mut w = Writer::new();
            let (hash, id) = ([0; 32], [0; 16]);
            for (known, default) in
                [(1, &[1][..]), (3, &hash), (5, &id), (7, &[0]), (9, &[0]), (11, &[0])]
            {
                w.varint(known).bytes(if known == tag { value } else { default });
            }
            ReceiptRecord::decode(w.as_bytes())
        };
        assert!(with(9, &[1, 0, 1, 1]).is_ok());
        for audit in [[1, 0, 0, 1], [1, 0, 4, 1], [1, 0, 1, 0], [1, 0, 1, 4]] {
            assert!(with(9, &audit).is_err(), "{audit:?}");
        }
        assert!(with(7, b"\x01\x06format").is_ok());
        assert!(with(7, b"\x01\x06Format").is_err());
        assert!(with(7, b"\x01\x04/etc").is_err());
    }
}
