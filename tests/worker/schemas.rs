//! Random JSON Schemas.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// Names that are written bare, quoted, and like something else.
const NAMES: [&str; 9] = [
    "a",
    "B",
    "name",
    "größe",
    "two words",
    "x:y",
    "say \"hi\"",
    "type",
    "<|\"|>",
];
const PATTERNS: [&str; 6] = [
    "^[a-z]{2,5}$",
    "^\\d+(-\\d+)*$",
    "[0-9]",
    "^(on|off)$",
    "^/\\w+/$",
    "é",
];

/// A schema of some depth. `formats` are the values of `format` that may occur.
pub fn schema(formats: &'static [&'static str]) -> BoxedStrategy<Value> {
    let inner = leaf(formats).prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            4 => object(inner.clone()),
            2 => list(inner.clone()),
            1 => prop::collection::vec(inner.clone(), 1..4).prop_map(|options| json!({"anyOf": options})),
            1 => inner.prop_map(|schema| json!({"allOf": [schema, {"description": "beside it"}]})),
        ]
        .boxed()
    });
    // A part that refers to itself.
    (inner, any::<bool>())
        .prop_map(|(schema, refer)| match schema {
            Value::Object(mut fields) if refer => {
                let tree = json!({"type": "object", "properties": {"leaf": {"type": "boolean"}, "next": {"$ref": "#/$defs/tree"}},
                "required": ["leaf"], "additionalProperties": false});
                if let Some(Value::Object(named)) = fields.get_mut("properties") {
                    named.insert("tree".into(), json!({"$ref": "#/$defs/tree"}));
                }
                fields.insert("$defs".into(), json!({"tree": tree}));
                fields.into()
            }
            schema => schema,
        })
        .boxed()
}

/// A schema of a function's arguments.
pub fn parameters(formats: &'static [&'static str]) -> BoxedStrategy<Value> {
    object(
        schema(formats)
            .prop_filter("references need the root", |schema| {
                schema.get("$defs").is_none()
            })
            .boxed(),
    )
}

fn leaf(formats: &'static [&'static str]) -> BoxedStrategy<Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-1000i64..1000).prop_map(Value::from),
        (-100i64..100).prop_map(|n| json!(n as f64 / 8.0)),
        prop::sample::select(vec![
            "",
            "red",
            "two words",
            "a\"b\\c\nd",
            "<tool_call|>",
            "ü}"
        ])
        .prop_map(Value::from),
    ];
    let text = prop_oneof![
        3 => Just(json!({"type": "string"})),
        1 => (0usize..4, 0usize..20).prop_map(|(min, more)| json!({"type": "string", "minLength": min, "maxLength": min + more})),
        1 => prop::sample::select(PATTERNS.to_vec()).prop_map(|pattern| json!({"type": "string", "pattern": pattern})),
        1 => prop::sample::select(formats.to_vec()).prop_map(|format| json!({"type": "string", "format": format})),
    ];
    let number = prop_oneof![
        Just(json!({"type": "integer"})),
        Just(json!({"type": "number"})),
        (-500i64..500, 0i64..2000).prop_map(
            |(min, more)| json!({"type": "integer", "minimum": min, "maximum": min + more})
        ),
        (-50i64..50, 1i64..200).prop_map(
            |(min, more)| json!({"type": "number", "exclusiveMinimum": min, "maximum": min + more})
        ),
        (-50i64..50).prop_map(|min| json!({"type": "number", "minimum": min})),
        prop::sample::select(vec![2, 5, 10, 25])
            .prop_map(|of| json!({"type": "integer", "minimum": 0, "multipleOf": of})),
    ];
    prop_oneof![
        4 => text,
        3 => number,
        1 => Just(json!({"type": "boolean"})),
        1 => Just(json!({"type": ["string", "null"]})),
        1 => Just(json!({})),
        1 => scalar.clone().prop_map(|value| json!({"const": value})),
        2 => prop::collection::vec(scalar, 1..5).prop_map(|values| json!({"enum": values})),
    ]
    .boxed()
}

fn object(inner: BoxedStrategy<Value>) -> BoxedStrategy<Value> {
    let named = prop::collection::vec(
        (
            prop::sample::select(NAMES.to_vec()),
            inner.clone(),
            any::<bool>(),
        ),
        0..5,
    );
    (
        named,
        prop::option::of(prop_oneof![2 => Just(json!(false)), 1 => inner]),
    )
        .prop_map(|(named, others)| {
            let mut required: Vec<&str> = named
                .iter()
                .filter(|(_, _, must)| *must)
                .map(|(name, ..)| *name)
                .collect();
            required.sort();
            required.dedup();
            let named: Map<String, Value> = named
                .iter()
                .map(|(name, schema, _)| ((*name).to_owned(), schema.clone()))
                .collect();
            let mut schema = json!({"type": "object", "properties": named, "required": required});
            if let Some(others) = others {
                schema["additionalProperties"] = others;
            }
            schema
        })
        .boxed()
}

fn list(inner: BoxedStrategy<Value>) -> BoxedStrategy<Value> {
    let plain = (inner.clone(), 0usize..3, 0usize..3)
        .prop_map(|(items, min, more)| json!({"type": "array", "items": items, "minItems": min, "maxItems": min + more}));
    let places = (prop::collection::vec(inner, 1..4), any::<bool>())
        .prop_map(|(places, closed)| json!({"type": "array", "minItems": places.len(), "prefixItems": places, "items": !closed}));
    prop_oneof![2 => plain, 1 => places].boxed()
}
