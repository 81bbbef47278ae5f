//! The files of the model directories: taken in, taken away, and hashed again. What is asked of a disk is asked on a thread
//! that may hang with it.

use std::collections::BTreeSet;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use tokio::sync::{mpsc, oneshot, watch};

use super::offers::PullBasis;
use super::{Setup, thread};
use crate::backend::{
    CatalogReport, Failure, Hashed, Import, Imported, ModelDetails, ModelPart, Removed, StoreFault,
    Verdict, VerifiedFile,
};
use crate::store::catalog::{Digest, Offers, Role, hexadecimal};
use crate::store::install::{self, Incoming, InstallError, Installed};
use crate::store::metadata::metadata;
use crate::store::{Model, free_bytes, record};

/// Pieces of a file that wait for the disk.
const PIECES: usize = 16;
/// Bytes that stay free on the disk when a file is taken in or fetched.
pub(super) const RESERVE: u64 = 256 << 20;

/// What can be asked of the model directories, and of what could be in them; always.
#[derive(Debug)]
pub(crate) enum StoreCommand {
    /// Answered when the model's header is read.
    Details {
        name: String,
        reply: oneshot::Sender<Result<ModelDetails, Failure>>,
    },
    /// Refused while the model is in use.
    Remove {
        id: String,
        reply: oneshot::Sender<Result<Removed, Failure>>,
    },
    /// Answered when the model's files are read.
    Verify {
        name: String,
        told: watch::Sender<Hashed>,
        reply: oneshot::Sender<Result<(String, Vec<VerifiedFile>), Failure>>,
    },
    /// Refused where the model directory cannot take the file.
    Import {
        folder: Option<String>,
        name: String,
        bytes: u64,
        reply: oneshot::Sender<Result<Import, Failure>>,
    },
    /// Says what could be had, and what it would take here.
    Catalog {
        reply: oneshot::Sender<Result<CatalogReport, Failure>>,
    },
    /// What the name of something that is to be fetched is resolved against.
    PullBasis {
        reply: oneshot::Sender<Result<PullBasis, Failure>>,
    },
}

impl StoreCommand {
    /// The name of the installed model that it is about.
    pub fn model(&self) -> Option<&str> {
        match self {
            Self::Details { name, .. } | Self::Verify { name, .. } => Some(name),
            Self::Remove { id, .. } => Some(id),
            Self::Import { .. } | Self::Catalog { .. } | Self::PullBasis { .. } => None,
        }
    }
}

/// A model's files: its own in their order, then those that belong to it.
pub(super) fn files_of(model: &Model) -> Vec<(Role, PathBuf)> {
    let projector = model
        .projector
        .iter()
        .map(|one| (Role::Projector, one.path.clone()));
    let drafter = model
        .drafter
        .iter()
        .map(|one| (Role::Drafter, one.path.clone()));
    let own = model.paths().into_iter().map(|path| (Role::Model, path));
    own.chain(projector).chain(drafter).collect()
}

/// What clients see of a model's files.
pub(super) fn parts_of(model: &Model) -> Vec<ModelPart> {
    let name = |path: &Path| {
        let name = path.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    };
    let part = |role: Role, path: &Path, bytes| ModelPart {
        role: role.id(),
        file: name(path),
        bytes,
    };
    let own = model.files.iter();
    let mut parts: Vec<_> = own
        .map(|file| part(Role::Model, &file.path, file.bytes))
        .collect();
    parts.extend(
        model
            .projector
            .iter()
            .map(|one| part(Role::Projector, &one.path, one.size)),
    );
    parts.extend(
        model
            .drafter
            .iter()
            .map(|one| part(Role::Drafter, &one.path, one.size)),
    );
    parts
}

/// All that there is to know of a model. Blocks on the disk.
pub(super) fn details(model: &Model, offers: &Offers) -> Result<ModelDetails, Failure> {
    let found = metadata(model.path()).map_err(|reason| Failure::BadModel {
        model: model.id.clone(),
        reason: reason.to_string(),
    })?;
    let key = |wanted: &str| {
        let found = found.keys.iter().find(|(key, _)| key == wanted);
        found.map(|(_, value)| value.clone())
    };
    let published = offers.published(model.variant);
    let recorded = record::read(model.path());
    let source = recorded.and_then(|record| {
        let published = offers.recognise(&record.sha256);
        let named =
            published.map(|(repository, file)| format!("{}:{}", repository.name, file.name));
        record.source.or(named)
    });
    Ok(ModelDetails {
        model: super::describe(model),
        path: model.path().to_owned(),
        source,
        licence: key("general.license").or_else(|| published.map(|one| one.licence.clone())),
        sampling: published.map(|one| {
            let sampling = one.sampling;
            (
                sampling.temperature,
                sampling.top_k,
                sampling.top_p,
                sampling.min_p,
            )
        }),
        template: found.template,
        metadata: found.keys,
    })
}

/// The files that go with a model: those of its own that no other model has.
pub(super) fn files_to_remove(model: &Model, models: &[Model]) -> Vec<PathBuf> {
    let others = models.iter().filter(|other| other.id != model.id);
    let kept: BTreeSet<PathBuf> = others.flat_map(files_of).map(|(_, path)| path).collect();
    let files = files_of(model).into_iter().map(|(_, path)| path);
    files.filter(|path| !kept.contains(path)).collect()
}

/// Takes a model away. Blocks on the disk.
pub(super) fn remove(
    id: String,
    files: &[PathBuf],
    directories: &[PathBuf],
) -> Result<Removed, Failure> {
    let bytes = install::remove(files, directories).map_err(failed)?;
    tracing::info!(model = id, bytes, "the model is removed");
    Ok(Removed {
        id,
        files: files
            .iter()
            .map(|path| path.display().to_string())
            .collect(),
        bytes,
    })
}

/// Hashes a model's files and holds them against what is recorded of them, or what a catalog says. Blocks on the disk, for as
/// long as it takes to read them, or until nobody is `told` any more.
pub(super) fn verify(
    model: &Model,
    offers: &Offers,
    told: &watch::Sender<Hashed>,
) -> Result<Vec<VerifiedFile>, Failure> {
    let files = files_of(model);
    let size = |path: &PathBuf| path.metadata().map_or(0, |metadata| metadata.len());
    told.send_replace(Hashed {
        model: model.id.clone(),
        bytes: files.iter().map(|(_, path)| size(path)).sum(),
        ..Hashed::default()
    });
    files
        .iter()
        .map(|(role, path)| verify_file(*role, path, offers, told))
        .collect()
}

fn verify_file(
    role: Role,
    path: &Path,
    offers: &Offers,
    told: &watch::Sender<Hashed>,
) -> Result<VerifiedFile, Failure> {
    let disk = |cause: io::Error| Failure::Store {
        fault: StoreFault::Disk,
        text: format!("{}: {cause}", path.display()),
    };
    let bytes = path.metadata().map_err(disk)?.len();
    told.send_modify(|hashed| hashed.file = path.display().to_string());
    let tell = |bytes: u64| {
        told.send_modify(|hashed| hashed.read += bytes);
        match told.is_closed() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    };
    let sha256 = install::hash_while(path, tell).map_err(disk)?;
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let verdict = judge(
        &name,
        &sha256,
        record::read(path).map(|record| record.sha256),
        offers,
    );
    if let Verdict::Differs { .. } = verdict {
        tracing::warn!(file = %path.display(), "the file is not what it was, or what was published");
    }
    Ok(VerifiedFile {
        role: role.id(),
        file: path.display().to_string(),
        bytes,
        sha256: hexadecimal(&sha256),
        verdict,
    })
}

/// What a hash says of a file: a record counts first, then any published file that hashes so, then those that are called so.
fn judge(name: &str, sha256: &Digest, recorded: Option<Digest>, offers: &Offers) -> Verdict {
    let published = offers
        .recognise(sha256)
        .map(|(repository, file)| format!("{}:{}", repository.name, file.name));
    if let Some(recorded) = recorded {
        return match recorded == *sha256 {
            true => Verdict::Matches {
                what: published.unwrap_or_else(|| "what it was when it came".into()),
            },
            false => Verdict::Differs {
                expected: hexadecimal(&recorded),
                what: "what it was when it came".into(),
            },
        };
    }
    if let Some(what) = published {
        return Verdict::Matches { what };
    }
    let files = offers
        .repositories
        .iter()
        .flat_map(|one| one.files.iter().map(move |file| (one, file)));
    let called_so = files.filter_map(|(repository, file)| {
        let own = file.name.rsplit('/').next() == Some(name);
        Some((
            format!("{}:{}", repository.name, file.name),
            file.sha256.filter(|_| own)?,
        ))
    });
    // Of several that are called so, it may be any.
    let mut called_so: Vec<_> = called_so.collect();
    match (called_so.pop(), called_so.is_empty()) {
        (Some((what, expected)), true) => Verdict::Differs {
            expected: hexadecimal(&expected),
            what,
        },
        _ => Verdict::Unknown,
    }
}

impl Setup {
    /// Begins to take in a file of so many bytes, into the first model directory. Blocks on the disk.
    pub(super) fn import(
        &self,
        folder: Option<&str>,
        name: &str,
        bytes: u64,
    ) -> Result<Incoming, Failure> {
        let Some(directory) = self.models.directories.first() else {
            return Err(Failure::no_models(&[], &[]));
        };
        let incoming = Incoming::begin(directory, folder, name).map_err(failed)?;
        let free = free_bytes(directory).unwrap_or(u64::MAX);
        if free.saturating_sub(RESERVE) < bytes {
            return Err(Failure::Store {
                fault: StoreFault::Full,
                text: format!(
                    "{} has {} MiB free, of which 256 MiB stay free; the file has {} MiB. `gemmactl rm` and `gemmactl cache clear` make room",
                    directory.display(),
                    free >> 20,
                    bytes >> 20
                ),
            });
        }
        Ok(incoming)
    }
}

/// Takes in what is sent, on a thread: the sender is told when it is there, or why it is not.
pub(super) fn receive(mut incoming: Incoming, expected: u64) -> Import {
    let (pieces, mut box_of_pieces) = mpsc::channel::<Vec<u8>>(PIECES);
    let (done, outcome) = oneshot::channel();
    tokio::spawn(async move {
        let taken = thread::run(move || -> Result<Installed, Failure> {
            let mut came = 0;
            while let Some(piece) = box_of_pieces.blocking_recv() {
                came += piece.len() as u64;
                incoming.write(&piece).map_err(failed)?;
            }
            if came != expected {
                return Err(Failure::Store {
                    fault: StoreFault::BadFile,
                    text: format!("{came} of {expected} bytes came"),
                });
            }
            incoming.finish().map_err(failed)
        });
        let taken = taken.await.unwrap_or_else(|error| {
            Err(Failure::NotNow {
                what: "the file cannot be taken in",
                cause: error.to_string(),
            })
        });
        let _ = done.send(taken.map(imported));
    });
    Import { pieces, outcome }
}

fn imported(installed: Installed) -> Imported {
    tracing::info!(file = %installed.path.display(), role = installed.role.id(), bytes = installed.bytes, "a file is imported");
    Imported {
        id: crate::store::model_id(&installed.path),
        file: installed.path.display().to_string(),
        role: installed.role.id(),
        bytes: installed.bytes,
        sha256: installed.sha256.map(|digest| hexadecimal(&digest)),
    }
}

fn failed(error: InstallError) -> Failure {
    let fault = match &error {
        InstallError::Name(_) | InstallError::BadFile(_) => StoreFault::BadFile,
        InstallError::Exists(_) | InstallError::Namesake { .. } => StoreFault::Exists,
        InstallError::Disk { cause, .. } => match cause.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreFault::Full,
            _ => StoreFault::Disk,
        },
    };
    Failure::Store {
        fault,
        text: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_held_against_the_record_and_then_the_catalogs() {
        let offers = Offers::built_in();
        let google = offers.repositories[0].files[0].clone();
        let (right, wrong) = (google.sha256.unwrap(), [7; 32]);
        let matches = |verdict: Verdict| matches!(verdict, Verdict::Matches { .. });
        assert!(matches(judge("x.gguf", &wrong, Some(wrong), &offers)));
        assert!(matches(judge("anything.gguf", &right, None, &offers)));
        // An earlier upload is known as well.
        assert!(matches(judge("x.gguf", &google.seen[0], None, &offers)));
        let Verdict::Differs { expected, what } = judge(&google.name, &wrong, None, &offers) else {
            panic!("{}", google.name);
        };
        assert_eq!(
            (expected, what.starts_with("google/")),
            (hexadecimal(&right), true)
        );
        let recorded = judge("x.gguf", &right, Some(wrong), &offers);
        assert!(matches!(recorded, Verdict::Differs { .. }));
        // Every repository has one that is called so.
        assert_eq!(
            judge("mmproj-F16.gguf", &wrong, None, &offers),
            Verdict::Unknown
        );
        assert_eq!(judge("mine.gguf", &wrong, None, &offers), Verdict::Unknown);
    }

    #[test]
    fn what_another_model_has_stays() {
        use crate::store::Projector;
        let projector = Projector {
            path: "/m/mmproj.gguf".into(),
            size: 1,
            width: 1,
            longest_side: 1,
            hearing: None,
            name: String::new(),
        };
        let model = |path: &str| Model {
            projector: Some(projector.clone()),
            ..Model::example(path)
        };
        let both = [model("/m/a.gguf"), model("/m/b.gguf")];
        assert_eq!(files_to_remove(&both[0], &both), [Path::new("/m/a.gguf")]);
        let alone = files_to_remove(&both[0], &both[..1]);
        assert_eq!(alone, ["/m/a.gguf", "/m/mmproj.gguf"].map(PathBuf::from));
    }
}
