//! JSON that breaks off: what a token limit left of a call's arguments. Pure.

use super::json::check_object;

/// An object that breaks off, closed where it does: with all that is certain to have been said. A
/// name without its value, and a word that is no value yet, are left out. `None` if it does not
/// begin an object, or is none for another reason.
pub fn closed(text: &str) -> Option<String> {
    // A number that ends like this could go on.
    let number = text.trim_end_matches(['-', '+', '.', 'e', 'E']);
    let is_begun = text.trim_ascii_start().starts_with('{');
    if !is_begun || !(breaks_off(text) || breaks_off(number)) {
        return None;
    }
    let Ends { all, certain } = Ends::of(text);
    [all, Ends::of(number).all, certain]
        .into_iter()
        .find(|closed| check_object(closed).is_ok())
}

/// Whether the text is JSON as far as it goes, and ends too early.
fn breaks_off(text: &str) -> bool {
    let read = serde_json::from_str::<serde::de::IgnoredAny>(text);
    read.is_err_and(|error| error.is_eof())
}

/// Two ways to close a text.
struct Ends {
    /// Everything, with the string that is open closed.
    all: String,
    /// To the last place where a value is complete.
    certain: String,
}

impl Ends {
    fn of(text: &str) -> Self {
        let (mut open, mut in_string, mut escape) = (vec![], false, None);
        // How far the text goes, and what closes it there.
        let mut certain = (0, vec![]);
        for (at, byte) in text.bytes().enumerate() {
            if in_string {
                match (escape, byte) {
                    // `\u` has four digits behind it.
                    (Some(begin), _) => {
                        let length = if text.as_bytes()[begin + 1] == b'u' {
                            5
                        } else {
                            1
                        };
                        if at - begin == length {
                            escape = None;
                        }
                    }
                    (None, b'\\') => escape = Some(at),
                    (None, b'"') => in_string = false,
                    (None, _) => {}
                }
                continue;
            }
            match byte {
                b'"' => in_string = true,
                b'{' | b'[' => {
                    open.push(if byte == b'{' { b'}' } else { b']' });
                    certain = (at + 1, open.clone());
                }
                b'}' | b']' => {
                    open.pop();
                    certain = (at + 1, open.clone());
                }
                b',' => certain = (at, open.clone()),
                _ => {}
            }
        }
        let end = escape.filter(|_| in_string).unwrap_or(text.len());
        let string = if in_string { "\"" } else { "" };
        Self {
            all: close(&format!("{}{string}", &text[..end]), &open),
            certain: close(&text[..certain.0], &certain.1),
        }
    }
}

fn close(text: &str, open: &[u8]) -> String {
    let ends = open.iter().rev().map(|byte| char::from(*byte));
    text.chars().chain(ends).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_is_kept() {
        for (text, expected) in [
            (r#"{"room":"kitchen""#, r#"{"room":"kitchen"}"#),
            (r#"{"room":"kit"#, r#"{"room":"kit"}"#),
            (r#"{"room":"k\"#, r#"{"room":"k"}"#),
            (r#"{"room":"k\u00"#, r#"{"room":"k"}"#),
            (r#"{"room":"k\\"#, r#"{"room":"k\\"}"#),
            (r#"{"room":"k","sta"#, r#"{"room":"k"}"#),
            (r#"{"room":"k","state""#, r#"{"room":"k"}"#),
            (r#"{"room":"k","state":"#, r#"{"room":"k"}"#),
            (r#"{"a":[1,{"b":"c"#, r#"{"a":[1,{"b":"c"}]}"#),
            (r#"{"a":[1,"#, r#"{"a":[1]}"#),
            (r#"{"a":{"b":{}"#, r#"{"a":{"b":{}}}"#),
            (r#"{"a":1,"b":tr"#, r#"{"a":1}"#),
            (r#"{"a":12"#, r#"{"a":12}"#),
            (r#"{"a":1."#, r#"{"a":1}"#),
            (r#"{"a":true"#, r#"{"a":true}"#),
            (r#"{"a":-"#, "{}"),
            (r#"{"a":"1."#, r#"{"a":"1."}"#),
            (r#"{"#, "{}"),
            (r#"{"a"#, "{}"),
            (r#"{"a":"}{][,"#, r#"{"a":"}{][,"}"#),
        ] {
            assert_eq!(closed(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_otherwise_stays_so() {
        for text in [
            "",
            "x",
            "[1",
            "7",
            r#"{a:1"#,
            r#"{"a":1}}"#,
            r#"{"a":1} x"#,
            r#"{"a" 1"#,
        ] {
            assert_eq!(closed(text), None, "{text}");
        }
    }

    proptest::proptest! {
        /// However an object is cut, something of it is left.
        #[test]
        fn any_cut_can_be_closed(at in 1usize..70) {
            let whole = r#"{"a":"é\n\u00e9","b":[1,-2.5e3,true,null,{"c":{"d":[]}}],"e":"x\\\"y"}"#;
            if let Some(text) = whole.get(..at) {
                proptest::prop_assert!(closed(text).is_some(), "{}", text);
            }
        }
    }
}
