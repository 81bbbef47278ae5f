//! Landlock: which files may be opened, by what they are and not by their names.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use landlock::{
    ABI, Access, AccessFs, AccessNet, PathBeneath, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, RulesetStatus, Scope,
};
use rustix::fs::{Mode, OFlags};

/// The newest rights that are known here; a kernel takes away those that it knows.
const NEWEST: ABI = ABI::V10;

/// What the kernel calls a file in memory. It is in no tree of files, and Landlock restricts those alone.
const IN_MEMORY: &[u8] = b"/memfd:";

/// Leaves reading `files` and `/proc/self`, and no way to other processes. `false` where the kernel
/// has no Landlock.
pub fn restrict(files: &[BorrowedFd<'_>]) -> io::Result<bool> {
    let own = rustix::fs::open(
        "/proc/self",
        OFlags::PATH | OFlags::CLOEXEC | OFlags::DIRECTORY,
        Mode::empty(),
    )?;
    let files = files.iter().filter(|file| !is_in_memory(**file));
    let enforced = enforce(&own, files).map_err(io::Error::other)?;
    // The rule is for this inode, which the kernel may drop and read anew once no descriptor refers to it.
    std::mem::forget(own);
    Ok(enforced)
}

fn is_in_memory(file: BorrowedFd<'_>) -> bool {
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    let name = rustix::fs::readlink(link, vec![]);
    name.is_ok_and(|name| name.to_bytes().starts_with(IN_MEMORY))
}

fn enforce<'a>(
    own: &OwnedFd,
    files: impl Iterator<Item = &'a BorrowedFd<'a>>,
) -> Result<bool, RulesetError> {
    let rules = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    let mut rules = rules.add_rule(PathBeneath::new(own, AccessFs::ReadFile))?;
    for file in files {
        rules = rules.add_rule(PathBeneath::new(file, AccessFs::ReadFile))?;
    }
    Ok(rules.restrict_self()?.ruleset != RulesetStatus::NotEnforced)
}
