//! Whose model files are used.
//!
//! As sshd has it for its keys (`StrictModes`): a file and every directory that leads to it belong
//! to somebody who may install models, and nobody else may change them. Links are followed one by
//! one, and count as the directories in which they lie. A directory that all may write is fine if
//! it is sticky, as `/tmp` is: what it holds can be replaced by its owner alone.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::way::walk;
use crate::sys::accounts;

const STICKY: u32 = 0o1000;
const GROUP_WRITES: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;

/// Who may install models: root, the daemon's own user, and those who are named here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Installers {
    pub users: Vec<u32>,
    /// Their members may, and what these groups may write is theirs.
    pub groups: Vec<u32>,
}

/// Somebody else may change a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distrust {
    /// The file, or the directory above it.
    path: PathBuf,
    fault: Fault,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Fault {
    Owner(u32),
    Group(u32),
    Everyone,
}

impl Distrust {
    /// Who may change it.
    pub fn cause(&self) -> String {
        let path = self.path.display();
        match self.fault {
            Fault::Owner(uid) => format!("{path} belongs to the user {}", accounts::user_name(uid)),
            Fault::Group(gid) => {
                format!("the group {} may change {path}", accounts::group_name(gid))
            }
            Fault::Everyone => format!("everyone may change {path}"),
        }
    }
}

impl fmt::Display for Distrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, cause) = (self.path.display(), self.cause());
        let remedy = match self.fault {
            Fault::Owner(_) => format!(
                ", who may not install models; `chown root {path}`, or name the user in `admins` in gemmad.toml"
            ),
            Fault::Group(_) => {
                format!("; `chmod g-w {path}`, or name the group in `installers` in gemmad.toml")
            }
            Fault::Everyone => format!("; `chmod o-w {path}`"),
        };
        write!(f, "not used, because {cause}{remedy}")
    }
}

/// Why a path is not used.
#[derive(Debug)]
pub enum Refusal {
    Distrust(Distrust),
    Unreadable(io::Error),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Unreadable(error)
    }
}

/// Checks paths; asks for each user and group once.
#[derive(Debug)]
pub struct Strictness<'a> {
    installers: &'a Installers,
    own: u32,
    users: RefCell<HashMap<u32, bool>>,
    groups: RefCell<HashMap<u32, bool>>,
}

impl<'a> Strictness<'a> {
    pub fn new(installers: &'a Installers) -> Self {
        Self {
            installers,
            own: rustix::process::geteuid().as_raw(),
            users: RefCell::default(),
            groups: RefCell::default(),
        }
    }

    /// Whether nobody but those who may install models can change what an absolute path stands for.
    pub fn check(&self, path: &Path) -> Result<(), Refusal> {
        walk(path, |at| {
            let metadata = fs::symlink_metadata(at)?;
            self.judge(at, &metadata)?;
            Ok(metadata)
        })
    }

    fn judge(&self, path: &Path, metadata: &Metadata) -> Result<(), Refusal> {
        let refuse = |fault| {
            let path = path.to_owned();
            Err(Refusal::Distrust(Distrust { path, fault }))
        };
        if !self.trusts_user(metadata.uid())? {
            return refuse(Fault::Owner(metadata.uid()));
        }
        let mode = metadata.mode();
        // What a sticky directory holds belongs to its owner. A link's mode means nothing, and what
        // else is no file is not used at all.
        let is_sticky = metadata.is_dir() && mode & STICKY != 0;
        if is_sticky || !metadata.is_dir() && !metadata.is_file() {
            return Ok(());
        }
        if mode & OTHERS_WRITE != 0 {
            return refuse(Fault::Everyone);
        }
        if mode & GROUP_WRITES != 0 && !self.trusts_group(metadata.gid())? {
            return refuse(Fault::Group(metadata.gid()));
        }
        Ok(())
    }

    fn trusts_user(&self, uid: u32) -> io::Result<bool> {
        let groups = &self.installers.groups;
        if uid == 0 || uid == self.own || self.installers.users.contains(&uid) {
            return Ok(true);
        }
        if groups.is_empty() {
            return Ok(false);
        }
        if let Some(trusted) = self.users.borrow().get(&uid) {
            return Ok(*trusted);
        }
        let of = accounts::groups_of(uid)?;
        let is_member = of.iter().any(|group| groups.contains(group));
        self.users.borrow_mut().insert(uid, is_member);
        Ok(is_member)
    }

    /// A group that may install, or that is nobody's but one user's who may.
    fn trusts_group(&self, gid: u32) -> io::Result<bool> {
        if self.installers.groups.contains(&gid) {
            return Ok(true);
        }
        if let Some(trusted) = self.groups.borrow().get(&gid) {
            return Ok(*trusted);
        }
        let owner = accounts::private_owner(gid)?;
        let is_private = owner.map_or(Ok(false), |owner| self.trusts_user(owner))?;
        self.groups.borrow_mut().insert(gid, is_private);
        Ok(is_private)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn refusal(installers: &Installers, path: &Path) -> Option<String> {
        match Strictness::new(installers).check(path) {
            Ok(()) => None,
            Err(Refusal::Distrust(distrust)) => Some(distrust.to_string()),
            Err(Refusal::Unreadable(error)) => panic!("{error}"),
        }
    }

    /// A directory below a sticky one, with a file.
    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("model.gguf");
        fs::write(&file, b"").unwrap();
        chmod(&file, 0o644);
        (folder, file)
    }

    #[test]
    fn what_others_may_change_is_named_with_its_remedy() {
        let (folder, file) = folder();
        let none = Installers::default();
        assert_eq!(refusal(&none, &file), None);
        for (path, mode, said) in [
            (file.as_path(), 0o646, "everyone may change"),
            (folder.path(), 0o757, "everyone may change"),
        ] {
            let before = path.metadata().unwrap().mode();
            chmod(path, mode);
            let found = refusal(&none, &file).unwrap();
            assert!(found.contains(said), "{found}");
            let remedy = format!("`chmod o-w {}`", path.display());
            assert!(found.contains(&remedy), "{found}");
            chmod(path, before);
        }
        chmod(folder.path(), 0o1777);
        assert_eq!(refusal(&none, &file), None);
    }

    #[test]
    fn files_of_other_users_and_groups_need_their_names_in_the_configuration() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let (folder, file) = folder();
        let none = Installers::default();
        let users = |uid| Installers {
            users: vec![uid],
            groups: vec![],
        };
        chown(&file, Some(31_001), Some(31_002)).unwrap();
        let found = refusal(&none, &file).unwrap();
        assert!(
            found.contains("belongs to the user of number 31001"),
            "{found}"
        );
        assert!(found.contains("`admins` in gemmad.toml"), "{found}");
        assert_eq!(refusal(&users(31_001), &file), None);

        chown(folder.path(), Some(31_003), None).unwrap();
        let found = refusal(&users(31_001), &file).unwrap();
        assert!(found.contains("31003"), "{found}");

        chown(folder.path(), Some(0), Some(31_002)).unwrap();
        chmod(folder.path(), 0o2775);
        chown(&file, Some(0), Some(0)).unwrap();
        let found = refusal(&none, &file).unwrap();
        assert!(
            found.contains("the group of number 31002 may change"),
            "{found}"
        );
        assert!(found.contains("`installers` in gemmad.toml"), "{found}");
        let group = Installers {
            users: vec![],
            groups: vec![31_002],
        };
        assert_eq!(refusal(&group, &file), None);
        // Root's own group is nobody else's, unless it has members.
        chown(folder.path(), None, Some(0)).unwrap();
        let is_alone = accounts::private_owner(0).unwrap() == Some(0);
        assert_eq!(refusal(&none, &file).is_none(), is_alone);
    }

    #[test]
    fn links_are_followed_through_every_directory() {
        let (folder, file) = folder();
        let none = Installers::default();
        let other = tempfile::tempdir().unwrap();
        // One link leads to the next, and to the file.
        symlink(&file, other.path().join("hop")).unwrap();
        let link = folder.path().join("link.gguf");
        symlink(
            other
                .path()
                .join("../")
                .join(other.path().file_name().unwrap())
                .join("hop"),
            &link,
        )
        .unwrap();
        assert_eq!(refusal(&none, &link), None);
        chmod(other.path(), 0o777);
        let found = refusal(&none, &link).unwrap();
        assert!(
            found.contains(&other.path().display().to_string()),
            "{found}"
        );
        let round = folder.path().join("round.gguf");
        symlink("round.gguf", &round).unwrap();
        let looped = Strictness::new(&none).check(&round);
        assert!(matches!(looped, Err(Refusal::Unreadable(_))), "{looped:?}");
    }
}
