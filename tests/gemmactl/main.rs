//! gemmactl as a user meets it: the real program against a scripted daemon on a real socket.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

mod answers;
mod commands;
mod completions;
mod interrupts;
mod refusals;
#[path = "../harness/skip.rs"]
mod skip;
mod terminal;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use skip::skip;

const GEMMACTL: &str = env!("CARGO_BIN_EXE_gemmactl");
/// Longer than anything here takes, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// One request as the daemon saw it.
struct Request {
    line: String,
    body: Value,
}

/// One connection of the scripted daemon.
struct Peer(UnixStream);

impl Peer {
    /// Sends bytes in pieces of `size`, each in a write of its own.
    fn send_split(&mut self, bytes: &[u8], size: usize) {
        for piece in bytes.chunks(size) {
            self.0.write_all(piece).unwrap();
            thread::yield_now();
        }
    }

    fn answer(&mut self, status: &str, headers: &str, body: &Value) {
        let body = body.to_string();
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\n\r\n",
            body.len()
        );
        self.send_split(format!("{head}{body}").as_bytes(), 7);
    }

    fn begin_stream(&mut self) {
        self.0.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
    }

    /// An event, cut into HTTP chunks and writes of `size` bytes.
    fn event(&mut self, data: &str, size: usize) {
        let event = format!("data: {data}\n\n");
        let chunks = event
            .as_bytes()
            .chunks(size)
            .map(|chunk| [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
        let bytes = chunks.collect::<Vec<_>>().concat();
        self.send_split(&bytes, size);
    }

    fn text(&mut self, text: &str, size: usize) {
        self.event(
            &json!({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}]})
                .to_string(),
            size,
        );
    }

    fn end_stream(&mut self) {
        self.event(
            &json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}).to_string(),
            4096,
        );
        // One write: who has read `[DONE]` may leave.
        self.0
            .write_all(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
            .unwrap();
    }

    /// A whole stream of one text.
    fn say(&mut self, text: &str) {
        self.begin_stream();
        self.text(text, 4096);
        self.end_stream();
    }

    /// Writes until the other side is gone; false when it stays.
    fn sees_the_hang_up(&mut self) -> bool {
        self.0.set_read_timeout(Some(PATIENCE)).unwrap();
        match self.0.read(&mut [0; 1]) {
            Ok(read) => read == 0,
            // Unread bytes were left when it closed.
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

/// A daemon that does what a test says, connection after connection.
struct Daemon {
    home: tempfile::TempDir,
    requests: Receiver<Request>,
    thread: thread::JoinHandle<()>,
}

impl Daemon {
    fn start(connections: usize, script: impl FnMut(usize, &mut Peer) + Send + 'static) -> Self {
        Self::serve(connections, false, script)
    }

    /// One that has every model: what a chat asks about them is answered beside the script.
    fn for_chat(connections: usize, script: impl FnMut(usize, &mut Peer) + Send + 'static) -> Self {
        Self::serve(connections, true, script)
    }

    /// `answers` questions are answered with `answer 0.` and so on.
    fn answering(answers: usize) -> Self {
        Self::for_chat(answers, |index, peer| peer.say(&format!("answer {index}.")))
    }

    fn serve(
        connections: usize,
        has_models: bool,
        mut script: impl FnMut(usize, &mut Peer) + Send + 'static,
    ) -> Self {
        let home = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(home.path().join("s")).unwrap();
        let (sender, requests) = mpsc::channel();
        let thread = thread::spawn(move || {
            let mut index = 0;
            while index < connections {
                let stream = listener.accept().unwrap().0;
                let request = receive(&stream);
                let mut peer = Peer(stream);
                if has_models && request.line.starts_with("GET /v1/models/") {
                    peer.answer("200 OK", "", &json!({"id": "tiny"}));
                    continue;
                }
                sender.send(request).unwrap();
                script(index, &mut peer);
                index += 1;
            }
        });
        Self {
            home,
            requests,
            thread,
        }
    }

    fn socket(&self) -> PathBuf {
        self.home.path().join("s")
    }

    fn command(&self, args: &[&str]) -> Command {
        command(&self.socket(), args)
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// gemmactl with all of its streams at hand.
    fn piped(&self, args: &[&str]) -> Child {
        piped(self.command(args))
    }

    /// What gemmactl does when this is typed into a pipe.
    fn run_with(&self, args: &[&str], typed: &str) -> Output {
        let mut child = self.piped(args);
        let mut input = child.stdin.take().unwrap();
        input.write_all(typed.as_bytes()).unwrap();
        drop(input);
        wait(child)
    }

    /// What gemmactl does on a terminal of this kind, where each part of
    /// `text`, with `\x1f` between them, is typed once `mark` is shown.
    fn run_on_terminal(&self, term: &str, args: &[&str], mark: &str, text: &str) -> Output {
        let mut command = Command::new("python3");
        command
            .args(["tests/gemmactl/typist.py", mark, text, GEMMACTL])
            .args(args)
            .arg("--socket")
            .arg(self.socket())
            .env("TERM", term)
            .env_remove("NO_COLOR")
            .env_remove("GEMMAD_HISTORY");
        command.output().unwrap()
    }

    /// The last words of each request for an answer, once the script is over.
    fn questions(self) -> Vec<String> {
        let last = |request: &Request| {
            let messages = request.body["messages"].as_array().unwrap();
            let content = &messages.last().unwrap()["content"];
            content.as_str().unwrap().to_owned()
        };
        self.requests().iter().map(last).collect()
    }

    /// What was asked, once the script is over.
    fn requests(self) -> Vec<Request> {
        self.thread.join().unwrap();
        self.requests.try_iter().collect()
    }
}

fn receive(stream: &UnixStream) -> Request {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).unwrap();
        if header.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = header.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    Request {
        line: line.trim().into(),
        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
    }
}

fn piped(mut command: Command) -> Child {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn command(socket: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(GEMMACTL);
    command
        .arg("--socket")
        .arg(socket)
        .args(args)
        .stdin(Stdio::null());
    for name in [
        "GEMMAD_SOCKET",
        "GEMMAD_HISTORY",
        "NO_COLOR",
        "XDG_STATE_HOME",
    ] {
        command.env_remove(name);
    }
    command
}

fn texts(output: &Output) -> (String, String, Option<i32>) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (
        text(&output.stdout),
        text(&output.stderr),
        output.status.code(),
    )
}

fn interrupt(child: &Child) {
    kill_process(Pid::from_child(child), Signal::INT).unwrap();
}

fn wait(mut child: Child) -> Output {
    wait_for("gemmactl's end", || child.try_wait().unwrap().is_some());
    child.wait_with_output().unwrap()
}

/// Asks again and again until it is so.
fn wait_for(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < end, "waited too long for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
