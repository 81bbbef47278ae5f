//! From characters on a page to lines of text. Pure.
//!
//! Characters come in the order in which the page draws them, which is the order of reading for
//! nearly all programs that write PDF; sorting them by place would mix up columns.

use std::collections::HashMap;

/// Of the size of a character: a step to the right that is wider is a space between words …
const SPACE: f64 = 0.12;
/// … a step up or down that is larger begins another line …
const LINE: f64 = 0.5;
/// … and one that is larger than this a paragraph.
const PARAGRAPH: f64 = 1.8;
/// Of the size of a character: the same one that is drawn again no further off than this, along its
/// line …
const AGAIN_ALONG: f64 = 0.1;
/// … and across it, only makes the first one bold or gives it a shadow.
const AGAIN_ACROSS: f64 = 0.2;

/// Text in the making.
#[derive(Debug, Default)]
pub struct Lines {
    text: String,
    /// Where the last character ended, and the height of its line.
    last: Option<(f64, f64)>,
    drawn: Drawn,
}

impl Lines {
    /// A character, or several that are drawn as one: where it begins, how wide and how large it
    /// is, in the same unit; y grows downwards.
    pub fn push(&mut self, text: &str, x: f64, y: f64, width: f64, size: f64) {
        let size = size.max(1e-3);
        if self.drawn.again(text, x, y, size) {
            return;
        }
        if let Some((end, line)) = self.last {
            let down = (y - line) / size;
            if down.abs() > LINE {
                self.end_line();
                if down > PARAGRAPH {
                    self.end_line();
                }
            } else if ((x - end) / size > SPACE || x < end - size)
                && !self.text.ends_with(char::is_whitespace)
                && !text.starts_with(' ')
            {
                self.text.push(' ');
            }
        }
        self.text.push_str(text);
        self.last = Some((x + width, y));
    }

    /// All of it, without spaces around.
    pub fn finish(self) -> String {
        self.text.trim().to_owned()
    }

    fn end_line(&mut self) {
        self.text.truncate(self.text.trim_end_matches(' ').len());
        if !self.text.ends_with("\n\n") {
            self.text.push('\n');
        }
    }
}

/// A character, its size in 64ths, and the field in which it begins.
type Place = (char, i64, i64, i64);

/// Where each character was drawn. A field is as large as what counts as the same place, so that it
/// holds one character of a kind and a look at its neighbours is enough, whatever a page draws.
#[derive(Debug, Default)]
struct Drawn(HashMap<Place, (f64, f64)>);

impl Drawn {
    /// Whether the page has drawn this character here before; notes it if not.
    fn again(&mut self, text: &str, x: f64, y: f64, size: f64) -> bool {
        let Some(first) = text.chars().next() else {
            return false;
        };
        let (along, across) = (AGAIN_ALONG * size, AGAIN_ACROSS * size);
        let sized = (size * 64.0).round() as i64;
        let (column, row) = ((x / along).floor() as i64, (y / across).floor() as i64);
        let near = |(right, down): (i64, i64)| {
            let place = (
                first,
                sized,
                column.saturating_add(right),
                row.saturating_add(down),
            );
            self.0.get(&place).is_some_and(|(there_x, there_y)| {
                (there_x - x).abs() <= along && (there_y - y).abs() <= across
            })
        };
        let again = (-1..=1)
            .flat_map(|right| (-1..=1).map(move |down| (right, down)))
            .any(near);
        if !again {
            self.0.insert((first, sized, column, row), (x, y));
        }
        again
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(characters: &[(&str, f64, f64)]) -> String {
        let mut lines = Lines::default();
        for (text, x, y) in characters {
            lines.push(text, *x, *y, 5.0 * text.chars().count() as f64, 10.0);
        }
        lines.finish()
    }

    #[test]
    fn steps_become_spaces_lines_and_paragraphs() {
        assert_eq!(
            read(&[("a", 0.0, 0.0), ("b", 5.0, 0.0), ("c", 10.5, 0.0)]),
            "abc"
        );
        assert_eq!(read(&[("a", 0.0, 0.0), ("b", 8.0, 0.0)]), "a b");
        assert_eq!(
            read(&[("a", 0.0, 0.0), (" ", 5.0, 0.0), ("b", 20.0, 0.0)]),
            "a b"
        );
        assert_eq!(
            read(&[("a", 0.0, 0.0), ("b", 0.0, 12.0), ("c", 0.0, 40.0)]),
            "a\nb\n\nc"
        );
        // A raised figure stays in its line; another column begins a line.
        assert_eq!(read(&[("m", 0.0, 10.0), ("2", 5.0, 7.0)]), "m2");
        assert_eq!(read(&[("a", 0.0, 50.0), ("b", 100.0, 0.0)]), "a\nb");
        assert_eq!(read(&[]), "");
    }

    #[test]
    fn what_is_drawn_again_in_its_place_is_read_once() {
        // Each figure twice, as programs make bold of a font that has none.
        assert_eq!(
            read(&[
                ("2", 0.0, 0.0),
                ("2", 0.3, 0.0),
                ("0", 5.0, 0.0),
                ("0", 5.3, 0.0),
                ("0", 10.0, 0.0),
                ("0", 10.3, 0.0),
            ]),
            "200"
        );
        // The whole line four times, a little aside and below.
        let line = [("n", 0.0, 0.0), ("o", 5.0, 0.0), ("o", 10.0, 0.0)];
        let drawn: Vec<_> = [(0.0, 0.0), (0.4, 0.0), (0.0, 0.4), (-0.4, -0.4)]
            .iter()
            .flat_map(|(right, down)| line.map(|(text, x, y)| (text, x + right, y + down)))
            .collect();
        assert_eq!(read(&drawn), "noo");
        // The narrowest letters of a word stand further apart.
        assert_eq!(read(&[("l", 0.0, 0.0), ("l", 1.8, 0.0)]), "ll");
        // Places beyond all numbers.
        assert_eq!(
            read(&[("a", f64::NAN, 0.0), ("b", f64::MAX, f64::NEG_INFINITY)])
                .replace(char::is_whitespace, ""),
            "ab"
        );
    }
}
