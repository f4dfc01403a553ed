//! What happens on an emulated cluster over time, told by the programs' own output.

use super::{Clock, Effect, Fault, Job, JobState, Output, TimeLimit, World};
use std::collections::BTreeMap;

/// 2026-11-22T08:46:44Z
const START: i64 = 1_795_337_204;

fn run(world: &mut World, line: &str) -> Output {
    run_as(world, "root", line)
}

/// Runs words parted by blanks; `~` inside a word stands for a blank.
fn run_as(world: &mut World, user: &str, line: &str) -> Output {
    user.clone_into(&mut world.acting_user);
    let words: Vec<String> = line.split_whitespace().map(|word| word.replace("~", " ")).collect();
    let env = BTreeMap::from([
        ("TZ".to_owned(), "UTC".to_owned()),
        ("SLURM_TIME_FORMAT".to_owned(), "%s".to_owned()),
    ]);
    world.run(&words[0], &words[1..], &env)
}

fn stdout(world: &mut World, line: &str) -> String {
    let output = run(world, line);
    assert_eq!((output.status, String::from_utf8_lossy(&output.stderr).as_ref()), (0, ""), "{line}");
    String::from_utf8(output.stdout).expect("text")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The tree of the captures: acc_top above acc_mid above acc_leaf, and acc_lim, with users alice and bob.
fn cluster() -> World {
    let mut world = World::new("lab");
    world.clock = Clock::Fixed(START);
    world.add_account("acc_top", "root");
    world.add_account("acc_mid", "acc_top");
    world.add_account("acc_leaf", "acc_mid");
    world.add_account("acc_lim", "root");
    for (user, account) in
        [("alice", "acc_leaf"), ("alice", "acc_lim"), ("bob", "acc_leaf"), ("bob", "acc_mid")]
    {
        world.add_user(user, account);
    }
    world
}

fn states(world: &mut World) -> String {
    stdout(world, "sacct -a -D -X -n -P -S uts1795300000 -o jobidraw,state,start,end")
}

// sshare 22.05.8 on 2026-11-22, with jobs that really ran: numbers as it printed them after each calculation.
#[test]
fn raw_usage_is_what_the_controller_counted() {
    let mut world = cluster();
    run(&mut world, "sacctmgr -i modify account acc_leaf set fairshare=3");
    let mut add = |account: &str, user: &str, tres: &[(u32, u64)], start: i64, end: i64| {
        world.add_job(Job {
            account: account.to_owned(),
            user: user.to_owned(),
            state: if end == 0 { JobState::Running } else { JobState::Completed },
            submit: start,
            eligible: start,
            start,
            end,
            time_limit: TimeLimit::Minutes(10),
            allocated: tres.iter().copied().collect(),
            ..Job::default()
        });
    };
    const GPU: u32 = 1001;
    for (cpus, memory, gpus) in
        [(1, 15_000, 0), (2, 10, 0), (6, 60, 0), (1, 10, 2), (1, 15_000, 0), (1, 5, 0), (1, 5, 0), (1, 10, 0)]
    {
        add("root", "root", &[(1, cpus), (2, memory), (4, 1), (GPU, gpus)], START - 700, START - 699);
    }
    add("acc_leaf", "alice", &[(1, 3), (2, 1500), (4, 1), (GPU, 1)], START, START + 20);
    add("acc_mid", "bob", &[(1, 2), (2, 10), (4, 1)], START, START + 13);
    add("acc_lim", "alice", &[(1, 1), (2, 100), (4, 1)], START, 0);

    let shown = |world: &mut World, after: i64| {
        world.move_clock(START + after);
        let rows = stdout(world, "sshare -nP -a -o Account,User,RawUsage,EffectvUsage,FairShare,LevelFS");
        rows.lines().map(|row| row.trim_start().to_owned() + "\n").collect::<String>()
    };
    assert_eq!(
        shown(&mut world, 46),
        "root||337|1.000000||\nroot|root|37|0.110555|1.000000|3.015083\nacc_lim||47|0.139488||2.389684\n\
         acc_lim|alice|47|1.000000|0.800000|1.000000\nacc_top||253|0.749956||0.444470\nacc_mid||253|1.000000||1.000000\n\
         acc_mid|bob|26|0.102748|0.600000|2.433145\nacc_leaf||227|0.897252||0.835885\n\
         acc_leaf|alice|227|1.000000|0.200000|0.500000\nacc_leaf|bob|0|0.000000|0.400000|inf\n"
    );
    assert!(shown(&mut world, 166).contains("acc_lim|alice|170|"));

    assert_eq!(
        stdout(&mut world, "sacctmgr -i modify account acc_mid set RawUsage=0"),
        "No cluster specified, resetting on local cluster lab\n"
    );
    let after = shown(&mut world, 226);
    for row in [
        "acc_top||0|",
        "acc_mid||0|",
        "acc_mid|bob|0|",
        "acc_leaf|alice|0|0.000000|1.000000|inf",
        "acc_lim||231|",
    ] {
        assert!(after.contains(row), "{row}: {after}");
    }
    assert!(after.contains("root||268|"), "what was thrown away is gone above as well: {after}");
    // A running job goes on counting after a reset.
    stdout(&mut world, "sacctmgr -i modify account acc_lim set RawUsage=0");
    let after = shown(&mut world, 286);
    assert!(after.contains("acc_lim|alice|61|") && after.contains("root||98|"), "{after}");
}

/// As fixtures/slurm/22.05/sshare_after_delete.txt has it.
#[test]
fn an_account_that_is_added_again_begins_without_usage_and_those_above_keep_what_it_used() {
    let mut world = cluster();
    world.add_job(Job {
        account: "acc_leaf".to_owned(),
        user: "alice".to_owned(),
        state: JobState::Completed,
        submit: START - 100,
        eligible: START - 100,
        start: START - 100,
        end: START - 94,
        allocated: BTreeMap::from([(1, 1), (4, 1)]),
        ..Job::default()
    });
    let shown = |world: &mut World| stdout(world, "sshare -nP -a -o Account,User,RawUsage");
    assert!(shown(&mut world).contains("   acc_leaf||6\n    acc_leaf|alice|6\n"));
    stdout(&mut world, "sacctmgr -i delete account name=acc_leaf");
    assert!(shown(&mut world).contains(" acc_top||6\n  acc_mid||6\n"), "{}", shown(&mut world));
    world.advance(10);
    stdout(&mut world, "sacctmgr -i add account acc_leaf parent=acc_mid");
    stdout(&mut world, "sacctmgr -i add user alice account=acc_leaf");
    let mut again = World::from_json(&world.to_json()).expect("its own text");
    for world in [&mut world, &mut again] {
        let rows = shown(world);
        assert!(rows.contains(" acc_top||6\n  acc_mid||6\n"), "{rows}");
        assert!(rows.contains("   acc_leaf||0\n    acc_leaf|alice|0\n"), "{rows}");
    }
    stdout(&mut world, "sacctmgr -i modify account acc_top set RawUsage=0");
    assert!(shown(&mut world).contains("root||0\n"), "{}", shown(&mut world));
}

#[test]
fn submitted_jobs_start_end_and_run_into_their_limit() {
    let mut world = cluster();
    for line in [
        "sbatch -A acc_leaf -t 5 --mem=10M --wrap sleep~20",
        "sbatch -A acc_leaf -t 1 --mem=10M --wrap sleep~100",
        "sbatch -A acc_leaf -t 5 --mem=10M --begin=now+30 --wrap sleep~20",
        "sbatch -A acc_leaf -t 5 --mem=10M -H --wrap sleep~20",
    ] {
        assert_eq!(run_as(&mut world, "alice", line).status, 0, "{line}");
    }
    world.advance(10);
    assert_eq!(states(&mut world), "1|RUNNING|1795337204|Unknown\n2|RUNNING|1795337204|Unknown\n");
    // sacct leaves out what is not eligible within its window, and held jobs always.
    assert_eq!(world.reason_to_wait(3).as_deref(), Some("BeginTime"));
    assert_eq!(world.reason_to_wait(4).as_deref(), Some("JobHeldUser"));
    world.advance(1000);
    assert_eq!(
        states(&mut world),
        "1|COMPLETED|1795337204|1795337224\n2|TIMEOUT|1795337204|1795337264\n3|COMPLETED|1795337234|1795337254\n"
    );
}

// Reasons as squeue 22.05.8 gave them (2026-11-22).
#[test]
fn jobs_wait_behind_limits_and_start_once_these_are_lifted() {
    for (limit, lifted, reason) in [
        ("GrpJobs=0", "GrpJobs=-1", "AssocGrpJobsLimit"),
        ("MaxJobs=0", "MaxJobs=-1", "AssocMaxJobsLimit"),
        ("GrpTRESMins=billing=0", "GrpTRESMins=billing=-1", "AssocGrpBillingMinutes"),
        ("GrpTRESMins=billing=3", "GrpTRESMins=billing=5", "AssocGrpBillingMinutes"),
        ("GrpTRES=cpu=0", "GrpTRES=cpu=-1", "AssocGrpCpuLimit"),
        ("MaxTRESMins=cpu=1", "MaxTRESMins=cpu=-1", "AssocMaxCpuMinutesPerJobLimit"),
    ] {
        let mut world = cluster();
        stdout(&mut world, &format!("sacctmgr -i modify account acc_lim set {limit}"));
        assert_eq!(run_as(&mut world, "alice", "sbatch -A acc_lim -t 5 --mem=10M --wrap sleep~1").status, 0);
        assert_eq!(world.reason_to_wait(1).as_deref(), Some(reason), "{limit}");
        world.advance(600);
        assert_eq!(states(&mut world), "1|PENDING|Unknown|Unknown\n", "{limit}");
        stdout(&mut world, &format!("sacctmgr -i modify account acc_lim set {lifted}"));
        world.advance(600);
        assert_eq!(states(&mut world), "1|COMPLETED|1795337804|1795337805\n", "{limit}");
    }
}

#[test]
fn with_safe_a_job_without_time_limit_never_starts_under_a_minutes_limit() {
    let mut world = cluster();
    stdout(&mut world, "sacctmgr -i modify account acc_top set GrpTRESMins=billing=1000000");
    assert_eq!(run_as(&mut world, "alice", "sbatch -A acc_leaf --mem=10M --wrap sleep~1").status, 0);
    assert_eq!(world.reason_to_wait(1).as_deref(), Some("AssocGrpBillingMinutes"));
    world.config.insert("AccountingStorageEnforce".to_owned(), "associations,limits,qos".to_owned());
    assert_eq!(world.reason_to_wait(1), None);
}

#[test]
fn a_limit_of_the_qos_stands_in_for_that_of_the_association() {
    let mut world = cluster();
    stdout(&mut world, "sacctmgr -i add qos free GrpTRESMins=billing=1000");
    stdout(&mut world, "sacctmgr -i modify account root set qos+=free");
    stdout(&mut world, "sacctmgr -i modify account acc_leaf set GrpTRESMins=billing=0");
    let submit = "sbatch -A acc_leaf -t 5 --mem=10M --wrap sleep~1";
    assert_eq!(run_as(&mut world, "alice", submit).status, 0);
    assert_eq!(run_as(&mut world, "alice", &format!("{submit} --qos=free")).status, 0);
    world.advance(60);
    assert_eq!(states(&mut world), "1|PENDING|Unknown|Unknown\n2|COMPLETED|1795337204|1795337205\n");
}

#[test]
fn a_requeued_job_has_a_record_per_run() {
    let mut world = cluster();
    run_as(&mut world, "alice", "sbatch -A acc_leaf -t 5 --mem=10M --wrap sleep~60");
    world.advance(20);
    assert!(world.requeue_job(1));
    world.advance(100);
    assert_eq!(states(&mut world), "1|REQUEUED|1795337204|1795337224\n1|COMPLETED|1795337224|1795337284\n");
    assert_eq!(
        stdout(&mut world, "sacct -a -X -n -P -S uts1795300000 -o jobidraw,state"),
        "1|COMPLETED\n",
        "without -D only the newest record of an id is shown"
    );
}

#[test]
fn faults_meet_the_runs_they_are_planted_for() {
    let list = "sacctmgr -nP show account format=account";
    let mut world = cluster();
    let plain = run(&mut world, list);
    let mut with = |effect: Effect| {
        world.plant(Fault::next("sacctmgr", effect));
        let met = run(&mut world, list);
        assert_eq!(run(&mut world, list), plain, "a fault is used up");
        met
    };
    let met = with(Effect::Fails { status: 3, stderr: "sacctmgr: error: no\n".to_owned() });
    assert_eq!((met.status, met.stdout.len(), stderr(&met)), (3, 0, "sacctmgr: error: no\n".to_owned()));
    assert!(with(Effect::Hangs).hangs());
    assert_eq!(with(Effect::Empty), Output::default());
    assert_eq!(with(Effect::Truncated { bytes: 12 }).stdout, b"acc_leaf\nacc");
    assert!(with(Effect::Duplicated).stdout.starts_with(b"acc_leaf\nacc_leaf\nacc_lim\nacc_lim\n"));
    let shuffled = with(Effect::Reordered { seed: 7 }).stdout;
    assert_ne!(shuffled, plain.stdout);
    assert_eq!(with(Effect::Reordered { seed: 7 }).stdout, shuffled, "the seed decides");
    let met = with(Effect::Warns { stderr: "careful\n".to_owned() });
    assert_eq!((met.status, &met.stdout, stderr(&met)), (0, &plain.stdout, "careful\n".to_owned()));
    assert!(with(Effect::Garbage { lines: vec!["%$#".to_owned()] }).stdout.starts_with(b"%$#\nacc_leaf\n"));
    assert!(
        with(Effect::ForeignColumns { field: "|x".to_owned() })
            .stdout
            .starts_with(b"acc_leaf|x\nacc_lim|x\n")
    );
}

#[test]
fn a_change_may_be_made_although_an_error_is_reported() {
    let mut world = cluster();
    world.plant(Fault {
        argument: Some("fairshare".to_owned()),
        after: 1,
        ..Fault::next("sacctmgr", Effect::DoneThenFails { status: 1, stderr: "lost\n".to_owned() })
    });
    let first = run(&mut world, "sacctmgr -i modify account acc_lim set fairshare=2");
    assert_eq!(first.status, 0, "the fault lets one run pass");
    let second = run(&mut world, "sacctmgr -i modify account acc_lim set fairshare=7");
    assert_eq!((second.status, second.stdout.len()), (1, 0));
    let share = stdout(&mut world, "sacctmgr -nP show assoc where account=acc_lim user= format=share");
    assert_eq!(share, "7\n");
}

#[test]
fn the_release_is_what_the_world_says() {
    let mut world = cluster();
    world.version = "24.11.5".to_owned();
    for program in ["sacct", "sacctmgr", "sreport", "sshare", "scontrol", "sbatch"] {
        for option in ["-V", "--version"] {
            assert_eq!(stdout(&mut world, &format!("{program} {option}")), "slurm-wlm 24.11.5\n");
        }
    }
    let unknown = run(&mut world, "squeue");
    assert_eq!((unknown.status, stderr(&unknown)), (127, "squeue: command not found\n".to_owned()));
}

#[test]
fn hostile_names_are_printed_raw() {
    let mut world = cluster();
    let name = "a|b\nc\td\u{1b}[31m\"'\u{e9}\\";
    world.add_job(Job {
        name: name.to_owned(),
        account: "acc_leaf".to_owned(),
        user: "alice".to_owned(),
        state: JobState::Completed,
        submit: START,
        eligible: START,
        start: START,
        end: START + 5,
        ..Job::default()
    });
    world.advance(60);
    let shown = stdout(&mut world, "sacct -a -D -X -n -P -S uts1795300000 -o jobidraw,jobname,state");
    assert_eq!(shown, format!("1|{name}|COMPLETED\n"));
    world.add_account("acc|pipe\nline", "root");
    assert!(
        stdout(&mut world, "sacctmgr -nP show account format=account,org")
            .contains("\nacc|pipe\nline|acc|pipe\nline\n")
    );
}

#[test]
fn a_seed_may_leave_out_what_slurm_fills_in() {
    let mut world = World::from_json(
        r#"{
            "cluster": "lab",
            "clock": {"fixed": "2026-11-22T08:00:00Z"},
            "qos": [{"name": "slowdown", "priority": 1}],
            "accounts": [
                {"name": "physics", "fairshare": 10, "limits": {"GrpTRESMins": "billing=6000"}},
                {"name": "lasers", "parent": "physics"}
            ],
            "users": [{"name": "ada", "accounts": ["lasers"]}],
            "jobs": [
                {"user": "ada", "account": "lasers", "start": "now-2h", "end": "now-1h", "allocated": "cpu=2,mem=4G,node=1"},
                {"user": "ada", "account": "lasers", "start": "now-10m", "allocated": "cpu=1,node=1"}
            ]
        }"#,
    )
    .expect("a seed");
    assert_eq!(
        stdout(
            &mut world,
            "sacct -a -D -X -n -P -S now-1days -o jobidraw,account,user,state,start,end,alloctres"
        ),
        "1|lasers|ada|COMPLETED|1795327200|1795330800|billing=3,cpu=2,mem=4G,node=1\n\
         2|lasers|ada|RUNNING|1795333800|Unknown|billing=1,cpu=1,node=1\n"
    );
    assert_eq!(
        stdout(
            &mut world,
            "sacctmgr -nP show assoc where account=physics format=account,parentn,share,grptresmins"
        ),
        "physics|root|10|billing=6000\n"
    );
    assert_eq!(stdout(&mut world, "sshare -nP -A lasers -o Account,RawUsage"), "lasers|11400\n");
}

#[test]
fn a_seed_that_means_nothing_is_refused_with_its_place() {
    for (text, place) in [
        (r#"{"cluster": "lab", "accounts": [{"name": "a", "parent": "b"}]}"#, "a"),
        (r#"{"cluster": "lab", "jobs": [{"user": "u", "account": "a", "start": "yesterday"}]}"#, "jobs[0]"),
        (r#"{"cluster": "lab", "qos": [{"name": "q", "limits": {"GrpTresMin": "cpu=1"}}]}"#, "q"),
    ] {
        let refused = World::from_json(text).expect_err("means nothing").to_string();
        assert!(refused.contains(place), "{refused}");
    }
}

/// A cluster as large as the largest that is expected; the test takes seconds when anything is looked up anew per row.
#[test]
fn large_clusters_are_answered_in_one_pass() {
    let mut world = World::new("lab");
    world.clock = Clock::Fixed(START);
    let accounts: Vec<String> = (0..2_000)
        .map(|n| {
            format!(
                r#"{{"name": "a{n}", "parent": "{}"}}"#,
                if n < 10 { "root".to_owned() } else { format!("a{}", n / 10) }
            )
        })
        .collect();
    let users: Vec<String> =
        (0..2_000).map(|n| format!(r#"{{"name": "u{n}", "accounts": ["a{n}"]}}"#)).collect();
    let jobs: Vec<String> = (0..20_000)
        .map(|n| {
            let of = n % 2_000;
            format!(r#"{{"user": "u{of}", "account": "a{of}", "start": "now-3h", "end": "now-2h", "allocated": "cpu=1,node=1"}}"#)
        })
        .collect();
    let seed = format!(
        r#"{{"cluster": "lab", "clock": {{"fixed": {START}}}, "accounts": [{}], "users": [{}], "jobs": [{}]}}"#,
        accounts.join(","),
        users.join(","),
        jobs.join(",")
    );
    let mut world = World::from_json(&seed).expect("a seed");
    let lines = |text: String| text.lines().count();
    assert_eq!(lines(stdout(&mut world, "sacct -a -D -X -n -P -S now-1days -o jobidraw,account")), 20_000);
    assert_eq!(
        lines(stdout(&mut world, "sacctmgr -nP show assoc format=account,user,qos,grptresmins,parentn")),
        4_002
    );
    assert_eq!(lines(stdout(&mut world, "sshare -nP -a -o Account,User,RawUsage")), 4_002);
    let report = "sreport -nP -t Seconds -T billing cluster AccountUtilizationByUser start=now-1days end=now";
    assert_eq!(lines(stdout(&mut world, report)), 4_001);
    let changed = stdout(&mut world, "sacctmgr -i modify account where set fairshare=3");
    assert_eq!(lines(changed), 2_002, "a change without a condition is made to every account");
}
