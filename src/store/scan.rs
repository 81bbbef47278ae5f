//! Looks for models in directories.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use super::companion::pair;
use super::trust::Strictness;
use super::{
    BadFile, Catalog, Drafter, Installers, Model, Part, Patience, Projector, Rejected, model_id,
    read, read_drafter, read_projector, split, way,
};
use crate::sys::shortage::is_shortage;

/// Entries that are looked at below one model directory, its subfolders' included.
const ENTRIES: usize = 4096;
/// How long one file's header may take to be read: a slow card reads one of 16 MB in less. What it
/// may take besides has limits of its own (`gguf`).
const FILE_TIME: Duration = Duration::from_secs(10);
/// How long one directory's files may take together.
const DIRECTORY_TIME: Duration = Duration::from_secs(60);
/// The model name that stands for "the one that fits"; no file can have it.
pub const RESERVED: &str = "auto";

/// Looks for `*.gguf` files in a directory and in its subfolders, but not below those. Hidden names
/// are passed over; projectors and drafters go to the models of their folder that they fit. Where
/// two files have the same id, the one found first is the model: a directory's own files before its
/// subfolders', names in the order of their bytes, models in parts last. [`Catalog::merged`] puts
/// several directories together. Never fails: what cannot be used is in `rejected`, and so is what
/// others may change than root, the daemon's own user and those who may install models.
#[derive(Debug)]
pub struct Scan<'a> {
    /// Entries that may still be looked at.
    entries: usize,
    deadline: Instant,
    stop: &'a AtomicBool,
    strictness: Strictness<'a>,
    scanned: Scanned,
}

/// What a scan has found.
#[derive(Debug, Default)]
pub struct Scanned {
    pub catalog: Catalog,
    /// The system had no descriptor or memory left: more may be there.
    pub shortage: Option<io::Error>,
}

impl<'a> Scan<'a> {
    /// Whoever no longer wants to know what is found sets `stop`.
    pub fn new(installers: &'a Installers, stop: &'a AtomicBool) -> Self {
        Self {
            entries: ENTRIES,
            deadline: Instant::now() + DIRECTORY_TIME,
            stop,
            strictness: Strictness::new(installers),
            scanned: Scanned::default(),
        }
    }

    /// Blocks on the disk.
    pub fn run(mut self, directory: &Path) -> Scanned {
        for folder in self.folder(directory) {
            self.folder(&folder);
        }
        let models = &mut self.scanned.catalog.models;
        models.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        self.scanned
    }

    /// Adds one folder's files to the catalog; returns its subfolders, sorted.
    fn folder(&mut self, folder: &Path) -> Vec<PathBuf> {
        let checked = self.strictness.check(folder).map_err(BadFile::from);
        let listed = checked.and_then(|()| Ok(list(folder, &mut self.entries)?));
        let listing = match listed {
            Ok(listing) => listing,
            Err(error) => {
                let hides = error.hides_what_is_there();
                self.scanned.reject(folder, error, hides);
                return vec![];
            }
        };
        if listing.cut {
            let reason = format!("more than {ENTRIES} entries; not all were looked at");
            self.scanned.catalog.reject_as(folder, reason, true);
        }
        let mut found = Found::default();
        for path in &listing.files {
            if let Err(error) = self.file(path, &mut found) {
                self.scanned.reject(path, error, false);
            }
        }
        for parts in split::sets(std::mem::take(&mut found.parts)) {
            match parts {
                Ok(paths) => {
                    if let Err(error) = self.model(&paths) {
                        self.scanned.reject(&paths[0], error, false);
                    }
                }
                Err(rejected) => self.scanned.catalog.rejected.push(rejected),
            }
        }
        let catalog = &mut self.scanned.catalog;
        for model in catalog
            .models
            .iter_mut()
            .filter(|model| model.path().parent() == Some(folder))
        {
            model.projector = pair(model, &found.projectors).cloned();
            model.drafter = pair(model, &found.drafters).cloned();
        }
        listing.folders
    }

    /// Adds a file to the catalog, if it is a model, and to what was found otherwise.
    fn file(&mut self, path: &Path, found: &mut Found) -> Result<(), BadFile> {
        self.strictness.check(path)?;
        let patience = self.patience();
        match self.model(&[path.to_owned()]) {
            Ok(()) => {}
            Err(BadFile::Projector) => found.projectors.push(read_projector(path, patience)?.0),
            Err(BadFile::Drafter) => found.drafters.push(read_drafter(path, patience)?.0),
            Err(BadFile::Part(part)) => found.parts.push((path.to_owned(), part)),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Adds the model in a file, or in several, to the catalog.
    fn model(&mut self, paths: &[PathBuf]) -> Result<(), BadFile> {
        let (model, _) = read(paths, self.patience())?;
        self.scanned.catalog.add(model);
        Ok(())
    }

    fn patience(&self) -> Patience<'a> {
        Patience {
            deadline: Some(self.deadline.min(Instant::now() + FILE_TIME)),
            stop: Some(self.stop),
        }
    }
}

impl Scanned {
    fn reject(&mut self, path: &Path, error: BadFile, hides: bool) {
        self.catalog.reject_as(path, error.to_string(), hides);
        if let BadFile::Unreadable(error) = error
            && is_shortage(&error)
        {
            self.shortage = Some(error);
        }
    }
}

/// Where a change can change what a scan of a directory finds.
#[derive(Debug, Default)]
pub struct Surroundings {
    /// The directory and its subfolders: whatever happens in them.
    pub folders: Vec<PathBuf>,
    /// Places outside of them, or links in them: directories and links that lead to the folders or
    /// to a linked file, and what these stand for. Some may be missing.
    pub places: BTreeSet<PathBuf>,
}

/// What surrounds a directory's models at the moment. Blocks on the disk.
///
/// # Errors
///
/// The system has no descriptor or memory left.
pub fn surroundings(directory: &Path) -> io::Result<Surroundings> {
    let mut around = Surroundings::default();
    let mut entries = ENTRIES;
    let mut ahead = vec![(directory.to_owned(), true)];
    while let Some((folder, is_top)) = ahead.pop() {
        around.places.extend(way::places(&folder));
        let listing = match list(&folder, &mut entries) {
            Err(error) if is_shortage(&error) => return Err(error),
            // One that is not there, or that cannot be read, has nothing to add.
            listing => listing.unwrap_or_default(),
        };
        let linked = listing.files.iter().filter(|file| file.is_symlink());
        around
            .places
            .extend(linked.flat_map(|file| way::places(file)));
        if is_top {
            ahead.extend(listing.folders.into_iter().map(|folder| (folder, false)));
        }
        around.folders.push(folder);
    }
    Ok(around)
}

/// A file of these directories that has the id of a model already whose own files are to lie at `own`: of the two a scan takes
/// one, and nobody is served the other. By names alone. Blocks on the disk.
pub fn namesake(directories: &[PathBuf], id: &str, own: &[PathBuf]) -> Option<PathBuf> {
    let identity = |path: &Path| path.metadata().ok().map(|file| (file.dev(), file.ino()));
    let owned: Vec<_> = own.iter().filter_map(|path| identity(path)).collect();
    let is_other = |path: &PathBuf| {
        let there = identity(path).filter(|_| model_id(path) == id && !own.contains(path));
        // A directory may have two names.
        there.is_some_and(|there| !owned.contains(&there))
    };
    directories.iter().find_map(|directory| {
        let mut entries = ENTRIES;
        let top = list(directory, &mut entries).unwrap_or_default();
        let folders = top.folders.iter();
        let below = folders.flat_map(|folder| list(folder, &mut entries).unwrap_or_default().files);
        top.files.iter().cloned().chain(below).find(is_other)
    })
}

/// What a folder has besides models.
#[derive(Default)]
struct Found {
    projectors: Vec<Projector>,
    drafters: Vec<Drafter>,
    parts: Vec<(PathBuf, Part)>,
}

/// A folder's visible entries that matter, sorted.
#[derive(Default)]
struct Listing {
    files: Vec<PathBuf>,
    folders: Vec<PathBuf>,
    /// There were more entries than the budget allows.
    cut: bool,
}

fn list(folder: &Path, budget: &mut usize) -> io::Result<Listing> {
    let mut listing = Listing::default();
    for entry in fs::read_dir(folder)? {
        if *budget == 0 {
            listing.cut = true;
            break;
        }
        *budget -= 1;
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        // Links count as what they point to. One that points nowhere is kept where it is named like
        // a model, so that its owner hears of it.
        if path.is_dir() {
            listing.folders.push(path);
        } else if path
            .extension()
            .is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
        {
            listing.files.push(path);
        }
    }
    listing.files.sort_unstable();
    listing.folders.sort_unstable();
    Ok(listing)
}

impl Catalog {
    /// The catalogs of several directories, in their order, as one. Of two models with the same id
    /// the first is kept and the other rejected.
    pub fn merged(catalogs: impl IntoIterator<Item = Self>) -> Self {
        let mut all = Self::default();
        for catalog in catalogs {
            all.rejected.extend(catalog.rejected);
            catalog.models.into_iter().for_each(|model| all.add(model));
        }
        all.models.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        all
    }

    fn add(&mut self, model: Model) {
        if model.id == RESERVED {
            self.reject(
                model.path(),
                format!("the name `{RESERVED}` means the model that fits best; rename the file"),
            );
        } else if let Some(first) = self.models.iter().find(|other| other.id == model.id) {
            let reason = format!(
                "{} has the same id `{}` and comes first; rename one of them",
                first.path().display(),
                model.id
            );
            self.reject(model.path(), reason);
        } else {
            self.models.push(model);
        }
    }

    fn reject(&mut self, path: &Path, reason: String) {
        self.rejected.push(Rejected::file(path, reason));
    }

    fn reject_as(&mut self, path: &Path, reason: String, hides: bool) {
        self.rejected.push(Rejected {
            path: path.to_owned(),
            reason,
            hides,
        });
    }
}

#[cfg(test)]
mod tests;
