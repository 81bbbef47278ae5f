//! xlsx: the sheets of a workbook in their order, with the values that their cells show.

mod formats;

use super::archive::Archive;
use super::chart;
use super::grid::{Grid, MAX_COLUMNS, Row, column_of};
use super::package::Relations;
use super::xml::{Tag, Xml};
use crate::ipc::{EXTRACT_PAGES, Sight};
use crate::worker::document::Pages;
use crate::worker::document::blocks::{Blocks, link};
use formats::Formats;

/// Bytes of the texts that cells share.
const MAX_SHARED: usize = 64 << 20;
/// Links, and comments, of a sheet.
const MAX_LINKS: usize = 1000;

/// Reads the workbook whose main part this is; each sheet is a page.
pub fn read(archive: &Archive<'_>, main: &str, pages: &mut Pages<'_>) -> Result<u32, String> {
    let parts = Relations::of(archive, main)?;
    let (mut sheets, mut from_1904) = (vec![], false);
    let Some(mut xml) = archive.xml(main)? else {
        return Err("is a workbook without its main part".into());
    };
    if xml.find("workbook")? {
        while let Some(tag) = xml.element()? {
            match tag.name() {
                "workbookPr" => from_1904 = tag.is_on("date1904"),
                "sheets" => {
                    while let Some(tag) = xml.element()? {
                        sheets.extend(named(&tag, &parts));
                        xml.skip()?;
                    }
                    continue;
                }
                _ => {}
            }
            xml.skip()?;
        }
    }
    if sheets.is_empty() {
        return Err("is a workbook without sheets".into());
    }
    let part = |kind: &str| parts.parts(kind).first().map(|part| (*part).to_owned());
    let book = Book {
        archive,
        shared: Shared::read(archive, part("sharedStrings").as_deref())?,
        formats: Formats::read(archive, part("styles").as_deref(), from_1904)?,
    };
    pages.cut |= book.shared.cut;
    for (name, part) in sheets.iter().take(EXTRACT_PAGES) {
        let mut out = Blocks::default();
        out.heading(2, name);
        Sheet {
            book: &book,
            out: &mut out,
            links: Relations::of(archive, part)?,
            grid: Grid::default(),
        }
        .read(part)?;
        let unseen = out.unseen > 0;
        pages.cut |= out.cut;
        if !pages.push(out.finish(), Sight::of_text(unseen)) {
            break;
        }
    }
    Ok(sheets.len() as u32)
}

/// A sheet's title and its part.
fn named(tag: &Tag, parts: &Relations) -> Option<(String, String)> {
    let part = parts.part(&tag.relation()?)?.to_owned();
    let name = tag.attribute("name").unwrap_or_default();
    let is_hidden = tag
        .attribute("state")
        .is_some_and(|state| state != "visible");
    let hidden = if is_hidden { " (hidden)" } else { "" };
    Some((format!("Sheet: {name}{hidden}"), part))
}

struct Book<'a> {
    archive: &'a Archive<'a>,
    shared: Shared,
    formats: Formats,
}

/// The texts that cells name by their place, one after the other.
#[derive(Default)]
struct Shared {
    text: String,
    ends: Vec<usize>,
    cut: bool,
}

impl Shared {
    fn read(archive: &Archive<'_>, part: Option<&str>) -> Result<Self, String> {
        let mut shared = Self::default();
        let Some(mut xml) = part.map(|part| archive.xml(part)).transpose()?.flatten() else {
            return Ok(shared);
        };
        if !xml.find("sst")? {
            return Ok(shared);
        }
        while xml.element()?.is_some() {
            if shared.text.len() > MAX_SHARED {
                shared.cut = true;
                break;
            }
            text_of(&mut xml, &mut shared.text)?;
            shared.ends.push(shared.text.len());
        }
        Ok(shared)
    }

    fn get(&self, at: usize) -> Option<&str> {
        let end = *self.ends.get(at)?;
        let begin = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        Some(&self.text[begin..end])
    }
}

/// The text of a string that was begun last, without how it is to be spoken.
fn text_of(xml: &mut Xml<'_>, text: &mut String) -> Result<(), String> {
    while let Some(tag) = xml.element()? {
        match tag.name() {
            "t" => *text += &xml.text()?,
            "rPh" | "phoneticPr" => xml.skip()?,
            _ => text_of(xml, text)?,
        }
    }
    Ok(())
}

struct Sheet<'a> {
    book: &'a Book<'a>,
    out: &'a mut Blocks,
    links: Relations,
    grid: Grid,
}

impl Sheet<'_> {
    fn read(&mut self, part: &str) -> Result<(), String> {
        let Some(mut xml) = self.book.archive.xml(part)? else {
            return Ok(());
        };
        if xml.element()?.is_none() {
            return Ok(());
        }
        let mut links = vec![];
        while let Some(tag) = xml.element()? {
            match tag.name() {
                "sheetData" => {
                    self.rows(&mut xml)?;
                    self.grid.end(self.out);
                    if self.out.is_full() {
                        // What follows would be left out anyway.
                        self.out.cut = true;
                        return Ok(());
                    }
                }
                "hyperlinks" => {
                    while let Some(tag) = xml.element()? {
                        let address = tag
                            .relation()
                            .and_then(|id| self.links.address(&id).map(str::to_owned));
                        let cell = tag.attribute("ref").unwrap_or_default();
                        if let (Some(address), true) = (address, links.len() < MAX_LINKS) {
                            links.push(link(&cell, Some(&address)));
                        }
                        xml.skip()?;
                    }
                }
                "drawing" => {
                    let part = tag
                        .relation()
                        .and_then(|id| self.links.part(&id).map(str::to_owned));
                    self.drawing(part.as_deref())?;
                    xml.skip()?;
                }
                _ => xml.skip()?,
            }
        }
        if !links.is_empty() {
            self.out.paragraph(&format!("Links: {}", links.join(", ")));
        }
        self.comments()
    }

    fn rows(&mut self, xml: &mut Xml<'_>) -> Result<(), String> {
        let mut number = 0;
        while let Some(tag) = xml.element()? {
            if tag.name() != "row" {
                xml.skip()?;
                continue;
            }
            let told = tag.attribute("r").and_then(|number| number.parse().ok());
            number = told.unwrap_or(number + 1u32);
            let row = self.row(xml)?;
            if self.out.is_full() || self.grid.is_full() {
                return Ok(());
            }
            self.grid.push(number, row, self.out);
        }
        Ok(())
    }

    fn row(&mut self, xml: &mut Xml<'_>) -> Result<Row, String> {
        let (mut cells, mut column) = (Row::new(), 0);
        while let Some(tag) = xml.element()? {
            let told = tag.attribute("r").and_then(|place| column_of(&place));
            column = told.unwrap_or(column);
            let value = self.cell(&tag, xml)?;
            if !value.trim().is_empty() {
                if column < MAX_COLUMNS {
                    cells.insert(column, value);
                } else {
                    self.out.cut = true;
                }
            }
            column = column.saturating_add(1);
        }
        Ok(cells)
    }

    fn cell(&mut self, tag: &Tag, xml: &mut Xml<'_>) -> Result<String, String> {
        let (mut value, mut formula, mut inline) = (String::new(), String::new(), String::new());
        while let Some(tag) = xml.element()? {
            match tag.name() {
                "v" => value = xml.text()?,
                "f" => formula = xml.text()?,
                "is" => text_of(xml, &mut inline)?,
                _ => xml.skip()?,
            }
        }
        let kind = tag.attribute("t").unwrap_or_default();
        Ok(match &*kind {
            "inlineStr" => inline,
            "s" => {
                let at = value.trim().parse().ok();
                let text = at.and_then(|at| self.book.shared.get(at));
                text.unwrap_or_default().to_owned()
            }
            "b" => if value.trim() == "1" { "TRUE" } else { "FALSE" }.into(),
            // Nothing has reckoned yet.
            _ if value.is_empty() && !formula.is_empty() => format!("={formula}"),
            "str" | "e" | "d" => value,
            _ => {
                let style = tag.attribute("s").and_then(|style| style.parse().ok());
                self.book.formats.shown(&value, style.unwrap_or(0))
            }
        })
    }

    /// Pictures and charts that lie on the sheet.
    fn drawing(&mut self, part: Option<&str>) -> Result<(), String> {
        let Some(part) = part else { return Ok(()) };
        let links = Relations::of(self.book.archive, part)?;
        let Some(mut xml) = self.book.archive.xml(part)? else {
            return Ok(());
        };
        self.drawn(&mut xml, &links, &mut String::new())
    }

    fn drawn(
        &mut self,
        xml: &mut Xml<'_>,
        links: &Relations,
        said: &mut String,
    ) -> Result<(), String> {
        while let Some(tag) = xml.element()? {
            match tag.name() {
                "Fallback" => {
                    xml.skip()?;
                    continue;
                }
                "cNvPr" => *said = tag.attribute("descr").unwrap_or_default(),
                "blip" => {
                    let mark = self.out.unseen("picture", said);
                    self.out.paragraph(&mark);
                }
                "chart" | "relIds" => {
                    let id = tag.attribute("dm").or_else(|| tag.relation());
                    let part = id.and_then(|id| links.part(&id).map(str::to_owned));
                    let text = chart::text(self.book.archive, part.as_deref(), self.out)?;
                    self.out.paragraph(&text);
                }
                // Text in a frame.
                "p" => {
                    let text = xml.text()?;
                    self.out.paragraph(&text);
                    continue;
                }
                _ => {}
            }
            self.drawn(xml, links, said)?;
        }
        Ok(())
    }

    fn comments(&mut self) -> Result<(), String> {
        for part in self.links.parts("comments") {
            let Some(mut xml) = self.book.archive.xml(part)? else {
                continue;
            };
            if !xml.find("commentList")? {
                continue;
            }
            for _ in 0..MAX_LINKS {
                let Some(tag) = xml.element()? else { break };
                let mut text = String::new();
                text_of(&mut xml, &mut text)?;
                let cell = tag.attribute("ref").unwrap_or_default();
                self.out.paragraph(&format!("[comment at {cell}]: {text}"));
            }
        }
        Ok(())
    }
}
