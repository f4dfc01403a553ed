//! Durations as they are written: one number, one unit, read back exactly.

use std::time::Duration;

const UNITS_MS: [(u128, &str); 4] = [(86_400_000, "days"), (3_600_000, "h"), (60_000, "m"), (1000, "s")];

/// The duration in the largest unit that divides it: `10days`, `24h`, `5m`, `90s`, `1500ms`. One day is `24h`,
/// since people compare it with windows given in hours.
pub fn duration_text(duration: Duration) -> String {
    let ms = duration.as_millis();
    for (unit_ms, unit) in UNITS_MS {
        if ms > 0 && ms.is_multiple_of(unit_ms) && !(unit == "days" && ms == unit_ms) {
            return format!("{}{unit}", ms / unit_ms);
        }
    }
    format!("{ms}ms")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_written_in_the_largest_unit_that_divides_them() {
        for (ms, text) in [
            (0, "0ms"),
            (1, "1ms"),
            (1500, "1500ms"),
            (90_000, "90s"),
            (300_000, "5m"),
            (86_400_000, "24h"),
            (864_000_000, "10days"),
        ] {
            assert_eq!(duration_text(Duration::from_millis(ms)), text);
        }
    }

    proptest! {
        #[test]
        fn a_written_duration_reads_back(ms in 0u64..1_000_000_000_000) {
            let duration = Duration::from_millis(ms);
            prop_assert_eq!(humantime::parse_duration(&duration_text(duration)).unwrap(), duration);
        }
    }
}
