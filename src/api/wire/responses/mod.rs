//! OpenAI's Responses API: requests taken apart ([`request`], [`items`]), responses built
//! ([`output`]).

pub mod items;
pub mod output;
mod places;
pub mod request;

pub use places::Places;
