//! Who a request is from: whoever is connected, or whoever has the token that comes along.
//!
//! The kernel says who is connected. A token is taken from everyone who is; the gateway, which speaks
//! for programs that no kernel vouches for, is nobody without one.

use std::net::IpAddr;
use std::time::{Instant, SystemTime};

use axum::http::{HeaderMap, HeaderName, StatusCode, header};

use crate::access::Caller;
use crate::access::admission::Admission;
use crate::access::token::{PREFIX, Refusal};
use crate::api::error::ApiError;

/// In which the gateway says whose request it passes on: the address of its client.
const PEER: HeaderName = HeaderName::from_static("x-gemmad-peer");
/// Where clients of Anthropic's API put their key.
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// What stands before a token in `Authorization`.
const BEARER: &str = "bearer ";

/// Who asks, and from which address if the gateway says so. Takes what it has read out of the headers,
/// so that nothing later sees a token.
pub fn identify(
    admission: &Admission,
    connected: &Caller,
    headers: &mut HeaderMap,
) -> Result<(Caller, Option<IpAddr>), ApiError> {
    let peer = peer(admission, connected, headers);
    let keys = keys(headers);
    let (peer, keys) = (peer?, keys?);
    let mut tokens = keys.iter().filter(|key| key.starts_with(PREFIX));
    let text = match (tokens.next(), peer) {
        (Some(first), _) if tokens.any(|other| other != first) => {
            return Err(ApiError::unauthenticated(
                "invalid_token",
                "`Authorization` and `x-api-key` have different tokens; send one",
            ));
        }
        (Some(first), _) => first,
        // Clients must send some key to other services. On the socket the kernel says who asks.
        (None, None) => return Ok((connected.clone(), None)),
        (None, Some(_)) => {
            return Err(ApiError::unauthenticated(
                "token_required",
                "the gateway takes requests with a token only: `Authorization: Bearer gmd_...` or `x-api-key`; `gemmactl token issue` makes one",
            ));
        }
    };
    let record = admission
        .tokens
        .check(text, SystemTime::now())
        .map_err(refused)?;
    if let Err(after) = admission.tokens.count(&record, Instant::now()) {
        return Err(ApiError::paced(record.per_minute.unwrap_or(0), after));
    }
    let caller = Caller {
        principal: admission.holder(record),
        pid: connected.pid,
    };
    Ok((caller, peer))
}

/// The address that the gateway names. It must name one, and nobody else may.
fn peer(
    admission: &Admission,
    connected: &Caller,
    headers: &mut HeaderMap,
) -> Result<Option<IpAddr>, ApiError> {
    let is_gateway = admission.is_gateway(&connected.principal);
    let mut named = headers.get_all(PEER).iter();
    let (first, more) = (named.next().cloned(), named.next().is_some());
    headers.remove(PEER);
    match (is_gateway, first) {
        (false, None) => Ok(None),
        (false, Some(_)) => Err(ApiError::not_permitted(format!(
            "`{PEER}` is the gateway's to send, and user {} is not the gateway's (`gateway` in gemmad.toml)",
            connected.id()
        ))),
        (true, first) => {
            let address = first.filter(|_| !more);
            let address = address.and_then(|address| address.to_str().ok()?.parse().ok());
            address.map(Some).ok_or_else(|| {
                ApiError::not_permitted(format!(
                    "the gateway's user sends requests for others only, and names their address in `{PEER}` once"
                ))
            })
        }
    }
}

/// What the request has where keys of services go.
fn keys(headers: &mut HeaderMap) -> Result<Vec<String>, ApiError> {
    let mut keys = vec![];
    for (name, scheme) in [(header::AUTHORIZATION, BEARER), (API_KEY, "")] {
        let values: Vec<_> = headers.get_all(&name).iter().cloned().collect();
        headers.remove(&name);
        if values.len() > 1 {
            let message = format!("the request has more than one `{name}` header; send one");
            return Err(ApiError::invalid(
                StatusCode::BAD_REQUEST,
                "invalid_header",
                message,
            ));
        }
        let text = values.first().and_then(|value| value.to_str().ok());
        let key = text.and_then(|text| {
            let (before, key) = text.split_at_checked(scheme.len())?;
            before.eq_ignore_ascii_case(scheme).then(|| key.trim())
        });
        keys.extend(key.map(str::to_owned));
    }
    Ok(keys)
}

fn refused(refusal: Refusal) -> ApiError {
    let (code, message) = match refusal {
        Refusal::Expired => (
            "token_expired",
            "the token has expired; `gemmactl token issue` makes another",
        ),
        Refusal::Revoked => ("token_revoked", "the token was revoked"),
        Refusal::Invalid | Refusal::Unknown => (
            "invalid_token",
            "this is no token that the daemon has issued",
        ),
    };
    ApiError::unauthenticated(code, message)
}
