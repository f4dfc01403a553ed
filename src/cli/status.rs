//! `status`: how the agent stands, from its store alone; works beside the daemon and without Slurm.

use std::collections::BTreeMap;

use clap::Args;
use serde::Serialize;

use super::evaluate_now::span;
use super::{Common, configuration, render};
use crate::agent::clock::Clock;
use crate::agent::error::{AgentError, Exit};
use crate::agent::hold;
use crate::agent::schedule::Due;
use crate::agent::shrink::HeldUsage;
use crate::agent::summary::{self, CycleSummary, Undecided};
use crate::config::{CONFIG_PATH, Config};
use crate::core::evaluate::Level;
use crate::core::name::SourceName;
use crate::core::time::Epoch;
use crate::store::{MessageState, Store};

/// Show how the agent stands: last cycle, sources, levels, what waits and why.
///
/// Reads the store only: it works beside the daemon, without Slurm and without a server, and contacts nobody.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = AFTER)]
pub struct StatusArgs {}

const AFTER: &str = "\
Sections (empty ones are left out):
  SOURCES              what each central server said last, and when it last answered in full
  ACCOUNTS BY LEVEL    accounts of the last cycle: normal, notification (80 %), slowdown (100 %), blocked (grace used)
  UNDECIDED            accounts on which nothing is decided; what is in force stays in force
  PLAN THAT WAITS      a plan that would tighten many accounts at once, and the command that allows it
  OPEN CHANGES         changes whose outcome is not known yet; the next cycle looks at them first
  PENDING COMMANDS     commands of a server that have no verdict yet
  OUTBOX               messages that wait to be told, by kind and state
  FAILED DELIVERIES    messages whose last delivery failed; `dead` ones are given up until an operator acts
  RUNAWAY JOBS         records without an end that are not counted
Exit code 0: nothing to look at; 1: something is, named in the last lines (`! ...`).
Ages are counted from now; with --emulator from the last cycle, because the emulated clock stands apart.

Example:
  slurm-site-agent status
  slurm-site-agent status --json | jq '.undecided[].account'";

/// Failed deliveries that are shown; the latest tries first.
const FAILED_MAX: usize = 100;
/// Collections of the log that rejected lines are counted over.
const COLLECTIONS_MAX: usize = 100;
/// A last cycle older than this many poll intervals means that the daemon is down or stuck.
const CYCLE_AGE_INTERVALS: u32 = 6;
/// A last cycle is never called late before this time: a cycle may take minutes.
const CYCLE_AGE_MIN_S: i64 = 600;

/// How the agent stands. Its JSON is the verb's `--json`.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// Cluster.
    pub cluster: String,
    /// Path of the store.
    pub store: String,
    /// From when ages are counted.
    pub now: Epoch,
    /// Who writes to the store now.
    pub writer: Option<Writer>,
    /// The last cycle.
    pub cycle: Option<CycleSummary>,
    /// Up to when the ledger is complete.
    pub collected_until: Option<Epoch>,
    /// When each schedule last succeeded.
    pub schedules: BTreeMap<&'static str, Option<Epoch>>,
    /// Sources of the configuration.
    pub sources: Vec<SourceStatus>,
    /// Accounts by level, of the last cycle.
    pub levels: BTreeMap<Level, usize>,
    /// Accounts on which nothing is decided, of the last cycle.
    pub undecided: Vec<Undecided>,
    /// The plan that waits.
    pub held: Option<Held>,
    /// Changes without a final outcome.
    pub open_changes: Vec<OpenChange>,
    /// Commands without a verdict.
    pub pending_commands: Vec<PendingCommand>,
    /// Messages not told yet.
    pub outbox: Vec<OutboxRow>,
    /// Messages whose last delivery failed.
    pub failed_deliveries: Vec<FailedRow>,
    /// Records without an end that are set aside.
    pub runaways: Vec<Runaway>,
    /// Lines of sacct that were not understood.
    pub rejected: Rejected,
    /// What needs a look; exit code 1 when there is any.
    pub attention: Vec<String>,
}

/// Who writes.
#[derive(Debug, Clone, Serialize)]
pub struct Writer {
    /// Process id.
    pub pid: Option<u32>,
    /// Name of its executable.
    pub program: String,
    /// Since when.
    pub since: Option<Epoch>,
}

/// A source as stored.
#[derive(Debug, Clone, Serialize)]
pub struct SourceStatus {
    /// Its name.
    pub name: SourceName,
    /// Accepted policies.
    pub policies: usize,
    /// Accepted allocations.
    pub allocations: usize,
    /// Accepted quotas.
    pub quotas: usize,
    /// When it last answered in full.
    pub answered: Option<Epoch>,
    /// Seconds since.
    pub age_s: Option<i64>,
    /// Since when it says the same.
    pub unchanged_since: Option<Epoch>,
    /// Why it did not answer in the last cycle.
    pub error: Option<String>,
    /// What it said that is odd.
    pub notices: Vec<String>,
}

/// The plan that waits.
#[derive(Debug, Clone, Serialize)]
pub struct Held {
    /// Its name.
    pub plan: String,
    /// Why it waits.
    pub because: Option<String>,
    /// Since when.
    pub since: Epoch,
    /// What it would run.
    pub commands: Vec<String>,
    /// Whether an operator has allowed it already.
    pub confirmed: bool,
    /// What to type to allow it.
    pub confirm: String,
}

/// A change without a final outcome.
#[derive(Debug, Clone, Serialize)]
pub struct OpenChange {
    /// Since when.
    pub since: Epoch,
    /// What was to be run.
    pub argv: String,
}

/// A command without a verdict.
#[derive(Debug, Clone, Serialize)]
pub struct PendingCommand {
    /// The server's uuid.
    pub uuid: String,
    /// The server.
    pub source: SourceName,
    /// Type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Account as written.
    pub account: String,
    /// When it was issued.
    pub issued: Epoch,
    /// The server's text.
    pub description: String,
}

/// Messages of one kind in one state.
#[derive(Debug, Clone, Serialize)]
pub struct OutboxRow {
    /// Kind.
    pub kind: &'static str,
    /// waiting, leased, dead
    pub state: &'static str,
    /// How many.
    pub count: usize,
    /// When the oldest was enqueued.
    pub oldest: Epoch,
}

/// A message whose last delivery failed.
#[derive(Debug, Clone, Serialize)]
pub struct FailedRow {
    /// Kind.
    pub kind: &'static str,
    /// Its key.
    pub key: String,
    /// waiting, leased, dead
    pub state: &'static str,
    /// Tries.
    pub attempts: u32,
    /// The last one.
    pub tried: Option<Epoch>,
    /// Why it failed.
    pub error: String,
}

/// A record without an end.
#[derive(Debug, Clone, Serialize)]
pub struct Runaway {
    /// JobIDRaw.
    pub job_id: u64,
    /// DBIndex.
    pub dbindex: u64,
    /// Account.
    pub account: String,
    /// User.
    pub user: String,
    /// When it started.
    pub start: Option<Epoch>,
}

/// Lines of sacct that were not understood.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Rejected {
    /// In the last collection.
    pub last: usize,
    /// In the collections that were looked at.
    pub lines: usize,
    /// How many collections those are.
    pub collections: usize,
    /// Some of the lines.
    pub samples: Vec<String>,
}

/// Prints how the agent stands.
pub fn run(common: &Common, _args: &StatusArgs) -> Result<Exit, AgentError> {
    let config = configuration(common)?;
    let store = Store::open_reader(&config.store.path)?;
    let mut status = gather(common, &config, &store)?;
    status.attention = attention(&status, late_after_s(common, &config));
    if common.json {
        render::json(&status);
    } else {
        render::text(&show(&status));
    }
    Ok(if status.attention.is_empty() { Exit::Done } else { Exit::Attention })
}

/// From which age on the last cycle is late; `None` in the emulated world, where nothing runs by itself.
fn late_after_s(common: &Common, config: &Config) -> Option<i64> {
    let longest = config.poll_interval().saturating_mul(CYCLE_AGE_INTERVALS).as_secs();
    (!common.emulator).then(|| i64::try_from(longest).unwrap_or(i64::MAX).max(CYCLE_AGE_MIN_S))
}

fn gather(common: &Common, config: &Config, store: &Store) -> Result<Status, AgentError> {
    let last: Option<(CycleSummary, Epoch)> = store.last_report(summary::CYCLE)?;
    let cycle = last.map(|(cycle, _)| cycle);
    let cluster = &config.cluster.name;
    let now = match &cycle {
        Some(cycle) if common.emulator => cycle.at,
        _ => Clock::System.now(),
    };
    let mut schedules = BTreeMap::new();
    for due in [Due::Poll, Due::DeepScan, Due::Audit, Due::Report] {
        schedules.insert(due.as_str(), store.last_success(due.as_str())?);
    }
    let holder = Store::holder(&config.store.path);
    Ok(Status {
        cluster: cluster.to_string(),
        store: config.store.path.display().to_string(),
        now,
        writer: holder.map(|h| Writer { pid: h.pid, program: h.program, since: h.since }),
        collected_until: store.watermark(cluster)?,
        schedules,
        sources: sources(config, store, cycle.as_ref(), now)?,
        levels: cycle.as_ref().map(|cycle| cycle.levels.clone()).unwrap_or_default(),
        undecided: cycle.as_ref().map(|cycle| cycle.undecided.clone()).unwrap_or_default(),
        held: held(common, config, store, cycle.as_ref())?,
        open_changes: store
            .unsettled_intents()?
            .into_iter()
            .map(|intent| OpenChange { since: intent.at, argv: intent.argv.join(" ") })
            .collect(),
        pending_commands: pending(store)?,
        outbox: store
            .outbox_counts()?
            .into_iter()
            .map(|row| OutboxRow {
                kind: row.kind.as_str(),
                state: row.state.as_str(),
                count: row.count,
                oldest: row.oldest,
            })
            .collect(),
        failed_deliveries: failed(store)?,
        runaways: store
            .runaways(cluster)?
            .into_iter()
            .map(|job| Runaway {
                job_id: job.job_id,
                dbindex: job.key.dbindex,
                account: job.account.into(),
                user: job.user.into(),
                start: job.start,
            })
            .collect(),
        rejected: rejected(store)?,
        attention: Vec::new(),
        cycle,
    })
}

fn sources(
    config: &Config,
    store: &Store,
    cycle: Option<&CycleSummary>,
    now: Epoch,
) -> Result<Vec<SourceStatus>, AgentError> {
    let mut found = Vec::new();
    for source in &config.sources {
        let seen = cycle.and_then(|cycle| cycle.sources.iter().find(|state| state.name == source.name));
        let stored = store.snapshot(&source.name)?;
        let quotas = store.quotas(&source.name)?;
        let (answered, unchanged_since) = match (&stored, &quotas) {
            (Some((_, at)), _) => (Some(*at), store.snapshot_since(&source.name)?),
            (None, Some(quotas)) => (Some(quotas.at), Some(quotas.since)),
            (None, None) => (None, None),
        };
        found.push(SourceStatus {
            name: source.name.clone(),
            policies: stored.as_ref().map_or(0, |(snapshot, _)| snapshot.policies.len()),
            allocations: stored.as_ref().map_or(0, |(snapshot, _)| snapshot.allocations.len()),
            quotas: quotas.map_or(0, |accepted| accepted.said.len()),
            answered,
            age_s: answered.map(|at| now.since(at)),
            unchanged_since,
            error: seen.and_then(|state| state.error.clone()),
            notices: seen.map(|state| state.notices.clone()).unwrap_or_default(),
        });
    }
    Ok(found)
}

fn held(
    common: &Common,
    config: &Config,
    store: &Store,
    cycle: Option<&CycleSummary>,
) -> Result<Option<Held>, AgentError> {
    let Some(plan) = store.held()? else { return Ok(None) };
    Ok(Some(Held {
        because: cycle.and_then(|cycle| cycle.held_because.clone()),
        since: plan.since,
        commands: plan.summary.lines().map(str::to_owned).collect(),
        confirmed: hold::is_confirmed(&config.store.path, &plan.hash),
        confirm: confirm_command(common, &plan.hash),
        plan: plan.hash,
    }))
}

/// What an operator types, with the options that this call had.
fn confirm_command(common: &Common, plan: &str) -> String {
    let mut typed = String::from("slurm-site-agent");
    if common.emulator {
        typed.push_str(" --emulator");
        if let Some(dir) = &common.emulator_state {
            typed.push_str(&format!(" --emulator-state {}", dir.display()));
        }
    } else if common.config != std::path::Path::new(CONFIG_PATH) {
        typed.push_str(&format!(" --config {}", common.config.display()));
    }
    format!("{typed} confirm {plan}")
}

fn pending(store: &Store) -> Result<Vec<PendingCommand>, AgentError> {
    let commands = store.pending()?.into_iter();
    Ok(commands
        .map(|command| PendingCommand {
            kind: command.kind.type_name().to_owned(),
            uuid: command.uuid,
            source: command.source,
            account: command.account_text,
            issued: command.issued,
            description: command.description,
        })
        .collect())
}

fn failed(store: &Store) -> Result<Vec<FailedRow>, AgentError> {
    let all = store.failed_deliveries(FAILED_MAX)?.into_iter();
    Ok(all
        .map(|failed| FailedRow {
            kind: failed.message.kind().as_str(),
            key: failed.message.key(),
            state: failed.state.as_str(),
            attempts: failed.attempts,
            tried: failed.tried,
            error: failed.error,
        })
        .collect())
}

fn rejected(store: &Store) -> Result<Rejected, AgentError> {
    let log = store.last_collections(COLLECTIONS_MAX)?;
    Ok(Rejected {
        last: log.first().map_or(0, |collection| collection.rejected),
        lines: log.iter().map(|collection| collection.rejected).sum(),
        collections: log.len(),
        samples: log.iter().flat_map(|collection| collection.reject_samples.clone()).take(5).collect(),
    })
}

/// What needs a look, each with its next step. `late_after_s`: from which age on the last cycle is late.
pub fn attention(status: &Status, late_after_s: Option<i64>) -> Vec<String> {
    let mut lines = Vec::new();
    let Some(cycle) = &status.cycle else {
        lines.push("no cycle has ended yet: start the daemon, or run slurm-site-agent --evaluate-now".into());
        return lines;
    };
    let age_s = status.now.since(cycle.at);
    if late_after_s.is_some_and(|late| age_s > late) {
        lines.push(format!(
            "the last cycle is {} old: look at systemctl status slurm-site-agent and its journal",
            span(age_s)
        ));
    }
    for source in &status.sources {
        lines.extend(source.error.iter().map(|error| format!("source {}: {error}", source.name)));
    }
    lines.extend(cycle.collection.incomplete.clone());
    if !status.undecided.is_empty() {
        lines.push(format!(
            "{} policies could not be decided on; what is in force for their accounts stays in force",
            status.undecided.len()
        ));
    }
    if let Some(held) = status.held.as_ref().filter(|held| !held.confirmed) {
        lines.push(format!("a plan waits for your word; to allow it: {}", held.confirm));
    }
    lines.extend(cycle.held_usage.iter().map(HeldUsage::finding));
    for change in &cycle.unsettled {
        lines.push(format!("not in effect: {}: {}", change.argv, change.reason));
    }
    let left_open = status.open_changes.iter().filter(|change| change.since < cycle.at).count();
    if left_open > 0 {
        lines.push(format!("{left_open} changes are still open after a whole cycle: is Slurm answering?"));
    }
    let dead: usize = status
        .outbox
        .iter()
        .filter(|row| row.state == MessageState::Dead.as_str())
        .map(|row| row.count)
        .sum();
    if dead > 0 {
        lines.push(format!("{dead} messages were given up; their errors are under FAILED DELIVERIES"));
    }
    lines
}

/// The status for people.
pub fn show(status: &Status) -> String {
    let mut text = head(status);
    text.push_str(&render::table(
        "SOURCES",
        &["Source", "Policies", "Allocations", "Quotas", "Answered", "Age", "Same since", "Error"],
        status.sources.iter().map(source_row).collect(),
    ));
    text.push_str(&render::table(
        "ACCOUNTS BY LEVEL",
        &["Level", "Accounts"],
        status.levels.iter().map(|(level, count)| vec![level.to_string(), count.to_string()]).collect(),
    ));
    text.push_str(&render::table(
        "UNDECIDED",
        &["Account", "Source", "Why"],
        status
            .undecided
            .iter()
            .map(|u| vec![u.account.to_string(), u.source.to_string(), u.reason.clone()])
            .collect(),
    ));
    if let Some(held) = &status.held {
        text.push_str(&show_held(held));
    }
    text.push_str(&waiting_tables(status));
    let findings = status.cycle.iter().flat_map(|cycle| &cycle.findings);
    for line in findings.filter(|line| !status.attention.contains(line)) {
        text.push_str(&format!("- {}\n", render::printable(line)));
    }
    for line in &status.attention {
        text.push_str(&format!("! {}\n", render::printable(line)));
    }
    text
}

fn head(status: &Status) -> String {
    let when = |at: Option<Epoch>| {
        at.map_or("never".to_owned(), |at| format!("{at}, {} ago", span(status.now.since(at))))
    };
    let writer = status.writer.as_ref().map_or("nobody (the daemon is not running)".to_owned(), |writer| {
        let pid = writer.pid.map_or(String::new(), |pid| format!(" (pid {pid})"));
        format!("{}{pid}", writer.program)
    });
    let mut text = format!(
        "cluster {}\nstore {}, written by {}\nlast cycle {}\njobs collected until {}\n",
        status.cluster,
        status.store,
        render::printable(&writer),
        when(status.cycle.as_ref().map(|cycle| cycle.at)),
        when(status.collected_until),
    );
    for (name, at) in &status.schedules {
        text.push_str(&format!("last {} {}\n", name.replace('_', " "), when(*at)));
    }
    let rejected = &status.rejected;
    if rejected.lines > 0 {
        text.push_str(&format!(
            "{} lines of sacct were rejected in the last {} collections; the latest: {}\n",
            rejected.lines,
            rejected.collections,
            render::printable(rejected.samples.first().map_or("", String::as_str))
        ));
    }
    text.push('\n');
    text
}

fn source_row(source: &SourceStatus) -> Vec<String> {
    let time = |at: Option<Epoch>| at.map_or("never".to_owned(), |at| at.to_string());
    vec![
        source.name.to_string(),
        source.policies.to_string(),
        source.allocations.to_string(),
        source.quotas.to_string(),
        time(source.answered),
        source.age_s.map_or("-".to_owned(), span),
        time(source.unchanged_since),
        source.error.clone().unwrap_or_default(),
    ]
}

fn show_held(held: &Held) -> String {
    let because = held.because.as_deref().unwrap_or("it would tighten many accounts at once");
    let word = if held.confirmed {
        "it is confirmed; the next cycle applies it".to_owned()
    } else {
        format!("to allow it: {}", held.confirm)
    };
    let commands: String =
        held.commands.iter().map(|command| format!("  {}\n", render::printable(command))).collect();
    format!(
        "PLAN THAT WAITS\nplan {} since {}: {}\n{commands}{word}\n\n",
        held.plan,
        held.since,
        render::printable(because)
    )
}

fn waiting_tables(status: &Status) -> String {
    let time = |at: Option<Epoch>| at.map_or("-".to_owned(), |at| at.to_string());
    let changes = status.open_changes.iter().map(|c| vec![c.since.to_string(), c.argv.clone()]).collect();
    let commands = status
        .pending_commands
        .iter()
        .map(|c| {
            let issued = c.issued.to_string();
            vec![issued, c.source.to_string(), c.kind.clone(), c.account.clone(), c.description.clone()]
        })
        .collect();
    let outbox = status
        .outbox
        .iter()
        .map(|r| vec![r.kind.to_owned(), r.state.to_owned(), r.count.to_string(), r.oldest.to_string()])
        .collect();
    let failed = status
        .failed_deliveries
        .iter()
        .map(|r| {
            let attempts = r.attempts.to_string();
            vec![time(r.tried), r.key.clone(), r.state.to_owned(), attempts, r.error.clone()]
        })
        .collect();
    let runaways = status
        .runaways
        .iter()
        .map(|r| {
            vec![
                r.job_id.to_string(),
                r.dbindex.to_string(),
                r.account.clone(),
                r.user.clone(),
                time(r.start),
            ]
        })
        .collect();
    [
        render::table("OPEN CHANGES", &["Since", "Command"], changes),
        render::table("PENDING COMMANDS", &["Issued", "Source", "Type", "Account", "Description"], commands),
        render::table("OUTBOX", &["Kind", "State", "Count", "Oldest"], outbox),
        render::table("FAILED DELIVERIES", &["Tried", "Message", "State", "Tries", "Error"], failed),
        render::table("RUNAWAY JOBS", &["Job", "DBIndex", "Account", "User", "Start"], runaways),
    ]
    .concat()
}

#[cfg(test)]
mod tests;
