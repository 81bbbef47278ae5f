//! Who a request is from: whoever is connected, or whoever has the token that comes along; at an app's socket the app alone.
//!
//! The kernel says who is connected. A token is taken from everyone who is; the gateway, which speaks
//! for programs that no kernel vouches for, is nobody without one. Tokens are the daemon's own, and
//! those of issuers that the configuration names.

use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use tokio::time::timeout;

use crate::access::admission::Admission;
use crate::access::oidc;
use crate::access::token::{PREFIX, Record, Refusal};
use crate::access::{Caller, Principal, name_of};
use crate::api::error::ApiError;
use crate::attachments::aside;
use crate::chat::AppName;

/// In which the gateway says whose request it passes on: the address of its client.
const PEER: HeaderName = HeaderName::from_static("x-gemmad-peer");
/// Where clients of Anthropic's API put their key.
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// How long the system's lists of users may take.
const LISTS: Duration = Duration::from_secs(5);
/// What stands before a token in `Authorization`.
const BEARER: &str = "bearer ";

/// Who asks, and from which address if the gateway says so. Takes what it has read out of the headers,
/// so that nothing later sees a token.
pub async fn identify(
    admission: &Admission,
    connected: &Caller,
    headers: &mut HeaderMap,
) -> Result<(Caller, Option<IpAddr>), ApiError> {
    let peer = peer(admission, connected, headers);
    let keys = keys(headers);
    let (peer, keys) = (peer?, keys?);
    if let Principal::App(app) = &connected.principal {
        let caller = of_app(admission, app.name, &keys, connected.pid)?;
        return Ok((caller, None));
    }
    let mut found = None;
    for (at, key) in keys.iter().enumerate() {
        // Most clients that send two send the same.
        if keys[..at].contains(key) {
            continue;
        }
        if let Some(principal) = holder(admission, key).await? {
            if found.is_some() {
                return Err(ApiError::unauthenticated(
                    "invalid_token",
                    "`Authorization` and `x-api-key` have different tokens; send one",
                ));
            }
            found = Some(principal);
        }
    }
    let principal = match (found, peer) {
        (Some(principal), _) => principal,
        // Clients must send some key to other services. On the socket the kernel says who asks.
        (None, None) => return Ok((connected.clone(), None)),
        (None, Some(_)) => {
            return Err(ApiError::unauthenticated(
                "token_required",
                "the gateway takes requests with a token only: `Authorization: Bearer gmd_...` or `x-api-key`; `gemmactl token issue` makes one",
            ));
        }
    };
    count(admission, &principal)?;
    let pid = connected.pid;
    Ok((Caller { principal, pid }, peer))
}

/// The app, with what it may do now, however long its connection has been there. Keys that clients must send to other services
/// are nothing here; a token is refused, so that nobody believes it counted.
fn of_app(
    admission: &Admission,
    name: AppName,
    keys: &[String],
    pid: Option<i32>,
) -> Result<Caller, ApiError> {
    if keys.iter().any(|key| key.starts_with(PREFIX)) {
        return Err(ApiError::not_permitted(format!(
            "this socket is the app `{name}`'s, and nobody else asks here: no token is taken"
        )));
    }
    let app = admission.apps.find(name).ok_or_else(|| no_app(name))?;
    let principal = Principal::App(app);
    count(admission, &principal)?;
    Ok(Caller { principal, pid })
}

/// Of an app that the configuration had and has no more.
pub fn no_app(name: AppName) -> ApiError {
    ApiError::not_permitted(format!(
        "no [[app]] is called `{name}` any more (`name` in gemmad.toml)"
    ))
}

/// Whose token a key is; `None`: it is none, but something that other services want.
async fn holder(admission: &Admission, key: &str) -> Result<Option<Principal>, ApiError> {
    if !key.starts_with(PREFIX) {
        let subject = admission.oidc.check(key).await.map_err(not_taken)?;
        return Ok(subject.map(Principal::Subject));
    }
    let record = admission
        .tokens
        .check(key, SystemTime::now())
        .map_err(refused)?;
    if is_orphan(admission, &record).await {
        return Err(ApiError::unauthenticated(
            "token_revoked",
            "the user who issued the token is no user of this machine any more",
        ));
    }
    Ok(Some(admission.holder(record)))
}

/// Whether the token's issuer was a user of this machine, and is none any more.
async fn is_orphan(admission: &Admission, record: &Record) -> bool {
    let Record {
        uid,
        name: Some(name),
        ..
    } = record
    else {
        // A container's user, say, is in no list.
        return false;
    };
    let uid = *uid;
    if let Some(known) = admission.names.known(uid, Instant::now()) {
        return known.as_ref() != Some(name);
    }
    let found = match timeout(LISTS, aside(move || name_of(uid))).await {
        Ok(Ok(Ok(found))) => found,
        // Lists that cannot be asked end nobody's token.
        _ => Some(name.clone()),
    };
    let is_orphan = found.as_ref() != Some(name);
    admission.names.learn(uid, found, Instant::now());
    is_orphan
}

/// Counts the request, if whoever asks may ask so many times a minute only.
fn count(admission: &Admission, principal: &Principal) -> Result<(), ApiError> {
    let now = Instant::now();
    let counted = match principal {
        Principal::User { .. } => Ok(()),
        Principal::Token { record, .. } => {
            let counted = admission.tokens.count(record, now);
            counted.map_err(|after| (record.per_minute.unwrap_or(0), after))
        }
        Principal::Subject(subject) => admission.oidc.count(subject, now),
        Principal::App(app) => admission.apps.count(app, now),
    };
    counted.map_err(|(limit, after)| ApiError::paced(limit, after))
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
            "`{PEER}` is the gateway's to send (`gateway` in gemmad.toml), and {} is not the gateway's user",
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

fn not_taken(refusal: oidc::Refusal) -> ApiError {
    match refusal {
        oidc::Refusal::Expired => ApiError::unauthenticated(
            "token_expired",
            "the token has expired; its issuer gives another",
        ),
        oidc::Refusal::Invalid(why) => {
            ApiError::unauthenticated("invalid_token", format!("the token {why}"))
        }
        oidc::Refusal::Nothing => ApiError::not_permitted(
            "the token is good, and nothing here is for its claims: no [[oidc.grant]] fits them",
        ),
        oidc::Refusal::NoKeys(why) => ApiError::cannot(
            "issuer_unavailable",
            format!("the token cannot be checked: the keys of its issuer cannot be fetched: {why}"),
        ),
    }
}
