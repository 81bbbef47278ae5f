//! A write timeout: a peer that takes too little of what waits for it is hung up on.
//!
//! Without this a client that stops reading, or reads a byte now and then, would keep its
//! connection, its answer and a slot of the model for as long as it likes.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// Bytes that a peer that has fallen behind must take within each window, unless it takes all that
/// is there.
const LEAST: usize = 4 << 10;

/// Fails with `TimedOut` when the peer took less than `LEAST` bytes within the given time, and
/// left something.
pub struct WriteTimeout<S> {
    stream: S,
    pace: Pace,
    /// Made when the peer first falls behind; most never do.
    timer: Option<Pin<Box<Sleep>>>,
}

/// How fast a peer takes what is written. Pure.
#[derive(Debug)]
struct Pace {
    window: Duration,
    /// The end of the window that runs, while the peer is behind.
    end: Option<Instant>,
    /// Bytes taken in it.
    taken: usize,
}

impl Pace {
    /// `taken` of `offered` bytes were written.
    fn took(&mut self, taken: usize, offered: usize) {
        self.taken += taken;
        if taken >= offered || self.taken >= LEAST {
            self.end = None;
        }
    }

    /// Nothing can be written now. Returns until when enough must have been, and whether this is a
    /// new window.
    fn waits(&mut self, now: Instant) -> (Instant, bool) {
        match self.end {
            Some(end) => (end, false),
            None => {
                let end = now + self.window;
                (self.end, self.taken) = (Some(end), 0);
                (end, true)
            }
        }
    }
}

impl<S> WriteTimeout<S> {
    pub fn new(stream: S, timeout: Duration) -> Self {
        Self {
            stream,
            pace: Pace {
                window: timeout,
                end: None,
                taken: 0,
            },
            timer: None,
        }
    }

    /// Turns a write that has to wait into one that waits only so long. `offered`: the bytes that
    /// were to be written.
    fn bounded(
        &mut self,
        cx: &mut Context<'_>,
        outcome: Poll<io::Result<usize>>,
        offered: usize,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(outcome) = outcome {
            self.pace.took(*outcome.as_ref().unwrap_or(&0), offered);
            return Poll::Ready(outcome);
        }
        let (end, is_new) = self.pace.waits(Instant::now());
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(end)));
        if is_new {
            timer.as_mut().reset(end);
        }
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the client does not read",
        )))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteTimeout<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteTimeout<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.bounded(cx, outcome, buf.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        let offered = bufs.iter().map(|buf| buf.len()).sum();
        self.bounded(cx, outcome, offered)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const WINDOW: Duration = Duration::from_secs(10);

    #[test]
    fn each_window_has_a_least_of_its_own() {
        let mut pace = Pace {
            window: WINDOW,
            end: None,
            taken: 0,
        };
        let start = Instant::now();
        let after = |windows: f64| start + WINDOW.mul_f64(windows);
        assert_eq!(pace.waits(start), (after(1.0), true));
        // A byte now and then extends nothing.
        for k in 1..4 {
            pace.took(1, 100_000);
            assert_eq!(
                pace.waits(after(f64::from(k) / 4.0)),
                (after(1.0), false),
                "{k}"
            );
        }
        // Enough of it does, however small the pieces, and counts for one window only.
        pace.took(LEAST - 3, 100_000);
        assert_eq!(pace.waits(after(0.8)), (after(1.8), true));
        pace.took(LEAST - 1, 100_000);
        assert_eq!(pace.waits(after(1.0)), (after(1.8), false));
        // As does taking everything.
        pace.took(1, 100_000);
        assert_eq!(pace.waits(after(2.0)), (after(3.0), true));
        pace.took(7, 7);
        assert_eq!(pace.waits(after(9.0)), (after(10.0), true));
    }

    #[tokio::test]
    async fn a_peer_that_reads_nothing_is_given_up() {
        let (near, _far) = tokio::io::duplex(16);
        let error = WriteTimeout::new(near, Duration::from_millis(1))
            .write_all(&[0; 64])
            .await
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_peer_that_keeps_the_pace_gets_everything() {
        let (near, mut far) = tokio::io::duplex(16);
        let mut near = WriteTimeout::new(near, WINDOW);
        let reader = async {
            let mut all = vec![0; 4 * LEAST];
            far.read_exact(&mut all).await.unwrap();
        };
        let (written, ()) = tokio::join!(near.write_all(&[0; 4 * LEAST]), reader);
        written.unwrap();
    }
}
