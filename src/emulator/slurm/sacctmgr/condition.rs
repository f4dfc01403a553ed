//! Conditions of a command: which associations, accounts and users it is about.

use super::super::names::{add_names, signed_prefix};
use super::super::tree::Tree;
use super::super::world::Association;
use super::Session;
use super::word::Word;

/// Which associations.
#[derive(Debug, Default, Clone)]
pub(super) struct Condition {
    /// Accounts.
    pub(super) accounts: Option<Vec<String>>,
    /// Users; an empty list is every user and no account.
    pub(super) users: Option<Vec<String>>,
    /// Clusters.
    pub(super) clusters: Vec<String>,
    /// Ids.
    pub(super) ids: Vec<String>,
    /// Parent accounts.
    pub(super) parents: Vec<String>,
    /// Partitions.
    pub(super) partitions: Vec<String>,
    /// Default QOS.
    pub(super) default_qos: Vec<String>,
    /// QOS in the list.
    pub(super) qos: Vec<String>,
    /// Only users' default accounts.
    pub(super) only_defaults: bool,
    /// Deleted ones too.
    pub(super) with_deleted: bool,
    /// The lists of QOS as they are stored.
    pub(super) with_raw_qos: bool,
    /// What is below, too.
    pub(super) with_sub_accounts: bool,
    /// Nothing from parents.
    pub(super) without_parent_info: bool,
    /// No limits from parents.
    pub(super) without_parent_limits: bool,
}

fn holds(list: &[String], text: &str) -> bool {
    list.iter().any(|name| name.eq_ignore_ascii_case(text))
}

impl Condition {
    /// Positions of the associations that it names, in the order of the tree.
    pub(super) fn choose(&self, tree: &Tree<'_>) -> Vec<usize> {
        let all = 0..tree.list.len();
        let alive = |at: &usize| self.with_deleted || !tree.list[*at].deleted;
        if !self.with_sub_accounts && self.qos.is_empty() {
            return all.filter(|at| alive(at) && self.is(&tree.list[*at])).collect();
        }
        let mut below = vec![false; tree.list.len()];
        for at in all.clone() {
            below[at] = tree.parent[at].is_some_and(|above| below[above])
                || (self.is(&tree.list[at]) && self.has_qos(&tree.list[at]));
        }
        all.filter(|at| alive(at) && below[*at]).collect()
    }

    fn is(&self, association: &Association) -> bool {
        let user = association.user.as_deref().unwrap_or("");
        self.accounts.as_ref().is_none_or(|list| list.is_empty() || holds(list, &association.account))
            && self
                .users
                .as_ref()
                .is_none_or(|list| if list.is_empty() { !user.is_empty() } else { holds(list, user) })
            && (self.partitions.is_empty()
                || holds(&self.partitions, association.partition.as_deref().unwrap_or("")))
            && (self.ids.is_empty() || holds(&self.ids, &association.id.to_string()))
            && (self.parents.is_empty() || holds(&self.parents, association.parent.as_deref().unwrap_or("")))
            && (self.default_qos.is_empty()
                || association.default_qos.as_ref().is_some_and(|name| holds(&self.default_qos, name)))
            && (!self.only_defaults || association.is_default)
    }

    fn has_qos(&self, association: &Association) -> bool {
        self.qos.is_empty()
            || association.qos.iter().any(|name| holds(&self.qos, name))
            || association.delta_qos.iter().any(|(added, name)| *added && holds(&self.qos, name))
    }
}

impl Session<'_, '_> {
    /// Takes a word as a condition on associations; false when it is none.
    pub(super) fn association_condition(&mut self, condition: &mut Condition, word: &Word<'_>) -> bool {
        if word.is("Accounts", 2) || word.is("Acct", 4) {
            add_names(condition.accounts.get_or_insert_default(), word.value, false);
        } else if word.is("Ids", 1) || word.is("Associations", 2) {
            self.ids(&mut condition.ids, word.value);
        } else if word.is("Clusters", 1) {
            add_names(&mut condition.clusters, word.value, false);
        } else if word.is("DefaultQOS", 8) {
            return self.known_qos(&mut condition.default_qos, word.value, true);
        } else if word.is("Partitions", 3) {
            add_names(&mut condition.partitions, word.value, false);
        } else if word.is("Parents", 4) {
            add_names(&mut condition.parents, word.value, false);
        } else if word.is("QosLevel", 1) {
            return self.known_qos(&mut condition.qos, word.value, false);
        } else if word.is("Users", 1) {
            add_names(condition.users.get_or_insert_default(), word.value, false);
        } else {
            return false;
        }
        true
    }

    /// Ids; what is no number is refused.
    pub(super) fn ids(&mut self, ids: &mut Vec<String>, value: &str) {
        let mut given = Vec::new();
        add_names(&mut given, value, false);
        for id in given {
            let (number, rest) = signed_prefix(&id);
            if number == 0 && !rest.is_empty() {
                self.error(&format!("Invalid value for AssocId ({id})"));
                self.failed = true;
            } else {
                ids.push(id);
            }
        }
    }

    /// Names of QOS that exist; false with a complaint when one does not.
    fn known_qos(&mut self, list: &mut Vec<String>, value: &str, fails: bool) -> bool {
        for name in value.split(',').filter(|name| !name.is_empty()) {
            if self.world.qos_named(name).is_none() {
                self.bad_qos(name);
                self.failed |= fails;
                return false;
            }
            list.push(name.to_lowercase());
        }
        true
    }

    /// Slurm's complaint about a QOS that does not exist.
    pub(super) fn bad_qos(&mut self, name: &str) {
        let valid: Vec<&str> = self.world.qos.iter().map(|qos| qos.name.as_str()).collect();
        let text = format!("You gave a bad qos '{name}'. Valid QOS's are {}", valid.join(","));
        self.error(&text);
    }
}
