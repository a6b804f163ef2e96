//! Goal: shares of a replication or a verification, by hosts that know nothing of each other, come to
//! what the whole comes to; and nothing is visible on a replica of which a share is still to come.
//! Method: shares in any order, at once, repeated, left out, and with hosts that die at any call;
//! whatever is visible after each of them is restored by a host that knows nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use cairn_engine::ops::gc;
use cairn_engine::ops::replicate::{self, Done, Target};
use cairn_engine::ops::shard::Shard;
use cairn_engine::ops::snapshots::{self, SnapshotInfo};
use cairn_engine::ops::verify::{self, Level, VerifyOptions, VerifyReport};
use cairn_engine::repo::Repository;
use cairn_engine::store::Store;
use cairn_engine::store::fault::{Fault, FaultStore, Plan};
use cairn_engine::store::memory::MemoryStore;
use cairn_engine::store::record::CallKind;
use cairn_format::ids::SnapshotId;
use cairn_format::names::ObjectName;
use cairn_tests::compare::{assert_same_tree, look as look_at};
use cairn_tests::damage::Damage;
use cairn_tests::garbage;
use cairn_tests::lab::{self, copy_of, inside, object};
use cairn_tests::odd::Odd;
use cairn_tests::seed::{Seed, noise};
use cairn_tests::tree;

use crate::replicate::{Home, packs};

fn shard(number: u16, of: u16) -> Shard {
    Shard::new(number, of).expect("a share")
}

/// A home copy with deltas, and with packs enough for all shares.
fn home(seed: u64) -> Home {
    let mut home = Home::new(seed);
    for change in 1..4 {
        for part in 0..3 {
            let name = home.source.join(format!("part-{change}-{part}"));
            std::fs::write(name, noise(900_000, change * 10 + part)).expect("a file");
        }
        tree::settle(&home.source);
        home.back_up(change);
    }
    home
}

fn target(store: &(impl Store + Clone + 'static)) -> Target {
    Target { max_delete_percent: 100.0, ..Target::new("replica", Arc::new(store.clone())) }
}

/// Brings one share to a replica, by a host of its own.
fn bring(home: &Home, host: &str, store: &(impl Store + Clone + 'static), part: Shard) -> Done {
    let repository = home.lab.open(&home.store, host);
    let mut report =
        replicate::run_shard(&repository, &[target(store)], false, part).expect("it runs");
    report.replicas.pop().expect("one replica").done.expect("a share")
}

/// Everything visible on a replica, acknowledged or not, is whole; returns what is acknowledged.
fn assert_whole(home: &Home, store: &MemoryStore) -> BTreeSet<SnapshotId> {
    let alone = home.lab.open_alone(Arc::new(store.clone()), cairn_tests::lab::OWNER);
    let alone = alone.expect("it opens");
    let mut acknowledged = BTreeSet::new();
    for snapshot in snapshots::list(&alone).expect("it lists") {
        let (target, report) = home.lab.restore(&alone, &snapshot, false).expect("a restore");
        assert_eq!(report.failure_count, 0, "{:?}", report.failures);
        let tree = home.trees.get(&snapshot.id).expect("a snapshot of this test");
        assert_same_tree(tree, &inside(&target, &home.source));
        std::fs::remove_dir_all(target).expect("removed");
        if snapshot.acknowledged {
            acknowledged.insert(snapshot.id);
        }
    }
    acknowledged
}

#[test]
fn all_shares_together_bring_what_a_replication_brings() {
    let mut home = home(40);
    let all = home.ids();
    let whole = MemoryStore::new();
    home.replicate_to(&whole);
    for order in [[1, 2, 3], [3, 1, 2]] {
        let replica = MemoryStore::new();
        let mut seen = BTreeSet::new();
        for (nth, number) in order.into_iter().enumerate() {
            let done = bring(&home, &format!("host-{number}"), &replica, shard(number, 3));
            let there = assert_whole(&home, &replica);
            assert!(there.is_superset(&seen));
            assert_eq!(there.len() + done.waiting.len(), all.len(), "{number}: {done:?}");
            assert!(done.packs_moved > 0, "{number}: {done:?}");
            assert_eq!(done.waiting.is_empty(), nth == 2, "{number}: {done:?}");
            seen = there;
        }
        assert_eq!(packs(&replica), packs(&whole));
        home.assert_holds(&replica, &all);
        // Once more there is nothing to do.
        let again = bring(&home, "host-2", &replica, shard(2, 3));
        assert_eq!((again.packs_moved + again.packs_written, again.waiting.len()), (0, 0));
        for host in 1..=3 {
            let _none = std::fs::remove_dir_all(home.lab.cache(&format!("host-{host}")));
        }
    }
}

#[test]
fn without_one_share_nothing_that_needs_it_becomes_visible() {
    let mut home = home(41);
    let all = home.ids();
    let falls_to = |part: Shard| {
        let names = packs(&home.store);
        names.into_iter().any(|name| name.content_hash().is_some_and(|hash| part.takes(&hash)))
    };
    let busy = (1..=4).filter(|number| falls_to(shard(*number, 4))).collect::<Vec<_>>();
    assert!(busy.len() >= 3, "{busy:?}");
    for missing in busy {
        let replica = MemoryStore::new();
        for round in 0..2 {
            for number in (1..=4).filter(|number| *number != missing) {
                let done = bring(&home, &format!("host-{missing}"), &replica, shard(number, 4));
                let there = assert_whole(&home, &replica);
                assert!(!done.waiting.is_empty() && there.len() < all.len(), "{round}: {done:?}");
                let names = replica.names();
                let visible = names.iter().filter_map(|name| match name {
                    ObjectName::Snapshot { id, .. } => Some(*id),
                    _ => None,
                });
                let visible = visible.collect::<BTreeSet<_>>();
                assert!(done.waiting.iter().all(|id| !visible.contains(id)), "{done:?}");
            }
        }
        // Whoever brings all of it completes what others began.
        home.replicate_to(&replica);
        home.assert_holds(&replica, &all);
    }
}

#[test]
fn shares_that_run_at_once_leave_nothing_waiting() {
    let mut home = home(42);
    let all = home.ids();
    for round in 0..4 {
        let replica = MemoryStore::new();
        let hosts = (1..=3).map(|number| {
            let host = format!("at-once-{round}-{number}");
            (shard(number, 3), home.lab.open(&home.store, &host))
        });
        let hosts = hosts.collect::<Vec<_>>();
        std::thread::scope(|scope| {
            for (part, repository) in &hosts {
                let target = target(&replica);
                scope.spawn(move || {
                    let report = replicate::run_shard(repository, &[target], false, *part);
                    let done = report.expect("it runs").replicas.pop().expect("a replica").done;
                    done.expect("a share");
                });
            }
        });
        drop(hosts);
        home.assert_holds(&replica, &all);
    }
}

#[test]
fn a_share_that_dies_at_any_call_leaves_nothing_incomplete() {
    let mut home = home(43);
    let all = home.ids();
    let begun = MemoryStore::new();
    bring(&home, "first", &begun, shard(1, 2));
    let counted = FaultStore::new(copy_of(&begun), Plan::new());
    bring(&home, "counts", &counted, shard(2, 2));
    let calls = counted.calls().len() as u64;
    for call in (0..calls).step_by(4) {
        for fault in [Fault::Crash, Fault::CrashAfter] {
            let replica = copy_of(&begun);
            let dying = FaultStore::new(replica.clone(), Plan::new().at(call, fault));
            let host = format!("dies-{call}-{fault:?}");
            let repository = home.lab.open(&home.store, &host);
            let died = replicate::run_shard(&repository, &[target(&dying)], false, shard(2, 2));
            let _died = died.expect("it runs");
            drop(repository);
            assert_whole(&home, &replica);
            let done = bring(&home, &host, &replica, shard(2, 2));
            assert!(done.waiting.is_empty(), "{call}: {done:?}");
            assert_eq!(assert_whole(&home, &replica), all, "{call} {fault:?}");
            let _none = std::fs::remove_dir_all(home.lab.cache(&host));
        }
    }
    home.assert_holds(&home.store.clone(), &all);
}

#[test]
fn what_shares_repack_is_whole_as_well() {
    let mut home = home(44);
    // Of most packs only a part is wanted from then on.
    let ids = home.ids().into_iter().collect::<Vec<_>>();
    home.forget(ids[0]);
    home.back_up(9);
    let all = home.ids();
    let replica = MemoryStore::new();
    for number in [2, 1] {
        bring(&home, &format!("host-{number}"), &replica, shard(number, 2));
        assert_whole(&home, &replica);
    }
    home.assert_holds(&replica, &all);
}

/// Adds a file, and backs up.
fn back_up_with(home: &mut Home, name: &str) -> SnapshotInfo {
    std::fs::write(home.source.join(name), noise(50_000, 3 + name.len() as u64)).expect("a file");
    tree::settle(&home.source);
    let made = lab::back_up(&home.open(), &home.source).expect("a backup");
    let made = made.snapshot.expect("a snapshot");
    home.trees.insert(made.id, look_at(&home.source));
    made
}

/// What a share goes by was listed before it brought anything: by the time it looks whether a snapshot is
/// complete, one that this is like may be forgotten on the replica, and collected.
#[test]
fn a_share_relies_on_no_snapshot_that_went_while_it_brought_packs() {
    let (home, like, replica, part) = (46..)
        .find_map(|seed| {
            let mut home = Home::new(seed);
            home.back_up(1);
            std::fs::create_dir(home.source.join("stays")).expect("a folder");
            // The rest of the like one is of the first as well.
            let like = back_up_with(&mut home, "stays/alike");
            let replica = MemoryStore::new();
            home.replicate_to(&replica);
            back_up_with(&mut home, "new");
            let new = packs(&home.store).difference(&packs(&replica)).copied().collect::<Vec<_>>();
            let takes_all = |part: &Shard| {
                let mut hashes = new.iter().filter_map(ObjectName::content_hash);
                hashes.all(|hash| part.takes(&hash))
            };
            let part = [shard(1, 2), shard(2, 2)].into_iter().find(takes_all)?;
            Some((home, like, replica, part))
        })
        .expect("a change that falls to one share");
    let (rest, collector) = (replica.clone(), home.lab.open(&replica, "collector"));
    let reads_what_it_copies = |kind, name: Option<&ObjectName>| {
        kind == CallKind::GetRange && matches!(name, Some(ObjectName::Pack(..)))
    };
    let way = Odd::new(home.store.clone()).before(reads_what_it_copies, move || {
        garbage::forget(&collector, &rest, &like);
        gc::run(&collector, &garbage::everything()).expect("it collects");
    });
    let host = home.lab.open(&way, "host");
    let run = || replicate::run_shard(&host, &[target(&replica)], false, part).expect("it runs");
    let done = lab::alone(run).replicas.pop().expect("a replica").done.expect("a share");
    drop(host);
    assert!(way.has_acted());
    assert_eq!(done.waiting.len(), 1, "{done:?}");
    let there = home.lab.open_alone(Arc::new(replica.clone()), lab::OWNER).expect("it opens");
    let there = snapshots::list(&there).expect("it lists");
    assert_eq!(there.iter().filter(|one| one.acknowledged).count(), 1);
    // What is lacking now is brought by those it falls to.
    for number in [1, 2] {
        bring(&home, "host", &replica, shard(number, 2));
    }
    assert_eq!(assert_whole(&home, &replica), home.ids());
}

/// What verify found, without order. What is said of a tree is what was said of a pack, unless another
/// share has read the pack.
fn findings(reports: &[VerifyReport]) -> BTreeSet<(&'static str, String, String)> {
    let found = reports.iter().flat_map(|report| &report.findings);
    let found = found.filter(|one| !one.object.starts_with("tree of"));
    found.map(|one| (one.code, one.object.clone(), one.message.clone())).collect()
}

fn affected(report: &VerifyReport) -> BTreeSet<(SnapshotId, Vec<u8>)> {
    report.affected.iter().map(|one| (one.snapshot, one.path.clone())).collect()
}

fn look(home: &Home, store: &MemoryStore, part: Shard) -> VerifyReport {
    let host = home.lab.open_alone(Arc::new(store.clone()), cairn_tests::lab::OWNER);
    let host: Repository = host.expect("it opens");
    verify::run_shard(&host, &VerifyOptions { level: Level::Full }, part).expect("it verifies")
}

#[test]
fn all_shares_of_a_verification_find_what_the_whole_finds() {
    let home = home(45);
    let mut seed = Seed::of(45);
    let sound = look(&home, &home.store, Shard::ALL);
    assert!(sound.findings.is_empty());
    let mut damaged = Vec::new();
    for nth in 0..4 {
        let store = copy_of(&home.store);
        let names = store.names();
        let of = |wanted: &dyn Fn(&ObjectName) -> bool| {
            names.iter().copied().filter(|name| wanted(name)).collect::<Vec<_>>()
        };
        let all = of(&|name| matches!(name, ObjectName::Pack(..)));
        for (number, name) in all.iter().enumerate().skip(nth).step_by(3) {
            let bytes = object(&store, name).len();
            let damage = match (nth + number) % 3 {
                0 => Damage::Flip { from: 192, to: bytes / 2 },
                1 => Damage::Truncate(bytes / 2),
                _ => Damage::Delete,
            };
            damage.apply(&store, name, &mut seed);
        }
        let acks = of(&|name| matches!(name, ObjectName::Ack { .. }));
        Damage::Garbage.apply(&store, &acks[nth % acks.len()], &mut seed);
        damaged.push(store);
    }
    for (store, of) in std::iter::once(&home.store).chain(&damaged).zip([3, 2, 3, 5, 7]) {
        let whole = look(&home, store, Shard::ALL);
        let parts = (1..=of).map(|number| look(&home, store, shard(number, of)));
        let parts = parts.collect::<Vec<_>>();
        assert_eq!(findings(&parts), findings(std::slice::from_ref(&whole)));
        let union = parts.iter().flat_map(affected).collect::<BTreeSet<_>>();
        assert_eq!(union, affected(&whole));
        let sum = |count: fn(&VerifyReport) -> u64| parts.iter().map(count).sum::<u64>();
        assert_eq!(sum(|report| report.packs_total), whole.packs_total);
        assert_eq!(sum(|report| report.packs_checked), whole.packs_checked);
        assert_eq!(sum(|report| report.bytes_checked), whole.bytes_checked);
        assert_eq!(sum(|report| report.never_verified), whole.never_verified);
        assert!(sum(|report| report.snapshots) >= whole.snapshots);
        if whole.findings.is_empty() {
            assert_eq!(sum(|report| report.snapshots), whole.snapshots);
            assert!(parts.iter().all(|part| part.packs_checked < whole.packs_checked));
        }
    }
}
