//! From a finished response to the store.

use std::sync::Arc;

use crate::api::openai::responses::draft::Draft;
use crate::api::openai::responses::items::Item;
use crate::api::openai::responses::response::ResponseOut;
use crate::api::openai::responses::stored::{Job, StoredResponse};
use crate::api::render;
use crate::api::store::Store;
use crate::chat::Message;
use crate::chat::PrincipalId;

/// What has to be known to keep a response when it is complete.
#[derive(Clone)]
pub struct Recorder {
    pub store: Arc<Store<StoredResponse>>,
    pub owner: PrincipalId,
    pub input: Arc<[Item]>,
    /// What came before the answer, instructions left out: they are for one response.
    pub conversation: Arc<[Message]>,
}

impl Recorder {
    /// Keeps a response with its answer.
    pub fn store(self, draft: &Draft, response: &ResponseOut) {
        let stored = self.stored(draft, response, None);
        self.store.put(self.owner, stored);
    }

    /// Keeps a response that is not made yet.
    pub fn begin(&self, draft: &Draft, response: &ResponseOut, job: &Arc<Job>) {
        self.store
            .put(self.owner, self.stored(draft, response, Some(job.clone())));
    }

    /// Says how a response that is kept already stands now; `false` if it was deleted meanwhile.
    pub fn update(&self, draft: &Draft, response: &ResponseOut, job: &Arc<Job>) -> bool {
        self.store
            .replace(self.owner, self.stored(draft, response, Some(job.clone())))
    }

    fn stored(
        &self,
        draft: &Draft,
        response: &ResponseOut,
        job: Option<Arc<Job>>,
    ) -> StoredResponse {
        StoredResponse {
            id: draft.id.clone(),
            json: render(response).into(),
            input: self.input.clone(),
            before: self.conversation.clone(),
            turn: Arc::new(draft.turn()),
            job,
        }
    }
}
