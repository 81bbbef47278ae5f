//! Reading a request's body, within bounds of size, of time, and of what all requests hold
//! together.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode, header};
use http_body_util::BodyExt;
use tokio::time::timeout;

use crate::access::Caller;
use crate::access::quota::Share;
use crate::api::Api;
use crate::api::error::ApiError;
use crate::api::prefer::Prefer;

/// From the head of a request to the end of its body. Clients are on this machine.
const BODY_TIME: Duration = Duration::from_secs(30);

/// Media that are certainly not JSON. Anything else is judged by its content: curl calls everything
/// a form.
const NOT_JSON: [&str; 4] = ["multipart/", "image/", "audio/", "video/"];

/// A body and the memory that is accounted to its sender until the share is dropped.
pub struct Received {
    pub bytes: Vec<u8>,
    pub share: Share,
    pub prefer: Prefer,
}

/// Reads all of a JSON body or says why not.
pub async fn read(
    api: &Api,
    caller: &Caller,
    request: Request<Body>,
) -> Result<Received, ApiError> {
    is_json(request.headers())?;
    receive(api, caller, request).await
}

/// Reads all of a form's body or says why not.
pub async fn read_form(
    api: &Api,
    caller: &Caller,
    request: Request<Body>,
) -> Result<Received, ApiError> {
    is_plain(request.headers())?;
    receive(api, caller, request).await
}

/// What separates the parts of a form.
pub fn boundary(headers: &HeaderMap) -> Result<String, ApiError> {
    multer::parse_boundary(text(headers, header::CONTENT_TYPE))
        .map_err(|_| unsupported("the body must be multipart/form-data with a boundary"))
}

async fn receive(api: &Api, caller: &Caller, request: Request<Body>) -> Result<Received, ApiError> {
    let limit = api.limits.body_bytes;
    if let Some(length) = length(request.headers())
        && length > limit
    {
        return Err(too_large(format!("the body has {length} bytes"), limit));
    }
    let share = api.admission.share_of_bodies(&caller.principal);
    let prefer = Prefer::of(request.headers());
    match timeout(BODY_TIME, collect(request.into_body(), share, limit)).await {
        Ok(collected) => collected.map(|(bytes, share)| Received {
            bytes,
            share,
            prefer,
        }),
        Err(_) => {
            let message = format!("the body did not arrive within {} s", BODY_TIME.as_secs());
            Err(ApiError::invalid(
                StatusCode::REQUEST_TIMEOUT,
                "body_timeout",
                message,
            ))
        }
    }
}

async fn collect(
    mut body: Body,
    mut share: Share,
    limit: u64,
) -> Result<(Vec<u8>, Share), ApiError> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| {
            ApiError::invalid(
                StatusCode::BAD_REQUEST,
                "invalid_body",
                "the body broke off or is framed wrongly".to_owned(),
            )
        })?;
        // Trailers say nothing here.
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if (bytes.len() + data.len()) as u64 > limit {
            return Err(too_large(
                format!("the body has more than {} bytes", bytes.len()),
                limit,
            ));
        }
        share.grow(data.len() as u64).map_err(ApiError::bodies)?;
        bytes.extend_from_slice(&data);
    }
    Ok((bytes, share))
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

fn too_large(what: String, limit: u64) -> ApiError {
    let message = format!("{what}; at most {limit} are allowed (`body-size` in gemmad.toml)");
    ApiError::invalid(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
}

fn is_json(headers: &HeaderMap) -> Result<(), ApiError> {
    let media = text(headers, header::CONTENT_TYPE).to_ascii_lowercase();
    if NOT_JSON.iter().any(|prefix| media.starts_with(prefix)) {
        return Err(unsupported("the body must be application/json"));
    }
    is_plain(headers)
}

fn is_plain(headers: &HeaderMap) -> Result<(), ApiError> {
    match text(headers, header::CONTENT_ENCODING)
        .to_ascii_lowercase()
        .as_str()
    {
        "" | "identity" => Ok(()),
        _ => Err(unsupported(
            "compressed bodies are not supported; send it plain",
        )),
    }
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> &str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

fn unsupported(message: &str) -> ApiError {
    ApiError::invalid(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported_media_type",
        message,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_certainly_something_else_is_refused() {
        let check = |name: header::HeaderName, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            is_json(&headers).map_err(|error| error.status.as_u16())
        };
        assert_eq!(is_json(&HeaderMap::new()), Ok(()));
        for fine in [
            "application/json; charset=utf-8",
            "text/plain",
            "application/x-www-form-urlencoded",
            "application/problem+json",
        ] {
            assert_eq!(check(header::CONTENT_TYPE, fine), Ok(()), "{fine}");
        }
        assert_eq!(
            check(header::CONTENT_TYPE, "Multipart/form-data; boundary=x"),
            Err(415)
        );
        assert_eq!(check(header::CONTENT_TYPE, "image/png"), Err(415));
        assert_eq!(check(header::CONTENT_ENCODING, "gzip"), Err(415));
        assert_eq!(check(header::CONTENT_ENCODING, "identity"), Ok(()));
    }

    #[test]
    fn a_form_has_a_boundary() {
        let of = |value: &str| {
            boundary(&HeaderMap::from_iter([(
                header::CONTENT_TYPE,
                value.parse().unwrap(),
            )]))
        };
        assert_eq!(
            of("multipart/form-data; boundary=\"A b\""),
            Ok("A b".into())
        );
        for bad in [
            "multipart/form-data",
            "application/json",
            "multipart/mixed; boundary=x",
            "",
        ] {
            assert_eq!(
                of(bad).map_err(|error| error.status.as_u16()),
                Err(415),
                "{bad}"
            );
        }
    }
}
