//! Passages whose words a file gives beside their glyphs (`ActualText`): ligatures, formulas, letters
//! that a font has no names for. Pure.

use hayro::kurbo::{Point, Vec2};

use super::{Mark, Text};

/// Glyphs of a passage; a longer one is read glyph by glyph, which keeps the places of its lines.
const MAX_GLYPHS: usize = 200;
/// How far glyphs of one line are off it, in parts of their size.
const OFF: f64 = 0.5;

/// What the page draws within the passage.
#[derive(Debug)]
struct Held {
    text: String,
    at: Point,
    advance: Vec2,
    up: Vec2,
    sized: bool,
    code: Option<u32>,
}

impl Held {
    fn mark(&self) -> Mark<'_> {
        Mark {
            text: &self.text,
            at: self.at,
            advance: self.advance,
            up: self.up,
            sized: self.sized,
            code: self.code,
        }
    }
}

/// The passage that is being drawn.
#[derive(Debug)]
struct Passage {
    words: String,
    /// How many marked parts of the page it lies in, itself among them.
    depth: usize,
    held: Vec<Held>,
}

/// The marked parts of a page.
#[derive(Debug, Default)]
pub struct Marked {
    depth: usize,
    open: Option<Passage>,
}

impl Marked {
    /// Whether the mark belongs to a passage, and waits for its end.
    pub fn holds(&mut self, mark: &Mark<'_>) -> bool {
        let Some(open) = &mut self.open else {
            return false;
        };
        open.held.push(Held {
            text: mark.text.to_owned(),
            at: mark.at,
            advance: mark.advance,
            up: mark.up,
            sized: mark.sized,
            code: mark.code,
        });
        true
    }

    /// Whether the passage that is being drawn is too long to wait for its end.
    pub fn is_long(&self) -> bool {
        let held = self.open.as_ref().map_or(0, |open| open.held.len());
        held > MAX_GLYPHS
    }

    /// What a glyph of the passage that is being drawn means: about one character of its words.
    pub fn meant(&self) -> Option<&str> {
        let words = &self.open.as_ref()?.words;
        words.split_inclusive(|_| true).next()
    }
}

impl Text {
    /// A marked part of the page begins, with its words if the file gives them.
    pub fn begin(&mut self, words: Option<String>) {
        self.marked.depth += 1;
        if let (None, Some(words)) = (&self.marked.open, words) {
            self.marked.open = Some(Passage {
                words,
                depth: self.marked.depth,
                held: vec![],
            });
        }
    }

    /// The part ends that began last.
    pub fn end(&mut self) {
        let depth = self.marked.depth;
        self.marked.depth = depth.saturating_sub(1);
        if self
            .marked
            .open
            .as_ref()
            .is_some_and(|open| open.depth >= depth)
        {
            self.close();
        }
    }

    /// Writes the passage that is open: its words in the place of its glyphs, if these are one line.
    pub fn close(&mut self) {
        let Some(Passage { words, held, .. }) = self.marked.open.take() else {
            return;
        };
        let (Some(first), Some(last)) = (held.first(), held.last()) else {
            return;
        };
        let size = first.up.hypot().max(1e-3);
        let is_on_line = |glyph: &Held| {
            ((glyph.at - first.at).dot(first.up) / size).abs() <= OFF * size
                && (glyph.up - first.up).hypot() <= OFF * size
        };
        if held.len() > MAX_GLYPHS || !held.iter().all(is_on_line) {
            held.iter().for_each(|glyph| self.push(glyph.mark()));
            return;
        }
        // A soft hyphen stands where one is seen, or could be.
        let is_seen = held.iter().any(|glyph| !glyph.text.trim().is_empty());
        let words = words.replace('\u{ad}', if is_seen { "-" } else { "" });
        let whole = Mark {
            advance: last.at + last.advance - first.at,
            code: None,
            ..first.mark()
        };
        let spaced = |is: bool| if is { " " } else { "" };
        for text in [
            spaced(words.starts_with(char::is_whitespace)),
            words.trim(),
            spaced(words.ends_with(char::is_whitespace)),
        ] {
            if !text.is_empty() {
                self.push(Mark { text, ..whole });
            }
        }
    }
}
