//! What requests of several endpoints have alike.

use axum::response::Response;
use serde::Serialize;

use crate::api::error::ApiError;
use crate::api::generation::mistaken;
use crate::api::openai::tools::{self, Offer};
use crate::api::parse::Invalid;
use crate::api::parse::json::{Json, Object, quote};
use crate::api::{json, render, speculation};
use crate::chat::{ChatRequest, Retention, Sampling, ServiceTier, TextAnswer, Thinking};

/// The least bias: a token that is never drawn.
const BAN: f32 = -100.0;
/// How other servers write that each answer has a seed of its own.
const RANDOM_SEED: i128 = -1;

/// What `model` means when it is absent.
pub const DEFAULT_MODEL: &str = "auto";

/// What requests for a chat and for a response say in the same fields.
pub struct Common {
    /// As the client spelled it.
    pub model: String,
    /// `None`: as we think fit.
    pub tier: Option<ServiceTier>,
    /// Without messages and without what each endpoint says in fields of its own. Not checked yet.
    pub request: ChatRequest,
}

impl Common {
    /// Takes the model, the functions, and what concerns sampling and the prefix cache.
    pub fn take(object: &mut Object, shape: tools::Shape) -> Result<Self, Invalid> {
        let model = model(object)?;
        let Offer {
            tools,
            choice: tool_choice,
            parallel: parallel_tool_calls,
        } = tools::offered(object, shape)?;
        let (speculation, prediction) = speculation::take(object)?;
        let request = ChatRequest {
            tools,
            tool_choice,
            parallel_tool_calls,
            speculation,
            prediction,
            sampling: sampling(object)?,
            cache_prompt: object.switch("cache_prompt", true)?,
            retention: retention(object)?,
            ..ChatRequest::new(vec![])
        };
        let tier = tier(object)?;
        Ok(Self {
            model,
            tier,
            request,
        })
    }
}

/// The model as the client spelled it.
pub fn model(object: &mut Object) -> Result<String, Invalid> {
    Ok(object
        .string("model")?
        .unwrap_or_else(|| DEFAULT_MODEL.into()))
}

/// How long what is read may be kept.
pub fn retention(object: &mut Object) -> Result<Retention, Invalid> {
    let Some(json) = object.take("prompt_cache_retention") else {
        return Ok(Retention::default());
    };
    // OpenAI's own clients have written it both ways.
    let name = json.string()?.replace('-', "_");
    let known = Retention::NAMES.iter().find(|(known, _)| *known == name);
    known.map_or_else(
        || {
            json.wrong(format!(
                "must be `in_memory` or `24h`, not `{}`",
                quote(&name)
            ))
        },
        |(_, retention)| Ok(*retention),
    )
}

/// `None`: the client leaves it to us, with `auto` or by saying nothing.
pub fn tier(object: &mut Object) -> Result<Option<ServiceTier>, Invalid> {
    let Some(json) = object.take("service_tier") else {
        return Ok(None);
    };
    let name = json.string()?;
    Ok(match &*name {
        "auto" => None,
        "flex" => Some(ServiceTier::Flex),
        // `default`, and those that other servers sell: nothing comes before them here.
        _ => Some(ServiceTier::Default),
    })
}

pub fn sampling(object: &mut Object) -> Result<Sampling, Invalid> {
    let mut s = Sampling::default();
    for (name, value) in [
        ("temperature", &mut s.temperature),
        ("top_p", &mut s.top_p),
        ("min_p", &mut s.min_p),
        ("frequency_penalty", &mut s.frequency_penalty),
        ("presence_penalty", &mut s.presence_penalty),
    ] {
        if let Some(number) = object.take(name) {
            *value = number.number()?;
        }
    }
    if let Some(penalty) = one_of(object, "repeat_penalty", "repetition_penalty")? {
        s.repeat_penalty = penalty;
    }
    if let Some(top_k) = object.take("top_k") {
        // Other servers write "off" as -1 or as 0.
        s.top_k = top_k.integer(-1..=i32::MAX.into())?.max(0) as u32;
    }
    s.seed = object
        .take("seed")
        .map(|seed| seed.integer(i64::MIN.into()..=u64::MAX.into()))
        .transpose()?
        .filter(|seed| *seed != RANDOM_SEED)
        .map(fold_seed);
    if let Some(bias) = object.take("logit_bias") {
        s.logit_bias = logit_bias(&bias)?;
    }
    Ok(s)
}

/// Small seeds stay as they are, so that they mean the same to every client.
fn fold_seed(seed: i128) -> u32 {
    let bits = seed as u64;
    (bits as u32) ^ (bits >> 32) as u32
}

/// An object from token to bias, or llama.cpp's list of pairs, in which `false` bans a token.
fn logit_bias(json: &Json) -> Result<Vec<(u32, f32)>, Invalid> {
    if json.is_array() {
        return json.array()?.iter().map(bias_pair).collect();
    }
    json.object()?.into_entries().map(bias_entry).collect()
}

fn bias_entry((token, bias): (String, Json)) -> Result<(u32, f32), Invalid> {
    match token.parse() {
        Ok(token) => Ok((token, bias.number()?)),
        Err(_) => bias.wrong("is not named by a token id (a whole number)"),
    }
}

fn bias_pair(json: &Json) -> Result<(u32, f32), Invalid> {
    let [token, bias] = &json.array()?[..] else {
        return json.wrong("must be a pair of a token id and a bias");
    };
    let bias = match bias.is("false") {
        true => BAN,
        false => bias.number()?,
    };
    Ok((token.u32(0, u32::MAX)?, bias))
}

/// A number that goes by two names, which must not say different things.
fn one_of(
    object: &mut Object,
    name: &'static str,
    alias: &'static str,
) -> Result<Option<f32>, Invalid> {
    let first = object.take(name).map(|json| json.number()).transpose()?;
    let Some(second) = object.take(alias) else {
        return Ok(first);
    };
    let number = second.number()?;
    match first {
        Some(first) if first != number => second.wrong(format!(
            "is another name of `{name}`, which says something else; give one of them"
        )),
        _ => Ok(Some(number)),
    }
}

/// How long the model thinks, by the name of an effort.
pub fn effort(json: &Json) -> Result<Thinking, Invalid> {
    let name = json.string()?;
    let known = || {
        Thinking::EFFORTS
            .map(|(name, _)| format!("`{name}`"))
            .join(", ")
    };
    Thinking::of_effort(&name).map_or_else(
        || {
            json.wrong(format!(
                "must be one of {}, not `{}`",
                known(),
                quote(&name)
            ))
        },
        Ok,
    )
}

#[derive(Serialize)]
struct InputTokens {
    object: &'static str,
    input_tokens: u32,
}

/// How many tokens a request would have the model read, as an answer.
pub fn counted(answer: &TextAnswer) -> Result<Response, ApiError> {
    match answer {
        TextAnswer::Count(input_tokens) => Ok(json(render(&InputTokens {
            object: "response.input_tokens",
            input_tokens: *input_tokens,
        }))),
        other => Err(mistaken(other)),
    }
}
