//! JSON that is taken apart one field at a time, each knowing its place in the request.
//!
//! Values stay slices of the body until something asks for them, so a body costs little more than
//! its own bytes however it is built, and an error can name the exact field.

mod well_formed;

use std::collections::HashSet;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::api::parse::Invalid;
pub use well_formed::check_object;

/// Entries of one array and fields of one object that are looked at.
pub const MAX_ENTRIES: usize = 4096;
/// Numbers of one array of nothing else.
pub const MAX_NUMBERS: usize = 1 << 18;
/// Bytes of one value that is passed on as JSON: a function's schema, a call's arguments.
pub const MAX_OPAQUE_BYTES: usize = 1 << 20;
/// Characters of a client's text that an error repeats.
const QUOTE: usize = 64;

/// Files that came beside a body, which it names `fd:0`, `fd:1`, ….
pub type PassedFiles<'a> = &'a [Arc<[u8]>];

/// A value and its place.
#[derive(Clone, Debug)]
pub struct Json<'a> {
    raw: &'a str,
    path: String,
    files: PassedFiles<'a>,
}

/// The fields of an object that were not asked for yet.
#[derive(Debug)]
pub struct Object<'a> {
    path: String,
    files: PassedFiles<'a>,
    fields: Vec<(String, &'a RawValue)>,
    /// Every name that was asked for: what the object may have.
    known: Vec<&'static str>,
}

/// Takes a body apart, which must be one object.
pub fn body(bytes: &[u8]) -> Result<Object<'_>, Invalid> {
    body_with(bytes, &[])
}

/// The same of a body that may name these files in the place of a picture's address, a sound's data
/// or a file's.
pub fn body_with<'a>(bytes: &'a [u8], files: PassedFiles<'a>) -> Result<Object<'a>, Invalid> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        Invalid::new(
            "",
            format!("the body is not valid UTF-8 (byte {})", error.valid_up_to()),
        )
    })?;
    if text.trim_ascii().is_empty() {
        return Err(Invalid::new("", "the body is empty; send a JSON object"));
    }
    let top = Json {
        raw: text.trim_ascii_start(),
        path: String::new(),
        files,
    };
    if !top.raw.starts_with(['{', '[', '"']) && serde_json::from_str::<IgnoredAny>(text).is_err() {
        return Err(Invalid::new("", "the body is not JSON; send a JSON object"));
    }
    top.object()
}

impl<'a> Json<'a> {
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The file beside the body that this names.
    pub fn passed_file(&self) -> Option<Arc<[u8]>> {
        let name = self.raw.strip_prefix('"')?.strip_suffix('"')?;
        let number: usize = name.strip_prefix("fd:")?.parse().ok()?;
        self.files.get(number).cloned()
    }

    /// The value as it was written.
    pub fn raw(&self) -> &'a str {
        self.raw
    }

    /// An error about this value.
    pub fn wrong<T>(&self, reason: impl Into<String>) -> Result<T, Invalid> {
        Err(Invalid::new(self.path.clone(), reason))
    }

    fn is_null(&self) -> bool {
        self.raw == "null"
    }

    /// Whether this is the value that `text` writes, however it is spaced.
    pub fn is(&self, text: &str) -> bool {
        self.raw.len() < QUOTE && self.raw.split_ascii_whitespace().collect::<String>() == text
    }

    pub fn is_string(&self) -> bool {
        self.raw.starts_with('"')
    }

    pub fn is_object(&self) -> bool {
        self.raw.starts_with('{')
    }

    pub fn is_array(&self) -> bool {
        self.raw.starts_with('[')
    }

    fn kind(&self) -> &'static str {
        match self.raw.as_bytes().first() {
            Some(b'{') => "an object",
            Some(b'[') => "an array",
            Some(b'"') => "a string",
            Some(b't' | b'f') => "a boolean",
            Some(b'n') => "null",
            _ => "a number",
        }
    }

    fn expected<T>(&self, what: &str) -> Result<T, Invalid> {
        let found = self.kind();
        if self.path.is_empty() {
            return Err(Invalid::new(
                "",
                format!("the body must be {what}, not {found}"),
            ));
        }
        self.wrong(format!("must be {what}, not {found}"))
    }

    pub fn string(&self) -> Result<String, Invalid> {
        if !self.is_string() {
            return self.expected("a string");
        }
        // The syntax was checked with the whole; what is left are escapes that name no character.
        serde_json::from_str(self.raw).or_else(|_| self.wrong("has an escape that is no character"))
    }

    pub fn boolean(&self) -> Result<bool, Invalid> {
        match self.raw {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => self.expected("true or false"),
        }
    }

    /// A whole number.
    pub fn integer(&self, range: RangeInclusive<i128>) -> Result<i128, Invalid> {
        if self.kind() != "a number" {
            return self.expected("a whole number");
        }
        match self.raw.parse() {
            Ok(number) if range.contains(&number) => Ok(number),
            _ => self.wrong(format!(
                "must be a whole number between {} and {}, not {}",
                range.start(),
                range.end(),
                quote(self.raw)
            )),
        }
    }

    pub fn u32(&self, low: u32, high: u32) -> Result<u32, Invalid> {
        Ok(self.integer(low.into()..=high.into())? as u32)
    }

    /// A number of ordinary size. The bounds that make sense for it are checked with the whole
    /// request.
    pub fn number(&self) -> Result<f32, Invalid> {
        if self.kind() != "a number" {
            return self.expected("a number");
        }
        match self.raw.parse::<f64>() {
            Ok(number) if number.abs() <= 1e9 => Ok(number as f32),
            _ => self.wrong(format!("is out of all bounds: {}", quote(self.raw))),
        }
    }

    pub fn array(&self) -> Result<Vec<Json<'a>>, Invalid> {
        if !self.is_array() {
            return self.expected("an array");
        }
        let mut collected = Collected::default();
        self.collect(&mut collected)?;
        if collected.more {
            return self.wrong(format!("has more than {MAX_ENTRIES} entries"));
        }
        let place = |(i, raw): (usize, &'a RawValue)| Json {
            raw: raw.get(),
            path: format!("{}[{i}]", self.path),
            files: self.files,
        };
        Ok(collected.items.into_iter().enumerate().map(place).collect())
    }

    /// An array of nothing but whole numbers, which may be long.
    pub fn numbers(&self) -> Result<Vec<u32>, Invalid> {
        if !self.is_array() {
            return self.expected("an array");
        }
        // Every number but the last has a comma behind it.
        if self.raw.bytes().filter(|byte| *byte == b',').count() >= MAX_NUMBERS {
            return self.wrong(format!("has more than {MAX_NUMBERS} entries"));
        }
        serde_json::from_str(self.raw).or_else(|_| {
            self.wrong(format!(
                "must hold nothing but whole numbers between 0 and {}",
                u32::MAX
            ))
        })
    }

    pub fn object(&self) -> Result<Object<'a>, Invalid> {
        if !self.is_object() {
            return self.expected("an object");
        }
        let mut collected = Collected::default();
        self.collect(&mut collected)?;
        if collected.more {
            return Err(Invalid::new(
                self.path.clone(),
                format!("has more than {MAX_ENTRIES} fields"),
            ));
        }
        let fields: Vec<_> = collected.names.into_iter().zip(collected.items).collect();
        let object = Object {
            path: self.path.clone(),
            files: self.files,
            fields,
            known: vec![],
        };
        let mut seen = HashSet::new();
        match object.fields.iter().find(|(name, _)| !seen.insert(name)) {
            Some((name, _)) => Err(Invalid::new(object.at(name), "is given twice")),
            None => Ok(object),
        }
    }

    /// An object that is passed on as it is. It is bounded, and well-formed to the last escape.
    pub fn opaque_object(&self) -> Result<String, Invalid> {
        if !self.is_object() {
            return self.expected("an object");
        }
        match check_object(self.raw) {
            Ok(()) => Ok(self.raw.to_owned()),
            Err(reason) => self.wrong(reason),
        }
    }

    fn collect(&self, collected: &mut Collected<'a>) -> Result<(), Invalid> {
        let mut deserializer = serde_json::Deserializer::from_str(self.raw);
        let outcome = collected
            .deserialize(&mut deserializer)
            .and_then(|()| deserializer.end());
        outcome.map_err(|error| {
            // Only the body as a whole can be malformed; inside it everything was seen before.
            match collected.names.last() {
                Some(name) if collected.names.len() > collected.items.len() => {
                    Invalid::new(quote(name), format!("is not valid JSON: {error}"))
                }
                _ => Invalid::new("", format!("the body is not valid JSON: {error}")),
            }
        })
    }
}

impl<'a> Object<'a> {
    /// A field's path.
    fn at(&self, name: &str) -> String {
        let name = quote(name);
        if self.path.is_empty() {
            name
        } else {
            format!("{}.{name}", self.path)
        }
    }

    /// The field as it was written, unless it is absent or null. It can still be taken.
    pub fn peek(&self, name: &str) -> Option<&'a str> {
        let (_, raw) = self.fields.iter().find(|(field, _)| field == name)?;
        Some(raw.get()).filter(|raw| *raw != "null")
    }

    /// The field, unless it is absent or null.
    pub fn take(&mut self, name: &'static str) -> Option<Json<'a>> {
        self.known.push(name);
        self.take_quietly(name)
    }

    /// The same of a field that is no hint for those who misspell others.
    pub fn take_quietly(&mut self, name: &'static str) -> Option<Json<'a>> {
        let i = self.fields.iter().position(|(field, _)| field == name)?;
        let (_, raw) = self.fields.swap_remove(i);
        let json = Json {
            raw: raw.get(),
            path: self.at(name),
            files: self.files,
        };
        (!json.is_null()).then_some(json)
    }

    /// A text that may be absent.
    pub fn string(&mut self, name: &'static str) -> Result<Option<String>, Invalid> {
        self.take(name).map(|text| text.string()).transpose()
    }

    /// A switch, and what it is if it is absent.
    pub fn switch(&mut self, name: &'static str, absent: bool) -> Result<bool, Invalid> {
        self.take(name).map_or(Ok(absent), |on| on.boolean())
    }

    /// A number that may be absent.
    pub fn u32(&mut self, name: &'static str, low: u32, high: u32) -> Result<Option<u32>, Invalid> {
        self.take(name)
            .map(|number| number.u32(low, high))
            .transpose()
    }

    /// The field, which must be there.
    pub fn need(&mut self, name: &'static str) -> Result<Json<'a>, Invalid> {
        self.take(name)
            .ok_or_else(|| Invalid::new(self.at(name), "is required"))
    }

    /// Says what is wrong with a field that is not there.
    pub fn lacks<T>(&self, name: &str, reason: &str) -> Result<T, Invalid> {
        Err(Invalid::new(self.at(name), reason))
    }

    /// Every field under its own name, for objects whose names are data.
    pub fn into_entries(self) -> impl Iterator<Item = (String, Json<'a>)> {
        let (path, files) = (self.path, self.files);
        self.fields.into_iter().map(move |(name, raw)| {
            let json = Json {
                raw: raw.get(),
                path: format!("{path}.{}", quote(&name)),
                files,
            };
            (name, json)
        })
    }

    /// Refuses what was not asked for. Null says nothing, under any name.
    pub fn finish(self) -> Result<(), Invalid> {
        let Some((name, _)) = self.fields.iter().find(|(_, raw)| raw.get() != "null") else {
            return Ok(());
        };
        Err(self.unknown(name, self.near(name)))
    }

    /// Refuses of what was not asked for what looks like a misspelt name. The rest is the client's
    /// own.
    pub fn finish_openly(self) -> Result<(), Invalid> {
        let given = self.fields.iter().filter(|(_, raw)| raw.get() != "null");
        for (name, _) in given {
            if let Some(known) = self.near(name) {
                return Err(self.unknown(name, Some(known)));
            }
        }
        Ok(())
    }

    /// The name that was asked for which this one is a misspelling of.
    fn near(&self, name: &str) -> Option<&'static str> {
        let known = self.known.iter();
        let near = known
            .map(|known| (strsim::damerau_levenshtein(&quote(name), known), *known))
            .filter(|(distance, known)| *distance <= 1 + known.len() / 6);
        near.min().map(|(_, known)| known)
    }

    fn unknown(&self, name: &str, near: Option<&str>) -> Invalid {
        let hint = near.map_or(String::new(), |known| format!("; did you mean `{known}`?"));
        Invalid::new(
            self.at(name),
            format!("is not a known parameter here{hint}"),
        )
    }
}

/// At most so much of a client's text.
pub fn quote(text: &str) -> String {
    match text.char_indices().nth(QUOTE) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The direct children of an array or object, up to the limit.
#[derive(Default)]
struct Collected<'a> {
    /// Empty for an array.
    names: Vec<String>,
    items: Vec<&'a RawValue>,
    more: bool,
}

impl<'de> DeserializeSeed<'de> for &mut Collected<'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Collected<'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array or an object")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while self.items.len() < MAX_ENTRIES {
            match seq.next_element()? {
                Some(item) => self.items.push(item),
                None => return Ok(()),
            }
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {
            self.more = true;
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while self.items.len() < MAX_ENTRIES {
            match map.next_key()? {
                Some(name) => self.names.push(name),
                None => return Ok(()),
            }
            self.items.push(map.next_value()?);
        }
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            self.more = true;
        }
        Ok(())
    }
}

/// A body of a test, taken apart to its end.
#[cfg(test)]
pub fn whole<T>(
    json: &str,
    read: impl FnOnce(&mut Object) -> Result<T, Invalid>,
) -> Result<T, Invalid> {
    let mut object = body(json.as_bytes())?;
    let read = read(&mut object)?;
    object.finish()?;
    Ok(read)
}

/// That each of these bodies is refused for this field.
#[cfg(test)]
pub fn assert_refused<T: std::fmt::Debug>(
    read: impl Fn(&[u8]) -> Result<T, Invalid>,
    cases: &[(&str, &str)],
) {
    for (body, field) in cases {
        assert_eq!(&read(body.as_bytes()).unwrap_err().field, field, "{body}");
    }
}

#[cfg(test)]
mod tests;
