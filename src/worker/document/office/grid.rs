//! Rows of a sheet on their way to the model: each stretch without an empty row is a table under its
//! place, so a sheet that claims all rows there are costs what it says.

use std::collections::BTreeMap;

use crate::ipc::EXTRACT_TEXT;
use crate::worker::document::blocks::{Blocks, Table};

/// Columns that are taken of a sheet.
pub const MAX_COLUMNS: u32 = 256;

/// The cells of a row that say something, by their columns from 0.
pub type Row = BTreeMap<u32, String>;

/// Rows without an empty one between them.
#[derive(Default)]
pub struct Grid {
    /// The number of the first.
    first: u32,
    rows: Vec<Row>,
    bytes: usize,
}

impl Grid {
    /// Takes the row of this number; they come in their order.
    pub fn push(&mut self, number: u32, row: Row, out: &mut Blocks) {
        if row.is_empty() {
            return;
        }
        let next = u64::from(self.first) + self.rows.len() as u64;
        if self.rows.is_empty() || u64::from(number) != next {
            self.end(out);
            self.first = number;
        }
        self.bytes += row.values().map(|cell| cell.len() + 3).sum::<usize>();
        self.rows.push(row);
    }

    /// Whether more would be left out anyway.
    pub fn is_full(&self) -> bool {
        self.bytes > EXTRACT_TEXT
    }

    /// Writes the rows that were taken.
    pub fn end(&mut self, out: &mut Blocks) {
        let Self { first, rows, .. } = std::mem::take(self);
        let columns = || rows.iter().flat_map(|row| row.keys().copied());
        let (Some(left), Some(right)) = (columns().min(), columns().max()) else {
            return;
        };
        if out.is_full() {
            out.cut = true;
            return;
        }
        let last = u64::from(first) + rows.len() as u64 - 1;
        out.paragraph(&format!(
            "Cells {}{first}:{}{last}",
            letters(left),
            letters(right)
        ));
        let mut table = Table::default();
        for row in &rows {
            table.row();
            for column in left..=right {
                table.cell(row.get(&column).map_or("", |cell| cell));
            }
        }
        out.table(table);
    }
}

/// The column of a cell that is named like `AB12`, from 0.
pub fn column_of(place: &str) -> Option<u32> {
    let letters = place.bytes().take_while(u8::is_ascii_alphabetic);
    let column = letters.take(6).fold(0, |column, letter| {
        column * 26 + u32::from(letter.to_ascii_uppercase() - b'A') + 1
    });
    column.checked_sub(1)
}

fn letters(column: u32) -> String {
    let (mut rest, mut name) = (column + 1, vec![]);
    while rest > 0 {
        rest -= 1;
        name.push(char::from(b'A' + (rest % 26) as u8));
        rest /= 26;
    }
    name.iter().rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_have_letters() {
        for (name, column) in [("A", 0), ("Z", 25), ("AA", 26), ("XFD", 16_383)] {
            let cell = format!("{name}7");
            assert_eq!((column_of(&cell), &*letters(column)), (Some(column), name));
        }
        assert_eq!(column_of("7"), None);
    }

    #[test]
    fn empty_rows_and_columns_cost_nothing() {
        let (mut grid, mut out) = (Grid::default(), Blocks::default());
        let cell = |column, text: &str| Row::from([(column, text.to_owned())]);
        grid.push(2, cell(1, "a"), &mut out);
        grid.push(3, cell(2, "b"), &mut out);
        grid.push(1_048_576, cell(16_383, "far"), &mut out);
        grid.end(&mut out);
        assert_eq!(
            out.finish(),
            "Cells B2:C3\n\n| a |  |\n| --- | --- |\n|  | b |\n\nCells XFD1048576:XFD1048576\n\nfar"
        );
    }
}
