//! From the socket to the servers' code and back: reads requests, lets faults happen, keeps the state, answers.

use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderName, HeaderValue, Response, header};
use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use url::form_urlencoded;

use super::connection::{CuttableListener, Cutter};
use super::faults::{self, Disturbance, FaultKind};
use super::http::{Answer, Request};
use super::nomad::{Pulse, Reply};
use super::seen::SeenRequest;
use super::state::{CentralState, named};
use super::tracked::Tracked;
use super::{Shared, admin, amie, clock, datarobot, file, lock, nomad, waldur};

/// Largest body that is read; beyond it the answer is 413 whoever asks.
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Answers from this size on are compressed for who takes that; below it the head outweighs the body.
const GZIP_BYTES_MIN: usize = 1024;

/// Headers that carry credentials and are not remembered.
const SECRET_HEADERS: [&str; 4] = ["authorization", "xa-api-key", "x-nomad-token", "cookie"];

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
    let outcome = answer(&service.shared, &request, cutter.number);
    let fault = outcome.disturbance.fault.as_ref();
    if fault == Some(&FaultKind::Hang) {
        // Nothing is said until the server stops or the client has had enough.
        service.stop.cancelled().await;
    }
    let answer = match outcome.held {
        None => Some(outcome.answer),
        Some(held) => held.end(&service, &request).await,
    };
    let latency_ms = outcome.disturbance.latency_ms;
    if latency_ms > 0 {
        // A server that is told to stop does not keep its clients waiting.
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(latency_ms)) => {}
            () = service.stop.cancelled() => {}
        }
    }
    let date = {
        let mut shared = lock(&service.shared);
        if let (Some(serial), Some(answer)) = (outcome.serial, &answer) {
            shared.seen.settle(serial, answer.status.as_u16());
        }
        date_header(&shared.state, fault)
    };
    let Some(mut answer) = answer else {
        cutter.cut_before_answer();
        return response(Answer::empty(500), Some(date));
    };
    if let Some(fault) = fault {
        answer = faults::spoil(fault, answer);
    }
    if takes_gzip(&request) {
        answer = gzipped(answer);
    }
    match fault {
        Some(FaultKind::Cut | FaultKind::AnswerLost | FaultKind::Hang) => cutter.cut_before_answer(),
        Some(FaultKind::Truncated) if answer.body.is_empty() => cutter.cut_before_answer(),
        Some(FaultKind::Truncated) => cutter.cut_after_body_bytes(answer.body.len() as u64 / 2),
        _ => {}
    }
    response(answer, Some(date))
}

/// A query that waits for a change.
struct Held {
    /// How long at most, jitter included.
    wait: Duration,
    changes: watch::Receiver<Pulse>,
    /// Counts it among the held ones while it is.
    count: Arc<AtomicUsize>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Held {
    /// The answer: after a change that concerns it, or when its wait is over. None when the server is started again or
    /// stops, which ends the connection.
    async fn end(mut self, service: &Service, request: &Request) -> Option<Answer> {
        let restarts = self.changes.borrow().restarts;
        let over = tokio::time::sleep(self.wait);
        tokio::pin!(over);
        loop {
            tokio::select! {
                biased;
                () = service.stop.cancelled() => return None,
                changed = self.changes.changed() => {
                    if changed.is_err() || self.changes.borrow_and_update().restarts != restarts {
                        return None;
                    }
                    let answer = nomad::after_change(&lock(&service.shared).state, request);
                    if answer.is_some() {
                        return answer;
                    }
                }
                () = &mut over => return Some(nomad::after_wait(&lock(&service.shared).state, request)),
            }
        }
    }
}

struct Outcome {
    answer: Answer,
    /// The answer comes later, and the one above is none.
    held: Option<Held>,
    disturbance: Disturbance,
    /// Its number among the remembered requests.
    serial: Option<u64>,
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
    let mut held_for = None;
    let mut answer = match instead {
        Some(answer) => answer,
        None if admin_door => admin::answer(&mut tracked, &shared.seen, request),
        None if request.path.starts_with("/api/v2/") => datarobot::answer(&mut tracked, request),
        None if request.path.starts_with("/api/") => waldur::answer(&mut tracked, request),
        None if request.path.starts_with("/amie/") => amie::answer(&mut tracked, request),
        None if request.path.starts_with("/nomad/") => match nomad::answer(&mut tracked, request) {
            Reply::Done(answer) => answer,
            Reply::Held(wait) => {
                held_for = Some(wait);
                Answer::empty(500)
            }
        },
        None => Answer::html(404, "Not Found"),
    };
    let changed = tracked.is_changed() || shared.dirty;
    if let (true, Some(path), Some(backup)) = (changed, &shared.file, backup) {
        match file::write(path, &shared.state) {
            Ok(()) => shared.dirty = false,
            Err(error) => {
                tracing::error!(error = %error, path = %path.display(), "the emulated server keeps its old state");
                shared.state = backup;
                answer = Answer::detail(500, "The emulated server cannot write its state.");
                held_for = None;
            }
        }
    }
    shared.tell_held();
    let held = held_for.map(|wait| hold(shared, wait));
    let silent = held.is_some() || disturbance.fault == Some(FaultKind::Hang);
    let status = if silent { 0 } else { answer.status.as_u16() };
    let serial = (!admin_door).then(|| shared.seen.remember(seen(request, status, connection)));
    Outcome { answer, held, disturbance, serial: serial.filter(|_| silent) }
}

/// Begins to hold a query; the jitter of its wait follows from the seed and the queries held before.
fn hold(shared: &mut Shared, wait: Duration) -> Held {
    shared.queries_held += 1;
    let chance = named(&format!("jitter {} {}", shared.state.seed, shared.queries_held)).as_u128();
    let most = nomad::jitter_max(wait).as_millis();
    let jitter_ms = u64::try_from(chance % (most + 1)).unwrap_or_default();
    shared.holding.fetch_add(1, Ordering::SeqCst);
    Held {
        wait: wait + Duration::from_millis(jitter_ms),
        changes: shared.changes.subscribe(),
        count: Arc::clone(&shared.holding),
    }
}

fn date_header(state: &CentralState, fault: Option<&FaultKind>) -> String {
    let skew = match fault {
        Some(FaultKind::ClockSkew { seconds }) => *seconds,
        _ => 0,
    };
    httpdate::fmt_http_date(clock::saturating_add(state.now(), skew).into())
}

fn seen(request: &Request, status: u16, connection: u64) -> SeenRequest {
    let headers = request
        .headers
        .iter()
        .filter(|(name, _)| !SECRET_HEADERS.contains(&name.as_str()))
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    SeenRequest {
        method: request.method.to_string(),
        target: request.target(),
        headers,
        body: String::from_utf8_lossy(&request.body).into_owned(),
        status,
        connection,
    }
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
