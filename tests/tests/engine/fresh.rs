//! Goal: after snapshots expired and were erased, a repository takes what a fresh one takes that only
//! ever held the others, and one collection is enough for that.
//! Method: days of page files and of dumps with rows that move; most of them forgotten and
//! collected; the days that stay are also backed up to a new repository, and both are weighed.

use std::ops::ControlFlow;

use cairn_engine::ops::gc::{self, GcOptions};
use cairn_engine::ops::snapshots::SnapshotInfo;
use cairn_engine::repo::Repository;
use cairn_engine::source::profile::Profile;
use cairn_engine::store::memory::MemoryStore;
use cairn_format::names::ObjectName;
use cairn_tests::garbage::{everything, forget};
use cairn_tests::lab::{Lab, alone, object, verify_full};

use super::delta::{
    PAGE_BYTES, content_of, folder, of_path, of_stream, page_file, path_in_snapshot, random, row,
    run, snapshot, update_pages, write,
};
use super::month::dump_after;

/// How many bytes a repository may have for each hundred of a fresh one, filler left out: it hides
/// the lengths of packs, and is more in one pack and less in the other by chance.
const PERCENT_MAX: usize = 101;
/// The same with filler, which is at most a 32nd of a pack.
const FILLED_PERCENT_MAX: usize = 104;
/// Bytes of a pack besides frames and their descriptions.
const PACK_HEADER_BYTES: usize = 192;

/// What is backed up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A file of pages in which a row of every third is another each day.
    Pages,
    /// The same with twelve rows: soon it does not pay to store changes since the first day.
    BusyPages,
    /// A dump in which rows that changed moved to its end.
    Dump,
}

/// Which days stay, and when the others go.
struct Course<'c> {
    kind: Kind,
    days: u64,
    /// Whether a day is forgotten on a later one.
    is_kept: &'c (dyn Fn(u64, u64) -> bool + Sync),
    /// Collections before the last one: on which days, and what they may leave, percent.
    collect: &'c (dyn Fn(u64) -> Option<f64> + Sync),
}

fn update_busy_pages(file: &mut [u8], day: u64) {
    for (number, page) in (0_u64..).zip(file.chunks_mut(PAGE_BYTES)) {
        for turn in 0..12 {
            let chance = random(number ^ (day << 32) ^ (turn << 48));
            if chance.is_multiple_of(3) {
                let at = usize::try_from(chance % 8_000).expect("it is small");
                let new = row(number ^ (turn << 20), day);
                let length = new.len().min(PAGE_BYTES - at);
                page[at..at + length].copy_from_slice(&new.as_bytes()[..length]);
            }
        }
    }
}

/// Bytes of all objects but the records of what was deleted, which a fresh repository cannot have.
fn bytes_in(store: &MemoryStore) -> usize {
    let counted =
        |name: &ObjectName| !matches!(name, ObjectName::Tomb { .. } | ObjectName::Receipt { .. });
    store.names().into_iter().filter(counted).map(|name| object(store, &name).len()).sum()
}

/// Bytes of all packs without filler, and of what segments repeat of them.
fn bytes_without_filler(repository: &Repository) -> usize {
    let catalog = repository.catalog().expect("the index");
    let mut packs = Vec::new();
    let each = catalog.index().for_each_pack(&mut |number, _, _| {
        packs.push(number);
        ControlFlow::Continue(())
    });
    each.expect("packs");
    let of_pack = |number| {
        let frames = catalog.frames(number).expect("frames");
        let of_frames =
            frames.iter().map(|frame| frame.sealed_bytes as usize + 2 * frame.encoded_bytes_max());
        PACK_HEADER_BYTES + of_frames.sum::<usize>()
    };
    packs.into_iter().map(of_pack).sum()
}

fn collect(repository: &Repository, max_dead_percent: f64) -> gc::GcReport {
    let options = GcOptions { max_dead_percent, ..everything() };
    gc::run(repository, &options).expect("it collects")
}

impl Course<'_> {
    /// By one thread: which chunks share a frame then is the same every time.
    fn assert_as_fresh(&self, seed: u64) {
        alone(|| self.compare(seed));
    }

    fn compare(&self, seed: u64) {
        let lab = Lab::new(seed);
        let store = lab.memory();
        let repository = lab.open(&store, "old");
        let source = folder(&lab);
        let path = source.join("pages");
        let name = match self.kind {
            Kind::Dump => b"/dump".to_vec(),
            Kind::Pages | Kind::BusyPages => path_in_snapshot(&path),
        };
        let back_up = |repository: &Repository, content: &[u8]| match self.kind {
            Kind::Dump => run(repository, of_stream(content), None, true),
            Kind::Pages | Kind::BusyPages => {
                write(&path, content);
                run(repository, of_path(&source), Some(Profile::Aligned), true)
            }
        };
        let mut pages = page_file();
        let mut there: Vec<(u64, SnapshotInfo, Vec<u8>)> = Vec::new();
        for day in 0..self.days {
            match self.kind {
                Kind::Pages if day > 0 => update_pages(&mut pages, day),
                Kind::BusyPages if day > 0 => update_busy_pages(&mut pages, day),
                _ => {}
            }
            let content = if self.kind == Kind::Dump { dump_after(day) } else { pages.clone() };
            let made = snapshot(&back_up(&repository, &content));
            there.push((day, made, content));
            let (kept, gone) = there.into_iter().partition(|(of, ..)| (self.is_kept)(*of, day));
            there = kept;
            let gone: Vec<(u64, SnapshotInfo, Vec<u8>)> = gone;
            gone.iter().for_each(|(_, made, _)| forget(&repository, &store, made));
            if let Some(max_dead_percent) = (self.collect)(day) {
                collect(&repository, max_dead_percent);
            }
        }
        collect(&repository, 0.0);
        for (day, made, content) in &there {
            assert!(content_of(&repository, made, &name) == *content, "day {day}");
        }
        let found = verify_full(&repository);
        assert!(found.findings.is_empty(), "{:?}", found.findings);
        let fresh_store = lab.memory();
        let fresh = lab.open(&fresh_store, "fresh");
        for (_, _, content) in &there {
            back_up(&fresh, content);
        }
        let (old, new) = (bytes_in(&store), bytes_in(&fresh_store));
        let what = format!("{:?}, {} of {} days", self.kind, there.len(), self.days);
        assert!(old * 100 <= new * FILLED_PERCENT_MAX, "{what}: {old} against {new} bytes");
        let (old, new) = (bytes_without_filler(&repository), bytes_without_filler(&fresh));
        assert!(old * 100 <= new * PERCENT_MAX, "{what}: {old} against {new} bytes, no filler");
        let again = collect(&repository, 0.0);
        let done = (again.packs_deleted, again.packs_written, again.plan.bytes_freed);
        assert_eq!(done, (0, 0, 0), "one was not enough: {again:?}");
    }
}

/// All expire at once: of so many days the last stay.
fn newest(kind: Kind, days: u64, kept: u64, seed: u64) {
    let is_kept = |of: u64, day: u64| day + 1 < days || of + kept >= days;
    Course { kind, days, is_kept: &is_kept, collect: &|_| None }.assert_as_fresh(seed);
}

/// All expire at once: every fourth day stays.
fn every_fourth(kind: Kind, days: u64, seed: u64) {
    let is_kept = |of: u64, day: u64| day + 1 < days || of % 4 == 3;
    Course { kind, days, is_kept: &is_kept, collect: &|_| None }.assert_as_fresh(seed);
}

/// Each day the one expires that is so many days old, and is collected; the rest of what it left goes
/// every third day.
fn day_by_day(kind: Kind, days: u64, kept: u64, seed: u64) {
    let is_kept = |of: u64, day: u64| of + kept > day;
    let collect = |day: u64| Some(if day % 3 == 2 { 0.0 } else { 20.0 });
    Course { kind, days, is_kept: &is_kept, collect: &collect }.assert_as_fresh(seed);
}

#[test]
fn pages_of_which_the_newest_stay() {
    newest(Kind::Pages, 20, 5, 140);
    newest(Kind::Pages, 40, 10, 141);
}

#[test]
fn pages_of_which_every_fourth_day_stays() {
    every_fourth(Kind::Pages, 40, 142);
}

#[test]
fn pages_that_expire_day_by_day() {
    day_by_day(Kind::Pages, 24, 6, 143);
}

#[test]
fn dumps_of_which_the_newest_stay() {
    newest(Kind::Dump, 20, 5, 144);
    newest(Kind::Dump, 40, 10, 145);
}

#[test]
fn dumps_of_which_every_fourth_day_stays() {
    every_fourth(Kind::Dump, 40, 146);
}

#[test]
fn dumps_that_expire_day_by_day() {
    day_by_day(Kind::Dump, 24, 6, 147);
}

#[test]
fn busy_pages_of_which_the_newest_stay() {
    newest(Kind::BusyPages, 40, 10, 148);
}

#[test]
fn busy_pages_that_expire_day_by_day() {
    day_by_day(Kind::BusyPages, 24, 6, 149);
}
