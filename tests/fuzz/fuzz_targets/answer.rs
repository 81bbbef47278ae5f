//! What a model writes, token by token, against anything that it may write, for its prompts are not its users' alone:
//! thoughts, text and calls whose arguments are JSON, however the bytes are divided into tokens.
#![no_main]

use gemmad::chat::ChatEvent;
use gemmad::gemma::marker;
use gemmad::gemma::parse::{End, Parser, Progress};
use gemmad::gemma::tracker::{AnswerTracker, Token};
use libfuzzer_sys::fuzz_target;

const MARKERS: [&str; 8] = [
    marker::CHANNEL, marker::CHANNEL_END, marker::TOOL_CALL, marker::TOOL_CALL_END, marker::TOOL_RESPONSE, marker::QUOTE,
    marker::TURN, marker::TURN_END,
];
const STOP: &str = "stop";
/// Bytes below this are control tokens.
const CONTROLS: u8 = 8;

#[derive(Debug, Default, PartialEq)]
struct Called {
    name: String,
    arguments: String,
    is_whole: bool,
}

#[derive(Debug, Default, PartialEq)]
struct Answer {
    text: String,
    thought: String,
    calls: Vec<Called>,
}

fuzz_target!(|bytes: &[u8]| {
    let Some((how, written)) = bytes.split_first() else { return };
    let whole = read(*how, written, usize::MAX);
    assert_eq!(whole, read(*how, written, usize::from(how >> 4) + 1));
    assert!(how & 1 == 0 || !whole.text.contains(STOP));
    for call in whole.calls.iter().filter(|call| call.is_whole) {
        serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&call.arguments).unwrap();
    }
});

/// Reads an answer whose plain tokens have so many bytes at most.
fn read(how: u8, written: &[u8], size: usize) -> Answer {
    let stops = if how & 1 == 1 { vec![STOP.to_owned()] } else { vec![] };
    let in_thought = how & 2 == 2;
    let (mut parser, mut tracker) = (Parser::new(stops, in_thought), AnswerTracker::new(in_thought));
    let mut events = vec![];
    for run in written.chunk_by(|a, b| *a >= CONTROLS && *b >= CONTROLS) {
        let is_control = run[0] < CONTROLS;
        for piece in run.chunks(size.min(run.len())) {
            let token = if is_control { Token::Control(MARKERS[usize::from(run[0])]) } else { Token::Bytes(piece) };
            let step = tracker.take(token);
            if parser.push(token, step, None, &mut events) == Progress::Stopped {
                break;
            }
        }
    }
    let end = if how & 4 == 4 { End::Cut } else { End::Turn };
    parser.finish(tracker.part(), end, &mut events);
    add_up(events)
}

fn add_up(events: Vec<ChatEvent>) -> Answer {
    let mut answer = Answer::default();
    for event in events {
        match event {
            ChatEvent::Text { text, .. } => answer.text += &text,
            ChatEvent::Thought { text, .. } => answer.thought += &text,
            ChatEvent::CallStarted { name } => answer.calls.push(Called { name, ..Called::default() }),
            ChatEvent::CallArguments { json } => answer.calls.last_mut().unwrap().arguments += &json,
            ChatEvent::CallEnded => answer.calls.last_mut().unwrap().is_whole = true,
            other => panic!("{other:?}"),
        }
    }
    answer
}
