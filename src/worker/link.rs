//! The worker's end of the channel: blocking, one reader, writers that take turns.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use crate::chat::{ChatError, ChatEvent};
use crate::ipc::frame::{self, Decoder, FrameError};
use crate::ipc::{Greeting, Protocol, RequestId, Serve, ServeEvent};
use crate::sys::socket;

/// Bytes read at once.
const PIECE: usize = 64 << 10;

/// Why no further message will come.
#[derive(Debug)]
pub enum LinkError {
    Io(io::Error),
    Frame(FrameError),
    /// The channel ended inside a message.
    Cut,
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "cannot read from the supervisor: {error}"),
            Self::Frame(error) => write!(f, "the supervisor sent {error}"),
            Self::Cut => f.write_str("the supervisor hung up inside a message"),
        }
    }
}

/// Reads requests. One thread owns it.
pub struct Reader<P: Protocol = Serve> {
    protocol: PhantomData<P>,
    socket: UnixStream,
    decoder: Decoder,
    piece: Vec<u8>,
    fds: Vec<OwnedFd>,
}

impl<P: Protocol> Reader<P> {
    pub fn new(socket: UnixStream) -> Self {
        Self {
            protocol: PhantomData,
            socket,
            decoder: Decoder::new(),
            piece: vec![0; PIECE],
            fds: vec![],
        }
    }

    /// Waits for the next message; `None` at the end of the channel.
    pub fn next(&mut self) -> Result<Option<P::Request>, LinkError> {
        loop {
            if let Some(message) = self.decoder.next().map_err(LinkError::Frame)? {
                return Ok(Some(message));
            }
            let got = match socket::recv(&self.socket, &mut self.piece, &mut self.fds) {
                // It hung up before it had read all that we sent.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
                got => got.map_err(LinkError::Io)?,
            };
            match got {
                0 if self.decoder.in_frame() => return Err(LinkError::Cut),
                0 => return Ok(None),
                got => {
                    self.decoder.feed(&self.piece[..got]);
                    self.piece[..got].fill(0);
                }
            }
        }
    }

    /// The channel, for one who expects no further message and waits for its end.
    pub fn into_socket(self) -> UnixStream {
        self.socket
    }

    /// The descriptors that came with the messages so far.
    pub fn take_fds(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.fds)
    }

    /// The descriptor that came with the last message, which is known to have one: those of later
    /// messages may be here, too.
    pub fn take_fd(&mut self) -> Option<OwnedFd> {
        (!self.fds.is_empty()).then(|| self.fds.remove(0))
    }
}

/// Writes events; clones write to the same channel, a whole batch of events each.
pub struct Writer<P: Protocol = Serve> {
    protocol: PhantomData<P>,
    socket: Arc<Mutex<UnixStream>>,
}

impl<P: Protocol> Writer<P> {
    /// Says hello.
    pub fn greet(socket: UnixStream) -> io::Result<Self> {
        let writer = Self {
            protocol: PhantomData,
            socket: Arc::new(Mutex::new(socket)),
        };
        let mut hello = vec![];
        frame::encode(&Greeting::OURS, &mut hello).map_err(io::Error::other)?;
        writer.write(&hello)?;
        Ok(writer)
    }

    /// Sends one event. Waits while the channel is full: the supervisor always reads.
    pub fn send(&self, event: &P::Event) -> io::Result<()> {
        let mut out = vec![];
        push(event, &mut out);
        self.write(&out)
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        socket::send_all(&*socket, bytes, &[])
    }
}

impl Writer {
    /// Sends what `out` holds and empties it.
    pub fn flush(&self, out: &mut Outbox) -> io::Result<()> {
        if out.0.is_empty() {
            return Ok(());
        }
        let sent = self.write(&out.0);
        out.0.clear();
        out.0.shrink_to(PIECE);
        sent
    }
}

impl<P: Protocol> Clone for Writer<P> {
    fn clone(&self) -> Self {
        Self {
            protocol: PhantomData,
            socket: self.socket.clone(),
        }
    }
}

/// Appends the frame of an event.
fn push(event: &impl Serialize, out: &mut Vec<u8>) {
    // What the worker says of one token is far below the limit; an event that is not is left out.
    if let Err(error) = frame::encode(event, out) {
        eprintln!("a message to the supervisor was dropped: {error}");
    }
}

/// Events on their way: those of one step go out in one write.
#[derive(Default)]
pub struct Outbox(Vec<u8>);

impl Outbox {
    /// Steps of an answer.
    pub fn events(&mut self, id: RequestId, events: impl IntoIterator<Item = ChatEvent>) {
        for event in events {
            self.push(&ServeEvent::Event { id, event });
        }
    }

    /// The end of a request that could not be answered.
    pub fn failed(&mut self, id: RequestId, error: ChatError) {
        self.push(&ServeEvent::Failed { id, error });
    }

    pub fn push(&mut self, event: &ServeEvent) {
        push(event, &mut self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::ServeRequest;
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileExt;

    #[test]
    fn messages_and_descriptors_cross_the_channel() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut bytes = vec![];
        frame::encode(&ServeRequest::Cancel { id: 3 }, &mut bytes).unwrap();
        frame::encode(&ServeRequest::Cancel { id: 4 }, &mut bytes).unwrap();
        let file = tempfile::tempfile().unwrap();
        socket::send_all(&ours, &bytes[..3], &[file.as_fd()]).unwrap();
        socket::send_all(&ours, &bytes[3..], &[]).unwrap();
        drop(ours);
        let mut reader = Reader::<Serve>::new(theirs);
        assert_eq!(reader.next().unwrap(), Some(ServeRequest::Cancel { id: 3 }));
        assert_eq!(reader.take_fds().len(), 1);
        assert_eq!(reader.next().unwrap(), Some(ServeRequest::Cancel { id: 4 }));
        assert!(reader.take_fds().is_empty());
        assert_eq!(reader.next().unwrap(), None);
    }

    #[test]
    fn who_hangs_up_on_what_was_sent_has_hung_up() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        socket::send_all(&theirs, b"unread", &[]).unwrap();
        drop(ours);
        let mut reader = Reader::<Serve>::new(theirs);
        assert_eq!(reader.next().unwrap(), None);
    }

    #[test]
    fn each_message_has_its_own_descriptor() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut message = vec![];
        frame::encode(&ServeRequest::Beat, &mut message).unwrap();
        for text in ["a", "b"] {
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(text.as_bytes(), 0).unwrap();
            socket::send_all(&ours, &message, &[]).unwrap();
            socket::send_all(&ours, &message, &[file.as_fd()]).unwrap();
        }
        let mut reader = Reader::<Serve>::new(theirs);
        for text in ["a", "b"] {
            assert_eq!(reader.next().unwrap(), Some(ServeRequest::Beat));
            assert_eq!(reader.next().unwrap(), Some(ServeRequest::Beat));
            let file = File::from(reader.take_fd().unwrap());
            let mut byte = [0];
            file.read_exact_at(&mut byte, 0).unwrap();
            assert_eq!(byte, text.as_bytes());
        }
        assert!(reader.take_fd().is_none());
    }

    #[test]
    fn an_end_inside_a_message_is_an_error() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        socket::send_all(&ours, &[9, 0, 0, 0, 1], &[]).unwrap();
        drop(ours);
        assert!(matches!(
            Reader::<Serve>::new(theirs).next(),
            Err(LinkError::Cut)
        ));
    }
}
