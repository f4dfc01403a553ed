//! From a file to a world: names are looked up, missing numbers given, times reckoned from the clock.

use super::super::clock::Clock;
use super::super::job::{ArrayPart, Job, JobState, Suspension, TimeLimit};
use super::super::limits::{Count, Limits, PerTres};
use super::super::tres::{Amounts, TresTable};
use super::super::world::{
    Account, AdminLevel, Association, Partition, Qos, SHARES_OF_PARENT, Services, User, World,
};
use super::{
    AccountFile, ClockFile, JobFile, PartitionFile, QosFile, UserFile, WorldFile, WorldFileError, wrong,
};
use jiff::Timestamp;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};

/// The world of a file.
pub(super) fn world(file: WorldFile) -> Result<World, WorldFileError> {
    Loader::load(file)
}

/// A file on its way to a world.
struct Loader {
    world: World,
    now: i64,
    gathered: Gathered,
    accounts_at: HashMap<String, usize>,
    users_at: HashMap<String, usize>,
    last_uid: u32,
}

/// Associations in the order of the file, each with its place in the tree where the file says it.
#[derive(Default)]
struct Gathered {
    list: Vec<(u32, Association)>,
    known: HashMap<(String, Option<String>, Option<String>), usize>,
}

impl Gathered {
    /// Takes an association, or new values for one that is there; what it stands below must have come before it.
    fn take(&mut self, order: u32, association: Association, place: &str) -> Result<(), WorldFileError> {
        let key = (association.account.clone(), association.user.clone(), association.partition.clone());
        if let Some(at) = self.known.get(&key) {
            let (known_order, known) = &mut self.list[*at];
            let id = if association.id == 0 { known.id } else { association.id };
            let qos = if association.qos.is_empty() { known.qos.clone() } else { association.qos.clone() };
            *known = Association { id, qos, ..association };
            *known_order = order;
            return Ok(());
        }
        let above = match (&association.user, &association.parent) {
            (Some(_), _) => Some(&association.account),
            (None, parent) => parent.as_ref(),
        };
        if let Some(above) = above.filter(|_| order == 0)
            && !self.known.contains_key(&(above.clone(), None, None))
        {
            return Err(wrong(place, format!("account {above} must come before it")));
        }
        self.known.insert(key, self.list.len());
        self.list.push((order, association));
        Ok(())
    }

    /// The associations as they stand in the tree; those without a number get one.
    fn in_order(mut self, next: &mut u32) -> Vec<Association> {
        for (_, association) in &mut self.list {
            if association.id == 0 {
                association.id = *next;
                *next += 1;
            }
        }
        // Later children stand first, so that those with an order come from the last to the first.
        let mut added: Vec<usize> = (0..self.list.len()).filter(|at| self.list[*at].0 > 0).collect();
        added.sort_by_key(|at| std::cmp::Reverse(self.list[*at].0));
        added.extend((0..self.list.len()).filter(|at| self.list[*at].0 == 0));
        let mut children: Vec<Vec<usize>> = vec![Vec::new(); self.list.len()];
        let mut waiting = Vec::new();
        for at in added {
            let association = &self.list[at].1;
            let above = match (&association.user, &association.parent) {
                (Some(_), _) => Some(&association.account),
                (None, parent) => parent.as_ref(),
            };
            let above = above.and_then(|above| self.known.get(&(above.clone(), None, None)).copied());
            match above.filter(|above| *above != at) {
                Some(above) => children[above].push(at),
                None => waiting.push(at),
            }
        }
        let mut list: Vec<Option<Association>> =
            self.list.into_iter().map(|(_, association)| Some(association)).collect();
        let mut tree = Vec::with_capacity(list.len());
        while let Some(at) = waiting.pop() {
            waiting.extend(&children[at]);
            tree.extend(list[at].take());
        }
        tree
    }
}

impl Loader {
    fn load(file: WorldFile) -> Result<World, WorldFileError> {
        let mut world = World::new(&file.cluster);
        world.version = file.version;
        world.clock = match &file.clock {
            ClockFile::Offset(seconds) => Clock::Offset(*seconds),
            ClockFile::Fixed(at) => Clock::Fixed(moment(at, Clock::default().now(), "clock")?),
        };
        world.time_zone = file.time_zone;
        world.acting_user = file.acting_user;
        world.services = Services { slurmctld: file.slurmctld_up, slurmdbd: file.slurmdbd_up };
        world.other_clusters = file.other_clusters;
        world.config = file.config;
        world.uids = file.uids;
        world.rolled_until = file.rolled_until;
        world.lived_until = file.lived_until;
        world.last_job = file.last_job;
        world.faults = file.faults;
        if !file.tres.is_empty() {
            world.tres = TresTable::numbered(&file.tres);
        }
        let now = world.now();
        let mut loader = Loader {
            now,
            gathered: Gathered::default(),
            accounts_at: world.accounts.iter().enumerate().map(|(at, a)| (a.name.clone(), at)).collect(),
            users_at: world.users.iter().enumerate().map(|(at, user)| (user.name.clone(), at)).collect(),
            last_uid: world.uids.values().copied().max().unwrap_or(1000),
            world,
        };
        if let Some(partitions) = file.partitions {
            loader.partitions(partitions)?;
        }
        for qos in file.qos {
            loader.qos(qos)?;
        }
        loader.accounts(file.accounts, file.users)?;
        loader.jobs(file.jobs)?;
        let mut world = loader.world;
        world.next_association = world.next_association.max(file.next_association);
        world.next_qos = world.next_qos.max(file.next_qos);
        Ok(world)
    }

    fn amounts(&mut self, text: &str, place: &str) -> Result<Amounts, WorldFileError> {
        self.world.tres.parse_seed(text).map_err(|refused| wrong(place, refused.0))
    }

    fn partitions(&mut self, list: Vec<PartitionFile>) -> Result<(), WorldFileError> {
        self.world.partitions.clear();
        for file in list {
            let tres = self.amounts(&file.tres, &format!("partition {}", file.name))?;
            for part in file.billing_weights.split(',') {
                if let Some((name, _)) = part.split_once('=') {
                    self.world.tres.add(&name.to_lowercase());
                }
            }
            self.world.partitions.push(Partition {
                name: file.name,
                is_default: file.default,
                up: file.up,
                billing_weights: file.billing_weights,
                nodes: file.nodes,
                tres,
            });
        }
        Ok(())
    }

    fn qos(&mut self, file: QosFile) -> Result<(), WorldFileError> {
        let mut limits = self.limits(&file.limits, &format!("qos {}", file.name))?;
        if let Some(priority) = file.priority {
            limits.set_count(Count::Priority, Some(priority));
        }
        let known = self.world.qos_named(&file.name).map(|qos| qos.description.clone());
        let description = file.description.or(known).unwrap_or_else(|| file.name.clone());
        self.world.put_qos(Qos {
            id: file.id,
            description,
            flags: file.flags,
            usage_factor: file.usage_factor,
            limits,
            usage_reset_at: file.usage_reset_at,
            name: file.name,
        });
        Ok(())
    }

    fn limits(&mut self, file: &BTreeMap<String, Value>, place: &str) -> Result<Limits, WorldFileError> {
        let mut limits = Limits::default();
        for (key, value) in file {
            let place = format!("{place}: {key}");
            if let Some(which) = Count::ALL.iter().find(|count| count.name().eq_ignore_ascii_case(key)) {
                let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
                limits.set_count(*which, Some(number.ok_or_else(|| wrong(place, "not a number"))?));
            } else if let Some(which) = PerTres::ALL.iter().find(|tres| tres.name().eq_ignore_ascii_case(key))
            {
                let text = value.as_str().ok_or_else(|| wrong(&place, "not a text like billing=100"))?;
                let amounts = self.amounts(text, &place)?;
                limits.set_amounts(*which, amounts);
            } else {
                return Err(wrong(place, "no such limit"));
            }
        }
        Ok(limits)
    }

    /// Accounts and users: those with an order stand where it says, the others come as if added one by one.
    fn accounts(&mut self, accounts: Vec<AccountFile>, users: Vec<UserFile>) -> Result<(), WorldFileError> {
        for association in std::mem::take(&mut self.world.associations) {
            self.gathered.take(0, association, "root")?;
        }
        for file in accounts {
            let place = format!("account {}", file.name);
            let limits = self.limits(&file.limits, &place)?;
            let parent = match file.parent {
                None if file.name == "root" => None,
                parent => Some(parent.unwrap_or_else(|| "root".to_owned())),
            };
            let association = Association {
                id: file.id,
                account: file.name.clone(),
                parent: parent.clone(),
                shares: shares(file.fairshare.as_ref(), &place)?,
                limits,
                default_qos: file.default_qos,
                deleted: file.deleted,
                usage_reset_at: file.usage_reset_at,
                usage_left_at: file.usage_left_at,
                ..with_qos(&file.qos)
            };
            if !file.deleted {
                self.describe(&file.name, file.description, file.organization, parent.as_deref());
            }
            self.gathered.take(file.order, association, &place)?;
        }
        for user in users {
            self.user(user)?;
        }
        let last = self.gathered.list.iter().map(|(_, association)| association.id).max().unwrap_or(0);
        self.world.next_association = self.world.next_association.max(last + 1);
        self.world.associations =
            std::mem::take(&mut self.gathered).in_order(&mut self.world.next_association);
        Ok(())
    }

    fn describe(
        &mut self,
        name: &str,
        description: Option<String>,
        organization: Option<String>,
        parent: Option<&str>,
    ) {
        let by_default = match parent {
            Some(parent) if parent != "root" => parent.to_owned(),
            _ => name.to_owned(),
        };
        if let Some(at) = self.accounts_at.get(name) {
            let known = &mut self.world.accounts[*at];
            known.description = description.unwrap_or_else(|| known.description.clone());
            known.organization = organization.unwrap_or_else(|| known.organization.clone());
            return;
        }
        self.accounts_at.insert(name.to_owned(), self.world.accounts.len());
        self.world.accounts.push(Account {
            name: name.to_owned(),
            description: description.unwrap_or_else(|| name.to_owned()),
            organization: organization.unwrap_or(by_default),
        });
    }

    fn user(&mut self, file: UserFile) -> Result<(), WorldFileError> {
        let place = format!("user {}", file.name);
        let admin_level = match file.admin_level.as_deref() {
            None if file.name == "root" => AdminLevel::Administrator,
            None => AdminLevel::None,
            Some(text) => [AdminLevel::None, AdminLevel::Operator, AdminLevel::Administrator]
                .into_iter()
                .find(|level| level.name().eq_ignore_ascii_case(text))
                .ok_or_else(|| wrong(&place, "admin_level is None, Operator or Administrator"))?,
        };
        if !file.deleted {
            let user = User { name: file.name.clone(), admin_level };
            match self.users_at.get(&file.name) {
                Some(at) => self.world.users[*at] = user,
                None => {
                    self.users_at.insert(file.name.clone(), self.world.users.len());
                    self.world.users.push(user);
                }
            }
        }
        if let Some(uid) = file.uid {
            self.world.uids.insert(file.name.clone(), uid);
            self.last_uid = self.last_uid.max(uid);
        } else if file.name != "root" && !self.world.uids.contains_key(&file.name) {
            self.last_uid += 1;
            self.world.uids.insert(file.name.clone(), self.last_uid);
        }
        let default = file.default_account.or_else(|| file.accounts.first().cloned());
        for account in file.accounts {
            let association = Association {
                is_default: default.as_deref() == Some(account.as_str()),
                account,
                user: Some(file.name.clone()),
                shares: 1,
                ..Association::default()
            };
            self.gathered.take(0, association, &place)?;
        }
        for at_length in file.associations {
            let place = format!("{place} in {}", at_length.account);
            let limits = self.limits(&at_length.limits, &place)?;
            let association = Association {
                id: at_length.id,
                account: at_length.account,
                user: Some(file.name.clone()),
                partition: at_length.partition,
                shares: shares(at_length.fairshare.as_ref(), &place)?,
                limits,
                default_qos: at_length.default_qos,
                is_default: at_length.default,
                deleted: at_length.deleted,
                usage_reset_at: at_length.usage_reset_at,
                usage_left_at: at_length.usage_left_at,
                ..with_qos(&at_length.qos)
            };
            self.gathered.take(at_length.order, association, &place)?;
        }
        Ok(())
    }

    fn jobs(&mut self, list: Vec<JobFile>) -> Result<(), WorldFileError> {
        let mut next_index = list.iter().map(|job| job.db_index).max().unwrap_or(0);
        let mut next_id = list.iter().map(|job| job.id).max().unwrap_or(0);
        let at_id: BTreeMap<(String, String), u32> = self
            .world
            .associations
            .iter()
            .filter_map(|a| Some(((a.account.clone(), a.user.clone()?), a.id)))
            .collect();
        let mut jobs = Vec::with_capacity(list.len());
        for (at, file) in list.into_iter().enumerate() {
            let mut job = self.job(file, &format!("jobs[{at}]"))?;
            if job.db_index == 0 {
                next_index += 1;
                job.db_index = next_index;
            }
            if job.id == 0 {
                next_id += 1;
                job.id = next_id;
            }
            if job.association == 0 {
                job.association = at_id.get(&(job.account.clone(), job.user.clone())).copied().unwrap_or(0);
            }
            jobs.push(job);
        }
        let billing = self.world.billing();
        for job in &mut jobs {
            let missing = job.missing_billing().then(|| billing.of(&job.partition, &job.allocated) as u64);
            job.complete_amounts(missing);
        }
        self.world.last_job = next_id.max(self.world.last_job);
        self.world.last_index = next_index;
        self.world.jobs = jobs;
        Ok(())
    }

    fn job(&mut self, file: JobFile, place: &str) -> Result<Job, WorldFileError> {
        let at = |value: &Option<Value>, name: &str| match value {
            None | Some(Value::Null) => Ok(0),
            Some(value) => moment(value, self.now, &format!("{place}: {name}")),
        };
        let start = at(&file.start, "start")?;
        let end = at(&file.end, "end")?;
        let submit = if file.submit.is_none() { start } else { at(&file.submit, "submit")? };
        let eligible = if file.eligible.is_none() { submit } else { at(&file.eligible, "eligible")? };
        let suspensions = self.suspensions(&file.suspended, place)?;
        let allocated = self.amounts(&file.allocated, place)?;
        let requested = self.amounts(&file.requested, place)?;
        let partition = match (file.partition, self.world.default_partition()) {
            (name, _) if !name.is_empty() => name,
            (_, Some(partition)) => partition.name.clone(),
            (_, None) => String::new(),
        };
        let nodes = match file.nodes {
            Some(nodes) => nodes,
            None if start == 0 => String::new(),
            None => self
                .world
                .partitions
                .iter()
                .find(|known| known.name == partition)
                .map(|known| known.nodes.clone())
                .unwrap_or_default(),
        };
        let job = Job {
            db_index: file.db_index,
            id: file.id,
            association: file.association,
            cluster: file.cluster,
            name: file.name,
            account: file.account,
            user: file.user,
            partition,
            qos: if file.qos.is_empty() { "normal".to_owned() } else { file.qos },
            state: match &file.state {
                Some(text) => JobState::from_text(text),
                None if start == 0 && end == 0 => JobState::Pending,
                None if end == 0 => JobState::Running,
                None => JobState::Completed,
            },
            submit,
            eligible,
            start,
            end,
            suspensions,
            time_limit: time_limit(file.time_limit.as_ref(), place)?,
            allocated,
            requested,
            nodes,
            exit_code: exit_code(file.exit_code.as_deref(), place)?,
            cancelled_by: file.cancelled_by,
            array: file.array.map(|a| ArrayPart { job: a.job, task: a.task, waiting: a.waiting }),
            het: file.het,
            flags: file.flags.unwrap_or_else(|| vec!["SchedMain".to_owned(), "StartRecieved".to_owned()]),
            priority: file.priority.unwrap_or(1),
            reason: file.reason,
            submit_line: file.submit_line,
            work_dir: file.work_dir,
            comment: file.comment,
            admin_comment: file.admin_comment,
            wckey: file.wckey,
            runaway: file.runaway,
            runs_for_s: file.runs_for_s,
            held: file.held,
        };
        Ok(job)
    }

    fn suspensions(
        &self,
        list: &[(Value, Option<Value>)],
        place: &str,
    ) -> Result<Vec<Suspension>, WorldFileError> {
        let place = format!("{place}: suspended");
        list.iter()
            .map(|(from, to)| {
                let to = match to {
                    None | Some(Value::Null) => None,
                    Some(to) => Some(moment(to, self.now, &place)?),
                };
                Ok(Suspension { from: moment(from, self.now, &place)?, to })
            })
            .collect()
    }
}

/// A list of QOS: plain names make the list, names with a sign change the inherited one.
fn with_qos(list: &[String]) -> Association {
    let mut association = Association::default();
    for name in list {
        match (name.strip_prefix('+'), name.strip_prefix('-')) {
            (Some(name), _) => association.delta_qos.push((true, name.to_owned())),
            (_, Some(name)) => association.delta_qos.push((false, name.to_owned())),
            _ => association.qos.push(name.clone()),
        }
    }
    association
}

fn shares(value: Option<&Value>, place: &str) -> Result<u32, WorldFileError> {
    match value {
        None => Ok(1),
        Some(Value::String(text)) if text == "parent" => Ok(SHARES_OF_PARENT),
        Some(value) => value
            .as_u64()
            .and_then(|number| u32::try_from(number).ok())
            .ok_or_else(|| wrong(place, "fairshare is a number or \"parent\"")),
    }
}

fn time_limit(value: Option<&Value>, place: &str) -> Result<TimeLimit, WorldFileError> {
    match value {
        None | Some(Value::Null) => Ok(TimeLimit::Partition),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("unlimited") => Ok(TimeLimit::Unlimited),
        Some(value) => value
            .as_u64()
            .and_then(|minutes| u32::try_from(minutes).ok())
            .map(TimeLimit::Minutes)
            .ok_or_else(|| wrong(place, "time_limit is minutes or \"UNLIMITED\"")),
    }
}

fn exit_code(text: Option<&str>, place: &str) -> Result<(i32, i32), WorldFileError> {
    let Some(text) = text else { return Ok((0, 0)) };
    text.split_once(':')
        .and_then(|(status, signal)| Some((status.parse().ok()?, signal.parse().ok()?)))
        .ok_or_else(|| wrong(place, "exit_code is like 1:0"))
}

/// A time: seconds of the epoch, RFC 3339, or relative to now.
fn moment(value: &Value, now: i64, place: &str) -> Result<i64, WorldFileError> {
    if let Some(at) = value.as_i64() {
        return Ok(at);
    }
    let text = value.as_str().ok_or_else(|| wrong(place, "not a time"))?;
    if let Some(offset) = text.strip_prefix("now") {
        return relative(offset).map(|seconds| now + seconds).ok_or_else(|| wrong(place, "not like now-2h"));
    }
    text.parse::<Timestamp>()
        .map(|at| at.as_second())
        .map_err(|error| wrong(place, format!("not an RFC 3339 time: {error}")))
}

/// `-2h30m`, `+45s`, or nothing.
fn relative(text: &str) -> Option<i64> {
    if text.is_empty() {
        return Some(0);
    }
    let (sign, mut rest) = match (text.strip_prefix('-'), text.strip_prefix('+')) {
        (Some(rest), _) => (-1, rest),
        (_, Some(rest)) => (1, rest),
        _ => return None,
    };
    let mut seconds = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: i64 = rest[..end].parse().ok()?;
        let unit = match rest[end..].chars().next()? {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            'w' => 604_800,
            _ => return None,
        };
        seconds += number * unit;
        rest = &rest[end + 1..];
    }
    Some(sign * seconds)
}
