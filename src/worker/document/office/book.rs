//! epub: the chapters of a book in the order in which they are read.

use std::collections::HashMap;

use super::archive::Archive;
use crate::ipc::Sight;
use crate::worker::document::blocks::{Blocks, one_line};
use crate::worker::document::{Pages, encoding, html};

/// Files of a book.
const MAX_FILES: usize = 16_384;
/// Bytes of a chapter.
const MAX_CHAPTER: u64 = 16 << 20;
/// Fonts are made unusable elsewhere in these ways, which hide no text.
const OF_FONTS: [&str; 2] = [
    "http://www.idpf.org/2008/embedding",
    "http://ns.adobe.com/pdf/enc#RC",
];

pub fn read(archive: &Archive<'_>, pages: &mut Pages<'_>) -> Result<u32, String> {
    if is_protected(archive)? {
        let reason = "is a book that is protected against copying (DRM); only its reader opens it";
        return Err(reason.into());
    }
    let book = Book::of(archive)?;
    let mut out = Blocks::default();
    out.heading(1, &book.title);
    out.paragraph(&book.authors.join(", "));
    for chapter in &book.chapters {
        if out.is_full() {
            out.cut = true;
            break;
        }
        let Some(bytes) = archive.bytes(chapter, MAX_CHAPTER)? else {
            out.paragraph("[a chapter is missing]");
            out.cut = true;
            continue;
        };
        out.cut |= bytes.len() as u64 == MAX_CHAPTER;
        let page = encoding::page(&bytes);
        let text = html::seen(&page.text)
            .map_err(|error| format!("has a chapter that cannot be read: {error}"))?;
        out.paragraph(&text);
    }
    if book.pictures > 0 {
        let pictures = if book.pictures == 1 {
            "picture is"
        } else {
            "pictures are"
        };
        out.paragraph(&format!("[{} {pictures} not shown]", book.pictures));
    }
    pages.cut |= out.cut;
    pages.push(out.finish(), Sight::of_text(book.pictures > 0));
    Ok(1)
}

fn is_protected(archive: &Archive<'_>) -> Result<bool, String> {
    let Some(mut xml) = archive.xml("META-INF/encryption.xml")? else {
        return Ok(false);
    };
    while xml.find("EncryptedData")? {
        while let Some(tag) = xml.element()? {
            let of_fonts = |way: String| OF_FONTS.contains(&&*way);
            if tag.name() == "EncryptionMethod" && !tag.attribute("Algorithm").is_some_and(of_fonts)
            {
                return Ok(true);
            }
            xml.skip()?;
        }
    }
    Ok(false)
}

#[derive(Default)]
struct Book {
    title: String,
    authors: Vec<String>,
    /// The parts, in their order.
    chapters: Vec<String>,
    /// Without the cover.
    pictures: u32,
}

impl Book {
    fn of(archive: &Archive<'_>) -> Result<Self, String> {
        let mut main = None;
        if let Some(mut xml) = archive.xml("META-INF/container.xml")? {
            while main.is_none() && xml.find("rootfiles")? {
                while let Some(tag) = xml.element()? {
                    main = main.or_else(|| tag.attribute("full-path"));
                    xml.skip()?;
                }
            }
        }
        let missing = "is a book without a list of its chapters, or a damaged one";
        let main = main.ok_or(missing)?;
        let folder = main.rsplit_once('/').map_or("", |(folder, _)| folder);
        let mut xml = archive.xml(&main)?.ok_or(missing)?;
        let (mut book, mut files) = (Self::default(), HashMap::new());
        if xml.element()?.is_none() {
            return Err(missing.into());
        }
        while let Some(tag) = xml.element()? {
            let section = tag.name().to_owned();
            while let Some(tag) = xml.element()? {
                match (&*section, tag.name()) {
                    ("metadata", "title") if book.title.is_empty() => {
                        book.title = one_line(&xml.text()?)
                    }
                    ("metadata", "creator") if book.authors.len() < 16 => {
                        book.authors.push(one_line(&xml.text()?));
                    }
                    ("manifest", "item") => {
                        let kind = tag.attribute("media-type").unwrap_or_default();
                        let properties = tag.attribute("properties").unwrap_or_default();
                        let is_cover = properties.contains("cover-image");
                        book.pictures += u32::from(kind.starts_with("image/") && !is_cover);
                        let name = tag.attribute("href").unwrap_or_default();
                        let id = tag.attribute("id").filter(|_| files.len() < MAX_FILES);
                        let is_text = kind.contains("html") || kind.contains("dtbook");
                        if let Some(id) = id.filter(|_| is_text && !properties.contains("nav")) {
                            files.insert(id, within(folder, &name));
                        }
                        xml.skip()?;
                    }
                    ("spine", "itemref") => {
                        let file = tag.attribute("idref").and_then(|id| files.remove(&id));
                        book.chapters.extend(file);
                        xml.skip()?;
                    }
                    _ => xml.skip()?,
                }
            }
        }
        if book.chapters.is_empty() {
            return Err(missing.into());
        }
        Ok(book)
    }
}

/// The name of a part that stands in a list as an address.
fn within(folder: &str, address: &str) -> String {
    let address = address.split('#').next().unwrap_or_default();
    let (mut name, mut bytes) = (vec![], address.as_bytes().iter());
    while let Some(&byte) = bytes.next() {
        let digits = (byte == b'%').then(|| bytes.as_slice().get(..2)).flatten();
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                name.push(byte);
                bytes.nth(1);
            }
            None => name.push(byte),
        }
    }
    super::package::within(folder, &String::from_utf8_lossy(&name))
}
