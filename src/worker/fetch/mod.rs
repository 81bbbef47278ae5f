//! Fetching a file that a request names by its address. A worker of its own does it and then ends.
//!
//! ```text
//!   look the name up ─▶ leave out forbidden addresses ─▶ connect ─▶ confine ─▶ TLS and HTTP over that one connection
//! ```
//!
//! Everything that the other side sends is read after the worker has confined itself: it has the
//! connection, and cannot make another. A redirect is therefore followed by the next
//! worker.

use std::io::Read;
use std::process::ExitCode;
use std::time::Duration;

use ureq::Agent;
use ureq::http::{StatusCode, header};
use url::Url;

use super::confinement::confine;
use super::connection;
use super::destination;
use super::exit::EXIT_LOAD;
use super::link::Writer;
use crate::ipc::{FETCH_MEMORY, FETCH_PIECE, Fetch, FetchEvent, FetchRequest};
use crate::sandbox::{Needs, Profile};

/// Seconds of a CPU that it may cost; the supervisor minds the clock.
const CPU_SECONDS: u64 = 10;
/// How long the other side may take to answer a call, or to send anything at all.
const PATIENCE: Duration = Duration::from_secs(5);
/// Fetches the file. Everything else is the supervisor's to decide.
pub fn run(fetch: &FetchRequest, writer: &Writer<Fetch>) -> Result<ExitCode, u8> {
    let reached = reach(fetch);
    confine(&Needs {
        profile: Profile::Fetch,
        files: &[],
        largest_file: 0,
        memory: Some(FETCH_MEMORY),
        cpu_seconds: Some(CPU_SECONDS),
    })?;
    let last = reached
        .and_then(|agent| get(&agent, fetch, writer))
        .unwrap_or_else(|reason| FetchEvent::Rejected { reason });
    let failed = matches!(last, FetchEvent::Rejected { .. });
    // When the channel has ended the result is not needed.
    let _ = writer.send(&last);
    if failed {
        Err(EXIT_LOAD)
    } else {
        Ok(ExitCode::SUCCESS)
    }
}

/// Connects to the file's host, if it is where files may come from.
fn reach(fetch: &FetchRequest) -> Result<Agent, String> {
    let url = Url::parse(&fetch.url).map_err(|error| format!("is not an address: {error}"))?;
    let host = url.host().map(|host| host.to_string()).unwrap_or_default();
    let found = url
        .socket_addrs(|| None)
        .map_err(|error| format!("cannot be fetched: `{host}` is not found: {error}"))?;
    let allowed = destination::permitted(&fetch.networks, &url, &found, "fetch-from")
        .map_err(|why| format!("is not fetched: {why}"))?;
    let connection = connection::connect(allowed, PATIENCE)
        .map_err(|error| format!("cannot be fetched: `{host}` cannot be reached: {error}"))?;
    let trusted = connection::trusted(url.scheme());
    Ok(connection::agent(connection::as_file(connection), trusted))
}

fn get(agent: &Agent, fetch: &FetchRequest, writer: &Writer<Fetch>) -> Result<FetchEvent, String> {
    let mut response = agent
        .get(&fetch.url)
        .call()
        .map_err(|error| broken(&error))?;
    let status = response.status();
    if status.is_redirection()
        && let Some(to) = response.headers().get(header::LOCATION)
    {
        let to = to.to_str().map_err(|_| "is moved to what is no address")?;
        return Ok(FetchEvent::Redirected { to: to.to_owned() });
    }
    if status != StatusCode::OK {
        return Err(format!("cannot be fetched: its server answers {status}"));
    }
    let too_long = || {
        format!(
            "has more than {} bytes, which is what may be fetched",
            fetch.most
        )
    };
    if response
        .body()
        .content_length()
        .is_some_and(|length| length > fetch.most)
    {
        return Err(too_long());
    }
    let mut body = response.body_mut().as_reader();
    let (mut piece, mut left) = (vec![0; FETCH_PIECE], fetch.most);
    loop {
        let read = body
            .read(&mut piece)
            .map_err(|error| broken(&error.into()))?;
        if read == 0 {
            return Ok(FetchEvent::Fetched);
        }
        left = left.checked_sub(read as u64).ok_or_else(too_long)?;
        if writer
            .send(&FetchEvent::Piece(piece[..read].to_vec()))
            .is_err()
        {
            return Err("is not wanted any more".into());
        }
    }
}

fn broken(error: &ureq::Error) -> String {
    format!("cannot be fetched: {}", connection::broken(error, PATIENCE))
}
