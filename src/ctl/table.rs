//! Cells in columns, under a dim head.

use std::fmt::Write;

use super::text::Stream;

/// Nothing when there are no rows. Columns of numbers (`right`) stand to the right, names to the
/// left.
pub fn table<const N: usize>(
    head: [&str; N],
    rows: impl Iterator<Item = [String; N]>,
    right: &[usize],
    out: Stream,
) -> String {
    tinted(head, rows.map(|row| (None, row)), right, out)
}

/// A table whose rows' names and last cells may have a colour.
pub fn tinted<const N: usize>(
    head: [&str; N],
    rows: impl Iterator<Item = (Option<u8>, [String; N])>,
    right: &[usize],
    out: Stream,
) -> String {
    // What the daemon quotes may come from anyone.
    let rows: Vec<_> = rows
        .map(|(tint, row)| (tint, row.map(|cell| out.clean(&cell).into_owned())))
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    let width = |column: usize| {
        rows.iter()
            .map(|(_, row)| row[column].chars().count())
            .chain([head[column].len()])
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<_> = (0..N).map(width).collect();
    let pad = |column: usize, cell: &str| {
        let width = widths[column];
        if right.contains(&column) {
            format!("{cell:>width$}")
        } else if column + 1 == N {
            cell.to_owned()
        } else {
            format!("{cell:<width$}")
        }
    };
    let head: Vec<_> = (0..N).map(|column| pad(column, head[column])).collect();
    let mut view = format!("{}\n", out.dim(head.join("  ").trim_end()));
    for (tint, row) in &rows {
        let cell = |column: usize| {
            let cell = pad(column, &row[column]);
            tint.filter(|_| column == 0 || column + 1 == N)
                .map_or(cell.clone(), |tint| out.tint(tint, &cell))
        };
        let line = (0..N).map(cell).collect::<Vec<_>>().join("  ");
        let _ = writeln!(view, "{}", line.trim_end());
    }
    view
}
