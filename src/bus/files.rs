//! Files that come as descriptors.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::error::BusError;

/// The files as data URLs, in order; no more than `limit` bytes together. Only what has an end and can be read at any place
/// is taken: a pipe could keep the daemon waiting.
pub async fn data_urls(files: Vec<OwnedFd>, limit: u64) -> Result<Vec<String>, BusError> {
    if files.is_empty() {
        return Ok(vec![]);
    }
    let read = move || {
        let mut left = limit;
        files.into_iter().enumerate().map(|(i, file)| data_url(i, &File::from(file), &mut left)).collect()
    };
    // Not here: the disk under it may be slow.
    tokio::task::spawn_blocking(read).await.unwrap_or_else(|_| Err(BusError::InvalidRequest("the files could not be read".to_owned())))
}

fn data_url(number: usize, file: &File, left: &mut u64) -> Result<String, BusError> {
    let wrong = |text: &str| BusError::InvalidRequest(format!("file {number} {text}"));
    let metadata = file.metadata().map_err(|error| wrong(&format!("cannot be looked at: {error}")))?;
    if !metadata.is_file() {
        return Err(wrong("is no file; pass a regular file or a memfd"));
    }
    // In base64.
    let size = metadata.len().div_ceil(3).saturating_mul(4);
    *left = left.checked_sub(size).ok_or_else(|| {
        BusError::TooLarge(format!("with file {number} the request is larger than what is taken (`body-size` in gemmad.toml)"))
    })?;
    let mut bytes = vec![0; metadata.len() as usize];
    file.read_exact_at(&mut bytes, 0).map_err(|error| wrong(&format!("cannot be read: {error}")))?;
    // The worker goes by the bytes, whatever is said here.
    Ok(format!("data:image/png;base64,{}", STANDARD.encode(bytes)))
}

/// Puts the files where the request says `fd:0`, `fd:1`, … in place of an address.
pub fn put_in(request: &mut Value, urls: &[String]) {
    let messages = request.get_mut("messages").and_then(Value::as_array_mut);
    for part in messages.into_iter().flatten().filter_map(|message| message.get_mut("content")?.as_array_mut()).flatten() {
        let Some(url) = part.pointer_mut("/image_url/url") else { continue };
        let number = url.as_str().and_then(|text| text.strip_prefix("fd:")?.parse::<usize>().ok());
        if let Some(data) = number.and_then(|number| urls.get(number)) {
            *url = Value::String(data.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::io::Write;

    #[tokio::test]
    async fn a_file_goes_where_it_is_named() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"abc").unwrap();
        let urls = data_urls(vec![file.into()], 100).await.unwrap();
        let image = |url: &str| json!({"type": "image_url", "image_url": {"url": url}});
        let mut request = json!({"messages": [{"content": [image("fd:0"), image("fd:1")]}, {"content": "fd:0"}]});
        put_in(&mut request, &urls);
        assert_eq!(request["messages"][0]["content"], json!([image("data:image/png;base64,YWJj"), image("fd:1")]));
    }

    #[tokio::test]
    async fn what_has_no_end_or_is_too_large_is_refused() {
        let (pipe, _end) = std::io::pipe().unwrap();
        let refused = data_urls(vec![pipe.into()], 100).await.unwrap_err();
        assert!(matches!(&refused, BusError::InvalidRequest(text) if text.contains("file 0 is no file")), "{refused:?}");
        let file = || -> OwnedFd {
            let file = tempfile::tempfile().unwrap();
            file.set_len(60).unwrap();
            file.into()
        };
        assert!(data_urls(vec![file()], 100).await.is_ok());
        assert!(matches!(data_urls(vec![file(), file()], 100).await, Err(BusError::TooLarge(_))));
    }
}
