use super::*;
use crate::chat::{Sampling, Tally};
use crate::worker::llama::{Allowed, Candidates, Sampler};

/// Tokens of a small vocabulary.
const WORDS: usize = 6;

/// A model that goes by the last two tokens.
fn row(last: [Token; 2]) -> Vec<f32> {
    let [a, b] = last.map(|token| token as usize);
    (0..WORDS)
        .map(|next| ((a * 7 + b * 3 + next * 5) % 11) as f32 / 4.0)
        .collect()
}

/// How often each token followed each two.
type Counts = Vec<[u64; WORDS]>;

fn place(last: [Token; 2]) -> usize {
    last[0] as usize * WORDS + last[1] as usize
}

/// Draws 100,000 tokens, several in a step where `mode` has it so.
fn draws(mode: Speculation, seed: u32, sampling: &Sampling) -> (Counts, Drafted, Vec<Token>) {
    let mut sampler = Sampler::new(sampling, seed, WORDS).unwrap();
    let mut room = Candidates::new(WORDS);
    let mut speculator = Speculator::new(mode, vec![1, 2, 3]);
    let (mut answer, mut counts) = (vec![0, 0], vec![[0; WORDS]; WORDS * WORDS]);
    while answer.len() < 100_000 {
        // A window is enough to look through.
        let prompt: Vec<Token> = answer[answer.len().saturating_sub(40)..].to_vec();
        speculator.lookup = Lookup::default();
        speculator.propose(&prompt);
        let guesses: Vec<Token> = speculator.proposal().collect();
        let mut fresh = vec![];
        let (right, ()) = verify(guesses.len(), |right| {
            let last = [answer[answer.len() - 2], answer[answer.len() - 1]];
            let allowed = Allowed::Except(&[]);
            let token = sampler.sample(&row(last), allowed, &[], &mut room).unwrap();
            counts[place(last)][token as usize] += 1;
            answer.push(token);
            fresh.push(token);
            ((), guesses.get(right) == Some(&token))
        });
        assert_eq!(fresh.len(), right + 1);
        speculator.drawn(&fresh, guesses.len());
    }
    answer.truncate(100_000);
    (counts, speculator.drafted(), answer)
}

/// The chi-square statistic of two samples, and its degrees of freedom.
fn chi_square(one: &Counts, other: &Counts) -> (f64, f64) {
    let (mut sum, mut freedom) = (0.0, 0.0);
    for (a, b) in one.iter().zip(other) {
        let (of_a, of_b) = (a.iter().sum::<u64>() as f64, b.iter().sum::<u64>() as f64);
        let mut cells = 0.0;
        for (&a, &b) in a.iter().zip(b).filter(|(a, b)| **a + **b > 0) {
            let all = (a + b) as f64;
            let expected = [of_a, of_b].map(|of| all * of / (of_a + of_b));
            for (seen, expected) in [a, b].into_iter().zip(expected) {
                sum += (seen as f64 - expected).powi(2) / expected;
            }
            cells += 1.0;
        }
        freedom += f64::max(cells - 1.0, 0.0);
    }
    (sum, freedom)
}

#[test]
fn what_is_drawn_has_the_same_distribution() {
    for sampling in [
        Sampling::default(),
        Sampling {
            top_k: 3,
            top_p: 1.0,
            ..Sampling::default()
        },
        Sampling {
            top_p: 1.0,
            temperature: 1.5,
            frequency_penalty: 0.2,
            ..Sampling::default()
        },
    ] {
        let (plain, none, _) = draws(Speculation::Off, 1, &sampling);
        let (tried, drafted, _) = draws(Speculation::On, 2, &sampling);
        assert_eq!(none, Drafted::default());
        let Tally { accepted, rejected } = drafted.lookup;
        assert!(accepted > 10_000 && rejected > 10_000, "{drafted:?}");
        let (sum, freedom) = chi_square(&plain, &tried);
        // Five standard deviations above the mean.
        let most = freedom + 5.0 * (2.0 * freedom).sqrt();
        assert!(sum < most, "{sum} of {freedom} degrees");
        // What would be seen if it were another.
        let warmer = Sampling {
            temperature: sampling.temperature * 1.2,
            ..sampling.clone()
        };
        let (other, ..) = draws(Speculation::Off, 3, &warmer);
        let (sum, _) = chi_square(&plain, &other);
        assert!(sum > most, "{sum}: the test sees nothing");
    }
}

#[test]
fn the_same_seed_draws_the_same() {
    let sampling = Sampling::default();
    let (.., plain) = draws(Speculation::Off, 5, &sampling);
    let (.., tried) = draws(Speculation::On, 5, &sampling);
    assert_eq!(plain, tried);
}

#[test]
fn what_was_right_is_counted_by_its_source() {
    let mut speculator = Speculator::new(Speculation::On, vec![]);
    speculator.propose_allowed(&[1, 2, 3, 4], 2);
    assert_eq!(speculator.worth(&Costs::default(), false), 4);
    // Three of them were tried; the third is another.
    speculator.drawn(&[1, 2, 9], 3);
    assert_eq!(speculator.proposal().count(), 0);
    let tally = |accepted, rejected| Tally { accepted, rejected };
    let mut drafted = Drafted {
        forced: tally(2, 0),
        lookup: tally(0, 1),
    };
    assert_eq!(speculator.drafted(), drafted);
    // What is left is what may come next.
    speculator.propose_allowed(&[1, 2, 3, 4], 4);
    speculator.drawn(&[1, 2], 1);
    assert_eq!(speculator.proposal().collect::<Vec<_>>(), [3, 4]);
    speculator.taken_without(3);
    assert_eq!(speculator.proposal().collect::<Vec<_>>(), [4]);
    drafted.forced = tally(4, 0);
    assert_eq!(speculator.drafted(), drafted);
    // An answer that ended before its guesses were held against it.
    speculator.propose_allowed(&[1, 2, 3], 0);
    speculator.drawn(&[1], 2);
    drafted.lookup = tally(0, 3);
    assert_eq!(speculator.drafted(), drafted);
}

#[test]
fn nothing_is_tried_where_that_is_off_or_others_run() {
    let mut costs = Costs::default();
    costs.learn(1, std::time::Duration::from_millis(70));
    for (mode, alone, together) in [
        (Speculation::Off, 0, 0),
        (Speculation::Auto, 3, 0),
        (Speculation::On, 3, 3),
    ] {
        let mut speculator = Speculator::new(mode, vec![5, 6, 7]);
        speculator.propose(&[]);
        assert_eq!(speculator.worth(&costs, true), alone, "{mode:?}");
        assert_eq!(speculator.worth(&costs, false), together, "{mode:?}");
        assert_eq!(speculator.ahead(false) > 0, mode == Speculation::On);
    }
}
