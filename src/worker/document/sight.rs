//! How much of a page is not in its text, and which pages are shown therefore. Pure.

use super::area::{Area, SIDE};
use crate::ipc::{Look, Shows};

/// A page with fewer characters than this says little of what it shows.
const LITTLE: u32 = 40;
/// The part of a page that pictures and drawings cover from which on it is shown …
const MUCH: f64 = 0.2;
/// … and up to which they are there for the looks: rules, logos, signs.
const NEXT_TO_NOTHING: f64 = 0.05;
/// The part of a page's characters that cannot be read from which on it is shown.
const MANY: f64 = 0.1;
/// Cells around what is drawn within which it belongs to the same drawing.
const NEAR: usize = 2;
/// Lines and colours with more text among them than this part are a table, or a frame.
const TEXT: f64 = 1.0 / 6.0;
/// Bytes of text that each page of a file takes besides its own, and what is said of one that is not
/// shown.
const MARK: usize = 16;
const NOTE: usize = 120;
/// What covers more of the page than this part is its background.
const BACKGROUND: f64 = 0.9;

/// A rectangle on a page, in points from its top left corner.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    pub left: f64,
    pub top: f64,
    pub right: f64,
    pub bottom: f64,
}

impl Bounds {
    fn within(self, other: Self) -> Self {
        Self {
            left: self.left.max(other.left),
            top: self.top.max(other.top),
            right: self.right.min(other.right),
            bottom: self.bottom.min(other.bottom),
        }
    }
}

/// What is on a page, gathered as it is drawn.
#[derive(Debug)]
pub struct Measure {
    width: f64,
    height: f64,
    /// Outside of the last of them nothing is seen.
    clips: Vec<Bounds>,
    pictures: Area,
    drawn: Area,
    text: Area,
    /// Characters that were read, without spaces, and glyphs that could not be.
    characters: u32,
    unreadable: u32,
    shows: bool,
}

impl Measure {
    /// Of a page of so many points.
    pub fn new(width: f32, height: f32) -> Self {
        Self {
            width: f64::from(width).max(1.0),
            height: f64::from(height).max(1.0),
            clips: vec![],
            pictures: Area::default(),
            drawn: Area::default(),
            text: Area::default(),
            characters: 0,
            unreadable: 0,
            shows: false,
        }
    }

    /// A character, or several that are drawn as one, or a glyph that is no character; drawn from
    /// the first place to the second.
    pub fn glyph(&mut self, text: Option<&str>, from: (f64, f64), to: (f64, f64)) {
        let is_readable = |c: char| {
            !c.is_control()
                && c != char::REPLACEMENT_CHARACTER
                && !('\u{E000}'..='\u{F8FF}').contains(&c)
        };
        match text.filter(|text| text.chars().all(|c| is_readable(c) || c.is_whitespace())) {
            Some(text) => {
                let count = text.chars().filter(|c| !c.is_whitespace()).count();
                self.characters = self.characters.saturating_add(count as u32);
                for place in [from, to] {
                    let place = self.cell(place);
                    self.text.touch(place, place);
                }
            }
            None => {
                self.unreadable = self.unreadable.saturating_add(1);
                self.shows = true;
            }
        }
    }

    /// So many glyphs are characters after all.
    pub fn guessed(&mut self, count: u32) {
        self.unreadable = self.unreadable.saturating_sub(count);
        self.characters = self.characters.saturating_add(count);
    }

    /// A picture, by its corners.
    pub fn picture(&mut self, corners: [(f64, f64); 4]) {
        self.shows = true;
        let clip = self.clip();
        // The part of one that lies askew is not cut off exactly.
        let cut = |(x, y): (f64, f64)| {
            let x = x.clamp(clip.left, clip.right.max(clip.left));
            self.cell((x, y.clamp(clip.top, clip.bottom.max(clip.top))))
        };
        self.pictures.add(corners.map(cut));
    }

    /// Something drawn of lines and colours.
    pub fn drawing(&mut self, bounds: Bounds) {
        let seen = bounds.within(self.clip());
        let (width, height) = (seen.right - seen.left, seen.bottom - seen.top);
        if width * height > BACKGROUND * self.width * self.height {
            return;
        }
        self.shows = true;
        let from = self.cell((seen.left, seen.top));
        self.drawn.touch(from, self.cell((seen.right, seen.bottom)));
    }

    pub fn push_clip(&mut self, bounds: Bounds) {
        self.clips.push(bounds.within(self.clip()));
    }

    pub fn pop_clip(&mut self) {
        self.clips.pop();
    }

    fn clip(&self) -> Bounds {
        self.clips.last().copied().unwrap_or(Bounds {
            left: 0.0,
            top: 0.0,
            right: self.width,
            bottom: self.height,
        })
    }

    fn cell(&self, (x, y): (f64, f64)) -> (f64, f64) {
        (x / self.width * SIDE as f64, y / self.height * SIDE as f64)
    }

    /// Why the page is to be seen, if it is, and whether that covers much of it.
    pub fn found(&self) -> Option<Found> {
        let unreadable = f64::from(self.unreadable);
        let unreadable = unreadable / (unreadable + f64::from(self.characters)).max(1.0);
        let covered = self.covered().share();
        let found = |why, matters| Some(Found { why, matters });
        if unreadable >= MANY {
            found(Shows::Unreadable(percent(unreadable)), true)
        } else if self.characters < LITTLE && self.shows {
            found(Shows::LittleText, true)
        } else if covered >= NEXT_TO_NOTHING {
            found(Shows::Pictures(percent(covered)), covered >= MUCH)
        } else {
            None
        }
    }

    /// What pictures cover, and drawings, each as a whole.
    fn covered(&self) -> Area {
        let mut covered = self.pictures;
        let groups = self.drawn.groups(NEAR).into_iter();
        groups
            .filter(|group| self.text.share_of(*group) < TEXT)
            .for_each(|group| covered.fill(group));
        covered
    }
}

/// Why a page is to be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub why: Shows,
    /// What its text does not say is enough to show it.
    pub matters: bool,
}

impl Found {
    /// Its text says next to nothing of it.
    fn is_lost(&self) -> bool {
        self.matters && !matches!(self.why, Shows::Pictures(_))
    }
}

fn percent(share: f64) -> u8 {
    (share * 100.0).round().clamp(0.0, 100.0) as u8
}

/// Which pages are shown, and how large.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    /// Tokens of each.
    pub tokens: u32,
    /// For each page whether it is shown.
    pub shown: Vec<bool>,
    /// The context has no room for more.
    pub is_cut: bool,
}

/// Chooses among the pages of a file whose text has so many bytes: first those that its text says
/// next to nothing of.
pub fn plan(pages: &[Option<Found>], text: usize, look: Look) -> Plan {
    let wanted = |lost: bool| {
        let wants = move |found: Found| found.matters && found.is_lost() == lost;
        (0..pages.len()).filter(move |i| pages[*i].is_some_and(wants))
    };
    let mut order: Vec<_> = wanted(true).chain(wanted(false)).collect();
    order.truncate(look.pages as usize);
    let (mut tokens, mut is_cut) = (look.tokens, false);
    if let Some(room) = look.room {
        let notes = pages.iter().flatten().count();
        let text = text + MARK * pages.len() + NOTE * notes;
        let room = room.saturating_sub(Look::tokens_of_text(text));
        let mut sizes = Look::BUDGETS.into_iter().rev();
        let fits =
            |size: &u32| *size <= look.tokens && *size as usize * order.len() <= room as usize;
        tokens = sizes
            .find(fits)
            .unwrap_or(Look::BUDGETS[0].min(look.tokens));
        // One is there in any case: what does not fit with that is refused, and told the numbers.
        let most = (room / tokens.max(1)).max(1) as usize;
        is_cut = order.len() > most;
        order.truncate(most);
    }
    let mut shown = vec![false; pages.len()];
    order.into_iter().for_each(|page| shown[page] = true);
    Plan {
        tokens,
        shown,
        is_cut,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A4: (f32, f32) = (595.0, 842.0);

    fn page(lines: usize) -> Measure {
        let mut page = Measure::new(A4.0, A4.1);
        for line in 0..lines {
            for character in 0..60 {
                let (x, y) = (70.0 + 7.0 * character as f64, 70.0 + 14.0 * line as f64);
                page.glyph(Some("a"), (x, y), (x + 6.0, y));
            }
        }
        page
    }

    fn corners(left: f64, top: f64, right: f64, bottom: f64) -> [(f64, f64); 4] {
        [(left, top), (right, top), (right, bottom), (left, bottom)]
    }

    fn bounds(left: f64, top: f64, right: f64, bottom: f64) -> Bounds {
        Bounds {
            left,
            top,
            right,
            bottom,
        }
    }

    fn pictures(found: Option<Found>) -> (u8, bool) {
        match found {
            Some(Found {
                why: Shows::Pictures(share),
                matters,
            }) => (share, matters),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn pictures_count_by_what_they_cover() {
        assert_eq!(page(40).found(), None);
        let mut logo = page(40);
        logo.picture(corners(400.0, 20.0, 500.0, 60.0));
        assert_eq!(logo.found(), None);
        let mut photo = page(40);
        photo.picture(corners(70.0, 600.0, 300.0, 800.0));
        assert_eq!(pictures(photo.found()), (9, false));
        let mut scan = page(2);
        scan.picture(corners(0.0, 0.0, 595.0, 842.0));
        assert_eq!(pictures(scan.found()), (100, true));
        // Only a part of it is let through.
        let mut clipped = page(40);
        clipped.push_clip(bounds(0.0, 0.0, 595.0, 84.0));
        clipped.picture(corners(0.0, 0.0, 595.0, 842.0));
        clipped.pop_clip();
        assert_eq!(pictures(clipped.found()).0, 9);
        let mut bare = page(0);
        bare.picture(corners(0.0, 0.0, 10.0, 10.0));
        assert_eq!(bare.found().unwrap().why, Shows::LittleText);
        assert_eq!(page(0).found(), None, "an empty page");
    }

    #[test]
    fn a_chart_is_a_picture_and_a_table_is_none() {
        let mut chart = page(2);
        for (bar, top) in [
            (80.0, 460.0),
            (170.0, 340.0),
            (260.0, 390.0),
            (350.0, 230.0),
        ] {
            chart.drawing(bounds(bar, top, bar + 60.0, 540.0));
        }
        assert!(pictures(chart.found()).1);
        let mut table = page(40);
        for line in 0..40 {
            let y = 60.0 + 14.0 * f64::from(line);
            table.drawing(bounds(60.0, y, 500.0, y));
        }
        assert_eq!(table.found(), None);
        let mut coloured = page(3);
        coloured.drawing(bounds(0.0, 0.0, 595.0, 842.0));
        assert_eq!(coloured.found(), None);
        // Letters that are drawn as shapes.
        let mut outlines = page(1);
        for at in 0..2000 {
            let (x, y) = (
                70.0 + 7.0 * f64::from(at % 60),
                100.0 + 14.0 * f64::from(at / 60),
            );
            outlines.drawing(bounds(x, y, x + 5.0, y + 8.0));
        }
        assert!(pictures(outlines.found()).1);
    }

    #[test]
    fn glyphs_that_cannot_be_read_are_looked_at() {
        let mut few = page(10);
        (0..50).for_each(|_| few.glyph(None, (0.0, 0.0), (0.0, 0.0)));
        assert_eq!(few.found(), None);
        let mut many = page(10);
        (0..200).for_each(|_| many.glyph(Some("\u{E001}"), (0.0, 0.0), (0.0, 0.0)));
        let why = Shows::Unreadable(25);
        assert_eq!(many.found(), Some(Found { why, matters: true }));
    }

    #[test]
    fn pages_are_shown_as_large_as_fits() {
        let matters = |why| Some(Found { why, matters: true });
        let scan = matters(Shows::LittleText);
        let slide = matters(Shows::Pictures(60));
        let small = Some(Found {
            why: Shows::Pictures(9),
            matters: false,
        });
        let look = |pages, tokens, room| Look {
            pages,
            tokens,
            room,
        };
        let chosen = |pages: &[Option<Found>], text, look| {
            let plan = plan(pages, text, look);
            let shown = (1..).zip(&plan.shown).filter(|(_, shown)| **shown);
            let shown: Vec<i32> = shown.map(|(page, _)| page).collect();
            (plan.tokens, shown, plan.is_cut)
        };
        let pages = [slide, None, small, slide, scan];
        let all = vec![1, 4, 5];
        for (bounds, expected) in [
            (look(16, 1120, None), (1120, all.clone(), false)),
            (look(2, 1120, None), (1120, vec![1, 5], false)),
            (look(0, 1120, None), (1120, vec![], false)),
            (look(16, 70, None), (70, all.clone(), false)),
            (look(16, 1120, Some(4000)), (1120, all.clone(), false)),
            (look(16, 560, Some(4000)), (560, all.clone(), false)),
            (look(16, 1120, Some(2000)), (560, all.clone(), false)),
            (look(16, 1120, Some(1100)), (280, all, false)),
            (look(16, 1120, Some(800)), (280, vec![1, 5], true)),
            (look(16, 1120, Some(0)), (280, vec![5], true)),
        ] {
            assert_eq!(chosen(&pages, 0, bounds), expected, "{bounds:?}");
        }
        // Its text comes first.
        let tight = look(16, 1120, Some(2000));
        assert_eq!(chosen(&pages, 3000, tight).0, 280);
        assert_eq!(chosen(&[None], 0, tight), (1120, vec![], false));
    }
}
