use super::*;
use crate::gemma::tracker::AnswerTracker;
use proptest::prelude::*;

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

#[test]
fn shapes() {
    for (model, thought, text, calls) in [
        ("Hello", "", "Hello", &[][..]),
        ("", "", "", &[]),
        ("<|channel>thought\n<channel|>Hi", "", "Hi", &[]),
        (
            "<|channel>thought\nI see.\n<channel|>Hi",
            "I see.",
            "Hi",
            &[],
        ),
        (
            "<|channel>thought\n\n two \n\n<channel|>\nHi \n",
            "\n two \n",
            "\nHi \n",
            &[],
        ),
        ("<|channel>no name<channel|>Hi", "no name", "Hi", &[]),
        (
            "<|channel>thoughtful\n<channel|>Hi",
            "thoughtful",
            "Hi",
            &[],
        ),
        ("<|channel>thought<channel|>Hi", "", "Hi", &[]),
        (
            "before<|channel>thought\na\n<channel|>after",
            "a",
            "beforeafter",
            &[],
        ),
        (
            "<|channel>thought\na\n<|channel>thought\nb\n<channel|>c",
            "a\nb",
            "c",
            &[],
        ),
        (
            "<|channel>thought\nnever closed\n",
            "never closed\n",
            "",
            &[],
        ),
        ("<|channel>tho", "", "", &[]),
        (
            "<channel|>Hi<|\"|><tool_call|><|image> there<|turn>",
            "",
            "Hi there",
            &[],
        ),
        ("<|channel>thought\na<|image>b<turn|>Hi", "ab", "Hi", &[]),
        (
            "<|tool_call>call:f{a:1}<tool_call|>",
            "",
            "",
            &[("f", r#"{"a":1}"#)],
        ),
        (
            "<|tool_call>call:f{}<tool_call|><|tool_call>call:g{}<tool_call|><|tool_response>",
            "",
            "",
            &[("f", "{}"), ("g", "{}")],
        ),
        (
            "a<|tool_call>call:f{s:<|\"|>x\n{}<|\"|>}<tool_call|>b",
            "",
            "ab",
            &[("f", r#"{"s":"x\n{}"}"#)],
        ),
        (
            "<|channel>thought\nI call\n<|tool_call>call:f{}<tool_call|>",
            "I call",
            "",
            &[("f", "{}")],
        ),
        ("<|tool_call>call:f{}<turn|>", "", "", &[("f", "{}")]),
        ("<|tool_call>call:f{}", "", "", &[("f", "{}")]),
    ] {
        let calls = calls
            .iter()
            .map(|(n, a)| (n.to_string(), a.to_string()))
            .collect();
        assert_eq!(
            parse(model, &[], End::Turn),
            (thought.to_string(), text.to_string(), calls, false, false),
            "{model}"
        );
    }
}

#[test]
fn text_that_spells_markers_is_text() {
    let spelled = "<|channel>thought\nx<channel|><|tool_call>call:f{}<tool_call|>";
    let answer = run(&[Piece::Bytes(spelled.into())], &[], false, End::Turn);
    assert_eq!(
        (answer.text.as_str(), answer.thought.as_str()),
        (spelled, "")
    );
    let quoted = [
        Piece::Control(marker::TOOL_CALL),
        Piece::Bytes(b"call:f{s:".to_vec()),
        Piece::Control(marker::QUOTE),
        Piece::Bytes(b"<tool_call|><|\"|>".to_vec()),
        Piece::Control(marker::QUOTE),
        Piece::Bytes(b"}".to_vec()),
        Piece::Control(marker::TOOL_CALL_END),
    ];
    assert_eq!(
        run(&quoted, &[], false, End::Turn).calls,
        [("f".to_string(), r#"{"s":"<tool_call|><|\"|>"}"#.to_string())]
    );
}

#[test]
fn what_is_no_call_is_lost_and_reported() {
    for (model, text, calls) in [
        ("<|tool_call>call:f{x<tool_call|>after", "after", &[][..]),
        ("<|tool_call>call:f{s:<|\"|>ü<tool_call|>a", "a", &[]),
        ("<|tool_call>call:f{<|channel>}<tool_call|>b", "b", &[]),
        ("<|tool_call>ca<|tool_call>call:f{}<tool_call|>", "", &["f"]),
        ("<|tool_call>never closed", "", &[]),
    ] {
        let (_, got, made, _, cut) = parse(model, &[], End::Turn);
        let made: Vec<String> = made.into_iter().map(|(name, _)| name).collect();
        assert_eq!(
            (got.as_str(), made, cut),
            (
                text,
                calls.iter().map(|name| name.to_string()).collect(),
                true
            ),
            "{model}"
        );
    }
}

#[test]
fn arguments_leave_as_they_come() {
    let (mut parser, mut tracker) = (Parser::new(vec![], false), AnswerTracker::new(false));
    let mut step = |token: Token<'_>| {
        let mut out = vec![];
        parser.push(token, tracker.take(token), None, &mut out);
        out
    };
    let json = |json: &str| vec![ChatEvent::CallArguments { json: json.into() }];
    assert_eq!(step(Token::Control(marker::TOOL_CALL)), []);
    assert_eq!(step(Token::Bytes(b"call:f")), []);
    assert_eq!(
        step(Token::Bytes(b"{te"))[0],
        ChatEvent::CallStarted { name: "f".into() }
    );
    assert_eq!(step(Token::Bytes(b"xt:")), json("\"text\":"));
    assert_eq!(step(Token::Control(marker::QUOTE)), json("\""));
    assert_eq!(step(Token::Bytes("a \"ü".as_bytes())), json("a \\\"ü"));
    assert_eq!(step(Token::Control(marker::QUOTE)), json("\""));
    assert_eq!(step(Token::Bytes(b",n:1")), json(",\"n\":"));
    assert_eq!(step(Token::Bytes(b"2}")), json("12}"));
    assert_eq!(
        step(Token::Control(marker::TOOL_CALL_END)),
        [ChatEvent::CallEnded]
    );
}

#[test]
fn a_call_cut_off_is_dropped_and_reported() {
    for model in [
        "a<|tool_call>",
        "a<|tool_call>call:f{s:<|\"|>x",
        "a<|tool_call>call:f{}",
    ] {
        assert_eq!(
            parse(model, &[], End::Cut),
            (String::new(), "a".into(), vec![], false, true),
            "{model}"
        );
    }
    assert!(!parse("<|tool_call>call:f{}<tool_call|>", &[], End::Cut).4);
}

#[test]
fn a_call_without_end_is_given_up_at_its_limit() {
    let mut model = pieces("<|tool_call>call:f{s:<|\"|>", 1000);
    model
        .extend((0..=crate::gemma::call::MAX_BYTES / 1000).map(|_| Piece::Bytes(vec![b'x'; 1000])));
    model.extend(pieces("<|\"|>}<tool_call|>after", 1000));
    let answer = run(&model, &[], false, End::Turn);
    assert!(answer.calls.is_empty() && answer.cut_call);
    assert_eq!(answer.text, "after");
}

#[test]
fn generation_that_begins_in_a_thought() {
    let answer = run(
        &pieces("thought\nis kept\n<channel|>Hi", 3),
        &[],
        true,
        End::Turn,
    );
    assert_eq!(
        (answer.thought.as_str(), answer.text.as_str()),
        ("thought\nis kept", "Hi")
    );
}

#[test]
fn stop_strings() {
    for (model, stops, text, stopped) in [
        ("one two three", &["two"][..], "one ", true),
        ("one two three", &["four", "three"], "one two ", true),
        ("one tw", &["two"], "one tw", false),
        ("aaab", &["aab"], "a", true),
        ("stop", &["stop"], "", true),
        (
            "<|channel>thought\nstop\n<channel|>go stop",
            &["stop"],
            "go ",
            true,
        ),
        ("st<|channel>thought\nx\n<channel|>op", &["stop"], "", true),
        ("größe: ü!", &["ü"], "größe: ", true),
    ] {
        let (_, got, _, was_stopped, _) = parse(model, stops, End::Turn);
        assert_eq!((got.as_str(), was_stopped), (text, stopped), "{model}");
    }
}

#[test]
fn reasoning_tokens() {
    let count = |model: &str, in_thought| {
        run(&pieces(model, 1), &[], in_thought, End::Turn).reasoning_tokens
    };
    assert_eq!(count("Hi", false), 0);
    assert_eq!(count("<|channel>thought\na\n<channel|>Hi", false), 12);
    assert_eq!(count("ab<channel|>Hi", true), 3);
    assert_eq!(
        count("<|channel>a<|tool_call>call:f{}<tool_call|>", false),
        2
    );
    assert_eq!(count("<tool_call|><channel|>", false), 0);
}

#[test]
fn logprobs_travel_with_their_text() {
    let mut parser = Parser::new(vec!["two".into()], false);
    let mut out = vec![];
    let logprob = |bytes: &[u8]| {
        Some(TokenLogprob {
            bytes: bytes.to_vec(),
            logprob: -0.5,
            top: vec![],
        })
    };
    let mut step = |bytes: &[u8]| {
        parser.push(
            Token::Bytes(bytes),
            AnswerStep::TEXT,
            logprob(bytes),
            &mut out,
        );
        out.drain(..)
            .map(|e| match e {
                ChatEvent::Text { text, logprobs } => (
                    text,
                    logprobs.into_iter().map(|l| l.bytes).collect::<Vec<_>>(),
                ),
                other => panic!("{other:?}"),
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(step(b"a"), [("a".to_string(), vec![b"a".to_vec()])]);
    assert_eq!(step(b" t"), [(" ".to_string(), vec![b" t".to_vec()])]);
    assert_eq!(step(b"w"), []);
    assert_eq!(step(b"\xC3"), []);
    assert_eq!(
        step(b"\xA4"),
        [(
            "twä".to_string(),
            vec![b"w".to_vec(), b"\xC3".to_vec(), b"\xA4".to_vec()]
        )]
    );
    assert_eq!(step(b"b tw"), [("b ".to_string(), vec![b"b tw".to_vec()])]);
    assert_eq!(step(b"o c"), []);
}

#[test]
fn no_logprob_is_lost() {
    let model = pieces(
        "a<|channel>thought\nx\n<channel|>b<|tool_call>call:f{}<tool_call|><|tool_response>",
        2,
    );
    let mut all: Vec<_> = model.iter().map(|p| p.logprob().bytes).collect();
    let mut got = run(&model, &["zz"], false, End::Turn).logprobs;
    all.sort();
    got.sort();
    assert_eq!(got, all);
}

fn soup() -> impl Strategy<Value = Vec<Piece>> {
    let words = prop::sample::select(vec![
        "thought\n",
        "call:f{",
        "a:",
        "1",
        "}",
        "\n",
        "stop",
        "ä😀",
        ",",
        "[",
        "st",
        "op",
    ]);
    let piece = prop_oneof![
        3 => prop::sample::select(MARKERS.to_vec()).prop_map(Piece::Control),
        4 => words.prop_map(|w| Piece::Bytes(w.into())),
        2 => prop::collection::vec(any::<u8>(), 0..5).prop_map(Piece::Bytes),
    ];
    prop::collection::vec(piece, 0..40)
}

/// Cuts the ordinary tokens anew, by the bits of `cuts`.
fn recut(pieces: &[Piece], cuts: &[bool]) -> Vec<Piece> {
    let mut cuts = cuts.iter().copied().cycle();
    let mut out: Vec<Piece> = vec![];
    for piece in pieces {
        match piece {
            Piece::Control(_) => out.push(piece.clone()),
            Piece::Bytes(bytes) => {
                for byte in bytes {
                    match out.last_mut() {
                        Some(Piece::Bytes(last)) if !cuts.next().unwrap_or(false) => {
                            last.push(*byte)
                        }
                        _ => out.push(Piece::Bytes(vec![*byte])),
                    }
                }
            }
        }
    }
    out
}

proptest! {
    #[test]
    fn token_boundaries_do_not_matter(
        pieces in soup(),
        cuts in prop::collection::vec(any::<bool>(), 1..20),
        in_thought: bool,
        cut: bool,
        with_stop: bool,
    ) {
        let end = if cut { End::Cut } else { End::Turn };
        let stops: &[&str] = if with_stop { &["stop", "p\n", "ä"] } else { &[] };
        let one = run(&pieces, stops, in_thought, end);
        let two = run(&recut(&pieces, &cuts), stops, in_thought, end);
        prop_assert_eq!(&one.text, &two.text);
        prop_assert_eq!(&one.thought, &two.thought);
        prop_assert_eq!(&one.calls, &two.calls);
        prop_assert_eq!(one.cut_call, two.cut_call);
        for stop in stops {
            prop_assert!(!one.text.contains(stop), "{} leaked in {}", stop, one.text);
        }
        if !one.stopped {
            prop_assert_eq!(one.logprobs.len(), pieces.len());
        }
        for (_, arguments) in &one.calls {
            prop_assert!(serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(arguments).is_ok());
        }
    }
}
