//! Cells of an association in a table, and the lists that are no associations: resources, runaway jobs, configuration.

use super::super::configuration;
use super::super::limits::PerTres;
use super::super::names::add_names;
use super::super::table::{Cell, Column, Table};
use super::super::times::{self, TimeStyle};
use super::super::tree::Tree;
use super::super::tres::{Amounts, CPU, MEM, NODE, TresTable, Units};
use super::super::world::{AdminLevel, SHARES_OF_PARENT, World};
use super::Session;
use super::columns::Shows;
use super::condition::Condition;
use super::word::Parts;

/// Options of a list that say how much of the parents is shown.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Depth {
    /// Nothing from parents.
    pub(super) own_info_only: bool,
    /// No limits from parents.
    pub(super) own_limits_only: bool,
    /// The lists of QOS as they are stored.
    pub(super) raw_qos: bool,
}

impl Depth {
    /// What a condition asks for.
    pub(super) fn of(condition: &Condition) -> Depth {
        Depth {
            own_info_only: condition.without_parent_info,
            own_limits_only: condition.without_parent_limits || condition.without_parent_info,
            raw_qos: condition.with_raw_qos,
        }
    }
}

/// What the cells of associations are made from.
pub(super) struct Cells<'a> {
    /// The world.
    pub(super) world: &'a World,
    /// Its tree.
    pub(super) tree: &'a Tree<'a>,
    /// How much of the parents is shown.
    pub(super) depth: Depth,
}

/// Text.
pub(super) fn text(text: &str) -> Cell {
    Cell::Text(text.to_owned())
}

/// Amounts of a limit, written as sacctmgr writes them.
pub(super) fn amounts(table: &TresTable, amounts: Option<&Amounts>) -> Cell {
    text(&amounts.map_or_else(String::new, |amounts| table.write(amounts, Units::Exact)))
}

/// The amount of one resource in a limit.
pub(super) fn one_of(amounts: Option<&Amounts>, id: u32) -> Cell {
    Cell::number(amounts.and_then(|amounts| amounts.get(&id)))
}

/// Minutes as a time, or a blank.
pub(super) fn minutes(number: Option<u32>) -> Cell {
    number.map_or(Cell::Blank, |number| Cell::Number(times::write_minutes(u64::from(number))))
}

impl Cells<'_> {
    /// The cell of an association.
    pub(super) fn cell(&self, at: usize, shows: Shows) -> Cell {
        let association = &self.tree.list[at];
        let (left, right) = self.tree.bounds(at);
        match shows {
            Shows::Account => text(&association.account),
            Shows::User => Cell::text(association.user.as_deref()),
            Shows::Cluster => text(&self.world.cluster),
            Shows::Partition => Cell::text(association.partition.as_deref()),
            Shows::Id => Cell::Number(association.id.to_string()),
            Shows::Left => Cell::Number(left.to_string()),
            Shows::Right => Cell::Number(right.to_string()),
            Shows::ParentId => Cell::Number(self.parent_id(at).to_string()),
            Shows::ParentName if self.depth.own_info_only => Cell::Blank,
            Shows::ParentName => Cell::text(association.parent.as_deref()),
            Shows::Fairshare if association.shares == SHARES_OF_PARENT => text("parent"),
            Shows::Fairshare => Cell::Number(association.shares.to_string()),
            Shows::Count(which) | Shows::CountOrPerUser(which, _) => Cell::number(self.count(at, which)),
            Shows::Minutes(which) => minutes(self.count(at, which)),
            Shows::TresLimit(which) => amounts(&self.world.tres, Some(&self.amounts(at, which))),
            Shows::CpuOf(which) => one_of(Some(&self.amounts(at, which)), CPU),
            Shows::MemOf(which) => one_of(Some(&self.amounts(at, which)), MEM),
            Shows::NodeOf(which) => one_of(Some(&self.amounts(at, which)), NODE),
            Shows::DefaultQos => text(self.default_qos(at).unwrap_or("")),
            Shows::Qos => text(&self.qos(at)),
            Shows::QosRaw => text(&self.qos_ids(at)),
            Shows::NothingNumber
            | Shows::ControlPort
            | Shows::GraceTime
            | Shows::LimitFactor
            | Shows::NodeCount
            | Shows::Rpc
            | Shows::UsageFactor => Cell::Number("0".to_owned()),
            _ => Cell::Blank,
        }
    }

    fn parent_id(&self, at: usize) -> u32 {
        if self.depth.own_info_only {
            return 0;
        }
        self.tree.parent[at].map_or(0, |above| self.tree.list[above].id)
    }

    fn count(&self, at: usize, which: super::super::limits::Count) -> Option<u32> {
        if self.depth.own_limits_only {
            return self.tree.list[at].limits.count(which);
        }
        self.tree.count(at, which)
    }

    fn amounts(&self, at: usize, which: PerTres) -> Amounts {
        if self.depth.own_limits_only {
            return self.tree.list[at].limits.amounts(which).cloned().unwrap_or_default();
        }
        self.tree.amounts(at, which)
    }

    fn default_qos(&self, at: usize) -> Option<&str> {
        if self.depth.own_limits_only {
            return self.tree.list[at].default_qos.as_deref();
        }
        self.tree.default_qos(at)
    }

    fn parts_of_qos(&self, at: usize) -> (Vec<&str>, Vec<(bool, &str)>) {
        let own = &self.tree.list[at];
        if self.depth.own_limits_only {
            let names = own.qos.iter().map(String::as_str).collect();
            return (names, own.delta_qos.iter().map(|(added, name)| (*added, name.as_str())).collect());
        }
        self.tree.raw_qos(at)
    }

    fn qos(&self, at: usize) -> String {
        let (mut names, deltas) = self.parts_of_qos(at);
        let mut shown: Vec<String> = Vec::new();
        if self.depth.raw_qos {
            shown.extend(
                deltas.iter().map(|(added, name)| format!("{}{name}", if *added { '+' } else { '-' })),
            );
        } else {
            for (added, name) in deltas {
                names.retain(|known| *known != name);
                if added {
                    names.push(name);
                }
            }
        }
        shown.extend(names.into_iter().map(str::to_owned));
        shown.sort_unstable();
        shown.join(",")
    }

    fn qos_ids(&self, at: usize) -> String {
        let id = |name: &str| self.world.qos_named(name).map_or(0, |qos| qos.id);
        let mut shown: Vec<String> = Vec::new();
        if self.depth.raw_qos {
            let (names, deltas) = self.parts_of_qos(at);
            shown.extend(
                deltas.iter().map(|(added, name)| format!("{}{}", if *added { '+' } else { '-' }, id(name))),
            );
            shown.extend(names.iter().map(|name| id(name).to_string()));
        } else {
            shown.extend(self.tree.qos(at).iter().map(|name| id(name).to_string()));
        }
        shown.sort_unstable();
        shown.join(",")
    }
}

impl Session<'_, '_> {
    /// A table with these columns; prints its titles unless `-n`.
    pub(super) fn table(&mut self, columns: &[(Column, Shows)]) -> Table<'static> {
        let columns = columns.iter().map(|(column, _)| column.clone()).collect();
        let table = Table { columns, layout: self.layout, separator: "|" };
        if self.header {
            table.header(&mut self.out);
        }
        table
    }

    /// The format that was asked for, or the usual one.
    pub(super) fn format_or(names: Vec<String>, usual: &[&str]) -> Vec<String> {
        if !names.is_empty() {
            return names;
        }
        let mut names = names;
        for part in usual {
            add_names(&mut names, part, false);
        }
        names
    }

    /// `show tres`
    pub(super) fn list_tres(&mut self, words: &[String]) -> bool {
        let (mut types, mut names, mut ids, mut format) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for word in Parts::conditions(words) {
            if word.is_bare("WithDeleted", 5) {
            } else if !word.has_value || word.is("Type", 2) {
                add_names(&mut types, word.value, false);
            } else if word.is("Names", 1) {
                add_names(&mut names, word.value, false);
            } else if word.is("Format", 1) {
                add_names(&mut format, word.value, false);
            } else if word.is("Ids", 1) {
                add_names(&mut ids, word.value, false);
            } else {
                self.fail(&format!(" Unknown condition: {}\n Use keyword 'set' to modify value\n", word.raw));
            }
        }
        if self.failed {
            return false;
        }
        let format = Session::format_or(format, &["Type,Name%15,ID"]);
        let Some(columns) = self.columns(&format, false) else { return false };
        let table = self.table(&columns);
        let holds = |list: &[String], text: &str| list.is_empty() || list.iter().any(|name| name == text);
        for tres in self.world.tres.iter() {
            let name = tres.name.as_deref();
            if !holds(&types, &tres.kind)
                || !holds(&names, name.unwrap_or(""))
                || !holds(&ids, &tres.id.to_string())
            {
                continue;
            }
            let cells: Vec<Cell> = columns
                .iter()
                .map(|(_, shows)| match shows {
                    Shows::Type => text(&tres.kind),
                    Shows::Name => text(name.unwrap_or("")),
                    Shows::Id => Cell::Number(tres.id.to_string()),
                    _ => Cell::Blank,
                })
                .collect();
            table.row(&cells, &mut self.out);
        }
        true
    }

    /// `show runawayjobs`: jobs without an end that the controller does not know; with `-i` they are ended.
    pub(super) fn list_runaway_jobs(&mut self, words: &[String]) -> bool {
        let (mut clusters, mut format) = (Vec::new(), Vec::new());
        for word in Parts::conditions(words) {
            if !word.has_value || word.is("Cluster", 1) {
                add_names(&mut clusters, word.value, false);
            } else if word.is("Format", 1) {
                add_names(&mut format, word.value, false);
            } else {
                self.fail(&format!(" Unknown condition: {}\n", word.raw));
            }
        }
        if !self.may(AdminLevel::Operator) {
            self.error("You must have an AdminLevel>=Operator to fix runaway jobs");
            return false;
        }
        let cluster = clusters.first().cloned().unwrap_or_else(|| self.world.cluster.clone());
        if !self.world.services.slurmctld {
            self.error(&format!(
                "Slurmctld running on cluster {cluster} is not up, can't check running jobs"
            ));
            return false;
        }
        let mut lost: Vec<usize> = (0..self.world.jobs.len())
            .filter(|at| {
                self.world.jobs[*at].runaway && self.world.jobs[*at].end == 0 && cluster == self.world.cluster
            })
            .collect();
        if lost.is_empty() {
            self.out.print(&format!("Runaway Jobs: No runaway jobs found on cluster {cluster}\n"));
            return true;
        }
        lost.sort_by_key(|at| self.world.jobs[*at].submit);
        self.out.print(
            "NOTE: Runaway jobs are jobs that don't exist in the controller but have a start time and no end time in \
             the database\n",
        );
        let format = Session::format_or(format, &["ID%-12,Name,Part,Cluster,State%10,Submit,Start,End"]);
        let Some(columns) = self.columns(&format, false) else { return false };
        let table = self.table(&columns);
        let (style, _) = self.call.time_style();
        for at in &lost {
            let cells: Vec<Cell> =
                columns.iter().map(|(_, shows)| runaway_cell(self.world, *at, *shows, &style)).collect();
            table.row(&cells, &mut self.out);
        }
        let question = "\nWould you like to fix these runaway jobs?\n(This will set the end time for each job to the \
                        latest out of the start, eligible, or submit times, and set the state to completed.\nOnce \
                        corrected, this will trigger the rollup to reroll usage from before the earliest submit time \
                        of all the runaway jobs.)\n\n";
        if self.agreed(question) {
            for at in lost {
                let job = &mut self.world.jobs[at];
                job.end = job.start.max(job.eligible).max(job.submit);
                job.state = super::super::job::JobState::Completed;
                job.runaway = false;
            }
        }
        true
    }

    /// `show configuration`, which answers even without slurmdbd.
    pub(super) fn show_config(&mut self) {
        let at = TimeStyle::iso(self.call.zone.clone()).write(self.call.now);
        self.out.print(&configuration::of_client(self.world, &at));
        if self.world.services.slurmdbd {
            self.out.print(&configuration::of_database(self.world));
        } else {
            let text = self.call.no_database(self.world) + &self.call.no_database_again();
            self.out.complain(&text);
        }
    }
}

fn runaway_cell(world: &World, at: usize, shows: Shows, style: &TimeStyle) -> Cell {
    let job = &world.jobs[at];
    match shows {
        Shows::Id => Cell::Number(job.id.to_string()),
        Shows::Name => text(&job.name),
        Shows::Partition => text(&job.partition),
        Shows::Cluster => text(&world.cluster),
        Shows::State => text(&job.state.to_string()),
        Shows::TimeStart => text(&style.write(job.start)),
        Shows::TimeEnd => text(&style.write(job.end)),
        Shows::TimeSubmit => text(&style.write(job.submit)),
        Shows::TimeEligible => text(&style.write(job.eligible)),
        _ => Cell::Blank,
    }
}
