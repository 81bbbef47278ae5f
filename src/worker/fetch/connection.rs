//! The one connection that a fetcher has, as the HTTP client's way to its server. Its bytes are
//! moved with `read` and `write`, which a confined worker may call.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};

/// Gives the connection to the first who asks.
#[derive(Clone, Debug)]
pub struct Once(Arc<Mutex<Option<File>>>);

impl Once {
    pub fn new(connection: TcpStream) -> Self {
        Self(Arc::new(Mutex::new(Some(File::from(OwnedFd::from(
            connection,
        ))))))
    }
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
        let file = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let buffers = || {
            LazyBuffers::new(
                details.config.input_buffer_size(),
                details.config.output_buffer_size(),
            )
        };
        Ok(file.map(|file| Connection {
            file,
            buffers: buffers(),
            open: true,
        }))
    }
}

/// Ends by the socket's own time-outs.
#[derive(Debug)]
pub struct Connection {
    file: File,
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
        let read = self.file.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(read);
        self.open = read > 0;
        Ok(self.open)
    }

    fn is_open(&mut self) -> bool {
        self.open
    }
}
