//! Places in a prompt from which other prompts go on. Pure.

use super::index::digests;
use crate::gemma::marker;
use crate::worker::llama::Token;
use crate::worker::sequence::Sequence;
use crate::worker::vocab::Vocab;

/// The role of the first turn, if it is the system prompt; and tokens that it has at most.
const SYSTEM: &[u8] = b"system\n";
const ROLE: usize = 8;

/// How prompts begin that have one of the configuration's system prompts.
#[derive(Clone, Debug)]
pub struct Listed {
    pub tokens: Vec<Token>,
    /// SHA-256 of the system prompt's text.
    pub text: [u8; 32],
}

/// A place, by the tokens before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub tokens: usize,
    /// See [`super::index::digest`].
    pub digest: [u8; 32],
}

/// Places in a prompt of turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    /// The end of a system prompt that is everybody's, and the SHA-256 of its text.
    pub shared: Option<(Place, [u8; 32])>,
    /// The end of the system prompt: tokens before the turn behind it.
    pub system_end: Option<Place>,
    /// Tokens before the turn that the model writes.
    pub answer: usize,
    /// What the model's turn begins with is left out of the next prompt.
    pub differs: bool,
}

impl Places {
    /// `None` where a prompt has no turns.
    pub fn of(prompt: &Sequence, vocab: Vocab, listed: &[Listed]) -> Option<Self> {
        let turn = vocab.named(marker::TURN)?;
        let channel = vocab.named(marker::CHANNEL);
        let tokens = &prompt.tokens;
        let starts = |(at, token): (usize, &Token)| (*token == turn).then_some(at);
        let answer = tokens.iter().enumerate().rev().find_map(&starts)?;
        let mut turns = tokens.iter().enumerate().filter_map(starts);
        let first = turns.next()?;
        let role: Vec<u8> = tokens[first + 1..]
            .iter()
            .take(ROLE)
            .flat_map(|token| vocab.bytes(*token))
            .collect();
        let system_end = turns.next().filter(|_| role.starts_with(SYSTEM));
        let system = system_end.map_or(&[][..], |end| &tokens[..end]);
        let shared = longest(system, listed);
        let places: Vec<usize> = shared
            .map(|listed| listed.tokens.len())
            .into_iter()
            .chain(system_end)
            .collect();
        let mut places = places.iter().zip(digests(prompt, &places));
        let mut next = || {
            let place = places.next();
            place.map(|(&tokens, digest)| Place { tokens, digest })
        };
        Some(Self {
            shared: shared.and_then(|listed| Some((next()?, listed.text))),
            system_end: system_end.and_then(|_| next()),
            answer,
            differs: channel.is_some_and(|channel| tokens[answer..].contains(&channel)),
        })
    }
}

/// The longest beginning that a system prompt has.
fn longest<'a>(system: &[Token], listed: &'a [Listed]) -> Option<&'a Listed> {
    let begins = listed
        .iter()
        .filter(|listed| system.starts_with(&listed.tokens));
    begins.max_by_key(|listed| listed.tokens.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_beginning_counts() {
        let listed = |tokens: &[Token], text| Listed {
            tokens: tokens.to_vec(),
            text: [text; 32],
        };
        let all = [listed(&[1, 2], 1), listed(&[1, 2, 3], 2), listed(&[2], 3)];
        let text = |system: &[Token]| longest(system, &all).map(|found| found.text[0]);
        assert_eq!(text(&[1, 2, 3, 4]), Some(2));
        assert_eq!(text(&[1, 2, 4]), Some(1));
        assert_eq!(text(&[1]), None);
        assert_eq!(text(&[]), None);
    }
}
