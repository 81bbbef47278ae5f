//! The key of whoever asks. Pure.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

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
    /// Whoever is connected to the socket of an app.
    App(AppName),
}

/// What an app is called that has a socket of its own: at most [`AppName::MOST_BYTES`] letters, digits, `-`, `_` and `.`, of which the
/// first is a letter or a digit.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AppName([u8; Self::MOST_BYTES]);

impl AppName {
    /// Bytes of a name.
    pub const MOST_BYTES: usize = 40;

    /// The name that a text is, if it is one.
    pub fn parse(text: &str) -> Option<Self> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let begins_well = text.starts_with(|first: char| first.is_ascii_alphanumeric());
        let is_name = begins_well && text.bytes().all(is_plain);
        let mut bytes = [0; Self::MOST_BYTES];
        bytes
            .get_mut(..text.len())?
            .copy_from_slice(text.as_bytes());
        is_name.then_some(Self(bytes))
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        let bytes = self.0.split(|byte| *byte == 0).next().unwrap_or_default();
        // It was a text.
        std::str::from_utf8(bytes).unwrap_or_default()
    }
}

impl fmt::Display for AppName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for AppName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

impl Serialize for AppName {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for AppName {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom("this is no app's name"))
    }
}

impl PrincipalId {
    /// Its own number; of a token, that of its account; nothing if it is no user of this machine.
    pub fn uid(self) -> Option<u32> {
        match self {
            Self::User(uid) | Self::SubUser { uid, .. } | Self::Token { owner: uid, .. } => {
                Some(uid)
            }
            Self::Subject { owner, .. } => owner,
            Self::App(_) => None,
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
            Self::User(_) | Self::App(_) => self,
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
            Self::App(name) => write!(f, "app {name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_apps_are_plain_and_short() {
        let longest = "n".repeat(AppName::MOST_BYTES);
        for good in ["notes", "org.example.Notes", "7-zip_x", longest.as_str()] {
            let name = AppName::parse(good).unwrap();
            assert_eq!(name.to_string(), good);
            let id = PrincipalId::App(name);
            assert_eq!((id.uid(), id.account()), (None, id));
            let written = postcard::to_allocvec(&id).unwrap();
            assert_eq!(postcard::from_bytes::<PrincipalId>(&written), Ok(id));
        }
        let longer = "n".repeat(AppName::MOST_BYTES + 1);
        for bad in [
            "", ".notes", "-n", "a b", "a/b", "a\0", "a\nb", "é", &longer,
        ] {
            assert_eq!(AppName::parse(bad), None, "{bad:?}");
            let written = serde_json::to_string(bad).unwrap();
            assert!(serde_json::from_str::<AppName>(&written).is_err());
        }
        assert!(AppName::parse("a") < AppName::parse("aa"));
    }
}
