//! Limits of associations and QOS, under Slurm's own names.

use super::tres::Amounts;
use std::collections::BTreeMap;

/// A limit that is one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Count {
    /// Seconds that a preempted job may go on (QOS).
    GraceTime,
    /// Jobs running at once.
    GrpJobs,
    /// Jobs that gather age priority at once.
    GrpJobsAccrue,
    /// Jobs running or waiting at once.
    GrpSubmitJobs,
    /// Minutes of wall time.
    GrpWall,
    /// Jobs running at once, per association.
    MaxJobs,
    /// Jobs that gather age priority, per association.
    MaxJobsAccrue,
    /// The same per account (QOS).
    MaxJobsAccruePerAccount,
    /// The same per user (QOS).
    MaxJobsAccruePerUser,
    /// Jobs running at once per account (QOS).
    MaxJobsPerAccount,
    /// Jobs running at once per user (QOS).
    MaxJobsPerUser,
    /// Jobs running or waiting at once, per association.
    MaxSubmitJobs,
    /// Jobs running or waiting at once per account (QOS).
    MaxSubmitJobsPerAccount,
    /// Jobs running or waiting at once per user (QOS).
    MaxSubmitJobsPerUser,
    /// Minutes of wall time of one job.
    MaxWall,
    /// Least priority to reserve resources.
    MinPrioThresh,
    /// Priority.
    Priority,
}

impl Count {
    /// Every one.
    pub const ALL: [Count; 17] = [
        Count::GraceTime,
        Count::GrpJobs,
        Count::GrpJobsAccrue,
        Count::GrpSubmitJobs,
        Count::GrpWall,
        Count::MaxJobs,
        Count::MaxJobsAccrue,
        Count::MaxJobsAccruePerAccount,
        Count::MaxJobsAccruePerUser,
        Count::MaxJobsPerAccount,
        Count::MaxJobsPerUser,
        Count::MaxSubmitJobs,
        Count::MaxSubmitJobsPerAccount,
        Count::MaxSubmitJobsPerUser,
        Count::MaxWall,
        Count::MinPrioThresh,
        Count::Priority,
    ];

    /// Slurm's name.
    pub fn name(self) -> &'static str {
        match self {
            Count::GraceTime => "GraceTime",
            Count::GrpJobs => "GrpJobs",
            Count::GrpJobsAccrue => "GrpJobsAccrue",
            Count::GrpSubmitJobs => "GrpSubmitJobs",
            Count::GrpWall => "GrpWall",
            Count::MaxJobs => "MaxJobs",
            Count::MaxJobsAccrue => "MaxJobsAccrue",
            Count::MaxJobsAccruePerAccount => "MaxJobsAccruePerAccount",
            Count::MaxJobsAccruePerUser => "MaxJobsAccruePerUser",
            Count::MaxJobsPerAccount => "MaxJobsPerAccount",
            Count::MaxJobsPerUser => "MaxJobsPerUser",
            Count::MaxSubmitJobs => "MaxSubmitJobs",
            Count::MaxSubmitJobsPerAccount => "MaxSubmitJobsPerAccount",
            Count::MaxSubmitJobsPerUser => "MaxSubmitJobsPerUser",
            Count::MaxWall => "MaxWall",
            Count::MinPrioThresh => "MinPrioThresh",
            Count::Priority => "Priority",
        }
    }

    /// True for limits that an association without its own takes from its parents.
    pub(super) fn is_inherited(self) -> bool {
        matches!(
            self,
            Count::MaxJobs
                | Count::MaxJobsAccrue
                | Count::MaxSubmitJobs
                | Count::MaxWall
                | Count::MinPrioThresh
                | Count::Priority
        )
    }
}

/// A limit that is an amount per trackable resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PerTres {
    /// In use at once.
    GrpTres,
    /// Minutes in all.
    GrpTresMins,
    /// Minutes that running jobs may still use.
    GrpTresRunMins,
    /// Of one job.
    MaxTres,
    /// Minutes of one job.
    MaxTresMins,
    /// Per account (QOS).
    MaxTresPerAccount,
    /// Of one job on one node.
    MaxTresPerNode,
    /// Per user (QOS).
    MaxTresPerUser,
    /// Minutes that running jobs may still use, per association.
    MaxTresRunMins,
    /// The same per account (QOS).
    MaxTresRunMinsPerAccount,
    /// The same per user (QOS).
    MaxTresRunMinsPerUser,
    /// Least amount of one job (QOS).
    MinTres,
}

impl PerTres {
    /// Every one.
    pub const ALL: [PerTres; 12] = [
        PerTres::GrpTres,
        PerTres::GrpTresMins,
        PerTres::GrpTresRunMins,
        PerTres::MaxTres,
        PerTres::MaxTresMins,
        PerTres::MaxTresPerAccount,
        PerTres::MaxTresPerNode,
        PerTres::MaxTresPerUser,
        PerTres::MaxTresRunMins,
        PerTres::MaxTresRunMinsPerAccount,
        PerTres::MaxTresRunMinsPerUser,
        PerTres::MinTres,
    ];

    /// Slurm's name.
    pub fn name(self) -> &'static str {
        match self {
            PerTres::GrpTres => "GrpTRES",
            PerTres::GrpTresMins => "GrpTRESMins",
            PerTres::GrpTresRunMins => "GrpTRESRunMins",
            PerTres::MaxTres => "MaxTRES",
            PerTres::MaxTresMins => "MaxTRESMins",
            PerTres::MaxTresPerAccount => "MaxTRESPerAccount",
            PerTres::MaxTresPerNode => "MaxTRESPerNode",
            PerTres::MaxTresPerUser => "MaxTRESPerUser",
            PerTres::MaxTresRunMins => "MaxTRESRunMins",
            PerTres::MaxTresRunMinsPerAccount => "MaxTRESRunMinsPerAccount",
            PerTres::MaxTresRunMinsPerUser => "MaxTRESRunMinsPerUser",
            PerTres::MinTres => "MinTRES",
        }
    }

    /// True for limits that an association takes from its parents, resource by resource.
    pub(super) fn is_inherited(self) -> bool {
        matches!(
            self,
            PerTres::MaxTres | PerTres::MaxTresMins | PerTres::MaxTresPerNode | PerTres::MaxTresRunMins
        )
    }
}

/// The limits that are set; what is not here is unlimited.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Limits {
    /// Single numbers.
    pub counts: BTreeMap<Count, u32>,
    /// Amounts per resource; never an empty map.
    pub tres: BTreeMap<PerTres, Amounts>,
}

impl Limits {
    /// The number of a limit.
    pub fn count(&self, which: Count) -> Option<u32> {
        self.counts.get(&which).copied()
    }

    /// The amounts of a limit.
    pub fn amounts(&self, which: PerTres) -> Option<&Amounts> {
        self.tres.get(&which)
    }

    /// Sets or clears a limit.
    pub fn set_count(&mut self, which: Count, number: Option<u32>) {
        match number {
            Some(number) => self.counts.insert(which, number),
            None => self.counts.remove(&which),
        };
    }

    /// Sets the amounts of a limit; none at all clear it.
    pub fn set_amounts(&mut self, which: PerTres, amounts: Amounts) {
        if amounts.is_empty() {
            self.tres.remove(&which);
        } else {
            self.tres.insert(which, amounts);
        }
    }
}
