//! A real gateway, and what stands behind it: a real daemon, or a witness of what is passed on.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::skip::skip;
use super::{Daemon, Options, PATIENCE, wait_for};

/// A user that nobody is.
pub const GATEWAY_USER: u32 = 64_123;

pub struct Gateway {
    pub dir: tempfile::TempDir,
    pub process: Child,
    pub port: u16,
}

impl Gateway {
    /// Before this socket; `user`: the user that it runs as, if it is another.
    pub fn start(socket: &Path, more: &str, user: Option<u32>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tls = dir.path().join("tls");
        let made = Command::new(env!("CARGO_BIN_EXE_gemmad-gateway"))
            .arg(format!("--self-signed={}", tls.display()))
            .output()
            .unwrap();
        let told = String::from_utf8(made.stdout).unwrap();
        assert!(made.status.success() && told.contains("SHA-256 "), "{told}");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let config = format!(
            "listen = [\"127.0.0.1:0\"]\nsocket = \"{}\"\ncertificate = \"{tls}/cert.pem\"\nkey = \"{tls}/key.pem\"\n{more}",
            socket.display(),
            tls = tls.display()
        );
        fs::write(dir.path().join("gateway.toml"), config).unwrap();
        let program = env!("CARGO_BIN_EXE_gemmad-gateway");
        let mut command = match user {
            None => Command::new(program),
            Some(user) => {
                std::os::unix::fs::chown(tls.join("key.pem"), Some(user), None).unwrap();
                let mut command = Command::new("setpriv");
                command.args([
                    format!("--reuid={user}"),
                    format!("--regid={user}"),
                    "--clear-groups".to_owned(),
                    program.to_owned(),
                ]);
                command
            }
        };
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let process = command
            .arg("--config")
            .arg(dir.path().join("gateway.toml"))
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut gateway = Self {
            dir,
            process,
            port: 0,
        };
        wait_for("the gateway's socket", || {
            let ended = gateway.process.try_wait().unwrap();
            assert!(ended.is_none(), "{}", gateway.log());
            let log = gateway.log();
            let port = log.split("address=127.0.0.1:").nth(1);
            let port = port.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
            gateway.port = port.unwrap_or(0);
            gateway.port != 0
        });
        gateway
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    pub fn certificate(&self) -> PathBuf {
        self.dir.path().join("tls/cert.pem")
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.port)
    }

    /// A connection over TLS that speaks this protocol.
    pub fn connect(&self, protocol: &[u8]) -> StreamOwned<ClientConnection, TcpStream> {
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from_pem_file(self.certificate()).unwrap();
        roots.add(certificate).unwrap();
        let mut config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        let name = "localhost".try_into().unwrap();
        let tls = ClientConnection::new(Arc::new(config), name).unwrap();
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        StreamOwned::new(tls, stream)
    }

    /// What is answered to these bytes, until the gateway hangs up or has answered once.
    pub fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect(b"http/1.1");
        stream.write_all(bytes).unwrap();
        let mut answer = vec![];
        let mut buffer = [0; 4096];
        let head_ended = |answer: &[u8]| answer.windows(4).any(|four| four == b"\r\n\r\n");
        while !head_ended(&answer) {
            match stream.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(read) => answer.extend(&buffer[..read]),
            }
        }
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Status and body of curl's answer.
    pub fn curl(&self, path: &str, options: &[&str]) -> (u16, String) {
        let output = Command::new("curl")
            .args(["-sS", "--noproxy", "*", "-w", "\n%{http_code}", "--cacert"])
            .arg(self.certificate())
            .args(options)
            .arg(self.url(path))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, status) = text.rsplit_once('\n').unwrap_or(("", "0"));
        assert_ne!(status, "000", "{}", String::from_utf8_lossy(&output.stderr));
        (status.parse().unwrap(), body.to_owned())
    }

    /// Kibibytes of its memory, as the kernel shares them out.
    pub fn pss(&self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.process.id())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
        line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok())
            .unwrap()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("--- the gateway's log:\n{}", self.log());
        }
    }
}

/// In the daemon's place: keeps what reaches it, and answers with 200.
pub struct Witness {
    pub socket: PathBuf,
    pub seen: Arc<Mutex<Vec<String>>>,
    /// Each request of `/slow` waits for one before its second event.
    pub go_on: std::sync::mpsc::Sender<()>,
    _dir: tempfile::TempDir,
}

impl Witness {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("api.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let seen = Arc::new(Mutex::new(vec![]));
        let (go_on, waits) = channel();
        let (kept, waits) = (seen.clone(), Arc::new(Mutex::new(waits)));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (kept, waits) = (kept.clone(), waits.clone());
                std::thread::spawn(move || attend(stream.unwrap(), &kept, &waits));
            }
        });
        Self {
            socket,
            seen,
            go_on,
            _dir: dir,
        }
    }

    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

/// One connection: everything that it brings is one text.
fn attend(mut stream: UnixStream, seen: &Mutex<Vec<String>>, waits: &Mutex<Receiver<()>>) {
    let (mut text, mut buffer) = (vec![], [0; 65536]);
    let complete = |text: &[u8]| {
        let text = String::from_utf8_lossy(text).to_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            return false;
        };
        let length = head.split("content-length: ").nth(1);
        let length = length.map(|rest| rest.lines().next().unwrap().parse().unwrap());
        match length {
            Some(length) => body.len() >= length,
            None => !head.contains("transfer-encoding") || body.ends_with("0\r\n\r\n"),
        }
    };
    while !complete(&text) {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(read) => text.extend(&buffer[..read]),
        }
    }
    let text = String::from_utf8_lossy(&text).into_owned();
    let slow = text.starts_with("GET /slow ");
    // What is left in a connection, and what is not whole, is seen as well.
    seen.lock().unwrap().push(text);
    if !slow {
        let _ = stream.write_all(
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close, x-private\r\nx-private: 1\r\nx-request-id: r\r\n\r\nok",
        );
        return;
    }
    let head =
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-type: text/event-stream\r\n\r\n";
    stream.write_all(head).unwrap();
    for event in ["data: 1\n\n", "data: 2\n\n"] {
        let chunk = format!("{:x}\r\n{event}\r\n", event.len());
        let _ = stream.write_all(chunk.as_bytes());
        let _ = waits.lock().unwrap().recv_timeout(PATIENCE);
    }
    let _ = stream.write_all(b"0\r\n\r\n");
}

/// A daemon and a gateway of another user before it; `None` where only one user can be had.
pub fn both(more: &str) -> Option<(Daemon, Gateway)> {
    both_with(Options::default(), more)
}

/// The same, of a daemon with these options. `more`: lines for gateway.toml.
pub fn both_with(options: Options, more: &str) -> Option<(Daemon, Gateway)> {
    if !rustix::process::geteuid().is_root() {
        skip(
            "the gateway with the daemon",
            "only root can start it as another user",
        );
        return None;
    }
    let daemon = Daemon::with(Options {
        server: format!("socket-mode = \"0666\"\n{}", options.server),
        access: format!("gateway = \"{GATEWAY_USER}\"\n{}", options.access),
        ..options
    });
    fs::set_permissions(daemon.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let gateway = Gateway::start(&daemon.socket, more, Some(GATEWAY_USER));
    Some((daemon, gateway))
}

pub fn gemmactl(daemon: &Daemon, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_gemmactl"))
        .arg("--socket")
        .arg(&daemon.socket)
        .args(arguments)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {told}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A frame of HTTP/2.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}
