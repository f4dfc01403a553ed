//! The server's preview of a policy, computed here: thresholds, carryover and the days on which they will be
//! reached (formulas: the policy API's `preview_impact`).

use serde::Serialize;

use super::evaluate::{Level, carryover};
use super::exact::Exact;
use super::period::Period;
use super::time::Epoch;

/// Longest projection that is shown, in days; beyond it nobody plans.
pub const PROJECTION_DAYS_MAX: i128 = 36_500;

/// What a preview starts from; amounts in one unit of the asker's choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreviewInput {
    /// Granted for the period.
    pub allocation: Exact,
    /// Tolerated share above it.
    pub grace: Exact,
    /// Used in the previous period; carryover applies when it is above 0.
    pub previous: Exact,
    /// Percent of the base that may be carried over; `None` when carryover is off.
    pub carryover_percent: Option<u8>,
    /// Used so far.
    pub current: Exact,
    /// Used per day.
    pub daily: Exact,
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

/// The preview.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Preview {
    /// Base.
    pub base: Exact,
    /// Carried over.
    pub carryover: Exact,
    /// base + carryover
    pub effective: Exact,
    /// 80 %.
    pub notification: Exact,
    /// 100 %.
    pub slowdown: Exact,
    /// (1 + grace) x 100 %.
    pub blocked: Exact,
    /// 100 x current / effective; `None` when nothing is granted.
    pub percent: Option<Exact>,
    /// Where that stands.
    pub level: Level,
    /// When 80 % is reached.
    pub notification_at: Projection,
    /// When 100 % is reached.
    pub slowdown_at: Projection,
    /// When the grace limit is reached.
    pub blocked_at: Projection,
}

/// Computes a preview; `None` when a number has no room.
pub fn preview(input: &PreviewInput) -> Option<Preview> {
    let carried = match input.carryover_percent {
        Some(percent) if input.previous > Exact::ZERO => {
            carryover(input.allocation, input.previous, percent)?
        }
        _ => Exact::ZERO,
    };
    let effective = input.allocation.plus(carried)?;
    let notification = effective.times(Exact::fraction(4, 5)?)?;
    let blocked = effective.times(Exact::ONE.plus(input.grace)?)?;
    let level = if input.current >= blocked {
        Level::Blocked
    } else if input.current >= effective {
        Level::Slowdown
    } else if input.current >= notification {
        Level::Notification
    } else {
        Level::Normal
    };
    Some(Preview {
        base: input.allocation,
        carryover: carried,
        effective,
        notification,
        slowdown: effective,
        blocked,
        percent: input.current.times(Exact::whole(100))?.over(effective),
        level,
        notification_at: project(input.current, notification, input.daily)?,
        slowdown_at: project(input.current, effective, input.daily)?,
        blocked_at: project(input.current, blocked, input.daily)?,
    })
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
        let seen = preview(&PreviewInput {
            allocation: exact("1000"),
            grace: exact("0.2"),
            previous: exact("700"),
            carryover_percent: Some(50),
            current: exact("900"),
            daily: exact("50"),
        })
        .unwrap();
        assert_eq!(seen.carryover, exact("300"));
        assert_eq!(
            (seen.notification, seen.slowdown, seen.blocked),
            (exact("1040"), exact("1300"), exact("1560"))
        );
        assert_eq!(seen.notification_at, Projection::Projected { days: 2 });
        assert_eq!(seen.slowdown_at, Projection::Projected { days: 8 });
        assert_eq!(seen.blocked_at, Projection::Projected { days: 13 });
        assert_eq!(seen.level, Level::Normal);
    }

    #[test]
    fn a_threshold_that_is_reached_is_exceeded_and_one_without_use_is_never_reached() {
        assert_eq!(project(exact("10"), exact("10"), exact("1")), Some(Projection::Exceeded));
        assert_eq!(project(exact("9"), exact("10"), Exact::ZERO), Some(Projection::Never));
    }
}
