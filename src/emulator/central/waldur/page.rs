//! Paging with Waldur's headers, and sparse fields.

use std::collections::BTreeSet;

use serde_json::Value;
use url::form_urlencoded;

use super::super::http::{Answer, Request};

/// Rows of a page unless asked otherwise.
const PAGE_SIZE: usize = 10;
/// Most rows of a page; larger wishes are cut to it.
const PAGE_SIZE_MAX: usize = 100;

/// One page of rows with `X-Result-Count` and `Link`, each row reduced to the fields asked for. Only the rows of the page are
/// made.
pub(crate) fn paged<T>(request: &Request, rows: &[&T], row: impl Fn(&T) -> Value) -> Result<Answer, Answer> {
    let size = request
        .param("page_size")
        .and_then(|text| text.parse::<usize>().ok())
        .filter(|size| *size > 0)
        .unwrap_or(PAGE_SIZE)
        .min(PAGE_SIZE_MAX);
    let last = rows.len().div_ceil(size).max(1);
    let page = match request.param("page") {
        None => 1,
        Some("last") => last,
        Some(text) => match text.parse::<usize>() {
            Ok(page) if (1..=last).contains(&page) => page,
            _ => return Err(Answer::detail(404, "Invalid page.")),
        },
    };
    let first = (page - 1) * size;
    let fields = sparse_fields(request);
    let shown: Vec<Value> =
        rows.iter().skip(first).take(size).map(|shown| sparse(row(shown), fields.as_ref())).collect();
    let mut links = vec![link(request, 1, "first")];
    if page > 1 {
        links.push(link(request, page - 1, "prev"));
    }
    if page < last {
        links.push(link(request, page + 1, "next"));
    }
    links.push(link(request, last, "last"));
    Ok(Answer::json(200, &Value::Array(shown))
        .with_header("x-result-count", rows.len().to_string())
        .with_header("link", links.join(", ")))
}

/// The fields a request asks for; none means all.
pub(crate) fn sparse_fields(request: &Request) -> Option<BTreeSet<String>> {
    let fields: BTreeSet<String> = request.params("field").map(str::to_owned).collect();
    (!fields.is_empty()).then_some(fields)
}

/// A row reduced to the fields asked for; unknown names are ignored.
pub(crate) fn sparse(row: Value, fields: Option<&BTreeSet<String>>) -> Value {
    match (row, fields) {
        (Value::Object(members), Some(fields)) => {
            Value::Object(members.into_iter().filter(|(name, _)| fields.contains(name)).collect())
        }
        (row, _) => row,
    }
}

fn link(request: &Request, page: usize, relation: &str) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    for (name, value) in request.query.iter().filter(|(name, _)| name != "page") {
        query.append_pair(name, value);
    }
    let query = query.append_pair("page", &page.to_string()).finish();
    format!("<{}{}?{query}>; rel=\"{relation}\"", request.base(), request.path)
}
