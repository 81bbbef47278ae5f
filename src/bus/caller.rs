//! Who calls, as the bus says, and whether they may.

use zbus::message::Header;
use zbus::names::BusName;

use super::Shared;
use super::client::Client;
use super::error::BusError;
use super::polkit::{self, Action, Verdict};
use crate::access::Caller;
use crate::api::native::status::Viewer;

impl Shared {
    /// Lets in whoever sent the message with this header, if they may ask.
    pub async fn admit(&self, header: &Header<'_>) -> Result<Client, BusError> {
        self.admit_as(header, Action::Infer).await
    }

    /// Lets in whoever sent the message with this header, for what is everybody's unless polkit says otherwise.
    pub async fn admit_as(&self, header: &Header<'_>, action: Action) -> Result<Client, BusError> {
        let client = self.identify(header).await?;
        if self.admission.may_administer(&client.caller.principal) {
            return Ok(client);
        }
        match polkit::verdict(&self.polkit, &client, header, action).await? {
            // Without polkit everyone may whom the bus lets call.
            Verdict::Yes | Verdict::Away => Ok(client),
            Verdict::No | Verdict::Challenge => Err(BusError::NotAuthorized(format!(
                "polkit does not let user {} {}; an administrator can, with a rule for {} (see polkit(8))",
                client.caller.id(),
                action.what(),
                action.id()
            ))),
        }
    }

    /// Lets in whoever sent the message with this header, for what is for administrators.
    pub async fn admit_for(&self, header: &Header<'_>, action: Action) -> Result<Client, BusError> {
        let client = self.identify(header).await?;
        self.authorize(client, header, action).await
    }

    /// Refuses who is no administrator, unless polkit lets them do this.
    pub async fn authorize(
        &self,
        client: Client,
        header: &Header<'_>,
        action: Action,
    ) -> Result<Client, BusError> {
        if self.admission.may_administer(&client.caller.principal) {
            return Ok(client);
        }
        let remedy = match polkit::verdict(&self.polkit, &client, header, action).await? {
            Verdict::Yes => return Ok(client),
            Verdict::No | Verdict::Away => "",
            Verdict::Challenge => {
                "; polkit would ask for a password if the call allowed interactive authorization"
            }
        };
        Err(BusError::NotAuthorized(format!(
            "this is for administrators, and user {} is none; `admins` and `admin-groups` under [access] in gemmad.toml name them, \
             and rules of polkit for {}{remedy}",
            client.caller.id(),
            action.id()
        )))
    }

    /// Whose requests in the queue the sender of this message is shown.
    pub async fn viewer(&self, header: &Header<'_>) -> Viewer {
        match self.identify(header).await {
            Ok(client) => Viewer::of(&client.caller, &self.admission),
            Err(_) => Viewer::Stranger,
        }
    }

    /// Who sent the message with this header. It counts as one thing more that is open.
    pub async fn identify(&self, header: &Header<'_>) -> Result<Client, BusError> {
        let unknown =
            || BusError::NotAuthorized("the bus does not say which user you are".to_owned());
        let name = header.sender().ok_or_else(unknown)?.to_owned();
        // First, so that no end is missed.
        let stays = self.names.subscribe(&name);
        let credentials = self
            .bus
            .get_connection_credentials(BusName::Unique(name.clone()))
            .await
            .map_err(|_| unknown());
        let admitted = credentials.and_then(|credentials| {
            let uid = credentials.unix_user_id().ok_or_else(unknown)?;
            // Older buses do not say.
            let groups = credentials
                .unix_group_ids()
                .map(|groups| groups.as_slice())
                .unwrap_or_default()
                .into();
            let principal = self.admission.principal(uid, groups);
            if self.admission.is_gateway(&principal) {
                return Err(BusError::NotAuthorized(
                    "the gateway's user speaks for others, on the socket".to_owned(),
                ));
            }
            let pid = credentials
                .process_id()
                .and_then(|pid| i32::try_from(pid).ok());
            let mut share = self.admission.share(&self.open, &principal);
            share.grow(1).map_err(BusError::open)?;
            Ok((Caller { principal, pid }, share))
        });
        match admitted {
            Ok((caller, share)) => {
                tracing::debug!(
                    uid = %caller.id(),
                    pid = caller.pid,
                    call = header.member().map_or("", |member| member.as_str())
                );
                Ok(Client::new(caller, name, self.names.clone(), stays, share))
            }
            Err(error) => {
                self.names.forget(&name);
                Err(error)
            }
        }
    }
}
