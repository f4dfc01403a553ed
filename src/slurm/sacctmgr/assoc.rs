//! `sacctmgr show assoc`: all accounts of a cluster with the users directly below them, in one answer.
//!
//! What an association has of its own is asked for, and what it inherits (QOS list, default QOS) is worked out here.
//! GrpTRESMins, GrpTRES, GrpJobs and GrpSubmitJobs are never inherited; an inherited MaxTRESMins, MaxJobs or MaxSubmitJobs is
//! not shown.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::SEPARATOR;
use crate::core::association::{
    JobLimit, JobLimits, Observed, ObservedAccount, ObservedAssociation, ObservedUser, Share, TresLimits,
};
use crate::core::name::{AccountName, ClusterName, QosName, UserName};
use crate::core::policy::LimitType;
use crate::slurm::argv::Argv;
use crate::slurm::rows::{self, ByKey, Rejects};
use crate::slurm::tres_text;

const FIELDS: &str = "cluster,account,parentname,user,partition,fairshare,grptresmins,maxtresmins,grptres,grpjobs,\
                      grpsubmitjobs,maxjobs,maxsubmitjobs,qos,defaultqos";

/// The question for every association of the cluster, with the values of its own only (`wopl`) and the QOS as stored
/// (`withrawqoslevel`: a list, or additions and removals): only so can a row that inherits be told from one that does not.
/// What is inherited is worked out here, as slurmdbd does it (seen on 22.05.8).
pub(in crate::slurm) fn argv(cluster: &ClusterName) -> Argv {
    super::show(&["assoc", "wopl", "withrawqoslevel", "where", &format!("cluster={cluster}")], FIELDS)
}

/// Reads the answer. Rows of names the agent does not act on, or with values it does not understand, are counted
/// and left out together with the users below such an account.
pub fn parse(answer: &[u8], cluster: &ClusterName) -> Observed {
    read(answer, cluster).0
}

/// As [`parse`], with what was rejected.
pub(in crate::slurm) fn read(answer: &[u8], cluster: &ClusterName) -> (Observed, Vec<String>) {
    let mut rejects = Rejects::default();
    let mut odd = BTreeMap::new();
    let mut stored = Stored::new();
    for row in rows::complete_rows(answer, &mut rejects) {
        if let Err(reason) = stored.take(row, cluster, &mut rejects) {
            odd.extend(odd_account(row, cluster));
            rejects.add(row, reason);
        }
    }
    let accounts = stored.finished(&mut odd, &mut rejects);
    (Observed { accounts, rejected: rejects.count, odd }, rejects.samples)
}

/// QOS as an association stores them.
#[derive(Debug, Clone, PartialEq, Eq)]
enum StoredQos {
    /// None of its own.
    Inherited,
    /// A list of its own.
    Own(BTreeSet<QosName>),
    /// What it adds to (true) or takes from (false) the list above.
    Changed(Vec<(bool, QosName)>),
}

/// What an association has of its own.
#[derive(Debug)]
struct Values {
    share: Share,
    limits: TresLimits,
    jobs: JobLimits,
    qos: StoredQos,
    default_qos: Option<QosName>,
}

const NOT_ITS_FIELDS: &str = "not 15 fields";
const ODD_QOS: &str = "a QOS name is not acted on";

/// The values of rows, each text of them read once: of a hundred thousand rows of users nearly all say the same.
#[derive(Debug, Default)]
struct ReadValues<'a> {
    known: Vec<Values>,
    by_text: HashMap<&'a [u8], Result<usize, &'static str>>,
    last: Option<(&'a [u8], Result<usize, &'static str>)>,
}

impl<'a> ReadValues<'a> {
    /// The place of these values, the fields from Fairshare on.
    fn place(&mut self, text: &'a [u8]) -> Result<usize, &'static str> {
        if let Some((last, place)) = self.last
            && last == text
        {
            return place;
        }
        let place = match self.by_text.get(text) {
            Some(place) => *place,
            None => {
                let place = parse_values(text).map(|values| {
                    self.known.push(values);
                    self.known.len() - 1
                });
                self.by_text.insert(text, place);
                place
            }
        };
        self.last = Some((text, place));
        place
    }
}

/// The rows as they are stored, before inheritance. Values are told by their places.
#[derive(Debug)]
struct Stored<'a> {
    values: ReadValues<'a>,
    /// The account above each, and its values.
    accounts: ByKey<AccountName, (Option<AccountName>, usize)>,
    /// Rows of users by account, in the order in which the accounts came.
    users: Vec<(AccountName, UserRows)>,
    places: HashMap<AccountName, usize>,
    /// The account of the last row, as printed: rows of one account come one after the other.
    last: Option<(&'a [u8], usize)>,
}

/// Values by user and partition.
type UserRows = ByKey<(UserName, Option<Box<str>>), usize>;

impl<'a> Stored<'a> {
    fn new() -> Self {
        Stored {
            values: ReadValues::default(),
            accounts: ByKey::new(),
            users: Vec::new(),
            places: HashMap::new(),
            last: None,
        }
    }

    /// Takes one row in, or says why it is not acted on.
    fn take(
        &mut self,
        row: &'a [u8],
        wanted: &ClusterName,
        rejects: &mut Rejects,
    ) -> Result<(), &'static str> {
        let ([cluster, account, parent, user, partition], values) =
            leading_fields(row).ok_or(NOT_ITS_FIELDS)?;
        let values = self.values.place(values);
        if values == Err(NOT_ITS_FIELDS) {
            return Err(NOT_ITS_FIELDS);
        }
        if !cluster.eq_ignore_ascii_case(wanted.as_str().as_bytes()) {
            return Err("another cluster");
        }
        if values == Err(ODD_QOS) {
            return Err(ODD_QOS);
        }
        let place = self.account(account)?;
        let values = values?;
        if user.is_empty() {
            let account = self.users[place].0.clone();
            let parent = match utf8(parent)? {
                "" if account.is_root() => None,
                "" => return Err("account without a parent"),
                name => Some(AccountName::parse(name).map_err(|_| "parent account name is not acted on")?),
            };
            self.accounts.add(account, (parent, values), row, rejects);
        } else {
            let user = UserName::parse(utf8(user)?).map_err(|_| "user name is not acted on")?;
            let partition = Some(utf8(partition)?).filter(|name| !name.is_empty()).map(Box::from);
            self.users[place].1.add((user, partition), values, row, rejects);
        }
        Ok(())
    }

    /// The place of an account's users.
    fn account(&mut self, text: &'a [u8]) -> Result<usize, &'static str> {
        if let Some((last, place)) = self.last
            && last == text
        {
            return Ok(place);
        }
        let account = AccountName::parse(utf8(text)?).map_err(|_| "account name is not acted on")?;
        let place = *self.places.entry(account).or_insert_with_key(|account| {
            self.users.push((account.clone(), ByKey::new()));
            self.users.len() - 1
        });
        self.last = Some((text, place));
        Ok(place)
    }

    /// Works out what every row inherits, from root down. Accounts below one that is not there (of an odd name, for example)
    /// are rejected with their users, and `odd` is told where they are.
    fn finished(
        self,
        odd: &mut BTreeMap<String, String>,
        rejects: &mut Rejects,
    ) -> BTreeMap<AccountName, ObservedAccount> {
        let mut users: BTreeMap<AccountName, UserRows> = self.users.into_iter().collect();
        let mut below: BTreeMap<Option<AccountName>, Vec<(AccountName, usize)>> = BTreeMap::new();
        for (account, (parent, values)) in self.accounts.certain() {
            below.entry(parent).or_default().push((account, values));
        }
        let mut rows = FinishedRows::of(self.values.known);
        let mut found: Vec<ObservedAccount> = Vec::new();
        let mut parents = vec![(None, None)];
        while let Some((parent, above)) = parents.pop() {
            for (account, values) in below.remove(&parent).unwrap_or_default() {
                let (row, heritage) = rows.finish(values, above);
                let of_users = users.remove(&account).into_iter().flat_map(ByKey::certain);
                let mut users: Vec<ObservedUser> = of_users
                    .map(|((user, partition), values)| {
                        let (row, _) = rows.finish(values, Some(heritage));
                        ObservedUser { user, partition, row }
                    })
                    .collect();
                users.shrink_to_fit();
                parents.push((Some(account.clone()), Some(heritage)));
                found.push(ObservedAccount { account, parent: parent.clone(), row, users });
            }
        }
        for (parent, (account, _)) in below
            .into_iter()
            .flat_map(|(parent, accounts)| accounts.into_iter().map(move |account| (parent.clone(), account)))
        {
            odd.extend(parent.map(|above| (account.to_string(), above.to_string())));
            rejects.add(account.as_str().as_bytes(), "account below one that is not there");
        }
        for (account, users) in users {
            for ((user, _), _) in users.certain() {
                let row = format!("{account} {user}");
                rejects.add(row.as_bytes(), "user of an account that is not there");
            }
        }
        found.into_iter().map(|account| (account.account.clone(), account)).collect()
    }
}

/// QOS list and default QOS that a row passes on to those below it.
type Heritage = (BTreeSet<QosName>, Option<QosName>);

/// The places of a row's values and of what it inherits.
type ValuesBelow = (usize, Option<usize>);

/// A row, and the place of what it passes on.
type Finished = (Arc<ObservedAssociation>, usize);

/// Rows with what they inherit, each made once.
#[derive(Debug)]
struct FinishedRows {
    values: Vec<Values>,
    heritages: Vec<Heritage>,
    made: HashMap<ValuesBelow, Finished>,
    /// The one asked for last: most rows are like the one before.
    last: Option<(ValuesBelow, Finished)>,
    places: BTreeMap<Heritage, usize>,
}

impl FinishedRows {
    fn of(values: Vec<Values>) -> Self {
        Self { values, heritages: Vec::new(), made: HashMap::new(), last: None, places: BTreeMap::new() }
    }

    fn finish(&mut self, values: usize, above: Option<usize>) -> Finished {
        match &self.last {
            Some((asked, made)) if *asked == (values, above) => made.clone(),
            _ => {
                let made = self.made.get(&(values, above)).cloned();
                let made = made.unwrap_or_else(|| self.make(values, above));
                self.last = Some(((values, above), made.clone()));
                made
            }
        }
    }

    fn make(&mut self, values: usize, above: Option<usize>) -> Finished {
        let own = &self.values[values];
        let row = Arc::new(inherit(own, above.map(|place| &self.heritages[place])));
        let heritage = (row.qos.clone(), row.default_qos.clone());
        let heritage = *self.places.entry(heritage).or_insert_with_key(|heritage| {
            self.heritages.push(heritage.clone());
            self.heritages.len() - 1
        });
        self.made.insert((values, above), (Arc::clone(&row), heritage));
        (row, heritage)
    }
}

fn inherit(own: &Values, above: Option<&Heritage>) -> ObservedAssociation {
    let mut qos = above.map(|(qos, _)| qos.clone()).unwrap_or_default();
    match &own.qos {
        StoredQos::Inherited => {}
        StoredQos::Own(list) => qos.clone_from(list),
        StoredQos::Changed(changes) => {
            for (added, name) in changes {
                if *added {
                    qos.insert(name.clone());
                } else {
                    qos.remove(name);
                }
            }
        }
    }
    ObservedAssociation {
        share: own.share,
        limits: own.limits.clone(),
        jobs: own.jobs.clone(),
        qos,
        qos_is_own: own.qos != StoredQos::Inherited,
        default_qos: own.default_qos.clone().or_else(|| above?.1.clone()),
        default_qos_is_own: own.default_qos.is_some(),
    }
}

fn parse_stored_qos(field: &[u8]) -> Result<StoredQos, &'static str> {
    let names: Vec<&str> = utf8(field)?.split(',').filter(|name| !name.is_empty()).collect();
    if names.is_empty() {
        return Ok(StoredQos::Inherited);
    }
    if names.iter().all(|name| name.starts_with(['+', '-'])) {
        let change = |name: &&str| -> Result<(bool, QosName), &'static str> {
            Ok((name.starts_with('+'), QosName::parse(&name[1..]).map_err(|_| ODD_QOS)?))
        };
        return Ok(StoredQos::Changed(names.iter().map(change).collect::<Result<_, _>>()?));
    }
    Ok(StoredQos::Own(names.into_iter().map(QosName::parse).collect::<Result<_, _>>().map_err(|_| ODD_QOS)?))
}

/// The five fields that say whose a row is, and the rest of it.
fn leading_fields(row: &[u8]) -> Option<([&[u8]; 5], &[u8])> {
    let (mut found, mut rest) = ([&row[..0]; 5], row);
    for field in &mut found {
        let end = rest.iter().position(|byte| *byte == SEPARATOR)?;
        (*field, rest) = (&rest[..end], &rest[end + 1..]);
    }
    Some((found, rest))
}

/// The fields from Fairshare on.
fn parse_values(text: &[u8]) -> Result<Values, &'static str> {
    let [
        share,
        grp_tres_mins,
        max_tres_mins,
        grp_tres,
        grp_jobs,
        grp_submit_jobs,
        max_jobs,
        max_submit_jobs,
        qos,
        default_qos,
    ] = rows::fields(text, SEPARATOR).ok_or(NOT_ITS_FIELDS)?;
    let qos = parse_stored_qos(qos)?;
    let limits = [
        (LimitType::GrpTRESMins, grp_tres_mins),
        (LimitType::MaxTRESMins, max_tres_mins),
        (LimitType::GrpTRES, grp_tres),
    ];
    let jobs = [
        (JobLimit::GrpJobs, grp_jobs),
        (JobLimit::GrpSubmitJobs, grp_submit_jobs),
        (JobLimit::MaxJobs, max_jobs),
        (JobLimit::MaxSubmitJobs, max_submit_jobs),
    ];
    Ok(Values {
        share: parse_share(share).ok_or("Fairshare is no number")?,
        limits: parse_limits(limits).ok_or("a TRES limit is no list of counts")?,
        jobs: parse_jobs(jobs).ok_or("a limit on jobs is no number")?,
        qos,
        default_qos: match utf8(default_qos)? {
            "" => None,
            name => Some(QosName::parse(name).map_err(|_| "the default QOS is not acted on")?),
        },
    })
}

/// The names of an account that is not acted on because of them, where the row is whole: its own and the one above it.
fn odd_account(row: &[u8], wanted: &ClusterName) -> Option<(String, String)> {
    let fields: [&[u8]; 15] = rows::fields(row, SEPARATOR)?;
    let [cluster, account, parent, user, ..] = fields;
    let ours =
        cluster.eq_ignore_ascii_case(wanted.as_str().as_bytes()) && user.is_empty() && !parent.is_empty();
    let names = [account, parent].map(rows::text);
    let is_odd = names.iter().any(|name| AccountName::parse(name).is_err());
    let [account, parent] = names;
    (ours && is_odd).then_some((account, parent))
}

fn utf8(field: &[u8]) -> Result<&str, &'static str> {
    std::str::from_utf8(field).map_err(|_| "not UTF-8")
}

fn parse_share(field: &[u8]) -> Option<Share> {
    if field == b"parent" { Some(Share::Parent) } else { rows::number(field).map(Share::Number) }
}

fn parse_jobs(fields: [(JobLimit, &[u8]); 4]) -> Option<JobLimits> {
    let mut limits = JobLimits::new();
    for (limit, field) in fields {
        limits.extend(rows::number_if_any(field)?.map(|value| (limit, value)));
    }
    Some(limits)
}

fn parse_limits(fields: [(LimitType, &[u8]); 3]) -> Option<TresLimits> {
    let mut limits = TresLimits::new();
    for (limit_type, field) in fields {
        let values = tres_text::limits(field)?;
        if !values.is_empty() {
            limits.insert(limit_type, values.into_iter().collect());
        }
    }
    Some(limits)
}
