//! What a worker of each kind sends, and what one that serves says of prompts, against anything that one may send which
//! was taken over: it is no frame, or it is an event, and no other one once it is written again.
#![no_main]

use std::fmt::Debug;

use gemmad::ipc::frame::{self, Decoder};
use gemmad::ipc::prompts::{self, PromptRequest};
use gemmad::ipc::{Decode, Extract, Fetch, Greeting, Protocol, Pull, Relay, Serve};
use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, sent)) = bytes.split_first() else { return };
    match kind % 7 {
        0 => read::<Serve>(*kind, sent),
        1 => read::<Extract>(*kind, sent),
        2 => read::<Decode>(*kind, sent),
        3 => read::<Fetch>(*kind, sent),
        4 => read::<Pull>(*kind, sent),
        5 => read::<Relay>(*kind, sent),
        _ => read_prompts(sent),
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
    for piece in sent.chunks(usize::from(kind / 6) + 1) {
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

/// Reads the channel of kept prompts, where the bytes of states follow a message.
fn read_prompts(mut sent: &[u8]) {
    while let Ok(Some(request)) = prompts::receive::<PromptRequest>(&mut sent) {
        check(&request);
        if let PromptRequest::Keep { prefix, .. } = request {
            let bytes = prefix.bytes().and_then(|bytes| usize::try_from(bytes).ok());
            let Some(rest) = bytes.and_then(|bytes| sent.get(bytes..)) else { return };
            sent = rest;
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
