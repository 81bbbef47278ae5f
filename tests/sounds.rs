//! Sounds through the daemon: what is heard is answered, what is wrong is named.

mod harness;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harness::{Daemon, Options, Reply, TINY, UNIFIED, tiny_models};
use serde_json::{Value, json};

const FORMATS: [&str; 5] = ["wav", "mp3", "flac", "ogg", "opus"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/sounds")
}

fn file(name: &str) -> Vec<u8> {
    fs::read(folder().join(name)).unwrap()
}

fn sound(file: &[u8], format: &str) -> Value {
    json!({"type": "input_audio", "input_audio": {"data": STANDARD.encode(file), "format": format}})
}

fn text(text: &str) -> Value {
    json!({"type": "text", "text": text})
}

#[test]
fn held_out_sounds_are_told_apart() {
    let daemon = Daemon::start();
    let index: Value = serde_json::from_slice(&file("index.json")).unwrap();
    for (name, case) in index.as_object().unwrap() {
        let reply = daemon.shown(
            TINY,
            json!([
                sound(&file(&format!("{name}.wav")), "wav"),
                text(case["question"].as_str().unwrap())
            ]),
        );
        assert_eq!(reply.content(), case["answer"].as_str().unwrap(), "{name}");
    }
    // Of one sound every format says the same.
    let case = &index["tone-1"];
    for format in FORMATS {
        let reply = daemon.shown(
            TINY,
            json!([
                sound(&file(&format!("tone-1.{format}")), format),
                text(case["question"].as_str().unwrap())
            ]),
        );
        assert_eq!(
            reply.content(),
            case["answer"].as_str().unwrap(),
            "{format}"
        );
    }
    let log = daemon.log();
    assert!(
        !log.contains(&STANDARD.encode(file("tone-1.wav"))[..40]),
        "the sound is in the log"
    );
    assert_eq!(daemon.status()["crashes"], 0);
}

#[test]
fn a_model_without_an_encoder_tells_tones_apart() {
    let daemon = Daemon::start();
    let index: Value = serde_json::from_slice(&file("index.json")).unwrap();
    for (name, case) in index
        .as_object()
        .unwrap()
        .iter()
        .filter(|(name, _)| name.starts_with("tone"))
    {
        let content = json!([
            sound(&file(&format!("{name}.wav")), "wav"),
            text(case["question"].as_str().unwrap())
        ]);
        assert_eq!(
            daemon.shown(UNIFIED, content).content(),
            case["answer"].as_str().unwrap(),
            "{name}"
        );
    }
}

#[test]
fn what_cannot_be_heard_is_refused_by_name() {
    let daemon = Daemon::start();
    let part = "messages[0].content[1].input_audio";
    let with = |sound: Value| daemon.shown(TINY, json!([text("a"), sound])).refusal();
    let flac = file("tone-1.flac");
    let bytes = 31 * 32_000u32;
    let long = [
        b"RIFF",
        &(bytes + 36).to_le_bytes()[..],
        &file("tone-1.wav")[8..40],
        &bytes.to_le_bytes(),
        &vec![1; bytes as usize],
    ]
    .concat();
    for (bytes, reason) in [
        (&b"hello"[..], "is no WAV, AIFF"),
        (&flac[..flac.len() / 2], "cut off"),
        (&long, "longer than 30 s"),
    ] {
        let (code, param, message) = with(sound(bytes, "wav"));
        assert_eq!(
            (code.as_str(), param.as_str()),
            ("invalid_audio", part),
            "{message}"
        );
        assert!(message.contains(reason), "{message}");
    }
    let (_, param, message) = with(sound(b"RIFF", "amr"));
    assert_eq!(param, format!("{part}.format"));
    assert!(message.contains("only wav, mp3"), "{message}");
    // The worker that refused them is the one that answers.
    assert_eq!(
        daemon
            .shown(
                TINY,
                json!([sound(&flac, "flac"), text("What do you hear?")])
            )
            .status,
        200
    );
    assert_eq!(daemon.status()["crashes"], 0);
}

#[test]
fn a_model_without_a_projector_says_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let model = format!("{TINY}.gguf");
    std::os::unix::fs::symlink(tiny_models().join(&model), folder.path().join(&model)).unwrap();
    let daemon = Daemon::with(Options {
        models: folder.path().to_owned(),
        ..Options::default()
    });
    let (code, _, message) = daemon
        .shown(
            TINY,
            json!([sound(&file("tone-1.wav"), "wav"), text("What do you hear?")]),
        )
        .refusal();
    assert_eq!(code, "model_cannot_hear");
    assert!(message.contains("mmproj"), "{message}");
    assert_eq!(daemon.status()["state"], "cold");
}

#[test]
fn sounds_and_pictures_stand_where_they_were_put() {
    let daemon = Daemon::start();
    let picture = STANDARD.encode(include_bytes!("data/pictures/red-circle.png"));
    let picture = json!({"type": "image_url", "image_url": {"url": format!("data:image/png;base64,{picture}")}});
    let [low, high] = ["tone-1.wav", "tone-3.wav"].map(|name| sound(&file(name), "wav"));
    let mixed = json!([
        text("First:"),
        low,
        picture,
        high,
        text("What is in the picture?")
    ]);
    let first = daemon.shown(TINY, mixed.clone()).json();
    let tokens = |reply: &Value| reply["usage"]["prompt_tokens"].as_u64().unwrap();
    // 31 and 30 tokens of sound, 70 of the picture, two around each.
    assert!(tokens(&first) > 31 + 30 + 70 + 6, "{first}");
    let cached = |reply: &Value| {
        reply["usage"]["prompt_tokens_details"]["cached_tokens"]
            .as_u64()
            .unwrap()
    };
    assert_eq!(
        cached(&daemon.shown(TINY, mixed).json()),
        tokens(&first) - 1
    );
    // Another sound in the same place is another prompt from there on.
    let other = daemon
        .shown(
            TINY,
            json!([
                text("First:"),
                high,
                picture,
                low,
                text("What is in the picture?")
            ]),
        )
        .json();
    assert!(cached(&other) < 20, "{other}");
}

#[test]
fn gemmactl_plays_sounds() {
    let daemon = Daemon::start();
    let gemmactl = |arguments: &[&str], input: Stdio| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gemmactl"));
        command
            .arg("--socket")
            .arg(&daemon.socket)
            .args(["ask", "--temperature", "0", "--max-tokens", "20"])
            .args(arguments);
        command.stdin(input).output().unwrap()
    };
    let (low, high) = (folder().join("tone-1.opus"), folder().join("tone-3.wav"));
    let output = gemmactl(
        &["--audio", low.to_str().unwrap(), "What do you hear?"],
        Stdio::null(),
    );
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).trim(),
        "A low tone.",
        "{output:?}"
    );
    let output = gemmactl(
        &["--audio", "-", "What do you hear?"],
        fs::File::open(high).unwrap().into(),
    );
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).trim(),
        "A high tone.",
        "{output:?}"
    );
    let mut chat = Command::new(env!("CARGO_BIN_EXE_gemmactl"));
    chat.arg("--socket")
        .arg(&daemon.socket)
        .args(["chat", "--temperature", "0"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut chat = chat.stderr(Stdio::null()).spawn().unwrap();
    let lines = format!("/audio '{}'\nWhat do you hear?\n", low.display());
    std::io::Write::write_all(&mut chat.stdin.take().unwrap(), lines.as_bytes()).unwrap();
    let output = chat.wait_with_output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).trim(),
        "A low tone.",
        "{output:?}"
    );
    for (arguments, code) in [
        (&["--audio", "/nonexistent.wav", "a"][..], 1),
        (&["--audio", "-", "--image", "-", "a"], 2),
        (&["--audio", "-"], 2),
    ] {
        let output = gemmactl(arguments, fs::File::open(&low).unwrap().into());
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
    }
}

/// A form as clients send it.
fn transcribe(daemon: &Daemon, fields: &[(&str, &[u8])]) -> Reply {
    let mut body = vec![];
    for (name, value) in fields {
        let file = if *name == "file" {
            "; filename=\"a.bin\"\r\nContent-Type: application/octet-stream"
        } else {
            ""
        };
        body.extend(
            format!("--limit\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n")
                .bytes(),
        );
        body.extend_from_slice(value);
        body.extend(b"\r\n");
    }
    body.extend(b"--limit--\r\n");
    daemon.post_as(
        "/v1/audio/transcriptions",
        "multipart/form-data; boundary=limit",
        &body,
    )
}

#[test]
fn sounds_are_transcribed() {
    let daemon = Daemon::start();
    let (wav, opus) = (file("vowels-1.wav"), file("tone-1.opus"));
    let whole = transcribe(&daemon, &[("file", &wav), ("model", b"auto")]);
    assert_eq!(whole.status, 200, "{}", whole.text());
    let whole = whole.json();
    let text = whole["text"].as_str().unwrap();
    assert!(
        !text.is_empty() && whole["usage"]["input_tokens"].as_u64().unwrap() > 31,
        "{whole}"
    );
    let plain = transcribe(&daemon, &[("file", &wav), ("response_format", b"text")]);
    assert_eq!(plain.text(), format!("{text}\n"));
    let streamed = transcribe(&daemon, &[("file", &wav), ("stream", b"true")]).text();
    let events: Vec<Value> = streamed
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).unwrap())
        .collect();
    let pieces: String = events
        .iter()
        .filter_map(|event| event["delta"].as_str())
        .collect();
    assert_eq!(pieces.trim(), text);
    let done = events.last().unwrap();
    assert_eq!(
        (&done["type"], &done["text"]),
        (&json!("transcript.text.done"), &json!(text))
    );
    assert_eq!(
        transcribe(&daemon, &[("file", &opus), ("language", b"en")]).status,
        200
    );

    for (fields, param, code) in [
        (&[("file", &b"hello"[..])][..], "file", "invalid_audio"),
        (&[("model", b"auto")], "file", "invalid_value"),
        (
            &[("file", &wav), ("response_format", b"srt")],
            "response_format",
            "invalid_value",
        ),
    ] {
        let reply = transcribe(&daemon, fields);
        let (found, named, message) = reply.refusal();
        assert_eq!((named.as_str(), found.as_str()), (param, code), "{message}");
        assert!(message.starts_with(&format!("`{param}`")), "{message}");
    }
    let reply = daemon.post("/v1/audio/transcriptions", &json!({"file": "x"}));
    assert_eq!(
        (reply.status, reply.json()["error"]["code"].clone()),
        (415, json!("unsupported_media_type")),
        "{}",
        reply.text()
    );
}
