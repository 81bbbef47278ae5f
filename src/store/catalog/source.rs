//! Addresses of files, taken apart. Pure.

use url::Url;

use super::check;

/// Hosts by which people call the hub.
const HUBS: [&str; 3] = ["huggingface.co", "www.huggingface.co", "hf.co"];
/// What stands before the revision in the address of a file.
const VIEWS: [&str; 3] = ["resolve", "blob", "raw"];
/// Bytes of an address.
const LONGEST: usize = 2048;

/// What an address, or `OWNER/REPO` and what may follow it, says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Repository {
        repository: String,
        revision: Option<String>,
        part: Option<Part>,
    },
    /// A file that is on no hub.
    Url(String),
}

/// Which file of a repository is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    File(String),
    Quantization(String),
}

/// Whether this is an address that may be fetched: `https`, without user or password.
pub fn is_address(text: &str) -> bool {
    text.len() <= LONGEST
        && Url::parse(text).is_ok_and(|url| {
            url.scheme() == "https"
                && url.host().is_some()
                && url.username().is_empty()
                && url.password().is_none()
                && url.fragment().is_none()
        })
}

/// Reads what has a `/` or a scheme; `None` if it has neither. `hub` is the host of a hub by another name.
///
/// # Errors
/// What is wrong with it, with what can be written.
pub fn read(text: &str, hub: Option<&str>) -> Option<Result<Place, String>> {
    if text.contains("://") {
        return Some(address(text, hub));
    }
    if text.starts_with(['/', '.', '~']) {
        return Some(Err(
            "this is a file of this machine; `gemmactl import FILE` takes it".into(),
        ));
    }
    let (first, rest) = text.split_once('/')?;
    if is_hub(first, hub) {
        return Some(of_hub(rest, text));
    }
    Some(of_hub(text, text))
}

fn is_hub(host: &str, hub: Option<&str>) -> bool {
    HUBS.iter()
        .copied()
        .chain(hub)
        .any(|known| known.eq_ignore_ascii_case(host))
}

fn address(text: &str, hub: Option<&str>) -> Result<Place, String> {
    if !is_address(text) {
        return Err("an address must be https, without user, password or `#`; what a server wants to know of you belongs into the daemon's configuration".into());
    }
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    let host = match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (host, _) => host.unwrap_or_default().to_owned(),
    };
    if is_hub(&host, hub) {
        return of_hub(url.path().trim_matches('/'), text);
    }
    match check::is_file(check::file_name(&decoded(url.path()))) {
        true => Ok(Place::Url(url.into())),
        false => Err("the address names no GGUF file: its path must end in NAME.gguf, in letters, digits and ._-".into()),
    }
}

/// `OWNER/REPO`, and perhaps `:FILE`, `:QUANT`, `/resolve/REVISION/FILE` or `/tree/REVISION`.
fn of_hub(path: &str, whole: &str) -> Result<Place, String> {
    let shown: String = whole.escape_debug().take(120).collect();
    let wrong = || {
        format!(
            "`{shown}` is no repository: write OWNER/REPO, OWNER/REPO:FILE.gguf or OWNER/REPO:QUANTIZATION"
        )
    };
    let path = decoded(path);
    let parts: Vec<&str> = path.splitn(5, '/').collect();
    let repository = |name: String| match check::is_repository(&name) {
        true => Ok(name),
        false => Err(wrong()),
    };
    match parts[..] {
        [owner, rest] => {
            let (name, part) = match rest.split_once(':') {
                Some((name, part)) => (name, Some(named_part(part).ok_or_else(wrong)?)),
                None => (rest, None),
            };
            Ok(Place::Repository {
                repository: repository(format!("{owner}/{name}"))?,
                revision: None,
                part,
            })
        }
        // A file in a folder of the repository.
        [owner, rest, ..] if rest.contains(':') => {
            let (name, start) = rest.split_once(':').ok_or_else(wrong)?;
            let file = std::iter::once(start).chain(parts[2..].iter().copied());
            let file = file.collect::<Vec<_>>().join("/");
            Ok(Place::Repository {
                repository: repository(format!("{owner}/{name}"))?,
                revision: None,
                part: Some(named_part(&file).ok_or_else(wrong)?),
            })
        }
        [owner, name, "tree", revision] | [owner, name, "tree", revision, ""]
            if check::is_revision(revision) =>
        {
            Ok(Place::Repository {
                repository: repository(format!("{owner}/{name}"))?,
                revision: Some(revision.to_owned()),
                part: None,
            })
        }
        [owner, name, view, revision, file]
            if VIEWS.contains(&view) && check::is_revision(revision) && check::is_file(file) =>
        {
            Ok(Place::Repository {
                repository: repository(format!("{owner}/{name}"))?,
                revision: Some(revision.to_owned()),
                part: Some(Part::File(file.to_owned())),
            })
        }
        _ => Err(wrong()),
    }
}

fn named_part(text: &str) -> Option<Part> {
    if check::has_suffix(text) {
        return check::is_file(text).then(|| Part::File(text.to_owned()));
    }
    check::is_quantization(text).then(|| Part::Quantization(text.to_owned()))
}

/// The file's name in an address's path.
pub fn name_in(path: &str) -> String {
    check::file_name(&decoded(path)).to_owned()
}

/// A path without its percent signs; as it is where they stand for nothing that can be read.
fn decoded(path: &str) -> String {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [byte, after @ ..] = rest {
        let digit = |at: usize| after.get(at).and_then(|byte| (*byte as char).to_digit(16));
        match (byte, digit(0), digit(1)) {
            // Both are below 16.
            (b'%', Some(high), Some(low)) => {
                bytes.push((high << 4 | low) as u8);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Option<Result<Place, String>> {
        read(text, Some("hub.example:8443"))
    }

    fn repository(
        name: &str,
        revision: Option<&str>,
        part: Option<Part>,
    ) -> Option<Result<Place, String>> {
        Some(Ok(Place::Repository {
            repository: name.into(),
            revision: revision.map(Into::into),
            part,
        }))
    }

    #[test]
    fn all_ways_to_write_a_repository() {
        let file = |name: &str| Some(Part::File(name.into()));
        assert_eq!(place("gemma4:e2b"), None);
        assert_eq!(place("a/b"), repository("a/b", None, None));
        assert_eq!(place("hf.co/a/b"), repository("a/b", None, None));
        assert_eq!(
            place("https://huggingface.co/a/b/"),
            repository("a/b", None, None)
        );
        assert_eq!(place("hub.example:8443/a/b"), repository("a/b", None, None));
        assert_eq!(place("a/b:x.gguf"), repository("a/b", None, file("x.gguf")));
        assert_eq!(
            place("a/b:MTP/x.gguf"),
            repository("a/b", None, file("MTP/x.gguf"))
        );
        assert_eq!(
            place("hf.co/a/b:Q4_K_M"),
            repository("a/b", None, Some(Part::Quantization("Q4_K_M".into())))
        );
        assert_eq!(
            place("https://huggingface.co/a/b/tree/main"),
            repository("a/b", Some("main"), None)
        );
        for view in ["resolve", "blob", "raw"] {
            assert_eq!(
                place(&format!(
                    "https://huggingface.co/a/b/{view}/main/d/x%20y.gguf?download=true"
                )),
                repository("a/b", Some("main"), file("d/x y.gguf"))
            );
        }
    }

    #[test]
    fn other_addresses_must_end_in_a_file() {
        let other = "https://models.example/a/x.gguf?key=1";
        assert_eq!(place(other), Some(Ok(Place::Url(other.into()))));
        for bad in [
            "http://models.example/x.gguf",
            "ftp://models.example/x.gguf",
            "https://user:secret@models.example/x.gguf",
            "https://models.example/",
            "https://models.example/x.safetensors",
            "https://models.example/.gguf",
            "https://models.example/..%2fx.gguf%00",
            "https://huggingface.co/a",
            "https://huggingface.co/a/b/resolve/main/x.safetensors",
            "https://huggingface.co/a/b/resolve/main/../x.gguf",
            "a/b/c",
            "a/b:x/../y.gguf",
            "../b",
            "/models/x.gguf",
        ] {
            assert!(
                matches!(place(bad), Some(Err(_))),
                "{bad}: {:?}",
                place(bad)
            );
        }
        let Some(Err(said)) = place("https://user:secret@models.example/x.gguf") else {
            unreachable!();
        };
        assert!(!said.contains("secret"), "{said}");
    }
}
