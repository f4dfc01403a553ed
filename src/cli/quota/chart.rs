//! `quota history`: how limit, usage and threshold of a quota were, drawn in the terminal.

use std::io::IsTerminal;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::view;
use crate::agent::error::AgentError;
use crate::central::waldur::{HISTORY_POINTS_MAX, HistoryPoint, HistoryPoints};
use crate::core::name::AccountName;
use crate::core::quota::{Bound, BudgetQuota};
use crate::core::time::Epoch;

/// How limit, usage and threshold were. Waldur.
///
/// Drawn over time; where the server knows nothing the chart is empty. An unlimited limit has no line.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// Quota or account.
    pub what: String,
    /// So long until now.
    #[arg(long, value_name = "SPAN", default_value = "30days", value_parser = humantime::parse_duration)]
    last: Duration,
    /// From this instant instead (RFC 3339).
    #[arg(long, value_name = "INSTANT", value_parser = instant)]
    from: Option<Epoch>,
    /// To this instant [default: now].
    #[arg(long, value_name = "INSTANT", value_parser = instant)]
    to: Option<Epoch>,
    /// So many points, both ends included [default: the width of the chart; 31 with --json].
    #[arg(long, value_name = "N")]
    points: Option<usize>,
}

/// Points of a history for scripts, unless asked otherwise.
const POINTS: usize = 31;
/// Width where no terminal has one.
const WIDTH: usize = 80;
/// Lines between the axes; an odd number has a middle.
const ROWS: usize = 13;
/// Columns of the chart, beside its margin: narrower says nothing, wider is not read.
const COLUMNS: (usize, usize) = (20, 120);
/// Columns that are kept for the amounts at the side.
const MARGIN: usize = 14;

fn instant(text: &str) -> Result<Epoch, String> {
    let instant: Result<jiff::Timestamp, _> = text.parse();
    instant
        .map(|instant| Epoch(instant.as_second()))
        .map_err(|error| format!("{error}; give an instant such as 2026-11-22T12:00:00Z"))
}

impl HistoryArgs {
    /// The instants that are asked for.
    pub fn points(&self, now: Epoch, json: bool) -> Result<HistoryPoints, AgentError> {
        let end = self.to.unwrap_or(now);
        let span = i64::try_from(self.last.as_secs()).unwrap_or(i64::MAX);
        let start = self.from.unwrap_or_else(|| end.plus(-span));
        if start >= end {
            return Err(AgentError::Asked(format!(
                "from {start} to {end} there is no time; give an earlier --from"
            )));
        }
        let default = if json { POINTS } else { columns() };
        let count = self.points.unwrap_or(default);
        if !(2..=HISTORY_POINTS_MAX).contains(&count) {
            return Err(AgentError::Asked(format!("--points {count}: give 2 to {HISTORY_POINTS_MAX}")));
        }
        Ok(HistoryPoints::Between { start, end, count })
    }
}

/// Columns of the chart in this terminal.
fn columns() -> usize {
    let terminal = std::io::stdout().is_terminal().then(terminal_size::terminal_size).flatten();
    let width = terminal.map_or(WIDTH, |(columns, _)| usize::from(columns.0));
    width.saturating_sub(MARGIN).clamp(COLUMNS.0, COLUMNS.1)
}

/// The characters that a chart is made of.
#[derive(Debug, Clone, Copy)]
struct Ink {
    usage: char,
    limit: char,
    threshold: char,
    side: char,
    corner: char,
    bottom: char,
}

const PLAIN: Ink = Ink { usage: '*', limit: '=', threshold: '-', side: '|', corner: '+', bottom: '-' };
const LINES: Ink =
    Ink { usage: '●', limit: '━', threshold: '┄', side: '│', corner: '└', bottom: '─' };

/// The ink of this terminal: lines where its locale says UTF-8.
fn ink() -> Ink {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG")).unwrap_or_default();
    let locale = locale.to_ascii_lowercase();
    if locale.ends_with("utf-8") || locale.ends_with("utf8") { LINES } else { PLAIN }
}

/// A history for people.
pub fn shown(title: &str, points: &[HistoryPoint]) -> String {
    draw(title, points, ink())
}

/// A history for scripts.
pub fn json(id: &str, account: Option<&AccountName>, points: &[HistoryPoint]) -> Value {
    let point = |point: &HistoryPoint| {
        let quota = point.quota.as_ref().map(|quota| view::json_of(quota, account));
        let field = |name: &str| quota.as_ref().map_or(Value::Null, |quota| quota[name].clone());
        json!({
            "at": point.at.to_string(),
            "known": quota.is_some(),
            "limit": field("limit"),
            "usage": field("usage"),
            "threshold": field("threshold"),
        })
    };
    json!({"id": id, "account": account, "points": points.iter().map(point).collect::<Vec<_>>()})
}

fn limit_of(quota: &BudgetQuota) -> Option<f64> {
    match quota.limit {
        Bound::Unlimited => None,
        Bound::AtMost(most) => Some(most.to_f64()),
    }
}

fn threshold_of(quota: &BudgetQuota) -> Option<f64> {
    quota.threshold.map(|threshold| threshold.to_f64()).filter(|threshold| *threshold > 0.0)
}

fn usage_of(quota: &BudgetQuota) -> Option<f64> {
    Some(quota.usage.to_f64())
}

/// One line of the chart.
struct Line {
    name: &'static str,
    mark: char,
    /// What it shows of a quota; none where there is nothing to show.
    of: fn(&BudgetQuota) -> Option<f64>,
}

/// The lines in the order in which they are drawn: the usage last, since it is what the others are looked at for.
fn lines(ink: Ink) -> [Line; 3] {
    [
        Line { name: "threshold", mark: ink.threshold, of: threshold_of },
        Line { name: "limit", mark: ink.limit, of: limit_of },
        Line { name: "usage", mark: ink.usage, of: usage_of },
    ]
}

fn draw(title: &str, points: &[HistoryPoint], ink: Ink) -> String {
    let (Some(first), Some(last)) = (points.first(), points.last()) else {
        return format!("{title}\n\nThe server has nothing from this time.\n");
    };
    let lines = lines(ink);
    let known = || points.iter().filter_map(|point| point.quota.as_ref());
    let amounts = || lines.iter().flat_map(|line| known().filter_map(line.of));
    if known().next().is_none() {
        return format!("{title}\n\nThe server has nothing from {} to {}.\n", first.at, last.at);
    }
    let top = amounts().fold(0.0, f64::max);
    // Where nothing is above 0 everything lies at the bottom.
    let scale = if top > 0.0 { top } else { f64::INFINITY };
    let row_of = |amount: f64| ((1.0 - amount.max(0.0) / scale) * (ROWS - 1) as f64).round() as usize;
    let mut canvas = vec![vec![' '; points.len()]; ROWS];
    for Line { of, mark, .. } in &lines {
        for (column, point) in points.iter().enumerate() {
            if let Some(amount) = point.quota.as_ref().and_then(of) {
                canvas[row_of(amount)][column] = *mark;
            }
        }
    }
    let labels = labels(scale, row_of);
    let margin = labels.iter().map(String::len).max().unwrap_or_default();
    let mut text = format!("{title}\n\n");
    for (row, label) in canvas.iter().zip(&labels) {
        let line: String = row.iter().collect();
        text.push_str(format!("{label:>margin$} {}{line}", ink.side).trim_end());
        text.push('\n');
    }
    let bottom: String = std::iter::repeat_n(ink.bottom, points.len()).collect();
    text.push_str(&format!("{:margin$} {}{bottom}\n", "", ink.corner));
    let (from, to) = (first.at.to_string(), last.at.to_string());
    let gap = points.len().saturating_sub(from.len() + to.len()).max(1);
    text.push_str(&format!("{:margin$}  {from}{}{to}\n\n", "", " ".repeat(gap)));
    text.push_str(&legend(known().next_back(), &lines));
    text
}

/// The amounts at the side: the top, the middle, nothing.
fn labels(scale: f64, row_of: impl Fn(f64) -> usize) -> Vec<String> {
    let mut labels = vec![String::new(); ROWS];
    for amount in [scale, scale / 2.0, 0.0].into_iter().filter(|amount| amount.is_finite()) {
        labels[row_of(amount)] = short(amount);
    }
    labels
}

/// An amount in at most so many digits that it stands at the side.
fn short(amount: f64) -> String {
    for (unit, word) in [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")] {
        if amount >= unit {
            let unit = if word == "k" { 1e3 } else { unit };
            return format!("{}{word}", (amount / unit * 100.0).round() / 100.0);
        }
    }
    ((amount * 100.0).round() / 100.0).to_string()
}

/// What the marks are, with the newest amounts.
fn legend(newest: Option<&BudgetQuota>, lines: &[Line]) -> String {
    let Some(newest) = newest else { return String::new() };
    let amount = |name: &str| match name {
        "usage" => newest.usage.to_string(),
        "limit" => view::bound(newest.limit),
        _ => threshold_of(newest).map_or_else(|| "-".to_owned(), |threshold| threshold.to_string()),
    };
    let words: Vec<String> =
        lines.iter().rev().map(|Line { name, mark, .. }| format!("{mark} {name} {}", amount(name))).collect();
    format!("{}\n", words.join("   "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::exact::Exact;

    fn point(at: i64, known: Option<(Bound, i128, i128)>) -> HistoryPoint {
        let quota = known.map(|(limit, usage, threshold)| BudgetQuota {
            id: "1".into(),
            name: "cpu".into(),
            scope: "s".into(),
            limit,
            usage: Exact::whole(usage),
            threshold: Some(Exact::whole(threshold)),
        });
        HistoryPoint { at: Epoch(1_795_312_800 + at * 86_400), quota }
    }

    /// Nothing known for a tenth, then a use that grows; the limit is raised in the middle.
    fn month() -> Vec<HistoryPoint> {
        (0..44)
            .map(|at| {
                let limit = Bound::AtMost(Exact::whole(if at < 22 { 600 } else { 1100 }));
                point(at, (at >= 4).then_some((limit, i128::from(at) * 20, 500)))
            })
            .collect()
    }

    #[test]
    fn usage_grows_toward_the_limit_and_what_is_unknown_is_empty() {
        let expected = "\
cpu of bio42, minutes

1100 |                      ======================
     |
     |
     |                                       *****
     |                                   ****
     |    ==================        *****
 550 |                          ****
     |    -----------------*****------------------
     |                 ****
     |            *****
     |       *****
     |    ***
   0 |
     +--------------------------------------------
      2026-11-22T02:00:00Z    2027-01-04T02:00:00Z

* usage 860   = limit 1100   - threshold 500
";
        let drawn = draw("cpu of bio42, minutes", &month(), PLAIN);
        assert_eq!(drawn, expected, "\n{drawn}");
    }

    #[test]
    fn lines_and_plain_characters_draw_the_same_and_no_line_is_wider_than_asked() {
        let (plain, lines) = (draw("t", &month(), PLAIN), draw("t", &month(), LINES));
        assert!(plain.is_ascii() && !lines.is_ascii());
        let marks = [('●', '*'), ('━', '='), ('┄', '-'), ('│', '|'), ('└', '+'), ('─', '-')];
        let back = marks.iter().fold(lines, |text, (line, plain)| text.replace(*line, &plain.to_string()));
        assert_eq!(back, plain);
        assert!(plain.lines().all(|line| line.chars().count() <= 44 + MARGIN), "{plain}");
    }

    #[test]
    fn an_unlimited_quota_has_no_line_and_one_that_nobody_used_has_one_at_the_bottom() {
        let points: Vec<HistoryPoint> = (0..20).map(|at| point(at, Some((Bound::Unlimited, 0, 0)))).collect();
        let drawn = draw("t", &points, PLAIN);
        assert!(drawn.contains("\n0 |********************\n"), "{drawn}");
        assert!(
            drawn.matches('=').count() == 1
                && drawn.contains("limit unlimited")
                && drawn.contains("threshold -"),
            "{drawn}"
        );
        let nothing = draw("t", &[point(0, None), point(1, None)], PLAIN);
        assert!(nothing.contains("The server has nothing from 2026-11-22T02:00:00Z to"), "{nothing}");
    }

    #[test]
    fn large_amounts_are_shortened_at_the_side() {
        for (amount, text) in [
            (0.0, "0"),
            (9999.0, "9999"),
            (12_500.0, "12.5k"),
            (2_345_678.0, "2.35M"),
            (3e9, "3G"),
            (0.125, "0.13"),
        ] {
            assert_eq!(short(amount), text);
        }
    }
}
