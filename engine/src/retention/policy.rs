//! The rules of a policy.

use std::fmt;

use jiff::tz::TimeZone;

use super::calendar::{Age, Period};
use super::error::RetentionError;

/// Tag of snapshots that every policy keeps.
pub const PIN: &str = "pin";

/// One reason for which snapshots stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The so many newest.
    Last(u32),
    /// The newest of each of the so many newest periods.
    Newest(Period, u32),
    /// Everything not older.
    Within(Age),
    /// The newest of each period among those not older.
    NewestWithin(Period, Age),
    /// Everything with this tag.
    Tag(String),
}

impl Rule {
    /// Stable name, as the option of `cairn forget` has it: `keep-within-monthly`.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Last(_) => "keep-last".to_owned(),
            Self::Newest(period, _) => format!("keep-{}", period.name()),
            Self::Within(_) => "keep-within".to_owned(),
            Self::NewestWithin(period, _) => format!("keep-within-{}", period.name()),
            Self::Tag(_) => "keep-tag".to_owned(),
        }
    }

    /// The age beyond which the rule keeps nothing.
    #[must_use]
    pub const fn age(&self) -> Option<Age> {
        match self {
            Self::Within(age) | Self::NewestWithin(_, age) => Some(*age),
            Self::Last(_) | Self::Newest(..) | Self::Tag(_) => None,
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.name())?;
        match self {
            Self::Last(count) | Self::Newest(_, count) => write!(f, "{count}"),
            Self::Within(age) | Self::NewestWithin(_, age) => age.fmt(f),
            Self::Tag(tag) => f.write_str(tag),
        }
    }
}

/// What is kept. A snapshot stays if any rule keeps it.
#[derive(Clone, Debug)]
pub struct Policy {
    rules: Vec<Rule>,
    zone: TimeZone,
}

impl Policy {
    /// These rules on the calendar of this zone.
    ///
    /// # Errors
    /// [`RetentionError::NoRule`]: a policy without rules keeps everything, so applying it is a
    /// mistake. [`RetentionError::Zero`]: a rule that keeps nothing is none.
    pub fn new(rules: Vec<Rule>, zone: TimeZone) -> Result<Self, RetentionError> {
        if rules.is_empty() {
            return Err(RetentionError::NoRule);
        }
        let zero = rules.iter().find(|rule| matches!(rule, Rule::Last(0) | Rule::Newest(_, 0)));
        if let Some(rule) = zero {
            return Err(RetentionError::Zero { rule: rule.name() });
        }
        Ok(Self { rules, zone })
    }

    /// The rules, in the order given.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The zone whose calendar counts.
    #[must_use]
    pub const fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// How far back from `reference_ms` its rules reach that go by age: milliseconds since 1970;
    /// nothing if none does.
    #[must_use]
    pub fn horizon_ms(&self, reference_ms: i64) -> Option<i64> {
        let ages = self.rules.iter().filter_map(Rule::age);
        ages.map(|age| age.before(reference_ms, &self.zone)).min()
    }
}
