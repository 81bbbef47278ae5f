//! The grammar of JSON that fits a schema is llguidance's own; this is what it is told beside the
//! schema. Pure.

use serde_json::{Map, Value, json};

use super::keywords::OPTIONS;
use super::merge::merge;

/// Blanks and line breaks between the parts of JSON: one blank, or one line break with indentation.
/// Without a bound a model may write blanks for ever.
const WHITESPACE: &str = r"\x20|\n\x20{0,24}";
/// Numbers between this and its negative are exact in every language.
const SAFE_NUMBER: i64 = (1 << 53) - 1;
/// The name of the definition of a value of which a schema says nothing.
const ANYTHING: &str = "x-anything";

/// The same schema, in which numbers without bounds have some, and with llguidance's options. No
/// reader of the answer meets a number that it cannot take, such as 1e999.
pub fn tamed(schema: &Value) -> Value {
    let mut tamed = tame(schema);
    if let Value::Object(fields) = &mut tamed {
        let scalars = json!({"type": ["null", "boolean", "string"]});
        let number = json!({"type": "number", "minimum": -SAFE_NUMBER, "maximum": SAFE_NUMBER});
        let (list, object) = (
            json!({"type": "array", "items": anything()}),
            json!({"type": "object", "additionalProperties": anything()}),
        );
        if let Value::Object(named) = fields.entry("$defs").or_insert_with(|| json!({})) {
            named.insert(
                ANYTHING.into(),
                json!({"anyOf": [scalars, number, list, object]}),
            );
        }
        fields.insert(OPTIONS.into(), json!({"whitespace_pattern": WHITESPACE}));
    }
    tamed
}

fn anything() -> Value {
    json!({"$ref": format!("#/$defs/{ANYTHING}")})
}

fn tame(schema: &Value) -> Value {
    let Value::Object(fields) = schema else {
        return if schema == &Value::Bool(true) {
            anything()
        } else {
            schema.clone()
        };
    };
    if let Some(whole) = merged(fields) {
        return tame(&whole);
    }
    let mut out: Map<String, Value> = fields
        .iter()
        .map(|(name, value)| (name.clone(), tame_field(name, value)))
        .collect();
    // What is said elsewhere is bounded there.
    if ["$ref", "anyOf", "oneOf", "allOf", "enum", "const"]
        .iter()
        .any(|name| out.contains_key(*name))
    {
        return out.into();
    }
    let may_be = |kind: &str| match fields.get("type") {
        None => true,
        Some(Value::Array(kinds)) => kinds.iter().any(|other| other == kind),
        Some(other) => other == kind,
    };
    if may_be("number") || may_be("integer") {
        out = bounded(out);
    }
    if may_be("array") && !out.contains_key("items") && !out.contains_key("additionalItems") {
        out.insert("items".into(), anything());
    }
    if may_be("object") && !out.contains_key("additionalProperties") {
        out.insert("additionalProperties".into(), anything());
    }
    out.into()
}

/// One schema in place of an `allOf`: llguidance has no end when it looks for what two open ones
/// have in common.
fn merged(fields: &Map<String, Value>) -> Option<Value> {
    let mut whole = fields.clone();
    let Value::Array(parts) = whole.remove("allOf")? else {
        return None;
    };
    for part in &parts {
        match part {
            Value::Bool(true) => {}
            Value::Object(part) if !part.contains_key("$ref") => {
                whole = merge(&whole, part).ok()?
            }
            _ => return None,
        }
    }
    Some(whole.into())
}

/// A schema of numbers, with the bounds that it lacks.
pub fn bounded(mut fields: Map<String, Value>) -> Map<String, Value> {
    let bounds = ["minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"]
        .map(|name| fields.get(name).and_then(Value::as_f64));
    // One that is farther away stays alone.
    if bounds
        .iter()
        .flatten()
        .all(|bound| bound.abs() < SAFE_NUMBER as f64)
    {
        if bounds[..2].iter().all(Option::is_none) {
            fields.insert("minimum".into(), (-SAFE_NUMBER).into());
        }
        if bounds[2..].iter().all(Option::is_none) {
            fields.insert("maximum".into(), SAFE_NUMBER.into());
        }
    }
    fields
}

fn tame_field(name: &str, value: &Value) -> Value {
    match (name, value) {
        ("properties" | "patternProperties" | "$defs" | "definitions", Value::Object(named)) => {
            named
                .iter()
                .map(|(name, schema)| (name.clone(), tame(schema)))
                .collect()
        }
        ("anyOf" | "oneOf" | "prefixItems" | "items", Value::Array(list)) => {
            list.iter().map(tame).collect()
        }
        ("items" | "additionalItems" | "additionalProperties", schema) => tame(schema),
        _ => value.clone(),
    }
}
