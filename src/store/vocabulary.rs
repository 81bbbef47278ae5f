//! Where a model file has its vocabulary.

use std::fs::File;
use std::path::Path;

use super::BadFile;
use super::gguf::{Array, Header, Patience, Value, ValueType};
use super::open::open;
use crate::gemma::TOKENIZER;
use crate::gemma::vocabulary::Place;

/// Tokens at most; the family has 262,144.
const TOKENS: u32 = 1 << 20;
/// Which tokens end something, by the keys that llama.cpp knows.
const ENDS: [&str; 3] = [
    "tokenizer.ggml.eos_token_id",
    "tokenizer.ggml.eot_token_id",
    "tokenizer.ggml.eom_token_id",
];

/// Which tokens must never be drawn.
const SUPPRESSED: &str = "tokenizer.ggml.suppress_tokens";

/// Opens a file for its vocabulary alone; it need not hold a model. Blocks on the disk.
pub fn read_vocabulary(path: &Path) -> Result<(Place, File), BadFile> {
    let (place, file, _) = open(path, Patience::default(), place)?;
    Ok((place, file))
}

pub(super) fn place(header: &Header) -> Result<Place, BadFile> {
    let found = header.need_str("tokenizer.ggml.model")?;
    if found != TOKENIZER {
        return Err(BadFile::OtherTokenizer {
            found: found.escape_debug().take(64).collect(),
        });
    }
    let list = |key: &'static str| match header.value(key) {
        Some(Value::Array(list)) => Ok(Some(list)),
        Some(_) => Err(unusable(format!("`{key}` is no list"))),
        None => Ok(None),
    };
    let texts = |key| {
        let list = list(key)?.ok_or_else(|| unusable(format!("`{key}` is missing")))?;
        if list.element == ValueType::Text {
            Ok(list)
        } else {
            Err(unusable(format!("`{key}` is no list of texts")))
        }
    };
    let range = |list: &Array| list.start..list.start + list.length;
    let tokens = texts("tokenizer.ggml.tokens")?;
    let kinds = list("tokenizer.ggml.token_type")?
        .filter(|list| matches!(list.element, ValueType::I32 | ValueType::U32));
    let suppressed = match list(SUPPRESSED)? {
        Some(list) => list
            .integers()
            .ok_or_else(|| unusable(format!("`{SUPPRESSED}` has {} tokens", list.count)))?
            .filter_map(|token| u32::try_from(token).ok())
            .collect(),
        None => vec![],
    };
    let mut ends = vec![];
    for key in ENDS {
        ends.extend(header.u32(key)?);
    }
    Ok(Place {
        count: u32::try_from(tokens.count)
            .ok()
            .filter(|count| (1..=TOKENS).contains(count))
            .ok_or_else(|| unusable(format!("has {} tokens", tokens.count)))?,
        texts: range(tokens),
        kinds: kinds.map(range),
        merges: range(texts("tokenizer.ggml.merges")?),
        begin: header.u32("tokenizer.ggml.bos_token_id")?,
        ends,
        suppressed,
    })
}

fn unusable(reason: String) -> BadFile {
    BadFile::Vocabulary { reason }
}

#[cfg(test)]
mod tests {
    use super::super::gguf::write;
    use super::*;

    #[test]
    fn the_lists_are_where_the_header_says() {
        let list = |texts: &[&str]| {
            texts
                .iter()
                .flat_map(|text| write::string(text.as_bytes()))
                .collect::<Vec<u8>>()
        };
        let with = |model| {
            let file = write::File::new()
                .text("tokenizer.ggml.model", model)
                .u32("tokenizer.ggml.bos_token_id", 2);
            file.u32("tokenizer.ggml.eos_token_id", 1).key(
                b"tokenizer.ggml.suppress_tokens",
                9,
                &write::list(5, 1, &7u32.to_le_bytes()),
            )
        };
        let tokens = |file: write::File| {
            file.key(
                b"tokenizer.ggml.tokens",
                9,
                &write::list(8, 2, &list(&["a", "bc"])),
            )
        };
        let bytes = tokens(with("gemma4"))
            .key(
                b"tokenizer.ggml.merges",
                9,
                &write::list(8, 1, &list(&["b c"])),
            )
            .bytes();
        let found = place(&write::header(&bytes)).unwrap();
        let at =
            |range: std::ops::Range<u64>| bytes[range.start as usize..range.end as usize].to_vec();
        assert_eq!(
            (at(found.texts.clone()), at(found.merges.clone())),
            (list(&["a", "bc"]), list(&["b c"]))
        );
        assert_eq!(
            found,
            Place {
                count: 2,
                begin: Some(2),
                ends: vec![1],
                suppressed: vec![7],
                kinds: None,
                ..found.clone()
            }
        );

        for (file, reason) in [
            (with("llama"), "a tokenizer `llama`"),
            (with("gemma4"), "`tokenizer.ggml.tokens` is missing"),
            (tokens(with("gemma4")), "`tokenizer.ggml.merges` is missing"),
            (with("gemma4").u32("tokenizer.ggml.tokens", 7), "is no list"),
            (
                with("gemma4").key(b"tokenizer.ggml.tokens", 9, &write::list(4, 1, &[0; 4])),
                "is no list of texts",
            ),
        ] {
            let error = place(&file.header()).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
