//! `sacctmgr`: accounts, users, associations, QOS and their limits.
//!
//! Not emulated: coordinators, federations, resources, reservations, events, archives, wckeys, `load`, `dump`, and the
//! interactive mode.

mod account;
mod association;
mod cluster;
mod columns;
mod condition;
mod listing;
mod modify;
mod qos;
mod request;
mod user;
mod word;

use super::call::Call;
use super::getopt::{self, Opt, flag};
use super::names::abbreviates;
use super::table::Layout;
use super::terminal::{Output, Terminal};
use super::times;
use super::world::{AdminLevel, World};

const OPTIONS: &[Opt] = &[
    flag('h', &["help", "usage"]),
    flag('i', &["immediate"]),
    flag('n', &["noheader"]),
    flag('o', &["oneliner"]),
    flag('p', &["parsable"]),
    flag('P', &["parsable2"]),
    flag('Q', &["quiet"]),
    flag('r', &["readonly"]),
    flag('s', &["associations"]),
    flag('v', &["verbose"]),
    flag('V', &["version"]),
];

const ENTITIES_TO_LIST: &str = "\"Account\", \"Association\", \"Cluster\", \"Configuration\",\n\"Event\", \"Federation\", \
                                \"Problem\", \"QOS\", \"Resource\", \"Reservation\",\n\"RunAwayJobs\", \"Stats\", \
                                \"Transaction\", \"TRES\", \"User\", or \"WCKey\"";
const ENTITIES_TO_ADD: &str =
    "\"Account\", \"Cluster\", \"Coordinator\", \"Federation\", \"QOS\", \"Resource\", or \"User\"";
const ENTITIES_TO_MODIFY: &str =
    "\"Account\", \"Cluster\", \"Federation\", \"Job\", \"QOS\", \"Resource\" or \"User\"";

/// What the program says when slurmdbd refuses.
const NO_PRIVILEGE: &str = "Your user doesn't have privilege to perform this action";
const DENIED: &str = "Access/permission denied";

/// One run of `sacctmgr`.
pub(super) struct Session<'w, 'c> {
    world: &'w mut World,
    call: &'c Call<'c>,
    out: Terminal,
    failed: bool,
    hangs: bool,
    immediate: bool,
    read_only: bool,
    header: bool,
    layout: Layout,
    with_associations: bool,
}

/// Runs `sacctmgr`.
pub(super) fn run(world: &mut World, call: &Call<'_>) -> Output {
    let mut session = Session {
        world,
        call,
        out: Terminal::default(),
        failed: false,
        hangs: false,
        immediate: false,
        read_only: false,
        header: true,
        layout: Layout::Columns,
        with_associations: false,
    };
    let parsed = match getopt::parse(call.program, call.args, OPTIONS) {
        Ok(parsed) => parsed,
        Err((_, complaint)) => {
            session.out.complain(&complaint);
            session.out.complain("Try \"sacctmgr --help\" for more information\n");
            return session.out.exit(1);
        }
    };
    for (id, _) in &parsed.options {
        match id {
            'i' => session.immediate = true,
            'n' => session.header = false,
            'p' => session.layout = Layout::Separated,
            'P' => session.layout = Layout::Joined,
            'r' => session.read_only = true,
            's' => session.with_associations = true,
            'V' => {
                session.version();
                return session.out.exit(0);
            }
            'h' => {
                session.out.complain(&call.not_emulated("option --help"));
                return session.out.exit(1);
            }
            _ => {}
        }
    }
    session.command(&parsed.words);
    let status = if session.hangs { Output::HANGS } else { i32::from(session.failed) };
    session.out.exit(status)
}

impl Session<'_, '_> {
    fn command(&mut self, words: &[String]) {
        let Some(keyword) = words.first() else {
            self.fail(&self.call.not_emulated("the interactive mode"));
            return;
        };
        let is = |full: &str, least: usize| abbreviates(keyword, full, least);
        let rest = &words[1..];
        if is("add", 3) || is("create", 3) {
            self.entity("add", rest, ENTITIES_TO_ADD);
        } else if is("show", 3) || is("list", 3) {
            self.show(rest);
        } else if is("modify", 1) || is("update", 1) {
            self.entity("modify", rest, ENTITIES_TO_MODIFY);
        } else if is("delete", 3) || is("remove", 3) {
            self.entity("delete", rest, ENTITIES_TO_ADD);
        } else if is("rollup", 2) {
            self.rollup(rest);
        } else if is("version", 4) {
            if !rest.is_empty() {
                self.fail(&format!("too many arguments for {keyword} keyword\n"));
            }
            self.version();
        } else if self.is_known_but_not_emulated(keyword) {
            self.fail(&self.call.not_emulated(&format!("keyword {keyword}")));
        } else {
            self.fail(&format!("invalid keyword: {keyword}\n"));
        }
    }

    fn is_known_but_not_emulated(&self, keyword: &str) -> bool {
        const KEYWORDS: [(&str, usize); 14] = [
            ("associations", 3),
            ("dump", 3),
            ("help", 2),
            ("load", 2),
            ("oneliner", 1),
            ("quiet", 4),
            ("exit", 4),
            ("quit", 4),
            ("archive", 3),
            ("clear", 3),
            ("verbose", 4),
            ("readonly", 4),
            ("reconfigure", 4),
            ("shutdown", 4),
        ];
        KEYWORDS.iter().any(|(full, least)| abbreviates(keyword, full, *least))
    }

    /// `add`, `modify` and `delete` of something.
    fn entity(&mut self, verb: &str, words: &[String], entities: &str) {
        if !self.reach_database() {
            return;
        }
        if self.read_only {
            self.fail("Can't run this command in readonly mode.\n");
            return;
        }
        let none = String::new();
        let (entity, rest) = words.split_first().unwrap_or((&none, &[]));
        let is = |full: &str, least: usize| !entity.is_empty() && abbreviates(entity, full, least);
        let done = if is("Account", 1) || is("Acct", 4) {
            match verb {
                "add" => self.add_account(rest),
                "modify" => self.modify_account(rest),
                _ => self.delete_account(rest),
            }
        } else if is("QOS", 1) {
            match verb {
                "add" => self.add_qos(rest),
                "modify" => self.modify_qos(rest),
                _ => self.delete_qos(rest),
            }
        } else if is("User", 1) {
            match verb {
                "add" => self.add_user(rest),
                "modify" => self.modify_user(rest),
                _ => self.delete_user(rest),
            }
        } else if is("Cluster", 2) && verb != "modify" {
            if verb == "add" { self.add_cluster(rest) } else { self.delete_cluster(rest) }
        } else if ["Cluster", "Coordinator", "Federation", "Resource", "Job"].iter().any(|full| is(full, 1)) {
            self.out.complain(&self.call.not_emulated(&format!("{verb} {entity}")));
            false
        } else {
            self.out.complain(&format!(
                "No valid entity in {verb} command\nInput line must include {entities}\n"
            ));
            false
        };
        self.failed |= !done;
    }

    fn show(&mut self, words: &[String]) {
        let none = String::new();
        let (entity, rest) = words.split_first().unwrap_or((&none, &[]));
        let is = |full: &str, least: usize| !entity.is_empty() && abbreviates(entity, full, least);
        if is("Configuration", 2) && !is("Clusters", 2) {
            self.show_config();
            return;
        }
        if !entity.is_empty() && !self.reach_database() {
            return;
        }
        let done = if is("Accounts", 2) || is("Acct", 4) {
            self.list_accounts(rest)
        } else if is("Associations", 2) {
            self.list_associations(rest)
        } else if is("Clusters", 2) {
            self.list_clusters(rest)
        } else if is("RunawayJobs", 2) || is("OrphanJobs", 1) || is("LostJobs", 1) {
            self.list_runaway_jobs(rest)
        } else if is("QOS", 1) {
            self.list_qos(rest)
        } else if is("TRES", 2) {
            self.list_tres(rest)
        } else if is("Users", 1) {
            self.list_users(rest)
        } else if is("Stats", 1) && self.world.admin_level() < AdminLevel::Administrator {
            self.storage_complaint("acct_storage_p_get_stats", &format!("RC:2002 {NO_PRIVILEGE}"));
            false
        } else if [
            "Events",
            "Federation",
            "Problems",
            "Resources",
            "Reservations",
            "Stats",
            "Transactions",
            "Txn",
            "WCKeys",
        ]
        .iter()
        .any(|full| is(full, 1))
        {
            self.out.complain(&self.call.not_emulated(&format!("show {entity}")));
            false
        } else {
            self.out.complain(&format!(
                "No valid entity in list command\nInput line must include {ENTITIES_TO_LIST}\n"
            ));
            false
        };
        self.failed |= !done;
    }

    /// The undocumented `rollup [start] [end]`: its status is 0 whatever happens, and what looks like a complaint on
    /// standard error means that it was done, or that slurmdbd was not there (22.05.8).
    fn rollup(&mut self, words: &[String]) {
        let mut ends = [0, 0];
        for (word, end) in words.iter().zip(&mut ends) {
            match times::parse_time(word, &self.call.zone, self.call.now) {
                Ok(at) => *end = at,
                Err(complaint) => self.out.complain(&complaint),
            }
        }
        if !self.world.services.slurmdbd {
            let text = self.call.no_database(self.world) + &self.call.no_database_again();
            self.out.complain(&text);
        } else if self.world.admin_level() < AdminLevel::Operator {
            return;
        } else {
            self.world.rolled_until = self.world.rolled_until.max(ends[1]);
        }
        self.storage_complaint("acct_storage_p_roll_usage", "SUCCESS");
    }

    fn version(&mut self) {
        let text = format!("slurm-wlm {}\n", self.world.version);
        self.out.print(&text);
    }

    /// Prints a complaint; the program will end with status 1.
    fn fail(&mut self, text: &str) {
        self.out.complain(text);
        self.failed = true;
    }

    /// `sacctmgr: error: ...`
    fn error(&mut self, text: &str) {
        let text = self.call.error(text);
        self.out.complain(&text);
    }

    /// What the accounting plugin itself says on standard error.
    fn storage_complaint(&mut self, function: &str, text: &str) {
        let line = format!("{}: accounting_storage/slurmdbd: {function}: {text}\n", self.call.program);
        self.out.complain(&line);
    }

    /// False, with the real complaint, when slurmdbd does not answer.
    fn reach_database(&mut self) -> bool {
        if self.world.services.slurmdbd {
            return true;
        }
        let text = self.call.no_database(self.world);
        self.fail(&text);
        false
    }

    /// True when the acting user has at least this level.
    fn may(&self, level: AdminLevel) -> bool {
        self.world.admin_level() >= level
    }

    /// Says that slurmdbd refused a modification or removal; always false.
    fn denied(&mut self) -> bool {
        self.error(NO_PRIVILEGE);
        self.fail(&format!(" Error with request: {DENIED}\n"));
        false
    }

    /// Asks whether to go on. Without `-i` nobody answers, and at the end of standard input sacctmgr 22.05.8 asks for
    /// ever.
    fn agreed(&mut self, question: &str) -> bool {
        if !self.immediate {
            self.out.print(&format!("{question} (You have 30 seconds to decide)\n"));
            self.hangs = true;
        }
        self.immediate
    }

    /// Asks for the final commit.
    fn committed(&mut self) -> bool {
        self.agreed("Would you like to commit changes?")
    }

    /// True when a condition names no cluster or the local one.
    fn is_local(&self, clusters: &[String]) -> bool {
        clusters.is_empty() || clusters.contains(&self.world.cluster)
    }

    /// Every cluster of the database, the local one first.
    fn clusters(&self) -> Vec<String> {
        std::iter::once(&self.world.cluster).chain(&self.world.other_clusters).cloned().collect()
    }

    /// Keeps the clusters that exist and complains about the others; false when none is left.
    fn check_clusters(&mut self, clusters: &mut Vec<String>) -> bool {
        let known = self.clusters();
        let unknown: Vec<String> = clusters.iter().filter(|name| !known.contains(name)).cloned().collect();
        for name in &unknown {
            self.fail(&format!(
                " This cluster '{name}' doesn't exist.\n        Contact your admin to add it to accounting.\n"
            ));
        }
        clusters.retain(|name| known.contains(name));
        !clusters.is_empty()
    }
}
