//! Which of a mapped file's pages this process holds, and giving them back.

use std::ffi::{c_int, c_void};
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;

use rustix::mm::Advice;

use super::mapping::{ASKED_AT_ONCE, page};
use super::proc_maps::{self, MapsLine};

unsafe extern "C" {
    fn mincore(start: *const c_void, bytes: usize, present: *mut u8) -> c_int;
}

/// Files that are counted as one, the bytes of each behind those of the one before it, wherever they are mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappedFiles(Vec<MappedFile>);

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct MappedFile {
    major: u32,
    minor: u32,
    inode: u64,
    /// Which bytes of the whole are its.
    place: Range<u64>,
}

impl MappedFiles {
    /// Each with its place in the whole.
    pub fn of<F: AsFd>(files: impl IntoIterator<Item = (F, Range<u64>)>) -> io::Result<Self> {
        let mapped = files.into_iter().map(|(file, place)| {
            let stat = rustix::fs::fstat(file)?;
            Ok(MappedFile {
                major: rustix::fs::major(stat.st_dev),
                minor: rustix::fs::minor(stat.st_dev),
                inode: stat.st_ino,
                place,
            })
        });
        Ok(Self(mapped.collect::<io::Result<_>>()?))
    }

    /// Takes the files' pages out of this process; what is touched again is mapped again, from the
    /// page cache if it is still there. Only read-only mappings are considered, so nothing is lost.
    /// Returns the bytes of address space that were gone through.
    ///
    /// # Safety
    /// No thread of this process unmaps the files meanwhile: what is mapped in their place would lose
    /// its pages.
    pub unsafe fn evict(&self) -> io::Result<usize> {
        // SAFETY: the windows are used at once, and by this function's contract they stay.
        let windows = unsafe { self.windows()? };
        windows
            .iter()
            .for_each(|window| window.evict(window.file_range()));
        Ok(windows.iter().map(|window| window.addresses.len()).sum())
    }

    /// Where the files are mapped and cannot be written, by whoever.
    ///
    /// # Safety
    /// The windows must not be used any more once a file is unmapped there: something else may be
    /// in its place.
    pub unsafe fn windows(&self) -> io::Result<Vec<Window>> {
        let maps = proc_maps::read()?;
        let of_file = |file: &MappedFile| {
            joined(proc_maps::lines(&maps).filter_map(|line| file.window(&line)))
        };
        Ok(self.0.iter().flat_map(of_file).collect())
    }
}

impl MappedFile {
    /// The window of one mapping, if it is of this file and cannot be written.
    fn window(&self, line: &MapsLine<'_>) -> Option<Window> {
        let is_its = (line.device, line.inode) == ((self.major, self.minor), self.inode);
        (is_its && line.permissions.starts_with("r--")).then(|| {
            let start = (self.place.start + line.offset).min(self.place.end);
            let end = start + line.addresses.len() as u64;
            Window {
                addresses: line.addresses.clone(),
                part: start..end.min(self.place.end),
            }
        })
    }
}

/// Has the kernel read what is not in memory yet of files that are mapped at these addresses,
/// without waiting for it. To look first costs a tenth of asking for what is there. Addresses that
/// are not mapped are left alone.
pub fn prefetch(addresses: Range<usize>) {
    let start = addresses.start - addresses.start % page();
    let mut present = vec![0; (addresses.end - start).div_ceil(page())];
    // SAFETY: the vector has a byte for each page; nothing else is written.
    if unsafe {
        mincore(
            start as *const c_void,
            present.len() * page(),
            present.as_mut_ptr(),
        )
    } != 0
    {
        return;
    }
    for missing in missing(&present, ASKED_AT_ONCE / page()) {
        let (from, bytes) = (start + missing.start * page(), missing.len() * page());
        // SAFETY: this advice changes nothing that is held there.
        let _ = unsafe { rustix::mm::madvise(from as *mut c_void, bytes, Advice::WillNeed) };
    }
}

/// Runs of at most `most` pages that are not present, by what mincore(2) says of each.
fn missing(present: &[u8], most: usize) -> impl Iterator<Item = Range<usize>> {
    let mut at = 0;
    present
        .chunk_by(|a, b| (a & 1) == (b & 1))
        .flat_map(move |run| {
            let (start, end) = (at, at + run.len());
            at = end;
            let pieces = (start..end)
                .step_by(most)
                .map(move |from| from..end.min(from + most));
            pieces.filter(|_| run[0] & 1 == 0).collect::<Vec<_>>()
        })
}

/// Joins windows that continue each other: pieces of advice cut a mapping up.
fn joined(windows: impl Iterator<Item = Window>) -> Vec<Window> {
    let mut joined: Vec<Window> = vec![];
    for window in windows {
        match joined.last_mut() {
            Some(last)
                if last.addresses.end == window.addresses.start
                    && last.part.end == window.part.start =>
            {
                last.addresses.end = window.addresses.end;
                last.part.end = window.part.end;
            }
            _ => joined.push(window),
        }
    }
    joined
}

/// A part of a file that is mapped and cannot be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Whole pages.
    addresses: Range<usize>,
    /// Which bytes of the whole ([`MappedFiles`]) lie there, from the first on.
    part: Range<u64>,
}

impl Window {
    /// The part of the whole that is mapped here.
    pub fn file_range(&self) -> Range<u64> {
        self.part.clone()
    }

    /// Where in the whole `bytes` lie; `None` if they are not in this window.
    pub fn offset_of(&self, bytes: &[u8]) -> Option<u64> {
        let range = bytes.as_ptr_range();
        let inside =
            self.addresses.start <= range.start.addr() && range.end.addr() <= self.addresses.end;
        inside.then(|| self.part.start + (range.start.addr() - self.addresses.start) as u64)
    }

    /// The addresses of what is mapped here of a part of the whole; may be empty.
    pub fn addresses(&self, part: Range<u64>) -> Range<usize> {
        let whole = self.file_range();
        let (start, end) = (
            part.start.clamp(whole.start, whole.end),
            part.end.clamp(whole.start, whole.end),
        );
        let address = |offset: u64| self.addresses.start + (offset - whole.start) as usize;
        address(start)..address(end.max(start))
    }

    /// The pages that hold nothing else than a part of the whole. A file's last page may be filled up with nothing.
    fn pages_of(&self, part: Range<u64>) -> Range<usize> {
        let range = self.addresses(part.clone());
        let end = match part.end >= self.part.end {
            true => self.addresses.end,
            false => range.end - range.end % page(),
        };
        range.start.next_multiple_of(page())..end
    }

    /// Takes the pages that lie wholly in a part of the whole out of this process.
    pub fn evict(&self, part: Range<u64>) {
        self.advise(self.pages_of(part), Advice::LinuxDontNeed);
    }

    /// Has the kernel read no more around a page of this part than the page, and map it by itself:
    /// giving back a part of a huge page would take all of it away, and the next touch would bring
    /// all of it back.
    pub fn read_singly(&self, part: Range<u64>) {
        let range = self.pages_of(part);
        self.advise(range.clone(), Advice::Random);
        self.advise(range, Advice::LinuxNoHugepage);
    }

    /// Has the kernel read a part of the whole, without waiting for it.
    pub fn will_need(&self, part: Range<u64>) {
        let range = self.addresses(part);
        let start = range.start - range.start % page();
        for start in (start..range.end).step_by(ASKED_AT_ONCE) {
            self.advise(
                start..range.end.min(start + ASKED_AT_ONCE),
                Advice::WillNeed,
            );
        }
    }

    /// Reads a part of the whole in and maps its pages, as [`super::mapping::Mapping::populate`] does.
    pub fn populate(&self, part: Range<u64>) {
        let range = self.addresses(part);
        self.advise(
            range.start - range.start % page()..range.end,
            Advice::LinuxPopulateRead,
        );
    }

    fn advise(&self, range: Range<usize>, advice: Advice) {
        if range.start < range.end {
            // SAFETY: inside a mapping of the file without write permission ([`MappedFiles::windows`]'s
            // contract). Its pages hold what the file holds, and come back from there. A kernel
            // that does not take the advice loses nothing.
            let _ = unsafe { rustix::mm::madvise(range.start as *mut _, range.len(), advice) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::mapping::Mapping;
    use std::io::Write;

    #[test]
    fn only_what_is_missing_is_asked_for() {
        let runs = |present: &[u8], most| {
            missing(present, most)
                .map(|run| (run.start, run.end))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            runs(&[0, 0, 1, 0, 0, 0, 0, 0x81, 0], 3),
            [(0, 2), (3, 6), (6, 7), (8, 9)]
        );
        assert!(runs(&[1, 1], 3).is_empty() && runs(&[], 3).is_empty());
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![9; 10_000]).unwrap();
        let map = Mapping::of_file(&file, 10_000).unwrap();
        let base = map.base().addr();
        prefetch(base + 100..base + 9_000);
        prefetch(0..page());
        assert_eq!(map.bytes(0..10_000), vec![9; 10_000]);
    }

    #[test]
    fn only_read_only_mappings_of_the_file_count() {
        let file = MappedFile {
            major: 0xfe,
            minor: 0,
            inode: 77,
            place: 0x10_0000..0x10_2123,
        };
        let line = |permissions, device, inode| MapsLine {
            addresses: 0x7000..0x8000,
            permissions,
            offset: 0x2000,
            device,
            inode,
            path: None,
        };
        let window = Window {
            addresses: 0x7000..0x8000,
            // The file ends in the middle of its last page.
            part: 0x10_2000..0x10_2123,
        };
        let found = |permissions, device, inode| file.window(&line(permissions, device, inode));
        assert_eq!(found("r--s", (0xfe, 0), 77), Some(window.clone()));
        assert_eq!(found("r--p", (0xfe, 0), 77), Some(window));
        assert_eq!(found("rw-p", (0xfe, 0), 77), None);
        assert_eq!(found("r--s", (0xfe, 1), 77), None);
        assert_eq!(found("r--s", (0xfe, 0), 78), None);
    }

    #[test]
    fn places_in_the_file_and_in_memory_are_told() {
        let window = Window {
            addresses: 0x10_000..0x14_000,
            part: 0x8000..0xc000,
        };
        assert_eq!(window.addresses(0x9000..0xa000), 0x11_000..0x12_000);
        assert_eq!(window.addresses(0..0x8100), 0x10_000..0x10_100);
        let next = Window {
            addresses: 0x14_000..0x15_000,
            part: 0xc000..0xc700,
        };
        let apart = Window {
            addresses: 0x15_000..0x16_000,
            part: 0xe000..0xf000,
        };
        let whole = Window {
            addresses: 0x10_000..0x15_000,
            part: 0x8000..0xc700,
        };
        assert_eq!(
            joined([window.clone(), next, apart.clone()].into_iter()),
            [whole.clone(), apart]
        );
        // What lies in the last page behind the file's end belongs to nothing else.
        assert_eq!(whole.addresses(0xc000..0xd000), 0x14_000..0x14_700);
        assert_eq!(whole.pages_of(0x8001..0xc700), 0x11_000..0x15_000);
        assert_eq!(whole.pages_of(0x8000..0xc6ff), 0x10_000..0x14_000);
        assert!(whole.pages_of(0xc700..0xffff).is_empty());
        assert!(
            window.addresses(0..0x100).is_empty() && window.addresses(0xf000..0xffff).is_empty()
        );
    }

    fn resident(path: &str) -> u64 {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let entry = smaps.split(path).nth(1).expect("the file is mapped");
        let rss = entry
            .lines()
            .find_map(|line| line.strip_prefix("Rss:"))
            .unwrap();
        rss.split_whitespace().next().unwrap().parse().unwrap()
    }

    #[test]
    fn given_back_pages_are_gone_and_come_back_with_what_they_held() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let text: Vec<u8> = (0..1 << 20).map(|i| (i % 251) as u8).collect();
        file.write_all(&text).unwrap();
        let map = Mapping::of_file(file.as_file(), text.len()).unwrap();
        assert!(map.bytes(0..text.len()) == text);
        let path = file.path().to_str().unwrap();
        assert_eq!(resident(path), 1024);
        // A part of something larger.
        let mapped = MappedFiles::of([(file.as_file(), 77..77 + (1 << 20))]).unwrap();
        // SAFETY: nothing unmaps the file before the end of this test.
        assert_eq!(unsafe { mapped.evict() }.unwrap(), 1 << 20);
        assert_eq!(resident(path), 0);
        assert!(map.bytes(0..text.len()) == text);
    }
}
