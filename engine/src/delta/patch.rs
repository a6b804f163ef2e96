//! How patches are told from other chunks: a patch lies in the frame before the one it was made for,
//! which names it last (SPEC §6.3). Whoever moves frames keeps others from looking so.

use cairn_format::pack::{ChunkRef, FrameDescription};

/// Whether a frame with these bases has a patch of its own: the chunks of `before`, the frame before
/// it in its pack. All that is in the patch was in the frame's own chunks when it was written.
#[must_use]
pub fn is_patched(before: Option<&FrameDescription>, bases: &[ChunkRef]) -> bool {
    before.is_some_and(|patch| patch.bases.is_empty() && bases.ends_with(&patch.chunks))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_format::ids::ChunkId;
    use cairn_format::pack::Codec;

    #[test]
    fn a_patch_is_all_of_the_frame_before_and_named_last() {
        let chunk = |n: u8| ChunkRef { id: ChunkId::from_bytes([n; 32]), bytes: 9 };
        let frame = |chunks: &[u8], bases: &[u8]| FrameDescription {
            codec: Codec::Zstd,
            sealed_bytes: 30,
            chunks: chunks.iter().copied().map(chunk).collect(),
            bases: bases.iter().copied().map(chunk).collect(),
        };
        let patched = |before: Option<&FrameDescription>, bases: &[u8]| {
            is_patched(before, &frame(&[9], bases).bases)
        };
        assert!(patched(Some(&frame(&[1], &[])), &[3, 1]));
        assert!(patched(Some(&frame(&[1, 2], &[])), &[1, 2]));
        assert!(!patched(Some(&frame(&[1, 2], &[])), &[2, 1]));
        assert!(!patched(Some(&frame(&[1, 2], &[])), &[3, 2]));
        assert!(!patched(Some(&frame(&[1], &[])), &[1, 3]));
        assert!(!patched(Some(&frame(&[1], &[4])), &[3, 1]));
        assert!(!patched(Some(&frame(&[1], &[])), &[]));
        assert!(!patched(None, &[1]));
    }
}
