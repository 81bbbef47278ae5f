//! Facts and formats of the Gemma 4 family: pure, without IO, llama.cpp types or HTTP.

pub mod call;
pub mod clusters;
pub mod layout;
pub mod marker;
pub mod model_name;
pub mod model_shape;
pub mod parse;
pub mod picture;
pub mod sound;
mod stop;
pub mod template;
mod text_buffer;
pub mod tracker;
mod utf8;
pub mod variant;
pub mod vocabulary;

/// The architecture of the family, as a model file's header spells it.
pub const ARCHITECTURE: &str = "gemma4";
/// And of a drafter's.
pub const DRAFTER_ARCHITECTURE: &str = "gemma4-assistant";
/// What the family's tokenizer is called there.
pub const TOKENIZER: &str = "gemma4";

/// The key of a header's value that belongs to the architecture.
pub fn header_key(name: &str) -> String {
    format!("{ARCHITECTURE}.{name}")
}
