//! The GGUF header reader against anything that a file may hold.
#![no_main]

use std::hint::black_box;

use gemmad::store::gguf;
use libfuzzer_sys::fuzz_target;

/// Long enough for the tensors of a model whose header alone is the seed.
const LONG: u64 = 1 << 40;

fuzz_target!(|bytes: &[u8]| {
    check(bytes, bytes.len() as u64);
    check(bytes, LONG);
});

fn check(bytes: &[u8], length: u64) {
    let header = match gguf::parse(&bytes, length, gguf::Patience::default()) {
        Ok(header) => header,
        Err(error) => {
            assert!(error.to_string().len() < 2000, "an error as long as the file");
            return;
        }
    };
    assert!(header.alignment.is_power_of_two());
    let mut ranges: Vec<_> = header.tensors().iter().map(|tensor| (tensor.offset, tensor.bytes)).collect();
    ranges.sort_unstable();
    for (offset, bytes) in &ranges {
        assert!(*offset >= header.data_start && offset.checked_add(*bytes).is_some_and(|end| end <= length));
        assert_eq!(offset % u64::from(header.alignment), 0);
    }
    assert!(ranges.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0), "tensors overlap");
    for (key, value) in header.metadata() {
        assert_eq!(header.value(key).map(|found| found.kind()), Some(value.kind()), "a key is there twice");
        let _ = black_box((header.u32(key), header.u64(key), header.f32(key), header.bool(key), header.str(key)));
        if let Ok(Some(gguf::PerLayer::Each(list))) = header.per_layer(key) {
            let count = list.count as u32;
            let layers = gguf::PerLayer::Each(list);
            assert!((0..count).all(|layer| layers.layer(layer).is_some()) && layers.layer(count).is_none());
        }
    }
}
