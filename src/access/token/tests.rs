//! Tokens with a real file.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use futures_util::FutureExt;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

/// Of users who have one number.
fn own(uid: u32) -> u32 {
    uid
}

fn order(uid: u32) -> Order {
    Order {
        uid,
        name: None,
        groups: [100].into(),
        scopes: vec![Scope::Inference],
        model: None,
        per_minute: Some(2),
        ttl: HOUR,
    }
}

fn at(hours: u32) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000) + HOUR * hours
}

fn place() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state/tokens.json");
    (folder, file)
}

#[tokio::test]
async fn a_token_is_good_until_it_expires_over_restarts() {
    let (_folder, file) = place();
    let tokens = Tokens::open(Some(file.clone()));
    let (text, issued) = tokens.issue(order(1000), own, at(0)).await.unwrap();
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    let kept = fs::read_to_string(&file).unwrap();
    assert!(
        !kept.contains(&text[4..20]) && !kept.contains(&text[20..]),
        "{kept}"
    );
    for tokens in [tokens, Tokens::open(Some(file))] {
        assert_eq!(tokens.check(&text, at(0)), Ok(Arc::new(issued.clone())));
        assert_eq!(tokens.check(&text, at(1)), Err(Refusal::Expired));
        assert_eq!(tokens.check("gmd_", at(0)), Err(Refusal::Invalid));
        assert_eq!(
            tokens.list(Some(1000), at(0)),
            std::slice::from_ref(&issued)
        );
        assert!(tokens.list(Some(1001), at(0)).is_empty());
        assert!(tokens.list(None, at(1)).is_empty());
    }
}

#[tokio::test]
async fn no_token_is_good_for_longer_than_twelve_hours() {
    let (_folder, file) = place();
    let tokens = Tokens::open(Some(file));
    let long = Order {
        ttl: LONGEST * 3,
        ..order(1)
    };
    let (text, _) = tokens.issue(long, own, at(0)).await.unwrap();
    assert!(tokens.check(&text, at(11)).is_ok());
    assert_eq!(tokens.check(&text, at(12)), Err(Refusal::Expired));
}

#[tokio::test]
async fn what_is_revoked_stays_so() {
    let (_folder, file) = place();
    let tokens = Tokens::open(Some(file.clone()));
    let (one, issued) = tokens.issue(order(1000), own, at(0)).await.unwrap();
    let (two, _) = tokens.issue(order(1000), own, at(0)).await.unwrap();
    let (other, _) = tokens.issue(order(1001), own, at(0)).await.unwrap();
    // Not another user's.
    let id = Some(issued.id);
    assert_eq!(tokens.revoke(id, Some(1001), at(0)).await.unwrap(), 0);
    assert_eq!(tokens.revoke(id, Some(1000), at(0)).await.unwrap(), 1);
    assert_eq!(tokens.revoke(id, None, at(0)).await.unwrap(), 0);
    let tokens = Tokens::open(Some(file.clone()));
    assert_eq!(tokens.check(&one, at(0)), Err(Refusal::Revoked));
    assert!(tokens.check(&two, at(0)).is_ok());
    assert_eq!(tokens.revoke(None, Some(1000), at(0)).await.unwrap(), 1);
    let tokens = Tokens::open(Some(file));
    assert_eq!(tokens.check(&two, at(0)), Err(Refusal::Revoked));
    assert!(tokens.check(&other, at(0)).is_ok());
}

#[tokio::test]
async fn a_new_key_lets_old_tokens_come_to_their_end() {
    let (_folder, file) = place();
    let tokens = Tokens::open(Some(file.clone()));
    let (old, _) = tokens.issue(order(1), own, at(0)).await.unwrap();
    tokens.rotate(at(0)).await.unwrap();
    let (new, _) = tokens.issue(order(1), own, at(0)).await.unwrap();
    let key = |text: &str| text[5..10].to_owned();
    assert_ne!(key(&old), key(&new));
    assert!(tokens.check(&old, at(0)).is_ok() && tokens.check(&new, at(0)).is_ok());
    // Twelve hours on it is forgotten, with whatever it could have signed.
    tokens.rotate(at(13)).await.unwrap();
    assert_eq!(tokens.check(&old, at(0)), Err(Refusal::Invalid));
    assert_eq!(
        fs::read_to_string(&file).unwrap().matches("secret").count(),
        2
    );
}

#[tokio::test]
async fn a_signature_alone_is_not_enough() {
    let (folder, file) = place();
    let tokens = Tokens::open(Some(file.clone()));
    tokens.issue(order(1), own, at(0)).await.unwrap();
    let copy = folder.path().join("copy");
    fs::copy(&file, &copy).unwrap();
    // With the stolen key, elsewhere.
    let thief = Tokens::open(Some(copy));
    let (forged, _) = thief.issue(order(0), own, at(0)).await.unwrap();
    assert_eq!(tokens.check(&forged, at(0)), Err(Refusal::Unknown));
}

#[tokio::test]
async fn there_are_only_so_many() {
    let (_folder, file) = place();
    let tokens = Tokens::open(Some(file));
    for _ in 0..MOST_OF_USER {
        tokens.issue(order(1000), own, at(0)).await.unwrap();
    }
    let full = tokens.issue(order(1000), own, at(0)).await.unwrap_err();
    assert!(matches!(
        full,
        Fault::Full {
            limit: MOST_OF_USER
        }
    ));
    tokens.issue(order(1001), own, at(0)).await.unwrap();
    // Those that are over do not count.
    tokens.issue(order(1000), own, at(1)).await.unwrap();
    assert_eq!(tokens.list(None, at(1)).len(), 1);
}

#[tokio::test]
async fn all_numbers_of_a_person_have_one_limit() {
    let (_folder, file) = place();
    let tokens = Tokens::open(Some(file));
    let account = |uid| if uid >= 200_000 { 1000 } else { uid };
    for number in 0..MOST_OF_USER as u32 {
        let order = order(200_000 + number);
        tokens.issue(order, account, at(0)).await.unwrap();
    }
    let full = tokens.issue(order(1000), account, at(0)).await;
    assert!(matches!(full, Err(Fault::Full { .. })));
    tokens.issue(order(1001), account, at(0)).await.unwrap();
}

#[tokio::test]
async fn revoked_ones_are_kept_within_bounds() {
    let (_folder, file) = place();
    let tokens = Tokens::open(Some(file));
    let (_, good) = tokens.issue(order(1000), own, at(0)).await.unwrap();
    let mut state = state::State::default();
    for id in 0..=MOST as u64 {
        state.add(Record {
            id,
            revoked: true,
            ..good.clone()
        });
    }
    state.add(good.clone());
    state.forget_old(good.issued);
    assert_eq!(state.records().count(), MOST + 1);
    // The oldest goes.
    assert!(state.record(0).is_none() && state.record(1).is_some());
    assert!(state.record(good.id).is_some());
}

#[tokio::test]
async fn a_token_has_so_many_requests_a_minute() {
    let (_folder, file) = place();
    let tokens = Tokens::open(Some(file));
    let (_, record) = tokens.issue(order(1), own, at(0)).await.unwrap();
    let now = Instant::now();
    assert!(tokens.count(&record, now).is_ok() && tokens.count(&record, now).is_ok());
    assert_eq!(tokens.count(&record, now), Err(Duration::from_secs(30)));
}

#[tokio::test]
async fn a_file_that_is_not_ours_or_is_damaged_takes_no_token() {
    let (_folder, file) = place();
    let (text, _) = Tokens::open(Some(file.clone()))
        .issue(order(1), own, at(0))
        .await
        .unwrap();
    let whole = fs::read(&file).unwrap();
    for (mode, bytes) in [(0o640, &whole[..]), (0o600, &whole[..40]), (0o600, b"{}")] {
        fs::write(&file, bytes).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let tokens = Tokens::open(Some(file.clone()));
        assert_eq!(tokens.check(&text, at(0)), Err(Refusal::Invalid));
        let fault = tokens.issue(order(1), own, at(0)).await.unwrap_err();
        assert!(matches!(fault, Fault::Broken(reason) if reason.contains("tokens.json")));
        assert_eq!(fs::read(&file).unwrap(), bytes, "nothing is overwritten");
    }
    let off = Tokens::open(None).issue(order(1), own, at(0)).await;
    assert!(matches!(off, Err(Fault::Off)));
}

/// A folder of credentials with these.
fn credentials(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

#[tokio::test]
async fn a_credential_signs_in_the_place_of_the_files_key() {
    let (_folder, file) = place();
    let open =
        |given: &tempfile::TempDir| Tokens::open(Some(file.clone())).with_credentials(given.path());
    let none = credentials(&[]);
    // Random bytes may end like a line.
    let mut random = [0xe1; 32];
    random[31] = b'\n';
    let first = credentials(&[("tokens.key", &random)]);
    let next = credentials(&[("tokens.key", &[2; 48]), ("tokens.old.key", &random)]);
    let tokens = open(&none);
    assert_eq!(tokens.signs(), Some(Signs::File));
    let (of_file, _) = tokens.issue(order(1), own, at(0)).await.unwrap();

    let tokens = open(&first);
    assert_eq!(tokens.signs(), Some(Signs::Credential));
    let (of_first, _) = tokens.issue(order(1), own, at(0)).await.unwrap();
    assert!(tokens.check(&of_file, at(0)).is_ok() && tokens.check(&of_first, at(0)).is_ok());
    let rotated = tokens.rotate(at(0)).await;
    assert!(matches!(rotated, Err(Fault::GivenKey)));
    // The file has nothing that would sign for it.
    let kept = fs::read_to_string(&file).unwrap();
    assert!(
        kept.contains("\"until\":18") && !kept.contains("\"until\":null"),
        "{kept}"
    );
    assert_eq!(open(&none).check(&of_first, at(0)), Err(Refusal::Invalid));

    // Another credential, and the former one beside it.
    let tokens = open(&next);
    let (of_next, _) = tokens.issue(order(1), own, at(0)).await.unwrap();
    for text in [&of_file, &of_first, &of_next] {
        assert!(tokens.check(text, at(0)).is_ok(), "{text}");
    }
    assert_eq!(open(&first).check(&of_next, at(0)), Err(Refusal::Invalid));
    // The file's own is forgotten when nothing that it signed can be good.
    let long = Order {
        ttl: LONGEST,
        ..order(2)
    };
    tokens.issue(long, own, at(13)).await.unwrap();
    assert!(!fs::read_to_string(&file).unwrap().contains("secret"));
}

#[tokio::test]
async fn a_credential_that_is_no_key_takes_no_token() {
    let (_folder, file) = place();
    let (text, _) = Tokens::open(Some(file.clone()))
        .issue(order(1), own, at(0))
        .await
        .unwrap();
    for (name, bytes, why) in [
        ("tokens.key", &b""[..], "it is empty"),
        ("tokens.key", b"\n \n", "it is empty"),
        ("tokens.key", &[7; 31], "it has 31 bytes only"),
        (
            "tokens.key",
            b"0123456789abcdef0123456789abcde\n",
            "it has 31 bytes only",
        ),
        ("tokens.old.key", &[7; 8], "it has 8 bytes only"),
        ("tokens.key", &[7; 4097], "more than 4096 bytes"),
    ] {
        let given = credentials(&[(name, bytes)]);
        let tokens = Tokens::open(Some(file.clone())).with_credentials(given.path());
        assert_eq!(tokens.signs(), None);
        assert_eq!(tokens.check(&text, at(0)), Err(Refusal::Invalid));
        assert!(tokens.broken().unwrap().contains(why));
        let fault = tokens.issue(order(1), own, at(0)).await.unwrap_err();
        let Fault::Broken(reason) = fault else {
            panic!("{fault:?}")
        };
        assert!(reason.contains(why) && reason.contains(name), "{reason}");
    }
}

#[tokio::test]
async fn whoever_waits_hears_that_a_token_is_revoked() {
    let (_folder, file) = place();
    let tokens = Tokens::open(Some(file));
    let (_, one) = tokens.issue(order(1000), own, at(0)).await.unwrap();
    let (_, two) = tokens.issue(order(1000), own, at(0)).await.unwrap();
    let mut ended = Box::pin(tokens.until_revoked(one.id));
    let mut other = Box::pin(tokens.until_revoked(two.id));
    assert!(ended.as_mut().now_or_never().is_none());
    tokens.revoke(Some(one.id), None, at(0)).await.unwrap();
    assert!(ended.as_mut().now_or_never().is_some());
    assert!(other.as_mut().now_or_never().is_none());
    // Who comes later hears it at once.
    assert!(tokens.until_revoked(one.id).now_or_never().is_some());
    tokens.revoke(None, Some(1000), at(0)).await.unwrap();
    assert!(other.now_or_never().is_some());
}
