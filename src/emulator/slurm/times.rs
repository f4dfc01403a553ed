//! Times as Slurm's programs read and write them, in the time zone of the caller's `TZ`.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, Zoned};
use std::collections::BTreeMap;

/// A time that is not known yet (a job that has not started or ended).
pub(super) const UNKNOWN: i64 = 0;
/// The start of a job that was cancelled before it had one.
pub(super) const NONE: i64 = -2;

/// The zone that a program with this environment works in; an unknown name is UTC, as in the C library.
pub(super) fn zone_of(env: &BTreeMap<String, String>, default: &str) -> TimeZone {
    let name = env.get("TZ").map_or(default, String::as_str);
    let name = name.strip_prefix(':').unwrap_or(name);
    if name.is_empty() {
        return TimeZone::UTC;
    }
    TimeZone::get(name).or_else(|_| TimeZone::posix(name)).unwrap_or(TimeZone::UTC)
}

/// The instant, in a zone. Instants outside jiff's range become the epoch.
pub(super) fn local(at: i64, zone: &TimeZone) -> Zoned {
    Timestamp::from_second(at).unwrap_or_default().to_zoned(zone.clone())
}

/// How times are printed: `SLURM_TIME_FORMAT` of the caller.
#[derive(Debug, Clone)]
pub(super) struct TimeStyle {
    zone: TimeZone,
    format: Option<String>,
    now: i64,
}

impl TimeStyle {
    /// The style of this environment, and Slurm's complaint when its format is none.
    pub(super) fn of(
        env: &BTreeMap<String, String>,
        zone: TimeZone,
        now: i64,
    ) -> (TimeStyle, Option<String>) {
        let plain = TimeStyle { zone, format: None, now };
        match env.get("SLURM_TIME_FORMAT").map(String::as_str) {
            None | Some("" | "standard") => (plain, None),
            Some("relative") => (TimeStyle { format: Some("relative".to_owned()), ..plain }, None),
            Some(format) if !format.contains('%') || format.len() >= 32 => {
                (plain, Some(format!("invalid SLURM_TIME_FORMAT = '{format}'")))
            }
            Some(format) => (TimeStyle { format: Some(format.to_owned()), ..plain }, None),
        }
    }

    /// Style of a program that knows no other than ISO.
    pub(super) fn iso(zone: TimeZone) -> TimeStyle {
        TimeStyle { zone, format: None, now: 0 }
    }

    /// The text of a time.
    pub(super) fn write(&self, at: i64) -> String {
        if at == UNKNOWN {
            return "Unknown".to_owned();
        }
        if at == NONE {
            return "None".to_owned();
        }
        match self.format.as_deref() {
            Some("%s") => at.to_string(),
            None => local(at, &self.zone).strftime("%Y-%m-%dT%H:%M:%S").to_string(),
            Some("relative") => {
                let when = local(at, &self.zone);
                let format = relative_format(&when, &local(self.now, &self.zone));
                when.strftime(format).to_string()
            }
            Some(format) => {
                let when = local(at, &self.zone);
                jiff::fmt::strtime::format(format, &when).unwrap_or_else(|_| format.to_owned())
            }
        }
    }
}

fn relative_format(when: &Zoned, now: &Zoned) -> &'static str {
    let day = |at: &Zoned| 1000 * i32::from(at.year()) + i32::from(at.day_of_year());
    match day(when) - day(now) {
        -1 => "Ystday %H:%M",
        0 => "%H:%M:%S",
        1 => "Tomorr %H:%M",
        far if !(-365..=365).contains(&far) => "%-d %b %Y",
        2..=6 => "%a %H:%M",
        _ => "%-d %b %H:%M",
    }
}

/// `[days-]hours:minutes:seconds`.
pub(super) fn write_seconds(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let clock = format!("{:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60);
    if days > 0 { format!("{days}-{clock}") } else { clock }
}

/// Minutes of a time limit, written as [`write_seconds`].
pub(super) fn write_minutes(minutes: u64) -> String {
    write_seconds(minutes * 60)
}

/// A span of time in a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Span {
    /// This many seconds.
    Seconds(u64),
    /// No limit.
    Infinite,
}

/// `min`, `min:sec`, `hr:min:sec`, `days-hr[:min[:sec]]`, `-1`, `INFINITE`, `UNLIMITED`.
pub(super) fn parse_span(text: &str) -> Option<Span> {
    if text == "-1" || text.eq_ignore_ascii_case("infinite") || text.eq_ignore_ascii_case("unlimited") {
        return Some(Span::Infinite);
    }
    let (days, clock) = match text.split_once('-') {
        Some((days, clock)) => (Some(days.parse::<u64>().ok()?), clock),
        None => (None, text),
    };
    let parts = clock.split(':').map(|part| part.parse::<u64>().ok()).collect::<Option<Vec<u64>>>()?;
    let seconds = match (days, parts.as_slice()) {
        (Some(days), [h]) => days * 86_400 + h * 3600,
        (Some(days), [h, m]) => days * 86_400 + h * 3600 + m * 60,
        (Some(days), [h, m, s]) => days * 86_400 + h * 3600 + m * 60 + s,
        (None, [m]) => m * 60,
        (None, [m, s]) => m * 60 + s,
        (None, [h, m, s]) => h * 3600 + m * 60 + s,
        _ => return None,
    };
    Some(Span::Seconds(seconds))
}

/// Reads a time as the programs' `-S`, `start=` and the like do, looking to the past where a date is incomplete.
/// `Err` is the line that Slurm prints.
pub(super) fn parse_time(text: &str, zone: &TimeZone, now: i64) -> Result<i64, String> {
    if text.len() >= 3 && text.as_bytes()[..3].eq_ignore_ascii_case(b"uts") {
        return match text[3..].parse::<i64>() {
            Ok(at) if at >= 1_000_000 => Ok(at),
            _ => Err(invalid(0, text)),
        };
    }
    let mut reader = Reader { text: text.as_bytes(), at: 0, now: local(now, zone), date: None, time: None };
    reader.run().map_err(|()| invalid(reader.at, text))?;
    let Reader { date, time, now, .. } = reader;
    let (date, time) = match (date, time) {
        (None, None) => return Ok(0),
        (Some(date), time) => (date, time.unwrap_or(Time::midnight())),
        (None, Some(time)) => (now.date(), time),
    };
    let zoned = zone.to_ambiguous_zoned(DateTime::from_parts(date, time)).compatible();
    match zoned {
        Ok(zoned) => Ok(zoned.timestamp().as_second()),
        Err(_) => Err(invalid(text.len(), text)),
    }
}

fn invalid(at: usize, text: &str) -> String {
    format!("Invalid time specification (pos={at}): {text}\n")
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    now: Zoned,
    date: Option<Date>,
    time: Option<Time>,
}

impl Reader<'_> {
    fn byte(&self, at: usize) -> u8 {
        self.text.get(at).copied().unwrap_or(0)
    }

    fn digit(&self, at: usize) -> Option<i8> {
        let byte = self.byte(at);
        byte.is_ascii_digit().then(|| i8::try_from(byte - b'0').unwrap_or(0))
    }

    fn word(&mut self, word: &str) -> bool {
        let end = self.at + word.len();
        let here = self.text.len() >= end && self.text[self.at..end].eq_ignore_ascii_case(word.as_bytes());
        if here {
            self.at = end;
        }
        here
    }

    fn run(&mut self) -> Result<(), ()> {
        while self.at < self.text.len() && self.byte(self.at) != b'\n' {
            if matches!(self.byte(self.at), b' ' | b'\t' | b'-' | b'T') {
                self.at += 1;
            } else if self.word("today") {
                self.date = Some(self.now.date());
            } else if self.word("tomorrow") {
                self.date = Some(self.now.checked_add(24.hours()).map_err(|_| ())?.date());
            } else if self.word("midnight") {
                self.time = Some(Time::midnight());
            } else if self.word("noon") {
                self.time = Some(Time::constant(12, 0, 0, 0));
            } else if self.word("fika") {
                self.time = Some(Time::constant(15, 0, 0, 0));
            } else if self.word("teatime") {
                self.time = Some(Time::constant(16, 0, 0, 0));
            } else if self.word("now") {
                self.relative()?;
            } else if !self.byte(self.at).is_ascii_digit() {
                return Err(());
            } else if self.byte(self.at + 1) == b':' || self.byte(self.at + 2) == b':' {
                self.clock()?;
            } else {
                self.day()?;
            }
        }
        Ok(())
    }

    /// `now[{+|-}count[unit]]`
    fn relative(&mut self) -> Result<(), ()> {
        const UNITS: [(&str, i64); 10] = [
            ("seconds", 1),
            ("second", 1),
            ("minutes", 60),
            ("minute", 60),
            ("hours", 3600),
            ("hour", 3600),
            ("days", 86_400),
            ("day", 86_400),
            ("weeks", 604_800),
            ("week", 604_800),
        ];
        while matches!(self.byte(self.at), b' ' | b'\t') {
            self.at += 1;
        }
        let sign = match self.byte(self.at) {
            b'+' => 1,
            b'-' => -1,
            0 | b'\n' => 0,
            _ => return Err(()),
        };
        let mut count = 0_i64;
        if sign != 0 {
            self.at += 1;
            let first = self.at;
            while let Some(digit) = self.digit(self.at) {
                count = count.saturating_mul(10).saturating_add(i64::from(digit));
                self.at += 1;
            }
            if self.at == first {
                return Err(());
            }
            for (unit, seconds) in UNITS {
                if self.word(unit) {
                    count = count.saturating_mul(seconds);
                    break;
                }
            }
        }
        let then = self.now.checked_add((sign * count).seconds()).map_err(|_| ())?;
        self.date = Some(then.date());
        self.time = Some(then.time().with().subsec_nanosecond(0).build().map_err(|_| ())?);
        Ok(())
    }

    fn two(&mut self) -> Result<i8, ()> {
        let (Some(tens), Some(ones)) = (self.digit(self.at), self.digit(self.at + 1)) else { return Err(()) };
        self.at += 2;
        Ok(tens * 10 + ones)
    }

    fn one_or_two(&mut self) -> Result<i8, ()> {
        let first = self.digit(self.at).ok_or(())?;
        self.at += 1;
        match self.digit(self.at) {
            Some(second) => {
                self.at += 1;
                Ok(first * 10 + second)
            }
            None => Ok(first),
        }
    }

    /// Refuses a number that is too large, pointing at its first digit.
    fn at_most(&mut self, number: i8, largest: i8) -> Result<(), ()> {
        if number > largest {
            self.at -= 2;
            return Err(());
        }
        Ok(())
    }

    /// A month or a day: one or two digits, not 0.
    fn part_of_date(&mut self, largest: i8) -> Result<i8, ()> {
        let number = self.one_or_two()?;
        if number == 0 {
            self.at -= 2;
            return Err(());
        }
        self.at_most(number, largest)?;
        Ok(number)
    }

    /// `HH:MM[:SS] [AM|PM]`
    fn clock(&mut self) -> Result<(), ()> {
        let mut hour = self.one_or_two()?;
        self.at_most(hour, 23)?;
        if self.byte(self.at) != b':' {
            return Err(());
        }
        self.at += 1;
        let minute = self.two()?;
        self.at_most(minute, 59)?;
        let mut second = 0;
        if self.byte(self.at) == b':' {
            self.at += 1;
            second = self.two()?;
            self.at_most(second, 59)?;
        }
        while self.byte(self.at).is_ascii_whitespace() {
            self.at += 1;
        }
        if self.word("pm") {
            hour = if hour == 12 { 12 } else { hour + 12 };
        } else if self.word("am") && hour == 12 {
            hour = 0;
        }
        self.time = Some(Time::new(hour, minute, second, 0).map_err(|_| ())?);
        Ok(())
    }

    /// `YYYY-MM-DD`, or `MM[/.]DD[/.][YY]` with the year of the last such month; a day that the month does not have is
    /// counted on into the next, as mktime does
    fn day(&mut self) -> Result<(), ()> {
        let iso = self.byte(self.at + 4) == b'-' && self.byte(self.at + 7) == b'-';
        let (year, month, day);
        if iso {
            let century = self.two()?;
            let rest = self.two()?;
            year = i16::from(century) * 100 + i16::from(rest);
            self.at += 1;
            month = self.part_of_date(12)?;
            self.at += 1;
            day = self.part_of_date(31)?;
        } else {
            month = self.part_of_date(12)?;
            if matches!(self.byte(self.at), b'.' | b'/') {
                self.at += 1;
            }
            day = self.part_of_date(31)?;
            if matches!(self.byte(self.at), b'.' | b'/') {
                self.at += 1;
            }
            year = if self.digit(self.at).is_some() {
                2000 + i16::from(self.two()?)
            } else if month > self.now.month() {
                self.now.year() - 1
            } else {
                self.now.year()
            };
        }
        let first = Date::new(year, month, 1).map_err(|_| ())?;
        self.date = Some(first.checked_add(i64::from(day - 1).days()).map_err(|_| ())?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_323_600; // 2026-11-22T05:00:00Z

    fn utc(text: &str) -> Result<i64, String> {
        parse_time(text, &TimeZone::UTC, NOW)
    }

    #[test]
    fn times_are_read_in_the_callers_zone() {
        assert_eq!(utc("uts1795323600"), Ok(NOW));
        assert_eq!(utc("2026-11-22T05:00:00"), Ok(NOW));
        assert_eq!(utc("2026-11-22"), Ok(NOW - 5 * 3600));
        assert_eq!(utc("now-1hours"), Ok(NOW - 3600));
        assert_eq!(utc("now"), Ok(NOW));
        assert_eq!(utc("04:30"), Ok(NOW - 1800));
        assert_eq!(utc("11/22-04:30"), Ok(NOW - 1800));
        assert_eq!(utc("112226"), Ok(NOW - 5 * 3600));
        let york = TimeZone::get("America/New_York").expect("bundled zone");
        assert_eq!(parse_time("2026-11-22T00:00:00", &york, NOW), Ok(NOW));
    }

    // sacct 22.05.8, capture sacct1 of 2026-11-22.
    #[test]
    fn a_time_that_cannot_be_read_is_refused_in_slurms_words() {
        assert_eq!(utc("2026-11-22T05:00:00Z"), Err(invalid(19, "2026-11-22T05:00:00Z")));
        assert_eq!(utc("garbage"), Err(invalid(0, "garbage")));
    }

    #[test]
    fn spans_are_written_with_days_only_when_there_are_any() {
        assert_eq!(write_minutes(10), "00:10:00");
        assert_eq!(write_seconds(86_400 + 61), "1-00:01:01");
        assert_eq!(parse_span("1-00:00:00"), Some(Span::Seconds(86_400)));
        assert_eq!(parse_span("-1"), Some(Span::Infinite));
        assert_eq!(parse_span("10"), Some(Span::Seconds(600)));
        assert_eq!(parse_span("x"), None);
    }
}
