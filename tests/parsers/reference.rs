//! A slow and obvious parser of the answer to the agent's question for job records: strings, splits and maps, written from
//! sacct's manual page and from what Slurm prints, without a look at the fast one. The two must agree on everything.

use std::collections::BTreeMap;
use std::sync::Arc;

use slurm_site_agent::core::job::{JobKey, JobRecord};
use slurm_site_agent::core::name::ClusterName;
use slurm_site_agent::core::time::{Epoch, Window};
use slurm_site_agent::core::tres::{Tres, TresCounts, TresSeconds};

/// What an answer says.
#[derive(Debug, Default, PartialEq)]
pub struct Reading {
    /// Every understood row, in order.
    pub rows: Vec<JobRecord>,
    /// Records by key, without those whose rows contradict each other.
    pub records: Vec<JobRecord>,
    /// Why rows were rejected, in the order in which that is seen; twice for the row that first contradicts another.
    pub reasons: Vec<&'static str>,
}

pub fn read(answer: &[u8], cluster: &ClusterName) -> Reading {
    let mut found = Reading::default();
    let mut lines: Vec<&[u8]> = answer.split(|byte| *byte == b'\n').collect();
    // What follows the last newline was cut off, or is nothing.
    if lines.pop().is_some_and(|rest| !rest.is_empty()) {
        found.reasons.push("cut off");
    }
    let mut by_key: BTreeMap<u64, (JobRecord, bool)> = BTreeMap::new();
    for line in lines {
        let record = match record(line, cluster) {
            Ok(record) => record,
            Err(reason) => {
                found.reasons.push(reason);
                continue;
            }
        };
        found.rows.push(record.clone());
        match by_key.get_mut(&record.key.dbindex) {
            None => {
                by_key.insert(record.key.dbindex, (record, true));
            }
            Some((first, certain)) if *certain && *first == record => {}
            Some((_, certain)) => {
                found.reasons.push("contradicts another row");
                if *certain {
                    found.reasons.push("contradicts another row");
                }
                *certain = false;
            }
        }
    }
    found.records = by_key.into_values().filter(|(_, certain)| *certain).map(|(record, _)| record).collect();
    found
}

fn record(line: &[u8], cluster: &ClusterName) -> Result<JobRecord, &'static str> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == 0x1f).collect();
    if fields.len() != 16 {
        return Err("not 16 fields");
    }
    if String::from_utf8_lossy(fields[0]).to_ascii_lowercase() != cluster.as_str() {
        return Err("another cluster");
    }
    let text = |field: usize| String::from_utf8_lossy(fields[field]).as_ref().into();
    let dbindex = number(fields[1]).filter(|number| *number > 0).ok_or("DBIndex is no number")?;
    let job_id = number(fields[2]).ok_or("JobIDRaw is no number")?;
    let submit = time(fields[6]).ok_or("Submit is no time")?.ok_or("Submit is no time")?;
    let eligible = time(fields[7]).ok_or("Eligible is no time")?;
    let start = time(fields[8]).ok_or("Start is no time")?;
    let end = time(fields[9]).ok_or("End is no time")?;
    let suspended_s = duration(fields[10]).ok_or("Suspended is no duration")?;
    let elapsed_s = number(fields[11]).ok_or("ElapsedRaw is no number")?;
    let assoc_id = match fields[14] {
        b"" => None,
        id => Some(number(id).ok_or("AssocID is no number")?).filter(|id| *id > 0),
    };
    Ok(JobRecord {
        key: JobKey { cluster: cluster.clone(), dbindex },
        job_id,
        account: text(3),
        user: text(4),
        state: text(5),
        submit,
        eligible,
        start,
        end,
        suspended_s,
        elapsed_s,
        partition: text(12),
        qos: text(13),
        assoc_id,
        alloc: Arc::new(alloc(fields[15]).ok_or("AllocTRES is no list of counts")?),
    })
}

fn number(field: &[u8]) -> Option<u64> {
    let mut number: u64 = 0;
    for byte in field {
        number = number.checked_mul(10)?.checked_add(u64::from(char::from(*byte).to_digit(10)?))?;
    }
    if field.is_empty() { None } else { Some(number) }
}

fn time(field: &[u8]) -> Option<Option<Epoch>> {
    match field {
        b"" | b"Unknown" | b"None" => Some(None),
        // The last one that can be printed is the end of the year 9999.
        _ => match number(field)? {
            seconds @ 1..=253_402_300_799 => Some(Some(Epoch(seconds as i64))),
            _ => None,
        },
    }
}

/// `[days-]hours:minutes:seconds[.decimals]`, or `minutes:seconds[.decimals]` without days.
fn duration(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?;
    let (days, clock) = match text.split_once('-') {
        Some((days, clock)) => (Some(number(days.as_bytes())?), clock),
        None => (None, text),
    };
    let clock = match clock.split_once('.') {
        Some((clock, decimals)) => {
            number(decimals.as_bytes())?;
            clock
        }
        None => clock,
    };
    let parts: Option<Vec<u64>> = clock.split(':').map(|part| number(part.as_bytes())).collect();
    let parts = parts?;
    let (hours, minutes, seconds) = match parts.len() {
        3 => (parts[0], parts[1], parts[2]),
        2 if days.unwrap_or(0) == 0 => (0, parts[0], parts[1]),
        _ => return None,
    };
    if minutes >= 60 || seconds >= 60 || (days.unwrap_or(0) > 0 && hours >= 24) {
        return None;
    }
    let total = u128::from(days.unwrap_or(0)) * 86_400
        + u128::from(hours) * 3600
        + u128::from(minutes) * 60
        + u128::from(seconds);
    u64::try_from(total).ok()
}

fn alloc(field: &[u8]) -> Option<TresCounts> {
    let text = std::str::from_utf8(field).ok()?;
    let mut counts = TresCounts::new();
    for item in text.split(',').filter(|_| !text.is_empty()) {
        let (name, value) = item.split_once('=')?;
        let count = match value.chars().last()? {
            unit if !unit.is_ascii_digit() => in_mb(name, &value[..value.len() - unit.len_utf8()], unit)?,
            _ => number(value.as_bytes())?,
        };
        if counts.insert(Tres::parse(name).ok()?, count).is_some() {
            return None;
        }
    }
    Some(counts)
}

/// An amount of memory with a unit, where it is a whole number of MB.
fn in_mb(name: &str, amount: &str, unit: char) -> Option<u64> {
    if name != "mem" && !name.starts_with("bb/") {
        return None;
    }
    let steps = "KMGTP".find(unit)?;
    let (whole, decimals) = match amount.split_once('.') {
        Some((whole, decimals)) if !decimals.is_empty() => (whole, decimals),
        Some(_) => return None,
        None => (amount, ""),
    };
    if whole.is_empty() || !whole.chars().chain(decimals.chars()).all(|c| c.is_ascii_digit()) {
        return None;
    }
    // Tenths, hundredths and so on of the unit, in KB; the numbers of the tests are small enough for 128 bits.
    let parts: u128 = format!("{whole}{decimals}").parse().ok()?;
    let kb = parts.checked_mul(1 << (10 * steps))?;
    let per_mb = 1024 * 10_u128.checked_pow(u32::try_from(decimals.len()).ok()?)?;
    if kb % per_mb == 0 { u64::try_from(kb / per_mb).ok() } else { None }
}

/// Totals as [`slurm_site_agent::slurm::totals`] tells them: by account, user and number of the period.
pub fn totals(
    rows: &[JobRecord],
    periods: &[Window],
    now: Epoch,
) -> (BTreeMap<(String, String, usize), TresSeconds>, u64) {
    let mut used: BTreeMap<(String, String, usize), TresSeconds> = BTreeMap::new();
    let mut inexact = 0;
    for job in rows {
        let Some(start) = job.start else { continue };
        let (from, until) = (start.0.max(job.submit.0), job.end.unwrap_or(now).0);
        let mut split = false;
        for (number, period) in periods.iter().enumerate() {
            let (first, last) = (from.max(period.from.0), until.min(period.until.0));
            if first >= last {
                continue;
            }
            let whole = first == from && last == until;
            let wall_s = last - first;
            let cpu_s =
                if whole { (i128::from(wall_s) - i128::from(job.suspended_s)).max(0) } else { wall_s.into() };
            split |= job.suspended_s > 0 && !whole && !job.alloc.keys().all(|tres| tres.as_str() == "energy");
            for (tres, count) in job.alloc.iter() {
                let seconds = match tres.as_str() {
                    "energy" => 0,
                    "cpu" => cpu_s,
                    _ => wall_s.into(),
                };
                let amount = u128::from(*count) * u128::try_from(seconds).unwrap();
                if amount > 0 {
                    let key = (job.account.to_string(), job.user.to_string(), number);
                    *used.entry(key).or_default().0.entry(tres.clone()).or_default() += amount;
                }
            }
        }
        inexact += u64::from(split);
    }
    (used, inexact)
}
