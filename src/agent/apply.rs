//! Steps 8 to 11: each change with its intent stored first, then run, then proved by reading back.

mod reset;

use std::collections::{BTreeMap, BTreeSet};

use futures_util::StreamExt;
use serde::Serialize;

use super::Agent;
use super::error::{AgentError, chain};
use super::step::Step;
use crate::core::association::Observed;
use crate::core::class::Class;
use crate::core::name::AccountName;
use crate::core::plan::{Because, Change, Outcome, PlannedChange, halves, settled};
use crate::core::time::Epoch;
use crate::slurm::{Applied, SlurmError};
use crate::store::{Intent, IntentId};

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

/// Applies the changes: resets, then rows of users, then accounts. `before`: the accounts that the plan was made from.
pub async fn apply(
    agent: &mut Agent,
    changes: &[PlannedChange],
    before: &Observed,
    now: Epoch,
) -> Result<Made, AgentError> {
    let mut made = Made::default();
    let (mut resets, mut users, mut accounts) = (Vec::new(), Vec::new(), Vec::new());
    for planned in changes.iter().cloned() {
        match &planned.change {
            Change::ResetRawUsage { account, .. } => resets.push((account.clone(), planned)),
            Change::User { .. } | Change::Users { .. } => users.push(planned),
            Change::Accounts { .. } => accounts.push(planned),
        }
    }
    for (state, may_pass) in reset::reset_all(agent, resets, before, now).await? {
        made.put(state, may_pass);
    }
    // Rows of users come first: Slurm would refuse the account before them.
    let mut ran = run_and_halve(agent, users, now).await?;
    ran.extend(run_and_halve(agent, accounts, now).await?);
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
    for Ran { id, planned, result } in ran {
        let outcome = judge(&planned.change, &result, made.observed.as_ref());
        agent.store.settle_intent(id, &outcome, &[], &[], now)?;
        Step::Settled.passed();
        let state = state(agent, planned, outcome);
        tracing::info!(argv = state.argv, outcome = ?state.outcome, "change");
        made.put(state, may_pass(&result));
    }
    Ok(made)
}

fn state(agent: &Agent, planned: PlannedChange, outcome: Outcome) -> ChangeState {
    let argv = agent.slurm.argv(&planned.change).to_string();
    ChangeState { argv, change: planned.change, because: planned.because, outcome: Some(outcome) }
}

/// A change that was run.
struct Ran {
    id: IntentId,
    planned: PlannedChange,
    result: Result<Applied, SlurmError>,
}

impl Ran {
    /// Slurm's words, where it refused the change as a whole.
    fn refusal(&self) -> Option<&str> {
        let applied = self.result.as_ref().ok().filter(|applied| !applied.may_pass)?;
        applied.complaint.as_deref().filter(|_| applied.echoed.is_empty())
    }
}

/// Runs the changes. One association that Slurm refuses keeps all others of its modify from being changed: a refused group is
/// run again as two halves, and so on, until what is refused stands alone. Where both halves are refused in the same words it
/// is not about one of them (a QOS that does not exist, no right to change anything), and there is no more halving.
async fn run_and_halve(
    agent: &mut Agent,
    changes: Vec<PlannedChange>,
    now: Epoch,
) -> Result<Vec<Ran>, AgentError> {
    let mut done = Vec::new();
    let mut more = agent.config.limits.changes_max;
    let mut wave = run(agent, changes, now).await?;
    let mut is_of_halves = false;
    while !wave.is_empty() {
        let words: Vec<Option<String>> = wave.iter().map(|ran| ran.refusal().map(str::to_owned)).collect();
        let mut next = Vec::new();
        for (place, ran) in wave.into_iter().enumerate() {
            let alone = !is_of_halves || words[place ^ 1] != words[place];
            match &words[place] {
                Some(reason) if alone && next.len() + 2 <= more => match halves(&ran.planned) {
                    Some(halves) => {
                        let outcome = Outcome::Refused { reason: format!("{reason}; run again in halves") };
                        agent.store.settle_intent(ran.id, &outcome, &[], &[], now)?;
                        tracing::info!(argv = agent.slurm.argv(&ran.planned.change).to_string(), outcome = ?outcome, "change");
                        next.extend(halves);
                    }
                    None => done.push(ran),
                },
                _ => done.push(ran),
            }
        }
        more -= next.len();
        is_of_halves = true;
        wave = run(agent, next, now).await?;
    }
    Ok(done)
}

/// Stores the intents, then runs the changes, several at one time.
async fn run(agent: &mut Agent, changes: Vec<PlannedChange>, now: Epoch) -> Result<Vec<Ran>, AgentError> {
    let mut intended = Vec::new();
    for planned in changes {
        let argv = typed(agent, &planned.change);
        intended.push((agent.store.put_intent(&planned, &argv, None, now)?, planned));
    }
    if !intended.is_empty() {
        Step::Intended.passed();
    }
    let slurm = &agent.slurm;
    let runs = intended.into_iter().map(|(id, planned)| async move {
        let result = slurm.apply(&planned.change).await;
        Step::Ran.passed();
        Ran { id, planned, result }
    });
    let parallel = agent.config.limits.apply_parallel_max.max(1);
    Ok(futures_util::stream::iter(runs).buffered(parallel).collect().await)
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
