//! The header of a GGUF file: metadata, and where each tensor lies.
//!
//! ```text
//!   "GGUF" version tensors keys │ key value … │ name shape type offset … │ padding │ tensor data …
//! ```
//!
//! [`parse`] is a pure function of the file's first bytes and its length, and trusts neither: every
//! count has a limit, every length is held against what is there, and memory grows with what has
//! been read, never with what the file claims. Names, texts and lists stay where they are, so a
//! header costs a few bytes for each key and tensor and nothing for each token. Needs nothing but
//! `std`, so that it can be fuzzed by itself.

mod cursor;
mod error;
mod tensor;
mod value;

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(super) mod write;

pub use error::{Fault, GgufError};
pub use tensor::{Tensor, TensorType};
pub use value::{Array, PerLayer, Value, ValueType};

use cursor::{Cursor, Place};

/// Bytes of a file that are looked at for its header. A tokenizer of 262,144 tokens takes about 16
/// MB.
pub const HEADER_BYTES: u64 = 256 << 20;
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
/// Bytes of one text; chat templates have about 20,000.
pub const STRING_BYTES: u64 = 16 << 20;
/// Lists inside lists.
pub const ARRAY_DEPTH: u64 = 4;
/// Numbers in a list that has one for each layer; the family's largest model has 60 layers.
pub const LAYERS: u64 = 4096;
/// The largest `general.alignment`; files use 32.
pub const ALIGNMENT: u32 = 1 << 20;

const DEFAULT_ALIGNMENT: u32 = 32;
/// The fewest bytes a metadata entry and a tensor entry can have: bounds what is set aside for
/// them.
const LEAST_KEY: usize = 8 + 1 + 4 + 1;
const LEAST_TENSOR: usize = 8 + 1 + 4 + 8 + 4 + 8;

/// A header that was read to its end and holds together. Borrows from the file's bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Header<'a> {
    pub version: u32,
    /// Tensors start at multiples of this many bytes.
    pub alignment: u32,
    /// Bytes from the start of the file to the first tensor's place.
    pub data_start: u64,
    metadata: Vec<(&'a str, Value<'a>)>,
    tensors: Vec<Tensor<'a>>,
}

/// Reads a header. `bytes` are the file's first bytes: all of them, or at least [`HEADER_BYTES`];
/// `file_length` is the length of the whole file, which the tensors must fit into.
pub fn parse(bytes: &[u8], file_length: u64) -> Result<Header<'_>, GgufError> {
    let mut cursor = Cursor::new(bytes, file_length);
    let version = read_version(&mut cursor)?;
    let tensor_count = cursor.count("tensors", TENSORS)?;
    let key_count = cursor.count("metadata keys", METADATA_KEYS)?;

    let mut header = Header {
        version,
        alignment: DEFAULT_ALIGNMENT,
        data_start: 0,
        metadata: vec![],
        tensors: vec![],
    };
    header
        .metadata
        .reserve_exact((key_count as usize).min(cursor.left() / LEAST_KEY));
    for index in 0..key_count {
        cursor.place = Place::Key(index);
        let key = cursor.name(KEY_BYTES)?;
        cursor.place = Place::Value(key);
        header.metadata.push((key, value::read(&mut cursor)?));
    }
    check_keys(&header.metadata)?;
    if let Some(found) = header.u32("general.alignment")? {
        if !found.is_power_of_two() || found > ALIGNMENT {
            return Err(
                Place::Value("general.alignment").error(Fault::BadAlignment {
                    found,
                    limit: ALIGNMENT,
                }),
            );
        }
        header.alignment = found;
    }

    header
        .tensors
        .reserve_exact((tensor_count as usize).min(cursor.left() / LEAST_TENSOR));
    for index in 0..tensor_count {
        header
            .tensors
            .push(Tensor::read(&mut cursor, index, header.alignment.into())?);
    }
    header.data_start = (cursor.position() as u64).next_multiple_of(header.alignment.into());
    for tensor in &mut header.tensors {
        tensor.place(header.data_start, file_length)?;
    }
    tensor::check_distinct(&header.tensors)?;
    Ok(header)
}

fn read_version(cursor: &mut Cursor<'_>) -> Result<u32, GgufError> {
    let found = cursor.magic()?;
    if &found != b"GGUF" {
        return Err(cursor.error(Fault::NotGguf { found }));
    }
    match cursor.u32()? {
        version @ 2..=3 => Ok(version),
        other if matches!(other.swap_bytes(), 1..=3) => Err(cursor.error(Fault::BigEndian)),
        found => Err(cursor.error(Fault::Version { found })),
    }
}

fn check_keys(metadata: &[(&str, Value<'_>)]) -> Result<(), GgufError> {
    let mut keys: Vec<&str> = metadata.iter().map(|(key, _)| *key).collect();
    keys.sort_unstable();
    match keys.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(twins) => Err(Place::Value(twins[0]).error(Fault::Duplicate)),
        None => Ok(()),
    }
}

/// Metadata by key. A key that is not there is `None`; one of another type is an error that names
/// it.
impl<'a> Header<'a> {
    /// The value as it stands in the file.
    pub fn value(&self, key: &str) -> Option<&Value<'a>> {
        self.metadata
            .iter()
            .find(|(name, _)| *name == key)
            .map(|(_, value)| value)
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
    pub fn str(&self, key: &str) -> Result<Option<&'a str>, GgufError> {
        self.value(key)
            .map(|value| value.as_str(Place::Value(key)))
            .transpose()
    }

    /// A number for all layers or a list with one for each; both are in use for the same keys.
    pub fn per_layer(&self, key: &str) -> Result<Option<PerLayer<'a>>, GgufError> {
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
    pub fn need_str(&self, key: &str) -> Result<&'a str, GgufError> {
        self.str(key)?
            .ok_or_else(|| Place::Value(key).error(Fault::Missing))
    }

    /// All entries, in the file's order.
    pub fn metadata(&self) -> impl Iterator<Item = (&'a str, &Value<'a>)> {
        self.metadata.iter().map(|(key, value)| (*key, value))
    }

    /// All tensors, in the file's order.
    pub fn tensors(&self) -> &[Tensor<'a>] {
        &self.tensors
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&Tensor<'a>> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }
}
