//! Usage records for ACCESS (AMIE): what they are, when one may be sent, and what a changed job makes of them.
//!
//! Every record is absolute: one sent again under its LocalRecordID replaces the earlier one. What a job should be
//! reported as is a function of the job and the site's rules ([`Reporting::records`]); [`settle`] compares that with what
//! the ledger holds. So no cause can be charged, refunded or corrected twice.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::exact::Exact;
use super::job::JobRecord;
use super::time::{Epoch, Window};
use super::tres::Tres;

mod charge;
mod mapping;
mod stored;
#[cfg(test)]
mod tests;

pub use charge::{Basis, ChargeRule};
pub use mapping::{Mapping, Waits, fits, readable_name};
pub use stored::{ReportFormat, StorageRule, Stored, StoredVerdict};

/// Digits after the point of a charge, halves rounded to the even digit: a billing-second is 0.000278 billing-hours.
pub const CHARGE_PLACES: u32 = 6;
/// Longest text of a member that identifies something, in characters.
pub const TEXT_CHARS_MAX: usize = 255;

/// The three kinds of records; a message holds one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// A job.
    Compute,
    /// Stored data.
    Storage,
    /// A credit or debit.
    Adjustment,
}

impl Kind {
    /// Every kind, in the order of sending.
    pub const ALL: [Kind; 3] = [Kind::Compute, Kind::Storage, Kind::Adjustment];

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Compute => "Compute",
            Kind::Storage => "Storage",
            Kind::Adjustment => "Adjustment",
        }
    }

    /// From its name, whose case does not matter.
    pub fn parse(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.as_str().eq_ignore_ascii_case(name))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What an Adjustment does; the words of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AdjustmentType {
    /// Gives back.
    Credit,
    /// Gives back what a job was charged.
    Refund,
    /// Gives back storage.
    StorageCredit,
    /// Charges.
    Debit,
    /// Charges for a reservation.
    Reservation,
    /// Charges storage.
    StorageDebit,
}

impl AdjustmentType {
    /// Every type.
    pub const ALL: [AdjustmentType; 6] = [
        AdjustmentType::Credit,
        AdjustmentType::Refund,
        AdjustmentType::StorageCredit,
        AdjustmentType::Debit,
        AdjustmentType::Reservation,
        AdjustmentType::StorageDebit,
    ];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            AdjustmentType::Credit => "credit",
            AdjustmentType::Refund => "refund",
            AdjustmentType::StorageCredit => "storage-credit",
            AdjustmentType::Debit => "debit",
            AdjustmentType::Reservation => "reservation",
            AdjustmentType::StorageDebit => "storage-debit",
        }
    }

    /// Whether the project gets something back.
    pub fn gives_back(self) -> bool {
        matches!(self, AdjustmentType::Credit | AdjustmentType::Refund | AdjustmentType::StorageCredit)
    }
}

/// One record of any kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Stable and unique for ever: `{cluster}.{job_id}.{submit}` for a job.
    pub local_record_id: String,
    /// Person.
    pub username: String,
    /// Project at the site.
    pub local_project_id: String,
    /// AMIE resource.
    pub resource: String,
    /// Decimal text, never negative.
    pub charge: String,
    /// Ledger key, for people; empty where there is none.
    pub local_reference: String,
    /// What is particular to its kind.
    pub detail: Detail,
}

/// What is particular to a kind of record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Detail {
    /// A job.
    Compute(Compute),
    /// Stored data.
    Storage(Storage),
    /// A credit or debit.
    Adjustment(Adjustment),
}

/// Of a Compute record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compute {
    /// Record of the job that this one is a part of: `{cluster}.{leader}.{submit of the first incarnation}`, where the
    /// leader is the job id of the array or of the heterogeneous job's first component; `None` where that is itself.
    pub parent_record_id: Option<String>,
    /// Submitted.
    pub submit: Epoch,
    /// Started.
    pub start: Epoch,
    /// Ended.
    pub end: Epoch,
    /// Nodes.
    pub nodes: u64,
    /// CPUs, where Slurm says.
    pub cpus: Option<u64>,
    /// Memory in MB, where Slurm says.
    pub mem_mb: Option<u64>,
    /// Partition.
    pub queue: String,
    /// Cleaned name of the job, where the site reports it.
    pub job_name: Option<String>,
}

/// Of a Storage record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Storage {
    /// When it was looked at.
    pub collected: Epoch,
    /// How many days it stands for.
    pub interval_days: Option<u64>,
    /// Bytes stored.
    pub bytes_stored: Option<u64>,
    /// Files stored.
    pub file_count: Option<u64>,
    /// Bytes read.
    pub bytes_read: Option<u64>,
    /// Bytes written.
    pub bytes_written: Option<u64>,
    /// Files read.
    pub files_read: Option<u64>,
    /// Files written.
    pub files_written: Option<u64>,
    /// Disk, Tape, SSD, ...
    pub media_type: Option<String>,
    /// Copies the system keeps.
    pub system_copies: Option<u64>,
    /// Copies the user has chosen.
    pub user_copies: Option<u64>,
}

/// Of an Adjustment record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adjustment {
    /// What it does.
    pub adjustment_type: AdjustmentType,
    /// For when: the submission of the job it is about, so that the right allocation is meant.
    pub start: Epoch,
    /// Why.
    pub comment: Option<String>,
}

impl Record {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self.detail {
            Detail::Compute(_) => Kind::Compute,
            Detail::Storage(_) => Kind::Storage,
            Detail::Adjustment(_) => Kind::Adjustment,
        }
    }

    /// When it happened, for spans: the end of a job, the collection, the time of an adjustment.
    pub fn happened(&self) -> Epoch {
        match &self.detail {
            Detail::Compute(compute) => compute.end,
            Detail::Storage(storage) => storage.collected,
            Detail::Adjustment(adjustment) => adjustment.start,
        }
    }

    /// The charge as a number; `None` for text that is none, which [`Record::fault`] refuses.
    pub fn amount(&self) -> Option<Exact> {
        Exact::parse(&self.charge).ok()
    }

    /// What it does to the project: negative where it gives back.
    pub fn effect(&self) -> Option<Exact> {
        let amount = self.amount()?;
        match &self.detail {
            Detail::Adjustment(adjustment) if adjustment.adjustment_type.gives_back() => {
                Exact::ZERO.minus(amount)
            }
            _ => Some(amount),
        }
    }

    /// The same record that charges nothing.
    pub fn withdrawn(&self) -> Record {
        Record { charge: charge_text(Exact::ZERO).unwrap_or_else(|| "0".into()), ..self.clone() }
    }

    /// What a server would refuse, found before it is sent.
    pub fn fault(&self) -> Option<String> {
        let named = [
            ("Username", &self.username),
            ("LocalProjectID", &self.local_project_id),
            ("LocalRecordID", &self.local_record_id),
            ("Resource", &self.resource),
        ];
        for (name, text) in named {
            if text.trim().is_empty() {
                return Some(format!("{name} is empty"));
            }
            if text.chars().count() > TEXT_CHARS_MAX {
                return Some(format!("{name} is longer than {TEXT_CHARS_MAX} characters"));
            }
            if text.chars().any(char::is_control) {
                return Some(format!("{name} contains a control character"));
            }
        }
        match self.amount() {
            None => return Some(format!("Charge {:?} is not a decimal number", self.charge)),
            Some(amount) if amount.is_negative() => return Some("Charge is negative".into()),
            Some(_) if self.charge.contains('/') => return Some("Charge is not decimal".into()),
            Some(_) => {}
        }
        match &self.detail {
            Detail::Compute(compute)
                if !(compute.submit <= compute.start && compute.start <= compute.end) =>
            {
                Some("SubmitTime, StartTime and EndTime are out of order".into())
            }
            _ => None,
        }
    }
}

/// A charge as it is sent: [`CHARGE_PLACES`] digits, halves to the even digit; `None` when there is no room.
pub fn charge_text(charge: Exact) -> Option<String> {
    charge.to_decimal(CHARGE_PLACES)
}

/// The LocalRecordID of one incarnation.
pub fn record_id(job: &JobRecord) -> String {
    format!("{}.{}.{}", job.key.cluster, job.job_id, job.submit.0)
}

/// Which ended jobs get their charge back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefundRule {
    /// Jobs that ended in one of these states (`NODE_FAIL`, ...).
    pub states: Vec<String>,
    /// Only those that ended in this window; `None`: at any time.
    pub window: Option<Window>,
    /// What the record says.
    pub comment: String,
}

/// What becomes of a job whose record changed after it had been sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Corrections {
    /// The record is sent again under its id.
    Restate,
    /// The difference is credited or debited.
    Adjust,
}

/// The site's rules for reports, with all days turned into instants.
#[derive(Debug, Clone, PartialEq)]
pub struct Reporting {
    /// Whose project, which person, which resource.
    pub mapping: Mapping,
    /// What a job costs: the last rule that is meant for the resource and had begun when the job ended.
    pub charges: Vec<ChargeRule>,
    /// Refunds.
    pub refunds: Vec<RefundRule>,
    /// Jobs that ended earlier are not reported.
    pub since: Epoch,
}

/// What a job should be reported as.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// These records, the Compute record first.
    Records(Vec<Record>),
    /// It used nothing: it never ran, or has not ended. What was told of it before is withdrawn.
    Nothing,
    /// It is left out by `exclude` or `since`. What was told of it before stays.
    NotMeant,
    /// It cannot be told yet. What was told of it before stays.
    Waits(Waits),
}

impl Reporting {
    /// The records of one job, without parent and name.
    pub fn records(&self, job: &JobRecord) -> Verdict {
        let Some(end) = job.end else { return Verdict::Nothing };
        let Some(held) = job.held_once(end).filter(|held| held.seconds() > 0) else {
            return Verdict::Nothing;
        };
        if end < self.since {
            return Verdict::NotMeant;
        }
        let project = match self.mapping.project(&job.account) {
            Ok(Some(project)) => project,
            Ok(None) => return Verdict::NotMeant,
            Err(waits) => return Verdict::Waits(waits),
        };
        if job.user.is_empty() {
            return Verdict::Waits(Waits {
                reason: "the job has no user".into(),
                what: job.account.to_string(),
            });
        }
        let resource = self.mapping.resource(&job.partition);
        let count = |name: &str| Tres::parse(name).ok().and_then(|tres| job.alloc.get(&tres).copied());
        let Some(nodes) = count("node") else {
            return Verdict::Waits(Waits {
                reason: "AllocTRES has no node".into(),
                what: job.account.to_string(),
            });
        };
        let charge = match charge::charge(&self.charges, resource, job, held) {
            Ok(charge) => charge,
            Err(waits) => return Verdict::Waits(waits),
        };
        let record = Record {
            local_record_id: record_id(job),
            username: self.mapping.username(&job.user).to_owned(),
            local_project_id: project,
            resource: resource.to_owned(),
            charge,
            local_reference: format!("{}/{}", job.key.cluster, job.key.dbindex),
            detail: Detail::Compute(Compute {
                parent_record_id: None,
                submit: job.submit,
                start: held.from,
                end,
                nodes,
                cpus: count("cpu"),
                mem_mb: count("mem"),
                queue: readable_name(&job.partition),
                job_name: None,
            }),
        };
        let refund = self.refund(job, end, &record);
        Verdict::Records(std::iter::once(record).chain(refund).collect())
    }

    fn refund(&self, job: &JobRecord, end: Epoch, charged: &Record) -> Option<Record> {
        // CANCELLED by 1000 is CANCELLED.
        let state = job.state.split_whitespace().next().unwrap_or("");
        let rule = self.refunds.iter().find(|rule| {
            rule.states.iter().any(|wanted| wanted == state)
                && rule.window.is_none_or(|window| window.contains(end))
        })?;
        Some(Record {
            local_record_id: refund_id(&charged.local_record_id),
            detail: Detail::Adjustment(Adjustment {
                adjustment_type: AdjustmentType::Refund,
                start: job.submit,
                comment: Some(rule.comment.clone()),
            }),
            ..charged.clone()
        })
    }
}

/// The LocalRecordID of the one refund that a record can have, whoever asks for it.
pub fn refund_id(record_id: &str) -> String {
    format!("{record_id}.refund")
}

/// The newest version of a record in the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Its content.
    pub record: Record,
    /// Whether the server took it.
    pub taken: bool,
    /// The account of the job as it was told; empty where that is not known.
    pub account: String,
}

/// New versions that bring what is held of one job to what is desired. `held` is everything of the job, and what else has
/// one of the desired ids. What is no longer desired charges nothing from now on; a record that moves to another resource
/// is withdrawn there, because a server keeps one record per id and resource.
pub fn settle(held: &[Held], desired: Vec<Record>, corrections: Corrections) -> Vec<Record> {
    let same = |a: &Record, b: &Record| {
        a.kind() == b.kind() && a.resource == b.resource && a.local_record_id == b.local_record_id
    };
    let mut made = Vec::new();
    for old in held {
        let corrects = |record: &Record| {
            record.resource == old.record.resource
                && correction_number(&old.record, &record.local_record_id).is_some()
        };
        let wanted = desired.iter().any(|record| same(record, &old.record) || corrects(record));
        if !wanted && old.record.amount() != Some(Exact::ZERO) {
            made.push(old.record.withdrawn());
        }
    }
    for record in desired {
        let Some(old) = held.iter().find(|old| same(&old.record, &record)) else {
            made.push(record);
            continue;
        };
        let corrected = held.iter().any(|other| {
            correction_number(&other.record, &record.local_record_id).is_some()
                && other.record.amount() != Some(Exact::ZERO)
        });
        if old.record == record && !corrected {
            continue;
        }
        let for_the_same =
            old.record.username == record.username && old.record.local_project_id == record.local_project_id;
        if corrections == Corrections::Adjust
            && record.kind() == Kind::Compute
            && old.taken
            && for_the_same
            && old.record.amount() != Some(Exact::ZERO)
        {
            made.extend(correction(held, &old.record, &record));
        } else {
            made.extend(held.iter().filter_map(|other| {
                // A restated record leaves nothing to correct.
                let number = correction_number(&other.record, &record.local_record_id);
                let charges = other.record.amount() != Some(Exact::ZERO);
                (number.is_some() && charges).then(|| other.record.withdrawn())
            }));
            if old.record != record {
                made.push(record);
            }
        }
    }
    made
}

/// The number of a correction of a record: `{id}.c{number}`.
fn correction_number(record: &Record, of: &str) -> Option<u64> {
    let is_adjustment = record.kind() == Kind::Adjustment;
    let number = record.local_record_id.strip_prefix(of)?.strip_prefix(".c")?;
    number.parse().ok().filter(|_| is_adjustment)
}

/// The adjustment of a sent record to what its job costs now; nothing when all corrections so far come to that.
fn correction(held: &[Held], sent: &Record, now: &Record) -> Option<Record> {
    let Detail::Compute(compute) = &now.detail else { return None };
    let mut effect = sent.amount()?;
    let mut last = 0;
    for other in held {
        if let Some(number) = correction_number(&other.record, &sent.local_record_id) {
            last = last.max(number);
            effect = effect.plus(other.record.effect()?)?;
        }
    }
    let difference = now.amount()?.minus(effect)?;
    if difference == Exact::ZERO {
        return None;
    }
    let (adjustment_type, amount) = match difference.is_negative() {
        true => (AdjustmentType::Credit, Exact::ZERO.minus(difference)?),
        false => (AdjustmentType::Debit, difference),
    };
    Some(Record {
        local_record_id: format!("{}.c{}", sent.local_record_id, last + 1),
        charge: charge_text(amount)?,
        detail: Detail::Adjustment(Adjustment {
            adjustment_type,
            start: compute.submit,
            comment: Some("the job's record was corrected".into()),
        }),
        ..now.clone()
    })
}
