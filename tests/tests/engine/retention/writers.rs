//! Keys that sign what they please: whose snapshots and dates affect whose.

use cairn_engine::ops::forget::{self, ForgetOptions};
use cairn_engine::retention::{Cause, Doubt, Period, Reason, Rule, Verdict};

use super::{DAY_MS, NOW_MS, Scene, last, named, rules, verdict};

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
