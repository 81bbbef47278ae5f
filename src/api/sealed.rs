//! Texts that a client keeps and sends back without looking into them: thoughts that it did not
//! want to see, and summaries of conversations. Pure.
//!
//! They are its own and no secret: what is sealed is written in base64 behind a mark by which it is
//! recognised as the daemon's. Clients may not look into it; nothing is lost if they do.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// What the daemon's own begin with.
const MARK: &str = "gemmad1:";

/// A text, sealed.
pub fn seal(text: &str) -> String {
    format!("{MARK}{}", STANDARD.encode(text))
}

/// What was sealed here; `None` of anything else.
pub fn open(sealed: &str) -> Option<String> {
    let bytes = STANDARD.decode(sealed.strip_prefix(MARK)?).ok()?;
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_daemons_own_are_opened() {
        for text in ["", "a thought", "größe\n"] {
            assert_eq!(open(&seal(text)).as_deref(), Some(text));
        }
        for other in ["", "gAAAAABo", "gemmad1:!", "gemmad1:/w==", "Z2VtbWFk"] {
            assert_eq!(open(other), None, "{other}");
        }
    }
}
