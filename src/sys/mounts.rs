//! Noticing that something is mounted where files are looked for (proc_pid_mountinfo(5)). Changes of
//! folders (inotify) do not tell: what is mounted hides what is watched.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

const MOUNTS: &str = "/proc/self/mountinfo";

/// The mounts that decide what is found at some places.
#[derive(Debug)]
pub struct MountWatch {
    ready: AsyncFd<File>,
    folders: Vec<PathBuf>,
    places: Vec<PathBuf>,
    seen: Vec<Mount>,
}

/// A mount that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    /// The kernel's number: another one for each time that something is mounted.
    id: u64,
    at: PathBuf,
}

impl MountWatch {
    /// Watches what is mounted on the way to these `folders` and `places`, or in the folders. Needs
    /// tokio.
    pub fn new(folders: Vec<PathBuf>, places: Vec<PathBuf>) -> io::Result<Self> {
        let file = File::open(MOUNTS)?;
        // SAFETY: a `File` has one descriptor, the same for as long as it lives, and nobody else
        // can close it.
        let ready = unsafe { AsyncFd::register_with_interest(file, Interest::PRIORITY) };
        let ready = ready.map_err(io::Error::from)?;
        let seen = relevant(&read(ready.get_ref())?, &folders, &places);
        Ok(Self {
            ready,
            folders,
            places,
            seen,
        })
    }

    /// Waits until one of them has come or gone since this was made.
    pub async fn change(&self) {
        loop {
            let Ok(mut guard) = self.ready.ready(Interest::PRIORITY).await else {
                return std::future::pending().await;
            };
            guard.clear_ready();
            let now = read(self.ready.get_ref());
            let now = now.map(|mounts| relevant(&mounts, &self.folders, &self.places));
            if !now.is_ok_and(|now| now == self.seen) {
                return;
            }
        }
    }
}

/// What is mounted, as the kernel lists it.
fn read(mut file: &File) -> io::Result<Vec<u8>> {
    let mut mounts = vec![];
    file.rewind()?;
    file.read_to_end(&mut mounts)?;
    Ok(mounts)
}

/// The mounts of such a list that decide what is found in these folders, and at these places.
fn relevant(mounts: &[u8], folders: &[PathBuf], places: &[PathBuf]) -> Vec<Mount> {
    let concerns = |at: &Path| {
        let leads_there = |place: &PathBuf| place.starts_with(at);
        folders.iter().chain(places).any(leads_there)
            || folders.iter().any(|folder| at.starts_with(folder))
    };
    let lines = mounts.split(|byte| *byte == b'\n').filter_map(mount);
    lines.filter(|mount| concerns(&mount.at)).collect()
}

/// The number and the place of a line: its first and its fifth word.
fn mount(line: &[u8]) -> Option<Mount> {
    let mut words = line.split(|byte| *byte == b' ');
    let id = std::str::from_utf8(words.next()?).ok()?.parse().ok()?;
    let at = unescaped(words.nth(3)?);
    Some(Mount { id, at })
}

/// A path as it is: in the list blanks, tabs, line ends and backslashes are three octal digits.
fn unescaped(word: &[u8]) -> PathBuf {
    let (mut path, mut rest) = (vec![], word);
    while let [first, after @ ..] = rest {
        let digits = after.get(..3).filter(|_| *first == b'\\');
        let byte = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        path.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[3..] } else { after };
    }
    OsString::from_vec(path).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &[u8] = br"22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:25 / /proc rw - proc proc rw
41 22 8:17 / /srv/my\040models rw - ext4 /dev/sdb1 rw
42 41 8:33 / /srv/my\040models/usb rw - vfat /dev/sdc1 rw
";

    #[test]
    fn what_counts_is_on_the_way_or_below() {
        let ids = |folders: &[&str], places: &[&str]| {
            let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<Vec<_>>();
            let mounts = relevant(LIST, &paths(folders), &paths(places)).into_iter();
            mounts.map(|mount| mount.id).collect::<Vec<_>>()
        };
        assert_eq!(ids(&["/srv/my models/deep"], &[]), [22, 41]);
        assert_eq!(ids(&["/srv/my models"], &[]), [22, 41, 42]);
        assert_eq!(ids(&["/srv/my"], &["/", "/srv"]), [22]);
        assert_eq!(ids(&[], &["/srv/my models"]), [22, 41]);
        assert_eq!(ids(&[], &[]), [0; 0]);
    }

    #[tokio::test]
    async fn the_kernels_list_is_read() {
        let watch = MountWatch::new(vec!["/".into()], vec![]).unwrap();
        assert!(watch.seen.iter().any(|mount| mount.at == Path::new("/")));
    }
}
