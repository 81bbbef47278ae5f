//! A request for texts to go on with, made into a [`ChatRequest`] or refused with the field's name.

use crate::api::choices::of_choice;
use crate::api::fields::{self as known, Level};
use crate::api::openai::chat::fields;
use crate::api::openai::chat::request::{self, Delivery};
use crate::api::openai::common;
use crate::api::parse::Invalid;
use crate::api::parse::json::{self, Json, Object};
use crate::api::speculation;
use crate::chat::{ChatRequest, Place, RawPrompt};

/// Tokens of an answer unless the client says otherwise, as OpenAI has it for this endpoint.
const DEFAULT_TOKENS: u32 = 16;
/// Answers to one request, to all of its prompts together.
const MAX_ANSWERS: usize = 32;

#[derive(Clone, Debug, PartialEq)]
pub struct CompletionCall {
    pub model: String,
    /// The request of the first prompt.
    pub request: ChatRequest,
    /// At least one.
    pub prompts: Vec<RawPrompt>,
    /// Answers to each prompt, at least one.
    pub choices: u32,
    pub delivery: Delivery,
    /// Whether the answers begin with their prompts.
    pub echo: bool,
}

impl CompletionCall {
    /// A request for each answer: those to the first prompt come first.
    pub fn requests(&self) -> Vec<ChatRequest> {
        let prompts = self.prompts.iter();
        prompts
            .flat_map(|prompt| (0..self.choices).map(move |choice| (prompt, choice)))
            .map(|(prompt, choice)| ChatRequest {
                prompt: Some(prompt.clone()),
                ..of_choice(&self.request, choice)
            })
            .collect()
    }
}

/// Reads a body. Every bound of the request has been checked when this returns.
pub fn parse(body: &[u8]) -> Result<CompletionCall, Invalid> {
    let mut object = json::body(body)?;
    let model = common::model(&mut object)?;
    let prompts = prompts(&object.need("prompt")?)?;
    let sampling = common::sampling(&mut object)?;
    let no_answer = object.peek("max_tokens") == Some("0");
    if no_answer {
        object.take("max_tokens");
    }
    let mut output = request::output(&mut object)?;
    output
        .max_tokens
        .get_or_insert(if no_answer { 0 } else { DEFAULT_TOKENS });
    let logprobs = logprobs(&mut object)?;
    let echo = object.switch("echo", false)?;
    let cache_prompt = object.switch("cache_prompt", true)?;
    let retention = common::retention(&mut object)?;
    let tier = common::tier(&mut object)?.unwrap_or_default();
    let (speculation, prediction) = speculation::take(&mut object)?;
    let delivery = request::delivery(&mut object)?;
    let choices = choices(&mut object, prompts.len())?;
    known::neutral(&mut object, Level::Request)?;
    object.finish()?;
    let first = prompts
        .first()
        .cloned()
        .unwrap_or(RawPrompt::Tokens(vec![]));
    let request = ChatRequest {
        sampling,
        output,
        logprobs,
        prompt_logprobs: echo && logprobs.is_some(),
        cache_prompt,
        retention,
        tier,
        speculation,
        prediction,
        ..ChatRequest::raw(first)
    };
    request
        .check()
        .map_err(|invalid| Invalid::at(invalid, field))?;
    Ok(CompletionCall {
        model,
        request,
        prompts,
        choices,
        delivery,
        echo,
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

/// A text, an array of texts, the tokens of a text, or an array of such.
pub fn prompts(json: &Json) -> Result<Vec<RawPrompt>, Invalid> {
    if json.is_string() {
        return Ok(vec![RawPrompt::Text(json.string()?)]);
    }
    if !json.is_array() {
        return json.wrong("must be a string, an array of tokens, or an array of either");
    }
    if json.raw()[1..]
        .trim_start()
        .starts_with(|c: char| c.is_ascii_digit())
    {
        return Ok(vec![RawPrompt::Tokens(json.numbers()?)]);
    }
    let prompts = json.array()?;
    if prompts.is_empty() || prompts.len() > MAX_ANSWERS {
        return json.wrong(format!("must hold 1 to {MAX_ANSWERS} prompts"));
    }
    prompts.iter().map(prompt).collect()
}

fn prompt(json: &Json) -> Result<RawPrompt, Invalid> {
    let prompt = match json.is_array() {
        true => RawPrompt::Tokens(json.numbers()?),
        false => RawPrompt::Text(json.string()?),
    };
    if prompt.is_empty() {
        return json.wrong("must not be empty");
    }
    Ok(prompt)
}

/// `Some(n)`: the log-probabilities, with those of `n` rivals.
fn logprobs(object: &mut Object) -> Result<Option<u8>, Invalid> {
    match object.take("logprobs") {
        Some(count) if !count.is("false") => Ok(Some(count.u32(0, u8::MAX.into())? as u8)),
        _ => Ok(None),
    }
}

/// Answers to each of so many prompts.
fn choices(object: &mut Object, prompts: usize) -> Result<u32, Invalid> {
    let n = object.peek("n").map(str::to_owned);
    let choices = request::choices(object)?;
    if let Some(suffix) = object.take("suffix")
        && !suffix.string()?.is_empty()
    {
        return suffix.wrong("is not supported: the family was not taught to fill a gap");
    }
    if let Some(best_of) = object.take("best_of")
        && ![1, choices].contains(&best_of.u32(0, u32::MAX)?)
    {
        return best_of.wrong("must be 1 or as `n`: answers are not chosen from others");
    }
    if choices as usize * prompts > MAX_ANSWERS {
        let n = n.unwrap_or_default();
        return Err(Invalid::new(
            "n",
            format!("is {n}: with {prompts} prompts there are more than {MAX_ANSWERS} answers"),
        ));
    }
    Ok(choices)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::parse::json::assert_refused;

    fn with(rest: &str) -> Result<CompletionCall, Invalid> {
        parse(format!(r#"{{"prompt":"Once"{rest}}}"#).as_bytes())
    }

    fn text(text: &str) -> RawPrompt {
        RawPrompt::Text(text.into())
    }

    #[test]
    fn a_prompt_is_one_text() {
        let call = with("").unwrap();
        assert_eq!(
            (call.model.as_str(), call.echo, call.delivery),
            ("auto", false, Delivery::Complete)
        );
        assert_eq!(call.prompts, [text("Once")]);
        assert_eq!(call.request.output.max_tokens, Some(16));
        assert_eq!(parse(br#"{"prompt":["Once"]}"#).unwrap(), call);
        assert!(with(r#","echo":true,"stream":true"#).unwrap().echo);
        let call = with(
            r#","logprobs":3,"max_tokens":5,"stop":"x","seed":1,"suffix":"","best_of":1,"typical_p":1,"user":"u""#,
        );
        assert_eq!(call.unwrap().request.logprobs, Some(3));
        assert_eq!(with(r#","logprobs":false"#).unwrap().request.logprobs, None);
        assert_eq!(
            with(r#","n_predict":-1"#)
                .unwrap()
                .request
                .output
                .max_tokens,
            Some(16)
        );
    }

    #[test]
    fn prompts_are_texts_and_tokens() {
        let tokens = |tokens: &[u32]| RawPrompt::Tokens(tokens.into());
        for (json, prompts) in [
            (r#"["a","b"]"#, vec![text("a"), text("b")]),
            ("[2, 7]", vec![tokens(&[2, 7])]),
            ("[ [2, 7],[8]]", vec![tokens(&[2, 7]), tokens(&[8])]),
            (r#"["a",[8]]"#, vec![text("a"), tokens(&[8])]),
        ] {
            let body = format!(r#"{{"prompt":{json},"n":2,"best_of":2,"seed":5}}"#);
            let call = parse(body.as_bytes()).unwrap();
            assert_eq!(call.prompts, prompts, "{json}");
            let requests = call.requests();
            assert_eq!(requests.len(), 2 * prompts.len());
            for (i, request) in requests.iter().enumerate() {
                assert_eq!(request.prompt.as_ref(), Some(&prompts[i / 2]));
                assert_eq!(request.sampling.seed, Some(5 + i as u32 % 2));
            }
        }
    }

    #[test]
    fn prompts_can_be_rated_without_an_answer() {
        let rated = with(r#","echo":true,"logprobs":1,"max_tokens":0"#).unwrap();
        assert!(rated.request.prompt_logprobs);
        assert_eq!(rated.request.output.max_tokens, Some(0));
        for rest in [r#","echo":true"#, r#","logprobs":1"#] {
            assert!(!with(rest).unwrap().request.prompt_logprobs, "{rest}");
        }
    }

    #[test]
    fn what_cannot_be_is_named() {
        let many = format!(r#"{{"prompt":[{}"a"]}}"#, r#""a","#.repeat(MAX_ANSWERS));
        assert_refused(
            parse,
            &[
                (r#"{}"#, "prompt"),
                (r#"{"prompt":""}"#, "prompt"),
                (r#"{"prompt":[]}"#, "prompt"),
                (r#"{"prompt":["a",""]}"#, "prompt[1]"),
                (r#"{"prompt":[[]]}"#, "prompt[0]"),
                (r#"{"prompt":[1,"a"]}"#, "prompt"),
                (r#"{"prompt":[-1]}"#, "prompt[0]"),
                (r#"{"prompt":7}"#, "prompt"),
                (&many, "prompt"),
                (r#"{"prompt":"a","suffix":"b"}"#, "suffix"),
                (r#"{"prompt":"a","best_of":2}"#, "best_of"),
                (r#"{"prompt":"a","n":9}"#, "n"),
                (r#"{"prompt":["a","b","c","d","e"],"n":8}"#, "n"),
                (r#"{"prompt":"a","max_tokens":0}"#, "max_tokens"),
                (r#"{"prompt":"a","logprobs":true}"#, "logprobs"),
                (r#"{"prompt":"a","logprobs":21}"#, "logprobs"),
                (r#"{"prompt":"a","messages":[]}"#, "messages"),
                (r#"{"prompt":"a","mirostat":1}"#, "mirostat"),
            ],
        );
    }
}
