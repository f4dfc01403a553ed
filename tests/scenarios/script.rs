//! The language of the scenarios: what an operator could type, one verb a line. `#` at the beginning of a line starts a comment.
//!
//! ```text
//! prefix walk_                         first: accounts and QOS of the scenario begin so; others' are not shown
//! clock 2024-05-02T00:00:00Z           the clock of agent, portal and emulated Slurm
//! account walk_a[,walk_b...] [parent=root] [users=alice,bob]
//!                                      adds accounts with their users, as `sacctmgr -i add` does
//! slurm PROGRAM ARGS                   runs a Slurm program as root
//! submit USER ACCOUNT [qos=NAME]       sbatch as that user; what is accepted is taken back at once
//! job account=A user=U start=T end=T|for=2h [state=S] [cpus=1] [mem=100M] [gpus=0] [array=N] [partition=P] [qos=Q]
//!     [second=T/T] [suspended=T/[T]]   a job of the past; neighbouring job lines run beside each other (`lab help` has the
//!                                      meaning of each word)
//! allocation ACCOUNT KEY=TOML ...      an [[allocation]] of the agent's configuration; again to replace it
//! allocation ACCOUNT gone              takes it out
//! quota NAME KEY=TOML ...              a [[quota]] of the agent's configuration; again to replace it
//! quota NAME gone                      takes it out
//! config SECTION KEY=TOML              a key of another section
//! portal policy|resource|command|settings JSON
//!                                      as in a seed file of the emulated central server; a resource again to change it
//! portal tick                          its background work
//! portal show                          commands with their verdicts, restrictions, usage
//! cycle [deep] [account=NAME]          one cycle of the agent, and what `--evaluate-now` prints
//! expect quiet                         nothing was to be done; every scenario ends so
//! ask everything                       every question the agent can ask Slurm, with the answers as they came
//! rollup T T                           the hours between are rolled up
//! audit T T                            the ledger compared with sreport
//! ```
//!
//! Every scenario has accounts and years of its own, since all of them are played on one lab. One with a budget for all time
//! has the earliest years, one with jobs that go on the latest. Two jobs of a scenario have different submission times
//! (one second before their start): sacct lists equal ones in no particular order.

use slurm_site_agent::core::time::Epoch;

use crate::support::at;

/// A scenario as written.
pub struct Script {
    /// Name of its file without the extension.
    pub name: String,
    /// What its accounts and QOS begin with.
    pub prefix: String,
    /// In order.
    pub steps: Vec<Step>,
}

impl Script {
    /// Whether others must not be played beside it: deleting an account puts others at wrong places in sshare (22.05.8).
    pub fn deletes_accounts(&self) -> bool {
        let deletes = |args: &[String]| args.iter().any(|arg| arg == "delete");
        self.steps.iter().any(|step| matches!(&step.verb, Verb::Slurm { args, .. } if deletes(args)))
    }

    /// Whether it has jobs that go on: how long they have run is never the same on two clusters.
    pub fn has_open_jobs(&self) -> bool {
        let open = |job: &Job| job.end.is_none();
        self.steps.iter().any(|step| matches!(&step.verb, Verb::Jobs(jobs) if jobs.iter().any(open)))
    }
}

/// One line, or neighbouring job lines.
pub struct Step {
    /// As written.
    pub text: String,
    /// What it means.
    pub verb: Verb,
}

/// A `job` line.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    pub account: String,
    pub user: String,
    pub state: String,
    pub cpus: u64,
    pub mem_mb: u64,
    pub gpus: u64,
    pub array: u32,
    pub partition: String,
    pub qos: String,
    pub start: Epoch,
    pub end: Option<Epoch>,
    pub second: Option<(Epoch, Epoch)>,
    pub suspended: Option<(Epoch, Option<Epoch>)>,
}

/// What a line means.
pub enum Verb {
    Clock(Epoch),
    Account { name: String, parent: String, users: String },
    Slurm { program: String, args: Vec<String> },
    Submit { user: String, account: String, qos: Option<String> },
    Jobs(Vec<Job>),
    Allocation { account: String, keys: Option<Vec<String>> },
    Quota { name: String, keys: Option<Vec<String>> },
    Config { section: String, key: String },
    Portal(Portal),
    Cycle { deep: bool, account: Option<String> },
    ExpectQuiet,
    Ask,
    Rollup(Epoch, Epoch),
    Audit(Epoch, Epoch),
}

/// A line for the portal.
pub enum Portal {
    Policy(serde_json::Value),
    Resource(serde_json::Value),
    Command(serde_json::Value),
    Settings(serde_json::Value),
    Tick,
    Show,
}

impl Script {
    /// Reads a scenario; what is not understood panics with its line.
    pub fn parse(name: &str, text: &str) -> Script {
        let mut script = Script { name: name.to_owned(), prefix: String::new(), steps: Vec::new() };
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let place = format!("{name}.scenario:{}", number + 1);
            if let Some(prefix) = line.strip_prefix("prefix ") {
                prefix.clone_into(&mut script.prefix);
                continue;
            }
            assert!(!script.prefix.is_empty(), "{place}: the first verb is prefix");
            script.push(line, read(line).unwrap_or_else(|problem| panic!("{place}: {problem}: {line}")));
        }
        let ends = script.steps.iter().rev().take(2).map(|step| step.text.as_str()).collect::<Vec<_>>();
        assert_eq!(ends, ["expect quiet", "cycle"], "{name}.scenario must end with a quiet cycle");
        script
    }

    fn push(&mut self, line: &str, verb: Verb) {
        if let (Verb::Jobs(new), Some(Step { text, verb: Verb::Jobs(jobs) })) = (&verb, self.steps.last_mut())
        {
            jobs.extend(new.iter().cloned());
            text.push('\n');
            text.push_str(line);
            return;
        }
        self.steps.push(Step { text: line.to_owned(), verb });
    }
}

fn read(line: &str) -> Result<Verb, String> {
    let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
    let words: Vec<&str> = rest.split_whitespace().collect();
    match (verb, &words[..]) {
        ("clock", [time]) => Ok(Verb::Clock(at(time))),
        ("account", [name, options @ ..]) => Ok(Verb::Account {
            name: (*name).to_owned(),
            parent: option(options, "parent").unwrap_or_else(|| "root".to_owned()),
            users: option(options, "users").unwrap_or_else(|| "alice,bob".to_owned()),
        }),
        ("slurm", [program, ..]) => {
            let mut words = shell_words(rest);
            words.remove(0);
            Ok(Verb::Slurm { program: (*program).to_owned(), args: words })
        }
        ("submit", [user, account, options @ ..]) => Ok(Verb::Submit {
            user: (*user).to_owned(),
            account: (*account).to_owned(),
            qos: option(options, "qos"),
        }),
        ("job", [_, ..]) => Ok(Verb::Jobs(vec![job(&words)?])),
        ("allocation", [account, "gone"]) => {
            Ok(Verb::Allocation { account: (*account).to_owned(), keys: None })
        }
        ("quota", [name, "gone"]) => Ok(Verb::Quota { name: (*name).to_owned(), keys: None }),
        ("quota", [name, keys @ ..]) => Ok(Verb::Quota {
            name: (*name).to_owned(),
            keys: Some(keys.iter().map(|key| (*key).to_owned()).collect()),
        }),
        ("allocation", [account, keys @ ..]) => Ok(Verb::Allocation {
            account: (*account).to_owned(),
            keys: Some(keys.iter().map(|key| (*key).to_owned()).collect()),
        }),
        ("config", [section, key]) => {
            Ok(Verb::Config { section: (*section).to_owned(), key: (*key).to_owned() })
        }
        ("portal", ["tick"]) => Ok(Verb::Portal(Portal::Tick)),
        ("portal", ["show"]) => Ok(Verb::Portal(Portal::Show)),
        ("portal", [what, ..]) => {
            let body = rest.trim_start().strip_prefix(what).unwrap_or_default();
            let body = serde_json::from_str(body).map_err(|error| error.to_string())?;
            match *what {
                "policy" => Ok(Verb::Portal(Portal::Policy(body))),
                "resource" => Ok(Verb::Portal(Portal::Resource(body))),
                "command" => Ok(Verb::Portal(Portal::Command(body))),
                "settings" => Ok(Verb::Portal(Portal::Settings(body))),
                _ => Err("unknown word of portal".to_owned()),
            }
        }
        ("cycle", options) => {
            Ok(Verb::Cycle { deep: options.contains(&"deep"), account: option(options, "account") })
        }
        ("expect", ["quiet"]) => Ok(Verb::ExpectQuiet),
        ("ask", ["everything"]) => Ok(Verb::Ask),
        ("rollup", [from, until]) => Ok(Verb::Rollup(at(from), at(until))),
        ("audit", [from, until]) => Ok(Verb::Audit(at(from), at(until))),
        _ => Err("unknown verb".to_owned()),
    }
}

fn option(words: &[&str], name: &str) -> Option<String> {
    words.iter().find_map(|word| Some(word.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
}

fn job(words: &[&str]) -> Result<Job, String> {
    const KNOWN: [&str; 14] = [
        "account",
        "user",
        "start",
        "end",
        "for",
        "state",
        "cpus",
        "mem",
        "gpus",
        "array",
        "partition",
        "qos",
        "second",
        "suspended",
    ];
    for word in words {
        let (key, _) = word.split_once('=').ok_or_else(|| format!("{word} is not KEY=VALUE"))?;
        if !KNOWN.contains(&key) {
            return Err(format!("unknown key {key}"));
        }
    }
    let number = |name: &str, default: u64| -> Result<u64, String> {
        let text = option(words, name);
        text.map_or(Ok(default), |text| {
            text.trim_end_matches('M').parse().map_err(|_| format!("{name} is no number"))
        })
    };
    let start = at(&option(words, "start").ok_or("start= is missing")?);
    let ran = option(words, "for").map(|text| humantime::parse_duration(&text).map_err(|e| e.to_string()));
    let ran = ran.transpose()?.map(|ran| start.plus(i64::try_from(ran.as_secs()).expect("a short time")));
    Ok(Job {
        account: option(words, "account").ok_or("account= is missing")?,
        user: option(words, "user").ok_or("user= is missing")?,
        state: option(words, "state").unwrap_or_else(|| "COMPLETED".to_owned()),
        cpus: number("cpus", 1)?,
        mem_mb: number("mem", 100)?,
        gpus: number("gpus", 0)?,
        array: u32::try_from(number("array", 0)?).map_err(|error| error.to_string())?,
        partition: option(words, "partition").unwrap_or_else(|| "debug".to_owned()),
        qos: option(words, "qos").unwrap_or_default(),
        start,
        end: option(words, "end").map(|text| at(&text)).or(ran),
        second: option(words, "second").map(|text| {
            let (from, until) = text.split_once('/').expect("second=T/T");
            (at(from), at(until))
        }),
        suspended: option(words, "suspended").map(|text| {
            let (from, until) = text.split_once('/').expect("suspended=T/[T]");
            (at(from), (!until.is_empty()).then(|| at(until)))
        }),
    })
}

/// Words as a shell cuts them: at spaces outside of quotes.
fn shell_words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in text.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, ' ') => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[test]
fn words_are_cut_as_a_shell_cuts_them() {
    assert_eq!(shell_words(r#"sacctmgr  set qos="" "a b"='c'"#), ["sacctmgr", "set", "qos=", "a b=c"]);
}
