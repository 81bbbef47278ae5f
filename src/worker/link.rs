//! The worker's end of the channel: blocking, one reader, writers that take turns.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};

use crate::chat::{ChatError, ChatEvent};
use crate::ipc::frame::{self, Decoder, FrameError};
use crate::ipc::{FromWorker, RequestId, ToWorker};
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

/// Reads messages. One thread owns it.
pub struct Reader {
    socket: UnixStream,
    decoder: Decoder,
    piece: Vec<u8>,
    fds: Vec<OwnedFd>,
}

impl Reader {
    pub fn new(socket: UnixStream) -> Self {
        Self {
            socket,
            decoder: Decoder::new(),
            piece: vec![0; PIECE],
            fds: vec![],
        }
    }

    /// Waits for the next message; `None` at the end of the channel.
    pub fn next(&mut self) -> Result<Option<ToWorker>, LinkError> {
        loop {
            if let Some(message) = self.decoder.next().map_err(LinkError::Frame)? {
                return Ok(Some(message));
            }
            match socket::recv(&self.socket, &mut self.piece, &mut self.fds)
                .map_err(LinkError::Io)?
            {
                0 if self.decoder.in_frame() => return Err(LinkError::Cut),
                0 => return Ok(None),
                got => {
                    self.decoder.feed(&self.piece[..got]);
                    self.piece[..got].fill(0);
                }
            }
        }
    }

    /// The descriptors that came with the messages so far.
    pub fn take_fds(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.fds)
    }
}

/// Writes messages; clones write to the same channel, a whole batch of messages each.
#[derive(Clone)]
pub struct Writer(Arc<Mutex<UnixStream>>);

impl Writer {
    pub fn new(socket: UnixStream) -> Self {
        Self(Arc::new(Mutex::new(socket)))
    }

    /// Sends one message. Waits while the channel is full: the supervisor always reads.
    pub fn send(&self, message: &FromWorker) -> io::Result<()> {
        let mut out = Outbox::default();
        out.push(message);
        self.flush(&mut out)
    }

    /// Sends what `out` holds and empties it.
    pub fn flush(&self, out: &mut Outbox) -> io::Result<()> {
        if out.0.is_empty() {
            return Ok(());
        }
        let socket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = socket::send_all(&*socket, &out.0, &[]);
        out.0.clear();
        out.0.shrink_to(PIECE);
        sent
    }
}

/// Messages on their way: those of one step go out in one write.
#[derive(Default)]
pub struct Outbox(Vec<u8>);

impl Outbox {
    /// Steps of an answer.
    pub fn events(&mut self, id: RequestId, events: impl IntoIterator<Item = ChatEvent>) {
        for event in events {
            self.push(&FromWorker::Event { id, event });
        }
    }

    /// The end of a request that could not be answered.
    pub fn failed(&mut self, id: RequestId, error: ChatError) {
        self.push(&FromWorker::Failed { id, error });
    }

    pub fn push(&mut self, message: &FromWorker) {
        // What the worker says of one token is far below the limit; a message that is not is left
        // out.
        if let Err(error) = frame::encode(message, &mut self.0) {
            eprintln!("a message to the supervisor was dropped: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn messages_and_descriptors_cross_the_channel() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut bytes = vec![];
        frame::encode(&ToWorker::Cancel { id: 3 }, &mut bytes).unwrap();
        frame::encode(&ToWorker::Cancel { id: 4 }, &mut bytes).unwrap();
        let file = tempfile::tempfile().unwrap();
        socket::send_all(&ours, &bytes[..3], &[file.as_fd()]).unwrap();
        socket::send_all(&ours, &bytes[3..], &[]).unwrap();
        drop(ours);
        let mut reader = Reader::new(theirs);
        assert_eq!(reader.next().unwrap(), Some(ToWorker::Cancel { id: 3 }));
        assert_eq!(reader.take_fds().len(), 1);
        assert_eq!(reader.next().unwrap(), Some(ToWorker::Cancel { id: 4 }));
        assert!(reader.take_fds().is_empty());
        assert_eq!(reader.next().unwrap(), None);
    }

    #[test]
    fn an_end_inside_a_message_is_an_error() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        socket::send_all(&ours, &[9, 0, 0, 0, 1], &[]).unwrap();
        drop(ours);
        assert!(matches!(Reader::new(theirs).next(), Err(LinkError::Cut)));
    }
}
