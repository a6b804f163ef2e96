//! What a pack says about itself.

use cairn_format::codec::{Reader, Writer};
use cairn_format::envelope::HEADER_BYTES;
use cairn_format::error::FormatError;
use cairn_format::ids::ChunkId;
use cairn_format::limits::{
    CHUNK_BYTES_MAX, FRAME_BASE_BYTES_MAX, FRAME_PLAIN_BYTES_MAX, FRAME_SEALED_BYTES_MAX,
    PACK_BYTES_MAX, TAG_BYTES,
};
use cairn_format::pack::{
    ChunkRef, Codec, Directory, FrameDescription, LOCATOR_BYTES, Locator, decode_frames,
    encode_frames,
};
use cairn_format::parity::{ParityFooter, shard_hash};
use cairn_format::segment::PackSection;

use arbitrary::Unstructured;

use crate::spelling::exact;

/// See the module.
pub fn run(data: &[u8]) {
    let Some((selector, bytes)) = data.split_first() else { return };
    match selector % 7 {
        0 => frame(bytes),
        1 => frames(bytes),
        2 => directory(bytes),
        3 => locator(bytes),
        4 => section(bytes),
        5 => parity(bytes),
        _ => made_up(bytes),
    }
}

fn whole<T>(
    bytes: &[u8],
    decode: impl FnOnce(&mut Reader<'_>) -> Result<T, FormatError>,
) -> Result<T, FormatError> {
    let mut reader = Reader::new(bytes, "input");
    let value = decode(&mut reader)?;
    reader.finish()?;
    Ok(value)
}

fn written(encode: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::new();
    encode(&mut writer);
    writer.into_bytes()
}

fn check(frame: &FrameDescription) {
    let sum = |chunks: &[ChunkRef]| chunks.iter().map(|chunk| u64::from(chunk.bytes)).sum::<u64>();
    let plain = sum(&frame.chunks);
    assert!((1..=u64::from(FRAME_PLAIN_BYTES_MAX)).contains(&plain));
    assert_eq!(plain, u64::from(frame.plain_bytes()));
    assert!(sum(&frame.bases) <= u64::from(FRAME_BASE_BYTES_MAX));
    assert!((TAG_BYTES + 1..=FRAME_SEALED_BYTES_MAX).contains(&frame.sealed_bytes));
    assert!(written(|w| frame.encode(w)).len() <= frame.encoded_bytes_max());
}

fn frame(bytes: &[u8]) {
    let decode = |bytes: &[u8]| whole(bytes, FrameDescription::decode);
    if let Some(frame) = exact(bytes, decode, |frame| written(|w| frame.encode(w))) {
        check(&frame);
    }
}

fn frames(bytes: &[u8]) {
    let decode = |bytes: &[u8]| whole(bytes, decode_frames);
    if let Some(frames) = exact(bytes, decode, |frames| written(|w| encode_frames(frames, w))) {
        check_frames(&frames);
    }
}

fn check_frames(frames: &[FrameDescription]) {
    frames.iter().for_each(check);
    let end = frames.iter().map(|frame| u64::from(frame.sealed_bytes)).sum::<u64>();
    assert!(!frames.is_empty() && HEADER_BYTES as u64 + end <= u64::from(PACK_BYTES_MAX));
}

fn directory(bytes: &[u8]) {
    if let Some(directory) = exact(bytes, Directory::decode, Directory::encode) {
        check_frames(&directory.frames);
    }
}

fn section(bytes: &[u8]) {
    let decode = |bytes: &[u8]| whole(bytes, PackSection::decode);
    if let Some(section) = exact(bytes, decode, |section| written(|w| section.encode(w))) {
        check_frames(&section.frames);
    }
}

/// The length of the pack, then the locator.
fn locator(bytes: &[u8]) {
    let Some((length, bytes)) = bytes.split_first_chunk() else { return };
    let pack_bytes = u64::from_le_bytes(*length);
    let Ok(locator) = Locator::decode(bytes, pack_bytes) else { return };
    assert_eq!(locator.encode().as_slice(), bytes);
    assert!(HEADER_BYTES as u64 <= locator.frames_end);
    assert!(locator.frames_end <= locator.directory_offset);
    let directory_end = locator.directory_offset + locator.directory_bytes;
    assert_eq!(directory_end + u64::from(LOCATOR_BYTES), pack_bytes);
}

/// A footer, whose check sum is put right.
fn parity(bytes: &[u8]) {
    let hash = |bytes: &[u8]| *blake3::hash(bytes).as_bytes();
    let mut bytes = bytes.to_vec();
    if let Some((layout, rest)) = bytes.split_at_mut_checked(16)
        && let Some(check) = rest.first_chunk_mut::<16>()
    {
        *check = shard_hash(layout, hash);
    }
    let Ok(footer) = ParityFooter::decode(&bytes, hash) else { return };
    assert_eq!(footer.encode(hash), bytes);
    let layout = footer.layout;
    let object_bytes = layout.object_bytes();
    assert!(object_bytes <= u64::from(PACK_BYTES_MAX));
    assert_eq!(layout.data_shard(layout.data - 1).end, layout.front_record().start);
    assert_eq!(layout.recovery_shard(layout.recovery - 1).end, layout.back_record().start);
    assert_eq!(layout.back_record().end, object_bytes);
}

/// What a builder may write is read.
fn made_up(bytes: &[u8]) {
    let mut input = Unstructured::new(bytes);
    let Ok(frame) = make_frame(&mut input) else { return };
    let encoded = written(|w| frame.encode(w));
    assert_eq!(whole(&encoded, FrameDescription::decode), Ok(frame));
}

fn make_frame(input: &mut Unstructured<'_>) -> arbitrary::Result<FrameDescription> {
    let zstd = input.arbitrary::<bool>()?;
    let chunks = make_chunks(input, 1, FRAME_PLAIN_BYTES_MAX)?;
    let bases = if zstd { make_chunks(input, 0, FRAME_BASE_BYTES_MAX)? } else { Vec::new() };
    let plain = chunks.iter().map(|chunk| chunk.bytes).sum::<u32>();
    let (codec, sealed_bytes) = if zstd {
        (Codec::Zstd, input.int_in_range(TAG_BYTES + 1..=FRAME_SEALED_BYTES_MAX)?)
    } else {
        (Codec::Stored, plain + TAG_BYTES)
    };
    Ok(FrameDescription { codec, sealed_bytes, chunks, bases })
}

fn make_chunks(
    input: &mut Unstructured<'_>,
    count_min: usize,
    bytes_max: u32,
) -> arbitrary::Result<Vec<ChunkRef>> {
    let count = input.int_in_range(count_min..=1024)?;
    let mut left = bytes_max;
    let mut chunks = Vec::new();
    for _ in 0..count {
        if left == 0 {
            break;
        }
        let bytes = input.int_in_range(1..=left.min(CHUNK_BYTES_MAX))?;
        left -= bytes;
        chunks.push(ChunkRef { id: ChunkId::from_bytes([input.arbitrary()?; 32]), bytes });
    }
    Ok(chunks)
}
