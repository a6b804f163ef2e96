//! Records of sealed bodies, index segments, receipts and replicas.

use cairn_engine::chunk::{ContentCutter, Cutter};
use cairn_format::receipt::{Receipt, ReceiptRecord, Replica};
use cairn_format::record::{Ack, Config, Lease, Snapshot, Tomb};
use cairn_format::segment::Segment;

use crate::spelling::{exact, field_list, same_fields};

/// Length of what stands before the field list of a replica record, bytes.
const REPLICA_HEAD_BYTES: usize = 8 + 1 + 1 + 16;

/// See the module.
pub fn run(data: &[u8]) {
    let Some((selector, bytes)) = data.split_first() else { return };
    match selector % 9 {
        0 => config(bytes),
        1 => drop(field_list(bytes, Snapshot::decode, Snapshot::encode)),
        2 => drop(field_list(bytes, Ack::decode, Ack::encode)),
        3 => drop(field_list(bytes, Lease::decode, Lease::encode)),
        4 => tomb(bytes),
        5 => segment(bytes),
        6 => drop(field_list(bytes, ReceiptRecord::decode, ReceiptRecord::encode)),
        7 => receipt(bytes),
        _ => replica(bytes),
    }
}

fn config(bytes: &[u8]) {
    let Some(config) = field_list(bytes, Config::decode, Config::encode) else { return };
    // Settings that were accepted can be used.
    let settings = config.chunker;
    let cutter = Cutter::Content(Box::new(ContentCutter::new(settings, [7; 256])));
    let data = [0x5a; 3000];
    let length = cutter.next(&data);
    assert!((1..=data.len()).contains(&length));
    assert!(config.domains.iter().any(|domain| domain.id == 0));
}

fn tomb(bytes: &[u8]) {
    if let Some(tomb) = field_list(bytes, Tomb::decode, Tomb::encode) {
        assert!(tomb.packs.is_sorted_by(|one, next| one < next));
    }
}

fn segment(bytes: &[u8]) {
    let Some(mut segment) = exact(bytes, Segment::decode, Segment::encode) else { return };
    for pack in &segment.packs {
        let frames = pack.frames.iter().map(|frame| u64::from(frame.sealed_bytes)).sum::<u64>();
        assert!(!pack.frames.is_empty() && frames < u64::from(pack.bytes));
    }
    let Some(writer) = segment.packs.first().map(|pack| pack.namespace) else { return };
    let before = segment.packs.len();
    let dropped = segment.keep_own(writer);
    assert_eq!(segment.packs.len() + dropped, before);
    assert!(segment.packs.iter().all(|pack| pack.namespace == writer));
}

fn receipt(bytes: &[u8]) {
    let Ok((receipt, signed)) = Receipt::parse(bytes) else { return };
    assert_eq!(signed, &bytes[..bytes.len() - receipt.signature.len()]);
    let written = receipt.encode();
    let (again, _) = Receipt::parse(&written).expect("what was written is read");
    assert_eq!(again, receipt);
}

fn replica(bytes: &[u8]) {
    let Ok(replica) = Replica::parse(bytes) else { return };
    let written = replica.encode();
    assert_eq!(Replica::parse(&written), Ok(replica));
    let (head, fields) = bytes.split_at(REPLICA_HEAD_BYTES);
    assert_eq!(head, &written[..REPLICA_HEAD_BYTES]);
    same_fields(fields, &written[REPLICA_HEAD_BYTES..]);
}
