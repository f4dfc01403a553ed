//! Text and tables for people, JSON for scripts. Nothing else prints to standard output.

use std::io::{IsTerminal, Write};

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

/// Prints why the program could not do what it was asked, to standard error; several lines stay several.
pub fn error(text: &str) {
    let lines: Vec<String> = text.lines().map(printable).collect();
    let _ = writeln!(std::io::stderr().lock(), "slurm-site-agent: {}", lines.join("\n"));
}

/// Passes on what an emulated program printed.
pub fn bytes(stdout: &[u8], stderr: &[u8]) {
    let _ = std::io::stdout().lock().write_all(stdout);
    let _ = std::io::stderr().lock().write_all(stderr);
}

/// Prints a value as indented JSON.
pub fn json<T: Serialize>(value: &T) {
    match serde_json::to_string_pretty(value) {
        Ok(body) => text(&format!("{}\n", json_printable(&body))),
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

/// Cells of the bar.
const BAR_CELLS: usize = 20;

/// Progress on standard error, so that standard output stays for the result: a bar that is drawn anew on a terminal, one line
/// for each step elsewhere.
pub struct Progress {
    terminal: bool,
    drawn: bool,
}

impl Progress {
    /// Nothing is drawn yet.
    pub fn on_stderr() -> Progress {
        Progress { terminal: std::io::stderr().is_terminal(), drawn: false }
    }

    /// Shows how many of all steps are done, and what was done last.
    pub fn show(&mut self, (all, done): (usize, usize), last: &str) {
        let filled = (BAR_CELLS * done.min(all)).checked_div(all).unwrap_or(BAR_CELLS);
        let bar: String = (0..BAR_CELLS).map(|cell| if cell < filled { '#' } else { '.' }).collect();
        let line = format!("[{bar}] {done}/{all}  {}", printable(last));
        let mut out = std::io::stderr().lock();
        let _ = match self.terminal {
            // Back to the first column, and away with what is left of a longer line.
            true => write!(out, "\r{line}\x1b[K").and_then(|()| out.flush()),
            false => writeln!(out, "{line}"),
        };
        self.drawn = true;
    }

    /// Leaves the last state there and begins a new line.
    pub fn end(self) {
        if self.terminal && self.drawn {
            let _ = writeln!(std::io::stderr().lock());
        }
    }
}

/// Text from outside made harmless for a terminal: control characters are escaped, and so are those that turn or hide the
/// text around them.
pub fn printable(text: &str) -> String {
    if !text.contains(is_harmful) {
        return text.to_owned();
    }
    text.chars().flat_map(|c| if is_harmful(c) { c.escape_unicode().collect() } else { vec![c] }).collect()
}

/// JSON in which the same characters are written as JSON writes them; those below U+0020 are already.
pub fn json_printable(body: &str) -> String {
    let harmful = |c: char| c != '\n' && is_harmful(c);
    // All of them have four digits.
    let escaped = |c: char| format!("\\u{:04x}", u32::from(c)).chars().collect();
    if !body.contains(harmful) {
        return body.to_owned();
    }
    body.chars().flat_map(|c| if harmful(c) { escaped(c) } else { vec![c] }).collect()
}

/// Control characters; and the invisible ones by which a text can show another order or spelling than it has (Unicode
/// TR 36): marks, embeddings, overrides and isolates of direction, zero widths, line and paragraph separators.
fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{61c}')
}
