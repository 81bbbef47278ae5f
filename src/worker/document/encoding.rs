//! Which characters the bytes of a text file stand for.
//!
//! What a file says of itself comes first: its mark, then what a web page declares. UTF-8 is told by
//! its form. Everything else is guessed as browsers guess it (chardetng), by which characters would
//! stand beside each other.

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};

/// Bytes in which a web page declares its encoding, as HTML has it.
const DECLARED_WITHIN: usize = 1024;
/// Bytes by which UTF-16 without a mark is told.
const SAMPLE: usize = 4096;
/// In UTF-8 with errors there are so many whole characters of several bytes for each error.
const WHOLE: usize = 10;
/// Of so many characters of a text one may be none of a text.
const ODD: usize = 50;
/// One may be where there are so many.
const LINE: usize = 16;

/// The characters of a file.
#[derive(Debug, PartialEq, Eq)]
pub struct Decoded {
    pub text: String,
    /// As the WHATWG's standard names it.
    pub encoding: &'static str,
}

/// The text of a file; `None` if it is none.
pub fn text(bytes: &[u8]) -> Option<Decoded> {
    let decoded = decode(bytes, None);
    is_text(&decoded.text).then_some(Decoded {
        text: decoded.text.replace('\0', "\u{FFFD}"),
        ..decoded
    })
}

/// The source of a web page.
pub fn page(bytes: &[u8]) -> Decoded {
    decode(bytes, declared(bytes))
}

fn decode(bytes: &[u8], declared: Option<&'static Encoding>) -> Decoded {
    let marked = Encoding::for_bom(bytes).map(|(encoding, _)| encoding);
    let encoding = marked
        .or_else(|| wide(bytes))
        .or_else(|| is_utf8(bytes).then_some(UTF_8))
        .or(declared.filter(|encoding| *encoding != UTF_8))
        .or_else(|| is_nearly_utf8(bytes).then_some(UTF_8))
        .unwrap_or_else(|| guess(bytes));
    let (text, _) = encoding.decode_with_bom_removal(bytes);
    Decoded {
        text: text.into_owned(),
        encoding: encoding.name(),
    }
}

/// UTF-16 without a mark: every other byte of most texts is zero.
fn wide(bytes: &[u8]) -> Option<&'static Encoding> {
    let (pairs, _) = bytes[..bytes.len().min(SAMPLE)].as_chunks::<2>();
    let zeros = |at: usize| pairs.iter().filter(|pair| pair[at] == 0).count();
    let (first, second) = (zeros(0), zeros(1));
    let (few, many) = (pairs.len() / 20, pairs.len().div_ceil(2));
    if pairs.len() < 2 {
        None
    } else if first <= few && second >= many {
        Some(UTF_16LE)
    } else if second <= few && first >= many {
        Some(UTF_16BE)
    } else {
        None
    }
}

/// ISO-2022-JP has bytes of ASCII alone, and switches by escapes that nothing else has.
fn is_utf8(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok() && !bytes.windows(2).any(|pair| pair == b"\x1B$")
}

/// A log in which a line was cut off within a character, or the like.
fn is_nearly_utf8(bytes: &[u8]) -> bool {
    let (mut whole, mut errors) = (0, 0);
    for chunk in bytes.utf8_chunks() {
        whole += chunk.valid().chars().filter(|c| !c.is_ascii()).count();
        errors += usize::from(!chunk.invalid().is_empty());
    }
    whole > 0 && whole >= errors * WHOLE
}

fn guess(bytes: &[u8]) -> &'static Encoding {
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Allow);
    detector.feed(bytes, true);
    detector.guess(None, Utf8Detection::Deny)
}

/// What a page's `<meta charset>`, its `<meta http-equiv>` or its XML declaration says.
fn declared(bytes: &[u8]) -> Option<&'static Encoding> {
    let head = bytes[..bytes.len().min(DECLARED_WITHIN)].to_ascii_lowercase();
    let tags = head.split(|byte| *byte == b'<').skip(1);
    tags.filter_map(|tag| {
        let tag = &tag[..tag.iter().position(|byte| *byte == b'>')?];
        let name: &[u8] = match tag {
            [b'm', b'e', b't', b'a', ..] => b"charset",
            [b'?', b'x', b'm', b'l', ..] => b"encoding",
            _ => return None,
        };
        let at = tag.windows(name.len()).position(|part| part == name)?;
        let value = tag[at + name.len()..].trim_ascii_start();
        let value = value.strip_prefix(b"=")?.trim_ascii_start();
        let value = value.strip_prefix(b"\"").unwrap_or(value);
        let value = value.strip_prefix(b"'").unwrap_or(value);
        let ends = |byte: &u8| matches!(byte, b'"' | b'\'' | b';' | b'/' | b'?' | b' ');
        Encoding::for_label(value.split(ends).next()?)
    })
    .next()
}

/// Whether characters are those of a text. Programs, archives and the like have others.
fn is_text(text: &str) -> bool {
    let is_odd = |c: &char| {
        let blank = matches!(c, '\t' | '\n' | '\x0B' | '\x0C' | '\r' | '\x08' | '\x1B');
        c.is_control() && !blank || *c == char::REPLACEMENT_CHARACTER
    };
    let (odd, all) = (text.chars().filter(is_odd).count(), text.chars().count());
    odd * ODD <= all || odd == 1 && all >= LINE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Option<(String, &'static str)> {
        text(bytes).map(|decoded| (decoded.text, decoded.encoding))
    }

    fn found(text: &str, encoding: &'static str) -> Option<(String, &'static str)> {
        Some((text.into(), encoding))
    }

    fn wide(text: &str, unit: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(unit).collect()
    }

    #[test]
    fn texts_are_read_as_what_they_were_written_in() {
        let german = "Größe, Fläche, Äpfel und Öl: 20 €";
        let (cp1252, ..) = encoding_rs::WINDOWS_1252.encode(german);
        assert_eq!(read(&cp1252), found(german, "windows-1252"));
        let japanese = "これは日本語の文章です。文字コードを調べます。";
        for encoding in [
            encoding_rs::SHIFT_JIS,
            encoding_rs::EUC_JP,
            encoding_rs::ISO_2022_JP,
        ] {
            let (bytes, ..) = encoding.encode(japanese);
            assert_eq!(read(&bytes), found(japanese, encoding.name()));
        }
        let russian = "Это обычный русский текст, и его надо прочесть.";
        for encoding in [encoding_rs::WINDOWS_1251, encoding_rs::KOI8_U] {
            let (bytes, ..) = encoding.encode(russian);
            assert_eq!(read(&bytes), found(russian, encoding.name()));
        }
        assert_eq!(read(german.as_bytes()), found(german, "UTF-8"));
        assert_eq!(
            read(&wide(german, u16::to_le_bytes)),
            found(german, "UTF-16LE")
        );
        assert_eq!(
            read(&wide(german, u16::to_be_bytes)),
            found(german, "UTF-16BE")
        );
        let marked = [b"\xFF\xFE".as_slice(), &wide(german, u16::to_le_bytes)].concat();
        assert_eq!(read(&marked), found(german, "UTF-16LE"));
    }

    #[test]
    fn one_wrong_byte_is_one_wrong_character() {
        let log = "10:00 café ouvert à l'heure, été, où, ça, là, très, déjà, crème\n".repeat(4);
        let cut = [log.as_bytes(), b"caf\xC3\n"].concat();
        assert_eq!(read(&cut), found(&format!("{log}caf\u{FFFD}\n"), "UTF-8"));
        let plain = "a line of a log\n".repeat(9);
        let zero = [plain.as_bytes(), b"a\0b\n"].concat();
        assert_eq!(read(&zero), found(&format!("{plain}a\u{FFFD}b\n"), "UTF-8"));
        let high = [plain.as_bytes(), b"\xFF\n"].concat();
        assert!(read(&high).is_some_and(|(text, _)| text.starts_with(&plain)));
    }

    #[test]
    fn what_is_no_text_is_none() {
        let bytes: Vec<u8> = (0..=255).cycle().take(4096).collect();
        assert_eq!(read(&bytes), None);
        assert_eq!(read(&[0; 512]), None);
        assert_eq!(read(&[0, 1, 2, 0xFF]), None);
        assert_eq!(
            read(b"#!AMR\n\x3c\x00\x10\x01\x02\x03\x91\x00\x04\x05"),
            None
        );
        assert_eq!(read(b""), found("", "UTF-8"));
    }

    #[test]
    fn pages_say_it_themselves() {
        let (latin, ..) = encoding_rs::WINDOWS_1252.encode("<p>Größe");
        for head in [
            "<meta charset=\"iso-8859-1\">",
            "<META CHARSET=latin1>",
            "<meta http-equiv='Content-Type' content='text/html; charset=windows-1252'>",
            "<?xml version='1.0' encoding='ISO-8859-1'?>",
        ] {
            let decoded = page(&[head.as_bytes(), &latin].concat());
            assert_eq!(decoded.encoding, "windows-1252", "{head}");
            assert!(decoded.text.ends_with("<p>Größe"), "{head}");
        }
        // What it is in fact comes before what it says.
        let utf8 = page("<meta charset=latin1><p>Größe".as_bytes());
        assert_eq!(
            (utf8.encoding, utf8.text.ends_with("Größe")),
            ("UTF-8", true)
        );
        let odd = page(&[b"<meta charset=nonsense><meta charset>".as_slice(), &latin].concat());
        assert!(odd.text.ends_with("<p>Größe"), "{odd:?}");
    }
}
