//! The form of a transcription against anything that a client may send: it is a request, or it is refused by a reason.
#![no_main]

use gemmad::api::readers;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    if let Err(refused) = readers::transcription("x", body) {
        assert!(!refused.reason.is_empty());
    }
});
