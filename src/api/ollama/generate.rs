//! A request to `/api/generate`: one prompt, as what a user says or, with `raw`, as it is.

use crate::api::ollama::request::{Call, Common, Endpoint, Kind, images};
use crate::api::parse::Invalid;
use crate::api::parse::json::{self, Object};
use crate::chat::{ChatRequest, Message, Part, RawPrompt, Role, Thinking};

/// Reads a body. Every bound of the request has been checked when this returns.
pub fn parse(body: &[u8]) -> Result<Call, Invalid> {
    let mut object = json::body(body)?;
    let common = Common::take(&mut object)?;
    let prompt = object.string("prompt")?.unwrap_or_default();
    if object.switch("raw", false)? {
        return raw(object, common, prompt);
    }
    let system = object.string("system")?.filter(|text| !text.is_empty());
    let mut content = images(&mut object)?;
    let endpoint = Endpoint {
        kind: Kind::Generate,
        system: system.is_some(),
    };
    if prompt.is_empty() && content.is_empty() {
        return common.idle(object, endpoint);
    }
    content.push(Part::Text(prompt));
    let user = Message {
        content,
        ..Message::text(Role::User, "")
    };
    let system = system.map(|text| Message::text(Role::System, text));
    common.asking(object, endpoint, |request| ChatRequest {
        messages: system.into_iter().chain([user]).collect(),
        ..request
    })
}

/// A prompt that is the client's own from its first token to its last.
fn raw(mut object: Object, common: Common, prompt: String) -> Result<Call, Invalid> {
    for name in ["system", "images"] {
        if let Some(field) = object.take(name)
            && !field.is("\"\"")
            && !field.is("[]")
        {
            return field
                .wrong("has no place in a prompt that is `raw`: it goes through no template");
        }
    }
    let endpoint = Endpoint {
        kind: Kind::Generate,
        system: false,
    };
    if prompt.is_empty() {
        return common.idle(object, endpoint);
    }
    common.asking(object, endpoint, |request| ChatRequest {
        prompt: Some(RawPrompt::Text(prompt)),
        // It has no place for thoughts.
        thinking: Thinking::Off,
        ..request
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ollama::request::Wish;
    use crate::api::parse::json::assert_refused;

    fn request(body: &str) -> ChatRequest {
        match parse(body.as_bytes()).unwrap().wish {
            Wish::Answer(request) => *request,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_prompt_is_what_a_user_says() {
        let r = request(
            r#"{"model":"m","prompt":"hi","system":"be brief","images":["iVBORw0KGgo="],"context":[],"suffix":"","template":"","raw":false}"#,
        );
        assert_eq!(r.messages[0], Message::text(Role::System, "be brief"));
        assert!(matches!(
            r.messages[1].content[..],
            [Part::Picture(_), Part::Text(_)]
        ));
        let raw = request(
            r#"{"prompt":"<|turn>user\nhi","raw":true,"think":true,"options":{"num_predict":3}}"#,
        );
        assert_eq!(raw.prompt, Some(RawPrompt::Text("<|turn>user\nhi".into())));
        assert!(!raw.thinking.is_on() && raw.output.max_tokens == Some(3));
    }

    #[test]
    fn nothing_is_asked() {
        for (rest, wish) in [
            ("", Wish::Load),
            (r#","prompt":"","keep_alive":"10m""#, Wish::Load),
            (r#","keep_alive":0"#, Wish::Unload),
            (r#","raw":true,"keep_alive":0"#, Wish::Unload),
        ] {
            let call = parse(format!(r#"{{"model":"m"{rest}}}"#).as_bytes()).unwrap();
            assert_eq!(call.wish, wish, "{rest}");
        }
    }

    #[test]
    fn errors_name_the_field() {
        assert_refused(
            parse,
            &[
                (r#"{"prompt":7}"#, "prompt"),
                (r#"{"prompt":"a","suffix":"b"}"#, "suffix"),
                (r#"{"prompt":"a","context":[1,2]}"#, "context"),
                (r#"{"prompt":"a","template":"{{ .Prompt }}"}"#, "template"),
                (r#"{"prompt":"a","width":512}"#, "width"),
                (r#"{"prompt":"a","images":["?"]}"#, "images[0]"),
                (r#"{"prompt":"a","system":"s","images":[""]}"#, "images[0]"),
                (r#"{"prompt":"a","raw":true,"system":"s"}"#, "system"),
                (
                    r#"{"prompt":"a","raw":true,"images":["iVBORw0KGgo="]}"#,
                    "images",
                ),
                (r#"{"prompt":"a","messages":[]}"#, "messages"),
                (r#"{"prompt":"a","top_p":1}"#, "top_p"),
                (r#"{"prompt":"a","options":{"top_p":2}}"#, "options.top_p"),
            ],
        );
    }
}
