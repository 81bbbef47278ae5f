//! Fetching a file that a request names by its address. A worker of its own does it and then ends.
//!
//! ```text
//!   look the name up ─▶ leave out forbidden addresses ─▶ connect ─▶ confine ─▶ TLS and HTTP over that one connection
//! ```
//!
//! Everything that the other side sends is read after the worker has confined itself: it has the
//! connection, and cannot make another. A redirect is therefore followed by the next
//! worker. The addresses that are looked at are those that are connected to, so a name cannot
//! mean something else the second time.

mod connection;

use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use ureq::config::Config;
use ureq::http::{StatusCode, header};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::unversioned::transport::{Connector, RustlsConnector};
use ureq::{Agent, Error};
use url::{Host, Url};

use super::confinement::confine;
use super::exit::EXIT_LOAD;
use super::link::Writer;
use crate::chat::{Barred, Networks};
use crate::ipc::{FETCH_MEMORY, FETCH_PIECE, Fetch, FetchEvent, FetchRequest};
use crate::sandbox::{Needs, Profile};
use crate::sys::interfaces;
use connection::Once;

/// Seconds of a CPU that it may cost; the supervisor minds the clock.
const CPU_SECONDS: u64 = 10;
/// How long the other side may take to answer a call, or to send anything at all.
const PATIENCE: Duration = Duration::from_secs(5);
/// Characters of what is said of a failure.
const MOST_WORDS: usize = 160;
/// Bytes of the answer's head.
const MOST_HEAD: usize = 32 << 10;

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
    let own = interfaces::networks().map_err(|error| {
        format!("is not fetched: this machine's own addresses are not known: {error}")
    })?;
    let allowed = allowed(&fetch.networks, &found, &own).map_err(|(address, barred)| {
        let address = match (url.host(), address) {
            (Some(Host::Domain(_)), Some(address)) => {
                format!("`{host}` is {}, which", address.ip())
            }
            _ => format!("`{host}`"),
        };
        let why = match barred {
            Barred::NotListed => "is not among the networks of `fetch-from` in gemmad.toml",
            Barred::Port => "is asked for at another port than 80 and 443; list it in `fetch-from` in gemmad.toml",
            Barred::Neighbour => "is this machine or its neighbour, which `public` leaves out; list it in `fetch-from` in gemmad.toml",
        };
        format!("is not fetched: {address} {why}")
    })?;
    let connection = connect(&allowed)
        .map_err(|error| format!("cannot be fetched: `{host}` cannot be reached: {error}"))?;
    let trusted = if url.scheme() == "https" {
        trusted()
    } else {
        RootCerts::WebPki
    };
    let config = Config::builder()
        .tls_config(TlsConfig::builder().root_certs(trusted).build())
        .proxy(None)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .max_response_header_size(MOST_HEAD)
        .user_agent(concat!("gemmad/", env!("CARGO_PKG_VERSION")))
        .build();
    let once = Once::new(connection);
    Ok(Agent::with_parts(
        config,
        once.clone().chain(RustlsConnector::default()),
        once,
    ))
}

/// Those of several addresses that may be connected to; if there are none, the first address and
/// why it is barred.
fn allowed<'a>(
    networks: &Networks,
    found: &'a [SocketAddr],
    own: &[IpNet],
) -> Result<Vec<&'a SocketAddr>, (Option<SocketAddr>, Barred)> {
    let (mut allowed, mut barred) = (vec![], (None, Barred::NotListed));
    for address in found {
        match networks.check(*address, own) {
            Ok(()) => allowed.push(address),
            Err(why) if barred.0.is_none() => barred = (Some(*address), why),
            Err(_) => {}
        }
    }
    if allowed.is_empty() {
        return Err(barred);
    }
    Ok(allowed)
}

/// The first of several addresses that answers.
fn connect(addresses: &[&SocketAddr]) -> io::Result<TcpStream> {
    let mut failure = io::ErrorKind::AddrNotAvailable.into();
    for address in addresses {
        match TcpStream::connect_timeout(address, PATIENCE) {
            Ok(connection) => {
                connection.set_read_timeout(Some(PATIENCE))?;
                connection.set_write_timeout(Some(PATIENCE))?;
                return Ok(connection);
            }
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// Whom the system trusts; where it has no list, whom browsers trusted when this was built.
fn trusted() -> RootCerts {
    let found = rustls_native_certs::load_native_certs().certs;
    if found.is_empty() {
        return RootCerts::WebPki;
    }
    RootCerts::Specific(Arc::new(
        found
            .iter()
            .map(|certificate| Certificate::from_der(certificate).to_owned())
            .collect(),
    ))
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

fn broken(error: &Error) -> String {
    let what = match error {
        // What a socket says when its time is over.
        Error::Io(error)
            if matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
            ) =>
        {
            return format!(
                "cannot be fetched: its server sends nothing for {} s",
                PATIENCE.as_secs()
            );
        }
        // What TLS says when a certificate is not in order.
        Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
            format!("its server cannot be trusted: {error}")
        }
        Error::Rustls(error) => format!("its server cannot be trusted: {error}"),
        error => error.to_string(),
    };
    // Some of it may be the server's own words.
    format!(
        "cannot be fetched: {}",
        what.escape_debug().take(MOST_WORDS).collect::<String>()
    )
}
