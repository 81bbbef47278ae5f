//! Prompts that outlive the daemon, in files that somebody has changed: what is read is what was written, or the file is
//! taken away.
#![no_main]

use std::cell::OnceCell;
use std::fs;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use gemmad::store::{RetainedFile, RetainedWriter, Secret};
use libfuzzer_sys::fuzz_target;

const ABOUT: &[u8] = b"what it is";

struct Place {
    folder: PathBuf,
    secret: Secret,
    /// A file that is whole.
    whole: Vec<u8>,
    content: Vec<u8>,
}

thread_local! {
    static PLACE: OnceCell<Place> = const { OnceCell::new() };
}

fuzz_target!(|bytes: &[u8]| {
    PLACE.with(|place| {
        let place = place.get_or_init(Place::new);
        // Anything at all.
        assert!(place.read(bytes).is_none());
        // A whole file with changes: places and bytes, and a length.
        let Some((length, changes)) = bytes.split_first_chunk::<3>() else { return };
        let mut changed = place.whole.clone();
        if length[0] % 2 == 1 {
            changed.resize(usize::from(u16::from_le_bytes([length[1], length[2]])), 0);
        }
        for change in changes.chunks_exact(3) {
            let at = usize::from(u16::from_le_bytes([change[0], change[1]]));
            if let Some(byte) = changed.get_mut(at) {
                *byte = change[2];
            }
        }
        let expected = (changed == place.whole).then(|| place.content.clone());
        assert_eq!(place.read(&changed), expected);
    });
});

impl Place {
    fn new() -> Self {
        let folder = PathBuf::from(format!("/dev/shm/gemmad-fuzz-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let secret = Secret::read_or_make(&folder.join("key")).unwrap();
        let content: Vec<u8> = (0..1000_u32).map(|n| n as u8).collect();
        let mut writer = RetainedWriter::create(&folder, &secret, ABOUT, 1000, SystemTime::now()).unwrap();
        writer.write(&content).unwrap();
        writer.finish().unwrap();
        let path = one(&folder).unwrap();
        let whole = fs::read(&path).unwrap();
        fs::remove_file(path).unwrap();
        Self { folder, secret, whole, content }
    }

    /// What a start of the daemon finds in a folder that has such a file, and nothing else.
    fn read(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let path = self.folder.join("x.prompt");
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path).unwrap();
        std::io::Write::write_all(&mut file, bytes).unwrap();
        file.set_permissions(fs::Permissions::from_mode(0o600)).unwrap();
        let found = RetainedFile::list(&self.folder, Some(&self.secret));
        assert_eq!(path.exists(), !found.is_empty());
        let (file, about) = found.first()?;
        assert_eq!(about, ABOUT);
        let mut read = vec![];
        let whole = file.read(|piece| {
            read.extend_from_slice(piece);
            Ok(())
        });
        assert!(read.len() as u64 <= file.bytes());
        whole.ok().map(|()| read)
    }
}

fn one(folder: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
    entries.into_iter().find(|path| path.extension().is_some_and(|end| end == "prompt"))
}
