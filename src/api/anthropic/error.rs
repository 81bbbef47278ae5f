//! What goes wrong, in Anthropic's shape.

use axum::body::Body;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::api::anthropic::request::THREAD;
use crate::api::anthropic::response::{Details, ErrorOut};
use crate::api::error::ApiError;
use crate::api::render;

pub struct AnthropicError(pub ApiError);

impl AnthropicError {
    pub fn out(&self) -> ErrorOut<'_> {
        ErrorOut {
            r#type: kind(self.0.status),
            message: &self.0.message,
            details: (self.0.param.as_deref() == Some(THREAD)).then_some(Details {
                error_code: "thread_unsupported_request",
                unsupported: [THREAD],
            }),
        }
    }
}

/// The families of errors that Anthropic's clients know.
fn kind(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        503 => "overloaded_error",
        504 => "timeout_error",
        400..500 => "invalid_request_error",
        _ => "api_error",
    }
}

#[derive(Serialize)]
struct Envelope<'a> {
    r#type: &'static str,
    error: ErrorOut<'a>,
}

impl<E: Into<ApiError>> From<E> for AnthropicError {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for AnthropicError {
    fn into_response(self) -> Response {
        let text = render(&Envelope {
            r#type: "error",
            error: self.out(),
        });
        // Status and headers are the same in every shape.
        let (mut parts, _) = self.0.into_response().into_parts();
        parts.headers.remove(axum::http::header::CONTENT_LENGTH);
        Response::from_parts(parts, Body::from(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::parse::Invalid;
    use crate::backend::Failure;

    #[test]
    fn errors_have_their_families() {
        let kind_of = |error: AnthropicError| error.out().r#type;
        assert_eq!(
            kind_of(Invalid::new("x", "y").into()),
            "invalid_request_error"
        );
        assert_eq!(
            kind_of(
                Failure::UnknownModel {
                    asked: "x".into(),
                    known: vec![],
                    passed_over: None,
                    hint: None,
                }
                .into()
            ),
            "not_found_error"
        );
        assert_eq!(kind_of(Failure::ShuttingDown.into()), "overloaded_error");
        assert_eq!(
            kind_of(Failure::TokenRevoked.into()),
            "authentication_error"
        );
        assert_eq!(
            kind_of(Failure::WorkerDied { cause: "x".into() }.into()),
            "api_error"
        );
        let response = AnthropicError::from(Failure::QueueFull {
            limit: 1,
            retry_after: std::time::Duration::ZERO,
        })
        .into_response();
        assert_eq!(
            (
                response.status().as_u16(),
                &response.headers()["retry-after"]
            ),
            (503, &axum::http::HeaderValue::from_static("1"))
        );
    }
}
