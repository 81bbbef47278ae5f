//! Who may pull what, besides those who may manage models. Pure.

/// Users and members of groups who may pull from some repositories.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allow {
    /// `OWNER/REPO`, `OWNER/*`, the beginning of an address and `*`, or `*` alone.
    pub repositories: Vec<String>,
    /// Names, or numbers.
    pub users: Vec<String>,
    pub groups: Vec<String>,
}

impl Allow {
    /// Whether it speaks of this: `OWNER/REPO` or an address.
    pub fn names(&self, what: &str) -> bool {
        self.repositories
            .iter()
            .any(|pattern| matches(pattern, what))
    }
}

/// Letters count alike whether large or small, as on the hub. Everything else than an address that a pattern does not name
/// by `*` at its end must be equal.
fn matches(pattern: &str, what: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => what
            .get(..start.len())
            .is_some_and(|begin| begin.eq_ignore_ascii_case(start)),
        None => pattern.eq_ignore_ascii_case(what),
    }
}

/// Whether a pattern can name anything that may be pulled, and nothing that its writer may not have meant: an address must
/// be more than its host's beginning.
pub fn is_pattern(text: &str) -> bool {
    if text == "*" || super::check::is_repository(text) {
        return true;
    }
    let Some(start) = text.strip_suffix('*') else {
        return false;
    };
    let of_owner = start
        .split_once('/')
        .is_some_and(|(owner, rest)| super::check::is_repository(&format!("{owner}/{rest}x")));
    let of_host = start.strip_prefix("https://").is_some_and(|rest| {
        let host = rest.split('/').next().unwrap_or_default();
        rest.contains('/') && !host.is_empty() && !host.contains(['*', '@', ' '])
    });
    of_owner || of_host
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_name_what_they_begin() {
        let allow = Allow {
            repositories: vec![
                "google/*".into(),
                "acme/one".into(),
                "https://m.example/x/*".into(),
            ],
            ..Allow::default()
        };
        for what in [
            "google/gemma-4",
            "Google/x",
            "acme/ONE",
            "https://m.example/x/y.gguf",
        ] {
            assert!(allow.names(what), "{what}");
        }
        for what in [
            "googlex/y",
            "acme/one2",
            "acme/on",
            "https://m.example/y.gguf",
            "",
            "é",
        ] {
            assert!(!allow.names(what), "{what}");
        }
    }

    #[test]
    fn a_pattern_cannot_end_within_a_host() {
        for good in ["*", "a/b", "a/*", "a/b-*", "https://h/*", "https://h:1/x*"] {
            assert!(is_pattern(good), "{good}");
        }
        for bad in [
            "",
            "a",
            "a*",
            "https://h*",
            "https://*",
            "http://h/*",
            "https://u@h/*",
            "a/b/c",
            "https://h/x",
        ] {
            assert!(!is_pattern(bad), "{bad}");
        }
    }
}
