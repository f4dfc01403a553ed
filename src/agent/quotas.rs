//! Sources of quotas: Waldur's quotas, Nomad, DataRobot. Each is asked in its own words; what it says becomes
//! [`SourceQuotas`], is stored, and stands until it says something else.
//!
//! A source that does not answer stays in force with what it said last, until that is older than `limits.facts_age_max`;
//! from then on nothing is decided on it and what is in force on Slurm stays. It is never taken for "no limit". The same
//! holds for a single quota that is not understood: it stands as it was understood last.

use std::collections::BTreeSet;

use super::error::AgentError;
use super::facts::{SourceState, too_old, unanswered};
use super::{Agent, surroundings};
use crate::agent::clock::Clock;
use crate::central::datarobot::{DataRobotClient, QuotasOf};
use crate::central::nomad::NomadClient;
use crate::central::waldur::WaldurQuotaClient;
use crate::central::{CentralError, Connection, Http, Notice};
use crate::config::{NomadSource, Source, SourceKind};
use crate::core::name::SourceName;
use crate::core::quota_map::{BudgetMap, RateMap, SourceQuotas};
use crate::core::time::Epoch;
use crate::store::AcceptedQuotas;

/// The client of a server of quotas.
#[derive(Debug)]
pub enum QuotaClient {
    /// Waldur's quotas.
    Budget(WaldurQuotaClient),
    /// Nomad.
    Concurrency(NomadClient),
    /// DataRobot.
    Rate(DataRobotClient),
}

impl QuotaClient {
    /// The part that all of them share: clock skew, name.
    pub fn http(&self) -> &Http {
        match self {
            QuotaClient::Budget(client) => client.http(),
            QuotaClient::Concurrency(client) => client.http(),
            QuotaClient::Rate(client) => client.http(),
        }
    }
}

/// A server of quotas.
#[derive(Debug)]
pub struct QuotaServer {
    /// The source's name.
    pub name: SourceName,
    /// Its client.
    pub client: QuotaClient,
}

/// What one source of quotas says, and whether it may still be acted on.
#[derive(Debug, Clone)]
pub struct QuotaOffer {
    /// The source.
    pub source: SourceName,
    /// Its quotas, with the map of the configuration. Empty when it has never answered.
    pub quotas: SourceQuotas,
    /// When it last answered.
    pub answered: Option<Epoch>,
    /// Why nothing new may be decided on it, when that is so: it has not answered for too long, or never.
    pub stale: Option<String>,
}

/// The client of a source of quotas; its token is read here and nothing is asked yet. `None` for a source of policies.
pub fn server(source: &Source, clock: &Clock) -> Result<Option<QuotaServer>, AgentError> {
    if source.policies().is_some() {
        return Ok(None);
    }
    let (connection, around) = (connection(source)?, surroundings(clock));
    let client = match &source.kind {
        SourceKind::WaldurPolicy(_) => return Ok(None),
        SourceKind::WaldurQuota(_) => QuotaClient::Budget(WaldurQuotaClient::new(&connection, around)?),
        SourceKind::Nomad(_) => QuotaClient::Concurrency(NomadClient::new(&connection, around)?),
        SourceKind::DataRobot(_) => QuotaClient::Rate(DataRobotClient::new(&connection, around)?),
    };
    Ok(Some(QuotaServer { name: source.name.clone(), client }))
}

/// How a source is reached; its token is read here.
pub(super) fn connection(source: &Source) -> Result<Connection, AgentError> {
    Ok(Connection {
        name: source.name.clone(),
        url: source.url.to_string(),
        token: source.token.read()?,
        ca_file: source.ca_file.clone(),
        proxy: source.proxy.clone(),
        timeout: source.timeout,
        response_bytes_max: usize::try_from(source.response_bytes_max).unwrap_or(usize::MAX),
        attempts_max: source.attempts_max,
    })
}

/// What a source of quotas says, asked now where `asked`.
pub(super) async fn offer(
    agent: &mut Agent,
    source: &Source,
    asked: bool,
    now: Epoch,
) -> Result<(QuotaOffer, SourceState), AgentError> {
    let name = &source.name;
    let (mut notices, mut error) = (Vec::new(), None);
    let mut accepted = last_said(agent, source)?;
    if let Some(server) = agent.quota_servers.iter().find(|server| asked && server.name == *name) {
        let stirred = agent.stirred.take(name);
        match ask(&server.client, &source.kind).await {
            Ok((mut said, odd)) => {
                keep_rejected(&mut said, accepted.as_ref().map(|accepted| &accepted.said), &odd);
                agent.store.put_quotas(name, &said, now)?;
                accepted = last_said(agent, source)?;
                notices = odd.iter().map(ToString::to_string).collect();
            }
            Err(failed) => {
                error = Some(unanswered(name, &failed));
                if stirred {
                    agent.stirred.note(name);
                }
            }
        }
    }
    let answered = accepted.as_ref().map(|accepted| accepted.at);
    let quotas = accepted.map_or_else(|| nothing_said(&source.kind), |accepted| accepted.said);
    let stale = match answered {
        Some(at) => too_old(&agent.config, name, at, now),
        None => Some(format!("source {name} has never answered; what is in force stays in force")),
    };
    let state = SourceState {
        name: name.clone(),
        policies: 0,
        allocations: 0,
        quotas: quotas.len(),
        answered,
        error,
        notices,
        warnings: Vec::new(),
    };
    Ok((QuotaOffer { source: name.clone(), quotas, answered, stale }, state))
}

/// What the source said last, read with the map that the configuration has now.
fn last_said(agent: &Agent, source: &Source) -> Result<Option<AcceptedQuotas>, AgentError> {
    let Some(accepted) = agent.store.quotas(&source.name)? else { return Ok(None) };
    // A source of another kind that had this name says nothing for this one.
    let said = with_map(accepted.said, &source.kind);
    Ok(said.map(|said| AcceptedQuotas { said, ..accepted }))
}

/// The same quotas with the map of the configuration; `None` when they are of another kind.
fn with_map(said: SourceQuotas, kind: &SourceKind) -> Option<SourceQuotas> {
    match (said, kind) {
        (SourceQuotas::Budget { quotas, map: found }, SourceKind::WaldurQuota(map)) => {
            let accounts = if map.accounts.is_empty() { found.accounts } else { map.accounts.clone() };
            Some(SourceQuotas::Budget { quotas, map: BudgetMap { accounts, ..map.clone() } })
        }
        (SourceQuotas::Concurrency { quotas, usages, .. }, SourceKind::Nomad(nomad)) => {
            Some(SourceQuotas::Concurrency { quotas, usages, map: nomad.map.clone() })
        }
        (SourceQuotas::Rate { quotas, .. }, SourceKind::DataRobot(map)) => {
            Some(SourceQuotas::Rate { quotas, map: map.clone() })
        }
        _ => None,
    }
}

/// What a source stands for that has never answered.
fn nothing_said(kind: &SourceKind) -> SourceQuotas {
    match kind {
        SourceKind::WaldurPolicy(_) => SourceQuotas::Rate { quotas: Vec::new(), map: RateMap::default() },
        SourceKind::WaldurQuota(map) => SourceQuotas::Budget { quotas: Vec::new(), map: map.clone() },
        SourceKind::Nomad(nomad) => {
            SourceQuotas::Concurrency { quotas: Vec::new(), usages: Vec::new(), map: nomad.map.clone() }
        }
        SourceKind::DataRobot(map) => SourceQuotas::Rate { quotas: Vec::new(), map: map.clone() },
    }
}

/// Asks the server. Only quotas that the map gives an account are kept.
pub(super) async fn ask(
    client: &QuotaClient,
    kind: &SourceKind,
) -> Result<(SourceQuotas, Vec<Notice>), CentralError> {
    match (client, kind) {
        (QuotaClient::Budget(client), SourceKind::WaldurQuota(map)) => budgets(client, map).await,
        (QuotaClient::Concurrency(client), SourceKind::Nomad(nomad)) => concurrency(client, nomad).await,
        (QuotaClient::Rate(client), SourceKind::DataRobot(map)) => rates(client, map).await,
        // A client is made from the same source.
        _ => Ok((nothing_said(kind), Vec::new())),
    }
}

async fn budgets(
    client: &WaldurQuotaClient,
    map: &BudgetMap,
) -> Result<(SourceQuotas, Vec<Notice>), CentralError> {
    let mut map = map.clone();
    let names: BTreeSet<&str> = map.tres.keys().map(String::as_str).collect();
    let listed = client.list_named(&names).await?;
    let (mut quotas, mut notices) = (listed.value, listed.notices);
    if map.accounts.is_empty() {
        let found = client.accounts().await?;
        notices.extend(found.notices);
        for (uuid, account) in found.value {
            // A scope may have the uuid with dashes or without.
            map.accounts.insert(uuid.replace('-', ""), account.clone());
            map.accounts.insert(uuid, account);
        }
    }
    quotas.retain(|quota| map.account(&quota.scope).is_some());
    Ok((SourceQuotas::Budget { quotas, map }, notices))
}

async fn concurrency(
    client: &NomadClient,
    nomad: &NomadSource,
) -> Result<(SourceQuotas, Vec<Notice>), CentralError> {
    let map = nomad.map.clone();
    let listed = client.list(&nomad.prefix).await?.value;
    let (mut quotas, mut notices) = (listed.value, listed.notices);
    quotas.retain(|quota| map.accounts.contains_key(&quota.name));
    let mut usages = Vec::new();
    if map.shared_with_nomad {
        let listed = client.list_usages(&nomad.prefix).await?.value;
        usages = listed.value;
        usages.retain(|usage| map.accounts.contains_key(&usage.name));
        notices.extend(listed.notices);
    }
    Ok((SourceQuotas::Concurrency { quotas, usages, map }, notices))
}

async fn rates(client: &DataRobotClient, map: &RateMap) -> Result<(SourceQuotas, Vec<Notice>), CentralError> {
    let listed = client.list(QuotasOf::Everything).await?;
    let mut quotas = listed.value;
    quotas.retain(|quota| map.resources.contains_key(&quota.resource_id));
    Ok((SourceQuotas::Rate { quotas, map: map.clone() }, listed.notices))
}

/// What was not understood now stands as it was understood last.
fn keep_rejected(said: &mut SourceQuotas, before: Option<&SourceQuotas>, notices: &[Notice]) {
    let rejected: BTreeSet<&str> =
        notices.iter().filter(|notice| notice.rejected).map(|notice| notice.id.as_str()).collect();
    match (said, before) {
        (SourceQuotas::Budget { quotas, map }, Some(SourceQuotas::Budget { quotas: old, map: old_map })) => {
            let lost = |id: &str| rejected.contains(id) || rejected.iter().any(|r| r.replace('-', "") == id);
            let accounts = old_map.accounts.iter().filter(|(uuid, _)| lost(uuid));
            for (uuid, account) in accounts {
                map.accounts.entry(uuid.clone()).or_insert_with(|| account.clone());
            }
            keep(
                quotas,
                old,
                |quota| &quota.id,
                |quota| {
                    rejected.contains(quota.id.as_str())
                        || crate::core::quota_map::scope_uuid(&quota.scope).is_some_and(lost)
                },
            );
        }
        (
            SourceQuotas::Concurrency { quotas, usages, .. },
            Some(SourceQuotas::Concurrency { quotas: old, usages: used, .. }),
        ) => {
            keep(quotas, old, |quota| &quota.name, |quota| rejected.contains(quota.name.as_str()));
            keep(usages, used, |usage| &usage.name, |usage| rejected.contains(usage.name.as_str()));
        }
        (SourceQuotas::Rate { quotas, .. }, Some(SourceQuotas::Rate { quotas: old, .. })) => {
            keep(quotas, old, |quota| &quota.id, |quota| rejected.contains(quota.id.as_str()));
        }
        _ => {}
    }
}

fn keep<T: Clone>(now: &mut Vec<T>, before: &[T], id: impl Fn(&T) -> &String, lost: impl Fn(&T) -> bool) {
    for old in before.iter().filter(|old| lost(old)) {
        if !now.iter().any(|new| id(new) == id(old)) {
            now.push(old.clone());
        }
    }
}
