//! Where the agent's decision and the server's word differ, and whose counts (`enforcement` of the source).

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Agent;
use super::error::{AgentError, chain};
use super::facts::Facts;
use super::orders::Orders;
use super::summary::{self, CycleSummary};
use crate::config::{Config, Enforcement, LOCAL_SOURCE};
use crate::core::allocation::Allocation;
use crate::core::component::{ComponentName, Components};
use crate::core::desired::Wish;
use crate::core::evaluate::{Decided, Decision, Level, Lever, QosRules, weight_of};
use crate::core::exact::Exact;
use crate::core::name::{AccountName, SourceName};
use crate::core::policy::Policy;
use crate::core::time::Epoch;
use crate::core::tres::Tres;

/// Percentages that differ by at most so many points are taken as equal: the server counts what it was last told, in amounts
/// of two decimals.
const POINTS_MAX: i128 = 1;

/// Something that the agent and a server see differently.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disagreement {
    /// The account.
    pub account: AccountName,
    /// The server.
    pub source: SourceName,
    /// What about: level, percentage, fairshare, limit on a TRES.
    pub about: String,
    /// What the agent has.
    pub agent: String,
    /// What the server has.
    pub server: String,
    /// Since when they differ.
    pub since: Epoch,
    /// Why, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
}

impl Disagreement {
    fn subject(&self) -> (&AccountName, &SourceName, &str) {
        (&self.account, &self.source, &self.about)
    }

    /// For people.
    pub fn finding(&self, config: &Config) -> String {
        format!(
            "account {} since {}: {} is {} here and {} at {} (enforcement = \"{}\"){}",
            self.account,
            self.since,
            self.about,
            self.agent,
            self.server,
            self.source,
            enforcement(config, &self.source).as_str(),
            self.because.as_ref().map_or(String::new(), |why| format!(": {why}"))
        )
    }
}

/// Whose word counts for a source; local allocations have no server.
pub fn enforcement(config: &Config, source: &SourceName) -> Enforcement {
    if source.as_str() == LOCAL_SOURCE {
        return Enforcement::Agent;
    }
    config
        .sources
        .iter()
        .find(|known| known.name == *source)
        .and_then(|known| known.policies())
        .map(|policies| policies.enforcement)
        .unwrap_or_default()
}

/// Everything that is asked for now and counts.
pub fn wishes(
    config: &Config,
    facts: &Facts,
    decisions: &[Decision],
    orders: &Orders,
    qos: &QosRules,
) -> Vec<Wish> {
    let decided = decisions.iter().filter_map(Decision::decided);
    let own = decided.filter(|decided| enforcement(config, &decided.source) != Enforcement::Server);
    let mut wishes: Vec<Wish> = own.map(|decided| Wish::of(decided, qos)).collect();
    wishes.extend(flags(config, facts, decisions, qos));
    let commanded = orders.standing.iter().chain(orders.new.iter().map(|order| &order.wish));
    wishes.extend(commanded.filter(|wish| enforcement(config, &wish.source) != Enforcement::Agent).cloned());
    wishes
}

/// What is decided for allocations of servers, by source and allocation.
fn by_allocation(decisions: &[Decision]) -> HashMap<(&SourceName, &str), Vec<&Decided>> {
    let mut found: HashMap<(&SourceName, &str), Vec<&Decided>> = HashMap::new();
    let of_servers =
        decisions.iter().filter_map(Decision::decided).filter(|d| d.source.as_str() != LOCAL_SOURCE);
    for decided in of_servers {
        found.entry((&decided.source, &decided.allocation)).or_default().push(decided);
    }
    found
}

/// What a server's flags mean.
fn flagged(allocation: &Allocation) -> Level {
    if allocation.paused {
        Level::Blocked
    } else if allocation.downscaled {
        Level::Slowdown
    } else {
        Level::Normal
    }
}

/// The server's flags as wishes, of accounts that are decided. Where the server alone counts, no flag is a wish as well.
fn flags(config: &Config, facts: &Facts, decisions: &[Decision], qos: &QosRules) -> Vec<Wish> {
    let mut wishes = Vec::new();
    let decided = by_allocation(decisions);
    for offer in &facts.offers {
        let counts = |level: Level| match enforcement(config, &offer.source) {
            Enforcement::Agent => false,
            Enforcement::Server => true,
            Enforcement::Strictest => level > Level::Normal,
        };
        for allocation in &offer.allocations {
            let level = flagged(allocation);
            if !counts(level) || !decided.contains_key(&(&offer.source, allocation.id.as_str())) {
                continue;
            }
            let submit_blocked = level == Level::Blocked && qos.lever == Lever::Submit;
            let text = format!("the server has it {level}");
            let mut wish = Wish::new(allocation.account.clone(), offer.source.clone(), text);
            wish.qos = Some(match level {
                Level::Blocked if !submit_blocked => qos.blocked.clone(),
                Level::Blocked | Level::Slowdown => qos.slowdown.clone(),
                Level::Notification | Level::Normal => qos.normal.clone(),
            });
            wishes.push(if submit_blocked { wish.refusing() } else { wish });
        }
    }
    wishes
}

/// A server's newest evaluation of a resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evaluation {
    /// The period it was made for, in the server's words.
    pub period: String,
    /// Percent used.
    pub percent: Exact,
    /// When, as the server wrote it.
    pub at: String,
}

/// By policy and resource.
type Evaluations = BTreeMap<String, Evaluation>;

fn evaluations_of(source: &SourceName) -> String {
    format!("evaluations:{source}")
}

fn place(policy: &str, resource: &str) -> String {
    let plain = |text: &str| text.replace('-', "").to_ascii_lowercase();
    format!("{}/{}", plain(policy), plain(resource))
}

/// Reads the servers' evaluation logs where something changed at the server, or when usage is reported: one request for each
/// policy. What is not read stands as it was read last.
pub async fn read_logs(
    agent: &mut Agent,
    facts: &Facts,
    reporting: bool,
    now: Epoch,
) -> Result<(), AgentError> {
    let answered =
        |source: &SourceName| facts.states.iter().any(|state| state.name == *source && state.error.is_none());
    for offer in facts.offers.iter().filter(|offer| answered(&offer.source)) {
        let Some(place_of) = agent.centrals.iter().position(|central| central.name == offer.source) else {
            continue;
        };
        if !reporting && agent.store.snapshot_since(&offer.source)? != Some(now) {
            continue;
        }
        let mut read = Evaluations::new();
        for policy in &offer.policies {
            match agent.centrals[place_of].client.evaluation_logs(&policy.id, None, None).await {
                // The newest comes first.
                Ok(rows) => {
                    rows.iter().filter_map(|row| evaluation(&policy.id, row)).for_each(|(key, log)| {
                        read.entry(key).or_insert(log);
                    })
                }
                Err(error) => {
                    tracing::warn!(
                        policy = policy.id,
                        error = chain(&error),
                        "evaluation logs were not read"
                    );
                }
            }
        }
        let kind = evaluations_of(&offer.source);
        let known: Evaluations = agent.store.last_report(&kind)?.map(|(known, _)| known).unwrap_or_default();
        let mut merged = known.clone();
        merged.extend(read);
        if merged != known {
            agent.store.put_report(&kind, &merged, now)?;
        }
    }
    Ok(())
}

fn evaluation(policy: &str, row: &Value) -> Option<(String, Evaluation)> {
    let text = |field: &str| row.get(field).and_then(Value::as_str);
    let percent = match row.get("usage_percentage")? {
        Value::String(text) => Exact::parse(text).ok()?,
        other => Exact::from_f64(other.as_f64()?).ok()?,
    };
    let log = Evaluation {
        period: text("billing_period")?.to_owned(),
        percent,
        at: text("evaluated_at").unwrap_or("an unknown time").to_owned(),
    };
    Some((place(policy, text("resource_uuid")?), log))
}

/// What differs now, each with the time since when, and how many differences there have been.
pub fn compare(
    agent: &Agent,
    facts: &Facts,
    decisions: &[Decision],
    orders: &Orders,
    now: Epoch,
) -> Result<(Vec<Disagreement>, u64), AgentError> {
    let mut found = Vec::new();
    let decided = by_allocation(decisions);
    for offer in facts.offers.iter().filter(|offer| offer.source.as_str() != LOCAL_SOURCE) {
        let logs: Evaluations = agent
            .store
            .last_report(&evaluations_of(&offer.source))?
            .map(|(logs, _)| logs)
            .unwrap_or_default();
        for allocation in &offer.allocations {
            let Some(of_it) = decided.get(&(&offer.source, allocation.id.as_str())) else { continue };
            found.extend(level(allocation, of_it, now));
            found.extend(of_it.iter().filter_map(|decided| percentage(decided, &logs, now)));
        }
    }
    found.extend(commanded(agent, facts, decisions, orders, now));
    let before: Option<(CycleSummary, Epoch)> = agent.store.last_report(summary::CYCLE)?;
    let (known, mut total) =
        before.map(|(b, _)| (b.disagreements, b.disagreements_total)).unwrap_or_default();
    let known: HashMap<_, Epoch> =
        known.iter().rev().map(|before| (before.subject(), before.since)).collect();
    for one in &mut found {
        match known.get(&one.subject()) {
            Some(since) => one.since = *since,
            None => total += 1,
        }
    }
    Ok((found, total))
}

/// What commands ask for otherwise than it is decided here.
fn commanded(
    agent: &Agent,
    facts: &Facts,
    decisions: &[Decision],
    orders: &Orders,
    now: Epoch,
) -> Vec<Disagreement> {
    let mut found = Vec::new();
    if orders.standing.is_empty() && orders.new.is_empty() {
        return found;
    }
    let policies = facts.offers.iter().flat_map(|offer| &offer.policies);
    let policies: HashMap<&str, &Policy> =
        policies.rev().map(|policy| (policy.id.as_str(), policy.as_ref())).collect();
    let mut by_account: HashMap<(&SourceName, &AccountName), Vec<&Decided>> = HashMap::new();
    for decided in decisions.iter().filter_map(Decision::decided) {
        by_account.entry((&decided.source, &decided.account)).or_default().push(decided);
    }
    for wish in orders.standing.iter().chain(orders.new.iter().map(|order| &order.wish)) {
        for decided in by_account.get(&(&wish.source, &wish.account)).into_iter().flatten() {
            let policy = policies.get(decided.policy.as_str());
            let why =
                policy.and_then(|p| weights_apart(p, decided.components.keys(), &agent.config.components));
            found.extend(numbers(decided, wish, why, now));
        }
    }
    found
}

fn level(allocation: &Allocation, of_it: &[&Decided], now: Epoch) -> Option<Disagreement> {
    let strictest = of_it.iter().max_by_key(|decided| decided.effect)?;
    let ours = if strictest.effect >= Level::Slowdown { strictest.effect } else { Level::Normal };
    let theirs = flagged(allocation);
    (ours != theirs).then(|| difference(strictest, "the level", ours.to_string(), theirs.to_string(), now))
}

fn percentage(decided: &Decided, logs: &Evaluations, now: Epoch) -> Option<Disagreement> {
    let log = logs.get(&place(&decided.policy, &decided.allocation))?;
    let ours = decided.percent?;
    let apart = ours.minus(log.percent)?;
    let points = Exact::whole(POINTS_MAX);
    let near = apart <= points && Exact::ZERO.minus(apart)? <= points;
    (log.period == decided.period.name && !near).then(|| {
        let server = format!("{} % (evaluated {})", log.percent.to_decimal(2).unwrap_or_default(), log.at);
        difference(decided, "usage", format!("{} %", ours.to_decimal(2).unwrap_or_default()), server, now)
    })
}

/// What is said of components whose weight the server does not find: it matches keys with component types by their letters
/// alone, in any case, while the agent also takes `GRES/gpu` for `gpu` and `Mem` for `ram`. `None` where both find the same, or
/// billing is off.
pub fn weights_apart<'a>(
    policy: &Policy,
    components: impl Iterator<Item = &'a ComponentName>,
    known: &Components,
) -> Option<String> {
    let missed = |name: &&ComponentName| {
        let tres = known.get(name).map(|component| &component.tres);
        let differs = weight_of(&policy.weights, name, tres) != weight_of(&policy.weights, name, None);
        policy.billing && differs
    };
    let missed: Vec<&str> = components.filter(missed).map(|name| name.as_str()).collect();
    (!missed.is_empty()).then(|| {
        format!(
            "the server finds no weight for {0}: it counts nothing for it in its billing limits, which are therefore stricter, \
             and its plain amount in percentages; have the policy's weights call it {0}",
            missed.join(", ")
        )
    })
}

/// What a command asks for against what the agent computed itself. `why` is what is known of their weights.
fn numbers(decided: &Decided, wish: &Wish, why: Option<String>, now: Epoch) -> Vec<Disagreement> {
    let mut found = Vec::new();
    if let Some(theirs) = wish.fairshare.filter(|theirs| *theirs != decided.fairshare) {
        let (ours, theirs) = (decided.fairshare.to_string(), theirs.to_string());
        found.push(difference(decided, "fairshare", ours, theirs, now));
    }
    for (kind, values) in &wish.limits {
        for (tres, theirs) in values {
            let ours = decided.limits.get(kind).and_then(|limits| limits.get(tres));
            if let Some(ours) = ours.filter(|ours| *ours != theirs) {
                let about = format!("{kind} of {tres}");
                let one = difference(decided, &about, ours.to_string(), theirs.to_string(), now);
                let because = why.clone().filter(|_| *tres == Tres::billing());
                found.push(Disagreement { because, ..one });
            }
        }
    }
    found
}

fn difference(decided: &Decided, about: &str, agent: String, server: String, now: Epoch) -> Disagreement {
    Disagreement {
        account: decided.account.clone(),
        source: decided.source.clone(),
        about: about.to_owned(),
        agent,
        server,
        since: now,
        because: None,
    }
}
