//! What a caller does about a failure at an edge.

/// Retries, exit codes and dead letters look at nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// An outage: the same request may work later. What is in force stays in force.
    Transient,
    /// It was understood and refused; the same request will be refused again.
    Refused,
    /// A person has to change something.
    Misconfigured,
    /// The answer or file cannot be trusted; nothing is decided on it.
    Corrupt,
}
