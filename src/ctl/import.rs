//! `gemmactl import`: files that are there already become models.
//!
//! Who may write the model directory writes it: their file shares its bytes with the source where the file system can
//! (reflink), or is a copy, or a second name. Everyone else sends the file to the daemon, which lets administrators.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Access, AtFlags, CWD};
use serde::Deserialize;
use serde_json::Value;

use super::args::ImportArgs;
use super::bar::Bar;
use super::client::Client;
use super::error::Error;
use super::foreign;
use super::show::{parse, promptly, show_size};
use super::text::Terminal;
use crate::store::catalog::{Role, all_parts, part_name};
use crate::store::install::{self, Incoming, InstallError, Installed};
use crate::store::model_id;

/// How long the daemon is waited for that must notice new files.
const NOTICED: Duration = Duration::from_secs(3);

/// A file, or all parts of one in their order, with what each is to be called.
struct Source {
    files: Vec<(PathBuf, String)>,
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
        Some(_) => foreign(args)?,
    };
    let sources = together(files)
        .into_iter()
        .map(|files| look(files, args.name.as_deref()))
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
    let folder = models
        .map(|model| model_id(Path::new(&model.files[0].1)))
        .next();
    let folder = folder.filter(|_| {
        sources
            .iter()
            .map(|source| source.files.len())
            .sum::<usize>()
            > 1
    });
    let directory = parse::<Where>(promptly(client.catalog()).await?)?.directory;
    let directory = directory.filter(|directory| is_writable(directory));
    if directory.is_none() && args.link {
        return Err(Error::Usage("you may not write the model directory, so it can have no second name of yours there; leave --link out".into()));
    }
    let (mut told, bar) = (String::new(), Bar::new(terminal));
    for source in &sources {
        let taken = match &directory {
            Some(directory) => here(source, directory, folder.as_deref(), args.link, &bar),
            None => sent(client, source, folder.as_deref(), &bar).await,
        };
        bar.clear();
        let taken = taken?;
        for (number, (path, bytes, how)) in taken.iter().enumerate() {
            let what = match taken.len() {
                1 => format!("a {}", source.role),
                of => format!("part {} of {of} of a {}", number + 1, source.role),
            };
            let (path, bytes) = (terminal.out.clean(path), show_size(*bytes));
            told.push_str(&format!("{path}: {what}, {bytes}, {how}\n"));
        }
    }
    if let Some(model) = sources.iter().find(|source| source.role == Role::Model) {
        let files = sources.iter().map(|source| source.files.len()).sum();
        listed(client, &model_id(Path::new(&model.files[0].1)), files).await;
    }
    Ok(told.into_bytes())
}

/// Waits until the daemon has noticed a model and so many files of it, so that it can be asked at once; not for ever, since it may have
/// reasons to pass one over, which `gemmactl models` tells.
async fn listed(client: &dyn Client, id: &str, files: usize) {
    let end = Instant::now() + NOTICED;
    while Instant::now() < end {
        let Ok(models) = promptly(client.models()).await else {
            return;
        };
        let mut ids = models["data"].as_array().into_iter().flatten();
        let has_all = |model: &Value| model["files"].as_array().map_or(0, Vec::len) >= files;
        if ids.any(|model| model["id"] == id && has_all(model)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A file that was taken in: its path there, its bytes, and how it came there.
type TakenIn = (String, u64, &'static str);

/// Sends the files to the daemon.
async fn sent(
    client: &dyn Client,
    source: &Source,
    folder: Option<&str>,
    bar: &Bar,
) -> Result<Vec<TakenIn>, Error> {
    let mut taken = vec![];
    for (path, name) in &source.files {
        let Taken { file, bytes } = parse(client.import(folder, name, path, bar).await?)?;
        taken.push((file, bytes, "sent to the daemon"));
    }
    Ok(taken)
}

/// Files and what each is to be called, with the parts of one model together: whichever of them are named, all are meant, and those
/// that are not named lie beside them.
fn together(files: Vec<(PathBuf, Option<String>)>) -> Vec<Vec<(PathBuf, String)>> {
    let mut all: Vec<Vec<(PathBuf, String)>> = vec![];
    let files: Vec<_> = files
        .into_iter()
        .map(|(path, name)| {
            let own = path.file_name().unwrap_or_default().to_string_lossy();
            let name = name.unwrap_or_else(|| own.into_owned());
            (path, name)
        })
        .collect();
    for (path, name) in &files {
        let Some(parts) = all_parts(name) else {
            all.push(vec![(path.clone(), name.clone())]);
            continue;
        };
        if all.iter().flatten().any(|(_, taken)| taken == name) {
            continue;
        }
        let part = |name: String| {
            let given = files.iter().find(|(_, given)| *given == name);
            let beside = path.with_file_name(&name);
            let path = given.map_or(beside, |(given, _)| given.clone());
            (path, name)
        };
        all.push(parts.into_iter().map(part).collect());
    }
    all
}

/// The files of the one model that is meant in another program's store.
fn foreign(args: &ImportArgs) -> Result<Vec<(PathBuf, Option<String>)>, Error> {
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
            let places = places.join(" or ");
            Err(Error::Usage(match args.only {
                Some(_) => format!("no Gemma 4 model of that name is in {places}"),
                None => format!(
                    "no model called Gemma 4 is in {places}; one that is called otherwise is imported by its file: `gemmactl import FILE`"
                ),
            }))
        }
        several => {
            let names: Vec<_> = several.iter().map(|one| one.name.as_str()).collect();
            Err(Error::Usage(format!(
                "there are several; name one with --only: {}",
                names.join(", ")
            )))
        }
    }
}

/// What files are together, and what they are to be called.
fn look(files: Vec<(PathBuf, String)>, asked: Option<&str>) -> Result<Source, Error> {
    let first = files[0].0.clone();
    let found = files.into_iter().map(|(path, name)| {
        // What another program keeps may have a name of several files.
        let whole = path.canonicalize();
        let whole = whole.map_err(|cause| Error::File { path, cause })?;
        Ok((whole, name))
    });
    let mut files = found.collect::<Result<Vec<_>, Error>>()?;
    let paths: Vec<_> = files.iter().map(|(path, _)| path.clone()).collect();
    let role =
        install::role_of(&paths).map_err(|error| refused(&first, &InstallError::BadFile(error)))?;
    if let Some(asked) = asked.filter(|_| role == Role::Model) {
        let (asked, of) = (
            asked.strip_suffix(".gguf").unwrap_or(asked),
            files.len() as u32,
        );
        for ((_, name), number) in files.iter_mut().zip(1..) {
            *name = match of {
                1 => format!("{asked}.gguf"),
                _ => part_name(asked, number, of),
            };
        }
    }
    Ok(Source { files, role })
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

/// Puts files into the model directory: all, or none.
fn here(
    source: &Source,
    directory: &Path,
    folder: Option<&str>,
    link: bool,
    bar: &Bar,
) -> Result<Vec<TakenIn>, Error> {
    let place = folder.map_or(directory.to_owned(), |folder| directory.join(folder));
    let (mut taken, mut came) = (vec![], vec![]);
    for (path, name) in &source.files {
        let was_there = place.join(name).exists();
        match put(path, name, directory, folder, link, bar) {
            Ok((one, how)) => {
                came.extend((!was_there).then(|| one.path.clone()));
                taken.push((one, how));
            }
            Err(error) => {
                // What stays is told at the next attempt.
                let _ = install::remove(&came, &[directory.to_owned()]);
                return Err(error);
            }
        }
    }
    let told = taken.into_iter();
    Ok(told
        .map(|(one, how)| (one.path.display().to_string(), one.bytes, how))
        .collect())
}

fn put(
    path: &Path,
    name: &str,
    directory: &Path,
    folder: Option<&str>,
    link: bool,
    bar: &Bar,
) -> Result<(Installed, &'static str), Error> {
    let failed = |error: InstallError| match error {
        InstallError::Disk { path, cause } => Error::File { path, cause },
        error => refused(path, &error),
    };
    if link {
        let linked = install::hard_link(path, directory, folder, name).map_err(failed)?;
        return Ok((linked, "another name of the same file"));
    }
    let cannot_read = |cause| Error::File {
        path: path.to_owned(),
        cause,
    };
    let file = File::open(path).map_err(cannot_read)?;
    let mut incoming = Incoming::begin(directory, folder, name).map_err(failed)?;
    let how = match incoming.share(&file) {
        true => "sharing its bytes",
        false => {
            bar.begin(file.metadata().map_err(cannot_read)?.len());
            let copied = incoming.copy(&file, |bytes| bar.add(bytes));
            copied.map_err(failed)?;
            "copied"
        }
    };
    Ok((incoming.finish().map_err(failed)?, how))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whichever_part_is_named_all_are_meant() {
        let named = |paths: &[&str]| {
            let files = paths.iter().map(|path| (PathBuf::from(path), None));
            let all = together(files.collect());
            let paths = |set: Vec<(PathBuf, String)>| {
                set.into_iter()
                    .map(|(path, _)| path.display().to_string())
                    .collect::<Vec<_>>()
            };
            all.into_iter().map(paths).collect::<Vec<_>>()
        };
        let parts = [1, 2, 3].map(|number| format!("/d/x-0000{number}-of-00003.gguf"));
        assert_eq!(named(&[&parts[0]]), [parts.to_vec()]);
        let eyes = "/e/mmproj.gguf";
        assert_eq!(
            named(&[&parts[2], eyes, &parts[1]]),
            [parts.to_vec(), vec![eyes.to_owned()]]
        );
        // Another program keeps them under names that say nothing.
        let kept = |number: u32| {
            let name = format!("x-{number:05}-of-00002.gguf");
            (PathBuf::from(format!("/blobs/{number}")), Some(name))
        };
        let all = together(vec![kept(2), kept(1)]);
        let paths = all[0].iter().map(|(path, _)| path.to_str().unwrap());
        assert_eq!(paths.collect::<Vec<_>>(), ["/blobs/1", "/blobs/2"]);
    }
}
