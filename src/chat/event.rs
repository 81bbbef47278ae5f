//! What comes back for a request: a few typed events, then one end.

use serde::{Deserialize, Serialize};
use std::fmt;

use super::{Constraint, Drafted, Modality, PartKind, Place, bounded};

/// Elements of the lists in an event at most, whatever a worker sends: what is left out of schemas,
/// tokens of a prompt (the longest context), tokens of a piece of text, rivals of a token.
const MAX_RELAXED: usize = 1 << 16;
const MAX_PROMPT: usize = 1 << 18;
const MAX_PIECE: usize = 1 << 16;
const MAX_RIVALS: usize = u8::MAX as usize;

/// One step of an answer. `Accepted` comes first, then `Started`, `Done` last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ChatEvent {
    /// The worker has the request and finds nothing wrong with it; the prompt is read when its turn
    /// comes.
    Accepted {
        /// What of the request's schemas the answer is not held to: JSON pointers behind `#`, and
        /// before it the function's name, or nothing for the answer's schema.
        #[serde(deserialize_with = "bounded::list::<MAX_RELAXED, _, _>")]
        relaxed: Vec<String>,
    },
    /// The prompt was read and the first token comes next.
    Started {
        prompt_tokens: u32,
        cached_tokens: u32,
    },
    /// Tokens of the prompt, in their order, before everything that the model says. Only if they
    /// were asked for.
    Prompt {
        #[serde(deserialize_with = "bounded::list::<MAX_PROMPT, _, _>")]
        tokens: Vec<PromptToken>,
    },
    /// A piece of the model's reasoning: whole characters, never empty.
    Thought {
        text: String,
        #[serde(deserialize_with = "bounded::list::<MAX_PIECE, _, _>")]
        logprobs: Vec<TokenLogprob>,
    },
    /// A piece of the answer: whole characters, never empty (unless it only carries
    /// log-probabilities).
    Text {
        text: String,
        #[serde(deserialize_with = "bounded::list::<MAX_PIECE, _, _>")]
        logprobs: Vec<TokenLogprob>,
    },
    /// The model calls a function. Its arguments and `CallEnded` follow; a call without that end
    /// was cut off.
    CallStarted {
        name: String,
    },
    /// A piece of the running call's arguments, which together are a JSON object: whole characters,
    /// never empty.
    CallArguments {
        json: String,
    },
    CallEnded,
    /// Everything up to here is void: the worker died, and another begins the answer again. Comes
    /// only in answers to requests that are [`whole`](super::ChatRequest::whole), and never from a
    /// worker.
    Restarted,
    Done(Done),
}

/// The end of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Done {
    pub finish: Finish,
    pub usage: Usage,
    pub timings: Timings,
}

impl Done {
    /// At which tokens came, but for the first, which comes of the prompt's last step; `None` of an
    /// answer of no more.
    pub fn tokens_per_second(&self) -> Option<f64> {
        let steps = self.usage.completion_tokens.saturating_sub(1);
        let us = self.timings.predicted_us;
        (steps > 0 && us > 0).then(|| f64::from(steps) * 1e6 / us as f64)
    }
}

/// Why the answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Finish {
    /// The model ended its turn.
    Stop,
    /// The stop string at this place in [`OutputLimits::stop`](super::OutputLimits::stop) came.
    StopString(u8),
    /// The token limit or the end of the context was reached.
    Length,
    /// The model said the same again and again, and would have done so for ever.
    Repetition,
    /// The model waits for the results of its calls.
    ToolCalls,
}

/// Tokens that went in and out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    pub prompt_tokens: u32,
    /// Of the prompt's tokens, those that were not computed again.
    pub cached_tokens: u32,
    /// Every token drawn, thoughts and end-of-turn included.
    pub completion_tokens: u32,
    /// Of the completion's tokens, those of the thinking channel.
    pub reasoning_tokens: u32,
    /// Tokens that were tried ahead.
    pub drafted: Drafted,
}

impl Usage {
    /// Of a prompt of so many tokens, before anything is drawn.
    pub fn of_prompt(tokens: usize, cached: usize) -> Self {
        Self {
            prompt_tokens: tokens as u32,
            cached_tokens: cached as u32,
            ..Self::default()
        }
    }
}

/// Where the time went, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timings {
    /// From the worker's receipt of the request to the end of the prompt.
    pub prompt_us: u64,
    /// From there to the last token.
    pub predicted_us: u64,
}

/// One drawn token with its log-probability (natural logarithm, over the whole vocabulary, before
/// any sampling cut) and the likeliest tokens at its place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenLogprob {
    /// The token's bytes; a part of a character is not UTF-8.
    pub bytes: Vec<u8>,
    pub logprob: f32,
    /// Likeliest first.
    #[serde(deserialize_with = "bounded::list::<MAX_RIVALS, _, _>")]
    pub top: Vec<(Vec<u8>, f32)>,
}

/// A token of a prompt, as it would have been rated if the model had drawn it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PromptToken {
    pub bytes: Vec<u8>,
    /// As in [`TokenLogprob`]; `None` for the first of all, before which there is nothing.
    pub logprob: Option<f32>,
    /// Likeliest first.
    #[serde(deserialize_with = "bounded::list::<MAX_RIVALS, _, _>")]
    pub top: Vec<(Vec<u8>, f32)>,
}

/// Why the worker could not answer a request. The worker itself lives on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChatError {
    /// Prompt and at least one token of answer do not fit the context, or what the memory has room for
    /// of it now; it may have `ceiling` tokens where the memory allows them.
    PromptTooLong {
        prompt_tokens: u32,
        context_tokens: u32,
        ceiling: u32,
        /// Of the prompt's tokens, those of sounds.
        sound_tokens: u32,
    },
    /// A `logit_bias` names a token that the vocabulary does not have.
    UnknownToken { token: u32, vocabulary: u32 },
    /// A prompt has a token that the vocabulary does not have.
    UnknownPromptToken { token: u32, vocabulary: u32 },
    /// The model has no projector for this; says why and what would help.
    UnsupportedModality { modality: Modality, reason: String },
    /// This part of the conversation is no picture that can be shown to the model.
    Picture {
        message: u32,
        part: u32,
        reason: String,
    },
    /// This part of the conversation is no sound that the model can listen to.
    Sound {
        message: u32,
        part: u32,
        reason: String,
    },
    /// This part of the conversation is no file that can be read.
    Document {
        message: u32,
        part: u32,
        reason: String,
    },
    /// The model cannot be held to this part of the request: `path` says where in it the reason
    /// lies (a JSON pointer, RFC 6901; empty for the part as a whole).
    Constraint {
        part: Constraint,
        /// The function's name; empty for the answer's format.
        name: String,
        path: String,
        reason: String,
    },
    /// The model's chat template refuses the conversation.
    Template { reason: String },
    /// The model's output is not a number, whatever is asked: its file is damaged.
    Unsound,
    /// llama.cpp failed on this request.
    Inference { reason: String },
}

impl ChatError {
    /// The field of the request that is to blame; `None` if none is.
    pub fn place(&self) -> Option<Place> {
        let part = |kind, message: u32, part: u32| Place::Part {
            message: message as usize,
            part: part as usize,
            kind,
        };
        Some(match self {
            Self::PromptTooLong { .. }
            | Self::UnsupportedModality { .. }
            | Self::Template { .. } => Place::Messages,
            Self::UnknownToken { token, .. } => Place::TokenBias(*token),
            Self::UnknownPromptToken { .. } => Place::Prompt,
            Self::Picture {
                message, part: j, ..
            } => part(PartKind::Picture, *message, *j),
            Self::Sound {
                message, part: j, ..
            } => part(PartKind::Sound, *message, *j),
            Self::Document {
                message, part: j, ..
            } => part(PartKind::Document, *message, *j),
            Self::Constraint {
                part: Constraint::Format,
                ..
            } => Place::Format,
            Self::Constraint {
                part: Constraint::Tool(tool),
                ..
            } => Place::ToolParameters(*tool as usize),
            Self::Unsound | Self::Inference { .. } => return None,
        })
    }

    /// What went wrong, in the words of an API, which calls the fields as `field` says.
    pub fn describe(&self, field: impl Fn(Place) -> String) -> String {
        match self {
            Self::PromptTooLong {
                prompt_tokens,
                context_tokens,
                ceiling,
                sound_tokens,
            } => {
                let message = too_long(*prompt_tokens, *context_tokens, *ceiling);
                match sound_tokens {
                    0 => message,
                    _ => format!(
                        "{message}; {sound_tokens} of its tokens are sound: have it transcribed first (POST /v1/audio/transcriptions), and send the text"
                    ),
                }
            }
            Self::UnknownToken { token, vocabulary } => format!(
                "logit_bias names token {token}, but the vocabulary ends at {}",
                vocabulary.saturating_sub(1)
            ),
            Self::UnknownPromptToken { token, vocabulary } => format!(
                "the prompt has token {token}, but the vocabulary ends at {}",
                vocabulary.saturating_sub(1)
            ),
            Self::UnsupportedModality { modality, reason } => {
                let verb = match modality {
                    Modality::Image => "see",
                    Modality::Audio => "hear",
                };
                format!("the model cannot {verb}: {reason}")
            }
            Self::Picture { reason, .. }
            | Self::Sound { reason, .. }
            | Self::Document { reason, .. } => {
                let field = self.place().map(field).unwrap_or_default();
                format!("`{field}` {reason}")
            }
            Self::Constraint {
                part,
                name,
                path,
                reason,
            } => {
                let place = if path.is_empty() {
                    String::new()
                } else {
                    format!(" at `{path}`")
                };
                let name = if name.is_empty() {
                    String::new()
                } else {
                    format!(" `{name}`")
                };
                match part {
                    Constraint::Format => format!("the answer's format{place} {reason}"),
                    Constraint::Tool(i) => format!(
                        "the parameters of function {i} (counted from 0){name}{place} {reason}"
                    ),
                }
            }
            Self::Template { reason } => {
                format!("the model's chat template refuses this conversation: {reason}")
            }
            Self::Unsound => "the model's output is not a number".to_owned(),
            Self::Inference { reason } => format!("inference failed: {reason}"),
        }
    }
}

/// Tokens of an answer that a context is advised to have room for, and what it is a multiple of.
const ANSWER: u32 = 2048;
const STEP: u32 = 4096;
/// The largest that `context` can be.
const MAX_CONTEXT: u32 = 262_144;

/// Begins as Anthropic's service says it, by which agents know that they have to shorten the
/// conversation.
fn too_long(prompt: u32, context: u32, ceiling: u32) -> String {
    if context < ceiling {
        return format!(
            "prompt is too long: {prompt} tokens > {context} maximum; for more the memory that is free now has no room, though the \
             context may grow to {ceiling} tokens: shorten the conversation, or free memory (`gemmactl memory plan` shows what a \
             context takes)"
        );
    }
    let needed = prompt
        .saturating_add(ANSWER)
        .div_ceil(STEP)
        .saturating_mul(STEP);
    let remedy = match needed {
        ..=MAX_CONTEXT => format!(
            "shorten the conversation, or, if the model and the memory allow it, raise [inference] `context` in gemmad.toml to {needed} or more, or `most-context` if that is \"auto\""
        ),
        _ => "shorten the conversation".to_owned(),
    };
    format!(
        "prompt is too long: {prompt} tokens > {context} maximum; this model's maximum context length is {context} tokens for the \
         prompt and the answer together; {remedy}"
    )
}

/// For logs.
impl fmt::Display for ChatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe(|place| place.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_that_is_too_long_says_which_context_it_needs() {
        for (prompt, context, needed) in [
            (21_034, 8192, Some("24576")),
            (9000, 8192, Some("12288")),
            (300_000, 8192, None),
        ] {
            let message = too_long(prompt, context, context);
            assert!(message.starts_with(&format!(
                "prompt is too long: {prompt} tokens > {context} maximum"
            )));
            assert_eq!(
                message.contains("gemmad.toml"),
                needed.is_some(),
                "{message}"
            );
            assert!(
                needed.is_none_or(|needed| message.contains(needed)),
                "{message}"
            );
        }
        let message = too_long(30_000, 12_000, 131_072);
        for part in ["30000 tokens > 12000 maximum", "131072", "memory plan"] {
            assert!(message.contains(part), "{message}");
        }
    }
}
