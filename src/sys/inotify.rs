//! Waits for changes of files and folders (inotify(7)).

use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Room for some events; a name has 255 bytes at most.
const EVENTS: usize = 4096;

/// Watched folders, and single names in others.
#[derive(Debug)]
pub struct FolderWatch {
    ready: AsyncFd<OwnedFd>,
    /// What counts in each watched folder.
    watched: HashMap<i32, Counts>,
}

/// What counts in a folder.
#[derive(Debug)]
enum Counts {
    Everything,
    Names(HashSet<OsString>),
}

impl FolderWatch {
    /// Watches what can be watched of these `folders`, whatever happens in them, and these `places`:
    /// whether they come, go, are replaced or get other rights. Needs tokio.
    pub fn new<'a>(
        folders: impl IntoIterator<Item = &'a Path>,
        places: impl IntoIterator<Item = &'a Path>,
    ) -> io::Result<Self> {
        let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let news = WatchFlags::CLOSE_WRITE
            | WatchFlags::MOVE
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::ATTRIB
            | WatchFlags::ONLYDIR;
        let mut watched = HashMap::new();
        for folder in folders {
            // One that is not there yet, or that we may not read, is like an empty one: the place
            // where it lies says when that changes.
            if let Ok(watch) = inotify::add_watch(&fd, folder, news) {
                watched.insert(watch, Counts::Everything);
            }
        }
        for place in places {
            let (Some(folder), Some(name)) = (place.parent(), place.file_name()) else {
                continue;
            };
            // The same folder has the same watch.
            if let Ok(watch) = inotify::add_watch(&fd, folder, news) {
                let counts = watched
                    .entry(watch)
                    .or_insert_with(|| Counts::Names(HashSet::new()));
                if let Counts::Names(names) = counts {
                    names.insert(name.to_owned());
                }
            }
        }
        // SAFETY: an `OwnedFd` has one descriptor, the same for as long as it lives, and nobody
        // else can close it.
        let ready = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
        let ready = ready.map_err(io::Error::from)?;
        Ok(Self { ready, watched })
    }

    /// Waits until a file came, went, was written to its end or got other rights. What happened
    /// meanwhile is told once.
    pub async fn change(&self) {
        loop {
            let Ok(mut guard) = self.ready.ready(Interest::READABLE).await else {
                return std::future::pending().await;
            };
            let mut room = [MaybeUninit::uninit(); EVENTS];
            let mut events = inotify::Reader::new(self.ready.get_ref(), &mut room);
            let mut counts = false;
            while let Ok(event) = events.next() {
                counts |= self.counts(event.wd(), event.file_name());
            }
            guard.clear_ready();
            if counts {
                return;
            }
        }
    }

    fn counts(&self, watch: i32, name: Option<&CStr>) -> bool {
        match (self.watched.get(&watch), name) {
            (Some(Counts::Names(names)), Some(name)) => {
                names.contains(OsStr::from_bytes(name.to_bytes()))
            }
            // The folder itself; or there were more events than the kernel keeps.
            (_, None) | (Some(Counts::Everything) | None, Some(_)) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use tokio::time::timeout;

    #[tokio::test]
    async fn of_a_place_only_its_own_changes_count() {
        let folder = tempfile::tempdir().unwrap();
        let (ours, other) = (folder.path().join("ours"), folder.path().join("other"));
        let chmod = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        let watch = FolderWatch::new([], [ours.as_path()]).unwrap();
        let is_told = async || {
            let told = timeout(Duration::from_millis(100), watch.change()).await;
            told.is_ok()
        };
        fs::write(&other, b"").unwrap();
        chmod(&other, 0o600);
        assert!(!is_told().await);
        fs::create_dir(&ours).unwrap();
        assert!(is_told().await);
        chmod(&ours, 0o000);
        assert!(is_told().await);
        fs::rename(&ours, folder.path().join("away")).unwrap();
        assert!(is_told().await);
        assert!(!is_told().await);
    }

    #[tokio::test]
    async fn in_a_folder_everything_counts() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("model.gguf");
        fs::write(&file, b"").unwrap();
        // That one of its names is a place as well takes nothing away.
        let watch = FolderWatch::new([folder.path()], [file.as_path()]).unwrap();
        let soon = Duration::from_secs(10);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        timeout(soon, watch.change()).await.unwrap();
        fs::write(folder.path().join("other"), b"").unwrap();
        timeout(soon, watch.change()).await.unwrap();
    }
}
