//! A policy's whole life on a REAL Slurm: made with the `policy` verb, enforced by the real program, its commands and
//! evaluations read back at the portal.

mod support;

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use slurm_site_agent::agent::clock::Clock;
use slurm_site_agent::agent::cycle::{Ask, CycleReport, cycle};
use slurm_site_agent::agent::{Agent, Outside};
use slurm_site_agent::core::command::Mode;
use slurm_site_agent::core::evaluate::Level;
use slurm_site_agent::core::period::{Period, PeriodKind};
use slurm_site_agent::core::plan::Change;
use slurm_site_agent::store::Store;
use support::{Lab, Portal, TOKEN};

const OFFERING: &str = "5e1f0a3c-9b7d-4e2f-8a6c-1d0b3e5f7a90";
const ACCOUNT: &str = "life_a";
/// The jobs of the scenario lie within this time before now; in a younger month there is no room for them.
const ROOM_S: i64 = 1800;

/// The program as an operator runs it.
struct Program<'a> {
    folder: &'a Path,
}

impl Program<'_> {
    fn run(&self, args: &[&str]) -> (i32, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_slurm-site-agent"))
            .arg("--config")
            .arg(self.folder.join("config.toml"))
            .args(args)
            .stdin(Stdio::null())
            .output()
            .expect("the program starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        let status = output.status.code().unwrap_or(-1);
        assert!(status <= 1, "{args:?}: {status} {errors}");
        (status, String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn json(&self, args: &[&str]) -> Value {
        let (_, text) = self.run(&[args, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}: {text}"))
    }

    /// One cycle; the account's decision in it.
    fn evaluate(&self) -> Value {
        let report = self.json(&["--evaluate-now"]);
        let decisions = report["decisions"].as_array().unwrap_or_else(|| panic!("{report:#}"));
        let own = decisions.iter().find_map(|decision| {
            decision.get("decided").filter(|decided| decided["account"] == ACCOUNT).cloned()
        });
        own.unwrap_or_else(|| panic!("{ACCOUNT} is undecided: {report:#}"))
    }
}

fn association(lab: &Lab, format: &str) -> String {
    let (account, format) = (format!("account={ACCOUNT}"), format!("format={format}"));
    lab.must("sacctmgr", &["-nP", "show", "assoc", "where", &account, "user=", &format]).trim().to_owned()
}

fn raw_usage(lab: &Lab) -> u64 {
    let text = lab.must("sshare", &["-nP", "-A", ACCOUNT, "-o", "Account,User,RawUsage"]);
    let own = text.lines().map(|line| line.split('|').map(str::trim).collect::<Vec<_>>());
    let own = own.into_iter().find(|row| row[0] == ACCOUNT && row[1].is_empty());
    own.unwrap_or_else(|| panic!("{text}"))[2].parse().expect("a number")
}

fn submit(lab: &Lab) -> (i32, String) {
    lab.run_as("alice", "sbatch", &["-A", ACCOUNT, "-t", "1", "-o", "/dev/null", "--wrap", "true"])
}

/// What the portal shows of the policy, read with the verbs: its newest log, and its commands, newest first.
struct Shown {
    log: Value,
    logs: usize,
    commands: Vec<Value>,
}

impl Shown {
    fn of(program: &Program<'_>, policy: &str) -> Shown {
        let rows = |verb| program.json(&["policy", verb, policy, "--resource", ACCOUNT]);
        let (logs, commands) = (rows("logs"), rows("commands"));
        let logs = logs.as_array().expect("a list");
        Shown {
            log: logs.first().cloned().unwrap_or_default(),
            logs: logs.len(),
            commands: commands.as_array().expect("a list").clone(),
        }
    }

    /// Parameters of the newest command of a type.
    fn newest(&self, command_type: &str) -> &Value {
        let found = self.commands.iter().find(|command| command["command_type"] == command_type);
        &found.unwrap_or_else(|| panic!("no {command_type}: {:#?}", self.commands))["parameters"]
    }

    /// The evaluation that the agent has confirmed.
    fn check(&self, period: &str, percent: f64, actions: Value, before: (bool, bool), after: (bool, bool)) {
        let log = &self.log;
        let state = |(paused, downscaled)| json!({"paused": paused, "downscaled": downscaled});
        assert_eq!(log["billing_period"], period, "{log:#}");
        assert!((log["usage_percentage"].as_f64().unwrap() - percent).abs() < 1e-6, "{log:#}");
        assert_eq!(log["actions_taken"], actions, "{log:#}");
        assert_eq!((&log["previous_state"], &log["new_state"]), (&state(before), &state(after)), "{log:#}");
        assert_eq!(log["site_agent_confirmed"], true, "{log:#}");
        assert_eq!(log["site_agent_response"]["mode"], "production", "{log:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_made_with_the_verb_governs_an_account_from_normal_to_blocked_and_into_the_next_period() {
    let Some(lab) = Lab::own() else { return };
    let now = Clock::System.now();
    let zone = jiff::tz::TimeZone::UTC;
    let month = Period::containing(PeriodKind::Month, now, &zone).unwrap();
    if now.since(month.start) < ROOM_S {
        eprintln!(
            "SKIPPED: the month is younger than {ROOM_S} s, so the jobs of this scenario have no room in it"
        );
        return;
    }
    lab.forget(&[ACCOUNT]);
    lab.accounts(&[ACCOUNT], "root");
    // 4 cpu-hours a month; the portal lives now, evaluates when usage arrives, and has no policy yet.
    let state = json!({
        "users": [{"username": "agent", "token": TOKEN, "role": "staff"}],
        "offerings": [{"uuid": OFFERING, "name": "Lab"}],
        "resources": [{"name": ACCOUNT, "limits": {"cpu": 4}}],
    });
    let portal = Portal::start(serde_json::from_value(state).unwrap()).await;
    let folder = tempfile::tempdir().unwrap();
    let program = Program { folder: folder.path() };
    let text = lab.cluster()
        + &format!(
            "[store]\npath = \"FOLDER/state.db\"\n[components.cpu]\ntres = \"cpu\"\nunit = \"h\"\n\
             [limits]\ntighten_accounts_max = 100\ntighten_share_percent = 100\n\
             [[source]]\nname = \"portal\"\nkind = \"waldur-policy\"\nurl = \"{}\"\ntoken_file = \"FOLDER/token\"\n\
             offering = \"{OFFERING}\"\n",
            portal.url
        );
    let config = support::read(&text, folder.path());
    let text = text.replace("FOLDER", folder.path().to_str().unwrap());
    std::fs::write(folder.path().join("config.toml"), text).unwrap();

    // The operator makes the policy; the portal issues its settings; the agent makes them true.
    let actions =
        "request_slurm_resource_downscaling,request_slurm_resource_pausing,notify_organization_owners";
    let created = program.json(&[
        "policy",
        "create",
        "--yes",
        "--period",
        "month",
        "--actions",
        actions,
        "--grace-ratio",
        "0.2",
        "--tres-billing-enabled",
        "false",
        "--carryover-enabled",
        "false",
    ]);
    let policy = created["uuid"].as_str().unwrap().to_owned();
    let decided = program.evaluate();
    assert_eq!(decided["level"], "normal", "{decided:#}");
    // 4/3 -> fairshare 1; 4 h x 60 x 1.2 = 288 minutes.
    assert_eq!(association(&lab, "fairshare,grptresmins,qos"), "1|cpu=288|normal");
    let shown = Shown::of(&program, &policy);
    assert_eq!(
        shown.commands.len(),
        3,
        "fairshare, limits and the reset of a new policy: {:#?}",
        shown.commands
    );
    assert_eq!(shown.newest("fairshare"), &json!({"account": ACCOUNT, "fairshare": 1}));
    assert_eq!(
        shown.newest("limits"),
        &json!({"account": ACCOUNT, "limit_type": "GrpTRESMins", "limits": {"cpu": 288}})
    );
    let done = |command: &Value| command["success"] == true && command["execution_mode"] == "production";
    assert!(shown.commands.iter().all(done), "{:#?}", shown.commands);
    assert_eq!(shown.logs, 0, "nothing used, nothing evaluated");

    // 32 cpus for 450 s are 4 hours: 100 %.
    let end = now.0 - 300;
    lab.jobs(&[format!("account={ACCOUNT} user=alice cpus=32 time=2 start={} end={end}", end - 450)]);
    let decided = program.evaluate();
    assert_eq!(decided["level"], "slowdown", "{decided:#}");
    assert_eq!(association(&lab, "qos,defaultqos"), "slowdown|slowdown");
    let decided = program.evaluate();
    assert_eq!(decided["level"], "slowdown", "the portal's own command changes nothing: {decided:#}");
    assert_eq!(association(&lab, "qos,defaultqos"), "slowdown|slowdown");
    let shown = Shown::of(&program, &policy);
    assert_eq!(shown.newest("qos")["qos"], "slowdown");
    shown.check(&month.name, 100.0, json!(["downscale", "notify"]), (false, false), (false, true));

    // 90 s more are 4.8 hours: 120 %.
    lab.jobs(&[format!("account={ACCOUNT} user=bob cpus=32 time=2 start={} end={}", end, end + 90)]);
    let decided = program.evaluate();
    assert_eq!(decided["level"], "blocked", "{decided:#}");
    assert_eq!(association(&lab, "qos,defaultqos"), "blocked|blocked");
    let (status, said) = submit(&lab);
    assert!(status != 0 && said.contains("QOSMaxSubmitJobPerUserLimit"), "{status} {said}");
    program.evaluate();
    let shown = Shown::of(&program, &policy);
    assert_eq!(shown.newest("qos")["qos"], "blocked");
    assert!(shown.commands.iter().all(done), "{:#?}", shown.commands);
    shown.check(&month.name, 120.0, json!(["pause", "downscale"]), (false, true), (true, true));
    assert_eq!(shown.logs, 2, "one evaluation for each report of new usage");
    let resource = portal.handle.with_state(|state| state.resources[0].uuid.to_string());
    let local = program.json(&["policy", "preview", "--account", ACCOUNT]);
    let server = program.json(&["policy", "preview", "--server", "--resource", &resource]);
    for field in ["base_allocation", "current_usage", "daily_usage_rate", "usage_percentage", "thresholds"] {
        assert_eq!(local[field], server[field], "{field}: the ledger and the portal know the same usage");
    }
    let zeroed = || {
        portal.handle.with_state(|state| {
            let zeroed = |text: &String| text.contains("RawUsage=0");
            state.results.iter().filter(|result| result.commands_executed.iter().any(zeroed)).count()
        })
    };
    assert_eq!(zeroed(), 0, "an account that has just been adopted keeps its raw usage");

    // An hour into the next month, for the portal and for the agent, which goes on with the same store.
    assert!(raw_usage(&lab) > 0, "the real jobs left raw usage");
    let next = month.end.expect("a month ends").plus(3600);
    portal.handle.advance(next.since(now));
    let outside =
        Outside { runner: Outside::real(&config).runner, clock: Clock::manual(next), mode: Mode::Production };
    let mut agent = Agent::new(config.clone(), outside, Store::open(&config.store.path).unwrap()).unwrap();
    let resets = |report: &CycleReport| {
        report.changes.iter().filter(|change| matches!(change.change, Change::ResetRawUsage { .. })).count()
    };
    let report = cycle(&mut agent, &Ask::default()).await.unwrap();
    let level = |report: &CycleReport| report.decisions[0].decided().map(|decided| decided.level);
    assert_eq!(level(&report), Some(Level::Normal), "{report:#?}");
    assert_eq!(resets(&report), 1, "{report:#?}");
    assert_eq!(raw_usage(&lab), 0, "seen in sshare");
    assert_eq!(association(&lab, "qos,defaultqos"), "normal|normal");
    let (status, said) = submit(&lab);
    assert_eq!(status, 0, "{said}");
    // What the portal issued in the meantime is acted on; the counter is zeroed no second time.
    for _ in 0..2 {
        let report = cycle(&mut agent, &Ask::default()).await.unwrap();
        assert_eq!(resets(&report), 0, "{report:#?}");
        assert!(report.changes.is_empty(), "{report:#?}");
    }
    assert!(cycle(&mut agent, &Ask::default()).await.unwrap().is_quiet());
    drop(agent);
    assert!(zeroed() > 0, "the reset is told to the portal");
    let shown = Shown::of(&program, &policy);
    let name = Period::containing(PeriodKind::Month, next, &zone).unwrap().name;
    shown.check(&name, 0.0, json!([]), (true, true), (false, false));
    assert_eq!(shown.newest("qos")["qos"], "normal");
    let reset_in = |command: &&Value| {
        command["command_type"] == "reset_usage"
            && command["executed_at"].as_str().is_some_and(|at| at.starts_with(&name))
    };
    assert_eq!(shown.commands.iter().filter(reset_in).count(), 1, "{:#?}", shown.commands);
}
