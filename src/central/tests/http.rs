//! The shared client: retries, limits, errors, secrets.

use std::time::Duration;

use super::*;
use crate::central::http::base_url;
use crate::central::{Call, CentralError, Class, Http, HttpSettings, Repeat};
use reqwest::Method;

const TIMEOUT: Duration = Duration::from_secs(30);
const ATTEMPTS: u32 = 4;

fn settings(url: &str) -> HttpSettings {
    HttpSettings {
        server: source(),
        base: base_url(&source(), url).unwrap(),
        secret_headers: vec![("authorization", "Token ", secret())],
        headers: vec![("xa-site", "SITE".to_owned())],
        ca_file: None,
        proxy: None,
        timeout: TIMEOUT,
        response_bytes_max: 10_000,
        attempts_max: ATTEMPTS,
    }
}

fn http_of(server: &Server) -> (Http, Waits) {
    let (surroundings, waits) = surroundings();
    (Http::new(settings(&server.url), surroundings).unwrap(), waits)
}

async fn get(http: &Http) -> Result<crate::central::Answer, CentralError> {
    http.send(Call::get("thing/", &[("a", "b c".to_owned())])).await
}

#[tokio::test]
async fn a_request_carries_token_user_agent_and_encoded_query() {
    let server = Server::start(|_, _| json(200, "", "[1]")).await;
    let (http, _) = http_of(&server);
    let answer = get(&http).await.unwrap();
    assert_eq!(answer.json().unwrap(), serde_json::json!([1]));
    let seen = &server.seen()[0];
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("GET", "/thing/?a=b+c"));
    for line in [
        format!("authorization: Token {SECRET}"),
        "xa-site: SITE".to_owned(),
        format!("user-agent: slurm-site-agent/{}", env!("CARGO_PKG_VERSION")),
        "accept-encoding: gzip".to_owned(),
        "accept: application/json".to_owned(),
    ] {
        assert!(seen.headers.lines().any(|l| l == line), "{line} is not in {}", seen.headers);
    }
}

#[tokio::test]
async fn outages_are_asked_again_until_they_pass() {
    for status in [429, 502, 503, 504] {
        let server = Server::start(move |number, _| match number {
            0 | 1 => raw(status, "", b"<html>no</html>"),
            _ => json(200, "", "{}"),
        })
        .await;
        let (http, waits) = http_of(&server);
        let answer = get(&http).await.unwrap();
        assert_eq!(
            (answer.attempts, server.seen().len(), waits.lock().unwrap().len()),
            (3, 3, 2),
            "{status}"
        );
    }
}

#[tokio::test]
async fn a_cut_connection_is_asked_again_only_when_repeating_is_harmless() {
    for (repeat, expected) in [(Repeat::Absolute, 2), (Repeat::Once, 1)] {
        let server = Server::start(|number, _| match number {
            0 => Reply::HangUp,
            _ => json(201, "", "{}"),
        })
        .await;
        let (http, _) = http_of(&server);
        let sent = http.send(Call::send(Method::POST, "thing/", "{}".to_owned(), repeat)).await;
        assert_eq!(server.seen().len(), expected, "{repeat:?}");
        match repeat {
            Repeat::Absolute => assert_eq!(sent.unwrap().status, 201),
            Repeat::Once => assert_eq!(sent.unwrap_err().class(), Class::Transient),
        }
    }
}

#[tokio::test]
async fn status_500_is_asked_again_once() {
    let server = Server::start(|_, _| json(500, "", r#"{"detail": "deadlock"}"#)).await;
    let (http, _) = http_of(&server);
    let error = get(&http).await.unwrap_err();
    assert_eq!(server.seen().len(), 2);
    assert_eq!((error.class(), error.status()), (Class::Transient, Some(500)));
    assert!(error.to_string().contains("deadlock"), "{error}");
}

#[tokio::test]
async fn attempts_are_limited_and_the_last_answer_is_told() {
    let server =
        Server::start(|_, _| raw(503, "", b"<html><title>Down for\nmaintenance</title></html>")).await;
    let (http, waits) = http_of(&server);
    let error = get(&http).await.unwrap_err();
    assert_eq!((server.seen().len(), waits.lock().unwrap().len()), (4, 3));
    assert_eq!(
        error.to_string(),
        format!(
            "GET {}/thing/?a=b+c: the server is busy or failing (status 503, 4 attempts): Down for maintenance; \
             it is tried again at the next poll",
            server.url
        )
    );
}

#[tokio::test]
async fn retry_after_is_the_floor_of_the_wait_in_seconds_and_as_a_date_on_the_servers_clock() {
    // The server's clock is a day ahead; its date means 40 s on its own clock.
    let dated = "date: Mon, 23 Nov 2026 06:00:00 GMT\r\nretry-after: Mon, 23 Nov 2026 06:00:40 GMT\r\n";
    for (headers, floor_s) in [("retry-after: 17\r\n", 17), (dated, 40)] {
        let server = Server::start(move |number, _| match number {
            0 => raw(429, headers, b""),
            _ => json(200, "", "{}"),
        })
        .await;
        let (http, waits) = http_of(&server);
        get(&http).await.unwrap();
        let waits = waits.lock().unwrap().clone();
        let floor = Duration::from_secs(floor_s);
        assert!(
            waits.len() == 1 && waits[0] >= floor && waits[0] <= floor + Duration::from_millis(500),
            "{waits:?}"
        );
    }
}

#[tokio::test]
async fn a_retry_after_beyond_our_patience_ends_the_call_and_is_handed_on() {
    let server = Server::start(|_, _| raw(429, "retry-after: 86400\r\n", b"")).await;
    let (http, waits) = http_of(&server);
    let error = get(&http).await.unwrap_err();
    assert_eq!((server.seen().len(), waits.lock().unwrap().len()), (1, 0));
    assert_eq!(error.retry_after(), Some(Duration::from_secs(86_400)));
}

#[tokio::test]
async fn refusals_are_told_apart_and_never_repeated() {
    let page = "<html><body><h1>Not Found</h1></body></html>";
    let detail = r#"{"detail": "why not"}"#;
    for (status, body, class, expected) in [
        (401, detail, Class::Misconfigured, "does not accept the token"),
        (403, detail, Class::Misconfigured, "may not do this"),
        (404, detail, Class::Refused, "why not"),
        (404, page, Class::Misconfigured, "no such API"),
        (405, page, Class::Misconfigured, "no such API"),
        (400, detail, Class::Refused, "why not"),
        (409, detail, Class::Refused, "why not"),
        (413, page, Class::Refused, "Not Found"),
        (501, page, Class::Refused, "Not Found"),
    ] {
        let server = Server::start(move |_, _| raw(status, "", body.as_bytes())).await;
        let (http, _) = http_of(&server);
        let error = get(&http).await.unwrap_err();
        assert_eq!((error.class(), error.status()), (class, Some(status)), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
        assert!(error.to_string().contains(&server.url), "{error}");
        assert_eq!(server.seen().len(), 1, "{status}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_the_token_stays_here() {
    let elsewhere = Server::start(|_, _| json(200, "", "{}")).await;
    let location = format!("location: {}/api/?next=x\r\n", elsewhere.url.replace("//", "//user:pass@"));
    for status in [301, 302, 307, 308] {
        let location = location.clone();
        let server = Server::start(move |_, _| raw(status, &location, b"")).await;
        let (http, _) = http_of(&server);
        let error = get(&http).await.unwrap_err();
        assert_eq!(error.class(), Class::Misconfigured);
        assert!(error.to_string().contains(&format!("{}/api/", elsewhere.url)), "{error}");
        assert!(!error.to_string().contains("pass"), "{error}");
    }
    assert_eq!(elsewhere.seen().len(), 0);
}

#[tokio::test]
async fn a_page_instead_of_json_is_shown_as_text() {
    let server = Server::start(|_, _| {
        raw(200, "", b"<!doctype html><title>Please log in</title><script>x()</script>")
    })
    .await;
    let (http, _) = http_of(&server);
    let error = get(&http).await.unwrap().json().unwrap_err();
    assert_eq!(error.class(), Class::Corrupt);
    assert!(error.to_string().contains("is not JSON: Please log in;"), "{error}");
}

#[tokio::test]
async fn json_that_ends_early_is_corrupt() {
    let server = Server::start(|_, _| json(200, "", r#"[{"uuid": "a"}, {"uu"#)).await;
    let (http, _) = http_of(&server);
    assert_eq!(get(&http).await.unwrap().json().unwrap_err().class(), Class::Corrupt);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_an_outage_and_asked_again() {
    let server = Server::start(|number, _| match number {
        0 => Reply::Bytes(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n[1, 2".to_vec()),
        _ => json(200, "", "[1, 2]"),
    })
    .await;
    let (http, _) = http_of(&server);
    assert_eq!(get(&http).await.unwrap().attempts, 2);
    let server = Server::start(|_, _| {
        Reply::Bytes(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n[1, 2\r\n".to_vec())
    })
    .await;
    let (http, _) = http_of(&server);
    let error = get(&http).await.unwrap_err();
    assert_eq!((error.class(), server.seen().len()), (Class::Transient, 4), "{error}");
    assert!(error.to_string().contains("broke off"), "{error}");
}

#[tokio::test]
async fn an_answer_above_the_size_limit_is_cut_off_also_when_it_is_small_on_the_wire() {
    let plain = vec![b' '; 10_001];
    let exactly = vec![b' '; 10_000];
    for (headers, body, fits) in [
        ("", plain.clone(), false),
        ("content-encoding: gzip\r\n", gzip(&plain), false),
        ("", exactly.clone(), true),
        ("content-encoding: gzip\r\n", gzip(&exactly), true),
    ] {
        let server = Server::start(move |_, _| raw(200, headers, &body)).await;
        let (http, _) = http_of(&server);
        match get(&http).await {
            Ok(answer) => assert!(fits && answer.is_empty(), "{headers}"),
            Err(error) => {
                assert!(!fits, "{error}");
                assert!(matches!(error, CentralError::Oversized { bytes_max: 10_000, .. }), "{error}");
                assert_eq!(server.seen().len(), 1);
            }
        }
    }
}

/// A gzip file with one stored block: no compressor is needed to test a decompressor.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap();
    [
        [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255, 1].as_slice(),
        &length.to_le_bytes(),
        &(!length).to_le_bytes(),
        bytes,
        &crc32(bytes).to_le_bytes(),
        &u32::from(length).to_le_bytes(),
    ]
    .concat()
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

#[tokio::test]
async fn an_endless_error_page_is_not_read_to_its_end() {
    let server = Server::start(|_, _| raw(400, "", &vec![b'x'; 3_000_000])).await;
    let (http, _) = http_of(&server);
    let error = get(&http).await.unwrap_err();
    assert_eq!(error.status(), Some(400));
    assert!(error.to_string().len() < 1000);
}

#[tokio::test]
async fn a_server_that_is_silent_or_not_there_is_an_outage() {
    let silent = Server::start(|_, _| Reply::Silence).await;
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    for url in [silent.url.clone(), nobody] {
        let (surroundings, waits) = surroundings();
        let mut settings = settings(&url);
        settings.timeout = Duration::from_millis(20);
        let http = Http::new(settings, surroundings).unwrap();
        let error = get(&http).await.unwrap_err();
        assert!(matches!(error, CentralError::Unreachable { attempts: ATTEMPTS, .. }), "{error}");
        assert_eq!((error.class(), waits.lock().unwrap().len()), (Class::Transient, 3));
    }
}

#[tokio::test]
async fn the_clock_skew_comes_from_the_date_header_unless_a_cache_answered() {
    let server = Server::start(|number, _| match number {
        0 => json(200, "date: Sun, 22 Nov 2026 06:01:30 GMT\r\n", "{}"),
        1 => json(200, "date: Sun, 22 Nov 2026 01:00:00 GMT\r\nage: 18000\r\n", "{}"),
        2 => json(200, "date: tomorrow\r\n", "{}"),
        _ => json(401, "date: Sun, 22 Nov 2026 05:59:50 GMT\r\n", "{}"),
    })
    .await;
    let (http, _) = http_of(&server);
    assert_eq!(http.clock_skew_s(), None);
    for expected in [90, 90, 90] {
        get(&http).await.unwrap();
        assert_eq!(http.clock_skew_s(), Some(expected));
    }
    get(&http).await.unwrap_err();
    assert_eq!(http.clock_skew_s(), Some(-10), "an error tells the time as well");
}

#[tokio::test]
async fn the_token_is_in_no_error_and_no_debug_text_even_when_the_server_repeats_it() {
    let echo = format!("{{\"detail\": \"Invalid token {SECRET}\"}}");
    let page = format!("<html><title>Token {SECRET} seen</title></html>");
    let location = format!("location: /login?token={SECRET}\r\n");
    let located = format!("location: /{SECRET}\r\n");
    for (status, headers, body) in [
        (401, "", echo.clone()),
        (403, "", echo.clone()),
        (400, "", echo.clone()),
        (404, "", page.clone()),
        (500, "", page.clone()),
        (503, "", page.clone()),
        (200, "", page),
        (302, location.as_str(), String::new()),
        (302, located.as_str(), String::new()),
    ] {
        let headers = headers.to_owned();
        let server = Server::start(move |_, _| raw(status, &headers, body.as_bytes())).await;
        let (http, _) = http_of(&server);
        let error = match get(&http).await {
            Ok(answer) => answer.json().unwrap_err(),
            Err(error) => error,
        };
        assert!(server.seen()[0].headers.contains(SECRET));
        let text = format!("{} {http:?}", all_of(&error));
        assert!(!text.contains(SECRET), "{text}");
    }
    let server = Server::start(|_, _| Reply::HangUp).await;
    let (http, _) = http_of(&server);
    let text = all_of(&get(&http).await.unwrap_err());
    assert!(!text.contains(SECRET), "{text}");
}

#[test]
fn addresses_and_tokens_that_cannot_work_are_refused_with_the_reason_and_without_the_secret() {
    for (url, reason) in [
        ("waldur.example.org", "not an address"),
        ("ftp://waldur.example.org", "https://"),
        ("https://me:geheim@waldur.example.org", "token file"),
        ("https://waldur.example.org/?x=geheim", "? or #"),
        ("", "not an address"),
    ] {
        let error = base_url(&source(), url).unwrap_err();
        assert_eq!(error.class(), Class::Misconfigured);
        let text = all_of(&error);
        assert!(text.contains(reason) && !text.contains("geheim"), "{text}");
    }
    for token in ["", "two\nlines", "nul\0"] {
        let mut settings = settings("http://127.0.0.1:1");
        settings.secret_headers[0].2 = SecretString::from(token);
        let error = Http::new(settings, surroundings().0).unwrap_err();
        assert_eq!(error.class(), Class::Misconfigured);
        assert!(!all_of(&error).contains("lines"));
    }
}

#[tokio::test]
async fn a_proxy_is_used_except_for_loopback() {
    // The "proxy" answers itself; a request through it names the whole address.
    let proxy = Server::start(|_, _| json(200, "", "{}")).await;
    let direct = Server::start(|_, _| json(200, "", "{}")).await;
    for (url, through) in [("http://waldur.invalid/api/", true), (direct.url.as_str(), false)] {
        let mut settings = settings(url);
        settings.proxy = Some(proxy.url.parse().unwrap());
        let http = Http::new(settings, surroundings().0).unwrap();
        get(&http).await.unwrap();
        assert_eq!(proxy.seen().len(), 1, "{through}");
    }
    assert_eq!(proxy.seen()[0].target, "http://waldur.invalid/api/thing/?a=b+c");
    assert_eq!(direct.seen().len(), 1);
}
