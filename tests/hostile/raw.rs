//! A server that says exactly what a test wants, on a port of its own.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What is answered to one request.
#[derive(Debug, Clone)]
pub struct Said {
    pub status: u16,
    pub content_type: &'static str,
    pub body: Vec<u8>,
    /// Whether nothing is ever said.
    pub silent: bool,
    /// Whether the body comes byte by byte and never to its end.
    pub drips: bool,
    /// Where the answer leads.
    pub location: Option<String>,
}

impl Said {
    pub fn json(body: impl Into<Vec<u8>>) -> Said {
        Said {
            status: 200,
            content_type: "application/json",
            body: body.into(),
            silent: false,
            drips: false,
            location: None,
        }
    }

    pub fn html(status: u16, body: &str) -> Said {
        Said { status, content_type: "text/html", ..Said::json(body) }
    }

    pub fn silence() -> Said {
        Said { silent: true, ..Said::json("") }
    }

    pub fn drips() -> Said {
        Said { drips: true, ..Said::json("[") }
    }

    pub fn elsewhere(status: u16, location: &str) -> Said {
        Said { status, location: Some(location.to_owned()), ..Said::json("[]") }
    }
}

/// Method and path with query, body -> answer.
pub type Answers = Arc<dyn Fn(&str, &str) -> Said + Send + Sync>;

/// The server.
pub struct Raw {
    pub url: String,
    seen: Arc<Mutex<Vec<(String, String)>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Raw {
    pub async fn start(answers: impl Fn(&str, &str) -> Said + Send + Sync + 'static) -> Raw {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let (answers, seen): (Answers, Arc<Mutex<Vec<_>>>) = (Arc::new(answers), Arc::default());
        let noted = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&answers), Arc::clone(&noted)));
            }
        });
        Raw { url, seen, task }
    }

    /// Requests so far: method and path, body.
    pub fn seen(&self) -> Vec<(String, String)> {
        self.seen.lock().expect("no panic holds it").clone()
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One request, one answer, end.
async fn serve(mut stream: TcpStream, answers: Answers, seen: Arc<Mutex<Vec<(String, String)>>>) {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at;
        }
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return;
        }
    };
    let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    while bytes.len() < head + 4 + length.unwrap_or(0) {
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let target = text.lines().next().unwrap_or_default().rsplit_once(' ').map_or("", |(target, _)| target);
    let body = String::from_utf8_lossy(&bytes[head + 4..]).into_owned();
    seen.lock().expect("no panic holds it").push((target.to_owned(), body.clone()));
    let said = answers(target, &body);
    if said.silent {
        std::future::pending::<()>().await;
    }
    let head = format!(
        "HTTP/1.1 {} Said\r\ncontent-type: {}\r\n{}content-length: {}\r\nconnection: close\r\n\r\n",
        said.status,
        said.content_type,
        said.location.as_ref().map_or(String::new(), |place| format!("location: {place}\r\n")),
        said.body.len() + if said.drips { 1 << 20 } else { 0 }
    );
    // The client may have gone away: then it has heard enough.
    let _ = stream.write_all(&[head.as_bytes(), &said.body].concat()).await;
    let mut tick = tokio::time::interval(std::time::Duration::from_millis(10));
    while said.drips && stream.write_all(b" ").await.is_ok() {
        tick.tick().await;
    }
    let _ = stream.shutdown().await;
}
