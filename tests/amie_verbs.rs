//! The AMIE verbs of the real program on the emulated world, with a configuration of the site's own: what a person and a
//! script see (golden, renewed with INSTA_UPDATE=always), storage reports, maintenance windows, projects from metadata,
//! and backfill that is killed and goes on.

mod support;

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};
use support::COMPONENTS;

/// 2026-11-10T12:00:00Z, when the shipped world stands still.
const NOW_S: u64 = 1_794_312_000;

const CONFIG: &str = r#"
[cluster]
name = "emulated"
[[source]]
name = "emulated"
kind = "waldur-policy"
url = "http://127.0.0.1:1/api/"
token_file = "/nowhere"
offering = "5e1f0a3c9b7d4e2f8a6c1d0b3e5f7a90"
COMPONENTS
[amie]
url = "http://127.0.0.1:1/amie/api/v1/"
site = "EMULATED"
key_file = "/nowhere"
resource = "cluster.emulated.example.org"
project_metadata = "amie_project"
job_names = true
read_back = "0s"
refund_states = ["NODE_FAIL"]
exclude = ["biology_lab"]
[amie.projects]
physics = "TG-PHY260001"
geology = "TG-GEO260002"
[[amie.maintenance]]
from = "2026-11-09T08:00:00Z"
until = "2026-11-09T12:00:00Z"
comment = "cooling was replaced"
"#;

struct World {
    folder: tempfile::TempDir,
}

/// How a run ended.
struct Ended {
    killed: bool,
    code: Option<i32>,
    out: String,
    err: String,
}

fn job(account: &str, user: &str, id: u32, state: &str, (start, end): (&str, &str)) -> Value {
    json!({
        "account": account, "user": user, "id": id, "state": state, "name": "run",
        "allocated": "cpu=10,mem=4G,node=1,billing=10",
        "submit": format!("2026-{start}:00Z"), "start": format!("2026-{start}:10Z"), "end": format!("2026-{end}:10Z"),
    })
}

fn jobs() -> Vec<Value> {
    let part = |value: Value, name: &str, more: Value| {
        let mut value = value;
        value[name] = more;
        value
    };
    let hostile = "x\",\"Charge\":\"0\"\nemulated\u{1f}1\u{1f}7\u{1f}forged|\u{202e}\u{0}\u{1b}[2J";
    let plain = job("physics", "alice", 3001, "COMPLETED", ("11-08T10:00", "11-08T12:00"));
    vec![
        part(plain, "name", hostile.into()),
        job("physics", "alice", 3002, "NODE_FAIL", ("11-08T13:00", "11-08T14:00")),
        job("physics", "alice", 3003, "FAILED", ("11-09T07:00", "11-09T09:30")),
        job("physics", "alice", 3004, "FAILED", ("11-09T12:00", "11-09T12:30")),
        part(
            job("geology", "bob", 3010, "COMPLETED", ("11-07T10:00", "11-07T10:30")),
            "array",
            json!({"job": 3010, "task": 1}),
        ),
        part(
            job("geology", "bob", 3011, "COMPLETED", ("11-07T10:00", "11-07T10:45")),
            "array",
            json!({"job": 3010, "task": 2}),
        ),
        job("geology", "alice", 3020, "REQUEUED", ("11-06T10:00", "11-06T10:30")),
        job("geology", "alice", 3020, "COMPLETED", ("11-06T10:31", "11-06T11:00")),
        job("chemistry", "bob", 3030, "TIMEOUT", ("11-05T10:00", "11-05T11:00")),
        job("biology", "carol", 3040, "OUT_OF_MEMORY", ("11-05T10:00", "11-05T11:00")),
        job("biology_lab", "dave", 3050, "COMPLETED", ("11-05T10:00", "11-05T11:00")),
    ]
}

fn shipped(name: &str) -> Value {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/demo").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).expect("shipped data")).expect("JSON")
}

impl World {
    fn new(jobs: &[Value]) -> World {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut slurm, mut central) = (shipped("slurm.json"), shipped("central.json"));
        slurm["jobs"] = jobs.into();
        slurm["users"][2]["accounts"] = json!(["biology"]);
        central["commands"] = json!([]);
        central["amie"]["projects"] = json!([
            {"local_project_id": "TG-PHY260001"},
            {"local_project_id": "TG-GEO260002", "users": ["alice", "xbob"]},
            {"local_project_id": "TG-BIO260003"},
        ]);
        let biology = central["resources"].as_array_mut().expect("a list").iter_mut();
        let mut biology = biology.filter(|resource| resource["name"] == "biology");
        biology.next().expect("biology")["backend_metadata"] = json!({"amie_project": "TG-BIO260003"});
        drop(biology);
        std::fs::write(folder.path().join("slurm.json"), slurm.to_string()).expect("written");
        std::fs::write(folder.path().join("central.json"), central.to_string()).expect("written");
        let world = World { folder };
        world.configure(CONFIG);
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn configure(&self, text: &str) {
        let text = text.replace("COMPONENTS", COMPONENTS);
        let text = text.replace("FOLDER", self.folder.path().to_str().expect("UTF-8"));
        std::fs::write(self.path("config.toml"), text).expect("written");
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_slurm-site-agent"));
        command.arg("--emulator").arg("--emulator-state").arg(self.folder.path());
        command.arg("--config").arg(self.path("config.toml")).args(args);
        command.env("TZ", "UTC").env_remove("SITE_AGENT_KILL_AFTER").env_remove("NOTIFY_SOCKET");
        command.stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Ended {
        self.ended(self.command(args))
    }

    fn ended(&self, mut command: Command) -> Ended {
        let output = command.output().expect("the program starts");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        let killed = output.status.signal() == Some(9);
        Ended { killed, code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// A cycle.
    fn cycle(&self) -> Value {
        let ended = self.run(&["--evaluate-now", "--json"]);
        serde_json::from_str(&ended.out).unwrap_or_else(|error| panic!("{error}: {}{}", ended.out, ended.err))
    }

    fn json(&self, args: &[&str]) -> Value {
        let ended = self.run(&[&["--json", "amie"], args].concat());
        serde_json::from_str(&ended.out).unwrap_or_else(|error| panic!("{error}: {}{}", ended.out, ended.err))
    }

    fn server(&self) -> Value {
        let text = std::fs::read_to_string(self.path("central.json")).expect("the server's state");
        serde_json::from_str(&text).expect("JSON")
    }

    /// What is loaded: charge by kind and LocalRecordID, credits with a minus, and how often each was sent.
    fn loaded(&self) -> BTreeMap<String, (String, u64)> {
        let server = self.server();
        let rows = server["amie"]["loaded"].as_array().expect("a list").iter();
        let mut loaded = BTreeMap::new();
        for row in rows {
            let text = |name: &str| row["record"][name].as_str().unwrap_or("").to_owned();
            let sign = if matches!(&*text("AdjustmentType"), "refund" | "credit") { "-" } else { "" };
            let charge = format!("{sign}{}", text("Charge"));
            let known =
                loaded.insert(text("LocalRecordID"), (charge, row["loads"].as_u64().expect("a number")));
            assert!(known.is_none(), "each once: {row}");
        }
        loaded
    }
}

/// Runs verbs one after the other; commands with their output as a person sees them.
struct Transcript<'w> {
    world: &'w World,
    text: String,
}

impl Transcript<'_> {
    fn say(&mut self, remark: &str) {
        self.text.push_str(&format!("# {remark}\n"));
    }

    fn run(&mut self, line: &str) {
        let args: Vec<&str> = line.split(' ').map(|word| word.trim_matches('\'')).collect();
        let ended = self.world.run(&args);
        let mut said = ended.out;
        if ended.code.is_some_and(|code| code > 1) {
            said.push_str(&ended.err);
        }
        let said = said.replace(self.world.folder.path().to_str().expect("UTF-8"), "FOLDER");
        self.text.push_str(&format!("$ slurm-site-agent {line}\n{said}"));
        self.text.push_str(&format!("[{}]\n\n", ended.code.expect("it ends by itself")));
    }
}

#[test]
fn the_verbs_say_what_was_made_sent_loaded_and_refused() {
    let world = World::new(&jobs());
    let mut golden = Transcript { world: &world, text: String::new() };
    golden.say("Before anything was stored: an agent without a store.");
    golden.run("amie status");
    let quiet = CONFIG.replace("[amie]\n", "[amie]\nsince = \"2027-01-01\"\n");
    world.configure(&quiet);
    world.cycle();
    golden.say("A cycle has filled the ledger; nothing of it is meant for AMIE yet.");
    golden.run("amie status");
    golden.run("amie records");
    golden.run("amie summary");
    golden.run("amie failed");
    world.configure(CONFIG);
    golden.say("The day from which jobs are told is taken away: the exact messages, and nothing is sent.");
    golden.run("amie send --dry-run");
    assert!(world.loaded().is_empty());
    golden.run("amie send");
    golden.say("Sent and loaded, as far as the server knows the people.");
    golden.run("amie reconcile");
    golden.run("amie status");
    golden.run("amie records");
    golden.run("amie records --kind adjustment --from 2026-11-09 --json");
    golden.run("amie records --project TG-GEO260002 --user bob --state failed");
    golden.run("amie failed");
    golden.run("amie failed --json");
    golden.run("amie summary");
    golden.run("amie summary --json --project TG-GEO260002");
    golden.say(
        "One failure is given up, the person gets a name that the server knows: the rest goes out again.",
    );
    golden.run("amie clear emulated.3010.1794045600 --dry-run");
    golden.run("amie resend --failed --dry-run");
    world.configure(&format!("{CONFIG}[amie.users]\nbob = \"xbob\"\n"));
    golden.run("amie send");
    golden.run("amie reconcile");
    golden.run("amie failed");
    golden.say("By hand: shown first, once for one cause.");
    golden.run("amie adjust --type credit --for emulated.3001.1794132000 --charge 2.5 --comment 'slow_disks' --dry-run");
    golden
        .run("amie adjust --type credit --for emulated.3001.1794132000 --charge 2.5 --comment 'slow_disks'");
    golden.run(
        "amie adjust --type credit --for emulated.3001.1794132000 --charge 2.5 --comment 'slow_disks' --yes",
    );
    golden.run("amie adjust --type refund --for emulated.3002.1794142800 --comment 'again' --yes");
    golden.run("amie adjust --type debit --project TG-PHY260001 --user alice --charge 1e3 --comment x --yes");
    golden.run("amie adjust --type debit --project TG-PHY260001 --user alice --charge -1 --comment x --yes");
    golden.run("amie adjust --type debit --for nothing --comment x --yes");
    golden.run("amie resend emulated.3004.1794225600 --yes");
    golden.run("amie resend unknown --yes");
    golden.run("amie send");
    golden.run("amie reconcile");
    golden.run("amie records --id emulated.3004.1794225600 --history");
    golden.run("amie clear 4711 --yes");
    golden.run("amie status --json");
    golden.run("amie summary");
    insta::assert_snapshot!(golden.text);
    assert!(world.loaded()["emulated.3004.1794225600"].1 == 2, "an operator's resend replaced it");
}

const STORAGE: &str = r##"
[[amie.storage]]
name = "home"
file = "FOLDER/home.csv"
format = "csv"
resource = "home.emulated.example.org"
media_type = "SSD"
interval_days = 7
gb_charge = 0.5
million_files_charge = 2
names = { "#1000" = "geology" }
exclude = ["root", "biology_*"]
"##;

#[test]
fn storage_is_reported_once_an_interval_and_what_cannot_be_understood_is_shown() {
    let world = World::new(&[]);
    world.configure(&format!("{CONFIG}{STORAGE}"));
    let report = world.path("home.csv");
    let renew = |text: &str, at_s: u64| {
        std::fs::write(&report, text).expect("written");
        let file = std::fs::File::options().write(true).open(&report).expect("there");
        file.set_modified(UNIX_EPOCH + Duration::from_secs(at_s)).expect("its time");
    };
    let head = "account,username,bytes_stored,file_count,media_type\n";
    // Last renewed in the interval before: it does not speak of this one.
    renew(&format!("{head}physics,alice,1,1,\n"), NOW_S - 8 * 86_400);
    let mut golden = Transcript { world: &world, text: String::new() };
    golden.run("amie send --dry-run");
    world.cycle();
    golden.run("amie status");
    let lines = "physics,alice,3000000000,500000,\nphysics,,1500000000,0,\"Tape\"\n#1000,bob,7,0,\nroot,,5,0,\n\
                 biology_lab,dave,9,0,\nchemistry,bob,2000000000,0,\n\"evil\"\",\"\"Charge\"\":\"\"0\",x,1,0,\n\
                 physics,mallory,1e9,0,\nphysics,mallory,-1,0,\nPhysics,alice,0,0,\nphysics,carol,1";
    renew(&format!("{head}{lines}"), NOW_S - 3600);
    golden.say("Renewed an hour ago; the same account and user in two spellings, and a cut last line.");
    golden.run("amie send --storage");
    golden.run("amie reconcile");
    golden.run("amie status");
    golden.run("amie records --kind storage --json");
    let once = world.loaded();
    // Within the interval nothing is collected again, whatever the file says.
    renew(&format!("{head}physics,alice,9000000000,500000,\n"), NOW_S - 60);
    assert_eq!(world.cycle()["enqueued"], 0);
    assert_eq!(world.loaded(), once);
    // The map is mended: what waited goes out.
    world.configure(
        &format!("{CONFIG}{STORAGE}").replace("physics =", "chemistry = \"TG-BIO260003\"\nphysics ="),
    );
    assert_eq!(world.cycle()["enqueued"], 1);
    golden.say(
        "The map is mended: what waited went out. Collected again by hand, the same record is restated.",
    );
    golden.run("amie send --storage");
    golden.run("amie records --kind storage");
    insta::assert_snapshot!(golden.text);
    let loaded = world.loaded();
    assert_eq!(loaded["emulated/storage/home/chemistry/bob/2026-11-05"], ("1.000000".to_owned(), 1));
    assert!(loaded.keys().all(|id| !id.contains("evil") && !id.contains("mallory")), "{loaded:?}");
}

/// Jobs of three months that lie before the last one, and some of this one; the last has none.
fn history() -> Vec<Value> {
    let mut jobs = Vec::new();
    for (at, (month, account)) in
        [("07", "physics"), ("08", "geology"), ("09", "biology"), ("11", "physics")].into_iter().enumerate()
    {
        for day in 1..=4_u32 {
            let id = 100 * (at as u32 + 1) + day;
            let (start, end) = (format!("{month}-0{day}T10:00"), format!("{month}-0{day}T11:00"));
            jobs.push(job(account, "alice", id, "COMPLETED", (&start, &end)));
        }
    }
    // Over the edge of a month: it belongs to the month in which it ended, and is told once.
    jobs.push(job("physics", "alice", 900, "COMPLETED", ("07-31T23:00", "08-01T01:00")));
    jobs
}

#[test]
fn backfill_goes_on_where_it_was_killed_and_tells_every_job_once() {
    // The ledger of this site begins with the month before this one: a policy may carry something over from it.
    let undisturbed = World::new(&history());
    let cycle = undisturbed.cycle();
    assert_eq!(cycle["collection"]["new"], 4, "{}", cycle["collection"]);
    assert_eq!(undisturbed.loaded().len(), 4);
    let mut golden = Transcript { world: &undisturbed, text: String::new() };
    golden.run("amie backfill");
    golden.run("amie backfill --from 2026-12");
    golden.run("amie backfill --from 2026-07 --until 2027-01");
    golden.run("amie backfill --from 2019-01");
    golden.run("amie backfill --from 2026-07 --until 2026-08 --dry-run");
    assert_eq!(undisturbed.loaded().len(), 4, "a dry run sends nothing");
    let ended = undisturbed.run(&["amie", "backfill", "--from", "2026-07"]);
    golden.text.push_str(&format!("{}# on standard error, which is no terminal:\n{}", ended.out, ended.err));
    golden.run("amie backfill --from 2026-07 --json");
    golden.run("amie summary");
    insta::assert_snapshot!(golden.text);
    let expected = undisturbed.loaded();
    assert_eq!(expected.len(), 17);
    assert!(expected.values().all(|(_, loads)| *loads == 1), "{expected:?}");

    for kills in
        [&["Stored"][..], &["Enqueued", "Stored"], &["Delivered", "Enqueued"], &["Told", "Delivered", "Told"]]
    {
        let world = World::new(&history());
        world.cycle();
        for step in kills {
            let mut command = world.command(&["amie", "backfill", "--from", "2026-07"]);
            command.env("SITE_AGENT_KILL_AFTER", step);
            assert!(world.ended(command).killed, "killed after {step}");
        }
        let ended = world.run(&["amie", "backfill", "--from", "2026-07"]);
        assert_eq!(ended.code, Some(0), "{}{}", ended.out, ended.err);
        let loaded = world.loaded();
        let charges = |loaded: &BTreeMap<String, (String, u64)>| {
            loaded.iter().map(|(id, (charge, _))| (id.clone(), charge.clone())).collect::<Vec<_>>()
        };
        assert_eq!(charges(&loaded), charges(&expected), "{kills:?}");
        // Only what was under way when it was killed can have been sent again, and replaced itself.
        let again = loaded.values().filter(|(_, loads)| *loads > 1).count();
        if !kills.contains(&"Told") {
            assert_eq!(again, 0, "{kills:?}: {loaded:?}");
        }
        assert!(again <= 10, "{kills:?}: {loaded:?}");
        assert_eq!(world.json(&["status"])["backfill"], Value::Null, "it is finished");
    }
}
