//! What is said of an answer in the headers of its response: who gave it, if not this machine, and what
//! of the request's schemas it is not held to.

use std::fmt::Write;

use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;

use crate::backend::Answer;

/// A list of places, separated by a comma and a blank.
const RELAXED: HeaderName = HeaderName::from_static("x-gemmad-schema-relaxed");
/// Places that are named; of others only their number is said.
const MAX_PLACES: usize = 20;
/// Bytes of one place.
const MAX_BYTES: usize = 200;

/// The upstream that answers.
const BACKEND: HeaderName = HeaderName::from_static("x-gemmad-backend");

/// What there is to say, known with an answer's first event.
#[derive(Debug, Default)]
pub struct Answered {
    relaxed: Vec<String>,
    upstream: Option<String>,
}

impl Answered {
    /// Of an answer that has begun. `upstream`: who gives it, if not this machine.
    pub fn new(relaxed: &[String], upstream: Option<&str>) -> Self {
        Self {
            relaxed: relaxed.to_vec(),
            upstream: upstream.map(str::to_owned),
        }
    }

    /// The same.
    pub fn of(answer: &Answer) -> Self {
        Self::new(&answer.relaxed, answer.upstream())
    }

    /// Says it on the response, if there is anything.
    pub fn said_on(&self, mut response: Response) -> Response {
        let relaxed = (!self.relaxed.is_empty()).then(|| list(&self.relaxed));
        for (name, value) in [(RELAXED, relaxed), (BACKEND, self.upstream.clone())] {
            if let Some(Ok(value)) = value.map(HeaderValue::try_from) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
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
        let said = |relaxed: &[String], upstream| {
            Answered::new(relaxed, upstream).said_on(Response::new(Body::empty()))
        };
        let none = said(&[], None);
        assert!(none.headers().is_empty());
        let places = ["f#/properties/größe/not".to_owned(), "#/a,b".to_owned()];
        let some = said(&places, Some("big"));
        assert_eq!(some.headers()[BACKEND], "big");
        assert_eq!(
            some.headers()[RELAXED],
            "f#/properties/gr%C3%B6%C3%9Fe/not, #/a%2Cb"
        );
        let many = vec!["x".repeat(1000); 25];
        let said = list(&many);
        assert!(said.ends_with("..., and 5 more") && said.len() < 20 * 220);
    }
}
