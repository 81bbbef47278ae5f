//! What another service put into a conversation: calls of tools that it ran itself, and their
//! results. Pure.
//!
//! The model has no such turns, so they become a text that says what they are:
//! `[web_search_tool_result: Capital of France – https://… Paris is the capital]`. Names, labels
//! and what only that service can read are left out.

use serde_json::Value;

use crate::api::parse::json::quote;

/// Bytes of such a thing that are looked at, and of what it says.
const MAX_READ: usize = 256 << 10;
const MAX_SAID: usize = 16 << 10;

/// Fields that say nothing to a reader: names, states, and what is sealed or no text.
const MUTE: [&str; 12] = [
    "id",
    "type",
    "status",
    "data",
    "signature",
    "cache_control",
    "caller",
    "page_age",
    "citations",
    "media_type",
    "image_url",
    "created_by",
];

/// The text that stands for it. `kind`: its type, as the client wrote it.
pub fn text(kind: &str, json: &str) -> String {
    let kind = quote(kind);
    let value = match json.len() {
        0..=MAX_READ => serde_json::from_str(json).unwrap_or(Value::Null),
        bytes => return format!("[{kind}: {bytes} bytes that were left out]"),
    };
    let mut said = String::new();
    collect(&value, &mut said);
    let said = said.trim();
    if said.is_empty() {
        return format!("[{kind}]");
    }
    format!("[{kind}: {said}]")
}

fn collect(value: &Value, said: &mut String) {
    match value {
        Value::String(text) => add(text, said),
        Value::Array(items) => items.iter().for_each(|item| collect(item, said)),
        Value::Object(fields) => {
            for (name, value) in fields {
                let mute = MUTE.contains(&name.as_str())
                    || name.contains("encrypted")
                    || name.ends_with("_id");
                match (name.as_str(), value) {
                    _ if mute => {}
                    // Of a picture it is the file.
                    ("result", Value::String(_)) => {}
                    ("input" | "arguments" | "action", Value::Object(_)) => {
                        add(&value.to_string(), said);
                    }
                    _ => collect(value, said),
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn add(text: &str, said: &mut String) {
    let room = MAX_SAID.saturating_sub(said.len());
    if text.trim().is_empty() || room == 0 {
        return;
    }
    if !said.is_empty() {
        said.push(' ');
    }
    match text.char_indices().find(|(at, _)| *at >= room) {
        Some((end, _)) => {
            said.push_str(&text[..end]);
            said.push('…');
        }
        None => said.push_str(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_says_is_kept_and_what_nobody_can_read_is_not() {
        for (kind, json, said) in [
            (
                "server_tool_use",
                r#"{"type":"server_tool_use","id":"srvtoolu_1","name":"web_search","input":{"query":"x"}}"#,
                r#"[server_tool_use: web_search {"query":"x"}]"#,
            ),
            (
                "web_search_tool_result",
                r#"{"type":"web_search_tool_result","tool_use_id":"srvtoolu_1","content":[{"type":"web_search_result",
                  "title":"T","url":"https://t","encrypted_content":"AAAA","page_age":"1 d"}]}"#,
                "[web_search_tool_result: T https://t]",
            ),
            (
                "image_generation_call",
                r#"{"type":"image_generation_call","result":"iVBORw0KGgo","revised_prompt":"a dog"}"#,
                "[image_generation_call: a dog]",
            ),
            (
                "mcp_approval_request",
                r#"{"id":"x"}"#,
                "[mcp_approval_request]",
            ),
        ] {
            assert_eq!(text(kind, json), said);
        }
    }

    #[test]
    fn it_is_bounded() {
        let long = format!(r#"{{"text":"{}"}}"#, "ü".repeat(20_000));
        let said = text("x", &long);
        assert!(
            said.len() < MAX_SAID + 20 && said.ends_with("…]"),
            "{}",
            said.len()
        );
        let longer = format!(r#"{{"text":"{}"}}"#, "x".repeat(MAX_READ));
        assert!(text("x", &longer).contains("left out"));
    }
}
