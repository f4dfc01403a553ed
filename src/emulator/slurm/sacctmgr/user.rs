//! `sacctmgr add|show|modify|delete user`

use super::super::names::{add_names, begins_like, cut_and_pad, unquoted};
use super::super::table::Cell;
use super::super::world::{AdminLevel, Association, User};
use super::Session;
use super::account::{ASSOCIATIONS_ONLY, NO_CONDITIONS, empty};
use super::columns::Shows;
use super::condition::Condition;
use super::listing::{Cells, Depth, text};
use super::modify::{Modified, removed_line};
use super::request::Request;
use super::word::{Parts, Word};

/// Which users.
#[derive(Debug, Default)]
struct UserCondition {
    associations: Condition,
    admin_level: Option<AdminLevel>,
    default_accounts: Vec<String>,
    with_associations: bool,
    on_users: bool,
    on_associations: bool,
}

/// What users are to get.
#[derive(Debug, Default)]
struct UserRequest {
    admin_level: Option<AdminLevel>,
    default_account: Option<String>,
    associations: Request,
    on_user: bool,
    on_association: bool,
}

/// A new association on the way: user, account, partition, cluster.
struct NewUser {
    user: String,
    account: String,
    partition: Option<String>,
    cluster: String,
    is_default: bool,
}

fn level(text: &str) -> Option<AdminLevel> {
    let starts = |word: &str| begins_like(text, word, 1);
    if starts("None") {
        Some(AdminLevel::None)
    } else if starts("Operator") {
        Some(AdminLevel::Operator)
    } else if starts("SuperUser") || starts("Admin") {
        Some(AdminLevel::Administrator)
    } else {
        None
    }
}

impl Session<'_, '_> {
    fn user_condition(&mut self, words: &[Word<'_>], mut format: Option<&mut Vec<String>>) -> UserCondition {
        let mut condition = UserCondition::default();
        condition.associations.users = Some(Vec::new());
        for word in words {
            let associations = &mut condition.associations;
            if word.is_bare("WithAssoc", 5) {
                condition.with_associations = true;
            } else if word.is_bare("WithCoordinators", 5) {
            } else if word.is_bare("WithDeleted", 5) {
                associations.with_deleted = true;
            } else if word.is_bare("WithRawQOSLevel", 5) {
                associations.with_raw_qos = true;
            } else if word.is_bare("WOPLimits", 4) {
                associations.without_parent_limits = true;
            } else if !word.has_value || word.is("Names", 1) || word.is("Users", 1) {
                add_names(associations.users.get_or_insert_default(), word.value, false);
                condition.on_users = true;
            } else if word.is("AdminLevel", 2) {
                condition.admin_level = level(word.value);
                condition.on_users = true;
            } else if word.is("Clusters", 1) {
                add_names(&mut associations.clusters, word.value, false);
                condition.on_users = true;
            } else if word.is("DefaultAccount", 8) {
                add_names(&mut condition.default_accounts, word.value, false);
                condition.on_users = true;
            } else if word.is("Format", 1) {
                if let Some(format) = format.as_deref_mut() {
                    associations.only_defaults |= word.value.to_lowercase().contains("default");
                    add_names(format, word.value, false);
                }
            } else if self.association_condition(associations, word) {
                condition.on_associations = true;
            } else {
                self.fail(&format!(" Unknown condition: {}\n Use keyword 'set' to modify value\n", word.raw));
            }
        }
        condition
    }

    fn user_request(&mut self, words: &[Word<'_>]) -> UserRequest {
        let mut request = UserRequest::default();
        let mut sign = None;
        for word in words {
            sign = word.sign.or(sign);
            if !word.has_value {
                self.fail(&format!(" Bad format on {}: End your option with an '=' sign\n", word.raw));
            } else if word.is("AdminLevel", 2) {
                request.admin_level = level(word.value);
                request.on_user = true;
            } else if word.is("DefaultAccount", 8) {
                request.default_account = Some(unquoted(word.value, false));
                request.on_user = true;
            } else if word.is("RawUsage", 7) {
                if let Some(usage) = self.number(word.value, "RawUsage") {
                    request.associations.raw_usage = Some(usage);
                    request.on_association = true;
                }
            } else if self.association_setting(&mut request.associations, word, sign) {
                request.on_association = true;
            } else {
                self.fail(&format!(
                    " Unknown option: {}\n Use keyword 'where' to modify condition\n",
                    word.raw
                ));
            }
        }
        request
    }

    /// `add user`
    pub(super) fn add_user(&mut self, words: &[String]) -> bool {
        let mut condition = Condition { users: Some(Vec::new()), ..Condition::default() };
        let mut request = UserRequest::default();
        self.read_new_users(words, &mut condition, &mut request);
        if self.failed {
            return false;
        }
        let names = condition.users.clone().unwrap_or_default();
        if names.is_empty() {
            self.fail(" Need name of user to add.\n");
            return false;
        }
        if condition.clusters.is_empty() {
            condition.clusters = self.clusters();
        } else if !self.check_clusters(&mut condition.clusters) {
            return false;
        }
        let accounts = condition.accounts.clone().unwrap_or_default();
        if accounts.is_empty() {
            self.fail(" Need name of account to add user to.\n");
            return false;
        }
        let (users, new) = self.new_users(&names, &accounts, &condition, &request);
        if users.is_empty() && new.is_empty() {
            self.out.print(" Nothing new added.\n");
            return false;
        }
        if new.is_empty() {
            self.fail(" No associations or wckeys created.\n");
            return true;
        }
        self.announce_users(&users, &new, &request);
        if !self.may(AdminLevel::Operator) {
            self.fail(&format!(" Problem adding users: {}\n", super::DENIED));
            return false;
        }
        if self.committed() {
            self.put_users(users, new, &request);
        }
        true
    }

    fn read_new_users(&mut self, words: &[String], condition: &mut Condition, request: &mut UserRequest) {
        let mut sign = None;
        for word in words.iter().map(|word| Word::of(word)) {
            sign = word.sign.or(sign);
            if !word.has_value || word.is("Names", 1) || word.is("Users", 1) {
                add_names(condition.users.get_or_insert_default(), word.value, false);
            } else if word.is("AdminLevel", 2) {
                request.admin_level = level(word.value);
            } else if word.is("DefaultAccount", 8) {
                let account = unquoted(word.value, false);
                add_names(condition.accounts.get_or_insert_default(), &account, false);
                request.default_account = Some(account);
            } else if self.association_setting(&mut request.associations, &word, sign)
                || self.association_condition(condition, &word)
            {
                request.on_association = true;
            } else {
                self.fail(&format!(" Unknown option: {}\n", word.raw));
            }
        }
    }

    fn new_users(
        &mut self,
        names: &[String],
        accounts: &[String],
        condition: &Condition,
        request: &UserRequest,
    ) -> (Vec<User>, Vec<NewUser>) {
        let (mut users, mut new) = (Vec::new(), Vec::new());
        for (n, name) in names.iter().enumerate() {
            if name.is_empty() {
                self.fail(" No blank names are allowed when adding.\n");
                continue;
            }
            if !self.world.users.iter().any(|user| user.name.eq_ignore_ascii_case(name)) {
                let admin_level = request.admin_level.unwrap_or_default();
                users.push(User { name: name.clone(), admin_level });
            }
            for account in accounts {
                if !self.world.accounts.iter().any(|known| known.name.eq_ignore_ascii_case(account)) {
                    if n == 0 {
                        self.fail(&format!(
                            " This account '{account}' doesn't exist.\n        Contact your admin to add this \
                             account.\n"
                        ));
                    }
                    continue;
                }
                for cluster in &condition.clusters {
                    self.new_user(name, account, cluster, condition, request, &mut new);
                }
            }
        }
        (users, new)
    }

    fn new_user(
        &self,
        name: &str,
        account: &str,
        cluster: &str,
        condition: &Condition,
        request: &UserRequest,
        new: &mut Vec<NewUser>,
    ) {
        let partitions: Vec<Option<String>> = if condition.partitions.is_empty() {
            vec![None]
        } else {
            condition.partitions.iter().cloned().map(Some).collect()
        };
        for partition in partitions {
            let known = cluster == self.world.cluster
                && self.world.associations.iter().any(|a| {
                    !a.deleted
                        && a.account == account
                        && a.user.as_deref() == Some(name)
                        && a.partition == partition
                });
            if !known {
                new.push(NewUser {
                    user: name.to_owned(),
                    account: account.to_owned(),
                    partition,
                    cluster: cluster.to_owned(),
                    is_default: request.default_account.as_deref() == Some(account),
                });
            }
        }
    }

    fn announce_users(&mut self, users: &[User], new: &[NewUser], request: &UserRequest) {
        if !users.is_empty() {
            self.out.print(" Adding User(s)\n");
            for user in users {
                self.out.print(&format!("  {}\n", user.name));
            }
            if request.default_account.is_some() || request.admin_level.is_some() {
                self.out.print(" Settings =\n");
            }
            if let Some(account) = &request.default_account {
                self.out.print(&format!("  Default Account = {account}\n"));
            }
            if let Some(level) = request.admin_level {
                self.out.print(&format!("  Admin Level     = {}\n", level.name()));
            }
        }
        self.out.print(" Associations =\n");
        for new in new {
            let mut line = b"  U = ".to_vec();
            line.extend(cut_and_pad(&new.user, 9));
            line.extend(b" A = ");
            line.extend(cut_and_pad(&new.account, 10));
            line.extend(b" C = ");
            line.extend(cut_and_pad(&new.cluster, 10));
            if let Some(partition) = &new.partition {
                line.extend(b" P = ");
                line.extend(cut_and_pad(partition, 10));
            }
            line.push(b'\n');
            self.out.print_bytes(&line);
        }
        if request.on_association {
            self.out.print(" Non Default Settings\n");
            self.print_settings(&request.associations);
        }
    }

    fn put_users(&mut self, users: Vec<User>, new: Vec<NewUser>, request: &UserRequest) {
        self.world.users.extend(users);
        // slurmdbd puts neighbours of one account into the tree together, in their order (22.05.8).
        let mut together: Vec<Association> = Vec::new();
        for new in new {
            self.world.give_uid(&new.user);
            if new.cluster != self.world.cluster {
                continue;
            }
            let of_user = |a: &Association| !a.deleted && a.user.as_ref() == Some(&new.user);
            let has_default =
                self.world.associations.iter().chain(&together).any(|a| a.is_default && of_user(a));
            if new.is_default {
                self.world.clear_default_account(&new.user);
                together.iter_mut().filter(|a| of_user(a)).for_each(|a| a.is_default = false);
            }
            let mut association = Association {
                account: new.account.clone(),
                user: Some(new.user.clone()),
                partition: new.partition,
                shares: 1,
                is_default: new.is_default || !(has_default || request.default_account.is_some()),
                ..Association::default()
            };
            request.associations.apply(&mut association);
            if together.first().is_some_and(|first| first.account != association.account) {
                self.put_together(&mut together);
            }
            if !self.world.revive(&association) {
                together.push(association);
            }
        }
        self.put_together(&mut together);
    }

    /// Puts users of one account into the tree.
    fn put_together(&mut self, users: &mut Vec<Association>) {
        let users = std::mem::take(users);
        if let Some(account) = users.first().map(|first| first.account.clone()) {
            self.world.put_associations(Some(&account), users);
        }
    }

    /// `show user`
    pub(super) fn list_users(&mut self, words: &[String]) -> bool {
        let mut format = Vec::new();
        let mut condition = self.user_condition(&Parts::conditions(words), Some(&mut format));
        condition.with_associations |= self.with_associations;
        if self.failed {
            return false;
        }
        let mut usual = vec!["U,DefaultA,Ad"];
        if condition.with_associations {
            usual.push("Cl,Acc,Part,Share,Priority,MaxJ,MaxN,MaxCPUs,MaxS,MaxW,MaxCPUMins,QOS,DefaultQOS");
        } else if format.is_empty() {
            condition.associations.only_defaults = true;
        }
        let format = Session::format_or(format, &usual);
        if !condition.with_associations && condition.on_associations && !self.agreed(ASSOCIATIONS_ONLY) {
            return true;
        }
        let Some(columns) = self.columns(&format, false) else { return false };
        let table = self.table(&columns);
        let mut users: Vec<User> =
            self.world.users.iter().filter(|user| condition.is(user)).cloned().collect();
        users.sort_by(|a, b| a.name.cmp(&b.name));
        let tree = self.world.tree();
        let cells = Cells { world: self.world, tree: &tree, depth: Depth::of(&condition.associations) };
        let mut looked_at = condition.associations.clone();
        let defaults_known = condition.with_associations || looked_at.only_defaults;
        looked_at.only_defaults &= !condition.with_associations;
        let mut places: std::collections::HashMap<&str, Vec<usize>> = std::collections::HashMap::new();
        if self.is_local(&looked_at.clusters) && defaults_known {
            for at in looked_at.choose(&tree) {
                if let Some(user) = &tree.list[at].user {
                    places.entry(user).or_default().push(at);
                }
            }
        }
        for user in &users {
            let list = places.get(user.name.as_str()).map_or(&[][..], Vec::as_slice);
            let default =
                list.iter().find(|at| tree.list[**at].is_default).map(|at| tree.list[*at].account.as_str());
            let of_user = |shows: Shows| match shows {
                Shows::User => Some(text(&user.name)),
                Shows::AdminLevel => Some(text(user.admin_level.name())),
                Shows::DefaultAccount => Some(Cell::text(default)),
                _ => None,
            };
            let mut rows: Vec<Vec<Cell>> = Vec::new();
            if condition.with_associations && !list.is_empty() {
                for at in list {
                    let cell = |shows: Shows| of_user(shows).unwrap_or_else(|| cells.cell(*at, shows));
                    rows.push(columns.iter().map(|(_, shows)| cell(*shows)).collect());
                }
            } else {
                let cell = |shows: Shows| of_user(shows).unwrap_or_else(|| empty(shows));
                rows.push(columns.iter().map(|(_, shows)| cell(*shows)).collect());
            }
            for row in rows {
                table.row(&row, &mut self.out);
            }
        }
        true
    }

    /// `modify user`
    pub(super) fn modify_user(&mut self, words: &[String]) -> bool {
        let parts = Parts::of(words);
        let condition = self.user_condition(&parts.conditions, None);
        let request = self.user_request(&parts.settings);
        if self.failed {
            return false;
        }
        if !request.on_user && !request.on_association {
            self.fail(" You didn't give me anything to set\n");
            return false;
        }
        if !condition.on_users && !condition.on_associations && !self.agreed(NO_CONDITIONS) {
            return true;
        }
        if let Some(usage) = request.associations.raw_usage {
            if condition.associations.accounts.is_none() {
                self.error("An account must be specified");
                return false;
            }
            if usage == 0 {
                return self.reset_usage(&condition.associations);
            }
            self.error("Raw usage can only be set to 0 (zero)");
            return false;
        }
        let before = (self.world.users.clone(), self.world.associations.clone());
        let (mut done, mut changed) = (true, false);
        if request.on_user {
            if condition.on_associations && !condition.on_users {
                self.fail(" There was a problem with your 'where' options.\n");
                done = false;
            } else {
                done &= self.modify_users_themselves(&condition, &request, &mut changed);
            }
        }
        if request.on_association {
            let modified = self.modify_associations(&condition.associations, &request.associations);
            changed |= matches!(modified, Modified::Lines(_));
            done &= self.report_modified(modified, "Modified user associations");
        }
        if changed && !self.committed() {
            (self.world.users, self.world.associations) = before;
        }
        done
    }

    fn modify_users_themselves(
        &mut self,
        condition: &UserCondition,
        request: &UserRequest,
        changed: &mut bool,
    ) -> bool {
        if !self.may(AdminLevel::Operator) {
            return self.denied();
        }
        if request.admin_level.is_some() && !self.may(AdminLevel::Administrator) {
            self.error("You must be a super user to modify a users admin level");
            self.fail(&format!(" Error with request: {}\n", super::DENIED));
            return false;
        }
        let mut names: Vec<String> =
            self.world.users.iter().filter(|user| condition.is(user)).map(|user| user.name.clone()).collect();
        names.sort();
        if names.is_empty() {
            return self.report_modified(Modified::Nothing, "");
        }
        if let Some(account) = request.default_account.as_ref().filter(|account| !account.is_empty()) {
            let without: Vec<String> = names
                .iter()
                .filter(|name| self.world.user_association(name, account).is_none())
                .cloned()
                .collect();
            if !without.is_empty() {
                self.out.print(&format!(
                    " Can't modify because these users aren't associated with new default account '{account}'...\n"
                ));
                for name in without {
                    self.out.print(&format!("  U = {name} C = {}\n", self.world.cluster));
                }
                self.failed = true;
                return false;
            }
            for name in &names {
                self.world.clear_default_account(name);
                for a in &mut self.world.associations {
                    a.is_default |= !a.deleted && a.account == *account && a.user.as_ref() == Some(name);
                }
            }
        }
        for user in self.world.users.iter_mut().filter(|user| names.contains(&user.name)) {
            user.admin_level = request.admin_level.unwrap_or(user.admin_level);
        }
        *changed = true;
        self.report_modified(Modified::Lines(names), "Modified users")
    }

    /// `delete user`
    pub(super) fn delete_user(&mut self, words: &[String]) -> bool {
        let condition = self.user_condition(&Parts::conditions(words), None);
        if !condition.on_users && !condition.on_associations {
            self.fail(" No conditions given to remove, not executing.\n");
            return false;
        }
        if self.failed {
            return false;
        }
        if !self.may(AdminLevel::Operator) {
            return self.denied();
        }
        if condition.on_associations || !condition.associations.clusters.is_empty() {
            let places = if self.is_local(&condition.associations.clusters) {
                condition.associations.choose(&self.world.tree())
            } else {
                Vec::new()
            };
            return self.delete_places(places, "Deleting user associations");
        }
        let mut names: Vec<String> =
            self.world.users.iter().filter(|user| condition.is(user)).map(|user| user.name.clone()).collect();
        names.sort();
        if names.is_empty() {
            self.out.print(" Nothing deleted\n");
            return false;
        }
        let places: Vec<usize> = (0..self.world.associations.len())
            .filter(|at| self.world.associations[*at].user.as_ref().is_some_and(|user| names.contains(user)))
            .collect();
        if self.refuse_running(&places) {
            return false;
        }
        self.out.print(" Deleting users...\n");
        for name in &names {
            self.out.print(&format!("  {name}\n"));
        }
        if self.committed() {
            self.world.users.retain(|user| !names.contains(&user.name));
            self.world.remove_associations(&places);
        }
        true
    }

    /// Removes associations at these places, and users who then have none; false when there are none or jobs run.
    pub(super) fn delete_places(&mut self, places: Vec<usize>, title: &str) -> bool {
        if places.is_empty() {
            self.out.print(" Nothing deleted\n");
            return false;
        }
        if self.refuse_running(&places) {
            return false;
        }
        self.out.print(&format!(" {title}...\n"));
        let mut users: Vec<String> = Vec::new();
        for at in &places {
            let association = &self.world.associations[*at];
            let text = removed_line(&self.world.cluster, association);
            users.extend(association.user.clone());
            self.out.print(&format!("  {text}\n"));
        }
        let before = (self.world.users.clone(), self.world.associations.clone());
        self.world.remove_associations(&places);
        users.sort();
        users.dedup();
        users.retain(|user| {
            !self.world.associations.iter().any(|a| !a.deleted && a.user.as_ref() == Some(user))
        });
        if !users.is_empty() {
            self.out.print(" Deleting users (No Associations)...\n");
            for user in &users {
                self.out.print(&format!("  {user}\n"));
            }
            self.world.users.retain(|user| !users.contains(&user.name));
        }
        if !self.committed() {
            (self.world.users, self.world.associations) = before;
        }
        true
    }

    /// True, with slurmdbd's list of them, when jobs of these associations or of any below are not over.
    pub(super) fn refuse_running(&mut self, places: &[usize]) -> bool {
        let tree = self.world.tree();
        let ids: std::collections::HashSet<u32> =
            places.iter().flat_map(|at| tree.list[*at..tree.end[*at]].iter().map(|a| a.id)).collect();
        let lines: Vec<String> = self
            .world
            .jobs
            .iter()
            .filter(|job| job.end == 0 && ids.contains(&job.association))
            .map(|job| {
                format!(
                    "  JobID = {:<10} C = {:<10} A = {:<10} U = {:<9}",
                    job.id, self.world.cluster, job.account, job.user
                )
            })
            .collect();
        if lines.is_empty() {
            return false;
        }
        self.fail(" Error with request: Job(s) active, cancel job(s) before remove\n");
        for line in lines {
            self.out.complain(&format!("{line}\n"));
        }
        true
    }
}

impl UserCondition {
    fn is(&self, user: &User) -> bool {
        let names = self.associations.users.as_deref().unwrap_or(&[]);
        (names.is_empty() || names.iter().any(|name| name.eq_ignore_ascii_case(&user.name)))
            && self.admin_level.is_none_or(|level| level == user.admin_level)
    }
}
