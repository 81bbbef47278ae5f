//! The characters of a PDF's glyphs: what they say, where they are and how wide.

use hayro::hayro_interpret::font::{Glyph, GlyphRun, PositionedGlyph};
use hayro::hayro_interpret::hayro_cmap::{BfString, WritingMode};
use hayro::kurbo::{Affine, Point, Vec2};

use super::fonts::Fonts;
use super::text::{Mark, Text, UNREADABLE};

/// A character's width in parts of its size, where its font does not tell.
const USUAL_WIDTH: f64 = 0.5;
/// Glyphs are drawn in thousandths of their size.
const UNITS: f64 = 1000.0;

/// A glyph's place on the page.
struct Placed<'g, 'a> {
    glyph: &'g PositionedGlyph<'a>,
    at: Point,
    right: Vec2,
    up: Vec2,
    /// In parts of its size.
    advance: f64,
}

impl<'g, 'a> Placed<'g, 'a> {
    fn new(glyph: &'g PositionedGlyph<'a>, page: Affine) -> Self {
        let placed = page * glyph.transform();
        let at = placed * Point::ZERO;
        let advance = match &**glyph {
            Glyph::Outline(glyph) => glyph.advance_width(),
            Glyph::Type3(glyph) => glyph.advance_width(),
        };
        Self {
            glyph,
            at,
            right: placed * Point::new(UNITS, 0.0) - at,
            up: placed * Point::new(0.0, UNITS) - at,
            advance: advance.map_or(USUAL_WIDTH, |width| f64::from(width) / UNITS),
        }
    }

    /// To the right, as far as the character is large.
    fn wide(&self, narrowed: Option<f64>) -> Vec2 {
        match narrowed {
            Some(narrowed) if self.right.hypot() > 0.0 => {
                self.right * (narrowed * self.up.hypot() / self.right.hypot())
            }
            _ => self.right,
        }
    }

    fn text(&self, fonts: &Fonts<'_>) -> Option<String> {
        match (self.glyph.as_unicode(), &**self.glyph) {
            (Some(BfString::Char(character)), _) => Some(character.to_string()),
            (Some(BfString::String(text)), _) => Some(text),
            (None, Glyph::Outline(glyph)) => fonts.meaning(glyph),
            // One that is not there is drawn by nothing.
            (None, Glyph::Type3(glyph)) => (glyph.char_code() == 0x20).then(|| " ".to_owned()),
        }
    }
}

/// Adds what the glyphs say to the text, and tells `seen` of each: what it says, if that can be
/// read, and where.
pub fn read(
    run: &GlyphRun<'_, '_>,
    page: Affine,
    fonts: &Fonts<'_>,
    text: &mut Text,
    mut seen: impl FnMut(Option<&str>, &Mark<'_>),
) {
    let glyphs = run.glyphs().iter().map(|glyph| Placed::new(glyph, page));
    let glyphs: Vec<_> = glyphs.collect();
    let narrowed = narrowed(&glyphs);
    for glyph in &glyphs {
        let said = glyph.text(fonts);
        let advance = match run.writing_mode() {
            WritingMode::Horizontal => glyph.wide(narrowed) * glyph.advance,
            // From top to bottom, and then to the left.
            WritingMode::Vertical => -glyph.up,
        };
        let mark = Mark {
            text: said.as_deref().unwrap_or(UNREADABLE),
            at: glyph.at,
            advance,
            up: glyph.up,
            sized: matches!(&**glyph.glyph, Glyph::Outline(_)),
            code: said.is_none().then(|| glyph.glyph.char_code()),
        };
        seen(said.as_deref().or(text.meant()), &mark);
        text.push(mark);
    }
}

/// How wide the letters of a run are set, in parts of their usual width, by the steps between them;
/// nothing where all are drawn alike. A font that is not embedded is replaced by another, whose
/// glyphs are drawn wider or narrower so that each fills its place.
fn narrowed(glyphs: &[Placed<'_, '_>]) -> Option<f64> {
    let ratio = |glyph: &Placed<'_, '_>| glyph.right.hypot() / glyph.up.hypot().max(1e-6);
    let first = ratio(glyphs.first()?);
    if glyphs
        .iter()
        .all(|glyph| (ratio(glyph) / first.max(1e-6) - 1.0).abs() < 0.02)
    {
        return None;
    }
    let mut steps: Vec<f64> = glyphs
        .windows(2)
        .filter(|pair| pair[0].advance > 0.0)
        .map(|pair| {
            ((pair[1].at - pair[0].at).hypot() / (pair[0].advance * pair[0].up.hypot()).max(1e-6))
                .min(1.0)
        })
        .collect();
    steps.sort_by(f64::total_cmp);
    steps.get(steps.len() / 2).copied()
}
