//! A file that is sent to be kept: OpenAI's form.

use std::convert::Infallible;

use axum::body::Bytes;
use futures_util::stream;
use multer::{Constraints, Multipart, SizeLimit};

use crate::api::openai::transcriptions::request::broken;
use crate::api::parse::Invalid;
use crate::api::parse::json::quote;
use crate::chat::MAX_DOCUMENT_BYTES;

/// Bytes of a field that is not the file.
const MAX_FIELD_BYTES: u64 = 1 << 10;
/// Bytes that the parser is given at a time, so that it keeps no second copy of the whole.
const STEP: usize = 64 << 10;
/// Purposes that mean a request to the model.
const PURPOSES: [&str; 3] = ["user_data", "vision", "assistants"];

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub struct Upload {
    pub name: String,
    pub purpose: String,
    pub bytes: Vec<u8>,
}

/// Reads a form whose parts are separated by `boundary`.
pub async fn parse(boundary: &str, body: Bytes) -> Result<Upload, Invalid> {
    let steps = (0..body.len())
        .step_by(STEP)
        .map(move |at| Ok::<_, Infallible>(body.slice(at..body.len().min(at + STEP))));
    let limits = SizeLimit::new()
        .per_field(MAX_FIELD_BYTES)
        .for_field("file", MAX_DOCUMENT_BYTES as u64);
    let fields = Constraints::new().allowed_fields(vec![
        "file",
        "purpose",
        "expires_after[anchor]",
        "expires_after[seconds]",
    ]);
    let mut parts =
        Multipart::with_constraints(stream::iter(steps), boundary, fields.size_limit(limits));
    let (mut file, mut purpose) = (None, None);
    while let Some(part) = parts.next_field().await.map_err(broken)? {
        match part.name() {
            Some("file") => {
                let name = part.file_name().unwrap_or_default().to_owned();
                file = Some((name, part.bytes().await.map_err(broken)?.to_vec()));
            }
            Some("purpose") => purpose = Some(part.text().await.map_err(broken)?),
            // How long files are kept is the configuration's to say; the answer tells.
            _ => {}
        }
    }
    let (name, bytes) = file.ok_or_else(|| Invalid::new("file", "is required"))?;
    let purpose = purpose.unwrap_or_else(|| PURPOSES[0].to_owned());
    if !PURPOSES.contains(&purpose.as_str()) {
        return Err(Invalid::new(
            "purpose",
            format!(
                "must be one of {}, not `{}`",
                PURPOSES.join(", "),
                quote(&purpose)
            ),
        ));
    }
    if bytes.is_empty() {
        return Err(Invalid::new("file", "is empty"));
    }
    Ok(Upload {
        name,
        purpose,
        bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn form(parts: &[(&str, &str)]) -> Result<Upload, Invalid> {
        let part = |(head, body): &(&str, &str)| {
            format!("--x\r\nContent-Disposition: form-data; {head}\r\n\r\n{body}\r\n")
        };
        let text: String = parts
            .iter()
            .map(part)
            .chain(["--x--\r\n".to_owned()])
            .collect();
        parse("x", text.into()).await
    }

    #[tokio::test]
    async fn a_form_is_taken_or_refused_by_name() {
        let file = ("name=\"file\"; filename=\"a.txt\"", "hi");
        let upload = Upload {
            name: "a.txt".into(),
            purpose: "user_data".into(),
            bytes: b"hi".to_vec(),
        };
        assert_eq!(
            form(&[file, ("name=\"purpose\"", "user_data")]).await,
            Ok(upload)
        );
        assert_eq!(
            form(&[("name=\"purpose\"", "user_data")])
                .await
                .unwrap_err()
                .field,
            "file"
        );
        assert_eq!(
            form(&[file, ("name=\"purpose\"", "batch")])
                .await
                .unwrap_err()
                .field,
            "purpose"
        );
        assert!(
            form(&[("name=\"file\"", "")])
                .await
                .unwrap_err()
                .reason
                .contains("empty")
        );
        assert!(form(&[file, ("name=\"other\"", "x")]).await.is_err());
    }
}
