//! Whatever is sampled of what a mask allows fits the schema: random schemas, random tokens, no
//! model.

use std::cell::{Cell, RefCell};

use gemmad::chat::{ChatEvent, ChatRequest, Format, Message, Role, Tool};
use gemmad::gemma::marker;
use gemmad::gemma::parse::{End, Parser};
use gemmad::gemma::tracker::{AnswerTracker, Token as Written};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use serde_json::{Value, json};

use super::compile::GrammarCompiler;
use super::grammar::CompiledGrammar;
use crate::worker::llama::Token;
use crate::worker::vocab::Vocab;
use crate::worker::vocab::tests::{real, tiny};

mod ahead;
mod corpora;
mod keywords;
#[path = "../../../../tests/worker/schemas.rs"]
mod schemas;

/// Those of which llguidance's expressions and the validator think the same.
const FORMATS: [&str; 5] = ["uuid", "ipv4", "ipv6", "time", "duration"];

/// What a random walk through a grammar has written.
struct Walk {
    tokens: Vec<Token>,
    /// It came to the end.
    whole: bool,
}

fn walk(grammar: &CompiledGrammar, vocab: Vocab, seed: u64, closing: &[Token]) -> Walk {
    try_walk(grammar, vocab, seed, closing).unwrap()
}

/// Samples allowed tokens, each as likely as every other for a while, and then those that seem to
/// lead to the end. The error is what ends an answer whose next token cannot be found.
fn try_walk(
    grammar: &CompiledGrammar,
    vocab: Vocab,
    seed: u64,
    closing: &[Token],
) -> Result<Walk, String> {
    const WILD: usize = 40;
    const LONGEST: usize = 1500;
    let mut state = seed | 1;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let (mut running, mut mask, mut tokens) = (grammar.start(), grammar.first.clone(), vec![]);
    while tokens.len() < LONGEST {
        let allowed = mask.allowed.to_list();
        if mask.may_end && (allowed.is_empty() || random(3) == 0 || tokens.len() > WILD) {
            return Ok(Walk {
                tokens,
                whole: true,
            });
        }
        let close = closing
            .iter()
            .copied()
            .find(|&token| mask.allowed.is_allowed(token as u32));
        let token = match close {
            Some(token) if tokens.len() > WILD || random(6) == 0 => token,
            _ => allowed[random(allowed.len())] as Token,
        };
        assert!(token < vocab.len() as Token);
        tokens.push(token);
        if vocab.text(token) == Some(marker::TOOL_CALL_END) {
            return Ok(Walk {
                tokens,
                whole: true,
            });
        }
        mask = running.take(&[token])?;
    }
    Ok(Walk {
        tokens,
        whole: false,
    })
}

fn closing(vocab: Vocab, texts: &[&str]) -> Vec<Token> {
    texts.iter().flat_map(|text| vocab.named(text)).collect()
}

fn validator(schema: &Value) -> jsonschema::Validator {
    jsonschema::options()
        .should_validate_formats(true)
        .build(schema)
        .unwrap()
}

fn strictly(schema: &Value) -> Format {
    Format::JsonSchema {
        schema: schema.to_string(),
        strict: true,
    }
}

fn compiler(vocab: Vocab) -> GrammarCompiler {
    GrammarCompiler::new(vocab, vec![])
}

fn runner(cases: u32) -> TestRunner {
    // The seed is fixed, so that a red test stays red.
    TestRunner::new(Config {
        cases,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(20261123),
        max_shrink_iters: 64,
        ..Config::default()
    })
}

#[test]
fn random_schemas_are_kept_to() {
    let vocab = tiny();
    let (compiler, closing) = (compiler(vocab), closing(vocab, &["\"", "}", "]", "0", "1"]));
    let (whole, cut) = (Cell::new(0), Cell::new(0));
    runner(400)
        .run(
            &(schemas::schema(&FORMATS), any::<[u64; 3]>()),
            |(schema, seeds)| {
                let grammar = match compiler.format(&strictly(&schema)) {
                    Ok(grammar) => grammar,
                    // Nothing can fit some of them.
                    Err(error) => {
                        prop_assert!(error.to_string().contains("nothing"), "{error}");
                        return Ok(());
                    }
                };
                let validator = validator(&schema);
                for seed in seeds {
                    let walk = walk(&grammar, vocab, seed, &closing);
                    if !walk.whole {
                        cut.set(cut.get() + 1);
                        continue;
                    }
                    whole.set(whole.get() + 1);
                    let bytes: Vec<u8> = walk
                        .tokens
                        .iter()
                        .flat_map(|&token| vocab.bytes(token))
                        .collect();
                    let text = String::from_utf8(bytes).unwrap();
                    let value: Value = serde_json::from_str(&text)
                        .map_err(|error| TestCaseError::fail(format!("{error}: {text}")))?;
                    prop_assert!(validator.is_valid(&value), "{text} does not fit");
                }
                Ok(())
            },
        )
        .unwrap();
    let (whole, cut) = (whole.get(), cut.get());
    assert!(whole > 8 * cut, "{whole} were whole and {cut} cut off");
}

#[test]
fn random_functions_are_called_as_they_want() {
    let vocab = tiny();
    let (compiler, closing) = (
        compiler(vocab),
        closing(vocab, &[marker::QUOTE, "}", "]", "0", "1"]),
    );
    let (whole, cut, refused) = (Cell::new(0), Cell::new(0), Cell::new(0));
    let functions = prop::collection::vec(schemas::parameters(&super::formats::FORMATS), 1..3);
    runner(400)
        .run(&(functions, any::<[u64; 3]>()), |(functions, seeds)| {
            let tools: Vec<Tool> = functions
                .iter()
                .enumerate()
                .map(|(i, schema)| tool(&format!("f{i}"), schema))
                .collect();
            let grammar = match compiler.call(&tools) {
                Ok(grammar) => grammar,
                Err(error) => {
                    prop_assert!(error.to_string().contains("nothing"), "{error}");
                    refused.set(refused.get() + 1);
                    return Ok(());
                }
            };
            for seed in seeds {
                let walk = walk(&grammar, vocab, seed, &closing);
                if !walk.whole {
                    cut.set(cut.get() + 1);
                    continue;
                }
                whole.set(whole.get() + 1);
                let (name, arguments) = call(vocab, &walk.tokens)?;
                let i: usize = name[1..].parse().unwrap();
                let value: Value = serde_json::from_str(&arguments).unwrap();
                prop_assert!(
                    validator(&functions[i]).is_valid(&value),
                    "{arguments} does not fit {}",
                    functions[i]
                );
            }
            Ok(())
        })
        .unwrap();
    let (whole, cut, refused) = (whole.get(), cut.get(), refused.get());
    assert!(
        whole > 8 * cut && refused < 40,
        "{whole} were whole and {cut} cut off, {refused} refused"
    );
}

fn tool(name: &str, schema: &Value) -> Tool {
    Tool {
        name: name.into(),
        description: String::new(),
        parameters: Some(schema.to_string()),
        strict: true,
    }
}

/// What the parser makes of a call.
fn call(vocab: Vocab, tokens: &[Token]) -> Result<(String, String), TestCaseError> {
    let (mut parser, mut events) = (Parser::new(vec![], false), vec![]);
    let mut tracker = AnswerTracker::new(false);
    let begin = Written::Control(marker::TOOL_CALL);
    parser.push(begin, tracker.take(begin), None, &mut events);
    let mut spelled = marker::TOOL_CALL.to_owned();
    for &token in tokens {
        let bytes = vocab.bytes(token);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        spelled += &text;
        let written = if vocab.is_marker(token) {
            Written::Control(&text)
        } else {
            Written::Bytes(&bytes)
        };
        parser.push(written, tracker.take(written), None, &mut events);
    }
    parser.finish(tracker.part(), End::Turn, &mut events);
    let mut json = String::new();
    let mut name = None;
    for event in events {
        match event {
            ChatEvent::CallStarted { name: called } => name = Some(called),
            ChatEvent::CallArguments { json: piece } => json += &piece,
            ChatEvent::CallEnded => return Ok((name.unwrap(), json)),
            other => return Err(TestCaseError::fail(format!("{other:?}"))),
        }
    }
    Err(TestCaseError::fail(format!("no call in {spelled}")))
}

#[test]
fn what_a_function_may_be_given() {
    let vocab = tiny();
    let compiler = compiler(vocab);
    let fits = |schema: Value, arguments: &str| {
        let grammar = compiler.call(&[tool("f", &schema)]).unwrap();
        takes(&grammar, vocab, &format!("call:f{arguments}<tool_call|>"))
    };
    let light = json!({"type": "object", "properties": {"room": {"type": "string"}, "state": {"enum": ["on", "off"]}, "level": {"type": "integer"}},
        "required": ["room", "state"]});
    for (arguments, legal) in [
        ("{room:<|\"|>kitchen<|\"|>,state:<|\"|>on<|\"|>}", true),
        ("{level:3,room:<|\"|><|\"|>,state:<|\"|>off<|\"|>}", true),
        (
            "{room:<|\"|>a \"b\"\n{c}, d<|\"|>,state:<|\"|>on<|\"|>}",
            true,
        ),
        ("{state:<|\"|>on<|\"|>,room:<|\"|>kitchen<|\"|>}", false),
        ("{room:<|\"|>kitchen<|\"|>,state:<|\"|>up<|\"|>}", false),
        ("{room:<|\"|>kitchen<|\"|>}", false),
        ("{room:kitchen,state:<|\"|>on<|\"|>}", false),
        ("{room:\"kitchen\",state:<|\"|>on<|\"|>}", false),
        (
            "{color:<|\"|>red<|\"|>,room:<|\"|>kitchen<|\"|>,state:<|\"|>on<|\"|>}",
            false,
        ),
        (
            "{level:1.5,room:<|\"|>kitchen<|\"|>,state:<|\"|>on<|\"|>}",
            false,
        ),
        ("{}", false),
    ] {
        assert_eq!(fits(light.clone(), arguments), legal, "{arguments}");
    }
    assert!(fits(
        json!({"type": "object"}),
        "{any:{thing:[1,true,<|\"|>x<|\"|>]}}"
    ));
    assert!(fits(
        json!({"type": "object", "properties": {}, "additionalProperties": false}),
        "{}"
    ));
    let none = json!({"type": "object", "properties": {}});
    assert!(fits(none.clone(), "{}") && !fits(none, "{a:1}"));
}

#[test]
fn what_cannot_be_held_is_refused_with_its_place() {
    let compiler = compiler(tiny());
    let refused = |schema: Value| {
        let error = compiler.call(&[tool("f", &schema)]).err().unwrap();
        error.to_string()
    };
    for (property, word) in [
        (json!({"not": {}}), ""),
        (json!({"$ref": "#/$defs/x"}), "`/properties/a/$ref`"),
        (
            json!({"type": "array", "uniqueItems": true}),
            "`/properties/a/uniqueItems`",
        ),
        (
            json!({"type": "string", "pattern": "a(?=b)"}),
            "`/properties/a/pattern`",
        ),
        (json!({"type": "text"}), "`/properties/a/type`"),
        (
            json!({"type": "integer", "enum": ["1", "2"]}),
            "`/properties/a/enum`",
        ),
        (json!({"$ref": "https://example.com/x"}), "another document"),
    ] {
        let schema = json!({"type": "object", "properties": {"a": property}, "required": ["a"]});
        let error = refused(schema);
        assert!(error.contains(word) && error.contains("`f`"), "{error}");
    }
    assert!(refused(json!({"type": "string"})).contains("nothing"));
    for (bad, word) in [
        (Format::Regex("(".into()), "regex"),
        (Format::Grammar("start: x".into()), "x"),
    ] {
        let error = compiler.format(&bad).err().unwrap().to_string();
        assert!(error.contains(word), "{bad:?}");
    }
}

/// Without `strict` the same is left out, and that is said.
#[test]
fn what_cannot_be_held_is_left_out_and_said() {
    let compiler = compiler(tiny());
    let list = json!({"type": "object", "properties": {"a/b": {"type": "array",
        "items": {"type": "integer"}, "uniqueItems": true}}, "required": ["a/b"]});
    let format = Format::JsonSchema {
        schema: list.to_string(),
        strict: false,
    };
    let grammar = compiler.format(&format).unwrap();
    assert_eq!(grammar.left_out, ["#/properties/a~1b/uniqueItems"]);
    assert!(takes(&grammar, tiny(), r#"{"a/b":[1,1]}"#));
    assert!(!takes(&grammar, tiny(), r#"{"a/b":["x"]}"#));
    let mut tool = tool("f", &list);
    tool.strict = false;
    let grammar = compiler.call(&[tool]).unwrap();
    assert_eq!(grammar.left_out, ["f#/properties/a~1b/uniqueItems"]);
}

/// Whether a text is one that a grammar allows.
fn takes(grammar: &CompiledGrammar, vocab: Vocab, text: &str) -> bool {
    let mut tokens = vec![];
    vocab.tokenize(text, true, &mut tokens);
    let (mut running, mut mask) = (grammar.start(), grammar.first.clone());
    let ends = tokens.last().and_then(|token| vocab.text(*token)) == Some(marker::TOOL_CALL_END);
    for (i, &token) in tokens.iter().enumerate() {
        if !mask.allowed.is_allowed(token as u32) {
            return false;
        }
        if ends && i + 1 == tokens.len() {
            return true;
        }
        match running.take(&[token]) {
            Ok(next) => mask = next,
            Err(_) => return false,
        }
    }
    mask.may_end
}

/// `cargo test --release --bin gemmad-worker -- --ignored --nocapture masks`
#[test]
#[ignore = "a measurement"]
fn masks() {
    let Some(vocab) = real() else { return };
    let start = std::time::Instant::now();
    let compiler = compiler(vocab);
    let _ = compiler.format(&Format::JsonObject).unwrap();
    println!(
        "{} tokens: the vocabulary's tree takes {:.2} s",
        vocab.len(),
        start.elapsed().as_secs_f64()
    );
    let json_ends = closing(vocab, &["\"", "}", "]", "0", "1"]);
    let call_ends = closing(vocab, &[marker::QUOTE, "}", "]", "0", "1"]);
    let all = RefCell::new(vec![]);
    let tell = |name: &str, what: &str, mut times: Vec<u128>| {
        times.sort();
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
        println!(
            "{name}: {what}, {} times: median {} µs, p99 {} µs, most {} µs",
            times.len(),
            at(0.5),
            at(0.99),
            at(1.0)
        );
    };
    for (name, calls) in [("JSON of a schema", false), ("a call", true)] {
        let (compiled, took) = (RefCell::new(vec![]), RefCell::new(vec![]));
        let mut runner = runner(200);
        let strategy = (schemas::parameters(&FORMATS), any::<u64>());
        runner
            .run(&strategy, |(schema, seed)| {
                let start = std::time::Instant::now();
                let grammar = if calls {
                    compiler.call(&[tool("f", &schema)])
                } else {
                    compiler.format(&strictly(&schema))
                };
                let Ok(grammar) = grammar else {
                    return Ok(());
                };
                compiled.borrow_mut().push(start.elapsed().as_micros());
                let walked = walk(
                    &grammar,
                    vocab,
                    seed,
                    if calls { &call_ends } else { &json_ends },
                );
                let mut running = grammar.start();
                for token in walked.tokens {
                    let start = std::time::Instant::now();
                    running.take(&[token]).unwrap();
                    took.borrow_mut().push(start.elapsed().as_micros());
                }
                Ok(())
            })
            .unwrap();
        all.borrow_mut().extend_from_slice(&took.borrow());
        tell(name, "compiling", compiled.into_inner());
        tell(name, "a mask", took.into_inner());
    }
    tell("both", "a mask", all.into_inner());
}

/// A request that is held to nothing needs no grammar.
#[test]
fn free_requests_are_not_compiled() {
    let mut request = ChatRequest::new(vec![Message::text(Role::User, "Hi")]);
    assert!(super::GrammarSources::of(&request).is_none());
    request.format = Format::JsonObject;
    assert!(super::GrammarSources::of(&request).is_some());
}
