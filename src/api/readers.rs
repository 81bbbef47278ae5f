//! The readers of bodies, for tests and for the fuzz target `body`, which try whatever comes on them.

use super::{Invalid, anthropic, llama_cpp, ollama, openai};
use openai::{responses, transcriptions};

/// Reads a body and forgets it.
pub type Reader = fn(&[u8]) -> Result<(), Invalid>;

pub const CHAT: Reader = |body| openai::chat::request::parse(body).map(drop);
pub const RESPONSES: Reader = |body| openai::responses::request::parse(body).map(drop);
pub const MESSAGES: Reader = |body| anthropic::request::parse(body).map(drop);
pub const COMPLETIONS: Reader = |body| openai::completions::request::parse(body).map(drop);
pub const COMPLETION: Reader = |body| llama_cpp::completion::request(body).map(drop);

pub const OLLAMA_CHAT: Reader = |body| ollama::chat::parse(body).map(drop);
pub const OLLAMA_GENERATE: Reader = |body| ollama::generate::parse(body).map(drop);

pub const COUNT: Reader = |body| anthropic::request::parse_count(body).map(drop);
pub const COMPACT: Reader = |body| responses::compact::read(body).map(drop);
pub const TOKENIZE: Reader = |body| llama_cpp::tokens::tokenize(body).map(drop);
pub const DETOKENIZE: Reader = |body| llama_cpp::tokens::detokenize(body).map(drop);
pub const OLLAMA_SHOW: Reader = |body| ollama::models::asked(body).map(drop);
pub const OLLAMA_PULL: Reader = |body| ollama::pull::read(body).map(drop);

/// One for each route that takes JSON from whoever may ask.
pub const ALL: [Reader; 13] = [
    CHAT,
    RESPONSES,
    MESSAGES,
    COMPLETIONS,
    COMPLETION,
    OLLAMA_CHAT,
    OLLAMA_GENERATE,
    COUNT,
    COMPACT,
    TOKENIZE,
    DETOKENIZE,
    OLLAMA_SHOW,
    OLLAMA_PULL,
];

/// Reads the form of a transcription and forgets it.
///
/// # Errors
/// What is wrong with it.
pub fn transcription(boundary: &str, body: &[u8]) -> Result<(), Invalid> {
    let body = axum::body::Bytes::copy_from_slice(body);
    let read = transcriptions::request::parse(boundary, body);
    let read = futures_util::FutureExt::now_or_never(read);
    read.expect("all of the body is there").map(drop)
}
