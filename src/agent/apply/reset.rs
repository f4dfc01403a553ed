//! Resets of raw usage: a process for each, several at one time, proved in sshare.
//!
//! A reset of an account zeroes what is below it and takes as much off what is above it. So an account waits until those above it
//! have been reset, else a counter could fall without a reset of its own; often it is at 0 then, and nothing is left to run.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::StreamExt;
use serde_json::json;

use super::{ChangeState, may_pass, state, typed};
use crate::agent::Agent;
use crate::agent::error::{AgentError, chain};
use crate::agent::step::Step;
use crate::core::association::Observed;
use crate::core::desired::ancestors;
use crate::core::name::AccountName;
use crate::core::plan::{Outcome, PlannedChange};
use crate::core::time::Epoch;
use crate::slurm::{Applied, SlurmError};
use crate::store::IntentId;

/// How often the raw usage is looked at after resets: slurmctld answers before it has acted.
const LOOKS: u32 = 20;
/// Wait between two looks.
const WAIT: Duration = Duration::from_millis(250);

/// Zeroes the raw usage of these accounts; each with what became of it and whether a failure may pass.
pub(super) async fn reset_all(
    agent: &mut Agent,
    mut resets: Vec<(AccountName, PlannedChange)>,
    before: &Observed,
    now: Epoch,
) -> Result<Vec<(ChangeState, bool)>, AgentError> {
    let mut states = Vec::new();
    while !resets.is_empty() {
        let all: BTreeSet<AccountName> = resets.iter().map(|(account, _)| account.clone()).collect();
        let mut taken = BTreeSet::new();
        let (mut independent, mut below): (Vec<_>, Vec<_>) = resets.into_iter().partition(|(account, _)| {
            taken.insert(account.clone()) && !ancestors(account, before).any(|above| all.contains(above))
        });
        if independent.is_empty() {
            // Accounts in a circle: no Slurm has been seen to show one, and it must not hold the cycle.
            std::mem::swap(&mut independent, &mut below);
        }
        states.extend(reset(agent, independent, now).await?);
        resets = below;
    }
    Ok(states)
}

/// A reset that is under way.
struct Reset {
    id: IntentId,
    account: AccountName,
    planned: PlannedChange,
    before: u64,
    /// `None` where there was nothing to zero.
    result: Option<Result<Applied, SlurmError>>,
}

impl Reset {
    /// Slurm's words against it.
    fn words(&self) -> Option<String> {
        match self.result.as_ref()? {
            Ok(applied) => applied.complaint.clone(),
            Err(error) => Some(chain(error)),
        }
    }

    fn is_seen(&self, counters: &Counters) -> bool {
        counters.get(&self.account).is_some_and(|now| *now < self.before)
    }
}

type Counters = BTreeMap<AccountName, u64>;

/// Resets accounts of which none is above another.
async fn reset(
    agent: &mut Agent,
    resets: Vec<(AccountName, PlannedChange)>,
    now: Epoch,
) -> Result<Vec<(ChangeState, bool)>, AgentError> {
    let mut states = Vec::new();
    let counters = counters(agent).await;
    let mut intended = Vec::new();
    for (account, planned) in resets {
        let before = counters.as_ref().map_err(Clone::clone).and_then(|counters| {
            counters.get(&account).copied().ok_or_else(|| format!("sshare does not show account {account}"))
        });
        match before {
            Ok(before) => {
                let counter = json!({ "raw_usage": before });
                let argv = typed(agent, &planned.change);
                let id = agent.store.put_intent(&planned, &argv, Some(&counter), now)?;
                intended.push(Reset { id, account, planned, before, result: None });
            }
            Err(reason) => states.push((state(agent, planned, Outcome::Unknown { reason }), true)),
        }
    }
    if intended.is_empty() {
        return Ok(states);
    }
    Step::Intended.passed();
    let ran = run(agent, intended).await;
    let seen = look(agent, &ran).await;
    for reset in ran {
        let outcome = outcome(&reset, &seen);
        agent.store.settle_intent(reset.id, &outcome, &[], &[], now)?;
        Step::Settled.passed();
        let passes = reset.result.as_ref().is_some_and(may_pass);
        let state = state(agent, reset.planned, outcome);
        tracing::info!(argv = state.argv, outcome = ?state.outcome, "reset of raw usage");
        states.push((state, passes));
    }
    Ok(states)
}

async fn run(agent: &Agent, resets: Vec<Reset>) -> Vec<Reset> {
    let slurm = &agent.slurm;
    let runs = resets.into_iter().map(|mut reset| async move {
        if reset.before > 0 {
            reset.result = Some(slurm.apply(&reset.planned.change).await);
            Step::Ran.passed();
        }
        reset
    });
    let parallel = agent.config.limits.apply_parallel_max.max(1);
    futures_util::stream::iter(runs).buffered(parallel).collect().await
}

/// Waits until sshare shows every reset that Slurm has taken, and gives what it showed last.
async fn look(agent: &Agent, resets: &[Reset]) -> Result<Counters, String> {
    let mut seen = Ok(Counters::new());
    if resets.iter().all(|reset| reset.result.is_none()) {
        return seen;
    }
    for look in 0..LOOKS {
        seen = counters(agent).await;
        let Ok(counters) = &seen else { break };
        let is_missing =
            |reset: &&Reset| reset.result.is_some() && reset.words().is_none() && !reset.is_seen(counters);
        if !resets.iter().any(|reset| is_missing(&reset)) {
            break;
        }
        if look + 1 < LOOKS {
            agent.clock.wait(WAIT).await;
        }
    }
    Step::ReadBack.passed();
    seen
}

fn outcome(reset: &Reset, seen: &Result<Counters, String>) -> Outcome {
    if reset.result.is_none() {
        return Outcome::AlreadyInEffect;
    }
    let counters = match seen {
        Ok(counters) => counters,
        Err(reason) => return Outcome::Unknown { reason: reason.clone() },
    };
    if reset.is_seen(counters) {
        return Outcome::Applied;
    }
    match reset.words() {
        _ if !counters.contains_key(&reset.account) => {
            Outcome::Unknown { reason: format!("sshare does not show account {}", reset.account) }
        }
        Some(reason) => Outcome::Refused { reason },
        None => {
            Outcome::Unknown { reason: format!("sshare still shows a raw usage of {} or more", reset.before) }
        }
    }
}

async fn counters(agent: &Agent) -> Result<Counters, String> {
    let all = agent.slurm.raw_usage().await.map_err(|error| chain(&error))?;
    Ok(all.into_iter().map(|(account, usage)| (account, usage.raw_usage)).collect())
}
