//! Blocks as Markdown. Pure.

use super::lines::Piece;
use super::order::{Block, usual_size};

/// Of the size of its letters: a line that is further below the last one begins a paragraph.
const PARAGRAPH: f64 = 1.7;
/// Letters that are so much larger than most of the page's are a heading, of this rank.
const HEADINGS: [(f64, &str); 3] = [(1.8, "# "), (1.4, "## "), (1.18, "### ")];
/// A heading has no more characters than this.
const LONGEST_HEADING: usize = 120;
/// Signs that programs put before the items of a list.
const BULLETS: [char; 9] = ['•', '‣', '◦', '▪', '●', '■', '\u{f0b7}', '\u{f0a7}', '·'];

/// Lines of a heading.
const HEADING_LINES: usize = 3;

/// Adds a part of a page.
pub fn write(blocks: &[Block], out: &mut String) {
    let body = body(blocks);
    let mut lines: Vec<&[Piece]> = vec![];
    for block in blocks {
        match block {
            Block::Line(row) if row.is_empty() => {}
            Block::Line(row) => {
                if lines.last().is_some_and(|last| !goes_on(last, row)) {
                    lines_of(&std::mem::take(&mut lines), body, out);
                }
                lines.push(row);
            }
            Block::Table(rows) => {
                lines_of(&std::mem::take(&mut lines), body, out);
                paragraph(out);
                table(rows, out);
            }
        }
    }
    lines_of(&lines, body, out);
}

/// Where a row's line is, and how large its largest letters are.
fn place(row: &[Piece]) -> (f64, f64) {
    let larger = |at: (f64, f64), piece: &Piece| {
        if piece.size > at.1 {
            (piece.base, piece.size)
        } else {
            at
        }
    };
    row.iter().fold((0.0, 0.0), larger)
}

/// Whether a row belongs to the paragraph of the one above.
fn goes_on(above: &[Piece], row: &[Piece]) -> bool {
    let ((above, its), (base, size)) = (place(above), place(row));
    base > above
        && base - above <= PARAGRAPH * size.max(its)
        && (its / 1.15..its * 1.15).contains(&size)
}

/// A paragraph, or a heading.
fn lines_of(lines: &[&[Piece]], body: f64, out: &mut String) {
    let Some(first) = lines.first() else {
        return;
    };
    paragraph(out);
    let larger = place(first).1 / body;
    let texts: Vec<String> = lines.iter().map(|row| line(row)).collect();
    let long = texts.iter().map(|text| text.chars().count()).sum::<usize>();
    let short = lines.len() <= HEADING_LINES && long <= LONGEST_HEADING;
    let says = texts
        .iter()
        .any(|text| text.chars().any(char::is_alphabetic));
    let sign = HEADINGS.iter().find(|(least, _)| larger >= *least);
    if let Some((_, sign)) = sign.filter(|_| short && says) {
        out.push_str(sign);
        out.push_str(&texts.join(" "));
        return out.push('\n');
    }
    for (i, text) in texts.iter().enumerate() {
        let at = out.len();
        match text.strip_prefix(BULLETS) {
            Some(item) if !item.trim().is_empty() => {
                out.push_str("- ");
                out.push_str(item.trim_start());
            }
            _ => out.push_str(text),
        }
        out.push('\n');
        if i > 0 {
            close_up(out, at);
        }
    }
}

/// Begins a paragraph.
pub fn paragraph(out: &mut String) {
    out.truncate(out.trim_end().len());
    if !out.is_empty() {
        out.push_str("\n\n");
    }
}

/// Takes the hyphen out of a word that goes on in the line that begins here.
fn close_up(out: &mut String, at: usize) {
    let goes_on = out[at..].starts_with(char::is_lowercase);
    let word = out[..at]
        .strip_suffix("-\n")
        .or_else(|| out[..at].strip_suffix("\u{ad}\n"));
    if let Some(word) = word.filter(|word| goes_on && word.ends_with(char::is_lowercase)) {
        out.replace_range(word.len()..at, "");
    }
}

fn body(blocks: &[Block]) -> f64 {
    let pieces = blocks.iter().filter_map(|block| match block {
        Block::Line(row) => Some(row.iter()),
        Block::Table(_) => None,
    });
    usual_size(pieces.flatten())
}

fn line(row: &[Piece]) -> String {
    let mut text = String::new();
    let mut end = None;
    for piece in row {
        if let Some(end) = end {
            let wide = piece.left - end > 2.0 * piece.size;
            text.push_str(if wide { "  " } else { " " });
        }
        text.push_str(&piece.text);
        end = Some(piece.right);
    }
    text
}

fn table(rows: &[Vec<String>], out: &mut String) {
    for (i, row) in rows.iter().enumerate() {
        out.push('|');
        for cell in row {
            out.push(' ');
            out.push_str(&cell.replace('|', "\\|"));
            out.push_str(if cell.is_empty() { "|" } else { " |" });
        }
        out.push('\n');
        if i == 0 {
            out.push('|');
            row.iter().for_each(|_| out.push_str("---|"));
            out.push('\n');
        }
    }
    out.push('\n');
}
