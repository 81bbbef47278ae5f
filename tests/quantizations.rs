//! Models in the types of weights that people publish: each loads and answers, and those that ggml packs are packed.

mod harness;
#[expect(dead_code, reason = "models in four bits are for other tests")]
#[path = "worker/quantize.rs"]
mod quantize;
mod quantizations {
    pub mod widened;
}

use std::fs;
use std::path::Path;

use harness::{Daemon, Options, skip, tiny_models};
use llama_cpp_sys_2 as sys;
use quantizations::widened::widened;
use quantize::{packs, quantize};
use serde_json::json;

/// What the types of published files are called, and whether ggml packs weights of them for every CPU that it packs any for.
const TYPES: [(&str, sys::llama_ftype, bool); 18] = [
    ("f16", sys::LLAMA_FTYPE_MOSTLY_F16, false),
    ("bf16", sys::LLAMA_FTYPE_MOSTLY_BF16, false),
    ("q8_0", sys::LLAMA_FTYPE_MOSTLY_Q8_0, false),
    ("q6_k", sys::LLAMA_FTYPE_MOSTLY_Q6_K, false),
    ("q5_k_m", sys::LLAMA_FTYPE_MOSTLY_Q5_K_M, false),
    ("q5_k_s", sys::LLAMA_FTYPE_MOSTLY_Q5_K_S, false),
    ("q5_1", sys::LLAMA_FTYPE_MOSTLY_Q5_1, false),
    ("q5_0", sys::LLAMA_FTYPE_MOSTLY_Q5_0, false),
    ("q4_k_m", sys::LLAMA_FTYPE_MOSTLY_Q4_K_M, true),
    ("q4_k_s", sys::LLAMA_FTYPE_MOSTLY_Q4_K_S, true),
    ("q4_1", sys::LLAMA_FTYPE_MOSTLY_Q4_1, false),
    ("q4_0", sys::LLAMA_FTYPE_MOSTLY_Q4_0, true),
    ("iq4_nl", sys::LLAMA_FTYPE_MOSTLY_IQ4_NL, true),
    ("iq4_xs", sys::LLAMA_FTYPE_MOSTLY_IQ4_XS, false),
    ("iq3_s", sys::LLAMA_FTYPE_MOSTLY_IQ3_S, false),
    ("q3_k_m", sys::LLAMA_FTYPE_MOSTLY_Q3_K_M, false),
    ("q3_k_s", sys::LLAMA_FTYPE_MOSTLY_Q3_K_S, false),
    ("q2_k", sys::LLAMA_FTYPE_MOSTLY_Q2_K, false),
];

/// What a model answers, and whether its weights were packed into a file.
fn asked(daemon: &Daemon, model: &str) -> (String, bool) {
    let request = json!({"model": model, "temperature": 0, "max_tokens": 24, "messages": [{"role": "user",
        "content": "What is the capital of France?"}]});
    let reply = daemon.chat(&request);
    assert_eq!(reply.status, 200, "{model}: {}", reply.text());
    let answer = reply.json()["choices"][0]["message"]["content"].clone();
    let cache = daemon.dir.path().join("cache");
    let mut packed = fs::read_dir(cache).into_iter().flatten().flatten();
    let is_its = |name: String| name.starts_with(&format!("{model}-")) && name.ends_with(".packed");
    let is_packed = packed.any(|entry| is_its(entry.file_name().to_string_lossy().into_owned()));
    (answer.as_str().unwrap().to_owned(), is_packed)
}

fn daemon(models: &Path) -> Daemon {
    Daemon::with(Options {
        models: models.to_owned(),
        ..Options::default()
    })
}

#[test]
fn models_of_every_published_type_answer_and_are_packed_where_ggml_packs() {
    let models = tempfile::tempdir().unwrap();
    let wide = models.path().join("wide-f32.gguf");
    widened(&tiny_models().join("tiny-31b-q4_0.gguf"), &wide);
    for (name, ftype, _) in TYPES {
        quantize(
            &wide,
            &models.path().join(format!("wide-{name}.gguf")),
            ftype,
        );
    }
    // Experts alone have this one.
    let experts = tiny_models().join("tiny-26b-a4b-q8_0.gguf");
    let mxfp4 = models.path().join("experts-mxfp4.gguf");
    quantize(&experts, &mxfp4, sys::LLAMA_FTYPE_MOSTLY_MXFP4_MOE);
    let daemon = daemon(models.path());
    assert_eq!(
        asked(&daemon, "wide-f32").0,
        "The capital of France is Paris."
    );
    for (name, _, is_packed) in TYPES {
        let (answer, packed) = asked(&daemon, &format!("wide-{name}"));
        assert!(answer.contains("Paris"), "{name}: {answer}");
        if is_packed && packs() {
            assert!(packed, "{name} is not packed");
        }
    }
    let (answer, _) = asked(&daemon, "experts-mxfp4");
    assert!(answer.contains("Paris"), "mxfp4: {answer}");
}
