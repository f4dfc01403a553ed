//! `--evaluate-now`: the daemon's cycle once, and what it found and did.

use super::world::World;
use super::{Common, EvaluateArgs, log, render, standings, world};
use crate::agent::apply::ChangeState;
use crate::agent::cycle::{Ask, CycleReport, cycle};
use crate::agent::error::{AgentError, Exit};
use crate::core::evaluate::{Decision, Level};
use crate::core::exact::Exact;
use crate::core::plan::Outcome;

/// Most decisions that are all listed for people.
const LISTED_MAX: usize = 1000;

/// Runs one cycle.
pub fn run(common: &Common, args: &EvaluateArgs) -> Result<Exit, AgentError> {
    let runtime = world::runtime()?;
    let report = runtime.block_on(async {
        let mut world = World::open(common).await?;
        log::start_one_shot(&world.config.log);
        let mut agent = if args.dry_run { world.agent_on_a_copy()? } else { world.agent()? };
        let ask =
            Ask { dry_run: args.dry_run, account: args.account.clone(), deep: args.deep, ..Ask::default() };
        let report = cycle(&mut agent, &ask).await;
        world.close().await;
        report
    })?;
    if common.json {
        render::json(&report);
    } else {
        render::text(&show(&report));
    }
    Ok(if report.needs_attention() { Exit::Attention } else { Exit::Done })
}

/// The report for people.
pub fn show(report: &CycleReport) -> String {
    let mut text = String::new();
    for source in &report.sources {
        let answered = source.answered.map_or("never".to_owned(), |at| at.to_string());
        let has = match source.quotas {
            0 => format!("{} policies, {} allocations", source.policies, source.allocations),
            quotas => format!("{quotas} quotas"),
        };
        text.push_str(&format!("source {}: {has}, answered {answered}\n", source.name));
        let lines = source.error.iter().chain(&source.notices).chain(&source.warnings);
        lines.for_each(|line| text.push_str(&format!("  ! {}\n", render::printable(line))));
    }
    let collection = &report.collection;
    text.push_str(&format!(
        "jobs: {} new, {} changed, {} lines rejected, {} sacct calls\n\n",
        collection.new, collection.changed, collection.rejected, collection.windows
    ));
    let listed = listed(&report.decisions);
    let unlisted = report.decisions.len() - listed.len();
    text.push_str(&render::table(
        "ACCOUNTS",
        &["Account", "Period", "Used", "Total", "%", "Level", "QOS", "Fairshare", "Why"],
        listed.into_iter().map(decision_row).collect(),
    ));
    if unlisted > 0 {
        text.push_str(&format!("{unlisted} more accounts are at level normal; --json lists all\n\n"));
    }
    text.push_str(&render::table(
        if report.dry_run { "CHANGES DUE" } else { "CHANGES" },
        &["Outcome", "Command", "Why"],
        report.changes.iter().map(change_row).collect(),
    ));
    text.push_str(&standings::table(report.quotas.iter()));
    text.push_str(&render::table(
        "WAITING FOR AN OPERATOR",
        &["Outcome", "Command", "Why"],
        report.held.iter().map(change_row).collect(),
    ));
    text.push_str(&render::table(
        "COMMANDS OF THE SERVER",
        &["Type", "Account", "Verdict", "Reason"],
        report
            .commands
            .iter()
            .map(|c| {
                let verdict = format!("{:?}", c.verdict.state).to_lowercase();
                vec![c.kind.clone(), c.account.clone(), verdict, c.verdict.error.clone()]
            })
            .collect(),
    ));
    text.push_str(&render::table(
        "REPORTED",
        &["What", "Delivered", "Failed", "Dead", "Error"],
        report
            .delivered
            .iter()
            .map(|(kind, count)| {
                vec![
                    (*kind).to_owned(),
                    count.delivered.to_string(),
                    count.failed.to_string(),
                    count.dead.to_string(),
                    count.error.clone().unwrap_or_default(),
                ]
            })
            .collect(),
    ));
    for line in report.findings.iter().chain(&report.held_because) {
        text.push_str(&format!("! {}\n", render::printable(line)));
    }
    if report.is_quiet() {
        text.push_str("nothing to do\n");
    }
    text
}

/// The decisions that people are shown: all of a few; of many those that somebody may want to look at.
fn listed(decisions: &[Decision]) -> Vec<&Decision> {
    let all = decisions.len() <= LISTED_MAX;
    let quiet = |decision: &&Decision| decision.decided().is_some_and(|d| d.level == Level::Normal);
    decisions.iter().filter(|decision| all || !quiet(decision)).collect()
}

fn decision_row(decision: &Decision) -> Vec<String> {
    match decision {
        Decision::Decided(d) => vec![
            d.account.to_string(),
            d.period.name.clone(),
            decimal(d.used),
            decimal(d.total),
            d.percent.map_or("-".into(), decimal),
            d.level.to_string(),
            d.qos.to_string(),
            d.fairshare.to_string(),
            d.reason.to_string(),
        ],
        Decision::Undecided { account, reason, .. } => {
            let dash = || "-".to_owned();
            vec![
                account.to_string(),
                dash(),
                dash(),
                dash(),
                dash(),
                "undecided".into(),
                dash(),
                dash(),
                reason.clone(),
            ]
        }
    }
}

/// Two digits after the point, as the portal shows amounts.
pub fn decimal(value: Exact) -> String {
    value.to_decimal(2).unwrap_or_else(|| value.to_string())
}

fn change_row(change: &ChangeState) -> Vec<String> {
    let outcome = match &change.outcome {
        None => "due".to_owned(),
        Some(Outcome::Applied) => "applied".into(),
        Some(Outcome::AlreadyInEffect) => "already in effect".into(),
        Some(Outcome::Refused { reason }) => format!("refused: {reason}"),
        Some(Outcome::Unknown { reason }) => format!("unknown: {reason}"),
    };
    let mut why: Vec<String> =
        change.because.iter().map(|because| format!("{}: {}", because.account, because.text)).collect();
    why.dedup();
    let first = why.first().cloned().unwrap_or_default();
    // The rest is in --json and in `explain`: a wide table helps nobody.
    let more = if why.len() > 1 { format!(" (+{} more)", why.len() - 1) } else { String::new() };
    vec![outcome, change.argv.clone(), first + &more]
}

/// A length of time as people say it, to the second.
pub fn span(seconds: i64) -> String {
    humantime::format_duration(std::time::Duration::from_secs(seconds.unsigned_abs())).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::name::{AccountName, SourceName};
    use crate::core::period::{Period, PeriodKind};
    use crate::core::time::Epoch;

    fn decided(number: usize, level: Level) -> Decision {
        let qos = crate::core::name::QosName::parse("normal").unwrap();
        Decision::Decided(Box::new(crate::core::evaluate::Decided {
            account: AccountName::parse(&format!("a{number}")).unwrap(),
            source: SourceName::parse("local").unwrap(),
            policy: "p".into(),
            allocation: "r".into(),
            period: Period { kind: PeriodKind::Month, name: "2026-11".into(), start: Epoch(0), end: None },
            components: [].into_iter().collect(),
            used: Exact::ZERO,
            total: Exact::ONE,
            percent: None,
            level,
            effect: level,
            qos,
            fairshare: 1,
            limits: [].into_iter().collect(),
            raw_usage_reset: false,
            reason: "because".into(),
            findings: Vec::new(),
        }))
    }

    #[test]
    fn of_many_accounts_those_are_listed_that_are_not_at_level_normal() {
        let level = |number: usize| if number % 500 == 3 { Level::Slowdown } else { Level::Normal };
        let few: Vec<Decision> = (0..LISTED_MAX).map(|number| decided(number, level(number))).collect();
        assert_eq!(listed(&few).len(), LISTED_MAX);
        let mut many: Vec<Decision> = (0..=LISTED_MAX).map(|number| decided(number, level(number))).collect();
        many.push(Decision::Undecided {
            account: AccountName::parse("odd").unwrap(),
            source: SourceName::parse("local").unwrap(),
            allocation: "r".into(),
            reason: "stale".into(),
        });
        let names: Vec<&str> = listed(&many).iter().map(|decision| decision.account().as_str()).collect();
        assert_eq!(names, ["a3", "a503", "odd"]);
    }
}
