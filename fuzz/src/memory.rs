//! Counts what is allocated, so that a decoder that believes a length is seen at once and not
//! only when the machine runs out of memory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Bytes that decoding may take for each byte of input: the widest value of one byte is an empty
/// `Vec`, and a vector may be copied once while it grows.
const BYTES_PER_INPUT_BYTE: usize = 96;
/// Bytes that decoding may take besides.
const BYTES_BASE: usize = 64 << 10;

static CURRENT: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn grown(bytes: usize) {
    let now = CURRENT.fetch_add(bytes, Relaxed) + bytes;
    PEAK.fetch_max(now, Relaxed);
}

// SAFETY: everything is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: the caller's promises are the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        CURRENT.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promises are the same.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Runs something and returns how many bytes more than before were allocated at its peak. Means
/// something only while one thread runs, as in a fuzz target.
pub fn peak<T>(run: impl FnOnce() -> T) -> (T, usize) {
    let before = CURRENT.load(Relaxed);
    PEAK.store(before, Relaxed);
    let value = run();
    (value, PEAK.load(Relaxed).saturating_sub(before))
}

/// Runs a decoder and panics when it allocates out of proportion to its input.
pub fn bounded<T>(input_bytes: usize, decode: impl FnOnce() -> T) -> T {
    let (value, bytes) = peak(decode);
    let limit = BYTES_BASE + input_bytes * BYTES_PER_INPUT_BYTE;
    assert!(cfg!(test) || bytes <= limit, "{input_bytes} bytes of input took {bytes} bytes");
    value
}
