//! Files that come into a model directory, and leave it.
//!
//! A file has no name until it is whole, on the disk, and known to be a model or what belongs to one: whatever happens before,
//! nothing is left, and no scan ever finds a part. Beside it a record says what it hashed to then.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, OFlags, Uid, chownat};
use sha2::{Digest as _, Sha256};

use super::cache::nameless;
use super::catalog::{Digest, Role, all_parts, is_file_name, part_of};
use super::record::{self, Record};
use super::{BadFile, Patience, read, read_drafter, read_part, read_projector};

/// Bytes that are read at a time.
const PIECE: usize = 1 << 20;
/// Everybody may read a model: what it is no secret, and clients of other users run it themselves.
const MODE: u32 = 0o644;
const FOLDER_MODE: u32 = 0o755;

/// Why a file is not taken in, or not taken away.
#[derive(Debug)]
pub enum InstallError {
    /// Its name cannot be a model file's.
    Name(String),
    /// There is another one of that name.
    Exists(PathBuf),
    /// The file at `path` is the model of that id already.
    Namesake { id: String, path: PathBuf },
    /// It is no model, and nothing that belongs to one.
    BadFile(BadFile),
    /// The directory or the disk refuses.
    Disk { path: PathBuf, cause: io::Error },
}

impl fmt::Display for InstallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(
                f,
                "`{}` cannot be the name of a model's file: it must end in .gguf, and have letters, digits and ._- only",
                name.escape_debug()
            ),
            Self::Exists(path) => write!(
                f,
                "{} is there already; `gemmactl rm` takes it away, and --as gives the new one another name",
                path.display()
            ),
            Self::Namesake { id, path } => write!(
                f,
                "`{id}` is installed already, as {}; `gemmactl rm {id}` takes it away, and --as gives the new one another name",
                path.display()
            ),
            Self::BadFile(BadFile::Unreadable(error)) => write!(f, "it cannot be read: {error}"),
            Self::BadFile(reason) => write!(f, "it is not taken: {reason}"),
            Self::Disk { path, cause } => write!(f, "{}: {cause}", path.display()),
        }
    }
}

impl std::error::Error for InstallError {}

/// What was taken in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    pub path: PathBuf,
    pub role: Role,
    pub bytes: u64,
    /// `None` where its bytes were shared with their source, and not read.
    pub sha256: Option<Digest>,
}

/// A file that comes in.
#[derive(Debug)]
pub struct Incoming {
    /// The model directory.
    directory: PathBuf,
    folder: PathBuf,
    name: String,
    file: File,
    bytes: u64,
    /// `None` once bytes came that were not seen.
    hash: Option<Sha256>,
    /// Whether the folder is its own, and goes with it.
    has_folder: bool,
}

/// A folder in which nothing came to lie is of no use; one that holds something stays.
impl Drop for Incoming {
    fn drop(&mut self) {
        if self.has_folder {
            let _ = fs::remove_dir(&self.folder);
        }
    }
}

impl Incoming {
    /// A file `name` for a model directory, or for a folder of its. Blocks on the disk, as all of this does.
    ///
    /// # Errors
    /// The names cannot be, there is such a file, or the directory cannot be written.
    pub fn begin(directory: &Path, folder: Option<&str>, name: &str) -> Result<Self, InstallError> {
        if !is_file_name(name) {
            return Err(InstallError::Name(name.to_owned()));
        }
        let has_folder = folder.is_some();
        let folder = match folder {
            Some(folder) if !is_file_name(&format!("{folder}.gguf")) => {
                return Err(InstallError::Name(folder.to_owned()));
            }
            Some(folder) => directory.join(folder),
            None => directory.to_owned(),
        };
        let path = folder.join(name);
        // A part may have come at an attempt that broke off later: whether it is the same is known in the end.
        if part_of(name).is_none() && path.symlink_metadata().is_ok() {
            return Err(InstallError::Exists(path));
        }
        make(&folder, directory).map_err(|cause| InstallError::Disk {
            path: folder.clone(),
            cause,
        })?;
        if has_folder {
            check_folder(&folder, directory).map_err(|cause| InstallError::Disk {
                path: folder.clone(),
                cause,
            })?;
        }
        let file = nameless(&folder).map_err(|cause| InstallError::Disk {
            path: folder.clone(),
            cause,
        })?;
        Ok(Self {
            directory: directory.to_owned(),
            folder,
            name: name.to_owned(),
            file,
            bytes: 0,
            hash: Some(Sha256::new()),
            has_folder,
        })
    }

    /// Shares the bytes of another file on the same disk, where its file system can; nothing has come before. Says whether.
    pub fn share(&mut self, source: &File) -> bool {
        let shared = self.bytes == 0 && rustix::fs::ioctl_ficlone(&self.file, source).is_ok();
        if shared {
            self.hash = None;
        }
        shared
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// The disk is full, or broken.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), InstallError> {
        let written = self.file.write_all(bytes);
        written.map_err(|cause| self.failed(cause))?;
        self.bytes += bytes.len() as u64;
        if let Some(hash) = &mut self.hash {
            hash.update(bytes);
        }
        Ok(())
    }

    /// Adds another file. `tell` is told of so many bytes more.
    ///
    /// # Errors
    /// It cannot be read, or this not written.
    pub fn copy(
        &mut self,
        mut source: &File,
        mut tell: impl FnMut(u64),
    ) -> Result<(), InstallError> {
        let mut piece = vec![0; PIECE];
        loop {
            let count = source
                .read(&mut piece)
                .map_err(|cause| self.failed(cause))?;
            if count == 0 {
                return Ok(());
            }
            self.write(&piece[..count])?;
            tell(count as u64);
        }
    }

    /// Checks what has come and gives it its name.
    ///
    /// # Errors
    /// It is not what can be used, or somebody was faster; nothing of it is left.
    pub fn finish(mut self) -> Result<Installed, InstallError> {
        let itself = PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()));
        let role = taken_as(&itself, &self.name).map_err(InstallError::BadFile)?;
        let path = self.folder.join(&self.name);
        self.check_id(role)?;
        let done = || -> io::Result<u64> {
            self.file
                .set_permissions(fs::Permissions::from_mode(MODE))?;
            self.file.sync_all()?;
            rustix::fs::linkat(CWD, &itself, CWD, &path, AtFlags::SYMLINK_FOLLOW)?;
            sync(&self.folder)?;
            Ok(self.file.metadata()?.len())
        };
        let sha256 = self.hash.take().map(|hash| hash.finalize().into());
        let bytes = match done() {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let is_same = part_of(&self.name).is_some()
                    && sha256.is_some()
                    && path.symlink_metadata().is_ok_and(|there| there.is_file())
                    && hash(&path).ok() == sha256;
                if !is_same {
                    return Err(InstallError::Exists(path));
                }
                self.bytes
            }
            Err(cause) => return Err(self.failed(cause)),
        };
        if let Some(sha256) = sha256 {
            // It only spares a look at the catalog.
            let _ = record::write(
                &path,
                &Record {
                    sha256,
                    bytes,
                    source: None,
                },
            );
        }
        Ok(Installed {
            path,
            role,
            bytes,
            sha256,
        })
    }

    /// Two models cannot have one id; the parts of one share it.
    fn check_id(&self, role: Role) -> Result<(), InstallError> {
        let parts = all_parts(&self.name).unwrap_or_else(|| vec![self.name.clone()]);
        let own: Vec<PathBuf> = parts.iter().map(|name| self.folder.join(name)).collect();
        let id = super::model_id(&own[0]);
        let directories = std::slice::from_ref(&self.directory);
        match super::namesake(directories, &id, &own).filter(|_| role == Role::Model) {
            Some(path) => Err(InstallError::Namesake { id, path }),
            None => Ok(()),
        }
    }

    fn failed(&self, cause: io::Error) -> InstallError {
        InstallError::Disk {
            path: self.folder.join(&self.name),
            cause,
        }
    }
}

/// Gives a file a second name in a model directory, once it is known to be what can be used.
///
/// # Errors
/// As of [`Incoming`]; another disk cannot be linked to.
pub fn hard_link(
    source: &Path,
    directory: &Path,
    folder: Option<&str>,
    name: &str,
) -> Result<Installed, InstallError> {
    let role = taken_as(source, name).map_err(InstallError::BadFile)?;
    // Only for what it checks and makes.
    let incoming = Incoming::begin(directory, folder, name)?;
    incoming.check_id(role)?;
    let path = incoming.folder.join(name);
    let linked = fs::hard_link(source, &path).and_then(|()| Ok(path.metadata()?.len()));
    let bytes = linked.map_err(|cause| incoming.failed(cause))?;
    Ok(Installed {
        path,
        role,
        bytes,
        sha256: None,
    })
}

/// What a file, or all parts of one in their order, is to a model, by the header.
///
/// # Errors
/// Nothing, or what cannot be used.
pub fn role_of(paths: &[PathBuf]) -> Result<Role, BadFile> {
    let patience = Patience::default();
    match (read(paths, patience), paths) {
        (Ok(_), _) => Ok(Role::Model),
        (Err(BadFile::Projector), [path]) => {
            read_projector(path, patience).map(|_| Role::Projector)
        }
        (Err(BadFile::Drafter), [path]) => read_drafter(path, patience).map(|_| Role::Drafter),
        (Err(error), _) => Err(error),
    }
}

/// What a file that is to be called `name` is to a model, by its header, without the other parts if it is one of several.
///
/// # Errors
/// As [`role_of`], or it is a part, and called something else.
pub fn taken_as(path: &Path, name: &str) -> Result<Role, BadFile> {
    match role_of(&[path.to_owned()]) {
        Err(BadFile::Part(part)) => {
            read_part(path, Patience::default())?;
            let is_called_so =
                part_of(name).is_some_and(|(_, number, of)| (number, of) == (part.number, part.of));
            match is_called_so {
                true => Ok(Role::Model),
                false => Err(BadFile::Misnamed(part)),
            }
        }
        role => role,
    }
}

/// Says whose folder it is that a file cannot be taken out of.
fn not_removed(path: &Path, cause: io::Error) -> io::Error {
    let folder = path.parent().and_then(|folder| folder.metadata().ok());
    match (cause.kind(), folder) {
        (io::ErrorKind::PermissionDenied, Some(folder)) => io::Error::new(
            cause.kind(),
            format!(
                "{cause}; its folder belongs to user {}, who can remove it, or root: `rm FILE`",
                folder.uid()
            ),
        ),
        _ => cause,
    }
}

/// Whether a folder is nobody's but ours, root's or the model directory's owner's: others who may put files into the directory
/// could replace what lies in a folder of theirs, or lead us elsewhere with a link.
pub(super) fn check_folder(folder: &Path, directory: &Path) -> io::Result<()> {
    let metadata = folder.symlink_metadata()?;
    let owners = [
        0,
        rustix::process::geteuid().as_raw(),
        directory.metadata()?.uid(),
    ];
    if metadata.is_dir() && owners.contains(&metadata.uid()) && metadata.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(io::Error::other(
        "it is a link, or somebody else may change it; take it away, or name the model differently",
    ))
}

/// Makes a folder of a model directory, which belongs to whom the directory belongs to: to the daemon, which removes models.
fn make(folder: &Path, directory: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(FOLDER_MODE).create(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        // The directory itself may not be there yet.
        Err(error) if error.kind() == io::ErrorKind::NotFound => DirBuilder::new()
            .mode(FOLDER_MODE)
            .recursive(true)
            .create(folder),
        Ok(()) if rustix::process::geteuid().is_root() => {
            let owner = Uid::from_raw(directory.metadata()?.uid());
            chownat(CWD, folder, Some(owner), None, AtFlags::SYMLINK_NOFOLLOW)?;
            Ok(())
        }
        made => made,
    }
}

/// So that a name is on the disk as well.
fn sync(folder: &Path) -> io::Result<()> {
    let folder = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::DIRECTORY.bits() as i32)
        .open(folder)?;
    folder.sync_all()
}

/// Takes files of a model directory away, with their records, and the folder if it is empty then and not the directory
/// itself. Returns the bytes that were freed.
///
/// # Errors
/// One cannot be taken away; those before it are gone.
pub fn remove(files: &[PathBuf], directories: &[PathBuf]) -> Result<u64, InstallError> {
    let mut freed = 0;
    for path in files {
        let bytes = path.symlink_metadata().map_or(0, |metadata| metadata.len());
        match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            removed => removed.map_err(|cause| InstallError::Disk {
                path: path.clone(),
                cause: not_removed(path, cause),
            })?,
        }
        freed += bytes;
        record::remove(path);
    }
    let folder = files.first().and_then(|path| path.parent());
    if let Some(folder) = folder.filter(|folder| !directories.iter().any(|one| one == folder)) {
        // One that holds something else stays.
        let _ = fs::remove_dir(folder);
    }
    Ok(freed)
}

/// What a file hashes to.
///
/// # Errors
/// It cannot be read, or is no file: a pipe could be waited for until the end of days.
pub fn hash(path: &Path) -> io::Result<Digest> {
    hash_while(path, |_| ControlFlow::Continue(()))
}

/// [`hash`], for as long as `tell` wants it, which is told of so many bytes more.
///
/// # Errors
/// As of [`hash`], and `Interrupted` once it is not wanted any more.
pub fn hash_while(path: &Path, mut tell: impl FnMut(u64) -> ControlFlow<()>) -> io::Result<Digest> {
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits() as i32)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let (mut hash, mut piece) = (Sha256::new(), vec![0; PIECE]);
    loop {
        let count = file.read(&mut piece)?;
        if count == 0 {
            return Ok(hash.finalize().into());
        }
        hash.update(&piece[..count]);
        if tell(count as u64).is_break() {
            return Err(io::ErrorKind::Interrupted.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiny(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("models/tiny")
            .join(name)
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap().flatten();
        let mut names: Vec<_> = entries
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_there_when_it_is_whole_and_a_model() {
        let folder = tempfile::tempdir().unwrap();
        let source = File::open(tiny("tiny-e2b-q8_0.gguf")).unwrap();
        let mut incoming = Incoming::begin(folder.path(), Some("tiny"), "x.gguf").unwrap();
        incoming.copy(&source, |_| {}).unwrap();
        assert_eq!(names(&folder.path().join("tiny")), [] as [String; 0]);
        let installed = incoming.finish().unwrap();
        assert_eq!(
            (installed.role, installed.bytes),
            (Role::Model, source.metadata().unwrap().len())
        );
        assert_eq!(
            names(&folder.path().join("tiny")),
            [".x.gguf.json", "x.gguf"]
        );
        assert_eq!(installed.sha256, Some(hash(&installed.path).unwrap()));
        assert_eq!(
            record::read(&installed.path).unwrap().sha256,
            installed.sha256.unwrap()
        );
        assert_eq!(
            installed.path.metadata().unwrap().permissions().mode() & 0o777,
            0o644
        );
        // Not twice, not by a name that leads elsewhere, and no other file.
        let again = Incoming::begin(folder.path(), Some("tiny"), "x.gguf");
        assert!(matches!(again, Err(InstallError::Exists(_))));
        for name in ["../x.gguf", "x", ".x.gguf", "a/x.gguf", ""] {
            assert!(
                matches!(
                    Incoming::begin(folder.path(), None, name),
                    Err(InstallError::Name(_))
                ),
                "{name}"
            );
        }
        assert!(Incoming::begin(folder.path(), Some("../y"), "x.gguf").is_err());
        let mut other = Incoming::begin(folder.path(), None, "y.gguf").unwrap();
        other.write(b"GGUF, or not").unwrap();
        let error = other.finish().unwrap_err().to_string();
        assert!(error.starts_with("it is not taken: "), "{error}");
        assert_eq!(names(folder.path()), ["tiny"]);
        let freed = remove(&[installed.path], &[folder.path().into()]).unwrap();
        assert_eq!((freed, names(folder.path()).len()), (installed.bytes, 0));
    }

    #[test]
    fn a_folder_of_somebody_elses_is_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link, open) = (
            folder.path().join("real"),
            folder.path().join("link"),
            folder.path().join("open"),
        );
        for path in [&real, &open] {
            fs::create_dir(path).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::set_permissions(&open, fs::Permissions::from_mode(0o775)).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        for name in ["link", "open"] {
            let error = Incoming::begin(folder.path(), Some(name), "x.gguf").unwrap_err();
            assert!(
                error.to_string().contains("somebody else may change it"),
                "{error}"
            );
        }
        // What is given up leaves no folder.
        drop(Incoming::begin(folder.path(), Some("new"), "x.gguf").unwrap());
        drop(Incoming::begin(folder.path(), Some("real"), "x.gguf").unwrap());
        assert_eq!(names(folder.path()), ["link", "open"]);
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(hash(&pipe).is_err());
    }

    #[test]
    fn somebody_may_be_faster() {
        let folder = tempfile::tempdir().unwrap();
        let mut incoming = Incoming::begin(folder.path(), None, "x.gguf").unwrap();
        incoming
            .copy(&File::open(tiny("tiny-e2b-q8_0.gguf")).unwrap(), |_| {})
            .unwrap();
        fs::write(folder.path().join("x.gguf"), b"theirs").unwrap();
        assert!(matches!(incoming.finish(), Err(InstallError::Exists(_))));
        assert_eq!(fs::read(folder.path().join("x.gguf")).unwrap(), b"theirs");
    }

    #[test]
    fn a_second_name_is_given_to_what_can_be_used() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source");
        fs::create_dir(&source).unwrap();
        let (good, bad) = (source.join("good"), source.join("bad"));
        fs::copy(tiny("tiny-e2b-q8_0.gguf"), &good).unwrap();
        fs::write(&bad, b"no").unwrap();
        let linked = hard_link(&good, folder.path(), None, "x.gguf").unwrap();
        assert_eq!(linked.path, folder.path().join("x.gguf"));
        assert!(matches!(
            hard_link(&bad, folder.path(), None, "y.gguf"),
            Err(InstallError::BadFile(_))
        ));
        assert_eq!(names(folder.path()), ["source", "x.gguf"]);
    }
}
