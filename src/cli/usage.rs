//! `usage`: what each account has used of its total, and when it will reach its thresholds.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use serde::{Serialize, Serializer};

use super::evaluate_now::decimal;
use super::world::World;
use super::{Common, account, log, render, world};
use crate::agent::Agent;
use crate::agent::error::{AgentError, Exit, chain};
use crate::agent::facts;
use crate::agent::outlook::{Outlook, Outlooks, Standing, Threshold, outlooks};
use crate::config::Config;
use crate::core::evaluate::Level;
use crate::core::exact::Exact;
use crate::core::name::{AccountName, SourceName};
use crate::core::preview::Projection;
use crate::core::time::Epoch;
use crate::store::Store;

/// Show what accounts have used of their totals, and when they will reach their thresholds.
///
/// Counts the jobs in the agent's ledger, up to its last collection, against what the sources said last. It asks no
/// server, needs no secret, works beside the daemon and changes nothing. Slurm is asked once, for the account tree, so
/// that accounts below an account count with it; without Slurm each account counts alone, and a line says so.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = AFTER)]
pub struct UsageArgs {
    /// Only these accounts [default: every account with an allocation].
    #[arg(value_name = "ACCOUNT", value_parser = account)]
    accounts: Vec<AccountName>,
    /// Also the components of each account, in their units.
    #[arg(long)]
    components: bool,
    /// Also the users of each account.
    #[arg(long)]
    users: bool,
}

const AFTER: &str = "\
Columns:
  Account, Source, Period   whose budget, granted by whom, for which period
  Used, Total, %            the one number that is compared with the thresholds: the weighted sum of the components, or
                            without TRES billing the component closest to its total (In); carryover is in the total
  Level                     normal, notification (80 %), slowdown (100 %), blocked (grace used up)
  Notification, Slowdown,   the day on which the threshold is reached if use goes on at the mean daily rate of the
  Blocked                   period (without periods: of the last 30 days); `reached`, or `-`: not in this period

Amounts of --json are decimal texts; components and users are always in it.

Examples:
  slurm-site-agent usage
  slurm-site-agent usage bio42 --components --users
  slurm-site-agent usage --json | jq -r '.accounts[] | select(.level != \"normal\") | .account'";

/// Digits after the point of amounts in JSON.
const JSON_PLACES: u32 = 6;

/// An amount as a decimal text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Amount(pub Exact);

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.to_decimal(JSON_PLACES).unwrap_or_else(|| self.0.to_string()))
    }
}

/// The verb's answer. Its JSON is the verb's `--json`.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Up to when use is counted.
    pub as_of: Epoch,
    /// The earliest instant that the ledger covers.
    pub ledger_from: Option<Epoch>,
    /// Whether accounts below an account are counted with it.
    pub sub_accounts_counted: bool,
    /// What limits the answer.
    pub notes: Vec<String>,
    /// Accounts.
    pub accounts: Vec<AccountReport>,
}

/// One account by one policy.
#[derive(Debug, Serialize)]
pub struct AccountReport {
    /// Account.
    pub account: AccountName,
    /// Source.
    pub source: SourceName,
    /// Policy, for people.
    pub policy: String,
    /// Name of the period.
    pub period: String,
    /// Its first second.
    pub period_start: Epoch,
    /// Its first second after.
    pub period_end: Option<Epoch>,
    /// The component whose amount `used` and `total` are; null: the weighted sum.
    pub scalar: Option<String>,
    /// Used.
    pub used: Amount,
    /// Total.
    pub total: Amount,
    /// 100 x used / total.
    pub percent: Option<Amount>,
    /// Level.
    pub level: Level,
    /// Mean use per day.
    pub daily: Option<Amount>,
    /// When 80 % is reached.
    pub notification: Reached,
    /// When 100 % is reached.
    pub slowdown: Reached,
    /// When the grace is used up.
    pub blocked: Reached,
    /// Per component.
    pub components: BTreeMap<String, ComponentReport>,
    /// Per user.
    pub users: BTreeMap<String, UserReport>,
}

/// When a threshold is reached.
#[derive(Debug, Serialize)]
pub struct Reached {
    /// Where it lies, in the scalar.
    pub at: Amount,
    /// `reached`, `projected` or `never`
    pub status: &'static str,
    /// Whole days from now.
    pub days: Option<i64>,
    /// The day.
    pub date: Option<String>,
    /// Whether that is within the period.
    pub in_period: bool,
}

/// One component, in its unit.
#[derive(Debug, Serialize)]
pub struct ComponentReport {
    /// Its unit.
    pub unit: String,
    /// Granted.
    pub base: Amount,
    /// Carried over.
    pub carryover: Amount,
    /// base + carryover
    pub total: Amount,
    /// Used in this period.
    pub used: Amount,
    /// Used in the previous one.
    pub previous: Amount,
}

/// One user.
#[derive(Debug, Serialize)]
pub struct UserReport {
    /// In the scalar.
    pub used: Amount,
    /// Per component, in its unit.
    pub components: BTreeMap<String, Amount>,
}

/// Prints the usage.
pub fn run(common: &Common, args: &UsageArgs) -> Result<Exit, AgentError> {
    let runtime = world::runtime()?;
    let report = runtime.block_on(async {
        let mut world = World::open(common).await?;
        log::start(&world.config.log);
        let report = look(&mut world, args).await;
        world.close().await;
        report
    })?;
    if common.json {
        render::json(&report);
    } else {
        render::text(&show(&report, args));
    }
    Ok(Exit::Done)
}

async fn look(world: &mut World, args: &UsageArgs) -> Result<Report, AgentError> {
    let store = Store::open_reader(&world.config.store.path)?;
    let mut agent = Agent::offline(world.config.clone(), world.outside()?, store);
    let now = agent.clock.now();
    let facts = facts::fetch(&mut agent, now).await?;
    let observed = agent.slurm.observe().await;
    let mut notes: Vec<String> = observed
        .as_ref()
        .err()
        .map(|error| {
            format!(
                "accounts below an account are not counted, because Slurm could not be asked: {}",
                chain(error)
            )
        })
        .into_iter()
        .collect();
    let found = outlooks(&agent, &facts, observed.as_ref().ok(), now)?;
    only_known(&args.accounts, &found)?;
    notes.extend(limits_of(&found));
    let wanted =
        |standing: &&Standing| args.accounts.is_empty() || args.accounts.contains(standing.account());
    let mut accounts = Vec::new();
    for standing in found.standings.iter().filter(wanted) {
        match standing {
            Standing::Known(outlook) => accounts.push(account_report(outlook, &agent.config)),
            Standing::Unknown { account, source, reason } => {
                notes.push(format!("account {account} by {source}: {reason}"));
            }
        }
    }
    accounts.sort_by(|a, b| (&a.account, &a.source).cmp(&(&b.account, &b.source)));
    Ok(Report {
        as_of: found.as_of,
        ledger_from: found.reaches_back_to,
        sub_accounts_counted: observed.is_ok(),
        notes,
        accounts,
    })
}

/// Refuses accounts that have no allocation.
pub fn only_known(asked: &[AccountName], found: &Outlooks) -> Result<(), AgentError> {
    let known: BTreeSet<&AccountName> = found.standings.iter().map(Standing::account).collect();
    match asked.iter().find(|account| !known.contains(account)) {
        None => Ok(()),
        Some(account) => {
            let list: Vec<&str> = known.iter().take(20).map(|name| name.as_str()).collect();
            let more = if known.len() > list.len() { ", ..." } else { "" };
            Err(AgentError::Asked(format!(
                "account {account} has no allocation; accounts with one: {}{more}",
                if list.is_empty() { "none".to_owned() } else { list.join(", ") }
            )))
        }
    }
}

/// What limits the numbers.
pub fn limits_of(found: &Outlooks) -> Vec<String> {
    let mut notes = Vec::new();
    if found.collected.is_none() {
        notes.push("no jobs have been collected yet: run slurm-site-agent --evaluate-now".to_owned());
    }
    if let Some(from) = found.short_of() {
        notes.push(format!("the ledger reaches back to {from} only; what was used before is not counted"));
    }
    notes
}

/// One account's numbers.
pub fn account_report(outlook: &Outlook, config: &Config) -> AccountReport {
    let decided = &outlook.decided;
    let at = |level| {
        let threshold = outlook.thresholds.iter().find(|threshold| threshold.level == level);
        threshold.map_or_else(Reached::unknown, Reached::of)
    };
    AccountReport {
        account: decided.account.clone(),
        source: decided.source.clone(),
        policy: outlook.policy.name.clone(),
        period: decided.period.name.clone(),
        period_start: decided.period.start,
        period_end: decided.period.end,
        scalar: outlook.deciding.clone(),
        used: Amount(decided.used),
        total: Amount(decided.total),
        percent: decided.percent.map(Amount),
        level: decided.level,
        daily: outlook.daily.map(Amount),
        notification: at(Level::Notification),
        slowdown: at(Level::Slowdown),
        blocked: at(Level::Blocked),
        components: component_reports(outlook, config),
        users: outlook
            .users
            .iter()
            .map(|(user, part)| {
                let components = part.components.iter().map(|(name, used)| (name.clone(), Amount(*used)));
                (user.clone(), UserReport { used: Amount(part.used), components: components.collect() })
            })
            .collect(),
    }
}

fn component_reports(outlook: &Outlook, config: &Config) -> BTreeMap<String, ComponentReport> {
    let report = |(name, balance): (&String, &crate::core::evaluate::Balance)| {
        let unit = config.components.get(name).map_or(String::new(), |component| component.unit.to_string());
        let report = ComponentReport {
            unit,
            base: Amount(balance.base),
            carryover: Amount(balance.carryover),
            total: Amount(balance.total),
            used: Amount(balance.used),
            previous: Amount(balance.previous),
        };
        (name.clone(), report)
    };
    outlook.decided.components.iter().map(report).collect()
}

impl Reached {
    /// Of a threshold.
    pub fn of(threshold: &Threshold) -> Reached {
        let (status, days) = match threshold.projection {
            Projection::Exceeded => ("reached", None),
            Projection::Never => ("never", None),
            Projection::Projected { days } => ("projected", i64::try_from(days).ok()),
        };
        Reached {
            at: Amount(threshold.at),
            status,
            days,
            date: threshold.date.clone(),
            in_period: threshold.in_period,
        }
    }

    fn unknown() -> Reached {
        Reached { at: Amount(Exact::ZERO), status: "never", days: None, date: None, in_period: false }
    }

    /// In one word, for people.
    pub fn word(&self) -> String {
        match (&self.date, self.in_period, self.status) {
            (_, _, "reached") => "reached".to_owned(),
            (Some(date), true, _) => date.clone(),
            _ => "-".to_owned(),
        }
    }
}

/// The report for people.
pub fn show(report: &Report, args: &UsageArgs) -> String {
    let accounts = || report.accounts.iter();
    let mut text = format!("usage up to {}\n\n", report.as_of);
    text.push_str(&render::table(
        "",
        &[
            "Account",
            "Source",
            "Period",
            "Used",
            "Total",
            "In",
            "%",
            "Level",
            "Notification",
            "Slowdown",
            "Blocked",
        ],
        accounts().map(account_row).collect(),
    ));
    if args.components {
        text.push_str(&render::table(
            "COMPONENTS",
            &[
                "Account",
                "Source",
                "Component",
                "Unit",
                "Base",
                "Carryover",
                "Total",
                "Used",
                "%",
                "Previous",
            ],
            accounts().flat_map(component_rows).collect(),
        ));
    }
    if args.users {
        text.push_str(&render::table(
            "USERS",
            &["Account", "Source", "User", "Used", "% of used", "Components"],
            accounts().flat_map(user_rows).collect(),
        ));
    }
    for note in &report.notes {
        text.push_str(&format!("! {}\n", render::printable(note)));
    }
    text
}

fn account_row(account: &AccountReport) -> Vec<String> {
    vec![
        account.account.to_string(),
        account.source.to_string(),
        account.period.clone(),
        decimal(account.used.0),
        decimal(account.total.0),
        account.scalar.clone().unwrap_or_else(|| "weighted".into()),
        account.percent.map_or("-".into(), |percent| decimal(percent.0)),
        account.level.to_string(),
        account.notification.word(),
        account.slowdown.word(),
        account.blocked.word(),
    ]
}

fn percent(part: Exact, of: Exact) -> String {
    part.times(Exact::whole(100)).and_then(|part| part.over(of)).map_or("-".into(), decimal)
}

fn component_rows(account: &AccountReport) -> Vec<Vec<String>> {
    let row = |(name, c): (&String, &ComponentReport)| {
        vec![
            account.account.to_string(),
            account.source.to_string(),
            name.clone(),
            c.unit.clone(),
            decimal(c.base.0),
            decimal(c.carryover.0),
            decimal(c.total.0),
            decimal(c.used.0),
            percent(c.used.0, c.total.0),
            decimal(c.previous.0),
        ]
    };
    account.components.iter().map(row).collect()
}

/// Who used most comes first.
fn user_rows(account: &AccountReport) -> Vec<Vec<String>> {
    let mut users: Vec<(&String, &UserReport)> = account.users.iter().collect();
    users.sort_by(|(a, one), (b, other)| other.used.0.cmp(&one.used.0).then(a.cmp(b)));
    let row = |(user, part): (&String, &UserReport)| {
        let components: Vec<String> =
            part.components.iter().map(|(name, used)| format!("{name}={}", decimal(used.0))).collect();
        vec![
            account.account.to_string(),
            account.source.to_string(),
            user.clone(),
            decimal(part.used.0),
            percent(part.used.0, account.used.0),
            components.join(" "),
        ]
    };
    users.into_iter().map(row).collect()
}
