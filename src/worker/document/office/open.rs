//! odt, ods, odp: OpenDocument's texts, sheets and presentations.

mod sheet;

use std::collections::HashMap;
use std::mem;

use super::archive::Archive;
use super::grid::MAX_COLUMNS;
use super::xml::{Node, Tag, Xml};
use crate::ipc::EXTRACT_PAGES;
use crate::worker::document::Pages;
use crate::worker::document::blocks::{Blocks, Table, link, one_line};

/// Bytes of the list of parts in which encrypted ones are looked for.
const MAX_MANIFEST: u64 = 4 << 20;
/// Blanks that one element stands for.
const MAX_BLANKS: usize = 100;
/// Styles of lists, and levels of each.
const MAX_LISTS: usize = 10_000;
const LEVELS: usize = 10;
/// Footnotes.
const MAX_NOTES: usize = 10_000;

/// Reads a document. Each sheet and each slide is a page; a text is one.
pub fn read(archive: &Archive<'_>, pages: &mut Pages<'_>) -> Result<u32, String> {
    let manifest = archive.bytes("META-INF/manifest.xml", MAX_MANIFEST)?;
    let encrypted = b"encryption-data";
    if manifest.is_some_and(|text| text.windows(encrypted.len()).any(|part| part == encrypted)) {
        return Err("is protected with a password; save it without one".into());
    }
    let mut open = Open {
        archive,
        lists: HashMap::new(),
        counts: [0; LEVELS],
        notes: vec![],
        boxes: vec![],
    };
    if let Some(mut xml) = archive.xml("styles.xml")? {
        open.list_styles(&mut xml)?;
    }
    let Some(mut xml) = archive.xml("content.xml")? else {
        return Err("is an OpenDocument file without content".into());
    };
    if xml.element()?.is_none() {
        return Err("is an OpenDocument file without content".into());
    }
    while let Some(tag) = xml.element()? {
        match tag.name() {
            "automatic-styles" => open.list_styles(&mut xml)?,
            "body" => return open.body(&mut xml, pages),
            _ => xml.skip()?,
        }
    }
    Err("is an OpenDocument file without content".into())
}

struct Open<'a> {
    archive: &'a Archive<'a>,
    /// Which levels of a style of lists are numbered.
    lists: HashMap<String, [bool; LEVELS]>,
    /// How far the list of each level is.
    counts: [u32; LEVELS],
    notes: Vec<String>,
    /// What stands in frames of the paragraph that is read.
    boxes: Vec<String>,
}

/// Where in a list something stands.
#[derive(Clone, Copy, Default)]
struct Item<'a> {
    style: &'a str,
    depth: usize,
}

impl Open<'_> {
    fn list_styles(&mut self, xml: &mut Xml<'_>) -> Result<(), String> {
        while let Some(tag) = xml.element()? {
            if tag.name() != "list-style" {
                self.list_styles(xml)?;
                continue;
            }
            let mut levels = [false; LEVELS];
            while let Some(level) = xml.element()? {
                let at = level
                    .attribute("level")
                    .and_then(|level| level.parse::<usize>().ok());
                let is_shown = level
                    .attribute("num-format")
                    .is_some_and(|format| !format.is_empty());
                if let Some(numbered) = at.and_then(|at| levels.get_mut(at.wrapping_sub(1))) {
                    *numbered = level.name() == "list-level-style-number" && is_shown;
                }
                xml.skip()?;
            }
            if let Some(name) = tag
                .attribute("name")
                .filter(|_| self.lists.len() < MAX_LISTS)
            {
                self.lists.insert(name, levels);
            }
        }
        Ok(())
    }

    fn body(&mut self, xml: &mut Xml<'_>, pages: &mut Pages<'_>) -> Result<u32, String> {
        let Some(tag) = xml.element()? else {
            return Err("is an OpenDocument file without content".into());
        };
        match tag.name() {
            "spreadsheet" => self.each(xml, "table", pages, Self::sheet),
            "presentation" | "drawing" => self.each(xml, "page", pages, Self::slide),
            "text" => {
                let mut out = Blocks::default();
                self.blocks(xml, &mut out)?;
                self.end_notes(&mut out);
                let unseen = out.unseen > 0;
                pages.cut |= out.cut;
                pages.push(out.finish(), unseen, None);
                Ok(1)
            }
            _ => Err("is an OpenDocument file of a kind that is not read; save it as PDF".into()),
        }
    }

    /// Reads each element of a name as a page.
    fn each(
        &mut self,
        xml: &mut Xml<'_>,
        name: &str,
        pages: &mut Pages<'_>,
        read: fn(&mut Self, u32, &Tag, &mut Xml<'_>, &mut Blocks) -> Result<(), String>,
    ) -> Result<u32, String> {
        let (mut count, mut wanted) = (0, true);
        while let Some(tag) = xml.element()? {
            if tag.name() != name {
                xml.skip()?;
                continue;
            }
            count += 1;
            if !wanted || count as usize > EXTRACT_PAGES {
                xml.skip()?;
                continue;
            }
            let mut out = Blocks::default();
            read(self, count, &tag, xml, &mut out)?;
            self.end_notes(&mut out);
            let unseen = out.unseen > 0;
            pages.cut |= out.cut;
            wanted = pages.push(out.finish(), unseen, None);
        }
        Ok(count)
    }

    fn slide(
        &mut self,
        number: u32,
        _: &Tag,
        xml: &mut Xml<'_>,
        out: &mut Blocks,
    ) -> Result<(), String> {
        let (mut title, mut inside, mut notes) = (String::new(), out.inner(), String::new());
        while let Some(tag) = xml.element()? {
            let is_title = tag.attribute("class").is_some_and(|class| class == "title");
            match tag.name() {
                "notes" => {
                    let mut said = inside.inner();
                    self.blocks(xml, &mut said)?;
                    notes = inside.take(said);
                }
                "frame" if is_title && title.is_empty() => {
                    let mut said = inside.inner();
                    self.frame(xml, &mut said)?;
                    self.end_boxes(&mut said);
                    title = one_line(&inside.take(said));
                }
                _ => {
                    self.block(&tag, xml, &mut inside, Item::default())?;
                }
            }
        }
        let colon = if title.is_empty() { "" } else { ": " };
        out.heading(2, &format!("Slide {number}{colon}{title}"));
        let said = out.take(inside);
        out.paragraph(&said);
        if !notes.is_empty() {
            out.paragraph(&format!("Speaker notes: {notes}"));
        }
        Ok(())
    }

    /// What a cell shows; what it holds, where it does not say how that is shown.
    fn cell(&mut self, tag: &Tag, xml: &mut Xml<'_>, out: &mut Blocks) -> Result<String, String> {
        let mut inside = out.inner();
        self.blocks(xml, &mut inside)?;
        let text = out.take(inside);
        let held = [
            "string-value",
            "date-value",
            "time-value",
            "boolean-value",
            "value",
        ];
        let held = || held.iter().find_map(|name| tag.attribute(name));
        Ok(match text.trim() {
            "" => held().unwrap_or_default(),
            text => text.to_owned(),
        })
    }

    /// To the end of the element that was begun last.
    fn blocks(&mut self, xml: &mut Xml<'_>, out: &mut Blocks) -> Result<(), String> {
        while let Some(tag) = xml.element()? {
            self.block(&tag, xml, out, Item::default())?;
        }
        Ok(())
    }

    /// The block that was begun last.
    fn block(
        &mut self,
        tag: &Tag,
        xml: &mut Xml<'_>,
        out: &mut Blocks,
        item: Item<'_>,
    ) -> Result<(), String> {
        match tag.name() {
            _ if out.is_full() => {
                out.cut = true;
                xml.skip()?;
            }
            "h" => {
                let level = tag
                    .attribute("outline-level")
                    .and_then(|level| level.parse().ok());
                let text = self.text(xml, out)?;
                out.heading(level.unwrap_or(1), &text);
                self.end_boxes(out);
            }
            "p" => {
                let text = self.text(xml, out)?;
                out.paragraph(&text);
                self.end_boxes(out);
            }
            "list" => self.list(tag, xml, out, item)?,
            "table" => {
                let mut table = Table::default();
                self.rows(xml, &mut table, out)?;
                out.table(table);
            }
            "frame" => {
                let mark = self.frame(xml, out)?;
                out.paragraph(&mark);
                self.end_boxes(out);
            }
            "annotation" => {
                let said = self.comment(xml, out)?;
                out.paragraph(&said);
            }
            "tracked-changes" | "forms" | "index-title-template" | "notes" | "settings" => {
                xml.skip()?;
            }
            _ => self.blocks(xml, out)?,
        }
        Ok(())
    }

    fn list(
        &mut self,
        tag: &Tag,
        xml: &mut Xml<'_>,
        out: &mut Blocks,
        item: Item<'_>,
    ) -> Result<(), String> {
        let own = tag.attribute("style-name");
        let style = own.as_deref().unwrap_or(item.style);
        let level = item.depth.min(LEVELS - 1);
        let is_numbered = self.lists.get(style).is_some_and(|levels| levels[level]);
        if !tag.is_on("continue-numbering") && tag.attribute("continue-list").is_none() {
            self.counts[level] = 0;
        }
        while let Some(tag) = xml.element()? {
            let mut marker = match tag.name() {
                "list-item" if is_numbered => {
                    self.counts[level] = self.counts[level].saturating_add(1);
                    Some(format!("{}.", self.counts[level]))
                }
                "list-item" => Some("-".into()),
                _ => None,
            };
            while let Some(tag) = xml.element()? {
                if tag.name() == "p"
                    && let Some(marker) = marker.take()
                {
                    let text = self.text(xml, out)?;
                    out.item(item.depth, &marker, &text);
                    self.end_boxes(out);
                    continue;
                }
                let depth = item.depth + 1;
                self.block(&tag, xml, out, Item { style, depth })?;
            }
        }
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
                "table-row" if !table.is_full() => {
                    table.row();
                    while let Some(tag) = xml.element()? {
                        let times = repeated(&tag, "number-columns-repeated").min(MAX_COLUMNS);
                        let value = self.cell(&tag, xml, out)?;
                        (0..times).for_each(|_| table.cell(&value));
                    }
                }
                "table-rows" | "table-header-rows" | "table-row-group" => {
                    self.rows(xml, table, out)?;
                }
                _ => xml.skip()?,
            }
        }
        Ok(())
    }

    fn text(&mut self, xml: &mut Xml<'_>, out: &mut Blocks) -> Result<String, String> {
        let mut text = String::new();
        self.inline(xml, &mut text, out)?;
        Ok(text)
    }

    fn inline(
        &mut self,
        xml: &mut Xml<'_>,
        text: &mut String,
        out: &mut Blocks,
    ) -> Result<(), String> {
        while let Some(node) = xml.next()? {
            let tag = match node {
                Node::Element(tag) => tag,
                Node::Text(more) => {
                    // Any white space is one blank.
                    for c in more.chars() {
                        if !c.is_ascii_whitespace() {
                            text.push(c);
                        } else if !text.ends_with([' ', '\n', '\t']) {
                            text.push(' ');
                        }
                    }
                    continue;
                }
            };
            match tag.name() {
                "s" => {
                    let count = tag.attribute("c").and_then(|count| count.parse().ok());
                    *text += &" ".repeat(count.unwrap_or(1).min(MAX_BLANKS));
                }
                "tab" => text.push('\t'),
                "line-break" => text.push('\n'),
                "a" => {
                    let mut inside = String::new();
                    self.inline(xml, &mut inside, out)?;
                    *text += &link(&inside, tag.attribute("href").as_deref());
                    continue;
                }
                "note" => {
                    *text += &self.note(xml, out)?;
                    continue;
                }
                "annotation" => {
                    *text += &self.comment(xml, out)?;
                    continue;
                }
                "frame" => {
                    *text += &self.frame(xml, out)?;
                    continue;
                }
                "ruby-text" => {}
                "custom-shape" | "rect" | "ellipse" | "g" | "text-box" => {
                    let mut inside = out.inner();
                    self.blocks(xml, &mut inside)?;
                    let said = out.take(inside);
                    self.boxes.push(said);
                    continue;
                }
                _ => {
                    self.inline(xml, text, out)?;
                    continue;
                }
            }
            xml.skip()?;
        }
        Ok(())
    }

    /// A picture, a chart or a frame with text: what stands for it in the text.
    fn frame(&mut self, xml: &mut Xml<'_>, out: &mut Blocks) -> Result<String, String> {
        let (mut shown, mut object, mut said) = (false, None, String::new());
        while let Some(tag) = xml.element()? {
            match tag.name() {
                "image" => {
                    shown = true;
                    xml.skip()?;
                }
                "object" | "object-ole" | "plugin" | "applet" => {
                    object = Some(tag.attribute("href").unwrap_or_default());
                    xml.skip()?;
                }
                "title" | "desc" => said = xml.text()?,
                _ => {
                    let (boxes, mut inside) = (mem::take(&mut self.boxes), out.inner());
                    self.block(&tag, xml, &mut inside, Item::default())?;
                    self.boxes = boxes;
                    self.boxes.push(out.take(inside));
                }
            }
        }
        Ok(match object {
            Some(name) => {
                let figures = self.figures(&name)?;
                self.boxes.push(figures);
                out.unseen("chart or object", &said)
            }
            None if shown => out.unseen("picture", &said),
            None => String::new(),
        })
    }

    /// The table that an embedded chart is drawn from.
    fn figures(&mut self, name: &str) -> Result<String, String> {
        let name = name.trim_start_matches("./");
        let mut out = Blocks::default();
        if !name.is_empty()
            && let Some(mut xml) = self.archive.xml(&format!("{name}/content.xml"))?
            && xml.find("table")?
        {
            let mut table = Table::default();
            self.rows(&mut xml, &mut table, &mut out)?;
            out.table(table);
        }
        Ok(out.finish())
    }

    fn note(&mut self, xml: &mut Xml<'_>, out: &mut Blocks) -> Result<String, String> {
        let mark = format!("[^{}]", self.notes.len() + 1);
        let mut inside = out.inner();
        while let Some(tag) = xml.element()? {
            match tag.name() {
                "note-body" => self.blocks(xml, &mut inside)?,
                _ => xml.skip()?,
            }
        }
        let said = out.take(inside);
        if self.notes.len() < MAX_NOTES {
            self.notes.push(format!("{mark}: {said}"));
        }
        Ok(mark)
    }

    fn comment(&mut self, xml: &mut Xml<'_>, out: &mut Blocks) -> Result<String, String> {
        let (mut by, mut inside) = (String::new(), out.inner());
        while let Some(tag) = xml.element()? {
            match tag.name() {
                "creator" => by = format!(" by {}", xml.text()?),
                "date" | "date-string" | "creator-initials" => xml.skip()?,
                _ => self.block(&tag, xml, &mut inside, Item::default())?,
            }
        }
        let said = out.take(inside);
        Ok(format!("[comment{by}: {said}]"))
    }

    fn end_boxes(&mut self, out: &mut Blocks) {
        for said in mem::take(&mut self.boxes) {
            out.paragraph(&said);
        }
    }

    fn end_notes(&mut self, out: &mut Blocks) {
        for note in mem::take(&mut self.notes) {
            out.paragraph(&note);
        }
    }
}

fn repeated(tag: &Tag, name: &str) -> u32 {
    let times = tag.attribute(name).and_then(|times| times.parse().ok());
    times.unwrap_or(1)
}
