//! Files that are named by their addresses.

use url::Url;

use crate::api::parse::Invalid;
use crate::api::parse::json::Json;
use crate::chat::{MAX_URL_BYTES, Part, Remote, RemoteKind};

/// Whether a text is meant as an address on the network.
pub fn is_address(text: &str) -> bool {
    let scheme = text.split(':').next().unwrap_or_default();
    scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
}

/// The part that a file at this address becomes.
pub fn part(json: &Json, what: RemoteKind) -> Result<Part, Invalid> {
    let text = json.string()?;
    if text.len() > MAX_URL_BYTES {
        return json.wrong(format!(
            "has {} bytes; an address may have {MAX_URL_BYTES}",
            text.len()
        ));
    }
    match Url::parse(&text) {
        Ok(url) if !is_address(url.scheme()) => json.wrong("must be an `http` or `https` address"),
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            json.wrong("must not hold a name or password")
        }
        Ok(url) => Ok(Part::Remote(Remote {
            url: url.into(),
            what,
        })),
        Err(error) => json.wrong(format!("is not an address: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::parse::json::body;
    use crate::chat::Detail;

    fn parse(url: &str) -> Result<Part, Invalid> {
        let json = serde_json::json!({"url": url}).to_string();
        part(
            &body(json.as_bytes()).unwrap().take("url").unwrap(),
            RemoteKind::Picture(Detail::Low),
        )
    }

    #[test]
    fn addresses_are_made_plain() {
        for (url, plain) in [
            ("https://example.org/a.png", "https://example.org/a.png"),
            (
                "HTTP://Example.ORG:80/a b.png",
                "http://example.org/a%20b.png",
            ),
            ("http://0x7f.1/", "http://127.0.0.1/"),
            (
                "https://bücher.example/ä",
                "https://xn--bcher-kva.example/%C3%A4",
            ),
        ] {
            assert_eq!(
                parse(url),
                Ok(Part::Remote(Remote {
                    url: plain.into(),
                    what: RemoteKind::Picture(Detail::Low)
                })),
                "{url}"
            );
        }
        let long = format!("https://example.org/{}", "a".repeat(MAX_URL_BYTES));
        for (url, reason) in [
            ("http://", "is not an address"),
            ("https://[::1", "is not an address"),
            ("file:///etc/passwd", "must be an `http`"),
            ("http://user:secret@example.org/", "name or password"),
            (&long, "may have 8192"),
        ] {
            let error = parse(url).unwrap_err();
            assert!(
                error.reason.contains(reason) && !error.reason.contains("secret"),
                "{error}"
            );
        }
        assert!(is_address("HTTPS://x") && !is_address("data:image/png,https://x"));
    }
}
