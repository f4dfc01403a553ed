//! Where each account stands in its period, and when it will reach its thresholds if use goes on as it did. It only
//! looks: from the ledger and from what the sources said last, up to the last collection.

use std::collections::{BTreeMap, BTreeSet};

use jiff::tz::TimeZone;

use super::Agent;
use super::error::AgentError;
use super::facts::{Facts, Offer};
use super::judge::{Periods, Totals, totals_of};
use super::ledger::FIRST_JOB;
use crate::core::allocation::Allocation;
use crate::core::association::{AccountTree, Observed};
use crate::core::component::{ComponentName, Components};
use crate::core::evaluate::{
    Decided, Decision, Level, NOTIFICATION_PERCENT, Rules, SLOWDOWN_PERCENT, UsageFacts, evaluate, weight_of,
};
use crate::core::exact::Exact;
use crate::core::name::{AccountName, SourceName};
use crate::core::period::Period;
use crate::core::policy::Policy;
use crate::core::preview::{Projection, daily_rate, project};
use crate::core::time::{Epoch, Window};
use crate::core::tres::TresSeconds;

/// A day.
const DAY_S: i64 = 86_400;
/// A budget without periods has no beginning to divide by: its rate is the mean of this many days.
pub const RATE_DAYS: i64 = 30;

/// One threshold of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Threshold {
    /// What begins there.
    pub level: Level,
    /// Percentage of the total.
    pub percent: Exact,
    /// The same as an amount of the scalar.
    pub at: Exact,
    /// When it is reached if use goes on as it did.
    pub projection: Projection,
    /// The day of that, in the site's time zone.
    pub date: Option<String>,
    /// Whether that day still belongs to the period.
    pub in_period: bool,
}

/// One user's part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserPart {
    /// In the scalar.
    pub used: Exact,
    /// Per component, in its unit.
    pub components: BTreeMap<ComponentName, Exact>,
}

/// An account in its period by one policy.
#[derive(Debug, Clone)]
pub struct Outlook {
    /// The allocation.
    pub allocation: Allocation,
    /// The policy.
    pub policy: Policy,
    /// The decision that the numbers give; stale facts and the site's `[accounts]` are not looked at here.
    pub decided: Decided,
    /// The component whose amount the scalar is; `None`: the weighted sum of all.
    pub deciding: Option<ComponentName>,
    /// Mean use per day, in the scalar; `None` before a minute of the period has passed.
    pub daily: Option<Exact>,
    /// Notification, slowdown, blocked.
    pub thresholds: Vec<Threshold>,
    /// Use by user.
    pub users: BTreeMap<String, UserPart>,
    /// Accounts that are counted: it and those below it.
    pub accounts: Vec<String>,
}

/// An account, or why its numbers cannot be told.
#[derive(Debug, Clone)]
pub enum Standing {
    /// Its numbers.
    Known(Box<Outlook>),
    /// None.
    Unknown {
        /// The account.
        account: AccountName,
        /// Whose policy.
        source: SourceName,
        /// Why.
        reason: String,
    },
}

impl Standing {
    /// The account.
    pub fn account(&self) -> &AccountName {
        match self {
            Standing::Known(outlook) => &outlook.decided.account,
            Standing::Unknown { account, .. } => account,
        }
    }
}

/// All accounts.
#[derive(Debug, Clone)]
pub struct Outlooks {
    /// Up to when use is counted.
    pub as_of: Epoch,
    /// Up to where the ledger is complete; `None` before the first collection.
    pub collected: Option<Epoch>,
    /// The earliest instant that the ledger covers.
    pub reaches_back_to: Option<Epoch>,
    /// One for each allocation and policy.
    pub standings: Vec<Standing>,
}

impl Outlooks {
    /// The earliest instant that the ledger covers, where a period in use began before it: what was used before is not
    /// counted.
    pub fn short_of(&self) -> Option<Epoch> {
        let starts = self.standings.iter().filter_map(|standing| match standing {
            Standing::Known(outlook) => Some(outlook.decided.period.start.max(FIRST_JOB)),
            Standing::Unknown { .. } => None,
        });
        self.reaches_back_to.filter(|from| starts.min().is_some_and(|first| *from > first))
    }
}

/// Looks at every allocation. Without `observed` the accounts below an account are not known and not counted.
pub fn outlooks(
    agent: &Agent,
    facts: &Facts,
    observed: Option<&Observed>,
    now: Epoch,
) -> Result<Outlooks, AgentError> {
    let cluster = &agent.config.cluster.name;
    let zone = &agent.config.cluster.time_zone;
    let periods = Periods::of(facts, now, zone, 0)?;
    let collected = agent.store.watermark(cluster)?;
    let as_of = collected.map_or(now, |watermark| watermark.min(now));
    let recent = Window::new(as_of.plus(-RATE_DAYS * DAY_S), as_of);
    let mut windows: BTreeSet<Window> = periods.windows();
    windows.insert(recent);
    let scene = Scene {
        rules: agent.rules(None),
        totals: totals_of(agent, windows, as_of)?,
        periods,
        recent,
        as_of,
        zone: zone.clone(),
        tree: observed.map(Observed::tree),
    };
    let mut standings = Vec::new();
    for offer in &facts.offers {
        for allocation in &offer.allocations {
            standings.extend(offer.policies.iter().map(|policy| scene.look(offer, allocation, policy)));
        }
    }
    let reaches_back_to = agent.store.last_success(&format!("ledger_from:{cluster}"))?;
    Ok(Outlooks { as_of, collected, reaches_back_to, standings })
}

/// What every look needs.
struct Scene<'a> {
    rules: Rules,
    totals: Totals,
    periods: Periods,
    recent: Window,
    as_of: Epoch,
    zone: TimeZone,
    tree: Option<AccountTree<'a>>,
}

impl Scene<'_> {
    fn look(&self, offer: &Offer, allocation: &Allocation, policy: &Policy) -> Standing {
        let unknown = |reason: String| Standing::Unknown {
            account: allocation.account.clone(),
            source: offer.source.clone(),
            reason,
        };
        match self.outlook(allocation, policy) {
            Ok(outlook) => Standing::Known(Box::new(outlook)),
            Err(reason) => unknown(reason),
        }
    }

    fn outlook(&self, allocation: &Allocation, policy: &Policy) -> Result<Outlook, String> {
        const NOT_KNOWN: &str = "the period is not known";
        let pair = self.periods.pairs.get(&policy.period).ok_or(NOT_KNOWN)?;
        let below = self.tree.as_ref().map(|tree| tree.names(&allocation.account)).unwrap_or_default();
        let accounts = if below.is_empty() { vec![allocation.account.to_string()] } else { below };
        let names = || accounts.iter().map(String::as_str);
        let sum = |window: Window| self.totals.get(&window).map(|usage| usage.sum(names()));
        let usage = UsageFacts {
            current: sum(pair.current.window()).ok_or(NOT_KNOWN)?,
            previous: pair.previous.as_ref().and_then(|period| sum(period.window())).unwrap_or_default(),
        };
        let decided = match evaluate(policy, allocation, Ok(&usage), &pair.current, &self.rules) {
            Decision::Decided(decided) => *decided,
            Decision::Undecided { reason, .. } => return Err(reason),
        };
        let deciding = deciding(policy, &decided);
        let part =
            |used: &TresSeconds| part(policy, &decided, deciding.as_ref(), used, &self.rules.components);
        let daily = if pair.current.end.is_some() {
            daily_rate(decided.used, &pair.current, self.as_of)
        } else {
            let recent = sum(self.recent).and_then(|used| part(&used));
            recent.and_then(|recent| recent.used.over(Exact::whole(i128::from(RATE_DAYS))))
        };
        let by_user = self.totals.get(&pair.current.window()).map(|usage| usage.by_user(names()));
        let users = by_user
            .unwrap_or_default()
            .into_iter()
            .map(|(user, used)| part(&used).map(|part| (user, part)))
            .collect::<Option<_>>()
            .ok_or(NO_ROOM)?;
        let thresholds =
            thresholds(policy, &decided, daily, &pair.current, self.as_of, &self.zone).ok_or(NO_ROOM)?;
        Ok(Outlook {
            allocation: allocation.clone(),
            policy: policy.clone(),
            deciding,
            daily,
            thresholds,
            users,
            accounts,
            decided,
        })
    }
}

const NO_ROOM: &str = "a number is too large to be computed exactly";

/// The component that the decision rests on where TRES billing is off.
fn deciding(policy: &Policy, decided: &Decided) -> Option<ComponentName> {
    let is_it = |balance: &crate::core::evaluate::Balance| {
        balance.used == decided.used && balance.total == decided.total
    };
    let found = decided.components.iter().find(|(_, balance)| is_it(balance));
    found.filter(|_| !policy.billing).map(|(name, _)| name.clone())
}

/// Some use in the components and the scalar of a decision, by the same weights as the decision's own.
fn part(
    policy: &Policy,
    decided: &Decided,
    deciding: Option<&ComponentName>,
    used: &TresSeconds,
    known: &Components,
) -> Option<UserPart> {
    let (mut components, mut scalar) = (BTreeMap::new(), Exact::ZERO);
    for name in decided.components.keys() {
        let amount = known.amount(name, used)?;
        let weight = match deciding {
            Some(only) if only == name => Exact::ONE,
            Some(_) => Exact::ZERO,
            None => weight_of(&policy.weights, name, known.get(name).map(|c| &c.tres)).unwrap_or(Exact::ONE),
        };
        scalar = scalar.plus(weight.times(amount)?)?;
        components.insert(name.clone(), amount);
    }
    Some(UserPart { used: scalar, components })
}

/// The three thresholds with their days.
fn thresholds(
    policy: &Policy,
    decided: &Decided,
    daily: Option<Exact>,
    period: &Period,
    as_of: Epoch,
    zone: &TimeZone,
) -> Option<Vec<Threshold>> {
    let blocked = Exact::ONE.plus(policy.grace)?.times(Exact::whole(100))?;
    let levels = [
        (Level::Notification, Exact::whole(NOTIFICATION_PERCENT)),
        (Level::Slowdown, Exact::whole(SLOWDOWN_PERCENT)),
        (Level::Blocked, blocked),
    ];
    let threshold = |(level, percent): (Level, Exact)| {
        let at = decided.total.times(percent)?.over(Exact::whole(100))?;
        let projection = project(decided.used, at, daily.unwrap_or(Exact::ZERO))?;
        let day = match projection {
            Projection::Projected { days } => Some(as_of.plus(i64::try_from(days).ok()?.checked_mul(DAY_S)?)),
            Projection::Exceeded | Projection::Never => None,
        };
        Some(Threshold {
            level,
            percent,
            at,
            projection,
            date: day.and_then(|day| date(day, zone)),
            in_period: match day {
                Some(day) => period.end.is_none_or(|end| day < end),
                None => projection == Projection::Exceeded,
            },
        })
    };
    levels.into_iter().map(threshold).collect()
}

/// The calendar day of an instant.
pub fn date(at: Epoch, zone: &TimeZone) -> Option<String> {
    let instant = jiff::Timestamp::from_second(at.0).ok()?;
    Some(instant.to_zoned(zone.clone()).date().to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::agent::Outside;
    use crate::agent::clock::Clock;
    use crate::agent::facts::fetch;
    use crate::config;
    use crate::core::association::{ObservedAccount, ObservedAssociation, Share, TresLimits};
    use crate::core::command::Mode;
    use crate::core::job::{JobKey, JobRecord};
    use crate::core::tres::{Tres, TresCounts};
    use crate::slurm::{RunError, Runner};
    use crate::store::{Collected, Collection, Store};

    const HOUR: i64 = 3600;
    /// 2026-11-01T00:00:00Z
    const NOVEMBER: i64 = 1_793_491_200;

    fn exact(text: &str) -> Exact {
        Exact::parse(text).unwrap()
    }

    fn account(name: &str) -> AccountName {
        AccountName::parse(name).unwrap()
    }

    /// An agent with one local allocation on 2026-11-11T00:00:00Z, ten days into the period, without a Slurm.
    fn agent(place: &std::path::Path, allocation: &str) -> Agent {
        let text = format!("[cluster]\nname = \"lab\"\n[[allocation]]\n{allocation}");
        let config = config::parse(&text, "test.toml").unwrap();
        let none = |_: &str, _: &[String], _: &_| Err(RunError::NotFound { path: "nowhere".into() });
        let outside = Outside {
            runner: Runner::Emulated(Arc::new(none)),
            clock: Clock::manual(Epoch(NOVEMBER + 10 * DAY_S)),
            mode: Mode::Emulator,
        };
        Agent::offline(config, outside, Store::open(&place.join("state.db")).unwrap())
    }

    fn job(dbindex: u64, account: &str, user: &str, cpus: u64, start: i64, hours: i64) -> JobRecord {
        JobRecord {
            key: JobKey { cluster: "lab".to_owned().try_into().unwrap(), dbindex },
            job_id: dbindex,
            account: account.into(),
            user: user.into(),
            state: "COMPLETED".into(),
            submit: Epoch(start),
            eligible: Some(Epoch(start)),
            start: Some(Epoch(start)),
            end: Some(Epoch(start + hours * HOUR)),
            suspended_s: 0,
            elapsed_s: 0,
            partition: "debug".into(),
            qos: "normal".into(),
            assoc_id: None,
            alloc: TresCounts::from([(Tres::cpu(), cpus), (Tres::mem(), 2048)]).into(),
        }
    }

    fn collect(agent: &mut Agent, records: &[JobRecord]) {
        let now = agent.clock.now();
        let cluster = agent.config.cluster.name.clone();
        agent
            .store
            .put_collection(&Collection {
                cluster: &cluster,
                window: Window::new(Epoch(0), now),
                now,
                watermark: Some(now),
                records,
                before: Collected::default(),
                more: false,
                suspended: &[],
                rejected: 0,
                reject_samples: Vec::new(),
                complete: true,
            })
            .unwrap();
    }

    fn tree(accounts: &[(&str, Option<&str>)]) -> Observed {
        let row = ObservedAssociation {
            share: Share::Number(1),
            limits: TresLimits::new(),
            jobs: Default::default(),
            qos: BTreeSet::new(),
            qos_is_own: false,
            default_qos: None,
            default_qos_is_own: false,
        };
        let one = |(name, parent): &(&str, Option<&str>)| {
            let parent = parent.map(account);
            (
                account(name),
                ObservedAccount { account: account(name), parent, row: row.clone().into(), users: vec![] },
            )
        };
        Observed { accounts: accounts.iter().map(one).collect(), rejected: 0, ..Observed::default() }
    }

    async fn known(agent: &mut Agent, observed: Option<&Observed>) -> Outlook {
        let now = agent.clock.now();
        let facts = fetch(agent, now).await.unwrap();
        let mut found = outlooks(agent, &facts, observed, now).unwrap();
        match found.standings.pop().unwrap() {
            Standing::Known(outlook) => *outlook,
            Standing::Unknown { reason, .. } => panic!("{reason}"),
        }
    }

    #[tokio::test]
    async fn thresholds_are_projected_with_the_mean_rate_of_the_period_and_sub_accounts_count() {
        let place = tempfile::tempdir().unwrap();
        let mut agent = agent(
            place.path(),
            "account = \"bio\"\nlimits = { cpu = 1000 }\nperiod = \"month\"\nweights = { cpu = 2 }\ncarryover_percent = 0\n",
        );
        let jobs = [
            job(1, "bio", "alice", 6, NOVEMBER + HOUR, 50),
            job(2, "bio_sub", "bob", 6, NOVEMBER + HOUR, 50),
            // 2 of its 4 hours lie in November.
            job(3, "bio", "bob", 0, NOVEMBER - 2 * HOUR, 4),
        ];
        collect(&mut agent, &jobs);
        let observed = tree(&[("root", None), ("bio", Some("root")), ("bio_sub", Some("bio"))]);
        let all = known(&mut agent, Some(&observed)).await;
        // 600 cpu-hours, each weighing 2: 1200 of 2000. Ten days: 120 a day. 80 % is 1600, 400 away: 3.3 days.
        assert_eq!((all.decided.used, all.decided.total), (exact("1200"), exact("2000")));
        assert_eq!(all.daily, Some(exact("120")));
        let days: Vec<(Exact, Projection, Option<&str>, bool)> =
            all.thresholds.iter().map(|t| (t.at, t.projection, t.date.as_deref(), t.in_period)).collect();
        let day = |at: &str, days, date| (exact(at), Projection::Projected { days }, Some(date), true);
        assert_eq!(
            days,
            [day("1600", 3, "2026-11-14"), day("2000", 6, "2026-11-17"), day("2400", 10, "2026-11-21")]
        );
        let users: Vec<(&str, Exact)> =
            all.users.iter().map(|(name, part)| (name.as_str(), part.used)).collect();
        assert_eq!(users, [("alice", exact("600")), ("bob", exact("600"))]);
        assert_eq!(all.accounts, ["bio", "bio_sub"]);

        let alone = known(&mut agent, None).await;
        assert_eq!((alone.decided.used, alone.accounts), (exact("600"), vec!["bio".to_owned()]));
        let slowdown = &alone.thresholds[1];
        // 60 a day: 1400 more takes 23 days, the month has 20 left.
        assert_eq!((slowdown.date.as_deref(), slowdown.in_period), (Some("2026-12-04"), false));
    }

    #[tokio::test]
    async fn without_billing_users_are_shown_in_the_component_that_decides() {
        let place = tempfile::tempdir().unwrap();
        let mut agent = agent(
            place.path(),
            "account = \"bio\"\nlimits = { cpu = 1000, ram = 50 }\nperiod = \"month\"\nbilling = false\ncarryover_percent = 0\n",
        );
        // 2 GB for 25 hours is all of the 50 GB-hours.
        collect(&mut agent, &[job(1, "bio", "alice", 1, NOVEMBER, 25)]);
        let outlook = known(&mut agent, None).await;
        assert_eq!(outlook.deciding.as_deref(), Some("ram"));
        assert_eq!(outlook.users["alice"].used, exact("50"));
        assert_eq!(outlook.users["alice"].components["cpu"], exact("25"));
        assert_eq!(outlook.thresholds[1].projection, Projection::Exceeded);
        assert_eq!(outlook.decided.level, Level::Slowdown);
    }

    #[tokio::test]
    async fn a_budget_without_periods_goes_on_as_in_the_last_thirty_days() {
        let place = tempfile::tempdir().unwrap();
        let mut agent = agent(
            place.path(),
            "account = \"bio\"\nlimits = { cpu = 1000 }\nperiod = \"total\"\nweights = { cpu = 1 }\n",
        );
        let years_ago = NOVEMBER - 800 * DAY_S;
        collect(
            &mut agent,
            &[job(1, "bio", "alice", 5, years_ago, 100), job(2, "bio", "alice", 3, NOVEMBER, 10)],
        );
        let outlook = known(&mut agent, None).await;
        assert_eq!(outlook.decided.used, exact("530"));
        assert_eq!(outlook.daily, Some(exact("1")));
        assert_eq!(outlook.thresholds[0].projection, Projection::Projected { days: 270 });
        assert!(outlook.thresholds[0].in_period, "there is no end");
    }
}
