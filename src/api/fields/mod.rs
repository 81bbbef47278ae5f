//! What is done with the fields of requests that a door does not act on: one table for all doors.
//! Pure.
//!
//! Clients send what other servers take: switches of samplers that are off, labels, hints for
//! caches and accounts. A field that would change the answer and is not understood is refused; one
//! that changes nothing, and one at a value that does, is taken. [`TABLE`] says which is which, and
//! `docs/fields.md` shows it to people; a test holds the two together.

mod table;
#[cfg(test)]
mod tests;

pub use table::TABLE;

use crate::api::parse::Invalid;
use crate::api::parse::json::{Json, Object};

/// Bytes of a value that is compared with a neutral one.
const MAX_COMPARED: usize = 512;

/// Where a field stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// In the body, or in an object of it (`options.num_ctx`).
    Request,
    /// In a message.
    Message,
    /// In a part of a message's content.
    Part,
}

/// What is done with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// It changes no answer, whatever it says.
    Neutral,
    /// It changes no answer at these values (JSON; numbers are compared as such), and is refused at
    /// others.
    NeutralAt(&'static [&'static str]),
    /// It has a meaning, and a door that has it takes it; the others refuse it.
    Meaning,
    /// It would change the answer, and that is not served.
    Refused,
}

/// One field.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    pub level: Level,
    /// With a dot for one of an object.
    pub name: &'static str,
    /// Whose field it is.
    pub of: &'static str,
    pub rule: Rule,
    /// Why, or what it means; for those that are refused the remedy, which continues the sentence
    /// "the field is not served here: …".
    pub why: &'static str,
}

/// Takes out of an object what changes no answer, after its door took what it has a meaning for.
///
/// # Errors
///
/// A field that is neutral only at other values, or one that is never served.
pub fn neutral(object: &mut Object, level: Level) -> Result<(), Invalid> {
    for (at, field) in TABLE.iter().enumerate() {
        if field.level != level {
            continue;
        }
        // llama.cpp has names with a dot in them.
        take(object, field.name, field)?;
        let Some((parent, _)) = field.name.split_once('.') else {
            continue;
        };
        // The first of a parent's fields speaks for all of them.
        let is_first = !TABLE[..at].iter().any(|other| is_of(other, parent));
        if is_first && let Some(value) = take_object(object, parent)? {
            members(value, parent)?;
        }
    }
    Ok(())
}

/// The fields of an object that a door has no meaning for.
fn members(mut object: Object, parent: &str) -> Result<(), Invalid> {
    for field in TABLE.iter().filter(|field| is_of(field, parent)) {
        let (_, member) = field.name.split_once('.').unwrap_or_default();
        take(&mut object, member, field)?;
    }
    object.finish()
}

/// Goes by the client's labels: what is left of a message or of a part of one is taken, unless it
/// has a meaning elsewhere, or looks like a name that was misspelt.
///
/// # Errors
///
/// Such a field.
pub fn labels(mut object: Object, level: Level) -> Result<(), Invalid> {
    neutral(&mut object, level)?;
    let here = TABLE.iter().filter(|field| field.level == level);
    for field in here.filter(|field| field.rule == Rule::Meaning) {
        match object.take_quietly(field.name) {
            Some(value)
                if !["\"\"", "[]", "{}", "false"]
                    .iter()
                    .any(|empty| is(&value, empty)) =>
            {
                return value.wrong("has no meaning here; leave it out");
            }
            _ => {}
        }
    }
    object.finish_openly()
}

/// Takes the neutral fields of an object that the door has taken apart itself.
pub fn neutral_members(object: &mut Object, parent: &str) -> Result<(), Invalid> {
    for field in TABLE.iter().filter(|field| is_of(field, parent)) {
        let (_, member) = field.name.split_once('.').unwrap_or_default();
        take(object, member, field)?;
    }
    Ok(())
}

/// The fields of the table that an object has which the door took apart itself.
pub fn given(object: &Object, parent: &str) -> Vec<&'static str> {
    let members = TABLE.iter().filter(|field| is_of(field, parent));
    let names = members.filter_map(|field| Some(field.name.split_once('.')?.1));
    names.filter(|name| object.peek(name).is_some()).collect()
}

fn is_of(field: &Field, parent: &str) -> bool {
    field
        .name
        .split_once('.')
        .is_some_and(|(of, _)| of == parent)
}

fn take_object<'a>(
    object: &mut Object<'a>,
    parent: &'static str,
) -> Result<Option<Object<'a>>, Invalid> {
    object.take(parent).map(|value| value.object()).transpose()
}

fn take(object: &mut Object, name: &'static str, field: &Field) -> Result<(), Invalid> {
    match field.rule {
        Rule::Meaning => Ok(()),
        Rule::Neutral => {
            object.take_quietly(name);
            Ok(())
        }
        Rule::NeutralAt(values) => match object.take_quietly(name) {
            Some(value) if !values.iter().any(|neutral| is(&value, neutral)) => {
                value.wrong(format!("can only be {}: {}", either(values), field.why))
            }
            _ => Ok(()),
        },
        Rule::Refused => match object.take_quietly(name) {
            Some(value) => value.wrong(format!("is not served here: {}", field.why)),
            None => Ok(()),
        },
    }
}

/// `1`, `1` or `2`, `1`, `2` or `3`.
fn either(values: &[&str]) -> String {
    match values {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// Whether a value is the one that `neutral` writes, however it is spaced and its numbers written.
fn is(value: &Json, neutral: &str) -> bool {
    let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
    value.raw().len() <= MAX_COMPARED
        && match (read(value.raw()), read(neutral)) {
            (Some(value), Some(neutral)) => same(&value, &neutral),
            _ => false,
        }
}

fn same(a: &serde_json::Value, b: &serde_json::Value) -> bool {
    match (a, b) {
        (serde_json::Value::Number(a), serde_json::Value::Number(b)) => a.as_f64() == b.as_f64(),
        _ => a == b,
    }
}
