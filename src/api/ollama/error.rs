//! What goes wrong, in Ollama's shape: `{"error": "…"}`, with the statuses of all doors.

use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::api::error::ApiError;
use crate::api::generation::write_line;
use crate::api::render;

pub struct OllamaError(pub ApiError);

#[derive(Serialize)]
struct Out<'a> {
    error: &'a str,
}

impl OllamaError {
    fn out(&self) -> Out<'_> {
        Out {
            error: &self.0.message,
        }
    }

    /// As the last line of a stream.
    pub fn line(&self) -> Bytes {
        let mut buffer = vec![];
        write_line(&mut buffer, &self.out());
        buffer.into()
    }
}

impl<E: Into<ApiError>> From<E> for OllamaError {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for OllamaError {
    fn into_response(self) -> Response {
        let text = render(&self.out());
        // Status and headers are the same in every shape.
        let (parts, _) = self.0.into_response().into_parts();
        Response::from_parts(parts, Body::from(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Failure;

    #[test]
    fn errors_are_one_text() {
        let error = OllamaError::from(Failure::QueueFull {
            limit: 1,
            retry_after: std::time::Duration::ZERO,
        });
        let line = error.line();
        let text = "{\"error\":\"1 requests are waiting already; try again in 1 s\"}\n";
        assert_eq!(std::str::from_utf8(&line).unwrap(), text);
        let response = error.into_response();
        assert_eq!(response.status().as_u16(), 503);
        assert_eq!(response.headers()["retry-after"], "1");
    }
}
