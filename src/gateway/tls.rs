//! Certificates: read, read again when they change, and made on request.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, KeyPair};
use ring::digest::{SHA256, digest};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::ServerSessionMemoryCache;

use super::settings::Settings;

/// Bytes of a file of certificates or of a key.
const MOST_BYTES: u64 = 1 << 20;
/// How often the files are looked at, at most: when somebody connects.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// Clients that may go on with the keys of their last connection.
const SESSIONS: usize = 64;
/// How long a certificate that is made here is good for.
const DAYS: u32 = 397;

/// The certificate and its key, as they are now.
pub struct Identity {
    certificate: PathBuf,
    key: PathBuf,
    acceptor: TlsAcceptor,
    stamp: Stamp,
    looked: Instant,
}

/// Tells a file from what it was.
type Stamp = [Option<(u64, i64, i64, u64)>; 2];

impl Identity {
    /// That of the settings, or of systemd's credentials; `None` if there is none.
    ///
    /// # Errors
    ///
    /// There is one that cannot be used, in words.
    pub fn find(settings: &Settings) -> Result<Option<Self>, String> {
        let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        let (certificate, key) = if !settings.certificate.as_os_str().is_empty() {
            (settings.certificate.clone(), settings.key.clone())
        } else if let Some(folder) = credentials.filter(|folder| folder.join("tls.crt").exists()) {
            (folder.join("tls.crt"), folder.join("tls.key"))
        } else {
            return Ok(None);
        };
        let stamp = stamp(&certificate, &key);
        let acceptor = acceptor(&certificate, &key)?;
        Ok(Some(Self {
            certificate,
            key,
            acceptor,
            stamp,
            looked: Instant::now(),
        }))
    }

    /// What takes the next connection. Files that have changed are read again; such as cannot be used change nothing.
    pub fn acceptor(&mut self) -> TlsAcceptor {
        if self.looked.elapsed() >= LOOK_AGAIN {
            self.looked = Instant::now();
            let stamp = stamp(&self.certificate, &self.key);
            if stamp != self.stamp {
                self.stamp = stamp;
                match acceptor(&self.certificate, &self.key) {
                    Ok(acceptor) => {
                        self.acceptor = acceptor;
                        tracing::info!("the certificate is read again");
                    }
                    Err(error) => {
                        tracing::warn!(
                            error,
                            "the new certificate cannot be used; the old one stays"
                        );
                    }
                }
            }
        }
        self.acceptor.clone()
    }
}

fn stamp(certificate: &Path, key: &Path) -> Stamp {
    [certificate, key].map(|path| {
        let metadata = fs::metadata(path).ok()?;
        Some((
            metadata.ino(),
            metadata.mtime(),
            metadata.mtime_nsec(),
            metadata.len(),
        ))
    })
}

fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, String> {
    let failed =
        |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let text = read(certificate, false).map_err(|error| failed(certificate, &error))?;
    let chain = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| failed(certificate, &error))?;
    if chain.is_empty() {
        return Err(failed(certificate, &"it has no certificate in PEM"));
    }
    let text = read(key, true).map_err(|error| failed(key, &error))?;
    let secret = PrivateKeyDer::from_pem_slice(&text).map_err(|error| failed(key, &error))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(|error| failed(certificate, &error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// `secret`: not if everybody may read it.
fn read(path: &Path, secret: bool) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    if secret && file.metadata()?.mode() & 0o007 != 0 {
        return Err(io::Error::other(
            "everybody may read or write this key; `chmod o= ` it, and make another",
        ));
    }
    let mut text = vec![];
    file.take(MOST_BYTES).read_to_end(&mut text)?;
    Ok(text)
}

/// Makes a key, and a certificate for these names that signs itself. Files that are there stay. Returns the
/// certificate's fingerprint: SHA-256, in hexadecimal digits.
///
/// # Errors
///
/// Why there is none.
pub fn make_self_signed(folder: &Path, names: &[String], now: u64) -> Result<String, String> {
    let failed = |path: &Path, error: io::Error| {
        let hint = match error.kind() {
            io::ErrorKind::AlreadyExists => "; move it away to have another made",
            _ => "",
        };
        format!("{}: {error}{hint}", path.display())
    };
    let mut parameters =
        CertificateParams::new(names).map_err(|error| format!("the names: {error}"))?;
    // What shows a name shows this one; clients go by the others.
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(
        rcgen::DnType::CommonName,
        names.first().map_or("gemmad-gateway", String::as_str),
    );
    let since = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(now);
    // Clocks differ.
    parameters.not_before = since - Duration::from_secs(3600);
    parameters.not_after = since + Duration::from_secs(86_400) * DAYS;
    let key = KeyPair::generate().map_err(|error| error.to_string())?;
    let certificate = parameters
        .self_signed(&key)
        .map_err(|error| error.to_string())?;
    let mut made = fs::DirBuilder::new();
    made.recursive(true)
        .mode(0o755)
        .create(folder)
        .map_err(|error| failed(folder, error))?;
    let group = gateway_group();
    let (of_key, of_certificate) = (folder.join("key.pem"), folder.join("cert.pem"));
    if of_certificate.exists() {
        return Err(failed(&of_certificate, io::ErrorKind::AlreadyExists.into()));
    }
    let mode = if group.is_some() { 0o640 } else { 0o600 };
    write(&of_key, mode, group, &key.serialize_pem()).map_err(|error| failed(&of_key, error))?;
    write(&of_certificate, 0o644, None, &certificate.pem())
        .map_err(|error| failed(&of_certificate, error))?;
    let sum = digest(&SHA256, certificate.der());
    let pairs: Vec<_> = sum.as_ref().iter().map(|b| format!("{b:02X}")).collect();
    Ok(pairs.join(":"))
}

/// The group of the gateway's user, to whom root leaves the key.
fn gateway_group() -> Option<u32> {
    let is_root = rustix::process::geteuid().is_root();
    let user = nix::unistd::User::from_name(crate::config::GATEWAY).ok()??;
    is_root.then(|| user.gid.as_raw())
}

fn write(path: &Path, mode: u32, group: Option<u32>, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode & 0o644)
        .open(path)?;
    if let Some(group) = group {
        std::os::unix::fs::fchown(&file, None, Some(group))?;
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn names() -> Vec<String> {
        ["localhost".to_owned(), "127.0.0.1".to_owned()].into()
    }

    #[test]
    fn a_certificate_is_made_once_and_can_be_used() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("tls");
        let print = make_self_signed(&place, &names(), 1_800_000_000).unwrap();
        assert_eq!(print.len(), 95);
        let (certificate, key) = (place.join("cert.pem"), place.join("key.pem"));
        assert_eq!(fs::metadata(&key).unwrap().mode() & 0o007, 0);
        assert!(acceptor(&certificate, &key).is_ok());
        let again = make_self_signed(&place, &names(), 1_800_000_000).unwrap_err();
        assert!(
            again.contains("cert.pem") && again.contains("move it"),
            "{again}"
        );
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        let error = acceptor(&certificate, &key).err().unwrap();
        assert!(
            error.contains("key.pem") && error.contains("everybody"),
            "{error}"
        );
    }

    #[test]
    fn a_changed_certificate_is_taken_and_a_broken_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let made = |name: &str| {
            let place = folder.path().join(name);
            make_self_signed(&place, &names(), 1_800_000_000).unwrap();
            place
        };
        let (one, two) = (made("one"), made("two"));
        let settings = Settings {
            certificate: one.join("cert.pem"),
            key: one.join("key.pem"),
            ..Settings::default()
        };
        let mut identity = Identity::find(&settings).unwrap().unwrap();
        let mut now = |change: &dyn Fn()| {
            change();
            identity.looked -= LOOK_AGAIN;
            Arc::as_ptr(identity.acceptor().config())
        };
        let first = now(&|| {});
        assert_eq!(now(&|| {}), first);
        // The key of another: the two do not go together.
        let copy = |name: &str| fs::rename(two.join(name), one.join(name)).unwrap();
        assert_eq!(now(&|| copy("key.pem")), first);
        assert_ne!(now(&|| copy("cert.pem")), first);
        assert!(Identity::find(&Settings::default()).unwrap().is_none());
    }
}
