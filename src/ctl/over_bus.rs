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

use super::client::{Client, Events, Reply};
use super::error::Error;
use super::wire;
use crate::bus::proxy::{ManagerProxy, Options};
use crate::config::BusChoice;

/// Bytes of one line of a stream, at most. The largest real ones have a few thousand.
const MAX_LINE: u64 = 1 << 20;
/// Seconds that a call may take: gemmactl has its own means to give up.
const TIMEOUT: u32 = u32::MAX;
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
}

impl Client for OverBus {
    fn status(&self) -> Reply<'_, Value> {
        Box::pin(async { parsed(self.manager().await?.describe().await) })
    }

    fn models(&self) -> Reply<'_, Value> {
        Box::pin(async {
            let models = self.manager().await?.list_models().await.map_err(failed)?;
            Ok(json!({"data": models.iter().map(model).collect::<Vec<_>>()}))
        })
    }

    fn catalog(&self) -> Reply<'_, Value> {
        Box::pin(async { parsed(self.manager().await?.list_catalog().await) })
    }

    fn devices(&self) -> Reply<'_, Value> {
        Box::pin(async { parsed(self.manager().await?.list_devices().await) })
    }

    fn model<'a>(&'a self, name: &'a str) -> Reply<'a, Value> {
        Box::pin(async move {
            let found = self.manager().await?.find_model(name).await;
            Ok(model(&found.map_err(failed)?))
        })
    }

    fn plan(&self, context: Option<u32>, ram: Option<u64>) -> Reply<'_, Value> {
        Box::pin(async move {
            let context = context.map(|context| ("context", context.into()));
            let ram = ram.map(|bytes| ("ram", bytes.into()));
            let options: Options = context.into_iter().chain(ram).collect();
            parsed(self.manager().await?.plan(options).await)
        })
    }

    fn load<'a>(&'a self, model: &'a str) -> Reply<'a, String> {
        Box::pin(async move {
            let manager = self.manager().await?;
            manager.load(model, unlimited()).await.map_err(failed)
        })
    }

    fn unload(&self) -> Reply<'_, ()> {
        Box::pin(async {
            let manager = self.manager().await?;
            manager.unload(unlimited()).await.map_err(failed)
        })
    }

    fn chat<'a>(&'a self, request: &'a Value) -> Reply<'a, Value> {
        Box::pin(async move {
            let manager = self.manager().await?;
            parsed(manager.chat(&request.to_string(), unlimited()).await)
        })
    }

    fn stream<'a>(&'a self, request: &'a Value) -> Reply<'a, Box<dyn Events>> {
        Box::pin(async move {
            let manager = self.manager().await?;
            let (_, socket) = manager
                .open_stream(&request.to_string(), Options::new())
                .await
                .map_err(failed)?;
            let socket = StdStream::from(OwnedFd::from(socket));
            socket.set_nonblocking(true).map_err(Error::broken)?;
            let socket = UnixStream::from_std(socket).map_err(Error::broken)?;
            let events: Box<dyn Events> = Box::new(BusEvents {
                lines: BufReader::new(socket).take(MAX_LINE),
                line: vec![],
                finished: false,
                _there: manager.inner().connection().clone(),
            });
            Ok(events)
        })
    }
}

fn unlimited() -> Options<'static> {
    Options::from([("timeout", TIMEOUT.into())])
}

/// What was answered in JSON.
fn parsed(answer: zbus::Result<String>) -> Result<Value, Error> {
    serde_json::from_str(&answer.map_err(failed)?)
        .map_err(|error| Error::broken(format!("it sent no valid JSON: {error}")))
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
struct BusEvents {
    lines: Take<BufReader<UnixStream>>,
    /// What of a line has come.
    line: Vec<u8>,
    /// The answer's last chunk was seen.
    finished: bool,
    /// Whoever leaves the bus is answered no more.
    _there: Connection,
}

impl Events for BusEvents {
    /// As over HTTP: `[DONE]` after the last chunk.
    fn next(&mut self) -> Reply<'_, Option<String>> {
        Box::pin(async move {
            self.lines
                .read_until(b'\n', &mut self.line)
                .await
                .map_err(Error::broken)?;
            if self.line.pop_if(|byte| *byte == b'\n').is_none() {
                let cut = !self.line.is_empty();
                return match std::mem::take(&mut self.finished) {
                    _ if cut => Err(Error::broken("it sent a line that has no end")),
                    finished => Ok(finished.then(|| "[DONE]".into())),
                };
            }
            self.lines.set_limit(MAX_LINE);
            let line = String::from_utf8(std::mem::take(&mut self.line))
                .map_err(|_| Error::broken("it sent a line that is not UTF-8"))?;
            self.finished |= wire::piece(&line)?.finish.is_some();
            Ok(Some(line))
        })
    }
}

/// The field of the request that is to blame: the text begins with it, where there is one.
fn blamed(message: &str) -> Option<String> {
    let (field, _) = message.strip_prefix('`')?.split_once('`')?;
    Some(field.to_owned())
}

/// What an error on the bus means to a user.
fn failed(error: zbus::Error) -> Error {
    let zbus::Error::MethodError(name, text, _) = &error else {
        return Error::broken(error);
    };
    let message = text.clone().unwrap_or_else(|| name.to_string());
    match (name.strip_prefix(OURS), name.strip_prefix(THE_BUS)) {
        (Some("Busy"), _) => Error::Busy {
            message,
            retry_after: None,
        },
        (Some("NotAuthorized"), _) => Error::NotAllowed { message },
        (Some("InvalidRequest"), _) => Error::Refused {
            field: blamed(&message),
            message,
        },
        (Some(_), _) => Error::Refused {
            message,
            field: None,
        },
        (_, Some("AccessDenied")) => Error::KeptOut { cause: message },
        (_, Some(_)) => Error::NotOnBus { cause: message },
        _ => Error::broken(message),
    }
}
