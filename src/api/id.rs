//! Names for answers, calls and requests.

use rustix::rand::{GetRandomFlags, getrandom};

/// `prefix` and 24 random hexadecimal digits.
pub fn random(prefix: &str) -> String {
    let mut bytes = [0u8; 12];
    // It cannot fail for so few bytes on a running system; and a name of zeros would harm nobody.
    let _ = getrandom(&mut bytes, GetRandomFlags::empty());
    bytes.iter().fold(String::from(prefix), |mut id, byte| {
        for digit in [byte >> 4, byte & 15] {
            id.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
        }
        id
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_differ() {
        let (a, b) = (super::random("call_"), super::random("call_"));
        assert_eq!(a.len(), 29);
        assert!(a.starts_with("call_"));
        assert_ne!(a, b);
    }
}
