use std::time::Duration;

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
        drafter: tally(0, 0),
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

/// What a token beyond the first adds to a step, and what a guess of a drafter takes, in steps of one token.
const EACH: f64 = 0.2;
const DRAFT: f64 = 0.06;

/// Steps that a token of an answer takes, and guesses of a drafter; `chance`: that the guess of a token is
/// right, if all before it are.
fn with_drafter(
    costs: &mut Costs,
    tokens: i32,
    chance: impl Fn(i32) -> f64,
    random: &mut impl FnMut() -> f64,
) -> (f64, usize) {
    let mut speculator = Speculator::new(Speculation::Auto, vec![]);
    speculator.expect(costs);
    let (mut time, mut said, mut guessed) = (0.0, 0, 0);
    while said < tokens {
        let tried = speculator.worth(costs, true);
        let guesses: Vec<Token> = speculator.proposal().take(tried).collect();
        let step = 1.0 + EACH * tried as f64;
        costs.learn(tried + 1, Duration::from_secs_f64(step));
        let mut fresh = vec![];
        verify(tried, |right| {
            // Nothing is said twice.
            let token = said;
            said += 1;
            speculator.take(&[], token);
            fresh.push(token);
            ((), guesses.get(right) == Some(&token))
        });
        speculator.drawn(&fresh, tried);
        speculator.propose(&[]);
        let drafts = speculator.draft(costs, true, |goes_on| {
            let mut token = said;
            let mut guess = || {
                token += 1;
                let is_right = random() < chance(token - 1);
                if is_right { token - 1 } else { -1 }
            };
            while goes_on(Guess {
                token: guess(),
                chance: 0.9,
            }) {}
        });
        let drafting = DRAFT * drafts as f64;
        costs.learn_draft(drafts, Duration::from_secs_f64(drafting));
        (time, guessed) = (time + step + drafting, guessed + drafts);
    }
    speculator.teach(costs);
    (time / f64::from(said), guessed)
}

/// Numbers from 0 to 1.
fn random() -> impl FnMut() -> f64 {
    let mut state = 1u64;
    move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) as f64 / f64::from(1u32 << 31)
    }
}

#[test]
fn a_drafter_gains_where_it_is_right_and_is_left_alone_where_it_is_not() {
    let mut random = random();
    for (chance, most) in [
        (0.0, 1.01),
        (0.1, 1.01),
        (0.2, 1.01),
        (0.4, 1.0),
        // The best there is are 0.84, 0.78, 0.65, 0.6 and 0.42.
        (0.5, 0.93),
        (0.6, 0.82),
        (0.75, 0.69),
        (0.8, 0.64),
        (0.95, 0.45),
    ] {
        let mut costs = Costs::default();
        let answers = (0..20).map(|_| with_drafter(&mut costs, 400, |_| chance, &mut random));
        let answers: Vec<_> = answers.collect();
        let pace = answers.iter().map(|(pace, _)| pace).sum::<f64>() / 20.0;
        println!("{chance}: {pace}");
        assert!(pace < most, "{chance}: {pace} {answers:?}");
        let guesses: usize = answers.iter().skip(1).map(|(_, guesses)| guesses).sum();
        assert!(chance > 0.0 || guesses < 19 * 400 / 30, "{answers:?}");
    }
}

/// Prose and quotations within one answer, and of one answer after the other.
#[test]
fn a_drafter_that_is_right_by_turns_gains_and_costs_little() {
    let mut random = random();
    for (length, most) in [(20, 1.0), (60, 0.96), (200, 0.9)] {
        let mut costs = Costs::default();
        let chance = |token: i32| if token / length % 2 == 0 { 0.0 } else { 0.85 };
        let paces = (0..20).map(|_| with_drafter(&mut costs, 400, chance, &mut random).0);
        let pace = paces.sum::<f64>() / 20.0;
        println!("{length}: {pace}");
        assert!(pace < most, "{length}: {pace}");
    }
    let mut costs = Costs::default();
    let paces = (0..200).map(|answer| {
        let chance = if answer % 10 == 0 { 0.8 } else { 0.05 };
        with_drafter(&mut costs, 60, |_| chance, &mut random).0
    });
    let pace = paces.sum::<f64>() / 200.0;
    println!("a mixed day: {pace}");
    assert!(pace < 1.0, "{pace}");
}

#[test]
fn nothing_is_drafted_where_it_is_not_wanted() {
    let asked = |mode, is_alone, costs: &Costs| {
        let mut speculator = Speculator::new(mode, vec![]);
        let mut token = 0;
        let ask = |goes_on: &mut dyn FnMut(Guess) -> bool| {
            while goes_on(Guess { token, chance: 1.0 }) {
                token += 1;
            }
        };
        let count = speculator.draft(costs, is_alone, ask);
        assert_eq!(count, speculator.proposal().count());
        count
    };
    let new = Costs::default();
    let mut known = Costs::default();
    known.learn(1, Duration::from_secs(1));
    assert_eq!(asked(Speculation::Off, true, &known), 0);
    assert_eq!(asked(Speculation::On, false, &new), ALWAYS_DRAFTED);
    assert_eq!(asked(Speculation::Auto, true, &new), 0);
    assert_eq!(asked(Speculation::Auto, false, &known), 0);
    assert!((2..=MOST).contains(&asked(Speculation::Auto, true, &known)));
    // What was looked up is better, and takes no time.
    let mut speculator = Speculator::new(Speculation::Auto, (0..MOST as Token).collect());
    speculator.propose(&[]);
    assert_eq!(speculator.draft(&known, true, |_| panic!("asked")), 0);
}
