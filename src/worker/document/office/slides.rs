//! pptx: the slides in their order, each with its notes.

use super::archive::Archive;
use super::chart;
use super::package::Relations;
use super::xml::{Tag, Xml};
use crate::ipc::{EXTRACT_PAGES, Sight};
use crate::worker::document::Pages;
use crate::worker::document::blocks::{Blocks, Table, link, one_line};

/// Reads the presentation whose main part this is; each slide is a page.
pub fn read(archive: &Archive<'_>, main: &str, pages: &mut Pages<'_>) -> Result<u32, String> {
    let parts = Relations::of(archive, main)?;
    let mut slides = vec![];
    if let Some(mut xml) = archive.xml(main)?
        && xml.find("sldIdLst")?
    {
        while let Some(tag) = xml.element()? {
            slides.extend(
                tag.relation()
                    .and_then(|id| parts.part(&id).map(str::to_owned)),
            );
            xml.skip()?;
        }
    }
    if slides.is_empty() {
        return Err("is a presentation without slides".into());
    }
    for (i, part) in slides.iter().enumerate().take(EXTRACT_PAGES) {
        let (text, unseen) = slide(archive, part, i + 1, pages)?;
        if !pages.push(text, Sight::of_text(unseen)) {
            break;
        }
    }
    Ok(slides.len() as u32)
}

/// What a slide says, and whether it shows more.
fn slide(
    archive: &Archive<'_>,
    part: &str,
    number: usize,
    pages: &mut Pages<'_>,
) -> Result<(String, bool), String> {
    let links = Relations::of(archive, part)?;
    let mut slide = Slide {
        archive,
        links,
        title: String::new(),
        is_notes: false,
        out: Blocks::default(),
    };
    let mut hidden = "";
    if let Some(mut xml) = archive.xml(part)?
        && let Some(tag) = xml.element()?
    {
        let off = |show: String| matches!(&*show, "0" | "false");
        if tag.attribute("show").is_some_and(off) {
            hidden = " (hidden)";
        }
        slide.shapes(&mut xml)?;
    }
    let notes = slide
        .links
        .parts("notesSlide")
        .first()
        .map(|part| (*part).to_owned());
    let said = notes
        .map(|part| slide.notes(&part))
        .transpose()?
        .unwrap_or_default();
    let Slide { title, mut out, .. } = slide;
    if !said.is_empty() {
        out.paragraph(&format!("Speaker notes: {said}"));
    }
    pages.cut |= out.cut;
    let unseen = out.unseen > 0;
    let colon = if title.is_empty() { "" } else { ": " };
    let head = format!("## Slide {number}{hidden}{colon}{title}");
    Ok((format!("{head}\n\n{}", out.finish()), unseen))
}

struct Slide<'a> {
    archive: &'a Archive<'a>,
    links: Relations,
    title: String,
    /// These are a slide's notes, which are no points.
    is_notes: bool,
    out: Blocks,
}

/// For what a shape of the layout stands.
#[derive(Clone, Copy, PartialEq)]
enum Role {
    Title,
    /// What is said in points.
    Points,
    /// Numbers and dates at the bottom.
    Edge,
    Other,
}

impl Slide<'_> {
    /// The text of the notes in a part.
    fn notes(&mut self, part: &str) -> Result<String, String> {
        let links = Relations::of(self.archive, part)?;
        let mut notes = Slide {
            archive: self.archive,
            links,
            title: String::new(),
            is_notes: true,
            out: Blocks::default(),
        };
        if let Some(mut xml) = self.archive.xml(part)? {
            notes.shapes(&mut xml)?;
        }
        Ok(notes.out.finish())
    }

    /// To the end of the element that was begun last, or of all.
    fn shapes(&mut self, xml: &mut Xml<'_>) -> Result<(), String> {
        while let Some(tag) = xml.element()? {
            match tag.name() {
                "sp" => self.shape(xml)?,
                "pic" => {
                    let said = described(xml)?;
                    let said = self.out.unseen("picture", &said);
                    self.out.paragraph(&said);
                }
                "graphicFrame" => self.frame(xml)?,
                "Fallback" | "timing" | "transition" | "clrMapOvr" => xml.skip()?,
                _ => self.shapes(xml)?,
            }
        }
        Ok(())
    }

    fn shape(&mut self, xml: &mut Xml<'_>) -> Result<(), String> {
        let mut role = Role::Other;
        while let Some(tag) = xml.element()? {
            match tag.name() {
                "nvSpPr" => {
                    role = role_of(xml)?;
                    if self.is_notes && role == Role::Points {
                        role = Role::Other;
                    }
                }
                "txBody" if role == Role::Edge => xml.skip()?,
                "txBody" if role == Role::Title => {
                    let mut title = Blocks::default();
                    self.body(xml, Role::Other, &mut title)?;
                    let text = one_line(&title.finish());
                    match self.title.is_empty() {
                        true => self.title = text,
                        false => self.out.paragraph(&text),
                    }
                }
                "txBody" => {
                    let mut out = std::mem::take(&mut self.out);
                    let read = self.body(xml, role, &mut out);
                    self.out = out;
                    read?;
                }
                _ => xml.skip()?,
            }
        }
        Ok(())
    }

    /// Paragraphs of a text.
    fn body(&mut self, xml: &mut Xml<'_>, role: Role, out: &mut Blocks) -> Result<(), String> {
        while let Some(tag) = xml.element()? {
            if tag.name() != "p" {
                xml.skip()?;
                continue;
            }
            let mut paragraph = Paragraph {
                text: String::new(),
                depth: 0,
                is_item: role == Role::Points,
                marker: "-",
            };
            self.runs(xml, &mut paragraph)?;
            if paragraph.is_item && !out.is_full() {
                out.item(paragraph.depth, paragraph.marker, &paragraph.text);
            } else if !out.is_full() {
                out.paragraph(&paragraph.text);
            }
        }
        Ok(())
    }

    fn runs(&mut self, xml: &mut Xml<'_>, paragraph: &mut Paragraph) -> Result<(), String> {
        while let Some(tag) = xml.element()? {
            match tag.name() {
                "pPr" => {
                    let depth = tag.attribute("lvl").and_then(|level| level.parse().ok());
                    paragraph.depth = depth.unwrap_or(0);
                    while let Some(tag) = xml.element()? {
                        match tag.name() {
                            "buNone" => paragraph.is_item = false,
                            "buChar" | "buBlip" => paragraph.is_item = true,
                            "buAutoNum" => (paragraph.is_item, paragraph.marker) = (true, "1."),
                            _ => {}
                        }
                        xml.skip()?;
                    }
                }
                "r" | "fld" => {
                    let (text, address) = self.run(xml)?;
                    paragraph.text += &link(&text, address.as_deref());
                }
                "br" => {
                    paragraph.text.push('\n');
                    xml.skip()?;
                }
                "t" => paragraph.text += &xml.text()?,
                "endParaRPr" | "Fallback" => xml.skip()?,
                // Formulas.
                _ => self.runs(xml, paragraph)?,
            }
        }
        Ok(())
    }

    /// A run's text, and where it leads.
    fn run(&mut self, xml: &mut Xml<'_>) -> Result<(String, Option<String>), String> {
        let (mut text, mut address) = (String::new(), None);
        while let Some(tag) = xml.element()? {
            match tag.name() {
                "t" => text += &xml.text()?,
                "rPr" => {
                    while let Some(tag) = xml.element()? {
                        if tag.name() == "hlinkClick" {
                            let id = tag.relation();
                            address = id.and_then(|id| self.links.address(&id).map(str::to_owned));
                        }
                        xml.skip()?;
                    }
                }
                _ => xml.skip()?,
            }
        }
        Ok((text, address))
    }

    /// A table, a chart, or what another program drew.
    fn frame(&mut self, xml: &mut Xml<'_>) -> Result<(), String> {
        while let Some(tag) = xml.element()? {
            match tag.name() {
                "tbl" => {
                    let mut table = Table::default();
                    self.rows(xml, &mut table)?;
                    self.out.table(table);
                }
                "chart" | "relIds" => {
                    let part = self.part_of(&tag);
                    let text = chart::text(self.archive, part.as_deref(), &mut self.out)?;
                    self.out.paragraph(&text);
                    xml.skip()?;
                }
                "oleObj" => {
                    let said = self.out.unseen("embedded object", "");
                    self.out.paragraph(&said);
                    xml.skip()?;
                }
                "Fallback" => xml.skip()?,
                _ => self.frame(xml)?,
            }
        }
        Ok(())
    }

    fn part_of(&self, tag: &Tag) -> Option<String> {
        let id = tag.attribute("dm").or_else(|| tag.relation())?;
        self.links.part(&id).map(str::to_owned)
    }

    fn rows(&mut self, xml: &mut Xml<'_>, table: &mut Table) -> Result<(), String> {
        while let Some(tag) = xml.element()? {
            match tag.name() {
                "tr" if !table.is_full() => {
                    table.row();
                    self.rows(xml, table)?;
                }
                "tc" => {
                    let mut cell = self.out.inner();
                    while let Some(tag) = xml.element()? {
                        match tag.name() {
                            "txBody" => self.body(xml, Role::Other, &mut cell)?,
                            _ => xml.skip()?,
                        }
                    }
                    table.cell(&self.out.take(cell));
                }
                _ => xml.skip()?,
            }
        }
        Ok(())
    }
}

struct Paragraph {
    text: String,
    depth: usize,
    is_item: bool,
    marker: &'static str,
}

/// The role that the properties of a shape tell.
fn role_of(xml: &mut Xml<'_>) -> Result<Role, String> {
    let mut role = Role::Other;
    while let Some(tag) = xml.element()? {
        if tag.name() == "ph" {
            role = match tag.attribute("type").as_deref() {
                Some("title" | "ctrTitle") => Role::Title,
                Some("sldNum" | "dt" | "ftr" | "hdr" | "sldImg") => Role::Edge,
                Some("subTitle") => Role::Other,
                _ => Role::Points,
            };
            xml.skip()?;
        } else if let deeper @ (Role::Title | Role::Points | Role::Edge) = role_of(xml)? {
            role = deeper;
        }
    }
    Ok(role)
}

/// What is said of a picture.
fn described(xml: &mut Xml<'_>) -> Result<String, String> {
    let mut said = String::new();
    while let Some(tag) = xml.element()? {
        if tag.name() == "cNvPr" {
            said = tag.attribute("descr").unwrap_or_default();
        }
        let deeper = described(xml)?;
        if !deeper.is_empty() {
            said = deeper;
        }
    }
    Ok(said)
}
