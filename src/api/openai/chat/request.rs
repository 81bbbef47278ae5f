//! A chat request as OpenAI's clients send it, made into a [`ChatRequest`] or refused with the
//! field's name.
//!
//! Nothing is silently dropped that could change an answer: a parameter is honoured, listed in
//! [`IGNORED`] with the reason why it may be ignored, or refused.

use crate::api::openai::chat::{fields, messages};
use crate::api::openai::common::{Common, effort};
use crate::api::openai::format;
use crate::api::openai::tools::Shape;
use crate::api::parse::Invalid;
use crate::api::parse::json::{self, Json, Object, PassedFiles};
use crate::chat::{ChatRequest, OutputLimits, Thinking};

/// A chat request with what only this front door needs to know.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatCall {
    /// As the client spelled it.
    pub model: String,
    pub request: ChatRequest,
    pub delivery: Delivery,
}

/// How the answer is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    Complete,
    Stream {
        /// Whether a last chunk tells the usage.
        usage: bool,
    },
}

/// Values of an ignored parameter that change nothing.
enum Harmless {
    Any,
    Only(&'static str),
}

/// Parameters that need no honouring, each with the reason.
const IGNORED: &[(&str, Harmless, &str)] = &[
    ("user", Harmless::Any, "the kernel says who the caller is"),
    (
        "safety_identifier",
        Harmless::Any,
        "the kernel says who the caller is",
    ),
    (
        "metadata",
        Harmless::Any,
        "labels for a service that stores answers; nothing is stored here",
    ),
    (
        "store",
        Harmless::Only("false"),
        "nothing is stored here; `true` would be a promise",
    ),
    ("service_tier", Harmless::Any, "there is one tier"),
    (
        "prompt_cache_key",
        Harmless::Any,
        "the prefix cache finds its entries by content",
    ),
    (
        "prompt_cache_retention",
        Harmless::Any,
        "the prefix cache lives as long as the model is loaded",
    ),
    (
        "verbosity",
        Harmless::Only("\"medium\""),
        "the default; Gemma has no other",
    ),
    (
        "modalities",
        Harmless::Only("[\"text\"]"),
        "answers are text",
    ),
];

/// Reads a body. Every bound of the request has been checked when this returns.
pub fn parse(body: &[u8]) -> Result<ChatCall, Invalid> {
    parse_with(body, &[])
}

/// The same of a body that may name files that came beside it: see [`json::body_with`].
pub fn parse_with(body: &[u8], files: PassedFiles) -> Result<ChatCall, Invalid> {
    let mut object = json::body_with(body, files)?;
    let messages = messages::messages(&object.need("messages")?)?;
    let Common { model, request } = Common::take(&mut object, Shape::Nested)?;
    let request = ChatRequest {
        messages,
        format: format::format(&mut object)?,
        output: output(&mut object)?,
        thinking: thinking(&mut object)?,
        logprobs: logprobs(&mut object)?,
        ..request
    };
    let delivery = delivery(&mut object)?;
    only_choice(&mut object)?;
    ignored(&mut object)?;
    object.finish()?;
    request
        .check()
        .map_err(|invalid| Invalid::at(invalid, fields::field))?;
    Ok(ChatCall {
        model,
        request,
        delivery,
    })
}

pub fn output(object: &mut Object) -> Result<OutputLimits, Invalid> {
    let old = object.u32("max_tokens", 1, u32::MAX)?;
    // OpenAI's newer name wins: clients that send both keep the old one for older servers.
    let new = object.u32("max_completion_tokens", 1, u32::MAX)?;
    let min_tokens = object
        .take("min_tokens")
        .map_or(Ok(0), |min| min.u32(0, u32::MAX))?;
    let stop = match object.take("stop") {
        Some(stop) if stop.is_string() => vec![stop.string()?],
        Some(stop) if stop.is_array() => stop
            .array()?
            .iter()
            .map(Json::string)
            .collect::<Result<_, _>>()?,
        Some(stop) => return stop.wrong("must be a string or an array of strings"),
        None => vec![],
    };
    let ignore_eos = object.switch("ignore_eos", false)?;
    Ok(OutputLimits {
        max_tokens: new.or(old),
        min_tokens,
        stop,
        ignore_eos,
    })
}

/// Off unless asked for. Whether: `enable_thinking`, else a budget says so, else
/// `reasoning_effort`. How long: the budget, else the effort.
fn thinking(object: &mut Object) -> Result<Thinking, Invalid> {
    let effort = object
        .take("reasoning_effort")
        .map(|name| effort(&name))
        .transpose()?;
    let budget = object.take("thinking_budget_tokens");
    let tokens = budget
        .as_ref()
        .map(|budget| budget.u32(0, u32::MAX))
        .transpose()?;
    let mut enabled = None;
    if let Some(kwargs) = object.take("chat_template_kwargs") {
        let mut kwargs = kwargs.object()?;
        enabled = kwargs
            .take("enable_thinking")
            .map(|enable| enable.boolean())
            .transpose()?;
        kwargs.finish()?;
    }
    Ok(match (enabled, tokens, effort) {
        (Some(false), ..) | (_, Some(0), _) => Thinking::Off,
        (_, Some(budget), _) => Thinking::On {
            budget: Some(budget),
        },
        (Some(true), None, None | Some(Thinking::Off)) => Thinking::On { budget: None },
        (_, None, effort) => effort.unwrap_or_default(),
    })
}

pub fn logprobs(object: &mut Object) -> Result<Option<u8>, Invalid> {
    let wanted = object.switch("logprobs", false)?;
    match object.take("top_logprobs") {
        Some(top) if !wanted => top.wrong("needs `logprobs` to be true"),
        // The number's bound is checked with the whole request.
        Some(top) => Ok(Some(top.u32(0, u8::MAX.into())? as u8)),
        None => Ok(wanted.then_some(0)),
    }
}

pub fn delivery(object: &mut Object) -> Result<Delivery, Invalid> {
    let stream = object.switch("stream", false)?;
    let Some(options) = object.take("stream_options") else {
        return Ok(if stream {
            Delivery::Stream { usage: false }
        } else {
            Delivery::Complete
        });
    };
    if !stream {
        return options.wrong("needs `stream` to be true");
    }
    let mut options = options.object()?;
    let usage = options.switch("include_usage", false)?;
    // Padding against eavesdroppers on a network; there is none here.
    options.take("include_obfuscation");
    options.finish()?;
    Ok(Delivery::Stream { usage })
}

pub fn only_choice(object: &mut Object) -> Result<(), Invalid> {
    let Some(n) = object.take("n") else {
        return Ok(());
    };
    match n.u32(0, u32::MAX)? {
        1 => Ok(()),
        _ => n.wrong("must be 1: there is one answer to a request"),
    }
}

fn ignored(object: &mut Object) -> Result<(), Invalid> {
    for (name, harmless, reason) in IGNORED {
        match (object.take(name), harmless) {
            (Some(value), Harmless::Only(only)) if !value.is(only) => {
                return value.wrong(format!("can only be {only}: {reason}"));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
