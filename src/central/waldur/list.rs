//! Reads a paged list as a whole, or says that it could not.
//!
//! Pages are counted by us: the address in `Link` is never followed, it only says whether there are more (the token must
//! not go where an answer points to). A row that moves from one page to another while we read would be missed or seen
//! twice; rows are told apart by uuid and counted against `X-Result-Count`, and a list that does not add up, or says two
//! things of one row, is read again from the start.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::central::error::{CentralError, Place};
use crate::central::http::{Answer, Call, Http};
use crate::central::paged::{Read, read_whole};

/// Rows per page: the most that every deployment allows.
pub(super) const PAGE_SIZE: usize = 100;
/// Most pages of one list; 50,000 rows are beyond any site and this ends a server that always says "more".
const PAGES_MAX: usize = 500;

/// All rows of a list.
pub(super) async fn fetch_list(
    http: &Http,
    path: &str,
    query: &[(&str, String)],
) -> Result<Vec<Value>, CentralError> {
    read_whole(async || read_once(http, path, query).await).await
}

async fn read_once(http: &Http, path: &str, query: &[(&str, String)]) -> Result<Read, CentralError> {
    let mut rows: Vec<Value> = Vec::new();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut first_count = None;
    for page in 1..=PAGES_MAX {
        let mut query = query.to_vec();
        query.push(("page", page.to_string()));
        query.push(("page_size", PAGE_SIZE.to_string()));
        let answer = match http.send(Call::get(path, &query)).await {
            Ok(answer) => answer,
            // "Invalid page": the list has become shorter since the page before.
            Err(CentralError::Refused { place, status: 404, .. }) if page > 1 => {
                return Ok(finish(place, rows, seen.len(), first_count));
            }
            Err(error) => return Err(error),
        };
        let found = page_rows(&answer)?;
        let full = found.len() >= PAGE_SIZE;
        let before = seen.len();
        for row in found {
            // A row without a uuid cannot be told apart; the conversion says so.
            if let Some(uuid) = row.get("uuid").and_then(Value::as_str) {
                match seen.get(uuid) {
                    Some(known) if rows[*known] == row => continue,
                    Some(_) => {
                        return Ok(Read::Changed(answer.place, format!("row {uuid:?} came in two ways")));
                    }
                    None => seen.insert(uuid.to_owned(), rows.len()),
                };
            }
            rows.push(row);
        }
        let count = answer.header("x-result-count").and_then(|text| text.trim().parse::<usize>().ok());
        if page > 1 && count != first_count {
            return Ok(Read::Changed(
                answer.place,
                format!("the count went from {first_count:?} to {count:?}"),
            ));
        }
        first_count = count;
        let more = match answer.header("link") {
            Some(link) => has_next(link),
            None => match count {
                Some(count) => rows.len() < count && full,
                None => full && seen.len() > before,
            },
        };
        if !more {
            return Ok(finish(answer.place, rows, seen.len(), first_count));
        }
    }
    Err(CentralError::ListChanged {
        place: Place(format!("GET {path}")),
        what: format!("it has more than {PAGES_MAX} pages"),
    })
}

fn finish(place: Place, rows: Vec<Value>, unique: usize, count: Option<usize>) -> Read {
    match count {
        Some(count) if count != rows.len() => {
            Read::Changed(place, format!("{unique} different rows came where the server counts {count}"))
        }
        _ => Read::Whole(rows),
    }
}

/// The rows of one answer.
pub(super) fn page_rows(answer: &Answer) -> Result<Vec<Value>, CentralError> {
    match answer.json()? {
        Value::Array(rows) => Ok(rows),
        _ => Err(answer.wrong_shape("a list was expected")),
    }
}

/// Whether a `Link` header names a next page.
fn has_next(link: &str) -> bool {
    link.split(',').any(|part| {
        part.split(';').skip(1).any(|parameter| {
            let Some((name, value)) = parameter.split_once('=') else { return false };
            name.trim().eq_ignore_ascii_case("rel")
                && value.trim().trim_matches(['"', '\'']).eq_ignore_ascii_case("next")
        })
    })
}

#[cfg(test)]
mod tests {
    use super::has_next;

    #[test]
    fn only_rel_next_means_more_pages() {
        assert!(has_next(r#"<https://a/?page=1>; rel="first", <https://a/?page=3>; rel="next""#));
        assert!(has_next("<https://a/?page=3>; rel=next"));
        assert!(!has_next(r#"<https://a/?next=1>; rel="last", <https://a/?page=1>; rel="prev""#));
        assert!(!has_next(""));
    }
}
