//! One request to an upstream, by a worker of its own: it is started here, or by systemd where its
//! socket is, since the system service has no network. What it says is believed as little as its
//! service.

use std::io;
use std::path::PathBuf;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use crate::ipc::frame::{self, Decoder};
use crate::ipc::{Greeting, Protocol, Relay, RelayEvent, RelayRequest};
use crate::sys;

/// Bytes that are read at a time.
const PIECE: usize = 32 << 10;
/// Characters of what a worker says went wrong.
const MOST_WORDS: usize = 300;

/// How workers are had.
#[derive(Clone, Debug)]
pub struct Way {
    /// The worker program.
    pub worker: PathBuf,
    /// Where systemd starts one that may use the network, if it does.
    pub socket: PathBuf,
}

/// Dropping it ends the worker, and with it the connection.
#[derive(Debug)]
pub struct Exchange {
    channel: UnixStream,
    decoder: Decoder,
    greeted: bool,
    /// One that systemd started ends with the channel.
    _worker: Option<Child>,
}

impl Exchange {
    /// Starts a worker, and hands it the request.
    ///
    /// # Errors
    /// There is none, or it takes no request.
    pub async fn start(way: &Way, request: &RelayRequest) -> io::Result<Self> {
        let mut message = vec![];
        frame::encode(request, &mut message).map_err(io::Error::other)?;
        let (worker, mut channel) = match UnixStream::connect(&way.socket).await {
            Ok(channel) => (None, channel),
            Err(_) => {
                let (worker, channel) = spawn(way)?;
                (Some(worker), channel)
            }
        };
        let sent = channel.write_all(&message).await;
        // It has the key, and what was asked.
        message.fill(0);
        sent?;
        Ok(Self {
            channel,
            decoder: Decoder::with_limit(Relay::LARGEST_EVENT),
            greeted: false,
            _worker: worker,
        })
    }

    /// What it says next.
    ///
    /// # Errors
    /// Continues "… cannot be asked: ".
    pub async fn next(&mut self) -> Result<RelayEvent, String> {
        let mut piece = vec![0; PIECE];
        loop {
            match self.decoded()? {
                // Some of it may be the service's own words.
                Some(RelayEvent::Broken { reason, distrusted }) => {
                    let reason = reason.escape_debug().take(MOST_WORDS).collect();
                    return Ok(RelayEvent::Broken { reason, distrusted });
                }
                Some(event) => return Ok(event),
                None => {}
            }
            let read = self.channel.read(&mut piece).await;
            match read.map_err(|error| error.to_string())? {
                0 => return Err("its worker came to an end".to_owned()),
                read => self.decoder.feed(&piece[..read]),
            }
        }
    }

    fn decoded(&mut self) -> Result<Option<RelayEvent>, String> {
        let broken = |error: frame::FrameError| error.to_string();
        if !self.greeted {
            match self.decoder.next().map_err(broken)? {
                Some(Greeting::OURS) => self.greeted = true,
                Some(Greeting::Hello { .. }) => {
                    return Err("the worker is of another version; an upgrade is half done".into());
                }
                None => return Ok(None),
            }
        }
        self.decoder.next().map_err(broken)
    }
}

fn spawn(way: &Way) -> io::Result<(Child, UnixStream)> {
    let (command, ours) = sys::process::networked_worker(&way.worker, Relay::KIND.name())?;
    ours.set_nonblocking(true)?;
    let child = Command::from(command).kill_on_drop(true).spawn()?;
    Ok((child, UnixStream::from_std(ours)?))
}
