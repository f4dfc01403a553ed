//! Why an account has what it has: the same cycle as ever, stopped before it changes anything, taken apart for one
//! account. Works on an offline agent with a private copy of the store.

mod release;

use std::collections::{BTreeMap, BTreeSet};

use super::Agent;
use super::counters;
use super::cycle::{Ask, CycleReport, Weighed, cycle};
use super::error::{AgentError, chain};
use super::facts;
use super::outlook::{Outlook, Outlooks, outlooks};
use crate::core::association::{
    Assignments, JobLimits, Limit, Observed, ObservedAssociation, ObservedUser, Share, TresLimits, UserRow,
};
use crate::core::component::{ComponentName, Components};
use crate::core::desired::{Desired, Wish, ancestors};
use crate::core::evaluate::{Level, weight_of};
use crate::core::exact::Exact;
use crate::core::name::{AccountName, Names, QosName, SourceName, UserName};
use crate::core::own::{OwnField, OwnKey, OwnValue, OwnValues};
use crate::core::plan::Change;
use crate::core::policy::LimitType;
use crate::core::tres::Tres;
use crate::slurm::Slurm;

/// Everything an explanation is made from.
#[derive(Debug)]
pub struct Explained {
    /// The cycle that stopped before its changes; changes are those of the account alone.
    pub report: CycleReport,
    /// The numbers.
    pub outlooks: Outlooks,
    /// Slurm's counters that keep jobs waiting although the budget is not used up.
    pub older: Vec<String>,
}

/// Runs the cycle for one account up to its plan.
pub async fn explain(agent: &mut Agent, account: &AccountName) -> Result<Explained, AgentError> {
    let ask = Ask { dry_run: true, account: Some(account.clone()), ..Ask::default() };
    let report = cycle(agent, &ask).await?;
    let facts = facts::fetch(agent, report.at).await?;
    let observed = report.weighed.as_ref().map(|weighed| &weighed.observed);
    let outlooks = outlooks(agent, &facts, observed, report.at)?;
    let older = older_than_budget(agent, account, &report).await;
    Ok(Explained { report, outlooks, older })
}

/// What is said where raw usage leaves no room under the limit that is wanted, although no source has the account blocked.
async fn older_than_budget(agent: &Agent, account: &AccountName, report: &CycleReport) -> Vec<String> {
    let of_it = report.decisions.iter().filter_map(|decision| decision.decided());
    let blocked = of_it.filter(|decided| decided.account == *account).any(|d| d.level == Level::Blocked);
    let wanted = report.weighed.as_ref().and_then(|weighed| weighed.wanted.get(account));
    let limits = wanted.and_then(|wanted| wanted.limits.get(&LimitType::GrpTRESMins));
    let Some(limits) = limits.filter(|_| !blocked) else { return Vec::new() };
    let counters = match agent.slurm.raw_usage().await {
        Ok(counters) => counters,
        Err(error) => {
            return vec![format!("raw usage could not be compared with the limits: {}", chain(&error))];
        }
    };
    let Some(counter) = counters.get(account) else {
        return vec![format!("account {account}: its raw usage is not known")];
    };
    let remedy = counters::remedy(account, &agent.config.cluster.name);
    let found = counters::used_up(limits, counter).into_iter();
    found
        .map(|reached| {
            let found = counters::finding(account, &reached);
            format!("{found}: its jobs wait although the budget is not used up; to begin anew run: {remedy}")
        })
        .collect()
}

/// One who asks for a value of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Whose rule.
    pub source: SourceName,
    /// The account whose rule it is: this one, or one above it whose QOS reaches down.
    pub account: AccountName,
    /// The value.
    pub value: String,
    /// Whether this value is the one that is wanted.
    pub decides: bool,
    /// The rule in one line.
    pub text: String,
}

/// One field of the account's association.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// sacctmgr's name of it, with the TRES of a limit.
    pub name: String,
    /// What is there now; `None` when the account is not there.
    pub now: Option<String>,
    /// What should be there.
    pub wanted: Option<String>,
    /// Who asked for what.
    pub asked: Vec<Asked>,
}

/// The fields that anybody asks for, with everybody who does; those of users' associations of the account after its own.
pub fn fields(account: &AccountName, weighed: &Weighed) -> Vec<Field> {
    let observed = weighed.observed.accounts.get(account);
    let wanted = weighed.wanted.get(account);
    let own: Vec<&Wish> = weighed.wishes.iter().filter(|wish| wish.account == *account).collect();
    let (of_users, of_account): (Vec<&Wish>, Vec<&Wish>) =
        own.into_iter().partition(|wish| wish.user.is_some());
    let mut found = Vec::new();
    for field in asked_fields(account, None, &of_account, weighed) {
        let value =
            wanted.and_then(|wanted| value_of(&field, wanted.fairshare, &wanted.limits, &wanted.jobs));
        let returns = matches!(field, OwnField::Jobs(_))
            || wanted.is_some_and(|wanted| wanted.returning.contains(&field));
        let remembered = Remembered { account, user: None, partition: None, own: &weighed.own, returns };
        let row = observed.map(|account| account.row.as_ref());
        found.push(field_of(String::new(), &field, row, value, &of_account, &remembered));
    }
    let above: Vec<&AccountName> = ancestors(account, &weighed.observed).collect();
    let reaches_down = weighed.wishes.iter().filter(|wish| above.contains(&&wish.account));
    let asks = of_account.iter().copied().chain(reaches_down);
    let asks = asks.filter_map(|wish| Some((wish, wish.qos.as_ref()?.to_string())));
    let qos = wanted.and_then(|wanted| wanted.qos.as_ref()).map(QosName::to_string);
    found.push(field("QOS".to_owned(), observed.map(|account| qos_text(&account.row)), qos, asks));
    for user in observed.into_iter().flat_map(|account| &account.users) {
        let own: Vec<&Wish> =
            of_users.iter().copied().filter(|wish| wish.user.as_ref() == Some(&user.user)).collect();
        let wanted = wanted.and_then(|wanted| wanted.users.get(&user.user));
        let partition = user.partition.as_deref();
        let whose = match partition {
            Some(partition) => format!("user {}, partition {partition}: ", user.user),
            None => format!("user {}: ", user.user),
        };
        for field in asked_fields(account, Some(user), &own, weighed) {
            let value = wanted.and_then(|user| value_of(&field, user.fairshare, &user.limits, &user.jobs));
            let remembered =
                Remembered { account, user: Some(&user.user), partition, own: &weighed.own, returns: true };
            found.push(field_of(whose.clone(), &field, Some(&user.row), value, &own, &remembered));
        }
    }
    found.retain(|field| field.wanted.is_some() || !field.asked.is_empty());
    found
}

/// Fields of one row that a wish names or that have something to be given back.
fn asked_fields(
    account: &AccountName,
    user: Option<&ObservedUser>,
    wishes: &[&Wish],
    weighed: &Weighed,
) -> BTreeSet<OwnField> {
    let mut fields = BTreeSet::new();
    for wish in wishes {
        fields.extend(wish.fairshare.map(|_| OwnField::Fairshare));
        fields.extend(wish.jobs.keys().map(|which| OwnField::Jobs(*which)));
        fields.extend(limits_of(wish).map(|(kind, tres)| OwnField::Tres(kind, tres)));
    }
    let of_row = |key: &&OwnKey| {
        key.account == *account
            && key.user.as_ref() == user.map(|user| &user.user)
            && key.partition.as_deref() == user.and_then(|user| user.partition.as_deref())
    };
    fields.extend(weighed.own.keys().filter(of_row).map(|key| key.field.clone()));
    fields
}

fn value_of(field: &OwnField, fairshare: Option<u32>, limits: &TresLimits, jobs: &JobLimits) -> Option<u64> {
    match field {
        OwnField::Fairshare => fairshare.map(u64::from),
        OwnField::Jobs(which) => jobs.get(which).copied(),
        OwnField::Tres(kind, tres) => limits.get(kind)?.get(tres).copied(),
    }
}

/// Where a row's own value may be remembered.
struct Remembered<'a> {
    account: &'a AccountName,
    user: Option<&'a UserName>,
    partition: Option<&'a str>,
    own: &'a OwnValues,
    /// Whether the field is one that is given back, and a stricter value of the row's own so stays.
    returns: bool,
}

/// What the row had of its own, which takes part as one more who asks: a limit set by hand is never loosened.
fn field_of(
    whose: String,
    field: &OwnField,
    row: Option<&ObservedAssociation>,
    value: Option<u64>,
    wishes: &[&Wish],
    remembered: &Remembered<'_>,
) -> Field {
    let key = OwnKey {
        account: remembered.account.clone(),
        user: remembered.user.cloned(),
        partition: remembered.partition.map(str::to_owned),
        field: field.clone(),
    };
    let now = row.map(|row| field.value_in(row));
    let known = remembered.own.get(&key).filter(|known| now.is_some_and(|now| known.is_agents(now)));
    let before = known.map(|known| known.before);
    let stricter = now.filter(|now| before.is_none() && remembered.returns && is_stricter(*now, value));
    let wanted = match (value, before.or(stricter)) {
        (Some(value), Some(OwnValue::Limit(Limit::At(own)))) => Some(own.min(value).to_string()),
        (Some(value), _) => Some(value.to_string()),
        (None, before) => before.map(value_text),
    };
    let asks = wishes.iter().filter_map(|wish| {
        Some((*wish, value_of(field, wish.fairshare, &wish.limits, &wish.jobs)?.to_string()))
    });
    let mut found = self::field(format!("{whose}{field}"), now.map(value_text), wanted.clone(), asks);
    let own = before
        .map(|before| (before, "what was there before; it comes back when nobody asks for another value"))
        .or(stricter.map(|now| (now, "what it has of its own, which is stricter and stays")));
    if let (Some((own, text)), Ok(source)) = (own, SourceName::parse("slurm")) {
        let value = value_text(own);
        found.asked.push(Asked {
            source,
            account: remembered.account.clone(),
            decides: wanted.as_ref() == Some(&value),
            value,
            text: text.to_owned(),
        });
    }
    found
}

/// Whether a limit lets less through than what is asked for.
fn is_stricter(limit: OwnValue, asked: Option<u64>) -> bool {
    matches!((limit, asked), (OwnValue::Limit(Limit::At(limit)), Some(asked)) if limit < asked)
}

fn value_text(value: OwnValue) -> String {
    match value {
        OwnValue::Share(share) => share.to_string(),
        OwnValue::Limit(Limit::At(value)) => value.to_string(),
        OwnValue::Limit(Limit::Cleared) => "no limit".to_owned(),
    }
}

fn limits_of(wish: &Wish) -> impl Iterator<Item = (LimitType, Tres)> {
    wish.limits.iter().flat_map(|(kind, values)| values.keys().map(move |tres| (*kind, tres.clone())))
}

fn field<'a>(
    name: String,
    now: Option<String>,
    wanted: Option<String>,
    asks: impl Iterator<Item = (&'a Wish, String)>,
) -> Field {
    let asked = asks.map(|(wish, value)| Asked {
        source: wish.source.clone(),
        account: wish.account.clone(),
        decides: wanted.as_ref() == Some(&value),
        value,
        text: wish.text.to_string(),
    });
    Field { asked: asked.collect(), name, now, wanted }
}

fn qos_text(row: &ObservedAssociation) -> String {
    let list: Vec<&str> = row.qos.iter().map(QosName::as_str).collect();
    let own = if row.qos_is_own { "" } else { " (inherited)" };
    let default = row.default_qos.as_ref().map_or(String::new(), |name| format!(", default {name}"));
    format!("{}{own}{default}", if list.is_empty() { "none".to_owned() } else { list.join(",") })
}

/// What a person would type.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ByHand {
    /// Whether everything wanted is in force already, and the commands would change nothing.
    pub in_force: bool,
    /// What makes it so.
    pub commands: Vec<String>,
    /// What takes it back to what is there now; empty when everything is in force.
    pub undo: Vec<String>,
    /// What makes the account one that the agent never touched.
    pub release: Vec<String>,
}

/// The commands for what is due; where nothing is due, for what is in force.
pub fn by_hand(slurm: &Slurm, report: &CycleReport, account: &AccountName) -> ByHand {
    let Some(weighed) = &report.weighed else { return ByHand::default() };
    let release = release::commands(slurm, account, weighed);
    let due: Vec<&Change> = report.changes.iter().chain(&report.held).map(|state| &state.change).collect();
    if !due.is_empty() {
        return ByHand {
            in_force: false,
            commands: due.iter().map(|change| slurm.argv(change).to_string()).collect(),
            undo: due.iter().rev().flat_map(|change| undo(slurm, change, &weighed.observed)).collect(),
            release,
        };
    }
    let row = weighed.observed.accounts.get(account).map(|account| &account.row);
    let set = weighed.wanted.get(account).zip(row).map(|(wanted, row)| in_force(wanted, row));
    let commands: Vec<String> = set.iter().map(|set| typed(slurm, account, set, &[])).collect();
    ByHand { in_force: !commands.is_empty(), commands, undo: Vec::new(), release }
}

fn typed(slurm: &Slurm, account: &AccountName, set: &Assignments, more: &[&str]) -> String {
    let change = Change::Accounts { accounts: Names::one(account.clone()), set: set.clone() };
    with(slurm.argv(&change).to_string(), more)
}

fn with(mut typed: String, more: &[&str]) -> String {
    for word in more {
        typed.push(' ');
        typed.push_str(word);
    }
    typed
}

/// Everything wanted of an account that has it, as one modify would set it: where its own limit is stricter than what is asked
/// for, that one.
fn in_force(wanted: &Desired, row: &ObservedAssociation) -> Assignments {
    let value = |field: OwnField, asked: u64| match field.value_in(row) {
        OwnValue::Limit(Limit::At(now)) => Limit::At(now.min(asked)),
        _ => Limit::At(asked),
    };
    let limits = wanted.limits.iter().map(|(kind, values)| {
        let value = |tres: &Tres, asked| value(OwnField::Tres(*kind, tres.clone()), asked);
        (*kind, values.iter().map(|(tres, asked)| (tres.clone(), value(tres, *asked))).collect())
    });
    let jobs = wanted.jobs.iter().map(|(which, asked)| (*which, value(OwnField::Jobs(*which), *asked)));
    Assignments {
        fairshare: wanted.fairshare,
        limits: limits.collect(),
        jobs: jobs.collect(),
        qos: wanted.qos.as_ref().map(|_| row.qos.clone()),
        default_qos: wanted.qos.as_ref().and(row.default_qos.clone()),
    }
}

/// What brings back what is there now, in the words of sacctmgr.
fn undo(slurm: &Slurm, change: &Change, observed: &Observed) -> Vec<String> {
    match change {
        Change::Accounts { accounts, set } => accounts
            .iter()
            .filter_map(|name| {
                let (back, more) = inverse(set, &observed.accounts.get(name)?.row);
                Some(typed(slurm, name, &back, &more))
            })
            .collect(),
        Change::User { user, account, row, set } => {
            let above = observed.accounts.get(account);
            let known = above.and_then(|above| above.user(user, row));
            known
                .map(|known| {
                    let (back, more) = inverse(set, &known.row);
                    let (user, account, row) = (user.clone(), account.clone(), row.clone());
                    let change = Change::User { user, account, row, set: back };
                    with(slurm.argv(&change).to_string(), &more)
                })
                .into_iter()
                .collect()
        }
        Change::Users { users, accounts, set } => accounts
            .iter()
            .flat_map(|account| users.iter().map(move |user| (user, account)))
            .flat_map(|(user, account)| {
                let (user, account, row) = (user.clone(), account.clone(), UserRow::Only);
                let one = Change::User { user, account, row, set: set.clone() };
                undo(slurm, &one, observed)
            })
            .collect(),
        Change::ResetRawUsage { account, .. } => {
            vec![format!("(the raw usage of {account} cannot be given back once it is reset)")]
        }
    }
}

/// The fields of `set` as they are in `row`, and what the type of assignments has no value for.
fn inverse(set: &Assignments, row: &ObservedAssociation) -> (Assignments, Vec<&'static str>) {
    let mut more = Vec::new();
    let fairshare = set.fairshare.and(match row.share {
        Share::Number(shares) => Some(shares),
        Share::Parent => None,
    });
    if set.fairshare.is_some() && row.share == Share::Parent {
        more.push("fairshare=parent");
    }
    if set.default_qos.is_some() && !row.default_qos_is_own {
        more.push("defaultqos=-1");
    }
    let limits = set.limits.iter().map(|(kind, values)| {
        let now = |tres: &Tres| row.limits.get(kind).and_then(|limits| limits.get(tres));
        let back =
            values.keys().map(|tres| (tres.clone(), now(tres).map_or(Limit::Cleared, |v| Limit::At(*v))));
        (*kind, back.collect::<BTreeMap<_, _>>())
    });
    let list = if row.qos_is_own { row.qos.clone() } else { BTreeSet::new() };
    let back = Assignments {
        fairshare,
        limits: limits.collect(),
        jobs: set
            .jobs
            .keys()
            .map(|which| (*which, row.jobs.get(which).map_or(Limit::Cleared, |value| Limit::At(*value))))
            .collect(),
        qos: set.qos.as_ref().map(|_| list),
        default_qos: set.default_qos.as_ref().and(row.default_qos.clone()).filter(|_| row.default_qos_is_own),
    };
    (back, more)
}

/// What separates an account from its next level, and from leaving the present one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ahead {
    /// The next level, unless the account is at the last.
    pub next: Option<Next>,
    /// By how much the total would have to grow before the present level is left; `None` at the lowest, and where nothing
    /// is granted.
    pub relief: Option<Exact>,
}

/// The next level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Next {
    /// Which.
    pub level: Level,
    /// From this percentage on.
    pub percent: Exact,
    /// So much more of the scalar.
    pub missing: Exact,
    /// So much more of one component, if only that one is used.
    pub by_component: BTreeMap<ComponentName, Exact>,
}

/// Looks ahead; `None` when a number has no room.
pub fn ahead(outlook: &Outlook, components: &Components) -> Option<Ahead> {
    let decided = &outlook.decided;
    let mut next = None;
    if let Some(threshold) = outlook.thresholds.iter().find(|threshold| threshold.level > decided.level) {
        let mut by_component = BTreeMap::new();
        let missing = threshold.at.minus(decided.used)?;
        for (name, balance) in &decided.components {
            let alone = if outlook.deciding.is_some() {
                let at = balance.total.times(threshold.percent)?.over(Exact::whole(100))?;
                Some(at.minus(balance.used)?)
            } else {
                let tres = components.get(name).map(|component| &component.tres);
                missing.over(weight_of(&outlook.policy.weights, name, tres).unwrap_or(Exact::ONE))
            };
            by_component.extend(alone.map(|alone| (name.clone(), alone)));
        }
        next = Some(Next { level: threshold.level, percent: threshold.percent, missing, by_component });
    }
    let present = outlook.thresholds.iter().find(|threshold| threshold.level == decided.level);
    let relief = present.and_then(|present| {
        decided.used.times(Exact::whole(100))?.over(present.percent)?.minus(decided.total)
    });
    Some(Ahead { next, relief })
}

#[cfg(test)]
mod tests;
