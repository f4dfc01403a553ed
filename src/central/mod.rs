//! HTTP edge: the central servers.
//!
//! One folder per server ([`waldur`], [`amie`], [`nomad`], [`datarobot`]); [`Http`] is shared: one client, one retry loop, one limit on the
//! size of an answer. Shapes of the wire live in `wire.rs` and are turned into `core` types there and nowhere else.
//!
//! What this room does NOT do: it decides nothing, stores nothing and reads no clock; the time comes in with
//! [`Surroundings`]. It never runs what a server sends.
//!
//! What fails: see [`CentralError`]; its [`Class`] is all that a caller needs. Nothing is durable here. Every message
//! that is sent is absolute: sending it twice has the effect of once, so a lost answer is simply asked for again.

pub mod amie;
pub mod datarobot;
pub mod nomad;
pub mod waldur;

mod error;
mod http;
mod paged;
mod retry;
mod shape;

#[cfg(test)]
mod tests;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Once};
use std::time::Duration;

use serde_json::Value;

use crate::core::time::Epoch;

pub use error::{CentralError, Class, Place};
pub use http::{Answer, Call, Connection, Http, HttpSettings, USER_AGENT};
pub use retry::Repeat;

/// Installs the one TLS provider of the process (ring). Called by [`Http::new`]; calling it again does nothing.
pub fn init_tls() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if rustls::crypto::ring::default_provider().install_default().is_err() {
            tracing::debug!("a TLS provider was installed before; it stays");
        }
    });
}

/// The wall clock that answers are compared with.
pub type WallClock = Arc<dyn Fn() -> Epoch + Send + Sync>;

/// Waits for a duration between two attempts.
pub type Sleep = Arc<dyn Fn(Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// What a client takes from its surroundings: time, randomness, waiting.
#[derive(Clone)]
pub struct Surroundings {
    /// Wall clock, for the clock skew of the server.
    pub clock: WallClock,
    /// Seed of the jitter between attempts; any number, better a different one per process.
    pub jitter_seed: u64,
    /// How to wait.
    pub sleep: Sleep,
}

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings").field("jitter_seed", &self.jitter_seed).finish_non_exhaustive()
    }
}

/// What a server sent: the accepted part, what was said about the rest, and the rows as they came.
#[derive(Debug, Clone, PartialEq)]
pub struct Fetched<T> {
    /// What was understood.
    pub value: T,
    /// What was not, or looked odd. Empty in health.
    pub notices: Vec<Notice>,
    /// Every row as sent, rejected ones included, for people and `--json`.
    pub raw: Vec<Value>,
}

impl<T> Fetched<T> {
    /// Whether every row was accepted.
    pub fn is_complete(&self) -> bool {
        self.notices.iter().all(|notice| !notice.rejected)
    }
}

/// What became of rows that were turned into core types one by one.
fn converted<T, E: fmt::Display>(
    subject: &'static str,
    id: &str,
    raw: Vec<Value>,
    convert: impl Fn(&Value) -> Result<T, E>,
) -> Fetched<Vec<T>> {
    let (mut value, mut notices) = (Vec::new(), Vec::new());
    for (place, row) in raw.iter().enumerate() {
        match convert(row) {
            Ok(one) => value.push(one),
            Err(misfit) => {
                let named = row.get(id).and_then(Value::as_str).map(str::to_owned);
                notices.push(Notice {
                    subject,
                    id: named.unwrap_or_else(|| format!("row {}", place + 1)),
                    what: misfit.to_string(),
                    rejected: true,
                });
            }
        }
    }
    Fetched { value, notices, raw }
}

/// Something about one row that a person should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// `policy`, `resource`, `command`.
    pub subject: &'static str,
    /// The row's uuid; its place in the list where it has none.
    pub id: String,
    /// What is wrong, with the offending text.
    pub what: String,
    /// The row was left out: what is in force for it must stay in force.
    pub rejected: bool,
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let effect = if self.rejected { " (left out)" } else { "" };
        write!(f, "{} {}: {}{effect}", self.subject, self.id, self.what)
    }
}
