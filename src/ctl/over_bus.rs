//! D-Bus, one connection for each request.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Take};
use tokio::net::UnixStream;
use zbus::Connection;
use zbus::connection::Builder;
use zbus::proxy::CacheProperties;
use zbus::zvariant::{OwnedValue, Value as Variant};

use super::answer::CHAT_PATH;
use super::error::Error;
use super::http::broken;
use super::wire;
use crate::bus::proxy::{ManagerProxy, Options};
use crate::config::BusChoice;

/// Bytes of one line of a stream, at most. The largest real ones have a few thousand.
const MAX_LINE: u64 = 1 << 20;
/// Seconds that a call may take: gemmactl has its own means to give up.
const PATIENCE: u32 = u32::MAX;
/// Names of errors.
const OURS: &str = "org.gemmad.Error.";
const THE_BUS: &str = "org.freedesktop.DBus.Error.";

/// The daemon, as reached over a bus.
pub struct OverBus(BusChoice);

impl OverBus {
    pub fn new(bus: BusChoice) -> Self {
        Self(bus)
    }

    async fn manager(&self) -> Result<ManagerProxy<'static>, Error> {
        let builder = match &self.0 {
            BusChoice::None | BusChoice::System => Builder::system(),
            BusChoice::Session => Builder::session(),
            BusChoice::Address(address) => Builder::address(address.as_str()),
        };
        let away = |error: zbus::Error| Error::NotOnBus {
            cause: error.to_string(),
        };
        let connection = builder.map_err(away)?.build().await.map_err(away)?;
        ManagerProxy::builder(&connection)
            .cache_properties(CacheProperties::No)
            .build()
            .await
            .map_err(failed)
    }

    /// What the path of the HTTP API would answer.
    pub async fn json(&self, path: &str, body: Option<&Value>) -> Result<Value, Error> {
        let manager = self.manager().await?;
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let text = |body: Option<&Value>| body.map(Value::to_string).unwrap_or_default();
        let long = || Options::from([("timeout", PATIENCE.into())]);
        let answer = match path {
            CHAT_PATH => manager.chat(&text(body), long()).await,
            "/status" => manager.describe().await,
            "/v1/models" => {
                return Ok(
                    json!({"data": manager.list_models().await.map_err(failed)?.iter().map(model).collect::<Vec<_>>()}),
                );
            }
            "/memory/plan" => {
                manager
                    .plan(query.split('&').filter_map(option).collect())
                    .await
            }
            "/models/load" => {
                let model = body
                    .and_then(|body| body["model"].as_str())
                    .unwrap_or("auto");
                return Ok(json!({"id": manager.load(model, long()).await.map_err(failed)?}));
            }
            "/models/unload" => {
                return manager
                    .unload(long())
                    .await
                    .map(|()| json!({}))
                    .map_err(failed);
            }
            _ => {
                return Err(Error::Usage(
                    "this is not served over D-Bus; leave --bus out".into(),
                ));
            }
        };
        serde_json::from_str(&answer.map_err(failed)?)
            .map_err(|error| broken(format!("it sent no valid JSON: {error}")))
    }

    /// A streamed answer to a chat request.
    pub async fn events(&self, body: &Value) -> Result<BusEvents, Error> {
        let manager = self.manager().await?;
        let (_, socket) = manager
            .open_stream(&body.to_string(), Options::new())
            .await
            .map_err(failed)?;
        let socket = StdStream::from(OwnedFd::from(socket));
        socket.set_nonblocking(true).map_err(broken)?;
        let lines = BufReader::new(UnixStream::from_std(socket).map_err(broken)?).take(MAX_LINE);
        Ok(BusEvents {
            lines,
            line: vec![],
            finished: false,
            _there: manager.inner().connection().clone(),
        })
    }
}

/// One option of a query; both have numbers.
fn option(part: &str) -> Option<(&str, Variant<'_>)> {
    let (name, number) = part.split_once('=')?;
    Some((name, number.parse::<u64>().ok()?.into()))
}

/// A model as the HTTP API lists it.
fn model(fields: &HashMap<String, OwnedValue>) -> Value {
    let plain = |value: &OwnedValue| match &**value {
        Variant::Str(text) => json!(text.as_str()),
        Variant::U64(number) => json!(number),
        Variant::U32(number) => json!(number),
        Variant::Bool(is) => json!(is),
        _ => Value::Null,
    };
    fields
        .iter()
        .map(|(name, value)| {
            (
                if name == "context-limit" {
                    "context_length".into()
                } else {
                    name.clone()
                },
                plain(value),
            )
        })
        .collect()
}

/// The lines of an answer on their way.
pub struct BusEvents {
    lines: Take<BufReader<UnixStream>>,
    /// What of a line has come.
    line: Vec<u8>,
    /// The answer's last chunk was seen.
    finished: bool,
    /// Whoever leaves the bus is answered no more.
    _there: Connection,
}

impl BusEvents {
    /// As over HTTP: `[DONE]` after the last chunk.
    pub async fn next(&mut self) -> Result<Option<String>, Error> {
        self.lines
            .read_until(b'\n', &mut self.line)
            .await
            .map_err(broken)?;
        if self.line.pop_if(|byte| *byte == b'\n').is_none() {
            let cut = !self.line.is_empty();
            return match std::mem::take(&mut self.finished) {
                _ if cut => Err(broken("it sent a line that has no end")),
                finished => Ok(finished.then(|| "[DONE]".into())),
            };
        }
        self.lines.set_limit(MAX_LINE);
        let line = String::from_utf8(std::mem::take(&mut self.line))
            .map_err(|_| broken("it sent a line that is not UTF-8"))?;
        self.finished |= wire::piece(&line)?.finish.is_some();
        Ok(Some(line))
    }
}

/// What an error on the bus means to a user.
fn failed(error: zbus::Error) -> Error {
    let zbus::Error::MethodError(name, text, _) = &error else {
        return broken(error);
    };
    let message = text.clone().unwrap_or_else(|| name.to_string());
    match (name.strip_prefix(OURS), name.strip_prefix(THE_BUS)) {
        (Some("Busy"), _) => Error::Busy {
            message,
            retry_after: None,
        },
        (Some("NotAuthorized"), _) => Error::NotAllowed { message },
        (Some(_), _) => Error::Refused { message },
        (_, Some("AccessDenied")) => Error::KeptOut { cause: message },
        (_, Some(_)) => Error::NotOnBus { cause: message },
        _ => broken(message),
    }
}
