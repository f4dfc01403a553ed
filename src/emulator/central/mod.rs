//! The emulated central servers: Waldur's policy, resource and usage API under `/api/`, the AMIE Usage API under
//! `/amie/api/v1/`, and doors for tests under `/_emulator/`.
//!
//! Written from what the real servers do, with none of the agent's code, so that errors of one cannot hide errors of
//! the other. Each request is handled alone and in full: state kept in a file is on disk before the answer leaves.
//! What fails on purpose is in [`faults`]. Not here: TLS, anything beyond loopback, other endpoints of Waldur.

mod admin;
pub mod amie;
mod amount;
mod clock;
mod connection;
pub mod faults;
mod file;
mod http;
mod serve;
mod settle;
pub mod state;
#[cfg(test)]
mod tests;
mod tracked;
mod waldur;

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thiserror::Error;
use tokio_util::sync::CancellationToken;

pub use amount::Amount;
pub use clock::Clock;
pub use faults::{Fault, FaultKind, HistoryFault, RetryAfter};
pub use state::CentralState;
pub use waldur::period::{BillingPeriod, PolicyPeriod};

/// Requests that are remembered; older ones are forgotten.
const REQUESTS_KEPT: usize = 10_000;

/// What the emulated central server can fail at.
#[derive(Debug, Error)]
pub enum CentralServerError {
    #[error("cannot read the emulator's state {path}")]
    ReadState { path: PathBuf, source: io::Error },
    #[error("the emulator's state {path} is not understood")]
    ParseState { path: PathBuf, source: serde_json::Error },
    #[error("the emulator's state contradicts itself: {reason}")]
    InconsistentState { reason: String },
    #[error("cannot write the emulator's state {path}")]
    WriteState { path: PathBuf, source: io::Error },
    #[error("cannot serve the emulated central server")]
    Serve { source: io::Error },
}

/// A request as the server saw it. The credentials are left out.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct SeenRequest {
    pub method: String,
    /// Path and query.
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
    /// What it was answered with, whether or not the answer arrived.
    pub status: u16,
    /// Number of the connection that it came over, from 1.
    pub connection: u64,
}

/// What requests and tests share.
struct Shared {
    state: CentralState,
    seen: VecDeque<SeenRequest>,
    /// Where the state is kept, if it is.
    file: Option<PathBuf>,
    /// The state changed outside of a request and is not on disk yet.
    dirty: bool,
}

/// The emulated central server.
pub struct CentralServer {
    shared: Arc<Mutex<Shared>>,
}

impl CentralServer {
    /// A server whose state ends with it.
    ///
    /// # Panics
    /// When the state contradicts itself, which is a mistake in the test that wrote it.
    pub fn in_memory(state: CentralState) -> Self {
        match Self::new(state, None) {
            Ok(server) => server,
            Err(error) => panic!("{error}"),
        }
    }

    /// A server whose state is kept in a file, made from `seed` when there is none.
    ///
    /// # Errors
    /// When the file cannot be read, understood or written.
    pub fn in_file(path: &Path, seed: impl FnOnce() -> CentralState) -> Result<Self, CentralServerError> {
        let state = file::read(path)?.unwrap_or_else(seed);
        let server = Self::new(state, Some(path.to_owned()))?;
        file::write(path, &lock(&server.shared).state)?;
        Ok(server)
    }

    fn new(mut state: CentralState, file: Option<PathBuf>) -> Result<Self, CentralServerError> {
        state.settle().map_err(|reason| CentralServerError::InconsistentState { reason })?;
        let shared = Shared { state, seen: VecDeque::new(), file, dirty: false };
        Ok(Self { shared: Arc::new(Mutex::new(shared)) })
    }

    /// Serves until `stop` is cancelled; answers that are under way are finished first.
    ///
    /// # Errors
    /// When the listener fails for good.
    pub async fn serve(
        self,
        listener: tokio::net::TcpListener,
        stop: CancellationToken,
    ) -> Result<(), CentralServerError> {
        serve::serve(self.shared, listener, stop).await.map_err(|source| CentralServerError::Serve { source })
    }

    /// A door to the server for tests; stays open while it serves.
    pub fn handle(&self) -> CentralHandle {
        CentralHandle { shared: Arc::clone(&self.shared) }
    }
}

/// A door to a running server.
#[derive(Clone)]
pub struct CentralHandle {
    shared: Arc<Mutex<Shared>>,
}

impl CentralHandle {
    /// Reads or changes the state between two requests. What is added is completed as in a seed file; a state kept
    /// in a file is written before the next answer.
    ///
    /// # Panics
    /// When the changed state contradicts itself, which is a mistake in the test that changed it.
    pub fn with_state<R>(&self, act: impl FnOnce(&mut CentralState) -> R) -> R {
        let mut shared = lock(&self.shared);
        shared.dirty = true;
        let outcome = act(&mut shared.state);
        shared.state.amie.forget_index();
        if let Err(reason) = shared.state.settle() {
            panic!("{}", CentralServerError::InconsistentState { reason });
        }
        outcome
    }

    /// Writes a state that is kept in a file and was changed here, without waiting for a request.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn keep(&self) -> Result<(), CentralServerError> {
        let mut shared = lock(&self.shared);
        if let (true, Some(path)) = (shared.dirty, &shared.file) {
            file::write(path, &shared.state)?;
            shared.dirty = false;
        }
        Ok(())
    }

    /// The requests so far, oldest first.
    pub fn requests(&self) -> Vec<SeenRequest> {
        lock(&self.shared).seen.iter().cloned().collect()
    }

    /// Forgets the requests so far.
    pub fn forget_requests(&self) {
        lock(&self.shared).seen.clear();
    }

    /// Adds a fault behind those that are there.
    pub fn push_fault(&self, fault: Fault) {
        self.with_state(|state| state.faults.push(fault));
    }

    /// Moves the server's clock by so many seconds.
    pub fn advance(&self, seconds: i64) {
        self.with_state(|state| state.clock.advance(seconds));
    }

    /// Runs the server's background work now: commands for changed settings and new periods, restrictions that are
    /// over, AMIE records that are due.
    pub fn tick(&self) {
        self.with_state(tick);
    }
}

fn tick(state: &mut CentralState) {
    waldur::tick(state);
    let now = state.now();
    state.amie.load_due(now);
}

/// The shared state. A panic in a test's closure leaves it as it was at that moment, which is all a test can ask.
fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
