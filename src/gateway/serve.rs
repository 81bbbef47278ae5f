//! Listening, and each connection's life.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::admit::{Rules, Verdict};
use super::inspected::Inspected;
use super::pass::{self, Answer, Bounds, refuse};
use super::seats::{Seat, Seats};
use super::strict::HEAD_BYTES;
use super::tls::Identity;
use crate::sys::write_timeout::WriteTimeout;

/// Rest after a failed accept: descriptors come back when connections end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Requests of one connection of HTTP/2 at the same time.
const STREAMS: u32 = 32;
/// Bytes of a body that a client of HTTP/2 may send before they are passed on: of one request, and of all of
/// its connection.
const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 256 << 10;
/// Bytes of an answer that wait for their reader.
const SEND_BUFFER: usize = 64 << 10;

/// What all connections share.
pub struct Gateway {
    pub rules: Rules,
    pub daemon: PathBuf,
    pub bounds: Bounds,
    /// For TLS, for a head, and between two requests.
    pub head_time: Duration,
    pub seats: Arc<Seats>,
    /// `None`: no TLS.
    pub identity: Option<Mutex<Identity>>,
}

/// Takes connections until `leaving` becomes true, then lets those that are being answered finish. The
/// caller bounds how long that may take.
pub async fn serve(
    gateway: Arc<Gateway>,
    listener: TcpListener,
    mut leaving: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    let mut failing = false;
    loop {
        let accepted = tokio::select! {
            () = told(&mut leaving) => break,
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, from)) => {
                failing = false;
                let Some(seat) = gateway.seats.take(from.ip()) else {
                    tracing::debug!(address = %from.ip(), "too many connections");
                    continue;
                };
                let connection = Connection {
                    gateway: gateway.clone(),
                    from,
                    _seat: seat,
                };
                connections.spawn(connection.run(stream, leaving.clone()));
            }
            Err(error) => {
                // Once for each spell: it may last.
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "cannot accept connections");
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn told(leaving: &mut watch::Receiver<bool>) {
    // A sender that is gone will never say so.
    let _ = leaving.wait_for(|leaving| *leaving).await;
}

struct Connection {
    gateway: Arc<Gateway>,
    from: SocketAddr,
    _seat: Seat,
}

impl Connection {
    async fn run(self, stream: TcpStream, leaving: watch::Receiver<bool>) {
        let Ok(local) = stream.local_addr() else {
            return;
        };
        let _ = stream.set_nodelay(true);
        let stream = WriteTimeout::new(stream, self.gateway.bounds.stall);
        let acceptor = self.gateway.identity.as_ref().map(|identity| {
            let mut identity = identity.lock().unwrap_or_else(PoisonError::into_inner);
            identity.acceptor()
        });
        let ended = match acceptor {
            None => Box::pin(self.serve_http1(stream, local, leaving)).await,
            Some(acceptor) => {
                let Some(stream) = Box::pin(self.handshake(acceptor, stream)).await else {
                    return;
                };
                match stream.get_ref().1.alpn_protocol() {
                    Some(b"h2") => Box::pin(self.serve_http2(stream, local, leaving)).await,
                    _ => Box::pin(self.serve_http1(stream, local, leaving)).await,
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended early");
        }
    }

    /// On the heap, where it stays: each place that it is moved through is as large as it.
    async fn handshake<S>(&self, acceptor: TlsAcceptor, stream: S) -> Option<Box<TlsStream<S>>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let accepted = timeout(self.gateway.head_time, acceptor.accept(stream)).await;
        Some(Box::new(accepted.ok()?.ok()?))
    }

    async fn serve_http1<S>(
        self,
        stream: S,
        local: SocketAddr,
        mut leaving: watch::Receiver<bool>,
    ) -> hyper::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // The server's buffers come with the first byte: a connection that only waits is to cost little.
        let Some(stream) = self.first_byte(stream, &mut leaving).await else {
            return Ok(());
        };
        Box::pin(self.serve_requests(stream, local, leaving)).await
    }

    /// Waits for the first byte, which is inspected and kept for the server.
    async fn first_byte<S>(
        &self,
        stream: S,
        leaving: &mut watch::Receiver<bool>,
    ) -> Option<Inspected<S>>
    where
        S: AsyncRead + Unpin,
    {
        let mut stream = Inspected::new(stream);
        tokio::select! {
            () = told(leaving) => None,
            first = timeout(self.gateway.head_time, stream.first_byte()) => {
                matches!(first, Ok(Ok(()))).then_some(stream)
            }
        }
    }

    async fn serve_requests<S>(
        self,
        stream: Inspected<S>,
        local: SocketAddr,
        mut leaving: watch::Receiver<bool>,
    ) -> hyper::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (gateway, from) = (self.gateway.clone(), self.from);
        let service = service_fn(move |request| {
            let gateway = gateway.clone();
            async move {
                let mut answer = gateway.answer(request, from, local).await;
                if gateway.seats.are_scarce() {
                    let close = HeaderValue::from_static("close");
                    answer.headers_mut().insert(header::CONNECTION, close);
                }
                Ok::<_, Infallible>(answer)
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.gateway.head_time)
            .max_buf_size(HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => return ended,
            () = told(&mut leaving) => {}
        }
        connection.as_mut().graceful_shutdown();
        connection.await
    }

    async fn serve_http2<S>(
        self,
        stream: S,
        local: SocketAddr,
        mut leaving: watch::Receiver<bool>,
    ) -> hyper::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (gateway, from) = (self.gateway.clone(), self.from);
        let work = Arc::new(Work::default());
        let counted = work.clone();
        let service = service_fn(move |request| {
            let (gateway, guard) = (gateway.clone(), counted.clone().begin());
            async move {
                let answer = gateway.answer(request, from, local).await;
                Ok::<_, Infallible>(answer.map(|body| Counted {
                    body,
                    _guard: guard,
                }))
            }
        });
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(HEAD_BYTES as u32)
            .max_send_buf_size(SEND_BUFFER)
            .keep_alive_interval(self.gateway.head_time)
            .keep_alive_timeout(self.gateway.head_time)
            .serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => return ended,
            () = told(&mut leaving) => {}
            () = work.idle(self.gateway.head_time) => {}
        }
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            ended = connection => ended,
            // Who has nothing under way and does not hang up is hung up on.
            () = work.idle(self.gateway.head_time) => Ok(()),
        }
    }
}

/// How much of a connection of HTTP/2 is under way, and how much has ever been.
#[derive(Debug, Default)]
struct Work {
    running: AtomicU64,
    begun: AtomicU64,
}

struct Running(Arc<Work>);

impl Work {
    fn begin(self: Arc<Self>) -> Running {
        self.running.fetch_add(1, Ordering::Relaxed);
        self.begun.fetch_add(1, Ordering::Relaxed);
        Running(self)
    }

    /// Waits until for such a time nothing was under way.
    async fn idle(&self, time: Duration) {
        loop {
            let begun = self.begun.load(Ordering::Relaxed);
            sleep(time).await;
            let same = begun == self.begun.load(Ordering::Relaxed);
            if same && self.running.load(Ordering::Relaxed) == 0 {
                return;
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A body that counts as work until it has ended.
struct Counted<B> {
    body: B,
    _guard: Running,
}

impl<B: hyper::body::Body + Unpin> hyper::body::Body for Counted<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<B::Data>, B::Error>>> {
        std::pin::Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}

impl Gateway {
    /// One request, from its head to its answer's. Nothing of it is logged but that it was refused.
    async fn answer(
        &self,
        request: Request<Incoming>,
        from: SocketAddr,
        local: SocketAddr,
    ) -> Answer {
        let verdict = self.rules.judge(
            request.method(),
            request.uri(),
            request.headers(),
            local.ip(),
        );
        match verdict {
            Verdict::Refuse(refusal) => {
                tracing::debug!(address = %from.ip(), code = refusal.code, "refused a request");
                pass::linger(request.into_body(), self.bounds.body_size);
                let mut answer = refuse(refusal.status, refusal.code, refusal.message);
                if refusal.status == StatusCode::METHOD_NOT_ALLOWED {
                    let methods = HeaderValue::from_static("GET, HEAD, POST, DELETE");
                    answer.headers_mut().insert(header::ALLOW, methods);
                }
                answer
            }
            Verdict::Preflight { origin } => {
                let mut answer = Response::new(Either::Right(Full::default()));
                *answer.status_mut() = StatusCode::NO_CONTENT;
                let headers = answer.headers_mut();
                let mut say = |name, text| headers.insert(name, HeaderValue::from_static(text));
                say(header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, DELETE");
                say(
                    header::ACCESS_CONTROL_ALLOW_HEADERS,
                    "authorization, content-type, x-api-key, anthropic-version, anthropic-beta, prefer, x-request-id",
                );
                say(header::ACCESS_CONTROL_MAX_AGE, "600");
                let_read(headers, &origin);
                answer
            }
            Verdict::Pass { origin } => {
                let mut answer = pass::pass(request, &self.daemon, from.ip(), self.bounds).await;
                if let Some(origin) = origin {
                    let headers = answer.headers_mut();
                    headers.insert(
                        header::ACCESS_CONTROL_EXPOSE_HEADERS,
                        HeaderValue::from_static("x-request-id, request-id, retry-after"),
                    );
                    let_read(headers, &origin);
                }
                answer
            }
        }
    }
}

/// Has a browser let this page read an answer.
fn let_read(headers: &mut HeaderMap, origin: &str) {
    if let Ok(origin) = HeaderValue::try_from(origin) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::VARY, HeaderValue::from_static("origin"));
    }
}

/// A listening socket for tokio.
pub fn to_tokio(listener: std::net::TcpListener) -> io::Result<TcpListener> {
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}
