//! `input`: a text, or items that become the messages of a conversation.
//!
//! What the model said in one turn is several items here and one message there: a thought, a text
//! and calls that follow each other belong together. What another service's own tools did becomes a
//! text of that turn ([`foreign`]); thoughts and summaries that only another service can read are
//! left out, which the answer says.

use axum::body::Bytes;

use crate::api::ignored::Ignored;
use crate::api::openai::responses::tools::{Names, is_hosted};
use crate::api::openai::tools;
use crate::api::parse::Invalid;
use crate::api::parse::json::{Json, Object, quote};
use crate::api::parse::{files, media};
use crate::api::{foreign, id, render, sealed};
use crate::chat::{Message, Part, Role, ToolCall};

/// What stands before a summary of what was left out of a conversation.
const SUMMARY: &str = "[Summary of the conversation until here:]\n";

/// What was sent, twice: as the model will see it and as `input_items` shows it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Input {
    pub messages: Vec<Message>,
    /// For each message, the item that it was made of; `None` for a text.
    pub places: Vec<Option<usize>>,
    pub items: Vec<Item>,
}

/// An item as it is shown: with an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub id: String,
    /// A JSON object, shared by all who read it.
    pub json: Bytes,
}

/// `names`: of the request's tools, by which calls are named.
pub fn input(json: &Json, names: &Names, ignored: &mut Ignored) -> Result<Input, Invalid> {
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
        input.places.push(None);
        return Ok(input);
    }
    if !json.is_array() {
        return json.wrong("must be a string or an array of items");
    }
    for (place, item) in json.array()?.iter().enumerate() {
        let prefix = read(item, names, &mut input.messages, ignored)?;
        input.places.resize(input.messages.len(), Some(place));
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
fn read(
    json: &Json,
    names: &Names,
    messages: &mut Vec<Message>,
    ignored: &mut Ignored,
) -> Result<&'static str, Invalid> {
    let mut object = json.object()?;
    let kind = object.take("type");
    let name = kind.as_ref().map_or(Ok("message".into()), Json::string)?;
    // What the daemon gave them, or the client: neither says anything.
    let id = object.take("id");
    id.map(|id| id.string()).transpose()?;
    for idle in ["status", "created_by", "caller"] {
        object.take(idle);
    }
    let prefix = match name.as_str() {
        "message" => {
            message(&mut object, messages)?;
            "msg_"
        }
        "reasoning" => {
            reasoning(json, &mut object, messages, ignored)?;
            "rs_"
        }
        "function_call" => {
            let given = object.need("arguments")?;
            called(&mut object, tools::arguments(&given)?, names, messages)?;
            "fc_"
        }
        "custom_tool_call" => {
            let input = object.need("input")?.string()?;
            let arguments = serde_json::json!({ "input": input }).to_string();
            called(&mut object, arguments, names, messages)?;
            "ctc_"
        }
        "function_call_output" | "custom_tool_call_output" => {
            messages.push(answered(&mut object)?);
            "fco_"
        }
        "compaction" | "compaction_summary" => {
            summed_up(json, &mut object, messages, ignored)?;
            "cmp_"
        }
        "mcp_list_tools" => {
            ignored.note(json.path(), &name);
            return Ok("item_");
        }
        hosted if is_hosted(hosted) => {
            let text = foreign::text(hosted, json.raw());
            model_turn(messages).content.push(Part::Text(text));
            return Ok("item_");
        }
        "item_reference" => {
            return json.wrong("refers to an item that is kept elsewhere; send the item itself, or `previous_response_id`");
        }
        other => {
            let known = "`message`, `reasoning`, `function_call`, `function_call_output`, `custom_tool_call`, \
                         `custom_tool_call_output` or `compaction`";
            return kind
                .unwrap_or(json.clone())
                .wrong(format!("must be {known}, not `{}`", quote(other)));
        }
    };
    object.finish()?;
    Ok(prefix)
}

/// A call that the model made.
fn called(
    object: &mut Object,
    arguments: String,
    names: &Names,
    messages: &mut Vec<Message>,
) -> Result<(), Invalid> {
    let id = object.need("call_id")?.string()?;
    let namespace = object.string("namespace")?;
    let name = names.called(namespace.as_deref(), &object.need("name")?.string()?);
    let call = ToolCall {
        id,
        name,
        arguments,
    };
    model_turn(messages).tool_calls.push(call);
    Ok(())
}

/// What a function answered, with its call's name.
fn answered(object: &mut Object) -> Result<Message, Invalid> {
    let id = object.need("call_id")?.string()?;
    let output = object.take("output");
    object.take("namespace");
    Ok(Message {
        content: output.map_or(Ok(vec![Part::Text(String::new())]), |json| output_of(&json))?,
        tool_call_id: Some(id),
        name: object.string("name")?,
        ..Message::text(Role::Tool, "")
    })
}

/// A thought, which belongs to what is said behind it.
fn reasoning(
    json: &Json,
    object: &mut Object,
    messages: &mut Vec<Message>,
    ignored: &mut Ignored,
) -> Result<(), Invalid> {
    let sealed = object.string("encrypted_content")?.unwrap_or_default();
    let mut text = thought(object)?;
    if text.is_empty() && !sealed.is_empty() {
        match sealed::open(&sealed) {
            Some(own) => text = own,
            None => ignored.note(json.path(), "encrypted_content"),
        }
    }
    if text.is_empty() {
        return Ok(());
    }
    match messages.last_mut().filter(|message| is_thought(message)) {
        Some(last) => {
            let before = last.reasoning.get_or_insert_default();
            before.push('\n');
            before.push_str(&text);
        }
        None => messages.push(Message {
            reasoning: Some(text),
            content: vec![],
            ..Message::text(Role::Assistant, "")
        }),
    }
    Ok(())
}

/// A summary in the place of what it sums up.
fn summed_up(
    json: &Json,
    object: &mut Object,
    messages: &mut Vec<Message>,
    ignored: &mut Ignored,
) -> Result<(), Invalid> {
    match sealed::open(&object.need("encrypted_content")?.string()?) {
        Some(text) => messages.push(Message::text(Role::User, format!("{SUMMARY}{text}"))),
        None => ignored.note(json.path(), "compaction"),
    }
    Ok(())
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
    if role == Role::Assistant && messages.last().is_some_and(is_thought) {
        model_turn(messages).content = content;
    } else {
        messages.push(Message {
            content,
            ..Message::text(role, "")
        });
    }
    Ok(())
}

/// Whether a message is a thought and nothing else.
fn is_thought(message: &Message) -> bool {
    message.role == Role::Assistant && message.content.is_empty() && message.tool_calls.is_empty()
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
            let frames = "`input_image` parts with `detail` 70";
            return kind.wrong(media::no_video(other, frames).unwrap_or_else(|| {
                format!(
                    "is `{}`, which is not supported; only `input_text`, `input_image`, `input_audio`, `input_file`, `output_text` and \
                     `refusal` are",
                    quote(other)
                )
            }));
        }
    };
    object.finish()?;
    Ok(part)
}

fn output_of(json: &Json) -> Result<Vec<Part>, Invalid> {
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
        parse_all(json).map(|(input, _)| input)
    }

    /// With what was left out.
    fn parse_all(json: &str) -> Result<(Input, Option<String>), Invalid> {
        let mut ignored = Ignored::default();
        let input = input(
            &body(format!("{{\"input\":{json}}}").as_bytes())
                .unwrap()
                .take("input")
                .unwrap(),
            &Names::default(),
            &mut ignored,
        )?;
        Ok((input, ignored.value()))
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
            input.places,
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
            (r#"[{"type":"web_searching","id":"x"}]"#, "input[0].type"),
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
                r#"[{"type":"reasoning","summary":[],"encrypted_content":7}]"#,
                "input[0].encrypted_content",
            ),
            (r#"[{"type":"compaction"}]"#, "input[0].encrypted_content"),
            (
                r#"[{"type":"custom_tool_call","call_id":"c","name":"f","input":{}}]"#,
                "input[0].input",
            ),
            (
                r#"[{"type":"reasoning","summary":[{"type":"text","text":"x"}]}]"#,
                "input[0].summary[0].type",
            ),
        ] {
            assert_eq!(parse(json).unwrap_err().field, field, "{json}");
        }
    }

    #[test]
    fn what_clients_send_back_is_taken() {
        let sealed = sealed::seal("a thought");
        let summary = sealed::seal("They agreed.");
        let (input, ignored) = parse_all(&format!(
            r#"[{{"type":"compaction","encrypted_content":"{summary}"}},
                {{"type":"compaction","encrypted_content":"gAAAAA"}},
                {{"type":"reasoning","summary":[],"content":null,"encrypted_content":""}},
                {{"type":"reasoning","summary":[],"encrypted_content":"{sealed}"}},
                {{"type":"reasoning","summary":[{{"type":"summary_text","text":"more"}}],"encrypted_content":"gAAAAA"}},
                {{"type":"reasoning","summary":[],"encrypted_content":"gAAAAA"}},
                {{"type":"custom_tool_call","call_id":"c1","name":"say","input":"a \"b\""}},
                {{"type":"function_call","call_id":"c2","name":"close","namespace":"agents","arguments":"{{\"a\":1"}},
                {{"type":"web_search_call","id":"ws_1","status":"completed","action":{{"type":"search","query":"x"}}}},
                {{"type":"mcp_list_tools","server_label":"s","tools":[]}},
                {{"type":"custom_tool_call_output","call_id":"c1","output":"said"}},
                {{"type":"function_call_output","call_id":"c2","output":null}}]"#
        ))
        .unwrap();
        let [summed, turn, said, closed] = &input.messages[..] else {
            panic!("{:?}", input.messages);
        };
        assert_eq!(
            *summed,
            Message::text(Role::User, format!("{SUMMARY}They agreed."))
        );
        assert_eq!(turn.reasoning.as_deref(), Some("a thought\nmore"));
        let calls: Vec<_> = turn
            .tool_calls
            .iter()
            .map(|call| (call.name.as_str(), call.arguments.as_str()))
            .collect();
        assert_eq!(
            calls,
            [
                ("say", r#"{"input":"a \"b\""}"#),
                ("agents.close", r#"{"a":1}"#)
            ]
        );
        let Part::Text(searched) = &turn.content[0] else {
            panic!("{turn:?}");
        };
        assert!(searched.starts_with("[web_search_call: {"), "{searched}");
        assert_eq!(
            (said.tool_call_id.as_deref(), &closed.content[..]),
            (Some("c1"), &[Part::Text(String::new())][..])
        );
        assert_eq!(
            ignored.as_deref(),
            Some("input[1] compaction, input[5] encrypted_content, input[9] mcp_list_tools")
        );
        assert_eq!(input.items.len(), 12);
    }
}
