//! Which sequence of the cache answers a request, and how much of what it holds is reused. Pure.

use super::{From, SequenceState};
use crate::chat::PrincipalId;
use crate::worker::sequence::Sequence;

/// A free sequence.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// What the cache holds of it.
    pub cached: &'a Sequence,
    /// The first position that its sliding layers still have; `None` when it is empty.
    pub first_position: Option<u32>,
    /// A place to which they can be brought back: the tokens before it.
    pub checkpoint: Option<usize>,
    /// Whose request filled it.
    pub owner: Option<PrincipalId>,
    /// Larger is later.
    pub last_used: u64,
}

impl<'a> Candidate<'a> {
    pub fn of(state: &SequenceState<'a>) -> Self {
        Self {
            cached: state.cached,
            first_position: state.first_position,
            checkpoint: state.checkpoint,
            owner: state.owner,
            last_used: state.last_used,
        }
    }
}

/// What was fetched for a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FetchedState {
    /// Tokens of the prompt to which it brings a sequence.
    pub tokens: usize,
    /// Tokens that the sequence holds on the way there: of the whole conversation that was kept.
    pub whole: usize,
}

/// What a sequence is chosen for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    pub prompt: &'a Sequence,
    /// Whose sequences it may go on from; `None`: nobody's.
    pub owner: Option<PrincipalId>,
    /// Tokens of the prompt to which a state brings it that was fetched; 0 without one.
    pub fetched: usize,
}

/// The sequence for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    pub sequence: usize,
    /// Tokens of the prompt that are there already.
    pub reuse: usize,
    pub from: From,
}

/// Chooses among the free sequences. One whose reusable part is at least half of the prompt, or of what
/// it holds, goes on with it (the longest first), unless what was fetched is longer; else an empty one
/// is taken, and else the least recently used, so that a request that shares no more than a greeting
/// does not push out someone's long conversation. `None` when none is free.
///
/// Only what requests of the owner left is reused: how fast a prompt is read, and how much of it was
/// cached, would tell everyone what others have asked.
pub fn choose<'a>(
    free: impl Iterator<Item = (usize, Candidate<'a>)>,
    wanted: &Wanted<'_>,
    window: u32,
) -> Option<Choice> {
    let Wanted {
        prompt,
        owner,
        fetched,
    } = *wanted;
    free.map(|(sequence, candidate)| {
        let (reuse, from) = if owner.is_some() && candidate.owner == owner {
            reusable(&candidate, prompt, window)
        } else {
            (0, From::Sequence)
        };
        let fits = reuse > 0 && (2 * reuse >= prompt.len() || 2 * reuse >= candidate.cached.len());
        let (rank, reuse, from) = if fits && reuse >= fetched {
            ((2, reuse as u64), reuse, from)
        } else if fetched > reuse {
            let is_empty = u8::from(candidate.cached.is_empty());
            ((is_empty, 0), fetched, From::Fetched)
        } else {
            let is_empty = u8::from(candidate.cached.is_empty());
            ((is_empty, 0), reuse, from)
        };
        (
            rank,
            std::cmp::Reverse(candidate.last_used),
            Choice {
                sequence,
                reuse,
                from,
            },
        )
    })
    .max_by_key(|&(rank, last_used, choice)| (rank, last_used, std::cmp::Reverse(choice.sequence)))
    .map(|(_, _, choice)| choice)
}

/// Tokens at the start of a sequence that `prompt` shares and that can be reused, and how. The prompt's
/// last token is never among them: it must be computed for its logits.
///
/// Sliding layers forget what is older than their window, except for some that they happen to have
/// left. To compute position `reuse` they need everything from `reuse - window` on; else they can be
/// brought back to their checkpoint.
pub fn reusable(candidate: &Candidate<'_>, prompt: &Sequence, window: u32) -> (usize, From) {
    let common = candidate.cached.common(prompt);
    let reuse = prompt.whole(common.min(prompt.len().saturating_sub(1)));
    let needed = reuse.saturating_sub(window as usize);
    match (candidate.first_position, candidate.checkpoint) {
        (Some(first_position), _) if first_position as usize <= needed => (reuse, From::Sequence),
        (Some(_), Some(checkpoint)) if checkpoint <= reuse => (checkpoint, From::Checkpoint),
        _ => (0, From::Sequence),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gemma::vocabulary::Token;

    const ANNA: PrincipalId = PrincipalId::User(1000);
    const BEN: PrincipalId = PrincipalId::User(1001);

    fn tokens(range: std::ops::Range<i32>) -> Vec<Token> {
        range.collect()
    }

    fn pick(
        sequences: &[(&[Token], Option<u32>, u64)],
        prompt: &[Token],
        may_reuse: bool,
    ) -> (usize, usize) {
        let sequence = |tokens: &[Token]| Sequence {
            tokens: tokens.to_vec(),
            media: vec![],
        };
        let cached: Vec<Sequence> = sequences
            .iter()
            .map(|(tokens, ..)| sequence(tokens))
            .collect();
        let candidate = |i: usize| Candidate {
            cached: &cached[i],
            first_position: sequences[i].1,
            checkpoint: None,
            owner: Some(ANNA),
            last_used: sequences[i].2,
        };
        let choice = choose(
            (0..sequences.len()).map(|i| (i, candidate(i))),
            &Wanted {
                prompt: &sequence(prompt),
                owner: may_reuse.then_some(ANNA),
                fetched: 0,
            },
            10,
        )
        .unwrap();
        (choice.sequence, choice.reuse)
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
        let cached = tokens(0..100);
        // Position 50 needs 40 and later.
        let mut prompt = tokens(0..50);
        prompt.push(-1);
        assert_eq!(pick(&[(&cached, Some(40), 1)], &prompt, true), (0, 50));
        assert_eq!(pick(&[(&cached, Some(41), 1)], &prompt, true), (0, 0));
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
    fn half_of_the_prompt_or_half_of_the_sequence_is_enough() {
        let cached = tokens(0..100);
        let mut prompt = tokens(0..20);
        prompt.extend(tokens(500..515));
        assert_eq!(
            pick(&[(&cached, Some(0), 9), (&[], None, 0)], &prompt, true),
            (0, 20)
        );
        let mut prompt = tokens(0..60);
        prompt.extend(tokens(500..900));
        assert_eq!(
            pick(&[(&cached, Some(0), 9), (&[], None, 0)], &prompt, true),
            (0, 60)
        );
    }

    #[test]
    fn without_the_cache_nothing_is_kept_and_an_empty_one_is_preferred() {
        let cached = tokens(0..20);
        assert_eq!(
            pick(&[(&cached, Some(0), 1), (&[], None, 5)], &cached, false),
            (1, 0)
        );
        assert_eq!(pick(&[(&cached, Some(0), 1)], &cached, false), (0, 0));
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
        let (cached, same, other) = (shown(1), shown(1), shown(2));
        let pick = |prompt| {
            choose(
                [(
                    0,
                    Candidate {
                        cached: &cached,
                        first_position: Some(0),
                        checkpoint: None,
                        owner: Some(ANNA),
                        last_used: 1,
                    },
                )]
                .into_iter(),
                &Wanted {
                    prompt,
                    owner: Some(ANNA),
                    fetched: 0,
                },
                100,
            )
            .unwrap()
            .reuse
        };
        assert_eq!(pick(&same), 44);
        assert_eq!(pick(&other), 10);
    }

    #[test]
    fn what_others_left_is_not_there() {
        let sequence = Sequence {
            tokens: tokens(0..20),
            media: vec![],
        };
        let candidate = |owner| Candidate {
            cached: &sequence,
            first_position: Some(0),
            checkpoint: None,
            owner,
            last_used: 1,
        };
        let reuse = |left: Option<PrincipalId>, asks| {
            let free = [(0, candidate(left))].into_iter();
            let wanted = Wanted {
                prompt: &sequence,
                owner: asks,
                fetched: 0,
            };
            choose(free, &wanted, 10).unwrap().reuse
        };
        let container = PrincipalId::SubUser {
            uid: 100_000,
            owner: 1000,
        };
        assert_eq!(reuse(Some(ANNA), Some(ANNA)), 19);
        for other in [BEN, container] {
            assert_eq!(reuse(Some(ANNA), Some(other)), 0);
            assert_eq!(reuse(Some(other), Some(ANNA)), 0);
        }
        assert_eq!(reuse(None, None), 0);
    }

    #[test]
    fn no_free_sequence_is_no_choice() {
        assert_eq!(
            choose(
                std::iter::empty(),
                &Wanted {
                    prompt: &Sequence::default(),
                    owner: Some(ANNA),
                    fetched: 0,
                },
                10
            ),
            None
        );
    }

    #[test]
    fn sliding_layers_are_brought_back_to_their_checkpoint() {
        let cached = Sequence {
            tokens: tokens(0..100),
            media: vec![],
        };
        let candidate = |checkpoint, first_position| Candidate {
            cached: &cached,
            first_position: Some(first_position),
            checkpoint: Some(checkpoint),
            owner: Some(ANNA),
            last_used: 1,
        };
        let mut prompt = Sequence {
            tokens: tokens(0..50),
            media: vec![],
        };
        prompt.tokens.push(-1);
        for (checkpoint, first_position, reused) in [
            (45, 80, (45, From::Checkpoint)),
            (50, 80, (50, From::Checkpoint)),
            (51, 80, (0, From::Sequence)),
            (45, 40, (50, From::Sequence)),
        ] {
            let candidate = candidate(checkpoint, first_position);
            assert_eq!(reusable(&candidate, &prompt, 10), reused);
        }
    }

    #[test]
    fn what_was_fetched_takes_the_place_of_what_is_of_least_use() {
        let (short, long) = (tokens(0..10), tokens(0..20));
        let sequence = |tokens: &[Token]| Sequence {
            tokens: tokens.to_vec(),
            media: vec![],
        };
        let (short, long, none) = (sequence(&short), sequence(&long), Sequence::default());
        let prompt = sequence(&tokens(0..30));
        let candidate = |cached, last_used| Candidate {
            cached,
            first_position: Some(0),
            checkpoint: None,
            owner: Some(ANNA),
            last_used,
        };
        let choose = |fetched, free: &[Candidate<'_>]| {
            let wanted = Wanted {
                prompt: &prompt,
                owner: Some(ANNA),
                fetched,
            };
            let free = free.iter().copied().enumerate();
            let choice = choose(free, &wanted, 10).unwrap();
            (choice.sequence, choice.reuse, choice.from)
        };
        let free = [
            candidate(&short, 1),
            candidate(&long, 2),
            candidate(&none, 0),
        ];
        assert_eq!(choose(25, &free), (2, 25, From::Fetched));
        assert_eq!(choose(25, &free[..2]), (0, 25, From::Fetched));
        assert_eq!(choose(20, &free), (1, 20, From::Sequence));
    }
}
