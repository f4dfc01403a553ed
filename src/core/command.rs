//! Commands of the central server: what they ask, and what became of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::desired::Wish;
use super::evaluate::{Lever, Rules};
use super::exact::Exact;
use super::name::{AccountName, SourceName};
use super::policy::LimitType;
use super::small_map::SmallMap;
use super::time::{Epoch, Window};
use super::tres::Tres;

/// What is asked. The server's shell text is for people and never run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum CommandKind {
    /// Set fairshare.
    Fairshare {
        /// Shares.
        fairshare: u32,
    },
    /// Set limits; keys are component names or `billing`, values component-minutes (for GrpTRES counts).
    Limits {
        /// Which limit.
        limit_type: LimitType,
        /// Values as the server computed them.
        limits: BTreeMap<String, Exact>,
    },
    /// Set the QOS.
    Qos {
        /// The server's word: a level (normal, slowdown, blocked) or a QOS name.
        qos: String,
        /// Its reason, for people.
        reason: String,
    },
    /// Zero the raw usage.
    ResetUsage,
    /// Anything else; refused with the reason.
    NotUnderstood {
        /// The server's type.
        command_type: String,
        /// What is wrong.
        reason: String,
    },
}

impl CommandKind {
    /// The server's word for the type.
    pub fn type_name(&self) -> &str {
        match self {
            CommandKind::Fairshare { .. } => "fairshare",
            CommandKind::Limits { .. } => "limits",
            CommandKind::Qos { .. } => "qos",
            CommandKind::ResetUsage => "reset_usage",
            CommandKind::NotUnderstood { command_type, .. } => command_type,
        }
    }
}

/// One command as found in a policy's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The server's uuid: acted on at most once.
    pub uuid: String,
    /// Where it came from.
    pub source: SourceName,
    /// The policy it belongs to.
    pub policy: String,
    /// The account it names, as written.
    pub account_text: String,
    /// When the server issued it.
    pub issued: Epoch,
    /// Nanoseconds past that second, as far as the server tells: several commands of one evaluation share the second.
    #[serde(default)]
    pub issued_ns: u32,
    /// The server's text for people.
    pub description: String,
    /// What is asked.
    pub kind: CommandKind,
}

impl Command {
    /// The account, where the text is a usable name.
    pub fn account(&self) -> Option<AccountName> {
        AccountName::parse(&self.account_text).ok()
    }

    /// Its place in time among others, as exact as the server tells it.
    pub fn issue(&self) -> Issue {
        (self.issued, self.issued_ns)
    }

    /// Whether type and parameters have a meaning here.
    pub fn is_understood(&self) -> bool {
        !matches!(self.kind, CommandKind::NotUnderstood { .. })
    }
}

/// Where a command stands in the inbox. `Pending` -> one of the others, and never back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandState {
    /// Found, not yet settled.
    Pending,
    /// In effect.
    Done,
    /// Tried, not in effect.
    Failed,
    /// Not tried: unknown, foreign, stale.
    Refused,
    /// A newer one of the same type for the same account took its place: it was not run and needs not be.
    Superseded,
    /// In the history before the agent first looked; never acted on, never reported.
    Adopted,
}

/// What the server is told of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Where it ends.
    pub state: CommandState,
    /// Why it is not in effect, or why nothing was run for it; else empty.
    pub error: String,
    /// The argument vectors that were run for it, for people.
    pub commands: Vec<String>,
}

impl Verdict {
    /// What the server is told. It keeps no verdict of one command: a failure marks the newest rows of the whole resource and
    /// is never taken back (facts/waldur.md). A superseded command is therefore no failure, else the newer one that took its
    /// place would stand there as failed for ever.
    pub fn success(&self) -> bool {
        matches!(self.state, CommandState::Done | CommandState::Superseded)
    }
}

/// Whether Slurm was real.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// A real Slurm.
    Production,
    /// The emulated one.
    Emulator,
}

/// What to do with a command that waits in the inbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Triage {
    /// Act on it, for this allocation.
    Act,
    /// Do not; tell the server why.
    Refuse(String),
    /// A newer one of the same type for the same account stands; tell the server which.
    Superseded(String),
}

/// Time of issue: the second, and the nanoseconds past it.
pub type Issue = (Epoch, u32);

/// A type of command for an account, in lower case: of these the newest stands.
pub type Subject = (String, String);

/// What a command is about.
pub fn subject(command: &Command) -> Subject {
    (command.account_text.to_ascii_lowercase(), command.kind.type_name().to_owned())
}

/// Facts that triage of one command needs.
#[derive(Debug, Clone, Copy)]
pub struct TriageFacts<'a> {
    /// Now.
    pub now: Epoch,
    /// A command issued longer ago is stale.
    pub age_max_s: i64,
    /// A command issued further in the future than this means that a clock is wrong.
    pub skew_max_s: i64,
    /// Accounts of the source's allocations, with the window of the current period.
    pub periods: &'a BTreeMap<AccountName, Window>,
    /// Time of issue and uuid of the newest command in effect of each subject.
    pub in_effect: &'a BTreeMap<Subject, (Issue, String)>,
}

/// Sorts waiting commands, oldest first, into those to act on and those to refuse. Of several of one type for one account the
/// newest that can be acted on stands: one that is refused takes nobody's place. An older one that shows up late, after a
/// newer one was carried out, has lost its place as well.
pub fn triage(waiting: &[Command], facts: &TriageFacts<'_>) -> Vec<Triage> {
    let alone: Vec<Triage> = waiting.iter().map(|command| triage_one(command, facts)).collect();
    let mut newest: BTreeMap<Subject, (Issue, &str)> =
        facts.in_effect.iter().map(|(subject, (at, uuid))| (subject.clone(), (*at, uuid.as_str()))).collect();
    for (command, _) in waiting.iter().zip(&alone).filter(|(_, triage)| **triage == Triage::Act) {
        let stands = newest.entry(subject(command)).or_insert((command.issue(), &command.uuid));
        // Of two of the same instant the one that the server shows later is the newer.
        if command.issue() >= stands.0 {
            *stands = (command.issue(), &command.uuid);
        }
    }
    let judged = waiting.iter().zip(alone).map(|(command, triage)| match newest.get(&subject(command)) {
        Some((at, newer)) if *newer != command.uuid && command.issue() <= *at && command.is_understood() => {
            Triage::Superseded((*newer).to_owned())
        }
        _ => triage,
    });
    judged.collect()
}

fn triage_one(command: &Command, facts: &TriageFacts<'_>) -> Triage {
    let refuse = |reason: String| Triage::Refuse(reason);
    if let CommandKind::NotUnderstood { command_type, reason } = &command.kind {
        return refuse(format!("command of type {command_type:?} is not understood: {reason}"));
    }
    let Some(account) = command.account() else {
        return refuse(format!("{:?} is not a usable account name", command.account_text));
    };
    let Some(period) = facts.periods.get(&account) else {
        return refuse(format!("account {account} belongs to no allocation of this offering"));
    };
    let age_s = facts.now.since(command.issued);
    if -age_s > facts.skew_max_s {
        return refuse(format!("issued {} s in the future: a clock is wrong", -age_s));
    }
    if age_s > facts.age_max_s {
        return refuse(format!("stale: issued {}, {age_s} s ago", command.issued));
    }
    // What it asks for would not stand in this period either.
    if command.issued < period.from {
        return refuse(format!("stale: issued {}, before the current period began", command.issued));
    }
    Triage::Act
}

/// What a command asks for as a wish for its account; an error text says why it cannot be meant.
pub fn wish(
    command: &Command,
    account: &AccountName,
    rules: &Rules,
    billing_limit: bool,
) -> Result<Wish, String> {
    let text = format!(
        "command {} of {} asks for {}",
        command.kind.type_name(),
        command.issued,
        command.description
    );
    let mut wish = Wish::new(account.clone(), command.source.clone(), text);
    match &command.kind {
        CommandKind::Fairshare { fairshare } => wish.fairshare = Some(*fairshare),
        CommandKind::Limits { limit_type, limits } => {
            let mut values = SmallMap::new();
            for (name, amount) in limits {
                let (tres, value) = limit_value(name, *amount, rules)?;
                if tres == Tres::billing() && !billing_limit {
                    return Err(
                        "Slurm counts billing in other units than the policy, so this limit would mean something else"
                            .into(),
                    );
                }
                values.insert(tres, value);
            }
            wish.limits.insert(*limit_type, values);
        }
        CommandKind::Qos { qos, .. } => {
            let named = match qos.to_ascii_lowercase().as_str() {
                "normal" | "notification" => Some(rules.qos.normal.clone()),
                "slowdown" => Some(rules.qos.slowdown.clone()),
                "blocked" => {
                    if rules.qos.lever == Lever::Submit {
                        wish = wish.refusing();
                        Some(rules.qos.slowdown.clone())
                    } else {
                        Some(rules.qos.blocked.clone())
                    }
                }
                other => rules.qos.owned().into_iter().find(|name| name.as_str() == other).cloned(),
            };
            wish.qos =
                Some(named.ok_or_else(|| format!("QOS {qos:?} is not among those this agent manages"))?);
        }
        CommandKind::ResetUsage => {}
        CommandKind::NotUnderstood { reason, .. } => return Err(reason.clone()),
    }
    Ok(wish)
}

/// A limit of the server in Slurm's units: component-minutes (60 x the component's amount) to TRES-minutes.
fn limit_value(name: &str, amount: Exact, rules: &Rules) -> Result<(Tres, u64), String> {
    let no_room = || format!("the limit {name}={amount} is not a whole number that Slurm can hold");
    if name.eq_ignore_ascii_case("billing") {
        return Ok((Tres::billing(), u64::try_from(amount.floor()).map_err(|_| no_room())?));
    }
    if let Some(component) = rules.components.get(name) {
        let factor = Exact::fraction(component.unit.tres_seconds(), 3600).ok_or_else(no_room)?;
        let value = amount.times(factor).ok_or_else(no_room)?.floor();
        return Ok((component.tres.clone(), u64::try_from(value).map_err(|_| no_room())?));
    }
    let tres = rules.components.0.values().map(|c| &c.tres).find(|t| t.as_str().eq_ignore_ascii_case(name));
    let tres = tres.ok_or_else(|| format!("limit {name:?} is neither a component nor its TRES"))?;
    Ok((tres.clone(), u64::try_from(amount.floor()).map_err(|_| no_room())?))
}
