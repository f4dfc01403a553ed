//! The one place that asks what time it is, and waits for it to pass.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::core::time::Epoch;

/// Time that passes while something is done, whatever the wall clock does: for rates and pauses, never for a decision.
#[derive(Debug)]
pub struct Stopwatch(std::time::Instant);

impl Stopwatch {
    /// Starts it.
    pub fn start() -> Stopwatch {
        Stopwatch(std::time::Instant::now())
    }

    /// How long it has run.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Where "now" comes from.
#[derive(Clone)]
pub enum Clock {
    /// The machine's clock.
    System,
    /// An instant that only moves when it is told to: tests.
    Manual(Arc<AtomicI64>),
    /// The emulated world's.
    Emulated(Arc<dyn Fn() -> Epoch + Send + Sync>),
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Clock::System => "System",
            Clock::Manual(_) => "Manual",
            Clock::Emulated(_) => "Emulated",
        })
    }
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
            Clock::Emulated(now) => now(),
        }
    }

    /// Waits that long. A manual clock does not wait: its time moves only when it is told to.
    pub async fn wait(&self, span: Duration) {
        if !matches!(self, Clock::Manual(_)) {
            tokio::time::sleep(span).await;
        }
    }

    /// Moves a manual clock; the others go by themselves.
    pub fn set(&self, now: Epoch) {
        if let Clock::Manual(instant) = self {
            instant.store(now.0, Ordering::SeqCst);
        }
    }
}
