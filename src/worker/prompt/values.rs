//! A conversation as templates see it: the dictionaries that transformers would pass.

use minijinja::Value;

use super::guard::Guard;
use crate::chat::{ChatError, ChatRequest, Message, Part, Role, Tool, ToolCall};
use crate::gemma::marker;

/// A dictionary in the making, in the order in which templates will see it.
type Fields = Vec<(Value, Value)>;

/// The variables of one rendering of the first `count` messages. Every string of the client's is
/// guarded.
pub fn context(request: &ChatRequest, count: usize, guard: &Guard) -> Result<Fields, ChatError> {
    let writer = Writer { guard };
    let messages = request
        .messages
        .iter()
        .take(count)
        .map(|m| writer.message(m, &request.messages))
        .collect::<Result<Vec<_>, _>>()?;
    let tools = request
        .tools
        .iter()
        .map(|t| writer.tool(t))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(map([
        ("messages", Value::from(messages)),
        (
            "tools",
            if tools.is_empty() {
                Value::from(())
            } else {
                Value::from(tools)
            },
        ),
        ("enable_thinking", Value::from(request.thinking.is_on())),
        ("add_generation_prompt", Value::from(true)),
    ]))
}

struct Writer<'a> {
    guard: &'a Guard,
}

impl Writer<'_> {
    fn message(&self, message: &Message, all: &[Message]) -> Result<Value, ChatError> {
        let role = match message.role {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
        };
        let mut out = map([
            ("role", Value::from(role)),
            ("content", self.content(message)),
        ]);
        if let Some(reasoning) = &message.reasoning {
            // Templates differ in the name they look for.
            for name in ["reasoning_content", "reasoning", "thinking"] {
                out.push((Value::from(name), self.text(reasoning)));
            }
        }
        if !message.tool_calls.is_empty() {
            let calls = message
                .tool_calls
                .iter()
                .map(|c| self.call(c))
                .collect::<Result<Vec<_>, _>>()?;
            out.push((Value::from("tool_calls"), Value::from(calls)));
        }
        if let Some(id) = &message.tool_call_id {
            out.push((Value::from("tool_call_id"), self.text(id)));
        }
        if message.role == Role::Tool {
            out.push((Value::from("name"), self.text(result_name(message, all))));
        } else if let Some(name) = &message.name {
            out.push((Value::from("name"), self.text(name)));
        }
        Ok(Value::from_pairs(out))
    }

    fn content(&self, message: &Message) -> Value {
        match (&message.content[..], message.role) {
            ([], _) => Value::from(""),
            ([Part::Text(text)], Role::Assistant) => self.text(&without_thoughts(text)),
            ([Part::Text(text)], _) => self.text(text),
            (parts, Role::System) => {
                let texts = parts.iter().filter_map(|part| {
                    if let Part::Text(text) = part {
                        Some(text.as_str())
                    } else {
                        None
                    }
                });
                self.text(&texts.collect::<Vec<_>>().join("\n"))
            }
            (parts, role) => parts
                .iter()
                .flat_map(Part::pieces)
                .map(|piece| self.part(piece, role))
                .collect(),
        }
    }

    fn part(&self, part: &Part, role: Role) -> Value {
        let text = |text: &str| map([("type", Value::from("text")), ("text", self.text(text))]);
        Value::from_pairs(match part {
            Part::Text(written) if role == Role::Assistant => text(&without_thoughts(written)),
            Part::Text(written) => text(written),
            // Only its place matters.
            Part::Picture(_) | Part::Pixels(_) => map([("type", Value::from("image"))]),
            Part::Sound(_) | Part::Samples(_) => map([("type", Value::from("audio"))]),
            // The supervisor has put what stands there in their place.
            Part::Document(_) | Part::Remote(_) | Part::Read(_) => text(""),
        })
    }

    fn call(&self, call: &ToolCall) -> Result<Value, ChatError> {
        let arguments = self.object(&call.arguments, || {
            format!("the arguments of the call of `{}`", call.name)
        })?;
        let function = map([("name", self.text(&call.name)), ("arguments", arguments)]);
        Ok(Value::from_pairs(map([
            ("id", self.text(&call.id)),
            ("type", Value::from("function")),
            ("function", Value::from_pairs(function)),
        ])))
    }

    fn tool(&self, tool: &Tool) -> Result<Value, ChatError> {
        let mut function = map([
            ("name", self.text(&tool.name)),
            ("description", self.text(&tool.description)),
        ]);
        if let Some(parameters) = &tool.parameters {
            let what = || format!("the parameters of the function `{}`", tool.name);
            let mut schema = object(parameters, what)?;
            only_lists_required(&mut schema);
            let schema = from_json(schema, self.guard);
            function.push((Value::from("parameters"), schema));
        }
        Ok(Value::from_pairs(map([
            ("type", Value::from("function")),
            ("function", Value::from_pairs(function)),
        ])))
    }

    fn text(&self, text: &str) -> Value {
        Value::from(self.guard.protect(text))
    }

    fn object(&self, json: &str, what: impl Fn() -> String) -> Result<Value, ChatError> {
        Ok(from_json(object(json, what)?, self.guard))
    }
}

fn object(json: &str, what: impl Fn() -> String) -> Result<serde_json::Value, ChatError> {
    match serde_json::from_str::<serde_json::Value>(json) {
        Ok(value @ serde_json::Value::Object(_)) => Ok(value),
        Ok(_) => Err(ChatError::Template {
            reason: format!("{} are not a JSON object", what()),
        }),
        Err(error) => Err(ChatError::Template {
            reason: format!("{} are not JSON: {error}", what()),
        }),
    }
}

/// Takes `required` out of a schema where it is no list, as draft 3 and OpenAPI's parameters have it:
/// templates go through it. A property of that name stays.
fn only_lists_required(schema: &mut serde_json::Value) {
    match schema {
        serde_json::Value::Array(schemas) => schemas.iter_mut().for_each(only_lists_required),
        serde_json::Value::Object(fields) => {
            if fields.get("required").is_some_and(|list| !list.is_array()) {
                fields.remove("required");
            }
            for (name, value) in fields {
                match value {
                    serde_json::Value::Object(named)
                        if ["properties", "$defs", "definitions"].contains(&name.as_str()) =>
                    {
                        named.values_mut().for_each(only_lists_required);
                    }
                    value => only_lists_required(value),
                }
            }
        }
        _ => {}
    }
}

/// A JSON value with all its strings guarded. serde_json's own limit bounds the depth.
pub fn from_json(value: serde_json::Value, guard: &Guard) -> Value {
    match value {
        serde_json::Value::Null => Value::from(()),
        serde_json::Value::Bool(truth) => Value::from(truth),
        serde_json::Value::Number(number) => {
            match (number.as_i64(), number.as_u64(), number.as_f64()) {
                (Some(whole), ..) => Value::from(whole),
                (_, Some(whole), _) => Value::from(whole),
                (.., Some(float)) => Value::from(float),
                _ => Value::from(number.to_string()),
            }
        }
        serde_json::Value::String(text) => Value::from(guard.protect(&text)),
        serde_json::Value::Array(items) => items.into_iter().map(|v| from_json(v, guard)).collect(),
        serde_json::Value::Object(fields) => Value::from_pairs(
            fields
                .into_iter()
                .map(|(k, v)| (guard.protect(&k), from_json(v, guard))),
        ),
    }
}

/// The function a result belongs to: by the call's id, or as the client says.
fn result_name<'a>(result: &'a Message, all: &'a [Message]) -> &'a str {
    let named = result.name.as_deref();
    let by_id = || {
        let id = result.tool_call_id.as_deref()?;
        all.iter()
            .flat_map(|m| &m.tool_calls)
            .find(|c| c.id == id)
            .map(|c| c.name.as_str())
    };
    named.or_else(by_id).unwrap_or("unknown")
}

/// An earlier answer without the thoughts that a client left in it. The template would take them
/// out too, but does not recognise them once they are guarded.
pub fn without_thoughts(text: &str) -> String {
    text.split(marker::CHANNEL_END)
        .map(|part| part.split(marker::CHANNEL).next().unwrap_or_default())
        .collect()
}

fn map<const N: usize>(fields: [(&str, Value); N]) -> Fields {
    fields
        .into_iter()
        .map(|(name, value)| (Value::from(name), value))
        .collect()
}
