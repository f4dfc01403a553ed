//! Slurm itself: programs, versions, daemons, what is enforced, how raw usage is counted, who may change what.

use std::collections::BTreeSet;

use super::{AgentUser, Answer, Facts, Finding, unanswered};
use crate::config::Config;
use crate::core::name::ClusterName;
use crate::core::tres::Tres;
use crate::slurm::{AdminLevel, Controller, KnownCluster, Settings, SlurmConfiguration, Versions};

/// Oldest and newest release that was tried, as (year, month).
const TRIED: ((u32, u32), (u32, u32)) = ((20, 11), (26, 5));
/// slurmctld brings the usage of running jobs up to date once in this time by default.
const CALC_PERIOD_DEFAULT_S: u64 = 300;

/// Everything about Slurm itself.
pub fn judge(facts: &Facts, config: &Config) -> Vec<Finding> {
    let mut findings = programs(facts, config);
    findings.extend(versions(&facts.versions));
    findings.extend(controllers(&facts.controllers));
    findings.push(cluster(&facts.clusters, &facts.configuration, &config.cluster.name));
    match &facts.configuration {
        Ok(configuration) => {
            findings.extend(accounting(configuration));
            findings.extend(enforcement(configuration));
            findings.push(tracked(configuration, &needed_tres(facts, config)));
            findings.extend(priority(configuration));
            findings.extend(raw_usage(configuration));
        }
        Err(reason) => {
            findings.push(unanswered("slurm.configuration", "slurmctld's configuration", reason));
        }
    }
    match &facts.database {
        Ok(database) => findings.extend(self::database(database)),
        Err(reason) => {
            findings.push(unanswered("slurmdbd.configuration", "slurmdbd's configuration", reason))
        }
    }
    findings.extend(privileges(facts, config));
    findings
}

fn programs(facts: &Facts, config: &Config) -> Vec<Finding> {
    const CHECK: &str = "slurm.programs";
    if facts.missing_programs.is_empty() {
        return vec![Finding::ok(CHECK, "sacct, sacctmgr, sreport, sshare and scontrol are there")];
    }
    let missing = |(path, problem): &(std::path::PathBuf, String)| {
        Finding::error(
            CHECK,
            format!("{}: {problem}", path.display()),
            "the agent cannot ask or change anything in Slurm without it",
            format!(
                "install Slurm's client programs (Debian: apt-get install slurm-client), or set cluster.bin_dir, now {}",
                config.cluster.bin_dir.display()
            ),
        )
    };
    facts.missing_programs.iter().map(missing).collect()
}

/// `22.05.8` is (22, 5).
fn release(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split(['.', '-']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

pub(super) fn versions(answer: &Answer<Versions>) -> Vec<Finding> {
    const CHECK: &str = "slurm.version";
    let versions = match answer {
        Ok(versions) => versions,
        Err(reason) => return vec![unanswered(CHECK, "the versions of Slurm", reason)],
    };
    let word = |version: &Option<String>| version.clone().unwrap_or_else(|| "unknown".to_owned());
    let found = format!(
        "programs {}, slurmctld {}, slurmdbd {}",
        word(&versions.client),
        word(&versions.controller),
        word(&versions.database)
    );
    let of = |version: &Option<String>| version.as_deref().and_then(release);
    let (client, controller, database) =
        (of(&versions.client), of(&versions.controller), of(&versions.database));
    let Some(client) = client else {
        return vec![Finding::warning(
            CHECK,
            found,
            "the programs' answers may be in a form that is not known",
            "run: sacctmgr --version",
        )];
    };
    if client < TRIED.0 || client > TRIED.1 {
        return vec![Finding::warning(
            CHECK,
            found,
            "this agent was tried with Slurm 20.11 to 26.05 only",
            "try --evaluate-now --dry-run and compare usage with sreport before the daemon is started",
        )];
    }
    if controller.is_some_and(|daemon| client > daemon) || database.is_some_and(|daemon| client > daemon) {
        return vec![Finding::warning(
            CHECK,
            found,
            "Slurm's daemons do not speak with programs newer than they are",
            "install the daemons' version of the client programs, or set cluster.bin_dir to them",
        )];
    }
    vec![Finding::ok(CHECK, found)]
}

pub(super) fn controllers(answer: &Answer<Vec<Controller>>) -> Vec<Finding> {
    const CHECK: &str = "slurm.controller";
    let controllers = match answer {
        Ok(controllers) => controllers,
        Err(reason) => return vec![unanswered(CHECK, "whether slurmctld is up", reason)],
    };
    let list: Vec<String> = controllers
        .iter()
        .map(|c| format!("{} on {} is {}", c.role, c.host, if c.is_up { "up" } else { "down" }))
        .collect();
    let found = list.join(", ");
    if !controllers.iter().any(|controller| controller.is_up) {
        return vec![Finding::error(
            CHECK,
            found,
            "limits and QOS are not enforced, raw usage cannot be read or reset",
            "run: systemctl status slurmctld",
        )];
    }
    if controllers.iter().any(|controller| !controller.is_up) {
        return vec![Finding::note(
            CHECK,
            found,
            "nothing, as long as the other one is up",
            "run: systemctl status slurmctld there",
        )];
    }
    vec![Finding::ok(CHECK, found)]
}

pub(super) fn cluster(
    known: &Answer<Vec<KnownCluster>>,
    configuration: &Answer<SlurmConfiguration>,
    name: &ClusterName,
) -> Finding {
    const CHECK: &str = "slurm.cluster";
    let known = match known {
        Ok(known) => known,
        Err(reason) => return unanswered(CHECK, "the clusters of slurmdbd", reason),
    };
    let names: Vec<&str> = known.iter().map(|cluster| cluster.name.as_str()).collect();
    let Some(own) = known.iter().find(|cluster| cluster.name.eq_ignore_ascii_case(name.as_str())) else {
        return Finding::error(
            CHECK,
            format!("slurmdbd does not know cluster {name}; it knows {}", names.join(", ")),
            "no job and no account can be found",
            "set cluster.name to one of those",
        );
    };
    let local = configuration.as_ref().ok().and_then(SlurmConfiguration::cluster_name);
    if let Some(local) = local.filter(|local| !local.eq_ignore_ascii_case(name.as_str())) {
        return Finding::error(
            CHECK,
            format!("the slurm.conf in use is that of cluster {local}, cluster.name is {name}"),
            "jobs and accounts would be those of one cluster, weights and raw usage those of another",
            "run the agent on a host of the cluster, or set cluster.slurm_conf to its slurm.conf",
        );
    }
    if own.control_port == 0 {
        return Finding::warning(
            CHECK,
            format!("slurmctld of {name} is not registered at slurmdbd"),
            "changes of accounts do not reach slurmctld until it registers",
            "run: scontrol ping; then look at slurmctld's log for slurmdbd",
        );
    }
    Finding::ok(CHECK, format!("slurmdbd knows cluster {name}"))
}

pub(super) fn accounting(configuration: &SlurmConfiguration) -> Vec<Finding> {
    const CHECK: &str = "slurm.accounting";
    match configuration.accounting_storage_type() {
        Some(kind) if kind.ends_with("slurmdbd") => vec![Finding::ok(CHECK, kind)],
        other => vec![Finding::error(
            CHECK,
            format!("AccountingStorageType is {}", other.unwrap_or("not set")),
            "without slurmdbd there are no accounts, limits or job records",
            "slurm.conf: AccountingStorageType=accounting_storage/slurmdbd",
        )],
    }
}

pub(super) fn enforcement(configuration: &SlurmConfiguration) -> Vec<Finding> {
    const CHECK: &str = "slurm.enforce";
    const FIX: &str =
        "slurm.conf: AccountingStorageEnforce=associations,limits,qos,safe; then restart slurmctld";
    let set = configuration.enforce();
    // `all` sets every one but nojobs and nosteps (slurm.conf); `safe` implies limits, and both imply associations.
    let all = set.contains("all");
    let has = |name: &str| all || set.contains(name);
    let list: Vec<&str> = set.iter().map(String::as_str).collect();
    let found = format!(
        "AccountingStorageEnforce is {}",
        if list.is_empty() { "none".to_owned() } else { list.join(",") }
    );
    let mut findings = Vec::new();
    if !has("limits") && !has("safe") {
        findings.push(Finding::error(
            CHECK,
            format!("{found}: limits are not enforced"),
            "neither limits of accounts nor a QOS that blocks have any effect",
            FIX,
        ));
    }
    if !has("qos") {
        findings.push(Finding::error(
            CHECK,
            format!("{found}: the QOS lists of accounts are not enforced"),
            "users may go on in any QOS whatever the agent leaves in their account's list",
            FIX,
        ));
    }
    if !has("safe") {
        findings.push(Finding::warning(
            CHECK,
            format!("{found}: safe is not set"),
            "a running job is killed when its account reaches a GrpTRESMins limit",
            FIX,
        ));
    } else {
        findings.push(Finding::note(
            CHECK,
            found,
            "with safe, jobs without a time limit never start in an account that has a GrpTRESMins limit",
            "give the partitions a DefaultTime or MaxTime",
        ));
    }
    findings
}

/// TRES of the components that a policy or an allocation speaks of; of all components where nothing is known.
fn needed_tres(facts: &Facts, config: &Config) -> BTreeSet<Tres> {
    let mut names: BTreeSet<String> = BTreeSet::new();
    for (_, snapshot) in &facts.offers {
        let policies = snapshot.policies.iter().flat_map(|policy| policy.component_limits.keys());
        let allocations = snapshot.allocations.iter().flat_map(|allocation| allocation.limits.keys());
        names.extend(policies.chain(allocations).map(|name| name.to_ascii_lowercase()));
    }
    let components = config.components.0.iter();
    let used = components.filter(|(name, _)| names.is_empty() || names.contains(*name));
    used.map(|(_, component)| component.tres.clone()).collect()
}

pub(super) fn tracked(configuration: &SlurmConfiguration, needed: &BTreeSet<Tres>) -> Finding {
    const CHECK: &str = "slurm.tres";
    let tracked = configuration.accounting_storage_tres();
    let missing: Vec<&str> = needed.difference(&tracked).map(Tres::as_str).collect();
    if missing.is_empty() {
        let needed: Vec<&str> = needed.iter().map(Tres::as_str).collect();
        return Finding::ok(CHECK, format!("AccountingStorageTRES has {}", needed.join(", ")));
    }
    Finding::error(
        CHECK,
        format!("AccountingStorageTRES lacks {}", missing.join(", ")),
        "Slurm does not record what jobs use of it: it counts as 0, and a limit on it cannot be set",
        format!(
            "slurm.conf: AccountingStorageTRES={} and restart slurmctld, or correct [components]",
            missing.join(",")
        ),
    )
}

pub(super) fn priority(configuration: &SlurmConfiguration) -> Vec<Finding> {
    let mut findings = Vec::new();
    match configuration.priority_type() {
        Some(kind) if kind.ends_with("multifactor") => findings.push(Finding::ok("slurm.priority", kind)),
        other => {
            findings.push(Finding::warning(
                "slurm.priority",
                format!("PriorityType is {}", other.unwrap_or("not set")),
                "fairshare and QOS priority do nothing, and GrpTRESMins limits are not enforced",
                "slurm.conf: PriorityType=priority/multifactor",
            ));
            return findings;
        }
    }
    let weight = |name: &str| configuration.0.get(name).and_then(|text| text.parse::<u64>().ok());
    for (check, name, consequence) in [
        ("slurm.qos_weight", "PriorityWeightQOS", "a QOS of lower priority slows nobody down"),
        ("slurm.fairshare_weight", "PriorityWeightFairShare", "fairshare has no effect"),
    ] {
        findings.push(match weight(name) {
            Some(0) => Finding::warning(
                check,
                format!("{name} is 0"),
                consequence,
                format!("slurm.conf: {name}=1000 or more"),
            ),
            Some(value) => Finding::ok(check, format!("{name} is {value}")),
            None => Finding::note(check, format!("{name} is not known"), "it was not checked", ""),
        });
    }
    let flags: Vec<String> = configuration.priority_flags().into_iter().collect();
    let maximum: Vec<&String> = flags.iter().filter(|flag| flag.starts_with("max_tres")).collect();
    findings.push(if maximum.is_empty() {
        let list = if flags.is_empty() { "none".to_owned() } else { flags.join(",") };
        Finding::ok("slurm.priority_flags", format!("PriorityFlags: {list}"))
    } else {
        Finding::warning(
            "slurm.priority_flags",
            format!("PriorityFlags has {}", maximum[0]),
            "Slurm bills the largest TRES of a job where policies add all of them up: a limit on billing means something else",
            "slurm.conf: take the flag out of PriorityFlags, or use policies without TRES billing",
        )
    });
    findings
}

pub(super) fn raw_usage(configuration: &SlurmConfiguration) -> Vec<Finding> {
    if !configuration.priority_type().is_some_and(|kind| kind.ends_with("multifactor")) {
        return Vec::new();
    }
    const BUDGET: &str =
        "the counters that GrpTRESMins is compared with shrink by themselves: the limit is no fixed budget";
    let mut findings = vec![match configuration.decay_half_life_s() {
        Some(0) => Finding::ok("slurm.decay", "PriorityDecayHalfLife is 0: raw usage does not decay"),
        seconds => Finding::warning(
            "slurm.decay",
            match seconds {
                Some(seconds) => format!("PriorityDecayHalfLife is {seconds} s"),
                None => "PriorityDecayHalfLife is not known".to_owned(),
            },
            BUDGET,
            "slurm.conf: PriorityDecayHalfLife=0 together with PriorityUsageResetPeriod=NONE; then scontrol reconfigure",
        ),
    }];
    findings.push(match configuration.usage_reset_period() {
        Some(period) if period.eq_ignore_ascii_case("none") => {
            Finding::ok("slurm.usage_reset", "PriorityUsageResetPeriod is NONE")
        }
        period => Finding::warning(
            "slurm.usage_reset",
            format!("PriorityUsageResetPeriod is {}", period.unwrap_or("not known")),
            "Slurm zeroes the raw usage of every account at its own times, whatever the policies' periods are",
            "slurm.conf: PriorityUsageResetPeriod=NONE; then scontrol reconfigure",
        ),
    });
    findings.push(match configuration.calc_period_s() {
        Some(seconds) if seconds > CALC_PERIOD_DEFAULT_S => Finding::note(
            "slurm.calc_period",
            format!("PriorityCalcPeriod is {seconds} s"),
            "the raw usage of running jobs, and so GrpTRESMins, lags behind by as much",
            "slurm.conf: PriorityCalcPeriod=5",
        ),
        Some(seconds) => Finding::ok("slurm.calc_period", format!("PriorityCalcPeriod is {seconds} s")),
        None => {
            Finding::note("slurm.calc_period", "PriorityCalcPeriod is not known", "it was not checked", "")
        }
    });
    findings
}

pub(super) fn database(settings: &Settings) -> Vec<Finding> {
    if settings.is_empty() {
        return vec![Finding::error(
            "slurmdbd.answer",
            "slurmdbd does not answer",
            "accounts, QOS and job records cannot be read; nothing is changed",
            "run: systemctl status slurmdbd",
        )];
    }
    let mut findings = vec![Finding::ok("slurmdbd.answer", "slurmdbd answers")];
    let set = |name: &str| settings.get(name).filter(|value| !value.eq_ignore_ascii_case("none"));
    if let Some(after) = set("PurgeJobAfter") {
        findings.push(Finding::note(
            "slurmdbd.purge",
            format!("PurgeJobAfter is {after}"),
            "older job records are gone before a new ledger can read them; the ledger keeps what it has read",
            "keep it longer than two of the policies' periods",
        ));
    }
    let range = settings.get("MaxQueryTimeRange").filter(|value| !value.eq_ignore_ascii_case("unlimited"));
    if let Some(range) = range {
        findings.push(Finding::note(
            "slurmdbd.query_range",
            format!("MaxQueryTimeRange is {range}"),
            "longer windows of sacct are refused, except to operators and administrators",
            "give the agent's user an AdminLevel, or set limits.window below it",
        ));
    }
    if settings.get("DisableRollups").is_some_and(|value| value.eq_ignore_ascii_case("yes")) {
        findings.push(Finding::note(
            "slurmdbd.rollups",
            "DisableRollups is set",
            "sreport has no data, so the hourly audit compares nothing",
            "",
        ));
    }
    findings
}

/// `slurm(64030)` is `slurm`.
fn user_of(text: &str) -> &str {
    text.split('(').next().unwrap_or(text)
}

fn privileges(facts: &Facts, config: &Config) -> Vec<Finding> {
    let configuration = facts.configuration.as_ref().ok();
    let private: BTreeSet<String> = configuration
        .map(SlurmConfiguration::private_data)
        .into_iter()
        .chain(facts.database.as_ref().ok().map(|settings| settings.items("PrivateData")))
        .flatten()
        .collect();
    let slurm_user = configuration.and_then(|known| known.0.get("SlurmUser")).map(user_of);
    let level = match &facts.admin_level {
        _ if facts.user.is_root || slurm_user == Some(&facts.user.name) => Some(AdminLevel::Administrator),
        Ok(level) => *level,
        Err(reason) => {
            let question = format!("the AdminLevel of {}", facts.user.name);
            return vec![unanswered("user.admin_level", &question, reason)];
        }
    };
    let mut findings = vec![admin_level(&facts.user, level, facts.resets_wanted(), &config.cluster.name)];
    if level.unwrap_or(AdminLevel::None) < AdminLevel::Operator && !private.is_empty() {
        let list: Vec<&str> = private.iter().map(String::as_str).collect();
        findings.push(Finding::error(
            "user.private_data",
            format!("PrivateData is {} and {} has no AdminLevel", list.join(","), facts.user.name),
            "the agent sees its own jobs and accounts only: everybody's usage would be 0",
            format!("run: sacctmgr -i modify user where name={} set adminlevel=Operator", facts.user.name),
        ));
    }
    if facts.resets_wanted() {
        findings.push(match &facts.raw_usage {
            Ok(_) => Finding::ok("slurm.raw_usage", "sshare shows raw usage"),
            Err(reason) => Finding::warning(
                "slurm.raw_usage",
                format!("raw usage cannot be read: {reason}"),
                "raw usage is not reset when a period begins: a reset that cannot be seen is not made",
                "run: sshare -a -o Account,RawUsage",
            ),
        });
    }
    findings
}

/// Limits need Operator, resets Administrator (facts of 20.11 and 26.05; root and SlurmUser may do everything).
pub(super) fn admin_level(
    user: &AgentUser,
    level: Option<AdminLevel>,
    resets: bool,
    cluster: &ClusterName,
) -> Finding {
    const CHECK: &str = "user.admin_level";
    let (name, because) = (&user.name, user.because);
    let needed = if resets { AdminLevel::Administrator } else { AdminLevel::Operator };
    let set = format!("run: sacctmgr -i modify user where name={name} set adminlevel={needed}");
    match level {
        None => Finding::error(
            CHECK,
            format!("slurmdbd does not know user {name} ({because})"),
            "the agent may not change anything",
            format!(
                "run: sacctmgr -i add user name={name} account=root cluster={cluster} adminlevel={needed}"
            ),
        ),
        Some(level) if level < AdminLevel::Operator => Finding::error(
            CHECK,
            format!("AdminLevel of {name} ({because}) is {level}"),
            "the agent may not change fairshare, limits or QOS",
            set,
        ),
        Some(level) if level < needed => Finding::warning(
            CHECK,
            format!("AdminLevel of {name} ({because}) is {level}"),
            "limits and QOS can be set, but raw usage is not reset when a period begins, as policies want it",
            set,
        ),
        Some(level) => Finding::ok(CHECK, format!("{name} ({because}) may do what {level} may")),
    }
}
