//! `sacctmgr add|show|modify|delete account`

use super::super::names::{add_names, cut_and_pad, unquoted};
use super::super::table::Cell;
use super::super::world::{Account, AdminLevel, Association};
use super::Session;
use super::columns::Shows;
use super::condition::Condition;
use super::listing::{Cells, Depth, text};
use super::modify::Modified;
use super::request::Request;
use super::word::{Parts, Word};

/// Which accounts.
#[derive(Debug, Default)]
struct AccountCondition {
    associations: Condition,
    descriptions: Vec<String>,
    organizations: Vec<String>,
    with_associations: bool,
    /// A condition on accounts was given.
    on_accounts: bool,
    /// A condition on associations was given.
    on_associations: bool,
}

/// What accounts are to get.
#[derive(Debug, Default)]
struct AccountRequest {
    names: Vec<String>,
    clusters: Vec<String>,
    description: Option<String>,
    organization: Option<String>,
    associations: Request,
    /// Something of the account itself was given.
    on_account: bool,
    /// Something of its association was given.
    on_association: bool,
}

impl AccountCondition {
    fn names(&self) -> &[String] {
        self.associations.accounts.as_deref().unwrap_or(&[])
    }

    fn is(&self, account: &Account) -> bool {
        let holds = |list: &[String], text: &str| {
            list.is_empty() || list.iter().any(|name| name.eq_ignore_ascii_case(text))
        };
        holds(self.names(), &account.name)
            && holds(&self.descriptions, &account.description)
            && holds(&self.organizations, &account.organization)
    }
}

impl Session<'_, '_> {
    fn account_condition(
        &mut self,
        words: &[Word<'_>],
        mut format: Option<&mut Vec<String>>,
    ) -> AccountCondition {
        let mut condition = AccountCondition::default();
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
            } else if !word.has_value || word.is("Names", 1) || word.is("Accounts", 1) || word.is("Acct", 4) {
                add_names(associations.accounts.get_or_insert_default(), word.value, false);
                condition.on_accounts = true;
            } else if word.is("Descriptions", 1) {
                add_names(&mut condition.descriptions, word.value, false);
                condition.on_accounts = true;
            } else if word.is("Format", 1) {
                if let Some(format) = format.as_deref_mut() {
                    add_names(format, word.value, false);
                }
            } else if word.is("Organizations", 1) {
                add_names(&mut condition.organizations, word.value, false);
                condition.on_accounts = true;
            } else if self.association_condition(associations, word) {
                condition.on_associations = true;
            } else {
                self.fail(&format!(" Unknown condition: {}\n Use keyword 'set' to modify value\n", word.raw));
            }
        }
        condition
    }

    fn account_request(&mut self, words: &[Word<'_>], adding: bool) -> AccountRequest {
        let mut request = AccountRequest::default();
        let mut sign = None;
        for word in words {
            sign = word.sign.or(sign);
            if !word.has_value || word.is("Accounts", 1) || word.is("Names", 1) || word.is("Acct", 4) {
                if adding {
                    add_names(&mut request.names, word.value, false);
                } else {
                    self.fail(" Can't modify the name of an account\n");
                }
            } else if word.is("Clusters", 1) {
                if adding {
                    add_names(&mut request.clusters, word.value, false);
                } else {
                    self.fail(" Can't modify the cluster of an account\n");
                }
            } else if word.is("Description", 1) {
                request.description = Some(unquoted(word.value, false));
                request.on_account = true;
            } else if word.is("Organization", 1) {
                request.organization = Some(unquoted(word.value, false));
                request.on_account = true;
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

    /// `add account`
    pub(super) fn add_account(&mut self, words: &[String]) -> bool {
        let mut request = self.account_request(&Parts::conditions(words), true);
        if self.failed {
            return false;
        }
        if request.names.is_empty() {
            self.fail(" Need name of account to add.\n");
            return true;
        }
        if request.clusters.is_empty() {
            request.clusters = self.clusters();
        } else {
            let mut clusters = std::mem::take(&mut request.clusters);
            if !self.check_clusters(&mut clusters) {
                return false;
            }
            request.clusters = clusters;
        }
        let parent = request.associations.parent.get_or_insert_with(|| "root".to_owned()).clone();
        let (accounts, associations, blank) = self.new_accounts(&request, &parent);
        if accounts.is_empty() && associations.is_empty() {
            self.out.print(" Nothing new added.\n");
            return false;
        }
        if associations.is_empty() {
            self.fail(" No associations created.\n");
            return true;
        }
        self.announce_accounts(&request, &accounts, &associations);
        if !self.may(AdminLevel::Operator) {
            self.fail(&format!(" Problem adding accounts: {}\n", super::DENIED));
            return false;
        }
        if self.committed() {
            self.put_accounts(accounts, associations, &request, &parent);
        }
        !blank
    }

    /// What is new: accounts, and associations as account and cluster; and whether a blank name was refused.
    fn new_accounts(
        &mut self,
        request: &AccountRequest,
        parent: &str,
    ) -> (Vec<Account>, Vec<(String, String)>, bool) {
        let (mut accounts, mut associations, mut blank) = (Vec::new(), Vec::new(), false);
        for name in &request.names {
            if name.is_empty() {
                self.fail(" No blank names are allowed when adding.\n");
                blank = true;
                continue;
            }
            if !self.world.accounts.iter().any(|account| account.name.eq_ignore_ascii_case(name)) {
                let by_default = if parent == "root" { name } else { parent };
                accounts.push(Account {
                    name: name.clone(),
                    description: request.description.clone().unwrap_or_else(|| name.clone()),
                    organization: request.organization.clone().unwrap_or_else(|| by_default.to_owned()),
                });
            }
            for cluster in &request.clusters {
                let is_local = *cluster == self.world.cluster;
                if is_local && self.world.account_association(name).is_some() {
                    continue;
                }
                if is_local && self.world.account_association(parent).is_none() {
                    self.fail(&format!(
                        " Parent account '{parent}' doesn't exist on cluster {cluster}\n        Contact your admin to \
                         add this account.\n"
                    ));
                    continue;
                }
                associations.push((name.clone(), cluster.clone()));
            }
        }
        (accounts, associations, blank)
    }

    fn announce_accounts(
        &mut self,
        request: &AccountRequest,
        accounts: &[Account],
        associations: &[(String, String)],
    ) {
        if !accounts.is_empty() {
            self.out.print(" Adding Account(s)\n");
            for account in accounts {
                self.out.print(&format!("  {}\n", account.name));
            }
            let description = request.description.as_deref().unwrap_or("Account Name");
            let organization = request.organization.as_deref().unwrap_or("Parent/Account Name");
            self.out.print(&format!(
                " Settings\n  Description     = {description}\n  Organization    = {organization}\n"
            ));
        }
        self.out.print(" Associations\n");
        for (account, cluster) in associations {
            let mut line = b"  A = ".to_vec();
            line.extend(cut_and_pad(account, 10));
            line.extend(b" C = ");
            line.extend(cut_and_pad(cluster, 10));
            line.push(b'\n');
            self.out.print_bytes(&line);
        }
        if request.on_account || request.on_association {
            self.out.print(" Settings\n");
            self.print_settings(&request.associations);
        }
    }

    fn put_accounts(
        &mut self,
        accounts: Vec<Account>,
        associations: Vec<(String, String)>,
        request: &AccountRequest,
        parent: &str,
    ) {
        self.world.accounts.extend(accounts);
        let mut new = Vec::new();
        for (account, cluster) in associations {
            if cluster != self.world.cluster {
                continue;
            }
            let mut association =
                Association { account, parent: Some(parent.to_owned()), shares: 1, ..Association::default() };
            request.associations.apply(&mut association);
            if !self.world.revive(&association) {
                new.push(association);
            }
        }
        self.world.put_associations(Some(parent), new);
    }

    /// `show account`
    pub(super) fn list_accounts(&mut self, words: &[String]) -> bool {
        let mut format = Vec::new();
        let mut condition = self.account_condition(&Parts::conditions(words), Some(&mut format));
        condition.with_associations |= self.with_associations;
        if self.failed {
            return false;
        }
        let mut usual = vec!["Acc,Des,O"];
        if condition.with_associations {
            usual.push(
                "Cl,ParentN,U,Share,Priority,GrpJ,GrpN,GrpCPUs,GrpMEM,GrpS,GrpWall,GrpCPUMins,MaxJ,MaxN,MaxCPUs,MaxS,\
                 MaxW,MaxCPUMins,QOS,DefaultQOS",
            );
        }
        let format = Session::format_or(format, &usual);
        if !condition.with_associations && condition.on_associations && !self.agreed(ASSOCIATIONS_ONLY) {
            return true;
        }
        let Some(columns) = self.columns(&format, false) else { return false };
        let table = self.table(&columns);
        let mut chosen: Vec<Account> =
            self.world.accounts.iter().filter(|account| condition.is(account)).cloned().collect();
        chosen.sort_by(|a, b| a.name.cmp(&b.name));
        let tree = self.world.tree();
        let cells = Cells { world: self.world, tree: &tree, depth: Depth::of(&condition.associations) };
        let mut places: std::collections::HashMap<&str, Vec<usize>> = std::collections::HashMap::new();
        if condition.with_associations {
            let looked_at = Condition { accounts: None, ..condition.associations.clone() };
            for at in looked_at.choose(&tree) {
                places.entry(&tree.list[at].account).or_default().push(at);
            }
        }
        for account in &chosen {
            let of_account = |shows: Shows| match shows {
                Shows::Account => Some(text(&account.name)),
                Shows::Description => Some(text(&account.description)),
                Shows::Organization => Some(text(&account.organization)),
                _ => None,
            };
            match places.get(account.name.as_str()) {
                None => {
                    let row: Vec<Cell> = columns
                        .iter()
                        .map(|(_, shows)| of_account(*shows).unwrap_or_else(|| empty(*shows)))
                        .collect();
                    table.row(&row, &mut self.out);
                }
                Some(list) => {
                    for at in list {
                        let row: Vec<Cell> = columns
                            .iter()
                            .map(|(_, shows)| of_account(*shows).unwrap_or_else(|| cells.cell(*at, *shows)))
                            .collect();
                        table.row(&row, &mut self.out);
                    }
                }
            }
        }
        true
    }

    /// `modify account`
    pub(super) fn modify_account(&mut self, words: &[String]) -> bool {
        let parts = Parts::of(words);
        let condition = self.account_condition(&parts.conditions, None);
        let request = self.account_request(&parts.settings, false);
        if self.failed {
            return false;
        }
        if !request.on_account && !request.on_association {
            self.fail(" You didn't give me anything to set\n");
            return false;
        }
        if !condition.on_accounts && !condition.on_associations && !self.agreed(NO_CONDITIONS) {
            return true;
        }
        if let Some(usage) = request.associations.raw_usage {
            if usage == 0 {
                return self.reset_usage(&condition.associations);
            }
            self.error("Raw usage can only be set to 0 (zero)");
            return false;
        }
        let before = (self.world.accounts.clone(), self.world.associations.clone());
        let mut done = true;
        let mut changed = false;
        if request.on_account {
            if condition.on_associations && !condition.on_accounts {
                self.fail(" There was a problem with your 'where' options.\n");
                done = false;
            } else {
                let modified = self.modify_account_texts(&condition, &request);
                changed |= matches!(modified, Modified::Lines(_));
                done &= self.report_modified(modified, "Modified accounts");
            }
        }
        if request.on_association {
            done &= self.modify_account_associations(&condition, &request, &mut changed);
        }
        if changed && !self.committed() {
            (self.world.accounts, self.world.associations) = before;
        }
        done
    }

    fn modify_account_associations(
        &mut self,
        condition: &AccountCondition,
        request: &AccountRequest,
        changed: &mut bool,
    ) -> bool {
        if condition.on_accounts && !condition.on_associations && condition.associations.accounts.is_none() {
            self.fail(" There was a problem with your 'where' options.\n");
            return false;
        }
        if let Some(parent) = &request.associations.parent
            && !self.world.accounts.iter().any(|account| account.name.eq_ignore_ascii_case(parent))
        {
            self.fail(&format!(" Parent Account {parent} doesn't exist.\n"));
            return false;
        }
        let modified = self.modify_associations(&condition.associations, &request.associations);
        *changed |= matches!(modified, Modified::Lines(_));
        self.report_modified(modified, "Modified account associations")
    }

    fn modify_account_texts(&mut self, condition: &AccountCondition, request: &AccountRequest) -> Modified {
        if !self.may(AdminLevel::Operator) {
            self.denied();
            return Modified::Refused;
        }
        let mut names = Vec::new();
        for account in self.world.accounts.iter_mut().filter(|account| condition.is(account)) {
            if let Some(description) = &request.description {
                account.description.clone_from(description);
            }
            if let Some(organization) = &request.organization {
                account.organization.clone_from(organization);
            }
            names.push(account.name.clone());
        }
        names.sort();
        if names.is_empty() { Modified::Nothing } else { Modified::Lines(names) }
    }

    /// `delete account`
    pub(super) fn delete_account(&mut self, words: &[String]) -> bool {
        let condition = self.account_condition(&Parts::conditions(words), None);
        if !condition.on_accounts && !condition.on_associations {
            self.fail(" No conditions given to remove, not executing.\n");
            return false;
        }
        if self.failed {
            return false;
        }
        if condition.names().iter().any(|name| name.eq_ignore_ascii_case("root")) {
            self.fail(" You are not allowed to remove the root account.\n Use remove cluster instead.\n");
            return false;
        }
        if !self.may(AdminLevel::Operator) {
            return self.denied();
        }
        if condition.on_associations {
            let places = if self.is_local(&condition.associations.clusters) {
                condition.associations.choose(&self.world.tree())
            } else {
                Vec::new()
            };
            return self.delete_places(places, "Deleting account associations");
        }
        let mut names: Vec<String> = self
            .world
            .accounts
            .iter()
            .filter(|account| condition.is(account))
            .map(|a| a.name.clone())
            .collect();
        names.sort();
        if names.is_empty() {
            self.out.print(" Nothing deleted\n");
            return false;
        }
        let places: Vec<usize> = {
            let tree = self.world.tree();
            names.iter().filter_map(|name| tree.account(name)).collect()
        };
        if self.refuse_running(&places) {
            return false;
        }
        self.out.print(" Deleting accounts...\n");
        for name in &names {
            self.out.print(&format!("  {name}\n"));
        }
        if self.committed() {
            self.world.accounts.retain(|account| !names.contains(&account.name));
            self.world.remove_associations(&places);
        }
        true
    }
}

/// What is asked when conditions on associations are given for a list without them.
pub(super) const ASSOCIATIONS_ONLY: &str = "You requested options that are only valid when querying with the withassoc \
                                            option.\nAre you sure you want to continue?";
/// What is asked when everything would be changed.
pub(super) const NO_CONDITIONS: &str =
    "You didn't set any conditions with 'WHERE'.\nAre you sure you want to continue?";

/// What a column of associations shows in a list without them.
pub(super) fn empty(shows: Shows) -> Cell {
    match shows {
        Shows::Fairshare
        | Shows::Id
        | Shows::Left
        | Shows::Right
        | Shows::ParentId
        | Shows::CpuOf(_)
        | Shows::MemOf(_)
        | Shows::NodeOf(_)
        | Shows::CountOrPerUser(..)
        | Shows::NothingNumber => Cell::Number("0".to_owned()),
        Shows::Count(super::super::limits::Count::Priority) => Cell::Blank,
        Shows::Count(_) => Cell::Number("0".to_owned()),
        Shows::Minutes(_) => Cell::Number("00:00:00".to_owned()),
        _ => Cell::Blank,
    }
}
