//! A request of the Responses API, made into a [`ChatRequest`] or refused with the field's name.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::api::fields::{self, Level};
use crate::api::ignored::Ignored;
use crate::api::openai::chat;
use crate::api::openai::common::{self, Common};
use crate::api::openai::responses::items::{self, Input};
use crate::api::openai::responses::response::Look;
use crate::api::openai::responses::tools::{self, Toolbox};
use crate::api::openai::tools::Shape;
use crate::api::parse::Invalid;
use crate::api::parse::json::{self, Json, Object, quote};
use crate::api::progress::Wish;
use crate::chat::{ChatRequest, Format, OutputLimits, ServiceTier, Thinking};

/// Labels of one response, bytes of a label's name and of its value, as OpenAI has it.
const MAX_LABELS: usize = 16;
const MAX_LABEL_NAME: usize = 64;
const MAX_LABEL_BYTES: usize = 512;

/// What is sent along with the answer's tokens if asked for.
const LOGPROBS: &str = "message.output_text.logprobs";
/// Thoughts, sealed, for clients that keep nothing else of them.
const SEALED: &str = "reasoning.encrypted_content";
/// Of the rest there is never anything to include: it belongs to tools that are not served, or to
/// what the client sent itself.
const INCLUDABLE: [&str; 8] = [
    LOGPROBS,
    SEALED,
    "web_search_call.action.sources",
    "web_search_call.results",
    "file_search_call.results",
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "message.input_image.image_url",
];

#[derive(Debug)]
pub struct ResponsesCall {
    pub model: String,
    /// Without what came before: its messages are those of `input`. Not checked yet.
    pub request: ChatRequest,
    pub input: Input,
    /// What the model is told before everything else, for this response only.
    pub instructions: Option<String>,
    pub previous: Option<String>,
    pub delivery: Delivery,
    /// What is told while the request waits.
    pub progress: Wish,
    /// Whether the oldest turns may be left out if not everything fits.
    pub truncates: bool,
    pub shown: Shown,
    /// Where each of the tools stands in the request.
    pub tools: Vec<String>,
    /// What was left out of the request.
    pub ignored: Ignored,
}

/// How the answer is to be sent and kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    Complete {
        keep: bool,
    },
    Stream {
        keep: bool,
    },
    /// Later, to whoever asks for it; it is kept in any case. `stream`: its events are kept as well,
    /// and sent now.
    Background {
        stream: bool,
    },
}

impl Delivery {
    /// Whether it is sent as it is made.
    pub fn streams(self) -> bool {
        match self {
            Self::Complete { .. } => false,
            Self::Stream { .. } => true,
            Self::Background { stream } => stream,
        }
    }

    /// Nobody waits for what is made in the background.
    fn tier(self) -> ServiceTier {
        match self {
            Self::Background { .. } => ServiceTier::Flex,
            Self::Complete { .. } | Self::Stream { .. } => ServiceTier::Default,
        }
    }

    /// Whether the response is kept when it is complete.
    pub fn stores(self) -> bool {
        match self {
            Self::Complete { keep } | Self::Stream { keep } => keep,
            Self::Background { .. } => true,
        }
    }
}

/// What the response repeats of the request.
#[derive(Debug, Default, Serialize)]
pub struct Shown {
    pub frequency_penalty: f32,
    pub instructions: Option<String>,
    pub max_output_tokens: Option<u32>,
    pub max_tool_calls: Option<u32>,
    pub metadata: BTreeMap<String, String>,
    pub parallel_tool_calls: bool,
    pub presence_penalty: f32,
    pub previous_response_id: Option<String>,
    pub prompt_cache_key: Option<String>,
    pub reasoning: Reasoning,
    pub safety_identifier: Option<String>,
    pub service_tier: &'static str,
    pub temperature: f32,
    pub text: Box<RawValue>,
    pub tool_choice: Box<RawValue>,
    pub tools: Box<RawValue>,
    pub top_logprobs: u8,
    pub top_p: f32,
    pub truncation: &'static str,
    pub user: Option<String>,
    #[serde(skip)]
    pub look: Look,
}

#[derive(Debug, Default, Serialize)]
pub struct Reasoning {
    pub effort: Option<String>,
    /// Whoever wants a summary gets the thoughts themselves.
    pub summary: Option<String>,
}

/// Reads a body. The bounds of the request are checked when the conversation is complete.
pub fn parse(body: &[u8]) -> Result<ResponsesCall, Invalid> {
    let mut object = json::body(body)?;
    let mut ignored = Ignored::default();
    let shown_choice = raw(object.peek("tool_choice").unwrap_or("\"auto\""));
    let toolbox = tools::toolbox(&mut object, &mut ignored)?;
    let input = items::input(&object.need("input")?, &toolbox.names, &mut ignored)?;
    parsed(object, toolbox, input, shown_choice, ignored)
}

/// Reads the rest of a body.
fn parsed(
    mut object: Object,
    toolbox: Toolbox,
    input: Input,
    tool_choice: Box<RawValue>,
    mut ignored: Ignored,
) -> Result<ResponsesCall, Invalid> {
    let instructions = object.string("instructions")?;
    let previous_response_id = object.string("previous_response_id")?;
    let common = Common::take(&mut object, Shape::Flat)?;
    let (reasoning, thinking) = reasoning(&mut object)?;
    let (format, text) = format(&mut object, &mut ignored)?;
    let (logprobs, sealed) = included(&mut object)?;
    let truncates = truncation(&mut object)?;
    let (delivery, progress) = delivery(&mut object)?;
    let request = ChatRequest {
        tools: toolbox.tools,
        tool_choice: toolbox.choice,
        format,
        output: output(&mut object)?,
        thinking,
        logprobs,
        tier: common.tier.unwrap_or(delivery.tier()),
        ..common.request
    };
    management(&mut object, &mut ignored)?;
    let shown = Shown {
        frequency_penalty: request.sampling.frequency_penalty,
        instructions: instructions.clone(),
        max_output_tokens: request.output.max_tokens,
        max_tool_calls: object.u32("max_tool_calls", 0, u32::MAX)?,
        metadata: metadata(&mut object)?,
        parallel_tool_calls: request.parallel_tool_calls,
        presence_penalty: request.sampling.presence_penalty,
        previous_response_id: previous_response_id.clone(),
        service_tier: request.tier.name(),
        // These three change nothing: the prefix cache goes by content, users by what the kernel says.
        prompt_cache_key: object.string("prompt_cache_key")?,
        safety_identifier: object.string("safety_identifier")?,
        user: object.string("user")?,
        look: Look {
            names: toolbox.names,
            summary: reasoning.summary.is_some(),
            sealed,
        },
        reasoning,
        temperature: request.sampling.temperature,
        text: raw(&text),
        tool_choice,
        tools: raw(&toolbox.shown),
        top_logprobs: request.logprobs.unwrap_or(0),
        top_p: request.sampling.top_p,
        truncation: if truncates { "auto" } else { "disabled" },
    };
    fields::neutral(&mut object, Level::Request)?;
    object.finish()?;
    Ok(ResponsesCall {
        model: common.model,
        request,
        input,
        instructions,
        previous: previous_response_id,
        delivery,
        progress,
        truncates,
        shown,
        tools: toolbox.places,
        ignored,
    })
}

fn output(object: &mut Object) -> Result<OutputLimits, Invalid> {
    Ok(OutputLimits {
        max_tokens: object.u32("max_output_tokens", 1, u32::MAX)?,
        may_repeat: chat::request::may_repeat(object)?,
        ..OutputLimits::default()
    })
}

/// A part of the request as the client wrote it.
fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// The answer's form, and how a response shows it.
fn format(object: &mut Object, ignored: &mut Ignored) -> Result<(Format, String), Invalid> {
    const TEXT: &str = r#"{"type":"text"}"#;
    let Some(json) = object.take("text") else {
        return Ok((Format::Text, format!(r#"{{"format":{TEXT}}}"#)));
    };
    let mut text = json.object()?;
    let mut verbosity = String::new();
    if let Some(json) = text.take("verbosity") {
        match json.string()?.as_str() {
            "medium" => {}
            "low" | "high" => ignored.note(json.path(), ""),
            other => {
                return json.wrong(format!(
                    "must be `low`, `medium` or `high`, not `{}`",
                    quote(other)
                ));
            }
        }
        verbosity = format!(r#","verbosity":{}"#, json.raw());
    }
    let format = text.take("format");
    text.finish()?;
    let shown = format.as_ref().map_or(TEXT, Json::raw);
    let shown = format!(r#"{{"format":{shown}{verbosity}}}"#);
    let format = format.map_or(Ok(Format::Text), |json| form(&json))?;
    Ok((format, shown))
}

fn form(format: &Json) -> Result<Format, Invalid> {
    let mut fields = format.object()?;
    let kind = fields.need("type")?;
    let format = match kind.string()?.as_str() {
        "text" => Format::Text,
        "json_object" => Format::JsonObject,
        "json_schema" => crate::api::openai::format::schema(&mut fields)?,
        other => {
            return kind.wrong(format!(
                "must be `text`, `json_object` or `json_schema`, not `{}`",
                quote(other)
            ));
        }
    };
    fields.finish()?;
    Ok(format)
}

fn reasoning(object: &mut Object) -> Result<(Reasoning, Thinking), Invalid> {
    let mut shown = Reasoning::default();
    let Some(reasoning) = object.take("reasoning") else {
        return Ok((shown, Thinking::Off));
    };
    let mut fields = reasoning.object()?;
    let effort = fields.take("effort");
    let thinking = effort
        .as_ref()
        .map(common::effort)
        .transpose()?
        .unwrap_or_default();
    shown.effort = effort.map(|effort| effort.string()).transpose()?;
    for name in ["generate_summary", "summary"] {
        let Some(json) = fields.take(name) else {
            continue;
        };
        match json.string()?.as_str() {
            summary @ ("auto" | "concise" | "detailed") => shown.summary = Some(summary.to_owned()),
            "none" => shown.summary = None,
            _ => return json.wrong("must be `auto`, `concise`, `detailed` or `none`"),
        }
    }
    fields.finish()?;
    Ok((shown, thinking))
}

/// How many rivals of each token are reported, and whether thoughts are sent sealed as well.
fn included(object: &mut Object) -> Result<(Option<u8>, bool), Invalid> {
    let (mut wanted, mut sealed) = (false, false);
    if let Some(include) = object.take("include") {
        for name in include.array()? {
            let text = name.string()?;
            if !INCLUDABLE.contains(&text.as_str()) {
                return name.wrong(format!(
                    "is `{}`, of which there is nothing here; known: {}",
                    quote(&text),
                    INCLUDABLE.join(", ")
                ));
            }
            wanted |= text == LOGPROBS;
            sealed |= text == SEALED;
        }
    }
    // The number's bound is checked with the whole request.
    let top = object
        .take("top_logprobs")
        .map(|top| top.u32(0, u8::MAX.into()))
        .transpose()?
        .map(|top| top as u8);
    let top = top.filter(|top| wanted || *top > 0).or(wanted.then_some(0));
    Ok((top, sealed))
}

/// `context_management`: summing up by itself what has become long is not done; `truncation` and
/// `/v1/responses/compact` are what there is.
fn management(object: &mut Object, ignored: &mut Ignored) -> Result<(), Invalid> {
    if let Some(management) = object.take("context_management") {
        for entry in management.array()? {
            let kind = entry.object()?.need("type")?.string()?;
            ignored.note(entry.path(), &kind);
        }
    }
    Ok(())
}

fn truncation(object: &mut Object) -> Result<bool, Invalid> {
    let Some(truncation) = object.take("truncation") else {
        return Ok(false);
    };
    match truncation.string()?.as_str() {
        "auto" => Ok(true),
        "disabled" => Ok(false),
        other => truncation.wrong(format!(
            "must be `auto` or `disabled`, not `{}`",
            quote(other)
        )),
    }
}

/// How the answer is sent, and what is told before it.
fn delivery(object: &mut Object) -> Result<(Delivery, Wish), Invalid> {
    let keep = object
        .take("store")
        .map(|store| store.boolean())
        .transpose()?;
    let stream = object.switch("stream", false)?;
    let mut progress = Wish::take(object)?;
    if let Some(options) = object.take("stream_options") {
        if !stream {
            return options.wrong("needs `stream` to be true");
        }
        let mut options = options.object()?;
        // The last event tells the usage in any case.
        options.take("include_usage");
        progress.take_option(&mut options)?;
        fields::neutral_members(&mut options, "stream_options")?;
        options.finish()?;
    }
    let background = object.take("background");
    let in_background = match &background {
        Some(background) => background.boolean()?,
        None => false,
    };
    let delivery = match (background, keep) {
        (Some(background), _) if in_background && progress.is_any() => {
            return background.wrong(
                "cannot be true with `include_progress` or `return_progress`: the events of such a response are kept, and how far it was is nothing to keep",
            );
        }
        (Some(background), Some(false)) if in_background => {
            return background.wrong(
                "cannot be true while `store` is false: the response must be kept until it is asked for",
            );
        }
        _ if in_background => Delivery::Background { stream },
        (_, keep) if stream => Delivery::Stream {
            keep: keep == Some(true),
        },
        (_, keep) => Delivery::Complete {
            keep: keep == Some(true),
        },
    };
    Ok((delivery, progress))
}

fn metadata(object: &mut Object) -> Result<BTreeMap<String, String>, Invalid> {
    let Some(metadata) = object.take("metadata") else {
        return Ok(BTreeMap::new());
    };
    let labels: Vec<_> = metadata.object()?.into_entries().collect();
    if labels.len() > MAX_LABELS {
        return metadata.wrong(format!(
            "has {} entries; at most {MAX_LABELS} are allowed",
            labels.len()
        ));
    }
    let label = |(name, value): (String, Json)| {
        let text = value.string()?;
        if name.len() > MAX_LABEL_NAME || text.len() > MAX_LABEL_BYTES {
            return value.wrong(format!(
                "has more than {MAX_LABEL_NAME} bytes in its name or {MAX_LABEL_BYTES} in its value"
            ));
        }
        Ok((name, text))
    };
    labels.into_iter().map(label).collect()
}

#[cfg(test)]
mod tests;
