//! Metadata values: read, skipped, and asked for by type.

use super::cursor::{Cursor, Place};
use super::error::{Fault, GgufError};
use super::{ARRAY_DEPTH, KEPT_VALUE_BYTES, LAYERS};

/// One metadata value. Of texts and lists that are too long only the place is known.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Any of the integer types.
    Integer(i128),
    Float(f64),
    Bool(bool),
    Text(Text),
    Array(Array),
}

/// A text, which is not yet known to be UTF-8.
#[derive(Clone, Debug, PartialEq)]
pub struct Text {
    /// Bytes that it has.
    pub length: u64,
    /// Its bytes, if they are no more than [`KEPT_VALUE_BYTES`].
    kept: Option<Box<[u8]>>,
}

impl Value {
    /// The type's name, for errors.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Integer(_) => "whole number",
            Self::Float(_) => "fraction",
            Self::Bool(_) => "truth value",
            Self::Text(_) => "text",
            Self::Array(_) => "list",
        }
    }
}

/// The type of a value, as the file numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueType {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    Text,
    Array,
    U64,
    I64,
    F64,
}

impl ValueType {
    fn from_id(id: u32) -> Option<Self> {
        Some(match id {
            0 => Self::U8,
            1 => Self::I8,
            2 => Self::U16,
            3 => Self::I16,
            4 => Self::U32,
            5 => Self::I32,
            6 => Self::F32,
            7 => Self::Bool,
            8 => Self::Text,
            9 => Self::Array,
            10 => Self::U64,
            11 => Self::I64,
            12 => Self::F64,
            _ => return None,
        })
    }

    /// Bytes of one value; `None` where they differ.
    fn size(self) -> Option<u64> {
        match self {
            Self::U8 | Self::I8 | Self::Bool => Some(1),
            Self::U16 | Self::I16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::Text | Self::Array => None,
        }
    }

    pub(super) fn read(cursor: &mut Cursor<'_>) -> Result<Self, Fault> {
        let found = cursor.u32()?;
        Self::from_id(found).ok_or(Fault::UnknownValueType { found })
    }
}

/// A list: what it holds, how often, and where it lies. The elements were counted, not looked at.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    pub element: ValueType,
    pub count: u64,
    /// Bytes of the file in front of the elements.
    pub start: u64,
    /// Bytes of the elements as they stand in the file.
    pub length: u64,
    /// These bytes, if they are numbers or truth values and no more than [`KEPT_VALUE_BYTES`].
    kept: Option<Box<[u8]>>,
}

impl Array {
    /// A list of integers or truth values; empty for other lists. `None`: it is too long to be
    /// known.
    pub fn integers(&self) -> Option<impl Iterator<Item = i128>> {
        let is_known = self.kept.is_some() || self.element.size().is_none();
        is_known.then(|| (0..self.count).map_while(|index| self.integer(index)))
    }

    /// An element of a list of integers or truth values; `None` behind the end and for other lists.
    fn integer(&self, index: u64) -> Option<i128> {
        let size = self.element.size()?;
        let start = usize::try_from(index.checked_mul(size)?).ok()?;
        let bytes = self.kept.as_ref()?.get(start..)?.get(..size as usize)?;
        let mut low = [0; 8];
        low[..bytes.len()].copy_from_slice(bytes);
        let raw = u64::from_le_bytes(low);
        Some(match self.element {
            ValueType::U8 | ValueType::U16 | ValueType::U32 | ValueType::U64 | ValueType::Bool => {
                raw.into()
            }
            ValueType::I8 => (raw as i8).into(),
            ValueType::I16 => (raw as i16).into(),
            ValueType::I32 => (raw as i32).into(),
            ValueType::I64 => (raw as i64).into(),
            ValueType::F32 | ValueType::F64 | ValueType::Text | ValueType::Array => return None,
        })
    }
}

/// A number that is the same for every layer or listed for each; files use either for the same key.
#[derive(Clone, Debug, PartialEq)]
pub enum PerLayer {
    Same(u32),
    Each(Array),
}

impl PerLayer {
    /// The number for one layer; `None` behind the end of a list.
    pub fn layer(&self, index: u32) -> Option<u32> {
        match self {
            Self::Same(number) => Some(*number),
            // Every element was checked to fit when the list was asked for.
            Self::Each(list) => list
                .integer(index.into())
                .and_then(|number| u32::try_from(number).ok()),
        }
    }
}

/// Reads the value of a key.
pub(super) fn read(cursor: &mut Cursor<'_>) -> Result<Value, Fault> {
    Ok(match ValueType::read(cursor)? {
        ValueType::U8 => Value::Integer(cursor.u8()?.into()),
        ValueType::I8 => Value::Integer((cursor.u8()? as i8).into()),
        ValueType::U16 => Value::Integer(cursor.u16()?.into()),
        ValueType::I16 => Value::Integer((cursor.u16()? as i16).into()),
        ValueType::U32 => Value::Integer(cursor.u32()?.into()),
        ValueType::I32 => Value::Integer((cursor.u32()? as i32).into()),
        ValueType::U64 => Value::Integer(cursor.u64()?.into()),
        ValueType::I64 => Value::Integer((cursor.u64()? as i64).into()),
        ValueType::F32 => Value::Float(f32::from_bits(cursor.u32()?).into()),
        ValueType::F64 => Value::Float(f64::from_bits(cursor.u64()?)),
        ValueType::Bool => match cursor.u8()? {
            0 => Value::Bool(false),
            1 => Value::Bool(true),
            found => return Err(Fault::BadBool { found }),
        },
        ValueType::Text => {
            let length = cursor.text_length()?;
            let kept = keep(cursor, length)?;
            Value::Text(Text { length, kept })
        }
        ValueType::Array => Value::Array(array(cursor, 1)?),
    })
}

/// Reads bytes if they are few, and steps over them otherwise.
fn keep(cursor: &mut Cursor<'_>, length: u64) -> Result<Option<Box<[u8]>>, Fault> {
    if length <= KEPT_VALUE_BYTES {
        return cursor.keep(length).map(Some);
    }
    cursor.skip(length)?;
    Ok(None)
}

/// Steps over a list and remembers where it lies: a tokenizer has hundreds of thousands of
/// elements. Those of different lengths cost a step each, and all lists together have a limit.
fn array(cursor: &mut Cursor<'_>, depth: u64) -> Result<Array, Fault> {
    if depth > ARRAY_DEPTH {
        return Err(Fault::TooMany {
            what: "lists inside each other",
            found: depth,
            limit: ARRAY_DEPTH,
        });
    }
    let element = ValueType::read(cursor)?;
    let count = cursor.u64()?;
    let start = cursor.position();
    let mut kept = None;
    match element {
        ValueType::Text => {
            cursor.count_elements(count)?;
            for _ in 0..count {
                let length = cursor.text_length()?;
                cursor.skip(length)?;
            }
        }
        ValueType::Array => {
            cursor.count_elements(count)?;
            for _ in 0..count {
                array(cursor, depth + 1)?;
            }
        }
        _ => {
            // A product that cannot be counted is surely behind the end.
            let bytes = element
                .size()
                .and_then(|size| count.checked_mul(size))
                .unwrap_or(u64::MAX);
            if depth == 1 {
                kept = keep(cursor, bytes)?;
            } else {
                cursor.skip(bytes)?;
            }
        }
    }
    Ok(Array {
        element,
        count,
        start,
        length: cursor.position() - start,
        kept,
    })
}

/// What a key's reader needs; each refuses a value of another type by the key's name.
impl Value {
    pub(super) fn as_u64(&self, place: Place<'_>) -> Result<u64, GgufError> {
        match *self {
            Self::Integer(found) => u64::try_from(found).map_err(|_| {
                place.error(Fault::OutOfRange {
                    wanted: "u64",
                    found,
                })
            }),
            _ => Err(self.wrong(place, "whole number")),
        }
    }

    pub(super) fn as_u32(&self, place: Place<'_>) -> Result<u32, GgufError> {
        match *self {
            Self::Integer(found) => u32::try_from(found).map_err(|_| {
                place.error(Fault::OutOfRange {
                    wanted: "u32",
                    found,
                })
            }),
            _ => Err(self.wrong(place, "whole number")),
        }
    }

    pub(super) fn as_f32(&self, place: Place<'_>) -> Result<f32, GgufError> {
        match *self {
            Self::Float(number) => Ok(number as f32),
            _ => Err(self.wrong(place, "fraction")),
        }
    }

    pub(super) fn as_bool(&self, place: Place<'_>) -> Result<bool, GgufError> {
        match *self {
            Self::Bool(truth) => Ok(truth),
            _ => Err(self.wrong(place, "truth value")),
        }
    }

    pub(super) fn as_str(&self, place: Place<'_>) -> Result<&str, GgufError> {
        let Self::Text(text) = self else {
            return Err(self.wrong(place, "text"));
        };
        let bytes = text.kept.as_ref().ok_or_else(|| {
            place.error(Fault::TooMany {
                what: "bytes of text",
                found: text.length,
                limit: KEPT_VALUE_BYTES,
            })
        })?;
        std::str::from_utf8(bytes).map_err(|_| place.error(Fault::NotUtf8))
    }

    pub(super) fn as_per_layer(&self, place: Place<'_>) -> Result<PerLayer, GgufError> {
        let Self::Array(list) = self else {
            return self.as_u32(place).map(PerLayer::Same);
        };
        if list.count > LAYERS {
            return Err(place.error(Fault::TooMany {
                what: "layers",
                found: list.count,
                limit: LAYERS,
            }));
        }
        for index in 0..list.count {
            let found = list
                .integer(index)
                .ok_or_else(|| self.wrong(place, "list of whole numbers"))?;
            u32::try_from(found).map_err(|_| {
                place.error(Fault::OutOfRange {
                    wanted: "u32",
                    found,
                })
            })?;
        }
        Ok(PerLayer::Each(list.clone()))
    }

    fn wrong(&self, place: Place<'_>, wanted: &'static str) -> GgufError {
        place.error(Fault::WrongType {
            wanted,
            found: self.kind(),
        })
    }
}
