//! Clocks that are years off, of who forgets and of who backed up.

use cairn_engine::error::{Class, Explain as _};
use std::sync::Arc;

use cairn_engine::ops::forget::{self, ForgetOptions};
use cairn_engine::retention::{Age, Doubt, Period, Reason, Rule, Verdict};
use cairn_tests::lab::TestClock;

use super::{
    DAY_MS, NOW_MS, Scene, YEAR_MS, forget_in, last, named, refused, rules, verdict, within,
};

/// A clock that is ten years ahead makes nothing old; one that is ten years behind sees snapshots
/// in the future, and stops.
#[test]
fn clocks_that_are_off_by_ten_years_evict_nothing() {
    let (scene, ids) = Scene::with_days(75, 5);
    scene.lab.clock.set_ms(NOW_MS + 10 * YEAR_MS);
    let (plan, _) = scene.forget(&within(30)).expect("done");
    assert_eq!(plan.reference_ms, NOW_MS);
    assert!(ids.iter().all(|id| scene.listed().contains(id)));
    scene.lab.clock.set_ms(NOW_MS - 10 * YEAR_MS);
    let error = refused(&scene, &last(1));
    assert_eq!((error.class(), error.code()), (Class::Refused, "clock.future"));
    assert!(error.hint().is_some_and(|hint| hint.contains("--trust-clock")));
    // Five minutes are nothing to worry about.
    scene.lab.clock.set_ms(NOW_MS - 4 * 60 * 1_000);
    assert!(scene.forget(&last(5)).is_ok());
    scene.lab.clock.set_ms(NOW_MS - 6 * 60 * 1_000);
    assert_eq!(refused(&scene, &last(5)).code(), "clock.future");
}

/// A backup made while the clock was ten years ahead does not make the others old, neither then
/// nor when the clock is right again.
#[test]
fn a_backup_by_a_clock_ten_years_ahead_evicts_nothing() {
    let (scene, ids) = Scene::with_days(76, 40);
    let then_ms = NOW_MS + 10 * YEAR_MS;
    scene.lab.clock.set_ms(then_ms);
    let wrong = scene.put("owner", then_ms);
    let error = refused(&scene, &within(30));
    assert_eq!((error.class(), error.code()), (Class::Refused, "clock.gap"));
    // Another one an hour later changes nothing.
    scene.lab.clock.set_ms(then_ms + DAY_MS);
    scene.put("owner", then_ms + DAY_MS);
    assert_eq!(refused(&scene, &within(30)).code(), "clock.gap");
    let trusting = ForgetOptions { trust_clock: true, ..within(30) };
    let plan = forget::plan(&scene.as_key("owner"), &trusting).expect("a plan");
    assert_eq!(plan.kept(), 2);
    // The clock is right again.
    scene.lab.clock.set_ms(NOW_MS);
    let error = refused(&scene, &within(30));
    assert_eq!(error.code(), "clock.future");
    let plan = forget::plan(&scene.as_key("owner"), &trusting).expect("a plan");
    let future = Verdict::Keep(vec![Reason::Doubtful(Doubt::Future)]);
    assert_eq!(verdict(&plan, wrong), future);
    assert!(verdict(&plan, ids[20]).keeps() && !verdict(&plan, ids[0]).keeps());
    scene.forget(&named(&[wrong])).expect("what the hint says");
}

const MINUTE_MS: i64 = 60 * 1_000;

/// The clock of the host that backs up and forgets was set three weeks ahead. The store's was not.
#[test]
fn a_clock_that_differs_from_the_stores_stops_it() {
    let (scene, ids) = Scene::with_days(84, 40);
    let theirs = Arc::new(TestClock::starting_at(NOW_MS));
    let store = scene.odd().with_clock(theirs.clone());
    let then_ms = NOW_MS + 20 * DAY_MS;
    scene.lab.clock.set_ms(then_ms);
    let ahead = scene.put("owner", then_ms);
    let before = scene.store.names();
    let error = forget_in(&scene.over(&store), &within(14)).expect_err("it is refused");
    assert_eq!((error.class(), error.code()), (Class::Refused, "clock.skew"));
    assert!(error.to_string().contains("1728000 s ahead of"), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("--trust-clock")));
    assert_eq!(scene.store.names(), before);
    // Also a rule without ages, and the other way round; five minutes are nothing to worry about.
    for (their_ms, differs) in [
        (then_ms - 6 * MINUTE_MS, true),
        (then_ms - 4 * MINUTE_MS, false),
        (then_ms + 4 * MINUTE_MS, false),
        (then_ms + 6 * MINUTE_MS, true),
        (then_ms + 10 * YEAR_MS, true),
    ] {
        scene.lab.clock.set_ms(then_ms);
        theirs.set_ms(their_ms);
        let plan = forget::plan(&scene.over(&store), &last(1));
        assert_eq!(plan.is_err(), differs, "{their_ms}");
        if let Err(error) = plan {
            assert_eq!(error.code(), "clock.skew");
        }
    }
    // It was a pause: what the store's clock bears witness to counts, however long it is.
    theirs.set_ms(then_ms);
    let plan = forget::plan(&scene.over(&store), &within(14)).expect("a plan");
    assert_eq!((plan.kept(), plan.uncounted.len()), (1, 0));
    let later_ms = then_ms + 100 * DAY_MS;
    scene.lab.clock.set_ms(later_ms);
    theirs.set_ms(later_ms);
    let latest = scene.put("owner", later_ms);
    let plan = forget::plan(&scene.over(&store), &within(14)).expect("a plan");
    assert!(verdict(&plan, latest).keeps() && !verdict(&plan, ahead).keeps());
    // A person may say so in any case; a name is not a matter of time.
    theirs.set_ms(0);
    let trusting = ForgetOptions { trust_clock: true, ..within(14) };
    assert_eq!(forget::plan(&scene.over(&store), &trusting).expect("a plan").kept(), 1);
    forget_in(&scene.over(&store), &named(&ids[..1])).expect("it is named");
}

/// Where only this machine's clock is there, which was set three weeks ahead, what it has not seen
/// pass does not count: night after night what is kept are the nights that the rule says.
#[test]
fn a_jump_of_three_weeks_evicts_nothing() {
    let daily = rules(&[Rule::NewestWithin(Period::Daily, Age::days(14))]);
    for (seed, options) in [(85, within(14)), (86, daily)] {
        let (scene, mut ids) = Scene::with_days(seed, 40);
        scene.forget(&options).expect("as every night");
        for night in 1..=20 {
            let now_ms = NOW_MS + (20 + night) * DAY_MS;
            scene.lab.clock.set_ms(now_ms);
            ids.push(scene.put("owner", now_ms));
            let (plan, _) = scene.forget(&options).expect("as every night");
            let expected = ids[ids.len() - 15..].iter().copied().collect();
            assert_eq!(scene.listed(), expected, "night {night}");
            let uncounted = plan.uncounted.iter().map(|one| (one.from_ms, one.until_ms));
            let jump = (NOW_MS, NOW_MS + 21 * DAY_MS);
            let expected = if night <= 15 { vec![jump] } else { Vec::new() };
            assert_eq!(uncounted.collect::<Vec<_>>(), expected, "night {night}");
        }
    }
}

/// Somebody paused for three weeks, and a clock alone cannot tell that from a jump: nothing is
/// refused, and what is kept for longer goes when that is told, or in time.
#[test]
fn a_pause_of_three_weeks_is_no_nuisance() {
    let (scene, ids) = Scene::with_days(87, 40);
    let now_ms = NOW_MS + 21 * DAY_MS;
    scene.lab.clock.set_ms(now_ms);
    let newest = scene.put("owner", now_ms);
    let (plan, _) = scene.forget(&within(14)).expect("done");
    assert_eq!((plan.kept(), plan.uncounted.len()), (15, 1));
    // Numbers are not affected by it.
    let (plan, _) = scene.forget(&rules(&[Rule::Newest(Period::Daily, 10)])).expect("done");
    assert_eq!((plan.kept(), plan.uncounted.len()), (10, 0));
    assert!(scene.listed().contains(&ids[31]));
    let trusting = ForgetOptions { trust_clock: true, ..within(14) };
    scene.forget(&trusting).expect("done");
    assert_eq!(scene.listed(), [newest].into());
}

/// Weekly backups of several jobs, then weekends: what is usual is no silence.
#[test]
fn what_is_usual_counts() {
    let (scene, _) = Scene::with_days(88, 0);
    for week in (0..12).rev() {
        for job in ["a", "b", "c"] {
            let time_ms = NOW_MS - week * 7 * DAY_MS;
            scene.put_as("owner", time_ms, |record| job.clone_into(&mut record.job));
        }
    }
    let plan = forget::plan(&scene.as_key("owner"), &within(14)).expect("a plan");
    assert_eq!((plan.kept(), plan.uncounted.len()), (9, 0));
}
