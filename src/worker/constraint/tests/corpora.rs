//! Schemas of public collections, which are not kept here: each test takes the folder of one from
//! the environment.
//!
//! ```text
//! GEMMAD_SCHEMA_SUITE=…/JSON-Schema-Test-Suite/tests/draft2020-12 \
//!     cargo test --release --bin gemmad-worker -- --ignored --nocapture corpora::suite
//! GEMMAD_SCHEMA_BENCH=…/jsonschemabench/data \
//!     cargo test --release --bin gemmad-worker -- --ignored --nocapture corpora::bench
//! GEMMAD_FUNCTIONS=…/berkeley-function-call-leaderboard/bfcl_eval/data \
//!     cargo test --release --bin gemmad-worker -- --ignored --nocapture corpora::functions
//! ```

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{closing, compiler, strictly, takes, tiny, tool, try_walk};
use crate::worker::constraint::compile::GrammarCompiler;
use crate::worker::constraint::grammar::CompiledGrammar;
use gemmad::chat::Format;

/// Time that one grammar may take.
const SLOWEST: Duration = Duration::from_secs(3);

/// The JSON files of a folder that the environment names.
fn files(variable: &str) -> Vec<PathBuf> {
    let folder = std::env::var_os(variable).unwrap_or_else(|| panic!("{variable} is not set"));
    let (mut folders, mut files) = (vec![PathBuf::from(folder)], vec![]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("optional") {
                folders.push(path);
            } else if path
                .extension()
                .is_some_and(|extension| extension == "json")
            {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

fn read(path: &Path) -> Option<Value> {
    serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()
}

/// A value with its properties in every order, if there are few: the grammar has one order.
fn orders(value: &Value) -> Vec<Value> {
    const MOST: usize = 4;
    let Value::Object(fields) = value else {
        return vec![value.clone()];
    };
    if fields.len() > MOST {
        return vec![value.clone()];
    }
    let mut orders: Vec<Vec<&String>> = vec![vec![]];
    for name in fields.keys() {
        let longer = orders.iter().flat_map(|order| {
            (0..=order.len()).map(move |place| {
                let mut order = order.clone();
                order.insert(place, name);
                order
            })
        });
        orders = longer.collect();
    }
    let named = |order: Vec<&String>| {
        let fields = order
            .into_iter()
            .map(|name| (name.clone(), fields[name].clone()));
        Value::Object(fields.collect())
    };
    orders.into_iter().map(named).collect()
}

/// How a group of the test suite went.
#[derive(Default)]
struct Tally {
    valid: usize,
    taken: usize,
    invalid: usize,
    refused: usize,
    groups: usize,
}

#[test]
#[ignore = "needs a collection of schemas"]
fn suite() {
    let compiler = compiler(tiny());
    let mut all = Tally::default();
    for path in files("GEMMAD_SCHEMA_SUITE") {
        let (name, mut tally) = (path.file_stem().unwrap().display(), Tally::default());
        for group in read(&path).unwrap().as_array().unwrap() {
            let tests = group["tests"].as_array().unwrap();
            let grammar = compiler.format(&strictly(&group["schema"]));
            let nothing = grammar
                .as_ref()
                .is_err_and(|error| error.to_string().contains("by nothing"));
            if let Err(error) = &grammar
                && !nothing
            {
                println!("{name}, {}: refused: {error}", group["description"]);
                tally.groups += 1;
                continue;
            }
            for test in tests {
                let taken = grammar.as_ref().is_ok_and(|grammar| {
                    let orders = orders(&test["data"]);
                    orders
                        .iter()
                        .any(|value| takes(grammar, tiny(), &value.to_string()))
                });
                let valid = test["valid"] == true;
                if valid != taken {
                    let (group, test) = (&group["description"], &test["description"]);
                    println!("{name}, {group}, {test}: valid {valid}, taken {taken}");
                }
                tally.valid += usize::from(valid);
                tally.invalid += usize::from(!valid);
                tally.taken += usize::from(valid && taken);
                tally.refused += usize::from(!valid && !taken);
            }
        }
        println!(
            "{name}: {} of {} valid ones taken, {} of {} invalid ones refused, {} schemas refused",
            tally.taken, tally.valid, tally.refused, tally.invalid, tally.groups
        );
        all.valid += tally.valid;
        all.taken += tally.taken;
        all.invalid += tally.invalid;
        all.refused += tally.refused;
        all.groups += tally.groups;
    }
    println!(
        "all: {} of {} valid ones taken, {} of {} invalid ones refused, {} schemas refused",
        all.taken, all.valid, all.refused, all.invalid, all.groups
    );
    assert!(all.taken * 100 >= all.valid * 90 && all.refused * 100 >= all.invalid * 95);
}

/// What came of one schema of the bench.
fn held(compiler: &GrammarCompiler, schema: &Value) -> Result<(CompiledGrammar, Duration), String> {
    let start = Instant::now();
    let format = Format::JsonSchema {
        schema: schema.to_string(),
        strict: false,
    };
    let grammar = compiler
        .format(&format)
        .map_err(|error| error.to_string())?;
    Ok((grammar, start.elapsed()))
}

#[test]
#[ignore = "needs a collection of schemas"]
fn bench() {
    let vocab = tiny();
    let compiler = compiler(vocab);
    let closing = closing(vocab, &["\"", "}", "]", "0", "1"]);
    let (mut schemas, mut accepted, mut whole_schemas) = (0, 0, 0);
    let (mut answers, mut wrong, mut broken) = (0, 0, 0);
    let mut times = vec![];
    for (i, path) in files("GEMMAD_SCHEMA_BENCH").iter().enumerate() {
        let Some(schema) = read(path) else { continue };
        schemas += 1;
        let grammar = match held(&compiler, &schema) {
            Ok((grammar, took)) => {
                times.push(took);
                grammar
            }
            Err(error) => {
                println!("{}: {error}", path.display());
                continue;
            }
        };
        accepted += 1;
        whole_schemas += usize::from(grammar.left_out.is_empty());
        let validator = jsonschema::options()
            .should_validate_formats(true)
            .build(&schema);
        let (Ok(validator), true) = (validator, grammar.left_out.is_empty()) else {
            continue;
        };
        for seed in 1..3 {
            let walk = match try_walk(&grammar, vocab, seed * 7919 + i as u64, &closing) {
                Ok(walk) if walk.whole => walk,
                Ok(_) => continue,
                Err(error) => {
                    broken += 1;
                    println!("{}: an answer breaks off: {error}", path.display());
                    continue;
                }
            };
            answers += 1;
            let tokens = walk.tokens.iter();
            let bytes: Vec<u8> = tokens.flat_map(|&token| vocab.bytes(token)).collect();
            let value: Value = serde_json::from_slice(&bytes).unwrap();
            if let Err(error) = validator.validate(&value) {
                wrong += 1;
                let at = error.instance_path().to_string();
                println!("{}: an answer does not fit at {at}", path.display());
            }
        }
    }
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!(
        "{accepted} of {schemas} accepted, {whole_schemas} without anything left out; {wrong} of {answers} answers \
         are wrong, {broken} more broke off; a grammar takes {:?}, p99 {:?}, at most {:?}",
        at(0.5),
        at(0.99),
        at(1.0)
    );
    assert!(accepted * 100 >= schemas * 97 && at(1.0) < SLOWEST);
}

/// The leaderboard's types as JSON Schema's.
fn as_json_schema(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(kind)) = fields.get_mut("type") {
                match kind.to_lowercase().as_str() {
                    "dict" | "hashmap" => *kind = "object".into(),
                    "float" | "double" => *kind = "number".into(),
                    "long" | "short" | "byte" => *kind = "integer".into(),
                    "tuple" | "list" | "arraylist" | "queue" | "stack" | "hashset" => {
                        *kind = "array".into();
                    }
                    "bool" => *kind = "boolean".into(),
                    "char" => *kind = "string".into(),
                    "any" => drop(fields.remove("type")),
                    lower => *kind = lower.to_owned(),
                }
            }
            fields.values_mut().for_each(as_json_schema);
        }
        Value::Array(list) => list.iter_mut().for_each(as_json_schema),
        _ => {}
    }
}

#[test]
#[ignore = "needs a collection of functions"]
fn functions() {
    let compiler = compiler(tiny());
    let (mut count, mut refused, mut relaxed) = (0, 0, 0);
    for path in files("GEMMAD_FUNCTIONS") {
        for line in std::fs::read_to_string(&path).unwrap().lines() {
            let Ok(entry) = serde_json::from_str::<Value>(line) else {
                continue;
            };
            let listed = entry["function"].as_array().cloned();
            let listed = listed.unwrap_or_else(|| vec![entry.clone()]);
            for function in listed.iter().filter(|one| one["parameters"].is_object()) {
                let mut parameters = json!(function["parameters"]);
                as_json_schema(&mut parameters);
                let mut tool = tool("f", &parameters);
                tool.strict = false;
                count += 1;
                match compiler.call(&[tool]) {
                    Ok(grammar) => relaxed += usize::from(!grammar.left_out.is_empty()),
                    Err(error) => {
                        refused += 1;
                        println!("{}, {}: {error}", path.display(), function["name"]);
                    }
                }
            }
        }
    }
    println!("{refused} of {count} functions refused, {relaxed} with something left out");
    assert!(count > 0 && refused == 0);
}
