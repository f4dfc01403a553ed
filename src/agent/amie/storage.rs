//! Storage records: each report is collected once in every interval, from a file that another program renews or from a
//! program of the site. What cannot be collected is tried again; lines whose account has no project wait in the store and go
//! out when the map is mended. Nothing that is not understood becomes a record.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::UNIX_EPOCH;

use super::super::Agent;
use super::super::error::{AgentError, chain};
use super::super::step::Step;
use super::fingerprint;
use crate::config::{Amie, ReportSource, StorageReport};
use crate::core::amie::{Record, Reporting, Stored, StoredVerdict};
use crate::core::command::Mode;
use crate::core::time::Epoch;
use crate::filesystem::{self, Parsed};
use crate::slurm::{Answer, RunError, SiteProgram};
use crate::store::StorageCollection;

/// A report that could not be collected is tried again after so many seconds: a program that hangs until its limit must not
/// hold up every cycle.
const RETRY_S: i64 = 15 * 60;
/// Rejected lines that are kept with the reason.
const SAMPLES_MAX: usize = 5;
/// Lines that are kept because their account has no project; more are counted as rejected.
const WAITING_MAX: usize = 100_000;
/// Characters of a program's complaint that are shown.
const COMPLAINT_CHARS_MAX: usize = 300;

/// Records of every report that is due, and of lines that waited for a map that has changed. `again` collects all reports
/// anew, whether this interval has been collected or not.
pub(super) async fn make(
    agent: &mut Agent,
    amie: &Amie,
    rules: &Reporting,
    again: bool,
    now: Epoch,
) -> Result<(usize, Vec<String>), AgentError> {
    let (mut made, mut findings) = (0, Vec::new());
    for report in &amie.storage {
        let name = &report.rule.name;
        made += mend(agent, report, rules, now)?;
        let Some(day) = first_day(agent, report, now) else { continue };
        let known = agent.store.amie_storage(name, day)?;
        let due = match &known {
            None => true,
            Some(known) => again || (known.collected.is_none() && now.since(known.tried) >= RETRY_S),
        };
        if due {
            made += collect(agent, report, rules, day, now).await?;
        }
        if let Some(collection) = agent.store.amie_storage(name, day)? {
            findings.extend(finding(&collection));
        }
    }
    Ok((made, findings))
}

/// First day of the interval in which an instant lies, in days since 1970 of the cluster's time zone.
fn first_day(agent: &Agent, report: &StorageReport, instant: Epoch) -> Option<i64> {
    let zone = agent.config.cluster.time_zone.clone();
    let date = jiff::Timestamp::from_second(instant.0).ok()?.to_zoned(zone).date();
    let days = date.since((jiff::Unit::Day, jiff::civil::date(1970, 1, 1))).ok()?.get_days();
    let length = i64::try_from(report.rule.interval_days).ok()?;
    Some(i64::from(days).div_euclid(length) * length)
}

/// A day, counted from 1970-01-01, as it stands in ids.
pub fn day_text(day: i64) -> String {
    let span = jiff::Span::new().try_days(day);
    let date = span.and_then(|span| jiff::civil::date(1970, 1, 1).checked_add(span));
    date.map_or_else(|_| day.to_string(), |date| date.to_string())
}

/// Collects one report and stores what came of it; how many new versions of records.
async fn collect(
    agent: &mut Agent,
    report: &StorageReport,
    rules: &Reporting,
    day: i64,
    now: Epoch,
) -> Result<usize, AgentError> {
    let mut collection = StorageCollection::tried(&report.rule.name, day, now);
    let mut records = Vec::new();
    match read(agent, report, day, now).await {
        Err(why) => collection.error = why,
        Ok((collected, parsed)) => {
            collection.collected = Some(collected);
            collection.lines = parsed.lines.len();
            collection.rejected = parsed.rejected;
            collection.samples = parsed.samples;
            records = judge(agent, report, rules, parsed.lines, &mut collection);
            collection.records = records.len();
        }
    }
    if let Some(known) = agent.store.amie_storage(&collection.report, day)?
        && known.collected.is_some()
        && collection.collected.is_none()
    {
        // What was collected in this interval stands.
        collection = StorageCollection { tried: now, error: collection.error, ..known };
    }
    let stored = agent.store.put_amie_storage(&collection, &records, now)?;
    Step::Enqueued.passed();
    Ok(stored.new + stored.restated)
}

/// Makes records of lines that waited, when the map or the report's rule is another one than it was.
fn mend(
    agent: &mut Agent,
    report: &StorageReport,
    rules: &Reporting,
    now: Epoch,
) -> Result<usize, AgentError> {
    let cursor = format!("amie_storage_rules:{}", report.rule.name);
    let rule = fingerprint(&format!("{:?} {:?}", rules.mapping, report.rule));
    if agent.store.get_cursor(&cursor)? == Some(rule) {
        return Ok(0);
    }
    let mut made = 0;
    for mut collection in agent.store.amie_storage_waiting(&report.rule.name)? {
        let lines = std::mem::take(&mut collection.waiting);
        let records = judge(agent, report, rules, lines, &mut collection);
        collection.records += records.len();
        let stored = agent.store.put_amie_storage(&collection, &records, now)?;
        made += stored.new + stored.restated;
    }
    agent.store.put_cursor(&cursor, rule)?;
    Ok(made)
}

/// Records of lines; the others are counted or kept in the collection.
fn judge(
    agent: &Agent,
    report: &StorageReport,
    rules: &Reporting,
    lines: Vec<Stored>,
    collection: &mut StorageCollection,
) -> Vec<Record> {
    let cluster = &agent.config.cluster.name;
    let when = (&*day_text(collection.day), collection.collected.unwrap_or(collection.tried));
    let mut records: BTreeMap<String, Record> = BTreeMap::new();
    let mut twins = BTreeSet::new();
    for line in lines {
        let name =
            [&line.account, &line.username].into_iter().flatten().cloned().collect::<Vec<_>>().join(" ");
        match rules.stored(cluster, &report.rule, when, &line) {
            StoredVerdict::Excluded => collection.excluded += 1,
            StoredVerdict::Rejected(why) => reject(collection, &name, &why),
            StoredVerdict::Waits(_) if collection.waiting.len() >= WAITING_MAX => {
                reject(collection, &name, "it waits for a project, and too many lines do already");
            }
            StoredVerdict::Waits(_) => collection.waiting.push(line),
            StoredVerdict::Record(record) => {
                if let Some(twin) = records.insert(record.local_record_id.clone(), *record) {
                    twins.insert(twin.local_record_id);
                    reject(collection, &name, "another line is about the same account and user");
                }
            }
        }
    }
    for id in twins {
        records.remove(&id);
        reject(collection, &id, "two lines are about it");
    }
    records.into_values().collect()
}

fn reject(collection: &mut StorageCollection, name: &str, why: &str) {
    collection.rejected += 1;
    if collection.samples.len() < SAMPLES_MAX {
        collection.samples.push(format!("{}: {why}", name.escape_debug()));
    }
}

/// The report and the instant for which it holds.
async fn read(
    agent: &Agent,
    report: &StorageReport,
    day: i64,
    now: Epoch,
) -> Result<(Epoch, Parsed), String> {
    let (collected, bytes) = match &report.source {
        ReportSource::File(file) => {
            let (renewed, bytes) = read_file(file, report.output_bytes_max)?;
            if first_day(agent, report, renewed) != Some(day) {
                return Err(format!(
                    "{} was renewed at {renewed}, which is not in the interval that began on {}",
                    file.display(),
                    day_text(day)
                ));
            }
            (renewed, bytes)
        }
        ReportSource::Command { .. } if agent.mode == Mode::Emulator => {
            return Err("the emulated world runs no programs of the site; report a file there".to_owned());
        }
        ReportSource::Command { path, args } => {
            let program = SiteProgram {
                path: path.clone(),
                args: args.clone(),
                timeout: report.timeout,
                output_bytes_max: report.output_bytes_max,
            };
            (now, run(&program).await?)
        }
    };
    let parsed = filesystem::parse(report.format, &bytes).map_err(|error| error.to_string())?;
    Ok((collected, parsed))
}

fn read_file(file: &Path, bytes_max: u64) -> Result<(Epoch, Vec<u8>), String> {
    let wrong = |error: std::io::Error| format!("{}: {error}", file.display());
    let meta = std::fs::metadata(file).map_err(wrong)?;
    if meta.len() > bytes_max {
        return Err(format!("{} is larger than {bytes_max} bytes (output_bytes_max)", file.display()));
    }
    let modified = meta.modified().map_err(wrong)?;
    let since =
        modified.duration_since(UNIX_EPOCH).map_err(|error| format!("{}: {error}", file.display()))?;
    let renewed = i64::try_from(since.as_secs()).map_err(|error| error.to_string())?;
    Ok((Epoch(renewed), std::fs::read(file).map_err(wrong)?))
}

/// Standard output of a program that ended well.
async fn run(program: &SiteProgram) -> Result<Vec<u8>, String> {
    let path = program.path.display();
    let complaint = |stderr: &[u8]| -> String {
        let text = String::from_utf8_lossy(stderr);
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        words.chars().take(COMPLAINT_CHARS_MAX).flat_map(char::escape_debug).collect()
    };
    match program.run().await {
        Ok(Answer { stdout, stderr, status: 0 }) => {
            if !stderr.is_empty() {
                tracing::warn!(%path, said = complaint(&stderr), "a storage report complained while answering");
            }
            Ok(stdout)
        }
        Ok(Answer { stderr, status, .. }) => Err(format!(
            "{path} ended with status {status}: {}; run it as the agent's user to see why",
            complaint(&stderr)
        )),
        Err(RunError::NotFound { path }) => Err(format!("{} does not exist", path.display())),
        Err(RunError::TimedOut { after, .. }) => Err(format!(
            "{path} did not end within {} and was ended with all it had started (timeout)",
            humantime::format_duration(after)
        )),
        Err(error) => Err(chain(&error)),
    }
}

/// What people should know of a collection.
fn finding(collection: &StorageCollection) -> Option<String> {
    let StorageCollection { report, rejected, waiting, .. } = collection;
    let day = day_text(collection.day);
    if !collection.error.is_empty() {
        return Some(format!("storage report {report} of {day}: {}", collection.error));
    }
    let mut parts = Vec::new();
    if *rejected > 0 {
        let sample = collection.samples.first().map_or("", String::as_str);
        parts.push(format!("{rejected} lines rejected, the first: {sample}"));
    }
    if let Some(first) = waiting.first() {
        let name = first.account.as_deref().or(first.username.as_deref()).unwrap_or("");
        parts.push(format!("{} lines wait for a project, the first {name:?}", waiting.len()));
    }
    (!parts.is_empty()).then(|| format!("storage report {report} of {day}: {}", parts.join("; ")))
}
