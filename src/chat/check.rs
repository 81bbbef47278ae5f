//! The bounds of a request, checked once at the edge.

use std::collections::HashSet;
use std::fmt;
use std::ops::RangeInclusive;

use super::{
    ChatRequest, Format, MAX_URL_BYTES, Message, Part, PartKind, Place, RawPrompt, RemoteKind,
    Role, ToolChoice,
};

/// Messages in one conversation.
pub const MAX_MESSAGES: usize = 4096;
/// Functions offered in one request.
pub const MAX_TOOLS: usize = 128;
/// Stop strings, as OpenAI has it.
pub const MAX_STOPS: usize = 16;
/// Bytes of one stop string.
pub const MAX_STOP_BYTES: usize = 256;
/// Rivals reported with each token's log-probability, as OpenAI has it.
pub const MAX_TOP_LOGPROBS: u8 = 20;
/// Tokens with a bias of their own.
pub const MAX_LOGIT_BIAS: usize = 1024;
/// Temperatures, as OpenAI has it.
pub const TEMPERATURES: RangeInclusive<f32> = 0.0..=2.0;
/// What `top_p` and `min_p` may be.
pub const PROBABILITIES: RangeInclusive<f32> = 0.0..=1.0;
/// What is taken off a token's logit, as OpenAI has it.
pub const PENALTIES: RangeInclusive<f32> = -2.0..=2.0;
/// What a token's logit is divided by.
pub const REPEAT_PENALTIES: RangeInclusive<f32> = 0.1..=10.0;
/// What is added to a token's logit, as OpenAI has it.
const BIASES: RangeInclusive<f32> = -100.0..=100.0;
/// Bytes of a function's name, as Anthropic has it; OpenAI has 64, and as many for a namespace.
pub const MAX_NAME_BYTES: usize = 128;

/// Bytes of what describes the form of an answer or of a call's arguments.
pub const MAX_CONSTRAINT_BYTES: usize = 256 << 10;

/// Bytes of a text that is only to be turned into tokens.
pub const MAX_TEXT_BYTES: usize = 1 << 20;

/// Pictures in one conversation.
pub const MAX_PICTURES: usize = 64;
/// Bytes of one picture's file, as OpenAI has it.
pub const MAX_PICTURE_BYTES: usize = 20 << 20;
/// Sounds in one conversation.
pub const MAX_SOUNDS: usize = 64;
/// Bytes of one sound's file, as OpenAI has it.
pub const MAX_SOUND_BYTES: usize = 25 << 20;

/// Files to be read in one conversation.
pub const MAX_DOCUMENTS: usize = 16;
/// Bytes of one such file.
pub const MAX_DOCUMENT_BYTES: usize = 32 << 20;

/// What is wrong with a request, and the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    pub place: Place,
    /// Continues the sentence "the field …".
    pub reason: String,
}

impl Invalid {
    pub fn new(place: Place, reason: impl Into<String>) -> Self {
        Self {
            place,
            reason: reason.into(),
        }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.place, self.reason)
    }
}

impl ChatRequest {
    /// Refuses what no worker could answer or what would cost without limit.
    pub fn check(&self) -> Result<(), Invalid> {
        if self.prompt.as_ref().is_some_and(RawPrompt::is_empty) {
            return Err(Invalid::new(Place::Prompt, "must not be empty"));
        }
        if self.messages.is_empty() && self.prompt.is_none() {
            return Err(Invalid::new(
                Place::Messages,
                "must hold at least one message",
            ));
        }
        at_most(Place::Messages, self.messages.len(), MAX_MESSAGES)?;
        at_most(Place::Tools, self.tools.len(), MAX_TOOLS)?;
        for (i, message) in self.messages.iter().enumerate() {
            check_message(i, message)?;
        }
        self.check_media()?;
        self.check_tools()?;
        self.check_format()?;
        self.check_sampling()?;
        self.check_output()
    }

    fn check_media(&self) -> Result<(), Invalid> {
        let mut counts = [0; 3];
        for (i, j, part) in self.parts() {
            let Some(attached) = Attached::of(part) else {
                continue;
            };
            let count = &mut counts[attached.kind as usize];
            *count += 1;
            if let Some(problem) = attached.problem(self.messages[i].role, *count) {
                let place = Place::Part {
                    message: i,
                    part: j,
                    kind: attached.kind,
                };
                return Err(Invalid::new(place, problem));
            }
        }
        Ok(())
    }

    fn check_tools(&self) -> Result<(), Invalid> {
        let mut names = HashSet::new();
        for (i, tool) in self.tools.iter().enumerate() {
            check_name(Place::ToolName(i), &tool.name)?;
            if !names.insert(&tool.name) {
                return Err(Invalid::new(
                    Place::ToolName(i),
                    "is the name of an earlier function",
                ));
            }
            check_constraint(
                Place::ToolParameters(i),
                tool.parameters.as_deref().unwrap_or_default(),
            )?;
        }
        match &self.tool_choice {
            ToolChoice::Required if self.tools.is_empty() => Err(Invalid::new(
                Place::ToolChoice,
                "needs `tools` to choose from",
            )),
            ToolChoice::Named(name) if !names.contains(name) => Err(Invalid::new(
                Place::ToolChoice,
                "names a function that is not in `tools`",
            )),
            _ => Ok(()),
        }
    }

    fn check_format(&self) -> Result<(), Invalid> {
        match &self.format {
            Format::Text | Format::JsonObject => Ok(()),
            Format::JsonSchema { schema, .. } => check_constraint(Place::Schema, schema),
            Format::Regex(regex) => check_constraint(Place::Regex, regex),
            Format::Grammar(grammar) => check_constraint(Place::Grammar, grammar),
        }
    }

    /// Whether the answer has an end of its own, after which nothing may be drawn but the end of
    /// the turn.
    fn has_own_end(&self) -> bool {
        self.format != Format::Text
            || self.tool_choice != ToolChoice::Auto
            || (!self.tools.is_empty() && !self.parallel_tool_calls)
    }

    fn check_sampling(&self) -> Result<(), Invalid> {
        let s = &self.sampling;
        in_range(Place::Temperature, s.temperature, TEMPERATURES)?;
        in_range(Place::TopP, s.top_p, PROBABILITIES)?;
        in_range(Place::MinP, s.min_p, PROBABILITIES)?;
        in_range(Place::FrequencyPenalty, s.frequency_penalty, PENALTIES)?;
        in_range(Place::PresencePenalty, s.presence_penalty, PENALTIES)?;
        in_range(Place::RepeatPenalty, s.repeat_penalty, REPEAT_PENALTIES)?;
        at_most(Place::LogitBias, s.logit_bias.len(), MAX_LOGIT_BIAS)?;
        for (token, bias) in &s.logit_bias {
            in_range(Place::TokenBias(*token), *bias, BIASES)?;
        }
        match self.logprobs {
            Some(n) if n > MAX_TOP_LOGPROBS => Err(Invalid::new(
                Place::TopLogprobs,
                format!("must be at most {MAX_TOP_LOGPROBS}, not {n}"),
            )),
            _ => Ok(()),
        }
    }

    fn check_output(&self) -> Result<(), Invalid> {
        let o = &self.output;
        // Who wants the prompt rated needs no answer.
        if o.max_tokens == Some(0) && !self.prompt_logprobs {
            return Err(Invalid::new(Place::MaxTokens, "must be at least 1"));
        }
        if let Some(max) = o.max_tokens
            && o.min_tokens > max
        {
            return Err(Invalid::new(
                Place::MinTokens,
                format!("is {}, more than max_tokens ({max})", o.min_tokens),
            ));
        }
        let own_end =
            "cannot be kept up with an answer of a given form, which has an end of its own";
        if o.ignore_eos && self.has_own_end() {
            return Err(Invalid::new(Place::IgnoreEos, own_end));
        }
        if o.min_tokens > 0 && self.has_own_end() {
            return Err(Invalid::new(Place::MinTokens, own_end));
        }
        at_most(Place::Stops, o.stop.len(), MAX_STOPS)?;
        for (i, stop) in o.stop.iter().enumerate() {
            if stop.is_empty() {
                return Err(Invalid::new(Place::Stop(i), "must not be empty"));
            }
            if stop.len() > MAX_STOP_BYTES {
                return Err(Invalid::new(
                    Place::Stop(i),
                    format!(
                        "has {} bytes; at most {MAX_STOP_BYTES} are allowed",
                        stop.len()
                    ),
                ));
            }
        }
        Ok(())
    }
}

/// How many parts of a kind a conversation may have.
fn max_count(kind: PartKind) -> usize {
    match kind {
        PartKind::Picture => MAX_PICTURES,
        PartKind::Sound => MAX_SOUNDS,
        PartKind::Document => MAX_DOCUMENTS,
    }
}

/// What a part brings along: the file, or what names it.
struct Attached {
    kind: PartKind,
    bytes: usize,
    max_bytes: usize,
}

impl Attached {
    fn of(part: &Part) -> Option<Self> {
        let bytes = part.bytes();
        let (kind, max_bytes) = match part {
            Part::Picture(_) => (PartKind::Picture, MAX_PICTURE_BYTES),
            Part::Sound(_) => (PartKind::Sound, MAX_SOUND_BYTES),
            Part::Document(_) => (PartKind::Document, MAX_DOCUMENT_BYTES),
            Part::Remote(remote) => match remote.what {
                RemoteKind::Picture(_) => (PartKind::Picture, MAX_URL_BYTES),
                RemoteKind::Document(..) => (PartKind::Document, MAX_URL_BYTES),
            },
            Part::Text(_) | Part::Read(_) | Part::Pixels(_) | Part::Samples(_) => return None,
        };
        Some(Self {
            kind,
            bytes,
            max_bytes,
        })
    }

    /// What is wrong with it in a message of this role, as the `count`th of its kind.
    fn problem(&self, role: Role, count: usize) -> Option<String> {
        let (noun, most) = (self.kind.noun(), max_count(self.kind));
        match role {
            Role::System | Role::Assistant => Some(format!(
                "is not supported here; a {noun} belongs to the user's messages and to the results of functions"
            )),
            Role::User | Role::Tool if count > most => Some(format!(
                "is one {noun} too many; at most {most} are allowed"
            )),
            Role::User | Role::Tool if self.bytes == 0 => Some("is empty".to_owned()),
            Role::User | Role::Tool if self.bytes > self.max_bytes => Some(format!(
                "has {} bytes; at most {} are allowed",
                self.bytes, self.max_bytes
            )),
            Role::User | Role::Tool => None,
        }
    }
}

fn check_message(i: usize, message: &Message) -> Result<(), Invalid> {
    let says_something = message.content.iter().any(|part| match part {
        Part::Text(text) => !text.is_empty(),
        Part::Picture(_)
        | Part::Sound(_)
        | Part::Document(_)
        | Part::Remote(_)
        | Part::Pixels(_)
        | Part::Samples(_) => true,
        Part::Read(parts) => !parts.is_empty(),
    });
    let calls = message.role == Role::Assistant && !message.tool_calls.is_empty();
    if message.content.is_empty() && !calls {
        return Err(Invalid::new(Place::Content { message: i }, "is required"));
    }
    if message.role == Role::User && !says_something {
        return Err(Invalid::new(
            Place::Content { message: i },
            "must not be empty",
        ));
    }
    for (j, call) in message.tool_calls.iter().enumerate() {
        check_name(
            Place::CallName {
                message: i,
                call: j,
            },
            &call.name,
        )?;
    }
    Ok(())
}

fn check_constraint(place: Place, text: &str) -> Result<(), Invalid> {
    match text.len() {
        0..=MAX_CONSTRAINT_BYTES => Ok(()),
        bytes => Err(Invalid::new(
            place,
            format!("has {bytes} bytes; at most {MAX_CONSTRAINT_BYTES} are allowed"),
        )),
    }
}

fn check_name(place: Place, name: &str) -> Result<(), Invalid> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.chars().all(legal) {
        return Err(Invalid::new(
            place,
            format!("must be 1 to {MAX_NAME_BYTES} characters of a-z, A-Z, 0-9, `_`, `-` or `.`"),
        ));
    }
    Ok(())
}

fn in_range(place: Place, value: f32, range: RangeInclusive<f32>) -> Result<(), Invalid> {
    if range.contains(&value) {
        Ok(())
    } else {
        Err(Invalid::new(
            place,
            format!(
                "must be between {} and {}, not {value}",
                range.start(),
                range.end()
            ),
        ))
    }
}

fn at_most(place: Place, len: usize, max: usize) -> Result<(), Invalid> {
    if len <= max {
        Ok(())
    } else {
        Err(Invalid::new(
            place,
            format!("has {len} entries; at most {max} are allowed"),
        ))
    }
}
