//! Tables. Pure.

use super::lines::Piece;

/// The fewest rows of a table, and of its rows those that have more than one cell.
const FEWEST_ROWS: usize = 3;
/// A cell that is longer, in characters, is no cell but a paragraph.
const LONGEST_CELL: usize = 200;

/// The texts of a table's cells, if these rows are one: of each row, what stands in each column.
pub fn table(rows: &[Vec<Vec<Piece>>]) -> Option<Vec<Vec<String>>> {
    let filled = |row: &Vec<Vec<Piece>>| row.iter().filter(|cell| !cell.is_empty()).count();
    let many = rows.iter().filter(|row| filled(row) > 1).count();
    if rows.len() < FEWEST_ROWS || many * 3 < rows.len() * 2 {
        return None;
    }
    let mut out: Vec<Vec<String>> = vec![];
    let mut last: Option<(f64, f64)> = None;
    let pitch = pitch(rows);
    for row in rows {
        let cells: Vec<String> = row.iter().map(|cell| text(cell)).collect();
        if cells.iter().any(|cell| cell.chars().count() > LONGEST_CELL) {
            return None;
        }
        let (base, size) = place(row);
        let alone = filled(row) == 1 && last.is_some_and(|(above, _)| base - above < 2.0 * size);
        let close = last
            .is_some_and(|(above, _)| base - above < 1.35 * size && base - above < 0.85 * pitch);
        match out.last_mut() {
            // The next line of cells that go on.
            Some(above) if (close || alone) && cells[0].is_empty() && goes_on(above, &cells) => {
                for (above, cell) in above
                    .iter_mut()
                    .zip(&cells)
                    .filter(|(_, cell)| !cell.is_empty())
                {
                    above.push(' ');
                    above.push_str(cell);
                }
            }
            _ => out.push(cells),
        }
        last = Some((base, size));
    }
    (out.len() >= FEWEST_ROWS).then_some(out)
}

fn goes_on(above: &[String], cells: &[String]) -> bool {
    above
        .iter()
        .zip(cells)
        .all(|(above, cell)| cell.is_empty() || !above.is_empty())
}

fn place(row: &[Vec<Piece>]) -> (f64, f64) {
    let pieces = row.iter().flatten();
    pieces.fold((f64::MIN, 0.0), |(base, size), piece| {
        (base.max(piece.base), f64::max(size, piece.size))
    })
}

/// From one row that has a first cell to the next, the widest.
fn pitch(rows: &[Vec<Vec<Piece>>]) -> f64 {
    let bases: Vec<f64> = rows
        .iter()
        .filter(|row| !row[0].is_empty())
        .map(|row| place(row).0)
        .collect();
    bases
        .windows(2)
        .map(|pair| pair[1] - pair[0])
        .fold(0.0, f64::max)
}

fn text(cell: &[Piece]) -> String {
    let mut pieces: Vec<&Piece> = cell.iter().collect();
    pieces.sort_by(|a, b| a.left.total_cmp(&b.left));
    let texts: Vec<&str> = pieces.iter().map(|piece| piece.text.as_str()).collect();
    texts.join(" ")
}
