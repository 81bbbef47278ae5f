//! The `a{sv}` at the end of a call: each name is known, each value has its type.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};

use zbus::zvariant::{OwnedValue, Value};

use super::error::BusError;

/// Options that have not been looked at.
pub struct Options(HashMap<String, OwnedValue>);

impl Options {
    pub fn new(given: HashMap<String, OwnedValue>) -> Self {
        Self(given)
    }

    /// Takes an option out. Numbers of any integer type are one type to those who call.
    pub fn text(&mut self, name: &str) -> Result<Option<String>, BusError> {
        self.take(name, "a string", |value| match value {
            Value::Str(text) => Some(text.to_string()),
            _ => None,
        })
    }

    pub fn words(&mut self, name: &str) -> Result<Option<Vec<String>>, BusError> {
        self.take(name, "an array of strings", |value| match value {
            Value::Array(words) => words.iter().map(word).collect(),
            _ => None,
        })
    }

    pub fn switch(&mut self, name: &str) -> Result<Option<bool>, BusError> {
        self.take(name, "a boolean", |value| match value {
            Value::Bool(on) => Some(*on),
            _ => None,
        })
    }

    pub fn count(&mut self, name: &str) -> Result<Option<u32>, BusError> {
        self.take(name, "a number of 32 bits", |value| match value {
            Value::U32(n) => Some(*n),
            Value::I32(n) => (*n).try_into().ok(),
            Value::U64(n) => (*n).try_into().ok(),
            Value::I64(n) => (*n).try_into().ok(),
            _ => None,
        })
    }

    pub fn size(&mut self, name: &str) -> Result<Option<u64>, BusError> {
        self.take(name, "a number of 64 bits", |value| match value {
            Value::U32(n) => Some((*n).into()),
            Value::I32(n) => (*n).try_into().ok(),
            Value::U64(n) => Some(*n),
            Value::I64(n) => (*n).try_into().ok(),
            _ => None,
        })
    }

    pub fn number(&mut self, name: &str) -> Result<Option<f64>, BusError> {
        self.take(name, "a double", |value| match value {
            Value::F64(n) => Some(*n),
            _ => None,
        })
    }

    /// Descriptors; their own copies, closed by whoever drops them.
    pub fn files(&mut self, name: &str) -> Result<Vec<OwnedFd>, BusError> {
        let files = self.take(name, "an array of descriptors", |value| match value {
            Value::Array(files) => files.iter().map(own).collect(),
            _ => None,
        });
        Ok(files?.unwrap_or_default())
    }

    /// Refuses what nobody took.
    pub fn finish(self) -> Result<(), BusError> {
        match self.0.into_keys().min() {
            Some(name) => Err(BusError::InvalidRequest(format!(
                "there is no option {name:?} here"
            ))),
            None => Ok(()),
        }
    }

    fn take<T>(
        &mut self,
        name: &str,
        kind: &str,
        read: impl Fn(&Value<'_>) -> Option<T>,
    ) -> Result<Option<T>, BusError> {
        let Some(value) = self.0.remove(name) else {
            return Ok(None);
        };
        match read(&value) {
            Some(read) => Ok(Some(read)),
            None => Err(BusError::InvalidRequest(format!(
                "option `{name}` is of type {:?}; it must be {kind}",
                value.value_signature().to_string()
            ))),
        }
    }
}

fn word(value: &Value<'_>) -> Option<String> {
    match value {
        Value::Str(text) => Some(text.to_string()),
        _ => None,
    }
}

/// A copy of a descriptor that outlives the message.
fn own(value: &Value<'_>) -> Option<OwnedFd> {
    match value {
        Value::Fd(file) => file.as_fd().try_clone_to_owned().ok(),
        _ => None,
    }
}
