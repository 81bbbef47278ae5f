//! Anthropic's Messages API: requests taken apart ([`request`], [`blocks`]), answers and errors
//! built ([`output`]).

mod blocks;
pub mod output;
pub mod request;
