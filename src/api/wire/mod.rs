//! What goes over the wire, in OpenAI's shapes: requests taken apart strictly, responses built
//! exactly.

pub mod anthropic;
pub mod completions;
mod files;
pub mod format;
pub mod json;
mod media;
pub mod messages;
mod remote;
pub mod request;
pub mod response;
pub mod responses;
pub mod tokens;
pub mod tools;
pub mod transcription;
pub mod upload;
