//! zstd frames made of given copies instead of what zstd's own search finds.
//!
//! The only place where the engine calls zstd's C interface itself: `zstd-safe` has no name for
//! this function. What is handed over is checked first, so that whatever the caller says the call
//! is sound; that the frame decodes to what went in is checked by whoever stores it.

use std::ffi::c_int;
use std::ptr::NonNull;

use cairn_format::limits::{FRAME_BASE_BYTES_MAX, FRAME_PLAIN_BYTES_MAX, ZSTD_WINDOW_LOG_MAX};
use zstd::zstd_safe::{compress_bound, zstd_sys as sys};

use super::WINDOW_LOG_MIN;
use crate::delta::parse::Copied;

/// Shortest copy that a frame can hold, bytes.
const COPY_BYTES_MIN: usize = 4;
/// Smallest table of zstd's own search, which has nothing to do here, as a power of two.
const HASH_LOG: c_int = 6;
/// zstd's level: tells how hard literals and lengths are entropy coded.
const LEVEL: c_int = 1;
/// Room for the heads of blocks that end early because a copy would not end in them, bytes.
const BLOCKS_ROOM_BYTES: usize = 64 << 10;

/// A context that is given back.
struct Context(NonNull<sys::ZSTD_CCtx>);

impl Context {
    fn new() -> Option<Self> {
        // SAFETY: takes nothing; returns null when there is no memory.
        NonNull::new(unsafe { sys::ZSTD_createCCtx() }).map(Self)
    }

    fn set(&mut self, parameter: sys::ZSTD_cParameter, value: c_int) -> bool {
        // SAFETY: the context is live and not shared.
        let code = unsafe { sys::ZSTD_CCtx_setParameter(self.0.as_ptr(), parameter, value) };
        !is_error(code)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: the context came from `ZSTD_createCCtx` and is given back once.
        unsafe { sys::ZSTD_freeCCtx(self.0.as_ptr()) };
    }
}

fn is_error(code: usize) -> bool {
    // SAFETY: takes any number.
    unsafe { sys::ZSTD_isError(code) != 0 }
}

/// The copies as zstd wants them; `None` if they are not in order, or not within both sides.
fn sequences(plain: usize, prefix: usize, copies: &[Copied]) -> Option<Vec<sys::ZSTD_Sequence>> {
    let mut sequences = Vec::with_capacity(copies.len());
    let mut end = 0;
    for copy in copies.iter().filter(|copy| copy.bytes >= COPY_BYTES_MIN) {
        let literals = copy.at.checked_sub(end)?;
        end = copy.at.checked_add(copy.bytes).filter(|end| *end <= plain)?;
        copy.from.checked_add(copy.bytes).filter(|end| *end <= prefix)?;
        sequences.push(sys::ZSTD_Sequence {
            offset: u32::try_from(prefix - copy.from + copy.at).ok()?,
            litLength: u32::try_from(literals).ok()?,
            matchLength: u32::try_from(copy.bytes).ok()?,
            rep: 0,
        });
    }
    Some(sequences)
}

/// Fills `compressed` with one zstd frame for `plain` that copies from `prefix` as stated, and
/// holds everything else itself. False when no such frame can be made.
pub(super) fn compress(
    plain: &[u8],
    prefix: &[u8],
    copies: &[Copied],
    compressed: &mut Vec<u8>,
) -> bool {
    compressed.clear();
    let within = plain.len() <= FRAME_PLAIN_BYTES_MAX as usize
        && prefix.len() <= FRAME_BASE_BYTES_MAX as usize
        && !plain.is_empty()
        && !prefix.is_empty();
    let Some(sequences) = sequences(plain.len(), prefix.len(), copies) else { return false };
    let Some(mut context) = Context::new().filter(|_| within) else { return false };
    let reach = (plain.len() + prefix.len()).next_power_of_two().trailing_zeros();
    let window = reach.clamp(WINDOW_LOG_MIN, ZSTD_WINDOW_LOG_MAX);
    let set = [
        (sys::ZSTD_cParameter::ZSTD_c_compressionLevel, LEVEL),
        (sys::ZSTD_cParameter::ZSTD_c_windowLog, c_int::try_from(window).unwrap_or_default()),
        (sys::ZSTD_cParameter::ZSTD_c_hashLog, HASH_LOG),
        (sys::ZSTD_cParameter::ZSTD_c_minMatch, COPY_BYTES_MIN as c_int),
        (sys::ZSTD_cParameter::ZSTD_c_contentSizeFlag, 1),
        (sys::ZSTD_cParameter::ZSTD_c_checksumFlag, 0),
        (sys::ZSTD_cParameter::ZSTD_c_dictIDFlag, 0),
    ];
    if !set.into_iter().all(|(parameter, value)| context.set(parameter, value)) {
        return false;
    }
    compressed.reserve(compress_bound(plain.len()) + BLOCKS_ROOM_BYTES);
    // SAFETY: the context is live and not shared; `prefix` outlives the second call, which is the
    // only one to read it, and which reads and writes no more than the lengths it is given. Copies
    // lie within `plain` and `prefix`, follow each other, and have at least the shortest length.
    let length = unsafe {
        let code =
            sys::ZSTD_CCtx_refPrefix(context.0.as_ptr(), prefix.as_ptr().cast(), prefix.len());
        if is_error(code) {
            return false;
        }
        sys::ZSTD_compressSequences(
            context.0.as_ptr(),
            compressed.as_mut_ptr().cast(),
            compressed.capacity(),
            sequences.as_ptr(),
            sequences.len(),
            plain.as_ptr().cast(),
            plain.len(),
        )
    };
    if is_error(length) || length > compressed.capacity() {
        return false;
    }
    // SAFETY: zstd wrote so many bytes, and there is room for them.
    unsafe { compressed.set_len(length) };
    true
}
