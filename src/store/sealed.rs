//! Bytes on the disk that nobody but this process can read: they lie in a file without a name, and
//! are encrypted with keys that are in memory alone. The file is gone with the process, and so are the
//! keys: what the disk still has then says nothing to anyone.
//!
//! All that is sealed lies in one file, a [`SealedStore`], each in a part of its own, so that there is
//! one descriptor. What is dropped leaves a hole, which takes no room on the disk.
//!
//! A part is made of pieces (`pieces`), with a key of its own.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::FallocateFlags;

use super::cache::{make_folder, nameless};
use super::pieces::{Key, PieceWriter, Pieces, sealed_bytes};

/// Bytes that a disk keeps together: parts begin at multiples, so that holes are whole.
const BLOCK: u64 = 4096;
/// Bytes of a file, holes included, after which another one is begun.
const WORN: u64 = 1 << 40;

/// The file. Clones are the same; the last of it that is dropped, with all that lies in it, ends it.
#[derive(Clone, Debug)]
pub struct SealedStore(Arc<Store>);

#[derive(Debug)]
struct Store {
    file: File,
    /// Where the next part begins. Parts are never written over.
    end: AtomicU64,
}

impl SealedStore {
    /// An empty file on the disk of `folder`, which is made if it is not there.
    ///
    /// # Errors
    ///
    /// The disk's; file systems that cannot have files without a name, or with holes, say so.
    pub fn create(folder: &Path) -> io::Result<Self> {
        make_folder(folder)?;
        let file = nameless(folder)?;
        rustix::fs::fallocate(&file, HOLE, 0, 1)?;
        let end = AtomicU64::new(0);
        Ok(Self(Arc::new(Store { file, end })))
    }

    /// Whether another store is to be made for what comes: a file cannot be as long as one likes (on
    /// ext4 16 TiB, holes included).
    pub fn is_worn(&self) -> bool {
        self.0.end.load(Ordering::Relaxed) > WORN
    }

    /// A part for `bytes` bytes, to be filled.
    ///
    /// # Errors
    ///
    /// The system has no random numbers.
    pub fn writer(&self, bytes: u64) -> io::Result<SealedWriter> {
        let key = Key::random()?;
        let start = self.0.end.fetch_add(part_bytes(bytes), Ordering::Relaxed);
        let part = Part {
            store: self.0.clone(),
            start,
            most: bytes,
        };
        Ok(SealedWriter {
            writer: PieceWriter::new(&key, vec![], start, bytes),
            part,
            key,
        })
    }
}

/// What is not there takes no room on the disk; the file's length stays.
const HOLE: FallocateFlags = FallocateFlags::PUNCH_HOLE.union(FallocateFlags::KEEP_SIZE);

/// Bytes that a part of so many bytes takes, up to where the next one may begin.
fn part_bytes(bytes: u64) -> u64 {
    sealed_bytes(bytes).next_multiple_of(BLOCK)
}

/// A part of the file; a hole once it is dropped.
struct Part {
    store: Arc<Store>,
    start: u64,
    /// Bytes that it can have, before they are sealed.
    most: u64,
}

impl Drop for Part {
    fn drop(&mut self) {
        // The disk could make holes when the file was made.
        let _ = rustix::fs::fallocate(&self.store.file, HOLE, self.start, part_bytes(self.most));
    }
}

/// A part that is being written.
pub struct SealedWriter {
    part: Part,
    key: Key,
    writer: PieceWriter,
}

impl SealedWriter {
    /// Adds `bytes`.
    ///
    /// # Errors
    ///
    /// The disk's; more bytes than the part is for.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writer.write(&self.part.store.file, bytes)
    }

    /// The whole of it. It need not be on the disk: it does not outlive the process.
    ///
    /// # Errors
    ///
    /// The disk's.
    pub fn finish(self) -> io::Result<SealedFile> {
        let bytes = self.writer.finish(&self.part.store.file)?;
        Ok(SealedFile {
            part: self.part,
            key: self.key,
            bytes,
        })
    }
}

/// A part that can be read again.
pub struct SealedFile {
    part: Part,
    key: Key,
    bytes: u64,
}

impl SealedFile {
    /// Bytes that were written to it.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Hands its bytes to `take`, piece by piece. Each is what was written; that all came is known
    /// when this returns.
    ///
    /// # Errors
    ///
    /// The disk's, those of `take`, and bytes that are not what was written.
    pub fn read(&self, take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let pieces = Pieces {
            key: &self.key,
            context: &[],
            start: self.part.start,
            bytes: self.bytes,
        };
        pieces.read(&self.part.store.file, take)
    }
}

impl fmt::Debug for SealedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealedFile({} bytes)", self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::super::pieces::{PIECE, TAG};
    use super::*;

    fn store() -> SealedStore {
        let folder = tempfile::tempdir().unwrap();
        let store = SealedStore::create(folder.path()).unwrap();
        let names = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(names, 0, "it has a name");
        store
    }

    fn sealed_in(store: &SealedStore, bytes: &[u8], at_once: usize) -> SealedFile {
        let mut writer = store.writer(bytes.len() as u64).unwrap();
        for bytes in bytes.chunks(at_once.max(1)) {
            writer.write(bytes).unwrap();
        }
        writer.finish().unwrap()
    }

    fn sealed(bytes: &[u8], at_once: usize) -> SealedFile {
        sealed_in(&store(), bytes, at_once)
    }

    fn disk(file: &SealedFile) -> &File {
        &file.part.store.file
    }

    fn read(file: &SealedFile) -> io::Result<Vec<u8>> {
        let mut bytes = vec![];
        file.read(|piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(bytes)
    }

    fn bytes(count: usize) -> Vec<u8> {
        (0..count).map(|i| (i * 7 % 251) as u8).collect()
    }

    #[test]
    fn what_was_written_is_read() {
        for count in [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE, 3 * PIECE + 17] {
            for at_once in [count, 1000] {
                let bytes = bytes(count);
                let file = sealed(&bytes, at_once);
                assert_eq!(file.bytes(), count as u64);
                assert!(read(&file).unwrap() == bytes, "{count} {at_once}");
            }
        }
    }

    #[test]
    fn the_disk_has_none_of_it() {
        let secret = b"the weather is a secret, and so is the cat";
        let file = sealed(secret, secret.len());
        let mut on_disk = vec![0; secret.len() + TAG];
        disk(&file).read_exact_at(&mut on_disk, 0).unwrap();
        assert!(!on_disk.windows(8).any(|part| part == &secret[..8]));
    }

    #[test]
    fn what_was_changed_moved_or_cut_off_is_found() {
        let whole = bytes(2 * PIECE);
        let sealed_piece = PIECE + TAG;
        let damage: [&dyn Fn(&mut SealedFile); 4] = [
            &|file| disk(file).write_all_at(&[1, 2, 3], 100).unwrap(),
            &|file| {
                let mut pieces = vec![0; 2 * sealed_piece];
                disk(file).read_exact_at(&mut pieces, 0).unwrap();
                pieces.rotate_left(sealed_piece);
                disk(file).write_all_at(&pieces, 0).unwrap();
            },
            &|file| disk(file).set_len(sealed_piece as u64).unwrap(),
            // Also when the length says that this is all.
            &|file| file.bytes = PIECE as u64,
        ];
        for (i, damage) in damage.iter().enumerate() {
            let mut file = sealed(&whole, whole.len());
            damage(&mut file);
            assert!(read(&file).is_err(), "{i}");
        }
        let (one, mut other) = (sealed(&whole, 9999), sealed(&whole, 9999));
        other.part = one.part;
        assert!(read(&other).is_err(), "every part has its own key");
    }

    #[test]
    fn parts_of_one_file_leave_nothing_behind() {
        let store = store();
        let one = sealed_in(&store, &bytes(3 * PIECE), 999);
        let two = sealed_in(&store, &bytes(PIECE), 999);
        assert!(read(&one).unwrap() == bytes(3 * PIECE));
        drop(one);
        assert!(read(&two).unwrap() == bytes(PIECE));
        drop(two);
        let blocks = |file: &File| {
            file.sync_all().unwrap();
            std::os::unix::fs::MetadataExt::blocks(&file.metadata().unwrap())
        };
        assert!(blocks(&store.0.file) <= 16, "{}", blocks(&store.0.file));
        let mut writer = store.writer(10).unwrap();
        writer.write(&[0; 10]).unwrap();
        assert!(writer.write(&[0]).is_err(), "its neighbour lies there");
    }
}
