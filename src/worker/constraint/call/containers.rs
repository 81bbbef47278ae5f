//! The rules of lists and objects. Pure.

use serde_json::Value;

use super::fields::{Fields, count};
use super::literal::key;
use super::scalars::search;
use super::{ANY, NOTHING, Writer};
use crate::worker::constraint::keywords::{Fault, child};
use crate::worker::constraint::lark::Lark;

impl Writer<'_> {
    pub(super) fn list(&mut self, fields: &Fields, path: &str) -> Result<String, Fault> {
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

    pub(super) fn object(&mut self, fields: &Fields, path: &str) -> Result<String, Fault> {
        let properties = Properties::of(fields, path)?;
        let named = self.named(&properties, path)?;
        let free = self.free(&properties, path)?;
        self.check_counts(
            fields,
            path,
            named.iter().filter(|(_, must)| *must).count(),
            named.len(),
            !free.is_empty(),
        )?;
        let free = (!free.is_empty()).then(|| self.lark.rule(free));
        Ok(self.lark.object(&named, free.as_deref()))
    }

    /// The properties that are listed or required, each with whether it must be there.
    fn named(
        &mut self,
        properties: &Properties<'_>,
        path: &str,
    ) -> Result<Vec<(String, bool)>, Fault> {
        let Properties {
            named,
            patterns,
            required,
            additional,
            names,
        } = properties;
        let mut items = vec![];
        for &name in names {
            let must = required.contains(&name);
            let (schema, at) = match named.and_then(|named| named.get(name)) {
                Some(schema) => (schema, child(&child(path, "properties"), name)),
                None => (
                    additional.unwrap_or(ANY),
                    child(path, "additionalProperties"),
                ),
            };
            if properties.lists(name) && patterns.iter().any(|(pattern, _)| !pattern.is_empty()) {
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
        Ok(items)
    }

    /// The properties that are not listed by their names.
    fn free(&mut self, properties: &Properties<'_>, path: &str) -> Result<Vec<String>, Fault> {
        let mut free = vec![];
        let names = properties.names.iter();
        let mut taken: Vec<String> = names.map(|name| Lark::regex_of(name)).collect();
        for (pattern, schema) in &properties.patterns {
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
        match self.value(properties.others(), &child(path, "additionalProperties")) {
            Ok(value) => free.push(format!("{} \":\" {value}", self.lark.key(None, &taken))),
            Err(fault) if fault.reason == NOTHING => {}
            Err(fault) => return Err(fault),
        }
        Ok(free)
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

/// What an object's schema says of its properties.
struct Properties<'a> {
    /// `properties`
    named: Option<&'a Fields>,
    /// `patternProperties`
    patterns: Vec<(&'a String, &'a Value)>,
    required: Vec<&'a str>,
    /// `additionalProperties`
    additional: Option<&'a Value>,
    /// What is named or required, in the order in which the model writes it.
    names: Vec<&'a str>,
}

impl<'a> Properties<'a> {
    fn of(fields: &'a Fields, path: &str) -> Result<Self, Fault> {
        let object = |name| fields.get(name).and_then(Value::as_object);
        let named = object("properties");
        let required: Vec<&str> = match fields.get("required") {
            None => vec![],
            Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
            Some(_) => return Err(Fault::new(child(path, "required"), "must be an array")),
        };
        let mut properties = Self {
            named,
            patterns: object("patternProperties").into_iter().flatten().collect(),
            required,
            additional: fields.get("additionalProperties"),
            names: named
                .into_iter()
                .flat_map(Fields::keys)
                .map(String::as_str)
                .collect(),
        };
        let required = properties.required.iter().copied();
        let others: Vec<_> = required.filter(|name| !properties.lists(name)).collect();
        let names = &mut properties.names;
        names.extend(others);
        names.sort_by_key(|name| name.to_lowercase());
        names.dedup();
        Ok(properties)
    }

    /// Whether `properties` has it.
    fn lists(&self, name: &str) -> bool {
        self.named.is_some_and(|named| named.contains_key(name))
    }

    /// What properties must be that are neither named nor of a pattern: nothing fits if the schema
    /// names some and does not speak of others.
    fn others(&self) -> &'a Value {
        let nothing_named = self.named.is_none_or(Fields::is_empty);
        let usual = if nothing_named {
            ANY
        } else {
            &Value::Bool(false)
        };
        self.additional.unwrap_or(usual)
    }
}
