//! From what sources of quotas say to wishes for accounts and users, each with its reason.
//!
//! Pure: quotas, accounts as they are, and what was submitted and used in the windows come in; wishes, standings and findings
//! go out. What a quota says that Slurm cannot mean is a finding, never a guess. Facts that are missing make accounts
//! undecided, so that what is in force stays in force.

mod budget;
mod concurrency;
mod rate;
mod reserve;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::association::{AccountTree, Observed};
use super::desired::Wish;
use super::evaluate::Level;
use super::exact::Exact;
use super::name::{AccountName, SourceName, UserName};
use super::quota::{RateQuota, RuleKind};
use super::quota_map::SourceQuotas;
use super::time::Epoch;
use super::tres::TresCounts;
use super::windows::{Stretch, Submission};

/// What was submitted and used lately, as the ledger has it.
#[derive(Debug, Clone, Default)]
pub struct Lately {
    /// Submissions within the longest window of requests.
    pub submissions: Vec<Submission>,
    /// What was billed within the longest window of tokens.
    pub stretches: Vec<Stretch>,
    /// Why that cannot be trusted now, when that is so.
    pub incomplete: Option<String>,
}

/// What the rules are judged by.
#[derive(Debug)]
pub struct Ground<'a> {
    /// Accounts as they are.
    pub observed: &'a Observed,
    /// The same as a tree.
    pub tree: &'a AccountTree<'a>,
    /// What happened in the windows.
    pub lately: &'a Lately,
    /// TRES-minutes that Slurm counts against GrpTRESMins, where they were asked for.
    pub counted: &'a BTreeMap<AccountName, TresCounts>,
    /// The instant of it all.
    pub now: Epoch,
}

/// Where one rule of a quota stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaStanding {
    /// The account.
    pub account: AccountName,
    /// The user below it, for a rule on one user.
    pub user: Option<UserName>,
    /// Whose quota.
    pub source: SourceName,
    /// Its id or name there.
    pub quota: String,
    /// The rule in a few words: `3 requests in 60 s`.
    pub rule: String,
    /// How much is used, in the unit of the rule; `None` where only Slurm counts.
    pub used: Option<Exact>,
    /// How much is allowed.
    pub limit: Exact,
    /// How far that is.
    pub level: Level,
    /// When enough will have rolled away if nothing is submitted and all that runs ends now; `None` where nothing is stopped
    /// or it never comes back.
    pub back_earliest: Option<Epoch>,
    /// The same if what runs goes on as it does.
    pub back_running: Option<Epoch>,
}

impl QuotaStanding {
    /// Whether submissions are stopped by it.
    pub fn is_stopped(&self) -> bool {
        self.level == Level::Blocked && (self.back_earliest.is_some() || self.limit == Exact::ZERO)
    }
}

/// What comes of the quotas of one source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// What is asked for.
    pub wishes: Vec<Wish>,
    /// Where each rule stands.
    pub standings: Vec<QuotaStanding>,
    /// Accounts on which nothing can be decided, with whose quota and the reason.
    pub undecided: BTreeMap<AccountName, (SourceName, String)>,
    /// What people should know.
    pub findings: Vec<String>,
}

impl Verdict {
    /// When the next window has rolled away, if one is used up.
    pub fn wake(&self) -> Option<Epoch> {
        self.standings.iter().filter(|standing| standing.is_stopped()).filter_map(|s| s.back_earliest).min()
    }

    /// Adds what comes of another source.
    pub fn merge(&mut self, other: Verdict) {
        self.wishes.extend(other.wishes);
        self.standings.extend(other.standings);
        self.undecided.extend(other.undecided);
        self.findings.extend(other.findings);
    }
}

/// Seconds of the past that the rules of these quotas need, for submissions and for use.
pub fn needed_s(all: &[&SourceQuotas]) -> (i64, i64) {
    let (mut submissions_s, mut use_s) = (0, 0);
    for quota in all.iter().flat_map(|quotas| rates(quotas)) {
        let own = quota.policies.iter().flat_map(|policy| &policy.rules);
        for rule in quota.default_rules.iter().chain(own) {
            match rule.kind {
                RuleKind::Requests => submissions_s = rule.window.seconds().max(submissions_s),
                RuleKind::Token => use_s = rule.window.seconds().max(use_s),
                RuleKind::ConcurrentRequests | RuleKind::InputSequenceLength => {}
            }
        }
        if quota.policies.iter().any(|policy| policy.reserved.is_some()) {
            submissions_s = submissions_s.max(reserve::SPAN_S);
            use_s = use_s.max(reserve::SPAN_S);
        }
    }
    (submissions_s, use_s)
}

/// The shortest window that any rule has.
pub fn shortest_window_s(all: &[&SourceQuotas]) -> Option<i64> {
    let rules = all.iter().flat_map(|quotas| rates(quotas)).flat_map(|quota| {
        quota.default_rules.iter().chain(quota.policies.iter().flat_map(|policy| &policy.rules))
    });
    let rolling = rules.filter(|rule| matches!(rule.kind, RuleKind::Requests | RuleKind::Token));
    rolling.map(|rule| rule.window.seconds()).min()
}

/// Whether some budget has a level of warning, for which Slurm's own count is needed.
pub fn needs_counted(all: &[&SourceQuotas]) -> bool {
    let warned =
        |quotas: &&SourceQuotas| matches!(quotas, SourceQuotas::Budget { quotas, .. } if !quotas.is_empty());
    all.iter().any(warned)
}

fn rates(quotas: &SourceQuotas) -> &[RateQuota] {
    match quotas {
        SourceQuotas::Rate { quotas, .. } => quotas,
        SourceQuotas::Budget { .. } | SourceQuotas::Concurrency { .. } => &[],
    }
}

/// What comes of the quotas of one source. `stale`: why nothing may be decided on them.
pub fn judge(
    source: &SourceName,
    quotas: &SourceQuotas,
    stale: Option<&str>,
    ground: &Ground<'_>,
) -> Verdict {
    let mut verdict = Verdict::default();
    if let Some(stale) = stale {
        let mut accounts: BTreeSet<&AccountName> = match quotas {
            SourceQuotas::Budget { map, .. } => map.accounts.values().collect(),
            SourceQuotas::Concurrency { map, .. } => map.accounts.values().collect(),
            SourceQuotas::Rate { map, .. } => map.resources.values().collect(),
        };
        if matches!(quotas, SourceQuotas::Rate { .. }) {
            let below = accounts.iter().flat_map(|account| ground.tree.subtree(account));
            accounts = accounts.iter().copied().chain(below.map(|account| &account.account)).collect();
        }
        let undecided = |account: &&AccountName| ((*account).clone(), (source.clone(), stale.to_owned()));
        verdict.undecided = accounts.iter().filter(|account| !account.is_root()).map(undecided).collect();
        return verdict;
    }
    match quotas {
        SourceQuotas::Budget { quotas, map } => budget::judge(source, quotas, map, ground, &mut verdict),
        SourceQuotas::Concurrency { quotas, usages, map } => {
            concurrency::judge(source, quotas, usages, map, &mut verdict);
        }
        SourceQuotas::Rate { quotas, map } => {
            for quota in quotas {
                rate::judge(source, quota, map, ground, &mut verdict);
                reserve::judge(source, quota, map, ground, &mut verdict);
            }
        }
    }
    verdict
}

/// An empty wish that gives back what was there before.
fn wish(account: &AccountName, source: &SourceName, text: String) -> Wish {
    Wish { returns: true, ..Wish::new(account.clone(), source.clone(), text) }
}

/// As many as Slurm can hold, nothing below 0.
fn whole(value: Exact) -> u64 {
    u64::try_from(value.floor().max(0)).unwrap_or(u64::MAX - 2).min(u64::MAX - 2)
}

#[cfg(test)]
mod tests;
