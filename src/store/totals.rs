//! Totals of ended jobs by window and account, with the users of each account in one piece, kept in the transaction that
//! changes a job.
//!
//! A window is kept from when it is first wanted ([`Store::keep_totals`], which adds up what the ledger has) until it has
//! not been wanted for a while. Kept totals equal a recount at every commit; [`Store::recount`] shows both. What cannot
//! be followed (totals that would become negative) drops the window, and whoever wants it next has it added up again.

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashMap;
use rusqlite::{CachedStatement, Connection, OptionalExtension, Transaction, params};

use super::Store;
use super::columns::UnknownWord;
use super::columns::{unreadable, unsigned};
use super::error::StoreError;
use super::jobs::{self, cluster_id};
use super::names::NameTexts;
use super::put::{RECORD, StoredJob};
use crate::core::job::Printed;
use crate::core::name::ClusterName;
use crate::core::time::{Epoch, Window};
use crate::core::usage::{
    AccountUse, Adding, Changed, Counting, SuspensionEdges, Usage, held_seconds, seconds_of,
};

/// A window nobody has wanted for this long is no longer kept; seconds. A source that is away for days keeps its totals.
const UNWANTED_S: i64 = 14 * 86_400;
/// How old the note of when a window was last wanted may be, so that a quiet cycle writes nothing; seconds.
const NOTE_S: i64 = 86_400;
/// Sums in memory at which they are written, while a window is added up: bounds its memory to about 60 MB.
const SUMS_MAX: usize = 200_000;

/// Totals of one window, as kept and as added up again from the jobs.
#[derive(Debug, Clone)]
pub struct Recount {
    /// The window.
    pub window: Window,
    /// What is kept.
    pub kept: Usage,
    /// What the jobs add up to.
    pub counted: Usage,
}

/// What [`Store::keep_totals`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeptWindows {
    /// Windows kept before.
    pub before: BTreeSet<Window>,
    /// Windows that were added up now.
    pub added: BTreeSet<Window>,
}

impl Store {
    /// Keeps totals of these windows from now on, in the transaction that adds them up from the jobs. Windows not wanted for
    /// long are dropped. Writes nothing when all are kept.
    pub fn keep_totals(
        &mut self,
        cluster: &ClusterName,
        windows: &BTreeSet<Window>,
        now: Epoch,
    ) -> Result<KeptWindows, StoreError> {
        let known = self.reading("reading windows of totals", |conn| {
            let Some(id) = cluster_id(conn, cluster)? else { return Ok(Vec::new()) };
            kept_windows(conn, id)
        })?;
        let before: BTreeSet<Window> = known.iter().map(|kept| kept.window).collect();
        let added: BTreeSet<Window> = windows.difference(&before).copied().collect();
        let stale = |kept: &KeptWindow| {
            let age = now.since(kept.wanted);
            if windows.contains(&kept.window) { age > NOTE_S } else { age > UNWANTED_S }
        };
        let stale: Vec<KeptWindow> = known.into_iter().filter(stale).collect();
        if !added.is_empty() || !stale.is_empty() {
            self.transaction("keeping totals", |tx| {
                let id = jobs::put_cluster(tx, cluster)?;
                for kept in &stale {
                    if windows.contains(&kept.window) {
                        tx.prepare_cached("UPDATE totals_windows SET wanted = ?2 WHERE id = ?1")?
                            .execute(params![kept.id, now])?;
                    } else {
                        drop_window(tx, kept.id)?;
                    }
                }
                Ok(add_up(tx, id, &added, now)?)
            })?;
        }
        Ok(KeptWindows { before, added })
    }

    /// Totals of ended jobs of a kept window; `None` when it is not kept.
    pub fn totals(
        &self,
        cluster: &ClusterName,
        windows: &BTreeSet<Window>,
    ) -> Result<BTreeMap<Window, Usage>, StoreError> {
        self.reading("reading totals", |conn| {
            let Some(id) = cluster_id(conn, cluster)? else { return Ok(BTreeMap::new()) };
            let kept = kept_windows(conn, id)?;
            let wanted = kept.iter().filter(|kept| windows.contains(&kept.window));
            wanted.map(|kept| Ok((kept.window, read_totals(conn, kept)?))).collect()
        })
    }

    /// Shows of every kept window what is kept and what the jobs add up to, both of one instant, by the plain rules of
    /// [`Usage::add`] on every single job. Takes seconds per million jobs.
    pub fn recount(&self, cluster: &ClusterName) -> Result<Vec<Recount>, StoreError> {
        let failed = |source| StoreError::of("recounting totals", self.path.clone(), source);
        let snapshot = self.conn.unchecked_transaction().map_err(failed)?;
        let kept = self.reading("reading windows of totals", |conn| {
            let Some(id) = cluster_id(conn, cluster)? else { return Ok(Vec::new()) };
            kept_windows(conn, id)
        })?;
        let windows: BTreeSet<Window> = kept.iter().map(|kept| kept.window).collect();
        let counted = self.add_up_plainly(cluster, &windows)?;
        let totals = self.totals(cluster, &windows)?;
        snapshot.finish().map_err(failed)?;
        let both = totals.into_iter().zip(counted);
        Ok(both.map(|((window, kept), (_, counted))| Recount { window, kept, counted }).collect())
    }

    /// What the ended jobs add up to in these windows, by the plain rules of [`Usage::add`] on every single job.
    pub fn add_up_plainly(
        &self,
        cluster: &ClusterName,
        windows: &BTreeSet<Window>,
    ) -> Result<BTreeMap<Window, Usage>, StoreError> {
        let mut counted: BTreeMap<Window, Adding> =
            windows.iter().map(|window| (*window, Adding::default())).collect();
        let Some(reach) = reach(windows) else { return Ok(BTreeMap::new()) };
        let edges = SuspensionEdges::new(&self.suspended_before(cluster, reach)?);
        self.visit_jobs(cluster, reach, &mut |job| {
            if job.has_ended() {
                for (window, adding) in &mut counted {
                    adding.add(&job, *window, Epoch(0), Counting::Once, &edges);
                }
            }
        })?;
        Ok(counted.into_iter().map(|(window, adding)| (window, adding.usage())).collect())
    }

    /// Drops kept totals of windows, so that whoever wants them next has them added up again.
    pub fn drop_totals(
        &mut self,
        cluster: &ClusterName,
        windows: &BTreeSet<Window>,
    ) -> Result<(), StoreError> {
        self.transaction("dropping totals", |tx| {
            let Some(id) = cluster_id(tx, cluster)? else { return Ok(()) };
            for kept in kept_windows(tx, id)?.iter().filter(|kept| windows.contains(&kept.window)) {
                drop_window(tx, kept.id)?;
            }
            Ok(())
        })
    }
}

/// From the first second of any of the windows to the last.
fn reach(windows: &BTreeSet<Window>) -> Option<Window> {
    let from = windows.iter().map(|window| window.from).min()?;
    let until = windows.iter().map(|window| window.until).max()?;
    Some(Window::new(from, until))
}

fn drop_window(tx: &Transaction<'_>, id: i64) -> rusqlite::Result<()> {
    tx.prepare_cached("DELETE FROM totals WHERE window = ?1")?.execute([id])?;
    tx.prepare_cached("DELETE FROM totals_windows WHERE id = ?1")?.execute([id])?;
    Ok(())
}

/// A window whose totals are kept.
#[derive(Debug, Clone)]
struct KeptWindow {
    id: i64,
    window: Window,
    jobs: u64,
    inexact: u64,
    wanted: Epoch,
}

fn kept_windows(conn: &Connection, cluster: i64) -> rusqlite::Result<Vec<KeptWindow>> {
    let mut statement = conn.prepare_cached(
        "SELECT id, window_from, window_until, jobs, inexact, wanted FROM totals_windows WHERE cluster = ?1 \
         ORDER BY window_from, window_until",
    )?;
    let rows = statement.query_map([cluster], |row| {
        Ok(KeptWindow {
            id: row.get(0)?,
            window: Window::new(row.get(1)?, row.get(2)?),
            jobs: unsigned(row, 3)?,
            inexact: unsigned(row, 4)?,
            wanted: row.get(5)?,
        })
    })?;
    rows.collect()
}

fn read_totals(conn: &Connection, kept: &KeptWindow) -> rusqlite::Result<Usage> {
    let mut usage = Usage::default();
    (usage.jobs, usage.inexact) = (kept.jobs, kept.inexact);
    let mut statement = conn.prepare_cached("SELECT account, used FROM totals WHERE window = ?1")?;
    let mut rows = statement.query([kept.id])?;
    while let Some(row) = rows.next()? {
        let used = row.get_ref(1)?.as_blob().map_err(|error| unreadable(1, error))?;
        usage.put(row.get(0)?, used).map_err(|error| unreadable(1, error))?;
    }
    Ok(usage)
}

/// Reads `billing=2,cpu=2` from a column.
fn items<T: std::str::FromStr<Err = std::num::ParseIntError>>(
    text: &str,
    column: usize,
) -> impl Iterator<Item = rusqlite::Result<(&str, T)>> {
    text.split(',').filter(|item| !item.is_empty()).map(move |item| {
        let (name, amount) =
            item.split_once('=').ok_or_else(|| unreadable(column, UnknownWord(item.to_owned())))?;
        Ok((name, amount.parse::<T>().map_err(|error| unreadable(column, error))?))
    })
}

/// Keeps new windows and adds up what the ledger has of them.
fn add_up(
    tx: &Transaction<'_>,
    cluster: i64,
    windows: &BTreeSet<Window>,
    now: Epoch,
) -> rusqlite::Result<()> {
    let Some(reach) = reach(windows) else { return Ok(()) };
    for window in windows {
        tx.prepare_cached(
            "INSERT INTO totals_windows (cluster, window_from, window_until, jobs, inexact, wanted) \
             VALUES (?1, ?2, ?3, 0, 0, ?4)",
        )?
        .execute(params![cluster, window.from, window.until, now])?;
    }
    let mut totals = Ledgered::of(tx, cluster)?;
    totals.windows.retain(|followed| windows.contains(&followed.window));
    let hint = if jobs::qualify_all(tx, cluster, reach)? { "NOT INDEXED" } else { "" };
    let mut statement = tx.prepare(&format!(
        "SELECT {RECORD} FROM jobs {hint} WHERE cluster = ?1 AND ended > ?2 AND started < ?3 AND runaway = 0"
    ))?;
    let mut rows = statement.query(params![cluster, reach.from, reach.until])?;
    while let Some(row) = rows.next()? {
        totals
            .count_numbers(&Counted::read(row)?, row.get_ref(14)?.as_str().map_err(|e| unreadable(14, e))?)?;
        if totals.sums.len() > SUMS_MAX {
            totals.store()?;
        }
    }
    totals.store()
}

/// What of a job decides how much it counts, and for whom.
struct Counted {
    dbindex: i64,
    account: i64,
    user: i64,
    submit: i64,
    started: Option<i64>,
    ended: Option<i64>,
    suspended_s: i64,
}

impl Counted {
    /// Reads [`RECORD`].
    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Counted> {
        Ok(Counted {
            dbindex: row.get(0)?,
            account: row.get(2)?,
            user: row.get(3)?,
            submit: row.get(5)?,
            started: row.get(7)?,
            ended: row.get(8)?,
            suspended_s: row.get(9)?,
        })
    }

    fn of(job: &StoredJob) -> Counted {
        let StoredJob { dbindex, account, user, submit, started, ended, suspended_s, .. } = *job;
        Counted { dbindex, account, user, submit, started, ended, suspended_s }
    }
}

/// A window as it is followed: what this transaction has added to its numbers of records so far.
struct Followed {
    id: i64,
    window: Window,
    jobs: i64,
    inexact: i64,
}

/// Who used: place of the window, numbers of the account and the user.
type Who = (usize, i64, i64);

/// What is to be added for somebody: amounts by place of the TRES; what is taken off is added as its complement.
type Sums = Vec<u128>;

/// The totals of one cluster while a transaction changes its jobs.
pub(super) struct Ledgered<'tx> {
    tx: &'tx Transaction<'tx>,
    cluster: i64,
    windows: Vec<Followed>,
    tres: Vec<Box<str>>,
    sums: HashMap<Who, Sums, foldhash::fast::RandomState>,
    names: NameTexts<'tx>,
    adding: bool,
    counts: Vec<(usize, u64)>,
    before: CachedStatement<'tx>,
}

impl<'tx> Ledgered<'tx> {
    pub(super) fn of(tx: &'tx Transaction<'tx>, cluster: i64) -> rusqlite::Result<Ledgered<'tx>> {
        let windows = kept_windows(tx, cluster)?
            .into_iter()
            .map(|kept| Followed { id: kept.id, window: kept.window, jobs: 0, inexact: 0 })
            .collect();
        Ok(Ledgered {
            tx,
            cluster,
            windows,
            tres: Vec::new(),
            sums: HashMap::default(),
            names: NameTexts::new(tx)?,
            adding: true,
            counts: Vec::new(),
            before: tx.prepare_cached(
                "SELECT seconds FROM suspended WHERE cluster = ?1 AND edge = ?2 AND dbindex = ?3",
            )?,
        })
    }

    /// Adds a job that is not a runaway.
    pub(super) fn count(&mut self, job: &StoredJob) -> rusqlite::Result<()> {
        self.count_numbers(&Counted::of(job), &job.alloc)
    }

    /// Takes a job off that was counted as it is now.
    pub(super) fn take_off(&mut self, job: &StoredJob) -> rusqlite::Result<()> {
        self.adding = false;
        let done = self.count(job);
        self.adding = true;
        done
    }

    fn count_numbers(&mut self, job: &Counted, alloc: &str) -> rusqlite::Result<()> {
        let (Some(started), Some(ended)) = (job.started, job.ended) else { return Ok(()) };
        // As JobRecord::held_once: a piece of a resized job counts from when it was made.
        let held = Window::new(Epoch(started.max(job.submit)), Epoch(ended));
        let mut is_read = false;
        for place in 0..self.windows.len() {
            let window = self.windows[place].window;
            if held.overlap(window).seconds() == 0 {
                continue;
            }
            if !is_read {
                self.read_counts(alloc)?;
                is_read = true;
            }
            self.count_in(place, job, held)?;
        }
        Ok(())
    }

    /// Reads what a job held into `counts`; energy is no amount per second.
    fn read_counts(&mut self, alloc: &str) -> rusqlite::Result<()> {
        self.counts.clear();
        for item in items::<u64>(alloc, 14) {
            let (name, amount) = item?;
            let known = self.tres.iter().position(|known| **known == *name);
            let place = known.unwrap_or_else(|| {
                self.tres.push(name.into());
                self.tres.len() - 1
            });
            self.counts.push((place, amount));
        }
        Ok(())
    }

    fn count_in(&mut self, place: usize, job: &Counted, held: Window) -> rusqlite::Result<()> {
        let mut failed = None;
        let (before, cluster) = (&mut self.before, self.cluster);
        let before = std::cell::RefCell::new((before, &mut failed));
        let seconds =
            held_seconds(held, job.suspended_s.cast_unsigned(), self.windows[place].window, |edge| {
                let (statement, failed) = &mut *before.borrow_mut();
                let found = statement
                    .query_row(params![cluster, edge, job.dbindex], |row| unsigned(row, 0))
                    .optional();
                found.unwrap_or_else(|error| {
                    **failed = Some(error);
                    None
                })
            });
        if let Some(error) = failed {
            return Err(error);
        }
        let Some(seconds) = seconds else { return Ok(()) };
        let amounts = self.counts.iter().filter_map(|(tres, count)| {
            let counted = seconds_of(&self.tres[*tres], seconds)?;
            let amount = u128::from(*count) * u128::from(counted);
            (amount > 0).then_some((*tres, if self.adding { amount } else { amount.wrapping_neg() }))
        });
        let mut amounts = amounts.peekable();
        if amounts.peek().is_none() {
            return Ok(());
        }
        let sums = self.sums.entry((place, job.account, job.user)).or_default();
        for (tres, amount) in amounts {
            if sums.len() <= tres {
                sums.resize(tres + 1, 0);
            }
            sums[tres] = sums[tres].wrapping_add(amount);
        }
        let one = if self.adding { 1 } else { -1 };
        let window = &mut self.windows[place];
        window.jobs += one;
        window.inexact += if seconds.exact { 0 } else { one };
        Ok(())
    }

    /// Writes what has come together. A window whose totals would be negative is dropped: they did not equal a recount.
    pub(super) fn store(&mut self) -> rusqlite::Result<()> {
        let mut sums: Vec<(Who, Sums)> = self.sums.drain().collect();
        sums.sort_unstable_by_key(|(who, _)| *who);
        let mut broken = BTreeSet::new();
        for of_account in
            sums.chunk_by(|((place, account, _), _), (next, _)| (*place, *account) == (next.0, next.1))
        {
            let ((place, account, _), _) = of_account[0];
            if !broken.contains(&place) && !self.store_account(self.windows[place].id, account, of_account)? {
                broken.insert(place);
            }
        }
        let mut numbers = self.tx.prepare_cached(
            "UPDATE totals_windows SET jobs = jobs + ?2, inexact = inexact + ?3 WHERE id = ?1",
        )?;
        for followed in &mut self.windows {
            if (followed.jobs, followed.inexact) != (0, 0) {
                numbers.execute([followed.id, followed.jobs, followed.inexact])?;
                (followed.jobs, followed.inexact) = (0, 0);
            }
        }
        for place in broken.into_iter().rev() {
            drop_window(self.tx, self.windows.remove(place).id)?;
        }
        Ok(())
    }

    /// Adds to one row; `false` when something would be negative.
    fn store_account(&mut self, window: i64, account: i64, more: &[(Who, Sums)]) -> rusqlite::Result<bool> {
        let account = self.names.text(account, 0)?.clone();
        let users = more.iter().map(|((_, _, user), _)| Ok(self.names.text(*user, 0)?.clone()));
        let users = users.collect::<rusqlite::Result<Vec<Printed>>>()?;
        let stored: Option<AccountUse> = self
            .tx
            .prepare_cached("SELECT used FROM totals WHERE window = ?1 AND account = ?2")?
            .query_row(params![window, account], |row| {
                let used = row.get_ref(0)?.as_blob().map_err(|error| unreadable(0, error))?;
                AccountUse::read(used).map_err(|error| unreadable(0, error))
            })
            .optional()?;
        let tres: Vec<&str> = self.tres.iter().map(|name| &**name).collect();
        let more = users.iter().zip(more).map(|(user, (_, sums))| (user.as_str(), sums.as_slice()));
        match AccountUse::changed(stored.as_ref(), &tres, more) {
            Changed::Negative => return Ok(false),
            Changed::Nothing => {
                self.tx
                    .prepare_cached("DELETE FROM totals WHERE window = ?1 AND account = ?2")?
                    .execute(params![window, account])?;
            }
            Changed::Use(used) if stored.as_ref() == Some(&used) => {}
            Changed::Use(used) => {
                self.tx
                    .prepare_cached(
                        "INSERT INTO totals (window, account, used) VALUES (?1, ?2, ?3) \
                         ON CONFLICT DO UPDATE SET used = excluded.used",
                    )?
                    .execute(params![window, account, used.bytes()])?;
            }
        }
        Ok(true)
    }
}
