//! Tests of decisions and plans; the expected numbers are computed by hand beside them.

mod decisions;
mod plans;
mod triage;
mod world;
