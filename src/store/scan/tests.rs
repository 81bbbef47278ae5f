use super::super::gguf::ELEMENTS;
use super::super::gguf::write::{File, list};
use super::*;
use std::os::unix::fs::PermissionsExt;

mod parts;

fn put(folder: &Path, name: &str, bytes: &[u8]) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn scan(directories: &[PathBuf]) -> Catalog {
    let (never, installers) = (AtomicBool::new(false), Installers::default());
    let scan = |directory: &PathBuf| Scan::new(&installers, &never).run(directory).catalog;
    Catalog::merged(directories.iter().map(scan))
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
        rejected[1].1.contains("token_embd.weight") && rejected[1].1.contains("download it again"),
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
fn the_first_directory_wins() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    put(one.path(), "sub/model.gguf", &File::model().bytes());
    put(two.path(), "Model.gguf", &File::model().bytes());
    let catalog = scan(&[one.path().to_owned(), two.path().to_owned()]);
    assert_eq!(catalog.models[0].path(), one.path().join("sub/model.gguf"));
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
    assert!(!catalog.rejected[0].hides);
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
    let catalog = Scan::new(&Installers::default(), &stop)
        .run(folder.path())
        .catalog;
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
    let catalog = late.run(folder.path()).catalog;
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
        fs::set_permissions(folder.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    for name in ["good.gguf", "shared.gguf", "open/model.gguf"] {
        put(folder.path(), name, &File::model().bytes());
    }
    chmod("shared.gguf", 0o666);
    chmod("open", 0o777);
    let catalog = scan(&[folder.path().to_owned()]);
    assert_eq!(ids(&catalog), ["good"]);
    let hide = |entry: &Rejected| entry.hides;
    assert_eq!(
        catalog.rejected.iter().map(hide).collect::<Vec<_>>(),
        [false, true]
    );
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

#[test]
fn a_namesake_is_found_wherever_it_lies() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [first, second] = folders.each_ref().map(|folder| folder.path());
    let directories = [first.to_owned(), second.to_owned()];
    let other = |id: &str, own: &[&str]| {
        let own: Vec<PathBuf> = own.iter().map(|name| first.join(name)).collect();
        namesake(&directories, id, &own)
    };
    assert_eq!(other("b", &["b.gguf"]), None);
    put(first, "b.gguf", b"");
    assert_eq!(other("b", &["b.gguf"]), None);
    assert_eq!(other("b", &["a/b.gguf"]), Some(first.join("b.gguf")));
    // A scan takes `B.gguf` for the same, as it does parts; what is hidden, or leads nowhere, it does not see.
    put(second, "z/C.GGUF", b"");
    assert_eq!(other("c", &["c.gguf"]), Some(second.join("z/C.GGUF")));
    put(first, "d-00001-of-00002.gguf", b"");
    let parts = ["d-00001-of-00002.gguf", "d-00002-of-00002.gguf"];
    assert_eq!(other("d", &parts), None);
    assert_eq!(other("d", &["d.gguf"]), Some(first.join(parts[0])));
    put(first, ".hidden/e.gguf", b"");
    std::os::unix::fs::symlink("/nowhere/e.gguf", first.join("e.gguf")).unwrap();
    assert_eq!(other("e", &["x/e.gguf"]), None);
    // The same file by another name of its directory.
    std::os::unix::fs::symlink(first, second.join("again")).unwrap();
    assert_eq!(other("b", &["b.gguf"]), None);
}
