//! A request and the redirects that it meets: each is followed by the next worker.

use std::sync::atomic::AtomicBool;

use url::Url;

use super::leg::{self, End, Sink, server};
use super::way::Way;
use crate::backend::Failure;
use crate::ipc::{PullHead, PullRequest};

/// Addresses that one file may be moved to.
const MAX_REDIRECTS: usize = 8;
/// Bytes of an address.
const LONGEST_ADDRESS: usize = 16 << 10;

/// What the hub says of a file when it sends those who ask for it to another host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Linked {
    pub etag: Option<String>,
    pub bytes: Option<u64>,
}

/// Asks for a part of what is at `url`, wherever that is.
///
/// # Errors
/// The sink fails, or it is moved to where nothing is fetched from.
pub fn run(
    way: &Way,
    url: &Url,
    request: impl Fn(&Url) -> PullRequest,
    sink: &mut dyn Sink,
    stop: &AtomicBool,
) -> Result<(End, Linked), Failure> {
    let (first, mut url, mut linked) = (url, url.clone(), Linked::default());
    for _ in 0..=MAX_REDIRECTS {
        let mut request = request(&url);
        request.networks = way.networks(first, &url);
        match leg::run(way, &request, sink, stop)? {
            End::Redirected { to, etag, bytes } => {
                if linked == Linked::default() {
                    linked = Linked { etag, bytes };
                }
                url = moved(&url, &to)?;
            }
            end => return Ok((end, linked)),
        }
    }
    Err(server(format!(
        "it is moved more than {MAX_REDIRECTS} times"
    )))
}

/// Where a server sends those who ask for `url`.
fn moved(url: &Url, to: &str) -> Result<Url, Failure> {
    let next = url.join(to).ok().filter(|_| to.len() <= LONGEST_ADDRESS);
    match next.as_ref().map(|next| (url.scheme(), next.scheme())) {
        Some(("https", "http")) => Err(server(
            "it is moved to where it would come without encryption",
        )),
        Some((_, "http" | "https")) => Ok(next.unwrap_or_else(|| url.clone())),
        _ => Err(server("it is moved to what is no address")),
    }
}

/// Keeps what is short in memory.
pub struct Memory {
    pub bytes: Vec<u8>,
    pub head: PullHead,
}

impl Memory {
    pub fn new() -> Self {
        Self {
            bytes: vec![],
            head: PullHead::default(),
        }
    }
}

impl Sink for Memory {
    fn head(&mut self, head: &PullHead) -> Result<bool, Failure> {
        self.head = head.clone();
        self.bytes.clear();
        Ok(head.start == 0)
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moves_lead_to_addresses_and_keep_encryption() {
        let from = Url::parse("https://hub.example/a/b").unwrap();
        let to = |to: &str| moved(&from, to).map(String::from).ok();
        assert_eq!(to("/c").as_deref(), Some("https://hub.example/c"));
        assert_eq!(
            to("https://cdn.example/c").as_deref(),
            Some("https://cdn.example/c")
        );
        for bad in ["http://hub.example/c", "file:///etc/passwd", "https://"] {
            assert_eq!(to(bad), None, "{bad}");
        }
    }
}
