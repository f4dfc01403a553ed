//! Where the rules of quotas stand, as a table that several verbs show.

use super::evaluate_now::decimal;
use super::render;
use crate::core::quota_rules::QuotaStanding;

/// The table; nothing when there are no rules.
pub fn table<'a>(standings: impl Iterator<Item = &'a QuotaStanding>) -> String {
    render::table(
        "QUOTAS",
        &["Account", "User", "Source", "Quota", "Rule", "Used", "Of", "Level", "Back"],
        standings.map(row).collect(),
    )
}

fn row(standing: &QuotaStanding) -> Vec<String> {
    vec![
        standing.account.to_string(),
        standing.user.as_ref().map_or("-".to_owned(), ToString::to_string),
        standing.source.to_string(),
        standing.quota.clone(),
        standing.rule.clone(),
        standing.used.map_or("-".to_owned(), decimal),
        decimal(standing.limit),
        standing.level.to_string(),
        back(standing),
    ]
}

/// When submissions come back.
fn back(standing: &QuotaStanding) -> String {
    match (standing.is_stopped(), standing.back_earliest, standing.back_running) {
        (false, _, _) => "-".to_owned(),
        (true, None, _) => "never".to_owned(),
        (true, Some(at), running) if running == Some(at) => at.to_string(),
        (true, Some(at), Some(later)) => format!("{at}, or {later} if what runs goes on"),
        (true, Some(at), None) => format!("{at}, once what runs has ended"),
    }
}
