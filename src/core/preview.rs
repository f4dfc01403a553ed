//! The server's preview of a policy, computed here: thresholds, carryover and the days on which they will be
//! reached (formulas: the policy API's `preview_impact`). Projections of the agent's own decisions are exact ([`project`]).

use serde::Serialize;

use super::evaluate::Level;
use super::exact::Exact;
use super::period::Period;
use super::time::Epoch;

/// Longest projection that is shown, in days; beyond it nobody plans.
pub const PROJECTION_DAYS_MAX: i128 = 36_500;
/// Share of the total at which the server's preview notifies.
pub const NOTIFICATION_RATIO: f64 = 0.8;

/// What a preview starts from; amounts in one unit of the asker's choice. Binary fractions, as the server's: a preview that
/// is to show the same numbers has to round the same way. No decision is made from it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PreviewInput {
    /// Granted for the period.
    pub allocation: f64,
    /// Tolerated share above it.
    pub grace_ratio: f64,
    /// Used in the previous period; carryover applies when it is above 0.
    pub previous_usage: f64,
    /// Whether anything is carried over.
    pub carryover_enabled: bool,
    /// Most that is carried over, percent of the allocation.
    pub carryover_factor: u32,
    /// Used so far.
    pub current_usage: f64,
    /// Used per day.
    pub daily_usage_rate: f64,
}

impl Default for PreviewInput {
    /// What the server takes where a request says nothing.
    fn default() -> Self {
        PreviewInput {
            allocation: 1000.0,
            grace_ratio: 0.2,
            previous_usage: 0.0,
            carryover_enabled: true,
            carryover_factor: 50,
            current_usage: 0.0,
            daily_usage_rate: 0.0,
        }
    }
}

/// When a threshold will be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "status")]
pub enum Projection {
    /// Nothing is being used.
    Never,
    /// It is reached already.
    Exceeded,
    /// In so many whole days.
    Projected {
        /// Days from now.
        days: i128,
    },
}

/// What goes over from the previous period; amounts rounded to 2 decimals.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Carried {
    /// Not used in the previous period.
    pub unused: f64,
    /// Most that goes over.
    pub cap: f64,
    /// What goes over.
    pub carryover: f64,
    /// base + carryover
    pub total: f64,
}

/// The preview; amounts rounded to 2 decimals as Python's `round` does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Preview {
    /// `None` when carryover is off or nothing is known of the previous period.
    pub carried: Option<Carried>,
    /// base + carryover
    pub effective: f64,
    /// 80 %.
    pub notification: f64,
    /// 100 %.
    pub slowdown: f64,
    /// (1 + grace) x 100 %.
    pub blocked: f64,
    /// 100 x current / effective, 1 decimal; 0 when nothing is granted.
    pub percent: f64,
    /// Where that stands.
    pub level: Level,
    /// When 80 % is reached.
    pub notification_at: Projection,
    /// When 100 % is reached.
    pub slowdown_at: Projection,
    /// When the grace limit is reached.
    pub blocked_at: Projection,
}

/// Computes what the policy API's `preview_impact` answers for these numbers.
pub fn preview(input: &PreviewInput) -> Preview {
    let carried = (input.carryover_enabled && input.previous_usage > 0.0).then(|| {
        let unused = (input.allocation - input.previous_usage).max(0.0);
        let cap = f64::from(input.carryover_factor) / 100.0 * input.allocation;
        let carryover = unused.min(cap);
        Carried {
            unused: rounded(unused, 2),
            cap: rounded(cap, 2),
            carryover: rounded(carryover, 2),
            total: rounded(input.allocation + carryover, 2),
        }
    });
    let effective = carried.map_or(input.allocation, |carried| carried.total);
    let notification = rounded(effective * NOTIFICATION_RATIO, 2);
    let slowdown = rounded(effective, 2);
    let blocked = rounded(effective * (1.0 + input.grace_ratio), 2);
    let used = input.current_usage;
    let level = if used >= blocked {
        Level::Blocked
    } else if used >= slowdown {
        Level::Slowdown
    } else if used >= notification {
        Level::Notification
    } else {
        Level::Normal
    };
    let at = |threshold| foresee(used, threshold, input.daily_usage_rate);
    Preview {
        carried,
        effective,
        notification,
        slowdown,
        blocked,
        percent: if effective > 0.0 { rounded(used / effective * 100.0, 1) } else { 0.0 },
        level,
        notification_at: at(notification),
        slowdown_at: at(slowdown),
        blocked_at: at(blocked),
    }
}

/// The server's projection: whole days, and less than a day away counts as reached.
fn foresee(used: f64, threshold: f64, daily: f64) -> Projection {
    if used >= threshold {
        return Projection::Exceeded;
    }
    if daily <= 0.0 {
        return Projection::Never;
    }
    match ((threshold - used) / daily).trunc() as i64 {
        0 => Projection::Exceeded,
        days => Projection::Projected { days: i128::from(days) },
    }
}

/// Rounds the exact binary value, halves to the even digit, as Python's `round` and as formatting with a precision does.
fn rounded(value: f64, decimals: usize) -> f64 {
    format!("{value:.decimals$}").parse().unwrap_or(value)
}

/// When usage that grows by `daily` reaches `threshold`.
pub fn project(used: Exact, threshold: Exact, daily: Exact) -> Option<Projection> {
    if used >= threshold {
        return Some(Projection::Exceeded);
    }
    if daily <= Exact::ZERO {
        return Some(Projection::Never);
    }
    let days = threshold.minus(used)?.over(daily)?.floor();
    Some(if days > PROJECTION_DAYS_MAX { Projection::Never } else { Projection::Projected { days } })
}

/// Mean use per day since the period began; `None` before a full minute has passed.
pub fn daily_rate(used: Exact, period: &Period, now: Epoch) -> Option<Exact> {
    let elapsed_s = now.since(period.start);
    if elapsed_s < 60 {
        return None;
    }
    used.times(Exact::fraction(86_400, i128::from(elapsed_s))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact(text: &str) -> Exact {
        Exact::parse(text).unwrap()
    }

    #[test]
    fn a_preview_equals_the_servers_formulas() {
        // base 1000, 700 used before: 300 unused, at most 50 % = 500 -> carryover 300, effective 1300.
        // Thresholds 1040, 1300, 1560. At 900 used and 50 a day: (1040-900)/50 = 2.8 -> 2 days; 8; 13.2 -> 13.
        let input = PreviewInput {
            previous_usage: 700.0,
            current_usage: 900.0,
            daily_usage_rate: 50.0,
            ..PreviewInput::default()
        };
        let seen = preview(&input);
        let carried = Carried { unused: 300.0, cap: 500.0, carryover: 300.0, total: 1300.0 };
        assert_eq!(seen.carried, Some(carried));
        assert_eq!((seen.notification, seen.slowdown, seen.blocked), (1040.0, 1300.0, 1560.0));
        assert_eq!(seen.notification_at, Projection::Projected { days: 2 });
        assert_eq!(seen.slowdown_at, Projection::Projected { days: 8 });
        assert_eq!(seen.blocked_at, Projection::Projected { days: 13 });
        // 900 / 1300 = 69.23 %
        assert_eq!((seen.percent, seen.level), (69.2, Level::Normal));
        assert_eq!(preview(&PreviewInput { carryover_enabled: false, ..input }).carried, None);
    }

    #[test]
    fn less_than_a_day_away_counts_as_reached_and_an_empty_allocation_as_used_up() {
        let soon = PreviewInput { current_usage: 799.0, daily_usage_rate: 2.0, ..PreviewInput::default() };
        assert_eq!(preview(&soon).notification_at, Projection::Exceeded);
        let empty = PreviewInput { allocation: 0.0, ..PreviewInput::default() };
        assert_eq!((preview(&empty).percent, preview(&empty).level), (0.0, Level::Blocked));
    }

    #[test]
    fn a_threshold_that_is_reached_is_exceeded_and_one_without_use_is_never_reached() {
        assert_eq!(project(exact("10"), exact("10"), exact("1")), Some(Projection::Exceeded));
        assert_eq!(project(exact("9"), exact("10"), Exact::ZERO), Some(Projection::Never));
    }
}
