//! From characters on a page to lines of text. Pure.
//!
//! Characters come in the order in which the page draws them, which is the order of reading for
//! nearly all programs that write PDF; sorting them by place would mix up columns.

/// Of the size of a character: a step to the right that is wider is a space between words …
const SPACE: f64 = 0.12;
/// … a step up or down that is larger begins another line …
const LINE: f64 = 0.5;
/// … and one that is larger than this a paragraph.
const PARAGRAPH: f64 = 1.8;

/// Text in the making.
#[derive(Debug, Default)]
pub struct Lines {
    text: String,
    /// Where the last character ended, and the height of its line.
    last: Option<(f64, f64)>,
}

impl Lines {
    /// A character, or several that are drawn as one: where it begins, how wide and how large it
    /// is, in the same unit; y grows downwards.
    pub fn push(&mut self, text: &str, x: f64, y: f64, width: f64, size: f64) {
        let size = size.max(1e-3);
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
}
