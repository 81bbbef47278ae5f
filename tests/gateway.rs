//! The gateway, with real clients over TLS: what is passed on, what is not, and who is told from whom.

mod harness;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use harness::gateway::{GATEWAY_USER, Gateway, Witness, both, frame, gemmactl};
use harness::skip::skip;
use harness::{Daemon, PATIENCE, TINY, question, wait_for};
use serde_json::{Value, json};
use tokio_rustls::rustls::{ClientConnection, StreamOwned};

#[test]
fn a_request_is_passed_on_with_a_head_made_anew() {
    let witness = Witness::start();
    let gateway = Gateway::start(&witness.socket, "hosts = [\"box.lan\"]\n", None);
    for protocol in ["--http1.1", "--http2"] {
        let (status, body) = gateway.curl(
            "/v1/chat/completions?a=b",
            &[
                protocol,
                "-i",
                "-d",
                "{\"a\":1}",
                "-H",
                "X-Gemmad-Peer: 10.0.0.1",
                "-H",
                "x-gemmad-peer: ::1",
                "-H",
                "Connection: x-private",
                "-H",
                "X-Private: 1",
                "-H",
                "Authorization: Bearer gmd_x",
            ],
        );
        assert_eq!(status, 200, "{body}");
        assert!(
            body.contains("x-request-id") && body.ends_with("ok"),
            "{body}"
        );
        assert!(!body.contains("x-private"), "{body}");
        let seen = witness.take();
        let [request] = &seen[..] else {
            panic!("{seen:?}");
        };
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        assert!(
            head.starts_with("POST /v1/chat/completions?a=b HTTP/1.1\r\n"),
            "{head}"
        );
        assert_eq!(body, "{\"a\":1}");
        let has = |name: &str| {
            let head = head.to_lowercase();
            head.matches(&format!("\r\n{name}: ")).count()
        };
        assert!(head.contains("x-gemmad-peer: 127.0.0.1"), "{head}");
        assert!(head.contains("authorization: Bearer gmd_x"), "{head}");
        assert_eq!(
            (has("x-gemmad-peer"), has("host"), has("content-length")),
            (1, 1, 1)
        );
        assert_eq!(
            (has("connection"), has("transfer-encoding")),
            (0, 0),
            "{head}"
        );
    }
}

#[test]
fn what_could_be_read_in_two_ways_reaches_nothing() {
    let witness = Witness::start();
    let gateway = Gateway::start(&witness.socket, "", None);
    let inner = "GET /inner HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let head = |rest: &str| format!("POST /a HTTP/1.1\r\nhost: localhost\r\n{rest}\r\n");
    let attacks = [
        head("content-length: 4\r\ntransfer-encoding: chunked\r\n") + "0\r\n\r\n" + inner,
        head("transfer-encoding: chunked\r\ncontent-length: 4\r\n") + "0\r\n\r\n" + inner,
        head("content-length: 0\r\ncontent-length: 44\r\n") + inner,
        head("content-length: 44\r\ncontent-length: 44\r\n") + inner,
        head("content-length: 0, 44\r\n") + inner,
        head("content-length: +44\r\n") + inner,
        head("content-length : 44\r\n") + inner,
        head("transfer-encoding: xchunked\r\n") + "0\r\n\r\n" + inner,
        head("transfer-encoding: chunked, identity\r\n") + "0\r\n\r\n" + inner,
        head("transfer-encoding:\u{b}chunked\r\n") + "0\r\n\r\n" + inner,
        head("x: y\r\n transfer-encoding: chunked\r\n") + "0\r\n\r\n" + inner,
        head("x: y\ntransfer-encoding: chunked\r\n") + "0\r\n\r\n" + inner,
        head("x: y\rtransfer-encoding: chunked\r\n") + "0\r\n\r\n" + inner,
        head("x: y\0\r\n") + inner,
        head("x-gemmad-peer : 10.0.0.1\r\n"),
        inner.replace("\r\n", "\n"),
        inner.replace("GET /inner", "GET http://localhost/inner"),
        inner.replace("GET /inner", "CONNECT localhost:80"),
        inner.replace("HTTP/1.1", "HTTP/1.0"),
        inner.replace("HTTP/1.1", "HTTP/0.9"),
        format!("\r\n{inner}"),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
    ];
    for attack in attacks {
        let answer = gateway.raw(attack.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 400 "), "{attack:?}: {answer}");
        assert_eq!(witness.take(), [""; 0], "{attack:?}");
    }
    // Bodies that go wrong when the head is passed on already: what the daemon has is not whole, and nothing follows it.
    for body in [
        "5;x=y\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello!\r\n0\r\n\r\n",
        "0\r\nx-gemmad-peer: 10.0.0.1\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
    ] {
        let attack = head("transfer-encoding: chunked\r\n") + body + inner;
        let answer = gateway.raw(attack.as_bytes());
        assert!(!answer.starts_with("HTTP/1.1 200"), "{attack:?}: {answer}");
        std::thread::sleep(Duration::from_millis(50));
        for seen in witness.take() {
            let is_whole = seen.ends_with("0\r\n\r\n");
            assert!(!is_whole && !seen.contains("inner"), "{attack:?}: {seen:?}");
        }
    }
    // Two requests on one connection are two, on connections of their own.
    let last = "GET /second HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let two = head("content-length: 2\r\n") + "hi" + last;
    let mut stream = gateway.connect(b"http/1.1");
    stream.write_all(two.as_bytes()).unwrap();
    let mut answers = vec![];
    let _ = stream.read_to_end(&mut answers);
    let answers = String::from_utf8_lossy(&answers).into_owned();
    assert_eq!(
        answers.matches("HTTP/1.1 200 OK\r\n").count(),
        2,
        "{answers}"
    );
    wait_for("the second request", || {
        witness.seen.lock().unwrap().len() == 2
    });
    let seen = witness.take();
    assert!(seen[0].ends_with("\r\n\r\nhi"), "{seen:?}");
    assert!(seen[1].starts_with("GET /second HTTP/1.1\r\n"), "{seen:?}");
}

#[test]
fn headers_of_http2_cannot_become_requests() {
    let witness = Witness::start();
    let gateway = Gateway::start(&witness.socket, "", None);
    let usual = [
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/x"),
        (":authority", "localhost"),
    ];
    let with = |more: &[(&'static str, &'static str)]| [&usual[..], more].concat();
    let changed = |name: &str, value: &'static str| {
        let change = |(had, old): (&'static str, &'static str)| match had == name {
            true => (had, value),
            false => (had, old),
        };
        usual.map(change).to_vec()
    };
    let inner = "a\r\nx-gemmad-peer: 10.0.0.1\r\n\r\nGET /inner HTTP/1.1\r\nhost: x\r\n\r\n";
    let attacks = [
        with(&[("x", inner)]),
        with(&[("x", "a\nb: c")]),
        with(&[("x", "a\0b")]),
        with(&[("x: y\r\nb", "c")]),
        with(&[("X-Upper", "c")]),
        with(&[("transfer-encoding", "chunked")]),
        with(&[("connection", "close")]),
        with(&[("content-length", "5")]),
        with(&[("content-length", "0"), ("content-length", "5")]),
        with(&[("host", "evil.example")]),
        with(&[("host", "localhost"), ("host", "localhost")]),
        with(&[(":path", "/second")]),
        changed(
            ":path",
            "/x HTTP/1.1\r\nx-gemmad-peer: ::1\r\n\r\nGET /inner",
        ),
        changed(":path", "/x y"),
        changed(":path", "http://localhost/x"),
        changed(":path", "*"),
        changed(":path", ""),
        changed(":method", "GET /inner HTTP/1.1\r\nhost: x\r\n\r\nGET"),
        changed(":method", "CONNECT"),
        changed(":authority", "localhost\r\nx: y"),
        changed(":authority", "evil.example"),
        changed(":authority", "a@localhost"),
    ];
    for attack in attacks.iter().chain([&usual.to_vec()]) {
        let mut block = vec![];
        for (name, value) in attack {
            // Literals without an index and without Huffman's code.
            block.push(0);
            for text in [name, value] {
                let length = text.len();
                match length < 127 {
                    true => block.push(length as u8),
                    false => block.extend([127, (length - 127) as u8]),
                }
                block.extend(text.as_bytes());
            }
        }
        let mut stream = gateway.connect(b"h2");
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(frame(4, 0, 0, &[]));
        bytes.extend(frame(1, 5, 1, &block));
        // After it, a request that is answered: then the first has had its turn.
        let fine: Vec<u8> = b"\x82\x87\x04\x05/fine\x01\x09localhost".to_vec();
        bytes.extend(frame(1, 5, 3, &fine));
        stream.write_all(&bytes).unwrap();
        let mut buffer = [0; 4096];
        let is_fine = attack[..] == usual;
        let wanted = if is_fine { 2 } else { 1 };
        let seen = || witness.seen.lock().unwrap().len();
        while seen() < wanted && matches!(stream.read(&mut buffer), Ok(1..)) {}
        std::thread::sleep(Duration::from_millis(20));
        let mut seen = witness.take();
        seen.retain(|text| !text.starts_with("GET /fine HTTP/1.1\r\n"));
        match is_fine {
            true => assert_eq!(seen.len(), 1, "{seen:?}"),
            false => assert_eq!(seen, [""; 0], "{attack:?}"),
        }
    }
}

#[test]
fn web_pages_and_other_names_are_refused() {
    let witness = Witness::start();
    let more = "hosts = [\"box.lan\"]\norigins = [\"https://chat.example\"]\n";
    let gateway = Gateway::start(&witness.socket, more, None);
    let code = |options: &[&str]| {
        let (status, body) = gateway.curl("/v1/models", options);
        let body: Value = serde_json::from_str(&body).unwrap_or_default();
        (
            status,
            body["error"]["code"].as_str().unwrap_or("").to_owned(),
        )
    };
    for version in ["--http1.1", "--http2"] {
        let with = |options: &[&str]| code(&[&[version], options].concat());
        assert_eq!(
            with(&["-H", "Host: evil.example"]),
            (421, "unknown_host".into())
        );
        assert_eq!(with(&["-H", "Host: box.lan:99"]).0, 200);
        let other = with(&["-H", "Origin: https://evil.example"]);
        assert_eq!(other, (403, "origin_not_allowed".into()));
        assert_eq!(with(&["-X", "PUT"]), (405, "method_not_allowed".into()));
        assert_eq!(with(&["-X", "TRACE"]).0, 405);
        let (status, head) = gateway.curl(
            "/v1/models",
            &[
                version,
                "-i",
                "-X",
                "OPTIONS",
                "-H",
                "Origin: https://chat.example",
            ],
        );
        assert_eq!(status, 204);
        assert!(
            head.contains("access-control-allow-origin: https://chat.example"),
            "{head}"
        );
        let (status, head) = gateway.curl("/", &[version, "-i"]);
        assert!(status == 200 && !head.contains("access-control"), "{head}");
    }
    let seen = witness.take();
    assert_eq!(seen.len(), 4, "{seen:?}");
    assert!(seen.iter().all(|text| text.contains("host: localhost")));
}

#[test]
fn events_are_passed_on_as_they_come_and_a_client_that_leaves_is_noticed() {
    let witness = Witness::start();
    let gateway = Gateway::start(&witness.socket, "", None);
    for protocol in ["--http1.1", "--http2"] {
        let mut curl = Command::new("curl")
            .args(["-sSN", "--noproxy", "*", protocol, "--cacert"])
            .arg(gateway.certificate())
            .arg(gateway.url("/slow"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(curl.stdout.take().unwrap());
        for event in ["data: 1\n", "\n", "data: 2\n", "\n"] {
            let mut line = String::new();
            lines.read_line(&mut line).unwrap();
            assert_eq!(line, event);
            // The next one is not sent before this one has arrived.
            if event == "\n" {
                witness.go_on.send(()).unwrap();
            }
        }
        assert!(curl.wait().unwrap().success());
    }
}

#[test]
fn bodies_and_slow_clients_have_limits() {
    let witness = Witness::start();
    let more = "body-size = \"1000\"\nhead-time = \"2s\"\nclient-stall = \"1s\"\nconnections-per-address = 2\n";
    let gateway = Gateway::start(&witness.socket, more, None);
    let large = "x".repeat(1001);
    for options in [
        &["--http1.1"][..],
        &["--http2"],
        &["-H", "Transfer-Encoding: chunked"],
    ] {
        let (status, body) = gateway.curl("/", &[options, &["-d", &large]].concat());
        assert_eq!(status, 413, "{options:?} {body}");
        assert!(body.contains("body-size"), "{body}");
    }
    assert_eq!(gateway.curl("/", &["-d", &large[1..]]).0, 200);
    let late = gateway.raw(b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\nx");
    assert!(late.starts_with("HTTP/1.1 408"), "{late}");
    // A head that does not come, and a handshake that does not.
    let mut slow = gateway.connect(b"http/1.1");
    slow.write_all(b"GET / HTTP/1.1\r\nhost: loc").unwrap();
    let mut silent = TcpStream::connect(("127.0.0.1", gateway.port)).unwrap();
    silent.set_read_timeout(Some(PATIENCE)).unwrap();
    // Two are all that one address has.
    let mut third = TcpStream::connect(("127.0.0.1", gateway.port)).unwrap();
    third.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(third.read(&mut [0; 9]).unwrap_or(0), 0);
    let mut rest = vec![];
    let _ = slow.read_to_end(&mut rest);
    let rest = String::from_utf8_lossy(&rest).into_owned();
    assert!(!rest.contains("200"), "{rest}");
    assert_eq!(silent.read(&mut [0; 9]).unwrap_or(0), 0);
    assert_eq!(gateway.curl("/", &[]).0, 200);
}

#[test]
fn other_machines_are_not_served_without_tls() {
    let dir = tempfile::tempdir().unwrap();
    let start = |text: &str| {
        let file = dir.path().join("gateway.toml");
        fs::write(&file, text).unwrap();
        let output = Command::new("timeout")
            .args([
                "--preserve-status",
                "2",
                env!("CARGO_BIN_EXE_gemmad-gateway"),
                "--config",
            ])
            .arg(&file)
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), told)
    };
    let (status, told) = start("listen = [\"0.0.0.0:0\"]");
    assert_eq!(status, Some(78));
    assert!(told.contains("plaintext-beyond-loopback"), "{told}");
    assert_eq!(start("listen = [\"127.0.0.1:0\"]").0, Some(0));
    assert_eq!(
        start("listen = [\"0.0.0.0:0\"]\nplaintext-beyond-loopback = true").0,
        Some(0)
    );
    assert_eq!(start("lisen = []").0, Some(78));
}

#[test]
fn two_thousand_connections_take_little_memory() {
    const CONNECTIONS: usize = 2000;
    let limits = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let most = limits.maximum.unwrap_or(u64::MAX);
    if most < 5000 {
        skip("2,000 connections", "so many files cannot be open here");
        return;
    }
    let raised = rustix::process::Rlimit {
        current: Some(5000),
        ..limits
    };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).unwrap();
    let witness = Witness::start();
    let more = "connections-per-address = 2048\nhead-time = \"10m\"\n";
    let gateway = Gateway::start(&witness.socket, more, None);
    let idle = gateway.pss();
    let mut held: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let mut stream = gateway.connect(b"http/1.1");
            while stream.conn.is_handshaking() {
                stream.conn.complete_io(&mut stream.sock).unwrap();
            }
            stream
        })
        .collect();
    // The last one is served: all before it are connected.
    let mut ask = |stream: &mut StreamOwned<ClientConnection, TcpStream>| {
        let request = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
        stream.write_all(request).unwrap();
        let mut buffer = [0; 1024];
        let read = stream.read(&mut buffer).unwrap();
        assert!(buffer[..read].starts_with(b"HTTP/1.1 200"));
    };
    ask(held.last_mut().unwrap());
    let connected = gateway.pss();
    held.iter_mut().take(CONNECTIONS - 1).for_each(&mut ask);
    drop(held);
    let after = gateway.pss();
    println!(
        "{idle} KiB when idle, {connected} KiB with {CONNECTIONS} connections, {after} KiB when each was answered"
    );
    assert!(idle < 4 << 10, "{idle} KiB");
    assert!(connected < 24 << 10, "{connected} KiB");
}

#[test]
fn tokens_are_told_from_one_another() {
    let Some((mut daemon, gateway)) = both("") else {
        return;
    };
    let issue = |daemon: &Daemon, options: &[&str]| {
        let token = gemmactl(daemon, &[&["token", "issue"], options].concat());
        assert!(token.starts_with("gmd_") && token.len() == 72, "{token}");
        token
    };
    let inference = issue(&daemon, &[]);
    let models = issue(&daemon, &["--scope", "models"]);
    let admin = issue(&daemon, &["--scope", "admin", "--ttl", "12h"]);
    let chat = question("What is the capital of France?").to_string();
    let code = |token: &str, path: &str, options: &[&str]| {
        let key = format!("Authorization: Bearer {token}");
        let usual = ["-H", &key];
        let (status, body) = gateway.curl(path, &[&usual[..], options].concat());
        let body: Value = serde_json::from_str(&body).unwrap_or_default();
        let code = body["error"]["code"].as_str().unwrap_or("").to_owned();
        (status, code)
    };
    let ask = |token: &str| code(token, "/v1/chat/completions", &["-d", &chat]);
    let fine = || (200, String::new());
    let not = || (403, "not_permitted".to_owned());
    let remove = ["-X", "DELETE"];
    for (token, asks, unloads, removes, metrics) in [
        (&inference, fine(), not(), not(), not()),
        (
            &models,
            not(),
            not(),
            (404, "model_not_found".into()),
            not(),
        ),
        (&admin, not(), fine(), not(), fine()),
    ] {
        assert_eq!(ask(token), asks);
        assert_eq!(code(token, "/models/unload", &["-d", ""]), unloads);
        assert_eq!(code(token, "/v1/models/nothing", &remove), removes);
        assert_eq!(code(token, "/metrics", &[]).0, metrics.0);
        assert_eq!(code(token, "/v1/models", &[]), fine());
        // None makes, shows or ends tokens.
        for (path, options) in [
            ("/tokens", &["-d", "{}"][..]),
            ("/tokens", &[]),
            ("/tokens/rotate", &["-d", ""]),
            ("/tokens/revoke", &["-d", "{\"user\":0}"]),
        ] {
            assert_eq!(code(token, path, options), not(), "{path}");
        }
    }
    let (status, head) = gateway.curl("/v1/models", &["-i"]);
    assert!(
        status == 401 && head.contains("www-authenticate: Bearer"),
        "{head}"
    );
    assert!(head.contains("token_required"), "{head}");
    assert_eq!(ask("none"), (401, "token_required".into()));
    // Each API's clients read why, whether the daemon refuses or the gateway.
    for headers in [
        &["-H", "x-api-key: gmd_none"][..],
        &["-H", "host: elsewhere"],
    ] {
        let of = |path: &str| {
            let (status, body) = gateway.curl(path, &[headers, &["-d", "{}"][..]].concat());
            assert!([401, 421].contains(&status), "{path}: {body}");
            serde_json::from_str::<Value>(&body).unwrap()
        };
        let messages = of("/v1/messages");
        assert_eq!(messages["type"], "error");
        let kind = messages["error"]["type"].as_str().unwrap();
        assert!(["authentication_error", "invalid_request_error"].contains(&kind));
        assert!(of("/api/chat")["error"].is_string());
        assert!(of("/v1/chat/completions")["error"]["code"].is_string());
    }
    let key = format!("x-api-key: {inference}");
    let (status, body) = gateway.curl("/v1/chat/completions", &["-H", &key, "-d", &chat]);
    assert_eq!(status, 200, "{body}");
    // Forged: one character another.
    let last = if inference.ends_with('A') { "B" } else { "A" };
    let forged = format!("{}{last}", &inference[..71]);
    assert_eq!(ask(&forged), (401, "invalid_token".into()));
    let short = issue(&daemon, &["--ttl", "1s"]);
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(ask(&short), (401, "token_expired".into()));
    // Revoked, also after a restart; the others go on, over a change of the key.
    let revoked = issue(&daemon, &[]);
    assert_eq!(ask(&revoked), fine());
    let listed: Value =
        serde_json::from_str(&gemmactl(&daemon, &["token", "list", "--json"])).unwrap();
    let id = listed["data"].as_array().unwrap().last().unwrap()["id"]
        .as_str()
        .unwrap();
    gemmactl(&daemon, &["token", "revoke", id]);
    assert_eq!(ask(&revoked), (401, "token_revoked".into()));
    gemmactl(&daemon, &["token", "rotate"]);
    daemon.restart("TERM");
    fs::set_permissions(&daemon.socket, fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(ask(&revoked), (401, "token_revoked".into()));
    assert_eq!(ask(&inference), fine());
    assert!(gemmactl(&daemon, &["token", "list"]).contains("revoked"));
    // One model, and so many requests.
    let one = issue(&daemon, &["--model", TINY, "--limit", "3/min"]);
    let of = |model: &str| chat.replace("\"auto\"", &format!("\"{model}\""));
    let path = "/v1/chat/completions";
    assert_eq!(code(&one, path, &["-d", &chat]), fine());
    assert_eq!(code(&one, path, &["-d", &of("tiny-12b-q8_0")]), not());
    assert_eq!(code(&one, path, &["-d", &of(TINY)]), fine());
    assert_eq!(ask(&one), (429, "token_limit".into()));
    // Nor does it load another.
    let one = issue(&daemon, &["--model", TINY]);
    let load = |model: &str| json!({ "model": model }).to_string();
    let loads = |model: &str| code(&one, "/api/generate", &["-d", &load(model)]).0;
    assert_eq!((loads("tiny-12b-q8_0"), loads(TINY)), (403, 200));
    let not_for_it = code(&inference, "/api/delete", &["-X", "DELETE", "-d", "{}"]);
    assert_eq!(not_for_it.0, 403);
    // No text of any of them is anywhere.
    let kept = fs::read_to_string(daemon.dir.path().join("tokens.json")).unwrap();
    for token in [&inference, &models, &admin, &short, &revoked, &one] {
        for text in [&kept, &daemon.log(), &gateway.log()] {
            assert!(!text.contains(&token[30..]), "{text}");
        }
    }
}

#[test]
fn what_one_token_keeps_no_other_sees() {
    let Some((daemon, gateway)) = both("") else {
        return;
    };
    let [one, two] = [0, 1].map(|_| gemmactl(&daemon, &["token", "issue"]));
    let ask = |token: &str, path: &str, options: &[&str]| {
        let key = format!("Authorization: Bearer {token}");
        gateway.curl(path, &[&["-H", &key][..], options].concat())
    };
    let body = json!({"model": "auto", "input": "Hello", "store": true, "max_output_tokens": 8});
    let (status, answer) = ask(&one, "/v1/responses", &["-d", &body.to_string()]);
    assert_eq!(status, 200, "{answer}");
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let path = format!("/v1/responses/{}", answer["id"].as_str().unwrap());
    assert_eq!(ask(&one, &path, &[]).0, 200);
    assert_eq!(ask(&two, &path, &[]).0, 404);
    assert_eq!(
        daemon.get(&path).status,
        404,
        "nor the issuer, on the socket"
    );
}

/// What a user is answered on the daemon's own socket.
fn ask_as(user: u32, daemon: &Daemon, headers: &str) -> String {
    let script = "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.sendall(sys.argv[2].encode()); print(s.recv(4096).decode())";
    let request =
        format!("GET /v1/models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
    let output = Command::new("setpriv")
        .args([format!("--reuid={user}"), format!("--regid={user}")])
        .args(["--clear-groups", "/usr/bin/python3", "-c", script])
        .arg(&daemon.socket)
        .arg(request)
        .current_dir("/")
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn nobody_but_the_gateways_user_speaks_for_others() {
    let Some((daemon, _gateway)) = both("") else {
        return;
    };
    let token = gemmactl(&daemon, &["token", "issue"]);
    let key = format!("authorization: Bearer {token}\r\n");
    let peer = "x-gemmad-peer: 192.0.2.1\r\n";
    let with_both = format!("{key}{peer}");
    for user in [65_534, 0] {
        for headers in [peer, &with_both] {
            let answer = ask_as(user, &daemon, headers);
            assert!(answer.starts_with("HTTP/1.1 403 "), "{user}: {answer}");
        }
        assert!(ask_as(user, &daemon, "").starts_with("HTTP/1.1 200 "));
        assert!(ask_as(user, &daemon, &key).starts_with("HTTP/1.1 200 "));
        let forged = "authorization: Bearer gmd_x\r\n";
        assert!(ask_as(user, &daemon, forged).starts_with("HTTP/1.1 401 "));
    }
    // Its own requests are nobody's.
    for headers in [
        "",
        &key,
        &format!("{key}{peer}{peer}"),
        &format!("{key}x-gemmad-peer: root\r\n"),
        &format!("{key}x-gemmad-peer:\r\n"),
    ] {
        let answer = ask_as(GATEWAY_USER, &daemon, headers);
        assert!(answer.starts_with("HTTP/1.1 403 "), "{headers}: {answer}");
    }
    let without = ask_as(GATEWAY_USER, &daemon, peer);
    assert!(without.starts_with("HTTP/1.1 401 "), "{without}");
    let answer = ask_as(GATEWAY_USER, &daemon, &with_both);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[test]
fn openais_client_works_over_tls() {
    let Ok(python) = std::env::var("GEMMAD_PYTHON") else {
        skip(
            "openai over TLS",
            "GEMMAD_PYTHON names no Python with tests/clients/requirements.txt",
        );
        return;
    };
    let Some((daemon, gateway)) = both("") else {
        return;
    };
    let token = gemmactl(&daemon, &["token", "issue", "--ttl", "10m"]);
    let script = "
import json, os, subprocess, openai
client = openai.OpenAI()
chunks = client.chat.completions.create(model='auto', stream=True, temperature=0,
    messages=[{'role': 'user', 'content': 'What is the capital of France?'}])
text = ''.join(chunk.choices[0].delta.content or '' for chunk in chunks if chunk.choices)
assert text.strip(), text
try:
    openai.OpenAI(api_key='gmd_wrong').models.list()
except openai.AuthenticationError as error:
    assert error.code == 'invalid_token', error
else:
    raise SystemExit('a wrong token was taken')

# A key from a command, as the documentation has it.
gemmactl = json.loads(os.environ['GEMMACTL'])
run = lambda *command: subprocess.run(gemmactl + list(command), check=True, capture_output=True, text=True).stdout.strip()
given = []
def key():
    given.append(run('token', 'helper'))
    return given[-1]
client = openai.OpenAI(api_key=key)
client.models.list(), client.models.list()
run('token', 'revoke', '--all')
client.models.list()
assert given[0] == given[1] != given[2], given

# What it is getting breaks off when its token is revoked.
stream = client.chat.completions.create(model='auto', stream=True, temperature=1, max_tokens=1900,
    messages=[{'role': 'user', 'content': 'What is the capital of France?'}],
    extra_body={'ignore_eos': True, 'speculation': 'off'})
next(stream)
run('token', 'revoke', '--all')
try:
    for chunk in stream: pass
except openai.APIError as error:
    assert error.code == 'token_revoked', error
else:
    raise SystemExit('the answer went on')
";
    let gemmactl = json!([env!("CARGO_BIN_EXE_gemmactl"), "--socket", &daemon.socket]);
    let output = Command::new(python)
        .args(["-c", script])
        .env("GEMMACTL", gemmactl.to_string())
        .env("XDG_RUNTIME_DIR", daemon.dir.path())
        .env("OPENAI_BASE_URL", gateway.url("/v1"))
        .env("OPENAI_API_KEY", &token)
        .env("SSL_CERT_FILE", gateway.certificate())
        .env("NO_PROXY", "*")
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
}
