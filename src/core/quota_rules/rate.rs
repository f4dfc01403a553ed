//! DataRobot's and local quotas: rules on the consumers of a resource.
//!
//! A consumer that is a deployment is an account with everything below it; a user is that user's associations in the resource's
//! account and below; a group is its members together. Default rules hold for every user of the resource's account that
//! has no policy of its own, each by itself. A group is counted as one in the windows; jobs at one time and the size of a job
//! Slurm can only limit for each member.

use std::collections::BTreeSet;

use super::{Ground, QuotaStanding, Verdict, wish};
use crate::core::association::JobLimit;
use crate::core::desired::Wish;
use crate::core::evaluate::Level;
use crate::core::exact::Exact;
use crate::core::name::{AccountName, SourceName, UserName};
use crate::core::policy::LimitType;
use crate::core::quota::{Consumer, ConsumerKind, RateQuota, Rule, RuleKind};
use crate::core::quota_map::{Member, RateMap};
use crate::core::time::Epoch;
use crate::core::tres::Tres;
use crate::core::windows::{Running, Stretch, Submission, submissions_again, submitted, use_again, used};

/// Who a rule is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    /// An account with everything below it.
    Account(AccountName),
    /// A user in an account and below.
    User(UserName, AccountName),
}

/// The resource's account; a finding where it has none.
pub(super) fn resource<'a>(
    source: &SourceName,
    quota: &RateQuota,
    map: &'a RateMap,
    verdict: &mut Verdict,
) -> Option<&'a AccountName> {
    let found = map.resources.get(&quota.resource_id);
    if found.is_none() {
        verdict.findings.push(format!(
            "quota {} of source {source}: its resource {} belongs to no account; name it in the source's resources",
            quota.id, quota.resource_id
        ));
    }
    found
}

/// Who a consumer is; an error text where the map does not say.
pub(super) fn targets(
    consumer: &Consumer,
    account: &AccountName,
    map: &RateMap,
) -> Result<BTreeSet<Target>, String> {
    let unknown =
        |what: &str| format!("consumer {} is no {what} here; name it in the source's maps", consumer.id);
    Ok(match consumer.kind {
        ConsumerKind::Deployment => {
            let found = map.resources.get(&consumer.id).ok_or_else(|| unknown("account"))?;
            BTreeSet::from([Target::Account(found.clone())])
        }
        ConsumerKind::User => {
            let found = map.users.get(&consumer.id).ok_or_else(|| unknown("user"))?;
            BTreeSet::from([Target::User(found.clone(), account.clone())])
        }
        ConsumerKind::UserGroup => {
            let members = map.groups.get(&consumer.id).ok_or_else(|| unknown("group"))?;
            let target = |member: &Member| match member {
                Member::Account(name) => Target::Account(name.clone()),
                Member::User(name) => Target::User(name.clone(), account.clone()),
            };
            members.iter().map(target).collect()
        }
    })
}

pub(super) fn judge(
    source: &SourceName,
    quota: &RateQuota,
    map: &RateMap,
    ground: &Ground<'_>,
    verdict: &mut Verdict,
) {
    let Some(account) = resource(source, quota, map, verdict) else { return };
    let mut groups: Vec<(BTreeSet<Target>, &[Rule])> = Vec::new();
    let mut special: BTreeSet<UserName> = BTreeSet::new();
    for policy in &quota.policies {
        match targets(&policy.consumer, account, map) {
            Ok(targets) => {
                special.extend(targets.iter().filter_map(|target| match target {
                    Target::User(user, _) => Some(user.clone()),
                    Target::Account(_) => None,
                }));
                groups.push((targets, &policy.rules));
            }
            Err(reason) => verdict.findings.push(format!("quota {} of source {source}: {reason}", quota.id)),
        }
    }
    if !quota.default_rules.is_empty() {
        let below = ground.tree.subtree(account);
        let users: BTreeSet<&UserName> =
            below.iter().flat_map(|a| a.users.iter().map(|user| &user.user)).collect();
        for user in users.into_iter().filter(|user| !special.contains(*user)) {
            groups
                .push((BTreeSet::from([Target::User(user.clone(), account.clone())]), &quota.default_rules));
        }
    }
    for (targets, rules) in groups {
        let scope = Scope::of(targets, ground);
        for rule in rules {
            scope.rule(source, quota, *rule, ground, verdict);
        }
    }
}

/// Targets with the rows that they are.
struct Scope {
    targets: BTreeSet<Target>,
    /// Accounts with everybody in them.
    accounts: BTreeSet<AccountName>,
    /// Users with the accounts in which they are meant.
    users: BTreeSet<(UserName, AccountName)>,
}

impl Scope {
    fn of(targets: BTreeSet<Target>, ground: &Ground<'_>) -> Scope {
        let (mut accounts, mut users) = (BTreeSet::new(), BTreeSet::new());
        for target in &targets {
            match target {
                Target::Account(top) => {
                    accounts.extend(ground.tree.subtree(top).iter().map(|account| account.account.clone()));
                }
                Target::User(user, top) => {
                    for account in ground.tree.subtree(top) {
                        if account.users.iter().any(|known| known.user == *user) {
                            users.insert((user.clone(), account.account.clone()));
                        }
                    }
                }
            }
        }
        Scope { targets, accounts, users }
    }

    fn has(&self, account: &str, user: &str) -> bool {
        self.accounts.iter().any(|name| name.as_str() == account)
            || self.users.iter().any(|(name, below)| name.as_str() == user && below.as_str() == account)
    }

    fn rule(
        &self,
        source: &SourceName,
        quota: &RateQuota,
        rule: Rule,
        ground: &Ground<'_>,
        verdict: &mut Verdict,
    ) {
        let (words, window) = (words(rule), rule.window.seconds());
        let judged = match rule.kind {
            RuleKind::Requests | RuleKind::Token if ground.lately.incomplete.is_some() => {
                let reason = ground.lately.incomplete.clone().unwrap_or_default();
                let places = self.places(&Wish::new(root(), source.clone(), String::new()));
                let accounts = places.into_iter().map(|wish| wish.account);
                verdict.undecided.extend(accounts.map(|account| (account, (source.clone(), reason.clone()))));
                return;
            }
            RuleKind::Requests => self.requests(rule.limit, window, ground),
            RuleKind::Token => self.tokens(rule.limit, window, ground),
            RuleKind::ConcurrentRequests | RuleKind::InputSequenceLength => Judged::Held,
        };
        let mut standing = QuotaStanding {
            account: self.account(),
            user: self.user(),
            source: source.clone(),
            quota: quota.id.clone(),
            rule: words.clone(),
            used: None,
            limit: Exact::whole(i128::from(rule.limit)),
            level: Level::Normal,
            back_earliest: None,
            back_running: None,
        };
        let base = wish(&root(), source, format!("quota {}: {words}", quota.id));
        match judged {
            Judged::Held => verdict.wishes.extend(self.places(&base).into_iter().map(|mut wish| {
                match (rule.kind, wish.user.is_some()) {
                    (RuleKind::InputSequenceLength, _) => {
                        let limit = [(Tres::billing(), rule.limit)].into();
                        wish.limits.insert(LimitType::MaxTRESMins, limit);
                    }
                    (_, true) => drop(wish.jobs.insert(JobLimit::MaxJobs, rule.limit)),
                    (_, false) => drop(wish.jobs.insert(JobLimit::GrpJobs, rule.limit)),
                }
                wish
            })),
            Judged::Rolling { used, stopped, earliest, running } => {
                standing.used = Some(used);
                if stopped {
                    standing.level = Level::Blocked;
                    (standing.back_earliest, standing.back_running) = (earliest, running);
                    let text = format!("{}; {}", base.text, until(earliest, running, ground.now)).into();
                    verdict.wishes.extend(self.places(&Wish { text, ..base }).into_iter().map(stopping));
                }
            }
        }
        if rule.kind == RuleKind::ConcurrentRequests
            && self.places(&wish(&root(), source, String::new())).len() > 1
        {
            verdict.findings.push(format!(
                "account {}: {words} of quota {} holds for each of the {} associations it is for: Slurm cannot count their \
                 jobs as one",
                standing.account,
                quota.id,
                self.places(&wish(&root(), source, String::new())).len()
            ));
        }
        verdict.standings.push(standing);
    }

    fn requests(&self, limit: u64, window_s: i64, ground: &Ground<'_>) -> Judged {
        let own = || {
            let all = ground.lately.submissions.iter();
            all.filter(|submission: &&Submission| self.has(&submission.account, &submission.user))
        };
        let count = submitted(own(), window_s, ground.now);
        let back = submissions_again(own(), window_s, limit, ground.now);
        let used = Exact::whole(i128::from(count));
        Judged::Rolling { used, stopped: count >= limit, earliest: back, running: back }
    }

    fn tokens(&self, limit: u64, window_s: i64, ground: &Ground<'_>) -> Judged {
        let own = || {
            let all = ground.lately.stretches.iter();
            all.filter(|stretch: &&Stretch| self.has(&stretch.account, &stretch.user))
        };
        let limit_s = u128::from(limit) * 60;
        let count = used(own(), window_s, ground.now);
        let back = |running| use_again(own(), window_s, limit_s, ground.now, running);
        let minutes = i128::try_from(count).ok().and_then(|count| Exact::fraction(count, 60));
        Judged::Rolling {
            used: minutes.unwrap_or(Exact::ZERO),
            stopped: count >= limit_s,
            earliest: back(Running::Ends),
            running: back(Running::GoesOn),
        }
    }

    /// A wish for each place where the rule is put.
    fn places(&self, base: &Wish) -> Vec<Wish> {
        let mut found = Vec::new();
        for target in &self.targets {
            match target {
                Target::Account(account) => found.push(Wish { account: account.clone(), ..base.clone() }),
                Target::User(user, _) => {
                    let own = self.users.iter().filter(|(name, _)| name == user);
                    found.extend(own.map(|(user, account)| Wish {
                        account: account.clone(),
                        user: Some(user.clone()),
                        ..base.clone()
                    }));
                }
            }
        }
        found
    }

    /// The account that a standing is shown with: of several the first.
    fn account(&self) -> AccountName {
        match self.targets.first() {
            Some(Target::Account(account) | Target::User(_, account)) => account.clone(),
            None => root(),
        }
    }

    fn user(&self) -> Option<UserName> {
        match self.targets.first() {
            Some(Target::User(user, _)) if self.targets.len() == 1 => Some(user.clone()),
            _ => None,
        }
    }
}

/// How a rule stands.
enum Judged {
    /// It is a limit that Slurm holds by itself.
    Held,
    /// It is counted in a window.
    Rolling { used: Exact, stopped: bool, earliest: Option<Epoch>, running: Option<Epoch> },
}

fn stopping(mut wish: Wish) -> Wish {
    let which = if wish.user.is_some() { JobLimit::MaxSubmitJobs } else { JobLimit::GrpSubmitJobs };
    wish.jobs.insert(which, 0);
    wish
}

/// The rule in a few words.
fn words(rule: Rule) -> String {
    let (limit, seconds) = (rule.limit, rule.window.seconds());
    match rule.kind {
        RuleKind::Requests => format!("{limit} submissions in {seconds} s"),
        RuleKind::Token => format!("{limit} billing-minutes in {seconds} s"),
        RuleKind::ConcurrentRequests => format!("{limit} jobs at one time"),
        RuleKind::InputSequenceLength => format!("{limit} billing-minutes for one job"),
    }
}

/// When submissions come back, for people.
fn until(earliest: Option<Epoch>, running: Option<Epoch>, now: Epoch) -> String {
    let after = |at: Epoch| format!("{at} (in {} s)", at.since(now).max(0));
    match (earliest, running) {
        (None, _) => "used up, and nothing is allowed: submissions stay stopped".to_owned(),
        (Some(at), running) if running == Some(at) => {
            format!("used up, submissions come back at {}", after(at))
        }
        (Some(at), Some(later)) => {
            format!(
                "used up, submissions come back at {}, or at {} if what runs goes on",
                after(at),
                after(later)
            )
        }
        (Some(at), None) => {
            format!("used up, submissions come back at {} once what runs has ended", after(at))
        }
    }
}

/// A name that stands until the place is known.
fn root() -> AccountName {
    AccountName::parse("root").expect("root is a name")
}
