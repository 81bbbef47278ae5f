//! What callers can have the supervisor hold, however many of them there are and however slowly
//! they read.

mod harness;

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harness::{Daemon, Options, Reply, endless, proc_kib, wait_for};
use serde_json::json;

/// Bytes of the stored conversation.
const LONG: usize = 7_000_000;
/// KiB that the supervisor may hold: what is stored (twice the conversation), what one caller's
/// requests and answers may hold, and what the allocator has kept of what is freed.
const BOUND: u64 = 64 << 10;

fn daemon() -> Daemon {
    Daemon::with(Options {
        inference: "slots = 1".into(),
        ..Options::default()
    })
}

/// Has a response stored that was asked with a long text. Its id.
fn stored(daemon: &Daemon) -> String {
    let reply = daemon.post(
        "/v1/responses",
        &json!({"input": "a".repeat(LONG), "background": true, "max_output_tokens": 16}),
    );
    assert_eq!(reply.status, 200, "{}", reply.text());
    let id = reply.json()["id"].as_str().unwrap().to_owned();
    wait_for("the response to end", || {
        let status = daemon.get(&format!("/v1/responses/{id}")).json()["status"].clone();
        !["queued", "in_progress"].contains(&status.as_str().unwrap())
    });
    id
}

fn check(daemon: &Daemon, what: &str) {
    let anon = proc_kib(daemon.pid(), "status", "RssAnon");
    eprintln!("{what}: RssAnon {anon} KiB");
    assert!(anon < BOUND, "{what}: RssAnon is {anon} KiB");
}

#[test]
fn slow_readers_of_what_is_stored_share_it() {
    let daemon = daemon();
    let id = stored(&daemon);
    check(&daemon, "one stored response");
    let path = format!("/v1/responses/{id}/input_items");
    let mut readers: Vec<UnixStream> = (0..45)
        .map(|_| {
            let mut stream = daemon.connect();
            write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
            stream
        })
        .collect();
    // All are being answered when the first bytes of their heads are there.
    let mut read = 0;
    for reader in &mut readers {
        let mut head = [0; 12];
        reader.read_exact(&mut head).unwrap();
        match &head {
            b"HTTP/1.1 200" => read += 1,
            b"HTTP/1.1 429" => {}
            other => panic!("{}", String::from_utf8_lossy(other)),
        }
    }
    assert!(read >= 2, "{read} of them may read");
    check(&daemon, "45 slow readers");
    drop(readers);
    wait_for("the readers' account to be free", || {
        let page = daemon.get(&path);
        page.status == 200 && page.body.len() > LONG
    });
}

#[test]
fn those_who_wait_with_a_long_conversation_are_charged_for_it() {
    let daemon = daemon();
    let id = stored(&daemon);
    let mut running = daemon.stream(&endless());
    running.next().unwrap();
    let body = json!({"input": "x", "previous_response_id": id, "truncation": "auto"}).to_string();
    let mut waiting: Vec<UnixStream> = (0..16)
        .map(|_| {
            let stream = daemon.send("/v1/responses", body.as_bytes());
            stream.set_nonblocking(true).unwrap();
            stream
        })
        .collect();
    let mut refused = 0;
    wait_for("each to wait or to be refused", || {
        waiting.retain_mut(|stream| match stream.read(&mut [0; 1]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => true,
            _ => {
                refused += 1;
                false
            }
        });
        daemon.status()["waiting"] == waiting.len()
    });
    eprintln!("{} wait, {refused} are refused", waiting.len());
    assert!(!waiting.is_empty() && refused > 0);
    check(&daemon, "16 who go on from a stored response");
    let reply = Reply::read(daemon.send("/v1/responses", body.as_bytes())).unwrap();
    assert_eq!(reply.status, 429, "{}", reply.text());
}

/// Waits until the supervisor holds no more than when it is idle.
fn gives_back(daemon: &Daemon, what: &str) {
    let anon = || proc_kib(daemon.pid(), "status", "RssAnon");
    let after = anon();
    wait_for(what, || anon() <= 2 << 10);
    eprintln!("{what}: RssAnon {after} KiB, then {} KiB", anon());
}

#[test]
fn memory_goes_back_when_it_is_quiet() {
    let daemon = Daemon::start();
    daemon.load();
    let reply = daemon.chat(&harness::question(&"a".repeat(20_000_000)));
    assert_eq!(reply.status, 400, "{}", reply.text());
    gives_back(&daemon, "a request of 20 MB");
    // More at once need more descriptors than a test may have.
    for _ in 0..4 {
        let many: Vec<UnixStream> = (0..500)
            .map(|_| {
                let mut stream = daemon.connect();
                stream.write_all(b"GET /health HTTP/1.1\r\nhost").unwrap();
                stream
            })
            .collect();
        wait_for("all to be accepted", || {
            harness::descriptors(daemon.pid()) >= 500
        });
        drop(many);
        wait_for("all to be closed", || {
            harness::descriptors(daemon.pid()) < 100
        });
    }
    gives_back(&daemon, "2,000 closed connections");
}

/// Requests with media, one of each kind in turn.
const MEDIA: usize = 105;

#[test]
fn memory_goes_back_after_many_media() {
    let daemon = Daemon::start();
    daemon.load();
    let url = |media: &str, file: &[u8]| format!("data:{media};base64,{}", STANDARD.encode(file));
    let picture = |file: &[u8]| json!({"type": "image_url", "image_url": {"url": url("image/png", file), "detail": "low"}});
    // As a camera leaves it: nothing in it can be packed.
    let photo = |side: u32| {
        let noise = |x: u32, y: u32| (x.wrapping_mul(2_654_435_761) ^ y.wrapping_mul(40_503)) >> 7;
        let pixels = image::RgbImage::from_fn(side, side, |x, y| {
            let [red, green, blue, _] = noise(x, y).to_le_bytes();
            image::Rgb([red, green, blue])
        });
        let mut file = std::io::Cursor::new(vec![]);
        pixels.write_to(&mut file, image::ImageFormat::Bmp).unwrap();
        file.into_inner()
    };
    let sound = include_bytes!("data/sounds/tone-1.opus");
    let page = format!("<html><title>a</title><p>{}</p>", "words ".repeat(100_000));
    let file = |name: &str, bytes: &[u8]| json!({"type": "file", "file": {"filename": name, "file_data": url("text/plain", bytes)}});
    let kinds = [
        (200, picture(include_bytes!("data/pictures/red-circle.png"))),
        (200, picture(&photo(600))),
        (200, picture(&photo(2200))),
        (
            200,
            json!({"type": "input_audio", "input_audio": {"data": STANDARD.encode(sound), "format": "opus"}}),
        ),
        (200, file("a.csv", b"a,b\n1,2\n")),
        // Too long for the context.
        (400, file("a.html", page.as_bytes())),
        (400, picture(&photo(600)[..400_000])),
    ];
    let before = proc_kib(daemon.pid(), "status", "RssAnon");
    for (status, part) in kinds.iter().cycle().take(MEDIA) {
        let content = json!([part, {"type": "text", "text": "What is this?"}]);
        let reply = daemon
            .chat(&json!({"messages": [{"role": "user", "content": content}], "max_tokens": 1}));
        assert_eq!(reply.status, *status, "{}", reply.text());
    }
    eprintln!("before the requests with media: RssAnon {before} KiB");
    gives_back(&daemon, "many requests with media");
}
