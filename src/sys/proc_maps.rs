//! What is mapped where in this process: `/proc/self/maps` (proc(5)).

use std::fs;
use std::io;
use std::ops::Range;
use std::path::Path;

/// All lines, to be taken apart by [`lines`].
pub fn read() -> io::Result<String> {
    fs::read_to_string("/proc/self/maps")
}

/// The lines that can be understood, in the order of their addresses.
pub fn lines(maps: &str) -> impl Iterator<Item = MapsLine<'_>> {
    maps.lines().filter_map(MapsLine::parse)
}

/// One mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapsLine<'a> {
    pub addresses: Range<usize>,
    /// Like `r-xp`.
    pub permissions: &'a str,
    /// Byte of the file at which it begins.
    pub offset: u64,
    /// Major and minor number of the file's device; 0 for memory without a file.
    pub device: (u32, u32),
    pub inode: u64,
    /// The file, or what the kernel calls the memory.
    pub path: Option<&'a Path>,
}

impl<'a> MapsLine<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        // Blanks fill the line up before the path, which may have some itself.
        let mut fields = line.splitn(6, ' ');
        let (addresses, permissions, offset) = (fields.next()?, fields.next()?, fields.next()?);
        let (device, inode) = (fields.next()?, fields.next()?);
        let path = fields.next().unwrap_or_default().trim_start();
        let (start, end) = addresses.split_once('-')?;
        let address = |hex: &str| usize::from_str_radix(hex, 16).ok();
        let (major, minor) = device.split_once(':')?;
        let number = |hex: &str| u32::from_str_radix(hex, 16).ok();
        Some(Self {
            addresses: address(start)?..address(end)?,
            permissions,
            offset: u64::from_str_radix(offset, 16).ok()?,
            device: (number(major)?, number(minor)?),
            inode: inode.parse().ok()?,
            path: Some(Path::new(path)).filter(|_| !path.is_empty()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_apart() {
        let file = MapsLine {
            addresses: 0x7f00..0x7f10,
            permissions: "r--s",
            offset: 0x2000,
            device: (0xfe, 1),
            inode: 77,
            path: Some(Path::new("/some file")),
        };
        let line = "7f00-7f10 r--s 00002000 fe:01 77                         /some file";
        assert_eq!(MapsLine::parse(line), Some(file));
        let memory = MapsLine::parse("7f00-7f10 rw-p 00000000 00:00 0 ").unwrap();
        assert_eq!((memory.device, memory.path), ((0, 0), None));
        assert_eq!(MapsLine::parse("garbage"), None);
        assert!(lines(&read().unwrap()).any(|line| line.permissions == "r-xp"));
    }
}
