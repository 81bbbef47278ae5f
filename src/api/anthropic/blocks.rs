//! `messages` and `system`: content blocks that become the messages of a conversation.
//!
//! What Anthropic's own tools did becomes a text of the turn ([`foreign`]). Thoughts that only its
//! service can read are left out, as is what belongs to its containers and servers; the answer says
//! so.

use crate::api::anthropic::tools::Changes;
use crate::api::ignored::Ignored;
use crate::api::parse::Invalid;
use crate::api::parse::json::{Json, Object, quote};
use crate::api::parse::{files, media};
use crate::api::{foreign, sealed};
use crate::chat::{Message, Part, Role, ToolCall};

/// What stands before a summary of what was left out of a conversation.
const SUMMARY: &str = "[Summary of the conversation until here:]\n";

/// A conversation.
#[derive(Debug, Default)]
pub struct Conversation {
    pub messages: Vec<Message>,
    /// For each of them, the client's own that it was made of; `None` for `system`.
    pub places: Vec<Option<usize>>,
    /// What it says about tools.
    pub changes: Changes,
}

/// Reads `messages`, behind `system`.
pub fn conversation(
    json: &Json,
    system: Option<&Json>,
    ignored: &mut Ignored,
) -> Result<Conversation, Invalid> {
    let mut read = Conversation::default();
    if let Some(system) = system.map(text).transpose()?
        && !system.is_empty()
    {
        read.messages.push(Message::text(Role::System, system));
        read.places.push(None);
    }
    for (place, json) in json.array()?.iter().enumerate() {
        message(json, &mut read, ignored)?;
        read.places.resize(read.messages.len(), Some(place));
    }
    Ok(read)
}

/// `system`: a text or blocks of text.
fn text(json: &Json) -> Result<String, Invalid> {
    if json.is_string() {
        return json.string();
    }
    let (mut changes, mut ignored) = (Changes::default(), Ignored::default());
    let mut text = |block: &Json| match Block::read(block, &mut changes, &mut ignored)? {
        Block::Text(text) => Ok(text),
        _ => block.wrong("must be a text"),
    };
    Ok(json
        .array()?
        .iter()
        .map(&mut text)
        .collect::<Result<Vec<_>, _>>()?
        .join("\n"))
}

fn message(json: &Json, read: &mut Conversation, ignored: &mut Ignored) -> Result<(), Invalid> {
    let mut object = json.object()?;
    let role = object.need("role")?;
    let content = object.need("content")?;
    // Clients send back whole answers.
    for idle in [
        "id",
        "type",
        "model",
        "stop_reason",
        "stop_sequence",
        "stop_details",
        "usage",
        "container",
        "context_management",
        "timings",
    ] {
        object.take(idle);
    }
    object.finish()?;
    let Conversation {
        messages, changes, ..
    } = read;
    let blocks = if content.is_string() {
        vec![(content.clone(), Block::Text(content.string()?))]
    } else {
        blocks(&content, changes, ignored)?
    };
    match role.string()?.as_str() {
        "user" => user(blocks, messages),
        "assistant" => assistant(blocks, messages),
        "system" => told(blocks, messages),
        other => role.wrong(format!(
            "must be `user`, `assistant` or `system`, not `{}`",
            quote(other)
        )),
    }
}

fn blocks<'a>(
    json: &Json<'a>,
    changes: &mut Changes,
    ignored: &mut Ignored,
) -> Result<Vec<(Json<'a>, Block)>, Invalid> {
    if !json.is_array() {
        return json.wrong("must be a string or an array of blocks");
    }
    json.array()?
        .into_iter()
        .map(|json| Block::read(&json, changes, ignored).map(|block| (json, block)))
        .collect()
}

/// Results go in front, each as a turn of its own; what the user says follows them.
fn user(blocks: Vec<(Json, Block)>, messages: &mut Vec<Message>) -> Result<(), Invalid> {
    let (mut said, mut left_out) = (vec![], false);
    let before = messages.len();
    for (json, block) in blocks {
        match block {
            Block::Text(text) => said.push(Part::Text(text)),
            Block::Shown(part) => said.push(part),
            Block::Nothing => left_out = true,
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
    if !said.is_empty() || (messages.len() == before && !left_out) {
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
            Block::Nothing => {}
            Block::Shown(_) | Block::Result { .. } => {
                return json.wrong("belongs to the user's messages");
            }
        }
    }
    messages.push(turn);
    Ok(())
}

/// What the model is told in between.
fn told(blocks: Vec<(Json, Block)>, messages: &mut Vec<Message>) -> Result<(), Invalid> {
    let mut texts = vec![];
    for (json, block) in blocks {
        match block {
            Block::Text(text) => texts.push(text),
            Block::Nothing => {}
            _ => return json.wrong("must be a text"),
        }
    }
    let text = texts.join("\n");
    if !text.is_empty() {
        messages.push(Message::text(Role::System, text));
    }
    Ok(())
}

/// A block of content.
enum Block {
    /// It was left out, or speaks of tools.
    Nothing,
    Text(String),
    Shown(Part),
    Thought(String),
    Call(ToolCall),
    Result {
        id: String,
        content: Vec<Part>,
    },
}

impl Block {
    fn read(json: &Json, changes: &mut Changes, ignored: &mut Ignored) -> Result<Self, Invalid> {
        let mut object = json.object()?;
        // The prefix cache finds its entries by itself.
        object.take("cache_control");
        let kind = object.need("type")?;
        let name = kind.string()?;
        let block = match name.as_str() {
            "text" => {
                object.take("citations");
                Self::Text(object.need("text")?.string()?)
            }
            "document" => Self::Shown(files::document(&mut object)?),
            "image" => Self::Shown(media::source(&object.need("source")?)?),
            "thinking" => thought(&mut object)?,
            "tool_use" => {
                object.take("caller");
                object.take("toolset_name");
                let (id, name) = (object.need("id")?.string()?, object.need("name")?.string()?);
                Self::Call(ToolCall {
                    id,
                    name,
                    arguments: object.need("input")?.opaque_object()?,
                })
            }
            "tool_result" => result(&mut object, changes, ignored)?,
            "tool_reference" => {
                let name = object.need("tool_name")?.string()?;
                let text = format!("The tool `{name}` can be called now.");
                changes.found.insert(name);
                Self::Text(text)
            }
            "tool_addition" | "tool_removal" => {
                changes.read(&mut object, name == "tool_addition")?;
                Self::Nothing
            }
            "compaction" => return summed_up(json, object, ignored),
            "redacted_thinking" | "container_upload" | "mcp_tool_listing" | "fallback" => {
                ignored.note(json.path(), &name);
                return Ok(Self::Nothing);
            }
            "search_result" | "server_tool_use" | "mcp_tool_use" | "browser_state" => {
                return Ok(Self::Text(foreign::text(&name, json.raw())));
            }
            // Of all the tools that Anthropic's service runs.
            result if result.ends_with("_tool_result") => {
                return Ok(Self::Text(foreign::text(&name, json.raw())));
            }
            other => {
                let known = "`text`, `image`, `document`, `thinking`, `tool_use` and `tool_result`";
                return kind.wrong(media::no_video(other, "`image` blocks").unwrap_or_else(|| {
                    format!("is `{}`, which is not supported; {known} are", quote(other))
                }));
            }
        };
        object.finish()?;
        Ok(block)
    }
}

/// A thought. One that its client did not want to see is in its signature; whose signature is
/// another's is what the client says it is.
fn thought(object: &mut Object) -> Result<Block, Invalid> {
    let signature = object.string("signature")?.unwrap_or_default();
    let thinking = object.need("thinking")?.string()?;
    Ok(match thinking.is_empty() {
        true => sealed::open(&signature).map_or(Block::Nothing, Block::Thought),
        false => Block::Thought(thinking),
    })
}

/// A summary in the place of what it sums up.
fn summed_up(json: &Json, mut object: Object, ignored: &mut Ignored) -> Result<Block, Invalid> {
    match object.string("content")?.filter(|text| !text.is_empty()) {
        Some(text) => Ok(Block::Text(format!("{SUMMARY}{text}"))),
        None => {
            ignored.note(json.path(), "compaction");
            Ok(Block::Nothing)
        }
    }
}

fn result(
    object: &mut Object,
    changes: &mut Changes,
    ignored: &mut Ignored,
) -> Result<Block, Invalid> {
    object.take("toolset_name");
    let id = object.need("tool_use_id")?.string()?;
    let failed = object.switch("is_error", false)?;
    let mut content = match object.take("content") {
        Some(content) if content.is_string() => vec![Part::Text(content.string()?)],
        Some(content) => {
            let part = |(json, block): (Json, Block)| match block {
                Block::Text(text) => Ok(Some(Part::Text(text))),
                Block::Shown(part) => Ok(Some(part)),
                Block::Nothing => Ok(None),
                _ => json.wrong("must be a text, an image or a document"),
            };
            blocks(&content, changes, ignored)?
                .into_iter()
                .filter_map(|block| part(block).transpose())
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
        parse_all(json).map(|(read, _)| {
            let places = read.places.into_iter().flatten().collect();
            (read.messages, places)
        })
    }

    /// With what was left out.
    fn parse_all(json: &str) -> Result<(Conversation, Option<String>), Invalid> {
        let mut ignored = Ignored::default();
        let read = conversation(
            &body(format!("{{\"messages\":{json}}}").as_bytes())
                .unwrap()
                .take("messages")
                .unwrap(),
            None,
            &mut ignored,
        )?;
        Ok((read, ignored.value()))
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
            (r#"[{"role":"tool","content":"a"}]"#, "messages[0].role"),
            (
                r#"[{"role":"system","content":[{"type":"image","source":{"type":"base64","media_type":"image/png","data":"iVBORw=="}}]}]"#,
                "messages[0].content[0]",
            ),
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
                r#"[{"role":"assistant","content":[{"type":"thoughts","data":"x"}]}]"#,
                "messages[0].content[0].type",
            ),
            (
                r#"[{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":[{"type":"tool_reference"}]}]}]"#,
                "messages[0].content[0].content[0].tool_name",
            ),
        ] {
            assert_eq!(parse(json).unwrap_err().field, field, "{json}");
        }
    }

    #[test]
    fn what_agents_send_back_is_taken() {
        let sealed = sealed::seal("a thought");
        let (read, ignored) = parse_all(&format!(
            r#"[{{"role":"user","content":"hi"}},
                {{"role":"system","content":[{{"type":"text","text":"reminder"}},{{"type":"tool_addition","tool":{{"type":"tool_reference","name":"f"}}}}]}},
                {{"role":"assistant","id":"msg_1","stop_reason":"tool_use","content":[{{"type":"redacted_thinking","data":"xx"}},
                 {{"type":"thinking","thinking":"","signature":"{sealed}"}},{{"type":"thinking","thinking":"","signature":"EqQB"}},
                 {{"type":"server_tool_use","id":"s1","name":"web_search","input":{{"query":"x"}}}},
                 {{"type":"web_search_tool_result","tool_use_id":"s1","content":[{{"type":"web_search_result","title":"T","url":"https://t","encrypted_content":"AA"}}]}},
                 {{"type":"tool_use","id":"t1","name":"ToolSearch","input":{{"query":"x"}}}}]}},
                {{"role":"user","content":[{{"type":"tool_result","tool_use_id":"t1","content":[{{"type":"tool_reference","tool_name":"g"}}]}},
                 {{"type":"search_result","source":"https://s","title":"S","content":[{{"type":"text","text":"said"}}]}}]}},
                {{"role":"user","content":[{{"type":"container_upload","file_id":"f"}}]}},
                {{"role":"assistant","content":[]}}]"#
        ))
        .unwrap();
        let roles: Vec<Role> = read.messages.iter().map(|message| message.role).collect();
        assert_eq!(
            roles,
            [
                Role::User,
                Role::System,
                Role::Assistant,
                Role::Tool,
                Role::User,
                Role::Assistant
            ]
        );
        let turn = &read.messages[2];
        assert_eq!(turn.reasoning.as_deref(), Some("a thought"));
        assert_eq!(
            turn.content,
            [
                Part::Text(r#"[server_tool_use: web_search {"query":"x"}]"#.into()),
                Part::Text("[web_search_tool_result: T https://t]".into())
            ]
        );
        assert_eq!(
            read.messages[3].content,
            [Part::Text("The tool `g` can be called now.".into())]
        );
        assert_eq!(
            read.messages[4].content,
            [Part::Text("[search_result: https://s S said]".into())]
        );
        assert_eq!(
            ignored.as_deref(),
            Some(
                "messages[2].content[0] redacted_thinking, messages[4].content[0] container_upload"
            )
        );
        let mut found: Vec<_> = read.changes.found.iter().map(String::as_str).collect();
        found.sort_unstable();
        assert_eq!(found, ["f", "g"]);
    }
}
