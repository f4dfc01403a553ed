//! `confirm`: an operator's word for what waits, a plan or totals that would shrink.

use super::{Common, configuration, render};
use crate::agent::error::{AgentError, Exit};
use crate::agent::shrink::{self, HeldUsage};
use crate::agent::summary::CycleSummary;
use crate::agent::{hold, summary};
use crate::store::Store;

/// Confirms a plan; without one, the totals of that name, or shows those that wait.
pub fn run(common: &Common, plan: Option<&str>, usage: Option<&str>) -> Result<Exit, AgentError> {
    let config = configuration(common)?;
    let store = Store::open_reader(&config.store.path)?;
    let stored = |source| AgentError::System { doing: "storing the confirmation", source };
    if let Some(plan) = plan {
        let held = waiting_plan(&store, plan)?;
        hold::confirm(&config.store.path, plan).map_err(stored)?;
        render::text(&format!("plan {plan} is confirmed; the next cycle applies it:\n{held}\n"));
        return Ok(Exit::Done);
    }
    let held = held_usage(&store)?;
    let Some(name) = usage else {
        render::text(&shown(&held));
        return Ok(if held.is_empty() { Exit::Done } else { Exit::Attention });
    };
    let chosen: Vec<HeldUsage> = held.iter().filter(|held| held.name() == name).cloned().collect();
    if chosen.is_empty() {
        let names: Vec<String> = held.iter().map(HeldUsage::name).collect();
        return Err(AgentError::Asked(match names.as_slice() {
            [] => "no usage waits for a confirmation".into(),
            names => format!("no usage of that name waits; what waits is {}", names.join(", ")),
        }));
    }
    shrink::confirm(&config.store.path, &chosen).map_err(stored)?;
    render::text(&format!("confirmed; the next report of usage tells it:\n{}", lines(&chosen)));
    Ok(Exit::Done)
}

/// The changes of the plan that waits, when it is this one.
fn waiting_plan(store: &Store, plan: &str) -> Result<String, AgentError> {
    match store.held()? {
        Some(held) if held.hash == plan => Ok(held.summary),
        Some(held) => Err(AgentError::Asked(format!(
            "the plan that waits is {} and not {plan}; look at it with `slurm-site-agent status`, then confirm that one",
            held.hash
        ))),
        None => Err(AgentError::Asked("no plan waits for a confirmation".into())),
    }
}

/// Totals that the last cycle held back.
fn held_usage(store: &Store) -> Result<Vec<HeldUsage>, AgentError> {
    let last: Option<(CycleSummary, _)> = store.last_report(summary::CYCLE)?;
    Ok(last.map(|(cycle, _)| cycle.held_usage).unwrap_or_default())
}

fn shown(held: &[HeldUsage]) -> String {
    if held.is_empty() {
        return "no usage waits for a confirmation\n".to_owned();
    }
    format!(
        "told is what the server has, now is what would be told instead; nothing is allowed yet:\n{}\
         to allow one: slurm-site-agent confirm --usage ACCOUNT/MONTH\n",
        lines(held)
    )
}

fn lines(held: &[HeldUsage]) -> String {
    let line = |held: &HeldUsage| {
        format!(
            "  {}: {} at {} from {} (told) to {} (now), since {}\n",
            held.name(),
            render::printable(&held.component),
            held.source,
            render::printable(&held.told),
            render::printable(&held.now),
            held.since
        )
    };
    held.iter().map(line).collect()
}
