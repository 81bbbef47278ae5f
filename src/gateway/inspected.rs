//! A connection of which each byte is inspected before anyone else reads it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::strict::{Doubt, Fault, Inspector};

/// The server looks at a head that came in pieces when it sees its end.
const END: &[u8] = b"\r\n\r\n";

/// Reads HTTP/1.1 that leaves no doubt, and nothing after the first doubt.
pub struct Inspected<S> {
    stream: S,
    inspector: Inspector,
    end: End,
    /// Was read and inspected, and is the first that is read next.
    first: Option<u8>,
}

/// What is read after a fault: an end of the head that has it, and nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Open,
    Head,
    Closed,
}

impl<S> Inspected<S> {
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            inspector: Inspector::default(),
            end: End::Open,
            first: None,
        }
    }
}

impl<S: AsyncRead + Unpin> Inspected<S> {
    /// Waits for the first byte, and keeps it.
    pub async fn first_byte(&mut self) -> io::Result<()> {
        let mut byte = [0];
        self.read_exact(&mut byte).await?;
        self.first = Some(byte[0]);
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Inspected<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() > 0
            && let Some(first) = self.first.take()
        {
            buf.put_slice(&[first]);
            return Poll::Ready(Ok(()));
        }
        if self.end != End::Open {
            let is_head = self.end == End::Head && buf.remaining() >= END.len();
            self.end = End::Closed;
            if is_head {
                buf.put_slice(END);
                return Poll::Ready(Ok(()));
            }
            return Poll::Ready(Err(doubt()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let read = &mut buf.filled_mut()[before..];
        let inspected = self.inspector.read(read);
        match inspected {
            Ok(()) => Poll::Ready(Ok(())),
            // No head has zeros in it: the server answers that the request is bad, and hangs up.
            Err(Doubt {
                good,
                fault: Fault::Head,
            }) => {
                read[good..].fill(0);
                self.end = End::Head;
                Poll::Ready(Ok(()))
            }
            Err(_) => {
                buf.set_filled(before);
                self.end = End::Closed;
                Poll::Ready(Err(doubt()))
            }
        }
    }
}

fn doubt() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "what the client sends can be read in two ways",
    )
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Inspected<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
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
