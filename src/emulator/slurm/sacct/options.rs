//! The command line of `sacct`.

use super::super::call::Call;
use super::super::getopt::{self, Opt, Value, flag, long_only, with_value};
use super::super::job::JobState;
use super::super::names::add_names;
use super::super::table::Layout;
use super::super::terminal::Terminal;
use super::super::times;
use super::super::tres::{Units, unit_number};
use super::super::world::World;
use super::Stop;
use super::fields::FIELDS;

const DELIMITER: char = '\u{1}';
const LOCAL: char = '\u{2}';
const NAME: char = '\u{3}';
const NO_CONVERT: char = '\u{4}';
const UNITS: char = '\u{5}';
const FEDERATION: char = '\u{6}';
const WHOLE_HET: char = '\u{7}';
const LOCAL_UID: char = '\u{8}';
const ENV_VARS: char = '\u{e}';
const JSON: char = '\u{f}';
const YAML: char = '\u{10}';

const OPTIONS: &[Opt] = &[
    flag('a', &["allusers"]),
    with_value('A', &["accounts"]),
    flag('X', &["allocations"]),
    flag('b', &["brief"]),
    flag('B', &["batch-script"]),
    flag('c', &["completion"]),
    with_value('C', &["constraints"]),
    long_only(DELIMITER, &["delimiter"], Value::Required),
    flag('D', &["duplicates"]),
    long_only(FEDERATION, &["federation"], Value::None),
    flag('e', &["helpformat", "help-fields"]),
    with_value('E', &["endtime"]),
    long_only(ENV_VARS, &["env-vars"], Value::None),
    with_value('f', &["file"]),
    with_value('F', &["flags"]),
    with_value('g', &["gid", "group"]),
    flag('h', &["help"]),
    long_only(LOCAL, &["local"], Value::None),
    long_only(NAME, &["name"], Value::Required),
    with_value('i', &["nnodes"]),
    with_value('I', &["ncpus"]),
    with_value('j', &["jobs"]),
    with_value('k', &["timelimit-min"]),
    with_value('K', &["timelimit-max"]),
    flag('l', &["long"]),
    flag('L', &["allclusters"]),
    with_value('M', &["cluster", "clusters"]),
    with_value('N', &["nodelist"]),
    long_only(NO_CONVERT, &["noconvert"], Value::None),
    long_only(UNITS, &["units"], Value::Required),
    flag('n', &["noheader"]),
    with_value('o', &["fields", "format"]),
    flag('p', &["parsable"]),
    flag('P', &["parsable2"]),
    with_value('q', &["qos"]),
    with_value('r', &["partition"]),
    with_value('R', &["reason"]),
    with_value('s', &["state"]),
    with_value('S', &["starttime"]),
    flag('T', &["truncate"]),
    flag('t', &[]),
    with_value('u', &["uid", "user"]),
    long_only(LOCAL_UID, &["use-local-uid"], Value::None),
    flag('U', &["usage"]),
    flag('v', &["verbose"]),
    flag('V', &["version"]),
    with_value('W', &["wckeys"]),
    long_only(WHOLE_HET, &["whole-hetjob"], Value::Optional),
    with_value('x', &["associations"]),
    long_only(JSON, &["json"], Value::None),
    long_only(YAML, &["yaml"], Value::None),
];

const DEFAULT_FORMAT: &str = "jobid,jobname,partition,account,alloccpus,state,exitcode";
const BRIEF_FORMAT: &str = "jobid,state,exitcode";

/// A job named with `-j`: raw id or id of its array or heterogeneous job, and the part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Job.
    pub(super) job: u32,
    /// Task of the array.
    pub(super) task: Option<u32>,
    /// Component of the heterogeneous job.
    pub(super) component: Option<u32>,
}

/// What is asked for.
#[derive(Debug)]
pub(super) struct Query {
    /// Clusters; none is all.
    pub(super) clusters: Option<Vec<String>>,
    /// Accounts.
    pub(super) accounts: Vec<String>,
    /// Numbers of users; none is all.
    pub(super) uids: Option<Vec<u32>>,
    /// QOS.
    pub(super) qos: Vec<String>,
    /// Partitions.
    pub(super) partitions: Vec<String>,
    /// Names of jobs.
    pub(super) names: Vec<String>,
    /// Ids of associations.
    pub(super) associations: Vec<u32>,
    /// States.
    pub(super) states: Vec<JobState>,
    /// Jobs.
    pub(super) jobs: Vec<Wanted>,
    /// Begin of the window.
    pub(super) start: i64,
    /// End of the window.
    pub(super) end: i64,
    /// Every record of an id, not only the newest.
    pub(super) duplicates: bool,
    /// Times cut to the window.
    pub(super) truncate: bool,
    /// No steps.
    pub(super) allocations_only: bool,
    /// Fields.
    pub(super) format: String,
    /// Layout.
    pub(super) layout: Layout,
    /// Separator.
    pub(super) separator: String,
    /// Whether titles are printed.
    pub(super) header: bool,
    /// Units of memory.
    pub(super) units: Units,
    /// Words that are no options.
    pub(super) words: Vec<String>,
}

impl Query {
    fn new(world: &World) -> Query {
        Query {
            clusters: Some(Vec::new()),
            accounts: Vec::new(),
            uids: if world.acting_user == "root" { None } else { Some(Vec::new()) },
            qos: Vec::new(),
            partitions: Vec::new(),
            names: Vec::new(),
            associations: Vec::new(),
            states: Vec::new(),
            jobs: Vec::new(),
            start: 0,
            end: 0,
            duplicates: false,
            truncate: false,
            allocations_only: false,
            format: String::new(),
            layout: Layout::Columns,
            separator: "|".to_owned(),
            header: true,
            units: Units::Exact,
            words: Vec::new(),
        }
    }
}

/// Reads the command line; `None` when there is nothing more to do (help, version).
pub(super) fn read(world: &World, call: &Call<'_>, out: &mut Terminal) -> Result<Option<Query>, Stop> {
    let parsed = getopt::parse(call.program, call.args, OPTIONS)
        .map_err(|(_, complaint)| Stop { text: complaint, status: 1 })?;
    let mut query = Query::new(world);
    let mut forced = None;
    for (id, value) in &parsed.options {
        match *id {
            'V' => {
                out.print(&format!("slurm-wlm {}\n", world.version));
                return Ok(None);
            }
            'e' => {
                help_fields(out);
                return Ok(None);
            }
            'U' => {
                out.print("Usage: sacct [options]\n\tUse --help for help\n");
                return Ok(None);
            }
            UNITS => {
                let letter = value.chars().next().unwrap_or('\0');
                let unit = unit_number(letter).map_err(|complaint| Stop {
                    text: format!("{}{}", call.error(&complaint), call.fatal("Invalid unit type")),
                    status: 1,
                })?;
                forced = Some(unit);
            }
            other => take(world, call, &mut query, other, value)?,
        }
    }
    if let Some(unit) = forced {
        query.units = Units::Forced(unit);
    }
    query.words = parsed.words;
    settle(world, call, &mut query)?;
    Ok(Some(query))
}

fn take(world: &World, call: &Call<'_>, query: &mut Query, id: char, value: &str) -> Result<(), Stop> {
    match id {
        'a' => query.uids = None,
        'A' => add_names(&mut query.accounts, value, false),
        'X' | 't' => query.allocations_only = true,
        'b' => query.format.push_str(&format!("{BRIEF_FORMAT},")),
        DELIMITER => value.clone_into(&mut query.separator),
        'D' => query.duplicates = true,
        'E' => query.end = time(call, value)?,
        'S' => query.start = time(call, value)?,
        LOCAL | FEDERATION | LOCAL_UID | WHOLE_HET | 'v' => {}
        NAME => add_names(&mut query.names, value, false),
        'j' => add_jobs(call, &mut query.jobs, value)?,
        'L' => query.clusters = None,
        'M' if value.eq_ignore_ascii_case("all") || value == "-1" => query.clusters = None,
        'M' => add_names(query.clusters.get_or_insert_default(), value, false),
        NO_CONVERT => query.units = Units::Unconverted,
        'n' => query.header = false,
        'o' => query.format.push_str(&format!("{value},")),
        'p' => query.layout = Layout::Separated,
        'P' => query.layout = Layout::Joined,
        'q' => add_qos(world, call, &mut query.qos, value)?,
        'r' => add_names(&mut query.partitions, value, false),
        's' => add_states(call, &mut query.states, value)?,
        'T' => query.truncate = true,
        'u' if value == "-1" => query.uids = None,
        'u' => add_users(world, call, query, value)?,
        'x' => {
            let mut ids = Vec::new();
            add_names(&mut ids, value, false);
            query.associations.extend(ids.iter().filter_map(|id| id.parse::<u32>().ok()));
        }
        other => {
            let known = OPTIONS.iter().find(|option| option.id == other);
            let name = known.and_then(|option| option.long.first()).copied().unwrap_or("");
            return Err(Stop { text: call.not_emulated(&format!("option --{name}")), status: 1 });
        }
    }
    Ok(())
}

fn time(call: &Call<'_>, value: &str) -> Result<i64, Stop> {
    times::parse_time(value, &call.zone, call.now).map_err(|text| Stop { text, status: 1 })
}

fn add_users(world: &World, call: &Call<'_>, query: &mut Query, value: &str) -> Result<(), Stop> {
    let uids = query.uids.get_or_insert_default();
    for name in value.split(',').filter(|name| !name.is_empty()) {
        let by_number = || name.parse::<u32>().ok().filter(|uid| world.user_of(*uid).is_some());
        let uid = world.uid(name).or_else(by_number);
        match uid {
            Some(uid) => uids.push(uid),
            None => return Err(Stop { text: call.error(&format!("Invalid user id: {name}")), status: 1 }),
        }
    }
    Ok(())
}

fn add_states(call: &Call<'_>, states: &mut Vec<JobState>, value: &str) -> Result<(), Stop> {
    for name in value.split(',').filter(|name| !name.is_empty()) {
        match JobState::named(name) {
            Some(state) => states.push(state),
            None => {
                let text = call.fatal(&format!("unrecognized job state value '{name}'"));
                return Err(Stop { text, status: 1 });
            }
        }
    }
    Ok(())
}

fn add_qos(world: &World, call: &Call<'_>, list: &mut Vec<String>, value: &str) -> Result<(), Stop> {
    for name in value.split(',').filter(|name| !name.is_empty()) {
        match world.qos_named(name) {
            Some(qos) => list.push(qos.name.clone()),
            None => {
                let valid: Vec<&str> = world.qos.iter().map(|qos| qos.name.as_str()).collect();
                let bad = format!("You gave a bad qos '{name}'. Valid QOS's are {}", valid.join(","));
                let text = format!("{}{}", call.error(&bad), call.fatal("problem processing qos list"));
                return Err(Stop { text, status: 1 });
            }
        }
    }
    Ok(())
}

fn add_jobs(call: &Call<'_>, jobs: &mut Vec<Wanted>, value: &str) -> Result<(), Stop> {
    let bad = |text: String| Stop { text: call.fatal(&text), status: 1 };
    for name in value.split(',').filter(|name| !name.is_empty()) {
        let id = name.split('.').next().unwrap_or(name);
        let (job, task, component) = if let Some((job, task)) = id.split_once('_') {
            let task =
                task.parse::<u32>().map_err(|_| bad(format!("Bad job array element specified: {job}")))?;
            (job, Some(task), None)
        } else if let Some((job, component)) = id.split_once('+') {
            let component =
                component.parse::<u32>().map_err(|_| bad(format!("Bad hetjob offset specified: {job}")))?;
            (job, None, Some(component))
        } else {
            (id, None, None)
        };
        let job = u32::try_from(super::super::names::signed_prefix(job).0).unwrap_or(0);
        jobs.push(Wanted { job, task, component });
    }
    Ok(())
}

/// Defaults that depend on the rest of the command line, and what cannot be.
fn settle(world: &World, call: &Call<'_>, query: &mut Query) -> Result<(), Stop> {
    if query.format.is_empty() {
        let format = call.env.get("SACCT_FORMAT").map_or(DEFAULT_FORMAT, String::as_str);
        query.format = format!("{format},");
    }
    if !query.states.is_empty() {
        if query.start == 0 && query.jobs.is_empty() {
            query.start = call.now;
        }
        if query.start != 0 && query.end == 0 {
            query.end = query.start;
        }
    } else if query.jobs.is_empty() && query.start == 0 {
        query.start = midnight(call);
    }
    if query.end == 0 {
        query.end = call.now;
    }
    if query.end == query.start || query.end == call.now {
        query.end += 1;
    }
    if query.start > query.end {
        let (style, _) = call.time_style();
        let (start, end) = (style.write(query.start), style.write(query.end));
        let text = call.error(&format!("Start time ({start}) requested is after end time ({end})."));
        return Err(Stop { text, status: 1 });
    }
    if !world.services.slurmdbd {
        let last = call.error("Problem talking to the database: Connection refused");
        return Err(Stop { text: call.no_database(world) + &last, status: 1 });
    }
    if query.clusters.as_ref().is_some_and(Vec::is_empty) {
        query.clusters = Some(vec![world.cluster.clone()]);
    }
    if !query.jobs.is_empty() && query.uids.as_ref().is_some_and(Vec::is_empty) {
        query.uids = None;
    }
    if let Some(uids) = &mut query.uids
        && uids.is_empty()
    {
        uids.extend(world.uid(&world.acting_user));
    }
    Ok(())
}

fn midnight(call: &Call<'_>) -> i64 {
    let today = times::local(call.now, &call.zone);
    today.start_of_day().map_or(call.now, |start| start.timestamp().as_second())
}

fn help_fields(out: &mut Terminal) {
    for (at, field) in FIELDS.iter().enumerate() {
        if at % 4 != 0 {
            out.print(" ");
        } else if at > 0 {
            out.print("\n");
        }
        out.print(&format!("{:<19}", field.title));
    }
    out.print("\n");
}
