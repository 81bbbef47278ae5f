//! What the keywords of one schema say of the data. Pure.

use serde_json::{Map, Value};

use crate::worker::constraint::keywords::{Fault, child};
use crate::worker::constraint::merge::merge;

/// A schema's keywords.
pub(super) type Fields = Map<String, Value>;

const KINDS: [&str; 6] = ["null", "boolean", "number", "string", "array", "object"];

/// Keywords that say what data must be, each with the kind of values that it speaks of.
pub(super) const KINDS_OF_KEYWORDS: [(&str, &str); 27] = [
    ("$ref", ""),
    ("allOf", ""),
    ("anyOf", ""),
    ("oneOf", ""),
    ("type", ""),
    ("const", ""),
    ("enum", ""),
    ("minimum", "number"),
    ("maximum", "number"),
    ("exclusiveMinimum", "number"),
    ("exclusiveMaximum", "number"),
    ("multipleOf", "number"),
    ("minLength", "string"),
    ("maxLength", "string"),
    ("pattern", "string"),
    ("format", "string"),
    ("items", "array"),
    ("additionalItems", "array"),
    ("prefixItems", "array"),
    ("minItems", "array"),
    ("maxItems", "array"),
    ("properties", "object"),
    ("patternProperties", "object"),
    ("additionalProperties", "object"),
    ("required", "object"),
    ("minProperties", "object"),
    ("maxProperties", "object"),
];

/// `None` if nothing fits both.
pub(super) fn both(
    fields: Option<Fields>,
    schema: &Value,
    path: &str,
) -> Result<Option<Fields>, Fault> {
    let Some(fields) = fields else {
        return Ok(None);
    };
    match schema {
        Value::Bool(true) => Ok(Some(fields)),
        Value::Object(other) => merge(&fields, other)
            .map(Some)
            .map_err(|reason| Fault::new(path, reason)),
        _ => Ok(None),
    }
}

/// The kinds of values that a schema allows.
pub(super) fn kinds<'a>(fields: &'a Fields, path: &str) -> Result<Vec<&'a str>, Fault> {
    let names = match fields.get("type") {
        None => return Ok(KINDS.to_vec()),
        Some(Value::String(name)) => vec![name.as_str()],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        Some(_) => vec!["?"],
    };
    match names
        .iter()
        .find(|name| !KINDS.contains(name) && **name != "integer")
    {
        Some(_) => Err(Fault::new(
            child(path, "type"),
            format!("must be one of {} or integer", KINDS.join(", ")),
        )),
        None => Ok(names),
    }
}

/// Whether a value is of a kind that `type` may name.
pub(super) fn is(value: &Value, kind: &str) -> bool {
    match value {
        Value::Null => kind == "null",
        Value::Bool(_) => kind == "boolean",
        Value::Number(number) => {
            kind == "number"
                || (kind == "integer"
                    && (!number.is_f64() || number.as_f64().is_some_and(|n| n.fract() == 0.0)))
        }
        Value::String(_) => kind == "string",
        Value::Array(_) => kind == "array",
        Value::Object(_) => kind == "object",
    }
}

/// A number of characters, items or properties.
pub(super) fn count(fields: &Fields, name: &str, path: &str) -> Result<Option<usize>, Fault> {
    match fields.get(name) {
        None => Ok(None),
        Some(value) => match value.as_u64() {
            Some(count) => Ok(Some(usize::try_from(count).unwrap_or(usize::MAX))),
            None => Err(Fault::new(
                child(path, name),
                "must be a whole number, and not below zero",
            )),
        },
    }
}
