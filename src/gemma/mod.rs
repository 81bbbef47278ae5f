//! Facts and formats of the Gemma 4 family: pure, without IO, llama.cpp types or HTTP.

pub mod call;
pub mod figures;
mod lane;
pub mod layout;
pub mod marker;
pub mod parse;
pub mod picture;
pub mod sound;
mod stop;
pub mod template;
pub mod tracker;
mod utf8;
pub mod variant;
pub mod vocabulary;
