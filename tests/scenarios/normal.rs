//! What two clusters can never say alike is made alike, and nothing else: rows of other scenarios, ids (by the order in which
//! they appear, so that equal ids stay equal), the seconds that real jobs took, ports, host names, and numbers of users.

use std::collections::BTreeMap;

use crate::script::Script;

/// One run of a Slurm program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub program: String,
    pub args: Vec<String>,
    pub stdout: String,
    pub stderr: String,
    pub status: i32,
}

/// Lines of `show config` that the agent reads; most others name ports, paths and times of the host.
const SETTINGS: [&str; 12] = [
    "AccountingStorageEnforce",
    "AccountingStorageTRES",
    "AccountingStorageType",
    "ClusterName",
    "PriorityCalcPeriod",
    "PriorityDecayHalfLife",
    "PriorityFlags",
    "PriorityType",
    "PriorityUsageResetPeriod",
    "PrivateData",
    "SLURM_VERSION",
    "SLURMDBD_VERSION",
];

/// QOS that every lab has.
const QOS_OF_ALL: [&str; 3] = ["normal", "slowdown", "blocked"];

/// What sacctmgr says before it lists all QOS.
const VALID_QOS: &str = "Valid QOS's are ";

/// The names of one scenario on one cluster.
pub struct Normal {
    prefix: String,
    has_open_jobs: bool,
    ids: BTreeMap<(char, String), usize>,
}

impl Normal {
    pub fn of(script: &Script) -> Normal {
        Normal { prefix: script.prefix.clone(), has_open_jobs: script.has_open_jobs(), ids: BTreeMap::new() }
    }

    /// What `--evaluate-now` prints. Open records change from second to second.
    pub fn report(&self, text: &str) -> String {
        let line = |line: &str| match line.split_once(" new, ") {
            Some((new, rest)) if self.has_open_jobs && line.starts_with("jobs: ") => {
                let (_, rest) = rest.split_once(' ').unwrap_or_default();
                format!("{new} new, N {rest}\n")
            }
            _ => format!("{line}\n"),
        };
        let text: String = text.lines().map(line).collect();
        let named = self.valid_qos(&text);
        // The names are in a cell of a table, which is as wide as they are.
        if named.contains(VALID_QOS) { squeezed(&named) } else { named }
    }

    /// `You gave a bad qos 'x'. Valid QOS's are normal,slowdown`: without the QOS of others.
    fn valid_qos(&self, text: &str) -> String {
        let mut parts = text.split(VALID_QOS);
        let mut kept = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let is_of_list = |c: char| c.is_ascii_alphanumeric() || "_,".contains(c);
            let end = part.find(|c| !is_of_list(c)).unwrap_or(part.len());
            let ours = |name: &&str| QOS_OF_ALL.contains(name) || name.starts_with(&self.prefix);
            let names: Vec<&str> = part[..end].split(',').filter(ours).collect();
            kept.push_str(&format!("{VALID_QOS}{}{}", names.join(","), &part[end..]));
        }
        kept
    }

    /// Program, arguments, both outputs and the status as text.
    pub fn call(&mut self, call: &Call) -> String {
        // The answer first: it gives numbers to ids that a later question names.
        let answer = self.answer(call);
        let args: Vec<String> = self.args(call).iter().map(|arg| typed(arg)).collect();
        format!("$ {} {}\n{answer}", call.program, args.join(" "))
    }

    /// Both outputs and, unless it is 0, the status.
    pub fn answer(&mut self, call: &Call) -> String {
        let mut text = self.stdout(call);
        for line in self.stderr(call).lines() {
            text.push_str(&format!("2> {line}\n"));
        }
        if call.status != 0 {
            text.push_str(&format!("= {}\n", call.status));
        }
        text
    }

    fn id(&mut self, kind: char, id: &str) -> String {
        let next = self.ids.keys().filter(|(of, _)| *of == kind).count() + 1;
        let number = self.ids.entry((kind, id.to_owned())).or_insert(next);
        format!("{kind}{number}")
    }

    fn args(&mut self, call: &Call) -> Vec<String> {
        let mut args = call.args.clone();
        if call.program == "sacct"
            && let Some(at) = args.iter().position(|arg| arg == "-j")
        {
            let mut jobs: Vec<String> = args[at + 1].split(',').map(|id| self.id('j', id)).collect();
            jobs.sort();
            args[at + 1] = jobs.join(",");
        }
        args
    }

    fn stderr(&self, call: &Call) -> String {
        self.valid_qos(&call.stderr)
    }

    fn stdout(&mut self, call: &Call) -> String {
        let shown = call.args.iter().find(|arg| *arg != "-nP" && !arg.starts_with('-')).map(String::as_str);
        match (call.program.as_str(), shown) {
            ("sacct", _) => self.sacct(call),
            ("sshare", _) => self.sshare(call),
            ("sreport", _) => self.rows(call, &columns(call), '|', |normal, row| normal.mine(row, "account")),
            ("scontrol", Some("ping")) => host_hidden(&call.stdout),
            (_, Some("show")) if call.args.iter().any(|arg| arg == "config") => settings(&call.stdout),
            ("sacctmgr", Some("show" | "list")) => self.sacctmgr_show(call),
            ("sbatch", _) => submitted(&call.stdout),
            _ => call.stdout.clone(),
        }
    }

    fn mine(&self, row: &Row<'_>, column: &str) -> bool {
        row.get(column).is_none_or(|name| name.trim().starts_with(&self.prefix))
    }

    /// Keeps the rows that `keep` says; unchanged where the columns are not known.
    fn rows(
        &mut self,
        call: &Call,
        columns: &[String],
        separator: char,
        mut keep: impl FnMut(&mut Normal, &mut Row<'_>) -> bool,
    ) -> String {
        let mut text = String::new();
        for line in call.stdout.lines() {
            let fields: Vec<String> = line.split(separator).map(str::to_owned).collect();
            if fields.len() != columns.len() {
                text.push_str(&format!("{line}\n"));
                continue;
            }
            let mut row = Row { columns, fields };
            if keep(self, &mut row) {
                text.push_str(&format!("{}\n", row.fields.join("|")));
            }
        }
        text
    }

    fn sacct(&mut self, call: &Call) -> String {
        let separator = call.args.iter().find_map(|arg| arg.strip_prefix("--delimiter="));
        let separator = separator.and_then(|text| text.chars().next()).unwrap_or('|');
        self.rows(call, &columns(call), separator, |normal, row| {
            if !normal.mine(row, "account") {
                return false;
            }
            for (column, kind) in [("dbindex", 'd'), ("jobidraw", 'j'), ("associd", 'a')] {
                if let Some(id) = row.get(column).filter(|id| !id.is_empty()).map(str::to_owned) {
                    row.set(column, normal.id(kind, &id));
                }
            }
            let state = row.get("state").unwrap_or_default().to_owned();
            if state.starts_with("CANCELLED by ") {
                row.set("state", "CANCELLED by UID".to_owned());
            }
            // What still goes on is counted up to now by sacct, and now is not the same on both.
            if matches!(state.as_str(), "RUNNING" | "SUSPENDED") {
                row.set("elapsedraw", "N".to_owned());
            }
            if state == "SUSPENDED" {
                row.set("suspended", "N".to_owned());
            }
            true
        })
    }

    fn sshare(&mut self, call: &Call) -> String {
        self.rows(call, &columns(call), '|', |normal, row| {
            let root = row.get("account") == Some("root") && row.get("user").is_none_or(str::is_empty);
            if !root && !normal.mine(row, "account") {
                return false;
            }
            // Running jobs get into it every PriorityCalcPeriod.
            if root || normal.has_open_jobs || row.get("rawusage").is_some_and(|used| used != "0") {
                row.set("rawusage", "N".to_owned());
            }
            if let Some(minutes) = row.get("grptresraw") {
                let names = minutes.split(',').map(|item| item.split('=').next().unwrap_or_default());
                let hidden: Vec<String> = names.map(|name| format!("{name}=N")).collect();
                row.set("grptresraw", hidden.join(","));
            }
            true
        })
    }

    fn sacctmgr_show(&mut self, call: &Call) -> String {
        let what = call.args.iter().find_map(|arg| {
            let entity = ["assoc", "account", "qos", "cluster"];
            entity.into_iter().find(|entity| arg.to_lowercase().starts_with(entity))
        });
        self.rows(call, &columns(call), '|', |normal, row| {
            if let Some(id) = row.get("id").map(str::to_owned)
                && what == Some("assoc")
            {
                row.set("id", normal.id('a', &id));
            }
            if row.get("controlport").is_some_and(|port| port != "0") {
                row.set("controlport", "N".to_owned());
            }
            match what {
                Some("assoc") => {
                    let is_root = row.get("account") == Some("root");
                    let is_user = row.get("user").is_some_and(|user| !user.is_empty());
                    normal.mine(row, "account") || (is_root && !is_user)
                }
                Some("account") => normal.mine(row, "account"),
                Some("qos") => {
                    let of_all = row.get("name").is_some_and(|name| QOS_OF_ALL.contains(&name));
                    of_all || normal.mine(row, "name")
                }
                _ => true,
            }
        })
    }
}

/// A line with the names of its columns.
struct Row<'a> {
    columns: &'a [String],
    fields: Vec<String>,
}

impl Row<'_> {
    fn get(&self, column: &str) -> Option<&str> {
        let at = self.columns.iter().position(|name| name == column)?;
        Some(&self.fields[at])
    }

    fn set(&mut self, column: &str, value: String) {
        if let Some(at) = self.columns.iter().position(|name| name == column) {
            self.fields[at] = value;
        }
    }
}

/// The columns that were asked for, in lower case.
fn columns(call: &Call) -> Vec<String> {
    let after = call.args.iter().position(|arg| arg == "-o").and_then(|at| call.args.get(at + 1));
    let asked = after.map(String::as_str).or_else(|| {
        let lower = |arg: &&String| arg.to_lowercase().starts_with("format=");
        call.args.iter().find(lower).and_then(|arg| arg.split_once('=')).map(|(_, list)| list)
    });
    asked.unwrap_or_default().split(',').map(|name| name.trim().to_lowercase()).collect()
}

fn settings(text: &str) -> String {
    let name = |line: &str| line.split('=').next().unwrap_or_default().trim().to_owned();
    let kept = |line: &&str| {
        SETTINGS.contains(&name(line).as_str()) || (!line.contains('=') && line.ends_with("onfiguration:"))
    };
    text.lines().filter(kept).map(|line| format!("{line}\n")).collect()
}

/// `Slurmctld(primary) at vm is UP`
fn host_hidden(text: &str) -> String {
    let hidden = |line: &str| match (line.split_once(" at "), line.split_once(" is ")) {
        (Some((role, _)), Some((_, state))) => format!("{role} at HOST is {state}\n"),
        _ => format!("{line}\n"),
    };
    text.lines().map(hidden).collect()
}

fn submitted(text: &str) -> String {
    let line = |line: &str| match line.strip_prefix("Submitted batch job ") {
        Some(_) => "Submitted batch job N\n".to_owned(),
        None => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

fn typed(arg: &str) -> String {
    match arg.chars().any(|c| c.is_control() || c == ' ') {
        true => format!("'{}'", arg.escape_default()),
        false => arg.to_owned(),
    }
}

/// Runs of spaces as two.
fn squeezed(text: &str) -> String {
    let mut text = text.to_owned();
    while text.contains("   ") {
        text = text.replace("   ", "  ");
    }
    text
}
