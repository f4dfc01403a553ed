//! sreport: usage as slurmdbd has rolled it up, for the audit of the ledger.
//!
//! A witness, never the source: hours not yet rolled up are simply absent with rc 0, re-rolled hours change, an
//! unknown TRES is dropped without a word, and from 23.11 `_` and `%` in account names match as wildcards.

use super::argv::{Argv, Program};
use super::rows::{self, Rejects};
use crate::core::name::ClusterName;
use crate::core::time::Window;
use crate::core::tres::Tres;

/// Seconds of an hour, the grain of the roll-up.
const HOUR_S: i64 = 3600;

/// Usage of one TRES by an account and everything below it, or by one user in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SreportRow {
    /// Account as printed.
    pub account: String,
    /// User; `None` for the account with everything below it.
    pub user: Option<String>,
    /// What was used.
    pub tres: Tres,
    /// TRES-seconds (memory MB-seconds).
    pub seconds: u128,
}

/// Whether both edges are whole hours; sreport would round others. In a half-hour time zone of slurmdbd the hours that it
/// rolls up are not those of UTC, and no such window means there what it says.
pub(super) fn is_whole_hours(window: Window) -> bool {
    window.from < window.until && window.from.0 % HOUR_S == 0 && window.until.0 % HOUR_S == 0
}

/// The question for the usage in a window. Proper names, which hold anything, are not asked for.
pub(super) fn argv(cluster: &ClusterName, window: Window, tres: &[Tres]) -> Argv {
    let names = tres.iter().map(Tres::as_str).collect::<Vec<_>>().join(",");
    let args = [
        "-nP".to_owned(),
        "-t".to_owned(),
        "Seconds".to_owned(),
        "-T".to_owned(),
        names,
        "cluster".to_owned(),
        "AccountUtilizationByUser".to_owned(),
        format!("cluster={cluster}"),
        format!("start=uts{}", window.from.0),
        format!("end=uts{}", window.until.0),
        "format=Cluster,Account,Login,TresName,Used".to_owned(),
    ];
    Argv::reading(Program::Sreport, args)
}

/// Reads the rows of `cluster`.
pub fn parse(answer: &[u8], cluster: &ClusterName) -> Vec<SreportRow> {
    read(answer, cluster).0
}

/// As [`parse`], with what was rejected.
pub(super) fn read(answer: &[u8], cluster: &ClusterName) -> (Vec<SreportRow>, Rejects) {
    let mut rejects = Rejects::default();
    let mut found = Vec::new();
    for row in rows::complete_rows(answer, &mut rejects) {
        match parse_row(row, cluster) {
            Some(usage) => found.push(usage),
            None => rejects.add(row, "not cluster, account, login, TRES and seconds"),
        }
    }
    (found, rejects)
}

fn parse_row(row: &[u8], wanted: &ClusterName) -> Option<SreportRow> {
    let [cluster, account, login, tres, used] = rows::fields(row, b'|')?;
    if !cluster.eq_ignore_ascii_case(wanted.as_str().as_bytes()) || account.is_empty() {
        return None;
    }
    Some(SreportRow {
        account: rows::text(account),
        user: (!login.is_empty()).then(|| rows::text(login)),
        tres: Tres::parse(std::str::from_utf8(tres).ok()?).ok()?,
        seconds: rows::number(used)?,
    })
}
