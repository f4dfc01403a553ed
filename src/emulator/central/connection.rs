//! Connections that can be cut on purpose: before the first byte of an answer, or in the middle of its body.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// Orders the end of a connection.
#[derive(Debug, Clone)]
pub(super) struct Cutter {
    /// Number of the connection, from 1.
    pub number: u64,
    /// Bytes of the next answer's body that still go out; `WHOLE` when all of it does.
    body_bytes: Arc<AtomicU64>,
}

/// The connection is not to be cut.
const WHOLE: u64 = u64::MAX;
/// The connection is to end before the head of the answer.
const NOTHING: u64 = u64::MAX - 1;

impl Cutter {
    fn new(number: u64) -> Self {
        Self { number, body_bytes: Arc::new(AtomicU64::new(WHOLE)) }
    }

    /// The next answer does not go out at all.
    pub fn cut_before_answer(&self) {
        self.body_bytes.store(NOTHING, Ordering::SeqCst);
    }

    /// The next answer ends after so many bytes of its body.
    pub fn cut_after_body_bytes(&self, bytes: u64) {
        self.body_bytes.store(bytes.min(NOTHING - 1), Ordering::SeqCst);
    }
}

impl Connected<IncomingStream<'_, CuttableListener>> for Cutter {
    fn connect_info(stream: IncomingStream<'_, CuttableListener>) -> Self {
        stream.io().cutter.clone()
    }
}

/// A listener whose connections can be cut.
pub(super) struct CuttableListener {
    pub listener: TcpListener,
    /// Connections so far.
    pub accepted: u64,
}

impl Listener for CuttableListener {
    type Io = CuttableStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (stream, address) = Listener::accept(&mut self.listener).await;
        self.accepted += 1;
        let stream = CuttableStream {
            stream,
            cutter: Cutter::new(self.accepted),
            head: Vec::new(),
            body_at: None,
            sent: 0,
        };
        (stream, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection that watches its own answers.
pub(super) struct CuttableStream {
    stream: TcpStream,
    cutter: Cutter,
    /// The end of the head so far, only kept while a cut in the body is ordered.
    head: Vec<u8>,
    /// Bytes sent when the body began, while a cut in it is ordered.
    body_at: Option<u64>,
    /// Bytes sent since the cut was ordered.
    sent: u64,
}

/// What separates head and body.
const HEAD_END: &[u8] = b"\r\n\r\n";

impl CuttableStream {
    /// How many of these bytes may go out; none when all.
    fn allowance(&mut self, bytes: &[u8]) -> Option<usize> {
        match self.cutter.body_bytes.load(Ordering::SeqCst) {
            WHOLE => None,
            NOTHING => Some(0),
            limit => {
                if self.body_at.is_none() {
                    self.head.extend_from_slice(bytes);
                    let end = self.head.windows(HEAD_END.len()).position(|window| window == HEAD_END);
                    match end {
                        Some(end) => self.body_at = Some((end + HEAD_END.len()) as u64),
                        None => return Some(bytes.len()),
                    }
                }
                let last = self.body_at.unwrap_or_default() + limit;
                Some(usize::try_from(last.saturating_sub(self.sent)).unwrap_or(bytes.len()).min(bytes.len()))
            }
        }
    }

    fn cut() -> io::Error {
        io::Error::new(io::ErrorKind::ConnectionReset, "cut on request")
    }
}

impl AsyncRead for CuttableStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for CuttableStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.allowance(bytes) {
            None => Pin::new(&mut self.stream).poll_write(cx, bytes),
            Some(0) if !bytes.is_empty() => Poll::Ready(Err(Self::cut())),
            Some(allowed) => {
                let written = Pin::new(&mut self.stream).poll_write(cx, &bytes[..allowed]);
                if let Poll::Ready(Ok(count)) = &written {
                    self.sent += *count as u64;
                }
                // What was looked at but not sent comes again.
                let sent = usize::try_from(self.sent).unwrap_or(usize::MAX);
                self.head.truncate(sent);
                written
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
