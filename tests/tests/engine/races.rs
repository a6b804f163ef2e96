//! Goal: what simulations found stays mended: moments at which two operations met and one of them
//! overlooked what the other did.
//! Method: the other runs before a call of the one, at every call of its course or at the one that
//! matters; then a host that knows nothing looks.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use cairn_engine::error::Error;
use cairn_engine::index::catalog::list_packs;
use cairn_engine::ops::erase::{self, EraseError, EraseOptions};
use cairn_engine::ops::gc::{self, GcOptions};
use cairn_engine::ops::replicate::{self, Done, Target};
use cairn_engine::ops::snapshots::SnapshotInfo;
use cairn_engine::ops::{heal, snapshots};
use cairn_engine::repo::{Repository, intent};
use cairn_engine::store::Store;
use cairn_engine::store::fault::{Fault, FaultStore, Plan};
use cairn_engine::store::memory::MemoryStore;
use cairn_engine::store::record::CallKind;
use cairn_format::names::ObjectName;
use cairn_tests::contents::contents;
use cairn_tests::garbage::{everything, forget, pack_bytes, packs, take_away};
use cairn_tests::ground::{Ground, back_up, files};
use cairn_tests::lab::{self, Lab, OWNER, TestClock, alone, copy_of, object};
use cairn_tests::odd::{Deletes, Odd};
use cairn_tests::seed::noise;
use cairn_tests::tree;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

fn replicate(home: &Repository, replica: Arc<dyn Store>) -> Result<Done, Error> {
    let mut report = replicate::run(home, &[Target::new("replica", replica)], false)?;
    report.replicas.pop().expect("one replica").done
}

/// A store that lets something happen before its call of this number.
fn at_call(
    store: &MemoryStore,
    number: usize,
    act: impl FnOnce() + Send + 'static,
) -> Odd<MemoryStore> {
    let count = AtomicUsize::new(0);
    let is_due =
        move |_: CallKind, _: Option<&ObjectName>| count.fetch_add(1, Ordering::SeqCst) == number;
    Odd::new(store.clone()).before(is_due, act)
}

/// How many calls something makes to a store.
fn calls_of(store: &MemoryStore, run: impl FnOnce(Arc<dyn Store>)) -> usize {
    let recorded = FaultStore::new(copy_of(store), Plan::new());
    run(Arc::new(recorded.clone()));
    recorded.calls().len()
}

#[test]
fn a_replication_takes_back_nothing_that_another_brings_meanwhile() {
    let ground = Ground::with(701, &["one"]);
    let begun = MemoryStore::new();
    replicate(&ground.owner(), Arc::new(begun.clone())).expect("a replication");
    let calls =
        calls_of(&begun, |replica| drop(replicate(&ground.owner(), replica).expect("again")));
    assert!(calls > 5);
    for call in 0..calls {
        let (home, replica) = (copy_of(&ground.store), copy_of(&begun));
        let other = ground.owner_of(&home);
        let brought = replica.clone();
        let way = at_call(&replica, call, move || {
            back_up(&other, "two").expect("a backup");
            replicate(&other, Arc::new(brought)).expect("the other replication");
        });
        let slow = ground.owner_of(&home);
        alone(|| replicate(&slow, Arc::new(way.clone()))).expect("a replication");
        assert!(way.has_acted());
        ground.assert_there(&replica, &["one", "two"], &format!("before call {call}"));
    }
}

/// What home has erased from goes from the replica by its own id, not by what stands for it there by then.
#[test]
fn a_replication_leaves_what_another_puts_in_place_of_a_snapshot() {
    let ground = Ground::with(706, &["one", "two"]);
    let begun = MemoryStore::new();
    replicate(&ground.owner(), Arc::new(begun.clone())).expect("a replication");
    let options = EraseOptions {
        job: Some("one".to_owned()),
        paths: vec![b"/own".to_vec()],
        max_delete_percent: 100.0,
        ..EraseOptions::default()
    };
    let plan = erase::plan(&ground.owner(), &options, None).expect("a plan");
    erase::run(&ground.owner(), &options, plan).expect("it erases");
    let calls =
        calls_of(&begun, |replica| drop(replicate(&ground.owner(), replica).expect("again")));
    for call in 0..calls {
        let replica = copy_of(&begun);
        let (other, brought) = (ground.owner(), replica.clone());
        let way = at_call(&replica, call, move || {
            replicate(&other, Arc::new(brought)).expect("the other replication");
        });
        alone(|| replicate(&ground.owner(), Arc::new(way))).expect("a replication");
        let fresh = ground.owner_of(&replica);
        let listed = snapshots::list(&fresh).expect("a list");
        let left = listed.iter().filter(|left| left.acknowledged).collect::<Vec<_>>();
        assert_eq!(left.len(), 2, "before call {call}");
        let one = left.iter().find(|left| left.record.job == "one").expect("it is there");
        let mut expected = files("one");
        expected.remove("own");
        assert_eq!(contents(&fresh, one), Ok(expected), "before call {call}");
    }
}

#[test]
fn a_snapshot_whose_record_home_has_lost_stays_on_the_replica_and_is_healed_from_there() {
    let ground = Ground::with(702, &["one", "two"]);
    let replica = MemoryStore::new();
    replicate(&ground.owner(), Arc::new(replica.clone())).expect("a replication");
    let record = ground.names(|name| matches!(name, ObjectName::Snapshot { .. }))[0];
    ground.store.delete(&record).expect("deleted");
    let done = replicate(&ground.owner(), Arc::new(replica.clone())).expect("a replication");
    assert_eq!((done.forgotten, done.wanted), (0, 2));
    ground.assert_there(&replica, &["one", "two"], "after the loss");
    let mut home = ground.owner();
    let copy = home.open_copy(Arc::new(replica), &home.context.clone()).expect("a copy");
    home.add_fallback(copy);
    assert_eq!(heal::run(&home, false).expect("it heals").snapshots.len(), 1);
    ground.assert_there(&ground.store, &["one", "two"], "healed");
}

#[test]
fn a_replica_that_no_owner_could_open_is_not_made() {
    let ground = Ground::with(703, &["one"]);
    for wanted in [
        |name: &ObjectName| matches!(name, ObjectName::Key(_)),
        |name: &ObjectName| matches!(name, ObjectName::Config(_)),
    ] {
        let home = ground.owner();
        let names = ground.names(wanted);
        let whole = names.iter().map(|name| object(&ground.store, name)).collect::<Vec<_>>();
        for name in &names {
            ground.store.overwrite(*name, whole[0].slice(..20));
        }
        let replica = MemoryStore::new();
        let error = replicate(&home, Arc::new(replica.clone())).expect_err("it is refused");
        assert!(error.is_damage(), "{error}");
        assert!(replica.size(&ObjectName::Format).is_err());
        // It was so on the way only; and of an attempt before half of something is left.
        for (name, object) in names.iter().zip(whole) {
            replica.overwrite(*name, object.slice(..object.len() / 2));
            ground.store.overwrite(*name, object);
        }
        replicate(&home, Arc::new(replica.clone())).expect("a replication");
        ground.assert_there(&replica, &["one"], "made");
    }
}

/// A snapshot that is taken for an orphan is acknowledged while an erasure makes it anew. Whoever was
/// told that it is done finds what is left of it.
#[test]
fn a_snapshot_that_is_acknowledged_while_an_erasure_replaces_it_is_not_lost() {
    let ground = Ground::with(704, &["one", "two"]);
    let listed = snapshots::list(&ground.owner()).expect("a list");
    let one = listed.iter().find(|one| one.record.job == "one").expect("it is there").clone();
    let is_ack =
        |name: &ObjectName| matches!(name, ObjectName::Ack { snapshot, .. } if *snapshot == one.id);
    let ack = ground.names(is_ack)[0];
    let bytes = object(&ground.store, &ack);
    ground.store.delete(&ack).expect("deleted");
    ground.lab.clock.set_ms(TestClock::START_MS + 3 * DAY_MS);
    let record = one.name();
    let run = |store: Arc<dyn Store>| -> Result<(), Error> {
        let options = EraseOptions {
            job: Some("one".to_owned()),
            paths: vec![b"/own".to_vec()],
            max_delete_percent: 100.0,
            ..EraseOptions::default()
        };
        let owner = ground.lab.open_alone(store, OWNER)?;
        match erase::plan(&owner, &options, None) {
            Err(Error::Erase(EraseError::NothingMatches { .. })) => Ok(()),
            plan => erase::run(&owner, &options, plan?).map(drop),
        }
    };
    let calls = calls_of(&ground.store, |store| run(store).expect("it erases"));
    let mut reported = 0;
    for call in 0..calls {
        let store = copy_of(&ground.store);
        let (writer, bytes) = (store.clone(), bytes.clone());
        let done = Arc::new(AtomicUsize::new(0));
        let told = Arc::clone(&done);
        let way = at_call(&store, call, move || {
            writer.put(&ack, &bytes).expect("it is put");
            // As a backup does: it fails when its snapshot is gone.
            match writer.size(&record) {
                Ok(_) => drop(told.fetch_add(1, Ordering::SeqCst)),
                Err(_) => writer.delete(&ack).expect("deleted"),
            }
        });
        alone(|| run(Arc::new(way))).unwrap_or_else(|error| panic!("before {call}: {error}"));
        run(Arc::new(store.clone())).unwrap_or_else(|error| panic!("after {call}: {error}"));
        ground.assert_there(&store, &["two"], &format!("before call {call}"));
        if done.load(Ordering::SeqCst) == 0 {
            continue;
        }
        reported += 1;
        let fresh = ground.owner_of(&store);
        let listed = snapshots::list(&fresh).expect("a list");
        let left = listed.iter().filter(|left| left.record.job == "one" && left.acknowledged);
        let left = left.collect::<Vec<_>>();
        assert_eq!(left.len(), 1, "before call {call}: what was acknowledged is gone");
        let mut expected = files("one");
        expected.remove("own");
        assert_eq!(contents(&fresh, left[0]), Ok(expected), "before call {call}");
    }
    assert!(reported > 10, "{reported}");
}

/// What a collection rescues is named after the tombs: a host that lists segments, and then finds packs
/// gone, has to list them again.
#[test]
fn an_index_that_forgets_condemned_packs_learns_where_they_were_copied_to() {
    let ground = Ground::with(705, &["one", "two"]);
    // A snapshot that nobody has acknowledged yet, by a host that knows what is being condemned.
    let late = copy_of(&ground.store);
    back_up(&ground.owner_of(&late), "one").expect("a backup");
    let known = ground.store.names().into_iter().collect::<BTreeSet<_>>();
    let is_new = |name: &ObjectName| {
        !known.contains(name) && !matches!(name, ObjectName::Ack { .. } | ObjectName::Lease { .. })
    };
    let new = late.names().into_iter().filter(is_new).collect::<Vec<_>>();
    ground.forget("one");
    // A collection dies when it has condemned, before it looks again.
    let tombs = |kind, name: Option<&ObjectName>| {
        kind == CallKind::Put && matches!(name, Some(ObjectName::Tomb { .. }))
    };
    let collect = |store: Arc<dyn Store>| {
        gc::run(&ground.lab.open_alone(store, OWNER).expect("it opens"), &everything())
    };
    let recorded = FaultStore::new(copy_of(&ground.store), Plan::new());
    collect(Arc::new(recorded.clone())).expect("it collects");
    let calls = recorded.calls();
    let last = calls.iter().rposition(|call| tombs(call.kind, call.name.as_ref()));
    let plan = Plan::new().at(last.expect("a tomb") as u64, Fault::CrashAfter);
    let dying = FaultStore::new(ground.store.clone(), plan);
    collect(Arc::new(dying)).expect_err("it dies");
    for name in new {
        ground.store.overwrite(name, object(&late, &name));
    }
    // Another host has its index, and brings it up to date while the next collection goes on.
    let sizes = |kind, name: Option<&ObjectName>| {
        kind == CallKind::Size && matches!(name, Some(ObjectName::Pack(..)))
    };
    let armed = Arc::new(AtomicUsize::new(0));
    let (is_armed, store) = (Arc::clone(&armed), ground.store.clone());
    let collector = ground.owner();
    let way = Odd::new(store).before(
        move |kind, name| is_armed.load(Ordering::SeqCst) > 0 && sizes(kind, name),
        move || {
            let report = gc::run(&collector, &everything()).expect("it collects");
            assert!(report.chunks_rescued > 0 && report.packs_deleted > 0, "{report:?}");
        },
    );
    let host = ground.lab.open_alone(Arc::new(way.clone()), OWNER).expect("it opens");
    host.catalog().expect("an index");
    armed.store(1, Ordering::SeqCst);
    alone(|| host.refresh_catalog()).expect("it is brought up to date");
    assert!(way.has_acted());
    let index = host.catalog().expect("an index").index();
    for pack in list_packs(host.vault()).expect("packs").into_keys() {
        let number = index.pack_number(&pack).expect("a look");
        assert!(number.is_some(), "the index does not know pack {pack}");
    }
}

/// What is damaged on the way from home does not become part of a new copy.
#[test]
fn a_copy_is_not_made_of_what_was_damaged_on_the_way() {
    let ground = Ground::with(720, &["one"]);
    let whole = object(&ground.store, &ObjectName::Format);
    let calls = calls_of(&ground.store, |home| {
        let home = ground.lab.open_alone(home, OWNER).expect("it opens");
        replicate(&home, Arc::new(MemoryStore::new())).expect("a replication");
    });
    let mut refused = 0;
    for call in 0..calls {
        let replica = MemoryStore::new();
        let plan = Plan::new().at(call as u64, Fault::FlipBit { bit: 77 });
        let damaging = FaultStore::new(copy_of(&ground.store), plan);
        let told = ground
            .lab
            .open_alone(Arc::new(damaging), OWNER)
            .and_then(|home| replicate(&home, Arc::new(replica.clone())));
        refused += usize::from(told.is_err());
        if replica.names().contains(&ObjectName::Format) {
            assert_eq!(object(&replica, &ObjectName::Format), whole, "call {call}");
        }
        replicate(&ground.owner(), Arc::new(replica.clone())).expect("once more");
        ground.assert_there(&replica, &["one"], &format!("call {call}"));
    }
    assert!(refused > 5, "{refused}");
}

/// A collection copies what a backup relies on and dies before it deletes anything, and the store loses
/// the copies: another collection may take the packs before, so nothing may rely on the copies.
#[test]
fn a_backup_does_not_rely_on_copies_that_the_store_has_lost() {
    let ground = Ground::with(721, &["one", "two"]);
    ground.forget("one");
    let before = ground.names(|name| matches!(name, ObjectName::Pack(..)));
    let (store, collector) = (ground.store.clone(), Lab::new(722));
    let is_put_of_snapshot = |kind: CallKind, name: Option<&ObjectName>| {
        kind == CallKind::Put && matches!(name, Some(ObjectName::Snapshot { .. }))
    };
    let known = before.clone();
    let way = Odd::new(ground.store.clone()).before(is_put_of_snapshot, move || {
        let there = store.names();
        let dying =
            FaultStore::new(store.clone(), Plan::new().nth(CallKind::Delete, 0, Fault::Crash));
        let collector = collector.open_alone(Arc::new(dying), OWNER).expect("it opens");
        // What the backup has stored is spared.
        let sparing = GcOptions { max_delete_percent: 100.0, ..GcOptions::default() };
        gc::run(&collector, &sparing).expect_err("it dies");
        let new = store.names().into_iter().filter(|name| !there.contains(name));
        let copies = new.filter(|name| matches!(name, ObjectName::Pack(..)));
        let copies = copies.inspect(|name| store.delete(name).expect("it is lost")).count();
        assert!(copies > 0 && known.iter().all(|name| there.contains(name)));
    });
    let host = ground.lab.open_alone(Arc::new(way.clone()), OWNER).expect("it opens");
    let report = alone(|| back_up(&host, "three")).expect("a backup");
    assert!(way.has_acted() && report.chunks_repaired + report.repeats > 0, "{report:?}");
    // The other collection.
    let condemned = gone(&ground);
    assert!(!condemned.is_empty());
    for name in before.iter().filter(|name| condemned.contains(*name)) {
        ground.store.delete(name).expect("deleted");
    }
    let fresh = ground.owner();
    let listed = snapshots::list(&fresh).expect("a list");
    let three = listed.iter().find(|one| one.record.job == "three" && one.acknowledged);
    assert_eq!(contents(&fresh, three.expect("it is there")), Ok(files("three")));
}

/// A collection that did not see a snapshot has condemned what it needs, and the snapshot is forgotten
/// before the collection looks again: a backup that recognised files through it does not rely on that,
/// whenever the snapshot goes.
#[test]
fn a_backup_does_not_rely_on_a_snapshot_that_goes_while_its_packs_are_condemned() {
    for call in 0.. {
        let lab = Lab::new(723);
        let store = lab.memory();
        let source = lab.path("source");
        tree::small(&source, 10, 723);
        std::fs::write(source.join("large"), noise(300_000, 723)).expect("a file");
        tree::settle(&source);
        let made = lab::back_up(&lab.open(&store, "host"), &source).expect("a backup");
        let made = made.snapshot.expect("a snapshot");
        let unseen = copy_of(&store);
        take_away(&unseen, &made);
        gc::run(&lab.open(&unseen, "collector"), &everything()).expect("it collects");
        let condemned = packs(&store).difference(&packs(&unseen)).copied().collect::<Vec<_>>();
        assert!(!condemned.is_empty());
        let is_tomb = |name: &ObjectName| matches!(name, ObjectName::Tomb { .. });
        for name in unseen.names().into_iter().filter(is_tomb) {
            store.put(&name, &object(&unseen, &name)).expect("it is put");
        }
        std::fs::write(source.join("new"), noise(20_000, 1)).expect("a file");
        tree::age(&source.join("new"));
        let (calls, visible) = (AtomicUsize::new(0), Arc::new(AtomicBool::new(false)));
        let (is_visible, rest) = (Arc::clone(&visible), store.clone());
        let goes = move |kind: CallKind, name: Option<&ObjectName>| {
            let puts = matches!((kind, name), (CallKind::Put, Some(ObjectName::Snapshot { .. })));
            let number = calls.fetch_add(1, Ordering::SeqCst);
            visible.fetch_or(puts && number <= call, Ordering::SeqCst);
            puts || number == call
        };
        let way = Odd::new(store.clone()).before(goes, move || take_away(&rest, &made));
        let report = alone(|| lab::back_up(&lab.open(&way, "host"), &source)).expect("a backup");
        assert!(way.has_acted());
        // The collection found nothing when it looked again.
        condemned.iter().for_each(|name| store.delete(name).expect("deleted"));
        let reader = lab.open(&store, "reader");
        assert_eq!(lab::verify_full(&reader).findings, [], "call {call}");
        assert_eq!(snapshots::list(&reader).expect("a list").len(), 1);
        if is_visible.load(Ordering::SeqCst) {
            assert!(call > 10 && report.chunks_repaired + report.repeats > 0, "{call}: {report:?}");
            return;
        }
    }
}

/// Forgets a snapshot so that lists go on to show it, and collects what only it needs.
fn forget_and_collect(
    lab: &Lab,
    store: &MemoryStore,
    lists: &Odd<MemoryStore>,
    one: &SnapshotInfo,
) {
    let collector = lab.open(store, "collector");
    intent::declare(&collector, &[one.name()].into()).expect("it is said");
    let mut names = store.names().into_iter().filter(|name| is_of(name, one)).collect::<Vec<_>>();
    names.sort_by_key(|name| matches!(name, ObjectName::Snapshot { .. }));
    names.iter().for_each(|name| lists.delete(name).expect("deleted"));
    let report = gc::run(&collector, &everything()).expect("it collects");
    assert!(report.packs_deleted > 0, "{report:?}");
}

#[test]
fn a_backup_does_not_rely_on_a_snapshot_that_is_only_listed() {
    let lab = Lab::new(725);
    let store = lab.memory();
    let lists = Odd::new(store.clone()).deleting(Deletes::Lingers);
    let source = lab.path("source");
    std::fs::create_dir(&source).expect("a folder");
    std::fs::write(source.join("first"), noise(20_000, 1)).expect("a file");
    tree::age(&source.join("first"));
    lab::back_up(&lab.open(&lists, "host"), &source).expect("a backup");
    std::fs::write(source.join("large"), noise(300_000, 725)).expect("a file");
    tree::age(&source.join("large"));
    let made = lab::back_up(&lab.open(&lists, "host"), &source).expect("a backup");
    forget_and_collect(&lab, &store, &lists, &made.snapshot.expect("a snapshot"));
    std::fs::write(source.join("new"), noise(20_000, 2)).expect("a file");
    tree::age(&source.join("new"));
    lab::back_up(&lab.open(&lists, "host"), &source).expect("a backup");
    let reader = lab.open(&store, "reader");
    assert_eq!(lab::verify_full(&reader).findings, []);
    assert_eq!(snapshots::list(&reader).expect("a list").len(), 2);
}

#[test]
fn a_replication_does_not_rely_on_a_snapshot_that_is_only_listed() {
    let lab = Lab::new(726);
    let (home, store) = (lab.memory(), MemoryStore::new());
    let lists = Odd::new(store.clone()).deleting(Deletes::Lingers);
    let source = lab.path("source");
    std::fs::create_dir_all(source.join("stays")).expect("folders");
    std::fs::write(source.join("first"), noise(20_000, 1)).expect("a file");
    let back_up = || {
        tree::settle(&source);
        let made = lab::back_up(&lab.open(&home, "host"), &source).expect("a backup");
        made.snapshot.expect("a snapshot")
    };
    back_up();
    std::fs::write(source.join("stays/large"), noise(300_000, 726)).expect("a file");
    let made = back_up();
    replicate(&lab.open(&home, "host"), Arc::new(lists.clone())).expect("a replication");
    forget_and_collect(&lab, &store, &lists, &made);
    std::fs::write(source.join("new"), noise(20_000, 2)).expect("a file");
    let newest = back_up();
    // Another host, which does not know yet what is condemned there.
    let done = replicate(&lab.open(&home, "other"), Arc::new(lists)).expect("a replication");
    assert_eq!(done.copied, [newest.id]);
    let reader = lab.open(&store, "reader");
    assert_eq!(lab::verify_full(&reader).findings, []);
}

/// A snapshot is gone when a collection that looks again comes to read it, and another that relied on it
/// has become visible since it was listed.
#[test]
fn what_became_visible_while_another_vanished_is_seen() {
    let lab = Lab::new(724);
    let store = lab.memory();
    let source = lab.path("source");
    tree::small(&source, 10, 724);
    tree::settle(&source);
    let maker = lab.open(&store, "maker");
    let [first, second] =
        [(); 2].map(|()| lab::back_up(&maker, &source).expect("a backup").snapshot.expect("one"));
    let before = copy_of(&store);
    [&first, &second].into_iter().for_each(|one| forget(&maker, &store, one));
    drop(maker);
    let bring = |one: &SnapshotInfo| {
        let (one, store, before) = (one.clone(), store.clone(), before.clone());
        move || {
            for name in before.names().into_iter().filter(|name| is_of(name, &one)) {
                store.put(&name, &object(&before, &name)).expect("it is put");
            }
        }
    };
    let (condemned, record) = (AtomicBool::new(false), first.name());
    let looks_again = move |kind: CallKind, name: Option<&ObjectName>| {
        let tomb = kind == CallKind::Put && matches!(name, Some(ObjectName::Tomb { .. }));
        condemned.fetch_or(tomb, Ordering::SeqCst) && kind == CallKind::List
    };
    let late = Odd::new(store.clone()).before(looks_again, bring(&first));
    let (bring_second, rest) = (bring(&second), store.clone());
    let way = Odd::new(late).before(
        move |kind, name| kind == CallKind::Get && name == Some(&record),
        move || {
            take_away(&rest, &first);
            bring_second();
        },
    );
    let report =
        alone(|| gc::run(&lab.open(&way, "collector"), &everything())).expect("it collects");
    assert!(way.has_acted() && report.chunks_rescued > 0, "{report:?}");
    let reader = lab.open(&store, "reader");
    assert_eq!(lab::verify_full(&reader).findings, []);
    let left = snapshots::list(&reader).expect("a list");
    assert_eq!(left.iter().map(|one| one.id).collect::<Vec<_>>(), [second.id]);
}

/// Packs that tombs condemn.
fn gone(ground: &Ground) -> BTreeSet<ObjectName> {
    let owner = ground.owner();
    let condemned = owner.catalog().expect("an index").condemned();
    condemned.into_iter().map(|(id, kind)| ObjectName::Pack(kind, id)).collect()
}

/// What is rescued is copied with what it is stored against, and of that nothing may stay either.
#[test]
fn what_a_rescue_brings_along_goes_with_the_same_collection() {
    let lab = Lab::new(712);
    let store = lab.memory();
    let source = lab.path("source");
    std::fs::create_dir_all(&source).expect("a folder");
    let pages = source.join("pages");
    std::fs::write(source.join("stays"), noise(200_000, 1)).expect("a file");
    let mut content = noise(900_000, 2);
    let maker = lab.open(&store, "maker");
    let mut made = Vec::new();
    for _ in 0..2 {
        std::fs::write(&pages, &content).expect("a file");
        tree::settle(&source);
        made.push(lab::back_up(&maker, &source).expect("a backup").snapshot.expect("a snapshot"));
        content.iter_mut().step_by(5_000).for_each(|byte| *byte ^= 1);
    }
    std::fs::remove_file(&pages).expect("removed");
    tree::settle(&source);
    lab::back_up(&maker, &source).expect("a backup");
    let before = copy_of(&store);
    made.iter().for_each(|snapshot| forget(&maker, &store, snapshot));
    drop(maker);
    // As if its writer had put it while its chunks were condemned.
    let (late, back) = (made.pop().expect("the second"), store.clone());
    let bring = move || {
        for name in before.names().into_iter().filter(|name| is_of(name, &late)) {
            back.put(&name, &object(&before, &name)).expect("it is put");
        }
    };
    let condemned = AtomicBool::new(false);
    let looks_again = move |kind: CallKind, name: Option<&ObjectName>| {
        let tomb = kind == CallKind::Put && matches!(name, Some(ObjectName::Tomb { .. }));
        condemned.fetch_or(tomb, Ordering::SeqCst) && kind == CallKind::List
    };
    let way = Odd::new(store.clone()).before(looks_again, bring);
    let report =
        alone(|| gc::run(&lab.open(&way, "collector"), &everything())).expect("it collects");
    assert!(way.has_acted() && report.chunks_rescued > 0);
    let reader = lab.open(&store, "reader");
    assert!(lab::verify_full(&reader).findings.is_empty());
    assert_eq!(snapshots::list(&reader).expect("a list").len(), 2);
    let left = pack_bytes(&store);
    gc::run(&reader, &everything()).expect("it collects");
    assert_eq!(pack_bytes(&store), left, "nothing was left for another collection");
}

fn is_of(name: &ObjectName, snapshot: &SnapshotInfo) -> bool {
    matches!(name, ObjectName::Ack { snapshot: id, .. } | ObjectName::Snapshot { id, .. }
        if *id == snapshot.id)
}
