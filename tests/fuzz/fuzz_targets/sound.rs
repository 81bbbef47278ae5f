//! The decoding of sounds against anything that a client may call one.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[allow(dead_code, reason = "the daemon uses more of it than this target")]
#[path = "../../../src/gemma/sound.rs"]
pub mod gemma_sound;
mod gemma {
    pub use super::gemma_sound as sound;
}
#[path = "../../../src/worker/decode/sound/mod.rs"]
mod sound;
mod careful;

use careful::careful;
use gemma::sound::{FRAME, MAX_SAMPLES};

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
