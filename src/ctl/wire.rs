//! The API's JSON, as far as gemmactl speaks it.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::args::Sampling;
use super::error::Error;

/// A message of a conversation.
pub fn message(role: &str, content: &str) -> Value {
    json!({ "role": role, "content": content })
}

/// A user's message that begins with pictures, sounds and files, each a part of it, and then says
/// something.
pub fn message_with_media(mut parts: Vec<Value>, text: &str) -> Value {
    if parts.is_empty() {
        return message("user", text);
    }
    parts.push(json!({ "type": "text", "text": text }));
    json!({ "role": "user", "content": parts })
}

/// The body of a chat request. Thinking is always said, so that the daemon's default cannot
/// surprise.
pub fn chat_body(
    model: &str,
    messages: &[Value],
    sampling: &Sampling,
    think: bool,
    stream: bool,
) -> Value {
    let mut body = Map::new();
    body.insert("model".into(), model.into());
    body.insert("messages".into(), messages.into());
    body.insert("stream".into(), stream.into());
    body.insert(
        "chat_template_kwargs".into(),
        json!({ "enable_thinking": think }),
    );
    let stop = Some(&sampling.stop).filter(|stop| !stop.is_empty());
    let options = [
        ("temperature", sampling.temperature.map(Value::from)),
        ("top_k", sampling.top_k.map(Value::from)),
        ("top_p", sampling.top_p.map(Value::from)),
        ("min_p", sampling.min_p.map(Value::from)),
        ("seed", sampling.seed.clone().map(Value::from)),
        ("max_tokens", sampling.max_tokens.map(Value::from)),
        ("stop", stop.map(|stop| stop.as_slice().into())),
        ("repeat_penalty", sampling.repeat_penalty.map(Value::from)),
        (
            "frequency_penalty",
            sampling.frequency_penalty.map(Value::from),
        ),
        (
            "presence_penalty",
            sampling.presence_penalty.map(Value::from),
        ),
        ("speculation", sampling.speculation.clone().map(Value::from)),
    ];
    body.extend(
        options
            .into_iter()
            .filter_map(|(name, value)| Some((name.into(), value?))),
    );
    body.into()
}

/// Has the daemon say how far the request is, until its streamed answer begins.
pub fn ask_for_progress(body: &mut Value) {
    body["stream_options"] = json!({ "include_progress": true });
}

/// What one event of a streamed answer brings.
#[derive(Debug, Default, PartialEq)]
pub struct Piece {
    pub text: Option<String>,
    pub thought: Option<String>,
    pub calls: Vec<CallPiece>,
    /// Why the answer ended: `stop`, `length`, …
    pub finish: Option<String>,
    /// It was ended because it repeated itself.
    pub repeats: bool,
    /// Comes with the last piece.
    pub timings: Option<Timings>,
    /// Comes before the answer: how far the request is.
    pub progress: Option<Progress>,
}

/// How far a request is whose answer has not begun.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct Progress {
    #[serde(flatten)]
    pub phase: Phase,
    pub seconds_left: Option<f64>,
}

/// What it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum Phase {
    Fetching {
        received: u64,
        bytes: Option<u64>,
    },
    Queued {
        position: u32,
    },
    Loading {
        share: Option<f64>,
    },
    Reading {
        tokens_read: u32,
        tokens_to_read: u32,
    },
    /// A daemon that is newer knows more.
    #[serde(other)]
    Unknown,
}

impl Piece {
    /// Whether there is anything of the answer in it.
    pub fn has_token(&self) -> bool {
        let is_some = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        is_some(&self.text) || is_some(&self.thought) || !self.calls.is_empty()
    }
}

/// How long an answer took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Timings {
    /// Tokens of the prompt that were in the cache, and those that were not.
    pub cache_n: u64,
    pub prompt_n: u64,
    pub prompt_ms: f64,
    pub prompt_per_second: f64,
    /// Tokens of the answer.
    pub predicted_n: u64,
    pub predicted_ms: f64,
    pub predicted_per_second: f64,
}

/// A piece of a call: its name, which comes first, or some of its arguments.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
pub struct CallPiece {
    pub name: Option<String>,
    #[serde(default)]
    pub arguments: String,
}

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    timings: Option<Timings>,
    progress: Option<Progress>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    delta: Delta,
    finish_reason: Option<String>,
    finish_details: Option<FinishDetails>,
}

#[derive(Deserialize)]
struct FinishDetails {
    r#type: String,
}

#[derive(Default, Deserialize)]
struct Delta {
    content: Option<String>,
    reasoning_content: Option<String>,
    #[serde(default)]
    tool_calls: Vec<CallDelta>,
}

#[derive(Deserialize)]
struct CallDelta {
    function: CallPiece,
}

/// Reads an event that is not `[DONE]`.
///
/// # Errors
/// `Refused` for an error that the daemon reports in mid-stream, `Broken` for what is no event of
/// an answer.
pub fn piece(data: &str) -> Result<Piece, Error> {
    let chunk: Chunk = serde_json::from_str(data).map_err(|error| Error::Broken {
        cause: format!("it sent no valid event: {error}"),
    })?;
    if let Some(error) = chunk.error {
        return Err(Error::Refused {
            message: message_of(&error)
                .unwrap_or("the answer failed for a reason that was not told")
                .into(),
            field: field_of(&error),
        });
    }
    let (timings, progress) = (chunk.timings, chunk.progress);
    let Some(choice) = chunk.choices.into_iter().next() else {
        return Ok(Piece {
            timings,
            progress,
            ..Piece::default()
        });
    };
    let calls = choice
        .delta
        .tool_calls
        .into_iter()
        .map(|call| call.function)
        .collect();
    Ok(Piece {
        text: choice.delta.content,
        thought: choice.delta.reasoning_content,
        calls,
        finish: choice.finish_reason,
        repeats: choice
            .finish_details
            .is_some_and(|details| details.r#type == "repetition"),
        timings,
        progress,
    })
}

/// The message of an error response, and the field of the request that is to blame, as far as the
/// body has them.
pub fn error(body: &[u8]) -> (Option<String>, Option<String>) {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let error = &body["error"];
    (message_of(error).map(Into::into), field_of(error))
}

fn field_of(error: &Value) -> Option<String> {
    Some(error.get("param")?.as_str()?.to_owned())
}

/// What an error says.
pub fn message_of(error: &Value) -> Option<&str> {
    error.get("message").unwrap_or(error).as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_given_is_sent() {
        let body = chat_body(
            "auto",
            &[message("user", "hi")],
            &Sampling::default(),
            false,
            true,
        );
        let expected = json!({
            "model": "auto", "messages": [{"role": "user", "content": "hi"}], "stream": true,
            "chat_template_kwargs": {"enable_thinking": false},
        });
        assert_eq!(body, expected);
        let sampling = Sampling {
            temperature: Some(0.7),
            speculation: Some("off".into()),
            seed: Some(u64::MAX.into()),
            stop: vec!["a".into(), "b".into()],
            ..Sampling::default()
        };
        let body = chat_body("m", &[], &sampling, true, false);
        assert_eq!(
            (&body["temperature"], &body["seed"], &body["stop"]),
            (&json!(0.7), &json!(u64::MAX), &json!(["a", "b"]))
        );
        assert_eq!(body["chat_template_kwargs"]["enable_thinking"], true);
        assert_eq!(body.get("top_k"), None);
    }

    #[test]
    fn media_come_before_the_words() {
        let message = message_with_media(vec![json!({"type": "image_url"})], "what?");
        assert_eq!(message["content"][0], json!({"type": "image_url"}));
        assert_eq!(
            message["content"][1],
            json!({"type": "text", "text": "what?"})
        );
    }

    #[test]
    fn pieces() {
        let text =
            piece(r#"{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}"#)
                .unwrap();
        assert_eq!(
            text,
            Piece {
                text: Some("a".into()),
                ..Piece::default()
            }
        );
        let thought = piece(r#"{"choices":[{"delta":{"reasoning_content":"h"}}]}"#).unwrap();
        assert_eq!(thought.thought.as_deref(), Some("h"));
        let call =
            piece(r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"c","function":{"name":"f","arguments":""}}]}}]}"#).unwrap();
        assert_eq!(
            call.calls,
            [CallPiece {
                name: Some("f".into()),
                arguments: String::new()
            }]
        );
        let end = piece(r#"{"choices":[{"delta":{},"finish_reason":"length"}]}"#).unwrap();
        assert_eq!(
            (end.finish.as_deref(), end.repeats),
            (Some("length"), false)
        );
        let end = piece(
            r#"{"choices":[{"delta":{},"finish_reason":"length","finish_details":{"type":"repetition"}}]}"#,
        );
        assert!(end.unwrap().repeats);
        assert_eq!(
            piece(r#"{"choices":[],"usage":{}}"#).unwrap(),
            Piece::default()
        );
        for (json, phase) in [
            (
                r#""fetching","received":3,"bytes":null"#,
                Phase::Fetching {
                    received: 3,
                    bytes: None,
                },
            ),
            (r#""queued","position":3"#, Phase::Queued { position: 3 }),
            (r#""loading","share":null"#, Phase::Loading { share: None }),
            (
                r#""reading","tokens_read":4,"tokens_to_read":9,"tokens_cached":1"#,
                Phase::Reading {
                    tokens_read: 4,
                    tokens_to_read: 9,
                },
            ),
            (r#""dreaming","sheep":1"#, Phase::Unknown),
        ] {
            let json =
                format!(r#"{{"choices":[],"progress":{{"phase":{json},"seconds_left":1.5}}}}"#);
            let progress = piece(&json).unwrap().progress.unwrap();
            assert_eq!((progress.phase, progress.seconds_left), (phase, Some(1.5)));
        }
    }

    #[test]
    fn failures_in_mid_stream() {
        let failed = piece(r#"{"error":{"message":"the worker died"}}"#);
        assert!(
            matches!(failed, Err(Error::Refused { message, field: None }) if message == "the worker died")
        );
        assert!(matches!(
            piece(r#"{"error":{}}"#),
            Err(Error::Refused { .. })
        ));
        assert!(matches!(piece("{"), Err(Error::Broken { .. })));
        assert!(matches!(
            piece(r#"{"choices":7}"#),
            Err(Error::Broken { .. })
        ));
    }

    #[test]
    fn error_bodies() {
        let told = |body: &[u8]| error(body);
        assert_eq!(
            told(br#"{"error":{"message":"no","param":"stop[0]"}}"#),
            (Some("no".into()), Some("stop[0]".into()))
        );
        assert_eq!(told(br#"{"error":"no"}"#), (Some("no".into()), None));
        assert_eq!(told(b"<html>"), (None, None));
    }
}
