//! A policy applied to one series of snapshots.

use std::collections::HashMap;
use std::fmt;

use cairn_format::ids::SnapshotId;

use super::UNACKNOWLEDGED_GRACE_MS;
use super::calendar::{Period, PeriodKey};
use super::policy::{PIN, Policy, Rule};
use super::silence::Ages;

/// Why a date is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// It lies in the future.
    Future,
    /// It lies before that of a snapshot its writer made earlier.
    Backwards,
    /// The snapshot appeared after newer ones of its writer had been seen without it.
    Late,
}

impl Doubt {
    /// Stable name for scripts.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Future => "date-future",
            Self::Backwards => "date-backwards",
            Self::Late => "date-late",
        }
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Future => "its date is in the future: it counts for no rule",
            Self::Backwards => "its date is before its predecessor's: it counts for no rule",
            Self::Late => "it appeared later than its date says: it counts for no rule",
        })
    }
}

/// Whether a snapshot counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It counts.
    Acknowledged,
    /// Its backup has not, or not yet, reported success, or it was forgotten halfway.
    Unacknowledged,
    /// Its date is not believed.
    Doubtful(Doubt),
}

/// What rules look at in a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The snapshot; decides between equal times.
    pub id: SnapshotId,
    /// When it was committed, milliseconds since 1970.
    pub time_ms: i64,
    /// Its tags.
    pub tags: Vec<String>,
    /// Whether it counts.
    pub standing: Standing,
}

/// Why a snapshot stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A rule keeps it.
    Rule {
        /// The rule.
        rule: Rule,
        /// Its place among what the rule keeps, the newest being 1; for rules that count.
        nth: Option<u32>,
        /// The period whose newest it is, for rules with periods.
        period: Option<String>,
    },
    /// It carries the tag [`PIN`].
    Pinned,
    /// It is the newest acknowledged snapshot of its series, which always stays.
    Newest,
    /// It is not acknowledged, and too young to be an orphan, or such that a rule would keep it.
    Unacknowledged,
    /// Its date is not believed.
    Doubtful(Doubt),
}

impl Reason {
    /// Stable name for scripts: the rule's, or `pin`, `newest`, `unacknowledged`, `date-...`.
    #[must_use]
    pub fn code(&self) -> String {
        match self {
            Self::Rule { rule, .. } => rule.name(),
            Self::Pinned => "pin".to_owned(),
            Self::Newest => "newest".to_owned(),
            Self::Unacknowledged => "unacknowledged".to_owned(),
            Self::Doubtful(doubt) => doubt.code().to_owned(),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule { rule: Rule::Last(count), nth: Some(nth), .. } => {
                write!(f, "keep-last {nth}/{count}")
            }
            Self::Rule { rule: Rule::Newest(period, count), nth: Some(nth), .. } => {
                write!(f, "keep-{} {nth}/{count}", period.name())
            }
            Self::Rule { rule, .. } => rule.fmt(f),
            Self::Pinned => f.write_str("tag pin"),
            Self::Newest => f.write_str("the last one acknowledged"),
            Self::Unacknowledged => f.write_str("not acknowledged: it counts for no rule"),
            Self::Doubtful(doubt) => doubt.fmt(f),
        }
    }
}

/// Why a snapshot goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A newer one of the same period is kept.
    Superseded {
        /// The newer one.
        by: SnapshotId,
        /// The period, for people.
        period: String,
    },
    /// It is older than, or more than, any rule reaches.
    Beyond,
    /// It was never acknowledged, or forgotten halfway, and no rule would keep it.
    Unacknowledged,
    /// It was named.
    Named,
    /// An erasure made it anew without what was erased, and the new one is acknowledged.
    MadeAnew {
        /// The new one.
        by: SnapshotId,
    },
}

impl Cause {
    /// Stable name for scripts.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Superseded { .. } => "superseded",
            Self::Beyond => "beyond",
            Self::Unacknowledged => "unacknowledged",
            Self::Named => "named",
            Self::MadeAnew { .. } => "made-anew",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Superseded { by, period } => {
                write!(f, "{} is newer and kept for {period}", by.short())
            }
            Self::Beyond => f.write_str("no rule reaches it"),
            Self::Unacknowledged => f.write_str("not acknowledged, and no rule would keep it"),
            Self::Named => f.write_str("named"),
            Self::MadeAnew { by } => write!(f, "an erasure made {} of it", by.short()),
        }
    }
}

/// What happens to a snapshot, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It stays, for at least one reason.
    Keep(Vec<Reason>),
    /// It goes.
    Go(Cause),
}

impl Verdict {
    /// Whether it stays.
    #[must_use]
    pub const fn keeps(&self) -> bool {
        matches!(self, Self::Keep(_))
    }
}

/// Applies a policy to one series; the verdicts stand in the order of the candidates, whose order
/// plays no part. Ages are counted back from `reference_ms`. Unless `newest_may_go`, the newest
/// snapshot that counts stays whatever the rules say.
#[must_use]
pub fn apply(
    policy: &Policy,
    reference_ms: i64,
    candidates: &[Candidate],
    newest_may_go: bool,
) -> Vec<Verdict> {
    apply_by(policy, &Ages::since(reference_ms), candidates, newest_may_go)
}

/// As [`apply`], with ages that leave out what no backup bears witness to.
#[must_use]
pub fn apply_by(
    policy: &Policy,
    ages: &Ages,
    candidates: &[Candidate],
    newest_may_go: bool,
) -> Vec<Verdict> {
    let counted = Ranked::of(candidates, |standing| standing == Standing::Acknowledged);
    let kept = counted.reasons(policy, ages, newest_may_go);
    let heads = counted.heads(policy, &kept);
    // Beside those that count, and never against them: what would be if it were acknowledged.
    let imagined = Ranked::of(candidates, |standing| !matches!(standing, Standing::Doubtful(_)));
    let imagined = imagined.reasons(policy, ages, true);
    let grace_ms = ages.reference_ms.saturating_sub(UNACKNOWLEDGED_GRACE_MS);
    let mut verdicts = Vec::with_capacity(candidates.len());
    for (index, candidate) in candidates.iter().enumerate() {
        let reasons = |of: &[Vec<Reason>]| of.get(index).cloned().unwrap_or_default();
        verdicts.push(match candidate.standing {
            Standing::Doubtful(doubt) => Verdict::Keep(vec![Reason::Doubtful(doubt)]),
            Standing::Unacknowledged
                if candidate.time_ms >= grace_ms || !reasons(&imagined).is_empty() =>
            {
                Verdict::Keep(vec![Reason::Unacknowledged])
            }
            Standing::Unacknowledged => Verdict::Go(Cause::Unacknowledged),
            Standing::Acknowledged => match reasons(&kept) {
                none if none.is_empty() => Verdict::Go(cause(policy, candidate, &heads)),
                reasons => Verdict::Keep(reasons),
            },
        });
    }
    verdicts
}

/// Some of the candidates, newest first.
struct Ranked<'a> {
    candidates: &'a [Candidate],
    order: Vec<usize>,
}

impl<'a> Ranked<'a> {
    fn of(candidates: &'a [Candidate], counts: impl Fn(Standing) -> bool) -> Self {
        let mut order = (0..candidates.len())
            .filter(|index| candidates.get(*index).is_some_and(|one| counts(one.standing)))
            .collect::<Vec<_>>();
        order.sort_by_key(|index| {
            std::cmp::Reverse(candidates.get(*index).map(|one| (one.time_ms, one.id)))
        });
        Self { candidates, order }
    }

    fn newest_first(&self) -> impl Iterator<Item = (usize, &'a Candidate)> {
        self.order.iter().filter_map(|index| Some((*index, self.candidates.get(*index)?)))
    }

    /// For each candidate, why it stays; nothing for one that goes or does not count.
    fn reasons(&self, policy: &Policy, ages: &Ages, newest_may_go: bool) -> Vec<Vec<Reason>> {
        let mut reasons = vec![Vec::new(); self.candidates.len()];
        let mut keep = |index: usize, reason| {
            if let Some(reasons) = reasons.get_mut(index) {
                reasons.push(reason);
            }
        };
        for rule in policy.rules() {
            self.by_rule(policy, rule, ages, &mut keep);
        }
        for (index, candidate) in self.newest_first() {
            if candidate.tags.iter().any(|tag| tag == PIN) {
                keep(index, Reason::Pinned);
            }
        }
        if let Some(newest) = self.order.first()
            && !newest_may_go
            && let Some(reasons) = reasons.get_mut(*newest)
            && reasons.is_empty()
        {
            reasons.push(Reason::Newest);
        }
        reasons
    }

    fn by_rule(
        &self,
        policy: &Policy,
        rule: &Rule,
        ages: &Ages,
        keep: &mut impl FnMut(usize, Reason),
    ) {
        let plain = |nth| Reason::Rule { rule: rule.clone(), nth, period: None };
        match rule {
            Rule::Last(count) => {
                for ((index, _), nth) in self.newest_first().zip(1..=*count) {
                    keep(index, plain(Some(nth)));
                }
            }
            Rule::Within(age) => {
                let reach = ages.reach(*age, None, policy.zone());
                for (index, _) in
                    self.newest_first().take_while(|(_, one)| reach.holds(one.time_ms))
                {
                    keep(index, plain(None));
                }
            }
            Rule::Tag(tag) => {
                for (index, _) in self.newest_first().filter(|(_, one)| one.tags.contains(tag)) {
                    keep(index, plain(None));
                }
            }
            Rule::Newest(period, count) => {
                for ((index, one), nth) in self.newest_of_each(policy, *period).zip(1..=*count) {
                    let period = Some(period.label(one.time_ms, policy.zone()));
                    keep(index, Reason::Rule { rule: rule.clone(), nth: Some(nth), period });
                }
            }
            Rule::NewestWithin(period, age) => {
                let reach = ages.reach(*age, Some(*period), policy.zone());
                let young = self
                    .newest_of_each(policy, *period)
                    .take_while(|(_, one)| reach.holds(one.time_ms));
                for (index, one) in young {
                    let period = Some(period.label(one.time_ms, policy.zone()));
                    keep(index, Reason::Rule { rule: rule.clone(), nth: None, period });
                }
            }
        }
    }

    /// The newest of each period in which there is one.
    fn newest_of_each(
        &self,
        policy: &Policy,
        period: Period,
    ) -> impl Iterator<Item = (usize, &'a Candidate)> {
        let mut last = None::<PeriodKey>;
        self.newest_first().filter(move |(_, one)| {
            let key = period.key(one.time_ms, policy.zone());
            last.replace(key) != Some(key)
        })
    }

    /// For every class of periods that a rule goes by, shortest first: the snapshot kept as the
    /// newest of each period.
    fn heads(
        &self,
        policy: &Policy,
        kept: &[Vec<Reason>],
    ) -> Vec<(Period, HashMap<PeriodKey, SnapshotId>)> {
        let mut classes = policy
            .rules()
            .iter()
            .filter_map(|rule| match rule {
                Rule::Newest(period, _) | Rule::NewestWithin(period, _) => Some(*period),
                Rule::Last(_) | Rule::Within(_) | Rule::Tag(_) => None,
            })
            .collect::<Vec<_>>();
        classes.sort_unstable();
        classes.dedup();
        let heads = |period| {
            self.newest_of_each(policy, period)
                .filter(|(index, _)| {
                    let reasons = kept.get(*index).map(Vec::as_slice).unwrap_or_default();
                    reasons.iter().any(|reason| is_of_period(reason, period))
                })
                .map(|(_, one)| (period.key(one.time_ms, policy.zone()), one.id))
                .collect()
        };
        classes.into_iter().map(|period| (period, heads(period))).collect()
    }
}

/// Why one goes that no rule keeps.
fn cause(
    policy: &Policy,
    candidate: &Candidate,
    heads: &[(Period, HashMap<PeriodKey, SnapshotId>)],
) -> Cause {
    heads
        .iter()
        .find_map(|(period, heads)| {
            let by = *heads.get(&period.key(candidate.time_ms, policy.zone()))?;
            let period = period.label(candidate.time_ms, policy.zone());
            (by != candidate.id).then_some(Cause::Superseded { by, period })
        })
        .unwrap_or(Cause::Beyond)
}

fn is_of_period(reason: &Reason, period: Period) -> bool {
    match reason {
        Reason::Rule { rule: Rule::Newest(of, _) | Rule::NewestWithin(of, _), .. } => *of == period,
        _ => false,
    }
}
