//! All that the catalogs of a machine say, together. Pure.

use std::path::Path;

use super::name::{is_first, part_of};
use super::parse::{CatalogText, Problem, parse};
use super::{
    Allow, Digest, FileRef, FileToFetch, PublishedFile, Refused, Repository, Role, Source, check,
};
use crate::gemma::variant::Variant;
use crate::store::family::{FAMILY, Published};

/// What could be had, and who may have it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Offers {
    /// From the smallest to the largest.
    pub variants: Vec<Published>,
    /// In the order in which their files are preferred.
    pub repositories: Vec<Repository>,
    pub refused: Vec<Refused>,
    pub allow: Vec<Allow>,
}

/// A model that could be had, with what belongs to it.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    pub repository: &'a Repository,
    /// The first, if there are several.
    pub file: &'a PublishedFile,
    pub projector: Option<(&'a Repository, &'a PublishedFile)>,
    pub drafter: Option<(&'a Repository, &'a PublishedFile)>,
}

impl<'a> Entry<'a> {
    /// The model's files: its parts in their order, or the one that it is.
    pub fn files(&self) -> Vec<&'a PublishedFile> {
        let Some((name, _, of)) = part_of(&self.file.name) else {
            return vec![self.file];
        };
        let part = |number| self.repository.part(name, number, of);
        (1..=of).map_while(part).collect()
    }

    /// What the model is called once it is there.
    pub fn id(&self) -> String {
        crate::store::model_id(Path::new(check::file_name(&self.file.name)))
    }

    pub fn variant(&self) -> Variant {
        self.repository.variant
    }

    /// Bytes of the model's files; `None` where one is not known.
    pub fn model_bytes(&self) -> Option<u64> {
        self.files().iter().map(|file| file.bytes).sum()
    }

    /// Bytes of the model, and of what belongs to it; `None` where one is not known.
    pub fn bytes(&self) -> Option<u64> {
        let more = [self.projector, self.drafter];
        let mut sum = self.model_bytes()?;
        for (_, file) in more.into_iter().flatten() {
            sum += file.bytes?;
        }
        Some(sum)
    }
}

impl Repository {
    /// A part of a model.
    pub(super) fn part(&self, name: &str, number: u32, of: u32) -> Option<&PublishedFile> {
        let is_it = |file: &&PublishedFile| {
            file.role == Role::Model && part_of(&file.name) == Some((name, number, of))
        };
        self.files.iter().find(is_it)
    }

    /// What is missing of a model in parts.
    pub(super) fn missing_part(&self) -> Option<String> {
        let missing = |file: &PublishedFile| {
            let (name, _, of) = part_of(&file.name)?;
            let lacks = |number: &u32| self.part(name, *number, of).is_none();
            let number = (1..=of).find(lacks)?;
            Some(format!("part {number} of {of} of {name}"))
        };
        let models = self.files.iter().filter(|file| file.role == Role::Model);
        models.filter_map(missing).next()
    }
}

impl Offers {
    /// What is compiled in.
    pub fn built_in() -> Self {
        let mut offers = Self::default();
        // The tests read the file that is compiled in.
        if let Ok(catalog) = parse(FAMILY) {
            offers.variants = catalog.variants;
            offers.repositories = catalog.repositories;
            offers.refused = catalog.refused;
        }
        offers
    }

    /// Adds a catalog: its repositories replace those of the same name, and come first where they are preferred.
    ///
    /// # Errors
    /// What it names and nobody has; nothing is added then.
    pub fn add(&mut self, catalog: CatalogText) -> Result<(), Vec<Problem>> {
        let mut whole = self.clone();
        let mut problems = vec![];
        if !catalog.variants.is_empty() {
            problems.push(Problem {
                line: None,
                text: "has entries `[[variant]]`; those of the family are built in, only repositories can be added".into(),
            });
        }
        let names: Vec<String> = catalog
            .repositories
            .iter()
            .map(|one| one.name.clone())
            .collect();
        whole.repositories.retain(|one| !names.contains(&one.name));
        for (index, repository) in catalog.repositories.into_iter().enumerate() {
            if names[..index].contains(&repository.name) {
                problems.push(Problem {
                    line: Some(repository.line),
                    text: format!(
                        "{} has two entries; write its files into one",
                        repository.name
                    ),
                });
                continue;
            }
            let first = whole.repositories.iter().position(|one| !one.preferred);
            match repository.preferred {
                true => whole
                    .repositories
                    .insert(first.unwrap_or(whole.repositories.len()), repository),
                false => whole.repositories.push(repository),
            }
        }
        problems.extend(whole.dangling(&names));
        if !problems.is_empty() {
            return Err(problems);
        }
        whole.refused.extend(catalog.refused);
        whole.allow.extend(catalog.allow);
        *self = whole;
        Ok(())
    }

    /// References of these repositories, or to them, that lead nowhere.
    fn dangling(&self, of: &[String]) -> Vec<Problem> {
        let mut problems = vec![];
        for repository in &self.repositories {
            let files = repository.files.iter();
            let references = files.flat_map(|file| {
                let projector = file.projector.iter().map(|at| (at, Role::Projector));
                projector.chain(file.drafter.iter().map(|at| (at, Role::Drafter)))
            });
            for (at, role) in references {
                if self.find(at).is_some_and(|(_, file)| file.role == role) {
                    continue;
                }
                let text = format!(
                    "no catalog has the {role} {}:{}; it needs a [[repository.file]] of its own",
                    at.repository, at.name
                );
                match of.contains(&repository.name) {
                    true => problems.push(Problem {
                        line: Some(at.line),
                        text,
                    }),
                    // A repository that was replaced is lacked by another catalog's.
                    false => problems.push(Problem {
                        line: None,
                        text: format!("{text}, which {} refers to", repository.name),
                    }),
                }
            }
        }
        problems
    }

    /// The file that a reference names.
    pub fn find(&self, at: &FileRef) -> Option<(&Repository, &PublishedFile)> {
        let repository = self.repository(&at.repository)?;
        let file = repository.files.iter().find(|file| file.name == at.name)?;
        Some((repository, file))
    }

    /// A repository by its name, in any case.
    pub fn repository(&self, name: &str) -> Option<&Repository> {
        self.repositories
            .iter()
            .find(|one| one.name.eq_ignore_ascii_case(name))
    }

    /// All models, the preferred ones of each variant first.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        self.repositories.iter().flat_map(|repository| {
            let models = repository
                .files
                .iter()
                .filter(|file| file.role == Role::Model && is_first(&file.name));
            models.map(|file| Entry {
                repository,
                file,
                projector: file.projector.as_ref().and_then(|at| self.find(at)),
                drafter: file.drafter.as_ref().and_then(|at| self.find(at)),
            })
        })
    }

    /// The variant's own entry.
    pub fn published(&self, variant: Variant) -> Option<&Published> {
        self.variants.iter().find(|one| one.variant == variant)
    }

    /// The file that hashes, or once hashed, to this.
    pub fn recognise(&self, digest: &Digest) -> Option<(&Repository, &PublishedFile)> {
        let mut files = self
            .repositories
            .iter()
            .flat_map(|repository| repository.files.iter().map(move |file| (repository, file)));
        files.find(|(_, file)| file.sha256.as_ref() == Some(digest) || file.seen.contains(digest))
    }
}

/// How a published file is fetched.
pub fn to_fetch(repository: &Repository, file: &PublishedFile) -> FileToFetch {
    let source = match &repository.url {
        // Names of files have nothing but plain letters and a few that addresses spell otherwise.
        Some(url) => Source::Url(format!(
            "{url}{}",
            file.name
                .replace(' ', "%20")
                .replace('[', "%5B")
                .replace(']', "%5D")
        )),
        None => Source::Hub {
            repository: repository.name.clone(),
            revision: repository.revision.clone(),
            path: file.name.clone(),
        },
    };
    // A hash is of a revision; where there is none, what is there now may be another.
    let is_pinned = repository.revision.is_some() || repository.url.is_some();
    FileToFetch {
        role: file.role,
        source,
        name: check::file_name(&file.name).to_owned(),
        bytes: file.bytes.filter(|_| is_pinned),
        sha256: file.sha256.filter(|_| is_pinned),
    }
}
