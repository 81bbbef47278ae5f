//! What a model's files hold, in 32 bytes: packed weights are those of files with this fingerprint.
//!
//! Reading a file as a whole takes longer than packing saves, and a start from packed weights reads
//! no source at all. So where the kernel keeps the time of an inode's last change (ctime), which
//! nobody can set, the fingerprint is made of that, the inode and the header: whoever writes a byte
//! of any tensor, or puts another file in the place of this one, makes another fingerprint, whatever
//! becomes of the file's name, size and time of modification. Renaming, chmod and the like do so as
//! well, which costs one more packing. On other file systems (FAT, CIFS, FUSE) every tensor is
//! read: with SHA-256 at 1.7 GB/s where the CPU has instructions for it and 0.5 GB/s where not
//! (measured on a Xeon), which is above the speed of the disks that have such file systems; so no
//! other hash is needed.

use std::fs::{File, Metadata};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};

use sha2::{Digest, Sha256};

use super::gguf::Tensor;

/// File systems whose inodes have a number of their own and a time of change: the names of
/// `statfs(2)`, as numbers.
const KEEP_CHANGE_TIME: [u32; 9] = [
    0xef53,      // ext2, ext3, ext4
    0x5846_5342, // xfs
    0x9123_683e, // btrfs
    0xf2f5_2010, // f2fs
    0xca45_1a4e, // bcachefs
    0x2fc1_2fc1, // zfs
    0x0102_1994, // tmpfs
    0x794c_7630, // overlayfs
    0x6969,      // nfs: the server's, asked for when the file is opened
];
/// Bytes that are read at a time.
const PIECE: usize = 1 << 20;

/// The fingerprint of open files, whose tensors are counted on from one to the next. Blocks on the disk.
pub(super) fn of(files: &[(File, Metadata)], tensors: &[Tensor]) -> io::Result<[u8; 32]> {
    let mut hash = Sha256::new();
    for tensor in tensors {
        let Tensor {
            name,
            offset,
            bytes,
            ..
        } = tensor;
        hash.update(format!("{name} {offset} {bytes} {}\n", tensor.ty.id));
    }
    let mut start = 0;
    for (file, metadata) in files {
        hash.update(metadata.len().to_le_bytes());
        // A file system that cannot say what it is is none of those.
        let kind = rustix::fs::fstatfs(file).map_or(0, |found| found.f_type as u32);
        if KEEP_CHANGE_TIME.contains(&kind) {
            add_identity(&mut hash, metadata);
        } else {
            add_contents(&mut hash, file, start..start + metadata.len(), tensors)?;
        }
        start += metadata.len();
    }
    Ok(hash.finalize().into())
}

fn add_identity(hash: &mut Sha256, metadata: &Metadata) {
    hash.update(metadata.ino().to_le_bytes());
    for number in [
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.ctime(),
        metadata.ctime_nsec(),
    ] {
        hash.update(number.to_le_bytes());
    }
}

/// Those of the tensors that lie in this file, whose bytes count as `place`.
fn add_contents(
    hash: &mut Sha256,
    file: &File,
    place: Range<u64>,
    tensors: &[Tensor],
) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    for tensor in tensors.iter().filter(|one| place.contains(&one.offset)) {
        let at = tensor.offset - place.start;
        let (mut at, end) = (at, at + tensor.bytes);
        while at < end {
            let count = (end - at).min(PIECE as u64) as usize;
            file.read_exact_at(&mut piece[..count], at)?;
            hash.update(&piece[..count]);
            at += count as u64;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::gguf::{Header, Patience, parse};
    use super::*;
    use std::fs::OpenOptions;
    use std::path::{Path, PathBuf};

    fn tiny() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny/tiny-e2b-q8_0.gguf")
    }

    fn header(file: &File) -> Header {
        let length = file.metadata().unwrap().len();
        parse(file, length, Patience::default()).unwrap()
    }

    /// A copy of the tiny model that can be written.
    fn copy(folder: &Path, name: &str) -> File {
        let path = folder.join(name);
        std::fs::copy(tiny(), &path).unwrap();
        let mut options = OpenOptions::new();
        options.read(true).write(true).open(path).unwrap()
    }

    fn flip(file: &File, at: u64) {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[!byte[0]], at).unwrap();
    }

    #[test]
    fn other_bytes_under_the_same_name_size_and_time_are_another_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = copy(folder.path(), "model.gguf");
        let header = header(&file);
        let opened = |file: &File| (file.try_clone().unwrap(), file.metadata().unwrap());
        let print = || of(&[opened(&file)], header.tensors()).unwrap();
        let before = print();
        assert_eq!(print(), before);
        // Each of several files counts, in its place.
        let second = copy(folder.path(), "second.gguf");
        let both = |files: [&File; 2]| of(&files.map(opened), header.tensors()).unwrap();
        assert_ne!(both([&file, &second]), before);
        assert_ne!(both([&file, &second]), both([&second, &file]));
        let time = file.metadata().unwrap().modified().unwrap();
        // A byte that no sample would have.
        let tensor = &header.tensors()[7];
        flip(&file, tensor.offset + tensor.bytes / 2);
        file.set_modified(time).unwrap();
        assert_ne!(print(), before);
    }

    #[test]
    fn every_tensor_counts_where_contents_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (copy(folder.path(), "one"), copy(folder.path(), "two"));
        let header = header(&one);
        let print = |file: &File| {
            let mut hash = Sha256::new();
            let length = file.metadata().unwrap().len();
            add_contents(&mut hash, file, 0..length, header.tensors()).unwrap();
            hash.finalize()
        };
        let before = print(&one);
        assert_eq!(print(&two), before);
        for tensor in header.tensors() {
            let at = tensor.offset + tensor.bytes - 1;
            flip(&two, at);
            assert_ne!(print(&two), before, "{}", tensor.name);
            flip(&two, at);
        }
        assert_eq!(print(&two), before);
        // As a part, its places are counted from its own start.
        let moved: Vec<_> = header
            .tensors()
            .iter()
            .cloned()
            .map(|mut one| {
                one.offset += 1000;
                one
            })
            .collect();
        let mut hash = Sha256::new();
        add_contents(&mut hash, &two, 1000..u64::MAX, &moved).unwrap();
        assert_eq!(hash.finalize(), before);
        let mut nothing = Sha256::new();
        add_contents(&mut nothing, &two, 0..1000, &moved).unwrap();
        assert_eq!(nothing.finalize(), Sha256::new().finalize());
        two.set_len(header.data_start).unwrap();
        assert!(add_contents(&mut Sha256::new(), &two, 0..u64::MAX, header.tensors()).is_err());
    }
}
