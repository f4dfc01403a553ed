//! The command line as a person or a script meets it: help, exit codes, messages, JSON shapes, shipped configurations. The
//! real program is run; what it works on is the emulated world or a folder of the test.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use slurm_site_agent::core::association::Assignments;
use slurm_site_agent::core::command::{Command as ServerCommand, CommandKind};
use slurm_site_agent::core::name::{AccountName, ClusterName, Names, SourceName};
use slurm_site_agent::core::plan::{Change, PlannedChange};
use slurm_site_agent::core::report::{ComponentUsage, Message, MessageKind};
use slurm_site_agent::core::time::Epoch;
use slurm_site_agent::store::Store;
use support::Lab;

/// A folder that the program sees as its home and works in.
struct Place {
    folder: tempfile::TempDir,
}

/// How a run ended.
struct Ended {
    code: i32,
    out: String,
    err: String,
}

impl Place {
    fn new() -> Place {
        Place { folder: tempfile::tempdir().expect("a folder") }
    }

    /// The folder with an emulated world in which one cycle has run.
    fn emulated() -> Place {
        let place = Place::new();
        let first = place.emulator(&["--evaluate-now"]);
        assert_eq!(first.code, 0, "{}\n{}", first.out, first.err);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A configuration with its store in the folder, and a Slurm that is not there.
    fn config(&self, more: &str) -> String {
        let path = self.path("config.toml");
        let text = format!(
            "[cluster]\nname = \"lab\"\nbin_dir = \"{0}\"\n[store]\npath = \"{0}/store/state.db\"\n{more}",
            self.folder.path().display()
        );
        std::fs::write(&path, text).expect("a configuration");
        path.display().to_string()
    }

    fn run(&self, args: &[&str]) -> Ended {
        let mut command = Command::new(env!("CARGO_BIN_EXE_slurm-site-agent"));
        command.args(args).env_clear().current_dir(self.folder.path()).stdin(Stdio::null());
        command.env("PATH", "/usr/bin:/bin").env("HOME", self.folder.path()).env("TZ", "UTC");
        let Output { status, stdout, stderr } = command.output().expect("the program starts");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("the program prints UTF-8");
        Ended { code: status.code().expect("it ends by itself"), out: text(stdout), err: text(stderr) }
    }

    fn emulator(&self, args: &[&str]) -> Ended {
        let state = self.path("emulator");
        let options = ["--emulator", "--emulator-state", state.to_str().expect("UTF-8")];
        self.run(&[&options, args].concat())
    }

    fn emulator_json(&self, args: &[&str]) -> Value {
        let ended = self.emulator(&[args, &["--json"]].concat());
        serde_json::from_str(&ended.out)
            .unwrap_or_else(|error| panic!("{error}: {}\n{}", ended.out, ended.err))
    }
}

/// Verbs as the program lists them, `help` left out.
fn verbs(place: &Place) -> Vec<String> {
    let help = place.run(&["--help"]).out;
    let (_, list) = help.split_once("Commands:\n").expect("a list of verbs");
    let lines = list.lines().take_while(|line| !line.trim().is_empty());
    let verb =
        |line: &str| line.strip_prefix("  ")?.split(' ').next().filter(|w| !w.is_empty()).map(str::to_owned);
    lines.filter_map(verb).filter(|verb| verb != "help").collect()
}

#[test]
fn every_verb_explains_itself_with_an_example() {
    let place = Place::new();
    let all = verbs(&place);
    for own in ["check", "check-config", "confirm", "explain", "history", "status", "usage"] {
        assert!(all.iter().any(|verb| verb == own), "{own} is among {all:?}");
    }
    for verb in &all {
        let help = place.run(&[verb, "--help"]);
        assert_eq!((help.code, help.err.as_str()), (0, ""), "{verb}");
        assert!(help.out.contains("Example"), "{verb} has no example:\n{}", help.out);
        assert!(help.out.contains(&format!("slurm-site-agent {verb}")), "{verb} shows how it is typed");
        let short = place.run(&[verb, "-h"]).out;
        assert!(short.lines().count() < help.out.lines().count(), "{verb} -h is shorter than --help");
    }
}

#[test]
fn ledger_verify_names_what_differs_and_repair_mends_it() {
    let place = Place::emulated();
    let equal = place.emulator(&["ledger", "verify"]);
    assert_eq!((equal.code, equal.err.as_str()), (0, ""), "{}", equal.out);
    assert!(equal.out.contains("KEPT TOTALS") && equal.out.contains("equal a recount"), "{}", equal.out);

    let store = rusqlite::Connection::open(place.path("emulator").join("state.db")).expect("the store");
    let changed = store
        .execute(
            // Version 1; one TRES, cpu; one user, u, with 7.
            "UPDATE totals SET used = CAST(char(1, 1, 3) || 'cpu' || char(1, 1) || 'u' || char(7) AS BLOB) \
             WHERE (window, account) = (SELECT window, account FROM totals ORDER BY window, account LIMIT 1)",
            [],
        )
        .expect("a row of totals");
    assert_eq!(changed, 1);
    drop(store);

    let differs = place.emulator(&["ledger", "verify"]);
    assert_eq!(differs.code, 1, "{}", differs.out);
    assert!(
        differs.out.contains("DIFFERENCES") && differs.out.contains("ledger verify --repair"),
        "{}",
        differs.out
    );
    let report = place.emulator_json(&["ledger", "verify"]);
    assert_eq!(report["agrees"], false);
    let differences: Vec<&Value> = report["windows"]
        .as_array()
        .expect("windows")
        .iter()
        .flat_map(|window| window["differences"].as_array().expect("differences"))
        .collect();
    let of = |whose: &dyn Fn(&Value) -> bool| {
        *differences.iter().find(|one| one["tres"] == "cpu" && whose(&one["user"])).expect("a difference")
    };
    let (odd, lost) = (of(&|user| user == "u"), of(&|user| user != "u"));
    assert_eq!((&odd["kept"], &odd["counted"]), (&7.into(), &0.into()));
    assert_eq!(lost["kept"], 0);
    assert!(lost["counted"].is_u64() && lost["account"].is_string() && lost["user"].is_string(), "{lost}");

    let mended = place.emulator(&["ledger", "verify", "--repair"]);
    assert_eq!(mended.code, 0, "{}{}", mended.out, mended.err);
    assert!(mended.out.contains("added up again"), "{}", mended.out);
    assert_eq!(place.emulator(&["ledger", "verify"]).code, 0);
    assert!(place.emulator(&["--evaluate-now"]).out.contains("nothing to do"));
}

#[test]
fn help_of_the_reading_verbs_explains_what_they_print() {
    let place = Place::new();
    for (verb, words) in [
        ("check", &["Severity", "Found", "Exit code 0", "nothing is changed or sent"][..]),
        ("status", &["UNDECIDED", "OUTBOX", "Exit code 0", "contacts nobody"][..]),
        (
            "usage",
            &["Used, Total, %", "Level", "Notification", "mean daily rate", "--components", "--users"][..],
        ),
        ("explain", &["COMPONENTS", "FIELDS", "BY HAND", "NEXT LEVEL", "private copy"][..]),
        ("history", &["Outcome", "superseded", "[default: 50]", "--account"][..]),
    ] {
        // The terminal's width breaks lines where it likes.
        let help = place.run(&[verb, "--help"]).out.split_whitespace().collect::<Vec<_>>().join(" ");
        for word in words {
            assert!(help.contains(word), "help of {verb} does not say {word:?}:\n{help}");
        }
    }
}

#[test]
fn every_ending_has_its_exit_code_and_names_the_next_step() {
    let place = Place::new();
    let empty = place.config("");
    let broken = place.path("broken.toml");
    std::fs::write(&broken, "[cluster]\nnam = \"lab\"\n").expect("a configuration");
    let broken = broken.to_str().expect("UTF-8");
    for (args, code, words) in [
        (&["--version"][..], 0, "slurm-site-agent "),
        (&["--help"][..], 0, "Usage:"),
        (&["check-config", "--config", &empty][..], 0, "is a valid configuration"),
        (&["check-config", "--config", broken][..], 2, "did you mean"),
        (&["check-config", "--config", "/nowhere.toml"][..], 2, "--config names another file"),
        (&["stauts"][..], 2, "'status'"),
        (&["usage", "--user"][..], 2, "'--users'"),
        (&["--dry-run"][..], 2, "--evaluate-now"),
        (&["explain"][..], 2, "<ACCOUNT>"),
        (&["explain", "a,b"][..], 2, "not a usable account name"),
        (&["history", "--limit", "0"][..], 2, "1..=100000"),
        (&["status", "--config", &empty][..], 2, "run --evaluate-now once"),
        (&["usage", "--config", &empty][..], 2, "run --evaluate-now once"),
        (&["history", "--config", &empty][..], 2, "run --evaluate-now once"),
        (&["check", "--config", &empty][..], 1, "cluster.bin_dir"),
    ] {
        let ended = place.run(args);
        let text = format!("{}{}", ended.out, ended.err);
        assert_eq!(ended.code, code, "{args:?}: {text}");
        assert!(text.contains(words), "{args:?} does not say {words:?}: {text}");
        let is_answer = code < 2;
        assert_eq!(ended.out.is_empty(), !is_answer, "{args:?}: an answer is on standard output: {text}");
    }
}

#[test]
fn a_store_in_use_or_damaged_is_told_with_its_own_exit_code_and_readers_work_beside_the_writer() {
    let place = Place::new();
    let config = place.config("");
    let path = place.path("store/state.db");
    let writer = Store::open(&path).expect("a store");
    let refused = place.run(&["--evaluate-now", "--config", &config]);
    assert_eq!(refused.code, 4, "{}", refused.err);
    assert!(refused.err.contains("is in use by"), "{}", refused.err);
    let status = place.run(&["status", "--config", &config]);
    assert_eq!(status.code, 1, "no cycle has ended yet: {}{}", status.out, status.err);
    assert!(status.out.contains(&format!("(pid {})", std::process::id())), "{}", status.out);
    let history = place.run(&["history", "--config", &config]);
    assert_eq!((history.code, history.out.as_str()), (0, "nothing has happened yet\n"));
    drop(writer);
    std::fs::write(&path, "not a database at all, but long enough to be looked at ".repeat(40))
        .expect("damage");
    for verb in ["status", "history"] {
        let ended = place.run(&[verb, "--config", &config]);
        assert_eq!(ended.code, 4, "{verb}: {}", ended.err);
        assert!(ended.err.contains("damaged"), "{verb}: {}", ended.err);
    }
}

#[test]
fn the_shipped_configurations_are_accepted_and_their_printed_form_as_well() {
    let place = Place::new();
    for name in ["config/site-agent.toml", "config/emulator.toml"] {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        let shipped = shipped.to_str().expect("UTF-8");
        let ended = place.run(&["check-config", "--config", shipped]);
        assert_eq!(ended.code, 0, "{name}: {}", ended.err);
        let printed = place.run(&["check-config", "--print", "--config", shipped]);
        let copy = place.path("printed.toml");
        std::fs::write(&copy, &printed.out).expect("a copy");
        let again = place.run(&["check-config", "--print", "--config", copy.to_str().expect("UTF-8")]);
        assert_eq!((again.code, again.out), (0, printed.out), "{name}");
    }
}

#[test]
fn the_second_evaluation_has_nothing_to_do() {
    let place = Place::emulated();
    let second = place.emulator(&["--evaluate-now"]);
    assert_eq!(second.code, 0, "{}", second.err);
    assert!(second.out.ends_with("nothing to do\n"), "{}", second.out);
    let report = place.emulator_json(&["--evaluate-now"]);
    for list in ["changes", "held", "commands"] {
        assert_eq!(report[list], serde_json::json!([]), "{list}");
    }
}

#[test]
fn the_emulated_site_passes_its_own_check() {
    let place = Place::emulated();
    let ended = place.emulator(&["check"]);
    assert_eq!(ended.code, 0, "{}{}", ended.out, ended.err);
    let report = place.emulator_json(&["check"]);
    assert_eq!(report["worst"], "note");
    let quiet = place.emulator(&["check", "--quiet"]);
    assert!(!quiet.out.contains("\n ok "), "{}", quiet.out);
    assert!(quiet.out.len() < ended.out.len());
}

#[test]
fn the_emulated_site_has_a_quota_whose_server_counts_as_the_ledger_does() {
    let place = Place::emulated();
    let listed = place.emulator_json(&["quota", "list"]);
    let quota = &listed["sources"][0]["quotas"][0];
    assert_eq!(
        (&quota["account"], &quota["limit"], &quota["usage"]),
        (&"chemistry".into(), &960.into(), &768.into())
    );
    let told = place.emulator_json(&["explain", "chemistry"]);
    let standing = &told["quotas"][0];
    assert_eq!(
        (&standing["used"], &standing["level"]),
        (&"768".into(), &"notification".into()),
        "{standing:#}"
    );
    let fields = told["fields"].as_array().expect("a list");
    let field = fields.iter().find(|field| field["name"] == "GrpTRESMins gres/gpu").expect("its limit");
    assert_eq!((&field["now"], &field["wanted"]), (&"960".into(), &"960".into()), "{field:#}");
}

#[test]
fn an_account_without_an_allocation_is_refused_with_the_list_of_those_that_have_one() {
    let place = Place::emulated();
    for verb in ["usage", "explain"] {
        let ended = place.emulator(&[verb, "nosuch"]);
        assert_eq!((ended.code, ended.out.as_str()), (2, ""), "{verb}");
        assert!(ended.err.contains("accounts with one: biology, chemistry"), "{verb}: {}", ended.err);
    }
    let none = place.emulator(&["confirm", "abc"]);
    assert_eq!(none.code, 2);
    assert!(none.err.contains("no plan waits"), "{}", none.err);
}

#[test]
fn the_reading_verbs_leave_the_world_and_the_store_as_they_are() {
    let place = Place::emulated();
    let report_before = place.emulator_json(&["status"]);
    for args in
        [&["usage"][..], &["explain", "biology"][..], &["history"][..], &["check"][..], &["status"][..]]
    {
        assert_eq!(place.emulator(args).code, 0, "{args:?}");
    }
    assert_eq!(place.emulator_json(&["status"]), report_before);
    assert!(place.emulator(&["--evaluate-now"]).out.ends_with("nothing to do\n"));
}

#[test]
fn explain_gives_the_commands_and_what_takes_them_back() {
    let place = Place::emulated();
    let told = place.emulator_json(&["explain", "biology"]);
    assert_eq!(told["changes"], serde_json::json!([]));
    assert_eq!(told["by_hand"]["in_force"], true);
    // By hand as it says: taken back, and the agent sees the difference; typed again, and nothing is left to do.
    let by_hand = |list: &str| {
        for line in told["by_hand"][list].as_array().expect("a list") {
            let words: Vec<&str> = line.as_str().expect("a line").split(' ').collect();
            let ended = place.emulator(&[&["emulate"], &words[..]].concat());
            assert_eq!(ended.code, 0, "{line}: {}{}", ended.out, ended.err);
        }
    };
    by_hand("release");
    let after = place.emulator_json(&["explain", "biology"]);
    assert_ne!(after["changes"], serde_json::json!([]), "{after:#}");
    assert_eq!(after["by_hand"]["in_force"], false);
    by_hand("commands");
    assert_eq!(place.emulator_json(&["explain", "biology"])["changes"], serde_json::json!([]));
}

/// Objects whose keys are names of the site and not of the program.
const KEYED_BY_NAMES: [&str; 9] = [
    "components",
    "users",
    "levels",
    "weights",
    "by_component",
    "limits",
    "schedules",
    "delivered",
    "counts",
];

/// Every path of a JSON value, arrays as `[]`, names of the site as `*`.
fn paths(value: &Value, at: &str, named: bool, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (key, inner) in fields {
                let step = if named { "*" } else { key };
                let keyed = KEYED_BY_NAMES.contains(&key.as_str()) && !named;
                let inner_at = if at.is_empty() { step.to_owned() } else { format!("{at}.{step}") };
                found.insert(inner_at.clone());
                paths(inner, &inner_at, keyed, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| paths(item, &format!("{at}[]"), named, found)),
        _ => {}
    }
}

/// `top`, and every path of the parts below it.
fn shape_of<'a>(top: &[&'a str], parts: &[(&str, &str)]) -> Vec<String> {
    let below =
        parts.iter().flat_map(|(at, fields)| fields.split(' ').map(move |field| format!("{at}.{field}")));
    top.iter().flat_map(|line: &&'a str| line.split(' ')).map(str::to_owned).chain(below).collect()
}

const REACHED: &str = "at date days in_period status";

/// An account's numbers, in `usage` and `explain`.
fn numbers(at: &str) -> Vec<String> {
    let account = "account blocked components daily level notification percent period period_end period_start policy \
                   scalar slowdown source total used users components.* users.*";
    shape_of(
        &[],
        &[
            (at, account),
            (&format!("{at}.blocked"), REACHED),
            (&format!("{at}.notification"), REACHED),
            (&format!("{at}.slowdown"), REACHED),
            (&format!("{at}.components.*"), "base carryover previous total unit used"),
            (&format!("{at}.users.*"), "components components.* used"),
        ],
    )
}

#[track_caller]
fn keeps_shape(place: &Place, args: &[&str], expected: Vec<Vec<String>>) {
    let mut found = BTreeSet::new();
    paths(&place.emulator_json(args), "", false, &mut found);
    let expected: BTreeSet<String> = expected.into_iter().flatten().collect();
    // A new field hurts no script; one that has gone does.
    let gone: Vec<_> = expected.difference(&found).collect();
    assert!(gone.is_empty(), "{args:?}: gone {gone:?}, now {found:?}");
}

#[test]
fn the_json_of_check_usage_explain_and_history_keeps_its_shape() {
    let place = Place::emulated();
    keeps_shape(
        &place,
        &["check"],
        vec![shape_of(
            &["at cluster counts counts.* findings worst"],
            &[("findings[]", "check consequence fix found severity")],
        )],
    );
    let top = shape_of(&["accounts as_of ledger_from notes sub_accounts_counted"], &[]);
    keeps_shape(&place, &["usage"], vec![top, numbers("accounts[]")]);
    let top = shape_of(
        &["account ancestors at by_hand changes fields held notes policies"],
        &[
            ("by_hand", "commands in_force release undo"),
            ("fields[]", "asked name now wanted"),
            ("fields[].asked[]", "account decides source value why"),
            (
                "policies[]",
                "allocation answered carryover_percent decision grace next numbers relief source weights weights.*",
            ),
            ("policies[].decision", "decided effect fairshare findings level limits limits.* qos reason"),
            ("policies[].decision.limits.*", "billing"),
            ("policies[].next", "by_component by_component.* level missing percent"),
        ],
    );
    keeps_shape(&place, &["explain", "physics"], vec![top, numbers("policies[].numbers")]);
    let entry = ("entries[]", "accounts at kind outcome what why");
    keeps_shape(&place, &["history"], vec![shape_of(&["entries"], &[entry])]);
}

/// Puts one of everything that can wait into the store of an emulated world.
fn keep_waiting(place: &Place) {
    let mut store = Store::open(&place.path("emulator/state.db")).expect("the store");
    let (source, account) = (SourceName::parse("emulated"), AccountName::parse("physics"));
    let (source, account) = (source.expect("a name"), account.expect("a name"));
    let at = Epoch(1_794_312_000);
    store
        .put_held("0123456789abcdef", "sacctmgr -i modify account where name=a set qos=blocked", at)
        .expect("held");
    let change = Change::Accounts { accounts: Names::one(account.clone()), set: Assignments::default() };
    let planned = PlannedChange { change, because: Vec::new() };
    store.put_intent(&planned, &["sacctmgr".to_owned()], None, Epoch(1)).expect("an intent");
    let command = ServerCommand {
        uuid: "u".into(),
        source: source.clone(),
        policy: "p".into(),
        account_text: "physics".into(),
        issued: at,
        issued_ns: 0,
        description: "Reset".into(),
        kind: CommandKind::ResetUsage,
    };
    store.receive(&[command], at).expect("a command");
    let message = Message::ComponentUsage(ComponentUsage {
        source,
        allocation: "r".into(),
        month: "2026-11".into(),
        date: at,
        amounts: BTreeMap::from([("cpu".to_owned(), "1.00".to_owned())]),
        users: BTreeMap::new(),
    });
    store.enqueue(&message, at).expect("a message");
    let delivery =
        store.acquire(MessageKind::ComponentUsage, at, 10).expect("a delivery").pop().expect("one");
    store.failed(&delivery, "status 400: no such resource", None).expect("a dead letter");
    let cluster = ClusterName::parse("emulated").expect("a name");
    let job = store.open_jobs(&cluster).expect("jobs").pop().expect("the shipped data have a running job");
    store.mark_runaway(&job.key, true).expect("a runaway");
}

#[test]
fn status_tells_everything_that_waits_in_a_shape_that_stays() {
    let place = Place::emulated();
    assert_eq!(place.emulator(&["status"]).code, 0, "nothing waits");
    keep_waiting(&place);
    let status = place.emulator(&["status"]);
    assert_eq!(status.code, 1, "{}", status.out);
    for words in [
        "PLAN THAT WAITS\nplan 0123456789abcdef",
        "confirm 0123456789abcdef",
        "OPEN CHANGES",
        "PENDING COMMANDS",
        "reset_usage",
        "status 400: no such resource",
        "RUNAWAY JOBS",
        "1 messages were given up",
    ] {
        assert!(status.out.contains(words), "no {words:?} in {}", status.out);
    }
    let cycle = "at changes collection disagreements disagreements_total findings held held_because levels levels.* mode sources \
         undecided unsettled";
    let collection = "changed incomplete new rejected runaway samples windows";
    let top = "attention collected_until cluster cycle failed_deliveries held levels levels.* now open_changes outbox \
               pending_commands rejected runaways schedules schedules.* sources store undecided writer";
    let parts = [
        ("cycle", cycle),
        ("cycle.collection", collection),
        ("cycle.disagreements[]", "about account agent server since source"),
        ("cycle.sources[]", "allocations answered error name notices policies quotas warnings"),
        ("sources[]", "age_s allocations answered error name notices policies quotas unchanged_since"),
        ("held", "because commands confirm confirmed plan since"),
        ("open_changes[]", "argv since"),
        ("pending_commands[]", "account description issued source type uuid"),
        ("outbox[]", "count kind oldest state"),
        ("failed_deliveries[]", "attempts error key kind state tried"),
        ("runaways[]", "account dbindex job_id start user"),
        ("rejected", "collections last lines samples"),
    ];
    keeps_shape(&place, &["status"], vec![shape_of(&[top], &parts)]);
    // The word of an operator, given with the command that status shows.
    let typed = place.emulator_json(&["status"])["held"]["confirm"].as_str().expect("a command").to_owned();
    let words: Vec<&str> = typed.split(' ').skip(1).collect();
    assert_eq!(place.run(&words).code, 0, "{typed}");
    assert_eq!(place.emulator_json(&["status"])["held"]["confirmed"], true);
}

#[test]
fn usage_that_would_shrink_is_shown_and_let_be_told_by_name() {
    let place = Place::emulated();
    let none = place.emulator(&["confirm", "--usage"]);
    assert_eq!((none.code, none.out.as_str()), (0, "no usage waits for a confirmation\n"));
    let path = place.path("emulator/state.db");
    let mut store = Store::open(&path).expect("the store");
    let (mut cycle, at): (Value, Epoch) =
        store.last_report("cycle").expect("a report").expect("one cycle ran");
    cycle["held_usage"] = serde_json::json!([{"account": "physics", "source": "emulated", "allocation": "r",
        "month": "2026-11", "component": "cpu", "told": "50.00", "now": "0.05", "since": at}]);
    store.put_report("cycle", &cycle, at).expect("stored");
    std::os::unix::fs::chown(&path, Some(65_534), Some(65_534)).expect("tests run as root");
    drop(store);
    let shown = place.emulator(&["confirm", "--usage"]);
    assert_eq!(shown.code, 1, "{}", shown.err);
    assert!(
        shown.out.contains("physics/2026-11: cpu at emulated from 50.00 (told) to 0.05 (now)"),
        "{}",
        shown.out
    );
    let word = place.path("emulator/state.confirmed-usage");
    assert!(!word.exists(), "nothing is allowed by looking");
    let other = place.emulator(&["confirm", "--usage", "biology/2026-11"]);
    assert_eq!(other.code, 2);
    assert!(other.err.contains("what waits is physics/2026-11"), "{}", other.err);
    let done = place.emulator(&["confirm", "--usage", "physics/2026-11"]);
    assert_eq!(done.code, 0, "{}", done.err);
    let written: Value =
        serde_json::from_str(&std::fs::read_to_string(&word).expect("a word")).expect("JSON");
    assert_eq!(written, cycle["held_usage"]);
    let file = std::fs::metadata(&word).expect("a word");
    let (owner, mode) =
        (std::os::unix::fs::MetadataExt::uid(&file), std::os::unix::fs::MetadataExt::mode(&file));
    assert_eq!((owner, mode & 0o777), (65_534, 0o600), "the agent's user can read what root has written");
    for wrong in [&["confirm"][..], &["confirm", "abc", "--usage", "physics/2026-11"][..]] {
        assert_eq!(place.emulator(wrong).code, 2, "{wrong:?}");
    }
}

/// A configuration on the real Slurm: one local budget without TRES billing, so that no weights are compared.
fn on_lab(place: &Place, lab: &Lab, account: &str, more: &str) -> String {
    let path = place.path("lab.toml");
    let text = format!(
        "{}[store]\npath = \"{}/lab/state.db\"\n[[allocation]]\naccount = \"{account}\"\nbilling = false\n\
         limits = {{ cpu = 1000 }}\n{more}",
        lab.cluster(),
        place.folder.path().display()
    );
    std::fs::write(&path, text).expect("a configuration");
    path.display().to_string()
}

#[test]
fn check_on_a_real_slurm_finds_what_is_in_order_and_what_is_not() {
    let Some(lab) = Lab::find() else { return };
    let place = Place::new();
    let healthy = place.run(&["check", "--config", &on_lab(&place, &lab, "acc_leaf", "")]);
    assert_eq!(healthy.code, 0, "{}{}", healthy.out, healthy.err);
    for line in
        ["slurmdbd knows cluster lab", "PriorityDecayHalfLife is 0", "QOS blocked refuses every submission"]
    {
        assert!(healthy.out.contains(line), "no {line:?} in {}", healthy.out);
    }
    for (account, more, check, words) in [
        ("acc_nosuch", "", "accounts.exist", "acc_nosuch"),
        ("acc_leaf", "[qos]\nslowdown = \"nosuch\"\n", "qos.exist", "add qos nosuch"),
        ("acc_leaf", "[qos]\nnormal = \"slowdown\"\nslowdown = \"normal\"\n", "qos.slowdown", "priority 100"),
        ("acc_leaf", "[qos]\nnormal = \"blocked\"\nblocked = \"normal\"\n", "qos.blocked", "blocks nothing"),
        ("acc_leaf", "[accounts]\nparents = [\"elsewhere\"]\n", "accounts.allowed", "accounts.parents"),
        (
            "acc_leaf",
            "[components]\ncpu = { tres = \"license/x\", unit = \"h\" }\n",
            "slurm.tres",
            "license/x",
        ),
    ] {
        let ended = place.run(&["check", "--quiet", "--config", &on_lab(&place, &lab, account, more)]);
        assert_eq!(ended.code, 1, "{more}: {}{}", ended.out, ended.err);
        assert!(ended.out.contains(check) && ended.out.contains(words), "{more}: {}", ended.out);
    }
}

#[test]
fn a_real_sacctmgr_takes_what_explain_says_to_type_and_to_take_back() {
    let Some(lab) = Lab::find() else { return };
    lab.forget(&["cli_by_hand"]);
    lab.accounts(&["cli_by_hand"], "acc_top");
    let place = Place::new();
    let config = on_lab(&place, &lab, "cli_by_hand", "");
    let explain = || -> Value {
        let ended = place.run(&["explain", "cli_by_hand", "--json", "--config", &config]);
        assert_eq!(ended.code, 0, "{}", ended.err);
        serde_json::from_str(&ended.out).expect("JSON")
    };
    let type_all = |list: &Value| {
        for line in list.as_array().expect("a list") {
            let words: Vec<&str> = line.as_str().expect("a line").split(' ').collect();
            lab.must(words[0], &words[1..]);
        }
    };
    let untouched = explain();
    assert_eq!(untouched["by_hand"]["in_force"], false);
    type_all(&untouched["by_hand"]["commands"]);
    let done = explain();
    assert_eq!(
        (&done["changes"], &done["by_hand"]["in_force"]),
        (&serde_json::json!([]), &Value::Bool(true))
    );
    type_all(&untouched["by_hand"]["undo"]);
    assert_eq!(explain()["fields"], untouched["fields"], "back to what was there before");
    type_all(&done["by_hand"]["commands"]);
    assert_eq!(explain()["changes"], serde_json::json!([]));
    assert_eq!(done["by_hand"]["release"], untouched["by_hand"]["release"]);
    type_all(&done["by_hand"]["release"]);
    assert_eq!(explain()["fields"], untouched["fields"], "everything is taken away again");
}
