//! What gemmactl asks of the daemon, whichever way it is reached: `http` or `over_bus`.

use std::path::Path;
use std::pin::Pin;

use serde_json::Value;

use super::bar::Bar;
use super::error::Error;
use super::upload::Form;

/// What will come of a call. Dropping it hangs up.
pub type Reply<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + 'a>>;

/// The daemon. A call fails when the daemon cannot be reached, refuses, or breaks off.
pub trait Client {
    /// What the daemon is doing, as in `GET /status`.
    fn status(&self) -> Reply<'_, Value>;

    /// The installed models, as in `GET /v1/models`.
    fn models(&self) -> Reply<'_, Value>;

    /// What could be had, as `catalog` in `GET /v1/models?catalog=1`.
    fn catalog(&self) -> Reply<'_, Value>;

    /// The model that a name means, as in `GET /v1/models/NAME`.
    fn model<'a>(&'a self, name: &'a str) -> Reply<'a, Value>;

    /// All that there is to know of it, as in `GET /v1/models/NAME?details=1`; over D-Bus no more than `model`.
    fn details<'a>(&'a self, name: &'a str) -> Reply<'a, Value> {
        self.model(name)
    }

    /// What each model would take, as in `GET /memory/plan`: for one context in tokens, and as if
    /// so many bytes were free, where given.
    fn plan(&self, context: Option<u32>, ram: Option<u64>) -> Reply<'_, Value>;

    /// Loads a model and returns its id once it is up.
    fn load<'a>(&'a self, model: &'a str) -> Reply<'a, String>;

    /// Unloads the model; its memory is free when this returns.
    fn unload(&self) -> Reply<'_, ()>;

    /// The whole answer to a request of `POST /v1/chat/completions`.
    fn chat<'a>(&'a self, request: &'a Value) -> Reply<'a, Value>;

    /// What the model would get, as `POST /v1/chat/completions/input` says it.
    fn input<'a>(&'a self, _request: &'a Value) -> Reply<'a, Value> {
        not_served()
    }

    /// The answer to a request of `POST /v1/chat/completions` as it comes.
    fn stream<'a>(&'a self, request: &'a Value) -> Reply<'a, Box<dyn Events>>;

    /// A text gone on with, as `POST /completion` streams it.
    fn completion<'a>(&'a self, _request: &'a Value) -> Reply<'a, Box<dyn Events>> {
        Box::pin(async { Err(not_on_bus()) })
    }

    /// The tokens of a text, as `POST /tokenize` says them.
    fn tokenize<'a>(&'a self, _request: &'a Value) -> Reply<'a, Value> {
        not_served()
    }

    /// A sound written down, as `POST /v1/audio/transcriptions` streams it.
    fn transcribe(&self, _form: Form) -> Reply<'_, Box<dyn Events>> {
        Box::pin(async { Err(not_on_bus()) })
    }

    /// The same when all was heard.
    fn transcript(&self, _form: Form) -> Reply<'_, String> {
        Box::pin(async { Err(not_on_bus()) })
    }

    /// Takes a model away, as `DELETE /v1/models/ID`.
    fn remove<'a>(&'a self, _id: &'a str) -> Reply<'a, Value> {
        not_served()
    }

    /// Hashes a model's files, as `POST /models/verify`; the last event says what came of it.
    fn verify<'a>(&'a self, _model: &'a str) -> Reply<'a, Box<dyn Events>> {
        Box::pin(async { Err(not_on_bus()) })
    }

    /// Deletes what serves no installed model, or says what that would be, as `POST /models/prune`.
    fn prune(&self, _dry_run: bool) -> Reply<'_, Value> {
        not_served()
    }

    /// Sends a file, as `POST /models/import`, and shows how far that is.
    fn import<'a>(
        &'a self,
        _folder: Option<&'a str>,
        _name: &'a str,
        _file: &'a Path,
        _bar: &'a Bar,
    ) -> Reply<'a, Value> {
        not_served()
    }

    /// What is in memory, as in `GET /memory`.
    fn memory(&self) -> Reply<'_, Value> {
        not_served()
    }

    /// What a pull would fetch, as `POST /v1/models/pull` says it.
    fn pull_plan<'a>(&'a self, _request: &'a Value) -> Reply<'a, Value> {
        not_served()
    }

    /// Fetches a model, as `POST /v1/models/pull` does, and tells how far it is.
    fn pull_events<'a>(&'a self, _request: &'a Value) -> Reply<'a, Box<dyn Events>> {
        Box::pin(async { Err(not_on_bus()) })
    }

    /// What is being fetched, as in `GET /v1/models/pulls`.
    fn pulls(&self) -> Reply<'_, Value> {
        not_served()
    }

    /// Stops a download, as `POST /v1/models/pulls/ID/cancel` does.
    fn cancel_pull<'a>(&'a self, _id: &'a str) -> Reply<'a, Value> {
        not_served()
    }

    /// Makes a token, as `POST /tokens`.
    fn issue_token<'a>(&'a self, _order: &'a Value) -> Reply<'a, Value> {
        not_served()
    }

    /// The tokens, as in `GET /tokens`.
    fn tokens(&self) -> Reply<'_, Value> {
        not_served()
    }

    /// What was used each day, as in `GET /usage`.
    fn usage(&self) -> Reply<'_, Value> {
        not_served()
    }

    /// Ends tokens, as `POST /tokens/revoke`.
    fn revoke_tokens<'a>(&'a self, _which: &'a Value) -> Reply<'a, Value> {
        not_served()
    }

    /// Has tokens signed with a new key, as `POST /tokens/rotate`.
    fn rotate_tokens(&self) -> Reply<'_, Value> {
        not_served()
    }

    /// What there is to compute on, as in `GET /devices`.
    fn devices(&self) -> Reply<'_, Value> {
        not_served()
    }

    /// The packed weights and prompts on the disk, as in `GET /cache`.
    fn packed_weights(&self) -> Reply<'_, Value> {
        not_served()
    }

    /// Removes the packed weights, as `POST /cache/clear`.
    fn clear_packed_weights(&self) -> Reply<'_, Value> {
        not_served()
    }

    /// Forgets the caller's prompts, or everybody's, as `POST /cache/prompts/clear`.
    fn clear_prompts(&self, _all: bool) -> Reply<'_, Value> {
        not_served()
    }
}

fn not_served<'a>() -> Reply<'a, Value> {
    Box::pin(async { Err(not_on_bus()) })
}

pub fn not_on_bus() -> Error {
    Error::Usage("this is not served over D-Bus; leave --bus out".into())
}

/// The events of an answer on their way. Dropping it hangs up.
pub trait Events {
    /// The data of the next event; `None` when the stream has ended. Nothing is lost when the
    /// future is dropped. Fails with `Broken` when the connection or the stream breaks.
    fn next(&mut self) -> Reply<'_, Option<String>>;
}
