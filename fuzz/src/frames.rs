//! Compression: hostile frames against their limits, honest ones back and forth.

use std::cell::RefCell;

use cairn_engine::frame::{COMPRESSION_LEVEL_DEFAULT, FrameCodec};
use cairn_format::limits::{FRAME_BASE_BYTES_MAX, FRAME_PLAIN_BYTES_MAX};
use cairn_format::pack::Codec;
use zstd::zstd_safe::{CCtx, CParameter, compress_bound};

use crate::memory::peak;

/// Bytes that decoding may take besides the plaintext: messages.
const BYTES_BASE: usize = 4 << 10;

thread_local! {
    /// Reused, as a worker does: one frame must not change how the next is read.
    static CODEC: RefCell<FrameCodec> =
        RefCell::new(FrameCodec::new(COMPRESSION_LEVEL_DEFAULT).expect("zstd has memory"));
}

/// See the module.
pub fn run(data: &[u8]) {
    let Some((selector, bytes)) = data.split_first() else { return };
    CODEC.with_borrow_mut(|codec| match selector % 4 {
        0 => hostile(codec, bytes),
        1 => round_trip(codec, bytes),
        2 => with_base(codec, bytes),
        _ => changed(codec, bytes),
    });
}

fn decode(
    codec: &mut FrameCodec,
    kind: Codec,
    stored: &[u8],
    plain_bytes: u32,
    prefix: &[u8],
) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    let (result, bytes) = peak(|| codec.decode(kind, stored, plain_bytes, prefix, &mut plain));
    let limit = match kind {
        Codec::Zstd => (plain_bytes as usize).min(FRAME_PLAIN_BYTES_MAX as usize),
        Codec::Stored => stored.len(),
    };
    assert!(cfg!(test) || bytes <= limit + BYTES_BASE, "{bytes} bytes for {limit} stated");
    result.ok()?;
    assert_eq!(plain.len(), plain_bytes as usize);
    Some(plain)
}

/// Codec, stated length, length of the prefix, prefix, frame.
fn hostile(codec: &mut FrameCodec, bytes: &[u8]) {
    let Some((head, rest)) = bytes.split_first_chunk::<7>() else { return };
    let [kind, a, b, c, d, e, f] = *head;
    let Ok(kind) = Codec::from_byte(kind) else { return };
    let stated = u32::from_le_bytes([a, b, c, d]);
    let prefix_bytes = usize::from(u16::from_le_bytes([e, f])).min(rest.len());
    let (prefix, stored) = rest.split_at(prefix_bytes);
    drop(decode(codec, kind, stored, stated, prefix));
    if d == 0xff {
        let prefix = vec![0; FRAME_BASE_BYTES_MAX as usize + usize::from(e & 1)];
        drop(decode(codec, kind, stored, stated, &prefix));
    }
}

/// How often to repeat, then what.
fn repeated(bytes: &[u8]) -> Option<Vec<u8>> {
    let (times, pattern) = bytes.split_first()?;
    let mut plain = pattern.repeat(usize::from(*times) + 1);
    plain.truncate(FRAME_PLAIN_BYTES_MAX as usize);
    Some(plain)
}

fn length(plain: &[u8]) -> u32 {
    u32::try_from(plain.len()).expect("cut to the limit")
}

fn round_trip(codec: &mut FrameCodec, bytes: &[u8]) {
    let Some(plain) = repeated(bytes) else { return };
    let (kind, stored) = codec.encode(&plain).expect("anything can be encoded");
    let stored = stored.to_vec();
    assert!(stored.len() <= plain.len());
    let decoded = decode(codec, kind, &stored, length(&plain), &[]);
    assert_eq!(decoded.as_ref(), Some(&plain));
    if let Some(more) = length(&plain).checked_add(1) {
        assert_eq!(decode(codec, kind, &stored, more, &[]), None);
    }
}

fn compress(base: &[u8], plain: &[u8]) -> Vec<u8> {
    let mut context = CCtx::create();
    context.set_parameter(CParameter::WindowLog(25)).expect("within zstd's limits");
    context.ref_prefix(base).expect("zstd has memory");
    let mut stored = Vec::with_capacity(compress_bound(plain.len()));
    context.compress2(&mut stored, plain).expect("there is room");
    stored
}

/// A base, and a plaintext that is the base with one byte changed.
fn with_base(codec: &mut FrameCodec, bytes: &[u8]) {
    let Some((place, rest)) = bytes.split_first_chunk::<2>() else { return };
    let Some(base) = repeated(rest).filter(|base| !base.is_empty()) else { return };
    let mut plain = base.clone();
    let place = usize::from(u16::from_le_bytes(*place)) % plain.len();
    plain[place] ^= 0x55;
    let stored = compress(&base, &plain);
    let decoded = decode(codec, Codec::Zstd, &stored, length(&plain), &base);
    assert_eq!(decoded, Some(plain));
}

/// An honest frame with one byte changed: an error, or as many bytes as stated.
fn changed(codec: &mut FrameCodec, bytes: &[u8]) {
    let Some((change, rest)) = bytes.split_first_chunk::<3>() else { return };
    let Some(plain) = repeated(rest) else { return };
    let mut stored = compress(&[], &plain);
    let place = usize::from(u16::from_le_bytes([change[0], change[1]])) % stored.len();
    stored[place] ^= change[2];
    for prefix in [&[][..], &plain] {
        drop(decode(codec, Codec::Zstd, &stored, length(&plain), prefix));
    }
}
