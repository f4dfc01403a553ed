//! `sacctmgr show associations`

use super::super::names::add_names;
use super::super::table::Cell;
use super::super::tree::Tree;
use super::Session;
use super::columns::Shows;
use super::condition::Condition;
use super::listing::{Cells, Depth};
use super::word::{Parts, Word};
use std::collections::HashMap;

impl Session<'_, '_> {
    /// `show associations`
    pub(super) fn list_associations(&mut self, words: &[String]) -> bool {
        let mut condition = Condition::default();
        let mut format = Vec::new();
        let mut tree_of_names = false;
        for word in Parts::conditions(words) {
            if word.is_bare("Tree", 4) {
                tree_of_names = true;
            } else {
                self.listing_condition(&mut condition, &mut format, &word);
            }
        }
        if self.failed {
            return false;
        }
        let mut usual = vec!["Cluster,Account,User,Part"];
        if !condition.without_parent_limits {
            usual.push(
                "Share,Priority,GrpJ,GrpTRES,GrpS,GrpWall,GrpTRESMins,MaxJ,MaxTRES,MaxTRESPerN,MaxS,MaxW,MaxTRESMins,\
                 QOS,DefaultQOS,GrpTRESRunMins",
            );
        }
        let format = Session::format_or(format, &usual);
        let Some(columns) = self.columns(&format, tree_of_names) else { return false };
        let table = self.table(&columns);
        if !self.is_local(&condition.clusters) {
            return true;
        }
        let tree = self.world.tree();
        let chosen = condition.choose(&tree);
        let shown = if condition.without_parent_info {
            flat(&tree, chosen)
        } else {
            tree.shown(&chosen, &self.world.cluster)
        };
        let cells = Cells { world: self.world, tree: &tree, depth: Depth::of(&condition) };
        let mut names = TreeNames::default();
        for at in shown {
            let row: Vec<Cell> = columns
                .iter()
                .map(|(_, shows)| {
                    if tree_of_names && *shows == Shows::Account {
                        Cell::Text(names.of(&tree, at))
                    } else {
                        cells.cell(at, *shows)
                    }
                })
                .collect();
            table.row(&row, &mut self.out);
        }
        true
    }

    fn listing_condition(&mut self, condition: &mut Condition, format: &mut Vec<String>, word: &Word<'_>) {
        if word.is_bare("OnlyDefaults", 2) {
            condition.only_defaults = true;
        } else if word.is_bare("WithDeleted", 5) {
            condition.with_deleted = true;
        } else if word.is_bare("WithRawQOSLevel", 5) {
            condition.with_raw_qos = true;
        } else if word.is_bare("WithSubAccounts", 5) {
            condition.with_sub_accounts = true;
        } else if word.is_bare("WOPInfo", 4) {
            condition.without_parent_info = true;
        } else if word.is_bare("WOPLimits", 4) || word.is_bare("WOLimits", 3) {
            condition.without_parent_limits = true;
        } else if !word.has_value || word.is("Ids", 1) || word.is("Associations", 2) {
            self.ids(&mut condition.ids, word.value);
        } else if word.is("Format", 1) {
            add_names(format, word.value, false);
        } else if !self.association_condition(condition, word) || self.failed {
            self.fail(&format!(" Unknown condition: {}\n", word.raw));
        }
    }
}

/// The order without parents: users first, then accounts, each in the order of the tree.
pub(super) fn flat(tree: &Tree<'_>, chosen: Vec<usize>) -> Vec<usize> {
    let (users, accounts): (Vec<usize>, Vec<usize>) =
        chosen.into_iter().partition(|at| tree.list[*at].user.is_some());
    users.into_iter().chain(accounts).collect()
}

/// Names of accounts, indented by one blank for each level that has been shown already.
#[derive(Default)]
pub(super) struct TreeNames {
    shown: HashMap<String, usize>,
}

impl TreeNames {
    /// The indented name of an association's account.
    pub(super) fn of(&mut self, tree: &Tree<'_>, at: usize) -> String {
        let association = &tree.list[at];
        let parent = match &association.user {
            Some(_) => Some(association.account.as_str()),
            None => association.parent.as_deref(),
        };
        let indent = parent.and_then(|parent| self.shown.get(parent)).map_or(0, |indent| indent + 1);
        if association.user.is_none() {
            let indent = *self.shown.entry(association.account.clone()).or_insert(indent);
            return format!("{}{}", " ".repeat(indent), association.account);
        }
        format!("{}{}", " ".repeat(indent), association.account)
    }
}
