//! What polkit says, where it runs.

use std::collections::HashMap;
use std::time::Duration;

use zbus::message::{Flags, Header};
use zbus::zvariant::Value;

use super::client::Client;
use super::error::BusError;

/// What a caller wants to do. `systemd/dbus/org.gemmad.policy` describes each to polkit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask the model.
    Infer,
    /// Load and unload models, which takes memory from everyone else.
    Load,
    /// Install and delete models, which answer everyone.
    Models,
    /// Make, show and end tokens, which give others a part of one's rights.
    Tokens,
}

impl Action {
    /// Its name there.
    pub fn id(self) -> &'static str {
        match self {
            Self::Infer => "org.gemmad.infer",
            Self::Load => "org.gemmad.load",
            Self::Models => "org.gemmad.models",
            Self::Tokens => "org.gemmad.tokens",
        }
    }

    /// Continues "polkit does not let you ".
    pub fn what(self) -> &'static str {
        match self {
            Self::Infer => "ask",
            Self::Load => "load and unload models",
            Self::Models => "change the models",
            Self::Tokens => "manage tokens",
        }
    }
}

/// polkit's interface, as far as it is used (polkit(8), org.freedesktop.PolicyKit1.Authority).
#[zbus::proxy(
    interface = "org.freedesktop.PolicyKit1.Authority",
    default_service = "org.freedesktop.PolicyKit1",
    default_path = "/org/freedesktop/PolicyKit1/Authority",
    gen_blocking = false
)]
pub trait Authority {
    fn check_authorization(
        &self,
        subject: &(&str, HashMap<&str, Value<'_>>),
        action_id: &str,
        details: HashMap<&str, &str>,
        flags: u32,
        cancellation_id: &str,
    ) -> zbus::Result<(bool, bool, HashMap<String, String>)>;
}

/// polkit may ask the user for a password.
const INTERACTIVE: u32 = 1;
/// How long a user may take to give it.
const AUTHENTICATION_TIME: Duration = Duration::from_secs(120);

/// What polkit says of a caller.
pub enum Verdict {
    Yes,
    No,
    /// Not as it is; if the call allowed it (`ALLOW_INTERACTIVE_AUTHORIZATION`), a password would
    /// be asked for.
    Challenge,
    /// It does not run here, so it is for the daemon to say.
    Away,
}

/// Asks polkit, and waits for the user if polkit asks for a password.
pub async fn verdict(
    authority: &AuthorityProxy<'_>,
    client: &Client,
    header: &Header<'_>,
    action: Action,
) -> Result<Verdict, BusError> {
    let subject = (
        "system-bus-name",
        HashMap::from([("name", Value::from(client.name().as_str()))]),
    );
    let flags = if header
        .primary()
        .flags()
        .contains(Flags::AllowInteractiveAuth)
    {
        INTERACTIVE
    } else {
        0
    };
    let asked = authority.check_authorization(&subject, action.id(), HashMap::new(), flags, "");
    match client.wait(AUTHENTICATION_TIME, asked).await? {
        Ok((true, ..)) => Ok(Verdict::Yes),
        Ok((false, challenge, _)) => Ok(if challenge && flags == 0 {
            Verdict::Challenge
        } else {
            Verdict::No
        }),
        Err(error) if is_away(&error) => Ok(Verdict::Away),
        // One that runs and fails allows nothing.
        Err(error) => Err(BusError::NotAuthorized(format!(
            "polkit could not be asked for {}: {error}",
            action.id()
        ))),
    }
}

/// Nobody has polkit's name, and nobody can be started to have it.
fn is_away(error: &zbus::Error) -> bool {
    const AWAY: [&str; 2] = [
        "org.freedesktop.DBus.Error.ServiceUnknown",
        "org.freedesktop.DBus.Error.NameHasNoOwner",
    ];
    const NOT_STARTED: &str = "org.freedesktop.DBus.Error.Spawn.";
    matches!(error, zbus::Error::MethodError(name, ..) if AWAY.contains(&name.as_str()) || name.starts_with(NOT_STARTED))
}
