//! A request of the Responses API, made into a [`ChatRequest`] or refused with the field's name.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::api::fields::{self, Level};
use crate::api::openai::common::{self, Common};
use crate::api::openai::responses::items::{self, Input};
use crate::api::openai::tools::Shape;
use crate::api::parse::Invalid;
use crate::api::parse::json::{self, Json, Object, quote};
use crate::chat::{ChatRequest, Format, OutputLimits, Thinking};

/// Labels of one response, bytes of a label's name and of its value, as OpenAI has it.
const MAX_LABELS: usize = 16;
const MAX_LABEL_NAME: usize = 64;
const MAX_LABEL_BYTES: usize = 512;

/// Parameters that need no honouring here, each with the reason.
const IGNORED: [(&str, &str); 5] = [
    ("user", "the kernel says who the caller is"),
    ("safety_identifier", "the kernel says who the caller is"),
    ("service_tier", "there is one tier"),
    (
        "prompt_cache_retention",
        "the prefix cache lives as long as the model is loaded",
    ),
    (
        "max_tool_calls",
        "a bound of tools that the service itself runs; none does here",
    ),
];

/// What is sent along with the answer's tokens if asked for. The others speak of tools that are not
/// served.
const LOGPROBS: &str = "message.output_text.logprobs";
const INCLUDABLE: [&str; 2] = [LOGPROBS, "reasoning.encrypted_content"];

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
    /// Whether the oldest turns may be left out if not everything fits.
    pub truncates: bool,
    pub shown: Shown,
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
    /// Later, to whoever asks for it; it is kept in any case.
    Background,
}

impl Delivery {
    /// Whether the response is kept when it is complete.
    pub fn stores(self) -> bool {
        match self {
            Self::Complete { keep } | Self::Stream { keep } => keep,
            Self::Background => true,
        }
    }
}

/// What the response repeats of the request.
#[derive(Debug, Serialize)]
pub struct Shown {
    pub instructions: Option<String>,
    pub max_output_tokens: Option<u32>,
    pub metadata: BTreeMap<String, String>,
    pub parallel_tool_calls: bool,
    pub previous_response_id: Option<String>,
    pub prompt_cache_key: Option<String>,
    pub reasoning: Reasoning,
    pub temperature: f32,
    pub text: Box<RawValue>,
    pub tool_choice: Box<RawValue>,
    pub tools: Box<RawValue>,
    pub top_logprobs: u8,
    pub top_p: f32,
    pub truncation: &'static str,
}

#[derive(Debug, Serialize)]
pub struct Reasoning {
    pub effort: Option<String>,
    /// Thoughts are shown as they are.
    pub summary: (),
}

/// Reads a body. The bounds of the request are checked when the conversation is complete.
pub fn parse(body: &[u8]) -> Result<ResponsesCall, Invalid> {
    let mut object = json::body(body)?;
    let input = items::input(&object.need("input")?)?;
    let instructions = object.string("instructions")?;
    let previous_response_id = object.string("previous_response_id")?;
    let raw = |object: &Object, name: &str, default: &str| {
        raw(object.peek(name).map_or(default, |json| json))
    };
    let (shown_text, shown_tools) = (
        raw(&object, "text", r#"{"format":{"type":"text"}}"#),
        raw(&object, "tools", "[]"),
    );
    let shown_choice = raw(&object, "tool_choice", "\"auto\"");
    let Common { model, request } = Common::take(&mut object, Shape::Flat)?;
    let (effort, thinking) = reasoning(&mut object)?;
    let request = ChatRequest {
        format: format(&mut object)?,
        output: OutputLimits {
            max_tokens: object.u32("max_output_tokens", 1, u32::MAX)?,
            ..OutputLimits::default()
        },
        thinking,
        logprobs: logprobs(&mut object)?,
        ..request
    };
    let truncates = truncation(&mut object)?;
    let delivery = delivery(&mut object)?;
    let metadata = metadata(&mut object)?;
    let prompt_cache_key = object.string("prompt_cache_key")?;
    for (name, _) in IGNORED {
        object.take(name);
    }
    fields::neutral(&mut object, Level::Request)?;
    object.finish()?;
    let shown = Shown {
        instructions: instructions.clone(),
        max_output_tokens: request.output.max_tokens,
        metadata,
        parallel_tool_calls: request.parallel_tool_calls,
        previous_response_id: previous_response_id.clone(),
        prompt_cache_key,
        reasoning: Reasoning {
            effort,
            summary: (),
        },
        temperature: request.sampling.temperature,
        text: shown_text,
        tool_choice: shown_choice,
        tools: shown_tools,
        top_logprobs: request.logprobs.unwrap_or(0),
        top_p: request.sampling.top_p,
        truncation: if truncates { "auto" } else { "disabled" },
    };
    Ok(ResponsesCall {
        model,
        request,
        input,
        instructions,
        previous: previous_response_id,
        delivery,
        truncates,
        shown,
    })
}

/// A part of the request as the client wrote it.
fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

fn format(object: &mut Object) -> Result<Format, Invalid> {
    let Some(text) = object.take("text") else {
        return Ok(Format::Text);
    };
    let mut text = text.object()?;
    if let Some(verbosity) = text.take("verbosity")
        && !verbosity.is("\"medium\"")
    {
        return verbosity.wrong("can only be \"medium\": Gemma has no other");
    }
    let format = text.take("format");
    text.finish()?;
    let Some(format) = format else {
        return Ok(Format::Text);
    };
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

fn reasoning(object: &mut Object) -> Result<(Option<String>, Thinking), Invalid> {
    let Some(reasoning) = object.take("reasoning") else {
        return Ok((None, Thinking::Off));
    };
    let mut fields = reasoning.object()?;
    let effort = fields.take("effort");
    let thinking = effort
        .as_ref()
        .map(common::effort)
        .transpose()?
        .unwrap_or_default();
    // Whoever wants a summary gets the thoughts themselves.
    for name in ["summary", "generate_summary"] {
        let Some(summary) = fields.take(name) else {
            continue;
        };
        if !["auto", "concise", "detailed"].contains(&summary.string()?.as_str()) {
            return summary.wrong("must be `auto`, `concise` or `detailed`");
        }
    }
    fields.finish()?;
    Ok((effort.map(|effort| effort.string()).transpose()?, thinking))
}

fn logprobs(object: &mut Object) -> Result<Option<u8>, Invalid> {
    let mut wanted = false;
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
        }
    }
    // The number's bound is checked with the whole request.
    let top = object
        .take("top_logprobs")
        .map(|top| top.u32(0, u8::MAX.into()))
        .transpose()?
        .map(|top| top as u8);
    Ok(top.filter(|top| wanted || *top > 0).or(wanted.then_some(0)))
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

fn delivery(object: &mut Object) -> Result<Delivery, Invalid> {
    let keep = object
        .take("store")
        .map(|store| store.boolean())
        .transpose()?;
    let stream = object.switch("stream", false)?;
    if let Some(options) = object.take("stream_options") {
        if !stream {
            return options.wrong("needs `stream` to be true");
        }
        let mut options = options.object()?;
        // Padding against eavesdroppers on a network; there is none here.
        options.take("include_obfuscation");
        options.finish()?;
    }
    let Some(background) = object.take("background") else {
        return Ok(if stream {
            Delivery::Stream {
                keep: keep == Some(true),
            }
        } else {
            Delivery::Complete {
                keep: keep == Some(true),
            }
        });
    };
    match (background.boolean()?, stream, keep) {
        (true, true, _) => background.wrong("cannot be true together with `stream`; ask for the response with GET /v1/responses/{id}"),
        (true, false, Some(false)) => {
            background.wrong("cannot be true while `store` is false: the response must be kept until it is asked for")
        }
        (true, false, _) => Ok(Delivery::Background),
        (false, true, _) => Ok(Delivery::Stream { keep: keep == Some(true) }),
        (false, false, _) => Ok(Delivery::Complete { keep: keep == Some(true) }),
    }
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
