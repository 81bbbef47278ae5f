//! Responses, their items and the events that tell of them, as OpenAI's clients know them.

use serde::Serialize;

use crate::api::openai::chat::response::{FinishDetails, TimingsOut, TokenOut, tokens};
use crate::api::openai::responses::request::Shown;
use crate::api::openai::responses::tools::{Named, Names};
use crate::api::parts::{Kind, Part};
use crate::api::sealed;
use crate::chat::{Done, Finish, TokenLogprob, Usage};

/// Where a response stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Queued,
    InProgress,
    Completed,
    Incomplete,
    Failed,
    Cancelled,
}

impl Status {
    /// The end that an answer came to.
    pub fn of(finish: Finish) -> Self {
        if matches!(finish, Finish::Length | Finish::Repetition) {
            Self::Incomplete
        } else {
            Self::Completed
        }
    }
}

#[derive(Debug, Serialize)]
pub struct ResponseOut<'a> {
    pub id: &'a str,
    pub object: &'static str,
    /// Unix seconds.
    pub created_at: u64,
    /// Unix seconds; only of a response that came to its own end.
    pub completed_at: Option<u64>,
    pub status: Status,
    pub background: bool,
    pub error: Option<ErrorOut<'a>>,
    pub incomplete_details: Option<Incomplete>,
    /// The model that answers, not what was asked for.
    pub model: &'a str,
    pub output: Vec<ItemOut<'a>>,
    pub store: bool,
    /// Conversations are not kept.
    pub conversation: (),
    #[serde(flatten)]
    pub shown: &'a Shown,
    pub usage: Option<UsageOut>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timings: Option<TimingsOut>,
}

#[derive(Debug, Serialize)]
pub struct ErrorOut<'a> {
    pub code: &'static str,
    pub message: &'a str,
}

#[derive(Debug, Serialize)]
pub struct Incomplete {
    /// One of those that OpenAI's packages know.
    pub reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<FinishDetails>,
}

impl Incomplete {
    pub fn of(done: &Done) -> Option<Self> {
        (Status::of(done.finish) == Status::Incomplete).then_some(Self {
            reason: "max_output_tokens",
            details: FinishDetails::of(done.finish),
        })
    }
}

#[derive(Debug, Serialize)]
pub struct UsageOut {
    input_tokens: u32,
    input_tokens_details: InputDetails,
    output_tokens: u32,
    output_tokens_details: OutputDetails,
    total_tokens: u64,
}

#[derive(Debug, Serialize)]
struct InputDetails {
    cached_tokens: u32,
}

#[derive(Debug, Serialize)]
struct OutputDetails {
    reasoning_tokens: u32,
}

impl From<Usage> for UsageOut {
    fn from(usage: Usage) -> Self {
        Self {
            input_tokens: usage.prompt_tokens,
            input_tokens_details: InputDetails {
                cached_tokens: usage.cached_tokens,
            },
            output_tokens: usage.completion_tokens,
            output_tokens_details: OutputDetails {
                reasoning_tokens: usage.reasoning_tokens,
            },
            total_tokens: u64::from(usage.prompt_tokens) + u64::from(usage.completion_tokens),
        }
    }
}

/// How the parts of an answer are shown.
#[derive(Clone, Debug, Default)]
pub struct Look {
    pub names: Names,
    /// Thoughts are given as a summary as well, which some clients look for.
    pub summary: bool,
    /// Thoughts are given sealed as well, for clients that send nothing else back.
    pub sealed: bool,
}

impl Look {
    fn named(&self, called: &str) -> Option<&Named> {
        self.names.of(called)
    }

    /// Whether a part is a call of a tool that takes a text.
    pub fn is_custom(&self, part: &Part) -> bool {
        match &part.kind {
            Kind::Call { name } => self.named(name).is_some_and(|named| named.is_custom),
            _ => false,
        }
    }
}

/// A part of the answer.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ItemOut<'a> {
    Reasoning {
        id: String,
        summary: Vec<ContentOut<'a>>,
        content: Vec<ContentOut<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        encrypted_content: Option<String>,
        status: Status,
    },
    Message {
        id: String,
        role: &'static str,
        content: Vec<ContentOut<'a>>,
        status: Status,
    },
    FunctionCall {
        id: String,
        call_id: String,
        name: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        namespace: Option<&'a str>,
        arguments: &'a str,
        status: Status,
    },
    CustomToolCall {
        id: String,
        call_id: String,
        name: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        namespace: Option<&'a str>,
        input: String,
        status: Status,
    },
}

/// What a thought or a text says.
#[derive(Debug, Serialize)]
#[serde(tag = "type")]
pub enum ContentOut<'a> {
    #[serde(rename = "summary_text")]
    Summary { text: &'a str },
    #[serde(rename = "reasoning_text")]
    Reasoning { text: &'a str },
    #[serde(rename = "output_text")]
    Output {
        text: &'a str,
        annotations: [(); 0],
        logprobs: Vec<TokenOut<'a>>,
    },
}

/// The name of a part's item.
pub fn item_id(part: &Part, look: &Look) -> String {
    let prefix = match part.kind {
        Kind::Thought => "rs_",
        Kind::Text => "msg_",
        Kind::Call { .. } if look.is_custom(part) => "ctc_",
        Kind::Call { .. } => "fc_",
    };
    format!("{prefix}{}", part.key)
}

/// What the function's output will refer to.
pub fn call_id(part: &Part) -> String {
    format!("call_{}", part.key)
}

/// What the part says; nothing for a call.
pub fn content(part: &Part) -> Option<ContentOut<'_>> {
    match part.kind {
        Kind::Thought => Some(ContentOut::Reasoning { text: &part.text }),
        Kind::Text => Some(ContentOut::Output {
            text: &part.text,
            annotations: [],
            logprobs: logprobs(&part.logprobs),
        }),
        Kind::Call { .. } => None,
    }
}

/// The thought once more, where it is looked for as a summary.
pub fn summary<'a>(part: &'a Part, look: &Look) -> Option<ContentOut<'a>> {
    (look.summary && part.kind == Kind::Thought).then_some(ContentOut::Summary { text: &part.text })
}

/// The text that a call of a tool brings which takes one, as far as it has come.
pub fn input(part: &Part) -> String {
    #[derive(serde::Deserialize)]
    struct Arguments {
        input: String,
    }
    // One that was cut off ends within its text.
    [part.text.clone(), format!("{}\"}}", part.text)]
        .iter()
        .find_map(|json| serde_json::from_str::<Arguments>(json).ok())
        .map_or_else(String::new, |arguments| arguments.input)
}

pub fn logprobs(logprobs: &[TokenLogprob]) -> Vec<TokenOut<'_>> {
    tokens(logprobs).collect()
}

/// The part as an item, as it stands. A part that just began is empty.
pub fn item<'a>(part: &'a Part, look: &'a Look, status: Status) -> ItemOut<'a> {
    let begun = part.text.is_empty() && status == Status::InProgress;
    let content = content(part).filter(|_| !begun).into_iter().collect();
    let id = item_id(part, look);
    match &part.kind {
        Kind::Thought => ItemOut::Reasoning {
            id,
            summary: summary(part, look).filter(|_| !begun).into_iter().collect(),
            content,
            encrypted_content: (look.sealed && !begun).then(|| sealed::seal(&part.text)),
            status,
        },
        Kind::Text => ItemOut::Message {
            id,
            role: "assistant",
            content,
            status,
        },
        Kind::Call { name } => {
            let named = look.named(name);
            let (call_id, namespace) = (
                call_id(part),
                named.and_then(|named| named.namespace.as_deref()),
            );
            let name = named.map_or(name.as_str(), |named| &named.name);
            if look.is_custom(part) {
                return ItemOut::CustomToolCall {
                    id,
                    call_id,
                    name,
                    namespace,
                    input: input(part),
                    status,
                };
            }
            ItemOut::FunctionCall {
                id,
                call_id,
                name,
                namespace,
                arguments: &part.text,
                status,
            }
        }
    }
}

/// The part as an item that has come to its end.
pub fn ended<'a>(part: &'a Part, look: &'a Look) -> ItemOut<'a> {
    let status = if part.complete {
        Status::Completed
    } else {
        Status::Incomplete
    };
    item(part, look, status)
}

/// A server-sent event.
#[derive(Debug, Serialize)]
pub struct Event<'a> {
    pub r#type: &'static str,
    pub sequence_number: u64,
    #[serde(flatten)]
    pub body: Body<'a>,
}

/// What an event tells, by its kind.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Body<'a> {
    Response {
        response: ResponseOut<'a>,
    },
    Item {
        output_index: usize,
        item: ItemOut<'a>,
    },
    Content {
        #[serde(flatten)]
        at: At,
        part: ContentOut<'a>,
    },
    Delta {
        #[serde(flatten)]
        at: At,
        delta: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        logprobs: Option<Vec<TokenOut<'a>>>,
    },
    Text {
        #[serde(flatten)]
        at: At,
        text: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        logprobs: Option<Vec<TokenOut<'a>>>,
    },
    Arguments {
        #[serde(flatten)]
        at: At,
        name: &'a str,
        arguments: &'a str,
    },
    Input {
        #[serde(flatten)]
        at: At,
        input: &'a str,
    },
}

/// Where in the output something is.
#[derive(Debug, Serialize)]
pub struct At {
    pub item_id: String,
    pub output_index: usize,
    /// Items have one piece of content; calls have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_index: Option<u32>,
    /// A thought has one summary, if one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary_index: Option<u32>,
}
