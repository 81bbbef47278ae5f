//! The texts of tokens against anything that a client may send as one: nothing but what was written is taken.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../../src/access/token/secret.rs"]
mod secret;

use secret::{Number, PREFIX, verify, write};

const KEY_NUMBER: u32 = 3;
const KEY: [u8; 32] = [7; 32];

fuzz_target!(|bytes: &[u8]| {
    // What no key has signed.
    if let Ok(text) = std::str::from_utf8(bytes) {
        for text in [text.to_owned(), format!("{PREFIX}{text}")] {
            assert_eq!(verify(&text, key), None);
        }
    }
    // What was signed, and a change of it: places and characters.
    let Some((number, changes)) = bytes.split_first_chunk::<14>() else { return };
    let (id, expires) = number.split_first_chunk::<8>().unwrap();
    let mut later = [0; 8];
    later[2..].copy_from_slice(expires);
    let number = Number {
        id: u64::from_be_bytes(*id),
        expires: u64::from_be_bytes(later),
    };
    let text = write(number, KEY_NUMBER, &KEY);
    assert_eq!(verify(&text, key), Some(number));
    let mut changed = text.clone().into_bytes();
    for change in changes.chunks_exact(2) {
        let place = usize::from(change[0]) % changed.len();
        changed[place] = change[1];
    }
    if let Ok(changed) = String::from_utf8(changed) {
        assert_eq!(verify(&changed, key).is_some(), changed == text);
    }
});

fn key(number: u32) -> Option<&'static [u8]> {
    (number == KEY_NUMBER).then_some(&KEY[..])
}
