//! Goal: each of the thirty faults below does what is expected of it, whoever's fault it is.
//! Method: those that no other test names are here; the others are listed with theirs. Modules are
//! those of this test binary unless a file is named.
//!
//! | # | fault | expected | tests |
//! |---|---|---|---|
//! | 1 | a backup dies after any store call | older snapshots restore, a rerun completes, what is left is collected | `crash::*`, `calls::the_first_backup`, `calls::a_backup_*`, `collect::sessions_at_work_are_spared_and_the_dead_only_for_a_day` |
//! | 2 | a collection dies after any store call | nothing live is lost, a rerun completes | `calls::a_collection_*` |
//! | 3 | a pack is condemned between lookup and snapshot | stored anew, then acknowledged | [`a_pack_condemned_while_a_backup_runs_is_done_without`] |
//! | 4 | a writer pauses for a month | no false success | [`a_writer_that_paused_for_a_month_acknowledges_nothing_that_is_gone`], `retention::a_backup_whose_snapshot_was_forgotten_fails_and_leaves_no_acknowledgement` |
//! | 5 | two collections condemn opposite copies | one copy stays | [`two_collections_at_once_leave_one_copy`], `protocol::two_collections_beside_a_writer_lose_nothing` |
//! | 6 | a put times out and was carried out | read back, success | `calls::*` (`FailAfter`), `simulate::calls_that_fail_lose_nothing_whether_or_not_they_were_carried_out`, `engine/src/store/tests.rs` |
//! | 7 | a server ignores or lies about conditions | told by the probe; safe | [`conditions_that_are_not_kept_are_found_out`], `simulate::a_condition_that_is_ignored_loses_nothing`, `simulate::a_put_that_lies_about_its_condition_loses_nothing` |
//! | 8 | a listing lacks the newest object | refused by the probe | [`a_service_that_does_not_list_what_it_was_given_is_refused`], `simulate::listings_that_lag_are_what_no_home_copy_may_have` |
//! | 9 | a listing repeats, is in disorder, loses a page | the same, or an error | `simulate::listings_in_no_order_that_repeat_entries_change_nothing`, `simulate::listings_that_break_off_lose_nothing`, [`listings_that_lack_an_object_lose_nothing`], [`empty_listings_do_not_mean_that_there_is_nothing`] |
//! | 10 | a deletion says it was done, and was not | no receipt, told | `collect::a_delete_that_lies_is_found_out_and_gets_no_receipt`, `retention::a_deletion_that_did_not_happen_is_told_and_the_record_stays`, `simulate::deletions_that_were_not_carried_out_get_no_receipt` |
//! | 11 | a late put brings a deleted pack back | deleted again, a new receipt | `collect::packs_that_come_back_are_deleted_again_and_relied_on_by_nobody`, `simulate::puts_and_deletions_that_are_late_or_doubled_lose_nothing` |
//! | 12 | a replica is away | concerns replicas | - |
//! | 13 | old versions, soft delete | told by the probe | `tests/remote/s3.rs`, `simulate::versions_that_stay_disturb_nobody`, `simulate::deletions_that_can_be_undone_disturb_nobody` |
//! | 14 | objects are locked | nothing is lost, no receipt, they go afterwards | `simulate::objects_that_are_locked_for_a_while_go_afterwards` |
//! | 15 | a bit flips in any region of a pack | named, and healed by a backup | `damage::damage_in_every_region_of_a_pack_is_named_and_touches_only_what_lies_there`, `damage::a_backup_after_verify_found_damage_heals_it`, `simulate::bits_that_flip_on_the_way_lose_nothing` |
//! | 16 | a pack ends at any byte | an error; what lies before is readable | [`a_pack_cut_at_any_byte_is_readable_up_to_there`] |
//! | 17 | two packs are exchanged | both named | `damage::two_objects_of_a_kind_exchanged_are_both_named` |
//! | 18 | a snapshot is removed by the store | named while its acknowledgement or a host remembers it | `retention::the_loss_of_a_snapshot_can_be_accepted`, `retention::an_empty_listing_does_not_mean_that_there_are_no_snapshots` |
//! | 19 | all segments are deleted | rebuilt equal from the packs | `index::an_index_rebuilt_from_packs_equals_the_one_that_grew`, [`a_collection_without_any_segment_loses_nothing`] |
//! | 20 | the local index is deleted, damaged, or another's | loaded anew; deletes nothing | `index::*` |
//! | 21 | no space, an I/O error, a failed fsync | told, nothing acknowledged | `crash::*`, [`a_disk_that_is_full_stops_a_collection_before_it_deletes`], `tests/command/disk_full.rs`, `engine/src/store/local/tests.rs` |
//! | 22 | the power is cut | an object is there whole or not at all | `tests/command/power.rs` |
//! | 23 | clocks are ten years off, or three weeks, or go back | forget refuses, or does not count it; the rest works | `access::any_clock_will_do`, `retention::clocks::*`, [`a_collection_by_any_clock_loses_nothing`], [`leases_delay_for_a_day_whatever_they_say`] |
//! | 24 | another repository, or none, is where this one was | refused, nothing changed | `index::the_local_index_of_another_repository_is_not_used`, `access::a_wrong_key_and_no_repository_are_told_apart`, [`an_empty_place_is_refused_and_nothing_is_written`] |
//! | 25 | lengths that lie, bombs | bounded, refused | `hostile::frames_that_decompress_to_more_than_they_state_are_damage`, `hostile::lying_lengths_are_reported_and_nothing_is_written_beyond_a_file` |
//! | 26 | paths that lead outside | nothing outside the target | `hostile::*`, `engine/src/target/tests/hostile.rs` |
//! | 27 | absurd costs of a key slot | refused both ways | `access::absurd_argon2_costs_are_refused_both_ways` |
//! | 28 | a wrong passphrase, a foreign slot, a stuck generator | told | `access::*`, `engine/src/seal/random.rs` |
//! | 29 | a hostile writer | others unaffected | `retention::a_writer_pushes_out_nothing_that_another_key_signed`, `retention::writers::*`, [`a_false_chunk_of_a_writer_reaches_nobody_else`], [`what_is_no_snapshot_stops_collections_until_it_is_given_up`], [`names_that_no_snapshot_has_stop_nothing`] |
//! | 30 | files change while they are read | exact or reported | `changing::*`, `hostile::a_sparse_file_of_eight_exbibytes_ends_without_filling_anything`, `tests/command/exit_codes.rs` |
//!
//! Damaged tombs: `collect::a_damaged_tomb_stops_collections_and_backups_but_no_restore`.

use std::sync::Arc;

use cairn_engine::error::{Class, Explain as _};
use cairn_engine::ops::forget::{Choice, ForgetOptions, plan as forget_plan, run as forget_run};
use cairn_engine::ops::gc::{self, GcOptions};
use cairn_engine::ops::snapshots;
use cairn_engine::repo::{Repository, keys};
use cairn_engine::store::fault::{Fault, FaultStore, Plan};
use cairn_engine::store::local::LocalStore;
use cairn_engine::store::memory::MemoryStore;
use cairn_engine::store::profile::Found;
use cairn_engine::store::record::CallKind;
use cairn_engine::store::{Store, StoreError};
use cairn_format::certificate::Role;
use cairn_format::envelope::Kind;
use cairn_format::ids::{ObjectHash, SessionId, SnapshotId};
use cairn_format::names::{ObjectName, PackKind};
use cairn_format::record::Lease;
use cairn_tests::compare::{assert_same_tree, look};
use cairn_tests::craft::{Craft, entry, file};
use cairn_tests::garbage::{Scene, everything, forget, packs};
use cairn_tests::lab::{
    Lab, OWNER, TestClock, alone, back_up, copy_of, inside, new_key, object, select, verify_full,
};
use cairn_tests::odd::Odd;
use cairn_tests::seed::noise;
use cairn_tests::service::conditions::{Condition, services};
use cairn_tests::tree;
use parking_lot::Mutex;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

fn is_put_of_snapshot(kind: CallKind, name: Option<&ObjectName>) -> bool {
    kind == CallKind::Put && matches!(name, Some(ObjectName::Snapshot { .. }))
}

/// A backup relies on packs of the snapshot that was forgotten; before its own is put they are
/// collected.
fn collected_meanwhile(seed: u64, pause_ms: i64) -> Scene {
    let scene = Scene::new(seed);
    std::fs::write(scene.source.join("going"), noise(900_000, seed ^ 1)).expect("a file");
    tree::settle(&scene.source);
    let (store, lab) = (scene.store.clone(), Lab::new(seed + 1_000));
    let clock = Arc::clone(&scene.lab.clock);
    let collected = Arc::new(Mutex::new(None));
    let told = Arc::clone(&collected);
    let way = Odd::new(scene.store.clone()).before(is_put_of_snapshot, move || {
        clock.set_ms(TestClock::START_MS + pause_ms);
        let collector = lab.open(&store, "collector");
        *told.lock() = Some(gc::run(&collector, &everything()).expect("it collects"));
    });
    let maker = scene.lab.open(&way, "maker");
    let report = alone(|| back_up(&maker, &scene.source)).expect("it is repaired");
    drop(maker);
    assert!(way.has_acted());
    let collected = collected.lock().take().expect("it was collected");
    assert!(collected.packs_deleted > 0, "{collected:?}");
    assert!(report.chunks_repaired + report.repeats > 0, "{report:?}");
    let snapshot = report.snapshot.expect("a snapshot");
    let reader = scene.lab.open(&scene.store, "reader");
    let (target, restored) = scene.lab.restore(&reader, &snapshot, false).expect("it restores");
    assert_eq!(restored.failure_count, 0, "{:?}", restored.failures);
    assert_same_tree(&look(&scene.source), &inside(&target, &scene.source));
    scene
}

#[test]
fn a_pack_condemned_while_a_backup_runs_is_done_without() {
    let scene = collected_meanwhile(401, 0);
    assert!(verify_full(&scene.lab.open(&scene.store, "fresh")).findings.is_empty());
}

#[test]
fn a_writer_that_paused_for_a_month_acknowledges_nothing_that_is_gone() {
    let scene = collected_meanwhile(402, 30 * DAY_MS);
    assert!(verify_full(&scene.lab.open(&scene.store, "fresh")).findings.is_empty());
}

/// A second collection runs from beginning to end at some moment of the first.
#[test]
fn two_collections_at_once_leave_one_copy() {
    type When = fn(CallKind, Option<&ObjectName>) -> bool;
    let moments: [(&str, When); 4] = [
        ("before it copies", |kind, name| {
            kind == CallKind::Put && matches!(name, Some(ObjectName::Pack(..)))
        }),
        ("before its tombs", |kind, name| {
            kind == CallKind::Put && matches!(name, Some(ObjectName::Tomb { .. }))
        }),
        ("before its first deletion", |kind, _| kind == CallKind::Delete),
        ("before it deletes a pack", |kind, name| {
            kind == CallKind::Delete && matches!(name, Some(ObjectName::Pack(..)))
        }),
    ];
    let scene = Scene::new(403);
    // A host that knows nothing of the first stores everything a second time.
    let before = packs(&scene.store);
    let empty = Odd::new(scene.store.clone()).hiding(
        scene.store.names().into_iter().filter(|name| matches!(name, ObjectName::Index(_))),
    );
    back_up(&scene.lab.open(&empty, "twin"), &scene.source).expect("a backup");
    assert!(packs(&scene.store).len() > before.len());
    for (what, when) in moments {
        let store = copy_of(&scene.store);
        let (other, lab) = (store.clone(), Lab::new(404));
        let way = Odd::new(store.clone()).before(when, move || {
            gc::run(&lab.open(&other, "other"), &everything()).expect("the second collects");
        });
        let cache = what.replace(' ', "-");
        let collected = alone(|| scene.collect(&way, &cache));
        collected.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(way.has_acted(), "{what} was never");
        scene.assert_kept(&store, "fresh");
        scene.collect(&store, "last").expect("it collects");
        scene.assert_kept(&store, "fresh");
        let _none = std::fs::remove_dir_all(scene.lab.cache("last"));
    }
}

#[test]
fn conditions_that_are_not_kept_are_found_out() {
    for (condition, found) in [
        (Condition::Kept, Found::Yes),
        (Condition::Unknown, Found::Unknown),
        (Condition::Ignored, Found::No),
        (Condition::SaysDone, Found::No),
    ] {
        let (way, _) = services(condition);
        let profile = way.probe().expect("it can be used").expect("it was tried out");
        assert_eq!(profile.conditional_writes, found, "{condition:?}");
    }
}

#[test]
fn a_service_that_does_not_list_what_it_was_given_is_refused() {
    let (way, _) = services(Condition::Unlisted);
    let error = way.probe().expect_err("it must be refused");
    assert!(matches!(error, StoreError::Unfit { .. }), "{error}");
    assert_eq!(error.class(), Class::Refused);
}

/// Whichever single object no listing has: a collection stops, or does as if all was in sight; and
/// with all in sight again nothing is lost.
#[test]
fn listings_that_lack_an_object_lose_nothing() {
    let scene = Scene::new(405);
    scene.collect(&scene.store, "first").expect("it collects");
    // More that is dead, so that there is something to delete.
    std::fs::write(scene.source.join("going"), noise(500_000, 1)).expect("a file");
    tree::settle(&scene.source);
    let host = scene.lab.open(&scene.store, "host");
    let gone = back_up(&host, &scene.source).expect("a backup").snapshot.expect("a snapshot");
    forget(&host, &scene.store, &gone);
    drop(host);
    let (mut stopped, mut went_on) = (0, 0);
    for (number, hidden) in scene.store.names().into_iter().enumerate() {
        if hidden.folder().is_none() {
            continue;
        }
        let store = copy_of(&scene.store);
        let way = Odd::new(store.clone()).hiding([hidden]);
        let cache = format!("cache-{number}");
        match scene.lab.try_open(&way, OWNER, &cache).and_then(|r| gc::run(&r, &everything())) {
            Ok(_) => went_on += 1,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                stopped += 1;
            }
        }
        scene.collect(&store, "whole").unwrap_or_else(|error| panic!("{hidden} hidden: {error}"));
        scene.assert_kept(&store, "fresh");
        let _none = std::fs::remove_dir_all(scene.lab.cache("whole"));
        let _none = std::fs::remove_dir_all(scene.lab.cache(&cache));
    }
    assert!(stopped > 0 && went_on > 0, "{stopped} stopped, {went_on} went on");
}

/// Of any folder: an empty listing never makes anything go.
#[test]
fn empty_listings_do_not_mean_that_there_is_nothing() {
    let scene = Scene::new(406);
    let all = scene.store.names();
    type Of = fn(&ObjectName) -> bool;
    let folders: [(&str, Of); 5] = [
        ("snapshots", |name| matches!(name, ObjectName::Snapshot { .. })),
        ("snapshots and acknowledgements", |name| {
            matches!(name, ObjectName::Snapshot { .. } | ObjectName::Ack { .. })
        }),
        ("segments", |name| matches!(name, ObjectName::Index(_))),
        ("packs", |name| matches!(name, ObjectName::Pack(..))),
        ("everything", |_| true),
    ];
    for (number, (what, of)) in folders.into_iter().enumerate() {
        let store = copy_of(&scene.store);
        let way = Odd::new(store.clone()).hiding(all.iter().copied().filter(of));
        let options = GcOptions { max_delete_percent: 99.0, ..everything() };
        let outcome = scene
            .lab
            .try_open(&way, OWNER, &format!("cache-{number}"))
            .and_then(|repository| gc::run(&repository, &options));
        // Segments say nothing that packs do not say.
        assert!(outcome.is_err() || what == "segments" || what == "everything", "{what}");
        if what != "segments" {
            assert_eq!(packs(&store), packs(&scene.store), "{what}: something was deleted");
        }
        scene.assert_kept(&store, "fresh");
    }
}

/// Chunks in frames before the cut are read, others are damage, and nothing panics.
#[test]
fn a_pack_cut_at_any_byte_is_readable_up_to_there() {
    let lab = Lab::new(407);
    let store = lab.memory();
    let owner = lab.open(&store, "maker");
    let mut craft = Craft::new(&owner);
    let contents = (0..4).map(|number| noise(700 + 100 * number, number as u64));
    let contents = contents.collect::<Vec<_>>();
    let ids = contents.iter().map(|content| craft.chunk(content).expect("a chunk"));
    let ids = ids.collect::<Vec<_>>();
    let entries = ids.iter().zip(&contents).enumerate().map(|(number, (id, content))| {
        entry(&format!("file-{number}"), file(*id, u32::try_from(content.len()).expect("short")))
    });
    let root = craft.directory(&entries.collect::<Vec<_>>()).expect("a directory");
    craft.publish(root).expect("a snapshot");
    let snapshot = select(&owner, "latest");
    let is_data = |name: &ObjectName| matches!(name, ObjectName::Pack(PackKind::Data, _));
    let pack = packs(&store).into_iter().find(is_data).expect("a pack");
    let whole = object(&store, &pack);
    let readable = |bytes: usize| {
        store.overwrite(pack, whole.slice(..bytes));
        let found = ids.iter().zip(&contents).map(|(id, content)| {
            match owner.data_chunks(&snapshot, &[*id]) {
                Ok(read) => {
                    assert_eq!(read.concat(), *content, "cut at {bytes}");
                    true
                }
                Err(error) => {
                    assert!(error.is_damage(), "cut at {bytes}: {error}");
                    false
                }
            }
        });
        found.filter(|found| *found).count()
    };
    let (mut before, mut steps) = (0, 0);
    for bytes in 0..whole.len() {
        let found = readable(bytes);
        assert!(found >= before, "cut at {bytes} less is read than further before");
        steps += usize::from(found > before);
        before = found;
    }
    assert_eq!((before, steps), (4, 4), "each frame is read as soon as it is there");
}

#[test]
fn a_collection_without_any_segment_loses_nothing() {
    let scene = Scene::new(408);
    for name in scene.store.names() {
        if matches!(name, ObjectName::Index(_)) {
            scene.store.delete(&name).expect("deleted");
        }
    }
    let report = scene.collect(&scene.store, "collector").expect("it collects");
    assert!(report.packs_deleted > 0, "{report:?}");
    scene.assert_kept(&scene.store, "fresh");
}

#[test]
fn a_disk_that_is_full_stops_a_collection_before_it_deletes() {
    let scene = Scene::new(409);
    let before = packs(&scene.store);
    let full = FaultStore::new(scene.store.clone(), Plan::new().every(CallKind::Put, Fault::Full));
    let error = scene.collect(&full, "full").expect_err("it is full");
    assert_eq!(error.code(), "store.full", "{error}");
    assert_eq!(packs(&scene.store), before);
    scene.assert_kept(&scene.store, "fresh");
    let report = scene.collect(&scene.store, "full").expect("with room again it collects");
    assert!(report.packs_deleted > 0 && report.packs_written > 0, "{report:?}");
    scene.assert_kept(&scene.store, "fresh");
}

#[test]
fn a_collection_by_any_clock_loses_nothing() {
    const TEN_YEARS_MS: i64 = 10 * 365 * DAY_MS;
    for now_ms in [
        TestClock::START_MS + TEN_YEARS_MS,
        TestClock::START_MS - TEN_YEARS_MS,
        0,
        -TEN_YEARS_MS,
        i64::MAX / 2,
    ] {
        let scene = Scene::new(410);
        scene.lab.clock.set_ms(now_ms);
        let options = GcOptions {
            honour_leases: true,
            erase_within_ms: Some(72 * 60 * 60 * 1000),
            max_dead_percent: 50.0,
            ..everything()
        };
        let collector = scene.lab.open(&scene.store, "collector");
        gc::run(&collector, &options).unwrap_or_else(|error| panic!("at {now_ms}: {error}"));
        // And back again.
        scene.lab.clock.set_ms(TestClock::START_MS);
        gc::run(&collector, &options).unwrap_or_else(|error| panic!("after {now_ms}: {error}"));
        drop(collector);
        scene.collect(&scene.store, "other").expect("it collects");
        scene.assert_kept(&scene.store, "fresh");
    }
}

/// Puts a lease of whoever stored what is dead.
fn put_lease(repository: &Repository, session: SessionId, renewed_ms: i64, ttl_ms: u64) {
    let lease = Lease {
        session,
        writer: repository.keys.signer().expect("a signer").writer_id(),
        host: "host".to_owned(),
        pid: 1,
        operation: "backup".to_owned(),
        started_ms: renewed_ms,
        renewed_ms,
        ttl_ms,
    };
    let envelope = repository.envelope(Kind::Lease).expect("an envelope");
    let content = cairn_engine::seal::sign::unsigned_body(&lease.encode());
    let object = envelope.seal_body(&content).expect("sealed");
    let hash = ObjectHash::from_bytes(*blake3::hash(&object).as_bytes());
    repository.store().put(&ObjectName::Lease { session, hash }, &object).expect("put");
}

/// Leases that say they hold for ever, that are from the future, or that are damaged.
#[test]
fn leases_delay_for_a_day_whatever_they_say() {
    let scene = Scene::new(411);
    let owner = scene.lab.open(&scene.store, "owner");
    let catalog = owner.catalog().expect("an index");
    let mut sessions = std::collections::BTreeSet::new();
    let looked = catalog.index().for_each_pack(&mut |_, record, _| {
        sessions.insert(record.session);
        std::ops::ControlFlow::Continue(())
    });
    looked.expect("packs");
    let options = GcOptions { honour_leases: true, ..everything() };
    let now_ms = TestClock::START_MS;
    for (renewed_ms, ttl_ms, spares) in [
        (now_ms, u64::MAX, true),
        (now_ms - 2 * DAY_MS, u64::MAX, false),
        (now_ms + 3_650 * DAY_MS, u64::MAX, false),
        (i64::MAX, u64::MAX, false),
        (i64::MIN, 0, false),
    ] {
        let store = copy_of(&scene.store);
        let host = scene.lab.open_alone(Arc::new(store), OWNER).expect("it opens");
        for session in &sessions {
            put_lease(&host, *session, renewed_ms, ttl_ms);
        }
        scene.lab.clock.set_ms(now_ms);
        let plan = gc::plan(&host, &options).expect("a plan");
        assert_eq!(plan.packs_spared > 0, spares, "{renewed_ms} {ttl_ms}: {plan:?}");
    }
    for session in &sessions {
        put_lease(&owner, *session, now_ms, 1_000_000);
    }
    for name in scene.store.names() {
        if matches!(name, ObjectName::Lease { .. }) {
            let mut bytes = object(&scene.store, &name).to_vec();
            bytes[250] ^= 1;
            scene.store.overwrite(name, bytes.into());
        }
    }
    let report = gc::run(&owner, &options).expect("it passes them over");
    assert!(report.packs_deleted > 0, "{report:?}");
    drop(owner);
    scene.assert_kept(&scene.store, "fresh");
}

#[test]
fn an_empty_place_is_refused_and_nothing_is_written() {
    let scene = Scene::new(412);
    drop(scene.lab.open(&scene.store, "host"));
    let empty = MemoryStore::new();
    let error = scene.collect(&empty, "host").expect_err("there is no repository");
    assert_eq!(error.class(), Class::NoRepository, "{error}");
    assert!(scene.lab.try_open(&empty, OWNER, "other").is_err());
    assert!(empty.names().is_empty());
}

/// A stolen writer's key stores something else under the id of a chunk: nobody else meets it, and a
/// collection does not make it everybody's.
#[test]
fn a_false_chunk_of_a_writer_reaches_nobody_else() {
    let scene = Scene::new(414);
    let owner = scene.lab.open(&scene.store, "maker");
    keys::add(&owner, &new_key("thief", Role::Writer)).expect("a key");
    let thief = scene.lab.try_open(&scene.store, "thief", "thief").expect("it opens");
    let content = noise(50_000, 77);
    let id = thief.vault().keys.chunk_id(&content);
    let mut craft = Craft::new(&thief);
    let bytes = u32::try_from(content.len()).expect("short");
    let chunk = cairn_format::pack::ChunkRef { id, bytes };
    craft
        .frame(
            PackKind::Data,
            cairn_format::pack::Codec::Stored,
            &noise(50_000, 78),
            vec![chunk],
            vec![],
        )
        .expect("a frame");
    let root = craft.directory(&[entry("false", file(id, bytes))]).expect("a directory");
    craft.publish(root).expect("a snapshot");
    drop(thief);
    // Somebody else backs up what really has that id.
    let honest = scene.lab.path("honest");
    std::fs::create_dir_all(&honest).expect("a folder");
    std::fs::write(honest.join("file"), &content).expect("a file");
    let report = back_up(&owner, &honest).expect("a backup");
    assert!(report.statistics.bytes_new >= 50_000, "the false chunk is relied on");
    // It is of no use to the thief either: what is in its snapshot cannot be read. Its pack stays as
    // it is, so that collections are not stopped by it.
    let report = gc::run(&owner, &everything()).expect("it collects");
    assert!(report.damaged.is_empty() && report.packs_deleted > 0, "{report:?}");
    let mut newest = snapshots::list(&owner).expect("a list").into_iter();
    let newest = newest.rfind(|snapshot| snapshot.writer_name == OWNER);
    let reader = scene.lab.open(&scene.store, "reader");
    let newest = newest.expect("a snapshot");
    let (target, restored) = scene.lab.restore(&reader, &newest, false).expect("it restores");
    assert_eq!(restored.failure_count, 0);
    assert_eq!(std::fs::read(inside(&target, &honest).join("file")).expect("a file"), content);
}

/// What a hostile writer leaves beside snapshots: names that none can have are passed over; what may be
/// one that cannot be read stops collections, which delete nothing and say how to go on.
#[test]
fn what_is_no_snapshot_stops_collections_until_it_is_given_up() {
    let scene = Scene::new(415);
    let owner = scene.lab.open(&scene.store, "maker");
    keys::add(&owner, &new_key("thief", Role::Writer)).expect("a key");
    let stops = |object: &str| {
        let before = packs(&scene.store);
        let error = gc::run(&owner, &everything()).expect_err("it cannot tell what is needed");
        assert_eq!((error.class(), error.code()), (Class::Damage, "gc.unknown"));
        assert!(error.to_string().contains(object), "{error} is about {object}");
        assert!(error.hint().is_some_and(|hint| hint.contains("`cairn forget`")));
        assert_eq!(packs(&scene.store), before, "{object}");
    };
    let give_up = |id: SnapshotId| {
        let named = Choice::Named(vec![id.to_hex()[..8].to_owned()]);
        let options = ForgetOptions { remove_last: true, ..ForgetOptions::new(named) };
        let plan = forget_plan(&owner, &options).expect("it is found");
        assert_eq!(plan.going(), 1);
        forget_run(&owner, &plan).expect("it goes");
    };
    // Anything under its right name.
    let junk = noise(300, 5);
    let id = SnapshotId::from_bytes(*blake3::hash(&junk).as_bytes());
    let name = ObjectName::Snapshot { time_ms: 5, id };
    scene.store.put(&name, &junk).expect("put");
    stops(&id.to_hex());
    give_up(id);
    // A snapshot, signed and acknowledged, of a root that is nowhere.
    let thief = scene.lab.try_open(&scene.store, "thief", "thief").expect("it opens");
    let id =
        Craft::new(&thief).publish(thief.vault().keys.tree_id(b"nothing")).expect("a snapshot");
    drop(thief);
    stops(&id.to_hex());
    give_up(id);
    let report = gc::run(&owner, &everything()).expect("it goes on");
    assert!(report.packs_deleted > 0, "{report:?}");
    drop(owner);
    scene.assert_kept(&scene.store, "fresh");
}

/// A folder of snapshots in which somebody left other files.
#[test]
fn names_that_no_snapshot_has_stop_nothing() {
    let scene = Scene::new(416);
    let place = scene.lab.path("repository");
    let local = LocalStore::create(&place).expect("a folder");
    for name in scene.store.names() {
        local.put(&name, &object(&scene.store, &name)).expect("put");
    }
    for name in ["junk", ".hidden", "0-00", "7fffffffffffffff-"] {
        std::fs::write(place.join("snapshots").join(name), "junk").expect("a file");
    }
    let report = scene.collect(&Arc::new(local), "collector").expect("it collects");
    assert!(report.packs_deleted > 0, "{report:?}");
    assert!(place.join("snapshots/junk").exists());
}
