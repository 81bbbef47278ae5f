//! Office documents and books that are ZIP archives. Which kind an archive is, is told by what is in
//! it: its `mimetype` and its list of content types.

mod archive;
mod book;
mod chart;
mod grid;
mod open;
mod package;
mod sheets;
mod slides;
mod word;
mod xml;

use super::Pages;
use archive::Archive;
use package::Relations;

/// Bytes of the name of a type.
const MAX_MIMETYPE: u64 = 256;

/// Reads whatever the archive is; how many pages it has. The error continues "the file …".
pub fn read(file: &[u8], pages: &mut Pages<'_>) -> Result<u32, String> {
    let archive = Archive::open(file)?;
    let named = archive.bytes("mimetype", MAX_MIMETYPE);
    let mimetype = String::from_utf8_lossy(&named?.unwrap_or_default())
        .trim()
        .to_owned();
    if mimetype.starts_with("application/vnd.oasis.opendocument.") {
        return open::read(&archive, pages);
    }
    if mimetype == "application/epub+zip" || archive.has("META-INF/container.xml") {
        return book::read(&archive, pages);
    }
    if let Some(main) = main_part(&archive)? {
        let kind = content_type(&archive, &main)?;
        let is = |word: &str| kind.contains(word);
        return if is("wordprocessingml") || is("ms-word") {
            word::read(&archive, &main, pages)
        } else if is("sheet.binary") {
            Err("is a binary workbook (xlsb); save it as xlsx".into())
        } else if is("spreadsheetml") || is("ms-excel") {
            sheets::read(&archive, &main, pages)
        } else if is("presentationml") || is("ms-powerpoint") {
            slides::read(&archive, &main, pages)
        } else {
            Err("is an office document of a kind that is not read; save it as PDF".into())
        };
    }
    Err(
        if archive.has("Index/Document.iwa") || archive.has("Index.zip") {
            "is a document of Pages, Numbers or Keynote; export it as PDF, docx, xlsx or pptx"
        } else if archive.is_encrypted() {
            "is a ZIP archive that is protected with a password; send the files in it without one"
        } else {
            "is a ZIP archive; send the files in it one by one"
        }
        .into(),
    )
}

/// The main part of a package of Microsoft's office.
fn main_part(archive: &Archive<'_>) -> Result<Option<String>, String> {
    if !archive.has("[Content_Types].xml") {
        return Ok(None);
    }
    let parts = Relations::of(archive, "")?;
    let parts = parts.parts("officeDocument");
    Ok(parts.first().map(|part| (*part).to_owned()))
}

fn content_type(archive: &Archive<'_>, part: &str) -> Result<String, String> {
    let mut usual = String::new();
    let Some(mut xml) = archive.xml("[Content_Types].xml")? else {
        return Ok(usual);
    };
    if !xml.find("Types")? {
        return Ok(usual);
    }
    let extension = part.rsplit('.').next().unwrap_or_default();
    while let Some(tag) = xml.element()? {
        let is = |attribute: &str, wanted: &str| {
            let value = tag.attribute(attribute).unwrap_or_default();
            value.trim_start_matches('/').eq_ignore_ascii_case(wanted)
        };
        let kind = tag
            .attribute("ContentType")
            .unwrap_or_default()
            .to_ascii_lowercase();
        if is("PartName", part) {
            return Ok(kind);
        }
        if is("Extension", extension) {
            usual = kind;
        }
        xml.skip()?;
    }
    Ok(usual)
}
