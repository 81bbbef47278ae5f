//! Keys that the service manager keeps: systemd's credentials, which may be encrypted with the machine's TPM and are
//! in memory alone while the daemon runs.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use ring::hmac;

/// The key that signs, in the place of the file's.
pub const SIGNS: &str = "tokens.key";
/// One that signs no more, and is good for what it has signed.
pub const FORMER: &str = "tokens.old.key";

/// Bytes that a credential has at least, and at most.
const LEAST: usize = 32;
const MOST: usize = 4096;
/// What is made of a credential: the key, and the number that texts name it by.
const KEY: &[u8] = b"gemmad key of tokens\0";
const NUMBER: &[u8] = b"gemmad number of a key of tokens\0";

/// Those that there are.
#[derive(Debug, Default)]
pub struct Given {
    signs: Option<Key>,
    former: Option<Key>,
}

struct Key {
    id: u32,
    secret: Vec<u8>,
}

/// Without the secret.
impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({})", self.id)
    }
}

impl Given {
    /// The credentials in this folder.
    ///
    /// # Errors
    ///
    /// One is there and is no key: in words that name it.
    pub fn read(folder: &Path) -> Result<Self, String> {
        let read = |name| {
            Key::read(&folder.join(name)).map_err(|error| format!("the credential {name}: {error}"))
        };
        Ok(Self {
            signs: read(SIGNS)?,
            former: read(FORMER)?,
        })
    }

    /// The key that signs, and its number.
    pub fn signing_key(&self) -> Option<(u32, &[u8])> {
        self.signs.as_ref().map(|key| (key.id, &key.secret[..]))
    }

    /// The secret of the key with this number.
    pub fn key(&self, id: u32) -> Option<&[u8]> {
        let mut keys = self.signs.iter().chain(&self.former);
        keys.find(|key| key.id == id).map(|key| &key.secret[..])
    }
}

impl Key {
    fn read(path: &Path) -> io::Result<Option<Self>> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut bytes = vec![];
        file.take(MOST as u64 + 1).read_to_end(&mut bytes)?;
        // The line break at a text's end is no secret; random bytes may end like that.
        let counted = match bytes.is_ascii() {
            true => bytes.trim_ascii_end(),
            false => &bytes,
        };
        let message = match counted.len() {
            0 => "it is empty".to_owned(),
            short @ ..LEAST => format!("it has {short} bytes only"),
            LEAST..=MOST => return Ok(Some(Self::of(&bytes))),
            _ => format!("it has more than {MOST} bytes"),
        };
        let message = format!("{message}; make one with `head -c 32 /dev/urandom`");
        Err(io::Error::new(io::ErrorKind::InvalidData, message))
    }

    fn of(credential: &[u8]) -> Self {
        let credential = hmac::Key::new(hmac::HMAC_SHA256, credential);
        let number = hmac::sign(&credential, NUMBER);
        let number = number.as_ref().first_chunk().copied().unwrap_or_default();
        Self {
            id: u32::from_be_bytes(number),
            secret: hmac::sign(&credential, KEY).as_ref().to_vec(),
        }
    }
}
