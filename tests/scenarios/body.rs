//! The two Slurms that a scenario runs on.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use slurm_site_agent::core::time::Epoch;
use slurm_site_agent::emulator::slurm::{
    Amounts, ArrayPart, EmulatedSlurm, Job as Record, JobState, Suspension, TimeLimit, World,
};
use slurm_site_agent::slurm::{Answer, EmulatedBody, Runner};

use crate::normal::Call;
use crate::script::Job;
use crate::support::Lab;

/// The emulated world that equals a fresh lab.
const FRESH_LAB: &str = include_str!("lab.json");

/// A Slurm, with a record of everything that was run on it.
#[derive(Clone)]
pub struct Body {
    kind: Kind,
    calls: Arc<Mutex<Vec<Call>>>,
}

#[derive(Clone)]
enum Kind {
    Emulated(Arc<EmulatedSlurm>),
    Real(Arc<Lab>),
}

impl Body {
    pub fn emulated() -> Body {
        let world = World::from_json(FRESH_LAB).expect("lab.json is a world");
        Body::of(Kind::Emulated(Arc::new(EmulatedSlurm::in_memory(world))))
    }

    /// The lab.
    pub fn real(lab: &Arc<Lab>) -> Body {
        Body::of(Kind::Real(Arc::clone(lab)))
    }

    fn of(kind: Kind) -> Body {
        Body { kind, calls: Arc::default() }
    }

    /// Everything that was run so far.
    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The agent's way to this Slurm.
    pub fn runner(&self) -> Runner {
        let body = self.clone();
        let run: EmulatedBody = Arc::new(move |program, args, env| {
            let call = body.run(program, args, env);
            Ok(Answer {
                stdout: call.stdout.into_bytes(),
                stderr: call.stderr.into_bytes(),
                status: call.status,
            })
        });
        Runner::Emulated(run)
    }

    /// Runs a program and remembers what it said.
    pub fn run(&self, program: &str, args: &[String], env: &BTreeMap<String, String>) -> Call {
        let call = match &self.kind {
            Kind::Emulated(slurm) => {
                let output = slurm.run(program, args, env).expect("a world in memory");
                called(program, args, &output.stdout, &output.stderr, output.status)
            }
            Kind::Real(lab) => {
                let has = |words: &[&str]| args.iter().any(|arg| words.contains(&arg.as_str()));
                let _lock = match program {
                    "sacctmgr" if has(&["add", "create", "delete", "remove"]) => Some(lab.accounts_lock()),
                    "sacctmgr" if has(&["modify"]) => Some(lab.accounts_lock_shared()),
                    _ => None,
                };
                real(lab, None, program, args, env)
            }
        };
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push(call.clone());
        call
    }

    /// Moves the emulated clock; that of the real Slurm cannot be moved, its jobs are.
    pub fn set_clock(&self, at: Epoch) {
        if let Kind::Emulated(slurm) = &self.kind {
            slurm.with_world(|world| world.move_clock(at.0)).expect("a world in memory");
        }
    }

    /// Runs jobs of the past.
    pub fn jobs(&self, jobs: &[Job]) {
        match &self.kind {
            Kind::Emulated(slurm) => jobs.iter().for_each(|job| record(slurm, job)),
            Kind::Real(lab) => {
                lab.jobs(&jobs.iter().map(lab_line).collect::<Vec<_>>());
            }
        }
    }

    /// Leaves nothing behind that goes on.
    pub fn end(&self, prefix: &str) {
        if let Kind::Real(lab) = &self.kind {
            lab.stop_jobs(&[prefix]);
        }
    }

    pub fn rollup(&self, from: Epoch, until: Epoch) {
        match &self.kind {
            Kind::Emulated(slurm) => slurm
                .with_world(|world| world.rolled_until = world.rolled_until.max(until.0))
                .expect("a world in memory"),
            Kind::Real(lab) => {
                lab.lab("rollup", &[from.0.to_string(), until.0.to_string()]);
            }
        }
    }

    /// sbatch as a user; what was accepted is taken back.
    pub fn submit(&self, user: &str, account: &str, qos: Option<&str>) -> Call {
        let mut args: Vec<String> =
            ["-A", account, "-t", "1", "-o", "/dev/null", "--hold"].map(str::to_owned).into();
        args.extend(qos.map(|qos| format!("--qos={qos}")));
        args.extend(["--wrap".to_owned(), "true".to_owned()]);
        let env = BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]);
        match &self.kind {
            Kind::Emulated(slurm) => {
                let output = slurm.with_world(|world| {
                    let (who, jobs) = (world.acting_user.clone(), world.jobs.clone());
                    user.clone_into(&mut world.acting_user);
                    let output = world.run("sbatch", &args, &env);
                    (world.acting_user, world.jobs) = (who, jobs);
                    output
                });
                let output = output.expect("a world in memory");
                called("sbatch", &args, &output.stdout, &output.stderr, output.status)
            }
            Kind::Real(lab) => {
                let call = real(lab, Some(user), "sbatch", &args, &env);
                if let Some(id) = call.stdout.trim().strip_prefix("Submitted batch job ") {
                    lab.must("scancel", &[id]);
                }
                call
            }
        }
    }
}

fn called(program: &str, args: &[String], stdout: &[u8], stderr: &[u8], status: i32) -> Call {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Call {
        program: program.to_owned(),
        args: args.to_vec(),
        stdout: text(stdout),
        stderr: text(stderr),
        status,
    }
}

fn real(
    lab: &Lab,
    user: Option<&str>,
    program: &str,
    args: &[String],
    env: &BTreeMap<String, String>,
) -> Call {
    let mut command = match user {
        None => Command::new(program),
        Some(user) => {
            let mut command = Command::new("/usr/sbin/runuser");
            command.args(["-u", user, "--", program]);
            command
        }
    };
    command.args(args).env_clear().envs(env).env("SLURM_CONF", &lab.env["SLURM_CONF"]);
    let output = command.current_dir("/").stdin(Stdio::null()).output().expect("the program starts");
    called(program, args, &output.stdout, &output.stderr, output.status.code().unwrap_or(-1))
}

/// The line of `lab jobs`.
fn lab_line(job: &Job) -> String {
    let mut line = format!(
        "account={} user={} cpus={} mem={}M gpus={} partition={} state={} start={}",
        job.account, job.user, job.cpus, job.mem_mb, job.gpus, job.partition, job.state, job.start.0
    );
    let mut add = |name: &str, value: String| line.push_str(&format!(" {name}={value}"));
    if let Some(end) = job.end {
        add("end", end.0.to_string());
    }
    if !job.qos.is_empty() {
        add("qos", job.qos.clone());
    }
    if job.array > 0 {
        add("array", job.array.to_string());
    }
    if let Some((from, until)) = job.second {
        add("second", format!("{}-{}", from.0, until.0));
    }
    if let Some((from, until)) = job.suspended {
        add("suspended", format!("{}-{}", from.0, until.map_or(String::new(), |until| until.0.to_string())));
    }
    line
}

/// What `lab jobs` makes of the same line, as records of the emulated world.
fn record(slurm: &EmulatedSlurm, job: &Job) {
    let qos = if job.qos.is_empty() { default_qos(slurm, job) } else { job.qos.clone() };
    slurm
        .with_world(|world| {
            let allocated = allocated(world, job);
            let never_ran = matches!(job.state.as_str(), "NEVER_STARTED" | "PENDING");
            let submit = job.start.0 - 1;
            let first = Record {
                name: "job".to_owned(),
                account: job.account.to_lowercase(),
                user: job.user.clone(),
                partition: if never_ran { "closed".to_owned() } else { job.partition.clone() },
                qos,
                state: state(&job.state),
                submit,
                eligible: submit,
                start: if never_ran { 0 } else { job.start.0 },
                end: job.end.map_or(0, |end| end.0),
                suspensions: suspensions(job),
                time_limit: TimeLimit::Minutes(5),
                requested: allocated.clone(),
                allocated: if never_ran { Amounts::new() } else { allocated },
                nodes: if never_ran { String::new() } else { "n1".to_owned() },
                flags: if job.state == "NEVER_STARTED" {
                    vec!["StartRecieved".to_owned()]
                } else {
                    Vec::new()
                },
                exit_code: if job.state == "FAILED" { (3, 0) } else { (0, 0) },
                cancelled_by: match job.state.as_str() {
                    "CANCELLED" | "NEVER_STARTED" => world.uids.get(&job.user).copied(),
                    _ => None,
                },
                ..Record::default()
            };
            if job.array > 0 {
                add_array(world, &first, job.array);
                return;
            }
            let id = world.add_job(first.clone());
            if job.state == "REQUEUED" {
                let end = first.end;
                let second =
                    job.second.map_or((end, 2 * end - first.start), |(from, until)| (from.0, until.0));
                let again = Record {
                    id,
                    state: JobState::Completed,
                    submit: end,
                    eligible: end,
                    start: second.0,
                    end: second.1,
                    ..first
                };
                world.add_job(again);
            }
        })
        .expect("a world in memory");
}

/// Tasks get ids as they start; the last keeps the array's own.
fn add_array(world: &mut World, first: &Record, tasks: u32) {
    let array = world.jobs.iter().map(|job| job.id).max().unwrap_or(0) + 1;
    for task in 1..=tasks {
        let id = if task == tasks { array } else { array + task };
        let part = ArrayPart { job: array, task: Some(task), waiting: None };
        world.add_job(Record { id, array: Some(part), ..first.clone() });
    }
}

fn state(name: &str) -> JobState {
    match name {
        "NEVER_STARTED" => JobState::Cancelled,
        name => JobState::from_text(name),
    }
}

fn suspensions(job: &Job) -> Vec<Suspension> {
    let part = |(from, to): (Epoch, Option<Epoch>)| Suspension { from: from.0, to: to.map(|to| to.0) };
    job.suspended.map(part).into_iter().collect()
}

fn allocated(world: &World, job: &Job) -> Amounts {
    let id = |name: &str| world.tres.by_name(name).expect("a TRES of the lab").id;
    let mut amounts = Amounts::from([(id("cpu"), job.cpus), (id("mem"), job.mem_mb), (id("node"), 1)]);
    if job.gpus > 0 {
        amounts.insert(id("gres/gpu"), job.gpus);
    }
    amounts
}

/// The QOS that a job of this user gets there without asking for one.
fn default_qos(slurm: &EmulatedSlurm, job: &Job) -> String {
    let args = [
        "-nP".to_owned(),
        "show".to_owned(),
        "assoc".to_owned(),
        "where".to_owned(),
        format!("account={}", job.account),
        format!("user={}", job.user),
        "format=defaultqos".to_owned(),
    ];
    let output = slurm.run("sacctmgr", &args, &BTreeMap::new()).expect("a world in memory");
    let default = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if default.is_empty() { "normal".to_owned() } else { default }
}
