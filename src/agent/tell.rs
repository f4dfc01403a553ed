//! What will be told: component usage of allocations by month. (AMIE records: [`super::amie`].)

use std::collections::BTreeMap;

use super::Agent;
use super::error::AgentError;
use super::facts::Facts;
use super::judge::{Periods, Totals, subtree};
use super::step::Step;
use crate::config::LOCAL_SOURCE;
use crate::core::association::Observed;
use crate::core::component::Components;
use crate::core::name::AccountName;
use crate::core::period::Period;
use crate::core::report::{ComponentUsage, Message};
use crate::core::time::Epoch;
use crate::core::tres::TresSeconds;

/// Digits after the point of a component's amount, as Waldur keeps them.
const AMOUNT_PLACES: u32 = 2;
/// Half a day: an instant of the first day of a month that no server's zone moves into the month before.
const NOON_S: i64 = 12 * 3600;

/// Puts the usage of every allocation of a server into the outbox; what is unchanged since it was last told stays out.
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
    for offer in facts.offers.iter().filter(|offer| offer.source.as_str() != LOCAL_SOURCE) {
        for allocation in &offer.allocations {
            let names = subtree(&allocation.account, &tree);
            if names.is_empty() {
                continue;
            }
            for month in &periods.months {
                let Some(usage) = totals.get(&month.window()) else { continue };
                let users = usage.by_user(names.iter().map(AccountName::as_str));
                let built = ComponentUsage {
                    source: offer.source.clone(),
                    allocation: allocation.id.clone(),
                    month: month.name.clone(),
                    date: reporting_date(month, now),
                    amounts: amounts(
                        &agent.config.components,
                        &usage.sum(names.iter().map(AccountName::as_str)),
                    ),
                    users: if agent.config.reports.users {
                        user_amounts(&agent.config.components, &users)
                    } else {
                        BTreeMap::new()
                    },
                };
                let nothing_yet = users.is_empty();
                let key_known =
                    |message: &Message| agent.store.last_delivered(&message.key()).map(|m| m.is_some());
                let message = Message::ComponentUsage(built);
                // A month without any use is only told when something else was told of it before.
                if !nothing_yet || key_known(&message)? {
                    messages.push(message);
                }
            }
        }
    }
    let enqueued = agent.store.enqueue_all(&messages, None, now)?;
    Step::Enqueued.passed();
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
