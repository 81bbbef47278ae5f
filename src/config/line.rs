//! Text that others wrote, in a line of ours. Pure.

use std::borrow::Cow;

/// `text` with everything escaped that could end a line, begin another, or have a terminal show
/// something else than is there: control characters, separators of lines and paragraphs, and what
/// turns the direction of writing.
pub fn one_line(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return text.into();
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_unsafe(c) {
            escaped.extend(c.escape_default());
        } else {
            escaped.push(c);
        }
    }
    escaped.into()
}

fn is_unsafe(c: char) -> bool {
    let turns = ['\u{200e}', '\u{200f}', '\u{061c}'].contains(&c)
        || ('\u{202a}'..='\u{202e}').contains(&c)
        || ('\u{2066}'..='\u{2069}').contains(&c);
    c.is_control() || turns || c == '\u{2028}' || c == '\u{2029}'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_a_line_or_hides_text_is_escaped() {
        for (text, line) in [
            ("Модель 4.gguf", "Модель 4.gguf"),
            ("x\n<3>gemmad: evil", "x\\n<3>gemmad: evil"),
            ("a\r\tb", "a\\r\\tb"),
            ("\u{1b}[2Kx\u{7f}", "\\u{1b}[2Kx\\u{7f}"),
            ("\u{85}\u{9b}", "\\u{85}\\u{9b}"),
            ("\u{2028}\u{202e}fugg", "\\u{2028}\\u{202e}fugg"),
        ] {
            assert_eq!(one_line(text), line);
        }
    }
}
