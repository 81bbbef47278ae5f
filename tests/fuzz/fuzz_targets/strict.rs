//! The gateway's reader of HTTP/1.1 against anything that a client may send: what it lets through has one
//! meaning, however it comes, and hyper's reader of heads finds the same requests in it.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../../src/gateway/strict.rs"]
mod strict;

use strict::{Doubt, HEAD_BYTES, Inspector};

fuzz_target!(|bytes: &[u8]| {
    let Some((step, sent)) = bytes.split_first() else { return };
    let good = match Inspector::default().read(sent) {
        Ok(()) => sent.len(),
        Err(Doubt { good, .. }) => good,
    };
    assert_eq!(in_pieces(sent, usize::from(*step) + 1), good);
    requests(&sent[..good]);
});

/// How many bytes are good when they come in pieces.
fn in_pieces(sent: &[u8], step: usize) -> usize {
    let mut inspector = Inspector::default();
    for (piece, part) in sent.chunks(step).enumerate() {
        if let Err(doubt) = inspector.read(part) {
            return piece * step + doubt.good;
        }
    }
    sent.len()
}

/// Reads what was let through as a lenient server would: heads by `httparse`, then the body by the framing that they
/// name. None of it is refused, and no head has two framings.
fn requests(mut sent: &[u8]) {
    while !sent.is_empty() {
        let mut headers = [httparse::EMPTY_HEADER; 101];
        let mut request = httparse::Request::new(&mut headers);
        let head = match request.parse(sent) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return,
            // A line that has not ended is not looked at before it does.
            Err(error) => return assert!(!has(sent, b"\r\n\r\n"), "{error}"),
        };
        assert!(head <= HEAD_BYTES && request.version == Some(1));
        let named = |name: &str| {
            let all = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
            let all: Vec<_> = all.map(|header| header.value).collect();
            assert!(all.len() <= 1, "{name} is there twice");
            all.first().copied()
        };
        let (length, coding) = (named("content-length"), named("transfer-encoding"));
        assert!(length.is_none() || coding.is_none());
        sent = &sent[head..];
        let left = match (length, coding) {
            (Some(length), _) => {
                let length: u64 = std::str::from_utf8(length).unwrap().parse().unwrap();
                sent.get(usize::try_from(length).unwrap()..)
            }
            (None, Some(coding)) => {
                assert!(coding.eq_ignore_ascii_case(b"chunked"));
                after_chunks(sent)
            }
            (None, None) => Some(sent),
        };
        let Some(left) = left else { return };
        sent = left;
    }
}

/// What is behind a body in chunks; `None` if it is not all there.
fn after_chunks(mut sent: &[u8]) -> Option<&[u8]> {
    loop {
        let (line, length) = match httparse::parse_chunk_size(sent) {
            Ok(httparse::Status::Complete(found)) => found,
            Ok(httparse::Status::Partial) => return None,
            Err(error) => {
                assert!(!has(sent, b"\r\n"), "{error:?}");
                return None;
            }
        };
        sent = &sent[line..];
        let end = usize::try_from(length).unwrap();
        let after = sent.get(end..)?;
        let Some(behind) = after.strip_prefix(b"\r\n") else {
            assert!(!has(after, b"\r\n"), "a chunk is longer than it says");
            return None;
        };
        sent = behind;
        if length == 0 {
            return Some(sent);
        }
    }
}

fn has(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|here| here == part)
}
