//! Function calls as the model writes them: `call:NAME{key:value,…}`, where a string stands between
//! two quote tokens and everything else looks like JSON with bare keys.

use super::marker;

/// What a call begins with; the function's name follows.
pub const PREFIX: &str = "call:";
/// Objects and lists within each other.
pub const MAX_DEPTH: usize = 100;
/// Bytes of one call.
pub const MAX_BYTES: usize = 1 << 20;
/// Bytes of a function's name, as everywhere.
const MAX_NAME: usize = 64;

/// A call on its way from Gemma's form to JSON: what comes in leaves at once, as far as it is
/// certain.
#[derive(Debug)]
pub struct Call {
    at: At,
    /// What is open around the place, objects as `true`.
    open: Vec<bool>,
    /// A name, key, number or word that is not complete.
    part: String,
    bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// In `call:` or in the name.
    Name,
    /// Where an object's first key or its end may be.
    FirstKey,
    /// Where a key must be.
    NextKey,
    /// In a key without quotes.
    Key,
    QuotedKey,
    Colon,
    /// Where a list's first value or its end may be.
    FirstValue,
    /// Where a value must be.
    Value,
    String,
    /// In a number, or in `true`, `false` or `null`.
    Word,
    /// Behind a value.
    Comma,
    /// Behind the arguments.
    End,
}

/// What a piece of a call adds to what is known of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct CallDelta {
    /// The function's name.
    pub name: Option<String>,
    /// More of the arguments as JSON.
    pub json: String,
}

/// This is no call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl Default for Call {
    fn default() -> Self {
        Self {
            at: At::Name,
            open: vec![],
            part: String::new(),
            bytes: 0,
        }
    }
}

impl Call {
    pub fn text(&mut self, text: &str, delta: &mut CallDelta) -> Result<(), Malformed> {
        self.bytes += text.len();
        if self.bytes > MAX_BYTES {
            return Err(Malformed);
        }
        text.chars().try_for_each(|c| self.character(c, delta))
    }

    /// Takes a control token. Only the quote has a place inside a call.
    pub fn control(&mut self, text: &str, delta: &mut CallDelta) -> Result<(), Malformed> {
        if text != marker::QUOTE {
            return Err(Malformed);
        }
        match self.at {
            At::FirstKey | At::NextKey => self.at = At::QuotedKey,
            At::QuotedKey => self.at = At::Colon,
            At::FirstValue | At::Value => self.at = At::String,
            At::String => self.at = At::Comma,
            _ => return Err(Malformed),
        }
        delta.json.push('"');
        Ok(())
    }

    /// Whether the call is complete.
    pub fn is_whole(&self) -> bool {
        self.at == At::End
    }

    fn character(&mut self, c: char, delta: &mut CallDelta) -> Result<(), Malformed> {
        let blank = matches!(c, ' ' | '\t' | '\n' | '\r');
        match self.at {
            At::String | At::QuotedKey => write_escaped(&mut delta.json, c),
            At::Name if c == '{' => {
                let name = self
                    .part
                    .trim_start()
                    .strip_prefix(PREFIX)
                    .map(str::trim)
                    .filter(|name| is_name(name));
                delta.name = Some(name.ok_or(Malformed)?.to_owned());
                self.part.clear();
                self.begin(true, delta)?;
            }
            At::Name if self.part.len() < MAX_NAME + 2 * PREFIX.len() => self.part.push(c),
            At::Name => return Err(Malformed),
            At::Key if c == ':' => {
                delta.json.push('"');
                self.part
                    .trim_end()
                    .chars()
                    .for_each(|c| write_escaped(&mut delta.json, c));
                delta.json.push_str("\":");
                self.part.clear();
                self.at = At::Value;
            }
            At::Key if is_key_character(c) => self.part.push(c),
            At::Word if !blank && !matches!(c, ',' | '}' | ']') => self.part.push(c),
            At::Word => {
                let word = std::mem::take(&mut self.part);
                if !matches!(word.as_str(), "true" | "false" | "null") && !is_number(&word) {
                    return Err(Malformed);
                }
                delta.json.push_str(&word);
                self.at = At::Comma;
                return self.character(c, delta);
            }
            _ if blank => {}
            At::FirstKey if c == '}' => self.end(true, delta)?,
            At::FirstKey | At::NextKey if is_key_character(c) => {
                self.part.push(c);
                self.at = At::Key;
            }
            At::Colon if c == ':' => {
                delta.json.push(c);
                self.at = At::Value;
            }
            At::FirstValue if c == ']' => self.end(false, delta)?,
            At::FirstValue | At::Value if c == '{' => self.begin(true, delta)?,
            At::FirstValue | At::Value if c == '[' => self.begin(false, delta)?,
            At::FirstValue | At::Value if c.is_ascii_alphanumeric() || c == '-' => {
                self.part.push(c);
                self.at = At::Word;
            }
            At::Comma if c == ',' => {
                delta.json.push(c);
                self.at = if self.open.last() == Some(&true) {
                    At::NextKey
                } else {
                    At::Value
                };
            }
            At::Comma if matches!(c, '}' | ']') => self.end(c == '}', delta)?,
            _ => return Err(Malformed),
        }
        Ok(())
    }

    fn begin(&mut self, object: bool, delta: &mut CallDelta) -> Result<(), Malformed> {
        if self.open.len() == MAX_DEPTH {
            return Err(Malformed);
        }
        self.open.push(object);
        delta.json.push(if object { '{' } else { '[' });
        self.at = if object { At::FirstKey } else { At::FirstValue };
        Ok(())
    }

    fn end(&mut self, object: bool, delta: &mut CallDelta) -> Result<(), Malformed> {
        if self.open.pop() != Some(object) {
            return Err(Malformed);
        }
        delta.json.push(if object { '}' } else { ']' });
        self.at = if self.open.is_empty() {
            At::End
        } else {
            At::Comma
        };
        Ok(())
    }
}

fn is_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
}

/// Whether a key without quotes may have it.
fn is_key_character(c: char) -> bool {
    !matches!(c, ':' | ',' | '{' | '}' | '[' | ']' | '\n')
}

/// Whether a key's end can be told when it is written without quotes.
pub fn is_bare_key(name: &str) -> bool {
    !name.is_empty() && name.trim() == name && name.chars().all(is_key_character)
}

/// Whether JSON has such a number.
fn is_number(word: &str) -> bool {
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let word = word.strip_prefix('-').unwrap_or(word);
    let (word, exponent) = word
        .split_once(['e', 'E'])
        .map_or((word, None), |(w, e)| (w, Some(e)));
    let (whole, fraction) = word
        .split_once('.')
        .map_or((word, None), |(w, f)| (w, Some(f)));
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(|e| digits(e.strip_prefix(['+', '-']).unwrap_or(e)))
}

fn write_escaped(json: &mut String, c: char) {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `«` and `»` as the quote token, everything else character by character.
    fn read(text: &str) -> Result<(String, String), Malformed> {
        let (mut call, mut delta) = (Call::default(), CallDelta::default());
        for c in text.chars() {
            match c {
                '«' | '»' => call.control(marker::QUOTE, &mut delta)?,
                c => call.text(c.encode_utf8(&mut [0; 4]), &mut delta)?,
            }
        }
        if call.is_whole() {
            Ok((delta.name.unwrap(), delta.json))
        } else {
            Err(Malformed)
        }
    }

    #[test]
    fn well_formed_calls() {
        for (text, name, json) in [
            ("call:f{}", "f", "{}"),
            (" call:get_time { } \n", "get_time", "{}"),
            ("call:a.b-c{city:«Köln»}", "a.b-c", r#"{"city":"Köln"}"#),
            (
                "call:f{z:1,a:-2.5e+3,t:true,n:null}",
                "f",
                r#"{"z":1,"a":-2.5e+3,"t":true,"n":null}"#,
            ),
            ("call:f{«quoted key»:«v»}", "f", r#"{"quoted key":"v"}"#),
            (
                "call:f{s:«a \"b\" \\ {x:1}, [c]: \n\t\u{1}😀»}",
                "f",
                "{\"s\":\"a \\\"b\\\" \\\\ {x:1}, [c]: \\n\\t\\u0001😀\"}",
            ),
            (
                "call:f{o:{p:{q:[1,[2,«x»],{}]}},l:[]}",
                "f",
                r#"{"o":{"p":{"q":[1,[2,"x"],{}]}},"l":[]}"#,
            ),
            (
                "call:f{ a : 1 , b : [ 1 , 2 ] }",
                "f",
                r#"{"a":1,"b":[1,2]}"#,
            ),
            ("call:f{s:«<|\"|>»}", "f", r#"{"s":"<|\"|>"}"#),
            (
                "call:f{n:123456789012345678901234567890}",
                "f",
                r#"{"n":123456789012345678901234567890}"#,
            ),
            ("call:f{e:«»}", "f", r#"{"e":""}"#),
        ] {
            assert_eq!(read(text), Ok((name.into(), json.into())), "{text}");
            serde_json::from_str::<serde_json::Value>(json)
                .unwrap_or_else(|e| panic!("{text}: {e}"));
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
            assert_eq!(read(text), Err(Malformed), "{text}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |n: usize| format!("call:f{{a:{}{}}}", "[".repeat(n), "]".repeat(n));
        assert!(read(&nested(MAX_DEPTH - 1)).is_ok());
        assert!(read(&nested(MAX_DEPTH)).is_err());
        assert!(read(&nested(100_000)).is_err());
    }
}
