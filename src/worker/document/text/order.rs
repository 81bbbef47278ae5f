//! From pieces of lines to what is read one after the other: lines and tables. Pure.
//!
//! What stands between two stripes of empty paper is a band. Bands one below the other through which
//! the same empty stripe runs from top to bottom are columns, read one after the other, or a table,
//! read by its rows.

use super::lines::Piece;

/// Of the size of its letters: a stripe between columns is at least as wide.
const GUTTER: f64 = 0.9;
/// Letters reach so far above and below their line, in parts of their size.
const ABOVE: f64 = 0.72;
const BELOW: f64 = 0.18;
/// Pieces whose lines are no further apart, in parts of their size, are in one row.
const ROW: f64 = 0.35;
/// Lines of different columns are level if they differ by less.
const LEVEL: f64 = 0.12;
/// How deep columns within columns go.
const MAX_DEPTH: usize = 12;

/// What is read at once.
#[derive(Debug)]
pub enum Block {
    /// Pieces from left to right.
    Line(Vec<Piece>),
    /// Rows of cells, as many in each row.
    Table(Vec<Vec<String>>),
}

/// All that stands in a part of a page, in the order in which it is read.
pub fn blocks(pieces: Vec<Piece>) -> Vec<Block> {
    let mut out = vec![];
    arrange(pieces, 0, &mut out);
    out
}

fn top(piece: &Piece) -> f64 {
    piece.base - ABOVE * piece.size
}

fn bottom(piece: &Piece) -> f64 {
    piece.base + BELOW * piece.size
}

fn arrange(pieces: Vec<Piece>, depth: usize, out: &mut Vec<Block>) {
    if pieces.len() < 2 || depth > MAX_DEPTH {
        return rows(pieces)
            .into_iter()
            .for_each(|row| out.push(Block::Line(row)));
    }
    for group in groups(bands(pieces)) {
        group.write(depth, out);
    }
}

/// Cuts at empty stripes that run from side to side.
fn bands(mut pieces: Vec<Piece>) -> Vec<Vec<Piece>> {
    pieces.sort_by(|a, b| top(a).total_cmp(&top(b)));
    let mut out: Vec<Vec<Piece>> = vec![];
    let mut end = f64::NEG_INFINITY;
    for piece in pieces {
        match out.last_mut() {
            Some(band) if top(&piece) < end - 0.1 * piece.size => {
                end = end.max(bottom(&piece));
                band.push(piece);
            }
            _ => {
                end = bottom(&piece);
                out.push(vec![piece]);
            }
        }
    }
    out
}

/// Bands with the same columns.
struct Group {
    bands: Vec<Vec<Piece>>,
    /// What is covered of their width, from left to right.
    covered: Vec<(f64, f64)>,
    size: f64,
}

fn groups(bands: Vec<Vec<Piece>>) -> Vec<Group> {
    let mut out: Vec<Group> = vec![];
    for band in bands {
        let next = Group::new(band);
        match out.last_mut() {
            Some(group) if group.goes_on(&next) => group.append(next),
            _ => out.push(next),
        }
    }
    out
}

impl Group {
    fn new(band: Vec<Piece>) -> Self {
        let size = usual_size(band.iter());
        let covered = covered(band.iter().map(|piece| (piece.left, piece.right)), size);
        Self {
            bands: vec![band],
            covered,
            size,
        }
    }

    fn goes_on(&self, next: &Self) -> bool {
        if self.covered.len() == 1 && next.covered.len() == 1 {
            // One line below the other; two that do not overlap could be the rows of two columns.
            return self.with(next).len() == 1;
        }
        let size = self.size.min(next.size);
        let fits = |a: &(f64, f64)| next.covered.iter().all(|b| fits(*a, *b, size));
        // Cells of a row can stand anyhow in their columns, a single line cannot.
        let row = self.covered.len() > 1 && next.covered.len() > 1;
        self.with(next).len() > 1 && (row || self.covered.iter().all(fits))
    }

    fn with(&self, next: &Self) -> Vec<(f64, f64)> {
        covered(
            self.covered.iter().chain(&next.covered).copied(),
            self.size.min(next.size),
        )
    }

    fn append(&mut self, next: Self) {
        self.covered = self.with(&next);
        self.size = self.size.max(next.size);
        self.bands.extend(next.bands);
    }

    fn write(mut self, depth: usize, out: &mut Vec<Block>) {
        if self.covered.len() < 2 {
            for band in self.bands {
                // Lines that overlap, in one column.
                rows(band)
                    .into_iter()
                    .for_each(|row| out.push(Block::Line(row)));
            }
            return;
        }
        // What stands in one column only above or below all others belongs to none.
        let full = |band: &Vec<Piece>| {
            covered(
                band.iter().map(|piece| (piece.left, piece.right)),
                self.size,
            )
            .len()
                > 1
        };
        let first = self.bands.iter().position(full).unwrap_or(self.bands.len());
        let head: Vec<_> = self.bands.drain(..first).collect();
        head.into_iter()
            .for_each(|band| arrange(band, depth + 1, out));
        if self.bands.is_empty() {
            return;
        }
        let pieces: Vec<Piece> = std::mem::take(&mut self.bands)
            .into_iter()
            .flatten()
            .collect();
        let cuts: Vec<f64> = self
            .covered
            .windows(2)
            .map(|pair| (pair[0].1 + pair[1].0) / 2.0)
            .collect();
        let column = |piece: &Piece| cuts.iter().take_while(|&&cut| piece.left > cut).count();
        let mut columns: Vec<Vec<Piece>> = vec![vec![]; cuts.len() + 1];
        pieces
            .into_iter()
            .for_each(|piece| columns[column(&piece)].push(piece));
        columns.retain(|column| !column.is_empty());
        // Columns of prose are read one after the other, what is between them by rows.
        let mut part: Vec<Vec<Piece>> = vec![];
        for column in columns {
            if part.last().is_some_and(|last| apart(last, &column)) {
                rowwise(std::mem::take(&mut part), depth, out);
            }
            part.push(column);
        }
        rowwise(part, depth, out);
    }
}

/// Whether two stretches that overlap can be of one column: they begin or end together, or one lies
/// within the other.
fn fits(a: (f64, f64), b: (f64, f64), size: f64) -> bool {
    let (left, right) = (b.0 - a.0, b.1 - a.1);
    a.1 <= b.0
        || b.1 <= a.0
        || left.abs() < size
        || right.abs() < size
        || left.signum() != right.signum()
}

/// Whether two columns are read one after the other.
fn apart(left: &[Piece], right: &[Piece]) -> bool {
    let (few, many) = if left.len() <= right.len() {
        (left, right)
    } else {
        (right, left)
    };
    // How many lines have one in the other column that is no further up or down.
    let level = |most: f64| {
        let by = |piece: &Piece, other: &Piece| {
            (other.base - piece.base).abs() / piece.size.min(other.size)
        };
        let lines = few
            .iter()
            .filter(|piece| many.iter().any(|other| by(piece, other) <= most));
        lines.count() as f64 / few.len() as f64
    };
    // A table is drawn by its rows, more often than not.
    let drawn_apart = turns(left, right) < few.len();
    match (prose(left), prose(right)) {
        (true, true) => drawn_apart || level(LEVEL) < 0.8,
        (false, false) => few.len() > 1 && level(ROW) < 0.5,
        _ => few.len() > 1 && (level(ROW) < 0.5 || drawn_apart && level(LEVEL) < 0.75),
    }
}

/// How often a page that draws both changes from one to the other.
fn turns(left: &[Piece], right: &[Piece]) -> usize {
    let mut drawn: Vec<(u32, bool)> = left.iter().map(|piece| (piece.drawn, false)).collect();
    drawn.extend(right.iter().map(|piece| (piece.drawn, true)));
    drawn.sort_unstable();
    drawn
        .windows(2)
        .filter(|pair| pair[0].1 != pair[1].1)
        .count()
}

/// Lines that fill their column, as those of running text do.
fn prose(column: &[Piece]) -> bool {
    let width = column
        .iter()
        .map(|piece| piece.right)
        .fold(f64::MIN, f64::max)
        - column
            .iter()
            .map(|piece| piece.left)
            .fold(f64::MAX, f64::min);
    let long = |piece: &&Piece| piece.right - piece.left > 0.6 * width && piece.count >= 18;
    column.len() >= 4 && column.iter().filter(long).count() * 2 > column.len()
}

/// Columns that are read by rows.
fn rowwise(columns: Vec<Vec<Piece>>, depth: usize, out: &mut Vec<Block>) {
    if columns.len() < 2 {
        return columns
            .into_iter()
            .for_each(|column| arrange(column, depth + 1, out));
    }
    let many = columns.len();
    let mut all: Vec<(usize, Piece)> = columns
        .into_iter()
        .enumerate()
        .flat_map(|(i, column)| column.into_iter().map(move |piece| (i, piece)))
        .collect();
    all.sort_by(|a, b| a.1.base.total_cmp(&b.1.base));
    let mut grid: Vec<Vec<Vec<Piece>>> = vec![];
    let (mut base, mut size) = (f64::NEG_INFINITY, 0.0);
    for (column, piece) in all {
        if grid.is_empty() || piece.base - base > ROW * piece.size.max(size) {
            grid.push(vec![vec![]; many]);
            (base, size) = (piece.base, piece.size);
        }
        grid.last_mut().unwrap()[column].push(piece);
    }
    if let Some(table) = super::table::table(&grid) {
        return out.push(Block::Table(table));
    }
    for row in grid {
        let mut row: Vec<Piece> = row.into_iter().flatten().collect();
        row.sort_by(|a, b| a.left.total_cmp(&b.left));
        out.push(Block::Line(row));
    }
}

/// Lines from top to bottom, each from left to right.
fn rows(mut pieces: Vec<Piece>) -> Vec<Vec<Piece>> {
    pieces.sort_by(|a, b| a.base.total_cmp(&b.base));
    let mut out: Vec<Vec<Piece>> = vec![];
    for piece in pieces {
        match out.last_mut() {
            Some(row) if piece.base - row[0].base <= ROW * piece.size.max(row[0].size) => {
                row.push(piece)
            }
            _ => out.push(vec![piece]),
        }
    }
    out.iter_mut()
        .for_each(|row| row.sort_by(|a, b| a.left.total_cmp(&b.left)));
    out
}

/// Stretches without gutters between them.
fn covered(stretches: impl Iterator<Item = (f64, f64)>, size: f64) -> Vec<(f64, f64)> {
    let mut stretches: Vec<_> = stretches.collect();
    stretches.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut out: Vec<(f64, f64)> = vec![];
    for (left, right) in stretches {
        match out.last_mut() {
            Some(last) if left - last.1 < GUTTER * size => last.1 = last.1.max(right),
            _ => out.push((left, right)),
        }
    }
    out
}

/// The size of most letters.
pub fn usual_size<'a>(pieces: impl Iterator<Item = &'a Piece>) -> f64 {
    let mut sizes: Vec<(f64, usize)> = pieces.map(|piece| (piece.size, piece.count)).collect();
    sizes.sort_by(|a, b| a.0.total_cmp(&b.0));
    let half = sizes.iter().map(|(_, count)| count).sum::<usize>() / 2;
    let mut seen = 0;
    for (size, count) in &sizes {
        seen += count;
        if seen > half {
            return *size;
        }
    }
    sizes.last().map_or(1.0, |(size, _)| *size)
}
