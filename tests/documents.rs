//! Office documents, mails and the like that people send with a question, through the whole daemon.

mod harness;

use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::DeflateEncoder;
use harness::{Daemon, Reply, TINY};
use rawzip::{CompressionMethod, ZipArchiveWriter};
use serde_json::{Value, json};

/// Nothing that is refused takes longer: what a reader may take, and a busy machine.
const SOON: Duration = Duration::from_secs(60);

fn zip(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = vec![];
    let mut archive = ZipArchiveWriter::new(&mut out);
    for (name, content) in parts {
        let file = archive
            .new_file(name)
            .compression_method(CompressionMethod::DEFLATE);
        let (mut entry, config) = file.start().unwrap();
        let encoder = DeflateEncoder::new(&mut entry, Compression::best());
        let mut writer = config.wrap(encoder);
        writer.write_all(content).unwrap();
        let (encoder, descriptor) = writer.finish().unwrap();
        encoder.finish().unwrap();
        entry.finish(descriptor).unwrap();
    }
    archive.finish().unwrap();
    out
}

fn docx(body: &str) -> Vec<u8> {
    let types = "<Types><Override PartName=\"/word/document.xml\" \
        ContentType=\"application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml\"/></Types>";
    let links = "<Relationships><Relationship Id=\"a\" Type=\"x/officeDocument\" Target=\"word/document.xml\"/></Relationships>";
    let main = format!("<w:document><w:body>{body}</w:body></w:document>");
    zip(&[
        ("[Content_Types].xml", types.as_bytes()),
        ("_rels/.rels", links.as_bytes()),
        ("word/document.xml", main.as_bytes()),
    ])
}

fn paragraph(text: &str) -> String {
    format!("<w:p><w:r><w:t>{text}</w:t></w:r></w:p>")
}

fn asked(name: &str, bytes: &[u8]) -> Value {
    let part =
        json!({"type": "file", "file": {"filename": name, "file_data": STANDARD.encode(bytes)}});
    json!({"model": TINY, "messages": [{"role": "user", "content": [part]}], "temperature": 0, "max_tokens": 8})
}

fn ask(daemon: &Daemon, name: &str, bytes: &[u8]) -> Reply {
    let reply = daemon.chat(&asked(name, bytes));
    assert_eq!(reply.status, 200, "{name}: {}", reply.text());
    reply
}

/// Fails unless the model gets of a file what it gets of a text.
fn becomes(daemon: &Daemon, name: &str, bytes: &[u8], text: &str) -> Value {
    let reply = ask(daemon, name, bytes);
    let written = format!("<file name=\"{name}\">\n{text}\n</file>\n");
    let expected = daemon.chat(&json!({"model": TINY, "messages": [{"role": "user", "content": written}], "max_tokens": 8}));
    assert_eq!(
        reply.json()["usage"]["prompt_tokens"],
        expected.json()["usage"]["prompt_tokens"],
        "{name}"
    );
    let files: Value = serde_json::from_str(reply.header("x-gemmad-files").unwrap()).unwrap();
    files[0].clone()
}

#[test]
fn documents_become_text_and_what_is_not_shown_is_said() {
    let daemon = Daemon::start();
    let letter = docx(&(paragraph("Dear Ann,") + &paragraph("come at 5 &amp; bring cake.")));
    let said = becomes(
        &daemon,
        "a",
        &letter,
        "Dear Ann,\n\ncome at 5 & bring cake.",
    );
    assert_eq!((&said["whole"], &said["unseen"]), (&json!(true), &json!(0)));
    let shown = docx(
        "<w:p><w:drawing><wp:docPr descr=\"a map\"/><a:blip r:embed=\"x\"/></w:drawing></w:p>",
    );
    let said = becomes(&daemon, "a", &shown, "[picture 1, not shown: a map]");
    assert_eq!(
        (&said["whole"], &said["unseen"]),
        (&json!(false), &json!(1))
    );
    becomes(
        &daemon,
        "a.rtf",
        b"{\\rtf1 Hello\\par there}",
        "Hello\n\nthere",
    );
    let table = "| a | b |\n| --- | --- |\n| 1 | 2 |";
    becomes(&daemon, "a.csv", b"a;b\n1;2\n", table);
    let notebook = br#"{"cells": [{"cell_type": "raw", "source": "cell"}], "nbformat": 4}"#;
    becomes(&daemon, "a.ipynb", notebook, "cell");
    let attached = STANDARD.encode(&letter);
    let mail = format!(
        "From: a@example.org\r\nSubject: Tea\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n\
         --x\r\n\r\nSee.\r\n--x\r\nContent-Type: application/octet-stream\r\nContent-Disposition: attachment; filename=l.bin\r\nContent-Transfer-Encoding: base64\r\n\r\n{attached}\r\n--x--\r\n"
    );
    let text = "[page 1]\nFrom: a@example.org\nSubject: Tea\n\nSee.\n[page 2]\n[attachment l.bin]\nDear Ann,\n\ncome at 5 & bring cake.";
    let said = becomes(&daemon, "a.eml", mail.as_bytes(), text);
    assert_eq!((&said["pages"], &said["whole"]), (&json!(2), &json!(true)));
}

#[test]
fn gemmactl_sends_documents() {
    let daemon = Daemon::start();
    let path = daemon.dir.path().join("letter.docx");
    std::fs::write(&path, docx(&paragraph("The capital of France is Paris."))).unwrap();
    let answer = Command::new(env!("CARGO_BIN_EXE_gemmactl"))
        .arg("--socket")
        .arg(&daemon.socket)
        .args(["ask", "--file"])
        .arg(&path)
        .arg("What is the capital of France?")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&answer.stderr);
    assert!(
        answer.status.success() && !answer.stdout.is_empty(),
        "{said}"
    );
}

#[test]
fn hostile_old_and_locked_documents_are_refused_by_name() {
    let daemon = Daemon::start();
    let old = |name: &str| {
        let mut file = b"\xD0\xCF\x11\xE0".to_vec();
        file.resize(1024, 0);
        file.extend(name.encode_utf16().flat_map(u16::to_le_bytes));
        file.resize(2048, 0);
        file
    };
    let whole = docx(&paragraph(&"text ".repeat(1000)));
    let deep = "<w:tbl><w:tr><w:tc>".repeat(10_000);
    for (name, bytes, reason) in [
        (
            "a bomb",
            docx(&" ".repeat(64 << 20)),
            "more than 300 times its size",
        ),
        (
            "cut",
            whole[..whole.len() / 2].to_vec(),
            "damaged or cut off",
        ),
        ("deep", docx(&deep), "more than 200 deep"),
        (
            "a.zip",
            zip(&[("a.txt", b"hi")]),
            "send the files in it one by one",
        ),
        ("a.doc", old("WordDocument"), "save it as docx or PDF"),
        ("a.msg", old("__properties_version1.0"), "save it as eml"),
        (
            "a.docx",
            old("EncryptedPackage"),
            "protected with a password",
        ),
    ] {
        let begun = Instant::now();
        let reply = daemon.chat(&asked(name, &bytes));
        assert_eq!(reply.status, 400, "{name}: {}", reply.text());
        assert!(reply.error().contains(reason), "{name}: {}", reply.error());
        assert_eq!(reply.json()["error"]["code"], "invalid_file", "{name}");
        assert!(begun.elapsed() < SOON, "{name} took {:?}", begun.elapsed());
    }
    assert_eq!(daemon.status()["crashes"], 0);
}
