//! Which styles of a text document are headings and lists.

use std::collections::HashMap;

use super::super::archive::Archive;
use super::super::xml::Xml;

/// Styles of a document, and how many of them may rest on each other.
const MAX_STYLES: usize = 10_000;
const MAX_BASES: usize = 16;
/// Levels of headings.
const HEADINGS: usize = 9;

/// What a paragraph is.
#[derive(Clone, Default)]
pub struct Style {
    /// From 1.
    pub heading: Option<usize>,
    /// The list that it belongs to, and the level in it, from 0.
    pub list: Option<(String, usize)>,
}

#[derive(Default)]
struct Named {
    base: Option<String>,
    heading: Option<usize>,
    list: Option<String>,
    level: Option<usize>,
}

/// All styles, by their ids.
#[derive(Default)]
pub struct Styles {
    named: HashMap<String, Named>,
    usual: Option<String>,
}

impl Styles {
    pub fn read(archive: &Archive<'_>, part: Option<&str>) -> Result<Self, String> {
        let mut styles = Self::default();
        let Some(mut xml) = part.map(|part| archive.xml(part)).transpose()?.flatten() else {
            return Ok(styles);
        };
        if !xml.find("styles")? {
            return Ok(styles);
        }
        while let Some(tag) = xml.element()? {
            let is_paragraph = tag
                .attribute("type")
                .is_some_and(|kind| kind == "paragraph");
            let id = tag.attribute("styleId").unwrap_or_default();
            if tag.name() != "style" || !is_paragraph || styles.named.len() == MAX_STYLES {
                xml.skip()?;
                continue;
            }
            if tag.is_on("default") {
                styles.usual = Some(id.clone());
            }
            let mut named = Named::default();
            while let Some(tag) = xml.element()? {
                let value = tag.attribute("val");
                match tag.name() {
                    "name" => named.heading = value.as_deref().and_then(heading_of),
                    "basedOn" => named.base = value,
                    "pPr" => {
                        let own = Properties::read(&mut xml)?;
                        named.heading = own.heading.or(named.heading);
                        (named.list, named.level) = (own.list, own.level);
                        continue;
                    }
                    _ => {}
                }
                xml.skip()?;
            }
            styles.named.insert(id, named);
        }
        Ok(styles)
    }

    /// That of a paragraph which says nothing.
    pub fn usual(&self) -> Style {
        self.resolve(Properties {
            style: self.usual.clone(),
            ..Properties::default()
        })
    }

    /// That of a paragraph whose properties were begun last.
    pub fn of_paragraph(&self, xml: &mut Xml<'_>) -> Result<Style, String> {
        let mut own = Properties::read(xml)?;
        if own.style.is_none() {
            own.style.clone_from(&self.usual);
        }
        Ok(self.resolve(own))
    }

    fn resolve(&self, own: Properties) -> Style {
        let (mut heading, mut list, mut level) = (own.heading, own.list, own.level);
        let mut next = own.style.as_ref();
        for _ in 0..MAX_BASES {
            let Some(named) = next.and_then(|id| self.named.get(id)) else {
                break;
            };
            heading = heading.or(named.heading);
            list = list.or_else(|| named.list.clone());
            level = level.or(named.level);
            next = named.base.as_ref();
        }
        Style {
            heading: heading.filter(|level| (1..=HEADINGS).contains(level)),
            // The list 0 is none.
            list: list
                .filter(|id| id != "0")
                .map(|id| (id, level.unwrap_or(0))),
        }
    }
}

/// What the properties of a paragraph or of a style say themselves.
#[derive(Default)]
struct Properties {
    style: Option<String>,
    heading: Option<usize>,
    list: Option<String>,
    level: Option<usize>,
}

impl Properties {
    fn read(xml: &mut Xml<'_>) -> Result<Self, String> {
        let mut own = Self::default();
        while let Some(tag) = xml.element()? {
            let value = tag.attribute("val");
            match tag.name() {
                "pStyle" => own.style = value,
                // Nine is text.
                "outlineLvl" => {
                    own.heading = value.and_then(|value| Some(value.parse::<usize>().ok()? + 1))
                }
                "numPr" => {
                    while let Some(tag) = xml.element()? {
                        let value = tag.attribute("val");
                        match tag.name() {
                            "numId" => own.list = value,
                            "ilvl" => own.level = value.and_then(|value| value.parse().ok()),
                            _ => {}
                        }
                        xml.skip()?;
                    }
                    continue;
                }
                _ => {}
            }
            xml.skip()?;
        }
        Ok(own)
    }
}

/// The level that a style's own name tells, which is in English in every language's documents.
fn heading_of(name: &str) -> Option<usize> {
    let name = name.to_ascii_lowercase();
    if name == "title" {
        return Some(1);
    }
    name.strip_prefix("heading ")?.parse().ok()
}
