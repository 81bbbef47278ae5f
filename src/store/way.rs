//! The way from the root to what an absolute path stands for: each directory and each link on it.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Component, Path, PathBuf};

/// Links that are followed on the way to a file, as in the kernel.
const LINKS: usize = 40;

/// Goes a path's way, links included, from the root to its end. `visit` returns the metadata of the
/// place that it is shown, and not of what a link there points to.
///
/// # Errors
///
/// That of `visit`, which ends the way; too many links, or one that cannot be read.
pub(super) fn walk<E: From<io::Error>>(
    path: &Path,
    mut visit: impl FnMut(&Path) -> Result<Metadata, E>,
) -> Result<(), E> {
    let mut at = PathBuf::from("/");
    visit(&at)?;
    let (mut ahead, mut links) = (parts(path), 0);
    while let Some(part) = ahead.pop() {
        if part == ".." {
            at.pop();
            continue;
        }
        at.push(part);
        if visit(&at)?.is_symlink() {
            links += 1;
            if links > LINKS {
                return Err(io::Error::from(rustix::io::Errno::LOOP).into());
            }
            let target = fs::read_link(&at)?;
            if target.is_absolute() {
                at = PathBuf::from("/");
            } else {
                at.pop();
            }
            ahead.extend(parts(&target));
        }
    }
    Ok(())
}

/// The places on the way to a path, as far as it goes: the last one may be missing.
pub(super) fn places(path: &Path) -> Vec<PathBuf> {
    let mut places = vec![];
    let visit = |at: &Path| {
        places.push(at.to_owned());
        fs::symlink_metadata(at)
    };
    // Where it ends is what is asked.
    let _: io::Result<()> = walk(path, visit);
    places
}

/// The parts of a path, the last one first.
fn parts(path: &Path) -> Vec<OsString> {
    let names = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    names.collect::<Vec<_>>().into_iter().rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn the_way_leads_through_links_to_what_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(folder.path()).unwrap();
        fs::create_dir_all(root.join("real/deep")).unwrap();
        symlink("real/deep", root.join("link")).unwrap();
        symlink(root.join("loop"), root.join("loop")).unwrap();
        let below = |path: &str| {
            let places = places(&root.join(path));
            let below = places
                .iter()
                .filter_map(|place| place.strip_prefix(&root).ok());
            below
                .map(|place| place.display().to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            below("link/../deep/none/more"),
            [
                "",
                "link",
                "real",
                "real/deep",
                "real/deep",
                "real/deep/none"
            ]
        );
        assert_eq!(below("loop").len(), LINKS + 2 + LINKS);
        assert_eq!(places(&root)[0], Path::new("/"));
    }
}
