//! `org.gemmad.Gemmad1.Conversation`: what was said, kept here for as long as its owner is on the
//! bus.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{Mutex, Notify};
use zbus::message::Header;
use zbus::object_server::SignalEmitter;
use zbus::zvariant::{OwnedObjectPath, OwnedValue};
use zbus::{Connection, fdo, interface};

use super::ask::{PassedFiles, timeout_of};
use super::client::Client;
use super::error::BusError;
use super::history::History;
use super::options::Options;
use super::progress::Listener;
use super::settings::Settings;
use super::{CLIENTS, Shared};
use crate::access::quota::Share;
use crate::api::id;
use crate::chat::{Message, Role};

pub struct Conversation {
    shared: Arc<Shared>,
    owner: Arc<Client>,
    settings: Settings,
    /// One turn at a time; others wait.
    said: Mutex<Said>,
    closing: Arc<Notify>,
}

struct Said {
    messages: Vec<Message>,
    /// The bytes of the messages.
    bytes: Share,
}

#[interface(name = "org.gemmad.Gemmad1.Conversation")]
impl Conversation {
    /// Says something and returns the model's answer; a turn that fails leaves no trace. Options:
    /// images, sounds, files (ah), progress (s) and timeout (u), as for Ask.
    #[zbus(out_args("answer"))]
    async fn send(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
        text: &str,
        options: HashMap<String, OwnedValue>,
    ) -> Result<String, BusError> {
        self.owner.is(&header)?;
        let client = self.shared.admit(&header).await?;
        let mut options = Options::new(options);
        let (files, timeout) = (PassedFiles::take(&mut options)?, timeout_of(&mut options)?);
        let listener = Listener::take(&mut options, emitter.connection(), client.name())?;
        options.finish()?;
        let mut said = client.wait(timeout, self.said.lock()).await?;
        let kept = self.shared.charge(&self.owner);
        let (turn, mut kept) = self.shared.turn(text, files, kept).await?;
        // Files are shared with what is kept; the rest is copied.
        let mut charge = self.shared.charge(&client);
        let all = || said.messages.iter().chain([&turn]);
        charge.take(all().map(Message::copied_bytes).sum())?;
        let messages = all().cloned().collect();
        let asked = self
            .shared
            .ask(client, &self.settings, messages, timeout, charge)
            .await?;
        let answered = self.shared.complete(asked, listener).await?;
        let answer = answered.completion.into_content();
        kept.take(answer.len())?;
        let reply = Message::text(Role::Assistant, answer.as_str());
        said.bytes.absorb(kept.into_share());
        said.messages.extend([turn, reply]);
        let messages = said.messages.len() as u32;
        drop(said);
        // To its owner alone.
        let emitter = emitter.set_destination(self.owner.name().clone().into());
        Self::answered(&emitter, messages)
            .await
            .map_err(BusError::ZBus)?;
        Ok(answer)
    }

    /// What was said, as the `messages` of a request.
    #[zbus(out_args("messages"))]
    async fn history(&self, #[zbus(header)] header: Header<'_>) -> Result<String, BusError> {
        self.owner.is(&header)?;
        let said = self.said.lock().await;
        let history = History(&said.messages);
        let bytes = history.bytes();
        let _charged = self.shared.answer_share(&self.owner, bytes)?;
        Ok(history.json(bytes))
    }

    /// Ends the conversation and forgets what was said.
    fn close(&self, #[zbus(header)] header: Header<'_>) -> Result<(), BusError> {
        self.owner.is(&header)?;
        self.closing.notify_one();
        Ok(())
    }

    /// The model that was asked for when it was opened. For its owner.
    #[zbus(property(emits_changed_signal = "const"))]
    fn model(&self, #[zbus(header)] header: Option<Header<'_>>) -> fdo::Result<String> {
        match header.filter(|header| self.owner.is(header).is_ok()) {
            Some(_) => Ok(self.settings.model().to_owned()),
            None => Err(fdo::Error::AccessDenied(
                "this conversation is another program's".to_owned(),
            )),
        }
    }

    /// A turn has ended; there are so many messages now.
    #[zbus(signal)]
    async fn answered(emitter: &SignalEmitter<'_>, messages: u32) -> zbus::Result<()>;
}

/// Begins one, to be ended by its owner, or when its owner leaves the bus.
pub async fn open(
    shared: &Arc<Shared>,
    connection: &Connection,
    owner: Client,
    options: HashMap<String, OwnedValue>,
) -> Result<OwnedObjectPath, BusError> {
    let mut options = Options::new(options);
    let (settings, system) = (Settings::take(&mut options)?, options.text("system")?);
    options.finish()?;
    let mut charge = shared.charge(&owner);
    charge.take(system.as_ref().map_or(0, String::len))?;
    let messages = system
        .into_iter()
        .map(|text| Message::text(Role::System, text))
        .collect();
    let bytes = charge.into_share();
    let path = format!("{CLIENTS}/{}", id::random("conversation_"));
    let path = OwnedObjectPath::try_from(path).map_err(zbus::Error::from)?;
    let (owner, closing) = (Arc::new(owner), Arc::new(Notify::new()));
    let said = Mutex::new(Said { messages, bytes });
    let conversation = Conversation {
        shared: shared.clone(),
        owner: owner.clone(),
        settings,
        said,
        closing: closing.clone(),
    };
    connection.object_server().at(&path, conversation).await?;
    let (connection, place) = (connection.clone(), path.clone());
    tokio::spawn(async move {
        tokio::select! {
            () = owner.gone() => {}
            () = closing.notified() => {}
        }
        let _ = connection
            .object_server()
            .remove::<Conversation, _>(place)
            .await;
    });
    Ok(path)
}
