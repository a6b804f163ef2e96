//! Stores that do not do what they say, lose a snapshot, or show one twice.

use cairn_engine::error::{Class, Error, Explain as _};
use cairn_engine::ops::forget::{self, Choice, ForgetOptions};
use cairn_engine::retention::{Period, Rule};
use cairn_engine::store::Store as _;
use cairn_format::names::ObjectName;
use cairn_tests::lab::verify_full;
use cairn_tests::odd::Deletes;

use super::{NOW_MS, Scene, YEAR_MS, forget_in, last, named, refused, rules, verdict};

#[test]
fn a_deletion_that_did_not_happen_is_told_and_the_record_stays() {
    let (scene, _) = Scene::with_days(82, 3);
    let before = scene.store.names();
    let lies = scene.over(&scene.odd().deleting(Deletes::Stays));
    let error = forget_in(&lies, &last(1)).expect_err("found out");
    assert_eq!((error.class(), error.code()), (Class::Failed, "store.undeleted"));
    assert!(error.to_string().contains("acks/"), "{error}");
    // All that it left is a receipt that says what was meant to go.
    let mut after = scene.store.names();
    after.retain(|name| !matches!(name, ObjectName::Receipt { .. }));
    assert_eq!(after, before);
}

#[test]
fn an_empty_listing_does_not_mean_that_there_are_no_snapshots() {
    let (scene, _) = Scene::with_days(83, 3);
    let hides = scene.over(&scene.odd().hiding(scene.snapshot_names()));
    let error = forget_in(&hides, &last(1)).expect_err("refused");
    assert_eq!((error.class(), error.code()), (Class::Refused, "store.listing"));
}

/// Whichever snapshot a listing lacks: nothing goes that would stay with all of them in sight,
/// and what is missing is named.
#[test]
fn a_partial_listing_removes_nothing_that_a_whole_one_keeps() {
    let (scene, _) = Scene::with_days(84, 12);
    let options = rules(&[Rule::Newest(Period::Daily, 4), Rule::Newest(Period::Weekly, 2)]);
    let whole = forget::plan(&scene.as_key("owner"), &options).expect("a plan");
    for hidden in scene.snapshot_names() {
        let repository = scene.over(&scene.odd().hiding([hidden]));
        let plan = forget::plan(&repository, &options).expect("a plan");
        let ObjectName::Snapshot { id, .. } = hidden else { panic!("a snapshot's name") };
        assert_eq!(plan.damaged[0].code, "snapshot.missing");
        assert!(plan.damaged.iter().all(|one| one.subject.contains(&id.to_hex())));
        for planned in plan.series.iter().flat_map(|series| &series.snapshots) {
            let kept = verdict(&whole, planned.snapshot.id).keeps();
            assert!(!kept || planned.verdict.keeps(), "{hidden} hidden: {planned:?}");
        }
    }
}

/// A snapshot that was lost, and its acknowledgement not, is named by `verify` until somebody
/// accepts the loss by naming it.
#[test]
fn the_loss_of_a_snapshot_can_be_accepted() {
    let (scene, ids) = Scene::with_days(85, 3);
    let lost =
        scene.snapshot_names().into_iter().find(|name| name.to_string().contains(&ids[0].to_hex()));
    scene.store.delete(&lost.expect("it is there")).expect("lost");
    assert_eq!(verify_full(&scene.as_key("owner")).findings.len(), 1);
    let (plan, _) = scene.forget(&last(3)).expect("the others");
    assert_eq!(plan.damaged.len(), 1);
    assert_eq!(verify_full(&scene.as_key("owner")).findings.len(), 1);
    let short = ForgetOptions::new(Choice::Named(vec![ids[0].to_hex()[..6].to_owned()]));
    assert!(matches!(refused(&scene, &short), Error::NoSnapshot { .. }));
    let (plan, _) = scene.forget(&named(&ids[..1])).expect("accepted");
    assert_eq!(plan.bare, [ids[0]]);
    assert!(verify_full(&scene.as_key("owner")).findings.is_empty());
}

/// A store that shows one snapshot under two names, one of them with another time, changes
/// nothing, and both names go.
#[test]
fn a_snapshot_under_two_names_is_one() {
    let (scene, ids) = Scene::with_days(86, 3);
    let oldest =
        scene.snapshot_names().into_iter().find(|name| name.to_string().contains(&ids[0].to_hex()));
    let bytes = scene.store.get(&oldest.expect("it is there"), u64::MAX).expect("its bytes");
    let time_ms = u64::try_from(NOW_MS + YEAR_MS).expect("a time");
    scene.store.overwrite(ObjectName::Snapshot { time_ms, id: ids[0] }, bytes);
    let (plan, report) = scene.forget(&last(2)).expect("done");
    assert_eq!((plan.kept(), report.removed), (2, 1));
    assert_eq!(scene.snapshot_names().len(), 2);
    assert!(verify_full(&scene.as_key("owner")).findings.is_empty());
}
