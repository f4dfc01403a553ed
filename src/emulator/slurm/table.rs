//! The table printer that sacct, sacctmgr, sreport and sshare share: parsable rows or fixed columns.

use super::terminal::Terminal;

/// How rows are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// Columns of fixed width, names over a line of dashes.
    Columns,
    /// `-p`: a separator after every field.
    Separated,
    /// `-P`: a separator between fields.
    Joined,
}

/// One column: its title and its width, negative for left-aligned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    /// Title.
    pub(super) title: String,
    /// Width in characters; negative is left-aligned.
    pub(super) width: i32,
}

/// A value in a row.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cell {
    /// Nothing, printed as a blank.
    Blank,
    /// Text, cut with a `+` when it is too wide.
    Text(String),
    /// A number or a time: never cut.
    Number(String),
    /// A floating-point number with six decimals.
    Float(f64),
}

impl Cell {
    /// Text, or a blank.
    pub(super) fn text(text: Option<&str>) -> Cell {
        text.map_or(Cell::Blank, |text| Cell::Text(text.to_owned()))
    }

    /// A number, or a blank.
    pub(super) fn number<T: ToString>(number: Option<T>) -> Cell {
        number.map_or(Cell::Blank, |number| Cell::Number(number.to_string()))
    }
}

/// A table being printed.
pub(super) struct Table<'a> {
    /// Its columns.
    pub(super) columns: Vec<Column>,
    /// How it is laid out.
    pub(super) layout: Layout,
    /// The separator of the parsable layouts.
    pub(super) separator: &'a str,
}

impl Table<'_> {
    /// Prints the titles.
    pub(super) fn header(&self, out: &mut Terminal) {
        let last = self.columns.len().saturating_sub(1);
        for (at, column) in self.columns.iter().enumerate() {
            if self.layout == Layout::Columns {
                let width = column.width.unsigned_abs() as usize;
                let title: String = column.title.chars().take(width).collect();
                out.print(&aligned(&title, column.width));
            } else {
                out.print(&column.title);
                if self.layout == Layout::Separated || at != last {
                    out.print(self.separator);
                }
            }
        }
        out.print("\n");
        if self.layout == Layout::Columns {
            for column in &self.columns {
                out.print(&"-".repeat(column.width.unsigned_abs() as usize));
                out.print(" ");
            }
            out.print("\n");
        }
    }

    /// Prints one row; there are as many cells as columns.
    pub(super) fn row(&self, cells: &[Cell], out: &mut Terminal) {
        let last = self.columns.len().saturating_sub(1);
        for (at, (column, cell)) in self.columns.iter().zip(cells).enumerate() {
            if self.layout == Layout::Columns {
                out.print(&fixed(cell, column.width));
                continue;
            }
            match cell {
                Cell::Blank => {}
                Cell::Text(text) | Cell::Number(text) => out.print(text),
                Cell::Float(number) => out.print(&format!("{number:.6}")),
            }
            if self.layout == Layout::Separated || at != last {
                out.print(self.separator);
            }
        }
        out.print("\n");
    }
}

/// A cell in a column, with the blank that follows it. C counts bytes here, so does this.
fn fixed(cell: &Cell, width: i32) -> String {
    let room = width.unsigned_abs() as usize;
    match cell {
        Cell::Blank => format!("{} ", " ".repeat(room)),
        Cell::Text(text) if text.len() > room => {
            let mut bytes: Vec<u8> = text.as_bytes()[..room].to_vec();
            if let Some(end) = bytes.last_mut() {
                *end = b'+';
            }
            format!("{} ", String::from_utf8_lossy(&bytes))
        }
        Cell::Text(text) | Cell::Number(text) => aligned(text, width),
        Cell::Float(number) => aligned(&float(*number, room), width),
    }
}

/// Six decimals, or scientific notation when that is too wide.
fn float(number: f64, room: usize) -> String {
    let plain = format!("{number:.6}");
    if plain.len() <= room {
        return plain;
    }
    let precise = scientific(number, room);
    let precision = if precise.len() > room { room.saturating_sub(precise.len() - room) } else { room };
    scientific(number, precision)
}

/// C's `%.*e`: at least two digits of exponent, with its sign.
fn scientific(number: f64, precision: usize) -> String {
    let text = format!("{number:.precision$e}");
    match text.split_once('e') {
        Some((mantissa, exponent)) => {
            let value: i32 = exponent.parse().unwrap_or(0);
            let sign = if value < 0 { '-' } else { '+' };
            format!("{mantissa}e{sign}{:02}", value.abs())
        }
        None => text,
    }
}

fn aligned(text: &str, width: i32) -> String {
    let missing = " ".repeat((width.unsigned_abs() as usize).saturating_sub(text.len()));
    if width < 0 { format!("{text}{missing} ") } else { format!("{missing}{text} ") }
}
