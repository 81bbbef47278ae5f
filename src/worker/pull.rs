//! Fetching a part of a model's file: as [`super::fetch`] does it, but for what is allowed and for
//! where the bytes go.
//!
//! ```text
//!   look the name up ─▶ connect ─▶ confine ─▶ TLS and HTTP over that one connection ─▶ a pipe to the supervisor
//! ```
//!
//! It has no file to write. The supervisor hashes what comes out of the pipe and writes the very
//! same bytes, so whatever a server makes of this process, what was hashed is what lies on the disk.
//! A process that could write the file itself could change it behind the hash.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ureq::http::{HeaderMap, Response, StatusCode, header};
use ureq::{Body, RequestBuilder};
use url::{Host, Url};

use super::confinement::confine;
use super::connection;
use super::destination;
use super::exit::{EXIT_LOAD, EXIT_PROTOCOL};
use super::link::Writer;
use crate::chat::Networks;
use crate::ipc::{PULL_MEMORY, Pull, PullEvent, PullHead, PullRequest};
use crate::sandbox::{Needs, Profile};

/// How long the other side may take to answer a call, or to send anything at all.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes that are moved at a time.
const PIECE: usize = 256 << 10;
/// Bytes of a proxy's answer.
const MOST_ANSWER: usize = 8 << 10;
/// Bytes of an address or an entity tag that is passed on.
const MOST_TEXT: usize = 16 << 10;

/// Fetches the part. Everything else is the supervisor's to decide.
pub fn run(
    pull: &PullRequest,
    mut files: Vec<OwnedFd>,
    writer: &Writer<Pull>,
) -> Result<ExitCode, u8> {
    let Some(pipe) = files.pop().filter(|_| files.is_empty()) else {
        eprintln!("the supervisor sent no pipe to write into");
        return Err(EXIT_PROTOCOL);
    };
    let reached = reach(pull);
    confine(&Needs {
        profile: Profile::Pull,
        files: &[],
        largest_file: 0,
        memory: Some(PULL_MEMORY),
        cpu_seconds: None,
    })?;
    let last = reached
        .and_then(|reached| reached.get(pull, File::from(pipe), writer))
        .unwrap_or_else(|fault| fault);
    let failed = matches!(last, PullEvent::Broken { .. });
    // When the channel has ended the result is not needed.
    let _ = writer.send(&last);
    if failed {
        Err(EXIT_LOAD)
    } else {
        Ok(ExitCode::SUCCESS)
    }
}

/// A connection that nothing was said over yet.
struct Reached {
    connection: File,
    url: Url,
    /// What opens the way through a proxy.
    opening: Option<String>,
    trusted: ureq::tls::RootCerts,
}

fn fault(reason: impl Into<String>) -> PullEvent {
    PullEvent::Broken {
        reason: reason.into(),
        distrusted: false,
    }
}

/// Connects to the file's host, or to the proxy that leads there.
fn reach(pull: &PullRequest) -> Result<Reached, PullEvent> {
    let parse = |text: &str| {
        Url::parse(text).map_err(|error| fault(format!("an address cannot be read: {error}")))
    };
    let url = parse(&pull.url)?;
    let proxy = pull.proxy.as_deref().map(parse).transpose()?;
    let first = proxy.as_ref().unwrap_or(&url);
    let host = first.host_str().unwrap_or_default();
    let found = first
        .socket_addrs(|| None)
        .map_err(|error| fault(format!("`{host}` is not found: {error}")))?;
    let allowed = match &pull.networks {
        Some(networks) if proxy.is_none() => permitted(networks, &url, &found)?,
        Some(networks) => {
            // What a name means is for the proxy to find out; a number means the same everywhere.
            if !matches!(url.host(), Some(Host::Domain(_))) {
                let numbers = url.socket_addrs(|| None).unwrap_or_default();
                permitted(networks, &url, &numbers)?;
            }
            found.iter().collect()
        }
        None => found.iter().collect(),
    };
    let connection = connection::connect(allowed, PATIENCE)
        .map_err(|error| fault(format!("`{host}` cannot be reached: {error}")))?;
    Ok(Reached {
        connection: connection::as_file(connection),
        opening: proxy.map(|proxy| opening(&url, &proxy)),
        trusted: connection::trusted(url.scheme()),
        url,
    })
}

/// Which addresses a server may send us to.
fn permitted<'a>(
    networks: &Networks,
    url: &Url,
    found: &'a [SocketAddr],
) -> Result<Vec<&'a SocketAddr>, PullEvent> {
    destination::permitted(networks, url, found, "`redirect-to` in gemmad.toml").map_err(|why| {
        PullEvent::Broken {
            reason: format!("it is moved to where nothing is fetched from: {why}"),
            // It would be moved there again.
            distrusted: true,
        }
    })
}

/// What a proxy is asked for: a way to the file's host.
fn opening(url: &Url, proxy: &Url) -> String {
    let host = url.host().map(|host| host.to_string()).unwrap_or_default();
    let host = format!("{host}:{}", url.port_or_known_default().unwrap_or(443));
    let rights = match (proxy.username(), proxy.password()) {
        ("", None) => String::new(),
        (user, password) => {
            let plain = format!(
                "{}:{}",
                decoded(user),
                decoded(password.unwrap_or_default())
            );
            format!("Proxy-Authorization: Basic {}\r\n", STANDARD.encode(plain))
        }
    };
    format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n{rights}\r\n")
}

/// A part of an address without its percent signs.
fn decoded(text: &str) -> String {
    // As a query's value: a plus sign, which stands for a blank there, is kept.
    let query = format!("x={}", text.replace('+', "%2B"));
    url::form_urlencoded::parse(query.as_bytes())
        .next()
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default()
}

impl Reached {
    fn get(
        mut self,
        pull: &PullRequest,
        pipe: File,
        writer: &Writer<Pull>,
    ) -> Result<PullEvent, PullEvent> {
        if let Some(opening) = self.opening.take() {
            open_way(&mut self.connection, &opening).map_err(fault)?;
        }
        let agent = connection::agent(self.connection, self.trusted);
        let failed = |error: ureq::Error| PullEvent::Broken {
            reason: connection::broken(&error, PATIENCE),
            distrusted: connection::is_distrust(&error),
        };
        let request = with_headers(agent.get(self.url.as_str()), pull);
        let response = request.call().map_err(failed)?;
        let status = response.status();
        let headers = response.headers();
        if status.is_redirection()
            && let Some(to) = text(headers, header::LOCATION.as_str())
        {
            return Ok(PullEvent::Redirected {
                to,
                etag: text(headers, "x-linked-etag"),
                bytes: text(headers, "x-linked-size").and_then(|size| size.parse().ok()),
            });
        }
        let Some(head) = head(&response) else {
            return Ok(PullEvent::Refused {
                status: status.as_u16(),
                retry_after: text(headers, header::RETRY_AFTER.as_str())
                    .and_then(|seconds| seconds.trim().parse().ok()),
            });
        };
        if writer.send(&PullEvent::Head(head)).is_err() {
            return Ok(PullEvent::Ended);
        }
        pour(response, pipe, pull.most).map_err(failed)?;
        Ok(PullEvent::Ended)
    }
}

/// Asks a proxy, and waits until it has agreed.
fn open_way(connection: &mut File, opening: &str) -> Result<(), String> {
    let lost = |error: io::Error| format!("the proxy breaks off: {error}");
    connection.write_all(opening.as_bytes()).map_err(lost)?;
    // Byte by byte: what follows is the server's.
    let (mut answer, mut byte) = (vec![], [0]);
    while !answer.ends_with(b"\r\n\r\n") {
        connection.read_exact(&mut byte).map_err(lost)?;
        answer.extend(byte);
        if answer.len() > MOST_ANSWER {
            return Err("the proxy's answer has no end".into());
        }
    }
    let line = answer.split(|byte| *byte == b'\r').next().unwrap_or(&[]);
    let mut words = line.split(|byte| *byte == b' ');
    let is_http = words
        .next()
        .is_some_and(|word| word.starts_with(b"HTTP/1."));
    match words.next() {
        Some(status) if is_http && status.starts_with(b"2") => Ok(()),
        Some(status) if is_http => Err(format!(
            "the proxy answers {}; `proxy` in gemmad.toml names it",
            status.escape_ascii()
        )),
        _ => Err("the proxy's answer is not HTTP's; `proxy` in gemmad.toml names it".into()),
    }
}

fn with_headers<T>(mut request: RequestBuilder<T>, pull: &PullRequest) -> RequestBuilder<T> {
    if pull.from > 0 || pull.part {
        let last = pull.from.saturating_add(pull.most.max(1)) - 1;
        request = request.header(header::RANGE, format!("bytes={}-{last}", pull.from));
        if let Some(etag) = &pull.etag {
            request = request.header(header::IF_RANGE, etag);
        }
    }
    if let Some(token) = &pull.token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    request
}

/// What the server sends; `None` if it is not what was asked for.
fn head(response: &Response<Body>) -> Option<PullHead> {
    let headers = response.headers();
    let etag = text(headers, header::ETAG.as_str()).filter(|etag| etag.starts_with('"'));
    match response.status() {
        StatusCode::OK => Some(PullHead {
            start: 0,
            part: false,
            total: response.body().content_length(),
            etag,
        }),
        StatusCode::PARTIAL_CONTENT => {
            let (start, total) = range(&text(headers, header::CONTENT_RANGE.as_str())?)?;
            Some(PullHead {
                start,
                part: true,
                total,
                etag,
            })
        }
        _ => None,
    }
}

/// Reads `bytes 0-99/1000`: where it starts, and how long the whole is.
fn range(text: &str) -> Option<(u64, Option<u64>)> {
    let (part, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let start = part.split_once('-')?.0.trim().parse().ok()?;
    Some((start, total.trim().parse().ok()))
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    let value = headers.get(name)?.to_str().ok()?;
    (value.len() <= MOST_TEXT).then(|| value.to_owned())
}

/// Moves the body into the pipe. Whoever reads it may have had enough.
fn pour(mut response: Response<Body>, mut pipe: File, most: u64) -> Result<(), ureq::Error> {
    let mut body = response.body_mut().as_reader().take(most);
    let mut piece = vec![0; PIECE];
    loop {
        let read = body.read(&mut piece)?;
        if read == 0 || pipe.write_all(&piece[..read]).is_err() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read() {
        assert_eq!(range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(range("bytes 5-9/*"), Some((5, None)));
        for bad in ["bytes */10", "bytes 5-9", "5-9/10", "bytes x-9/10", ""] {
            assert_eq!(range(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_proxy_is_asked_for_the_files_host() {
        let url = Url::parse("https://[::1]/x").unwrap();
        let proxy = Url::parse("http://a%40b:c+d@proxy:3128").unwrap();
        let asked = opening(&url, &proxy);
        assert!(asked.starts_with("CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\n"));
        let rights = STANDARD.encode("a@b:c+d");
        assert!(
            asked.ends_with(&format!("Basic {rights}\r\n\r\n")),
            "{asked}"
        );
        let plain = opening(&url, &Url::parse("http://proxy").unwrap());
        assert!(!plain.contains("Authorization"));
    }
}
