//! What there is to know of each key, for manual pages: the commented sample says what it is for and
//! what holds without it, `keys` what it allows.

use super::keys::{Key, TABLES, Table};

/// Every key with its default, and what it is for in a comment above it.
const SAMPLE: &str = include_str!("../../systemd/gemmad.toml");

/// A table of `gemmad.toml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableReference {
    pub name: &'static str,
    /// Whether it is written once for each thing, as `[[name]]`.
    pub is_list: bool,
    pub keys: Vec<KeyReference>,
}

/// One key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyReference {
    pub name: &'static str,
    /// As it would be written in the file.
    pub default: &'static str,
    pub text: String,
    /// What may be written, as the end of a sentence.
    pub allowed: String,
}

/// How values are written, in paragraphs.
pub fn introduction() -> Vec<String> {
    let head = SAMPLE.split("\n[").next().unwrap_or_default();
    let paragraphs = head.split("\n#\n").map(joined);
    // The first ones are the file's title, and how a sample is used.
    paragraphs.skip(2).collect()
}

/// All keys, in the order of the sample.
pub fn reference() -> Vec<TableReference> {
    let table = |table: &'static Table| TableReference {
        name: table.name,
        is_list: table.list.is_some(),
        keys: table.keys.iter().map(|key| of_key(table, key)).collect(),
    };
    TABLES.iter().map(table).collect()
}

fn of_key(table: &'static Table, key: &'static Key) -> KeyReference {
    let body = match table.list {
        None => SAMPLE
            .split("\n[")
            .find_map(|part| part.strip_prefix(table.name)?.strip_prefix("]\n")),
        Some(_) => SAMPLE
            .split("\n#[[")
            .find_map(|part| part.strip_prefix(table.name)?.strip_prefix("]]\n")),
    };
    let body = body
        .unwrap_or_default()
        .split("\n#[[")
        .next()
        .unwrap_or_default();
    let of_key = |block: &'static str| {
        let (comment, value) = block.trim_end().rsplit_once("\n#")?;
        let default = value.strip_prefix(key.name)?.strip_prefix(" = ")?;
        Some((joined(comment), default))
    };
    let (text, default) = body.split("\n\n").find_map(of_key).unwrap_or_default();
    KeyReference {
        name: key.name,
        default,
        text,
        allowed: key.allowed(),
    }
}

/// A comment's lines as one paragraph.
fn joined(comment: &str) -> String {
    let lines = comment
        .lines()
        .map(|line| line.trim_start_matches('#').trim());
    lines.collect::<Vec<_>>().join(" ").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_described() {
        let tables = reference();
        assert_eq!(tables.len(), TABLES.len());
        for TableReference {
            name: table, keys, ..
        } in &tables
        {
            assert!(!keys.is_empty(), "{table}");
            for key in keys {
                let KeyReference {
                    name,
                    default,
                    text,
                    allowed,
                } = key;
                assert!(text.len() > 20 && text.ends_with('.'), "{name}: {text:?}");
                assert!(!text.contains('#'), "{name}: {text:?}");
                assert!(!default.is_empty() && !allowed.is_empty(), "{name}");
            }
        }
        let slots = tables[3].keys.iter().find(|key| key.name == "slots");
        let slots = slots.unwrap();
        assert_eq!(slots.default, "2");
        assert!(
            slots
                .text
                .starts_with("Requests that are answered at the same time")
        );
        assert_eq!(slots.allowed, "\"auto\" or a whole number from 1 to 64");
    }

    #[test]
    fn the_introduction_says_how_sizes_are_written() {
        let paragraphs = introduction();
        assert!(paragraphs[0].starts_with("`gemmactl config check` checks"));
        let sizes = paragraphs.iter().find(|text| text.contains("Sizes:"));
        assert!(sizes.unwrap().contains("Times:"), "{paragraphs:?}");
    }
}
