//! Values and keys that are listed in a schema, as Gemma writes them. Pure.

use serde_json::Value;

use crate::gemma::{call, marker};
use crate::worker::constraint::lark::Lark;

/// One value as Gemma writes it.
pub(super) fn literal(value: &Value) -> String {
    match value {
        Value::String(text) if text.is_empty() => format!("{0} {0}", marker::QUOTE),
        Value::String(text) => format!("{0} {1} {0}", marker::QUOTE, Lark::text(text)),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(literal).collect();
            format!("\"[\" {} \"]\"", items.join(" \",\" "))
        }
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| name.to_lowercase());
            let fields: Vec<String> = fields
                .into_iter()
                .map(|(name, value)| format!("{} {}", key(name), literal(value)))
                .collect();
            format!("\"{{\" {} \"}}\"", fields.join(" \",\" "))
        }
        other => Lark::text(&other.to_string()),
    }
}

/// A key with its colon: bare as the chat template writes it, or quoted where its end could not
/// be told.
pub(super) fn key(name: &str) -> String {
    if call::is_bare_key(name) {
        return Lark::text(&format!("{name}:"));
    }
    format!("{} \":\"", literal(&name.into()))
}
