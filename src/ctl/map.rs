//! A file as a map: cells in rows, each a stretch of the file, the darker the more of it is in
//! memory.

use serde::Deserialize;

/// Rows of a map.
const ROWS: usize = 4;
/// Cells in a row at most: a daemon shows a file in 512 parts or more, and finer cells would say
/// nothing.
const WIDEST: usize = 120;

/// Neighbouring bytes of a file that are for the same thing.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Part {
    pub kind: String,
    pub bytes: u64,
    pub resident: u64,
}

/// What maps and bars are drawn with.
#[derive(Clone, Copy, Debug)]
pub struct Palette {
    /// From nothing to everything.
    shades: [char; 5],
    /// At both ends of a row.
    edge: char,
    /// What a bar is made of, and what stands for the rest.
    bar: (char, char),
}

/// For terminals that have Unicode's block elements.
pub const BLOCKS: Palette = Palette {
    shades: [' ', '░', '▒', '▓', '█'],
    edge: '│',
    bar: ('█', '░'),
};
/// For all others.
pub const ASCII: Palette = Palette {
    shades: [' ', '.', ':', '+', '#'],
    edge: '|',
    bar: ('#', '.'),
};

impl Palette {
    /// Only nothing is blank, and only everything is full.
    fn shade(&self, share: f64) -> char {
        match share {
            share if share <= 0.0 => self.shades[0],
            share if share < 1.0 / 3.0 => self.shades[1],
            share if share < 2.0 / 3.0 => self.shades[2],
            share if share < 1.0 => self.shades[3],
            _ => self.shades[4],
        }
    }

    /// A bar of `width` cells.
    pub fn bar(&self, part: u64, whole: u64, width: usize) -> String {
        let full = (part as f64 / whole.max(1) as f64 * width as f64).round() as usize;
        (0..width)
            .map(|cell| if cell < full { self.bar.0 } else { self.bar.1 })
            .collect()
    }
}

/// One stretch of the file.
#[derive(Debug, PartialEq)]
struct Cell<'a> {
    /// What most of it is for.
    kind: &'a str,
    /// Of its bytes, those in memory.
    share: f64,
}

/// The map's rows. `paint` gives a piece of a row the colour of its kind.
pub fn draw(
    parts: &[Part],
    columns: usize,
    palette: &Palette,
    paint: impl Fn(&str, &str) -> String,
) -> Vec<String> {
    let width = columns.saturating_sub(2).clamp(1, WIDEST);
    let cells = cells(parts, width * ROWS);
    let row = |row: &[Cell]| {
        let pieces = row.chunk_by(|a, b| a.kind == b.kind);
        let pieces = pieces.map(|piece| {
            paint(
                piece[0].kind,
                &piece
                    .iter()
                    .map(|cell| palette.shade(cell.share))
                    .collect::<String>(),
            )
        });
        format!(
            "{edge}{}{edge}",
            pieces.collect::<String>(),
            edge = palette.edge
        )
    };
    cells.chunks(width).map(row).collect()
}

/// Cuts a file into `count` stretches of the same length, give or take a byte; into fewer if it has
/// fewer bytes.
fn cells(parts: &[Part], count: usize) -> Vec<Cell<'_>> {
    let length: u64 = parts.iter().map(|part| part.bytes).sum();
    let count = length.min(count as u64);
    let at = |cell: u64| (u128::from(length) * u128::from(cell) / u128::from(count)) as u64;
    let mut cells = vec![];
    // The first part that reaches into the cell, and where it begins.
    let (mut first, mut begin) = (0, 0);
    for cell in 0..count {
        let (from, to) = (at(cell), at(cell + 1));
        while begin + parts[first].bytes <= from {
            begin += parts[first].bytes;
            first += 1;
        }
        let (mut start, mut resident, mut most, mut kind) = (begin, 0.0, 0, "");
        for part in &parts[first..] {
            let inside = (start + part.bytes).min(to).saturating_sub(start.max(from));
            // Where in a part its resident bytes lie is not told.
            resident += inside as f64 * part.resident as f64 / part.bytes.max(1) as f64;
            if inside > most {
                (most, kind) = (inside, &part.kind);
            }
            start += part.bytes;
            if start >= to {
                break;
            }
        }
        cells.push(Cell {
            kind,
            share: resident / (to - from) as f64,
        });
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(kind: &str, bytes: u64, resident: u64) -> Part {
        Part {
            kind: kind.into(),
            bytes,
            resident,
        }
    }

    fn shares<'a>(cells: &[Cell<'a>]) -> Vec<(&'a str, f64)> {
        cells
            .iter()
            .map(|cell| (cell.kind, (cell.share * 100.0).round() / 100.0))
            .collect()
    }

    #[test]
    fn cells_are_stretches_of_the_file() {
        let parts = [
            part("header", 10, 0),
            part("empty", 0, 0),
            part("layers", 20, 20),
            part("head", 10, 5),
        ];
        assert_eq!(
            shares(&cells(&parts, 4)),
            [
                ("header", 0.0),
                ("layers", 1.0),
                ("layers", 1.0),
                ("head", 0.5)
            ]
        );
        assert_eq!(
            shares(&cells(&parts, 2)),
            [("header", 0.5), ("layers", 0.75)]
        );
        assert_eq!(shares(&cells(&parts, 1)), [("layers", 0.63)]);
        assert_eq!(cells(&parts, 1000).len(), 40);
        assert_eq!(cells(&[], 10), []);
        assert_eq!(cells(&[part("empty", 0, 0)], 10), []);
    }

    #[test]
    fn rows_are_shaded_and_painted() {
        let parts = [
            part("a", 8, 0),
            part("b", 4, 1),
            part("b", 4, 2),
            part("c", 8, 7),
            part("c", 8, 8),
        ];
        let rows = draw(&parts, 4, &BLOCKS, |kind, piece| format!("{kind}{piece}"));
        assert_eq!(rows, ["│a  │", "│b░▒│", "│c▓▓│", "│c██│"]);
        assert_eq!(
            draw(&parts, 4, &ASCII, |_, piece| piece.into()),
            ["|  |", "|.:|", "|++|", "|##|"]
        );
        assert_eq!(draw(&parts, 0, &ASCII, |_, piece| piece.into()).len(), 4);
        assert_eq!(
            draw(&[], 80, &ASCII, |_, piece| piece.into()),
            Vec::<String>::new()
        );
    }

    #[test]
    fn bars() {
        assert_eq!(BLOCKS.bar(1, 2, 4), "██░░");
        assert_eq!(
            (ASCII.bar(0, 0, 3).as_str(), ASCII.bar(9, 9, 3).as_str()),
            ("...", "###")
        );
    }
}
