//! Requests that another machine answers: a second daemon with a real model, and a service that does
//! what a test tells it to.

mod harness;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harness::gateway::{Gateway, both_with, gemmactl};
use harness::skip::skip;
use harness::{Daemon, Options, question, wait_for};
use serde_json::{Value, json};

const FRANCE: &str = "What is the capital of France?";
const PARIS: &str = "The capital of France is Paris.";
const THEIRS: &str = "tiny-31b-q4_0";
/// How long a test waits for what should come at once.
const PATIENCE: Duration = Duration::from_secs(30);

/// A daemon whose upstream is at this address. `keys`: more of its table.
fn daemon_with(address: SocketAddr, keys: &str, options: Options) -> Daemon {
    let upstream = format!(
        "[[upstream]]\nname = \"other\"\nurl = \"http://{address}/v1\"\nretention = \"any\"\n{keys}\n"
    );
    Daemon::with(Options {
        access: format!("{}\n{upstream}", options.access),
        ..options
    })
}

/// Serves a Unix socket at a port of this machine, as an upstream has one.
fn at_a_port(socket: PathBuf) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let Ok(inner) = UnixStream::connect(&socket) else {
                return;
            };
            let (mut from, mut to) = (stream.try_clone().unwrap(), inner.try_clone().unwrap());
            thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(std::net::Shutdown::Both);
            });
            let (mut from, mut to) = (inner, stream);
            thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    address
}

/// A folder without a model.
fn no_models() -> (tempfile::TempDir, Options) {
    let folder = tempfile::tempdir().unwrap();
    let models = folder.path().to_owned();
    (
        folder,
        Options {
            models,
            ..Options::default()
        },
    )
}

fn asked(model: &str) -> Value {
    let mut body = question(FRANCE);
    body["model"] = json!(model);
    body
}

#[test]
fn another_daemons_model_is_asked_for_by_name_at_every_door() {
    let other = Daemon::start();
    let address = at_a_port(other.socket.clone());
    let names = format!("models = [\"far={THEIRS}\", \"seeing=tiny-e2b-q8_0\"]\nusers = [\"*\"]");
    let daemon = daemon_with(address, &names, Options::default());
    let whole = daemon.chat(&asked("far"));
    assert_eq!(whole.content(), PARIS);
    assert_eq!(whole.header("x-gemmad-backend"), Some("other"));
    let body = whole.json();
    assert_eq!(body["model"], format!("other/{THEIRS}"));
    assert!(body["usage"]["prompt_tokens"].as_u64() > Some(5), "{body}");
    let (text, end) = daemon.stream(&asked("far")).text();
    assert_eq!((text.as_str(), end), (PARIS, Ok(())));
    // A model of this machine stays here.
    let here = daemon.chat(&question(FRANCE));
    assert_eq!(
        (here.content().as_str(), here.header("x-gemmad-backend")),
        (PARIS, None)
    );

    let message = json!({"model": "far", "max_tokens": 40, "temperature": 0, "messages": [{"role": "user", "content": FRANCE}]});
    let reply = daemon.post("/v1/messages", &message);
    assert_eq!(
        reply.json()["content"][0]["text"],
        PARIS,
        "{}",
        reply.text()
    );
    let reply = daemon.post(
        "/v1/responses",
        &json!({"model": "far", "input": FRANCE, "temperature": 0}),
    );
    assert_eq!(
        reply.json()["output"][0]["content"][0]["text"],
        PARIS,
        "{}",
        reply.text()
    );
    let reply = daemon.post("/api/chat", &json!({"model": "far", "stream": false, "options": {"temperature": 0}, "messages": [{"role": "user", "content": FRANCE}]}));
    assert_eq!(
        reply.json()["message"]["content"],
        PARIS,
        "{}",
        reply.text()
    );

    // The picture goes there as it came.
    let red = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/pictures/red-circle.png");
    let picture = format!(
        "data:image/png;base64,{}",
        STANDARD.encode(std::fs::read(red).unwrap())
    );
    let parts = json!([{"type": "text", "text": "What is in this picture?"}, {"type": "image_url", "image_url": {"url": picture}}]);
    let (here, there) = (
        daemon.shown("tiny-e2b-q8_0", parts.clone()),
        daemon.shown("seeing", parts),
    );
    assert_eq!(there.status, 200, "{}", there.text());
    assert_eq!(there.content(), here.content());

    let listed = daemon.get("/v1/models").json();
    let listed = listed["data"].as_array().unwrap().iter();
    let far: Vec<_> = listed
        .filter(|model| model["owned_by"] == "other")
        .map(|model| &model["id"])
        .collect();
    assert_eq!(far, ["far", "seeing"]);
    let status = &daemon.status()["upstreams"][0];
    assert_eq!(
        (&status["served"], &status["failed"]),
        (&json!(6), &json!(0)),
        "{status}"
    );
    // Nothing can be counted that only the upstream knows.
    let count = daemon.post("/v1/messages/count_tokens", &message);
    assert_eq!(count.status, 400, "{}", count.text());
    assert!(
        count.text().contains("a model of an upstream"),
        "{}",
        count.text()
    );
}

#[test]
fn a_call_of_a_function_comes_from_elsewhere_as_from_here() {
    let other = Daemon::start();
    let address = at_a_port(other.socket.clone());
    let daemon = daemon_with(
        address,
        &format!("models = [\"far={THEIRS}\"]\nusers = [\"*\"]"),
        Options::default(),
    );
    let call = |model: &str| {
        let reply = daemon.chat(&json!({
            "model": model, "temperature": 0, "max_tokens": 60, "tool_choice": "required",
            "messages": [{"role": "user", "content": "Turn on the light in the kitchen."}],
            "tools": [{"type": "function", "function": {"name": "set_light", "parameters": {
                "type": "object", "required": ["room", "state"],
                "properties": {"room": {"type": "string"}, "state": {"enum": ["on", "off"]}}}}}],
        }));
        assert_eq!(reply.status, 200, "{}", reply.text());
        let choice = reply.json()["choices"][0].clone();
        (
            choice["finish_reason"].clone(),
            choice["message"]["tool_calls"][0]["function"].clone(),
        )
    };
    let (here, there) = (call(THEIRS), call("far"));
    assert_eq!(here, there);
    assert_eq!(there.1["name"], "set_light");
}

#[test]
fn what_nothing_here_can_answer_is_answered_elsewhere() {
    let other = Daemon::start();
    let address = at_a_port(other.socket.clone());
    let (_folder, options) = no_models();
    let keys = format!("models = [\"auto={THEIRS}\"]\nusers = [\"*\"]\nfailover = true");
    let daemon = daemon_with(address, &keys, options);
    let reply = daemon.chat(&asked("auto"));
    assert_eq!(
        (reply.content().as_str(), reply.header("x-gemmad-backend")),
        (PARIS, Some("other"))
    );
    let (text, end) = daemon.stream(&asked("auto")).text();
    assert_eq!((text.as_str(), end), (PARIS, Ok(())));
    // Of what nobody has named nothing leaves.
    let unknown = daemon.chat(&asked("something-else"));
    assert!(unknown.status >= 400 && unknown.header("x-gemmad-backend").is_none());
}

#[test]
fn who_is_not_named_learns_of_no_upstream() {
    let service = Service::start();
    let (_folder, mut options) = no_models();
    options.server = "socket-mode = \"0666\"".to_owned();
    let keys = "models = [\"far\", \"auto\"]\nusers = [\"root\"]\nfailover = true";
    let daemon = daemon_with(service.address, keys, options);
    for model in ["far", "auto"] {
        let body = asked(model).to_string();
        let Some(answer) = daemon.ask_as_stranger("POST", "/v1/chat/completions", &body) else {
            return;
        };
        assert!(answer.contains("503") || answer.contains("404"), "{answer}");
    }
    let listed = daemon.ask_as_stranger("GET", "/v1/models", "").unwrap();
    assert!(
        listed.contains("200 OK") && !listed.contains("far"),
        "{listed}"
    );
    assert!(
        service.seen.try_recv().is_err(),
        "something left the machine"
    );
}

/// A service that answers each connection with the next of what it is told.
struct Service {
    address: SocketAddr,
    answers: mpsc::Sender<Answer>,
    /// What was asked.
    seen: mpsc::Receiver<String>,
    /// A connection ended before its answer did.
    hung_up: mpsc::Receiver<()>,
}

enum Answer {
    /// And then it closes the connection.
    Text(String),
    /// And then it says nothing any more.
    Silence(String),
}

impl Service {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (answers, next) = mpsc::channel();
        let (ask, seen) = mpsc::channel();
        let (hang_up, hung_up) = mpsc::channel();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = ask.send(request(&mut stream));
                let Ok(answer) = next.recv_timeout(PATIENCE) else {
                    return;
                };
                match answer {
                    Answer::Text(text) => {
                        let _ = stream.write_all(text.as_bytes());
                    }
                    Answer::Silence(text) => {
                        let _ = stream.write_all(text.as_bytes());
                        let hang_up = hang_up.clone();
                        thread::spawn(move || {
                            if matches!(stream.read(&mut [0]), Ok(0) | Err(_)) {
                                let _ = hang_up.send(());
                            }
                        });
                    }
                }
            }
        });
        Self {
            address,
            answers,
            seen,
            hung_up,
        }
    }

    fn then(&self, status: &str, body: &str) -> &Self {
        self.answers
            .send(Answer::Text(whole(status, body)))
            .unwrap();
        self
    }
}

/// Reads one request, head and body.
fn request(stream: &mut TcpStream) -> String {
    let (mut text, mut piece) = (String::new(), [0; 4096]);
    loop {
        let read = stream.read(&mut piece).unwrap_or(0);
        text.push_str(&String::from_utf8_lossy(&piece[..read]));
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            if read == 0 {
                return text;
            }
            continue;
        };
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse::<usize>().ok())?
        });
        if read == 0 || body.len() >= length.unwrap_or(0) {
            return text;
        }
    }
}

fn whole(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn chunk(text: &str) -> String {
    format!(
        "data: {}\n\n",
        json!({"choices": [{"index": 0, "delta": {"content": text}}]})
    )
}

fn answer(text: &str) -> String {
    let end = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]});
    format!("{}data: {end}\n\ndata: [DONE]\n\n", chunk(text))
}

#[test]
fn a_service_that_fails_is_asked_again_until_it_has_begun() {
    let service = Service::start();
    let key = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(key.path(), "sk-secret\n").unwrap();
    let (_folder, options) = no_models();
    let keys = format!(
        "models = [\"far=google/far\"]\nusers = [\"*\"]\nretries = 2\nkey-file = \"{}\"",
        key.path().display()
    );
    let daemon = daemon_with(service.address, &keys, options);
    service
        .then("503 Service Unavailable", "{}")
        .then("429 Too Many Requests", "{}")
        .then("200 OK", &answer("Hello"));
    let reply = daemon.chat(&asked("far"));
    assert_eq!(reply.content(), "Hello");
    let seen: Vec<_> = service.seen.try_iter().collect();
    assert_eq!(seen.len(), 3);
    for request in &seen {
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        assert!(
            head.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"),
            "{head}"
        );
        assert!(
            head.to_lowercase()
                .contains("\r\nauthorization: bearer sk-secret"),
            "{head}"
        );
        let body: Value = serde_json::from_str(body).unwrap();
        assert_eq!(
            (&body["model"], &body["stream"]),
            (&json!("google/far"), &json!(true))
        );
    }
    // What has begun is not asked for again, and what is wrong with a request is wrong the second time.
    for (status, body, code, part) in [
        ("200 OK", chunk("Hel"), 502, "broke off"),
        (
            "400 Bad Request",
            json!({"error": {"message": "too many messages"}}).to_string(),
            400,
            "too many messages",
        ),
        (
            "401 Unauthorized",
            String::new(),
            502,
            "`key-file` in gemmad.toml",
        ),
        (
            "404 Not Found",
            String::new(),
            502,
            "`url` and `models` in gemmad.toml",
        ),
    ] {
        service.then(status, &body);
        let reply = daemon.chat(&asked("far"));
        assert_eq!(reply.status, code, "{}", reply.text());
        assert!(reply.error().contains(part), "{}", reply.text());
        assert_eq!(service.seen.try_iter().count(), 1, "{status}");
    }
    let log = daemon.log();
    for secret in ["sk-secret", "too many messages", "capital"] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
    // Left alone, it is not asked.
    service.then("401 Unauthorized", "");
    assert_eq!(daemon.chat(&asked("far")).status, 502);
    assert_eq!(service.seen.try_iter().count(), 1);
    let reply = daemon.chat(&asked("far"));
    assert!(reply.error().contains("left alone"), "{}", reply.text());
    assert_eq!(service.seen.try_iter().count(), 0);
    assert!(daemon.status()["upstreams"][0]["retry_in_s"].as_f64() > Some(0.0));
}

#[test]
fn a_client_that_hangs_up_ends_the_connection_and_silence_has_an_end() {
    let service = Service::start();
    let (_folder, options) = no_models();
    let keys = "models = [\"far\"]\nusers = [\"*\"]\nretries = 0\npatience = \"2s\"";
    let daemon = daemon_with(service.address, keys, options);
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let first = chunk("Hello");
    let begun = format!("{head}{:x}\r\n{first}\r\n", first.len());
    service
        .answers
        .send(Answer::Silence(begun.clone()))
        .unwrap();
    let mut body = asked("far");
    body["stream"] = json!(true);
    let mut stream = daemon.send("/v1/chat/completions", body.to_string().as_bytes());
    let mut seen = String::new();
    let mut piece = [0; 4096];
    while !seen.contains("Hello") {
        let read = stream.read(&mut piece).unwrap();
        assert!(read > 0, "{seen}");
        seen.push_str(&String::from_utf8_lossy(&piece[..read]));
    }
    let start = Instant::now();
    drop(stream);
    service.hung_up.recv_timeout(PATIENCE).unwrap();
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
    wait_for("the end of the request", || {
        daemon.status()["upstreams"][0]["running"] == 0
    });

    service.answers.send(Answer::Silence(begun)).unwrap();
    let (text, end) = daemon.stream(&asked("far")).text();
    assert_eq!(text, "Hello");
    assert!(end.unwrap_err().contains("nothing for 2 s"));
    // And before an answer has begun.
    service
        .answers
        .send(Answer::Silence(String::new()))
        .unwrap();
    let reply = daemon.chat(&asked("far"));
    assert_eq!(reply.status, 502, "{}", reply.text());
}

#[test]
fn a_service_that_lies_is_not_believed() {
    let service = Service::start();
    let (_folder, options) = no_models();
    let keys = "models = [\"far\"]\nusers = [\"*\"]\nretries = 0\npatience = \"5s\"";
    let daemon = daemon_with(service.address, keys, options);
    let head = "HTTP/1.1 200 OK\r\nconnection: close\r\n";
    let page = "<html><body>Sign in, data: {}</body></html>";
    let lies = [
        ("no answer", whole("200 OK", page)),
        ("no answer", whole("200 OK", "")),
        (
            "no answer",
            format!("{head}content-encoding: gzip\r\n\r\n\u{1f}\u{8b}\u{8}"),
        ),
        ("no chunk", whole("200 OK", "data: [[[[[[[[\n\n")),
        ("no chunk", whole("200 OK", "data: {\"choices\": 7}\n\n")),
        (
            "line without end",
            format!("{head}\r\ndata: {}", "x".repeat(5 << 20)),
        ),
        (
            "without end",
            format!("{head}\r\n{}", ": still here\n".repeat(6 << 20)),
        ),
        (
            "",
            format!("HTTP/1.1 200 OK\r\n{}", "x-more: of it\r\n".repeat(100_000)),
        ),
        ("", "x".repeat(1 << 20)),
        (
            "`url` and `models`",
            "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"
                .into(),
        ),
    ];
    for (number, (words, text)) in lies.into_iter().enumerate() {
        service.answers.send(Answer::Text(text)).unwrap();
        let reply = daemon.chat(&asked("far"));
        assert_eq!(reply.status, 502, "{number}: {}", reply.text());
        assert!(reply.error().contains(words), "{number}: {}", reply.text());
        assert!(!reply.text().contains("Sign in"), "{}", reply.text());
        assert_eq!(service.seen.try_iter().count(), 1, "{number}");
        // One that works is asked on.
        service.then("200 OK", &answer("Hello"));
        assert_eq!(daemon.chat(&asked("far")).content(), "Hello");
        assert_eq!(service.seen.try_iter().count(), 1, "{number}");
    }
    // It is nobody's memory: 128 MiB came.
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak: u64 = peak
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    assert!(peak < 64 << 10, "{peak} KiB");
}

/// Runs the AI SDK's sample against a gateway.
fn stream_text(modules: &str, gateway: &Gateway, token: &str) -> Value {
    let folder = tempfile::tempdir().unwrap();
    // Node looks for packages beside the file that wants them.
    std::os::unix::fs::symlink(modules, folder.path().join("node_modules")).unwrap();
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/stream_text.mjs");
    let copy = folder.path().join("stream_text.mjs");
    std::fs::copy(sample, &copy).unwrap();
    let output = Command::new("node")
        .arg(copy)
        .args([&gateway.url("/v1"), token])
        .env("NODE_EXTRA_CA_CERTS", gateway.certificate())
        .env("NO_PROXY", "*")
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}\n{}", gateway.log());
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_ai_sdks_sample_is_answered_here_and_when_that_is_gone_there() {
    const MODEL: &str = "tiny-26b-a4b-q8_0";
    let Ok(modules) = std::env::var("GEMMAD_NODE_MODULES") else {
        return skip(
            "the AI SDK's sample through the gateway",
            "GEMMAD_NODE_MODULES names no folder with the packages of tests/clients/package.json; `make test` makes one",
        );
    };
    let other = Daemon::start();
    let address = at_a_port(other.socket.clone());
    let (folder, options) = no_models();
    let file = folder.path().join(format!("{MODEL}.gguf"));
    std::fs::copy(harness::tiny_models().join(format!("{MODEL}.gguf")), &file).unwrap();
    let upstream = format!(
        "[[upstream]]\nname = \"other\"\nurl = \"http://{address}/v1\"\nretention = \"any\"\nmodels = [\"google/gemma-4-26b-a4b-it={MODEL}\"]\nusers = [\"*\"]\nfailover = true\n"
    );
    let options = Options {
        audit: upstream,
        ..options
    };
    let Some((daemon, gateway)) = both_with(options, "") else {
        return;
    };
    let token = gemmactl(&daemon, &["token", "issue"]);
    let here = stream_text(&modules, &gateway, &token);
    assert_eq!(
        (&here["text"], &here["model"]),
        (&json!(PARIS), &json!(MODEL))
    );
    assert!(
        here["backend"].is_null() && here["pieces"].as_u64() > Some(1),
        "{here}"
    );

    std::fs::remove_file(file).unwrap();
    wait_for("the model to be gone", || {
        let listed = daemon.get("/v1/models").json();
        let models = listed["data"].as_array().unwrap();
        !models.iter().any(|model| model["id"] == MODEL)
    });
    let there = stream_text(&modules, &gateway, &token);
    assert_eq!(there["text"], PARIS);
    assert_eq!(there["model"], format!("other/{MODEL}"));
    assert_eq!(there["backend"], "other");
    assert!(there["pieces"].as_u64() > Some(1), "{there}");
}
