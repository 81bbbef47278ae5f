//! What names, numbers and texts in a catalog or on a command line may be. Pure.

use super::{Digest, Role};

/// Bytes of an owner's or a repository's name; the hub's own limit.
const LONGEST_PART: usize = 96;
/// Bytes of a file's path in a repository.
const LONGEST_PATH: usize = 240;
/// Bytes of the name of a type of weights.
const LONGEST_QUANTIZATION: usize = 32;
/// Bytes of a reason or another line of text.
const LONGEST_TEXT: usize = 400;
/// The largest file that is believed in, in bytes.
pub const LARGEST_FILE: u64 = 1 << 44;

/// Whether this is `OWNER/REPO`.
pub fn is_repository(text: &str) -> bool {
    let part = |part: &str| {
        (1..=LONGEST_PART).contains(&part.len())
            && part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part.bytes().all(is_plain)
            && !part.contains("..")
            // The hub has neither; the one stands between the two in a folder's name.
            && !part.contains("--")
            && !part.ends_with('.')
    };
    text.split_once('/')
        .is_some_and(|(owner, name)| part(owner) && part(name))
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._-".contains(&byte)
}

/// Whether this is the path of a GGUF file in a repository, whose last part can be a file's name.
pub fn is_file(path: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part
                .bytes()
                .all(|byte| is_plain(byte) || b" +()[]=".contains(&byte))
    };
    path.len() <= LONGEST_PATH && has_suffix(path) && path.split('/').all(part)
}

/// Whether a name ends as GGUF files do.
pub fn has_suffix(name: &str) -> bool {
    crate::gemma::model_name::without_suffix(name).len() < name.len()
}

/// The last part of a path.
pub fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Whether this is a commit.
pub fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether this can be a branch, a tag or a commit.
pub fn is_revision(text: &str) -> bool {
    (1..=LONGEST_PART).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(is_plain)
        && !text.contains("..")
}

/// A SHA-256 in 64 hexadecimal digits.
pub fn digest(text: &str) -> Option<Digest> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut digest = [0; 32];
    for (byte, pair) in digest.iter_mut().zip(digits.chunks_exact(2)) {
        let value = |digit: u8| (digit as char).to_digit(16);
        *byte = u8::try_from(value(pair[0])? << 4 | value(pair[1])?).ok()?;
    }
    Some(digest)
}

/// A SHA-256 as it is written.
pub fn hexadecimal(digest: &Digest) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether this can be the name of a model's file, without folders.
pub fn is_file_name(name: &str) -> bool {
    is_file(name) && !name.contains('/')
}

/// Whether this names a type of weights.
pub fn is_quantization(text: &str) -> bool {
    (1..=LONGEST_QUANTIZATION).contains(&text.len()) && text.bytes().all(is_plain)
}

/// Whether this is one line that can be shown.
pub fn is_text(text: &str) -> bool {
    (1..=LONGEST_TEXT).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// Whether this is what somebody can call a model.
pub fn is_name(text: &str) -> bool {
    (1..=LONGEST_PART).contains(&text.len()) && text.bytes().all(is_plain)
}

pub fn role(text: &str) -> Option<Role> {
    [Role::Model, Role::Projector, Role::Drafter]
        .into_iter()
        .find(|role| role.id() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_and_files_have_plain_names() {
        for name in ["google/gemma-4-E2B-it", "a/b", "1a.b_c/d-e.f"] {
            assert!(is_repository(name), "{name}");
        }
        for name in [
            "", "a", "a/", "/b", "a/b/c", "../b", "a/..", "a/.b", "a/b.", "a b/c", "a/é", "a--b/c",
        ] {
            assert!(!is_repository(name), "{name}");
        }
        assert!(!is_repository(&format!("a/{}", "b".repeat(97))));
        for path in ["x.gguf", "MTP/x-Q4_0.GGUF", "a (1).gguf"] {
            assert!(is_file(path), "{path}");
        }
        for path in [
            "",
            "x",
            ".gguf",
            "../x.gguf",
            "a//x.gguf",
            "/x.gguf",
            "a/.x.gguf",
            "x\n.gguf",
            "é.gguf",
        ] {
            assert!(!is_file(path), "{path}");
        }
    }

    #[test]
    fn digests_are_read() {
        let digest_of = digest(&format!("0fA1{}", "0".repeat(60))).unwrap();
        assert_eq!(digest_of[..3], [0x0f, 0xa1, 0]);
        for bad in ["", "0f", &"0".repeat(63), &"g".repeat(64), &"é".repeat(32)] {
            assert_eq!(digest(bad), None, "{bad}");
        }
    }
}
