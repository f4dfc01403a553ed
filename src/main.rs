//! Parse arguments, dispatch, map the ending to an exit code. Nothing else.

use clap::Parser;
use slurm_site_agent::agent::error::chain;
use slurm_site_agent::cli::{Cli, render, run};

fn main() -> std::process::ExitCode {
    match run(Cli::parse()) {
        Ok(exit) => std::process::ExitCode::from(exit as u8),
        Err(error) => {
            render::error(&chain(&error));
            std::process::ExitCode::from(error.exit() as u8)
        }
    }
}
