//! The emulated central servers: Waldur's policy, resource, usage and quota API under `/api/`, the AMIE Usage API under
//! `/amie/api/v1/`, Nomad's quotas under `/nomad/v1/`, DataRobot's under `/api/v2/`, and doors for tests under
//! `/_emulator/`.
//!
//! Written from what the real servers do, with none of the agent's code, so that errors of one cannot hide errors of
//! the other. Each request is handled alone and in full: state kept in a file is on disk before the answer leaves.
//! What fails on purpose is in [`faults`]. Not here: TLS, anything beyond loopback, other endpoints of Waldur.

mod admin;
pub mod amie;
mod amount;
mod clock;
mod connection;
pub mod datarobot;
pub mod faults;
mod file;
mod http;
pub mod nomad;
mod seen;
mod serve;
mod settle;
pub mod state;
#[cfg(test)]
mod tests;
mod tracked;
mod waldur;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thiserror::Error;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use amount::Amount;
pub use clock::Clock;
use nomad::Pulse;
use seen::Seen;

pub use faults::{Fault, FaultKind, HistoryFault, RetryAfter};
pub use seen::SeenRequest;
pub use state::CentralState;
pub use waldur::period::{BillingPeriod, PolicyPeriod};
pub use waldur::quotas::{Follows, Quota, QuotaVersion};

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

/// What requests and tests share.
struct Shared {
    state: CentralState,
    seen: Seen,
    /// Where the state is kept, if it is.
    file: Option<PathBuf>,
    /// The state changed outside of a request and is not on disk yet.
    dirty: bool,
    /// Tells held queries of what they wait for.
    changes: watch::Sender<Pulse>,
    /// Queries that are held now, and ever were.
    holding: Arc<AtomicUsize>,
    queries_held: u64,
}

impl Shared {
    /// Wakes held queries if anything changed that one of them may wait for.
    fn tell_held(&self) {
        let now = self.state.nomad.pulse();
        self.changes.send_if_modified(|told| std::mem::replace(told, now) != now);
    }
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
        let changes = watch::Sender::new(state.nomad.pulse());
        let (seen, holding) = (Seen::default(), Arc::default());
        let shared = Shared { state, seen, file, dirty: false, changes, holding, queries_held: 0 };
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
        shared.tell_held();
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
        lock(&self.shared).seen.requests().iter().cloned().collect()
    }

    /// Forgets the requests so far.
    pub fn forget_requests(&self) {
        lock(&self.shared).seen.forget();
    }

    /// How many blocking queries are held now.
    pub fn queries_held(&self) -> usize {
        lock(&self.shared).holding.load(Ordering::SeqCst)
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
