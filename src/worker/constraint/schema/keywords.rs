//! Values of keywords, taken as what they must be. Pure.

use std::rc::Rc;

use serde_json::{Map, Value};

use super::{Decimal, Fault, child};

/// The keywords of one schema, and where it stands.
pub struct Keywords<'a> {
    pub fields: &'a Map<String, Value>,
    pub path: Rc<str>,
}

impl<'a> Keywords<'a> {
    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.fields.get(name)
    }

    /// Where a keyword stands.
    pub fn at(&self, name: &str) -> String {
        child(&self.path, name)
    }

    pub fn wrong(&self, name: &str, must: &str) -> Fault {
        Fault::new(self.at(name), format!("must be {must}"))
    }

    /// A number of characters, items or properties.
    pub fn count(&self, name: &str) -> Result<Option<usize>, Fault> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let whole = match value {
            Value::Number(number) => number.as_u64().or_else(|| {
                let number = number.as_f64()?;
                (number >= 0.0 && number.fract() == 0.0).then_some(number as u64)
            }),
            _ => None,
        };
        match whole {
            Some(count) => Ok(Some(usize::try_from(count).unwrap_or(usize::MAX))),
            None => Err(self.wrong(name, "a whole number, and not below zero")),
        }
    }

    pub fn number(&self, name: &str) -> Result<Option<Decimal>, Fault> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Number(number)) => match Decimal::of(number) {
                Some(number) => Ok(Some(number)),
                None => Err(self.wrong(name, "a number of fewer digits")),
            },
            Some(_) => Err(self.wrong(name, "a number")),
        }
    }

    pub fn text(&self, name: &str) -> Result<Option<&'a str>, Fault> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(name, "a string")),
        }
    }

    pub fn list(&self, name: &str) -> Result<Option<&'a [Value]>, Fault> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Array(list)) => Ok(Some(list)),
            Some(_) => Err(self.wrong(name, "an array")),
        }
    }

    pub fn object(&self, name: &str) -> Result<Option<&'a Map<String, Value>>, Fault> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Object(named)) => Ok(Some(named)),
            Some(_) => Err(self.wrong(name, "an object")),
        }
    }

    pub fn is_true(&self, name: &str) -> bool {
        self.get(name) == Some(&Value::Bool(true))
    }
}
