//! A real daemon in a private directory, and a small HTTP client for its socket.

#![allow(dead_code, reason = "each test file uses its own part")]

pub mod cgroup;
pub mod gateway;
pub mod hub;
pub mod parts;
pub mod pdf;
pub mod skip;
pub mod users;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Nothing that a test waits for takes longer on a machine that works.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub const TINY: &str = "tiny-e2b-q8_0";
/// The one whose pictures and sounds go into the model itself, without an encoder.
pub const UNIFIED: &str = "tiny-12b-q8_0";

/// A copy of the worker in `bin`, and beside it in `lib/gemmad` those of its libraries, by file name,
/// that are wanted: of a build with the feature `cpu-variants`.
pub fn installed_worker(is_wanted: impl Fn(&str) -> bool) -> tempfile::TempDir {
    let prefix = tempfile::tempdir().unwrap();
    let [bin, lib] = ["bin", "lib/gemmad"].map(|name| prefix.path().join(name));
    let worker = Path::new(env!("CARGO_BIN_EXE_gemmad-worker"));
    fs::create_dir_all(&bin).unwrap();
    fs::create_dir_all(&lib).unwrap();
    fs::copy(worker, bin.join("gemmad-worker")).unwrap();
    for entry in fs::read_dir(worker.with_file_name("../lib/gemmad")).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if is_wanted(&name) {
            fs::copy(entry.path(), lib.join(name)).unwrap();
        }
    }
    prefix
}

/// The folder of the models that ship with the project.
pub fn tiny_models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny")
}

/// A running daemon; killed, worker and all, at the end of its test.
pub struct Daemon {
    pub dir: tempfile::TempDir,
    pub process: Child,
    pub socket: PathBuf,
}

/// What a test wants different from the usual.
pub struct Options {
    /// More lines for gemmad.toml, in their tables.
    pub server: String,
    pub models: PathBuf,
    pub models_keys: String,
    pub inference: String,
    pub memory: String,
    pub limits: String,
    pub access: String,
    pub audit: String,
    /// A program that starts the daemon, with its arguments.
    pub starter: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        let (server, models_keys, inference, memory, limits, access, audit) = Default::default();
        Self {
            server,
            models: tiny_models(),
            models_keys,
            inference,
            memory,
            limits,
            access,
            audit,
            starter: vec![],
        }
    }
}

impl Daemon {
    pub fn start() -> Self {
        Self::with(Options::default())
    }

    pub fn with(options: Options) -> Self {
        Self::with_environment(options, &[])
    }

    pub fn with_environment(options: Options, environment: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("api.sock");
        write_config(dir.path(), &options);
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let mut program = options.starter.iter();
        let gemmad = env!("CARGO_BIN_EXE_gemmad");
        let mut command = match program.next() {
            Some(starter) => Command::new(starter),
            None => Command::new(gemmad),
        };
        if !options.starter.is_empty() {
            command.args(program).arg(gemmad);
        }
        let process = command
            .arg("--config")
            .arg(dir.path().join("gemmad.toml"))
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut daemon = Self {
            dir,
            process,
            socket,
        };
        daemon.wait_until_it_serves();
        daemon
    }

    fn wait_until_it_serves(&mut self) {
        wait_for("the daemon's socket", || {
            assert!(
                self.process.try_wait().unwrap().is_none(),
                "the daemon ended:\n{}",
                self.log()
            );
            self.try_get("/version").is_some()
        });
    }

    /// Ends it with this signal and starts it again, in the same directory.
    pub fn restart(&mut self, signal: &str) {
        self.signal(signal);
        self.wait();
        let log = fs::OpenOptions::new()
            .append(true)
            .open(self.dir.path().join("log"))
            .unwrap();
        self.process = Command::new(env!("CARGO_BIN_EXE_gemmad"))
            .arg("--config")
            .arg(self.config())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.wait_until_it_serves();
    }

    pub fn config(&self) -> PathBuf {
        self.dir.path().join("gemmad.toml")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    pub fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn try_get(&self, path: &str) -> Option<Reply> {
        let mut stream = UnixStream::connect(&self.socket).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream.write_all(head("GET", path, 0).as_bytes()).ok()?;
        Reply::read(stream).ok()
    }

    pub fn get(&self, path: &str) -> Reply {
        self.try_get(path)
            .unwrap_or_else(|| panic!("GET {path}: no answer:\n{}", self.log()))
    }

    pub fn post(&self, path: &str, body: &Value) -> Reply {
        self.post_raw(path, body.to_string().as_bytes())
    }

    pub fn post_raw(&self, path: &str, body: &[u8]) -> Reply {
        let stream = self.send(path, body);
        Reply::read(stream).unwrap_or_else(|e| panic!("POST {path}: {e}:\n{}", self.log()))
    }

    /// A body of another type than JSON.
    pub fn post_as(&self, path: &str, media: &str, body: &[u8]) -> Reply {
        let mut stream = self.connect();
        stream
            .write_all(
                head("POST", path, body.len())
                    .replace("application/json", media)
                    .as_bytes(),
            )
            .unwrap();
        let _ = stream.write_all(body);
        Reply::read(stream).unwrap_or_else(|e| panic!("POST {path}: {e}:\n{}", self.log()))
    }

    pub fn delete(&self, path: &str) -> Reply {
        let mut stream = self.connect();
        stream
            .write_all(head("DELETE", path, 0).as_bytes())
            .unwrap();
        Reply::read(stream).unwrap_or_else(|e| panic!("DELETE {path}: {e}:\n{}", self.log()))
    }

    /// Sends a request and leaves the reading to the caller.
    pub fn send(&self, path: &str, body: &[u8]) -> UnixStream {
        let mut stream = self.connect();
        stream
            .write_all(head("POST", path, body.len()).as_bytes())
            .unwrap();
        // A server that refuses a large body may close before it has read all of it.
        let _ = stream.write_all(body);
        stream
    }

    /// A whole chat answer.
    pub fn chat(&self, body: &Value) -> Reply {
        self.post("/v1/chat/completions", body)
    }

    /// A short answer to a message of several parts.
    pub fn shown(&self, model: &str, content: Value) -> Reply {
        self.chat(&json!({"model": model, "messages": [{"role": "user", "content": content}], "temperature": 0, "max_tokens": 40}))
    }

    /// The events of a streamed chat answer, as they come.
    pub fn stream(&self, body: &Value) -> Events {
        let mut body = body.clone();
        body["stream"] = json!(true);
        Events::read(self.send("/v1/chat/completions", body.to_string().as_bytes()))
    }

    /// What a user who is nobody's administrator is answered, as far as it fits into 4096 bytes.
    /// The socket must be open to everybody. `None` where this test cannot become another user.
    pub fn ask_as_stranger(&self, method: &str, path: &str, body: &str) -> Option<String> {
        if !rustix::process::geteuid().is_root() {
            skip::skip(
                "what a stranger is answered",
                "only root can become another user",
            );
            return None;
        }
        fs::set_permissions(
            self.dir.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )
        .unwrap();
        let script = "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.sendall(sys.argv[2].encode()); print(s.recv(4096).decode())";
        let output = Command::new("setpriv")
            .args([
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
                "/usr/bin/python3",
                "-c",
                script,
            ])
            .arg(&self.socket)
            .arg(head(method, path, body.len()) + body)
            .current_dir("/")
            .output()
            .unwrap();
        let answer = String::from_utf8_lossy(&output.stdout).into_owned();
        Some(answer + &String::from_utf8_lossy(&output.stderr))
    }

    pub fn status(&self) -> Value {
        self.get("/status").json()
    }

    /// Loads the model, and returns the worker's pid.
    pub fn load(&self) -> u32 {
        let reply = self.post("/models/load", &json!({"model": "auto"}));
        assert_eq!(reply.status, 200, "{}", reply.text());
        self.status()["pid"].as_u64().unwrap() as u32
    }

    /// Waits until the daemon has left by itself.
    pub fn wait(&mut self) -> std::process::ExitStatus {
        let mut status = None;
        wait_for("the daemon's end", || {
            status = self.process.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // The worker ends with its socket.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("--- the daemon's log:\n{}", self.log());
        }
    }
}

pub fn write_config(dir: &Path, options: &Options) {
    let Options {
        server,
        models,
        models_keys,
        inference,
        memory,
        limits,
        access,
        audit,
        ..
    } = options;
    // The largest that fits would be another member of the family.
    let chosen = *models == tiny_models() && !models_keys.contains("default");
    let default = if chosen {
        format!("default = \"{TINY}\"\n")
    } else {
        String::new()
    };
    // Root does not use model files of others, unless they are administrators.
    let owner =
        fs::metadata(models).map_or(0, |models| std::os::unix::fs::MetadataExt::uid(&models));
    let trusted = owner == 0 || owner == rustix::process::geteuid().as_raw();
    let admins = if trusted || access.contains("admins") {
        String::new()
    } else {
        format!("admins = [\"{owner}\"]\n")
    };
    let text = format!(
        "[server]\nsocket = \"{dir}/api.sock\"\n{bus}{server}\n[models]\ndirectories = [\"{models}\"]\n{default}{models_keys}\n[inference]\n{context}{inference}\n[memory]\ncache-directory = \"{dir}/cache\"\nprompt-cache-key = \"{dir}/prompt-cache.key\"\n{memory}\n[limits]\n{limits}\n[access]\ntoken-file = \"{dir}/tokens.json\"\n{admins}{access}\n{log}[audit]\nusage-file = \"{dir}/usage.json\"\n{audit}",
        dir = dir.display(),
        log = if audit.contains("[log]") {
            ""
        } else {
            "[log]\nlevel = \"debug\"\n"
        },
        // The machine's own bus is none of a test's business.
        bus = if server.contains("dbus") {
            ""
        } else {
            "dbus = \"none\"\n"
        },
        models = models.display(),
        context = if inference.contains("context") {
            ""
        } else {
            "context = 2048\n"
        },
    );
    fs::write(dir.join("gemmad.toml"), text).unwrap();
}

pub fn signal(pid: u32, name: &str) {
    let ended = Command::new("kill")
        .args([&format!("-{name}"), &pid.to_string()])
        .status()
        .unwrap();
    assert!(ended.success(), "kill -{name} {pid}");
}

/// Asks again and again until it is so.
pub fn wait_for(what: &str, mut so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < PATIENCE, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A chat request with one question, answered the same way each time.
pub fn question(text: &str) -> Value {
    json!({"model": "auto", "messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": 200})
}

/// A request whose answer goes on until it is stopped.
pub fn endless() -> Value {
    let mut body = question("What is the capital of France?");
    body["ignore_eos"] = json!(true);
    // Or it would be at its end soon: much of it repeats itself.
    body["speculation"] = json!("off");
    body["temperature"] = json!(1.0);
    body["max_tokens"] = json!(1900);
    body
}

fn head(method: &str, path: &str, length: usize) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    )
}

/// A whole HTTP response.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn read(stream: UnixStream) -> std::io::Result<Self> {
        let mut reader = BufReader::new(stream);
        let (status, headers) = read_head(&mut reader)?;
        let mut body = Vec::new();
        if chunked(&headers) {
            while let Some(chunk) = read_chunk(&mut reader)? {
                body.extend(chunk);
            }
        } else {
            let length = headers
                .iter()
                .find(|(name, _)| name == "content-length")
                .and_then(|(_, v)| v.parse().ok());
            reader
                .take(length.unwrap_or(u64::MAX))
                .read_to_end(&mut body)?;
        }
        Ok(Self {
            status,
            headers,
            body,
        })
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    /// The answer's text.
    pub fn content(&self) -> String {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()["choices"][0]["message"]["content"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// Of a request that is not what it should be: the error's code, the field that is named, and
    /// what is said of it.
    pub fn refusal(&self) -> (String, String, String) {
        assert_eq!(self.status, 400, "{}", self.text());
        let error = &self.json()["error"];
        let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
        (text("code"), text("param"), text("message"))
    }

    /// The error's message.
    pub fn error(&self) -> String {
        self.json()["error"]["message"]
            .as_str()
            .unwrap_or_else(|| panic!("no error: {}", self.text()))
            .to_owned()
    }
}

/// A stream of server-sent events, as their data; comments are passed over.
pub struct Events {
    pub status: u16,
    reader: BufReader<UnixStream>,
    buffer: String,
}

impl Events {
    pub fn read(stream: UnixStream) -> Self {
        let mut reader = BufReader::new(stream);
        let (status, headers) = read_head(&mut reader).unwrap();
        assert!(chunked(&headers), "{status} {headers:?}");
        Self {
            status,
            reader,
            buffer: String::new(),
        }
    }

    /// The pieces of text until the end, and how it ended: `Ok` with `[DONE]`, `Err` with an
    /// error's message or without a word.
    pub fn text(self) -> (String, Result<(), String>) {
        let mut text = String::new();
        for data in self {
            if data == "[DONE]" {
                return (text, Ok(()));
            }
            let chunk: Value = serde_json::from_str(&data).unwrap();
            if let Some(message) = chunk["error"]["message"].as_str() {
                return (text, Err(message.to_owned()));
            }
            text += chunk["choices"][0]["delta"]["content"]
                .as_str()
                .unwrap_or_default();
        }
        (text, Err(String::new()))
    }
}

impl Iterator for Events {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.find("\n\n") {
                let event: String = self.buffer.drain(..end + 2).collect();
                let is_comment = event.starts_with(':');
                let data = event.lines().find_map(|line| line.strip_prefix("data: "));
                match data {
                    Some(data) => return Some(data.to_owned()),
                    None => assert!(is_comment, "an event with data: {event}"),
                }
                continue;
            }
            let chunk = read_chunk(&mut self.reader).ok()??;
            self.buffer += std::str::from_utf8(&chunk).expect("whole characters");
        }
    }
}

fn read_head(reader: &mut impl BufRead) -> std::io::Result<(u16, Vec<(String, String)>)> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let status = lines[0]
        .split(' ')
        .nth(1)
        .and_then(|s| s.parse().ok())
        .expect("a status line");
    let header = |line: &String| {
        line.split_once(": ")
            .map(|(n, v)| (n.to_ascii_lowercase(), v.to_owned()))
    };
    Ok((status, lines[1..].iter().filter_map(header).collect()))
}

fn chunked(headers: &[(String, String)]) -> bool {
    headers
        .iter()
        .any(|(name, value)| name == "transfer-encoding" && value == "chunked")
}

fn read_chunk(reader: &mut impl BufRead) -> std::io::Result<Option<Vec<u8>>> {
    let mut size = String::new();
    if reader.read_line(&mut size)? == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    let size = usize::from_str_radix(size.trim(), 16).map_err(std::io::Error::other)?;
    let mut chunk = vec![0; size + 2];
    reader.read_exact(&mut chunk)?;
    chunk.truncate(size);
    Ok((size > 0).then_some(chunk))
}

/// One number of `/proc/PID/FILE`, in KiB.
pub fn proc_kib(pid: u32, file: &str, field: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .unwrap_or_else(|| panic!("{field} in {file}"));
    line.trim_start_matches(':')
        .split_whitespace()
        .next()
        .unwrap()
        .parse()
        .unwrap()
}

/// Open descriptors of a process.
pub fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}
