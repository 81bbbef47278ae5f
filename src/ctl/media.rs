//! Pictures and sounds for a question: files that become parts of a message.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::error::Error;
use crate::chat::{MAX_DOCUMENT_BYTES, MAX_PICTURE_BYTES, MAX_SOUND_BYTES};

/// Stands for standard input.
const INPUT: &str = "-";

/// A file that goes with a question.
pub struct Attached {
    /// What messages call it: what was typed.
    pub name: String,
    /// The part of the message that it became.
    pub part: Value,
}

/// Reads a file with one of the readers below.
pub fn attach(path: &Path, read: fn(&Path) -> Result<Value, Error>) -> Result<Attached, Error> {
    Ok(Attached {
        part: read(path)?,
        name: name(path),
    })
}

/// Whether this names standard input.
pub fn is_input(path: &Path) -> bool {
    path.as_os_str() == INPUT
}

/// Reads a picture. What it is shows in its first bytes, whatever it is called. An address is left
/// to the daemon to fetch.
pub fn picture(path: &Path) -> Result<Value, Error> {
    if let Some(url) = path
        .to_str()
        .filter(|text| text.starts_with("http://") || text.starts_with("https://"))
    {
        return Ok(json!({ "type": "image_url", "image_url": { "url": url } }));
    }
    let bytes = read(path, MAX_PICTURE_BYTES)?;
    let media = match bytes[..] {
        [0x89, b'P', b'N', b'G', ..] => "image/png",
        [0xFF, 0xD8, 0xFF, ..] => "image/jpeg",
        [
            b'R',
            b'I',
            b'F',
            b'F',
            _,
            _,
            _,
            _,
            b'W',
            b'E',
            b'B',
            b'P',
            ..,
        ] => "image/webp",
        [b'G', b'I', b'F', b'8', ..] => "image/gif",
        [b'B', b'M', ..] => "image/bmp",
        [b'I', b'I', b'*', 0, ..] | [b'M', b'M', 0, b'*', ..] => "image/tiff",
        // HEIC, AVIF, videos: the daemon says what to do about them.
        [_, _, _, _, b'f', b't', b'y', b'p', ..] => "application/octet-stream",
        _ => {
            return Err(wrong(
                path,
                "no PNG, JPEG, WebP, GIF, BMP or TIFF picture; convert it first",
            ));
        }
    };
    let url = format!("data:{media};base64,{}", STANDARD.encode(bytes));
    Ok(json!({ "type": "image_url", "image_url": { "url": url } }))
}

/// Reads a sound, in the same way.
pub fn sound(path: &Path) -> Result<Value, Error> {
    let bytes = read(path, MAX_SOUND_BYTES)?;
    let format = match bytes[..] {
        [
            b'R',
            b'I',
            b'F',
            b'F',
            _,
            _,
            _,
            _,
            b'W',
            b'A',
            b'V',
            b'E',
            ..,
        ] => "wav",
        [b'f', b'L', b'a', b'C', ..] => "flac",
        [b'O', b'g', b'g', b'S', ..] => "ogg",
        // Titles before the sound, or the mark of a frame of layer 3.
        [b'I', b'D', b'3', ..] => "mp3",
        [0xFF, second, ..] if second & 0xE6 == 0xE2 => "mp3",
        [_, _, _, _, b'f', b't', b'y', b'p', ..] => "m4a",
        [0x1A, 0x45, 0xDF, 0xA3, ..] => "webm",
        [b'F', b'O', b'R', b'M', ..] => "aiff",
        [b'c', b'a', b'f', b'f', ..] => "caf",
        _ => {
            return Err(wrong(
                path,
                "neither WAV, AIFF, CAF, MP3, FLAC, Ogg, M4A, MP4 nor WebM; convert it first",
            ));
        }
    };
    Ok(
        json!({ "type": "input_audio", "input_audio": { "data": STANDARD.encode(bytes), "format": format } }),
    )
}

/// Reads a sound of whatever format. What can be heard, the daemon says.
pub fn sound_file(path: &Path) -> Result<Vec<u8>, Error> {
    read(path, MAX_SOUND_BYTES)
}

/// Reads a file whose text is wanted. What can be read, the daemon says.
pub fn document(path: &Path) -> Result<Value, Error> {
    let bytes = read(path, MAX_DOCUMENT_BYTES)?;
    let name = path
        .file_name()
        .filter(|_| !is_input(path))
        .map(|name| name.to_string_lossy())
        .unwrap_or_default();
    Ok(json!({ "type": "file", "file": { "filename": name, "file_data": STANDARD.encode(bytes) } }))
}

fn read(path: &Path, most: usize) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![];
    let mut read = |source: &mut dyn Read| source.take(most as u64 + 1).read_to_end(&mut bytes);
    let done = if is_input(path) {
        read(&mut io::stdin().lock())
    } else {
        File::open(path).and_then(|mut file| read(&mut file))
    };
    done.map_err(|cause| Error::File {
        path: path.into(),
        cause,
    })?;
    if bytes.is_empty() {
        return Err(wrong(path, "it is empty"));
    }
    if bytes.len() > most {
        return Err(wrong(
            path,
            &format!("more than {} MiB, which is too much", most >> 20),
        ));
    }
    Ok(bytes)
}

fn wrong(path: &Path, what: &str) -> Error {
    Error::Usage(format!("{}: {what}", name(path)))
}

/// What a message calls it.
pub fn name(path: &Path) -> String {
    if is_input(path) {
        "standard input".to_owned()
    } else {
        path.display().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_known_by_their_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        let given = |bytes: &[u8], read: fn(&Path) -> Result<Value, Error>| {
            std::fs::write(&path, bytes).unwrap();
            read(&path)
        };
        let url = |bytes| {
            given(bytes, picture)
                .map(|part| part["image_url"]["url"].clone())
                .ok()
        };
        let away = picture(Path::new("https://example.org/a.png")).unwrap();
        assert_eq!(away["image_url"]["url"], "https://example.org/a.png");
        assert_eq!(
            url(b"\x89PNG"),
            Some("data:image/png;base64,iVBORw==".into())
        );
        assert_eq!(
            url(b"\xFF\xD8\xFF\xE0"),
            Some("data:image/jpeg;base64,/9j/4A==".into())
        );
        assert_eq!(
            url(b"GIF89a"),
            Some("data:image/gif;base64,R0lGODlh".into())
        );
        let format = |bytes| {
            given(bytes, sound)
                .map(|part| part["input_audio"]["format"].clone())
                .ok()
        };
        for (bytes, named) in [
            (&b"RIFF\0\0\0\0WAVE"[..], "wav"),
            (b"fLaC", "flac"),
            (b"OggS", "ogg"),
            (b"ID3", "mp3"),
            (b"\xFF\xFB\x90", "mp3"),
        ] {
            assert_eq!(format(bytes), Some(named.into()));
        }
        for bytes in [&b"%!PS"[..], b"RIFF\0\0\0\0AVI "] {
            assert!(
                matches!(given(bytes, picture), Err(Error::Usage(text)) if text.contains("no PNG, JPEG, WebP, GIF, BMP or TIFF"))
            );
            assert!(
                matches!(given(bytes, sound), Err(Error::Usage(text)) if text.contains("neither WAV"))
            );
        }
    }

    #[test]
    fn what_cannot_be_sent_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        assert!(
            matches!(picture(&path), Err(error @ Error::File { .. }) if error.message().unwrap().contains("a.png: No such file"))
        );
        std::fs::write(&path, "").unwrap();
        for read in [picture, sound, document] {
            let refused = attach(&path, read).map(|attached| attached.name);
            assert!(
                matches!(refused, Err(Error::Usage(text)) if text.ends_with("a.png: it is empty"))
            );
        }
        std::fs::write(&path, vec![0; MAX_PICTURE_BYTES + 1]).unwrap();
        assert!(
            matches!(picture(&path), Err(Error::Usage(text)) if text.contains("more than 20 MiB"))
        );
    }
}
