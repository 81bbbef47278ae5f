//! Files that come as descriptors.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::error::BusError;

/// The files in base64, in order; no more than `limit` bytes together. Only what has an end and can
/// be read at any place is taken: a pipe could keep the daemon waiting.
pub async fn encode(files: Vec<OwnedFd>, limit: u64) -> Result<Vec<String>, BusError> {
    if files.is_empty() {
        return Ok(vec![]);
    }
    let read = move || {
        let mut left = limit;
        files
            .into_iter()
            .enumerate()
            .map(|(i, file)| encoded(i, &File::from(file), &mut left))
            .collect()
    };
    // Not here: the disk under it may be slow.
    tokio::task::spawn_blocking(read).await.unwrap_or_else(|_| {
        Err(BusError::InvalidRequest(
            "the files could not be read".to_owned(),
        ))
    })
}

fn encoded(number: usize, file: &File, left: &mut u64) -> Result<String, BusError> {
    let wrong = |text: &str| BusError::InvalidRequest(format!("file {number} {text}"));
    let metadata = file
        .metadata()
        .map_err(|error| wrong(&format!("cannot be looked at: {error}")))?;
    if !metadata.is_file() {
        return Err(wrong("is no file; pass a regular file or a memfd"));
    }
    // In base64.
    let size = metadata.len().div_ceil(3).saturating_mul(4);
    *left = left.checked_sub(size).ok_or_else(|| {
        BusError::TooLarge(format!("with file {number} the request is larger than what is taken (`body-size` in gemmad.toml)"))
    })?;
    let mut bytes = vec![0; metadata.len() as usize];
    file.read_exact_at(&mut bytes, 0)
        .map_err(|error| wrong(&format!("cannot be read: {error}")))?;
    Ok(STANDARD.encode(bytes))
}

/// A picture in base64, as the part of a message.
pub fn image(data: &str) -> Value {
    json!({"type": "image_url", "image_url": {"url": data_url(data)}})
}

/// A sound in base64, as the part of a message.
pub fn sound(data: &str) -> Value {
    json!({"type": "input_audio", "input_audio": {"data": data}})
}

/// A file to be read in base64, as the part of a message.
pub fn document(data: &str) -> Value {
    json!({"type": "file", "file": {"file_data": data}})
}

/// The worker goes by the bytes, whatever the type says here.
fn data_url(data: &str) -> String {
    format!("data:image/png;base64,{data}")
}

/// Puts the files where the request says `fd:0`, `fd:1`, … in place of a picture's address, a
/// sound's data or a file's.
pub fn put_in(request: &mut Value, files: &[String]) {
    let named = |place: &Value| {
        place
            .as_str()
            .and_then(|text| files.get(text.strip_prefix("fd:")?.parse::<usize>().ok()?))
    };
    let messages = request.get_mut("messages").and_then(Value::as_array_mut);
    for part in messages
        .into_iter()
        .flatten()
        .filter_map(|message| message.get_mut("content")?.as_array_mut())
        .flatten()
    {
        for (place, is_url) in [
            ("/image_url/url", true),
            ("/input_audio/data", false),
            ("/file/file_data", false),
        ] {
            let Some(place) = part.pointer_mut(place) else {
                continue;
            };
            let Some(data) = named(place) else { continue };
            *place = if is_url { data_url(data) } else { data.clone() }.into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[tokio::test]
    async fn a_file_goes_where_it_is_named() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"abc").unwrap();
        let files = encode(vec![file.into()], 100).await.unwrap();
        let image = |url: &str| json!({"type": "image_url", "image_url": {"url": url}});
        let mut request = json!({"messages": [{"content": [image("fd:0"), image("fd:1"), sound("fd:0"), document("fd:0")]}, {"content": "fd:0"}]});
        put_in(&mut request, &files);
        assert_eq!(
            request["messages"][0]["content"],
            json!([
                image("data:image/png;base64,YWJj"),
                image("fd:1"),
                sound("YWJj"),
                document("YWJj")
            ])
        );
    }

    #[tokio::test]
    async fn what_has_no_end_or_is_too_large_is_refused() {
        let (pipe, _end) = std::io::pipe().unwrap();
        let refused = encode(vec![pipe.into()], 100).await.unwrap_err();
        assert!(
            matches!(&refused, BusError::InvalidRequest(text) if text.contains("file 0 is no file")),
            "{refused:?}"
        );
        let file = || -> OwnedFd {
            let file = tempfile::tempfile().unwrap();
            file.set_len(60).unwrap();
            file.into()
        };
        assert!(encode(vec![file()], 100).await.is_ok());
        assert!(matches!(
            encode(vec![file(), file()], 100).await,
            Err(BusError::TooLarge(_))
        ));
    }
}
