//! Answers of the gateway's own, each in the shape of the API that was asked, as the daemon's are.

use http_body_util::{Either, Full};
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::json;

use super::pass::Answer;

/// Why the gateway refuses.
#[derive(Clone, Debug)]
struct Why {
    code: String,
    message: String,
}

/// A refusal. It has a body once it is [`in_shape`].
pub fn refuse(status: StatusCode, code: &str, message: &str) -> Answer {
    let mut response = Response::new(Either::Right(Full::default()));
    *response.status_mut() = status;
    let (code, message) = (code.to_owned(), message.to_owned());
    response.extensions_mut().insert(Why { code, message });
    response
}

/// The same answer; if it is a refusal, with the body that clients of this path's API expect.
pub fn in_shape(mut answer: Answer, path: &str) -> Answer {
    let Some(Why { code, message }) = answer.extensions_mut().remove() else {
        return answer;
    };
    let begins = |with: &str| {
        let rest = path.strip_prefix(with);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let status = answer.status();
    let body = if begins("/api") {
        json!({"error": message})
    } else if begins("/v1/messages") || begins("/messages") {
        json!({"type": "error", "error": {"type": anthropics(status), "message": message}})
    } else {
        json!({"error": {"message": message, "type": openais(status), "param": null, "code": code}})
    };
    *answer.body_mut() = Either::Right(Full::from(body.to_string()));
    answer.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    answer
}

fn openais(status: StatusCode) -> &'static str {
    match status.as_u16() {
        403 => "permission_error",
        429 => "rate_limit_error",
        500.. => "server_error",
        _ => "invalid_request_error",
    }
}

fn anthropics(status: StatusCode) -> &'static str {
    match status.as_u16() {
        403 => "permission_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use serde_json::Value;

    use super::*;

    #[tokio::test]
    async fn a_refusal_is_in_the_shape_of_what_was_asked() {
        let of = async |path: &str| {
            let answer = refuse(StatusCode::FORBIDDEN, "no", "it may not be");
            let body = in_shape(answer, path).into_body();
            let Either::Right(body) = body else {
                panic!("it was the daemon's");
            };
            let body = body.collect().await.unwrap().to_bytes();
            serde_json::from_slice::<Value>(&body).unwrap()
        };
        for path in ["/v1/messages", "/messages/count_tokens"] {
            assert_eq!(
                of(path).await,
                json!({"type": "error", "error": {"type": "permission_error", "message": "it may not be"}})
            );
        }
        assert_eq!(of("/api/chat").await, json!({"error": "it may not be"}));
        for path in ["/v1/messagesx", "/apis", "/v1/chat/completions", "/"] {
            assert_eq!(of(path).await["error"]["code"], "no", "{path}");
        }
    }
}
