//! Telling a caller how far its call is: by a signal of the manager to that caller alone, under the
//! name that it gave the call.

use std::collections::HashMap;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use zbus::Connection;
use zbus::names::UniqueName;
use zbus::object_server::SignalEmitter;
use zbus::zvariant::Value;

use super::PATH;
use super::error::BusError;
use super::manager::Manager;
use super::options::Options;
use crate::api::telling::News;
use crate::chat::{Stage, Waiting};

/// Bytes of a call's name.
const MAX_NAME: usize = 128;

/// What a signal says.
pub type Said = HashMap<&'static str, Value<'static>>;

/// A caller who wants to be told.
pub struct Listener {
    /// What the caller calls the call.
    name: String,
    emitter: SignalEmitter<'static>,
}

impl Listener {
    /// Takes the option `progress` (`s`), the call's name.
    pub fn take(
        options: &mut Options,
        connection: &Connection,
        caller: &UniqueName<'static>,
    ) -> Result<Option<Self>, BusError> {
        let Some(name) = options.text("progress")? else {
            return Ok(None);
        };
        if name.len() > MAX_NAME {
            return Err(BusError::InvalidRequest(format!(
                "option `progress` has {} bytes; a name has {MAX_NAME} at most",
                name.len()
            )));
        }
        // A signal to everybody would show others that there is a call.
        let emitter = SignalEmitter::new(connection, PATH)
            .map_err(BusError::ZBus)?
            .set_destination(caller.clone().into());
        Ok(Some(Self { name, emitter }))
    }

    async fn tell(&self, waiting: &Waiting) -> zbus::Result<()> {
        Manager::progress(&self.emitter, &self.name, said(waiting)).await
    }
}

/// Tells until it is stopped, or dropped because nobody waits any more.
pub struct Telling {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Telling {
    /// A task of its own tells: a call can be cancelled at any time, and half a message would spoil
    /// the connection.
    pub fn start(listener: Listener, waiting: watch::Receiver<Option<Waiting>>) -> Self {
        let (stop, mut stopped) = oneshot::channel();
        let mut news = News::new(waiting);
        let task = tokio::spawn(async move {
            loop {
                let (waiting, ended) = tokio::select! {
                    biased;
                    stopped = &mut stopped => (stopped.ok().and_then(|()| news.end()), true),
                    waiting = news.next() => (Some(waiting), false),
                };
                let told = match waiting {
                    Some(waiting) => listener.tell(&waiting).await,
                    None => Ok(()),
                };
                // An error: the bus is gone, and the caller with it.
                if ended || told.is_err() {
                    return;
                }
            }
        });
        Self { stop, task }
    }

    /// The answer is there. Nothing is told after this.
    pub async fn stop(self) {
        // It has ended by itself if nobody receives that.
        let _ = self.stop.send(());
        // It has no reason to panic, and there is nothing to tell of it.
        let _ = self.task.await;
    }
}

/// As HTTP's `progress`, in the words of the bus; what is not known is left out.
fn said(waiting: &Waiting) -> Said {
    let mut said = match waiting.stage {
        Stage::Fetching { received, bytes } => {
            let bytes = bytes.map(|bytes| ("bytes", bytes.into()));
            [("phase", "fetching".into()), ("received", received.into())]
                .into_iter()
                .chain(bytes)
                .collect()
        }
        Stage::Queued { position } => {
            Said::from([("phase", "queued".into()), ("position", position.into())])
        }
        Stage::Loading { share } => {
            let share = share.map(|share| ("share", f64::from(share).into()));
            [("phase", "loading".into())]
                .into_iter()
                .chain(share)
                .collect()
        }
        Stage::Reading(reading) => Said::from([
            ("phase", "reading".into()),
            ("tokens-read", reading.read().into()),
            ("tokens-to-read", reading.to_read().into()),
            ("tokens-cached", reading.cached.into()),
        ]),
    };
    if let Some(left) = waiting.left {
        said.insert("seconds-left", left.as_secs_f64().into());
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::Reading;
    use std::time::Duration;

    #[test]
    fn a_signal_says_what_is_known() {
        let told = |stage, left| said(&Waiting { stage, left });
        assert_eq!(
            told(Stage::Queued { position: 3 }, None),
            Said::from([("phase", "queued".into()), ("position", 3_u32.into())])
        );
        let second = Some(Duration::from_millis(1500));
        assert_eq!(
            told(Stage::Loading { share: Some(0.5) }, second),
            Said::from([
                ("phase", "loading".into()),
                ("share", 0.5.into()),
                ("seconds-left", 1.5.into())
            ])
        );
        assert_eq!(
            told(Stage::Loading { share: None }, None),
            Said::from([("phase", "loading".into())])
        );
        let reading = Reading {
            total: 100,
            cached: 20,
            done: 60,
            time_ms: 7,
        };
        assert_eq!(
            told(Stage::Reading(reading), None),
            Said::from([
                ("phase", "reading".into()),
                ("tokens-read", 40_u32.into()),
                ("tokens-to-read", 80_u32.into()),
                ("tokens-cached", 20_u32.into())
            ])
        );
    }
}
