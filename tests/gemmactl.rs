//! gemmactl as a user meets it: the real program against a scripted daemon on a real socket.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

#[path = "harness/skip.rs"]
mod skip;

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
    fn start(
        connections: usize,
        mut script: impl FnMut(usize, &mut Peer) + Send + 'static,
    ) -> Self {
        let home = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(home.path().join("s")).unwrap();
        let (sender, requests) = mpsc::channel();
        let thread = thread::spawn(move || {
            for index in 0..connections {
                let stream = listener.accept().unwrap().0;
                receive(&stream, &sender);
                script(index, &mut Peer(stream));
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

    /// What was asked, once the script is over.
    fn requests(self) -> Vec<Request> {
        self.thread.join().unwrap();
        self.requests.try_iter().collect()
    }
}

fn receive(stream: &UnixStream, to: &Sender<Request>) {
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
    to.send(Request {
        line: line.trim().into(),
        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
    })
    .unwrap();
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
    let end = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < end, "gemmactl does not end");
        thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

#[test]
fn an_answer_arrives_whole_however_its_bytes_are_cut() {
    for size in [1, 2, 3, 5, 64, 4096] {
        let daemon = Daemon::start(1, move |_, peer| {
            peer.begin_stream();
            peer.event(
                r#"{"choices":[{"index":0,"delta":{"role":"assistant"},"finish_reason":null}]}"#,
                size,
            );
            peer.event(
                r#"{"choices":[{"index":0,"delta":{"reasoning_content":"secret"}}]}"#,
                size,
            );
            peer.text("Grüße, ", size);
            peer.text("🌍!\n", size);
            peer.end_stream();
        });
        let output = daemon.run(&[
            "ask",
            "say",
            "hello",
            "--system",
            "Be kind.",
            "--temperature",
            "0",
            "--stop",
            "a",
            "--stop",
            "-b",
        ]);
        assert_eq!(
            texts(&output),
            ("Grüße, 🌍!\n".into(), String::new(), Some(0)),
            "pieces of {size}"
        );
        let requests = daemon.requests();
        assert_eq!(requests[0].line, "POST /v1/chat/completions HTTP/1.1");
        let expected = json!({
            "model": "auto",
            "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "say hello"}],
            "stream": true,
            "chat_template_kwargs": {"enable_thinking": false},
            "temperature": 0.0,
            "stop": ["a", "-b"],
        });
        assert_eq!(requests[0].body, expected);
    }
}

#[test]
fn text_is_shown_as_it_comes_and_the_prompt_may_come_from_a_pipe() {
    let (shown, wait_for_it) = mpsc::channel::<()>();
    let daemon = Daemon::start(1, move |_, peer| {
        peer.begin_stream();
        peer.text("first", 4096);
        wait_for_it
            .recv_timeout(PATIENCE)
            .expect("the first piece is not shown before the second comes");
        peer.text(" second", 4096);
        peer.end_stream();
    });
    let mut child = daemon
        .command(&["ask", "sum up:"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all("a\nb\n".as_bytes())
        .unwrap();
    let mut first = [0; 5];
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut first)
        .unwrap();
    assert_eq!(&first, b"first");
    shown.send(()).unwrap();
    assert_eq!(texts(&wait(child)).0, " second");
    assert_eq!(
        daemon.requests()[0].body["messages"],
        json!([{"role": "user", "content": "sum up:\n\na\nb"}])
    );
}

#[test]
fn thoughts_go_to_standard_error_when_wanted() {
    let daemon = Daemon::start(1, |_, peer| {
        peer.begin_stream();
        peer.event(r#"{"choices":[{"delta":{"reasoning_content":"hm"}}]}"#, 9);
        peer.text("yes", 9);
        peer.end_stream();
    });
    let output = daemon.run(&["ask", "well?", "--show-thoughts"]);
    assert_eq!(texts(&output), ("yes".into(), "hm\n".into(), Some(0)));
    assert_eq!(
        daemon.requests()[0].body["chat_template_kwargs"]["enable_thinking"],
        true
    );
}

#[test]
fn json_is_the_whole_response() {
    let answer = json!({"id": "x", "choices": [{"message": {"role": "assistant", "content": "hi"}}], "usage": {"total_tokens": 3}});
    let sent = answer.clone();
    let daemon = Daemon::start(1, move |_, peer| peer.answer("200 OK", "", &sent));
    let output = daemon.run(&["ask", "--json", "hello"]);
    assert_eq!(
        serde_json::from_slice::<Value>(&output.stdout).unwrap(),
        answer
    );
    assert_eq!(daemon.requests()[0].body["stream"], false);
}

#[test]
fn an_error_in_mid_stream_keeps_what_was_said_and_fails() {
    let daemon = Daemon::start(1, |_, peer| {
        peer.begin_stream();
        peer.text("half", 3);
        peer.event(r#"{"error":{"message":"the worker died\u001b[2J","type":"server_error","param":null,"code":null}}"#, 3);
        peer.0.write_all(b"0\r\n\r\n").unwrap();
    });
    let (out, err, code) = texts(&daemon.run(&["ask", "hello"]));
    assert_eq!((out.as_str(), code), ("half", Some(1)));
    assert_eq!(err, "gemmactl: the worker died[2J\n");
}

#[test]
fn an_answer_without_an_end_is_a_failure() {
    for orderly in [true, false] {
        let daemon = Daemon::start(1, move |_, peer| {
            peer.begin_stream();
            peer.text("half", 3);
            if orderly {
                peer.0.write_all(b"0\r\n\r\n").unwrap();
            }
        });
        let (out, err, code) = texts(&daemon.run(&["ask", "hello"]));
        assert_eq!((out.as_str(), code), ("half", Some(1)), "{err}");
        assert!(err.contains("broke off"), "{err}");
    }
}

#[test]
fn a_stream_that_never_ends_its_line_is_given_up() {
    let daemon = Daemon::start(1, |_, peer| {
        peer.begin_stream();
        let chunk = [b"10000\r\n".as_slice(), &[b'x'; 0x10000], b"\r\n"].concat();
        while peer.0.write_all(&chunk).is_ok() {}
    });
    let (_, err, code) = texts(&daemon.run(&["ask", "hello"]));
    assert_eq!(code, Some(1));
    assert!(err.contains("too long"), "{err}");
    daemon.requests();
}

#[test]
fn refusals_have_exit_codes() {
    let cases = [
        (
            "429 Too Many Requests",
            "retry-after: 7\r\n",
            75,
            "64 wait\ntry again in 7 s",
        ),
        ("429 Too Many Requests", "", 75, "64 wait\ntry again later"),
        (
            "503 Service Unavailable",
            "retry-after: 2\r\n",
            75,
            "try again in 2 s",
        ),
        ("503 Service Unavailable", "", 1, "gemmactl: 64 wait\n"),
        ("400 Bad Request", "", 1, "gemmactl: 64 wait\n"),
    ];
    for (status, headers, expected, message) in cases {
        let daemon = Daemon::start(1, move |_, peer| {
            peer.answer(
                status,
                headers,
                &json!({"error": {"message": "64 wait", "type": "t", "param": null, "code": null}}),
            );
        });
        let (out, err, code) = texts(&daemon.run(&["ask", "hello"]));
        assert_eq!(
            (out.as_str(), code),
            ("", Some(expected)),
            "{status}: {err}"
        );
        assert!(err.contains(message), "{status}: {err}");
    }
}

#[test]
fn without_a_daemon_every_command_says_how_to_start_it() {
    let home = tempfile::tempdir().unwrap();
    // A socket that nobody listens on any more, and none at all.
    let dead = home.path().join("dead");
    drop(UnixListener::bind(&dead).unwrap());
    for socket in [&dead, &home.path().join("none")] {
        for args in [
            &["ask", "hello"][..],
            &["status"],
            &["models"],
            &["load", "m"],
            &["unload"],
            &["memory"],
            &["cache"],
            &["cache", "clear"],
        ] {
            let (_, err, code) = texts(&command(socket, args).output().unwrap());
            assert_eq!(code, Some(69), "{args:?}: {err}");
            assert!(
                err.contains("systemctl start gemmad") && err.contains(socket.to_str().unwrap()),
                "{args:?}: {err}"
            );
        }
    }
    let from_environment = Command::new(GEMMACTL)
        .arg("status")
        .env("GEMMAD_SOCKET", &dead)
        .output()
        .unwrap();
    assert!(texts(&from_environment).1.contains(dead.to_str().unwrap()));
}

/// Needs someone who is not root: root may open everything.
#[test]
fn a_closed_socket_names_the_group_that_may() {
    let daemon = Daemon::start(0, |_, _| {});
    let open = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap()
    };
    open(daemon.home.path(), 0o755);
    open(&daemon.socket(), 0o000);
    let mut command = if rustix::process::getuid().is_root() {
        // The build directory may be closed to others, so the program goes where the socket is.
        let program = daemon.home.path().join("gemmactl");
        std::fs::copy(GEMMACTL, &program).unwrap();
        open(&program, 0o755);
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(program);
        command
    } else {
        Command::new(GEMMACTL)
    };
    let output = match command
        .arg("--socket")
        .arg(daemon.socket())
        .arg("status")
        .stdin(Stdio::null())
        .output()
    {
        Err(error) => {
            return skip(
                "a user who may not open the socket",
                format!("setpriv cannot be run: {error}"),
            );
        }
        Ok(output) => output,
    };
    let (_, err, code) = texts(&output);
    if err.starts_with("setpriv:") {
        return skip("a user who may not open the socket", err);
    }
    assert_eq!(code, Some(77), "{err}");
    assert!(
        err.contains("you may not open") && err.contains("belongs to the group"),
        "{err}"
    );
}

#[test]
fn ctrl_c_ends_ask_at_once_and_hangs_up() {
    let (gone, is_gone) = mpsc::channel();
    let daemon = Daemon::start(1, move |_, peer| {
        peer.begin_stream();
        peer.text("thinking about it", 4096);
        gone.send(peer.sees_the_hang_up()).unwrap();
    });
    let mut child = daemon
        .command(&["ask", "hello"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut [0; 8])
        .unwrap();
    let start = Instant::now();
    interrupt(&child);
    let output = wait(child);
    let took = start.elapsed();
    assert_eq!(
        (output.status.code(), output.status.signal()),
        (Some(130), None)
    );
    assert!(took < Duration::from_secs(2), "it took {took:?}");
    assert_eq!(is_gone.recv_timeout(PATIENCE), Ok(true));
}

#[test]
fn ctrl_c_ends_ask_even_when_nobody_reads_its_output() {
    let daemon = Daemon::start(1, |_, peer| {
        peer.begin_stream();
        let event = format!(
            "data: {}\n\n",
            json!({"choices": [{"delta": {"content": "x".repeat(8000)}}]})
        );
        let chunk = format!("{:x}\r\n{event}\r\n", event.len());
        while peer.0.write_all(chunk.as_bytes()).is_ok() {}
    });
    let mut child = daemon
        .command(&["ask", "hello"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // The pipe is kept open and never emptied beyond the first byte.
    let mut unread = child.stdout.take().unwrap();
    unread.read_exact(&mut [0; 1]).unwrap();
    thread::sleep(Duration::from_millis(200));
    interrupt(&child);
    assert_eq!(wait(child).status.code(), Some(130));
    daemon.requests();
}

#[test]
fn a_reader_that_leaves_ends_it_quietly() {
    let daemon = Daemon::start(1, |_, peer| {
        peer.begin_stream();
        let event = format!(
            "data: {}\n\n",
            json!({"choices": [{"delta": {"content": "line\n"}}]})
        );
        let chunk = format!("{:x}\r\n{event}\r\n", event.len());
        while peer.0.write_all(chunk.as_bytes()).is_ok() {}
    });
    let mut child = daemon
        .command(&["ask", "hello"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 5]).unwrap();
    drop(stdout);
    assert_eq!(texts(&wait(child)), (String::new(), String::new(), Some(0)));
    daemon.requests();
}

#[test]
fn timeout_gives_up() {
    let daemon = Daemon::start(1, |_, peer| assert!(peer.sees_the_hang_up()));
    let (_, err, code) = texts(&daemon.run(&["ask", "hello", "--timeout", "100ms"]));
    assert_eq!(code, Some(75), "{err}");
    assert!(err.contains("--timeout"), "{err}");
    daemon.requests();
}

#[test]
fn chat_sends_the_whole_conversation_and_remembers_only_when_told() {
    let home = tempfile::tempdir().unwrap();
    let history = home.path().join("history");
    for keep in [false, true] {
        let daemon = Daemon::start(3, |index, peer| {
            peer.begin_stream();
            peer.text(&format!("answer {index}."), 4096);
            peer.end_stream();
        });
        let mut chat = daemon.command(&["chat"]);
        chat.env("XDG_STATE_HOME", home.path())
            .env("HOME", home.path());
        if keep {
            chat.arg("--history").arg(&history);
        }
        let mut child = chat
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let typed = "/system Be brief.\nfirst \\\nline\n\"\"\"\nsecond\n/quit\n\"\"\"\n/clear\n/think on\n/model m\nthird\n/quit\nnot this\n";
        child
            .stdin
            .take()
            .unwrap()
            .write_all(typed.as_bytes())
            .unwrap();
        let (out, err, code) = texts(&wait(child));
        assert_eq!(
            (out.as_str(), code),
            ("answer 0.answer 1.answer 2.", Some(0)),
            "{err}"
        );
        let bodies: Vec<_> = daemon
            .requests()
            .into_iter()
            .map(|request| request.body)
            .collect();
        let (system, user) = (
            json!({"role": "system", "content": "Be brief."}),
            |text: &str| json!({"role": "user", "content": text}),
        );
        assert_eq!(bodies[0]["messages"], json!([system, user("first \nline")]));
        let answer = json!({"role": "assistant", "content": "answer 0."});
        assert_eq!(
            bodies[1]["messages"],
            json!([system, user("first \nline"), answer, user("second\n/quit")])
        );
        assert_eq!(bodies[2]["messages"], json!([system, user("third")]));
        assert_eq!(
            (&bodies[1]["model"], &bodies[2]["model"]),
            (&json!("auto"), &json!("m"))
        );
        assert_eq!(bodies[2]["chat_template_kwargs"]["enable_thinking"], true);
        let kept: Vec<_> = std::fs::read_dir(home.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert_eq!(kept, if keep { vec![history.clone()] } else { vec![] });
    }
    assert!(std::fs::read_to_string(&history).unwrap().contains("third"));
    assert_eq!(
        std::fs::metadata(&history).unwrap().permissions().mode() & 0o777,
        0o600
    );
}

#[test]
fn ctrl_c_in_chat_stops_the_answer_and_not_the_program() {
    let (gone, is_gone) = mpsc::channel();
    let daemon = Daemon::start(2, move |index, peer| {
        peer.begin_stream();
        peer.text("begun", 4096);
        if index == 0 {
            gone.send(peer.sees_the_hang_up()).unwrap();
        } else {
            peer.end_stream();
        }
    });
    let mut child = daemon
        .command(&["chat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"one\n").unwrap();
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut [0; 5])
        .unwrap();
    interrupt(&child);
    // The hang-up comes before the next line is typed.
    assert_eq!(is_gone.recv_timeout(PATIENCE), Ok(true));
    input.write_all(b"two\n").unwrap();
    drop(input);
    let (out, err, code) = texts(&wait(child));
    assert_eq!((out.as_str(), code), ("begun", Some(0)), "{err}");
    assert!(err.contains("(stopped)"), "{err}");
    let requests = daemon.requests();
    let expected = json!([
        {"role": "user", "content": "one"}, {"role": "assistant", "content": "begun"}, {"role": "user", "content": "two"},
    ]);
    assert_eq!(requests[1].body["messages"], expected);
}

#[test]
fn the_daemons_commands_reach_it() {
    let daemon = Daemon::start(5, |index, peer| {
        let status = json!({"state": "cold", "waiting": 0, "running": 0, "served": 5, "crashes": 0, "version": "9.9"});
        let models = json!({"object": "list", "data": [{"id": "tiny", "size": 2 << 20, "context_length": 2048, "loaded": true}]});
        peer.answer(
            "200 OK",
            "",
            &[
                status.clone(),
                status,
                models,
                json!({"id": "tiny"}),
                json!({}),
            ][index],
        );
    });
    assert!(texts(&daemon.run(&["status"])).0.contains("9.9, cold"));
    let (out, _, _) = texts(&daemon.run(&["status", "--json"]));
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["served"], 5);
    assert!(texts(&daemon.run(&["models"])).0.contains("2.0 MiB"));
    assert_eq!(
        texts(&daemon.run(&["load", "tiny"])),
        ("tiny is loaded\n".into(), String::new(), Some(0))
    );
    assert_eq!(
        texts(&daemon.run(&["unload"])),
        ("no model is loaded\n".into(), String::new(), Some(0))
    );
    let requests = daemon.requests();
    let lines: Vec<_> = requests
        .iter()
        .map(|request| request.line.strip_suffix(" HTTP/1.1").unwrap())
        .collect();
    assert_eq!(
        lines,
        [
            "GET /status",
            "GET /status",
            "GET /v1/models",
            "POST /models/load",
            "POST /models/unload"
        ]
    );
    assert_eq!(
        (&requests[3].body, &requests[4].body),
        (&json!({"model": "tiny"}), &json!({}))
    );
}

#[test]
fn config_check_names_files_and_mistakes() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("g.toml");
    let check = || {
        texts(
            &Command::new(GEMMACTL)
                .args(["config", "check", "--config"])
                .arg(&file)
                .output()
                .unwrap(),
        )
    };
    assert_eq!(check().2, Some(78));
    std::fs::write(&file, "[inference]\nslots = 3\n").unwrap();
    assert_eq!(
        check(),
        (format!("{}\nok\n", file.display()), String::new(), Some(0))
    );
    std::fs::write(&file, "[inference]\nslot = 3\n").unwrap();
    let (_, err, code) = check();
    assert_eq!(code, Some(78));
    assert!(
        err.contains("g.toml:2: unknown key `slot` in [inference]: did you mean `slots`?"),
        "{err}"
    );
}

#[test]
fn mistakes_on_the_command_line_are_usage_errors() {
    let home = tempfile::tempdir().unwrap();
    let none = home.path().join("none");
    for args in [
        &["ask"][..],
        &["nonsense"],
        &["ask", "x", "--temperature", "hot"],
        &["ask", "x", "--timeout", "soon"],
    ] {
        assert_eq!(
            command(&none, args).output().unwrap().status.code(),
            Some(2),
            "{args:?}"
        );
    }
    let long = home.path().join("x".repeat(200));
    assert_eq!(
        command(&long, &["status"]).output().unwrap().status.code(),
        Some(2)
    );
}

#[test]
fn completions_manual_and_help_are_complete() {
    let run = |args: &[&str]| texts(&Command::new(GEMMACTL).args(args).output().unwrap());
    for shell in ["bash", "zsh", "fish"] {
        let (out, err, code) = run(&["completions", shell]);
        assert!(
            code == Some(0) && out.contains("show-thoughts"),
            "{shell}: {err}"
        );
    }
    let (page, _, code) = run(&["man"]);
    assert_eq!(code, Some(0));
    let (help, ..) = run(&["--help"]);
    for code in ["69", "75", "77", "78", "130"] {
        assert!(
            help.contains(&format!("\n  {code}")),
            "{code} is not in --help: {help}"
        );
        assert!(
            page.contains(&format!("\\fB{code}\\fR")),
            "{code} is not in the manual"
        );
    }
    for name in ["GEMMAD_SOCKET", "GEMMAD_HISTORY", "NO_COLOR"] {
        assert!(page.contains(name), "{name} is not in the manual");
    }
    let home = tempfile::tempdir().unwrap();
    let pages = home.path().join("man1");
    assert_eq!(run(&["man", pages.to_str().unwrap()]).2, Some(0));
    for name in [
        "gemmactl.1",
        "gemmactl-ask.1",
        "gemmactl-chat.1",
        "gemmactl-memory.1",
        "gemmactl-cache-clear.1",
        "gemmactl-config-check.1",
    ] {
        let page = std::fs::read_to_string(pages.join(name)).unwrap();
        assert!(
            page.contains(".TH ") && page.contains("EXIT STATUS"),
            "{name}"
        );
    }
}
