//! A request to write down what is said: OpenAI's form with a sound in it, made into a
//! [`ChatRequest`].

use std::convert::Infallible;

use axum::body::Bytes;
use futures_util::stream;
use multer::{Constraints, Error, Field, Multipart, SizeLimit};

use crate::api::openai::chat::fields;
use crate::api::openai::common::DEFAULT_MODEL;
use crate::api::parse::Invalid;
use crate::api::parse::json::quote;
use crate::chat::{ChatRequest, MAX_SOUND_BYTES, Message, Part, Place, Role, Sampling, Sound};

/// Fields of a form.
const MAX_FIELDS: usize = 32;
/// Bytes of a field that is not the sound.
const MAX_FIELD_BYTES: u64 = 64 << 10;
/// Bytes that the parser is given at a time, so that it keeps no second copy of the whole.
const STEP: usize = 64 << 10;
/// Characters of a language's code.
const MAX_LANGUAGE: usize = 16;

/// What is to be transcribed, and how the text is sent.
#[derive(Debug)]
pub struct TranscriptionCall {
    pub model: String,
    pub request: ChatRequest,
    pub format: Format,
}

/// The shapes of a transcription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Json,
    Text,
    /// Server-sent events.
    Stream,
}

/// The fields as they came.
#[derive(Debug, Default)]
struct Form {
    file: Option<Vec<u8>>,
    model: Option<String>,
    language: Option<String>,
    prompt: Option<String>,
    format: Format,
    stream: bool,
    temperature: f32,
}

/// Reads a form whose parts are separated by `boundary`. Every bound of the request has been
/// checked when this returns.
pub async fn parse(boundary: &str, body: Bytes) -> Result<TranscriptionCall, Invalid> {
    let steps = (0..body.len())
        .step_by(STEP)
        .map(move |at| Ok::<_, Infallible>(body.slice(at..body.len().min(at + STEP))));
    let limits = SizeLimit::new()
        .per_field(MAX_FIELD_BYTES)
        .for_field("file", MAX_SOUND_BYTES as u64);
    let mut parts = Multipart::with_constraints(
        stream::iter(steps),
        boundary,
        Constraints::new().size_limit(limits),
    );
    let (mut form, mut names) = (Form::default(), vec![]);
    while let Some(part) = parts.next_field().await.map_err(broken)? {
        let name = part
            .name()
            .map(str::to_owned)
            .ok_or_else(|| Invalid::new("", "the form has a part without a name"))?;
        if names.len() == MAX_FIELDS {
            return Err(Invalid::new(
                "",
                format!("the form has more than {MAX_FIELDS} parts"),
            ));
        }
        if names.contains(&name) {
            return Err(Invalid::new(quote(&name), "is given twice"));
        }
        form.take(&name, part).await?;
        names.push(name);
    }
    form.call()
}

impl Form {
    async fn take(&mut self, name: &str, part: Field<'_>) -> Result<(), Invalid> {
        let wrong = |reason: String| Err(Invalid::new(quote(name), reason));
        if name == "file" {
            self.file = Some(file(part).await?);
            return Ok(());
        }
        let value = String::from_utf8(part.bytes().await.map_err(broken)?.to_vec());
        let Ok(value) = value else {
            return wrong("is not valid UTF-8".into());
        };
        match name {
            "model" => self.model = Some(value).filter(|model| !model.is_empty()),
            "prompt" => self.prompt = Some(value).filter(|prompt| !prompt.trim().is_empty()),
            "language" => {
                let legal = |c: char| c.is_ascii_alphabetic() || c == '-';
                if value.is_empty() || value.len() > MAX_LANGUAGE || !value.chars().all(legal) {
                    return wrong(format!(
                        "must be a language's code like `de`, not `{}`",
                        quote(&value)
                    ));
                }
                self.language = Some(value);
            }
            "response_format" => match value.as_str() {
                "json" => self.format = Format::Json,
                "text" => self.format = Format::Text,
                "srt" | "vtt" | "verbose_json" | "diarized_json" => {
                    return wrong(format!(
                        "is `{value}`, which needs times and speakers that the model does not tell; ask for `json` or `text`"
                    ));
                }
                other => return wrong(format!("must be `json` or `text`, not `{}`", quote(other))),
            },
            "temperature" => match value.parse() {
                Ok(number) if (0.0..=1.0).contains(&number) => self.temperature = number,
                _ => {
                    return wrong(format!(
                        "must be a number between 0 and 1, not `{}`",
                        quote(&value)
                    ));
                }
            },
            "stream" => match value.as_str() {
                "true" => self.stream = true,
                "false" => {}
                other => {
                    return wrong(format!("must be `true` or `false`, not `{}`", quote(other)));
                }
            },
            _ => return wrong("is not a known parameter here".into()),
        }
        Ok(())
    }

    fn call(mut self) -> Result<TranscriptionCall, Invalid> {
        let file = self
            .file
            .take()
            .ok_or_else(|| Invalid::new("file", "is required"))?;
        if self.stream && self.format == Format::Text {
            return Err(Invalid::new("stream", "goes with `json` only"));
        }
        let content = vec![
            Part::Sound(Sound { file: file.into() }),
            Part::Text(self.instruction()),
        ];
        let sampling = Sampling {
            temperature: self.temperature,
            ..Sampling::default()
        };
        let request = ChatRequest {
            sampling,
            ..ChatRequest::new(vec![Message {
                content,
                ..Message::text(Role::User, "")
            }])
        };
        request
            .check()
            .map_err(|invalid| Invalid::at(invalid, field))?;
        let format = if self.stream {
            Format::Stream
        } else {
            self.format
        };
        Ok(TranscriptionCall {
            model: self.model.unwrap_or_else(|| DEFAULT_MODEL.into()),
            request,
            format,
        })
    }

    /// What the model is told, in the manner that the family was trained with (the model card's
    /// "Automatic Speech Recognition"): the sound first, then where from and where to, then the
    /// form.
    fn instruction(&self) -> String {
        let mut text = match &self.language {
            Some(code) => format!(
                "Transcribe the following speech segment, whose language has the code `{code}`, in that language."
            ),
            None => {
                "Transcribe the following speech segment in the language that is spoken.".to_owned()
            }
        };
        text.push_str(" Write only the transcription, without line breaks, and numbers in digits.");
        if let Some(prompt) = &self.prompt {
            text.push_str("\nThis came before it, or has names and words that are in it: ");
            text.push_str(prompt);
        }
        text
    }
}

/// How the form calls a field of a chat request.
pub fn field(place: Place) -> String {
    match place {
        Place::Messages | Place::Content { .. } | Place::Part { .. } => "file".into(),
        place => fields::field(place),
    }
}

/// The sound, in one piece.
async fn file(mut part: Field<'_>) -> Result<Vec<u8>, Invalid> {
    let mut file = vec![];
    while let Some(chunk) = part.chunk().await.map_err(broken)? {
        file.extend_from_slice(&chunk);
    }
    Ok(file)
}

pub fn broken(error: Error) -> Invalid {
    match error {
        Error::FieldSizeExceeded { limit, field_name } => Invalid::new(
            quote(&field_name.unwrap_or_default()),
            format!("has more than {limit} bytes, which is the limit"),
        ),
        error => Invalid::new("", format!("the form cannot be read: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(parts: &[(&str, &[u8])]) -> Result<TranscriptionCall, Invalid> {
        let mut body = vec![];
        for (name, value) in parts {
            let file = if *name == "file" {
                "; filename=\"a.wav\""
            } else {
                ""
            };
            body.extend(
                format!("--x\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n")
                    .bytes(),
            );
            body.extend_from_slice(value);
            body.extend(b"\r\n");
        }
        body.extend(b"--x--\r\n");
        read_raw(body)
    }

    fn read_raw(body: Vec<u8>) -> Result<TranscriptionCall, Invalid> {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(parse("x", body.into()))
    }

    fn text(call: &TranscriptionCall) -> &str {
        match &call.request.messages[0].content[..] {
            [Part::Sound(_), Part::Text(text)] => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_form_becomes_a_request() {
        let call = read(&[("file", b"RIFF\r\n--y"), ("model", b"gemma-4-e2b")]).unwrap();
        assert_eq!(
            (
                call.model.as_str(),
                call.format,
                call.request.sampling.temperature
            ),
            ("gemma-4-e2b", Format::Json, 0.0)
        );
        assert!(
            matches!(&call.request.messages[0].content[0], Part::Sound(sound) if sound.file[..] == b"RIFF\r\n--y"[..])
        );
        let call = read(&[
            ("language", b"de"),
            ("prompt", b"Zo\xc3\xab"),
            ("response_format", b"text"),
            ("file", b"RIFF"),
        ])
        .unwrap();
        assert_eq!((call.model.as_str(), call.format), ("auto", Format::Text));
        assert!(
            text(&call).contains("`de`") && text(&call).contains("Zoë"),
            "{}",
            text(&call)
        );
        assert_eq!(
            read(&[
                ("file", b"RIFF"),
                ("stream", b"true"),
                ("temperature", b"0.5")
            ])
            .unwrap()
            .format,
            Format::Stream
        );
        let large = vec![7; 3 * STEP + 5];
        let call = read(&[("file", &large)]).unwrap();
        assert!(
            matches!(&call.request.messages[0].content[0], Part::Sound(sound) if sound.file[..] == large[..])
        );
    }

    #[test]
    fn everything_else_is_refused_by_name() {
        let file = ("file", &b"RIFF"[..]);
        for (parts, field, reason) in [
            (&[][..], "file", "required"),
            (&[("file", &b""[..])], "file", "empty"),
            (&[file, file], "file", "twice"),
            (
                &[file, ("response_format", b"srt")],
                "response_format",
                "needs times",
            ),
            (
                &[file, ("response_format", b"xml")],
                "response_format",
                "not `xml`",
            ),
            (
                &[file, ("language", b"de'; drop")],
                "language",
                "code like `de`",
            ),
            (
                &[file, ("temperature", b"2")],
                "temperature",
                "between 0 and 1",
            ),
            (
                &[file, ("temperature", b"NaN")],
                "temperature",
                "between 0 and 1",
            ),
            (&[file, ("stream", b"yes")], "stream", "`true` or `false`"),
            (
                &[file, ("stream", b"true"), ("response_format", b"text")],
                "stream",
                "`json` only",
            ),
            (&[file, ("prompt", b"\xff")], "prompt", "UTF-8"),
            (
                &[file, ("prompt", &[b'a'; MAX_FIELD_BYTES as usize + 1])],
                "prompt",
                "65536 bytes",
            ),
            (
                &[file, ("timestamp_granularities[]", b"word")],
                "timestamp_granularities[]",
                "not a known parameter",
            ),
        ] {
            let error = read(parts).unwrap_err();
            assert_eq!(error.field, field, "{error}");
            assert!(error.reason.contains(reason), "{error}");
        }
        let large = vec![0; MAX_SOUND_BYTES + 1];
        assert!(
            read(&[("file", &large)])
                .unwrap_err()
                .reason
                .contains("which is the limit")
        );
    }

    #[test]
    fn broken_forms_are_refused() {
        for body in [
            &b""[..],
            b"hello",
            b"--x",
            b"--x\r\n\r\n",
            b"--x\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\nRIFF",
        ] {
            assert!(read_raw(body.to_vec()).is_err(), "{body:?}");
        }
        let nameless = b"--x\r\nContent-Type: text/plain\r\n\r\na\r\n--x--\r\n";
        assert!(
            read_raw(nameless.to_vec())
                .unwrap_err()
                .reason
                .contains("without a name")
        );
        let names: Vec<String> = (0..=MAX_FIELDS).map(|i| format!("f{i}")).collect();
        assert!(
            read(
                &names
                    .iter()
                    .map(|name| (name.as_str(), &b"a"[..]))
                    .collect::<Vec<_>>()
            )
            .is_err()
        );
    }
}
