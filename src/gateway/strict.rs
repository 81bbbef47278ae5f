//! What HTTP/1.1 a client may send. Pure.
//!
//! Whoever reads a request differently from whoever passed it on takes a part of it for another
//! request. So each byte that a client sends is read here first, by rules that leave nothing to be
//! read in two ways: lines end in CR LF; a head has no folded line, no blank before a colon and no
//! control character; its target begins with a slash; its body has one length, or comes in chunks
//! without extensions and trailers. What is allowed by HTTP beyond that, no client needs.

use std::mem;

/// Bytes of a request's head.
pub const HEAD_BYTES: usize = 16 << 10;
/// Lines of it.
const LINES: usize = 100;
/// Digits of a chunk's length.
const CHUNK_DIGITS: usize = 8;
/// Digits of a body's length.
const LENGTH_DIGITS: usize = 15;

/// Why a client's bytes are not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// In a request's head.
    Head,
    /// In the framing of its body.
    Body,
}

/// That there is a fault, and how many of the bytes before it are good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doubt {
    pub good: usize,
    pub fault: Fault,
}

/// Reads what one connection brings.
#[derive(Debug, Default)]
pub struct Inspector {
    at: Place,
    /// The line that is being read, without its end.
    line: Vec<u8>,
    /// Bytes and lines of this head so far.
    head: usize,
    lines: usize,
    framing: Framing,
}

/// How the body of the head that is being read will be framed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Framing {
    #[default]
    None,
    Length(u64),
    Chunks,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    RequestLine,
    HeaderLine,
    /// So many bytes of a body, or of a chunk.
    Data {
        left: u64,
        chunked: bool,
    },
    ChunkLine,
    /// The empty line after a chunk's bytes.
    ChunkEnd,
    /// The one after the last chunk.
    LastLine,
}

impl Inspector {
    /// Reads on. After a fault nothing more may be read.
    pub fn read(&mut self, all: &[u8]) -> Result<(), Doubt> {
        let mut bytes = all;
        while let Some(first) = bytes.first() {
            if let Place::Data { left, chunked } = self.at {
                let taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                bytes = &bytes[taken..];
                self.at = match (left - taken as u64, chunked) {
                    (0, true) => Place::ChunkEnd,
                    (0, false) => Place::RequestLine,
                    (left, chunked) => Place::Data { left, chunked },
                };
                continue;
            }
            let good = all.len() - bytes.len();
            self.byte(*first).map_err(|fault| Doubt { good, fault })?;
            bytes = &bytes[1..];
        }
        Ok(())
    }

    /// Whether it is between two requests.
    #[cfg(test)]
    fn is_between(&self) -> bool {
        self.at == Place::RequestLine && self.line.is_empty()
    }

    fn byte(&mut self, byte: u8) -> Result<(), Fault> {
        let in_head = matches!(self.at, Place::RequestLine | Place::HeaderLine);
        let fault = if in_head { Fault::Head } else { Fault::Body };
        if in_head {
            self.head += 1;
        }
        let most = if in_head {
            HEAD_BYTES
        } else {
            CHUNK_DIGITS + 2
        };
        if self.head > HEAD_BYTES || self.line.len() >= most {
            return Err(fault);
        }
        let after_return = self.line.last() == Some(&b'\r');
        match byte {
            b'\n' if after_return => {
                self.line.pop();
                let line = mem::take(&mut self.line);
                self.line(&line).ok_or(fault)
            }
            // A line feed alone, or a carriage return that ends no line.
            b'\n' => Err(fault),
            _ if after_return => Err(fault),
            byte => {
                self.line.push(byte);
                Ok(())
            }
        }
    }

    /// A whole line, without its end.
    fn line(&mut self, line: &[u8]) -> Option<()> {
        match self.at {
            Place::RequestLine => {
                is_request_line(line).then_some(())?;
                self.at = Place::HeaderLine;
            }
            Place::HeaderLine if line.is_empty() => {
                self.at = match mem::take(&mut self.framing) {
                    Framing::None | Framing::Length(0) => Place::RequestLine,
                    Framing::Length(left) => Place::Data {
                        left,
                        chunked: false,
                    },
                    Framing::Chunks => Place::ChunkLine,
                };
                (self.head, self.lines) = (0, 0);
            }
            Place::HeaderLine => {
                self.lines += 1;
                let (name, value) = header(line).filter(|_| self.lines <= LINES)?;
                self.framing = framing(self.framing, name, value)?;
            }
            Place::ChunkLine => {
                self.at = match chunk_length(line)? {
                    0 => Place::LastLine,
                    left => Place::Data {
                        left,
                        chunked: true,
                    },
                };
            }
            Place::ChunkEnd => {
                line.is_empty().then_some(())?;
                self.at = Place::ChunkLine;
            }
            Place::LastLine => {
                line.is_empty().then_some(())?;
                self.at = Place::RequestLine;
            }
            // Has no lines.
            Place::Data { .. } => return None,
        }
        Some(())
    }
}

/// `METHOD /target HTTP/1.1`. Whole addresses are for proxies.
fn is_request_line(line: &[u8]) -> bool {
    let mut parts = line.split(|byte| *byte == b' ');
    let (method, target, version) = (parts.next(), parts.next(), parts.next());
    let is_method = |method: &[u8]| {
        (1..=16).contains(&method.len()) && method.iter().all(u8::is_ascii_uppercase)
    };
    let is_target = |target: &[u8]| {
        target.starts_with(b"/") && target.iter().all(|b| b.is_ascii_graphic() && *b != b'#')
    };
    method.is_some_and(is_method)
        && target.is_some_and(is_target)
        && version == Some(b"HTTP/1.1")
        && parts.next().is_none()
}

/// The name and the value of a header's line.
fn header(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    let in_name = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    let in_value = |b: &u8| *b == b'\t' || *b >= b' ' && *b != 0x7f;
    let is_header = !name.is_empty() && name.iter().all(in_name) && value.iter().all(in_value);
    is_header.then(|| (name, value.trim_ascii()))
}

/// The framing after one more header, if the two go together.
fn framing(before: Framing, name: &[u8], value: &[u8]) -> Option<Framing> {
    if name.eq_ignore_ascii_case(b"content-length") {
        let is_number =
            (1..=LENGTH_DIGITS).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
        let length = str::from_utf8(value).ok()?.parse().ok()?;
        return (before == Framing::None && is_number).then_some(Framing::Length(length));
    }
    if name.eq_ignore_ascii_case(b"transfer-encoding") {
        let is_chunked = value.eq_ignore_ascii_case(b"chunked");
        return (before == Framing::None && is_chunked).then_some(Framing::Chunks);
    }
    Some(before)
}

/// The length that a chunk's first line says.
fn chunk_length(line: &[u8]) -> Option<u64> {
    let is_number =
        (1..=CHUNK_DIGITS).contains(&line.len()) && line.iter().all(u8::is_ascii_hexdigit);
    let text = str::from_utf8(line).ok().filter(|_| is_number)?;
    u64::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, step: usize) -> Result<bool, Fault> {
        let mut inspector = Inspector::default();
        for part in text.as_bytes().chunks(step) {
            inspector.read(part).map_err(|doubt| doubt.fault)?;
        }
        Ok(inspector.is_between())
    }

    const GET: &str = "GET /v1/models?x=%20 HTTP/1.1\r\nHost: localhost\r\nX-Empty:\r\n\r\n";
    const POST: &str = "POST /a HTTP/1.1\r\nhost: x\r\nContent-Length: 5\r\n\r\n\n\r\n\0\r";
    const CHUNKS: &str = "POST /a HTTP/1.1\r\nhost: x\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\nGET /\r\n0A\r\n0123456789\r\n0\r\n\r\n";

    #[test]
    fn plain_requests_are_read_however_they_come() {
        let all = [GET, POST, CHUNKS, GET].concat();
        for step in [1, 2, 3, 7, 50, all.len()] {
            assert_eq!(read(&all, step), Ok(true), "{step}");
        }
        assert_eq!(read(&GET[..GET.len() - 1], 9), Ok(false));
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let head = |rest: &str| format!("POST /a HTTP/1.1\r\nhost: x\r\n{rest}\r\n\r\n");
        let heads = [
            head("Content-Length: 5\r\nTransfer-Encoding: chunked"),
            head("Transfer-Encoding: chunked\r\nContent-Length: 5"),
            head("Content-Length: 5\r\nContent-Length: 5"),
            head("Content-Length: 5\r\ncontent-length: 6"),
            head("Content-Length: 5, 5"),
            head("Content-Length: +5"),
            head("Content-Length: 0x5"),
            head("Content-Length:"),
            head("Content-Length: 9999999999999999"),
            head("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
            head("Transfer-Encoding: gzip, chunked"),
            head("Transfer-Encoding: identity"),
            head("Transfer-Encoding: \u{b}chunked"),
            head("Transfer-Encoding : chunked"),
            head(" Transfer-Encoding: chunked"),
            head("X: a\r\n Transfer-Encoding: chunked"),
            head("X: a\r\n\tb"),
            head("X: a\nTransfer-Encoding: chunked"),
            head("X: a\rb"),
            head("X: a\0b"),
            head("X"),
            head(": x"),
            head("X\u{e4}: a"),
            "\r\nGET / HTTP/1.1\r\n\r\n".into(),
            "GET / HTTP/1.1\n\n".into(),
            "GET  / HTTP/1.1\r\n\r\n".into(),
            "GET / HTTP/1.0\r\n\r\n".into(),
            "GET /\r\n\r\n".into(),
            "GET / HTTP/1.1 \r\n\r\n".into(),
            "GET http://daemon/ HTTP/1.1\r\n\r\n".into(),
            "CONNECT daemon:80 HTTP/1.1\r\n\r\n".into(),
            "OPTIONS * HTTP/1.1\r\n\r\n".into(),
            "GET /a#b HTTP/1.1\r\n\r\n".into(),
            "GET /\u{e4} HTTP/1.1\r\n\r\n".into(),
            "get / HTTP/1.1\r\n\r\n".into(),
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(),
            format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(HEAD_BYTES)),
            head(&"X: a\r\n".repeat(LINES + 1)),
        ];
        for text in heads {
            for step in [1, 8, text.len()] {
                assert_eq!(read(&text, step), Err(Fault::Head), "{text:?}");
            }
        }
    }

    #[test]
    fn chunks_have_a_length_and_nothing_else() {
        let body = |chunks: &str| {
            format!("POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}")
        };
        for chunks in [
            "5;a=b\r\nGET /\r\n0\r\n\r\n",
            "5 \r\nGET /\r\n0\r\n\r\n",
            "0x5\r\nGET /\r\n0\r\n\r\n",
            "-1\r\n",
            "\r\n",
            "5\nGET /\r\n0\r\n\r\n",
            "5\r\nGET / \r\n",
            "5\r\nGET /0\r\n\r\n",
            "000000000000000005\r\n",
            "FFFFFFFFF\r\n",
            "0\r\nX-Gemmad-Peer: ::1\r\n\r\n",
            "0\r\nGET / HTTP/1.1\r\n\r\n",
        ] {
            for step in [1, 4, 1000] {
                assert_eq!(read(&body(chunks), step), Err(Fault::Body), "{chunks:?}");
            }
        }
    }

    proptest::proptest! {
        /// However the bytes are divided, the same is made of them.
        #[test]
        fn pieces_do_not_matter(bytes in proptest::collection::vec(0u8..=255, 0..200), step in 1usize..20) {
            let whole = {
                let mut inspector = Inspector::default();
                inspector.read(&bytes).map_err(|doubt| (doubt.good, doubt.fault))
            };
            let mut inspector = Inspector::default();
            let pieces = bytes.chunks(step).enumerate().try_for_each(|(piece, part)| {
                inspector.read(part).map_err(|doubt| (piece * step + doubt.good, doubt.fault))
            });
            proptest::prop_assert_eq!(whole, pieces);
        }
    }
}
