//! Names for answers, calls and requests.

use axum::http::{HeaderMap, HeaderValue};
use rustix::rand::{GetRandomFlags, getrandom};

/// The header that names a request, in both directions.
pub const REQUEST: &str = "x-request-id";
/// The same for clients of Anthropic's API.
pub const ANTHROPIC_REQUEST: &str = "request-id";
/// Bytes of a client's own name for its request.
const MAX_REQUEST_BYTES: usize = 128;

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

/// What a request is called in its answer and in the log: as its client calls it, if that is a
/// plain word.
pub fn of_request(headers: &HeaderMap) -> HeaderValue {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte);
    let own = headers.get(REQUEST).filter(|id| {
        (1..=MAX_REQUEST_BYTES).contains(&id.len()) && id.as_bytes().iter().all(plain)
    });
    own.cloned()
        .or_else(|| HeaderValue::try_from(random("req_")).ok())
        .unwrap_or(HeaderValue::from_static("req_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ() {
        let (a, b) = (random("call_"), random("call_"));
        assert_eq!(a.len(), 29);
        assert!(a.starts_with("call_"));
        assert_ne!(a, b);
    }

    #[test]
    fn a_clients_own_name_is_kept_if_it_is_plain() {
        let named = |id: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST, HeaderValue::from_bytes(id.as_bytes()).unwrap());
            of_request(&headers).to_str().unwrap().to_owned()
        };
        assert_eq!(named("3f2b-11_a.b:c"), "3f2b-11_a.b:c");
        for odd in ["", "a b", "é", &"a".repeat(129)] {
            assert!(named(odd).starts_with("req_"), "{odd}");
        }
        assert_eq!(of_request(&HeaderMap::new()).len(), 28);
    }
}
