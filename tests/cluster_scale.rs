//! Size on a REAL Slurm (see tests/cluster/lab): a thousand accounts, two hundred thousand jobs.

mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use slurm_site_agent::agent::audit;
use slurm_site_agent::agent::clock::Clock;
use slurm_site_agent::agent::cycle::{Ask, CycleReport, cycle};
use slurm_site_agent::agent::{Agent, Outside};
use slurm_site_agent::core::command::Mode;
use slurm_site_agent::core::plan::Outcome;
use slurm_site_agent::core::time::Window;
use slurm_site_agent::store::Store;
use support::{Lab, Site, at};

const ACCOUNTS: usize = 1000;
const JOBS: usize = 200_000;
/// TRES that the lab tracks and its synthetic jobs use.
const TRES: &str = "cpu,mem,node,billing,gres/gpu";

fn name(account: usize) -> String {
    format!("wide{account:04}")
}

/// Local allocations of so many cpu-hours, all programs from a folder.
fn wide(lab: &Lab, bin: &Path, hours: impl Fn(usize) -> usize) -> String {
    let mut text = lab.cluster();
    text.push_str(&format!("bin_dir = {:?}\n", bin.to_str().expect("UTF-8")));
    text.push_str("[store]\npath = \"FOLDER/state.db\"\n[components.cpu]\ntres = \"cpu\"\nunit = \"h\"\n");
    text.push_str("[limits]\ntighten_accounts_max = 10000\ntighten_share_percent = 100\n");
    for account in 0..ACCOUNTS {
        text.push_str(&format!(
            "[[allocation]]\naccount = {:?}\nlimits = {{ cpu = {} }}\nperiod = \"month\"\nbilling = false\n",
            name(account),
            hours(account)
        ));
    }
    text
}

/// Slurm's programs behind a script that writes down each process.
struct Counted {
    bin: PathBuf,
    log: PathBuf,
}

impl Counted {
    fn new(folder: &Path) -> Counted {
        let (bin, log) = (folder.join("bin"), folder.join("runs"));
        std::fs::create_dir(&bin).expect("a folder");
        for program in ["sacct", "sacctmgr", "sreport", "sshare", "scontrol"] {
            let path = bin.join(program);
            let text =
                format!("#!/bin/sh\necho {program} >> {}\nexec /usr/bin/{program} \"$@\"\n", log.display());
            std::fs::write(&path, text).expect("a script");
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("its mode");
        }
        Counted { bin, log }
    }

    /// sacctmgr processes since the last time this was asked.
    fn take(&self) -> usize {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        std::fs::write(&self.log, "").expect("the log");
        text.lines().filter(|line| *line == "sacctmgr").count()
    }
}

/// One cycle of a new agent on the folder's store.
async fn run(config: &str, folder: &Path) -> CycleReport {
    let config = support::read(config, folder);
    let outside = Outside {
        runner: Outside::real(&config).runner,
        clock: Clock::manual(at("2026-11-10T12:00:00Z")),
        mode: Mode::Production,
    };
    let store = Store::open(&config.store.path).expect("the store");
    let mut agent = Agent::new(config, outside, store).expect("an agent");
    let report = cycle(&mut agent, &Ask::default()).await.expect("the store works");
    for state in &report.changes {
        assert_eq!(state.outcome, Some(Outcome::Applied), "{}", state.argv);
    }
    report
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_accounts_take_one_process_at_rest_and_few_for_ten_changes() {
    let Some(lab) = Lab::own() else { return };
    let names: Vec<String> = (0..ACCOUNTS).map(name).collect();
    let names = format!("name={}", names.join(","));
    lab.must("sacctmgr", &["-i", "add", "account", &names, "cluster=lab", "parent=root"]);
    let folder = tempfile::tempdir().expect("a folder");
    let programs = Counted::new(folder.path());
    run(&wide(&lab, &programs.bin, |_| 100), folder.path()).await;
    assert_eq!(programs.take(), 4, "observe, two modifies of 500 names, read back");
    let quiet = run(&wide(&lab, &programs.bin, |_| 100), folder.path()).await;
    assert!(quiet.changes.is_empty(), "{:#?}", quiet.changes);
    assert_eq!(programs.take(), 1, "nothing changed");
    let some = |account: usize| if account % 100 == 7 { 300 } else { 100 };
    run(&wide(&lab, &programs.bin, some), folder.path()).await;
    assert_eq!(programs.take(), 3, "ten accounts with equal values");
    let nine = |account: usize| if account % 100 == 7 { 400 + 3 * (account / 100).min(8) } else { 100 };
    run(&wide(&lab, &programs.bin, nine), folder.path()).await;
    assert_eq!(programs.take(), 11, "ten accounts with nine different values");
    let shown = lab.must(
        "sacctmgr",
        &["-nP", "show", "assoc", "where", "account=wide0907", "format=grptresmins,fairshare"],
    );
    assert_eq!(
        shown.trim(),
        "cpu=45792|212",
        "424 hours, half of that carried over, a fifth of grace, in minutes"
    );
    assert!(run(&wide(&lab, &programs.bin, nine), folder.path()).await.changes.is_empty());
    assert_eq!(programs.take(), 1);
}

/// Seconds by account, user and TRES as sreport prints them, rows of users only.
fn sreport(lab: &Lab, window: Window) -> BTreeMap<(String, String, String), u128> {
    let day = |at: i64| jiff::Timestamp::from_second(at).expect("an instant").strftime("%F").to_string();
    let text = lab.must(
        "sreport",
        &[
            "-nP",
            "-t",
            "Seconds",
            "-T",
            TRES,
            "cluster",
            "AccountUtilizationByUser",
            &format!("start={}", day(window.from.0)),
            &format!("end={}", day(window.until.0)),
        ],
    );
    let rows = text.lines().map(|line| line.split('|').collect::<Vec<_>>());
    rows.filter(|row| !row[2].is_empty())
        .map(|row| ((row[1].into(), row[2].into(), row[4].into()), row[5].parse().expect("seconds")))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_totals_of_two_hundred_thousand_jobs_equal_sreport_to_the_second() {
    let Some(lab) = Lab::own() else { return };
    let accounts: Vec<String> = (0..20).map(|n| format!("deep{n:02}")).collect();
    let accounts: Vec<&str> = accounts.iter().map(String::as_str).collect();
    lab.accounts(&accounts[..10], "acc_top");
    lab.accounts(&accounts[10..], "deep00");
    // Over the edge of two months: records cross hours, days and a month.
    let window = Window::new(at("2025-10-31T00:00:00Z"), at("2025-11-02T00:00:00Z"));
    let (start, end) = (format!("start={}", window.from.0), format!("end={}", window.until.0 - 3600));
    println!("{}", lab.lab("insert", &[JOBS.to_string(), start, end]).trim());
    lab.lab("rollup", &[window.from.0.to_string(), window.until.0.to_string()]);
    let now = at("2025-11-03T00:00:00Z");
    let config = lab.cluster()
        + "[store]\npath = \"FOLDER/state.db\"\n[components.cpu]\ntres = \"cpu\"\nunit = \"h\"\n[[allocation]]\n\
           account = \"acc_top\"\nlimits = { cpu = 1000 }\nperiod = \"month\"\nbilling = false\n";
    let mut site = Site::new(&config, now, None);
    let report = site.cycle().await;
    assert_eq!((report.collection.incomplete, report.collection.rejected), (None, 0));
    assert_eq!(report.collection.new, JOBS);
    let drift = audit::compare(&mut site.agent, window, now).await.expect("sreport answers");
    assert_eq!(drift.differing, 0, "{:#?}", drift.differences);
    let shown = sreport(&lab, window);
    assert!(drift.rows >= shown.len() && shown.len() > 20 * 2 * 4, "{} {}", drift.rows, shown.len());
    // What the database itself adds up, beside both.
    let count = "cast(substring_index(substring_index(tres_alloc, ',5=', -1), ',', 1) as integer)";
    let sum = format!(
        "select sum({count} * (time_end - time_start)) from lab_job_table where id_job >= 10000000 and \
         tres_alloc like '%,5=%'"
    );
    let sum: u128 = lab.lab("sql", &[sum]).trim().parse().expect("a sum");
    let billing =
        |(key, seconds): (&(String, String, String), &u128)| (key.2 == "billing").then_some(*seconds);
    assert_eq!(shown.iter().filter_map(billing).sum::<u128>(), sum, "no second is lost at an edge");
}
