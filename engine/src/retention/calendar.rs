//! Periods and ages on a calendar.

use std::fmt;
use std::str::FromStr;

use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, Zoned};

use super::error::RetentionError;

/// Classes of periods, shortest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Period {
    /// Hours of the clock.
    Hourly,
    /// Days, from midnight.
    Daily,
    /// ISO weeks, from Monday.
    Weekly,
    /// Months.
    Monthly,
    /// Years.
    Yearly,
}

impl Period {
    /// All, shortest first.
    pub const ALL: [Self; 5] =
        [Self::Hourly, Self::Daily, Self::Weekly, Self::Monthly, Self::Yearly];

    /// Its name as part of a rule's: `daily`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Yearly => "yearly",
        }
    }

    /// The period a time lies in, for people: `2026-11-21`, `2026-W47`, `2026-11`. Two times are
    /// in the same period exactly if these are equal.
    #[must_use]
    pub fn label(self, time_ms: i64, zone: &TimeZone) -> String {
        let time = zoned(time_ms, zone);
        match self {
            // With the offset, as one hour comes twice when the clock is set back.
            Self::Hourly => time.strftime("%F %H:00 %:z").to_string(),
            Self::Daily => time.strftime("%F").to_string(),
            Self::Weekly => {
                let week = time.date().iso_week_date();
                format!("{:04}-W{:02}", week.year(), week.week())
            }
            Self::Monthly => time.strftime("%Y-%m").to_string(),
            Self::Yearly => time.strftime("%Y").to_string(),
        }
    }

    /// Equal for two times exactly if they are in the same period.
    pub(super) fn key(self, time_ms: i64, zone: &TimeZone) -> PeriodKey {
        let time = zoned(time_ms, zone);
        let date = time.date();
        let (year, month) = (i32::from(date.year()), i32::from(date.month()));
        let day = i32::from(date.day());
        match self {
            Self::Hourly => {
                PeriodKey([year, month, day, i32::from(time.hour()), time.offset().seconds()])
            }
            Self::Daily => PeriodKey([year, month, day, 0, 0]),
            Self::Weekly => {
                let week = date.iso_week_date();
                PeriodKey([i32::from(week.year()), i32::from(week.week()), 0, 0, 0])
            }
            Self::Monthly => PeriodKey([year, month, 0, 0, 0]),
            Self::Yearly => PeriodKey([year, 0, 0, 0, 0]),
        }
    }
}

/// Names one period of a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct PeriodKey([i32; 5]);

/// A time on a calendar; one that no calendar has is the nearest it has (years -9999 to 9999).
pub(super) fn zoned(time_ms: i64, zone: &TimeZone) -> Zoned {
    let nearest = if time_ms < 0 { Timestamp::MIN } else { Timestamp::MAX };
    Timestamp::from_millisecond(time_ms).unwrap_or(nearest).to_zoned(zone.clone())
}

/// The time zone of a name: `UTC`, `local` for this machine's, or one like `Europe/Berlin`.
///
/// # Errors
/// [`RetentionError::Zone`] when this machine does not know it.
pub fn zone(name: &str) -> Result<TimeZone, RetentionError> {
    match name {
        "local" => Ok(TimeZone::system()),
        "UTC" | "utc" => Ok(TimeZone::UTC),
        _ => TimeZone::get(name).map_err(|_| RetentionError::Zone { name: name.to_owned() }),
    }
}

/// Most units of one kind in an age: what a calendar can hold without overflow.
const AGE_UNITS_MAX: u32 = 100_000;

/// How old something may be, on a calendar: `36h`, `30d`, `2w`, `12mo`, `1y`, `1y6mo`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Age {
    years: u32,
    months: u32,
    weeks: u32,
    days: u32,
    hours: u32,
}

impl Age {
    /// So many hours.
    #[must_use]
    pub fn hours(hours: u32) -> Self {
        Self { hours: hours.min(AGE_UNITS_MAX), ..Self::default() }
    }

    /// So many days.
    #[must_use]
    pub fn days(days: u32) -> Self {
        Self { days: days.min(AGE_UNITS_MAX), ..Self::default() }
    }

    /// So many months.
    #[must_use]
    pub fn months(months: u32) -> Self {
        Self { months: months.min(AGE_UNITS_MAX), ..Self::default() }
    }

    /// The time so long before another, milliseconds; the earliest there is if no calendar
    /// reaches back so far.
    #[must_use]
    pub fn before(self, time_ms: i64, zone: &TimeZone) -> i64 {
        self.times(1)
            .and_then(|span| zoned(time_ms, zone).checked_sub(span).ok())
            .map_or(i64::MIN, |time| time.timestamp().as_millisecond())
    }

    /// The time `count` times so long after another; nothing beyond the calendar's end.
    #[must_use]
    pub(super) fn after(self, count: u32, time_ms: i64, zone: &TimeZone) -> Option<i64> {
        let time = zoned(time_ms, zone).checked_add(self.times(count)?).ok()?;
        Some(time.timestamp().as_millisecond())
    }

    fn times(self, count: u32) -> Option<Span> {
        let scaled = |units: u32| i64::from(units) * i64::from(count);
        Span::new()
            .try_years(scaled(self.years))
            .and_then(|span| span.try_months(scaled(self.months)))
            .and_then(|span| span.try_weeks(scaled(self.weeks)))
            .and_then(|span| span.try_days(scaled(self.days)))
            .and_then(|span| span.try_hours(scaled(self.hours)))
            .ok()
    }

    fn unit(&mut self, name: &str) -> Option<&mut u32> {
        Some(match name {
            "y" => &mut self.years,
            "mo" => &mut self.months,
            "w" => &mut self.weeks,
            "d" => &mut self.days,
            "h" => &mut self.hours,
            _ => return None,
        })
    }
}

impl FromStr for Age {
    type Err = RetentionError;

    fn from_str(text: &str) -> Result<Self, RetentionError> {
        let fail = |problem| RetentionError::Age { text: text.to_owned(), problem };
        let mut age = Self::default();
        let mut rest = text.trim();
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let (number, after) = rest.split_at(digits);
            let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
            let (unit, after) = after.split_at(letters);
            rest = after;
            let number = number.parse::<u32>().ok().filter(|number| *number <= AGE_UNITS_MAX);
            let number =
                number.ok_or_else(|| fail("a number up to 100000 must stand before each unit"))?;
            let slot = age.unit(unit).ok_or_else(|| {
                fail("its units are h, d, w, mo (months) and y, as in 30d or 1y6mo")
            })?;
            if *slot != 0 {
                return Err(fail("a unit stands twice"));
            }
            *slot = number;
        }
        if age == Self::default() {
            return Err(fail("it is no time at all"));
        }
        Ok(age)
    }
}

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [
            (self.years, "y"),
            (self.months, "mo"),
            (self.weeks, "w"),
            (self.days, "d"),
            (self.hours, "h"),
        ];
        for (number, unit) in units.into_iter().filter(|(number, _)| *number > 0) {
            write!(f, "{number}{unit}")?;
        }
        Ok(())
    }
}
