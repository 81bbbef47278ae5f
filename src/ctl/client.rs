//! The daemon, whichever way it is reached. What can be asked is named by the paths of the HTTP
//! API.

use std::path::PathBuf;

use hyper::Method;
use serde_json::Value;

use super::error::Error;
use super::http::{Http, HttpEvents};
use super::over_bus::{BusEvents, OverBus};
use crate::config::BusChoice;

pub enum Client {
    Socket(Http),
    Bus(OverBus),
}

impl Client {
    /// Over the bus, if one is named.
    pub fn new(socket: PathBuf, bus: Option<BusChoice>) -> Self {
        match bus {
            None => Self::Socket(Http::new(socket)),
            Some(bus) => Self::Bus(OverBus::new(bus)),
        }
    }

    /// Asks for JSON.
    ///
    /// # Errors
    /// As [`Client::events`].
    pub async fn json(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Error> {
        match self {
            Self::Socket(http) => http.json(method, path, body).await,
            Self::Bus(bus) => bus.json(path, body).await,
        }
    }

    /// Asks for a stream of events.
    ///
    /// # Errors
    /// When the daemon cannot be reached, refuses, or breaks off.
    pub async fn events(&self, path: &str, body: &Value) -> Result<Events, Error> {
        match self {
            Self::Socket(http) => Ok(Events::Socket(http.events(path, body).await?)),
            Self::Bus(bus) => Ok(Events::Bus(bus.events(body).await?)),
        }
    }
}

/// The events of an answer on their way. Dropping it hangs up.
pub enum Events {
    Socket(HttpEvents),
    Bus(BusEvents),
}

impl Events {
    /// The data of the next event; `None` when the stream has ended. Nothing is lost when the
    /// future is dropped.
    ///
    /// # Errors
    /// `Broken` when the connection or the stream breaks.
    pub async fn next(&mut self) -> Result<Option<String>, Error> {
        match self {
            Self::Socket(events) => events.next().await,
            Self::Bus(events) => events.next().await,
        }
    }
}
