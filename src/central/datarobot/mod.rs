//! DataRobot: quota templates and quotas.
//!
//! `wire.rs` turns rows into `core` types and changes into bodies (pure); `list.rs` reads paged lists as a whole;
//! `client.rs` has one verb per endpoint.

mod client;
mod list;
pub mod wire;

pub use client::{DataRobotClient, QuotaChange, QuotasOf};
