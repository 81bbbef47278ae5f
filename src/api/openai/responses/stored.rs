//! What of a response is kept.

use std::sync::Arc;

use tokio::sync::{Notify, watch};

use crate::api::openai::responses::items::Item;
use crate::api::store::Storable;
use crate::chat::{Message, Part};

/// A kept response.
#[derive(Clone, Debug)]
pub struct StoredResponse {
    pub id: String,
    /// The response as it is sent.
    pub json: String,
    /// What was sent for it.
    pub input: Arc<[Item]>,
    /// Everything up to and with its answer: what a next response goes on from.
    pub conversation: Arc<[Message]>,
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
}

impl Storable for StoredResponse {
    fn id(&self) -> &str {
        &self.id
    }

    fn bytes(&self) -> u64 {
        let message = |message: &Message| {
            let calls = message
                .tool_calls
                .iter()
                .map(|call| call.name.len() + call.arguments.len() + call.id.len());
            size_of::<Message>()
                + message.content.iter().map(Part::bytes).sum::<usize>()
                + calls.sum::<usize>()
                + message.reasoning.as_ref().map_or(0, String::len)
        };
        let items = self
            .input
            .iter()
            .map(|item| item.json.len() + item.id.len());
        (self.json.len()
            + items.sum::<usize>()
            + self.conversation.iter().map(message).sum::<usize>()) as u64
    }

    /// Ends the job that makes it.
    fn cancel(&self) {
        self.job.iter().for_each(|job| job.cancel.notify_one());
    }
}
