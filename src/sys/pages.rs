//! Which of a mapped file's pages this process holds, and giving them back.

use std::fs;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;

use rustix::mm::Advice;

/// A file, wherever it is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapped {
    major: u32,
    minor: u32,
    inode: u64,
}

impl Mapped {
    pub fn of(file: impl AsFd) -> io::Result<Self> {
        let stat = rustix::fs::fstat(file)?;
        Ok(Self { major: rustix::fs::major(stat.st_dev), minor: rustix::fs::minor(stat.st_dev), inode: stat.st_ino })
    }

    /// Takes the file's pages out of this process; what is touched again is mapped again, from the page cache if
    /// it is still there. Only read-only mappings are considered, so nothing is lost. Returns the bytes of address
    /// space that were gone through.
    pub fn give_back(&self) -> io::Result<usize> {
        let maps = fs::read_to_string("/proc/self/maps")?;
        let mut bytes = 0;
        for range in maps.lines().filter_map(|line| self.read_only_range(line)) {
            // SAFETY: the kernel says that this is a mapping of the file without write permission. Its pages hold
            // what the file holds, and come back from there when they are touched.
            unsafe { rustix::mm::madvise(range.start as *mut _, range.len(), Advice::LinuxDontNeed)? };
            bytes += range.len();
        }
        Ok(bytes)
    }

    /// The addresses of one line of `/proc/self/maps` (proc(5)), if it maps this file and cannot be written.
    fn read_only_range(&self, line: &str) -> Option<Range<usize>> {
        let mut fields = line.split_whitespace();
        let (addresses, permissions, _, device, inode) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let hex = |text: &str| u32::from_str_radix(text, 16).ok();
        let (major, minor) = device.split_once(':')?;
        let found = Self { major: hex(major)?, minor: hex(minor)?, inode: inode.parse().ok()? };
        if found != *self || !permissions.starts_with("r--") {
            return None;
        }
        let (start, end) = addresses.split_once('-')?;
        Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::map::Map;
    use std::io::Write;

    #[test]
    fn only_read_only_mappings_of_the_file_count() {
        let file = Mapped { major: 0xfe, minor: 0, inode: 77 };
        let line = |permissions, device, inode| format!("7f00-7f10 {permissions} 00000000 {device} {inode}   /some/file");
        assert_eq!(file.read_only_range(&line("r--s", "fe:00", "77")), Some(0x7f00..0x7f10));
        assert_eq!(file.read_only_range(&line("r--p", "fe:00", "77")), Some(0x7f00..0x7f10));
        assert_eq!(file.read_only_range(&line("rw-p", "fe:00", "77")), None);
        assert_eq!(file.read_only_range(&line("r--s", "fe:01", "77")), None);
        assert_eq!(file.read_only_range(&line("r--s", "fe:00", "78")), None);
        assert_eq!(file.read_only_range("garbage"), None);
    }

    fn resident(path: &str) -> u64 {
        let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
        let entry = smaps.split(path).nth(1).expect("the file is mapped");
        let rss = entry.lines().find_map(|line| line.strip_prefix("Rss:")).unwrap();
        rss.split_whitespace().next().unwrap().parse().unwrap()
    }

    #[test]
    fn given_back_pages_are_gone_and_come_back_with_what_they_held() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let text: Vec<u8> = (0..1 << 20).map(|i| (i % 251) as u8).collect();
        file.write_all(&text).unwrap();
        let map = Map::first(file.as_file(), text.len()).unwrap();
        assert!(*map == *text);
        let path = file.path().to_str().unwrap();
        assert_eq!(resident(path), 1024);
        assert_eq!(Mapped::of(file.as_file()).unwrap().give_back().unwrap(), 1 << 20);
        assert_eq!(resident(path), 0);
        assert!(*map == *text);
    }
}
