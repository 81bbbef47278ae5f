//! What holds of every header, whatever was done to it.

use std::cell::Cell;
use std::io;

use proptest::prelude::*;

use super::tests::rich;
use super::*;

/// Bytes of a file, and what was read of them.
struct Counting<'a> {
    bytes: &'a [u8],
    /// From here on the file has nothing any more, however long it is said to be.
    end: usize,
    reads: Cell<u64>,
    read: Cell<u64>,
}

impl Source for Counting<'_> {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let read = (&self.bytes[..self.end]).read_at(buffer, position)?;
        self.reads.set(self.reads.get() + 1);
        self.read.set(self.read.get() + read as u64);
        Ok(read)
    }
}

/// The header of the tiny model, which is as long as its first tensor's place says.
fn tiny() -> Vec<u8> {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/models/tiny/tiny-e2b-q8_0.gguf"
    );
    let mut bytes = std::fs::read(path).unwrap();
    let end = super::tests::whole(&bytes).unwrap().data_start;
    bytes.truncate(end as usize);
    bytes
}

/// Reads a header that ends too early or was changed; returns how much work that was.
fn work(bytes: &[u8], end: usize, length: u64) -> (u64, u64) {
    let source = Counting {
        bytes,
        end: end.min(bytes.len()),
        reads: Cell::default(),
        read: Cell::default(),
    };
    if let Ok(header) = parse(&source, length, Patience::default()) {
        for (key, value) in header.metadata() {
            let _ = (header.per_layer(key).is_ok(), value.kind());
        }
    }
    (source.reads.get(), source.read.get())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// However a real header is cut and changed, it is read in windows, each behind the one before:
    /// what lies across an edge is read twice, and nothing for what a number only claims.
    #[test]
    fn cuts_and_flips_are_read_within_a_bound_of_work(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..24),
        cut in any::<prop::sample::Index>(),
        is_cut in any::<bool>(),
        longer in prop_oneof![Just(0), Just(1 << 40), Just(u64::MAX / 2)],
    ) {
        let mut bytes = tiny();
        for (place, byte) in flips {
            *place.get_mut(&mut bytes) = byte;
        }
        let end = if is_cut { cut.index(bytes.len()) } else { bytes.len() };
        let (reads, read) = work(&bytes, end, bytes.len() as u64 + longer);
        prop_assert!(read <= 2 * bytes.len() as u64, "{read} of {} bytes", bytes.len());
        // A window is read in one go and, where the file ends too early, once more.
        prop_assert!(reads <= 2 * (2 + read / (64 << 10)), "{reads} reads of {read} bytes");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens to a header, its reader returns, and what it accepts holds.
    #[test]
    fn mutations_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![any::<u8>(), Just(0), Just(255)]), 1..6),
        removed in prop::option::of((any::<prop::sample::Index>(), 1usize..16)),
        length in prop_oneof![any::<u64>(), Just(u64::MAX), 0u64..2048],
    ) {
        let mut bytes = rich().bytes();
        for (place, byte) in changes {
            *place.get_mut(&mut bytes) = byte;
        }
        if let Some((place, count)) = removed {
            let start = place.index(bytes.len());
            bytes.drain(start..(start + count).min(bytes.len()));
        }
        for length in [bytes.len() as u64, length.max(bytes.len() as u64)] {
            match parse(&&bytes[..], length, Patience::default()) {
                Ok(header) => {
                    for tensor in header.tensors() {
                        prop_assert!(tensor.offset.checked_add(tensor.bytes).unwrap() <= length);
                        prop_assert_eq!(tensor.offset % u64::from(header.alignment), 0);
                    }
                }
                Err(error) => prop_assert!(error.to_string().len() < 1000),
            }
        }
    }
}
