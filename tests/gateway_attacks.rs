//! The gateway under attack, and with clients that do not do what it expects.

mod harness;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use harness::gateway::{Gateway, Witness, both_with, frame, gemmactl};
use harness::{Options, wait_for};
use serde_json::Value;
use tokio_rustls::rustls::{ClientConnection, StreamOwned};

#[test]
fn a_refusal_reaches_whoever_is_still_sending() {
    const TIMES: usize = 50;
    let options = Options {
        limits: "body-size = \"1 MiB\"\n".into(),
        ..Options::default()
    };
    let Some((daemon, gateway)) = both_with(options, "") else {
        return;
    };
    let token = gemmactl(&daemon, &["token", "issue"]);
    let models = gemmactl(&daemon, &["token", "issue", "--scope", "models"]);
    let [small, large] = [300_000, 8 << 20].map(|bytes| {
        let file = gateway.dir.path().join(bytes.to_string());
        fs::write(&file, vec![b'x'; bytes]).unwrap();
        format!("@{}", file.display())
    });
    let chat = "/v1/chat/completions";
    for protocol in ["--http2", "--http1.1"] {
        for (key, path, body, refused) in [
            ("gmd_x", chat, &small, (401, "invalid_token")),
            ("gmd_x", chat, &large, (401, "invalid_token")),
            (&*token, "/tokens", &large, (403, "not_permitted")),
            (&*models, chat, &small, (403, "not_permitted")),
            (&*token, chat, &large, (413, "body_too_large")),
        ] {
            let key = format!("Authorization: Bearer {key}");
            for time in 0..TIMES {
                let (status, told) =
                    gateway.curl(path, &[protocol, "-H", &key, "--data-binary", body]);
                let told: Value = serde_json::from_str(&told).unwrap_or_default();
                let code = told["error"]["code"].as_str().unwrap_or("");
                assert_eq!((status, code), refused, "{protocol} {path} {body} {time}");
            }
        }
    }
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// `GET /status` of `localhost`, as HPACK.
const GET: &[u8] = b"\x82\x87\x04\x07/status\x01\x09localhost";
/// The same with POST.
const POST: &[u8] = b"\x83\x87\x04\x07/status\x01\x09localhost";

/// A connection of HTTP/2 with these settings.
fn begin(gateway: &Gateway, settings: &[u8]) -> StreamOwned<ClientConnection, TcpStream> {
    let mut stream = gateway.connect(b"h2");
    let bytes = [PREFACE, &frame(4, 0, 0, settings)].concat();
    stream.write_all(&bytes).unwrap();
    stream
}

/// What is sent each time.
type Frames<'a> = &'a dyn Fn(u32) -> Vec<u8>;

/// Whether the gateway hangs up while this is sent so often, or within a few seconds after it.
fn is_hung_up_on(
    gateway: &Gateway,
    first: &[u8],
    again: impl Fn(u32) -> Vec<u8>,
    times: u32,
) -> bool {
    let mut stream = begin(gateway, &[]);
    let sent = stream
        .write_all(first)
        .and_then(|()| (0..times).try_for_each(|time| stream.write_all(&again(time))));
    let patience = Some(Duration::from_secs(2));
    stream.sock.set_read_timeout(patience).unwrap();
    let mut buffer = [0; 4096];
    sent.is_err()
        || loop {
            match stream.read(&mut buffer) {
                Ok(1..) => {}
                Ok(0) => break true,
                Err(error) => break error.kind() != ErrorKind::WouldBlock,
            }
        }
}

#[test]
fn floods_of_frames_end_their_connection_and_nothing_else() {
    let witness = Witness::start();
    let gateway = Gateway::start(&witness.socket, "", None);
    let before = gateway.pss();
    let header = [&b"\x00\x03x-a\x64"[..], &[b'b'; 100]].concat();
    let reset =
        |stream: u32| [frame(1, 5, stream, GET), frame(3, 0, stream, &[0, 0, 0, 8])].concat();
    // A long header that is named again and again, a byte each time.
    let mut bomb = [GET, b"\x40\x03x-b\x7f\xbd\x1d", &[b'a'; 3900]].concat();
    bomb.extend([0xbe; 12_000]);
    let attacks: [(&str, Vec<u8>, Frames<'_>, u32); 5] = [
        (
            "continuations",
            frame(1, 1, 1, GET),
            &|_| frame(9, 0, 1, &header.repeat(10)),
            5000,
        ),
        (
            "empty continuations",
            frame(1, 1, 1, GET),
            &|_| frame(9, 0, 1, &[]),
            50_000,
        ),
        ("resets", vec![], &|time| reset(2 * time + 1), 50_000),
        (
            "empty data",
            frame(1, 4, 1, POST),
            &|_| frame(0, 0, 1, &[]),
            100_000,
        ),
        ("a bomb", frame(1, 5, 1, &bomb), &|_| vec![], 0),
    ];
    for (name, first, again, times) in attacks {
        assert!(is_hung_up_on(&gateway, &first, again, times), "{name}");
        assert_eq!(gateway.curl("/", &["--http2"]).0, 200, "{name}");
    }
    // These cost nothing, and may be sent.
    let settings = |time: u32| {
        frame(
            4,
            0,
            0,
            &[&[0, 4][..], &(65_535 + time).to_be_bytes()].concat(),
        )
    };
    for again in [&settings as Frames<'_>, &|_| frame(6, 0, 0, &[7; 8])] {
        is_hung_up_on(&gateway, &[], again, 20_000);
        assert_eq!(gateway.curl("/", &["--http2"]).0, 200);
    }
    let after = gateway.pss();
    assert!(
        after < before + (4 << 10),
        "{before} KiB before, {after} KiB after"
    );
}

#[test]
fn nobody_has_more_requests_under_way_than_a_part() {
    let witness = Witness::start();
    let more = "requests-per-address = 64\n";
    let gateway = Gateway::start(&witness.socket, more, None);
    let before = gateway.pss();
    // Nothing of an answer may be sent.
    let window = [0, 4, 0, 0, 0, 0];
    let mut held = vec![];
    for _ in 0..60 {
        let mut stream = begin(&gateway, &window);
        let asked: Vec<u8> = (0..32).flat_map(|k| frame(1, 5, 2 * k + 1, GET)).collect();
        let _ = stream.write_all(&asked);
        held.push(stream);
    }
    let from = |address: &str| gateway.curl("/", &["--interface", address]).0;
    wait_for("as many requests as may be", || from("127.0.0.1") == 429);
    assert_eq!(from("127.0.0.2"), 200);
    let after = gateway.pss();
    assert!(
        after < before + (8 << 10),
        "{before} KiB before, {after} KiB after"
    );
    drop(held);
    wait_for("room", || from("127.0.0.1") == 200);
}

#[test]
fn who_takes_nothing_of_an_answer_is_hung_up_on() {
    let witness = Witness::start();
    let gateway = Gateway::start(&witness.socket, "client-stall = \"1s\"\n", None);
    let mut stream = begin(&gateway, &[0, 4, 0, 0, 0, 0]);
    stream.write_all(&frame(1, 5, 1, GET)).unwrap();
    let start = Instant::now();
    let mut rest = vec![];
    let _ = stream.read_to_end(&mut rest);
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "{:?}",
        start.elapsed()
    );
    // Whoever takes what there is waits for more as long as it takes.
    let mut stream = begin(&gateway, &[]);
    let path = b"\x82\x87\x04\x05/slow\x01\x09localhost";
    stream.write_all(&frame(1, 5, 1, path)).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    witness.go_on.send(()).unwrap();
    witness.go_on.send(()).unwrap();
    let mut seen = vec![];
    let mut buffer = [0; 4096];
    while !seen.windows(7).any(|part: &[u8]| part == b"data: 2") {
        let read = stream.read(&mut buffer).unwrap();
        assert!(read > 0, "hung up");
        seen.extend(&buffer[..read]);
    }
}

#[test]
fn a_token_ends_with_its_user() {
    use harness::users::{ALICE, as_user, possible};
    if !possible("tokens of users who are gone") {
        return;
    }
    let lists = tempfile::tempdir().unwrap();
    let file = lists.path().join("passwd");
    let usual = fs::read_to_string("/etc/passwd").unwrap();
    let with = |line: &str| fs::write(&file, format!("{usual}{line}")).unwrap();
    with(&format!("alice:x:{ALICE}:{ALICE}::/:/bin/sh\n"));
    let script = "mount --bind \"$0\" /etc/passwd && exec \"$@\"";
    let starter = ["unshare", "--mount", "sh", "-c", script];
    let trial = std::process::Command::new(starter[0])
        .args(&starter[1..])
        .args([file.to_str().unwrap(), "true"])
        .status();
    if !trial.is_ok_and(|status| status.success()) {
        harness::skip::skip(
            "tokens of users who are gone",
            "nothing can be mounted here",
        );
        return;
    }
    let mut starter: Vec<_> = starter.map(str::to_owned).into();
    starter.push(file.to_str().unwrap().to_owned());
    let daemon = harness::users::daemon(Options {
        starter,
        ..Options::default()
    });
    let issue = || {
        let token = as_user(ALICE, || daemon.post("/tokens", &serde_json::json!({})));
        assert_eq!(token.status, 200, "{}", token.text());
        token.json()["token"].as_str().unwrap().to_owned()
    };
    let asks = |token: &str| {
        let key = format!("authorization: Bearer {token}");
        let output = std::process::Command::new("curl")
            .args([
                "-sS",
                "-w",
                "%{http_code}",
                "-o",
                "/dev/null",
                "-H",
                &key,
                "--unix-socket",
            ])
            .arg(&daemon.socket)
            .arg("http://localhost/v1/models")
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let token = issue();
    with("");
    assert_eq!(asks(&token), "401");
    // Whoever has no name in these lists, as in a container, issues tokens as well.
    assert_eq!(asks(&issue()), "200");
}
