//! Files of a model directory that are still being fetched: they lie in its hidden folder `.pull`, which no scan looks
//! into, under names that no model has, beside a journal for each model that says what they will be and how far they are.
//!
//! ```text
//!   .pull/ID.json    the journal: what is fetched from where, and of each file which bytes the disk has
//!   .pull/ID.N.part  the file of number N
//! ```
//!
//! A journal is written after the disk has what it speaks of, and replaced whole. So after whatever happened, the first bytes
//! of a file up to what its journal says are good, and the parts that it names behind them; the rest is fetched again. A file gets its name when all files of its
//! model are whole, on the disk and known to be what they should be; the model itself gets it last, so that it is never there without what
//! belongs to it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{Access, AtFlags, CWD, FallocateFlags, FlockOperation, OFlags, RenameFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::install::check_folder;
use super::replace::{UNFINISHED, replace};

/// Where partial files lie, in a model directory.
pub const FOLDER: &str = ".pull";
/// The largest journal that is read, in bytes.
const LARGEST: u64 = 1 << 20;
/// Journals that are looked at, and that are written.
const JOURNALS: usize = 64;
/// Parts of a file that lie apart: more than connections leave behind.
const MOST_APART: usize = 1024;
/// Everybody may read a model; see [`super::install`].
const MODE: u32 = 0o644;
const FOLDER_MODE: u32 = 0o755;

/// What is fetched for one model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    /// Hexadecimal digits.
    pub id: String,
    /// What was asked for.
    pub asked: String,
    /// What the model will be called.
    pub model: String,
    /// The folder of the model directory that its files go into; `None`: the directory itself.
    pub folder: Option<String>,
    pub files: Vec<PartialFile>,
    /// The kernel's start, as it names them: as long as it is the same one, what was written is there, whether the disk has it
    /// or not.
    #[serde(default)]
    pub boot: String,
    /// The user on whose account it is; `None`: nobody's, an administrator's.
    #[serde(default)]
    pub owner: Option<u32>,
}

/// One of its files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartialFile {
    /// `model`, `projector` or `drafter`
    pub role: String,
    pub source: PartialSource,
    pub name: String,
    pub bytes: Option<u64>,
    /// In hexadecimal digits.
    pub sha256: Option<String>,
    /// What its server called this state of it.
    pub etag: Option<String>,
    /// Bytes that the disk has.
    pub good: u64,
    /// Whether its server sends parts of it.
    #[serde(default)]
    pub ranges: bool,
    /// `Some`: it comes over several connections, so that its length says nothing of what is in it. What the disk has behind `good`: where
    /// each part starts and ends, in order and with gaps between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apart: Option<Vec<(u64, u64)>>,
    /// What it hashed to when it was whole.
    pub whole: Option<String>,
}

impl PartialFile {
    /// Bytes behind the first gap.
    pub fn bytes_apart(&self) -> u64 {
        let parts = self.apart.iter().flatten();
        parts.map(|(start, end)| end - start).sum()
    }

    /// Nothing of it is here.
    pub fn forget(&mut self) {
        (self.good, self.apart, self.whole) = (0, None, None);
    }

    /// Whether what it says of its parts can be.
    fn is_sound(&self) -> bool {
        let Some(apart) = &self.apart else {
            return true;
        };
        let mut end = self.good;
        apart.len() <= MOST_APART
            && apart.iter().all(|part| {
                let is_next = end < part.0 && part.0 < part.1;
                end = part.1;
                is_next
            })
    }
}

/// Where it comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PartialSource {
    Hub {
        repository: String,
        revision: String,
        path: String,
    },
    Url(String),
}

impl PartialSource {
    /// As it may be told: what follows a question mark can be a key.
    pub fn shown(&self) -> String {
        match self {
            Self::Hub {
                repository,
                revision,
                path,
            } => format!("{repository}@{revision}:{path}"),
            Self::Url(url) => url.split('?').next().unwrap_or_default().to_owned(),
        }
    }
}

/// The hidden folder of a model directory, held by this daemon alone.
#[derive(Debug)]
pub struct PartialFolder {
    directory: PathBuf,
    path: PathBuf,
    /// Its lock is this process's for as long as it is open.
    _lock: File,
    naming: Mutex<()>,
}

/// Why the folder cannot be had.
#[derive(Debug)]
pub enum FolderError {
    /// Another daemon fetches files into this directory.
    Held,
    Disk(io::Error),
}

impl From<io::Error> for FolderError {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

impl PartialFolder {
    /// Makes the folder, if it is not there, and takes it for this daemon. Blocks on the disk, as all of this does.
    ///
    /// # Errors
    /// Another daemon has it, or the directory cannot be written.
    pub fn open(directory: &Path) -> Result<Self, FolderError> {
        // Where the folder is there already, and nothing beside it can be given a name, it is said before anything comes.
        let writable = Access::WRITE_OK | Access::EXEC_OK;
        match rustix::fs::accessat(CWD, directory, writable, AtFlags::EACCESS) {
            Err(Errno::NOENT) => {}
            allowed => allowed.map_err(io::Error::from)?,
        }
        let path = directory.join(FOLDER);
        let make = || DirBuilder::new().mode(0o700).create(&path);
        let made = match make() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                DirBuilder::new()
                    .recursive(true)
                    .mode(FOLDER_MODE)
                    .create(directory)?;
                make()
            }
            made => made,
        };
        match made {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error.into()),
            _ => {}
        }
        // Not a link that somebody put there.
        let lock = OpenOptions::new()
            .read(true)
            .custom_flags((OFlags::DIRECTORY | OFlags::NOFOLLOW).bits() as i32)
            .open(&path)?;
        let metadata = lock.metadata()?;
        let is_own = metadata.uid() == rustix::process::geteuid().as_raw();
        if !is_own || metadata.mode() & 0o077 != 0 {
            // What lies in it would be taken for what this daemon began.
            return Err(FolderError::Disk(io::Error::other(format!(
                "{} is not this daemon's alone; take it away",
                path.display()
            ))));
        }
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => return Err(FolderError::Held),
            locked => locked.map_err(io::Error::from)?,
        }
        sweep(&path);
        Ok(Self {
            directory: directory.to_owned(),
            path,
            _lock: lock,
            naming: Mutex::default(),
        })
    }

    /// Whether the directory has such a folder; one that it has not needs no look for what is left in it.
    pub fn is_there(directory: &Path) -> bool {
        directory.join(FOLDER).is_dir()
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What was begun and is not done. What cannot be understood is passed over.
    pub fn journals(&self) -> Vec<Journal> {
        let Ok(entries) = fs::read_dir(&self.path) else {
            return vec![];
        };
        let paths = entries.flatten().map(|entry| entry.path());
        let named = paths.filter(|path| path.extension().is_some_and(|end| end == "json"));
        let mut journals: Vec<Journal> = named
            .take(JOURNALS)
            .filter_map(|path| read(&path))
            .collect();
        journals.sort_by(|a, b| a.id.cmp(&b.id));
        journals
    }

    /// Parts of which no journal speaks, with their bytes. Not for use while a download begins.
    pub fn forgotten(&self) -> Vec<(PathBuf, u64)> {
        let entries = fs::read_dir(&self.path).into_iter().flatten().flatten();
        let is_part = |entry: &fs::DirEntry| {
            let name = entry.file_name();
            let parts: Vec<&str> = name.to_str()?.split('.').collect();
            match parts[..] {
                [id, _, "part"] => Some(!self.journal(id).exists()),
                _ => None,
            }
        };
        let forgotten = entries.filter(|entry| is_part(entry) == Some(true));
        let sized =
            forgotten.filter_map(|entry| Some((entry.path(), entry.metadata().ok()?.len())));
        sized.collect()
    }

    fn journal(&self, id: &str) -> PathBuf {
        self.path.join(format!("{id}.json"))
    }

    /// Where the file of this number lies until it is whole.
    pub fn part(&self, id: &str, number: usize) -> PathBuf {
        self.path.join(format!("{id}.{number}.part"))
    }

    /// Bytes of a file, from its start on, that are good: those that the disk had when the journal was written, and all if the kernel is still the
    /// same.
    pub fn good(&self, journal: &Journal, number: usize) -> u64 {
        let file = &journal.files[number];
        let length = self
            .part(&journal.id, number)
            .metadata()
            .map(|part| part.len());
        match length {
            Ok(length)
                if file.apart.is_none() && !journal.boot.is_empty() && journal.boot == boot() =>
            {
                length
            }
            Ok(length) => file.good.min(length),
            Err(_) => 0,
        }
    }

    /// Replaces a journal, whole or not at all.
    ///
    /// # Errors
    /// The disk refuses, or it is more than would be read again.
    pub fn write(&self, journal: &Journal) -> io::Result<()> {
        let text = serde_json::to_string(journal)?;
        if text.len() as u64 > LARGEST {
            return Err(io::Error::other("the addresses of its files are too long"));
        }
        // An address in it can have a key.
        replace(&self.journal(&journal.id), 0o600, text.as_bytes())?;
        sync(&self.path)
    }

    /// Opens a file of which the first `good` bytes are good, and parts up to `end`; what is behind that is cut off. Takes the room
    /// for `bytes` on the disk, where the file system can. Returns its length, `end` at most.
    ///
    /// # Errors
    /// The disk refuses, or has no room.
    pub fn open_part(
        &self,
        id: &str,
        number: usize,
        good: u64,
        end: u64,
        bytes: Option<u64>,
    ) -> io::Result<(File, u64)> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits() as i32)
            .open(self.part(id, number))?;
        // Somebody may have cut it.
        let end = end.max(good).min(file.metadata()?.len());
        file.set_len(end)?;
        let good = good.min(end);
        if let Some(bytes) = bytes.filter(|bytes| *bytes > good) {
            let room = rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, good, bytes - good);
            // Any other refusal is of no account: it only takes what is needed later anyway.
            if let Err(error @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) = room {
                return Err(error.into());
            }
        }
        Ok((file, end))
    }

    /// Where a file goes.
    pub fn place(&self, journal: &Journal, number: usize) -> PathBuf {
        let folder = match &journal.folder {
            Some(folder) => self.directory.join(folder),
            None => self.directory.clone(),
        };
        folder.join(&journal.files[number].name)
    }

    /// While this is held nobody else gives files their names.
    pub fn naming(&self) -> MutexGuard<'_, ()> {
        self.naming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a whole file its name. One that has it already is left as it is.
    ///
    /// # Errors
    /// There is another file of that name, or the disk refuses.
    pub fn publish(&self, journal: &Journal, number: usize) -> io::Result<PathBuf> {
        let (part, place) = (self.part(&journal.id, number), self.place(journal, number));
        let folder = place.parent().unwrap_or(&self.directory);
        let file = match File::open(&part) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && place.exists() => {
                return Ok(place);
            }
            file => file?,
        };
        file.set_permissions(fs::Permissions::from_mode(MODE))?;
        file.sync_all()?;
        match fs::create_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if folder != self.directory {
                    check_folder(folder, &self.directory)?;
                }
            }
            made => {
                made?;
                fs::set_permissions(folder, fs::Permissions::from_mode(FOLDER_MODE))?;
                sync(&self.directory)?;
            }
        }
        match rustix::fs::renameat_with(CWD, &part, CWD, &place, RenameFlags::NOREPLACE) {
            // The file system cannot say so; a link takes no other file's place either.
            Err(Errno::INVAL | Errno::NOSYS) => {
                fs::hard_link(&part, &place)?;
                fs::remove_file(&part)?;
            }
            renamed => renamed?,
        }
        sync(folder)?;
        Ok(place)
    }

    /// Gives the room back that was taken for what has not come.
    pub fn give_room_back(&self, journal: &Journal) {
        for number in 0..journal.files.len() {
            let part = OpenOptions::new()
                .write(true)
                .custom_flags(OFlags::NOFOLLOW.bits() as i32)
                .open(self.part(&journal.id, number));
            // Room that stays taken is given back when the download goes on.
            let _ = part.and_then(|part| part.set_len(part.metadata()?.len()));
        }
    }

    /// Forgets a model that is there, or not wanted any more, with all that is left of its files.
    pub fn forget(&self, journal: &Journal) {
        for number in 0..journal.files.len() {
            let _ = fs::remove_file(self.part(&journal.id, number));
        }
        let _ = fs::remove_file(self.journal(&journal.id));
    }
}

/// Takes away what was not whole when the daemon ended.
fn sweep(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(UNFINISHED.as_bytes()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn read(path: &Path) -> Option<Journal> {
    if !path.symlink_metadata().ok()?.is_file() {
        return None;
    }
    let mut text = String::new();
    File::open(path)
        .ok()?
        .take(LARGEST)
        .read_to_string(&mut text)
        .ok()?;
    let journal: Journal = serde_json::from_str(&text).ok()?;
    let is_sound = path
        .file_stem()
        .is_some_and(|stem| stem == journal.id.as_str())
        && journal.id.bytes().all(|byte| byte.is_ascii_hexdigit())
        && !journal.files.is_empty()
        && journal
            .files
            .iter()
            .all(|file| super::catalog::is_file_name(&file.name) && file.is_sound())
        && journal
            .folder
            .as_ref()
            .is_none_or(|folder| super::catalog::is_file_name(&format!("{folder}.gguf")));
    is_sound.then_some(journal)
}

/// How the kernel names its start; empty if it does not.
pub fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}

/// So that names are on the disk as well.
fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn journal(files: &[&str]) -> Journal {
        let file = |name: &&str| PartialFile {
            role: "model".into(),
            source: PartialSource::Url(format!("https://h/{name}?key=1")),
            name: (*name).into(),
            bytes: Some(4),
            sha256: None,
            etag: None,
            good: 0,
            ranges: false,
            apart: None,
            whole: None,
        };
        Journal {
            id: "0a".into(),
            asked: "x".into(),
            model: "x".into(),
            folder: Some("some-model".into()),
            files: files.iter().map(file).collect(),
            boot: String::new(),
            owner: None,
        }
    }

    #[test]
    fn what_is_begun_is_found_again_up_to_what_is_good() {
        let directory = tempfile::tempdir().unwrap();
        let folder = PartialFolder::open(directory.path()).unwrap();
        let mut begun = journal(&["a.gguf", "b.gguf"]);
        let (mut file, good) = folder.open_part("0a", 0, 0, 0, Some(4)).unwrap();
        assert_eq!(good, 0);
        file.write_all(b"abXX").unwrap();
        begun.files[0].good = 2;
        folder.write(&begun).unwrap();
        drop((file, folder));

        let folder = PartialFolder::open(directory.path()).unwrap();
        assert_eq!(folder.journals(), [begun.clone()]);
        let (mut file, good) = folder.open_part("0a", 0, 2, 2, Some(4)).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), good), ("ab", 2));
        // One that was cut is good as far as it goes.
        file.set_len(1).unwrap();
        assert_eq!(folder.open_part("0a", 0, 2, 2, Some(4)).unwrap().1, 1);
        assert_eq!(folder.forgotten(), []);
        fs::remove_file(folder.journal("0a")).unwrap();
        assert_eq!(folder.forgotten(), [(folder.part("0a", 0), 1)]);
        folder.forget(&begun);
        assert_eq!(fs::read_dir(&folder.path).unwrap().count(), 0);
        assert!(!begun.files[0].source.shown().contains("key"));
    }

    #[test]
    fn of_what_came_over_several_connections_the_journal_alone_says_what_is_good() {
        let directory = tempfile::tempdir().unwrap();
        let folder = PartialFolder::open(directory.path()).unwrap();
        let mut begun = journal(&["a.gguf"]);
        begun.boot = boot();
        let (file, end) = folder.open_part("0a", 0, 0, 0, Some(9)).unwrap();
        assert_eq!(end, 0);
        file.set_len(8).unwrap();
        assert_eq!(folder.good(&begun, 0), 8);
        begun.files[0].good = 2;
        begun.files[0].apart = Some(vec![(3, 5), (6, 8)]);
        folder.write(&begun).unwrap();
        assert_eq!(folder.journals(), [begun.clone()]);
        let entry = &begun.files[0];
        assert_eq!((folder.good(&begun, 0), entry.bytes_apart()), (2, 4));
        // What lies apart stays; what is behind it does not.
        assert_eq!(folder.open_part("0a", 0, 2, 7, Some(9)).unwrap().1, 7);
        for bad in [vec![(2, 5)], vec![(3, 3)], vec![(6, 8), (3, 5)]] {
            begun.files[0].apart = Some(bad);
            folder.write(&begun).unwrap();
            assert_eq!(folder.journals(), []);
        }
    }

    #[test]
    fn two_daemons_do_not_share_a_folder() {
        let directory = tempfile::tempdir().unwrap();
        let held = PartialFolder::open(directory.path()).unwrap();
        assert!(matches!(
            PartialFolder::open(directory.path()),
            Err(FolderError::Held)
        ));
        drop(held);
        assert!(PartialFolder::open(directory.path()).is_ok());
    }

    #[test]
    fn a_name_is_given_once() {
        let directory = tempfile::tempdir().unwrap();
        let folder = PartialFolder::open(directory.path()).unwrap();
        let begun = journal(&["a.gguf"]);
        let (mut file, _) = folder.open_part("0a", 0, 0, 0, None).unwrap();
        file.write_all(b"abcd").unwrap();
        let place = folder.publish(&begun, 0).unwrap();
        assert_eq!(fs::read(&place).unwrap(), b"abcd");
        // Again, as after a crash behind it.
        assert_eq!(folder.publish(&begun, 0).unwrap(), place);
        // Another file does not take its place.
        folder.open_part("0a", 0, 0, 0, None).unwrap();
        assert!(folder.publish(&begun, 0).is_err());
        assert_eq!(fs::read(&place).unwrap(), b"abcd");
    }

    #[test]
    fn a_folder_that_others_may_look_into_is_not_taken() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join(FOLDER);
        DirBuilder::new().mode(0o777).create(&place).unwrap();
        fs::set_permissions(&place, fs::Permissions::from_mode(0o777)).unwrap();
        let refused = PartialFolder::open(directory.path()).unwrap_err();
        assert!(
            matches!(&refused, FolderError::Disk(error) if error.to_string().contains("take it away")),
            "{refused:?}"
        );
        // What was not whole goes with the next start.
        fs::set_permissions(&place, fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(place.join(format!("{UNFINISHED}1")), "{").unwrap();
        PartialFolder::open(directory.path()).unwrap();
        assert_eq!(fs::read_dir(&place).unwrap().count(), 0);
    }

    #[test]
    fn nothing_is_published_behind_a_link() {
        let [directory, elsewhere] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let folder = PartialFolder::open(directory.path()).unwrap();
        let begun = journal(&["a.gguf"]);
        folder.open_part("0a", 0, 0, 0, None).unwrap();
        let link = directory.path().join("some-model");
        std::os::unix::fs::symlink(elsewhere.path(), &link).unwrap();
        let refused = folder.publish(&begun, 0).unwrap_err();
        assert!(refused.to_string().contains("it is a link"), "{refused}");
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_journal_that_would_write_elsewhere_is_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        let folder = PartialFolder::open(directory.path()).unwrap();
        let mut bad = journal(&["../a.gguf"]);
        folder.write(&bad).unwrap();
        assert_eq!(folder.journals(), []);
        bad = journal(&["a.gguf"]);
        bad.folder = Some("..".into());
        folder.write(&bad).unwrap();
        assert_eq!(folder.journals(), []);
        fs::write(folder.journal("ff"), "{").unwrap();
        assert_eq!(folder.journals(), []);
    }
}
