//! Calendar periods: half-open, in a named time zone, with the names the central server uses.

use std::fmt;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::time::{Epoch, Window};

/// How long a budget lasts. The numbers on Waldur's wire are 1 total, 2 month, 3 quarter, 4 year.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PeriodKind {
    /// One budget for ever.
    Total,
    /// Calendar months.
    Month,
    /// January to March and so on.
    Quarter,
    /// Calendar years.
    Year,
}

impl PeriodKind {
    /// Months in one, `None` for total.
    fn months(self) -> Option<i8> {
        match self {
            PeriodKind::Total => None,
            PeriodKind::Month => Some(1),
            PeriodKind::Quarter => Some(3),
            PeriodKind::Year => Some(12),
        }
    }
}

/// One period of a calendar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Period {
    /// Its kind.
    pub kind: PeriodKind,
    /// `2026-11`, `2026-Q4`, `2026` or `total`.
    pub name: String,
    /// Its first second; 1970 for total.
    pub start: Epoch,
    /// Its first second after; `None` for total.
    pub end: Option<Epoch>,
}

/// An instant beyond the calendar that the time library knows (years -9999 to 9999).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the instant {0:?} lies outside the calendar")]
pub struct CalendarError(pub Epoch);

impl Period {
    /// The period of `kind` that contains `instant` on the calendar of `zone`.
    pub fn containing(kind: PeriodKind, instant: Epoch, zone: &TimeZone) -> Result<Period, CalendarError> {
        let Some(months) = kind.months() else {
            return Ok(Period { kind, name: "total".into(), start: Epoch(0), end: None });
        };
        let outside = |_| CalendarError(instant);
        let local = jiff::Timestamp::from_second(instant.0).map_err(outside)?.to_zoned(zone.clone()).date();
        let first_month = (local.month() - 1) / months * months + 1;
        let first = Date::new(local.year(), first_month, 1).map_err(outside)?;
        let after = first.checked_add(jiff::Span::new().months(months)).map_err(outside)?;
        let midnight = |date: Date| -> Result<Epoch, CalendarError> {
            Ok(Epoch(
                zone.to_zoned(date.to_datetime(jiff::civil::Time::midnight()))
                    .map_err(outside)?
                    .timestamp()
                    .as_second(),
            ))
        };
        let name = match kind {
            PeriodKind::Total | PeriodKind::Year => format!("{:04}", first.year()),
            PeriodKind::Month => format!("{:04}-{:02}", first.year(), first.month()),
            PeriodKind::Quarter => format!("{:04}-Q{}", first.year(), (first.month() - 1) / 3 + 1),
        };
        Ok(Period { kind, name, start: midnight(first)?, end: Some(midnight(after)?) })
    }

    /// The one before; `None` for total.
    pub fn previous(&self, zone: &TimeZone) -> Option<Period> {
        self.end?;
        Period::containing(self.kind, self.start.plus(-1), zone).ok()
    }

    /// The one after; `None` for total.
    pub fn next(&self, zone: &TimeZone) -> Option<Period> {
        Period::containing(self.kind, self.end?, zone).ok()
    }

    /// Its seconds. Total ends where time does.
    pub fn window(&self) -> Window {
        Window::new(self.start, self.end.unwrap_or(Epoch(i64::MAX)))
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn zone(name: &str) -> TimeZone {
        TimeZone::get(name).unwrap()
    }

    fn at(text: &str) -> Epoch {
        Epoch(text.parse::<jiff::Timestamp>().unwrap().as_second())
    }

    #[test]
    fn periods_have_the_servers_names() {
        let now = at("2026-11-22T06:00:00Z");
        for (kind, name) in [
            (PeriodKind::Total, "total"),
            (PeriodKind::Month, "2026-11"),
            (PeriodKind::Quarter, "2026-Q4"),
            (PeriodKind::Year, "2026"),
        ] {
            assert_eq!(Period::containing(kind, now, &TimeZone::UTC).unwrap().name, name);
        }
    }

    #[test]
    fn a_month_with_the_clock_set_back_is_an_hour_longer() {
        let october =
            Period::containing(PeriodKind::Month, at("2026-10-10T00:00:00Z"), &zone("Europe/Berlin"))
                .unwrap();
        assert_eq!(october.start, at("2026-09-30T22:00:00Z"));
        assert_eq!(october.end, Some(at("2026-10-31T23:00:00Z")));
        assert_eq!(october.window().seconds(), 31 * 86400 + 3600);
    }

    #[test]
    fn a_month_whose_first_midnight_does_not_exist_begins_at_the_first_second_that_does() {
        // In Paraguay 2017-10-01 began at 01:00.
        let october =
            Period::containing(PeriodKind::Month, at("2017-10-10T00:00:00Z"), &zone("America/Asuncion"))
                .unwrap();
        assert_eq!(october.start, at("2017-10-01T04:00:00Z"));
    }

    proptest! {
        #[test]
        fn periods_tile_time(seconds in 0i64..4_000_000_000, kind in 1usize..4, place in 0usize..5) {
            let zone = zone(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Pacific/Apia"][place]);
            let kind = [PeriodKind::Total, PeriodKind::Month, PeriodKind::Quarter, PeriodKind::Year][kind];
            let period = Period::containing(kind, Epoch(seconds), &zone).unwrap();
            prop_assert!(period.window().contains(Epoch(seconds)));
            let next = period.next(&zone).unwrap();
            prop_assert_eq!(Some(next.start), period.end);
            prop_assert_eq!(next.previous(&zone).unwrap(), period);
        }
    }
}
