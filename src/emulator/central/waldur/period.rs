//! Billing periods as Waldur names and counts them: calendar months, quarters, years or all time, in UTC.

use std::fmt;

use jiff::civil::{Date, date};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How long a policy's period is. On the wire 1, 2, 3, 4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyPeriod {
    Total,
    Month,
    Quarter,
    Year,
}

impl PolicyPeriod {
    /// From the number on the wire.
    pub fn from_number(number: i64) -> Option<Self> {
        match number {
            1 => Some(Self::Total),
            2 => Some(Self::Month),
            3 => Some(Self::Quarter),
            4 => Some(Self::Year),
            _ => None,
        }
    }

    /// From the `limit_period` of an offering component.
    pub fn from_limit_period(name: &str) -> Option<Self> {
        match name {
            "total" => Some(Self::Total),
            "month" => Some(Self::Month),
            "quarterly" => Some(Self::Quarter),
            "annual" => Some(Self::Year),
            _ => None,
        }
    }

    /// The number on the wire.
    pub fn number(self) -> u8 {
        match self {
            Self::Total => 1,
            Self::Month => 2,
            Self::Quarter => 3,
            Self::Year => 4,
        }
    }

    /// `period_name` of a policy.
    pub fn label(self) -> &'static str {
        match self {
            Self::Total => "Total",
            Self::Month => "1 month",
            Self::Quarter => "3 month",
            Self::Year => "12 month",
        }
    }

    /// The period that holds a day.
    pub fn containing(self, day: Date) -> BillingPeriod {
        let start = match self {
            Self::Total => return BillingPeriod { kind: self, start: Date::ZERO },
            Self::Month => day.first_of_month(),
            Self::Quarter => date(day.year(), (day.month() - 1) / 3 * 3 + 1, 1),
            Self::Year => date(day.year(), 1, 1),
        };
        BillingPeriod { kind: self, start }
    }
}

impl Serialize for PolicyPeriod {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(self.number())
    }
}

impl<'de> Deserialize<'de> for PolicyPeriod {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = i64::deserialize(deserializer)?;
        Self::from_number(number)
            .ok_or_else(|| serde::de::Error::custom(format!("period is 1, 2, 3 or 4, not {number}")))
    }
}

/// One period of the calendar. Displays as Waldur names it: `2026-11`, `2026-Q4`, `2026`, `total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BillingPeriod {
    kind: PolicyPeriod,
    start: Date,
}

impl BillingPeriod {
    /// First and last day; none for `total`.
    pub fn days(self) -> Option<(Date, Date)> {
        let months = match self.kind {
            PolicyPeriod::Total => return None,
            PolicyPeriod::Month => 1,
            PolicyPeriod::Quarter => 3,
            PolicyPeriod::Year => 12,
        };
        let last_month = shift_months(self.start, months - 1);
        Some((self.start, last_month.last_of_month()))
    }

    /// The period before; none for `total`.
    pub fn previous(self) -> Option<Self> {
        let (start, _) = self.days()?;
        Some(self.kind.containing(shift_months(start, -1)))
    }
}

impl fmt::Display for BillingPeriod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month) = (self.start.year(), self.start.month());
        match self.kind {
            PolicyPeriod::Total => f.write_str("total"),
            PolicyPeriod::Month => write!(f, "{year}-{month:02}"),
            PolicyPeriod::Quarter => write!(f, "{year}-Q{}", (month - 1) / 3 + 1),
            PolicyPeriod::Year => write!(f, "{year}"),
        }
    }
}

/// The first day of the month so many months away; years stay within the calendar's range.
fn shift_months(day: Date, months: i32) -> Date {
    let index = i32::from(day.year()) * 12 + i32::from(day.month()) - 1 + months;
    let year = i16::try_from(index.div_euclid(12)).unwrap_or(day.year());
    let month = i8::try_from(index.rem_euclid(12) + 1).unwrap_or(day.month());
    Date::new(year, month, 1).unwrap_or(day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_are_named_bounded_and_preceded_as_the_calendar_says() {
        let cases = [
            (
                PolicyPeriod::Month,
                date(2026, 1, 31),
                "2026-01",
                (date(2026, 1, 1), date(2026, 1, 31)),
                "2025-12",
            ),
            (
                PolicyPeriod::Month,
                date(2028, 2, 29),
                "2028-02",
                (date(2028, 2, 1), date(2028, 2, 29)),
                "2028-01",
            ),
            (
                PolicyPeriod::Quarter,
                date(2026, 11, 22),
                "2026-Q4",
                (date(2026, 10, 1), date(2026, 12, 31)),
                "2026-Q3",
            ),
            (
                PolicyPeriod::Quarter,
                date(2026, 3, 31),
                "2026-Q1",
                (date(2026, 1, 1), date(2026, 3, 31)),
                "2025-Q4",
            ),
            (PolicyPeriod::Year, date(2026, 11, 22), "2026", (date(2026, 1, 1), date(2026, 12, 31)), "2025"),
        ];
        for (kind, day, name, days, previous) in cases {
            let period = kind.containing(day);
            assert_eq!(period.to_string(), name);
            assert_eq!(period.days(), Some(days), "{name}");
            assert_eq!(period.previous().map(|p| p.to_string()).as_deref(), Some(previous), "{name}");
        }
        let total = PolicyPeriod::Total.containing(date(2026, 11, 22));
        assert_eq!((total.to_string().as_str(), total.days(), total.previous()), ("total", None, None));
    }
}
