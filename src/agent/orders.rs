//! Commands of the central servers: each acted on at most once, each told its verdict.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::LazyLock;

use serde::Serialize;

use super::Agent;
use super::agreement::enforcement;
use super::apply::{ChangeState, Made};
use super::error::{AgentError, chain};
use super::facts::{Facts, Offer};
use super::judge::Periods;
use super::step::Step;
use crate::config::{Enforcement, LOCAL_SOURCE};
use crate::core::association::Observed;
use crate::core::command::{
    Command, CommandKind, CommandState, Triage, TriageFacts, Verdict, subject, triage, wish,
};
use crate::core::desired::Wish;
use crate::core::evaluate::{Decided, Decision, Rules};
use crate::core::name::{AccountName, SourceName};
use crate::core::period::Period;
use crate::core::plan::{Change, Outcome, ResetMarker};
use crate::core::report::{CommandResult, Message};
use crate::core::settled::fulfilled;
use crate::core::time::{Epoch, Window};
use crate::core::tres::Tres;
use crate::store::{InboxCommand, ResetHow};

/// Most rows of the inbox that are looked through for an adopted reset: years of commands, only read when a reset is asked for.
const INBOX_ROWS_MAX: usize = 100_000;

/// Latest changes of an account that are looked at for what was run for a command: a cycle makes a few, and a command
/// waits for a day at most.
const CHANGES_LOOKED_AT: usize = 100;

/// A command that is acted on in this cycle.
#[derive(Debug, Clone)]
pub struct Order {
    /// The command.
    pub command: Command,
    /// The account it names.
    pub account: AccountName,
    /// What it asks for.
    pub wish: Wish,
    /// The reset it asks for.
    pub reset: Option<ResetMarker>,
    /// Whether it is followed; else it is only answered.
    pub binding: bool,
}

/// What became of a command, for people.
#[derive(Debug, Clone, Serialize)]
pub struct CommandSettled {
    /// Its uuid.
    pub uuid: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Account as written.
    pub account: String,
    /// The server's text.
    pub description: String,
    /// Verdict.
    pub verdict: Verdict,
}

/// What the servers' commands ask for now.
#[derive(Debug, Default)]
pub struct Orders {
    /// New ones to act on.
    pub new: Vec<Order>,
    /// Wishes of earlier ones that still stand.
    pub standing: Vec<Wish>,
    /// Refused and superseded ones.
    pub settled: Vec<CommandSettled>,
}

/// What becomes of a command that may be acted on.
enum Placed {
    /// It is acted on in this cycle.
    Now(Box<Order>),
    /// Not now: nothing is decided on the account, or an earlier try is not settled.
    Waits,
    /// Nothing is run for it.
    Ends(CommandState, String),
}

/// Sorts the inbox. What needs nothing to be run is settled at once; nothing is settled in a dry run.
pub async fn sort(
    agent: &mut Agent,
    facts: &Facts,
    periods: &Periods,
    decisions: &[Decision],
    rules: &Rules,
    now: Epoch,
    dry_run: bool,
) -> Result<Orders, AgentError> {
    let mut orders = Orders::default();
    let pending = agent.store.pending()?;
    let decided = LazyLock::new(|| DecidedByPolicy::of(decisions));
    // Local allocations have no server and no commands.
    for offer in facts.offers.iter().filter(|offer| offer.source.as_str() != LOCAL_SOURCE) {
        let windows = windows_of(offer, periods);
        let waiting: Vec<Command> =
            pending.iter().filter(|command| command.source == offer.source).cloned().collect();
        let (mut in_effect, settled_before) = (in_effect_of(agent, offer)?, orders.settled.len());
        let newest = in_effect.iter().map(|c| (subject(c), (c.issue(), c.uuid.clone()))).collect();
        let limits = &agent.config.limits;
        let triage_facts = TriageFacts {
            now,
            age_max_s: i64::try_from(limits.command_age_max.as_secs()).unwrap_or(i64::MAX),
            skew_max_s: i64::try_from(limits.clock_skew_max.as_secs()).unwrap_or(i64::MAX),
            periods: &windows,
            in_effect: &newest,
        };
        for (command, decision) in waiting.iter().zip(triage(&waiting, &triage_facts)) {
            let placed = match decision {
                Triage::Act => order(agent, command, offer, periods, &decided, rules)?,
                Triage::Refuse(reason) => Placed::Ends(CommandState::Refused, reason),
                Triage::Superseded(by) => Placed::Ends(
                    CommandState::Superseded,
                    format!("not run: superseded by the newer command {by}"),
                ),
            };
            match placed {
                Placed::Now(order) => orders.new.push(*order),
                Placed::Waits => {}
                Placed::Ends(state, error) => {
                    let verdict = Verdict { state, error, commands: Vec::new() };
                    let settled = settle(agent, command, offer, verdict, now, dry_run).await?;
                    orders.settled.push(settled);
                }
            }
        }
        // What was settled above may be in effect now.
        if orders.settled.len() > settled_before {
            in_effect = in_effect_of(agent, offer)?;
        }
        if !in_effect.is_empty() {
            orders.standing.extend(standing(agent, offer, &in_effect, &windows, &decided, rules));
        }
    }
    Ok(orders)
}

/// The newest command in effect of each type and account.
fn in_effect_of(agent: &Agent, offer: &Offer) -> Result<Vec<Command>, AgentError> {
    Ok(agent.store.standing(&offer.source)?.into_iter().map(|(command, _)| command).collect())
}

/// Accounts of a source with the window of their policy's current period.
fn windows_of(offer: &Offer, periods: &Periods) -> BTreeMap<AccountName, Window> {
    let window = offer
        .policies
        .iter()
        .filter_map(|policy| periods.pairs.get(&policy.period))
        .map(|pair| pair.current.window())
        .min();
    let accounts = offer.allocations.iter().map(|allocation| allocation.account.clone());
    window.map_or_else(BTreeMap::new, |window| accounts.map(|account| (account, window)).collect())
}

/// What is decided, by source, policy and account; of several the first.
struct DecidedByPolicy<'a>(HashMap<(&'a SourceName, &'a str, &'a AccountName), &'a Decided>);

impl<'a> DecidedByPolicy<'a> {
    fn of(decisions: &'a [Decision]) -> Self {
        let mut found = HashMap::new();
        for decided in decisions.iter().filter_map(Decision::decided) {
            let key = (&decided.source, decided.policy.as_str(), &decided.account);
            found.entry(key).or_insert(decided);
        }
        DecidedByPolicy(found)
    }

    fn get(&self, command: &Command, account: &AccountName) -> Option<&'a Decided> {
        self.0.get(&(&command.source, command.policy.as_str(), account)).copied()
    }
}

/// Whether Slurm counts `billing` in the policy's units: then the decision has a limit on it.
fn billing_limit(decided: &Decided) -> bool {
    decided.limits.values().any(|limits| limits.contains_key(&Tres::billing()))
}

fn order(
    agent: &Agent,
    command: &Command,
    offer: &Offer,
    periods: &Periods,
    decided: &DecidedByPolicy<'_>,
    rules: &Rules,
) -> Result<Placed, AgentError> {
    let refused = |reason: String| Ok(Placed::Ends(CommandState::Refused, reason));
    let Some(account) = command.account() else { return refused("no usable account".into()) };
    // Nothing is decided on the account now; the command waits until something is, or gets stale.
    let Some(decided) = decided.get(command, &account) else { return Ok(Placed::Waits) };
    if rules.partitions.is_none() && matches!(command.kind, CommandKind::Limits { .. }) {
        // In which units Slurm counts billing could not be read just now.
        return Ok(Placed::Waits);
    }
    let wish = match wish(command, &account, rules, billing_limit(decided)) {
        Ok(wish) => wish,
        Err(reason) => return refused(reason),
    };
    let mut reset = None;
    if command.kind == CommandKind::ResetUsage {
        let policy = offer.policies.iter().find(|policy| policy.id == command.policy);
        let period = policy.and_then(|policy| periods.pairs.get(&policy.period)).map(|pair| &pair.current);
        let Some(period) = period.filter(|period| period.end.is_some()) else {
            return refused("a policy without periods never resets raw usage".into());
        };
        let marker = ResetMarker {
            account: account.clone(),
            source: command.source.clone(),
            policy: command.policy.clone(),
            period: period.name.clone(),
        };
        if is_open(agent, &marker)? {
            return Ok(Placed::Waits);
        }
        if reset_before_us(agent, command, period.window())? {
            return Ok(already(period));
        }
        if agent.store.reset_how(&marker)? != Some(ResetHow::Reset) {
            reset = Some(marker);
        } else if !reset_since(agent, command, &marker)? {
            return Ok(already(period));
        }
    }
    let binding = enforcement(&agent.config, &command.source) != Enforcement::Agent;
    Ok(Placed::Now(Box::new(Order { command: command.clone(), account, wish, reset, binding })))
}

/// A server that lost its memory issues the commands of a period again; what they ask for is in effect.
fn already(period: &Period) -> Placed {
    Placed::Ends(
        CommandState::Done,
        format!("not run: raw usage was already reset in period {}", period.name),
    )
}

/// Whether an earlier try of this reset has no known outcome yet.
fn is_open(agent: &Agent, marker: &ResetMarker) -> Result<bool, AgentError> {
    let is_it = |change: &Change| matches!(change, Change::ResetRawUsage { marker: m, .. } if m == marker);
    Ok(agent.store.unsettled_intents()?.iter().any(|intent| is_it(&intent.change.change)))
}

/// Whether the history that the agent found at its first look has a reset of the same account in this period: whoever was here
/// before did it.
fn reset_before_us(agent: &Agent, command: &Command, period: Window) -> Result<bool, AgentError> {
    let same = |known: &InboxCommand| {
        let Command { source, policy, kind, issued, .. } = &known.command;
        known.state == CommandState::Adopted
            && *kind == CommandKind::ResetUsage
            && (source, policy) == (&command.source, &command.policy)
            && subject(&known.command) == subject(command)
            && period.contains(*issued)
    };
    Ok(agent.store.commands(INBOX_ROWS_MAX)?.iter().any(same))
}

/// Whether a reset was made since the command was issued: by a cycle that was ended before it could say so, or for the new
/// period while the command had not been read yet.
fn reset_since(agent: &Agent, command: &Command, marker: &ResetMarker) -> Result<bool, AgentError> {
    let made = agent.store.history(CHANGES_LOOKED_AT, Some(&marker.account))?;
    let is_this = |change: &Change| matches!(change, Change::ResetRawUsage { marker: m, .. } if m == marker);
    Ok(made.iter().any(|intent| {
        intent.at >= command.issued
            && is_this(&intent.change.change)
            && matches!(intent.outcome, Some(Outcome::Applied | Outcome::AlreadyInEffect))
    }))
}

/// What earlier commands of the current period still ask for: the newest in effect of each type and account.
fn standing(
    agent: &Agent,
    offer: &Offer,
    in_effect: &[Command],
    windows: &BTreeMap<AccountName, Window>,
    decided: &DecidedByPolicy<'_>,
    rules: &Rules,
) -> Vec<Wish> {
    let servers = enforcement(&agent.config, &offer.source) == Enforcement::Server;
    let mut wishes = Vec::new();
    for command in in_effect {
        let Some(account) = command.account() else { continue };
        // Where the server alone counts there is nothing else that a limit could follow from; its flags are newer than its QOS.
        let stays = servers && !matches!(command.kind, CommandKind::Qos { .. });
        let in_period = stays || windows.get(&account).is_some_and(|window| window.contains(command.issued));
        let Some(decided) = decided.get(command, &account) else { continue };
        if in_period && let Ok(wish) = wish(command, &account, rules, billing_limit(decided)) {
            wishes.push(wish);
        }
    }
    wishes
}

/// Gives every order its verdict by what is there now. One that is not in effect and may still come to be (Slurm gave no
/// answer, it could not be read back, the plan waits) stays pending for the next cycle, until it is stale.
pub async fn conclude(
    agent: &mut Agent,
    orders: Vec<Order>,
    facts: &Facts,
    made: &Made,
    observed: &Observed,
    rules: &Rules,
    now: Epoch,
) -> Result<Vec<CommandSettled>, AgentError> {
    let mut settled = Vec::new();
    for order in orders {
        let Some(offer) = facts.offers.iter().find(|offer| {
            offer.source == order.command.source
                && offer.allocations.iter().any(|allocation| allocation.account == order.account)
        }) else {
            continue;
        };
        let changes = &made.changes;
        let result = match &order.reset {
            Some(marker) => reset_result(changes, marker),
            None => fulfilled(&order.wish, observed, &rules.qos),
        };
        if result.is_err() && made.is_open(&order.account) {
            continue;
        }
        let commands = ran_for(agent, &order, changes)?;
        let verdict = match result {
            Ok(()) => Verdict { state: CommandState::Done, error: String::new(), commands },
            Err(reason) if !order.binding => Verdict {
                state: CommandState::Refused,
                error: format!("this site follows its own decision (enforcement = \"agent\"): {reason}"),
                commands: Vec::new(),
            },
            Err(reason) => {
                let refused =
                    changes.iter().filter(|change| touches(change, &order.account)).find_map(why_not);
                let error = refused.map_or(reason.clone(), |words| format!("{reason}; {words}"));
                Verdict { state: CommandState::Failed, error, commands }
            }
        };
        settled.push(settle(agent, &order.command, offer, verdict, now, false).await?);
    }
    Ok(settled)
}

/// What was run on the account since the command is here: by this cycle, and by earlier ones that a crash or an outage
/// kept from giving it its verdict. Each argument vector once.
fn ran_for(agent: &Agent, order: &Order, changes: &[ChangeState]) -> Result<Vec<String>, AgentError> {
    let mut commands = Vec::new();
    if let Some(received) = agent.store.received(&order.command.uuid)? {
        let made = agent.store.history(CHANGES_LOOKED_AT, Some(&order.account))?;
        let done = made.iter().rev().filter(|i| i.at >= received && i.outcome == Some(Outcome::Applied));
        commands.extend(done.map(|intent| agent.slurm.argv(&intent.change.change).to_string()));
    }
    let ran = changes.iter().filter(|change| touches(change, &order.account));
    let ran = ran.filter(|change| change.outcome != Some(Outcome::AlreadyInEffect));
    commands.extend(ran.map(|change| change.argv.clone()));
    let mut seen = BTreeSet::new();
    commands.retain(|argv| seen.insert(argv.clone()));
    Ok(commands)
}

fn touches(change: &ChangeState, account: &AccountName) -> bool {
    change.change.accounts().any(|name| name == account)
}

fn why_not(change: &ChangeState) -> Option<String> {
    match &change.outcome {
        Some(Outcome::Refused { reason } | Outcome::Unknown { reason }) => Some(reason.clone()),
        _ => None,
    }
}

fn reset_result(changes: &[ChangeState], marker: &ResetMarker) -> Result<(), String> {
    let found = changes
        .iter()
        .find(|change| matches!(&change.change, Change::ResetRawUsage { marker: m, .. } if m == marker));
    match found.map(|change| &change.outcome) {
        Some(Some(Outcome::Applied | Outcome::AlreadyInEffect)) => Ok(()),
        Some(_) => Err("the raw usage was not reset".into()),
        None => Err("the reset was not run".into()),
    }
}

/// Stores a verdict and its message, in one transaction.
async fn settle(
    agent: &mut Agent,
    command: &Command,
    offer: &Offer,
    verdict: Verdict,
    now: Epoch,
    dry_run: bool,
) -> Result<CommandSettled, AgentError> {
    if !dry_run {
        let allocation = allocation_of(agent, command, offer).await;
        let message = Message::CommandResult(CommandResult {
            command: command.uuid.clone(),
            source: command.source.clone(),
            policy: command.policy.clone(),
            allocation: allocation.clone(),
            success: verdict.success(),
            error: told(command, &verdict),
            mode: agent.mode,
            commands: verdict.commands.clone(),
        });
        // Without a resource the server has no place for a verdict; it stays in the history here.
        agent.store.settle_command(&command.uuid, &verdict, allocation.as_ref().map(|_| &message), now)?;
        Step::Judged.passed();
        tracing::info!(
            uuid = command.uuid,
            kind = command.kind.type_name(),
            account = command.account_text,
            state = ?verdict.state,
            error = verdict.error,
            "command"
        );
    }
    Ok(CommandSettled {
        uuid: command.uuid.clone(),
        kind: command.kind.type_name().to_owned(),
        account: command.account_text.clone(),
        description: command.description.clone(),
        verdict,
    })
}

/// The text of a verdict. The server's record names no command, so the text does.
fn told(command: &Command, verdict: &Verdict) -> String {
    if verdict.error.is_empty() {
        return String::new();
    }
    let kind = command.kind.type_name();
    format!("command {kind} {} of {}: {}", command.uuid, command.issued, verdict.error)
}

/// The resource a verdict is told of: that of the account, else the one whose own history shows the command.
async fn allocation_of(agent: &Agent, command: &Command, offer: &Offer) -> Option<String> {
    let by_account = command.account().and_then(|account| {
        offer.allocations.iter().find(|allocation| allocation.account == account).map(|a| a.id.clone())
    });
    if by_account.is_some() {
        return by_account;
    }
    let central = agent.centrals.iter().find(|central| central.name == command.source)?;
    let mut asked = BTreeSet::new();
    for allocation in offer.allocations.iter().filter(|allocation| asked.insert(allocation.id.clone())) {
        match central.client.fetch_commands(&command.policy, Some(&allocation.id)).await {
            Ok(history) if history.value.iter().any(|known| known.uuid == command.uuid) => {
                return Some(allocation.id.clone());
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(error = chain(&error), "the resource of a command could not be found");
                return None;
            }
        }
    }
    None
}
