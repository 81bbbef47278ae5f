//! Looks for models in directories.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::companion::pair;
use super::{BadFile, Catalog, Model, Rejected, read, read_drafter, read_projector, split};

/// Entries that are looked at below one model directory, its subfolders' included.
const ENTRIES: usize = 4096;
/// The model name that stands for "the one that fits"; no file can have it.
const RESERVED: &str = "auto";

/// Looks for `*.gguf` files in each directory and in its subfolders, but not below those. Hidden
/// names are passed over; projectors and drafters go to the models of their folder that they fit.
/// Where two files have the same id, the one found first is the model: directories in the order
/// given, a directory's own files before its subfolders', names in the order of their bytes. Never
/// fails: what cannot be used is in `rejected`.
pub fn scan(directories: &[PathBuf]) -> Catalog {
    Catalog::merged(directories.iter().map(|directory| scan_one(directory)))
}

/// As [`scan`], for one directory; [`Catalog::merged`] puts several together.
pub fn scan_one(directory: &Path) -> Catalog {
    let (mut catalog, mut budget) = (Catalog::default(), ENTRIES);
    catalog.folders.push(directory.to_owned());
    for folder in scan_folder(directory, &mut budget, &mut catalog) {
        scan_folder(&folder, &mut budget, &mut catalog);
        catalog.folders.push(folder);
    }
    catalog.models.sort_unstable_by(|a, b| a.id.cmp(&b.id));
    catalog
}

/// Adds one folder's files to the catalog; returns its subfolders, sorted.
fn scan_folder(folder: &Path, budget: &mut usize, catalog: &mut Catalog) -> Vec<PathBuf> {
    let listing = match list(folder, budget) {
        Ok(listing) => listing,
        Err(error) => {
            catalog.reject(folder, format!("cannot be read: {error}"));
            return vec![];
        }
    };
    if listing.cut {
        catalog.reject(
            folder,
            format!("more than {ENTRIES} entries; not all were looked at"),
        );
    }
    let (mut projectors, mut drafters, mut parts) = (vec![], vec![], vec![]);
    for path in listing.files {
        let added = match read(&path) {
            Ok((model, _)) => {
                catalog.add(model);
                Ok(())
            }
            Err(BadFile::Projector) => {
                read_projector(&path).map(|(projector, _)| projectors.push(projector))
            }
            Err(BadFile::Drafter) => read_drafter(&path).map(|(drafter, _)| drafters.push(drafter)),
            Err(BadFile::Part(part)) => {
                parts.push((path.clone(), part));
                Ok(())
            }
            Err(error) => Err(error),
        };
        if let Err(error) = added {
            catalog.reject(&path, error.to_string());
        }
    }
    catalog.rejected.extend(split::reject(parts));
    for model in catalog
        .models
        .iter_mut()
        .filter(|model| model.path.parent() == Some(folder))
    {
        model.projector = pair(model, &projectors).cloned();
        model.drafter = pair(model, &drafters).cloned();
    }
    listing.folders
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
    use super::super::gguf::write::File;
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
}
