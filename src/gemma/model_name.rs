//! What a name that is no model's own says of the model that is meant. Pure.

use super::variant::Variant;

/// Words that all of the family's files carry, or that say nothing to tell them apart.
const IDLE: [&str; 5] = ["it", "instruct", "gguf", "latest", "qat"];

/// A name in one of the usual spellings: `gemma-4-e2b`, `gemma4:e2b-it-q4_K_M` (Ollama),
/// `google/gemma-4-26b-a4b-it` and `ggml-org/gemma-4-E2B-it-GGUF:Q8_0` (Hugging Face), `e2b`,
/// `gemma4`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelName {
    /// `None`: any of the family.
    pub variant: Option<Variant>,
    /// The weights' type, as [`normal`] writes it; `None`: any.
    pub quantization: Option<String>,
}

impl ModelName {
    /// What a name says; `None` if it speaks of something else.
    pub fn parse(name: &str) -> Option<Self> {
        let name = name.trim().rsplit(['/', '\\']).next().unwrap_or_default();
        let name = normal(without_suffix(name));
        let family = ["gemma-4", "gemma4", "gemma"]
            .iter()
            .find_map(|family| name.strip_prefix(family))
            .filter(|rest| rest.is_empty() || rest.starts_with('-'));
        let mut words: Vec<&str> = family.unwrap_or(&name).split('-').collect();
        words.retain(|word| !word.is_empty() && !IDLE.contains(word));
        let variant = words.first().and_then(|word| size(word));
        if variant.is_some() {
            words.remove(0);
            if variant == Some(Variant::B26A4b) && words.first() == Some(&"a4b") {
                words.remove(0);
            }
        }
        if family.is_none() && variant.is_none() {
            return None;
        }
        let quantization = words.join("-");
        match (quantization.is_empty(), is_quantization(&quantization)) {
            (true, _) => Some(Self {
                variant,
                quantization: None,
            }),
            (false, true) => Some(Self {
                variant,
                quantization: Some(quantization),
            }),
            (false, false) => None,
        }
    }
}

/// A file's name without what says that it is a model's.
pub fn without_suffix(name: &str) -> &str {
    match name.len().checked_sub(".gguf".len()) {
        Some(at)
            if name
                .get(at..)
                .is_some_and(|end| end.eq_ignore_ascii_case(".gguf")) =>
        {
            &name[..at]
        }
        _ => name,
    }
}

/// A name without Ollama's tag for the one that is meant if none is named.
pub fn untagged(name: &str) -> &str {
    const LATEST: &str = ":latest";
    let cut = name.len().checked_sub(LATEST.len());
    match cut.and_then(|at| name.split_at_checked(at)) {
        Some((name, tag)) if tag.eq_ignore_ascii_case(LATEST) => name,
        _ => name,
    }
}

/// Small letters, and words that are separated in one way: `q4_K_M` and `Q4-K-M` are the same.
pub fn normal(name: &str) -> String {
    name.to_lowercase().replace([':', '_', ' ', '@'], "-")
}

fn size(word: &str) -> Option<Variant> {
    Some(match word {
        "e2b" => Variant::E2b,
        "e4b" => Variant::E4b,
        "12b" => Variant::B12,
        "26b" => Variant::B26A4b,
        "31b" => Variant::B31,
        _ => return None,
    })
}

/// Whether this looks like a type of weights: `q4-k-m`, `iq4-nl`, `bf16`, `ud-q4-k-xl`.
fn is_quantization(text: &str) -> bool {
    let text = text.strip_prefix("ud-").unwrap_or(text);
    let digits = ["iq", "q", "bf", "f", "mxfp", "fp"]
        .iter()
        .find_map(|kind| text.strip_prefix(kind));
    digits.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_spellings() {
        for (name, variant, quantization) in [
            ("e2b", Some(Variant::E2b), None),
            ("E4B", Some(Variant::E4b), None),
            ("gemma4", None, None),
            ("gemma-4", None, None),
            ("Gemma 4", None, None),
            ("gemma4:latest", None, None),
            ("gemma4:e2b", Some(Variant::E2b), None),
            ("gemma4:26b", Some(Variant::B26A4b), None),
            ("google/gemma-4-E2B-it", Some(Variant::E2b), None),
            ("google/gemma-4-26b-a4b-it", Some(Variant::B26A4b), None),
            ("gemma-4-E2B-it.gguf", Some(Variant::E2b), None),
            ("/models/gemma-4-e4b.GGUF", Some(Variant::E4b), None),
            ("gemma4:e2b-it-q4_K_M", Some(Variant::E2b), Some("q4-k-m")),
            (
                "ggml-org/gemma-4-E2B-it-GGUF:Q8_0",
                Some(Variant::E2b),
                Some("q8-0"),
            ),
            (
                "gemma-4-31B-it-qat-q4_0-gguf",
                Some(Variant::B31),
                Some("q4-0"),
            ),
            ("gemma4:q4_0", None, Some("q4-0")),
        ] {
            let expected = ModelName {
                variant,
                quantization: quantization.map(str::to_owned),
            };
            assert_eq!(ModelName::parse(name), Some(expected), "{name}");
        }
    }

    #[test]
    fn the_tag_that_says_nothing_is_left_out() {
        for (name, bare) in [
            ("tiny-e2b:latest", "tiny-e2b"),
            ("Mine.gguf:LATEST", "Mine.gguf"),
            ("gemma4:e2b", "gemma4:e2b"),
            ("latest", "latest"),
            ("größe:latest", "größe"),
            ("lateßt", "lateßt"),
            (":latest", ""),
        ] {
            assert_eq!(untagged(name), bare, "{name}");
        }
    }

    #[test]
    fn what_speaks_of_something_else() {
        for name in [
            "",
            "gpt-4o",
            "gemma-3-4b",
            "gemma3",
            "gemma-4-e9b",
            "gemma-4-e2b-mine",
            "e2bx",
            "gemmax",
            "q4_0",
            "models",
            "Моя модель",
            "é.gguf",
        ] {
            assert_eq!(ModelName::parse(name), None, "{name}");
        }
        assert_eq!(without_suffix("é.gguf"), "é");
        assert_eq!(without_suffix("gguf"), "gguf");
    }
}
