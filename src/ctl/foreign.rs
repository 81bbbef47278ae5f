//! The stores of other programs: where they are, and which of their files are of the family.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::args::Foreign;
use crate::store::catalog::{Listed, Part, Question, Role, Source, choose, is_first, role_of};

/// Manifests and folders that are looked at.
const ENTRIES: usize = 4096;
/// The largest manifest, in bytes.
const LARGEST: u64 = 1 << 20;

/// A model in another program's store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// As that program calls it.
    pub name: String,
    /// Its files, and what each is to be called.
    pub files: Vec<(PathBuf, String)>,
}

/// The models of the family in a store. `variable` looks into the environment.
pub fn find(
    store: Foreign,
    variable: impl Fn(&str) -> Option<PathBuf>,
) -> (Vec<PathBuf>, Vec<Found>) {
    let home = |rest: &str| variable("HOME").map(|home| home.join(rest));
    let places: Vec<PathBuf> = match store {
        Foreign::Ollama => [
            variable("OLLAMA_MODELS"),
            home(".ollama/models"),
            Some("/usr/share/ollama/.ollama/models".into()),
        ]
        .into_iter()
        .flatten()
        .collect(),
        Foreign::Huggingface => [
            variable("HF_HUB_CACHE"),
            variable("HF_HOME").map(|home| home.join("hub")),
            home(".cache/huggingface/hub"),
        ]
        .into_iter()
        .flatten()
        .collect(),
    };
    let mut found = vec![];
    for place in &places {
        match store {
            Foreign::Ollama => ollama(place, &mut found),
            Foreign::Huggingface => hugging_face(place, &mut found),
        }
    }
    found.sort_by(|a: &Found, b| a.name.cmp(&b.name));
    found.dedup();
    (places, found)
}

#[derive(Deserialize)]
struct Manifest {
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    media_type: String,
    digest: String,
}

/// `manifests/HOST/OWNER/NAME/TAG` lists layers; `blobs/sha256-…` are they.
fn ollama(store: &Path, found: &mut Vec<Found>) {
    for manifest in below(&store.join("manifests"), 4) {
        let parts: Vec<_> = manifest
            .iter()
            .rev()
            .take(2)
            .filter_map(|part| part.to_str())
            .collect();
        let [tag, name] = parts[..] else { continue };
        if !is_of_family(name) && !is_of_family(tag) {
            continue;
        }
        let is_small = manifest
            .metadata()
            .is_ok_and(|metadata| metadata.is_file() && metadata.len() <= LARGEST);
        let text = fs::read(&manifest)
            .ok()
            .filter(|_| is_small)
            .unwrap_or_default();
        let Ok(read) = serde_json::from_slice::<Manifest>(&text) else {
            continue;
        };
        let called = plain(&format!("{name}-{tag}"));
        let file = |layer: &Layer| {
            let name = match layer.media_type.rsplit('.').next()? {
                "model" => format!("{called}.gguf"),
                "projector" => format!("mmproj-{called}.gguf"),
                _ => return None,
            };
            // Nothing but a digest, and so no path that leads elsewhere.
            let digest = layer.digest.strip_prefix("sha256:")?;
            let is_digest = digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit());
            let blob = store.join("blobs").join(format!("sha256-{digest}"));
            (is_digest && blob.is_file()).then_some((blob, name))
        };
        let files: Vec<_> = read.layers.iter().filter_map(file).collect();
        if !files.is_empty() {
            found.push(Found {
                name: format!("{name}:{tag}"),
                files,
            });
        }
    }
}

/// `models--OWNER--NAME/snapshots/REVISION/FILE.gguf`, which are links to blobs.
fn hugging_face(store: &Path, found: &mut Vec<Found>) {
    for folder in entries(store) {
        let Some(name) = folder
            .file_name()
            .and_then(|name| name.to_str()?.strip_prefix("models--").map(str::to_owned))
        else {
            continue;
        };
        let name = name.replacen("--", "/", 1);
        for snapshot in entries(&folder.join("snapshots")) {
            in_snapshot(&name, &snapshot, found);
        }
    }
}

/// Models are taken as `gemmactl pull` takes them from the repository: in all their parts, with a projector and a drafter.
fn in_snapshot(repository: &str, snapshot: &Path, found: &mut Vec<Found>) {
    let files = below(snapshot, 1).into_iter().chain(below(snapshot, 2));
    let listed: Vec<Listed> = files
        // What is still being downloaded is a link to nothing.
        .filter(|file| file.canonicalize().is_ok())
        .filter_map(|file| {
            file.strip_prefix(snapshot)
                .ok()?
                .to_str()
                .map(str::to_owned)
        })
        .map(|path| Listed {
            path,
            bytes: None,
            sha256: None,
        })
        .collect();
    for Listed { path, .. } in &listed {
        let is_model =
            role_of(path) == Some(Role::Model) && (is_of_family(repository) || is_of_family(path));
        // Parts come with the first.
        if !is_model || !is_first(path) {
            continue;
        }
        let question = Question {
            repository: repository.to_owned(),
            revision: None,
            part: Some(Part::File(path.clone())),
            with: None,
        };
        let Ok(pull) = choose(&question, &listed) else {
            continue;
        };
        let kept = pull.files.into_iter().map(|file| match file.source {
            Source::Hub { path, .. } => Some((snapshot.join(path).canonicalize().ok()?, file.name)),
            Source::Url(_) => None,
        });
        let own = path.rsplit('/').next().unwrap_or(path);
        found.extend(kept.collect::<Option<Vec<_>>>().map(|files| Found {
            name: format!("{repository}:{own}"),
            files,
        }));
    }
}

/// Whether a name is one of Gemma 4's, in any usual spelling.
fn is_of_family(name: &str) -> bool {
    let plain: String = name
        .to_lowercase()
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .collect();
    plain.contains("gemma4")
}

fn plain(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    name.chars()
        .map(|c| if is_plain(c) { c } else { '-' })
        .collect()
}

/// The files so many folders below one.
fn below(folder: &Path, depth: usize) -> Vec<PathBuf> {
    let mut level = vec![folder.to_owned()];
    for _ in 0..depth {
        let next = level
            .iter()
            .filter(|path| path.is_dir())
            .flat_map(|path| entries(path));
        level = next.take(ENTRIES).collect();
    }
    level.retain(|path| path.is_file());
    level
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let listed = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<_> = listed.take(ENTRIES).map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn ollamas_models_are_found_by_their_manifests() {
        let home = tempfile::tempdir().unwrap();
        let store = home.path().join(".ollama/models");
        let manifests = store.join("manifests/registry.ollama.ai/library");
        for folder in [
            store.join("blobs"),
            manifests.join("gemma4"),
            manifests.join("llama3"),
        ] {
            fs::create_dir_all(folder).unwrap();
        }
        let (model, eyes, gone) = ("a".repeat(64), "b".repeat(64), "c".repeat(64));
        for blob in [&model, &eyes] {
            fs::write(store.join(format!("blobs/sha256-{blob}")), b"").unwrap();
        }
        let layer = |kind: &str, digest: &str| {
            format!(
                r#"{{"mediaType": "application/vnd.ollama.image.{kind}", "digest": "sha256:{digest}"}}"#
            )
        };
        let layers = [
            layer("model", &model),
            layer("projector", &eyes),
            layer("license", &eyes),
        ];
        let manifest = format!(r#"{{"layers": [{}]}}"#, layers.join(","));
        fs::write(manifests.join("gemma4/e2b-it"), &manifest).unwrap();
        fs::write(
            manifests.join("gemma4/gone"),
            format!(r#"{{"layers": [{}]}}"#, layer("model", &gone)),
        )
        .unwrap();
        fs::write(
            manifests.join("gemma4/evil"),
            format!(r#"{{"layers": [{}]}}"#, layer("model", "../../x")),
        )
        .unwrap();
        fs::write(manifests.join("gemma4/broken"), "{").unwrap();
        fs::write(manifests.join("llama3/8b"), &manifest).unwrap();
        let variable = |name: &str| (name == "HOME").then(|| home.path().to_owned());
        let (_, found) = find(Foreign::Ollama, variable);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].name, "gemma4:e2b-it");
        let names: Vec<_> = found[0]
            .files
            .iter()
            .map(|(_, name)| name.as_str())
            .collect();
        assert_eq!(names, ["gemma4-e2b-it.gguf", "mmproj-gemma4-e2b-it.gguf"]);
    }

    #[test]
    fn the_hubs_cache_is_looked_through() {
        let cache = tempfile::tempdir().unwrap();
        let repository = cache
            .path()
            .join("models--google--gemma-4-E2B-it-qat-q4_0-gguf");
        let snapshot = repository.join("snapshots/abc");
        for folder in [
            repository.join("blobs"),
            snapshot.join("MTP"),
            cache.path().join("models--x--other/snapshots/1"),
        ] {
            fs::create_dir_all(folder).unwrap();
        }
        let blob = repository.join("blobs/1234");
        fs::write(&blob, b"").unwrap();
        symlink("../../blobs/1234", snapshot.join("gemma.gguf")).unwrap();
        symlink("../../../blobs/1234", snapshot.join("MTP/mtp.gguf")).unwrap();
        symlink("../../blobs/none", snapshot.join("half.gguf")).unwrap();
        for (name, blob) in [("all", "1234"), ("some", "none")] {
            let first = snapshot.join(format!("{name}-00001-of-00002.gguf"));
            symlink("../../blobs/1234", first).unwrap();
            let second = snapshot.join(format!("{name}-00002-of-00002.gguf"));
            symlink(format!("../../blobs/{blob}"), second).unwrap();
        }
        fs::write(snapshot.join("README.md"), b"").unwrap();
        fs::write(
            cache.path().join("models--x--other/snapshots/1/other.gguf"),
            b"",
        )
        .unwrap();
        let variable = |name: &str| (name == "HF_HUB_CACHE").then(|| cache.path().to_owned());
        let (_, found) = find(Foreign::Huggingface, variable);
        let names: Vec<_> = found.iter().map(|one| one.name.as_str()).collect();
        let repository = "google/gemma-4-E2B-it-qat-q4_0-gguf";
        assert_eq!(
            names,
            [
                format!("{repository}:all-00001-of-00002.gguf"),
                format!("{repository}:gemma.gguf")
            ]
        );
        let blob = blob.canonicalize().unwrap();
        let part = |number| (blob.clone(), format!("all-0000{number}-of-00002.gguf"));
        let drafter = (blob.clone(), "mtp.gguf".to_owned());
        assert_eq!(found[0].files, [part(1), part(2), drafter.clone()]);
        assert_eq!(found[1].files, [(blob, "gemma.gguf".into()), drafter]);
    }
}
