//! The conductor: the only room that sees all edges. `cycle` is the straight line that a datum takes.

pub mod clock;
pub mod notify;
pub mod schedule;
pub mod signals;
