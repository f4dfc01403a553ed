//! Step 1: what the sources say, or said last.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Agent;
use super::amie::projects;
use super::error::{AgentError, chain};
use super::quotas::{self, QuotaOffer};
use super::summary::{self, CycleSummary};
use crate::central::CentralError;
use crate::config::{Config, LOCAL_SOURCE};
use crate::core::allocation::Allocation;
use crate::core::command::{Command, CommandKind};
use crate::core::name::SourceName;
use crate::core::policy::Policy;
use crate::core::time::Epoch;
use crate::store::Snapshot;

/// What one source says, and whether it may still be acted on.
#[derive(Debug, Clone)]
pub struct Offer {
    /// The source.
    pub source: SourceName,
    /// Its policies.
    pub policies: Vec<Arc<Policy>>,
    /// Its allocations.
    pub allocations: Vec<Arc<Allocation>>,
    /// Why nothing new may be decided on it, when that is so.
    pub stale: Option<String>,
}

/// How a source stands, for people.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SourceState {
    /// Its name.
    pub name: SourceName,
    /// Accepted policies.
    pub policies: usize,
    /// Accepted allocations.
    pub allocations: usize,
    /// Accepted quotas.
    #[serde(default)]
    pub quotas: usize,
    /// When it last answered in full.
    pub answered: Option<Epoch>,
    /// Why it did not answer now.
    pub error: Option<String>,
    /// What it said that is odd.
    pub notices: Vec<String>,
    /// Texts of its policies for people.
    pub warnings: Vec<String>,
}

/// Everything of step 1.
#[derive(Debug, Default)]
pub struct Facts {
    /// By source of policies.
    pub offers: Vec<Offer>,
    /// By source of quotas, in the order of the configuration.
    pub quotas: Vec<QuotaOffer>,
    /// For people.
    pub states: Vec<SourceState>,
}

/// Which sources are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asking {
    /// All of them.
    Everyone,
    /// Those that said that they have changed; the others stand with what they said last.
    Stirred,
}

/// Asks every source; one that does not answer stands with what it said last, and so does every source of an agent that
/// asks no server.
pub async fn fetch(agent: &mut Agent, now: Epoch) -> Result<Facts, AgentError> {
    fetch_from(agent, Asking::Everyone, now).await
}

/// As [`fetch`], from fewer sources.
pub async fn fetch_from(agent: &mut Agent, asking: Asking, now: Epoch) -> Result<Facts, AgentError> {
    let mut facts = Facts::default();
    let before = match asking {
        Asking::Everyone => Vec::new(),
        Asking::Stirred => last_states(agent)?,
    };
    for source in agent.config.sources.clone() {
        let asked = asking == Asking::Everyone || agent.stirred.contains(&source.name);
        let mut state = match source.policies() {
            Some(_) => {
                let (offer, state) = offer(agent, &source.name, asked, now).await?;
                facts.offers.push(offer);
                state
            }
            None => {
                let (offer, state) = quotas::offer(agent, &source, asked, now).await?;
                facts.quotas.push(offer);
                state
            }
        };
        // Who was not asked stands as the last cycle that asked left it.
        if !asked && let Some(last) = before.iter().find(|last| last.name == source.name) {
            (state.error, state.notices) = (last.error.clone(), last.notices.clone());
        }
        facts.states.push(state);
    }
    facts.add_local(agent, now);
    Ok(facts)
}

fn last_states(agent: &Agent) -> Result<Vec<SourceState>, AgentError> {
    let last: Option<(CycleSummary, Epoch)> = agent.store.last_report(summary::CYCLE)?;
    Ok(last.map(|(summary, _)| summary.sources).unwrap_or_default())
}

async fn offer(
    agent: &mut Agent,
    name: &SourceName,
    asked: bool,
    now: Epoch,
) -> Result<(Offer, SourceState), AgentError> {
    let (mut notices, mut error) = (Vec::new(), None);
    if let Some(place) = agent.centrals.iter().position(|central| asked && central.name == *name) {
        match ask(agent, place).await {
            Ok((snapshot, said, rows)) => {
                notices = said;
                let allocations = &snapshot.allocations;
                projects::remember(agent, name, &rows, allocations, &mut notices, now)?;
                agent.store.put_snapshot(name, &snapshot, now)?;
                for policy in &snapshot.policies {
                    let received =
                        receive(agent, place, policy, &snapshot.allocations, now, &mut notices).await?;
                    if let Err(failed) = received {
                        error = Some(failed);
                    }
                }
            }
            Err(failed) => error = Some(unanswered(name, &failed)),
        }
    }
    let (snapshot, answered) = match agent.store.snapshot(name)? {
        Some((snapshot, at)) => (snapshot, Some(at)),
        None => (Snapshot::default(), None),
    };
    let state = state(name, &snapshot, answered, error, notices);
    let stale = answered.and_then(|at| too_old(&agent.config, name, at, now));
    let policies = snapshot.policies.into_iter().map(Arc::new).collect();
    let allocations = snapshot.allocations.into_iter().map(Arc::new).collect();
    Ok((Offer { source: name.clone(), policies, allocations, stale }, state))
}

/// Logs that a source did not answer, and gives the reason.
pub(super) fn unanswered(name: &SourceName, failed: &CentralError) -> String {
    tracing::warn!(source = %name, error = chain(failed), "a source did not answer; what it said last stands");
    chain(failed)
}

/// Why what a source said at `at` decides nothing any more, when that is so.
pub(super) fn too_old(config: &Config, name: &SourceName, at: Epoch, now: Epoch) -> Option<String> {
    let age_max_s = i64::try_from(config.limits.facts_age_max.as_secs()).unwrap_or(i64::MAX);
    (now.since(at) > age_max_s)
        .then(|| format!("source {name} has not answered since {at}; what is in force stays in force"))
}

impl Facts {
    fn add_local(&mut self, agent: &Agent, now: Epoch) {
        let Ok(source) = SourceName::parse(LOCAL_SOURCE) else { return };
        for local in &agent.config.allocations {
            self.offers.push(Offer {
                source: source.clone(),
                policies: vec![Arc::clone(&local.policy)],
                allocations: vec![Arc::clone(&local.allocation)],
                stale: None,
            });
        }
        if !agent.config.allocations.is_empty() {
            let count = agent.config.allocations.len();
            self.states.push(SourceState {
                name: source,
                policies: count,
                allocations: count,
                quotas: 0,
                answered: Some(now),
                error: None,
                notices: Vec::new(),
                warnings: Vec::new(),
            });
        }
    }
}

fn state(
    name: &SourceName,
    snapshot: &Snapshot,
    answered: Option<Epoch>,
    error: Option<String>,
    notices: Vec<String>,
) -> SourceState {
    let mut warnings: Vec<String> = snapshot.policies.iter().flat_map(|p| p.warnings.clone()).collect();
    for policy in &snapshot.policies {
        if !policy.actions.unknown.is_empty() {
            warnings.push(format!(
                "policy {} has actions this agent does not know: {}",
                policy.name,
                policy.actions.unknown.join(", ")
            ));
        }
    }
    SourceState {
        name: name.clone(),
        policies: snapshot.policies.len(),
        allocations: snapshot.allocations.len(),
        quotas: 0,
        answered,
        error,
        notices,
        warnings,
    }
}

/// What the source says, its remarks, and its resources as it sent them.
async fn ask(agent: &Agent, place: usize) -> Result<(Snapshot, Vec<String>, Vec<Value>), CentralError> {
    let client = &agent.centrals[place].client;
    let policies = client.fetch_policies().await?;
    let allocations = client.fetch_allocations().await?;
    let mut notices: Vec<String> = policies.notices.iter().map(ToString::to_string).collect();
    notices.extend(allocations.notices.iter().map(ToString::to_string));
    Ok((Snapshot { policies: policies.value, allocations: allocations.value }, notices, allocations.raw))
}

/// Puts the policy's commands into the inbox. At the first look old ones, and resets of whatever age, are taken as done by
/// whoever was here before; so is a reset from before the first look that a forgetful server shows later.
async fn receive(
    agent: &mut Agent,
    place: usize,
    policy: &Policy,
    allocations: &[Allocation],
    now: Epoch,
    notices: &mut Vec<String>,
) -> Result<Result<(), String>, AgentError> {
    let (mut commands, rows) = match history(agent, place, policy, None, notices).await {
        Ok(read) => read,
        Err(failed) => return Ok(Err(failed)),
    };
    // A full answer whose oldest command is new may have been cut off: then every resource is asked for its own history,
    // until all have answered once. Stored first, so that a failure in between forgets nothing.
    let gap = format!("inbox_gap:{}:{}", policy.source, policy.id);
    if let Some(oldest) = commands.first()
        && rows >= agent.config.limits.history_rows_max
        && !agent.store.knows_command(&oldest.uuid)?
    {
        agent.store.put_cursor(&gap, 1)?;
    }
    let mut failed = None;
    if agent.store.get_cursor(&gap)? == Some(1) {
        let asked: BTreeSet<&str> = allocations.iter().map(|allocation| allocation.id.as_str()).collect();
        for resource in asked {
            match history(agent, place, policy, Some(resource), notices).await {
                Ok((own, _)) => commands.extend(own),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        commands.sort_by_key(|command| command.issued);
    }
    take_in(agent, policy, commands, now)?;
    if failed.is_none() && agent.store.get_cursor(&gap)? == Some(1) {
        agent.store.put_cursor(&gap, 0)?;
    }
    Ok(failed.map_or(Ok(()), Err))
}

/// The commands of a policy, oldest first, and how many rows the server showed.
async fn history(
    agent: &Agent,
    place: usize,
    policy: &Policy,
    resource: Option<&str>,
    notices: &mut Vec<String>,
) -> Result<(Vec<Command>, usize), String> {
    match agent.centrals[place].client.fetch_commands(&policy.id, resource).await {
        Ok(fetched) => {
            notices.extend(fetched.notices.iter().map(ToString::to_string));
            Ok((fetched.value, fetched.raw.len()))
        }
        Err(error) => {
            tracing::warn!(
                policy = policy.id,
                error = chain(&error),
                "the commands of a policy were not read"
            );
            Err(chain(&error))
        }
    }
}

fn take_in(agent: &mut Agent, policy: &Policy, commands: Vec<Command>, now: Epoch) -> Result<(), AgentError> {
    let mark = format!("inbox:{}:{}", policy.source, policy.id);
    let first_look = agent.store.last_success(&mark)?;
    let limits = &agent.config.limits;
    let age_max_s = i64::try_from(limits.command_age_max.as_secs()).unwrap_or(i64::MAX);
    let skew_max_s = i64::try_from(limits.clock_skew_max.as_secs()).unwrap_or(i64::MAX);
    let before_us = |command: &Command| match first_look {
        None => now.since(command.issued) > age_max_s || command.kind == CommandKind::ResetUsage,
        Some(first) => command.kind == CommandKind::ResetUsage && first.since(command.issued) > skew_max_s,
    };
    let (old, new): (Vec<Command>, Vec<Command>) = commands.into_iter().partition(before_us);
    agent.store.adopt(&old, now)?;
    agent.store.receive(&new, now)?;
    if first_look.is_none() {
        agent.store.put_success(&mark, now)?;
    }
    Ok(())
}
