//! What of a request's schemas its answer is not held to, said on the answer.

use std::fmt::Write;

use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;

/// A list of places, separated by a comma and a blank.
const RELAXED: HeaderName = HeaderName::from_static("x-gemmad-schema-relaxed");
/// Places that are named; of others only their number is said.
const MAX_PLACES: usize = 20;
/// Bytes of one place.
const MAX_BYTES: usize = 200;

/// Says on the answer what its schemas ask for and is not kept to, if there is anything.
pub fn with_header(mut response: Response, places: &[String]) -> Response {
    if !places.is_empty()
        && let Ok(value) = HeaderValue::try_from(list(places))
    {
        response.headers_mut().insert(RELAXED, value);
    }
    response
}

fn list(places: &[String]) -> String {
    let shown = places.iter().take(MAX_PLACES).map(|place| encoded(place));
    let mut list = shown.collect::<Vec<_>>().join(", ");
    if places.len() > MAX_PLACES {
        // Writing into a string does not fail.
        let _ = write!(list, ", and {} more", places.len() - MAX_PLACES);
    }
    list
}

/// A pointer as the fragment of a URI has it (RFC 6901, section 6); a comma ends none.
fn encoded(place: &str) -> String {
    let mut out = String::new();
    for byte in place.bytes() {
        if out.len() > MAX_BYTES {
            out.push_str("...");
            break;
        }
        if byte.is_ascii_graphic() && !b",%\"\\".contains(&byte) {
            out.push(byte.into());
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    #[test]
    fn places_are_listed() {
        let none = with_header(Response::new(Body::empty()), &[]);
        assert!(none.headers().is_empty());
        let places = ["f#/properties/größe/not".to_owned(), "#/a,b".to_owned()];
        let some = with_header(Response::new(Body::empty()), &places);
        assert_eq!(
            some.headers()[RELAXED],
            "f#/properties/gr%C3%B6%C3%9Fe/not, #/a%2Cb"
        );
        let many = vec!["x".repeat(1000); 25];
        let said = list(&many);
        assert!(said.ends_with("..., and 5 more") && said.len() < 20 * 220);
    }
}
