//! How a token is written: `gmd_` and 68 characters, which are the base64 of
//!
//! | bytes | |
//! |---|---|
//! | 1 | the version of this form |
//! | 4 | the key's number |
//! | 8 | the token's number |
//! | 6 | when it expires, in seconds since 1970 |
//! | 32 | HMAC-SHA256 of a word and the 19 bytes before |

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;

/// What every token begins with: programs that look for secrets in sources and logs find it.
pub const PREFIX: &str = "gmd_";

const VERSION: u8 = 1;
/// What is signed begins with this, so that a signature is good for nothing else.
const PURPOSE: &[u8] = b"gemmad token\0";
const HEAD: usize = 1 + 4 + 8 + 6;
const TAG: usize = 32;
/// Characters after the prefix.
const LENGTH: usize = (HEAD + TAG) / 3 * 4;

/// What the text of a token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number {
    pub id: u64,
    /// Seconds since 1970.
    pub expires: u64,
}

/// The text of a token. `key`: 32 bytes.
pub fn write(number: Number, key_number: u32, key: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(HEAD + TAG);
    bytes.push(VERSION);
    bytes.extend(key_number.to_be_bytes());
    bytes.extend(number.id.to_be_bytes());
    bytes.extend(&number.expires.to_be_bytes()[2..]);
    let tag = hmac::sign(
        &hmac::Key::new(hmac::HMAC_SHA256, key),
        &[PURPOSE, &bytes].concat(),
    );
    bytes.extend(tag.as_ref());
    format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
}

/// What a text says, if the key of its number has signed it; `key` knows them. The signature is
/// compared in constant time.
pub fn verify<'a>(text: &str, key: impl Fn(u32) -> Option<&'a [u8]>) -> Option<Number> {
    let text = text.strip_prefix(PREFIX)?;
    if text.len() != LENGTH {
        return None;
    }
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let (head, tag) = bytes.split_at_checked(HEAD)?;
    let (version, rest) = head.split_first()?;
    let (key_number, rest) = rest.split_first_chunk()?;
    let (id, expires) = rest.split_first_chunk()?;
    let key = key(u32::from_be_bytes(*key_number))?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::verify(&key, &[PURPOSE, head].concat(), tag).ok()?;
    (*version == VERSION).then(|| Number {
        id: u64::from_be_bytes(*id),
        expires: expires
            .iter()
            .fold(0, |all, byte| all << 8 | u64::from(*byte)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [7; 32];
    const NUMBER: Number = Number {
        id: 0x0123_4567_89ab_cdef,
        expires: 1_800_000_000,
    };

    fn read(text: &str) -> Option<Number> {
        verify(text, |number| (number == 3).then_some(&KEY[..]))
    }

    #[test]
    fn what_is_written_is_read() {
        let text = write(NUMBER, 3, &KEY);
        assert_eq!(text.len(), 72);
        assert!(text.starts_with("gmd_"));
        assert_eq!(read(&text), Some(NUMBER));
    }

    #[test]
    fn nothing_can_be_changed() {
        let text = write(NUMBER, 3, &KEY);
        for at in 0..text.len() {
            for other in ["A", "B", "-", "=", "\u{e4}"] {
                let mut changed = text.clone();
                changed.replace_range(at..=at, other);
                assert!(changed == text || read(&changed).is_none(), "{changed}");
            }
        }
        for wrong in ["", "gmd_", &text[..71], &text[4..], &format!("{text}A")] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn another_key_signs_nothing() {
        assert_eq!(read(&write(NUMBER, 3, &[8; 32])), None);
        assert_eq!(read(&write(NUMBER, 4, &KEY)), None);
    }
}
