//! Pure: the addresses of a hub, and what it says of a repository.

use serde::Deserialize;
use url::Url;

use crate::store::catalog::{Listed, digest_of};

/// Bytes of what a hub may say of a repository.
pub const LARGEST_LISTING: u64 = 8 << 20;
/// The branch that is meant where none is named.
const MAIN: &str = "main";

/// A repository at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The commit.
    pub revision: String,
    pub files: Vec<Listed>,
}

#[derive(Deserialize)]
struct Said {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default)]
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    #[serde(default)]
    sha256: Option<String>,
    /// What older versions of the API call it.
    #[serde(default)]
    oid: Option<String>,
    #[serde(default)]
    size: Option<u64>,
}

/// Where the list of a repository's files is.
pub fn listing_address(hub: &str, repository: &str, revision: Option<&str>) -> Option<Url> {
    let mut url = Url::parse(hub).ok()?;
    url.path_segments_mut()
        .ok()?
        .pop_if_empty()
        .extend(["api", "models"])
        .extend(repository.split('/'))
        .extend(["revision", revision.unwrap_or(MAIN)]);
    url.set_query(Some("blobs=true"));
    Some(url)
}

/// Where a file is.
pub fn file_address(hub: &str, repository: &str, revision: &str, path: &str) -> Option<Url> {
    let mut url = Url::parse(hub).ok()?;
    url.path_segments_mut()
        .ok()?
        .pop_if_empty()
        .extend(repository.split('/'))
        .extend(["resolve", revision])
        .extend(path.split('/'));
    Some(url)
}

/// Reads the list.
///
/// # Errors
/// It is none.
pub fn read_listing(text: &[u8]) -> Result<Listing, String> {
    if text.len() as u64 >= LARGEST_LISTING {
        return Err(format!(
            "what it says of the repository is too long: {} MiB are read",
            LARGEST_LISTING >> 20
        ));
    }
    let said: Said = serde_json::from_slice(text)
        .map_err(|error| format!("what it says of the repository cannot be read: {error}"))?;
    let is_commit = said.sha.len() == 40 && said.sha.bytes().all(|b| b.is_ascii_hexdigit());
    if !is_commit {
        return Err("what it says of the repository names no commit".into());
    }
    let file = |sibling: Sibling| {
        let lfs = sibling.lfs.as_ref();
        let hash = lfs.and_then(|lfs| lfs.sha256.as_deref().or(lfs.oid.as_deref()));
        Listed {
            bytes: lfs.and_then(|lfs| lfs.size).or(sibling.size),
            sha256: hash.and_then(|hash| digest_of(hash.trim_start_matches("sha256:"))),
            path: sibling.rfilename,
        }
    };
    Ok(Listing {
        revision: said.sha,
        files: said.siblings.into_iter().map(file).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_the_hubs() {
        let hub = "https://mirror.example/hub";
        assert_eq!(
            listing_address(hub, "a/b", None).unwrap().as_str(),
            "https://mirror.example/hub/api/models/a/b/revision/main?blobs=true"
        );
        assert_eq!(
            file_address(hub, "a/b", "main", "d/x y.gguf")
                .unwrap()
                .as_str(),
            "https://mirror.example/hub/a/b/resolve/main/d/x%20y.gguf"
        );
    }

    #[test]
    fn listings_have_sizes_and_hashes_where_the_hub_says_them() {
        let sha = "ab".repeat(32);
        let commit = "c0".repeat(20);
        let text = format!(
            r#"{{"sha": "{commit}", "siblings": [{{"rfilename": "README.md", "size": 5}},
            {{"rfilename": "x.gguf", "size": 7, "lfs": {{"sha256": "{sha}", "size": 7, "pointerSize": 1}}}}, {{"rfilename": "y.gguf"}}]}}"#
        );
        let listing = read_listing(text.as_bytes()).unwrap();
        assert_eq!(listing.revision, commit);
        let sizes: Vec<_> = listing.files.iter().map(|file| file.bytes).collect();
        assert_eq!(sizes, [Some(5), Some(7), None]);
        assert_eq!(listing.files[1].sha256, digest_of(&sha));
        for bad in ["", "[]", r#"{"sha": "main", "siblings": []}"#] {
            assert!(read_listing(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
