//! The tree of associations: parents, subtrees, what is inherited, and the order in which sacctmgr shows it.

use super::limits::{Count, PerTres};
use super::tres::Amounts;
use super::world::Association;
use std::collections::HashMap;

/// An index over associations that stand in the order of the tree.
pub(super) struct Tree<'a> {
    /// The associations.
    pub(super) list: &'a [Association],
    /// Position of each one's parent.
    pub(super) parent: Vec<Option<usize>>,
    /// Position after the last one of each subtree.
    pub(super) end: Vec<usize>,
    depth: Vec<usize>,
    accounts: HashMap<&'a str, usize>,
}

impl<'a> Tree<'a> {
    /// Builds the index in one pass.
    pub(super) fn new(list: &'a [Association]) -> Tree<'a> {
        let mut accounts: HashMap<&str, usize> = HashMap::with_capacity(list.len());
        for (at, association) in list.iter().enumerate() {
            if association.user.is_none()
                && (!association.deleted || !accounts.contains_key(association.account.as_str()))
            {
                accounts.insert(&association.account, at);
            }
        }
        let mut parent = Vec::with_capacity(list.len());
        let mut depth = Vec::with_capacity(list.len());
        for (at, association) in list.iter().enumerate() {
            let above = match (&association.user, &association.parent) {
                (Some(_), _) => accounts.get(association.account.as_str()).copied(),
                (None, Some(name)) => accounts.get(name.as_str()).copied(),
                (None, None) => None,
            };
            let above = above.filter(|above| *above < at);
            parent.push(above);
            depth.push(above.map_or(0, |above: usize| depth[above] + 1));
        }
        let mut end: Vec<usize> = (1..=list.len()).collect();
        for at in (0..list.len()).rev() {
            if let Some(above) = parent[at] {
                end[above] = end[above].max(end[at]);
            }
        }
        Tree { list, parent, end, depth, accounts }
    }

    /// Position of an account.
    pub(super) fn account(&self, name: &str) -> Option<usize> {
        self.accounts.get(name).copied().filter(|at| !self.list[*at].deleted)
    }

    /// Position of the association of this id.
    pub(super) fn by_id(&self) -> HashMap<u32, usize> {
        self.list.iter().enumerate().map(|(at, association)| (association.id, at)).collect()
    }

    /// `lft` and `rgt` of the nested set that slurmdbd keeps.
    pub(super) fn bounds(&self, at: usize) -> (usize, usize) {
        let left = 2 * at + 1 - self.depth[at];
        (left, left + 2 * (self.end[at] - at) - 1)
    }

    /// Positions from this one up to the root.
    pub(super) fn upwards(&self, at: usize) -> impl Iterator<Item = usize> + '_ {
        std::iter::successors(Some(at), |at| self.parent[*at])
    }

    /// A number as it holds here: the own one, or for inherited limits the nearest above.
    pub(super) fn count(&self, at: usize, which: Count) -> Option<u32> {
        if !which.is_inherited() {
            return self.list[at].limits.count(which);
        }
        self.upwards(at).find_map(|at| self.list[at].limits.count(which))
    }

    /// Amounts as they hold here: for inherited limits each resource's own amount, or the nearest above.
    pub(super) fn amounts(&self, at: usize, which: PerTres) -> Amounts {
        let own = self.list[at].limits.amounts(which).cloned().unwrap_or_default();
        if !which.is_inherited() {
            return own;
        }
        let mut merged = own;
        for above in self.upwards(at).skip(1) {
            for (id, count) in self.list[above].limits.amounts(which).into_iter().flatten() {
                merged.entry(*id).or_insert(*count);
            }
        }
        merged
    }

    /// The default QOS as it holds here.
    pub(super) fn default_qos(&self, at: usize) -> Option<&'a str> {
        let list: &'a [Association] = self.list;
        self.upwards(at).find_map(|at| list[at].default_qos.as_deref())
    }

    /// The list of QOS as it holds here, in the order in which slurmdbd builds it.
    pub(super) fn qos(&self, at: usize) -> Vec<&'a str> {
        let (mut names, deltas) = self.raw_qos(at);
        for (added, name) in deltas {
            if !added {
                names.retain(|known| *known != name);
            } else if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// The inherited list and, apart from it, what the associations below it add and remove, from the top down.
    pub(super) fn raw_qos(&self, at: usize) -> (Vec<&'a str>, Vec<(bool, &'a str)>) {
        let list: &'a [Association] = self.list;
        let mut path = Vec::new();
        let mut names = Vec::new();
        for here in self.upwards(at) {
            path.push(here);
            if !list[here].qos.is_empty() {
                names = list[here].qos.iter().map(String::as_str).collect();
                break;
            }
        }
        let mut deltas: Vec<(bool, &str)> = Vec::new();
        if list[at].qos.is_empty() {
            for here in path.into_iter().rev() {
                for (added, name) in &list[here].delta_qos {
                    deltas.retain(|known| *known != (*added, name.as_str()));
                    deltas.push((*added, name));
                }
            }
        }
        (names, deltas)
    }

    /// These positions (in order) as sacctmgr shows them: below each account its users, then its sub-accounts, each by
    /// name; what has no parent among them comes at the top.
    pub(super) fn shown(&self, chosen: &[usize], cluster: &str) -> Vec<usize> {
        let among: HashMap<usize, usize> = chosen.iter().enumerate().map(|(n, at)| (*at, n)).collect();
        let mut children: Vec<Vec<usize>> = vec![Vec::new(); chosen.len()];
        let mut top = Vec::new();
        for (n, at) in chosen.iter().enumerate() {
            match self.parent[*at].and_then(|above| among.get(&above)) {
                Some(above) => children[*above].push(n),
                None => top.push(n),
            }
        }
        let key = |n: &usize| {
            let association = &self.list[chosen[*n]];
            let name = match (&association.user, self.parent[chosen[*n]]) {
                (_, None) => cluster,
                (Some(user), _) => user.as_str(),
                (None, _) => association.account.as_str(),
            };
            (association.user.is_none(), name)
        };
        for siblings in children.iter_mut().chain([&mut top]) {
            siblings.sort_by(|a, b| key(a).cmp(&key(b)));
        }
        let mut order = Vec::with_capacity(chosen.len());
        let mut waiting: Vec<usize> = top.into_iter().rev().collect();
        while let Some(n) = waiting.pop() {
            order.push(chosen[n]);
            waiting.extend(children[n].iter().rev());
        }
        order
    }
}

/// Accounts already shown, with their indentation: below a shown parent a name stands one blank further in.
#[derive(Default)]
pub(super) struct TreeNames {
    blanks: HashMap<String, usize>,
}

impl TreeNames {
    /// The name of an account, or of the account of a user, as it stands in the tree.
    pub(super) fn text(&mut self, account: &str, user: Option<&str>, parent: Option<&str>) -> String {
        let above = if user.is_some() { Some(account) } else { parent };
        let blanks = above.and_then(|above| self.blanks.get(above)).map_or(0, |blanks| blanks + 1);
        let blanks = match user {
            Some(_) => blanks,
            None => *self.blanks.entry(account.to_owned()).or_insert(blanks),
        };
        format!("{}{account}", " ".repeat(blanks))
    }
}
