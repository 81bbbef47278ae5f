//! Pictures and files that requests name by their addresses: from where they may come, and what
//! servers may do.

mod harness;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harness::{Daemon, Options, Reply, TINY};
use serde_json::{Value, json};

const RED: &[u8] = include_bytes!("data/pictures/red-circle.png");
/// Nothing that fails takes longer: a request's files may take 30 s.
const SOON: Duration = Duration::from_secs(40);

/// A web server of this test; see `web.py`.
struct Web {
    process: Child,
    port: u16,
}

impl Web {
    fn start(certificate: Option<&Path>) -> Self {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
        let mut command = Command::new("python3");
        command
            .arg(tests.join("web.py"))
            .arg(tests.join("data/pictures"))
            .args(certificate)
            .stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        Self {
            process,
            port: line.trim().parse().unwrap(),
        }
    }

    fn at(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn daemon(from: &str) -> Daemon {
    Daemon::with(Options {
        access: format!("fetch-from = [{from}]"),
        limits: "body-size = \"1 MiB\"".into(),
        ..Options::default()
    })
}

fn picture(url: &str) -> Value {
    json!({"type": "image_url", "image_url": {"url": url}})
}

fn ask(daemon: &Daemon, part: Value) -> Reply {
    let content = json!([{"type": "text", "text": "Hi"}, part]);
    daemon.chat(&json!({"model": TINY, "messages": [{"role": "user", "content": content}], "temperature": 0, "max_tokens": 8}))
}

fn answer(reply: &Reply) -> String {
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.content()
}

fn tokens(reply: &Reply) -> u64 {
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()["usage"]["prompt_tokens"].as_u64().unwrap()
}

#[test]
fn what_is_fetched_is_as_if_it_were_sent() {
    let (web, daemon) = (Web::start(None), daemon("\"127.0.0.1\""));
    let sent = answer(&ask(
        &daemon,
        picture(&format!("data:image/png;base64,{}", STANDARD.encode(RED))),
    ));
    assert_eq!(
        answer(&ask(&daemon, picture(&web.at("red-circle.png")))),
        sent
    );
    assert_eq!(answer(&ask(&daemon, picture(&web.at("moved")))), sent);
    // A name with several addresses, of which one is allowed.
    let by_name = web.at("red-circle.png").replace("127.0.0.1", "LocalHost");
    assert_eq!(answer(&ask(&daemon, picture(&by_name))), sent);

    let page = json!({"model": TINY, "temperature": 0, "max_output_tokens": 16, "input": [{"role": "user", "content": [
        {"type": "input_image", "image_url": web.at("red-circle.png")}, {"type": "input_file", "file_url": web.at("page.html")}]}]});
    let reply = daemon.post("/v1/responses", &page);
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert!(
        reply
            .header("x-gemmad-files")
            .is_some_and(|read| read.contains("page.html")),
        "{:?}",
        reply.headers
    );
    let source = |kind: &str, path: &str| json!({"type": kind, "source": {"type": "url", "url": web.at(path)}});
    let message = json!({"model": TINY, "max_tokens": 8, "messages": [{"role": "user", "content": [
        source("image", "red-circle.png"), source("document", "page.html")]}]});
    let reply = daemon.post("/v1/messages", &message);
    assert_eq!(reply.status, 200, "{}", reply.text());
    let inline = json!({"type": "file", "file": {"filename": "page.html", "file_data": STANDARD.encode("<p>Hello")}});
    let count = json!({"model": TINY, "messages": [{"role": "user", "content": [source("document", "page.html")]}]});
    let counted = daemon.post("/v1/messages/count_tokens", &count).json()["input_tokens"]
        .as_u64()
        .unwrap();
    let content = json!({"model": TINY, "messages": [{"role": "user", "content": [inline]}], "max_tokens": 1});
    assert_eq!(counted, tokens(&daemon.chat(&content)));
}

#[test]
fn nothing_is_fetched_from_where_it_may_not() {
    let web = Web::start(None);
    let refused = |from: &str, url: &str, reason: &str| {
        let reply = ask(&daemon(from), picture(url));
        assert_eq!(reply.status, 400, "{from} {url}: {}", reply.text());
        let error = &reply.json()["error"];
        assert_eq!(
            (&error["code"], &error["param"]),
            (
                &json!("invalid_image"),
                &json!("messages[0].content[1].image_url")
            )
        );
        assert!(
            reply.error().contains(reason) && reply.error().contains("fetch-from"),
            "{from} {url}: {}",
            reply.error()
        );
    };
    refused("", &web.at("red-circle.png"), "send the picture itself");
    refused(
        "\"public\"",
        &web.at("red-circle.png"),
        "`127.0.0.1` is not among",
    );
    refused(
        "\"public\"",
        &web.at("red-circle.png").replace("127.0.0.1", "localhost"),
        "`localhost` is ",
    );
    refused(
        "\"public\", \"192.168.0.0/16\"",
        &web.at("red-circle.png").replace("127.0.0.1", "0x7f.1"),
        "`127.0.0.1` is not among",
    );
    refused(
        "\"public\"",
        "http://169.254.169.254/latest/meta-data",
        "`169.254.169.254` is not among",
    );
    // Neither is a file that has moved there.
    refused(
        "\"127.0.0.1\"",
        &web.at("inward"),
        "`10.255.255.1` is not among",
    );
    let asked = ask(
        &daemon("\"127.0.0.1\""),
        json!({"type": "file", "file": {"file_data": "aGk="}}),
    );
    assert_eq!(asked.status, 200);
    let count = Command::new("curl")
        .args(["-s", &web.at("asked")])
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&count.stdout),
        "1",
        "only the one that was moved was asked for"
    );
}

#[test]
fn what_a_server_does_harms_nobody() {
    let (web, daemon) = (Web::start(None), daemon("\"127.0.0.1\""));
    for (path, reason) in [
        ("none.png", "404 Not Found"),
        ("round", "moved more than 5 times"),
        ("nowhere", "what is no address"),
        ("large", "more than 1048576 bytes"),
        ("endless", "more than 1048576 bytes"),
        ("slow", "sends nothing for 5 s"),
        ("cut", "cannot be fetched"),
        ("garbage", "cannot be fetched"),
    ] {
        let begun = Instant::now();
        let reply = ask(&daemon, picture(&web.at(path)));
        assert_eq!(reply.status, 400, "{path}: {}", reply.text());
        assert!(
            reply.error().contains(reason) && !reply.error().contains('\x1b'),
            "{path}: {}",
            reply.error()
        );
        assert!(begun.elapsed() < SOON, "{path} took {:?}", begun.elapsed());
    }
    for (url, reason) in [
        ("http://127.0.0.1:1/", "cannot be reached"),
        ("http://host.invalid/", "is not found"),
    ] {
        let reply = ask(&daemon, picture(url));
        assert!(
            reply.status == 400 && reply.error().contains(reason),
            "{url}: {}",
            reply.text()
        );
    }
    // Together they may be as large as one that is sent.
    let two = json!({"model": TINY, "messages": [{"role": "user", "content": [picture(&web.at("red-circle.png")), picture(&web.at("endless"))]}]});
    let reply = daemon.chat(&two);
    assert_eq!(
        (reply.status, &reply.json()["error"]["param"]),
        (400, &json!("messages[0].content[1].image_url")),
        "{}",
        reply.text()
    );
    assert!(
        daemon
            .log()
            .lines()
            .all(|line| !line.contains("127.0.0.1") && !line.contains("violat")),
        "{}",
        daemon.log()
    );
    assert_eq!(daemon.status()["crashes"], 0);
}

#[test]
fn a_server_is_believed_if_the_system_trusts_it() {
    let folder = tempfile::tempdir().unwrap();
    let (pair, certificate) = (
        folder.path().join("pair.pem"),
        folder.path().join("ca-certificates.crt"),
    );
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
        ])
        .args(["-subj", "/CN=a web server of gemmad's tests"])
        .args([
            "-addext",
            "subjectAltName=DNS:localhost",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ])
        .arg("-keyout")
        .arg(&pair)
        .arg("-out")
        .arg(&certificate)
        .output()
        .unwrap();
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    let both = [fs::read(&pair).unwrap(), fs::read(&certificate).unwrap()].concat();
    fs::write(&pair, both).unwrap();
    let web = Web::start(Some(&pair));
    let url = web
        .at("red-circle.png")
        .replace("http://127.0.0.1", "https://localhost");
    let doubted = ask(&daemon("\"127.0.0.1\""), picture(&url));
    assert_eq!(doubted.status, 400, "{}", doubted.text());
    assert!(
        doubted.error().contains("cannot be trusted"),
        "{}",
        doubted.error()
    );

    // A worker that sees another list of whom the system trusts.
    let worker = folder.path().join("worker");
    let mount = format!(
        "mount --bind {} /etc/ssl/certs && exec {} \"$@\"",
        folder.path().display(),
        env!("CARGO_BIN_EXE_gemmad-worker")
    );
    fs::write(
        &worker,
        format!("#!/bin/sh\nexec /usr/bin/unshare --mount /bin/sh -c '{mount}' worker \"$@\"\n"),
    )
    .unwrap();
    fs::set_permissions(&worker, fs::Permissions::from_mode(0o755)).unwrap();
    let believing = Daemon::with(Options {
        access: "fetch-from = [\"127.0.0.1\"]".into(),
        inference: format!("worker = \"{}\"", worker.display()),
        ..Options::default()
    });
    answer(&ask(&believing, picture(&url)));
    let wrong = ask(&believing, picture(&url.replace("localhost", "127.0.0.1")));
    assert!(
        wrong.status == 400 && wrong.error().contains("cannot be trusted"),
        "{}",
        wrong.text()
    );
}

/// Gives the loopback interface public addresses, with the networks around them.
const PUBLIC_LOOPBACK: &str = r#"
import fcntl, socket, struct
def v4(address):
    return struct.pack("<HH", socket.AF_INET, 0) + socket.inet_aton(address) + bytes(8)
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    for name, call, value in [
        (b"lo", 0x8914, struct.pack("<h", 0x49)),  # SIOCSIFFLAGS: up, loopback, running
        (b"lo:0", 0x8916, v4("9.9.9.9")),  # SIOCSIFADDR
        (b"lo:0", 0x891C, v4("255.255.255.0")),  # SIOCSIFNETMASK
    ]:
        fcntl.ioctl(s, call, name.ljust(16, b"\0") + value)
with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as s:
    address = socket.inet_pton(socket.AF_INET6, "2620:fe::fe")
    fcntl.ioctl(s, 0x8916, address + struct.pack("<Ii", 64, socket.if_nametoindex("lo")))
"#;

/// In a network namespace of its own, where the machine has public addresses.
#[test]
fn what_the_machine_serves_at_its_public_addresses_is_no_public_file() {
    const PROMISE: &str = "public addresses of this machine";
    let in_namespace = || {
        // SAFETY: changes the namespace of this thread, and of what it starts.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            let error = std::io::Error::last_os_error();
            return harness::skip::skip(PROMISE, format!("no network namespace: {error}"));
        }
        let mut python = Command::new("python3");
        let given = python.args(["-c", PUBLIC_LOOPBACK]).output().unwrap();
        if !given.status.success() {
            let said = String::from_utf8_lossy(&given.stderr);
            return harness::skip::skip(PROMISE, format!("no IPv6: {}", said.trim()));
        }
        let _web = Web::start(Some(Path::new("everywhere")));
        let public = daemon("\"public\"");
        // Its own, a neighbour's, and both as IPv6 has them.
        for host in [
            "9.9.9.9",
            "9.9.9.10",
            "[2620:fe::fe]",
            "[2620:fe::ff]",
            "[::ffff:9.9.9.9]",
        ] {
            let reply = ask(&public, picture(&format!("http://{host}/red-circle.png")));
            assert_eq!(reply.status, 400, "{host}: {}", reply.text());
            assert!(reply.error().contains("its neighbour"), "{}", reply.error());
        }
        let reply = ask(&public, picture("http://9.9.9.9:8080/red-circle.png"));
        assert_eq!(reply.status, 400, "{}", reply.text());
        drop(public);
        let listed = daemon("\"9.9.9.9\", \"2620:fe::/64\"");
        for host in ["9.9.9.9", "[2620:fe::fe]"] {
            let reply = ask(&listed, picture(&format!("http://{host}/red-circle.png")));
            assert_eq!(reply.status, 200, "{host}: {}", reply.text());
        }
    };
    std::thread::scope(|scope| scope.spawn(in_namespace).join().unwrap());
}
