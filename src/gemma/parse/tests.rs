use super::*;
use crate::gemma::tracker::AnswerTracker;

mod calls;
mod logprobs;
mod properties;
mod text;

/// What an answer adds up to.
#[derive(Debug, Default, PartialEq)]
struct Answer {
    text: String,
    thought: String,
    calls: Vec<(String, String)>,
    logprobs: Vec<Vec<u8>>,
    stopped: bool,
    cut_call: bool,
    reasoning_tokens: u32,
}

/// A token that outlives its parser.
#[derive(Clone, Debug)]
enum Piece {
    Control(&'static str),
    Bytes(Vec<u8>),
}

impl Piece {
    fn token(&self) -> Token<'_> {
        match self {
            Self::Control(text) => Token::Control(text),
            Self::Bytes(bytes) => Token::Bytes(bytes),
        }
    }

    fn logprob(&self) -> TokenLogprob {
        let bytes = match self {
            Self::Control(text) => text.as_bytes().to_vec(),
            Self::Bytes(bytes) => bytes.clone(),
        };
        TokenLogprob {
            bytes,
            logprob: -1.0,
            top: vec![],
        }
    }
}

const MARKERS: [&str; 9] = [
    marker::CHANNEL,
    marker::CHANNEL_END,
    marker::TOOL_CALL,
    marker::TOOL_CALL_END,
    marker::TOOL_RESPONSE,
    marker::QUOTE,
    marker::TURN,
    marker::TURN_END,
    "<|image>",
];

/// Real markers where the text spells them, everything else in tokens of `size` bytes.
fn pieces(text: &str, size: usize) -> Vec<Piece> {
    let (mut out, mut rest) = (vec![], text);
    let mut plain = vec![];
    while !rest.is_empty() {
        let found = MARKERS.iter().find(|m| rest.starts_with(**m));
        if let Some(marker) = found {
            out.extend(
                std::mem::take(&mut plain)
                    .chunks(size)
                    .map(|c| Piece::Bytes(c.to_vec())),
            );
            out.push(Piece::Control(marker));
            rest = &rest[marker.len()..];
        } else {
            plain.push(rest.as_bytes()[0]);
            let mut next = 1;
            while !rest.is_char_boundary(next) {
                plain.push(rest.as_bytes()[next]);
                next += 1;
            }
            rest = &rest[next..];
        }
    }
    out.extend(plain.chunks(size).map(|c| Piece::Bytes(c.to_vec())));
    out
}

fn run(pieces: &[Piece], stops: &[&str], in_thought: bool, end: End) -> Answer {
    let mut parser = Parser::new(stops.iter().map(|s| s.to_string()).collect(), in_thought);
    let mut tracker = AnswerTracker::new(in_thought);
    let (mut out, mut answer) = (vec![], Answer::default());
    for piece in pieces {
        let step = tracker.take(piece.token());
        answer.stopped =
            parser.push(piece.token(), step, Some(piece.logprob()), &mut out) == Progress::Stopped;
    }
    let summary = parser.finish(tracker.part(), end, &mut out);
    answer.cut_call = summary.cut_call;
    answer.reasoning_tokens = summary.reasoning_tokens;
    let mut ended = 0;
    for event in out {
        let logprobs = match event {
            ChatEvent::Text { text, logprobs } => {
                assert!(!text.is_empty() || !logprobs.is_empty());
                answer.text += &text;
                logprobs
            }
            ChatEvent::Thought { text, logprobs } => {
                assert!(!text.is_empty());
                answer.thought += &text;
                logprobs
            }
            ChatEvent::CallStarted { name } => {
                answer.calls.push((name, String::new()));
                vec![]
            }
            ChatEvent::CallArguments { json } => {
                assert!(!json.is_empty());
                answer.calls.last_mut().unwrap().1 += &json;
                vec![]
            }
            ChatEvent::CallEnded => {
                ended += 1;
                vec![]
            }
            other => panic!("{other:?}"),
        };
        answer
            .logprobs
            .extend(logprobs.into_iter().map(|l| l.bytes));
    }
    assert_eq!(summary.called, ended > 0);
    // One that has no end was cut off or lost.
    assert!(ended == answer.calls.len() || summary.cut_call);
    answer.calls.truncate(ended);
    answer
}

/// The same for every token size, thought, text and calls alone.
fn parse(
    text: &str,
    stops: &[&str],
    end: End,
) -> (String, String, Vec<(String, String)>, bool, bool) {
    let answers = [1, 2, 3, 7, 1000].map(|size| {
        let a = run(&pieces(text, size), stops, false, end);
        (a.thought, a.text, a.calls, a.stopped, a.cut_call)
    });
    assert!(
        answers.iter().all(|a| *a == answers[0]),
        "{text}: {answers:?}"
    );
    answers.into_iter().next().unwrap_or_default()
}
