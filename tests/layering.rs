//! The map in `docs/architecture.md`, enforced: who may use whom, where `unsafe` may live, how long
//! a file may be.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Each room, and the rooms it may use.
const ARROWS: [(&str, &[&str]); 21] = [
    // `gemmad-worker` brings the worker's code, and with it what that may use.
    (
        "bin",
        &[
            "chat", "ctl", "daemon", "gateway", "gemma", "ipc", "sandbox", "sys",
        ],
    ),
    (
        "daemon",
        // `memory`: the account that engine and attachments share.
        &[
            "access",
            "api",
            "attachments",
            "backend",
            "bus",
            "chat",
            "config",
            "engine",
            "memory",
            "sys",
            "upstream",
            "usage",
        ],
    ),
    (
        "api",
        &["access", "attachments", "backend", "chat", "config", "sys"],
    ),
    // The API's JSON is what goes over the bus as well.
    (
        "bus",
        &["access", "api", "attachments", "backend", "chat", "config"],
    ),
    // `engine`: how a worker is started for one request.
    (
        "attachments",
        &["access", "backend", "chat", "engine", "ipc", "memory"],
    ),
    ("upstream", &["backend", "chat", "config", "ipc", "sys"]),
    // `store`: how small files are replaced.
    ("usage", &["backend", "chat", "config", "store"]),
    ("gateway", &["config", "sys"]),
    ("access", &["chat", "config", "store", "sys"]),
    (
        "engine",
        &[
            "backend", "chat", "config", "gemma", "ipc", "memory", "sandbox", "store", "sys",
        ],
    ),
    // What the doors see of a backend, in the words that it reports in.
    ("backend", &["chat", "gemma", "ipc", "memory", "sandbox"]),
    ("memory", &["gemma", "sys"]),
    ("store", &["gemma", "sys"]),
    ("worker", &["chat", "gemma", "ipc", "sandbox", "sys"]),
    ("sandbox", &["sys"]),
    // `gateway`: its manual page. `store`: `config check` reads catalogs, and `import` takes files in, as the daemon does.
    (
        "ctl",
        &["access", "bus", "chat", "config", "gateway", "store"],
    ),
    ("sys", &[]),
    ("ipc", &["chat", "gemma"]),
    ("gemma", &["chat"]),
    ("config", &["chat", "gemma"]),
    ("chat", &[]),
];

/// What a file must not use whose header says "Pure": it decides, with nothing but std, serde and
/// other such files.
const EFFECTS: [&str; 10] = [
    "tokio",
    "rustix",
    "nix::",
    "getrandom",
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "tracing",
    "Instant::now",
];

const UNSAFE_HOMES: [&str; 2] = ["sys/", "worker/llama/"];
const LONGEST_FILE: usize = 500;
/// From its signature to its last brace.
const LONGEST_FUNCTION: usize = 70;

struct Source {
    /// Below `src/`.
    name: String,
    /// The comment at the top of the file.
    header: String,
    /// Without tests and comments.
    code: String,
}

/// The files of this project.
fn ours() -> Vec<Source> {
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
}

fn sources(root: &Path) -> Vec<Source> {
    fn walk(dir: &Path, out: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, out)
            } else {
                out.push(path)
            }
        }
    }
    let mut files = Vec::new();
    walk(root, &mut files);
    let rust = files
        .into_iter()
        .filter(|path| path.extension().is_some_and(|e| e == "rs"));
    // Files that are nothing but tests, by their name or their folder's.
    let rust = rust.filter(|path| {
        let is_tests = |part: &std::ffi::OsStr| part.to_string_lossy().ends_with("tests");
        !is_tests(path.file_stem().unwrap()) && !path.iter().any(is_tests)
    });
    rust.map(|path| {
        let text = fs::read_to_string(&path).unwrap();
        let header = text
            .lines()
            .take_while(|line| line.starts_with("//!"))
            .collect::<Vec<_>>()
            .join("\n");
        Source {
            name: path
                .strip_prefix(root)
                .unwrap()
                .to_string_lossy()
                .into_owned(),
            header,
            code: code(&text),
        }
    })
    .collect()
}

/// A file's text without comments, and without what is in it for tests: a module written out behind
/// `#[cfg(test)]`. One that is only named there (`mod tests;`) is in a file of its own, and what
/// follows it is no test.
fn code(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let is_tests = |at: usize| {
        let named = lines
            .get(at + 1)
            .is_some_and(|next| next.starts_with("mod ") && next.ends_with('{'));
        lines[at] == "#[cfg(test)]" && named
    };
    let end = (0..lines.len())
        .find(|at| is_tests(*at))
        .unwrap_or(lines.len());
    lines[..end]
        .iter()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n")
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
        found.extend(
            list.split('}')
                .next()
                .unwrap_or_default()
                .split(',')
                .map(|item| word(item.trim())),
        );
    }
    found.remove("");
    found
}

/// Uses of rooms that are not on the map.
fn wrong_arrows(sources: &[Source]) -> Vec<String> {
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.into();
    let mut wrong = Vec::new();
    for source in sources.iter().filter(|s| s.name.contains('/')) {
        let here = room(&source.name);
        let Some(allowed) = allowed.get(here) else {
            wrong.push(format!("src/{here} is not on the map"));
            continue;
        };
        let prefix = if here == "bin" { "gemmad::" } else { "crate::" };
        for used in words_after(&source.code, prefix) {
            if used != here && !allowed.contains(&used) {
                wrong.push(format!(
                    "src/{} uses {used}; {here} may use {allowed:?}",
                    source.name
                ));
            }
        }
    }
    wrong
}

/// Files with `unsafe` outside its homes.
fn stray_unsafe(sources: &[Source]) -> Vec<&str> {
    let unsafe_word = |code: &str| {
        code.split(|c: char| !c.is_alphanumeric() && c != '_')
            .any(|word| word == "unsafe")
    };
    let stray = sources.iter().filter(|s| {
        unsafe_word(&s.code) && !UNSAFE_HOMES.iter().any(|home| s.name.starts_with(home))
    });
    stray.map(|s| s.name.as_str()).collect()
}

/// Files whose header says that they are pure, and whether that is so.
fn impure(sources: &[Source]) -> Vec<String> {
    let says_pure = |s: &&Source| {
        s.header
            .split(|c: char| !c.is_alphanumeric())
            .any(|word| word == "Pure")
    };
    let found = sources.iter().filter(says_pure).map(|source| {
        let used: Vec<_> = EFFECTS
            .iter()
            .filter(|effect| source.code.contains(**effect))
            .collect();
        (!used.is_empty())
            .then(|| format!("src/{} says that it is pure and uses {used:?}", source.name))
    });
    found.flatten().collect()
}

/// Functions that are longer than a reader wants to hold in mind. rustfmt indents the last brace of
/// a function as its first line.
fn long_functions(sources: &[Source]) -> Vec<String> {
    let mut long = vec![];
    for source in sources {
        let lines: Vec<&str> = source.code.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let code = line.trim_start();
            let indent = line.len() - code.len();
            let Some((before, name)) = code.split_once("fn ") else {
                continue;
            };
            let qualifies = |word: &str| {
                matches!(
                    word,
                    "pub" | "async" | "const" | "unsafe" | "extern" | "\"C\""
                ) || word.starts_with("pub(")
            };
            if !before.split_whitespace().all(qualifies) {
                continue;
            }
            let is_end = |line: &&str| {
                line.trim_end() == format!("{}}}", " ".repeat(indent))
                    || line.ends_with(';') && line.len() - line.trim_start().len() == indent
            };
            let length = lines[at..].iter().take_while(|line| !is_end(line)).count() + 1;
            if length > LONGEST_FUNCTION {
                let name = name.split(['(', '<']).next().unwrap_or(name);
                long.push(format!("src/{}: {name} has {length} lines", source.name));
            }
        }
    }
    long
}

#[test]
fn functions_are_short() {
    let long = long_functions(&ours());
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn arrows_point_only_where_the_map_says() {
    let wrong = wrong_arrows(&ours());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_bindings_are_named_in_one_place() {
    let stray = ours()
        .into_iter()
        .filter(|s| !s.name.starts_with("worker/llama/") && s.code.contains("llama_cpp_sys_2"))
        .map(|s| s.name);
    assert_eq!(stray.collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn unsafe_lives_in_its_homes() {
    assert_eq!(stray_unsafe(&ours()), Vec::<&str>::new());
}

#[test]
fn decisions_have_no_effects() {
    let sources = ours();
    assert_eq!(impure(&sources), Vec::<String>::new());
    let pure = sources.iter().filter(|s| s.header.contains("Pure")).count();
    assert!(pure >= 25, "{pure} files say that they are pure");
}

#[test]
fn the_guard_sees_behind_a_named_module_of_tests() {
    let root = tempfile::tempdir().unwrap();
    let plant = |name: &str, text: &str| {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let bad = "use crate::worker::serve;\npub unsafe fn hole() {}\nuse std::fs;\n";
    plant(
        "api/mod.rs",
        &format!("//! Pure.\nmod wire;\n#[cfg(test)]\nmod tests;\n{bad}"),
    );
    plant(
        "api/wire.rs",
        &format!("//! Pure.\n#[cfg(test)]\nmod tests {{\n{bad}}}\n"),
    );
    let line = "    let _ = 0;\n";
    plant(
        "chat/mod.rs",
        &format!(
            "pub async fn long(\n    of: u8,\n) {{\n{}}}\nfn short() {{\n{line}}}\n",
            line.repeat(LONGEST_FUNCTION - 3)
        ),
    );
    let sources = sources(root.path());
    assert!(matches!(&long_functions(&sources)[..], [one] if one.contains("long has ")));
    assert_eq!(stray_unsafe(&sources), ["api/mod.rs"]);
    assert!(
        matches!(&wrong_arrows(&sources)[..], [one] if one.contains("src/api/mod.rs uses worker"))
    );
    assert!(
        matches!(&impure(&sources)[..], [one] if one.contains("src/api/mod.rs") && one.contains("std::fs"))
    );
}

#[test]
fn messages_name_keys_that_exist() {
    let sample =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/gemmad.toml"))
            .unwrap();
    let keys: BTreeSet<&str> = sample
        .lines()
        .filter_map(|line| Some(line.strip_prefix('#')?.split_once(" = ")?.0))
        .collect();
    let mut named = 0;
    for source in ours() {
        for (at, _) in source.code.match_indices(" in gemmad.toml") {
            let before = &source.code[..at];
            let Some(key) = before
                .strip_suffix('`')
                .and_then(|before| before.rsplit('`').next())
            else {
                assert!(
                    before.ends_with("[access]"),
                    "src/{}: a message names a key without `` in \u{201c}…{}\u{201d}",
                    source.name,
                    tail(before)
                );
                continue;
            };
            assert!(
                keys.contains(key),
                "src/{}: there is no key `{key}`",
                source.name
            );
            named += 1;
        }
    }
    assert!(named >= 15, "{named}");
}

/// The end of a text, for messages.
fn tail(text: &str) -> String {
    text.chars()
        .rev()
        .take(60)
        .collect::<Vec<_>>()
        .into_iter()
        .rev()
        .collect()
}

#[test]
fn files_stay_short() {
    let long = ours()
        .into_iter()
        .map(|s| (s.code.lines().count(), s.name))
        .filter(|(lines, _)| *lines > LONGEST_FILE);
    assert_eq!(
        long.collect::<Vec<_>>(),
        Vec::<(usize, String)>::new(),
        "over {LONGEST_FILE} lines before their tests"
    );
}
