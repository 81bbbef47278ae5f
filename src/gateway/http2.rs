//! A connection of HTTP/2: many requests at a time, of which each can be kept waiting by its client.
//!
//! What has nothing under way for a while is hung up on, and so is whoever takes nothing of an answer,
//! or goes on asking when there is no room.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::body::{Body, Frame, SizeHint};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use super::pass::Busy;
use super::serve::{Gateway, told};
use super::strict::HEAD_BYTES;

/// Requests of one connection at the same time.
const STREAMS: u32 = 32;
/// Requests that find no room before their connection is closed.
const REFUSALS: u64 = 8;
/// Bytes of a body that a client may send before they are passed on: of one request, and of all of its connection.
const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 256 << 10;
/// Bytes of an answer that wait for their reader.
const SEND_BUFFER: usize = 64 << 10;

/// Serves one connection until its client hangs up, or is hung up on; once `leaving` is true, until what has begun is
/// answered.
pub async fn serve<S>(
    gateway: Arc<Gateway>,
    from: SocketAddr,
    stream: S,
    local: SocketAddr,
    mut leaving: watch::Receiver<bool>,
) -> hyper::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (head_time, stall) = (gateway.head_time, gateway.bounds.stall);
    let work = Arc::new(Work::default());
    let counted = work.clone();
    let service = service_fn(move |request| {
        let (gateway, running) = (gateway.clone(), counted.clone().begin());
        async move {
            let answer = gateway.answer(request, from, local).await;
            if answer.extensions().get::<Busy>().is_some() {
                running.work.refuse();
            }
            running.hand();
            Ok::<_, Infallible>(answer.map(|body| Counted { body, running }))
        }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(HEAD_BYTES as u32)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(head_time)
        .keep_alive_timeout(head_time)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = told(&mut leaving) => {}
        () = work.idle(head_time) => {}
        () = work.refused(1) => {}
        () = work.stuck(stall) => return Ok(()),
    }
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        ended = connection => ended,
        // Who has nothing under way and does not hang up is hung up on.
        () = work.idle(head_time) => Ok(()),
        () = work.refused(REFUSALS) => Ok(()),
        () = work.stuck(stall) => Ok(()),
    }
}

/// How much of a connection is under way, and how much has ever been.
#[derive(Debug, Default)]
struct Work {
    running: AtomicU64,
    begun: AtomicU64,
    /// Requests for which there was no room.
    refused: AtomicU64,
    another: Notify,
    /// Answers of which the client has not taken yet what there is, and since when.
    handed: Mutex<HashMap<u64, Instant>>,
}

/// One request, until its answer has ended.
struct Running {
    work: Arc<Work>,
    number: u64,
}

impl Work {
    fn begin(self: Arc<Self>) -> Running {
        self.running.fetch_add(1, Ordering::Relaxed);
        let number = self.begun.fetch_add(1, Ordering::Relaxed);
        Running { work: self, number }
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

    fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        self.another.notify_waiters();
    }

    /// Waits until there was no room so often.
    async fn refused(&self, times: u64) {
        loop {
            let another = self.another.notified();
            if self.refused.load(Ordering::Relaxed) >= times {
                return;
            }
            another.await;
        }
    }

    /// Waits until for such a time nothing was taken of an answer of which there is more.
    async fn stuck(&self, time: Duration) {
        loop {
            sleep(time / 4).await;
            if self.handed().values().any(|since| since.elapsed() >= time) {
                return;
            }
        }
    }

    fn handed(&self) -> MutexGuard<'_, HashMap<u64, Instant>> {
        // Nothing panics while it is held.
        self.handed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running {
    /// There is something for the client to take.
    fn hand(&self) {
        self.work.handed().insert(self.number, Instant::now());
    }

    fn taken(&self) {
        self.work.handed().remove(&self.number);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.taken();
        self.work.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A body that counts as work until it has ended. The server asks it for more when the client has taken what there was.
struct Counted<B> {
    body: B,
    running: Running,
}

impl<B: Body + Unpin> Body for Counted<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        match frame {
            Poll::Ready(_) => self.running.hand(),
            Poll::Pending => self.running.taken(),
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
