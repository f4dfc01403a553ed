//! The Slurm site agent: THE MAP.
//!
//! # Bird's eye view
//!
//! A central portal grants compute time; this program makes it true on one Slurm cluster and tells the portal what was used.
//!
//! ```text
//! gather facts -> decide with pure functions -> compare with what is there -> change the difference,
//! intent stored first -> read back -> result and report stored in one transaction -> deliver
//! ```
//!
//! # The path of one job record
//!
//! | step | where | durable after it |
//! |---|---|---|
//! | 1 policies, allocations, commands | [`agent::facts`] through [`central`] | snapshot, inbox |
//! | 2, 3 sacct into the ledger | [`agent::ledger`] through [`slurm::sacct`] and [`store`] | job records, watermark |
//! | 6 accounts as they are | [`slurm::sacctmgr`] | nothing |
//! | 4 totals of the periods in use | [`agent::judge`] with [`core::usage`] | nothing |
//! | 5 a decision for every allocation | [`core::evaluate`] | decision log |
//! | 7 the difference | [`core::desired`], [`core::plan`] | nothing |
//! | 8 to 11 intent, sacctmgr, read back, outcome | [`agent::apply`] | intent, outcome |
//! | verdicts on commands | [`agent::orders`] with [`core::command`] | verdict and its message |
//! | usage of allocations | [`agent::tell`] | outbox |
//! | AMIE records, sent, and read back | [`agent::amie`] with [`core::amie`] | versions and states of records |
//! | 12 deliver | [`agent::deliver`] through [`central`] | told |
//!
//! [`agent::cycle`] has one call per step, in this order. Timer, signal, start-up and `--evaluate-now` all call it.
//!
//! # Code map
//!
//! - [`core`]: pure domain. No async, I/O, clock, randomness, logging.
//! - [`slurm`], [`central`], [`filesystem`], [`store`]: edges. They never import each other.
//! - [`emulator`]: an emulated Slurm and an emulated central server, sharing no code with the edges.
//! - [`agent`]: the conductor, the only room that sees all edges.
//! - [`config`]: what is written becomes what is checked.
//! - [`cli`]: one file per verb.
//!
//! # Invariants, told as absences
//!
//! - No `sacctmgr` argument vector without a named account: [`core::name::Names`] cannot be empty.
//! - No change without a stored intent, no outcome without reading back.
//! - No account is changed on facts that are missing, stale or incomplete, and `root` never.
//! - Nothing that cannot be parsed becomes 0.
//! - No secret in an argument vector, a log line, an error or the printed configuration.
//!
//! `tests/architecture.rs` keeps the rooms apart.

pub mod agent;
pub mod central;
pub mod cli;
pub mod config;
pub mod core;
pub mod emulator;
pub mod filesystem;
pub mod slurm;
pub mod store;
