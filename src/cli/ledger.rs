//! `ledger`: whether the totals kept beside the job records equal what those add up to; filling it (`backfill.rs`); making its
//! file smaller.

use clap::{Args, Subcommand};
use serde::Serialize;

use super::backfill::{self, BackfillArgs};
use super::{Common, configuration, render};
use crate::agent::error::{AgentError, Exit};
use crate::agent::verify::{WindowAgreement, repair, verify};
use crate::agent::{Agent, Outside};
use crate::core::name::ClusterName;
use crate::store::{Compacted, Store};

/// Verbs of the ledger.
#[derive(Debug, Clone, Subcommand)]
pub enum LedgerVerb {
    Verify(VerifyArgs),
    Backfill(BackfillArgs),
    /// Make the store's file smaller after much was removed from it.
    ///
    /// Room of removed rows is used again for new ones; this gives it back to the file system, where it is wanted there
    /// (store.keep_jobs became shorter). Stop the daemon first. Takes seconds per gigabyte, and room for what is kept twice
    /// over: in SQLITE_TMPDIR [default: /var/tmp] and beside the store. Killed in between, the store is as it was.
    #[command(after_long_help = AFTER_COMPACT)]
    Compact,
}

/// Compare the kept totals of every period with a full recount of the stored jobs.
///
/// Reads the store only and works beside the daemon; with --repair it writes, and the daemon has to be stopped. The deep
/// scan does the same by itself and lets the recount stand. Takes seconds per million jobs.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = AFTER)]
pub struct VerifyArgs {
    /// Add up again what differs. Stop the daemon first.
    #[arg(long)]
    repair: bool,
}

const AFTER: &str = "\
Columns:
  From, Until  the period, in UTC
  Account, User, TRES  whose amount of what differs
  Kept         TRES-seconds in the kept totals (for mem: MB-seconds)
  Counted      TRES-seconds that the job records add up to

Exit code 1 when anything differs and was not repaired.

Examples:
  slurm-site-agent ledger verify
  slurm-site-agent ledger verify --json | jq '.windows[].differences'
  systemctl stop slurm-site-agent && slurm-site-agent ledger verify --repair && systemctl start slurm-site-agent";

const AFTER_COMPACT: &str = "\
Examples:
  systemctl stop slurm-site-agent && slurm-site-agent ledger compact && systemctl start slurm-site-agent";

/// The verb's answer. Its JSON is the verb's `--json`.
#[derive(Debug, Serialize)]
struct Verified {
    cluster: ClusterName,
    agrees: bool,
    repaired: bool,
    windows: Vec<WindowAgreement>,
}

/// Does what the verb says.
pub fn run(common: &Common, what: &LedgerVerb) -> Result<Exit, AgentError> {
    match what {
        LedgerVerb::Verify(args) => check(common, args),
        LedgerVerb::Backfill(args) => backfill::run(common, args),
        LedgerVerb::Compact => compact(common),
    }
}

fn compact(common: &Common) -> Result<Exit, AgentError> {
    let compacted = Store::open(&configuration(common)?.store.path)?.compact()?;
    if common.json {
        render::json(&compacted);
    } else {
        let Compacted { bytes_before, bytes_after } = compacted;
        render::text(&format!("the store had {bytes_before} bytes and has {bytes_after} now\n"));
    }
    Ok(Exit::Done)
}

fn check(common: &Common, args: &VerifyArgs) -> Result<Exit, AgentError> {
    let config = configuration(common)?;
    let cluster = config.cluster.name.clone();
    let path = config.store.path.clone();
    let (windows, repaired) = if args.repair {
        let outside = Outside::real(&config);
        let mut agent = Agent::offline(config, outside, Store::open(&path)?);
        let found = verify(&agent.store, &cluster)?;
        repair(&mut agent, &found)?;
        let differed = found.iter().any(|window| !window.agrees());
        (if differed { verify(&agent.store, &cluster)? } else { found }, differed)
    } else {
        (verify(&Store::open_reader(&path)?, &cluster)?, false)
    };
    let agrees = windows.iter().all(WindowAgreement::agrees);
    let verified = Verified { cluster, agrees, repaired, windows };
    if common.json {
        render::json(&verified);
    } else {
        render::text(&show(&verified));
    }
    Ok(if agrees { Exit::Done } else { Exit::Attention })
}

fn show(verified: &Verified) -> String {
    let rows = verified.windows.iter().map(|window| {
        vec![
            window.window.from.to_string(),
            window.window.until.to_string(),
            window.jobs_kept.to_string(),
            window.jobs_counted.to_string(),
            window.differing.to_string(),
        ]
    });
    let mut text =
        render::table("KEPT TOTALS", &["From", "Until", "Jobs", "Counted", "Differences"], rows.collect());
    let differences = verified.windows.iter().flat_map(|window| {
        window.differences.iter().map(|one| {
            vec![
                window.window.from.to_string(),
                window.window.until.to_string(),
                one.account.clone(),
                one.user.clone(),
                one.tres.to_string(),
                one.kept.to_string(),
                one.counted.to_string(),
            ]
        })
    });
    let header = ["From", "Until", "Account", "User", "TRES", "Kept", "Counted"];
    text.push_str(&render::table("DIFFERENCES", &header, differences.collect()));
    text.push_str(match (verified.agrees, verified.repaired, verified.windows.is_empty()) {
        (_, _, true) => "no totals are kept yet: the first cycle adds them up\n",
        (true, true, _) => "what differed was added up again; the kept totals equal a recount\n",
        (true, false, _) => "the kept totals equal a recount\n",
        (false, _, _) => {
            "the kept totals differ from a recount: the next deep scan mends them, or now, with the daemon stopped: \
             slurm-site-agent ledger verify --repair\n"
        }
    });
    text
}
