//! What requests say of tokens that are tried ahead: `speculation`, and OpenAI's `prediction`.

use crate::api::parse::Invalid;
use crate::api::parse::json::{Json, Object, quote};
use crate::chat::Speculation;

/// Bytes of a prediction that are used: what is behind them is not looked at.
const MAX_PREDICTION_BYTES: usize = 256 << 10;

/// Takes whether tokens are tried ahead, and what the answer may be.
pub fn take(object: &mut Object) -> Result<(Option<Speculation>, Option<String>), Invalid> {
    let speculation = object.take("speculation").map(|json| mode(&json));
    let prediction = object.take("prediction").map(|json| predicted(&json));
    Ok((speculation.transpose()?, prediction.transpose()?.flatten()))
}

fn mode(json: &Json) -> Result<Speculation, Invalid> {
    let name = json.string()?;
    Speculation::of(&name).map_or_else(
        || {
            let reason = format!("must be `auto`, `on` or `off`, not `{}`", quote(&name));
            json.wrong(reason)
        },
        Ok,
    )
}

/// `{"type": "content", "content": …}`: a text, or an array of its parts.
fn predicted(json: &Json) -> Result<Option<String>, Invalid> {
    let mut object = json.object()?;
    let kind = object.need("type")?;
    if kind.string()? != "content" {
        return kind.wrong("must be `content`");
    }
    let content = object.need("content")?;
    object.finish()?;
    let mut text = match content.is_array() {
        false => content.string()?,
        true => {
            let parts = content.array()?;
            let parts = parts.iter().map(part).collect::<Result<Vec<_>, _>>()?;
            parts.concat()
        }
    };
    text.truncate(text.floor_char_boundary(MAX_PREDICTION_BYTES));
    Ok(Some(text).filter(|text| !text.is_empty()))
}

fn part(json: &Json) -> Result<String, Invalid> {
    let mut object = json.object()?;
    let kind = object.need("type")?;
    if kind.string()? != "text" {
        return kind.wrong("must be `text`");
    }
    let text = object.need("text")?.string()?;
    object.finish()?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::parse::json;

    fn taken(body: &str) -> Result<(Option<Speculation>, Option<String>), Invalid> {
        take(&mut json::body(body.as_bytes()).unwrap())
    }

    #[test]
    fn modes_and_predictions() {
        let text = |text: &str| Ok((None, Some(text.to_owned())));
        for (body, wanted) in [
            ("{}", Ok((None, None))),
            (
                r#"{"speculation":null,"prediction":null}"#,
                Ok((None, None)),
            ),
            (r#"{"speculation":"on"}"#, Ok((Some(Speculation::On), None))),
            (
                r#"{"prediction":{"type":"content","content":"a b"}}"#,
                text("a b"),
            ),
            (
                r#"{"prediction":{"type":"content","content":[{"type":"text","text":"a "},{"type":"text","text":"b"}]}}"#,
                text("a b"),
            ),
            (
                r#"{"prediction":{"type":"content","content":""}}"#,
                Ok((None, None)),
            ),
        ] {
            assert_eq!(taken(body), wanted, "{body}");
        }
        let long = "ä".repeat(MAX_PREDICTION_BYTES);
        let body = format!(r#"{{"prediction":{{"type":"content","content":"x{long}"}}}}"#);
        let (_, prediction) = taken(&body).unwrap();
        assert_eq!(
            prediction.map(|text| text.len()),
            Some(MAX_PREDICTION_BYTES - 1)
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (body, field) in [
            (r#"{"speculation":"always"}"#, "speculation"),
            (r#"{"speculation":true}"#, "speculation"),
            (r#"{"prediction":"a b"}"#, "prediction"),
            (
                r#"{"prediction":{"type":"file","content":"a"}}"#,
                "prediction.type",
            ),
            (r#"{"prediction":{"type":"content"}}"#, "prediction.content"),
            (
                r#"{"prediction":{"type":"content","content":7}}"#,
                "prediction.content",
            ),
            (
                r#"{"prediction":{"type":"content","content":"a","x":1}}"#,
                "prediction.x",
            ),
            (
                r#"{"prediction":{"type":"content","content":[{"type":"image"}]}}"#,
                "prediction.content[0].type",
            ),
        ] {
            assert_eq!(taken(body).unwrap_err().field, field, "{body}");
        }
    }
}
