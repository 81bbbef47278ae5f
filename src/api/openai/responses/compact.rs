//! `POST /v1/responses/compact`: a summary in the place of a conversation that has become long.
//!
//! The model is asked for it; if the conversation is longer than its context, without the oldest
//! turns. The client puts the item that it gets in front of what follows.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;

use crate::access::Caller;
use crate::api::error::ApiError;
use crate::api::generation::{now, parse};
use crate::api::ignored::Ignored;
use crate::api::openai::responses::draft::Draft;
use crate::api::openai::responses::items::{self, Input};
use crate::api::openai::responses::request::{Delivery, ResponsesCall, Shown};
use crate::api::openai::responses::response::UsageOut;
use crate::api::openai::responses::tools::Names;
use crate::api::openai::responses::{collected, ready};
use crate::api::parse::Invalid;
use crate::api::parse::json;
use crate::api::parts::Kind;
use crate::api::progress::Wish;
use crate::api::{Api, body, documents, id, json as answer, render, sealed};
use crate::attachments::ReadFile;
use crate::chat::{ChatRequest, Message, OutputLimits, Role};

/// Tokens of a summary.
const LONGEST: u32 = 2048;

/// What the model is asked.
const ASK: &str = "Sum up our conversation until here, for someone who will go on with it and has \
    not seen it: what the task is, what was found out and decided, what was done and what came of \
    it, names, paths and numbers that matter, and what is to be done next. Write nothing else.";

/// What a request for a response says besides, and a summary has no use for.
const IDLE: [&str; 15] = [
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "reasoning",
    "text",
    "include",
    "store",
    "stream",
    "service_tier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "client_metadata",
    "metadata",
    "user",
    "safety_identifier",
];

#[derive(Serialize)]
struct Compacted<'a> {
    id: String,
    object: &'static str,
    /// Unix seconds.
    created_at: u64,
    output: [Compaction<'a>; 1],
    usage: UsageOut,
}

#[derive(Serialize)]
struct Compaction<'a> {
    r#type: &'a str,
    id: String,
    encrypted_content: String,
}

pub async fn compact(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Response {
    let mut files = vec![];
    let answered = compacted(&api, &caller, request, &mut files).await;
    documents::said(answered, &files)
}

async fn compacted(
    api: &Api,
    caller: &Caller,
    request: Request,
    files: &mut Vec<ReadFile>,
) -> Result<Response, ApiError> {
    let body::Received {
        bytes, mut share, ..
    } = body::read(api, caller, request).await?;
    let call = parse(bytes, read).await?;
    let (mut ready, _, shown, ignored) = ready(api, caller.id(), call, &mut share)?;
    let model = ready.model.clone();
    let request = &mut ready.request;
    documents::resolve(api, caller.id(), &model, request, &mut share, files)
        .await
        .map_err(|refused| ready.unread(refused))?;
    ready.request.whole = true;
    let asked = ready
        .ask(&api.backends)
        .await
        .map_err(|failure| ready.refusal(failure))?;
    let (asked, event) = ready
        .begin(&api.backends, asked)
        .await
        .map_err(|failure| ready.refusal(failure))?;
    let mut draft = Draft::new(asked.model(), false, false, shown);
    let done = collected(asked, event, &mut draft).await?;
    let texts = draft
        .parts
        .list()
        .iter()
        .filter(|part| part.kind == Kind::Text);
    let summary: String = texts.map(|part| part.text.as_str()).collect();
    if summary.trim().is_empty() {
        let message = "the model wrote no summary; try again, or leave turns out by yourself";
        return Err(ApiError::invalid(
            StatusCode::UNPROCESSABLE_ENTITY,
            "no_summary",
            message,
        ));
    }
    let compacted = Compacted {
        id: id::random("resp_"),
        object: "response.compaction",
        created_at: now(),
        output: [Compaction {
            r#type: "compaction",
            id: id::random("cmp_"),
            encrypted_content: sealed::seal(summary.trim()),
        }],
        usage: done.usage.into(),
    };
    Ok(ignored.said_on(answer(render(&compacted))))
}

/// Reads a body: a conversation, to which the question for a summary is added.
pub fn read(body: &[u8]) -> Result<ResponsesCall, Invalid> {
    let mut object = json::body(body)?;
    let model = object.need("model")?.string()?;
    let mut ignored = Ignored::default();
    let names = Names::default();
    let input = object.take("input");
    let previous = object.string("previous_response_id")?;
    let mut input = match input {
        Some(json) => items::input(&json, &names, &mut ignored)?,
        None if previous.is_some() => Input::default(),
        None => return object.lacks("input", "is required, or `previous_response_id`"),
    };
    let instructions = object.string("instructions")?;
    for name in IDLE {
        object.take(name);
    }
    object.finish()?;
    input.messages.push(Message::text(Role::User, ASK));
    input.places.push(None);
    let request = ChatRequest {
        output: OutputLimits {
            max_tokens: Some(LONGEST),
            ..OutputLimits::default()
        },
        ..ChatRequest::new(vec![])
    };
    Ok(ResponsesCall {
        progress: Wish::default(),
        model,
        request,
        input,
        instructions,
        previous,
        delivery: Delivery::Complete { keep: false },
        truncates: true,
        shown: Shown::default(),
        tools: vec![],
        ignored,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversation_and_the_question_for_its_summary() {
        let call = read(
            br#"{"model":"m","prompt_cache_key":"k","instructions":"Be brief","input":[{"role":"user","content":"a"},
                {"role":"assistant","content":"b"},{"type":"function_call","call_id":"c","name":"f","arguments":"{}"}],
                "tools":[{"type":"web_search"}],"reasoning":{"effort":"high"}}"#,
        )
        .unwrap();
        assert_eq!(call.input.messages.len(), 3);
        assert_eq!(call.input.messages[2], Message::text(Role::User, ASK));
        assert!(call.truncates && call.request.tools.is_empty());
        assert!(read(br#"{"model":"m","previous_response_id":"resp_1"}"#).is_ok());
    }

    #[test]
    fn errors_name_the_field() {
        for (body, field) in [
            (r#"{"input":"a"}"#, "model"),
            (r#"{"model":"m"}"#, "input"),
            (r#"{"model":"m","input":"a","x":1}"#, "x"),
            (r#"{"model":"m","input":[{"type":"x"}]}"#, "input[0].type"),
        ] {
            assert_eq!(read(body.as_bytes()).unwrap_err().field, field, "{body}");
        }
    }
}
