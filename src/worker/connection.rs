//! The one connection that a worker on the network has, as the HTTP client's way to its server. Its
//! bytes are moved with `read` and `write`, which a confined worker may call.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, RustlsConnector, Transport,
};
use ureq::{Agent, Error};

/// Characters of what is said of a failure.
const MOST_WORDS: usize = 160;
/// Bytes of the answer's head.
const MOST_HEAD: usize = 32 << 10;

/// The first of several addresses that answers. `patience`: how long each may take to do so, and
/// then to send or take anything at all.
pub fn connect<'a>(
    addresses: impl IntoIterator<Item = &'a SocketAddr>,
    patience: Duration,
) -> io::Result<TcpStream> {
    let mut failure = io::ErrorKind::AddrNotAvailable.into();
    for address in addresses {
        match TcpStream::connect_timeout(address, patience) {
            Ok(connection) => {
                connection.set_read_timeout(Some(patience))?;
                connection.set_write_timeout(Some(patience))?;
                return Ok(connection);
            }
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// A client that has this connection, and no other.
pub fn agent(connection: File, trusted: RootCerts) -> Agent {
    client(connection, trusted, None)
}

/// The same, for as long as the other side of `channel`, which says nothing any more, is there.
/// `patience`: how long it may say nothing.
pub fn agent_while(
    connection: File,
    trusted: RootCerts,
    channel: UnixStream,
    patience: Duration,
) -> Agent {
    client(connection, trusted, Some(Watch { channel, patience }))
}

fn client(connection: File, trusted: RootCerts, watch: Option<Watch>) -> Agent {
    let config = Config::builder()
        .tls_config(TlsConfig::builder().root_certs(trusted).build())
        .proxy(None)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .max_response_header_size(MOST_HEAD)
        .user_agent(concat!("gemmad/", env!("CARGO_PKG_VERSION")))
        .build();
    let once = Once(Arc::new(Mutex::new(Some(Way {
        file: connection,
        watch,
    }))));
    Agent::with_parts(config, once.clone().chain(RustlsConnector::default()), once)
}

/// The connection as a file: its own calls are `read` and `write`.
pub fn as_file(connection: TcpStream) -> File {
    File::from(OwnedFd::from(connection))
}

/// Whom the system trusts; where it has no list, whom browsers trusted when this was built. Reads
/// the disk.
pub fn trusted(scheme: &str) -> RootCerts {
    if scheme != "https" {
        return RootCerts::WebPki;
    }
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

/// Whether TLS says that the other side is not whom it should be.
pub fn is_distrust(error: &Error) -> bool {
    match error {
        Error::Rustls(_) => true,
        Error::Io(error) => error.kind() == io::ErrorKind::InvalidData,
        _ => false,
    }
}

/// What went wrong, after "cannot be fetched: ".
pub fn broken(error: &Error, patience: Duration) -> String {
    let what = match error {
        // What a socket says when its time is over.
        Error::Io(error)
            if matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
            ) =>
        {
            return format!("its server sends nothing for {} s", patience.as_secs());
        }
        Error::Io(inner) if is_distrust(error) => format!("its server cannot be trusted: {inner}"),
        Error::Rustls(error) => format!("its server cannot be trusted: {error}"),
        error => error.to_string(),
    };
    // Some of it may be the server's own words.
    what.escape_debug().take(MOST_WORDS).collect()
}

/// Gives the connection to the first who asks.
#[derive(Clone, Debug)]
struct Once(Arc<Mutex<Option<Way>>>);

/// The connection, and whose end is its end.
#[derive(Debug)]
struct Way {
    file: File,
    watch: Option<Watch>,
}

/// Who else is waited for: one whose end is the connection's.
#[derive(Debug)]
struct Watch {
    channel: UnixStream,
    patience: Duration,
}

impl Resolver for Once {
    /// Nothing: there is a connection already.
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        Ok(self.empty())
    }
}

impl Connector for Once {
    type Out = Connection;

    fn connect(
        &self,
        details: &ConnectionDetails,
        _: Option<()>,
    ) -> Result<Option<Connection>, Error> {
        let once = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let buffers = || {
            LazyBuffers::new(
                details.config.input_buffer_size(),
                details.config.output_buffer_size(),
            )
        };
        Ok(once.map(|Way { file, watch }| Connection {
            file,
            watch,
            buffers: buffers(),
            open: true,
        }))
    }
}

/// Ends by the socket's own time-outs.
#[derive(Debug)]
struct Connection {
    file: File,
    watch: Option<Watch>,
    buffers: LazyBuffers,
    open: bool,
}

impl Transport for Connection {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), Error> {
        Ok(self.file.write_all(&self.buffers.output()[..amount])?)
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, Error> {
        if let Some(watch) = &self.watch {
            watch.wait(&self.file)?;
        }
        let read = self.file.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(read);
        self.open = read > 0;
        Ok(self.open)
    }

    fn is_open(&mut self) -> bool {
        self.open
    }
}

impl Watch {
    /// Waits until the connection has something to read. Fails when that takes too long, or when the channel ends.
    fn wait(&self, connection: &File) -> io::Result<()> {
        let time = Timespec::try_from(self.patience).ok();
        let mut both = [
            PollFd::new(connection, PollFlags::IN),
            PollFd::new(&self.channel, PollFlags::IN),
        ];
        loop {
            match poll(&mut both, time.as_ref()) {
                Err(Errno::INTR) => {}
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Err(error) => return Err(error.into()),
                Ok(_) if !both[1].revents().is_empty() => {
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
                Ok(_) => return Ok(()),
            }
        }
    }
}
