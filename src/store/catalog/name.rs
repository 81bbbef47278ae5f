//! What the names of files say. Pure.

use super::Role;
use super::check::file_name;
use crate::gemma::layout::MOST_FILES;
use crate::gemma::model_name::{normal, without_suffix};

/// Words that follow the first of a type of weights: `Q4_K_M`, `IQ2_XXS`, `Q8_0`.
const MORE: [&str; 11] = ["0", "1", "k", "s", "m", "l", "xs", "xl", "xxs", "xxl", "nl"];

/// The type of weights that a file's name tells, as [`normal`] writes it: `ud-q4-k-xl`.
pub fn quantization_of(path: &str) -> Option<String> {
    let name = normal(&without_suffix(file_name(path)).replace('.', "-"));
    let words: Vec<&str> = name.split('-').collect();
    let first = words.iter().rposition(|word| is_type(word))?;
    let more = words[first + 1..]
        .iter()
        .take_while(|word| MORE.contains(word))
        .count();
    let start = match first.checked_sub(1) {
        Some(before) if words[before] == "ud" => before,
        _ => first,
    };
    Some(words[start..=first + more].join("-"))
}

/// `q4`, `iq4`, `bf16`, `f16`, `mxfp4`, `tq1`
fn is_type(word: &str) -> bool {
    ["iq", "tq", "q", "bf", "f", "mxfp", "nvfp", "fp"]
        .iter()
        .filter_map(|kind| word.strip_prefix(kind))
        .any(|digits| matches!(digits.len(), 1..=2) && digits.bytes().all(|b| b.is_ascii_digit()))
}

/// Whether a client's word for a type of weights means this one; `Q4_K_XL` means `UD-Q4_K_XL` as well.
pub fn is_meant(asked: &str, quantization: &str) -> bool {
    let (asked, quantization) = (normal(asked), normal(quantization));
    asked == quantization || quantization.strip_prefix("ud-") == Some(&asked)
}

/// What a file is by its name, if it is one that a model needs.
pub fn role_of(path: &str) -> Option<Role> {
    let name = normal(&without_suffix(file_name(path)).replace('.', "-"));
    let has = |wanted: &[&str]| name.split('-').any(|word| wanted.contains(&word));
    if has(&["imatrix", "lora", "adapter", "vocab"]) {
        return None;
    }
    if has(&["mmproj"]) {
        return Some(Role::Projector);
    }
    match has(&["mtp", "assistant", "draft", "drafter"]) {
        true => Some(Role::Drafter),
        false => Some(Role::Model),
    }
}

/// Of a part of a model that was cut into several: the name without its number, which it is, and how many there are.
pub fn part_of(path: &str) -> Option<(&str, u32, u32)> {
    let stem = without_suffix(path);
    let (rest, of) = stem.rsplit_once("-of-")?;
    let (name, number) = rest.rsplit_once('-')?;
    let digits = |text: &str| {
        let plain = text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| text.parse().ok()).flatten()
    };
    Some((name, digits(number)?, digits(of)?))
}

/// What a part is called.
pub fn part_name(whole: &str, number: u32, of: u32) -> String {
    format!("{whole}-{number:05}-of-{of:05}.gguf")
}

/// The names of all parts of a model, by that of one of them. `None`: a file is named like no part, or like one of more parts than
/// a model may have.
pub fn all_parts(path: &str) -> Option<Vec<String>> {
    let (whole, number, of) = part_of(path)?;
    let can_be = (1..=of).contains(&number) && of as usize <= MOST_FILES;
    can_be.then(|| {
        (1..=of)
            .map(|number| part_name(whole, number, of))
            .collect()
    })
}

/// Whether a file is a model's first part, or all of it.
pub fn is_first(path: &str) -> bool {
    part_of(path).is_none_or(|(_, number, _)| number == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_found_wherever_they_stand() {
        for (name, expected) in [
            ("gemma-4-E2B_q4_0-it.gguf", Some("q4-0")),
            ("gemma-4-E2B-it-qat-UD-Q4_K_XL.gguf", Some("ud-q4-k-xl")),
            ("gemma-4-12b-it-qat-q4_0.gguf", Some("q4-0")),
            ("MTP/mtp-gemma-4-31B-it-Q8_0.gguf", Some("q8-0")),
            ("mmproj-BF16.gguf", Some("bf16")),
            ("gemma-4-E4B-it.Q4_K_M.gguf", Some("q4-k-m")),
            ("x-IQ2_XXS-00001-of-00002.gguf", Some("iq2-xxs")),
            ("gemma-4-E2B-it.gguf", None),
            ("q.gguf", None),
        ] {
            assert_eq!(quantization_of(name).as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn roles_and_parts_are_told_by_names() {
        for (name, role) in [
            ("mmproj-F16.gguf", Some(Role::Projector)),
            ("gemma-4-E2B-it-mmproj.gguf", Some(Role::Projector)),
            ("MTP/mtp-gemma-4-E2B-it-Q4_0.gguf", Some(Role::Drafter)),
            ("gemma-4-E4B-it-assistant.Q8_0.gguf", Some(Role::Drafter)),
            ("imatrix.gguf", None),
            ("gemma-4-E2B-it-Q4_0.gguf", Some(Role::Model)),
        ] {
            assert_eq!(role_of(name), role, "{name}");
        }
        assert_eq!(part_of("d/x-00002-of-00003.gguf"), Some(("d/x", 2, 3)));
        assert_eq!(part_of("x-2-of-3.gguf"), None);
        assert_eq!(part_of("x.gguf"), None);
        let both = ["x-00001-of-00002.gguf", "x-00002-of-00002.gguf"];
        assert_eq!(all_parts(both[1]).unwrap(), both);
        for none in [
            "x.gguf",
            "x-00003-of-00002.gguf",
            "x-00000-of-00002.gguf",
            "x-00001-of-00099.gguf",
        ] {
            assert_eq!(all_parts(none), None, "{none}");
        }
    }

    #[test]
    fn a_type_is_meant_in_any_spelling() {
        assert!(is_meant("q4_k_xl", "UD-Q4_K_XL") && is_meant("UD-q4-K-xl", "UD-Q4_K_XL"));
        assert!(!is_meant("Q4_K", "Q4_K_M") && !is_meant("ud-q4_0", "Q4_0"));
    }
}
