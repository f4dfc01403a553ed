//! `explain ACCOUNT`: the numbers, the rule, who asked for what, what would change, and how to do it by hand.

use std::collections::BTreeMap;

use clap::Args;
use serde::Serialize;

use super::evaluate_now::decimal;
use super::usage::{self, AccountReport, Amount, Reached, account_report, limits_of, only_known};
use super::world::World;
use super::{Common, account, log, render, standings, world};
use crate::agent::Agent;
use crate::agent::apply::ChangeState;
use crate::agent::error::{AgentError, Exit};
use crate::agent::explain::{Ahead, Asked, ByHand, Explained, Field, Next, ahead, by_hand, explain, fields};
use crate::agent::outlook::{Outlook, Standing};
use crate::config::{Config, LOCAL_SOURCE};
use crate::core::association::TresLimits;
use crate::core::desired::ancestors;
use crate::core::evaluate::{Decision, Level, weight_of};
use crate::core::name::{AccountName, SourceName};
use crate::core::quota_rules::QuotaStanding;
use crate::core::time::Epoch;

/// Explain one account: its numbers, the rule that decided, who asked for what, and what would change now.
///
/// Runs the cycle up to its plan on a private copy of the store: new jobs are collected into the copy and the accounts
/// are observed, but no server is asked (what the sources said last stands), no secret is read, and nothing is changed.
/// Works beside the daemon. Needs Slurm.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = AFTER)]
pub struct ExplainArgs {
    /// The account.
    #[arg(value_name = "ACCOUNT", value_parser = account)]
    account: AccountName,
}

const AFTER: &str = "\
Parts of the answer:
  COMPONENTS   per component its TRES, unit and weight; Base granted, Carryover from the period before, Total, Used, and
               Previous: what was used in the period before
  THRESHOLDS   at which percentage and amount each level begins, and the day it is reached at the mean daily rate
  rule         the decision in one line, and what Slurm cannot mean of it (lines with `!`)
  QUOTAS       where each rule of a quota stands, and when submissions that are stopped come back
  FIELDS       what is there Now and what is Wanted, one line for everybody who asked; `*` marks the value that decides:
               the strictest wins
  CHANGES DUE  what the next cycle would run
  BY HAND      the same for a person (where nothing is due, what is in force), the commands that bring back what is there
               now, and those that take everything of the agent's off the account
  NEXT LEVEL   what would have to be used to reach it, and what would have to be granted to leave the present one

Examples:
  slurm-site-agent explain bio42
  slurm-site-agent explain bio42 --json | jq -r '.by_hand.release[]'";

/// The verb's answer. Its JSON is the verb's `--json`.
#[derive(Debug, Serialize)]
pub struct Explanation {
    /// The account.
    pub account: AccountName,
    /// Accounts above it, nearest first, without root.
    pub ancestors: Vec<AccountName>,
    /// When.
    pub at: Epoch,
    /// One for each allocation and policy.
    pub policies: Vec<PolicyView>,
    /// Where the rules of quotas stand.
    pub quotas: Vec<QuotaStanding>,
    /// Fields of the association.
    pub fields: Vec<FieldView>,
    /// What the next cycle would run.
    pub changes: Vec<ChangeState>,
    /// What would wait for an operator.
    pub held: Vec<ChangeState>,
    /// Commands for people.
    pub by_hand: ByHandView,
    /// What people should know.
    pub notes: Vec<String>,
}

/// One policy's view.
#[derive(Debug, Serialize)]
pub struct PolicyView {
    /// Numbers; null where they cannot be told.
    pub numbers: Option<AccountReport>,
    /// Weight of each component in the scalar.
    pub weights: BTreeMap<String, Amount>,
    /// Share above the total that is tolerated.
    pub grace: Option<Amount>,
    /// Percent of the base that may be carried over.
    pub carryover_percent: Option<u8>,
    /// The source.
    pub source: SourceName,
    /// When the source last answered in full; null for local allocations.
    pub answered: Option<Epoch>,
    /// The allocation, for people.
    pub allocation: String,
    /// The decision.
    pub decision: DecisionView,
    /// The next level.
    pub next: Option<NextView>,
    /// By how much the total would have to grow to leave the present level.
    pub relief: Option<Amount>,
}

/// A decision.
#[derive(Debug, Serialize)]
pub struct DecisionView {
    /// Whether there is one.
    pub decided: bool,
    /// The rule in one line, or which fact is missing.
    pub reason: String,
    /// The level, and what the policy's actions let happen.
    pub level: Option<Level>,
    /// See `level`.
    pub effect: Option<Level>,
    /// QOS.
    pub qos: Option<String>,
    /// Fairshare.
    pub fairshare: Option<u32>,
    /// Limits.
    pub limits: TresLimits,
    /// What Slurm cannot mean of it.
    pub findings: Vec<String>,
}

/// The next level.
#[derive(Debug, Serialize)]
pub struct NextView {
    /// Which.
    pub level: Level,
    /// From this percentage.
    pub percent: Amount,
    /// So much more in the scalar.
    pub missing: Amount,
    /// So much more of one component alone.
    pub by_component: BTreeMap<String, Amount>,
}

/// A field.
#[derive(Debug, Serialize)]
pub struct FieldView {
    /// Its name.
    pub name: String,
    /// What is there.
    pub now: Option<String>,
    /// What should be.
    pub wanted: Option<String>,
    /// Who asked for what.
    pub asked: Vec<AskedView>,
}

/// Who asked.
#[derive(Debug, Serialize)]
pub struct AskedView {
    /// Whose rule.
    pub source: SourceName,
    /// For which account.
    pub account: AccountName,
    /// The value.
    pub value: String,
    /// Whether it is the one that is wanted.
    pub decides: bool,
    /// The rule.
    pub why: String,
}

/// Commands for people.
#[derive(Debug, Serialize)]
pub struct ByHandView {
    /// Whether they would change nothing.
    pub in_force: bool,
    /// What makes it so.
    pub commands: Vec<String>,
    /// What takes it back to what is there now.
    pub undo: Vec<String>,
    /// What takes everything of the agent's off the account.
    pub release: Vec<String>,
}

/// Prints the explanation.
pub fn run(common: &Common, args: &ExplainArgs) -> Result<Exit, AgentError> {
    let runtime = world::runtime()?;
    let explanation = runtime.block_on(async {
        let mut world = World::open(common).await?;
        log::start(&world.config.log);
        let explanation = look(&mut world, &args.account).await;
        world.close().await;
        explanation
    })?;
    if common.json {
        render::json(&explanation);
    } else {
        render::text(&show(&explanation));
    }
    let undecided = explanation.policies.iter().any(|policy| !policy.decision.decided);
    Ok(if undecided { Exit::Attention } else { Exit::Done })
}

async fn look(world: &mut World, account: &AccountName) -> Result<Explanation, AgentError> {
    let store = world.store_copy()?;
    let mut agent = Agent::offline(world.config.clone(), world.outside()?, store);
    let explained = explain(&mut agent, account).await?;
    let has_quota = explained.report.quotas.iter().any(|standing| standing.account == *account)
        || explained
            .report
            .weighed
            .iter()
            .flat_map(|weighed| &weighed.wishes)
            .any(|wish| wish.account == *account);
    if !has_quota {
        only_known(std::slice::from_ref(account), &explained.outlooks)?;
    }
    Ok(explanation(&agent, account, explained))
}

fn explanation(agent: &Agent, account: &AccountName, explained: Explained) -> Explanation {
    let Explained { report, outlooks, older } = explained;
    let mut notes = limits_of(&outlooks);
    notes.extend(older);
    let mut above = Vec::new();
    let mut views = Vec::new();
    match &report.weighed {
        Some(weighed) => {
            above = ancestors(account, &weighed.observed).cloned().collect();
            views = fields(account, weighed).into_iter().map(FieldView::of).collect();
            if !weighed.observed.accounts.contains_key(account) {
                notes.push(format!("account {account} does not exist in Slurm"));
            }
        }
        None => notes
            .push("Slurm could not be asked: what is there now and what would change is not known".into()),
    }
    notes.extend(report.findings.iter().filter(|finding| concerns(finding, account)).cloned());
    notes.extend(report.held_because.clone());
    let own = outlooks.standings.iter().filter(|standing| standing.account() == account);
    Explanation {
        account: account.clone(),
        ancestors: above,
        at: report.at,
        policies: own.map(|standing| policy_view(agent, standing, &report)).collect(),
        quotas: report.quotas.iter().filter(|standing| standing.account == *account).cloned().collect(),
        fields: views,
        by_hand: ByHandView::of(by_hand(&agent.slurm, &report, account)),
        changes: report.changes,
        held: report.held,
        notes,
    }
}

/// Findings of the whole cycle that speak of no account, or of this one; those of the decision are shown with it.
fn concerns(finding: &str, account: &AccountName) -> bool {
    match finding.strip_prefix("account ") {
        Some(rest) => {
            let name = rest.split([' ', ':']).next().unwrap_or("");
            name == account.as_str() && !rest.starts_with(&format!("{account}: "))
        }
        None => true,
    }
}

fn policy_view(agent: &Agent, standing: &Standing, report: &crate::agent::cycle::CycleReport) -> PolicyView {
    let (source, outlook) = match standing {
        Standing::Known(outlook) => (&outlook.decided.source, Some(outlook)),
        Standing::Unknown { source, .. } => (source, None),
    };
    // What the configuration says itself is as fresh as the configuration.
    let state = report.sources.iter().find(|s| s.name == *source && source.as_str() != LOCAL_SOURCE);
    let ahead = outlook.and_then(|outlook| ahead(outlook, &agent.config.components));
    let ahead = ahead.unwrap_or(Ahead { next: None, relief: None });
    PolicyView {
        numbers: outlook.map(|outlook| account_report(outlook, &agent.config)),
        weights: outlook.map(|outlook| weights(outlook, &agent.config)).unwrap_or_default(),
        grace: outlook.map(|outlook| Amount(outlook.policy.grace)),
        carryover_percent: outlook.and_then(|outlook| outlook.policy.carryover_percent),
        source: source.clone(),
        answered: state.and_then(|state| state.answered),
        allocation: outlook.map_or(String::new(), |outlook| outlook.allocation.name.clone()),
        decision: decision_view(standing, &report.decisions),
        next: ahead.next.map(NextView::of),
        relief: ahead.relief.map(Amount),
    }
}

/// Weights as they count in the scalar: a component without one counts as it is.
fn weights(outlook: &Outlook, config: &Config) -> BTreeMap<String, Amount> {
    if outlook.deciding.is_some() {
        return BTreeMap::new();
    }
    let one = crate::core::exact::Exact::ONE;
    let weight = |name: &String| {
        let tres = config.components.get(name).map(|component| &component.tres);
        (name.clone(), Amount(weight_of(&outlook.policy.weights, name, tres).unwrap_or(one)))
    };
    outlook.decided.components.keys().map(weight).collect()
}

/// The cycle's own decision: it also knows stale facts and accounts that may not be changed.
fn decision_view(standing: &Standing, decisions: &[Decision]) -> DecisionView {
    let undecided = |reason: String| DecisionView {
        decided: false,
        reason,
        level: None,
        effect: None,
        qos: None,
        fairshare: None,
        limits: TresLimits::new(),
        findings: Vec::new(),
    };
    let outlook = match standing {
        Standing::Known(outlook) => outlook,
        Standing::Unknown { reason, .. } => return undecided(reason.clone()),
    };
    let is_it = |decision: &&Decision| match decision {
        Decision::Decided(d) => {
            d.policy == outlook.decided.policy
                && d.allocation == outlook.decided.allocation
                && d.source == outlook.decided.source
        }
        Decision::Undecided { source, allocation, .. } => {
            *source == outlook.decided.source && *allocation == outlook.decided.allocation
        }
    };
    match decisions.iter().find(is_it) {
        Some(Decision::Decided(decided)) => DecisionView {
            decided: true,
            reason: decided.reason.to_string(),
            level: Some(decided.level),
            effect: Some(decided.effect),
            qos: Some(decided.qos.to_string()),
            fairshare: Some(decided.fairshare),
            limits: decided.limits.clone(),
            findings: decided.findings.clone(),
        },
        Some(Decision::Undecided { reason, .. }) => undecided(reason.clone()),
        None => undecided("Slurm could not be asked; what is in force stays in force".to_owned()),
    }
}

impl NextView {
    fn of(next: Next) -> NextView {
        let by_component = next.by_component.into_iter().map(|(name, amount)| (name, Amount(amount)));
        NextView {
            level: next.level,
            percent: Amount(next.percent),
            missing: Amount(next.missing),
            by_component: by_component.collect(),
        }
    }
}

impl FieldView {
    fn of(field: Field) -> FieldView {
        let view = |asked: Asked| AskedView {
            source: asked.source,
            account: asked.account,
            value: asked.value,
            decides: asked.decides,
            why: asked.text,
        };
        let asked = field.asked.into_iter().map(view).collect();
        FieldView { name: field.name, now: field.now, wanted: field.wanted, asked }
    }
}

impl ByHandView {
    fn of(by_hand: ByHand) -> ByHandView {
        let ByHand { in_force, commands, undo, release } = by_hand;
        ByHandView { in_force, commands, undo, release }
    }
}

/// The explanation for people.
pub fn show(explanation: &Explanation) -> String {
    let above: Vec<String> = explanation.ancestors.iter().map(|name| format!(", below {name}")).collect();
    let mut text = format!("account {}{}\n\n", explanation.account, above.concat());
    for policy in &explanation.policies {
        text.push_str(&show_policy(policy));
    }
    text.push_str(&standings::table(explanation.quotas.iter()));
    text.push_str(&render::table(
        "FIELDS",
        &["Field", "Now", "Wanted", "Asked", "Source", "Account", "Why"],
        explanation.fields.iter().flat_map(field_rows).collect(),
    ));
    let states = |states: &[ChangeState]| {
        states.iter().map(|state| vec![state.argv.clone(), because(state)]).collect::<Vec<_>>()
    };
    text.push_str(&render::table("CHANGES DUE", &["Command", "Why"], states(&explanation.changes)));
    text.push_str(&render::table("WAITING FOR AN OPERATOR", &["Command", "Why"], states(&explanation.held)));
    if explanation.changes.is_empty() && explanation.held.is_empty() {
        text.push_str("nothing would change now\n\n");
    }
    text.push_str(&show_by_hand(&explanation.by_hand));
    for policy in &explanation.policies {
        text.push_str(&show_next(policy));
    }
    for note in &explanation.notes {
        text.push_str(&format!("! {}\n", render::printable(note)));
    }
    text
}

fn because(state: &ChangeState) -> String {
    let mut why: Vec<String> =
        state.because.iter().map(|because| format!("{}: {}", because.source, because.text)).collect();
    why.dedup();
    why.join("; ")
}

fn show_policy(policy: &PolicyView) -> String {
    let answered = policy.answered.map_or(String::new(), |at| format!(", as said at {at}"));
    let Some(numbers) = &policy.numbers else {
        return format!("{}{answered}: undecided: {}\n\n", policy.source, printable(&policy.decision.reason));
    };
    let until = numbers.period_end.map_or(String::new(), |end| format!(" until {end}"));
    let mut text = format!(
        "{} policy {:?}, allocation {:?}{answered}\nperiod {} from {}{until}\n\n",
        policy.source,
        printable(&numbers.policy),
        printable(&policy.allocation),
        numbers.period,
        numbers.period_start
    );
    text.push_str(&render::table(
        "COMPONENTS",
        &["Component", "Unit", "Weight", "Base", "Carryover", "Total", "Used", "Previous"],
        numbers.components.iter().map(|(name, c)| component_row(name, c, policy)).collect(),
    ));
    let percent = numbers.percent.map_or("-".to_owned(), |percent| decimal(percent.0));
    let what =
        numbers.scalar.as_ref().map_or("weighted".to_owned(), |component| format!("{component} decides"));
    let daily = numbers.daily.map_or(String::new(), |daily| format!(", {} a day", decimal(daily.0)));
    text.push_str(&format!(
        "{what}: {} of {} used, {percent} %{daily}\n\n",
        decimal(numbers.used.0),
        decimal(numbers.total.0)
    ));
    text.push_str(&render::table("THRESHOLDS", &["Level", "At", "Reached"], threshold_rows(numbers)));
    let word = if policy.decision.decided { "rule" } else { "undecided" };
    text.push_str(&format!("{word}: {}\n", printable(&policy.decision.reason)));
    for finding in &policy.decision.findings {
        text.push_str(&format!("! {}\n", printable(finding)));
    }
    text.push('\n');
    text
}

fn printable(text: &str) -> String {
    render::printable(text)
}

fn component_row(name: &str, component: &usage::ComponentReport, policy: &PolicyView) -> Vec<String> {
    let weight = policy.weights.get(name).map_or("-".to_owned(), |weight| weight.0.to_string());
    vec![
        name.to_owned(),
        component.unit.clone(),
        weight,
        decimal(component.base.0),
        decimal(component.carryover.0),
        decimal(component.total.0),
        decimal(component.used.0),
        decimal(component.previous.0),
    ]
}

fn threshold_rows(numbers: &AccountReport) -> Vec<Vec<String>> {
    let row = |name: &str, reached: &Reached| vec![name.to_owned(), decimal(reached.at.0), reached.word()];
    vec![
        row("notification", &numbers.notification),
        row("slowdown", &numbers.slowdown),
        row("blocked", &numbers.blocked),
    ]
}

/// One line for each who asked; the field's own columns stand in the first.
fn field_rows(field: &FieldView) -> Vec<Vec<String>> {
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    let head = [field.name.clone(), text(&field.now), text(&field.wanted)];
    if field.asked.is_empty() {
        return vec![head.into_iter().chain(["-", "", "", ""].map(str::to_owned)).collect()];
    }
    let row = |(place, asked): (usize, &AskedView)| {
        let head = if place == 0 { head.clone() } else { Default::default() };
        let mark = if asked.decides { " *" } else { "" };
        let tail = [
            format!("{}{mark}", asked.value),
            asked.source.to_string(),
            asked.account.to_string(),
            asked.why.clone(),
        ];
        head.into_iter().chain(tail).collect()
    };
    field.asked.iter().enumerate().map(row).collect()
}

fn show_by_hand(by_hand: &ByHandView) -> String {
    if by_hand.commands.is_empty() {
        return String::new();
    }
    let lines = |commands: &[String]| commands.iter().map(|line| format!("  {line}\n")).collect::<String>();
    let title = if by_hand.in_force { "BY HAND (all of it is in force)" } else { "BY HAND" };
    let mut text = format!("{title}\n{}", lines(&by_hand.commands));
    for (what, commands) in [
        ("back to what is there now", &by_hand.undo),
        ("to take everything of the agent's off the account", &by_hand.release),
    ] {
        if !commands.is_empty() {
            text.push_str(&format!("{what}\n{}", lines(commands)));
        }
    }
    text.push('\n');
    text
}

fn show_next(policy: &PolicyView) -> String {
    let Some(numbers) = &policy.numbers else { return String::new() };
    let mut text = format!("NEXT LEVEL ({})\n", policy.source);
    match &policy.next {
        Some(next) => {
            let alone: Vec<String> = next
                .by_component
                .iter()
                .map(|(name, amount)| {
                    let unit = numbers.components.get(name).map_or("", |component| component.unit.as_str());
                    format!("{} {unit} of {name}", decimal(amount.0))
                })
                .collect();
            text.push_str(&format!(
                "{} begins at {} %: {} more, which is {}\n",
                next.level,
                decimal(next.percent.0),
                decimal(next.missing.0),
                alone.join(" or ")
            ));
        }
        None => text.push_str("there is none above\n"),
    }
    if let Some(relief) = &policy.relief {
        let end = numbers.period_end.map_or(String::new(), |end| format!(", or the period ends ({end})"));
        text.push_str(&format!(
            "{} is left when the total grows by more than {}{end}\n",
            numbers.level,
            decimal(relief.0)
        ));
    }
    text.push('\n');
    text
}
