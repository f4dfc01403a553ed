//! The documented lines that any program of the site can print: CSV with a heading, or one JSON object per line. The names
//! are those of [`Stored`]: username, account, bytes_stored, file_count, bytes_read, bytes_written, files_read, files_written,
//! media_type, system_copies, user_copies. bytes_stored and one of the first two have to be there.

use super::{Parsed, ReportError, number, shown};
use crate::core::amie::Stored;

const NAMES: [&str; 11] = [
    "username",
    "account",
    "bytes_stored",
    "file_count",
    "bytes_read",
    "bytes_written",
    "files_read",
    "files_written",
    "media_type",
    "system_copies",
    "user_copies",
];

pub(super) fn json<'a>(lines: impl Iterator<Item = &'a str>, parsed: &mut Parsed) {
    for line in lines {
        let read = serde_json::from_str(line).map_err(|error| error.to_string());
        parsed.add(line, read.and_then(named));
    }
}

pub(super) fn csv<'a>(
    mut lines: impl Iterator<Item = &'a str>,
    parsed: &mut Parsed,
) -> Result<(), ReportError> {
    let first = lines.next().unwrap_or("");
    let columns = fields(first).unwrap_or_default();
    let known = columns.iter().all(|name| NAMES.contains(&name.as_str()));
    let has = |name: &str| columns.iter().filter(|column| *column == name).count() == 1;
    let once = columns.iter().all(|name| has(name));
    if !(known && once && has("bytes_stored") && (has("username") || has("account"))) {
        let expected = "username,account,bytes_stored,file_count,... (see config/site-agent.toml)";
        return Err(ReportError::Heading { found: shown(first), expected });
    }
    for line in lines {
        parsed.add(line, one(&columns, line).and_then(named));
    }
    Ok(())
}

fn one(columns: &[String], line: &str) -> Result<Stored, String> {
    let values = fields(line).ok_or("a quote is not closed, or stands inside a field")?;
    if values.len() != columns.len() {
        return Err(format!("it has {} fields in place of {}", values.len(), columns.len()));
    }
    let mut stored = Stored::default();
    for (column, value) in columns.iter().zip(values) {
        if column == "bytes_stored" {
            stored.bytes_stored = number(column, &value)?;
        } else if !value.is_empty() {
            put(&mut stored, column, value)?;
        }
    }
    Ok(stored)
}

fn put(stored: &mut Stored, column: &str, value: String) -> Result<(), String> {
    let count = || number(column, &value).map(Some);
    match column {
        "username" => stored.username = Some(value),
        "account" => stored.account = Some(value),
        "media_type" => stored.media_type = Some(value),
        "file_count" => stored.file_count = count()?,
        "bytes_read" => stored.bytes_read = count()?,
        "bytes_written" => stored.bytes_written = count()?,
        "files_read" => stored.files_read = count()?,
        "files_written" => stored.files_written = count()?,
        "system_copies" => stored.system_copies = count()?,
        "user_copies" => stored.user_copies = count()?,
        _ => return Err(format!("{column} is not known")),
    }
    Ok(())
}

fn named(stored: Stored) -> Result<Stored, String> {
    let named = [&stored.username, &stored.account];
    if named.iter().all(|name| name.is_none()) {
        return Err("it names neither username nor account".into());
    }
    if named.into_iter().flatten().any(|name| name.is_empty()) {
        return Err("a name is empty".into());
    }
    Ok(stored)
}

/// The fields of a line, in double quotes where they contain a comma; a quote inside is doubled (RFC 4180). A field never
/// contains a line break.
fn fields(line: &str) -> Option<Vec<String>> {
    let (mut found, mut rest) = (Vec::new(), line);
    loop {
        let Some(quoted) = rest.strip_prefix('"') else {
            let (field, after) =
                rest.split_once(',').map_or((rest, None), |(field, after)| (field, Some(after)));
            if field.contains('"') {
                return None;
            }
            found.push(field.to_owned());
            match after {
                Some(after) => rest = after,
                None => return Some(found),
            }
            continue;
        };
        let (mut field, mut inside) = (String::new(), quoted);
        loop {
            let (text, after) = inside.split_once('"')?;
            field.push_str(text);
            match after.strip_prefix('"') {
                Some(more) => {
                    field.push('"');
                    inside = more;
                }
                None => {
                    inside = after;
                    break;
                }
            }
        }
        found.push(field);
        match inside.strip_prefix(',') {
            Some(after) => rest = after,
            None if inside.is_empty() => return Some(found),
            None => return None,
        }
    }
}
