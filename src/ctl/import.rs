//! `gemmactl import`: files that are there already become models.
//!
//! Who may write the model directory writes it: their file shares its bytes with the source where the file system can
//! (reflink), or is a copy, or a second name. Everyone else sends the file to the daemon, which lets administrators.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD};
use serde::Deserialize;

use super::args::ImportArgs;
use super::client::Client;
use super::error::Error;
use super::foreign::{self, Found};
use super::show::{parse, promptly, show_size};
use super::text::Terminal;
use crate::store::catalog::Role;
use crate::store::install::{self, Incoming, InstallError, Installed};
use crate::store::model_id;

/// A file, and what it is to be called.
struct Source {
    path: PathBuf,
    name: String,
    role: Role,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Where {
    directory: Option<PathBuf>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Taken {
    file: String,
    bytes: u64,
}

pub async fn run(
    client: &dyn Client,
    args: &ImportArgs,
    terminal: &Terminal,
) -> Result<Vec<u8>, Error> {
    let files = match args.from {
        None => args.files.iter().map(|path| (path.clone(), None)).collect(),
        Some(_) => foreign(args, terminal)?,
    };
    let sources = files
        .into_iter()
        .map(|(path, name)| look(path, name, args.name.as_deref()))
        .collect::<Result<Vec<_>, _>>()?;
    let models = sources.iter().filter(|source| source.role == Role::Model);
    if sources.len() > 1
        && (models.clone().count() != 1 || args.name.is_some() && args.from.is_none())
    {
        return Err(Error::Usage(
            "of several files one must be a model, and the others its projector and its drafter; import models one by one, and without --as"
                .into(),
        ));
    }
    // What belongs together lies together, under a name that is nobody else's.
    let folder = models.map(|model| model_id(Path::new(&model.name))).next();
    let folder = folder.filter(|_| sources.len() > 1);
    let directory = parse::<Where>(promptly(client.catalog()).await?)?.directory;
    let directory = directory.filter(|directory| is_writable(directory));
    let mut told = String::new();
    for source in &sources {
        let (path, bytes, how) = match &directory {
            Some(directory) => here(source, directory, folder.as_deref(), args.link)?,
            None if args.link => {
                return Err(Error::Usage("you may not write the model directory, so it can have no second name of yours there; leave --link out".into()));
            }
            None => {
                let sent = client
                    .import(folder.as_deref(), &source.name, &source.path)
                    .await?;
                let taken: Taken = parse(sent)?;
                (taken.file, taken.bytes, "sent to the daemon")
            }
        };
        let path = terminal.out.clean(&path).into_owned();
        told.push_str(&format!(
            "{path}: a {}, {}, {how}\n",
            source.role,
            show_size(bytes)
        ));
    }
    Ok(told.into_bytes())
}

/// The files of the one model that is meant in another program's store.
fn foreign(
    args: &ImportArgs,
    terminal: &Terminal,
) -> Result<Vec<(PathBuf, Option<String>)>, Error> {
    let Some(store) = args.from else {
        return Ok(vec![]);
    };
    let (places, mut found) =
        foreign::find(store, |name| std::env::var_os(name).map(PathBuf::from));
    if let Some(only) = &args.only {
        let plain = only.to_lowercase();
        found.retain(|one| one.name.to_lowercase().contains(&plain));
    }
    match &found[..] {
        [one] => Ok(one
            .files
            .iter()
            .map(|(path, name)| (path.clone(), Some(name.clone())))
            .collect()),
        [] => {
            let places: Vec<_> = places
                .iter()
                .map(|place| place.display().to_string())
                .collect();
            Err(Error::Usage(format!(
                "no Gemma 4 model of that name is in {}",
                places.join(" or ")
            )))
        }
        several => {
            let name = |one: &Found| format!("  {}", terminal.err.clean(&one.name));
            let names: Vec<_> = several.iter().map(name).collect();
            Err(Error::Usage(format!(
                "there are several; name one with --only:\n{}",
                names.join("\n")
            )))
        }
    }
}

/// What a file is, and what it is to be called.
fn look(path: PathBuf, name: Option<String>, asked: Option<&str>) -> Result<Source, Error> {
    let failed = |cause: io::Error| Error::File {
        path: path.clone(),
        cause,
    };
    let whole = path.canonicalize().map_err(failed)?;
    let own = path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned());
    // What another program keeps may have a name of several files.
    let role =
        install::role_of(&whole).map_err(|error| refused(&path, &InstallError::BadFile(error)))?;
    let name = match asked.filter(|_| role == Role::Model) {
        Some(asked) => format!("{}.gguf", asked.strip_suffix(".gguf").unwrap_or(asked)),
        None => name.or(own).unwrap_or_default(),
    };
    Ok(Source {
        path: whole,
        name,
        role,
    })
}

fn refused(path: &Path, error: &InstallError) -> Error {
    Error::Usage(format!("{}: {error}", path.display()))
}

/// Whether this process may put files there.
fn is_writable(directory: &Path) -> bool {
    rustix::fs::accessat(
        CWD,
        directory,
        Access::WRITE_OK | Access::EXEC_OK,
        AtFlags::EACCESS,
    )
    .is_ok()
}

/// Puts a file into the model directory: its path there, its bytes, and how it came there.
fn here(
    source: &Source,
    directory: &Path,
    folder: Option<&str>,
    link: bool,
) -> Result<(String, u64, &'static str), Error> {
    let failed = |error: InstallError| match error {
        InstallError::Disk { path, cause } => Error::File { path, cause },
        error => Error::Usage(format!("{}: {error}", source.path.display())),
    };
    let told =
        |installed: Installed, how| (installed.path.display().to_string(), installed.bytes, how);
    if link {
        let linked = install::hard_link(&source.path, directory, folder, &source.name);
        return linked
            .map(|linked| told(linked, "another name of the same file"))
            .map_err(failed);
    }
    let cannot_read = |cause| Error::File {
        path: source.path.clone(),
        cause,
    };
    let file = File::open(&source.path).map_err(cannot_read)?;
    let mut incoming = Incoming::begin(directory, folder, &source.name).map_err(failed)?;
    let how = match incoming.share(&file) {
        true => "sharing its bytes",
        false => {
            incoming.copy(&file).map_err(failed)?;
            "copied"
        }
    };
    incoming
        .finish()
        .map(|installed| told(installed, how))
        .map_err(failed)
}
