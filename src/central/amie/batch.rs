//! Packs records into messages by their real serialized size and by count. Pure.

use super::wire::record_json;
use crate::core::amie::{Kind, Record};

fn head(kind: Kind) -> String {
    format!("{{\"UsageType\":\"{kind}\",\"Records\":[")
}

const TAIL: &str = "]}";

/// One message from records that are JSON already.
pub(super) fn message<'a>(kind: Kind, records: impl Iterator<Item = &'a str>) -> String {
    let mut text = head(kind);
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
    kind: Kind,
    records: impl Iterator<Item = &'a str>,
    bytes_max: usize,
    records_max: usize,
) -> usize {
    let mut bytes = head(kind).len() + TAIL.len();
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

/// The exact messages that [`super::AmieClient::post`] sends first, for `--dry-run`: one kind after the other.
pub fn messages(records: &[Record], bytes_max: usize, records_max: usize) -> Vec<String> {
    let mut messages = Vec::new();
    for kind in Kind::ALL {
        let of_kind = records.iter().filter(|record| record.kind() == kind);
        let records: Vec<String> = of_kind.map(record_json).collect();
        let mut rest = records.as_slice();
        while !rest.is_empty() {
            let count = fitting(kind, rest.iter().map(String::as_str), bytes_max, records_max);
            let (now, later) = rest.split_at(count);
            messages.push(message(kind, now.iter().map(String::as_str)));
            rest = later;
        }
    }
    messages
}
