//! The form of a chat's answer: `response_format` and its like at other servers. Pure.

use crate::api::openai::format;
use crate::api::parse::Invalid;
use crate::api::parse::json::{Json, Object};
use crate::chat::Format;

/// Texts of which an answer may be one.
const MAX_CHOICES: usize = 256;

/// Takes everything that is about the answer's form, which can have one.
pub fn format(object: &mut Object) -> Result<Format, Invalid> {
    let mut format = format::format(object)?;
    for (name, read) in [
        ("json_schema", schema as Read),
        ("guided_json", schema),
        ("guided_regex", regex),
        ("guided_choice", choice),
        ("structured_outputs", structured),
    ] {
        let Some(json) = object.take(name) else {
            continue;
        };
        // A schema says more of an object than that it is one.
        if format != Format::Text && format != Format::JsonObject {
            return json.wrong(
                "is one form of the answer too many: give `response_format` or one of the others",
            );
        }
        format = read(&json)?;
    }
    Ok(format)
}

type Read = fn(&Json) -> Result<Format, Invalid>;

/// A schema, or one in a string.
fn schema(json: &Json) -> Result<Format, Invalid> {
    let text = match json.is_string() {
        true => json.string()?,
        false => json.opaque_object()?,
    };
    match crate::api::parse::json::check_object(&text) {
        Ok(()) => Ok(Format::JsonSchema {
            schema: text,
            strict: false,
        }),
        Err(reason) => json.wrong(format!("must be a JSON schema; it {reason}")),
    }
}

fn regex(json: &Json) -> Result<Format, Invalid> {
    Ok(Format::Regex(json.string()?))
}

/// One of several texts.
fn choice(json: &Json) -> Result<Format, Invalid> {
    let texts = json.array()?;
    if texts.is_empty() || texts.len() > MAX_CHOICES {
        return json.wrong(format!("must hold 1 to {MAX_CHOICES} texts"));
    }
    let texts: Vec<_> = texts
        .iter()
        .map(|text| Ok(escaped(&text.string()?)))
        .collect::<Result<_, Invalid>>()?;
    Ok(Format::Regex(format!("({})", texts.join("|"))))
}

/// vLLM's object of forms, one of which may be given.
fn structured(json: &Json) -> Result<Format, Invalid> {
    let mut fields = json.object()?;
    let mut format = Format::Text;
    for (name, read) in [
        ("json", schema as Read),
        ("regex", regex),
        ("choice", choice),
        ("json_object", json_object),
    ] {
        if let Some(form) = fields.take(name) {
            if format != Format::Text {
                return form.wrong("is one form of the answer too many");
            }
            format = read(&form)?;
        }
    }
    fields.finish()?;
    Ok(format)
}

fn json_object(json: &Json) -> Result<Format, Invalid> {
    Ok(match json.boolean()? {
        true => Format::JsonObject,
        false => Format::Text,
    })
}

/// A regular expression for this text alone.
fn escaped(text: &str) -> String {
    let special = |c: char| "\\.+*?()|[]{}^$#&-~/".contains(c);
    let escape = |c: char| match c {
        '\n' => "\\n".to_owned(),
        '\r' => "\\r".to_owned(),
        '\t' => "\\t".to_owned(),
        c if special(c) => format!("\\{c}"),
        c => c.to_string(),
    };
    text.chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::parse::json::whole;

    fn parse(json: &str) -> Result<Format, Invalid> {
        whole(json, format)
    }

    #[test]
    fn other_servers_words() {
        let schema = || Format::JsonSchema {
            schema: r#"{"type":"object"}"#.into(),
            strict: false,
        };
        let regex = |text: &str| Format::Regex(text.into());
        for (json, format) in [
            (r#"{"json_schema":{"type":"object"}}"#, schema()),
            (r#"{"guided_json":"{\"type\":\"object\"}"}"#, schema()),
            (
                r#"{"guided_json":{"type":"object"},"response_format":{"type":"json_object"}}"#,
                schema(),
            ),
            (r#"{"guided_regex":"a+"}"#, regex("a+")),
            (
                r#"{"guided_choice":["a.b","c d","é"]}"#,
                regex(r"(a\.b|c d|é)"),
            ),
            (r#"{"structured_outputs":{"choice":["x"]}}"#, regex("(x)")),
            (
                r#"{"structured_outputs":{"json_object":true}}"#,
                Format::JsonObject,
            ),
            (
                r#"{"structured_outputs":{"json":{"type":"object"}}}"#,
                schema(),
            ),
            (r#"{"structured_outputs":{}}"#, Format::Text),
        ] {
            assert_eq!(parse(json).unwrap(), format, "{json}");
        }
    }

    #[test]
    fn one_form_at_most() {
        for (json, field) in [
            (r#"{"json_schema":{},"guided_regex":"a"}"#, "guided_regex"),
            (r#"{"json_schema":7}"#, "json_schema"),
            (r#"{"guided_json":"{"}"#, "guided_json"),
            (r#"{"guided_choice":[]}"#, "guided_choice"),
            (r#"{"guided_choice":[1]}"#, "guided_choice[0]"),
            (
                r#"{"structured_outputs":{"json":{},"regex":"a"}}"#,
                "structured_outputs.regex",
            ),
            (
                r#"{"structured_outputs":{"grammar":"a"}}"#,
                "structured_outputs.grammar",
            ),
            (r#"{"regex":"a","json_schema":{}}"#, "json_schema"),
        ] {
            assert_eq!(parse(json).unwrap_err().field, field, "{json}");
        }
    }
}
