//! The decoding of sounds against anything that a client may call one.
#![no_main]

use gemmad::gemma;
use gemmad::gemma::sound::{FRAME, MAX_SAMPLES};
use libfuzzer_sys::fuzz_target;

#[path = "../../../src/worker/decode/sound/mod.rs"]
mod sound;
mod careful;

use careful::careful;

fuzz_target!(|bytes: &[u8]| {
    let _ = sound::memory(bytes);
    match sound::samples(bytes) {
        Ok(samples) => {
            assert!((FRAME..=MAX_SAMPLES).contains(&samples.len()));
            assert!(samples.iter().all(|sample| sample.is_finite()));
        }
        Err(reason) => assert!(reason.len() < 500),
    }
});
