//! An engine whose driver is a test.

use tokio::sync::{mpsc, watch};

use super::{Answer, Command, Engine, Failure, HangUpGuard, Status};
use crate::chat::ChatEvent;

impl Engine {
    /// An engine, its commands, and the means to change its status.
    pub(crate) fn scripted(
        status: Status,
    ) -> (Self, mpsc::Receiver<Command>, watch::Sender<Status>) {
        let (commands, asked) = mpsc::channel(16);
        let (publish, status) = watch::channel(status);
        (Self { commands, status }, asked, publish)
    }
}

impl Answer {
    /// An answer whose events are sent by the test; the sender is closed when the answer is
    /// dropped.
    pub(crate) fn scripted(model: &str) -> (Self, mpsc::Sender<Result<ChatEvent, Failure>>) {
        let (send, events) = mpsc::channel(8);
        let (hang_ups, _) = mpsc::unbounded_channel();
        let (_, model) = watch::channel(model.to_owned());
        (
            Self {
                model,
                events,
                _guard: HangUpGuard {
                    request: 0,
                    hang_ups,
                },
            },
            send,
        )
    }
}
