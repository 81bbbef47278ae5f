//! Log-probabilities leave with their text.

use super::*;

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

/// All but those of the tokens around a thought, which are neither thought nor text.
#[test]
fn no_logprob_is_lost() {
    let model = pieces(
        "a<|channel>thought\nx\n<channel|>b<|tool_call>call:f{}<tool_call|><|tool_response>",
        2,
    );
    let format = ["<|channel>", "th", "ou", "gh", "t\n", "<channel|>"];
    let mut all: Vec<_> = model.iter().map(|p| p.logprob().bytes).collect();
    all.retain(|bytes| !format.iter().any(|of| of.as_bytes() == bytes));
    let mut got = run(&model, &["zz"], false, End::Turn).logprobs;
    all.sort();
    got.sort();
    assert_eq!(got, all);
}

#[test]
fn the_text_has_no_token_of_a_thought() {
    for size in [1, 2, 3, 50] {
        let model = pieces("<|channel>thought\nhm hm\n<channel|>yes", size);
        let mut parser = Parser::new(vec![], false);
        let mut tracker = AnswerTracker::new(false);
        let (mut out, mut text, mut thought) = (vec![], vec![], vec![]);
        for piece in &model {
            let step = tracker.take(piece.token());
            parser.push(piece.token(), step, Some(piece.logprob()), &mut out);
        }
        parser.finish(tracker.part(), End::Turn, &mut out);
        for event in out {
            match event {
                ChatEvent::Text { logprobs, .. } => text.extend(logprobs),
                ChatEvent::Thought { logprobs, .. } => thought.extend(logprobs),
                other => panic!("{other:?}"),
            }
        }
        let bytes = |logprobs: Vec<TokenLogprob>| -> Vec<u8> {
            logprobs.into_iter().flat_map(|token| token.bytes).collect()
        };
        assert_eq!(bytes(text), b"yes", "{size}");
        let thought = String::from_utf8(bytes(thought)).unwrap();
        assert!(
            thought.contains("hm") && !thought.contains('<'),
            "{thought}"
        );
    }
}
