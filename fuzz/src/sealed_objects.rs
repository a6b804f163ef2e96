//! Sealed objects that were changed on their way, or that the holder of a key made up.

use std::sync::LazyLock;

use arbitrary::{Result as Made, Unstructured};
use bytes::Bytes;
use cairn_engine::pack::reader::PackReader;
use cairn_engine::seal::sign::{open_unsigned_body, unsigned_body};
use cairn_engine::seal::{Cipher, Kind, Opened, Part, Role};
use cairn_engine::store::memory::MemoryStore;
use cairn_format::envelope::{
    Content, HEADER_BYTES, SIGNATURE_BYTES, content_bytes_max, pad_body, unpad_body,
};
use cairn_format::ids::PackId;
use cairn_format::limits::{PACK_BYTES_MAX, TAG_BYTES};
use cairn_format::names::{ObjectName, PackKind};
use cairn_format::pack::{Directory, LOCATOR_BYTES, Locator};
use cairn_format::receipt::{Receipt, ReceiptRecord};

use crate::fixture::{CIPHERS, OWNER, REPOSITORY, ROLES, body_kinds, envelope, trust};

/// An object as it was sealed.
pub struct Sealed {
    /// Its kind.
    pub kind: Kind,
    /// Its bytes.
    pub object: Vec<u8>,
    /// The content of its body.
    pub content: Vec<u8>,
}

/// One object of each kind with a body and each cipher.
pub static OBJECTS: LazyLock<Vec<Sealed>> = LazyLock::new(|| {
    let all = CIPHERS.into_iter().flat_map(|cipher| body_kinds().map(move |kind| (cipher, kind)));
    all.map(|(cipher, kind)| seal(kind, cipher, b"the record of an object")).collect()
});

fn seal(kind: Kind, cipher: Cipher, record: &[u8]) -> Sealed {
    let envelope = envelope(kind, cipher, 4);
    let content = if kind == Kind::Lease {
        unsigned_body(record)
    } else {
        let signer = OWNER.signer().expect("owners sign");
        signer.sign_body(envelope.header(), record).expect("owners sign everything")
    };
    let object = envelope.seal_body(&content).expect("a short record");
    Sealed { kind, object, content }
}

/// See the module.
pub fn run(data: &[u8]) {
    let Some((selector, bytes)) = data.split_first() else { return };
    match selector % 8 {
        0 => drop(changed(&mut Unstructured::new(bytes))),
        1 => drop(Opened::open_body(bytes, &*OWNER)),
        2 => raw_body(bytes),
        3 => made_up_content(bytes),
        4 => roles(bytes),
        5 => drop(pack(&mut Unstructured::new(bytes))),
        6 => receipt(bytes),
        _ => padding(bytes),
    }
}

/// Changes a good object; unless nothing changed in the end, nobody opens it.
fn changed(input: &mut Unstructured<'_>) -> Made<()> {
    let good = input.choose(&OBJECTS)?;
    let mut object = good.object.clone();
    while !input.is_empty() {
        let at = input.int_in_range(0..=object.len())?;
        match input.arbitrary::<u8>()? % 4 {
            0 => match object.get_mut(at) {
                Some(byte) => *byte ^= input.arbitrary::<u8>()?,
                None => object.push(input.arbitrary()?),
            },
            1 => object.truncate(at),
            2 => {
                let other = input.choose(&OBJECTS)?;
                let end = other.object.len().min(at + input.int_in_range(0..=64_usize)?);
                let part = other.object.get(at..end).unwrap_or_default().to_vec();
                let until = object.len().min(at + part.len());
                object.splice(at..until, part);
            }
            _ => {
                let length = input.int_in_range(0..=32_usize)?.min(input.len());
                let part = input.bytes(length)?.to_vec();
                object.splice(at..at, part);
            }
        }
    }
    let opened = Opened::open_body(&object, &*OWNER);
    match OBJECTS.iter().find(|sealed| sealed.object == object) {
        Some(sealed) => {
            let (header, content) = opened.expect("an object just as it was sealed");
            assert_eq!((header.kind, &content), (sealed.kind, &sealed.content));
            assert_eq!(trust().verify_body(&header, &content).is_ok(), sealed.kind != Kind::Lease);
        }
        None => assert!(opened.is_err(), "a changed object opened"),
    }
    Ok(())
}

/// Which good header, then a body.
fn raw_body(bytes: &[u8]) {
    let Some((which, body)) = bytes.split_first() else { return };
    let good = &OBJECTS[usize::from(*which) % OBJECTS.len()];
    let object = [&good.object[..HEADER_BYTES], body].concat();
    let opened = Opened::open_body(&object, &*OWNER);
    assert_eq!(opened.is_ok(), object == good.object);
}

/// Kind and cipher, then the content, sealed rightly: it comes back, and is nobody's.
fn made_up_content(bytes: &[u8]) {
    let Some((which, content)) = bytes.split_first() else { return };
    let good = &OBJECTS[usize::from(*which) % OBJECTS.len()];
    let cipher = CIPHERS[usize::from(*which) / OBJECTS.len() % CIPHERS.len()];
    let object = match envelope(good.kind, cipher, 9).seal_body(content) {
        Ok(object) => object,
        Err(_) => {
            assert!(content.len() > content_bytes_max(good.kind));
            return;
        }
    };
    let (header, read) = Opened::open_body(&object, &*OWNER).expect("it was sealed rightly");
    assert_eq!(read, content);
    assert!(trust().verify_body(&header, &read).is_err(), "a signature was forged");
    if let Ok(record) = open_unsigned_body(&read) {
        assert_eq!(unsigned_body(record), read);
    }
    if let Ok(parts) = Content::parse(&read) {
        assert_eq!(parts.signed.len() + SIGNATURE_BYTES, read.len());
        assert!(parts.certificate.len() + parts.record.len() < parts.signed.len());
    }
}

/// Kind and role, then a record that the role signs, whether it may or not.
fn roles(bytes: &[u8]) {
    let Some(([which, role], record)) = bytes.split_first_chunk::<2>() else { return };
    let good = &OBJECTS[usize::from(*which) % OBJECTS.len()];
    let keys = &ROLES[usize::from(*role) % ROLES.len()];
    let Ok(signer) = keys.signer() else {
        assert_eq!(keys.role(), Role::Reader);
        return;
    };
    let envelope = envelope(good.kind, CIPHERS[0], 10);
    let may = signer.sign_body(envelope.header(), record).is_ok();
    // A malicious holder does not ask whether it may.
    let certificate = signer.certificate().encode();
    let mut content = cairn_format::codec::Writer::new();
    content.bytes(&certificate).raw(record);
    let signature = signer.sign(&envelope.header().bound(), content.as_bytes());
    content.raw(&signature);
    let verified = trust();
    let verified = verified.verify_body(envelope.header(), content.as_bytes());
    assert_eq!(verified.is_ok(), may);
    if let Ok((writer, read)) = verified {
        assert_eq!((writer.role, read), (keys.role(), record));
    }
}

/// A pack whose seals and signature are right, but whose directory and locator are made up.
fn pack(input: &mut Unstructured<'_>) -> Made<()> {
    let kind = *input.choose(&[PackKind::Data, PackKind::Tree])?;
    let envelope = match kind {
        PackKind::Data => envelope(Kind::DataPack, *input.choose(&CIPHERS)?, 11),
        PackKind::Tree => envelope(Kind::TreePack, *input.choose(&CIPHERS)?, 11),
    };
    let locator_given: [u64; 4] = input.arbitrary()?;
    let honest: [bool; 4] = input.arbitrary()?;
    let frames_bytes = input.int_in_range(0..=2000_usize)?;
    let range: (u32, u32) = input.arbitrary()?;
    let directory = input.bytes(input.len())?;
    let signer = OWNER.signer().expect("owners sign");
    let mut sealed = directory.to_vec();
    sealed.extend_from_slice(&signer.sign(&envelope.header().bound(), directory));
    envelope.sealer().seal_in_place(Part::Directory, &mut sealed).expect("sealed once");
    let frames_end = HEADER_BYTES + frames_bytes;
    let frames = Directory::decode(directory).map_or(0, |directory| directory.frames.len());
    let facts = [frames_end as u64, frames_end as u64, sealed.len() as u64, frames as u64];
    let mut fields = locator_given;
    for ((field, fact), honest) in fields.iter_mut().zip(facts).zip(honest) {
        if honest {
            *field = fact;
        }
    }
    let mut locator = fields.iter().flat_map(|field| field.to_le_bytes()).collect::<Vec<_>>();
    let plain = locator.clone();
    envelope.sealer().seal_in_place(Part::Locator, &mut locator).expect("sealed once");
    let mut object = envelope.header().encode();
    object.resize(frames_end, 0);
    object.append(&mut sealed);
    object.append(&mut locator);

    let pack_bytes = object.len() as u64;
    let id = PackId::from_bytes(*blake3::hash(&object).as_bytes());
    let store = MemoryStore::new();
    store.overwrite(ObjectName::Pack(kind, id), Bytes::from(object));
    let reader = PackReader::new(&store, &*OWNER);
    if let Ok(section) = reader.directory(kind, id, pack_bytes, &trust()) {
        let read = Locator::decode(&plain, pack_bytes).expect("it was accepted");
        let sealed = section.frames.iter().map(|frame| u64::from(frame.sealed_bytes)).sum::<u64>();
        assert_eq!(HEADER_BYTES as u64 + sealed, read.frames_end);
        assert_eq!((section.id, section.kind, u64::from(section.bytes)), (id, kind, pack_bytes));
    }
    for stated in [0, pack_bytes + 1, u64::from(LOCATOR_BYTES), u64::from(PACK_BYTES_MAX) + 1] {
        assert!(reader.directory(kind, id, stated, &trust()).is_err());
    }
    for end in [u64::from(range.1), pack_bytes.min(u64::from(range.1)), u64::MAX] {
        let start = u64::from(range.0).min(end);
        if let Ok((from, bytes)) = reader.range(kind, id, pack_bytes, start, end) {
            assert!(from <= start && end <= from + bytes.len() as u64);
        }
    }
    Ok(())
}

/// A receipt's record that each role signs, and raw bytes as a receipt.
fn receipt(bytes: &[u8]) {
    let Some((role, rest)) = bytes.split_first() else { return };
    assert!(trust().verify_receipt(rest).is_err(), "a receipt was forged");
    let keys = &ROLES[usize::from(*role) % ROLES.len()];
    let (Ok(signer), Ok(record)) = (keys.signer(), ReceiptRecord::decode(rest)) else { return };
    let may = matches!(keys.role(), Role::Owner | Role::Maintainer);
    let signed = signer.sign_receipt(REPOSITORY, record.clone());
    assert_eq!(signed.is_ok(), may);
    let mut receipt = signed.unwrap_or_else(|_| Receipt {
        repository: REPOSITORY,
        certificate: signer.certificate().encode(),
        record: record.clone(),
        signature: [0; SIGNATURE_BYTES],
    });
    if !may {
        let context = [b"receipt".as_slice(), REPOSITORY.as_bytes()].concat();
        receipt.signature = signer.sign(&context, &receipt.signed_bytes());
    }
    let encoded = receipt.encode();
    let verified = trust().verify_receipt(&encoded);
    assert_eq!(verified.is_ok(), may);
    if let Ok((_, read)) = verified {
        assert_eq!(read, receipt);
    }
}

fn padding(bytes: &[u8]) {
    if let Ok(content) = unpad_body(bytes) {
        let again = pad_body(Kind::Index, content, TAG_BYTES as usize).expect("it was shorter");
        assert_eq!(again, bytes);
    }
    let padded = pad_body(Kind::Index, bytes, 0).expect("shorter than a segment");
    assert_eq!(unpad_body(&padded), Ok(bytes));
}
