//! Goal: after snapshots expired and were erased, a repository takes what a fresh one takes that only
//! ever held the others.
//! Method: days of page files and of dumps with rows that move; most of them forgotten and
//! collected in one run; the days that stay are also backed up to a new repository.

use std::ops::ControlFlow;

use cairn_engine::delta::patch::is_patched;
use cairn_engine::ops::gc;
use cairn_engine::repo::Repository;
use cairn_engine::source::profile::Profile;
use cairn_engine::store::memory::MemoryStore;
use cairn_format::names::ObjectName;
use cairn_tests::garbage::{everything, forget};
use cairn_tests::lab::{Lab, object, verify_full};

use super::delta::{
    content_of, folder, of_path, of_stream, page_file, path_in_snapshot, run, snapshot,
    update_pages, write,
};
use super::month::dump_after;

/// What a repository consists of, bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    packs: usize,
    pack_bytes: usize,
    index_bytes: usize,
    other_bytes: usize,
    whole: (usize, usize, u64),
    patches: (usize, usize, u64),
    deltas: (usize, usize, u64),
    tree_bytes: u64,
    names: usize,
}

fn held(store: &MemoryStore, repository: &Repository) -> Held {
    let mut held = Held::default();
    for name in store.names() {
        let bytes = object(store, &name).len();
        match name {
            ObjectName::Pack(..) => {
                held.packs += 1;
                held.pack_bytes += bytes;
            }
            ObjectName::Index(_) => held.index_bytes += bytes,
            _ => held.other_bytes += bytes,
        }
    }
    let catalog = repository.catalog().expect("the index");
    let mut packs = Vec::new();
    catalog
        .index()
        .for_each_pack(&mut |number, record, _| {
            packs.push((number, *record));
            ControlFlow::Continue(())
        })
        .expect("packs");
    for (number, record) in packs {
        let frames = catalog.frames(number).expect("frames");
        for (at, frame) in frames.iter().enumerate() {
            held.names += frame.chunks.len() + frame.bases.len();
            if record.kind == cairn_format::names::PackKind::Tree {
                held.tree_bytes += u64::from(frame.sealed_bytes);
                continue;
            }
            let next = frames.get(at + 1);
            let slot = if !frame.bases.is_empty() {
                &mut held.deltas
            } else if next.is_some_and(|next| is_patched(Some(frame), &next.bases)) {
                &mut held.patches
            } else {
                &mut held.whole
            };
            slot.0 += 1;
            slot.1 += frame.chunks.len();
            slot.2 += u64::from(frame.sealed_bytes);
        }
    }
    held
}

fn compare(seed: u64, days: u64, kept: &dyn Fn(u64) -> bool, dumps: bool) {
    let lab = Lab::new(seed);
    let (store, fresh_store) = (lab.memory(), lab.memory());
    let (repository, fresh) = (lab.open(&store, "old"), lab.open(&fresh_store, "fresh"));
    let source = folder(&lab);
    let path = source.join("pages");
    let mut pages = page_file();
    let mut live = Vec::new();
    let mut gone = Vec::new();
    for day in 0..days {
        let content = if dumps {
            dump_after(day)
        } else {
            if day > 0 {
                update_pages(&mut pages, day);
            }
            write(&path, &pages);
            pages.clone()
        };
        let back_up = |repository: &Repository| match dumps {
            true => run(repository, of_stream(&content), None, true),
            false => run(repository, of_path(&source), Some(Profile::Aligned), true),
        };
        let made = snapshot(&back_up(&repository));
        if kept(day) {
            back_up(&fresh);
            live.push((made, content));
        } else {
            gone.push(made);
        }
    }
    eprintln!("before {:?}", held(&store, &repository));
    for made in &gone {
        forget(&store, made);
    }
    let report = gc::run(&repository, &everything()).expect("it collects");
    eprintln!(
        "rebased {} written {} deleted {} plan {:?}",
        report.chunks_rebased, report.packs_written, report.packs_deleted, report.plan
    );
    let name = if dumps { b"/dump".to_vec() } else { path_in_snapshot(&path) };
    for (made, content) in &live {
        assert!(content_of(&repository, made, &name) == *content);
    }
    let (old, new) = (held(&store, &repository), held(&fresh_store, &fresh));
    eprintln!("dumps {dumps} days {days} kept {}", live.len());
    eprintln!("old   {old:?}");
    eprintln!("fresh {new:?}");
    let packed = |held: &Held| held.pack_bytes + held.index_bytes;
    eprintln!(
        "ratio {:.4}; of sealed {:.4}",
        packed(&old) as f64 / packed(&new) as f64,
        (old.whole.2 + old.patches.2 + old.deltas.2) as f64
            / (new.whole.2 + new.patches.2 + new.deltas.2) as f64
    );
    let found = verify_full(&repository);
    assert!(found.findings.is_empty(), "{:?}", found.findings);
    let again = gc::run(&repository, &everything()).expect("it collects");
    assert_eq!((again.packs_deleted, again.packs_written), (0, 0), "{again:?}");
}

#[test]
fn pages_20_5() {
    compare(140, 20, &|day| day >= 15, false);
}

#[test]
fn pages_40_10() {
    compare(141, 40, &|day| day >= 30, false);
}

#[test]
fn pages_40_10_spread() {
    compare(141, 40, &|day| day % 4 == 3, false);
}

#[test]
fn dumps_20_5() {
    compare(142, 20, &|day| day >= 15, true);
}

#[test]
fn dumps_40_10() {
    compare(143, 40, &|day| day >= 30, true);
}

#[test]
fn dumps_40_10_spread() {
    compare(143, 40, &|day| day % 4 == 3, true);
}
