//! The tokens are those of transformers, and text survives them: with the real vocabulary and with
//! the tiny one.
//!
//! `tests/data/tokens/make.py` makes the expected tokens; `models/tokenizer/README.md` says where
//! the real one is from.

use std::collections::HashSet;
use std::fs::File;
use std::io::ErrorKind;
use std::io::Write as _;
use std::path::Path;
use std::sync::LazyLock;

use gemmad::chat::{ChatEvent, ChatRequest, Message, Role};
use gemmad::gemma::parse::{End, Parser};
use gemmad::gemma::tracker::{AnswerPart, AnswerStep, Token as Written};
use gemmad::store::read_vocabulary;
use lzma_rust2::XzReader;
use proptest::prelude::*;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use super::*;
use crate::worker::llama::Token;
use crate::worker::llama::vocabulary::Oracle;
use crate::worker::prompt::{Prompter, Segment};

#[path = "../../../tests/harness/skip.rs"]
mod skip;

const TINY: &str = "models/tiny/tiny-e2b-q8_0.gguf";
const REAL: &str = "models/tokenizer/gemma-4-vocab.gguf.xz";

#[derive(Deserialize)]
struct Cases {
    made_with: MadeWith,
    /// The test strings of llama.cpp.
    published: Vec<Case>,
    /// Our own.
    plain: Vec<Case>,
    /// Our own, with control tokens in them.
    spelled: Vec<Case>,
    long: Vec<Long>,
}

#[derive(Deserialize)]
struct MadeWith {
    /// SHA-256 of the real vocabulary's file.
    vocabulary: String,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    text: String,
    ids: Vec<Token>,
    /// What transformers makes of the tokens, if not the text: a space may come from U+2581, which
    /// stands for it.
    back: Option<String>,
}

#[derive(Deserialize)]
struct Long {
    name: String,
    text: String,
    times: usize,
    tokens: usize,
    /// SHA-256 of the tokens as 32-bit numbers, little-endian.
    sha256: String,
}

const DATA: &str = include_str!("../../../tests/data/tokens/cases.json");
static CASES: LazyLock<Cases> = LazyLock::new(|| serde_json::from_str(DATA).unwrap());

impl Cases {
    fn without_markers(&self) -> impl Iterator<Item = &Case> {
        self.published.iter().chain(&self.plain)
    }
}

fn path(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The tiny model's vocabulary, read as the worker reads it.
pub fn tiny() -> Vocab {
    static VOCAB: LazyLock<Vocab> = LazyLock::new(|| of(&path(TINY)));
    *VOCAB
}

/// The rows that the tiny models' tables have.
pub fn tiny_tokens() -> u32 {
    tiny().len() as u32
}

/// The real vocabulary; `None`, and a word about it, where the checkout is without it.
pub fn real() -> Option<Vocab> {
    static VOCAB: LazyLock<Option<Vocab>> =
        LazyLock::new(|| unpacked().map(|file| of(file.path())));
    *VOCAB
}

fn of(path: &Path) -> Vocab {
    let (place, file) = read_vocabulary(path).unwrap();
    read(&file, &place).unwrap()
}

/// A file of the real vocabulary alone.
fn unpacked() -> Option<NamedTempFile> {
    let file = match File::open(path(REAL)) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            skip::skip("the real tokenizer", format!("{REAL} is absent"));
            return None;
        }
        Err(error) => panic!("{REAL}: {error}"),
    };
    let mut bytes = vec![];
    std::io::copy(&mut XzReader::new(file, false), &mut bytes).expect(REAL);
    assert_eq!(
        hex(&bytes),
        CASES.made_with.vocabulary,
        "{REAL} is not the file of cases.json"
    );
    let mut unpacked = NamedTempFile::new().unwrap();
    unpacked.write_all(&bytes).unwrap();
    Some(unpacked)
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn tokens(vocab: Vocab, text: &str) -> Vec<Token> {
    let mut tokens = vec![];
    vocab.tokenize(text, true, &mut tokens);
    tokens
}

fn text(vocab: Vocab, tokens: &[Token]) -> String {
    let bytes = tokens
        .iter()
        .flat_map(|&token| vocab.bytes(token))
        .collect();
    String::from_utf8(bytes).unwrap()
}

/// What a client receives when the model writes these tokens.
fn streamed(vocab: Vocab, tokens: &[Token]) -> String {
    let (mut parser, mut events) = (Parser::new(vec![], false), vec![]);
    for &token in tokens {
        assert!(!vocab.is_marker(token), "{token}");
        parser.push(
            Written::Bytes(&vocab.bytes(token)),
            AnswerStep::TEXT,
            None,
            &mut events,
        );
    }
    parser.finish(AnswerPart::Text, End::Turn, &mut events);
    let piece = |event| match event {
        ChatEvent::Text { text, .. } if !text.is_empty() => text,
        other => panic!("{other:?}"),
    };
    events.into_iter().map(piece).collect()
}

/// The prompt of a question, in pieces as rendered and in tokens, as the worker's preparer makes
/// them.
fn prompt(vocab: Vocab, prompter: &Prompter, question: &str) -> (Vec<Segment>, Vec<Token>) {
    let request = ChatRequest::new(vec![Message::text(Role::User, question)]);
    let segments = prompter.render(&request).unwrap();
    let mut tokens = vec![];
    for segment in &segments {
        vocab.tokenize(
            segment.text(),
            matches!(segment, Segment::Markup(_)),
            &mut tokens,
        );
    }
    (segments, tokens)
}

fn prompter(vocab: Vocab) -> Prompter {
    Prompter::new(None, "<bos>", vocab.spelled(), true).0
}

/// The tokens among `tokens` that steer a model: all that are found by their spelling.
fn steering(vocab: Vocab, tokens: &[Token]) -> Vec<Token> {
    let spelled: HashSet<String> = vocab.spelled().into_iter().collect();
    tokens
        .iter()
        .copied()
        .filter(|&token| vocab.text(token).is_some_and(|text| spelled.contains(text)))
        .collect()
}

#[track_caller]
fn texts_come_back(vocab: Vocab) {
    for Case {
        name,
        text: written,
        back,
        ..
    } in CASES.without_markers()
    {
        let tokens = tokens(vocab, written);
        let expected = back.as_ref().unwrap_or(written);
        assert_eq!(&text(vocab, &tokens), expected, "{name}");
        assert_eq!(&streamed(vocab, &tokens), expected, "{name}, streamed");
    }
    for Case {
        name,
        text: written,
        ..
    } in &CASES.spelled
    {
        assert_eq!(&text(vocab, &tokens(vocab, written)), written, "{name}");
    }
    for Long {
        name,
        text: unit,
        times,
        ..
    } in &CASES.long
    {
        assert!(
            streamed(vocab, &tokens(vocab, &unit.repeat(*times))) == unit.repeat(*times),
            "{name}"
        );
    }
}

#[track_caller]
fn clients_write_no_control_tokens(vocab: Vocab) {
    let prompter = prompter(vocab);
    let of_the_template = steering(vocab, &prompt(vocab, &prompter, "Hi").1);
    assert_eq!(text(vocab, &of_the_template), "<|turn><turn|><|turn>");
    let cases = CASES.without_markers().chain(&CASES.spelled);
    let cases = cases.map(|case| {
        (
            &case.name,
            case.text.clone(),
            case.back.clone().unwrap_or(case.text.clone()),
        )
    });
    let markers = vocab.spelled();
    let markers = markers
        .iter()
        .map(|marker| (marker, marker.clone(), marker.clone()));
    for (name, written, back) in cases.chain(markers) {
        // The template trims what a client wrote.
        let (segments, tokens) = prompt(vocab, &prompter, &format!("[{written}]"));
        assert_eq!(steering(vocab, &tokens), of_the_template, "{name}");
        assert_eq!(
            text(vocab, &tokens),
            format!("<|turn>user\n[{back}]<turn|>\n<|turn>model\n"),
            "{name}"
        );
        let guarded = segments
            .iter()
            .any(|segment| matches!(segment, Segment::Plain(_)));
        assert_eq!(
            guarded,
            !steering(vocab, &self::tokens(vocab, &written)).is_empty(),
            "{name}"
        );
    }
}

#[test]
fn the_tokens_are_those_of_transformers() {
    let Some(vocab) = real() else { return };
    assert_eq!(vocab.len(), 262_144);
    assert!(CASES.published.len() > 40 && CASES.plain.len() > 100 && CASES.spelled.len() > 5);
    for Case {
        name, text, ids, ..
    } in CASES.without_markers().chain(&CASES.spelled)
    {
        assert_eq!(&tokens(vocab, text), ids, "{name}: {text:?}");
    }
    for Long {
        name,
        text,
        times,
        tokens: count,
        sha256,
    } in &CASES.long
    {
        let tokens = tokens(vocab, &text.repeat(*times));
        let bytes: Vec<u8> = tokens
            .iter()
            .flat_map(|token| token.to_le_bytes())
            .collect();
        assert_eq!((tokens.len(), &hex(&bytes)), (*count, sha256), "{name}");
    }
}

/// The whole way from a request: what the guard leaves whole is split into tokens as transformers
/// does.
#[test]
fn questions_have_the_tokens_of_transformers() {
    let Some(vocab) = real() else { return };
    let prompter = prompter(vocab);
    let [before, after] =
        ["<|turn>user\n", "<turn|>\n<|turn>model\n"].map(|markup| tokens(vocab, markup));
    let untrimmed = CASES
        .without_markers()
        .filter(|case| case.text.trim() == case.text);
    for Case {
        name, text, ids, ..
    } in untrimmed
    {
        assert_eq!(
            prompt(vocab, &prompter, text).1,
            [&before, ids, &after].map(Vec::as_slice).concat(),
            "{name}"
        );
    }
}

#[test]
fn texts_survive_the_real_vocabulary() {
    if let Some(vocab) = real() {
        texts_come_back(vocab);
    }
}

#[test]
fn texts_survive_the_tiny_vocabulary() {
    texts_come_back(tiny());
}

#[test]
fn clients_write_no_control_tokens_in_the_real_vocabulary() {
    if let Some(vocab) = real() {
        clients_write_no_control_tokens(vocab);
    }
}

#[test]
fn clients_write_no_control_tokens_in_the_tiny_vocabulary() {
    clients_write_no_control_tokens(tiny());
}

/// Everything that llama.cpp knows of each token, and the tokens of random texts.
fn is_as_llama_cpp_reads_it(path: &Path, vocab: Vocab) {
    let oracle = Oracle::read(path);
    assert_eq!(
        (vocab.len(), vocab.bos()),
        (oracle.len(), Some(oracle.begin()))
    );
    let spelled: HashSet<String> = vocab.spelled().into_iter().collect();
    for token in 0..vocab.len() as Token {
        let text = oracle.text(token);
        assert_eq!(vocab.text(token), Some(text.as_str()));
        assert_eq!(vocab.bytes(token), oracle.bytes(token), "{token} {text:?}");
        assert_eq!(
            vocab.is_end(token),
            oracle.is_end(token),
            "{token} {text:?}"
        );
        assert_eq!(
            spelled.contains(&text),
            oracle.is_spelled(token),
            "{token} {text:?}"
        );
    }
    let check = |text: &str| {
        for markup in [false, true] {
            let mut tokens = vec![];
            vocab.tokenize(text, markup, &mut tokens);
            assert_eq!(
                tokens,
                oracle.tokens(text, markup),
                "{text:?}, markup: {markup}"
            );
        }
    };
    // What tokenizers stumble over, with markers in between, and the vocabulary's own pieces.
    let piece = "[ a-z]{0,8}|[\n ]{1,5}|\\PC{0,6}|[0-9.,]{1,6}|<[|a-z]{0,8}>|<\\|turn>|<turn\\|>|\u{2581}|\u{1}|[\u{1F600}-\u{1F64F}]";
    let texts = (
        proptest::collection::vec(piece, 0..12),
        proptest::collection::vec(0..vocab.len() as Token, 0..12),
    );
    let texts = texts.prop_map(|(odd, own)| {
        odd.concat()
            + &own
                .into_iter()
                .map(|token| {
                    vocab
                        .text(token)
                        .unwrap_or_default()
                        .replace('\u{2581}', " ")
                })
                .collect::<String>()
    });
    let config = ProptestConfig {
        cases: 2000,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let check = |text: String| {
        check(&text);
        Ok(())
    };
    proptest::test_runner::TestRunner::new(config)
        .run(&texts, check)
        .unwrap();
}

#[test]
fn the_tiny_vocabulary_is_as_llama_cpp_reads_it() {
    is_as_llama_cpp_reads_it(&path(TINY), tiny());
}

#[test]
fn the_real_vocabulary_is_as_llama_cpp_reads_it() {
    if let (Some(file), Some(vocab)) = (unpacked(), real()) {
        is_as_llama_cpp_reads_it(file.path(), vocab);
    }
}

#[test]
fn what_is_cut_off_is_refused() {
    let (mut place, file) = read_vocabulary(&path(TINY)).unwrap();
    place.texts.end -= 1;
    assert!(
        read(&file, &place)
            .unwrap_err()
            .contains("vocabulary is cut off")
    );
    place.texts.end = u64::MAX;
    assert!(
        read(&file, &place)
            .unwrap_err()
            .contains("vocabulary cannot be read")
    );
}
