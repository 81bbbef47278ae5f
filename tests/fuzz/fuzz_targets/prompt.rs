//! The chat template and the guard against anything that a client may say: no text of a client's becomes
//! a control token, wherever in a conversation it stands.
#![no_main]

use std::cell::OnceCell;

use gemmad::chat::{ChatRequest, Message, Role, Tool};
use gemmad::{chat, gemma, ipc};
use libfuzzer_sys::fuzz_target;

#[allow(dead_code, reason = "the worker uses more of it than this target")]
#[path = "../../../src/worker/prompt/mod.rs"]
mod prompt;

use prompt::{Prompter, Segment};

/// Every token that is found by its spelling in a Gemma 4 vocabulary.
const MARKERS: [&str; 24] = [
    "<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<|tool>", "<tool|>", "<|tool_call>", "<tool_call|>", "<|tool_response>",
    "<tool_response|>", "<|\"|>", "<|think|>", "<|channel>", "<channel|>", "<|turn>", "<turn|>", "<|image>", "<|audio>",
    "<|image|>", "<|audio|>", "<image|>", "<audio|>", "<|video|>",
];
/// What stands in a text's place to be compared with.
const HARMLESS: &str = "x";

thread_local! {
    static PROMPTER: OnceCell<Prompter> = const { OnceCell::new() };
}

fuzz_target!(|bytes: &[u8]| {
    let Some((place, text)) = bytes.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    PROMPTER.with(|prompter| {
        let markers = || MARKERS.map(String::from).to_vec();
        let prompter = prompter.get_or_init(|| Prompter::new(None, "<bos>", markers(), false).0);
        let Some(theirs) = control_tokens(prompter, *place, text) else { return };
        assert_eq!(Some(theirs), control_tokens(prompter, *place, HARMLESS), "{text:?}");
    });
});

/// How often each control token is in the prompt of a conversation that has this text at a place.
/// `None` if the template refuses it.
fn control_tokens(prompter: &Prompter, place: u8, text: &str) -> Option<Vec<usize>> {
    let asked = Message::text(Role::User, "Hello");
    let mut request = match place % 5 {
        0 => ChatRequest::new(vec![Message::text(Role::User, text)]),
        1 => ChatRequest::new(vec![Message::text(Role::System, text), asked]),
        2 => {
            let mut thoughtful = Message::text(Role::Assistant, "Hm");
            thoughtful.reasoning = Some(text.to_owned());
            ChatRequest::new(vec![asked, thoughtful, Message::text(Role::User, "So?")])
        }
        3 => ChatRequest::new(vec![asked, Message::text(Role::User, text)]),
        _ => ChatRequest::new(vec![asked]),
    };
    if place % 5 == 4 {
        request.tools = vec![Tool {
            name: "f".into(),
            description: text.to_owned(),
            parameters: None,
            strict: false,
        }];
    }
    let segments = prompter.render(&request).ok()?;
    let markup = segments.iter().filter(|segment| matches!(segment, Segment::Markup(_)));
    let markup: Vec<_> = markup.map(Segment::text).collect();
    let count = |marker: &&str| markup.iter().map(|text| text.matches(marker).count()).sum();
    Some(MARKERS.iter().map(|marker| count(&marker)).collect())
}
