//! The conversation: `messages`.

use crate::api::openai::tools;
use crate::api::parse::Invalid;
use crate::api::parse::json::{Json, Object, quote};
use crate::api::parse::{files, media};
use crate::chat::{Message, Part, Role};

pub fn messages(json: &Json) -> Result<Vec<Message>, Invalid> {
    json.array()?.iter().map(message).collect()
}

fn message(json: &Json) -> Result<Message, Invalid> {
    let mut object = json.object()?;
    let role = role(&object.need("role")?)?;
    let mut message = Message::text(role, "");
    message.content = match object.take("content") {
        Some(content) => parts(&content)?,
        // The checks of the whole request know when it may be absent.
        None => vec![],
    };
    // OpenAI lets every message carry its author's name; Gemma's turns have no place for it, save
    // for tools.
    let name = object.string("name")?;
    match role {
        Role::Assistant => assistant(&mut object, &mut message)?,
        Role::Tool => {
            message.name = name;
            message.tool_call_id = object.string("tool_call_id")?;
            if message.tool_call_id.is_none() && message.name.is_none() {
                return Err(Invalid::new(
                    format!("{}.tool_call_id", json.path()),
                    "is required for a tool's result (or `name`)",
                ));
            }
        }
        Role::System | Role::User => {}
    }
    object.finish()?;
    Ok(message)
}

fn assistant(object: &mut Object, message: &mut Message) -> Result<(), Invalid> {
    message.reasoning = object.string("reasoning_content")?;
    if let Some(calls) = object.take("tool_calls") {
        message.tool_calls = calls
            .array()?
            .iter()
            .map(tools::call)
            .collect::<Result<_, _>>()?;
    }
    // Clients send answers back as they got them, with these and without a meaning.
    for idle in ["refusal", "annotations"] {
        object.take(idle);
    }
    Ok(())
}

fn role(json: &Json) -> Result<Role, Invalid> {
    match json.string()?.as_str() {
        "system" | "developer" => Ok(Role::System),
        "user" => Ok(Role::User),
        "assistant" => Ok(Role::Assistant),
        "tool" => Ok(Role::Tool),
        other => json.wrong(format!(
            "must be `system`, `developer`, `user`, `assistant` or `tool`, not `{}`",
            quote(other)
        )),
    }
}

fn parts(json: &Json) -> Result<Vec<Part>, Invalid> {
    if json.is_array() {
        return json.array()?.iter().map(part).collect();
    }
    if !json.is_string() {
        return json.wrong("must be a string or an array of parts");
    }
    Ok(vec![Part::Text(json.string()?)])
}

fn part(json: &Json) -> Result<Part, Invalid> {
    let mut object = json.object()?;
    let kind = object.need("type")?;
    match kind.string()?.as_str() {
        "text" => {
            let text = object.need("text")?.string()?;
            object.finish()?;
            Ok(Part::Text(text))
        }
        "image_url" => {
            let picture = media::image_url(&mut object)?;
            object.finish()?;
            Ok(picture)
        }
        "input_audio" => {
            let sound = media::input_audio(&mut object)?;
            object.finish()?;
            Ok(Part::Sound(sound))
        }
        "file" => {
            let document = files::file(&mut object)?;
            object.finish()?;
            Ok(document)
        }
        video @ ("video" | "video_url" | "input_video") => kind.wrong(format!(
            "is `{video}`, which is not supported: send its frames as `image_url` parts with `detail` 70, each behind its time"
        )),
        other => {
            kind.wrong(format!("is `{}`, which is not supported; only `text`, `image_url`, `input_audio` and `file` are", quote(other)))
        }
    }
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
        ] {
            assert_eq!(parse(json).unwrap_err().field, field, "{json}");
        }
    }

    #[test]
    fn errors_beside_content_name_the_field() {
        for (json, field) in [
            (
                r#"[{"role":"user","content":"a","tool_calls":[]}]"#,
                "messages[0].tool_calls",
            ),
            (
                r#"[{"role":"user","content":"a","junk":1}]"#,
                "messages[0].junk",
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
