//! `GET /usage`: what principals have used, day by day. Everybody's own, for administrators all.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use serde::Serialize;

use crate::access::Caller;
use crate::access::admission::Admission;
use crate::api::{Api, json, render};
use crate::backend::{Backends, Used};
use crate::chat::PrincipalId;
use crate::chat::timestamp::day;

#[derive(Serialize)]
struct List {
    object: &'static str,
    data: Vec<OfDay>,
}

/// One principal's requests of one day.
#[derive(Serialize)]
struct OfDay {
    /// In UTC.
    date: String,
    /// The user on whose account they are; `None`: nobody of this machine, or those who were too many to be told apart.
    user: Option<u32>,
    /// The token that they came with.
    token: Option<String>,
    /// Of whom another issuer's token was.
    subject: Option<String>,
    /// The app, if it has a socket of its own.
    app: Option<String>,
    requests: u64,
    failed: u64,
    prompt_tokens: u64,
    completion_tokens: u64,
}

impl From<Used> for OfDay {
    fn from(used: Used) -> Self {
        let (mut token, mut subject, mut app) = (None, None, None);
        match used.who {
            Some(PrincipalId::Token { id, .. }) => token = Some(format!("{id:016x}")),
            Some(PrincipalId::Subject { subject: of, .. }) => subject = Some(format!("{of:032x}")),
            Some(PrincipalId::App(name)) => app = Some(name.to_string()),
            Some(PrincipalId::User(_) | PrincipalId::SubUser { .. }) | None => {}
        }
        Self {
            date: day(used.day.into()),
            user: used.who.and_then(PrincipalId::uid),
            token,
            subject,
            app,
            requests: used.requests,
            failed: used.failed,
            prompt_tokens: used.prompt_tokens,
            completion_tokens: used.completion_tokens,
        }
    }
}

pub async fn usage(State(api): State<Arc<Api>>, Extension(caller): Extension<Caller>) -> Response {
    json(usage_json(&api.backends, &api.admission, &caller))
}

/// What the caller is shown.
pub fn usage_json(backends: &Backends, admission: &Admission, caller: &Caller) -> String {
    let sees_all = admission.may_administer(&caller.principal);
    let asks = caller.id();
    let mut used = backends.used();
    used.retain(|used| sees_all || used.who.is_some_and(|who| is_shown(asks, who)));
    render(&List {
        object: "list",
        data: used.into_iter().map(Into::into).collect(),
    })
}

/// Whether somebody sees what another principal has used: users what is on their account, others what is their own.
fn is_shown(asks: PrincipalId, who: PrincipalId) -> bool {
    match (asks, who) {
        (PrincipalId::User(_), who) => who.account() == asks,
        (PrincipalId::Token { id, .. }, PrincipalId::Token { id: other, .. }) => id == other,
        (PrincipalId::Subject { subject, .. }, PrincipalId::Subject { subject: other, .. }) => {
            subject == other
        }
        (asks, who) => asks == who,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_sees_their_own() {
        let user = PrincipalId::User;
        let container = PrincipalId::SubUser {
            uid: 100_000,
            owner: 1000,
        };
        let token = |id| PrincipalId::Token { id, owner: 1000 };
        let subject = |subject, rights, owner| PrincipalId::Subject {
            subject,
            rights,
            owner,
        };
        for (asks, who, shown) in [
            (user(1000), user(1000), true),
            (user(1000), token(1), true),
            (user(1000), container, true),
            (user(1000), subject(5, 0, Some(1000)), true),
            (user(1000), user(1001), false),
            (user(1000), subject(5, 0, None), false),
            (user(1001), token(1), false),
            (container, container, true),
            (container, user(1000), false),
            (token(1), token(1), true),
            (token(1), token(2), false),
            (token(1), user(1000), false),
            (subject(5, 0, None), subject(5, 3, None), true),
            (subject(5, 0, None), subject(6, 0, None), false),
            (subject(5, 0, Some(1000)), user(1000), false),
        ] {
            assert_eq!(is_shown(asks, who), shown, "{asks} {who}");
        }
    }
}
