//! `scontrol show assoc_mgr`, its associations only: limits and, live, what counts against them.

use super::super::limits::{Count, PerTres};
use super::super::names::{abbreviates, add_names};
use super::super::shares::{Share, shares};
use super::super::tree::Tree;
use super::super::tres::Amounts;
use super::super::usage::RawUsage;
use super::Session;

impl Session<'_> {
    /// `show assoc_mgr [accounts=...] [users=...] flags=assoc`
    pub(super) fn show_associations(&mut self, words: &[String]) -> bool {
        let (mut accounts, mut users) = (Vec::new(), Vec::new());
        let mut only_associations = false;
        for word in words {
            let (key, value) = word.split_once('=').unwrap_or((word.as_str(), ""));
            if value.is_empty() {
                self.out.complain(&format!("No value given for option {word}\n"));
                return true;
            }
            if abbreviates(key, "accounts", 1) {
                add_names(&mut accounts, value, false);
            } else if abbreviates(key, "users", 1) {
                add_names(&mut users, value, true);
            } else if abbreviates(key, "flags", 1) {
                let flags = value.to_lowercase();
                let others = flags.contains("users") || flags.contains("qos");
                if !others && !flags.contains("assoc") {
                    self.out.complain(&format!(
                        "invalid flag '{value}', valid options are 'Assoc, QOS, and/or Users'\n"
                    ));
                    return true;
                }
                only_associations = !others;
            } else if !abbreviates(key, "qos", 1) {
                return self
                    .fail_unless_quiet(&format!("invalid entity: {word} for keyword:show assoc_mgr\n"));
            }
        }
        if !only_associations {
            let text = self.call.not_emulated("show assoc_mgr without flags=assoc");
            return self.fail(&text);
        }
        if !self.reach_controller("slurm_load_assoc_mgr_info") {
            return false;
        }
        self.print_associations(&accounts, &users);
        true
    }

    fn print_associations(&mut self, accounts: &[String], users: &[String]) {
        let tree = self.world.tree();
        let usage = self.world.raw_usage(&tree);
        let shares = shares(&tree, &usage);
        let named = |list: &[String], name: &str| {
            list.is_empty() || list.iter().any(|known| known.eq_ignore_ascii_case(name))
        };
        let chosen: Vec<usize> = (0..tree.list.len())
            .filter(|at| {
                let association = &tree.list[*at];
                !association.deleted
                    && association.user.as_deref().is_none_or(|user| named(users, user))
                    && named(accounts, &association.account)
            })
            .collect();
        let gap = if self.one_line { "" } else { "\n" };
        let title = if chosen.is_empty() {
            "No associations currently cached in Slurm."
        } else {
            "Association Records"
        };
        self.out.print(&format!("Current Association Manager state\n{gap}{title}{gap}\n"));
        let separator = if self.one_line { " " } else { "\n    " };
        for at in tree.shown(&chosen, &self.world.cluster) {
            let record = Record { session: self, tree: &tree, at, usage: &usage[at], share: &shares[at] };
            let text = record.lines().join(separator);
            self.out.print(&format!("{text}\n"));
        }
    }
}

struct Record<'a> {
    session: &'a Session<'a>,
    tree: &'a Tree<'a>,
    at: usize,
    usage: &'a RawUsage,
    share: &'a Share,
}

impl Record<'_> {
    fn lines(&self) -> Vec<String> {
        let own = &self.tree.list[self.at];
        let world = self.session.world;
        let user = own
            .user
            .as_deref()
            .map_or_else(String::new, |user| format!("{user}({})", world.uid(user).unwrap_or(u32::MAX - 1)));
        let parent = own
            .parent
            .as_deref()
            .zip(self.tree.parent[self.at])
            .map_or_else(String::new, |(name, above)| format!("{name}({})", self.tree.list[above].id));
        let seconds_to_minutes = |amounts: &Amounts| amounts.iter().map(|(id, n)| (*id, n / 60)).collect();
        let used_minutes: Amounts = self.usage.tres.iter().map(|(id, n)| (*id, *n as u64 / 60)).collect();
        vec![
            format!(
                "ClusterName={} Account={} UserName={user} Partition={} Priority={} ID={}",
                world.cluster,
                own.account,
                own.partition.as_deref().unwrap_or(""),
                self.tree.count(self.at, Count::Priority).unwrap_or(0),
                own.id
            ),
            format!(
                "SharesRaw/Norm/Level/Factor={}/{:.2}/{}/{:.2}",
                own.shares,
                self.share.norm_shares,
                self.share.level_shares.max(1),
                self.share.factor
            ),
            format!(
                "UsageRaw/Norm/Efctv={:.2}/{:.2}/{:.2}",
                self.usage.billing,
                self.share.norm_usage.unwrap_or(1.0),
                self.share.effective_usage
            ),
            format!(
                "ParentAccount={parent} Lft={} DefAssoc={}",
                self.tree.bounds(self.at).0,
                if own.is_default { "Yes" } else { "No" }
            ),
            format!(
                "GrpJobs={} GrpJobsAccrue={}",
                self.used(Count::GrpJobs),
                self.used(Count::GrpJobsAccrue)
            ),
            format!(
                "GrpSubmitJobs={} GrpWall={}({:.2})",
                self.used(Count::GrpSubmitJobs),
                self.limit(Count::GrpWall).map_or_else(|| "N".to_owned(), |limit| limit.to_string()),
                self.usage.wall / 60.0
            ),
            self.per_tres("GrpTRES", PerTres::GrpTres, Some(&self.usage.in_use)),
            self.per_tres("GrpTRESMins", PerTres::GrpTresMins, Some(&used_minutes)),
            self.per_tres(
                "GrpTRESRunMins",
                PerTres::GrpTresRunMins,
                Some(&seconds_to_minutes(&self.usage.committed)),
            ),
            self.per_job_limits(),
            self.per_tres("MaxTRESPJ", PerTres::MaxTres, None),
            self.per_tres("MaxTRESPN", PerTres::MaxTresPerNode, None),
            self.per_tres("MaxTRESMinsPJ", PerTres::MaxTresMins, None),
            format!(
                "MinPrioThresh={}",
                self.limit(Count::MinPrioThresh).map_or_else(String::new, |limit| limit.to_string())
            ),
        ]
    }

    fn limit(&self, which: Count) -> Option<u32> {
        self.tree.count(self.at, which)
    }

    fn in_use(&self, which: Count) -> u32 {
        match which {
            Count::GrpJobs | Count::MaxJobs => self.usage.running,
            Count::GrpSubmitJobs | Count::MaxSubmitJobs => self.usage.submitted,
            _ => 0,
        }
    }

    /// `5(1)`, or `N(1)` without a limit.
    fn used(&self, which: Count) -> String {
        let limit = self.limit(which).map_or_else(|| "N".to_owned(), |limit| limit.to_string());
        format!("{limit}({})", self.in_use(which))
    }

    fn per_job_limits(&self) -> String {
        let counted = |which: Count, name: &str| {
            let limit = self.limit(which).map(|limit| format!("{limit}({})", self.in_use(which)));
            format!("{name}={}", limit.unwrap_or_default())
        };
        format!(
            "{} {} {} MaxWallPJ={}",
            counted(Count::MaxJobs, "MaxJobs"),
            counted(Count::MaxJobsAccrue, "MaxJobsAccrue"),
            counted(Count::MaxSubmitJobs, "MaxSubmitJobs"),
            self.limit(Count::MaxWall).map_or_else(String::new, |limit| limit.to_string())
        )
    }

    /// Limits per resource; with usage every resource stands there, `N` where there is no limit.
    fn per_tres(&self, name: &str, which: PerTres, used: Option<&Amounts>) -> String {
        let limits = self.tree.amounts(self.at, which);
        let parts: Vec<String> = self
            .session
            .world
            .tres
            .iter()
            .filter_map(|tres| match (limits.get(&tres.id), used) {
                (None, None) => None,
                (Some(limit), None) => Some(format!("{}={limit}", tres.full_name())),
                (limit, Some(used)) => {
                    let limit = limit.map_or_else(|| "N".to_owned(), |limit| limit.to_string());
                    let used = used.get(&tres.id).copied().unwrap_or(0);
                    Some(format!("{}={limit}({used})", tres.full_name()))
                }
            })
            .collect();
        format!("{name}={}", parts.join(","))
    }
}
