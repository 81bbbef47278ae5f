//! The API's JSON, as far as gemmactl speaks it.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::args::Sampling;
use super::error::Error;

/// A message of a conversation.
pub fn message(role: &str, content: &str) -> Value {
    json!({ "role": role, "content": content })
}

/// A user's message that begins with pictures and sounds, each a part of it, and then says
/// something.
pub fn message_with_media(mut parts: Vec<Value>, text: &str) -> Value {
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
        ("seed", sampling.seed.map(Value::from)),
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
    ];
    body.extend(
        options
            .into_iter()
            .filter_map(|(name, value)| Some((name.into(), value?))),
    );
    body.into()
}

/// What one event of a streamed answer brings.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Piece {
    pub text: Option<String>,
    pub thought: Option<String>,
    pub calls: Vec<CallPiece>,
    /// Why the answer ended: `stop`, `length`, …
    pub finish: Option<String>,
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
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    delta: Delta,
    finish_reason: Option<String>,
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
        });
    }
    let Some(choice) = chunk.choices.into_iter().next() else {
        return Ok(Piece::default());
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
    })
}

/// The message of an error response, if the body has one.
pub fn error_message(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    message_of(body.get("error")?).map(Into::into)
}

fn message_of(error: &Value) -> Option<&str> {
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
            seed: Some(u64::MAX),
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
        assert_eq!(end.finish.as_deref(), Some("length"));
        assert_eq!(
            piece(r#"{"choices":[],"usage":{}}"#).unwrap(),
            Piece::default()
        );
    }

    #[test]
    fn failures_in_mid_stream() {
        let failed = piece(r#"{"error":{"message":"the worker died"}}"#);
        assert!(matches!(failed, Err(Error::Refused { message }) if message == "the worker died"));
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
        assert_eq!(
            error_message(br#"{"error":{"message":"no"}}"#).as_deref(),
            Some("no")
        );
        assert_eq!(error_message(br#"{"error":"no"}"#).as_deref(), Some("no"));
        assert_eq!(error_message(b"<html>"), None);
    }
}
