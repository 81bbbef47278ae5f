//! Bytes sealed piece by piece with ChaCha20-Poly1305 (RFC 8439), in a part of a file.
//!
//! A piece's nonce is its number, for each part has a key of its own. Whether a piece is the last one is
//! authenticated with it, and so is the part's context: what has to be so for the bytes to be of use.
//! Pieces that are changed, left out, cut off or put elsewhere are found.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};

/// Bytes of a piece, without its tag.
pub const PIECE: usize = 64 << 10;
/// Bytes of a tag.
pub const TAG: usize = 16;
/// The nonce of what stands before the pieces: no part has so many.
const BEFORE: u64 = u64::MAX;

/// A part's key, on the heap, where it is wiped when it is given back.
pub struct Key(Box<[u8; 32]>);

impl Key {
    /// # Errors
    ///
    /// The system has no random numbers.
    pub fn random() -> io::Result<Self> {
        let mut key = Self(Box::default());
        random(key.0.as_mut())?;
        Ok(key)
    }

    /// A key of which `fill` makes the bytes.
    pub fn made(fill: impl FnOnce(&mut [u8; 32])) -> Self {
        let mut key = Self(Box::default());
        fill(&mut key.0);
        key
    }

    fn cipher(&self) -> LessSafeKey {
        let key = UnboundKey::new(&CHACHA20_POLY1305, self.0.as_ref());
        LessSafeKey::new(key.expect("the cipher's keys have 32 bytes"))
    }

    /// Seals what stands before the pieces.
    ///
    /// # Errors
    ///
    /// It is longer than the cipher takes.
    pub fn seal_before(&self, context: &[u8], bytes: &mut Vec<u8>) -> io::Result<()> {
        self.cipher()
            .seal_in_place_append_tag(nonce(BEFORE), Aad::from(context), bytes)
            .map_err(|_| io::Error::other("the bytes cannot be encrypted"))
    }

    /// Opens what stands before the pieces; `None` if that is not what was sealed.
    pub fn open_before<'a>(&self, context: &[u8], bytes: &'a mut [u8]) -> Option<&'a [u8]> {
        let opened = self
            .cipher()
            .open_in_place(nonce(BEFORE), Aad::from(context), bytes);
        opened.ok().map(|opened| &*opened)
    }
}

/// Fills `bytes` with random ones.
///
/// # Errors
///
/// The system has none.
pub fn random(bytes: &mut [u8]) -> io::Result<()> {
    SystemRandom::new()
        .fill(bytes)
        .map_err(|_| io::Error::other("the system has no random numbers"))
}

fn nonce(piece: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[..8].copy_from_slice(&piece.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}

/// What is authenticated with a piece.
fn beside(is_last: bool, context: &[u8]) -> Aad<Vec<u8>> {
    Aad::from([&[u8::from(is_last)], context].concat())
}

/// Bytes that `bytes` bytes have once they are sealed.
pub fn sealed_bytes(bytes: u64) -> u64 {
    let pieces = bytes.div_ceil(PIECE as u64).max(1);
    bytes + pieces * TAG as u64
}

fn place(start: u64, piece: u64) -> u64 {
    start + piece * (PIECE + TAG) as u64
}

/// Seals what comes, as it comes.
pub struct PieceWriter {
    cipher: LessSafeKey,
    context: Vec<u8>,
    /// Where in the file they begin.
    start: u64,
    /// Bytes that may come.
    most: u64,
    /// What does not fill a piece yet.
    piece: Vec<u8>,
    /// Pieces that are written.
    pieces: u64,
    bytes: u64,
}

impl PieceWriter {
    /// For `most` bytes at most, from `start` of a file on. Nothing else is ever sealed with `key`.
    pub fn new(key: &Key, context: Vec<u8>, start: u64, most: u64) -> Self {
        Self {
            cipher: key.cipher(),
            context,
            start,
            most,
            piece: Vec::with_capacity(PIECE + TAG),
            pieces: 0,
            bytes: 0,
        }
    }

    /// Adds `bytes`.
    ///
    /// # Errors
    ///
    /// The disk's; more bytes than were announced.
    pub fn write(&mut self, file: &File, mut bytes: &[u8]) -> io::Result<()> {
        self.bytes += bytes.len() as u64;
        if self.bytes > self.most {
            return Err(io::Error::other("more bytes than were announced"));
        }
        while !bytes.is_empty() {
            // Whether a piece is the last one is known with what follows.
            if self.piece.len() == PIECE {
                self.seal(file, false)?;
            }
            let (now, later) = bytes.split_at(bytes.len().min(PIECE - self.piece.len()));
            self.piece.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    /// Writes what is left; returns how many bytes came.
    ///
    /// # Errors
    ///
    /// The disk's.
    pub fn finish(mut self, file: &File) -> io::Result<u64> {
        self.seal(file, true)?;
        Ok(self.bytes)
    }

    fn seal(&mut self, file: &File, is_last: bool) -> io::Result<()> {
        let beside = beside(is_last, &self.context);
        self.cipher
            .seal_in_place_append_tag(nonce(self.pieces), beside, &mut self.piece)
            .map_err(|_| io::Error::other("a piece cannot be encrypted"))?;
        file.write_all_at(&self.piece, place(self.start, self.pieces))?;
        self.pieces += 1;
        self.piece.clear();
        Ok(())
    }
}

/// Pieces that were written.
pub struct Pieces<'a> {
    pub key: &'a Key,
    pub context: &'a [u8],
    pub start: u64,
    /// Bytes that came.
    pub bytes: u64,
}

impl Pieces<'_> {
    /// Hands the bytes to `take`, piece by piece. Each is what was written; that all came is known when
    /// this returns.
    ///
    /// # Errors
    ///
    /// The disk's, those of `take`, and bytes that are not what was written.
    pub fn read(
        &self,
        file: &File,
        mut take: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let cipher = self.key.cipher();
        let mut buffer = vec![0; PIECE + TAG];
        let pieces = self.bytes.div_ceil(PIECE as u64).max(1);
        let mut left = self.bytes;
        for piece in 0..pieces {
            let plain = left.min(PIECE as u64) as usize;
            left -= plain as u64;
            let sealed = &mut buffer[..plain + TAG];
            file.read_exact_at(sealed, place(self.start, piece))?;
            let beside = beside(piece + 1 == pieces, self.context);
            let opened = cipher
                .open_in_place(nonce(piece), beside, sealed)
                .map_err(|_| {
                    io::Error::new(
                        io::ErrorKind::InvalidData,
                        "the bytes are not what was written",
                    )
                })?;
            take(opened)?;
        }
        Ok(())
    }
}
