//! Pictures through the daemon: what is shown is answered, what is wrong is named.

mod harness;

use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harness::{Daemon, Options, TINY, UNIFIED, tiny_models};
use serde_json::{Value, json};

const RED: &[u8] = include_bytes!("data/pictures/red-circle.png");
const BLUE: &[u8] = include_bytes!("data/pictures/blue-square.png");

fn url(media: &str, file: &[u8]) -> String {
    format!("data:{media};base64,{}", STANDARD.encode(file))
}

fn picture(file: &[u8]) -> Value {
    json!({"type": "image_url", "image_url": {"url": url("image/png", file)}})
}

/// A model directory with this model alone.
fn alone() -> (tempfile::TempDir, Options) {
    let folder = tempfile::tempdir().unwrap();
    let file = format!("{TINY}.gguf");
    std::os::unix::fs::symlink(tiny_models().join(&file), folder.path().join(&file)).unwrap();
    let options = Options {
        models: folder.path().to_owned(),
        ..Options::default()
    };
    (folder, options)
}

#[test]
fn a_model_without_a_projector_says_what_is_missing() {
    let (folder, options) = alone();
    let daemon = Daemon::with(options);
    let (code, _, message) = daemon
        .shown(
            TINY,
            json!([picture(RED), {"type": "text", "text": "What is this?"}]),
        )
        .refusal();
    assert_eq!(code, "model_cannot_see");
    for part in ["mmproj", "128 wide", &folder.path().display().to_string()] {
        assert!(message.contains(part), "{message}");
    }
    // Nothing was loaded for that.
    assert_eq!(daemon.status()["state"], "cold");
}

#[test]
fn what_cannot_be_shown_is_refused_by_name() {
    let daemon = Daemon::start();
    let part = "messages[0].content[1].image_url";
    let with = |picture: Value| {
        daemon
            .shown(TINY, json!([{"type": "text", "text": "a"}, picture]))
            .refusal()
    };
    for (file, reason) in [
        (
            &b"hello"[..],
            "is no PNG, JPEG, WebP, GIF, BMP or TIFF file",
        ),
        (b"II*\0", "damaged or cut off"),
        (b"\0\0\0\x18ftypheic", "is an HEIC file"),
        (b"\0\0\0\x18ftypisom", "is a video (MP4)"),
        (&RED[..RED.len() / 2], "damaged or cut off"),
    ] {
        let (code, param, message) = with(picture(file));
        assert_eq!(
            (code.as_str(), param.as_str()),
            ("invalid_image", part),
            "{message}"
        );
        assert!(message.contains(reason), "{message}");
    }
    let (_, param, _) =
        with(json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,!"}}));
    assert_eq!(param, format!("{part}.url"));
    let reply =
        daemon.chat(&json!({"model": TINY, "messages": [{"role": "system", "content": [picture(RED)]}, {"role": "user", "content": "a"}]}));
    assert_eq!(reply.refusal().1, "messages[0].content[0].image_url");
    // The worker that refused them is the one that answers.
    assert_eq!(
        daemon
            .shown(
                TINY,
                json!([picture(RED), {"type": "text", "text": "What is this?"}])
            )
            .status,
        200
    );
    assert_eq!(daemon.status()["crashes"], 0);
}

#[test]
fn tokens_are_counted_and_kept_for_the_next_turn() {
    let daemon = Daemon::start();
    let content = json!([picture(RED), {"type": "text", "text": "What is in the picture?"}]);
    let first = daemon.shown(TINY, content.clone()).json();
    assert!(
        first["usage"]["prompt_tokens"].as_u64().unwrap() > 72,
        "{first}"
    );
    let second = daemon.shown(TINY, content).json();
    assert!(
        second["usage"]["prompt_tokens_details"]["cached_tokens"]
            .as_u64()
            .unwrap()
            > 72,
        "{second}"
    );
    let log = daemon.log();
    assert!(
        !log.contains(&STANDARD.encode(RED)[..40]),
        "the picture is in the log"
    );
}

#[test]
fn shape_and_colour_are_named() {
    let daemon = Daemon::start();
    for (file, colour, shape) in [(RED, "red", "circle"), (BLUE, "blue", "square")] {
        let answer = daemon
            .shown(
                TINY,
                json!([picture(file), {"type": "text", "text": "What is in the picture?"}]),
            )
            .json();
        let text = answer["choices"][0]["message"]["content"]
            .as_str()
            .unwrap()
            .to_lowercase();
        assert!(text.contains(colour) && text.contains(shape), "{text}");
    }
}

#[test]
fn a_model_without_an_encoder_names_colours() {
    let daemon = Daemon::start();
    for (file, shape, answer) in [
        (RED, "circle", "The circle is red."),
        (BLUE, "square", "The square is blue."),
    ] {
        let question = json!({"type": "text", "text": format!("What colour is the {shape}?")});
        assert_eq!(
            daemon
                .shown(UNIFIED, json!([picture(file), question]))
                .content(),
            answer
        );
    }
}

#[test]
fn what_phones_take_is_shown() {
    let daemon = Daemon::start();
    // 48 megapixels, held upright: the camera says so.
    let photo = image::RgbImage::from_pixel(8064, 6048, image::Rgb([200, 30, 30]));
    let mut file = vec![];
    let mut encoder = image::codecs::jpeg::JpegEncoder::new(&mut file);
    let exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    image::ImageEncoder::set_exif_metadata(&mut encoder, exif.to_vec()).unwrap();
    encoder.encode_image(&photo).unwrap();
    let content = json!([picture(&file), {"type": "text", "text": "What is this?"}]);
    let body = json!({"model": TINY, "messages": [{"role": "user", "content": content}]});
    let reply = daemon.post("/v1/chat/completions/input", &body);
    assert_eq!(reply.status, 200, "{}", reply.text());
    let shown = &reply.json()["media"][0];
    assert_eq!(
        (&shown["width"], &shown["height"]),
        (&json!(672), &json!(912)),
        "{shown}"
    );
}

#[test]
fn gemmactl_shows_pictures() {
    let daemon = Daemon::start();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/pictures/red-circle.png");
    let gemmactl = |image: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gemmactl"));
        command.arg("--socket").arg(&daemon.socket).args([
            "ask",
            "--temperature",
            "0",
            "--max-tokens",
            "20",
            "--image",
        ]);
        command
            .arg(image)
            .arg("What is in the picture?")
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap()
    };
    let output = gemmactl(&file);
    assert!(
        output.status.success() && !output.stdout.is_empty(),
        "{output:?}"
    );
    let output = gemmactl(Path::new("/nonexistent.png"));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    // It begins like one. What the daemon says of it names the file, not a field of the request.
    let folder = tempfile::tempdir().unwrap();
    let cut = folder.path().join("half a picture.png");
    std::fs::write(&cut, &std::fs::read(&file).unwrap()[..40]).unwrap();
    let output = gemmactl(&cut);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(
        told.starts_with(&format!("gemmactl: {}", cut.display())) && !told.contains("messages["),
        "{told}"
    );
}
