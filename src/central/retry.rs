//! When to ask again, and how long to wait before: pure, with the randomness as a parameter.
//!
//! Rule: exponential with full jitter (each wait is drawn from zero to the doubled base), so that many agents do not
//! come back at the same moment; the server's Retry-After is the floor. Attempts and the sum of the waits are limited,
//! each attempt by its own timeout: the longest time of one call is attempts x timeout + [`WAITS_MAX`].

use std::time::Duration;

use rand::Rng;

use crate::core::time::Epoch;

/// Upper end of the first wait. Long enough for a worker to be replaced, short for a person at a terminal.
pub const BACKOFF_FIRST: Duration = Duration::from_millis(500);
/// Upper end of any wait that we choose.
pub const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// Most time that one call spends waiting; then it gives up and the next poll tries again.
pub const WAITS_MAX: Duration = Duration::from_secs(120);

/// Whether a request may be sent a second time when it is not known whether the first one took effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// Yes: it states absolute values; twice has the effect of once.
    Absolute,
    /// No: only when it surely was not processed.
    Once,
}

/// What a failed attempt says about another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// It would fail the same way.
    Useless,
    /// The server did not process it: harmless for every request.
    Harmless,
    /// It may have been processed.
    MaybeDone,
    /// As [`Again::MaybeDone`], but worth one more attempt only (status 500: a deadlock or a defect, not an outage).
    MaybeDoneOnce,
}

impl Again {
    /// Whether attempt number `made` + 1 should be made.
    pub(super) fn allows(self, repeat: Repeat, made: u32, attempts_max: u32) -> bool {
        let worth = match self {
            Again::Useless => false,
            Again::Harmless => true,
            Again::MaybeDone => repeat == Repeat::Absolute,
            Again::MaybeDoneOnce => repeat == Repeat::Absolute && made == 1,
        };
        worth && made < attempts_max
    }
}

/// How long to wait after attempt number `made`, at least `floor`; `None` when the call has waited long enough.
pub(super) fn wait(
    made: u32,
    floor: Option<Duration>,
    waited: Duration,
    rng: &mut impl Rng,
) -> Option<Duration> {
    let doubled = BACKOFF_FIRST.saturating_mul(2u32.saturating_pow(made.saturating_sub(1))).min(BACKOFF_MAX);
    let upper_ms = u64::try_from(doubled.as_millis()).unwrap_or(u64::MAX);
    let wait =
        floor.unwrap_or(Duration::ZERO).saturating_add(Duration::from_millis(rng.random_range(0..=upper_ms)));
    (waited.saturating_add(wait) <= WAITS_MAX).then_some(wait)
}

/// Reads Retry-After: seconds, or a date that is compared with `now` (the server's own clock where it told it).
pub(super) fn retry_after(text: &str, now: Epoch) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let seconds = http_date(text)?.since(now);
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

/// Reads an HTTP date.
pub(super) fn http_date(text: &str) -> Option<Epoch> {
    let instant = httpdate::parse_http_date(text.trim()).ok()?;
    let since = instant.duration_since(std::time::SystemTime::UNIX_EPOCH).ok()?;
    Some(Epoch(i64::try_from(since.as_secs()).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    #[test]
    fn waits_grow_to_the_cap_stay_in_the_jitter_range_and_repeat_with_the_seed() {
        for made in 1..12u32 {
            let upper = BACKOFF_FIRST.saturating_mul(2u32.saturating_pow(made - 1)).min(BACKOFF_MAX);
            for seed in 0..50 {
                let mut rng = StdRng::seed_from_u64(seed);
                let first = wait(made, None, Duration::ZERO, &mut rng).unwrap();
                assert!(first <= upper, "{made} {seed}");
                assert_eq!(
                    wait(made, None, Duration::ZERO, &mut StdRng::seed_from_u64(seed)),
                    Some(first),
                    "same seed, same wait"
                );
            }
        }
    }

    #[test]
    fn the_servers_retry_after_is_the_floor_and_too_long_a_one_ends_the_call() {
        let mut rng = StdRng::seed_from_u64(7);
        let floor = Duration::from_secs(17);
        let chosen = wait(1, Some(floor), Duration::ZERO, &mut rng).unwrap();
        assert!(chosen >= floor && chosen <= floor + BACKOFF_FIRST);
        assert_eq!(wait(1, Some(Duration::from_secs(3600)), Duration::ZERO, &mut rng), None);
        assert_eq!(wait(1, Some(floor), WAITS_MAX, &mut rng), None);
        assert_eq!(wait(u32::MAX, Some(Duration::MAX), Duration::MAX, &mut rng), None);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_nothing_else() {
        let now = Epoch(784_111_777); // Sun, 06 Nov 1994 08:49:37 GMT
        for (text, expected) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:50:07 GMT", Some(30)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("soon", None),
            ("-5", None),
            ("1.5", None),
            ("", None),
        ] {
            assert_eq!(retry_after(text, now), expected.map(Duration::from_secs), "{text:?}");
        }
    }

    #[test]
    fn a_request_that_may_have_been_processed_is_repeated_only_when_absolute() {
        use Again::{Harmless, MaybeDone, MaybeDoneOnce, Useless};
        for (again, repeat, made, expected) in [
            (Useless, Repeat::Absolute, 1, false),
            (Harmless, Repeat::Once, 1, true),
            (Harmless, Repeat::Once, 4, false),
            (MaybeDone, Repeat::Once, 1, false),
            (MaybeDone, Repeat::Absolute, 3, true),
            (MaybeDone, Repeat::Absolute, 4, false),
            (MaybeDoneOnce, Repeat::Absolute, 1, true),
            (MaybeDoneOnce, Repeat::Absolute, 2, false),
            (MaybeDoneOnce, Repeat::Once, 1, false),
        ] {
            assert_eq!(again.allows(repeat, made, 4), expected, "{again:?} {repeat:?} {made}");
        }
    }
}
