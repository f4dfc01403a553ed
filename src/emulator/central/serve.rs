//! From the socket to the servers' code and back: reads requests, lets faults happen, keeps the state, answers.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderName, HeaderValue, Response, header};
use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use url::form_urlencoded;

use super::connection::{CuttableListener, Cutter};
use super::faults::{self, Disturbance, FaultKind};
use super::http::{Answer, Request};
use super::state::CentralState;
use super::tracked::Tracked;
use super::{REQUESTS_KEPT, SeenRequest, Shared, admin, amie, clock, file, lock, waldur};

/// Largest body that is read; beyond it the answer is 413 whoever asks.
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Answers from this size on are compressed for who takes that; below it the head outweighs the body.
const GZIP_BYTES_MIN: usize = 1024;

/// Headers that carry credentials and are not remembered.
const SECRET_HEADERS: [&str; 3] = ["authorization", "xa-api-key", "cookie"];

#[derive(Clone)]
struct Service {
    shared: Arc<Mutex<Shared>>,
    stop: CancellationToken,
}

/// Serves until told to stop.
pub(super) async fn serve(
    shared: Arc<Mutex<Shared>>,
    listener: TcpListener,
    stop: CancellationToken,
) -> io::Result<()> {
    let service = Service { shared, stop: stop.clone() };
    let router = Router::new().fallback(handle).with_state(service);
    let listener = CuttableListener { listener, accepted: 0 };
    axum::serve(listener, router.into_make_service_with_connect_info::<Cutter>())
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}

async fn handle(
    State(service): State<Service>,
    ConnectInfo(cutter): ConnectInfo<Cutter>,
    request: axum::extract::Request,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, BODY_BYTES_MAX).await else {
        return response(Answer::detail(413, "Request entity too large."), None);
    };
    let raw_query = parts.uri.query().unwrap_or_default().to_owned();
    let request = Request {
        method: parts.method,
        path: parts.uri.path().to_owned(),
        query: form_urlencoded::parse(raw_query.as_bytes()).into_owned().collect(),
        raw_query,
        headers: parts.headers,
        body: body.to_vec(),
    };
    let mut outcome = answer(&service.shared, &request, cutter.number);
    if takes_gzip(&request) {
        outcome.answer = gzipped(outcome.answer);
    }
    if outcome.latency_ms > 0 {
        // A server that is told to stop does not keep its clients waiting.
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(outcome.latency_ms)) => {}
            () = service.stop.cancelled() => {}
        }
    }
    match outcome.cut {
        Some(Cut::BeforeAnswer) => cutter.cut_before_answer(),
        Some(Cut::MidBody) => cutter.cut_after_body_bytes(outcome.answer.body.len() as u64 / 2),
        None => {}
    }
    response(outcome.answer, Some(outcome.date))
}

/// Where the connection is to end.
#[derive(Debug, Clone, Copy)]
enum Cut {
    BeforeAnswer,
    MidBody,
}

struct Outcome {
    answer: Answer,
    latency_ms: u64,
    cut: Option<Cut>,
    date: String,
}

/// Handles one request alone, with the state on disk before it returns.
fn answer(shared: &Mutex<Shared>, request: &Request, connection: u64) -> Outcome {
    let mut guard = lock(shared);
    let shared = &mut *guard;
    let backup = shared.file.is_some().then(|| shared.state.clone());
    let mut tracked = Tracked::new(&mut shared.state);
    let admin_door = request.path.starts_with("/_emulator/");
    let disturbance = if admin_door { Disturbance::default() } else { faults::take(&mut tracked, request) };
    let instead = disturbance.fault.as_ref().and_then(|fault| faults::instead(fault, &tracked));
    let mut answer = match instead {
        Some(answer) => answer,
        None if admin_door => admin::answer(&mut tracked, &shared.seen, request),
        None if request.path.starts_with("/api/") => waldur::answer(&mut tracked, request),
        None if request.path.starts_with("/amie/") => amie::answer(&mut tracked, request),
        None => Answer::html(404, "Not Found"),
    };
    let changed = tracked.is_changed() || shared.dirty;
    let date = date_header(&shared.state, disturbance.fault.as_ref());
    if let (true, Some(path), Some(backup)) = (changed, &shared.file, backup) {
        match file::write(path, &shared.state) {
            Ok(()) => shared.dirty = false,
            Err(error) => {
                tracing::error!(error = %error, path = %path.display(), "the emulated server keeps its old state");
                shared.state = backup;
                answer = Answer::detail(500, "The emulated server cannot write its state.");
            }
        }
    }
    if let Some(fault) = &disturbance.fault {
        answer = faults::spoil(fault, answer);
    }
    let cut = match &disturbance.fault {
        Some(FaultKind::Cut | FaultKind::AnswerLost) => Some(Cut::BeforeAnswer),
        Some(FaultKind::Truncated) if answer.body.is_empty() => Some(Cut::BeforeAnswer),
        Some(FaultKind::Truncated) => Some(Cut::MidBody),
        _ => None,
    };
    if !admin_door {
        remember(shared, request, answer.status.as_u16(), connection);
    }
    Outcome { answer, latency_ms: disturbance.latency_ms, cut, date }
}

fn date_header(state: &CentralState, fault: Option<&FaultKind>) -> String {
    let skew = match fault {
        Some(FaultKind::ClockSkew { seconds }) => *seconds,
        _ => 0,
    };
    httpdate::fmt_http_date(clock::saturating_add(state.now(), skew).into())
}

fn remember(shared: &mut Shared, request: &Request, status: u16, connection: u64) {
    let headers = request
        .headers
        .iter()
        .filter(|(name, _)| !SECRET_HEADERS.contains(&name.as_str()))
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    if shared.seen.len() == REQUESTS_KEPT {
        shared.seen.pop_front();
    }
    shared.seen.push_back(SeenRequest {
        method: request.method.to_string(),
        target: request.target(),
        headers,
        body: String::from_utf8_lossy(&request.body).into_owned(),
        status,
        connection,
    });
}

fn takes_gzip(request: &Request) -> bool {
    let accepted = request.headers.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok());
    accepted.is_some_and(|list| list.split(',').any(|one| one.trim().eq_ignore_ascii_case("gzip")))
}

/// The answer as a server behind a compressing proxy sends it; short ones stay as they are.
fn gzipped(answer: Answer) -> Answer {
    if answer.body.len() < GZIP_BYTES_MIN {
        return answer;
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let written = encoder.write_all(&answer.body).and_then(|()| encoder.finish());
    let Ok(body) = written else { return answer };
    let mut headers = answer.headers;
    headers.push(("content-encoding", "gzip".to_owned()));
    headers.push(("vary", "accept-encoding".to_owned()));
    Answer { body, headers, ..answer }
}

fn response(answer: Answer, date: Option<String>) -> Response<Body> {
    let mut response = Response::new(Body::from(Bytes::from(answer.body)));
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    let content_type = answer.content_type.map(str::to_owned).map(|value| (header::CONTENT_TYPE, value));
    let own = answer.headers.into_iter().map(|(name, value)| (HeaderName::from_static(name), value));
    for (name, value) in own.chain(content_type).chain(date.map(|date| (header::DATE, date))) {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
    response
}
