//! What is asked of Slurm, and what its answers mean: the whole room behind canned answers of real Slurms.
//!
//! Answers of 22.05.8 were taken on 2026-11-22 on a private cluster `lab`; those of 20.11.9 and 26.05.3 on the same day on
//! clusters built from source.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use slurm_site_agent::core::association::{Assignments, JobLimit, Limit, UserRow};
use slurm_site_agent::core::job::JobRecord;
use slurm_site_agent::core::name::{AccountName, Names, QosName, SourceName, UserName};
use slurm_site_agent::core::plan::{Change, ResetMarker};
use slurm_site_agent::core::policy::LimitType;
use slurm_site_agent::core::time::{Epoch, Window};
use slurm_site_agent::core::tres::Tres;
use slurm_site_agent::slurm::{Answer, Class, RunError, Runner, Slurm, SlurmError, sacct};

use super::{ASSOC, JOBS, SSHARE, fixture, lab};

/// A Slurm that gives the same answer to every question, and what it was asked.
fn answering(status: i32, stdout: &[u8], stderr: &str) -> (Slurm, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    let answer = Answer { stdout: stdout.to_vec(), stderr: stderr.as_bytes().to_vec(), status };
    let body = move |program: &str, args: &[String], _: &BTreeMap<String, String>| {
        seen.lock().unwrap().push(format!("{program} {}", args.join(" ")));
        Ok(answer.clone())
    };
    (Slurm::new(Runner::Emulated(Arc::new(body)), lab()), asked)
}

fn account(name: &str) -> AccountName {
    AccountName::parse(name).unwrap()
}

fn accounts(names: &[&str], set: Assignments) -> Change {
    Change::Accounts { accounts: Names::of(names.iter().map(|name| account(name)).collect()).unwrap(), set }
}

fn shares(shares: u32) -> Assignments {
    Assignments { fairshare: Some(shares), ..Assignments::default() }
}

fn qos(names: &[&str], default: &str) -> Assignments {
    let qos = names.iter().map(|name| QosName::parse(name).unwrap()).collect();
    Assignments { qos: Some(qos), default_qos: QosName::parse(default).ok(), ..Assignments::default() }
}

fn user(set: Assignments) -> Change {
    user_row(UserRow::Only, set)
}

fn user_row(row: UserRow, set: Assignments) -> Change {
    Change::User { user: UserName::parse("bob").unwrap(), account: account("edge_a"), row, set }
}

fn reset() -> Change {
    let marker = ResetMarker {
        account: account("edge_a"),
        source: SourceName::parse("local").unwrap(),
        policy: "local:edge_a".into(),
        period: "2026-Q4".into(),
    };
    Change::ResetRawUsage { account: account("edge_a"), marker }
}

async fn complaint(change: &Change, status: i32, stdout: &str, stderr: &str) -> Option<String> {
    let (slurm, asked) = answering(status, stdout.as_bytes(), stderr);
    let applied = slurm.apply(change).await.unwrap();
    assert_eq!(*asked.lock().unwrap(), [applied.argv]);
    applied.complaint
}

#[test]
fn a_change_is_one_argument_vector_with_absolute_values_and_named_conditions() {
    let (slurm, _) = answering(0, b"", "");
    let limit = |name: &str, limit| (Tres::parse(name).unwrap(), limit);
    let everything = Assignments {
        fairshare: Some(30),
        limits: BTreeMap::from([
            (LimitType::GrpTRES, BTreeMap::from([limit("mem", Limit::At(3000))])),
            (
                LimitType::GrpTRESMins,
                BTreeMap::from([limit("gres/gpu:a100", Limit::At(7)), limit("cpu", Limit::Cleared)]),
            ),
            (LimitType::MaxTRESMins, BTreeMap::new()),
        ]),
        jobs: [(JobLimit::GrpSubmitJobs, Limit::At(0))].into(),
        ..qos(&["normal", "slowdown"], "slowdown")
    };
    let typed = [
        (
            accounts(&["bio", "chem"], everything),
            "sacctmgr -i modify account where name=bio,chem cluster=lab set fairshare=30 \
             GrpTRESMins=cpu=-1,gres/gpu:a100=7 GrpTRES=mem=3000 GrpSubmitJobs=0 qos=normal,slowdown defaultqos=slowdown",
        ),
        (
            user(Assignments {
                qos: Some(BTreeSet::new()),
                jobs: [(JobLimit::GrpSubmitJobs, Limit::Cleared)].into(),
                ..shares(1)
            }),
            "sacctmgr -i modify user where name=bob account=edge_a cluster=lab set fairshare=1 GrpSubmitJobs=-1 qos=",
        ),
        (reset(), "sacctmgr -i modify account where name=edge_a cluster=lab set RawUsage=0"),
    ];
    for (change, expected) in typed {
        let argv = slurm.argv(&change);
        assert_eq!(argv.to_string(), expected);
        assert!(!argv.is_read_only());
    }
}

#[tokio::test]
async fn a_change_that_listed_exactly_the_asked_accounts_has_no_complaint() {
    let echo = " Modified account associations...\n  C = lab        A = edge_a_very_long_account_name_indeed_1234567890 of root\n  \
                C = lab        A = edge_a of root\n";
    let both = accounts(&["edge_a", "edge_a_very_long_account_name_indeed_1234567890"], shares(12));
    assert_eq!(complaint(&both, 0, echo, "").await, None);
    let cased = echo.replace("edge_a of", "Edge_A of");
    assert_eq!(complaint(&both, 0, &cased, "").await, None);
    let root = " Modified account associations...\n  C = lab        A = root\n";
    assert_eq!(complaint(&accounts(&["root"], shares(1)), 0, root, "").await, None);
}

#[tokio::test]
async fn users_listed_below_a_change_that_they_inherit_are_no_complaint() {
    let echo = " Modified account associations...\n  C = lab        A = edge_a of root\n  \
                C = lab        A = edge_a               U = bob       P = debug\n  \
                C = lab        A = edge_a               U = alice    \n  \
                C = lab        A = edge_sub             U = alice    \n";
    assert_eq!(complaint(&accounts(&["edge_a"], qos(&["normal"], "normal")), 0, echo, "").await, None);
    let said = complaint(&accounts(&["edge_a"], shares(3)), 0, echo, "").await;
    assert_eq!(said.unwrap(), "sacctmgr also changed edge_a/bob@debug,edge_a/alice,edge_sub/alice");
}

#[tokio::test]
async fn an_account_that_is_not_listed_was_not_changed() {
    let echo = " Modified account associations...\n  C = lab        A = acc_a1 of root\n";
    let said = complaint(&accounts(&["acc_a1", "acc_nosuch"], shares(8)), 0, echo, "").await;
    assert_eq!(said.unwrap(), "sacctmgr did not list acc_nosuch as changed");
    let elsewhere = echo.replace("C = lab", "C = new");
    let said = complaint(&accounts(&["acc_a1"], shares(8)), 0, &elsewhere, "").await;
    assert_eq!(said.unwrap(), "sacctmgr did not list acc_a1 as changed");
    let only_users =
        " Modified account associations...\n  C = lab        A = acc_a1               U = alice    \n";
    let said = complaint(&accounts(&["acc_a1"], qos(&["normal"], "normal")), 0, only_users, "").await;
    assert_eq!(said.unwrap(), "sacctmgr did not list acc_a1 as changed");
}

#[tokio::test]
async fn accounts_that_were_not_asked_for_are_a_complaint() {
    let everybody = " Modified account associations...\n  C = lab        A = root\n  C = lab        A = acc_a1 of root\n  \
                     C = lab        A = acc_a2 of root\n";
    let said = complaint(&accounts(&["acc_a1"], shares(3)), 0, everybody, "").await;
    assert_eq!(said.unwrap(), "sacctmgr also changed root,acc_a2");
}

#[tokio::test]
async fn refusals_are_told_in_slurms_words_whatever_the_exit_status() {
    let change = accounts(&["acc_a1"], shares(8));
    let modified = " Modified account associations...\n  C = lab        A = acc_a1 of root\n";
    let cases = [
        // 22.05 and 20.11; 26.05 with a heading.
        (1, " Nothing modified\n", "", "Nothing modified"),
        (
            1,
            " Modified account associations...\n  Nothing modified\n",
            "",
            "Modified account associations...; Nothing modified",
        ),
        // The limit is now 0.
        (
            0,
            modified,
            "sacctmgr: error: Invalid unit type 'a'. Possible options are 'KMGTP'\n",
            "Invalid unit type 'a'. Possible options are 'KMGTP'",
        ),
        // 22.05 with status 0, 26.05 with 1.
        (
            0,
            "",
            " These associations don't have access to their default qos.\n Please give them access before they the default \
             can be set to this.\n  DefQOS = slowdown   C = lab        A = edge_a               \n",
            "These associations don't have access to their default qos.; Please give them access before they the default \
             can be set to this.; DefQOS = slowdown   C = lab        A = edge_a",
        ),
        (
            1,
            "",
            "sacctmgr: error: You gave a bad qos 'acc_noqos'. Valid QOS's are normal,slowdown,blocked\n Unknown option: \
             qos=acc_noqos\n Use keyword 'where' to modify condition\n",
            "You gave a bad qos 'acc_noqos'. Valid QOS's are normal,slowdown,blocked; Unknown option: qos=acc_noqos; Use \
             keyword 'where' to modify condition",
        ),
        (1, "", "", "sacctmgr gave no reason, exit status 1"),
        (0, "", "", "sacctmgr did not list acc_a1 as changed"),
    ];
    for (status, stdout, stderr, expected) in cases {
        assert_eq!(complaint(&change, status, stdout, stderr).await.as_deref(), Some(expected));
    }
}

#[tokio::test]
async fn long_and_hostile_complaints_are_cut_and_made_printable() {
    let change = accounts(&["acc_a1"], shares(8));
    let stderr = format!("sacctmgr: error: \x1b[2Jgone\u{85}now\n{}", "é more\n".repeat(1000));
    let said = complaint(&change, 1, "", &stderr).await.unwrap();
    assert!(said.starts_with(r"\u{1b}[2Jgone\u{85}now; é more; "), "{said}");
    assert!(said.len() < 700 && said.ends_with(" ...") && !said.contains(char::is_control), "{said}");
}

#[tokio::test]
async fn a_user_change_must_list_that_row_of_that_user_in_that_account_and_nothing_else() {
    let heading = " Modified user associations...\n";
    let bob = "  C = lab        A = edge_a               U = bob      \n";
    let debug = "  C = lab        A = edge_a               U = bob       P = debug\n";
    let small = "  C = lab        A = edge_a               U = bob       P = small\n";
    let alice = "  C = lab        A = edge_a               U = alice    \n";
    let only = user(shares(3));
    let bound = user_row(UserRow::Partition("debug".into()), shares(3));
    let cases = [
        (&only, vec![bob], None),
        (&bound, vec![debug], None),
        (&only, vec![bob, alice], Some("sacctmgr also changed edge_a/alice")),
        (&only, vec![debug, small], Some("sacctmgr also changed edge_a/bob@debug,edge_a/bob@small")),
        (&bound, vec![debug, small], Some("sacctmgr also changed edge_a/bob@small")),
        (&bound, vec![bob], Some("sacctmgr also changed edge_a/bob")),
        (&only, vec![], Some("sacctmgr did not list user bob and account edge_a as changed")),
    ];
    for (change, rows, expected) in cases {
        let said = complaint(change, 0, &format!("{heading}{}", rows.concat()), "").await;
        assert_eq!(said.as_deref(), expected, "{rows:?}");
    }
}

#[tokio::test]
async fn a_reset_says_nothing_when_it_was_accepted() {
    assert_eq!(complaint(&reset(), 0, "", "").await, None);
    // As an Operator: nothing on either stream.
    let said = complaint(&reset(), 1, "", "").await;
    assert_eq!(said.unwrap(), "sacctmgr gave no reason, exit status 1");
    let unknown = "sacctmgr: error: Failed to find cluster lab account edge_a association in database\n";
    let said = complaint(&reset(), 1, "", unknown).await;
    assert_eq!(said.unwrap(), "Failed to find cluster lab account edge_a association in database");
}

#[tokio::test]
async fn values_that_slurm_would_take_for_something_else_are_never_run() {
    let limits =
        |value| BTreeMap::from([(LimitType::GrpTRESMins, BTreeMap::from([(Tres::cpu(), Limit::At(value))]))]);
    let senseless = [
        Assignments::default(),
        Assignments {
            limits: BTreeMap::from([(LimitType::GrpTRES, BTreeMap::new())]),
            ..Assignments::default()
        },
        Assignments { limits: limits(u64::MAX - 1), ..Assignments::default() },
        Assignments {
            jobs: [(JobLimit::GrpSubmitJobs, Limit::At(4_294_967_294))].into(),
            ..Assignments::default()
        },
        shares(i32::MAX as u32),
    ];
    for set in senseless {
        for change in [accounts(&["bio"], set.clone()), user(set)] {
            let (slurm, asked) = answering(0, b"", "");
            let error = slurm.apply(&change).await.unwrap_err();
            assert!(matches!(error, SlurmError::Senseless { .. }), "{error}");
            assert!(asked.lock().unwrap().is_empty());
        }
    }
    let (slurm, asked) = answering(0, b"", "");
    slurm
        .apply(&accounts(&["bio"], Assignments { limits: limits(u64::MAX - 2), ..shares(2_147_483_646) }))
        .await
        .unwrap();
    assert_eq!(asked.lock().unwrap().len(), 1);
}

// ---------------------------------------------------------------- questions

#[tokio::test]
async fn the_questions_are_those_that_hold_on_every_release() {
    let window = Window::new(Epoch(1_795_323_600), Epoch(1_795_327_200));
    let (slurm, asked) = answering(0, JOBS, "");
    assert_eq!(slurm.collect(window).await.unwrap(), sacct::parse_jobs(JOBS, &lab()));
    assert_eq!(
        *asked.lock().unwrap(),
        ["sacct -a -D -X -n -P --noconvert --delimiter=\x1f -M lab -S uts1795323600 -E uts1795327200 -o \
          cluster,dbindex,jobidraw,account,user,state,submit,eligible,start,end,suspended,elapsedraw,partition,qos,associd,\
          alloctres"]
    );
    let (slurm, asked) = answering(0, ASSOC, "");
    assert_eq!(slurm.observe().await.unwrap().accounts.len(), 11);
    assert_eq!(
        *asked.lock().unwrap(),
        [
            "sacctmgr -nP show assoc wopl withrawqoslevel where cluster=lab format=cluster,account,parentname,user,partition,fairshare,grptresmins,\
          maxtresmins,grptres,grpjobs,grpsubmitjobs,maxjobs,maxsubmitjobs,qos,defaultqos"
        ]
    );
    let (slurm, asked) = answering(0, fixture!("sreport.out"), "");
    assert_eq!(slurm.account_utilization(window, &[Tres::cpu(), Tres::billing()]).await.unwrap().len(), 52);
    assert_eq!(
        *asked.lock().unwrap(),
        [
            "sreport -nP -t Seconds -T cpu,billing cluster AccountUtilizationByUser cluster=lab start=uts1795323600 \
          end=uts1795327200 format=Cluster,Account,Login,TresName,Used"
        ]
    );
}

#[tokio::test]
async fn a_program_that_fails_is_told_in_its_own_words_with_what_the_caller_can_do() {
    let cases = [
        (
            1,
            "sacctmgr: error: slurm_persist_conn_open_without_init: failed to open persistent connection to host:vm:6819",
            Class::Transient,
        ),
        (1, "sacctmgr: error: Your user doesn't have privilege to perform this action", Class::Refused),
        (1, "sacctmgr: error: Invalid field requested: \"nosuch\"", Class::Misconfigured),
        // Nothing but a complaint is no answer, whatever the status.
        (0, "sacctmgr: error: Problem talking to the database: Connection refused", Class::Transient),
    ];
    for (status, words, class) in cases {
        let (slurm, _) = answering(status, b"", words);
        let error = slurm.observe().await.unwrap_err();
        assert_eq!(error.class(), class, "{error}");
        let text = error.to_string();
        assert!(text.starts_with("could not observe the associations of lab: "), "{text}");
        assert!(text.contains(words.split_once("error: ").unwrap().1), "{text}");
    }
}

#[tokio::test]
async fn a_complaint_beside_a_whole_answer_does_not_make_the_agent_deaf() {
    let (slurm, _) = answering(0, SSHARE, "sshare: error: FastSchedule is no longer supported\n");
    assert_eq!(slurm.raw_usage().await.unwrap().len(), 11);
}

#[tokio::test]
async fn an_answer_without_what_every_slurm_has_is_not_believed() {
    let (silent, _) = answering(0, b"", "");
    let window = Window::new(Epoch(3600), Epoch(7200));
    for error in [
        silent.observe().await.unwrap_err(),
        silent.raw_usage().await.unwrap_err(),
        silent.qos().await.unwrap_err(),
        silent.tres().await.unwrap_err(),
        silent.configuration().await.unwrap_err(),
        silent.ping().await.unwrap_err(),
    ] {
        assert_eq!(error.class(), Class::Corrupt, "{error}");
    }
    // These can truly be empty.
    assert!(silent.collect(window).await.unwrap().records.is_empty());
    assert!(silent.account_utilization(window, &[Tres::cpu()]).await.unwrap().is_empty());
    assert!(silent.partitions().await.unwrap().is_empty());
    assert_eq!(silent.admin_level("nobody").await.unwrap(), None);
}

#[tokio::test]
async fn a_program_that_gave_no_answer_is_an_error_with_its_cause() {
    let body = |_: &str, _: &[String], _: &BTreeMap<String, String>| {
        Err(RunError::TimedOut { argv: "sshare".into(), after: std::time::Duration::from_secs(60) })
    };
    let error = Slurm::new(Runner::Emulated(Arc::new(body)), lab()).raw_usage().await.unwrap_err();
    assert_eq!(error.class(), Class::Transient);
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.starts_with("sshare did not end within 1m"), "{cause}");
}

#[tokio::test]
async fn windows_that_sreport_would_round_and_names_that_are_none_are_not_asked() {
    let (slurm, asked) = answering(0, b"", "");
    let window = |from, until| Window::new(Epoch(from), Epoch(until));
    for odd in [window(3600, 7201), window(3601, 7200), window(7200, 7200), window(7200, 3600)] {
        assert!(slurm.account_utilization(odd, &[Tres::cpu()]).await.is_err());
    }
    assert!(slurm.account_utilization(window(0, 3600), &[]).await.is_err());
    assert!(slurm.admin_level("alice,name=").await.is_err());
    assert!(asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_roll_up_counts_as_done_only_when_slurmdbd_says_so() {
    let window = Window::new(Epoch(1_795_320_000), Epoch(1_795_330_800));
    let (slurm, asked) =
        answering(0, b"", include_str!("../../fixtures/slurm/edge-22.05.8/sacctmgr-rollup.err"));
    slurm.roll_up(window).await.unwrap();
    assert_eq!(*asked.lock().unwrap(), ["sacctmgr -i rollup uts1795320000 uts1795330800"]);
    let denied = "sacctmgr: error: Getting response to message type: DBD_FINI\n";
    assert!(answering(0, b"", denied).0.roll_up(window).await.is_err());
    assert!(answering(0, b"", "").0.roll_up(window).await.is_err());
}

#[tokio::test]
async fn controllers_that_are_down_are_an_answer_although_the_status_says_failure() {
    let stdout = b"Slurmctld(primary) at vm is DOWN\n*****************************************\n";
    let (slurm, _) = answering(1, stdout, "");
    assert!(slurm.ping().await.unwrap().iter().all(|controller| !controller.is_up));
}

#[tokio::test]
async fn suspension_before_an_edge_is_asked_in_portions_and_unknown_where_sacct_is_silent() {
    let jobs = sacct::parse_jobs(JOBS, &lab()).records;
    let edge = Epoch(1_795_327_200);
    let (slurm, asked) = answering(0, fixture!("sacct-suspended.out"), "");
    let known: BTreeMap<u64, u64> = slurm
        .suspended_before(&jobs, edge, edge.plus(7200))
        .await
        .unwrap()
        .into_iter()
        .map(|known| (known.key.dbindex, known.seconds))
        .collect();
    assert_eq!((known[&20], known[&29]), (3400, 2_412_300));
    assert_eq!(known.get(&45), Some(&0), "it started after the edge");
    assert_eq!(known.get(&18), None, "it ran before the edge, and sacct did not answer for it");
    let question = asked.lock().unwrap().join("\n");
    assert!(
        question.contains(
            " -T -j 10,11,12,13,14,15,2,9 -S uts1792738899 -E uts1795327200 -o cluster,dbindex,suspended"
        ),
        "{question}"
    );

    let many: Vec<JobRecord> = (1..=1201)
        .map(|n| JobRecord { job_id: n, ..jobs[0].clone() })
        .map(|record| JobRecord { start: Some(Epoch(1)), ..record })
        .collect();
    let (slurm, asked) = answering(0, b"", "");
    assert!(slurm.suspended_before(&many, edge, edge.plus(7200)).await.unwrap().is_empty());
    assert_eq!(asked.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn versions_are_told_for_whatever_part_answers() {
    let body = |program: &str, args: &[String], _: &BTreeMap<String, String>| {
        let stdout = match (program, args[0].as_str()) {
            ("sacctmgr", "--version") => fixture!("sacctmgr-version.out").to_vec(),
            ("sacctmgr", _) => fixture!("sacctmgr-config.out").to_vec(),
            _ => return Ok(Answer { status: 1, ..Answer::default() }),
        };
        Ok(Answer { stdout, ..Answer::default() })
    };
    let versions = Slurm::new(Runner::Emulated(Arc::new(body)), lab()).versions().await.unwrap();
    assert_eq!(versions.client.as_deref(), Some("22.05.8"));
    assert_eq!((versions.controller, versions.database.as_deref()), (None, Some("22.05.8")));
}
