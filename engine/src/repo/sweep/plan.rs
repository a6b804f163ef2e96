//! What a sweep does in which order.
//!
//! Frames without bases are taken as they lie in the packs. What others were compressed against is
//! put off until the first of these comes, and they follow at once: in the order of the base that
//! most of each stands in, whichever of their bases lie in packs that were written later. So what
//! the frames of many days have in common is decoded once for all of them, and kept for a short time.

use std::collections::HashMap;
use std::ops::Range;

use rayon::prelude::*;

use super::kept::KEPT_BYTES_MAX;
use super::{FrameTask, LOOKUP_FRAMES_MIN, READ_BYTES_MAX, READ_GAP_BYTES};
use crate::error::Error;
use crate::index::local::{ChunkPlace, PackNumber, PackRecord};
use crate::repo::chunks::ChunkReader;

/// Steps of one batch, at most.
const BATCH_STEPS_MAX: usize = 512;

/// A frame without bases.
pub(super) struct Node {
    pub(super) place: ChunkPlace,
    /// Index of its task, where it is wanted for itself.
    pub(super) task: Option<usize>,
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
    pub(super) place: ChunkPlace,
    pub(super) parts: Vec<BasePart>,
}

/// Part of a pack.
#[derive(Clone, Copy)]
pub(super) struct Part {
    pub(super) pack: PackNumber,
    pub(super) start: u64,
    pub(super) end: u64,
}

/// A frame to be decoded: its index among those of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// One without bases.
    Node(u32),
    /// One with bases: all of these come before.
    Based(u32),
}

/// What is read in one go.
pub(super) struct Batch {
    pub(super) parts: Vec<Part>,
    /// What is decoded out of that.
    pub(super) steps: Range<usize>,
}

/// Everything to be done, in order.
pub(super) struct Plan {
    pub(super) packs: HashMap<PackNumber, PackRecord>,
    pub(super) nodes: Vec<Node>,
    pub(super) based: Vec<Based>,
    pub(super) steps: Vec<Step>,
    pub(super) batches: Vec<Batch>,
}

impl Part {
    /// Where a sealed frame lies.
    pub(super) fn of(place: &ChunkPlace) -> Self {
        let start = u64::from(place.frame_offset);
        Self { pack: place.pack, start, end: start + u64::from(place.frame_bytes) }
    }

    fn bytes(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }
}

impl Batch {
    /// What is read, bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.parts.iter().map(Part::bytes).sum()
    }
}

impl Plan {
    /// For each frame without bases those that need it, ascending.
    pub(super) fn users(&self) -> Vec<Vec<u32>> {
        let mut users = vec![Vec::new(); self.nodes.len()];
        for (number, based) in (0..).zip(&self.based) {
            for node in distinct(&based.parts) {
                users.iter_mut().skip(node as usize).take(1).for_each(|users| users.push(number));
            }
        }
        users
    }
}

/// The frame of a step.
fn place_of<'p>(nodes: &'p [Node], based: &'p [Based], step: Step) -> Option<&'p ChunkPlace> {
    match step {
        Step::Node(number) => nodes.get(number as usize).map(|node| &node.place),
        Step::Based(number) => based.get(number as usize).map(|based| &based.place),
    }
}

impl ChunkReader<'_> {
    /// Plans to decode frames. `whole` are packs that are read as a whole besides.
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
            if let Some(place) = tasks.get(task).map(|task| task.place)
                && let Some(parts) = parts_of(&nodes, &packs, &place, &places)
            {
                based.push(Based { task, place, parts });
            }
        }
        in_order(&mut based);
        let steps = steps_of(&nodes, &based);
        let batches = batches_of(&nodes, &based, &steps);
        Plan { packs, nodes, based, steps, batches }
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
            nodes.push(Node { place, task });
        }
    }
    nodes
}

/// Which parts of which nodes are the bases of a frame.
fn parts_of(
    nodes: &[Node],
    packs: &HashMap<PackNumber, PackRecord>,
    frame: &ChunkPlace,
    places: &[ChunkPlace],
) -> Option<Vec<BasePart>> {
    let kind = packs.get(&frame.pack)?.kind;
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
    (!parts.is_empty() && bytes <= KEPT_BYTES_MAX).then_some(parts)
}

/// The nodes of some parts, each once, ascending.
pub(super) fn distinct(parts: &[BasePart]) -> Vec<u32> {
    let mut nodes = parts.iter().map(|part| part.node).collect::<Vec<_>>();
    nodes.sort_unstable();
    nodes.dedup();
    nodes
}

/// The node that most of a frame stands in; of several the first.
fn main_of(parts: &[BasePart]) -> u32 {
    let mut sums: HashMap<u32, u64> = HashMap::new();
    for part in parts {
        *sums.entry(part.node).or_default() += u64::from(part.bytes);
    }
    let most = sums.into_iter().max_by_key(|(node, bytes)| (*bytes, std::cmp::Reverse(*node)));
    most.map_or(0, |(node, _)| node)
}

/// Sorts frames by the node that most of each stands in, and as they lie in their packs.
fn in_order(based: &mut [Based]) {
    based.sort_by_cached_key(|based| {
        (main_of(&based.parts), based.place.pack, based.place.frame_number)
    });
}

/// The order of all frames. `based` is in order already.
fn steps_of(nodes: &[Node], based: &[Based]) -> Vec<Step> {
    let mut planned = vec![false; nodes.len()];
    for node in based.iter().flat_map(|based| &based.parts) {
        planned.iter_mut().skip(node.node as usize).take(1).for_each(|planned| *planned = true);
    }
    // Those that serve nobody.
    let alone = (0..)
        .zip(nodes)
        .zip(planned)
        .filter(|((_, node), is_base)| node.task.is_some() && !is_base);
    let mut alone = alone.map(|((number, _), _)| number).peekable();
    let mut planned = vec![false; nodes.len()];
    let mut steps = Vec::with_capacity(nodes.len() + based.len());
    let mut waiting = None;
    for (number, based) in (0..).zip(based) {
        let main = main_of(&based.parts);
        while let Some(node) = alone.next_if(|node| *node < main) {
            steps.push(Step::Node(node));
        }
        for node in distinct(&based.parts) {
            if let Some(planned @ false) = planned.get_mut(node as usize) {
                *planned = true;
                steps.push(Step::Node(node));
            }
        }
        // Behind what the next one needs: else everybody would wait for the last of its bases.
        steps.extend(waiting.replace(Step::Based(number)));
    }
    steps.extend(waiting);
    steps.extend(alone.map(Step::Node));
    steps
}

/// Cuts the order into batches. What of one lies together is read together.
fn batches_of(nodes: &[Node], based: &[Based], steps: &[Step]) -> Vec<Batch> {
    let mut batches = Vec::new();
    let mut batch = Batch { parts: Vec::new(), steps: 0..0 };
    // The last part of each pack.
    let mut last: HashMap<PackNumber, usize> = HashMap::new();
    let mut bytes = 0;
    for (number, step) in steps.iter().enumerate() {
        let Some(place) = place_of(nodes, based, *step) else { continue };
        let part = Part::of(place);
        let mut joined = last.get(&part.pack).and_then(|index| {
            let before = batch.parts.get(*index)?;
            let near = before.start <= part.start && part.start <= before.end + READ_GAP_BYTES;
            near.then(|| (*index, part.end.max(before.end) - before.end))
        });
        let more = joined.map_or(part.bytes(), |(_, more)| more);
        if !batch.steps.is_empty()
            && (bytes + more > READ_BYTES_MAX || batch.steps.len() >= BATCH_STEPS_MAX)
        {
            let next = Batch { parts: Vec::new(), steps: number..number };
            batches.push(std::mem::replace(&mut batch, next));
            last.clear();
            (bytes, joined) = (0, None);
        }
        match joined {
            Some((index, more)) => {
                batch.parts.iter_mut().skip(index).take(1).for_each(|part| part.end += more);
                bytes += more;
            }
            None => {
                last.insert(part.pack, batch.parts.len());
                batch.parts.push(part);
                bytes += part.bytes();
            }
        }
        batch.steps.end = number + 1;
    }
    if !batch.steps.is_empty() {
        batches.push(batch);
    }
    batches
}

#[cfg(test)]
mod tests {
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

    /// A frame: whether it is wanted, its length, the gap before it.
    type Shape = (bool, u32, u32);

    proptest! {
        #[test]
        fn everything_is_planned_once_and_bases_come_first(
            frames in prop::collection::vec(
                prop::collection::vec((any::<bool>(), 1..3_000_000_u32, 0..200_000_u32), 0..12), 1..5),
            needs in prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 1..4), 0..600),
        ) {
            let mut found = places(&frames);
            let nodes = nodes_of(found.clone());
            prop_assert_eq!(nodes.len(), frames.iter().map(Vec::len).sum::<usize>());
            let part = |index: &prop::sample::Index| {
                let node = index.index(nodes.len()) as u32;
                BasePart { node, offset: 0, bytes: 1 }
            };
            let based = |(task, parts): (usize, &Vec<prop::sample::Index>)| {
                let place = place(PackNumber(9), task as u32, task as u32 * 9_000, 8_000);
                Based { task, place, parts: parts.iter().map(part).collect() }
            };
            let mut based = if nodes.is_empty() { Vec::new() } else {
                needs.iter().enumerate().map(based).collect()
            };
            in_order(&mut based);
            let steps = steps_of(&nodes, &based);
            let mut done = vec![false; nodes.len()];
            let mut users = 0;
            for step in &steps {
                match *step {
                    Step::Node(node) => prop_assert!(!std::mem::replace(&mut done[node as usize], true)),
                    Step::Based(number) => {
                        prop_assert_eq!(number, users);
                        users += 1;
                        let parts = &based[number as usize].parts;
                        prop_assert!(parts.iter().all(|part| done[part.node as usize]));
                    }
                }
            }
            prop_assert_eq!(users as usize, based.len());
            found.retain(|(_, task)| task.is_some());
            let wanted = nodes.iter().zip(&done).filter(|(node, _)| node.task.is_some());
            prop_assert_eq!(wanted.filter(|(_, done)| **done).count(), found.len());
            let batches = batches_of(&nodes, &based, &steps);
            let mut next = 0;
            for batch in &batches {
                prop_assert_eq!(batch.steps.start, next);
                next = batch.steps.end;
                prop_assert!(batch.bytes() <= READ_BYTES_MAX && batch.steps.len() <= BATCH_STEPS_MAX);
                for step in &steps[batch.steps.clone()] {
                    let wanted = Part::of(place_of(&nodes, &based, *step).unwrap());
                    let holds = |part: &Part| part.pack == wanted.pack
                        && part.start <= wanted.start && wanted.end <= part.end;
                    prop_assert!(batch.parts.iter().any(holds));
                }
            }
            prop_assert_eq!(next, steps.len());
        }
    }

    fn places(frames: &[Vec<Shape>]) -> Vec<(ChunkPlace, Option<usize>)> {
        let mut found = Vec::new();
        for (number, frames) in (0..).map(PackNumber).zip(frames) {
            let mut offset = 128;
            for (frame, (wanted, bytes, gap)) in (0..).zip(frames) {
                offset += gap;
                let place = place(number, frame, offset, *bytes);
                found.push((place, wanted.then_some(found.len())));
                found.push((place, None));
                offset += bytes;
            }
        }
        found
    }

    #[test]
    fn frames_of_many_days_follow_their_base_at_once() {
        // Each day's pack holds, for each frame of the first day, a patch and a frame with it.
        const FRAMES: u32 = 50;
        let first_day = |frame| place(PackNumber(0), frame, frame * 300_000, 300_000);
        let patch = |day, frame| place(PackNumber(day), 2 * frame, frame * 9_000, 1_000);
        let mut found = (0..FRAMES).map(|frame| (first_day(frame), None)).collect::<Vec<_>>();
        found
            .extend((1..9).flat_map(|day| (0..FRAMES).map(move |frame| (patch(day, frame), None))));
        let nodes = nodes_of(found);
        let part = |node, bytes| BasePart { node, offset: 0, bytes };
        let based = |day, frame| {
            let place = place(PackNumber(day), 2 * frame + 1, frame * 9_000 + 1_000, 4_000);
            let parts = vec![part(frame, 250_000), part(day * FRAMES + frame, 1_000)];
            Based { task: 0, place, parts }
        };
        let mut based = (1..9)
            .flat_map(|day| (0..FRAMES).map(move |frame| based(day, frame)))
            .collect::<Vec<_>>();
        in_order(&mut based);
        let steps = steps_of(&nodes, &based);
        let mut last = HashMap::new();
        for (number, step) in steps.iter().enumerate() {
            match step {
                Step::Node(node) => {
                    last.insert(*node, number);
                }
                Step::Based(based_number) => {
                    for part in &based[*based_number as usize].parts {
                        let since = number - last[&part.node];
                        assert!(since <= 2 * 8 + 3, "{since} steps after its base");
                    }
                }
            }
        }
    }
}
