//! What somebody asks for becomes the list of files that are fetched, each with its length and its hash, and it is found out whether
//! they can be used and there is room for them, before a byte of them is moved.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use url::Url;

use super::failures::not_served;
use super::file::{LONGEST_ETAG, address};
use super::hops::{self, Memory};
use super::hub::{self, Listing};
use super::leg::{End, server};
use super::naming;
use super::refused;
use super::retry::Attempts;
use super::rights::rights_of;
use super::way::Way;
use crate::backend::{
    CatalogReport, Failure, PullAsk, PullFault, PullMemory, PullPlan, PulledFile, Puller,
};
use crate::engine::PullBasis;
use crate::engine::keep::RESERVE;
use crate::ipc::PullHead;
use crate::store::catalog::{
    Ask, FileToFetch, Pull, Resolved, Role, Source, Unresolved, With, choose, digest_of,
    hexadecimal, is_file_name, resolve,
};
use crate::store::partial::{Journal, PartialFile, PartialSource};
use crate::store::{free_bytes, gguf};

/// Bytes of a file's beginning in which its architecture stands.
const BEGINNING: u64 = 64 << 10;
/// Attempts at what must be known first: somebody waits.
const ATTEMPTS: u32 = 3;
/// What stands between an address and the hash that its file must have.
const HASH: &str = "#sha256=";
/// Bytes of what is asked for.
const LONGEST_NAME: usize = 4096;
/// Digits of an id.
const DIGITS: usize = 16;

/// What is to be done.
pub struct Planned {
    pub plan: PullPlan,
    pub journal: Journal,
}

/// Finds out what is meant, and whether it can be had. Blocks on servers and on the disk. `directories`: all model directories, of
/// which the first is written to; there is one.
///
/// # Errors
/// Nobody has it, it cannot be used, or a server does not answer.
pub fn plan(
    way: &Way,
    directories: &[PathBuf],
    ask: &PullAsk,
    by: &Puller,
    basis: &PullBasis,
    report: &CatalogReport,
) -> Result<Planned, Failure> {
    let (what, hash) = split_hash(&ask.model)?;
    let directory = &directories[0];
    let resolved = resolved(&way.pull.hub, what, ask, basis)?;
    if let Puller::User { rights, .. } = by
        && *rights != rights_of(resolved.places(), basis)
    {
        // Memory or a catalog has changed since they were let in.
        return Err(Failure::Pull {
            fault: PullFault::Busy,
            text: format!("what {what} means has just changed; try again"),
        });
    }
    let pull = meant(way, resolved)?;
    if hash.is_some() && pull.files.len() > 1 {
        return Err(refused(format!(
            "what follows #sha256= is of one file, and {} comes in {} parts; leave it out",
            pull.id,
            pull.files.len()
        )));
    }
    let folder = naming::folder_of(&pull);
    let mut files = vec![];
    for file in &pull.files {
        files.push(partial(way, file, hash)?);
    }
    let mut journal = Journal {
        id: id(directory, folder.as_deref(), &files),
        asked: ask.model.split('?').next().unwrap_or_default().to_owned(),
        model: pull.id.clone(),
        folder,
        files,
        boot: String::new(),
        owner: None,
    };
    naming::check_word(&journal.model, by, &basis.auto_names)?;
    naming::check(directory, directories, &journal)?;
    look_at(way, directory, &mut journal)?;
    let plan = PullPlan {
        model: pull.id.clone(),
        directory: directory.display().to_string(),
        download: download(&journal),
        disk: free(directory),
        left_out: pull.left_out.iter().map(|role| role.id()).collect(),
        memory: memory(report, &pull.id),
        files: journal.files.iter().map(planned).collect(),
    };
    Ok(Planned { plan, journal })
}

/// Refuses what the disk has no room for.
pub fn check_room(plan: &PullPlan) -> Result<(), Failure> {
    let wanted = plan.download.unwrap_or(0);
    if plan.disk.saturating_sub(RESERVE) >= wanted {
        return Ok(());
    }
    Err(Failure::Pull {
        fault: PullFault::Full,
        text: format!(
            "{} has {} MiB free, of which {} MiB stay free, and {} MiB would come; `gemmactl rm` and `gemmactl cache clear` make room",
            plan.directory,
            plan.disk >> 20,
            RESERVE >> 20,
            wanted >> 20
        ),
    })
}

/// A new journal, with what an earlier one of the same files has.
pub fn carried_over(mut new: Journal, begun: Option<Journal>) -> Journal {
    let Some(begun) = begun else { return new };
    let is_same = |(new, old): (&PartialFile, &PartialFile)| {
        new.name == old.name
            && new.source == old.source
            && (new.sha256.is_none() || old.sha256.is_none() || new.sha256 == old.sha256)
            && (new.bytes.is_none() || old.bytes.is_none() || new.bytes == old.bytes)
    };
    if new.files.len() == begun.files.len() && new.files.iter().zip(&begun.files).all(is_same) {
        return begun;
    }
    // Other files of the same names: nothing of what came counts.
    for file in &mut new.files {
        file.good = 0;
    }
    new
}

/// Takes the hash off an address.
pub fn split_hash(asked: &str) -> Result<(&str, Option<&str>), Failure> {
    if asked.len() > LONGEST_NAME {
        return Err(refused(format!(
            "a model's name or address has at most {LONGEST_NAME} bytes"
        )));
    }
    let Some((what, hash)) = asked.split_once(HASH) else {
        return Ok((asked, None));
    };
    match digest_of(hash) {
        Some(_) => Ok((what, Some(hash))),
        None => Err(refused(
            "what follows #sha256= must be 64 hexadecimal digits",
        )),
    }
}

/// What a name means.
pub fn resolved(
    hub: &str,
    what: &str,
    ask: &PullAsk,
    basis: &PullBasis,
) -> Result<Resolved, Failure> {
    let with = ask.with.as_deref().map(With::parse).transpose();
    let host = Url::parse(hub).ok().and_then(|hub| {
        let host = hub.host_str()?.to_owned();
        Some(match hub.port() {
            Some(port) => format!("{host}:{port}"),
            None => host,
        })
    });
    let asked = Ask {
        what,
        with: with.map_err(refused)?,
        quantization: ask.quantization.as_deref(),
        hub: host.as_deref(),
    };
    resolve(&basis.offers, &asked, &basis.machine).map_err(unresolved)
}

/// The files that are meant.
fn meant(way: &Way, resolved: Resolved) -> Result<Pull, Failure> {
    let mut pull = match resolved {
        Resolved::Pull(pull) => pull,
        Resolved::Ask(mut question) => {
            let revision = question.revision.as_deref();
            let listing = listing(way, &question.repository, revision)?;
            question.revision = Some(listing.revision.clone());
            return choose(&question, &listing.files).map_err(unresolved);
        }
    };
    for file in &mut pull.files {
        complete(way, file)?;
    }
    Ok(pull)
}

fn unresolved(unresolved: Unresolved) -> Failure {
    let fault = match &unresolved {
        Unresolved::Unknown(_) => PullFault::Unknown,
        Unresolved::Refused(_) => PullFault::Refused,
    };
    Failure::Pull {
        fault,
        text: unresolved.to_string(),
    }
}

/// Asks the hub for what a catalog does not say of a file.
fn complete(way: &Way, file: &mut FileToFetch) -> Result<(), Failure> {
    let Source::Hub {
        repository,
        revision,
        path,
    } = &mut file.source
    else {
        return Ok(());
    };
    if revision.is_some() && file.bytes.is_some() && file.sha256.is_some() {
        return Ok(());
    }
    let listing = listing(way, repository, revision.as_deref())?;
    let Some(listed) = listing.files.iter().find(|listed| listed.path == *path) else {
        return Err(Failure::Pull {
            fault: PullFault::Unknown,
            text: format!(
                "{repository} has no {path} at revision {}",
                listing.revision
            ),
        });
    };
    file.bytes = file.bytes.or(listed.bytes);
    file.sha256 = file.sha256.or(listed.sha256);
    *revision = Some(listing.revision.clone());
    Ok(())
}

fn listing(way: &Way, repository: &str, revision: Option<&str>) -> Result<Listing, Failure> {
    let url = hub::listing_address(&way.pull.hub, repository, revision);
    let url = url.ok_or_else(|| refused("`hub` in gemmad.toml is no address"))?;
    let answer = ask_server(way, &url, repository, hub::LARGEST_LISTING, false)?;
    let told = |text| server(format!("{repository}: {text}"));
    hub::read_listing(&answer.bytes).map_err(told)
}

/// Asks a server for something short; tries again a few times.
fn ask_server(way: &Way, url: &Url, what: &str, most: u64, part: bool) -> Result<Answer, Failure> {
    let (mut attempts, stop) = (Attempts::default(), AtomicBool::new(false));
    let named = |failure: Failure| match failure {
        Failure::Pull { fault, text } => Failure::Pull {
            fault,
            text: format!("{what}: {text}"),
        },
        other => other,
    };
    for last in (0..ATTEMPTS).rev() {
        let mut memory = Memory::new();
        let request = |url: &Url| {
            let mut request = way.request(url, 0, most);
            request.part = part;
            request
        };
        let (end, linked) = hops::run(way, url, request, &mut memory, &stop).map_err(named)?;
        let (cause, asked) = match end {
            End::Ended => {
                return Ok(Answer {
                    bytes: memory.bytes,
                    head: memory.head,
                    linked,
                });
            }
            End::Refused {
                status: status @ (408 | 425 | 429 | 500..=599),
                retry_after,
            } => (format!("its server answers {status}"), retry_after),
            End::Refused { status, .. } => return Err(named(not_served(status, way))),
            End::Broken {
                reason,
                distrusted: true,
            } => return Err(named(server(reason))),
            End::Broken { reason, .. } => (reason, None),
            other => (format!("{other:?}"), None),
        };
        let pause = attempts.failed(false, asked, 1.0).unwrap_or_default();
        // Nobody is to wait for minutes before anything is said.
        if last == 0 || pause > Duration::from_secs(10) {
            return Err(named(server(without_network(way, cause))));
        }
        std::thread::sleep(pause);
    }
    Err(named(server("its server does not answer")))
}

/// A cause, and the remedy where the service's confinement may be it.
pub(super) fn without_network(way: &Way, cause: String) -> String {
    let is_service = std::env::var_os("INVOCATION_ID").is_some() && !way.socket.exists();
    match is_service {
        true => format!(
            "{cause}. The service itself has no network: `systemctl enable --now gemmad-pull.socket` lets it fetch models"
        ),
        false => cause,
    }
}

struct Answer {
    bytes: Vec<u8>,
    head: PullHead,
    linked: hops::Linked,
}

/// A journal's entry for a file.
fn partial(way: &Way, file: &FileToFetch, hash: Option<&str>) -> Result<PartialFile, Failure> {
    let source = match &file.source {
        Source::Hub {
            repository,
            revision,
            path,
        } => PartialSource::Hub {
            repository: repository.clone(),
            revision: revision.clone().unwrap_or_else(|| "main".into()),
            path: path.clone(),
        },
        Source::Url(url) => PartialSource::Url(url.clone()),
    };
    if address(&way.pull.hub, &source).is_none() || !is_file_name(&file.name) {
        return Err(refused(format!("{} has no address", file.name)));
    }
    Ok(PartialFile {
        role: file.role.id().to_owned(),
        source,
        name: file.name.clone(),
        bytes: file.bytes,
        sha256: file
            .sha256
            .as_ref()
            .map(hexadecimal)
            .or(hash.map(str::to_lowercase)),
        etag: None,
        good: 0,
        ranges: false,
        apart: None,
        whole: None,
    })
}

/// The same for the same files, so that asking again goes on.
fn id(directory: &Path, folder: Option<&str>, files: &[PartialFile]) -> String {
    let mut hash = Sha256::new();
    hash.update(directory.as_os_str().as_encoded_bytes());
    hash.update([0]);
    hash.update(folder.unwrap_or_default());
    for file in files {
        hash.update([0]);
        hash.update(&file.name);
    }
    let digest: [u8; 32] = hash.finalize().into();
    hexadecimal(&digest)[..DIGITS].to_owned()
}

/// Which files are there already, and whether the others are what can be used.
fn look_at(way: &Way, directory: &Path, journal: &mut Journal) -> Result<(), Failure> {
    let folder = match &journal.folder {
        Some(folder) => directory.join(folder),
        None => directory.to_owned(),
    };
    for file in &mut journal.files {
        let place = folder.join(&file.name);
        match place.metadata() {
            Ok(metadata) => {
                if file.bytes.is_none() {
                    look_at_beginning(way, file)?;
                }
                let recorded =
                    crate::store::record::read(&place).map(|record| hexadecimal(&record.sha256));
                let differs =
                    recorded.is_some() && file.sha256.is_some() && recorded != file.sha256;
                if differs || file.bytes.is_some_and(|bytes| bytes != metadata.len()) {
                    return Err(refused(format!(
                        "{} is there already, and is another file; `gemmactl rm {}` takes it away",
                        place.display(),
                        journal.model
                    )));
                }
                file.bytes = Some(metadata.len());
                file.good = metadata.len();
                file.whole = recorded.or(Some(String::new()));
            }
            Err(_) => look_at_beginning(way, file)?,
        }
    }
    Ok(())
}

/// Asks for a file's beginning: how long it is, and of what architecture.
fn look_at_beginning(way: &Way, file: &mut PartialFile) -> Result<(), Failure> {
    let url = address(&way.pull.hub, &file.source);
    let url = url.ok_or_else(|| refused(format!("{} has no address", file.name)))?;
    let answer = ask_server(way, &url, &file.source.shown(), BEGINNING, true)?;
    let total = answer.head.total.or(answer.linked.bytes);
    file.ranges = answer.head.part;
    let etag = answer.head.etag;
    file.etag = etag.filter(|etag| etag.len() <= LONGEST_ETAG);
    match (file.bytes, total) {
        (Some(wanted), Some(total)) if wanted != total => {
            return Err(refused(format!(
                "{} has {total} bytes at its server, and should have {wanted}",
                file.name
            )));
        }
        _ => file.bytes = file.bytes.or(total),
    }
    if file.sha256.is_none() {
        let etag = answer
            .linked
            .etag
            .map(|etag| etag.trim_matches('"').to_lowercase());
        file.sha256 = etag.filter(|etag| digest_of(etag).is_some());
    }
    let architecture = gguf::beginning_says(&answer.bytes, "general.architecture")
        .map_err(|error| refused(format!("{} is no model: {error}", file.name)))?;
    match architecture {
        Some(found) if !crate::store::is_known_architecture(&found) => Err(refused(format!(
            "{} is of the architecture `{}`, and gemmad serves Gemma 4",
            file.name,
            found.escape_debug().take(64).collect::<String>()
        ))),
        _ => Ok(()),
    }
}

fn free(directory: &Path) -> u64 {
    // One that is not made yet lies on the disk of the directory above it.
    let there = directory.ancestors().find(|path| path.is_dir());
    there.and_then(|path| free_bytes(path).ok()).unwrap_or(0)
}

/// Bytes that have to come.
fn download(journal: &Journal) -> Option<u64> {
    let missing = journal.files.iter().filter(|file| file.whole.is_none());
    missing.map(|file| file.bytes).sum()
}

fn planned(file: &PartialFile) -> PulledFile {
    PulledFile {
        role: [Role::Projector, Role::Drafter]
            .into_iter()
            .find(|role| role.id() == file.role)
            .unwrap_or(Role::Model)
            .id(),
        name: file.name.clone(),
        source: file.source.shown(),
        bytes: file.bytes,
        sha256: file.sha256.clone(),
        received: file.good,
        done: file.whole.is_some(),
    }
}

fn memory(report: &CatalogReport, id: &str) -> Option<PullMemory> {
    let entry = report.entries.iter().find(|entry| entry.id == id)?;
    let memory = entry.memory?;
    Some(PullMemory {
        fits: memory.fits,
        needs: memory.total,
        budget: report.budget,
        automatic: report.automatic.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal(hash: Option<&str>, good: u64) -> Journal {
        let files = vec![PartialFile {
            role: "model".into(),
            source: PartialSource::Url("https://h/x.gguf".into()),
            name: "x.gguf".into(),
            bytes: Some(10),
            sha256: hash.map(str::to_owned),
            etag: None,
            good,
            ranges: false,
            apart: None,
            whole: None,
        }];
        Journal {
            id: id(Path::new("/m"), None, &files),
            asked: "x".into(),
            model: "x".into(),
            folder: None,
            files,
            boot: String::new(),
            owner: None,
        }
    }

    #[test]
    fn what_was_begun_counts_while_it_is_the_same() {
        let begun = journal(Some("aa"), 5);
        assert_eq!(
            carried_over(journal(Some("aa"), 0), Some(begun.clone())),
            begun
        );
        let new = journal(Some("bb"), 0);
        assert_eq!(carried_over(new.clone(), Some(begun)), new);
        assert_eq!(carried_over(new.clone(), None), new);
    }

    #[test]
    fn an_address_may_say_what_its_file_hashes_to() {
        let hash = "ab".repeat(32);
        let asked = format!("https://h/x.gguf#sha256={hash}");
        let (what, found) = split_hash(&asked).unwrap();
        assert_eq!((what, found), ("https://h/x.gguf", Some(hash.as_str())));
        assert_eq!(split_hash("e2b").unwrap(), ("e2b", None));
        assert!(split_hash("https://h/x.gguf#sha256=ab").is_err());
    }
}
