//! What a central server may say.

use serde_json::{Value, json};
use slurm_site_agent::agent::cycle::CycleReport;

use crate::bench::Bench;
use crate::raw::{Raw, Said};

const OFFERING: &str = "5e1f0a3c9b7d4e2f8a6c1d0b3e5f7a90";
/// Everything that the agent may be asked to do in these tests is asked for this account.
const GOOD: &str = "chemistry";

fn policy() -> Value {
    json!({
        "uuid": "b7d1f0aa2c5e4d7b9e135a0c8f2e6d41", "scope_uuid": OFFERING, "scope_name": "Emulated cluster", "period": 2,
        "actions": "request_slurm_resource_downscaling,request_slurm_resource_pausing", "limit_type": "GrpTRESMins",
        "tres_billing_enabled": true, "tres_billing_weights": {"CPU": 1}, "qos_strategy": "threshold",
    })
}

fn resource(backend_id: &str, limits: Value) -> Value {
    json!({
        "uuid": uuid(backend_id), "name": "a resource", "backend_id": backend_id, "state": "OK", "limits": limits,
        "paused": false, "downscaled": false, "offering_uuid": OFFERING,
    })
}

/// 32 hexadecimal digits that differ with the text.
fn uuid(text: &str) -> String {
    let hash = |seed: u64| {
        text.bytes().fold(seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
    };
    format!("{:016x}{:016x}", hash(1), hash(2))
}

fn command(kind: &str, parameters: Value) -> Value {
    json!({
        "uuid": uuid(&format!("{kind}{parameters}")), "command_type": kind, "description": "a command",
        "shell_command": "touch /tmp/never", "parameters": parameters, "executed_at": "2026-11-10T11:50:00Z",
    })
}

fn list(rows: &[Value]) -> Said {
    Said::json(Value::from(rows.to_vec()).to_string())
}

/// What the three lists of the server say; everything that is sent to it is taken.
#[derive(Clone)]
struct Lists {
    policies: Said,
    resources: Said,
    commands: Said,
}

impl Lists {
    fn good() -> Lists {
        Lists {
            policies: list(&[policy()]),
            resources: list(&[resource(GOOD, json!({"cpu": 1000}))]),
            commands: list(&[]),
        }
    }
}

/// A bench whose portal is this one.
async fn bench(lists: Lists) -> (Bench, Raw) {
    let lists_without_end = [&lists.policies, &lists.resources];
    let is_silent = lists_without_end.iter().any(|said| said.silent || said.drips);
    let raw = Raw::start(move |target, _| match target {
        _ if target.starts_with("POST") => Said::json("{}"),
        _ if target.contains("command-history") => lists.commands.clone(),
        _ if target.contains("usage-policies") => lists.policies.clone(),
        _ if target.contains("provider-resources") => lists.resources.clone(),
        _ => list(&[]),
    })
    .await;
    // One that does not answer is not worth two seconds of a test.
    let patience = if is_silent { "100ms" } else { "2s" };
    let bench = Bench::at(&raw.url, ("timeout = \"2s\"", &format!("timeout = \"{patience}\""))).await;
    (bench, raw)
}

fn said(report: &CycleReport) -> String {
    let sources = report.sources.iter();
    sources
        .flat_map(|s| s.error.iter().chain(&s.notices).chain(&s.warnings))
        .cloned()
        .collect::<Vec<_>>()
        .join("\n")
}

#[tokio::test]
async fn an_answer_that_is_no_list_changes_nothing_and_is_named() {
    let cut = policy().to_string()[..40].to_owned();
    let huge = format!("[{}{}]", policy(), " ".repeat(2 << 20));
    let cases: Vec<(&str, Said, &str)> = vec![
        ("a login page", Said::html(200, "<html>Log in, please</html>"), "not JSON"),
        ("a proxy's page", Said::html(502, "<h1>Bad Gateway</h1>"), "status 502"),
        ("a cut answer", Said::json(cut), "not JSON"),
        ("a huge answer", Said::json(huge), "larger than"),
        ("silence", Said::silence(), "no answer"),
        ("a byte now and then", Said::drips(), "timed out"),
        ("nothing", Said::json(""), "not JSON"),
        ("an object", Said::json(policy().to_string()), "shape"),
        ("null", Said::json("null"), "shape"),
        ("a text", Said::json("\"policies\""), "shape"),
        ("a number", Said::json("1e400"), "not JSON"),
        ("nested a thousand times", Said::json("[".repeat(1000)), "not JSON"),
        ("a status of nobody", Said { status: 299, ..Said::json("[") }, "not JSON"),
    ];
    for (what, answer, words) in cases {
        for list in ["policies", "resources"] {
            let mut lists = Lists::good();
            match list {
                "policies" => lists.policies = answer.clone(),
                _ => lists.resources = answer.clone(),
            }
            let (mut bench, raw) = bench(lists).await;
            let report = bench.cycle().await;
            assert!(said(&report).contains(words), "{list}: {what}: {:?}", said(&report));
            assert!(report.needs_attention(), "{list}: {what}");
            assert_eq!(bench.modifies(), Vec::<String>::new(), "{list}: {what}");
            let told = |(target, _): &(String, String)| target.starts_with("POST /api/");
            assert!(!raw.seen().iter().any(told), "{list}: {what}: nothing is told to the portal");
        }
    }
}

#[tokio::test]
async fn a_list_of_commands_that_is_none_stops_nothing_else() {
    for answer in [Said::html(200, "<html>"), Said::json("{}"), Said::json("["), Said::html(500, "oops")] {
        let (mut bench, _raw) = bench(Lists { commands: answer.clone(), ..Lists::good() }).await;
        let report = bench.cycle().await;
        assert!(!said(&report).is_empty() && report.needs_attention(), "{answer:?}");
        let modifies = bench.modifies();
        assert_eq!(modifies.len(), 1, "{answer:?}: {modifies:?}");
        assert!(modifies[0].contains("name=chemistry"), "{modifies:?}");
    }
}

#[tokio::test]
async fn a_row_that_is_not_understood_is_left_out_and_the_others_hold() {
    let odd: Vec<(&str, Value)> = vec![
        ("no object", json!(7)),
        ("no uuid", json!({"backend_id": "physics", "limits": {"cpu": 1}})),
        ("negative", resource("physics", json!({"cpu": -1}))),
        ("NaN", resource("physics", json!({"cpu": "NaN"}))),
        ("infinite", resource("physics", json!({"cpu": "Infinity"}))),
        ("huge", resource("physics", json!({"cpu": 1e300}))),
        ("the largest float", resource("physics", json!({"cpu": 1e308}))),
        ("the smallest float", resource("physics", json!({"cpu": -1e308}))),
        ("a text of a number without end", resource("physics", json!({"cpu": "9".repeat(100_000)}))),
        ("deep", {
            let deep = (0..100).fold(json!(1), |inner, _| json!([inner]));
            resource("physics", json!({"cpu": deep}))
        }),
        ("a list", resource("physics", json!({"cpu": [1]}))),
        ("true", resource("physics", json!({"cpu": true}))),
        ("limits are a text", resource("physics", json!("cpu=5"))),
        ("paused is a text", {
            let mut row = resource("physics", json!({"cpu": 1}));
            row["paused"] = json!("yes");
            row
        }),
        ("another offering", {
            let mut row = resource("physics", json!({"cpu": 1}));
            row["offering_uuid"] = json!("00000000000000000000000000000000");
            row
        }),
    ];
    for (what, row) in odd {
        let rows = [row, resource(GOOD, json!({"cpu": 1000}))];
        let (mut bench, _raw) = bench(Lists { resources: list(&rows), ..Lists::good() }).await;
        let report = bench.cycle().await;
        assert!(said(&report).contains("left out"), "{what}: {:?}", said(&report));
        let modifies = bench.modifies();
        assert_eq!(modifies.len(), 1, "{what}: {modifies:?}");
        assert!(modifies[0].contains("name=chemistry "), "{what}: {modifies:?}");
    }
}

#[tokio::test]
async fn an_account_that_could_be_something_else_is_never_touched() {
    let mut names: Vec<String> = [
        "root",
        "ROOT",
        "-i",
        "--all",
        "a,b",
        "chemistry,physics",
        "a=b",
        "physics cluster=emulated",
        "physics\nset",
        "",
        " physics",
        "physics ",
        "'physics'",
        "\"physics\"",
        "phys|ics",
        "phy\u{1f}sics",
        "phy\u{0}sics",
        "$(physics)",
        "*",
        "physics;reboot",
        "ｐhysics",
        "\u{202e}scisyhp",
        "nowhere",
    ]
    .map(str::to_owned)
    .into();
    names.push("p".repeat(10 * 1024));
    let mut rows: Vec<Value> = names.iter().map(|name| resource(name, json!({"cpu": 1}))).collect();
    rows.push(resource(GOOD, json!({"cpu": 1000})));
    let (mut bench, _raw) = bench(Lists { resources: list(&rows), ..Lists::good() }).await;
    let report = bench.cycle().await;
    let modifies = bench.modifies();
    assert_eq!(modifies.len(), 1, "{modifies:?}");
    assert!(modifies[0].contains(" where name=chemistry cluster=emulated set "), "{modifies:?}");
    // `nowhere` is a good name of an account that is not there: undecided, and said.
    let undecided: Vec<String> =
        report.decisions.iter().filter(|d| d.decided().is_none()).map(|d| d.account().to_string()).collect();
    assert_eq!(undecided, ["nowhere"]);
    assert_eq!(said(&report).matches("left out").count(), names.len() - 1, "{}", said(&report));
}

#[tokio::test]
async fn a_redirect_leads_nowhere_and_takes_no_token_along() {
    for status in [301, 302, 303, 307, 308] {
        let thief = Raw::start(|_, _| list(&[])).await;
        let away = Said::elsewhere(status, &format!("{}/api/steal", thief.url));
        for name in ["policies", "resources", "commands"] {
            let mut lists = Lists::good();
            match name {
                "policies" => lists.policies = away.clone(),
                "resources" => lists.resources = away.clone(),
                _ => lists.commands = away.clone(),
            }
            let (mut bench, _raw) = bench(lists).await;
            let report = bench.cycle().await;
            assert_eq!(thief.seen(), [], "{status}: {name}");
            assert!(report.needs_attention(), "{status}: {name}");
            let expected = usize::from(name == "commands");
            assert_eq!(bench.modifies().len(), expected, "{status}: {name}: {}", said(&report));
        }
    }
}

#[tokio::test]
async fn two_resources_of_one_account_and_rows_told_twice_come_to_one_answer_that_stays() {
    let generous = resource(GOOD, json!({"cpu": 1000}));
    let mut small = resource(GOOD, json!({"cpu": 10}));
    let same_uuid = small.clone();
    small["uuid"] = json!(uuid("another"));
    let mut loud = small.clone();
    loud["backend_id"] = json!(GOOD.to_uppercase());
    for (what, second) in [("another uuid", small), ("the same uuid", same_uuid), ("capitals", loud)] {
        let mut limits = Vec::new();
        for rows in [[generous.clone(), second.clone()], [second.clone(), generous.clone()]] {
            let (mut bench, _raw) = bench(Lists { resources: list(&rows), ..Lists::good() }).await;
            let report = bench.cycle().await;
            let modifies = bench.modifies();
            assert!(modifies.len() <= 1, "{what}: {modifies:?}");
            bench.cycle().await;
            assert_eq!(bench.modifies(), [""; 0], "{what}: the second cycle: {}", said(&report));
            limits.push(modifies);
        }
        assert_eq!(limits[0], limits[1], "{what}: whichever comes first");
        assert_eq!(limits[0].is_empty(), what == "the same uuid", "{what}: {limits:?}");
        assert!(
            limits[0].iter().all(|argv| !argv.contains("=72000 ")),
            "{what}: never the generous one: {limits:?}"
        );
    }
    // Policies with one uuid that say different things.
    let mut other = policy();
    other["grace_ratio"] = json!(1);
    let mut seen = Vec::new();
    for rows in [[policy(), other.clone()], [other.clone(), policy()]] {
        let (mut bench, _raw) = bench(Lists { policies: list(&rows), ..Lists::good() }).await;
        bench.cycle().await;
        let modifies = bench.modifies();
        bench.cycle().await;
        assert_eq!(bench.modifies(), [""; 0], "the second cycle changes nothing");
        seen.push(modifies);
    }
    assert_eq!(seen[0], seen[1], "whichever comes first");
}

#[tokio::test]
async fn a_policy_that_is_not_understood_decides_nothing() {
    let with = |field: &str, value: Value| {
        let mut row = policy();
        row[field] = value;
        row
    };
    for row in [
        with("period", json!(9)),
        with("period", json!("month")),
        with("period", json!(2.5)),
        with("period", json!(null)),
        with("limit_type", json!("GrpTRESMinutes")),
        with("limit_type", json!(5)),
        with("qos_strategy", json!("lottery")),
        with("grace_ratio", json!(-0.1)),
        with("grace_ratio", json!("NaN")),
        with("carryover_factor", json!(1000)),
        with("tres_billing_weights", json!({"CPU": -1})),
        with("tres_billing_weights", json!({"CPU": "NaN"})),
        with("tres_billing_weights", json!([1])),
        with("tres_billing_enabled", json!("maybe")),
        with("actions", json!(["pause"])),
        with("uuid", json!(null)),
        with("scope_uuid", json!("00000000000000000000000000000000")),
        with("component_limits_set", json!([{"type": "cpu"}])),
    ] {
        let (mut bench, _raw) =
            bench(Lists { policies: list(std::slice::from_ref(&row)), ..Lists::good() }).await;
        let report = bench.cycle().await;
        assert!(said(&report).contains("left out"), "{row}: {:?}", said(&report));
        assert_eq!(bench.modifies(), Vec::<String>::new(), "{row}");
    }
    // A policy's id is a part of an address: nothing in it may lead elsewhere.
    let (mut bench, raw) =
        bench(Lists { policies: list(&[with("uuid", json!("../../users/me"))]), ..Lists::good() }).await;
    bench.cycle().await;
    assert!(raw.seen().iter().all(|(target, _)| !target.contains("users/me")), "{:?}", raw.seen());
}

#[tokio::test]
async fn amounts_that_have_no_room_in_slurm_decide_nothing() {
    for limits in [
        json!({"cpu": "999999999999999999999999999999"}),
        json!({"cpu": 1e17, "mem": 1e17}),
        json!({"cpu": "0.000000000000000001", "mem": 1e18}),
        json!({"tapes": 5}),
        json!({}),
    ] {
        let rows = [resource("physics", limits.clone()), resource(GOOD, json!({"cpu": 1000}))];
        let (mut bench, _raw) = bench(Lists { resources: list(&rows), ..Lists::good() }).await;
        bench.cycle().await;
        for argv in bench.modifies().iter().filter(|argv| argv.contains("physics")) {
            // What is set must be a number that Slurm takes for what it is.
            for (name, value) in argv.split([' ', ',']).filter_map(|word| word.rsplit_once('=')) {
                if let Ok(number) = value.parse::<i128>() {
                    assert!((-1..=i128::from(u64::MAX - 2)).contains(&number), "{limits}: {name} in {argv}");
                }
            }
            assert!(!argv.contains("e+") && !argv.contains("inf"), "{limits}: {argv}");
        }
    }
}

/// Commands that must be refused, each with a word of the reason.
fn refused() -> Vec<(Value, &'static str)> {
    let long = "p".repeat(10 * 1024);
    vec![
        (command("fairshare", json!({"account": "root", "fairshare": 1})), "belongs to no allocation"),
        (command("fairshare", json!({"account": "physics", "fairshare": 1})), "belongs to no allocation"),
        (command("fairshare", json!({"account": "-i", "fairshare": 1})), "not a usable account name"),
        (
            command("fairshare", json!({"account": "chemistry,physics", "fairshare": 1})),
            "not a usable account name",
        ),
        (
            command("fairshare", json!({"account": "chemistry=1", "fairshare": 1})),
            "not a usable account name",
        ),
        (
            command("fairshare", json!({"account": "chemistry\nphysics", "fairshare": 1})),
            "not a usable account name",
        ),
        (command("fairshare", json!({"account": long, "fairshare": 1})), "not a usable account name"),
        (command("fairshare", json!({"account": "", "fairshare": 1})), "not a usable account name"),
        (command("fairshare", json!({"fairshare": 2})), "account"),
        (command("fairshare", json!({"account": GOOD})), "fairshare"),
        (command("selfdestruct", json!({"account": GOOD})), "selfdestruct"),
        (command("", json!({"account": GOOD})), "not known"),
    ]
}

#[tokio::test]
async fn a_hostile_command_is_refused_with_its_reason_and_nothing_is_run_for_it() {
    for (row, words) in refused() {
        let (mut bench, raw) =
            bench(Lists { commands: list(std::slice::from_ref(&row)), ..Lists::good() }).await;
        let report = bench.cycle().await;
        assert_eq!(report.commands.len(), 1, "{row}: {report:#?}");
        let verdict = &report.commands[0].verdict;
        assert!(verdict.error.contains(words), "{row}: {verdict:?}");
        assert!(verdict.commands.is_empty(), "{row}: {verdict:?}");
        let modifies = bench.modifies();
        assert_eq!(modifies.len(), 1, "the policy's own: {modifies:?}");
        assert!(
            modifies[0].contains("name=chemistry ") && !modifies[0].contains("fairshare=1 "),
            "{modifies:?}"
        );
        // Where the server can be told, it is; a verdict on no resource of ours stays in the history.
        let told = raw.seen().iter().filter(|(target, _)| target.contains("report-command-result")).count();
        assert!(told <= 1, "{row}");
    }
}

#[tokio::test]
async fn hostile_values_of_a_command_for_a_good_account_never_reach_sacctmgr() {
    for (kind, parameters) in [
        ("fairshare", json!({"fairshare": -1})),
        ("fairshare", json!({"fairshare": 1.5})),
        ("fairshare", json!({"fairshare": 1e99})),
        ("fairshare", json!({"fairshare": "parent"})),
        ("fairshare", json!({"fairshare": "5 qos=normal"})),
        ("fairshare", json!({"fairshare": 4_294_967_296_u64})),
        ("limits", json!({"limit_type": "GrpTRESMins"})),
        ("limits", json!({"limit_type": "MaxJobs", "limits": {"cpu": 5}})),
        ("limits", json!({"limit_type": "GrpTRESMins", "limits": {"cpu": -5}})),
        ("limits", json!({"limit_type": "GrpTRESMins", "limits": {"cpu": "NaN"}})),
        ("limits", json!({"limit_type": "GrpTRESMins", "limits": {"cpu": 1e30}})),
        (
            "limits",
            json!({"limit_type": "GrpTRESMins", "limits": {"cpu": "999999999999999999999999999999999999"}}),
        ),
        ("limits", json!({"limit_type": "GrpTRESMins", "limits": {"cpu,mem": 5}})),
        ("limits", json!({"limit_type": "GrpTRESMins", "limits": {"cpu=1,gres/gpu": 5}})),
        ("limits", json!({"limit_type": "GrpTRESMins", "limits": {"gres/gpu fairshare": 5}})),
        ("limits", json!({"limit_type": "GrpTRESMins", "limits": {"\u{1b}[31m": 5}})),
        ("limits", json!({"limit_type": "GrpTRESMins", "limits": {"": 5}})),
        ("limits", json!({"limit_type": "GrpTRESMins", "limits": {"energy": 5}})),
        ("limits", json!({"limit_type": "GrpTRESMins", "limits": ["cpu"]})),
        ("qos", json!({"qos": "normal,blocked"})),
        ("qos", json!({"qos": "-1"})),
        ("qos", json!({"qos": ""})),
        ("qos", json!({"qos": "+normal"})),
        ("qos", json!({"qos": "normal set fairshare=9"})),
        ("qos", json!({"qos": ["normal"]})),
        ("qos", json!({})),
    ] {
        let mut parameters = parameters;
        parameters["account"] = json!(GOOD);
        let row = command(kind, parameters);
        let (mut plain, _raw) = bench(Lists::good()).await;
        plain.cycle().await;
        let (mut bench, raw) =
            bench(Lists { commands: list(std::slice::from_ref(&row)), ..Lists::good() }).await;
        let report = bench.cycle().await;
        assert_eq!(report.commands.len(), 1, "{row}");
        assert!(!report.commands[0].verdict.error.is_empty(), "{row}: {:?}", report.commands[0]);
        assert_eq!(bench.modifies(), plain.modifies(), "{row}");
        let told: Vec<Value> = raw
            .seen()
            .iter()
            .filter(|(target, _)| target.contains("report-command-result"))
            .map(|(_, body)| serde_json::from_str(body).expect("JSON"))
            .collect();
        assert_eq!(told.len(), 1, "{row}");
        assert_eq!(
            (&told[0]["success"], &told[0]["commands_executed"]),
            (&json!(false), &json!([])),
            "{row}"
        );
        assert!(told[0]["error_message"].as_str().is_some_and(|text| !text.is_empty()), "{row}");
    }
}
