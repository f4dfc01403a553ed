//! The one place that asks what time it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::core::time::Epoch;

/// Where "now" comes from.
#[derive(Debug, Clone)]
pub enum Clock {
    /// The machine's clock.
    System,
    /// An instant that only moves when it is told to: tests and the emulated world.
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// A clock that stands still at `now`.
    pub fn manual(now: Epoch) -> Clock {
        Clock::Manual(Arc::new(AtomicI64::new(now.0)))
    }

    /// Now, in whole seconds.
    pub fn now(&self) -> Epoch {
        match self {
            Clock::System => Epoch(jiff::Timestamp::now().as_second()),
            Clock::Manual(now) => Epoch(now.load(Ordering::SeqCst)),
        }
    }

    /// Moves a manual clock; the machine's clock is left alone.
    pub fn set(&self, now: Epoch) {
        if let Clock::Manual(instant) = self {
            instant.store(now.0, Ordering::SeqCst);
        }
    }
}
