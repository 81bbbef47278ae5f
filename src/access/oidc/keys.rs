//! An issuer's keys: a JSON Web Key Set, of which only what can check signatures is taken.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use rustix::fs::OFlags;
use serde::Deserialize;
use serde_json::Value;

use super::signature::ALGORITHMS;

/// Bytes of a file of keys.
const MOST_BYTES: u64 = 256 << 10;
/// Keys of an issuer; others are passed over.
const MOST_KEYS: usize = 64;

/// The keys that an issuer signs with.
#[derive(Debug, Default)]
pub struct Keys(Vec<Key>);

#[derive(Debug)]
struct Key {
    id: Option<String>,
    key: DecodingKey,
    algorithms: Vec<Algorithm>,
}

impl Keys {
    /// Reads a key set. What is in it and cannot be used is passed over: encryption keys, secrets, kinds of keys that came
    /// later than this program.
    ///
    /// # Errors
    /// It is none, or has no key that can be used.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let set: Set = serde_json::from_slice(bytes)
            .map_err(|_| "it is no JSON Web Key Set (`{\"keys\": […]}`)".to_owned())?;
        let keys: Vec<_> = set
            .keys
            .into_iter()
            .filter_map(Key::read)
            .take(MOST_KEYS)
            .collect();
        match keys.is_empty() {
            true => Err(
                "it has no public key for signatures (RSA of 2048 bits or more, P-256, P-384 or Ed25519)".into(),
            ),
            false => Ok(Self(keys)),
        }
    }

    /// Reads the file of an administrator's. Blocks on the disk.
    ///
    /// # Errors
    /// Others can change it, or there is no key set in it.
    pub fn read(path: &Path) -> Result<Self, String> {
        let read = || {
            let file = OpenOptions::new()
                .read(true)
                .custom_flags(OFlags::NONBLOCK.bits() as i32)
                .open(path)?;
            let metadata = file.metadata()?;
            let own = rustix::process::geteuid().as_raw();
            let is_ours = [0, own].contains(&metadata.uid()) && metadata.mode() & 0o022 == 0;
            if !metadata.is_file() || !is_ours {
                return Err(io::Error::other(
                    "it is no file that root and the daemon's user alone can change (mode 0644)",
                ));
            }
            let mut bytes = vec![];
            file.take(MOST_BYTES).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().map_err(|error: io::Error| error.to_string())?;
        Self::parse(&bytes)
    }

    /// The key of this name that an algorithm can be used with. A token without a name has been signed with the only one.
    pub fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<&DecodingKey> {
        let mut fit = self.0.iter().filter(|key| {
            let is_meant = id.is_none() || key.id.as_deref() == id;
            is_meant && key.algorithms.contains(&algorithm)
        });
        let first = fit.next()?;
        (id.is_some() || fit.next().is_none()).then_some(&first.key)
    }
}

impl Key {
    fn read(value: Value) -> Option<Self> {
        let jwk = Jwk::deserialize(value).ok()?;
        let common = &jwk.common;
        let is_for_signatures = common
            .public_key_use
            .as_ref()
            .is_none_or(|of| *of == PublicKeyUse::Signature)
            && common
                .key_operations
                .as_ref()
                .is_none_or(|all| all.contains(&KeyOperations::Verify));
        if !is_for_signatures {
            return None;
        }
        let of_kind: fn(&Algorithm) -> bool = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => |algorithm| {
                let curves = [Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA];
                !curves.contains(algorithm)
            },
            AlgorithmParameters::EllipticCurve(key) => match key.curve {
                EllipticCurve::P256 => |algorithm| *algorithm == Algorithm::ES256,
                EllipticCurve::P384 => |algorithm| *algorithm == Algorithm::ES384,
                _ => return None,
            },
            AlgorithmParameters::OctetKeyPair(key) => match key.curve {
                EllipticCurve::Ed25519 => |algorithm| *algorithm == Algorithm::EdDSA,
                _ => return None,
            },
            _ => return None,
        };
        let named = common.key_algorithm.map(Algorithm::try_from);
        let algorithms: Vec<_> = ALGORITHMS
            .into_iter()
            .filter(of_kind)
            .filter(|algorithm| {
                named
                    .as_ref()
                    .is_none_or(|named| named.as_ref() == Ok(algorithm))
            })
            .collect();
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        (!algorithms.is_empty()).then_some(Self {
            id: jwk.common.key_id,
            key,
            algorithms,
        })
    }
}
