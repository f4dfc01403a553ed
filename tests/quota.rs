//! Every `quota` verb through the real program against the embedded servers of Waldur, Nomad and DataRobot.

mod support;

use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use slurm_site_agent::emulator::central::{CentralState, Fault, FaultKind};
use support::{Portal, TOKEN};

const BIO_CPU: &str = "6ad5f49d6d6c49648573b2b71f44a42b";
const NOTHING: &str = "00000000000040008000000000000009";
const ROBOT: &str = "64a7f0c2e1b3d4a5f6071829";

/// Three servers on 2026-11-22 that have quotas of bio42, and others.
fn seed() -> CentralState {
    let state = json!({
        "clock": {"fixed": "2026-11-22T10:00:00Z"},
        "users": [{"username": "agent", "token": TOKEN, "role": "staff"}],
        "resources": [{"name": "bio42", "limits": {"cpu": 1000}}, {"name": "chem7"}],
        "quotas": [
            {"uuid": BIO_CPU, "scope": "bio42", "name": "nc_cpu_usage", "limit": 60000, "usage": 15000.5, "threshold": 48000,
             "history": [
                {"at": "2026-11-10T00:00:00Z", "limit": 30000, "usage": 2000},
                {"at": "2026-11-16T00:00:00Z", "limit": 30000, "usage": 8000, "threshold": 48000}
             ]},
            {"scope": "chem7", "name": "nc_cpu_usage", "usage": 7},
            {"scope": "chem7", "name": "nc_gpu_usage", "limit": 10, "usage": 2, "is_backend": true},
            {"scope": "/api/projects/00000000000040008000000000000001/", "name": "nc_cpu_usage", "limit": 5},
            {"scope": "bio42", "name": "nc_snapshot_count", "limit": 5}
        ],
        "nomad": {
            "tokens": [{"secret": TOKEN, "may_write": true}],
            "quotas": [
                {"Name": "research", "Description": "Biology and its friends", "Limits": [
                    {"Region": "global", "RegionLimit": {
                        "Cores": 4, "MemoryMB": 8000, "Devices": [{"Name": "nvidia/gpu", "Count": 2}],
                        "Networks": [{"MBits": 50}],
                        "NodePools": [{"NodePool": "batch", "Cores": -1}]
                    }},
                    {"Region": "overseas", "RegionLimit": {"CPU": 2500}}
                ]},
                {"Name": "web", "Limits": [{"Region": "global", "RegionLimit": {"Cores": 1}}]}
            ],
            "usages": [{"Name": "research", "Used": [
                {"Region": "global", "RegionLimit": {"Cores": 1, "MemoryMB": 256, "Devices": [{"Name": "nvidia/gpu", "Count": 1}]}}
            ]}]
        },
        "datarobot": {
            "tokens": [{"secret": TOKEN, "may_write": true}],
            "quotas": [
                {"id": ROBOT, "resourceId": "dep-1", "saturationThreshold": 0.8,
                 "capacity": {"capacity": 1000, "units": "token"},
                 "defaultRules": [{"rule": "requests", "limit": 3}, {"rule": "token", "limit": 600, "window": "hour"}],
                 "policies": [{"consumerId": "alice", "consumerType": "user", "reserved": 0.25,
                               "rules": [{"rule": "concurrentRequests", "limit": 10}]}]},
                {"resourceId": "elsewhere", "defaultRules": [{"rule": "token", "limit": 1}]}
            ],
            "quotaTemplates": [
                {"id": "64a7f0c2e1b3d4a5f6071830", "name": "small", "rules": [{"rule": "requests", "limit": 10, "window": "hour"}]}
            ]
        }
    });
    serde_json::from_value(state).unwrap()
}

/// A folder with the configuration of an operator.
struct Operator {
    folder: tempfile::TempDir,
}

#[derive(Debug)]
struct Ended {
    status: i32,
    out: String,
    err: String,
}

impl Operator {
    /// All three sources.
    fn of(portal: &Portal) -> Operator {
        Operator::with(&[
            ("waldur", "waldur-quota", format!("url = \"{}api/\"", portal.url)),
            (
                "nomad",
                "nomad",
                format!(
                    "url = \"{}nomad/v1/\"\naccounts = {{ research = \"bio42\", lab = \"chem7\" }}",
                    portal.url
                ),
            ),
            (
                "robot",
                "datarobot",
                format!("url = \"{}api/v2/\"\nresources = {{ dep-1 = \"bio42\" }}", portal.url),
            ),
        ])
    }

    fn with(sources: &[(&str, &str, String)]) -> Operator {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path();
        std::fs::write(place.join("token"), TOKEN).unwrap();
        std::fs::set_permissions(place.join("token"), std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .unwrap();
        let mut config = format!(
            "[cluster]\nname = \"lab\"\ntime_zone = \"UTC\"\n[store]\npath = \"{}/state.db\"\n",
            place.display()
        );
        for (name, kind, keys) in sources {
            config.push_str(&format!(
                "[[source]]\nname = \"{name}\"\nkind = \"{kind}\"\ntoken_file = \"{}/token\"\nattempts_max = 1\n{keys}\n",
                place.display()
            ));
        }
        std::fs::write(place.join("config.toml"), config).unwrap();
        Operator { folder }
    }

    /// Adds to the configuration.
    fn add(&self, more: &str) {
        let path = self.folder.path().join("config.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text + more).unwrap();
    }

    /// Runs `quota ARGS` without a terminal.
    fn quota(&self, args: &[&str]) -> Ended {
        let mut command = Command::new(env!("CARGO_BIN_EXE_slurm-site-agent"));
        command.env("TZ", "UTC").env("LC_ALL", "C").env_remove("http_proxy").stdin(Stdio::null());
        command.arg("--config").arg(self.folder.path().join("config.toml")).arg("quota").args(args);
        let Output { status, stdout, stderr } = command.output().expect("the program starts");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Ended { status: status.code().unwrap_or(-1), out: text(stdout), err: text(stderr) }
    }

    /// What it prints; it has to succeed.
    fn text(&self, args: &[&str]) -> String {
        let seen = self.quota(args);
        assert_eq!(seen.status, 0, "{args:?}: {}{}", seen.out, seen.err);
        seen.out
    }

    fn json(&self, args: &[&str]) -> Value {
        let text = self.text(&[args, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// What it says when it refuses; nothing has been sent then that changes anything.
    fn refused(&self, portal: &Portal, args: &[&str]) -> String {
        let before = writes(portal);
        let seen = self.quota(args);
        assert_eq!(seen.status, 2, "{args:?}: {}{}", seen.out, seen.err);
        assert_eq!(writes(portal), before, "{args:?} wrote");
        seen.err
    }
}

fn writes(portal: &Portal) -> usize {
    portal.handle.requests().iter().filter(|request| request.method != "GET").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn list_shows_the_quotas_of_accounts_here_source_by_source() {
    let portal = Portal::start(seed()).await;
    let operator = Operator::of(&portal);
    let expected = "\
waldur (waldur-quota, amounts in minutes)
 UUID                              Name          Account  TRES      Limit      Usage    %     Threshold
 6ad5f49d6d6c49648573b2b71f44a42b  nc_cpu_usage  bio42    cpu       60000      15000.5  25.0  48000
 CHEMCPU                           nc_cpu_usage  chem7    cpu       unlimited  7        -     -
 CHEMGPU                           nc_gpu_usage  chem7    gres/gpu  10         2        20.0  -

nomad (nomad, in use / limit at one time, CPU in MHz, memory in MiB)
 Name      Region    Pool   Account  Cores  CPU          Memory       Devices
 research  global    -      bio42    1/4    0/unlimited  256/8000     nvidia/gpu 1/2
 research  global    batch  bio42    -/0    -/unlimited  -/unlimited  -
 research  overseas  -      -        0/unlimited  0/2500  0/unlimited  -

robot (datarobot)
 ID                        Resource  Account  Consumer    Reserved  Rules                        Capacity    Saturation
 64a7f0c2e1b3d4a5f6071829  dep-1     bio42    default     -         requests=3/min, token=600/hour  1000 token  0.8
 64a7f0c2e1b3d4a5f6071829  dep-1     bio42    user:alice  0.25      concurrentRequests=10        -           -

";
    let uuid = |name: &str| {
        portal.handle.with_state(|state| {
            let chem = state.resource_of_account("chem7").unwrap().uuid.simple().to_string();
            let quota = state.quotas.iter().find(|quota| quota.name == name && quota.scope.contains(&chem));
            quota.unwrap().uuid.simple().to_string()
        })
    };
    let expected =
        expected.replace("CHEMCPU", &uuid("nc_cpu_usage")).replace("CHEMGPU", &uuid("nc_gpu_usage"));
    let got = operator.text(&["list"]);
    assert_eq!(cells(&got), cells(&expected), "\n{got}");
    let all = operator.text(&["list", "--all"]);
    assert!(all.contains("nc_snapshot_count") && all.contains("web ") && all.contains("elsewhere"), "{all}");
    let one = operator.text(&["list", "--source", "nomad"]);
    assert!(one.contains("research") && !one.contains("waldur"), "{one}");
}

/// Words of each line: how wide the columns are is not what is tested.
fn cells(text: &str) -> Vec<Vec<&str>> {
    text.lines().map(|line| line.split_whitespace().collect()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_get_every_quota_as_json_with_numbers_as_numbers() {
    let portal = Portal::start(seed()).await;
    let operator = Operator::of(&portal);
    let got = operator.json(&["list"]);
    let sources = got["sources"].as_array().unwrap();
    let kinds: Vec<_> = sources.iter().map(|source| source["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["waldur-quota", "nomad", "datarobot"]);
    let bio = sources[0]["quotas"].as_array().unwrap().iter().find(|quota| quota["id"] == BIO_CPU).unwrap();
    assert_eq!((&bio["account"], &bio["limit"]), (&json!("bio42"), &json!(60000)));
    assert_eq!((&bio["usage"], &bio["threshold"]), (&json!(15000.5), &json!(48000)));
    let research = &sources[1]["quotas"][0];
    assert_eq!(research["regions"]["global"]["all"]["cores"], 4);
    assert_eq!(research["regions"]["global"]["all"]["cpu_mhz"], "unlimited");
    assert_eq!(research["regions"]["global"]["node_pools"]["batch"]["cores"], 0);
    assert_eq!(research["used"]["global"]["all"]["devices"], json!({"nvidia/gpu": 1}));
    let robot = &sources[2]["quotas"][0];
    assert_eq!(
        (&robot["saturation_threshold"], &robot["policies"][0]["reserved"]),
        (&json!(0.8), &json!(0.25))
    );
    assert_eq!(robot["default_rules"][1], json!({"kind": "token", "limit": 600, "window": "hour"}));
    let one = operator.json(&["show", BIO_CPU, "--source", "waldur"]);
    assert_eq!(&one["quotas"][0], bio);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_fails_does_not_hide_the_others() {
    let portal = Portal::start(seed()).await;
    let operator = Operator::of(&portal);
    let broken = FaultKind::Status { code: 503, retry_after: None };
    portal.handle.push_fault(Fault::once(broken.clone()).on("GET", "/nomad/v1/quotas"));
    let seen = operator.quota(&["list"]);
    assert_eq!(seen.status, 3, "{}", seen.err);
    assert!(seen.out.contains("15000.5") && seen.out.contains("token=600/hour"), "{}", seen.out);
    assert!(seen.err.contains("nomad") && seen.err.contains("503"), "{}", seen.err);
    portal.handle.push_fault(Fault::once(broken).on("GET", "/nomad/v1/quotas"));
    let seen = operator.quota(&["list", "--json"]);
    let got: Value = serde_json::from_str(&seen.out).unwrap();
    assert!(got["sources"][1]["error"].as_str().unwrap().contains("503"), "{got}");
    assert_eq!((seen.status, &got["sources"][2]["quotas"][0]["id"]), (3, &json!(ROBOT)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_is_found_by_what_its_server_calls_it_and_by_its_account() {
    let portal = Portal::start(seed()).await;
    let operator = Operator::of(&portal);
    for (source, names, shown) in [
        ("waldur", ["bio42", BIO_CPU], "nc_cpu_usage"),
        ("nomad", ["bio42", "research"], "research: Biology and its friends"),
        ("robot", ["bio42", ROBOT], "user:alice"),
        ("robot", ["dep-1", ROBOT], "user:alice"),
    ] {
        let [one, other] = names.map(|name| operator.text(&["show", name, "--source", source]));
        assert!(one == other && one.contains(shown), "{source}: {one}{other}");
    }
    for (args, reason) in [
        (["show", "bio42", ""], "say which source: --source with one of waldur, nomad, robot"),
        (["show", "bio42", "elsewhere"], "there is no source of quotas elsewhere"),
        (["show", "phys", "waldur"], "no quota \"phys\" and none for an account of this name"),
        (["show", "phys", "nomad"], "no quota \"phys\" and none for an account of this name"),
        (["show", "phys", "robot"], "quota list --all --source robot"),
        (["show", NOTHING, "waldur"], "the server has no such quota"),
        (["history", "bio42", "nomad"], "only Waldur keeps how quotas were"),
        (["delete", "bio42", "waldur"], "go with the objects they are of"),
        (["templates", "small", "nomad"], "only DataRobot has templates"),
    ] {
        let [verb, what, source] = args;
        let mut all = vec![verb, what];
        if !source.is_empty() {
            all.extend(["--source", source]);
        }
        let said = operator.refused(&portal, &all);
        assert!(said.contains(reason), "{all:?}: {said}");
    }
    let said = operator.refused(&portal, &["set", "chem7", "--source", "waldur", "--limit", "9", "--yes"]);
    assert!(said.contains("chem7 has 2 quotas") && said.contains("(nc_gpu_usage)"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_changed_without_a_word_of_consent_or_for_another_kind_of_source() {
    let portal = Portal::start(seed()).await;
    let operator = Operator::of(&portal);
    for (source, args) in [
        ("waldur", &["set", BIO_CPU, "--limit", "70000"][..]),
        ("nomad", &["set", "research", "--cores", "8"]),
        ("nomad", &["delete", "research"]),
        ("robot", &["set", "bio42", "--rule", "token=1/day"]),
        ("robot", &["delete", "bio42"]),
        ("robot", &["apply-template", "small", "bio42"]),
    ] {
        let said = operator.refused(&portal, &[args, &["--source", source]].concat());
        assert!(said.contains("say --yes if it is meant"), "{args:?}: {said}");
    }
    for (source, args, reason) in [
        ("waldur", &["--cores", "8"][..], "takes --limit and --threshold"),
        ("nomad", &["--limit", "8"], "--limit and --threshold are not for source nomad"),
        ("robot", &["--cores", "8"], "takes --rule, --no-rule"),
        ("robot", &[], "say what to set"),
        ("waldur", &["--limit=-5"], "below 0"),
        ("nomad", &["--cores", "0"], "say `unlimited` or `none`"),
        ("robot", &["--rule", "token=5/week"], "give min, hour or day"),
        ("robot", &["--no-rule", "token/day"], "there is no rule token to take away"),
        ("robot", &["--consumer", "user:bob", "--no-policy"], "has no rules of its own"),
        ("robot", &["--reserved", "0.5"], "--consumer"),
    ] {
        let all = [&["set", "bio42", "--yes", "--source", source], args].concat();
        let said = operator.refused(&portal, &all);
        assert!(said.contains(reason), "{args:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limit_and_threshold_of_a_waldur_quota_are_set_and_refusals_are_told() {
    let portal = Portal::start(seed()).await;
    let operator = Operator::of(&portal);
    fn set(args: &[&'static str]) -> Vec<&'static str> {
        [&["set", BIO_CPU, "--source", "waldur", "--yes"], args].concat()
    }
    let text = operator.text(&set(&["--limit", "70000", "--threshold", "0"]));
    assert!(text.contains(" 70000 ") && text.trim_end().ends_with(" -"), "nobody is told any more: {text}");
    let quota = operator.json(&set(&["--limit", "unlimited"]));
    assert_eq!(
        (&quota["limit"], &quota["threshold"], &quota["account"]),
        (&json!("unlimited"), &Value::Null, &json!("bio42"))
    );
    let before = writes(&portal);
    let text = operator.text(&set(&["--limit", "unlimited"]));
    assert!(text.contains("is like this already; nothing was sent"), "{text}");
    assert_eq!(writes(&portal), before);
    let seen = operator.quota(&set(&["--limit", "100"]));
    assert!(seen.status == 2 && seen.err.contains("Current quota usage exceeds the new limit."), "{seen:?}");
    let gpu = portal.handle.with_state(|state| {
        state.quotas.iter().find(|quota| quota.is_backend).unwrap().uuid.simple().to_string()
    });
    let seen = operator.quota(&["set", &gpu, "--source", "waldur", "--limit", "20", "--yes"]);
    assert!(seen.status == 2 && seen.err.contains("change it at the backend"), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_of_a_nomad_quota_is_set_and_everything_else_of_it_stays() {
    let portal = Portal::start(seed()).await;
    let operator = Operator::of(&portal);
    let spec = || portal.handle.with_state(|state| state.nomad.quotas[1].clone());
    assert_eq!(spec().name, "web");
    let research = || {
        portal.handle.with_state(|state| {
            state.nomad.quotas.iter().find(|quota| quota.name == "research").unwrap().clone()
        })
    };
    let before = research();
    let args = [
        "--cores",
        "none",
        "--memory",
        "unlimited",
        "--device",
        "nvidia/gpu=unlimited",
        "--device",
        "fpga=1",
    ];
    let text = operator.text(&[&["set", "bio42", "--source", "nomad", "--yes"], &args[..]].concat());
    assert!(text.contains("1/0") && text.contains("256/unlimited") && text.contains("fpga 0/1"), "{text}");
    let after = research();
    let (was, is) = (&before.limits[0].region_limit, &after.limits[0].region_limit);
    assert_eq!((is.cores, is.memory_mb, is.devices.len(), is.devices[0].count), (-1, 0, 1, 1));
    assert_eq!((&is.networks, &is.node_pools, is.cpu), (&was.networks, &was.node_pools, was.cpu));
    assert_eq!((&after.limits[1], &after.description), (&before.limits[1], &before.description));
    let quota =
        operator.json(&["set", "research", "--source", "nomad", "--yes", "--region", "moon", "--cpu", "900"]);
    assert_eq!(quota["regions"]["moon"]["all"]["cpu_mhz"], 900, "a region that is new");
    let text =
        operator.text(&["set", "research", "--source", "nomad", "--yes", "--region", "moon", "--cpu", "900"]);
    assert!(text.contains("nothing was sent"), "{text}");
    let text = operator.text(&["set", "lab", "--source", "nomad", "--yes", "--create", "--cores", "2"]);
    assert!(cells(&text)[2].starts_with(&["lab", "global", "-", "chem7", "0/2"]), "{text}");
    let said = operator.refused(&portal, &["set", "lab", "--source", "nomad", "--yes", "--create"]);
    assert!(said.contains("is there already"), "{said}");
    assert_eq!(operator.text(&["delete", "chem7", "--source", "nomad", "--yes"]), "quota lab is deleted\n");
    assert!(operator.refused(&portal, &["show", "lab", "--source", "nomad"]).contains("no quota \"lab\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_of_everybody_and_of_single_consumers_are_set_and_taken_away() {
    let portal = Portal::start(seed()).await;
    let operator = Operator::of(&portal);
    let set = |args: &[&str]| {
        let quota = operator.json(&[&["set", "bio42", "--source", "robot", "--yes"], args].concat());
        let rules = |rules: &Value| {
            let one = |rule: &Value| {
                format!("{}={}/{}", rule["kind"], rule["limit"], rule["window"]).replace('"', "")
            };
            rules.as_array().unwrap().iter().map(one).collect::<Vec<_>>().join(" ")
        };
        let policies: Vec<String> = quota["policies"]
            .as_array()
            .unwrap()
            .iter()
            .map(|policy| {
                format!("{} {} {}", policy["consumer"]["id"], policy["reserved"], rules(&policy["rules"]))
            })
            .collect();
        (rules(&quota["default_rules"]), policies, quota["saturation_threshold"].clone())
    };
    let alice = "\"alice\" 0.25 concurrentRequests=10/min".to_owned();
    assert_eq!(
        set(&["--rule", "token=700/hour", "--rule", "token=9/day", "--no-rule", "requests"]),
        ("token=700/hour token=9/day".to_owned(), vec![alice.clone()], json!(0.8))
    );
    let (defaults, policies, saturation) = set(&[
        "--consumer",
        "usergroup:phys",
        "--reserved",
        "0.5",
        "--rule",
        "token=1/day",
        "--saturation",
        "none",
    ]);
    assert_eq!(defaults, "token=700/hour token=9/day");
    assert_eq!(policies[1], "\"phys\" 0.5 token=700/hour token=1/day", "it begins with the default rules");
    assert_eq!((&policies[0], saturation), (&alice, Value::Null));
    let (_, policies, _) =
        set(&["--consumer", "user:alice", "--rule", "concurrentRequests=3", "--reserved", "none"]);
    assert_eq!(policies[0], "\"alice\" null concurrentRequests=3/min");
    let (_, policies, _) = set(&["--consumer", "user:alice", "--no-policy"]);
    assert_eq!(policies.len(), 1);
    let text = operator.text(&["apply-template", "small", "dep-1", "--source", "robot", "--yes"]);
    assert!(text.contains("requests=10/hour") && text.contains("usergroup:phys"), "{text}");
    let text = operator.text(&["apply-template", "small", "dep-1", "--source", "robot", "--yes"]);
    assert!(text.contains("nothing was sent"), "{text}");
    let text = operator.text(&["templates", "--source", "robot"]);
    assert!(cells(&text)[2] == ["64a7f0c2e1b3d4a5f6071830", "small", "requests=10/hour"], "{text}");
    let said = operator.refused(&portal, &["templates", "large", "--source", "robot"]);
    assert!(said.contains("has no template \"large\"; it has small"), "{said}");
    assert_eq!(
        operator.json(&["delete", "bio42", "--source", "robot", "--yes"]),
        json!({"id": ROBOT, "deleted": true})
    );
    assert!(
        operator.refused(&portal, &["show", "bio42", "--source", "robot"]).contains("none for an account")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_is_drawn_over_time_and_told_to_scripts() {
    let portal = Portal::start(seed()).await;
    let operator = Operator::of(&portal);
    let span = ["--from", "2026-11-07T00:00:00Z", "--to", "2026-11-22T10:00:00Z", "--source", "waldur"];
    let drawn = operator.text(&[&["history", "bio42"], &span[..], &["--points", "44"]].concat());
    let expected = "\
nc_cpu_usage of bio42, minutes

60k |                                           =
    |
    |                          ------------------
    |
    |
    |
30k |         ==================================
    |
    |
    |                                           *
    |                          *****************
    |
  0 |         *****************
    +--------------------------------------------
     2026-11-07T00:00:00Z    2026-11-22T10:00:00Z

* usage 15000.5   = limit 60000   - threshold 48000
";
    assert_eq!(drawn, expected, "\n{drawn}");
    let told = operator.json(&[&["history", BIO_CPU], &span[..], &["--points", "3"]].concat());
    let points = json!([
        {"at": "2026-11-07T00:00:00Z", "known": false, "limit": null, "usage": null, "threshold": null},
        {"at": "2026-11-14T17:00:00Z", "known": true, "limit": 30000, "usage": 2000, "threshold": null},
        {"at": "2026-11-22T10:00:00Z", "known": true, "limit": 60000, "usage": 15000.5, "threshold": 48000},
    ]);
    assert_eq!(told, json!({"id": BIO_CPU, "account": "bio42", "points": points}));
    for (args, reason) in [
        (["--from", "2026-11-23T00:00:00Z"], "there is no time"),
        (["--from", "yesterday"], "give an instant such as"),
        (["--points", "1"], "give 2 to 1000"),
    ] {
        let to = ["--to", "2026-11-22T10:00:00Z", "--source", "waldur"];
        let said = operator.refused(&portal, &[&["history", "bio42"], &args[..], &to[..]].concat());
        assert!(said.contains(reason), "{args:?}: {said}");
    }
}

/// `[[quota]]` entries of every kind.
const LOCAL: &str = "[[quota]]\naccount = \"bio42\"\nuser = \"*\"\nrule = \"requests\"\nlimit = 20\n\
                     [[quota]]\naccount = \"phys\"\nname = \"budget of an hour\"\nrule = \"token\"\nlimit = 600\nwindow = \"hour\"\n\
                     [[quota]]\naccount = \"phys\"\nuser = \"alice\"\nreserved = 0.25\ncapacity = 1000\n";

#[tokio::test(flavor = "multi_thread")]
async fn quotas_of_the_configuration_are_shown_as_source_local_and_changed_nowhere_else() {
    let portal = Portal::start(seed()).await;
    let operator = Operator::of(&portal);
    operator.add(LOCAL);
    let expected = "\
local (configuration)
 Name               Account  User   Rule            Reserved  Capacity    Saturation
 bio42              bio42    *      requests=20/min  -         -           -
 budget of an hour  phys     -      token=600/hour  -         -           -
 phys               phys     alice  -               0.25      1000 token  0.8

";
    let all = operator.text(&["list"]);
    let (servers, local) = all.split_at(all.find("local (").unwrap());
    assert!(servers.contains("robot (datarobot)"), "{all}");
    assert_eq!(cells(local), cells(expected), "\n{all}");
    assert_eq!(operator.text(&["list", "--source", "local"]), local);
    let sources = operator.json(&["list"])["sources"].clone();
    assert_eq!(sources.as_array().unwrap().len(), 4);
    let quotas = &sources[3]["quotas"];
    assert_eq!((&sources[3]["source"], &sources[3]["kind"]), (&json!("local"), &json!("configuration")));
    assert_eq!(
        (&quotas[0]["account"], &quotas[0]["default_rules"][0]["limit"]),
        (&json!("bio42"), &json!(20))
    );
    assert_eq!(
        quotas[2]["policies"][0],
        json!({"consumer": {"kind": "user", "id": "alice"}, "name": null, "reserved": 0.25, "rules": []})
    );
    let shown = operator.text(&["show", "phys", "--source", "local"]);
    assert!(
        shown.contains("token=600/hour") && shown.contains("alice") && !shown.contains("bio42"),
        "{shown}"
    );
    for (args, reason) in [
        (&["show", "chem7"][..], "source local has no quota \"chem7\""),
        (&["set", "phys", "--saturation", "0.5", "--yes"], "stand in the configuration as [[quota]]"),
        (&["delete", "phys", "--yes"], "stand in the configuration as [[quota]]"),
        (&["history", "phys"], "only Waldur keeps how quotas were"),
    ] {
        let said = operator.refused(&portal, &[args, &["--source", "local"]].concat());
        assert!(said.contains(reason), "{args:?}: {said}");
    }
    // Without a server they are the only ones, and nobody has to be named or asked.
    let alone = Operator::with(&[]);
    alone.add(LOCAL);
    portal.handle.forget_requests();
    assert_eq!(alone.text(&["list"]), local);
    assert_eq!(alone.text(&["show", "phys"]), shown);
    assert_eq!(portal.handle.requests().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_source_of_quotas_the_verbs_say_which_kinds_have_them() {
    let portal = Portal::start(seed()).await;
    let operator = Operator::with(&[]);
    for args in [&["list"][..], &["show", "bio42"]] {
        let said = operator.refused(&portal, args);
        assert!(said.contains("no [[source]] of kind waldur-quota, nomad or datarobot"), "{said}");
    }
}
