//! Requests and answers of the emulated servers, free of any I/O.

use axum::http::{HeaderMap, Method, StatusCode};
use serde_json::{Map, Value, json};

/// A request as the servers' code sees it.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub method: Method,
    pub path: String,
    /// Decoded pairs in order.
    pub query: Vec<(String, String)>,
    pub raw_query: String,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Request {
    /// The text of a header, if it is there and is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The last value of a query parameter; empty ones count as absent.
    pub fn param(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().rev().find(|(key, value)| key == name && !value.is_empty());
        found.map(|(_, value)| value.as_str())
    }

    /// All non-empty values of a query parameter.
    pub fn params<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.query
            .iter()
            .filter(move |(key, value)| key == name && !value.is_empty())
            .map(|(_, v)| v.as_str())
    }

    /// Scheme and host as the client addressed them.
    pub fn base(&self) -> String {
        format!("http://{}", self.header("host").unwrap_or("localhost"))
    }

    /// The path with its query.
    pub fn target(&self) -> String {
        if self.raw_query.is_empty() {
            self.path.clone()
        } else {
            format!("{}?{}", self.path, self.raw_query)
        }
    }

    /// The body as a JSON object; an absent body is an empty one.
    pub fn json_object(&self) -> Result<Map<String, Value>, Answer> {
        if self.body.is_empty() {
            return Ok(Map::new());
        }
        let media = self.header("content-type").unwrap_or("application/octet-stream");
        if !media.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json") {
            return Err(Answer::detail(415, &format!("Unsupported media type \"{media}\" in request.")));
        }
        match serde_json::from_slice(&self.body) {
            Ok(Value::Object(object)) => Ok(object),
            Ok(other) => Err(Answer::json(
                400,
                &json!({"non_field_errors":
                    [format!("Invalid data. Expected a dictionary, but got {}.", python_type(&other))]}),
            )),
            Err(error) => Err(Answer::detail(400, &format!("JSON parse error - {error}"))),
        }
    }
}

/// The name Python gives to the type of a JSON value.
pub(super) fn python_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "NoneType",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float",
        Value::Number(_) => "int",
        Value::String(_) => "str",
        Value::Array(_) => "list",
        Value::Object(_) => "dict",
    }
}

/// What goes back to the client.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub status: StatusCode,
    pub headers: Vec<(&'static str, String)>,
    pub content_type: Option<&'static str>,
    pub body: Vec<u8>,
}

impl Answer {
    /// A JSON answer.
    pub fn json(status: u16, value: &Value) -> Self {
        Self {
            status: code(status),
            headers: Vec::new(),
            content_type: Some("application/json"),
            body: value.to_string().into_bytes(),
        }
    }

    /// An answer without a body.
    pub fn empty(status: u16) -> Self {
        Self { status: code(status), headers: Vec::new(), content_type: None, body: Vec::new() }
    }

    /// Django's `{"detail": ...}`.
    pub fn detail(status: u16, text: &str) -> Self {
        Self::json(status, &json!({"detail": text}))
    }

    /// A page for people, as Django or a proxy sends it.
    pub fn html(status: u16, title: &str) -> Self {
        let status = code(status);
        let page = format!(
            "<!DOCTYPE html>\n<html>\n<head><title>{} {title}</title></head>\n<body><h1>{title}</h1></body>\n</html>\n",
            status.as_u16()
        );
        Self {
            status,
            headers: Vec::new(),
            content_type: Some("text/html; charset=utf-8"),
            body: page.into_bytes(),
        }
    }

    /// The answer with one more header.
    pub fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The answer to a method the address does not take.
    pub fn method_not_allowed(method: &Method) -> Self {
        Self::detail(405, &format!("Method \"{method}\" not allowed."))
    }
}

fn code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}
