//! Listening, and each connection's life.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Version, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::net::{RecvFlags, SendFlags};
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use crate::access::Caller;
use crate::access::admission::Admission;
use crate::access::quota::Share;
use crate::api::error::ApiError;
use crate::api::identify::{identify, no_app};
use crate::api::{Api, anthropic, id, in_its_shape, router};
use crate::chat::AppName;
use crate::sys::write_timeout::WriteTimeout;

/// Rest after a failed accept: descriptors come back when connections end, and trying on costs a
/// CPU.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a connection may wait for the head of a (next) request.
const IDLE: Duration = Duration::from_secs(300);
/// Bytes of a request's head, and of an answer that waits for its reader beside what the socket
/// holds.
const BUFFER: usize = 16 << 10;

/// A socket on which connections come.
pub struct Listener {
    pub socket: UnixListener,
    /// The app whose own it is.
    pub app: Option<AppName>,
}

/// Takes connections until `shutdown` becomes true or its sender is gone, then lets those that are
/// being answered finish. The caller bounds how long that may take: dropping this future ends them
/// all.
pub async fn serve(api: Arc<Api>, listener: Listener, mut shutdown: watch::Receiver<bool>) {
    let router = router(Arc::clone(&api));
    let mut connections = JoinSet::new();
    let mut failing = false;
    loop {
        let accepted = tokio::select! {
            () = stopped(&mut shutdown) => break,
            accepted = listener.socket.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted.and_then(|(stream, _)| {
            caller(&stream, listener.app, &api.admission).map(|caller| (stream, caller))
        }) {
            Ok((stream, Err(error))) => refuse(&stream, &error),
            Ok((stream, Ok(caller))) => {
                failing = false;
                let mut share = api.admission.share(&api.connections, &caller.principal);
                match share.grow(1) {
                    Ok(()) => {
                        let connection = Connection {
                            api: Arc::clone(&api),
                            stream,
                            caller,
                            write_timeout: api.limits.client_stall,
                            _share: share,
                        };
                        connections.spawn(connection.run(router.clone(), shutdown.clone()));
                    }
                    Err(full) => refuse(&stream, &ApiError::connections(full)),
                }
            }
            Err(error) => {
                // Once for each spell: it may last.
                if !std::mem::replace(&mut failing, true) {
                    warn!(%error, "cannot accept connections");
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Who is connected, or why nobody may be.
fn caller(
    stream: &UnixStream,
    app: Option<AppName>,
    admission: &Admission,
) -> io::Result<Result<Caller, ApiError>> {
    match app {
        None => Caller::of(stream, admission).map(Ok),
        Some(app) => Ok(Caller::of_app(stream, app, admission).ok_or_else(|| no_app(app))),
    }
}

async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    // A sender that is gone will never say so.
    let _ = shutdown.wait_for(|stop| *stop).await;
}

/// Answers before anything was read. A new socket has room for this; if it has not, hanging up says
/// enough.
fn refuse(stream: &UnixStream, error: &ApiError) {
    let body = error.json();
    let reason = error.status.canonical_reason().unwrap_or_default();
    let retry = error.retry_seconds().map_or(String::new(), |seconds| {
        format!("retry-after: {seconds}\r\n")
    });
    let response = format!(
        "HTTP/1.1 {} {reason}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{retry}x-request-id: {}\r\nconnection: close\r\n\r\n{body}",
        error.status.as_u16(),
        body.len(),
        id::random("req_"),
    );
    // Straight to the kernel: tokio has not seen yet that this socket can be written.
    let _ = rustix::net::send(
        stream,
        response.as_bytes(),
        SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
    );
}

struct Connection {
    api: Arc<Api>,
    stream: UnixStream,
    caller: Caller,
    write_timeout: Duration,
    _share: Share,
}

impl Connection {
    async fn run(self, router: Router, mut shutdown: watch::Receiver<bool>) {
        // Buffers come with the first byte, so a new connection that only waits costs about 1.5
        // KiB.
        let first_byte = tokio::select! {
            () = stopped(&mut shutdown) => return,
            first_byte = timeout(IDLE, first_byte(&self.stream)) => first_byte,
        };
        if !matches!(first_byte, Ok(Ok(()))) {
            return;
        }
        // On the heap, for the same reason: the task is as large as the largest thing it may hold.
        if let Err(error) = Box::pin(self.serve(router, shutdown)).await {
            debug!(%error, "a connection ended early");
        }
    }

    async fn serve(
        self,
        router: Router,
        mut shutdown: watch::Receiver<bool>,
    ) -> Result<(), hyper::Error> {
        let Self {
            api,
            stream,
            caller,
            write_timeout,
            _share,
        } = self;
        let service =
            service_fn(move |request| answer(api.clone(), router.clone(), caller.clone(), request));
        let io = TokioIo::new(WriteTimeout::new(stream, write_timeout));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE)
            .max_buf_size(BUFFER)
            .serve_connection(io, service);
        tokio::pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => return ended,
            () = stopped(&mut shutdown) => {}
        }
        connection.as_mut().graceful_shutdown();
        connection.await
    }
}

/// Waits for the first byte (or the end) without taking it. Readiness alone is only a hint.
async fn first_byte(stream: &UnixStream) -> io::Result<()> {
    let mut byte = [0u8; 1];
    let peek = || {
        Ok(
            rustix::net::recv(stream, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT)
                .map(drop)?,
        )
    };
    stream.async_io(Interest::READABLE, peek).await
}

/// One request. It is logged without its contents, and the answer gets a name that the log knows.
async fn answer(
    api: Arc<Api>,
    router: Router,
    connected: Caller,
    mut request: hyper::Request<Incoming>,
) -> io::Result<axum::response::Response> {
    let pid = connected.pid;
    let identified = identify(&api.admission, &connected, request.headers_mut()).await;
    let (uid, peer) = match &identified {
        Ok((caller, peer)) => (caller.id(), *peer),
        Err(_) => (connected.id(), None),
    };
    let id = id::of_request(request.headers());
    let (method, path, arrived) = (
        request.method().clone(),
        request.uri().path().to_owned(),
        Instant::now(),
    );
    let identified =
        host(request.version(), request.headers()).and(identified.map(|(caller, _)| caller));
    let mut response = match identified {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            let Ok(response) = TowerToHyperService::new(router).call(request).await;
            response
        }
        Err(error) => {
            let mut response = in_its_shape(error, request.uri());
            // Who frames requests wrongly may have meant the rest as another one.
            response
                .headers_mut()
                .insert(header::CONNECTION, HeaderValue::from_static("close"));
            response
        }
    };
    debug!(request = ?id, %uid, pid, peer = ?peer, %method, path = path.as_str(), status = response.status().as_u16(), after = ?arrived.elapsed());
    if response.status() == StatusCode::UNAUTHORIZED {
        let challenge = HeaderValue::from_static("Bearer");
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, challenge);
    }
    // Where its clients look for another header with the request's name.
    if anthropic::has(&path) {
        response
            .headers_mut()
            .insert(id::ANTHROPIC_REQUEST, id.clone());
    }
    response.headers_mut().insert(id::REQUEST, id);
    Ok(response)
}

/// A request of HTTP/1.1 names its host once; none names it twice (RFC 9112, section 3.2). Which
/// host it is does not matter here.
fn host(version: Version, headers: &HeaderMap) -> Result<(), ApiError> {
    let message = match headers.get_all(header::HOST).iter().count() {
        1 => return Ok(()),
        0 if version < Version::HTTP_11 => return Ok(()),
        0 => "the request has no `Host` header; HTTP/1.1 requires one, with any value",
        _ => "the request has more than one `Host` header; send one",
    };
    Err(ApiError::invalid(
        StatusCode::BAD_REQUEST,
        "invalid_host",
        message,
    ))
}
