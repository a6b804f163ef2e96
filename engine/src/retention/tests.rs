use cairn_format::ids::SnapshotId;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use proptest::prelude::*;

use super::*;

const HOUR_MS: i64 = 60 * 60 * 1_000;
const DAY_MS: i64 = 24 * HOUR_MS;

fn ms(time: &str) -> i64 {
    time.parse::<Timestamp>().unwrap().as_millisecond()
}

fn id(number: u32) -> SnapshotId {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    SnapshotId::from_bytes(bytes)
}

fn at(number: u32, time_ms: i64) -> Candidate {
    let (tags, standing) = (Vec::new(), Standing::Acknowledged);
    Candidate { id: id(number), time_ms, tags, standing }
}

fn series(times: impl IntoIterator<Item = i64>) -> Vec<Candidate> {
    (0..).zip(times).map(|(number, time_ms)| at(number, time_ms)).collect()
}

fn policy(rules: &[Rule]) -> Policy {
    Policy::new(rules.to_vec(), TimeZone::UTC).unwrap()
}

/// Applies at the time of the newest; returns what stays.
fn kept(policy: &Policy, candidates: &[Candidate]) -> Vec<Candidate> {
    let reference_ms = candidates.iter().map(|one| one.time_ms).max().unwrap_or_default();
    kept_at(policy, reference_ms, candidates)
}

fn kept_at(policy: &Policy, reference_ms: i64, candidates: &[Candidate]) -> Vec<Candidate> {
    let verdicts = apply(policy, reference_ms, candidates, false);
    let pairs = candidates.iter().zip(verdicts);
    pairs.filter(|(_, verdict)| verdict.keeps()).map(|(one, _)| one.clone()).collect()
}

fn labels(candidates: &[Candidate], period: Period) -> Vec<String> {
    candidates.iter().map(|one| period.label(one.time_ms, &TimeZone::UTC)).collect()
}

#[test]
fn an_empty_policy_and_one_that_keeps_nothing_are_refused() {
    let error = Policy::new(Vec::new(), TimeZone::UTC).unwrap_err();
    assert_eq!(error, RetentionError::NoRule);
    for rule in [Rule::Last(0), Rule::Newest(Period::Daily, 0)] {
        let error = Policy::new(vec![Rule::Last(1), rule], TimeZone::UTC).unwrap_err();
        assert!(matches!(error, RetentionError::Zero { .. }), "{error}");
    }
}

#[test]
fn ages_are_read_and_written() {
    for text in ["36h", "30d", "2w", "12mo", "1y", "1y6mo", "1y2mo3w4d5h"] {
        assert_eq!(text.parse::<Age>().unwrap().to_string(), text);
    }
    assert_eq!(" 1d12h ".parse::<Age>().unwrap().to_string(), "1d12h");
    for text in
        ["", "30", "d", "0d", "30m", "1d1d", "-1d", "1.5d", "1 d", "99999999999d", "100001d", "30D"]
    {
        assert!(text.parse::<Age>().is_err(), "{text}");
    }
}

#[test]
fn ages_go_by_the_calendar() {
    let before = |age: &str, time: &str, zone: &str| {
        let zone = super::zone(zone).unwrap();
        let time_ms = age.parse::<Age>().unwrap().before(ms(time), &zone);
        Timestamp::from_millisecond(time_ms).unwrap().to_string()
    };
    assert_eq!(before("1mo", "2026-03-31T12:00:00Z", "UTC"), "2026-02-28T12:00:00Z");
    assert_eq!(before("1y", "2028-02-29T00:00:00Z", "UTC"), "2027-02-28T00:00:00Z");
    assert_eq!(before("1d", "2026-03-30T01:00:00Z", "UTC"), "2026-03-29T01:00:00Z");
    // On 29 March clocks in Berlin were set forward: the day had 23 hours.
    assert_eq!(before("1d", "2026-03-29T21:00:00Z", "Europe/Berlin"), "2026-03-28T22:00:00Z");
    assert_eq!(Age::days(100_000).before(i64::MIN, &TimeZone::UTC), i64::MIN);
    assert!(super::zone("Nowhere/Land").is_err());
}

#[test]
fn periods_are_those_of_the_calendar() {
    let berlin = super::zone("Europe/Berlin").unwrap();
    let label = |period: Period, time: &str| period.label(ms(time), &berlin);
    // 1 January 2027 is a Friday of week 53 of 2026.
    assert_eq!(label(Period::Weekly, "2027-01-01T12:00:00Z"), "2026-W53");
    assert_eq!(label(Period::Daily, "2026-12-31T23:30:00Z"), "2027-01-01");
    assert_eq!(label(Period::Yearly, "2026-12-31T23:30:00Z"), "2027");
    assert_eq!(label(Period::Monthly, "2026-10-31T22:59:00Z"), "2026-10");
    // The hour from two to three comes twice.
    let first = label(Period::Hourly, "2026-10-25T00:30:00Z");
    let second = label(Period::Hourly, "2026-10-25T01:30:00Z");
    assert!(first.starts_with("2026-10-25 02:00") && second.starts_with("2026-10-25 02:00"));
    assert_ne!(first, second);
}

#[test]
fn an_hour_a_year_keeps_what_a_person_expects() {
    let start_ms = ms("2025-01-01T00:00:00Z");
    let hours = series((0..366 * 24).map(|hour| start_ms + hour * HOUR_MS));
    let hourly = kept(&policy(&[Rule::Newest(Period::Hourly, 24)]), &hours);
    assert_eq!(hourly.len(), 24);
    assert_eq!(hourly.first().unwrap().time_ms, ms("2026-01-01T00:00:00Z"));
    let daily = kept(&policy(&[Rule::Newest(Period::Daily, 30)]), &hours);
    assert_eq!(daily.len(), 30);
    assert_eq!(daily.first().unwrap().time_ms, ms("2025-12-03T23:00:00Z"));
    assert_eq!(daily.last().unwrap().time_ms, ms("2026-01-01T23:00:00Z"));
    let weekly = kept(&policy(&[Rule::Newest(Period::Weekly, 2)]), &hours);
    let expected = [ms("2025-12-28T23:00:00Z"), ms("2026-01-01T23:00:00Z")];
    assert_eq!(weekly.iter().map(|one| one.time_ms).collect::<Vec<_>>(), expected);
    let monthly = kept(&policy(&[Rule::Newest(Period::Monthly, 12)]), &hours);
    let months = labels(&monthly, Period::Monthly);
    assert_eq!(months.first().unwrap(), "2025-02");
    assert_eq!(months.last().unwrap(), "2026-01");
    assert_eq!(labels(&monthly[..1], Period::Daily), ["2025-02-28"]);
    let yearly = kept(&policy(&[Rule::Newest(Period::Yearly, 5)]), &hours);
    assert_eq!(labels(&yearly, Period::Daily), ["2025-12-31", "2026-01-01"]);
    // Within 30 days everything, then one a month for a year.
    let both = [Rule::Within(Age::days(30)), Rule::NewestWithin(Period::Monthly, Age::months(12))];
    let both = kept(&policy(&both), &hours);
    assert_eq!(both.len(), 30 * 24 + 1 + 11);
    assert_eq!(labels(&both[..1], Period::Daily), ["2025-01-31"]);
    assert_eq!(kept(&policy(&[Rule::Last(3)]), &hours).len(), 3);
}

#[test]
fn periods_without_a_snapshot_do_not_count() {
    let sparse = series([0, 40, 80, 120].map(|day| day * DAY_MS));
    assert_eq!(kept(&policy(&[Rule::Newest(Period::Daily, 3)]), &sparse).len(), 3);
}

#[test]
fn the_boundary_of_an_age_stays() {
    let edge = series([0, 1, 30 * DAY_MS]);
    assert_eq!(kept(&policy(&[Rule::Within(Age::days(30))]), &edge).len(), 3);
    let past = series([-1, 0, 30 * DAY_MS]);
    assert_eq!(kept(&policy(&[Rule::Within(Age::days(30))]), &past).len(), 2);
}

#[test]
fn tags_pins_and_the_newest_stay() {
    let mut some = series([0, DAY_MS, 2 * DAY_MS]);
    some[0].tags = vec!["other".to_owned(), PIN.to_owned()];
    let verdicts = apply(&policy(&[Rule::Tag("release".to_owned())]), 9, &some, false);
    assert_eq!(verdicts[0], Verdict::Keep(vec![Reason::Pinned]));
    assert_eq!(verdicts[1], Verdict::Go(Cause::Beyond));
    assert_eq!(verdicts[2], Verdict::Keep(vec![Reason::Newest]));
    some[1].tags = vec!["release".to_owned()];
    let verdicts = apply(&policy(&[Rule::Tag("release".to_owned())]), 9, &some, true);
    assert!(verdicts[1].keeps());
    assert_eq!(verdicts[2], Verdict::Go(Cause::Beyond));
}

#[test]
fn the_cause_names_the_one_that_is_kept_instead() {
    let some = series([0, HOUR_MS, 2 * HOUR_MS]);
    let rules = [Rule::Newest(Period::Monthly, 1), Rule::Newest(Period::Daily, 1)];
    let verdicts = apply(&policy(&rules), 2 * HOUR_MS, &some, false);
    let period = "1970-01-01".to_owned();
    assert_eq!(verdicts[0], Verdict::Go(Cause::Superseded { by: id(2), period }));
}

#[test]
fn what_is_not_acknowledged_pushes_out_nothing_and_goes_when_no_rule_would_keep_it() {
    let day = |day: i64| day * DAY_MS;
    let mut some = series([day(0), day(1), day(2), day(3), day(4) - 1]);
    some[1].standing = Standing::Unacknowledged;
    some[3].standing = Standing::Unacknowledged;
    let two = policy(&[Rule::Last(2)]);
    let verdicts = apply(&two, day(4) - 1, &some, false);
    assert_eq!(verdicts[0], Verdict::Go(Cause::Beyond));
    assert_eq!(verdicts[1], Verdict::Go(Cause::Unacknowledged));
    assert!(verdicts[2].keeps() && verdicts[4].keeps(), "two that count");
    assert_eq!(verdicts[3], Verdict::Keep(vec![Reason::Unacknowledged]), "it would be kept");
    // A young one is left alone.
    some[1].time_ms = day(4) - 1 - UNACKNOWLEDGED_GRACE_MS;
    let verdicts = apply(&policy(&[Rule::Last(1)]), day(4) - 1, &some, false);
    assert!(verdicts[1].keeps());
    some[1].time_ms -= 1;
    let verdicts = apply(&policy(&[Rule::Last(1)]), day(4) - 1, &some, false);
    assert!(!verdicts[1].keeps());
}

#[test]
fn doubtful_dates_push_out_nothing() {
    let mut some = series([0, DAY_MS, 2 * DAY_MS]);
    for doubt in [Doubt::Future, Doubt::Backwards, Doubt::Late] {
        some[2].standing = Standing::Doubtful(doubt);
        let verdicts = apply(&policy(&[Rule::Last(1)]), 2 * DAY_MS, &some, false);
        assert_eq!(verdicts[2], Verdict::Keep(vec![Reason::Doubtful(doubt)]));
        assert!(verdicts[1].keeps() && !verdicts[0].keeps());
    }
}

#[test]
fn a_simulation_ends_and_keeps_what_the_rules_say() {
    let simulation = Simulation { start_ms: 0, every: Age::hours(1), length: Age::months(13) };
    let rules = [Rule::Newest(Period::Daily, 7), Rule::Newest(Period::Monthly, 12)];
    let (kept, backups) = simulate(&policy(&rules), &simulation).unwrap();
    assert_eq!(backups, (365 + 31) * 24 + 1);
    // It ends at midnight of 1 February: the newest of both this month and the last is also the
    // newest of a day.
    assert_eq!(kept.len(), 7 + 12 - 2);
    assert!(kept.is_sorted_by_key(|one| one.time_ms));
    let endless = Simulation { every: Age::hours(1), length: Age::days(100_000), ..simulation };
    assert!(simulate(&policy(&rules), &endless).is_err());
}

fn a_rule() -> impl Strategy<Value = Rule> {
    let period = proptest::sample::select(&Period::ALL[..]);
    let age = prop_oneof![
        (1_u32..200).prop_map(Age::hours),
        (1_u32..60).prop_map(Age::days),
        (1_u32..8).prop_map(Age::months),
    ];
    prop_oneof![
        (1_u32..9).prop_map(Rule::Last),
        (period.clone(), 1_u32..9).prop_map(|(period, count)| Rule::Newest(period, count)),
        age.clone().prop_map(Rule::Within),
        (period, age).prop_map(|(period, age)| Rule::NewestWithin(period, age)),
        proptest::sample::select(vec!["a", "b"]).prop_map(|tag| Rule::Tag(tag.to_owned())),
    ]
}

fn a_policy() -> impl Strategy<Value = Policy> {
    let zones = ["UTC", "Europe/Berlin", "Asia/Kolkata", "America/St_Johns"];
    let zone = proptest::sample::select(zones.to_vec());
    (proptest::collection::vec(a_rule(), 1..4), zone)
        .prop_map(|(rules, zone)| Policy::new(rules, super::zone(zone).unwrap()).unwrap())
}

/// Up to 60 snapshots from one to many hours apart, oldest first, some with tags.
fn a_series() -> impl Strategy<Value = Vec<Candidate>> {
    let gap = prop_oneof![1..3 * HOUR_MS, HOUR_MS..3 * DAY_MS, DAY_MS..50 * DAY_MS];
    let tag = proptest::option::weighted(0.1, proptest::sample::select(vec!["a", "b", PIN]));
    proptest::collection::vec((gap, tag), 0..60).prop_map(|steps| {
        let mut time_ms = ms("2024-02-27T00:00:00Z");
        let step = |(number, (gap_ms, tag)): (u32, (i64, Option<&str>))| {
            time_ms += gap_ms;
            Candidate { tags: tag.map(str::to_owned).into_iter().collect(), ..at(number, time_ms) }
        };
        (0..).zip(steps).map(step).collect()
    })
}

fn is_within(part: &[Candidate], whole: &[Candidate]) -> bool {
    part.iter().all(|one| whole.contains(one))
}

proptest! {
    #[test]
    fn more_rules_never_remove_more(some in a_series(), policy in a_policy(), more in a_rule()) {
        let rules = [policy.rules(), &[more]].concat();
        let wider = Policy::new(rules, policy.zone().clone()).unwrap();
        prop_assert!(is_within(&kept(&policy, &some), &kept(&wider, &some)));
    }

    #[test]
    fn larger_numbers_never_remove_more(some in a_series(), policy in a_policy()) {
        let larger = policy.rules().iter().map(|rule| match rule {
            Rule::Last(count) => Rule::Last(count + 1),
            Rule::Newest(period, count) => Rule::Newest(*period, count + 1),
            other => other.clone(),
        });
        let larger = Policy::new(larger.collect(), policy.zone().clone()).unwrap();
        prop_assert!(is_within(&kept(&policy, &some), &kept(&larger, &some)));
    }

    #[test]
    fn applied_again_it_removes_nothing_more(some in a_series(), policy in a_policy()) {
        let once = kept(&policy, &some);
        prop_assert_eq!(kept(&policy, &once), once);
    }

    #[test]
    fn the_order_of_a_listing_plays_no_part(
        (some, shuffled) in a_series().prop_flat_map(|some| (Just(some.clone()), Just(some).prop_shuffle())),
        policy in a_policy(),
    ) {
        let mut other = kept(&policy, &shuffled);
        other.sort_by_key(|one| (one.time_ms, one.id));
        prop_assert_eq!(kept(&policy, &some), other);
    }

    #[test]
    fn applied_after_every_backup_it_keeps_the_same_as_once(some in a_series(), policy in a_policy()) {
        let mut left = Vec::new();
        for one in &some {
            left.push(one.clone());
            left = kept(&policy, &left);
        }
        prop_assert_eq!(left, kept(&policy, &some));
    }

    #[test]
    fn what_is_kept_is_kept_when_others_are_not_seen(
        some in a_series(),
        policy in a_policy(),
        seen in proptest::collection::vec(any::<bool>(), 60),
    ) {
        let pairs = some.iter().zip(&seen);
        let part = pairs.filter(|(_, seen)| **seen).map(|(one, _)| one.clone()).collect::<Vec<_>>();
        let whole = kept(&policy, &some);
        let still = kept(&policy, &part);
        for one in part.iter().filter(|one| whole.contains(one)) {
            prop_assert!(still.contains(one), "{:?}", one);
        }
    }

    #[test]
    fn the_newest_and_the_pinned_always_stay(some in a_series(), policy in a_policy()) {
        let left = kept(&policy, &some);
        prop_assert_eq!(left.last(), some.last());
        let pinned = |some: &[Candidate]| some.iter().filter(|one| one.tags.contains(&PIN.to_owned())).count();
        prop_assert_eq!(pinned(&left), pinned(&some));
    }

    #[test]
    fn what_does_not_count_changes_nothing_for_what_does(
        some in a_series(),
        others in a_series(),
        policy in a_policy(),
        doubtful in any::<bool>(),
    ) {
        let standing =
            if doubtful { Standing::Doubtful(Doubt::Late) } else { Standing::Unacknowledged };
        let others = others.into_iter().map(|one| Candidate {
            id: id(u32::from_be_bytes(*one.id.as_bytes().first_chunk().unwrap()) + 1_000),
            standing,
            ..one
        });
        let both = some.iter().cloned().chain(others).collect::<Vec<_>>();
        let reference_ms = some.last().map_or(0, |newest| newest.time_ms);
        let mut left = kept_at(&policy, reference_ms, &both);
        left.retain(|one| one.standing == Standing::Acknowledged);
        prop_assert_eq!(left, kept(&policy, &some));
    }

    #[test]
    fn any_dates_are_survived(times in proptest::collection::vec(any::<i64>(), 0..9), policy in a_policy()) {
        let some = series(times);
        let left = kept(&policy, &some);
        prop_assert!(some.is_empty() || !left.is_empty());
    }
}
