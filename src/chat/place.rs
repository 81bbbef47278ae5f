//! Where in a request something is wrong. Pure.

use std::fmt;

/// A field of a [`ChatRequest`](super::ChatRequest), or the model that it is for. Each API names it
/// as its own clients know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Model,
    Messages,
    /// The content of the message with this number.
    Content {
        message: usize,
    },
    /// A part of that content.
    Part {
        message: usize,
        part: usize,
        kind: PartKind,
    },
    /// The name of a function in a call that a message makes.
    CallName {
        message: usize,
        call: usize,
    },
    Prompt,
    Tools,
    ToolName(usize),
    ToolParameters(usize),
    ToolChoice,
    /// The answer's form, whichever it is.
    Format,
    Schema,
    Regex,
    Grammar,
    Temperature,
    TopP,
    MinP,
    FrequencyPenalty,
    PresencePenalty,
    RepeatPenalty,
    LogitBias,
    /// The bias of this token.
    TokenBias(u32),
    TopLogprobs,
    MaxTokens,
    MinTokens,
    IgnoreEos,
    Stops,
    Stop(usize),
}

/// What a part of a message can bring along besides text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartKind {
    Picture,
    Sound,
    Document,
}

/// For logs: the path within a request as this program keeps it.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Content { message } => return write!(f, "messages[{message}].content"),
            Self::Part { message, part, .. } => {
                return write!(f, "messages[{message}].content[{part}]");
            }
            Self::CallName { message, call } => {
                return write!(f, "messages[{message}].tool_calls[{call}].name");
            }
            Self::ToolName(tool) => return write!(f, "tools[{tool}].name"),
            Self::ToolParameters(tool) => return write!(f, "tools[{tool}].parameters"),
            Self::TokenBias(token) => return write!(f, "sampling.logit_bias[{token}]"),
            Self::Stop(stop) => return write!(f, "output.stop[{stop}]"),
            Self::Model => "model",
            Self::Messages => "messages",
            Self::Prompt => "prompt",
            Self::Tools => "tools",
            Self::ToolChoice => "tool_choice",
            Self::Format | Self::Schema | Self::Regex | Self::Grammar => "format",
            Self::Temperature => "sampling.temperature",
            Self::TopP => "sampling.top_p",
            Self::MinP => "sampling.min_p",
            Self::FrequencyPenalty => "sampling.frequency_penalty",
            Self::PresencePenalty => "sampling.presence_penalty",
            Self::RepeatPenalty => "sampling.repeat_penalty",
            Self::LogitBias => "sampling.logit_bias",
            Self::TopLogprobs => "logprobs",
            Self::MaxTokens => "output.max_tokens",
            Self::MinTokens => "output.min_tokens",
            Self::IgnoreEos => "output.ignore_eos",
            Self::Stops => "output.stop",
        };
        f.write_str(name)
    }
}

impl PartKind {
    /// What people call it.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Picture => "picture",
            Self::Sound => "sound",
            Self::Document => "file",
        }
    }
}
