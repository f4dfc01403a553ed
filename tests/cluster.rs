//! The agent on a REAL Slurm (see tests/cluster/lab): what it counts, changes and reports is what Slurm says.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use slurm_site_agent::agent::audit;
use slurm_site_agent::agent::cycle::{Ask, CycleReport, cycle};
use slurm_site_agent::core::evaluate::Level;
use slurm_site_agent::core::plan::{Change, Outcome};
use slurm_site_agent::core::time::{Epoch, Window};
use support::{Lab, Site, at};

/// Local allocations of 10 cpu-hours a month with a billing limit of their own units.
fn config(lab: &Lab, accounts: &[(&str, u32)]) -> String {
    let mut text = lab.cluster();
    text.push_str("[store]\npath = \"FOLDER/state.db\"\n");
    text.push_str("[components.cpu]\ntres = \"cpu\"\nunit = \"h\"\n");
    text.push_str("[limits]\ntighten_accounts_max = 100\ntighten_share_percent = 100\n");
    for (account, hours) in accounts {
        text.push_str(&format!(
            "[[allocation]]\naccount = \"{account}\"\nlimits = {{ cpu = {hours} }}\nperiod = \"month\"\nbilling = false\n\
             grace = 0.2\ncarryover_percent = 0\nraw_usage_reset = true\nactions = [\"downscale\", \"pause\", \"notify\"]\n"
        ));
    }
    text
}

fn level(report: &CycleReport, account: &str) -> Level {
    let found = report.decisions.iter().find(|decision| decision.account().as_str() == account);
    let decided = found.and_then(|decision| decision.decided());
    decided.unwrap_or_else(|| panic!("{account} is undecided: {:#?}", report.decisions)).level
}

fn qos_of(lab: &Lab, account: &str) -> String {
    let account = format!("account={account}");
    let args = ["-nP", "show", "assoc", "where", &account, "user=", "format=qos,defaultqos"];
    lab.must("sacctmgr", &args).trim().to_owned()
}

fn raw_usage(lab: &Lab, account: &str) -> u64 {
    let text = lab.must("sshare", &["-nP", "-A", account, "-o", "Account,User,RawUsage"]);
    let row = text.lines().map(|line| line.split('|').collect::<Vec<_>>());
    let row = row.into_iter().find(|row| row[0].trim() == account && row[1].trim().is_empty());
    row.unwrap_or_else(|| panic!("{text}"))[2].parse().expect("a number")
}

#[tokio::test]
async fn the_ledgers_totals_equal_sreport_to_the_second() {
    let Some(lab) = Lab::find() else { return };
    lab.forget(&["led_"]);
    lab.accounts(&["led_top"], "root");
    lab.accounts(&["led_a", "led_b"], "led_top");
    // Around the edge of the months October and November 2025, so that records cross an hour, a day and a month.
    let edge = at("2025-11-01T00:00:00Z").0;
    let line = |text: String| text;
    lab.jobs(&[
        line(format!("account=led_a user=alice cpus=2 mem=100M start={} end={}", edge - 1234, edge + 2345)),
        line(format!(
            "account=led_a user=alice cpus=1 gpus=1 mem=700M start={} end={}",
            edge - 7000,
            edge - 3601
        )),
        line(format!("account=led_a user=bob cpus=1 start={} end={} state=CANCELLED", edge - 50, edge + 1)),
        line(format!("account=led_b user=bob cpus=3 start={} end={} state=TIMEOUT", edge - 3600, edge)),
        line(format!("account=led_b user=alice cpus=1 start={edge} end={} array=3", edge + 777)),
        line(format!(
            "account=led_b user=alice cpus=1 start={} end={} state=REQUEUED second={}-{}",
            edge - 900,
            edge - 300,
            edge - 100,
            edge + 400
        )),
        line(format!(
            "account=led_a user=bob cpus=1 start={} end={} state=NEVER_STARTED",
            edge - 10,
            edge - 5
        )),
        line(format!(
            "account=led_top user=bob cpus=4 start={} end={} suspended={}-{}",
            edge - 2000,
            edge + 2000,
            edge - 500,
            edge + 300
        )),
    ]);
    let window = Window::new(Epoch(edge - 2 * 3600), Epoch(edge + 3600));
    lab.lab("rollup", &[window.from.0.to_string(), window.until.0.to_string()]);
    let mut site =
        Site::new(&config(&lab, &[("led_a", 10), ("led_b", 10)]), at("2025-11-02T00:00:00Z"), None);
    let report = site.cycle().await;
    assert_eq!(report.collection.incomplete, None);
    assert_eq!(report.collection.rejected, 0, "{:?}", report.collection.samples);
    for hour in 0..3 {
        let from = window.from.plus(hour * 3600);
        let drift =
            audit::compare(&mut site.agent, Window::new(from, from.plus(3600)), at("2025-11-02T00:00:00Z"))
                .await
                .unwrap();
        let ours: Vec<_> = drift.differences.iter().filter(|d| d.account.starts_with("led_")).collect();
        assert!(ours.is_empty(), "hour {hour}: {ours:#?}");
        assert!(drift.rows > 0, "hour {hour}: sreport has rows");
    }
    let drift = audit::compare(&mut site.agent, window, at("2025-11-02T00:00:00Z")).await.unwrap();
    let ours: Vec<_> = drift.differences.iter().filter(|d| d.account.starts_with("led_")).collect();
    assert!(ours.is_empty(), "{ours:#?}");
    // The edge of the month splits the first job: 2 cpus for 2345 s are November's.
    let totals =
        report.decisions.iter().find(|d| d.account().as_str() == "led_a").and_then(|d| d.decided()).unwrap();
    let november_cpu_s = 2 * 2345 + 1;
    assert_eq!(
        totals.used,
        slurm_site_agent::core::exact::Exact::fraction(november_cpu_s, 3600).unwrap(),
        "{totals:#?}"
    );
    assert_eq!(raw_sacct(&lab, window), ledger(&site, window), "sacct's own raw figures");
}

/// billing- and memory-seconds per account and user by sacct -T, added up here from the printed text.
fn raw_sacct(lab: &Arc<Lab>, window: Window) -> BTreeMap<(String, String), (u64, u64)> {
    let (from, until) = (format!("uts{}", window.from.0), format!("uts{}", window.until.0));
    let text = lab.must(
        "sacct",
        &[
            "-aDXnPT",
            "-M",
            "lab",
            "-S",
            &from,
            "-E",
            &until,
            "--noconvert",
            "-o",
            "account,user,start,end,alloctres",
        ],
    );
    let mut sums = BTreeMap::new();
    for row in text.lines().map(|line| line.split('|').collect::<Vec<_>>()) {
        if !row[0].starts_with("led_") || row[4].is_empty() {
            continue;
        }
        let count = |name: &str| -> u64 {
            let found = row[4].split(',').find_map(|tres| tres.strip_prefix(name));
            found.map_or(0, |n| n.trim_end_matches('M').parse().expect("a count"))
        };
        let instant = |text: &str| at(&format!("{text}Z")).0;
        let wall_s = u64::try_from(instant(row[3]) - instant(row[2])).expect("end after start");
        let sum: &mut (u64, u64) = sums.entry((row[0].to_owned(), row[1].to_owned())).or_default();
        sum.0 += count("billing=") * wall_s;
        sum.1 += count("mem=") * wall_s;
    }
    sums.retain(|_, sum| *sum != (0, 0));
    sums
}

fn ledger(site: &Site, window: Window) -> BTreeMap<(String, String), (u64, u64)> {
    use slurm_site_agent::core::tres::Tres;
    use slurm_site_agent::core::usage::{Adding, Counting, SuspensionEdges};
    let mut adding = Adding::default();
    let cluster = &site.agent.config.cluster.name;
    let now = site.agent.clock.now();
    site.agent
        .store
        .visit_jobs(cluster, window, &mut |job| {
            adding.add(&job, window, now, Counting::SreportEqual, &SuspensionEdges::default());
        })
        .unwrap();
    let mut sums = BTreeMap::new();
    for (account, user, used) in adding.usage().rows().filter(|(account, _, _)| account.starts_with("led_")) {
        let of = |tres: &Tres| u64::try_from(used.get(tres)).unwrap();
        sums.insert((account.to_owned(), user.to_owned()), (of(&Tres::billing()), of(&Tres::mem())));
    }
    sums
}

#[tokio::test]
async fn a_running_job_counts_up_to_now() {
    let Some(lab) = Lab::find() else { return };
    lab.forget(&["run_"]);
    lab.accounts(&["run_a"], "root");
    lab.must("sacctmgr", &["-i", "modify", "account", "name=run_a", "cluster=lab", "set", "qos=normal"]);
    let start = at("2025-12-05T10:00:00Z").0;
    lab.jobs(&[format!("account=run_a user=alice cpus=2 start={start} state=RUNNING")]);
    let mut site = Site::new(&config(&lab, &[("run_a", 10)]), Epoch(start + 3600), None);
    let report = site.cycle().await;
    let used = report.decisions[0].decided().expect("decided").used;
    assert_eq!(used, slurm_site_agent::core::exact::Exact::whole(2), "2 cpus for an hour");
    site.clock.set(Epoch(start + 5400));
    let report = site.cycle().await;
    assert_eq!(
        report.decisions[0].decided().expect("decided").used,
        slurm_site_agent::core::exact::Exact::whole(3)
    );
    lab.run("scancel", &["-A", "run_a"]);
}

#[tokio::test]
async fn a_policy_drives_an_account_through_slowdown_and_blocked_and_back_after_the_period() {
    let Some(lab) = Lab::find() else { return };
    lab.forget(&["pol_"]);
    lab.accounts(&["pol_top"], "root");
    lab.accounts(&["pol_a", "pol_b", "pol_c"], "pol_top");
    let day = |d: i64| at("2025-10-01T00:00:00Z").0 + d * 86_400;
    let mut site =
        Site::new(&config(&lab, &[("pol_a", 10), ("pol_b", 10), ("pol_c", 10)]), Epoch(day(1)), None);
    // The first cycle adopts the accounts: fairshare 10/3 -> 3, cpu limit 10 h x 60 x 1.2 = 720 minutes, QOS normal.
    let report = site.cycle().await;
    assert_eq!(level(&report, "pol_a"), Level::Normal);
    assert_eq!(report.changes.len(), 1, "three accounts with the same values share one modify: {report:#?}");
    assert!(report.changes.iter().all(|change| change.outcome == Some(Outcome::Applied)), "{report:#?}");
    assert_eq!(qos_of(&lab, "pol_a"), "normal|normal");
    let limit = ["-nP", "show", "assoc", "where", "account=pol_a", "user=", "format=fairshare,grptresmins"];
    assert_eq!(lab.must("sacctmgr", &limit).trim(), "3|cpu=720");
    let report = site.cycle().await;
    assert!(report.is_quiet(), "a second cycle changes nothing: {report:#?}");

    // A real job in pol_a makes raw usage; its times become 10 hours of one cpu: 100 %.
    lab.jobs(&[format!("account=pol_a user=alice cpus=1 start={} end={}", day(2), day(2) + 36_000)]);
    site.clock.set(Epoch(day(3)));
    let report = site.cycle().await;
    assert_eq!(level(&report, "pol_a"), Level::Slowdown);
    assert_eq!(qos_of(&lab, "pol_a"), "slowdown|slowdown");
    assert_eq!(qos_of(&lab, "pol_b"), "normal|normal");
    assert_eq!(report.changes.len(), 1, "one account of three changed: {report:#?}");

    lab.jobs(&[format!("account=pol_a user=bob cpus=1 start={} end={}", day(3), day(3) + 7200)]);
    site.clock.set(Epoch(day(4)));
    let report = site.cycle().await;
    assert_eq!(level(&report, "pol_a"), Level::Blocked);
    assert_eq!(qos_of(&lab, "pol_a"), "blocked|blocked");
    let sbatch = ["-A", "pol_a", "-t", "1", "-o", "/dev/null", "--wrap", "true"];
    let (status, text) = lab.run_as("alice", "sbatch", &sbatch);
    assert!(status != 0 && text.contains("QOSMaxSubmitJobPerUserLimit"), "{status} {text}");
    let modified = lab.modifications("pol_a");
    assert!(site.cycle().await.is_quiet());
    assert_eq!(lab.modifications("pol_a"), modified, "slurmdbd saw no further modify");

    // The next month: raw usage is reset once, and the account is back to normal.
    assert!(raw_usage(&lab, "pol_a") > 0, "the real jobs left raw usage");
    site.clock.set(at("2025-11-01T00:00:00Z"));
    let report = site.cycle().await;
    assert_eq!(level(&report, "pol_a"), Level::Normal);
    let resets = |report: &CycleReport| {
        let is_reset = |change: &&slurm_site_agent::agent::apply::ChangeState| matches!(&change.change, Change::ResetRawUsage { account, .. } if account.as_str() == "pol_a");
        report.changes.iter().filter(is_reset).count()
    };
    assert_eq!(resets(&report), 1, "{report:#?}");
    assert_eq!(raw_usage(&lab, "pol_a"), 0, "seen in sshare");
    assert_eq!(qos_of(&lab, "pol_a"), "normal|normal");
    let (status, text) = lab.run_as("alice", "sbatch", &sbatch);
    assert_eq!(status, 0, "{text}");
    let report = site.cycle().await;
    assert_eq!(resets(&report), 0);
    assert!(report.changes.is_empty(), "{report:#?}");
}

#[tokio::test]
async fn the_raw_usage_of_every_account_is_known_after_another_was_deleted() {
    let Some(lab) = Lab::find() else { return };
    lab.forget(&["fx"]);
    // After this sshare 22.05.8 shows fxc before root, without its indentation (fixtures/slurm/22.05/sshare_after_delete.txt).
    let rows = {
        let _lock = lab.accounts_lock();
        lab.must("sacctmgr", &["-i", "add", "account", "name=fxa,fxb", "cluster=lab", "parent=acc_top"]);
        lab.must("sacctmgr", &["-i", "add", "user", "name=alice", "account=fxa,fxb", "cluster=lab"]);
        lab.must("sacctmgr", &["-i", "add", "account", "name=fxc", "cluster=lab", "parent=fxb"]);
        lab.must("sacctmgr", &["-i", "delete", "account", "name=fxa"]);
        lab.must("sshare", &["-nP", "-a", "-o", "Account,User,RawUsage,GrpTRESRaw"])
    };
    let site = Site::new(&config(&lab, &[("fxc", 10)]), at("2025-09-10T00:00:00Z"), None);
    let known = site.agent.slurm.raw_usage().await.unwrap();
    let known: Vec<&str> = known.keys().map(|name| name.as_str()).collect();
    for name in ["fxb", "fxc", "acc_leaf", "root"] {
        assert!(known.contains(&name), "{name} is not among {known:?}:\n{rows}");
    }
}

/// Runs a command under the restrictions of the shipped unit, as the user nobody.
fn under_the_unit(lab: &Lab, folder: &std::path::Path, command: &[&str]) -> (i32, String, String) {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = std::process::Command::new(root.join("tests/cluster/sandbox.py"))
        .arg(root.join("systemd/slurm-site-agent.service"))
        .arg("nobody")
        .arg(format!("{},{}", lab.env["LAB_RUN"], folder.display()))
        .arg("--")
        .args(command)
        .env_clear()
        .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")
        .env("SLURM_CONF", &lab.env["SLURM_CONF"])
        .output()
        .expect("the sandbox starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

#[test]
fn slurms_programs_and_a_whole_cycle_work_under_the_restrictions_of_the_unit() {
    let Some(lab) = Lab::find() else { return };
    // Its default account would stand against forgetting the account; the first time there is no such user.
    lab.run("sacctmgr", &["-i", "delete", "user", "name=nobody"]);
    lab.forget(&["unit_"]);
    lab.accounts(&["unit_a"], "root");
    {
        let _lock = lab.accounts_lock();
        lab.must("sacctmgr", &["-i", "add", "user", "name=nobody", "cluster=lab", "account=unit_a"]);
        lab.must("sacctmgr", &["-i", "modify", "user", "name=nobody", "set", "adminlevel=Administrator"]);
    }
    let start = at("2025-07-20T10:00:00Z").0;
    lab.jobs(&[format!("account=unit_a user=alice cpus=2 start={start} end={}", start + 3600)]);
    let folder = tempfile::tempdir().unwrap();
    let run = |command: &[&str]| under_the_unit(&lab, folder.path(), command);
    // The restrictions are there: each of these works outside.
    for forbidden in [
        "touch /etc/sandbox",
        "ls /root",
        "cat /proc/1/status",
        "python3 -c 'import mmap; mmap.mmap(-1, 4096, prot=mmap.PROT_READ|mmap.PROT_WRITE|mmap.PROT_EXEC)'",
        "python3 -c 'import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)'",
        "unshare --user true",
        "mount -t tmpfs tmpfs /tmp",
        "nice -n -1 true 2>&1 | grep . && false",
    ] {
        let (status, out, err) = run(&["sh", "-c", forbidden]);
        assert_ne!(status, 0, "{forbidden}: {out}{err}");
    }
    let window = ["-S", "2025-07-20T00:00:00", "-E", "2025-07-21T00:00:00"];
    let sacct =
        [&["sacct", "-aDXnP", "-M", "lab"], &window[..], &["-A", "unit_a", "-o", "account,user,elapsedraw"]];
    let (status, out, err) = run(&sacct.concat());
    assert_eq!((status, out.as_str()), (0, "unit_a|alice|3600\n"), "{err}");
    for asked in [
        &["sacctmgr", "-nP", "show", "assoc", "where", "account=unit_a", "format=account"][..],
        &["sshare", "-nP", "-A", "unit_a", "-o", "Account"][..],
        &["scontrol", "ping"][..],
        &["scontrol", "show", "config"][..],
        &["sreport", "-nP", "cluster", "AccountUtilizationByUser"][..],
    ] {
        let (status, out, err) = run(asked);
        assert_eq!(status, 0, "{asked:?}: {out}{err}");
    }
    // The agent itself, with its children, and a change.
    let program = folder.path().join("slurm-site-agent");
    std::fs::copy(env!("CARGO_BIN_EXE_slurm-site-agent"), &program).unwrap();
    let text = config(&lab, &[("unit_a", 10)]).replace("FOLDER", folder.path().to_str().unwrap());
    std::fs::write(folder.path().join("config.toml"), text).unwrap();
    std::os::unix::fs::chown(folder.path(), Some(65_534), Some(65_534)).unwrap();
    let config = folder.path().join("config.toml");
    let agent = [program.to_str().unwrap(), "--config", config.to_str().unwrap(), "--evaluate-now", "--json"];
    let (status, out, err) = run(&agent);
    let report: serde_json::Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{err}"));
    assert_eq!(status, 0, "{report:#}{err}");
    assert_eq!(report["collection"]["incomplete"], serde_json::Value::Null);
    assert!(report["collection"]["new"].as_u64().is_some_and(|new| new > 0), "sacct answered: {report:#}");
    assert_eq!(report["changes"][0]["outcome"]["outcome"], "applied", "{report:#}");
    assert_eq!(qos_of(&lab, "unit_a"), "normal|normal");
}

#[tokio::test]
async fn a_policy_change_of_one_account_of_many_runs_exactly_one_modify() {
    let Some(lab) = Lab::find() else { return };
    let names: Vec<String> = (0..8).map(|n| format!("many_{n}")).collect();
    let accounts: Vec<&str> = names.iter().map(String::as_str).collect();
    lab.forget(&["many_"]);
    lab.accounts(&accounts, "root");
    let mut grants: Vec<(&str, u32)> = accounts.iter().map(|name| (*name, 100)).collect();
    let mut site = Site::new(&config(&lab, &grants), at("2025-09-10T00:00:00Z"), None);
    let report = site.cycle().await;
    assert_eq!(report.changes.len(), 1, "{report:#?}");
    grants[3].1 = 200;
    let changed = support::read(&config(&lab, &grants), site.folder.path());
    site.agent.reconfigure(changed).unwrap();
    let before: Vec<usize> = accounts.iter().map(|name| lab.modifications(name)).collect();
    let report = site.cycle().await;
    assert_eq!(report.changes.len(), 1, "{report:#?}");
    let after: Vec<usize> = accounts.iter().map(|name| lab.modifications(name)).collect();
    for (n, name) in accounts.iter().enumerate() {
        assert_eq!(after[n] - before[n], usize::from(n == 3), "{name}");
    }
}

#[tokio::test]
async fn an_account_that_does_not_exist_is_reported_before_anything_is_run() {
    let Some(lab) = Lab::find() else { return };
    let mut site = Site::new(&config(&lab, &[("nowhere_at_all", 5)]), at("2025-09-10T00:00:00Z"), None);
    let report = site.cycle().await;
    assert!(report.changes.is_empty(), "{report:#?}");
    let decision = &report.decisions[0];
    assert!(format!("{decision:?}").contains("does not exist"), "{decision:?}");
}

#[tokio::test]
async fn a_dry_run_shows_what_is_due_and_changes_nothing() {
    let Some(lab) = Lab::find() else { return };
    lab.forget(&["dry_"]);
    lab.accounts(&["dry_a"], "root");
    let mut site = Site::new(&config(&lab, &[("dry_a", 100)]), at("2025-09-10T00:00:00Z"), None);
    let ask = Ask { dry_run: true, ..Ask::default() };
    let before = lab.modifications("dry_a");
    let report = cycle(&mut site.agent, &ask).await.unwrap();
    assert_eq!(report.changes.len(), 1);
    assert!(report.changes[0].argv.contains("name=dry_a"), "{}", report.changes[0].argv);
    assert_eq!(lab.modifications("dry_a"), before);
}

#[tokio::test]
async fn a_portals_policy_command_usage_and_amie_records_go_the_whole_way() {
    let Some(lab) = Lab::find() else { return };
    lab.forget(&["way_"]);
    lab.accounts(&["way_a", "way_b"], "root");
    let offering = "5e1f0a3c-9b7d-4e2f-8a6c-1d0b3e5f7a90";
    let state = serde_json::json!({
        "clock": {"fixed": "2025-08-10T12:00:00Z"},
        "settings": {"evaluate_on_usage": false},
        "users": [{"username": "agent", "token": support::TOKEN, "role": "staff"}],
        "offerings": [{"uuid": offering}],
        "policies": [{"period": 2, "tres_billing_enabled": false, "carryover_enabled": false}],
        "resources": [{"name": "way_a", "limits": {"cpu": 10}}, {"name": "way_b", "limits": {"cpu": 10}}],
        "commands": [
            {"resource": "way_a", "command_type": "fairshare", "parameters": {"fairshare": 2}, "executed_at": "2025-08-10T11:00:00Z"},
            {"resource": "way_b", "command_type": "explode", "executed_at": "2025-08-10T11:00:00Z"}
        ],
        "amie": {"sites": [{"name": "SITE", "api_key": support::AMIE_KEY}], "projects": [{"local_project_id": "TG-1"}]}
    });
    let portal = support::Portal::start(serde_json::from_value(state).unwrap()).await;
    let mut config = lab.cluster();
    config.push_str(&format!(
        "[[source]]\nname = \"portal\"\nkind = \"waldur-policy\"\nurl = \"{url}\"\ntoken_file = \"FOLDER/token\"\noffering = \"{offering}\"\n\
         [components.cpu]\ntres = \"cpu\"\nunit = \"h\"\n[store]\npath = \"FOLDER/state.db\"\n\
         [amie]\nurl = \"{url}amie/api/v1/\"\nsite = \"SITE\"\nkey_file = \"FOLDER/key\"\nresource = \"cluster.site.org\"\n[amie.projects]\nway_a = \"TG-1\"\n",
        url = portal.url
    ));
    let start = at("2025-08-05T10:00:00Z").0;
    lab.jobs(&[
        format!("account=way_a user=alice cpus=2 start={start} end={}", start + 3600),
        format!(
            "account=way_a user=bob cpus=1 state=REQUEUED start={} end={} second={}-{}",
            start + 100,
            start + 1900,
            start + 4000,
            start + 5800
        ),
    ]);
    let mut site = Site::new(&config, at("2025-08-10T12:00:00Z"), None);
    let report = site.cycle().await;
    assert!(report.sources[0].error.is_none(), "{report:#?}");
    // 2 x 1 h + 2 x 0.5 h of 10: 30 %.
    let used =
        report.decisions.iter().find(|d| d.account().as_str() == "way_a").and_then(|d| d.decided()).unwrap();
    assert_eq!(used.used, slurm_site_agent::core::exact::Exact::whole(3));
    let shares = ["-nP", "show", "assoc", "where", "account=way_a", "user=", "format=fairshare"];
    assert_eq!(lab.must("sacctmgr", &shares).trim(), "2", "the command's stricter fairshare is in force");
    let (results, usages, loaded) = portal.handle.with_state(|state| {
        let results: Vec<(bool, String)> =
            state.results.iter().map(|result| (result.success, result.error_message.clone())).collect();
        let usages: Vec<String> =
            state.component_usages.iter().map(|usage| format!("{}={}", usage.kind, usage.usage)).collect();
        (results, usages, serde_json::to_value(&state.amie).unwrap()["loaded"].as_array().unwrap().len())
    });
    assert_eq!(results.iter().filter(|(success, _)| *success).count(), 1, "{results:?}");
    assert!(results.iter().any(|(success, error)| !success && error.contains("explode")), "{results:?}");
    assert!(usages.iter().any(|usage| usage.starts_with("cpu=3")), "{usages:?}");
    assert_eq!(loaded, 3, "three records: one job, and two incarnations of the requeued one");
    let report = site.cycle().await;
    assert!(report.is_quiet(), "{report:#?}");
}
