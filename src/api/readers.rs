//! The readers of bodies, for tests and for the fuzz target `body`, which try whatever comes on them.

use super::{Invalid, anthropic, llama_cpp, ollama, openai};

/// Reads a body and forgets it.
pub type Reader = fn(&[u8]) -> Result<(), Invalid>;

pub const CHAT: Reader = |body| openai::chat::request::parse(body).map(drop);
pub const RESPONSES: Reader = |body| openai::responses::request::parse(body).map(drop);
pub const MESSAGES: Reader = |body| anthropic::request::parse(body).map(drop);
pub const COMPLETIONS: Reader = |body| openai::completions::request::parse(body).map(drop);
pub const COMPLETION: Reader = |body| llama_cpp::completion::request(body).map(drop);

pub const OLLAMA_CHAT: Reader = |body| ollama::chat::parse(body).map(drop);
pub const OLLAMA_GENERATE: Reader = |body| ollama::generate::parse(body).map(drop);

/// One for each API that generates.
pub const ALL: [Reader; 7] = [
    CHAT,
    RESPONSES,
    MESSAGES,
    COMPLETIONS,
    COMPLETION,
    OLLAMA_CHAT,
    OLLAMA_GENERATE,
];
