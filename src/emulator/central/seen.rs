//! The requests that came, for tests to look at.

use std::collections::VecDeque;

/// Requests that are remembered; older ones are forgotten.
const REQUESTS_KEPT: usize = 10_000;

/// A request as the server saw it. The credentials are left out.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct SeenRequest {
    pub method: String,
    /// Path and query.
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
    /// What it was answered with, whether or not the answer arrived; 0 while it is held or left without one.
    pub status: u16,
    /// Number of the connection that it came over, from 1.
    pub connection: u64,
}

/// The newest requests, oldest first.
#[derive(Debug, Default)]
pub(super) struct Seen {
    requests: VecDeque<SeenRequest>,
    /// Requests that came before the oldest of them.
    forgotten: u64,
}

impl Seen {
    /// The remembered requests, oldest first.
    pub fn requests(&self) -> &VecDeque<SeenRequest> {
        &self.requests
    }

    /// Takes one more and gives its number.
    pub fn remember(&mut self, request: SeenRequest) -> u64 {
        if self.requests.len() == REQUESTS_KEPT {
            self.requests.pop_front();
            self.forgotten += 1;
        }
        self.requests.push_back(request);
        self.forgotten + self.requests.len() as u64 - 1
    }

    /// What a request of this number was answered with, late.
    pub fn settle(&mut self, number: u64, status: u16) {
        let at = number.checked_sub(self.forgotten).and_then(|at| usize::try_from(at).ok());
        if let Some(request) = at.and_then(|at| self.requests.get_mut(at)) {
            request.status = status;
        }
    }

    /// Forgets all of them; numbers stay unique.
    pub fn forget(&mut self) {
        self.forgotten += self.requests.len() as u64;
        self.requests.clear();
    }
}
