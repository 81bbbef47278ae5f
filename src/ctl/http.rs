//! HTTP over the daemon's socket, one connection for each request.

use std::collections::VecDeque;
use std::future::Future;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::time::Duration;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use nix::unistd::{Group, User, getuid};
use serde_json::Value;
use tokio::net::UnixStream;

use super::error::Error;
use super::sse::{SseError, SseReader};
use super::wire;

/// Bytes of a response that is not a stream, at most.
const MAX_BODY: usize = 16 << 20;

/// The daemon, as reached over its socket.
pub struct Http {
    socket: PathBuf,
}

/// The connection's own work. It is done only while someone waits for something, and dropping it
/// hangs up at once: a task of its own would outlive an interrupted answer until the runtime ran
/// again.
struct Link(Option<Pin<Box<dyn Future<Output = hyper::Result<()>>>>>);

impl Link {
    async fn drive<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        if let Some(connection) = &mut self.0 {
            tokio::select! {
                biased;
                done = &mut work => return done,
                // How it ended is told through `work` too.
                _ = connection => self.0 = None,
            }
        }
        work.await
    }
}

impl Http {
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Asks for JSON.
    ///
    /// # Errors
    /// As [`Http::events`].
    pub async fn json(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Error> {
        let (response, mut link) = self.send(method, path, body).await?;
        let body = link.drive(collect(response.into_body())).await?;
        serde_json::from_slice(&body)
            .map_err(|error| broken(format!("it sent no valid JSON: {error}")))
    }

    /// Asks for a stream of events.
    ///
    /// # Errors
    /// When the daemon cannot be reached, answers with an error status, or breaks off.
    pub async fn events(&self, path: &str, body: &Value) -> Result<HttpEvents, Error> {
        let (response, link) = self.send(Method::POST, path, Some(body)).await?;
        Ok(HttpEvents {
            body: response.into_body(),
            link,
            reader: SseReader::default(),
            ready: VecDeque::new(),
        })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(Response<Incoming>, Link), Error> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|error| Error::from_connect(&self.socket, error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        let mut link = Link(Some(Box::pin(connection)));
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "localhost")
            .header(USER_AGENT, concat!("gemmactl/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(broken)?;
        let response = link
            .drive(sender.send_request(request))
            .await
            .map_err(broken)?;
        if response.status().is_success() {
            return Ok((response, link));
        }
        let status = response.status().as_u16();
        let retry_after = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.parse().ok());
        // An error without a readable body is still an error.
        let body = link
            .drive(collect(response.into_body()))
            .await
            .unwrap_or_default();
        let message = wire::error_message(&body)
            .unwrap_or_else(|| format!("the daemon answered with status {status} and no reason"));
        Err(refusal(status, retry_after, message))
    }
}

/// The events of an answer on their way. Dropping it hangs up.
pub struct HttpEvents {
    body: Incoming,
    link: Link,
    reader: SseReader,
    ready: VecDeque<String>,
}

impl HttpEvents {
    /// The data of the next event; `None` when the stream has ended. Nothing is lost when the
    /// future is dropped.
    ///
    /// # Errors
    /// `Broken` when the connection or the stream breaks.
    pub async fn next(&mut self) -> Result<Option<String>, Error> {
        loop {
            if let Some(data) = self.ready.pop_front() {
                return Ok(Some(data));
            }
            let frame = match self.link.drive(self.body.frame()).await {
                None => return Ok(None),
                Some(frame) => frame.map_err(broken)?,
            };
            if let Ok(bytes) = frame.into_data() {
                self.ready
                    .extend(self.reader.push(&bytes).map_err(|error| match error {
                        SseError::TooLong => broken("it sent an event that is too long"),
                        SseError::NotUtf8 => broken("it sent an event that is not UTF-8"),
                    })?);
            }
        }
    }
}

async fn collect(body: Incoming) -> Result<Bytes, Error> {
    let body = Limited::new(body, MAX_BODY)
        .collect()
        .await
        .map_err(|error| {
            if error.is::<LengthLimitError>() {
                broken(format!("its answer is longer than {MAX_BODY} bytes"))
            } else {
                broken(error)
            }
        })?;
    Ok(body.to_bytes())
}

pub fn broken(cause: impl ToString) -> Error {
    Error::Broken {
        cause: cause.to_string(),
    }
}

/// 503 without a time to come back is a failure, not a queue.
fn refusal(status: u16, retry_after: Option<u64>, message: String) -> Error {
    match (status, retry_after) {
        (429, _) | (503, Some(_)) => Error::Busy {
            message,
            retry_after: retry_after.map(Duration::from_secs),
        },
        (403, _) => Error::NotAllowed { message },
        _ => Error::Refused { message },
    }
}

/// How this user could be let in: who owns the socket, or the directory that hides it, and what to
/// do.
pub fn who_may(socket: &Path) -> String {
    let shown = [Some(socket), socket.parent()]
        .into_iter()
        .flatten()
        .find_map(|path| Some((path, path.metadata().ok()?)));
    let Some((path, metadata)) = shown else {
        return "a directory on the way to it is closed to you; ask the administrator".into();
    };
    let me = User::from_uid(getuid())
        .ok()
        .flatten()
        .map_or_else(|| getuid().to_string(), |user| user.name);
    let group = Group::from_gid(metadata.gid().into())
        .ok()
        .flatten()
        .map_or_else(|| metadata.gid().to_string(), |group| group.name);
    entrance(
        &path.display().to_string(),
        metadata.mode(),
        metadata.gid(),
        &group,
        &me,
    )
}

/// Socket and directory are both opened to a group by some of its bits; root's group is no one's to
/// join.
fn entrance(path: &str, mode: u32, gid: u32, group: &str, me: &str) -> String {
    let owned = format!(
        "{path} belongs to the group {group} (mode {:04o})",
        mode & 0o7777
    );
    if gid != 0 && mode & 0o070 != 0 {
        format!(
            "{owned}; an administrator can let you in with `usermod -aG {group} {me}`, after which you log in again"
        )
    } else {
        format!("{owned}; an administrator can set `socket-group` and `socket-mode` in gemmad.toml")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_and_not_allowed_are_told_from_refused() {
        let code = |status, retry| refusal(status, retry, String::new()).code();
        assert_eq!(
            (code(429, None), code(429, Some(1)), code(503, Some(1))),
            (75, 75, 75)
        );
        assert_eq!(
            (
                code(503, None),
                code(400, None),
                code(500, Some(1)),
                code(403, None)
            ),
            (1, 1, 1, 77)
        );
    }

    #[test]
    fn the_way_in_is_the_group_where_it_may_be_one() {
        let text = entrance("/run/s", 0o140660, 990, "gemma", "alice");
        assert!(
            text.contains("group gemma (mode 0660)") && text.contains("`usermod -aG gemma alice`"),
            "{text}"
        );
        for (mode, gid) in [(0o600, 990), (0o660, 0)] {
            let text = entrance("/run/s", mode, gid, "g", "alice");
            assert!(
                text.contains("socket-group") && !text.contains("usermod"),
                "{text}"
            );
        }
    }
}
