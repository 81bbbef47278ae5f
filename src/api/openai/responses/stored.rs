//! What of a response is kept.

use std::sync::Arc;

use axum::body::Bytes;
use tokio::sync::{Notify, watch};

use crate::api::openai::responses::event_log::EventLog;
use crate::api::openai::responses::items::Item;
use crate::api::store::Storable;
use crate::chat::Message;

/// A kept response.
#[derive(Clone, Debug)]
pub struct StoredResponse {
    pub id: String,
    /// The response as it is sent, shared by all who read it.
    pub json: Bytes,
    /// What was sent for it.
    pub input: Arc<[Item]>,
    /// Everything up to its answer, shared by all states of the response.
    pub before: Arc<[Message]>,
    /// Its answer. With what was before it, what a next response goes on from.
    pub turn: Arc<Message>,
    /// Whether it is made in the background, and by what.
    pub job: Option<Arc<Job>>,
}

/// The making of a response in the background.
#[derive(Debug)]
pub struct Job {
    /// Tells it to stop.
    pub cancel: Notify,
    /// Becomes true when the response will not change any more.
    pub ended: watch::Sender<bool>,
    /// Its events, if they were asked for.
    pub events: Option<Arc<EventLog>>,
}

impl StoredResponse {
    /// What a next response goes on from.
    pub fn conversation(&self) -> impl Iterator<Item = &Message> {
        self.before.iter().chain([&*self.turn])
    }

    /// Its events, if it keeps them.
    pub fn events(&self) -> Option<&Arc<EventLog>> {
        self.job.as_ref()?.events.as_ref()
    }
}

impl Storable for StoredResponse {
    fn id(&self) -> &str {
        &self.id
    }

    fn bytes(&self) -> u64 {
        let items = self
            .input
            .iter()
            .map(|item| item.json.len() + item.id.len());
        let events = self.events().map_or(0, |events| events.bytes());
        (self.json.len()
            + items.sum::<usize>()
            + events
            + self.conversation().map(Message::bytes).sum::<usize>()) as u64
    }

    /// Ends the job that makes it, and those who read its events.
    fn cancel(&self) {
        if let Some(events) = self.events() {
            events.forget();
        }
        self.job.iter().for_each(|job| job.cancel.notify_one());
    }
}
