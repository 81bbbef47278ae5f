//! `org.gemmad.Gemmad1.Account`: what is the caller's, which is their tokens and what they have used. Beside the manager, on the same
//! object.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value};
use zbus::interface;
use zbus::message::Header;
use zbus::zvariant::OwnedValue;

use super::Shared;
use super::error::BusError;
use super::options::Options;
use super::polkit::Action;
use crate::api::native::{tokens, usage};

pub struct Account(Arc<Shared>);

impl Account {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }
}

#[interface(name = "org.gemmad.Gemmad1.Account")]
impl Account {
    /// Makes a token of a part of the caller's rights. Options: ttl (u: seconds, at most 43200), scopes
    /// (as: inference, models, admin), model (s), limit (u: requests a minute). Returns its text, which
    /// is shown this once, and what else there is of it, as the JSON of `POST /tokens`.
    #[zbus(out_args("token", "about"))]
    async fn issue_token(
        &self,
        #[zbus(header)] header: Header<'_>,
        options: HashMap<String, OwnedValue>,
    ) -> Result<(String, String), BusError> {
        let client = self.0.admit_as(&header, Action::Tokens).await?;
        let wanted = tokens::read_text(&wanted(Options::new(options))?)?;
        let (backends, admission) = (&self.0.backends, &self.0.admission);
        let made = tokens::make(backends, admission, &client.caller, wanted).await?;
        let about = made.about_json();
        Ok((made.token, about))
    }

    /// The caller's tokens, for administrators everybody's, as the JSON of `GET /tokens`.
    #[zbus(out_args("tokens"))]
    async fn list_tokens(&self, #[zbus(header)] header: Header<'_>) -> Result<String, BusError> {
        let client = self.0.admit_as(&header, Action::Tokens).await?;
        Ok(tokens::list_json(&self.0.admission, &client.caller)?)
    }

    /// Ends the token with this id, which breaks off its answers. It is the caller's own, or the caller
    /// is an administrator.
    async fn revoke_token(
        &self,
        #[zbus(header)] header: Header<'_>,
        id: &str,
    ) -> Result<(), BusError> {
        let client = self.0.admit_as(&header, Action::Tokens).await?;
        let ended = tokens::one(id)?;
        tokens::end(&self.0.admission, &client.caller, ended).await?;
        Ok(())
    }

    /// What is on the caller's account, day by day, for administrators on everybody's, as the JSON of
    /// `GET /usage`.
    #[zbus(out_args("usage"))]
    async fn get_usage(&self, #[zbus(header)] header: Header<'_>) -> Result<String, BusError> {
        let client = self.0.admit(&header).await?;
        let (backends, admission) = (&self.0.backends, &self.0.admission);
        Ok(usage::usage_json(backends, admission, &client.caller))
    }
}

/// The options as the JSON of `POST /tokens` has them, where they are read.
fn wanted(mut options: Options) -> Result<String, BusError> {
    let mut wanted = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        wanted.extend(value.map(|value| (name.to_owned(), value)));
    };
    put("ttl", options.count("ttl")?.map(Into::into));
    put("scopes", options.words("scopes")?.map(Into::into));
    put("model", options.text("model")?.map(Into::into));
    put("limit", options.count("limit")?.map(Into::into));
    options.finish()?;
    Ok(Value::Object(wanted).to_string())
}
