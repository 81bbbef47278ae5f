//! Models in several files.

use super::*;

/// What a part's header says besides; `tensors` are those of all three.
fn part(file: File, number: u16, tensors: u32) -> Vec<u8> {
    file.u16("split.no", number)
        .u16("split.count", 3)
        .u32("split.tensors.count", tensors)
        .bytes()
}

fn part_name(number: u16) -> String {
    format!("Big-{:05}-of-00003.gguf", number + 1)
}

/// The parts of one model; the second has a tensor for each of `names`.
fn put_parts(folder: &Path, names: &[&str], tensors: u32) {
    let second = names
        .iter()
        .fold(File::new(), |file, name| file.tensor(name, &[32], 0));
    for (number, file) in [File::model(), second, File::new()].into_iter().enumerate() {
        let number = number as u16;
        put(folder, &part_name(number), &part(file, number, tensors));
    }
}

#[test]
fn a_model_may_lie_in_parts() {
    let folder = tempfile::tempdir().unwrap();
    put_parts(folder.path(), &["blk.0.attn_norm.weight"], 2);
    put(folder.path(), "small.gguf", &File::model().bytes());
    let catalog = scan(&[folder.path().to_owned()]);
    assert_eq!(ids(&catalog), ["big", "small"]);
    assert_eq!(catalog.rejected, []);
    let big = &catalog.models[0];
    let paths = [0, 1, 2].map(|number| folder.path().join(part_name(number)));
    assert_eq!(big.paths(), paths);
    let lengths = paths.map(|path| path.metadata().unwrap().len());
    assert_eq!(big.size(), lengths.iter().sum::<u64>());
    // Weights of all parts count.
    assert_eq!(big.figures.layers, 128);
    // A part that is put in another's place is another model.
    let before = big.identity();
    put(folder.path(), &part_name(2), &part(File::new(), 2, 2));
    let again = scan(&[folder.path().to_owned()]);
    assert_ne!(again.models[0].identity(), before);
    assert_eq!(again.models[0].identity()[..2], before[..2]);
    // What is opened is what was found, or nothing.
    let opened = crate::store::inspect(&paths_of(&catalog), &Installers::default()).unwrap();
    assert_eq!(opened.files.len(), 3);
    assert_eq!(opened.layout.length(), big.size());
    let refused = |paths: &[PathBuf]| {
        let opened = crate::store::inspect(paths, &Installers::default());
        opened.unwrap_err().to_string()
    };
    let [one, two, three] = [0, 1, 2].map(|number| folder.path().join(part_name(number)));
    assert!(refused(&[one.clone(), three, two]).contains(
        "Big-00003-of-00003.gguf: not a whole model but part 3 of 3 in the place of part 2 of 3"
    ));
    assert!(
        refused(&[one.clone(), one.clone()]).contains("part 1 of 3 in the place of part 1 of 2")
    );
    assert!(refused(&[one]).contains("part 1 of 3 of a model, without the others"));
}

fn paths_of(catalog: &Catalog) -> Vec<PathBuf> {
    catalog.models[0].paths()
}

#[test]
fn parts_that_are_not_all_there_are_rejected_together() {
    let folder = tempfile::tempdir().unwrap();
    put_parts(folder.path(), &[], 1);
    fs::remove_file(folder.path().join(part_name(1))).unwrap();
    put(folder.path(), "small.gguf", &File::model().bytes());
    let catalog = scan(&[folder.path().to_owned()]);
    assert_eq!(ids(&catalog), ["small"]);
    let rejected = rejected(&catalog);
    let reason = "one of 3 parts of a model; missing: 2; put them beside it";
    assert_eq!(rejected, [(part_name(0), reason)]);
}

#[test]
fn parts_of_different_models_are_no_model() {
    let said = |names: &[&str], tensors| {
        let folder = tempfile::tempdir().unwrap();
        put_parts(folder.path(), names, tensors);
        let catalog = scan(&[folder.path().to_owned()]);
        assert_eq!(catalog.models, []);
        let rejected = rejected(&catalog);
        assert_eq!(
            (rejected.len(), rejected[0].0.as_str()),
            (1, part_name(0).as_str())
        );
        rejected[0].1.to_owned()
    };
    let of_another = said(&["blk.0.attn_norm.weight"], 3);
    assert!(
        of_another.contains("have 2 tensors and should have 3: one is of another model"),
        "{of_another}"
    );
    let twice = said(&["token_embd.weight"], 2);
    assert!(twice.contains("`token_embd.weight`"), "{twice}");
}

#[test]
fn bounds_hold_for_the_weights_of_every_part() {
    let folder = tempfile::tempdir().unwrap();
    put_parts(folder.path(), &[], 2);
    // ggml has no norm of 16 bits.
    let second = File::new().tensor("blk.0.attn_norm.weight", &[32], 1);
    put(folder.path(), &part_name(1), &part(second, 1, 2));
    let catalog = scan(&[folder.path().to_owned()]);
    assert_eq!(catalog.models, []);
    let rejected = rejected(&catalog);
    assert!(
        rejected[0].1.contains("`blk.0.attn_norm.weight`"),
        "{rejected:?}"
    );
}

#[test]
fn a_part_that_others_may_change_is_no_part() {
    let folder = tempfile::tempdir().unwrap();
    put_parts(folder.path(), &[], 1);
    let second = folder.path().join(part_name(1));
    fs::set_permissions(&second, fs::Permissions::from_mode(0o666)).unwrap();
    let catalog = scan(&[folder.path().to_owned()]);
    assert_eq!(catalog.models, []);
    let rejected = rejected(&catalog);
    assert!(
        rejected
            .iter()
            .any(|(name, reason)| *name == part_name(1) && reason.contains("everyone may change")),
        "{rejected:?}"
    );
    assert!(
        rejected
            .iter()
            .any(|(name, reason)| *name == part_name(0) && reason.contains("missing: 2")),
        "{rejected:?}"
    );
}
