//! Tokens that are tried before the model has drawn them: whether that is done, and how it went.

use std::iter::Sum;
use std::ops::{Add, AddAssign};

use serde::{Deserialize, Serialize};

/// Tokens that are tried in a step at most.
pub const MOST_DRAFT: u32 = 8;

/// Whether an answer's next tokens are guessed, and several of them computed in one step. The answer
/// does not depend on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Speculation {
    /// Where it is expected to be faster.
    #[default]
    Auto,
    /// Wherever there is a guess.
    On,
    Off,
}

impl Speculation {
    /// As it is named in requests and in the configuration.
    pub const NAMES: [(&str, Self); 3] =
        [("auto", Self::Auto), ("on", Self::On), ("off", Self::Off)];

    /// Tokens that are tried in a step at most.
    pub fn most(self) -> u32 {
        match self {
            Self::Off => 0,
            Self::Auto | Self::On => MOST_DRAFT,
        }
    }

    /// `None` if there is no such name.
    pub fn of(name: &str) -> Option<Self> {
        let known = Self::NAMES.into_iter().find(|(known, _)| *known == name);
        known.map(|(_, speculation)| speculation)
    }
}

/// Tokens that were tried, by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    pub accepted: u64,
    pub rejected: u64,
}

impl Add for Tally {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            accepted: self.accepted.saturating_add(other.accepted),
            rejected: self.rejected.saturating_add(other.rejected),
        }
    }
}

impl Sum for Tally {
    fn sum<I: Iterator<Item = Self>>(tallies: I) -> Self {
        tallies.fold(Self::default(), Add::add)
    }
}

/// Tokens that were tried, by where they came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drafted {
    /// What followed the same words in the prompt, in the answer, or in the prediction.
    pub lookup: Tally,
    /// What the answer's form leaves no choice about.
    pub forced: Tally,
    /// What a drafter guessed.
    pub drafter: Tally,
}

impl Drafted {
    /// Of all sources.
    pub fn total(self) -> Tally {
        self.by_source().into_iter().map(|(_, tally)| tally).sum()
    }

    /// Each source by its name in reports.
    pub fn by_source(self) -> [(&'static str, Tally); 3] {
        [
            ("lookup", self.lookup),
            ("forced", self.forced),
            ("drafter", self.drafter),
        ]
    }
}

impl AddAssign for Drafted {
    fn add_assign(&mut self, other: Self) {
        self.lookup = self.lookup + other.lookup;
        self.forced = self.forced + other.forced;
        self.drafter = self.drafter + other.drafter;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tallies_add_up_without_overflow() {
        let tally = |accepted, rejected| Tally { accepted, rejected };
        let mut drafted = Drafted {
            lookup: tally(3, 1),
            forced: tally(2, 0),
            drafter: tally(1, 2),
        };
        assert_eq!(drafted.total(), tally(6, 3));
        drafted += Drafted {
            lookup: tally(u64::MAX, 1),
            forced: tally(1, 1),
            drafter: tally(0, 1),
        };
        assert_eq!(drafted.lookup, tally(u64::MAX, 2));
        assert_eq!(drafted.forced, tally(3, 1));
        assert_eq!(drafted.drafter, tally(1, 3));
    }

    #[test]
    fn each_is_found_by_its_name() {
        for (name, speculation) in Speculation::NAMES {
            assert_eq!(Speculation::of(name), Some(speculation));
        }
        assert_eq!(Speculation::of("never"), None);
    }
}
