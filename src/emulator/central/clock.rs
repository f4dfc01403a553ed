//! The emulated server's clock: a fixed instant that tests move, or real time with an offset.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// What the emulated server takes for "now".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Clock {
    /// Stands still until it is moved.
    Fixed(Timestamp),
    /// Real time plus so many seconds.
    OffsetS(i64),
}

impl Default for Clock {
    fn default() -> Self {
        Clock::OffsetS(0)
    }
}

impl Clock {
    /// The emulated instant. Out-of-range offsets stop at the ends of the calendar.
    pub fn now(&self) -> Timestamp {
        match *self {
            Clock::Fixed(instant) => instant,
            Clock::OffsetS(seconds) => saturating_add(Timestamp::now(), seconds),
        }
    }

    /// The emulated calendar day; the server lives in UTC.
    pub fn today(&self) -> Date {
        day_of(self.now())
    }

    /// Moves the clock by so many seconds, backwards too.
    pub fn advance(&mut self, seconds: i64) {
        match self {
            Clock::Fixed(instant) => *instant = saturating_add(*instant, seconds),
            Clock::OffsetS(offset) => *offset = offset.saturating_add(seconds),
        }
    }
}

/// The day of an instant in UTC.
pub(super) fn day_of(instant: Timestamp) -> Date {
    instant.to_zoned(TimeZone::UTC).date()
}

/// `instant` moved by seconds, kept inside the calendar.
pub(super) fn saturating_add(instant: Timestamp, seconds: i64) -> Timestamp {
    instant.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(if seconds < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    })
}

/// An instant as Django REST framework prints it: UTC with `Z`, six digits of fraction or none.
pub(super) fn wire_instant(instant: Timestamp) -> String {
    let format =
        if instant.subsec_nanosecond() == 0 { "%Y-%m-%dT%H:%M:%SZ" } else { "%Y-%m-%dT%H:%M:%S.%6fZ" };
    instant.strftime(format).to_string()
}
