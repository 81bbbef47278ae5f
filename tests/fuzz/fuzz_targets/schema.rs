//! Schemas against anything that a client may call one: a schema is refused by a reason or becomes a
//! grammar, which says of each token that it allows what may follow.
#![no_main]

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use gemmad::chat::{ChatError, ChatRequest, Format, PrincipalId};
use gemmad::{chat, gemma};
use libfuzzer_sys::fuzz_target;

#[allow(dead_code, unused_imports, reason = "the worker uses more of it than this target")]
#[path = "../../../src/worker"]
mod worker {
    pub mod constraint;
    pub mod llama {
        pub type Token = i32;
    }
    pub mod vocab;
}

use worker::constraint::{CompiledGrammar, GrammarCompiler, GrammarSources, Mask};
use worker::llama::Token;
use worker::vocab;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/tiny/tiny-e2b-q8_0.gguf");
/// Tokens of each answer.
const LONGEST: usize = 48;

fuzz_target!(|bytes: &[u8]| {
    static COMPILER: OnceLock<Arc<GrammarCompiler>> = OnceLock::new();
    let compiler = COMPILER.get_or_init(|| {
        let (place, file) = gemmad::store::read_vocabulary(Path::new(MODEL)).unwrap();
        Arc::new(GrammarCompiler::new(vocab::read(&file, &place).unwrap(), vec![]))
    });
    let Some((seed, schema)) = bytes.split_first() else { return };
    let Ok(schema) = String::from_utf8(schema.to_vec()) else { return };
    let mut request = ChatRequest::new(vec![]);
    request.format = Format::JsonSchema { schema, strict: seed % 2 == 0 };
    let Some(sources) = GrammarSources::of(&request) else { return };
    let never = AtomicBool::new(false);
    match compiler.constraints(&sources, PrincipalId::User(0), &never) {
        Some(Ok(constraints)) => answer(&constraints.format.unwrap(), u64::from(*seed)),
        Some(Err(ChatError::Constraint { reason, .. })) => assert!(!reason.is_empty()),
        Some(Err(other)) => panic!("{other:?}"),
        None => panic!("nobody has cancelled it"),
    }
});

/// Writes an answer of tokens that are allowed, chosen by `seed`.
fn answer(grammar: &CompiledGrammar, mut seed: u64) {
    let (mut state, mut mask): (_, Mask) = (grammar.start(), grammar.first.clone());
    for _ in 0..LONGEST {
        let allowed = mask.allowed.to_list();
        assert!(mask.may_end || !allowed.is_empty(), "neither an end nor a way on");
        if allowed.is_empty() {
            return;
        }
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let token = allowed[(seed >> 33) as usize % allowed.len()] as Token;
        match state.take(&[token]) {
            Ok(next) => mask = next,
            // A mask has a bound of work.
            Err(_) => return,
        }
    }
}
