//! Steps 8 to 11: each change with its intent stored first, then run, then proved by reading back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::StreamExt;
use serde::Serialize;
use serde_json::json;

use super::Agent;
use super::error::{AgentError, chain};
use super::step::Step;
use crate::core::association::Observed;
use crate::core::class::Class;
use crate::core::name::AccountName;
use crate::core::plan::{Because, Change, Outcome, PlannedChange};
use crate::core::settled::settled;
use crate::core::time::Epoch;
use crate::slurm::{Applied, SlurmError};
use crate::store::{Intent, IntentId};

/// How often the raw usage is looked at after a reset: slurmctld answers before it has acted.
const RESET_LOOKS: u32 = 20;
/// Wait between two looks.
const RESET_WAIT: Duration = Duration::from_millis(250);

/// A change and what became of it, for people.
#[derive(Debug, Clone, Serialize)]
pub struct ChangeState {
    /// The program as a person would type it.
    pub argv: String,
    /// The change.
    #[serde(flatten)]
    pub change: Change,
    /// Why it was made.
    pub because: Vec<Because>,
    /// What became of it; `None` in a dry run.
    pub outcome: Option<Outcome>,
}

/// What became of the changes of a plan.
#[derive(Debug, Default)]
pub struct Made {
    /// Each with its outcome.
    pub changes: Vec<ChangeState>,
    /// The accounts as they are afterwards, where they were read again.
    pub observed: Option<Observed>,
    /// Accounts with changes that were not made and may be made by the next cycle.
    pub open: BTreeSet<AccountName>,
}

impl Made {
    /// Whether more may come of what is asked for this account.
    pub fn is_open(&self, account: &AccountName) -> bool {
        self.open.contains(account)
    }

    fn put(&mut self, state: ChangeState, may_pass: bool) {
        let unknown = matches!(state.outcome, Some(Outcome::Unknown { .. }));
        let refused = matches!(state.outcome, Some(Outcome::Refused { .. }));
        if unknown || (refused && may_pass) {
            self.open.extend(state.change.accounts().cloned());
        }
        self.changes.push(state);
    }
}

/// Applies the changes: resets, then rows of users, then accounts.
pub async fn apply(agent: &mut Agent, changes: &[PlannedChange], now: Epoch) -> Result<Made, AgentError> {
    let mut made = Made::default();
    let mut modifies = Vec::new();
    for planned in changes {
        match &planned.change {
            Change::ResetRawUsage { account, .. } => {
                let (state, may_pass) = reset(agent, planned, account, now).await?;
                made.put(state, may_pass);
            }
            Change::Accounts { .. } | Change::User { .. } => modifies.push(planned),
        }
    }
    // Rows of users come first and one after the other; Slurm would refuse the account before them.
    let (users, accounts): (Vec<&PlannedChange>, Vec<&PlannedChange>) =
        modifies.into_iter().partition(|planned| matches!(planned.change, Change::User { .. }));
    let mut ran = run(agent, &users, 1, now).await?;
    ran.extend(run(agent, &accounts, agent.config.limits.apply_parallel_max, now).await?);
    if ran.is_empty() {
        return Ok(made);
    }
    made.observed = match agent.slurm.observe().await {
        Ok(observed) => Some(observed),
        Err(error) => {
            tracing::warn!(
                error = chain(&error),
                "the changes could not be read back; the next cycle looks again"
            );
            None
        }
    };
    Step::ReadBack.passed();
    for (id, planned, result) in ran {
        let outcome = judge(&planned.change, &result, made.observed.as_ref());
        agent.store.settle_intent(id, &outcome, &[], &[], now)?;
        Step::Settled.passed();
        let argv = agent.slurm.argv(&planned.change).to_string();
        tracing::info!(argv, outcome = ?outcome, "change");
        let state = ChangeState {
            argv,
            change: planned.change.clone(),
            because: planned.because.clone(),
            outcome: Some(outcome),
        };
        made.put(state, may_pass(&result));
    }
    Ok(made)
}

type Ran<'a> = (IntentId, &'a PlannedChange, Result<Applied, SlurmError>);

/// Stores the intents, then runs the changes, at most `parallel` at one time.
async fn run<'a>(
    agent: &mut Agent,
    changes: &[&'a PlannedChange],
    parallel: usize,
    now: Epoch,
) -> Result<Vec<Ran<'a>>, AgentError> {
    let mut intended = Vec::new();
    for planned in changes {
        let argv = typed(agent, &planned.change);
        intended.push((agent.store.put_intent(planned, &argv, None, now)?, *planned));
    }
    if !intended.is_empty() {
        Step::Intended.passed();
    }
    let slurm = &agent.slurm;
    let runs = intended.into_iter().map(|(id, planned)| async move {
        let result = slurm.apply(&planned.change).await;
        Step::Ran.passed();
        (id, planned, result)
    });
    Ok(futures_util::stream::iter(runs).buffered(parallel.max(1)).collect().await)
}

fn typed(agent: &Agent, change: &Change) -> Vec<String> {
    let argv = agent.slurm.argv(change);
    std::iter::once(argv.program().name().to_owned()).chain(argv.args().iter().cloned()).collect()
}

/// Whether a failure was an outage and no refusal.
fn may_pass(result: &Result<Applied, SlurmError>) -> bool {
    match result {
        Ok(applied) => applied.may_pass,
        Err(error) => error.class() == Class::Transient,
    }
}

/// Reading back decides; Slurm's words only explain.
fn judge(change: &Change, result: &Result<Applied, SlurmError>, observed: Option<&Observed>) -> Outcome {
    let words = match result {
        Ok(applied) => applied.complaint.clone(),
        Err(error) => Some(chain(error)),
    };
    match observed.map(|observed| settled(change, observed)) {
        Some(Ok(())) => Outcome::Applied,
        Some(Err(differs)) => {
            Outcome::Refused { reason: words.map_or(differs.clone(), |words| format!("{words}; {differs}")) }
        }
        None => Outcome::Unknown { reason: words.unwrap_or_else(|| "it could not be read back".to_owned()) },
    }
}

/// Zeroes the raw usage of one account and proves it in sshare.
async fn reset(
    agent: &mut Agent,
    planned: &PlannedChange,
    account: &AccountName,
    now: Epoch,
) -> Result<(ChangeState, bool), AgentError> {
    let argv = agent.slurm.argv(&planned.change).to_string();
    let state = |outcome| ChangeState {
        argv: argv.clone(),
        change: planned.change.clone(),
        because: planned.because.clone(),
        outcome: Some(outcome),
    };
    let before = match raw_usage(agent, account).await {
        Ok(before) => before,
        Err(reason) => return Ok((state(Outcome::Unknown { reason }), true)),
    };
    let typed = typed(agent, &planned.change);
    let counters = json!({ "raw_usage": before });
    let id = agent.store.put_intent(planned, &typed, Some(&counters), now)?;
    Step::Intended.passed();
    let (outcome, may_pass) = if before == 0 {
        (Outcome::AlreadyInEffect, false)
    } else {
        let result = agent.slurm.apply(&planned.change).await;
        Step::Ran.passed();
        (look_at_reset(agent, account, before, &result).await, may_pass(&result))
    };
    agent.store.settle_intent(id, &outcome, &[], &[], now)?;
    Step::Settled.passed();
    tracing::info!(argv, outcome = ?outcome, "reset of raw usage");
    Ok((state(outcome), may_pass))
}

/// Waits until sshare shows that a reset has been made.
async fn look_at_reset(
    agent: &Agent,
    account: &AccountName,
    before: u64,
    result: &Result<Applied, SlurmError>,
) -> Outcome {
    let words = match result {
        Ok(applied) => applied.complaint.clone(),
        Err(error) => Some(chain(error)),
    };
    for look in 0..RESET_LOOKS {
        match raw_usage(agent, account).await {
            Ok(now) if now < before => {
                Step::ReadBack.passed();
                return Outcome::Applied;
            }
            Ok(_) if words.is_some() => break,
            Ok(_) if look + 1 < RESET_LOOKS => agent.clock.wait(RESET_WAIT).await,
            Ok(_) => {}
            Err(reason) => return Outcome::Unknown { reason },
        }
    }
    match words {
        Some(reason) => Outcome::Refused { reason },
        None => Outcome::Unknown { reason: format!("sshare still shows a raw usage of {before} or more") },
    }
}

async fn raw_usage(agent: &Agent, account: &AccountName) -> Result<u64, String> {
    let all = agent.slurm.raw_usage().await.map_err(|error| chain(&error))?;
    all.get(account)
        .map(|usage| usage.raw_usage)
        .ok_or_else(|| format!("sshare does not show account {account}"))
}

/// Looks at intents that a crash or an outage left open, before anything is run again. A change is settled by what is
/// there; a reset by its counter: without decay it only falls when it is reset.
pub async fn settle_open_intents(
    agent: &mut Agent,
    observed: &Observed,
    now: Epoch,
) -> Result<Vec<String>, AgentError> {
    let open = agent.store.unsettled_intents()?;
    let mut notes = Vec::new();
    let resets = open.iter().any(|intent| matches!(intent.change.change, Change::ResetRawUsage { .. }));
    let counters: BTreeMap<AccountName, u64> = if resets {
        match agent.slurm.raw_usage().await {
            Ok(all) => all.into_iter().map(|(account, usage)| (account, usage.raw_usage)).collect(),
            Err(error) => {
                notes.push(format!("open resets could not be looked at: {}", chain(&error)));
                return Ok(notes);
            }
        }
    } else {
        BTreeMap::new()
    };
    for intent in open {
        let outcome = match &intent.change.change {
            Change::ResetRawUsage { account, .. } => reset_outcome(&intent, counters.get(account).copied()),
            change => match settled(change, observed) {
                Ok(()) => Outcome::Applied,
                Err(differs) => Outcome::Refused {
                    reason: format!("interrupted, and not in effect when looked at again: {differs}"),
                },
            },
        };
        notes.push(format!(
            "an interrupted change was looked at again: {}: {outcome:?}",
            intent.argv.join(" ")
        ));
        tracing::warn!(argv = intent.argv.join(" "), outcome = ?outcome, "an interrupted change was looked at again");
        agent.store.settle_intent(intent.id, &outcome, &[], &[], now)?;
    }
    Ok(notes)
}

fn reset_outcome(intent: &Intent, counter: Option<u64>) -> Outcome {
    let before = intent.before.as_ref().and_then(|before| before["raw_usage"].as_u64());
    match (before, counter) {
        (Some(0), _) => Outcome::AlreadyInEffect,
        (Some(before), Some(counter)) if counter < before => Outcome::Applied,
        (Some(_), Some(_)) => {
            Outcome::Refused { reason: "interrupted before the counter was zeroed".to_owned() }
        }
        _ => Outcome::Unknown { reason: "the counter is not known".to_owned() },
    }
}
