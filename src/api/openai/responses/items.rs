//! `input`: a text, or items that become the messages of a conversation.
//!
//! What the model said in one turn is several items here and one message there: a thought, a text
//! and calls that follow each other belong together.

use axum::body::Bytes;

use crate::api::id;
use crate::api::openai::responses::places::Places;
use crate::api::openai::tools;
use crate::api::parse::Invalid;
use crate::api::parse::json::{Json, Object, quote};
use crate::api::parse::{files, media};
use crate::api::render;
use crate::chat::{Message, Part, Role, ToolCall};

/// What was sent, twice: as the model will see it and as `input_items` shows it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Input {
    pub messages: Vec<Message>,
    pub places: Places,
    pub items: Vec<Item>,
}

/// An item as it is shown: with an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub id: String,
    /// A JSON object, shared by all who read it.
    pub json: Bytes,
}

pub fn input(json: &Json) -> Result<Input, Invalid> {
    let mut input = Input::default();
    if json.is_string() {
        let text = json.string()?;
        let id = id::random("msg_");
        let json = format!(
            r#"{{"id":"{id}","type":"message","role":"user","content":[{{"type":"input_text","text":{}}}]}}"#,
            json.raw().trim_ascii()
        );
        input.items.push(Item {
            id,
            json: json.into(),
        });
        input.messages.push(Message::text(Role::User, text));
        input.places.0.push(None);
        return Ok(input);
    }
    if !json.is_array() {
        return json.wrong("must be a string or an array of items");
    }
    for (place, item) in json.array()?.iter().enumerate() {
        let prefix = read(item, &mut input.messages)?;
        input.places.0.resize(input.messages.len(), Some(place));
        input.items.push(named(item, prefix)?);
    }
    Ok(input)
}

/// The item as clients expect it back: with an id and a type, and a text as a part. What the client
/// wrote is copied as it is, so this costs no more than the item's own bytes.
fn named(json: &Json, prefix: &str) -> Result<Item, Invalid> {
    let fields: Vec<(String, Json)> = json.object()?.into_entries().collect();
    let is = |name: &str, text: &str| fields.iter().any(|(n, json)| n == name && json.is(text));
    let has = |name: &str| {
        let says = |(n, json): &(String, Json)| n == name && json.raw() != "null";
        fields.iter().any(says)
    };
    let own = fields
        .iter()
        .find(|(name, json)| name == "id" && json.is_string());
    let id = match own {
        Some((_, json)) => json.string()?,
        None => id::random(prefix),
    };
    let mut out = String::with_capacity(json.raw().len() + id.len() + 64);
    out.push_str("{\"id\":");
    out.push_str(&render(&id));
    if !has("type") {
        out.push_str(",\"type\":\"message\"");
    }
    for (name, value) in &fields {
        if name == "id" || name == "type" && !has("type") {
            continue;
        }
        let value_is_text = name == "content" && value.is_string();
        out.push(',');
        out.push_str(&render(name));
        out.push(':');
        if value_is_text {
            let kind = if is("role", "\"assistant\"") {
                "output_text"
            } else {
                "input_text"
            };
            out.push_str(&format!("[{{\"type\":\"{kind}\",\"text\":"));
        }
        out.push_str(value.raw());
        if value_is_text {
            out.push_str("}]");
        }
    }
    out.push('}');
    Ok(Item {
        id,
        json: out.into(),
    })
}

/// Adds an item to the conversation. Returns what ids of its kind begin with.
fn read(json: &Json, messages: &mut Vec<Message>) -> Result<&'static str, Invalid> {
    let mut object = json.object()?;
    let kind = object.take("type");
    let name = kind.as_ref().map_or(Ok("message".into()), Json::string)?;
    // What the daemon gave them, or the client: neither says anything.
    let id = object.take("id");
    id.map(|id| id.string()).transpose()?;
    object.take("status");
    let prefix = match name.as_str() {
        "message" => {
            message(&mut object, messages)?;
            "msg_"
        }
        "reasoning" => {
            let thought = thought(&mut object)?;
            messages.push(Message { reasoning: Some(thought), content: vec![], ..Message::text(Role::Assistant, "") });
            "rs_"
        }
        "function_call" => {
            let id = object.need("call_id")?.string()?;
            let name = object.need("name")?.string()?;
            let arguments = tools::arguments(&object.need("arguments")?)?;
            model_turn(messages).tool_calls.push(ToolCall { id, name, arguments });
            "fc_"
        }
        "function_call_output" => {
            let id = object.need("call_id")?.string()?;
            let content = output(&object.need("output")?)?;
            messages.push(Message { content, tool_call_id: Some(id), ..Message::text(Role::Tool, "") });
            "fco_"
        }
        "item_reference" => return json.wrong("refers to an item that is kept elsewhere; send the item itself, or `previous_response_id`"),
        other => {
            let known = "`message`, `reasoning`, `function_call` or `function_call_output`";
            return kind.unwrap_or(json.clone()).wrong(format!("must be {known}, not `{}`", quote(other)));
        }
    };
    object.finish()?;
    Ok(prefix)
}

/// The model's turn that is going on, or a new one.
fn model_turn(messages: &mut Vec<Message>) -> &mut Message {
    let goes_on = messages
        .last()
        .is_some_and(|message| message.role == Role::Assistant);
    if !goes_on {
        messages.push(Message {
            content: vec![],
            ..Message::text(Role::Assistant, "")
        });
    }
    let last = messages.len() - 1;
    &mut messages[last]
}

fn message(object: &mut Object, messages: &mut Vec<Message>) -> Result<(), Invalid> {
    let role = object.need("role")?;
    let role = match role.string()?.as_str() {
        "system" | "developer" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        other => {
            return role.wrong(format!(
                "must be `system`, `developer`, `user` or `assistant`, not `{}`",
                quote(other)
            ));
        }
    };
    // Which part of its answer a model was at; Gemma's turns have no such parts.
    object.take("phase");
    let content = object.need("content")?;
    let content = if content.is_string() {
        vec![Part::Text(content.string()?)]
    } else {
        content
            .array()?
            .iter()
            .map(part)
            .collect::<Result<_, _>>()?
    };
    // Behind a thought, unless something was said or called after it.
    let thought = |message: &Message| {
        message.role == Role::Assistant
            && message.content.is_empty()
            && message.tool_calls.is_empty()
    };
    if role == Role::Assistant && messages.last().is_some_and(thought) {
        model_turn(messages).content = content;
    } else {
        messages.push(Message {
            content,
            ..Message::text(role, "")
        });
    }
    Ok(())
}

fn part(json: &Json) -> Result<Part, Invalid> {
    let mut object = json.object()?;
    let kind = object.need("type")?;
    let part = match kind.string()?.as_str() {
        "input_text" | "text" => Part::Text(object.need("text")?.string()?),
        "output_text" => {
            // An answer comes back as it was given.
            object.take("annotations");
            object.take("logprobs");
            Part::Text(object.need("text")?.string()?)
        }
        "refusal" => Part::Text(object.need("refusal")?.string()?),
        "input_image" => media::input_image(&mut object)?,
        "input_audio" => Part::Sound(media::input_audio(&mut object)?),
        "input_file" => files::input_file(&mut object)?,
        other => {
            return kind.wrong(format!(
                "is `{}`, which is not supported; only `input_text`, `input_image`, `input_audio`, `input_file`, `output_text` and \
                 `refusal` are",
                quote(other)
            ));
        }
    };
    object.finish()?;
    Ok(part)
}

/// What a function answered.
fn output(json: &Json) -> Result<Vec<Part>, Invalid> {
    if json.is_string() {
        return Ok(vec![Part::Text(json.string()?)]);
    }
    if !json.is_array() {
        return json.wrong("must be a string or an array of parts");
    }
    json.array()?.iter().map(part).collect()
}

/// The thought itself, or its summary if that is all there is.
fn thought(object: &mut Object) -> Result<String, Invalid> {
    if let Some(sealed) = object.take("encrypted_content") {
        return sealed.wrong("was sealed by another service and cannot be read; leave it out");
    }
    let mut texts = |name, kind| -> Result<Vec<String>, Invalid> {
        let Some(list) = object.take(name) else {
            return Ok(vec![]);
        };
        let text = |json: &Json| {
            let mut object = json.object()?;
            let named = object.need("type")?;
            if named.string()? != kind {
                return named.wrong(format!("must be `{kind}`"));
            }
            let text = object.need("text")?.string()?;
            object.finish()?;
            Ok(text)
        };
        list.array()?.iter().map(text).collect()
    };
    let (summary, content) = (
        texts("summary", "summary_text")?,
        texts("content", "reasoning_text")?,
    );
    Ok(if content.is_empty() {
        summary.join("\n")
    } else {
        content.concat()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::parse::json::body;

    fn parse(json: &str) -> Result<Input, Invalid> {
        input(
            &body(format!("{{\"input\":{json}}}").as_bytes())
                .unwrap()
                .take("input")
                .unwrap(),
        )
    }

    #[test]
    fn a_text_is_what_the_user_says() {
        let input = parse("\"hi\"").unwrap();
        assert_eq!(input.messages, [Message::text(Role::User, "hi")]);
        let item: serde_json::Value = serde_json::from_slice(&input.items[0].json).unwrap();
        assert_eq!(
            (&item["id"], &item["content"][0]["text"]),
            (&input.items[0].id.as_str().into(), &"hi".into())
        );
    }

    #[test]
    fn an_item_is_shown_as_it_was_sent() {
        let shown = |json: &str| -> serde_json::Value {
            let input = parse(&format!("[{json}]")).unwrap();
            let item = &input.items[0];
            let value: serde_json::Value = serde_json::from_slice(&item.json).unwrap();
            assert_eq!(value["id"], item.id.as_str());
            value
        };
        let text = shown(r#"{"content" : "a \"\u00e9\" b", "role": "user", "id": null}"#);
        assert!(text["id"].as_str().unwrap().starts_with("msg_"));
        assert_eq!(text["type"], "message");
        assert_eq!(
            text["content"],
            serde_json::json!([{"type": "input_text", "text": "a \"\u{e9}\" b"}])
        );
        let answer = shown(r#"{"type":null,"id":"msg_\"1","role":"assistant","content":"x"}"#);
        assert_eq!(
            answer,
            serde_json::json!({"id": "msg_\"1", "type": "message", "role": "assistant",
                "content": [{"type": "output_text", "text": "x"}]})
        );
        let parts = r#"{"type":"message","role":"user","content":[{"type":"input_text","text":"a"}],"id":"m"}"#;
        assert_eq!(
            shown(parts),
            serde_json::from_str::<serde_json::Value>(parts).unwrap()
        );
    }

    #[test]
    fn items_of_one_turn_become_one_message() {
        let input = parse(
            r#"[{"role":"developer","content":"d"},{"type":"message","role":"user","content":[{"type":"input_text","text":"a"}]},
                {"type":"reasoning","id":"rs_1","summary":[],"content":[{"type":"reasoning_text","text":"hm"}],"status":"completed"},
                {"type":"message","id":"msg_1","role":"assistant","status":"completed",
                 "content":[{"type":"output_text","text":"b","annotations":[],"logprobs":[]}]},
                {"type":"function_call","id":"fc_1","call_id":"c1","name":"f","arguments":"{}","status":"completed"},
                {"type":"function_call","call_id":"c2","name":"g","arguments":"{\"a\":1}"},
                {"type":"function_call_output","call_id":"c1","output":"1"},
                {"type":"function_call_output","call_id":"c2","output":[{"type":"input_text","text":"2"}]},
                {"type":"function_call","call_id":"c3","name":"f","arguments":"{}"}]"#,
        )
        .unwrap();
        let roles: Vec<Role> = input.messages.iter().map(|message| message.role).collect();
        assert_eq!(
            roles,
            [
                Role::System,
                Role::User,
                Role::Assistant,
                Role::Tool,
                Role::Tool,
                Role::Assistant
            ]
        );
        let turn = &input.messages[2];
        assert_eq!(
            (turn.reasoning.as_deref(), &turn.content[..]),
            (Some("hm"), &[Part::Text("b".into())][..])
        );
        assert_eq!(
            turn.tool_calls
                .iter()
                .map(|call| call.id.as_str())
                .collect::<Vec<_>>(),
            ["c1", "c2"]
        );
        assert_eq!(input.messages[4].tool_call_id.as_deref(), Some("c2"));
        assert_eq!(
            input.places.0,
            [Some(0), Some(1), Some(2), Some(6), Some(7), Some(8)]
        );
        assert_eq!(input.items.len(), 9);
        assert_eq!(
            (input.items[3].id.as_str(), input.items[4].id.as_str()),
            ("msg_1", "fc_1")
        );
        assert!(input.items[5].id.starts_with("fc_"));
    }

    #[test]
    fn errors_name_the_field() {
        for (json, field) in [
            ("7", "input"),
            ("[7]", "input[0]"),
            (r#"[{"role":"king","content":"a"}]"#, "input[0].role"),
            (r#"[{"role":"user"}]"#, "input[0].content"),
            (
                r#"[{"role":"user","content":[{"type":"input_video","file_id":"x"}]}]"#,
                "input[0].content[0].type",
            ),
            (
                r#"[{"role":"user","content":[{"type":"input_image","file_id":"x"}]}]"#,
                "input[0].content[0].image_url",
            ),
            (
                r#"[{"role":"user","content":"a","junk":1}]"#,
                "input[0].junk",
            ),
            (r#"[{"type":"web_search_call","id":"x"}]"#, "input[0].type"),
            (r#"[{"type":"item_reference","id":"x"}]"#, "input[0]"),
            (
                r#"[{"type":"function_call","call_id":"c","name":"f","arguments":"[]"}]"#,
                "input[0].arguments",
            ),
            (
                r#"[{"type":"function_call_output","call_id":"c","output":7}]"#,
                "input[0].output",
            ),
            (
                r#"[{"type":"reasoning","summary":[],"encrypted_content":"x"}]"#,
                "input[0].encrypted_content",
            ),
            (
                r#"[{"type":"reasoning","summary":[{"type":"text","text":"x"}]}]"#,
                "input[0].summary[0].type",
            ),
        ] {
            assert_eq!(parse(json).unwrap_err().field, field, "{json}");
        }
    }
}
