//! Storage records from files that other programs renew: `repquota -O csv`, or one JSON object per line.

use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;

use serde::Deserialize;

use super::super::Agent;
use super::super::error::AgentError;
use crate::config::{Amie, StorageFormat, StorageReport};
use crate::core::amie::{Detail, Record, Reporting, Storage, charge_text};
use crate::core::exact::Exact;
use crate::core::time::Epoch;

/// Largest file that is read, in bytes: half a million lines.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// repquota counts blocks of 1024 bytes.
const BLOCK_BYTES: u64 = 1024;
const GB: i128 = 1_000_000_000;
const DAY_S: i64 = 86_400;

/// What one line says.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Line {
    username: String,
    account: Option<String>,
    bytes_stored: u64,
    file_count: Option<u64>,
    bytes_read: Option<u64>,
    bytes_written: Option<u64>,
    files_read: Option<u64>,
    files_written: Option<u64>,
    media_type: Option<String>,
    system_copies: Option<u64>,
    user_copies: Option<u64>,
}

/// Records of every file for the interval in which it was renewed; the same interval is restated, never counted twice.
pub(super) fn make(
    agent: &mut Agent,
    amie: &Amie,
    rules: &Reporting,
    now: Epoch,
) -> Result<(usize, Vec<String>), AgentError> {
    let (mut made, mut findings) = (0, Vec::new());
    for report in &amie.storage {
        match read(report) {
            Err(why) => findings.push(format!("storage report {}: {why}", report.file.display())),
            Ok((collected, lines)) => {
                let mut records = BTreeMap::new();
                for line in lines {
                    match record(agent, report, rules, collected, line) {
                        Ok(record) => drop(records.insert(record.local_record_id.clone(), record)),
                        Err(why) => {
                            findings.push(format!("storage report {}: {why}", report.file.display()));
                        }
                    }
                }
                let records: Vec<Record> = records.into_values().collect();
                let stored = agent.store.put_amie_records(&records, now)?;
                made += stored.new + stored.restated;
            }
        }
    }
    findings.truncate(20);
    Ok((made, findings))
}

fn read(report: &StorageReport) -> Result<(Epoch, Vec<Line>), String> {
    let meta = std::fs::metadata(&report.file).map_err(|error| error.to_string())?;
    if meta.len() > FILE_BYTES_MAX {
        return Err(format!("it is larger than {FILE_BYTES_MAX} bytes"));
    }
    let modified = meta.modified().map_err(|error| error.to_string())?;
    let since = modified.duration_since(UNIX_EPOCH).map_err(|error| error.to_string())?;
    let collected = Epoch(i64::try_from(since.as_secs()).map_err(|error| error.to_string())?);
    let text = std::fs::read_to_string(&report.file).map_err(|error| error.to_string())?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let parsed: Result<Vec<Option<Line>>, String> = lines
        .map(|(number, line)| parse(report.format, line).map_err(|why| format!("line {}: {why}", number + 1)))
        .collect();
    Ok((collected, parsed?.into_iter().flatten().collect()))
}

/// One line; `None` for a heading.
fn parse(format: StorageFormat, line: &str) -> Result<Option<Line>, String> {
    if format == StorageFormat::Json {
        return serde_json::from_str(line).map(Some).map_err(|error| error.to_string());
    }
    let fields: Vec<&str> = line.split(',').map(|field| field.trim_matches('"')).collect();
    if matches!(fields.first(), Some(&("User" | "Group" | "Project"))) {
        return Ok(None);
    }
    // User,BlockStatus,FileStatus,BlockUsed,BlockSoftLimit,BlockHardLimit,BlockGrace,FileUsed,...
    let number = |at: usize, name: &str| -> Result<u64, String> {
        let text = fields.get(at).copied().unwrap_or("");
        text.parse().map_err(|_| format!("{name} {text:?} is no number"))
    };
    let blocks = number(3, "BlockUsed")?;
    let bytes_stored = blocks.checked_mul(BLOCK_BYTES).ok_or("BlockUsed has no room")?;
    let name = fields[0].to_owned();
    let file_count = Some(number(7, "FileUsed")?);
    let line = match format {
        StorageFormat::RepquotaProjects => {
            Line { username: String::new(), account: Some(name), bytes_stored, file_count, ..Line::default() }
        }
        _ => Line { username: name, bytes_stored, file_count, ..Line::default() },
    };
    Ok(Some(line))
}

fn record(
    agent: &Agent,
    report: &StorageReport,
    rules: &Reporting,
    collected: Epoch,
    line: Line,
) -> Result<Record, String> {
    let account = line.account.clone().or_else(|| report.account.as_ref().map(ToString::to_string));
    let account = account.ok_or_else(|| format!("user {:?} has no account", line.username))?;
    let project = match rules.mapping.project(&account) {
        Ok(Some(project)) => project,
        Ok(None) => return Err(format!("account {account:?} is excluded")),
        Err(waits) => return Err(format!("account {account:?}: {}", waits.reason)),
    };
    // Data of a whole project is charged under the project's own name.
    let user = if line.username.is_empty() { account.clone() } else { line.username.clone() };
    let charge = Exact::fraction(i128::from(line.bytes_stored), GB)
        .and_then(|gb| charge_text(gb.times(report.gb_charge)?))
        .ok_or("the charge has no room")?;
    let interval_s = DAY_S.saturating_mul(i64::try_from(report.interval_days).unwrap_or(1));
    let interval = collected.0.div_euclid(interval_s);
    let name = report.file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(Record {
        local_record_id: format!(
            "{}.storage.{name}.{account}.{user}.{}",
            agent.config.cluster.name,
            interval * interval_s / DAY_S
        ),
        username: rules.mapping.username(&user).to_owned(),
        local_project_id: project,
        resource: report.resource.clone(),
        charge,
        local_reference: String::new(),
        detail: Detail::Storage(Storage {
            collected,
            interval_days: Some(report.interval_days),
            bytes_stored: Some(line.bytes_stored),
            file_count: line.file_count,
            bytes_read: line.bytes_read,
            bytes_written: line.bytes_written,
            files_read: line.files_read,
            files_written: line.files_written,
            media_type: Some(line.media_type.unwrap_or_else(|| report.media_type.clone())),
            system_copies: line.system_copies,
            user_copies: line.user_copies,
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_repquota_and_json_are_read_and_nothing_unreadable_becomes_zero() {
        let heading =
            "User,BlockStatus,FileStatus,BlockUsed,BlockSoftLimit,BlockHardLimit,BlockGrace,FileUsed";
        assert!(parse(StorageFormat::RepquotaUsers, heading).unwrap().is_none());
        let user = parse(StorageFormat::RepquotaUsers, "alice,ok,ok,2,0,0,,17,0,0,").unwrap().unwrap();
        assert_eq!((user.username.as_str(), user.bytes_stored, user.file_count), ("alice", 2048, Some(17)));
        let project = parse(StorageFormat::RepquotaProjects, "bio42,ok,ok,1,0,0,,1").unwrap().unwrap();
        assert_eq!((project.account.as_deref(), project.bytes_stored), (Some("bio42"), 1024));
        let json = r#"{"username": "bob", "account": "bio42", "bytes_stored": 5, "media_type": "Tape"}"#;
        let line = parse(StorageFormat::Json, json).unwrap().unwrap();
        assert_eq!((line.bytes_stored, line.media_type.as_deref()), (5, Some("Tape")));
        for bad in ["alice,ok,ok,2K,0,0,,17", "alice", "alice,ok,ok,,0,0,,1", "alice,ok,ok,-2,0,0,,17"] {
            assert!(parse(StorageFormat::RepquotaUsers, bad).is_err(), "{bad}");
        }
        for bad in [r#"{"username": "bob"}x"#, r#"{"bytes_stored": -1}"#, r#"{"bytes": 1}"#] {
            assert!(parse(StorageFormat::Json, bad).is_err(), "{bad}");
        }
    }
}
