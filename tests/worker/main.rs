//! The worker, as the supervisor sees it: a process behind a socket that answers with a real model.

mod answers;
mod client;
mod clusters;
mod decoding;
mod forms;
mod lifecycle;
mod limits;
mod media;
mod pictures;
mod quantize;
mod residency;
mod schemas;
#[path = "../harness/skip.rs"]
mod skip;
mod slots;
mod sounds;
mod speculation;
mod speed;
mod text;

use gemmad::chat::{ChatRequest, OutputLimits};

fn limited(mut request: ChatRequest, output: OutputLimits) -> ChatRequest {
    request.output = output;
    request
}

const STORY: &str = "Tell me a story about Anna and a red dog.";

fn story() -> String {
    "Once upon a time there was a child called Anna. One day Anna went into the forest and found a red dog. The dog was hungry, so Anna \
     gave it some bread. From then on Anna and the red dog were best friends. They played every day, in summer and in winter, and they \
     were happy. The end."
        .into()
}
