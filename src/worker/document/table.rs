//! Values between commas, semicolons, tabs or bars: a table.

use csv_core::{ReadRecordResult, ReaderBuilder};

use super::blocks::{Blocks, Table};
use super::{Pages, encoding};
use crate::ipc::Sight;

/// What may stand between values.
const BETWEEN: [u8; 4] = [b',', b';', b'\t', b'|'];
/// Bytes, and rows, by which that is found out.
const SAMPLE: usize = 64 << 10;
const SAMPLE_ROWS: usize = 100;
/// Values of a row.
const MAX_COLUMNS: usize = 4096;
/// Bytes of a row.
const MAX_ROW: usize = 1 << 20;

/// Reads the file as a table if it is one, else as text.
pub fn read(bytes: &[u8], pages: &mut Pages<'_>) -> Result<u32, String> {
    let decoded = encoding::text(bytes).ok_or("is no text, and so no table")?;
    pages.encoding = Some(decoded.encoding);
    let Some(between) = between(&decoded.text) else {
        pages.push(decoded.text, Sight::Told);
        return Ok(1);
    };
    let (mut table, mut out) = (Table::default(), Blocks::default());
    let complete = rows(&decoded.text, between, |row| {
        table.row();
        row.iter().for_each(|value| table.cell(value));
        !table.is_full()
    });
    out.table(table);
    pages.cut |= out.cut || !complete;
    pages.push(out.finish(), Sight::Told);
    Ok(1)
}

/// What stands between the values, if rows have the same number of them.
fn between(text: &str) -> Option<u8> {
    let sample = &text[..text.floor_char_boundary(SAMPLE)];
    let found = BETWEEN.map(|between| {
        let mut counts = vec![];
        rows(sample, between, |row| {
            counts.push(row.len());
            counts.len() < SAMPLE_ROWS
        });
        // The last row of a part may not be whole.
        if sample.len() < text.len() && counts.len() > 1 {
            counts.pop();
        }
        let first = counts.first().copied().unwrap_or(0);
        let like = counts.iter().filter(|count| **count == first).count();
        let is_table = first > 1 && counts.len() > 1 && like * 10 >= counts.len() * 9;
        (is_table.then_some(first), between)
    });
    found
        .into_iter()
        .filter(|(columns, _)| columns.is_some())
        .max()
        .map(|(_, between)| between)
}

/// Gives each row to `take` until it wants no more; whether all of them were taken whole.
fn rows(text: &str, between: u8, mut take: impl FnMut(&[&str]) -> bool) -> bool {
    let mut reader = ReaderBuilder::new().delimiter(between).build();
    let mut input = text.as_bytes();
    let (mut values, mut ends) = (vec![0; MAX_ROW.min(text.len() + 1)], vec![0; MAX_COLUMNS]);
    let (mut written, mut ended, mut complete) = (0, 0, true);
    loop {
        let (result, read, bytes, fields) =
            reader.read_record(input, &mut values[written..], &mut ends[ended..]);
        input = &input[read..];
        written += bytes;
        ended += fields;
        match result {
            ReadRecordResult::InputEmpty => continue,
            ReadRecordResult::End => return complete,
            ReadRecordResult::OutputFull | ReadRecordResult::OutputEndsFull => return false,
            ReadRecordResult::Record => {}
        }
        let mut begin = 0;
        let row: Vec<_> = ends[..ended]
            .iter()
            .map(|end| {
                let value = std::str::from_utf8(&values[begin..*end]).unwrap_or_default();
                begin = *end;
                value
            })
            .collect();
        if !take(&row) {
            complete = input.is_empty();
            return complete;
        }
        (written, ended) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_between_values_is_found_out() {
        for (text, expected) in [
            ("a,b\n1,2\n", Some(b',')),
            ("a;b\n1,5;2\n3,5;4\n", Some(b';')),
            ("a\tb\tc\n1\t2\t3\n", Some(b'\t')),
            ("name|mass\niron|56\n", Some(b'|')),
            ("\"a, b\",c\n\"d\n e\",f\n", Some(b',')),
            ("only a line, with a comma", None),
            ("a\nb\nc\n", None),
            ("", None),
            ("One, two and three.\nNo comma here.\nAnd, but, or.\n", None),
        ] {
            assert_eq!(between(text), expected, "{text}");
        }
    }

    #[test]
    fn rows_are_read_as_far_as_they_go() {
        let all = |text: &str| {
            let mut all = vec![];
            let complete = rows(text, b',', |row| {
                all.push(row.join("/"));
                true
            });
            (all, complete)
        };
        let read = all("a,\"b \"\"c\"\"\"\n\n1,\"x\ny\"\nlast");
        assert_eq!(
            read,
            (
                vec!["a/b \"c\"".into(), "1/x\ny".into(), "last".into()],
                true
            )
        );
        let wide = ",".repeat(MAX_COLUMNS + 1);
        assert_eq!(all(&wide), (vec![], false));
        assert_eq!(all("a,\"never closed").0, ["a/never closed"]);
    }
}
