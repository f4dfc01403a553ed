//! AMIE: whatever happens to jobs, portal and agent, in the end the portal has charged each job once, exactly.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use slurm_site_agent::agent::amie::{self, words};
use slurm_site_agent::agent::clock::Clock;
use slurm_site_agent::agent::{Agent, Outside};
use slurm_site_agent::central::Surroundings;
use slurm_site_agent::central::amie::{AmieClient, AmieSettings};
use slurm_site_agent::config::Config;
use slurm_site_agent::core::command::Mode;
use slurm_site_agent::core::exact::Exact;
use slurm_site_agent::core::job::{JobKey, JobRecord};
use slurm_site_agent::core::name::{AccountName, ClusterName, SourceName};
use slurm_site_agent::core::time::{Epoch, Window};
use slurm_site_agent::core::tres::{Tres, TresCounts};
use slurm_site_agent::emulator::central::{Fault, FaultKind};
use slurm_site_agent::slurm::{Answer, Runner};
use slurm_site_agent::store::{AmieFilter, AmieRow, AmieState, Collected, Collection, Store};
use support::{AMIE_KEY, Portal};

/// 2025-08-01T00:00:00Z.
const BEGIN: i64 = 1_754_006_400;
/// Portals, each with its own faults, and jobs in each: more than a thousand histories.
const WORLDS: u64 = 42;
const HISTORIES: u64 = 25;

/// Polls a future at most so often, then gives it up: the process was killed there.
struct KilledAfter<'f, T> {
    future: Pin<&'f mut dyn Future<Output = T>>,
    polls: Option<u32>,
}

impl<T> Future for KilledAfter<'_, T> {
    type Output = Option<T>;
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        if let Some(left) = &mut self.polls {
            if *left == 0 {
                return Poll::Ready(None);
            }
            *left -= 1;
        }
        self.future.as_mut().poll(context).map(Some)
    }
}

/// What slurmdbd has.
type Database = Arc<Mutex<BTreeMap<u64, JobRecord>>>;

struct World {
    rng: StdRng,
    folder: tempfile::TempDir,
    portal: Portal,
    config: Config,
    clock: Clock,
    now: i64,
    database: Database,
    next_dbindex: u64,
    agent: Option<Agent>,
}

fn tres(name: &str) -> Tres {
    Tres::parse(name).expect("a TRES")
}

impl World {
    async fn new(seed: u64, settings: serde_json::Value, more: &str) -> World {
        let mut rng = StdRng::seed_from_u64(seed);
        let state = serde_json::json!({
            "clock": {"fixed": "2025-08-01T00:00:00Z"}, "seed": rng.random::<u32>(),
            "amie": {
                "settings": settings,
                "sites": [{"name": "SITE", "api_key": AMIE_KEY}],
                "projects": [
                    {"local_project_id": "TG-1", "users": ["alice", "robert"]},
                    {"local_project_id": "TG-3"}
                ]
            }
        });
        let portal = Portal::start(serde_json::from_value(state).expect("a state")).await;
        // In memory where that is possible: thousands of commits are made.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder");
        let text = format!(
            "[cluster]\nname = \"lab\"\n[store]\npath = \"FOLDER/state.db\"\n\
             [amie]\nurl = \"{}amie/api/v1/\"\nsite = \"SITE\"\nkey_file = \"FOLDER/key\"\nresource = \"r.site.org\"\n\
             read_back = \"0s\"\nrefund_states = [\"NODE_FAIL\"]\nbatch_bytes_max = 4096\n{more}\
             [amie.projects]\none = \"TG-1\"\ntwo = \"TG-2\"\n",
            portal.url
        );
        let config = support::read(&text, folder.path());
        let mut world = World {
            rng,
            folder,
            portal,
            config,
            clock: Clock::manual(Epoch(BEGIN)),
            now: BEGIN,
            database: Database::default(),
            next_dbindex: 1,
            agent: None,
        };
        world.start();
        world
    }

    /// The agent as a new process.
    fn start(&mut self) {
        drop(self.agent.take());
        let database = Arc::clone(&self.database);
        let outside = Outside {
            runner: Runner::Emulated(Arc::new(move |_, _, _| {
                let mut stdout = String::new();
                for job in database.lock().expect("jobs").values() {
                    let (dbindex, leader) = (job.key.dbindex, job.job_id / 10 * 10);
                    let task = job.job_id % 10;
                    stdout.push_str(&format!("lab\u{1f}{dbindex}\u{1f}{leader}_{task}\n"));
                }
                Ok(Answer { stdout: stdout.into_bytes(), stderr: Vec::new(), status: 0 })
            })),
            clock: self.clock.clone(),
            mode: Mode::Production,
        };
        let store = Store::open(&self.config.store.path).expect("the store opens again");
        let mut agent = Agent::new(self.config.clone(), outside, store).expect("an agent");
        let section = self.config.amie.as_ref().expect("amie");
        let clock = self.clock.clone();
        let surroundings = Surroundings {
            sleep: Arc::new(|_| Box::pin(async {})),
            clock: Arc::new(move || clock.now()),
            jitter_seed: 1,
        };
        let settings = AmieSettings {
            name: SourceName::parse("amie").expect("a name"),
            url: section.url.to_string(),
            site: section.site.clone(),
            api_key: AMIE_KEY.to_owned().into(),
            ca_file: None,
            proxy: None,
            timeout: std::time::Duration::from_secs(60),
            response_bytes_max: 32 << 20,
            attempts_max: 2,
            batch_bytes_max: section.batch_bytes_max,
            batch_records_max: section.batch_records_max,
        };
        agent.amie = Some(AmieClient::new(&settings, surroundings).expect("a client"));
        self.agent = Some(agent);
    }

    fn agent(&mut self) -> &mut Agent {
        self.agent.as_mut().expect("it runs")
    }

    fn advance(&mut self, seconds: i64) {
        self.now += seconds;
        self.clock.set(Epoch(self.now));
        self.portal.handle.advance(seconds);
    }

    /// What a cycle does about AMIE; given up after so many polls.
    async fn turn(&mut self, polls: Option<u32>) {
        let now = Epoch(self.now);
        let agent = self.agent();
        let work = async {
            amie::make(agent, now).await.expect("the store works");
            amie::deliver(agent, now).await.expect("the store works");
            amie::read_back(agent, now, false).await.expect("the store works");
        };
        let ended = KilledAfter { future: pin!(work), polls }.await;
        if ended.is_none() {
            self.start();
        }
    }

    fn put(&mut self, jobs: &[JobRecord]) {
        let cluster = ClusterName::parse("lab").expect("a name");
        let now = Epoch(self.now);
        let collection = Collection {
            cluster: &cluster,
            window: Window::new(Epoch(0), now),
            now,
            watermark: Some(now),
            records: jobs,
            before: Collected::default(),
            more: false,
            suspended: &[],
            rejected: 0,
            reject_samples: Vec::new(),
            complete: true,
        };
        self.agent().store.put_collection(&collection).expect("stored");
    }

    fn new_job(&mut self, job_id: u64, submit: i64) -> JobRecord {
        let dbindex = self.next_dbindex;
        self.next_dbindex += 1;
        let rng = &mut self.rng;
        let account = ["one", "two", "three", "nobody"][rng.random_range(0..4)];
        let counts = [("billing", rng.random_range(0..50)), ("node", 1), ("cpu", 2), ("mem", 100)];
        JobRecord {
            key: JobKey { cluster: ClusterName::parse("lab").expect("a name"), dbindex },
            job_id,
            account: account.into(),
            user: ["alice", "bob"][rng.random_range(0..2)].into(),
            state: "RUNNING".into(),
            submit: Epoch(submit),
            eligible: Some(Epoch(submit)),
            start: rng.random_bool(0.9).then_some(Epoch(submit + 5)),
            end: None,
            suspended_s: 0,
            elapsed_s: 0,
            partition: "debug".into(),
            qos: "normal".into(),
            assoc_id: None,
            alloc: TresCounts::from(counts.map(|(name, count)| (tres(name), count))).into(),
        }
    }

    /// One thing that happens to a job; what slurmdbd has of it afterwards.
    fn step(&mut self, job_id: u64) -> Vec<JobRecord> {
        let known: Vec<JobRecord> = self
            .database
            .lock()
            .expect("jobs")
            .values()
            .filter(|job| job.job_id == job_id)
            .cloned()
            .collect();
        let Some(last) = known.iter().max_by_key(|job| job.submit).cloned() else {
            return vec![self.new_job(job_id, BEGIN + i64::try_from(job_id).expect("small"))];
        };
        let lasted = self.rng.random_range(0..20_000);
        let end = last.start.unwrap_or(last.submit).plus(lasted);
        let states = ["COMPLETED", "FAILED", "TIMEOUT", "NODE_FAIL", "CANCELLED by 0", "OUT_OF_MEMORY"];
        let state = states[self.rng.random_range(0..states.len())].into();
        match (last.end, self.rng.random_range(0..6)) {
            (None, 0 | 1) => {
                // Requeued: this incarnation ends and another begins.
                let again = self.new_job(job_id, end.plus(1).0);
                let again = JobRecord { account: last.account.clone(), user: last.user.clone(), ..again };
                vec![JobRecord { end: Some(end), state: "REQUEUED".into(), ..last }, again]
            }
            (None, _) => vec![JobRecord { end: Some(end), state, ..last }],
            // Corrected afterwards: its end, what it held, whose it was, or that it ever ran.
            (Some(_), 0) => vec![JobRecord { end: Some(end), state, ..last }],
            (Some(_), 1) => {
                let mut alloc = TresCounts::clone(&last.alloc);
                alloc.insert(tres("billing"), self.rng.random_range(0..50));
                vec![JobRecord { alloc: alloc.into(), ..last }]
            }
            (Some(_), 2) => vec![JobRecord { account: "one".into(), ..last }],
            (Some(_), 3) => vec![JobRecord { start: None, ..last }],
            (Some(_), 4) => {
                // The same incarnation under another DBIndex.
                let dbindex = self.next_dbindex;
                self.next_dbindex += 1;
                self.database.lock().expect("jobs").remove(&last.key.dbindex);
                vec![JobRecord { key: JobKey { dbindex, ..last.key.clone() }, ..last }]
            }
            _ => Vec::new(),
        }
    }

    fn rows(&mut self) -> Vec<AmieRow> {
        let mut rows = Vec::new();
        let filter = AmieFilter::default();
        self.agent().store.visit_amie(&filter, usize::MAX, &mut |row| rows.push(row)).expect("rows");
        rows
    }

    fn loaded(&self) -> Vec<(String, String, String, String, String)> {
        self.portal.handle.with_state(|state| {
            let of = |row: &slurm_site_agent::emulator::central::amie::LoadedRecord, name: &str| {
                row.record.get(name).and_then(|v| v.as_str()).unwrap_or("").to_owned()
            };
            let rows = state.amie.loaded.iter();
            rows.map(|row| {
                let credit = matches!(of(row, "AdjustmentType").as_str(), "refund" | "credit");
                let sign = if credit { "-" } else { "" };
                (
                    row.usage_type.name().to_owned(),
                    of(row, "LocalRecordID"),
                    of(row, "LocalProjectID"),
                    of(row, "Username"),
                    format!("{sign}{}", of(row, "Charge")),
                )
            })
            .collect()
        })
    }

    /// What must be charged, from the database alone: billing x elapsed of every incarnation of a mapped account, each
    /// rounded to six digits; nothing for those that a node failure ended.
    fn expected(&self) -> BTreeMap<String, Exact> {
        let mut sums: BTreeMap<String, Exact> = BTreeMap::new();
        for job in self.database.lock().expect("jobs").values() {
            let project = match job.account.as_str() {
                "one" => "TG-1",
                "two" => "TG-2",
                "three" => "TG-3",
                _ => continue,
            };
            let (Some(start), Some(end)) = (job.start, job.end) else { continue };
            if job.state == "NODE_FAIL" {
                continue;
            }
            let billing_s = i128::from(job.alloc[&tres("billing")]) * i128::from(end.since(start).max(0));
            let hours = Exact::fraction(billing_s, 3600).expect("room").to_decimal(6).expect("room");
            let sum = sums.entry(project.into()).or_insert(Exact::ZERO);
            *sum = sum.plus(Exact::parse(&hours).expect("decimal")).expect("room");
        }
        sums.retain(|_, sum| *sum != Exact::ZERO);
        sums
    }
}

fn sums(rows: impl IntoIterator<Item = (String, Exact)>) -> BTreeMap<String, Exact> {
    let mut sums: BTreeMap<String, Exact> = BTreeMap::new();
    for (project, effect) in rows {
        let sum = sums.entry(project).or_insert(Exact::ZERO);
        *sum = sum.plus(effect).expect("room");
    }
    sums.retain(|_, sum| *sum != Exact::ZERO);
    sums
}

fn random_fault(rng: &mut StdRng) -> Fault {
    let kinds = [
        FaultKind::Status { code: 503, retry_after: None },
        FaultKind::TooManyRequests { retry_after: None },
        FaultKind::HtmlPage { code: 200 },
        FaultKind::Cut,
        FaultKind::AnswerLost,
        FaultKind::Truncated,
        FaultKind::BrokenJson,
    ];
    let kind = kinds[rng.random_range(0..kinds.len())].clone();
    Fault::once(kind).with_chance(rng.random_range(5..40))
}

async fn one_world(seed: u64) {
    let mut dice = StdRng::seed_from_u64(seed ^ 0x5eed);
    let processing = [
        serde_json::json!("immediately"),
        serde_json::json!({"after_requests": 3}),
        serde_json::json!({"after_s": 900}),
    ];
    let settings = serde_json::json!({
        "processing": (processing.choose(&mut dice).expect("one")),
        "accepted_status": (*[200, 202].choose(&mut dice).expect("one")),
        "failed_list": (*["FailedRecords", "ValidationFailedRecords"].choose(&mut dice).expect("one")),
        "body_bytes_max": (*[2000, 1_000_000].choose(&mut dice).expect("one")),
    });
    let adjusts = dice.random_bool(0.5);
    let more = if adjusts { "corrections = \"adjust\"\n" } else { "" };
    let mut world = World::new(seed, settings, more).await;
    for round in 0..7 {
        world.portal.handle.with_state(|state| state.faults.clear());
        if round < 6 {
            let faults: Vec<Fault> = (0..dice.random_range(0..3)).map(|_| random_fault(&mut dice)).collect();
            faults.into_iter().for_each(|fault| world.portal.handle.push_fault(fault));
        }
        let mut late = Vec::new();
        for history in 0..HISTORIES {
            let jobs = world.step(100 + history);
            // Some records reach slurmdbd late; what is read again unchanged is read again.
            let mut database = world.database.lock().expect("jobs");
            for job in jobs {
                database.insert(job.key.dbindex, job.clone());
                late.push(job);
            }
        }
        let keep = late.split_off(late.len() * 4 / 5);
        world.put(&late);
        let polls = dice.random_bool(0.6).then(|| dice.random_range(0..30));
        world.turn(polls).await;
        world.put(&keep);
        if round == 3 {
            // The map is mended: an account, and a person that the portal knows under another name.
            let section = world.config.amie.as_mut().expect("amie");
            section.projects.insert(AccountName::parse("three").expect("a name"), "TG-3".into());
            section.users.insert("bob".into(), "robert".into());
            world.start();
        }
        world.advance(7200);
        world.turn(None).await;
    }
    // The portal is well again, has the project it lacked, and an operator sends again what failed for want of it.
    world.portal.handle.with_state(|state| {
        let project = serde_json::json!({"local_project_id": "TG-2"});
        state.amie.projects.push(serde_json::from_value(project).expect("a project"));
    });
    for turn in 0..12 {
        world.advance(7200);
        world.turn(None).await;
        if turn == 4 {
            let failed: Vec<String> = world
                .rows()
                .into_iter()
                .filter(|row| row.state == AmieState::Failed)
                .map(|row| row.record.local_record_id)
                .collect();
            words::say(&world.config.store.path, "word-1", &words::Asked::Resend(failed)).expect("said");
        }
    }
    give_up_withdrawals(&mut world).await;
    judge(&mut world, seed);
}

/// A withdrawal that the portal refuses because it never had the record is an operator's to give up.
async fn give_up_withdrawals(world: &mut World) {
    let failed = world.rows().into_iter().filter(|row| row.state == AmieState::Failed);
    let empty = failed.filter(|row| row.record.amount() == Some(Exact::ZERO));
    let ids: Vec<String> = empty.map(|row| row.record.local_record_id).collect();
    let listed = world.agent().store.amie_failures().expect("read");
    let listed = listed.into_iter().filter(|failure| ids.contains(&failure.local_record_id));
    let failed_ids: Vec<String> = listed.map(|failure| failure.failed_record_id).collect();
    if !failed_ids.is_empty() {
        let client = world.agent().amie.take().expect("a client");
        client.clear_failed(&failed_ids).await.expect("cleared");
        world.agent().amie = Some(client);
    }
    words::say(&world.config.store.path, "word-2", &words::Asked::GiveUp(ids)).expect("said");
    world.turn(None).await;
}

fn judge(world: &mut World, seed: u64) {
    let mut rows = world.rows();
    // What charges nothing and never reached the portal.
    rows.retain(|row| {
        let nowhere = row.state == AmieState::Superseded || row.cleared.is_some();
        !(nowhere && row.record.amount() == Some(Exact::ZERO))
    });
    let open: Vec<_> = rows.iter().filter(|row| row.state != AmieState::Loaded).collect();
    assert!(open.is_empty(), "seed {seed}: {open:#?}");
    let loaded = world.loaded();
    let ids: BTreeSet<_> = loaded.iter().map(|row| (&row.0, &row.1)).collect();
    assert_eq!(ids.len(), loaded.len(), "seed {seed}: each record once");
    let shown: BTreeSet<_> = loaded.iter().cloned().collect();
    let ours: BTreeSet<_> = rows
        .iter()
        .map(|row| {
            let record = &row.record;
            let credit = record.effect().expect("decimal").is_negative()
                || matches!(&record.detail, slurm_site_agent::core::amie::Detail::Adjustment(a) if a.adjustment_type.gives_back());
            let sign = if credit { "-" } else { "" };
            (
                record.kind().as_str().to_owned(),
                record.local_record_id.clone(),
                record.local_project_id.clone(),
                record.username.clone(),
                format!("{sign}{}", record.charge),
            )
        })
        .collect();
    assert_eq!(shown, ours, "seed {seed}: the portal has exactly what the ledger has");
    let ledger = sums(
        rows.iter().map(|row| (row.record.local_project_id.clone(), row.record.effect().expect("decimal"))),
    );
    let charged =
        sums(loaded.iter().map(|row| (row.2.clone(), Exact::parse(&row.4).expect("a decimal charge"))));
    assert_eq!(charged, ledger, "seed {seed}");
    assert_eq!(charged, world.expected(), "seed {seed}: what slurmdbd has is what was charged");
    let waiting: usize = world.agent().store.amie_waiting().expect("counted").iter().map(|w| w.jobs).sum();
    let unmapped = world.database.lock().expect("jobs");
    let unmapped = unmapped.values().filter(|job| {
        job.account == "nobody" && job.start.is_some_and(|start| job.end.is_some_and(|end| end > start))
    });
    assert!(waiting >= unmapped.count(), "seed {seed}: what waits is counted");
    // Failures that are resolved are cleared on the server.
    let left = world.portal.handle.with_state(|state| state.amie.failed.len());
    assert_eq!(left, 0, "seed {seed}: resolved failures are cleared");
    let _ = &world.folder;
}

#[tokio::test]
async fn whatever_happens_each_job_is_charged_once_and_exactly() {
    let begin: u64 = std::env::var("AMIE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let worlds = if std::env::var("AMIE_SEED").is_ok() { 1 } else { WORLDS };
    println!("seeds {begin} to {}; one alone: AMIE_SEED=n", begin + worlds - 1);
    for seed in begin..begin + worlds {
        println!("seed {seed}");
        one_world(seed).await;
    }
}

/// The real program on the emulated world; whether it was killed, and what it printed.
fn program(state: &std::path::Path, kill_after: Option<&str>, args: &[&str]) -> (bool, String) {
    use std::os::unix::process::ExitStatusExt;
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_slurm-site-agent"));
    command.arg("--emulator").arg("--emulator-state").arg(state).args(args).env("TZ", "UTC");
    match kill_after {
        Some(step) => command.env("SITE_AGENT_KILL_AFTER", step),
        None => command.env_remove("SITE_AGENT_KILL_AFTER"),
    };
    let output = command.stdin(std::process::Stdio::null()).output().expect("the program starts");
    (output.status.signal() == Some(9), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn a_program_that_is_killed_anywhere_charges_each_job_once_after_its_next_start() {
    let undisturbed = tempfile::tempdir().expect("a folder");
    program(undisturbed.path(), None, &["--evaluate-now"]);
    let (_, expected) = program(undisturbed.path(), None, &["--json", "amie", "summary"]);
    assert!(expected.contains("\"difference\": \"0\""), "{expected}");
    for kills in [
        &["Stored", "Enqueued"][..],
        &["Enqueued", "Enqueued", "Told"],
        &["Told", "Told", "Delivered"],
        &["Delivered", "Told", "Told", "Told", "Delivered"],
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let (first, others) = kills.split_first().expect("one at least");
        assert!(program(folder.path(), Some(first), &["--evaluate-now"]).0, "killed after {first}");
        for step in others {
            program(folder.path(), Some(step), &["amie", "send"]);
        }
        program(folder.path(), None, &["--evaluate-now"]);
        program(folder.path(), None, &["amie", "reconcile"]);
        let (_, summary) = program(folder.path(), None, &["--json", "amie", "summary"]);
        assert_eq!(summary, expected, "{kills:?}");
        let central = std::fs::read_to_string(folder.path().join("central.json")).expect("its state");
        let central: serde_json::Value = serde_json::from_str(&central).expect("JSON");
        let loaded = central["amie"]["loaded"].as_array().expect("a list");
        let ids: BTreeSet<_> = loaded.iter().map(|row| row["record"]["LocalRecordID"].to_string()).collect();
        assert_eq!((ids.len(), loaded.len()), (3, 3), "{kills:?}");
    }
}
