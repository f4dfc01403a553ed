//! Step 12: drains the outbox. (AMIE records have a ledger of their own: [`super::amie`].) A message leaves it only when its server has it, or when it became a dead letter.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Agent;
use super::error::{AgentError, chain};
use super::step::Step;
use crate::central::{CentralError, Class};
use crate::core::name::SourceName;
use crate::core::report::{Message, MessageKind};
use crate::core::time::Epoch;
use crate::store::Delivery;

/// First wait after a failed delivery, in seconds; doubles with every attempt.
const BACKOFF_FIRST_S: i64 = 30;
/// Messages on their way at one time, over connections that are kept: Waldur has no call for the usage of several resources.
const TOGETHER: usize = 8;
/// Longest wait between two attempts, in seconds.
const BACKOFF_MAX_S: i64 = 3600;

/// What became of the messages of one kind.
#[derive(Debug, Clone, Default, Serialize)]
pub struct KindDelivery {
    /// A server has them.
    pub delivered: usize,
    /// They wait for the next try.
    pub failed: usize,
    /// Given up until an operator says otherwise.
    pub dead: usize,
    /// Why the last one failed.
    pub error: Option<String>,
}

/// By kind of message.
pub type DeliveryState = BTreeMap<&'static str, KindDelivery>;

/// Tells what waits and is due.
pub async fn deliver(agent: &mut Agent, now: Epoch) -> Result<DeliveryState, AgentError> {
    let mut state = DeliveryState::new();
    for kind in MessageKind::ALL {
        let due = agent.store.acquire(kind, now, agent.config.limits.delivery_batch_max)?;
        if due.is_empty() {
            continue;
        }
        let count = state.entry(kind.as_str()).or_default();
        deliver_each(agent, due, kind, count, now).await?;
    }
    Ok(state)
}

async fn deliver_each(
    agent: &mut Agent,
    due: Vec<Delivery>,
    kind: MessageKind,
    count: &mut KindDelivery,
    now: Epoch,
) -> Result<(), AgentError> {
    // A verdict marks the newest rows of its resource, so verdicts keep their order; usages and states are absolute and each
    // of another thing.
    let together = if kind == MessageKind::CommandResult { 1 } else { TOGETHER };
    let mut down: BTreeMap<String, String> = BTreeMap::new();
    for few in due.chunks(together) {
        let told = futures_util::future::join_all(few.iter().map(|delivery| post(agent, delivery, &down)));
        for (delivery, result) in few.iter().zip(told.await) {
            match result {
                Ok(()) => {
                    Step::Told.passed();
                    agent.store.delivered(delivery, now)?;
                    Step::Delivered.passed();
                    count.delivered += 1;
                }
                Err(Failed { why, class }) => {
                    if matches!(class, Class::Transient | Class::Misconfigured) {
                        // The server is down or refuses us altogether: the rest would wait for the same time-outs.
                        down.insert(source(delivery).to_string(), why.clone());
                    }
                    fail(agent, delivery, why, class, count, now)?;
                }
            }
        }
    }
    Ok(())
}

fn source(delivery: &Delivery) -> &SourceName {
    match &delivery.message {
        Message::CommandResult(result) => &result.source,
        Message::ComponentUsage(usage) => &usage.source,
        Message::BackendMetadata(state) => &state.source,
    }
}

/// Why a message was not told, and what that means.
struct Failed {
    why: String,
    class: Class,
}

impl From<CentralError> for Failed {
    fn from(error: CentralError) -> Failed {
        Failed { why: chain(&error), class: error.class() }
    }
}

async fn post(agent: &Agent, delivery: &Delivery, down: &BTreeMap<String, String>) -> Result<(), Failed> {
    let source = source(delivery);
    if let Some(why) = down.get(source.as_str()) {
        return Err(Failed { why: why.clone(), class: Class::Transient });
    }
    let Some(central) = agent.centrals.iter().find(|central| central.name == *source) else {
        let why =
            format!("source {source} is no longer in the configuration; put it back or drop the message");
        return Err(Failed { why, class: Class::Misconfigured });
    };
    match &delivery.message {
        Message::CommandResult(result) => central.client.post_command_result(result).await?,
        Message::ComponentUsage(usage) => central.client.post_component_usage(usage).await?,
        Message::BackendMetadata(state) => central.client.post_backend_metadata(state).await?,
    }
    Ok(())
}

/// How long to wait after so many tries, in seconds.
pub(super) fn backoff_s(attempts: u32) -> i64 {
    BACKOFF_FIRST_S.saturating_mul(1 << attempts.saturating_sub(1).min(10)).min(BACKOFF_MAX_S)
}

fn fail(
    agent: &mut Agent,
    delivery: &Delivery,
    why: String,
    class: Class,
    count: &mut KindDelivery,
    now: Epoch,
) -> Result<(), AgentError> {
    let refused = class == Class::Refused;
    let dead = refused || delivery.attempts >= agent.config.limits.delivery_attempts_max;
    let retry_at = (!dead).then(|| now.plus(backoff_s(delivery.attempts)));
    tracing::warn!(
        key = delivery.key,
        attempts = delivery.attempts,
        error = why,
        dead,
        "a message was not delivered"
    );
    agent.store.failed(delivery, &why, retry_at)?;
    if dead {
        count.dead += 1;
    } else {
        count.failed += 1;
    }
    count.error = Some(why);
    Ok(())
}
