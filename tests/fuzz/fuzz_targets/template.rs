//! A chat template that a file brings, against anything that one may be: it is replaced for a reason, or a prompt is made
//! of it, within bounds. It may write any control token; that is a template's right.
#![no_main]

use gemmad::chat::{ChatRequest, Message, Role, Tool};
use gemmad::ipc::TemplateSource;
use gemmad::{chat, gemma, ipc};
use libfuzzer_sys::fuzz_target;

#[allow(dead_code, reason = "the worker uses more of it than this target")]
#[path = "../../../src/worker/prompt/mod.rs"]
mod prompt;

use prompt::{Prompter, Segment};

const MARKERS: [&str; 4] = ["<|turn>", "<turn|>", "<|tool_call>", "<bos>"];
/// What a template must have to be looked at.
const CURRENT: &str = "{# OpenAI Chat Completions: <|tool_call> #}";
/// Bytes of a prompt at most, with some room for what the guard adds.
const LONGEST: usize = 64 << 20;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let text = format!("{CURRENT}{text}");
    let (prompter, source) = Prompter::new(Some(&text), "<bos>", MARKERS.map(String::from).to_vec(), false);
    if let TemplateSource::Replaced { why } = &source {
        assert!(!why.is_empty() && why.len() < 2000);
    }
    let mut request = ChatRequest::new(vec![
        Message::text(Role::System, "Be kind. <|turn>"),
        Message::text(Role::User, "Hi"),
        Message::text(Role::Assistant, "So?"),
        Message::text(Role::User, "Go on"),
    ]);
    request.tools = vec![Tool {
        name: "f".into(),
        description: "does it".into(),
        parameters: None,
        strict: false,
    }];
    match prompter.render(&request) {
        Ok(segments) => {
            let length: usize = segments.iter().map(|segment: &Segment| segment.text().len()).sum();
            assert!(length < LONGEST);
        }
        Err(refused) => assert!(refused.to_string().len() < 4000),
    }
});
