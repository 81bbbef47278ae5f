//! Pictures for a question: files that become data URLs.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::error::Error;
use crate::chat::MAX_PICTURE_BYTES;

/// Reads a picture. What it is shows in its first bytes, whatever it is called.
pub fn read(path: &Path) -> Result<String, Error> {
    let wrong = |what: String| Error::Usage(format!("{}: {what}", path.display()));
    let mut bytes = vec![];
    let file = File::open(path).map_err(|error| wrong(error.to_string()))?;
    file.take(MAX_PICTURE_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(|error| wrong(error.to_string()))?;
    if bytes.len() > MAX_PICTURE_BYTES {
        return Err(wrong(format!("more than {} MiB: too much for a picture", MAX_PICTURE_BYTES >> 20)));
    }
    url(&bytes).ok_or_else(|| wrong("neither a PNG nor a JPEG picture; convert it first".into()))
}

fn url(bytes: &[u8]) -> Option<String> {
    let media = match bytes {
        [0x89, b'P', b'N', b'G', ..] => "image/png",
        [0xFF, 0xD8, 0xFF, ..] => "image/jpeg",
        _ => return None,
    };
    Some(format!("data:{media};base64,{}", STANDARD.encode(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_known_by_their_content() {
        assert_eq!(url(b"\x89PNG").as_deref(), Some("data:image/png;base64,iVBORw=="));
        assert_eq!(url(b"\xFF\xD8\xFF\xE0").as_deref(), Some("data:image/jpeg;base64,/9j/4A=="));
        assert_eq!(url(b"GIF89a"), None);
        assert_eq!(url(b""), None);
    }

    #[test]
    fn what_cannot_be_shown_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        assert!(matches!(read(&path), Err(Error::Usage(text)) if text.contains("a.png: No such file")));
        std::fs::write(&path, "hello").unwrap();
        assert!(matches!(read(&path), Err(Error::Usage(text)) if text.contains("neither a PNG nor a JPEG")));
        std::fs::write(&path, vec![0; MAX_PICTURE_BYTES + 1]).unwrap();
        assert!(matches!(read(&path), Err(Error::Usage(text)) if text.contains("more than 20 MiB")));
    }
}
