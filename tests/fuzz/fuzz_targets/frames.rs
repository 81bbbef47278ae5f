//! What a worker of each kind sends, against anything that one may send which was taken over: it is no
//! frame, or it is an event, and no other one once it is written again.
#![no_main]

use std::fmt::Debug;

use gemmad::ipc::frame::{self, Decoder};
use gemmad::ipc::{Decode, Extract, Fetch, Greeting, Protocol, Pull, Serve};
use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, sent)) = bytes.split_first() else { return };
    match kind % 5 {
        0 => read::<Serve>(*kind, sent),
        1 => read::<Extract>(*kind, sent),
        2 => read::<Decode>(*kind, sent),
        3 => read::<Fetch>(*kind, sent),
        _ => read::<Pull>(*kind, sent),
    }
});

/// Reads what was sent as the supervisor does, in pieces of a length that `kind` says.
fn read<P: Protocol>(kind: u8, sent: &[u8])
where
    P::Event: Debug + Serialize,
{
    let mut greeting = Decoder::with_limit(P::LARGEST_EVENT);
    greeting.feed(sent);
    let _ = greeting.next::<Greeting>();
    let mut decoder = Decoder::with_limit(P::LARGEST_EVENT);
    for piece in sent.chunks(usize::from(kind / 4) + 1) {
        decoder.feed(piece);
        loop {
            match decoder.next::<P::Event>() {
                Ok(Some(event)) => check(&event),
                Ok(None) => break,
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    return;
                }
            }
        }
    }
}

fn check<E: Debug + Serialize + DeserializeOwned>(event: &E) {
    let mut frame = vec![];
    frame::encode(event, &mut frame).unwrap();
    let mut decoder = Decoder::new();
    decoder.feed(&frame);
    let again = decoder.next::<E>().unwrap();
    assert_eq!(format!("{again:?}"), format!("{:?}", Some(event)));
}
