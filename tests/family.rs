//! Every member of the tiny family computes in the worker what it computes in PyTorch.
//!
//! `tests/data/family/<member>.json` holds conversations and what PyTorch answers in float32: the
//! greedy tokens, and at each of them the log-probabilities of the likeliest ones
//! (`models/tiny/trainer/reference.py` writes them). The same conversations go to the daemon's
//! socket. What is left as a difference is rounding: of the weights, unless PyTorch computed with
//! the file's own, and of what ggml multiplies them with.
//!
//! With the feature `cpu-variants` each variant of ggml's kernels that this CPU runs does that, and all say the same.
//!
//! `cargo test --release --test family -- --nocapture` prints the figures.

mod harness;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use harness::skip::skip;
use harness::{Daemon, Options, installed_worker, tiny_models};
use serde_json::{Value, json};

/// Tokens that a reference answer has at most.
const LONGEST: usize = 24;
/// Tokens that are compared at each place.
const LIKELIEST: usize = 20;

/// What is more than rounding. About twice of what was measured.
struct Bounds {
    /// Between the two log-probabilities of a token, in nats.
    difference: f64,
    mean_difference: f64,
    /// Mean Kullback-Leibler divergence of the likeliest tokens, in nats.
    divergence: f64,
    /// Share of greedy tokens that are PyTorch's.
    agreement: f64,
}

/// `packed`: PyTorch computed with the file's rounded weights.
fn bounds(quantization: &str, packed: bool, experts: bool) -> Bounds {
    let bounds = match (quantization, packed) {
        ("F16", false) => Bounds {
            difference: 0.04,
            mean_difference: 0.007,
            divergence: 1e-5,
            agreement: 0.98,
        },
        ("Q8_0", false) => Bounds {
            difference: 0.4,
            mean_difference: 0.07,
            divergence: 2e-4,
            agreement: 0.98,
        },
        ("Q4_0", true) => Bounds {
            difference: 0.4,
            mean_difference: 0.07,
            divergence: 2e-4,
            agreement: 0.98,
        },
        (other, packed) => panic!("no bounds are known for {other} files, packed: {packed}"),
    };
    // Where two experts are as good as equal, rounding decides which of them is asked: a place with
    // others differs much.
    if experts {
        Bounds {
            difference: 3.0,
            divergence: 1.3e-3,
            ..bounds
        }
    } else {
        bounds
    }
}

/// How far two computations are apart.
#[derive(Default)]
struct Figures {
    /// Tokens of PyTorch's answers, and of these the ones that the worker drew as well.
    tokens: usize,
    agreed: usize,
    /// Where the same text came before, so that distributions can be compared.
    places: usize,
    compared: usize,
    sum: f64,
    largest: f64,
    divergence: f64,
    /// What the worker said, thoughts in front.
    answers: Vec<String>,
}

impl Figures {
    /// Adds one place: what PyTorch and the worker think of the next token.
    fn place(&mut self, reference: &Distribution, found: &Distribution) {
        let common: Vec<(f64, f64)> = reference
            .iter()
            .filter_map(|(token, p)| Some((*p, *found.get(token)?)))
            .collect();
        let total = |which: fn(&(f64, f64)) -> f64| {
            common
                .iter()
                .map(|pair| which(pair).exp())
                .sum::<f64>()
                .ln()
        };
        let (reference_total, found_total) = (total(|pair| pair.0), total(|pair| pair.1));
        self.places += 1;
        self.compared += common.len();
        for (p, q) in common {
            let difference = (p - q).abs();
            self.sum += difference;
            self.largest = self.largest.max(difference);
            self.divergence +=
                (p - reference_total).exp() * ((p - reference_total) - (q - found_total));
        }
    }

    fn agreement(&self) -> f64 {
        self.agreed as f64 / self.tokens as f64
    }

    fn mean_difference(&self) -> f64 {
        self.sum / self.compared as f64
    }

    fn mean_divergence(&self) -> f64 {
        self.divergence / self.places as f64
    }

    /// What is beyond the bounds, in words; nothing if all is well.
    fn beyond(&self, bounds: &Bounds) -> Vec<String> {
        let Bounds {
            difference,
            mean_difference,
            divergence,
            agreement,
        } = *bounds;
        let checks = [
            (
                self.compared > self.places * LIKELIEST / 2,
                "the likeliest tokens are others".to_owned(),
            ),
            (
                self.largest <= difference,
                format!("a log-probability differs by more than {difference}"),
            ),
            (
                self.mean_difference() <= mean_difference,
                format!("log-probabilities differ by more than {mean_difference} on average"),
            ),
            (
                self.mean_divergence() <= divergence,
                format!("distributions diverge by more than {divergence}"),
            ),
            (
                self.agreement() >= agreement,
                format!("a smaller share than {agreement} of the greedy tokens agrees"),
            ),
        ];
        checks
            .into_iter()
            .filter(|(holds, _)| !holds)
            .map(|(_, complaint)| complaint)
            .collect()
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            tokens,
            agreed,
            places,
            compared,
            largest,
            ..
        } = self;
        write!(
            f,
            "{agreed} of {tokens} greedy tokens agree; of {compared} log-probabilities at {places} places the largest difference is \
             {largest:.4}, the mean {:.4}; divergence {:.2e}",
            self.mean_difference(),
            self.mean_divergence()
        )
    }
}

/// Log-probabilities by the token's text.
type Distribution = HashMap<String, f64>;

/// From pairs of text and log-probability. A byte's token and a letter's may have the same text;
/// which is which cannot be told then, and both are left out.
fn distribution(pairs: impl Iterator<Item = (String, f64)>) -> Distribution {
    let mut all: HashMap<String, Vec<f64>> = HashMap::new();
    for (text, logprob) in pairs {
        all.entry(text).or_default().push(logprob);
    }
    all.into_iter()
        .filter(|(_, found)| found.len() == 1)
        .map(|(text, found)| (text, found[0]))
        .collect()
}

/// A token's bytes in the references' spelling.
fn spelling(token: &Value) -> String {
    let bytes: Vec<u8> = token["bytes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|byte| byte.as_u64().unwrap() as u8)
        .collect();
    match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(broken) => broken
            .as_bytes()
            .iter()
            .map(|byte| format!("<0x{byte:02X}>"))
            .collect(),
    }
}

/// The tokens of which the API tells log-probabilities, each with whether it is thought: all but the
/// markers of a thought and the name of its channel.
fn said(tokens: &[Value], mut thinks: bool) -> Vec<(&Value, bool)> {
    let (mut said, mut in_name) = (vec![], false);
    for token in tokens {
        match token["text"].as_str().unwrap() {
            "<|channel>" => (thinks, in_name) = (true, true),
            "<channel|>" => thinks = false,
            text if in_name => in_name = text != "\n",
            _ => said.push((token, thinks)),
        }
    }
    said
}

/// The log-probabilities of an answer's text, or of its thoughts.
fn lane<'a>(choice: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    choice["logprobs"][name].as_array().into_iter().flatten()
}

/// Asks one conversation and adds how far the answer is from PyTorch's.
fn compare(daemon: &Daemon, model: &str, case: &Value, figures: &mut Figures) {
    let mut body = json!({"model": model, "messages": case["messages"], "temperature": 0, "max_tokens": LONGEST, "cache_prompt": false,
        "logprobs": true, "top_logprobs": LIKELIEST, "chat_template_kwargs": {"enable_thinking": case["thinking"]}});
    if case["thinking"] == true {
        // Room for an answer that is not compared, else the thought would be ended in time for one.
        body["max_tokens"] = json!(2 * LONGEST);
    }
    if case["tools"].is_array() {
        body["tools"] = case["tools"].clone();
    }
    let name = format!("{model}, {}", case["name"]);
    let reply = daemon.chat(&body);
    assert_eq!(reply.status, 200, "{name}: {}", reply.text());
    let reply = reply.json();
    assert_eq!(
        reply["usage"]["prompt_tokens"], case["prompt_tokens"],
        "{name}: the prompt's tokens are others"
    );

    let choice = &reply["choices"][0];
    let last = case["messages"]
        .as_array()
        .and_then(|messages| messages.last())
        .unwrap();
    let in_thought = case["thinking"] == true && last["role"] == "tool";
    let expected = said(case["tokens"].as_array().unwrap(), in_thought);
    let lanes = ["reasoning_content", "content"].map(|name| lane(choice, name));
    let answer = lanes.into_iter().flatten().map(spelling);
    figures.answers.push(answer.collect());
    let (mut text, mut thought) = (lane(choice, "content"), lane(choice, "reasoning_content"));
    figures.tokens += expected.len();
    for (expected, thinks) in expected {
        let Some(found) = (if thinks { thought.next() } else { text.next() }) else {
            return;
        };
        let pairs = expected["top"].as_array().unwrap().iter();
        let reference = distribution(pairs.map(|pair| {
            (
                pair[0].as_str().unwrap().to_owned(),
                pair[1].as_f64().unwrap(),
            )
        }));
        let tops = found["top_logprobs"].as_array().unwrap().iter();
        figures.place(
            &reference,
            &distribution(tops.map(|top| (spelling(top), top["logprob"].as_f64().unwrap()))),
        );
        if expected["text"] != spelling(found).as_str() {
            return;
        }
        figures.agreed += 1;
    }
    if text.next().is_none() && thought.next().is_none() {
        assert_eq!(
            choice["finish_reason"] != "length",
            case["ended"] == true,
            "{name}: {choice}"
        );
    }
}

/// The references, by member.
fn references() -> BTreeMap<String, Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/family");
    let read = |path: &Path| {
        serde_json::from_slice(&fs::read(path).unwrap())
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    };
    let paths = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    paths
        .map(|path| {
            (
                path.file_stem().unwrap().to_str().unwrap().to_owned(),
                read(&path),
            )
        })
        .collect()
}

#[test]
fn every_member_computes_what_pytorch_computes() {
    let references = references();
    let daemon = Daemon::start();
    let installed = daemon.get("/v1/models").json();
    let installed = installed["data"].as_array().unwrap();
    let names: BTreeSet<&str> = installed
        .iter()
        .map(|model| model["id"].as_str().unwrap())
        .collect();
    let proven: BTreeSet<&str> = references
        .values()
        .map(|reference| reference["model"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        proven,
        "models in {} and references to prove them",
        tiny_models().display()
    );

    prove(&daemon);
}

/// Holds all members against their references. What they said.
fn prove(daemon: &Daemon) -> Vec<String> {
    let references = references();
    let installed = daemon.get("/v1/models").json();
    let installed = installed["data"].as_array().unwrap();
    let (mut complaints, mut answers) = (vec![], vec![]);
    for (member, reference) in &references {
        let model = installed
            .iter()
            .find(|model| model["id"] == reference["model"])
            .unwrap();
        assert_eq!(model["variant"], format!("gemma-4-{member}"));
        let mut figures = Figures::default();
        for case in reference["cases"].as_array().unwrap() {
            compare(daemon, model["id"].as_str().unwrap(), case, &mut figures);
        }
        let quantization = model["quantization"].as_str().unwrap();
        println!("{member} {quantization}: {figures}");
        complaints.extend(
            figures
                .beyond(&bounds(
                    quantization,
                    reference["packed"] == true,
                    member == "26b-a4b",
                ))
                .into_iter()
                .map(|complaint| format!("{member}: {complaint}: {figures}")),
        );
        answers.append(&mut figures.answers);
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    answers
}

/// A worker with the kernels of one variant alone.
fn worker_with(variant: &str) -> tempfile::TempDir {
    let own = format!("libggml-cpu-{variant}.so");
    installed_worker(|name| name == own || !name.starts_with("libggml-cpu-"))
}

#[test]
fn all_variants_of_the_kernels_say_the_same() {
    if !cfg!(feature = "cpu-variants") {
        return skip(
            "the kernels of other CPUs",
            "gemmad was built without the feature cpu-variants",
        );
    }
    let best = Daemon::start();
    best.load();
    let best = best.status()["cpu_variant"].as_str().unwrap().to_owned();
    let mut said: Vec<(String, Vec<String>)> = vec![];
    let packed = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("cross/cpu-variants")
        .join(std::env::consts::ARCH)
        .with_extension("txt");
    for variant in fs::read_to_string(packed).unwrap().lines() {
        let prefix = worker_with(variant);
        let daemon = Daemon::with(Options {
            inference: format!(
                "worker = \"{}/bin/gemmad-worker\"\n",
                prefix.path().display()
            ),
            ..Options::default()
        });
        let loaded = daemon.post("/models/load", &json!({"model": "auto"}));
        if loaded.status != 200 {
            // It names what it tried: all variants that this CPU runs, most of which are not there.
            let reason = loaded.text();
            assert!(
                reason.contains("can compute on this CPU")
                    && reason.contains("lib/gemmad")
                    && !reason.contains(&format!("libggml-cpu-{variant}.so")),
                "{variant}: {reason}"
            );
            skip(
                &format!("answers of the kernels for {variant}"),
                "this CPU does not have its features",
            );
            continue;
        }
        assert_eq!(daemon.status()["cpu_variant"], variant);
        println!("{variant}:");
        said.push((variant.to_owned(), prove(&daemon)));
    }
    assert_eq!(
        said.last().unwrap().0,
        best,
        "the best is the last that can be loaded"
    );
    for (variant, answers) in &said {
        assert_eq!(answers, &said[0].1, "{variant} and {} differ", said[0].0);
    }
}

/// CPUs of qemu's user mode, and the kernels that the worker is to choose on them.
const EMULATED: [(&str, &[(&str, &str)]); 2] = [
    (
        "x86_64",
        &[
            ("qemu64", "x64"),
            ("Nehalem", "sse42"),
            ("SandyBridge", "sandybridge"),
            ("Haswell", "haswell"),
            ("max", "haswell"),
        ],
    ),
    (
        "aarch64",
        &[
            ("cortex-a53", "armv8.0_1"),
            ("cortex-a72", "armv8.0_1"),
            ("cortex-a76", "armv8.2_2"),
            ("neoverse-n1", "armv8.2_2"),
            ("max", "armv8.6_2"),
        ],
    ),
];

/// The architecture that a program is for, as its ELF header says.
fn architecture(program: &Path) -> &'static str {
    let header = fs::read(program).unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    match u16::from_le_bytes([header[18], header[19]]) {
        62 => "x86_64",
        183 => "aarch64",
        other => panic!("{}: ELF machine {other}", program.display()),
    }
}

#[test]
#[ignore = "`make emulated` names the worker: the emulator takes minutes for each CPU"]
fn each_emulated_cpu_gets_its_kernels_and_says_what_this_one_says() {
    let worker = std::env::var("GEMMAD_EMULATED_WORKER").expect("see `make emulated`");
    let architecture = architecture(Path::new(&worker));
    let cpus = EMULATED.iter().find(|(name, _)| *name == architecture);
    let expected = prove(&Daemon::start());
    for (cpu, variant) in cpus.unwrap().1 {
        let scripts = tempfile::tempdir().unwrap();
        let script = scripts.path().join("worker");
        let text = format!(
            "#!/bin/sh\nexec qemu-{architecture}-static -L /usr/{architecture}-linux-gnu -cpu {cpu} '{worker}' \"$@\"\n"
        );
        fs::write(&script, text).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let daemon = Daemon::with(Options {
            inference: format!("worker = \"{}\"\nthreads = 1\n", script.display()),
            ..Options::default()
        });
        daemon.load();
        assert_eq!(daemon.status()["cpu_variant"], *variant, "{cpu}");
        println!("{cpu}, {variant}:");
        assert_eq!(prove(&daemon), expected, "{cpu}");
    }
}
