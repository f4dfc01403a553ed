//! What a site costs as it grows, as figures for machines: one line of JSON each, with name, size, value, unit and the load
//! of the machine. Run: cargo bench --bench site [-- ACCOUNTSxUSERSxJOBS ...]
//!
//! A cycle is the whole program (`--evaluate-now` on a configuration of its own), started as an operator starts it, with
//! Slurm programs that answer at once: shell scripts that print what the emulated Slurm printed for the same questions.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use slurm_site_agent::agent::clock::Clock;
use slurm_site_agent::agent::cycle::{Ask, cycle};
use slurm_site_agent::agent::facts::Facts;
use slurm_site_agent::agent::judge::{Grounds, Periods, decide};
use slurm_site_agent::agent::{Agent, Outside, facts};
use slurm_site_agent::config;
use slurm_site_agent::core::command::Mode;
use slurm_site_agent::core::desired::{Wish, desired};
use slurm_site_agent::core::evaluate::Decision;
use slurm_site_agent::core::job::{JobKey, JobRecord, Printed};
use slurm_site_agent::core::name::ClusterName;
use slurm_site_agent::core::plan::{Owned, PlanLimits, plan};
use slurm_site_agent::core::time::{Epoch, Window};
use slurm_site_agent::core::tres::{Tres, TresCounts};
use slurm_site_agent::emulator::slurm::{EmulatedSlurm, World};
use slurm_site_agent::slurm::{Answer, Runner};
use slurm_site_agent::store::{Collected, Collection, Store};

/// What was asked of a program and answered by it.
type Asked = BTreeMap<(String, String), Vec<u8>>;

/// Records of one transaction, as one batch of sacct's answer has them.
const BATCH: u64 = 50_000;
/// Each cycle is run so many times; the quickest counts.
const ROUNDS: usize = 3;
/// Jobs of the account in a year or so lie evenly over this time; seconds.
const SPAN_S: i64 = 300 * 86_400;
/// How long a daemon at rest is watched; seconds.
const REST_S: u64 = 30;

#[derive(Clone, Copy)]
struct Size {
    accounts: u64,
    users: u64,
    jobs: u64,
}

fn main() {
    // The part of this program that runs another one and tells how much memory that took.
    let mut words = std::env::args().skip(1);
    if words.next().as_deref() == Some("--measured") {
        return measured(&words.collect::<Vec<_>>());
    }
    let sizes: Vec<Size> = std::env::args().filter_map(|word| size(&word)).collect();
    let standard = ["100x10x10000", "1000x10x1000000", "10000x10x1000000", "10000x10x10000000"];
    let standard = standard.iter().filter_map(|word| size(word)).collect();
    for size in if sizes.is_empty() { standard } else { sizes } {
        Bench::new(size).run();
    }
}

fn size(word: &str) -> Option<Size> {
    let numbers: Vec<u64> = word.split('x').map(|number| number.parse().ok()).collect::<Option<_>>()?;
    let [accounts, users, jobs] = numbers[..] else { return None };
    Some(Size { accounts, users, jobs })
}

/// Runs a program and prints its wall time in milliseconds, the largest resident set among its processes in KiB, and how it
/// ended.
fn measured(words: &[String]) {
    let begun = Instant::now();
    let ended =
        Command::new(&words[0]).args(&words[1..]).stdout(Stdio::null()).status().expect("the program");
    let took = begun.elapsed();
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN).expect("usage");
    println!("{} {} {}", took.as_secs_f64() * 1000.0, usage.max_rss(), ended.code().unwrap_or(-1));
}

struct Bench {
    size: Size,
    folder: tempfile::TempDir,
    now: i64,
    cluster: ClusterName,
}

impl Bench {
    fn new(size: Size) -> Bench {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
        Bench {
            size,
            folder: tempfile::tempdir().expect("a folder"),
            now: i64::try_from(now).expect("a time"),
            cluster: ClusterName::parse("bench").expect("a name"),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn tell(&self, name: &str, value: f64, unit: &str) {
        let Size { accounts, users, jobs } = self.size;
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load: f64 = load.split(' ').next().and_then(|one| one.parse().ok()).unwrap_or(-1.0);
        println!(
            "{}",
            serde_json::json!({
                "name": name, "accounts": accounts, "users_per_account": users, "jobs": jobs,
                "value": (value * 100.0).round() / 100.0, "unit": unit, "load": load,
            })
        );
    }

    fn run(&self) {
        fs::write(self.path("config.toml"), self.config()).expect("the configuration");
        self.answers();
        self.load();
        self.sacct(&[]);
        self.cycles("first cycle (totals of all periods added up)", 1);
        self.cycles("a cycle with nothing new", ROUNDS);
        for round in 0..ROUNDS as u64 {
            let new: Vec<u64> = (1..=1000).map(|n| self.size.jobs + round * 1000 + n).collect();
            self.sacct(&new);
            self.cycles("a cycle with 1000 new jobs", 1);
        }
        self.pure();
        self.rest();
        let begun = Instant::now();
        let verified = Command::new(agent())
            .args([
                "--config".as_ref(),
                self.path("config.toml").as_os_str(),
                "ledger".as_ref(),
                "verify".as_ref(),
            ])
            .stdout(Stdio::null())
            .status()
            .expect("the agent");
        assert!(verified.success(), "kept totals equal a recount");
        self.tell("ledger verify", begun.elapsed().as_secs_f64(), "s");
    }

    fn config(&self) -> String {
        let mut text = format!(
            "[cluster]\nname = \"bench\"\nbin_dir = {:?}\n[store]\npath = {:?}\n[limits]\nchanges_max = 100000\n\
             tighten_accounts_max = 100000\ntighten_share_percent = 100\nnames_per_modify_max = 500\n",
            self.path("bin"),
            self.path("state.db"),
        );
        for account in 0..self.size.accounts {
            let _ = write!(
                text,
                "[[allocation]]\naccount = \"a{account}\"\nlimits = {{ cpu = 1000000000 }}\nperiod = \"month\"\nbilling = false\n"
            );
        }
        text
    }

    /// Scripts in place of Slurm's programs, with the answers of an emulated Slurm that has converged.
    fn answers(&self) {
        let slurm = Arc::new(EmulatedSlurm::in_memory(self.world()));
        let asked: Arc<Mutex<Asked>> = Arc::default();
        let runner = {
            let asked = Arc::clone(&asked);
            Runner::Emulated(Arc::new(move |program, args, env| {
                let output = slurm.run(program, args, env).expect("the emulated Slurm");
                let question = (program.to_owned(), args.join(" "));
                asked.lock().expect("no panic").insert(question, output.stdout.clone());
                Ok(Answer { stdout: output.stdout, stderr: output.stderr, status: output.status })
            }))
        };
        let text = self.config().replace("state.db", "first.db");
        let config = config::parse(&text, "bench").expect("a configuration");
        let store = Store::open(&config.store.path).expect("a store");
        let outside = Outside { runner, clock: Clock::manual(Epoch(self.now)), mode: Mode::Emulator };
        let mut agent = Agent::new(config, outside, store).expect("an agent");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(cycle(&mut agent, &Ask::default())).expect("a cycle");
        asked.lock().expect("no panic").clear();
        let report = runtime.block_on(cycle(&mut agent, &Ask::default())).expect("a cycle");
        assert!(report.changes.is_empty(), "the emulated Slurm has converged");
        fs::create_dir(self.path("bin")).expect("a folder");
        let mut cases: BTreeMap<String, String> = BTreeMap::new();
        for (place, ((program, args), stdout)) in asked.lock().expect("no panic").iter().enumerate() {
            let file = self.path(&format!("answer{place}"));
            fs::write(&file, stdout).expect("an answer");
            let case = format!("'{}') exec cat {} ;;\n", args.replace('\'', "'\\''"), file.display());
            cases.entry(program.clone()).or_default().push_str(&case);
        }
        cases.insert("sacct".into(), format!("*) exec cat {} ;;\n", self.path("sacct.txt").display()));
        for (program, cases) in cases {
            let script = format!(
                "#!/bin/sh\ncase \"$*\" in\n{cases}*) echo \"not asked before: $*\" >&2; exit 9 ;;\nesac\n"
            );
            let path = self.path("bin").join(program);
            fs::write(&path, script).expect("a program");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode");
        }
    }

    fn world(&self) -> World {
        let Size { accounts, users, .. } = self.size;
        let list = |each: &mut dyn FnMut(&mut Vec<serde_json::Value>)| {
            let mut all = Vec::new();
            each(&mut all);
            all
        };
        let all_accounts = list(&mut |all| {
            all.extend((0..accounts).map(|account| {
                serde_json::json!({"name": format!("a{account}"), "qos": ["normal"], "default_qos": "normal"})
            }));
        });
        let all_users = list(&mut |all| {
            for user in 0..accounts * users {
                let account = format!("a{}", user / users);
                all.push(serde_json::json!({"name": format!("u{user}"), "accounts": [account]}));
            }
        });
        let world = serde_json::json!({
            "cluster": "bench", "clock": {"fixed": self.now},
            "qos": [{"name": "normal"}, {"name": "slowdown"}, {"name": "blocked"}],
            "accounts": all_accounts, "users": all_users, "jobs": [],
        });
        World::from_json(&world.to_string()).expect("a world")
    }

    /// The job of a DBIndex: its times and who ran it follow from the number. The numbers are spread over accounts and users by
    /// a step that shares no divisor with them.
    fn job(&self, names: &mut Names, dbindex: u64) -> JobRecord {
        let Size { accounts, users, jobs } = self.size;
        let mixed = dbindex.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20;
        let user = mixed % (accounts * users);
        let length = 60 + i64::try_from(mixed % 14_000).expect("small");
        let place = i64::try_from(dbindex.min(jobs)).expect("small") * (SPAN_S / 1000)
            / i64::try_from(jobs).expect("small").max(1);
        let end = self.now - 20_000 - SPAN_S + place * 1000 + i64::try_from(dbindex % 1000).expect("small");
        let end = if dbindex > jobs { self.now - 100 } else { end };
        JobRecord {
            key: JobKey { cluster: self.cluster.clone(), dbindex },
            job_id: dbindex,
            account: names.get("a", user / users),
            user: names.get("u", user),
            state: names.get("COMPLETED", 0),
            submit: Epoch(end - length - 30),
            eligible: Some(Epoch(end - length - 30)),
            start: Some(Epoch(end - length)),
            end: Some(Epoch(end)),
            suspended_s: 0,
            elapsed_s: length.unsigned_abs(),
            partition: names.get("p", mixed % 3),
            qos: names.get("q", 0),
            assoc_id: Some(user + 10),
            alloc: names.alloc(mixed % 16),
        }
    }

    /// A year of jobs into an empty store.
    fn load(&self) {
        let mut store = Store::open(&self.path("state.db")).expect("a store");
        let mut names = Names::default();
        let mut spent = Duration::ZERO;
        let now = Epoch(self.now);
        let mut next = 1;
        while next <= self.size.jobs {
            let until = (next + BATCH).min(self.size.jobs + 1);
            let records: Vec<JobRecord> =
                (next..until).map(|dbindex| self.job(&mut names, dbindex)).collect();
            next = until;
            let begun = Instant::now();
            let watermark = (next > self.size.jobs).then_some(now);
            store.put_collection(&self.collection(&records, watermark)).expect("stored");
            spent += begun.elapsed();
        }
        store.put_success("ledger_from:bench", Epoch(1_000_000_000)).expect("stored");
        self.tell(
            "first load, records into the ledger",
            self.size.jobs as f64 / spent.as_secs_f64(),
            "jobs/s",
        );
        let bytes = fs::metadata(self.path("state.db")).map_or(0, |file| file.len());
        self.tell("bytes per stored job", bytes as f64 / self.size.jobs as f64, "B");
    }

    fn collection<'a>(&'a self, records: &'a [JobRecord], watermark: Option<Epoch>) -> Collection<'a> {
        Collection {
            cluster: &self.cluster,
            window: Window::new(Epoch(self.now - SPAN_S), Epoch(self.now)),
            now: Epoch(self.now),
            watermark,
            records,
            before: Collected::default(),
            more: watermark.is_none(),
            suspended: &[],
            rejected: 0,
            reject_samples: Vec::new(),
            complete: true,
        }
    }

    /// What sacct answers from now on: a record that the ledger knows, and these.
    fn sacct(&self, new: &[u64]) {
        let mut names = Names::default();
        let mut text = String::new();
        for dbindex in std::iter::once(self.size.jobs).chain(new.iter().copied()) {
            let job = self.job(&mut names, dbindex);
            let (start, end) = (job.start.expect("started").0, job.end.expect("ended").0);
            let fields = [
                "bench".to_owned(),
                dbindex.to_string(),
                job.job_id.to_string(),
                job.account.to_string(),
                job.user.to_string(),
                job.state.to_string(),
                job.submit.0.to_string(),
                job.submit.0.to_string(),
                start.to_string(),
                end.to_string(),
                "00:00:00".to_owned(),
                job.elapsed_s.to_string(),
                job.partition.to_string(),
                job.qos.to_string(),
                (job.assoc_id.expect("an association")).to_string(),
                names.printed(&job),
            ];
            text.push_str(&fields.join("\u{1f}"));
            text.push('\n');
        }
        fs::write(self.path("sacct.txt"), text).expect("an answer");
    }

    fn cycles(&self, name: &str, rounds: usize) {
        let (mut quickest, mut largest) = (f64::INFINITY, 0.0f64);
        for _ in 0..rounds {
            let output = Command::new(std::env::current_exe().expect("this program"))
                .args(["--measured".as_ref(), agent().as_os_str(), "--config".as_ref()])
                .args([self.path("config.toml").as_os_str(), "--evaluate-now".as_ref()])
                .output()
                .expect("the agent");
            let told = String::from_utf8_lossy(&output.stdout);
            let numbers: Vec<f64> = told.split_whitespace().filter_map(|word| word.parse().ok()).collect();
            let [took_ms, kib, 0.0] = numbers[..] else {
                panic!("the cycle failed: {told}{}", String::from_utf8_lossy(&output.stderr));
            };
            (quickest, largest) = (quickest.min(took_ms), largest.max(kib));
        }
        self.tell(name, quickest, "ms");
        self.tell(&format!("{name}: peak memory"), largest / 1024.0, "MB");
    }

    /// Evaluate and plan alone, without the processes and the store around them.
    fn pure(&self) {
        let text = self.config();
        let config = config::parse(&text, "bench").expect("a configuration");
        let store = Store::open_reader(&config.store.path).expect("a store");
        let outside = Outside::real(&config);
        let mut agent = Agent::offline(config, outside, store);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let begun = Instant::now();
        let observed = runtime.block_on(agent.slurm.observe()).expect("the accounts");
        self.tell(
            "observe all associations (one process, parsed)",
            begun.elapsed().as_secs_f64() * 1000.0,
            "ms",
        );
        let now = Epoch(self.now);
        let facts: Facts = runtime.block_on(facts::fetch(&mut agent, now)).expect("facts");
        let zone = agent.config.cluster.time_zone.clone();
        let periods = Periods::of(&facts, now, &zone, 0).expect("periods");
        let begun = Instant::now();
        let totals = agent.store.totals(&self.cluster, &periods.windows()).expect("totals");
        self.tell("read the kept totals", begun.elapsed().as_secs_f64() * 1000.0, "ms");
        let rules = agent.rules(None);
        let mut quickest = Duration::MAX;
        for _ in 0..ROUNDS {
            let begun = Instant::now();
            let grounds = Grounds {
                periods: &periods,
                totals: &totals,
                observed: &observed,
                incomplete: None,
                rules: &rules,
            };
            let decisions = decide(&agent, &facts, &grounds);
            let wishes: Vec<Wish> = decisions
                .iter()
                .filter_map(Decision::decided)
                .map(|decided| Wish::of(decided, &rules.qos))
                .collect();
            let wanted = desired(&decisions, &wishes, &[], &observed, &BTreeMap::new(), &rules.qos);
            let limits = PlanLimits {
                changes_max: 100_000,
                tighten_accounts_max: 100_000,
                tighten_share_percent: 100,
                names_per_modify_max: 500,
            };
            let made = plan(&wanted, &observed, &Owned::default(), &rules.qos, &limits, false);
            assert!(made.is_empty() && wanted.len() as u64 == self.size.accounts, "everything is in force");
            quickest = quickest.min(begun.elapsed());
        }
        self.tell("evaluate and plan", quickest.as_secs_f64() * 1000.0, "ms");
    }

    /// A daemon that has nothing to do after its first cycle.
    fn rest(&self) {
        self.sacct(&[]);
        let mut daemon = Command::new(agent())
            .args(["--config".as_ref(), self.path("config.toml").as_os_str()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the agent");
        let proc = PathBuf::from(format!("/proc/{}", daemon.id()));
        std::thread::sleep(Duration::from_secs(10));
        let before = ticks(&proc);
        std::thread::sleep(Duration::from_secs(REST_S));
        let percent = (ticks(&proc) - before) / REST_S as f64;
        let status = fs::read_to_string(proc.join("status")).expect("the daemon lives");
        let kib = |name: &str| -> f64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0");
            line.trim().trim_end_matches(" kB").trim().parse().unwrap_or(0.0)
        };
        self.tell("daemon at rest: resident", kib("VmRSS:") / 1024.0, "MB");
        self.tell("daemon at rest: threads", kib("Threads:"), "");
        self.tell("daemon at rest: of a core", percent, "%");
        let _ = daemon.kill();
        let _ = daemon.wait();
    }
}

/// Processor time of a process in hundredths of a second.
fn ticks(proc: &Path) -> f64 {
    let stat = fs::read_to_string(proc.join("stat")).expect("the daemon lives");
    let after = stat.rsplit(") ").next().unwrap_or_default();
    after.split(' ').skip(11).take(2).filter_map(|number| number.parse::<f64>().ok()).sum()
}

/// The program, built beside this one.
fn agent() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_slurm-site-agent"))
}

/// Texts and counts that records share, as those of one answer do.
#[derive(Default)]
struct Names {
    texts: BTreeMap<(&'static str, u64), Printed>,
    allocs: BTreeMap<u64, Arc<TresCounts>>,
}

impl Names {
    fn get(&mut self, kind: &'static str, number: u64) -> Printed {
        let text =
            || Printed::from(if kind.len() == 1 { format!("{kind}{number}") } else { kind.to_owned() });
        self.texts.entry((kind, number)).or_insert_with(text).clone()
    }

    fn alloc(&mut self, kind: u64) -> Arc<TresCounts> {
        let made = || {
            let counts = [
                ("cpu", 1 << (kind % 8)),
                ("mem", 2048 * (kind + 1)),
                ("node", 1 + kind / 8),
                ("billing", 4 + kind),
            ];
            Arc::new(counts.map(|(name, count)| (Tres::parse(name).expect("a TRES"), count)).into())
        };
        Arc::clone(self.allocs.entry(kind).or_insert_with(made))
    }

    /// AllocTRES as Slurm prints it.
    fn printed(&self, job: &JobRecord) -> String {
        let items: Vec<String> = job
            .alloc
            .iter()
            .map(|(tres, count)| format!("{tres}={count}{}", if tres.is_mem() { "M" } else { "" }))
            .collect();
        items.join(",")
    }
}
