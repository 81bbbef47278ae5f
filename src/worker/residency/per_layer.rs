//! The table of Per-Layer Embeddings: rows come when a step needs them and do not stay.

use std::ops::Range;

use super::super::llama::Token;
use crate::gemma::layout::{Class, Layout};
use crate::sys::residency::Window;

/// Bytes around a page that the kernel maps with it when they are in the page cache
/// (`fault_around_bytes`). What was touched is counted in such pieces, so the count is never less
/// than the truth.
const PIECE: u64 = 64 << 10;

/// The table in the map of the model file.
pub struct PerLayer {
    windows: Vec<Window>,
    /// Where it lies in the file.
    table: Range<u64>,
    /// Bytes of a token's row.
    row: u64,
    /// Which pieces of the table were touched since the last eviction.
    touched: Vec<bool>,
    count: u64,
    /// Pieces that may stay.
    most: u64,
}

impl PerLayer {
    /// The table of a model with `tokens` tokens, of which `stay` bytes may stay in memory. `None`
    /// if it has no table.
    pub fn new(layout: &Layout, windows: Vec<Window>, tokens: usize, stay: u64) -> Option<Self> {
        let table = layout
            .extents()
            .iter()
            .find(|extent| extent.class == Class::PerLayer)?;
        let row = table.bytes.checked_div(tokens as u64)?;
        let pieces = table.bytes.div_ceil(PIECE) as usize + 1;
        let table = table.offset..table.end();
        for window in &windows {
            window.read_singly(table.clone());
        }
        Some(Self {
            windows,
            table,
            row,
            touched: vec![false; pieces],
            count: 0,
            most: stay / PIECE,
        })
    }

    /// Has the rows of a step read together: what is not in memory yet is asked for before the
    /// first row is waited for.
    pub fn fetch(&mut self, tokens: &[Token]) {
        for &token in tokens {
            let Ok(token) = u64::try_from(token) else {
                continue;
            };
            let start = self.table.start + token * self.row;
            if start + self.row > self.table.end {
                continue;
            }
            self.touch(start, start + self.row);
            for window in &self.windows {
                window.will_need(start..start + self.row);
            }
        }
    }

    /// Evicts what was touched, if it has become more than may stay. The next touch finds it in
    /// the page cache, unless the system had a better use for that memory.
    pub fn trim(&mut self) {
        if self.count > self.most {
            self.evict();
        }
    }

    /// Evicts all that was touched.
    pub fn evict(&mut self) {
        if self.count == 0 {
            return;
        }
        for window in &self.windows {
            window.evict(self.table.clone());
        }
        self.touched.fill(false);
        self.count = 0;
    }

    fn touch(&mut self, start: u64, end: u64) {
        let first = self.table.start / PIECE;
        for piece in start / PIECE..=(end - 1) / PIECE {
            if let Some(touched) = self.touched.get_mut((piece - first) as usize)
                && !std::mem::replace(touched, true)
            {
                self.count += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_touched_is_counted_and_evicted() {
        let layout = Layout::new(
            10 * PIECE,
            [(PIECE + 100, Class::PerLayer), (9 * PIECE, Class::Head)],
        );
        let tokens = 1000;
        let mut table = PerLayer::new(&layout, vec![], tokens, 3 * PIECE).unwrap();
        assert_eq!(table.row, (8 * PIECE - 100) / 1000);
        table.fetch(&[0, 1, 2, 1]);
        assert_eq!(table.count, 1);
        table.fetch(&[200, 400, -1, 1001]);
        assert_eq!(table.count, 3);
        table.trim();
        assert_eq!(table.count, 3);
        table.fetch(&[999]);
        table.trim();
        assert_eq!(table.count, 0);
        assert!(PerLayer::new(&Layout::whole(100, Class::Head), vec![], tokens, 0).is_none());
    }
}
