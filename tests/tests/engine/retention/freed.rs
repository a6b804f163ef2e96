//! What comes free because of what goes.

use cairn_engine::error::Error;
use cairn_engine::ops::forget::{self, ForgetOptions};
use cairn_engine::ops::gc::{self, GcOptions};
use cairn_engine::repo::Repository;
use cairn_format::ids::SnapshotId;
use cairn_format::names::{ObjectName, PackKind};
use cairn_tests::lab::{Lab, back_up, copy_of};
use cairn_tests::seed::noise;

use super::{last, named};

const EVERYTHING: GcOptions = GcOptions {
    max_dead_percent: 0.0,
    erase_within_ms: None,
    max_delete_percent: 100.0,
    honour_leases: false,
    full_mark: false,
    weakness: None,
};

/// A backup of what stays the same and of so much that is only in it, bytes.
fn day(lab: &Lab, repository: &Repository, seed: u64, bytes: usize) -> SnapshotId {
    let source = lab.path("source");
    std::fs::create_dir_all(&source).expect("a folder");
    std::fs::write(source.join("same"), noise(400_000, 1)).expect("a file");
    std::fs::write(source.join("own"), noise(bytes, seed)).expect("a file");
    back_up(repository, &source).expect("a backup").snapshot.expect("a snapshot").id
}

fn measured(repository: &Repository, options: &ForgetOptions) -> Result<Option<u64>, Error> {
    let plan = forget::plan(repository, options)?;
    forget::measure(repository, &plan, true)
}

#[test]
fn it_is_what_a_collection_then_frees() {
    let lab = Lab::new(170);
    let store = lab.memory();
    let repository = lab.open(&store, "maker");
    let days = [(2, 300_000), (3, 200_000), (4, 100_000)];
    let ids = days.map(|(seed, bytes)| day(&lab, &repository, seed, bytes));
    let close = |measured: u64, bytes: u64| {
        assert!((bytes..bytes + 30_000).contains(&measured), "{measured} for {bytes}");
    };
    for remembering in [false, true] {
        if remembering {
            gc::run(&repository, &EVERYTHING).expect("it collects");
        }
        let measured = |options: &_| measured(&repository, options).expect("it tells");
        close(measured(&named(&ids[..1])).expect("known"), 300_000);
        close(measured(&named(&ids[1..2])).expect("known"), 200_000);
        close(measured(&last(1)).expect("known"), 500_000);
        assert_eq!(measured(&last(3)), Some(0));
        let all = ForgetOptions { remove_last: true, ..named(&ids) };
        close(measured(&all).expect("known"), 1_000_000);
    }
    let plan = forget::plan(&repository, &last(1)).expect("a plan");
    let told = forget::measure(&repository, &plan, false).expect("it tells").expect("known");
    forget::run(&repository, &plan).expect("forgotten");
    let freed = gc::plan(&repository, &EVERYTHING).expect("a plan").bytes_freed;
    assert!(told.abs_diff(freed) * 20 < freed, "{told} was told, {freed} come free");
}

/// What is needed cannot be told where trees are lost; forgetting goes on.
#[test]
fn what_is_damaged_is_not_measured() {
    let lab = Lab::new(171);
    let store = lab.memory();
    let repository = lab.open(&store, "maker");
    let ids = [(2, 300_000), (3, 200_000)].map(|(seed, bytes)| day(&lab, &repository, seed, bytes));
    let damaged = copy_of(&store);
    for name in store.names() {
        if matches!(name, ObjectName::Pack(PackKind::Tree, _)) {
            damaged.overwrite(name, vec![0; 10].into());
        }
    }
    let fresh = lab.open(&damaged, "fresh");
    assert_eq!(measured(&fresh, &named(&ids[..1])).expect("no failure"), None);
    let plan = forget::plan(&fresh, &named(&ids[..1])).expect("a plan");
    forget::run(&fresh, &plan).expect("it goes all the same");
}
