//! What collections remember from one to the next, so that the next need not read every tree node
//! and look up every chunk again: what nodes point to. A node is named by the hash of what it says,
//! so what it points to never changes; nor does what a pack holds in which position. Memos therefore
//! do not grow old: they say nothing of what is needed, which every collection finds out anew from
//! the snapshots that the store lists, nor of where a chunk is best read from, which the index says.
//!
//! They are not believed blindly. Each carries a keyed checksum over what it says and of which pack;
//! a collection compares some at random with the nodes themselves; and all are dropped where pack
//! numbers do not stand for the packs they stood for.

pub mod record;
pub mod span;

use std::collections::HashMap;
use std::ops::ControlFlow;

use cairn_format::codec::{Reader, Writer};
use cairn_format::ids::{ChunkId, PackId, SegmentId, SnapshotId, WriterId};
use cairn_format::segment::NAMESPACE_TRUSTED;

use crate::error::Error;
use crate::index::catalog::Catalog;
use crate::index::local::{LocalIndex, MemoChange, PackNumber, PackRecord};
use crate::repo::Vault;
use crate::seal::{Keys, MEMO_CHECK_BYTES};
use record::{Edges, Sheet};
use span::Span;

/// Written before everything else; another number means that nothing is remembered.
const LAYOUT: u8 = 1;
/// Bytes of a pack's id that are remembered with its number.
const ID_BYTES: usize = 8;
/// Chunks looked up at once.
const LOOKUPS: usize = 4096;

const KEY_PACKS: u8 = b'p';
const KEY_SHEET: u8 = b's';
const KEY_BASES: u8 = b'b';
const KEY_WEIGHT: u8 = b'w';
const KEY_SEGMENT: u8 = b'i';
const KEY_TRIED: u8 = b't';
/// Kept beside each sheet: how many nodes it has, so that there is a list of them that takes no
/// reading of sheets.
const KEY_LISTED: u8 = b'l';
const KEY_SPAN: u8 = b'r';

/// What memos are kept in.
pub struct Memos<'a> {
    index: &'a dyn LocalIndex,
    keys: &'a Keys,
}

/// How chunks of a pack are found that are named by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The pack is not in the index.
    Gone,
    /// They are read from it.
    Direct,
    /// There may be better places, or more than one that counts.
    ById,
}

/// Which snapshots a [`Span`] is about: in which namespace they are, and a hash of their ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpanKey {
    namespace: WriterId,
    digest: [u8; SPAN_DIGEST_BYTES],
}

const SPAN_DIGEST_BYTES: usize = 16;

impl SpanKey {
    /// That of these snapshots, in this order.
    #[must_use]
    pub fn new<'i>(namespace: WriterId, ids: impl Iterator<Item = &'i SnapshotId>) -> Self {
        let mut hasher = blake3::Hasher::new();
        ids.for_each(|id| {
            hasher.update(id.as_bytes());
        });
        let mut digest = [0; SPAN_DIGEST_BYTES];
        hasher.finalize_xof().fill(&mut digest);
        Self { namespace, digest }
    }

    /// The namespace its snapshots are in.
    #[must_use]
    pub fn namespace(&self) -> WriterId {
        self.namespace
    }

    fn to_bytes(self) -> Vec<u8> {
        [&[KEY_SPAN], self.namespace.as_bytes().as_slice(), &self.digest].concat()
    }

    fn from_bytes(key: &[u8]) -> Option<Self> {
        let (namespace, digest) = key.get(1..)?.split_at_checked(WriterId::LEN)?;
        let namespace = WriterId::from_slice(namespace).ok()?;
        Some(Self { namespace, digest: digest.try_into().ok()? })
    }
}

/// All packs of the index, as they stood when a collection began to mark: eight bytes for each number
/// that was ever given.
#[derive(Default)]
pub struct Packs {
    /// 0 for none; otherwise one more than the number of chunks, shifted by one, and whether they
    /// have to be looked up.
    standings: Vec<u64>,
}

impl Packs {
    /// How chunks are found that are named by a pack.
    #[must_use]
    pub fn standing(&self, pack: PackNumber) -> Standing {
        match self.standings.get(pack.0 as usize) {
            None | Some(0) => Standing::Gone,
            Some(standing) if standing & 1 == 0 => Standing::Direct,
            Some(_) => Standing::ById,
        }
    }

    /// How many chunks a pack lists.
    #[must_use]
    pub fn chunks(&self, pack: PackNumber) -> u32 {
        let standing = self.standings.get(pack.0 as usize).copied().unwrap_or_default();
        u32::try_from((standing >> 1).saturating_sub(1)).unwrap_or(u32::MAX)
    }

    /// Notes how a pack stands.
    pub fn note(&mut self, pack: PackNumber, record: &PackRecord, by_id: bool) {
        let at = pack.0 as usize;
        if self.standings.len() <= at {
            self.standings.resize(at + 1, 0);
        }
        if let Some(standing) = self.standings.get_mut(at) {
            *standing = (u64::from(record.chunks) + 1) << 1 | u64::from(by_id);
        }
    }
}

/// Which packs stood behind their numbers when memos were written.
#[derive(Default)]
struct Known {
    /// Number and beginning of the id, ascending.
    packs: Vec<(u32, [u8; ID_BYTES])>,
    /// All packs with lower numbers were there.
    below: u32,
}

impl Known {
    fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.u8(LAYOUT).varint(u64::from(self.below)).count(self.packs.len());
        let mut last = 0;
        for (number, id) in &self.packs {
            out.varint(u64::from(number - last)).raw(id);
            last = *number;
        }
        out.into_bytes()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Reader::new(bytes, "memo");
        if fields.u8().ok()? != LAYOUT {
            return None;
        }
        let below = u32::try_from(fields.varint().ok()?).ok()?;
        let count = fields.varint().ok()?;
        let (mut packs, mut last) = (Vec::new(), 0_u32);
        for _ in 0..count {
            last = last.checked_add(u32::try_from(fields.varint().ok()?).ok()?)?;
            packs.push((last, fields.array().ok()?));
        }
        fields.is_empty().then_some(Self { packs, below })
    }
}

fn beginning(id: &PackId) -> [u8; ID_BYTES] {
    id.as_bytes().first_chunk().copied().unwrap_or_default()
}

fn key(table: u8, namespace: WriterId, pack: PackNumber) -> Vec<u8> {
    [&[table], namespace.as_bytes().as_slice(), &pack.0.to_be_bytes()].concat()
}

impl<'a> Memos<'a> {
    /// Those that the local index keeps.
    #[must_use]
    pub fn new(vault: &'a Vault, catalog: &'a Catalog) -> Self {
        Self { index: catalog.index(), keys: &vault.keys }
    }

    /// Where it is kept which frames of a pack have bases.
    #[must_use]
    pub fn bases_key(pack: PackNumber) -> Vec<u8> {
        [&[KEY_BASES], pack.0.to_be_bytes().as_slice()].concat()
    }

    /// Where it is kept how much of a pack was found dead.
    #[must_use]
    pub fn weight_key(pack: PackNumber) -> Vec<u8> {
        [&[KEY_WEIGHT], pack.0.to_be_bytes().as_slice()].concat()
    }

    /// Where it is kept which packs a segment describes.
    #[must_use]
    pub fn segment_key(segment: &SegmentId) -> Vec<u8> {
        [&[KEY_SEGMENT], segment.as_bytes().as_slice()].concat()
    }

    /// Where it is kept what a frame was tried against that begins with this chunk.
    #[must_use]
    pub fn tried_key(first: &ChunkId) -> Vec<u8> {
        [&[KEY_TRIED], first.as_bytes().as_slice()].concat()
    }

    /// The frames of which it is remembered what they were tried against.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn tried_keys(&self) -> Result<Vec<Vec<u8>>, Error> {
        Ok(self.index.memo_keys(&[KEY_TRIED])?)
    }

    /// The segments of which it is remembered which packs they describe.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn segments(&self) -> Result<Vec<SegmentId>, Error> {
        let keys = self.index.memo_keys(&[KEY_SEGMENT])?;
        let id = |key: Vec<u8>| SegmentId::from_slice(key.get(1..)?).ok();
        Ok(keys.into_iter().filter_map(id).collect())
    }

    /// Forgets what is remembered of packs that are gone.
    fn forget_gone(&self, packs: &Packs) -> Result<(), Error> {
        let mut changes = Vec::new();
        for table in [KEY_BASES, KEY_WEIGHT] {
            for key in self.index.memo_keys(&[table])? {
                let number = key.get(1..).and_then(|number| number.try_into().ok());
                let number = PackNumber(number.map_or(u32::MAX, u32::from_be_bytes));
                if packs.standing(number) == Standing::Gone {
                    changes.push((key, None));
                }
            }
        }
        self.put(&changes)
    }

    /// A value whose checksum holds; `owner` is what it is about.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn get(&self, key: &[u8], owner: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let Some(mut value) = self.index.get_memo(key)? else { return Ok(None) };
        let body = value.split_first_chunk::<MEMO_CHECK_BYTES>();
        let holds =
            body.is_some_and(|(check, body)| *check == self.keys.memo_check([key, owner, body]));
        if !holds {
            return Ok(None);
        }
        value.drain(..MEMO_CHECK_BYTES);
        Ok(Some(value))
    }

    /// A change that keeps a value under a checksum.
    #[must_use]
    pub fn change(&self, key: Vec<u8>, owner: &[u8], body: &[u8]) -> MemoChange {
        let check = self.keys.memo_check([&key, owner, body]);
        let value = [check.as_slice(), body].concat();
        (key, Some(value))
    }

    /// Makes changes.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn put(&self, changes: &[MemoChange]) -> Result<(), Error> {
        Ok(self.index.put_memos(changes)?)
    }

    /// What is remembered of the nodes that a pack holds, as they are read in a namespace.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn sheet(
        &self,
        namespace: WriterId,
        pack: PackNumber,
        id: &PackId,
    ) -> Result<Sheet, Error> {
        let value = self.get(&key(KEY_SHEET, namespace, pack), id.as_bytes())?;
        Ok(value.and_then(|value| Sheet::decode(&value)).unwrap_or_default())
    }

    /// Remembers the nodes that a pack holds; none, to forget what is remembered.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn put_sheet(
        &self,
        namespace: WriterId,
        pack: PackNumber,
        id: &PackId,
        sheet: &Sheet,
    ) -> Result<(), Error> {
        if sheet.nodes.is_empty() {
            return self.forget_sheet(namespace, pack);
        }
        let body = sheet.encode();
        let (written, listed) = (key(KEY_SHEET, namespace, pack), key(KEY_LISTED, namespace, pack));
        let count = (sheet.nodes.len() as u64).to_le_bytes();
        self.put(&[
            self.change(written, id.as_bytes(), &body),
            self.change(listed, id.as_bytes(), &count),
        ])
    }

    /// How many nodes the sheet of a pack has, if that can be told without reading it.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn sheet_nodes(
        &self,
        namespace: WriterId,
        pack: PackNumber,
        id: &PackId,
    ) -> Result<Option<u64>, Error> {
        let count = self.get(&key(KEY_LISTED, namespace, pack), id.as_bytes())?;
        Ok(count.and_then(|count| count.try_into().ok()).map(u64::from_le_bytes))
    }

    /// Forgets what is remembered of the nodes of a pack.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn forget_sheet(&self, namespace: WriterId, pack: PackNumber) -> Result<(), Error> {
        let keys = [KEY_SHEET, KEY_LISTED].map(|table| (key(table, namespace, pack), None));
        self.put(&keys)
    }

    /// Which sheets there are.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn sheets(&self) -> Result<Vec<(WriterId, PackNumber)>, Error> {
        let keys = self.index.memo_keys(&[KEY_LISTED])?;
        let parse = |key: Vec<u8>| {
            let (namespace, number) = key.get(1..)?.split_at_checked(WriterId::LEN)?;
            let number = number.try_into().map(u32::from_be_bytes).ok()?;
            Some((WriterId::from_slice(namespace).ok()?, PackNumber(number)))
        };
        Ok(keys.into_iter().filter_map(parse).collect())
    }

    /// What is remembered of a span of snapshots.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn span(&self, key: SpanKey) -> Result<Option<Span>, Error> {
        Ok(self.get(&key.to_bytes(), &[])?.and_then(|value| Span::decode(&value)))
    }

    /// Remembers what a span of snapshots reaches.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn put_span(&self, key: SpanKey, span: &Span) -> Result<(), Error> {
        self.put(&[self.change(key.to_bytes(), &[], &span.encode())])
    }

    /// Forgets what is remembered of a span of snapshots.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn forget_span(&self, key: SpanKey) -> Result<(), Error> {
        self.put(&[(key.to_bytes(), None)])
    }

    /// The spans of which something is remembered.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn spans(&self) -> Result<Vec<SpanKey>, Error> {
        let keys = self.index.memo_keys(&[KEY_SPAN])?;
        Ok(keys.iter().filter_map(|key| SpanKey::from_bytes(key)).collect())
    }

    /// Forgets everything that marking goes by. What frames were tried against stays: nothing that is
    /// marked follows from it, and it names no packs.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn clear(&self) -> Result<(), Error> {
        let mut keys = self.index.memo_keys(&[])?;
        keys.retain(|key| key.first() != Some(&KEY_TRIED));
        for keys in keys.chunks(LOOKUPS) {
            let gone = keys.iter().map(|key| (key.clone(), None)).collect::<Vec<_>>();
            self.put(&gone)?;
        }
        Ok(self.index.forget_gone_packs(&self.index.gone_packs()?)?)
    }

    /// Forgets the directories of packs that are gone, because they name what was erased, and with
    /// them what is remembered of nodes and spans that name chunks by such packs: those are read again.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn forget_directories(&self, catalog: &Catalog) -> Result<(), Error> {
        let gone = self.index.gone_packs()?;
        if gone.is_empty() {
            return Ok(());
        }
        for (namespace, pack) in self.sheets()? {
            let names_gone = match catalog.pack(pack) {
                Ok(record) => {
                    let sheet = self.sheet(namespace, pack, &record.id)?;
                    let is_gone = |named: PackNumber| gone.binary_search(&named).is_ok();
                    sheet.nodes.values().any(|edges| {
                        let edges = Edges::decode(pack, edges);
                        edges.is_none_or(|edges| edges.packs().any(is_gone))
                    })
                }
                Err(error) if error.has_vanished() => true,
                Err(error) => return Err(error),
            };
            if names_gone {
                self.forget_sheet(namespace, pack)?;
            }
        }
        for key in self.spans()? {
            let span = self.span(key)?;
            if span.is_none_or(|span| span.packs().any(|pack| gone.binary_search(&pack).is_ok())) {
                self.forget_span(key)?;
            }
        }
        Ok(self.index.forget_gone_packs(&gone)?)
    }

    /// How all packs stand, after memos were dropped that do not fit them. `wanted` are packs of which
    /// every copy counts.
    ///
    /// # Errors
    /// Failures of the cache.
    pub fn open(
        &self,
        catalog: &Catalog,
        wanted: &dyn Fn(PackNumber) -> bool,
    ) -> Result<Packs, Error> {
        let known = self.get(&[KEY_PACKS], &[])?.and_then(|value| Known::decode(&value));
        let known = match known {
            Some(known) => known,
            None => {
                self.clear()?;
                Known::default()
            }
        };
        let mut packs = Packs::default();
        let now_avoided = catalog.avoided();
        let mut now = Known::default();
        let mut arrived = Vec::new();
        let mut before = known.packs.iter().peekable();
        let mut fits = true;
        self.index.for_each_pack(&mut |number, record, _| {
            while before.next_if(|(old, _)| *old < number.0).is_some() {}
            let id = beginning(&record.id);
            match before.next_if(|(old, _)| *old == number.0) {
                Some((_, old)) => fits &= *old == id,
                None => fits &= number.0 >= known.below,
            }
            if number.0 >= known.below && record.writer != NAMESPACE_TRUSTED {
                arrived.push((number, record.writer));
            }
            now.packs.push((number.0, id));
            packs.note(number, record, wanted(number) || !now_avoided.lasts_in(number));
            ControlFlow::Continue(())
        })?;
        now.below = now.packs.last().map_or(0, |(number, _)| number.saturating_add(1));
        now.below = now.below.max(known.below);
        if fits {
            // Whoever goes may still be named.
            let gone = self.index.gone_packs()?;
            let named = |number: &u32| gone.binary_search(&PackNumber(*number)).is_ok();
            let there = now.packs.iter().map(|(number, _)| *number).collect::<Vec<_>>();
            let absent = |number: &u32| there.binary_search(number).is_err();
            let left = known.packs.iter().filter(|(number, _)| named(number) && absent(number));
            now.packs.extend(left.copied());
            now.packs.sort_unstable();
            self.drop_superseded(catalog, &arrived)?;
        } else {
            self.clear()?;
        }
        self.forget_gone(&packs)?;
        self.put(&[self.change(vec![KEY_PACKS], &[], &now.encode())])?;
        Ok(packs)
    }

    /// A writer's own copy of a chunk comes before a trusted one, whenever it came. Where a writer has
    /// stored what its nodes were found to have in a trusted pack, its memos are dropped.
    fn drop_superseded(
        &self,
        catalog: &Catalog,
        arrived: &[(PackNumber, WriterId)],
    ) -> Result<(), Error> {
        let mut sheets: HashMap<WriterId, Vec<PackNumber>> = HashMap::new();
        for (namespace, pack) in self.sheets()? {
            sheets.entry(namespace).or_default().push(pack);
        }
        let spans = self.spans()?;
        for (number, writer) in arrived {
            let has_spans = spans.iter().any(|key| key.namespace == *writer);
            if !sheets.contains_key(writer) && !has_spans {
                continue;
            }
            let ids = catalog.ids_in(*number)?.unwrap_or_default();
            let mut superseded = false;
            for ids in ids.chunks(LOOKUPS) {
                let ids = ids.iter().map(|(id, _)| *id).collect::<Vec<_>>();
                let trusted = catalog.first_places(&ids, NAMESPACE_TRUSTED)?;
                superseded |= trusted.iter().any(Option::is_some);
            }
            if superseded {
                for pack in sheets.remove(writer).unwrap_or_default() {
                    self.forget_sheet(*writer, pack)?;
                }
                for key in spans.iter().filter(|key| key.namespace == *writer) {
                    self.forget_span(*key)?;
                }
            }
        }
        Ok(())
    }
}
