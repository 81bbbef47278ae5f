//! The header of a GGUF file: metadata, and where each tensor lies.
//!
//! ```text
//!   "GGUF" version tensors keys │ key value … │ name shape type offset … │ padding │ tensor data …
//! ```
//!
//! [`parse`] reads through a window of one MiB at most, and trusts neither the file's bytes nor its
//! length: every count has a limit, every length is held against what is there, and memory grows
//! with what has been read, never with what the file claims. The file is never mapped, so that one
//! that is made shorter meanwhile is an error like others. Long texts and lists stay where they
//! are, so a header costs a few bytes for each key and tensor and nothing for each token. Needs
//! nothing but `std`, so that it can be fuzzed by itself.

mod cursor;
mod error;
mod tensor;
mod value;

#[cfg(test)]
mod bounded_tests;
#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod tensor_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(super) mod write;

pub use cursor::{Patience, Source};
pub use error::{Fault, GgufError};
pub use tensor::{Tensor, TensorType};
pub use value::{Array, PerLayer, Text, Value, ValueType};

use std::ops::Range;

use cursor::{Cursor, Place};

/// Bytes of a file that its header may have. A tokenizer of 262,144 tokens takes about 16 MB.
pub const HEADER_BYTES: u64 = 64 << 20;
/// Elements of lists that are stepped over one by one, in all lists together: texts, and lists
/// inside lists. The family's tokenizer has 262,144 tokens and 514,906 merges.
pub const ELEMENTS: u64 = 2 << 20;
/// Bytes of a text or a list that are kept; chat templates have about 20,000.
pub const KEPT_VALUE_BYTES: u64 = 64 << 10;
/// Bytes that are kept of one header: names, texts and lists.
pub const KEPT_BYTES: u64 = 8 << 20;
/// Metadata entries; published files have about 50.
pub const METADATA_KEYS: u64 = 4096;
/// Bytes of a metadata key, as the format has it.
pub const KEY_BYTES: u64 = 65_535;
/// Tensors; the largest file of the family has about 900.
pub const TENSORS: u64 = 16_384;
/// Bytes of a tensor's name: ggml keeps 64 with the end mark.
pub const TENSOR_NAME_BYTES: u64 = 63;
/// Dimensions of a tensor.
pub const TENSOR_RANK: usize = 4;
/// Bytes of one text.
pub const STRING_BYTES: u64 = 16 << 20;
/// Lists inside lists.
pub const ARRAY_DEPTH: u64 = 4;
/// Layers of a model, as llama.cpp has it (`LLAMA_MAX_LAYERS`); the family's largest has 60.
pub const LAYERS: u64 = 512;
/// The largest `general.alignment`; files use 32.
pub const ALIGNMENT: u32 = 1 << 20;

const DEFAULT_ALIGNMENT: u32 = 32;

/// A header that was read to its end and holds together.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    pub version: u32,
    /// Tensors start at multiples of this many bytes.
    pub alignment: u32,
    /// Bytes from the start of the file to the first tensor's place.
    pub data_start: u64,
    metadata: Vec<Entry>,
    tensors: Vec<Tensor>,
}

/// A metadata entry.
#[derive(Clone, Debug, PartialEq)]
struct Entry {
    key: Box<str>,
    value: Value,
    /// Where both stand in the file.
    place: Range<u64>,
}

/// Reads the header of a file of `file_length` bytes, which the tensors must fit into.
pub fn parse(
    source: &dyn Source,
    file_length: u64,
    patience: Patience<'_>,
) -> Result<Header, GgufError> {
    let mut cursor = Cursor::new(source, file_length, patience);
    let (version, tensor_count, key_count) =
        read_start(&mut cursor).map_err(|fault| Place::Header.error(fault))?;
    let mut header = Header {
        version,
        alignment: DEFAULT_ALIGNMENT,
        data_start: 0,
        metadata: vec![],
        tensors: vec![],
    };
    for index in 0..key_count {
        let start = cursor.position();
        let key = cursor
            .name(KEY_BYTES)
            .map_err(|fault| Place::Key(index).error(fault))?;
        let value = value::read(&mut cursor).map_err(|fault| Place::Value(&key).error(fault))?;
        let place = start..cursor.position();
        header.metadata.push(Entry { key, value, place });
    }
    check_keys(&header.metadata)?;
    header.alignment = alignment(&header)?;
    for index in 0..tensor_count {
        let tensor = Tensor::read(&mut cursor, index, header.alignment.into())?;
        header.tensors.push(tensor);
    }
    header.data_start = cursor.position().next_multiple_of(header.alignment.into());
    for tensor in &mut header.tensors {
        tensor.place(header.data_start, file_length)?;
    }
    header.check_distinct()?;
    Ok(header)
}

/// The first value of a key that is a text, of a file whose beginning is all that there is yet: `None` if it ends before that, or
/// has another value there.
///
/// # Errors
/// It is no GGUF file.
pub fn beginning_says(beginning: &[u8], key: &str) -> Result<Option<String>, GgufError> {
    // What it will have is not known; what is missing is an error of its own.
    let mut cursor = Cursor::new(&beginning, beginning.len() as u64, Patience::default());
    let (_, _, keys) = read_start(&mut cursor).map_err(|fault| Place::Header.error(fault))?;
    for _ in 0..keys {
        let Ok(name) = cursor.name(KEY_BYTES) else {
            return Ok(None);
        };
        match value::read(&mut cursor) {
            Ok(value) if *name == *key => {
                return value
                    .as_str(Place::Value(key))
                    .map(|text| Some(text.to_owned()));
            }
            Ok(_) => {}
            Err(_) => return Ok(None),
        }
    }
    Ok(None)
}

/// The version, and how many tensors and keys there are.
fn read_start(cursor: &mut Cursor<'_>) -> Result<(u32, u64, u64), Fault> {
    let found = cursor.array()?;
    if &found != b"GGUF" {
        return Err(Fault::NotGguf { found });
    }
    let version = match cursor.u32()? {
        version @ 2..=3 => version,
        other if matches!(other.swap_bytes(), 1..=3) => return Err(Fault::BigEndian),
        found => return Err(Fault::Version { found }),
    };
    let tensors = cursor.count("tensors", TENSORS)?;
    Ok((
        version,
        tensors,
        cursor.count("metadata keys", METADATA_KEYS)?,
    ))
}

fn alignment(header: &Header) -> Result<u32, GgufError> {
    let key = "general.alignment";
    let found = header.u32(key)?.unwrap_or(DEFAULT_ALIGNMENT);
    if found.is_power_of_two() && found <= ALIGNMENT {
        return Ok(found);
    }
    Err(Place::Value(key).error(Fault::BadAlignment {
        found,
        limit: ALIGNMENT,
    }))
}

fn check_keys(metadata: &[Entry]) -> Result<(), GgufError> {
    let mut keys: Vec<&str> = metadata.iter().map(|entry| &*entry.key).collect();
    keys.sort_unstable();
    match keys.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(twins) => Err(Place::Value(twins[0]).error(Fault::Duplicate)),
        None => Ok(()),
    }
}

/// The error that refuses the value of this key.
pub(super) fn refuse_value(key: &str, fault: Fault) -> GgufError {
    Place::Value(key).error(fault)
}

/// The error that refuses this tensor.
pub(super) fn refuse_tensor(name: &str, fault: Fault) -> GgufError {
    Place::Tensor(name).error(fault)
}

/// Metadata by key. A key that is not there is `None`; one of another type is an error that names
/// it.
impl Header {
    /// The value as it stands in the file.
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.metadata
            .iter()
            .find(|entry| *entry.key == *key)
            .map(|entry| &entry.value)
    }

    /// A whole number, whichever integer type the file uses.
    pub fn u32(&self, key: &str) -> Result<Option<u32>, GgufError> {
        self.value(key)
            .map(|value| value.as_u32(Place::Value(key)))
            .transpose()
    }

    /// A whole number, whichever integer type the file uses.
    pub fn u64(&self, key: &str) -> Result<Option<u64>, GgufError> {
        self.value(key)
            .map(|value| value.as_u64(Place::Value(key)))
            .transpose()
    }

    /// A fraction.
    pub fn f32(&self, key: &str) -> Result<Option<f32>, GgufError> {
        self.value(key)
            .map(|value| value.as_f32(Place::Value(key)))
            .transpose()
    }

    /// A truth value.
    pub fn bool(&self, key: &str) -> Result<Option<bool>, GgufError> {
        self.value(key)
            .map(|value| value.as_bool(Place::Value(key)))
            .transpose()
    }

    /// A text; it must be UTF-8.
    pub fn str(&self, key: &str) -> Result<Option<&str>, GgufError> {
        self.value(key)
            .map(|value| value.as_str(Place::Value(key)))
            .transpose()
    }

    /// A number for all layers or a list with one for each; both are in use for the same keys.
    pub fn per_layer(&self, key: &str) -> Result<Option<PerLayer>, GgufError> {
        self.value(key)
            .map(|value| value.as_per_layer(Place::Value(key)))
            .transpose()
    }

    /// A whole number that must be there.
    pub fn need_u32(&self, key: &str) -> Result<u32, GgufError> {
        self.u32(key)?
            .ok_or_else(|| Place::Value(key).error(Fault::Missing))
    }

    /// A text that must be there.
    pub fn need_str(&self, key: &str) -> Result<&str, GgufError> {
        self.str(key)?
            .ok_or_else(|| Place::Value(key).error(Fault::Missing))
    }

    /// All entries, in the file's order.
    pub fn metadata(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.metadata
            .iter()
            .map(|entry| (&*entry.key, &entry.value))
    }

    /// Where the entries stand in the file, key and value, in its order.
    pub fn places(&self) -> impl Iterator<Item = (&str, Range<u64>)> {
        self.metadata
            .iter()
            .map(|entry| (&*entry.key, entry.place.clone()))
    }

    /// All tensors, in the file's order.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// Adds the tensors of the next part of the same model, which begins `at` bytes behind this file's start;
    /// [`Header::check_distinct`] is for when all are there.
    ///
    /// # Errors
    /// There are too many.
    pub fn append(&mut self, part: Self, at: u64) -> Result<(), GgufError> {
        self.tensors
            .extend(part.tensors.into_iter().map(|mut tensor| {
                tensor.offset = tensor.offset.saturating_add(at);
                tensor
            }));
        let found = self.tensors.len() as u64;
        if found > TENSORS {
            return Err(Place::Header.error(Fault::TooMany {
                what: "tensors",
                found,
                limit: TENSORS,
            }));
        }
        Ok(())
    }

    /// Whether no two tensors share a name or a byte.
    ///
    /// # Errors
    /// Two do.
    pub fn check_distinct(&self) -> Result<(), GgufError> {
        tensor::check_distinct(&self.tensors)
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.tensors.iter().find(|tensor| *tensor.name == *name)
    }
}
