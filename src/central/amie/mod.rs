//! The AMIE (ACCESS) usage API: sending records, and asking what became of them.
//!
//! `wire.rs` has the shapes (pure), `batch.rs` packs records into messages (pure), `client.rs` has one verb per
//! endpoint. Accepted is not loaded: valid records are processed later, see `failed`, `usage_status` and `loaded`.

mod batch;
mod client;
pub mod wire;

pub use batch::messages;
pub use client::{AmieClient, AmieSettings, BatchReply, Rejection};
pub use wire::{FailedRecord, LoadedRecord, StatusError, StatusRow, record_json};
