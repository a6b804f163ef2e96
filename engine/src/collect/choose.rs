//! Chooses which packs go: those without anything live, and, by benefit, those with much that is
//! dead.

use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;

use cairn_format::ids::{PackId, SessionId};
use cairn_format::names::PackKind;

use crate::error::Error;
use crate::index::catalog::Catalog;
use crate::index::local::{MemoChange, PackNumber, PackRecord};

use super::mark::Marked;
use super::memo::Memos;
use super::survey::Survey;

/// A pack with something dead in it.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// Its number in the index.
    pub number: PackNumber,
    /// What is known of it.
    pub record: PackRecord,
    /// Stored bytes that no snapshot needs, those of frames shared by plaintext.
    pub bytes_dead: u64,
    /// Whether anything in it is live.
    pub live: bool,
    /// Whether it must go although nothing in it is dead: bases of its frames go.
    forced: bool,
}

/// What is to go.
#[derive(Debug, Default)]
pub struct Chosen {
    /// Packs without anything live.
    pub dead: Vec<Candidate>,
    /// Packs whose live chunks are copied first.
    pub repack: Vec<Candidate>,
    /// Packs that verify found missing, and that nobody needs: only descriptions of them go.
    pub lost: Vec<(PackKind, PackId)>,
    /// Packs spared because a session at work wrote them.
    pub spared: u64,
    /// These sessions, with the first pack of each.
    pub spared_sessions: BTreeMap<SessionId, PackNumber>,
    /// Packs looked at.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Dead bytes in packs that stay.
    pub bytes_left: u64,
}

impl Chosen {
    /// Bytes that come free, without those that are copied.
    #[must_use]
    pub fn bytes_freed(&self) -> u64 {
        self.dead.iter().chain(&self.repack).map(|candidate| candidate.bytes_dead).sum()
    }
}

/// Chooses so that at most `max_dead_percent` of what stays is dead; the packs with the largest
/// dead share go first, because they give the most for what is copied.
///
/// # Errors
/// Failures of the cache.
pub fn choose(
    catalog: &Catalog,
    survey: &Survey,
    marked: &Marked<'_>,
    memos: &Memos<'_>,
    max_dead_percent: f64,
) -> Result<Chosen, Error> {
    let condemned = catalog.condemned_here();
    let mut chosen = Chosen::default();
    let mut packs = Vec::new();
    catalog.index().for_each_pack(&mut |number, record, _| {
        if !condemned.contains(&number) {
            packs.push((number, *record));
        }
        ControlFlow::Continue(())
    })?;
    let mut orphaned = marked.orphans.iter().map(|(pack, _)| *pack).collect::<HashSet<_>>();
    orphaned.extend(marked.renewed.packs());
    let mut changes = Vec::new();
    let mut partly = Vec::new();
    for (number, record) in packs {
        if !survey.present.contains_key(&record.id) {
            if marked.doubtful.contains(&number) && !marked.live.any(number) {
                chosen.lost.push((record.kind, record.id));
            }
            continue;
        }
        chosen.packs += 1;
        chosen.bytes += u64::from(record.bytes);
        if survey.sessions.contains(&record.session) {
            chosen.spared += 1;
            chosen.spared_sessions.entry(record.session).or_insert(number);
            continue;
        }
        let weighed = weigh(catalog, marked, memos, number, record, orphaned.contains(&number))?;
        let candidate = weighed.candidate;
        changes.extend(weighed.change);
        if !candidate.live {
            chosen.dead.push(candidate);
        } else if marked.doubtful.contains(&number) {
            // What is damaged cannot be copied, and every copy of it is kept.
            chosen.bytes_left += candidate.bytes_dead;
        } else if candidate.bytes_dead > 0 || candidate.forced {
            partly.push(candidate);
        }
    }
    memos.put(&changes)?;
    let share = |candidate: &Candidate| {
        candidate.bytes_dead as f64 / f64::from(candidate.record.bytes.max(1))
    };
    partly.sort_by(|one, other| {
        (other.forced, share(other), one.number)
            .partial_cmp(&(one.forced, share(one), other.number))
            .unwrap_or(std::cmp::Ordering::Equal)
    });
    let dead_packs = chosen.dead.iter().map(|pack| u64::from(pack.record.bytes)).sum::<u64>();
    let mut dead = partly.iter().map(|candidate| candidate.bytes_dead).sum::<u64>();
    let mut kept = chosen.bytes - dead_packs;
    for candidate in partly {
        let enough = dead as f64 <= kept as f64 * max_dead_percent / 100.0;
        if enough && !candidate.forced {
            chosen.bytes_left += candidate.bytes_dead;
            continue;
        }
        dead -= candidate.bytes_dead;
        kept = kept.saturating_sub(candidate.bytes_dead);
        chosen.repack.push(candidate);
    }
    // The oldest first: what they hold takes the place of bases that go.
    chosen.repack.sort_by_key(|candidate| candidate.number);
    Ok(chosen)
}

/// How much of a pack is dead.
fn weigh(
    catalog: &Catalog,
    marked: &Marked<'_>,
    memos: &Memos<'_>,
    number: PackNumber,
    record: PackRecord,
    has_orphans: bool,
) -> Result<Weighed, Error> {
    let live = marked.live.count_in(number);
    let dead_of = |bytes_dead| Candidate { number, record, bytes_dead, live: true, forced: false };
    if live == 0 {
        let candidate = Candidate { live: false, ..dead_of(u64::from(record.bytes)) };
        return Ok(Weighed { candidate, change: None });
    }
    if has_orphans {
        let candidate = add_up(catalog, marked, number, record)?;
        return Ok(Weighed { candidate, change: None });
    }
    if live == u64::from(record.chunks) {
        return Ok(Weighed { candidate: dead_of(0), change: None });
    }
    // Which chunks are live says how much is dead; for most packs that is as it was the last time.
    let key = Memos::weight_key(number);
    let owner = [record.id.as_bytes().as_slice(), &marked.live.digest(number)].concat();
    let known = memos.get(&key, &owner)?;
    if let Some(bytes) = known.and_then(|known| known.try_into().ok()) {
        return Ok(Weighed { candidate: dead_of(u64::from_le_bytes(bytes)), change: None });
    }
    let candidate = add_up(catalog, marked, number, record)?;
    let change = memos.change(key, &owner, &candidate.bytes_dead.to_le_bytes());
    Ok(Weighed { candidate, change: Some(change) })
}

/// A pack, and what is to be remembered of it.
struct Weighed {
    candidate: Candidate,
    change: Option<MemoChange>,
}

/// How much of a pack is dead, chunk by chunk.
fn add_up(
    catalog: &Catalog,
    marked: &Marked<'_>,
    number: PackNumber,
    record: PackRecord,
) -> Result<Candidate, Error> {
    let (mut position, mut bytes_dead, mut live, mut forced) = (0, 0.0, false, false);
    catalog.index().for_each_chunk_of_pack(number, &mut |_, place| {
        if marked.live.get(number, position) {
            live = true;
            forced |= place.based && marked.orphans.contains(&(number, place.frame_number))
                || marked.renewed.get(number, position);
        } else {
            let share = f64::from(place.bytes) / f64::from(place.plain_bytes.max(1));
            bytes_dead += share * f64::from(place.frame_bytes);
        }
        position += 1;
        ControlFlow::Continue(())
    })?;
    // Rounded up, so that a pack with something dead is never taken for one without.
    let bytes_dead = if live { f64::ceil(bytes_dead) as u64 } else { u64::from(record.bytes) };
    Ok(Candidate { number, record, bytes_dead, live, forced })
}
