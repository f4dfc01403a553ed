//! Reads a list that is paged by `offset` and `limit` as a whole, or says that it could not.
//!
//! Pages are counted by us: the address in `next` is never followed (the token must not go where an answer points to), it
//! only says whether there are more. Rows are told apart by id and counted against `totalCount`; a list that does not add
//! up is read again from the start.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::central::error::CentralError;
use crate::central::http::{Answer, Call, Http};
use crate::central::paged::{Read, read_whole};
use crate::central::shape::Fields;

/// Rows per page: the most that the server gives of templates.
pub(super) const PAGE_SIZE: usize = 100;
/// Most rows of one list: the server has at most so many quotas.
pub(super) const ROWS_MAX: usize = 10_000;

/// One page.
struct Page {
    rows: Vec<Value>,
    more: bool,
    total: usize,
}

/// All rows of a list.
pub(super) async fn fetch_list(
    http: &Http,
    path: &str,
    query: &[(&str, String)],
) -> Result<Vec<Value>, CentralError> {
    read_whole(async || read_once(http, path, query).await).await
}

async fn read_once(http: &Http, path: &str, query: &[(&str, String)]) -> Result<Read, CentralError> {
    let (mut rows, mut seen, mut offset) = (Vec::new(), BTreeSet::new(), 0);
    loop {
        let mut query = query.to_vec();
        query.push(("offset", offset.to_string()));
        query.push(("limit", PAGE_SIZE.to_string()));
        let answer = http.send(Call::get(path, &query)).await?;
        let found = page(&answer)?;
        if found.total > ROWS_MAX {
            return Err(answer.wrong_shape(format!("{} rows; at most {ROWS_MAX} are possible", found.total)));
        }
        let came = found.rows.len();
        offset += came;
        for row in found.rows {
            let id = row.get("id").and_then(Value::as_str);
            // A row without an id cannot be told apart; the conversion says so.
            if id.is_none_or(|id| seen.insert(id.to_owned())) {
                rows.push(row);
            }
        }
        if !found.more {
            return Ok(match found.total == rows.len() {
                true => Read::Whole(rows),
                false => {
                    let what = format!("{} rows came where the server counts {}", rows.len(), found.total);
                    Read::Changed(answer.place, what)
                }
            });
        }
        if came == 0 || offset > ROWS_MAX {
            let what = format!("it says there are more, and {came} rows came at offset {offset}");
            return Ok(Read::Changed(answer.place, what));
        }
    }
}

fn page(answer: &Answer) -> Result<Page, CentralError> {
    let body = answer.json()?;
    let fields = Fields::of(&body).map_err(|_| answer.wrong_shape("an object with data was expected"))?;
    let wrong = |misfit| answer.wrong_shape(misfit);
    let rows = fields.list("data").map_err(wrong)?;
    let rows = rows.ok_or_else(|| answer.wrong_shape("data: is missing"))?.clone();
    if let Some(count) = body.get("count").and_then(Value::as_u64)
        && count != rows.len() as u64
    {
        return Err(answer.wrong_shape(format!("count is {count}, and {} rows came", rows.len())));
    }
    let total = body.get("totalCount").and_then(Value::as_u64);
    let total = total.ok_or_else(|| answer.wrong_shape("totalCount: is missing or no number"))?;
    Ok(Page {
        rows,
        more: fields.text("next").map_err(wrong)?.is_some(),
        total: usize::try_from(total).unwrap_or(usize::MAX),
    })
}
