//! Goal: a month of daily changes costs little more than the changes, every day of it restores, and
//! what holds the changes may be lost without anything else being lost.
//! Method: files of pages and dumps that change a little each day, each backed up with deltas and
//! beside it without; patches damaged; deltas collected.

use std::path::Path;
use std::sync::Arc;

use cairn_engine::ops::gc::{self, GcOptions};
use cairn_engine::ops::stats;
use cairn_engine::repo::Repository;
use cairn_engine::source::profile::Profile;
use cairn_engine::store::Store as _;
use cairn_engine::store::local::LocalStore;
use cairn_format::envelope::Cipher;
use cairn_tests::lab::{Lab, Warnings, object, verify_full};

use super::delta::{
    assert_reader_restores, content_of, data_packs, folder, of_path, of_stream, page_file,
    path_in_snapshot, random, row, run, snapshot, update_pages, write,
};

const DAYS: u64 = 30;
const ROWS: u64 = 40_000;

/// A dump after so many days. Of each row the newest version is there; rows that changed stand
/// behind the others, in the order in which they did.
pub(super) fn dump_after(days: u64) -> Vec<u8> {
    let mut text = b"COPY customers FROM stdin;\n".to_vec();
    let mut moved = vec![Vec::new(); usize::try_from(days).expect("few") + 1];
    for number in 0..ROWS {
        let changed = |day: &u64| random(number ^ (day << 50)).is_multiple_of(200);
        match (1..=days).rev().find(changed) {
            Some(day) => moved[usize::try_from(day).expect("few")].push(row(number, day)),
            None => text.extend_from_slice(row(number, 0).as_bytes()),
        }
    }
    for row in moved.iter().flatten() {
        text.extend_from_slice(row.as_bytes());
    }
    text
}

/// What each day added with deltas, the first day included.
fn assert_cheap(with: &[u64], without: &[u64]) {
    let sum = |days: &[u64]| days.iter().sum::<u64>();
    let (with_all, without_all) = (sum(&with[1..]), sum(&without[1..]));
    assert!(with_all * 12 < without_all, "{with_all} against {without_all}: {with:?}");
    let (early, late) = (sum(&with[1..6]), sum(&with[with.len() - 5..]));
    assert!(late < early * 4, "{late} after a month, {early} at first: {with:?}");
}

#[test]
fn a_month_of_pages_costs_what_changed() {
    let lab = Lab::new(120);
    let (with, without) = (lab.memory(), lab.memory());
    let (with, without) = (lab.open(&with, "with"), lab.open(&without, "without"));
    let source = folder(&lab);
    let path = source.join("pages");
    let mut content = page_file();
    let (mut days, mut added, mut plain) = (Vec::new(), Vec::new(), Vec::new());
    for day in 0..=DAYS {
        if day > 0 {
            update_pages(&mut content, day);
        }
        write(&path, &content);
        let report = run(&with, of_path(&source), Some(Profile::Aligned), true);
        added.push(report.statistics.bytes_stored);
        let whole = run(&without, of_path(&source), Some(Profile::Aligned), false);
        plain.push(whole.statistics.bytes_stored);
        days.push((snapshot(&report), content.clone()));
    }
    assert_cheap(&added, &plain);
    for (snapshot, content) in &days {
        assert!(content_of(&with, snapshot, &path_in_snapshot(&path)) == *content);
    }
    let found = verify_full(&with);
    assert!(found.findings.is_empty(), "{:?}", found.findings);
    let held = stats::run(&with).expect("stats");
    assert!(held.patch_chunks > DAYS && held.patch_chunks < held.base_chunks, "{held:?}");
    assert!(held.patch_bytes_stored < held.patch_bytes, "{held:?}");
}

#[test]
fn a_month_of_dumps_costs_what_changed() {
    let lab = Lab::new(121);
    let (with, without) = (lab.memory(), lab.memory());
    let (with, without) = (lab.open(&with, "with"), lab.open(&without, "without"));
    let (mut days, mut added, mut plain) = (Vec::new(), Vec::new(), Vec::new());
    for day in 0..=DAYS {
        let content = dump_after(day);
        let report = run(&with, of_stream(&content), None, true);
        added.push(report.statistics.bytes_stored);
        let whole = run(&without, of_stream(&content), None, false);
        plain.push(whole.statistics.bytes_stored);
        days.push(snapshot(&report));
    }
    assert_cheap(&added, &plain);
    for (day, snapshot) in (0..).zip(&days) {
        assert!(content_of(&with, snapshot, b"/dump") == dump_after(day), "day {day}");
    }
    let found = verify_full(&with);
    assert!(found.findings.is_empty(), "{:?}", found.findings);
}

/// Backs up some days of pages; returns their snapshots and contents.
fn days_of_pages(
    repository: &Repository,
    path: &Path,
    days: std::ops::Range<u64>,
    content: &mut [u8],
) -> Vec<(cairn_engine::ops::snapshots::SnapshotInfo, Vec<u8>)> {
    let backed_up = days.map(|day| {
        if day > 0 {
            update_pages(content, day);
        }
        write(path, content);
        let report = run(repository, of_path(path), Some(Profile::Aligned), true);
        (snapshot(&report), content.to_vec())
    });
    backed_up.collect()
}

#[test]
fn the_independent_reader_restores_what_patches_hold() {
    let lab = Lab::new(122);
    let place = lab.path("repository");
    let store = Arc::new(LocalStore::create(&place).expect("a folder"));
    lab.init(&store, Cipher::Aes256Gcm);
    let repository = lab.open(&store, "cache");
    let source = folder(&lab);
    let path = source.join("pages");
    let days = days_of_pages(&repository, &path, 0..4, &mut page_file());
    assert!(stats::run(&repository).expect("stats").patch_chunks > 5);
    assert_reader_restores(&lab, &place, &days[3].0, &source);
}

#[test]
fn a_lost_patch_takes_nothing_with_it_but_what_needed_it() {
    for gone in [true, false] {
        let lab = Lab::new(123);
        let store = lab.memory();
        let warnings = Arc::new(Warnings::default());
        let open = |cache: &str| lab.open_watched(&store, cache, warnings.clone());
        let repository = open("cache");
        let path = folder(&lab).join("pages");
        let mut content = page_file();
        let first = days_of_pages(&repository, &path, 0..1, &mut content);
        let before = data_packs(&store);
        let mut rest = days_of_pages(&repository, &path, 1..2, &mut content);
        let patches = data_packs(&store).into_iter().filter(|name| !before.contains(name));
        for name in patches {
            if gone {
                store.delete(&name).expect("it is there");
            } else {
                let mut bytes = object(&store, &name).to_vec();
                for byte in bytes.iter_mut().skip(300).step_by(500) {
                    *byte ^= 0x55;
                }
                store.overwrite(name, bytes.into());
            }
        }
        rest.extend(days_of_pages(&repository, &path, 2..3, &mut content));
        let told = warnings.all().iter().filter(|remark| remark.code == "delta.base").count();
        assert_eq!(told, 1, "{:?}", warnings.all());
        let path = path_in_snapshot(&path);
        for repository in [&repository, &open("fresh")] {
            assert!(content_of(repository, &first[0].0, &path) == first[0].1);
            // Chunks that did not change since are as lost as the day that stored them.
            let (_, report) = lab.restore(repository, &rest[0].0, true).expect("it goes on");
            assert!(report.damage_count > 0);
            let found = verify_full(repository);
            assert!(!found.findings.is_empty());
        }
        // What verify found is stored anew.
        let healed =
            days_of_pages(&repository, Path::new(&lab.path("source/pages")), 3..4, &mut content);
        assert!(content_of(&repository, &healed[0].0, &path) == healed[0].1);
        assert!(content_of(&open("another"), &healed[0].0, &path) == healed[0].1);
    }
}

#[test]
fn a_collection_without_anything_to_collect_leaves_patches_alone() {
    let lab = Lab::new(124);
    let store = lab.memory();
    let repository = lab.open(&store, "cache");
    let path = folder(&lab).join("pages");
    let days = days_of_pages(&repository, &path, 0..6, &mut page_file());
    let before = data_packs(&store);
    for max_dead_percent in [0.0, 20.0] {
        let options = GcOptions { max_dead_percent, honour_leases: false, ..GcOptions::default() };
        let report = gc::run(&repository, &options).expect("it collects");
        assert_eq!(report.plan.packs_repacked + report.plan.packs_dead, 0, "{report:?}");
        assert_eq!(data_packs(&store), before);
    }
    for (snapshot, content) in &days {
        assert!(content_of(&repository, snapshot, &path_in_snapshot(&path)) == *content);
    }
}
