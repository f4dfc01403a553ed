//! `sbatch`: submissions that policy takes or refuses. What a job does is told by the `sleep` commands of `--wrap`.
//!
//! Not emulated: scripts in files, arrays, heterogeneous jobs, dependencies, constraints, and the environment's defaults.

use super::call::Call;
use super::getopt::{self, Opt, Value, flag, long_only, with_value};
use super::job::{Job, JobState, TimeLimit};
use super::names::signed_prefix;
use super::policy::Ledger;
use super::scontrol::NO_CONTROLLER;
use super::terminal::{Output, Terminal};
use super::times::{self, Span};
use super::tres::{Amounts, CPU, MEM, NODE, unit_number};
use super::world::{Partition, World};

const GRES: char = '\u{1}';
const MEMORY: char = '\u{2}';
const MEMORY_PER_CPU: char = '\u{3}';
const PARSABLE: char = '\u{4}';
const UID: char = '\u{5}';
const WRAP: char = '\u{6}';
const COMMENT: char = '\u{7}';
const REQUEUE: char = '\u{8}';
const WCKEY: char = '\u{e}';
const EXPORT: char = '\u{f}';
const HELP: char = '\u{10}';

const OPTIONS: &[Opt] = &[
    with_value('A', &["account"]),
    with_value('a', &["array"]),
    with_value('b', &["begin"]),
    long_only(COMMENT, &["comment"], Value::Required),
    with_value('c', &["cpus-per-task"]),
    with_value('C', &["constraint"]),
    with_value('d', &["dependency"]),
    with_value('D', &["chdir", "workdir"]),
    with_value('e', &["error"]),
    long_only(EXPORT, &["export"], Value::Required),
    with_value('G', &["gpus"]),
    long_only(GRES, &["gres"], Value::Required),
    long_only(HELP, &["help", "usage"], Value::None),
    flag('H', &["hold"]),
    with_value('i', &["input"]),
    with_value('J', &["job-name"]),
    with_value('M', &["cluster", "clusters"]),
    long_only(MEMORY, &["mem"], Value::Required),
    long_only(MEMORY_PER_CPU, &["mem-per-cpu"], Value::Required),
    with_value('n', &["ntasks"]),
    with_value('N', &["nodes"]),
    with_value('o', &["output"]),
    with_value('p', &["partition"]),
    long_only(PARSABLE, &["parsable"], Value::None),
    with_value('q', &["qos"]),
    flag('Q', &["quiet"]),
    long_only(REQUEUE, &["requeue", "no-requeue"], Value::None),
    with_value('t', &["time"]),
    long_only(UID, &["uid"], Value::Required),
    flag('v', &["verbose"]),
    flag('V', &["version"]),
    long_only(WCKEY, &["wckey"], Value::Required),
    long_only(WRAP, &["wrap"], Value::Required),
];

const VIOLATES: &str =
    "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)";

/// What ends a run early: text on standard error, and the exit status.
struct Stop {
    text: String,
    status: i32,
}

/// What is to be submitted.
struct Request {
    user: String,
    account: Option<String>,
    qos: Option<String>,
    partition: Option<String>,
    name: String,
    tasks: u64,
    cpus_per_task: u64,
    nodes: u64,
    memory: Option<u64>,
    memory_per_cpu: Option<u64>,
    gres: Amounts,
    time_limit: TimeLimit,
    begin: Option<i64>,
    held: bool,
    parsable: bool,
    quiet: bool,
    seconds: i64,
    comment: String,
    wckey: String,
    work_dir: String,
}

/// Runs `sbatch`.
pub(super) fn run(world: &mut World, call: &Call<'_>) -> Output {
    let mut out = Terminal::default();
    let done = read(world, call, &mut out).and_then(|request| match request {
        Some(request) => submit(world, call, &request, &mut out),
        None => Ok(()),
    });
    let status = match done {
        Ok(()) => 0,
        Err(stop) => {
            out.complain(&stop.text);
            stop.status
        }
    };
    out.exit(status)
}

/// Reads the command line; `None` when there is nothing more to do.
fn read(world: &World, call: &Call<'_>, out: &mut Terminal) -> Result<Option<Request>, Stop> {
    let parsed = getopt::parse(call.program, call.args, OPTIONS).map_err(|(_, complaint)| Stop {
        text: format!("{complaint}Try \"sbatch --help\" for more information\n"),
        status: 255,
    })?;
    let mut request = Request {
        user: world.acting_user.clone(),
        account: None,
        qos: None,
        partition: None,
        name: "wrap".to_owned(),
        tasks: 1,
        cpus_per_task: 1,
        nodes: 1,
        memory: None,
        memory_per_cpu: None,
        gres: Amounts::new(),
        time_limit: TimeLimit::Unlimited,
        begin: None,
        held: false,
        parsable: false,
        quiet: false,
        seconds: 0,
        comment: String::new(),
        wckey: String::new(),
        work_dir: "/".to_owned(),
    };
    let mut wrapped = false;
    for (id, value) in &parsed.options {
        match *id {
            'V' => {
                out.print(&format!("slurm-wlm {}\n", world.version));
                return Ok(None);
            }
            WRAP => {
                wrapped = true;
                request.seconds = seconds_asleep(value);
            }
            other => take(world, call, &mut request, other, value)?,
        }
    }
    match parsed.words.first() {
        Some(_) if wrapped => {
            let text = call.fatal("Script arguments not permitted with --wrap option");
            Err(Stop { text, status: 1 })
        }
        Some(file) => {
            let text = call.error(&format!("Unable to open file {file}"));
            Err(Stop { text, status: 1 })
        }
        None if !wrapped => Err(Stop { text: call.not_emulated("a script on standard input"), status: 1 }),
        None => Ok(Some(request)),
    }
}

fn take(world: &World, call: &Call<'_>, request: &mut Request, id: char, value: &str) -> Result<(), Stop> {
    let invalid =
        |option: &str| Stop { text: call.error(&format!("Invalid --{option} specification")), status: 255 };
    let count = |option: &str| match signed_prefix(value) {
        (number @ 1.., "") => Ok(u64::try_from(number).unwrap_or(1)),
        _ => Err(Stop {
            text: call.error(&format!("Invalid numeric value \"{value}\" for --{option}.")),
            status: 255,
        }),
    };
    match id {
        'A' => request.account = Some(value.to_lowercase()),
        'b' => match times::parse_time(value, &call.zone, call.now) {
            Ok(at) => request.begin = Some(at),
            Err(text) => return Err(Stop { text: text + &invalid("begin").text, status: 255 }),
        },
        'c' => request.cpus_per_task = count("cpus-per-task")?,
        'D' => value.clone_into(&mut request.work_dir),
        'H' => request.held = true,
        'J' => value.clone_into(&mut request.name),
        'n' => request.tasks = count("ntasks")?,
        'N' => request.nodes = count("nodes")?,
        'p' => request.partition = Some(value.to_owned()),
        'q' => request.qos = Some(value.to_owned()),
        'Q' => request.quiet = true,
        't' => request.time_limit = time_limit(value).ok_or_else(|| invalid("time"))?,
        COMMENT => value.clone_into(&mut request.comment),
        WCKEY => value.clone_into(&mut request.wckey),
        GRES => {
            request.gres = gres(world, value).ok_or_else(|| Stop {
                text: call.error("Invalid generic resource (gres) specification"),
                status: 1,
            })?
        }
        MEMORY => request.memory = Some(megabytes(value).ok_or_else(|| invalid("mem"))?),
        MEMORY_PER_CPU => {
            request.memory_per_cpu = Some(megabytes(value).ok_or_else(|| invalid("mem-per-cpu"))?);
        }
        PARSABLE => request.parsable = true,
        UID => request.user = submitter(world, call, value)?,
        'e' | 'i' | 'o' | 'v' | REQUEUE | EXPORT => {}
        other => {
            let known = OPTIONS.iter().find(|option| option.id == other);
            let name = known.and_then(|option| option.long.first()).copied().unwrap_or("");
            return Err(Stop { text: call.not_emulated(&format!("option --{name}")), status: 1 });
        }
    }
    Ok(())
}

/// Seconds of all `sleep` commands of a script.
fn seconds_asleep(script: &str) -> i64 {
    let words: Vec<&str> =
        script.split([' ', ';', '\n', '&', '\t']).filter(|word| !word.is_empty()).collect();
    words.windows(2).filter(|pair| pair[0] == "sleep").filter_map(|pair| pair[1].parse::<i64>().ok()).sum()
}

fn time_limit(text: &str) -> Option<TimeLimit> {
    match times::parse_span(text)? {
        Span::Infinite | Span::Seconds(0) => Some(TimeLimit::Unlimited),
        Span::Seconds(seconds) => Some(TimeLimit::Minutes(u32::try_from(seconds.div_ceil(60)).ok()?)),
    }
}

/// `10`, `10M`, `2G` in MB.
fn megabytes(text: &str) -> Option<u64> {
    let (number, unit) = signed_prefix(text);
    let number = u64::try_from(number).ok()?;
    if unit.len() == text.len() || unit.len() > 1 {
        return None;
    }
    match unit.chars().next() {
        None => Some(number),
        Some(letter) => match unit_number(letter).ok()? {
            1 => Some(number.div_ceil(1024)),
            unit => Some(number.saturating_mul(1024_u64.pow(unit - 2))),
        },
    }
}

/// `gpu`, `gpu:2`, `gpu:a100:2`, in a comma list.
fn gres(world: &World, text: &str) -> Option<Amounts> {
    let mut amounts = Amounts::new();
    for part in text.split(',') {
        let fields: Vec<&str> = part.split(':').collect();
        let (kind, count) = match fields.as_slice() {
            [name] => (None, ("1", name)),
            [name, last] if last.starts_with(|c: char| c.is_ascii_digit()) => (None, (*last, name)),
            [name, kind] => (Some(*kind), ("1", name)),
            [name, kind, count] => (Some(*kind), (*count, name)),
            _ => return None,
        };
        let (count, name) = (count.0.parse::<u64>().ok()?, count.1);
        let tres = world.tres.by_name(&format!("gres/{name}"))?;
        *amounts.entry(tres.id).or_default() += count;
        if let Some(typed) = kind.and_then(|kind| world.tres.by_name(&format!("gres/{name}:{kind}"))) {
            *amounts.entry(typed.id).or_default() += count;
        }
    }
    Some(amounts)
}

/// Root may submit for others.
fn submitter(world: &World, call: &Call<'_>, value: &str) -> Result<String, Stop> {
    let number = value.parse::<u32>().ok().and_then(|uid| world.user_of(uid));
    let user = number.or_else(|| world.uid(value).map(|_| value));
    match user {
        None => Err(Stop { text: call.fatal(&format!("--uid=\"{value}\" invalid")), status: 1 }),
        Some(_) if world.acting_user != "root" => {
            Err(Stop { text: call.fatal("--uid only permitted by root user"), status: 1 })
        }
        Some(user) => Ok(user.to_owned()),
    }
}

fn submit(world: &mut World, call: &Call<'_>, request: &Request, out: &mut Terminal) -> Result<(), Stop> {
    let failed =
        |text: &str| Stop { text: call.error(&format!("Batch job submission failed: {text}")), status: 1 };
    if !world.services.slurmctld {
        return Err(failed(NO_CONTROLLER));
    }
    let partition = match &request.partition {
        Some(name) => world.partitions.iter().find(|known| known.name == *name).ok_or_else(|| {
            let first = call.error(&format!("invalid partition specified: {name}"));
            Stop { text: first + &failed("Invalid partition name specified").text, status: 1 }
        })?,
        None => world
            .default_partition()
            .ok_or_else(|| failed("No partition specified or system default partition"))?,
    };
    let tree = world.tree();
    let account = request.account.clone().or_else(|| default_account(world, &request.user));
    let association = account.as_deref().and_then(|account| world.user_association(&request.user, account));
    let Some((account, association)) = account.as_ref().zip(association) else {
        return Err(failed("Invalid account or account/partition combination specified"));
    };
    let ledger = Ledger::new(world, call.now);
    let place = ledger.place(association.id).unwrap_or(0);
    let asked = request.qos.as_deref().or(tree.default_qos(place)).unwrap_or("normal");
    let qos = world.qos_named(asked).filter(|qos| tree.qos(place).contains(&qos.name.as_str()));
    let Some(qos) = qos else { return Err(failed("Invalid qos specification")) };
    if let Some(reason) = ledger.refusal(place, &qos.name, 1) {
        return Err(Stop { text: call.error(reason) + &failed(VIOLATES).text, status: 1 });
    }
    let requested = resources(request, partition);
    let too_much_memory = requested.get(&MEM) > partition.tres.get(&MEM);
    let job = job_of(world, call, request, account, &qos.name, partition, requested);
    let job = Job { association: association.id, ..job };
    if too_much_memory {
        // Such a submission is refused and yet leaves a record (22.05.8).
        let (state, exit_code) = (JobState::Failed, (1, 0));
        world.add_job(Job { state, exit_code, start: call.now, end: call.now, ..job });
        let first = call.error("Memory specification can not be satisfied");
        let text = first + &failed("Requested node configuration is not available").text;
        return Err(Stop { text, status: 1 });
    }
    let id = world.add_job(job);
    match (request.parsable, request.quiet) {
        (true, _) => out.print(&format!("{id}\n")),
        (false, true) => {}
        (false, false) => out.print(&format!("Submitted batch job {id}\n")),
    }
    Ok(())
}

fn default_account(world: &World, user: &str) -> Option<String> {
    let own = |association: &&super::world::Association| {
        !association.deleted && association.user.as_deref() == Some(user) && association.is_default
    };
    world.associations.iter().find(own).map(|association| association.account.clone())
}

/// CPUs, memory (all of a node's without a request), nodes and generic resources.
fn resources(request: &Request, partition: &Partition) -> Amounts {
    let cpus = (request.tasks * request.cpus_per_task).max(request.nodes);
    let nodes = partition.tres.get(&NODE).copied().unwrap_or(1).max(1);
    let whole = partition.tres.get(&MEM).copied().unwrap_or(0) / nodes;
    let memory = match (request.memory, request.memory_per_cpu) {
        (_, Some(per_cpu)) => per_cpu * cpus,
        (None | Some(0), None) => whole * request.nodes,
        (Some(memory), None) => memory * request.nodes,
    };
    let mut amounts = request.gres.clone();
    amounts.extend([(CPU, cpus), (MEM, memory), (NODE, request.nodes)]);
    amounts
}

fn job_of(
    world: &World,
    call: &Call<'_>,
    request: &Request,
    account: &str,
    qos: &str,
    partition: &Partition,
    requested: Amounts,
) -> Job {
    let mut requested = requested;
    let billing = world.billable(&partition.name, &requested) as u64;
    requested.insert(super::tres::BILLING, billing);
    let line: Vec<&str> = std::iter::once(call.program).chain(call.args.iter().map(String::as_str)).collect();
    Job {
        name: request.name.clone(),
        account: account.to_owned(),
        user: request.user.clone(),
        partition: partition.name.clone(),
        qos: qos.to_owned(),
        state: JobState::Pending,
        submit: call.now,
        eligible: if request.held { 0 } else { request.begin.unwrap_or(call.now).max(call.now) },
        time_limit: request.time_limit,
        requested,
        nodes: "None assigned".to_owned(),
        flags: vec!["StartRecieved".to_owned()],
        priority: 1,
        submit_line: line.join(" "),
        work_dir: request.work_dir.clone(),
        comment: request.comment.clone(),
        wckey: request.wckey.clone(),
        runs_for_s: Some(request.seconds),
        held: request.held,
        ..Job::default()
    }
}
