//! Bytes on the disk that outlive the process, sealed under a secret that lies elsewhere: in a file of
//! its own ([`Secret`]), for the daemon's user alone.
//!
//! Each is a file that gets its name when the disk has all of it. What has a name and is not whole, or
//! was made under another secret, is found, and taken away:
//!
//! ```text
//!   mark │ salt │ when │ lengths │ what it is, sealed │ pieces (`pieces`), sealed
//! ```
//!
//! A file's key is derived from the secret and its salt (HKDF, RFC 5869). All that stands before the
//! pieces is authenticated with each of them, so nothing of one file passes for another's.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ring::hkdf::{HKDF_SHA256, Salt};
use rustix::fs::{AtFlags, CWD, OFlags};

use super::cache::{make_folder, nameless};
use super::pieces::{Key, PieceWriter, Pieces, TAG, random, sealed_bytes};

/// What names end in.
const ENDING: &str = ".prompt";
/// What files begin with; the number changes with their form.
const MARK: &[u8; 8] = b"gemmadP1";
const SALT: usize = 32;
/// Bytes before what a file is.
const HEADER: usize = MARK.len() + SALT + 8 + 4 + 8;
/// Bytes of what a file is, at most.
const LARGEST_ABOUT: usize = 16 << 10;
/// Files of one folder that are looked at; others are taken away.
const MOST: usize = 1024;
/// Bytes of a secret that is made here, and of any at least.
const LEAST_SECRET: usize = 32;
const LARGEST_SECRET: u64 = 4096;

/// Under which files are sealed.
pub struct Secret(Box<[u8]>);

impl Secret {
    /// The one that somebody else keeps for this process, as systemd does its credentials: who may read
    /// the file is their business.
    ///
    /// # Errors
    ///
    /// The disk's; a file that is too short or too long.
    pub fn given(path: &Path) -> io::Result<Self> {
        Self::of(&File::open(path)?)
    }

    /// The one in the file at `path`; `None` if there is no such file.
    ///
    /// # Errors
    ///
    /// The disk's; a file that others can read, or that is too short or too long.
    pub fn read(path: &Path) -> io::Result<Option<Self>> {
        let file = match open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        Self::of(&file).map(Some)
    }

    /// The one in the file at `path`, which is made, for this user alone, if it is not there.
    ///
    /// # Errors
    ///
    /// As of [`Secret::read`].
    pub fn read_or_make(path: &Path) -> io::Result<Self> {
        if let Some(secret) = Self::read(path)? {
            return Ok(secret);
        }
        let folder = path.parent().unwrap_or(Path::new("/"));
        make_folder(folder)?;
        let mut bytes = vec![0; LEAST_SECRET];
        random(&mut bytes)?;
        let mut file = nameless(folder)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        // Another process may have been faster: then its secret counts.
        match name(&file, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Self::read(path)?.ok_or_else(|| io::Error::other("the file comes and goes"))
            }
            named => named.map(|()| Self(bytes.into())),
        }
    }

    fn of(file: &File) -> io::Result<Self> {
        let mut bytes = Vec::with_capacity(LARGEST_SECRET as usize + 1);
        file.take(LARGEST_SECRET + 1).read_to_end(&mut bytes)?;
        if !(LEAST_SECRET..=LARGEST_SECRET as usize).contains(&bytes.len()) {
            let wrong = format!("a secret has {LEAST_SECRET} to {LARGEST_SECRET} bytes");
            return Err(io::Error::other(wrong));
        }
        Ok(Self(bytes.into()))
    }

    fn key(&self, salt: &[u8]) -> io::Result<Key> {
        let secret = Salt::new(HKDF_SHA256, salt).extract(&self.0);
        let mut filled = Ok(());
        let key = Key::made(|bytes| {
            let derived = secret.expand(&[MARK], HKDF_SHA256);
            filled = derived.and_then(|derived| derived.fill(bytes));
        });
        filled
            .map(|()| key)
            .map_err(|_| io::Error::other("no key can be derived"))
    }
}

/// A file that is being written. It has no name.
pub struct RetainedWriter {
    folder: PathBuf,
    file: File,
    key: Key,
    context: Vec<u8>,
    start: u64,
    written: SystemTime,
    writer: PieceWriter,
}

impl RetainedWriter {
    /// For `bytes` bytes that are written `now`, in `folder`, which is made if it is not there. `about` is told by
    /// [`RetainedFile::list`] before any of them is read.
    ///
    /// # Errors
    ///
    /// The disk's; file systems that cannot have files without a name say so.
    pub fn create(
        folder: &Path,
        secret: &Secret,
        about: &[u8],
        bytes: u64,
        now: SystemTime,
    ) -> io::Result<Self> {
        if about.len() > LARGEST_ABOUT {
            return Err(io::Error::other("too much is said of the file"));
        }
        make_folder(folder)?;
        let file = nameless(folder)?;
        let mut salt = [0; SALT];
        random(&mut salt)?;
        let key = secret.key(&salt)?;
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let since = since.as_nanos() as u64;
        let mut context = [
            &MARK[..],
            &salt,
            &since.to_le_bytes(),
            &(about.len() as u32).to_le_bytes(),
            &bytes.to_le_bytes(),
        ]
        .concat();
        let mut sealed = about.to_vec();
        key.seal_before(&context, &mut sealed)?;
        file.write_all_at(&context, 0)?;
        file.write_all_at(&sealed, HEADER as u64)?;
        let start = (HEADER + sealed.len()) as u64;
        context.extend_from_slice(&sealed[about.len()..]);
        Ok(Self {
            folder: folder.to_owned(),
            writer: PieceWriter::new(&key, context.clone(), start, bytes),
            file,
            key,
            context,
            start,
            written: UNIX_EPOCH + Duration::from_nanos(since),
        })
    }

    /// Adds `bytes`.
    ///
    /// # Errors
    ///
    /// The disk's; more bytes than were announced.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writer.write(&self.file, bytes)
    }

    /// Gives it a name, once the disk has all of it.
    ///
    /// # Errors
    ///
    /// The disk's.
    pub fn finish(self) -> io::Result<RetainedFile> {
        let bytes = self.writer.finish(&self.file)?;
        self.file.sync_data()?;
        let mut digits = [0; 16];
        random(&mut digits)?;
        let digits: String = digits.iter().map(|byte| format!("{byte:02x}")).collect();
        let path = self.folder.join(format!("{digits}{ENDING}"));
        name(&self.file, &path)?;
        Ok(RetainedFile {
            path,
            key: self.key,
            context: self.context,
            start: self.start,
            bytes,
            written: self.written,
        })
    }
}

/// A file that can be read again. Dropping this leaves it where it is.
pub struct RetainedFile {
    path: PathBuf,
    key: Key,
    context: Vec<u8>,
    start: u64,
    bytes: u64,
    written: SystemTime,
}

impl RetainedFile {
    /// All files of `folder` that are whole as far as can be seen, with what each is about. Others are
    /// taken away; without a secret all are.
    pub fn list(folder: &Path, secret: Option<&Secret>) -> Vec<(Self, Vec<u8>)> {
        let names = Self::paths(folder).into_iter();
        let looked_at = names.enumerate().filter_map(|(at, path)| {
            let found = secret
                .filter(|_| at < MOST)
                .and_then(|secret| Self::open(&path, secret).ok());
            if found.is_none() {
                tracing::info!(file = %path.display(), "a kept prompt is of no use any more; it is removed");
                remove(&path);
            }
            found
        });
        looked_at.collect()
    }

    /// Whether there is any such file.
    pub fn are_there(folder: &Path) -> bool {
        !Self::paths(folder).is_empty()
    }

    fn paths(folder: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let mut paths: Vec<_> = entries
            .filter(|entry| entry.file_name().to_string_lossy().ends_with(ENDING))
            .map(|entry| entry.path())
            .collect();
        paths.sort_unstable();
        paths
    }

    fn open(path: &Path, secret: &Secret) -> io::Result<(Self, Vec<u8>)> {
        let bad = || io::Error::from(io::ErrorKind::InvalidData);
        let file = open(path)?;
        let mut context = vec![0; HEADER];
        file.read_exact_at(&mut context, 0)?;
        let (mark, rest) = context.split_at(MARK.len());
        let (salt, rest) = rest.split_at(SALT);
        let number = |bytes: &[u8]| {
            bytes
                .iter()
                .rev()
                .fold(0, |n, byte| n << 8 | u64::from(*byte))
        };
        let (since, about) = (number(&rest[..8]), number(&rest[8..12]) as usize);
        let bytes = number(&rest[12..]);
        let start = (HEADER + about + TAG) as u64;
        let length = sealed_bytes_checked(bytes).and_then(|sealed| sealed.checked_add(start));
        if mark != MARK || about > LARGEST_ABOUT || length != Some(file.metadata()?.len()) {
            return Err(bad());
        }
        let key = secret.key(salt)?;
        let mut sealed = vec![0; about + TAG];
        file.read_exact_at(&mut sealed, HEADER as u64)?;
        let tag = sealed[about..].to_vec();
        let about = key.open_before(&context, &mut sealed).ok_or_else(bad)?;
        let about = about.to_vec();
        context.extend(tag);
        let written = UNIX_EPOCH.checked_add(Duration::from_nanos(since));
        let file = Self {
            path: path.to_owned(),
            key,
            context,
            start,
            bytes,
            written: written.ok_or_else(bad)?,
        };
        Ok((file, about))
    }

    /// Bytes that were written to it.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// When it was begun.
    pub fn written(&self) -> SystemTime {
        self.written
    }

    /// As [`super::SealedFile::read`].
    ///
    /// # Errors
    ///
    /// The disk's, those of `take`, and bytes that are not what was written.
    pub fn read(&self, take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let pieces = Pieces {
            key: &self.key,
            context: &self.context,
            start: self.start,
            bytes: self.bytes,
        };
        pieces.read(&open(&self.path)?, take)
    }

    /// Takes it away.
    pub fn remove(&self) {
        remove(&self.path);
    }
}

impl std::fmt::Debug for RetainedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RetainedFile({} bytes)", self.bytes)
    }
}

/// [`sealed_bytes`] of what a file says, which may be anything.
fn sealed_bytes_checked(bytes: u64) -> Option<u64> {
    (bytes < 1 << 48).then(|| sealed_bytes(bytes))
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(file = %path.display(), %error, "a kept prompt cannot be removed");
    }
}

/// Opens a file that nobody but root and this user can read or write.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits() as i32)
        .open(path)?;
    let metadata = file.metadata()?;
    let own = rustix::process::geteuid().as_raw();
    let is_ours = [0, own].contains(&metadata.uid()) && metadata.mode() & 0o077 == 0;
    if !metadata.is_file() || !is_ours {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "it is no file of the daemon's user alone (mode 0600)",
        ));
    }
    Ok(file)
}

/// Gives a file its name, which must be free.
fn name(file: &File, path: &Path) -> io::Result<()> {
    let source = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::linkat(CWD, source, CWD, path, AtFlags::SYMLINK_FOLLOW)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::pieces::PIECE;
    use super::*;

    struct Place {
        folder: tempfile::TempDir,
        secret: Secret,
    }

    impl Place {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let secret = Secret::read_or_make(&folder.path().join("state/key")).unwrap();
            Self { folder, secret }
        }

        fn keep(&self, about: &[u8], bytes: &[u8]) -> RetainedFile {
            let (count, names) = (bytes.len() as u64, self.names());
            let now = SystemTime::now();
            let mut writer =
                RetainedWriter::create(self.folder.path(), &self.secret, about, count, now)
                    .unwrap();
            writer.write(bytes).unwrap();
            assert_eq!(self.names(), names, "it has a name before it is whole");
            writer.finish().unwrap()
        }

        fn list(&self) -> Vec<(RetainedFile, Vec<u8>)> {
            RetainedFile::list(self.folder.path(), Some(&self.secret))
        }

        fn names(&self) -> usize {
            RetainedFile::paths(self.folder.path()).len()
        }
    }

    fn read(file: &RetainedFile) -> io::Result<Vec<u8>> {
        let mut bytes = vec![];
        file.read(|piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(bytes)
    }

    fn bytes(count: usize) -> Vec<u8> {
        (0..count).map(|i| (i * 7 % 251) as u8).collect()
    }

    #[test]
    fn what_was_written_is_found_again_and_read() {
        let place = Place::new();
        for count in [1, PIECE, 2 * PIECE + 17] {
            drop(place.keep(b"about", &bytes(count)));
            let (file, about) = place.list().pop().unwrap();
            assert_eq!((file.bytes(), &about[..]), (count as u64, &b"about"[..]));
            assert!(read(&file).unwrap() == bytes(count), "{count}");
            assert!(file.written() <= SystemTime::now());
            file.remove();
        }
        assert_eq!(place.names(), 0);
    }

    #[test]
    fn the_disk_has_none_of_it() {
        let place = Place::new();
        let file = place.keep(b"the owner and the tokens", b"the weather is a secret");
        let on_disk = fs::read(&file.path).unwrap();
        for secret in [&b"weather"[..], b"owner"] {
            assert!(!on_disk.windows(secret.len()).any(|part| part == secret));
        }
        let mode = fs::metadata(&file.path).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn what_is_not_whole_is_taken_away() {
        let damage: [fn(&mut Vec<u8>); 5] = [
            |file| file.truncate(file.len() - 1),
            |file| file.truncate(10),
            |file| file[HEADER] ^= 1,
            |file| file[MARK.len() + SALT] ^= 1,
            |file| file.push(0),
        ];
        for (i, damage) in damage.iter().enumerate() {
            let place = Place::new();
            let path = place.keep(b"about", &bytes(PIECE + 1)).path;
            let mut file = fs::read(&path).unwrap();
            damage(&mut file);
            fs::write(&path, file).unwrap();
            assert!(place.list().is_empty(), "{i}");
            assert_eq!(place.names(), 0, "{i}");
        }
    }

    #[test]
    fn bytes_that_were_changed_or_exchanged_are_found() {
        let place = Place::new();
        let (one, other) = (place.keep(b"a", &bytes(9)), place.keep(b"a", &bytes(9)));
        let (mut first, second) = (fs::read(&one.path).unwrap(), fs::read(&other.path).unwrap());
        let at = first.len() - 9 - TAG;
        first[at..].copy_from_slice(&second[at..]);
        fs::write(&one.path, &first).unwrap();
        assert!(read(&one).is_err());
        assert!(read(&other).unwrap() == bytes(9));
    }

    #[test]
    fn another_secret_opens_nothing() {
        let place = Place::new();
        place.keep(b"about", &bytes(9));
        let other = Secret::read_or_make(&place.folder.path().join("other")).unwrap();
        assert!(RetainedFile::list(place.folder.path(), Some(&other)).is_empty());
        place.keep(b"about", &bytes(9));
        assert!(RetainedFile::list(place.folder.path(), None).is_empty());
        assert!(!RetainedFile::are_there(place.folder.path()));
    }

    #[test]
    fn a_secret_is_made_once_and_is_for_its_user_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/key");
        assert!(Secret::read(&path).unwrap().is_none());
        let made = Secret::read_or_make(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(Secret::read_or_make(&path).unwrap().0, made.0);
        assert_eq!(Secret::given(&path).unwrap().0, made.0);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Secret::read_or_make(&path).is_err());
        assert!(Secret::given(&path).is_ok());
        fs::write(&path, [7; LEAST_SECRET - 1]).unwrap();
        assert!(Secret::given(&path).is_err());
    }
}
