//! From characters on a page to text as a person reads it. Pure.
//!
//! Characters that follow each other become pieces of lines (`lines`); pieces become rows, columns
//! and tables by their places (`order`); what comes of it is written as Markdown (`markdown`). The
//! order in which a page draws is no order of reading: programs draw tables by columns, values of
//! forms after all labels, and lines that run from right to left letter by letter.

mod drawn;
mod guess;
mod letters;
mod lines;
mod markdown;
mod order;
mod passage;
mod table;

use std::collections::BTreeMap;

use drawn::Drawn;
use hayro::kurbo::{Point, Rect, Vec2};
use passage::Marked;

/// Links of a page that are kept; a page of a book has a few.
const MAX_LINKS: usize = 500;
/// Degrees by which a scan that was laid askew differs from one that was not.
const ASKEW: f64 = 3.0;
/// What is written for a character that cannot be read.
pub const UNREADABLE: &str = "\u{fffd}";

/// A character, or several that are drawn as one. Places are in the page's unit, and y grows
/// downwards.
#[derive(Debug, Clone, Copy)]
pub struct Mark<'a> {
    pub text: &'a str,
    /// Where it begins on its line.
    pub at: Point,
    /// From there to where the next one begins.
    pub advance: Vec2,
    /// From its line to the line above, were it set solid: its direction and its size.
    pub up: Vec2,
    /// Whether the size is unknown, as in fonts that are made of drawings, whose units are their own.
    pub sized: bool,
    /// Of one that cannot be read: its number in its font.
    pub code: Option<u32>,
}

/// What a page says, in the making.
#[derive(Debug, Default)]
pub struct Text {
    characters: Vec<Character>,
    /// All their texts.
    texts: String,
    drawn: Drawn,
    marked: Marked,
    /// A space was drawn since the last character.
    space: bool,
    /// Characters that cannot be read, and their numbers.
    unread: Vec<(u32, u32)>,
    links: Vec<(Rect, String)>,
    /// What is said about the page and stands nowhere on it.
    notes: Vec<String>,
}

/// Of a page; its text is in `Text::texts`.
#[derive(Debug, Clone, Copy)]
struct Character {
    text: (u32, u32),
    at: Point,
    width: f64,
    size: f64,
    /// Of its line, in degrees clockwise.
    angle: i16,
    /// After a space that was drawn.
    spaced: bool,
    sized: bool,
}

impl Text {
    /// Another character, in the order in which the page draws.
    pub fn push(&mut self, mark: Mark<'_>) {
        if self.marked.holds(&mark) {
            if self.marked.is_long() {
                self.close();
            }
            return;
        }
        let size = mark.up.hypot().max(1e-3);
        if ![mark.at.x, mark.at.y, size, mark.advance.hypot()]
            .iter()
            .all(|n| n.abs() < 1e6)
        {
            return;
        }
        if mark
            .text
            .chars()
            .all(|c| c.is_whitespace() || c.is_control())
        {
            self.space |= mark.text.contains(char::is_whitespace);
            return;
        }
        let wide = mark.advance.hypot();
        let known = if mark.sized || wide == 0.0 {
            size
        } else {
            size.min(2.0 * wide)
        };
        if self.drawn.again(mark.text, mark.at.x, mark.at.y, known) {
            return;
        }
        let start = self.texts.len() as u32;
        self.texts
            .extend(mark.text.chars().filter(|c| !c.is_control()));
        // A glyph that does not move on stands upright to the right of its direction.
        let along = if mark.advance.hypot() > 1e-6 {
            mark.advance
        } else {
            Vec2::new(-mark.up.y, mark.up.x)
        };
        if let Some(code) = mark.code {
            self.unread.push((self.characters.len() as u32, code));
        }
        self.characters.push(Character {
            text: (start, self.texts.len() as u32),
            at: mark.at,
            width: mark.advance.hypot(),
            size,
            angle: angle(along),
            spaced: std::mem::take(&mut self.space),
            sized: mark.sized,
        });
    }

    /// A character of the words that stand for what is drawn, where the file gives them.
    pub fn meant(&self) -> Option<&str> {
        self.marked.meant()
    }

    /// Where a link leads that covers a part of the page.
    pub fn link(&mut self, place: Rect, address: &str) {
        if self.links.len() < MAX_LINKS {
            self.links.push((place, address.to_owned()));
        }
    }

    /// Reads what cannot be read by the numbers of its glyphs, if text comes of it; how much has been.
    pub fn guess(&mut self) -> u32 {
        let codes: Vec<u32> = self.unread.iter().map(|(_, code)| *code).collect();
        let Some(meanings) = guess::meanings(&codes) else {
            return 0;
        };
        let mut read = 0;
        for ((index, _), meaning) in std::mem::take(&mut self.unread).into_iter().zip(meanings) {
            if let Some(meaning) = meaning {
                let start = self.texts.len() as u32;
                self.texts.push(meaning);
                self.characters[index as usize].text = (start, self.texts.len() as u32);
                read += 1;
            }
        }
        read
    }

    /// What is said about the page.
    pub fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// All of it, without spaces around.
    pub fn finish(mut self) -> String {
        self.close();
        self.size_the_drawn();
        let mut directions: BTreeMap<i16, Vec<u32>> = BTreeMap::new();
        for (i, character) in self.characters.iter().enumerate() {
            directions
                .entry(character.angle)
                .or_default()
                .push(i as u32);
        }
        let mut directions: Vec<_> = directions.into_iter().collect();
        // What most of the page says comes first.
        directions.sort_by_key(|(_, characters)| std::cmp::Reverse(characters.len()));
        let mut out = String::new();
        for (angle, characters) in directions {
            let pieces = lines::pieces(&self, angle, &characters);
            markdown::write(&order::blocks(pieces), &mut out);
        }
        for note in &self.notes {
            markdown::paragraph(&mut out);
            out.push_str(note);
        }
        out.trim().to_owned()
    }

    fn text(&self, character: &Character) -> &str {
        &self.texts[character.text.0 as usize..character.text.1 as usize]
    }

    /// Gives characters of fonts that are made of drawings the size that their widths suggest.
    fn size_the_drawn(&mut self) {
        let mut widths: BTreeMap<u64, (f64, f64)> = BTreeMap::new();
        for character in self.characters.iter().filter(|c| !c.sized) {
            let (sum, count) = widths.entry(character.size.to_bits()).or_default();
            *sum += character.width;
            *count += 1.0;
        }
        for character in self.characters.iter_mut().filter(|c| !c.sized) {
            let (sum, count) = widths[&character.size.to_bits()];
            // Letters are half as wide as their size.
            let usual = 2.0 * sum / count;
            if usual > 0.0 && !(0.5..2.0).contains(&(character.size / usual)) {
                character.size = usual;
            }
        }
    }

    /// The link that covers the middle of a character.
    fn link_of(&self, index: u32) -> Option<usize> {
        if self.links.is_empty() {
            return None;
        }
        let character = &self.characters[index as usize];
        let (sin, cos) = f64::from(character.angle).to_radians().sin_cos();
        let (along, up) = (0.5 * character.width, 0.3 * character.size);
        let middle = character.at + Vec2::new(along * cos + up * sin, along * sin - up * cos);
        self.links
            .iter()
            .position(|(rect, _)| rect.contains(middle))
    }

    /// Ends the text of a link.
    fn leave(&self, link: Option<usize>, out: &mut String) {
        if let Some((_, address)) = link.map(|link| &self.links[link]) {
            out.push_str("](");
            out.push_str(address);
            out.push(')');
        }
    }
}

/// In degrees; lines that are nearly level or upright are.
fn angle(along: Vec2) -> i16 {
    let degrees = along.atan2().to_degrees();
    let upright = (degrees / 90.0).round() * 90.0;
    let degrees = if (degrees - upright).abs() < ASKEW {
        upright
    } else {
        degrees
    };
    (degrees.round() as i16).rem_euclid(360)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read of lines at these places, of letters that are ten high and five wide.
    fn read(lines: &[(&str, f64, f64)]) -> String {
        let mut text = Text::default();
        for (line, x, y) in lines {
            put(&mut text, line, *x, *y, 10.0);
        }
        text.finish()
    }

    fn put(text: &mut Text, line: &str, x: f64, y: f64, size: f64) {
        for (i, c) in line.chars().enumerate() {
            let at = Point::new(x + 0.5 * size * i as f64, y);
            let (advance, up) = (Vec2::new(0.5 * size, 0.0), Vec2::new(0.0, -size));
            let text_of = c.to_string();
            text.push(Mark {
                text: &text_of,
                at,
                advance,
                up,
                sized: true,
                code: None,
            });
        }
    }

    #[test]
    fn steps_become_spaces_lines_and_paragraphs() {
        assert_eq!(
            read(&[("a", 0.0, 0.0), ("b", 5.0, 0.0), ("c", 10.5, 0.0)]),
            "abc"
        );
        assert_eq!(read(&[("a", 0.0, 0.0), ("b", 8.0, 0.0)]), "a b");
        assert_eq!(read(&[("a ", 0.0, 0.0), ("b", 12.0, 0.0)]), "a b");
        assert_eq!(
            read(&[("a", 0.0, 0.0), ("b", 0.0, 12.0), ("c", 0.0, 40.0)]),
            "a\nb\n\nc"
        );
        assert_eq!(read(&[("m", 0.0, 10.0), ("2", 5.0, 7.0)]), "m2");
        assert_eq!(read(&[]), "");
    }

    #[test]
    fn the_order_is_that_of_the_page() {
        let lines = [
            ("third", 0.0, 40.0),
            ("first", 0.0, 10.0),
            ("second", 0.0, 25.0),
        ];
        assert_eq!(read(&lines), "first\nsecond\nthird");
        // A sign that is drawn into a hole.
        assert_eq!(
            read(&[("0.23", 0.0, 0.0), ("0.03", 28.0, 0.0), ("±", 21.5, 0.0)]),
            "0.23 ± 0.03"
        );
    }

    #[test]
    fn lines_from_right_to_left_are_put_as_they_are_spoken() {
        // Seen from left to right, whole and letter by letter from the right.
        assert_eq!(read(&[("םלוע םולש", 0.0, 0.0)]), "שלום עולם");
        let letters: Vec<String> = "שלום".chars().map(String::from).collect();
        let placed: Vec<_> = letters
            .iter()
            .enumerate()
            .map(|(i, c)| (c.as_str(), 50.0 - 5.0 * i as f64, 0.0))
            .collect();
        assert_eq!(read(&placed), "שלום");
        // Figures within it run as they always do; letters of print are the ones that are typed.
        assert_eq!(read(&[("07 םולש", 0.0, 0.0)]), "שלום 07");
        assert_eq!(
            read(&[("\u{FE8E}\u{FE92}\u{FEA3}\u{FEAE}\u{FEE3}", 0.0, 0.0)]),
            "مرحبا"
        );
    }

    #[test]
    fn letters_from_right_to_left_stand_where_they_are_seen() {
        // Drawn to and fro, and two that are one glyph.
        assert_eq!(
            read(&[
                ("ם", 0.0, 0.0),
                ("ש", 15.0, 0.0),
                ("ל", 10.0, 0.0),
                ("ו", 5.0, 0.0)
            ]),
            "שלום"
        );
        let mut text = Text::default();
        glyph(&mut text, "ם", 0.0, 5.0);
        glyph(&mut text, "לו", 5.0, 10.0);
        glyph(&mut text, "ש", 15.0, 5.0);
        assert_eq!(text.finish(), "שלום");
        // A mark is drawn before its letter, or amid it.
        for place in [0.0, 5.0, 6.0] {
            let mut text = Text::default();
            glyph(&mut text, "ב", 0.0, 5.0);
            glyph(&mut text, "\u{5b8}", place, 0.0);
            glyph(&mut text, "ש", 5.0, 5.0);
            let expected = if place < 5.0 {
                "שב\u{5b8}"
            } else {
                "ש\u{5b8}ב"
            };
            assert_eq!(text.finish(), expected, "{place}");
        }
    }

    fn glyph(text: &mut Text, said: &str, x: f64, wide: f64) {
        text.push(Mark {
            text: said,
            at: Point::new(x, 0.0),
            advance: Vec2::new(wide, 0.0),
            up: Vec2::new(0.0, -10.0),
            sized: true,
            code: None,
        });
    }

    #[test]
    fn ideographs_stay_together() {
        let characters = [("公", 0.0), ("司", 7.0), ("名", 14.0), ("称", 24.0)];
        let placed = characters.map(|(c, x)| (c, x, 0.0));
        assert_eq!(read(&placed), "公司名 称");
        assert_eq!(read(&[("a", 0.0, 0.0), ("b", 7.0, 0.0)]), "a b");
    }

    #[test]
    fn words_go_on_after_a_line() {
        assert_eq!(
            read(&[
                ("a defi-", 0.0, 0.0),
                ("nition of", 0.0, 12.0),
                ("it", 0.0, 24.0)
            ]),
            "a definition of\nit"
        );
        assert_eq!(read(&[("A-", 0.0, 0.0), ("B", 0.0, 12.0)]), "A-\nB");
    }

    #[test]
    fn large_lines_are_headings_and_items_are_lists() {
        let mut text = Text::default();
        put(&mut text, "What it is", 0.0, 0.0, 20.0);
        put(
            &mut text,
            "Text of the usual size, some of it",
            0.0,
            30.0,
            10.0,
        );
        put(&mut text, "• one", 0.0, 60.0, 10.0);
        put(&mut text, "• two", 0.0, 72.0, 10.0);
        assert_eq!(
            text.finish(),
            "# What it is\n\nText of the usual size, some of it\n\n- one\n- two"
        );
    }

    #[test]
    fn places_beyond_all_numbers_are_left_out() {
        assert_eq!(
            read(&[
                ("a", f64::NAN, 0.0),
                ("b", f64::MAX, f64::NEG_INFINITY),
                ("c", 0.0, 0.0)
            ]),
            "c"
        );
    }
}
