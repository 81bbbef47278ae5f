//! A conversation as the `messages` of a request, in JSON.

use std::fmt;
use std::io::{self, Write};

use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use serde::{Serialize, Serializer};

use crate::chat::{Document, Message, Part, Role, Source};

/// The messages as JSON, and what that takes in bytes.
pub struct History<'a>(pub &'a [Message]);

impl History<'_> {
    /// Bytes of the JSON.
    pub fn bytes(&self) -> usize {
        let mut counted = Counted(0);
        // Writing into a number does not fail.
        let _ = serde_json::to_writer(&mut counted, &self.messages());
        counted.0
    }

    /// The JSON; `bytes` is what [`Self::bytes`] says.
    pub fn json(&self, bytes: usize) -> String {
        let mut json = Vec::with_capacity(bytes);
        // Nor does writing into memory, and JSON is UTF-8.
        let _ = serde_json::to_writer(&mut json, &self.messages());
        String::from_utf8(json).unwrap_or_default()
    }

    fn messages(&self) -> Vec<MessageOut<'_>> {
        self.0.iter().map(MessageOut::from).collect()
    }
}

/// Counts what is written.
struct Counted(usize);

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Serialize)]
struct MessageOut<'a> {
    role: Role,
    content: ContentOut<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum ContentOut<'a> {
    Text(&'a str),
    Parts(Vec<PartOut<'a>>),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum PartOut<'a> {
    Text { text: &'a str },
    ImageUrl { image_url: UrlOut<'a> },
    InputAudio { input_audio: AudioOut<'a> },
    File { file: FileOut<'a> },
}

#[derive(Serialize)]
struct UrlOut<'a> {
    url: Base64<'a>,
}

#[derive(Serialize)]
struct AudioOut<'a> {
    data: Base64<'a>,
}

#[derive(Serialize)]
struct FileOut<'a> {
    file_data: Base64<'a>,
}

/// A file in base64, behind what a data URL begins with. It is encoded while it is written.
struct Base64<'a> {
    scheme: &'static str,
    file: &'a [u8],
}

impl fmt::Display for Base64<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}{}",
            self.scheme,
            Base64Display::new(self.file, &STANDARD)
        )
    }
}

impl Serialize for Base64<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'a> From<&'a Message> for MessageOut<'a> {
    /// What the user says is a list of parts, what others say a text.
    fn from(message: &'a Message) -> Self {
        let content = match (&message.role, &message.content[..]) {
            (Role::System | Role::Assistant, [Part::Text(text)]) => ContentOut::Text(text),
            (_, parts) => ContentOut::Parts(parts.iter().filter_map(PartOut::of).collect()),
        };
        Self {
            role: message.role,
            content,
        }
    }
}

impl<'a> PartOut<'a> {
    /// `None` for what no caller of the bus can send.
    fn of(part: &'a Part) -> Option<Self> {
        let plain = |file| Base64 { scheme: "", file };
        Some(match part {
            Part::Text(text) => Self::Text { text },
            Part::Picture(picture) => Self::ImageUrl {
                image_url: UrlOut {
                    url: Base64 {
                        scheme: picture_scheme(&picture.file),
                        file: &picture.file,
                    },
                },
            },
            Part::Sound(sound) => Self::InputAudio {
                input_audio: AudioOut {
                    data: plain(&sound.file),
                },
            },
            Part::Document(Document {
                source: Source::File(file),
                ..
            }) => Self::File {
                file: FileOut {
                    file_data: plain(file),
                },
            },
            Part::Document(_)
            | Part::Remote(_)
            | Part::Read(_)
            | Part::Pixels(_)
            | Part::Samples(_) => return None,
        })
    }
}

/// What a picture's data URL begins with, by the picture's first bytes. Readers go by those, too.
fn picture_scheme(file: &[u8]) -> &'static str {
    match file {
        [0xFF, 0xD8, 0xFF, ..] => "data:image/jpeg;base64,",
        [b'G', b'I', b'F', b'8', ..] => "data:image/gif;base64,",
        [b'R', b'I', b'F', b'F', ..] => "data:image/webp;base64,",
        [b'B', b'M', ..] => "data:image/bmp;base64,",
        [b'I', b'I', b'*', 0, ..] | [b'M', b'M', 0, b'*', ..] => "data:image/tiff;base64,",
        _ => "data:image/png;base64,",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::openai::chat::request;
    use crate::chat::{Detail, Picture, Sound};

    #[test]
    fn a_history_is_a_request_again() {
        let messages = vec![
            Message::text(Role::System, "Be \"brief\"."),
            Message {
                content: vec![
                    Part::Picture(Picture {
                        file: b"\xFF\xD8\xFF\xE0"[..].into(),
                        detail: Detail::Auto,
                    }),
                    Part::Sound(Sound {
                        file: b"RIFF"[..].into(),
                    }),
                    Part::Document(Document {
                        name: String::new(),
                        source: Source::File(b"text"[..].into()),
                        detail: Detail::Auto,
                    }),
                    Part::Text("What is this?\n".into()),
                ],
                ..Message::text(Role::User, "")
            },
            Message::text(Role::Assistant, "A picture."),
        ];
        let history = History(&messages);
        let json = history.json(history.bytes());
        assert_eq!(json.len(), history.bytes());
        let call = request::parse(format!("{{\"messages\":{json}}}").as_bytes()).unwrap();
        assert_eq!(call.request.messages, messages);
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value[2]["content"], "A picture.");
        assert_eq!(
            value[1]["content"][0]["image_url"]["url"],
            "data:image/jpeg;base64,/9j/4A=="
        );
    }
}
