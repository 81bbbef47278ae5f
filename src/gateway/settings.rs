//! `gateway.toml`, and the command line.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

use crate::config;

/// Where the configuration is. It need not be there.
pub const FILE: &str = "/etc/gemmad/gateway.toml";
/// Where a self-signed certificate goes that is not told where.
const CERTIFICATES: &str = "/etc/gemmad/tls";

/// Let programs of other machines, containers and phones ask gemmad, over TLS and with tokens.
#[derive(clap::Parser, Debug)]
#[command(name = "gemmad-gateway", version)]
pub struct Args {
    /// Read this file instead of /etc/gemmad/gateway.toml
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Make a key and a certificate that signs itself in this directory (cert.pem, key.pem), print its fingerprint, and end
    #[arg(long, value_name = "DIRECTORY", num_args = 0..=1, default_missing_value = CERTIFICATES, require_equals = true)]
    pub self_signed: Option<PathBuf>,

    /// With --self-signed: a name or an address that the certificate is for; may be given several times [default:
    /// localhost, 127.0.0.1, ::1 and this machine's name]
    #[arg(long, value_name = "NAME", requires = "self_signed")]
    pub name: Vec<String>,
}

/// What can be set. `systemd/gateway.toml` is the commented sample.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    pub listen: Vec<SocketAddr>,
    pub socket: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub plaintext_beyond_loopback: bool,
    pub hosts: Vec<String>,
    pub origins: Vec<String>,
    pub connections: u32,
    pub connections_per_address: u32,
    pub requests: u32,
    pub requests_per_address: u32,
    #[serde(deserialize_with = "size")]
    pub body_size: u64,
    #[serde(deserialize_with = "time")]
    pub head_time: Duration,
    #[serde(deserialize_with = "time")]
    pub client_stall: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 8484))],
            socket: "/run/gemmad/api.sock".into(),
            certificate: PathBuf::new(),
            key: PathBuf::new(),
            plaintext_beyond_loopback: false,
            hosts: vec![],
            origins: vec![],
            connections: 2048,
            connections_per_address: 256,
            requests: 1024,
            requests_per_address: 256,
            body_size: 33 << 20,
            head_time: Duration::from_secs(30),
            client_stall: Duration::from_secs(60),
        }
    }
}

fn time<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    config::parse_duration(&text)
        .filter(|time| !time.is_zero())
        .ok_or_else(|| de::Error::custom("write a time like \"30s\" or \"5m\", more than 0"))
}

fn size<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let text = String::deserialize(from)?;
    config::parse_size(&text)
        .filter(|size| *size > 0)
        .ok_or_else(|| de::Error::custom("write a size like \"33 MiB\""))
}

impl Settings {
    /// Reads a file; without one the defaults hold, unless it was asked for.
    ///
    /// # Errors
    ///
    /// What is wrong with it, and where.
    pub fn load(explicit: Option<&Path>) -> Result<Self, String> {
        let file = explicit.unwrap_or(Path::new(FILE));
        match std::fs::read_to_string(file) {
            Ok(text) => Self::parse(&text).map_err(|why| format!("{}: {why}", file.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && explicit.is_none() => {
                Ok(Self::default())
            }
            Err(error) => Err(format!("{} cannot be read: {error}", file.display())),
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let settings: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        let empty = |path: &Path| path.as_os_str().is_empty();
        if empty(&settings.certificate) != empty(&settings.key) {
            return Err("`certificate` and `key` go together: set both, or none".to_owned());
        }
        for (key, number) in [
            ("connections", settings.connections),
            ("connections-per-address", settings.connections_per_address),
            ("requests", settings.requests),
            ("requests-per-address", settings.requests_per_address),
        ] {
            if number == 0 {
                return Err(format!("`{key}` must be at least 1"));
            }
        }
        let is_origin = |origin: &String| {
            origin
                .split_once("://")
                .is_some_and(|(scheme, host)| !scheme.is_empty() && is_host(host))
        };
        if let Some(wrong) = settings.origins.iter().find(|origin| !is_origin(origin)) {
            return Err(format!(
                "`origins` has \"{wrong}\"; write each as browsers send it, like \"https://chat.example.org\""
            ));
        }
        if let Some(wrong) = settings.hosts.iter().find(|host| !is_host(host)) {
            return Err(format!(
                "`hosts` has \"{wrong}\"; write names without port, like \"box.example.org\""
            ));
        }
        Ok(settings)
    }

    /// Whether an address may be listened on without TLS; says why not.
    ///
    /// # Errors
    ///
    /// It can be reached from elsewhere.
    pub fn check_plaintext(&self, address: IpAddr) -> Result<(), String> {
        if address.to_canonical().is_loopback() || self.plaintext_beyond_loopback {
            return Ok(());
        }
        Err(format!(
            "{address} can be reached from other machines, and there is no certificate: everybody on the way could read \
             prompts, answers and tokens. Set `certificate` and `key` (`gemmad-gateway --self-signed` makes them), or listen on \
             127.0.0.1; `plaintext-beyond-loopback = true` takes that risk"
        ))
    }
}

/// A name or an address, with or without a port; nothing that a header could not have.
fn is_host(host: &str) -> bool {
    !host.is_empty()
        && host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b".-_[]:".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = include_str!("../../systemd/gateway.toml");

    #[test]
    fn the_sample_has_every_key_with_its_default() {
        let text: String = SAMPLE
            .lines()
            .filter_map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')))
            .map(|line| format!("{line}\n"))
            .collect();
        assert_eq!(Settings::parse(&text), Ok(Settings::default()));
        let keys = text.lines().filter(|line| line.contains(" = ")).count();
        assert_eq!(keys, 14, "{text}");
        assert_eq!(Settings::parse(SAMPLE), Ok(Settings::default()));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, word) in [
            ("certificate = \"/a\"", "`key`"),
            ("head-time = \"0s\"", "more than 0"),
            ("connections = 0", "`connections` must be at least 1"),
            ("requests-per-address = 0", "`requests-per-address`"),
            ("origins = [\"*\"]", "\"*\""),
            ("hosts = [\"a b\"]", "\"a b\""),
            ("listen = [\"localhost\"]", "listen"),
            ("lisen = []", "lisen"),
        ] {
            let error = Settings::parse(text).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn other_machines_are_served_with_tls_only() {
        let settings = Settings::default();
        for address in ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"] {
            assert!(settings.check_plaintext(address.parse().unwrap()).is_ok());
        }
        for address in ["0.0.0.0", "::", "192.168.1.2", "fe80::1", "::ffff:10.0.0.1"] {
            let error = settings.check_plaintext(address.parse().unwrap());
            assert!(error.unwrap_err().contains("plaintext-beyond-loopback"));
        }
        let brave = Settings {
            plaintext_beyond_loopback: true,
            ..Settings::default()
        };
        assert!(brave.check_plaintext("0.0.0.0".parse().unwrap()).is_ok());
    }
}
