//! Text and tables for people, JSON for scripts. Nothing else prints to standard output.

use std::io::Write;

use comfy_table::{ContentArrangement, Table};
use serde::Serialize;

/// Prints text as it is. A reader that has gone away (`| head`) is no error.
pub fn text(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Prints what a person should know beside the answer, on standard error.
pub fn remark(text: &str) {
    let _ = std::io::stderr().lock().write_all(format!("! {}\n", printable(text)).as_bytes());
}

/// Passes on what an emulated program printed.
pub fn bytes(stdout: &[u8], stderr: &[u8]) {
    let _ = std::io::stdout().lock().write_all(stdout);
    let _ = std::io::stderr().lock().write_all(stderr);
}

/// Prints a value as indented JSON.
pub fn json<T: Serialize>(value: &T) {
    match serde_json::to_string_pretty(value) {
        Ok(body) => text(&format!("{body}\n")),
        Err(error) => tracing::error!(%error, "a report could not be written as JSON"),
    }
}

/// A table without frames, as the Slurm programs print theirs; empty when there is no row.
pub fn table(title: &str, header: &[&str], rows: Vec<Vec<String>>) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().map(|name| (*name).to_owned()).collect::<Vec<String>>());
    for row in rows {
        table.add_row(row.iter().map(|cell| printable(cell)).collect::<Vec<String>>());
    }
    let body: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    let title = if title.is_empty() { String::new() } else { format!("{title}\n") };
    format!("{title}{}\n\n", body.join("\n"))
}

/// Text from outside made harmless for a terminal: control characters are escaped.
pub fn printable(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}
