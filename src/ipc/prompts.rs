//! What a worker that serves and its supervisor say to each other about prompts that were read: over
//! a channel of its own, so that neither waits for the other's disk. The worker hands over what a
//! sequence of its KV cache holds, and may ask for it back; a worker that comes later may, too.
//!
//! ```text
//!   worker                                        supervisor
//!     │   ──── Keep, then the bytes of its states ──▶  │
//!     │   ◀─────────────── Kept(id) ────────────────   │   nothing, if there is no room
//!     │   ────────────── Fetch(id) ───────────────▶    │
//!     │   ◀──── Fetched, then those bytes ──────────   │
//!     │   ────────────── Tried(id) ───────────────▶    │
//! ```
//!
//! The supervisor looks into none of it. The worker asks one thing at a time. A worker that ends before it
//! has said `Tried` of what it fetched may have died of it.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::frame::{self, Decoder};
use crate::chat::{PrincipalId, Retention, bounded};

/// States of one prefix at most: the whole one, and one to go back to.
pub const MAX_STATES: usize = 2;
/// Prefixes that are kept at most.
pub const MAX_PREFIXES: usize = 256;
/// Bytes of a message at most; the bytes of states are no part of it.
const LARGEST_MESSAGE: usize = 4 << 10;
/// Bytes that are sent or received at once.
pub const PIECE: usize = 256 << 10;

/// Names a prefix for as long as the supervisor lives.
pub type PrefixId = u64;

/// Who may go on from a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Owner {
    /// Whose request it was, and nobody else.
    One(PrincipalId),
    /// Everybody: it is a system prompt of the configuration's. `text` is its SHA-256.
    All { text: [u8; 32] },
}

impl Owner {
    /// Whether `asks` may go on from it.
    pub fn allows(self, asks: PrincipalId) -> bool {
        match self {
            Self::One(owner) => owner == asks,
            Self::All { .. } => true,
        }
    }

    /// On whose account it counts; `None`: the configuration's.
    pub fn account(self) -> Option<PrincipalId> {
        match self {
            Self::One(owner) => Some(owner.account()),
            Self::All { .. } => None,
        }
    }
}

/// A prompt, or the first part of one, that was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prefix {
    pub owner: Owner,
    /// How long it is kept.
    pub retention: Retention,
    /// More than one conversation may go on from here, so that it stays when one of them grows.
    pub is_fork: bool,
    /// Places from which one can go on. The first has everything; what the others have is the state of
    /// the sliding layers at an earlier place.
    #[serde(deserialize_with = "bounded::list::<MAX_STATES, _, _>")]
    pub states: Vec<State>,
}

impl Prefix {
    /// Bytes of its states; `None` when there are more than a number can say.
    pub fn bytes(&self) -> Option<u64> {
        self.states
            .iter()
            .try_fold(0_u64, |sum, state| sum.checked_add(state.bytes))
    }
}

/// A place in a prompt, and the bytes that bring the KV cache there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Tokens that lie before it.
    pub tokens: u32,
    /// SHA-256 of them, with what pictures and sounds stand for.
    pub digest: [u8; 32],
    pub bytes: u64,
}

/// A prefix that the supervisor has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptPrefix {
    pub id: PrefixId,
    pub prefix: Prefix,
}

/// How a worker keeps what it has read; the channel's descriptor comes behind all others of the plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromptCachePlan {
    /// What is there for this model.
    pub kept: Vec<KeptPrefix>,
    /// Bytes that the states of one prefix may have: the worker makes them in memory first.
    pub largest: u64,
}

/// From the worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PromptRequest {
    /// Keep this, in the place of `replaces` if that is still there. The bytes of the states follow, in
    /// their order. `sent` is what the request that left it was sent with: if its owner's prompts were
    /// cleared since, it is not kept.
    Keep {
        prefix: Prefix,
        replaces: Option<PrefixId>,
        sent: u64,
    },
    /// Send the bytes of this one's states.
    Fetch { id: PrefixId },
    /// What was fetched is in the KV cache now, or is not needed any more. Not answered. If it is not
    /// `usable`, llama.cpp did not take it.
    Tried { id: PrefixId, usable: bool },
}

/// From the supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PromptReply {
    /// `None`: there is no room for it.
    Kept { id: Option<PrefixId> },
    /// So many bytes follow; `None`: it is no longer there.
    Fetched { bytes: Option<u64> },
}

/// Sends a message. Its bytes are to follow.
///
/// # Errors
///
/// The channel's.
pub fn send(channel: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let mut bytes = vec![];
    frame::encode(message, &mut bytes).map_err(io::Error::other)?;
    channel.write_all(&bytes)
}

/// The next message; `None` at the end of the channel. No byte behind it is taken.
///
/// # Errors
///
/// The channel's, and what is no message.
pub fn receive<T: DeserializeOwned>(channel: &mut impl Read) -> io::Result<Option<T>> {
    let mut header = [0; frame::HEADER];
    match channel.read(&mut header)? {
        0 => return Ok(None),
        got => channel.read_exact(&mut header[got..])?,
    }
    let length = u32::from_le_bytes(header) as usize;
    if length > LARGEST_MESSAGE {
        return Err(io::Error::other(format!("a message of {length} bytes")));
    }
    let mut body = vec![0; length];
    channel.read_exact(&mut body)?;
    let mut decoder = Decoder::with_limit(LARGEST_MESSAGE);
    decoder.feed(&header);
    decoder.feed(&body);
    decoder.next().map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(states: usize) -> Prefix {
        let state = State {
            tokens: 7,
            digest: [1; 32],
            bytes: 5,
        };
        Prefix {
            owner: Owner::One(PrincipalId::User(1000)),
            retention: Retention::Day,
            is_fork: false,
            states: vec![state; states],
        }
    }

    #[test]
    fn messages_and_their_bytes_stay_apart() {
        let keep = PromptRequest::Keep {
            prefix: prefix(2),
            replaces: Some(3),
            sent: 7,
        };
        let mut channel = vec![];
        send(&mut channel, &keep).unwrap();
        channel.extend(b"0123456789");
        send(&mut channel, &PromptRequest::Fetch { id: 9 }).unwrap();
        let mut channel = channel.as_slice();
        assert_eq!(receive(&mut channel).unwrap(), Some(keep));
        let mut bytes = [0; 10];
        channel.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"0123456789");
        let fetch = PromptRequest::Fetch { id: 9 };
        assert_eq!(receive(&mut channel).unwrap(), Some(fetch));
        assert_eq!(receive::<PromptRequest>(&mut channel).unwrap(), None);
    }

    #[test]
    fn what_a_worker_may_not_say_is_not_taken() {
        for message in [
            &[0xff, 0xff, 0xff, 0x7f][..],
            &[2, 0, 0, 0, 9, 9],
            &[3, 0, 0, 0, 1],
            &[1],
        ] {
            let mut channel = message;
            assert!(
                receive::<PromptRequest>(&mut channel).is_err(),
                "{message:?}"
            );
        }
        let keep = PromptRequest::Keep {
            prefix: prefix(MAX_STATES + 1),
            replaces: None,
            sent: 0,
        };
        let mut channel = vec![];
        send(&mut channel, &keep).unwrap();
        assert!(receive::<PromptRequest>(&mut channel.as_slice()).is_err());
    }

    #[test]
    fn sums_that_no_number_can_say_are_none() {
        let mut prefix = prefix(2);
        assert_eq!(prefix.bytes(), Some(10));
        prefix.states[1].bytes = u64::MAX;
        assert_eq!(prefix.bytes(), None);
    }
}
