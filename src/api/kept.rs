//! Answers of what is kept: the kept bytes themselves are sent, shared and never copied, and count as
//! their reader's until they are read. What was deleted meanwhile stays in memory that long.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use futures_util::stream;

use super::Api;
use super::error::ApiError;
use crate::access::Caller;
use crate::access::quota::{Quota, Share};
use crate::config::Limits;

/// What a user may read at the same time, in terms of what a user may keep.
const KEPT_READ: u64 = 2;
/// Users who can read as much as one may, at the same time.
const READERS: u64 = 2;

/// The account of the bytes that are being read.
pub fn quota(limits: &Limits) -> Arc<Quota> {
    let per_user = KEPT_READ.saturating_mul(limits.stored_bytes.max(limits.files_bytes));
    Quota::new(per_user.saturating_mul(READERS), per_user)
}

/// A 200 that consists of these pieces.
///
/// # Errors
///
/// The caller reads too much at the same time.
pub fn sent(
    api: &Api,
    caller: &Caller,
    pieces: Vec<Bytes>,
    kind: HeaderValue,
) -> Result<Response, ApiError> {
    let bytes = pieces.iter().map(|piece| piece.len() as u64).sum();
    let mut share = api.admission.share(&api.readers, &caller.principal);
    share.grow(bytes).map_err(ApiError::reading)?;
    let mut response = streamed(pieces.into_iter(), share, kind);
    let length = HeaderValue::from(bytes);
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, length);
    Ok(response)
}

/// A 200 whose pieces are made as they are read; `share` is held until the last of them was.
pub fn streamed(
    pieces: impl Iterator<Item = Bytes> + Send + 'static,
    share: Share,
    kind: HeaderValue,
) -> Response {
    let held = pieces.map(move |piece| {
        let _ = &share;
        Ok::<Bytes, Infallible>(piece)
    });
    let mut response = Response::new(Body::from_stream(stream::iter(held)));
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
