//! `sacctmgr show qos`: what each QOS does to the jobs in it.

use std::collections::{BTreeMap, BTreeSet};

use super::SEPARATOR;
use crate::core::name::QosName;
use crate::core::tres::TresCounts;
use crate::slurm::argv::Argv;
use crate::slurm::rows::{self, ByKey, Rejects};
use crate::slurm::tres_text;

const FIELDS: &str = "name,priority,flags,grpjobs,grpsubmitjobs,maxjobspu,maxsubmitpu,maxjobspa,maxsubmitpa,usagefactor,\
                      grptresmins";

/// A QOS. Of its limits on submission a 0 refuses every job; a 0 limit on running jobs only keeps them waiting (22.05.8).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObservedQos {
    /// Higher runs sooner.
    pub priority: u64,
    /// Such as `NoDecay`, `DenyOnLimit`.
    pub flags: BTreeSet<String>,
    /// GrpJobs: running at one time.
    pub grp_jobs: Option<u64>,
    /// GrpSubmitJobs: waiting or running at one time.
    pub grp_submit_jobs: Option<u64>,
    /// MaxJobsPerUser: running.
    pub max_jobs_per_user: Option<u64>,
    /// MaxSubmitJobsPerUser: waiting or running.
    pub max_submit_per_user: Option<u64>,
    /// MaxJobsPerAccount: running.
    pub max_jobs_per_account: Option<u64>,
    /// MaxSubmitJobsPerAccount: waiting or running.
    pub max_submit_per_account: Option<u64>,
    /// UsageFactor as printed, such as `1.000000`; multiplies raw usage, not what sacct shows.
    pub usage_factor: String,
    /// GrpTRESMins (memory MB-minutes); overrides the association's limit on the same TRES.
    pub grp_tres_mins: TresCounts,
}

impl ObservedQos {
    /// Whether a job in it is refused when it is submitted.
    pub fn refuses_submission(&self) -> bool {
        [self.grp_submit_jobs, self.max_submit_per_user, self.max_submit_per_account].contains(&Some(0))
    }
}

/// The question for all QOS.
pub(in crate::slurm) fn argv() -> Argv {
    super::show(&["qos"], FIELDS)
}

/// Reads the answer. A QOS whose row is not understood is absent.
pub fn parse(answer: &[u8]) -> BTreeMap<QosName, ObservedQos> {
    read(answer).0
}

/// As [`parse`], with what was rejected.
pub(in crate::slurm) fn read(answer: &[u8]) -> (BTreeMap<QosName, ObservedQos>, Rejects) {
    let mut rejects = Rejects::default();
    let mut found = ByKey::new();
    for row in rows::complete_rows(answer, &mut rejects) {
        match parse_row(row) {
            Some((name, qos)) => found.add(name, qos, row, &mut rejects),
            None => rejects.add(row, "not a QOS"),
        }
    }
    (found.certain().collect(), rejects)
}

fn parse_row(row: &[u8]) -> Option<(QosName, ObservedQos)> {
    let [
        name,
        priority,
        flags,
        grp_jobs,
        grp_submit,
        jobs_per_user,
        submit_per_user,
        jobs_per_account,
        submit_per_account,
        usage_factor,
        grp_tres_mins,
    ] = rows::fields(row, SEPARATOR)?;
    let name = QosName::parse(std::str::from_utf8(name).ok()?).ok()?;
    let flags = rows::text(flags);
    let qos = ObservedQos {
        priority: rows::number(priority)?,
        flags: flags.split(',').filter(|flag| !flag.is_empty()).map(str::to_owned).collect(),
        grp_jobs: rows::number_if_any(grp_jobs)?,
        grp_submit_jobs: rows::number_if_any(grp_submit)?,
        max_jobs_per_user: rows::number_if_any(jobs_per_user)?,
        max_submit_per_user: rows::number_if_any(submit_per_user)?,
        max_jobs_per_account: rows::number_if_any(jobs_per_account)?,
        max_submit_per_account: rows::number_if_any(submit_per_account)?,
        usage_factor: rows::text(usage_factor),
        grp_tres_mins: tres_text::limits(grp_tres_mins)?,
    };
    Some((name, qos))
}
