//! What characters are: their order where lines run from right to left, and forms that only print
//! knows. Pure.

use std::borrow::Cow;

use icu_normalizer::ComposingNormalizerBorrowed;
use unicode_bidi::{BidiClass, BidiInfo, Level, bidi_class};

/// A line as it is spoken, of what is seen from left to right.
pub fn logical(seen: &str) -> String {
    if seen.is_ascii() {
        return seen.to_owned();
    }
    let plain = plain(seen);
    let (mut left, mut right) = (0, 0);
    for c in plain.chars() {
        match bidi_class(c) {
            BidiClass::L => left += 1,
            BidiClass::R | BidiClass::AL => right += 1,
            _ => {}
        }
    }
    if right == 0 {
        return plain;
    }
    let level = if right >= left {
        Level::rtl()
    } else {
        Level::ltr()
    };
    let plain = turn_marks(&plain);
    let info = BidiInfo::new(&plain, Some(level));
    // To put what is seen into the order in which it is spoken, and back, is the same.
    let ordered: String = info
        .paragraphs
        .iter()
        .map(|paragraph| info.reorder_line(paragraph, paragraph.range.clone()))
        .collect();
    ordered
}

/// Whether it is read from right to left.
pub fn turned(text: &str) -> bool {
    let is = |c| matches!(bidi_class(c), BidiClass::R | BidiClass::AL);
    !text.is_ascii() && text.chars().any(is)
}

/// Whether it stands on a letter.
pub fn is_mark(text: &str) -> bool {
    !text.is_ascii() && text.chars().all(|c| bidi_class(c) == BidiClass::NSM)
}

/// The letters of one glyph, or of words that stand for several, as they are seen from left to right.
pub fn seen(spoken: &str) -> Cow<'_, str> {
    if spoken.chars().nth(1).is_none() || !turned(spoken) {
        return Cow::Borrowed(spoken);
    }
    let info = BidiInfo::new(spoken, Some(Level::rtl()));
    let mut out: Vec<char> = vec![];
    for paragraph in &info.paragraphs {
        let mut marks = vec![];
        for c in info
            .reorder_line(paragraph, paragraph.range.clone())
            .chars()
        {
            if bidi_class(c) == BidiClass::NSM {
                marks.push(c);
            } else {
                out.push(c);
                // Behind their letters, as marks are drawn.
                out.append(&mut marks);
            }
        }
        out.append(&mut marks);
    }
    Cow::Owned(out.into_iter().collect())
}

/// Puts the marks of letters that are read from right to left before them: turned with the line,
/// they stand behind them.
fn turn_marks(text: &str) -> String {
    let mut out: Vec<char> = Vec::with_capacity(text.len());
    for c in text.chars() {
        let marked = out
            .iter()
            .rposition(|&before| bidi_class(before) != BidiClass::NSM);
        match marked {
            Some(at)
                if bidi_class(c) == BidiClass::NSM
                    && matches!(bidi_class(out[at]), BidiClass::R | BidiClass::AL) =>
            {
                out.insert(at, c)
            }
            _ => out.push(c),
        }
    }
    out.into_iter().collect()
}

/// Without ligatures and the forms that letters have at their places within a word.
fn plain(text: &str) -> String {
    let form = |c: char| matches!(c, '\u{fb00}'..='\u{fb4f}' | '\u{fb50}'..='\u{fdff}' | '\u{fe70}'..='\u{fefe}');
    if !text.chars().any(form) {
        return text.to_owned();
    }
    let normal = ComposingNormalizerBorrowed::new_nfkc();
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if form(c) {
            // Seen from left to right: a ligature's letters are turned with the line.
            let letters = normal.normalize(c.encode_utf8(&mut [0; 4])).into_owned();
            match bidi_class(c) {
                BidiClass::R | BidiClass::AL => out.extend(letters.chars().rev()),
                _ => out.push_str(&letters),
            }
        } else {
            out.push(c);
        }
    }
    out
}
