use std::collections::BTreeSet;

use super::*;
use crate::api::parse::json::{body, whole};

const PAGE: &str = include_str!("../../../docs/fields.md");
/// Where the page goes on with what is not in the table.
const REST: &str = "\n## Responses and Messages\n";

/// A row as the page has it.
fn row(field: &Field) -> String {
    let done = match field.rule {
        Rule::Neutral => "taken, no effect".to_owned(),
        Rule::NeutralAt(values) => {
            let values: Vec<_> = values.iter().map(|value| format!("`{value}`")).collect();
            format!("taken at {}", values.join(", "))
        }
        Rule::Meaning => "has an effect".to_owned(),
        Rule::Refused => "refused".to_owned(),
    };
    let Field { name, of, why, .. } = field;
    format!("| `{name}` | {of} | {done} | {why} |")
}

#[test]
fn the_page_has_the_table() {
    let rows: Vec<String> = TABLE.iter().map(row).collect();
    let (page, _) = PAGE.split_once(REST).unwrap();
    let page: Vec<&str> = page
        .lines()
        .filter(|line| line.starts_with("| `"))
        .collect();
    for row in &rows {
        assert!(page.contains(&row.as_str()), "docs/fields.md lacks: {row}");
    }
    for line in page {
        assert!(
            rows.iter().any(|row| row == line),
            "the table lacks: {line}"
        );
    }
}

#[test]
fn a_field_has_one_row() {
    let mut seen = BTreeSet::new();
    for field in TABLE {
        assert!(
            seen.insert((field.level as u8, field.name)),
            "{} has two",
            field.name
        );
        if let Rule::NeutralAt(values) = field.rule {
            assert!(!values.is_empty());
            for value in values {
                serde_json::from_str::<serde_json::Value>(value).unwrap();
            }
        }
    }
}

/// What becomes of a body of this one field.
fn taken(name: &str, value: &str) -> Result<(), Invalid> {
    let json = match name.split_once('.') {
        Some((parent, member)) => format!(r#"{{"{parent}":{{"{member}":{value}}}}}"#),
        None => format!(r#"{{"{name}":{value}}}"#),
    };
    whole(&json, |object| neutral(object, Level::Request))
}

#[test]
fn each_field_is_taken_as_its_row_says() {
    for field in TABLE.iter().filter(|field| field.level == Level::Request) {
        let odd = taken(field.name, r#"{"x":[1]}"#);
        match field.rule {
            Rule::Neutral => assert_eq!(odd, Ok(()), "{}", field.name),
            Rule::NeutralAt(values) => {
                assert_eq!(odd.unwrap_err().field, field.name);
                for value in values {
                    assert_eq!(taken(field.name, value), Ok(()), "{}", field.name);
                }
            }
            // No door has taken it.
            Rule::Meaning | Rule::Refused => assert_eq!(odd.unwrap_err().field, field.name),
        }
        assert_eq!(taken(field.name, "null"), Ok(()), "{}", field.name);
    }
}

#[test]
fn values_are_compared_and_not_their_spelling() {
    for (name, value) in [
        ("typical_p", "1.0"),
        ("typical_p", "1e0"),
        ("mirostat", "0.0"),
        ("modalities", "[ \"text\" ]"),
        ("search_parameters", "{ \"mode\" : \"off\" }"),
    ] {
        assert_eq!(taken(name, value), Ok(()), "{name}: {value}");
    }
    let refused = taken("typical_p", "0.9").unwrap_err();
    assert!(refused.reason.contains("can only be 1 or 0"), "{refused}");
    let long = format!("\"{}\"", "a".repeat(2 * MAX_COMPARED));
    assert_eq!(taken("typical_p", &long).unwrap_err().field, "typical_p");
}

#[test]
fn an_object_is_taken_with_its_members() {
    let take = |json: &str| whole(json, |object| neutral(object, Level::Request));
    assert_eq!(
        take(r#"{"options":{"num_ctx":8192,"num_gpu":1},"speculative.n_max":4}"#),
        Ok(())
    );
    for (json, field) in [
        (
            r#"{"options":{"num_ctx":1,"temperature":1}}"#,
            "options.temperature",
        ),
        (r#"{"options":7}"#, "options"),
        (r#"{"audio":{"voice":"a"}}"#, "audio"),
        (r#"{"unheard_of":1}"#, "unheard_of"),
    ] {
        assert_eq!(take(json).unwrap_err().field, field, "{json}");
    }
}

#[test]
fn what_was_given_of_an_object_is_named() {
    let object = body(br#"{"num_gpu":1,"temperature":1,"num_ctx":null,"num_thread":2}"#).unwrap();
    assert_eq!(given(&object, "options"), ["num_gpu", "num_thread"]);
}

#[test]
fn labels_are_the_clients_own() {
    let take = |json: &str| {
        let mut object = body(json.as_bytes()).unwrap();
        object.take("content");
        labels(object, Level::Message)
    };
    for fine in [
        r#"{"id":3,"opts":{},"timestamp":"x","content":"a"}"#,
        r#"{"tool_calls":[],"tool_call_id":"","prefix":false,"audio":null}"#,
    ] {
        assert_eq!(take(fine), Ok(()), "{fine}");
    }
    for (json, field) in [
        (r#"{"contnet":"a"}"#, "contnet"),
        (r#"{"tool_calls":[{}]}"#, "tool_calls"),
        (r#"{"reasoning_content":"a"}"#, "reasoning_content"),
        (r#"{"prefix":true}"#, "prefix"),
        (r#"{"audio":{"id":"x"}}"#, "audio"),
    ] {
        assert_eq!(take(json).unwrap_err().field, field, "{json}");
    }
}
