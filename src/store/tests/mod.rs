//! Every test works on a real file in a directory of its own.

mod crash;
mod facts;
mod ledger;
mod messages;
mod opening;
mod promises;
mod totals;

use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::core::job::{JobKey, JobRecord};
use crate::core::name::{AccountName, ClusterName, SourceName};
use crate::core::time::{Epoch, Window};
use crate::core::tres::{Tres, TresCounts};

/// A directory and the path of a store in it.
struct Place {
    _directory: TempDir,
    path: PathBuf,
}

impl Place {
    fn new() -> Place {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state").join("agent.db");
        Place { _directory: directory, path }
    }

    fn open(&self) -> Store {
        Store::open(&self.path).unwrap()
    }
}

fn cluster() -> ClusterName {
    ClusterName::parse("hpc").unwrap()
}

fn source() -> SourceName {
    SourceName::parse("waldur").unwrap()
}

fn account(name: &str) -> AccountName {
    AccountName::parse(name).unwrap()
}

/// A job that ran from `start` to `end`.
fn job(dbindex: u64, start: i64, end: Option<i64>) -> JobRecord {
    JobRecord {
        key: JobKey { cluster: cluster(), dbindex },
        job_id: dbindex,
        account: "bio42".into(),
        user: "alice".into(),
        state: if end.is_some() { "COMPLETED" } else { "RUNNING" }.into(),
        submit: Epoch(start - 10),
        eligible: Some(Epoch(start - 9)),
        start: Some(Epoch(start)),
        end: end.map(Epoch),
        suspended_s: 0,
        elapsed_s: end.map_or(5, |end| (end - start).unsigned_abs()),
        partition: "normal".into(),
        qos: "normal".into(),
        assoc_id: Some(7),
        alloc: TresCounts::from([(Tres::cpu(), 4), (Tres::mem(), 4096), (Tres::billing(), 4)]).into(),
    }
}

fn collection<'a>(cluster: &'a ClusterName, records: &'a [JobRecord]) -> Collection<'a> {
    Collection {
        cluster,
        window: Window::new(Epoch(0), Epoch(10_000)),
        now: Epoch(10_000),
        watermark: None,
        records,
        before: Collected::default(),
        more: false,
        suspended: &[],
        rejected: 0,
        reject_samples: Vec::new(),
        complete: true,
    }
}

fn put(store: &mut Store, records: &[JobRecord]) -> Collected {
    store.put_collection(&collection(&cluster(), records)).unwrap()
}

/// All jobs that `visit_jobs` shows of a window, by DBIndex.
fn jobs_in(store: &Store, from: i64, until: i64) -> Vec<JobRecord> {
    let mut found = Vec::new();
    store.visit_jobs(&cluster(), Window::new(Epoch(from), Epoch(until)), &mut |job| found.push(job)).unwrap();
    found.sort_by_key(|job| job.key.dbindex);
    found
}

fn changed_after(store: &Store, seq: u64) -> Vec<(u64, u64)> {
    let mut found = Vec::new();
    store
        .visit_changed(&cluster(), seq, usize::MAX, &mut |seq, job| found.push((seq, job.key.dbindex)))
        .unwrap();
    found
}
