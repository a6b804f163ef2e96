//! Reed-Solomon over shards, a stripe of all of them after another: a stripe fits into the cache and
//! memory does not follow the length of a pack. Shards have whole blocks of 64 bytes, and each block
//! is coded by itself, so the stripes do not show.

use std::ops::Range;

use cairn_format::parity::{PARITY_BLOCK_BYTES, ParityLayout};
use reed_solomon_simd::engine::DefaultEngine;
use reed_solomon_simd::rate::{HighRateDecoder, HighRateEncoder, RateDecoder, RateEncoder};

use crate::error::Error;

/// Bytes of all data shards that are coded at once.
const STRIPE_BYTES: usize = 1 << 20;

const BLOCK: usize = PARITY_BLOCK_BYTES as usize;

fn failed<E>(_: E) -> Error {
    Error::Internal { part: "the Reed-Solomon code" }
}

/// Columns of shards that are coded together.
fn stripes(layout: &ParityLayout) -> impl Iterator<Item = Range<usize>> {
    let shard = layout.shard_bytes as usize;
    let width = (STRIPE_BYTES / usize::from(layout.data.max(1)) / BLOCK).max(1) * BLOCK;
    (0..shard).step_by(width).map(move |start| start..(start + width).min(shard))
}

/// Some columns of a data shard, padded with zeros.
fn columns<'a>(
    object: &'a [u8],
    layout: &ParityLayout,
    index: u16,
    columns: &Range<usize>,
    padded: &'a mut Vec<u8>,
) -> &'a [u8] {
    let shard = layout.data_shard(index);
    let start = (shard.start as usize + columns.start).min(shard.end as usize);
    let end = (shard.start as usize + columns.end).min(shard.end as usize);
    let stored = object.get(start..end).unwrap_or_default();
    if stored.len() == columns.len() {
        return stored;
    }
    padded.clear();
    padded.extend_from_slice(stored);
    padded.resize(columns.len(), 0);
    padded
}

/// Where some columns of a recovery shard are stored.
fn recovery_columns(layout: &ParityLayout, index: u16, columns: &Range<usize>) -> Range<usize> {
    let start = layout.recovery_shard(index).start as usize;
    start + columns.start..start + columns.end
}

/// Computes all recovery shards of an object of the layout's length, in their places.
pub(super) fn encode(object: &mut [u8], layout: &ParityLayout) -> Result<(), Error> {
    let (data, recovery) = (usize::from(layout.data), usize::from(layout.recovery));
    let mut encoder: Option<HighRateEncoder<DefaultEngine>> = None;
    let mut padded = Vec::new();
    for stripe in stripes(layout) {
        let encoder = match &mut encoder {
            Some(encoder) => {
                encoder.reset(data, recovery, stripe.len()).map_err(failed)?;
                encoder
            }
            none => none.insert(
                HighRateEncoder::new(data, recovery, stripe.len(), DefaultEngine::new(), None)
                    .map_err(failed)?,
            ),
        };
        for index in 0..layout.data {
            let piece = columns(object, layout, index, &stripe, &mut padded);
            encoder.add_original_shard(piece).map_err(failed)?;
        }
        let coded = encoder.encode().map_err(failed)?;
        for (index, piece) in (0..layout.recovery).zip(coded.recovery_iter()) {
            let place = object.get_mut(recovery_columns(layout, index, &stripe));
            place.ok_or_else(|| failed(()))?.copy_from_slice(piece);
        }
    }
    Ok(())
}

/// Computes the recovery shards of data shards of one block each.
pub(super) fn encode_block(data: &[u8], recovery: u16) -> Result<Vec<u8>, Error> {
    let (count, recovery) = (data.len() / BLOCK, usize::from(recovery));
    let mut encoder =
        HighRateEncoder::new(count, recovery, BLOCK, DefaultEngine::new(), None).map_err(failed)?;
    for block in data.chunks_exact(BLOCK) {
        encoder.add_original_shard(block).map_err(failed)?;
    }
    Ok(encoder.encode().map_err(failed)?.recovery_iter().collect::<Vec<_>>().concat())
}

/// Computes the data shards that are not `sound` out of the other ones and of as many sound recovery
/// shards, in an object of the layout's length. `sound` speaks of data shards, then recovery shards.
pub(super) fn decode(
    object: &mut [u8],
    layout: &ParityLayout,
    sound: &[bool],
) -> Result<(), Error> {
    let (data, recovery) = sound.split_at_checked(usize::from(layout.data)).unwrap_or_default();
    let lost = (0..layout.data).zip(data).filter(|(_, sound)| !**sound);
    let lost = lost.map(|(index, _)| index).collect::<Vec<_>>();
    let with = (0..layout.recovery).zip(recovery).filter(|(_, sound)| **sound);
    let with = with.map(|(index, _)| index).take(lost.len()).collect::<Vec<_>>();
    if lost.is_empty() {
        return Ok(());
    }
    let counts = (usize::from(layout.data), usize::from(layout.recovery));
    let mut decoder: Option<HighRateDecoder<DefaultEngine>> = None;
    let (mut padded, mut restored) = (Vec::new(), Vec::new());
    for stripe in stripes(layout) {
        let decoder = match &mut decoder {
            Some(decoder) => {
                decoder.reset(counts.0, counts.1, stripe.len()).map_err(failed)?;
                decoder
            }
            none => none.insert(
                HighRateDecoder::new(counts.0, counts.1, stripe.len(), DefaultEngine::new(), None)
                    .map_err(failed)?,
            ),
        };
        for (index, _) in (0..layout.data).zip(data).filter(|(_, sound)| **sound) {
            let piece = columns(object, layout, index, &stripe, &mut padded);
            decoder.add_original_shard(usize::from(index), piece).map_err(failed)?;
        }
        for index in &with {
            let piece = object.get(recovery_columns(layout, *index, &stripe));
            let piece = piece.ok_or_else(|| failed(()))?;
            decoder.add_recovery_shard(usize::from(*index), piece).map_err(failed)?;
        }
        let decoded = decoder.decode().map_err(failed)?;
        restored.clear();
        for index in &lost {
            let piece = decoded.restored_original(usize::from(*index));
            restored.extend_from_slice(piece.ok_or_else(|| failed(()))?);
        }
        drop(decoded);
        for (index, piece) in lost.iter().zip(restored.chunks_exact(stripe.len())) {
            let shard = layout.data_shard(*index);
            let start = (shard.start as usize + stripe.start).min(shard.end as usize);
            let end = (shard.start as usize + stripe.end).min(shard.end as usize);
            let place = object.get_mut(start..end).ok_or_else(|| failed(()))?;
            // The rest is padding.
            place.copy_from_slice(piece.get(..place.len()).unwrap_or_default());
        }
    }
    Ok(())
}
