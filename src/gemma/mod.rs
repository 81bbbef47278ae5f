//! Facts and formats of the Gemma 4 family: pure, without IO, llama.cpp types or HTTP.

mod call;
mod lane;
pub mod marker;
pub mod parse;
mod stop;
pub mod template;
mod utf8;
