//! The boundaries between the steps of a cycle: where a crash may happen.

/// A point after which something is durable, or between two such points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Policies, allocations and commands are here.
    Fetched,
    /// sacct has answered; nothing is stored.
    Collected,
    /// Job records and watermark are stored.
    Stored,
    /// Decisions are logged.
    Evaluated,
    /// The difference is known.
    Planned,
    /// The intent of a change is stored.
    Intended,
    /// sacctmgr has run.
    Ran,
    /// What is there has been read again.
    ReadBack,
    /// An outcome is stored.
    Settled,
    /// A verdict and its message are stored.
    Judged,
    /// Usage messages wait in the outbox.
    Enqueued,
    /// A server has a message; the store does not know yet.
    Told,
    /// The store knows.
    Delivered,
}

impl Step {
    /// Every step in order, for tests that stop at each.
    pub const ALL: [Step; 13] = [
        Step::Fetched,
        Step::Collected,
        Step::Stored,
        Step::Evaluated,
        Step::Planned,
        Step::Intended,
        Step::Ran,
        Step::ReadBack,
        Step::Settled,
        Step::Judged,
        Step::Enqueued,
        Step::Told,
        Step::Delivered,
    ];

    /// Marks that a step is done. A build with debug assertions ends the process as kill -9 does when
    /// `SITE_AGENT_KILL_AFTER` names the step, so that tests can crash anywhere; a release build only traces.
    pub fn passed(self) {
        tracing::trace!(step = ?self, "passed");
        #[cfg(debug_assertions)]
        if std::env::var("SITE_AGENT_KILL_AFTER").is_ok_and(|name| name == format!("{self:?}")) {
            let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
        }
    }
}
