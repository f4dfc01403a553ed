//! The emulated world in a directory, with the real binary run on it: what a person at a terminal sees of `--emulator`.

#![allow(
    dead_code,
    reason = "each test crate compiles all of this and uses a part; expect would fail where all is used"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use slurm_site_agent::agent::step::Step;
use slurm_site_agent::core::name::{ClusterName, SourceName};
use slurm_site_agent::core::plan::{Change, Outcome};
use slurm_site_agent::core::time::{Epoch, Window};
use slurm_site_agent::store::Store;

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_slurm-site-agent");

/// The shipped data, as JSON to be changed by a test.
pub fn shipped(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/demo").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).expect("shipped data")).expect("it is JSON")
}

/// An emulated world in a directory of its own.
pub struct Emulation {
    dir: tempfile::TempDir,
}

/// How a run ended.
pub struct Ended {
    /// Whether it was killed.
    pub killed: bool,
    /// What it printed as JSON, when it came to its end.
    pub report: Option<Value>,
    /// Everything it printed.
    pub text: String,
}

impl std::fmt::Debug for Ended {
    /// What was to be done; decisions are long and not what a failed test is about.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Some(report) = &self.report else { return f.write_str(&self.text) };
        for part in ["changes", "held", "commands", "enqueued", "delivered", "findings"] {
            writeln!(f, "{part}: {:#}", report[part])?;
        }
        Ok(())
    }
}

impl Ended {
    /// Whether the program itself says that nothing was to be done.
    pub fn is_quiet(&self) -> bool {
        let Some(report) = &self.report else { return false };
        let empty = |field: &str| report[field].as_array().is_some_and(Vec::is_empty);
        empty("changes")
            && empty("held")
            && empty("commands")
            && report["enqueued"] == 0
            && report["delivered"].as_object().is_some_and(serde_json::Map::is_empty)
    }
}

impl Emulation {
    /// A world that begins with this data.
    pub fn new(slurm: &Value, central: &Value) -> Emulation {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("slurm.json"), slurm.to_string()).expect("the Slurm's seed");
        std::fs::write(dir.path().join("central.json"), central.to_string()).expect("the server's seed");
        Emulation { dir }
    }

    /// A world of its own that is as this one is now.
    pub fn fork(&self) -> Emulation {
        let dir = tempfile::tempdir().expect("a folder");
        for entry in std::fs::read_dir(self.dir.path()).expect("the world's folder") {
            let entry = entry.expect("an entry");
            std::fs::copy(entry.path(), dir.path().join(entry.file_name())).expect("a copy");
        }
        Emulation { dir }
    }

    /// The program with these arguments on this world.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.arg("--emulator").arg("--emulator-state").arg(self.dir.path()).args(args);
        command.env("TZ", "UTC").env_remove("SITE_AGENT_KILL_AFTER").env_remove("NOTIFY_SOCKET");
        command.stdin(Stdio::null());
        command
    }

    /// `--evaluate-now`, ended after `kill` where the cycle gets there.
    pub fn evaluate(&self, kill: Option<Step>) -> Ended {
        let mut command = self.command(&["--evaluate-now", "--json"]);
        if let Some(step) = kill {
            command.env("SITE_AGENT_KILL_AFTER", format!("{step:?}"));
        }
        let output = command.output().expect("the program starts");
        let killed = output.status.signal() == Some(9);
        let text = text_of(&output);
        if !killed {
            assert!(matches!(output.status.code(), Some(0 | 1)), "{:?}: {text}", output.status);
        }
        Ended { killed, report: serde_json::from_slice(&output.stdout).ok(), text }
    }

    /// Cycles until nothing is to be done, at most `most` of them.
    pub fn settle(&self, most: usize) {
        let mut last = None;
        for _ in 0..most {
            let ended = self.evaluate(None);
            if ended.is_quiet() {
                return;
            }
            last = Some(ended);
        }
        panic!("still something to do after {most} cycles: {last:#?}");
    }

    /// Moves the clock of the emulated Slurm and server.
    pub fn clock(&self, by: &str) {
        let output = self.command(&["emulate", "clock", by]).output().expect("the program starts");
        assert!(output.status.success(), "{}", text_of(&output));
    }

    /// One of its JSON files.
    pub fn file(&self, name: &str) -> Value {
        let text = std::fs::read_to_string(self.dir.path().join(name)).expect("a file of the world");
        serde_json::from_str(&text).expect("it is JSON")
    }

    /// The agent's store, for reading.
    pub fn store(&self) -> Store {
        Store::open_reader(&self.dir.path().join("state.db")).expect("the store")
    }

    /// Changes that were made and seen, and how often each was: the argument vectors in the agent's own history.
    pub fn made(&self) -> BTreeMap<String, usize> {
        let mut made = BTreeMap::new();
        for intent in self.store().history(10_000, None).expect("the history") {
            if intent.outcome == Some(Outcome::Applied) {
                *made.entry(intent.argv.join(" ")).or_default() += 1;
            }
        }
        made
    }

    /// Resets that were made and seen, by account.
    pub fn resets(&self) -> BTreeMap<String, usize> {
        let mut resets = BTreeMap::new();
        for intent in self.store().history(10_000, None).expect("the history") {
            if let Change::ResetRawUsage { account, .. } = &intent.change.change
                && intent.outcome == Some(Outcome::Applied)
            {
                *resets.entry(account.to_string()).or_default() += 1;
            }
        }
        resets
    }

    /// Everything that must be the same whatever happened on the way, as JSON so that a difference shows itself.
    pub fn outcome(&self) -> Value {
        json!({ "slurm": self.slurm(), "portal": self.portal(), "store": self.ledger() })
    }

    /// Associations with their limits, QOS and marks of resets.
    fn slurm(&self) -> Value {
        let world = self.file("slurm.json");
        json!({ "accounts": world["accounts"], "users": world["users"], "faults": world["faults"] })
    }

    /// What the portal and AMIE were told. The same verdict may have been told twice; it is in effect once.
    fn portal(&self) -> Value {
        let state = self.file("central.json");
        let rows = |name: &str| state[name].as_array().cloned().unwrap_or_default();
        let results: BTreeSet<String> = rows("results").iter().map(without_time).collect();
        let usage = |row: &Value| {
            let key = format!("{} {} {}", row["resource"], row["billing_period"], row["type"]);
            (key, json!([row["usage"], row["uuid"]]))
        };
        let usages: BTreeMap<String, Value> = rows("component_usages").iter().map(usage).collect();
        assert_eq!(
            usages.len(),
            rows("component_usages").len(),
            "one row for each resource, month and component"
        );
        let owner = |uuid: &Value| {
            usages
                .iter()
                .find(|(_, row)| row[1] == *uuid)
                .map(|(key, _)| key.clone())
                .expect("its component usage")
        };
        let mut users = BTreeMap::new();
        for row in rows("user_usages") {
            let key = format!("{} {}", owner(&row["component_usage"]), row["username"]);
            assert!(users.insert(key, row["usage"].clone()).is_none(), "one row for each user: {row}");
        }
        let mut loaded = BTreeMap::new();
        for row in state["amie"]["loaded"].as_array().expect("a list") {
            let id = row["record"]["LocalRecordID"].as_str().expect("an id").to_owned();
            assert!(loaded.insert(id, row["record"].clone()).is_none(), "loaded once: {row}");
        }
        let commands: Vec<Value> =
            rows("commands").iter().map(|c| json!([c["uuid"], c["success"], c["error_message"]])).collect();
        json!({
            "results": results,
            "usages": usages.iter().map(|(key, row)| (key, &row[0])).collect::<BTreeMap<_, _>>(),
            "users": users,
            "loaded": loaded,
            "amie left": [state["amie"]["queue"], state["amie"]["failed"]],
            "commands": commands,
        })
    }

    /// What the agent remembers.
    fn ledger(&self) -> Value {
        let store = self.store();
        let cluster = ClusterName::parse("emulated").expect("a name");
        let mut jobs = Vec::new();
        let all = Window::new(Epoch(0), Epoch(i64::MAX));
        store
            .visit_jobs(&cluster, all, &mut |job| jobs.push(serde_json::to_value(job).expect("JSON")))
            .expect("jobs");
        jobs.sort_by_key(|job| job["key"]["dbindex"].as_u64());
        let commands: BTreeMap<String, Value> = store
            .commands(1000)
            .expect("commands")
            .into_iter()
            .map(|c| (c.command.uuid.clone(), json!([format!("{:?}", c.state), c.verdict])))
            .collect();
        let standing = store.standing(&SourceName::parse("emulated").expect("a name")).expect("standing");
        json!({
            "jobs": jobs,
            "watermark": store.watermark(&cluster).expect("the watermark"),
            "commands": commands,
            "standing": standing.iter().map(|(command, _)| &command.uuid).collect::<Vec<_>>(),
            "owned": format!("{:?} {:?}", store.owned().expect("owned"), store.owned_submit().expect("owned")),
            "open intents": store.unsettled_intents().expect("intents").len(),
            "outbox": store.outbox_counts().expect("outbox").len(),
            "made": self.made(),
        })
    }
}

fn without_time(row: &Value) -> String {
    let mut row = row.clone();
    row.as_object_mut().expect("an object").remove("reported_at");
    row.to_string()
}

/// Both streams.
pub fn text_of(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
