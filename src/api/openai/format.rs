//! What form the answer must have: `response_format`, and the extensions `regex` and `grammar`.

use crate::api::parse::Invalid;
use crate::api::parse::json::{Json, Object, quote};
use crate::chat::Format;

pub fn format(object: &mut Object) -> Result<Format, Invalid> {
    let mut format = object
        .take("response_format")
        .map_or(Ok(Format::Text), |json| response_format(&json))?;
    for (name, form) in [
        ("regex", Format::Regex as fn(String) -> Format),
        ("grammar", Format::Grammar),
    ] {
        let Some(json) = object.take(name) else {
            continue;
        };
        if format != Format::Text {
            return json.wrong(
                "is one form of the answer too many: give `response_format`, `regex` or `grammar`",
            );
        }
        format = form(json.string()?);
    }
    Ok(format)
}

fn response_format(json: &Json) -> Result<Format, Invalid> {
    let mut fields = json.object()?;
    let kind = fields.need("type")?;
    let format = match kind.string()?.as_str() {
        "text" => Format::Text,
        // llama.cpp's server takes a schema for both beside `type`.
        "json_object" | "json_schema" if fields.peek("schema").is_some() => schema(&mut fields)?,
        "json_object" => Format::JsonObject,
        "json_schema" => {
            let mut fields = fields.need("json_schema")?.object()?;
            let schema = schema(&mut fields)?;
            fields.finish()?;
            schema
        }
        other => {
            return kind.wrong(format!(
                "must be `text`, `json_object` or `json_schema`, not `{}`",
                quote(other)
            ));
        }
    };
    fields.finish()?;
    Ok(format)
}

/// The fields that describe a schema.
pub fn schema(fields: &mut Object) -> Result<Format, Invalid> {
    // Labels; what the model should know of the data belongs into the conversation.
    fields.string("name")?;
    fields.string("description")?;
    let strict = fields.switch("strict", false)?;
    let schema = fields.need("schema")?.opaque_object()?;
    Ok(Format::JsonSchema { schema, strict })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::parse::json::whole;

    fn parse(json: &str) -> Result<Format, Invalid> {
        whole(json, format)
    }

    #[test]
    fn every_form() {
        let schema = r#"{"type":"json_schema","json_schema":{"name":"n","description":"d","strict":true,"schema":{"type":"object"}}}"#;
        for (json, format) in [
            ("{}".into(), Format::Text),
            (
                r#"{"response_format":{"type":"text"}}"#.into(),
                Format::Text,
            ),
            (
                r#"{"response_format":{"type":"json_object"}}"#.into(),
                Format::JsonObject,
            ),
            (
                format!(r#"{{"response_format":{schema}}}"#),
                Format::JsonSchema {
                    schema: r#"{"type":"object"}"#.into(),
                    strict: true,
                },
            ),
            (
                r#"{"response_format":{"type":"json_object","schema":{"type":"object"}}}"#.into(),
                Format::JsonSchema {
                    schema: r#"{"type":"object"}"#.into(),
                    strict: false,
                },
            ),
            (
                r#"{"response_format":{"type":"json_schema","schema":{"type":"object"},"strict":true}}"#.into(),
                Format::JsonSchema {
                    schema: r#"{"type":"object"}"#.into(),
                    strict: true,
                },
            ),
            (
                r#"{"response_format":{"type":"text"},"regex":"a+"}"#.into(),
                Format::Regex("a+".into()),
            ),
            (
                r#"{"grammar":"start: \"a\""}"#.into(),
                Format::Grammar("start: \"a\"".into()),
            ),
        ] {
            assert_eq!(parse(&json).unwrap(), format, "{json}");
        }
    }

    #[test]
    fn errors_name_the_field() {
        for (json, field) in [
            (r#"{"response_format":"json"}"#, "response_format"),
            (r#"{"response_format":{}}"#, "response_format.type"),
            (
                r#"{"response_format":{"type":"yaml"}}"#,
                "response_format.type",
            ),
            (
                r#"{"response_format":{"type":"json_object","schema":7}}"#,
                "response_format.schema",
            ),
            (
                r#"{"response_format":{"type":"json_schema","schema":{},"json_schema":{}}}"#,
                "response_format.json_schema",
            ),
            (
                r#"{"response_format":{"type":"json_schema"}}"#,
                "response_format.json_schema",
            ),
            (
                r#"{"response_format":{"type":"json_schema","json_schema":{"name":"n"}}}"#,
                "response_format.json_schema.schema",
            ),
            (
                r#"{"response_format":{"type":"json_schema","json_schema":{"schema":true}}}"#,
                "response_format.json_schema.schema",
            ),
            (
                r#"{"response_format":{"type":"json_object"},"regex":"a"}"#,
                "regex",
            ),
            (r#"{"regex":"a","grammar":"start: \"a\""}"#, "grammar"),
            (r#"{"regex":7}"#, "regex"),
        ] {
            assert_eq!(parse(json).unwrap_err().field, field, "{json}");
        }
    }
}
