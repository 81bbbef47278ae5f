//! The key of whoever asks. Pure.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Tells one principal from another: what is queued, counted and kept is somebody's, and this says
/// whose. `access::Principal` is who it is, with all that is known of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PrincipalId {
    /// A Unix user, by number.
    User(u32),
    /// A number that a Unix user may give to their containers (subuid(5)).
    SubUser { uid: u32, owner: u32 },
    /// Whoever has a token. `owner`: the user whose account it is on, for whom it was issued.
    Token { id: u64, owner: u32 },
    /// Whoever has a token of an OpenID Connect issuer. `subject`: of whom the issuer says so, which only
    /// the issuer's name and the subject's lead to. `rights`: which part of their rights it has.
    /// `owner`: the user who they are by the configuration, if they are one.
    Subject {
        subject: u128,
        rights: u64,
        owner: Option<u32>,
    },
}

impl PrincipalId {
    /// Its own number; of a token, that of its account; nothing if it is no user of this machine.
    pub fn uid(self) -> Option<u32> {
        match self {
            Self::User(uid) | Self::SubUser { uid, .. } | Self::Token { owner: uid, .. } => {
                Some(uid)
            }
            Self::Subject { owner, .. } => owner,
        }
    }

    /// On whose account it counts, in turns and in limits: one person has one, however many
    /// numbers and tokens are theirs. What belongs to one of them stays hidden from the others.
    pub fn account(self) -> Self {
        match self {
            Self::SubUser { owner, .. }
            | Self::Token { owner, .. }
            | Self::Subject {
                owner: Some(owner), ..
            } => Self::User(owner),
            Self::Subject {
                subject,
                owner: None,
                ..
            } => Self::Subject {
                subject,
                rights: 0,
                owner: None,
            },
            Self::User(_) => self,
        }
    }
}

/// As log lines and messages name them.
impl fmt::Display for PrincipalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(uid) => uid.fmt(f),
            Self::SubUser { uid, owner } => write!(f, "{uid} (of user {owner})"),
            Self::Token { id, owner } => write!(f, "{owner} (token {id:016x})"),
            Self::Subject {
                subject,
                owner: Some(owner),
                ..
            } => write!(f, "{owner} (subject {subject:032x})"),
            Self::Subject { subject, .. } => write!(f, "subject {subject:032x}"),
        }
    }
}
