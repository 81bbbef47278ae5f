//! Pages of PDF files that show more than they say: which are seen, how large, and what the model
//! and the client are told of the others.

mod harness;

use std::fs;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harness::pdf::{pages, red_circle, stream};
use harness::{Daemon, Options, Reply, TINY, tiny_models};
use serde_json::{Value, json};

/// As much text as a stamp has.
const STAMP: &str = "Received 2026-11-26 10:14 by the registry, document 12345";

/// A page with some text, and the picture P on most of it.
fn scan(text: &str) -> Vec<u8> {
    drawn(text, "q 260 0 0 240 20 10 cm /P Do Q")
}

/// A page with some text, and what else is drawn.
fn drawn(text: &str, more: &str) -> Vec<u8> {
    let content = format!("BT /F 9 Tf 20 280 Td ({text}) Tj ET {more}");
    stream("", content.as_bytes())
}

fn file(document: &[u8], detail: &Value) -> Value {
    json!({"type": "file", "file": {"filename": "a.pdf", "file_data": STANDARD.encode(document), "detail": detail}})
}

fn asked(document: &[u8], detail: &Value) -> Value {
    let content =
        json!([file(document, detail), {"type": "text", "text": "What is in the picture?"}]);
    json!({"model": TINY, "messages": [{"role": "user", "content": content}], "temperature": 0, "max_tokens": 8})
}

fn ask(daemon: &Daemon, document: &[u8], detail: &Value) -> Reply {
    let reply = daemon.chat(&asked(document, detail));
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply
}

/// Pages that are shown, that are not seen, and whether the file is whole.
fn told(reply: &Reply) -> (u64, u64, bool) {
    let files: Value = serde_json::from_str(reply.header("x-gemmad-files").unwrap()).unwrap();
    let number = |name: &str| files[0][name].as_u64().unwrap();
    let whole = files[0]["whole"].as_bool().unwrap();
    (number("shown"), number("unseen"), whole)
}

fn tokens(reply: &Reply) -> u64 {
    reply.json()["usage"]["prompt_tokens"].as_u64().unwrap()
}

#[test]
fn a_scan_beside_text_is_seen_and_so_is_a_chart() {
    let daemon = Daemon::start();
    let seen = ask(
        &daemon,
        &pages(&[scan(STAMP)], &red_circle()),
        &json!("low"),
    );
    assert_eq!(told(&seen), (1, 0, true));
    assert!(seen.content().contains("red"), "{}", seen.content());
    let bars =
        "0.2 0.3 0.8 rg 40 40 30 60 re f 90 40 30 180 re f 140 40 30 110 re f 190 40 30 200 re f";
    let chart = ask(
        &daemon,
        &pages(&[drawn(STAMP, bars)], b"null"),
        &json!("low"),
    );
    assert_eq!(told(&chart), (1, 0, true));
    assert!(tokens(&chart) > 250, "{}", tokens(&chart));
    // A sign, a rule, and what is white on white are there for the looks; a picture on a tenth of the
    // page is not, and it is said that it is missing.
    let looks = "1 1 1 rg 0 0 300 300 re f 0 0 0 rg 20 270 260 1 re f q 30 0 0 30 20 20 cm /P Do Q";
    let plain = ask(
        &daemon,
        &pages(&[drawn(STAMP, looks)], &red_circle()),
        &json!("auto"),
    );
    assert_eq!(told(&plain), (0, 0, true));
    let photo = drawn(STAMP, "q 95 0 0 95 20 20 cm /P Do Q");
    let left_out = ask(&daemon, &pages(&[photo], &red_circle()), &json!("auto"));
    assert_eq!(told(&left_out), (0, 1, false));
}

#[test]
fn pages_that_are_not_shown_are_told_of() {
    let daemon = Daemon::with(Options {
        inference: "context = 4096".into(),
        ..Options::default()
    });
    let all: Vec<_> = (0..20).map(|_| scan(STAMP)).collect();
    let document = pages(&all, &red_circle());
    let request = asked(&document, &json!(70));
    let prompt = daemon.post("/apply-template", &request).json();
    let prompt = prompt["prompt"].as_str().unwrap();
    let notes: Vec<_> = prompt
        .match_indices("[not shown: this page has pictures")
        .collect();
    assert_eq!(notes.len(), 4, "{prompt}");
    assert!(notes[0].0 > prompt.find("[page 17]").unwrap(), "{prompt}");
    assert!(
        prompt.contains("at most 16 pages of a file are shown"),
        "{prompt}"
    );
    let reply = ask(&daemon, &document, &json!(70));
    assert_eq!(told(&reply), (16, 4, false));
}

#[test]
fn detail_is_how_large_a_page_is_seen() {
    let daemon = Daemon::with(Options {
        inference: "context = 4096".into(),
        ..Options::default()
    });
    let document = |count: usize| {
        let all: Vec<_> = (0..count).map(|_| scan(STAMP)).collect();
        pages(&all, &red_circle())
    };
    let counted = |document: &[u8], detail: &Value| {
        let request = asked(document, detail);
        let reply = daemon.post("/v1/chat/completions/input_tokens", &request);
        let count = reply.json()["input_tokens"].as_u64();
        count.unwrap_or_else(|| panic!("{}", reply.text()))
    };
    let text = counted(&pages(&[drawn(STAMP, "")], b"null"), &json!("auto"));
    for (count, detail, budget) in [
        (1, json!("low"), 280),
        (1, json!(560), 560),
        (1, json!("high"), 1120),
        (1, json!("original"), 1120),
        // As large as fits.
        (2, json!("auto"), 1120),
        (4, json!("auto"), 560),
        (8, json!("auto"), 280),
    ] {
        let pictures = counted(&document(count), &detail) - text;
        let least = (count as u64) * budget * 8 / 10;
        let most = (count as u64) * (budget + 60);
        assert!(
            (least..=most).contains(&pictures),
            "{count} {detail}: {pictures}"
        );
    }
    // As many as fit.
    let reply = ask(&daemon, &document(16), &json!("auto"));
    let (shown, unseen, whole) = told(&reply);
    assert!(
        (8..12).contains(&shown) && shown + unseen == 16 && !whole,
        "{shown} {unseen}"
    );
    let request = asked(&document(16), &json!("auto"));
    let prompt = daemon.post("/apply-template", &request).json();
    let prompt = prompt["prompt"].as_str().unwrap();
    assert!(prompt.contains("the context has no room"), "{prompt}");
}

#[test]
fn a_model_that_takes_no_pictures_gets_the_text() {
    let folder = tempfile::tempdir().unwrap();
    let name = format!("{TINY}.gguf");
    fs::copy(tiny_models().join(&name), folder.path().join(&name)).unwrap();
    let daemon = Daemon::with(Options {
        models: folder.path().to_owned(),
        ..Options::default()
    });
    let reply = ask(
        &daemon,
        &pages(&[scan(STAMP)], &red_circle()),
        &json!("auto"),
    );
    assert_eq!(told(&reply), (0, 1, false));
    // Of a scan nothing would be left.
    let document = pages(&[scan("")], &red_circle());
    let (code, _, message) = daemon.chat(&asked(&document, &json!("auto"))).refusal();
    assert_eq!(code, "model_cannot_see", "{message}");
}

#[test]
fn errors_tell_what_was_read_as_well() {
    let daemon = Daemon::start();
    let fine = file(&pages(&[drawn(STAMP, "")], b"null"), &json!("auto"));
    let damaged = file(b"%PDF-1.7\nno pages", &json!("auto"));
    let messages = |parts: Value| json!([{"role": "user", "content": parts}]);
    let files = |reply: &Reply| -> Value {
        assert_eq!(reply.status, 400, "{}", reply.text());
        serde_json::from_str(reply.header("x-gemmad-files").unwrap()).unwrap()
    };
    let whole = |pages: u32, whole: bool| json!({"name": "a.pdf", "pages": pages, "read": pages, "shown": 0, "unseen": 0, "whole": whole});
    let body = json!({"model": TINY, "messages": messages(json!([fine, damaged]))});
    let refused = daemon.chat(&body);
    assert_eq!(files(&refused), json!([whole(1, true), whole(0, false)]));
    // What goes wrong after they were read.
    let long = json!({"type": "text", "text": "word ".repeat(20_000)});
    let body = json!({"model": TINY, "messages": messages(json!([fine, long]))});
    let refused = daemon.chat(&body);
    assert_eq!(refused.refusal().0, "context_length_exceeded");
    assert_eq!(files(&refused), json!([whole(1, true)]));
    let counted = daemon.post("/v1/chat/completions/input_tokens", &body);
    assert!(counted.header("x-gemmad-files").is_some());

    let document = |file: &[u8]| {
        let data = STANDARD.encode(file);
        let source = json!({"type": "base64", "media_type": "application/pdf", "data": data});
        json!({"type": "document", "title": "a.pdf", "source": source})
    };
    let body = json!({"model": TINY, "max_tokens": 8, "messages": messages(json!([document(b"%PDF-1.7\n")]))});
    assert_eq!(
        files(&daemon.post("/v1/messages", &body)),
        json!([whole(0, false)])
    );
    let part = json!({"type": "input_file", "filename": "a.pdf", "file_data": STANDARD.encode("%PDF-1.7\n")});
    let body = json!({"model": TINY, "input": messages(json!([part]))});
    assert_eq!(
        files(&daemon.post("/v1/responses", &body)),
        json!([whole(0, false)])
    );
}

#[test]
fn what_the_model_would_get_can_be_seen() {
    let daemon = Daemon::with(Options {
        inference: "context = 4096".into(),
        ..Options::default()
    });
    let all: Vec<_> = (0..18)
        .map(|_| scan(STAMP))
        .chain([drawn(STAMP, "")])
        .collect();
    let document = pages(&all, &red_circle());
    let shown = daemon.post("/v1/chat/completions/input", &asked(&document, &json!(70)));
    assert_eq!(shown.status, 200, "{}", shown.text());
    assert_eq!(told(&shown), (16, 2, false));
    let input = shown.json();
    let counted = daemon.post(
        "/v1/chat/completions/input_tokens",
        &asked(&document, &json!(70)),
    );
    assert_eq!(input["prompt_tokens"], counted.json()["input_tokens"]);
    assert_eq!(
        (&input["model"], &input["context_tokens"]),
        (&json!(TINY), &json!(4096))
    );
    let prompt = input["prompt"].as_str().unwrap();
    assert!(
        prompt.contains(STAMP) && prompt.contains("What is in the picture?"),
        "{prompt}"
    );
    let media = input["media"].as_array().unwrap();
    assert_eq!((media.len(), prompt.matches("<|image|>").count()), (16, 16));
    assert_eq!(
        media[0],
        json!({"type": "image", "message": 0, "part": 0, "width": 384, "height": 384, "tokens": 64})
    );
    let page = |number: usize| &input["files"][0]["content"][number - 1];
    let why = &page(1)["why"];
    assert!(
        why.as_str().unwrap().starts_with("the page has pictures"),
        "{why}"
    );
    let expected = json!({"page": 1, "text_bytes": STAMP.len(), "picture": "shown", "why": why});
    assert_eq!(*page(1), expected);
    let because = "at most 16 pages of a file are shown";
    let expected = json!({"page": 18, "text_bytes": STAMP.len(), "picture": "skipped", "why": why, "skipped_because": because});
    assert_eq!(*page(18), expected);
    assert_eq!(
        *page(19),
        json!({"page": 19, "text_bytes": STAMP.len(), "picture": "none"})
    );
    // What does not fit is shown, too.
    let long =
        json!({"model": TINY, "messages": [{"role": "user", "content": "word ".repeat(5000)}]});
    let long = daemon.post("/v1/chat/completions/input", &long).json();
    assert!(
        long["prompt_tokens"].as_u64().unwrap() > 4096,
        "{}",
        long["prompt_tokens"]
    );

    // The same on the command line, without a question.
    let path = daemon.dir.path().join("scan.pdf");
    fs::write(&path, &document).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_gemmactl"))
        .arg("--socket")
        .arg(&daemon.socket)
        .args(["ask", "--show-input", "--model", TINY, "--file"])
        .arg(&path)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let pages = "scan.pdf: 19 of 19 pages read, not whole\n  pages 1 to ";
    assert!(
        out.starts_with(pages) && out.contains("  page 19: text\n"),
        "{out}"
    );
    assert!(
        out.contains(&format!("prompt for {TINY}: ")) && out.contains(STAMP),
        "{out}"
    );
    // Nothing was asked, and nothing is kept of it.
    assert!(daemon.status()["tokens_per_second"].is_null());
    assert!(!daemon.log().contains("scan.pdf") && !daemon.log().contains("registry"));
}

#[test]
fn what_is_read_of_a_kept_file_can_be_seen() {
    let daemon = Daemon::start();
    let send = |name: &str, bytes: &[u8]| {
        let head = format!(
            "--x\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nuser_data\r\n--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\r\n"
        );
        let form = [head.as_bytes(), bytes, b"\r\n--x--\r\n"].concat();
        let sent = daemon.post_as("/v1/files", "multipart/form-data; boundary=x", &form);
        let id = sent.json()["id"].as_str().map(str::to_owned);
        id.unwrap_or_else(|| panic!("{}", sent.text()))
    };
    let document = pages(&[scan(STAMP), drawn(STAMP, "")], &red_circle());
    let read = daemon.get(&format!("/v1/files/{}/text", send("a.pdf", &document)));
    assert_eq!(read.status, 200, "{}", read.text());
    let expected = format!(
        "<file name=\"a.pdf\">\n[page 1]\n{STAMP}\n[shown: this page as a picture]\n[page 2]\n{STAMP}\n</file>\n"
    );
    assert_eq!(read.text(), expected);
    assert_eq!(told(&read), (1, 0, true));
    let damaged = daemon.get(&format!("/v1/files/{}/text", send("b.pdf", b"%PDF-1.7\n")));
    assert_eq!(damaged.refusal().0, "invalid_file");
    assert_eq!(daemon.get("/v1/files/file-none/text").status, 404);
    // No model was needed.
    assert_eq!(daemon.status()["state"], "cold");
}
