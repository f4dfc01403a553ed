//! Faults on request: what goes wrong, where, how often. Chance comes from the state's seed alone, so that
//! a run with the same seed and the same requests goes wrong in the same places.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::clock::{saturating_add, wire_instant};
use super::http::{Answer, Request};
use super::state::CentralState;
use super::tracked::Tracked;

/// A fault and the requests it hits.
///
/// ```json
/// {"kind": {"status": {"code": 503}}, "path": "command-history", "times": 2}
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    pub kind: FaultKind,
    /// Only requests of this method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Only requests whose path contains this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Matching requests that pass before it begins.
    #[serde(default)]
    pub after: u32,
    /// How often it happens; none means for ever.
    #[serde(default = "once")]
    pub times: Option<u32>,
    /// Chance in percent that a matching request is hit.
    #[serde(default = "always")]
    pub percent: u8,
}

fn once() -> Option<u32> {
    Some(1)
}

fn always() -> u8 {
    100
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FaultKind {
    /// The answer comes late; other faults may hit the same request.
    Latency { ms: u64 },
    /// 429, with or without a Retry-After; the request is not handled.
    TooManyRequests {
        #[serde(default)]
        retry_after: Option<RetryAfter>,
    },
    /// Another status with Django's `{"detail": ...}`; the request is not handled.
    Status {
        code: u16,
        #[serde(default)]
        retry_after: Option<RetryAfter>,
    },
    /// A page for people instead of JSON, as a proxy sends it; the request is not handled.
    HtmlPage { code: u16 },
    /// The connection ends without a byte of an answer; the request is not handled.
    Cut,
    /// No byte of an answer and no end of the connection until the server stops; the request is not handled.
    Hang,
    /// The request is handled and remembered, then the connection ends without a byte of an answer.
    AnswerLost,
    /// The answer's body ends early although its length is announced; the request is handled.
    Truncated,
    /// The body announces no fault but is cut JSON; the request is handled.
    BrokenJson,
    /// The answer is padded to so many bytes; the request is handled.
    Oversized { bytes: usize },
    /// The Date header and the `executed_at` of listed commands are off by so many seconds; the request is
    /// handled. (A server that is wrong for good has its whole clock moved instead.)
    ClockSkew { seconds: i64 },
    /// The command history comes doubled, shuffled or empty.
    History(HistoryFault),
}

/// What is wrong with a command history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HistoryFault {
    Duplicated,
    Reordered,
    Forgotten,
}

/// The two spellings of Retry-After.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetryAfter {
    Seconds(u64),
    /// An HTTP date so many seconds from the server's now.
    DateInS(i64),
}

impl Fault {
    /// A fault that hits the next request, once.
    pub fn once(kind: FaultKind) -> Self {
        Self { kind, method: None, path: None, after: 0, times: once(), percent: always() }
    }

    /// The same for requests whose path contains `path`.
    pub fn on(mut self, method: &str, path: &str) -> Self {
        self.method = Some(method.to_owned());
        self.path = Some(path.to_owned());
        self
    }

    /// The same, so many times.
    pub fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }

    /// The same, until it is taken away, with a chance.
    pub fn with_chance(mut self, percent: u8) -> Self {
        self.times = None;
        self.percent = percent;
        self
    }

    fn matches(&self, request: &Request) -> bool {
        self.method.as_deref().is_none_or(|method| request.method.as_str() == method)
            && self.path.as_deref().is_none_or(|path| request.path.contains(path))
    }
}

/// What happens to one request, apart from history faults.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Disturbance {
    pub latency_ms: u64,
    pub fault: Option<FaultKind>,
}

/// The faults that hit a request; uses them up.
pub(super) fn take(state: &mut Tracked<'_>, request: &Request) -> Disturbance {
    let mut disturbance = Disturbance::default();
    let mut index = 0;
    while index < state.faults.len() {
        let kind = &state.faults[index].kind;
        let wanted = match kind {
            FaultKind::Latency { .. } => true,
            FaultKind::History(_) => false,
            _ => disturbance.fault.is_none(),
        };
        if !wanted || !state.faults[index].matches(request) {
            index += 1;
            continue;
        }
        let (kind, removed) = strike(state.edit(), index);
        match kind {
            Some(FaultKind::Latency { ms }) => disturbance.latency_ms += ms,
            Some(kind) => disturbance.fault = Some(kind),
            None => {}
        }
        index += usize::from(!removed);
    }
    disturbance
}

/// The history fault that hits a request; uses it up.
pub(super) fn take_history_fault(state: &mut Tracked<'_>, request: &Request) -> Option<HistoryFault> {
    let index = state
        .faults
        .iter()
        .position(|fault| matches!(fault.kind, FaultKind::History(_)) && fault.matches(request))?;
    match strike(state.edit(), index).0 {
        Some(FaultKind::History(fault)) => Some(fault),
        _ => None,
    }
}

/// Lets a matching fault happen or pass. Gives the kind when it happens, and whether the fault is used up.
fn strike(state: &mut CentralState, index: usize) -> (Option<FaultKind>, bool) {
    let percent = state.faults[index].percent;
    if percent < 100 && draw(state) % 100 >= u64::from(percent) {
        return (None, false);
    }
    let fault = &mut state.faults[index];
    if fault.after > 0 {
        fault.after -= 1;
        return (None, false);
    }
    let kind = fault.kind.clone();
    let removed = match &mut fault.times {
        None => false,
        Some(times) => {
            *times = times.saturating_sub(1);
            *times == 0
        }
    };
    if removed {
        state.faults.remove(index);
    }
    (Some(kind), removed)
}

/// The next number of the seed's row (SplitMix64, public domain algorithm).
fn draw(state: &mut CentralState) -> u64 {
    state.draws += 1;
    let mut z = state.seed.wrapping_add(state.draws.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The answer of a fault that keeps the request from being handled.
pub(super) fn instead(kind: &FaultKind, state: &CentralState) -> Option<Answer> {
    let (answer, retry_after) = match kind {
        FaultKind::TooManyRequests { retry_after } => {
            let wait = match retry_after {
                Some(RetryAfter::Seconds(seconds)) => format!(" Expected available in {seconds} seconds."),
                _ => String::new(),
            };
            (Answer::detail(429, &format!("Request was throttled.{wait}")), *retry_after)
        }
        FaultKind::Status { code, retry_after } => {
            (Answer::detail(*code, "A server error occurred."), *retry_after)
        }
        FaultKind::HtmlPage { code } => (Answer::html(*code, "Bad Gateway"), None),
        FaultKind::Cut | FaultKind::Hang => (Answer::empty(500), None),
        _ => return None,
    };
    Some(match retry_after {
        None => answer,
        Some(RetryAfter::Seconds(seconds)) => answer.with_header("retry-after", seconds.to_string()),
        Some(RetryAfter::DateInS(seconds)) => {
            let at = saturating_add(state.now(), seconds);
            answer.with_header("retry-after", httpdate::fmt_http_date(at.into()))
        }
    })
}

/// What a fault does to the body of an answer that was made.
pub(super) fn spoil(kind: &FaultKind, mut answer: Answer) -> Answer {
    match kind {
        FaultKind::BrokenJson => answer.body.truncate(answer.body.len() / 2),
        FaultKind::Oversized { bytes } => {
            // White space behind the value: still JSON, only far too much of it.
            let length = answer.body.len().max(*bytes);
            answer.body.resize(length, b' ');
        }
        FaultKind::ClockSkew { seconds } => skew_executed_at(&mut answer, *seconds),
        _ => {}
    }
    answer
}

/// Moves the times of listed commands.
fn skew_executed_at(answer: &mut Answer, seconds: i64) {
    let Ok(Value::Array(mut rows)) = serde_json::from_slice(&answer.body) else { return };
    let mut moved = false;
    for at in rows.iter_mut().filter_map(|row| row.get_mut("executed_at")) {
        if let Some(instant) = at.as_str().and_then(|text| text.parse().ok()) {
            *at = Value::String(wire_instant(saturating_add(instant, seconds)));
            moved = true;
        }
    }
    if moved {
        answer.body = Value::Array(rows).to_string().into_bytes();
    }
}
