//! Small files that are replaced, in folders where others may put files too.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use rustix::rand::GetRandomFlags;

/// What the name of a file begins with that is not whole yet.
pub const UNFINISHED: &str = ".new-";

/// Puts a file into the place of another, whole or not at all. Until it is whole it has a name that
/// nobody can guess and that was nobody's: no link, pipe or file that was put there is opened.
///
/// # Errors
///
/// The folder cannot be written.
pub fn replace(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let mut name = OsString::from(UNFINISHED);
    name.push(format!("{:032x}", random()?));
    let new = path.with_file_name(name);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&new)?;
    let replaced = file
        .write_all(bytes)
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&new, path));
    if replaced.is_err() {
        let _ = fs::remove_file(&new);
    }
    replaced
}

/// The folder of a file, which is made for the daemon's user alone if there is none.
///
/// # Errors
///
/// It cannot be made.
pub fn own_folder(path: &Path) -> io::Result<&Path> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    if !folder.exists() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
    }
    Ok(folder)
}

fn random() -> io::Result<u128> {
    let mut bytes = [0; 16];
    rustix::rand::getrandom(&mut bytes, GetRandomFlags::empty())?;
    Ok(u128::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    #[test]
    fn what_somebody_put_there_is_neither_opened_nor_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (secret, place) = (folder.path().join("secret"), folder.path().join("place"));
        fs::write(&secret, "secret").unwrap();
        symlink(&secret, &place).unwrap();
        for text in ["one", "two"] {
            replace(&place, 0o600, text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&place).unwrap(), text);
        }
        assert_eq!(fs::read_to_string(&secret).unwrap(), "secret");
        assert_eq!(place.symlink_metadata().unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn what_fails_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("place");
        fs::create_dir(&place).unwrap();
        assert!(replace(&place, 0o600, b"a").is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
