//! What is granted, against what is there: accounts, and policies that Slurm cannot mean as they are written.

use std::collections::{BTreeMap, BTreeSet};

use super::{Facts, Finding, Severity, unanswered};
use crate::agent::agreement::{enforcement, weights_apart};
use crate::agent::counters;
use crate::config::{Config, Enforcement};
use crate::core::allocation::Allocation;
use crate::core::association::{Observed, TresLimits};
use crate::core::component::{Components, Unit};
use crate::core::desired::ancestors;
use crate::core::evaluate::{
    Decided, Decision, PartitionWeights, QosRules, Rules, UsageFacts, evaluate, weight_of,
};
use crate::core::exact::Exact;
use crate::core::name::AccountName;
use crate::core::period::{Period, PeriodKind};
use crate::core::policy::{LimitType, Policy};
use crate::slurm::Partition;

/// Names that are shown of a long list.
const SHOWN_MAX: usize = 10;
/// First release whose sreport takes `_` and `%` in account names for wildcards.
const LIKE_BUG_SINCE: (u32, u32) = (23, 11);

/// Everything about accounts and policies.
pub fn judge(facts: &Facts, config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    let allocations: Vec<&Allocation> =
        facts.offers.iter().flat_map(|(_, snapshot)| &snapshot.allocations).collect();
    let granted: BTreeSet<&AccountName> = allocations.iter().map(|allocation| &allocation.account).collect();
    match &facts.observed {
        Ok(observed) => {
            findings.push(exist(&granted, observed, config.cluster.name.as_str()));
            findings.extend(allowed(&granted, observed, config));
            findings.extend(odd_rows(observed));
        }
        Err(reason) => findings.push(unanswered("accounts.exist", "the accounts", reason)),
    }
    let controller = facts.versions.as_ref().ok().and_then(|versions| versions.controller.as_deref());
    findings.extend(wildcards(&granted, controller));
    findings.extend(policies(facts, config));
    findings
}

fn short(names: &[&str]) -> String {
    let shown = names.iter().take(SHOWN_MAX).copied().collect::<Vec<_>>().join(", ");
    match names.len().checked_sub(SHOWN_MAX) {
        None | Some(0) => shown,
        Some(more) => format!("{shown} and {more} more"),
    }
}

pub(super) fn exist(granted: &BTreeSet<&AccountName>, observed: &Observed, cluster: &str) -> Finding {
    const CHECK: &str = "accounts.exist";
    let missing: Vec<&str> = granted
        .iter()
        .filter(|name| !observed.accounts.contains_key(**name))
        .map(|name| name.as_str())
        .collect();
    if granted.is_empty() {
        return Finding::note(
            CHECK,
            "no allocation maps to an account",
            "there is nothing to do",
            "give resources a backend_id at the portal, or write [[allocation]] entries",
        );
    }
    if missing.is_empty() {
        return Finding::ok(CHECK, format!("all {} accounts with an allocation exist", granted.len()));
    }
    Finding::error(
        CHECK,
        format!("accounts with an allocation that do not exist: {}", short(&missing)),
        "nothing is decided on them",
        format!(
            "run: sacctmgr -i add account {} cluster={cluster} (or correct the backend_id)",
            missing.join(",")
        ),
    )
}

/// Allocations of accounts that the configuration keeps the agent away from.
pub(super) fn allowed(
    granted: &BTreeSet<&AccountName>,
    observed: &Observed,
    config: &Config,
) -> Vec<Finding> {
    const CHECK: &str = "accounts.allowed";
    let there = granted.iter().filter(|name| observed.accounts.contains_key(**name));
    let refused: Vec<String> =
        there.filter_map(|name| config.accounts.allows(name, ancestors(name, observed)).err()).collect();
    if refused.is_empty() {
        return vec![Finding::ok(CHECK, "no allocation is of an account that may not be changed")];
    }
    vec![Finding::warning(
        CHECK,
        refused.iter().take(SHOWN_MAX).cloned().collect::<Vec<_>>().join("; "),
        "nothing is decided on these accounts although they have an allocation",
        "correct [accounts], or take the allocation away",
    )]
}

fn odd_rows(observed: &Observed) -> Option<Finding> {
    (observed.rejected > 0).then(|| {
        Finding::note(
            "accounts.odd",
            format!("{} associations have names or values that are not understood", observed.rejected),
            "they are never acted on, and neither is what is below such an account",
            "run: sacctmgr show assoc; rename what has blanks, |, quotes or line breaks in its name",
        )
    })
}

/// sreport 23.11 and later compares lineages with LIKE (tried on 26.05).
pub(super) fn wildcards(granted: &BTreeSet<&AccountName>, controller: Option<&str>) -> Vec<Finding> {
    let mut parts = controller.unwrap_or_default().split('.').map(str::parse::<u32>);
    let release = match (parts.next(), parts.next()) {
        (Some(Ok(year)), Some(Ok(month))) => (year, month),
        _ => return Vec::new(),
    };
    let odd: Vec<&str> =
        granted.iter().map(|name| name.as_str()).filter(|name| name.contains(['_', '%'])).collect();
    if release < LIKE_BUG_SINCE || odd.is_empty() {
        return Vec::new();
    }
    vec![Finding::note(
        "accounts.wildcards",
        format!("account names with _ : {}", short(&odd)),
        "sreport of this release may count a sibling's usage with theirs; the audit can report drift that is none",
        "",
    )]
}

/// Every allocation is evaluated with no usage at all: what is said then is said of the policy, not of the use.
fn policies(facts: &Facts, config: &Config) -> Vec<Finding> {
    let rules = rules(facts.partitions.as_ref().ok(), config);
    let mut said: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    let mut undecidable: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut judged = 0;
    let mut missed: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    let mut counted = BTreeMap::new();
    for (source, snapshot) in &facts.offers {
        let listens = enforcement(config, source) != Enforcement::Agent;
        for policy in &snapshot.policies {
            for allocation in &snapshot.allocations {
                judged += 1;
                let period = Period::containing(policy.period, facts.now, &config.cluster.time_zone);
                let period = period.unwrap_or_else(|_| Period {
                    kind: PeriodKind::Total,
                    name: "total".into(),
                    start: facts.now,
                    end: None,
                });
                let nothing = UsageFacts::default();
                let account = allocation.account.to_string();
                match evaluate(policy, allocation, Ok(&nothing), &period, &rules) {
                    Decision::Decided(decided) => {
                        counted.extend(older_than_budget(facts, &decided, config));
                        let apart = weights_apart(policy, decided.components.keys(), &config.components);
                        if let Some(text) = apart.filter(|_| listens) {
                            missed.entry(text).or_default().insert(source.as_str());
                        }
                        let fix = meaning_fix(policy, decided.components.keys(), &config.components);
                        for text in &decided.findings {
                            said.entry((text.clone(), fix.clone())).or_default().push(account.clone());
                        }
                    }
                    Decision::Undecided { reason, .. } => {
                        undecidable.entry(reason).or_default().push(account)
                    }
                }
            }
        }
    }
    let mut findings: Vec<Finding> = missed
        .into_iter()
        .map(|(text, sources)| {
            let of: Vec<&str> = sources.into_iter().collect();
            let consequence = format!("commands and percentages of {} differ from the agent's", short(&of));
            Finding::note("policies.weights", text, consequence, "rename the weight at the portal")
        })
        .collect();
    findings.extend(counted.into_values());
    for ((text, fix), accounts) in said {
        let of: Vec<&str> = accounts.iter().map(String::as_str).collect();
        let consequence = format!("accounts {}", short(&of));
        findings.push(Finding::warning("policies.meaning", text, consequence, fix));
    }
    for (text, accounts) in undecidable {
        let of: Vec<&str> = accounts.iter().map(String::as_str).collect();
        findings.push(Finding::error(
            "policies.decidable",
            text,
            format!("nothing is decided on accounts {}", short(&of)),
            "correct [components], or the policy or limits at the portal",
        ));
    }
    if findings.iter().all(|finding| finding.severity == Severity::Note) && judged > 0 {
        findings.push(Finding::ok("policies.meaning", "Slurm can mean what the policies say"));
    }
    findings
}

/// Raw usage that leaves no room under the limit in force, else under the one that the policy will set. By account and TRES.
fn older_than_budget(
    facts: &Facts,
    decided: &Decided,
    config: &Config,
) -> BTreeMap<(String, String), Finding> {
    let of = |limits: &TresLimits| limits.get(&LimitType::GrpTRESMins).cloned();
    let there = facts.observed.as_ref().ok().and_then(|observed| observed.accounts.get(&decided.account));
    let limits = there.and_then(|there| of(&there.row.limits)).or_else(|| of(&decided.limits));
    let counter = facts.raw_usage.as_ref().ok().and_then(|counters| counters.get(&decided.account));
    let (Some(limits), Some(counter)) = (limits, counter) else { return BTreeMap::new() };
    let account = &decided.account;
    let found = counters::used_up(&limits, counter).into_iter().map(|reached| {
        let finding = Finding::note(
            "accounts.raw_usage",
            counters::finding(account, &reached),
            "its jobs wait; where its budget is not used up (see usage), the counter is older than the budget",
            format!("to begin anew: {}", counters::remedy(account, &config.cluster.name)),
        );
        ((account.to_string(), reached.0.to_string()), finding)
    });
    found.collect()
}

/// What would make Slurm mean the policy.
fn meaning_fix<'a>(
    policy: &Policy,
    components: impl Iterator<Item = &'a String>,
    known: &Components,
) -> String {
    if !policy.billing {
        return "another limit_type at the portal".to_owned();
    }
    match billing_weights(policy, components, known) {
        Some(weights) => {
            format!(
                "slurm.conf, every partition: TRESBillingWeights={weights}; or other weights at the portal"
            )
        }
        None => "other weights at the portal, or TRESBillingWeights of the partitions like them".to_owned(),
    }
}

/// The policy's weights as slurm.conf writes them: per hour of one TRES, memory per GB. `None` when one of them has no end
/// as a decimal number.
pub(super) fn billing_weights<'a>(
    policy: &Policy,
    components: impl Iterator<Item = &'a String>,
    known: &Components,
) -> Option<String> {
    let mut list = Vec::new();
    for name in components {
        let component = known.get(name)?;
        let Some(weight) = weight_of(&policy.weights, name, Some(&component.tres)) else { continue };
        let (unit_s, letter) = if component.tres.is_mem() {
            (Unit::GbH.tres_seconds(), "G")
        } else {
            (Unit::H.tres_seconds(), "")
        };
        let per = weight.times(Exact::fraction(unit_s, component.unit.tres_seconds())?)?.to_string();
        if per.contains('/') {
            return None;
        }
        list.push(format!("{}={per}{letter}", component.tres));
    }
    Some(list.join(","))
}

fn rules(partitions: Option<&Vec<Partition>>, config: &Config) -> Rules {
    let weights = partitions.and_then(|partitions| {
        let one = |partition: &Partition| match partition.weights_text {
            Some(_) => Some((partition.name.clone(), partition.weights.clone()?)),
            None => Some((partition.name.clone(), BTreeMap::new())),
        };
        partitions.iter().map(one).collect::<Option<_>>().map(|partitions| PartitionWeights { partitions })
    });
    let qos = &config.qos;
    Rules {
        components: config.components.clone(),
        qos: QosRules {
            normal: qos.normal.clone(),
            slowdown: qos.slowdown.clone(),
            blocked: qos.blocked.clone(),
            ladder: qos.ladder.clone(),
            lever: qos.lever,
        },
        partitions: weights,
    }
}
