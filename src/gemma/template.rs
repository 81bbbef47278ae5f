//! Which chat template serves a file: its own, or the family's.

use sha2::{Digest, Sha256};

/// The family's template. One variable of its own: `small_variant` (E2B, E4B).
pub const FAMILY: &str = include_str!("gemma4.jinja");

/// Versions that Google has since corrected, by the SHA-256 of their text without white space at
/// its end. With them the model repeats calls, reads `None` for null and loses what it thought
/// between calls.
const OUTDATED: [&str; 5] = [
    // llama.cpp models/templates/google-gemma-4-31B-it.jinja, commit b8635075f, 2026-04-04
    "58c66fdee4afa29786fa0925a4c3659c8ebc28a2db93da6ae479d7d5886ce48f",
    // the same file, commit 3fc65063d, 2026-04-10
    "1d35a24a2a63cc600c0cab43628a6df4cd3318e959b03307cf5f9f7e29ecf783",
    // ollama model/renderers/testdata/gemma4_e2b_chat_template.jinja2, commit bf2a42172, 2026-04-13
    "781d10940fbc44be40064b5d43a056fc486c84ceaa55538226368b57314132bf",
    // the same file, commit c7c2837c9, 2026-04-29
    "33204f1acb5bd0002713e16a593847f24ceeafe711ed88bda2a352dc996a3373",
    // ollama model/renderers/testdata/gemma4_31b_chat_template.jinja2, commit c7c2837c9, 2026-04-29
    "94899c0f917d93f6fe81c95744d1e8ddab2d21d39228d2e4aec1fb2a25bff413",
];

/// Why a file's own template should not be used, as far as its text tells: it is a version known to
/// be outdated, or lacks what every current one has.
pub fn outdated(template: &str) -> Option<String> {
    let digest = hex(&Sha256::digest(template.trim_end().as_bytes()));
    if OUTDATED.contains(&digest.as_str()) {
        return Some("it is a version of April 2026, which Google has corrected since".into());
    }
    if !template.contains("<|tool_call>") {
        return Some("it cannot tell the model about functions".into());
    }
    // The results of calls reach older templates only in a form that no OpenAI client sends. The
    // comment is the first thing that tells the newer ones.
    (!template.contains("OpenAI Chat Completions:"))
        .then(|| "it is older than OpenAI's form of function results".into())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_family_template_is_current() {
        assert_eq!(outdated(FAMILY), None);
    }

    #[test]
    fn tells_outdated_templates() {
        let lacks = FAMILY.replace("OpenAI Chat Completions:", "");
        assert!(outdated(&lacks).is_some_and(|why| why.contains("older")));
        assert!(outdated("{{ messages[0].content }}").is_some_and(|why| why.contains("functions")));
    }
}
