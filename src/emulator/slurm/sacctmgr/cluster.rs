//! `sacctmgr add|show|delete cluster`

use super::super::names::add_names;
use super::super::table::Cell;
use super::super::tres::Amounts;
use super::super::world::AdminLevel;
use super::Session;
use super::columns::Shows;
use super::listing::{Cells, Depth, text};
use super::word::Parts;

/// Protocol number that 22.05 registers with.
const RPC_VERSION: u32 = 9728;

impl Session<'_, '_> {
    /// `add cluster`
    pub(super) fn add_cluster(&mut self, words: &[String]) -> bool {
        let mut names = Vec::new();
        for word in Parts::conditions(words) {
            if !word.has_value || word.is("Names", 1) || word.is("Clusters", 3) {
                add_names(&mut names, word.value, false);
            } else {
                self.fail(&self.call.not_emulated(&format!("{} of a cluster", word.key)));
            }
        }
        if self.failed {
            return false;
        }
        if names.is_empty() {
            self.fail(" Need name of cluster to add.\n");
            return false;
        }
        let known = self.clusters();
        names.retain(|name| {
            let is_known = known.contains(name);
            if is_known {
                self.out.print(&format!(" This cluster {name} already exists.  Not adding.\n"));
            }
            !is_known
        });
        if names.is_empty() {
            return false;
        }
        self.out.print(" Adding Cluster(s)\n");
        for name in &names {
            self.out.print(&format!("  Name           = {name}\n"));
        }
        if !self.may(AdminLevel::Administrator) {
            self.fail(&format!(" Problem adding clusters: {}\n", super::DENIED));
            return false;
        }
        if self.committed() {
            self.world.other_clusters.extend(names);
        }
        true
    }

    /// `delete cluster`, of other clusters only.
    pub(super) fn delete_cluster(&mut self, words: &[String]) -> bool {
        let mut names = Vec::new();
        for word in Parts::conditions(words) {
            if !word.has_value || word.is("Names", 1) || word.is("Clusters", 3) {
                add_names(&mut names, word.value, false);
            } else {
                self.fail(&format!(" Unknown condition: {}\n Use keyword 'set' to modify value\n", word.raw));
            }
        }
        if names.is_empty() {
            self.fail(" No conditions given to remove, not executing.\n");
            return false;
        }
        if !self.may(AdminLevel::Administrator) {
            return self.denied();
        }
        if names.contains(&self.world.cluster) {
            self.fail(&self.call.not_emulated("removing the local cluster"));
            return false;
        }
        names.retain(|name| self.world.other_clusters.contains(name));
        if names.is_empty() {
            self.out.print(" Nothing deleted\n");
            return false;
        }
        self.out.print(" Deleting clusters...\n");
        for name in &names {
            self.out.print(&format!("  {name}\n"));
        }
        if self.committed() {
            self.world.other_clusters.retain(|name| !names.contains(name));
        }
        true
    }

    /// `show cluster`
    pub(super) fn list_clusters(&mut self, words: &[String]) -> bool {
        let (mut names, mut format, mut with_limits) = (Vec::new(), Vec::new(), true);
        for word in Parts::conditions(words) {
            if word.is_bare("WithDeleted", 5) || word.is_bare("WithFed", 5) {
            } else if word.is_bare("WOLimits", 3) {
                with_limits = false;
            } else if !word.has_value || word.is("Names", 1) || word.is("Clusters", 3) {
                add_names(&mut names, word.value, false);
            } else if word.is("Format", 2) {
                add_names(&mut format, word.value, false);
            } else {
                self.fail(&format!(" Unknown condition: {}\n Use keyword 'set' to modify value\n", word.raw));
                break;
            }
        }
        if self.failed {
            return false;
        }
        let mut usual = vec!["Cl,Controlh,Controlp,RPC"];
        if with_limits {
            usual.push("Fa,GrpJ,GrpTRES,GrpS,MaxJ,MaxTRES,MaxS,MaxW,QOS,DefaultQOS");
        }
        let format = Session::format_or(format, &usual);
        let Some(columns) = self.columns(&format, false) else { return false };
        let table = self.table(&columns);
        let mut clusters = self.clusters();
        clusters.sort();
        clusters.retain(|name| names.is_empty() || names.contains(name));
        let tree = self.world.tree();
        let cells = Cells { world: self.world, tree: &tree, depth: Depth::default() };
        for cluster in clusters {
            let is_local = cluster == self.world.cluster;
            let row: Vec<Cell> = columns
                .iter()
                .map(|(_, shows)| match shows {
                    Shows::Cluster => text(&cluster),
                    Shows::ControlHost => text(if is_local { self.world.control_host() } else { "" }),
                    Shows::ControlPort => {
                        Cell::Number(if is_local { self.world.control_port() } else { 0 }.to_string())
                    }
                    Shows::Rpc => Cell::Number(if is_local { RPC_VERSION } else { 0 }.to_string()),
                    Shows::Tres if is_local => text(&self.cluster_tres()),
                    Shows::NodeCount => Cell::Number(u32::from(is_local).to_string()),
                    Shows::ClusterNodes => Cell::text(
                        self.world.partitions.first().filter(|_| is_local).map(|p| p.nodes.as_str()),
                    ),
                    Shows::Classification => text(""),
                    Shows::Flags if is_local => text("MultipleSlurmd"),
                    Shows::Flags | Shows::Tres => text("None"),
                    other => cells.cell(0, *other),
                })
                .collect();
            table.row(&row, &mut self.out);
        }
        true
    }

    /// What the cluster has: the nodes of its partitions counted once, with billing of the default partition.
    fn cluster_tres(&self) -> String {
        let mut nodes: std::collections::BTreeMap<&str, &Amounts> = std::collections::BTreeMap::new();
        for partition in &self.world.partitions {
            nodes.insert(&partition.nodes, &partition.tres);
        }
        let mut total: Amounts = self.world.tres.iter().map(|tres| (tres.id, 0)).collect();
        for amounts in nodes.values() {
            for (id, count) in *amounts {
                *total.entry(*id).or_default() += count;
            }
        }
        if let Some(partition) = self.world.default_partition() {
            let billing = self.world.billable(&partition.name, &partition.tres) as u64;
            total.insert(super::super::tres::BILLING, billing);
        }
        self.world.tres.write(&total, super::super::tres::Units::Exact)
    }
}
