//! LocalProjectIDs that the resources of a server carry in their metadata.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::super::Agent;
use super::super::error::AgentError;
use crate::central::waldur::wire::resource_texts;
use crate::core::allocation::Allocation;
use crate::core::name::{AccountName, SourceName};
use crate::core::time::Epoch;

type Projects = BTreeMap<AccountName, String>;

fn kind(source: &SourceName) -> String {
    format!("amie_projects:{source}")
}

/// Stores what the resources of a source say now. A resource that is no longer listed (it has ended) keeps what it said last:
/// its late jobs still belong to its project.
pub fn remember(
    agent: &mut Agent,
    source: &SourceName,
    rows: &[Value],
    allocations: &[Allocation],
    notices: &mut Vec<String>,
    now: Epoch,
) -> Result<(), AgentError> {
    let Some(key) = agent.config.amie.as_ref().and_then(|amie| amie.project_metadata.clone()) else {
        return Ok(());
    };
    let (said, odd) = resource_texts(rows, allocations, &key);
    notices.extend(odd.iter().map(ToString::to_string));
    let listed: BTreeSet<&AccountName> = allocations.iter().map(|allocation| &allocation.account).collect();
    let before = agent.store.last_report::<Projects>(&kind(source))?.map(|(known, _)| known);
    let before = before.unwrap_or_default();
    let mut known: Projects =
        before.clone().into_iter().filter(|(account, _)| !listed.contains(account)).collect();
    known.extend(said);
    if known != before {
        agent.store.put_report(&kind(source), &known, now)?;
    }
    Ok(())
}

/// What all sources say; an account of which two say different things has none.
pub fn known(agent: &Agent) -> Result<Projects, AgentError> {
    let mut projects: BTreeMap<AccountName, BTreeSet<String>> = BTreeMap::new();
    if agent.config.amie.as_ref().is_some_and(|amie| amie.project_metadata.is_some()) {
        for source in &agent.config.sources {
            let said = agent.store.last_report::<Projects>(&kind(&source.name))?;
            for (account, project) in said.map(|(said, _)| said).unwrap_or_default() {
                projects.entry(account).or_default().insert(project);
            }
        }
    }
    let single = projects.into_iter().filter(|(_, projects)| projects.len() == 1);
    Ok(single.filter_map(|(account, projects)| Some((account, projects.into_iter().next()?))).collect())
}
