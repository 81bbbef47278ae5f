//! What is computed ahead is what comes.

use std::cell::Cell;

use super::*;
use crate::worker::constraint::Mask;
use crate::worker::mask_thread::spell;

fn shown(mask: &Mask) -> (Vec<u32>, bool) {
    (mask.allowed.to_list(), mask.may_end)
}

/// Masks behind random tokens, also such as are not allowed, are those that come when the tokens have
/// come; and what comes after them is as if nothing had been looked at.
#[test]
fn masks_ahead_are_those_that_come() {
    let vocab = tiny();
    let (compiler, closing) = (compiler(vocab), closing(vocab, &["\"", "}", "]", "0", "1"]));
    let (looked, forced, single) = (Cell::new(0), Cell::new(0), Cell::new(0));
    let strategy = (schemas::parameters(&FORMATS), any::<u64>(), any::<bool>());
    runner(60)
        .run(&strategy, |(schema, seed, calls)| {
            let grammar = match calls {
                true => compiler.call(&[tool("f", &schema)]),
                false => compiler.format(&strictly(&schema)),
            };
            let Ok(grammar) = grammar else {
                return Ok(());
            };
            let Ok(walked) = try_walk(&grammar, vocab, seed, &closing) else {
                return Ok(());
            };
            let ends = |token: &Token| vocab.text(*token) == Some(marker::TOOL_CALL_END);
            let tokens: Vec<Token> = walked.tokens.into_iter().take_while(|t| !ends(t)).collect();
            let (mut plain, mut ahead) = (grammar.start(), grammar.start());
            let mut masks = vec![];
            for token in &tokens {
                masks.push(plain.take(&[*token]).unwrap());
            }
            let mut at = 0;
            while at < tokens.len() {
                // Some that come, and then one that does not.
                let right = (seed as usize >> (at % 13)) % 9;
                let guesses = &tokens[at + 1..(at + 1 + right).min(tokens.len())];
                let guesses: Vec<Token> = guesses.iter().copied().chain([1]).collect();
                let mask = ahead.take(&[tokens[at]]).unwrap();
                prop_assert_eq!(shown(&mask), shown(&masks[at]));
                let found = ahead
                    .look_ahead((tokens[at], mask), &guesses, 8, |bytes| spell(vocab, bytes))
                    .unwrap();
                prop_assert_eq!(found.masks.len(), found.tokens.len() + 1);
                prop_assert!(found.forced <= found.tokens.len() && found.tokens.len() <= 8);
                let comes = found.tokens.iter().zip(&tokens[at + 1..]);
                let same = comes.take_while(|(a, b)| a == b).count();
                for (i, mask) in found.masks.iter().enumerate().take(same + 1) {
                    prop_assert_eq!(shown(mask), shown(&masks[at + i]));
                    if let Some(only) = mask.single() {
                        single.set(single.get() + 1);
                        prop_assert!(tokens.get(at + i + 1).is_none_or(|token| *token == only));
                    }
                }
                looked.set(looked.get() + same);
                forced.set(forced.get() + found.forced);
                // As many tokens are taken at once as were seen.
                if same > 1 && at + same < tokens.len() {
                    let mask = ahead.take(&tokens[at + 1..at + same]).unwrap();
                    prop_assert_eq!(shown(&mask), shown(&masks[at + same - 1]));
                    at += same - 1;
                }
                at += 1;
            }
            Ok(())
        })
        .unwrap();
    let counts = (looked.get(), forced.get(), single.get());
    assert!(
        counts.0 > 500 && counts.1 > 200 && counts.2 > 20,
        "{counts:?}"
    );
}

/// Of an object with one property the beginning is forced.
#[test]
fn what_leaves_no_choice_is_spelled_out() {
    let vocab = tiny();
    let compiler = compiler(vocab);
    let schema = json!({"type": "object", "properties": {"state": {"const": "on"}}, "required": ["state"], "additionalProperties": false});
    let grammar = compiler.format(&strictly(&schema)).unwrap();
    let mut begun = vec![];
    vocab.tokenize("{\"", false, &mut begun);
    let mut running = grammar.start();
    let mask = running.take(&begun).unwrap();
    let ahead = running
        .look_ahead((begun[begun.len() - 1], mask), &[], 8, |bytes| {
            spell(vocab, bytes)
        })
        .unwrap();
    let text: Vec<u8> = ahead.tokens.iter().flat_map(|t| vocab.bytes(*t)).collect();
    let text = String::from_utf8(text).unwrap();
    assert!(
        text.starts_with("state") && ahead.forced == ahead.tokens.len(),
        "{text}"
    );
}
