//! Which slot answers a request, and how much of what it has read before may stay. Pure.

use super::sequence::Sequence;

/// A slot as the choice sees it.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// What its sequence holds.
    pub held: &'a Sequence,
    /// The oldest position that its sliding layers still have; `None` when it holds nothing.
    pub oldest: Option<u32>,
    /// Larger is later.
    pub last_used: u64,
}

/// The slot to use and the tokens in it to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    pub slot: usize,
    pub keep: usize,
}

/// Chooses among the free slots. A slot whose kept part is at least half of the prompt, or of what
/// the slot holds, goes on with it (the longest first); else an empty slot is taken, and else the
/// least recently used, so that a request that shares no more than a greeting does not push out
/// someone's long conversation. `None` when no slot is free.
pub fn choose<'a>(
    free: impl Iterator<Item = (usize, Candidate<'a>)>,
    prompt: &Sequence,
    window: u32,
    reuse: bool,
) -> Option<Choice> {
    free.map(|(slot, candidate)| {
        let keep = if reuse {
            keep(&candidate, prompt, window)
        } else {
            0
        };
        let fits = keep > 0 && (2 * keep >= prompt.len() || 2 * keep >= candidate.held.len());
        let rank = if fits {
            (2, keep as u64)
        } else {
            (u8::from(candidate.held.is_empty()), 0)
        };
        (
            rank,
            std::cmp::Reverse(candidate.last_used),
            Choice { slot, keep },
        )
    })
    .max_by_key(|&(rank, last_used, choice)| (rank, last_used, std::cmp::Reverse(choice.slot)))
    .map(|(_, _, choice)| choice)
}

/// Tokens at the start of a slot that `prompt` shares and that can be gone on from. The prompt's
/// last token is never among them: it must be computed for its logits.
///
/// Sliding layers forget what is older than their window, except for some that they happen to have
/// left. To compute position `keep` they need everything from `keep - window` on.
fn keep(candidate: &Candidate<'_>, prompt: &Sequence, window: u32) -> usize {
    let common = candidate.held.common(prompt);
    let keep = prompt.whole(common.min(prompt.len().saturating_sub(1)));
    let needed = keep.saturating_sub(window as usize);
    match candidate.oldest {
        Some(oldest) if oldest as usize <= needed => keep,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::super::llama::Token;
    use super::*;

    fn tokens(range: std::ops::Range<i32>) -> Vec<Token> {
        range.collect()
    }

    fn pick(
        slots: &[(&[Token], Option<u32>, u64)],
        prompt: &[Token],
        reuse: bool,
    ) -> (usize, usize) {
        let sequence = |tokens: &[Token]| Sequence {
            tokens: tokens.to_vec(),
            media: vec![],
        };
        let held: Vec<Sequence> = slots.iter().map(|(tokens, ..)| sequence(tokens)).collect();
        let candidate = |i: usize| Candidate {
            held: &held[i],
            oldest: slots[i].1,
            last_used: slots[i].2,
        };
        let choice = choose(
            (0..slots.len()).map(|i| (i, candidate(i))),
            &sequence(prompt),
            10,
            reuse,
        )
        .unwrap();
        (choice.slot, choice.keep)
    }

    #[test]
    fn the_longest_prefix_wins() {
        let (short, long) = (tokens(0..10), tokens(0..20));
        assert_eq!(
            pick(
                &[(&short, Some(0), 9), (&long, Some(0), 1), (&[], None, 0)],
                &tokens(0..30),
                true
            ),
            (1, 20)
        );
    }

    #[test]
    fn one_token_is_always_computed() {
        let same = tokens(0..20);
        assert_eq!(pick(&[(&same, Some(0), 1)], &same, true), (0, 19));
        assert_eq!(pick(&[(&same, Some(0), 1)], &same[..1], true), (0, 0));
    }

    #[test]
    fn what_the_sliding_layers_forgot_cannot_be_gone_back_to() {
        let held = tokens(0..100);
        // Position 50 needs 40 and later.
        let mut prompt = tokens(0..50);
        prompt.push(-1);
        assert_eq!(pick(&[(&held, Some(40), 1)], &prompt, true), (0, 50));
        assert_eq!(pick(&[(&held, Some(41), 1)], &prompt, true), (0, 0));
    }

    #[test]
    fn a_greeting_in_common_pushes_nobody_out() {
        let (other, older) = (tokens(0..100), tokens(0..50));
        let mut prompt = tokens(0..3);
        prompt.extend(tokens(500..600));
        assert_eq!(
            pick(&[(&other, Some(0), 1), (&[], None, 7)], &prompt, true),
            (1, 0)
        );
        // Without an empty slot the least recently used goes, and what it shares is still used.
        assert_eq!(
            pick(&[(&other, Some(0), 2), (&older, Some(0), 1)], &prompt, true),
            (1, 3)
        );
    }

    #[test]
    fn half_of_the_prompt_or_half_of_the_slot_is_enough() {
        let held = tokens(0..100);
        let mut prompt = tokens(0..20);
        prompt.extend(tokens(500..515));
        assert_eq!(
            pick(&[(&held, Some(0), 9), (&[], None, 0)], &prompt, true),
            (0, 20)
        );
        let mut prompt = tokens(0..60);
        prompt.extend(tokens(500..900));
        assert_eq!(
            pick(&[(&held, Some(0), 9), (&[], None, 0)], &prompt, true),
            (0, 60)
        );
    }

    #[test]
    fn without_the_cache_nothing_is_kept_and_an_empty_slot_is_preferred() {
        let held = tokens(0..20);
        assert_eq!(
            pick(&[(&held, Some(0), 1), (&[], None, 5)], &held, false),
            (1, 0)
        );
        assert_eq!(pick(&[(&held, Some(0), 1)], &held, false), (0, 0));
    }

    #[test]
    fn another_picture_is_another_prompt() {
        let shown = |digest: u8| {
            let mut sequence = Sequence {
                tokens: tokens(0..10),
                media: vec![],
            };
            sequence.insert([digest; 32], 99, 30);
            sequence.tokens.extend(tokens(0..5));
            sequence
        };
        let (held, same, other) = (shown(1), shown(1), shown(2));
        let pick = |prompt| {
            choose(
                [(
                    0,
                    Candidate {
                        held: &held,
                        oldest: Some(0),
                        last_used: 1,
                    },
                )]
                .into_iter(),
                prompt,
                100,
                true,
            )
            .unwrap()
            .keep
        };
        assert_eq!(pick(&same), 44);
        assert_eq!(pick(&other), 10);
    }

    #[test]
    fn no_free_slot_is_no_choice() {
        assert_eq!(
            choose(std::iter::empty(), &Sequence::default(), 10, true),
            None
        );
    }
}
