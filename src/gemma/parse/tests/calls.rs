//! Function calls: whole, lost and cut off.

use super::*;

#[test]
fn calls_stand_anywhere() {
    for (model, thought, text, calls) in [
        (
            "<|tool_call>call:f{a:1}<tool_call|>",
            "",
            "",
            &[("f", r#"{"a":1}"#)][..],
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
fn a_broken_call_leaves_nothing_to_the_next() {
    let bytes = |bytes: &[u8]| Piece::Bytes(bytes.to_vec());
    let written = [
        Piece::Control(marker::TOOL_CALL),
        // No value begins like this; then a character begins.
        bytes(b"call:f{b:\x9b\xd2"),
        Piece::Control(marker::TOOL_CALL_END),
        Piece::Control(marker::TOOL_CALL),
        bytes(b"call:g{}"),
        Piece::Control(marker::TOOL_CALL_END),
    ];
    let (mut parser, mut tracker) = (Parser::new(vec![], false), AnswerTracker::new(false));
    let mut out = vec![];
    for piece in &written {
        let step = tracker.take(piece.token());
        parser.push(piece.token(), step, None, &mut out);
    }
    let name = |event: &ChatEvent| match event {
        ChatEvent::CallStarted { name } => Some(name.clone()),
        _ => None,
    };
    assert_eq!(out.iter().filter_map(name).collect::<Vec<_>>(), ["f", "g"]);
    assert_eq!(out.last(), Some(&ChatEvent::CallEnded));
}
