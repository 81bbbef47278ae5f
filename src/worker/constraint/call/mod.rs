//! The grammar of a function call: what may follow `<|tool_call>`, in llguidance's dialect of Lark.
//! Pure.
//!
//! Gemma writes `call:NAME{key:value,…}<tool_call|>`, keys in alphabetical order as the chat
//! template has them, strings between two quote tokens and as they are, everything else like JSON.
//! Two things are narrower than the schema, for the sake of those who read the arguments: an object
//! with `properties` has no others unless `additionalProperties` says so, and numbers are such that
//! no reader loses digits.

mod containers;
mod fields;
mod literal;
mod scalars;

use serde_json::{Value, json};

use super::keywords::{Fault, child};
use super::lark::Lark;
use crate::gemma::{call, marker};
use fields::{Fields, KINDS_OF_KEYWORDS, both, is, kinds};
use literal::literal;

/// Schemas that a call's grammar is made of, with each reference that holds beside other keywords
/// followed anew.
const MAX_STEPS: usize = 4000;
/// Schemas that lead to one another.
const MAX_DEPTH: usize = 100;

/// What a name or a place in a list is, when it is not listed.
const ANY: &Value = &Value::Bool(true);

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
}
