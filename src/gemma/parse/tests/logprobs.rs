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
