//! What can go wrong with a central server, told apart by what the caller should do.

pub use crate::core::class::Class;
use std::fmt;
use std::time::Duration;

use serde_json::Value;

/// Method and address of a request, without secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place(pub(super) String);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Why a server could not be used. No variant holds a token: addresses are checked to carry none, and excerpts have it
/// cut out.
#[derive(Debug, thiserror::Error)]
pub enum CentralError {
    /// The settings of a source cannot work.
    #[error("source {server}: {what}; correct the configuration of this source")]
    Settings {
        /// The source's name.
        server: String,
        /// What is wrong.
        what: String,
    },
    /// The HTTP client could not be made.
    #[error(
        "source {server}: cannot prepare TLS; install the host's CA certificates (package ca-certificates) or set ca_file"
    )]
    Tls {
        /// The source's name.
        server: String,
        /// Why.
        source: reqwest::Error,
    },
    /// The server's certificate was refused.
    #[error(
        "{place}: the server's certificate is not accepted; set ca_file to the CA that signed it, or correct the name in url"
    )]
    Certificate {
        /// Request.
        place: Place,
        /// Why.
        source: reqwest::Error,
    },
    /// No answer: name, route, connection, time.
    #[error(
        "{place}: no answer after {attempts} attempts; check network, proxy and the server; it is tried again at the next poll"
    )]
    Unreachable {
        /// Request.
        place: Place,
        /// How often it was tried.
        attempts: u32,
        /// Why.
        source: reqwest::Error,
    },
    /// The answer began and did not end.
    #[error(
        "{place}: the answer broke off, {attempts} attempts; check proxies between here and the server; it is tried again at the next poll"
    )]
    BrokenOff {
        /// Request.
        place: Place,
        /// How often it was tried.
        attempts: u32,
        /// Why.
        source: reqwest::Error,
    },
    /// 429 or 5xx.
    #[error(
        "{place}: the server is busy or failing (status {status}, {attempts} attempts): {excerpt}; it is tried again at the next poll"
    )]
    Busy {
        /// Request.
        place: Place,
        /// HTTP status.
        status: u16,
        /// How often it was tried.
        attempts: u32,
        /// Not before this time, where the server says so.
        retry_after: Option<Duration>,
        /// What it said.
        excerpt: String,
    },
    /// 401.
    #[error(
        "{place}: the server does not accept the token (status 401): {excerpt}; put a valid token in the token file and reload"
    )]
    Unauthorised {
        /// Request.
        place: Place,
        /// What it said.
        excerpt: String,
    },
    /// 403.
    #[error(
        "{place}: the token's owner may not do this (status 403): {excerpt}; give its owner the role that the README names"
    )]
    Forbidden {
        /// Request.
        place: Place,
        /// What it said.
        excerpt: String,
    },
    /// 3xx. The token is never sent to another address.
    #[error("{place}: the server redirects (status {status}) to {location}; set url to the final address")]
    Redirected {
        /// Request.
        place: Place,
        /// HTTP status.
        status: u16,
        /// Where to.
        location: String,
    },
    /// 404 or 405 that was not written by the API.
    #[error("{place}: there is no such API (status {status}): {excerpt}; correct url")]
    WrongAddress {
        /// Request.
        place: Place,
        /// HTTP status.
        status: u16,
        /// What it said.
        excerpt: String,
    },
    /// 4xx with a reason.
    #[error("{place}: refused (status {status}): {excerpt}")]
    Refused {
        /// Request.
        place: Place,
        /// HTTP status.
        status: u16,
        /// How often it was tried.
        attempts: u32,
        /// What it said.
        excerpt: String,
        /// The same as JSON, whole, where it is JSON: complaints by field.
        complaints: Option<Value>,
    },
    /// More bytes than allowed.
    #[error(
        "{place}: the answer is larger than {bytes_max} bytes; raise response_bytes_max if the server is right"
    )]
    Oversized {
        /// Request.
        place: Place,
        /// The limit.
        bytes_max: usize,
    },
    /// A success that is not JSON.
    #[error(
        "{place}: the answer (status {status}) is not JSON: {excerpt}; look for a proxy, a login or maintenance page"
    )]
    NotJson {
        /// Request.
        place: Place,
        /// HTTP status.
        status: u16,
        /// What it said.
        excerpt: String,
        /// Where the JSON ends.
        source: serde_json::Error,
    },
    /// JSON of another shape.
    #[error(
        "{place}: the answer has not the expected shape: {what}; compare the versions of server and agent"
    )]
    WrongShape {
        /// Request.
        place: Place,
        /// What is wrong.
        what: String,
    },
    /// A list that is different on every page.
    #[error("{place}: the list could not be read as a whole: {what}; it is tried again at the next poll")]
    ListChanged {
        /// Request.
        place: Place,
        /// What was seen.
        what: String,
    },
    /// What is asked for cannot be sent.
    #[error("{what}")]
    Unsendable {
        /// What is wrong with it.
        what: String,
    },
    /// The server does not know what is asked for.
    #[error("{place}: the server has no such {what}: {excerpt}; ask for the list of what it has")]
    NotThere {
        /// Request.
        place: Place,
        /// What was asked for.
        what: String,
        /// What it said.
        excerpt: String,
    },
    /// 409 of a Waldur quota.
    #[error(
        "{place}: this quota is a copy of one that its backend keeps, and cannot be changed here (status 409): \
         {excerpt}; change it at the backend"
    )]
    BackendQuota {
        /// Request.
        place: Place,
        /// What it said.
        excerpt: String,
    },
    /// 400 of a Waldur quota.
    #[error(
        "{place}: the server refuses the value (status 400): {excerpt}; a limit below what is in use already is \
         refused: look at the usage first"
    )]
    QuotaValue {
        /// Request.
        place: Place,
        /// What it said.
        excerpt: String,
    },
    /// A message that names nothing the server knows.
    #[error("{what}; it stays in the outbox and is shown in status")]
    Unaddressed {
        /// What is missing.
        what: String,
    },
}

impl CentralError {
    /// What to do about it.
    pub fn class(&self) -> Class {
        match self {
            CentralError::Settings { .. }
            | CentralError::Tls { .. }
            | CentralError::Certificate { .. }
            | CentralError::Unauthorised { .. }
            | CentralError::Forbidden { .. }
            | CentralError::Redirected { .. }
            | CentralError::WrongAddress { .. } => Class::Misconfigured,
            CentralError::Unreachable { .. }
            | CentralError::BrokenOff { .. }
            | CentralError::Busy { .. }
            | CentralError::ListChanged { .. } => Class::Transient,
            CentralError::Refused { .. }
            | CentralError::Unaddressed { .. }
            | CentralError::Unsendable { .. }
            | CentralError::NotThere { .. }
            | CentralError::BackendQuota { .. }
            | CentralError::QuotaValue { .. } => Class::Refused,
            CentralError::Oversized { .. }
            | CentralError::NotJson { .. }
            | CentralError::WrongShape { .. } => Class::Corrupt,
        }
    }

    /// The HTTP status, where there was one.
    pub fn status(&self) -> Option<u16> {
        match self {
            CentralError::Busy { status, .. }
            | CentralError::Redirected { status, .. }
            | CentralError::WrongAddress { status, .. }
            | CentralError::Refused { status, .. }
            | CentralError::NotJson { status, .. } => Some(*status),
            CentralError::Unauthorised { .. } => Some(401),
            CentralError::Forbidden { .. } => Some(403),
            CentralError::NotThere { .. } => Some(404),
            CentralError::BackendQuota { .. } => Some(409),
            CentralError::QuotaValue { .. } => Some(400),
            _ => None,
        }
    }

    /// How long the server asked to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            CentralError::Busy { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// Longest excerpt of an answer that is shown, in characters.
const EXCERPT_CHARS_MAX: usize = 200;

/// A short text for people from the bytes of an answer: tags, scripts and control characters taken out, secrets cut,
/// shortened.
pub(super) fn excerpt(bytes: &[u8], secrets: &[&str]) -> String {
    let mut text = String::from_utf8_lossy(bytes).into_owned();
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        text = text.replace(secret, "[hidden]");
    }
    let plain = if text.trim_start().starts_with('<') { without_tags(&text) } else { text };
    let mut short = String::new();
    for word in plain.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
        if !short.is_empty() {
            short.push(' ');
        }
        short.push_str(word);
        if short.chars().count() > EXCERPT_CHARS_MAX {
            short = short.chars().take(EXCERPT_CHARS_MAX).collect();
            short.push('…');
            break;
        }
    }
    if short.is_empty() { "(empty)".to_owned() } else { short }
}

/// The text of an HTML page: scripts, styles and tags left out.
fn without_tags(html: &str) -> String {
    let mut text = String::new();
    let mut rest = html;
    while let Some(open) = rest.find('<') {
        text.push_str(&rest[..open]);
        text.push(' ');
        rest = &rest[open..];
        let lower: String = rest.chars().take(7).collect::<String>().to_ascii_lowercase();
        let end = if lower.starts_with("<script") {
            "</script>"
        } else if lower.starts_with("<style") {
            "</style>"
        } else {
            ">"
        };
        rest = match rest.find(end) {
            Some(at) => &rest[at + end.len()..],
            None => "",
        };
    }
    text.push_str(rest);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_of_a_page_is_its_text_in_one_short_line() {
        let page = b"<!DOCTYPE html><html><head><style>b{}</style><title>502 Bad\n\tGateway</title>\
                     <script>if (1<2) {}</script></head><body><h1>nginx</h1></body></html>";
        assert_eq!(excerpt(page, &[]), "502 Bad Gateway nginx");
        assert_eq!(excerpt(b"", &[]), "(empty)");
        assert_eq!(excerpt(&vec![b'x'; 5000], &[]).chars().count(), EXCERPT_CHARS_MAX + 1);
        assert_eq!(excerpt(b"a\x1b[31m\0b\xff", &[]), "a [31m b\u{fffd}");
    }

    #[test]
    fn an_excerpt_never_holds_a_secret_even_across_the_cut() {
        let text = format!("{}TOKENVALUE", "x".repeat(195));
        let shown = excerpt(text.as_bytes(), &["TOKENVALUE"]);
        assert!(!shown.contains("TOK"), "{shown}");
    }
}
