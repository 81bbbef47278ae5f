//! The file that holds packed weights from one start to the next.
//!
//! ```text
//!   0                                   whole pages        end - 16
//!   │ ggml's buffer, byte for byte │ 0… │ footer (postcard) │ its length u32 │ its CRC-32 u32 │ "GEMPACK1" │
//! ```
//!
//! What makes a file good is at its end, so one that was cut short has none. The footer names the
//! model, ggml's version and the CPU's features, which together decide every byte, and has a CRC-32
//! for each [`CHUNK`] of the buffer. The supervisor gives such a file its name only after it was
//! written to the disk.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use serde::{Deserialize, Serialize};

use crate::sys::mapping;

const MAGIC: [u8; 8] = *b"GEMPACK1";
const TRAILER: u64 = 16;
/// Bytes of a footer at most; a tensor takes about 60 of them, a chunk 5.
const FOOTER: u32 = 16 << 20;
/// Bytes that a file may have beyond its buffer: what fills the last page, footer, trailer.
pub const BEYOND: u64 = FOOTER as u64 + (1 << 20);
/// Bytes of the buffer that have a sum of their own.
pub const CHUNK: usize = 4 << 20;

/// What decides every byte of a packed buffer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// The model file.
    pub model: [u8; 32],
    /// ggml's version and what it found in the CPU.
    pub packing: String,
}

/// One packed tensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tensor {
    pub name: String,
    /// From the start of the buffer.
    pub offset: u64,
    /// As many as it has in the model file: packing changes their order alone.
    pub bytes: u64,
    /// Where they are in the model's files, counted as one.
    pub source: u64,
}

/// What a packed buffer holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    pub bytes: u64,
    /// In the order in which they were packed.
    pub tensors: Vec<Tensor>,
    /// CRC-32 of each [`CHUNK`]; the last one may be shorter.
    pub sums: Vec<u32>,
}

/// A good file.
#[derive(Debug)]
pub struct Packed {
    pub file: File,
    pub contents: Contents,
}

/// Why a file cannot be used.
#[derive(Debug)]
pub enum Unusable {
    Io(io::Error),
    /// Its end is not that of a packed file.
    Cut,
    /// The footer is not what was written.
    Damaged,
    /// It is another model's, or was made by another ggml or for another CPU.
    Other,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "cannot be read: {error}"),
            Self::Cut => f.write_str("was cut short"),
            Self::Damaged => f.write_str("is damaged"),
            Self::Other => f.write_str("was made for another model, CPU or version"),
        }
    }
}

impl From<io::Error> for Unusable {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Cut,
            _ => Self::Io(error),
        }
    }
}

/// Reads what a file says of itself. The checksums of the buffer are checked where it is read.
pub fn open(file: File, key: &Key) -> Result<Packed, Unusable> {
    let length = file.metadata()?.len();
    let mut trailer = [0; TRAILER as usize];
    file.read_exact_at(
        &mut trailer,
        length.checked_sub(TRAILER).ok_or(Unusable::Cut)?,
    )?;
    let word = |at: usize| {
        u32::from_le_bytes([
            trailer[at],
            trailer[at + 1],
            trailer[at + 2],
            trailer[at + 3],
        ])
    };
    let (bytes, sum) = (word(0), word(4));
    if trailer[8..] != MAGIC || bytes > FOOTER {
        return Err(Unusable::Cut);
    }
    let start = (length - TRAILER)
        .checked_sub(bytes.into())
        .ok_or(Unusable::Cut)?;
    let mut footer = vec![0; bytes as usize];
    file.read_exact_at(&mut footer, start)?;
    if crc32fast::hash(&footer) != sum {
        return Err(Unusable::Damaged);
    }
    let (found, contents): (Key, Contents) =
        postcard::from_bytes(&footer).map_err(|_| Unusable::Damaged)?;
    if found != *key {
        return Err(Unusable::Other);
    }
    let whole = contents.bytes <= start
        && contents.sums.len() as u64 == contents.bytes.div_ceil(CHUNK as u64);
    if whole {
        Ok(Packed { file, contents })
    } else {
        Err(Unusable::Damaged)
    }
}

/// Writes a file from its start to its end.
#[derive(Debug)]
pub struct Writer {
    file: File,
    readable: File,
    written: u64,
    sum: crc32fast::Hasher,
    sums: Vec<u32>,
}

impl Writer {
    /// `file` is empty and can be read and written.
    pub fn new(file: File) -> io::Result<Self> {
        // What is mapped from the writable descriptor could be made writable again (mprotect(2)).
        let readable = File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
        Ok(Self {
            file,
            readable,
            written: 0,
            sum: crc32fast::Hasher::new(),
            sums: vec![],
        })
    }

    /// The file, to be read only.
    pub fn readable(&self) -> &File {
        &self.readable
    }

    /// The buffer's next bytes.
    pub fn append(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.written)?;
        while !bytes.is_empty() {
            let room = CHUNK - (self.written % CHUNK as u64) as usize;
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.sum.update(now);
            self.written += now.len() as u64;
            if self.written.is_multiple_of(CHUNK as u64) {
                self.close_chunk();
            }
            bytes = later;
        }
        Ok(())
    }

    /// The buffer is complete: writes the footer. Afterwards the file is good as soon as the disk
    /// has it, and this process can no longer write to it.
    pub fn finish(mut self, key: &Key, tensors: Vec<Tensor>) -> io::Result<Packed> {
        if !self.written.is_multiple_of(CHUNK as u64) {
            self.close_chunk();
        }
        let contents = Contents {
            bytes: self.written,
            tensors,
            sums: self.sums,
        };
        let mut end = postcard::to_stdvec(&(key, &contents)).map_err(io::Error::other)?;
        let (length, sum) = (end.len() as u32, crc32fast::hash(&end));
        end.extend_from_slice(&length.to_le_bytes());
        end.extend_from_slice(&sum.to_le_bytes());
        end.extend_from_slice(&MAGIC);
        self.file
            .write_all_at(&end, self.written.next_multiple_of(mapping::page() as u64))?;
        Ok(Packed {
            file: self.readable,
            contents,
        })
    }

    fn close_chunk(&mut self) {
        self.sums.push(std::mem::take(&mut self.sum).finalize());
    }
}

impl Contents {
    /// Whether the bytes of chunk `index` are what was packed.
    pub fn is_good(&self, index: usize, bytes: &[u8]) -> bool {
        self.sums.get(index) == Some(&crc32fast::hash(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Key {
            model: [7; 32],
            packing: "ggml 1; AVX2".into(),
        }
    }

    fn tensor(name: &str, offset: u64, bytes: u64) -> Tensor {
        Tensor {
            name: name.into(),
            offset,
            bytes,
            source: 1000 + offset,
        }
    }

    fn written(buffer: &[u8]) -> File {
        let file = tempfile::tempfile().unwrap();
        let mut writer = Writer::new(file.try_clone().unwrap()).unwrap();
        for piece in buffer.chunks(1_000_003) {
            writer.append(piece).unwrap();
        }
        writer
            .finish(&key(), vec![tensor("a", 0, 10), tensor("b", 64, 20)])
            .unwrap();
        file
    }

    #[test]
    fn what_was_written_is_read() {
        let buffer: Vec<u8> = (0..2 * CHUNK + 12_345).map(|i| (i % 253) as u8).collect();
        let packed = open(written(&buffer), &key()).unwrap();
        assert_eq!(packed.contents.bytes, buffer.len() as u64);
        assert_eq!(
            packed.contents.tensors,
            [tensor("a", 0, 10), tensor("b", 64, 20)]
        );
        for (index, chunk) in buffer.chunks(CHUNK).enumerate() {
            assert!(packed.contents.is_good(index, chunk));
            assert!(!packed.contents.is_good(index, &chunk[1..]));
        }
        assert!(!packed.contents.is_good(3, &[]));
        let mut found = vec![0; buffer.len()];
        packed.file.read_exact_at(&mut found, 0).unwrap();
        assert_eq!(found, buffer);
    }

    #[test]
    fn bad_files_are_told_apart() {
        let reason = |file: File| open(file, &key()).unwrap_err().to_string();
        assert_eq!(reason(tempfile::tempfile().unwrap()), "was cut short");
        let buffer = vec![1; 100_000];
        let length = written(&buffer).metadata().unwrap().len();
        for cut in [1, 8, 16, 17, 60, 10_000, length - 1] {
            let file = written(&buffer);
            file.set_len(length - cut).unwrap();
            assert_eq!(reason(file), "was cut short", "{cut} bytes are missing");
        }
        let file = written(&buffer);
        file.write_all_at(&[0xff], length - TRAILER - 20).unwrap();
        assert_eq!(reason(file), "is damaged");
        let other = Key {
            packing: "ggml 2; AVX2".into(),
            ..key()
        };
        assert_eq!(
            open(written(&buffer), &other).unwrap_err().to_string(),
            "was made for another model, CPU or version"
        );
    }
}
