//! Packed weights that an earlier worker has left, which may have been taken over: what the file says of itself is
//! within the file, or it is not used.
#![no_main]

use std::cell::OnceCell;
use std::fs::File;
use std::os::unix::fs::FileExt;

use gemmad::sys;
use libfuzzer_sys::fuzz_target;

#[allow(dead_code, reason = "the worker uses more of it than this target")]
#[path = "../../../src/worker/packed.rs"]
mod packed;

use packed::{Contents, Key, Unusable};

/// Bytes before the footer.
const BUFFER: usize = 4096;
const MAGIC: &[u8; 8] = b"GEMPACK1";

thread_local! {
    static FILE: OnceCell<File> = const { OnceCell::new() };
}

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    // As a footer whose sum is right, behind this file's key.
    let mut footer = postcard::to_stdvec(&key()).unwrap();
    footer.extend_from_slice(bytes);
    let mut file = vec![0; BUFFER];
    file.extend_from_slice(&footer);
    file.extend_from_slice(&(footer.len() as u32).to_le_bytes());
    file.extend_from_slice(&crc32fast::hash(&footer).to_le_bytes());
    file.extend_from_slice(MAGIC);
    check(&file);
});

fn key() -> Key {
    Key { model: [1; 32], packing: "x".into() }
}

fn check(bytes: &[u8]) {
    FILE.with(|file| {
        let file = file.get_or_init(|| File::from(rustix::fs::memfd_create("packed", rustix::fs::MemfdFlags::CLOEXEC).unwrap()));
        file.set_len(0).unwrap();
        file.write_all_at(bytes, 0).unwrap();
        match packed::open(file.try_clone().unwrap(), &key()) {
            Ok(found) => {
                let Contents { bytes: length, sums, .. } = found.contents;
                assert!(length <= bytes.len() as u64);
                assert_eq!(sums.len() as u64, length.div_ceil(packed::CHUNK as u64));
            }
            Err(Unusable::Io(error)) => panic!("{error}"),
            Err(why) => assert!(!why.to_string().is_empty()),
        }
    });
}
