//! Where the files of a model go, and what it may be called. What a model answers, it answers to everyone: nothing that comes may take
//! the place of what is there, or come to lie beside it and so belong to it.

use std::path::{Path, PathBuf};

use super::refused;
use crate::backend::{Failure, Puller};
use crate::engine::names::is_auto;
use crate::gemma::model_name::ModelName;
use crate::store::catalog::{Pull, Role, Source};
use crate::store::partial::Journal;
use crate::store::{RESERVED, namesake};

/// The folder of a model's files; `None`: the model directory itself. It is that of the model's repository, in which nobody else's
/// files come to lie.
pub fn folder_of(pull: &Pull) -> Option<String> {
    let is_model = |role: Role| role == Role::Model;
    let model = pull.files.iter().find(|file| is_model(file.role))?;
    match &model.source {
        Source::Hub { repository, .. } => Some(repository.replace('/', "--")),
        Source::Url(_) if pull.files.iter().all(|file| is_model(file.role)) => None,
        Source::Url(_) => Some(pull.id.clone()),
    }
}

/// Refuses a name that is no model's own. One that many files are meant by (`gemma-4-e2b-it`, `gpt-4o`) may be given by administrators
/// only: a file that has it comes before all others.
///
/// # Errors
/// The name, and what it means.
pub fn check_word(id: &str, by: &Puller, auto_names: &[String]) -> Result<(), Failure> {
    if id == RESERVED {
        return Err(refused(format!(
            "the file would be called `{RESERVED}`, which means the model that fits best; download it by other means, and `gemmactl import FILE --as NAME`"
        )));
    }
    let is_variant = || ModelName::parse(id).is_some_and(|name| name.quantization.is_none());
    if by.account().is_some() && (is_auto(auto_names, id) || is_variant()) {
        return Err(refused(format!(
            "the file would be called `{id}`, a name that clients of everybody use for any file of its kind; only administrators may fetch it"
        )));
    }
    Ok(())
}

/// Refuses a model that is called like another one. `directory` is where it is to go, `directories` are all that have models. Blocks on
/// the disk.
///
/// # Errors
/// The other one's file.
pub fn check(directory: &Path, directories: &[PathBuf], journal: &Journal) -> Result<(), Failure> {
    let folder = match &journal.folder {
        Some(folder) => directory.join(folder),
        None => directory.to_owned(),
    };
    let models = journal
        .files
        .iter()
        .filter(|file| file.role == Role::Model.id());
    let own: Vec<PathBuf> = models.map(|file| folder.join(&file.name)).collect();
    match namesake(directories, &journal.model, &own) {
        Some(other) => Err(installed(&journal.model, &other)),
        None => Ok(()),
    }
}

fn installed(id: &str, other: &Path) -> Failure {
    refused(format!(
        "`{id}` is installed already, as {}; `gemmactl rm {id}` takes it away",
        other.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::PrincipalId;
    use crate::store::catalog::FileToFetch;

    fn file(role: Role, source: Source) -> FileToFetch {
        FileToFetch {
            role,
            source,
            name: "x.gguf".into(),
            bytes: None,
            sha256: None,
        }
    }

    fn hub(repository: &str) -> Source {
        Source::Hub {
            repository: repository.into(),
            revision: None,
            path: "x.gguf".into(),
        }
    }

    #[test]
    fn files_lie_with_those_of_their_model() {
        let folder = |files: Vec<FileToFetch>| {
            folder_of(&Pull {
                id: "x".into(),
                variant: None,
                files,
                left_out: vec![],
            })
        };
        let (own, others) = (hub("acme/x"), hub("google/x"));
        let url = Source::Url("https://h/x.gguf".into());
        let model = |source: &Source| file(Role::Model, source.clone());
        let projector = file(Role::Projector, others.clone());
        assert_eq!(folder(vec![model(&own)]).unwrap(), "acme--x");
        assert_eq!(
            folder(vec![model(&own), projector.clone()]).unwrap(),
            "acme--x"
        );
        assert_eq!(folder(vec![model(&url)]), None);
        assert_eq!(folder(vec![model(&url), projector]).unwrap(), "x");
    }

    #[test]
    fn what_means_many_models_is_the_administrators_to_give() {
        let user = Puller::User {
            who: PrincipalId::User(1),
            rights: vec![],
        };
        let names = ["gpt-4o".to_owned()];
        let may = |id: &str, by: &Puller| check_word(id, by, &names).is_ok();
        for id in ["gemma-4-e2b-it", "e2b", "gemma4", "gpt-4o"] {
            assert!(!may(id, &user) && may(id, &Puller::Administrator), "{id}");
        }
        for id in ["gemma-4-e2b_q4_0-it", "legal-e2b", "mine"] {
            assert!(may(id, &user), "{id}");
        }
        assert!(!may("auto", &Puller::Administrator));
    }
}
