//! Changing associations, as slurmdbd does it: which lines it answers, what children are told, what is refused.

use super::super::limits::{Count, PerTres};
use super::super::names::pad;
use super::super::tree::Tree;
use super::super::tres::{Amounts, INFINITE};
use super::super::world::{AdminLevel, Association, World};
use super::Session;
use super::condition::Condition;
use super::request::{CLEAR, QosWord, Request};
use std::collections::{BTreeMap, BTreeSet};

/// What came of a modification.
pub(super) enum Modified {
    /// Lines to print; the change is in force.
    Lines(Vec<String>),
    /// Nothing fits, or nothing was left to change.
    Nothing,
    /// Refused and reported.
    Refused,
}

impl Request {
    /// True when slurmdbd finds something to change: numbers of 2^31 and more are silently dropped (22.05.8).
    fn says_something(&self) -> bool {
        let kept = |number: u32| number == CLEAR || number < 1 << 31;
        self.shares.is_some_and(kept)
            || self.counts.values().any(|number| kept(*number))
            || self.default_qos.is_some()
            || !self.tres.is_empty()
            || self.qos.is_some()
            || self.parent.is_some()
    }

    /// Puts the request into an association.
    pub(super) fn apply(&self, association: &mut Association) {
        match self.shares {
            Some(CLEAR) => association.shares = 1,
            Some(shares) if shares < 1 << 31 => association.shares = shares,
            _ => {}
        }
        for (which, number) in &self.counts {
            match *number {
                CLEAR => association.limits.set_count(*which, None),
                number if number < 1 << 31 => association.limits.set_count(*which, Some(number)),
                _ => {}
            }
        }
        for (which, amounts) in &self.tres {
            let merged = merged(association.limits.amounts(*which), amounts);
            association.limits.set_amounts(*which, merged);
        }
        if let Some(default) = &self.default_qos {
            association.default_qos.clone_from(default);
        }
        if let Some(change) = &self.qos {
            apply_qos(change, association);
        }
    }
}

/// The amounts after a request: listed resources are replaced, those at -1 are cleared, the others stay.
fn merged(current: Option<&Amounts>, request: &Amounts) -> Amounts {
    let mut amounts = current.cloned().unwrap_or_default();
    amounts.extend(request.iter().map(|(id, count)| (*id, *count)));
    amounts.retain(|_, count| *count != INFINITE);
    amounts
}

/// `qos=`, `qos+=` and `qos-=`: a list of its own is changed itself, otherwise the difference to the parent's is kept.
/// Next to a new list additions and removals come to nothing (22.05.8).
fn apply_qos(words: &[QosWord], association: &mut Association) {
    if words.iter().any(|word| !matches!(word, QosWord::Delta(..))) {
        let listed = words.iter().filter_map(|word| match word {
            QosWord::Is(name) => Some(name.clone()),
            _ => None,
        });
        association.qos = listed.collect();
        association.delta_qos.clear();
        return;
    }
    for word in words {
        let QosWord::Delta(added, name) = word else { continue };
        let had_list = !association.qos.is_empty();
        association.qos.retain(|known| known != name);
        if *added && had_list {
            association.qos.push(name.clone());
        }
        if association.qos.is_empty() {
            association.delta_qos.retain(|(_, known)| known != name);
            association.delta_qos.push((*added, name.clone()));
        } else {
            association.delta_qos.clear();
        }
    }
}

/// `C = lab        A = acc_leaf             U = alice    `
pub(super) fn user_line(cluster: &str, association: &Association) -> String {
    let account = pad(&association.account, 20);
    let user = pad(association.user.as_deref().unwrap_or(""), 9);
    let line = format!("C = {} A = {account} U = {user}", pad(cluster, 10));
    match &association.partition {
        Some(partition) => format!("{line} P = {partition}"),
        None => line,
    }
}

/// The same when it is removed: the account has half the room then.
pub(super) fn removed_line(cluster: &str, association: &Association) -> String {
    let Some(user) = &association.user else { return account_line(cluster, association) };
    let line = format!("C = {} A = {} U = {}", pad(cluster, 10), pad(&association.account, 10), pad(user, 9));
    match &association.partition {
        Some(partition) => format!("{line} P = {partition}"),
        None => line,
    }
}

fn account_line(cluster: &str, association: &Association) -> String {
    match &association.parent {
        Some(parent) => format!("C = {} A = {} of {parent}", pad(cluster, 10), association.account),
        None => format!("C = {} A = {}", pad(cluster, 10), association.account),
    }
}

/// What of a change reaches children that have no value of their own.
#[derive(Clone, Default)]
struct Reaching {
    default_qos: bool,
    counts: BTreeSet<Count>,
    tres: BTreeSet<PerTres>,
    qos: Option<Vec<QosWord>>,
}

impl Reaching {
    fn of(request: &Request, before: &Association, after: &Association) -> Reaching {
        let changed = |which: &&PerTres| before.limits.amounts(**which) != after.limits.amounts(**which);
        Reaching {
            default_qos: request.default_qos.is_some(),
            counts: request.counts.keys().filter(|which| which.is_inherited()).copied().collect(),
            tres: request.tres.keys().filter(|which| which.is_inherited()).filter(changed).copied().collect(),
            qos: request
                .qos
                .as_ref()
                .map(|words| words.iter().filter(|word| **word != QosWord::Inherited).cloned().collect()),
        }
    }

    /// What of it reaches this child; none when nothing does.
    fn at(&self, child: &Association) -> Option<Reaching> {
        let contradicts = |word: &QosWord| match word {
            QosWord::Delta(added, name) => child.delta_qos.contains(&(!added, name.clone())),
            QosWord::Is(_) | QosWord::Inherited => false,
        };
        let qos = self.qos.as_ref().filter(|_| child.qos.is_empty()).and_then(|words| {
            let left: Vec<QosWord> = words.iter().filter(|word| !contradicts(word)).cloned().collect();
            (words.is_empty() || !left.is_empty()).then_some(left)
        });
        let reaching = Reaching {
            default_qos: self.default_qos && child.default_qos.is_none(),
            counts: self
                .counts
                .iter()
                .filter(|which| child.limits.count(**which).is_none())
                .copied()
                .collect(),
            tres: self.tres.clone(),
            qos,
        };
        let some = reaching.default_qos
            || !reaching.counts.is_empty()
            || !reaching.tres.is_empty()
            || reaching.qos.is_some();
        some.then_some(reaching)
    }

    /// Lines of the users below an account that the change reaches.
    fn lines(&self, tree: &Tree<'_>, at: usize, cluster: &str, lines: &mut Vec<String>) {
        let mut child = at + 1;
        while child < tree.end[at] {
            let association = &tree.list[child];
            if !association.deleted
                && let Some(reaching) = self.at(association)
            {
                if association.user.is_some() {
                    lines.push(user_line(cluster, association));
                } else {
                    reaching.lines(tree, child, cluster, lines);
                }
            }
            child = tree.end[child];
        }
    }
}

impl World {
    /// Moves an account below another as its first child, with everything below it; false when it is there already.
    fn move_account(&mut self, account: &str, parent: &str) -> bool {
        let tree = self.tree();
        let (Some(at), Some(above)) = (tree.account(account), tree.account(parent)) else { return false };
        if at == above + 1 {
            return false;
        }
        let end = tree.end[at];
        let mut moved: Vec<Association> = self.associations.drain(at..end).collect();
        if let Some(root) = moved.first_mut() {
            root.parent = Some(parent.to_owned());
        }
        let above =
            self.associations.iter().position(|a| a.user.is_none() && !a.deleted && a.account == parent);
        let to = above.map_or(self.associations.len(), |above| above + 1);
        self.associations.splice(to..to, moved);
        true
    }

    /// Makes `parent` the parent of an account. A parent from below the account takes the account's place first.
    fn change_parent(&mut self, account: &str, parent: &str) -> bool {
        let tree = self.tree();
        let (Some(at), Some(new)) = (tree.account(account), tree.account(parent)) else { return false };
        if (at..tree.end[at]).contains(&new) {
            let Some(old) = self.associations[at].parent.clone() else { return false };
            if !self.move_account(parent, &old) {
                return false;
            }
        }
        self.move_account(account, parent)
    }
}

impl Session<'_, '_> {
    /// Changes the associations of a condition and answers slurmdbd's lines; nothing is in force when it is refused.
    pub(super) fn modify_associations(&mut self, condition: &Condition, request: &Request) -> Modified {
        if !self.may(AdminLevel::Operator) {
            let themselves =
                condition.users.as_deref() == Some(std::slice::from_ref(&self.world.acting_user));
            if !themselves {
                self.denied();
                return Modified::Refused;
            }
            if request.default_qos.is_none() {
                self.nothing_changed();
                return Modified::Nothing;
            }
        }
        if !request.says_something() {
            self.nothing_changed();
            return Modified::Nothing;
        }
        if !self.is_local(&condition.clusters) {
            return Modified::Nothing;
        }
        let mut condition = condition.clone();
        if condition.users.is_none() {
            condition.users = Some(vec![String::new()]);
        }
        let before = self.world.associations.clone();
        let chosen: Vec<u32> = {
            let tree = self.world.tree();
            condition.choose(&tree).into_iter().map(|at| tree.list[at].id).collect()
        };
        let lines = self.apply_to(&chosen, request);
        if lines.is_empty() {
            self.world.associations = before;
            return Modified::Nothing;
        }
        if !self.default_qos_allowed(&condition, request) {
            self.world.associations = before;
            return Modified::Refused;
        }
        Modified::Lines(lines)
    }

    /// Applies a request to associations by id, and answers slurmdbd's lines: one for each, and one for each user below
    /// an account whom the change reaches. Whether a child has a value of its own is looked up before the change.
    fn apply_to(&mut self, chosen: &[u32], request: &Request) -> Vec<String> {
        let cluster = self.world.cluster.clone();
        let before = self.world.associations.clone();
        let places: BTreeMap<u32, usize> = before.iter().enumerate().map(|(at, a)| (a.id, at)).collect();
        let mut answers = Vec::new();
        for id in chosen {
            let old = &before[places[id]];
            if let Some(parent) = &request.parent
                && old.user.is_none()
                && (old.account.eq_ignore_ascii_case(parent)
                    || !self.world.change_parent(&old.account, parent))
            {
                continue;
            }
            let at = match &request.parent {
                None => Some(places[id]),
                Some(_) => self.world.associations.iter().position(|a| a.id == *id),
            };
            let Some(at) = at else { continue };
            request.apply(&mut self.world.associations[at]);
            let reaching =
                old.user.is_none().then(|| Reaching::of(request, old, &self.world.associations[at]));
            answers.push((places[id], reaching));
        }
        let tree = Tree::new(&before);
        let mut lines = Vec::new();
        for (at, reaching) in answers {
            match reaching {
                None => lines.push(user_line(&cluster, &before[at])),
                Some(reaching) => {
                    lines.push(account_line(&cluster, &before[at]));
                    reaching.lines(&tree, at, &cluster, &mut lines);
                }
            }
        }
        lines
    }

    /// Checks, as sacctmgr does after the change, that every association of the condition may use its default QOS.
    fn default_qos_allowed(&mut self, condition: &Condition, request: &Request) -> bool {
        if request.default_qos.is_none() && request.qos.is_none() {
            return true;
        }
        let wanted = request.default_qos.as_ref().and_then(Option::as_ref);
        let mut looked_at = condition.clone();
        if looked_at.users.as_deref() == Some(&[String::new()]) {
            looked_at.users = None;
        }
        let cluster = self.world.cluster.clone();
        let mut without = Vec::new();
        let tree = self.world.tree();
        for at in looked_at.choose(&tree) {
            let association = &tree.list[at];
            let default = tree.default_qos(at);
            let needed = wanted.map(String::as_str).or(default);
            if needed.is_none_or(|needed| tree.qos(at).contains(&needed)) {
                continue;
            }
            let mut line = format!(
                "  DefQOS = {} C = {} A = {} ",
                pad(default.unwrap_or(""), 10),
                pad(&cluster, 10),
                pad(&association.account, 20)
            );
            if let Some(user) = &association.user {
                line.push_str(&format!("U = {}", pad(user, 9)));
                if let Some(partition) = &association.partition {
                    line.push_str(&format!(" P = {partition}"));
                }
            }
            without.push(line);
        }
        if without.is_empty() {
            return true;
        }
        self.out.complain(" These associations don't have access to their default qos.\n");
        self.out.complain(" Please give them access before they the default can be set to this.\n");
        for line in without {
            self.out.complain(&format!("{line}\n"));
        }
        false
    }

    fn nothing_changed(&mut self) {
        let text =
            "Request didn't affect anything or your user doesn't have privilege to perform this action";
        self.storage_complaint("acct_storage_p_modify_assocs", text);
    }

    /// Prints what came of a modification; false when the program fails.
    pub(super) fn report_modified(&mut self, modified: Modified, title: &str) -> bool {
        match modified {
            Modified::Lines(lines) => {
                self.out.print(&format!(" {title}...\n"));
                for line in lines {
                    self.out.print(&format!("  {line}\n"));
                }
                true
            }
            Modified::Nothing => {
                self.out.print(" Nothing modified\n");
                false
            }
            Modified::Refused => !self.failed,
        }
    }

    /// `RawUsage=0`: the controller throws away usage of accounts, or of users in accounts.
    pub(super) fn reset_usage(&mut self, condition: &Condition) -> bool {
        let accounts = condition.accounts.clone().unwrap_or_default();
        if accounts.is_empty() {
            self.error("An association name is required to remove usage");
            return false;
        }
        let cluster = self.world.cluster.clone();
        let mut clusters = condition.clusters.clone();
        if clusters.is_empty() {
            self.out.print(&format!("No cluster specified, resetting on local cluster {cluster}\n"));
            clusters.push(cluster);
        }
        if !self.agreed("Would you like to reset usage?") {
            return true;
        }
        for cluster in clusters {
            if cluster != self.world.cluster {
                self.error(&format!("Failed to find cluster {cluster} in database"));
                return false;
            }
            let Some(places) = self.places_to_reset(condition, &accounts, &cluster) else { return false };
            if !self.world.services.slurmctld {
                self.complain_about_missing_controller();
                return false;
            }
            if !self.may(AdminLevel::Administrator) {
                return false;
            }
            for at in places {
                self.world.reset_usage(at);
            }
        }
        true
    }

    /// slurmdbd has no address of a controller that is not up, and the client looks that up all the same.
    fn complain_about_missing_controller(&mut self) {
        for attempt in -4..=5 {
            self.error(&format!(
                "get_addr_info: getaddrinfo() failed: Name or service not known: No error, attempt number {attempt}"
            ));
        }
        self.error("get_addr_info: getaddrinfo() fAiled: Name or service not known");
        self.error("slurm_set_addr: Unable to resolve \"\"");
        self.error("slurm_get_port: Address family '0' not supported");
        self.error("Error connecting, bad data: family = 0, port = 0");
        let cluster = self.world.cluster.clone();
        self.error(&format!("update cluster: No error to {cluster} at (0)"));
    }

    fn places_to_reset(
        &mut self,
        condition: &Condition,
        accounts: &[String],
        cluster: &str,
    ) -> Option<Vec<usize>> {
        let users = condition.users.clone().unwrap_or_default();
        let names: Vec<Option<String>> =
            if users.is_empty() { vec![None] } else { users.into_iter().map(Some).collect() };
        let mut places = Vec::new();
        for user in &names {
            for account in accounts {
                let at = self.world.associations.iter().position(|a| {
                    !a.deleted
                        && a.account.eq_ignore_ascii_case(account)
                        && match (user, &a.user) {
                            (None, None) => true,
                            (Some(wanted), Some(have)) => wanted.eq_ignore_ascii_case(have),
                            _ => false,
                        }
                });
                match (at, user) {
                    (Some(at), _) => places.push(at),
                    (None, Some(user)) => {
                        self.error(&format!(
                            "Failed to find cluster {cluster} account {account} user {user} association in database"
                        ));
                        return None;
                    }
                    (None, None) => {
                        self.error(&format!(
                            "Failed to find cluster {cluster} account {account} association in database"
                        ));
                        return None;
                    }
                }
            }
        }
        Some(places)
    }
}
