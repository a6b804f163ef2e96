//! Proves that what is stored can be restored: structure, a rotating sample, or everything. What was
//! proven of each pack is kept in a ledger on this host.

use std::collections::HashSet;

use cairn_format::envelope::Kind;
use cairn_format::ids::{ChunkId, PackId, SnapshotId};
use cairn_format::limits::{RECORD_BYTES_MAX, SEGMENT_BYTES_MAX};
use cairn_format::names::{Folder, ObjectName, PackKind};
use cairn_format::record::Ack;
use rayon::prelude::*;
use std::ops::ControlFlow;

use self::trees::{AFFECTED_MAX, FINDINGS_MAX, InTree, TreeCheck};
use super::rollback;
use super::shard::Shard;
use super::snapshots::{self, SnapshotInfo};
use crate::context::{Counter, Remark};
use crate::error::{Error, Explain};
use crate::index::catalog::Catalog;
use crate::index::local::{LedgerEntry, PackNumber, PackRecord};
use crate::repo::Repository;
use crate::store::StoreError;

mod packs;
mod trees;

/// How thoroughly to verify.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Level {
    /// Everything is there, of the right size; snapshots, their trees and the index are read and
    /// fit together.
    Structure,
    /// Also so many percent of all packs are read and decoded, those verified longest ago first.
    Sample {
        /// More than 0, at most 100.
        percent: f64,
    },
    /// Also all packs are read and decoded.
    Full,
}

/// How often everything is looked at when collections change the index meanwhile.
const ROUNDS_MAX: usize = 4;

/// Number of a level in the ledger.
const LEDGER_LEVEL_FULL: u8 = 2;

/// How to verify.
#[derive(Clone, Copy, Debug)]
pub struct VerifyOptions {
    /// How thoroughly.
    pub level: Level,
}

/// Something damaged or missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Stable dotted name.
    pub code: &'static str,
    /// The object or path.
    pub object: String,
    /// What is wrong.
    pub message: String,
}

/// A path of a snapshot that a finding touches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Affected {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The path.
    pub path: Vec<u8>,
}

/// What was verified and found.
#[derive(Clone, Debug, Default)]
pub struct VerifyReport {
    /// Snapshots whose trees were checked.
    pub snapshots: u64,
    /// Of these, not acknowledged: interrupted, or their writer never reported success.
    pub unacknowledged: u64,
    /// Packs in the repository; of a share, those that fall to it.
    pub packs_total: u64,
    /// Packs read and decoded now.
    pub packs_checked: u64,
    /// Bytes of these.
    pub bytes_checked: u64,
    /// Of the packs that were read, those that are damaged and that `repair` makes whole again out of
    /// their parity. What they hold can be restored meanwhile.
    pub packs_healable: u64,
    /// Packs never proven sound on this host, or found damaged when last read.
    pub never_verified: u64,
    /// When the pack verified longest ago was, milliseconds since 1970; `None` when some never were.
    pub oldest_verified_ms: Option<u64>,
    /// What is damaged or missing.
    pub findings: Vec<Finding>,
    /// Paths touched, the first thousand.
    pub affected: Vec<Affected>,
    /// How many paths are touched; of directories that are shared by very many, at least so many.
    pub affected_count: u64,
    /// Milliseconds it took by the wall clock.
    pub elapsed_ms: i64,
}

/// Verifies.
///
/// # Errors
/// Failures of the store that are not damage; a key that cannot read. Damage is in the report.
pub fn run(repository: &Repository, options: &VerifyOptions) -> Result<VerifyReport, Error> {
    run_shard(repository, options, Shard::ALL)
}

/// Verifies a share: packs, small objects and snapshots whose names fall to it. All shares together
/// find what [`run`] finds. Paths that a damaged pack touches are found by the share that reads the
/// pack, in all snapshots; paths that miss a pack, by the share of their snapshot.
///
/// # Errors
/// As [`run`].
pub fn run_shard(
    repository: &Repository,
    options: &VerifyOptions,
    shard: Shard,
) -> Result<VerifyReport, Error> {
    repository.require_read("verify")?;
    for _ in 1..ROUNDS_MAX {
        match look(repository, options, shard) {
            // A collection took packs out of the index under it.
            Err(error) if error.has_vanished() => repository.refresh_catalog()?,
            outcome => return outcome,
        }
    }
    look(repository, options, shard)
}

fn look(
    repository: &Repository,
    options: &VerifyOptions,
    shard: Shard,
) -> Result<VerifyReport, Error> {
    let started_ms = repository.context.clock.now_ms();
    let mut report = VerifyReport::default();
    repository.monitor().stage("verify: index", None);
    // Snapshots before the index: what is backed up meanwhile may be in the index only.
    let (listed, remarks) = snapshots::list_all(repository)?;
    let catalog = repository.catalog()?;
    for remark in catalog.damaged_segments() {
        report.findings.push(finding(remark));
    }
    check_small_objects(repository, shard, &mut report)?;
    check_acknowledged(repository, &listed, shard, &mut report)?;
    let mut bad = check_presence(repository, catalog, shard, &mut report)?;
    let read = check_contents(repository, catalog, (options.level, shard), &mut bad, &mut report)?;
    report.findings.extend(remarks.into_iter().map(finding));
    bad.known |= !report.findings.is_empty();
    // What was found in packs is looked for in all snapshots: nobody else knows of it.
    let falls_here = |one: &&SnapshotInfo| !read.is_sound || shard.takes(one.id.as_bytes());
    let listed = listed.iter().filter(falls_here).collect::<Vec<_>>();
    check_trees(repository, catalog, &listed, bad, &mut report)?;
    age_of_ledger(catalog, shard, &mut report)?;
    report.elapsed_ms = repository.context.clock.now_ms() - started_ms;
    repository.monitor().count(Counter::Findings, report.findings.len() as u64);
    Ok(report)
}

fn finding(remark: Remark) -> Finding {
    Finding { code: remark.code, object: remark.subject, message: remark.message }
}

/// Chunks that cannot be had, found so far.
#[derive(Default)]
struct Bad {
    /// Packs that are missing or cannot be opened.
    packs: HashSet<PackNumber>,
    /// Frames that do not decode.
    frames: HashSet<(PackNumber, u32)>,
    /// Chunks whose bytes in a pack are not those of their id.
    chunks: HashSet<(PackNumber, ChunkId)>,
    /// Something is damaged or missing, whoever reports it.
    known: bool,
}

/// Key slots, configs, acks and segments: each is hashed; acks are opened too. Segments because the
/// local index does not read again what it has loaded.
fn check_small_objects(
    repository: &Repository,
    shard: Shard,
    report: &mut VerifyReport,
) -> Result<(), Error> {
    let mut names = Vec::new();
    for folder in [Folder::Keys, Folder::Config, Folder::Acks, Folder::Index] {
        repository.store().list(folder, &mut |name, _| {
            if name.content_hash().is_none_or(|hash| shard.takes(&hash)) {
                names.push(name);
            }
            Ok(())
        })?;
    }
    let outcomes = names
        .par_iter()
        .map(|name| (name, check_small_object(repository, name)))
        .collect::<Vec<_>>();
    for (name, outcome) in outcomes {
        match outcome {
            Ok(()) | Err(Error::Store(StoreError::NotFound { .. })) => {}
            Err(error) if error.is_damage() => {
                let object = name.to_string();
                // A damaged segment may be known since the index was brought up to date.
                if report.findings.iter().all(|known| known.object != object) {
                    let (code, message) = (error.code(), error.to_string());
                    report.findings.push(Finding { code, object, message });
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn check_small_object(repository: &Repository, name: &ObjectName) -> Result<(), Error> {
    if let ObjectName::Ack { snapshot, .. } = name {
        let signed = repository.read_signed(Kind::Ack, name, RECORD_BYTES_MAX)?;
        let ack = Ack::decode(&signed.record).map_err(Error::format(name))?;
        let trust = &repository.vault().trust;
        trust.check_not_revoked(&signed.writer, ack.time_ms).map_err(Error::sealed(name))?;
        if ack.snapshot != *snapshot {
            return Err(Error::Hash { object: name.to_string() });
        }
        return Ok(());
    }
    let bytes_max = match name {
        ObjectName::Index(_) => SEGMENT_BYTES_MAX,
        _ => RECORD_BYTES_MAX,
    };
    crate::repo::vault::read_object(repository.store(), name, bytes_max).map(|_| ())
}

/// Every acknowledged snapshot is there: one that vanished without its acknowledgement was not
/// forgotten but lost, or withheld (SPEC section 13). So are those that this host has seen.
fn check_acknowledged(
    repository: &Repository,
    readable: &[SnapshotInfo],
    shard: Shard,
    report: &mut VerifyReport,
) -> Result<(), Error> {
    let store = repository.store();
    let mut acks = Vec::new();
    store.list(Folder::Acks, &mut |name, _| {
        if let ObjectName::Ack { snapshot, .. } = name
            && shard.takes(snapshot.as_bytes())
        {
            acks.push((snapshot, name));
        }
        Ok(())
    })?;
    let listed = snapshots::list_names(repository)?
        .into_iter()
        .filter_map(|name| match name {
            ObjectName::Snapshot { id, .. } => Some(id),
            _ => None,
        })
        .collect::<HashSet<SnapshotId>>();
    for (snapshot, name) in acks.into_iter().filter(|(snapshot, _)| !listed.contains(snapshot)) {
        match store.size(&name) {
            // Whoever forgets a snapshot removes its acknowledgement first.
            Err(StoreError::NotFound { .. }) => {}
            Ok(_) => report.findings.push(Finding {
                code: "snapshot.missing",
                object: format!("snapshot {snapshot}"),
                message: "it was acknowledged, and is not in the store".to_owned(),
            }),
            Err(error) => return Err(error.into()),
        }
    }
    // Of one that an erasure replaced in between, either is there.
    let records = listed.into_iter().chain(readable.iter().map(|one| one.id)).collect();
    let remarks = rollback::compare(repository, readable, &records)?;
    report.findings.extend(remarks.into_iter().map(finding));
    Ok(())
}

/// Every pack that the index names is in the store, with its length.
fn check_presence(
    repository: &Repository,
    catalog: &Catalog,
    shard: Shard,
    report: &mut VerifyReport,
) -> Result<Bad, Error> {
    let mut bad = Bad::default();
    let mut sizes = std::collections::HashMap::new();
    for folder in [Folder::DataPacks, Folder::TreePacks] {
        repository.store().list(folder, &mut |name, bytes| {
            if let ObjectName::Pack(kind, id) = name {
                sizes.insert((kind, id), bytes);
            }
            Ok(())
        })?;
    }
    // Some may have been collected since the index was brought up to date.
    catalog.sync_tombs(repository.vault())?;
    let mut ledger = Vec::new();
    catalog.index().for_each_pack(&mut |number, pack, _| {
        if catalog.is_condemned(&pack.id) && !sizes.contains_key(&(pack.kind, pack.id)) {
            bad.packs.insert(number);
            return ControlFlow::Continue(());
        }
        let falls_here = shard.takes(pack.id.as_bytes());
        report.packs_total += u64::from(falls_here);
        let name = ObjectName::Pack(pack.kind, pack.id).to_string();
        let problem = match sizes.get(&(pack.kind, pack.id)) {
            None => Some(("pack.missing", "it is missing from the store".to_owned())),
            Some(bytes) if *bytes != u64::from(pack.bytes) => {
                let message = format!("it has {bytes} bytes where {} belong", pack.bytes);
                Some(("pack.length", message))
            }
            Some(_) => None,
        };
        if let Some((code, message)) = problem {
            bad.known = true;
            if falls_here {
                report.findings.push(Finding { code, object: name, message });
            }
            ledger.push((pack.id, ledger_entry(repository, false)));
            // One that is only cut short still gives the frames before the cut.
            if code == "pack.missing" {
                bad.packs.insert(number);
            }
        }
        ControlFlow::Continue(())
    })?;
    catalog.index().ledger_put(&ledger)?;
    note_verified(catalog, &ledger)?;
    say_kept(repository, &mut report.findings)?;
    Ok(bad)
}

/// Says of missing packs that the store keeps older versions of them, where it does: somebody put a mark
/// of deletion over them.
fn say_kept(repository: &Repository, findings: &mut [Finding]) -> Result<(), Error> {
    let mut missing = findings.iter_mut().filter(|one| one.code == "pack.missing").peekable();
    if missing.peek().is_none() {
        return Ok(());
    }
    let mut kept = HashSet::new();
    for folder in [Folder::DataPacks, Folder::TreePacks] {
        repository.store().kept(folder, &mut |name| {
            kept.insert(name.to_string());
        })?;
    }
    for finding in missing.filter(|one| kept.contains(&one.object)) {
        finding.message.push_str(
            "; the storage keeps something of it among older versions: bring it back there",
        );
    }
    Ok(())
}

/// What reading packs came to.
struct Contents {
    /// Nothing was found.
    is_sound: bool,
}

/// Reads and decodes packs as the level asks for, and writes the ledger.
fn check_contents(
    repository: &Repository,
    catalog: &Catalog,
    (level, shard): (Level, Shard),
    bad: &mut Bad,
    report: &mut VerifyReport,
) -> Result<Contents, Error> {
    let mut contents = Contents { is_sound: true };
    let total = usize::try_from(report.packs_total).unwrap_or(usize::MAX);
    let wanted = match level {
        Level::Structure => 0,
        Level::Full => total,
        Level::Sample { percent } => {
            // At least one pack, so that a sample of a small repository is not empty.
            let share = (total as f64 * percent / 100.0).ceil();
            (share as usize).clamp(usize::from(total > 0), total)
        }
    };
    if wanted == 0 {
        return Ok(contents);
    }
    let limit = if shard.is_all() { wanted } else { usize::MAX };
    let mut chosen = catalog.index().least_verified(limit)?;
    chosen.retain(|pack| shard.takes(pack.record.id.as_bytes()));
    chosen.truncate(wanted);
    let bytes = chosen.iter().map(|pack| u64::from(pack.record.bytes)).sum();
    repository.monitor().stage("verify: packs", Some((Counter::BytesVerified, bytes)));
    let checker = packs::PackCheck::new(repository, catalog)?;
    let readable = chosen.iter().filter(|pack| !bad.packs.contains(&pack.number));
    let mut chosen = readable.collect::<Vec<_>>().into_iter().peekable();
    let (mut group, mut chunks) = (Vec::new(), 0_usize);
    while let Some(pack) = chosen.next() {
        group.push(pack);
        chunks = chunks.saturating_add(pack.record.chunks as usize);
        if chosen.peek().is_some() && group.len() < GROUP_PACKS_MAX && chunks < GROUP_CHUNKS {
            continue;
        }
        repository.check_cancelled()?;
        let outcomes = checker.check_all(&group)?;
        let mut ledger = Vec::with_capacity(outcomes.len());
        for (pack, found) in group.drain(..).zip(outcomes) {
            if !found.findings.is_empty() && was_collected(repository, catalog, &pack.record)? {
                continue;
            }
            report.packs_checked += 1;
            report.bytes_checked += u64::from(pack.record.bytes);
            report.packs_healable += u64::from(found.healable);
            let ok = found.findings.is_empty();
            ledger.push((pack.record.id, ledger_entry(repository, ok)));
            contents.is_sound &= ok;
            report.findings.extend(found.findings);
            bad.frames.extend(found.frames.into_iter().map(|frame| (pack.number, frame)));
            bad.chunks.extend(found.chunks.into_iter().map(|chunk| (pack.number, chunk)));
            if found.unreadable {
                bad.packs.insert(pack.number);
            }
        }
        catalog.index().ledger_put(&ledger)?;
        note_verified(catalog, &ledger)?;
        chunks = 0;
    }
    Ok(contents)
}

/// Tells the catalog which packs a backup may rely on.
fn note_verified(catalog: &Catalog, ledger: &[(PackId, LedgerEntry)]) -> Result<(), Error> {
    let of = |ok| ledger.iter().filter(move |(_, entry)| entry.ok == ok).map(|(id, _)| *id);
    catalog.note_verified(&of(false).collect::<Vec<_>>(), &of(true).collect::<Vec<_>>())
}

/// Packs that are checked together, at most. Then the ledger is written: a verify that is
/// interrupted has not been in vain.
const GROUP_PACKS_MAX: usize = 64;
/// Chunks of these packs; with their frames and bases about 100 bytes each.
const GROUP_CHUNKS: usize = 200_000;

/// Whether a pack is gone because it was collected meanwhile.
fn was_collected(
    repository: &Repository,
    catalog: &Catalog,
    pack: &PackRecord,
) -> Result<bool, Error> {
    catalog.sync_tombs(repository.vault())?;
    let name = ObjectName::Pack(pack.kind, pack.id);
    Ok(catalog.is_condemned(&pack.id)
        && matches!(repository.store().size(&name), Err(StoreError::NotFound { .. })))
}

fn ledger_entry(repository: &Repository, ok: bool) -> LedgerEntry {
    let verified_ms = u64::try_from(repository.context.clock.now_ms()).unwrap_or_default();
    LedgerEntry { level: LEDGER_LEVEL_FULL, verified_ms, ok }
}

/// Every snapshot opens, its tree is readable, and every chunk it names is known and not bad.
fn check_trees(
    repository: &Repository,
    catalog: &Catalog,
    listed: &[&SnapshotInfo],
    bad: Bad,
    report: &mut VerifyReport,
) -> Result<(), Error> {
    repository.monitor().stage("verify: snapshots", None);
    let damaged = bad.known;
    let mut check = TreeCheck::new(catalog, bad);
    for snapshot in listed {
        repository.check_cancelled()?;
        let nodes = repository.nodes(snapshot)?;
        let mut found = check.snapshot(&nodes, snapshot)?;
        if found.affected_count > 0 {
            // What a collection took may be elsewhere since.
            repository.refresh_catalog()?;
            found = check.snapshot(&nodes, snapshot)?;
        }
        if found.affected_count > 0 && snapshots::is_forgotten(repository, snapshot)? {
            // What it needed may have been collected since it was listed.
            continue;
        }
        report.snapshots += 1;
        report.unacknowledged += u64::from(!snapshot.acknowledged);
        // A snapshot may lack what was collected before it was put: its writer finds that out
        // before it acknowledges, unless it dies.
        if snapshot.acknowledged || damaged || !found.only_lacks_chunks() {
            report.add(found);
        }
    }
    if report.affected_count > 0 && report.findings.is_empty() && !damaged {
        report.findings.extend(report.affected.first().map(|place| Finding {
            code: "chunk.missing",
            object: format!("snapshot {}", place.snapshot.short()),
            message: "chunks it needs are in no pack".to_owned(),
        }));
    }
    Ok(())
}

impl VerifyReport {
    /// Adds what was found in the tree of one snapshot.
    fn add(&mut self, found: InTree) {
        self.affected_count += found.affected_count;
        let room = AFFECTED_MAX.saturating_sub(self.affected.len());
        self.affected.extend(found.affected.into_iter().take(room));
        for finding in found.findings {
            let known = self.findings.iter().any(|known| known.message == finding.message);
            if !known && self.findings.len() < FINDINGS_MAX {
                self.findings.push(finding);
            }
        }
    }
}

fn age_of_ledger(catalog: &Catalog, shard: Shard, report: &mut VerifyReport) -> Result<(), Error> {
    let (mut never, mut oldest) = (0, None::<u64>);
    catalog.index().for_each_pack(&mut |_, pack, ledger| {
        if !shard.takes(pack.id.as_bytes()) {
            return ControlFlow::Continue(());
        }
        match ledger {
            // What was found damaged is not proven.
            Some(entry) if entry.ok => {
                oldest = Some(oldest.map_or(entry.verified_ms, |old| old.min(entry.verified_ms)));
            }
            Some(_) | None => never += 1,
        }
        ControlFlow::Continue(())
    })?;
    report.never_verified = never;
    report.oldest_verified_ms = oldest.filter(|_| never == 0);
    Ok(())
}

/// Names a pack for messages.
fn pack_name(pack: &PackRecord) -> String {
    let (kind, id): (PackKind, PackId) = (pack.kind, pack.id);
    ObjectName::Pack(kind, id).to_string()
}
