//! `amie backfill`: past months with a progress bar.

use jiff::civil::Date;

use super::super::{Common, render};
use super::BackfillArgs;
use super::act::{in_world, show_pending};
use crate::agent::amie::backfill::{self, MonthDone, Position};
use crate::agent::error::{AgentError, Exit};

pub(super) fn run(common: &Common, args: &BackfillArgs) -> Result<Exit, AgentError> {
    in_world(common, async |world| {
        let mut agent = if args.dry_run { world.agent_on_a_copy()? } else { world.agent()? };
        let now = agent.clock.now();
        let mut position = backfill::begin(&agent, args.from.map(|from| (from, args.until)), now)?;
        let mut done = Vec::new();
        let mut bar = render::Progress::on_stderr();
        bar.show(position.months(), &format!("{}", position.next.strftime("%Y-%m")));
        while !position.is_done() && done.last().is_none_or(|month: &MonthDone| month.stopped.is_none()) {
            let month = backfill::next_month(&mut agent, &mut position, !args.dry_run, now).await?;
            month.findings.iter().for_each(|finding| tracing::warn!(finding, "finding"));
            bar.show(position.months(), &line(&month));
            done.push(month);
        }
        bar.end();
        if args.dry_run {
            return show_pending(&agent);
        }
        if common.json {
            render::json(&done);
        } else {
            render::text(&summary(&position, &done));
        }
        let stopped = done.iter().any(|month| month.stopped.is_some());
        let refused = done.iter().any(|month| month.refused > 0);
        Ok(match (stopped, refused) {
            (true, _) => Exit::Unreachable,
            (false, true) => Exit::Attention,
            (false, false) => Exit::Done,
        })
    })
}

fn line(month: &MonthDone) -> String {
    format!(
        "{}: {} new jobs, {} changed, {} records made, {} accepted, {} refused",
        month.month, month.jobs_new, month.jobs_changed, month.made, month.accepted, month.refused
    )
}

fn summary(position: &Position, done: &[MonthDone]) -> String {
    let sum = |of: fn(&MonthDone) -> usize| done.iter().map(of).sum::<usize>();
    let (all, reached) = position.months();
    let mut text = format!(
        "{reached} of {all} months are done; this time {} new jobs, {} records made, {} accepted, {} refused\n",
        sum(|month| month.jobs_new),
        sum(|month| month.made),
        sum(|month| month.accepted),
        sum(|month| month.refused)
    );
    if let Some((month, why)) = done.iter().find_map(|month| Some((&month.month, month.stopped.as_ref()?))) {
        text.push_str(&format!(
            "! {month} is not done: {}\n`slurm-site-agent amie backfill` goes on with it\n",
            render::printable(why)
        ));
    }
    text
}

/// A month such as `2026-03`, or a day in it.
pub(super) fn month(text: &str) -> Result<Date, String> {
    let day = if text.len() == 7 { format!("{text}-01") } else { text.to_owned() };
    day.parse::<Date>().map_err(|_| "give a month such as 2026-03".to_owned())
}
