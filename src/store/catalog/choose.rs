//! Which files of a repository are fetched, of all that it has. Pure.

use super::check;
use super::name::{is_first, is_meant, part_of, quantization_of, role_of};
use super::resolve::{Pull, Question, Unresolved, With};
use super::source::Part;
use super::{Digest, FileToFetch, Role, Source};
use crate::gemma::layout::MOST_FILES;
use crate::gemma::model_name::normal;
use crate::gemma::variant::Variant;

/// Types of weights that are taken where none was asked for, the best first: what the family is trained for, then what is
/// as small.
const USUAL: [&str; 8] = [
    "q4-0",
    "ud-q4-k-xl",
    "q4-k-m",
    "q4-k-s",
    "iq4-nl",
    "iq4-xs",
    "q5-k-m",
    "q8-0",
];
/// Types of a projector and of a drafter.
const OF_PROJECTORS: [&str; 4] = ["f16", "bf16", "q8-0", "f32"];
const OF_DRAFTERS: [&str; 4] = ["q4-0", "q8-0", "f16", "bf16"];
/// Names that a message lists.
const NAMED: usize = 12;

/// A file that a repository has, as its server lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub path: String,
    pub bytes: Option<u64>,
    pub sha256: Option<Digest>,
}

/// Answers a question by what the repository has. Files with names that cannot be kept are passed over.
///
/// # Errors
/// There is no model in it, or none that was asked for, or more than one.
pub fn choose(question: &Question, listed: &[Listed]) -> Result<Pull, Unresolved> {
    let files: Vec<&Listed> = listed
        .iter()
        .filter(|file| check::is_file(&file.path))
        .collect();
    let of = |role: Role| {
        let found = files.iter().copied();
        found
            .filter(|file| role_of(&file.path) == Some(role))
            .collect::<Vec<_>>()
    };
    let models = of(Role::Model);
    let repository = &question.repository;
    if models.is_empty() {
        return Err(Unresolved::refused(format!(
            "{repository} has no GGUF file of a model; repositories of GGUF files end in -GGUF, as a rule"
        )));
    }
    let chosen = model(question, &models, &files)?;
    let fetch = |role: Role, file: &Listed| FileToFetch {
        role,
        source: Source::Hub {
            repository: repository.clone(),
            revision: question.revision.clone(),
            path: file.path.clone(),
        },
        name: check::file_name(&file.path).to_owned(),
        bytes: file.bytes,
        sha256: file.sha256,
    };
    let mut pull = Pull {
        id: crate::store::model_id(std::path::Path::new(check::file_name(&chosen[0].path))),
        variant: Variant::named(repository).or_else(|| variant_in(&chosen[0].path)),
        files: chosen.iter().map(|file| fetch(Role::Model, file)).collect(),
        left_out: vec![],
    };
    let wanted = question.with.unwrap_or(With::ALL);
    let companions = [
        (
            Role::Projector,
            wanted.vision || wanted.audio,
            &OF_PROJECTORS,
        ),
        (Role::Drafter, wanted.drafter, &OF_DRAFTERS),
    ];
    for (role, is_wanted, usual) in companions {
        if !is_wanted {
            continue;
        }
        let (cut, whole): (Vec<&Listed>, Vec<&Listed>) = of(role)
            .iter()
            .partition(|file| part_of(&file.path).is_some());
        match best(&whole, usual) {
            Some(file) => pull.files.push(fetch(role, file)),
            None if question.with.is_some() && !cut.is_empty() => {
                return Err(Unresolved::refused(format!(
                    "{repository} has its {role} in parts ({}), and a {role} is read from one file only; leave it out of --with, or join the parts with `llama-gguf-split --merge` and `gemmactl import` the file",
                    cut[0].path
                )));
            }
            None if question.with.is_some() => {
                return Err(Unresolved::refused(format!(
                    "{repository} has no {role}; leave it out of --with"
                )));
            }
            None => {}
        }
    }
    Ok(pull)
}

fn variant_in(path: &str) -> Option<Variant> {
    let name = normal(check::file_name(path)).replace('.', "-");
    let variants = name.split('-').filter_map(Variant::named);
    variants.into_iter().next()
}

/// The model that is meant, in its parts. `all`: the repository's files.
fn model<'a>(
    question: &Question,
    models: &[&'a Listed],
    all: &[&Listed],
) -> Result<Vec<&'a Listed>, Unresolved> {
    let meant: Vec<&Listed> = match &question.part {
        Some(Part::File(name)) => {
            let found = models.iter().filter(|file| file.path == *name);
            found.copied().collect()
        }
        Some(Part::Quantization(asked)) => of_type(models, asked),
        None => {
            let usual = USUAL.iter().map(|usual| of_type(models, usual));
            let found = usual.into_iter().find(|found| !found.is_empty());
            found.unwrap_or_else(|| models.to_vec())
        }
    };
    let repository = &question.repository;
    let Some(first) = meant.first() else {
        let asked = match &question.part {
            Some(Part::File(name) | Part::Quantization(name)) => name.as_str(),
            None => "model",
        };
        let other = all.iter().find(|file| file.path == asked);
        return Err(Unresolved::refused(
            match other.and_then(|file| role_of(&file.path)) {
                Some(role) => format!(
                    "{asked} is a {role}, which comes with a model: {repository} has {}",
                    names(models)
                ),
                None => format!("{repository} has no {asked}; it has {}", names(models)),
            },
        ));
    };
    if let Some((name, _, of)) = part_of(&first.path) {
        return parts(models, name, of);
    }
    match &meant[..] {
        [one] => Ok(vec![one]),
        _ => Err(Unresolved::refused(format!(
            "{repository} has more than one model: write {repository}:NAME, for one of {}",
            names(&meant)
        ))),
    }
}

/// The models of a type, one for each set of parts.
fn of_type<'a>(models: &[&'a Listed], asked: &str) -> Vec<&'a Listed> {
    let typed = |exact: bool| {
        let fits = |path: &str| {
            quantization_of(path).is_some_and(|found| match exact {
                true => found == normal(asked),
                false => is_meant(asked, &found),
            })
        };
        let found = models
            .iter()
            .filter(|file| is_first(&file.path) && fits(&file.path));
        found.copied().collect::<Vec<_>>()
    };
    let exact = typed(true);
    if exact.is_empty() {
        typed(false)
    } else {
        exact
    }
}

/// All parts of a model, in their order.
fn parts<'a>(models: &[&'a Listed], name: &str, of: u32) -> Result<Vec<&'a Listed>, Unresolved> {
    if of == 0 || of as usize > MOST_FILES {
        return Err(Unresolved::refused(format!(
            "{name} is cut into {of} parts; at most {MOST_FILES} are fetched"
        )));
    }
    (1..=of)
        .map(|number| {
            let is_it = |file: &&&Listed| part_of(&file.path) == Some((name, number, of));
            let part = models.iter().find(is_it).copied();
            part.ok_or_else(|| {
                Unresolved::refused(format!("part {number} of {of} of {name} is missing there"))
            })
        })
        .collect()
}

fn best<'a>(files: &[&'a Listed], usual: &[&str]) -> Option<&'a Listed> {
    let rank = |file: &&&Listed| {
        let found = quantization_of(&file.path);
        let place = usual.iter().position(|one| found.as_deref() == Some(one));
        place.unwrap_or(usual.len())
    };
    files.iter().min_by_key(rank).copied()
}

fn names(files: &[&Listed]) -> String {
    let mut listed: Vec<&str> = files
        .iter()
        .take(NAMED)
        .map(|file| file.path.as_str())
        .collect();
    let more = format!("{} more", files.len().saturating_sub(NAMED));
    if files.len() > NAMED {
        listed.push(&more);
    }
    listed.join(", ")
}
