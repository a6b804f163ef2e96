//! Clocks that are years off, of who forgets and of who backed up.

use cairn_engine::error::{Class, Explain as _};
use cairn_engine::ops::forget::{self, ForgetOptions};
use cairn_engine::retention::{Doubt, Reason, Verdict};

use super::{DAY_MS, NOW_MS, Scene, YEAR_MS, last, named, refused, verdict, within};

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
