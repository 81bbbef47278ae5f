//! OpenAI's API: an endpoint's folder or file has its request, its response and its stream.
//!
//! What several endpoints take in the same way: [`tools`] (functions that may be called) and
//! [`mod@format`] (the form of the answer).

pub mod chat;
pub mod common;
pub mod completions;
pub mod files;
mod format;
pub mod models;
pub mod responses;
pub mod tools;
pub mod transcriptions;

use axum::response::Response;
use serde::Serialize;

use crate::api::{json, render};

/// What a `DELETE` answers.
#[derive(Serialize)]
struct Deleted<'a> {
    id: &'a str,
    object: &'static str,
    deleted: bool,
}

/// Says that the thing with this id, which OpenAI calls an `object`, is no more.
fn deleted(id: &str, object: &'static str) -> Response {
    json(render(&Deleted {
        id,
        object,
        deleted: true,
    }))
}
