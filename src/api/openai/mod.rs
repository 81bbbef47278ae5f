//! OpenAI's API: an endpoint's folder or file has its request, its response and its stream.
//!
//! What several endpoints take in the same way: [`tools`] (functions that may be called) and
//! [`mod@format`] (the form of the answer).

pub mod chat;
pub mod completions;
pub mod files;
mod format;
pub mod models;
pub mod responses;
mod tools;
pub mod transcriptions;

use serde::Serialize;

/// What a `DELETE` answers.
#[derive(Serialize)]
pub struct Deleted<'a> {
    pub id: &'a str,
    pub object: &'static str,
    pub deleted: bool,
}
