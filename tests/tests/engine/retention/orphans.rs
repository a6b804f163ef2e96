//! Snapshots that nobody acknowledged, or that are acknowledged late.

use std::collections::BTreeSet;

use cairn_engine::error::Explain as _;
use cairn_engine::ops::forget;
use cairn_engine::ops::gc::{self, GcOptions};
use cairn_engine::ops::snapshots;
use cairn_engine::retention::{Cause, Verdict};
use cairn_engine::store::Store as _;
use cairn_engine::store::fault::{Fault, FaultStore, Plan};
use cairn_engine::store::record::CallKind;
use cairn_format::names::ObjectName;
use cairn_tests::lab::{back_up, verify_full};

use super::{DAY_MS, NOW_MS, Scene, forget_in, last, verdict};

/// A backup that was paused so long that its snapshot was taken for an orphan does not report
/// success.
#[test]
fn a_backup_whose_snapshot_was_forgotten_fails_and_leaves_no_acknowledgement() {
    let scene = Scene::new(87);
    let before =
        scene.store.names().into_iter().filter(|name| matches!(name, ObjectName::Ack { .. }));
    let before = before.collect::<Vec<_>>();
    let (store, others) = (scene.store.clone(), scene.snapshot_names());
    let is_ack = |kind, name: Option<&ObjectName>| {
        kind == CallKind::Put && matches!(name, Some(ObjectName::Ack { .. }))
    };
    let vanishes = scene.odd().before(is_ack, move || {
        let is_snapshot = |name: &ObjectName| matches!(name, ObjectName::Snapshot { .. });
        for name in store.names().iter().filter(|name| is_snapshot(name) && !others.contains(name))
        {
            store.delete(name).expect("memory deletes");
        }
    });
    let error = back_up(&scene.over(&vanishes), &scene.lab.path("source")).expect_err("it fails");
    assert!(vanishes.has_acted());
    assert_eq!(error.code(), "backup.forgotten");
    let after =
        scene.store.names().into_iter().filter(|name| matches!(name, ObjectName::Ack { .. }));
    assert_eq!(after.collect::<Vec<_>>(), before);
    assert!(verify_full(&scene.as_key("owner")).findings.is_empty());
    assert_eq!(snapshots::list(&scene.as_key("owner")).expect("a list").len(), 1);
}

/// An orphan goes when it is old and no rule would keep it; one that a backup may be about to
/// acknowledge is left alone.
#[test]
fn orphans_go_and_young_ones_stay() {
    let (scene, ids) = Scene::with_days(88, 3);
    let old = scene.put_unacknowledged("owner", NOW_MS - 5 * DAY_MS, |_| {});
    let young = scene.put_unacknowledged("owner", NOW_MS - DAY_MS / 2, |_| {});
    scene.forget(&last(1)).expect("done");
    let left = [ids[2], young].into_iter().collect::<BTreeSet<_>>();
    assert_eq!(scene.listed(), left);
    assert!(!scene.listed().contains(&old));
}

/// A backup took longer than a day, and reports success between a plan and its execution.
#[test]
fn an_orphan_that_is_acknowledged_after_it_was_planned_stays() {
    let (scene, _) = Scene::with_days(92, 3);
    let orphan = scene.put_unacknowledged("owner", NOW_MS - 5 * DAY_MS, |_| {});
    let repository = scene.as_key("owner");
    let plan = forget::plan(&repository, &last(3)).expect("a plan");
    assert_eq!(verdict(&plan, orphan), Verdict::Go(Cause::Unacknowledged));
    scene.acknowledge("owner", orphan);
    let removed = forget::run(&repository, &plan).expect("done").removed;
    assert_eq!(removed, 0);
    let listed = snapshots::list(&scene.as_key("owner")).expect("a list");
    assert!(listed.iter().any(|snapshot| snapshot.id == orphan && snapshot.acknowledged));
}

/// A backup that was paused acknowledges its snapshot in the moment in which it is removed as an
/// orphan: it may have reported success, so the snapshot stays.
#[test]
fn an_orphan_that_is_acknowledged_while_it_is_removed_stays() {
    let (scene, ids) = Scene::with_days(89, 3);
    let orphan = scene.put_unacknowledged("owner", NOW_MS - 5 * DAY_MS, |_| {});
    scene.acknowledge("owner", orphan);
    let ack = scene
        .store
        .names()
        .into_iter()
        .find(|name| matches!(name, ObjectName::Ack { snapshot, .. } if *snapshot == orphan));
    let ack = ack.expect("it is there");
    let bytes = scene.store.get(&ack, u64::MAX).expect("its bytes");
    scene.store.delete(&ack).expect("deleted");
    let store = scene.store.clone();
    let appears =
        scene.odd().before(|kind, _| kind == CallKind::Delete, move || store.overwrite(ack, bytes));
    let (plan, _) = forget_in(&scene.over(&appears), &last(3)).expect("done");
    assert!(appears.has_acted());
    assert_eq!(verdict(&plan, orphan), Verdict::Go(Cause::Unacknowledged));
    assert_eq!(scene.listed(), ids.into_iter().chain([orphan]).collect());
    assert!(scene.store.names().contains(&ack));
    assert!(verify_full(&scene.as_key("owner")).findings.is_empty());
}

/// A backup is not told that its acknowledgement was stored, and puts it again after it was taken away
/// with which the snapshot was found to be acknowledged: it does not stay without a record.
#[test]
fn an_acknowledgement_that_is_put_again_while_its_snapshot_is_forgotten_goes() {
    let (scene, ids) = Scene::with_days(93, 3);
    let of_first = |name: &&ObjectName| matches!(name, ObjectName::Ack { snapshot, .. } if *snapshot == ids[0]);
    let ack = scene.store.names().iter().find(of_first).copied().expect("it is acknowledged");
    let bytes = scene.store.get(&ack, u64::MAX).expect("its bytes");
    let store = scene.store.clone();
    let is_record = |kind, name: Option<&ObjectName>| {
        kind == CallKind::Delete && matches!(name, Some(ObjectName::Snapshot { .. }))
    };
    let appears = scene.odd().before(is_record, move || store.overwrite(ack, bytes));
    let plan = forget::plan(&scene.over(&appears), &last(2)).expect("a plan");
    forget::run(&scene.over(&appears), &plan).expect("done");
    assert!(appears.has_acted());
    assert_eq!(scene.listed(), ids[1..].iter().copied().collect());
    assert!(!scene.store.names().contains(&ack));
    gc::run(&scene.as_key("owner"), &GcOptions::default()).expect("it collects");
}

/// Acknowledgements cannot be listed once an orphan's record is gone: it may have been acknowledged, so
/// it is put back.
#[test]
fn an_orphan_stays_where_it_cannot_be_told_whether_it_was_acknowledged() {
    let mut failed = 0;
    for nth in 0.. {
        let (scene, _) = Scene::with_days(90, 3);
        let orphan = scene.put_unacknowledged("owner", NOW_MS - 5 * DAY_MS, |_| {});
        let plan = Plan::new().nth(CallKind::List, nth, Fault::FailBefore);
        let failing = FaultStore::new(scene.store.clone(), plan);
        let opened = scene.lab.try_open(&failing, "owner", "failing");
        let outcome = opened.and_then(|repository| forget_in(&repository, &last(3)));
        assert_eq!(scene.listed().contains(&orphan), outcome.is_err(), "listing {nth}");
        if outcome.is_ok() {
            break;
        }
        failed += 1;
    }
    assert!(failed > 2, "{failed}");
}
