//! What a file is, and what becomes of it in a conversation. Pure.

use crate::chat::{Detail, Part, Picture};
use crate::ipc::{DocumentKind, Extent, Page};

/// Where a PDF's signature may stand: some programs write before it.
const SIGNATURE_WITHIN: usize = 1024;
/// Beginnings of pictures; the worker looks closer.
const PICTURES: [&[u8]; 5] = [b"\x89PNG", b"\xFF\xD8\xFF", b"GIF8", b"BM", b"RIFF"];
/// Kinds of files that are known and not read, by their beginnings.
const UNREAD: [(&[u8], &str); 7] = [
    (
        b"PK\x03\x04",
        "is a ZIP archive, as office documents are (docx, xlsx, odt, epub); save it as PDF or text",
    ),
    (
        b"\xD0\xCF\x11\xE0",
        "is an office document of an old kind (doc, xls); save it as PDF or text",
    ),
    (b"\x1F\x8B", "is compressed (gzip); send what is in it"),
    (b"ID3", "is a sound; send it as `input_audio`"),
    (b"OggS", "is a sound; send it as `input_audio`"),
    (b"fLaC", "is a sound; send it as `input_audio`"),
    (b"\x7FELF", "is a program"),
];
const UTF8_MARK: &[u8] = b"\xEF\xBB\xBF";

/// How a file is read.
#[derive(Debug, PartialEq)]
pub enum Way {
    /// It is text already.
    Text(String),
    /// It is a picture.
    Picture,
    /// By a worker.
    Worker(DocumentKind),
}

/// Goes by what is in the file; the name only tells a web page from text that looks like one. The
/// error continues "the file …".
pub fn way(name: &str, file: &[u8]) -> Result<Way, String> {
    if file[..file.len().min(SIGNATURE_WITHIN)]
        .windows(5)
        .any(|part| part == b"%PDF-")
    {
        return Ok(Way::Worker(DocumentKind::Pdf));
    }
    if file.starts_with(b"RIFF") && file.get(8..12) == Some(b"WAVE") {
        return Err("is a sound; send it as `input_audio`".into());
    }
    if let Some((_, reason)) = UNREAD.iter().find(|(begin, _)| file.starts_with(begin)) {
        return Err((*reason).into());
    }
    if PICTURES.iter().any(|begin| file.starts_with(begin)) && text(file).is_none() {
        return Ok(Way::Picture);
    }
    let text = text(file).ok_or(
        "is of a kind that is not read; text (UTF-8 or UTF-16), HTML, PDF and pictures are",
    )?;
    let (lower, begin) = (name.to_ascii_lowercase(), text.trim_start().as_bytes());
    let begins = |with: &str| {
        begin
            .get(..with.len())
            .is_some_and(|part| part.eq_ignore_ascii_case(with.as_bytes()))
    };
    let named = [".html", ".htm", ".xhtml"]
        .iter()
        .any(|end| lower.ends_with(end));
    if named || begins("<!doctype html") || begins("<html") {
        return Ok(Way::Worker(DocumentKind::Html));
    }
    Ok(Way::Text(text))
}

/// The characters of a text file; `None` if it is none.
fn text(file: &[u8]) -> Option<String> {
    let wide = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let (pairs, rest) = bytes.as_chunks::<2>();
        let units: Vec<u16> = pairs.iter().map(|pair| unit(*pair)).collect();
        rest.is_empty()
            .then(|| String::from_utf16(&units).ok())
            .flatten()
    };
    let text = match file {
        [0xFF, 0xFE, rest @ ..] => wide(rest, u16::from_le_bytes)?,
        [0xFE, 0xFF, rest @ ..] => wide(rest, u16::from_be_bytes)?,
        _ => std::str::from_utf8(file.strip_prefix(UTF8_MARK).unwrap_or(file))
            .ok()?
            .to_owned(),
    };
    // No text has any.
    (!text.contains('\0')).then_some(text)
}

/// What was read of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadFile {
    /// As the client calls it.
    pub name: String,
    pub extent: Extent,
}

impl ReadFile {
    /// Whether the model gets all of it.
    pub fn is_whole(&self) -> bool {
        !self.extent.cut && self.extent.read == self.extent.pages && self.extent.unseen == 0
    }
}

/// A file's text between marks that say where it begins and ends.
pub fn quoted(name: &str, text: &str) -> Part {
    Part::Text(format!("{}{}\n</file>\n", begin(name), text.trim_end()))
}

fn begin(name: &str) -> String {
    let name: String = name
        .chars()
        .filter(|c| !c.is_control() && !matches!(c, '"' | '<' | '>'))
        .take(200)
        .collect();
    if name.is_empty() {
        "<file>\n".into()
    } else {
        format!("<file name=\"{name}\">\n")
    }
}

/// A file's pages, each picture at its page, and a word on what is missing.
pub fn assembled(name: &str, pages: Vec<Page>, extent: Extent) -> Vec<Part> {
    let (mut parts, mut text) = (vec![], begin(name));
    let many = extent.pages > 1;
    for (i, page) in pages.into_iter().enumerate() {
        if many {
            text += &format!("[page {}]\n", i + 1);
        }
        text += page.text.trim();
        text.push('\n');
        if let Some(file) = page.picture {
            parts.push(Part::Text(std::mem::take(&mut text)));
            parts.push(Part::Picture(Picture {
                file: file.into(),
                detail: Detail::Auto,
            }));
        }
    }
    if extent.cut || extent.read < extent.pages {
        text += &format!(
            "[the rest is left out: {} of {} pages are here]\n",
            extent.read, extent.pages
        );
    }
    text += "</file>\n";
    parts.push(Part::Text(text));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_by_what_is_in_them() {
        let text = |text: &str| Ok(Way::Text(text.to_owned()));
        for (name, file, way_of_it) in [
            ("a.txt", &b"hi"[..], text("hi")),
            ("a.txt", b"\xEF\xBB\xBFhi", text("hi")),
            ("a.txt", b"\xFF\xFEh\0i\0", text("hi")),
            ("a.txt", b"\xFE\xFF\0h\0i", text("hi")),
            ("a.csv", b"a,b\n1,2\n", text("a,b\n1,2\n")),
            (
                "a.pdf",
                b"BMW is a maker of cars",
                text("BMW is a maker of cars"),
            ),
            (
                "page.HTML",
                b"<p>hi</p>",
                Ok(Way::Worker(DocumentKind::Html)),
            ),
            (
                "",
                b" <!DOCTYPE HTML><p>hi",
                Ok(Way::Worker(DocumentKind::Html)),
            ),
            ("a.md", b"about <html>", text("about <html>")),
            ("a.txt", b"\n%PDF-1.7", Ok(Way::Worker(DocumentKind::Pdf))),
            ("a.pdf", b"\x89PNG\r\n\x1a\n\xFF", Ok(Way::Picture)),
        ] {
            assert_eq!(way(name, file), way_of_it, "{name} {file:?}");
        }
        for (file, reason) in [
            (&b"PK\x03\x04"[..], "ZIP archive"),
            (b"RIFF\0\0\0\0WAVEfmt ", "`input_audio`"),
            (b"\xFF\xFEh", "not read"),
            (b"a\0b", "not read"),
            (b"\xC3(", "not read"),
        ] {
            assert!(way("", file).unwrap_err().contains(reason), "{file:?}");
        }
    }

    #[test]
    fn a_file_becomes_text_with_its_pictures_in_place() {
        assert_eq!(
            quoted("a\"<.txt", "hi\n"),
            Part::Text("<file name=\"a.txt\">\nhi\n</file>\n".into())
        );
        let page = |text: &str, picture: Option<&[u8]>| Page {
            text: text.into(),
            picture: picture.map(Vec::from),
        };
        let extent = Extent {
            pages: 3,
            read: 2,
            unseen: 0,
            cut: false,
        };
        let parts = assembled("", vec![page("one", None), page("", Some(b"png"))], extent);
        assert_eq!(
            parts[0],
            Part::Text("<file>\n[page 1]\none\n[page 2]\n\n".into())
        );
        assert!(matches!(&parts[1], Part::Picture(picture) if picture.file[..] == b"png"[..]));
        assert_eq!(
            parts[2],
            Part::Text("[the rest is left out: 2 of 3 pages are here]\n</file>\n".into())
        );
        let whole = Extent {
            pages: 1,
            read: 1,
            ..Extent::default()
        };
        assert_eq!(
            assembled("a", vec![page("one", None)], whole),
            [Part::Text("<file name=\"a\">\none\n</file>\n".into())]
        );
        assert!(
            ReadFile {
                name: String::new(),
                extent: whole
            }
            .is_whole()
                && !ReadFile {
                    name: String::new(),
                    extent
                }
                .is_whole()
        );
    }
}
