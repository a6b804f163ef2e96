//! Keeps memos in order after a walk: what is gone is forgotten, and what moved is named anew where
//! much of it has.

use std::collections::HashSet;

use cairn_format::ids::WriterId;
use cairn_format::segment::NAMESPACE_TRUSTED;

use super::memo::record::{Edges, Name, Run, Sheet};
use super::memo::span::Span;
use super::memo::{Memos, Packs, SpanKey, Standing};
use super::recall::SheetKey;
use super::tried;
use super::walk::Walked;
use crate::error::Error;
use crate::index::catalog::Catalog;
use crate::index::local::PackNumber;
use crate::repo::Repository;

/// Sheets are written anew when more than one of so many live chunks had to be looked up, because the
/// pack they are named by is gone.
const MOVED_ONE_IN: u64 = 64;
/// And no fewer than these.
const MOVED_MIN: u64 = 1 << 10;

/// Forgets what is remembered of nodes that no snapshot reaches, and of packs that nothing names any
/// more. `live` chunks were marked.
pub(super) fn tidy(
    walked: &mut Walked<'_, '_>,
    catalog: &Catalog,
    packs: &Packs,
    live: u64,
) -> Result<(), Error> {
    let memos = walked.recall.memos;
    let rename = walked.moved.len() as u64 > MOVED_MIN + live / MOVED_ONE_IN;
    let mut named = HashSet::new();
    for (namespace, pack) in memos.sheets()? {
        let seen = walked.reached.get(&namespace).map_or(0, |reached| reached.nodes_in(pack));
        if seen == 0 || packs.standing(pack) == Standing::Gone {
            memos.forget_sheet(namespace, pack)?;
            continue;
        }
        let count = memos.sheet_nodes(namespace, pack, &catalog.pack(pack)?.id)?;
        // Sheets have no more nodes than were seen unless some were not.
        if rename || walked.too_many_moved || count.is_none_or(|count| count > seen) {
            write_anew(walked, catalog, packs, (namespace, pack), rename, &mut named)?;
        }
    }
    for key in memos.spans()? {
        if !walked.spans.contains(&key) {
            memos.forget_span(key)?;
        } else if rename || walked.too_many_moved {
            write_span_anew(walked, packs, key, &mut named)?;
        }
    }
    if !rename && !walked.too_many_moved {
        named.clone_from(&walked.named);
    }
    let gone = catalog.index().gone_packs()?;
    let unnamed = gone.into_iter().filter(|pack| !named.contains(pack)).collect::<Vec<_>>();
    Ok(catalog.index().forget_gone_packs(&unnamed)?)
}

/// Forgets the names of chunks that are gone, and writes the local index anew without what was
/// removed from it. False, and the files stay as they are, while another process writes the index.
///
/// # Errors
/// Failures of the cache.
pub fn clean_index(repository: &Repository, catalog: &Catalog) -> Result<bool, Error> {
    let memos = Memos::new(repository.vault(), catalog);
    memos.forget_directories(catalog)?;
    tried::forget_gone(&memos, catalog)?;
    Ok(catalog.index().compact()?)
}

/// Writes a sheet anew without the nodes that were not seen, and with names that are true today.
fn write_anew(
    walked: &Walked<'_, '_>,
    catalog: &Catalog,
    packs: &Packs,
    (namespace, pack): SheetKey,
    rename: bool,
    named: &mut HashSet<PackNumber>,
) -> Result<(), Error> {
    let memos = walked.recall.memos;
    let id = catalog.pack(pack)?.id;
    let before = memos.sheet(namespace, pack, &id)?;
    let mut after = Sheet::default();
    let reached = walked.reached.get(&namespace);
    for ((position, kind), bytes) in &before.nodes {
        let name = Name { pack, position: *position };
        if !reached.is_some_and(|reached| reached.has_node(name, *kind)) {
            continue;
        }
        let mut bytes = bytes.clone();
        if (rename || walked.too_many_moved)
            && let Some(edges) = Edges::decode(pack, &bytes)
            && edges.packs().any(|named| packs.standing(named) == Standing::Gone)
        {
            if walked.too_many_moved {
                // Where to is not known of all: the node is read once more.
                continue;
            }
            let edges = renamed(walked, namespace, &edges);
            named.extend(edges.packs().filter(|pack| packs.standing(*pack) == Standing::Gone));
            bytes = edges.encode(pack);
        }
        after.nodes.insert((*position, *kind), bytes);
    }
    if after == before { Ok(()) } else { memos.put_sheet(namespace, pack, &id, &after) }
}

/// Writes a span anew with names that are true today. Sheets are written first: what they name is
/// named by spans as well, until both are done.
fn write_span_anew(
    walked: &Walked<'_, '_>,
    packs: &Packs,
    key: SpanKey,
    named: &mut HashSet<PackNumber>,
) -> Result<(), Error> {
    let memos = walked.recall.memos;
    let is_gone = |pack: PackNumber| packs.standing(pack) == Standing::Gone;
    let Some(mut span) = memos.span(key)? else { return memos.forget_span(key) };
    if !span.packs().any(is_gone) {
        return Ok(());
    }
    if walked.too_many_moved {
        // Where to is not known of all.
        return memos.forget_span(key);
    }
    let Span { own, skipped } = &mut span;
    for marks in own.kinds_mut().into_iter().chain(skipped.kinds_mut()) {
        let gone = marks.packs().filter(|pack| is_gone(*pack)).collect::<Vec<_>>();
        for pack in gone {
            for position in marks.take(pack) {
                let name = u32::try_from(position).ok().map(|position| Name { pack, position });
                // What a writer's snapshots have in common with trusted ones is looked up for those.
                let namespaces = [key.namespace(), NAMESPACE_TRUSTED];
                let now = |name: Name| {
                    let mut moved = namespaces.iter().map(|own| walked.moved.get(&(*own, name)));
                    moved.find_map(|now| now)
                };
                if let Some(now) = name.and_then(now) {
                    marks.set(now.pack, now.position as usize);
                } else {
                    marks.set(pack, position);
                    named.insert(pack);
                }
            }
        }
    }
    memos.put_span(key, &span)
}

/// The same edges, with the names that moved chunks go by now.
fn renamed(walked: &Walked<'_, '_>, namespace: WriterId, edges: &Edges) -> Edges {
    let now = |name: Name| walked.moved.get(&(namespace, name)).copied().unwrap_or(name);
    let mut after = Edges::default();
    after.nodes.extend(edges.nodes.iter().map(|(kind, name)| (*kind, now(*name))));
    edges.data_names().for_each(|name| after.add_data(now(name)));
    after
}

impl Edges {
    /// The packs that it names.
    pub(super) fn packs(&self) -> impl Iterator<Item = PackNumber> + '_ {
        let data = self.data.iter().map(|Run { first, .. }| first.pack);
        self.nodes.iter().map(|(_, name)| name.pack).chain(data)
    }
}
