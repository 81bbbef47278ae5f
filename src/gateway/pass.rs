//! One request on its way to the daemon, and its answer on the way back.
//!
//! Each has a connection of its own to the daemon: what is left in one can never be taken for a part of
//! another's. The head is made anew of what was understood, so that nothing a client has written is
//! passed on as it was written. Bodies are passed on piece by piece, as they come.

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::client::conn::http1;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode, Uri, Version};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::admit::strip;
use super::refusal::refuse;
use super::seats::Seat;

/// In which the daemon is told whose request it is. The daemon takes it from the gateway's user alone,
/// and a client's own is never passed on.
pub const PEER: HeaderName = HeaderName::from_static("x-gemmad-peer");
/// How long the daemon may take to take a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// How long a request that is refused is read on.
const LINGER: Duration = Duration::from_secs(5);

/// What goes back to a client.
pub type Answer = Response<Either<Relayed, Full<Bytes>>>;

/// What bounds a request's body.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub body_size: u64,
    /// Between two pieces.
    pub stall: Duration,
}

/// Passes a request on. What cannot be is answered. `seat`: is kept until the answer has ended.
pub async fn pass(
    request: Request<Incoming>,
    daemon: &Path,
    peer: IpAddr,
    bounds: Bounds,
    seat: Seat,
) -> Answer {
    if request
        .body()
        .size_hint()
        .exact()
        .is_some_and(|bytes| bytes > bounds.body_size)
    {
        linger(request.into_body(), bounds.body_size);
        return too_large();
    }
    let Some(request) = anew(request, peer, bounds) else {
        let message = "the request's path cannot be passed on";
        return refuse(StatusCode::BAD_REQUEST, "invalid_path", message);
    };
    let connected = timeout(CONNECT, UnixStream::connect(daemon)).await;
    let Ok(Ok(stream)) = connected else {
        let message = "the daemon does not answer; try again";
        return refuse(StatusCode::BAD_GATEWAY, "daemon_unreachable", message);
    };
    let stream = TokioIo::new(Onward(stream));
    let Ok((mut sender, connection)) = http1::handshake(stream).await else {
        let message = "the daemon does not answer; try again";
        return refuse(StatusCode::BAD_GATEWAY, "daemon_unreachable", message);
    };
    // It ends with the answer, or with whoever waits for it: the daemon sees that nobody does.
    let link = Link(tokio::spawn(async move {
        let _ = connection.await;
    }));
    match sender.send_request(request).await {
        Ok(response) => {
            let (mut head, body) = response.into_parts();
            strip(&mut head.headers);
            head.version = Version::default();
            Response::from_parts(
                head,
                Either::Left(Relayed {
                    body,
                    _link: link,
                    _seat: seat,
                }),
            )
        }
        // Of all that can go wrong there, only this is the client's.
        Err(error) if find::<TooLarge>(&error) => too_large(),
        Err(error) if find::<Stalled>(&error) => {
            let message = "no more of the request's body came in time";
            refuse(StatusCode::REQUEST_TIMEOUT, "body_timeout", message)
        }
        Err(error) => {
            tracing::debug!(%error, "the daemon gave no answer");
            let message = "the daemon has hung up; try again";
            refuse(StatusCode::BAD_GATEWAY, "daemon_unreachable", message)
        }
    }
}

/// Reads on for a moment, so many bytes at most, and forgets them: a client that is still sending would not see why its request
/// is refused. The answer does not wait for it.
pub fn linger<B: Piecewise>(mut body: B, most: u64) {
    if body.is_end_stream() {
        return;
    }
    // Without a runtime there is no client any more.
    let Ok(runtime) = Handle::try_current() else {
        return;
    };
    runtime.spawn(timeout(LINGER, async move {
        let mut left = most;
        while let Some(Ok(frame)) = body.frame().await {
            let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
            match left.checked_sub(bytes) {
                Some(rest) => left = rest,
                None => break,
            }
        }
    }));
}

/// The request with a head that is made of what is known of it.
fn anew(
    request: Request<Incoming>,
    peer: IpAddr,
    bounds: Bounds,
) -> Option<Request<Bounded<Incoming>>> {
    let (mut head, body) = request.into_parts();
    let target = head.uri.path_and_query()?.as_str();
    head.uri = Uri::try_from(target)
        .ok()
        .filter(|_| target.starts_with('/'))?;
    head.version = Version::HTTP_11;
    head.extensions.clear();
    strip(&mut head.headers);
    // The length is the body's, as it was understood.
    for name in [header::CONTENT_LENGTH, header::ORIGIN] {
        head.headers.remove(name);
    }
    // What begins so is between the daemon and the gateway.
    let ours: Vec<_> = head
        .headers
        .keys()
        .filter(|name| is_ours(name))
        .cloned()
        .collect();
    for name in ours {
        head.headers.remove(name);
    }
    head.headers
        .insert(header::HOST, HeaderValue::from_static("localhost"));
    head.headers.insert(
        PEER,
        HeaderValue::try_from(peer.to_canonical().to_string()).ok()?,
    );
    Some(Request::from_parts(head, Bounded::new(body, bounds)))
}

fn is_ours(name: &HeaderName) -> bool {
    name.as_str().starts_with("x-gemmad-")
}

/// Whether this kind of error is among the causes of another.
fn find<E: std::error::Error + 'static>(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|error| error.is::<E>())
}

fn too_large() -> Answer {
    let message = "the request's body is too large (`body-size` in gateway.toml)";
    refuse(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
}

/// Marks the answer to a request for which there was no room.
#[derive(Clone, Copy, Debug)]
pub struct Busy;

/// The answer to whoever has as many requests under way as may be, or comes when everybody together has.
pub fn busy() -> Answer {
    let message = "too many requests are being answered (`requests`, `requests-per-address` in gateway.toml); try again";
    let mut answer = refuse(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", message);
    let headers = answer.headers_mut();
    headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    answer.extensions_mut().insert(Busy);
    answer
}

/// A connection to the daemon, which may answer and hang up before it has a request's whole body. Then writing fails
/// while the answer is still to be read, so what can no longer be written is forgotten.
struct Onward(UnixStream);

impl AsyncRead for Onward {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Onward {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.0).poll_write(cx, buf));
        Poll::Ready(Ok(written.unwrap_or(buf.len())))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.0).poll_write_vectored(cx, bufs));
        let all = bufs.iter().map(|buf| buf.len()).sum();
        Poll::Ready(Ok(written.unwrap_or(all)))
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// The task of a connection to the daemon; dropping it hangs up.
pub struct Link(JoinHandle<()>);

impl Drop for Link {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// An answer's body, each piece when it comes.
pub struct Relayed {
    body: Incoming,
    _link: Link,
    _seat: Seat,
}

impl Body for Relayed {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        // Trailers could be read as something else by whoever is behind us.
        match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) if frame.is_trailers() => Poll::Ready(None),
            frame => Poll::Ready(frame),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A request's body, each piece when it comes, as many and as soon as they may be. What nobody has read when it is
/// dropped is read on for a moment ([`linger`]).
struct Bounded<B: Piecewise> {
    /// `None` when it has ended.
    body: Option<B>,
    left: u64,
    bounds: Bounds,
    /// Set when something is waited for.
    timer: Option<Pin<Box<Sleep>>>,
}

/// A body that can be read on by a task of its own.
pub trait Piecewise: Body<Data = Bytes> + Unpin + Send + 'static {}

impl<B: Body<Data = Bytes> + Unpin + Send + 'static> Piecewise for B {}

/// More came than may.
#[derive(Debug)]
struct TooLarge;

/// Nothing came for too long.
#[derive(Debug)]
struct Stalled;

impl std::fmt::Display for TooLarge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the body is too large")
    }
}

impl std::fmt::Display for Stalled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the body has stalled")
    }
}

impl std::error::Error for TooLarge {}
impl std::error::Error for Stalled {}

impl<B: Piecewise> Bounded<B> {
    fn new(body: B, bounds: Bounds) -> Self {
        Self {
            body: Some(body),
            left: bounds.body_size,
            bounds,
            timer: None,
        }
    }
}

impl<B: Piecewise> Drop for Bounded<B> {
    fn drop(&mut self) {
        if let Some(rest) = self.body.take() {
            linger(rest, self.bounds.body_size);
        }
    }
}

impl<B> Body for Bounded<B>
where
    B: Piecewise,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) else {
            let stall = self.bounds.stall;
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(stall)));
            ready!(timer.as_mut().poll(cx));
            return Poll::Ready(Some(Err(Box::new(Stalled))));
        };
        let end = Instant::now() + self.bounds.stall;
        if let Some(timer) = &mut self.timer {
            timer.as_mut().reset(end);
        }
        // Trailers are nothing that the daemon reads.
        let data = frame.map(|frame| frame.map(Frame::into_data));
        let data = match data {
            Some(Ok(Ok(data))) => data,
            Some(Err(error)) => {
                self.body = None;
                return Poll::Ready(Some(Err(error.into())));
            }
            None | Some(Ok(Err(_))) => {
                self.body = None;
                return Poll::Ready(None);
            }
        };
        match self.left.checked_sub(data.len() as u64) {
            Some(left) => {
                self.left = left;
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            None => Poll::Ready(Some(Err(Box::new(TooLarge)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::StreamBody;
    use std::convert::Infallible;

    const BOUNDS: Bounds = Bounds {
        body_size: 5,
        stall: Duration::from_millis(20),
    };

    #[tokio::test]
    async fn a_body_has_only_so_many_bytes() {
        let collect = |text: &'static str| {
            Bounded::new(Full::new(Bytes::from_static(text.as_bytes())), BOUNDS).collect()
        };
        assert_eq!(collect("12345").await.unwrap().to_bytes(), "12345");
        assert!(find::<TooLarge>(&*collect("123456").await.unwrap_err()));
    }

    #[tokio::test]
    async fn a_body_goes_on_in_time() {
        let never = futures_util::stream::pending::<Result<Frame<Bytes>, Infallible>>();
        let error = Bounded::new(StreamBody::new(never), BOUNDS)
            .collect()
            .await
            .unwrap_err();
        assert!(find::<Stalled>(&*error));
    }
}
