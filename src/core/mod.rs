//! Pure domain: no async, no I/O, no clock, no randomness, no logging, no wire shapes.
//!
//! Everything here is a function of its arguments; `tests/architecture.rs` keeps it so.

pub mod allocation;
pub mod amie;
pub mod association;
pub mod class;
pub mod command;
pub mod component;
pub mod desired;
pub mod evaluate;
pub mod exact;
pub mod job;
pub mod name;
pub mod own;
pub mod period;
pub mod plan;
pub mod policy;
pub mod preview;
pub mod quota;
pub mod quota_map;
pub mod quota_rules;
pub mod report;
pub mod settled;
pub mod small_map;
pub mod time;
pub mod tres;
pub mod usage;
pub mod windows;

#[cfg(test)]
mod tests;
