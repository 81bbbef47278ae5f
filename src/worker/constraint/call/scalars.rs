//! The rules of numbers and strings. Pure.

use serde_json::{Value, json};

use super::Writer;
use super::fields::{Fields, KINDS_OF_KEYWORDS, count};
use crate::worker::constraint::formats;
use crate::worker::constraint::json::bounded;
use crate::worker::constraint::keywords::{Fault, OPTIONS, child};

impl Writer<'_> {
    pub(super) fn number(&mut self, fields: &Fields, kind: &str) -> String {
        let mut bounds: Fields = fields.clone();
        bounds.retain(|name, _| {
            KINDS_OF_KEYWORDS
                .iter()
                .any(|(keyword, kind)| keyword == name && *kind == "number")
        });
        if bounds.is_empty() {
            return if kind == "integer" {
                self.lark.integer()
            } else {
                self.lark.number()
            };
        }
        let mut bounds = bounded(bounds);
        bounds.insert("type".into(), kind.into());
        bounds.insert(OPTIONS.into(), json!({"whitespace_flexible": false}));
        format!("%json {}", Value::from(bounds))
    }

    pub(super) fn string(&mut self, fields: &Fields, path: &str) -> Result<String, Fault> {
        let text = |name: &str| match fields.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(_) => Err(Fault::new(child(path, name), "must be a string")),
        };
        let pattern = text("pattern")?.map(|pattern| {
            search(pattern)
                .ok_or_else(|| Fault::new(child(path, "pattern"), "has an anchor inside"))
        });
        let format = text("format")?.and_then(formats::regex);
        let (min, max) = (
            count(fields, "minLength", path)?.unwrap_or(0),
            count(fields, "maxLength", path)?,
        );
        let length = (min > 0 || max.is_some()).then(|| {
            format!(
                "(?s:.{{{min},{}}})",
                max.map_or(String::new(), |max| max.to_string())
            )
        });
        let parts: Vec<String> = pattern
            .transpose()?
            .into_iter()
            .chain(format.map(|format| llguidance::regex_to_lark(format, "")))
            .chain(length)
            .collect();
        Ok(self.lark.string(&parts))
    }
}

/// The regular expression of texts in which `pattern` is found; `None` if an anchor is not at its
/// start or end.
pub(super) fn search(pattern: &str) -> Option<String> {
    let open = pattern.strip_prefix('^');
    let rest = open.unwrap_or(pattern);
    let escaped = rest.len() - rest.trim_end_matches('$').trim_end_matches('\\').len();
    let close = rest.strip_suffix('$').filter(|_| escaped % 2 == 1);
    let rest = close.unwrap_or(rest);
    // With a choice at the top the anchors would belong to its branches.
    if (open.is_some() || close.is_some()) && rest.contains('|') && !rest.starts_with('(') {
        return None;
    }
    let any = |anchored: bool| if anchored { "" } else { "(?s:.*)" };
    Some(format!(
        "{}(?:{}){}",
        any(open.is_some()),
        llguidance::regex_to_lark(rest, "dw"),
        any(close.is_some())
    ))
}
