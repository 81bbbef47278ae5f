//! What requests to `/api/chat` and `/api/generate` say in the same fields, and what becomes of both.
//!
//! Nothing is silently dropped that could change an answer. How a model is run (`options.num_ctx`, …)
//! and how long it stays (`keep_alive`) is the administrator's choice: such wishes are taken, and named on
//! the answer as ignored.

use crate::api::fields::{self, Level};
use crate::api::ignored::Ignored;
use crate::api::openai::chat::{fields as chat_fields, request as chat};
use crate::api::openai::common;
use crate::api::parse::Invalid;
use crate::api::parse::json::{Object, quote};
use crate::api::parse::media;
use crate::chat::{ChatRequest, Format, OutputLimits, Part, PartKind, Place, Sampling, Thinking};

/// Options that some clients put beside `options`, where Ollama does not look for them.
const OPTIONS: [&str; 9] = [
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "seed",
    "stop",
    "repeat_penalty",
    "presence_penalty",
    "frequency_penalty",
];

/// A request, checked.
#[derive(Debug)]
pub struct Call {
    /// As the client spelled it.
    pub model: String,
    pub wish: Wish,
    pub stream: bool,
    pub endpoint: Endpoint,
    /// What was left out of the request.
    pub ignored: Ignored,
}

/// What is wished of the model.
#[derive(Debug, PartialEq)]
pub enum Wish {
    Answer(Box<ChatRequest>),
    /// Nothing is asked: that it is in memory, or that it is not.
    Load,
    Unload,
}

/// Where a request came to, which decides what its fields are called and how its answer looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub kind: Kind,
    /// The first message is the request's `system`.
    pub system: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Chat,
    Generate,
}

impl Endpoint {
    /// The field of this API that a field of a chat request is.
    pub fn field(self, place: Place) -> String {
        let own = |message: usize| match (self.system, message) {
            (true, 0) => None,
            (system, message) => Some(message - usize::from(system)),
        };
        let is_chat = self.kind == Kind::Chat;
        let place = match place {
            Place::Content { message } | Place::Part { message, .. } if own(message).is_none() => {
                return "system".into();
            }
            Place::Content { .. } | Place::Messages if !is_chat => return "prompt".into(),
            Place::Content { message } => Place::Content {
                message: own(message).unwrap_or_default(),
            },
            Place::Part {
                message,
                part,
                kind: PartKind::Picture | PartKind::Sound,
            } => {
                let images = format!("images[{part}]");
                return match own(message) {
                    Some(message) if is_chat => format!("messages[{message}].{images}"),
                    _ => images,
                };
            }
            Place::Format | Place::Schema => return "format".into(),
            Place::MaxTokens => return "options.num_predict".into(),
            place => place,
        };
        let name = chat_fields::field(place);
        match place {
            Place::Temperature
            | Place::TopP
            | Place::MinP
            | Place::FrequencyPenalty
            | Place::PresencePenalty
            | Place::RepeatPenalty
            | Place::LogitBias
            | Place::TokenBias(_)
            | Place::MinTokens
            | Place::IgnoreEos
            | Place::Stops
            | Place::Stop(_) => format!("options.{name}"),
            _ => name,
        }
    }
}

/// What both endpoints take.
pub struct Common {
    head: Head,
    /// Without what is said.
    request: ChatRequest,
}

struct Head {
    model: String,
    stream: bool,
    keep: Option<Keep>,
    ignored: Ignored,
}

/// How long the model is to stay after this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    Not,
    AWhile,
}

impl Common {
    pub fn take(object: &mut Object) -> Result<Self, Invalid> {
        let mut ignored = Ignored::default();
        let Options {
            sampling,
            mut output,
            effort,
        } = options(object, &mut ignored)?;
        // Where Open WebUI has it.
        let beside = chat::most(object, "num_predict")?;
        output.max_tokens = output.max_tokens.or(beside);
        if let Some(name) = OPTIONS.iter().find(|name| object.peek(name).is_some()) {
            return object.lacks(name, "belongs into `options`");
        }
        Ok(Self {
            head: Head {
                model: common::model(object)?,
                stream: object.switch("stream", true)?,
                keep: keep(object)?,
                ignored,
            },
            request: ChatRequest {
                format: format(object)?,
                sampling,
                output,
                thinking: think(object)?.or(effort).unwrap_or_default(),
                logprobs: chat::logprobs(object)?,
                ..ChatRequest::new(vec![])
            },
        })
    }

    /// Nothing is asked.
    pub fn idle(self, object: Object, endpoint: Endpoint) -> Result<Call, Invalid> {
        let wish = match self.head.keep {
            Some(Keep::Not) => Wish::Unload,
            Some(Keep::AWhile) | None => Wish::Load,
        };
        self.head.call(object, endpoint, wish)
    }

    /// Something is asked, which `say` adds to what this says of the answer.
    pub fn asking(
        self,
        object: Object,
        endpoint: Endpoint,
        say: impl FnOnce(ChatRequest) -> ChatRequest,
    ) -> Result<Call, Invalid> {
        let request = say(self.request);
        request
            .check()
            .map_err(|invalid| Invalid::at(invalid, |place| endpoint.field(place)))?;
        let wish = Wish::Answer(Box::new(request));
        self.head.call(object, endpoint, wish)
    }
}

impl Head {
    fn call(mut self, mut object: Object, endpoint: Endpoint, wish: Wish) -> Result<Call, Invalid> {
        if self.keep.is_some() && wish != Wish::Unload {
            self.ignored.note("keep_alive", "");
        }
        fields::neutral(&mut object, Level::Request)?;
        object.finish()?;
        Ok(Call {
            model: self.model,
            wish,
            stream: self.stream,
            endpoint,
            ignored: self.ignored,
        })
    }
}

#[derive(Default)]
struct Options {
    sampling: Sampling,
    output: OutputLimits,
    /// Where Open WebUI has it.
    effort: Option<Thinking>,
}

/// `options`: how tokens are drawn, and when the answer ends.
fn options(object: &mut Object, ignored: &mut Ignored) -> Result<Options, Invalid> {
    let Some(options) = object.take("options") else {
        return Ok(Options::default());
    };
    let mut options = options.object()?;
    for name in fields::given(&options, "options") {
        ignored.note(&format!("options.{name}"), "");
    }
    let effort = options.take("reasoning_effort");
    let taken = Options {
        sampling: common::sampling(&mut options)?,
        output: chat::output(&mut options)?,
        effort: effort.map(|name| common::effort(&name)).transpose()?,
    };
    fields::neutral_members(&mut options, "options")?;
    fields::neutral(&mut options, Level::Request)?;
    options.finish()?;
    Ok(taken)
}

/// `think`: a switch, or an effort.
fn think(object: &mut Object) -> Result<Option<Thinking>, Invalid> {
    let Some(think) = object.take("think") else {
        return Ok(None);
    };
    if think.is_string() {
        return common::effort(&think).map(Some);
    }
    Ok(Some(match think.boolean()? {
        true => Thinking::On { budget: None },
        false => Thinking::Off,
    }))
}

/// `json`, or a schema.
fn format(object: &mut Object) -> Result<Format, Invalid> {
    let Some(form) = object.take("format") else {
        return Ok(Format::Text);
    };
    if form.is_object() {
        return Ok(Format::JsonSchema {
            schema: form.opaque_object()?,
            strict: false,
        });
    }
    match form.string()?.as_str() {
        "" => Ok(Format::Text),
        "json" => Ok(Format::JsonObject),
        other => form.wrong(format!(
            "must be `json` or a JSON Schema, not `{}`",
            quote(other)
        )),
    }
}

/// `keep_alive`: seconds, or a time such as `5m`; below 0 for ever.
fn keep(object: &mut Object) -> Result<Option<Keep>, Invalid> {
    let Some(keep) = object.take("keep_alive") else {
        return Ok(None);
    };
    let is_none = match keep.is_string() {
        false => keep.number()? == 0.0,
        true => {
            let text = keep.string()?;
            let digits: Vec<char> = text.chars().filter(char::is_ascii_digit).collect();
            let plain = |c: char| c.is_ascii_digit() || "-+.hmsnuµ".contains(c);
            if digits.is_empty() || !text.chars().all(plain) {
                return keep.wrong("must be a number of seconds or a time such as `5m`");
            }
            digits.iter().all(|digit| *digit == '0')
        }
    };
    Ok(Some(match is_none {
        true => Keep::Not,
        false => Keep::AWhile,
    }))
}

/// The pictures and sounds of a message or of a prompt.
pub fn images(object: &mut Object) -> Result<Vec<Part>, Invalid> {
    let Some(images) = object.take("images") else {
        return Ok(vec![]);
    };
    images.array()?.iter().map(media::bare).collect()
}
