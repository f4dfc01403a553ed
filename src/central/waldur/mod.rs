//! Waldur Mastermind: SLURM periodic usage policies, provider resources, command history, component usages.
//!
//! `wire.rs` turns rows into `core` types and messages into bodies (pure); `list.rs` reads paged lists as a whole;
//! `client.rs` has one verb per endpoint. Field names and types: the public Python client `waldur-api-client` 8.1.3.

mod client;
mod list;
pub mod wire;

pub use client::{WaldurClient, WaldurSettings};
