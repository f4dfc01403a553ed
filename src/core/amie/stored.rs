//! What is stored: one line of a report of quotas, and the Storage record that comes of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Detail, Record, Reporting, Storage, Waits, charge_text, fits};
use crate::core::exact::Exact;
use crate::core::name::{AccountName, ClusterName, UserName};
use crate::core::time::Epoch;

/// Bytes of the GB in which storage is charged.
const GB: i128 = 1_000_000_000;
/// Files are charged by the million.
const MILLION: i128 = 1_000_000;

/// How a report of quotas is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportFormat {
    /// `repquota -O csv` of users.
    RepquotaUsers,
    /// `repquota -P -O csv` (or `-g`): the names of projects are accounts.
    RepquotaProjects,
    /// `xfs_quota -x -c 'report -u -b -i -N'`.
    XfsUsers,
    /// `xfs_quota -x -c 'report -p -b -i -N'`: the names of projects are accounts.
    XfsProjects,
    /// Answers of `lfs quota`, one after the other: `usr` are users, `prj` and `grp` accounts.
    Lustre,
    /// A heading with the names of [`Stored`], then one line each.
    Csv,
    /// One JSON object per line, with the names of [`Stored`].
    Json,
}

/// What one line says; a name that is absent was not said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stored {
    /// Whose data, where a user's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The account that pays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// Bytes.
    pub bytes_stored: u64,
    /// Files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_count: Option<u64>,
    /// Bytes read in the interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_read: Option<u64>,
    /// Bytes written in the interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_written: Option<u64>,
    /// Files read in the interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files_read: Option<u64>,
    /// Files written in the interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files_written: Option<u64>,
    /// Disk, Tape, SSD, ..., where it differs from the report's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Copies the system keeps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_copies: Option<u64>,
    /// Copies the user has chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_copies: Option<u64>,
}

/// How the lines of one report become records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageRule {
    /// Name of the report, a part of every LocalRecordID: the file system, for people.
    pub name: String,
    /// AMIE resource.
    pub resource: String,
    /// MediaType of lines that name none.
    pub media_type: String,
    /// CollectionInterval: how many days a record stands for.
    pub interval_days: u64,
    /// Charge of a GB (1,000,000,000 bytes) stored.
    pub gb_charge: Exact,
    /// Charge of a million files stored.
    pub million_files_charge: Exact,
    /// Account that is charged where a line names none.
    pub account: Option<AccountName>,
    /// What names of the report stand for, such as numbers of projects for accounts.
    pub names: BTreeMap<String, String>,
    /// Patterns of names that are not reported.
    pub exclude: Vec<String>,
}

/// What becomes of a line.
#[derive(Debug, Clone, PartialEq)]
pub enum StoredVerdict {
    /// It is told.
    Record(Box<Record>),
    /// The site leaves it out.
    Excluded,
    /// It is told as soon as its account has a project.
    Waits(Waits),
    /// It cannot be told as it is.
    Rejected(String),
}

impl StorageRule {
    fn named<'a>(&'a self, name: &'a str) -> &'a str {
        self.names.get(name).map_or(name, String::as_str)
    }

    fn leaves_out(&self, name: &str) -> bool {
        let folded = name.to_ascii_lowercase();
        self.exclude.iter().any(|pattern| fits(pattern, &folded).is_some())
    }

    fn charge(&self, line: &Stored) -> Result<String, String> {
        let no_room = || "the charge has no room".to_owned();
        let gb = Exact::fraction(i128::from(line.bytes_stored), GB).ok_or_else(no_room)?;
        let mut charge = gb.times(self.gb_charge).ok_or_else(no_room)?;
        if self.million_files_charge != Exact::ZERO {
            let files = line.file_count.ok_or("it has no number of files, which are charged")?;
            let millions = Exact::fraction(i128::from(files), MILLION).ok_or_else(no_room)?;
            let more = millions.times(self.million_files_charge).ok_or_else(no_room)?;
            charge = charge.plus(more).ok_or_else(no_room)?;
        }
        charge_text(charge).ok_or_else(no_room)
    }
}

impl Reporting {
    /// The record of one line. Its LocalRecordID is `{cluster}/storage/{report}/{account}/{user}/{day}` with what the line
    /// itself names, where `day` is the first of the interval: the same interval is restated, never counted twice.
    pub fn stored(
        &self,
        cluster: &ClusterName,
        rule: &StorageRule,
        (day, collected): (&str, Epoch),
        line: &Stored,
    ) -> StoredVerdict {
        let said = [line.account.as_deref(), line.username.as_deref()];
        if said.into_iter().flatten().any(|name| rule.leaves_out(name) || rule.leaves_out(rule.named(name))) {
            return StoredVerdict::Excluded;
        }
        let account = match line.account.as_deref().map(|name| AccountName::parse(rule.named(name))) {
            Some(Err(error)) => return StoredVerdict::Rejected(error.to_string()),
            Some(Ok(account)) => Some(account),
            None => None,
        };
        let user = match line.username.as_deref().map(|name| UserName::parse(rule.named(name))) {
            Some(Err(error)) => return StoredVerdict::Rejected(error.to_string()),
            Some(Ok(user)) => Some(user),
            None => None,
        };
        let own = |name: Option<&str>| name.unwrap_or("").to_owned();
        let (own_account, own_user) =
            (own(account.as_ref().map(AccountName::as_str)), own(user.as_ref().map(UserName::as_str)));
        let Some(payer) = account.or_else(|| rule.account.clone()) else {
            let reason = "the report names no account, and its entry in [[amie.storage]] neither".to_owned();
            return StoredVerdict::Waits(Waits { reason, what: own_user });
        };
        let project = match self.mapping.project(payer.as_str()) {
            Ok(Some(project)) => project,
            Ok(None) => return StoredVerdict::Excluded,
            Err(waits) => return StoredVerdict::Waits(waits),
        };
        let charge = match rule.charge(line) {
            Ok(charge) => charge,
            Err(why) => return StoredVerdict::Rejected(why),
        };
        // Data of a whole project is charged under the project's own name.
        let person = if own_user.is_empty() { payer.as_str() } else { own_user.as_str() };
        StoredVerdict::Record(Box::new(Record {
            local_record_id: format!("{cluster}/storage/{}/{own_account}/{own_user}/{day}", rule.name),
            username: self.mapping.username(person).to_owned(),
            local_project_id: project,
            resource: rule.resource.clone(),
            charge,
            local_reference: format!("{}/{day}", rule.name),
            detail: Detail::Storage(Storage {
                collected,
                interval_days: Some(rule.interval_days),
                bytes_stored: Some(line.bytes_stored),
                file_count: line.file_count,
                bytes_read: line.bytes_read,
                bytes_written: line.bytes_written,
                files_read: line.files_read,
                files_written: line.files_written,
                media_type: Some(line.media_type.clone().unwrap_or_else(|| rule.media_type.clone())),
                system_copies: line.system_copies,
                user_copies: line.user_copies,
            }),
        }))
    }
}
