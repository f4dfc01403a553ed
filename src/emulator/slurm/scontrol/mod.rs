//! `scontrol`: state of the controller, its configuration, its partitions, and what it knows of associations.
//!
//! Not emulated: every keyword that changes something, jobs that exist, nodes, reservations, and the interactive mode.

mod associations;

use super::call::Call;
use super::configuration;
use super::getopt::{self, Opt, flag, with_value};
use super::names::abbreviates;
use super::terminal::{Output, Terminal};
use super::times::TimeStyle;
use super::tres::{BILLING, CPU, NODE, Units};
use super::world::{Partition, World};

const OPTIONS: &[Opt] = &[
    flag('a', &["all"]),
    flag('d', &["details"]),
    flag('F', &["future"]),
    flag('h', &["help", "usage"]),
    with_value('M', &["cluster", "clusters"]),
    flag('o', &["oneliner"]),
    flag('Q', &["quiet"]),
    with_value('u', &["uid"]),
    flag('v', &["verbose"]),
    flag('V', &["version"]),
];

/// What the controller's client says when nobody answers.
pub(super) const NO_CONTROLLER: &str = "Unable to contact slurm controller (connect failure)";

struct Session<'a> {
    world: &'a World,
    call: &'a Call<'a>,
    out: Terminal,
    one_line: bool,
    quiet: bool,
}

/// Runs `scontrol`.
pub(super) fn run(world: &World, call: &Call<'_>) -> Output {
    let mut session = Session { world, call, out: Terminal::default(), one_line: false, quiet: false };
    let parsed = match getopt::parse(call.program, call.args, OPTIONS) {
        Ok(parsed) => parsed,
        Err((_, complaint)) => {
            session.out.complain(&format!("{complaint}Try \"scontrol --help\" for more information\n"));
            return session.out.exit(1);
        }
    };
    for (id, _) in &parsed.options {
        match id {
            'o' => session.one_line = true,
            'Q' => session.quiet = true,
            'V' => {
                session.version();
                return session.out.exit(0);
            }
            'h' | 'M' | 'u' => {
                session.out.complain(&call.not_emulated(&format!("option -{id}")));
                return session.out.exit(1);
            }
            _ => {}
        }
    }
    let done = session.command(&parsed.words);
    session.out.exit(i32::from(!done))
}

impl Session<'_> {
    /// Does what the words say; false for status 1.
    fn command(&mut self, words: &[String]) -> bool {
        let Some((keyword, rest)) = words.split_first() else {
            // It reads commands from standard input, which is empty.
            self.out.print("scontrol: \n");
            return true;
        };
        if abbreviates(keyword, "ping", 3) {
            if rest.is_empty() {
                return self.ping();
            }
            return self.fail(&format!("too many arguments for keyword:{keyword}\n"));
        }
        if abbreviates(keyword, "show", 3) {
            return self.show(keyword, rest);
        }
        if abbreviates(keyword, "version", 4) {
            if !rest.is_empty() {
                self.out.complain(&format!("too many arguments for {keyword} keyword\n"));
            }
            self.version();
            return rest.is_empty();
        }
        const OTHERS: [(&str, usize); 16] = [
            ("create", 2),
            ("delete", 1),
            ("errnumstr", 2),
            ("help", 2),
            ("hold", 4),
            ("listpids", 1),
            ("notify", 1),
            ("reconfigure", 3),
            ("release", 3),
            ("requeue", 3),
            ("resume", 3),
            ("shutdown", 8),
            ("suspend", 2),
            ("takeover", 8),
            ("update", 1),
            ("write", 5),
        ];
        if OTHERS.iter().any(|(full, least)| abbreviates(keyword, full, *least)) {
            let text = self.call.not_emulated(&format!("keyword {keyword}"));
            return self.fail(&text);
        }
        self.fail(&format!("invalid keyword: {keyword}\n"))
    }

    fn show(&mut self, keyword: &str, words: &[String]) -> bool {
        let Some((entity, rest)) = words.split_first() else {
            return self.fail_unless_quiet(&format!("too few arguments for keyword:{keyword}\n"));
        };
        let (name, given) = match entity.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (entity.as_str(), rest.first().map(String::as_str)),
        };
        let is = |full: &str, least: usize| abbreviates(name, full, least);
        let is_associations = is("assoc_mgr", 2) || is("cache", 2);
        if rest.len() > 1 && !is_associations {
            return self.fail_unless_quiet(&format!("too many arguments for keyword:{keyword}\n"));
        }
        const OTHERS: [(&str, usize); 16] = [
            ("aliases", 1),
            ("bbstat", 2),
            ("burstbuffer", 2),
            ("daemons", 1),
            ("federations", 1),
            ("frontendname", 1),
            ("hostlist", 5),
            ("hostlistsorted", 9),
            ("hostnames", 5),
            ("licenses", 2),
            ("nodes", 1),
            ("reservations", 1),
            ("slurmd", 2),
            ("steps", 2),
            ("topology", 1),
            ("dwstat", 2),
        ];
        if is_associations {
            self.show_associations(rest)
        } else if is("config", 1) {
            self.show_config()
        } else if is("jobs", 1) || is("jobid", 1) {
            self.show_job(given)
        } else if is("partitions", 2) || is("partitionname", 2) {
            self.show_partitions(given)
        } else if OTHERS.iter().any(|(full, least)| is(full, *least)) {
            let text = self.call.not_emulated(&format!("show {name}"));
            self.fail(&text)
        } else {
            self.fail_unless_quiet(&format!("invalid entity:{entity} for keyword:{keyword} \n"))
        }
    }

    fn version(&mut self) {
        self.out.print(&format!("slurm-wlm {}\n", self.world.version));
    }

    fn fail(&mut self, text: &str) -> bool {
        self.out.complain(text);
        false
    }

    fn fail_unless_quiet(&mut self, text: &str) -> bool {
        if self.quiet { false } else { self.fail(text) }
    }

    /// False, with the real complaint, when the controller does not answer this request.
    fn reach_controller(&mut self, request: &str) -> bool {
        if self.world.services.slurmctld {
            return true;
        }
        self.fail_unless_quiet(&format!("{request} error: {NO_CONTROLLER}\n"))
    }

    fn ping(&mut self) -> bool {
        let line = self.state_of_controller();
        self.out.print(&line);
        if !self.world.services.slurmctld {
            let stars = "*".repeat(41);
            self.out.print(&format!("{stars}\n** RESTORE SLURMCTLD DAEMON TO SERVICE **\n{stars}\n"));
        }
        self.world.services.slurmctld
    }

    fn state_of_controller(&self) -> String {
        let host = configuration::value(self.world, "SlurmctldHost[0]");
        let name = host.split('(').next().unwrap_or("");
        let state = if self.world.services.slurmctld { "UP" } else { "DOWN" };
        format!("Slurmctld(primary) at {name} is {state}\n")
    }

    fn show_config(&mut self) -> bool {
        if !self.reach_controller("slurm_load_ctl_conf") {
            return false;
        }
        let at = TimeStyle::iso(self.call.zone.clone()).write(self.call.now);
        let text = configuration::of_controller(self.world, &at);
        let state = self.state_of_controller();
        self.out.print(&format!("{text}\n{state}"));
        true
    }

    fn show_job(&mut self, id: Option<&str>) -> bool {
        if !self.reach_controller("slurm_load_jobs") {
            return false;
        }
        let known = |id: &str| self.world.jobs.iter().any(|job| job.is_alive() && job.id.to_string() == id);
        match id {
            Some(id) if !known(id) => {
                self.fail_unless_quiet("slurm_load_jobs error: Invalid job id specified\n")
            }
            _ => {
                let text = self.call.not_emulated("show job");
                self.fail(&text)
            }
        }
    }

    fn show_partitions(&mut self, wanted: Option<&str>) -> bool {
        if !self.reach_controller("slurm_load_partitions") {
            return false;
        }
        let mut found = false;
        for partition in &self.world.partitions {
            if wanted.is_none_or(|name| name == partition.name) {
                found = true;
                let lines = lines_of(self.world, partition);
                let text = if self.one_line { lines.join(" ") } else { lines.join("\n   ") + "\n" };
                self.out.print(&format!("{text}\n"));
            }
        }
        match wanted {
            Some(name) if !found => {
                if !self.quiet {
                    self.out.print(&format!("Partition {name} not found\n"));
                }
                false
            }
            _ => true,
        }
    }
}

/// The lines of a partition; only those values differ that the emulated cluster knows.
fn lines_of(world: &World, partition: &Partition) -> Vec<String> {
    let mut tres = partition.tres.clone();
    tres.insert(BILLING, world.billable(&partition.name, &partition.tres) as u64);
    let count = |id: u32| partition.tres.get(&id).copied().unwrap_or(0);
    let of = |id: &u32| {
        let one = [(*id, tres[id])].into_iter().collect();
        world.tres.write(&one, Units::Exact)
    };
    let shown: Vec<String> = tres.keys().map(of).collect();
    let mut lines = vec![
        format!("PartitionName={}", partition.name),
        "AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL".to_owned(),
        format!("AllocNodes=ALL Default={} QoS=N/A", if partition.is_default { "YES" } else { "NO" }),
        "DefaultTime=NONE DisableRootJobs=NO ExclusiveUser=NO GraceTime=0 Hidden=NO".to_owned(),
        "MaxNodes=UNLIMITED MaxTime=UNLIMITED MinNodes=0 LLN=NO MaxCPUsPerNode=UNLIMITED".to_owned(),
        format!("Nodes={}", partition.nodes),
        "PriorityJobFactor=1 PriorityTier=1 RootOnly=NO ReqResv=NO OverSubscribe=NO".to_owned(),
        "OverTimeLimit=NONE PreemptMode=OFF".to_owned(),
        format!(
            "State={} TotalCPUs={} TotalNodes={} SelectTypeParameters=NONE",
            if partition.up { "UP" } else { "DOWN" },
            count(CPU),
            count(NODE)
        ),
        "JobDefaults=(null)".to_owned(),
        "DefMemPerNode=UNLIMITED MaxMemPerNode=UNLIMITED".to_owned(),
        format!("TRES={}", shown.join(",")),
    ];
    if !partition.billing_weights.is_empty() {
        lines.push(format!("TRESBillingWeights={}", partition.billing_weights));
    }
    lines
}
