//! `sacct`: job records by window, user, account, state or id.

mod fields;
mod options;
mod select;

use super::call::Call;
use super::names::begins_like;
use super::table::{Column, Table};
use super::terminal::{Output, Terminal};
use super::world::World;
use fields::{FIELDS, Field, RowContext};
use options::Query;
use std::collections::HashMap;

/// What ends a run early: text on standard error, and the exit status.
pub(super) struct Stop {
    text: String,
    status: i32,
}

/// Runs `sacct`.
pub(super) fn run(world: &World, call: &Call<'_>) -> Output {
    let mut out = Terminal::default();
    let status = match report(world, call, &mut out) {
        Ok(()) => 0,
        Err(stop) => {
            out.complain(&stop.text);
            stop.status
        }
    };
    out.exit(status)
}

fn report(world: &World, call: &Call<'_>, out: &mut Terminal) -> Result<(), Stop> {
    let query = options::read(world, call, out)?;
    let Some(query) = query else { return Ok(()) };
    let chosen = choose_fields(call, &query)?;
    if let Some(word) = query.words.first() {
        let mut text = call.error("Unknown arguments:");
        for word in std::iter::once(word).chain(&query.words[1..]) {
            text.push_str(&call.error(&format!(" {word}")));
        }
        return Err(Stop { text, status: 1 });
    }
    let columns =
        chosen.iter().map(|(field, width)| Column { title: field.title.to_owned(), width: *width }).collect();
    let table = Table { columns, layout: query.layout, separator: &query.separator };
    if query.header {
        table.header(out);
    }
    let (style, complaint) = call.time_style();
    if let Some(complaint) = complaint {
        out.complain(&call.error(&complaint));
    }
    let context = RowContext::new(world, call.now, style, query.units);
    let fields: Vec<Field> = chosen.into_iter().map(|(field, _)| field.id).collect();
    for row in select::rows(world, call.now, &query) {
        let cells: Vec<_> = fields.iter().map(|field| context.cell(*field, &row)).collect();
        table.row(&cells, out);
        if !query.allocations_only && row.job.start > 0 {
            let cells: Vec<_> = fields.iter().map(|field| context.step_cell(*field, &row)).collect();
            table.row(&cells, out);
        }
    }
    Ok(())
}

/// The fields of `--format`, each with its width. A prefix of a name chooses the first that begins so; an empty entry
/// ends the list; a width counts for every column of its field (all seen on 22.05.8).
fn choose_fields(call: &Call<'_>, query: &Query) -> Result<Vec<(&'static fields::Known, i32)>, Stop> {
    let mut chosen = Vec::new();
    for entry in query.format.split(',') {
        let entry = entry.trim_start();
        if entry.is_empty() {
            break;
        }
        let (name, width) = match entry.split_once('%') {
            Some((name, width)) => {
                (name, Some(i32::try_from(super::names::signed_prefix(width).0).unwrap_or(0)))
            }
            None => (entry, None),
        };
        if name.len() <= 3 && begins_like("ALL", name, name.len()) {
            chosen.extend(FIELDS.iter().map(|field| (field, width.unwrap_or(field.width))));
            continue;
        }
        let known = FIELDS
            .iter()
            .find(|field| name.len() <= field.title.len() && begins_like(field.title, name, name.len()));
        match known {
            Some(field) => {
                let earlier = chosen
                    .iter()
                    .rev()
                    .find(|(known, _): &&(&fields::Known, i32)| known.title == field.title);
                let width = width.or(earlier.map(|(_, width)| *width)).unwrap_or(field.width);
                chosen.push((field, width));
            }
            None if name.eq_ignore_ascii_case("AllocGRES") => {
                let text = call.fatal("AllocGRES has been removed, please use AllocTRES");
                return Err(Stop { text, status: 1 });
            }
            None if name.eq_ignore_ascii_case("ReqGRES") => {
                let text = call.fatal("ReqGRES has been removed, please use ReqTRES");
                return Err(Stop { text, status: 1 });
            }
            None => {
                let text = call.error(&format!("Invalid field requested: \"{name}\""));
                return Err(Stop { text, status: 1 });
            }
        }
    }
    let last: HashMap<&str, i32> = chosen.iter().map(|(field, width)| (field.title, *width)).collect();
    for (field, width) in &mut chosen {
        *width = last[field.title];
    }
    Ok(chosen)
}
