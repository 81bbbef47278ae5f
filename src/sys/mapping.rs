//! Address space that is filled once and then read: from a file, or from memory until a file holds
//! it.

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::ptr::NonNull;

use rustix::mm::{Advice, MapFlags, ProtFlags};

/// Bytes that the kernel certainly reads when it is asked for that many: of more it may read only
/// the beginning (`force_page_cache_ra` stops at the disk's read-ahead, which is this by default).
pub const ASKED_AT_ONCE: usize = 128 << 10;

/// A run of pages of this process; given back when dropped.
#[derive(Debug)]
pub struct Mapping {
    base: NonNull<u8>,
    bytes: usize,
    /// Bytes from the start on that a file holds; the rest is memory.
    of_file: usize,
}

// SAFETY: it is plain memory. Shared references only read it; what writes needs `&mut` or the raw
// address.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Memory that can be written, of zeros. Pages cost nothing until they are touched.
    pub fn reserve(bytes: usize) -> io::Result<Self> {
        let (access, flags) = (
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE | MapFlags::NORESERVE,
        );
        // SAFETY: the kernel chooses a free place.
        let base =
            unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), bytes, access, flags)? };
        Self::new(base, bytes, 0)
    }

    /// The first `bytes` bytes of `file`, to be read only. The file must not become shorter while
    /// this lives: touching what is gone ends the process with SIGBUS.
    pub fn of_file(file: &File, bytes: usize) -> io::Result<Self> {
        // SAFETY: the kernel chooses a free place.
        let base = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                bytes,
                ProtFlags::READ,
                MapFlags::SHARED,
                file,
                0,
            )?
        };
        Self::new(base, bytes, bytes)
    }

    fn new(base: *mut c_void, bytes: usize, of_file: usize) -> io::Result<Self> {
        let base = NonNull::new(base.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self {
            base,
            bytes,
            of_file,
        })
    }

    /// Where it begins. What is written through it must not be read through [`Mapping::bytes`] at the
    /// same time.
    pub fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    pub fn size(&self) -> usize {
        self.bytes
    }

    /// What it holds; nothing outside the mapping.
    pub fn bytes(&self, range: Range<usize>) -> &[u8] {
        let range = range.start.min(self.bytes)..range.end.min(self.bytes);
        // SAFETY: inside the mapping, which is mapped and readable while `self` lives.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(range.start), range.len()) }
    }

    /// Lets `range`, of whole pages, be what `file` holds at the same offset, to be read only. Its
    /// memory is free then.
    pub fn replace(&mut self, range: Range<usize>, file: &File) -> io::Result<()> {
        if range.end > self.bytes || !range.start.is_multiple_of(page()) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let flags = MapFlags::SHARED | MapFlags::FIXED;
        // SAFETY: inside the mapping, which is ours, and `&mut` says that nobody has a slice of it.
        unsafe {
            let place = self.base.as_ptr().add(range.start).cast::<c_void>();
            rustix::mm::mmap(
                place,
                range.len(),
                ProtFlags::READ,
                flags,
                file,
                range.start as u64,
            )?;
        }
        if range.start <= self.of_file {
            self.of_file = self.of_file.max(range.end);
        }
        Ok(())
    }

    /// Takes the pages that a file holds out of this process, from the start of the mapping to the
    /// first that none does; what is touched again is mapped again, from the page cache if it is
    /// still there.
    pub fn evict(&self) {
        // What shares a page with memory that no file holds stays.
        let end = match self.of_file {
            end if end == self.bytes => end,
            end => end - end % page(),
        };
        // SAFETY: inside the mapping. These pages are a file's, mapped shared and without write
        // permission, so they hold the same when they come back.
        let _ =
            unsafe { rustix::mm::madvise(self.base.as_ptr().cast(), end, Advice::LinuxDontNeed) };
    }

    /// Has the kernel read `range` from its file, without waiting for it.
    pub fn will_need(&self, range: Range<usize>) {
        for start in range.clone().step_by(ASKED_AT_ONCE) {
            self.advise(
                start..range.end.min(start + ASKED_AT_ONCE),
                Advice::WillNeed,
            );
        }
    }

    /// Reads `range` in and maps its pages, so that touching them costs nothing. Kernels before
    /// 5.14 cannot; then the first touch maps them.
    pub fn populate(&self, range: Range<usize>) {
        self.advise(range, Advice::LinuxPopulateRead);
    }

    /// Lets the system take `range` before other pages when memory is short; it stays where it is
    /// until then. Kernels before 5.4 cannot.
    pub fn mark_cold(&self, range: Range<usize>) {
        self.advise(range, Advice::LinuxCold);
    }

    /// Keeps `range` in memory whatever happens (mlock(2)).
    pub fn lock(&self, range: Range<usize>) -> io::Result<()> {
        let range = self.pages(range);
        // SAFETY: inside the mapping; locking changes nothing that is held there.
        unsafe { rustix::mm::mlock(self.base.as_ptr().add(range.start).cast(), range.len())? };
        Ok(())
    }

    /// Gives the memory of the pages that lie in `range` as a whole back to the system. They are zeros
    /// from then on, and cost nothing until they are touched.
    ///
    /// # Safety
    /// No file holds any of them, and nobody reads or writes there meanwhile or counts on what was
    /// there.
    pub unsafe fn discard(&self, range: Range<usize>) {
        let start = range.start.next_multiple_of(page());
        let end = range.end.min(self.bytes);
        let end = end - end % page();
        if start < end {
            // SAFETY: inside the mapping, and by this function's contract of no use to anyone. Where
            // it is refused the memory stays.
            let _ = unsafe {
                let place = self.base.as_ptr().add(start).cast();
                rustix::mm::madvise(place, end - start, Advice::LinuxDontNeed)
            };
        }
    }

    fn advise(&self, range: Range<usize>, advice: Advice) {
        let range = self.pages(range);
        // SAFETY: inside the mapping; no such advice changes what is held there. They are hints: a
        // kernel that does not take them reads at the first touch.
        let _ = unsafe {
            rustix::mm::madvise(
                self.base.as_ptr().add(range.start).cast(),
                range.len(),
                advice,
            )
        };
    }

    /// The pages of `range`, inside the mapping.
    fn pages(&self, range: Range<usize>) -> Range<usize> {
        let end = range.end.min(self.bytes);
        let start = range.start.min(end);
        start - start % page()..end
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no slice of it outlives `self`.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

/// Bytes of a page.
pub fn page() -> usize {
    rustix::param::page_size()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn memory_can_become_a_files() {
        let bytes = 3 * page();
        let mut mapping = Mapping::reserve(bytes).unwrap();
        // SAFETY: the mapping is that long, and nobody else has it.
        unsafe { std::ptr::write_bytes(mapping.base(), 7, bytes) };
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&vec![9; 2 * page()], 0).unwrap();
        mapping.replace(page()..2 * page(), &file).unwrap();
        let found: Vec<u8> = (0..3)
            .map(|i| mapping.bytes(i * page()..bytes)[0])
            .collect();
        assert_eq!(found, [7, 9, 7]);
        assert!(mapping.replace(1..page(), &file).is_err());
        // Memory before the file's pages is never evicted.
        mapping.evict();
        assert_eq!(mapping.bytes(0..1), [7]);
        assert!(mapping.replace(0..4 * page(), &file).is_err());
    }

    /// Pages that are mapped, of a mapping's.
    fn present(mapping: &Mapping) -> u64 {
        let base = mapping.base().addr();
        let pagemap = crate::sys::pagemap::Pagemap::open().unwrap();
        let range = base..base + mapping.size();
        pagemap.present(&[range]).unwrap()[0]
    }

    #[test]
    fn whole_pages_are_discarded() {
        let bytes = 3 * page();
        let mapping = Mapping::reserve(bytes).unwrap();
        assert_eq!(present(&mapping), 0, "what was not touched costs nothing");
        // SAFETY: the mapping is that long, and nobody else has it.
        unsafe { std::ptr::write_bytes(mapping.base(), 7, bytes) };
        // SAFETY: as above.
        unsafe { mapping.discard(1..2 * page() + 1) };
        let found: Vec<u8> = (0..3)
            .map(|i| mapping.bytes(i * page()..bytes)[0])
            .collect();
        assert_eq!(found, [7, 0, 7]);
        // SAFETY: as above.
        unsafe { mapping.discard(0..bytes) };
        assert_eq!(present(&mapping), 0);
    }

    #[test]
    fn only_what_a_file_holds_is_evicted() {
        let bytes = 3 * page();
        let mut mapping = Mapping::reserve(bytes).unwrap();
        // SAFETY: the mapping is that long, and nobody else has it.
        unsafe { std::ptr::write_bytes(mapping.base(), 7, bytes) };
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&vec![9; bytes], 0).unwrap();
        mapping.replace(0..2 * page(), &file).unwrap();
        assert_eq!(mapping.bytes(0..1), [9]);
        mapping.evict();
        assert_eq!(present(&mapping), page() as u64);
        assert_eq!(mapping.bytes(2 * page()..2 * page() + 1), [7]);
        mapping.replace(2 * page()..bytes, &file).unwrap();
        assert_eq!(mapping.bytes(0..bytes), vec![9; bytes]);
        mapping.evict();
        assert_eq!(present(&mapping), 0);
        assert_eq!(mapping.bytes(0..bytes), vec![9; bytes]);
    }

    #[test]
    fn a_file_is_read_in_place() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[5; 10_000], 0).unwrap();
        let mapping = Mapping::of_file(&file, 10_000).unwrap();
        mapping.will_need(0..10_000);
        mapping.populate(100..20_000);
        assert_eq!(mapping.bytes(0..20_000), [5; 10_000]);
        assert_eq!(mapping.size(), 10_000);
    }
}
