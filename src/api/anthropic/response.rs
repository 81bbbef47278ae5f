//! Answers, their events and errors, as Anthropic's clients know them.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::api::anthropic::request::Show;
use crate::api::openai::chat::response::{FinishDetails, TimingsOut};
use crate::api::parts::{Kind, Part};
use crate::api::sealed;
use crate::chat::{Done, Finish, Usage};

#[derive(Debug, Serialize)]
pub struct MessageOut<'a> {
    pub id: &'a str,
    pub r#type: &'static str,
    pub role: &'static str,
    /// The model that answers, not what was asked for.
    pub model: &'a str,
    pub content: Vec<BlockOut<'a>>,
    pub stop_reason: Option<&'static str>,
    pub stop_sequence: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finish_details: Option<FinishDetails>,
    pub usage: UsageOut,
    /// No tool of the service's own runs.
    pub container: (),
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_management: Option<Edits>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timings: Option<TimingsOut>,
}

/// What was done to a conversation: nothing.
#[derive(Debug, Default, Serialize)]
pub struct Edits {
    applied_edits: [(); 0],
}

impl Edits {
    /// What an answer says of it, to those who asked.
    pub fn of(show: Show) -> Option<Self> {
        show.edits.then(Self::default)
    }
}

#[derive(Debug, Serialize)]
pub struct UsageOut {
    /// Tokens that had to be read; those of the prefix cache are apart.
    pub input_tokens: u32,
    pub cache_creation_input_tokens: u32,
    pub cache_read_input_tokens: u32,
    pub output_tokens: u32,
}

impl From<Usage> for UsageOut {
    fn from(usage: Usage) -> Self {
        Self {
            input_tokens: usage.prompt_tokens.saturating_sub(usage.cached_tokens),
            // What is kept costs nothing extra.
            cache_creation_input_tokens: 0,
            cache_read_input_tokens: usage.cached_tokens,
            output_tokens: usage.completion_tokens,
        }
    }
}

/// Why the answer ended, and with which stop sequence. `stops`: those of the request.
pub fn stop<'a>(done: &Done, stops: &'a [String]) -> (&'static str, Option<&'a str>) {
    match done.finish {
        Finish::Stop => ("end_turn", None),
        Finish::StopString(which) => (
            "stop_sequence",
            stops.get(usize::from(which)).map(String::as_str),
        ),
        Finish::Length | Finish::Repetition => ("max_tokens", None),
        Finish::ToolCalls => ("tool_use", None),
    }
}

/// A part of the answer.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum BlockOut<'a> {
    /// Clients send it back with its signature.
    Thinking {
        thinking: &'a str,
        signature: String,
    },
    Text {
        text: &'a str,
    },
    ToolUse {
        id: String,
        name: &'a str,
        input: &'a RawValue,
    },
}

impl<'a> BlockOut<'a> {
    /// A part as it begins.
    pub fn begun(part: &'a Part) -> Self {
        match &part.kind {
            Kind::Thought => Self::Thinking {
                thinking: "",
                signature: String::new(),
            },
            Kind::Text => Self::Text { text: "" },
            Kind::Call { name } => Self::ToolUse {
                id: call_id(part),
                name,
                input: empty(),
            },
        }
    }

    /// A whole part. There is none for a call that was cut off.
    pub fn of(part: &'a Part, show: Show) -> Option<Self> {
        Some(match &part.kind {
            Kind::Thought => Self::Thinking {
                thinking: if show.omits_thoughts { "" } else { &part.text },
                signature: signature(part, show),
            },
            Kind::Text => Self::Text { text: &part.text },
            Kind::Call { name } => {
                let input = serde_json::from_str(&part.text)
                    .ok()
                    .filter(|_| part.complete)?;
                Self::ToolUse {
                    id: call_id(part),
                    name,
                    input,
                }
            }
        })
    }
}

/// By it a thought is known as the model's; it holds one that is not to be read.
pub fn signature(part: &Part, show: Show) -> String {
    sealed::seal(if show.omits_thoughts { &part.text } else { "" })
}

fn call_id(part: &Part) -> String {
    format!("toolu_{}", part.key)
}

/// `{}`
fn empty() -> &'static RawValue {
    // It is JSON.
    serde_json::from_str("{}").unwrap_or(RawValue::NULL)
}

/// A server-sent event.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event<'a> {
    MessageStart {
        message: MessageOut<'a>,
    },
    ContentBlockStart {
        index: usize,
        content_block: BlockOut<'a>,
    },
    ContentBlockDelta {
        index: usize,
        delta: DeltaOut<'a>,
    },
    ContentBlockStop {
        index: usize,
    },
    MessageDelta {
        delta: End<'a>,
        usage: UsageOut,
        #[serde(skip_serializing_if = "Option::is_none")]
        context_management: Option<Edits>,
    },
    MessageStop {},
    Error {
        error: ErrorOut<'a>,
    },
}

impl Event<'_> {
    /// The event's name, which its data repeat.
    pub fn name(&self) -> &'static str {
        match self {
            Self::MessageStart { .. } => "message_start",
            Self::ContentBlockStart { .. } => "content_block_start",
            Self::ContentBlockDelta { .. } => "content_block_delta",
            Self::ContentBlockStop { .. } => "content_block_stop",
            Self::MessageDelta { .. } => "message_delta",
            Self::MessageStop {} => "message_stop",
            Self::Error { .. } => "error",
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum DeltaOut<'a> {
    #[serde(rename = "thinking_delta")]
    Thinking { thinking: &'a str },
    #[serde(rename = "signature_delta")]
    Signature { signature: String },
    #[serde(rename = "text_delta")]
    Text { text: &'a str },
    #[serde(rename = "input_json_delta")]
    InputJson { partial_json: &'a str },
}

#[derive(Debug, Serialize)]
pub struct End<'a> {
    pub stop_reason: &'static str,
    pub stop_sequence: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finish_details: Option<FinishDetails>,
}

#[derive(Debug, Serialize)]
pub struct ErrorOut<'a> {
    pub r#type: &'static str,
    pub message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<Details>,
}

/// By which Anthropic's packages know that a conversation is not kept here, and go on without that.
#[derive(Debug, Serialize)]
pub struct Details {
    pub error_code: &'static str,
    pub unsupported: [&'static str; 1],
}
