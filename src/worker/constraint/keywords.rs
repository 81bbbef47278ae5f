//! Which JSON Schemas the model can be held to: every keyword is one that is honoured, or one that
//! says nothing of the data. Anything else is refused, because leaving it out would be a broken
//! promise. Pure.

use serde_json::{Map, Value};

/// Schemas within one schema.
const MAX_SCHEMAS: usize = 1000;

/// What is honoured.
const HONOURED: [&str; 27] = [
    "$ref",
    "additionalItems",
    "additionalProperties",
    "allOf",
    "anyOf",
    "const",
    "enum",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "format",
    "items",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "multipleOf",
    "oneOf",
    "pattern",
    "patternProperties",
    "prefixItems",
    "properties",
    "required",
    "type",
];

/// What says nothing of the data; so does every name that begins with `x-`, save [`OPTIONS`].
const REMARKS: [&str; 16] = [
    "$anchor",
    "$comment",
    "$defs",
    "$id",
    "$schema",
    "contentEncoding",
    "contentMediaType",
    "default",
    "definitions",
    "deprecated",
    "description",
    "examples",
    "id",
    "readOnly",
    "title",
    "writeOnly",
];

/// The name under which llguidance would take options from a schema.
pub const OPTIONS: &str = "x-guidance";

/// The values of `format` that are honoured.
pub const FORMATS: [&str; 10] = [
    "date",
    "date-time",
    "duration",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "time",
    "uri",
    "uuid",
];

/// Why the model cannot be held to a schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where, as a JSON pointer.
    pub path: String,
    /// Continues the sentence "the schema …".
    pub reason: String,
}

impl Fault {
    pub fn new(path: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            reason: reason.into(),
        }
    }
}

/// Looks at every schema that `schema` consists of.
pub fn check(schema: &Value) -> Result<(), Fault> {
    let mut seen = 0;
    check_at(schema, "", &mut seen)
}

fn check_at(schema: &Value, path: &str, seen: &mut usize) -> Result<(), Fault> {
    *seen += 1;
    if *seen > MAX_SCHEMAS {
        return Err(Fault::new(
            "",
            format!("consists of more than {MAX_SCHEMAS} schemas"),
        ));
    }
    let fields = match schema {
        Value::Bool(_) => return Ok(()),
        Value::Object(fields) => fields,
        _ => return Err(Fault::new(path, "must be an object or a boolean")),
    };
    for (name, value) in fields {
        let at = child(path, name);
        let known = HONOURED.contains(&name.as_str()) || REMARKS.contains(&name.as_str());
        if !known && (!name.starts_with("x-") || name == OPTIONS) {
            return Err(Fault::new(at, "has a keyword that is not supported"));
        }
        match (name.as_str(), value) {
            (
                "properties" | "patternProperties" | "$defs" | "definitions",
                Value::Object(named),
            ) => {
                check_named(named, &at, seen)?;
            }
            ("properties" | "patternProperties" | "$defs" | "definitions", _) => {
                return Err(Fault::new(at, "must be an object"));
            }
            ("allOf" | "anyOf" | "oneOf" | "prefixItems" | "items", Value::Array(list)) => {
                for (i, item) in list.iter().enumerate() {
                    check_at(item, &format!("{at}/{i}"), seen)?;
                }
            }
            ("allOf" | "anyOf" | "oneOf" | "prefixItems", _) => {
                return Err(Fault::new(at, "must be an array"));
            }
            ("items" | "additionalItems" | "additionalProperties", value) => {
                check_at(value, &at, seen)?
            }
            ("format", Value::String(format)) if !FORMATS.contains(&format.as_str()) => {
                return Err(Fault::new(
                    at,
                    format!(
                        "has a format that is not supported; these are: {}",
                        FORMATS.join(", ")
                    ),
                ));
            }
            ("$ref", Value::String(reference)) if !reference.starts_with('#') => {
                return Err(Fault::new(
                    at,
                    "refers to another document; only references that begin with # are followed",
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

fn check_named(named: &Map<String, Value>, path: &str, seen: &mut usize) -> Result<(), Fault> {
    named
        .iter()
        .try_for_each(|(name, schema)| check_at(schema, &child(path, name), seen))
}

/// The JSON pointer to a field.
pub fn child(path: &str, name: &str) -> String {
    format!("{path}/{}", name.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_keyword_is_named_with_its_place() {
        for (schema, path) in [
            (json!(7), ""),
            (json!({"not": {}}), "/not"),
            (
                json!({"type": "array", "uniqueItems": true}),
                "/uniqueItems",
            ),
            (
                json!({"properties": {"a/b": {"if": {}}}}),
                "/properties/a~1b/if",
            ),
            (json!({"properties": []}), "/properties"),
            (
                json!({"anyOf": [{}, {"nullable": true}]}),
                "/anyOf/1/nullable",
            ),
            (
                json!({"items": {"dependentRequired": {}}}),
                "/items/dependentRequired",
            ),
            (json!({"items": [true, 3]}), "/items/1"),
            (
                json!({"$defs": {"a": {"contains": 1}}}),
                "/$defs/a/contains",
            ),
            (
                json!({"additionalProperties": {"propertyNames": {}}}),
                "/additionalProperties/propertyNames",
            ),
            (json!({"type": "string", "format": "int32"}), "/format"),
            (json!({"$ref": "https://example.com"}), "/$ref"),
            (json!({"x-guidance": {"lenient": true}}), "/x-guidance"),
        ] {
            assert_eq!(check(&schema).unwrap_err().path, path, "{schema}");
        }
    }

    #[test]
    fn remarks_are_none_of_our_business() {
        for schema in [
            json!(true),
            json!({"title": "t", "description": 7, "x-order": 3, "default": {"not": 1}, "examples": [{"if": 1}]}),
            json!({"properties": {"not": {"const": {"if": 1}}, "if": {"enum": [{"not": 1}]}}}),
        ] {
            assert_eq!(check(&schema), Ok(()), "{schema}");
        }
    }

    #[test]
    fn size_is_bounded() {
        let many: Map<String, Value> = (0..MAX_SCHEMAS)
            .map(|i| (i.to_string(), json!(true)))
            .collect();
        assert!(
            check(&json!({"properties": many}))
                .unwrap_err()
                .reason
                .contains("1000")
        );
    }
}
