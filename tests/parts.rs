//! Models in parts, as llama.cpp's `gguf-split` cuts them: served as they are, and like the whole file.

mod harness;
#[path = "worker/quantize.rs"]
mod quantize;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use harness::parts::split;
use harness::skip;
use harness::{Daemon, Options, question, tiny_models, wait_for};
use quantize::{packs, quantized};
use serde_json::{Value, json};

const QUESTIONS: [&str; 3] = [
    "What is the capital of France?",
    "Tell me a story about Anna and a red dog.",
    "Count to ten.",
];

fn daemon(models: &Path) -> Daemon {
    Daemon::with(Options {
        models: models.to_owned(),
        ..Options::default()
    })
}

/// Greedy answers, with the logarithm of each token's probability.
fn answers(daemon: &Daemon) -> Vec<Value> {
    let ask = |text: &&str| {
        let mut body = question(text);
        body["logprobs"] = json!(true);
        body["top_logprobs"] = json!(5);
        let reply = daemon.chat(&body);
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()["choices"].clone()
    };
    QUESTIONS.iter().map(ask).collect()
}

fn unload(daemon: &Daemon) {
    assert_eq!(daemon.post("/models/unload", &json!({})).status, 200);
}

fn ids(daemon: &Daemon) -> Vec<String> {
    let models = daemon.get("/v1/models").json();
    let models = models["data"].as_array().unwrap();
    let id = |model: &Value| model["id"].as_str().unwrap().to_owned();
    models.iter().map(id).collect()
}

/// Bytes of each class of the model's file, and those of them in memory.
fn classes(daemon: &Daemon) -> Vec<(String, u64, u64)> {
    let memory = daemon.get("/memory").json();
    let file = &memory["files"][0];
    assert_eq!(file["role"], "model", "{memory}");
    let mut sums: std::collections::BTreeMap<String, (u64, u64)> = Default::default();
    for class in file["kinds"].as_array().unwrap() {
        let sum = sums
            .entry(class["kind"].as_str().unwrap().into())
            .or_default();
        sum.0 += class["bytes"].as_u64().unwrap();
        sum.1 += class["resident"].as_u64().unwrap();
    }
    sums.into_iter()
        .map(|(class, (bytes, resident))| (class, bytes, resident))
        .collect()
}

fn cached(daemon: &Daemon) -> Vec<PathBuf> {
    fs::read_dir(daemon.dir.path().join("cache"))
        .map(|entries| entries.map(|entry| entry.unwrap().path()).collect())
        .unwrap_or_default()
}

/// Whole and in three parts, packed and not: the same answers to the last bit, at the first start and at the second.
fn answers_are_those_of_the_whole_file(name: &str) {
    let (quantized_folder, packable) = quantized(&format!("{name}.gguf"));
    for source in [tiny_models().join(format!("{name}.gguf")), packable] {
        let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::copy(&source, whole.path().join("model.gguf")).unwrap();
        let files = split(&source, parts.path(), "model", 3);
        let bytes: u64 = files
            .iter()
            .map(|file| file.metadata().unwrap().len())
            .sum();
        let (whole, parts) = (daemon(whole.path()), daemon(parts.path()));
        assert_eq!(ids(&parts), ["model"]);
        let listed = parts.get("/v1/models").json();
        assert_eq!(listed["data"][0]["size"].as_u64(), Some(bytes), "{listed}");
        let expected = answers(&whole);
        assert_eq!(answers(&parts), expected);
        let (of_whole, of_parts) = (classes(&whole), classes(&parts));
        assert_eq!(
            of_parts.iter().map(|(_, bytes, _)| bytes).sum::<u64>(),
            bytes
        );
        for ((class, bytes, _), (theirs, others, _)) in of_parts.iter().zip(&of_whole) {
            // Headers and padding are more of them.
            assert!(
                class == theirs && bytes.abs_diff(*others) < 4096,
                "{class}: {bytes} and {others}"
            );
        }
        if packs() {
            let packs_something = !cached(&whole).is_empty();
            assert_eq!(cached(&parts).is_empty(), !packs_something);
            for file in cached(&parts) {
                let before = file.metadata().unwrap();
                unload(&parts);
                assert_eq!(answers(&parts), expected);
                let after = file.metadata().unwrap();
                assert_eq!((before.ino(), before.len()), (after.ino(), after.len()));
                let packing = &parts.get("/memory").json()["packing"]["how"];
                assert_eq!(packing, "reused");
            }
        }
    }
    drop(quantized_folder);
}

#[test]
fn a_small_variant_in_parts() {
    answers_are_those_of_the_whole_file("tiny-e2b-q8_0");
}

#[test]
fn experts_in_parts() {
    answers_are_those_of_the_whole_file("tiny-26b-a4b-q8_0");
}

#[test]
fn parts_come_and_go_and_change() {
    let folder = tempfile::tempdir().unwrap();
    let (_kept, source) = quantized("tiny-e2b-q8_0.gguf");
    let files = split(&source, folder.path(), "Tiny", 3);
    let aside = folder.path().join("aside");
    fs::rename(&files[1], &aside).unwrap();
    let daemon = daemon(folder.path());
    assert_eq!(ids(&daemon), [] as [&str; 0]);
    let reply = daemon.chat(&question(QUESTIONS[0]));
    assert!(
        reply
            .text()
            .contains("one of 3 parts of a model; missing: 2; put them beside it"),
        "{}",
        reply.text()
    );
    // The last one comes, and the model is there.
    fs::rename(&aside, &files[1]).unwrap();
    wait_for("the model", || ids(&daemon) == ["tiny"]);
    let before = answers(&daemon);
    if packs() {
        wait_for("packed weights", || !cached(&daemon).is_empty());
    }
    let (pid, packed) = (daemon.status()["pid"].clone(), cached(&daemon));
    // No byte of a tensor changes, but nobody can know that before all of them are read.
    let mut last = OpenOptions::new().append(true).open(&files[2]).unwrap();
    last.write_all(&[0; 32]).unwrap();
    drop(last);
    wait_for("the worker to end", || daemon.status()["pid"] != pid);
    assert_eq!(answers(&daemon), before);
    if packs() {
        let is_new = |file: &PathBuf| !packed.contains(file);
        wait_for("other packed weights", || {
            cached(&daemon).iter().any(is_new)
        });
    }
    // One is gone: what is loaded ends with it.
    fs::remove_file(&files[0]).unwrap();
    wait_for("no model", || ids(&daemon).is_empty());
    assert_eq!(daemon.chat(&question(QUESTIONS[0])).status, 503);
}

#[test]
fn a_projector_or_a_drafter_in_parts_is_refused_with_the_remedy() {
    for (source, role) in [
        ("tiny-e2b-mmproj-f16.gguf", "projector"),
        ("tiny-e2b-mtp-q8_0.gguf", "drafter"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        split(&tiny_models().join(source), folder.path(), "cut", 2);
        let text = daemon(folder.path()).chat(&question(QUESTIONS[0])).text();
        let said = format!("a {role} in 2 parts, and a {role} is read from one file only");
        assert!(text.contains(&said) && text.contains("--merge"), "{text}");
    }
}
