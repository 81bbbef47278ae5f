//! The decoding of sounds against anything that a client may call one.
#![no_main]

use gemmad::gemma::sound::{FRAME, MAX_SAMPLES};
use gemmad::{gemma, ipc};
use libfuzzer_sys::fuzz_target;

#[allow(dead_code, reason = "the worker uses more of it than this target")]
#[path = "../../../src/worker/decode/sound/mod.rs"]
mod sound;
mod careful;

use careful::careful;

fuzz_target!(|bytes: &[u8]| {
    let _ = sound::claims(bytes);
    // From the start, and from where each piece ended.
    let mut from = Some(ipc::SoundPlace::default());
    while let Some(place) = from.take() {
        let heard = sound::listen(bytes, place, MAX_SAMPLES, |piece| {
            assert!((FRAME..=MAX_SAMPLES).contains(&piece.samples.len()));
            assert!(piece.samples.iter().all(|sample| sample.is_finite()));
            from = piece.next;
            Ok(std::ops::ControlFlow::Break(()))
        });
        if let Err(reason) = heard {
            assert!(reason.len() < 500);
        }
    }
});
