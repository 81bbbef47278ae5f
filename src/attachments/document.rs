//! What a file is, and what becomes of it in a conversation. Pure.

use std::borrow::Cow;

use super::look::MAX_PAGES;
use crate::chat::{Detail, Part, Picture};
use crate::ipc::{DocumentKind, Extent, Look, Page, Shows, Sight, Unseen};

/// Where a PDF's signature may stand: some programs write before it.
const SIGNATURE_WITHIN: usize = 1024;
/// Beginnings of pictures; the worker looks closer.
const PICTURES: [&[u8]; 5] = [b"\x89PNG", b"\xFF\xD8\xFF", b"GIF8", b"BM", b"RIFF"];
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
    (
        b"PK\x03\x04",
        "is a ZIP archive, as office documents are (docx, xlsx, odt, epub); save it as PDF or text",
    ),
    (
        b"\xD0\xCF\x11\xE0",
        "is an office document of an old kind (doc, xls); save it as PDF or text",
    ),
    (b"\x1F\x8B", "is compressed (gzip); send what is in it"),
    (b"\x7FELF", "is a program"),
    (
        b"{\\rtf",
        "is a rich-text document (RTF); save it as PDF or text",
    ),
    (
        b"\x1A\x45\xDF\xA3",
        "is a film or a sound (WebM, Matroska); send its sound as WAV or Ogg in `input_audio`",
    ),
    (
        b"#!AMR",
        "is a sound (AMR); send it as WAV or Ogg in `input_audio`",
    ),
];
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
    // Words can begin like a picture.
    (begins(&PICTURES) && !is_text(file)).then_some(Medium::Picture)
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
    if let Some((_, reason)) = UNSUPPORTED
        .iter()
        .find(|(begin, _)| file.starts_with(begin))
    {
        return Err((*reason).into());
    }
    match medium(file) {
        Some(Medium::Picture) => return Ok(Reader::Picture),
        Some(Medium::Sound) => return Err("is a sound; send it as `input_audio`".into()),
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
    Ok(text.map_or(Reader::Worker(DocumentKind::Text), Reader::Text))
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

/// What was read of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadFile {
    /// As the client calls it.
    pub name: String,
    pub extent: Extent,
    /// Those that were read.
    pub pages: Vec<ReadPage>,
}

/// What of a page the model gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadPage {
    /// Of its text.
    pub bytes: usize,
    pub seen: Seen,
}

/// What of a page the model sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Its text says all.
    Told,
    /// The page.
    Shown(Shows),
    /// Not what else the page shows.
    Unseen(Shows, Unseen),
}

impl ReadFile {
    /// One of which nothing has been read.
    pub fn unread(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            extent: Extent::default(),
            pages: vec![],
        }
    }

    /// Pages that are shown.
    pub fn shown(&self) -> usize {
        let is_shown = |page: &&ReadPage| matches!(page.seen, Seen::Shown(_));
        self.pages.iter().filter(is_shown).count()
    }

    /// Pages that show what the model does not get.
    pub fn unseen(&self) -> usize {
        let is_unseen = |page: &&ReadPage| matches!(page.seen, Seen::Unseen(..));
        self.pages.iter().filter(is_unseen).count()
    }

    /// Whether the model gets all of it.
    pub fn is_complete(&self) -> bool {
        let Extent {
            pages, read, cut, ..
        } = self.extent;
        !cut && pages > 0 && read == pages && self.unseen() == 0
    }
}

impl ReadPage {
    pub fn of(page: &Page) -> Self {
        let seen = match page.sight {
            Sight::Told => Seen::Told,
            Sight::Shown { why, .. } => Seen::Shown(why),
            Sight::Unseen { why, because } => Seen::Unseen(why, because),
        };
        Self {
            bytes: page.text.len(),
            seen,
        }
    }

    /// It is not shown, and its text says next to nothing.
    pub fn is_lost(&self) -> bool {
        matches!(self.seen, Seen::Unseen(Shows::LittleText, _))
    }
}

impl Seen {
    /// Why the page is to be seen; continues "the page …".
    pub fn why(self) -> Option<String> {
        let (Self::Shown(why) | Self::Unseen(why, _)) = self else {
            return None;
        };
        Some(match why {
            Shows::LittleText => "has hardly any text".into(),
            Shows::Pictures(share) => format!("has pictures and drawings on {share} % of it"),
            Shows::Unreadable(share) => {
                format!("has characters that cannot be read, {share} % of all")
            }
        })
    }

    /// Why it is not shown.
    pub fn because(self) -> Option<String> {
        let Self::Unseen(_, because) = self else {
            return None;
        };
        Some(match because {
            Unseen::TooMany => format!("at most {MAX_PAGES} pages of a file are shown"),
            Unseen::Bytes => "the pictures of other pages have too many bytes".into(),
            Unseen::Context => "the context has no room for more pictures".into(),
            Unseen::Blind => "the model takes no pictures".into(),
            Unseen::Small => "that is a small part of the page".into(),
            Unseen::Undrawn => "the page could not be drawn".into(),
        })
    }

    /// What the model is told of it.
    fn remark(self) -> Option<String> {
        let (why, because) = (self.why()?, self.because()?);
        Some(format!("[not shown: this page {why}; {because}]\n"))
    }
}

/// Tokens of what was read of a file, about.
pub fn tokens(parts: &[Part]) -> u32 {
    let of_part = |part: &Part| match part {
        Part::Text(text) => Look::tokens_of_text(text.len()),
        Part::Picture(Picture {
            detail: Detail::Tokens(tokens),
            ..
        }) => *tokens,
        _ => 0,
    };
    parts.iter().map(of_part).fold(0, u32::saturating_add)
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
pub fn assembled(name: &str, pages: Vec<Page>, extent: &Extent) -> Vec<Part> {
    let (mut parts, mut text) = (vec![], begin(name));
    let many = extent.pages > 1;
    for (i, page) in pages.into_iter().enumerate() {
        if many {
            text += &format!("[page {}]\n", i + 1);
        }
        text += page.text.trim();
        text.push('\n');
        text.extend(ReadPage::of(&page).seen.remark());
        if let Sight::Shown { picture, .. } = page.sight {
            parts.push(Part::Text(std::mem::take(&mut text)));
            parts.push(Part::Picture(Picture {
                file: picture.into(),
                detail: Detail::Tokens(extent.budget),
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
        let text = |text: &'static str| Ok(Reader::Text(text.into()));
        for (name, file, expected) in [
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
        ] {
            assert_eq!(reader(name, file), expected, "{name} {file:?}");
        }
        for (file, reason) in [
            (&b"PK\x03\x04"[..], "ZIP archive"),
            (b"RIFF\0\0\0\0WAVEfmt ", "`input_audio`"),
            (b"{\\rtf1\\ansi hello}", "rich-text"),
            (b"\xFF\xFB\x90\x00", "`input_audio`"),
        ] {
            assert!(reader("", file).unwrap_err().contains(reason), "{file:?}");
        }
    }

    #[test]
    fn a_file_becomes_text_with_its_pictures_in_place() {
        assert_eq!(
            quoted("a\"<.txt", "hi\n"),
            Part::Text("<file name=\"a.txt\">\nhi\n</file>\n".into())
        );
        let page = |text: &str, sight: Sight| Page {
            text: text.into(),
            sight,
        };
        let extent = Extent {
            pages: 4,
            read: 3,
            budget: 560,
            ..Extent::default()
        };
        let why = Shows::Pictures(30);
        let shown = Sight::Shown {
            why: Shows::LittleText,
            picture: b"png".to_vec(),
        };
        let because = Unseen::TooMany;
        let pages = vec![
            page("one", Sight::Told),
            page("", shown),
            page("three", Sight::Unseen { why, because }),
        ];
        let read: Vec<_> = pages.iter().map(ReadPage::of).collect();
        let parts = assembled("", pages, &extent);
        assert_eq!(tokens(&parts), 33 / 3 + 560 + 166 / 3);
        assert_eq!(
            parts[0],
            Part::Text("<file>\n[page 1]\none\n[page 2]\n\n".into())
        );
        assert!(
            matches!(&parts[1], Part::Picture(Picture { file, detail: Detail::Tokens(560) })
            if file[..] == b"png"[..])
        );
        assert_eq!(
            parts[2],
            Part::Text(
                "[page 3]\nthree\n[not shown: this page has pictures and drawings on 30 % of it; \
                at most 16 pages of a file are shown]\n\
                [the rest is left out: 3 of 4 pages are here]\n</file>\n"
                    .into()
            )
        );
        let whole = Extent {
            pages: 1,
            read: 1,
            ..Extent::default()
        };
        assert_eq!(
            assembled("a", vec![page("one", Sight::Told)], &whole),
            [Part::Text("<file name=\"a\">\none\n</file>\n".into())]
        );
        let mut file = ReadFile::unread("");
        assert!(!file.is_complete());
        (file.extent, file.pages) = (whole, vec![read[0]]);
        assert!(file.is_complete());
        file.pages = vec![read[2]];
        assert!(!file.is_complete());
        (file.extent, file.pages) = (extent, vec![]);
        assert!(!file.is_complete());
    }
}
