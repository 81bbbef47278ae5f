//! The service from the other side: what a program written in Rust calls.
//!
//! Set the option `timeout` where a model may have to be loaded first; [`zbus`] has no time limit
//! of its own.

use std::collections::HashMap;

use zbus::proxy;
use zbus::zvariant::{OwnedFd, OwnedObjectPath, OwnedValue, Value};

/// Options of a call. The interface's XML says which there are.
pub type Options<'a> = HashMap<&'a str, Value<'a>>;

/// The service as a whole.
#[proxy(
    interface = "org.gemmad.Gemmad1.Manager",
    default_service = "org.gemmad.Gemmad1",
    default_path = "/org/gemmad/Gemmad1"
)]
pub trait Manager {
    fn list_models(&self) -> zbus::Result<Vec<HashMap<String, OwnedValue>>>;
    fn list_catalog(&self) -> zbus::Result<String>;
    fn list_devices(&self) -> zbus::Result<String>;
    fn find_model(&self, name: &str) -> zbus::Result<HashMap<String, OwnedValue>>;
    fn describe(&self) -> zbus::Result<String>;
    /// polkit may ask the user for a password.
    #[zbus(allow_interactive_auth)]
    fn load(&self, model: &str, options: Options<'_>) -> zbus::Result<String>;
    /// As for `load`.
    #[zbus(allow_interactive_auth)]
    fn unload(&self, options: Options<'_>) -> zbus::Result<()>;
    fn plan(&self, options: Options<'_>) -> zbus::Result<String>;
    fn ask(&self, prompt: &str, options: Options<'_>) -> zbus::Result<String>;
    fn chat(&self, request: &str, options: Options<'_>) -> zbus::Result<String>;
    fn open_stream(
        &self,
        request: &str,
        options: Options<'_>,
    ) -> zbus::Result<(OwnedObjectPath, OwnedFd)>;
    fn open_conversation(&self, options: Options<'_>) -> zbus::Result<OwnedObjectPath>;
    #[zbus(signal)]
    fn progress(&self, name: &str, progress: HashMap<String, OwnedValue>) -> zbus::Result<()>;
    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn state(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn model(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn variant(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn context(&self) -> zbus::Result<u32>;
    #[zbus(property(emits_changed_signal = "const"))]
    fn device(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn pressure(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn queue_length(&self) -> zbus::Result<u32>;
    #[zbus(property)]
    fn tokens_per_second(&self) -> zbus::Result<f64>;
    #[zbus(property(emits_changed_signal = "invalidates"))]
    fn memory_used(&self) -> zbus::Result<u64>;
    #[zbus(property(emits_changed_signal = "invalidates"))]
    fn memory_budget(&self) -> zbus::Result<u64>;
}

/// Which models are installed. Downloading, installing and deleting are for administrators; polkit
/// may ask the user for a password.
#[proxy(
    interface = "org.gemmad.Gemmad1.Models",
    default_service = "org.gemmad.Gemmad1",
    default_path = "/org/gemmad/Gemmad1"
)]
pub trait Models {
    #[zbus(allow_interactive_auth)]
    fn pull(&self, model: &str, options: Options<'_>) -> zbus::Result<OwnedObjectPath>;
    #[zbus(allow_interactive_auth)]
    fn plan_pull(&self, model: &str, options: Options<'_>) -> zbus::Result<String>;
    #[zbus(allow_interactive_auth)]
    fn list_pulls(&self) -> zbus::Result<String>;
    #[zbus(allow_interactive_auth)]
    fn cancel_pull(&self, id: &str) -> zbus::Result<()>;
    #[zbus(allow_interactive_auth)]
    fn import(&self, name: &str, file: OwnedFd, options: Options<'_>) -> zbus::Result<String>;
    #[zbus(allow_interactive_auth)]
    fn remove(&self, id: &str) -> zbus::Result<String>;
    #[zbus(allow_interactive_auth)]
    fn verify(&self, model: &str, options: Options<'_>) -> zbus::Result<String>;

    fn prune(&self, options: Options<'_>) -> zbus::Result<String>;
}

/// A model that is being downloaded.
#[proxy(
    interface = "org.gemmad.Gemmad1.Download",
    default_service = "org.gemmad.Gemmad1"
)]
pub trait Download {
    #[zbus(allow_interactive_auth)]
    fn cancel(&self) -> zbus::Result<()>;
    #[zbus(property(emits_changed_signal = "const"))]
    fn id(&self) -> zbus::Result<String>;
    #[zbus(property(emits_changed_signal = "const"))]
    fn model(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn state(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn error(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn received(&self) -> zbus::Result<u64>;
    #[zbus(property)]
    fn total(&self) -> zbus::Result<u64>;
    #[zbus(property)]
    fn speed(&self) -> zbus::Result<u64>;
    #[zbus(signal)]
    fn finished(&self, state: &str, error: &str) -> zbus::Result<()>;
}

/// What is the caller's own.
#[proxy(
    interface = "org.gemmad.Gemmad1.Account",
    default_service = "org.gemmad.Gemmad1",
    default_path = "/org/gemmad/Gemmad1"
)]
pub trait Account {
    #[zbus(allow_interactive_auth)]
    fn issue_token(&self, options: Options<'_>) -> zbus::Result<(String, String)>;
    #[zbus(allow_interactive_auth)]
    fn list_tokens(&self) -> zbus::Result<String>;
    #[zbus(allow_interactive_auth)]
    fn revoke_token(&self, id: &str) -> zbus::Result<()>;
    fn get_usage(&self) -> zbus::Result<String>;
}

/// An answer on its way.
#[proxy(
    interface = "org.gemmad.Gemmad1.Stream",
    default_service = "org.gemmad.Gemmad1"
)]
pub trait Stream {
    fn cancel(&self) -> zbus::Result<()>;
}

/// A conversation that the service keeps.
#[proxy(
    interface = "org.gemmad.Gemmad1.Conversation",
    default_service = "org.gemmad.Gemmad1"
)]
pub trait Conversation {
    fn send(&self, text: &str, options: Options<'_>) -> zbus::Result<String>;
    fn history(&self) -> zbus::Result<String>;
    fn close(&self) -> zbus::Result<()>;
    #[zbus(property(emits_changed_signal = "const"))]
    fn model(&self) -> zbus::Result<String>;
    #[zbus(signal)]
    fn answered(&self, messages: u32) -> zbus::Result<()>;
}
