//! Instants and half-open windows, in whole seconds as Slurm counts.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Seconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub i64);

impl Epoch {
    /// This instant and `seconds` more (fewer when negative).
    pub fn plus(self, seconds: i64) -> Epoch {
        Epoch(self.0.saturating_add(seconds))
    }

    /// Seconds from `earlier` to this instant; negative when it lies before.
    pub fn since(self, earlier: Epoch) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Epoch {
    /// RFC 3339 in UTC, such as `2026-11-22T06:00:00Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_second(self.0) {
            Ok(instant) => f.pad(&instant.to_string()),
            Err(_) => write!(f, "@{}", self.0),
        }
    }
}

/// `from` belongs to the window, `until` does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Window {
    /// First second inside.
    pub from: Epoch,
    /// First second after.
    pub until: Epoch,
}

impl Window {
    /// A window; empty when `until` is not after `from`.
    pub fn new(from: Epoch, until: Epoch) -> Self {
        Self { from, until }
    }

    /// Whether the instant lies in it.
    pub fn contains(self, instant: Epoch) -> bool {
        self.from <= instant && instant < self.until
    }

    /// Length in seconds, 0 when empty.
    pub fn seconds(self) -> u64 {
        u64::try_from(self.until.since(self.from)).unwrap_or(0)
    }

    /// The part that both have; empty when there is none.
    pub fn overlap(self, other: Window) -> Window {
        Window { from: self.from.max(other.from), until: self.until.min(other.until) }
    }
}
