//! A request for a text to go on with, made into a [`ChatRequest`] or refused with the field's name.

use crate::api::openai::chat::fields;
use crate::api::openai::chat::request::{self, Delivery};
use crate::api::openai::common;
use crate::api::parse::Invalid;
use crate::api::parse::json::{self, Json, Object};
use crate::chat::{ChatRequest, Place};

/// Tokens of an answer unless the client says otherwise, as OpenAI has it for this endpoint.
const DEFAULT_TOKENS: u32 = 16;

#[derive(Clone, Debug, PartialEq)]
pub struct CompletionCall {
    pub model: String,
    pub request: ChatRequest,
    pub delivery: Delivery,
    /// Whether the answer begins with the prompt.
    pub echo: bool,
}

/// Reads a body. Every bound of the request has been checked when this returns.
pub fn parse(body: &[u8]) -> Result<CompletionCall, Invalid> {
    let mut object = json::body(body)?;
    let model = common::model(&mut object)?;
    let prompt = prompt(&object.need("prompt")?)?;
    let sampling = common::sampling(&mut object)?;
    let mut output = request::output(&mut object)?;
    output.max_tokens.get_or_insert(DEFAULT_TOKENS);
    let logprobs = object.take("logprobs");
    let echo = object.take("echo");
    let echoes = echo.as_ref().map_or(Ok(false), Json::boolean)?;
    if let (true, Some(echo), Some(_)) = (echoes, &echo, &logprobs) {
        return echo.wrong(
            "cannot be true together with `logprobs`: the prompt's own tokens are not rated",
        );
    }
    let logprobs = logprobs
        .map(|count| count.u32(0, u8::MAX.into()))
        .transpose()?
        .map(|count| count as u8);
    let cache_prompt = object.switch("cache_prompt", true)?;
    let delivery = request::delivery(&mut object)?;
    request::only_choice(&mut object)?;
    refused(&mut object)?;
    object.take("user");
    object.finish()?;
    let request = ChatRequest {
        sampling,
        output,
        logprobs,
        cache_prompt,
        ..ChatRequest::raw(prompt)
    };
    request
        .check()
        .map_err(|invalid| Invalid::at(invalid, field))?;
    Ok(CompletionCall {
        model,
        request,
        delivery,
        echo: echoes,
    })
}

/// How this endpoint calls a field of a chat request.
pub fn field(place: Place) -> String {
    match place {
        Place::Messages => "prompt".into(),
        Place::TopLogprobs => "logprobs".into(),
        place => fields::field(place),
    }
}

/// A string, or an array of one.
fn prompt(json: &Json) -> Result<String, Invalid> {
    if json.is_string() {
        return json.string();
    }
    if !json.is_array() {
        return json.wrong("must be a string or an array of one string");
    }
    match &json.array()?[..] {
        [one] => one.string(),
        prompts => json.wrong(format!(
            "must be an array of one string, not of {}: there is one answer to a request",
            prompts.len()
        )),
    }
}

fn refused(object: &mut Object) -> Result<(), Invalid> {
    if let Some(suffix) = object.take("suffix")
        && !suffix.string()?.is_empty()
    {
        return suffix.wrong("is not supported: the family was not taught to fill a gap");
    }
    match object.take("best_of") {
        Some(best_of) if best_of.u32(0, u32::MAX)? != 1 => {
            best_of.wrong("must be 1: there is one answer to a request")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(rest: &str) -> Result<CompletionCall, Invalid> {
        parse(format!(r#"{{"prompt":"Once"{rest}}}"#).as_bytes())
    }

    #[test]
    fn a_prompt_is_one_text() {
        let call = with("").unwrap();
        assert_eq!(
            (call.model.as_str(), call.echo, call.delivery),
            ("auto", false, Delivery::Complete)
        );
        assert_eq!(
            (
                call.request.prompt.as_deref(),
                call.request.output.max_tokens
            ),
            (Some("Once"), Some(16))
        );
        assert_eq!(parse(br#"{"prompt":["Once"]}"#).unwrap(), call);
        assert!(with(r#","echo":true,"stream":true"#).unwrap().echo);
        assert_eq!(
            with(r#","logprobs":3,"max_tokens":5,"stop":"x","seed":1,"suffix":"","best_of":1"#)
                .unwrap()
                .request
                .logprobs,
            Some(3)
        );
    }

    #[test]
    fn what_cannot_be_is_named() {
        for (body, field) in [
            (r#"{}"#, "prompt"),
            (r#"{"prompt":""}"#, "prompt"),
            (r#"{"prompt":[]}"#, "prompt"),
            (r#"{"prompt":["a","b"]}"#, "prompt"),
            (r#"{"prompt":[1]}"#, "prompt[0]"),
            (r#"{"prompt":7}"#, "prompt"),
            (r#"{"prompt":"a","suffix":"b"}"#, "suffix"),
            (r#"{"prompt":"a","best_of":2}"#, "best_of"),
            (r#"{"prompt":"a","n":2}"#, "n"),
            (r#"{"prompt":"a","max_tokens":0}"#, "max_tokens"),
            (r#"{"prompt":"a","logprobs":true}"#, "logprobs"),
            (r#"{"prompt":"a","logprobs":21}"#, "logprobs"),
            (r#"{"prompt":"a","logprobs":1,"echo":true}"#, "echo"),
            (r#"{"prompt":"a","messages":[]}"#, "messages"),
        ] {
            assert_eq!(parse(body.as_bytes()).unwrap_err().field, field, "{body}");
        }
    }
}
