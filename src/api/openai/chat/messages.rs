//! The conversation: `messages`.

use crate::api::fields::{self, Level};
use crate::api::openai::tools;
use crate::api::parse::Invalid;
use crate::api::parse::json::{Json, Object, quote};
use crate::api::parse::{files, media};
use crate::chat::{Message, Part, Role};

pub fn messages(json: &Json) -> Result<Vec<Message>, Invalid> {
    json.array()?.iter().map(message).collect()
}

fn message(json: &Json) -> Result<Message, Invalid> {
    let (object, message) = open(json)?;
    if message.role == Role::Tool && message.tool_call_id.is_none() && message.name.is_none() {
        return Err(Invalid::new(
            format!("{}.tool_call_id", json.path()),
            "is required for a tool's result (or `name`)",
        ));
    }
    fields::labels(object, Level::Message)?;
    Ok(message)
}

/// A message, and what is left of its fields: labels of the client's, and what else its API has.
pub fn open<'a>(json: &Json<'a>) -> Result<(Object<'a>, Message), Invalid> {
    let mut object = json.object()?;
    let role = role(&object.need("role")?)?;
    let mut message = Message::text(role, "");
    message.content.clear();
    let content = object.take("content");
    if let Some(content) = &content {
        content_of(content, &mut message)?;
    }
    // OpenAI lets every message carry its author's name; Gemma's turns have no place for it, save
    // for tools.
    let name = object.take("name");
    match role {
        Role::Assistant => assistant(&mut object, &mut message)?,
        Role::Tool => {
            let name = name.or(object.take("tool_name"));
            message.name = name.map(|name| name.string()).transpose()?;
            message.tool_call_id = object.string("tool_call_id")?;
            // Nothing came of the call.
            if message.content.is_empty() && content.is_some() {
                message.content.push(Part::Text(String::new()));
            }
        }
        Role::System | Role::User => {}
    }
    Ok((object, message))
}

fn assistant(object: &mut Object, message: &mut Message) -> Result<(), Invalid> {
    for name in ["thinking", "reasoning", "reasoning_content"] {
        if let Some(thought) = object.string(name)?.filter(|thought| !thought.is_empty()) {
            message.reasoning = Some(thought);
        }
    }
    for name in ["reasoning_details", "thinking_blocks"] {
        let Some(blocks) = object.take(name) else {
            continue;
        };
        let thought = thoughts(&blocks)?;
        if message.reasoning.is_none() && !thought.is_empty() {
            message.reasoning = Some(thought);
        }
    }
    if let Some(calls) = object.take("tool_calls") {
        message.tool_calls = calls
            .array()?
            .iter()
            .map(tools::call)
            .collect::<Result<_, _>>()?;
    }
    if let Some(refusal) = object.take("refusal") {
        let refusal = refusal.string()?;
        if message.content.is_empty() && !refusal.is_empty() {
            message.content.push(Part::Text(refusal));
        }
    }
    // An answer of which nothing was said, as one is that was cut off in a thought or in a call.
    if message.content.is_empty() && message.tool_calls.is_empty() {
        message.content.push(Part::Text(String::new()));
    }
    Ok(())
}

/// The texts of what gateways tell of thoughts in blocks. Of those that are sealed there is none.
fn thoughts(blocks: &Json) -> Result<String, Invalid> {
    let mut texts = vec![];
    for block in blocks.array()? {
        let mut block = block.object()?;
        for name in ["thinking", "text", "summary"] {
            texts.extend(block.take(name).filter(Json::is_string));
        }
    }
    let texts: Vec<_> = texts.iter().map(Json::string).collect::<Result<_, _>>()?;
    Ok(texts.join("\n"))
}

fn role(json: &Json) -> Result<Role, Invalid> {
    match json.string()?.as_str() {
        "system" | "developer" => Ok(Role::System),
        "user" => Ok(Role::User),
        "assistant" | "model" => Ok(Role::Assistant),
        "tool" | "function" => Ok(Role::Tool),
        other => json.wrong(format!(
            "must be `system`, `developer`, `user`, `assistant` or `tool`, not `{}`",
            quote(other)
        )),
    }
}

/// A text, a part, or an array of texts and parts.
fn content_of(json: &Json, message: &mut Message) -> Result<(), Invalid> {
    if json.is_string() {
        message.content.push(Part::Text(json.string()?));
        return Ok(());
    }
    if json.is_object() {
        return part(json, message);
    }
    if !json.is_array() {
        return json.wrong("must be a string or an array of parts");
    }
    for json in json.array()? {
        match json.is_string() {
            true => message.content.push(Part::Text(json.string()?)),
            false => part(&json, message)?,
        }
    }
    Ok(())
}

fn part(json: &Json, message: &mut Message) -> Result<(), Invalid> {
    let mut object = json.object()?;
    let kind = object.need("type")?;
    let assistant = message.role == Role::Assistant;
    let part = match (kind.string()?.as_str(), assistant) {
        ("text" | "input_text", _) | ("output_text", true) => {
            Part::Text(object.need("text")?.string()?)
        }
        ("refusal", true) => Part::Text(object.need("refusal")?.string()?),
        ("thinking" | "reasoning" | "redacted_thinking", true) => {
            let thought = object.take("thinking").or(object.take("text"));
            if let Some(thought) = thought {
                let before = message.reasoning.get_or_insert_default();
                before.push_str(&thought.string()?);
            }
            // Signatures and what is sealed are for the service that made them.
            object.take("signature");
            object.take("data");
            return fields::labels(object, Level::Part);
        }
        ("image_url" | "input_image", _) => media::image_url(&mut object)?,
        ("input_audio", _) => Part::Sound(media::input_audio(&mut object)?),
        ("file", _) => files::file(&mut object)?,
        (other, _) => {
            let frames = "`image_url` parts with `detail` 70";
            return kind.wrong(media::no_video(other, frames).unwrap_or_else(|| {
                format!(
                    "is `{}`, which is not supported; only `text`, `image_url`, `input_audio` and `file` are",
                    quote(other)
                )
            }));
        }
    };
    message.content.push(part);
    fields::labels(object, Level::Part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::parse::json::body;

    fn parse(json: &str) -> Result<Vec<Message>, Invalid> {
        let body = format!("{{\"messages\":{json}}}");
        messages(
            &crate::api::parse::json::body(body.as_bytes())
                .unwrap()
                .take("messages")
                .unwrap(),
        )
    }

    #[test]
    fn every_role_and_shape() {
        let parsed = parse(
            r#"[{"role":"system","content":"s"},{"role":"developer","content":"d"},
                {"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}],"name":"anna"},
                {"role":"assistant","content":null,"refusal":null,"annotations":[],"reasoning_content":"hm","audio":null,
                 "tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{\"a\": 1}"}}]},
                {"role":"tool","tool_call_id":"c1","content":"ok"},{"role":"tool","name":"f","content":"ok"}]"#,
        )
        .unwrap();
        assert_eq!(parsed[1], Message::text(Role::System, "d"));
        assert_eq!(
            parsed[2].content,
            [Part::Text("a".into()), Part::Text("b".into())]
        );
        assert_eq!(parsed[2].name, None);
        assert_eq!(parsed[3].content, []);
        let part = r#"{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}"#;
        let mixed = parse(&format!(
            r#"[{{"role":"user","content":[{{"type":"text","text":"a"}},{part},{{"type":"text","text":"b"}},{part}]}}]"#
        ));
        let kinds: Vec<bool> = mixed.unwrap()[0]
            .content
            .iter()
            .map(|part| matches!(part, Part::Picture(_)))
            .collect();
        assert_eq!(kinds, [false, true, false, true]);
        assert_eq!(parsed[3].reasoning.as_deref(), Some("hm"));
        assert_eq!(parsed[3].tool_calls[0].arguments, "{\"a\": 1}");
        assert_eq!(parsed[4].tool_call_id.as_deref(), Some("c1"));
        assert_eq!(parsed[5].name.as_deref(), Some("f"));
    }

    /// What clients keep of answers, and send back.
    #[test]
    fn answers_come_back_as_they_were_kept() {
        let answer = |fields: &str| {
            parse(&format!(r#"[{{"role":"assistant",{fields}}}]"#))
                .unwrap()
                .remove(0)
        };
        let text = |text: &str| vec![Part::Text(text.into())];
        for (fields, reasoning, content) in [
            (r#""content":null"#, None, ""),
            (r#""id":"x""#, None, ""),
            (r#""content":[]"#, None, ""),
            (r#""content":"","reasoning":"hm""#, Some("hm"), ""),
            (
                r#""content":"a","reasoning":"hm","reasoning_content":"hm","parsed":{"b":1}"#,
                Some("hm"),
                "a",
            ),
            (
                r#""content":"a","reasoning_details":[{"type":"reasoning.text","text":"h","signature":"s"},{"type":"reasoning.encrypted","data":"x"}]"#,
                Some("h"),
                "a",
            ),
            (
                r#""content":"a","thinking_blocks":[{"type":"thinking","thinking":"h","signature":"s"}],"provider_specific_fields":{}"#,
                Some("h"),
                "a",
            ),
            (
                r#""content":[{"type":"thinking","thinking":"h","signature":"s"},{"type":"output_text","text":"a","annotations":[]}]"#,
                Some("h"),
                "a",
            ),
            (r#""content":null,"refusal":"no""#, None, "no"),
            (r#""content":{"type":"refusal","refusal":"no"}"#, None, "no"),
        ] {
            let message = answer(fields);
            assert_eq!(message.reasoning.as_deref(), reasoning, "{fields}");
            assert_eq!(message.content, text(content), "{fields}");
        }
        let cut = answer(
            r#""content":null,"tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{\"a\":\"b","parsed_arguments":null}}]"#,
        );
        assert_eq!(
            (cut.content.len(), cut.tool_calls[0].arguments.as_str()),
            (0, r#"{"a":"b"}"#)
        );
    }

    #[test]
    fn labels_and_short_forms_are_taken() {
        let picture = |image: &str| {
            let part = format!(
                r#"{{"type":"image_url","image_url":{image},"cache_control":{{"type":"ephemeral"}}}}"#
            );
            parse(&format!(
                r#"[{{"role":"user","content":[{part}],"id":7,"opts":{{"visible":false}}}}]"#
            ))
            .unwrap()
        };
        let url = r#""data:image/png;base64,AAAA""#;
        let long = picture(&format!(r#"{{"url":{url},"detail":"auto"}}"#));
        assert_eq!(picture(url), long);
        let said =
            parse(r#"[{"role":"user","content":["a",{"type":"text","text":"b"}],"timestamp":1}]"#);
        assert_eq!(said.unwrap()[0].content.len(), 2);
        let results = parse(
            r#"[{"role":"function","name":"f","content":"ok"},{"role":"tool","tool_name":"f","content":[]}]"#,
        );
        for result in results.unwrap() {
            assert_eq!(
                (result.role, result.name.as_deref()),
                (Role::Tool, Some("f"))
            );
            assert_eq!(result.content.len(), 1);
        }
    }

    #[test]
    fn errors_in_content_name_the_field() {
        for (json, field) in [
            (r#""hello""#, "messages"),
            (r#"["hello"]"#, "messages[0]"),
            (r#"[{"content":"a"}]"#, "messages[0].role"),
            (r#"[{"role":"king","content":"a"}]"#, "messages[0].role"),
            (r#"[{"role":7,"content":"a"}]"#, "messages[0].role"),
            (
                r#"[{"role":"user","content":"a"},{"role":"user","content":7}]"#,
                "messages[1].content",
            ),
            (
                r#"[{"role":"user","content":[7]}]"#,
                "messages[0].content[0]",
            ),
            (
                r#"[{"role":"user","content":[{"type":"text"}]}]"#,
                "messages[0].content[0].text",
            ),
            (
                r#"[{"role":"user","content":[{"text":"a"}]}]"#,
                "messages[0].content[0].type",
            ),
            (
                r#"[{"role":"user","content":[{"type":"input_audio","input_audio":{}}]}]"#,
                "messages[0].content[0].input_audio.data",
            ),
            (
                r#"[{"role":"user","content":[{"type":"video_url","video_url":{}}]}]"#,
                "messages[0].content[0].type",
            ),
            (
                r#"[{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}]}]"#,
                "messages[0].content[0].image_url.url",
            ),
            (
                r#"[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"},"text":"a"}]}]"#,
                "messages[0].content[0].text",
            ),
            (
                r#"[{"role":"user","content":[{"type":"image_url","image_url":"x"}]}]"#,
                "messages[0].content[0].image_url",
            ),
            (
                r#"[{"role":"user","content":[{"type":"thinking","thinking":"x"}]}]"#,
                "messages[0].content[0].type",
            ),
        ] {
            assert_eq!(parse(json).unwrap_err().field, field, "{json}");
        }
    }

    #[test]
    fn errors_beside_content_name_the_field() {
        for (json, field) in [
            (
                r#"[{"role":"user","content":"a","tool_calls":[{}]}]"#,
                "messages[0].tool_calls",
            ),
            (
                r#"[{"role":"user","content":"a","contens":1}]"#,
                "messages[0].contens",
            ),
            (
                r#"[{"role":"assistant","content":"a","prefix":true}]"#,
                "messages[0].prefix",
            ),
            (
                r#"[{"role":"assistant","content":"a","reasoning_content":1}]"#,
                "messages[0].reasoning_content",
            ),
            (
                r#"[{"role":"assistant","content":"a","audio":{"id":"x"}}]"#,
                "messages[0].audio",
            ),
            (
                r#"[{"role":"assistant","tool_calls":{}}]"#,
                "messages[0].tool_calls",
            ),
            (
                r#"[{"role":"tool","content":"a"}]"#,
                "messages[0].tool_call_id",
            ),
            (
                r#"[{"role":"tool","content":"a","tool_call_id":1}]"#,
                "messages[0].tool_call_id",
            ),
        ] {
            assert_eq!(parse(json).unwrap_err().field, field, "{json}");
        }
        let video =
            parse(r#"[{"role":"user","content":[{"type":"video_url","video_url":{"url":"x"}}]}]"#)
                .unwrap_err();
        assert!(video.reason.contains("send its frames"), "{video}");
        assert!(
            body(b"{}")
                .unwrap()
                .need("messages")
                .unwrap_err()
                .reason
                .contains("required")
        );
    }
}
