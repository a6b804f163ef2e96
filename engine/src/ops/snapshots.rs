//! Lists snapshots and finds the one that is meant.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use cairn_format::envelope::Kind;
use cairn_format::ids::{SnapshotId, WriterId};
use cairn_format::limits::RECORD_BYTES_MAX;
use cairn_format::names::{Folder, ObjectName};
use cairn_format::record::Snapshot;
use cairn_format::segment::NAMESPACE_TRUSTED;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use rayon::prelude::*;

use crate::context::{Counter, Remark};
use crate::error::Error;
use crate::repo::{Fallback, Repository};
use crate::seal::sign::writer_id;
use crate::seal::{Role, SealError, Trust, VerifiedWriter};
use crate::store::{Store, StoreError, together};

/// Records that a host reads at most to find its own newest snapshot, when it has lost its cache.
const NEWEST_READ_MAX: usize = 64;

/// A snapshot that was opened and whose signature holds.
#[derive(Clone, Debug)]
pub struct SnapshotInfo {
    /// Its id.
    pub id: SnapshotId,
    /// The time in its name: the writer's clock when it was put, milliseconds since 1970.
    pub name_time_ms: u64,
    /// What it says.
    pub record: Snapshot,
    /// Whose it is: who signed it, or of one that an erasure made anew, who signed the first.
    pub writer: WriterId,
    /// Name of that key.
    pub writer_name: String,
    /// Namespace its chunks are looked up in first (SPEC §7).
    pub namespace: WriterId,
    /// Whether its chunks were proven present after it was visible.
    pub acknowledged: bool,
}

impl SnapshotInfo {
    /// The object that holds its record.
    #[must_use]
    pub const fn name(&self) -> ObjectName {
        self.name_of(self.id)
    }

    /// Name of the record of one that this was made of, or that was made of it: all have the same time.
    #[must_use]
    pub const fn name_of(&self, id: SnapshotId) -> ObjectName {
        ObjectName::Snapshot { time_ms: self.name_time_ms, id }
    }

    /// The snapshots that it was before erasures made it anew, oldest first.
    #[must_use]
    pub fn former(&self) -> &[SnapshotId] {
        self.record.remade.as_ref().map_or(&[], |remade| &remade.former)
    }

    /// The snapshot that was backed up: itself, or the first that erasures made it of.
    #[must_use]
    pub fn origin(&self) -> SnapshotId {
        self.former().first().copied().unwrap_or(self.id)
    }
}

/// Every snapshot that can be read, oldest first. Those that cannot be are warned about, and
/// returned as remarks.
///
/// # Errors
/// When the store cannot be listed or read, or the key may not read.
pub fn list_all(repository: &Repository) -> Result<(Vec<SnapshotInfo>, Vec<Remark>), Error> {
    list_known(repository, &[]).map(|listed| (listed.found, listed.damaged))
}

/// As [`list_all`]; records among `known`, which were read before, are not read again.
///
/// # Errors
/// As [`list_all`].
pub(crate) fn list_known(repository: &Repository, known: &[SnapshotInfo]) -> Result<Listed, Error> {
    let known = known.iter().map(|one| ((one.name_time_ms, one.id), one));
    let known = known.collect::<HashMap<_, _>>();
    repository.require_read("list snapshots")?;
    let names = list_names(repository)?;
    // An index that is open may be older than what was just listed.
    repository.refresh_catalog()?;
    let acknowledged = list_acknowledged(repository)?;
    let (found, damaged) = read_all(repository, &names, &acknowledged, &known)?;
    Ok(Listed { names, acknowledged, found, damaged })
}

/// Reads these records, of which some are known.
fn read_all(
    repository: &Repository,
    names: &[ObjectName],
    acknowledged: &HashSet<SnapshotId>,
    known: &HashMap<(u64, SnapshotId), &SnapshotInfo>,
) -> Result<(Vec<SnapshotInfo>, Vec<Remark>), Error> {
    let read_one = |name: &ObjectName| {
        let known = match name {
            ObjectName::Snapshot { time_ms, id } => known.get(&(*time_ms, *id)),
            _ => None,
        };
        match known {
            Some(known) => {
                let acknowledged = acknowledged.contains(&known.id);
                Ok(SnapshotInfo { acknowledged, ..(*known).clone() })
            }
            None => read(repository, name, acknowledged),
        }
    };
    // From afar it takes long because of the way, not because of the work.
    let read = if repository.store().is_near() {
        names.par_iter().map(read_one).collect()
    } else {
        together::map(repository.store(), names, read_one)
    };
    let (mut found, mut remarks) = (Vec::new(), Vec::new());
    for (name, outcome) in names.iter().zip(read) {
        match outcome {
            Ok(snapshot) => found.push(snapshot),
            Err(Error::Store(StoreError::NotFound { .. })) => {}
            Err(error) if error.is_damage() => {
                let remark = Remark::of(name, &error);
                repository.monitor().count(Counter::Findings, 1);
                repository.monitor().warn(remark.clone());
                remarks.push(remark);
            }
            Err(error) => return Err(error),
        }
    }
    found.sort_by_key(|snapshot| (snapshot.record.started_ms, snapshot.name_time_ms, snapshot.id));
    Ok((found, remarks))
}

/// As [`list_all`], without the remarks.
///
/// # Errors
/// As [`list_all`].
pub fn list(repository: &Repository) -> Result<Vec<SnapshotInfo>, Error> {
    list_all(repository).map(|(snapshots, _)| snapshots)
}

/// The newest acknowledged snapshot of a job that this host's key made on this host, among the newest
/// [`NEWEST_READ_MAX`] of all.
///
/// # Errors
/// Failures of the store. What is damaged is warned about and passed over.
pub(crate) fn newest_of_job(
    repository: &Repository,
    job: &str,
    names: &[ObjectName],
) -> Result<Option<SnapshotId>, Error> {
    let time_ms = |name: &ObjectName| match name {
        ObjectName::Snapshot { time_ms, .. } => *time_ms,
        _ => 0,
    };
    let mut newest = names.to_vec();
    newest.sort_by_key(|name| Reverse(time_ms(name)));
    newest.truncate(NEWEST_READ_MAX);
    let acknowledged = list_acknowledged(repository)?;
    let (found, _) = read_all(repository, &newest, &acknowledged, &HashMap::new())?;
    let namespace = repository.vault().own_namespace()?;
    let is_its = |one: &&SnapshotInfo| {
        one.acknowledged
            && one.record.job == job
            && one.record.host == repository.context.host
            && one.namespace == namespace
    };
    Ok(found.iter().rfind(is_its).map(|one| one.id))
}

/// Names of all snapshot objects.
pub(crate) fn list_names(repository: &Repository) -> Result<Vec<ObjectName>, Error> {
    let mut names = HashSet::new();
    repository.store().list(Folder::Snapshots, &mut |name, _| {
        names.insert(name);
        Ok(())
    })?;
    let mut names = names.into_iter().collect::<Vec<_>>();
    names.sort();
    Ok(names)
}

/// Snapshots that an ack object names. The ack's signature is checked by `verify`.
pub(crate) fn list_acknowledged(repository: &Repository) -> Result<HashSet<SnapshotId>, Error> {
    let mut found = HashSet::new();
    repository.store().list(Folder::Acks, &mut |name, _| {
        if let ObjectName::Ack { snapshot, .. } = name {
            found.insert(snapshot);
        }
        Ok(())
    })?;
    Ok(found)
}

/// Opens one snapshot.
pub(crate) fn read(
    repository: &Repository,
    name: &ObjectName,
    acknowledged: &HashSet<SnapshotId>,
) -> Result<SnapshotInfo, Error> {
    read_from(repository, repository.store(), name, acknowledged)
}

/// Opens one snapshot out of the store of this copy or of another.
fn read_from(
    repository: &Repository,
    store: &dyn Store,
    name: &ObjectName,
    acknowledged: &HashSet<SnapshotId>,
) -> Result<SnapshotInfo, Error> {
    let ObjectName::Snapshot { time_ms, id } = *name else {
        return Err(Error::Internal { part: "the list of snapshots" });
    };
    let signed = repository.read_signed_from(store, Kind::Snapshot, name, RECORD_BYTES_MAX)?;
    let mut record = Snapshot::decode(&signed.record).map_err(Error::format(name))?;
    // A writer cannot say that a snapshot stands for others.
    record.remade = record.remade.filter(|_| signed.writer.role != Role::Writer);
    let writer = whose(&repository.vault().trust, signed.writer, &record);
    let writer = writer.map_err(Error::sealed(name))?;
    let namespace = match writer.role {
        Role::Writer => writer.id,
        Role::Owner | Role::Maintainer | Role::Reader => NAMESPACE_TRUSTED,
    };
    Ok(SnapshotInfo {
        id,
        name_time_ms: time_ms,
        record,
        writer: writer.id,
        writer_name: writer.name,
        namespace,
        acknowledged: acknowledged.contains(&id),
    })
}

/// Whose snapshot it is, after everybody was found not to be revoked who signed it or what it was
/// before.
fn whose(
    trust: &Trust,
    signer: VerifiedWriter,
    record: &Snapshot,
) -> Result<VerifiedWriter, SealError> {
    let Some(remade) = &record.remade else {
        trust.check_not_revoked(&signer, record.finished_ms)?;
        return Ok(signer);
    };
    trust.check_not_revoked(&signer, remade.time_ms)?;
    let first = trust.verify_certificate(&remade.certificate)?;
    let first =
        VerifiedWriter { id: writer_id(&first.public_key), role: first.role, name: first.name };
    trust.check_not_revoked(&first, record.finished_ms)?;
    Ok(first)
}

/// Splits `SELECTOR:/path`; the path is `None` without one. The path begins at the first `:/`.
#[must_use]
pub fn split_selector(text: &[u8]) -> (Vec<u8>, Option<Vec<u8>>) {
    match text.windows(2).position(|pair| pair == b":/") {
        Some(at) => {
            let (selector, path) = text.split_at(at);
            (selector.to_vec(), path.get(1..).map(<[u8]>::to_vec))
        }
        None => (text.to_vec(), None),
    }
}

/// The snapshot a text means: first digits of an id (also of one that an erasure made anew since), `latest`, `latest~N` (N before the latest),
/// `job:NAME` (its latest, also with `~N`), `@TIME` (the newest not begun after that time).
///
/// What the repository lost the record of, or has it damaged, is taken from its other copies, and that
/// is said: a snapshot that is acknowledged here, or one that is named by its id.
///
/// # Errors
/// [`Error::NoSnapshot`], [`Error::AmbiguousSnapshot`], [`Error::Selector`].
pub fn select(repository: &Repository, text: &str) -> Result<SnapshotInfo, Error> {
    let near = repository.store().is_near();
    let listed = if near { list_known(repository, &[]) } else { list_from_afar(repository) };
    select_with_others(repository, listed?, text)
}

/// What a copy of the repository has of snapshots.
pub(crate) struct Listed {
    /// Of records, also of those that are damaged.
    names: Vec<ObjectName>,
    acknowledged: HashSet<SnapshotId>,
    /// Snapshots that could be read, oldest first.
    pub(crate) found: Vec<SnapshotInfo>,
    /// What is to be said of records that cannot be.
    pub(crate) damaged: Vec<Remark>,
}

impl Listed {
    /// The names of records that were listed and gone when they were to be read.
    pub(crate) fn vanished(&self) -> Vec<ObjectName> {
        let found = self.found.iter().map(SnapshotInfo::name).collect::<HashSet<_>>();
        let damaged = self.damaged.iter().map(|one| one.subject.as_str()).collect::<HashSet<_>>();
        let is_gone = |name: &&ObjectName| {
            !found.contains(*name) && !damaged.contains(name.to_string().as_str())
        };
        self.names.iter().filter(is_gone).copied().collect()
    }
}

/// As [`select_from`], with the help of other copies.
fn select_with_others(
    repository: &Repository,
    mut here: Listed,
    text: &str,
) -> Result<SnapshotInfo, Error> {
    if repository.fallbacks().is_empty() {
        return select_from(here.found, text);
    }
    let damaged = here.damaged.iter().map(|remark| remark.subject.as_str()).collect::<HashSet<_>>();
    let (mut named, mut lost) = (HashSet::new(), HashSet::new());
    for name in &here.names {
        let ObjectName::Snapshot { id, .. } = name else { continue };
        named.insert(*id);
        if damaged.contains(name.to_string().as_str()) {
            lost.insert(*id);
        }
    }
    lost.extend(here.acknowledged.iter().filter(|id| !named.contains(*id)));
    let mut elsewhere = HashMap::new();
    let mut take = |found: &mut Vec<SnapshotInfo>, wanted: &dyn Fn(&SnapshotId) -> bool| {
        for copy in repository.fallbacks().iter().map(Fallback::repository) {
            let more = match records_of(repository, copy, wanted) {
                Ok(more) => more,
                Err(error) => {
                    let remark = Remark::of(copy.store().location(), &error);
                    let message = format!("it cannot stand in for snapshots: {}", remark.message);
                    repository.monitor().warn(Remark { message, ..remark });
                    continue;
                }
            };
            for one in more {
                if found.iter().all(|known| known.id != one.id) {
                    elsewhere.insert(one.id, copy.store().location());
                    found.push(one);
                }
            }
        }
        found.sort_by_key(|one| (one.record.started_ms, one.name_time_ms, one.id));
    };
    if !lost.is_empty() {
        take(&mut here.found, &|id| lost.contains(id));
    }
    let selected = match select_from(here.found.clone(), text) {
        Err(Error::NoSnapshot { .. }) if is_digits(text) => {
            let digits = text.to_ascii_lowercase();
            take(&mut here.found, &|id| id.to_hex().starts_with(&digits));
            select_from(here.found, text)?
        }
        selected => selected?,
    };
    if let Some(location) = elsewhere.remove(&selected.id) {
        repository.monitor().warn(Remark {
            code: "fallback.snapshot",
            subject: format!("snapshot {}", selected.id),
            message: format!(
                "its record is damaged in the repository, or not there, and was read from {location}"
            ),
        });
    }
    Ok(selected)
}

/// The snapshots of another copy whose ids are wanted; who may sign them is known here.
fn records_of(
    repository: &Repository,
    copy: &Repository,
    wanted: &dyn Fn(&SnapshotId) -> bool,
) -> Result<Vec<SnapshotInfo>, Error> {
    let mut names = list_names(copy)?;
    names.retain(|name| matches!(name, ObjectName::Snapshot { id, .. } if wanted(id)));
    let acknowledged = list_acknowledged(copy)?;
    let mut found = Vec::with_capacity(names.len());
    for name in &names {
        match read_from(repository, copy.store(), name, &acknowledged) {
            Ok(snapshot) => found.push(snapshot),
            Err(error) if error.is_damage() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// As [`list`] at a store behind a network, for those who read content next: what does not wait
/// for anything else is asked for at once, and the index is opened meanwhile.
fn list_from_afar(repository: &Repository) -> Result<Listed, Error> {
    repository.require_read("list snapshots")?;
    let store = repository.store();
    let (names, acknowledged) =
        together::both(store, || list_names(repository), || list_acknowledged(repository));
    let (names, acknowledged) = (names?, acknowledged?);
    // After the names were listed: what they rely on is in the segments that are listed now.
    let (read, opened) = together::both(
        store,
        || read_all(repository, &names, &acknowledged, &HashMap::new()),
        || repository.current_catalog().map(|_| ()),
    );
    let (found, damaged) = read?;
    opened?;
    Ok(Listed { names, acknowledged, found, damaged })
}

/// As [`select`], among these, which are sorted oldest first.
///
/// # Errors
/// As [`select`].
pub fn select_from(snapshots: Vec<SnapshotInfo>, text: &str) -> Result<SnapshotInfo, Error> {
    let none = || Error::NoSnapshot { selector: text.to_owned() };
    let invalid =
        |message: &str| Error::Selector { selector: text.to_owned(), message: message.to_owned() };
    // An erasure under way, or interrupted, leaves both what it made and what it made that of, and two
    // erasures leave two: whoever counts counts them once.
    let made = || snapshots.iter().filter(|one| one.acknowledged);
    let replaced = made().flat_map(SnapshotInfo::former).copied().collect::<HashSet<_>>();
    let lasts = made().filter(|one| !replaced.contains(&one.id));
    let lasts = lasts.map(|one| (one.origin(), one.id)).collect::<HashMap<_, _>>();
    let standing = |one: &SnapshotInfo| match one.acknowledged {
        true => lasts.get(&one.origin()) == Some(&one.id),
        false => !replaced.contains(&one.id),
    };
    if let Some(time) = text.strip_prefix('@') {
        let time_ms = parse_time(time).ok_or_else(|| invalid("the time is not understood"))?;
        return snapshots
            .into_iter()
            .rev()
            .filter(standing)
            .find(|snapshot| snapshot.record.started_ms <= time_ms)
            .ok_or_else(none);
    }
    let (name, back) = match text.rsplit_once('~') {
        Some((name, back)) => {
            let back = back.parse::<usize>();
            (name, back.map_err(|_| invalid("a whole number must follow ~"))?)
        }
        None => (text, 0),
    };
    if name == "latest" {
        return snapshots.into_iter().rev().filter(standing).nth(back).ok_or_else(none);
    }
    if let Some(job) = name.strip_prefix("job:") {
        return snapshots
            .into_iter()
            .rev()
            .filter(|snapshot| standing(snapshot) && snapshot.record.job == job)
            .nth(back)
            .ok_or_else(none);
    }
    if back != 0 {
        return Err(invalid("~ follows latest or job:NAME"));
    }
    if !is_digits(name) {
        return Err(invalid("it is not an id's first digits"));
    }
    let prefix = name.to_ascii_lowercase();
    let fits = |id: &SnapshotId| id.to_hex().starts_with(&prefix);
    let (mut fitting, others) =
        snapshots.into_iter().partition::<Vec<_>, _>(|snapshot| fits(&snapshot.id));
    if fitting.is_empty() {
        fitting.extend(others.into_iter().filter(|other| other.former().iter().any(fits)));
    }
    match fitting.len() {
        0 => Err(none()),
        1 => fitting.pop().ok_or_else(none),
        _ => Err(Error::AmbiguousSnapshot {
            selector: text.to_owned(),
            candidates: fitting.iter().rev().map(|snapshot| snapshot.id).collect(),
        }),
    }
}

/// Whether it can be the first digits of an id.
fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_hexdigit())
}

/// A time as people write it: RFC 3339 with offset, or a date with or without a time, meant in
/// this machine's time zone; a date alone means its end.
fn parse_time(text: &str) -> Option<i64> {
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Some(time.as_millisecond());
    }
    let zone = TimeZone::system();
    let civil = match text.parse::<jiff::civil::Date>() {
        Ok(date) if !text.contains([':', 'T', ' ']) => date.at(23, 59, 59, 999_000_000),
        _ => text.parse::<DateTime>().ok()?,
    };
    Some(zone.to_ambiguous_zoned(civil).compatible().ok()?.timestamp().as_millisecond())
}
/// True when a snapshot is not there any more: then others may have collected what it needed.
///
/// # Errors
/// Failures of the store.
pub fn is_forgotten(repository: &Repository, snapshot: &SnapshotInfo) -> Result<bool, Error> {
    let name = snapshot.name();
    match repository.store().size(&name) {
        Ok(_) => Ok(false),
        Err(StoreError::NotFound { .. }) => Ok(true),
        Err(error) => Err(error.into()),
    }
}
