//! A request to write down what is said: OpenAI's form with a sound in it. Each piece of the sound becomes
//! a [`ChatRequest`].

use std::convert::Infallible;

use axum::body::Bytes;
use futures_util::stream;
use multer::{Constraints, Error, Field, Multipart, SizeLimit};

use crate::api::openai::chat::fields;
use crate::api::openai::common::DEFAULT_MODEL;
use crate::api::parse::Invalid;
use crate::api::parse::json::quote;
use crate::chat::{
    ChatRequest, DecodedMedia, MAX_SOUND_BYTES, Message, OutputLimits, Part, Place, Role, Sampling,
};

/// Fields of a form.
const MAX_FIELDS: usize = 32;
/// Bytes of a field that is not the sound.
const MAX_FIELD_BYTES: u64 = 64 << 10;
/// Bytes that the parser is given at a time, so that it keeps no second copy of the whole.
const STEP: usize = 64 << 10;
/// May be given several times.
const GRANULARITIES: &str = "timestamp_granularities[]";
/// Characters of a language's code.
const MAX_LANGUAGE: usize = 16;

/// Seconds of a piece at most: what the model hears at once, and what a subtitle or a segment has. The
/// longer a piece is, the better a sentence is understood.
const LONGEST_PIECE: u32 = 30;
const LONGEST_SEGMENT: u32 = 10;
/// Tokens of a piece's text at most. The fastest speakers need a third of it in the languages that take
/// the most tokens.
const MAX_PIECE_TOKENS: u32 = 1024;

/// What is to be transcribed, and how the text is sent.
#[derive(Debug)]
pub struct TranscriptionCall {
    pub model: String,
    /// The file.
    pub sound: Vec<u8>,
    pub wish: Wish,
}

/// What is wished of each piece.
#[derive(Debug)]
pub struct Wish {
    pub format: Format,
    pub temperature: f32,
    /// A code like `de`.
    pub language: Option<String>,
    instruction: String,
}

/// The shapes of a transcription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Json,
    Text,
    /// Subtitles.
    Srt,
    Vtt,
    /// JSON with times.
    Verbose,
    /// Server-sent events.
    Stream,
}

impl Format {
    /// By the names that `response_format` has for them.
    const NAMES: [(&str, Self); 5] = [
        ("json", Self::Json),
        ("text", Self::Text),
        ("srt", Self::Srt),
        ("vtt", Self::Vtt),
        ("verbose_json", Self::Verbose),
    ];

    /// The error continues "`response_format` …".
    fn named(name: &str) -> Result<Self, String> {
        match Self::NAMES.iter().find(|(known, _)| *known == name) {
            Some((_, format)) => Ok(*format),
            None if name == "diarized_json" => Err(
                "is `diarized_json`, which names speakers, and the model does not tell them apart; ask for `verbose_json`".into(),
            ),
            None => Err(format!(
                "must be `json`, `text`, `srt`, `vtt` or `verbose_json`, not `{}`",
                quote(name)
            )),
        }
    }

    /// Seconds.
    pub fn longest_piece(self) -> u32 {
        match self {
            Self::Json | Self::Text | Self::Stream => LONGEST_PIECE,
            Self::Srt | Self::Vtt | Self::Verbose => LONGEST_SEGMENT,
        }
    }
}

impl Wish {
    /// The request for a piece: `part` has its samples, which are in a file.
    pub fn request(&self, part: Part, decoded: DecodedMedia) -> ChatRequest {
        let message = Message {
            content: vec![part, Part::Text(self.instruction.clone())],
            ..Message::text(Role::User, "")
        };
        ChatRequest {
            sampling: Sampling {
                temperature: self.temperature,
                ..Sampling::default()
            },
            output: OutputLimits {
                max_tokens: Some(MAX_PIECE_TOKENS),
                ..OutputLimits::default()
            },
            logprobs: (self.format == Format::Verbose).then_some(0),
            whole: self.format != Format::Stream,
            decoded: Some(decoded),
            ..ChatRequest::new(vec![message])
        }
    }
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
    has_times: bool,
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
        if names.contains(&name) && name != GRANULARITIES {
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
            "response_format" => match Format::named(&value) {
                Ok(format) => self.format = format,
                Err(reason) => return wrong(reason),
            },
            GRANULARITIES | "timestamp_granularities" => match value.as_str() {
                "segment" => self.has_times = true,
                "word" => {
                    return wrong(
                        "has `word`, and the model does not tell when it hears a word; ask for `segment`".into(),
                    );
                }
                other => return wrong(format!("must be `segment`, not `{}`", quote(other))),
            },
            // Where a sound is cut is the server's to choose anyway.
            "chunking_strategy" if value == "auto" => {}
            "chunking_strategy" => {
                return wrong("must be `auto`: long sounds are cut at their pauses".into());
            }
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
        if file.is_empty() {
            return Err(Invalid::new("file", "is empty"));
        }
        if self.stream && self.format != Format::Json {
            return Err(Invalid::new("stream", "goes with `json` only"));
        }
        if self.has_times && self.format != Format::Verbose {
            let reason = "goes with the `response_format` `verbose_json` only";
            return Err(Invalid::new(GRANULARITIES, reason));
        }
        let instruction = self.instruction();
        Ok(TranscriptionCall {
            model: self.model.unwrap_or_else(|| DEFAULT_MODEL.into()),
            sound: file,
            wish: Wish {
                format: match self.stream {
                    true => Format::Stream,
                    false => self.format,
                },
                temperature: self.temperature,
                language: self.language,
                instruction,
            },
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
    use crate::chat::Samples;

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

    #[test]
    fn a_form_becomes_a_request() {
        let call = read(&[("file", b"RIFF\r\n--y"), ("model", b"gemma-4-e2b")]).unwrap();
        assert_eq!(
            (call.model.as_str(), call.wish.format),
            ("gemma-4-e2b", Format::Json)
        );
        assert_eq!(
            (call.wish.temperature, &call.sound[..]),
            (0.0, &b"RIFF\r\n--y"[..])
        );
        let call = read(&[
            ("language", b"de"),
            ("prompt", b"Zo\xc3\xab"),
            ("response_format", b"text"),
            ("file", b"RIFF"),
            ("chunking_strategy", b"auto"),
        ])
        .unwrap();
        assert_eq!(
            (call.model.as_str(), call.wish.format),
            ("auto", Format::Text)
        );
        let text = &call.wish.instruction;
        assert!(text.contains("`de`") && text.contains("Zoë"), "{text}");
        let stream = [
            ("file", &b"RIFF"[..]),
            ("stream", b"true"),
            ("temperature", b"0.5"),
        ];
        assert_eq!(read(&stream).unwrap().wish.format, Format::Stream);
        let times = [
            ("file", &b"RIFF"[..]),
            ("timestamp_granularities[]", b"segment"),
            ("timestamp_granularities[]", b"segment"),
            ("response_format", b"verbose_json"),
        ];
        assert_eq!(read(&times).unwrap().wish.format, Format::Verbose);
        let large = vec![7; 3 * STEP + 5];
        assert_eq!(read(&[("file", &large)]).unwrap().sound, large);
    }

    #[test]
    fn a_piece_is_asked_for_with_its_samples() {
        let wish = read(&[("file", b"RIFF"), ("response_format", b"verbose_json")])
            .unwrap()
            .wish;
        let part = Part::Samples(Samples { count: 640, at: 0 });
        let request = wish.request(
            part.clone(),
            DecodedMedia::new(tempfile::tempfile().unwrap()),
        );
        request.check().unwrap();
        assert!(
            matches!(&request.messages[0].content[..], [first, Part::Text(_)] if *first == part)
        );
        assert!(request.whole && request.media_file().is_some());
        assert_eq!(request.logprobs, Some(0));
    }

    #[test]
    fn everything_else_is_refused_by_name() {
        let file = ("file", &b"RIFF"[..]);
        for (parts, field, reason) in [
            (&[][..], "file", "required"),
            (&[("file", &b""[..])], "file", "empty"),
            (&[file, file], "file", "twice"),
            (
                &[file, ("response_format", b"diarized_json")],
                "response_format",
                "names speakers",
            ),
            (
                &[file, ("timestamp_granularities[]", b"word")],
                "timestamp_granularities[]",
                "when it hears a word",
            ),
            (
                &[file, ("timestamp_granularities[]", b"segment")],
                "timestamp_granularities[]",
                "`verbose_json` only",
            ),
            (
                &[file, ("chunking_strategy", b"{}")],
                "chunking_strategy",
                "must be `auto`",
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
                "ask for `segment`",
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
