//! Frames: the unit of compression and encryption. This module turns chunks' plaintext into a
//! frame's stored plaintext and back (SPEC §6.3); sealing is the pack's business.

use cairn_format::limits::{FRAME_BASE_BYTES_MAX, FRAME_PLAIN_BYTES_MAX, ZSTD_WINDOW_LOG_MAX};
use cairn_format::pack::Codec;
use zstd::zstd_safe::{self, CCtx, CParameter, DCtx, DParameter};

use crate::delta::parse::Copied;
use crate::error::{Class, Explain};
use crate::timings::{Stage, Timings};

mod copies;

/// zstd level unless told otherwise: higher ones cost far more time than they save.
pub const COMPRESSION_LEVEL_DEFAULT: i32 = 3;

/// Least saving that pays for decompression at restore: a 32nd of the plaintext.
const SAVING_MIN_DIVISOR: usize = 32;

/// Samples, spread evenly, that are tried before compressing the whole; and the bytes of each.
const PROBE_SAMPLES: usize = 8;
const PROBE_BYTES: usize = 2 << 10;

/// Smallest window that long-distance matching is used with, as a power of two.
const WINDOW_LOG_MIN: u32 = 17;

/// Plaintext from which probing pays.
const PROBE_FROM_BYTES: usize = 64 << 10;

/// Least length of the parts that stand for a frame when what it compresses to without bases is
/// estimated, bytes; all together they are an eighth of it.
const ESTIMATE_PART_BYTES_MIN: usize = 1 << 10;
/// Parts of that estimate, spread evenly.
const ESTIMATE_PARTS: usize = 8;

/// A frame with bases is taken when it has at most this share of its plaintext: a half.
const DELTA_SHARE_MAX: usize = 2;
/// And at most so many fifths of what it would have without bases. Of a place that changes every
/// day each delta against the same base is larger than the one before; storing it whole once it has
/// reached two fifths keeps the sum of all days near its least.
const DELTA_FIFTHS_MAX: usize = 2;
/// A frame of copies, with the patch that goes with it, has at most so many fifths.
const COPIED_FIFTHS_MAX: usize = 4;
/// And so many times as often as its bases were written to, at most as much as twice it: where
/// changes pile up at an even rate, storing it whole then keeps the sum of all days at its least.
const COPIED_PILE_MAX: usize = 2;
/// Below this share of the plaintext, a 512th, nothing needs to be estimated for those.
const COPIED_SMALL_DIVISOR: usize = 512;
/// Below this share of the plaintext, a 32nd, nothing else needs to be estimated.
const DELTA_SMALL_DIVISOR: usize = 32;

/// How zstd's own dictionaries begin: `ZSTD_MAGIC_DICTIONARY`, little-endian.
const DICTIONARY_MAGIC: [u8; 4] = [0x37, 0xa4, 0x30, 0xec];

const _: () = assert!(PROBE_FROM_BYTES >= PROBE_SAMPLES * PROBE_BYTES);

/// Why a frame could not be made or undone.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
pub enum FrameError {
    /// zstd refused to compress.
    #[error("compression failed: {message}")]
    Compress {
        /// What zstd said.
        message: String,
    },
    /// What was compressed does not decompress to the same bytes.
    #[error("a frame of {bytes} bytes did not decompress to what went in")]
    Mismatch {
        /// Plaintext length, bytes.
        bytes: usize,
    },
    /// The stored bytes are not one zstd frame of the stated length.
    #[error("a frame does not decode: {message}")]
    Decode {
        /// What is wrong with it.
        message: String,
    },
}

impl Explain for FrameError {
    fn code(&self) -> &'static str {
        match self {
            Self::Compress { .. } => "frame.compress",
            Self::Mismatch { .. } => "frame.mismatch",
            Self::Decode { .. } => "frame.decode",
        }
    }

    fn class(&self) -> Class {
        match self {
            Self::Compress { .. } | Self::Mismatch { .. } => Class::Failed,
            Self::Decode { .. } => Class::Damage,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Mismatch { .. } => {
                Some("nothing was stored; this machine's memory or processor is suspect: run a memory test".into())
            }
            Self::Compress { .. } | Self::Decode { .. } => None,
        }
    }
}

/// Compresses and decompresses frames; one for each worker, reused.
pub struct FrameCodec {
    level: i32,
    compressor: CCtx<'static>,
    decompressor: DCtx<'static>,
    compressed: Vec<u8>,
    decoded: Vec<u8>,
    /// Takes the time of compressing and of checking what was compressed.
    pub timings: Timings,
}

impl FrameCodec {
    /// A codec that compresses at `level` (zstd's levels, negative ones included).
    ///
    /// # Errors
    /// [`FrameError::Compress`] when zstd does not take the level or has no memory.
    pub fn new(level: i32) -> Result<Self, FrameError> {
        let failed = |code| FrameError::Compress { message: error_name(code) };
        let mut compressor = CCtx::try_create()
            .ok_or_else(|| FrameError::Compress { message: "no memory for zstd".into() })?;
        let mut decompressor = DCtx::try_create()
            .ok_or_else(|| FrameError::Compress { message: "no memory for zstd".into() })?;
        for parameter in [
            CParameter::CompressionLevel(level),
            CParameter::ContentSizeFlag(true),
            CParameter::ChecksumFlag(false),
            CParameter::DictIdFlag(false),
        ] {
            compressor.set_parameter(parameter).map_err(failed)?;
        }
        decompressor
            .set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX))
            .map_err(failed)?;
        let (compressed, decoded) = (Vec::new(), Vec::new());
        let timings = Timings::default();
        Ok(Self { level, compressor, decompressor, compressed, decoded, timings })
    }

    /// The bytes to seal for `plain`, and their codec: compressed where that pays. What was
    /// compressed was also decompressed and compared.
    ///
    /// # Errors
    /// [`FrameError::Mismatch`] when decompression does not give `plain` back.
    pub fn encode<'a>(&'a mut self, plain: &'a [u8]) -> Result<(Codec, &'a [u8]), FrameError> {
        let timings = self.timings.clone();
        let compressing = timings.span(Stage::Compress, plain.len() as u64);
        if plain.len() >= PROBE_FROM_BYTES && !self.probe(plain)? {
            return Ok((Codec::Stored, plain));
        }
        self.compress(plain)?;
        drop(compressing);
        if self.compressed.len() + plain.len() / SAVING_MIN_DIVISOR >= plain.len() {
            return Ok((Codec::Stored, plain));
        }
        let _checking = timings.span(Stage::Check, plain.len() as u64);
        self.decoded.clear();
        self.decoded.reserve(plain.len());
        self.decompressor
            .decompress(&mut self.decoded, &self.compressed)
            .map_err(|_| FrameError::Mismatch { bytes: plain.len() })?;
        if self.decoded != plain {
            return Err(FrameError::Mismatch { bytes: plain.len() });
        }
        Ok((Codec::Zstd, &self.compressed))
    }

    /// The bytes to seal for `plain` with `prefix`, the concatenation of its bases, as codec
    /// [`Codec::Zstd`]; `None` when that does not pay. `listing_bytes` is what naming the bases
    /// costs. What was compressed was also decompressed and compared.
    ///
    /// # Errors
    /// [`FrameError::Mismatch`] when decompression does not give `plain` back.
    pub fn encode_based<'a>(
        &'a mut self,
        plain: &[u8],
        prefix: &[u8],
        listing_bytes: usize,
    ) -> Result<Option<&'a [u8]>, FrameError> {
        let bytes = plain.len();
        if bytes > FRAME_PLAIN_BYTES_MAX as usize || prefix.len() > FRAME_BASE_BYTES_MAX as usize {
            return Ok(None);
        }
        let timings = self.timings.clone();
        let compressing = timings.span(Stage::Compress, bytes as u64);
        compress_with_prefix(self.level, plain, prefix, &mut self.compressed)
            .map_err(|code| FrameError::Compress { message: error_name(code) })?;
        let cost = self.compressed.len() + listing_bytes;
        if cost > bytes / DELTA_SHARE_MAX {
            return Ok(None);
        }
        if cost > bytes / DELTA_SMALL_DIVISOR
            && cost * 5 > self.estimate_without_bases(plain)? * DELTA_FIFTHS_MAX
        {
            return Ok(None);
        }
        drop(compressing);
        self.check_based(plain, prefix)?;
        Ok(Some(&self.compressed))
    }

    /// The bytes to seal for `plain` as [`Codec::Zstd`], made of `copies` from `prefix`, the
    /// concatenation of its bases; `None` when that does not pay. `besides` is what naming the
    /// bases costs, `patch` what the patch among them takes that is stored with this frame, and
    /// `days` how many backups wrote the bases. What was compressed was also decompressed and
    /// compared.
    ///
    /// # Errors
    /// [`FrameError::Mismatch`] when decompression does not give `plain` back.
    pub fn encode_copied<'a>(
        &'a mut self,
        plain: &[u8],
        prefix: &[u8],
        copies: &[Copied],
        (besides, patch, days): (usize, usize, usize),
    ) -> Result<Option<&'a [u8]>, FrameError> {
        let bytes = plain.len();
        let timings = self.timings.clone();
        let compressing = timings.span(Stage::Compress, bytes as u64);
        if !copies::compress(plain, prefix, copies, &mut self.compressed) {
            return Ok(None);
        }
        let cost = self.compressed.len() + besides;
        if cost + patch > bytes / DELTA_SHARE_MAX {
            return Ok(None);
        }
        if cost + patch > bytes / COPIED_SMALL_DIVISOR {
            let whole = self.estimate_without_bases(plain)?;
            if (cost + patch) * 5 > whole * COPIED_FIFTHS_MAX
                || cost * days > whole * COPIED_PILE_MAX
            {
                return Ok(None);
            }
        }
        drop(compressing);
        self.check_based(plain, prefix)?;
        Ok(Some(&self.compressed))
    }

    /// Decompresses what was compressed last against `prefix`, and compares.
    fn check_based(&mut self, plain: &[u8], prefix: &[u8]) -> Result<(), FrameError> {
        let bytes = plain.len();
        let timings = self.timings.clone();
        let _checking = timings.span(Stage::Check, bytes as u64);
        self.decoded.clear();
        self.decoded.reserve(bytes);
        let Self { decompressor, compressed, decoded, .. } = self;
        decompress_with_prefix(decompressor, compressed, prefix, decoded)
            .map_err(|_| FrameError::Mismatch { bytes })?;
        if self.decoded == plain { Ok(()) } else { Err(FrameError::Mismatch { bytes }) }
    }

    /// About what `plain` compresses to, told by an eighth of it.
    fn estimate_without_bases(&mut self, plain: &[u8]) -> Result<usize, FrameError> {
        let part = (plain.len() / (ESTIMATE_PARTS * ESTIMATE_PARTS)).max(ESTIMATE_PART_BYTES_MIN);
        let stride = plain.len() / ESTIMATE_PARTS;
        let sample = if stride > part {
            let parts = plain.chunks(stride).filter_map(|place| place.get(..part));
            parts.flatten().copied().collect::<Vec<_>>()
        } else {
            plain.to_vec()
        };
        self.decoded.clear();
        self.decoded.reserve(zstd_safe::compress_bound(sample.len()));
        self.compressor
            .compress2(&mut self.decoded, &sample)
            .map_err(|code| FrameError::Compress { message: error_name(code) })?;
        let compressed = self.decoded.len().min(sample.len());
        Ok(compressed * plain.len() / sample.len().max(1))
    }

    fn compress(&mut self, plain: &[u8]) -> Result<(), FrameError> {
        self.compressed.clear();
        self.compressed.reserve(zstd_safe::compress_bound(plain.len()));
        self.compressor
            .compress2(&mut self.compressed, plain)
            .map_err(|code| FrameError::Compress { message: error_name(code) })?;
        Ok(())
    }

    /// True when a sample of `plain` compresses.
    fn probe(&mut self, plain: &[u8]) -> Result<bool, FrameError> {
        let mut sample = [0; PROBE_SAMPLES * PROBE_BYTES];
        let stride = (plain.len() - PROBE_BYTES) / (PROBE_SAMPLES - 1);
        for (index, part) in sample.chunks_exact_mut(PROBE_BYTES).enumerate() {
            if let Some(bytes) = plain.get(index * stride..index * stride + PROBE_BYTES) {
                part.copy_from_slice(bytes);
            }
        }
        self.compress(&sample)?;
        Ok(self.compressed.len() + sample.len() / SAVING_MIN_DIVISOR < sample.len())
    }

    /// Undoes [`Self::encode`]: fills `plain` with exactly `plain_bytes` bytes. `prefix` is the
    /// concatenation of the frame's bases, empty without.
    ///
    /// # Errors
    /// [`FrameError::Decode`] for anything but one zstd frame (or stored bytes) of that length.
    pub fn decode(
        &mut self,
        codec: Codec,
        stored: &[u8],
        plain_bytes: u32,
        prefix: &[u8],
        plain: &mut Vec<u8>,
    ) -> Result<(), FrameError> {
        let failed = |message: &str| FrameError::Decode { message: message.to_owned() };
        if plain_bytes > FRAME_PLAIN_BYTES_MAX || prefix.len() > FRAME_BASE_BYTES_MAX as usize {
            return Err(failed("it is larger than a frame may be"));
        }
        let bytes = plain_bytes as usize;
        plain.clear();
        match codec {
            Codec::Stored => plain.extend_from_slice(stored),
            Codec::Zstd => {
                match zstd_safe::find_frame_compressed_size(stored) {
                    Ok(length) if length == stored.len() => {}
                    _ => return Err(failed("it is not exactly one zstd frame")),
                }
                // Descriptor, RFC 8878 3.1.1.1.1: no checksum, no dictionary id.
                if stored.get(4).is_none_or(|descriptor| descriptor & 0b111 != 0) {
                    return Err(failed("it has a checksum or a dictionary id"));
                }
                if !matches!(zstd_safe::get_frame_content_size(stored), Ok(Some(size)) if size == bytes as u64)
                {
                    return Err(failed("its stated length is another"));
                }
                plain.reserve_exact(bytes);
                let result = if prefix.is_empty() {
                    self.decompressor.decompress(plain, stored)
                } else {
                    decompress_with_prefix(&mut self.decompressor, stored, prefix, plain)
                };
                result.map_err(|code| failed(&error_name(code)))?;
            }
        }
        if plain.len() == bytes { Ok(()) } else { Err(failed("it decodes to another length")) }
    }
}

/// Compresses against a prefix. zstd finds nothing in a prefix that its window does not reach, and
/// little in a long one without long-distance matching: the tables of its ordinary search forget
/// all but the newest part.
fn compress_with_prefix(
    level: i32,
    plain: &[u8],
    prefix: &[u8],
    compressed: &mut Vec<u8>,
) -> zstd_safe::SafeResult {
    let mut compressor = CCtx::create();
    let reach = (plain.len() + prefix.len()).next_power_of_two().trailing_zeros();
    for parameter in [
        CParameter::CompressionLevel(level),
        CParameter::ContentSizeFlag(true),
        CParameter::ChecksumFlag(false),
        CParameter::DictIdFlag(false),
        CParameter::WindowLog(reach.clamp(WINDOW_LOG_MIN, ZSTD_WINDOW_LOG_MAX)),
        CParameter::EnableLongDistanceMatching(true),
    ] {
        compressor.set_parameter(parameter)?;
    }
    compressor.ref_prefix(prefix)?;
    compressed.clear();
    compressed.reserve(zstd_safe::compress_bound(plain.len()));
    compressor.compress2(compressed, plain)
}

/// A prefix is bytes and nothing else. zstd takes a dictionary for such too, unless it begins like one
/// of zstd's own making; then it has to be told, which takes a context of its own.
fn decompress_with_prefix(
    decompressor: &mut DCtx<'static>,
    stored: &[u8],
    prefix: &[u8],
    plain: &mut Vec<u8>,
) -> zstd_safe::SafeResult {
    if !prefix.starts_with(&DICTIONARY_MAGIC) {
        return decompressor.decompress_using_dict(plain, stored, prefix);
    }
    let mut decompressor = DCtx::create();
    decompressor.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX))?;
    decompressor.ref_prefix(prefix)?;
    decompressor.decompress(plain, stored)
}

fn error_name(code: usize) -> String {
    zstd_safe::get_error_name(code).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn codec() -> FrameCodec {
        FrameCodec::new(COMPRESSION_LEVEL_DEFAULT).unwrap()
    }

    fn noise(bytes: usize) -> Vec<u8> {
        let mut data = vec![0; bytes];
        blake3::Hasher::new().finalize_xof().fill(&mut data);
        data
    }

    proptest! {
        #[test]
        fn every_frame_decodes_to_what_went_in(pattern in prop::collection::vec(any::<u8>(), 1..300), repeat in 1_usize..2_000) {
            let plain = pattern.repeat(repeat);
            let mut codec = codec();
            let (kind, stored) = codec.encode(&plain).unwrap();
            let stored = stored.to_vec();
            let mut decoded = Vec::new();
            codec.decode(kind, &stored, u32::try_from(plain.len()).unwrap(), &[], &mut decoded).unwrap();
            prop_assert_eq!(decoded, plain);
        }
    }

    #[test]
    fn noise_is_stored_and_text_is_not() {
        let mut codec = codec();
        assert_eq!(codec.encode(&noise(300_000)).unwrap().0, Codec::Stored);
        assert_eq!(codec.encode(&b"customer,".repeat(40_000)).unwrap().0, Codec::Zstd);
        assert_eq!(codec.encode(b"x").unwrap().0, Codec::Stored);
    }

    #[test]
    fn a_frame_with_a_base_decodes_against_it_only() {
        let base = noise(500_000);
        let mut plain = base.clone();
        plain[1234] ^= 1;
        let mut compressor = CCtx::create();
        compressor.ref_prefix(&base).unwrap();
        let mut stored = Vec::with_capacity(zstd_safe::compress_bound(plain.len()));
        compressor.set_parameter(CParameter::EnableLongDistanceMatching(true)).unwrap();
        compressor.set_parameter(CParameter::WindowLog(ZSTD_WINDOW_LOG_MAX)).unwrap();
        compressor.compress2(&mut stored, &plain).unwrap();
        assert!(stored.len() < 2_000, "{} bytes", stored.len());
        let (mut codec, mut decoded) = (codec(), Vec::new());
        codec.decode(Codec::Zstd, &stored, 500_000, &base, &mut decoded).unwrap();
        assert_eq!(decoded, plain);
        assert!(codec.decode(Codec::Zstd, &stored, 500_000, &[], &mut decoded).is_err());
    }

    #[test]
    fn prefixes_are_bytes_also_where_they_look_like_dictionaries_of_zstd() {
        let mut codec = codec();
        let mut decoded = Vec::new();
        // The one context sees all kinds in turn.
        for base in [noise(9_000), [&DICTIONARY_MAGIC[..], b"no more"].concat(), noise(7)] {
            for base in [base.clone(), [base, noise(70_000)].concat()] {
                let plain = [&noise(100), &base[..], &noise(100)].concat();
                let bytes = u32::try_from(plain.len()).unwrap();
                let mut stored = Vec::new();
                compress_with_prefix(3, &plain, &base, &mut stored).unwrap();
                codec.decode(Codec::Zstd, &stored, bytes, &base, &mut decoded).unwrap();
                assert_eq!(decoded, plain);
                let alone = codec.encode(&plain).unwrap();
                let (kind, alone) = (alone.0, alone.1.to_vec());
                codec.decode(kind, &alone, bytes, &[], &mut decoded).unwrap();
                assert_eq!(decoded, plain);
            }
        }
    }

    /// Content that compresses to about a half.
    fn text(bytes: usize) -> Vec<u8> {
        noise(bytes).into_iter().map(|byte| b"abcdefghijklmnop"[usize::from(byte % 16)]).collect()
    }

    proptest! {
        #[test]
        fn what_is_encoded_against_a_base_decodes_to_what_went_in(
            edits in prop::collection::vec((0_usize..200_000, any::<u8>()), 0..50),
            shift in 0_usize..500, bytes in 1_usize..200_000, base_bytes in 0_usize..300_000,
        ) {
            let base = text(base_bytes);
            let mut plain = [&vec![b'x'; shift], &text(bytes)[..]].concat();
            for (at, byte) in edits {
                if let Some(place) = plain.get_mut(at) {
                    *place = byte;
                }
            }
            let mut codec = codec();
            let stored = codec.encode_based(&plain, &base, 70).unwrap().map(<[u8]>::to_vec);
            if let Some(stored) = stored {
                let (mut decoded, length) = (Vec::new(), u32::try_from(plain.len()).unwrap());
                codec.decode(Codec::Zstd, &stored, length, &base, &mut decoded).unwrap();
                prop_assert_eq!(decoded, plain);
            }
        }
    }

    #[test]
    fn a_base_is_taken_only_when_it_pays() {
        let mut codec = codec();
        let base = text(600_000);
        let mut plain = base[50_000..450_000].to_vec();
        plain[1_000] ^= 1;
        let stored = codec.encode_based(&plain, &base, 700).unwrap().map(<[u8]>::len);
        assert!(stored.is_some_and(|bytes| bytes < 500), "{stored:?}");
        // Half of it is new, which compressed alone takes hardly more.
        plain[..200_000].copy_from_slice(&text(900_000)[700_000..]);
        assert_eq!(codec.encode_based(&plain, &base, 700).unwrap(), None);
        // What compresses well by itself needs no base, and noise has none.
        let rows = b"customer,".repeat(40_000);
        assert_eq!(codec.encode_based(&rows, &rows, 70_000).unwrap(), None);
        let strange = noise(300_000).into_iter().map(|byte| byte ^ 0x5a).collect::<Vec<_>>();
        assert_eq!(codec.encode_based(&strange, &base, 70).unwrap(), None);
        assert_eq!(codec.encode_based(b"", &base, 70).unwrap(), None);
        let long = vec![0; FRAME_BASE_BYTES_MAX as usize + 1];
        assert_eq!(codec.encode_based(&plain, &long, 70).unwrap(), None);
    }

    proptest! {
        #[test]
        fn a_frame_of_copies_decodes_to_what_went_in(
            pieces in prop::collection::vec((any::<bool>(), 0_usize..900_000, 1_usize..150_000), 1..9),
        ) {
            let base = text(1_000_000);
            let mut plain = Vec::new();
            let mut copies = Vec::new();
            for (from_base, from, bytes) in pieces {
                let bytes = bytes.min(base.len() - from);
                if from_base {
                    copies.push(Copied { at: plain.len(), from, bytes });
                    plain.extend_from_slice(&base[from..from + bytes]);
                } else {
                    plain.extend(noise(bytes / 100));
                }
            }
            let mut codec = codec();
            let stored = codec.encode_copied(&plain, &base, &copies, (70, 0, 1)).unwrap();
            if let Some(stored) = stored.map(<[u8]>::to_vec) {
                let (mut decoded, length) = (Vec::new(), u32::try_from(plain.len()).unwrap());
                codec.decode(Codec::Zstd, &stored, length, &base, &mut decoded).unwrap();
                prop_assert_eq!(decoded, plain);
            }
        }

        #[test]
        fn copies_that_are_not_there_make_no_frame(
            copies in prop::collection::vec((any::<usize>(), any::<usize>(), any::<usize>()), 1..5),
            small in any::<bool>(),
        ) {
            let (plain, base) = (text(5_000), text(9_000));
            let limit = if small { 6_000 } else { usize::MAX };
            let made = copies.into_iter().map(|(at, from, bytes)| Copied {
                at: at % limit, from: from % limit, bytes: bytes % limit,
            });
            let made = made.collect::<Vec<_>>();
            let mut codec = codec();
            let outcome = codec.encode_copied(&plain, &base, &made, (0, 0, 1));
            let is_sound = matches!(outcome, Ok(_) | Err(FrameError::Mismatch { .. }));
            prop_assert!(is_sound);
        }
    }

    #[test]
    fn copies_pay_until_changes_have_piled_up() {
        let mut codec = codec();
        let base = text(900_000);
        let plain = [&base[..400_000], &text(20_000)[10_000..], &base[450_000..900_000]].concat();
        let copies = [
            Copied { at: 0, from: 0, bytes: 400_000 },
            Copied { at: 410_000, from: 450_000, bytes: 450_000 },
        ];
        let mut stored = |besides| {
            let stored = codec.encode_copied(&plain, &base, &copies, besides).unwrap();
            stored.map(<[u8]>::len)
        };
        let bytes = stored((70, 0, 1)).unwrap();
        assert!((4_000..12_000).contains(&bytes), "{bytes}");
        // About 430,000 bytes whole: after as many days as make that, half over, it is.
        assert!(stored((70, 0, 80)).is_some());
        assert_eq!(stored((70, 0, 300)), None);
        assert_eq!(stored((70, 400_000, 1)), None);
        assert_eq!(stored((500_000, 0, 1)), None);
    }

    #[test]
    fn lying_lengths_and_extra_frames_are_refused() {
        let mut codec = codec();
        let bomb = zstd::bulk::compress(&vec![0; 8 << 20], 3).unwrap();
        let mut plain = Vec::new();
        for bytes in [1000, FRAME_PLAIN_BYTES_MAX, 8 << 20, u32::MAX] {
            assert!(codec.decode(Codec::Zstd, &bomb, bytes, &[], &mut plain).is_err());
            assert!(plain.capacity() <= FRAME_PLAIN_BYTES_MAX as usize);
        }
        let mut twice = zstd::bulk::compress(b"one", 3).unwrap();
        twice.extend(zstd::bulk::compress(b"two", 3).unwrap());
        assert!(codec.decode(Codec::Zstd, &twice, 6, &[], &mut plain).is_err());
        assert!(codec.decode(Codec::Stored, b"abc", 4, &[], &mut plain).is_err());
    }
}
