//! The clock of the emulated cluster: an instant that stands still until it is moved, or real time with an offset.
//!
//! This is the only file of the emulated Slurm that reads the real clock.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// How the emulated cluster knows what time it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Clock {
    /// Stands still at this second of the epoch until it is moved.
    Fixed(i64),
    /// Real time plus this many seconds.
    Offset(i64),
}

impl Clock {
    /// The current second of the epoch.
    pub fn now(self) -> i64 {
        match self {
            Clock::Fixed(at) => at,
            Clock::Offset(seconds) => Timestamp::now().as_second() + seconds,
        }
    }

    /// The same clock, moved by this many seconds (negative moves it back).
    pub fn moved_by(self, seconds: i64) -> Clock {
        match self {
            Clock::Fixed(at) => Clock::Fixed(at + seconds),
            Clock::Offset(offset) => Clock::Offset(offset + seconds),
        }
    }

    /// A clock of the same kind that shows `at` now.
    pub fn moved_to(self, at: i64) -> Clock {
        self.moved_by(at - self.now())
    }
}

impl Default for Clock {
    fn default() -> Self {
        Clock::Offset(0)
    }
}
