//! Answers in OpenAI's shapes: whole (`chat.completion`) and in pieces (`chat.completion.chunk`).
//!
//! These borrow what they show and serialise straight into a buffer; nothing is built in between
//! for each token.

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use crate::api::choices::Total;
use crate::api::generation::now;
use crate::api::id;
use crate::chat::{Done, Finish, Tally, TokenLogprob, Usage};

/// What OpenAI's clients compare to notice that another program answers.
pub const FINGERPRINT: &str = concat!("gemmad-", env!("CARGO_PKG_VERSION"));

/// Stands for a probability of zero, which JSON cannot say. OpenAI's value for "very unlikely".
pub const UNLIKELY: f32 = -9999.0;

/// What every chunk of one answer repeats.
#[derive(Clone, Debug, Serialize)]
pub struct Head {
    /// `chatcmpl-…`
    pub id: String,
    /// Unix seconds.
    pub created: u64,
    /// The model that answers, not what was asked for.
    pub model: String,
    pub system_fingerprint: &'static str,
}

impl Head {
    /// Of a new answer.
    pub fn new(model: &str) -> Self {
        Self {
            id: id::random("chatcmpl-"),
            created: now(),
            model: model.to_owned(),
            system_fingerprint: FINGERPRINT,
        }
    }

    /// A chunk with these choices, to which something is added.
    pub fn around(&self, object: &str, choices: Value) -> Value {
        let mut chunk = json!({ "object": object, "choices": choices });
        // Texts and a number always serialise.
        if let (Value::Object(chunk), Ok(Value::Object(head))) =
            (&mut chunk, serde_json::to_value(self))
        {
            chunk.extend(head);
        }
        chunk
    }
}

#[derive(Debug, Serialize)]
pub struct Completion<'a> {
    #[serde(flatten)]
    pub head: &'a Head,
    pub object: &'static str,
    pub choices: Vec<Choice<'a>>,
    pub usage: UsageOut,
    pub timings: TimingsOut,
}

#[derive(Debug, Serialize)]
pub struct Choice<'a> {
    pub index: u32,
    pub message: MessageOut<'a>,
    pub logprobs: Option<Logprobs<'a>>,
    pub finish_reason: FinishOut,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finish_details: Option<FinishDetails>,
}

#[derive(Debug, Serialize)]
pub struct MessageOut<'a> {
    pub role: &'static str,
    /// Null when there is nothing but calls.
    pub content: Option<&'a str>,
    /// Gemma's refusals are ordinary answers.
    pub refusal: (),
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub tool_calls: &'a [CallOut],
}

/// A call by the model.
#[derive(Debug, Serialize)]
pub struct CallOut {
    pub id: String,
    pub r#type: &'static str,
    pub function: FunctionOut,
}

impl CallOut {
    /// A call without arguments so far, and with an id: the model gives it none.
    pub fn new(name: String) -> Self {
        Self {
            id: id::random("call_"),
            r#type: "function",
            function: FunctionOut {
                name,
                arguments: String::new(),
            },
        }
    }
}

#[derive(Debug, Serialize)]
pub struct FunctionOut {
    pub name: String,
    /// A JSON object as text.
    pub arguments: String,
}

#[derive(Debug, Serialize)]
pub struct Chunk<'a> {
    #[serde(flatten)]
    pub head: &'a Head,
    pub object: &'static str,
    pub choices: &'a [ChunkChoice<'a>],
    /// Absent unless asked for; then null in all chunks but the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Option<UsageOut>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timings: Option<TimingsOut>,
}

#[derive(Debug, Serialize)]
pub struct ChunkChoice<'a> {
    pub index: u32,
    pub delta: Delta<'a>,
    pub logprobs: Option<Logprobs<'a>>,
    pub finish_reason: Option<FinishOut>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finish_details: Option<FinishDetails>,
}

#[derive(Debug, Default, Serialize)]
pub struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<[CallDelta<'a>; 1]>,
}

/// A piece of a call.
#[derive(Debug, Serialize)]
pub struct CallDelta<'a> {
    /// Which of the answer's calls it belongs to.
    pub index: u32,
    /// The first piece: the call with empty arguments.
    #[serde(flatten)]
    pub start: Option<&'a CallOut>,
    /// The other pieces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function: Option<ArgumentsOut<'a>>,
}

#[derive(Debug, Serialize)]
pub struct ArgumentsOut<'a> {
    pub arguments: &'a str,
}

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishOut {
    Stop,
    Length,
    ToolCalls,
}

impl From<Finish> for FinishOut {
    fn from(finish: Finish) -> Self {
        match finish {
            Finish::Stop | Finish::StopString(_) => Self::Stop,
            Finish::Length | Finish::Repetition => Self::Length,
            Finish::ToolCalls => Self::ToolCalls,
        }
    }
}

/// What there is to know of an end beside its reason.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct FinishDetails {
    r#type: &'static str,
}

impl FinishDetails {
    pub fn of(finish: Finish) -> Option<Self> {
        (finish == Finish::Repetition).then_some(Self {
            r#type: "repetition",
        })
    }
}

#[derive(Debug, Serialize)]
pub struct UsageOut {
    pub prompt_tokens: u32,
    pub completion_tokens: u32,
    pub total_tokens: u64,
    pub prompt_tokens_details: PromptDetails,
    pub completion_tokens_details: CompletionDetails,
}

#[derive(Debug, Serialize)]
pub struct PromptDetails {
    pub cached_tokens: u32,
}

#[derive(Debug, Serialize)]
pub struct CompletionDetails {
    pub reasoning_tokens: u32,
    /// Tokens that were guessed and tried, whatever the guess came from.
    pub accepted_prediction_tokens: u64,
    pub rejected_prediction_tokens: u64,
}

impl From<Usage> for UsageOut {
    fn from(usage: Usage) -> Self {
        let Tally { accepted, rejected } = usage.drafted.total();
        Self {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            total_tokens: u64::from(usage.prompt_tokens) + u64::from(usage.completion_tokens),
            prompt_tokens_details: PromptDetails {
                cached_tokens: usage.cached_tokens,
            },
            completion_tokens_details: CompletionDetails {
                reasoning_tokens: usage.reasoning_tokens,
                accepted_prediction_tokens: accepted,
                rejected_prediction_tokens: rejected,
            },
        }
    }
}

/// An extension under the names that llama.cpp's server uses: where the worker's time went.
#[derive(Debug, Serialize)]
pub struct TimingsOut {
    /// Prompt tokens that were not computed again.
    pub cache_n: u32,
    /// Prompt tokens that were.
    pub prompt_n: u32,
    pub prompt_ms: f64,
    pub prompt_per_second: f64,
    /// Tokens of the answer.
    pub predicted_n: u32,
    /// From the first of them to the last.
    pub predicted_ms: f64,
    /// Of those after the first.
    pub predicted_per_second: f64,
}

impl From<&Done> for TimingsOut {
    fn from(done: &Done) -> Self {
        let mut total = Total::default();
        total.add(done, false);
        Self::from(&total)
    }
}

impl From<&Total> for TimingsOut {
    fn from(total: &Total) -> Self {
        let rate = |n: u32, us: u64| {
            if us == 0 {
                0.0
            } else {
                f64::from(n) * 1e6 / us as f64
            }
        };
        let Total {
            usage,
            timings,
            answers,
        } = total;
        let prompt_n = usage.prompt_tokens.saturating_sub(usage.cached_tokens);
        // The first token of an answer comes of its prompt's last step.
        let steps = usage.completion_tokens.saturating_sub(*answers);
        Self {
            cache_n: usage.cached_tokens,
            prompt_n,
            prompt_ms: timings.prompt_us as f64 / 1e3,
            prompt_per_second: rate(prompt_n, timings.prompt_us),
            predicted_n: usage.completion_tokens,
            predicted_ms: timings.predicted_us as f64 / 1e3,
            predicted_per_second: rate(steps, timings.predicted_us),
        }
    }
}

#[derive(Debug, Serialize)]
pub struct Logprobs<'a> {
    #[serde(serialize_with = "list")]
    pub content: &'a [TokenLogprob],
    /// An extension: the tokens of the thoughts.
    #[serde(serialize_with = "list", skip_serializing_if = "<[_]>::is_empty")]
    pub reasoning_content: &'a [TokenLogprob],
    pub refusal: (),
}

/// A token with its log-probability and its rivals.
#[derive(Debug, Serialize)]
pub struct TokenOut<'a> {
    #[serde(flatten)]
    token: RivalOut<'a>,
    #[serde(serialize_with = "rivals")]
    top_logprobs: &'a [(Vec<u8>, f32)],
}

#[derive(Debug, Serialize)]
struct RivalOut<'a> {
    #[serde(serialize_with = "lossy")]
    token: &'a [u8],
    logprob: f32,
    bytes: &'a [u8],
}

impl<'a> RivalOut<'a> {
    fn new(token: &'a [u8], logprob: f32) -> Self {
        Self {
            token,
            logprob: if logprob.is_finite() {
                logprob
            } else {
                UNLIKELY
            },
            bytes: token,
        }
    }
}

pub fn tokens(tokens: &[TokenLogprob]) -> impl Iterator<Item = TokenOut<'_>> {
    tokens.iter().map(|t| TokenOut {
        token: RivalOut::new(&t.bytes, t.logprob),
        top_logprobs: &t.top,
    })
}

fn list<S: Serializer>(list: &&[TokenLogprob], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(tokens(list))
}

fn rivals<S: Serializer>(rivals: &&[(Vec<u8>, f32)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(
        rivals
            .iter()
            .map(|(token, logprob)| RivalOut::new(token, *logprob)),
    )
}

/// A token may be a part of a character; `bytes` has what a string cannot show.
fn lossy<S: Serializer>(token: &&[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&String::from_utf8_lossy(token))
}
