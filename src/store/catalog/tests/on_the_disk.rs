//! Drop-in catalogs as files: whose they are, and whether they are signed.

use super::drop_ins::DROP_IN;
use super::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
}

fn read(folder: &Path, key: &str) -> Catalogs {
    read_all(Some(&Place { folder, key }))
}

#[test]
fn a_broken_catalog_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    assert_eq!(read(&path.join("none"), "").offers(), offers());
    write(path, "a.toml", "[[repository]]\nname = 7\n");
    write(path, "b.toml", DROP_IN);
    write(path, ".c.toml", "]");
    write(path, "d.txt", "]");
    let found = read(path, "");
    assert_eq!(found.broken.len(), 1, "{:?}", found.broken);
    assert!(found.broken[0].path.ends_with("a.toml"));
    assert!(
        found.broken[0].reason.starts_with("line 2: "),
        "{:?}",
        found.broken
    );
    assert!(found.offers().repository("acme/tiny").is_some());
    let large = format!("#{}", "x".repeat(1 << 20));
    write(path, "a.toml", &large);
    assert!(read(path, "").broken[0].reason.contains("longer than"));
    fs::set_permissions(path.join("a.toml"), fs::Permissions::from_mode(0o646)).unwrap();
    let found = read(path, "");
    assert!(
        found.broken[0].reason.contains("everyone may change"),
        "{:?}",
        found.broken
    );
}

/// Made with minisign for the file beside it.
const KEY: &str = include_str!("../../../../tests/data/catalog/key.pub.txt");

#[test]
fn a_signature_is_wanted_where_there_is_a_key() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/catalog");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let text = fs::read_to_string(data.join("signed.toml")).unwrap();
    let signature = fs::read_to_string(data.join("signed.toml.minisig")).unwrap();
    write(path, "signed.toml", &text);
    let key = KEY.trim();
    assert!(
        read(path, key).broken[0]
            .reason
            .contains("wants a signature")
    );
    write(path, "signed.toml.minisig", &signature);
    let found = read(path, key);
    assert_eq!(found.broken, []);
    assert!(found.offers().repository("acme/signed").is_some());
    write(path, "signed.toml", &format!("{text}\n"));
    assert!(
        read(path, key).broken[0]
            .reason
            .contains("is not the signature")
    );
    write(path, "signed.toml.minisig", "nonsense");
    assert!(read(path, key).broken[0].reason.contains("no signature"));
    assert!(
        read(path, "x").broken[0]
            .reason
            .contains("`catalog-key` in gemmad.toml")
    );
    // Without a key none is looked at.
    assert_eq!(read(path, "").broken, []);
}
