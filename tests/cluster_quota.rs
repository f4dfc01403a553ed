//! Quotas of every kind on a REAL Slurm: what they refuse, hold back and give back.

mod support;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use slurm_site_agent::agent::clock::Clock;
use slurm_site_agent::agent::cycle::{Ask, CycleReport, cycle};
use slurm_site_agent::agent::{Agent, Outside};
use slurm_site_agent::core::command::Mode;
use slurm_site_agent::core::evaluate::Level;
use slurm_site_agent::core::time::Epoch;
use slurm_site_agent::emulator::central::nomad::{QuotaLimit, QuotaSpec, RegionLimit};
use slurm_site_agent::store::Store;
use support::{Lab, Portal, TOKEN};

/// Longest time that Slurm may take for anything here.
const DEADLINE: Duration = Duration::from_secs(120);

/// How long after its second something may come back on a machine that does much else; without the wake-up of the window it
/// would be the poll interval, an hour.
const LATE_S: i64 = 30;

/// The agent in this process, on the real Slurm of the lab.
struct Here {
    lab: Arc<Lab>,
    folder: tempfile::TempDir,
    agent: Agent,
    clock: Clock,
}

impl Here {
    fn new(lab: &Arc<Lab>, more: &str, clock: Clock) -> Here {
        let folder = tempfile::tempdir().unwrap();
        let text = configuration(lab, more);
        let config = support::read(&text, folder.path());
        write(&text, folder.path());
        let runner = Outside::real(&config).runner;
        let outside = Outside { runner, clock: clock.clone(), mode: Mode::Production };
        let store = Store::open(&config.store.path).unwrap();
        let agent = Agent::new(config, outside, store).unwrap();
        Here { lab: Arc::clone(lab), folder, agent, clock }
    }

    async fn cycle(&mut self) -> CycleReport {
        cycle(&mut self.agent, &Ask::default()).await.unwrap()
    }

    /// Cycles until something is so: slurmdbd knows of a job a little later than slurmctld.
    async fn until(&mut self, what: &str, is_so: impl Fn(&CycleReport) -> bool) -> CycleReport {
        let began = Instant::now();
        loop {
            let report = self.cycle().await;
            if is_so(&report) {
                return report;
            }
            assert!(began.elapsed() < DEADLINE, "{what}: {report:#?}");
        }
    }

    /// `explain ACCOUNT --json` beside this agent.
    fn explain(&self, account: &str) -> Value {
        let output = Command::new(env!("CARGO_BIN_EXE_slurm-site-agent"))
            .arg("--config")
            .arg(self.folder.path().join("config.toml"))
            .args(["explain", account, "--json"])
            .env("SLURM_CONF", &self.lab.env["SLURM_CONF"])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {errors}"))
    }
}

fn configuration(lab: &Lab, more: &str) -> String {
    lab.cluster()
        + "[store]\npath = \"FOLDER/state.db\"\n[limits]\ntighten_accounts_max = 100\ntighten_share_percent = 100\n"
        + more
}

fn write(text: &str, folder: &Path) {
    let text = text.replace("FOLDER", folder.to_str().unwrap());
    std::fs::write(folder.join("config.toml"), text).unwrap();
}

fn association(lab: &Lab, account: &str, user: &str, format: &str) -> String {
    let (account, user) = (format!("account={account}"), format!("user={user}"));
    let format = format!("format={format}");
    let shown = lab.must("sacctmgr", &["-nP", "show", "assoc", "wopl", "where", &account, &user, &format]);
    shown.trim().to_owned()
}

fn submit(lab: &Lab, user: &str, account: &str, more: &[&str]) -> (i32, String) {
    let args = [&["--parsable", "-A", account, "-t", "5", "-o", "/dev/null"], more].concat();
    lab.run_as(user, "sbatch", &args)
}

fn job(lab: &Lab, user: &str, account: &str, more: &[&str]) -> String {
    let (status, said) = submit(lab, user, account, more);
    assert_eq!(status, 0, "{said}");
    said.trim().to_owned()
}

/// Moves the submission of jobs into the past, in slurmdbd, once it knows of them.
fn submitted_earlier(lab: &Lab, jobs: &[String], seconds: i64) {
    let ids = jobs.join(",");
    wait_until("slurmdbd knows that the jobs have ended", || {
        let known = format!(
            "select count(*) from lab_job_table where time_end > 0 and time_eligible > 0 and id_job in ({ids})"
        );
        let rows = lab.lab("sql", &[known]);
        rows.lines().last().is_some_and(|count| count.trim() == jobs.len().to_string())
    });
    lab.lab(
        "sql",
        &[format!("update lab_job_table set time_submit = time_submit - {seconds} where id_job in ({ids})")],
    );
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) -> Duration {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < DEADLINE, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
    began.elapsed()
}

fn now() -> Epoch {
    Clock::System.now()
}

/// The daemon as it is run on a controller.
struct Daemon {
    child: Child,
}

impl Daemon {
    fn start(lab: &Lab, folder: &Path) -> Daemon {
        let log = std::fs::File::create(folder.join("daemon.log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_slurm-site-agent"))
            .arg("--config")
            .arg(folder.join("config.toml"))
            .env("SLURM_CONF", &lab.env["SLURM_CONF"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Daemon { child }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // A child that has ended already is no problem here.
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// A server of DataRobot with one quota, of resource dep-1.
async fn robot(mut quota: Value) -> Portal {
    quota["resourceId"] = "dep-1".into();
    let state = json!({
        "users": [{"username": "agent", "token": TOKEN, "role": "staff"}],
        "datarobot": {"tokens": [{"secret": TOKEN, "may_write": true}], "quotas": [quota]},
    });
    Portal::start(serde_json::from_value(state).unwrap()).await
}

fn robot_source(portal: &Portal, account: &str, poll_interval: &str) -> String {
    format!(
        "[[source]]\nname = \"robot\"\nkind = \"datarobot\"\nurl = \"{}api/v2/\"\ntoken_file = \"FOLDER/token\"\n\
         poll_interval = \"{poll_interval}\"\nresources = {{ dep-1 = \"{account}\" }}\nusers = {{ u-alice = \"alice\" }}\n",
        portal.url
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn three_requests_a_minute_refuse_the_fourth_submission_until_the_window_has_rolled() {
    let Some(lab) = Lab::own() else { return };
    lab.accounts(&["rate_a"], "root");
    let portal = robot(json!({"defaultRules": [{"rule": "requests", "limit": 3, "window": "min"}]})).await;
    let mut here = Here::new(&lab, &robot_source(&portal, "rate_a", "5s"), Clock::System);
    assert!(here.cycle().await.wake.is_none());

    let mut jobs: Vec<String> = (0..2).map(|_| job(&lab, "alice", "rate_a", &["--wrap", "true"])).collect();
    submitted_earlier(&lab, &jobs, 10);
    assert!(here.cycle().await.wake.is_none(), "two of three");
    jobs.push(job(&lab, "alice", "rate_a", &["--wrap", "true"]));
    let report = here.until("the third submission is counted", |report| report.wake.is_some()).await;
    assert_eq!(association(&lab, "rate_a", "alice", "maxsubmitjobs"), "0", "{report:#?}");
    let (status, said) = submit(&lab, "alice", "rate_a", &["--wrap", "true"]);
    assert!(status != 0 && said.contains("AssocMaxSubmitJobLimit"), "{status} {said}");
    job(&lab, "bob", "rate_a", &["--wrap", "true"]);

    // The two that were made earlier roll away; the instant is known, and a cycle then lets her submit again.
    let wake = report.wake.unwrap();
    let standing = report.quotas.iter().find(|standing| standing.level == Level::Blocked).unwrap();
    assert_eq!((standing.back_earliest, standing.back_running), (Some(wake), Some(wake)));
    let explained = here.explain("rate_a");
    let field = explained["fields"]
        .as_array()
        .unwrap()
        .iter()
        .find(|field| field["name"].as_str().is_some_and(|name| name == "user alice: MaxSubmitJobs"));
    let field = field.unwrap_or_else(|| panic!("{explained:#}"));
    assert!(
        field["asked"][0]["why"].as_str().unwrap().contains(&format!("come back at {wake}")),
        "{field:#}"
    );
    wait_until("the window rolls", || now() >= wake);
    let report = here.cycle().await;
    assert_eq!(association(&lab, "rate_a", "alice", "maxsubmitjobs"), "", "{report:#?}");
    job(&lab, "alice", "rate_a", &["--wrap", "true"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_that_are_used_up_stop_submissions_and_the_daemon_gives_them_back_at_that_second() {
    let Some(lab) = Lab::own() else { return };
    lab.accounts(&["roll_a", "roll_t", "roll_r"], "root");
    // An operator's own limit, which has to come back.
    lab.must("sacctmgr", &["-i", "modify", "account", "where", "name=roll_a", "set", "GrpSubmitJobs=50"]);
    // The use of roll_t as a whole is ruled by the configuration, that of each user of roll_r by DataRobot.
    let portal = robot(json!({"defaultRules": [{"rule": "token", "limit": 2, "window": "hour"}]})).await;
    let quotas = "[schedule]\npoll = \"1h\"\n\
                  [[quota]]\naccount = \"roll_a\"\nrule = \"requests\"\nlimit = 2\nwindow = \"min\"\n\
                  [[quota]]\naccount = \"roll_t\"\nrule = \"token\"\nlimit = 2\nwindow = \"hour\"\n";
    let quotas = quotas.to_owned() + &robot_source(&portal, "roll_r", "1h");
    let folder = tempfile::tempdir().unwrap();
    let text = configuration(&lab, &quotas);
    support::read(&text, folder.path());
    write(&text, folder.path());
    let from = now().0;
    let times = format!("cpus=8 start={} end={}", from - 3640, from - 3515);
    lab.jobs(&["roll_t", "roll_r"].map(|account| format!("account={account} user=alice {times}")));
    let billing = lab.lab(
        "sql",
        &["select substring_index(substring_index(tres_alloc, ',5=', -1), ',', 1) from lab_job_table"
            .to_owned()],
    );
    let billing: i64 = billing.lines().last().unwrap().trim().parse().unwrap();
    // Less than 120 billing-seconds are left once so many seconds before the end of the job have rolled away.
    let seconds_left = (120 - 1) / billing;
    let token_back = from - 3515 - seconds_left + 3600;
    let first = now().0;
    let jobs: Vec<String> = (0..2).map(|_| job(&lab, "alice", "roll_a", &["--wrap", "true"])).collect();
    submitted_earlier(&lab, &jobs, 10);

    let _daemon = Daemon::start(&lab, folder.path());
    let submit_limit = |account: &str| association(&lab, account, "", "grpsubmitjobs");
    let user_limit = |user: &str| association(&lab, "roll_r", user, "maxsubmitjobs");
    wait_until("all windows are seen to be used up", || {
        submit_limit("roll_a") == "0" && submit_limit("roll_t") == "0" && user_limit("alice") == "0"
    });
    for account in ["roll_a", "roll_t"] {
        let (status, said) = submit(&lab, "alice", account, &["--wrap", "true"]);
        assert!(status != 0 && said.contains("AssocGrpSubmitJobsLimit"), "{status} {said}");
    }
    let (status, said) = submit(&lab, "alice", "roll_r", &["--wrap", "true"]);
    assert!(status != 0 && said.contains("AssocMaxSubmitJobLimit"), "{status} {said}");
    assert_eq!(user_limit("bob"), "", "he has used nothing");
    // No poll for an hour: the window itself wakes the daemon.
    wait_until("the requests roll away", || submit_limit("roll_a") == "50");
    let came_back = now().0;
    println!("submissions came back {} s after the beginning", came_back - first);
    assert!((first + 50..=first + 50 + LATE_S).contains(&came_back), "{came_back} is not {first} + 50");
    job(&lab, "bob", "roll_a", &["--wrap", "true"]);
    wait_until("the use rolls away", || submit_limit("roll_t").is_empty() && user_limit("alice").is_empty());
    let came_back = now().0;
    println!("use came back {} s after its second", came_back - token_back);
    assert!((token_back..=token_back + LATE_S).contains(&came_back), "{came_back} is not {token_back}");
    job(&lab, "alice", "roll_t", &["--wrap", "true"]);
    job(&lab, "alice", "roll_r", &["--wrap", "true"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn reserved_shares_are_fairshare_while_the_cluster_is_saturated() {
    let Some(lab) = Lab::own() else { return };
    lab.accounts(&["share_a", "share_r"], "root");
    let portal = robot(json!({
        "saturationThreshold": 0.5, "capacity": {"capacity": 8, "units": "token"}, "defaultRules": [],
        "policies": [{"consumerId": "u-alice", "consumerType": "user", "reserved": 0.9, "rules": []}],
    }))
    .await;
    let quotas = "[[quota]]\naccount = \"share_a\"\nuser = \"alice\"\nreserved = 0.75\ncapacity = 8\n\
                  saturation_threshold = 0.5\n";
    let began = now();
    lab.jobs(&[format!("account=share_a user=bob cpus=4 state=RUNNING start={}", began.0 - 100)]);
    let quotas = quotas.to_owned() + &robot_source(&portal, "share_r", "5s");
    let mut here = Here::new(&lab, &quotas, Clock::manual(began));
    let share = |account: &str, user: &str| association(&lab, account, user, "fairshare");
    let report = here.cycle().await;
    // 4 billing-minutes of the cluster in the last minute are half of 8. bob has one of four shares here, one of ten there.
    assert_eq!((share("share_a", "alice"), share("share_a", "bob")), ("3".into(), "1".into()), "{report:#?}");
    assert_eq!((share("share_r", "alice"), share("share_r", "bob")), ("9".into(), "1".into()), "{report:#?}");
    assert!(here.cycle().await.is_quiet());
    lab.must("scancel", &["-A", "share_a"]);
    let ended = || {
        let open =
            lab.must("sacct", &["-anX", "-A", "share_a", "-S", "now-1hours", "-s", "R", "-o", "jobid"]);
        open.trim().is_empty()
    };
    wait_until("the job ends", ended);
    here.clock.set(now().plus(90));
    let report = here.cycle().await;
    assert_eq!(
        (share("share_a", "alice"), share("share_r", "alice")),
        ("1".into(), "1".into()),
        "{report:#?}"
    );
    assert!(here.cycle().await.is_quiet());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waldur_quota_warns_and_holds_and_of_two_sources_the_strictest_is_in_force() {
    let Some(lab) = Lab::own() else { return };
    lab.accounts(&["both_a"], "root");
    let state = json!({
        "users": [{"username": "agent", "token": TOKEN, "role": "staff"}],
        "resources": [{"name": "both_a"}],
        "quotas": [{"scope": "both_a", "name": "nc_cpu_usage", "limit": 100, "threshold": 40, "usage": 45}],
    });
    let portal = Portal::start(serde_json::from_value(state).unwrap()).await;
    let more = format!(
        "[[source]]\nname = \"waldur\"\nkind = \"waldur-quota\"\nurl = \"{}api/\"\ntoken_file = \"FOLDER/token\"\n\
         [[allocation]]\naccount = \"both_a\"\nlimits = {{ cpu = 5 }}\nbilling = false\ncarryover_percent = 0\n",
        portal.url
    );
    let mut here = Here::new(&lab, &more, Clock::System);
    let report = here.cycle().await;
    // The local budget of 5 hours with its grace of 20 % is 360 minutes, the quota 100.
    assert_eq!(association(&lab, "both_a", "", "grptresmins"), "cpu=100", "{report:#?}");
    assert_eq!(report.quotas[0].level, Level::Notification, "{:#?}", report.quotas);
    assert!(report.findings.iter().any(|text| text.contains("has used 45 of 100")), "{:#?}", report.findings);
    let explained = here.explain("both_a");
    let fields = explained["fields"].as_array().unwrap();
    let field = fields.iter().find(|field| field["name"] == "GrpTRESMins cpu").unwrap();
    let asks = field["asked"].as_array().unwrap().iter().filter(|asked| asked["source"] != "slurm");
    let asked: Vec<(&str, &str, bool)> = asks
        .map(|asked| {
            let text = |key: &str| asked[key].as_str().unwrap();
            (text("source"), text("value"), asked["decides"].as_bool().unwrap())
        })
        .collect();
    assert_eq!(asked, [("local", "360", false), ("waldur", "100", true)]);
    // 21 cpus for 5 minutes are more than the quota; 20 are not.
    let too_much = job(&lab, "alice", "both_a", &["-n", "21", "--wrap", "sleep 60"]);
    let reason = |job: &str| lab.must("squeue", &["-h", "-j", job, "-o", "%r"]).trim().to_owned();
    wait_until("the job waits for the limit", || reason(&too_much) == "AssocGrpCPUMinutesLimit");
    let fits = job(&lab, "alice", "both_a", &["-n", "20", "--wrap", "sleep 60"]);
    let state = |job: &str| lab.must("squeue", &["-h", "-j", job, "-o", "%T"]).trim().to_owned();
    wait_until("the job within the quota runs", || state(&fits) == "RUNNING");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nomad_quota_holds_a_third_core_back_and_a_raised_one_lets_it_run_within_two_seconds() {
    let Some(lab) = Lab::own() else { return };
    lab.accounts(&["nomad_a"], "root");
    let state = json!({
        "users": [{"username": "agent", "token": TOKEN, "role": "staff"}],
        "nomad": {
            "tokens": [{"secret": TOKEN, "may_write": true}],
            "quotas": [{"Name": "research", "Limits": [{"Region": "global", "RegionLimit": {"Cores": 2}}]}]
        },
    });
    let portal = Portal::start(serde_json::from_value(state).unwrap()).await;
    let more = format!(
        "[[source]]\nname = \"nomad\"\nkind = \"nomad\"\nurl = \"{}nomad/v1/\"\ntoken_file = \"FOLDER/token\"\n\
         poll_interval = \"10m\"\naccounts = {{ research = \"nomad_a\" }}\n",
        portal.url
    );
    let folder = tempfile::tempdir().unwrap();
    let text = configuration(&lab, &more);
    support::read(&text, folder.path());
    write(&text, folder.path());
    let _daemon = Daemon::start(&lab, folder.path());
    wait_until("the quota is in force", || association(&lab, "nomad_a", "", "grptres") == "cpu=2");
    let state = |job: &str| lab.must("squeue", &["-h", "-j", job, "-o", "%T %r"]).trim().to_owned();
    let two = job(&lab, "alice", "nomad_a", &["-n", "2", "--wrap", "sleep 120"]);
    wait_until("two cores run", || state(&two).starts_with("RUNNING"));
    let third = job(&lab, "alice", "nomad_a", &["-n", "1", "--wrap", "sleep 120"]);
    wait_until("the third core waits", || state(&third) == "PENDING AssocGrpCpuLimit");

    let region_limit = RegionLimit { cores: 3, ..RegionLimit::default() };
    let limit = QuotaLimit { region: "global".into(), region_limit, ..QuotaLimit::default() };
    let raised = QuotaSpec { name: "research".into(), limits: vec![limit], ..QuotaSpec::default() };
    portal.handle.with_state(|state| state.nomad.put(raised));
    let changed = Instant::now();
    wait_until("the raised quota is in force", || association(&lab, "nomad_a", "", "grptres") == "cpu=3");
    let in_force = changed.elapsed();
    // Slurm looks at waiting jobs in its own time: that it runs is what counts, not when.
    wait_until("the third core runs", || state(&third).starts_with("RUNNING"));
    println!("in force after {in_force:?}, running after {:?}", changed.elapsed());
    assert!(in_force < Duration::from_secs(2), "{in_force:?}");
}
