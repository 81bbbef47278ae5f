//! Which neighbours become one token, and which of them first.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::{Texts, Token};

/// The list of merges, sorted so that a pair is found by its left token and then by halves.
#[derive(Debug)]
pub(super) struct Merges {
    /// For each token where its pairs begin; one more behind the last.
    starts: Vec<u32>,
    pairs: Vec<Pair>,
}

#[derive(Clone, Copy, Debug)]
struct Pair {
    right: Token,
    /// Its place in the list: the lower, the sooner.
    rank: u32,
    whole: Token,
}

impl Merges {
    pub fn new<'a>(
        list: impl Iterator<Item = Result<&'a [u8], String>>,
        texts: &Texts,
    ) -> Result<Self, String> {
        let mut found = vec![];
        let mut whole = vec![];
        for (rank, merge) in list.enumerate() {
            let merge = merge?;
            let unknown = || format!("has a merge, {rank}, of what are no tokens");
            // A space may be the first character of the left one.
            let space = merge
                .iter()
                .skip(1)
                .position(|&byte| byte == b' ')
                .ok_or_else(unknown)?
                + 1;
            let (left, right) = (&merge[..space], &merge[space + 1..]);
            whole.clear();
            whole.extend_from_slice(left);
            whole.extend_from_slice(right);
            let token = |text| texts.find(text).ok_or_else(unknown);
            let rank = u32::try_from(rank).map_err(|_| "has too many merges")?;
            found.push((
                token(left)?,
                Pair {
                    right: token(right)?,
                    rank,
                    whole: token(&whole)?,
                },
            ));
        }
        found.sort_unstable_by_key(|(left, pair)| (*left, pair.right, pair.rank));
        // Of two that are the same, the first counts.
        found.dedup_by_key(|(left, pair)| (*left, pair.right));
        let mut starts = vec![0; texts.ends.len() + 1];
        found
            .iter()
            .for_each(|(left, _)| starts[*left as usize + 1] += 1);
        for token in 1..starts.len() {
            starts[token] += starts[token - 1];
        }
        let mut pairs: Vec<Pair> = found.into_iter().map(|(_, pair)| pair).collect();
        pairs.shrink_to_fit();
        Ok(Self { starts, pairs })
    }

    fn find(&self, left: Token, right: Token) -> Option<Pair> {
        let range = self.starts[left as usize] as usize..self.starts[left as usize + 1] as usize;
        let pairs = &self.pairs[range];
        pairs
            .binary_search_by_key(&right, |pair| pair.right)
            .ok()
            .map(|place| pairs[place])
    }

    /// Joins neighbours until no merge is left: always the pair of the lowest rank, of several the
    /// leftmost.
    pub fn join(&self, joiner: &mut Joiner) {
        for left in 0..joiner.symbols.len() {
            self.offer(joiner, left);
        }
        while let Some(Reverse(Offer {
            left,
            tokens,
            whole,
            ..
        })) = joiner.offers.pop()
        {
            let next = joiner.symbols[left as usize].next;
            // One of the two may have become another token since, or a part of one.
            let now = joiner.pair(left as usize);
            if now != Some(tokens) {
                continue;
            }
            let behind = joiner.symbols[next as usize].next;
            let previous = joiner.symbols[left as usize].previous;
            joiner.symbols[next as usize].token = GONE;
            let symbol = &mut joiner.symbols[left as usize];
            (symbol.token, symbol.next) = (whole, behind);
            if let Some(behind) = joiner.symbols.get_mut(behind as usize) {
                behind.previous = left;
            }
            if previous != NONE {
                self.offer(joiner, previous as usize);
            }
            self.offer(joiner, left as usize);
        }
    }

    /// Notes that this symbol and the next could be joined, if they could.
    fn offer(&self, joiner: &mut Joiner, left: usize) {
        let Some(tokens) = joiner.pair(left) else {
            return;
        };
        if let Some(pair) = self.find(tokens.0, tokens.1) {
            joiner.offers.push(Reverse(Offer {
                rank: pair.rank,
                left: left as u32,
                tokens,
                whole: pair.whole,
            }));
        }
    }
}

/// No symbol is there.
const NONE: u32 = u32::MAX;
/// A character that is no token, and a symbol that became part of another.
const UNKNOWN: Token = -1;
const GONE: Token = -2;

/// The symbols of a line while they are joined. Used again for the next line.
#[derive(Debug, Default)]
pub(super) struct Joiner {
    symbols: Vec<Symbol>,
    offers: BinaryHeap<Reverse<Offer>>,
}

#[derive(Debug)]
struct Symbol {
    /// Where its text begins.
    at: u32,
    token: Token,
    previous: u32,
    next: u32,
}

/// Ordered by its rank, then by its place.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Offer {
    rank: u32,
    left: u32,
    tokens: (Token, Token),
    whole: Token,
}

impl Joiner {
    pub fn clear(&mut self) {
        self.symbols.clear();
        self.offers.clear();
    }

    /// The next character, at this byte.
    pub fn push(&mut self, at: usize, token: Option<Token>) {
        // Texts have fewer than 2³² bytes: requests are bounded.
        let index = self.symbols.len() as u32;
        if let Some(last) = self.symbols.last_mut() {
            last.next = index;
        }
        let previous = index.checked_sub(1).unwrap_or(NONE);
        self.symbols.push(Symbol {
            at: at as u32,
            token: token.unwrap_or(UNKNOWN),
            previous,
            next: NONE,
        });
    }

    /// The tokens of this symbol and of the next, if both are tokens.
    fn pair(&self, left: usize) -> Option<(Token, Token)> {
        let symbol = &self.symbols[left];
        let next = self.symbols.get(symbol.next as usize)?;
        (symbol.token >= 0 && next.token >= 0).then_some((symbol.token, next.token))
    }

    /// What is there in the end: where each begins, and its token.
    pub fn symbols(&self) -> impl Iterator<Item = (usize, Option<Token>)> {
        let there = self.symbols.iter().filter(|symbol| symbol.token != GONE);
        there.map(|symbol| {
            (
                symbol.at as usize,
                Some(symbol.token).filter(|&token| token >= 0),
            )
        })
    }
}
