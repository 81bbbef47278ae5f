//! The system prompts that the configuration lists: everybody goes on from what one has read of them.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::ipc::{MAX_SYSTEM_PROMPT_BYTES, MAX_SYSTEM_PROMPTS};
use crate::store::{self, Installers};

/// Their texts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SystemPrompts {
    pub texts: Vec<String>,
}

impl SystemPrompts {
    /// Reads them, as far as that can be done; of others the log says why not. Who may change one of the
    /// files could find out who else has sent its text, so nobody may whose model files are not used.
    pub fn read(files: &[PathBuf], installers: &Installers) -> Self {
        if files.len() > MAX_SYSTEM_PROMPTS {
            tracing::warn!(
                "of `system-prompts` in gemmad.toml the first {MAX_SYSTEM_PROMPTS} are used"
            );
        }
        let texts = files.iter().take(MAX_SYSTEM_PROMPTS).filter_map(|file| {
            let text = read(file, installers);
            text.inspect_err(|error| {
                tracing::warn!(file = %file.display(), %error, "a file of `system-prompts` in gemmad.toml is left out");
            })
            .ok()
        });
        Self {
            texts: texts.collect(),
        }
    }

    /// The SHA-256 of each.
    pub fn digests(&self) -> Vec<[u8; 32]> {
        let digest = |text: &String| Sha256::digest(text.as_bytes()).into();
        self.texts.iter().map(digest).collect()
    }
}

fn read(file: &Path, installers: &Installers) -> io::Result<String> {
    let untrusted = |bad: store::BadFile| io::Error::other(bad.to_string());
    store::check_trust(file, installers).map_err(untrusted)?;
    if !std::fs::metadata(file)?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut text = String::new();
    let most = MAX_SYSTEM_PROMPT_BYTES as u64;
    File::open(file)?.take(most + 1).read_to_string(&mut text)?;
    if text.len() as u64 > most {
        return Err(io::Error::other(format!("it has more than {most} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_cannot_be_read_or_trusted_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &[u8]| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let files = [
            file("good", b"You are kind."),
            file("binary", b"\xff"),
            file("long", &vec![b'a'; MAX_SYSTEM_PROMPT_BYTES + 1]),
            file("anyone's", b"You are not."),
            folder.path().join("missing"),
            folder.path().to_owned(),
        ];
        fs::set_permissions(&files[3], fs::Permissions::from_mode(0o666)).unwrap();
        let read = SystemPrompts::read(&files, &Installers::default());
        assert_eq!(read.texts, ["You are kind."]);
        assert_eq!(read.digests().len(), 1);
    }
}
