//! Looks for models in directories.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use super::companion::pair;
use super::trust::Strictness;
use super::{
    BadFile, Catalog, Drafter, Installers, Model, Part, Patience, Projector, Rejected, read,
    read_drafter, read_projector, split,
};

/// Entries that are looked at below one model directory, its subfolders' included.
const ENTRIES: usize = 4096;
/// How long one file's header may take to be read: a slow card reads one of 16 MB in less. What it
/// may take besides has limits of its own (`gguf`).
const FILE_TIME: Duration = Duration::from_secs(10);
/// How long one directory's files may take together.
const DIRECTORY_TIME: Duration = Duration::from_secs(60);
/// The model name that stands for "the one that fits"; no file can have it.
const RESERVED: &str = "auto";

/// Looks for `*.gguf` files in each directory and in its subfolders, but not below those. Hidden
/// names are passed over; projectors and drafters go to the models of their folder that they fit.
/// Where two files have the same id, the one found first is the model: directories in the order
/// given, a directory's own files before its subfolders', names in the order of their bytes. Never
/// fails: what cannot be used is in `rejected`, and so is what others than root and the daemon's own
/// user may change.
pub fn scan(directories: &[PathBuf]) -> Catalog {
    let (never, installers) = (AtomicBool::new(false), Installers::default());
    let scan = |directory: &PathBuf| Scan::new(&installers, &never).run(directory);
    Catalog::merged(directories.iter().map(scan))
}

/// A look at one directory, as of [`scan`]; [`Catalog::merged`] puts several together.
#[derive(Debug)]
pub struct Scan<'a> {
    /// Entries that may still be looked at.
    entries: usize,
    deadline: Instant,
    stop: &'a AtomicBool,
    strictness: Strictness<'a>,
    catalog: Catalog,
}

impl<'a> Scan<'a> {
    /// Whoever no longer wants to know what is found sets `stop`.
    pub fn new(installers: &'a Installers, stop: &'a AtomicBool) -> Self {
        Self {
            entries: ENTRIES,
            deadline: Instant::now() + DIRECTORY_TIME,
            stop,
            strictness: Strictness::new(installers),
            catalog: Catalog::default(),
        }
    }

    /// Blocks on the disk.
    pub fn run(mut self, directory: &Path) -> Catalog {
        self.catalog.folders.push(directory.to_owned());
        for folder in self.folder(directory) {
            self.folder(&folder);
            self.catalog.folders.push(folder);
        }
        self.catalog.models.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        self.catalog
    }

    /// Adds one folder's files to the catalog; returns its subfolders, sorted.
    fn folder(&mut self, folder: &Path) -> Vec<PathBuf> {
        let checked = self.strictness.check(folder).map_err(BadFile::from);
        let listed = checked.and_then(|()| Ok(list(folder, &mut self.entries)?));
        let listing = match listed {
            Ok(listing) => listing,
            Err(error) => {
                self.catalog.reject(folder, error.to_string());
                return vec![];
            }
        };
        if listing.cut {
            self.catalog.reject(
                folder,
                format!("more than {ENTRIES} entries; not all were looked at"),
            );
        }
        let mut found = Found::default();
        for path in &listing.files {
            if let Err(error) = self.file(path, &mut found) {
                self.catalog.reject(path, error.to_string());
            }
        }
        self.catalog.rejected.extend(split::reject(found.parts));
        for model in self
            .catalog
            .models
            .iter_mut()
            .filter(|model| model.path.parent() == Some(folder))
        {
            model.projector = pair(model, &found.projectors).cloned();
            model.drafter = pair(model, &found.drafters).cloned();
        }
        listing.folders
    }

    /// Adds a file to the catalog, if it is a model, and to what was found otherwise.
    fn file(&mut self, path: &Path, found: &mut Found) -> Result<(), BadFile> {
        self.strictness.check(path)?;
        let deadline = self.deadline.min(Instant::now() + FILE_TIME);
        let patience = Patience {
            deadline: Some(deadline),
            stop: Some(self.stop),
        };
        match read(path, patience) {
            Ok((model, _)) => self.catalog.add(model),
            Err(BadFile::Projector) => found.projectors.push(read_projector(path, patience)?.0),
            Err(BadFile::Drafter) => found.drafters.push(read_drafter(path, patience)?.0),
            Err(BadFile::Part(part)) => found.parts.push((path.to_owned(), part)),
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// What a folder has besides models.
#[derive(Default)]
struct Found {
    projectors: Vec<Projector>,
    drafters: Vec<Drafter>,
    parts: Vec<(PathBuf, Part)>,
}

/// A folder's visible entries that matter, sorted.
#[derive(Default)]
struct Listing {
    files: Vec<PathBuf>,
    folders: Vec<PathBuf>,
    /// There were more entries than the budget allows.
    cut: bool,
}

fn list(folder: &Path, budget: &mut usize) -> io::Result<Listing> {
    let mut listing = Listing::default();
    for entry in fs::read_dir(folder)? {
        if *budget == 0 {
            listing.cut = true;
            break;
        }
        *budget -= 1;
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        // Links count as what they point to. One that points nowhere is kept where it is named like
        // a model, so that its owner hears of it.
        if path.is_dir() {
            listing.folders.push(path);
        } else if path
            .extension()
            .is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
        {
            listing.files.push(path);
        }
    }
    listing.files.sort_unstable();
    listing.folders.sort_unstable();
    Ok(listing)
}

impl Catalog {
    /// The catalogs of several directories, in their order, as one. Of two models with the same id
    /// the first is kept and the other rejected.
    pub fn merged(catalogs: impl IntoIterator<Item = Self>) -> Self {
        let mut all = Self::default();
        for catalog in catalogs {
            all.folders.extend(catalog.folders);
            all.rejected.extend(catalog.rejected);
            catalog.models.into_iter().for_each(|model| all.add(model));
        }
        all.models.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        all
    }

    fn add(&mut self, model: Model) {
        if model.id == RESERVED {
            self.reject(
                &model.path,
                format!("the name `{RESERVED}` means the model that fits best; rename the file"),
            );
        } else if let Some(first) = self.models.iter().find(|other| other.id == model.id) {
            let reason = format!(
                "{} has the same id `{}` and comes first; rename one of them",
                first.path.display(),
                model.id
            );
            self.reject(&model.path, reason);
        } else {
            self.models.push(model);
        }
    }

    fn reject(&mut self, path: &Path, reason: String) {
        self.rejected.push(Rejected {
            path: path.to_owned(),
            reason,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::gguf::ELEMENTS;
    use super::super::gguf::write::{File, list};
    use super::*;

    fn put(folder: &Path, name: &str, bytes: &[u8]) {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn ids(catalog: &Catalog) -> Vec<&str> {
        catalog
            .models
            .iter()
            .map(|model| model.id.as_str())
            .collect()
    }

    fn rejected(catalog: &Catalog) -> Vec<(String, &str)> {
        let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
        catalog
            .rejected
            .iter()
            .map(|entry| (name(&entry.path), entry.reason.as_str()))
            .collect()
    }

    #[test]
    fn finds_models_and_says_what_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let model = File::model().bytes();
        put(root, "b.gguf", &model);
        put(root, "A.GGUF", &model);
        put(root, "sub/c.gguf", &model);
        put(root, "sub/deeper/d.gguf", &model);
        put(root, ".hidden.gguf", &model);
        put(root, ".cache/e.gguf", &model);
        put(root, "f.gguf.part", &model);
        put(root, "notes.txt", b"hello");
        let projector = File::new()
            .text("general.architecture", "clip")
            .text("clip.projector_type", "gemma4v");
        let projector = projector
            .u32("clip.vision.patch_size", 16)
            .u32("clip.vision.projection_dim", 32);
        put(
            root,
            "mmproj.gguf",
            &projector
                .tensor("v.position_embd.weight", &[32, 100, 2], 0)
                .bytes(),
        );
        put(
            root,
            "drafter.gguf",
            &File::new()
                .text("general.architecture", "gemma4-assistant")
                .bytes(),
        );
        put(
            root,
            "early.gguf",
            &File::new()
                .text("general.architecture", "gemma4_assistant")
                .bytes(),
        );
        put(
            root,
            "ear.gguf",
            &File::new()
                .text("general.architecture", "clip")
                .text("clip.projector_type", "whisper")
                .bytes(),
        );
        put(root, "cut.gguf", &model[..model.len() - 1]);
        put(
            root,
            "llama.gguf",
            &File::new().text("general.architecture", "llama").bytes(),
        );
        put(root, "text.gguf", b"<html>not found</html>");
        put(root, "auto.gguf", &model);
        std::os::unix::fs::symlink(root.join("nowhere"), root.join("link.gguf")).unwrap();
        std::os::unix::fs::symlink(root.join("b.gguf"), root.join("linked.gguf")).unwrap();

        let catalog = scan(&[root.to_owned()]);
        assert_eq!(ids(&catalog), ["a", "b", "c", "linked"]);
        let rejected = rejected(&catalog);
        let names: Vec<&str> = rejected.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            [
                "auto.gguf",
                "cut.gguf",
                "drafter.gguf",
                "ear.gguf",
                "early.gguf",
                "link.gguf",
                "llama.gguf",
                "text.gguf"
            ]
        );
        assert!(
            rejected[1].1.contains("token_embd.weight")
                && rejected[1].1.contains("download it again"),
            "{}",
            rejected[1].1
        );
        assert!(
            rejected[2]
                .1
                .contains("`gemma4-assistant.block_count`: missing"),
            "{}",
            rejected[2].1
        );
        assert!(
            rejected[4].1.contains("architecture `gemma4_assistant`"),
            "{}",
            rejected[4].1
        );
        assert!(rejected[6].1.contains("`llama`"), "{}", rejected[6].1);
        assert!(
            rejected[7]
                .1
                .contains("not a GGUF file (it starts with `<htm`)"),
            "{}",
            rejected[7].1
        );
        let seeing = |model: &Model| {
            model
                .projector
                .as_ref()
                .map(|projector| projector.path.file_name().unwrap().to_owned())
        };
        assert_eq!(
            catalog.models.iter().map(seeing).collect::<Vec<_>>(),
            [
                Some("mmproj.gguf".into()),
                Some("mmproj.gguf".into()),
                None,
                Some("mmproj.gguf".into())
            ]
        );
        assert_eq!(catalog, scan(&[root.to_owned()]));
    }

    #[test]
    fn the_tiny_family_has_its_companions() {
        let catalog = scan(&[Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny")]);
        assert_eq!(catalog.rejected, []);
        let stem = |path: &Path| path.file_stem().unwrap().to_string_lossy().into_owned();
        let beside = |model: &Model| {
            (
                model
                    .projector
                    .as_ref()
                    .map(|projector| stem(&projector.path)),
                model.drafter.as_ref().map(|drafter| stem(&drafter.path)),
            )
        };
        let found: Vec<_> = catalog
            .models
            .iter()
            .map(|model| (model.id.as_str(), beside(model)))
            .collect();
        let some = |name: &str| Some(name.to_owned());
        assert_eq!(
            found,
            [
                ("tiny-12b-q8_0", (some("tiny-12b-mmproj-f16"), None)),
                ("tiny-26b-a4b-q8_0", (None, None)),
                ("tiny-31b-q4_0", (None, some("tiny-31b-mtp-q8_0"))),
                (
                    "tiny-e2b-q8_0",
                    (some("tiny-e2b-mmproj-f16"), some("tiny-e2b-mtp-q8_0"))
                ),
                ("tiny-e4b-q8_0", (None, None)),
            ]
        );
    }

    #[test]
    fn parts_of_a_file_are_rejected_together() {
        let folder = tempfile::tempdir().unwrap();
        let part = |file: File, number| {
            file.u16("split.no", number)
                .u16("split.count", 3)
                .u32("split.tensors.count", 1)
                .bytes()
        };
        put(
            folder.path(),
            "big-00001-of-00003.gguf",
            &part(File::model(), 0),
        );
        put(
            folder.path(),
            "big-00003-of-00003.gguf",
            &part(File::new(), 2),
        );
        put(folder.path(), "small.gguf", &File::model().bytes());
        let catalog = scan(&[folder.path().to_owned()]);
        assert_eq!(ids(&catalog), ["small"]);
        let rejected = rejected(&catalog);
        assert_eq!(rejected.len(), 1, "{rejected:?}");
        assert_eq!(rejected[0].0, "big-00001-of-00003.gguf");
        assert!(
            rejected[0].1.contains("one of 3 parts") && rejected[0].1.contains("missing: 2; put"),
            "{}",
            rejected[0].1
        );
    }

    #[test]
    fn the_first_directory_wins() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        put(one.path(), "sub/model.gguf", &File::model().bytes());
        put(two.path(), "Model.gguf", &File::model().bytes());
        let catalog = scan(&[one.path().to_owned(), two.path().to_owned()]);
        assert_eq!(catalog.models[0].path, one.path().join("sub/model.gguf"));
        assert_eq!(catalog.models.len(), 1);
        let rejected = rejected(&catalog);
        assert_eq!(rejected[0].0, "Model.gguf");
        assert!(
            rejected[0]
                .1
                .contains("sub/model.gguf has the same id `model`"),
            "{}",
            rejected[0].1
        );
    }

    #[test]
    fn a_missing_directory_is_reported_and_the_next_one_read() {
        let folder = tempfile::tempdir().unwrap();
        put(folder.path(), "model.gguf", &File::model().bytes());
        let catalog = scan(&[folder.path().join("none"), folder.path().to_owned()]);
        assert_eq!(ids(&catalog), ["model"]);
        assert_eq!(rejected(&catalog)[0].0, "none");
        assert!(
            catalog.rejected[0].reason.contains("No such file"),
            "{}",
            catalog.rejected[0].reason
        );
    }

    #[test]
    fn a_crowded_directory_is_cut_and_reported() {
        let folder = tempfile::tempdir().unwrap();
        for index in 0..=ENTRIES {
            put(folder.path(), &format!("{index}.txt"), b"");
        }
        let catalog = scan(&[folder.path().to_owned()]);
        assert!(
            catalog.rejected[0]
                .reason
                .contains("more than 4096 entries"),
            "{:?}",
            catalog.rejected
        );
    }

    /// A header that says it has `count` empty texts, in a file of holes.
    fn put_holes(folder: &Path, name: &str, count: u64) {
        let head = File::new()
            .text("general.architecture", "gemma4")
            .key(b"a", 9, &list(8, count, &[]))
            .bytes();
        let path = folder.join(name);
        put(folder, name, &head);
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        file.set_len(head.len() as u64 + 8 * count).unwrap();
    }

    #[test]
    fn files_of_holes_cost_little_and_are_named() {
        let folder = tempfile::tempdir().unwrap();
        for index in 0..20 {
            put_holes(folder.path(), &format!("many{index}.gguf"), 30_000_000);
            put_holes(folder.path(), &format!("most{index}.gguf"), ELEMENTS);
        }
        put(folder.path(), "good.gguf", &File::model().bytes());
        let start = Instant::now();
        let catalog = scan(&[folder.path().to_owned()]);
        let took = start.elapsed();
        assert_eq!(ids(&catalog), ["good"]);
        let rejected = rejected(&catalog);
        assert_eq!(rejected.len(), 40);
        assert_eq!(
            rejected[0].1,
            "metadata `a`: 30000000 elements of lists; at most 2097152 are read"
        );
        // Some 25 ms for each of the twenty that have as many as they may, on a machine that is
        // busy otherwise.
        assert!(took < Duration::from_secs(5), "{took:?}");
    }

    #[test]
    fn a_scan_can_be_given_up() {
        let folder = tempfile::tempdir().unwrap();
        put(folder.path(), "good.gguf", &File::model().bytes());
        let stop = AtomicBool::new(true);
        let catalog = Scan::new(&Installers::default(), &stop).run(folder.path());
        assert!(catalog.models.is_empty());
        assert!(rejected(&catalog)[0].1.ends_with("not read to its end"));
    }

    #[test]
    fn a_file_that_takes_too_long_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        put(folder.path(), "good.gguf", &File::model().bytes());
        let (never, installers) = (AtomicBool::new(false), Installers::default());
        let late = Scan {
            deadline: Instant::now(),
            ..Scan::new(&installers, &never)
        };
        let catalog = late.run(folder.path());
        assert!(catalog.models.is_empty());
        assert!(rejected(&catalog)[0].1.contains("takes too long to read"));
    }

    #[test]
    fn what_is_no_file_is_passed_over_at_once() {
        use nix::sys::stat::Mode;
        let folder = tempfile::tempdir().unwrap();
        put(folder.path(), "good.gguf", &File::model().bytes());
        nix::unistd::mkfifo(&folder.path().join("pipe.gguf"), Mode::S_IRWXU).unwrap();
        std::os::unix::net::UnixListener::bind(folder.path().join("socket.gguf")).unwrap();
        let device = folder.path().join("device.gguf");
        std::os::unix::fs::symlink("/dev/zero", device).unwrap();
        let pipe = folder.path().join("linked.gguf");
        std::os::unix::fs::symlink(folder.path().join("pipe.gguf"), pipe).unwrap();
        let catalog = scan(&[folder.path().to_owned()]);
        assert_eq!(ids(&catalog), ["good"]);
        let names = ["device.gguf", "linked.gguf", "pipe.gguf", "socket.gguf"];
        let expected = names.map(|name| (name.to_owned(), "not a regular file"));
        assert_eq!(rejected(&catalog), expected);
    }

    #[test]
    fn files_that_others_may_change_are_passed_over_by_name() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let chmod = |name: &str, mode| {
            fs::set_permissions(folder.path().join(name), fs::Permissions::from_mode(mode))
                .unwrap();
        };
        for name in ["good.gguf", "shared.gguf", "open/model.gguf"] {
            put(folder.path(), name, &File::model().bytes());
        }
        chmod("shared.gguf", 0o666);
        chmod("open", 0o777);
        let catalog = scan(&[folder.path().to_owned()]);
        assert_eq!(ids(&catalog), ["good"]);
        let rejected = rejected(&catalog);
        assert_eq!(rejected.len(), 2);
        for ((name, reason), expected) in rejected.iter().zip(["shared.gguf", "open"]) {
            assert_eq!(name, expected);
            assert!(
                reason.contains("everyone may change") && reason.contains("`chmod o-w "),
                "{reason}"
            );
        }
    }
}
