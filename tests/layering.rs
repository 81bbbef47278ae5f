//! The map in `docs/architecture.md`, enforced: who may use whom, where `unsafe` may live, how long a file may be.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Each room, and the rooms it may use.
const ARROWS: [(&str, &[&str]); 16] = [
    // `gemmad-worker` brings the worker's code, and with it what that may use.
    ("bin", &["chat", "ctl", "daemon", "gemma", "ipc", "sandbox", "sys"]),
    ("daemon", &["access", "api", "bus", "config", "engine", "sys"]),
    ("api", &["access", "chat", "config", "engine"]),
    // The API's JSON is what goes over the bus as well.
    ("bus", &["access", "api", "chat", "config", "engine"]),
    ("access", &["config", "engine", "sys"]),
    ("engine", &["chat", "config", "gemma", "ipc", "memory", "sandbox", "store", "sys"]),
    ("memory", &["gemma", "sys"]),
    ("store", &["gemma", "sys"]),
    ("worker", &["chat", "gemma", "ipc", "sandbox", "sys"]),
    ("sandbox", &["sys"]),
    ("ctl", &["bus", "chat", "config"]),
    ("sys", &[]),
    ("ipc", &["chat", "gemma"]),
    ("gemma", &["chat"]),
    ("config", &["chat", "gemma"]),
    ("chat", &[]),
];

/// Files that decide: nothing but std, serde and each other.
const PURE: [&str; 13] = [
    "engine/state.rs",
    "engine/state/action.rs",
    "engine/state/choosing.rs",
    "engine/state/pump.rs",
    "engine/state/smaller.rs",
    "engine/state/trouble.rs",
    "engine/pressure.rs",
    "engine/documents.rs",
    "engine/queue.rs",
    "engine/failure.rs",
    "memory/fit.rs",
    "gemma/figures.rs",
    "gemma/parse.rs",
];
const EFFECTS: [&str; 9] = ["tokio", "rustix", "nix::", "std::fs", "std::net", "std::process", "std::thread", "tracing", "Instant::now"];

const UNSAFE_HOMES: [&str; 2] = ["sys/", "worker/llama/"];
const LONGEST: usize = 500;

struct Source {
    /// Below `src/`.
    name: String,
    /// Without tests and comments.
    code: String,
}

fn sources() -> Vec<Source> {
    fn walk(dir: &Path, out: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { walk(&path, out) } else { out.push(path) }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&root, &mut files);
    let rust = files.into_iter().filter(|path| path.extension().is_some_and(|e| e == "rs"));
    // Files that are nothing but tests, by their name.
    let rust = rust.filter(|path| !path.file_stem().unwrap().to_string_lossy().ends_with("tests"));
    let strip = |text: String| {
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        code.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
    };
    let name = |path: &Path| path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
    rust.map(|path| Source { name: name(&path), code: strip(fs::read_to_string(&path).unwrap()) }).collect()
}

fn room(name: &str) -> &str {
    name.split('/').next().unwrap()
}

fn words_after<'a>(code: &'a str, prefix: &str) -> BTreeSet<&'a str> {
    let ends = |c: char| !c.is_alphanumeric() && c != '_';
    let word = |rest: &'a str| rest.split(ends).next().unwrap_or_default();
    let mut found: BTreeSet<&str> = code.split(prefix).skip(1).map(word).collect();
    // `use crate::{a, b::c}`
    for list in code.split(&format!("{prefix}{{")).skip(1) {
        found.extend(list.split('}').next().unwrap_or_default().split(',').map(|item| word(item.trim())));
    }
    found.remove("");
    found
}

#[test]
fn arrows_point_only_where_the_map_says() {
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.into();
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|s| s.name.contains('/')) {
        let here = room(&source.name);
        let Some(allowed) = allowed.get(here) else {
            wrong.push(format!("src/{here} is not on the map"));
            continue;
        };
        let prefix = if here == "bin" { "gemmad::" } else { "crate::" };
        for used in words_after(&source.code, prefix) {
            if used != here && !allowed.contains(&used) {
                wrong.push(format!("src/{} uses {used}; {here} may use {allowed:?}", source.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_bindings_are_named_in_one_place() {
    let stray = sources().into_iter().filter(|s| !s.name.starts_with("worker/llama/") && s.code.contains("ggml_sys")).map(|s| s.name);
    assert_eq!(stray.collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn unsafe_lives_in_its_homes() {
    let unsafe_word = |code: &str| code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe");
    let stray = sources().into_iter().filter(|s| unsafe_word(&s.code) && !UNSAFE_HOMES.iter().any(|home| s.name.starts_with(home)));
    assert_eq!(stray.map(|s| s.name).collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn decisions_have_no_effects() {
    for source in sources().iter().filter(|s| PURE.contains(&s.name.as_str())) {
        let found: Vec<_> = EFFECTS.iter().filter(|effect| source.code.contains(**effect)).collect();
        assert!(found.is_empty(), "src/{} decides and must not use {found:?}", source.name);
    }
    let names: Vec<String> = sources().into_iter().map(|s| s.name).collect();
    for pure in PURE {
        assert!(names.iter().any(|name| name == pure), "src/{pure} is gone; mend this test");
    }
}

#[test]
fn files_stay_short() {
    let long = sources().into_iter().map(|s| (s.code.lines().count(), s.name)).filter(|(lines, _)| *lines > LONGEST);
    assert_eq!(long.collect::<Vec<_>>(), Vec::<(usize, String)>::new(), "over {LONGEST} lines before their tests");
}
