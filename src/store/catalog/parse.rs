//! A catalog, taken apart. Pure.

use serde::Deserialize;
use toml::Spanned;

use super::allow::{self, Allow};
use super::check;
use super::{Digest, FileRef, PublishedFile, Refused, Repository, Role};
use crate::gemma::variant::Variant;
use crate::store::family::Published;

/// Repositories in one catalog.
const REPOSITORIES: usize = 256;
/// Files of one repository.
const FILES: usize = 256;
/// Entries of the other lists.
const ENTRIES: usize = 256;

/// One thing to mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Counted from 1; `None` when the whole is meant.
    pub line: Option<usize>,
    /// Names the entry and what is allowed.
    pub text: String,
}

/// What one catalog says; references between its files are checked by [`super::Offers::add`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CatalogText {
    pub variants: Vec<Published>,
    pub repositories: Vec<Repository>,
    pub refused: Vec<Refused>,
    pub allow: Vec<Allow>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawCatalog {
    #[serde(default)]
    variant: Vec<Spanned<Published>>,
    #[serde(default)]
    repository: Vec<Spanned<RawRepository>>,
    #[serde(default)]
    refused: Vec<Spanned<RawRefused>>,
    #[serde(default)]
    allow: Vec<Spanned<RawAllow>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawRepository {
    name: Spanned<String>,
    revision: Option<Spanned<String>>,
    url: Option<Spanned<String>>,
    variant: Spanned<String>,
    #[serde(default)]
    preferred: bool,
    #[serde(default)]
    file: Vec<Spanned<RawFile>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawFile {
    name: Spanned<String>,
    role: Spanned<String>,
    quantization: Spanned<String>,
    bytes: Option<Spanned<u64>>,
    sha256: Option<Spanned<String>>,
    #[serde(default)]
    seen: Vec<Spanned<String>>,
    projector: Option<Spanned<String>>,
    drafter: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawRefused {
    name: String,
    #[serde(default)]
    aliases: Vec<String>,
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawAllow {
    repositories: Vec<String>,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    groups: Vec<String>,
}

/// Reads a catalog.
///
/// # Errors
/// Everything that is wrong in it, by line.
pub fn parse(text: &str) -> Result<CatalogText, Vec<Problem>> {
    let raw: RawCatalog = toml::from_str(text).map_err(|error| {
        let line = error.span().map(|span| line_of(text, span.start));
        let text = error.message().replace('\n', "; ");
        vec![Problem { line, text }]
    })?;
    let mut reader = Reader {
        text,
        problems: vec![],
    };
    let catalog = reader.catalog(raw);
    match reader.problems.is_empty() {
        true => Ok(catalog),
        false => Err(reader.problems),
    }
}

/// Counted from 1.
fn line_of(text: &str, offset: usize) -> usize {
    let before = &text.as_bytes()[..offset.min(text.len())];
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

/// Gathers problems.
struct Reader<'a> {
    text: &'a str,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn catalog(&mut self, raw: RawCatalog) -> CatalogText {
        for (name, count, most) in [
            ("repository", raw.repository.len(), REPOSITORIES),
            ("refused", raw.refused.len(), ENTRIES),
            ("allow", raw.allow.len(), ENTRIES),
        ] {
            if count > most {
                let text = format!("{count} entries `[[{name}]]`; allowed are at most {most}");
                self.problems.push(Problem { line: None, text });
                return CatalogText::default();
            }
        }
        let refused = raw.refused.into_iter();
        let allow = raw.allow.into_iter();
        CatalogText {
            variants: raw.variant.into_iter().map(Spanned::into_inner).collect(),
            repositories: raw
                .repository
                .into_iter()
                .filter_map(|raw| self.repository(raw))
                .collect(),
            refused: refused.filter_map(|raw| self.refused(raw)).collect(),
            allow: allow.filter_map(|raw| self.allow(raw)).collect(),
        }
    }

    fn line<T>(&self, value: &Spanned<T>) -> usize {
        line_of(self.text, value.span().start)
    }

    fn problem(&mut self, line: usize, text: String) {
        let line = Some(line);
        self.problems.push(Problem { line, text });
    }

    /// A text that passes a check; what is wrong otherwise is said with what is `allowed`.
    fn checked(
        &mut self,
        key: &str,
        value: Spanned<String>,
        is_good: impl Fn(&str) -> bool,
        allowed: &str,
    ) -> Option<String> {
        if is_good(value.get_ref()) {
            return Some(value.into_inner());
        }
        let shown: String = value.get_ref().escape_debug().take(80).collect();
        let line = self.line(&value);
        self.problem(line, format!("{key} is \"{shown}\"; allowed is {allowed}"));
        None
    }

    fn repository(&mut self, raw: Spanned<RawRepository>) -> Option<Repository> {
        let line = self.line(&raw);
        let raw = raw.into_inner();
        if raw.file.len() > FILES {
            self.problem(
                line,
                format!("{} files; allowed are at most {FILES}", raw.file.len()),
            );
            return None;
        }
        let name = self.checked("name", raw.name, check::is_repository, "OWNER/REPO");
        let revision = raw.revision.map(|revision| {
            self.checked(
                "revision",
                revision,
                check::is_commit,
                "a commit, in 40 hexadecimal digits",
            )
        });
        let url = raw.url.map(|url| {
            let is_good = |url: &str| url.ends_with('/') && super::source::is_address(url);
            self.checked(
                "url",
                url,
                is_good,
                "an https address that ends in `/`, without user or password",
            )
        });
        let known = "a variant, like \"gemma-4-e2b\"";
        let is_variant = |name: &str| Variant::named(name).is_some();
        let variant = self.checked("variant", raw.variant, is_variant, known);
        let name = name?;
        let files: Vec<_> = raw
            .file
            .into_iter()
            .filter_map(|file| self.file(&name, file))
            .collect();
        for (index, file) in files.iter().enumerate() {
            if files[..index].iter().any(|other| other.name == file.name) {
                self.problem(line, format!("{name} has two entries for {}", file.name));
            }
        }
        let repository = Repository {
            name,
            revision: revision.flatten(),
            url: url.flatten(),
            variant: Variant::named(&variant?)?,
            preferred: raw.preferred,
            files,
            line,
        };
        if let Some(part) = repository.missing_part() {
            let name = &repository.name;
            self.problem(line, format!("{name} has no entry for {part}"));
        }
        Some(repository)
    }

    fn file(&mut self, repository: &str, raw: Spanned<RawFile>) -> Option<PublishedFile> {
        let line = self.line(&raw);
        let raw = raw.into_inner();
        let name = self.checked(
            "name",
            raw.name,
            check::is_file,
            "the path of a GGUF file in its repository, in letters, digits and ._-",
        );
        let is_role = |text: &str| check::role(text).is_some();
        let role = self.checked(
            "role",
            raw.role,
            is_role,
            "\"model\", \"projector\" or \"drafter\"",
        );
        let quantization = self.checked(
            "quantization",
            raw.quantization,
            check::is_quantization,
            "a type of weights, like \"Q4_0\"",
        );
        let bytes = raw.bytes.and_then(|bytes| {
            let (line, bytes) = (self.line(&bytes), bytes.into_inner());
            if (1..=check::LARGEST_FILE).contains(&bytes) {
                return Some(bytes);
            }
            let most = check::LARGEST_FILE;
            self.problem(line, format!("bytes is {bytes}; allowed is 1 to {most}"));
            None
        });
        let sha256 = raw.sha256.and_then(|text| self.digest("sha256", text));
        let seen = raw.seen.into_iter();
        let seen = seen.filter_map(|text| self.digest("seen", text)).collect();
        let projector = raw
            .projector
            .and_then(|at| self.reference("projector", repository, at));
        let drafter = raw
            .drafter
            .and_then(|at| self.reference("drafter", repository, at));
        let role = check::role(&role?)?;
        if role != Role::Model && (projector.is_some() || drafter.is_some()) {
            self.problem(
                line,
                format!("a {role} has a projector or drafter of its own; only a model has"),
            );
        }
        Some(PublishedFile {
            name: name?,
            role,
            quantization: quantization?,
            bytes,
            sha256,
            seen,
            projector,
            drafter,
        })
    }

    fn digest(&mut self, key: &str, text: Spanned<String>) -> Option<Digest> {
        let is_good = |text: &str| check::digest(text).is_some();
        let text = self.checked(key, text, is_good, "a SHA-256, in 64 hexadecimal digits")?;
        check::digest(&text)
    }

    /// `FILE` of the same repository, or `OWNER/REPO:FILE`.
    fn reference(&mut self, key: &str, own: &str, text: Spanned<String>) -> Option<FileRef> {
        let line = self.line(&text);
        let apart = |text: &str| match text.split_once(':') {
            Some((repository, name)) => (repository.to_owned(), name.to_owned()),
            None => (own.to_owned(), text.to_owned()),
        };
        let is_good = |text: &str| {
            let (repository, name) = apart(text);
            check::is_repository(&repository) && check::is_file(&name)
        };
        let text = self.checked(key, text, is_good, "FILE, or OWNER/REPO:FILE")?;
        let (repository, name) = apart(&text);
        Some(FileRef {
            repository,
            name,
            line,
        })
    }

    fn refused(&mut self, raw: Spanned<RawRefused>) -> Option<Refused> {
        let line = self.line(&raw);
        let RawRefused {
            name,
            aliases,
            reason,
        } = raw.into_inner();
        let names = std::iter::once(&name).chain(&aliases);
        if aliases.len() > ENTRIES || !names.into_iter().all(|name| check::is_name(name)) {
            self.problem(line, "a name is not made of letters, digits and ._-".into());
            return None;
        }
        if !check::is_text(&reason) {
            self.problem(line, "reason is not one line of at most 400 bytes".into());
            return None;
        }
        Some(Refused {
            name,
            aliases,
            reason,
        })
    }

    fn allow(&mut self, raw: Spanned<RawAllow>) -> Option<Allow> {
        let line = self.line(&raw);
        let RawAllow {
            repositories,
            users,
            groups,
        } = raw.into_inner();
        if let Some(bad) = repositories.iter().find(|text| !allow::is_pattern(text)) {
            let bad: String = bad.escape_debug().take(80).collect();
            let text = format!(
                "repositories has \"{bad}\"; allowed is \"OWNER/REPO\", \"OWNER/*\", \"https://HOST/*\" or \"*\""
            );
            self.problem(line, text);
            return None;
        }
        let lists = [&repositories, &users, &groups];
        if repositories.is_empty() || lists.iter().any(|list| list.len() > ENTRIES) {
            self.problem(line, format!("repositories, users and groups have at most {ENTRIES} entries, and repositories at least one"));
            return None;
        }
        Some(Allow {
            repositories,
            users,
            groups,
        })
    }
}
