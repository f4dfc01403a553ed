//! Every `policy` verb through the real program against the embedded central server; the preview against the server's.

mod support;

use std::path::Path;
use std::process::{Command, Output, Stdio};

use proptest::prelude::*;
use proptest::test_runner::{Config as Runs, TestRunner};
use serde_json::{Value, json};
use slurm_site_agent::emulator::central::CentralState;
use support::{Portal, TOKEN};

const OFFERING: &str = "5e1f0a3c-9b7d-4e2f-8a6c-1d0b3e5f7a90";
const POLICY: &str = "b7d1f0aa-2c5e-4d7b-9e13-5a0c8f2e6d41";
const NOWHERE: &str = "00000000-0000-4000-8000-000000000000";

/// A portal on 2026-11-10 with accounts that used 50, 85 and 130 of 100 cpu-hours; `policies` as given.
async fn portal(policies: Value) -> Portal {
    let state = json!({
        "clock": {"fixed": "2026-11-10T12:00:00Z"},
        "settings": {"evaluate_on_usage": false},
        "users": [
            {"username": "agent", "token": TOKEN, "role": "staff"},
            {"username": "owner", "token": "owner-token", "role": "owner"}
        ],
        "offerings": [{"uuid": OFFERING, "name": "Cluster"}],
        "policies": policies,
        "resources": [
            {"name": "calm", "limits": {"cpu": 100}},
            {"name": "busy", "limits": {"cpu": 100}},
            {"name": "over", "limits": {"cpu": 100}}
        ],
        "component_usages": [
            {"resource": "calm", "type": "cpu", "usage": "50", "billing_period": "2026-11"},
            {"resource": "busy", "type": "cpu", "usage": "85", "billing_period": "2026-11"},
            {"resource": "over", "type": "cpu", "usage": "130", "billing_period": "2026-11"}
        ]
    });
    Portal::start(serde_json::from_value(state).unwrap()).await
}

fn monthly() -> Value {
    json!([{"uuid": POLICY, "period": 2, "carryover_enabled": false, "tres_billing_weights": {"cpu": 1}}])
}

/// A folder with the configuration of an operator.
struct Operator {
    folder: tempfile::TempDir,
}

impl Operator {
    fn new(sources: &[(&str, &str, &str)], token: &str) -> Operator {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path();
        std::fs::write(place.join("token"), token).unwrap();
        std::fs::set_permissions(place.join("token"), std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .unwrap();
        let mut config = format!(
            "[cluster]\nname = \"lab\"\ntime_zone = \"UTC\"\n[store]\npath = \"{}/state.db\"\n",
            place.display()
        );
        for (name, url, offering) in sources {
            config.push_str(&format!(
                "[[source]]\nname = \"{name}\"\nkind = \"waldur-policy\"\nurl = \"{url}\"\noffering = \"{offering}\"\n\
                 token_file = \"{}/token\"\nattempts_max = 1\n",
                place.display()
            ));
        }
        std::fs::write(place.join("config.toml"), config).unwrap();
        Operator { folder }
    }

    fn of(portal: &Portal) -> Operator {
        Operator::new(&[("portal", &portal.url, OFFERING)], TOKEN)
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Runs `policy ARGS` without a terminal.
    fn policy(&self, args: &[&str]) -> Ended {
        let config = self.folder.path().join("config.toml");
        ended(program().arg("--config").arg(config).arg("policy").args(args))
    }

    /// The JSON of `policy ARGS --json`; it has to succeed.
    fn json(&self, args: &[&str]) -> Value {
        let seen = self.policy(&[args, &["--json"]].concat());
        assert_eq!(seen.status, 0, "{args:?}: {}{}", seen.out, seen.err);
        serde_json::from_str(&seen.out).unwrap_or_else(|error| panic!("{error}: {}", seen.out))
    }
}

#[derive(Debug)]
struct Ended {
    status: i32,
    out: String,
    err: String,
}

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slurm-site-agent"));
    command.env("TZ", "UTC").env_remove("http_proxy").stdin(Stdio::null());
    command
}

fn ended(command: &mut Command) -> Ended {
    let Output { status, stdout, stderr } = command.output().expect("the program starts");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Ended { status: status.code().unwrap_or(-1), out: text(stdout), err: text(stderr) }
}

/// Words of the line that holds `word`.
fn line<'a>(text: &'a str, word: &str) -> Vec<&'a str> {
    let found = text.lines().find(|line| line.split_whitespace().any(|cell| cell == word));
    found.unwrap_or_else(|| panic!("no {word} in\n{text}")).split_whitespace().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_verbs_show_tables_and_pass_on_the_servers_json() {
    let portal = portal(monthly()).await;
    let operator = Operator::of(&portal);

    let listed = operator.json(&["list"]);
    assert_eq!(listed[0]["uuid"], json!(POLICY.replace('-', "")));
    let table = operator.policy(&["list"]).out;
    let row = line(&table, "Cluster");
    assert!(row.contains(&"month") && row.contains(&"0.2") && row.contains(&"off"), "{table}");

    assert_eq!(operator.json(&["show", POLICY]), listed[0]);
    let shown = operator.policy(&["show", POLICY]).out;
    assert_eq!(line(&shown, "limit_type"), ["limit_type", "GrpTRESMins"]);

    let actions = operator.policy(&["actions"]).out;
    assert!(actions.lines().any(|line| line == "request_slurm_resource_pausing"), "{actions}");
    assert!(operator.json(&["actions"]).as_array().unwrap().contains(&json!("request_pausing")));

    let foreseen = operator.policy(&["dry-run", POLICY]).out;
    assert!(foreseen.starts_with("period 2026-11, blocked at 120 %"), "{foreseen}");
    assert_eq!(line(&foreseen, "over"), ["over", "130.00", "no", "no", "pause,", "downscale,", "notify"]);
    let one = operator.json(&["dry-run", POLICY, "--resource", "busy"]);
    assert_eq!(one["resources"].as_array().unwrap().len(), 1, "an account stands for its resource: {one}");
    assert_eq!(one["resources"][0]["would_trigger"], json!(["notify"]));

    assert_eq!(operator.policy(&["logs", POLICY]).out, "none\n");
    assert_eq!(operator.json(&["commands", POLICY]), json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_is_created_changed_replaced_and_deleted() {
    let portal = portal(json!([])).await;
    let operator = Operator::of(&portal);
    let created = operator.json(&[
        "create",
        "--yes",
        "--period",
        "month",
        "--actions",
        "request_slurm_resource_pausing",
        "--grace-ratio",
        "0.1",
        "--weight",
        "CPU=0.5",
        "--weight",
        "GRES/gpu=0.25",
        "--component-limit",
        "cpu=1000",
        "--carryover-enabled",
        "false",
    ]);
    assert_eq!(created["period"], 2);
    assert_eq!(created["grace_ratio"], 0.1);
    assert_eq!(created["carryover_enabled"], false);
    assert_eq!(created["apply_to_all"], true, "for everybody where no group is named");
    assert_eq!(created["tres_billing_weights"], json!({"CPU": 0.5, "GRES/gpu": 0.25}));
    assert_eq!(created["component_limits_set"], json!([{"type": "cpu", "limit": 1000}]));
    let uuid = created["uuid"].as_str().unwrap();

    let file = operator.file("change.toml", "grace_ratio = 0.4\nqos_strategy = \"progressive\"\n");
    let changed = operator.json(&["update", uuid, "-y", "--file", &file, "--grace-ratio", "0.5"]);
    assert_eq!(changed["grace_ratio"], 0.5, "a flag goes above the file");
    assert_eq!(changed["qos_strategy"], "progressive");
    assert_eq!(changed["carryover_enabled"], false, "what is not given stays");

    let body = json!({"actions": "notify_organization_owners", "period": 2, "grace_ratio": 0.3});
    let file = operator.file("whole.json", &body.to_string());
    let replaced = operator.json(&["update", uuid, "-y", "--replace", "--file", &file]);
    assert_eq!(replaced["actions"], "notify_organization_owners");
    let methods: Vec<String> = portal
        .handle
        .requests()
        .iter()
        .filter(|seen| seen.method != "GET")
        .map(|seen| seen.method.clone())
        .collect();
    assert_eq!(methods, ["POST", "PATCH", "PUT"]);

    let commands = operator.policy(&["commands", uuid]).out;
    assert!(line(&commands, "calm")[1..3] == ["limits", "calm"], "saved settings are issued: {commands}");

    let deleted = operator.policy(&["delete", uuid, "--yes"]);
    assert_eq!((deleted.status, deleted.out), (0, format!("policy {uuid} is deleted\n")));
    assert_eq!(operator.policy(&["list"]).out, "none\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn evaluation_restricts_logs_are_shown_and_a_reset_releases_who_has_room() {
    let portal = portal(monthly()).await;
    let operator = Operator::of(&portal);
    let done = operator.policy(&["evaluate", POLICY, "--yes"]);
    assert_eq!(done.status, 0, "{done:?}");
    assert!(line(&done.out, "over").ends_with(&["free", "downscaled+paused"]), "{}", done.out);

    let logs = operator.policy(&["logs", POLICY, "--resource", "over", "--billing-period", "2026-11"]).out;
    assert_eq!(logs.lines().filter(|line| line.contains("2026-11-10T")).count(), 1, "{logs}");
    assert!(line(&logs, "over").ends_with(&["free", "downscaled+paused", "yes", "-"]), "{logs}");
    assert_eq!(operator.json(&["logs", POLICY]).as_array().unwrap().len(), 3);
    assert_eq!(operator.json(&["logs", POLICY, "--billing-period", "2026-10"]), json!([]));
    let commands = operator.policy(&["commands", POLICY, "--resource", "over"]).out;
    assert!(line(&commands, "qos").contains(&"over"), "{commands}");

    // Twice the budget: there is room again.
    portal.handle.with_state(|state: &mut CentralState| {
        let over = state.resources.iter_mut().find(|resource| resource.name == "over").unwrap();
        over.limits.insert("cpu".into(), 260.0);
    });
    let reset = operator.json(&["force-period-reset", POLICY, "--yes"]);
    assert_eq!(reset["resources"].as_array().unwrap().len(), 1, "only who is restricted: {reset}");
    assert_eq!(reset["resources"][0]["new_state"], json!({"paused": false, "downscaled": false}));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_refuses_is_told_field_by_field_and_ends_with_2() {
    let portal = portal(json!([])).await;
    let operator = Operator::of(&portal);
    let body = json!({
        "actions": "explode", "period": 9, "grace_ratio": "much", "limit_type": "Sometimes", "qos_strategy": "none",
        "carryover_enabled": "perhaps", "raw_usage_reset": 7,
        "component_limits_set": [{"type": "cpu", "limit": 1}, {"type": "cpu", "limit": "a"}],
    });
    let file = operator.file("body.json", &body.to_string());
    let refused = operator.policy(&["create", "--yes", "--file", &file]);
    assert_eq!((refused.status, refused.out.as_str()), (2, ""));
    for wanted in [
        "(status 400)",
        "  actions: explode includes unavailable actions.",
        "  grace_ratio: A valid number is required.",
        "  component_limits_set[1].limit: A valid integer is required.",
        "  limit_type: \"Sometimes\" is not a valid choice.",
        "  qos_strategy: \"none\" is not a valid choice.",
        "  raw_usage_reset: Must be a valid boolean.",
    ] {
        assert!(refused.err.contains(wanted), "{wanted}: {}", refused.err);
    }
    let refused = operator.policy(&["create", "--yes", "--period", "fortnight"]);
    assert!(refused.err.contains("actions: This field is required."), "{}", refused.err);
    assert!(refused.err.contains("fortnight"), "an unknown word is the server's to judge: {}", refused.err);
    let nothing = operator.policy(&["create", "--yes"]);
    assert!(nothing.status == 2 && nothing.err.contains("say what the policy is to be"), "{nothing:?}");
    assert!(portal.handle.with_state(|state| state.policies.is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_verb_says_that_a_policy_is_not_there() {
    let portal = portal(monthly()).await;
    let operator = Operator::of(&portal);
    for args in every_verb(NOWHERE) {
        let seen = operator.policy(&args);
        assert_eq!((seen.status, seen.out.as_str()), (2, ""), "{args:?}: {seen:?}");
        assert!(seen.err.contains("(status 404)") && seen.err.contains("matches"), "{args:?}: {}", seen.err);
    }
    let seen = operator.policy(&["show", "../users/me"]);
    assert!(seen.status == 2 && seen.err.contains("is not the uuid of a policy"), "{seen:?}");
    let seen = operator.policy(&["logs", POLICY, "--resource", "nobody"]);
    assert!(seen.status == 2 && seen.err.contains("no resource with account \"nobody\""), "{seen:?}");
}

/// Every verb that is about one policy.
fn every_verb(uuid: &str) -> Vec<Vec<&str>> {
    vec![
        vec!["show", uuid],
        vec!["update", uuid, "--yes", "--grace-ratio", "0.1"],
        vec!["update", uuid, "--yes", "--replace", "--period", "month", "--actions", "request_pausing"],
        vec!["delete", uuid, "--yes"],
        vec!["dry-run", uuid],
        vec!["evaluate", uuid, "--yes"],
        vec!["force-period-reset", uuid, "--yes"],
        vec!["logs", uuid],
        vec!["commands", uuid],
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_is_told_by_every_verb_and_never_shown() {
    let portal = portal(monthly()).await;
    let operator = Operator::new(&[("portal", &portal.url, OFFERING)], "wrong-secret");
    let others: [&[&str]; 4] = [
        &["list"],
        &["actions"],
        &["create", "--yes", "--actions", "request_pausing"],
        &["preview", "--server"],
    ];
    for args in every_verb(POLICY).into_iter().chain(others.map(<[&str]>::to_vec)) {
        let seen = operator.policy(&args);
        assert_eq!((seen.status, seen.out.as_str()), (2, ""), "{args:?}: {seen:?}");
        assert!(seen.err.contains("does not accept the token (status 401)"), "{args:?}: {}", seen.err);
        assert!(!seen.err.contains("wrong-secret"), "{args:?}: {}", seen.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_may_not_evaluate() {
    let portal = portal(monthly()).await;
    let operator = Operator::new(&[("portal", &portal.url, OFFERING)], "owner-token");
    for verb in ["dry-run", "evaluate", "force-period-reset"] {
        let args = if verb == "dry-run" { vec![verb, POLICY] } else { vec![verb, POLICY, "--yes"] };
        let seen = operator.policy(&args);
        assert!(seen.status == 2 && seen.err.contains("(status 403)"), "{verb}: {seen:?}");
    }
    assert_eq!(operator.json(&["list"]).as_array().unwrap().len(), 1, "looking is allowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_terminal_and_without_yes_nothing_is_changed() {
    let portal = portal(monthly()).await;
    let operator = Operator::of(&portal);
    for args in every_verb(POLICY).iter().filter(|args| args.contains(&"--yes")) {
        let args: Vec<&str> = args.iter().filter(|word| **word != "--yes").copied().collect();
        let seen = operator.policy(&args);
        assert_eq!((seen.status, seen.out.as_str()), (2, ""), "{args:?}: {seen:?}");
        assert!(seen.err.contains("nothing was done; say --yes"), "{args:?}: {}", seen.err);
    }
    let seen = operator.policy(&["create", "--actions", "request_pausing"]);
    assert_eq!(seen.status, 2, "{seen:?}");
    assert_eq!(portal.handle.requests().len(), 0, "the server was not even asked");
}

/// Runs `policy ARGS` on a terminal of its own on which `answer` is typed.
fn on_a_terminal(operator: &Operator, args: &str, answer: &str) -> (i32, String) {
    use std::io::Write;
    let line = format!(
        "{} --config {}/config.toml policy {args}",
        env!("CARGO_BIN_EXE_slurm-site-agent"),
        operator.folder.path().display()
    );
    let mut child = Command::new("script")
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .env("TERM", "dumb")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script of util-linux");
    child.stdin.take().unwrap().write_all(format!("{answer}\n").as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stdout).replace('\r', ""))
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_terminal_the_change_is_shown_and_only_a_yes_does_it() {
    let portal = portal(monthly()).await;
    let operator = Operator::of(&portal);
    let grace = || portal.handle.with_state(|state| state.policies[0].grace_ratio);
    let update = format!("update {POLICY} --grace-ratio 0.5");
    let (status, screen) = on_a_terminal(&operator, &update, "n");
    assert_eq!((status, grace()), (2, 0.2), "{screen}");
    assert!(line(&screen, "grace_ratio").starts_with(&["grace_ratio", "0.2", "0.5"]), "{screen}");
    assert!(screen.contains("Do it? [y/N]") && screen.contains("nothing was done"), "{screen}");
    let (status, screen) = on_a_terminal(&operator, &update, "y");
    assert_eq!((status, grace()), (0, 0.5), "{screen}");
    let (status, screen) = on_a_terminal(&operator, &format!("evaluate {POLICY}"), "");
    assert_eq!(status, 2, "no answer is no consent: {screen}");
    assert!(line(&screen, "over").contains(&"130.00"), "the dry run is shown first: {screen}");
    assert!(portal.handle.with_state(|state| state.evaluation_logs.is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_several_sources_one_has_to_be_named_and_list_can_show_all() {
    let first = portal(monthly()).await;
    let second = portal(json!([])).await;
    let other = "11111111-1111-4111-8111-111111111111";
    let operator = Operator::new(&[("one", &first.url, OFFERING), ("two", &second.url, other)], TOKEN);
    let seen = operator.policy(&["list"]);
    assert!(seen.status == 2 && seen.err.contains("--source with one of one, two"), "{seen:?}");
    let seen = operator.policy(&["list", "--source", "three"]);
    assert!(seen.status == 2 && seen.err.contains("it has one, two"), "{seen:?}");
    assert_eq!(operator.json(&["list", "--source", "one"]).as_array().unwrap().len(), 1);
    assert_eq!(operator.json(&["list", "--source", "two"]), json!([]));
    let nobody = Operator::new(&[], TOKEN);
    let seen = nobody.policy(&["list"]);
    assert!(seen.status == 2 && seen.err.contains("no server to ask"), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_down_ends_with_3() {
    let unused = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("http://{}/", unused.local_addr().unwrap());
    drop(unused);
    let operator = Operator::new(&[("portal", &url, OFFERING)], TOKEN);
    let seen = operator.policy(&["list"]);
    assert!(seen.status == 3 && seen.err.contains("no answer"), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_preview_is_shown_and_a_resource_brings_its_numbers() {
    let portal = portal(monthly()).await;
    let operator = Operator::of(&portal);
    let resource = portal.handle.with_state(|state| state.resources[1].uuid.to_string());
    let seen = operator.policy(&["preview", "--server", "--resource", &resource]);
    assert_eq!(seen.status, 0, "the server's answer is what its formulas give: {seen:?}");
    assert!(seen.out.contains("Used        85 (85 %), 8.5 a day, level notification"), "{}", seen.out);
    assert!(seen.out.contains("set fairshare=500"), "the server's commands are shown: {}", seen.out);
    let refused = operator.policy(&["preview", "--server", "--grace-ratio", "5"]);
    assert!(refused.status == 2 && refused.err.contains("grace_ratio: Ensure this value"), "{refused:?}");
}

#[test]
fn the_preview_needs_neither_configuration_nor_server_and_no_escape_is_piped() {
    let args = "preview --allocation 1000 --previous-usage 700 --current-usage 900 --daily-usage-rate 50";
    let place = Path::new("/nonexistent/config.toml");
    let seen = ended(program().arg("--config").arg(place).arg("policy").args(args.split(' ')));
    assert_eq!((seen.status, seen.err.as_str()), (0, ""));
    // 300 of 1000 were left, at most 500 go over: 1300. 80 % is 1040, 2.8 days away; 1.2 x 1300 is 1560, 13.2 days away.
    let carried = "Allocation  1300 = 1000 + 300 carried over (300 not used before, at most 500)";
    assert!(seen.out.starts_with(carried), "{}", seen.out);
    assert_eq!(line(&seen.out, "notification")[1..4], ["1040", "projected", "2"]);
    assert_eq!(line(&seen.out, "blocked")[1..4], ["1560", "projected", "13"]);
    assert!(seen.out.contains("Left until blocked, if use goes on at 50.00 a day"), "{}", seen.out);
    assert!(seen.out.lines().all(|line| line.len() <= 80), "{}", seen.out);
    assert!(!seen.out.contains('\x1b'), "{}", seen.out);
}

#[test]
fn an_emulated_account_is_previewed_from_the_ledger_with_its_policy_and_commands() {
    let world = tempfile::tempdir().unwrap();
    let emulated = |args: &[&str]| {
        ended(program().arg("--emulator").arg("--emulator-state").arg(world.path()).args(args))
    };
    assert!(emulated(&["--evaluate-now"]).status <= 1);
    let seen = emulated(&["policy", "preview", "--account", "geology", "--json"]);
    assert_eq!(seen.status, 0, "{seen:?}");
    let preview: Value = serde_json::from_str(&seen.out).unwrap();
    let usage: Value =
        serde_json::from_str(&emulated(&["usage", "geology", "--json"]).out).expect("usage answers JSON");
    let components = usage["accounts"][0]["components"].as_object().unwrap();
    let sum = |field: &str| -> f64 {
        components.values().map(|c| c[field].as_str().unwrap().parse::<f64>().unwrap()).sum()
    };
    let close = |a: &Value, b: f64| (a.as_f64().unwrap() - b).abs() < 0.001;
    assert!(sum("used") > 0.0 && close(&preview["current_usage"], sum("used")), "{preview}");
    assert!(close(&preview["base_allocation"], sum("base")), "{preview}");
    // The tenth of the month: ten days so far.
    assert!(close(&preview["daily_usage_rate"], sum("used") / 10.0), "{preview}");
    assert_eq!(preview["billing_period_end"], "2026-11-30");
    assert_eq!(preview["preview_commands"][0]["type"], "fairshare");
    let more = emulated(&["policy", "preview", "--account", "geology", "--allocation", "100000", "--json"]);
    let more: Value = serde_json::from_str(&more.out).unwrap();
    assert_eq!(
        (&more["base_allocation"], &more["current_qos_status"]),
        (&json!(100_000.0), &json!("normal"))
    );
    let nobody = emulated(&["policy", "preview", "--account", "nobody"]);
    assert!(nobody.status == 2 && nobody.err.contains("has no allocation"), "{nobody:?}");
}

/// Amounts with two digits after the point, where a half to round is likely; rates with one.
fn cents(most: i32) -> impl Strategy<Value = f64> {
    (0..most).prop_map(|cents| f64::from(cents) / 100.0)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_local_preview_equals_the_servers_field_by_field() {
    let portal = portal(json!([])).await;
    // Real time: both programs have to have the same today.
    portal.handle.with_state(|state| state.clock = serde_json::from_value(json!({"offset_s": 0})).unwrap());
    let operator = Operator::of(&portal);
    let input = (
        prop_oneof![Just(0.0), cents(500_000), Just(1e9)],
        (0..=100u32).prop_map(|percent| f64::from(percent) / 100.0),
        prop_oneof![Just(0.0), cents(600_000)],
        0..=100u32,
        any::<bool>(),
        cents(700_000),
        prop_oneof![Just(0.0), cents(20_000), Just(1e-9)],
    );
    let mut runner = TestRunner::new(Runs { cases: 48, failure_persistence: None, ..Runs::default() });
    runner
        .run(&input, |(allocation, grace, previous, factor, carryover, current, daily)| {
            let args = [
                format!("--allocation={allocation}"),
                format!("--grace-ratio={grace}"),
                format!("--previous-usage={previous}"),
                format!("--carryover-factor={factor}"),
                format!("--carryover-enabled={carryover}"),
                format!("--current-usage={current}"),
                format!("--daily-usage-rate={daily}"),
            ];
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            let local = || operator.json(&[&["preview"], args.as_slice()].concat());
            let (before, server) =
                (local(), operator.json(&[&["preview", "--server"], args.as_slice()].concat()));
            // The day may have changed between the two.
            let ours = if before == server { before } else { local() };
            let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
            prop_assert_eq!(names(&ours), names(&server));
            for name in names(&ours) {
                prop_assert_eq!(&ours[&name], &server[&name], "{}", name);
            }
            Ok(())
        })
        .unwrap();
}
