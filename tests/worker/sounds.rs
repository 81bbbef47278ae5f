//! Sounds as the worker reads them. What they say is another test's matter: these hold with any
//! projector.

use std::time::Duration;

use gemmad::chat::{ChatError, ChatRequest, Modality, Part, Sound};
use gemmad::gemma::sound::Hearing;
use gemmad::ipc::{LoadPlan, ServeRequest};

use super::client::{Worker, plan, user};
use super::decoding::decoded;
use super::media::{asking, distance, text};

const LOW: &[u8] = include_bytes!("../data/sounds/tone-1.wav");
const HIGH: &[u8] = include_bytes!("../data/sounds/tone-3.wav");

fn heard(file: &[u8]) -> Part {
    Part::Sound(Sound { file: file.into() })
}

fn about(file: &[u8]) -> ChatRequest {
    asking(vec![heard(file), text("What do you hear?")])
}

/// Tokens of a WAV file of 16 kHz, with the one before and the one behind them.
fn tokens(wav: &[u8]) -> u32 {
    Hearing::Spectrum.tokens((wav.len() - 44) / 2) as u32 + 2
}

#[test]
fn sounds_are_counted_compared_and_kept() {
    let mut worker = Worker::with_projector(&LoadPlan { slots: 1, ..plan() });
    let words = worker
        .ask(asking(vec![text("What do you hear?")]))
        .usage()
        .prompt_tokens;
    let low = worker.ask(about(LOW));
    assert_eq!(low.usage().prompt_tokens, words + tokens(LOW));
    // The same again: all but the last token is there already.
    let again = worker.ask(about(LOW));
    assert_eq!(again.usage().cached_tokens, words + tokens(LOW) - 1);
    assert!(distance(&low, &again) < 0.01, "{}", distance(&low, &again));
    let high = worker.ask(about(HIGH));
    assert!(high.usage().cached_tokens < 10, "{:?}", high.usage());
    assert!(
        distance(&low, &high) > 0.01,
        "the sound makes no difference"
    );
}

#[test]
fn a_sound_in_pieces_is_read_whole() {
    let mut whole = None;
    for batch in [512, 33, 16] {
        let mut worker = Worker::with_projector(&LoadPlan {
            slots: 1,
            batch,
            ..plan()
        });
        let low = worker.ask(about(LOW));
        let whole = whole.get_or_insert_with(|| low.clone());
        // What a batch holds changes the last digits, which add up over the layers.
        assert!(
            distance(whole, &low) < 0.1,
            "in pieces of {batch}: {}",
            distance(whole, &low)
        );
    }
}

#[test]
fn a_cancelled_sound_is_in_nobodys_way() {
    let mut worker = Worker::with_projector(&LoadPlan { slots: 1, ..plan() });
    let mut long = LOW[..44].to_vec();
    long.extend((0..29 * 32_000).map(|i| LOW[44 + i % (LOW.len() - 44)]));
    long[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    long[40..44].copy_from_slice(&u32::MAX.to_le_bytes());
    for wait in [0, 5, 40] {
        for _ in 0..3 {
            let id = worker.begin(about(&long));
            std::thread::sleep(Duration::from_millis(wait));
            worker.send(&ServeRequest::Cancel { id });
        }
    }
    assert_eq!(
        worker.ask(user("What is the capital of France?")).text,
        "The capital of France is Paris."
    );
    assert_eq!(
        worker.ask(about(&long)).usage().prompt_tokens,
        worker.ask(about(LOW)).usage().prompt_tokens - tokens(LOW) + 725 + 2
    );
}

#[test]
fn what_is_no_sound_is_refused_and_named() {
    for (file, reason) in [
        (&b"hello"[..], "is no WAV"),
        (&LOW[..20], "damaged"),
        (&LOW[..LOW.len() / 2], "cut off"),
    ] {
        match decoded(asking(vec![text("a"), heard(file)])).err() {
            Some(ChatError::Sound {
                message: 0,
                part: 1,
                reason: found,
            }) => assert!(found.contains(reason), "{found}"),
            other => panic!("{reason}: {other:?}"),
        }
    }
}

#[test]
fn a_model_without_ears_says_so() {
    let answer = Worker::tiny().ask(about(LOW));
    assert!(
        matches!(
            answer.error,
            Some(ChatError::UnsupportedModality {
                modality: Modality::Audio,
                ..
            })
        ),
        "{:?}",
        answer.error
    );
}
