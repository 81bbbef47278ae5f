//! What a request asked for and was left out, said on its answer: `x-gemmad-ignored: tools[2]
//! web_search, tools[5] mcp`.
//!
//! Left out is only what a client cannot help sending and what the answer can do without: tools
//! that another service would run, and what such a service left in a history.

use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;

pub const HEADER: HeaderName = HeaderName::from_static("x-gemmad-ignored");

/// Things that are named one by one; the rest is counted.
const MAX_NAMED: usize = 32;
/// Bytes of one thing's field and name.
const MAX_BYTES: usize = 120;

/// The list of them, in the order of the request. Bounded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ignored {
    named: Vec<String>,
    more: usize,
}

impl Ignored {
    /// Notes that `what`, which stands in `field`, was left out.
    pub fn note(&mut self, field: &str, what: &str) {
        if self.named.len() == MAX_NAMED {
            self.more += 1;
            return;
        }
        // What a client wrote must neither end the header nor look like two things.
        let plain = |c: char| match c {
            ',' => ';',
            ' '..='~' => c,
            _ => '?',
        };
        let text = format!("{field} {what}");
        self.named
            .push(text.trim().chars().map(plain).take(MAX_BYTES).collect());
    }

    /// The header's value; `None` if nothing was left out.
    pub fn value(&self) -> Option<String> {
        let more = (self.more > 0).then(|| format!("and {} more", self.more));
        let list: Vec<String> = self.named.iter().cloned().chain(more).collect();
        (!list.is_empty()).then(|| list.join(", "))
    }

    /// The answer with the header, if anything was left out.
    pub fn said_on(&self, mut response: Response) -> Response {
        if let Some(value) = self
            .value()
            .and_then(|value| HeaderValue::try_from(value).ok())
        {
            response.headers_mut().insert(HEADER, value);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    #[test]
    fn what_was_left_out_is_listed_in_one_line() {
        let mut ignored = Ignored::default();
        assert_eq!(ignored.value(), None);
        assert!(
            ignored
                .said_on(Response::new(Body::empty()))
                .headers()
                .is_empty()
        );
        ignored.note("tools[2]", "web_search");
        ignored.note("tools[3]", "größe, a\r\nx: y");
        let response = ignored.said_on(Response::new(Body::empty()));
        assert_eq!(
            response.headers()[HEADER],
            "tools[2] web_search, tools[3] gr??e; a??x: y"
        );
        for _ in 0..40 {
            ignored.note(&"x".repeat(1000), "");
        }
        let value = ignored.value().unwrap();
        assert!(value.ends_with(", and 10 more") && value.len() < 32 * 122 + 20);
    }
}
