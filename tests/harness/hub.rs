//! `hub.py`, a hub with TLS that has the tiny models.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::{Daemon, Options, tiny_models};

/// What the hub has.
pub const FILES: [&str; 3] = [
    "tiny-e2b-q8_0.gguf",
    "tiny-e2b-mmproj-f16.gguf",
    "tiny-e2b-mtp-q8_0.gguf",
];
pub const REPOSITORY: &str = "tiny/models";

/// `hub.py`.
pub struct Hub {
    process: Child,
    pub port: u16,
    pub folder: tempfile::TempDir,
}

impl Hub {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("files")).unwrap();
        for name in FILES {
            fs::copy(tiny_models().join(name), path("files").join(name)).unwrap();
        }
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt"])
            .args(["ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
            .args(["-subj", "/CN=a hub of gemmad's tests"])
            .args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .arg("-keyout")
            .arg(path("pair.pem"))
            .arg("-out")
            .arg(path("trusted.pem"))
            .output()
            .unwrap();
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
        let pair = fs::read_to_string(path("pair.pem")).unwrap()
            + &fs::read_to_string(path("trusted.pem")).unwrap();
        fs::write(path("pair.pem"), pair).unwrap();
        let mut process = Command::new("python3")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hub.py"))
            .arg(path("files"))
            .arg(path("pair.pem"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        Self {
            process,
            port: line.trim().parse().unwrap(),
            folder,
        }
    }

    pub fn at(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.port)
    }

    /// By another name than the hub's own, at which it is an address like others.
    pub fn file(&self, name: &str) -> String {
        format!("https://127.0.0.1:{}/files/{name}", self.port)
    }

    /// Another file of the same model, and its address.
    pub fn add(&self, name: &str) -> String {
        let files = self.folder.path().join("files");
        fs::copy(files.join(FILES[0]), files.join(name)).unwrap();
        self.file(name)
    }

    pub fn curl(&self, arguments: &[&str]) -> String {
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--fail", "--cacert"])
            .arg(self.folder.path().join("trusted.pem"))
            .args(arguments)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn behave(&self, how: Value) {
        self.curl(&["--data", &how.to_string(), &self.at("/behave")]);
    }

    /// What it was asked for since it was told how to behave.
    pub fn seen(&self) -> Vec<Value> {
        serde_json::from_str(&self.curl(&[&self.at("/seen")])).unwrap()
    }

    pub fn daemon(&self, models: &Path, keys: &str) -> Daemon {
        let trusted = self.trusted();
        Daemon::with_environment(self.options(models, keys), &[("SSL_CERT_FILE", &trusted)])
    }

    /// The file with the hub's certificate, for `SSL_CERT_FILE`.
    pub fn trusted(&self) -> String {
        self.folder.path().join("trusted.pem").display().to_string()
    }

    /// Of a daemon that downloads from this hub; `keys` are more lines of `[pull]`.
    pub fn options(&self, models: &Path, keys: &str) -> Options {
        Options {
            models: models.to_owned(),
            limits: self.keys() + keys,
            ..Options::default()
        }
    }

    /// `[pull]` of a daemon that downloads from this hub, which moves files to another name of its own.
    pub fn keys(&self) -> String {
        format!(
            "[pull]\nhub = \"{}\"\nproxy = \"none\"\nredirect-to = [\"127.0.0.0/8\"]\n",
            self.at("")
        )
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
