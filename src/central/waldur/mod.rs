//! Waldur Mastermind: SLURM periodic usage policies, provider resources, command history, component usages; quotas.
//!
//! `wire.rs` turns rows into `core` types and messages into bodies (pure); `list.rs` reads paged lists as a whole;
//! `client.rs` has one verb per endpoint, `usage_rows.rs` remembers where users' parts of a usage go, `quotas.rs` those of `/api/quotas/`. Field names and types: the public Python client `waldur-api-client` 8.1.3.

mod client;
mod list;
mod quotas;
mod usage_rows;
pub mod wire;

pub use client::{WaldurClient, WaldurSettings};
pub use quotas::{
    HISTORY_POINTS_MAX, HistoryPoint, HistoryPoints, QuotaFilter, QuotaWrite, WaldurQuotaClient, Written,
};
