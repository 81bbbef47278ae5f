use super::*;

const FEW: Source = Source::Lookup { same: 2 };

/// A machine on which a step of one token takes a second, and each beyond it so many.
struct Machine {
    costs: Costs,
    each: f64,
    time: f64,
    tokens: u32,
}

impl Machine {
    fn new(each: f64) -> Self {
        Self {
            costs: Costs::default(),
            each,
            time: 0.0,
            tokens: 0,
        }
    }

    /// Seconds for each token of what was said since the last call.
    fn pace(&mut self) -> f64 {
        let pace = self.time / f64::from(self.tokens);
        (self.time, self.tokens) = (0.0, 0);
        pace
    }

    /// One step in which eight tokens are guessed, of which the first `right` are right. Returns how many
    /// were tried.
    fn step(&mut self, rates: &mut Rates, source: Source, right: usize) -> usize {
        let tried = self
            .costs
            .worth(std::iter::repeat_n(rates.of(source), MOST));
        let seconds = 1.0 + self.each * tried as f64;
        self.costs
            .learn(tried + 1, Duration::from_secs_f64(seconds));
        let said = right.min(tried) + 1;
        // What was guessed is known to be right or wrong as far as the answer has come.
        for at in 0..said.min(MOST) {
            rates.learn(source, at < right);
            if at >= right {
                break;
            }
        }
        self.time += seconds;
        self.tokens += said as u32;
        tried
    }
}

/// Lengths of runs of right guesses where each is right with this chance.
fn runs(chance: f64, seed: u64) -> impl Iterator<Item = usize> {
    let mut state = seed;
    let mut random = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) as f64 / f64::from(1u32 << 31)
    };
    std::iter::from_fn(move || Some((0..MOST).take_while(|_| random() < chance).count()))
}

#[test]
fn nothing_is_tried_before_a_step_was_measured() {
    let mut costs = Costs::default();
    assert_eq!(costs.worth(std::iter::repeat_n(1.0, 8)), 0);
    costs.learn(1, Duration::from_millis(70));
    assert_eq!(costs.worth(std::iter::repeat_n(1.0, 8)), 8);
    assert_eq!(costs.worth(std::iter::repeat_n(1.0, 3)), 3);
    assert_eq!(costs.worth(std::iter::repeat_n(0.1, 8)), 0);
    assert_eq!(costs.worth(std::iter::empty()), 0);
}

#[test]
fn the_length_is_what_the_machine_and_the_guesses_are_good_for() {
    for (each, chance, lengths) in [
        (0.2, 0.95, 4..=8),
        (0.2, 0.6, 1..=3),
        (0.05, 0.6, 2..=6),
        (1.0, 0.9, 0..=0),
        (0.2, 0.1, 0..=0),
    ] {
        let (mut machine, mut rates) = (Machine::new(each), Rates::default());
        let mut tried = vec![];
        for right in runs(chance, 7).take(400) {
            tried.push(machine.step(&mut rates, FEW, right));
        }
        let late = &tried[200..];
        let usual = late.iter().filter(|tried| lengths.contains(*tried)).count();
        assert!(usual * 10 >= late.len() * 7, "{each} {chance}: {late:?}");
    }
}

#[test]
fn it_is_faster_where_guesses_are_right_and_never_much_slower() {
    // Seconds of a token beyond the first, the chance of a guess, and the pace at most.
    for (each, chance, most) in [
        (0.2, 0.95, 0.45),
        (0.2, 0.8, 0.65),
        (0.2, 0.6, 0.87),
        (0.2, 0.2, 1.02),
        (0.2, 0.0, 1.02),
        (0.6, 0.3, 1.02),
        (1.0, 0.5, 1.02),
        (1.0, 0.95, 1.02),
    ] {
        let (mut machine, mut rates) = (Machine::new(each), Rates::default());
        for right in runs(chance, 3).take(2000) {
            machine.step(&mut rates, FEW, right);
        }
        let pace = machine.pace();
        assert!(pace <= most, "{each} {chance}: {pace}");
    }
}

#[test]
fn a_mixed_day_is_not_slower() {
    // Prose, in which nothing is right, and now and then something that was said before.
    let mut machine = Machine::new(0.3);
    for answer in 0..200u64 {
        let mut rates = Rates::default();
        let chance = if answer % 10 == 0 { 0.9 } else { 0.05 };
        for right in runs(chance, answer).take(60) {
            machine.step(&mut rates, FEW, right);
        }
    }
    let pace = machine.pace();
    assert!(pace <= 1.0, "{pace}");
}

#[test]
fn it_stops_within_a_few_tokens_and_begins_again() {
    let (mut machine, mut rates) = (Machine::new(0.3), Rates::default());
    for right in runs(0.95, 1).take(100) {
        machine.step(&mut rates, FEW, right);
    }
    let tried: Vec<usize> = (0..12).map(|_| machine.step(&mut rates, FEW, 0)).collect();
    assert_eq!(tried[8..], [0; 4], "{tried:?}");
    let tried: Vec<usize> = (0..8)
        .map(|_| machine.step(&mut rates, FEW, MOST))
        .collect();
    assert!(tried[6] >= 3, "{tried:?}");
}

#[test]
fn a_step_that_was_slow_by_chance_is_forgotten() {
    let (mut machine, mut rates) = (Machine::new(0.2), Rates::default());
    machine.step(&mut rates, FEW, 0);
    for tokens in 2..10 {
        machine.costs.learn(tokens, Duration::from_secs(20));
    }
    for _ in 0..2000 {
        machine.step(&mut rates, FEW, MOST);
    }
    machine.pace();
    for _ in 0..100 {
        machine.step(&mut rates, FEW, MOST);
    }
    let pace = machine.pace();
    assert!(pace < 0.5, "{pace}");
}

#[test]
fn it_follows_a_machine_that_changes() {
    let (mut machine, mut rates) = (Machine::new(0.1), Rates::default());
    for right in runs(0.8, 1).take(300) {
        machine.step(&mut rates, FEW, right);
    }
    assert!(machine.pace() < 0.6);
    // Other programs have taken the cores: each token costs as much as the step.
    machine.each = 1.0;
    for right in runs(0.8, 2).take(100) {
        machine.step(&mut rates, FEW, right);
    }
    machine.pace();
    for right in runs(0.8, 3).take(300) {
        machine.step(&mut rates, FEW, right);
    }
    let pace = machine.pace();
    assert!(pace < 1.03, "{pace}");
}
