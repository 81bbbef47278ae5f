//! `messages` and `system`: content blocks that become the messages of a conversation.

use crate::api::parse::Invalid;
use crate::api::parse::json::{Json, Object, quote};
use crate::api::parse::{files, media};
use crate::chat::{Message, Part, Role, ToolCall};

/// The conversation, and for each of its messages the client's own that it was made of.
pub fn messages(json: &Json) -> Result<(Vec<Message>, Vec<usize>), Invalid> {
    let (mut messages, mut places) = (vec![], vec![]);
    for (place, json) in json.array()?.iter().enumerate() {
        message(json, &mut messages)?;
        places.resize(messages.len(), place);
    }
    match messages.last().map(|message| message.role) {
        Some(Role::Assistant) => json.wrong(
            "must end with what the user says: an answer that was begun cannot be gone on with",
        ),
        _ => Ok((messages, places)),
    }
}

/// `system`: a text or blocks of text.
pub fn system(json: &Json) -> Result<String, Invalid> {
    if json.is_string() {
        return json.string();
    }
    let text = |block: &Json| match Block::read(block)? {
        Block::Text(text) => Ok(text),
        _ => block.wrong("must be a text"),
    };
    Ok(json
        .array()?
        .iter()
        .map(text)
        .collect::<Result<Vec<_>, _>>()?
        .join("\n"))
}

fn message(json: &Json, messages: &mut Vec<Message>) -> Result<(), Invalid> {
    let mut object = json.object()?;
    let role = object.need("role")?;
    let content = object.need("content")?;
    object.finish()?;
    let blocks = if content.is_string() {
        vec![(content.clone(), Block::Text(content.string()?))]
    } else {
        blocks(&content)?
    };
    match role.string()?.as_str() {
        "user" => user(blocks, messages),
        "assistant" => assistant(blocks, messages),
        other => role.wrong(format!(
            "must be `user` or `assistant`, not `{}`",
            quote(other)
        )),
    }
}

fn blocks<'a>(json: &Json<'a>) -> Result<Vec<(Json<'a>, Block)>, Invalid> {
    if !json.is_array() {
        return json.wrong("must be a string or an array of blocks");
    }
    json.array()?
        .into_iter()
        .map(|json| Block::read(&json).map(|block| (json, block)))
        .collect()
}

/// Results go in front, each as a turn of its own; what the user says follows them.
fn user(blocks: Vec<(Json, Block)>, messages: &mut Vec<Message>) -> Result<(), Invalid> {
    let mut said = vec![];
    let before = messages.len();
    for (json, block) in blocks {
        match block {
            Block::Text(text) => said.push(Part::Text(text)),
            Block::Shown(part) => said.push(part),
            Block::Result { id, content } => {
                messages.push(Message {
                    content,
                    tool_call_id: Some(id),
                    ..Message::text(Role::Tool, "")
                });
            }
            Block::Thought(_) | Block::Call(_) => {
                return json.wrong("belongs to the assistant's messages");
            }
        }
    }
    if !said.is_empty() || messages.len() == before {
        messages.push(Message {
            content: said,
            ..Message::text(Role::User, "")
        });
    }
    Ok(())
}

fn assistant(blocks: Vec<(Json, Block)>, messages: &mut Vec<Message>) -> Result<(), Invalid> {
    let mut turn = Message {
        content: vec![],
        ..Message::text(Role::Assistant, "")
    };
    for (json, block) in blocks {
        match block {
            Block::Text(text) => turn.content.push(Part::Text(text)),
            Block::Thought(text) => turn.reasoning.get_or_insert_default().push_str(&text),
            Block::Call(call) => turn.tool_calls.push(call),
            Block::Shown(_) | Block::Result { .. } => {
                return json.wrong("belongs to the user's messages");
            }
        }
    }
    messages.push(turn);
    Ok(())
}

/// A block of content.
enum Block {
    Text(String),
    Shown(Part),
    Thought(String),
    Call(ToolCall),
    Result { id: String, content: Vec<Part> },
}

impl Block {
    fn read(json: &Json) -> Result<Self, Invalid> {
        let mut object = json.object()?;
        // The prefix cache finds its entries by itself.
        object.take("cache_control");
        let kind = object.need("type")?;
        let block = match kind.string()?.as_str() {
            "text" => {
                object.take("citations");
                Self::Text(object.need("text")?.string()?)
            }
            "document" => Self::Shown(files::document(&mut object)?),
            "image" => Self::Shown(media::source(&object.need("source")?)?),
            "thinking" => {
                // It says where a thought comes from; here nobody checks it.
                object.take("signature");
                Self::Thought(object.need("thinking")?.string()?)
            }
            "tool_use" => {
                object.take("caller");
                let (id, name) = (object.need("id")?.string()?, object.need("name")?.string()?);
                Self::Call(ToolCall {
                    id,
                    name,
                    arguments: object.need("input")?.opaque_object()?,
                })
            }
            "tool_result" => result(&mut object)?,
            other => {
                let known = "`text`, `image`, `document`, `thinking`, `tool_use` and `tool_result`";
                return kind.wrong(format!(
                    "is `{}`, which is not supported; only {known} are",
                    quote(other)
                ));
            }
        };
        object.finish()?;
        Ok(block)
    }
}

fn result(object: &mut Object) -> Result<Block, Invalid> {
    let id = object.need("tool_use_id")?.string()?;
    let failed = object.switch("is_error", false)?;
    let mut content = match object.take("content") {
        Some(content) if content.is_string() => vec![Part::Text(content.string()?)],
        Some(content) => {
            let part = |(json, block): (Json, Block)| match block {
                Block::Text(text) => Ok(Part::Text(text)),
                Block::Shown(part) => Ok(part),
                _ => json.wrong("must be a text, an image or a document"),
            };
            blocks(&content)?
                .into_iter()
                .map(part)
                .collect::<Result<_, _>>()?
        }
        None => vec![],
    };
    if failed {
        // Gemma's format has no other way to say so.
        content.insert(0, Part::Text("Error: ".into()));
    }
    if content.is_empty() {
        content.push(Part::Text(String::new()));
    }
    Ok(Block::Result { id, content })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::parse::json::body;

    fn parse(json: &str) -> Result<(Vec<Message>, Vec<usize>), Invalid> {
        messages(
            &body(format!("{{\"messages\":{json}}}").as_bytes())
                .unwrap()
                .take("messages")
                .unwrap(),
        )
    }

    #[test]
    fn blocks_become_turns() {
        let (messages, places) = parse(
            r#"[{"role":"user","content":"a"},
                {"role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":"x"},{"type":"text","text":"b","citations":null},
                 {"type":"tool_use","id":"t1","name":"f","input":{"a":1}}]},
                {"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":[{"type":"text","text":"1"}]},
                 {"type":"tool_result","tool_use_id":"t2","content":"no","is_error":true},{"type":"tool_result","tool_use_id":"t3"},
                 {"type":"text","text":"go on","cache_control":{"type":"ephemeral"}},
                 {"type":"image","source":{"type":"base64","media_type":"image/png","data":"iVBORw=="}}]}]"#,
        )
        .unwrap();
        let roles: Vec<Role> = messages.iter().map(|message| message.role).collect();
        assert_eq!(
            roles,
            [
                Role::User,
                Role::Assistant,
                Role::Tool,
                Role::Tool,
                Role::Tool,
                Role::User
            ]
        );
        assert_eq!(places, [0, 1, 2, 2, 2, 2]);
        assert_eq!(
            (
                messages[1].reasoning.as_deref(),
                messages[1].tool_calls[0].arguments.as_str()
            ),
            (Some("hm"), "{\"a\":1}")
        );
        assert_eq!(
            messages[3].content,
            [Part::Text("Error: ".into()), Part::Text("no".into())]
        );
        assert_eq!(messages[4].content, [Part::Text(String::new())]);
        assert!(matches!(
            messages[5].content[..],
            [Part::Text(_), Part::Picture(_)]
        ));
    }

    #[test]
    fn errors_name_the_field() {
        for (json, field) in [
            ("7", "messages"),
            (r#"[{"role":"system","content":"a"}]"#, "messages[0].role"),
            (r#"[{"role":"user","content":7}]"#, "messages[0].content"),
            (
                r#"[{"role":"user","content":[{"type":"document","source":{}}]}]"#,
                "messages[0].content[0].source.type",
            ),
            (
                r#"[{"role":"user","content":[{"type":"thinking","thinking":"x"}]}]"#,
                "messages[0].content[0]",
            ),
            (
                r#"[{"role":"user","content":[{"type":"image","source":{"type":"url","url":"/x/y"}}]}]"#,
                "messages[0].content[0].source.url",
            ),
            (
                r#"[{"role":"user","content":[{"type":"tool_result"}]}]"#,
                "messages[0].content[0].tool_use_id",
            ),
            (
                r#"[{"role":"assistant","content":[{"type":"tool_use","id":"a","name":"f","input":"x"}]}]"#,
                "messages[0].content[0].input",
            ),
            (
                r#"[{"role":"assistant","content":[{"type":"redacted_thinking","data":"x"}]}]"#,
                "messages[0].content[0].type",
            ),
            (
                r#"[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]"#,
                "messages",
            ),
        ] {
            assert_eq!(parse(json).unwrap_err().field, field, "{json}");
        }
    }
}
