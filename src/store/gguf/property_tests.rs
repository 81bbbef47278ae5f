//! What holds of every header, whatever was done to it.

use proptest::prelude::*;

use super::tests::rich;
use super::*;

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
