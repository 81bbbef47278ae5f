//! `POST /completion`: a text is gone on with, in the shape of llama.cpp's server.

use std::sync::Arc;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::response::Response;
use serde::Serialize;
use serde_json::json;
use tokio::sync::watch;

use crate::access::Caller;
use crate::api::answered::Answered;
use crate::api::error::ApiError;
use crate::api::fields::{self, Level};
use crate::api::generation::{Encoder, Meanwhile, begun, next, parse, streamed, take, write_event};
use crate::api::openai::chat::request::{self as chat, Delivery};
use crate::api::openai::chat::response::{FinishDetails, TimingsOut, TokenOut, tokens};
use crate::api::openai::{common, completions};
use crate::api::parse::{Invalid, json as body_json};
use crate::api::progress::Wish;
use crate::api::speculation;
use crate::api::telling::Teller;
use crate::api::{Api, body, render};
use crate::backend::Failure;
use crate::chat::{ChatEvent, ChatRequest, Done, Finish, Place, TokenLogprob, Waiting};

/// What a body says.
#[derive(Clone, Debug, PartialEq)]
pub struct CompletionCall {
    pub model: String,
    pub request: ChatRequest,
    pub delivery: Delivery,
}

/// Reads a body. Every bound of the request has been checked when this returns.
pub fn request(body: &[u8]) -> Result<CompletionCall, Invalid> {
    let mut object = body_json::body(body)?;
    let model = common::model(&mut object)?;
    let prompt = object.need("prompt")?;
    let mut prompts = completions::request::prompts(&prompt)?;
    if prompts.len() > 1 {
        return prompt.wrong("must be one prompt; POST /v1/completions takes several");
    }
    let first = prompts.remove(0);
    let (speculation, prediction) = speculation::take(&mut object)?;
    let request = ChatRequest {
        speculation,
        prediction,
        sampling: common::sampling(&mut object)?,
        output: chat::output(&mut object)?,
        logprobs: match object.u32("n_probs", 0, u8::MAX.into())? {
            None | Some(0) => None,
            Some(count) => Some(count as u8),
        },
        cache_prompt: object.switch("cache_prompt", true)?,
        retention: common::retention(&mut object)?,
        tier: common::tier(&mut object)?.unwrap_or_default(),
        ..ChatRequest::raw(first)
    };
    let delivery = chat::delivery(&mut object)?;
    if let Some(n) = object.take("n_cmpl").or(object.take("n"))
        && !n.is("1")
    {
        return n.wrong("must be 1; POST /v1/completions takes more");
    }
    fields::neutral(&mut object, Level::Request)?;
    object.finish()?;
    request
        .check()
        .map_err(|invalid| Invalid::at(invalid, field))?;
    Ok(CompletionCall {
        model,
        request,
        delivery,
    })
}

/// How this endpoint calls a field of a chat request.
fn field(place: Place) -> String {
    match place {
        Place::TopLogprobs => "n_probs".into(),
        Place::MaxTokens => "n_predict".into(),
        place => completions::request::field(place),
    }
}

/// A piece of an answer, or all of it.
#[derive(Debug, Serialize)]
struct Piece<'a> {
    index: u32,
    content: &'a str,
    stop: bool,
    /// Of the tokens of `content`, if they were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    completion_probabilities: Vec<TokenOut<'a>>,
    #[serde(flatten)]
    end: Option<End<'a>>,
}

#[derive(Debug, Serialize)]
struct End<'a> {
    model: &'a str,
    tokens_predicted: u32,
    tokens_evaluated: u32,
    tokens_cached: u32,
    /// A prompt that is too long is refused.
    truncated: bool,
    stop_type: &'static str,
    stopping_word: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    finish_details: Option<FinishDetails>,
    timings: TimingsOut,
}

/// Turns events into what is sent for them.
struct Pieces {
    model: String,
    stops: Vec<String>,
    buffer: Vec<u8>,
}

impl Pieces {
    fn end(&self, done: &Done) -> End<'_> {
        let (stop_type, word) = match done.finish {
            Finish::StopString(which) => ("word", self.stops.get(usize::from(which))),
            Finish::Length | Finish::Repetition => ("limit", None),
            Finish::Stop | Finish::ToolCalls => ("eos", None),
        };
        End {
            model: &self.model,
            tokens_predicted: done.usage.completion_tokens,
            tokens_evaluated: done.usage.prompt_tokens,
            tokens_cached: done.usage.cached_tokens,
            truncated: false,
            stop_type,
            stopping_word: word.map_or("", |word| word),
            finish_details: FinishDetails::of(done.finish),
            timings: done.into(),
        }
    }
}

impl Encoder for Pieces {
    fn event(&mut self, event: ChatEvent) -> Bytes {
        let mut buffer = std::mem::take(&mut self.buffer);
        match &event {
            ChatEvent::Text { text, logprobs } => {
                write_event(&mut buffer, None, &piece(text, logprobs, None));
            }
            ChatEvent::Done(done) => {
                write_event(&mut buffer, None, &piece("", &[], Some(self.end(done))));
            }
            // A text has no thoughts and no calls.
            _ => {}
        }
        self.buffer = buffer;
        take(&mut self.buffer)
    }

    fn failure(&mut self, failure: Failure) -> Bytes {
        ApiError::failure(failure, field).event()
    }
}

fn piece<'a>(text: &'a str, logprobs: &'a [TokenLogprob], end: Option<End<'a>>) -> Piece<'a> {
    Piece {
        index: 0,
        content: text,
        stop: end.is_some(),
        completion_probabilities: tokens(logprobs).collect(),
        end,
    }
}

/// Tells how far the request is, if that is wished.
fn teller(wish: Wish, waiting: watch::Receiver<Option<Waiting>>) -> Option<Teller> {
    let pieces = move |waiting: &Waiting| {
        let around = |_| json!({ "index": 0, "content": "", "stop": false });
        let mut buffer = vec![];
        for piece in wish.told(waiting, around) {
            write_event(&mut buffer, None, &piece);
        }
        buffer.into()
    };
    wish.is_any().then(|| Teller::new(waiting, pieces))
}

pub async fn complete(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    http: Request,
) -> Result<Response, ApiError> {
    let body::Received {
        bytes,
        share,
        prefer,
    } = body::read(&api, &caller, http).await?;
    let CompletionCall {
        model,
        mut request,
        delivery,
    } = parse(bytes, self::request).await?;
    let failed = |failure| ApiError::failure(failure, field);
    request.whole = delivery == Delivery::Complete;
    let stops = request.output.stop.clone();
    let asked = api.backends.chat(caller.id(), &model, request).await;
    let mut answer = asked.map_err(failed)?;
    let meanwhile = match delivery {
        Delivery::Complete => Meanwhile::of_whole(prefer),
        Delivery::Stream { progress, .. } => {
            Meanwhile::Comments(teller(progress, answer.waiting.clone()))
        }
    };
    let answering = async move {
        let mut event = next(&mut answer).await.map_err(failed)?;
        let answered = Answered::of(&answer);
        let mut pieces = Pieces {
            model: answer.model(),
            stops,
            buffer: vec![],
        };
        if delivery != Delivery::Complete {
            // One that is answered whole is kept to the end: it may be answered anew.
            drop(share);
            return Ok(answered.said_on(streamed(answer, event, pieces)));
        }
        let (mut text, mut drawn) = (String::new(), vec![]);
        loop {
            match event {
                ChatEvent::Text {
                    text: more,
                    logprobs,
                } => {
                    text.push_str(&more);
                    drawn.extend(logprobs);
                }
                ChatEvent::Restarted => {
                    text.clear();
                    drawn.clear();
                }
                ChatEvent::Done(done) => {
                    pieces.model = answer.model();
                    let end = pieces.end(&done);
                    return Ok(crate::api::json(render(&piece(&text, &drawn, Some(end)))));
                }
                _ => {}
            }
            event = next(&mut answer).await.map_err(failed)?;
        }
    };
    begun(meanwhile, answering, |error: ApiError| error.event()).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::parse::json::assert_refused;
    use crate::chat::{RawPrompt, Timings, Usage};
    use serde_json::Value;

    #[test]
    fn bodies_of_llama_cpps_clients() {
        let body = r#"{"prompt":"Once","n_predict":-1,"n_probs":3,"stop":["x"],"stream":true,"id_slot":-1,
            "cache_prompt":false,"timings_per_token":true,"samplers":null,"mirostat":0,"dry_multiplier":0.0}"#;
        let call = request(body.as_bytes()).unwrap();
        assert_eq!(call.request.prompt, Some(RawPrompt::Text("Once".into())));
        assert_eq!(
            (call.request.output.max_tokens, call.request.logprobs),
            (None, Some(3))
        );
        assert!(call.delivery != Delivery::Complete && !call.request.cache_prompt);
        let tokens = request(br#"{"prompt":[2,5],"n_predict":4}"#)
            .unwrap()
            .request;
        assert_eq!(tokens.prompt, Some(RawPrompt::Tokens(vec![2, 5])));
        assert_refused(
            request,
            &[
                (r#"{}"#, "prompt"),
                (r#"{"prompt":["a","b"]}"#, "prompt"),
                (r#"{"prompt":"a","n_probs":21}"#, "n_probs"),
                (r#"{"prompt":"a","n":2}"#, "n"),
                (r#"{"prompt":"a","mirostat":2}"#, "mirostat"),
                (r#"{"prompt":"a","messages":[]}"#, "messages"),
            ],
        );
    }

    #[test]
    fn the_end_says_why() {
        let mut pieces = Pieces {
            model: "tiny".into(),
            stops: vec!["x".into()],
            buffer: vec![],
        };
        let mut said = |event| -> Value {
            let bytes = pieces.event(event);
            let text = std::str::from_utf8(&bytes).unwrap();
            serde_json::from_str(text.strip_prefix("data: ").unwrap()).unwrap()
        };
        let text = said(ChatEvent::Text {
            text: "a".into(),
            logprobs: vec![],
        });
        assert_eq!(text, json!({"index": 0, "content": "a", "stop": false}));
        for (finish, kind, word) in [
            (Finish::Stop, "eos", ""),
            (Finish::Length, "limit", ""),
            (Finish::Repetition, "limit", ""),
            (Finish::StopString(0), "word", "x"),
        ] {
            let end = said(ChatEvent::Done(Done {
                finish,
                usage: Usage::default(),
                timings: Timings::default(),
            }));
            assert_eq!(
                (&end["stop_type"], &end["stopping_word"]),
                (&json!(kind), &json!(word))
            );
            assert_eq!(
                (&end["stop"], &end["model"]),
                (&json!(true), &json!("tiny"))
            );
        }
    }
}
