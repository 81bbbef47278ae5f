//! `org.gemmad.Gemmad1.Stream`: an answer on its way. Its tokens do not go over the bus, but
//! through a socket.

use std::os::unix::net::UnixStream as StdStream;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::Notify;
use tokio::time::timeout;
use zbus::message::Header;
use zbus::zvariant::{OwnedFd, OwnedObjectPath};
use zbus::{Connection, interface};

use super::ask::Asked;
use super::client::Client;
use super::error::BusError;
use super::{CLIENTS, Shared};
use crate::api::generation::{self, Encoder};
use crate::api::openai::chat::request::{ChatCall, Delivery};
use crate::api::openai::chat::response::Head;
use crate::api::openai::chat::stream::{Chunks, Framing, ProgressChunks};
use crate::api::{id, telling};
use crate::chat::ChatEvent;

pub struct Stream {
    owner: Arc<Client>,
    cancel: Arc<Notify>,
}

#[interface(name = "org.gemmad.Gemmad1.Stream")]
impl Stream {
    /// Ends the answer and closes the socket. For whoever opened it.
    fn cancel(&self, #[zbus(header)] header: Header<'_>) -> Result<(), BusError> {
        self.owner.is(&header)?;
        self.cancel.notify_one();
        Ok(())
    }
}

/// Starts the answer; the object is there until its end.
pub async fn open(
    shared: &Arc<Shared>,
    connection: &Connection,
    asked: Asked,
) -> Result<(OwnedObjectPath, OwnedFd), BusError> {
    let (ours, theirs) = StdStream::pair().map_err(zbus::Error::from)?;
    ours.set_nonblocking(true).map_err(zbus::Error::from)?;
    let ours = UnixStream::from_std(ours).map_err(zbus::Error::from)?;
    let path = format!("{CLIENTS}/{}", id::random("stream_"));
    let path = OwnedObjectPath::try_from(path).map_err(zbus::Error::from)?;
    let Asked {
        call,
        client,
        bytes,
        ..
    } = asked;
    let (client, cancel) = (Arc::new(client), Arc::new(Notify::new()));
    connection
        .object_server()
        .at(
            &path,
            Stream {
                owner: client.clone(),
                cancel: cancel.clone(),
            },
        )
        .await?;
    let (shared, connection, place) = (shared.clone(), connection.clone(), path.clone());
    tokio::spawn(async move {
        let (mut reader, writer) = ours.into_split();
        let mut byte = [0];
        tokio::select! {
            () = pump(&shared, call, &client, bytes, writer) => {}
            () = cancel.notified() => {}
            () = client.gone() => {}
            // The program sends nothing, so this is its end.
            _ = reader.read(&mut byte) => {}
        }
        let _ = connection.object_server().remove::<Stream, _>(&place).await;
    });
    Ok((path, std::os::fd::OwnedFd::from(theirs).into()))
}

/// Writes the answer's events. A program that does not read is cut off.
async fn pump(
    shared: &Shared,
    call: ChatCall,
    client: &Client,
    bytes: impl Sized,
    mut socket: OwnedWriteHalf,
) {
    let (usage, wish) = match call.delivery {
        Delivery::Stream { usage, progress } => (usage, progress),
        Delivery::Complete => Default::default(),
    };
    let (logprobs, hides_thoughts) = (call.request.logprobs.is_some(), call.hides_thoughts);
    let answer = shared
        .backends
        .chat(client.caller.id(), &call.model, call.request)
        .await;
    let head = Head::new(&call.model);
    let chunks = |model: &str| {
        let head = Head {
            model: model.to_owned(),
            ..head.clone()
        };
        Chunks::new(head, usage, logprobs)
            .hiding_thoughts(hides_thoughts)
            .framed(Framing::Lines)
    };
    let (mut answer, mut bytes) = match answer {
        Ok(answer) => (answer, Some(bytes)),
        Err(failure) => {
            return drop(
                socket
                    .write_all(&chunks(&call.model).failure(failure))
                    .await,
            );
        }
    };
    let progress = ProgressChunks {
        head: Head {
            model: answer.model(),
            ..head.clone()
        },
        wish,
        framing: Framing::Lines,
    };
    let mut teller = progress.teller(answer.waiting.clone());
    let mut written = None;
    loop {
        let (line, ended) = tokio::select! {
            biased;
            event = generation::next(&mut answer) => {
                // From the first one on the request's memory is the worker's business, and it is
                // settled which model answers.
                bytes.take();
                let chunks = written.get_or_insert_with(|| chunks(&answer.model()));
                let ended = matches!(event, Err(_) | Ok(ChatEvent::Done(_)));
                let line = match event {
                    Ok(event) => chunks.event(event),
                    Err(failure) => chunks.failure(failure),
                };
                (telling::before(&mut teller, line), ended)
            }
            line = telling::next(&mut teller) => (line, false),
        };
        let sent = timeout(shared.limits.client_stall, socket.write_all(&line)).await;
        if ended || !matches!(sent, Ok(Ok(()))) {
            return;
        }
    }
}
