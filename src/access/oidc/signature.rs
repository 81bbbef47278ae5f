//! Signatures, checked by ring: what `jsonwebtoken` is given in the place of a cryptography of its own. Only what a
//! public key can check is here, so no key of an issuer's can be taken for a secret.

use jsonwebtoken::crypto::{CryptoProvider, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::signature::{Error as Unsigned, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};
use ring::signature::{self, RsaParameters, RsaPublicKeyComponents, VerificationAlgorithm};

/// The algorithms that are taken.
pub const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// Has signatures be checked here from now on.
pub fn install() {
    static PROVIDER: CryptoProvider = CryptoProvider {
        signer_factory: |_, _| Err(ErrorKind::UnsupportedAlgorithm.into()),
        verifier_factory: |algorithm, key| Ok(Box::new(Check::new(*algorithm, key)?)),
        // Asked for thumbprints and private keys only.
        key_utils: KeyUtils::new_unimplemented(),
    };
    // The second time it is there already.
    let _ = PROVIDER.install_default();
}

struct Check {
    algorithm: Algorithm,
    how: How,
    key: DecodingKey,
}

enum How {
    Rsa(&'static RsaParameters),
    Curve(&'static dyn VerificationAlgorithm),
}

impl Check {
    fn new(algorithm: Algorithm, key: &DecodingKey) -> Result<Self, Error> {
        let how = match algorithm {
            Algorithm::RS256 => How::Rsa(&signature::RSA_PKCS1_2048_8192_SHA256),
            Algorithm::RS384 => How::Rsa(&signature::RSA_PKCS1_2048_8192_SHA384),
            Algorithm::RS512 => How::Rsa(&signature::RSA_PKCS1_2048_8192_SHA512),
            Algorithm::PS256 => How::Rsa(&signature::RSA_PSS_2048_8192_SHA256),
            Algorithm::PS384 => How::Rsa(&signature::RSA_PSS_2048_8192_SHA384),
            Algorithm::PS512 => How::Rsa(&signature::RSA_PSS_2048_8192_SHA512),
            Algorithm::ES256 => How::Curve(&signature::ECDSA_P256_SHA256_FIXED),
            Algorithm::ES384 => How::Curve(&signature::ECDSA_P384_SHA384_FIXED),
            Algorithm::EdDSA => How::Curve(&signature::ED25519),
            _ => return Err(ErrorKind::UnsupportedAlgorithm.into()),
        };
        if key.family() != algorithm.family() {
            return Err(ErrorKind::InvalidKeyFormat.into());
        }
        Ok(Self {
            algorithm,
            how,
            key: key.clone(),
        })
    }
}

impl Verifier<Vec<u8>> for Check {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), Unsigned> {
        let checked = match (&self.how, self.key.kind()) {
            (How::Rsa(how), DecodingKeyKind::RsaModulusExponent { n, e }) => {
                let (n, e) = (without_zeros(n), without_zeros(e));
                RsaPublicKeyComponents { n, e }.verify(how, message, signature)
            }
            (How::Curve(how), DecodingKeyKind::SecretOrDer(key)) => {
                signature::UnparsedPublicKey::new(*how, key).verify(message, signature)
            }
            _ => return Err(Unsigned::new()),
        };
        checked.map_err(|_| Unsigned::new())
    }
}

impl JwtVerifier for Check {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

/// Some issuers write numbers as signed ones.
fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}
