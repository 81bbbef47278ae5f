//! The file of tokens: the keys that sign, and what was issued. Only the daemon's user can read it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::rand::{GetRandomFlags, getrandom};
use serde::{Deserialize, Serialize};

use super::{MOST, Record};
use crate::store::replace::{own_folder, replace};

/// Bytes of the file that are read. It has at most [`MOST`] tokens that are good, and as many revoked ones.
const MOST_BYTES: u64 = 16 << 20;
const KEY_BYTES: usize = 32;
const FORM: u32 = 1;

/// All that is in it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    form: u32,
    keys: Vec<Key>,
    tokens: Vec<Record>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Key {
    id: u32,
    secret: Vec<u8>,
    /// Until when it is good for what it has signed, if it signs no more: seconds since 1970.
    until: Option<u64>,
}

/// Without the secret.
impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({}, {:?})", self.id, self.until)
    }
}

impl Default for State {
    fn default() -> Self {
        Self {
            form: FORM,
            keys: vec![],
            tokens: vec![],
        }
    }
}

impl State {
    /// What the file has; nothing if there is none.
    ///
    /// # Errors
    ///
    /// It is there, and others can read or change it, or it is not what this program writes.
    pub fn read(path: &Path) -> io::Result<Self> {
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(flags.bits() as i32)
            .open(path);
        let file = match file {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            file => file?,
        };
        let metadata = file.metadata()?;
        let own = rustix::process::geteuid().as_raw();
        let is_ours = [0, own].contains(&metadata.uid()) && metadata.mode() & 0o077 == 0;
        if !metadata.is_file() || !is_ours {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "it is no file of the daemon's user alone (mode 0600)",
            ));
        }
        let mut bytes = vec![];
        file.take(MOST_BYTES).read_to_end(&mut bytes)?;
        // What serde says of it could quote a key.
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "it is damaged");
        let state: Self = serde_json::from_slice(&bytes).map_err(|_| damaged())?;
        let is_whole = state.form == FORM
            && state.keys.iter().all(|key| key.secret.len() == KEY_BYTES)
            && state.keys.iter().filter(|key| key.until.is_none()).count() <= 1;
        is_whole.then_some(state).ok_or_else(damaged)
    }

    /// Writes all of it to the disk, in the place of what was there.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let folder = own_folder(path)?;
        replace(path, 0o600, &serde_json::to_vec(self)?)?;
        // That a token is revoked is to outlive a power cut.
        File::open(folder)?.sync_all()
    }

    /// The secret of the key with this number.
    pub fn key(&self, id: u32) -> Option<&[u8]> {
        let key = self.keys.iter().find(|key| key.id == id)?;
        Some(&key.secret)
    }

    /// The key that signs, and its number; it is made if there is none.
    pub fn signing_key(&mut self) -> io::Result<(u32, &[u8])> {
        if !self.keys.iter().any(|key| key.until.is_none()) {
            let secret = random::<KEY_BYTES>()?.to_vec();
            let mut id = u32::from_ne_bytes(random()?);
            while self.key(id).is_some() {
                id = id.wrapping_add(1);
            }
            self.keys.push(Key {
                id,
                secret,
                until: None,
            });
        }
        let key = self.keys.iter().find(|key| key.until.is_none());
        key.map(|key| (key.id, &key.secret[..]))
            .ok_or_else(|| io::Error::other("there is no key"))
    }

    /// Has another key sign; the present one is good until then.
    pub fn rotate(&mut self, until: u64) -> io::Result<()> {
        self.retire(until);
        self.signing_key().map(drop)
    }

    /// Has no key of the file sign; the present one is good until then.
    pub fn retire(&mut self, until: u64) {
        for key in &mut self.keys {
            key.until = key.until.or(Some(until));
        }
    }

    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.tokens.iter()
    }

    pub fn record(&self, id: u64) -> Option<&Record> {
        self.tokens.iter().find(|record| record.id == id)
    }

    /// A number that no token has.
    pub fn free_number(&self) -> io::Result<u64> {
        loop {
            let id = u64::from_ne_bytes(random()?);
            if self.record(id).is_none() {
                return Ok(id);
            }
        }
    }

    pub fn add(&mut self, record: Record) {
        self.tokens.push(record);
    }

    /// Revokes those that are meant and are not yet; says how many.
    pub fn revoke(&mut self, is_meant: impl Fn(&Record) -> bool) -> usize {
        let mut count = 0;
        for record in &mut self.tokens {
            if !record.revoked && is_meant(record) {
                record.revoked = true;
                count += 1;
            }
        }
        count
    }

    /// Forgets tokens that have expired, revoked ones that are too many, and keys that are good for none. A token that is forgotten is
    /// refused as one that is revoked.
    pub fn forget_old(&mut self, now: u64) {
        self.tokens.retain(|record| now < record.expires);
        let revoked = self.tokens.iter().filter(|record| record.revoked).count();
        let mut too_many = revoked.saturating_sub(MOST);
        self.tokens.retain(|record| {
            let goes = record.revoked && too_many > 0;
            too_many -= usize::from(goes);
            !goes
        });
        self.keys
            .retain(|key| key.until.is_none_or(|until| now < until));
    }
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let read = getrandom(&mut bytes, GetRandomFlags::empty())?;
    // The kernel gives so few at once, or none.
    (read == N)
        .then_some(bytes)
        .ok_or_else(|| io::Error::other("the system gives no random bytes"))
}
