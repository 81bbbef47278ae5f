//! How the items of a text document's lists are numbered.

use std::collections::HashMap;

use super::super::archive::Archive;
use super::super::xml::Xml;

/// Lists of a document.
const MAX_LISTS: usize = 10_000;
/// Levels of a list.
const LEVELS: usize = 9;
/// Roman numerals and letters end here.
const MOST: u32 = 3999;

/// The lists, and how far each is.
#[derive(Default)]
pub struct Numbering {
    /// By the ids that paragraphs name: which definition a list follows.
    lists: HashMap<String, String>,
    definitions: HashMap<String, Definition>,
}

#[derive(Default)]
struct Definition {
    levels: Vec<Level>,
    counts: [u32; LEVELS],
}

#[derive(Clone, Default)]
struct Level {
    format: String,
    /// `%1.%2`, in which the numbers of levels are put.
    text: String,
    start: u32,
}

impl Numbering {
    pub fn read(archive: &Archive<'_>, part: Option<&str>) -> Result<Self, String> {
        let mut all = Self::default();
        let Some(mut xml) = part.map(|part| archive.xml(part)).transpose()?.flatten() else {
            return Ok(all);
        };
        if !xml.find("numbering")? {
            return Ok(all);
        }
        while let Some(tag) = xml.element()? {
            match tag.name() {
                "abstractNum" if all.definitions.len() < MAX_LISTS => {
                    let levels = levels(&mut xml)?;
                    let id = tag.attribute("abstractNumId").unwrap_or_default();
                    let counts = [0; LEVELS];
                    all.definitions.insert(id, Definition { levels, counts });
                }
                "num" if all.lists.len() < MAX_LISTS => {
                    let id = tag.attribute("numId").unwrap_or_default();
                    while let Some(tag) = xml.element()? {
                        if tag.name() == "abstractNumId" {
                            let definition = tag.attribute("val").unwrap_or_default();
                            all.lists.insert(id.clone(), definition);
                        }
                        xml.skip()?;
                    }
                }
                _ => xml.skip()?,
            }
        }
        Ok(all)
    }

    /// The marker of a list's next item at a level; `None` if it has none.
    pub fn next(&mut self, list: &str, level: usize) -> Option<String> {
        let Some(definition) = self
            .lists
            .get(list)
            .and_then(|id| self.definitions.get_mut(id))
        else {
            return Some("-".into());
        };
        let level = level.min(LEVELS - 1);
        let counts = &mut definition.counts;
        counts[level] += 1;
        counts[level + 1..].fill(0);
        let Some(own) = definition.levels.get(level) else {
            return Some("-".into());
        };
        match &*own.format {
            "none" => return None,
            "bullet" => return Some("-".into()),
            _ => {}
        }
        let mut marker = own.text.clone();
        for (i, of) in definition.levels.iter().enumerate().take(level + 1) {
            let number = definition.counts[i].max(1) - 1 + of.start;
            marker = marker.replace(&format!("%{}", i + 1), &shown(number, &of.format));
        }
        Some(if marker.trim().is_empty() {
            "-".into()
        } else {
            marker
        })
    }
}

/// The levels of a definition that was begun last.
fn levels(xml: &mut Xml<'_>) -> Result<Vec<Level>, String> {
    let mut levels = vec![Level::default(); LEVELS];
    while let Some(tag) = xml.element()? {
        let at = tag
            .attribute("ilvl")
            .and_then(|level| level.parse::<usize>().ok());
        let Some(level) = at
            .and_then(|at| levels.get_mut(at))
            .filter(|_| tag.name() == "lvl")
        else {
            xml.skip()?;
            continue;
        };
        level.start = 1;
        while let Some(tag) = xml.element()? {
            let value = tag.attribute("val").unwrap_or_default();
            match tag.name() {
                "start" => level.start = value.parse().unwrap_or(1).min(MOST),
                "numFmt" => level.format = value,
                "lvlText" => level.text = value,
                _ => {}
            }
            xml.skip()?;
        }
    }
    Ok(levels)
}

fn shown(number: u32, format: &str) -> String {
    match format {
        "lowerLetter" => letters(number),
        "upperLetter" => letters(number).to_uppercase(),
        "lowerRoman" => roman(number).to_lowercase(),
        "upperRoman" => roman(number),
        "none" => String::new(),
        _ => number.to_string(),
    }
}

/// a to z, aa to zz, and so on.
fn letters(number: u32) -> String {
    let Some(at) = number.checked_sub(1).filter(|at| *at < MOST) else {
        return number.to_string();
    };
    let letter = char::from(b'a' + (at % 26) as u8);
    String::from(letter).repeat(at as usize / 26 + 1)
}

fn roman(number: u32) -> String {
    const SIGNS: [(u32, &str); 13] = [
        (1000, "M"),
        (900, "CM"),
        (500, "D"),
        (400, "CD"),
        (100, "C"),
        (90, "XC"),
        (50, "L"),
        (40, "XL"),
        (10, "X"),
        (9, "IX"),
        (5, "V"),
        (4, "IV"),
        (1, "I"),
    ];
    if number == 0 || number > MOST {
        return number.to_string();
    }
    let (mut rest, mut text) = (number, String::new());
    for (value, sign) in SIGNS {
        while rest >= value {
            rest -= value;
            text += sign;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_shown_in_the_lists_own_signs() {
        for (number, format, expected) in [
            (4, "decimal", "4"),
            (4, "lowerRoman", "iv"),
            (1994, "upperRoman", "MCMXCIV"),
            (2, "upperLetter", "B"),
            (28, "lowerLetter", "bb"),
            (0, "lowerLetter", "0"),
            (u32::MAX, "lowerRoman", "4294967295"),
        ] {
            assert_eq!(shown(number, format), expected, "{number} {format}");
        }
    }
}
