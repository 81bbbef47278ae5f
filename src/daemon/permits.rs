//! Which models somebody may ask: what a token or an app is for.

use std::sync::Arc;

use crate::access::admission::Admission;
use crate::access::token::Record;
use crate::backend::{Cut, Failure, Permit, Permits};
use crate::chat::PrincipalId;

/// Tokens and apps may be for some models only.
#[derive(Debug)]
pub struct TheirModels(pub Arc<Admission>);

impl Permits for TheirModels {
    fn of(&self, owner: PrincipalId) -> Permit {
        let of_one = |model: Option<String>| match model {
            None => Permit::All,
            Some(model) => Permit::Only(vec![model]),
        };
        match owner {
            PrincipalId::User(_) | PrincipalId::SubUser { .. } => Permit::All,
            PrincipalId::Token { id, .. } => match self.0.tokens.record(id) {
                Some(Record { model, .. }) => of_one(model),
                None => Permit::Nothing,
            },
            PrincipalId::Subject { rights, .. } => match self.0.oidc.model(rights) {
                Some(model) => of_one(model),
                None => Permit::Nothing,
            },
            PrincipalId::App(name) => match self.0.apps.find(name) {
                Some(app) if app.models.is_empty() => Permit::All,
                Some(app) => Permit::Only(app.models.clone()),
                None => Permit::Nothing,
            },
        }
    }

    fn cut(&self, owner: PrincipalId) -> Option<Cut> {
        let PrincipalId::Token { id, .. } = owner else {
            return None;
        };
        let admission = self.0.clone();
        Some(Cut::new(async move {
            admission.tokens.until_revoked(id).await;
            Failure::TokenRevoked
        }))
    }
}
