//! What will be told: component usage of allocations by month. (AMIE records: [`super::amie`].)

use std::collections::BTreeMap;

use super::Agent;
use super::error::AgentError;
use super::facts::Facts;
use super::judge::{Periods, Totals};
use super::shrink::Watch;
use super::step::Step;
use crate::config::LOCAL_SOURCE;
use crate::core::association::JobLimit;
use crate::core::association::Observed;
use crate::core::component::Components;
use crate::core::evaluate::{Decision, QosRules};
use crate::core::period::Period;
use crate::core::report::{BackendMetadata, ComponentUsage, Message};
use crate::core::time::Epoch;
use crate::core::tres::TresSeconds;

/// Digits after the point of a component's amount, as Waldur keeps them.
const AMOUNT_PLACES: u32 = 2;
/// Name of what was last put into the outbox as in force, among the reports of the store.
const METADATA: &str = "backend_metadata";
/// Half a day: an instant of the first day of a month that no server's zone moves into the month before.
const NOON_S: i64 = 12 * 3600;

/// Puts the usage of every allocation of a server into the outbox; what is unchanged since it was last told stays out, and
/// so does what would shrink without a known reason.
pub fn component_usage(
    agent: &mut Agent,
    facts: &Facts,
    periods: &Periods,
    totals: &Totals,
    observed: &Observed,
    now: Epoch,
) -> Result<usize, AgentError> {
    let tree = observed.tree();
    let mut messages = Vec::new();
    let mut watch = Watch::begin(agent, now)?;
    for offer in facts.offers.iter().filter(|offer| offer.source.as_str() != LOCAL_SOURCE) {
        for allocation in &offer.allocations {
            let names = tree.names(&allocation.account);
            if names.is_empty() {
                continue;
            }
            for month in &periods.months {
                let Some(usage) = totals.get(&month.window()) else { continue };
                let users = usage.by_user(names.iter().map(String::as_str));
                let mut built = ComponentUsage {
                    source: offer.source.clone(),
                    allocation: allocation.id.clone(),
                    month: month.name.clone(),
                    date: reporting_date(month, now),
                    amounts: amounts(&agent.config.components, &usage.sum(names.iter().map(String::as_str))),
                    users: if agent.config.reports.users {
                        user_amounts(&agent.config.components, &users)
                    } else {
                        BTreeMap::new()
                    },
                };
                // A month without any use is only told when something else was told of it before.
                if users.is_empty() && agent.store.last_delivered(&built.key())?.is_none() {
                    continue;
                }
                if watch.passes(agent, &mut built, &names, month)? {
                    messages.push(Message::ComponentUsage(built));
                }
            }
        }
    }
    let enqueued = agent.store.enqueue_all(&messages, None, now)?;
    watch.end(agent)?;
    Step::Enqueued.passed();
    Ok(enqueued.queued + enqueued.replaced)
}

/// Puts what is in force on the accounts of every decided allocation of a server into the outbox, where it is not what was
/// put there last.
pub fn backend_metadata(
    agent: &mut Agent,
    decisions: &[Decision],
    observed: &Observed,
    rules: &QosRules,
    now: Epoch,
) -> Result<usize, AgentError> {
    let before: BTreeMap<String, BackendMetadata> =
        agent.store.last_report(METADATA)?.map(|(states, _)| states).unwrap_or_default();
    let (mut after, owned) = (BTreeMap::new(), rules.owned());
    let of_servers = decisions.iter().filter_map(Decision::decided);
    for decided in of_servers.filter(|decided| decided.source.as_str() != LOCAL_SOURCE) {
        let Some(account) = observed.accounts.get(&decided.account) else { continue };
        let mut state = BackendMetadata {
            source: decided.source.clone(),
            allocation: decided.allocation.clone(),
            level: decided.level,
            qos: account.row.qos.iter().filter(|name| owned.contains(name)).cloned().collect(),
            fairshare: account.row.share.to_string(),
            limits: account.row.limits.clone(),
            submit_blocked: account.row.jobs.get(&JobLimit::GrpSubmitJobs) == Some(&0),
            since: now,
        };
        if let Some(known) = before.get(&state.allocation) {
            state.since = known.since;
            if state != *known {
                state.since = now;
            }
        }
        after.insert(state.allocation.clone(), state);
    }
    let changed = after.iter().filter(|(allocation, state)| before.get(*allocation) != Some(*state));
    let messages: Vec<Message> = changed.map(|(_, state)| Message::BackendMetadata(state.clone())).collect();
    let enqueued = agent.store.enqueue_all(&messages, None, now)?;
    if !messages.is_empty() {
        // An allocation that is undecided now has still what it had.
        let mut all = before;
        all.extend(after);
        agent.store.put_report(METADATA, &all, now)?;
    }
    Ok(enqueued.queued + enqueued.replaced)
}

fn reporting_date(month: &Period, now: Epoch) -> Epoch {
    let noon = month.start.plus(NOON_S);
    // Rounded to the hour so that the message stays equal while nothing else changes.
    if now < noon { Epoch(now.0 - now.0.rem_euclid(3600)).max(month.start) } else { noon }
}

fn amounts(components: &Components, used: &TresSeconds) -> BTreeMap<String, String> {
    components
        .0
        .keys()
        .filter_map(|name| Some((name.clone(), components.amount(name, used)?.to_decimal(AMOUNT_PLACES)?)))
        .collect()
}

fn user_amounts(
    components: &Components,
    users: &BTreeMap<String, TresSeconds>,
) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut by_component: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for (user, used) in users {
        for (component, amount) in amounts(components, used) {
            by_component.entry(component).or_default().insert(user.clone(), amount);
        }
    }
    by_component
}
