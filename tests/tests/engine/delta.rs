//! Goal: what changed is stored at a cost that follows the change, and however bases are lost,
//! forged or useless, every snapshot restores to what was backed up, or says what is damaged.
//! Method: files of pages and dumps over several days, each backed up with deltas and beside it
//! without; bases damaged, deleted, and named falsely.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_engine::context::Context;
use cairn_engine::index::local::{SketchEntry, SketchSlot};
use cairn_engine::ops::backup::{self, BackupOptions, BackupReport, BackupSource};
use cairn_engine::ops::snapshots::SnapshotInfo;
use cairn_engine::ops::{dump, stats, verify};
use cairn_engine::repo::{Repository, keys};
use cairn_engine::source::profile::Profile;
use cairn_engine::store::Store;
use cairn_engine::store::local::LocalStore;
use cairn_engine::store::memory::MemoryStore;
use cairn_engine::tree::reader::lookup_path;
use cairn_format::certificate::Role;
use cairn_format::envelope::Cipher;
use cairn_format::ids::ChunkId;
use cairn_format::names::{ObjectName, PackKind};
use cairn_tests::compare::assert_same;
use cairn_tests::lab::{
    Lab, OWNER, Warnings, inside, new_key, object, select, unlock, verify_full, write_key_file,
};
use cairn_tests::seed::{Seed, noise};
use cairn_tests::{reader, tree};

pub(super) const PAGE_BYTES: usize = 8 << 10;
const PAGES: usize = 768;

/// A number that looks random and always is the same.
pub(super) fn random(seed: u64) -> u64 {
    let mut value = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// A row as databases hold them: words that recur, and numbers that do not.
pub(super) fn row(number: u64, version: u64) -> String {
    const WORDS: [&str; 8] =
        ["customer", "invoice", "open", "paid", "Hamburg", "Berlin", "call back", "reminder"];
    let word = |seed: u64| WORDS[usize::try_from(random(seed) % 8).expect("below 8")];
    format!(
        "{number}\t{:016x}\t{}\t{}\t{}\t{}\n",
        random(number ^ (version << 40)),
        word(number),
        word(number + 1),
        random(number ^ 7) % 100_000,
        word(number * version + 2)
    )
}

fn page(number: usize) -> Vec<u8> {
    let mut page = Vec::with_capacity(PAGE_BYTES + 100);
    let mut next = number as u64 * 1_000;
    while page.len() < PAGE_BYTES {
        page.extend_from_slice(row(next, 0).as_bytes());
        next += 1;
    }
    page.truncate(PAGE_BYTES);
    page
}

pub(super) fn page_file() -> Vec<u8> {
    (0..PAGES).flat_map(page).collect()
}

/// A day of work: a row in every third page is another.
pub(super) fn update_pages(file: &mut [u8], day: u64) {
    for (number, page) in (0_u64..).zip(file.chunks_mut(PAGE_BYTES)) {
        let chance = random(number ^ (day << 32));
        if chance.is_multiple_of(3) {
            let at = usize::try_from(chance % 8_000).expect("it is small");
            let new = row(number, day);
            let length = new.len().min(PAGE_BYTES - at);
            page[at..at + length].copy_from_slice(&new.as_bytes()[..length]);
        }
    }
}

const ROWS: u64 = 60_000;

/// A dump; on later days rows changed, and those move to the end as databases do it.
fn dump_of(day: u64) -> Vec<u8> {
    let mut text = b"COPY customers FROM stdin;\n".to_vec();
    let mut moved = Vec::new();
    for number in 0..ROWS {
        if day > 0 && random(number ^ (day << 50)).is_multiple_of(150) {
            moved.push(row(number, day));
        } else {
            text.extend_from_slice(row(number, 0).as_bytes());
        }
    }
    for row in moved {
        text.extend_from_slice(row.as_bytes());
    }
    text
}

pub(super) fn run(
    repository: &Repository,
    source: BackupSource,
    profile: Option<Profile>,
    deltas: bool,
) -> BackupReport {
    let options = BackupOptions { profile, deltas, ..BackupOptions::new("job", vec![source]) };
    backup::run(repository, options).expect("the backup")
}

pub(super) fn of_path(path: &Path) -> BackupSource {
    BackupSource::Path(path.to_path_buf())
}

pub(super) fn of_stream(content: &[u8]) -> BackupSource {
    let reader = Box::new(std::io::Cursor::new(content.to_vec()));
    BackupSource::Stream { name: "dump".to_owned(), reader }
}

pub(super) fn write(path: &Path, content: &[u8]) {
    std::fs::write(path, content).expect("a file");
    tree::age(path);
}

pub(super) fn snapshot(report: &BackupReport) -> SnapshotInfo {
    report.snapshot.clone().expect("a snapshot")
}

pub(super) fn content_of(repository: &Repository, snapshot: &SnapshotInfo, path: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    dump::run(repository, snapshot, path, &mut content).expect("it can be read");
    content
}

pub(super) fn folder(lab: &Lab) -> PathBuf {
    let source = lab.path("source");
    std::fs::create_dir(&source).expect("a folder");
    source
}

pub(super) fn path_in_snapshot(path: &Path) -> Vec<u8> {
    path.to_str().expect("a temporary path is UTF-8").as_bytes().to_vec()
}

#[test]
fn pages_that_changed_are_stored_as_what_changed_in_them() {
    let lab = Lab::new(100);
    let (with, without) = (lab.memory(), lab.memory());
    let source = folder(&lab);
    let path = source.join("pages");
    let with = lab.open(&with, "with");
    let without = lab.open(&without, "without");
    let mut content = page_file();
    let mut days = Vec::new();
    for day in 0..5 {
        if day > 0 {
            update_pages(&mut content, day);
        }
        write(&path, &content);
        let plain = run(&without, of_path(&source), Some(Profile::Aligned), false);
        let delta = run(&with, of_path(&source), Some(Profile::Aligned), true);
        assert_eq!(plain.deltas.chunks, 0);
        if day > 0 {
            let (delta, plain) = (delta.statistics.bytes_stored, plain.statistics.bytes_stored);
            assert!(delta * 4 < plain, "day {day}: {delta} against {plain} bytes");
        } else {
            assert_eq!(delta.deltas.chunks, 0, "{:?}", delta.deltas);
        }
        days.push((snapshot(&delta), content.clone()));
    }
    for (snapshot, content) in &days {
        assert!(content_of(&with, snapshot, &path_in_snapshot(&path)) == *content);
    }
    let found = verify_full(&with);
    assert!(found.findings.is_empty(), "{:?}", found.findings);
    let held = stats::run(&with).expect("stats");
    assert!(held.delta_chunks > 200 && held.delta_bytes > 10 * held.delta_bytes_stored, "{held:?}");
    assert!(held.base_chunks > 90 && held.base_bytes <= held.delta_bytes, "{held:?}");
}

/// A file whose first part is replaced by something else, and whose rest changed a little everywhere:
/// after many frames for which no base was of use, those are used again that are.
#[test]
fn behind_what_was_replaced_bases_are_used_again() {
    const REPLACED: usize = 32 << 20;
    const KEPT: usize = 32 << 20;
    const CHUNK: usize = 64 << 10;
    const MIB: u64 = 1 << 20;
    // With a chunk that is what it was where they are of use again, that is seen at once. Frames are
    // stored by several workers, in no certain order.
    for (same, least) in [(false, 8 * MIB), (true, 14 * MIB)] {
        let lab = Lab::new(103);
        let repository = lab.open(&lab.memory(), "cache");
        let path = lab.path("pages");
        let mut content = noise(REPLACED + KEPT, 1);
        write(&path, &content);
        run(&repository, of_path(&path), Some(Profile::Aligned), true);
        content[..REPLACED].copy_from_slice(&noise(REPLACED, 2));
        let touched = REPLACED + usize::from(same) * CHUNK;
        content[touched..].iter_mut().step_by(CHUNK).for_each(|byte| *byte ^= 1);
        write(&path, &content);
        let report = run(&repository, of_path(&path), Some(Profile::Aligned), true);
        let deltas = report.deltas;
        assert!((least..=KEPT as u64).contains(&deltas.bytes), "same {same}: {deltas:?}");
        // Of 16 frames that were replaced few were looked at.
        assert!(deltas.frames_declined <= 12, "same {same}: {deltas:?}");
        assert!(content_of(&repository, &snapshot(&report), &path_in_snapshot(&path)) == content);
    }
}

#[test]
fn rows_of_a_dump_that_moved_are_found_by_what_surrounds_them() {
    let lab = Lab::new(101);
    for as_stream in [false, true] {
        let repository = lab.open(&lab.memory(), &format!("cache-{as_stream}"));
        let path = lab.path("dump");
        let mut days = Vec::new();
        for day in 0..4 {
            let content = dump_of(day);
            let source = if as_stream {
                of_stream(&content)
            } else {
                write(&path, &content);
                of_path(&path)
            };
            let report = run(&repository, source, None, true);
            if day > 0 {
                let (stored, new) = (report.statistics.bytes_stored, report.statistics.bytes_new);
                assert!(stored * 10 < new, "day {day}: {stored} bytes for {new} new ones");
            }
            days.push((snapshot(&report), content));
        }
        for (snapshot, content) in &days {
            let name = if as_stream { b"/dump".to_vec() } else { path_in_snapshot(&path) };
            assert!(content_of(&repository, snapshot, &name) == *content);
        }
        let found = verify_full(&repository);
        assert!(found.findings.is_empty(), "{:?}", found.findings);
    }
}

#[test]
fn the_independent_reader_restores_what_the_writer_stored_as_deltas() {
    let lab = Lab::new(102);
    let place = lab.path("repository");
    let store = Arc::new(LocalStore::create(&place).expect("a folder"));
    lab.init(&store, Cipher::Aes256Gcm);
    let repository = lab.open(&store, "cache");
    let source = folder(&lab);
    let mut pages = page_file();
    write(&source.join("pages"), &pages);
    write(&source.join("dump"), &dump_of(0));
    run(&repository, of_path(&source), None, true);
    update_pages(&mut pages, 1);
    write(&source.join("pages"), &pages);
    write(&source.join("dump"), &dump_of(1));
    let report = run(&repository, of_path(&source), None, true);
    assert!(report.deltas.chunks > 20, "{:?}", report.deltas);
    assert_reader_restores(&lab, &place, &snapshot(&report), &source);
}

/// The independent reader restores a snapshot of this source, by the index and by the packs alone.
pub(super) fn assert_reader_restores(
    lab: &Lab,
    place: &Path,
    snapshot: &SnapshotInfo,
    source: &Path,
) {
    let key = write_key_file(lab);
    for from_packs in [false, true] {
        let target = lab.path(&format!("target-{from_packs}"));
        let id = snapshot.id.to_hex();
        reader::restore(place, ["--key-file", &key], &id, &target, from_packs);
        assert_same(source, &inside(&target, source));
    }
}

/// Data packs that are there.
pub(super) fn data_packs(store: &MemoryStore) -> Vec<ObjectName> {
    let is_data = |name: &ObjectName| matches!(name, ObjectName::Pack(PackKind::Data, _));
    store.names().into_iter().filter(is_data).collect()
}

#[test]
fn a_base_that_is_gone_or_damaged_is_done_without_and_a_restore_names_it() {
    for gone in [true, false] {
        let lab = Lab::new(103);
        let store = lab.memory();
        let warnings = Arc::new(Warnings::default());
        let open = |cache: &str| lab.open_watched(&store, cache, warnings.clone());
        let repository = open("cache");
        let source = folder(&lab);
        let mut pages = page_file();
        write(&source.join("pages"), &pages);
        write(&source.join("untouched"), &noise(100_000, 1));
        run(&repository, of_path(&source), Some(Profile::Aligned), true);
        let first = data_packs(&store);
        update_pages(&mut pages, 1);
        write(&source.join("pages"), &pages);
        let second = run(&repository, of_path(&source), Some(Profile::Aligned), true);
        assert!(second.deltas.chunks > 0);
        for name in &first {
            if gone {
                store.delete(name).expect("deleted");
            } else {
                let mut bytes = object(&store, name).to_vec();
                for byte in bytes.iter_mut().skip(200).step_by(5_000) {
                    *byte ^= 0x55;
                }
                store.overwrite(*name, bytes.into());
            }
        }
        update_pages(&mut pages, 2);
        write(&source.join("pages"), &pages);
        let third = run(&repository, of_path(&source), Some(Profile::Aligned), true);
        let told = warnings.all().iter().filter(|remark| remark.code == "delta.base").count();
        assert_eq!(told, 1, "{:?}", warnings.all());
        assert_eq!(third.deltas.chunks, 0, "{:?}", third.deltas);
        drop(repository);
        // What needs no base restores; what does is named, and nothing wrong is written.
        let fresh = open("fresh");
        let found = verify_full(&fresh);
        assert!(!found.findings.is_empty());
        let (_, report) = lab.restore(&fresh, &snapshot(&second), true).expect("it goes on");
        assert!(report.damage_count > 0);
        assert!(report.damaged.iter().any(|remark| remark.subject.ends_with("pages")));
        // A repository that has nothing yet needs no base.
        let healed = lab.memory();
        let healed = lab.open(&healed, &format!("healed-{gone}"));
        let report = run(&healed, of_path(&source), Some(Profile::Aligned), true);
        assert!(
            content_of(&healed, &snapshot(&report), &path_in_snapshot(&source.join("pages")))
                == pages
        );
    }
}

#[test]
fn sketches_that_lie_or_are_lost_cost_space_and_nothing_else() {
    let lab = Lab::new(104);
    let store = lab.memory();
    let repository = lab.open(&store, "cache");
    run(&repository, of_stream(&dump_of(0)), None, true);
    // Every slot that a sketch can have would be too many: the ones in use now name one chunk.
    let strangers = run(&repository, of_stream(&noise(600_000, 9)), None, true);
    assert_eq!(strangers.deltas.chunks, 0);
    let index = repository.catalog().expect("the index");
    let mut some = Vec::new();
    index
        .index()
        .for_each_pack(&mut |number, _, _| {
            let each = index.index().for_each_chunk_of_pack(number, &mut |id, _| {
                some.push(*id);
                std::ops::ControlFlow::Continue(())
            });
            each.expect("chunks");
            std::ops::ControlFlow::Continue(())
        })
        .expect("packs");
    let lies = (0..3 << 16).map(|slot| {
        let number = usize::try_from(random(slot)).expect("64 bits") % (some.len() + 1);
        let nobody = ChunkId::from_bytes([7; 32]);
        let chunk = some.get(number).copied().unwrap_or(nobody);
        (SketchSlot((slot as u32) << 8), SketchEntry { check: slot as u32, chunk })
    });
    index.index().put_sketches(&lies.collect::<Vec<_>>()).expect("lies");
    let report = run(&repository, of_stream(&dump_of(1)), None, true);
    assert!(content_of(&repository, &snapshot(&report), b"/dump") == dump_of(1));
    drop(repository);
    // Another host knows no sketches.
    let fresh = lab.open(&store, "fresh");
    let report = run(&fresh, of_stream(&dump_of(2)), None, true);
    assert!(content_of(&fresh, &snapshot(&report), b"/dump") == dump_of(2));
    let found = verify_full(&fresh);
    assert!(found.findings.is_empty(), "{:?}", found.findings);
}

#[test]
fn content_made_to_mislead_is_stored_and_costs_no_more_than_without_deltas() {
    let lab = Lab::new(105);
    let (with, without) = (lab.memory(), lab.memory());
    let with = lab.open(&with, "with");
    let without = lab.open(&without, "without");
    let zeros = vec![0; 3 << 20];
    let repeated = b"all work and no play ".repeat(100_000);
    // Similar enough to be a candidate, and nothing like it.
    let half = |seed| [noise(32 << 10, 1), noise(96 << 10, seed)].concat().repeat(8);
    let path = lab.path("file");
    for (day, content) in
        [zeros.clone(), repeated.clone(), half(2), half(3), repeated, half(4), zeros]
            .into_iter()
            .enumerate()
    {
        write(&path, &content);
        let profile = [None, Some(Profile::Aligned)][day % 2];
        let plain = run(&without, of_path(&path), profile, false);
        let delta = run(&with, of_path(&path), profile, true);
        assert!(content_of(&with, &snapshot(&delta), &path_in_snapshot(&path)) == content);
        let (delta, plain) = (delta.statistics.bytes_stored, plain.statistics.bytes_stored);
        assert!(delta <= plain + plain / 8 + 4096, "day {day}: {delta} against {plain}");
    }
    let found = verify_full(&with);
    assert!(found.findings.is_empty(), "{:?}", found.findings);
}

#[test]
fn a_key_that_cannot_read_stores_whole_chunks() {
    let lab = Lab::new(106);
    let store = lab.memory();
    let owner = lab.open(&store, "owner");
    keys::add(&owner, &new_key("writer", Role::Writer)).expect("a key");
    let writer = lab.try_open(&store, "writer", "writer").expect("it opens");
    let path = lab.path("file");
    let mut pages = page_file();
    write(&path, &pages);
    run(&writer, of_path(&path), Some(Profile::Aligned), true);
    update_pages(&mut pages, 1);
    write(&path, &pages);
    let report = run(&writer, of_path(&path), Some(Profile::Aligned), true);
    assert_eq!(report.deltas.chunks, 0);
    drop(writer);
    let reader = lab.open(&store, "owner");
    assert!(content_of(&reader, &select(&reader, "latest"), &path_in_snapshot(&path)) == pages);
}

/// A file is cut alike whether or not its former chunks are known, whatever was done to it.
#[test]
fn former_chunks_change_no_boundary() {
    let lab = Lab::new(107);
    let store = lab.memory();
    let repository = lab.open(&store, "owner");
    let path = lab.path("file");
    let mut seed = Seed::new();
    let first = [noise(3 << 20, 1), dump_of(0)].concat();
    let mut content = first.clone();
    for round in 0..24 {
        write(&path, &content);
        let with = run(&repository, of_path(&path), Some(Profile::Cdc), true);
        let mut options = BackupOptions::new("another job", vec![of_path(&path)]);
        options.profile = Some(Profile::Cdc);
        (options.deltas, options.reread) = (false, true);
        let without = backup::run(&repository, options).expect("the backup");
        let [one, other] = [&with, &without].map(|report| {
            let snapshot = snapshot(report);
            let nodes = repository.nodes(&snapshot).expect("a reader");
            let path = path_in_snapshot(&path);
            let entry = lookup_path(&nodes, &snapshot.record.root, &path);
            entry.expect("it can be read").expect("it is there").node
        });
        assert_eq!(one, other, "round {round}, {seed:?}");
        assert_eq!(without.statistics.bytes_new, 0, "round {round}, {seed:?}");
        assert!(content_of(&repository, &snapshot(&with), &path_in_snapshot(&path)) == content);
        let at = seed.below(content.len() as u64) as usize;
        let length = 1 + seed.below(100_000) as usize;
        let some = noise(length, round);
        match round % 6 {
            0 => content[at] ^= 1,
            1 => drop(content.splice(at..at, some)),
            2 => content.truncate(at.max(1)),
            3 => content.extend(some),
            4 => content = first.clone(),
            _ => {
                let end = (at + some.len()).min(content.len());
                drop(content.drain(at..end));
                content.push(7);
            }
        }
    }
}

/// A delta whose base is lost is as lost as its base, although its own pack is sound.
#[test]
fn a_delta_whose_base_is_lost_is_stored_anew() {
    let lab = Lab::new(108);
    let store = lab.memory();
    let repository = lab.open(&store, "owner");
    let path = lab.path("file");
    let mut pages = page_file();
    write(&path, &pages);
    run(&repository, of_path(&path), Some(Profile::Aligned), true);
    let bases = data_packs(&store);
    update_pages(&mut pages, 1);
    write(&path, &pages);
    let report = run(&repository, of_path(&path), Some(Profile::Aligned), true);
    assert!(report.deltas.chunks > 0);
    for name in bases {
        store.delete(&name).expect("it is there");
    }
    let level = verify::Level::Structure;
    let found = verify::run(&repository, &verify::VerifyOptions { level }).expect("it verifies");
    assert!(!found.findings.is_empty());
    let report = run(&repository, of_path(&path), Some(Profile::Aligned), true);
    let newest = snapshot(&report);
    assert!(content_of(&repository, &newest, &path_in_snapshot(&path)) == pages);
    let fresh = lab.open(&store, "fresh");
    assert!(content_of(&fresh, &newest, &path_in_snapshot(&path)) == pages);
}

/// As in a container that is made anew for each backup.
#[test]
fn a_host_that_lost_its_cache_stores_what_changed() {
    let lab = Lab::new(58);
    let store = lab.memory();
    let source = folder(&lab);
    let mut pages = page_file();
    write(&source.join("pages"), &pages);
    let first = run(&lab.open(&store, "one"), of_path(&source), None, true);
    // Others back up meanwhile: another job, and another host under the same name of a job.
    let other = folder_with(&lab, "other", &noise(50_000, 3));
    let options = BackupOptions::new("another", vec![of_path(&other)]);
    backup::run(&lab.open(&store, "two"), options).expect("a backup");
    let elsewhere = Context {
        host: "elsewhere".to_owned(),
        cache_dir: lab.cache("elsewhere"),
        ..lab.context.clone()
    };
    let stranger = Repository::open(Arc::new(store.clone()), &unlock(OWNER), &elsewhere);
    let strange = run(&stranger.expect("it opens"), of_path(&other), None, true);
    assert_eq!(snapshot(&strange).record.parents, []);
    update_pages(&mut pages, 1);
    write(&source.join("pages"), &pages);
    let repository = lab.open(&store, "three");
    let second = run(&repository, of_path(&source), None, true);
    assert_eq!(snapshot(&second).record.parents, [snapshot(&first).id]);
    let (all, changed) = (first.statistics.bytes_stored, second.statistics.bytes_stored);
    assert!(changed * 4 < all, "{changed} bytes of {all}");
    let path = [source.as_os_str().as_encoded_bytes(), b"/pages"].concat();
    assert_eq!(content_of(&repository, &snapshot(&second), &path), pages);
}

fn folder_with(lab: &Lab, name: &str, content: &[u8]) -> PathBuf {
    let folder = lab.path(name);
    std::fs::create_dir(&folder).expect("a folder");
    write(&folder.join("file"), content);
    folder
}
