//! A file's first bytes as memory that is only read.

use std::fs::File;
use std::io;
use std::ops::Deref;

use mmap_rs::MmapOptions;

/// The first bytes of a file, mapped and read-only; unmapped when dropped.
///
/// Pages are read from the disk when they are first touched, with the kernel's normal read-ahead: a
/// reader that goes from the front to the back costs few requests, and no more than one read-ahead
/// window is read behind the place where it stops. (With `MADV_RANDOM` nothing is read behind it,
/// but each page is a request of its own: 500 ms instead of 35 for the 13 MB header of a full-size
/// model on a cold disk.) Nothing is copied, so none of it counts as the process's own memory.
///
/// The file must not be made shorter while it is mapped. Model files are replaced (written beside
/// and renamed), which leaves a map of the old file whole. A file that is truncated in place, or
/// whose disk fails, ends the process with SIGBUS at the next touch of a missing page: keep maps
/// short-lived where that must not happen.
pub struct Mmap(Option<mmap_rs::Mmap>);

impl Mmap {
    /// Maps the first `bytes` bytes of `file`, which has at least that many.
    pub fn first(file: &File, bytes: usize) -> io::Result<Self> {
        if bytes == 0 {
            // The kernel refuses empty maps.
            return Ok(Self(None));
        }
        let options = MmapOptions::new(bytes).map_err(io::Error::other)?;
        // SAFETY: the map is private, read-only and outlives every slice borrowed from it. What is
        // assumed beyond that is that no one writes to the file in place while it is mapped (see
        // the type's documentation): model files are installed by renaming. Readers check every
        // length and index against the slice and never trust a byte that they read twice.
        let options = unsafe { options.with_file(file, 0) };
        options
            .map()
            .map(|map| Self(Some(map)))
            .map_err(io::Error::other)
    }
}

impl Deref for Mmap {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn maps_a_prefix_the_whole_and_nothing() {
        let mut file = tempfile::tempfile().unwrap();
        let content: Vec<u8> = (0..10_000u32).map(|i| i as u8).collect();
        file.write_all(&content).unwrap();
        assert_eq!(&Mmap::first(&file, 10_000).unwrap()[..], &content[..]);
        assert_eq!(&Mmap::first(&file, 5_001).unwrap()[..], &content[..5_001]);
        assert!(Mmap::first(&file, 0).unwrap().is_empty());
    }

    #[test]
    fn a_replaced_file_leaves_the_old_map_whole() {
        let folder = tempfile::tempdir().unwrap();
        let (path, next) = (folder.path().join("a"), folder.path().join("b"));
        std::fs::write(&path, [1u8; 9_000]).unwrap();
        let map = Mmap::first(&File::open(&path).unwrap(), 9_000).unwrap();
        std::fs::write(&next, b"short").unwrap();
        std::fs::rename(&next, &path).unwrap();
        assert_eq!(&map[..], &[1u8; 9_000][..]);
    }
}
