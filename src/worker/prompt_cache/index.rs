//! What the supervisor keeps of prompts, and which of it a prompt can go on from. Pure.

use sha2::{Digest, Sha256};

use super::places::Place;
use crate::chat::PrincipalId;
use crate::chat::Retention;
use crate::ipc::prompts::{KeptPrefix, MAX_PREFIXES, Owner, PrefixId};
use crate::worker::sequence::Sequence;

/// A kept prefix that a prompt begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub id: PrefixId,
    /// Tokens of the prompt before the place from which it goes on.
    pub tokens: usize,
    /// See [`crate::ipc::prompts::Prefix::is_fork`].
    pub is_fork: bool,
    pub retention: Retention,
    /// Bytes of all its states.
    pub bytes: u64,
}

/// The prefixes that are kept for this model, as far as this worker knows.
#[derive(Debug, Default)]
pub struct Index {
    kept: Vec<KeptPrefix>,
}

impl Index {
    pub fn new(kept: Vec<KeptPrefix>) -> Self {
        Self { kept }
    }

    /// Adds one. When there are too many the oldest goes of who has the most.
    pub fn insert(&mut self, prefix: KeptPrefix) {
        if self.kept.len() >= MAX_PREFIXES {
            let account = |kept: &KeptPrefix| kept.prefix.owner.account();
            let count = |of| self.kept.iter().filter(|kept| account(kept) == of).count();
            let most = self.kept.iter().map(account).max_by_key(|of| count(*of));
            let oldest = self
                .kept
                .iter()
                .position(|kept| Some(account(kept)) == most);
            self.kept.remove(oldest.unwrap_or_default());
        }
        self.kept.push(prefix);
    }

    /// One is no longer there.
    pub fn remove(&mut self, id: PrefixId) {
        self.kept.retain(|kept| kept.id != id);
    }

    pub fn get(&self, id: PrefixId) -> Option<&KeptPrefix> {
        self.kept.iter().find(|kept| kept.id == id)
    }

    /// Whether a place is kept of `owner`, for that long.
    pub fn has(&self, owner: Owner, place: Place, retention: Retention) -> bool {
        let of =
            |kept: &&KeptPrefix| (kept.prefix.owner, kept.prefix.retention) == (owner, retention);
        let mut owned = self.kept.iter().filter(of);
        owned.any(|kept| {
            let mut states = kept.prefix.states.iter();
            states
                .any(|state| state.tokens as usize == place.tokens && state.digest == place.digest)
        })
    }

    /// The prefix of `asks`, or of everybody, that brings `prompt` farthest. The prompt's last token is never in it: it
    /// must be computed for its logits.
    pub fn find(&self, asks: PrincipalId, prompt: &Sequence) -> Option<Found> {
        let owned = || {
            let kept = self.kept.iter();
            kept.filter(|kept| kept.prefix.owner.allows(asks))
        };
        let mut places: Vec<usize> = owned()
            .flat_map(|kept| kept.prefix.states.iter().map(|state| state.tokens as usize))
            .filter(|&tokens| tokens < prompt.len() && prompt.whole(tokens) == tokens)
            .collect();
        places.sort_unstable();
        places.dedup();
        let digests = digests(prompt, &places);
        owned()
            .filter_map(|kept| {
                let states = kept.prefix.states.iter();
                let tokens = states
                    .filter(|state| {
                        let place = places.binary_search(&(state.tokens as usize));
                        place.is_ok_and(|place| digests[place] == state.digest)
                    })
                    .map(|state| state.tokens as usize)
                    .max()?;
                Some(Found {
                    id: kept.id,
                    tokens,
                    is_fork: kept.prefix.is_fork,
                    retention: kept.prefix.retention,
                    bytes: kept.prefix.bytes()?,
                })
            })
            .max_by_key(|found| (found.tokens, std::cmp::Reverse(found.bytes)))
    }
}

/// Stands for the first `tokens` tokens of a prompt, and what its media are. No medium is cut.
pub fn digest(prompt: &Sequence, tokens: usize) -> [u8; 32] {
    digests(prompt, &[tokens])[0]
}

/// [`digest`] of several places, in ascending order, in one go.
pub fn digests(prompt: &Sequence, places: &[usize]) -> Vec<[u8; 32]> {
    let (mut hash, mut at) = (Sha256::new(), 0);
    let mut media = prompt.media.iter().peekable();
    let mut digests = Vec::with_capacity(places.len());
    for &place in places {
        while at < place {
            match media.next_if(|span| span.at == at) {
                Some(span) => {
                    hash.update([1]);
                    hash.update((span.count as u64).to_le_bytes());
                    hash.update(span.digest);
                    at += span.count;
                }
                None => {
                    hash.update([0]);
                    hash.update(prompt.tokens[at].to_le_bytes());
                    at += 1;
                }
            }
        }
        digests.push(hash.clone().finalize().into());
    }
    digests
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::prompts::{Prefix, State};

    const ANNA: PrincipalId = PrincipalId::User(1000);
    const BEN: PrincipalId = PrincipalId::User(1001);

    /// `.` is a token of text, a letter a medium of three tokens.
    fn sequence(text: &str) -> Sequence {
        let mut sequence = Sequence::default();
        for c in text.bytes() {
            match c {
                b'.' => sequence.tokens.push(7),
                medium => sequence.insert([medium; 32], 9, 3),
            }
        }
        sequence
    }

    fn kept(id: PrefixId, owner: PrincipalId, prompt: &Sequence, places: &[usize]) -> KeptPrefix {
        let state = |&tokens: &usize| State {
            tokens: tokens as u32,
            digest: digest(prompt, tokens),
            bytes: 10,
        };
        KeptPrefix {
            id,
            prefix: Prefix {
                owner: Owner::One(owner),
                retention: Retention::InMemory,
                is_fork: false,
                states: places.iter().map(state).collect(),
            },
        }
    }

    fn places(index: &Index, owner: PrincipalId, prompt: &str) -> Option<(PrefixId, usize)> {
        let found = index.find(owner, &sequence(prompt))?;
        Some((found.id, found.tokens))
    }

    #[test]
    fn the_farthest_place_is_gone_on_from() {
        let text = sequence("..a...b.");
        let mut index = Index::new(vec![
            kept(1, ANNA, &text, &[5, 2]),
            kept(2, ANNA, &text, &[12, 8]),
        ]);
        for (prompt, found) in [
            ("..a...b..", Some((2, 12))),
            // The last token is computed.
            ("..a...b.", Some((2, 8))),
            ("..a...c.", Some((2, 8))),
            ("..a..c.", Some((1, 5))),
            ("..b...", Some((1, 2))),
            (".a.", None),
            ("", None),
        ] {
            assert_eq!(places(&index, ANNA, prompt), found, "{prompt}");
        }
        index.remove(2);
        assert_eq!(places(&index, ANNA, "..a...b.."), Some((1, 5)));
    }

    #[test]
    fn nobody_finds_what_is_anothers() {
        let text = sequence("......");
        let index = Index::new(vec![kept(1, ANNA, &text, &[4])]);
        assert_eq!(places(&index, ANNA, "......"), Some((1, 4)));
        assert_eq!(places(&index, BEN, "......"), None);
        let container = PrincipalId::SubUser {
            uid: 100_000,
            owner: 1000,
        };
        assert_eq!(places(&index, container, "......"), None);
    }

    #[test]
    fn everybody_finds_what_is_everybodys() {
        let text = sequence("......");
        let mut shared = kept(1, ANNA, &text, &[4]);
        shared.prefix.owner = Owner::All { text: [0; 32] };
        let index = Index::new(vec![shared, kept(2, ANNA, &text, &[5])]);
        assert_eq!(places(&index, ANNA, "......"), Some((2, 5)));
        assert_eq!(places(&index, BEN, "......"), Some((1, 4)));
        let place = |tokens| Place {
            tokens,
            digest: digest(&text, tokens),
        };
        for (owner, tokens, retention, has) in [
            (Owner::One(ANNA), 5, Retention::InMemory, true),
            (Owner::One(ANNA), 5, Retention::Day, false),
            (Owner::One(BEN), 5, Retention::InMemory, false),
            (Owner::One(ANNA), 4, Retention::InMemory, false),
            (Owner::All { text: [0; 32] }, 4, Retention::InMemory, true),
        ] {
            assert_eq!(index.has(owner, place(tokens), retention), has, "{owner:?}");
        }
    }

    #[test]
    fn tokens_that_spell_a_medium_are_none() {
        let mut spelled = sequence("..a.");
        spelled.media.clear();
        assert_ne!(digest(&spelled, 6), digest(&sequence("..a."), 6));
    }

    #[test]
    fn there_is_a_bound() {
        let text = sequence("..");
        let mut index = Index::default();
        for id in 0..2 * MAX_PREFIXES as u64 {
            index.insert(kept(id, ANNA, &text, &[1]));
        }
        assert_eq!(index.kept.len(), MAX_PREFIXES);
        assert!(index.get(0).is_none());
    }
}
