//! Two JSON Schemas that hold at once become one. Pure.

use serde_json::{Map, Value, json};

/// What both `a` and `b` say. The error continues the sentence "the schema …".
///
/// What cannot be said in one schema of the same keywords is put off as an `allOf` of a part, or
/// refused.
pub fn merge(a: &Map<String, Value>, b: &Map<String, Value>) -> Result<Map<String, Value>, String> {
    let mut out = a.clone();
    properties(&mut out, a, b);
    for (name, right) in b {
        let Some(left) = a.get(name) else {
            if name != "properties" {
                out.insert(name.clone(), right.clone());
            }
            continue;
        };
        let both = match name.as_str() {
            "properties" => continue,
            _ if left == right => continue,
            "type" => types(left, right)?,
            "required" => union(left, right),
            "enum" => common(left, right),
            "minimum" | "exclusiveMinimum" | "minLength" | "minItems" | "minProperties" => {
                bound(left, right, f64::max)?
            }
            "maximum" | "exclusiveMaximum" | "maxLength" | "maxItems" | "maxProperties" => {
                bound(left, right, f64::min)?
            }
            "items" | "additionalProperties" if !left.is_array() && !right.is_array() => {
                json!({"allOf": [left, right]})
            }
            "allOf" => union(left, right),
            "const" => return Err("asks for two different values at once".into()),
            "anyOf" | "oneOf" | "pattern" | "format" | "multipleOf" | "items" | "prefixItems"
            | "additionalItems" | "patternProperties" | "$ref" => {
                return Err(format!(
                    "has two different `{name}` that hold at once, which is not supported"
                ));
            }
            // Remarks.
            _ => continue,
        };
        out.insert(name.clone(), both);
    }
    Ok(out)
}

/// Each property must be what both say of it, be it by name or as one that is not named.
fn properties(out: &mut Map<String, Value>, a: &Map<String, Value>, b: &Map<String, Value>) {
    let named =
        |schema: &Map<String, Value>| schema.get("properties").and_then(Value::as_object).cloned();
    if named(a).is_none() && named(b).is_none() {
        return;
    }
    let mut both = Map::new();
    for (here, there) in [(a, b), (b, a)] {
        let others = named(there).unwrap_or_default();
        for (name, schema) in named(here).unwrap_or_default() {
            if both.contains_key(&name) {
                continue;
            }
            let other = others
                .get(&name)
                .or_else(|| there.get("additionalProperties"));
            let schema =
                other.map_or_else(|| schema.clone(), |other| json!({"allOf": [schema, other]}));
            both.insert(name, schema);
        }
    }
    out.insert("properties".into(), both.into());
}

fn types(a: &Value, b: &Value) -> Result<Value, String> {
    let list = |value: &Value| match value {
        Value::Array(list) => list
            .iter()
            .filter_map(|item| item.as_str().map(str::to_owned))
            .collect::<Vec<_>>(),
        one => one.as_str().map(str::to_owned).into_iter().collect(),
    };
    let (a, b) = (list(a), list(b));
    let within = |name: &str, list: &[String]| {
        list.iter()
            .any(|other| other == name || (name == "integer" && other == "number"))
    };
    let mut both: Vec<&String> = a.iter().filter(|name| within(name, &b)).collect();
    both.extend(
        b.iter()
            .filter(|name| within(name, &a) && !a.contains(name)),
    );
    if both.is_empty() {
        Err("asks for two types at once".into())
    } else {
        Ok(json!(both))
    }
}

fn union(a: &Value, b: &Value) -> Value {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut both = list(a);
    both.extend(list(b).into_iter().filter(|item| !list(a).contains(item)));
    both.into()
}

fn common(a: &Value, b: &Value) -> Value {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let others = list(b);
    list(a)
        .into_iter()
        .filter(|item| others.contains(item))
        .collect()
}

/// The one of two numbers that `choose` says.
fn bound(a: &Value, b: &Value, choose: fn(f64, f64) -> f64) -> Result<Value, String> {
    match (a.as_f64(), b.as_f64()) {
        (Some(x), Some(y)) => Ok(if choose(x, y) == x { a } else { b }.clone()),
        _ => Err("has a bound that is no number".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(a: Value, b: Value) -> Result<Value, String> {
        merge(a.as_object().unwrap(), b.as_object().unwrap()).map(Value::from)
    }

    #[test]
    fn both_hold() {
        for (a, b, both) in [
            (
                json!({"type": "number", "minimum": 1}),
                json!({"type": ["integer", "string"], "minimum": 3}),
                json!({"type": ["integer"], "minimum": 3}),
            ),
            (
                json!({"maximum": 1.5}),
                json!({"maximum": 2, "title": "t"}),
                json!({"maximum": 1.5, "title": "t"}),
            ),
            (
                json!({"enum": [1, "a", null]}),
                json!({"enum": ["a", 1]}),
                json!({"enum": [1, "a"]}),
            ),
            (
                json!({"required": ["a"]}),
                json!({"required": ["b", "a"]}),
                json!({"required": ["a", "b"]}),
            ),
            (
                json!({"properties": {"a": {"type": "string"}}, "additionalProperties": false}),
                json!({"properties": {"a": {"minLength": 1}, "b": true}}),
                json!({"properties": {"a": {"allOf": [{"type": "string"}, {"minLength": 1}]}, "b": {"allOf": [true, false]}},
                       "additionalProperties": false}),
            ),
        ] {
            assert_eq!(merged(a.clone(), b).unwrap(), both, "{a}");
        }
        assert!(merged(json!({"type": "string"}), json!({"type": "number"})).is_err());
        assert!(merged(json!({"pattern": "a"}), json!({"pattern": "b"})).is_err());
        assert!(merged(json!({"const": 1}), json!({"const": 2})).is_err());
    }
}
