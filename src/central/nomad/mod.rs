//! Nomad Enterprise: quota specifications and their usages, with blocking queries.
//!
//! `wire.rs` turns specifications into `core` types (pure); `client.rs` has one verb per endpoint; `blocking.rs` follows
//! the list of quotas with blocking queries and says when it has changed.

mod blocking;
mod client;
pub mod wire;

pub use blocking::{FIRST_PAUSE, Followed, Follower, LONGEST_PAUSE};
pub use client::{Indexed, NomadClient, WAIT_MAX};
