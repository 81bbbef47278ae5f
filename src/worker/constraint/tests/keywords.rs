//! What generators write: each keyword with values that fit and values that do not, walked through
//! the grammar.

use serde_json::{Value, json};

use super::{compiler, strictly, takes, tiny};

/// Values that a strict schema allows, and values that it does not.
fn check(cases: &[(Value, Value, Value)]) {
    let compiler = compiler(tiny());
    for (schema, fitting, others) in cases {
        let grammar = compiler.format(&strictly(schema));
        let grammar = grammar.unwrap_or_else(|error| panic!("{schema}: {error}"));
        for (values, fits) in [(fitting, true), (others, false)] {
            for value in values.as_array().unwrap() {
                let text = value.to_string();
                assert_eq!(takes(&grammar, tiny(), &text), fits, "{schema}: {text}");
            }
        }
    }
}

#[test]
fn words_that_say_nothing_are_no_hindrance() {
    check(&[
        (
            json!({"type": "integer", "format": "int32", "example": 3, "deprecated": true,
                "xml": {"name": "n"}, "externalDocs": {}, "x-order": 1, "x-guidance": {"lenient": true}}),
            json!([1, -5]),
            json!([1.5, "1"]),
        ),
        (
            json!({"type": "string", "format": "binary"}),
            json!(["", "a"]),
            json!([1]),
        ),
        (
            json!({"type": "string", "nullable": true}),
            json!(["a", null]),
            json!([1]),
        ),
        (
            json!({"properties": {"not": {"const": {"if": 1}}}, "default": {"not": 1}}),
            json!([{"not": {"if": 1}}, {}]),
            json!([{"not": 1}]),
        ),
    ]);
}

#[test]
fn objects_are_counted_and_told_apart() {
    check(&[
        (
            json!({"type": "object", "properties": {"a": {}, "b": {}, "c": {}},
                "additionalProperties": false, "minProperties": 2, "maxProperties": 2}),
            json!([{"a": 1, "b": 1}, {"b": 1, "c": 1}]),
            json!([{"a": 1}, {"a": 1, "b": 1, "c": 1}, {}]),
        ),
        (
            json!({"type": "object", "propertyNames": {"pattern": "^[a-z]+$"}, "minProperties": 1}),
            json!([{"a": 1}, {"a": 1, "b": []}]),
            json!([{}, {"A": 1}]),
        ),
        (
            json!({"type": "object", "patternProperties": {"^a": {"type": "integer"}, "b$": {"minimum": 5}},
                "additionalProperties": {"type": "null"}}),
            json!([{"a": 1}, {"ab": 7}, {"xb": 5}, {"x": null}]),
            json!([{"a": "x"}, {"ab": 1}, {"xb": 4}, {"x": 1}]),
        ),
        (
            json!({"type": "object", "properties": {"card": {}, "address": {}},
                "dependentRequired": {"card": ["address"]}, "dependentSchemas": {"z": {"maxProperties": 1}}}),
            json!([{}, {"address": 1}, {"card": 1, "address": 1}, {"z": 1}]),
            json!([{"card": 1}, {"address": 1, "z": 1}]),
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string", "required": true}}}),
            json!([{"a": "x"}]),
            json!([{}, {"b": 1}]),
        ),
        (
            json!({"type": "object", "required": ["a"], "additionalProperties": {"type": "integer"}}),
            json!([{"a": 1}, {"a": 1, "b": 2}]),
            json!([{}, {"b": 1}, {"a": "x"}]),
        ),
        (
            json!({"allOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}], "unevaluatedProperties": false}),
            json!([{"a": 1, "b": 2}]),
            json!([{"c": 1}]),
        ),
    ]);
}

/// A name is not written twice in an object, not even with other letters.
#[test]
fn no_property_comes_twice() {
    let compiler = compiler(tiny());
    let schema = json!({"type": "object", "required": ["a"]});
    let grammar = compiler.format(&strictly(&schema)).unwrap();
    assert!(takes(&grammar, tiny(), r#"{"a":1,"b":2}"#));
    for text in [r#"{"a":1,"a":2}"#, r#"{"a":1,"\u0061":2}"#] {
        assert!(!takes(&grammar, tiny(), text), "{text}");
    }
}

#[test]
fn lists_are_counted_and_told_apart() {
    check(&[
        (
            json!({"type": "array", "uniqueItems": true, "items": {"enum": ["a", "b", 3]}}),
            json!([[], ["b", "a"], [3, "b", "a"]]),
            json!([["a", "a"], ["c"]]),
        ),
        (
            json!({"type": "array", "uniqueItems": true, "maxItems": 1}),
            json!([[], [7]]),
            json!([[7, 8]]),
        ),
        (
            json!({"type": "array", "contains": {"const": 5}}),
            json!([[5], [1, 5, "x"]]),
            json!([[], [1]]),
        ),
        (
            json!({"type": "array", "items": {"type": "integer"}, "contains": {"minimum": 5}, "minItems": 2, "maxItems": 3}),
            json!([[5, 1], [9, 9, 9]]),
            json!([[5], [1, 2], [5, 1, 1, 1]]),
        ),
        (
            json!({"prefixItems": [{"type": "string"}, {"type": "integer"}], "items": false, "minItems": 1}),
            json!([["a"], ["a", 1]]),
            json!([[], [1], ["a", 1, 2]]),
        ),
    ]);
}

#[test]
fn choices_exclude_each_other() {
    let kind = |name: &str| {
        json!({"type": "object", "properties": {"kind": {"const": name}, "n": {"type": "integer"}},
            "required": ["kind"]})
    };
    check(&[
        (
            json!({"$defs": {"cat": kind("cat"), "dog": kind("dog")},
                "oneOf": [{"$ref": "#/$defs/cat"}, {"$ref": "#/$defs/dog"}, {"type": "null"}],
                "discriminator": {"propertyName": "kind"}}),
            json!([{"kind": "cat"}, {"kind": "dog", "n": 1}, null]),
            json!([{"kind": "cow"}, {}]),
        ),
        (
            json!({"oneOf": [{"const": 0, "title": "no"}, {"const": 1}, {"enum": [true, "x"]}]}),
            json!([0, 1, true, "x"]),
            json!([2, false]),
        ),
        (
            json!({"oneOf": [{"type": "integer"}, {"type": "number", "minimum": 2}]}),
            json!([1, 2.5]),
            json!([3, 1.5]),
        ),
        (
            json!({"type": "object", "properties": {"a": {}, "b": {}}, "additionalProperties": false,
                "oneOf": [{"required": ["a"]}, {"required": ["b"]}]}),
            json!([{"a": 1}, {"b": 1}]),
            json!([{}, {"a": 1, "b": 1}]),
        ),
        (
            json!({"type": ["string", "integer"], "not": {"enum": ["a", 3]}}),
            json!(["b", 4]),
            json!(["a", 3]),
        ),
        (
            json!({"properties": {"k": {"enum": ["x", "y"]}, "v": {}}, "required": ["k", "v"],
                "if": {"properties": {"k": {"const": "x"}}}, "then": {"properties": {"v": {"type": "string"}}},
                "else": {"properties": {"v": {"type": "integer"}}}, "type": "object"}),
            json!([{"k": "x", "v": "s"}, {"k": "y", "v": 1}]),
            json!([{"k": "x", "v": 1}, {"k": "y", "v": "s"}]),
        ),
    ]);
}

#[test]
fn numbers_and_texts_are_bounded() {
    check(&[
        (
            json!({"type": "integer", "minimum": 0, "exclusiveMinimum": true, "maximum": 255}),
            json!([1, 255]),
            json!([0, 256, -1, 1.5]),
        ),
        (
            json!({"type": "number", "exclusiveMaximum": 0.5, "multipleOf": 0.25}),
            json!([0.25, -1.75]),
            json!([0.5, 0.3]),
        ),
        (
            json!({"type": "string", "pattern": "^(?!-)[a-z-]{1,5}$", "maxLength": 3}),
            json!(["a", "a-b"]),
            json!(["-a", "abcd", ""]),
        ),
        (
            json!({"enum": ["a", "bb", 7, null], "minLength": 2, "type": ["string", "integer"]}),
            json!(["bb", 7]),
            json!(["a", null]),
        ),
    ]);
}

#[test]
fn schemas_refer_to_themselves_and_to_others() {
    check(&[
        (
            json!({"$id": "http://example.com/tree", "type": "object", "properties": {
                "leaf": {"$ref": "#leaf"}, "next": {"$ref": "http://example.com/tree"}},
                "required": ["leaf"], "additionalProperties": false,
                "definitions": {"l": {"$anchor": "leaf", "type": "boolean"}}}),
            json!([{"leaf": true}, {"leaf": true, "next": {"leaf": false}}]),
            json!([{"leaf": 1}, {"leaf": true, "next": {}}]),
        ),
        (
            json!({"$defs": {"s": {"type": "string"}}, "$ref": "#/$defs/s", "minLength": 2}),
            json!(["ab"]),
            json!(["a", 1]),
        ),
        (
            json!({"$defs": {"a": {"properties": {"x": {"$ref": "#/$defs/a"}, "n": {"type": "integer"}}},
                "b": {"properties": {"x": {"$ref": "#/$defs/b"}, "n": {"minimum": 5}}}},
                "type": "object", "allOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}]}),
            json!([{"x": {"n": 6}}]),
            json!([{"x": {"n": 4}}, {"x": {"x": {"n": "s"}}}]),
        ),
    ]);
}
