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

pub fn write(blocks: &[Block], out: &mut String) {
    let body = body(blocks);
    paragraph(out);
    let mut last: Option<(f64, f64)> = None;
    for block in blocks {
        match block {
            Block::Line(row) if row.is_empty() => {}
            Block::Line(row) => {
                let (base, size) = row.iter().fold((0.0, 0.0), |(base, size), piece| {
                    if piece.size > size {
                        (piece.base, piece.size)
                    } else {
                        (base, size)
                    }
                });
                let below = last.is_some_and(|(above, its)| {
                    base > above
                        && base - above <= PARAGRAPH * size.max(its)
                        && size / its < 1.15
                        && its / size < 1.15
                });
                if !below {
                    paragraph(out);
                }
                let at = out.len();
                line(row, size / body, out);
                if below {
                    close_up(out, at);
                }
                last = Some((base, size));
            }
            Block::Table(rows) => {
                paragraph(out);
                table(rows, out);
                last = None;
            }
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

fn line(row: &[Piece], larger: f64, out: &mut String) {
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
    let letters = text.chars().any(char::is_alphabetic);
    if letters && text.chars().count() <= LONGEST_HEADING {
        if let Some((_, sign)) = HEADINGS.iter().find(|(least, _)| larger >= *least) {
            out.push_str(sign);
        }
    }
    match text.strip_prefix(BULLETS) {
        Some(item) if !item.trim().is_empty() => {
            out.push_str("- ");
            out.push_str(item.trim_start());
        }
        _ => out.push_str(&text),
    }
    out.push('\n');
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
