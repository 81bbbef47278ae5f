//! The key of whoever asks. Pure.

use std::fmt;

/// Tells one principal from another: what is queued, counted and kept is somebody's, and this says
/// whose. `access::Principal` is who it is, with all that is known of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PrincipalId {
    /// A Unix user, by number.
    User(u32),
}

/// As log lines and messages name them.
impl fmt::Display for PrincipalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(uid) => uid.fmt(f),
        }
    }
}
