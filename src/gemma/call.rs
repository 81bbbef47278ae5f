//! Function calls as the model writes them: `call:NAME{key:value,…}`, where a string stands between two quote
//! tokens and everything else looks like JSON with bare keys.

use super::marker;
use crate::chat::ToolCall;

/// Objects and lists within each other.
pub const MAX_DEPTH: usize = 64;
/// Bytes of one call. What is longer is delivered as text.
pub const MAX_BYTES: usize = 1 << 20;
/// Bytes of a function's name, as everywhere.
const MAX_NAME: usize = 64;

/// A call that is being written: its text with the markers spelled out, and where real quote tokens are, since
/// a string may spell them too.
#[derive(Debug, Default)]
pub struct Draft {
    raw: String,
    quotes: Vec<usize>,
    broken: bool,
}

impl Draft {
    pub fn text(&mut self, text: &str) {
        self.raw.push_str(text);
    }

    /// Takes a control token. Only the quote has a place inside a call.
    pub fn control(&mut self, text: &str) {
        if text == marker::QUOTE {
            self.quotes.push(self.raw.len());
        } else {
            self.broken = true;
        }
        self.raw.push_str(text);
    }

    pub fn is_too_long(&self) -> bool {
        self.raw.len() > MAX_BYTES
    }

    /// The text between the call's markers, as it was written.
    pub fn into_raw(self) -> String {
        self.raw
    }

    /// The call, or nothing if it is malformed.
    pub fn parse(&self) -> Option<ToolCall> {
        if self.broken {
            return None;
        }
        let mut reader = Reader { raw: &self.raw, at: 0, quotes: &self.quotes, json: String::with_capacity(self.raw.len()) };
        reader.space();
        reader.take("call:")?;
        let name = reader.until(|c| c == '{').trim();
        if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')) {
            return None;
        }
        reader.object(1)?;
        reader.space();
        (reader.at == self.raw.len()).then(|| ToolCall { id: String::new(), name: name.to_owned(), arguments: reader.json })
    }
}

/// Reads the arguments and writes them as JSON.
struct Reader<'a> {
    raw: &'a str,
    at: usize,
    /// Quote tokens not passed yet.
    quotes: &'a [usize],
    json: String,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.raw[self.at..]
    }

    /// Whether a real quote token stands here.
    fn at_quote(&self) -> bool {
        self.quotes.first() == Some(&self.at)
    }

    fn space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len();
    }

    fn take(&mut self, text: &str) -> Option<()> {
        (!self.at_quote() && self.rest().starts_with(text)).then(|| self.at += text.len())
    }

    /// Text up to a character, the next quote token or the end.
    fn until(&mut self, end: impl Fn(char) -> bool) -> &'a str {
        let limit = self.quotes.first().copied().unwrap_or(self.raw.len());
        let span = &self.raw[self.at..limit];
        let span = &span[..span.find(end).unwrap_or(span.len())];
        self.at += span.len();
        span
    }

    /// A string between two quote tokens.
    fn quoted(&mut self) -> Option<&'a str> {
        let [open, close, later @ ..] = self.quotes else { return None };
        let text = &self.raw[open + marker::QUOTE.len()..*close];
        self.quotes = later;
        self.at = close + marker::QUOTE.len();
        Some(text)
    }

    fn value(&mut self, depth: usize) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        if self.at_quote() {
            let text = self.quoted()?;
            write_string(&mut self.json, text);
            return Some(());
        }
        match self.rest().as_bytes().first()? {
            b'{' => self.object(depth),
            b'[' => self.list(depth),
            _ => {
                let word = self.until(|c| matches!(c, ',' | '}' | ']' | ' ' | '\t' | '\n' | '\r'));
                (matches!(word, "true" | "false" | "null") || is_number(word)).then(|| self.json.push_str(word))
            }
        }
    }

    fn object(&mut self, depth: usize) -> Option<()> {
        self.take("{")?;
        self.json.push('{');
        self.space();
        if self.take("}").is_none() {
            loop {
                self.key()?;
                self.value(depth + 1)?;
                self.space();
                if self.take("}").is_some() {
                    break;
                }
                self.take(",")?;
                self.json.push(',');
                self.space();
            }
        }
        self.json.push('}');
        Some(())
    }

    fn key(&mut self) -> Option<()> {
        let key = if self.at_quote() {
            self.quoted()?
        } else {
            let key = self.until(|c| matches!(c, ':' | ',' | '{' | '}' | '[' | ']' | '\n')).trim();
            (!key.is_empty()).then_some(key)?
        };
        write_string(&mut self.json, key);
        self.space();
        self.take(":")?;
        self.json.push(':');
        self.space();
        Some(())
    }

    fn list(&mut self, depth: usize) -> Option<()> {
        self.take("[")?;
        self.json.push('[');
        self.space();
        if self.take("]").is_none() {
            loop {
                self.value(depth + 1)?;
                self.space();
                if self.take("]").is_some() {
                    break;
                }
                self.take(",")?;
                self.json.push(',');
                self.space();
            }
        }
        self.json.push(']');
        Some(())
    }
}

/// Whether JSON has such a number.
fn is_number(word: &str) -> bool {
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let word = word.strip_prefix('-').unwrap_or(word);
    let (word, exponent) = word.split_once(['e', 'E']).map_or((word, None), |(w, e)| (w, Some(e)));
    let (whole, fraction) = word.split_once('.').map_or((word, None), |(w, f)| (w, Some(f)));
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(|e| digits(e.strip_prefix(['+', '-']).unwrap_or(e)))
}

fn write_string(json: &mut String, text: &str) {
    json.push('"');
    for c in text.chars() {
        match c {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '\n' => json.push_str("\\n"),
            '\r' => json.push_str("\\r"),
            '\t' => json.push_str("\\t"),
            c if c < ' ' => json.push_str(&format!("\\u{:04x}", c as u32)),
            c => json.push(c),
        }
    }
    json.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `«` and `»` as the quote token.
    fn draft(text: &str) -> Draft {
        let mut draft = Draft::default();
        for c in text.chars() {
            match c {
                '«' | '»' => draft.control(marker::QUOTE),
                c => draft.text(c.encode_utf8(&mut [0; 4])),
            }
        }
        draft
    }

    #[test]
    fn well_formed_calls() {
        for (text, name, json) in [
            ("call:f{}", "f", "{}"),
            (" call:get_time { } \n", "get_time", "{}"),
            ("call:a.b-c{city:«Köln»}", "a.b-c", r#"{"city":"Köln"}"#),
            ("call:f{z:1,a:-2.5e+3,t:true,n:null}", "f", r#"{"z":1,"a":-2.5e+3,"t":true,"n":null}"#),
            ("call:f{«quoted key»:«v»}", "f", r#"{"quoted key":"v"}"#),
            ("call:f{s:«a \"b\" \\ {x:1}, [c]: \n\t\u{1}😀»}", "f", "{\"s\":\"a \\\"b\\\" \\\\ {x:1}, [c]: \\n\\t\\u0001😀\"}"),
            ("call:f{o:{p:{q:[1,[2,«x»],{}]}},l:[]}", "f", r#"{"o":{"p":{"q":[1,[2,"x"],{}]}},"l":[]}"#),
            ("call:f{ a : 1 , b : [ 1 , 2 ] }", "f", r#"{"a":1,"b":[1,2]}"#),
            ("call:f{s:«<|\"|>»}", "f", r#"{"s":"<|\"|>"}"#),
            ("call:f{n:123456789012345678901234567890}", "f", r#"{"n":123456789012345678901234567890}"#),
            ("call:f{e:«»}", "f", r#"{"e":""}"#),
        ] {
            let call = draft(text).parse().unwrap_or_else(|| panic!("{text}"));
            assert_eq!((call.name.as_str(), call.arguments.as_str()), (name, json), "{text}");
            serde_json::from_str::<serde_json::Value>(&call.arguments).unwrap_or_else(|e| panic!("{text}: {e}"));
        }
    }

    #[test]
    fn malformed_calls() {
        for text in [
            "",
            "call:",
            "call:f",
            "call:{}",
            "call:two words{}",
            "f{}",
            "call:f{",
            "call:f{}x",
            "call:f{a}",
            "call:f{a:}",
            "call:f{a:1,}",
            "call:f{,}",
            "call:f{:1}",
            "call:f{a:word}",
            "call:f{a:01}",
            "call:f{a:1.}",
            "call:f{a:+1}",
            "call:f{a:1e}",
            "call:f{a:NaN}",
            "call:f{a:[1}",
            "call:f{a:[1,]}",
            "call:f{a:«x}",
            "call:f{a:«x»y}",
            "call:f{a:«x»«y»}",
            "call:f{a:<|\"|>x<|\"|>}",
            "call:«f»{}",
        ] {
            assert_eq!(draft(text).parse(), None, "{text}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |n: usize| format!("call:f{{a:{}{}}}", "[".repeat(n), "]".repeat(n));
        assert!(draft(&nested(MAX_DEPTH - 1)).parse().is_some());
        assert!(draft(&nested(MAX_DEPTH)).parse().is_none());
        assert!(draft(&nested(100_000)).parse().is_none());
    }
}
