//! The emulated world: a Slurm and a central server for trying out, for tests and for CI. It shares no parsing, printing or
//! formula with the edges, so that their errors cannot cancel out.

pub mod central;
pub mod slurm;
