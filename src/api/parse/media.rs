//! Pictures and sounds in messages: `image_url` with the file in a data URL or with its address,
//! `input_audio` with the file in base64.

use std::sync::Arc;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::api::parse::Invalid;
use crate::api::parse::json::{Json, Object, quote};
use crate::api::parse::remote::{self, is_address};
use crate::chat::{
    BUDGETS, Detail, MAX_PICTURE_BYTES, MAX_SOUND_BYTES, Part, Picture, RemoteKind, Sound,
};

/// What a client may say that a picture is. The worker goes by the file's content, and knows what to do
/// about those that are not read, and about videos.
const TYPES: [&str; 3] = ["image/", "video/", "application/octet-stream"];
/// … and how it is said.
const KNOWN: &str = "only PNG, JPEG, WebP, GIF, BMP and TIFF are supported";
/// What a client may call a sound, by its format or by its codec. It goes by the file's content as
/// well.
const SOUNDS: [&str; 15] = [
    "wav", "mp3", "flac", "ogg", "opus", "vorbis", "aac", "alac", "m4a", "mp4", "webm", "mkv",
    "aiff", "aif", "caf",
];
/// Some clients leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The rest of a part of type `image_url`: an object with the picture's `url`, or that alone.
pub fn image_url(part: &mut Object) -> Result<Part, Invalid> {
    let image = part.need("image_url")?;
    if image.is_string() {
        return picture(&image, of_detail(part)?);
    }
    let mut object = image.object()?;
    let url = object.need("url")?;
    let beside = of_detail(part)?;
    let detail = of_detail(&mut object)?;
    // It goes by what is in the file.
    for name in ["format", "media_type", "mime_type"] {
        object.string(name)?;
    }
    object.finish()?;
    picture(
        &url,
        if detail == Detail::Auto {
            beside
        } else {
            detail
        },
    )
}

/// What is said of a part's `detail`.
pub fn of_detail(object: &mut Object) -> Result<Detail, Invalid> {
    object
        .take("detail")
        .map_or(Ok(Detail::Auto), |detail| self::detail(&detail))
}

/// The rest of a part of type `input_image`.
pub fn input_image(part: &mut Object) -> Result<Part, Invalid> {
    let url = part.need("image_url")?;
    picture(&url, of_detail(part)?)
}

/// The rest of a part of type `input_audio`.
pub fn input_audio(part: &mut Object) -> Result<Sound, Invalid> {
    let mut object = part.need("input_audio")?.object()?;
    let data = object.need("data")?;
    if let Some(format) = object.take("format") {
        let named = format.string()?;
        if !SOUNDS
            .iter()
            .any(|known| known.eq_ignore_ascii_case(&named))
        {
            return format.wrong(format!(
                "is `{}`; only {} are supported",
                quote(&named),
                SOUNDS.join(", ")
            ));
        }
    }
    object.finish()?;
    let file = match data.passed_file() {
        Some(file) => file,
        None => {
            let text = data.string()?;
            // Some clients send a data URL in the place of what it has.
            let url = text.strip_prefix("data:");
            let content = url.and_then(|url| Some(url.split_once(";base64,")?.1));
            decode(&data, content.unwrap_or(&text), MAX_SOUND_BYTES)?
        }
    };
    Ok(Sound { file })
}

/// Anthropic's `source` of an image.
pub fn source(json: &Json) -> Result<Part, Invalid> {
    let mut object = json.object()?;
    let kind = object.need("type")?;
    match kind.string()?.as_str() {
        "base64" => {}
        "url" => {
            let url = object.need("url")?;
            object.finish()?;
            return remote::part(&url, RemoteKind::Picture(Detail::Auto));
        }
        other => return kind.wrong(format!("must be `base64` or `url`, not `{}`", quote(other))),
    }
    let media = object.need("media_type")?;
    if !is_picture(&media.string()?) {
        return media.wrong(format!("is `{}`; {KNOWN}", quote(&media.string()?)));
    }
    let data = object.need("data")?;
    object.finish()?;
    Ok(Part::Picture(Picture {
        file: decode(&data, &data.string()?, MAX_PICTURE_BYTES)?,
        detail: Detail::Auto,
    }))
}

/// A file of Ollama's `images`, in base64 alone: a picture, or a sound, which its first bytes tell. Also as
/// a data URL, or by its address.
pub fn bare(json: &Json) -> Result<Part, Invalid> {
    let text = json.string()?;
    if text.starts_with("data:") || is_address(&text) {
        return picture(json, Detail::Auto);
    }
    let file = decode(json, &text, MAX_PICTURE_BYTES.max(MAX_SOUND_BYTES))?;
    Ok(match is_sound(&file) {
        true => Part::Sound(Sound { file }),
        false => Part::Picture(Picture {
            file,
            detail: Detail::Auto,
        }),
    })
}

/// Whether a file begins as sounds do that are sent without a word of what they are.
fn is_sound(file: &[u8]) -> bool {
    let begins = [&b"fLaC"[..], b"OggS", b"ID3"];
    begins.iter().any(|begin| file.starts_with(begin))
        || (file.starts_with(b"RIFF") && file.get(8..12) == Some(b"WAVE"))
        // The first frame of MPEG audio.
        || matches!(file, [0xff, second, ..] if second & 0xe6 == 0xe2)
}

fn detail(json: &Json) -> Result<Detail, Invalid> {
    if !json.is_string() {
        return match json.u32(0, u32::MAX)? {
            tokens if BUDGETS.contains(&tokens) => Ok(Detail::Tokens(tokens)),
            tokens => json.wrong(format!("must be one of {BUDGETS:?}, not {tokens}")),
        };
    }
    match json.string()?.as_str() {
        "auto" => Ok(Detail::Auto),
        "low" => Ok(Detail::Low),
        "high" | "original" => Ok(Detail::High),
        other => json.wrong(format!(
            "must be `auto`, `low`, `high`, `original` or a number of tokens, not `{}`",
            quote(other)
        )),
    }
}

fn picture(json: &Json, detail: Detail) -> Result<Part, Invalid> {
    if let Some(file) = json.passed_file() {
        return Ok(Part::Picture(Picture { file, detail }));
    }
    let url = json.string()?;
    if is_address(&url) {
        return remote::part(json, RemoteKind::Picture(detail));
    }
    Ok(Part::Picture(Picture {
        file: file(json, &url)?,
        detail,
    }))
}

fn is_picture(media: &str) -> bool {
    let media = media.to_ascii_lowercase();
    TYPES.iter().any(|known| media.starts_with(known))
}

fn file(json: &Json, url: &str) -> Result<Arc<[u8]>, Invalid> {
    let scheme = url.split(':').next().unwrap_or_default();
    let Some((media, data)) = url
        .get(5..)
        .filter(|_| scheme.eq_ignore_ascii_case("data"))
        .and_then(|rest| rest.split_once(','))
    else {
        return json.wrong("must be the picture itself, `data:image/png;base64,…`, or its address");
    };
    let mut words = media.split(';').map(str::trim);
    let format = words.next().unwrap_or_default();
    if !is_picture(format) {
        return json.wrong(format!("is of type `{}`; {KNOWN}", quote(format)));
    }
    if !words
        .next_back()
        .is_some_and(|last| last.eq_ignore_ascii_case("base64"))
    {
        return json.wrong("must hold the picture in base64: `data:image/png;base64,…`");
    }
    decode(json, data, MAX_PICTURE_BYTES)
}

/// Base64 of at most `most` bytes.
pub fn decode(json: &Json, data: &str, most: usize) -> Result<Arc<[u8]>, Invalid> {
    // Before anything is set aside for it.
    if data.len() / 4 * 3 > most + 2 {
        return json.wrong(format!(
            "holds more than {most} bytes, which is the limit of one file"
        ));
    }
    match BASE64.decode(data) {
        Ok(bytes) => Ok(bytes.into()),
        Err(error) => json.wrong(format!("is not valid base64: {error}")),
    }
}

/// What to do in place of a part of this name, if it is a video's: `pictures` is what its frames are
/// sent as.
pub fn no_video(name: &str, pictures: &str) -> Option<String> {
    matches!(name, "video" | "video_url" | "input_video").then(|| {
        format!(
            "is `{name}`, which is not supported: send its frames as {pictures}, each behind its time, and its sound \
             as `input_audio`"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::parse::json::body;
    use crate::chat::Remote;

    fn parse(part: &str) -> Result<Part, Invalid> {
        image_url(&mut body(part.as_bytes()).unwrap())
    }

    #[test]
    fn data_urls_are_taken() {
        for (part, detail) in [
            (
                r#"{"image_url":{"url":"data:image/png;base64,iVBORw=="}}"#,
                Detail::Auto,
            ),
            (
                r#"{"image_url":{"url":"data:image/png;base64,iVBORw","detail":"low"}}"#,
                Detail::Low,
            ),
            (
                r#"{"image_url":{"url":"DATA:Image/JPEG;name=x.png;Base64,iVBORw==","detail":"high"}}"#,
                Detail::High,
            ),
            (
                r#"{"image_url":{"url":"data:image/jpg;base64,iVBO\u0052w==","detail":null}}"#,
                Detail::Auto,
            ),
            (
                r#"{"image_url":{"url":"data:image/webp;base64,iVBORw==","detail":560}}"#,
                Detail::Tokens(560),
            ),
        ] {
            assert_eq!(
                parse(part),
                Ok(Part::Picture(Picture {
                    file: b"\x89PNG"[..].into(),
                    detail
                })),
                "{part}"
            );
        }
        let remote = |detail| {
            Part::Remote(Remote {
                url: "https://example.org/a.png".into(),
                what: RemoteKind::Picture(detail),
            })
        };
        let part = r#"{"image_url":{"url":"HTTPS://example.org/a.png","detail":"low"}}"#;
        assert_eq!(parse(part), Ok(remote(Detail::Low)));
        let part = r#"{"image_url":"https://example.org/a.png"}"#;
        assert_eq!(
            input_image(&mut body(part.as_bytes()).unwrap()),
            Ok(remote(Detail::Auto))
        );
    }

    #[test]
    fn a_file_alone_is_a_picture_or_a_sound() {
        let parse = |text: &str| {
            let json = format!("{{\"x\":\"{text}\"}}");
            bare(&body(json.as_bytes()).unwrap().take("x").unwrap())
        };
        let is_sound = |file: &[u8]| match parse(&BASE64.encode(file)).unwrap() {
            Part::Sound(sound) => {
                assert_eq!(&sound.file[..], file);
                true
            }
            Part::Picture(picture) => {
                assert_eq!(&picture.file[..], file);
                false
            }
            other => panic!("{other:?}"),
        };
        for sound in [
            &b"RIFF\x10\0\0\0WAVEfmt "[..],
            b"fLaC\0",
            b"OggS\0",
            b"ID3\x04",
            b"\xff\xfb\x90",
        ] {
            assert!(is_sound(sound), "{sound:?}");
        }
        for picture in [
            &b"\x89PNG"[..],
            b"\xff\xd8\xff\xe0",
            b"RIFF\x10\0\0\0WEBP",
            b"GIF8",
            b"RIFF",
        ] {
            assert!(!is_sound(picture), "{picture:?}");
        }
        assert!(matches!(
            parse("data:image/png;base64,iVBORw=="),
            Ok(Part::Picture(_))
        ));
        assert!(matches!(
            parse("https://example.org/a.png"),
            Ok(Part::Remote(_))
        ));
        assert_eq!(parse("a picture").unwrap_err().field, "x");
    }

    fn assert_refused(part: &str, field: &str, reason: &str) {
        let error = parse(part).unwrap_err();
        assert_eq!(error.field, field, "{part}: {error}");
        assert!(error.reason.contains(reason), "{part}: {error}");
    }

    #[test]
    fn other_addresses_are_refused_by_name() {
        for (part, field, reason) in [
            (r#"{}"#, "image_url", "required"),
            (
                r#"{"image_url":"data:audio/wav;base64,AAAA"}"#,
                "image_url",
                "`audio/wav`",
            ),
            (r#"{"image_url":7}"#, "image_url", "must be an object"),
            (r#"{"image_url":{}}"#, "image_url.url", "required"),
            (
                r#"{"image_url":{"url":7}}"#,
                "image_url.url",
                "must be a string",
            ),
            (
                r#"{"image_url":{"url":"https://"}}"#,
                "image_url.url",
                "is not an address",
            ),
            (
                r#"{"image_url":{"url":"file:///etc/passwd"}}"#,
                "image_url.url",
                "must be the picture itself",
            ),
            (
                r#"{"image_url":{"url":"data:"}}"#,
                "image_url.url",
                "must be the picture itself",
            ),
            (
                r#"{"image_url":{"url":"datä:,"}}"#,
                "image_url.url",
                "must be the picture itself",
            ),
        ] {
            assert_refused(part, field, reason);
        }
    }

    #[test]
    fn other_data_urls_are_refused_by_name() {
        for (part, field, reason) in [
            (
                r#"{"image_url":{"url":"data:audio/wav;base64,AAAA"}}"#,
                "image_url.url",
                "`audio/wav`",
            ),
            (
                r#"{"image_url":{"url":"data:;base64,AAAA"}}"#,
                "image_url.url",
                "only PNG, JPEG",
            ),
            (
                r#"{"image_url":{"url":"data:image/png,AAAA"}}"#,
                "image_url.url",
                "in base64",
            ),
            (
                r#"{"image_url":{"url":"data:image/png;base64,AA*A"}}"#,
                "image_url.url",
                "not valid base64",
            ),
            (
                r#"{"image_url":{"url":"data:image/png;base64,AA A"}}"#,
                "image_url.url",
                "not valid base64",
            ),
            (
                r#"{"image_url":{"url":"data:image/png;base64,AAAA","detail":"full"}}"#,
                "image_url.detail",
                "not `full`",
            ),
            (
                r#"{"image_url":{"url":"data:image/png;base64,AAAA","detail":71}}"#,
                "image_url.detail",
                "[70, 140, 280, 560, 1120]",
            ),
            (
                r#"{"image_url":{"url":"data:image/png;base64,AAAA","size":7}}"#,
                "image_url.size",
                "not a known parameter",
            ),
        ] {
            assert_refused(part, field, reason);
        }
        let large = format!(
            r#"{{"image_url":{{"url":"data:image/png;base64,{}"}}}}"#,
            "A".repeat(MAX_PICTURE_BYTES / 3 * 4 + 8)
        );
        assert!(
            parse(&large)
                .unwrap_err()
                .reason
                .contains("the limit of one file")
        );
    }

    #[test]
    fn sounds_are_taken_and_refused_by_name() {
        let parse = |part: &str| input_audio(&mut body(part.as_bytes()).unwrap());
        for format in ["\"wav\"", "\"MP3\"", "\"opus\"", "null"] {
            for data in ["UklGRg", "data:audio/wav;base64,UklGRg=="] {
                let part = format!(r#"{{"input_audio":{{"data":"{data}","format":{format}}}}}"#);
                let file = b"RIFF"[..].into();
                assert_eq!(parse(&part), Ok(Sound { file }), "{part}");
            }
        }
        for (part, field, reason) in [
            (r#"{}"#, "input_audio", "required"),
            (r#"{"input_audio":{}}"#, "input_audio.data", "required"),
            (
                r#"{"input_audio":{"data":"UklGRg==","format":"amr"}}"#,
                "input_audio.format",
                "`amr`; only wav, mp3",
            ),
            (
                r#"{"input_audio":{"data":"data:audio/wav,UklGRg==","format":"wav"}}"#,
                "input_audio.data",
                "not valid base64",
            ),
            (
                r#"{"input_audio":{"data":"UklGRg==","format":"wav","rate":7}}"#,
                "input_audio.rate",
                "not a known parameter",
            ),
        ] {
            let error = parse(part).unwrap_err();
            assert_eq!(error.field, field, "{part}: {error}");
            assert!(error.reason.contains(reason), "{part}: {error}");
        }
    }
}
