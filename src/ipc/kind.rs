//! What a file is, as its content says. Pure.

use std::borrow::Cow;

use super::DocumentKind;

/// Where a PDF's signature may stand: some programs write before it.
const SIGNATURE_WITHIN: usize = 1024;
/// Beginnings of pictures; the worker looks closer.
const PICTURES: [&[u8]; 10] = [
    b"\x89PNG",
    b"\xFF\xD8\xFF",
    b"GIF8",
    b"BM",
    b"RIFF",
    b"II*\0",
    b"MM\0*",
    b"8BPS\0",
    b"\0\0\0\x0CJXL ",
    b"\0\0\0\x0CjP  ",
];
/// Brands of pictures and sounds in a container of the MP4 family; those of all others are videos.
const PICTURE_BRANDS: [&[u8; 4]; 9] = [
    b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1", b"avif", b"avis", b"crx ",
];
const SOUND_BRANDS: [&[u8; 4]; 2] = [b"M4A ", b"M4B "];
const VIDEO: &str = "is a video; send frames of it as images, and its sound as `input_audio`";
/// Beginnings of sounds: Ogg, FLAC, and MP3 with its labels (of version 2.2 to 2.4) or a frame of
/// layer III.
const SOUNDS: [&[u8]; 9] = [
    b"OggS\0",
    b"fLaC\0",
    b"ID3\x02",
    b"ID3\x03",
    b"ID3\x04",
    b"\xFF\xFB",
    b"\xFF\xFA",
    b"\xFF\xF3",
    b"\xFF\xF2",
];
/// Kinds of files that are known and not read, by their beginnings.
const UNSUPPORTED: [(&[u8], &str); 7] = [
    (b"FLV\x01", VIDEO),
    (b"\0\0\x01\xBA", VIDEO),
    (
        b"\x30\x26\xB2\x75\x8E\x66\xCF\x11",
        "is a video or a sound (WMV, WMA); send frames of it as images, or its sound as WAV in `input_audio`",
    ),
    (b"\x1F\x8B", "is compressed (gzip); send what is in it"),
    (b"\x7FELF", "is a program"),
    (
        b"\x1A\x45\xDF\xA3",
        "is a video or a sound (WebM, Matroska); send frames of it as images, and its sound as `input_audio`",
    ),
    (
        b"#!AMR",
        "is a sound (AMR); send it as WAV or Ogg in `input_audio`",
    ),
];
/// The begin of the container of old office documents, and the bytes of one of its entries.
const COMPOUND: &[u8] = b"\xD0\xCF\x11\xE0";
const COMPOUND_ENTRY: usize = 128;
/// What is in such a container, by the name of an entry.
const COMPOUNDS: [(&str, &str); 6] = [
    (
        "EncryptedPackage",
        "is an office document that is protected with a password; save it without one",
    ),
    (
        "WordDocument",
        "is a Word document of the old kind (doc); save it as docx or PDF",
    ),
    (
        "Workbook",
        "is an Excel workbook of the old kind (xls); save it as xlsx or PDF",
    ),
    (
        "Book",
        "is an Excel workbook of the old kind (xls); save it as xlsx or PDF",
    ),
    (
        "PowerPoint Document",
        "is a PowerPoint presentation of the old kind (ppt); save it as pptx or PDF",
    ),
    (
        "__properties_version1.0",
        "is a mail of Outlook (msg); save it as eml or text",
    ),
];
/// Headers that only mails have.
const OF_MAILS: [&str; 4] = ["message-id", "mime-version", "received", "return-path"];
/// Bytes by which kinds of text are told.
const SAMPLE: usize = 64 << 10;
const UTF8_MARK: &[u8] = b"\xEF\xBB\xBF";

/// A file that a model takes as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    Picture,
    Sound,
}

/// Which medium a file is, as its first bytes say; `None` for text and for what is read by a worker
/// or not at all.
pub fn medium(file: &[u8]) -> Option<Medium> {
    let begins = |with: &[&[u8]]| with.iter().any(|begin| file.starts_with(begin));
    if begins(&[b"RIFF"]) && file.get(8..12) == Some(b"WAVE") || begins(&SOUNDS) {
        return Some(Medium::Sound);
    }
    if let Some(brand) = brand(file) {
        return match brand {
            brand if PICTURE_BRANDS.contains(&brand) => Some(Medium::Picture),
            brand if SOUND_BRANDS.contains(&brand) => Some(Medium::Sound),
            _ => None,
        };
    }
    // Words can begin like a picture.
    (begins(&PICTURES) && !is_text(file)).then_some(Medium::Picture)
}

/// The brand of a container of the MP4 family.
fn brand(file: &[u8]) -> Option<&[u8; 4]> {
    match file.get(4..8)? {
        b"ftyp" => file.get(8..)?.first_chunk(),
        _ => None,
    }
}

/// How a file is read.
#[derive(Debug, PartialEq)]
pub enum Reader<'a> {
    /// It is text already, in UTF-8, or in UTF-16 with a mark and translated.
    Text(Cow<'a, str>),
    /// It is a picture.
    Picture,
    /// By a worker.
    Worker(DocumentKind),
}

/// Goes by what is in the file; the name only tells a web page from text that looks like one. The
/// error continues "the file …".
pub fn reader<'a>(name: &str, file: &'a [u8]) -> Result<Reader<'a>, String> {
    let lower = name.to_ascii_lowercase();
    if is_pdf(&lower, file) {
        return Ok(Reader::Worker(DocumentKind::Pdf));
    }
    if file.starts_with(b"PK\x03\x04") || file.starts_with(b"PK\x05\x06") {
        return Ok(Reader::Worker(DocumentKind::Office));
    }
    if file.starts_with(b"{\\rtf") {
        return Ok(Reader::Worker(DocumentKind::Rich));
    }
    if file.starts_with(COMPOUND) {
        return Err(compound(file).into());
    }
    if let Some((_, reason)) = UNSUPPORTED
        .iter()
        .find(|(begin, _)| file.starts_with(begin))
    {
        return Err((*reason).into());
    }
    match medium(file) {
        Some(Medium::Picture) => return Ok(Reader::Picture),
        Some(Medium::Sound) => return Err("is a sound; send it as `input_audio`".into()),
        None if brand(file).is_some() => return Err(VIDEO.into()),
        None => {}
    }
    let text = text(file);
    // In every other encoding that is in use a tag is as in ASCII.
    let begin = text.as_ref().map_or(file, |text| text.as_bytes());
    let begin = begin.trim_ascii_start();
    let begins = |with: &str| {
        begin
            .get(..with.len())
            .is_some_and(|part| part.eq_ignore_ascii_case(with.as_bytes()))
    };
    let named = [".html", ".htm", ".xhtml"]
        .iter()
        .any(|end| lower.ends_with(end));
    if named || begins("<!doctype html") || begins("<html") {
        return Ok(Reader::Worker(DocumentKind::Html));
    }
    if let Some(kind) = written(&lower, begin) {
        return Ok(Reader::Worker(kind));
    }
    Ok(text.map_or(Reader::Worker(DocumentKind::Text), Reader::Text))
}

/// What kind of text it is, if it is one that is laid out otherwise than it is written. The worker
/// looks closer, and takes for text what is none of it.
fn written(name: &str, text: &[u8]) -> Option<DocumentKind> {
    let head = &text[..text.len().min(SAMPLE)];
    let holds = |word: &str| head.windows(word.len()).any(|part| part == word.as_bytes());
    if text.starts_with(b"{")
        && (name.ends_with(".ipynb") || holds("\"cells\"") && holds("\"cell_type\""))
    {
        return Some(DocumentKind::Notebook);
    }
    if is_mail(name, head) {
        return Some(DocumentKind::Mail);
    }
    let named = [".csv", ".tsv", ".tab"]
        .iter()
        .any(|end| name.ends_with(end));
    named.then_some(DocumentKind::Table)
}

/// Whether a text begins with the headers of a mail: with such as no other text has, or with usual
/// ones under a mail's name.
fn is_mail(name: &str, head: &[u8]) -> bool {
    let (mut from, mut sure, mut before) = (false, name.ends_with(".eml"), false);
    for line in head.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            break;
        }
        // A header that goes on.
        if matches!(line[0], b' ' | b'\t') && before {
            continue;
        }
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        let is_header = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if name.is_empty() || name.len() == line.len() || !name.iter().all(is_header) {
            return false;
        }
        before = true;
        from |= is("from");
        sure |= OF_MAILS.iter().any(|known| is(known));
    }
    from && sure
}

/// What to do about a file of the container that Microsoft's office once had: the names in it tell
/// what it is.
fn compound(file: &[u8]) -> &'static str {
    let names = || file.chunks_exact(COMPOUND_ENTRY);
    let is_there = |name: &str| {
        let wide: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
        names().any(|entry| entry.starts_with(&wide))
    };
    for (name, reason) in COMPOUNDS {
        if is_there(name) {
            return reason;
        }
    }
    "is an office document of an old kind; save it as PDF, docx, xlsx or pptx"
}

/// Some programs write before the signature; a text may speak of it.
fn is_pdf(name: &str, file: &[u8]) -> bool {
    const SIGNATURE: &[u8] = b"%PDF-";
    let head = &file[..file.len().min(SIGNATURE_WITHIN)];
    let is_there = || head.windows(SIGNATURE.len()).any(|part| part == SIGNATURE);
    head.trim_ascii_start().starts_with(SIGNATURE)
        || is_there() && (name.ends_with(".pdf") || !is_text(file))
}

/// The characters of a text file; `None` if it is none.
fn text(file: &[u8]) -> Option<Cow<'_, str>> {
    let text = match wide_units(file) {
        Some(units) => Cow::Owned(
            char::decode_utf16(units)
                .collect::<Result<String, _>>()
                .ok()?,
        ),
        None => Cow::Borrowed(narrow(file)?),
    };
    // No text has any.
    (!text.contains('\0')).then_some(text)
}

/// As [`text`], without making one.
fn is_text(file: &[u8]) -> bool {
    match wide_units(file) {
        Some(units) => char::decode_utf16(units).all(|c| c.is_ok_and(|c| c != '\0')),
        None => narrow(file).is_some_and(|text| !text.contains('\0')),
    }
}

/// UTF-8, with or without its mark.
fn narrow(file: &[u8]) -> Option<&str> {
    std::str::from_utf8(file.strip_prefix(UTF8_MARK).unwrap_or(file)).ok()
}

/// The units of a file that is marked as UTF-16; one that breaks off within a unit ends with one
/// that is no character.
fn wide_units(file: &[u8]) -> Option<impl Iterator<Item = u16>> {
    const NO_CHARACTER: u16 = 0xD800;
    let (rest, unit): (_, fn([u8; 2]) -> u16) = match file {
        [0xFF, 0xFE, rest @ ..] => (rest, u16::from_le_bytes),
        [0xFE, 0xFF, rest @ ..] => (rest, u16::from_be_bytes),
        _ => return None,
    };
    let (pairs, odd) = rest.as_chunks::<2>();
    let units = pairs.iter().map(move |pair| unit(*pair));
    Some(units.chain((!odd.is_empty()).then_some(NO_CHARACTER)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_by_what_is_in_them() {
        let text = |text: &'static str| Ok(Reader::Text(text.into()));
        for (name, file, expected) in [
            ("a.txt", &b"hi"[..], text("hi")),
            ("a.txt", b"\xEF\xBB\xBFhi", text("hi")),
            ("a.txt", b"\xFF\xFEh\0i\0", text("hi")),
            ("a.txt", b"\xFE\xFF\0h\0i", text("hi")),
            (
                "a.csv",
                b"a,b\n1,2\n",
                Ok(Reader::Worker(DocumentKind::Table)),
            ),
            ("a.txt", b"a,b\n1,2\n", text("a,b\n1,2\n")),
            (
                "a.txt",
                b"PK\x03\x04",
                Ok(Reader::Worker(DocumentKind::Office)),
            ),
            (
                "a.doc",
                b"{\\rtf1 hi}",
                Ok(Reader::Worker(DocumentKind::Rich)),
            ),
            (
                "",
                b"Received: by a\r\n\tfor b\r\nFrom: a\r\nSubject: c\r\n\r\nhi",
                Ok(Reader::Worker(DocumentKind::Mail)),
            ),
            (
                "a.eml",
                b"From: a\nSubject: b\n\nhi",
                Ok(Reader::Worker(DocumentKind::Mail)),
            ),
            ("a.txt", b"from: a\ndate: b\n", text("from: a\ndate: b\n")),
            (
                "",
                b"From: a\nit is said: c\nTo: d",
                text("From: a\nit is said: c\nTo: d"),
            ),
            (
                "",
                b"{\"cells\": [{\"cell_type\": \"raw\"}]}",
                Ok(Reader::Worker(DocumentKind::Notebook)),
            ),
            ("a.json", b"{\"cells\": []}", text("{\"cells\": []}")),
            (
                "a.pdf",
                b"BMW is a maker of cars",
                text("BMW is a maker of cars"),
            ),
            (
                "page.HTML",
                b"<p>hi</p>",
                Ok(Reader::Worker(DocumentKind::Html)),
            ),
            (
                "",
                b" <!DOCTYPE HTML><p>hi",
                Ok(Reader::Worker(DocumentKind::Html)),
            ),
            ("a.md", b"about <html>", text("about <html>")),
            ("a.txt", b"of %PDF-1.7", text("of %PDF-1.7")),
            ("a.txt", b"ID3 labels", text("ID3 labels")),
            (
                "a.pdf",
                b"mail\n%PDF-1.7",
                Ok(Reader::Worker(DocumentKind::Pdf)),
            ),
            ("", b"\0\n%PDF-1.7", Ok(Reader::Worker(DocumentKind::Pdf))),
            ("", b"<html>\xFC", Ok(Reader::Worker(DocumentKind::Html))),
            ("", b"\xFC", Ok(Reader::Worker(DocumentKind::Text))),
            ("", b"a\0b", Ok(Reader::Worker(DocumentKind::Text))),
            ("", b"\xFF\xFEh", Ok(Reader::Worker(DocumentKind::Text))),
            (
                "a.txt",
                b"\n%PDF-1.7",
                Ok(Reader::Worker(DocumentKind::Pdf)),
            ),
            ("a.pdf", b"\x89PNG\r\n\x1a\n\xFF", Ok(Reader::Picture)),
            ("a.tif", b"II*\0\x08\0\0\0", Ok(Reader::Picture)),
            ("a.jpg", b"\0\0\0\x18ftypheic\0", Ok(Reader::Picture)),
        ] {
            assert_eq!(reader(name, file), expected, "{name} {file:?}");
        }
        for (file, reason) in [
            (&b"RIFF\0\0\0\0WAVEfmt "[..], "`input_audio`"),
            (b"\xFF\xFB\x90\x00", "`input_audio`"),
            (b"\0\0\0\x18ftypM4A \0", "is a sound"),
            (b"\0\0\0\x18ftypisom\0", "is a video; send frames"),
            (b"\0\0\0\x14ftypqt  \0", "is a video; send frames"),
            (b"\x1A\x45\xDF\xA3\x01", "is a video or a sound (WebM"),
            (b"FLV\x01\x05", "is a video"),
        ] {
            assert!(reader("", file).unwrap_err().contains(reason), "{file:?}");
        }
    }

    #[test]
    fn old_documents_are_called_by_their_names() {
        for (name, said) in [
            ("WordDocument", "(doc)"),
            ("Workbook", "(xls)"),
            ("PowerPoint Document", "(ppt)"),
            ("__properties_version1.0", "(msg)"),
            ("EncryptedPackage", "password"),
            ("Contents", "of an old kind"),
        ] {
            let mut file = [COMPOUND, &[0; 1020]].concat();
            file.extend(name.encode_utf16().flat_map(u16::to_le_bytes));
            file.resize(2048, 0);
            let reason = reader("a", &file).unwrap_err();
            assert!(reason.contains(said), "{name}: {reason}");
        }
    }
}
