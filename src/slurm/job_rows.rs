//! Rows of sacct's answer to the question for job records -> values, without an allocation per row.

use super::digits::whole;
use super::marks::{Marks, Row};
use super::rows::{self, Rejects};
use super::sacct::SEPARATOR;
use crate::core::name::ClusterName;
use crate::core::time::Epoch;

/// What one row says. Texts are bytes as they came.
#[derive(Debug, Clone, Copy)]
pub(super) struct JobRow<'a> {
    pub dbindex: u64,
    pub job_id: u64,
    pub account: &'a [u8],
    pub user: &'a [u8],
    /// Account, separator and user: one text for both.
    pub account_and_user: &'a [u8],
    pub state: &'a [u8],
    pub submit: Epoch,
    pub eligible: Option<Epoch>,
    pub start: Option<Epoch>,
    pub end: Option<Epoch>,
    pub suspended_s: u64,
    pub elapsed_s: u64,
    pub partition: &'a [u8],
    pub qos: &'a [u8],
    pub assoc_id: Option<u64>,
    /// AllocTRES, not looked at.
    pub alloc: &'a [u8],
}

/// Why a row was rejected whose AllocTRES is not understood.
pub(super) const ALLOC_UNCLEAR: &str = "AllocTRES is no list of counts";

/// Calls `f` with every row of `text`, which ends with a newline or is empty, that is understood but for its AllocTRES;
/// `f` says whether it understood that. All others are rejected.
pub(super) fn each(
    text: &[u8],
    cluster: &ClusterName,
    marks: &mut Marks,
    rejects: &mut Rejects,
    mut f: impl FnMut(JobRow<'_>, &[u8], &mut Rejects) -> Result<(), &'static str>,
) {
    marks.each_row(text, SEPARATOR, |row| {
        let read = job(row, cluster).and_then(|job| f(job, row.text, rejects));
        if let Err(reason) = read {
            rejects.add(row.text, reason);
        }
    });
}

#[inline]
fn job<'a>(row: Row<'a>, wanted: &ClusterName) -> Result<JobRow<'a>, &'static str> {
    let [
        cluster,
        dbindex,
        job_id,
        account,
        user,
        state,
        submit,
        eligible,
        start,
        end,
        suspended,
        elapsed,
        partition,
        qos,
        assoc_id,
        alloc,
    ] = row.fields().ok_or("not 16 fields")?;
    let wanted = wanted.as_str().as_bytes();
    if cluster != wanted && !cluster.eq_ignore_ascii_case(wanted) {
        return Err("another cluster");
    }
    let pair_from = cluster.len() + dbindex.len() + job_id.len() + 3;
    Ok(JobRow {
        dbindex: whole(dbindex).filter(|index| *index != 0).ok_or("DBIndex is no number")?,
        job_id: whole(job_id).ok_or("JobIDRaw is no number")?,
        account,
        user,
        account_and_user: &row.text[pair_from..pair_from + account.len() + 1 + user.len()],
        state,
        submit: instant(submit).flatten().ok_or("Submit is no time")?,
        eligible: instant(eligible).ok_or("Eligible is no time")?,
        start: instant(start).ok_or("Start is no time")?,
        end: instant(end).ok_or("End is no time")?,
        suspended_s: duration_s(suspended).ok_or("Suspended is no duration")?,
        elapsed_s: whole(elapsed).ok_or("ElapsedRaw is no number")?,
        partition,
        qos,
        assoc_id: id_if_any(assoc_id).ok_or("AssocID is no number")?,
        alloc,
    })
}

#[inline]
fn instant(field: &[u8]) -> Option<Option<Epoch>> {
    match whole(field) {
        // 10 digits at most: an instant that can be printed.
        Some(seconds @ 1..=9_999_999_999) => Some(Some(Epoch(seconds.cast_signed()))),
        _ => rows::instant(field),
    }
}

#[inline]
fn duration_s(field: &[u8]) -> Option<u64> {
    if field == b"00:00:00" { Some(0) } else { rows::duration_s(field) }
}

#[inline]
fn id_if_any(field: &[u8]) -> Option<Option<u64>> {
    if field.is_empty() { Some(None) } else { whole(field).map(|id| Some(id).filter(|id| *id != 0)) }
}
