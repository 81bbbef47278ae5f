//! Listening, and each connection's life.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::admit::{Rules, Verdict};
use super::http2;
use super::inspected::Inspected;
use super::pass::{self, Answer, Bounds};
use super::refusal::{in_shape, refuse};
use super::seats::{Seat, Seats};
use super::strict::HEAD_BYTES;
use super::tls::Identity;
use crate::sys::write_timeout::WriteTimeout;

/// Rest after a failed accept: descriptors come back when connections end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What all connections share.
pub struct Gateway {
    pub rules: Rules,
    pub daemon: PathBuf,
    pub bounds: Bounds,
    /// For TLS, for a head, and between two requests.
    pub head_time: Duration,
    pub seats: Arc<Seats>,
    /// Those of requests that are being answered.
    pub requests: Arc<Seats>,
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

pub(super) async fn told(leaving: &mut watch::Receiver<bool>) {
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
                let gateway = self.gateway.clone();
                match stream.get_ref().1.alpn_protocol() {
                    Some(b"h2") => {
                        Box::pin(http2::serve(gateway, self.from, stream, local, leaving)).await
                    }
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
}

impl Gateway {
    /// One request, from its head to its answer's. Nothing of it is logged but that it was refused.
    pub(super) async fn answer(
        &self,
        request: Request<Incoming>,
        from: SocketAddr,
        local: SocketAddr,
    ) -> Answer {
        let path = request.uri().path().to_owned();
        in_shape(self.judged(request, from, local).await, &path)
    }

    async fn judged(
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
                let mut answer = match self.requests.take(from.ip()) {
                    Some(seat) => {
                        pass::pass(request, &self.daemon, from.ip(), self.bounds, seat).await
                    }
                    None => pass::busy(),
                };
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
