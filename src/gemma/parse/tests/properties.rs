//! What holds for every answer, however it is cut into tokens.

use proptest::prelude::*;

use super::*;

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
        // The tokens around a thought are neither thought nor text.
        let thinks = |piece: &Piece| matches!(piece, Piece::Control(marker::CHANNEL | marker::CHANNEL_END));
        prop_assert!(one.logprobs.len() <= pieces.len());
        if !one.stopped && !in_thought && !pieces.iter().any(thinks) {
            prop_assert_eq!(one.logprobs.len(), pieces.len());
        }
        for (_, arguments) in &one.calls {
            prop_assert!(serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(arguments).is_ok());
        }
    }
}
