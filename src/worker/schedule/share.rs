//! How the tokens of one batch are shared out among the sequences. Pure.

/// What a sequence could use in the next batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// Nothing: no request, or a medium or a mask that is not there yet comes next.
    Nothing,
    /// The one token that was sampled last.
    Decode,
    /// This many tokens of prompt.
    Prompt(usize),
}

/// Tokens for each sequence, `batch` in all at most. Sequences that decode come first, with one
/// token each, so a long prompt holds no answer up for more than a step; prompts share the rest
/// evenly, and what a short one leaves goes to the others.
pub fn share(demands: &[Demand], batch: usize) -> Vec<usize> {
    let mut shares = vec![0; demands.len()];
    let mut left = batch;
    for (share, demand) in shares.iter_mut().zip(demands) {
        if *demand == Demand::Decode && left > 0 {
            *share = 1;
            left -= 1;
        }
    }
    let mut prompts: Vec<(usize, usize)> = demands
        .iter()
        .enumerate()
        .filter_map(|(i, demand)| match demand {
            Demand::Prompt(tokens) if *tokens > 0 => Some((i, *tokens)),
            _ => None,
        })
        .collect();
    // The shortest first: what it leaves is shared by the longer ones behind it.
    prompts.sort_by_key(|&(i, tokens)| (tokens, i));
    let mut waiting = prompts.len();
    for (i, tokens) in prompts {
        // Rounded up, so that the first of several gets the odd token and a batch of one is not
        // wasted.
        let share = tokens.min(left.div_ceil(waiting));
        shares[i] = share;
        left -= share;
        waiting -= 1;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use Demand::{Decode, Nothing, Prompt};
    use proptest::prelude::*;

    #[test]
    fn answers_come_before_prompts() {
        assert_eq!(
            share(&[Prompt(1000), Decode, Nothing, Decode], 128),
            [126, 1, 0, 1]
        );
    }

    #[test]
    fn prompts_share_evenly() {
        assert_eq!(
            share(&[Prompt(1000), Prompt(1000), Decode], 129),
            [64, 64, 1]
        );
        assert_eq!(
            share(&[Prompt(1000), Prompt(10), Prompt(1000)], 128),
            [59, 10, 59]
        );
        assert_eq!(share(&[Prompt(5), Prompt(7)], 128), [5, 7]);
    }

    #[test]
    fn a_batch_of_one_still_moves() {
        assert_eq!(share(&[Prompt(5), Prompt(7)], 1), [1, 0]);
    }

    fn demand() -> impl Strategy<Value = Demand> {
        prop_oneof![Just(Nothing), Just(Decode), (0usize..5000).prop_map(Prompt)]
    }

    proptest! {
        #[test]
        fn never_too_much_and_never_idle_while_there_is_work(demands in prop::collection::vec(demand(), 0..20), batch in 1usize..600) {
            let shares = share(&demands, batch);
            let asked: usize = demands.iter().map(|demand| match demand { Nothing => 0, Decode => 1, Prompt(tokens) => *tokens }).sum();
            prop_assert_eq!(shares.iter().sum::<usize>(), asked.min(batch));
            for (share, demand) in shares.iter().zip(&demands) {
                match demand {
                    Nothing => prop_assert_eq!(*share, 0),
                    Decode => prop_assert!(*share <= 1),
                    Prompt(tokens) => prop_assert!(share <= tokens),
                }
            }
        }
    }
}
