//! What a model file says of itself, for people.

use std::path::Path;

use super::gguf::{Header, Value};
use super::open::open;
use super::{BadFile, Patience};

/// Keys that are told.
const KEYS: usize = 512;
/// Characters of a text that are told.
const SHOWN: usize = 400;
const TEMPLATE: &str = "tokenizer.chat_template";

/// The keys of a file's header, and its template.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// In the file's order; lists are counted, and long texts measured.
    pub keys: Vec<(String, String)>,
    /// Bytes of its chat template; `None`: it has none.
    pub template: Option<u64>,
}

/// Reads a file's header. Blocks on the disk.
///
/// # Errors
/// It is no GGUF file, or cannot be read.
pub fn metadata(path: &Path) -> Result<Metadata, BadFile> {
    let (found, ..) = open(path, Patience::default(), |header| Ok(told(header)))?;
    Ok(found)
}

fn told(header: &Header) -> Metadata {
    let keys = header.metadata().filter(|(key, _)| *key != TEMPLATE);
    let keys = keys
        .take(KEYS)
        .map(|(key, value)| (key.to_owned(), text(header, key, value)));
    let template = match header.value(TEMPLATE) {
        Some(Value::Text(text)) => Some(text.length),
        _ => None,
    };
    Metadata {
        keys: keys.collect(),
        template,
    }
}

fn text(header: &Header, key: &str, value: &Value) -> String {
    match value {
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Bool(truth) => truth.to_string(),
        Value::Array(list) => format!("a list of {}", list.count),
        Value::Text(whole) => match header.str(key) {
            Ok(Some(text)) if text.chars().count() <= SHOWN => text.to_owned(),
            _ => format!("a text of {} bytes", whole.length),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::gguf::write::File;
    use super::*;

    #[test]
    fn keys_are_told_in_their_order() {
        let file = File::new()
            .text("general.name", "Tiny")
            .u32("general.file_type", 7)
            .text("general.description", &"x".repeat(500))
            .text(TEMPLATE, "{{ x }}");
        let found = told(&file.header());
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let expected = [
            pair("general.name", "Tiny"),
            pair("general.file_type", "7"),
            pair("general.description", "a text of 500 bytes"),
        ];
        assert_eq!((found.keys, found.template), (expected.to_vec(), Some(7)));
    }
}
