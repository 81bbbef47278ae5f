//! Requests with pictures and sounds, and how alike two answers to them are.

use gemmad::chat::{ChatRequest, Message, OutputLimits, Part, Role};

use super::client::{Answer, chat};

pub fn text(text: &str) -> Part {
    Part::Text(text.into())
}

/// One token of answer, with the likeliest at its place.
pub fn asking(content: Vec<Part>) -> ChatRequest {
    let message = Message {
        content,
        ..Message::text(Role::User, "")
    };
    let output = OutputLimits {
        max_tokens: Some(1),
        ..OutputLimits::default()
    };
    ChatRequest {
        output,
        logprobs: Some(5),
        ..chat(vec![message])
    }
}

/// What the first token could have been, likeliest first.
fn rivals(answer: &Answer) -> Vec<f32> {
    assert_eq!(answer.error, None);
    answer.logprobs[0]
        .top
        .iter()
        .map(|(_, logprob)| *logprob)
        .collect()
}

/// The largest difference of what the first tokens could have been.
pub fn distance(a: &Answer, b: &Answer) -> f32 {
    rivals(a)
        .iter()
        .zip(rivals(b))
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max)
}
