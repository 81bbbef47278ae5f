//! The way to a server: who gets the token, and through which proxy.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use url::Url;

use crate::chat::Networks;
use crate::config::Pull;
use crate::ipc::PullRequest;

/// The longest token, in bytes.
const LONGEST_TOKEN: u64 = 4096;
/// The credential in which systemd may pass the token.
const CREDENTIAL: &str = "hub-token";

/// What every connection needs to know.
#[derive(Clone)]
pub struct Way {
    /// The worker program.
    pub worker: PathBuf,
    /// Where systemd starts one that may use the network, if it does.
    pub socket: PathBuf,
    pub pull: Pull,
    token: Option<String>,
}

impl Way {
    /// Reads the token. Blocks on the disk.
    ///
    /// # Errors
    /// There is a file for it that cannot be read.
    pub fn new(worker: PathBuf, socket: PathBuf, pull: Pull) -> Result<Self, String> {
        let token = match (&pull.token_file, std::env::var_os("CREDENTIALS_DIRECTORY")) {
            (Some(file), _) => Some(read_token(file).map_err(|error| {
                format!(
                    "`token-file` in gemmad.toml names {}: {error}",
                    file.display()
                )
            })?),
            (None, Some(credentials)) => read_token(&Path::new(&credentials).join(CREDENTIAL)).ok(),
            (None, None) => None,
        };
        Ok(Self {
            worker,
            socket,
            pull,
            token: token.filter(|token| !token.is_empty()),
        })
    }

    pub fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Asks for a part of what is at an address.
    pub fn request(&self, url: &Url, from: u64, most: u64) -> PullRequest {
        PullRequest {
            networks: None,
            url: url.as_str().to_owned(),
            from,
            most,
            part: false,
            etag: None,
            token: self.token.clone().filter(|_| self.is_hub(url)),
            proxy: proxy(url, &self.pull.proxy, |name| std::env::var(name).ok()),
        }
    }

    fn is_hub(&self, url: &Url) -> bool {
        Url::parse(&self.pull.hub).is_ok_and(|hub| hub.origin() == url.origin())
    }

    /// Where the server of `url` may be, to which asking for `first` has led; `None`: anywhere. `first` and the hub are what
    /// an administrator or a catalog names; what a server names may be no service of this machine or of its neighbours.
    pub fn networks(&self, first: &Url, url: &Url) -> Option<Networks> {
        let is_named = url.origin() == first.origin() || self.is_hub(url);
        (!is_named).then(|| self.pull.redirect_to.clone())
    }
}

fn read_token(path: &Path) -> std::io::Result<String> {
    let (mut text, file) = (String::new(), File::open(path)?);
    if file.metadata()?.mode() & 0o007 != 0 {
        return Err(std::io::Error::other(
            "everybody may read or write it; `chmod o= ` it, and have the hub make another token",
        ));
    }
    file.take(LONGEST_TOKEN).read_to_string(&mut text)?;
    let text = text.trim();
    // It stands in a header.
    match text.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(text.to_owned()),
        false => Err(std::io::Error::other("what it holds is no token")),
    }
}

/// The proxy that leads to an address: the configured one, or what the environment says.
fn proxy(url: &Url, configured: &str, variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    match configured {
        "none" => return None,
        "" => {}
        proxy => return Some(proxy.to_owned()),
    }
    let either = |name: &str| {
        let found = variable(name).or_else(|| variable(&name.to_uppercase()));
        found.filter(|value| !value.is_empty())
    };
    let host = url.host_str()?.trim_matches(['[', ']']);
    let is_named = |list: String| {
        list.split(',').map(str::trim).any(|name| {
            let name = name.trim_start_matches("*.").trim_start_matches('.');
            let beneath = || {
                host.strip_suffix(name)
                    .is_some_and(|rest| rest.ends_with('.'))
            };
            name == "*" || (!name.is_empty() && (host == name || beneath()))
        })
    };
    if either("no_proxy").is_some_and(is_named) {
        return None;
    }
    let proxy = either(&format!("{}_proxy", url.scheme())).or_else(|| either("all_proxy"))?;
    Some(match proxy.contains("://") {
        true => proxy,
        false => format!("http://{proxy}"),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_environment_names_a_proxy_and_who_needs_none() {
        let through = |url: &str, configured: &str, variables: &[(&str, &str)]| {
            proxy(&Url::parse(url).unwrap(), configured, |name| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        let url = "https://a.example.org/x";
        assert_eq!(through(url, "", &[]), None);
        let set = ("HTTPS_PROXY", "p:3128");
        assert_eq!(through(url, "", &[set]).as_deref(), Some("http://p:3128"));
        assert_eq!(through(url, "none", &[set]), None);
        assert_eq!(
            through(url, "http://q", &[set]).as_deref(),
            Some("http://q")
        );
        assert_eq!(through("http://a.org/", "", &[set]), None);
        assert!(through("http://a.org/", "", &[("all_proxy", "http://p")]).is_some());
        for (exempt, goes_through) in [
            ("example.org", false),
            (".example.org", false),
            ("x, a.example.org", false),
            ("*", false),
            ("ample.org", true),
            ("b.example.org", true),
        ] {
            let found = through(url, "", &[set, ("no_proxy", exempt)]);
            assert_eq!(found.is_some(), goes_through, "{exempt}");
        }
    }

    #[test]
    fn what_a_server_names_may_not_be_anywhere() {
        let pull = Pull {
            hub: "http://10.0.0.1:8080".into(),
            ..Pull::default()
        };
        let way = Way::new("w".into(), "s".into(), pull).unwrap();
        let of = |first: &str, url: &str| {
            way.networks(&Url::parse(first).unwrap(), &Url::parse(url).unwrap())
        };
        let hub = "http://10.0.0.1:8080/a";
        for (first, named) in [
            (hub, "http://10.0.0.1:8080/b"),
            ("http://10.0.0.2/a", "http://10.0.0.2/b"),
            ("http://10.0.0.2/a", hub),
        ] {
            assert_eq!(of(first, named), None, "{first} {named}");
        }
        for other in [
            "http://10.0.0.1/b",
            "http://10.0.0.1:22/",
            "http://10.0.0.3/",
        ] {
            assert_eq!(of(hub, other), Some(Networks::public()), "{other}");
        }
    }

    #[test]
    fn the_token_goes_to_the_hub_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "hf_secret\n").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let pull = Pull {
            hub: "https://hub.example".into(),
            token_file: Some(file),
            ..Pull::default()
        };
        let way = Way::new("w".into(), "s".into(), pull).unwrap();
        let token = |url: &str| way.request(&Url::parse(url).unwrap(), 0, 1).token;
        assert_eq!(token("https://hub.example/a").as_deref(), Some("hf_secret"));
        for other in [
            "https://cdn.example/a",
            "http://hub.example/a",
            "https://hub.example:8443/a",
        ] {
            assert_eq!(token(other), None, "{other}");
        }
    }
}
