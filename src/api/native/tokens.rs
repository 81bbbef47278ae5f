//! `POST /tokens`, `GET /tokens`, `POST /tokens/revoke` and `POST /tokens/rotate`: for users, whom the kernel vouches
//! for. A token can make, show and revoke none.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;
use serde::Serialize;

use super::admin;
use crate::access::admission::Admission;
use crate::access::token::{Fault, LONGEST, MODEL_BYTES, MOST_A_MINUTE, Order, Record, Scope};
use crate::access::{Caller, Principal, name_of};
use crate::api::error::ApiError;
use crate::api::parse::json::{Object, body as parse};
use crate::api::{Api, Invalid, body, json, render};
use crate::attachments::aside;
use crate::backend::Backends;
use crate::chat::Modalities;

/// How long a token is good for that does not say.
const USUAL: Duration = Duration::from_secs(3600);

/// A token as it is shown: all but its text.
#[derive(Serialize)]
struct TokenOut {
    id: String,
    object: &'static str,
    user: u32,
    scopes: Vec<&'static str>,
    model: Option<String>,
    /// Requests a minute.
    limit: Option<u32>,
    /// Seconds since 1970.
    created_at: u64,
    expires_at: u64,
    revoked: bool,
}

#[derive(Serialize)]
struct Issued {
    /// It is shown this once.
    token: String,
    #[serde(flatten)]
    about: TokenOut,
}

#[derive(Serialize)]
struct List {
    object: &'static str,
    data: Vec<TokenOut>,
}

impl From<Record> for TokenOut {
    fn from(record: Record) -> Self {
        Self {
            id: format!("{:016x}", record.id),
            object: "token",
            user: record.uid,
            scopes: record.scopes.iter().map(|scope| scope.word()).collect(),
            model: record.model,
            limit: record.per_minute,
            created_at: record.issued,
            expires_at: record.expires,
            revoked: record.revoked,
        }
    }
}

/// What a client wants of a new token.
pub struct Wanted {
    ttl: Duration,
    scopes: Vec<Scope>,
    model: Option<String>,
    per_minute: Option<u32>,
}

/// A token that was made.
pub struct Made {
    /// It is shown this once.
    pub token: String,
    about: TokenOut,
}

impl Made {
    /// All but the token's text.
    pub fn about_json(&self) -> String {
        render(&self.about)
    }
}

pub async fn issue(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, ApiError> {
    user(&caller)?;
    let received = body::read(&api, &caller, request).await?;
    let wanted = read(parse(&received.bytes)?)?;
    drop(received);
    let Made { token, about } = make(&api.backends, &api.admission, &caller, wanted).await?;
    Ok(json(render(&Issued { token, about })))
}

/// Makes a token of a part of the caller's rights.
///
/// # Errors
/// Why there is none.
pub async fn make(
    backends: &Backends,
    admission: &Admission,
    caller: &Caller,
    wanted: Wanted,
) -> Result<Made, ApiError> {
    let (uid, groups) = user(caller)?;
    if wanted.scopes.contains(&Scope::Admin) && !admission.may_administer(&caller.principal) {
        return Err(ApiError::forbidden(caller.id()));
    }
    // Its id, so that the token is good for this model and no other that the name may mean later.
    let model = match wanted.model {
        None => None,
        Some(name) => Some(backends.find(&name, Modalities::default()).await?.model.id),
    };
    let name = aside(move || name_of(uid)).await?;
    let order = Order {
        uid,
        // Lists that cannot be read name nobody.
        name: name.ok().flatten(),
        groups,
        scopes: wanted.scopes,
        model,
        per_minute: wanted.per_minute,
        ttl: wanted.ttl,
    };
    let account = |uid| admission.account_of(uid);
    let issued = admission
        .tokens
        .issue(order, account, SystemTime::now())
        .await;
    let (token, record) = issued.map_err(failed)?;
    tracing::info!(%uid, token = %format_args!("{:016x}", record.id), scopes = ?record.scopes, expires = record.expires, "issued a token");
    Ok(Made {
        token,
        about: record.into(),
    })
}

pub async fn list(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, ApiError> {
    Ok(json(list_json(&api.admission, &caller)?))
}

/// Everybody's own tokens, for administrators all.
///
/// # Errors
/// Who asks is no user.
pub fn list_json(admission: &Admission, caller: &Caller) -> Result<String, ApiError> {
    let (uid, _) = user(caller)?;
    let sees_all = admission.may_administer(&caller.principal);
    let of = Some(uid).filter(|_| !sees_all);
    let records = admission.tokens.list(of, SystemTime::now());
    Ok(render(&List {
        object: "list",
        data: records.into_iter().map(Into::into).collect(),
    }))
}

#[derive(Serialize)]
struct Revoked {
    revoked: usize,
}

/// Which tokens are to end.
pub enum Ended {
    One(u64),
    AllOf(u32),
}

pub async fn revoke(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, ApiError> {
    user(&caller)?;
    let received = body::read(&api, &caller, request).await?;
    let ended = read_ended(parse(&received.bytes)?)?;
    drop(received);
    let revoked = end(&api.admission, &caller, ended).await?;
    Ok(json(render(&Revoked { revoked })))
}

/// Ends tokens of the caller's, or of anybody's for an administrator; says how many.
///
/// # Errors
/// Why none.
pub async fn end(admission: &Admission, caller: &Caller, ended: Ended) -> Result<usize, ApiError> {
    let (uid, _) = user(caller)?;
    let is_admin = admission.may_administer(&caller.principal);
    let (id, of) = match ended {
        Ended::One(id) => (Some(id), Some(uid).filter(|_| !is_admin)),
        Ended::AllOf(other) if other == uid || is_admin => (None, Some(other)),
        Ended::AllOf(_) => return Err(ApiError::forbidden(caller.id())),
    };
    let revoked = admission.tokens.revoke(id, of, SystemTime::now()).await;
    let revoked = revoked.map_err(failed)?;
    if revoked == 0 && id.is_some() {
        let message = "no token of yours that is good has this id";
        return Err(ApiError::invalid(
            axum::http::StatusCode::NOT_FOUND,
            "token_not_found",
            message,
        )
        .param("id"));
    }
    tracing::info!(%uid, revoked, "revoked tokens");
    Ok(revoked)
}

/// Signs with a new key from now on. A body is not looked at.
pub async fn rotate(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, ApiError> {
    user(&caller)?;
    admin::allowed(&api, &caller)?;
    api.admission
        .tokens
        .rotate(SystemTime::now())
        .await
        .map_err(failed)?;
    tracing::info!(uid = %caller.id(), "tokens are signed with a new key");
    Ok(json(r#"{"status":"rotated"}"#.into()))
}

/// The user who asks, and their groups; tokens are refused.
fn user(caller: &Caller) -> Result<(u32, Arc<[u32]>), ApiError> {
    match &caller.principal {
        Principal::User { uid, groups, .. } => Ok((*uid, groups.clone())),
        Principal::Token { .. } | Principal::Subject(_) | Principal::App(_) => {
            Err(ApiError::not_permitted(
                "tokens are managed by users on the daemon's own socket, not with a token or by an app",
            ))
        }
    }
}

fn failed(fault: Fault) -> ApiError {
    match fault {
        Fault::Full { limit } => ApiError::tokens(limit),
        Fault::Off => ApiError::not_permitted(
            "there are no tokens on this machine (`token-file` in gemmad.toml)",
        ),
        Fault::GivenKey => ApiError::not_permitted(
            "the key is the credential `tokens.key`, which the service manager keeps: pass another one and restart the daemon (the former as `tokens.old.key`, for twelve hours)",
        ),
        Fault::Broken(reason) => ApiError::cannot("tokens_unusable", reason),
        Fault::Disk(error) => {
            tracing::error!(%error, "the tokens cannot be written");
            ApiError::cannot(
                "tokens_not_written",
                format!(
                    "the file of tokens cannot be written (`token-file` in gemmad.toml): {error}"
                ),
            )
        }
    }
}

/// Reads what a new token is to be, as the body of `POST /tokens` says it.
///
/// # Errors
/// The field that is to blame.
pub fn read_text(text: &str) -> Result<Wanted, Invalid> {
    read(parse(text.as_bytes())?)
}

/// Reads what a new token is to be.
pub fn read(mut object: Object<'_>) -> Result<Wanted, Invalid> {
    let most = LONGEST.as_secs() as u32;
    let ttl = object.u32("ttl", 1, most)?;
    let scopes = object.take("scopes");
    let model = object.string("model")?;
    let per_minute = object.u32("limit", 1, MOST_A_MINUTE)?;
    object.finish()?;
    let scopes = match scopes {
        None => vec![Scope::Inference],
        Some(list) => {
            let words = list.array()?;
            let mut scopes = vec![];
            for word in &words {
                match Scope::parse(&word.string()?) {
                    Some(scope) => scopes.push(scope),
                    None => return word.wrong("must be `inference`, `models` or `admin`"),
                }
            }
            if scopes.is_empty() {
                return list.wrong("must have at least one scope");
            }
            scopes.sort();
            scopes.dedup();
            scopes
        }
    };
    if let Some(model) = &model {
        let field = || "model".to_owned();
        if model.len() > MODEL_BYTES {
            return Err(Invalid::new(
                field(),
                format!("must have at most {MODEL_BYTES} bytes"),
            ));
        }
        if scopes != [Scope::Inference] {
            return Err(Invalid::new(
                field(),
                "goes with the scope `inference` alone: the others concern all models",
            ));
        }
    }
    Ok(Wanted {
        ttl: ttl.map_or(USUAL, |ttl| Duration::from_secs(ttl.into())),
        scopes,
        model,
        per_minute,
    })
}

/// The token with this id.
///
/// # Errors
/// It is none.
pub fn one(id: &str) -> Result<Ended, Invalid> {
    let is_id = id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = u64::from_str_radix(id, 16).ok().filter(|_| is_id);
    number.map(Ended::One).ok_or_else(|| {
        Invalid::new(
            "id",
            "must be 16 hexadecimal digits, as the list shows them",
        )
    })
}

/// Reads which tokens are to end.
pub fn read_ended(mut object: Object<'_>) -> Result<Ended, Invalid> {
    let id = object.string("id")?;
    let user = object.u32("user", 0, u32::MAX)?;
    object.finish()?;
    match (id, user) {
        (Some(id), None) => one(&id),
        (None, Some(user)) => Ok(Ended::AllOf(user)),
        _ => Err(Invalid::new(
            "",
            "name one token by its `id`, or all of a `user` by their number",
        )),
    }
}
