//! How a chat request calls the fields of a [`ChatRequest`](crate::chat::ChatRequest). Pure.

use crate::chat::{PartKind, Place};

/// The field as clients of `/v1/chat/completions` write it.
pub fn field(place: Place) -> String {
    let name = match place {
        Place::Content { message } => return format!("messages[{message}].content"),
        Place::Part {
            message,
            part,
            kind,
        } => {
            let kind = match kind {
                PartKind::Picture => "image_url",
                PartKind::Sound => "input_audio",
                PartKind::Document => "file",
            };
            return format!("messages[{message}].content[{part}].{kind}");
        }
        Place::CallName { message, call } => {
            return format!("messages[{message}].tool_calls[{call}].function.name");
        }
        Place::ToolName(tool) => return format!("tools[{tool}].function.name"),
        Place::ToolParameters(tool) => return format!("tools[{tool}].function.parameters"),
        Place::TokenBias(token) => return format!("logit_bias.{token}"),
        Place::Stop(stop) => return format!("stop[{stop}]"),
        Place::Model => "model",
        Place::Messages => "messages",
        Place::Prompt => "prompt",
        Place::Tools => "tools",
        Place::ToolChoice => "tool_choice",
        Place::Format => "response_format",
        Place::Schema => "response_format.json_schema.schema",
        Place::Regex => "regex",
        Place::Grammar => "grammar",
        Place::Temperature => "temperature",
        Place::TopP => "top_p",
        Place::MinP => "min_p",
        Place::FrequencyPenalty => "frequency_penalty",
        Place::PresencePenalty => "presence_penalty",
        Place::RepeatPenalty => "repeat_penalty",
        Place::LogitBias => "logit_bias",
        Place::TopLogprobs => "top_logprobs",
        Place::MaxTokens => "max_tokens",
        Place::MinTokens => "min_tokens",
        Place::IgnoreEos => "ignore_eos",
        Place::Stops => "stop",
    };
    name.to_owned()
}
