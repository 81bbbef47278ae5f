//! The catalogs of this machine, read from the disk.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use minisign_verify::{PublicKey, Signature};

use super::offers::Offers;
use super::parse::{CatalogText, Problem, parse};
use crate::store::Installers;
use crate::store::trust::{Refusal, Strictness};

/// The largest catalog, in bytes.
const LARGEST: u64 = 1 << 20;
/// Catalogs in the folder.
const CATALOGS: usize = 64;
/// What a signature's file is called, after its catalog.
const SIGNATURE: &str = ".minisig";
/// The largest signature, in bytes.
const LARGEST_SIGNATURE: u64 = 4096;

/// Where catalogs are, and whose they must be.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// A folder; it need not exist.
    pub folder: &'a Path,
    /// The key that must have signed each of them, in minisign's base64; empty: they need no signature.
    pub key: &'a str,
}

/// A catalog that is passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    pub path: PathBuf,
    /// Ready to be shown behind the path: every problem, with its line.
    pub reason: String,
}

/// What was read. What is compiled in is taken apart when it is wanted: that is seldom, and it would take a third of the
/// memory of a daemon that waits.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Catalogs {
    added: Vec<CatalogText>,
    pub broken: Vec<Broken>,
}

impl Catalogs {
    /// All that could be had.
    pub fn offers(&self) -> Offers {
        let mut offers = Offers::built_in();
        for catalog in &self.added {
            // Each was added before, in this order.
            let _ = offers.add(catalog.clone());
        }
        offers
    }
}

/// The folder's `*.toml`, in the order of their names. A catalog that cannot be used is passed over, and the others are read.
/// Blocks on the disk.
pub fn read_all(place: Option<&Place<'_>>) -> Catalogs {
    let mut catalogs = Catalogs::default();
    let Some(place) = place else { return catalogs };
    let files = match list(place.folder) {
        Ok(files) if files.is_empty() => return catalogs,
        Ok(files) => files,
        Err(error) => {
            catalogs.broken.push(Broken {
                path: place.folder.to_owned(),
                reason: format!("cannot be listed: {error}"),
            });
            return catalogs;
        }
    };
    let mut offers = Offers::built_in();
    for path in files {
        match add(&mut offers, &path, place.key) {
            Ok(catalog) => catalogs.added.push(catalog),
            Err(reason) => catalogs.broken.push(Broken { path, reason }),
        }
    }
    catalogs
}

/// Names that begin with a dot are editors' leftovers.
fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        entries => entries?,
    };
    let mut files = vec![];
    for entry in entries {
        let path = entry?.path();
        let hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|end| end == "toml") {
            files.push(path);
        }
    }
    files.sort_unstable();
    if files.len() > CATALOGS {
        return Err(io::Error::other(format!(
            "it has more than {CATALOGS} catalogs"
        )));
    }
    Ok(files)
}

/// Adds one catalog to what there is, whole or not at all.
fn add(offers: &mut Offers, path: &Path, key: &str) -> Result<CatalogText, String> {
    // What it says can let others pull: nobody else may write it.
    check(path)?;
    let bytes = read(path, LARGEST).map_err(|error| format!("cannot be read: {error}"))?;
    if !key.is_empty() {
        verify(&bytes, path, key)?;
    }
    let text = String::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())?;
    let catalog = parse(&text).map_err(|problems| told(&problems))?;
    let added = offers.add(catalog.clone());
    added.map_err(|problems| told(&problems))?;
    Ok(catalog)
}

fn check(path: &Path) -> Result<(), String> {
    let root = Installers::default();
    match Strictness::new(&root).check(path) {
        Ok(()) => Ok(()),
        Err(Refusal::Unreadable(error)) => Err(format!("cannot be read: {error}")),
        Err(Refusal::Distrust(distrust)) => Err(format!(
            "not used, because {}; catalogs are root's or the daemon's own",
            distrust.cause()
        )),
    }
}

/// A regular file of at most so many bytes.
fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut bytes = vec![];
    // One byte more than allowed tells a full file from one that is too long.
    File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::other(format!("it is longer than {most} bytes")));
    }
    Ok(bytes)
}

/// Whether the key signed these bytes; the signature lies beside the catalog.
fn verify(bytes: &[u8], path: &Path, key: &str) -> Result<(), String> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(SIGNATURE);
    let beside = PathBuf::from(beside);
    let name = beside.display();
    let key = PublicKey::from_base64(key)
        .map_err(|_| "`catalog-key` in gemmad.toml is no key of minisign's".to_owned())?;
    let signature = read(&beside, LARGEST_SIGNATURE).map_err(|error| {
        format!(
            "`catalog-key` in gemmad.toml wants a signature, but {name} cannot be read: {error}"
        )
    })?;
    let signature = String::from_utf8(signature).ok();
    let signature = signature.and_then(|text| Signature::decode(&text).ok());
    let signature = signature.ok_or_else(|| format!("{name} is no signature of minisign's"))?;
    key.verify(bytes, &signature, false).map_err(|error| {
        format!("{name} is not the signature of it by `catalog-key` in gemmad.toml: {error}")
    })
}

/// All problems in a line.
fn told(problems: &[Problem]) -> String {
    let one = |problem: &Problem| match problem.line {
        Some(line) => format!("line {line}: {}", problem.text),
        None => problem.text.clone(),
    };
    problems.iter().map(one).collect::<Vec<_>>().join("; ")
}
