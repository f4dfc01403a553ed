//! What the tests of the conductor share: an agent on a chosen Slurm, with the embedded server as its portal.

#![allow(
    dead_code,
    reason = "each test crate compiles all of this and uses a part; expect would fail where all is used"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use slurm_site_agent::agent::clock::Clock;
use slurm_site_agent::agent::cycle::{Ask, CycleReport, cycle};
use slurm_site_agent::agent::{Agent, Outside};
use slurm_site_agent::config::{self, Config};
use slurm_site_agent::core::command::Mode;
use slurm_site_agent::core::time::Epoch;
use slurm_site_agent::emulator::central::{CentralHandle, CentralServer, CentralState};
use slurm_site_agent::store::Store;
use tokio_util::sync::CancellationToken;

/// Token that the embedded server of the tests knows.
pub const TOKEN: &str = "test-token";
/// AMIE key that the embedded server of the tests knows.
pub const AMIE_KEY: &str = "test-amie-key";

/// `[components]` as the shipped portal has them.
pub const COMPONENTS: &str = r#"
[components.cpu]
tres = "cpu"
unit = "h"
[components.mem]
tres = "mem"
unit = "GB-h"
[components.gpu]
tres = "gres/gpu"
unit = "h"
"#;

/// An RFC 3339 instant.
pub fn at(text: &str) -> Epoch {
    Epoch(text.parse::<jiff::Timestamp>().expect("an instant").as_second())
}

/// The embedded server on a port of its own: Waldur at `api/`, AMIE at `amie/api/v1/`, Nomad at `nomad/v1/`, DataRobot at
/// `api/v2/` below its url.
pub struct Portal {
    pub url: String,
    pub handle: CentralHandle,
    address: std::net::SocketAddr,
    stop: CancellationToken,
    served: Option<tokio::task::JoinHandle<()>>,
}

impl Portal {
    pub async fn start(state: CentralState) -> Portal {
        Portal::start_at(([127, 0, 0, 1], 0).into(), state).await
    }

    async fn start_at(address: std::net::SocketAddr, state: CentralState) -> Portal {
        let server = CentralServer::in_memory(state);
        let handle = server.handle();
        let listener = tokio::net::TcpListener::bind(address).await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let served =
            tokio::spawn(async move { server.serve(listener, stopped).await.expect("the server serves") });
        Portal { url: format!("http://{address}/"), handle, address, stop, served: Some(served) }
    }

    /// The server goes down: connections end, and nobody answers at its address.
    pub async fn down(&mut self) {
        self.stop.cancel();
        if let Some(served) = self.served.take() {
            served.await.expect("the server ended well");
        }
    }

    /// It comes up again at the same address, with what it knew and what is changed of it.
    pub async fn up(&mut self, change: impl FnOnce(&mut CentralState)) {
        let mut state = self.handle.with_state(|state| state.clone());
        change(&mut state);
        *self = Portal::start_at(self.address, state).await;
    }
}

impl Drop for Portal {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A folder with store and secrets, and the agent that works in it.
pub struct Site {
    pub folder: tempfile::TempDir,
    pub agent: Agent,
    pub clock: Clock,
}

impl Site {
    /// `outside`: None for the real programs of the configuration.
    pub fn new(config: &str, now: Epoch, runner: Option<slurm_site_agent::slurm::Runner>) -> Site {
        let folder = tempfile::tempdir().expect("a folder");
        let clock = Clock::manual(now);
        let config = read(config, folder.path());
        let outside = Outside {
            runner: runner.unwrap_or_else(|| Outside::real(&config).runner),
            clock: clock.clone(),
            mode: Mode::Production,
        };
        let store = Store::open(&config.store.path).expect("a new store");
        let agent = Agent::new(config, outside, store).expect("an agent");
        Site { folder, agent, clock }
    }

    pub async fn cycle(&mut self) -> CycleReport {
        cycle(&mut self.agent, &Ask::default()).await.expect("the store works")
    }
}

/// The configuration with STORE, TOKEN and KEY replaced by files of the folder.
pub fn read(text: &str, folder: &Path) -> Config {
    for (name, secret) in [("token", TOKEN), ("key", AMIE_KEY)] {
        let path = folder.join(name);
        std::fs::write(&path, secret).expect("a secret");
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .expect("its mode");
    }
    let text = text.replace("FOLDER", folder.to_str().expect("UTF-8"));
    config::parse(&text, "test").unwrap_or_else(|errors| panic!("{errors}\n{text}"))
}

/// The real Slurm of the test command; `None` when there is none and it is not required.
pub struct Lab {
    pub dir: PathBuf,
    pub env: BTreeMap<String, String>,
    /// Set for a lab of the test's own, which goes with it.
    own: Option<tempfile::TempDir>,
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.own.is_some() {
            self.lab("down", &[]);
        }
    }
}

impl Lab {
    /// Says loudly that a test is skipped; fails where the lab is required.
    pub fn find() -> Option<Arc<Lab>> {
        let Some(dir) = std::env::var_os("SITE_AGENT_LAB").map(PathBuf::from) else {
            assert!(
                std::env::var_os("SITE_AGENT_REQUIRE_LAB").is_none(),
                "SITE_AGENT_REQUIRE_LAB is set and SITE_AGENT_LAB is not: no real Slurm to test on"
            );
            eprintln!(
                "SKIPPED: no real Slurm; run tests/run, or set SITE_AGENT_LAB to the folder of `tests/cluster/lab up`"
            );
            return None;
        };
        Some(Arc::new(Lab::at(dir, None)))
    }

    /// A real Slurm of the test's own, for tests in the real present: there the jobs of others, whose times are moved, come
    /// and go. Skipped and required as [`Lab::find`].
    pub fn own() -> Option<Arc<Lab>> {
        Lab::find()?;
        let folder = tempfile::tempdir().expect("a folder");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/lab");
        let dir = folder.path().join("lab");
        let mut up = Command::new(script);
        up.arg("up").arg(&dir);
        let (status, text) = ended(up);
        assert_eq!(status, 0, "lab up: {text}");
        Some(Arc::new(Lab::at(dir, Some(folder))))
    }

    fn at(dir: PathBuf, own: Option<tempfile::TempDir>) -> Lab {
        let text = std::fs::read_to_string(dir.join("env")).expect("the lab's env file");
        let env = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("export ").unwrap_or(line.trim()).split_once('='))
            .map(|(key, value)| (key.to_owned(), value.trim_matches(['\'', '"']).to_owned()))
            .collect();
        Lab { dir, env, own }
    }

    /// `[cluster]` of the configuration.
    pub fn cluster(&self) -> String {
        format!(
            "[cluster]\nname = {:?}\nslurm_conf = {:?}\ntime_zone = \"UTC\"\n",
            self.env["LAB_CLUSTER"], self.env["SLURM_CONF"]
        )
    }

    /// Runs a Slurm program as root; its output, status and errors in one text.
    pub fn run(&self, program: &str, args: &[&str]) -> (i32, String) {
        let mut command = Command::new(program);
        command.args(args).env("SLURM_CONF", &self.env["SLURM_CONF"]).env("TZ", "UTC");
        ended(command)
    }

    /// Runs a program as a user of the lab.
    pub fn run_as(&self, user: &str, program: &str, args: &[&str]) -> (i32, String) {
        let mut command = Command::new("runuser");
        command.args(["-u", user, "--", program]).args(args);
        command.env("SLURM_CONF", &self.env["SLURM_CONF"]).current_dir("/");
        ended(command)
    }

    /// Succeeds or panics with what was said.
    pub fn must(&self, program: &str, args: &[&str]) -> String {
        let (status, text) = self.run(program, args);
        assert_eq!(status, 0, "{program} {args:?}: {text}");
        text
    }

    /// A verb of tests/cluster/lab.
    pub fn lab(&self, verb: &str, args: &[String]) -> String {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/lab");
        let mut command = Command::new(script);
        command.arg(verb).arg(&self.dir).args(args);
        let (status, text) = ended(command);
        assert_eq!(status, 0, "lab {verb} {args:?}: {text}");
        text
    }

    /// Runs jobs with exact times beside each other: one line of `lab jobs` each.
    pub fn jobs(&self, lines: &[String]) -> String {
        use std::io::Write;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/lab");
        let mut child = Command::new(script)
            .arg("jobs")
            .arg(&self.dir)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .expect("the lab script");
        child
            .stdin
            .take()
            .expect("its input")
            .write_all(format!("{}\n", lines.join("\n")).as_bytes())
            .expect("written");
        let output = child.wait_with_output().expect("its output");
        let text =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "lab jobs: {text}");
        text
    }

    /// Held while associations are added or deleted: slurmdbd 22.05 mixes up its account tree when that happens side by side
    /// (seen: a user whose lft lies outside of its account's, and a QOS of the account that slurmctld does not apply to it).
    pub fn accounts_lock(&self) -> std::fs::File {
        let file = self.accounts_file();
        file.lock().expect("the lock");
        file
    }

    /// Held while associations are modified: when others are added meanwhile, slurmdbd 22.05 leaves out users below the account
    /// (seen in what `modify account` prints).
    pub fn accounts_lock_shared(&self) -> std::fs::File {
        let file = self.accounts_file();
        file.lock_shared().expect("the lock");
        file
    }

    fn accounts_file(&self) -> std::fs::File {
        std::fs::File::create(self.dir.join("accounts.lock")).expect("a lock file")
    }

    /// Removes what earlier runs left in the lab: accounts and QOS whose names begin so, and their job records, so that a test can be
    /// repeated on the same lab. What is made anew with the same name begins with nothing (fixtures/slurm/22.05/sshare_after_delete.txt).
    pub fn forget(&self, prefixes: &[&str]) {
        let begin = |text: String| -> Vec<String> {
            let ours = |name: &&str| prefixes.iter().any(|prefix| name.starts_with(prefix));
            text.lines().filter(ours).map(str::to_owned).collect()
        };
        let accounts = begin(self.must("sacctmgr", &["-nP", "show", "account", "format=account"]));
        if !accounts.is_empty() {
            self.stop_jobs(prefixes);
            let _lock = self.accounts_lock();
            self.must("sacctmgr", &["-i", "delete", "account", &format!("name={}", accounts.join(","))]);
        }
        let qos = begin(self.must("sacctmgr", &["-nP", "show", "qos", "format=name"]));
        if !qos.is_empty() {
            self.must("sacctmgr", &["-i", "delete", "qos", &format!("name={}", qos.join(","))]);
        }
        let jobs = of_accounts(prefixes);
        let of_jobs = format!("where job_db_inx in (select job_db_inx from lab_job_table where {jobs})");
        self.lab(
            "sql",
            &[format!(
                "delete from lab_step_table {of_jobs}; delete from lab_suspend_table {of_jobs}; \
                 delete from lab_job_table where {jobs}"
            )],
        );
    }

    /// Ends what runs or waits, and waits until slurmdbd knows.
    pub fn stop_jobs(&self, prefixes: &[&str]) {
        let open = format!("{} and time_end = 0 and state < 3", of_accounts(prefixes));
        let ids = self.lab("sql", &[format!("select distinct id_job from lab_job_table where {open}")]);
        let ids: Vec<&str> = ids.lines().map(str::trim).filter(|id| !id.is_empty()).collect();
        if ids.is_empty() {
            return;
        }
        self.run("scancel", &ids);
        let count = format!("select count(*) from lab_job_table where {open}");
        for _ in 0..600 {
            if self.lab("sql", std::slice::from_ref(&count)).lines().last().map(str::trim) == Some("0") {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        panic!("jobs do not end: {ids:?}");
    }

    /// Makes accounts below `parent` with users alice and bob.
    pub fn accounts(&self, names: &[&str], parent: &str) {
        let _lock = self.accounts_lock();
        for name in names {
            let (name, parent) = (format!("name={name}"), format!("parent={parent}"));
            self.must("sacctmgr", &["-i", "add", "account", &name, "cluster=lab", &parent]);
        }
        let accounts = format!("account={}", names.join(","));
        self.must("sacctmgr", &["-i", "add", "user", "name=alice,bob", "cluster=lab", &accounts]);
    }

    /// How many changes of associations of these accounts slurmdbd has on record.
    pub fn modifications(&self, account: &str) -> usize {
        let table = self.lab(
            "sql",
            &[format!(
                "select count(*) from txn_table t, lab_assoc_table a where a.acct = '{account}' and a.user = '' \
                 and t.action = 1429 and concat(t.name, ')') regexp concat('id_assoc=', a.id_assoc, '[^0-9]')"
            )],
        );
        table.lines().last().and_then(|count| count.trim().parse().ok()).expect("a count")
    }
}

fn ended(mut command: Command) -> (i32, String) {
    let output = command.stdin(std::process::Stdio::null()).output().expect("the program starts");
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.code().unwrap_or(-1), text)
}

/// Condition that selects the jobs of accounts whose names begin so.
fn of_accounts(prefixes: &[&str]) -> String {
    let like = |prefix: &&str| format!("account like '{}%'", prefix.replace('_', "\\_"));
    format!("({})", prefixes.iter().map(like).collect::<Vec<_>>().join(" or "))
}
