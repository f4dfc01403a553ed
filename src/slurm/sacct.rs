//! sacct: job records, and how long jobs had been suspended before an edge.
//!
//! The invocation is byte for byte the same question on 20.11, 22.05 and 26.05: every incarnation (`-D`), allocations
//! only (`-X`), all users, times in and out as seconds since the epoch, memory in whole MB. No field that a user
//! can write is asked for, and the separator is a control character, since sacct escapes nothing.
//!
//! sacct answers rc 0 and nothing when slurmdbd's query fails (20.11, 26.05), so an empty answer proves nothing:
//! the caller overlaps windows and looks for a record it knows.

use std::collections::{BTreeMap, BTreeSet};

use super::argv::{Argv, Program};
use super::job_reader::JobReader;
use super::rows::{self, ByKey, Rejects};
use crate::core::job::{JobKey, JobRecord, SuspendedBefore};
use crate::core::name::ClusterName;
use crate::core::time::{Epoch, Window};

/// The ASCII unit separator: cannot be typed by accident into a name.
pub(super) const SEPARATOR: u8 = 0x1f;

/// How many job ids one question names; keeps the argument vector short.
const JOBS_PER_QUESTION_MAX: usize = 500;

/// The earliest instant that Slurm takes as `uts...`: 22.05.8 answers `uts999999` with "Invalid time specification" and takes
/// `uts1000000` (12 January 1970). No job is that old, so an earlier edge may as well lie there.
const UTS_MIN: Epoch = Epoch(1_000_000);

const JOB_FIELDS: &str = "cluster,dbindex,jobidraw,account,user,state,submit,eligible,start,end,suspended,elapsedraw,\
                          partition,qos,associd,alloctres";

/// Records of one answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobLines {
    /// In the order of their keys, each key once.
    pub records: Vec<JobRecord>,
    /// How many rows were not understood, or contradicted each other.
    pub rejected: usize,
    /// The first of those with the reason, safe to print.
    pub samples: Vec<String>,
}

fn question(cluster: &ClusterName, window: Window, more: &[&str], fields: &str) -> Argv {
    let separator = format!("--delimiter={}", char::from(SEPARATOR));
    let mut args: Vec<String> =
        ["-a", "-D", "-X", "-n", "-P", "--noconvert", &separator].map(String::from).into();
    args.extend(["-M".to_owned(), cluster.to_string()]);
    args.extend(more.iter().map(|arg| (*arg).to_owned()));
    args.extend(["-S".to_owned(), format!("uts{}", window.from.max(UTS_MIN).0)]);
    args.extend(["-E".to_owned(), format!("uts{}", window.until.max(UTS_MIN).0)]);
    args.extend(["-o".to_owned(), fields.to_owned()]);
    Argv::reading(Program::Sacct, args)
}

/// Records eligible before the window's end that had not ended before its start; a record that ended exactly at
/// the start is among them. Records never eligible are not.
pub(super) fn jobs_argv(cluster: &ClusterName, window: Window) -> Argv {
    question(cluster, window, &[], JOB_FIELDS)
}

/// Reads the answer to the question for job records of `cluster`.
pub fn parse_jobs(answer: &[u8], cluster: &ClusterName) -> JobLines {
    let mut reader = JobReader::new(cluster);
    let whole = rows::whole_rows(answer, &mut reader.rejects);
    reader.read(whole);
    let mut records = reader.take().expect("the first batch has none before it");
    records.sort_by_key(|record| record.key.dbindex);
    JobLines { records, rejected: reader.rejects.count, samples: reader.rejects.samples }
}

fn key(cluster: &[u8], dbindex: &[u8], wanted: &ClusterName) -> Result<JobKey, &'static str> {
    if !cluster.eq_ignore_ascii_case(wanted.as_str().as_bytes()) {
        return Err("another cluster");
    }
    let dbindex = rows::number(dbindex).filter(|index| *index != 0).ok_or("DBIndex is no number")?;
    Ok(JobKey { cluster: wanted.clone(), dbindex })
}

/// The questions for how long `jobs` had been suspended before `edge`; those that had not started by then need none.
/// With `-T` sacct prints of Suspended the part inside the window.
pub(super) fn suspended_argvs(cluster: &ClusterName, jobs: &[JobRecord], edge: Epoch) -> Vec<Argv> {
    let asked: Vec<(u64, Epoch)> = jobs
        .iter()
        .filter_map(|job| Some((job.job_id, job.start.filter(|start| *start < edge)?.min(job.submit))))
        .collect();
    asked
        .chunks(JOBS_PER_QUESTION_MAX)
        .map(|chunk| {
            let ids: BTreeSet<String> = chunk.iter().map(|(id, _)| id.to_string()).collect();
            let from = chunk.iter().map(|(_, start)| *start).min().unwrap_or(edge);
            let ids = ids.into_iter().collect::<Vec<_>>().join(",");
            question(cluster, Window::new(from, edge), &["-T", "-j", &ids], "cluster,dbindex,suspended")
        })
        .collect()
}

/// Reads seconds of suspension by record; what is not understood is absent.
pub fn parse_suspended(answer: &[u8], cluster: &ClusterName) -> BTreeMap<u64, u64> {
    let mut rejects = Rejects::default();
    let mut found = ByKey::new();
    for row in rows::complete_rows(answer, &mut rejects) {
        let read = rows::fields(row, SEPARATOR).and_then(|[named, dbindex, suspended]| {
            Some((key(named, dbindex, cluster).ok()?.dbindex, rows::duration_s(suspended)?))
        });
        match read {
            Some((dbindex, seconds)) => found.add(dbindex, seconds, row, &mut rejects),
            None => rejects.add(row, "not cluster, DBIndex and Suspended"),
        }
    }
    found.certain().collect()
}

/// What a report says of a job besides its record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobLabel {
    /// Job id of the array, or of the first component of a heterogeneous job; else the job's own.
    pub leader: u64,
    /// JobName as the user wrote it, where it was asked for. Never to be trusted.
    pub name: Option<String>,
}

/// The questions for the labels of `jobs`. A name is asked for as the last field and behind a separator that nobody can
/// have written into it: one that is new in every call.
pub(super) fn label_argvs(cluster: &ClusterName, jobs: &[JobRecord], separator: Option<&str>) -> Vec<Argv> {
    let fields = if separator.is_some() { "cluster,dbindex,jobid,jobname" } else { "cluster,dbindex,jobid" };
    let chunks = jobs.chunks(JOBS_PER_QUESTION_MAX);
    chunks
        .map(|chunk| {
            let ids: BTreeSet<String> = chunk.iter().map(|job| job.job_id.to_string()).collect();
            let ids = ids.into_iter().collect::<Vec<_>>().join(",");
            let first = chunk.iter().map(|job| job.submit.min(job.start.unwrap_or(job.submit))).min();
            let last = chunk.iter().map(|job| job.end.unwrap_or(job.submit)).max();
            let window = Window::new(first.unwrap_or(Epoch(0)), last.unwrap_or(Epoch(0)).plus(1));
            let plain = question(cluster, window, &["-j", &ids], fields);
            match separator {
                None => plain,
                Some(separator) => Argv::reading(
                    Program::Sacct,
                    plain.args().iter().map(|arg| match arg.starts_with("--delimiter=") {
                        true => format!("--delimiter={separator}"),
                        false => arg.clone(),
                    }),
                ),
            }
        })
        .collect()
}

/// Reads labels by DBIndex. A line without the separator is the rest of a name with a line break, and no row; two rows
/// of one key that differ are none.
pub fn parse_labels(
    answer: &[u8],
    cluster: &ClusterName,
    separator: Option<&str>,
) -> BTreeMap<u64, JobLabel> {
    let mut rejects = Rejects::default();
    let mut found = ByKey::new();
    let text = rows::text(answer);
    let between = separator.map_or_else(|| char::from(SEPARATOR).to_string(), str::to_owned);
    for line in text.split('\n') {
        let parts: Vec<&str> = line.split(between.as_str()).collect();
        let (named, dbindex, job_id, name) = match (parts.as_slice(), separator) {
            ([named, dbindex, job_id], None) => (*named, *dbindex, *job_id, None),
            ([named, dbindex, job_id, name], Some(_)) => {
                (*named, *dbindex, *job_id, Some((*name).to_owned()))
            }
            _ => continue,
        };
        let Ok(key) = key(named.as_bytes(), dbindex.as_bytes(), cluster) else { continue };
        let digits = job_id.find(|c: char| !c.is_ascii_digit()).unwrap_or(job_id.len());
        let rest = &job_id[digits..];
        let known = rest.is_empty() || rest.starts_with('_') || rest.starts_with('+');
        if let Some(leader) = rows::number(&job_id.as_bytes()[..digits]).filter(|_| known) {
            found.add(key.dbindex, JobLabel { leader, name }, line.as_bytes(), &mut rejects);
        }
    }
    found.certain().collect()
}

/// Those of `jobs` that are suspended now and had started before `edge`: with `-T` every release from 20.11 to 26.05 leaves out
/// a suspension that is still open.
pub(super) fn suspended_now(jobs: &[JobRecord], edge: Epoch) -> Vec<JobRecord> {
    let open = |job: &&JobRecord| is_suspended(job) && job.start.is_some_and(|start| start < edge);
    jobs.iter().filter(open).cloned().collect()
}

fn is_suspended(job: &JobRecord) -> bool {
    job.end.is_none() && job.state == "SUSPENDED"
}

/// What is known of `jobs` at `edge`. A job that had not started by then needs no answer: it is 0 there. `closed` are the
/// seconds in suspensions that are over, of jobs that are suspended now.
///
/// Elapsed stands still while a job is suspended, so the open suspension began at start + elapsed + closed (22.05.8: Start 423,
/// ElapsedRaw 13, closed 5 of Suspended 11, suspended since 441). Where the job was resumed meanwhile `closed` has that part as
/// well, which moves the beginning behind every edge of the past, and `answered` has it too.
pub(super) fn suspended_of(
    jobs: &[JobRecord],
    edge: Epoch,
    answered: &BTreeMap<u64, u64>,
    closed: &BTreeMap<u64, u64>,
) -> Vec<SuspendedBefore> {
    let seconds = |job: &JobRecord| match job.start {
        Some(start) if start < edge => {
            let over = answered.get(&job.key.dbindex).copied()?;
            if !is_suspended(job) {
                return Some(over);
            }
            let ran_s = job.elapsed_s.checked_add(*closed.get(&job.key.dbindex)?)?;
            let since = start.plus(i64::try_from(ran_s).ok()?);
            over.checked_add(u64::try_from(edge.since(since)).unwrap_or(0))
        }
        _ => Some(0),
    };
    jobs.iter()
        .filter_map(|job| Some(SuspendedBefore { key: job.key.clone(), edge, seconds: seconds(job)? }))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_without_periods_asks_from_the_earliest_instant_that_slurm_takes() {
        let cluster = ClusterName::parse("lab").unwrap();
        let edges = |from, until| {
            let argv = jobs_argv(&cluster, Window::new(Epoch(from), Epoch(until)));
            let after = |flag: &str| {
                let place = argv.args().iter().position(|arg| arg == flag).unwrap();
                argv.args()[place + 1].clone()
            };
            (after("-S"), after("-E"))
        };
        assert_eq!(edges(0, 86_400), ("uts1000000".into(), "uts1000000".into()));
        assert_eq!(edges(0, 1_793_491_200), ("uts1000000".into(), "uts1793491200".into()));
        assert_eq!(edges(1_793_491_200, 1_793_494_800), ("uts1793491200".into(), "uts1793494800".into()));
    }

    fn cluster() -> ClusterName {
        ClusterName::parse("lab").unwrap()
    }

    #[test]
    fn an_open_suspension_is_split_at_an_edge_although_truncation_leaves_it_out() {
        // The job of 22.05.8 that the rule was tried on: suspended 1795344432 to 437 and from 441 on, seen at 447.
        let line = "lab\x1f9\x1f9\x1facc_leaf\x1falice\x1fSUSPENDED\x1f1795344423\x1f1795344423\x1f1795344423\x1fUnknown\x1f\
                    00:00:11\x1f13\x1fdebug\x1fnormal\x1f10\x1fcpu=1\n";
        let job = parse_jobs(line.as_bytes(), &cluster()).records.remove(0);
        let check = |edge, answered, closed: u64, expected: u64| {
            let found = suspended_of(
                std::slice::from_ref(&job),
                Epoch(edge),
                &BTreeMap::from([(9, answered)]),
                &BTreeMap::from([(9, closed)]),
            );
            assert_eq!(found[0].seconds, expected, "{edge}");
        };
        check(1_795_344_434, 2, 5, 2);
        check(1_795_344_441, 5, 5, 5);
        check(1_795_344_443, 5, 5, 7);
        // Resumed at 450 between the two questions: both have the part that is over now.
        check(1_795_344_443, 7, 14, 7);
        assert_eq!(
            suspended_of(&[job], Epoch(1_795_344_443), &BTreeMap::from([(9, 5)]), &BTreeMap::new()),
            []
        );
    }

    #[test]
    fn labels_name_the_leader_of_arrays_and_heterogeneous_jobs() {
        let answer =
            b"lab\x1f1\x1f200_3\nlab\x1f2\x1f100+1\nlab\x1f3\x1f7\nother\x1f4\x1f8\nlab\x1f5\x1f9.batch\n";
        let leaders: Vec<(u64, u64)> = parse_labels(answer, &cluster(), None)
            .into_iter()
            .map(|(key, label)| (key, label.leader))
            .collect();
        assert_eq!(leaders, [(1, 200), (2, 100), (3, 7)]);
    }

    #[test]
    fn a_name_with_line_breaks_and_separators_is_no_row() {
        let name = "x\nlab\x1f2\x1f7\x1fforged\nlab|2|7|forged";
        let answer = format!("lab<s>1<s>5<s>{name}\nlab<s>2<s>6<s>honest\n");
        let labels = parse_labels(answer.as_bytes(), &cluster(), Some("<s>"));
        let shown: Vec<_> = labels.values().map(|label| (label.leader, label.name.as_deref())).collect();
        assert_eq!(shown, [(5, Some("x")), (6, Some("honest"))]);
    }
}
