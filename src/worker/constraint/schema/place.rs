//! Where a reference leads within one document. Pure.

use std::collections::HashMap;

use serde_json::Value;

use super::child;

/// Schemas that have a name of their own.
const MAX_NAMED: usize = 10_000;
/// Schemas within each other that are looked through for names.
const MAX_DEPTH: usize = 200;

/// Keywords whose values are not schemas: names in them name nothing.
const DATA: [&str; 5] = ["const", "enum", "default", "example", "examples"];

/// The places of a document that references may name.
pub struct Places<'a> {
    root: &'a Value,
    /// By `$anchor`, `$dynamicAnchor`, `$id` and `id`, as pointers.
    named: HashMap<String, String>,
    /// The document's own address.
    base: &'a str,
}

impl<'a> Places<'a> {
    pub fn of(root: &'a Value) -> Self {
        let id = |name| root.get(name).and_then(Value::as_str);
        let base = id("$id").or_else(|| id("id")).unwrap_or_default();
        let mut places = Self {
            root,
            named: HashMap::new(),
            base: base.split('#').next().unwrap_or_default(),
        };
        places.look_through(root, String::new(), 0);
        places
    }

    fn look_through(&mut self, schema: &Value, path: String, depth: usize) {
        if depth > MAX_DEPTH || self.named.len() > MAX_NAMED {
            return;
        }
        match schema {
            Value::Object(fields) => {
                for name in ["$anchor", "$dynamicAnchor", "$id", "id"] {
                    let Some(Value::String(value)) = fields.get(name) else {
                        continue;
                    };
                    let key = if name.contains("nchor") {
                        format!("#{value}")
                    } else {
                        value.trim_end_matches('#').to_owned()
                    };
                    self.named.entry(key).or_insert_with(|| path.clone());
                }
                for (name, value) in fields {
                    if !DATA.contains(&name.as_str()) {
                        self.look_through(value, child(&path, name), depth + 1);
                    }
                }
            }
            Value::Array(list) => {
                for (i, value) in list.iter().enumerate() {
                    self.look_through(value, child(&path, &i.to_string()), depth + 1);
                }
            }
            _ => {}
        }
    }

    /// The schema that a reference names, and its pointer; `None` if it is not in the document.
    pub fn find(&self, reference: &str) -> Option<(String, &'a Value)> {
        let (address, fragment) = reference.split_once('#').unwrap_or((reference, ""));
        let start = if address.is_empty() || address == self.base {
            String::new()
        } else {
            self.address(address)?
        };
        let fragment = decode(fragment);
        let pointer = if fragment.is_empty() || fragment.starts_with('/') {
            start + &fragment
        } else {
            self.named.get(&format!("#{fragment}"))?.clone()
        };
        let pointer = pointer.trim_end_matches('/');
        Some((pointer.to_owned(), self.root.pointer(pointer)?))
    }

    /// The pointer of the schema that calls itself so, in full or from its base on.
    fn address(&self, address: &str) -> Option<String> {
        let folder = self.base.rfind('/').map_or("", |end| &self.base[..=end]);
        let full = format!("{folder}{address}");
        let short = address.strip_prefix(folder).unwrap_or(address);
        [address, &full, short]
            .iter()
            .find_map(|name| self.named.get(*name).cloned())
            .or_else(|| (full == self.base).then(String::new))
    }
}

/// A fragment without `%`.
fn decode(fragment: &str) -> String {
    let mut bytes = vec![];
    let mut rest = fragment.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let code = (byte == b'%')
            .then(|| std::str::from_utf8(after.get(..2)?).ok())
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match code {
            Some(code) => {
                bytes.push(code);
                rest = &after[2..];
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn references_lead_somewhere() {
        let root = json!({"$id": "http://example.com/root.json", "$defs": {
            "a/b": {"type": "null"}, "c%d": {"$anchor": "here"},
            "e": {"$id": "other.json", "$defs": {"x": true}}}});
        let places = Places::of(&root);
        for (reference, pointer) in [
            ("#", ""),
            ("#/", ""),
            ("root.json", ""),
            ("http://example.com/root.json#/$defs/a~1b", "/$defs/a~1b"),
            ("#/%24defs/c%25d", "/$defs/c%d"),
            ("#here", "/$defs/c%d"),
            ("other.json#/$defs/x", "/$defs/e/$defs/x"),
            ("http://example.com/other.json", "/$defs/e"),
        ] {
            let found = places.find(reference).map(|(pointer, _)| pointer);
            assert_eq!(found.as_deref(), Some(pointer), "{reference}");
        }
        assert!(places.find("#/$defs/none").is_none());
        assert!(places.find("http://example.com/else.json").is_none());
    }
}
