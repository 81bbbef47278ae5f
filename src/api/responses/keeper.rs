//! From a finished response to the store.

use std::sync::Arc;

use super::draft::Draft;
use super::store::{Job, Kept};
use crate::api::render;
use crate::api::store::Store;
use crate::api::wire::responses::items::Item;
use crate::api::wire::responses::output::ResponseOut;
use crate::chat::Message;
use crate::chat::PrincipalId;

/// What has to be known to keep a response when it is complete.
#[derive(Clone)]
pub struct Keeper {
    pub store: Arc<Store<Kept>>,
    pub owner: PrincipalId,
    pub input: Arc<[Item]>,
    /// What came before the answer, instructions left out: they are for one response.
    pub conversation: Vec<Message>,
}

impl Keeper {
    /// Keeps a response with its answer.
    pub fn keep(self, draft: &Draft, response: &ResponseOut) {
        let kept = self.kept(draft, response, None);
        self.store.put(self.owner, kept);
    }

    /// Keeps a response that is not made yet.
    pub fn begin(&self, draft: &Draft, response: &ResponseOut, job: &Arc<Job>) {
        self.store
            .put(self.owner, self.kept(draft, response, Some(job.clone())));
    }

    /// Says how a response that is kept already stands now; `false` if nobody wants it any more.
    pub fn update(&self, draft: &Draft, response: &ResponseOut, job: &Arc<Job>) -> bool {
        self.store
            .replace(self.owner, self.kept(draft, response, Some(job.clone())))
    }

    fn kept(&self, draft: &Draft, response: &ResponseOut, job: Option<Arc<Job>>) -> Kept {
        let conversation = self
            .conversation
            .iter()
            .cloned()
            .chain([draft.turn()])
            .collect();
        Kept {
            id: draft.id.clone(),
            json: render(response),
            input: self.input.clone(),
            conversation,
            job,
        }
    }
}
