//! `ledger backfill`: years of job records from slurmdbd into the ledger.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::world::World;
use super::{Common, log, render, world};
use crate::agent::backfill::{Backfilled, Ending, Extent, Progress, backfill};
use crate::agent::error::{AgentError, Exit};
use crate::agent::{Agent, signals};
use crate::core::time::Epoch;

/// Read years of job records from Slurm into the ledger, month by month, the newest first.
///
/// The daemon has to be stopped. Going backwards from the oldest that the ledger covers, it asks sacct for windows that grow and
/// shrink with the time of the answers, and rests between two of them for as long as the answer took. Ctrl-C ends it after the
/// running window; the same call goes on from there, also after a crash. Nothing older than store.keep_jobs is read.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = AFTER)]
pub struct BackfillArgs {
    /// Oldest month, or day, in the cluster's time zone.
    #[arg(long, value_name = "YYYY-MM[-DD]", value_parser = day)]
    from: Date,
    /// First month, or day, that is not read any more; the oldest that the ledger covers where it is left out.
    #[arg(long, value_name = "YYYY-MM[-DD]", value_parser = day)]
    to: Option<Date>,
    /// Say what would be read, and read nothing; works beside a running daemon.
    #[arg(long)]
    dry_run: bool,
    /// Read what an earlier call with the same --to has read as well.
    #[arg(long)]
    again: bool,
}

const AFTER: &str = "\
Progress goes to standard error: one line that is written over on a terminal, else a line for each month.
  2024-03  41,250 jobs  62.5 %  8,311 jobs/s  12m left

Exit code 1 when it was stopped before the end, 3 when Slurm did not answer.

Examples:
  systemctl stop slurm-site-agent
  slurm-site-agent ledger backfill --from 2023-01 --dry-run
  slurm-site-agent ledger backfill --from 2023-01
  systemctl start slurm-site-agent";

fn day(text: &str) -> Result<Date, String> {
    let whole = if text.len() == "2023-01".len() { format!("{text}-01") } else { text.to_owned() };
    whole
        .parse()
        .map_err(|_| format!("{text:?} is neither a month such as 2023-01 nor a day such as 2023-01-15"))
}

fn start_of(day: Date, zone: &TimeZone) -> Result<Epoch, AgentError> {
    let start = day.to_zoned(zone.clone());
    let start = start
        .map_err(|error| AgentError::Asked(format!("{day} is no day in the cluster's time zone: {error}")))?;
    Ok(Epoch(start.timestamp().as_second()))
}

/// The verb's answer. Its JSON is the verb's `--json`.
#[derive(Debug, Serialize)]
struct Answer {
    extent: Extent,
    #[serde(flatten)]
    done: Option<Backfilled>,
}

/// Does what the verb says.
pub fn run(common: &Common, args: &BackfillArgs) -> Result<Exit, AgentError> {
    let answer = world::runtime()?.block_on(async {
        let mut world = World::open(common).await?;
        log::start_one_shot(&world.config.log);
        let store = if args.dry_run {
            world.store_copy()?
        } else {
            crate::store::Store::open(&world.config.store.path)?
        };
        let outside = world.outside()?;
        let mut agent = Agent::offline(world.config.clone(), outside, store);
        let answer = work(&mut agent, args).await;
        world.close().await;
        answer
    })?;
    if common.json {
        render::json(&answer);
    } else {
        render::text(&show(&answer));
    }
    Ok(match answer.done.map(|done| done.ending) {
        None | Some(Ending::Done) => Exit::Done,
        Some(Ending::Stopped) => Exit::Attention,
        Some(Ending::Failed { .. }) => Exit::Unreachable,
    })
}

async fn work(agent: &mut Agent, args: &BackfillArgs) -> Result<Answer, AgentError> {
    let zone = agent.config.cluster.time_zone.clone();
    let until = args.to.map(|day| start_of(day, &zone)).transpose()?;
    let from = start_of(args.from, &zone)?;
    if until.is_some_and(|until| until <= from) {
        return Err(AgentError::Asked(
            "--to lies before --from; it is the first day that is not read".into(),
        ));
    }
    let extent = Extent::of(agent, from, until, args.again)?;
    if args.dry_run {
        return Ok(Answer { extent, done: None });
    }
    let stopping = Arc::new(AtomicBool::new(false));
    signals::stop_flag(&stopping)
        .map_err(|source| AgentError::System { doing: "preparing to be stopped by a signal", source })?;
    let stop = || stopping.load(Ordering::SeqCst);
    let mut screen = Screen { is_terminal: std::io::stderr().is_terminal() };
    let done = backfill(agent, extent.clone(), &stop, &mut |progress| screen.show(progress)).await?;
    Ok(Answer { extent, done: Some(done) })
}

/// Where progress is shown.
struct Screen {
    is_terminal: bool,
}

impl Screen {
    fn show(&mut self, progress: &Progress) {
        let mut error = std::io::stderr().lock();
        // Nobody is there to be told that a terminal has gone away.
        let _ = match (self.is_terminal, progress.month_done) {
            (true, false) => write!(error, "\r\x1b[K{}", line(progress)).and_then(|()| error.flush()),
            (true, true) => writeln!(error, "\r\x1b[K{}", line(progress)),
            (false, true) => writeln!(error, "{}", line(progress)),
            (false, false) => Ok(()),
        };
    }
}

fn line(progress: &Progress) -> String {
    let left = match progress.left {
        Some(left) if progress.share < 1.0 => {
            let whole_s = Duration::from_secs(left.as_secs() + u64::from(left.subsec_nanos() > 0));
            format!("  {} left", humantime::format_duration(whole_s))
        }
        _ => String::new(),
    };
    format!(
        "{}  {} jobs  {:.1} %  {:.0} jobs/s{left}",
        progress.month,
        progress.rows,
        progress.share * 100.0,
        progress.rows_per_s
    )
}

fn show(answer: &Answer) -> String {
    let Extent { from, until, reached, kept_from } = &answer.extent;
    let mut text = String::new();
    if let Some(kept_from) = kept_from {
        text.push_str(&format!(
            "jobs that ended before {kept_from} are not kept (store.keep_jobs) and not read\n"
        ));
    }
    if answer.extent.is_done() {
        text.push_str(&format!(
            "the jobs from {from} until {until} are in the ledger; --again reads them anew\n"
        ));
        return text;
    }
    let Some(done) = &answer.done else {
        text.push_str(&format!(
            "would be read: the jobs from {from} until {reached}, the newest month first\n"
        ));
        return text;
    };
    text.push_str(&format!(
        "{} records in {} windows, {} of them new, {} lines not understood; the ledger is filled from {} until {until}\n",
        done.rows, done.windows, done.new, done.rejected, done.reached
    ));
    match &done.ending {
        Ending::Done => {}
        Ending::Stopped => text.push_str("stopped as asked; the same call goes on from there\n"),
        Ending::Failed { reason } => {
            text.push_str(&format!("it cannot go on: {reason}; the same call goes on from there\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_and_days_are_understood_and_nothing_else() {
        assert_eq!(day("2023-01").unwrap().to_string(), "2023-01-01");
        assert_eq!(day("2023-01-15").unwrap().to_string(), "2023-01-15");
        for text in ["2023", "2023-13", "last year", "2023-1", ""] {
            assert!(day(text).unwrap_err().contains("2023-01"), "{text:?}");
        }
    }
}
