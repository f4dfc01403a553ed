//! The QOS that the agent puts accounts into: whether they are there, and whether they do what their levels mean.

use std::collections::{BTreeMap, BTreeSet};

use super::{Facts, Finding, unanswered};
use crate::config::{Config, Qos};
use crate::core::evaluate::Lever;
use crate::core::exact::Exact;
use crate::core::name::QosName;
use crate::core::policy::{LimitType, Policy, QosStrategy};
use crate::core::tres::Tres;
use crate::slurm::ObservedQos;

type Known = BTreeMap<QosName, ObservedQos>;

/// Everything about QOS.
pub fn judge(facts: &Facts, config: &Config) -> Vec<Finding> {
    let known = match &facts.qos {
        Ok(known) => known,
        Err(reason) => return vec![unanswered("qos.exist", "the QOS", reason)],
    };
    let progressive = facts.policies().any(|policy| policy.strategy == QosStrategy::Progressive);
    let names = in_use(&config.qos, progressive);
    let mut findings = vec![exist(&names, known)];
    findings.extend(slows(&config.qos, progressive, known));
    findings.extend(blocks(&config.qos, known));
    findings.extend(usage_factor(&names, known));
    let limited: BTreeSet<Tres> = facts.policies().flat_map(|policy| limited_tres(policy, config)).collect();
    findings.extend(overriding(&limited, known));
    findings
}

/// QOS names that some decision can ask for.
fn in_use(qos: &Qos, progressive: bool) -> BTreeSet<QosName> {
    let mut names = BTreeSet::from([qos.normal.clone(), qos.slowdown.clone()]);
    if qos.lever == Lever::Qos {
        names.insert(qos.blocked.clone());
    }
    if progressive {
        names.extend(qos.ladder.iter().map(|rung| rung.qos.clone()));
    }
    names
}

pub(super) fn exist(names: &BTreeSet<QosName>, known: &Known) -> Finding {
    let missing: Vec<&str> =
        names.iter().filter(|name| !known.contains_key(*name)).map(QosName::as_str).collect();
    if missing.is_empty() {
        let list: Vec<&str> = names.iter().map(QosName::as_str).collect();
        return Finding::ok("qos.exist", format!("QOS {} exist", list.join(", ")));
    }
    Finding::error(
        "qos.exist",
        format!("QOS {} do not exist", missing.join(", ")),
        "accounts cannot be put into them",
        format!("run: sacctmgr -i add qos {} (or correct [qos])", missing.join(",")),
    )
}

/// Each stricter QOS must have a lower priority than the milder one before it.
pub(super) fn slows(qos: &Qos, progressive: bool, known: &Known) -> Vec<Finding> {
    const CHECK: &str = "qos.slowdown";
    let mut steps = vec![&qos.normal, &qos.slowdown];
    if progressive {
        steps = vec![&qos.normal];
        let blocks = |name: &QosName| *name == qos.blocked;
        steps.extend(qos.ladder.iter().map(|rung| &rung.qos).filter(|name| !blocks(name)));
    }
    let mut findings = Vec::new();
    for pair in steps.windows(2) {
        let [milder, stricter] = [pair[0], pair[1]];
        let (Some(above), Some(below)) = (known.get(milder), known.get(stricter)) else { continue };
        if below.priority < above.priority {
            findings.push(Finding::ok(
                CHECK,
                format!("{stricter} (priority {}) is below {milder} ({})", below.priority, above.priority),
            ));
        } else {
            findings.push(Finding::warning(
                CHECK,
                format!("{stricter} has priority {}, {milder} has {}", below.priority, above.priority),
                format!("an account in {stricter} is not slowed down"),
                format!(
                    "run: sacctmgr -i modify qos where name={milder} set priority={}",
                    below.priority + 1000
                ),
            ));
        }
    }
    let refusing = [&qos.normal, &qos.slowdown]
        .into_iter()
        .filter(|name| known.get(*name).is_some_and(ObservedQos::refuses_submission));
    findings.extend(refusing.map(|name| {
        Finding::error(
            CHECK,
            format!("QOS {name} refuses every submission"),
            "accounts that are within their budget or slowed down are blocked",
            format!(
                "run: sacctmgr -i modify qos where name={name} set MaxSubmitJobsPerUser=-1 \
                 MaxSubmitJobsPerAccount=-1 GrpSubmitJobs=-1"
            ),
        )
    }));
    findings
}

/// A limit of 0 on submission refuses; one on running jobs only makes them wait (tried on 22.05.8).
pub(super) fn blocks(qos: &Qos, known: &Known) -> Vec<Finding> {
    const CHECK: &str = "qos.blocked";
    let name = &qos.blocked;
    if qos.lever == Lever::Submit {
        let found = "accounts are blocked by GrpSubmitJobs=0 (qos.lever = \"submit\")";
        return vec![Finding::ok(CHECK, found)];
    }
    let Some(blocked) = known.get(name) else { return Vec::new() };
    let fix = format!("run: sacctmgr -i modify qos where name={name} set MaxSubmitJobsPerUser=0");
    let waits =
        [blocked.grp_jobs, blocked.max_jobs_per_user, blocked.max_jobs_per_account].contains(&Some(0));
    vec![if blocked.refuses_submission() {
        Finding::ok(CHECK, format!("QOS {name} refuses every submission"))
    } else if waits {
        Finding::warning(
            CHECK,
            format!("QOS {name} accepts jobs and lets none of them start"),
            "jobs of blocked accounts wait, and start when the account is let go",
            fix,
        )
    } else {
        Finding::error(CHECK, format!("QOS {name} blocks nothing"), "blocked accounts go on as before", fix)
    }]
}

pub(super) fn usage_factor(names: &BTreeSet<QosName>, known: &Known) -> Vec<Finding> {
    const CHECK: &str = "qos.usage_factor";
    let is_one = |text: &str| Exact::parse(text).is_ok_and(|factor| factor == Exact::ONE);
    let others: Vec<String> = names
        .iter()
        .filter_map(|name| Some((name, known.get(name)?)))
        .filter(|(_, qos)| !is_one(&qos.usage_factor))
        .map(|(name, qos)| format!("{name} {}", qos.usage_factor))
        .collect();
    if others.is_empty() {
        return vec![Finding::ok(CHECK, "UsageFactor is 1")];
    }
    vec![Finding::warning(
        CHECK,
        format!("UsageFactor of QOS is not 1: {}", others.join(", ")),
        "Slurm multiplies raw usage with it: GrpTRESMins is compared with other numbers than the agent's, which are \
         those of sacct",
        "run: sacctmgr -i modify qos where name=NAME set UsageFactor=1",
    )]
}

/// TRES that a policy's GrpTRESMins limit is on.
fn limited_tres(policy: &Policy, config: &Config) -> Vec<Tres> {
    if policy.limit_type != LimitType::GrpTRESMins {
        return Vec::new();
    }
    if policy.billing && !policy.weights.is_empty() {
        return vec![Tres::billing()];
    }
    config.components.0.values().map(|component| component.tres.clone()).collect()
}

/// A limit of a QOS stands before the association's on the same TRES (resource limits page).
pub(super) fn overriding(limited: &BTreeSet<Tres>, known: &Known) -> Vec<Finding> {
    const CHECK: &str = "qos.limits";
    let mut findings = Vec::new();
    for (name, qos) in known {
        let tres: Vec<&str> =
            qos.grp_tres_mins.keys().filter(|tres| limited.contains(*tres)).map(Tres::as_str).collect();
        if !tres.is_empty() {
            findings.push(Finding::warning(
                CHECK,
                format!("QOS {name} has a GrpTRESMins of its own on {}", tres.join(", ")),
                "it stands before the accounts' limits on the same TRES for every job in that QOS",
                format!(
                    "run: sacctmgr -i modify qos where name={name} set GrpTRESMins={}",
                    tres.iter().map(|tres| format!("{tres}=-1")).collect::<Vec<_>>().join(",")
                ),
            ));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok(CHECK, "no QOS overrides the accounts' limits"));
    }
    findings
}
