//! The command line: one file per verb, [`render`] for tables and JSON.
//!
//! Verbs only read what an operator asks and show what the agent found; what is done is done in `agent`.

mod amie;
mod backfill;
mod check;
mod confirm;
mod daemon;
mod emulate;
pub mod evaluate_now;
mod explain;
mod history;
mod ledger;
pub mod log;
mod policy;
pub mod render;
mod status;
mod usage;
mod world;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::agent::error::{AgentError, Exit};
use crate::config::{self, CONFIG_PATH, Config};
use crate::core::name::AccountName;

/// Makes the compute time that a central portal grants true on a Slurm cluster, and reports what was used.
///
/// Without a verb it is the daemon: it polls the sources of its configuration, collects jobs, decides, applies and
/// reports until it is told to stop (TERM drains, HUP reads the configuration again, USR1 evaluates now).
#[derive(Debug, Parser)]
#[command(name = "slurm-site-agent", version, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    common: Common,
    /// Run one cycle and print what was found and done.
    #[arg(long)]
    evaluate_now: bool,
    #[command(flatten)]
    evaluate: EvaluateArgs,
    #[command(subcommand)]
    verb: Option<Verb>,
}

/// What every verb takes.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// The configuration.
    #[arg(long, global = true, default_value = CONFIG_PATH, value_name = "FILE")]
    pub config: PathBuf,
    /// Emulated Slurm and server with shipped data instead of real ones; needs no root and no configuration.
    #[arg(long, global = true)]
    pub emulator: bool,
    /// Where the emulated world keeps its state [default: ~/.local/state/slurm-site-agent/emulator].
    #[arg(long, global = true, value_name = "DIR")]
    pub emulator_state: Option<PathBuf>,
    /// Print JSON instead of tables.
    #[arg(long, global = true)]
    pub json: bool,
}

/// Of --evaluate-now.
#[derive(Debug, Clone, Args)]
pub struct EvaluateArgs {
    /// Change only this account.
    #[arg(long, requires = "evaluate_now", value_name = "NAME", value_parser = account)]
    account: Option<AccountName>,
    /// Stop before anything is changed or sent; works beside a running daemon.
    #[arg(long, requires = "evaluate_now")]
    dry_run: bool,
    /// Read the job records of all open periods again.
    #[arg(long, requires = "evaluate_now")]
    deep: bool,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Check the configuration: every problem at once, nothing is contacted.
    ///
    /// With --print the whole configuration is printed with every default; it parses back to the same.
    ///
    /// Example: slurm-site-agent check-config --config ./new.toml
    CheckConfig {
        /// Print the configuration as understood.
        #[arg(long)]
        print: bool,
    },
    /// Allow what waits for an operator: a plan that would tighten many accounts at once, or usage that would shrink.
    ///
    /// `status` shows the plan and its name. The word holds for that very plan: another one waits again.
    ///
    /// With --usage, a total that is smaller than what the server was told, without a known reason, is told after all.
    /// Without a name it lists what waits and allows nothing. The word holds for what is shown: a total that shrinks
    /// further waits again.
    ///
    /// Examples:
    ///   slurm-site-agent confirm 9f86d081884c7d65
    ///   slurm-site-agent confirm --usage
    ///   slurm-site-agent confirm --usage bio42/2026-11
    #[command(verbatim_doc_comment)]
    Confirm {
        /// Name of the plan, as `status` shows it.
        #[arg(required_unless_present = "usage", conflicts_with = "usage")]
        plan: Option<String>,
        /// The account and month of a total; without a value: what waits.
        #[arg(long, value_name = "ACCOUNT/MONTH", num_args = 0..=1)]
        usage: Option<Option<String>>,
    },
    Check(check::CheckArgs),
    Status(status::StatusArgs),
    Usage(usage::UsageArgs),
    Explain(explain::ExplainArgs),
    History(history::HistoryArgs),
    Policy(Box<policy::PolicyArgs>),
    /// Usage records for ACCESS (AMIE): the ledger of what was sent, accepted and loaded.
    ///
    /// Example: slurm-site-agent amie summary --from 2026-10-01
    Amie {
        #[command(subcommand)]
        what: amie::AmieVerb,
    },
    /// The ledger of jobs: whether its kept totals equal a recount.
    Ledger {
        #[command(subcommand)]
        what: ledger::LedgerVerb,
    },
    /// The emulated world: `emulate sacct ...` (and the other Slurm programs), its server, its clock.
    ///
    /// Example: slurm-site-agent emulate sacctmgr -nP show assoc format=account,qos
    Emulate {
        #[command(subcommand)]
        what: emulate::Emulate,
    },
}

fn account(text: &str) -> Result<AccountName, String> {
    AccountName::parse(text).map_err(|error| error.to_string())
}

/// Does what the command line asks; an error has not been printed yet.
pub fn run(cli: Cli) -> Result<Exit, AgentError> {
    match cli.verb {
        None if cli.evaluate_now => evaluate_now::run(&cli.common, &cli.evaluate),
        None => daemon::run(&cli.common),
        Some(Verb::CheckConfig { print }) => check_config(&cli.common, print),
        Some(Verb::Confirm { plan, usage }) => {
            confirm::run(&cli.common, plan.as_deref(), usage.flatten().as_deref())
        }
        Some(Verb::Amie { what }) => amie::run(&cli.common, &what),
        Some(Verb::Ledger { what }) => ledger::run(&cli.common, &what),
        Some(Verb::Emulate { what }) => emulate::run(&cli.common, what),
        Some(Verb::Check(args)) => check::run(&cli.common, &args),
        Some(Verb::Status(args)) => status::run(&cli.common, &args),
        Some(Verb::Usage(args)) => usage::run(&cli.common, &args),
        Some(Verb::Explain(args)) => explain::run(&cli.common, &args),
        Some(Verb::History(args)) => history::run(&cli.common, &args),
        Some(Verb::Policy(args)) => policy::run(&cli.common, &args),
    }
}

/// The configuration that a verb works with, the emulator's when it is asked for.
fn configuration(common: &Common) -> Result<Config, AgentError> {
    if common.emulator {
        // The server's address only matters to who contacts it; those start it first (world.rs).
        return Ok(config::emulator_defaults(&world::state_dir(common)?, "http://127.0.0.1:1/")?);
    }
    Ok(config::load(&common.config)?)
}

fn check_config(common: &Common, print: bool) -> Result<Exit, AgentError> {
    let config = configuration(common)?;
    if print {
        render::text(&config.to_toml());
    } else {
        render::text(&format!(
            "{} is a valid configuration: cluster {}, {} sources, {} local allocations\n",
            common.config.display(),
            config.cluster.name,
            config.sources.len(),
            config.allocations.len()
        ));
    }
    Ok(Exit::Done)
}
