//! A ZIP archive as office documents are: its parts are found by their names and unpacked while they
//! are read, within bounds. What an archive says of itself is not believed.

use std::cell::Cell;
use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::io::{self, BufReader, Read};
use std::rc::Rc;

use flate2::bufread::DeflateDecoder;
use rawzip::{CompressionMethod, ZipArchive, ZipArchiveEntryWayfinder, ZipSliceArchive};

use super::xml::Xml;

/// Parts of an archive.
const MAX_PARTS: usize = 16_384;
/// Bytes to which the parts that are read may unpack, all together.
const MAX_UNPACKED: u64 = 256 << 20;
/// A part may unpack to so many times its size; deflate's limit is 1032. Sheets of like rows come to
/// 150.
const MAX_RATIO: u64 = 300;
/// Bytes to which any part may unpack.
const RATIO_FREE: u64 = 16 << 20;

const DAMAGED: &str = "is damaged or cut off";

/// The parts of an archive, by their names in lower case.
pub struct Archive<'a> {
    zip: ZipSliceArchive<&'a [u8]>,
    parts: HashMap<String, Entry>,
    /// Bytes that were unpacked so far.
    unpacked: Rc<Cell<u64>>,
}

struct Entry {
    way: ZipArchiveEntryWayfinder,
    method: CompressionMethod,
    is_encrypted: bool,
}

impl<'a> Archive<'a> {
    /// # Errors
    ///
    /// It is damaged or has too many parts. Continues "the file …", as all errors here.
    pub fn open(file: &'a [u8]) -> Result<Self, String> {
        let zip = ZipArchive::from_slice(file).map_err(|_| DAMAGED)?;
        let (mut parts, mut entries) = (HashMap::new(), zip.entries());
        while let Some(entry) = entries.next_entry().map_err(|_| DAMAGED)? {
            if parts.len() == MAX_PARTS {
                return Err(format!("is an archive of more than {MAX_PARTS} parts"));
            }
            let name = String::from_utf8_lossy(entry.file_path().as_ref()).into_owned();
            let found = Entry {
                way: entry.wayfinder(),
                method: entry.compression_method(),
                is_encrypted: entry.flags().is_encrypted(),
            };
            parts.entry(key(&name)).or_insert(found);
        }
        Ok(Self {
            zip,
            parts,
            unpacked: Rc::default(),
        })
    }

    pub fn has(&self, name: &str) -> bool {
        self.parts.contains_key(&key(name))
    }

    /// Whether its parts can be had by a password alone.
    pub fn is_encrypted(&self) -> bool {
        self.parts.values().any(|entry| entry.is_encrypted)
    }

    /// A part as XML; `None` if there is none of this name.
    pub fn xml(&self, name: &str) -> Result<Option<Xml<'_>>, String> {
        Ok(self.part(name)?.map(Xml::new))
    }

    /// The first bytes of a part.
    pub fn bytes(&self, name: &str, most: u64) -> Result<Option<Vec<u8>>, String> {
        let Some(part) = self.part(name)? else {
            return Ok(None);
        };
        let mut bytes = vec![];
        match part.take(most).read_to_end(&mut bytes) {
            Ok(_) => Ok(Some(bytes)),
            Err(error) => Err(said(&error)),
        }
    }

    fn part(&self, name: &str) -> Result<Option<BufReader<Part<'_>>>, String> {
        let Some(entry) = self.parts.get(&key(name)) else {
            return Ok(None);
        };
        if entry.is_encrypted {
            return Err("is protected with a password; save it without one".into());
        }
        let found = self.zip.get_entry(entry.way).map_err(|_| DAMAGED)?;
        let packed: &[u8] = found.data();
        let reader: Box<dyn Read> = match entry.method {
            CompressionMethod::STORE => Box::new(found.verifying_reader(packed)),
            CompressionMethod::DEFLATE => {
                Box::new(found.verifying_reader(DeflateDecoder::new(packed)))
            }
            _ => {
                return Err("is compressed in a way that is not read; save it again".into());
            }
        };
        Ok(Some(BufReader::new(Part {
            reader,
            packed: packed.len() as u64,
            here: 0,
            unpacked: Rc::clone(&self.unpacked),
        })))
    }
}

/// A part while it is unpacked.
pub struct Part<'a> {
    reader: Box<dyn Read + 'a>,
    packed: u64,
    here: u64,
    unpacked: Rc<Cell<u64>>,
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.here += read as u64;
        self.unpacked.set(self.unpacked.get() + read as u64);
        if self.here > RATIO_FREE && self.here / MAX_RATIO > self.packed {
            let reason = format!("unpacks to more than {MAX_RATIO} times its size");
            return Err(io::Error::other(Bound(reason)));
        }
        if self.unpacked.get() > MAX_UNPACKED {
            let reason = format!(
                "unpacks to more than {} MiB; save the part that matters as a file of its own",
                MAX_UNPACKED >> 20
            );
            return Err(io::Error::other(Bound(reason)));
        }
        Ok(read)
    }
}

/// A bound that an archive does not keep.
#[derive(Debug)]
struct Bound(String);

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Bound {}

/// What is wrong with a file that cannot be unpacked.
pub fn said(error: &io::Error) -> String {
    match error.get_ref().and_then(|cause| cause.downcast_ref()) {
        Some(Bound(reason)) => reason.clone(),
        None => DAMAGED.into(),
    }
}

fn key(name: &str) -> String {
    let name = name.replace('\\', "/").to_ascii_lowercase();
    name.trim_start_matches('/').to_owned()
}
