pub mod agent;
pub mod central;
pub mod cli;
pub mod config;
pub mod core;
pub mod emulator;
pub mod slurm;
pub mod store;
