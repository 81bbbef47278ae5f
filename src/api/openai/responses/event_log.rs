//! The events of a response that is made in the background, kept so that they can be read from any
//! place: while it is made and afterwards, by several readers.
//!
//! They count as a part of the response that is kept (`stored-size`). When that is deleted, they are
//! forgotten, and whoever reads them comes to an end.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use futures_util::stream;
use tokio::sync::watch;

/// Bytes of events that are sent as one piece.
const PIECE: usize = 64 << 10;
/// What an event takes beside its text.
const OVERHEAD: usize = 2 * size_of::<Bytes>();

#[derive(Debug)]
pub struct EventLog {
    log: Mutex<Log>,
    /// Changes whenever there is more to read.
    grown: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Log {
    /// By their sequence numbers.
    events: Vec<Bytes>,
    bytes: usize,
    /// Nothing will be added any more.
    over: bool,
}

impl Default for EventLog {
    fn default() -> Self {
        Self {
            log: Mutex::default(),
            grown: watch::channel(()).0,
        }
    }
}

impl EventLog {
    fn log(&self) -> MutexGuard<'_, Log> {
        // Nothing panics while it is held.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds events; `over`: the last ones.
    pub fn add(&self, events: Vec<Bytes>, over: bool) {
        let mut log = self.log();
        if !log.over {
            log.bytes += events
                .iter()
                .map(|event| event.len() + OVERHEAD)
                .sum::<usize>();
            log.events.extend(events);
            log.over = over;
        }
        drop(log);
        self.grown.send_replace(());
    }

    /// Drops all that there is, for everyone who reads it.
    pub fn forget(&self) {
        *self.log() = Log {
            over: true,
            ..Log::default()
        };
        self.grown.send_replace(());
    }

    /// What it takes.
    pub fn bytes(&self) -> usize {
        self.log().bytes
    }

    /// Some of the events from this one on, and the number of the one behind them; `None` when there
    /// will be no more.
    fn read(&self, from: usize) -> Option<(Vec<u8>, usize)> {
        let log = self.log();
        let (mut piece, mut next) = (vec![], from);
        while let Some(event) = log.events.get(next) {
            if !piece.is_empty() && piece.len() + event.len() > PIECE {
                break;
            }
            piece.extend_from_slice(event);
            next += 1;
        }
        (!piece.is_empty() || !log.over).then_some((piece, next))
    }

    /// The events from this one on, as they come.
    pub fn streamed(self: &Arc<Self>, from: usize) -> Response {
        let reader = (self.clone(), self.grown.subscribe(), from);
        let pieces = stream::unfold(reader, |(log, mut grown, from)| async move {
            loop {
                // Before looking, so that nothing is missed that comes meanwhile.
                grown.mark_unchanged();
                let (piece, next) = log.read(from)?;
                if !piece.is_empty() {
                    return Some((Ok::<_, Infallible>(Bytes::from(piece)), (log, grown, next)));
                }
                // Its sender is in the log that is held here.
                grown.changed().await.ok()?;
            }
        });
        let mut response = Response::new(Body::from_stream(pieces));
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/event-stream; charset=utf-8"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    async fn all(response: Response) -> String {
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    fn events(texts: &[&str]) -> Vec<Bytes> {
        texts
            .iter()
            .map(|text| Bytes::copy_from_slice(text.as_bytes()))
            .collect()
    }

    #[tokio::test]
    async fn readers_begin_anywhere_and_end_with_it() {
        let log = Arc::new(EventLog::default());
        log.add(events(&["a", "b"]), false);
        let (first, late) = (log.streamed(0), log.streamed(3));
        let writer = log.clone();
        let (first, late, ()) = tokio::join!(all(first), all(late), async move {
            tokio::task::yield_now().await;
            writer.add(events(&["c"]), false);
            tokio::task::yield_now().await;
            writer.add(events(&["d"]), true);
            writer.add(events(&["after the end"]), true);
        });
        assert_eq!((first.as_str(), late.as_str()), ("abcd", "d"));
        assert_eq!(all(log.streamed(2)).await, "cd");
        assert_eq!(all(log.streamed(99)).await, "");
        assert_eq!(log.bytes(), 4 + 4 * OVERHEAD);
    }

    #[tokio::test]
    async fn what_was_forgotten_ends_its_readers() {
        let log = Arc::new(EventLog::default());
        log.add(events(&["a"]), false);
        let reader = log.streamed(1);
        let forgets = log.clone();
        let (read, ()) = tokio::join!(all(reader), async move {
            tokio::task::yield_now().await;
            forgets.forget();
        });
        assert_eq!((read.as_str(), log.bytes()), ("", 0));
    }

    #[test]
    fn a_piece_is_bounded() {
        let log = EventLog::default();
        let long = "x".repeat(PIECE / 2 + 1);
        log.add(events(&[&long, &long, &long]), true);
        let (piece, next) = log.read(0).unwrap();
        assert_eq!((piece.len(), next), (long.len(), 1));
    }
}
