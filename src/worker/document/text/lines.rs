//! From characters to pieces of lines: characters that stand side by side. Pure.

use super::{Character, Text, letters};

/// Of the size of a character: a step to the right that is wider is a space between words …
const SPACE: f64 = 0.12;
/// … one that is wider than this parts what belongs to different columns …
const COLUMN: f64 = 0.9;
/// … and one to the left is no longer than this within a word.
const BACK: f64 = 0.5;
/// What stands higher or lower by less is on the same line: raised and lowered figures are.
const LINE: f64 = 0.5;
/// The same for what was drawn at another time.
const SAME_LINE: f64 = 0.25;
/// Letters that stand further apart than this, most of them, are spaced for looks.
const TRACKED: f64 = 0.06;
/// Steps between letters that are spaced for looks differ by less …
const EVEN: f64 = 0.08;
/// … and are no wider than this.
const WIDEST_TRACKING: f64 = 0.45;

/// Letters of one size that are further up or down are not of one word.
const STEPPED: f64 = 0.35;
/// A space that is drawn is no narrower.
const CLOSE: f64 = 0.03;

/// Chinese and Japanese that is set further apart is in pieces.
const LOOSE: f64 = 0.25;

/// Characters that fill a hole are fewer.
const FEW: usize = 12;

/// Characters side by side, in the frame in which their line is level.
#[derive(Debug, Clone)]
pub struct Piece {
    pub text: String,
    pub left: f64,
    pub right: f64,
    /// Where its line is.
    pub base: f64,
    pub size: f64,
    /// Where in the order of drawing it begins.
    pub drawn: u32,
    /// Characters that are seen.
    pub count: usize,
}

/// A character in the frame of its line.
#[derive(Debug, Clone, Copy)]
struct Placed {
    left: f64,
    right: f64,
    base: f64,
    size: f64,
    index: u32,
}

/// Characters that were drawn one after the other, from left to right.
#[derive(Debug)]
struct Run {
    characters: Vec<Placed>,
    left: f64,
    right: f64,
    /// Of the largest character.
    base: f64,
    size: f64,
}

impl Run {
    fn new(first: Placed) -> Self {
        Self {
            characters: vec![first],
            left: first.left,
            right: first.right,
            base: first.base,
            size: first.size,
        }
    }

    fn takes(&self, next: &Placed) -> bool {
        let size = self.size.max(next.size);
        let step = (next.left - self.right) / size;
        let last = self.characters.last().map_or(next.left, |last| last.left);
        (next.base - self.base).abs() <= LINE * size
            && (-BACK..=COLUMN).contains(&step)
            && next.left > last - 0.3 * size
    }

    fn push(&mut self, next: Placed) {
        self.left = self.left.min(next.left);
        self.right = self.right.max(next.right);
        if next.size > self.size {
            (self.base, self.size) = (next.base, next.size);
        }
        self.characters.push(next);
    }

    /// Whether the other one fills a hole that was left for it, as signs of formulas do.
    fn has_a_hole_for(&self, other: &Self) -> bool {
        let covers = |placed: &Placed| {
            placed.left.max(other.left) + 0.2 * other.size < placed.right.min(other.right)
        };
        let (few, inside) = (
            other.characters.len() < FEW,
            self.left < other.left && other.right < self.right,
        );
        few && inside && !self.characters.iter().any(covers)
    }

    fn append(&mut self, other: Self) {
        let within = other.left < self.right - 0.2 * self.size.min(other.size);
        self.left = self.left.min(other.left);
        self.right = self.right.max(other.right);
        if other.size > self.size {
            (self.base, self.size) = (other.base, other.size);
        }
        self.characters.extend(other.characters);
        if within {
            self.characters.sort_by(|a, b| a.left.total_cmp(&b.left));
        }
    }
}

/// Of Chinese and Japanese, which have no spaces between words.
fn is_ideograph(c: char) -> bool {
    matches!(c, '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

/// The pieces of the lines that run in this direction, in the order of drawing.
pub fn pieces(text: &Text, angle: i16, characters: &[u32]) -> Vec<Piece> {
    let (sin, cos) = match angle {
        0 => (0.0, 1.0),
        90 => (1.0, 0.0),
        180 => (0.0, -1.0),
        270 => (-1.0, 0.0),
        other => f64::from(other).to_radians().sin_cos(),
    };
    let placed = characters.iter().map(|&index| {
        let Character {
            at, width, size, ..
        } = text.characters[index as usize];
        let left = at.x * cos + at.y * sin;
        Placed {
            left,
            right: left + width,
            base: at.y * cos - at.x * sin,
            size,
            index,
        }
    });
    let mut runs: Vec<Run> = vec![];
    for next in placed {
        match runs.last_mut() {
            Some(run) if run.takes(&next) => run.push(next),
            _ => runs.push(Run::new(next)),
        }
    }
    let mut runs = joined(runs);
    runs.iter_mut()
        .for_each(|run| as_seen(text, &mut run.characters));
    let mut pieces: Vec<_> = runs.iter().map(|run| piece(text, run)).collect();
    pieces.sort_by_key(|piece| piece.drawn);
    pieces
}

/// Puts together what stands side by side and was drawn at different times.
fn joined(mut runs: Vec<Run>) -> Vec<Run> {
    runs.sort_by(|a, b| a.left.total_cmp(&b.left));
    // Those that may still go on, by the stripe in which their line is.
    let tallest = runs.iter().map(|run| run.size).fold(1e-3, f64::max);
    let height = tallest.min(50.0);
    let mut open: std::collections::HashMap<i64, Vec<usize>> = std::collections::HashMap::new();
    let mut out: Vec<Run> = vec![];
    for run in runs {
        let stripe = (run.base / height).floor() as i64;
        let near = (stripe - 1..=stripe + 1)
            .flat_map(|stripe| open.get(&stripe).into_iter().flatten().copied());
        let takes = |there: &Run| {
            let size = there.size.min(run.size);
            let raised = there.size.max(run.size) > 1.2 * size;
            let apart = if raised {
                LINE * there.size.max(run.size)
            } else {
                SAME_LINE * size
            };
            let step = (run.left - there.right) / there.size.max(run.size);
            let most = if raised { 0.3 } else { COLUMN };
            (there.base - run.base).abs() <= apart
                && ((-BACK..=most).contains(&step) || there.has_a_hole_for(&run))
        };
        let best = near.filter(|&i| takes(&out[i])).min_by(|&a, &b| {
            (out[a].base - run.base)
                .abs()
                .total_cmp(&(out[b].base - run.base).abs())
        });
        match best {
            Some(i) => out[i].append(run),
            None => {
                let stripe = open.entry(stripe).or_default();
                // What ended long ago takes nothing any more.
                stripe.retain(|&i| out[i].right + 2.0 * height > run.left);
                stripe.push(out.len());
                out.push(run);
            }
        }
    }
    out
}

/// Puts letters that are read from right to left where they are seen, which programs draw in any
/// order, and each of their marks behind the letter that it stands on.
fn as_seen(text: &Text, characters: &mut Vec<Placed>) {
    let said = |placed: &Placed| text.text(&text.characters[placed.index as usize]);
    if !characters
        .iter()
        .any(|placed| letters::turned(said(placed)))
    {
        return;
    }
    characters.sort_by(|a, b| a.left.total_cmp(&b.left));
    let (marks, mut letters): (Vec<_>, Vec<_>) = characters
        .iter()
        .copied()
        .partition(|placed| letters::is_mark(said(placed)));
    let mut out = Vec::with_capacity(characters.len());
    let mut marks = marks.into_iter().peekable();
    let last = letters.pop();
    for letter in letters {
        out.push(letter);
        let stands = |mark: &Placed| (mark.left + mark.right) / 2.0 < letter.right;
        while let Some(mark) = marks.next_if(stands) {
            out.push(Placed {
                left: letter.right,
                right: letter.right,
                ..mark
            });
        }
    }
    out.extend(last);
    out.extend(marks);
    *characters = out;
}

fn piece(text: &Text, run: &Run) -> Piece {
    let breaks = breaks(text, &run.characters);
    let (mut out, mut link) = (String::new(), None);
    let linked: Vec<_> = run
        .characters
        .iter()
        .map(|placed| text.link_of(placed.index))
        .collect();
    for (i, placed) in run.characters.iter().enumerate() {
        if i > 0 && breaks[i - 1] && linked[i] == link {
            out.push(' ');
        }
        if linked[i] != link {
            text.leave(link, &mut out);
            if i > 0 && breaks[i - 1] {
                out.push(' ');
            }
            link = linked[i];
            if link.is_some() {
                out.push('[');
            }
        }
        let character = text.text(&text.characters[placed.index as usize]);
        out.push_str(&letters::seen(character));
    }
    text.leave(link, &mut out);
    Piece {
        text: letters::logical(&out),
        left: run.left,
        right: run.right,
        base: run.base,
        size: run.size,
        drawn: run
            .characters
            .iter()
            .map(|placed| placed.index)
            .min()
            .unwrap_or(0),
        count: run.characters.len(),
    }
}

/// After which of the characters a word ends; of the last one nothing is said.
fn breaks(text: &Text, characters: &[Placed]) -> Vec<bool> {
    let steps: Vec<(f64, bool)> = characters
        .windows(2)
        .map(|pair| {
            let size = pair[0].size.max(pair[1].size);
            let step = (pair[1].left - pair[0].right) / size;
            // One that was drawn elsewhere leaves no room here.
            let room = step > CLOSE || pair[0].left == pair[0].right;
            let spaced =
                text.characters[pair[1].index as usize].spaced && pair[1].index > pair[0].index;
            (step, spaced && room || is_beside(text, pair))
        })
        .collect();
    let least = least(text, characters, &steps);
    let said = |placed: &Placed| text.text(&text.characters[placed.index as usize]);
    let ideographs = |pair: &[Placed]| {
        let mut both = pair.iter().flat_map(|placed| said(placed).chars());
        both.all(is_ideograph)
    };
    steps
        .iter()
        .zip(characters.windows(2))
        .map(|(&(step, spaced), pair)| {
            spaced || step > least && (step > LOOSE || !ideographs(pair))
        })
        .collect()
}

/// Whether a sign beside the line ends before a word: the number of a footnote, an exponent, an index
/// that is a letter, or letters as large that stand a step higher. A lowered figure may be a part of
/// the word, as it is in H₂O.
fn is_beside(text: &Text, pair: &[Placed]) -> bool {
    let said = |placed: &Placed| text.text(&text.characters[placed.index as usize]);
    let raised = (pair[1].base - pair[0].base) / pair[1].size;
    let smaller = pair[0].size / pair[1].size;
    if (0.85..1.18).contains(&smaller) {
        return raised.abs() > STEPPED;
    }
    let figure = |c: char| c.is_ascii_digit() && raised > 0.0;
    raised.abs() > 0.1
        && smaller < 1.0
        && said(&pair[0])
            .chars()
            .all(|c| figure(c) || c.is_alphabetic())
        && said(&pair[1]).chars().all(char::is_alphabetic)
}

/// The step from which on a word ends.
fn least(text: &Text, characters: &[Placed], steps: &[(f64, bool)]) -> f64 {
    let mut close: Vec<f64> = steps
        .iter()
        .filter(|(_, spaced)| !spaced)
        .map(|(step, _)| *step)
        .collect();
    close.sort_by(f64::total_cmp);
    // Letters that are spaced for looks are so all along the line.
    let narrow = close.get(close.len() / 10).copied().unwrap_or(0.0);
    let (Some(&narrowest), Some(&widest)) = (close.first(), close.last()) else {
        return SPACE;
    };
    if close.len() < 4 || !(TRACKED..=WIDEST_TRACKING).contains(&narrow) {
        return SPACE;
    }
    if widest - narrowest < EVEN {
        let cased = |placed: &Placed| {
            let text = text.text(&text.characters[placed.index as usize]);
            text.chars().all(|c| c.is_lowercase() || c.is_uppercase())
        };
        let word = narrow < SPACE || characters.iter().all(cased);
        return if word { f64::INFINITY } else { SPACE };
    }
    // Words are further apart still.
    let gap = close
        .windows(2)
        .max_by(|a, b| (a[1] - a[0]).total_cmp(&(b[1] - b[0])));
    match gap {
        Some(pair) if pair[1] - pair[0] > EVEN => (pair[0] + pair[1]) / 2.0,
        _ => SPACE + narrow,
    }
}
