//! Files that people send with a question: text, web pages, PDF, sent with it or before it; and
//! files that mean harm.

mod harness;

use std::io::Write;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harness::cgroup::Group;
use harness::pdf::{pages, pdf, red_circle, stream, words};
use harness::{Daemon, Options, Reply, TINY};
use serde_json::{Value, json};

/// Nothing that is refused takes longer: what a reader may take, and a busy machine.
const SOON: Duration = Duration::from_secs(60);

fn file(name: &str, bytes: &[u8]) -> Value {
    json!({"type": "file", "file": {"filename": name, "file_data": STANDARD.encode(bytes)}})
}

fn text(text: &str) -> Value {
    json!({"type": "text", "text": text})
}

fn asked(content: &Value) -> Value {
    json!({"model": TINY, "messages": [{"role": "user", "content": content}], "temperature": 0, "max_tokens": 8})
}

fn ask(daemon: &Daemon, content: Value) -> Reply {
    let reply = daemon.chat(&asked(&content));
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply
}

/// Tokens of the prompt.
fn tokens(daemon: &Daemon, content: Value) -> u64 {
    ask(daemon, content).json()["usage"]["prompt_tokens"]
        .as_u64()
        .unwrap()
}

#[test]
fn text_is_read_in_every_shape_of_the_api() {
    let daemon = Daemon::start();
    let question = "What is the capital of France?";
    let words = "Größe, 你好\n";
    let expected = tokens(
        &daemon,
        json!([
            text(&format!("<file name=\"notes.txt\">\n{words}</file>\n")),
            text(question)
        ]),
    );
    let sent = ask(
        &daemon,
        json!([file("notes.txt", words.as_bytes()), text(question)]),
    );
    assert_eq!(sent.json()["usage"]["prompt_tokens"], expected);
    let told: Value = serde_json::from_str(sent.header("x-gemmad-files").unwrap()).unwrap();
    assert_eq!(
        told,
        json!([{"name": "notes.txt", "pages": 1, "read": 1, "shown": 0, "unseen": 0, "whole": true}])
    );

    let data = format!("data:text/plain;base64,{}", STANDARD.encode(words));
    let parts = json!([{"type": "input_file", "filename": "notes.txt", "file_data": data}, {"type": "input_text", "text": question}]);
    let body = json!({"model": TINY, "input": [{"role": "user", "content": parts}], "max_output_tokens": 16});
    let reply = daemon.post("/v1/responses", &body);
    assert_eq!(
        reply.json()["usage"]["input_tokens"],
        expected,
        "{}",
        reply.text()
    );
    assert!(reply.header("x-gemmad-files").is_some());
    let counted = daemon.post(
        "/v1/responses/input_tokens",
        &json!({"model": TINY, "input": body["input"]}),
    );
    assert_eq!(
        counted.json()["input_tokens"],
        expected,
        "{}",
        counted.text()
    );

    let source =
        json!({"type": "base64", "media_type": "text/plain", "data": STANDARD.encode(words)});
    let blocks = json!([{"type": "document", "title": "notes.txt", "source": source}, {"type": "text", "text": question}]);
    let messages = json!([{"role": "user", "content": blocks}]);
    let counted = daemon.post(
        "/v1/messages/count_tokens",
        &json!({"model": TINY, "messages": messages}),
    );
    assert_eq!(
        counted.json()["input_tokens"],
        expected,
        "{}",
        counted.text()
    );
    assert_eq!(
        daemon
            .post(
                "/v1/messages",
                &json!({"model": TINY, "max_tokens": 8, "messages": messages})
            )
            .status,
        200
    );

    // A picture that came as a file is a picture.
    let seen = ask(
        &daemon,
        json!([
            file("a.bin", include_bytes!("data/pictures/red-circle.png")),
            text("What is in the picture?")
        ]),
    );
    assert!(seen.content().contains("red"), "{}", seen.content());
    let log = daemon.log();
    assert!(
        !log.contains("notes.txt") && !log.contains("你好"),
        "a file is in the log"
    );
}

#[test]
fn web_pages_and_pdf_become_text() {
    let daemon = Daemon::start();
    let same = |file: Value, lines: &str| {
        let written = text(&format!("<file name=\"a\">\n{lines}\n</file>\n"));
        assert_eq!(
            tokens(&daemon, json!([file])),
            tokens(&daemon, json!([written])),
            "{lines}"
        );
    };
    let page = b"<!DOCTYPE html><html><head><title>T</title><script>alert(1)</script><style>p{}</style></head>\
        <body><h1>News</h1><p>It is <b>warm</b> today.</p></body></html>";
    same(file("a", page), "T\n\nNews\n\nIt is warm today.");
    let lines = [
        "Hello, world. This is the first line of it,",
        "and this is the second.",
    ];
    same(
        file("a", &pages(&[words(&lines)], b"null")),
        &lines.join("\n"),
    );
    let [one, two] = [
        "A page with some forty characters on it, or more",
        "Another page that has a little text on it as well",
    ];
    same(
        file("a", &pages(&[words(&[one]), words(&[two])], b"null")),
        &format!("[page 1]\n{one}\n[page 2]\n{two}"),
    );
    // Words that are set apart without a space between them.
    let apart = stream("", b"BT /F 12 Tf 20 280 Td [(These words have been set apart) -300 (by) -300 (their) -10 ( places)] TJ ET");
    same(
        file("a", &pages(&[apart], b"null")),
        "These words have been set apart by their places",
    );
}

#[test]
fn text_of_any_encoding_is_text() {
    let daemon = Daemon::start();
    let said = "Die Größe der Fläche: 20 m², für 30 £ – und Äpfel, Öl, Übermut.\n";
    let wide = |unit: fn(u16) -> [u8; 2]| said.encode_utf16().flat_map(unit).collect::<Vec<u8>>();
    let narrow: Vec<u8> = said
        .chars()
        .map(|c| if c == '–' { 0x96 } else { c as u8 })
        .collect();
    let zero = [said.as_bytes(), b"a\0b\n"].concat();
    let shown = format!("{said}a\u{FFFD}b\n");
    for (bytes, as_utf8, encoding) in [
        (narrow.clone(), said, "windows-1252"),
        (wide(u16::to_le_bytes), said, "UTF-16LE"),
        (wide(u16::to_be_bytes), said, "UTF-16BE"),
        (zero, &shown, "UTF-8"),
    ] {
        let reply = ask(&daemon, json!([file("a.txt", &bytes)]));
        let files: Value = serde_json::from_str(reply.header("x-gemmad-files").unwrap()).unwrap();
        assert_eq!(
            (&files[0]["encoding"], &files[0]["whole"]),
            (&json!(encoding), &json!(true))
        );
        assert_eq!(
            reply.json()["usage"]["prompt_tokens"],
            tokens(&daemon, json!([file("a.txt", as_utf8.as_bytes())])),
            "{encoding}"
        );
    }
    let page = [b"<html><meta charset=latin1><p>".as_slice(), &narrow].concat();
    assert_eq!(
        tokens(&daemon, json!([file("a.html", &page)])),
        tokens(&daemon, json!([file("a.html", said.as_bytes())]))
    );
    let bytes: Vec<u8> = (0..=255).cycle().take(900).collect();
    let reply = daemon.chat(&asked(&json!([file("a.bin", &bytes)])));
    assert_eq!(reply.status, 400);
    assert!(
        reply.error().contains("is of a kind that is not read"),
        "{}",
        reply.error()
    );
}

#[test]
fn a_file_is_not_read_without_memory_for_its_reader() {
    let Some(group) = Group::new("memory for a reader", 256 << 20) else {
        return;
    };
    let daemon = Daemon::start();
    group.admit(daemon.pid());
    let page = file("a", b"<!DOCTYPE html><p>Hello");
    let refused = daemon.chat(&asked(&json!([page])));
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert_eq!(refused.json()["error"]["code"], "insufficient_memory");
    assert!(
        refused.error().contains("needs 384 MiB of memory"),
        "{}",
        refused.error()
    );
    // What needs no reader is taken, and so is the file once there is memory.
    ask(&daemon, json!([file("a", b"Hello")]));
    group.set_limit(2 << 30).unwrap();
    ask(&daemon, json!([page]));
}

#[test]
fn a_page_that_says_little_is_shown() {
    let daemon = Daemon::start();
    let page = stream("", b"q 300 0 0 300 0 0 cm /P Do Q");
    let reply = ask(
        &daemon,
        json!([
            file("a.pdf", &pages(std::slice::from_ref(&page), &red_circle())),
            text("What is in the picture?")
        ]),
    );
    assert!(reply.content().contains("red"), "{}", reply.content());
    let document = pages(
        &[
            words(&["A page with enough text on it that it need not be shown"]),
            page,
        ],
        &red_circle(),
    );
    let shown = tokens(&daemon, json!([file("a.pdf", &document)]));
    assert!(shown > 250, "{shown}");
}

#[test]
fn what_cannot_be_read_is_refused_in_time_and_memory() {
    let daemon = Daemon::start();
    ask(&daemon, json!([text("Hi")]));
    let fine = pages(&[words(&["Hello"])], b"null");
    let bomb = {
        let mut writer = flate2::write::ZlibEncoder::new(vec![], flate2::Compression::best());
        let spaces = vec![b' '; 1 << 20];
        (0..2048).for_each(|_| writer.write_all(&spaces).unwrap());
        stream("/Filter /FlateDecode", &writer.finish().unwrap())
    };
    let catalog = b"<< /Type /Catalog /Pages 2 0 R >>".to_vec();
    let cyclic = pdf(&[
        catalog,
        b"<< /Type /Pages /Count 1 /Kids [ 2 0 R ] >>".to_vec(),
    ]);
    for (name, bytes, reason) in [
        ("a.docx", b"PK\x03\x04abc".to_vec(), "damaged or cut off"),
        ("a.bin", vec![0, 1, 2, 0xFF], "of a kind that is not read"),
        ("cut", fine[..60].to_vec(), "damaged"),
        ("nothing but a name", b"%PDF-1.7\n".to_vec(), "damaged"),
        ("cyclic", cyclic, "damaged"),
        ("a bomb", pages(&[bomb], b"null"), "too much time or memory"),
    ] {
        let begun = Instant::now();
        let reply = daemon.chat(&asked(&json!([text("a"), file(name, &bytes)])));
        assert_eq!(reply.status, 400, "{name}: {}", reply.text());
        let error = &reply.json()["error"];
        assert_eq!(
            (&error["code"], &error["param"]),
            (
                &json!("invalid_file"),
                &json!("messages[0].content[1].file")
            ),
            "{name}"
        );
        assert!(
            error["message"].as_str().unwrap().contains(reason),
            "{name}: {error}"
        );
        assert!(begun.elapsed() < SOON, "{name} took {:?}", begun.elapsed());
    }
    // These are odd, and read as far as they go.
    let form =
        "/Type /XObject /Subtype /Form /BBox [0 0 9 9] /Resources << /XObject << /P 4 0 R >> >>";
    let draws_itself = pages(&[stream("", b"/P Do")], &stream(form, b"/P Do /P Do"));
    for (name, bytes) in [
        ("draws itself", draws_itself),
        ("10,000 pages", pages(&vec![words(&["x"]); 10_000], b"null")),
    ] {
        let begun = Instant::now();
        let reply = daemon.chat(&asked(&json!([file(name, &bytes)])));
        assert!(
            [200, 400].contains(&reply.status),
            "{name}: {}",
            reply.text()
        );
        assert!(begun.elapsed() < SOON, "{name} took {:?}", begun.elapsed());
    }
    assert_eq!(daemon.status()["crashes"], 0);
    ask(&daemon, json!([text("Hi")]));
}

/// A form with a file in it.
fn form(name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut body =
        b"--x\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nuser_data\r\n--x\r\n"
            .to_vec();
    write!(
        body,
        "Content-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\r\n"
    )
    .unwrap();
    body.extend_from_slice(bytes);
    body.extend_from_slice(b"\r\n--x--\r\n");
    body
}

#[test]
fn files_are_sent_once_and_used_by_their_ids() {
    let daemon = Daemon::with(Options {
        limits: "files-size = \"1 KiB\"".into(),
        server: "socket-mode = \"0666\"".into(),
        ..Options::default()
    });
    let upload = |name: &str, bytes: &[u8]| {
        daemon.post_as(
            "/v1/files",
            "multipart/form-data; boundary=x",
            &form(name, bytes),
        )
    };
    let sent = upload("notes.txt", b"Hello");
    assert_eq!(sent.status, 200, "{}", sent.text());
    let kept = sent.json();
    assert_eq!(
        (&kept["object"], &kept["bytes"], &kept["filename"]),
        (&json!("file"), &json!(5), &json!("notes.txt"))
    );
    let id = kept["id"].as_str().unwrap();
    let by_id = |id: &str| json!([{"type": "file", "file": {"file_id": id}}]);
    assert_eq!(
        tokens(&daemon, by_id(id)),
        tokens(&daemon, json!([file("notes.txt", b"Hello")]))
    );
    assert_eq!(daemon.get("/v1/files").json()["data"], json!([kept]));
    assert_eq!(daemon.get(&format!("/v1/files/{id}")).json(), kept);
    assert_eq!(
        daemon.get(&format!("/v1/files/{id}/content")).text(),
        "Hello"
    );
    assert!(
        daemon
            .ask_as_stranger("GET", &format!("/v1/files/{id}"), "")
            .is_none_or(|reply| reply.contains("404"))
    );

    let too_large = upload("large.txt", &[b'a'; 2000]);
    assert_eq!(too_large.status, 413, "{}", too_large.text());
    assert!(
        too_large.error().contains("files-size"),
        "{}",
        too_large.error()
    );
    // Newer files push older ones out.
    let second = upload("b.txt", &[b'b'; 850]).json();
    assert_eq!(daemon.get("/v1/files").json()["data"], json!([second]));
    let gone = daemon.chat(&asked(&by_id(id)));
    assert_eq!(gone.status, 400);
    assert!(
        gone.error().contains("there is no such file"),
        "{}",
        gone.error()
    );
}
