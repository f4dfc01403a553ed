//! `check`: the preflight. Asks Slurm, the servers and the host, and says what is missing and how to mend it.

use std::collections::BTreeMap;

use clap::Args;
use serde::Serialize;

use super::world::World;
use super::{Common, log, render, world};
use crate::agent::error::{AgentError, Exit};
use crate::agent::preflight::{Finding, Severity, ask, judge};
use crate::core::time::Epoch;

/// Check everything around the agent: Slurm, QOS, accounts, servers, clocks, secrets, store.
///
/// Asks Slurm and the servers, and only reads: nothing is changed or sent. Works beside the daemon. Run it as root, or as
/// the agent's user, after every change of slurm.conf, of QOS or of the configuration. Whose AdminLevel is checked is
/// told by the owner of the store's directory.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = AFTER)]
pub struct CheckArgs {
    /// Only what is not ok.
    #[arg(long, short)]
    quiet: bool,
}

const AFTER: &str = "\
Columns:
  Severity  ok; note: good to know; warning: something will not work as the policies mean it; error: the agent cannot do
            its work
  Check     a stable name, the same in --json
  Found     what was found
Below the table everything that is not ok, the worst first, with what comes of it and the fix: a command to run or a
setting to change.

Exit code 0: no warning and no error; 1: at least one; 2: the configuration is wrong.

Examples:
  slurm-site-agent check
  slurm-site-agent check --quiet
  slurm-site-agent check --json | jq -r '.findings[] | select(.severity == \"error\") | .fix'";

/// The verb's answer. Its JSON is the verb's `--json`.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Cluster.
    pub cluster: String,
    /// When.
    pub at: Epoch,
    /// The worst severity.
    pub worst: Severity,
    /// How many of each severity.
    pub counts: BTreeMap<Severity, usize>,
    /// In the order of topics.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Of findings.
    pub fn of(cluster: String, at: Epoch, findings: Vec<Finding>) -> Report {
        let all = [Severity::Ok, Severity::Note, Severity::Warning, Severity::Error];
        let mut counts: BTreeMap<Severity, usize> = all.into_iter().map(|severity| (severity, 0)).collect();
        findings.iter().for_each(|finding| *counts.entry(finding.severity).or_default() += 1);
        let worst = findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Ok);
        Report { cluster, at, worst, counts, findings }
    }

    /// The exit code.
    pub fn exit(&self) -> Exit {
        if self.worst >= Severity::Warning { Exit::Attention } else { Exit::Done }
    }
}

/// Prints what was found.
pub fn run(common: &Common, args: &CheckArgs) -> Result<Exit, AgentError> {
    let runtime = world::runtime()?;
    let report = runtime.block_on(async {
        let mut world = World::open(common).await?;
        log::start(&world.config.log);
        let config = world.config.clone();
        let facts = ask(&config, world.outside()?).await;
        world.close().await;
        let findings = judge(&facts, &config);
        Ok::<Report, AgentError>(Report::of(config.cluster.name.to_string(), facts.now, findings))
    })?;
    if common.json {
        render::json(&report);
    } else {
        render::text(&show(&report, args.quiet));
    }
    Ok(report.exit())
}

/// The findings for people.
pub fn show(report: &Report, quiet: bool) -> String {
    let shown = report.findings.iter().filter(|finding| !quiet || finding.severity > Severity::Ok);
    let row = |finding: &Finding| {
        vec![finding.severity.as_str().to_owned(), finding.check.to_owned(), finding.found.clone()]
    };
    let mut text = render::table("", &["Severity", "Check", "Found"], shown.map(row).collect());
    let mut open: Vec<&Finding> = report.findings.iter().filter(|f| f.severity > Severity::Ok).collect();
    // Stable: the topics keep their order within a severity.
    open.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    for finding in open {
        let (severity, check) = (finding.severity.as_str(), finding.check);
        text.push_str(&format!("{severity} {check}: {}\n", render::printable(&finding.found)));
        text.push_str(&format!("    so: {}\n", render::printable(&finding.consequence)));
        if !finding.fix.is_empty() {
            text.push_str(&format!("    fix: {}\n", render::printable(&finding.fix)));
        }
    }
    let counts: Vec<String> =
        report.counts.iter().map(|(severity, count)| format!("{count} {}", severity.as_str())).collect();
    text.push_str(&format!("cluster {}: {}\n", report.cluster, counts.join(", ")));
    text
}
