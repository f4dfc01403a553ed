//! Packs records into messages by their real serialized size and by count. Pure.

use super::wire::{COMPUTE, compute_json};
use crate::core::report::ComputeRecord;

fn head() -> String {
    format!("{{\"UsageType\":\"{COMPUTE}\",\"Records\":[")
}

const TAIL: &str = "]}";

/// One message from records that are JSON already.
pub(super) fn message<'a>(records: impl Iterator<Item = &'a str>) -> String {
    let mut text = head();
    for (place, record) in records.enumerate() {
        if place > 0 {
            text.push(',');
        }
        text.push_str(record);
    }
    text.push_str(TAIL);
    text
}

/// How many of the records fit into one message of at most `bytes_max` and `records_max`. At least 1: a record that is
/// too large alone is sent alone, and the server says so.
pub(super) fn fitting<'a>(
    records: impl Iterator<Item = &'a str>,
    bytes_max: usize,
    records_max: usize,
) -> usize {
    let mut bytes = head().len() + TAIL.len();
    let mut count = 0;
    for record in records.take(records_max.max(1)) {
        bytes += record.len() + usize::from(count > 0);
        if count > 0 && bytes > bytes_max {
            break;
        }
        count += 1;
    }
    count
}

/// The exact messages that [`super::AmieClient::post_compute`] sends first, for `--dry-run`.
pub fn compute_messages(records: &[ComputeRecord], bytes_max: usize, records_max: usize) -> Vec<String> {
    let records: Vec<String> = records.iter().map(compute_json).collect();
    let mut rest = records.as_slice();
    let mut messages = Vec::new();
    while !rest.is_empty() {
        let (now, later) = rest.split_at(fitting(rest.iter().map(String::as_str), bytes_max, records_max));
        messages.push(message(now.iter().map(String::as_str)));
        rest = later;
    }
    messages
}
