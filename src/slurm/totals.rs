//! sacct's text -> totals per account, user, TRES and period, in one pass and without records: for archives of accounting text
//! and for audits that do not go through the ledger.
//!
//! The rules are those of [`crate::core::usage`] with every second counted once and no splits of suspensions known. Memory
//! grows with the pairs of account and user and with four bytes a record (to prove that none came twice), not with the text.

use std::io::Read;

use super::job_rows::{self, ALLOC_UNCLEAR, JobRow};
use super::known::Known;
use super::marks::Marks;
use super::rows::{self, Rejects};
use super::sacct::SEPARATOR;
use super::shown::Shown;
use super::tres_text;
use crate::core::job::Printed;
use crate::core::name::ClusterName;
use crate::core::time::{Epoch, Window};
use crate::core::tres::{Tres, TresSeconds};

/// Text read at once: large enough that a pipe's writer need not wait, small enough to stay in the second-level cache.
const PIECE_BYTES: usize = 256 << 10;

/// Longest row, as for sacct itself.
const ROW_BYTES_MAX: usize = 1 << 20;

/// Keys looked at together.
const KEYS_AT_ONCE: usize = 1 << 16;

/// Most lists of TRES that are remembered, and most bytes of them.
const ALLOCS_MAX: usize = 1 << 17;
const ALLOCS_BYTES_MAX: usize = 16 << 20;

/// TRES that have a place in the sums from the beginning; it is doubled when there are more.
const TRES_ROOM: usize = 8;

/// No sums yet.
const NONE: u32 = u32::MAX;

/// Totals of a text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TextTotals {
    /// The TRES that were seen; energy is none, as it is no amount per second.
    pub tres: Vec<Tres>,
    /// Whose they are, in order of account, user and period.
    pub users: Vec<UserOfPeriod>,
    /// TRES-seconds: for each of `users` one of each of `tres`.
    amounts: Vec<u128>,
    /// Records that were understood, without repetitions.
    pub records: u64,
    /// Records whose cpu time is an upper bound, because their suspension could not be split between periods.
    pub inexact: u64,
    /// Rows that were not understood.
    pub rejected: usize,
    /// The first of those with the reason, safe to print.
    pub samples: Vec<String>,
}

/// Whose use of which period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserOfPeriod {
    /// Account as printed.
    pub account: Printed,
    /// User as printed.
    pub user: Printed,
    /// Number of the period, from 0.
    pub period: usize,
}

impl TextTotals {
    /// What each used of each period, as far as it used anything.
    pub fn used(&self) -> impl Iterator<Item = (&UserOfPeriod, TresSeconds)> {
        let amounts = self.amounts.chunks(self.tres.len().max(1));
        self.users.iter().zip(amounts).map(|(user, amounts)| {
            let used = self.tres.iter().zip(amounts).filter(|(_, amount)| **amount > 0);
            (user, TresSeconds(used.map(|(tres, amount)| (tres.clone(), *amount)).collect()))
        })
    }
}

/// Why a text has no totals.
#[derive(Debug, thiserror::Error)]
pub enum TotalsError {
    /// It could not be read.
    #[error("could not read the accounting text")]
    Read(#[from] std::io::Error),
    /// A record came twice: which of them holds is not known.
    #[error("DBIndex {0} is in the accounting text twice; give each record once (sacct over one window)")]
    Repeated(u64),
    /// A row without end.
    #[error("a row of the accounting text is longer than {ROW_BYTES_MAX} bytes; it is not what sacct prints")]
    LongRow,
}

/// How much of one TRES a job holds.
#[derive(Debug, Clone, Copy)]
struct Held {
    tres: usize,
    count: u64,
    is_cpu: bool,
}

/// Adds up rows as they come.
#[derive(Debug)]
struct Adding<'a> {
    periods: &'a [Window],
    now: Epoch,
    /// `None`: not understood.
    allocs: Known<Option<Box<[Held]>>>,
    tres: Vec<Tres>,
    /// Pairs of account and user.
    pairs: Known<()>,
    /// By pair and period, where its sums begin.
    places: Vec<u32>,
    sums: Vec<u128>,
    tres_room: usize,
    records: u64,
    inexact: u64,
    keys: Vec<u64>,
}

/// Reads what sacct printed for the question of the agent and adds it up for `periods`, which do not overlap and are in order.
/// Jobs that run count up to `now`.
///
/// # Errors
/// [`TotalsError`]; rows that are not understood are no error but counted.
pub fn totals(
    mut from: impl Read,
    cluster: &ClusterName,
    periods: &[Window],
    now: Epoch,
) -> Result<TextTotals, TotalsError> {
    let (mut marks, mut rejects, mut shown) = (Marks::default(), Rejects::default(), Shown::default());
    let mut adding = Adding::new(periods, now);
    let mut buffer = vec![0; PIECE_BYTES];
    let mut filled = 0;
    loop {
        if filled == buffer.len() {
            if filled > ROW_BYTES_MAX {
                return Err(TotalsError::LongRow);
            }
            buffer.resize(filled * 2, 0);
        }
        let read = match from.read(&mut buffer[filled..]) {
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        if read == 0 {
            break;
        }
        let newline = memchr::memrchr(b'\n', &buffer[filled..filled + read]);
        let whole = newline.map_or(0, |at| filled + at + 1);
        filled += read;
        adding.read(&buffer[..whole], cluster, &mut marks, &mut rejects);
        buffer.copy_within(whole..filled, 0);
        filled -= whole;
        if adding.keys.len() >= KEYS_AT_ONCE {
            adding.prove_new(&mut shown)?;
        }
    }
    adding.prove_new(&mut shown)?;
    rows::whole_rows(&buffer[..filled], &mut rejects);
    Ok(adding.finish(rejects))
}

impl<'a> Adding<'a> {
    fn new(periods: &'a [Window], now: Epoch) -> Self {
        Adding {
            periods,
            now,
            allocs: Known::new(),
            tres: Vec::new(),
            pairs: Known::new(),
            places: Vec::new(),
            sums: Vec::new(),
            tres_room: TRES_ROOM,
            records: 0,
            inexact: 0,
            keys: Vec::new(),
        }
    }

    fn read(&mut self, text: &[u8], cluster: &ClusterName, marks: &mut Marks, rejects: &mut Rejects) {
        self.allocs.forget_if_many(ALLOCS_MAX, ALLOCS_BYTES_MAX);
        job_rows::each(text, cluster, marks, rejects, |job, _, _| self.add(job));
    }

    fn prove_new(&mut self, shown: &mut Shown) -> Result<(), TotalsError> {
        let keys = std::mem::replace(&mut self.keys, Vec::with_capacity(KEYS_AT_ONCE));
        shown.add(keys).map_or(Ok(()), |dbindex| Err(TotalsError::Repeated(dbindex)))
    }

    #[inline]
    fn add(&mut self, job: JobRow<'_>) -> Result<(), &'static str> {
        let tres = &mut self.tres;
        let alloc = self.allocs.number(job.alloc, |text| alloc(text, tres));
        if self.tres.len() > self.tres_room {
            self.make_room();
        }
        let Some(held) = self.allocs.get(alloc) else { return Err(ALLOC_UNCLEAR) };
        self.keys.push(job.dbindex);
        self.records += 1;
        let Some(start) = job.start else { return Ok(()) };
        let run = Window::new(start.max(job.submit), job.end.unwrap_or(self.now));
        let first = self.periods.partition_point(|period| period.until <= run.from);
        if run.seconds() == 0 || held.is_empty() {
            return Ok(());
        }
        let mut exact = true;
        for (number, period) in self.periods.iter().enumerate().skip(first) {
            let inside = run.overlap(*period);
            let wall_s = inside.seconds();
            if wall_s == 0 {
                break;
            }
            let pair = self.pairs.number(job.account_and_user, |_| ());
            let place = pair as usize * self.periods.len() + number;
            if place >= self.places.len() {
                self.places.resize((pair as usize + 1) * self.periods.len(), NONE);
            }
            if self.places[place] == NONE {
                self.places[place] = (self.sums.len() / self.tres_room) as u32;
                self.sums.resize(self.sums.len() + self.tres_room, 0);
            }
            let from = self.places[place] as usize * self.tres_room;
            let sums = &mut self.sums[from..from + self.tres_room];
            let whole_run = inside == run;
            exact &= job.suspended_s == 0 || whole_run;
            let cpu_s = if whole_run { wall_s.saturating_sub(job.suspended_s) } else { wall_s };
            for held in held {
                let seconds = if held.is_cpu { cpu_s } else { wall_s };
                sums[held.tres] += u128::from(held.count) * u128::from(seconds);
            }
        }
        self.inexact += u64::from(!exact);
        Ok(())
    }

    /// Moves the sums apart, so that there is room for more TRES.
    #[cold]
    fn make_room(&mut self) {
        let room = self.tres_room;
        while self.tres.len() > self.tres_room {
            self.tres_room *= 2;
        }
        let mut sums = vec![0; self.sums.len() / room * self.tres_room];
        for (old, new) in self.sums.chunks(room).zip(sums.chunks_mut(self.tres_room)) {
            new[..room].copy_from_slice(old);
        }
        self.sums = sums;
    }

    fn finish(self, rejects: Rejects) -> TextTotals {
        let mut found = TextTotals {
            tres: self.tres,
            records: self.records,
            inexact: self.inexact,
            rejected: rejects.count,
            samples: rejects.samples,
            ..TextTotals::default()
        };
        let periods = self.periods.len().max(1);
        let mut pairs: Vec<(Printed, Printed, &[u32])> = Vec::new();
        for ((pair, ()), places) in self.pairs.iter().zip(self.places.chunks(periods)) {
            let Some(between) = memchr::memchr(SEPARATOR, pair) else { continue };
            let text = |bytes| Printed::from(rows::text(bytes));
            pairs.push((text(&pair[..between]), text(&pair[between + 1..]), places));
        }
        pairs.sort();
        // Names that differ only in bytes that are not UTF-8 are one name when printed.
        for same in pairs.chunk_by(|one, other| (&one.0, &one.1) == (&other.0, &other.1)) {
            for period in 0..periods {
                let places = same.iter().map(|(_, _, places)| places[period]).filter(|place| *place != NONE);
                let mut amounts = vec![0; found.tres.len()];
                for place in places {
                    let sums = &self.sums[place as usize * self.tres_room..];
                    amounts.iter_mut().zip(sums).for_each(|(amount, sum)| *amount += sum);
                }
                if amounts.iter().any(|amount| *amount > 0) {
                    let (account, user) = (same[0].0.clone(), same[0].1.clone());
                    found.users.push(UserOfPeriod { account, user, period });
                    found.amounts.extend(amounts);
                }
            }
        }
        found
    }
}

/// AllocTRES with numbers for its TRES. energy is no amount per second.
#[cold]
fn alloc(text: &[u8], tres: &mut Vec<Tres>) -> Option<Box<[Held]>> {
    let mut number = |wanted: Tres| {
        tres.iter().position(|known| *known == wanted).unwrap_or_else(|| {
            tres.push(wanted);
            tres.len() - 1
        })
    };
    let counts = tres_text::counts(text)?.into_iter().filter(|(tres, _)| tres.as_str() != "energy");
    Some(
        counts.map(|(tres, count)| Held { is_cpu: tres == Tres::cpu(), tres: number(tres), count }).collect(),
    )
}
