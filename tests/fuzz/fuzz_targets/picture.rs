//! The decoding of pictures against anything that a client may call one.
#![no_main]

use gemmad::gemma::picture::{BUDGETS, budget, size};
use gemmad::{chat, gemma, ipc};
use libfuzzer_sys::fuzz_target;

#[allow(dead_code, reason = "the worker uses more of it than this target")]
#[path = "../../../src/worker/decode/picture/mod.rs"]
mod picture;
mod careful;

use careful::careful;

/// As in the worker.
const OWN_MEMORY: u64 = 16 << 20;

fuzz_target!(|bytes: &[u8]| {
    let Ok((width, height)) = picture::dimensions(bytes) else { return };
    assert!(width.max(height) <= picture::MAX_SIDE && u64::from(width) * u64::from(height) <= picture::MAX_PIXELS);
    if picture::memory(bytes, chat::Detail::Low).is_err() { return };
    let shown = size(width, height, budget(chat::Detail::Low, width, height));
    assert!(shown.tokens() <= BUDGETS[0]);
    if let Ok(pixels) = picture::pixels(bytes, shown) {
        assert_eq!(pixels.rgb.len(), (shown.width * shown.height * 3) as usize);
    }
});
