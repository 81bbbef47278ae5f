//! Sounds through the daemon: what is heard is answered, what is wrong is named.

mod harness;

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harness::{Daemon, Options, Reply, TINY, UNIFIED, tiny_models, wait_for};
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
    for (bytes, reason) in [
        (&b"hello"[..], "is no WAV, AIFF"),
        (&flac[..flac.len() / 2], "cut off"),
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

/// So many seconds: a high and a low tone by turns, a second of silence after every seven.
fn long(seconds: usize) -> Vec<u8> {
    let tones = ["tone-1.wav", "tone-3.wav"].map(|name| file(name)[44..].to_vec());
    let mut samples = vec![];
    for i in 0..seconds {
        let begin = samples.len();
        if i % 8 != 7 {
            samples.extend_from_slice(&tones[i / 8 % 2][..32_000]);
        }
        samples.resize(begin + 32_000, 0);
    }
    let bytes = samples.len() as u32;
    let head = &file("tone-1.wav")[8..40];
    [
        b"RIFF",
        &(bytes + 36).to_le_bytes()[..],
        head,
        &bytes.to_le_bytes(),
        &samples,
    ]
    .concat()
}

#[test]
fn a_long_sound_in_a_chat_becomes_several() {
    let daemon = Daemon::start();
    let shown = |sound: Vec<u8>| {
        let content = json!([sound_of(&sound), text("What do you hear?")]);
        daemon.shown(TINY, content)
    };
    let tokens = |reply: Reply| reply.json()["usage"]["prompt_tokens"].as_u64().unwrap();
    let (short, longer) = (tokens(shown(long(30))), tokens(shown(long(70))));
    // Three pieces instead of one, with two tokens around each, and 25 for each second.
    let added = longer - short;
    assert!((40 * 25 + 4..=40 * 25 + 10).contains(&added), "{added}");
    // What the context does not hold is said with the remedy.
    let narrow = Daemon::with(Options {
        inference: "context = 1024".into(),
        ..Options::default()
    });
    let content = json!([sound_of(&long(70)), text("What do you hear?")]);
    let (code, _, message) = narrow.shown(TINY, content).refusal();
    assert_eq!(code, "context_length_exceeded", "{message}");
    // 70 s and the ends of pieces.
    assert!(
        message.starts_with("prompt is too long: 175")
            && message.contains(
                "tokens are sound: have it transcribed first (POST /v1/audio/transcriptions)"
            ),
        "{message}"
    );
    // Together they are no larger than what is decoded of any request.
    let (code, param, message) = shown(small_silence(40 * 60)).refusal();
    assert_eq!(
        (code.as_str(), param.as_str()),
        ("invalid_audio", "messages[0].content[0].input_audio"),
        "{message}"
    );
    assert!(message.contains("/v1/audio/transcriptions"), "{message}");
    assert_eq!(daemon.status()["crashes"], 0);
}

fn sound_of(file: &[u8]) -> Value {
    sound(file, "wav")
}

/// So many seconds of silence in few bytes: eight bits a sample, 4000 a second.
fn small_silence(seconds: u32) -> Vec<u8> {
    let bytes = seconds * 4000;
    let mut wav = [
        b"RIFF",
        &(bytes + 36).to_le_bytes()[..],
        b"WAVEfmt \x10\0\0\0\x01\0\x01\0",
    ]
    .concat();
    wav.extend(4000_u32.to_le_bytes());
    wav.extend(4000_u32.to_le_bytes());
    wav.extend(b"\x01\0\x08\0data");
    wav.extend(bytes.to_le_bytes());
    wav.resize(wav.len() + bytes as usize, 0x80);
    wav
}

/// A form as clients send it.
fn form(fields: &[(&str, &[u8])]) -> (&'static str, Vec<u8>) {
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
    ("multipart/form-data; boundary=limit", body)
}

fn transcribe(daemon: &Daemon, fields: &[(&str, &[u8])]) -> Reply {
    let (kind, body) = form(fields);
    daemon.post_as("/v1/audio/transcriptions", kind, &body)
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
            &[("file", &wav), ("response_format", b"diarized_json")],
            "response_format",
            "invalid_value",
        ),
        (
            &[
                ("file", &wav),
                ("response_format", b"verbose_json"),
                ("timestamp_granularities[]", b"word"),
            ],
            "timestamp_granularities[]",
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

/// The data of a stream's events.
fn events(reply: &Reply) -> Vec<Value> {
    let text = reply.text();
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    data.map(|data| serde_json::from_str(data).unwrap())
        .collect()
}

#[test]
fn a_long_sound_is_transcribed_piece_by_piece() {
    let daemon = Daemon::start();
    let sound = long(40);
    let ask = |fields: &[(&str, &[u8])]| {
        let fields = [&[("file", &sound[..]), ("model", b"whisper-1")], fields].concat();
        let reply = transcribe(&daemon, &fields);
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply
    };
    let whole = ask(&[]).json();
    let text = whole["text"].as_str().unwrap();
    // 25 tokens a second, in pieces of 30 s at most.
    assert!(
        whole["usage"]["input_tokens"].as_u64().unwrap() > 40 * 25,
        "{whole}"
    );
    assert_eq!(
        ask(&[("response_format", b"text")]).text(),
        format!("{text}\n")
    );
    let streamed = events(&ask(&[("stream", b"true")]));
    let deltas: String = streamed
        .iter()
        .filter_map(|event| event["delta"].as_str())
        .collect();
    let done = streamed.last().unwrap();
    assert_eq!((deltas.as_str(), done["text"].as_str()), (text, Some(text)));
    assert_eq!(done["usage"], whole["usage"]);

    let times = ("timestamp_granularities[]", &b"segment"[..]);
    let verbose = ask(&[
        ("response_format", b"verbose_json"),
        times,
        ("language", b"en"),
    ])
    .json();
    assert_eq!(
        (&verbose["duration"], &verbose["language"]),
        (&json!(40.0), &json!("en"))
    );
    let segments = verbose["segments"].as_array().unwrap();
    assert!(segments.len() >= 4, "{verbose}");
    let mut end = 0.0;
    for segment in segments {
        let [from, to] = ["start", "end"].map(|field| segment[field].as_f64().unwrap());
        assert_eq!(from, end, "{segment}");
        assert!(
            to - from <= 10.0 && segment["avg_logprob"].as_f64().unwrap() < 0.0,
            "{segment}"
        );
        // In the middle of the silence, of which the sound has one at its very end.
        assert!((to % 8.0 - 7.5).abs() < 0.1 || to == 40.0, "{segment}");
        end = to;
    }
    assert_eq!(end, 40.0);
    let said: Vec<_> = segments
        .iter()
        .map(|segment| segment["text"].as_str().unwrap())
        .collect();
    assert_eq!(verbose["text"], json!(said.join(" ")));

    let srt = ask(&[("response_format", b"srt"), ("language", b"en")]);
    assert_eq!(
        srt.header("content-type"),
        Some("application/x-subrip; charset=utf-8")
    );
    assert!(
        srt.text().starts_with("1\n00:00:00,000 --> 00:00:07,5"),
        "{}",
        srt.text()
    );
    assert_eq!(srt.text().matches(" --> ").count(), segments.len());
    let vtt = ask(&[("response_format", b"vtt"), ("language", b"en")]).text();
    assert!(
        vtt.starts_with("WEBVTT\n\n00:00:00.000 --> 00:00:07.5"),
        "{vtt}"
    );
    assert_eq!(vtt.matches(" --> ").count(), segments.len());
    assert_eq!(daemon.status()["crashes"], 0);
}

/// A transcript without what is a little different each time: how sure the model was.
fn unrated(transcript: &str) -> String {
    let Ok(mut json) = serde_json::from_str::<Value>(transcript) else {
        return transcript.to_owned();
    };
    for segment in json["segments"].as_array_mut().unwrap() {
        segment["avg_logprob"] = Value::Null;
    }
    json.to_string()
}

#[test]
fn gemmactl_writes_sounds_down() {
    let daemon = Daemon::start();
    let home = tempfile::tempdir().unwrap();
    let (sound, path) = (long(20), home.path().join("talk.wav"));
    fs::write(&path, &sound).unwrap();
    let gemmactl = |arguments: &[&str], input: Stdio| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gemmactl"));
        command
            .arg("--socket")
            .arg(&daemon.socket)
            .arg("transcribe");
        command.args(arguments).stdin(input).output().unwrap()
    };
    let out = |output: std::process::Output| {
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let text = transcribe(&daemon, &[("file", &sound), ("response_format", b"text")]).text();
    let piped = fs::File::open(&path).unwrap();
    assert_eq!(out(gemmactl(&["-"], piped.into())), text);
    let talk = path.to_str().unwrap();
    let with_times = ["--language", "en", "--prompt", "Tones"];
    for (format, named) in [("srt", "srt"), ("vtt", "vtt"), ("json", "verbose_json")] {
        let fields = [
            ("file", &sound[..]),
            ("response_format", named.as_bytes()),
            ("language", b"en"),
            ("prompt", b"Tones"),
        ];
        let told = gemmactl(
            &[&[talk, "--format", format], &with_times[..]].concat(),
            Stdio::null(),
        );
        let whole = transcribe(&daemon, &fields).text();
        assert_eq!(unrated(&out(told)), unrated(&whole), "{format}");
    }
    fs::write(&path, "hello").unwrap();
    for (arguments, said) in [
        (&[talk][..], format!("{talk} is no WAV")),
        (
            &[talk, "--language", "d'e"],
            "--language must be a language's code".to_owned(),
        ),
        (&[talk, "--format", "xml"], "--format".to_owned()),
        (&["--format", "srt"], "FILE".to_owned()),
    ] {
        let output = gemmactl(arguments, Stdio::null());
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(&said), "{error}");
    }
}

#[test]
fn nothing_is_made_up_of_silence() {
    let daemon = Daemon::start();
    let silence = small_silence(50);
    let reply = transcribe(
        &daemon,
        &[("file", &silence), ("response_format", b"verbose_json")],
    );
    let heard = reply.json();
    assert_eq!(
        (&heard["text"], &heard["segments"]),
        (&json!(""), &json!([]))
    );
    assert_eq!(
        (&heard["duration"], &heard["language"]),
        (&json!(50.0), &json!("und"))
    );
}

#[test]
fn a_sound_beyond_the_limit_is_refused_before_it_is_heard() {
    let daemon = Daemon::with(Options {
        limits: "sound-time = \"40s\"".into(),
        ..Options::default()
    });
    let (code, param, message) = transcribe(&daemon, &[("file", &small_silence(50))]).refusal();
    assert_eq!((code.as_str(), param.as_str()), ("invalid_audio", "file"));
    assert!(
        message.contains("lasts 50 s; at most 40 s")
            && message.contains("`sound-time` in gemmad.toml"),
        "{message}"
    );
    assert_eq!(
        transcribe(&daemon, &[("file", &small_silence(40))]).status,
        200
    );
}

#[test]
fn who_hangs_up_has_no_more_of_a_long_sound_heard() {
    let daemon = Daemon::start();
    let sound = long(300);
    let (kind, body) = form(&[("file", &sound), ("stream", b"true")]);
    let head = format!(
        "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = daemon.connect();
    stream
        .write_all(&[head.as_bytes(), &body].concat())
        .unwrap();
    let mut heard = vec![];
    while !String::from_utf8_lossy(&heard).contains("transcript.text.delta") {
        let mut piece = [0; 1024];
        let count = stream.read(&mut piece).unwrap();
        assert!(count > 0, "{}", String::from_utf8_lossy(&heard));
        heard.extend_from_slice(&piece[..count]);
    }
    drop(stream);
    let served = || {
        let metrics = daemon.get("/metrics").text();
        let is_it = |line: &&str| line.starts_with("gemmad_requests_served_total ");
        metrics.lines().find(is_it).unwrap().to_owned()
    };
    wait_for("the slot to be free", || daemon.status()["running"] == 0);
    let before = served();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!((served(), &daemon.status()["running"]), (before, &json!(0)));
}
