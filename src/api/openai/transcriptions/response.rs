//! A transcription, whole or as events.

use serde::Serialize;

use crate::chat::Usage;

/// The whole answer.
#[derive(Debug, Serialize)]
pub struct Transcription<'a> {
    pub text: &'a str,
    pub usage: TokenUsage,
}

/// One event of a streamed answer.
#[derive(Debug, Serialize)]
#[serde(tag = "type")]
pub enum Event<'a> {
    #[serde(rename = "transcript.text.delta")]
    Delta { delta: &'a str },
    #[serde(rename = "transcript.text.done")]
    Done { text: &'a str, usage: TokenUsage },
}

/// Tokens in and out.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct TokenUsage {
    r#type: &'static str,
    input_tokens: u32,
    output_tokens: u32,
    total_tokens: u32,
}

impl From<Usage> for TokenUsage {
    fn from(usage: Usage) -> Self {
        let (input_tokens, output_tokens) = (usage.prompt_tokens, usage.completion_tokens);
        Self {
            r#type: "tokens",
            input_tokens,
            output_tokens,
            total_tokens: input_tokens + output_tokens,
        }
    }
}
