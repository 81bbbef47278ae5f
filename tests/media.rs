//! Pictures and sounds in every shape of the API, and files that mean harm: each is refused by
//! name, in little time and memory, and in nobody's way.

mod harness;

use std::io::Cursor;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harness::{Daemon, TINY};
use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use serde_json::{Value, json};

const RED: &[u8] = include_bytes!("data/pictures/red-circle.png");
const LOW: &[u8] = include_bytes!("data/sounds/tone-1.opus");
const SEEN: &str = "What is in the picture?";
const HEARD: &str = "What do you hear?";

/// Nothing that is refused takes longer, on a busy machine.
const SOON: Duration = Duration::from_secs(5);
/// Bytes of memory that a model's worker may take for all refusals: it sees none of the files.
const ROOM: u64 = 8 << 20;

fn url(file: &[u8]) -> String {
    format!("data:image/png;base64,{}", STANDARD.encode(file))
}

fn picture(file: &[u8]) -> Value {
    json!({"type": "image_url", "image_url": {"url": url(file)}})
}

fn sound(file: &[u8]) -> Value {
    json!({"type": "input_audio", "input_audio": {"data": STANDARD.encode(file), "format": "wav"}})
}

fn text(text: &str) -> Value {
    json!({"type": "text", "text": text})
}

fn asked(content: &Value) -> Value {
    json!({"model": TINY, "messages": [{"role": "user", "content": content}], "temperature": 0, "max_tokens": 30})
}

#[test]
fn every_shape_has_pictures_and_sounds() {
    let daemon = Daemon::start();
    let chat = |content: Value| daemon.chat(&asked(&content)).content();
    let (circle, tone) = (
        chat(json!([picture(RED), text(SEEN)])),
        chat(json!([sound(LOW), text(HEARD)])),
    );
    assert!(
        circle.contains("red") && circle.contains("circle"),
        "{circle}"
    );
    assert_eq!(tone, "A low tone.");

    let responses = |parts: Value| {
        let body = json!({"model": TINY, "input": [{"role": "user", "content": parts}], "temperature": 0, "max_output_tokens": 30});
        let reply = daemon.post("/v1/responses", &body);
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()["output"][0]["content"][0]["text"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let words = |text: &str| json!({"type": "input_text", "text": text});
    assert_eq!(
        responses(
            json!([{"type": "input_image", "image_url": url(RED), "detail": "auto"}, words(SEEN)])
        ),
        circle
    );
    let heard = json!({"type": "input_audio", "input_audio": {"data": STANDARD.encode(LOW), "format": "opus"}});
    assert_eq!(responses(json!([heard, words(HEARD)])), tone);

    let block = json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": STANDARD.encode(RED)}});
    let body = json!({"model": TINY, "max_tokens": 30, "temperature": 0, "messages": [{"role": "user", "content": [block, text(SEEN)]}]});
    assert_eq!(
        daemon.post("/v1/messages", &body).json()["content"][0]["text"],
        circle
    );
}

#[test]
fn functions_answer_with_pictures() {
    let daemon = Daemon::start();
    let tool = json!({"name": "look", "description": "Look out of the window", "parameters": {"type": "object", "properties": {}}});
    let call =
        json!({"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}});
    let tokens = |content: Value| {
        let messages = json!([
            {"role": "user", "content": "What do you see?"},
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": content}
        ]);
        let body = json!({"model": TINY, "messages": messages, "tools": [{"type": "function", "function": tool}], "max_tokens": 1});
        let reply = daemon.chat(&body);
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()["usage"]["prompt_tokens"].as_u64().unwrap()
    };
    assert_eq!(
        tokens(json!([text("ok"), picture(RED)])),
        tokens(json!("ok")) + 72
    );

    let input = |output: Value| {
        let items = json!([
            {"role": "user", "content": "What do you see?"},
            {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": output}
        ]);
        let reply = daemon.post(
            "/v1/responses",
            &json!({"model": TINY, "input": items, "max_output_tokens": 16}),
        );
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()["usage"]["input_tokens"].as_u64().unwrap()
    };
    let shown = json!([{"type": "input_text", "text": "ok"}, {"type": "input_image", "image_url": url(RED)}]);
    assert_eq!(input(shown), input(json!("ok")) + 72);

    let blocks = |content: Value| {
        let messages = json!([
            {"role": "user", "content": "What do you see?"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "look", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": content}]}
        ]);
        let reply = daemon.post(
            "/v1/messages",
            &json!({"model": TINY, "max_tokens": 1, "messages": messages}),
        );
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()["usage"]["input_tokens"].as_u64().unwrap()
            + reply.json()["usage"]["cache_read_input_tokens"]
                .as_u64()
                .unwrap()
    };
    let source = json!({"type": "base64", "media_type": "image/png", "data": STANDARD.encode(RED)});
    assert_eq!(
        blocks(json!([text("ok"), {"type": "image", "source": source}])),
        blocks(json!("ok")) + 72
    );
}

#[test]
fn detail_is_a_number_of_tokens() {
    let daemon = Daemon::start();
    let tokens = |detail: Value| {
        let shown = json!({"type": "image_url", "image_url": {"url": url(RED), "detail": detail}});
        let mut body = asked(&json!([shown, text(SEEN)]));
        body["max_tokens"] = json!(1);
        daemon.chat(&body).json()["usage"]["prompt_tokens"]
            .as_u64()
            .unwrap()
    };
    let low = tokens(json!("low"));
    // 480 × 336 pixels: 10 × 7 tokens, twice as many on a side at four times the budget.
    assert_eq!(
        [json!(70), json!(280), json!("high")].map(tokens),
        [low, low + 210, low + 1050]
    );
}

/// The begin of a file that a phone's camera writes.
const VIDEO: &[u8] = b"\0\0\0\x18ftypmp42\0\0\0\0isommp42\0\0\0\x08free";
const WEBM: &[u8] = b"\x1A\x45\xDF\xA3\x9F\x42\x86\x81\x01";

#[test]
fn every_door_says_what_to_do_about_a_video() {
    let daemon = Daemon::start();
    let (mp4, webm) = (STANDARD.encode(VIDEO), STANDARD.encode(WEBM));
    let at = |path: &'static str, body: Value| (path, body);
    let chat = |part: Value| at("/v1/chat/completions", asked(&json!([part])));
    let responses = |part: Value| {
        let input = json!([{"role": "user", "content": [part]}]);
        at("/v1/responses", json!({"model": TINY, "input": input}))
    };
    let messages = |block: Value| {
        let messages = json!([{"role": "user", "content": [block]}]);
        at(
            "/v1/messages",
            json!({"model": TINY, "max_tokens": 9, "messages": messages}),
        )
    };
    let data = |kind: &str, data: &str| json!({"type": "base64", "media_type": kind, "data": data});
    let film = format!("data:video/mp4;base64,{mp4}");
    for (path, body) in [
        chat(json!({"type": "video_url", "video_url": {"url": film}})),
        chat(json!({"type": "input_video", "input_video": {"data": mp4}})),
        chat(json!({"type": "image_url", "image_url": {"url": film}})),
        chat(
            json!({"type": "image_url", "image_url": {"url": format!("data:video/webm;base64,{webm}")}}),
        ),
        chat(json!({"type": "file", "file": {"filename": "a.mp4", "file_data": film}})),
        chat(json!({"type": "file", "file": {"filename": "a.mkv", "file_data": webm}})),
        responses(json!({"type": "input_video", "video_url": film})),
        responses(json!({"type": "input_image", "image_url": film})),
        responses(json!({"type": "input_file", "filename": "a.mov", "file_data": film})),
        messages(json!({"type": "video", "source": data("video/mp4", &mp4)})),
        messages(json!({"type": "image", "source": data("image/png", &mp4)})),
        messages(json!({"type": "document", "source": data("application/pdf", &mp4)})),
    ] {
        let reply = daemon.post(path, &body);
        assert_eq!(reply.status, 400, "{path} {body}: {}", reply.text());
        let said = reply.json()["error"]["message"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(
            said.contains("video") && said.contains("frames"),
            "{path} {body}: {said}"
        );
    }
}

fn encoded(format: ImageFormat) -> Vec<u8> {
    let picture: DynamicImage = RgbImage::from_pixel(64, 64, Rgb([200, 30, 30])).into();
    let mut file = Cursor::new(vec![]);
    picture.write_to(&mut file, format).unwrap();
    file.into_inner()
}

/// `file` with other bytes at a place.
fn with(mut file: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    file[at..at + bytes.len()].copy_from_slice(bytes);
    file
}

/// A WAV header that claims what follows to be so.
fn wav(rate: u32, channels: u16, bytes: u32, samples: &[u8]) -> Vec<u8> {
    let parts = [
        &b"RIFF"[..],
        &bytes.saturating_add(36).to_le_bytes(),
        b"WAVEfmt \x10\0\0\0\x01\0",
        &channels.to_le_bytes(),
        &rate.to_le_bytes(),
        &rate.saturating_mul(2).to_le_bytes(),
        &(channels * 2).to_le_bytes(),
        b"\x10\0data",
        &bytes.to_le_bytes(),
        samples,
    ];
    parts.concat()
}

/// Files that mean harm, and a part of what is said of each.
fn hostile_pictures() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let formats = [
        ImageFormat::Png,
        ImageFormat::Jpeg,
        ImageFormat::WebP,
        ImageFormat::Gif,
        ImageFormat::Bmp,
    ];
    let [png, jpeg, webp, gif, bmp] = formats.map(encoded);
    // A page full of zeros: 4096 × 6144 pixels, of which there are none.
    let claimed = |width: u32, height: u32| {
        let mut file = with(
            with(png.clone(), 16, &width.to_be_bytes()),
            20,
            &height.to_be_bytes(),
        );
        let sum = crc32fast::hash(&file[12..29]);
        file[29..33].copy_from_slice(&sum.to_be_bytes());
        file
    };
    // EXIF that points behind its end, and counts four billion entries.
    let liar = b"\xFF\xE1\x00\x22Exif\0\0II*\0\xF0\xFF\xFF\xFF\xFF\xFF\x12\x01\x03\0\xFF\xFF\xFF\xFF\x06\0\0\0\0\0\0\0";
    let lying = [&jpeg[..2], liar, &jpeg[2..jpeg.len() - 40]].concat();
    vec![
        ("nothing at all", b"GIF8".to_vec(), "no PNG, JPEG"),
        ("a script", b"<svg onload=x>".to_vec(), "SVG drawing"),
        (
            "65,535 x 65,535 in PNG",
            claimed(65_535, 65_535),
            "65535 x 65535 pixels",
        ),
        (
            "65,535 x 65,535 in JPEG",
            sized(&jpeg),
            "65535 x 65535 pixels",
        ),
        (
            "65,535 x 65,535 in GIF",
            with(gif.clone(), 6, &[0xFF; 4]),
            "65535 x 65535 pixels",
        ),
        ("16,384 x 16,384 in WebP", webp_sized(&webp), "pixels"),
        (
            "65,535 x 65,535 in BMP",
            with(bmp.clone(), 18, &[0xFF, 0xFF, 0, 0, 0xFF, 0xFF, 0, 0]),
            "65535 x 65535 pixels",
        ),
        ("a size without pixels", claimed(4096, 6144), "damaged"),
        ("no size", claimed(0, 0), "damaged"),
        (
            "EXIF that lies, and an end that is missing",
            lying,
            "cut off",
        ),
        (
            "half a PNG",
            png[..png.len() / 2].to_vec(),
            "damaged or cut off",
        ),
        (
            "half a JPEG",
            jpeg[..jpeg.len() / 2].to_vec(),
            "damaged or cut off",
        ),
        (
            "half a WebP",
            webp[..webp.len() / 2].to_vec(),
            "damaged or cut off",
        ),
        (
            "half a BMP",
            bmp[..bmp.len() / 2].to_vec(),
            "damaged or cut off",
        ),
        (
            "a third of a GIF",
            gif[..gif.len() / 3].to_vec(),
            "damaged or cut off",
        ),
    ]
}

/// The JPEG, claiming the largest size that it can.
fn sized(jpeg: &[u8]) -> Vec<u8> {
    // The frame's header: the mark, its length, the bits of a sample, then height and width.
    let frame = jpeg
        .windows(2)
        .position(|mark| mark == [0xFF, 0xC0] || mark == [0xFF, 0xC2])
        .unwrap();
    with(jpeg.to_vec(), frame + 5, &[0xFF; 4])
}

/// The WebP (lossless), claiming the largest size that it can: 14 bits for each side.
fn webp_sized(webp: &[u8]) -> Vec<u8> {
    let signature = webp.windows(4).position(|name| name == b"VP8L").unwrap() + 8;
    with(
        webp.to_vec(),
        signature + 1,
        &[0xFF, 0xFF, 0xFF, webp[signature + 4] | 0x0F],
    )
}

fn hostile_sounds() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let flac = include_bytes!("data/sounds/tone-1.flac").to_vec();
    let mp3 = include_bytes!("data/sounds/tone-1.mp3");
    let ogg = include_bytes!("data/sounds/tone-1.ogg");
    let mut tags = b"ID3\x04\0\0\x7F\x7F\x7F\x7F".to_vec();
    tags.extend(&mp3[..2000]);
    vec![
        ("a picture", RED.to_vec(), "is no WAV"),
        ("a film", b"RIFF\xFF\xFF\xFF\xFFAVI LIST".to_vec(), ""),
        (
            "four billion samples a second",
            wav(u32::MAX, 1, 64, &[0; 64]),
            "samples a second",
        ),
        (
            "999 channels",
            wav(16_000, 999, 1998, &[0; 1998]),
            "damaged",
        ),
        ("no channel", wav(16_000, 0, 64, &[0; 64]), ""),
        ("no samples", wav(16_000, 1, 0, &[]), "no samples"),
        (
            "less than it says",
            wav(16_000, 1, 1 << 20, &[0; 1000]),
            "cut off",
        ),
        ("half a FLAC", flac[..flac.len() / 2].to_vec(), "cut off"),
        ("half an Ogg", ogg[..ogg.len() / 2].to_vec(), "cut off"),
        ("half of Opus", LOW[..LOW.len() / 2].to_vec(), "cut off"),
        ("titles of 256 MiB", tags, ""),
        (
            "noise",
            (0..200_000u32)
                .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
                .collect(),
            "",
        ),
    ]
}

#[test]
fn what_means_harm_is_refused_in_little_time_and_memory() {
    let daemon = Daemon::start();
    let question = json!([picture(RED), text(SEEN)]);
    assert_eq!(daemon.chat(&asked(&question)).status, 200);
    let peak = || {
        let memory = daemon.get("/memory").json();
        memory["worker"]["peak"].as_u64().unwrap()
    };
    let before = peak();
    let pictures = hostile_pictures()
        .into_iter()
        .map(|(name, file, reason)| (name, picture(&file), "invalid_image", reason));
    let sounds = hostile_sounds()
        .into_iter()
        .map(|(name, file, reason)| (name, sound(&file), "invalid_audio", reason));
    for (name, part, code, reason) in pictures.chain(sounds) {
        let begun = Instant::now();
        let reply = daemon.chat(&asked(&json!([text("a"), part])));
        assert_eq!(reply.status, 400, "{name}: {}", reply.text());
        let error = &reply.json()["error"];
        assert_eq!(error["code"], code, "{name}");
        assert!(
            error["message"].as_str().unwrap().contains(reason),
            "{name}: {error}"
        );
        assert!(begun.elapsed() < SOON, "{name} took {:?}", begun.elapsed());
    }
    // The kernel counts in batches: a peak may be a little lower when it is asked for again.
    let more = peak().saturating_sub(before);
    assert!(more < ROOM, "{} MiB", more >> 20);
    // One worker has refused them all, and answers.
    assert_eq!(daemon.chat(&asked(&question)).status, 200);
    assert_eq!(daemon.status()["crashes"], 0);
}
