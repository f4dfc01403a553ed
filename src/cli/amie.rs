//! `amie`: what was reported to ACCESS, what it accepted, and what an operator does about the rest.

mod act;
mod backfill;
mod show;

use clap::{Args, Subcommand, ValueEnum};

use super::Common;
use crate::agent::error::{AgentError, Exit};
use crate::core::amie::{AdjustmentType, Kind};
use crate::core::time::Epoch;
use crate::store::{AmieFilter, AmieState};

/// Usage records for ACCESS (AMIE): the ledger of what was sent, accepted and loaded.
///
/// status, records, failed and summary read the store only and work beside the daemon. resend, adjust and clear leave a
/// word for it; send, backfill and reconcile ask the server themselves.
#[derive(Debug, Clone, Subcommand)]
pub enum AmieVerb {
    /// How many records are in which state, which jobs wait for a project, when the server was last asked.
    ///
    /// Storage reports show how many lines wait for a project and how many were rejected, with the reason.
    ///
    /// Example: slurm-site-agent amie status
    Status,
    /// List records, by default the newest version of each.
    ///
    /// Example: slurm-site-agent amie records --project TG-BIO260001 --state accepted --from 2026-11-01
    Records(RecordsArgs),
    /// List what failed, with the reason and what to do about it.
    ///
    /// Example: slurm-site-agent amie failed --json
    Failed,
    /// Clear failures on the server and give the records up. They are named by LocalRecordID or by the server's id.
    ///
    /// Example: slurm-site-agent amie clear lab.1234.1794132000 --dry-run
    Clear(NamedArgs),
    /// Send records again from their first try. A record that was loaded replaces itself.
    ///
    /// Example: slurm-site-agent amie resend --failed --dry-run
    Resend(ResendArgs),
    /// Credit or debit a project by hand: the exact message is shown first.
    ///
    /// Example: slurm-site-agent amie adjust --type refund --for lab.1234.1794132000 --comment "lost scratch"
    Adjust(AdjustArgs),
    /// Make and send everything that is due now. The daemon does the same in every cycle.
    ///
    /// Example: slurm-site-agent amie send --dry-run
    Send(SendArgs),
    /// Sums per project and resource: local, accepted, loaded, failed, and what is not loaded.
    ///
    /// Example: slurm-site-agent amie summary --from 2026-10-01 --until 2026-11-01
    Summary(SpanArgs),
    /// Ask the server now what it has loaded and what failed, and compare.
    ///
    /// Example: slurm-site-agent amie reconcile
    Reconcile,
    /// Report past months, one after the other: their jobs from sacct, their records, to the server.
    ///
    /// The position is stored after each month; without --from an unfinished backfill goes on. A month that was interrupted is
    /// read again and nothing is told twice. Like `amie send` it needs the store for itself: stop the daemon.
    ///
    /// Example: slurm-site-agent amie backfill --from 2026-01 --until 2026-07
    Backfill(BackfillArgs),
}

/// When it happened: the end of a job, the collection of storage, the time of an adjustment.
#[derive(Debug, Clone, Args)]
pub struct SpanArgs {
    /// At or after this day (midnight UTC) or instant.
    #[arg(long, value_name = "TIME", value_parser = instant)]
    from: Option<Epoch>,
    /// Before this day or instant.
    #[arg(long, value_name = "TIME", value_parser = instant)]
    until: Option<Epoch>,
    /// Only this LocalProjectID.
    #[arg(long, value_name = "ID")]
    project: Option<String>,
    /// Only this resource.
    #[arg(long, value_name = "NAME")]
    resource: Option<String>,
}

/// Of `records`.
#[derive(Debug, Clone, Args)]
pub struct RecordsArgs {
    #[command(flatten)]
    span: SpanArgs,
    /// Only in this state: pending, sent, accepted, loaded, failed, superseded.
    #[arg(long, value_parser = state)]
    state: Option<AmieState>,
    /// Only of this Username.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Only this kind: Compute, Storage, Adjustment.
    #[arg(long, value_parser = kind)]
    kind: Option<Kind>,
    /// Only this LocalRecordID.
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Older versions too.
    #[arg(long)]
    history: bool,
    /// Most records.
    #[arg(long, default_value_t = 200)]
    limit: usize,
}

/// Of `clear`.
#[derive(Debug, Clone, Args)]
pub struct NamedArgs {
    /// LocalRecordIDs or ids of the server.
    #[arg(required = true)]
    ids: Vec<String>,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// Show what would be done.
    #[arg(long)]
    dry_run: bool,
}

/// Of `resend`.
#[derive(Debug, Clone, Args)]
pub struct ResendArgs {
    /// LocalRecordIDs.
    #[arg(required_unless_present = "failed")]
    ids: Vec<String>,
    /// Everything that failed and was not given up.
    #[arg(long)]
    failed: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// Show the exact messages.
    #[arg(long)]
    dry_run: bool,
}

/// The words of the API.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum TypeWord {
    Credit,
    Refund,
    StorageCredit,
    Debit,
    Reservation,
    StorageDebit,
}

impl TypeWord {
    fn meaning(self) -> AdjustmentType {
        match self {
            TypeWord::Credit => AdjustmentType::Credit,
            TypeWord::Refund => AdjustmentType::Refund,
            TypeWord::StorageCredit => AdjustmentType::StorageCredit,
            TypeWord::Debit => AdjustmentType::Debit,
            TypeWord::Reservation => AdjustmentType::Reservation,
            TypeWord::StorageDebit => AdjustmentType::StorageDebit,
        }
    }
}

/// Of `adjust`.
#[derive(Debug, Clone, Args)]
pub struct AdjustArgs {
    /// What it does.
    #[arg(long = "type", value_enum)]
    kind: TypeWord,
    /// The record it is about: project, person, resource and time are taken from it, and a refund of it is made once.
    #[arg(long = "for", value_name = "LOCALRECORDID")]
    about: Option<String>,
    /// LocalProjectID.
    #[arg(long, required_unless_present = "about")]
    project: Option<String>,
    /// Username.
    #[arg(long, required_unless_present = "about")]
    user: Option<String>,
    /// Resource; by default the first of the configuration.
    #[arg(long)]
    resource: Option<String>,
    /// Decimal, not negative; by default the charge of the record it is about.
    #[arg(long, required_unless_present = "about", allow_hyphen_values = true)]
    charge: Option<String>,
    /// For when; by default now, or the submission of the job it is about.
    #[arg(long, value_name = "TIME", value_parser = instant)]
    at: Option<Epoch>,
    /// Why; the project sees it.
    #[arg(long)]
    comment: String,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// Show the exact message.
    #[arg(long)]
    dry_run: bool,
}

/// Of `backfill`.
#[derive(Debug, Clone, Args)]
pub struct BackfillArgs {
    /// First month, such as 2026-01.
    #[arg(long, value_name = "MONTH", value_parser = backfill::month)]
    from: Option<jiff::civil::Date>,
    /// The month after the last one; by default the running one.
    #[arg(long, value_name = "MONTH", requires = "from", value_parser = backfill::month)]
    until: Option<jiff::civil::Date>,
    /// Show the exact messages and send nothing; works on a copy of the store, beside the daemon.
    #[arg(long)]
    dry_run: bool,
}

/// Of `send`.
#[derive(Debug, Clone, Args)]
pub struct SendArgs {
    /// Collect every storage report again first, whether this interval was collected or not.
    #[arg(long)]
    storage: bool,
    /// Show the exact messages and send nothing; works beside the daemon.
    #[arg(long)]
    dry_run: bool,
}

/// Does what the verb asks.
pub fn run(common: &Common, verb: &AmieVerb) -> Result<Exit, AgentError> {
    match verb {
        AmieVerb::Status => show::status(common),
        AmieVerb::Records(args) => show::records(common, args),
        AmieVerb::Failed => show::failed(common),
        AmieVerb::Summary(args) => show::summary(common, args),
        AmieVerb::Clear(args) => act::clear(common, args),
        AmieVerb::Resend(args) => act::resend(common, args),
        AmieVerb::Adjust(args) => act::adjust(common, args),
        AmieVerb::Send(args) => act::send(common, args),
        AmieVerb::Reconcile => act::reconcile(common),
        AmieVerb::Backfill(args) => backfill::run(common, args),
    }
}

impl SpanArgs {
    fn filter(&self) -> AmieFilter {
        AmieFilter {
            from: self.from,
            until: self.until,
            project: self.project.clone(),
            resource: self.resource.clone(),
            ..AmieFilter::default()
        }
    }
}

fn instant(text: &str) -> Result<Epoch, String> {
    if let Ok(day) = text.parse::<jiff::civil::Date>() {
        let zoned = day.to_zoned(jiff::tz::TimeZone::UTC).map_err(|error| error.to_string())?;
        return Ok(Epoch(zoned.timestamp().as_second()));
    }
    let instant: jiff::Timestamp = text
        .parse()
        .map_err(|_| "give a day such as 2026-11-01 or an instant such as 2026-11-01T08:00:00Z".to_owned())?;
    Ok(Epoch(instant.as_second()))
}

fn state(text: &str) -> Result<AmieState, String> {
    let known = AmieState::ALL.into_iter().find(|state| state.as_str() == text);
    known.ok_or_else(|| "one of pending, sent, accepted, loaded, failed, superseded".to_owned())
}

fn kind(text: &str) -> Result<Kind, String> {
    Kind::parse(text).ok_or_else(|| "one of Compute, Storage, Adjustment".to_owned())
}
