//! What a sweep does in which order: frames without bases as they lie in the packs, each frame with
//! bases as soon as the last of these is decoded.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

use rayon::prelude::*;

use super::{
    BATCH_BASED_MAX, FrameTask, KEPT_BYTES_MAX, LOOKUP_FRAMES_MIN, READ_BYTES_MAX, READ_GAP_BYTES,
};
use crate::error::Error;
use crate::index::local::{ChunkPlace, PackNumber, PackRecord};
use crate::repo::chunks::ChunkReader;

/// A frame without bases.
pub(super) struct Node {
    pub(super) place: ChunkPlace,
    /// Index of its task, where it is wanted for itself.
    pub(super) task: Option<usize>,
    /// Frames still to come that it is a base of.
    pub(super) uses: AtomicU32,
}

/// Part of a node's plaintext.
#[derive(Clone, Copy)]
pub(super) struct BasePart {
    pub(super) node: u32,
    pub(super) offset: u32,
    pub(super) bytes: u32,
}

/// A frame with bases.
pub(super) struct Based {
    pub(super) task: usize,
    pub(super) parts: Vec<BasePart>,
}

/// Part of a pack.
#[derive(Clone, Copy)]
pub(super) struct Part {
    pub(super) pack: PackNumber,
    pub(super) start: u64,
    pub(super) end: u64,
}

/// What is decoded in one go: frames that lie together, then those that need the last of these.
pub(super) struct Batch {
    /// What is read for the nodes, and for the hash of a pack that is read as a whole.
    pub(super) part: Option<Part>,
    pub(super) nodes: Range<usize>,
    pub(super) based: Range<usize>,
}

/// Everything to be done, in order.
pub(super) struct Plan {
    pub(super) packs: HashMap<PackNumber, PackRecord>,
    pub(super) nodes: Vec<Node>,
    /// By the last node that each needs.
    pub(super) based: Vec<Based>,
    pub(super) batches: Vec<Batch>,
}

impl ChunkReader<'_> {
    /// Plans to decode frames, and to read these packs as a whole.
    pub(super) fn plan_sweep<J: Sync>(&self, tasks: &[FrameTask<J>], whole: &[PackNumber]) -> Plan {
        let mut packs = HashMap::new();
        for task in tasks {
            self.note_pack(&mut packs, task.place.pack);
        }
        for number in whole {
            self.note_pack(&mut packs, *number);
        }
        let looked_up = tasks
            .par_iter()
            .with_min_len(LOOKUP_FRAMES_MIN)
            .enumerate()
            .filter(|(_, task)| task.place.based)
            .map(|(number, task)| (number, self.base_places(&task.place).ok().flatten()))
            .collect::<Vec<_>>();
        let mut frames = Vec::new();
        for (number, task) in tasks.iter().enumerate().filter(|(_, task)| !task.place.based) {
            frames.push((task.place, Some(number)));
        }
        let mut with_bases: Vec<(usize, Vec<ChunkPlace>)> = Vec::new();
        for (number, places) in looked_up {
            // Without a place for every base the task is left over.
            let Some(places) = places else { continue };
            for place in &places {
                self.note_pack(&mut packs, place.pack);
                frames.push((*place, None));
            }
            with_bases.push((number, places));
        }
        let nodes = nodes_of(frames);
        let mut based = Vec::with_capacity(with_bases.len());
        for (task, places) in with_bases {
            if let Some(parts) = parts_of(&nodes, &packs, tasks.get(task), &places) {
                based.push(Based { task, parts });
            }
        }
        based.sort_by_key(|based| based.parts.iter().map(|part| part.node).max());
        let mut batches = batches_of(&nodes, &based);
        if !whole.is_empty() {
            batches = cover(batches, whole, &packs);
        }
        Plan { packs, nodes, based, batches }
    }

    fn note_pack(&self, packs: &mut HashMap<PackNumber, PackRecord>, number: PackNumber) {
        if let std::collections::hash_map::Entry::Vacant(slot) = packs.entry(number)
            && let Ok(pack) = self.catalog().pack(number)
        {
            slot.insert(pack);
        }
    }

    /// Where the bases of a frame lie; `None` when one is not where it can serve.
    fn base_places(&self, place: &ChunkPlace) -> Result<Option<Vec<ChunkPlace>>, Error> {
        let (bases, namespace) = self.catalog().bases(place)?;
        let ids = bases.iter().map(|base| base.id).collect::<Vec<_>>();
        let places = self.catalog().places(&ids, namespace)?;
        let fit = |(found, base): (Option<ChunkPlace>, &cairn_format::pack::ChunkRef)| {
            found.filter(|found| !found.based && found.bytes == base.bytes)
        };
        Ok(places.into_iter().zip(&bases).map(fit).collect())
    }
}

/// One node for each frame, in the order of the packs.
fn nodes_of(mut frames: Vec<(ChunkPlace, Option<usize>)>) -> Vec<Node> {
    frames.sort_by_key(|(place, task)| (place.pack, place.frame_number, task.is_none()));
    let mut nodes: Vec<Node> = Vec::with_capacity(frames.len());
    for (place, task) in frames {
        let same = |node: &Node| {
            (node.place.pack, node.place.frame_number) == (place.pack, place.frame_number)
        };
        if !nodes.last().is_some_and(same) {
            nodes.push(Node { place, task, uses: AtomicU32::new(0) });
        }
    }
    nodes
}

/// Which parts of which nodes are the bases of a task, and notes that they are used.
fn parts_of<J>(
    nodes: &[Node],
    packs: &HashMap<PackNumber, PackRecord>,
    task: Option<&FrameTask<J>>,
    places: &[ChunkPlace],
) -> Option<Vec<BasePart>> {
    let kind = packs.get(&task?.place.pack)?.kind;
    let mut parts = Vec::with_capacity(places.len());
    for place in places {
        if packs.get(&place.pack)?.kind != kind {
            return None;
        }
        let key = (place.pack, place.frame_number);
        let node = nodes
            .binary_search_by_key(&key, |node| (node.place.pack, node.place.frame_number))
            .ok()?;
        let node = u32::try_from(node).ok()?;
        parts.push(BasePart { node, offset: place.offset, bytes: place.bytes });
    }
    let mut bytes = 0;
    for node in distinct(&parts) {
        bytes += nodes.get(node as usize)?.place.plain_bytes as usize;
    }
    // All of them are held at once: of a hostile frame that could be any amount.
    if parts.is_empty() || bytes > KEPT_BYTES_MAX {
        return None;
    }
    for node in distinct(&parts) {
        nodes.get(node as usize)?.uses.fetch_add(1, Ordering::Relaxed);
    }
    Some(parts)
}

/// The nodes of some parts, each once.
pub(super) fn distinct(parts: &[BasePart]) -> Vec<u32> {
    let mut nodes = parts.iter().map(|part| part.node).collect::<Vec<_>>();
    nodes.sort_unstable();
    nodes.dedup();
    nodes
}

fn batches_of(nodes: &[Node], based: &[Based]) -> Vec<Batch> {
    let last = |based: &Based| based.parts.iter().map(|part| part.node as usize).max();
    let mut batches: Vec<Batch> = Vec::new();
    let mut next = 0;
    for (number, node) in nodes.iter().enumerate() {
        let (pack, start) = (node.place.pack, u64::from(node.place.frame_offset));
        let end = start + u64::from(node.place.frame_bytes);
        match batches.last_mut() {
            Some(Batch { part: Some(part), nodes, based })
                if part.pack == pack
                    && start <= part.end + READ_GAP_BYTES
                    && end.saturating_sub(part.start) <= READ_BYTES_MAX
                    && based.len() < BATCH_BASED_MAX =>
            {
                part.end = end;
                nodes.end = number + 1;
            }
            _ => batches.push(Batch {
                part: Some(Part { pack, start, end }),
                nodes: number..number + 1,
                based: next..next,
            }),
        }
        while based.get(next).is_some_and(|based| last(based) <= Some(number)) {
            if batches.last().is_none_or(|batch| batch.based.len() >= BATCH_BASED_MAX) {
                // The frames these need are at hand; only they themselves are still to be read.
                let nodes = number..number;
                batches.push(Batch { part: None, nodes, based: next..next });
            }
            next += 1;
            if let Some(batch) = batches.last_mut() {
                batch.based.end = next;
            }
        }
    }
    batches
}

/// Widens what is read, and adds to it, so that it covers whole packs from front to back.
fn cover(
    batches: Vec<Batch>,
    whole: &[PackNumber],
    packs: &HashMap<PackNumber, PackRecord>,
) -> Vec<Batch> {
    let mut whole = whole.to_vec();
    whole.sort_unstable();
    let mut whole = whole.into_iter().peekable();
    let mut covered: Vec<Batch> = Vec::with_capacity(batches.len());
    // The pack being covered, how far that is done, and where it ends.
    let mut open: Option<Part> = None;
    for mut batch in batches {
        if let Some(part) = &mut batch.part {
            while open.is_some_and(|open| open.pack < part.pack)
                || (open.is_none() && whole.peek().is_some_and(|next| *next <= part.pack))
            {
                open.take().into_iter().for_each(|rest| read_only(&mut covered, rest));
                open = whole.next_if(|next| *next <= part.pack).and_then(|pack| {
                    let end = u64::from(packs.get(&pack)?.bytes);
                    Some(Part { pack, start: 0, end })
                });
            }
            if let Some(open) = open.as_mut().filter(|open| open.pack == part.pack) {
                if part.start > open.start + READ_GAP_BYTES {
                    read_only(&mut covered, Part { end: part.start, ..*open });
                } else {
                    part.start = part.start.min(open.start);
                }
                open.start = part.end;
            }
        }
        covered.push(batch);
    }
    open.into_iter().for_each(|rest| read_only(&mut covered, rest));
    for pack in whole {
        let end = packs.get(&pack).map_or(0, |record| u64::from(record.bytes));
        read_only(&mut covered, Part { pack, start: 0, end });
    }
    covered
}

/// Adds batches that read a part and decode nothing.
fn read_only(batches: &mut Vec<Batch>, mut rest: Part) {
    while rest.start < rest.end {
        let end = rest.end.min(rest.start + READ_BYTES_MAX);
        batches.push(Batch { part: Some(Part { end, ..rest }), nodes: 0..0, based: 0..0 });
        rest.start = end;
    }
}

#[cfg(test)]
mod tests {
    use cairn_format::ids::{PackId, SessionId, WriterId};
    use cairn_format::names::PackKind;
    use proptest::prelude::*;

    use super::*;

    fn place(pack: PackNumber, frame_number: u32, offset: u32, bytes: u32) -> ChunkPlace {
        ChunkPlace {
            pack,
            frame_number,
            frame_offset: offset,
            frame_bytes: bytes,
            plain_bytes: bytes,
            codec: 0,
            based: false,
            offset: 0,
            bytes,
        }
    }

    fn pack(bytes: u32) -> PackRecord {
        PackRecord {
            id: PackId::from_bytes([0; 32]),
            kind: PackKind::Data,
            bytes,
            writer: WriterId::from_bytes([0; 16]),
            session: SessionId::from_bytes([0; 16]),
            frames: 0,
            chunks: 0,
        }
    }

    proptest! {
        #[test]
        fn everything_is_planned_once_and_bases_come_first(
            // Of each frame: whether it is wanted, its length, the gap before it.
            frames in prop::collection::vec(
                prop::collection::vec((any::<bool>(), 1..3_000_000_u32, 0..200_000_u32), 0..12), 1..5),
            needs in prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 1..4), 0..600),
            whole in any::<bool>(),
        ) {
            let (mut found, mut packs) = (Vec::new(), HashMap::new());
            for (number, frames) in frames.iter().enumerate() {
                let number = PackNumber(number as u32);
                let mut offset = 128;
                for (frame, (wanted, bytes, gap)) in frames.iter().enumerate() {
                    offset += gap;
                    let place = place(number, frame as u32, offset, *bytes);
                    found.push((place, wanted.then_some(found.len())));
                    found.push((place, None));
                    offset += bytes;
                }
                packs.insert(number, pack(offset + 70_000));
            }
            let nodes = nodes_of(found);
            prop_assert_eq!(nodes.len(), frames.iter().map(Vec::len).sum::<usize>());
            let part = |index: &prop::sample::Index| {
                let node = index.index(nodes.len()) as u32;
                BasePart { node, offset: 0, bytes: 1 }
            };
            let mut based = if nodes.is_empty() { Vec::new() } else {
                needs.iter().enumerate()
                    .map(|(task, parts)| Based { task, parts: parts.iter().map(part).collect() })
                    .collect::<Vec<_>>()
            };
            let last = |based: &Based| based.parts.iter().map(|part| part.node as usize).max();
            based.sort_by_key(last);
            let mut batches = batches_of(&nodes, &based);
            let all = packs.keys().copied().collect::<Vec<_>>();
            if whole {
                batches = cover(batches, &all, &packs);
            }
            let (mut next_node, mut next_based) = (0, 0);
            for batch in &batches {
                if !batch.nodes.is_empty() {
                    prop_assert_eq!(batch.nodes.start, next_node);
                    next_node = batch.nodes.end;
                    let part = batch.part.unwrap();
                    for node in &nodes[batch.nodes.clone()] {
                        let start = u64::from(node.place.frame_offset);
                        let end = start + u64::from(node.place.frame_bytes);
                        prop_assert!(part.pack == node.place.pack);
                        prop_assert!(part.start <= start && end <= part.end);
                    }
                }
                if !batch.based.is_empty() {
                    prop_assert!(batch.based.start == next_based);
                    prop_assert!(batch.based.len() <= BATCH_BASED_MAX + 1);
                    next_based = batch.based.end;
                    for based in &based[batch.based.clone()] {
                        prop_assert!(last(based) < Some(next_node));
                    }
                }
            }
            prop_assert_eq!((next_node, next_based), (nodes.len(), based.len()));
            if whole {
                for (number, record) in &packs {
                    let mut done = 0;
                    for part in batches.iter().filter_map(|batch| batch.part) {
                        if part.pack == *number {
                            prop_assert!(part.start <= done, "a gap at {done}");
                            done = done.max(part.end);
                        }
                    }
                    prop_assert_eq!(done, u64::from(record.bytes));
                }
            }
        }
    }
}
