//! The burn-down of a preview, drawn with plain characters: what is left until the account is blocked, day by day.

use jiff::Span;
use jiff::civil::Date;

/// Lines between the axes.
const ROWS: usize = 10;
/// Fewest and most columns of the curve; narrower says nothing, wider is not read.
const COLUMNS: (usize, usize) = (20, 100);
/// Columns of the threshold's names, right of the curve.
const NAMES: usize = 24;
/// Longest time that is drawn where neither the period nor the budget ends before.
const DAYS_MAX: f64 = 366.0;

/// What is drawn; amounts in the preview's unit.
#[derive(Debug, Clone, Copy)]
pub struct BurnDown {
    /// Used so far.
    pub used: f64,
    /// Used per day.
    pub daily: f64,
    /// 80 %.
    pub notification: f64,
    /// 100 %.
    pub slowdown: f64,
    /// The grace limit.
    pub blocked: f64,
    /// The first day.
    pub today: Date,
    /// The last day of the period.
    pub last: Option<Date>,
}

impl BurnDown {
    /// The chart in at most `width` columns, or one line that says why there is none.
    pub fn draw(&self, width: usize) -> String {
        let left = self.blocked - self.used;
        if left <= 0.0 {
            return "Nothing is left until blocked.\n".to_owned();
        }
        if self.daily <= 0.0 {
            return format!("{left:.2} left until blocked, and nothing is being used.\n");
        }
        let days = self.days(left);
        let marks = [
            (self.blocked - self.notification, "notification"),
            (self.blocked - self.slowdown, "slowdown"),
            (0.0, "blocked"),
        ];
        let top = marks.iter().fold(left, |top, (amount, _)| top.max(*amount));
        let row_of = |amount: f64| ((1.0 - amount.max(0.0) / top) * ROWS as f64).round() as usize;
        let labels: Vec<String> = (0..=ROWS)
            .map(|row| {
                let mark = marks.iter().find(|(amount, _)| row_of(*amount) == row).map(|(amount, _)| *amount);
                let start = (row == row_of(left)).then_some(left);
                mark.or(start).map_or_else(String::new, |amount| format!("{amount:.2}"))
            })
            .collect();
        let margin = labels.iter().map(String::len).max().unwrap_or_default();
        let columns = width.saturating_sub(margin + NAMES + 3).clamp(COLUMNS.0, COLUMNS.1);
        let curve: Vec<usize> = (0..columns)
            .map(|column| row_of(left - self.daily * days * column as f64 / (columns - 1) as f64))
            .collect();
        let mut text = format!("Left until blocked, if use goes on at {:.2} a day\n\n", self.daily);
        for (row, label) in labels.iter().enumerate() {
            let names: Vec<&str> =
                marks.iter().filter(|(amount, _)| row_of(*amount) == row).map(|(_, name)| *name).collect();
            let ground = if names.is_empty() { ' ' } else { '-' };
            let line: String = curve.iter().map(|at| if *at == row { '*' } else { ground }).collect();
            let line = format!("{label:>margin$} |{line} {}", names.join(", "));
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text.push_str(&self.axis(days, margin, columns));
        text
    }

    /// Days that are drawn: to the end of the period, else until nothing is left.
    fn days(&self, left: f64) -> f64 {
        let to_last = self.last.and_then(|last| {
            let days = self.today.until((jiff::Unit::Day, last)).ok()?.get_days();
            Some(f64::from(days) + 1.0).filter(|days| *days >= 1.0)
        });
        to_last.unwrap_or_else(|| (left / self.daily).ceil().clamp(1.0, DAYS_MAX))
    }

    fn axis(&self, days: f64, margin: usize, columns: usize) -> String {
        let end = Span::new().try_days(days as i64).ok().and_then(|span| self.today.checked_add(span).ok());
        let (first, end) = (self.today.to_string(), end.map_or_else(String::new, |end| end.to_string()));
        let gap = columns.saturating_sub(first.len() + end.len()).max(1);
        let indent = " ".repeat(margin + 2);
        format!("{:margin$} +{}\n{indent}{first}{}{end}\n", "", "-".repeat(columns), " ".repeat(gap))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn burn_down() -> BurnDown {
        BurnDown {
            used: 900.0,
            daily: 50.0,
            notification: 1040.0,
            slowdown: 1300.0,
            blocked: 1560.0,
            today: "2026-11-22".parse().unwrap(),
            last: None,
        }
    }

    #[test]
    fn the_curve_falls_from_today_until_nothing_is_left() {
        // 660 left at 50 a day: 14 days. 520 and 260 are where notification and slowdown begin.
        let expected = "\
Left until blocked, if use goes on at 50.00 a day

660.00 |**
       |  ***
520.00 |-----**----------------------- notification
       |       ***
       |          ***
       |             ***
260.00 |----------------**------------ slowdown
       |                  ***
       |                     ***
       |                        **
  0.00 |--------------------------**** blocked
       +------------------------------
        2026-11-22          2026-12-06
";
        assert_eq!(burn_down().draw(63), expected);
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_and_none_holds_an_escape() {
        for width in [60, 80, 132, 400] {
            let text = burn_down().draw(width);
            assert!(text.lines().all(|line| line.len() <= width), "{width}: {text}");
            assert!(text.chars().all(|c| c == '\n' || (' '..='~').contains(&c)), "{text}");
        }
    }

    #[test]
    fn the_end_of_the_period_ends_the_chart_and_thresholds_in_one_place_share_a_line() {
        let month = BurnDown { last: Some("2026-11-30".parse().unwrap()), slowdown: 1560.0, ..burn_down() };
        let text = month.draw(80);
        assert!(text.contains("2026-12-01") && text.contains("slowdown, blocked"), "{text}");
        assert!(!text.lines().any(|line| line.contains("blocked") && line.contains('*')), "{text}");
    }

    #[test]
    fn without_use_or_without_a_rest_a_sentence_says_so() {
        assert_eq!(BurnDown { used: 1560.0, ..burn_down() }.draw(80), "Nothing is left until blocked.\n");
        let idle = BurnDown { daily: 0.0, ..burn_down() }.draw(80);
        assert_eq!(idle, "660.00 left until blocked, and nothing is being used.\n");
    }
}
