//! Sources of quotas (Waldur, Nomad, DataRobot) against the embedded server: what they say becomes facts, stands while they are
//! down, and is known at once where a server can push it. The last part runs the real program.

#[path = "support/bench.rs"]
mod bench;
mod support;

#[path = "quota_sources/program.rs"]
mod program;
#[path = "quota_sources/said.rs"]
mod said;
#[path = "quota_sources/watched.rs"]
mod watched;

use std::time::Duration;

use serde_json::{Value, json};
use slurm_site_agent::core::exact::Exact;
use slurm_site_agent::core::name::SourceName;
use slurm_site_agent::core::quota::Bound;
use slurm_site_agent::core::quota_map::SourceQuotas;
use slurm_site_agent::emulator::central::CentralState;
use slurm_site_agent::emulator::central::nomad::{QuotaLimit, QuotaSpec, RegionLimit};
use support::TOKEN;

const HOUR: i64 = 3600;
/// Longest time that an awaited thing may take; what it takes is a small part of it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Servers with a quota of each kind for account physics, and others for nobody here.
fn servers() -> Value {
    json!({
        "users": [{"username": "agent", "token": TOKEN, "role": "staff"}],
        "resources": [{"name": "physics", "limits": {"cpu": 1000}}, {"name": "chemistry", "limits": {"cpu": 1}}],
        "quotas": [
            {"scope": "physics", "name": "nc_cpu_usage", "limit": 600, "usage": 20.5, "threshold": 480},
            {"scope": "physics", "name": "nc_gpu_usage"},
            {"scope": "physics", "name": "storage", "limit": 5},
            {"scope": "/api/projects/00000000000040008000000000000001/", "name": "nc_cpu_usage", "limit": 1}
        ],
        "nomad": {
            "tokens": [{"secret": TOKEN, "may_write": true}],
            "quotas": [
                {"Name": "research", "Limits": [{"Region": "global", "RegionLimit": {"Cores": 2}}]},
                {"Name": "nobody", "Limits": []}
            ],
            "usages": [{"Name": "research", "Used": [{"Region": "global", "RegionLimit": {"Cores": 1}}]}]
        },
        "datarobot": {
            "tokens": [{"secret": TOKEN, "may_write": true}],
            "quotas": [
                {"id": "65f0c2aa9d3b7c0012ab34cd", "resourceId": "dep-1", "defaultRules": [{"rule": "requests", "limit": 3}],
                 "policies": [{"consumerId": "u1", "consumerType": "user", "reserved": 0.25,
                               "rules": [{"rule": "token", "limit": 60, "window": "hour"}]}],
                 "saturationThreshold": 0.8},
                {"id": "65f0c2aa9d3b7c0012ab34ce", "resourceId": "elsewhere", "defaultRules": []}
            ]
        }
    })
}

const WALDUR: &str = "[[source]]\nname = \"waldur\"\nkind = \"waldur-quota\"\nurl = \"URL/api/\"\n\
                      token_file = \"FOLDER/token\"\n";
const NOMAD: &str = "[[source]]\nname = \"nomad\"\nkind = \"nomad\"\nurl = \"URL/nomad/\"\ntoken_file = \"FOLDER/token\"\n\
                     accounts = { research = \"physics\" }\npoll_interval = \"1h\"\nshared = true\n";
const ROBOT: &str = "[[source]]\nname = \"robot\"\nkind = \"datarobot\"\nurl = \"URL/\"\ntoken_file = \"FOLDER/token\"\n\
                     resources = { dep-1 = \"physics\" }\nusers = { u1 = \"alice\" }\n";

fn name(text: &str) -> SourceName {
    SourceName::parse(text).expect("a name")
}

fn most(number: i128) -> Bound {
    Bound::AtMost(Exact::whole(number))
}

/// Cores that Nomad grants.
fn cores(said: &SourceQuotas) -> Bound {
    match said {
        SourceQuotas::Concurrency { quotas, .. } => quotas[0].regions["global"].all.cores,
        other => panic!("{other:?} is not of Nomad"),
    }
}

/// Changes the quota at the server, as somebody else would.
fn set_cores(state: &mut CentralState, cores: i64) {
    let region_limit = RegionLimit { cores, ..RegionLimit::default() };
    let limit = QuotaLimit { region: "global".into(), region_limit, ..QuotaLimit::default() };
    state.nomad.put(QuotaSpec { name: "research".into(), limits: vec![limit], ..QuotaSpec::default() });
}
