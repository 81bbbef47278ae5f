//! JSON that is passed on as it is: looked at to the last escape, and kept as text. Pure.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::MAX_OPAQUE_BYTES;

/// Whether a text is one JSON object that every reader will take: bounded in size and depth, with
/// numbers that are numbers and escapes that are characters. The error continues the sentence "it
/// …".
pub fn check_object(text: &str) -> Result<(), String> {
    if text.len() > MAX_OPAQUE_BYTES {
        return Err(format!(
            "has {} bytes; at most {MAX_OPAQUE_BYTES} are allowed",
            text.len()
        ));
    }
    match serde_json::from_str::<WellFormed>(text) {
        Ok(_) if text.trim_ascii_start().starts_with('{') => Ok(()),
        Ok(_) => Err("is not an object".into()),
        Err(error) => Err(format!("cannot be read: {error}")),
    }
}

/// Any value of which every number and every escape was read, and nothing kept.
/// `IgnoredAny` skips over both.
struct WellFormed;

impl<'de> Deserialize<'de> for WellFormed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for WellFormed {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self, A::Error> {
        while seq.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        while map.next_entry::<Self, Self>()?.is_some() {}
        Ok(self)
    }
}
