//! The grammar of a function call: what may follow `<|tool_call>`, in llguidance's dialect of Lark.
//! Pure.
//!
//! Gemma writes `call:NAME{key:value,…}<tool_call|>`, keys in alphabetical order as the chat
//! template has them, strings between two quote tokens and as they are, everything else like JSON.
//! Two things are narrower than the schema, for the sake of those who read the arguments: an object
//! with `properties` has no others unless `additionalProperties` says so, and numbers are such that
//! no reader loses digits.

use serde_json::{Map, Value, json};

use super::formats;
use super::json::bounded;
use super::keywords::{Fault, OPTIONS, child};
use super::lark::Lark;
use super::merge::merge;
use crate::gemma::{call, marker};

/// Schemas that a call's grammar is made of, with each reference that holds beside other keywords
/// followed anew.
const MAX_STEPS: usize = 4000;
/// Schemas that lead to one another.
const MAX_DEPTH: usize = 100;

/// What a name or a place in a list is, when it is not listed.
const ANY: &Value = &Value::Bool(true);
const KINDS: [&str; 6] = ["null", "boolean", "number", "string", "array", "object"];

/// The grammar of one call of one of `tools`, each a name with the schema of its arguments. The
/// error names the tool by its place.
pub fn grammar<'a>(
    tools: impl IntoIterator<Item = (&'a str, &'a Value)>,
) -> Result<String, (usize, Fault)> {
    let mut lark = Lark::default();
    let mut calls = vec![];
    for (i, (name, schema)) in tools.into_iter().enumerate() {
        let mut writer = Writer {
            root: schema,
            lark: &mut lark,
            references: vec![],
            steps: 0,
            depth: 0,
        };
        let arguments = writer.arguments(schema).map_err(|fault| (i, fault))?;
        calls.push(format!(
            "{} {arguments} {}",
            Lark::text(&format!("{}{name}", call::PREFIX)),
            marker::TOOL_CALL_END
        ));
    }
    Ok(lark.finish(&calls))
}

struct Writer<'a> {
    /// What references are followed in.
    root: &'a Value,
    lark: &'a mut Lark,
    /// Rules of the schemas that were referred to.
    references: Vec<(String, String)>,
    steps: usize,
    depth: usize,
}

/// What nothing fits; a property of this kind may be left out.
const NOTHING: &str = "can be fulfilled by nothing";

type Fields = Map<String, Value>;

impl Writer<'_> {
    /// A call's arguments are an object, whatever else the schema allows.
    fn arguments(&mut self, schema: &Value) -> Result<String, Fault> {
        let object = json!({"type": "object"});
        match schema {
            Value::Object(fields) if fields.get("type") == object.get("type") => {
                self.fields(fields, "")
            }
            schema => self.value(&json!({"allOf": [schema, object]}), ""),
        }
    }

    /// The rule for what fits `schema`.
    fn value(&mut self, schema: &Value, path: &str) -> Result<String, Fault> {
        match schema {
            Value::Bool(true) => Ok(self.lark.anything()),
            Value::Object(fields) => self.fields(fields, path),
            _ => Err(Fault::new(path, NOTHING)),
        }
    }

    fn fields(&mut self, fields: &Fields, path: &str) -> Result<String, Fault> {
        self.steps += 1;
        if self.steps > MAX_STEPS || self.depth == MAX_DEPTH {
            return Err(Fault::new(
                "",
                "is too large, or refers to itself in a way that has no end",
            ));
        }
        self.depth += 1;
        let rule = self.applied(fields, path);
        self.depth -= 1;
        rule
    }

    /// Follows what combines schemas, until what is left speaks of the data alone.
    fn applied(&mut self, fields: &Fields, path: &str) -> Result<String, Fault> {
        let mut rest = fields.clone();
        if let Some(reference) = rest.remove("$ref") {
            return self.reference(&reference, &rest, path);
        }
        if let Some(Value::Array(all)) = rest.remove("allOf") {
            let mut whole = Some(rest);
            for schema in all {
                whole = both(whole, &schema, path)?;
            }
            return whole.map_or_else(
                || Err(Fault::new(path, NOTHING)),
                |whole| self.fields(&whole, path),
            );
        }
        for name in ["anyOf", "oneOf"] {
            // That no value fits two of `oneOf` was seen to before.
            let Some(Value::Array(some)) = rest.remove(name) else {
                continue;
            };
            let mut options = vec![];
            for (i, schema) in some.iter().enumerate() {
                let at = child(&child(path, name), &i.to_string());
                let option = match both(Some(rest.clone()), schema, &at) {
                    Ok(Some(option)) => self.fields(&option, &at),
                    Ok(None) => continue,
                    Err(fault) => Err(fault),
                };
                match option {
                    Ok(option) => options.push(option),
                    Err(fault) if fault.reason.ends_with("at once") || fault.reason == NOTHING => {}
                    Err(fault) => return Err(fault),
                }
            }
            return if options.is_empty() {
                Err(Fault::new(path, NOTHING))
            } else {
                Ok(self.lark.rule(options))
            };
        }
        self.plain(&rest, path)
    }

    fn reference(
        &mut self,
        reference: &Value,
        beside: &Fields,
        path: &str,
    ) -> Result<String, Fault> {
        let reference = reference.as_str().unwrap_or_default();
        let root = self.root;
        let target = reference
            .strip_prefix('#')
            .and_then(|pointer| root.pointer(pointer));
        let Some(target) = target else {
            return Err(Fault::new(
                child(path, "$ref"),
                "refers to what is not there",
            ));
        };
        if beside
            .keys()
            .any(|name| KINDS_OF_KEYWORDS.iter().any(|(keyword, _)| keyword == name))
        {
            let whole = both(Some(beside.clone()), target, path)?;
            return whole.map_or_else(
                || Err(Fault::new(path, NOTHING)),
                |whole| self.fields(&whole, path),
            );
        }
        if let Some((_, rule)) = self.references.iter().find(|(known, _)| known == reference) {
            return Ok(rule.clone());
        }
        let rule = self.lark.reserve();
        self.references.push((reference.to_owned(), rule.clone()));
        let body = self.value(target, reference.trim_start_matches('#'))?;
        if body == rule {
            return Err(Fault::new(path, "refers to itself and to nothing else"));
        }
        self.lark.define(&rule, vec![body]);
        Ok(rule)
    }

    /// A schema without combinations: values that are listed, or kinds of values.
    fn plain(&mut self, fields: &Fields, path: &str) -> Result<String, Fault> {
        let kinds = kinds(fields, path)?;
        let listed = match (fields.get("const"), fields.get("enum")) {
            (Some(value), Some(Value::Array(list))) => {
                Some(list.iter().filter(|other| *other == value).collect())
            }
            (Some(value), None) => Some(vec![value]),
            (None, Some(Value::Array(list))) => Some(list.iter().collect::<Vec<_>>()),
            _ => None,
        };
        if let Some(listed) = listed {
            if let Some(name) = fields.keys().find(|name| {
                KINDS_OF_KEYWORDS
                    .iter()
                    .any(|(keyword, kind)| keyword == name && !kind.is_empty())
            }) {
                return Err(Fault::new(
                    child(path, name),
                    "is not supported beside values that are listed",
                ));
            }
            let fitting = listed
                .into_iter()
                .filter(|value| kinds.iter().any(|kind| is(value, kind)));
            let options: Vec<String> = fitting.map(literal).collect();
            return if options.is_empty() {
                Err(Fault::new(path, NOTHING))
            } else {
                Ok(self.lark.rule(options))
            };
        }
        let mut options = vec![];
        for kind in kinds {
            options.push(match kind {
                "null" => Lark::text("null"),
                "boolean" => "(\"true\" | \"false\")".into(),
                "string" => self.string(fields, path)?,
                "array" => self.list(fields, path)?,
                "object" => self.object(fields, path)?,
                number => self.number(fields, number),
            });
        }
        Ok(self.lark.rule(options))
    }

    fn number(&mut self, fields: &Fields, kind: &str) -> String {
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

    fn string(&mut self, fields: &Fields, path: &str) -> Result<String, Fault> {
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

    fn list(&mut self, fields: &Fields, path: &str) -> Result<String, Fault> {
        let (min, max) = (
            count(fields, "minItems", path)?.unwrap_or(0),
            count(fields, "maxItems", path)?,
        );
        // Until 2019 a list of schemas for the first places was called `items`, and the rest
        // `additionalItems`.
        let (first, rest) = match fields.get("items") {
            Some(Value::Array(first)) => (first.as_slice(), fields.get("additionalItems")),
            items => (
                fields
                    .get("prefixItems")
                    .and_then(Value::as_array)
                    .map_or(&[][..], Vec::as_slice),
                items,
            ),
        };
        let rest = rest.unwrap_or(ANY);
        let mut items = vec![];
        for (i, schema) in first.iter().enumerate().take(max.unwrap_or(usize::MAX)) {
            items.push(self.value(schema, &format!("{path}/prefixItems/{i}"))?);
        }
        let more = match self.value(rest, &child(path, "items")) {
            Ok(rule) => Some(rule),
            Err(fault) if fault.reason == NOTHING => None,
            Err(fault) => return Err(fault),
        };
        let max = max.unwrap_or(usize::MAX);
        if min > max || (more.is_none() && min > items.len()) {
            return Err(Fault::new(path, NOTHING));
        }
        Ok(self.lark.list(&items, more.as_deref(), min, max))
    }

    fn object(&mut self, fields: &Fields, path: &str) -> Result<String, Fault> {
        let empty = Fields::new();
        let named = fields
            .get("properties")
            .and_then(Value::as_object)
            .unwrap_or(&empty);
        let patterns = fields
            .get("patternProperties")
            .and_then(Value::as_object)
            .unwrap_or(&empty);
        let required: Vec<&str> = match fields.get("required") {
            None => vec![],
            Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
            Some(_) => return Err(Fault::new(child(path, "required"), "must be an array")),
        };
        let others = fields
            .get("additionalProperties")
            .unwrap_or(if named.is_empty() {
                ANY
            } else {
                &Value::Bool(false)
            });
        let mut names: Vec<&str> = named.keys().map(String::as_str).collect();
        names.extend(required.iter().filter(|name| !named.contains_key(**name)));
        names.sort_by_key(|name| name.to_lowercase());
        names.dedup();

        let mut items = vec![];
        for &name in &names {
            let must = required.contains(&name);
            let (schema, at) = match named.get(name) {
                Some(schema) => (schema, child(&child(path, "properties"), name)),
                None => (
                    fields.get("additionalProperties").unwrap_or(ANY),
                    child(path, "additionalProperties"),
                ),
            };
            if patterns.keys().any(|pattern| !pattern.is_empty()) && named.contains_key(name) {
                return Err(Fault::new(
                    child(path, "patternProperties"),
                    "is not supported beside `properties` for functions",
                ));
            }
            match self.value(schema, &at) {
                Ok(value) => items.push((format!("{} {value}", key(name)), must)),
                Err(fault) if fault.reason == NOTHING && !must => {}
                Err(fault) => return Err(fault),
            }
        }
        let mut free = vec![];
        let mut taken: Vec<String> = names.iter().map(|name| Lark::regex_of(name)).collect();
        for (pattern, schema) in patterns {
            let at = child(&child(path, "patternProperties"), pattern);
            let pattern =
                search(pattern).ok_or_else(|| Fault::new(at.as_str(), "has an anchor inside"))?;
            let value = self.value(schema, &at)?;
            free.push(format!(
                "{} \":\" {value}",
                self.lark.key(Some(&pattern), &taken)
            ));
            taken.push(pattern);
        }
        match self.value(others, &child(path, "additionalProperties")) {
            Ok(value) => free.push(format!("{} \":\" {value}", self.lark.key(None, &taken))),
            Err(fault) if fault.reason == NOTHING => {}
            Err(fault) => return Err(fault),
        }
        self.check_counts(
            fields,
            path,
            items.iter().filter(|(_, must)| *must).count(),
            items.len(),
            !free.is_empty(),
        )?;
        let free = (!free.is_empty()).then(|| self.lark.rule(free));
        Ok(self.lark.object(&items, free.as_deref()))
    }

    /// How many properties there are is not counted; it may be said where it follows from the rest.
    fn check_counts(
        &self,
        fields: &Fields,
        path: &str,
        least: usize,
        most: usize,
        open: bool,
    ) -> Result<(), Fault> {
        let min = count(fields, "minProperties", path)?.unwrap_or(0);
        let max = count(fields, "maxProperties", path)?.unwrap_or(usize::MAX);
        if min > least {
            return Err(Fault::new(
                child(path, "minProperties"),
                "is not supported for functions, unless as many are required",
            ));
        }
        if max < usize::MAX && (open || most > max) {
            return Err(Fault::new(
                child(path, "maxProperties"),
                "is not supported for functions, unless there are no more",
            ));
        }
        Ok(())
    }
}

/// Keywords that say what data must be, each with the kind of values that it speaks of.
const KINDS_OF_KEYWORDS: [(&str, &str); 27] = [
    ("$ref", ""),
    ("allOf", ""),
    ("anyOf", ""),
    ("oneOf", ""),
    ("type", ""),
    ("const", ""),
    ("enum", ""),
    ("minimum", "number"),
    ("maximum", "number"),
    ("exclusiveMinimum", "number"),
    ("exclusiveMaximum", "number"),
    ("multipleOf", "number"),
    ("minLength", "string"),
    ("maxLength", "string"),
    ("pattern", "string"),
    ("format", "string"),
    ("items", "array"),
    ("additionalItems", "array"),
    ("prefixItems", "array"),
    ("minItems", "array"),
    ("maxItems", "array"),
    ("properties", "object"),
    ("patternProperties", "object"),
    ("additionalProperties", "object"),
    ("required", "object"),
    ("minProperties", "object"),
    ("maxProperties", "object"),
];

/// `None` if nothing fits both.
fn both(fields: Option<Fields>, schema: &Value, path: &str) -> Result<Option<Fields>, Fault> {
    let Some(fields) = fields else {
        return Ok(None);
    };
    match schema {
        Value::Bool(true) => Ok(Some(fields)),
        Value::Object(other) => merge(&fields, other)
            .map(Some)
            .map_err(|reason| Fault::new(path, reason)),
        _ => Ok(None),
    }
}

/// The kinds of values that a schema allows.
fn kinds<'a>(fields: &'a Fields, path: &str) -> Result<Vec<&'a str>, Fault> {
    let names = match fields.get("type") {
        None => return Ok(KINDS.to_vec()),
        Some(Value::String(name)) => vec![name.as_str()],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        Some(_) => vec!["?"],
    };
    match names
        .iter()
        .find(|name| !KINDS.contains(name) && **name != "integer")
    {
        Some(_) => Err(Fault::new(
            child(path, "type"),
            format!("must be one of {} or integer", KINDS.join(", ")),
        )),
        None => Ok(names),
    }
}

fn is(value: &Value, kind: &str) -> bool {
    match value {
        Value::Null => kind == "null",
        Value::Bool(_) => kind == "boolean",
        Value::Number(number) => {
            kind == "number"
                || (kind == "integer"
                    && (!number.is_f64() || number.as_f64().is_some_and(|n| n.fract() == 0.0)))
        }
        Value::String(_) => kind == "string",
        Value::Array(_) => kind == "array",
        Value::Object(_) => kind == "object",
    }
}

/// One value as Gemma writes it.
fn literal(value: &Value) -> String {
    match value {
        Value::String(text) if text.is_empty() => format!("{0} {0}", marker::QUOTE),
        Value::String(text) => format!("{0} {1} {0}", marker::QUOTE, Lark::text(text)),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(literal).collect();
            format!("\"[\" {} \"]\"", items.join(" \",\" "))
        }
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| name.to_lowercase());
            let fields: Vec<String> = fields
                .into_iter()
                .map(|(name, value)| format!("{} {}", key(name), literal(value)))
                .collect();
            format!("\"{{\" {} \"}}\"", fields.join(" \",\" "))
        }
        other => Lark::text(&other.to_string()),
    }
}

/// A key with its colon: bare as the chat template writes it, or quoted where nobody could tell its
/// end.
fn key(name: &str) -> String {
    if call::is_bare_key(name) {
        return Lark::text(&format!("{name}:"));
    }
    format!("{} \":\"", literal(&name.into()))
}

fn count(fields: &Fields, name: &str, path: &str) -> Result<Option<usize>, Fault> {
    match fields.get(name) {
        None => Ok(None),
        Some(value) => match value.as_u64() {
            Some(count) => Ok(Some(usize::try_from(count).unwrap_or(usize::MAX))),
            None => Err(Fault::new(
                child(path, name),
                "must be a whole number, and not below zero",
            )),
        },
    }
}

/// The regular expression of texts in which `pattern` is found; `None` if an anchor is not at its
/// start or end.
fn search(pattern: &str) -> Option<String> {
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
