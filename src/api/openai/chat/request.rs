//! A chat request as OpenAI's clients send it, made into a [`ChatRequest`] or refused with the
//! field's name.
//!
//! Nothing is silently dropped that could change an answer: a parameter is honoured, listed in
//! [`mod@crate::api::fields`] with the reason why it changes nothing, or refused.

use crate::api::fields::{self as known, Level};
use crate::api::openai::chat::{fields, form, messages, thinking};
use crate::api::openai::common::Common;
use crate::api::openai::tools::Shape;
use crate::api::parse::Invalid;
use crate::api::parse::json::{self, Json, Object, PassedFiles};
use crate::api::progress::Wish;
use crate::chat::{ChatRequest, OutputLimits};

/// A chat request with what only this front door needs to know.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatCall {
    /// As the client spelled it.
    pub model: String,
    pub request: ChatRequest,
    /// How many answers are wanted, at least 1.
    pub choices: u32,
    pub delivery: Delivery,
    /// The client does not want to see what the model thinks.
    pub hides_thoughts: bool,
}

/// How the answer is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    Complete,
    Stream {
        /// Whether a last chunk tells the usage.
        usage: bool,
        /// What is told while the request waits.
        progress: Wish,
    },
}

/// Answers to one request.
pub const MAX_CHOICES: u32 = 8;

/// Reads a body. Every bound of the request has been checked when this returns.
pub fn parse(body: &[u8]) -> Result<ChatCall, Invalid> {
    parse_with(body, &[])
}

/// The same of a body that may name files that came beside it: see [`json::body_with`].
pub fn parse_with(body: &[u8], files: PassedFiles) -> Result<ChatCall, Invalid> {
    let mut object = json::body_with(body, files)?;
    let messages = messages::messages(&object.need("messages")?)?;
    let Common {
        model,
        tier,
        request,
    } = Common::take(&mut object, Shape::Nested)?;
    let thinking::Wish {
        thinking,
        hides_thoughts,
    } = thinking::wish(&mut object)?;
    let request = ChatRequest {
        messages,
        format: form::format(&mut object)?,
        output: output(&mut object)?,
        thinking,
        logprobs: logprobs(&mut object)?,
        tier: tier.unwrap_or_default(),
        ..request
    };
    let delivery = delivery(&mut object)?;
    let choices = choices(&mut object)?;
    known::neutral(&mut object, Level::Request)?;
    object.finish()?;
    request
        .check()
        .map_err(|invalid| Invalid::at(invalid, fields::field))?;
    Ok(ChatCall {
        model,
        request,
        choices,
        delivery,
        hides_thoughts,
    })
}

pub fn output(object: &mut Object) -> Result<OutputLimits, Invalid> {
    let llama = most(object, "n_predict")?;
    let ollama = most(object, "num_predict")?;
    let old = most(object, "max_tokens")?;
    // OpenAI's newer name wins: clients that send both keep the old one for older servers.
    let new = most(object, "max_completion_tokens")?;
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
    let may_repeat = may_repeat(object)?;
    Ok(OutputLimits {
        max_tokens: new.or(old).or(llama).or(ollama),
        min_tokens,
        stop,
        ignore_eos,
        may_repeat,
    })
}

/// Whether an answer goes on that says the same for ever: `repetition_guard` is false.
pub fn may_repeat(object: &mut Object) -> Result<bool, Invalid> {
    Ok(!object.switch("repetition_guard", true)?)
}

/// A limit on tokens; other servers write "none" as -1, and Ollama "the context" as -2.
pub fn most(object: &mut Object, name: &'static str) -> Result<Option<u32>, Invalid> {
    let Some(number) = object.take(name) else {
        return Ok(None);
    };
    if number.is("-1") || number.is("-2") {
        return Ok(None);
    }
    number.u32(1, u32::MAX).map(Some)
}

pub fn logprobs(object: &mut Object) -> Result<Option<u8>, Invalid> {
    let wanted = object.switch("logprobs", false)?;
    match object.take("top_logprobs") {
        Some(top) if !wanted && !top.is("0") => top.wrong("needs `logprobs` to be true"),
        Some(_) if !wanted => Ok(None),
        // The number's bound is checked with the whole request.
        Some(top) => Ok(Some(top.u32(0, u8::MAX.into())? as u8)),
        None => Ok(wanted.then_some(0)),
    }
}

/// How the answer is to be sent. What concerns streams alone says nothing where there is none.
pub fn delivery(object: &mut Object) -> Result<Delivery, Invalid> {
    let stream = object.switch("stream", false)?;
    let (mut usage, mut progress) = (false, Wish::take(object)?);
    if let Some(options) = object.take("stream_options") {
        let mut options = options.object()?;
        for name in ["include_usage", "continuous_usage_stats"] {
            usage |= options.switch(name, false)?;
        }
        progress.take_option(&mut options)?;
        known::neutral_members(&mut options, "stream_options")?;
        options.finish()?;
    }
    if let Some(wish) = object.take("usage") {
        let mut wish = wish.object()?;
        usage |= wish.switch("include", false)?;
        wish.finish()?;
    }
    Ok(match stream {
        true => Delivery::Stream { usage, progress },
        false => Delivery::Complete,
    })
}

/// How many answers are wanted: `n`, which llama.cpp also calls `n_cmpl`.
pub fn choices(object: &mut Object) -> Result<u32, Invalid> {
    let mut choices = 1;
    for name in ["n_cmpl", "n"] {
        if let Some(n) = object.take(name) {
            choices = n.u32(1, MAX_CHOICES)?;
        }
    }
    Ok(choices)
}

#[cfg(test)]
mod tests;
