//! `org.gemmad.Gemmad1.Manager`: the service as a whole.

use std::collections::HashMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use zbus::message::Header;
use zbus::object_server::SignalEmitter;
use zbus::zvariant::{OwnedFd, OwnedObjectPath, OwnedValue, Value};
use zbus::{Connection, interface};

use super::ask::timeout_of;
use super::error::BusError;
use super::options::Options;
use super::polkit::Action;
use super::progress::{Listener, Said};
use super::properties::Properties;
use super::{Shared, conversation, stream};
use crate::api::native;
use crate::api::native::plan::{CONTEXTS, RAMS};
use crate::backend::{ModelInfo, Phase};
use crate::chat::Modalities;

/// Everybody on the bus may read properties, and only what the worker says is dear: it is asked
/// once in this time at most.
const MEMORY_AGE: Duration = Duration::from_secs(1);
/// How long such a read waits for the worker; then it is told what is known.
const MEMORY_WAIT: Duration = Duration::from_secs(1);

pub struct Manager(Arc<Shared>);

/// What was said last of the memory.
#[derive(Clone, Debug, Default)]
pub(super) struct MemoryRead {
    at: Option<Instant>,
    /// What the daemon was doing then.
    phase: Option<Phase>,
    /// Bytes that the worker has.
    used: u64,
    /// Bytes that are free.
    available: u64,
}

impl Manager {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    fn now(&self) -> Properties {
        Properties::of(&self.0.backends.local().status())
    }
}

#[interface(name = "org.gemmad.Gemmad1.Manager")]
impl Manager {
    /// Installed models: id, file, variant, quantization (s), size (t), context-limit (u), loaded,
    /// default, sees, hears, drafter (b).
    #[zbus(out_args("models"))]
    fn list_models(&self) -> Vec<HashMap<&'static str, OwnedValue>> {
        let status = self.0.backends.local().status();
        let describe = |model: &ModelInfo| {
            let is = |id: Option<&str>| id == Some(model.id.as_str());
            describe(model, is(status.loaded()), is(status.default.as_deref()))
        };
        status.models.iter().map(describe).collect()
    }

    /// What could be had, and what it would take here, as the JSON of `catalog` in `GET /v1/models?catalog=1`.
    #[zbus(out_args("catalog"))]
    async fn list_catalog(&self, #[zbus(header)] header: Header<'_>) -> Result<String, BusError> {
        let _client = self.0.admit(&header).await?;
        let catalog = self.0.backends.local().catalog().await?;
        Ok(native::catalog::json(catalog))
    }

    /// GPUs and other devices that installed backends find, as the JSON of `GET /devices`. Drivers are
    /// asked, which may take longer than a library waits.
    #[zbus(out_args("devices"))]
    async fn list_devices(&self, #[zbus(header)] header: Header<'_>) -> Result<String, BusError> {
        let _client = self.0.admit(&header).await?;
        Ok(native::devices::json(
            self.0.backends.local().devices().await?,
        ))
    }

    /// The installed model that a name means now (an id, a variant, `auto`), as in ListModels.
    #[zbus(out_args("model"))]
    async fn find_model(
        &self,
        #[zbus(header)] header: Header<'_>,
        name: &str,
    ) -> Result<HashMap<&'static str, OwnedValue>, BusError> {
        let _client = self.0.admit(&header).await?;
        let local = self.0.backends.local();
        let model = local.find(name, Modalities::default()).await?.model;
        let status = local.status();
        let is = |id: Option<&str>| id == Some(model.id.as_str());
        Ok(describe(
            &model,
            is(status.loaded()),
            is(status.default.as_deref()),
        ))
    }

    /// What the daemon is doing, as the JSON of `GET /status`.
    #[zbus(out_args("status"))]
    async fn describe(&self, #[zbus(header)] header: Header<'_>) -> String {
        let viewer = self.0.viewer(&header).await;
        native::status::describe(&self.0.backends, &self.0.admission, viewer)
    }

    /// Loads a model (`auto`: the best one) and returns its id when it is up. Options: timeout (u),
    /// as for Ask; the model goes on loading when the time is over. State says how far it is. For
    /// administrators.
    #[zbus(out_args("id"))]
    async fn load(
        &self,
        #[zbus(header)] header: Header<'_>,
        model: &str,
        options: HashMap<String, OwnedValue>,
    ) -> Result<String, BusError> {
        let client = self.0.admit_for(&header, Action::Load).await?;
        let mut options = Options::new(options);
        let timeout = timeout_of(&mut options)?;
        options.finish()?;
        Ok(client
            .wait(
                timeout,
                self.0.backends.local().load(client.caller.id(), model),
            )
            .await??
            .id)
    }

    /// Ends the worker once it is idle; every byte it had is back when this returns. Options:
    /// timeout (u). For administrators.
    async fn unload(
        &self,
        #[zbus(header)] header: Header<'_>,
        options: HashMap<String, OwnedValue>,
    ) -> Result<(), BusError> {
        let client = self.0.admit_for(&header, Action::Load).await?;
        let mut options = Options::new(options);
        let timeout = timeout_of(&mut options)?;
        options.finish()?;
        Ok(client
            .wait(timeout, self.0.backends.local().unload())
            .await??)
    }

    /// What each model would take, as the JSON of `GET /memory/plan`. Options: context (u), for one
    /// context instead of several; ram (t), as if so many bytes were free.
    #[zbus(out_args("plan"))]
    async fn plan(
        &self,
        #[zbus(header)] header: Header<'_>,
        options: HashMap<String, OwnedValue>,
    ) -> Result<String, BusError> {
        let _client = self.0.admit(&header).await?;
        let mut options = Options::new(options);
        let (context, ram) = (options.count("context")?, options.size("ram")?);
        options.finish()?;
        in_range("context", context, CONTEXTS)?;
        in_range("ram", ram, RAMS)?;
        Ok(native::plan::json(
            &self.0.backends.local().plan(context, ram).await?,
        ))
    }

    /// Answers a question with a text. Options: model, system (s), max-tokens, seed (u),
    /// temperature (d), thinking (b), speculation (s: auto, on or off), prompt-cache-retention (s:
    /// in_memory or 24h), service-tier (s: default or flex), images, sounds, files (ah), progress (s:
    /// a name for this call, under which Progress tells how far it is), and timeout (u): the seconds
    /// after which the call fails, 20 unless given. A model may have to be loaded first, which takes
    /// longer: then give more, and have your library wait as long.
    #[zbus(out_args("answer"))]
    async fn ask(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
        prompt: &str,
        options: HashMap<String, OwnedValue>,
    ) -> Result<String, BusError> {
        let client = self.0.admit(&header).await?;
        let mut options = Options::new(options);
        let listener = Listener::take(&mut options, connection, client.name())?;
        let asked = self.0.question(client, prompt, options).await?;
        Ok(self
            .0
            .complete(asked, listener)
            .await?
            .completion
            .into_content())
    }

    /// Answers a request of `POST /v1/chat/completions` with a `chat.completion`, both JSON.
    /// Options: files (ah), which the request names "fd:0", "fd:1" and so on where it would have a
    /// data URL or base64; progress (s) and timeout (u), as for Ask.
    #[zbus(out_args("completion"))]
    async fn chat(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
        request: &str,
        options: HashMap<String, OwnedValue>,
    ) -> Result<String, BusError> {
        let client = self.0.admit(&header).await?;
        let mut options = Options::new(options);
        let listener = Listener::take(&mut options, connection, client.name())?;
        let asked = self.0.request(client, request, options).await?;
        Ok(self.0.complete(asked, listener).await?.json())
    }

    /// Takes the request of Chat and returns at once with an object and a socket, on which the
    /// answer comes as lines of JSON (`chat.completion.chunk`; `error`, if it fails), and then its
    /// end. With `"stream": true` and `"stream_options": {"include_progress": true}` lines before
    /// the answer have a `progress`: how far the request is. Closing the socket, or Cancel on the
    /// object, ends the answer. Options: files (ah), as for Chat.
    #[zbus(out_args("stream", "socket"))]
    async fn open_stream(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
        request: &str,
        options: HashMap<String, OwnedValue>,
    ) -> Result<(OwnedObjectPath, OwnedFd), BusError> {
        let client = self.0.admit(&header).await?;
        let options = Options::new(options);
        let asked = self.0.request(client, request, options).await?;
        stream::open(&self.0, connection, asked).await
    }

    /// Begins a conversation that the daemon keeps until Close, or until its caller leaves the bus.
    /// Options, for all of it: those of Ask but images, sounds, files and timeout.
    #[zbus(out_args("conversation"))]
    async fn open_conversation(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
        options: HashMap<String, OwnedValue>,
    ) -> Result<OwnedObjectPath, BusError> {
        let client = self.0.admit(&header).await?;
        conversation::open(&self.0, connection, client, options).await
    }

    /// How far a call with the option progress is, of this or another interface, to its caller alone:
    /// when a stage begins, and four times a second at most while it lasts. Phase (s) is fetching, with
    /// received and bytes (t), queued, with position (u), loading, with share (d, from 0 to 1), or reading,
    /// with tokens-read, tokens-to-read and tokens-cached (u); seconds-left (d) is an estimate. What is not known is left out.
    #[zbus(signal)]
    pub(super) async fn progress(
        emitter: &SignalEmitter<'_>,
        name: &str,
        progress: Said,
    ) -> zbus::Result<()>;

    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> &'static str {
        env!("CARGO_PKG_VERSION")
    }

    /// cold, loading, ready, unloading, backing_off or draining.
    #[zbus(property)]
    fn state(&self) -> &'static str {
        self.now().state
    }

    /// The id of the model that the state is about; empty if there is none.
    #[zbus(property)]
    fn model(&self) -> String {
        self.now().model
    }

    /// Its member of the family.
    #[zbus(property)]
    fn variant(&self) -> String {
        self.now().variant
    }

    /// Tokens of context for each request; 0 while no model is ready.
    #[zbus(property)]
    fn context(&self) -> u32 {
        self.now().context
    }

    /// What computes.
    #[zbus(property(emits_changed_signal = "const"))]
    fn device(&self) -> &'static str {
        "cpu"
    }

    /// What is done about memory that runs short: calm, eased or shrinking.
    #[zbus(property)]
    fn pressure(&self) -> &'static str {
        self.now().pressure
    }

    /// Requests that wait for their turn.
    #[zbus(property)]
    fn queue_length(&self) -> u32 {
        self.now().waiting
    }

    /// Tokens per second of the answer that ended last; 0 before the first.
    #[zbus(property)]
    fn tokens_per_second(&self) -> f64 {
        self.now().tokens_per_second
    }

    /// Bytes that the worker has in memory. Invalidated with each change of the state; it changes
    /// in between as well.
    #[zbus(property(emits_changed_signal = "invalidates"))]
    async fn memory_used(&self) -> u64 {
        self.0.memory().await.used
    }

    /// Bytes that it could have without swapping: what it has, and what is free. Invalidated like
    /// MemoryUsed.
    #[zbus(property(emits_changed_signal = "invalidates"))]
    async fn memory_budget(&self) -> u64 {
        let memory = self.0.memory().await;
        memory.used + memory.available
    }
}

impl Shared {
    /// What the worker has, and what is free, as it was a moment ago.
    async fn memory(&self) -> MemoryRead {
        let mut known = self.memory_read.lock().await;
        let phase = Some(self.backends.local().status().phase);
        let is_fresh = known.at.is_some_and(|at| at.elapsed() < MEMORY_AGE);
        if is_fresh && known.phase == phase {
            return known.clone();
        }
        let read = tokio::time::timeout(MEMORY_WAIT, self.backends.local().memory());
        if let Ok(report) = read.await {
            known.available = report.available;
            known.used = report
                .worker
                .ok()
                .flatten()
                .map_or(0, |worker| worker.resident());
        }
        (known.at, known.phase) = (Some(Instant::now()), phase);
        known.clone()
    }
}

fn in_range<N: PartialOrd + Display>(
    option: &str,
    value: Option<N>,
    range: RangeInclusive<N>,
) -> Result<(), BusError> {
    if value.is_none_or(|value| range.contains(&value)) {
        return Ok(());
    }
    Err(BusError::InvalidRequest(format!(
        "option `{option}` must be from {} to {}",
        range.start(),
        range.end()
    )))
}

fn describe(model: &ModelInfo, loaded: bool, default: bool) -> HashMap<&'static str, OwnedValue> {
    let fields: [(&str, Value<'_>); 11] = [
        ("id", model.id.as_str().into()),
        ("file", model.file.as_str().into()),
        ("variant", model.variant.id().into()),
        ("quantization", model.quantization.as_str().into()),
        ("size", model.size.into()),
        ("context-limit", model.context_limit.into()),
        ("loaded", loaded.into()),
        ("default", default.into()),
        ("sees", model.modalities.image.into()),
        ("hears", model.modalities.audio.into()),
        ("drafter", model.drafter.into()),
    ];
    // Only descriptors can fail to be copied.
    fields
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.try_into().ok()?)))
        .collect()
}
