//! Tests of decisions and plans; the expected numbers are computed by hand beside them.

mod agreement;
mod decisions;
mod own;
mod plans;
mod triage;
pub mod world;
