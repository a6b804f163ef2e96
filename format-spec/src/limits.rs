//! Every limit of the format (SPEC §2), and the proofs that they fit together.

/// Largest chunk, bytes.
pub const CHUNK_BYTES_MAX: u32 = 1 << 20;
/// Largest plaintext of a frame, bytes.
pub const FRAME_PLAIN_BYTES_MAX: u32 = 2 << 20;
/// Most chunks in one frame.
pub const FRAME_CHUNKS_MAX: u32 = 4096;
/// Most base chunks of one frame.
pub const FRAME_BASES_MAX: u32 = 1024;
/// Largest sum of the base chunks of one frame, bytes.
pub const FRAME_BASE_BYTES_MAX: u32 = 16 << 20;
/// Largest zstd window a reader grants, as a power of two.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 25;
/// Length of an AEAD tag, bytes (both ciphers).
pub const TAG_BYTES: u32 = 16;
/// Largest sealed frame: incompressible frames are stored raw, so only the tag is added.
pub const FRAME_SEALED_BYTES_MAX: u32 = FRAME_PLAIN_BYTES_MAX + TAG_BYTES;
/// Largest pack, bytes.
pub const PACK_BYTES_MAX: u32 = 256 << 20;
/// Smallest configurable pack, bytes.
pub const PACK_BYTES_MIN: u32 = 1 << 20;
/// Most frames in a pack.
pub const PACK_FRAMES_MAX: u32 = 1 << 16;
/// Largest plaintext of a pack directory, bytes.
pub const DIRECTORY_BYTES_MAX: u32 = 8 << 20;
/// Smallest shard that writers of parity make, bytes: a sector of a disk.
pub const PARITY_SHARD_BYTES_MIN: u32 = 4096;
/// Most data shards, and recovery shards rounded up to a power of two, together.
pub const PARITY_SHARDS_MAX: u32 = 1 << 16;
/// Largest index segment, bytes.
pub const SEGMENT_BYTES_MAX: u32 = 32 << 20;
/// Largest snapshot, ack, config, lease, key slot or replica object, bytes.
pub const RECORD_BYTES_MAX: u32 = 1 << 20;
/// Largest tomb or receipt, bytes.
pub const TOMB_BYTES_MAX: u32 = 8 << 20;
/// Largest tree node, bytes: a node is one chunk.
pub const NODE_BYTES_MAX: u32 = CHUNK_BYTES_MAX;
/// Largest encoded entry, bytes: two always fit into a node.
pub const ENTRY_BYTES_MAX: u32 = 448 << 10;
/// Longest path component, bytes.
pub const NAME_BYTES_MAX: u32 = 1024;
/// Longest symlink target, bytes.
pub const SYMLINK_BYTES_MAX: u32 = 64 << 10;
/// Largest sum of names and values of one entry's extended attributes, bytes.
pub const XATTR_BYTES_MAX: u32 = 256 << 10;
/// Most extents that stand in the entry itself.
pub const INLINE_EXTENTS_MAX: u32 = 16;
/// Most extents or children in one extent node.
pub const EXTENT_NODE_ITEMS_MAX: u32 = 4096;
/// Deepest tree of extent nodes or of directory nodes above one directory's leaves.
pub const NODE_LEVELS_MAX: u32 = 8;
/// Deepest nesting of directories.
pub const PATH_DEPTH_MAX: u32 = 4096;
/// Largest file, bytes: lengths and offsets fit a signed 64-bit number.
pub const FILE_BYTES_MAX: u64 = i64::MAX as u64;
/// Longest job, host, user or tag name, bytes.
pub const LABEL_BYTES_MAX: u32 = 255;
/// Longest note in a receipt and description of a replica, bytes.
pub const NOTE_BYTES_MAX: u32 = 4096;

/// Bounds of the Argon2id costs a reader accepts: memory in KiB.
pub const ARGON2_MEMORY_KIB: core::ops::RangeInclusive<u32> = 19 * 1024..=4 * 1024 * 1024;
/// Bounds of the Argon2id costs a reader accepts: passes.
pub const ARGON2_PASSES: core::ops::RangeInclusive<u32> = 2..=64;
/// Bounds of the Argon2id costs a reader accepts: lanes.
pub const ARGON2_LANES: core::ops::RangeInclusive<u32> = 1..=16;

const _: () = assert!(CHUNK_BYTES_MAX <= FRAME_PLAIN_BYTES_MAX);
const _: () = assert!(2 * ENTRY_BYTES_MAX < NODE_BYTES_MAX);
const _: () = assert!(XATTR_BYTES_MAX + SYMLINK_BYTES_MAX + NAME_BYTES_MAX < ENTRY_BYTES_MAX);
const _: () = assert!(FRAME_PLAIN_BYTES_MAX + FRAME_BASE_BYTES_MAX <= 1 << ZSTD_WINDOW_LOG_MAX);
const _: () = assert!(DIRECTORY_BYTES_MAX + FRAME_SEALED_BYTES_MAX < PACK_BYTES_MAX);
const _: () = assert!(2 * DIRECTORY_BYTES_MAX <= SEGMENT_BYTES_MAX);
const _: () = assert!(EXTENT_NODE_ITEMS_MAX * 48 <= NODE_BYTES_MAX);
