//! Files in messages: `file`, `input_file` and Anthropic's `document`, each with the file in base64
//! or with the id of one that was sent before.

use std::sync::Arc;

use crate::api::parse::Invalid;
use crate::api::parse::json::{Json, Object, quote};
use crate::api::parse::media::{decode, of_detail};
use crate::api::parse::remote;
use crate::chat::{Detail, Document, MAX_DOCUMENT_BYTES, Part, RemoteKind, Source};

/// The rest of a part of type `file`.
pub fn file(part: &mut Object) -> Result<Part, Invalid> {
    let beside = of_detail(part)?;
    let mut object = part.need("file")?.object()?;
    let detail = match of_detail(&mut object)? {
        Detail::Auto => beside,
        detail => detail,
    };
    let document = fields(&mut object, detail)?;
    object.finish()?;
    Ok(Part::Document(document))
}

/// The rest of a part of type `input_file`.
pub fn input_file(part: &mut Object) -> Result<Part, Invalid> {
    let detail = of_detail(part)?;
    if let Some(url) = part.take("file_url") {
        let name = part.string("filename")?.unwrap_or_default();
        return remote::part(&url, RemoteKind::Document(name, detail));
    }
    Ok(Part::Document(fields(part, detail)?))
}

fn fields(object: &mut Object, detail: Detail) -> Result<Document, Invalid> {
    let name = object.string("filename")?.unwrap_or_default();
    let source = match (object.take("file_id"), object.take("file_data")) {
        (Some(id), None) => Source::Kept(id.string()?),
        (None, Some(data)) => Source::File(data_of(&data)?),
        (Some(id), Some(_)) => return id.wrong("and `file_data` exclude each other"),
        (None, None) => return object.lacks("file_data", "is required (or `file_id`)"),
    };
    Ok(Document {
        name,
        source,
        detail,
    })
}

/// A data URL of any type, or base64 alone.
fn data_of(json: &Json) -> Result<Arc<[u8]>, Invalid> {
    if let Some(file) = json.passed_file() {
        return Ok(file);
    }
    let text = json.string()?;
    match text.split_once(',') {
        Some((media, data))
            if media
                .get(..5)
                .is_some_and(|scheme| scheme.eq_ignore_ascii_case("data:")) =>
        {
            if !media
                .rsplit(';')
                .next()
                .is_some_and(|last| last.trim().eq_ignore_ascii_case("base64"))
            {
                return json.wrong("must hold the file in base64: `data:application/pdf;base64,…`");
            }
            decode(json, data, MAX_DOCUMENT_BYTES)
        }
        _ => decode(json, &text, MAX_DOCUMENT_BYTES),
    }
}

/// The rest of Anthropic's block `document`.
pub fn document(block: &mut Object) -> Result<Part, Invalid> {
    let name = block.string("title")?.unwrap_or_default();
    if let Some(context) = block.take("context") {
        return context.wrong("is not supported; put it into a `text` block");
    }
    if let Some(citations) = block.take("citations") {
        let mut object = citations.object()?;
        if object.switch("enabled", false)? {
            return citations
                .wrong("cannot be `enabled`: the model does not say where it has something from");
        }
    }
    let json = block.need("source")?;
    let mut source = json.object()?;
    let kind = source.need("type")?;
    let found = match kind.string()?.as_str() {
        "base64" => {
            // It goes by what is in the file.
            source.take("media_type");
            let data = source.need("data")?;
            Source::File(decode(&data, &data.string()?, MAX_DOCUMENT_BYTES)?)
        }
        "text" => {
            source.take("media_type");
            Source::File(source.need("data")?.string()?.into_bytes().into())
        }
        "file" => Source::Kept(source.need("file_id")?.string()?),
        "url" => {
            let url = source.need("url")?;
            source.finish()?;
            return remote::part(&url, RemoteKind::Document(name, Detail::Auto));
        }
        other => {
            return kind.wrong(format!(
                "must be `base64`, `text`, `file` or `url`, not `{}`",
                quote(other)
            ));
        }
    };
    source.finish()?;
    Ok(Part::Document(Document {
        name,
        source: found,
        detail: Detail::Auto,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::parse::json::body;
    use crate::chat::Remote;

    fn named(name: &str, file: &[u8]) -> Part {
        Part::Document(Document {
            name: name.into(),
            source: Source::File(file.into()),
            detail: Detail::Auto,
        })
    }

    fn kept(id: &str) -> Part {
        Part::Document(Document {
            name: String::new(),
            source: Source::Kept(id.into()),
            detail: Detail::Auto,
        })
    }

    fn elsewhere(name: &str) -> Part {
        Part::Remote(Remote {
            url: "https://example.org/a.pdf".into(),
            what: RemoteKind::Document(name.into(), Detail::Auto),
        })
    }

    type Read = fn(&mut Object) -> Result<Part, Invalid>;

    #[test]
    fn every_shape_is_taken() {
        for (read, part, document) in [
            (
                file as Read,
                r#"{"file":{"filename":"a.txt","file_data":"data:text/plain;base64,aGk="}}"#,
                named("a.txt", b"hi"),
            ),
            (file, r#"{"file":{"file_data":"aGk"}}"#, named("", b"hi")),
            (file, r#"{"file":{"file_id":"file-1"}}"#, kept("file-1")),
            (
                input_file,
                r#"{"filename":"a","file_data":"DATA:;Base64,aGk="}"#,
                named("a", b"hi"),
            ),
            (input_file, r#"{"file_id":"file-1"}"#, kept("file-1")),
            (
                super::document,
                r#"{"title":"a","source":{"type":"base64","media_type":"application/pdf","data":"aGk="}}"#,
                named("a", b"hi"),
            ),
            (
                super::document,
                r#"{"source":{"type":"text","media_type":"text/plain","data":"hi"},"citations":{"enabled":false}}"#,
                named("", b"hi"),
            ),
            (
                super::document,
                r#"{"source":{"type":"file","file_id":"file-1"}}"#,
                kept("file-1"),
            ),
            (
                super::document,
                r#"{"title":"a","source":{"type":"url","url":"https://example.org/a.pdf"}}"#,
                elsewhere("a"),
            ),
            (
                input_file,
                r#"{"file_url":"https://example.org/a.pdf","filename":"a"}"#,
                elsewhere("a"),
            ),
            (
                input_file,
                r#"{"file_url":"https://example.org/a.pdf"}"#,
                elsewhere(""),
            ),
        ] {
            assert_eq!(
                read(&mut crate::api::parse::json::body(part.as_bytes()).unwrap()),
                Ok(document),
                "{part}"
            );
        }
    }

    #[test]
    fn detail_is_how_closely_pages_are_looked_at() {
        for (read, part, expected) in [
            (
                file as Read,
                r#"{"file":{"file_id":"a","detail":"low"}}"#,
                Detail::Low,
            ),
            (
                file,
                r#"{"file":{"file_id":"a"},"detail":"original"}"#,
                Detail::High,
            ),
            (
                input_file,
                r#"{"file_id":"a","detail":560}"#,
                Detail::Tokens(560),
            ),
        ] {
            let Ok(Part::Document(document)) = read(&mut body(part.as_bytes()).unwrap()) else {
                panic!("{part}");
            };
            assert_eq!(document.detail, expected, "{part}");
        }
    }

    #[test]
    fn everything_else_is_refused_by_name() {
        for (read, part, field, reason) in [
            (file as Read, r#"{}"#, "file", "required"),
            (
                file,
                r#"{"file":{}}"#,
                "file.file_data",
                "required (or `file_id`)",
            ),
            (
                file,
                r#"{"file":{"file_data":"a*"}}"#,
                "file.file_data",
                "base64",
            ),
            (
                file,
                r#"{"file":{"file_data":"data:text/plain,hi"}}"#,
                "file.file_data",
                "in base64",
            ),
            (
                file,
                r#"{"file":{"file_data":"aGk=","file_id":"x"}}"#,
                "file.file_id",
                "exclude each other",
            ),
            (
                file,
                r#"{"file":{"file_data":"aGk=","size":7}}"#,
                "file.size",
                "not a known parameter",
            ),
            (
                input_file,
                r#"{"file_url":"a.pdf"}"#,
                "file_url",
                "is not an address",
            ),
            (
                input_file,
                r#"{"file_id":"a","detail":"most"}"#,
                "detail",
                "`original`",
            ),
            (
                super::document,
                r#"{"source":{"type":"url"}}"#,
                "source.url",
                "required",
            ),
            (
                super::document,
                r#"{"source":{"type":"content","content":[]}}"#,
                "source.type",
                "not `content`",
            ),
            (
                super::document,
                r#"{"source":{"type":"text","data":"a"},"citations":{"enabled":true}}"#,
                "citations",
                "cannot be `enabled`",
            ),
        ] {
            let error = read(&mut body(part.as_bytes()).unwrap()).unwrap_err();
            assert_eq!(error.field, field, "{part}: {error}");
            assert!(error.reason.contains(reason), "{part}: {error}");
        }
    }
}
