//! Keys that sign what they please: whose snapshots and dates affect whose.

use cairn_engine::error::Explain as _;
use cairn_engine::ops::forget::{self, ForgetOptions};
use cairn_engine::retention::{Cause, Doubt, Period, Reason, Rule, Verdict};
use cairn_format::names::ObjectName;

use super::{DAY_MS, NOW_MS, Scene, last, named, refused, rules, verdict};

/// A writer's key signs snapshots of the owner's job, with whatever dates: the owner's stay.
#[test]
fn a_writer_pushes_out_nothing_that_another_key_signed() {
    let (scene, ids) = Scene::with_days(77, 5);
    let others = scene.put("other", NOW_MS - 3 * DAY_MS);
    for minute in 0..50 {
        scene.put("host", NOW_MS - minute * 60_000);
    }
    let (plan, _) = scene.forget(&last(5)).expect("done");
    assert_eq!(plan.series.len(), 3);
    assert!(ids.iter().chain([&others]).all(|id| scene.listed().contains(id)));
    assert_eq!(plan.kept(), 5 + 1 + 5);
    let joined = ForgetOptions { join_writers: true, ..last(5) };
    let (plan, _) = scene.forget(&joined).expect("done");
    assert_eq!((plan.series.len(), plan.kept()), (1, 5));
}

/// A stolen key dates snapshots back, to be the newest of every past day: what was there when
/// snapshots were last forgotten stays.
#[test]
fn snapshots_that_are_dated_back_push_out_nothing() {
    let scene = Scene::new(78);
    let honest = (0..7)
        .rev()
        .map(|day| scene.put("host", NOW_MS - day * DAY_MS - 60_000))
        .collect::<Vec<_>>();
    let daily = rules(&[Rule::Newest(Period::Daily, 7)]);
    scene.forget(&daily).expect("done");
    let mut forged = Vec::new();
    for day in 1..20 {
        forged.push(scene.put("host", NOW_MS - day * DAY_MS + 60_000));
    }
    for _ in 0..2 {
        let (plan, _) = scene.forget(&daily).expect("done");
        assert!(honest.iter().all(|id| scene.listed().contains(id)));
        let late = Verdict::Keep(vec![Reason::Doubtful(Doubt::Late)]);
        assert!(forged.iter().all(|id| verdict(&plan, *id) == late));
    }
    // They go when they are named.
    scene.forget(&named(&forged)).expect("done");
    assert!(forged.iter().all(|id| !scene.listed().contains(id)));
}

/// By the chain of predecessors this shows even to a host that has seen nothing before.
#[test]
fn a_snapshot_dated_before_its_predecessor_counts_for_nothing() {
    let scene = Scene::new(79);
    let first = scene.put("host", NOW_MS - 2 * DAY_MS);
    let second = scene.put_as("host", NOW_MS - 9 * DAY_MS, |record| record.previous = Some(first));
    let third = scene.put_as("host", NOW_MS - 8 * DAY_MS, |record| record.previous = Some(second));
    let fourth = scene.put_as("host", NOW_MS - DAY_MS, |record| record.previous = Some(third));
    let plan = forget::plan(&scene.as_key("owner"), &last(1)).expect("a plan");
    let backwards = Verdict::Keep(vec![Reason::Doubtful(Doubt::Backwards)]);
    assert_eq!(verdict(&plan, second), backwards);
    assert_eq!(verdict(&plan, third), backwards);
    assert!(verdict(&plan, fourth).keeps());
    assert_eq!(verdict(&plan, first), Verdict::Go(Cause::Beyond));
}

#[test]
fn an_acknowledgement_by_another_writer_does_not_count() {
    let scene = Scene::new(80);
    let honest = scene.put("host", NOW_MS - 5 * DAY_MS);
    let pending = scene.put_unacknowledged("host", NOW_MS - 2 * DAY_MS, |_| {});
    scene.acknowledge("other", pending);
    let plan = forget::plan(&scene.as_key("owner"), &last(1)).expect("a plan");
    assert!(verdict(&plan, honest).keeps());
    assert_eq!(verdict(&plan, pending), Verdict::Keep(vec![Reason::Unacknowledged]));
    scene.acknowledge("maintainer", pending);
    let plan = forget::plan(&scene.as_key("owner"), &last(1)).expect("a plan");
    assert!(verdict(&plan, pending).keeps() && !verdict(&plan, honest).keeps());
}

/// The same where this host sees everything for the first time: the store tells when it took what.
#[test]
fn snapshots_that_are_dated_back_are_found_out_by_when_the_store_took_them() {
    let scene = Scene::new(89);
    let day = |day: i64, by_ms: i64| scene.put("host", NOW_MS - day * DAY_MS + by_ms);
    let honest = (0..7).rev().map(|number| day(number, -60_000)).collect::<Vec<_>>();
    let forged = (1..20).map(|number| day(number, 60_000)).collect::<Vec<_>>();
    let store = scene.odd();
    let names = scene.snapshot_names().into_iter();
    store.take(names.filter_map(|name| match name {
        ObjectName::Snapshot { id, time_ms } if honest.contains(&id) => {
            Some((name, i64::try_from(time_ms).expect("a time") + 1_000))
        }
        ObjectName::Snapshot { .. } => Some((name, NOW_MS + 2 * 60 * 60 * 1_000)),
        _ => None,
    }));
    let daily = rules(&[Rule::Newest(Period::Daily, 7)]);
    let plan = |cache: &str| {
        let fresh = scene.lab.try_open(&store, "maintainer", cache).expect("it opens");
        forget::plan(&fresh, &daily).expect("a plan")
    };
    let found = plan("fresh");
    let late = Verdict::Keep(vec![Reason::Doubtful(Doubt::Late)]);
    assert!(honest.iter().all(|id| verdict(&found, *id).keeps()));
    assert!(forged.iter().all(|id| verdict(&found, *id) == late));
    // Everything was copied to another place within the hour, in any order: that tells nothing.
    let names = scene.snapshot_names().into_iter().enumerate();
    store.take(names.map(|(number, name)| (name, NOW_MS + (number as i64 * 7_919) % 3_600_000)));
    let found = plan("fresher");
    assert!(forged.iter().all(|id| verdict(&found, *id) != late));
}

/// A stolen key dates a snapshot ahead: forgetting another job goes on, and its own stops.
#[test]
fn a_snapshot_from_the_future_stops_its_own_job() {
    let (scene, ids) = Scene::with_days(90, 5);
    let ahead =
        scene.put_as("host", NOW_MS + 9 * DAY_MS, |record| "theirs".clone_into(&mut record.job));
    for job in [None, Some("theirs".to_owned())] {
        let options = ForgetOptions { job, ..last(2) };
        assert_eq!(refused(&scene, &options).code(), "clock.future");
    }
    let (plan, _) = scene
        .forget(&ForgetOptions { job: Some("job".to_owned()), ..last(2) })
        .expect("it is none of its concern");
    assert_eq!((plan.going(), plan.reference_ms), (3, NOW_MS));
    assert_eq!(scene.listed(), [ids[3], ids[4], ahead].into());
}
