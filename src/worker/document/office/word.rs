//! docx: paragraphs, lists, tables, notes and comments of a text document.

mod numbering;
mod styles;

use std::mem;

use super::archive::Archive;
use super::chart;
use super::package::Relations;
use super::xml::{Node, Tag, Xml};
use crate::ipc::Sight;
use crate::worker::document::Pages;
use crate::worker::document::blocks::{Blocks, Table, link};
use numbering::Numbering;
use styles::{Style, Styles};

/// A cell may span so many columns.
const MAX_SPAN: usize = 64;
/// Fields within each other.
const MAX_FIELDS: usize = 64;
/// Notes and comments that are kept in mind.
const MAX_NOTES: usize = 10_000;

/// Reads the document whose main part this is.
pub fn read(archive: &Archive<'_>, main: &str, pages: &mut Pages<'_>) -> Result<u32, String> {
    let links = Relations::of(archive, main)?;
    let part = |kind: &str| links.parts(kind).first().map(|part| (*part).to_owned());
    let mut word = Word {
        archive,
        styles: Styles::read(archive, part("styles").as_deref())?,
        numbering: Numbering::read(archive, part("numbering").as_deref())?,
        links: Relations::default(),
        fields: vec![],
        boxes: vec![],
        notes: vec![],
    };
    let mut out = Blocks::default();
    word.edges(&links, "header", &mut out)?;
    word.part(main, &mut out)?;
    word.notes(&links, &mut out)?;
    word.edges(&links, "footer", &mut out)?;
    let unseen = out.unseen > 0;
    pages.cut |= out.cut;
    pages.push(out.finish(), Sight::of_text(unseen));
    Ok(1)
}

struct Word<'a> {
    archive: &'a Archive<'a>,
    styles: Styles,
    numbering: Numbering,
    /// Of the part that is read.
    links: Relations,
    fields: Vec<Field>,
    /// Text of frames that stand in the paragraph that is read.
    boxes: Vec<String>,
    /// What the text refers to, in its order: which kind of note, and its id.
    notes: Vec<(&'static str, String)>,
}

/// A field whose end is still to come.
struct Field {
    instruction: String,
    /// Where its result begins in the text of its paragraph.
    start: Option<usize>,
}

impl Word<'_> {
    fn part(&mut self, name: &str, out: &mut Blocks) -> Result<(), String> {
        self.links = Relations::of(self.archive, name)?;
        if let Some(mut xml) = self.archive.xml(name)? {
            self.blocks(&mut xml, out)?;
        }
        Ok(())
    }

    /// What stands on top or at the bottom of pages, each text once.
    fn edges(&mut self, links: &Relations, kind: &str, out: &mut Blocks) -> Result<(), String> {
        let mut said: Vec<String> = vec![];
        for part in links.parts(kind) {
            let mut edge = out.inner();
            self.part(part, &mut edge)?;
            let text = out.take(edge);
            // A number of the page alone says nothing.
            if text.chars().any(char::is_alphabetic) && !said.contains(&text) {
                out.paragraph(&format!("[{kind}] {text}"));
                said.push(text);
            }
        }
        Ok(())
    }

    /// The notes and comments that the text refers to.
    fn notes(&mut self, links: &Relations, out: &mut Blocks) -> Result<(), String> {
        let wanted = mem::take(&mut self.notes);
        for (kind, element) in [
            ("footnotes", "footnote"),
            ("endnotes", "endnote"),
            ("comments", "comment"),
        ] {
            let Some(part) = links.parts(kind).first().copied() else {
                continue;
            };
            self.links = Relations::of(self.archive, part)?;
            let Some(mut xml) = self.archive.xml(part)? else {
                continue;
            };
            if !xml.find(kind)? {
                continue;
            }
            while let Some(tag) = xml.element()? {
                let id = tag.attribute("id").unwrap_or_default();
                let is_wanted = |(of, name): &(&str, String)| *of == element && *name == id;
                if tag.name() != element || !wanted.iter().any(is_wanted) {
                    xml.skip()?;
                    continue;
                }
                let mut note = out.inner();
                self.blocks(&mut xml, &mut note)?;
                let text = out.take(note);
                out.paragraph(&match (element, tag.attribute("author")) {
                    ("comment", Some(author)) => format!("[comment {id} by {author}]: {text}"),
                    ("comment", None) => format!("[comment {id}]: {text}"),
                    _ => format!("[^{}]: {text}", mark(element, &id)),
                });
            }
        }
        Ok(())
    }

    /// Paragraphs and tables, to the end of the element that was begun last.
    fn blocks(&mut self, xml: &mut Xml<'_>, out: &mut Blocks) -> Result<(), String> {
        while let Some(tag) = xml.element()? {
            match tag.name() {
                _ if out.is_full() => {
                    out.cut = true;
                    xml.skip()?;
                }
                "p" => self.paragraph(xml, out)?,
                "tbl" => self.table(xml, out)?,
                "sectPr" | "del" | "moveFrom" | "sdtPr" | "Fallback" | "tcPr" => xml.skip()?,
                "altChunk" => {
                    let said = out.unseen("embedded document", "");
                    out.paragraph(&said);
                    xml.skip()?;
                }
                _ => self.blocks(xml, out)?,
            }
        }
        Ok(())
    }

    fn paragraph(&mut self, xml: &mut Xml<'_>, out: &mut Blocks) -> Result<(), String> {
        let (mut text, mut style) = (String::new(), self.styles.usual());
        // Results of fields that began in another paragraph are not put together.
        self.fields.iter_mut().for_each(|field| field.start = None);
        self.inline(xml, &mut text, &mut style, out)?;
        let marker = style.list.as_ref().and_then(|(list, level)| {
            let is_said = !text.trim().is_empty();
            is_said.then(|| self.numbering.next(list, *level)).flatten()
        });
        match (style.heading, marker) {
            (Some(level), Some(marker)) if marker != "-" => {
                out.heading(level, &format!("{marker} {text}"));
            }
            (Some(level), _) => out.heading(level, &text),
            (None, Some(marker)) => {
                let depth = style.list.map_or(0, |(_, level)| level);
                out.item(depth, &marker, &text);
            }
            (None, None) => out.paragraph(&text),
        }
        for said in mem::take(&mut self.boxes) {
            out.paragraph(&said);
        }
        Ok(())
    }

    /// Text of a paragraph, to the end of the element that was begun last.
    fn inline(
        &mut self,
        xml: &mut Xml<'_>,
        text: &mut String,
        style: &mut Style,
        out: &mut Blocks,
    ) -> Result<(), String> {
        while let Some(tag) = xml.element()? {
            match tag.name() {
                "t" => *text += &xml.text()?,
                "pPr" => *style = self.styles.of_paragraph(xml)?,
                "rPr" => {
                    if is_hidden(xml)? {
                        return xml.skip();
                    }
                }
                "hyperlink" => {
                    let mut inside = String::new();
                    let id = tag.relation();
                    self.inline(xml, &mut inside, style, out)?;
                    let address = id.and_then(|id| self.links.address(&id));
                    *text += &link(&inside, address);
                }
                "fldSimple" => {
                    let mut inside = String::new();
                    self.inline(xml, &mut inside, style, out)?;
                    let instruction = tag.attribute("instr").unwrap_or_default();
                    *text += &link(&inside, address_of(&instruction));
                }
                "instrText" => {
                    let more = xml.text()?;
                    if let Some(field) = self.fields.last_mut() {
                        field.instruction += &more;
                    }
                }
                "fldChar" => {
                    self.field(&tag, text);
                    xml.skip()?;
                }
                "drawing" | "pict" | "object" => {
                    let mut said = String::new();
                    self.drawing(xml, &mut said, out)?;
                    *text += &said;
                }
                "footnoteReference" => self.note("footnote", &tag, text, xml)?,
                "endnoteReference" => self.note("endnote", &tag, text, xml)?,
                "commentReference" => self.note("comment", &tag, text, xml)?,
                "del" | "moveFrom" | "Fallback" | "sdtPr" | "rt" | "delText" => xml.skip()?,
                name => {
                    *text += match name {
                        "tab" | "ptab" => "\t",
                        "br" | "cr" => "\n",
                        "noBreakHyphen" => "-",
                        _ => "",
                    };
                    self.inline(xml, text, style, out)?;
                }
            }
        }
        Ok(())
    }

    fn note(
        &mut self,
        kind: &'static str,
        tag: &Tag,
        text: &mut String,
        xml: &mut Xml<'_>,
    ) -> Result<(), String> {
        let id = tag.attribute("id").unwrap_or_default();
        *text += &match kind {
            "comment" => format!("[comment {id}]"),
            _ => format!("[^{}]", mark(kind, &id)),
        };
        if self.notes.len() < MAX_NOTES {
            self.notes.push((kind, id));
        }
        xml.skip()
    }

    fn field(&mut self, tag: &Tag, text: &mut String) {
        match tag.attribute("fldCharType").as_deref() {
            Some("begin") if self.fields.len() < MAX_FIELDS => self.fields.push(Field {
                instruction: String::new(),
                start: None,
            }),
            Some("separate") => {
                if let Some(field) = self.fields.last_mut() {
                    field.start = Some(text.len());
                }
            }
            Some("end") => {
                let Some(field) = self.fields.pop() else {
                    return;
                };
                let start = field.start.filter(|start| text.is_char_boundary(*start));
                if let (Some(start), Some(address)) = (start, address_of(&field.instruction)) {
                    let inside = text.split_off(start);
                    *text += &link(&inside, Some(address));
                }
            }
            _ => {}
        }
    }

    /// Pictures, charts and frames with text.
    fn drawing(
        &mut self,
        xml: &mut Xml<'_>,
        text: &mut String,
        out: &mut Blocks,
    ) -> Result<(), String> {
        let mut ahead = vec![];
        let mut said = String::new();
        // Goes down without a call for each element: only frames with text hold paragraphs.
        loop {
            let tag = match xml.next()? {
                Some(Node::Element(tag)) => tag,
                Some(Node::Text(_)) => continue,
                None if ahead.pop().is_none() => return Ok(()),
                None => continue,
            };
            match tag.name() {
                "Fallback" => xml.skip()?,
                "docPr" => {
                    said = tag.attribute("descr").unwrap_or_default();
                    ahead.push(());
                }
                "txbxContent" => {
                    let (boxes, mut frame) = (mem::take(&mut self.boxes), out.inner());
                    self.blocks(xml, &mut frame)?;
                    self.boxes = boxes;
                    self.boxes.push(out.take(frame));
                }
                "blip" | "imagedata" => {
                    *text += &out.unseen("picture", &said);
                    ahead.push(());
                }
                "chart" | "relIds" => {
                    let id = tag.relation().or_else(|| tag.attribute("dm"));
                    let part = id.and_then(|id| self.links.part(&id).map(str::to_owned));
                    self.boxes
                        .push(chart::text(self.archive, part.as_deref(), out)?);
                    ahead.push(());
                }
                _ => ahead.push(()),
            }
        }
    }

    fn table(&mut self, xml: &mut Xml<'_>, out: &mut Blocks) -> Result<(), String> {
        let mut table = Table::default();
        self.rows(xml, &mut table, out)?;
        out.table(table);
        Ok(())
    }

    fn rows(
        &mut self,
        xml: &mut Xml<'_>,
        table: &mut Table,
        out: &mut Blocks,
    ) -> Result<(), String> {
        while let Some(tag) = xml.element()? {
            match tag.name() {
                "tr" if table.is_full() => xml.skip()?,
                "tr" => {
                    table.row();
                    self.cells(xml, table, out)?;
                }
                "tblPr" | "tblGrid" | "del" | "moveFrom" | "sdtPr" => xml.skip()?,
                _ => self.rows(xml, table, out)?,
            }
        }
        Ok(())
    }

    fn cells(
        &mut self,
        xml: &mut Xml<'_>,
        table: &mut Table,
        out: &mut Blocks,
    ) -> Result<(), String> {
        while let Some(tag) = xml.element()? {
            match tag.name() {
                "tc" => {
                    let mut cell = out.inner();
                    let span = self.cell(xml, &mut cell)?;
                    table.cell(&out.take(cell));
                    (1..span.min(MAX_SPAN)).for_each(|_| table.cell(""));
                }
                "trPr" | "tblPrEx" | "sdtPr" => xml.skip()?,
                _ => self.cells(xml, table, out)?,
            }
        }
        Ok(())
    }

    /// The columns that a cell spans.
    fn cell(&mut self, xml: &mut Xml<'_>, out: &mut Blocks) -> Result<usize, String> {
        let mut span = 1;
        while let Some(tag) = xml.element()? {
            match tag.name() {
                "tcPr" => {
                    while let Some(tag) = xml.element()? {
                        if tag.name() == "gridSpan" {
                            let value = tag.attribute("val").and_then(|value| value.parse().ok());
                            span = value.unwrap_or(1);
                        }
                        xml.skip()?;
                    }
                }
                "p" => self.paragraph(xml, out)?,
                "tbl" => self.table(xml, out)?,
                _ => self.blocks(xml, out)?,
            }
        }
        Ok(span)
    }
}

fn mark(kind: &str, id: &str) -> String {
    let prefix = if kind == "endnote" { "e" } else { "" };
    format!("{prefix}{id}")
}

/// Whether a run's properties hide it.
fn is_hidden(xml: &mut Xml<'_>) -> Result<bool, String> {
    let mut hidden = false;
    while let Some(tag) = xml.element()? {
        if tag.name() == "vanish" {
            let off = |value: String| matches!(&*value, "0" | "false" | "off");
            hidden = !tag.attribute("val").is_some_and(off);
        }
        xml.skip()?;
    }
    Ok(hidden)
}

/// The address that a field leads to.
fn address_of(instruction: &str) -> Option<&str> {
    let rest = instruction.trim().strip_prefix("HYPERLINK")?.trim_start();
    rest.strip_prefix('"')?.split('"').next()
}
