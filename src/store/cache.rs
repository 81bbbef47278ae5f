//! Packed weights on the disk: one file for each model, in a folder of the daemon's own.
//!
//! A file is written under no name and gets one when the disk has all of it, so what has a name is
//! whole, whatever happened to the power; what is in it its reader checks. Whoever maps a file
//! keeps it when its name is taken away.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{AtFlags, CWD, FallocateFlags, OFlags};
use rustix::io::Errno;

/// What names end in.
const ENDING: &str = ".packed";
/// Bytes of a fingerprint that a name has, in hexadecimal digits twice as many.
const DIGITS: usize = 8;
/// Bytes that stay free on the disk.
const RESERVE: u64 = 1 << 30;

/// The folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedCache {
    folder: PathBuf,
    /// Bytes of all files together.
    most: u64,
}

/// One model's packed weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedFile {
    /// The file's name without its ending: the model's id, then digits of its fingerprint.
    pub name: String,
    pub bytes: u64,
    pub used: SystemTime,
}

impl PackedFile {
    /// Whether it is of the model `id`, or was when the model's files were others.
    pub fn is_of(&self, id: &str) -> bool {
        is_of(&self.name, id)
    }
}

fn is_of(name: &str, id: &str) -> bool {
    let digits = name
        .strip_prefix(plain(id))
        .and_then(|rest| rest.strip_prefix('-'));
    digits.is_some_and(|digits| digits.len() == 2 * DIGITS)
}

/// What the folder could hold when it was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheSpace {
    /// Bytes that a new file may have.
    pub largest: u64,
    /// Names of the files that are there, as in [`PackedFile::name`].
    pub names: Vec<String>,
    /// Why there can be no new file, if there cannot.
    pub why: Option<String>,
}

impl CacheSpace {
    /// Whether there is a file for the model `id`, or can be one of so many bytes.
    pub fn has_file(&self, id: &str, bytes: u64) -> bool {
        bytes <= self.largest || self.names.iter().any(|name| is_of(name, id))
    }
}

/// A model's place in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedName(String);

impl PackedName {
    /// `id` is plain, as [`super::Model::id`] is.
    pub fn new(id: &str, fingerprint: &[u8; 32]) -> Self {
        let digits: String = fingerprint
            .iter()
            .take(DIGITS)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Self(format!("{}-{digits}", plain(id)))
    }

    /// As [`PackedFile::name`].
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PackedCache {
    pub fn new(folder: PathBuf, most: u64) -> Self {
        Self { folder, most }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Bytes that all files together may have.
    pub fn limit(&self) -> u64 {
        self.most
    }

    /// A model's file, if there is one that only the daemon's user, or root, may write. It counts as
    /// used now. What is no regular file is left to [`PackedCache::publish`], which takes its place;
    /// it is not waited for, as one would for a pipe.
    pub fn open(&self, name: &PackedName) -> Option<File> {
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(flags.bits() as i32)
            .open(self.path(&name.0))
            .ok()?;
        let metadata = file.metadata().ok()?;
        let own = rustix::process::geteuid().as_raw();
        let is_ours = [0, own].contains(&metadata.uid()) && metadata.mode() & 0o022 == 0;
        if !metadata.is_file() || !is_ours {
            tracing::warn!(
                file = %self.path(&name.0).display(),
                "not the daemon's own packed weights; they are packed again"
            );
            return None;
        }
        // On a disk that cannot be written the time stays, and nothing is cleaned up there either.
        let _ = file.set_modified(SystemTime::now());
        Some(file)
    }

    /// A file without a name, for a model whose packed weights have about `bytes` bytes. Makes room
    /// for it: the files that were not used for the longest time go first. The error says why there
    /// can be none.
    pub fn create(&self, bytes: u64, name: &PackedName) -> Result<File, String> {
        self.disk()?;
        if bytes > self.most {
            return Err(format!(
                "it would have {bytes} bytes; `cache-size` allows {}",
                self.most
            ));
        }
        let mut files = self.list();
        files.retain(|file| file.name != name.0);
        // What a clock that was ahead has written says nothing, and would be kept for ever.
        let now = SystemTime::now();
        let used = |file: &PackedFile| Some(file.used).filter(|used| *used <= now);
        files.sort_by_key(|file| std::cmp::Reverse(used(file)));
        while files.iter().map(|file| file.bytes).sum::<u64>() + bytes > self.most {
            let Some(oldest) = files.pop() else { break };
            self.remove(&oldest.name);
        }
        let free = self.disk()?;
        if free < bytes.saturating_add(RESERVE) {
            return Err(format!(
                "{} has {free} bytes free; {bytes} and a reserve of {RESERVE} are needed",
                self.folder.display()
            ));
        }
        nameless(&self.folder).map_err(|error| self.failed("create a file in", error))
    }

    /// Sets `bytes` of the disk aside for a file, so that it is not full before all is written. Not
    /// every file system can; what is not needed goes back when the file is published or closed.
    pub fn set_aside(&self, file: &File, bytes: u64) -> Result<(), String> {
        match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, 0, bytes.max(1)) {
            Err(error @ (Errno::NOSPC | Errno::DQUOT)) => {
                Err(self.failed(&format!("keep {bytes} bytes in"), error.into()))
            }
            _ => Ok(()),
        }
    }

    /// What it could hold now.
    pub fn space(&self) -> CacheSpace {
        let names = self.list().into_iter().map(|file| file.name).collect();
        let (largest, why) = match self.disk().and_then(|free| {
            let there = |error| self.failed("create a file in", error);
            nameless(&self.folder).map_err(there).map(|_| free)
        }) {
            Ok(free) => (self.most.min(free.saturating_sub(RESERVE)), None),
            Err(why) => (0, Some(why)),
        };
        CacheSpace {
            largest,
            names,
            why,
        }
    }

    /// Makes the folder; returns the bytes that are free on its disk.
    fn disk(&self) -> Result<u64, String> {
        make_folder(&self.folder).map_err(|error| self.failed("make", error))?;
        free_bytes(&self.folder).map_err(|error| self.failed("ask for the free space of", error))
    }

    fn failed(&self, what: &str, error: io::Error) -> String {
        format!("cannot {what} {}: {error}", self.folder.display())
    }

    /// Gives a file that the disk has its name.
    pub fn publish(&self, file: &File, name: &PackedName) -> io::Result<()> {
        // What was set aside and is not needed goes back.
        file.set_len(file.metadata()?.len())?;
        // A name can only be given, not taken over: so under another one first.
        let (path, beside) = (
            self.path(&name.0),
            self.folder.join(format!(".{}{ENDING}", name.0)),
        );
        let _ = fs::remove_file(&beside);
        let source = format!("/proc/self/fd/{}", file.as_raw_fd());
        rustix::fs::linkat(CWD, source, CWD, &beside, AtFlags::SYMLINK_FOLLOW)?;
        fs::rename(&beside, &path)?;
        // So that the name is on the disk as well.
        let folder = OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::DIRECTORY.bits() as i32)
            .open(&self.folder)?;
        folder.sync_all()
    }

    /// Takes a model's file away.
    pub fn discard(&self, name: &PackedName) -> bool {
        self.remove(&name.0)
    }

    /// All files, by name.
    pub fn list(&self) -> Vec<PackedFile> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut files: Vec<_> = entries.filter_map(|entry| packed_file(&entry)).collect();
        files.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        files
    }

    /// Takes files away; returns those that are gone.
    pub fn clear(&self, mut files: Vec<PackedFile>) -> Vec<PackedFile> {
        files.retain(|file| self.remove(&file.name));
        files
    }

    fn remove(&self, name: &str) -> bool {
        let removed = fs::remove_file(self.path(name));
        if let Err(error) = &removed {
            tracing::warn!(file = %self.path(name).display(), %error, "packed weights cannot be removed");
        }
        removed.is_ok()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}{ENDING}"))
    }
}

/// The part of a model's id that is in its file's name, which has 255 bytes at most.
fn plain(id: &str) -> &str {
    id.get(..200).unwrap_or(id)
}

/// Makes the folder, if it is not there, for the daemon's user alone.
pub(super) fn make_folder(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
}

/// Bytes that are free on the disk of `folder`.
pub fn free_bytes(folder: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(folder)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// A new file that nobody else can open and that is gone when it is closed.
pub(super) fn nameless(folder: &Path) -> io::Result<File> {
    let options = || {
        OpenOptions::new()
            .read(true)
            .write(true)
            .mode(0o600)
            .clone()
    };
    match options()
        .custom_flags(OFlags::TMPFILE.bits() as i32)
        .open(folder)
    {
        // The kernel's answers for file systems that cannot do that.
        Err(error)
            if matches!(
                error.raw_os_error().map(Errno::from_raw_os_error),
                Some(Errno::OPNOTSUPP)
            ) =>
        {
            Err(io::Error::new(
                error.kind(),
                "the file system has no files without a name (O_TMPFILE)",
            ))
        }
        result => result,
    }
}

fn packed_file(entry: &fs::DirEntry) -> Option<PackedFile> {
    let name = entry
        .file_name()
        .into_string()
        .ok()?
        .strip_suffix(ENDING)?
        .to_owned();
    let metadata = entry
        .metadata()
        .ok()
        .filter(|metadata| metadata.is_file() && !name.starts_with('.'))?;
    Some(PackedFile {
        name,
        bytes: metadata.len(),
        used: metadata.modified().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    fn name(id: &str) -> PackedName {
        PackedName::new(id, &[0xab; 32])
    }

    fn put(cache: &PackedCache, id: &str, bytes: usize, age: u64) {
        let mut file = cache.create(bytes as u64, &name(id)).unwrap();
        file.write_all(&vec![1; bytes]).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(age))
            .unwrap();
        cache.publish(&file, &name(id)).unwrap();
    }

    fn names(cache: &PackedCache) -> Vec<String> {
        cache.list().into_iter().map(|file| file.name).collect()
    }

    #[test]
    fn what_a_clock_that_was_ahead_has_written_goes_first() {
        let folder = tempfile::tempdir().unwrap();
        let cache = PackedCache::new(folder.path().into(), 250);
        put(&cache, "now", 100, 0);
        put(&cache, "ahead", 100, 0);
        let ahead = File::options()
            .write(true)
            .open(cache.path(&name("ahead").0));
        let century = Duration::from_secs(100 * 365 * 86_400);
        ahead
            .unwrap()
            .set_modified(SystemTime::now() + century)
            .unwrap();
        put(&cache, "new", 100, 0);
        assert!(cache.open(&name("now")).is_some() && cache.open(&name("ahead")).is_none());
    }

    #[test]
    fn a_file_has_a_name_once_it_is_published() {
        let folder = tempfile::tempdir().unwrap();
        let cache = PackedCache::new(folder.path().join("a/b"), 1000);
        assert!(cache.list().is_empty() && cache.open(&name("m")).is_none());
        let file = cache.create(10, &name("m")).unwrap();
        assert!(names(&cache).is_empty());
        drop(file);
        assert_eq!(fs::read_dir(cache.folder()).unwrap().count(), 0);
        put(&cache, "m", 10, 0);
        assert_eq!(names(&cache), ["m-abababababababab"]);
        put(&cache, "m", 20, 0);
        assert_eq!((cache.list().len(), cache.list()[0].bytes), (1, 20));
        assert_eq!(
            cache.open(&name("m")).unwrap().metadata().unwrap().len(),
            20
        );
        assert!(cache.discard(&name("m")) && !cache.discard(&name("m")));
    }

    #[test]
    fn the_oldest_make_room() {
        let folder = tempfile::tempdir().unwrap();
        let cache = PackedCache::new(folder.path().to_owned(), 100);
        for (id, age) in [("a", 30), ("b", 10), ("c", 20)] {
            put(&cache, id, 30, age);
        }
        assert!(
            cache
                .create(101, &name("d"))
                .unwrap_err()
                .contains("`cache-size` allows 100")
        );
        assert_eq!(cache.list().len(), 3);
        cache.create(30, &name("d")).unwrap();
        assert_eq!(names(&cache), ["b-abababababababab", "c-abababababababab"]);
        // Using one makes it young.
        cache.open(&name("c")).unwrap();
        cache.create(60, &name("d")).unwrap();
        assert_eq!(names(&cache), ["c-abababababababab"]);
        // A model's own file makes room for its successor without being taken away.
        cache.create(100, &name("c")).unwrap();
        assert_eq!(names(&cache), ["c-abababababababab"]);
        assert_eq!(cache.clear(cache.list()).len(), 1);
        assert!(names(&cache).is_empty());
    }

    #[test]
    fn what_it_could_hold_is_known_before() {
        let folder = tempfile::tempdir().unwrap();
        let cache = PackedCache::new(folder.path().join("new"), 100);
        assert_eq!(
            cache.space(),
            CacheSpace {
                largest: 100,
                names: vec![],
                why: None
            }
        );
        put(&cache, "m", 10, 0);
        let space = cache.space();
        assert!(space.has_file("m", 101) && space.has_file("n", 100) && !space.has_file("n", 101));
        assert!(!space.has_file("m-abababababababab", 101));
        // What was set aside for it and not needed goes back.
        let file = cache.create(10, &name("n")).unwrap();
        cache.set_aside(&file, 1 << 20).unwrap();
        cache.publish(&file, &name("n")).unwrap();
        let blocks = fs::metadata(cache.path(&cache.list()[0].name)).unwrap();
        assert!(blocks.blocks() <= 16, "{}", blocks.blocks());
        fs::write(folder.path().join("file"), b"").unwrap();
        let none = PackedCache::new(folder.path().join("file/cache"), 100).space();
        assert!(none.why.is_some() && !none.has_file("m", 1), "{none:?}");
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), b"").unwrap();
        let cache = PackedCache::new(folder.path().join("file/cache"), 100);
        let error = cache.create(10, &name("m")).unwrap_err();
        assert!(
            error.starts_with("cannot make ") && error.contains("file/cache"),
            "{error}"
        );
        assert!(cache.create(u64::MAX, &name("m")).is_err());
    }

    #[test]
    fn what_is_no_file_of_ours_is_not_waited_for_and_replaced() {
        use nix::sys::stat::Mode;
        let folder = tempfile::tempdir().unwrap();
        let cache = PackedCache::new(folder.path().to_owned(), 100);
        let path = cache.path(name("m").as_str());
        let pipe = || nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
        let socket = || drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let link = || std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        let shared = || {
            fs::write(&path, b"anyone's").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        };
        for plant in [&pipe as &dyn Fn(), &socket, &link, &shared] {
            plant();
            assert!(cache.open(&name("m")).is_none());
            put(&cache, "m", 10, 0);
            assert_eq!(
                cache.open(&name("m")).unwrap().metadata().unwrap().len(),
                10
            );
            assert!(cache.discard(&name("m")));
        }
        pipe();
        assert!(cache.list().is_empty() && cache.clear(vec![]).is_empty());
        // What cannot be replaced is an error, and is not waited for either.
        fs::remove_file(&path).unwrap();
        fs::create_dir_all(path.join("inside")).unwrap();
        assert!(cache.open(&name("m")).is_none());
        let file = cache.create(10, &name("m")).unwrap();
        assert!(cache.publish(&file, &name("m")).is_err());
    }
}
