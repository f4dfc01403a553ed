//! Tests of the room over real sockets: tiny servers written by hand, on ephemeral ports of loopback. They share no code
//! with the emulated server, so that errors of the two cannot cancel out. Nothing sleeps: waits are noted, not waited.

mod amie;
mod blocking;
mod datarobot;
mod http;
mod nomad;
mod tls;
mod waldur;
mod waldur_quotas;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use secrecy::SecretString;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{Connection, Surroundings};
use crate::core::name::SourceName;
use crate::core::time::Epoch;

/// The local clock of every test: Sun, 22 Nov 2026 06:00:00 GMT.
pub const NOW: Epoch = Epoch(1_795_327_200);
/// The secret that must never be seen.
pub const SECRET: &str = "s3cr3t-t0ken-0123456789abcdef";

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    pub target: String,
    pub headers: String,
    pub body: String,
}

impl Seen {
    /// The value of a query parameter, undecoded.
    pub fn query(&self, name: &str) -> Option<&str> {
        let (_, query) = self.target.split_once('?')?;
        query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// What a server does with a request.
pub enum Reply {
    /// These bytes, then the connection is closed.
    Bytes(Vec<u8>),
    /// Nothing, for ever.
    Silence,
    /// The connection is closed without a word.
    HangUp,
}

/// A JSON answer.
pub fn json(status: u16, headers: &str, body: &str) -> Reply {
    raw(status, &format!("content-type: application/json\r\n{headers}"), body.as_bytes())
}

/// Any answer. `headers` are whole lines.
pub fn raw(status: u16, headers: &str, body: &[u8]) -> Reply {
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status} Said\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n");
    Reply::Bytes([head.as_bytes(), body].concat())
}

/// A server and what it saw.
pub struct Server {
    pub url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    /// Serves with a function of the request's number (from 0) and the request.
    pub async fn start(reply: impl Fn(usize, &Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = seen.clone();
        tokio::spawn(async move {
            let mut silent = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let Some(request) = read_request(&mut stream).await else { continue };
                let number = {
                    let mut log = log.lock().unwrap();
                    log.push(request.clone());
                    log.len() - 1
                };
                match reply(number, &request) {
                    Reply::Bytes(bytes) => {
                        // The client may have left already (size limit); that is its right.
                        let _ = stream.write_all(&bytes).await;
                        let _ = stream.shutdown().await;
                    }
                    Reply::Silence => silent.push(stream),
                    Reply::HangUp => drop(stream),
                }
            }
        });
        Self { url, seen }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

async fn read_request(stream: &mut TcpStream) -> Option<Seen> {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    let end = loop {
        let count = stream.read(&mut piece).await.ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&piece[..count]);
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let length: usize = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok())
        .unwrap_or(0);
    while bytes.len() < end + length {
        let count = stream.read(&mut piece).await.ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&piece[..count]);
    }
    let mut first = head.split(' ');
    Some(Seen {
        method: first.next()?.to_owned(),
        target: first.next()?.to_owned(),
        body: String::from_utf8(bytes[end..].to_vec()).unwrap(),
        headers: head,
    })
}

/// Waits that were asked for.
pub type Waits = Arc<Mutex<Vec<Duration>>>;

/// Surroundings with a standing clock, where waiting takes no time.
pub fn surroundings() -> (Surroundings, Waits) {
    let waits = Waits::default();
    let noted = waits.clone();
    let surroundings = Surroundings {
        clock: Arc::new(|| NOW),
        jitter_seed: 42,
        sleep: Arc::new(move |wait| {
            noted.lock().unwrap().push(wait);
            Box::pin(std::future::ready(()))
        }),
    };
    (surroundings, waits)
}

pub fn source() -> SourceName {
    SourceName::parse("portal").unwrap()
}

pub fn secret() -> SecretString {
    SecretString::from(SECRET)
}

/// How a server is reached that answers each request of a test once.
pub fn connection(server: &Server) -> Connection {
    Connection {
        name: source(),
        url: server.url.clone(),
        token: secret(),
        ca_file: None,
        proxy: None,
        timeout: Duration::from_secs(30),
        response_bytes_max: 10_000_000,
        attempts_max: 3,
    }
}

/// One part of the fixture of an API page.
pub fn page(path: &str, part: &str) -> serde_json::Value {
    let page: serde_json::Value = serde_json::from_str(&fixture(path)).unwrap();
    page.get(part).unwrap_or_else(|| panic!("{path} has no {part}")).clone()
}

/// Everything a person or a log could get to see of an error.
pub fn all_of(error: &super::CentralError) -> String {
    let mut text = format!("{error}\n{error:?}");
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text.push_str(&format!("\n{cause}\n{cause:?}"));
        next = cause.source();
    }
    text
}

/// The text of a fixture.
pub fn fixture(path: &str) -> String {
    let path = format!("{}/fixtures/central/{path}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}
