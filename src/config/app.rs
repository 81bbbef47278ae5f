//! `[[app]]`: apps that have sockets of their own.

use std::path::PathBuf;

/// An app that has a socket of its own: whoever is connected there is the app, whichever user that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    pub name: String,
    /// Where the daemon makes its socket; `None`: systemd does.
    pub socket: Option<PathBuf>,
    /// Permission bits of that socket.
    pub socket_mode: u32,
    /// Group that owns it; `None` leaves the daemon's own.
    pub socket_group: Option<String>,
    /// Of [`super::SCOPES`].
    pub scopes: Vec<String>,
    /// The ids of the models that it may ask, of which the first is its `auto`; empty: all.
    pub models: Vec<String>,
    /// Requests a minute.
    pub limit: Option<u32>,
}

impl Default for App {
    fn default() -> Self {
        Self {
            name: String::new(),
            socket: None,
            socket_mode: 0o600,
            socket_group: None,
            scopes: vec!["inference".into()],
            models: vec![],
            limit: None,
        }
    }
}
