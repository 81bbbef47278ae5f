//! Asking a service on another machine: one request over one connection.
//!
//! ```text
//!   look the name up ─▶ connect ─▶ confine ─▶ TLS and HTTP over that one connection ─▶ the supervisor
//! ```
//!
//! What the service sends is read after the worker has confined itself, and judged by the supervisor.
//! When the supervisor hangs up the connection ends with this process, and so does the service's work.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

use ureq::Agent;
use ureq::http::{HeaderMap, header};
use url::Url;

use super::confinement::confine;
use super::connection;
use super::exit::EXIT_LOAD;
use super::link::Writer;
use crate::ipc::{RELAY_MEMORY, RELAY_PIECE, Relay, RelayEvent, RelayRequest};
use crate::sandbox::{Needs, Profile};

/// Bytes of a header's value that is looked at.
const MOST_TEXT: usize = 64;

/// Sends the request. Everything else is the supervisor's to decide.
///
/// # Errors
/// The exit status.
pub fn run(
    relay: RelayRequest,
    channel: UnixStream,
    writer: &Writer<Relay>,
) -> Result<ExitCode, u8> {
    let patience = Duration::from_millis(relay.patience_ms.into());
    let reached = reach(&relay, channel, patience);
    confine(&Needs {
        profile: Profile::Relay,
        files: &[],
        largest_file: 0,
        memory: Some(RELAY_MEMORY),
        cpu_seconds: None,
    })?;
    let last = reached
        .and_then(|agent| ask(&agent, relay, patience, writer))
        .unwrap_or_else(|fault| fault);
    let failed = matches!(last, RelayEvent::Broken { .. });
    // When the channel has ended the result is not needed.
    let _ = writer.send(&last);
    if failed {
        Err(EXIT_LOAD)
    } else {
        Ok(ExitCode::SUCCESS)
    }
}

fn fault(reason: String) -> RelayEvent {
    RelayEvent::Broken {
        reason,
        distrusted: false,
    }
}

/// Connects to the service, wherever it is: an administrator named it.
fn reach(
    relay: &RelayRequest,
    channel: UnixStream,
    patience: Duration,
) -> Result<Agent, RelayEvent> {
    let url = Url::parse(&relay.url)
        .map_err(|error| fault(format!("its address cannot be read: {error}")))?;
    let host = url.host().map(|host| host.to_string()).unwrap_or_default();
    let found = url
        .socket_addrs(|| None)
        .map_err(|error| fault(format!("`{host}` is not found: {error}")))?;
    let connection = connection::connect(&found, patience)
        .map_err(|error| fault(format!("`{host}` cannot be reached: {error}")))?;
    let trusted = connection::trusted(url.scheme());
    let connection = connection::as_file(connection);
    Ok(connection::agent_while(
        connection, trusted, channel, patience,
    ))
}

fn ask(
    agent: &Agent,
    relay: RelayRequest,
    patience: Duration,
    writer: &Writer<Relay>,
) -> Result<RelayEvent, RelayEvent> {
    let failed = |error: ureq::Error| RelayEvent::Broken {
        reason: connection::broken(&error, patience),
        distrusted: connection::is_distrust(&error),
    };
    let mut request = agent
        .post(&relay.url)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "text/event-stream, application/json");
    if let Some(key) = &relay.key {
        request = request.header(header::AUTHORIZATION, format!("Bearer {key}"));
    }
    let mut response = request.send(&relay.body[..]).map_err(failed)?;
    drop(relay);
    let head = RelayEvent::Head {
        status: response.status().as_u16(),
        retry_after: retry_after(response.headers()),
    };
    if writer.send(&head).is_err() {
        return Ok(RelayEvent::Ended);
    }
    let mut body = response.body_mut().as_reader();
    let mut piece = vec![0; RELAY_PIECE];
    loop {
        let read = body
            .read(&mut piece)
            .map_err(|error| failed(error.into()))?;
        let some = piece[..read].to_vec();
        if read == 0 || writer.send(&RelayEvent::Piece(some)).is_err() {
            return Ok(RelayEvent::Ended);
        }
    }
}

/// Seconds; a date, which is allowed as well, is passed over.
fn retry_after(headers: &HeaderMap) -> Option<u32> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    text.get(..text.len().min(MOST_TEXT))?.trim().parse().ok()
}
