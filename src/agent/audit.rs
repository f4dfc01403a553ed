//! The witness: sreport's rolled-up hours against the ledger. It reports drift and decides nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::Agent;
use super::error::AgentError;
use crate::core::time::{Epoch, Window};
use crate::core::tres::Tres;
use crate::core::usage::{Adding, Counting, SuspensionEdges, needs_suspension_split};

/// Hours before the current one that are compared: slurmdbd may roll an hour up to one hour late.
const HOURS: i64 = 24;
/// Hours nearest to now that are left out, because they may not be rolled up yet.
const HOURS_UNSETTLED: i64 = 2;
/// Rows of drift that are kept.
const ROWS_MAX: usize = 50;
const HOUR_S: i64 = 3600;

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Account.
    pub account: String,
    /// User.
    pub user: String,
    /// TRES.
    pub tres: Tres,
    /// TRES-seconds in the ledger.
    pub ledger: u128,
    /// TRES-seconds in sreport.
    pub sreport: u128,
}

/// What an audit found.
#[derive(Debug, Clone, Serialize)]
pub struct Drift {
    /// Compared window.
    pub window: Window,
    /// Compared rows.
    pub rows: usize,
    /// Those that differ, at most fifty.
    pub differences: Vec<Difference>,
    /// How many differ.
    pub differing: usize,
}

impl Drift {
    /// In words.
    pub fn findings(&self) -> Vec<String> {
        if self.differing == 0 {
            return Vec::new();
        }
        let first: Vec<String> = self
            .differences
            .iter()
            .take(3)
            .map(|d| {
                format!("{} {} {}: ledger {} s, sreport {} s", d.account, d.user, d.tres, d.ledger, d.sreport)
            })
            .collect();
        vec![format!(
            "the ledger and sreport differ in {} of {} rows from {} until {}: {}",
            self.differing,
            self.rows,
            self.window.from,
            self.window.until,
            first.join("; ")
        )]
    }
}

/// Compares the last settled day.
pub async fn audit(agent: &mut Agent) -> Result<Drift, AgentError> {
    let now = agent.clock.now();
    let until = Epoch(now.0 - now.0.rem_euclid(HOUR_S)).plus(-HOURS_UNSETTLED * HOUR_S);
    compare(agent, Window::new(until.plus(-HOURS * HOUR_S), until), now).await
}

/// Compares a window of whole hours. Running jobs count up to `now`.
pub async fn compare(agent: &mut Agent, window: Window, now: Epoch) -> Result<Drift, AgentError> {
    let cluster = agent.config.cluster.name.clone();
    let edges = split_edges(agent, window, now).await?;
    let mut adding = Adding::default();
    let mut tres: BTreeSet<Tres> = BTreeSet::from([Tres::cpu(), Tres::mem(), Tres::billing()]);
    agent.store.visit_jobs(&cluster, window, &mut |job| {
        tres.extend(job.alloc.keys().filter(|tres| tres.as_str() != "energy").cloned());
        adding.add(&job, window, now, Counting::SreportEqual, &edges);
    })?;
    // sreport knows the TRES that AccountingStorageTRES tracks; an unknown one is silently left out of its answer.
    let tracked: BTreeSet<Tres> = agent.slurm.tres().await?.into_iter().collect();
    let asked: Vec<Tres> = tres.intersection(&tracked).cloned().collect();
    let rows = agent.slurm.account_utilization(window, &asked).await?;
    let usage = adding.usage();
    let amounts: BTreeMap<(String, String, Tres), u128> = usage
        .rows()
        .flat_map(|(account, user, used)| {
            let amounts = used.0.into_iter();
            amounts.map(move |(tres, amount)| ((account.to_owned(), user.to_owned(), tres), amount))
        })
        .filter(|((_, _, tres), _)| asked.contains(tres))
        .collect();
    let mut shown = BTreeSet::new();
    let (mut differences, mut compared) = (Vec::new(), 0);
    for row in rows {
        let Some(user) = row.user else { continue };
        compared += 1;
        let key = (row.account.clone(), user.clone(), row.tres.clone());
        let ledger = amounts.get(&key).copied().unwrap_or(0);
        shown.insert(key);
        if ledger != row.seconds {
            differences.push(Difference {
                account: row.account,
                user,
                tres: row.tres,
                ledger,
                sreport: row.seconds,
            });
        }
    }
    for ((account, user, tres), ledger) in amounts.into_iter().filter(|(key, _)| !shown.contains(key)) {
        compared += 1;
        differences.push(Difference { account, user, tres, ledger, sreport: 0 });
    }
    let differing = differences.len();
    differences.truncate(ROWS_MAX);
    Ok(Drift { window, rows: compared, differences, differing })
}

/// Suspension at the window's edges: what the ledger knows, and what sacct says of the rest.
async fn split_edges(agent: &Agent, window: Window, now: Epoch) -> Result<SuspensionEdges, AgentError> {
    let cluster = &agent.config.cluster.name;
    let mut known = agent.store.suspended_before(cluster, Window::new(window.from, window.until.plus(1)))?;
    for edge in [window.from, window.until] {
        let mut crossing = Vec::new();
        agent.store.visit_jobs(cluster, window, &mut |job| {
            if needs_suspension_split(&job, edge, now)
                && !known.iter().any(|k| k.key == job.key && k.edge == edge)
            {
                crossing.push(job);
            }
        })?;
        if !crossing.is_empty() {
            known.extend(agent.slurm.suspended_before(&crossing, edge, now).await?);
        }
    }
    Ok(SuspensionEdges::new(&known))
}
