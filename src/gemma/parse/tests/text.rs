//! Thoughts, text and stop strings.

use super::*;

#[test]
fn thoughts_and_text_are_told_apart() {
    for (model, thought, text) in [
        ("Hello", "", "Hello"),
        ("", "", ""),
        ("<|channel>thought\n<channel|>Hi", "", "Hi"),
        ("<|channel>thought\nI see.\n<channel|>Hi", "I see.", "Hi"),
        (
            "<|channel>thought\n\n two \n\n<channel|>\nHi \n",
            "\n two \n",
            "\nHi \n",
        ),
        ("<|channel>no name<channel|>Hi", "no name", "Hi"),
        ("<|channel>thoughtful\n<channel|>Hi", "thoughtful", "Hi"),
        ("<|channel>thought<channel|>Hi", "", "Hi"),
        (
            "before<|channel>thought\na\n<channel|>after",
            "a",
            "beforeafter",
        ),
        (
            "<|channel>thought\na\n<|channel>thought\nb\n<channel|>c",
            "a\nb",
            "c",
        ),
        ("<|channel>thought\nnever closed\n", "never closed\n", ""),
        ("<|channel>tho", "", ""),
        (
            "<channel|>Hi<|\"|><tool_call|><|image> there<|turn>",
            "",
            "Hi there",
        ),
        ("<|channel>thought\na<|image>b<turn|>Hi", "ab", "Hi"),
    ] {
        assert_eq!(
            parse(model, &[], End::Turn),
            (thought.to_string(), text.to_string(), vec![], false, false),
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
