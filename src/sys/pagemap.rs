//! Which pages this process has in memory right now.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::mapping::page;

/// Bytes of an entry, and its bit for a page that is mapped
/// (`Documentation/admin-guide/mm/pagemap.rst`).
const ENTRY: usize = 8;
const PRESENT: u64 = 1 << 63;
/// Entries that are read at once.
const ENTRIES: usize = 8192;

/// `/proc/self/pagemap`. Open it before the process makes itself undumpable: afterwards only root
/// may.
#[derive(Debug)]
pub struct Pagemap(File);

impl Pagemap {
    pub fn open() -> io::Result<Self> {
        File::open("/proc/self/pagemap").map(Self)
    }

    /// Bytes of each of `pieces` (addresses) whose pages are mapped.
    pub fn present(&self, pieces: &[Range<usize>]) -> io::Result<Vec<u64>> {
        let mut buffer = vec![0; ENTRIES * ENTRY];
        pieces
            .iter()
            .map(|piece| self.present_in(piece, &mut buffer))
            .collect()
    }

    fn present_in(&self, piece: &Range<usize>, buffer: &mut [u8]) -> io::Result<u64> {
        let size = page();
        let (mut next, end) = (piece.start / size, piece.end.div_ceil(size));
        let mut present = 0;
        while next < end && !piece.is_empty() {
            let entries = &mut buffer[..(end - next).min(ENTRIES) * ENTRY];
            self.0.read_exact_at(entries, (next * ENTRY) as u64)?;
            for (index, entry) in entries.chunks_exact(ENTRY).enumerate() {
                if entry
                    .try_into()
                    .is_ok_and(|entry| u64::from_ne_bytes(entry) & PRESENT != 0)
                {
                    let start = (next + index) * size;
                    present += ((start + size).min(piece.end) - start.max(piece.start)) as u64;
                }
            }
            next += entries.len() / ENTRY;
        }
        Ok(present)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::mapping::Mapping;

    #[test]
    fn touched_pages_are_counted() {
        let pages = 3 * ENTRIES;
        let mapping = Mapping::reserve(pages * page()).unwrap();
        for index in [0, 5, ENTRIES, pages - 1] {
            // SAFETY: inside the mapping, which nobody else has.
            unsafe { mapping.base().add(index * page()).write(1) };
        }
        let start = mapping.base().addr();
        let pagemap = Pagemap::open().unwrap();
        let found = pagemap
            .present(&[
                start..start + page(),
                start + 1..start + 10 * page(),
                start..start + mapping.size(),
            ])
            .unwrap();
        let page = page() as u64;
        assert_eq!(found, [page, 2 * page - 1, 4 * page]);
        assert_eq!(
            pagemap
                .present(&[start..start + 100, start + 100..start + 300, start..start])
                .unwrap(),
            [100, 200, 0]
        );
    }
}
