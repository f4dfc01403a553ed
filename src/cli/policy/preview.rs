//! `policy preview`: thresholds, carryover, days and commands for numbers that nobody has saved.

use std::io::IsTerminal;

use clap::Args;
use jiff::civil::Date;
use serde_json::{Map, Value, json};

use super::chart::BurnDown;
use super::impact::{self, Surroundings, impact};
use super::show::plain;
use super::{Common, World};
use crate::agent::Agent;
use crate::agent::clock::Clock;
use crate::agent::error::{AgentError, Exit, chain};
use crate::agent::facts;
use crate::agent::outlook::{Outlook, Outlooks, RATE_DAYS, Standing, outlooks};
use crate::central::waldur::WaldurClient;
use crate::cli::evaluate_now::decimal;
use crate::cli::refusal::explained;
use crate::cli::render::{self, printable};
use crate::cli::usage::{limits_of, only_known};
use crate::core::evaluate::Balance;
use crate::core::exact::Exact;
use crate::core::name::{AccountName, SourceName};
use crate::core::preview::PreviewInput;
use crate::core::time::Epoch;
use crate::store::Store;

/// Width of the chart where no terminal has one.
const WIDTH: usize = 80;

/// What a policy would mean: thresholds, carryover, the days on which they are reached, a burn-down chart.
///
/// Computed here, without a server and without a configuration, by the server's formulas and with its rounding; --json has
/// the field names of its preview_impact. With --account the numbers come from the agent's ledger and from what the
/// sources said last, and flags replace them: what if it had 2000? With --server the server computes, and where its
/// answer is not what the formulas give, lines say so and the exit code is 1.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = AFTER)]
pub struct PreviewArgs {
    /// Granted for the period [default: 1000].
    #[arg(long, value_name = "AMOUNT", value_parser = amount)]
    allocation: Option<f64>,
    /// Tolerated share above it [default: 0.2].
    #[arg(long, value_name = "SHARE", value_parser = amount)]
    grace_ratio: Option<f64>,
    /// Used in the previous period; carryover needs it above 0 [default: 0].
    #[arg(long, value_name = "AMOUNT", value_parser = amount)]
    previous_usage: Option<f64>,
    /// Most that goes over from the previous period, percent of the allocation [default: 50].
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(0..=100))]
    carryover_factor: Option<u32>,
    /// Whether anything goes over [default: true].
    #[arg(long, value_name = "BOOL")]
    carryover_enabled: Option<bool>,
    /// Used so far [default: 0].
    #[arg(long, value_name = "AMOUNT", value_parser = amount)]
    current_usage: Option<f64>,
    /// Used per day [default: 0].
    #[arg(long, value_name = "AMOUNT", value_parser = amount)]
    daily_usage_rate: Option<f64>,
    /// Begin with this account's allocation, policy and real usage in the ledger.
    #[arg(long, value_name = "NAME", value_parser = super::super::account, conflicts_with = "server")]
    account: Option<AccountName>,
    /// Let the server compute.
    #[arg(long)]
    pub server: bool,
    /// Begin with this resource's numbers at the server.
    #[arg(long, value_name = "UUID", requires = "server")]
    resource: Option<String>,
}

const AFTER: &str = "\
Columns:
  Threshold, At     notification (80 %), slowdown (100 %), blocked (grace used up), and where they lie
  Status            never, projected, or exceeded: reached, or less than a day away
  Days, Date        whole days from today if use goes on at the daily rate

Amounts are in one unit of your choice. An account counts as the server's preview counts a resource: the plain sums over
its components, at the mean rate of the period; `usage` and `explain` show the weighted numbers that decide.

Examples:
  slurm-site-agent policy preview --allocation 1000 --previous-usage 700 --current-usage 900 --daily-usage-rate 50
  slurm-site-agent policy preview --account bio42 --grace-ratio 0
  slurm-site-agent policy preview --server --allocation 1000 --json | jq .thresholds";

fn amount(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
    number.ok_or_else(|| format!("{text:?} is not a number"))
}

impl PreviewArgs {
    /// Whether no account and no server is asked.
    pub fn is_from_flags(&self) -> bool {
        self.account.is_none() && !self.server
    }

    /// The numbers with those of the command line put in.
    fn over(&self, base: PreviewInput) -> PreviewInput {
        PreviewInput {
            allocation: self.allocation.unwrap_or(base.allocation),
            grace_ratio: self.grace_ratio.unwrap_or(base.grace_ratio),
            previous_usage: self.previous_usage.unwrap_or(base.previous_usage),
            carryover_enabled: self.carryover_enabled.unwrap_or(base.carryover_enabled),
            carryover_factor: self.carryover_factor.unwrap_or(base.carryover_factor),
            current_usage: self.current_usage.unwrap_or(base.current_usage),
            daily_usage_rate: self.daily_usage_rate.unwrap_or(base.daily_usage_rate),
        }
    }

    /// What is asked of the server: only what the command line says.
    fn body(&self) -> Value {
        let given = [
            ("allocation", self.allocation.map(Value::from)),
            ("grace_ratio", self.grace_ratio.map(Value::from)),
            ("previous_usage", self.previous_usage.map(Value::from)),
            ("carryover_enabled", self.carryover_enabled.map(Value::from)),
            ("carryover_factor", self.carryover_factor.map(Value::from)),
            ("current_usage", self.current_usage.map(Value::from)),
            ("daily_usage_rate", self.daily_usage_rate.map(Value::from)),
            ("resource_uuid", self.resource.clone().map(Value::from)),
        ];
        let body: Map<String, Value> =
            given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
        json!(body)
    }
}

/// Of numbers alone; `clock` says which day is today.
pub fn from_flags(common: &Common, args: &PreviewArgs, clock: &Clock) -> Exit {
    let today = impact::day(clock.now());
    let answer = impact(&args.over(PreviewInput::default()), today, Surroundings::default());
    print(common, &answer, today, &[]);
    Exit::Done
}

/// Computed by the server, and checked.
pub async fn from_server(
    common: &Common,
    args: &PreviewArgs,
    client: &WaldurClient,
    now: Epoch,
) -> Result<Exit, AgentError> {
    let answer = client.preview_impact(&args.body()).await.map_err(explained)?;
    let notes = impact::differences(&answer);
    print(common, &answer, impact::day(now), &notes);
    Ok(if notes.is_empty() { Exit::Done } else { Exit::Attention })
}

/// Of an account's real usage.
pub async fn from_ledger(
    common: &Common,
    args: &PreviewArgs,
    world: &mut World,
    source: Option<&SourceName>,
) -> Result<Exit, AgentError> {
    let store = Store::open_reader(&world.config.store.path)?;
    let mut agent = Agent::offline(world.config.clone(), world.outside()?, store);
    let now = agent.clock.now();
    let facts = facts::fetch(&mut agent, now).await?;
    let observed = agent.slurm.observe().await;
    let mut notes = Vec::new();
    if let Err(error) = &observed {
        notes.push(format!(
            "accounts below the account are not counted, because Slurm could not be asked: {}",
            chain(error)
        ));
    }
    let found = outlooks(&agent, &facts, observed.as_ref().ok(), now)?;
    notes.extend(limits_of(&found));
    let outlook = one(args.account.as_ref(), source, &found)?;
    let zone = &agent.config.cluster.time_zone;
    let date = |at: Epoch| jiff::Timestamp::from_second(at.0).map(|at| at.to_zoned(zone.clone()).date());
    let wrong = |_| AgentError::Calendar(crate::core::period::CalendarError(now));
    let today = date(now).map_err(wrong)?;
    let decided = &outlook.decided;
    let period = match decided.period.end {
        Some(end) => Some((date(decided.period.start).map_err(wrong)?, date(end.plus(-1)).map_err(wrong)?)),
        None => None,
    };
    let input = args.over(used_by(outlook, period.map(|(first, _)| first), today));
    notes.push(format!(
        "decisions rest on {}: {} of {}, level {}",
        outlook.deciding.as_deref().map_or("the weighted sum".to_owned(), |name| format!("component {name}")),
        decimal(decided.used),
        decimal(decided.total),
        decided.level
    ));
    let around = Surroundings { period, commands: impact::commands(decided) };
    print(common, &impact(&input, today, around), today, &notes);
    Ok(Exit::Done)
}

fn one<'a>(
    account: Option<&AccountName>,
    source: Option<&SourceName>,
    found: &'a Outlooks,
) -> Result<&'a Outlook, AgentError> {
    only_known(&account.cloned().into_iter().collect::<Vec<_>>(), found)?;
    let of_source = |standing: &&Standing| match standing {
        Standing::Known(outlook) => source.is_none_or(|source| outlook.decided.source == *source),
        Standing::Unknown { source: own, .. } => source.is_none_or(|source| own == source),
    };
    let own = found.standings.iter().filter(|standing| Some(standing.account()) == account);
    match own.filter(of_source).collect::<Vec<_>>().as_slice() {
        [Standing::Known(outlook)] => Ok(outlook),
        [Standing::Unknown { reason, .. }] => Err(AgentError::Asked(reason.clone())),
        [] => Err(AgentError::Asked("the account has no allocation by that source".into())),
        _ => Err(AgentError::Asked("several policies are for this account; say which --source".into())),
    }
}

/// The numbers of an account as the server's preview takes them from a resource: plain sums over the components, the
/// mean of the period's days, today included.
fn used_by(outlook: &Outlook, first: Option<Date>, today: Date) -> PreviewInput {
    let balances = || outlook.decided.components.values();
    let sum =
        |amount: fn(&Balance) -> Exact| balances().fold(0.0, |sum, balance| sum + amount(balance).to_f64());
    let current_usage = sum(|balance| balance.used);
    let days = match first {
        Some(first) => first.until((jiff::Unit::Day, today)).map_or(1, |span| span.get_days() + 1).max(1),
        None => RATE_DAYS as i32,
    };
    PreviewInput {
        allocation: sum(|balance| balance.base),
        grace_ratio: outlook.policy.grace.to_f64(),
        previous_usage: sum(|balance| balance.previous),
        carryover_enabled: outlook.policy.carryover_percent.is_some(),
        carryover_factor: outlook.policy.carryover_percent.map_or(0, u32::from),
        current_usage,
        daily_usage_rate: current_usage / f64::from(days),
    }
}

fn print(common: &Common, answer: &Value, today: Date, notes: &[String]) {
    let notes: String = notes.iter().map(|note| format!("! {}\n", printable(note))).collect();
    if common.json {
        render::json(answer);
        eprint!("{notes}");
        return;
    }
    let terminal = std::io::stdout().is_terminal().then(terminal_size::terminal_size).flatten();
    let width = terminal.map_or(WIDTH, |(columns, _)| usize::from(columns.0));
    render::text(&(shown(answer, today, width) + &notes));
}

/// An answer of `preview_impact` for people.
fn shown(answer: &Value, today: Date, width: usize) -> String {
    let at = |place: &str| printable(&plain(answer.pointer(place)));
    let carried = match answer.get("carryover") {
        Some(Value::Object(_)) => format!(
            " = {} + {} carried over ({} not used before, at most {})",
            at("/base_allocation"),
            at("/carryover/carryover"),
            at("/carryover/unused"),
            at("/carryover/carryover_cap")
        ),
        _ => ", nothing carried over".to_owned(),
    };
    let mut text = format!("Allocation  {}{carried}\n", at("/effective_allocation"));
    text.push_str(&format!(
        "Used        {} ({} %), {} a day, level {}\n",
        at("/current_usage"),
        at("/usage_percentage"),
        at("/daily_usage_rate"),
        at("/current_qos_status")
    ));
    if answer.get("billing_period_start").is_some_and(Value::is_string) {
        text.push_str(&format!(
            "Period      {} to {}\n",
            at("/billing_period_start"),
            at("/billing_period_end")
        ));
    }
    text.push('\n');
    let row = |name: &str| {
        let projected = |field: &str| plain(answer.pointer(&format!("/date_projections/{name}/{field}")));
        let threshold = plain(answer.pointer(&format!("/thresholds/{name}_threshold")));
        vec![name.to_owned(), threshold, projected("status"), projected("days"), projected("date")]
    };
    text.push_str(&render::table(
        "",
        &["Threshold", "At", "Status", "Days", "Date"],
        ["notification", "slowdown", "blocked"].map(row).to_vec(),
    ));
    if let Some(chart) = burn_down(answer, today) {
        text.push_str(&chart.draw(width));
    }
    let commands = answer.get("preview_commands").and_then(Value::as_array).into_iter().flatten();
    let commands: String =
        commands.map(|command| format!("  {}\n", printable(&plain(command.get("command"))))).collect();
    if !commands.is_empty() {
        text.push_str(&format!("\nCommands that make it so\n{commands}"));
    }
    text
}

fn burn_down(answer: &Value, today: Date) -> Option<BurnDown> {
    let number = |place: &str| answer.pointer(place).and_then(Value::as_f64);
    Some(BurnDown {
        used: number("/current_usage")?,
        daily: number("/daily_usage_rate")?,
        notification: number("/thresholds/notification_threshold")?,
        slowdown: number("/thresholds/slowdown_threshold")?,
        blocked: number("/thresholds/blocked_threshold")?,
        today,
        last: answer.get("billing_period_end").and_then(Value::as_str).and_then(|day| day.parse().ok()),
    })
}
