//! Files of `/proc` and `/sys/fs/cgroup` that are read again and again. They stay open, so that they
//! can be read when the process has no descriptor left: without them all memory would seem taken.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Files that stay open. More of them are opened for each reading.
const KEPT: usize = 48;
/// The kernel writes a page or so.
const PIECE: usize = 4096;

static OPEN: Mutex<BTreeMap<PathBuf, File>> = Mutex::new(BTreeMap::new());

/// What the kernel says in this file now.
///
/// # Errors
///
/// The file cannot be opened or read, or is not UTF-8.
pub fn read(path: &Path) -> io::Result<String> {
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(file) = open.get(path) {
        if let Ok(text) = read_whole(file) {
            return Ok(text);
        }
        // Its control group is gone; another may have its name.
        open.remove(path);
    }
    let file = File::open(path)?;
    let text = read_whole(&file)?;
    if open.len() < KEPT {
        open.insert(path.to_owned(), file);
    }
    Ok(text)
}

/// The kernel writes the text anew when it is read from its beginning.
fn read_whole(file: &File) -> io::Result<String> {
    let mut text = vec![];
    loop {
        let end = text.len();
        text.resize(end + PIECE, 0);
        let read = file.read_at(&mut text[end..], end as u64)?;
        text.truncate(end + read);
        if read == 0 {
            return String::from_utf8(text).map_err(io::Error::other);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_read_is_what_holds_now() {
        let path = Path::new("/proc/uptime");
        let seconds = || {
            let text = read(path).unwrap();
            let first = text.split(' ').next().unwrap();
            first.parse::<f64>().unwrap()
        };
        let before = seconds();
        std::thread::sleep(std::time::Duration::from_millis(30));
        assert!(seconds() > before);
        let meminfo = Path::new("/proc/meminfo");
        let names = |text: String| text.lines().count();
        assert_eq!(
            names(read(meminfo).unwrap()),
            names(fs::read_to_string(meminfo).unwrap())
        );
        assert!(read(Path::new("/proc/none")).is_err());
    }
}
